"""Splits, labels and batches: the same order everywhere, and epochs that only a seed and a number decide."""

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from drawn_source import DrawnSource, draw
from PIL import Image

from cnnrnn_tf.data.datasets import (
    count_steps,
    feature_training_batches,
    feature_validation_batches,
    image_batches,
    image_training_batches,
    image_validation_batches,
    load_labels,
)
from cnnrnn_tf.data.features import load_or_extract
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest, is_held_out
from tfrecords.schema import parse

NAMES = [f"image {i}" for i in range(40)]
LABELS = ("sky", "sea", "boat", "sun")  # NAMES[i] has those of the bits of i % 16: none to all of them


class StripedSource(DrawnSource):
    """Pictures of 12 x 8 px whose left half has the shade i and whose right half is black: flips show."""

    def read_image(self, annotation):
        pixels = np.zeros([8, 12, 3], np.uint8)
        pixels[:, :6] = 5 * int(annotation.image_id.split()[1]) + 20
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def label_names(i):
    return [name for bit, name in enumerate(LABELS) if i >> bit & 1]


def annotations(numbers):
    for i in numbers:
        missing = [name for name in LABELS if name not in label_names(i)]
        yield draw(f"image {i}", *label_names(i), ignored=tuple(missing[:1] if i % 3 == 0 else ()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 images in train, 8 in test, no validation split."""
    contents = {"train": list(annotations(range(40))), "test": list(annotations(range(40, 48)))}
    data_dir = tmp_path_factory.mktemp("data")
    build(StripedSource(contents), "striped", data_dir, workers=1, progress=False)
    return data_dir / "striped"


@pytest.fixture(scope="module")
def labels(folder):
    return load_labels(folder, "train+holdout").labels


def number_features(labels):
    """Features that say which row they are."""
    return np.arange(len(labels), dtype=np.float32)[:, None]


def rows_of(batches, num_batches):
    return [inputs["features"].numpy()[:, 0].astype(int).tolist() for inputs, _ in batches.take(num_batches)]


# ---- splits and labels


def test_the_holdout_and_the_rest_are_apart_and_make_up_train(folder):
    whole, rest, held_out = (load_labels(folder, split) for split in ("train+holdout", "train", "holdout"))
    assert sorted(whole.image_ids) == sorted(NAMES)
    assert set(held_out.image_ids) == {name for name in NAMES if is_held_out(name)}
    assert len(held_out.image_ids) == Manifest.load(folder).holdout.num_images > 0
    assert rest.image_ids == [name for name in whole.image_ids if not is_held_out(name)]
    kept = [not is_held_out(name) for name in whole.image_ids]
    np.testing.assert_array_equal(rest.labels, whole.labels[kept])
    np.testing.assert_array_equal(rest.known, whole.known[kept])


def test_with_a_validation_split_nothing_is_held_out(tmp_path):
    contents = {"train": list(annotations(range(30))), "validation": list(annotations(range(30, 34)))}
    build(StripedSource(contents), "three", tmp_path, workers=1, progress=False)
    folder = tmp_path / "three"
    assert len(load_labels(folder, "train").image_ids) == 30
    assert load_labels(folder, "train").image_ids == load_labels(folder, "train+holdout").image_ids
    assert load_labels(folder, "holdout").image_ids == load_labels(folder, "validation").image_ids
    assert set(load_labels(folder, "validation").image_ids) == {f"image {i}" for i in range(30, 34)}


def test_labels_are_those_of_the_source_and_unknown_ones_are_no_targets(folder):
    loaded = load_labels(folder, "train+holdout")
    text = (folder / "vocabulary.json").read_text()
    vocabulary = sorted(LABELS, key=lambda name: text.index(f'"{name}"'))  # as its file lists them
    for image_id, row, known in zip(loaded.image_ids, loaded.labels, loaded.known, strict=True):
        i = int(image_id.split()[1])
        assert {vocabulary[k] for k in np.flatnonzero(row)} == set(label_names(i))
        missing = [name for name in LABELS if name not in label_names(i)]
        unknown = set(missing[:1]) if i % 3 == 0 else set()
        assert {vocabulary[k] for k in np.flatnonzero(known == 0)} == unknown
    assert (loaded.labels.dtype, loaded.known.dtype) == (np.uint8, np.uint8)
    assert not (loaded.labels & (1 - loaded.known)).any() and (loaded.known == 0).any()
    assert loaded.labels.sum(axis=1).min() == 0 and loaded.labels.sum(axis=1).max() == 4


def test_an_unknown_split_is_answered_with_those_there_are(folder):
    with pytest.raises(
        UserError, match=r"'tset' \(did you mean 'test'\?\).*train, holdout, train\+holdout, test"
    ):
        load_labels(folder, "tset")
    with pytest.raises(UserError, match="has no split 'validation'"):
        image_batches(folder, "validation", 8, 4)


@pytest.mark.parametrize("split", ["train", "holdout"])
def test_labels_pictures_and_records_have_one_order(folder, split):
    manifest = Manifest.load(folder)
    paths = manifest.shard_paths(folder, "test" if split == "test" else "train")
    on_disk = [
        parse(record, ["image/source_id"])["image/source_id"].numpy().decode()
        for record in tf.data.TFRecordDataset(paths)
    ]
    keep = {"train": lambda name: not is_held_out(name), "holdout": is_held_out}.get(split, lambda name: True)
    expected = [name for name in on_disk if keep(name)]
    assert load_labels(folder, split).image_ids == expected
    batches = list(image_batches(folder, split, 6, 7).as_numpy_iterator())
    assert [name.decode() for batch in batches for name in batch["image_id"]] == expected
    images = np.concatenate([batch["image"] for batch in batches])
    assert images.shape == (len(expected), 6, 6, 3) and images.dtype == np.uint8
    shades = [5 * int(name.split()[1]) + 20 for name in expected]
    np.testing.assert_array_equal(images[:, 3, 0], np.repeat(np.array(shades)[:, None], 3, axis=1))


# ---- epochs


def test_an_epoch_holds_every_image_once_but_for_the_remainder(labels):
    batches = feature_training_batches(number_features(labels), labels, batch_size=7, num_steps=5)
    epochs = np.reshape(rows_of(batches, 15), [3, 35])
    assert count_steps(40, 7) == 5
    for epoch in epochs:
        assert len(set(epoch)) == 35
    assert len({tuple(epoch) for epoch in epochs}) == 3  # another order each time,
    assert len({frozenset(epoch) for epoch in epochs}) == 3  # and others left out


def test_without_drop_remainder_nothing_is_left_out(labels):
    batches = feature_training_batches(
        number_features(labels), labels, batch_size=7, num_steps=5, drop_remainder=False
    )
    assert count_steps(40, 7, drop_remainder=False) == 6
    rows = rows_of(batches, 12)
    assert [len(batch) for batch in rows] == [7, 7, 7, 7, 7, 5] * 2
    assert sorted(itertools.chain(*rows[:6])) == sorted(itertools.chain(*rows[6:])) == list(range(40))


def test_without_shuffle_the_order_is_that_of_the_rows(labels):
    batches = feature_training_batches(
        number_features(labels), labels, batch_size=8, num_steps=5, shuffle=False
    )
    assert list(itertools.chain(*rows_of(batches, 10))) == list(range(40)) * 2


def test_a_split_smaller_than_a_batch_is_one_batch(labels):
    batches = feature_training_batches(number_features(labels[:3]), labels[:3], batch_size=32, num_steps=5)
    assert count_steps(3, 32) == count_steps(3, 32, drop_remainder=False) == 1
    assert [sorted(rows) for rows in rows_of(batches, 2)] == [[0, 1, 2]] * 2


def values_of(batches, num_batches):
    """All arrays of the first batches, flat."""
    return [np.asarray(array) for batch in batches.take(num_batches) for array in tf.nest.flatten(batch)]


@pytest.mark.parametrize("kind", ["features", "kept pictures", "crops"])
def test_epoch_k_is_the_same_whether_read_from_the_start_or_begun_there(folder, labels, kind):
    options = {"batch_size": 16, "num_steps": 5, "label_order": "shuffled", "seed": 3}

    def make(**more):
        if kind == "features":
            return feature_training_batches(number_features(labels), labels, **options, **more)
        how = {"crop": kind == "crops"}
        return image_training_batches(folder, "train+holdout", 6, labels, **options, **how, **more)

    unbroken = values_of(make(), 6)
    resumed = values_of(make(start_epoch=1), 4)
    per_batch = len(unbroken) // 6
    for expected, found in zip(unbroken[2 * per_batch :], resumed, strict=True):
        np.testing.assert_array_equal(found, expected)
    others = values_of(make(**{"start_epoch": 7}), 2)
    assert any((a != b).any() for a, b in zip(unbroken, others, strict=False))


def test_another_seed_gives_another_order(labels):
    orders = [
        tuple(
            rows_of(
                feature_training_batches(
                    number_features(labels), labels, batch_size=40, num_steps=5, seed=seed
                ),
                1,
            )[0]
        )
        for seed in (0, 1, 2**40)
    ]
    assert len(set(orders)) == 3


class Recorder(keras.Model):
    """Notes the rows that `fit` hands over."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def train_step(self, data):
        self.rows.append(data[0]["features"].numpy()[:, 0].tolist())
        return {"loss": tf.constant(0.0)}


def test_fit_resumed_at_an_epoch_reads_what_an_unbroken_fit_reads(labels):
    def fit(initial_epoch):
        model = Recorder()
        model.compile(run_eagerly=True)
        batches = feature_training_batches(
            number_features(labels), labels, batch_size=16, num_steps=5, start_epoch=initial_epoch
        )
        steps = count_steps(40, 16)
        model.fit(batches, steps_per_epoch=steps, initial_epoch=initial_epoch, epochs=4, verbose=0)
        return model.rows

    unbroken = fit(0)
    assert len(unbroken) == 8
    assert fit(2) == unbroken[4:]


# ---- what a batch holds


def test_paths_belong_to_the_features_beside_them(labels):
    batches = feature_training_batches(
        number_features(labels), labels, batch_size=10, num_steps=6, label_order="rare"
    )
    for inputs, targets in batches.take(4):
        for row, tokens, target in zip(inputs["features"], inputs["tokens"], targets, strict=True):
            path = np.flatnonzero(labels[int(row[0])])[::-1].tolist()
            assert tokens.numpy().tolist() == [5, *path, *[4] * (5 - len(path))]
            assert target.numpy().tolist() == [*path, *[4] * (6 - len(path))]


def test_the_shuffled_order_is_one_a_batch_and_another_in_the_next(labels):
    everything = np.ones([12, 4], np.uint8)
    batches = feature_training_batches(
        number_features(everything), everything, batch_size=4, num_steps=5, label_order="shuffled"
    )
    paths = [targets.numpy()[:, :4] for _, targets in batches.take(12)]
    for batch in paths:
        assert sorted(batch[0]) == [0, 1, 2, 3]
        np.testing.assert_array_equal(batch, np.tile(batch[0], [4, 1]))
    assert len({tuple(batch[0]) for batch in paths}) > 4


def test_a_vocabulary_of_one_label():
    labels = np.array([[1], [0]], np.uint8)
    batches = feature_training_batches(
        number_features(labels), labels, batch_size=2, num_steps=2, shuffle=False
    )
    [(inputs, targets)] = batches.take(1)
    assert inputs["tokens"].numpy().tolist() == [[2, 0], [2, 1]]
    assert targets.numpy().tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize("max_cache_bytes", [2**31, 0])
def test_pictures_belong_to_their_paths_and_half_of_them_are_mirrored(folder, labels, max_cache_bytes):
    straight = np.concatenate(
        [batch["image"] for batch in image_batches(folder, "train", 6, 16).as_numpy_iterator()]
    )
    labels = load_labels(folder, "train").labels
    options = {"batch_size": 16, "num_steps": 5, "max_cache_bytes": max_cache_bytes}
    mirrored = 0
    batches = image_training_batches(folder, "train", 6, labels, **options)
    for inputs, targets in batches.take(8):
        for image, target in zip(inputs["image"].numpy(), targets.numpy(), strict=True):
            row = next(i for i, one in enumerate(straight) if one.max() == image.max())
            if (image != straight[row]).any():
                np.testing.assert_array_equal(image[:, ::-1], straight[row])
                mirrored += 1
            assert [k for k in target if k < 4] == np.flatnonzero(labels[row]).tolist()
    assert 40 < mirrored < 88  # of 128: four standard deviations


def test_pictures_are_moved_as_numpy_pads_and_cuts_each_by_a_draw_of_its_own(folder):
    straight = np.concatenate(
        [batch["image"] for batch in image_batches(folder, "train", 6, 16).as_numpy_iterator()]
    )
    labels = load_labels(folder, "train").labels
    options = {"batch_size": 16, "num_steps": 5, "shift": 1 / 3, "flip": False}  # by up to 2 px of 6
    batches = image_training_batches(folder, "train", 6, labels, **options)
    padded = np.pad(straight, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="reflect")
    moved = {
        x: padded[:, 1:7, x : x + 6] for x in range(5)
    }  # the stripes are upright: up and down look alike
    found = []
    for inputs, _ in batches.take(6):
        for image in inputs["image"].numpy():
            found.append({x for x in moved if (moved[x] == image).all(axis=(1, 2, 3)).any()})
    assert all(found)
    assert {min(xs) for xs in found if len(xs) == 1} == set(range(5))
    again = image_training_batches(folder, "train", 6, labels, **options)
    for (one, _), (two, _) in zip(batches.take(3), again.take(3), strict=True):
        np.testing.assert_array_equal(one["image"], two["image"])


def test_crops_differ_by_epoch_and_are_whole_squares(folder, labels):
    batches = image_training_batches(
        folder, "train+holdout", 6, labels, batch_size=40, num_steps=5, crop=True, shuffle=False
    )
    first, second = (inputs["image"].numpy() for inputs, _ in batches.take(2))
    assert first.shape == (40, 6, 6, 3) and first.dtype == np.uint8
    assert (first != second).any()
    for wrong in ({"flip": False}, {"shift": 0.1}):
        with pytest.raises(UserError, match="flip=False and a shift do not go with it"):
            image_training_batches(folder, "train", 6, labels, batch_size=4, num_steps=5, crop=True, **wrong)
    with pytest.raises(UserError, match=r"shift 0\.5: expected 0 or more and less than 0\.5"):
        image_training_batches(folder, "train", 6, labels, batch_size=4, num_steps=5, shift=0.5)


def test_without_paths_the_targets_are_the_rows_of_labels_with_what_is_unknown(folder):
    truth = load_labels(folder, "train")
    marks = np.where(truth.known != 0, truth.labels.astype(np.int8), np.int8(-1))
    assert {-1, 0, 1} == set(np.unique(marks).tolist())
    options = {"batch_size": 7, "num_steps": None, "flip": False}
    training = image_training_batches(folder, "train", 6, marks, seed=3, **options)
    rows = {tuple(picture.ravel()): row for picture, row in zip(read_pictures(folder), marks, strict=True)}
    for batch, targets in training.take(6).as_numpy_iterator():
        assert set(batch) == {"image"}
        for picture, row in zip(batch["image"], targets, strict=True):
            np.testing.assert_array_equal(row, rows[tuple(picture.ravel())])
    validation = image_validation_batches(folder, "train", 6, marks, batch_size=7, num_steps=None)
    found = [targets for _, targets in validation.as_numpy_iterator()]
    np.testing.assert_array_equal(np.concatenate(found), marks)


def read_pictures(folder):
    return [
        image
        for batch in image_batches(folder, "train", 6, 8).as_numpy_iterator()
        for image in batch["image"]
    ]


@pytest.mark.parametrize("max_cache_bytes", [2**31, 0])
def test_validation_is_one_pass_in_the_order_of_the_records(folder, labels, max_cache_bytes):
    batches = image_validation_batches(
        folder, "train+holdout", 6, labels, batch_size=16, num_steps=5, max_cache_bytes=max_cache_bytes
    )
    inputs, targets = zip(*batches.as_numpy_iterator(), strict=True)
    assert [len(batch) for batch in targets] == [16, 16, 8]
    images = [batch["image"] for batch in image_batches(folder, "train+holdout", 6, 16).as_numpy_iterator()]
    np.testing.assert_array_equal(
        np.concatenate([batch["image"] for batch in inputs]), np.concatenate(images)
    )
    same = feature_validation_batches(number_features(labels), labels, batch_size=16, num_steps=5)
    assert list(itertools.chain(*rows_of(same, -1))) == list(range(40))
    np.testing.assert_array_equal(
        np.concatenate([t for _, t in same.as_numpy_iterator()]), np.concatenate(targets)
    )


class EdgedSource(DrawnSource):
    """Black pictures of 24 x 8 px whose left edge is white: the centre square never shows it."""

    def read_image(self, annotation):
        pixels = np.zeros([8, 24, 3], np.uint8)
        pixels[:, :3] = 255
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


@pytest.mark.parametrize(("image_fit", "sees_the_edge"), [("crop", False), ("stretch", True)])
def test_the_whole_picture_is_seen_where_it_is_stretched(tmp_path, image_fit, sees_the_edge):
    build(EdgedSource({"train": list(annotations(range(40)))}), "edged", tmp_path, workers=1, progress=False)
    folder = tmp_path / "edged"
    labels = load_labels(folder, "train").labels
    options = {"batch_size": 16, "num_steps": 5, "image_fit": image_fit}
    make = {
        "records": lambda: image_batches(folder, "train", 8, 16, image_fit),
        "kept": lambda: image_training_batches(folder, "train", 8, labels, **options),
        "read": lambda: image_training_batches(folder, "train", 8, labels, max_cache_bytes=0, **options),
        "validation": lambda: image_validation_batches(folder, "train", 8, labels, **options),
    }
    for name, batches in make.items():
        [batch] = batches().take(1)
        pictures = (batch if name == "records" else batch[0])["image"].numpy()
        assert {picture.max() > 200 for picture in pictures} == {sees_the_edge}, name
    [(random, _)] = image_training_batches(folder, "train", 8, labels, crop=True, **options).take(1)
    widths = (random["image"].numpy()[:, 0, :, 0] > 127).sum(axis=1)  # of the edge, px: 3 of 24, or 1 of 8
    assert widths.max() == (1 if sees_the_edge else 3)

    def brightest(images):
        return tf.reduce_max(images, axis=[1, 2])

    found = load_or_extract(folder, "train", image_fit, brightest, 8, image_fit, progress=False)
    assert {row.max() > 200 for row in found} == {sees_the_edge}


# ---- mistakes


def test_what_does_not_fit_together_is_refused(folder, labels):
    features = number_features(labels)
    with pytest.raises(UserError, match="4 labels, which with END takes num_steps = 5"):
        feature_training_batches(features, labels, batch_size=4, num_steps=4)
    with pytest.raises(UserError, match="39 rows of features and 40 of labels"):
        feature_training_batches(features[1:], labels, batch_size=4, num_steps=5)
    with pytest.raises(UserError, match="a split without images"):
        feature_training_batches(features[:0], labels[:0], batch_size=4, num_steps=5)
    with pytest.raises(UserError, match="a batch of 0 images"):
        feature_training_batches(features, labels, batch_size=0, num_steps=5)
    for max_cache_bytes in (2**31, 0):
        for split in ("train", "test"):  # fewer rows and more
            rows = labels if split == "test" else labels[:5]
            with pytest.raises(UserError, match=f"do not belong to the split '{split}'"):
                image_validation_batches(
                    folder, split, 6, rows, batch_size=4, num_steps=5, max_cache_bytes=max_cache_bytes
                )


# ---- replicas

# Logical devices must be set up before TensorFlow starts, hence a process of its own.
SCRIPT = """
import sys
import numpy as np, tensorflow as tf
from cnnrnn_tf.data.datasets import feature_training_batches, image_training_batches, load_labels

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.keras.utils.set_random_seed(0)
tf.config.experimental.enable_op_determinism()
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
labels = load_labels(sys.argv[1], "train").labels
options = dict(batch_size=8, num_steps=5, label_order="shuffled", seed=1)
features = np.random.default_rng(0).random([len(labels), 3], np.float32)
makers = [
    lambda: feature_training_batches(features, labels, **options),
    lambda: image_training_batches(sys.argv[1], "train", 6, labels, **options),
]
for make in makers:
    alone = iter(make())
    together = iter(strategy.experimental_distribute_dataset(make()))
    for _ in range(9):
        shares = [strategy.experimental_local_results(part) for part in tf.nest.flatten(next(together))]
        for parts, whole in zip(shares, tf.nest.flatten(next(alone)), strict=True):
            assert [len(part) for part in parts] == [4, 4], parts
            np.testing.assert_array_equal(np.concatenate(parts), whole)
print("SAME")
"""


def test_two_replicas_share_the_batches_of_one(folder):
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "-1"}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip().endswith("SAME")
