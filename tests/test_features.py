"""Features are computed once, belong to their records and to nothing else, and come in the records' order."""

import errno
import functools
import json
import shutil
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import cnnrnn_tf.data.feature_files as feature_files_module
import cnnrnn_tf.data.features as features_module
import cnnrnn_tf.training.features as training_features_module
import tfrecords.build as build_module
from cnnrnn_tf.config import TrainingConfig
from cnnrnn_tf.data.datasets import (
    count_steps,
    feature_training_batches,
    feature_validation_batches,
    image_batches,
    image_training_batches,
    image_validation_batches,
    load_labels,
)
from cnnrnn_tf.data.features import feature_fingerprint, load_or_extract
from cnnrnn_tf.data.images import cut_hypotheses, decode_image
from cnnrnn_tf.data.records import read_files, shard_batches
from cnnrnn_tf.data.sequences import longest_path
from cnnrnn_tf.model.backbones import Backbone
from cnnrnn_tf.model.cnn_rnn import CNNRNN
from cnnrnn_tf.model.losses import PathNegativeLogLikelihood, PathNLL
from cnnrnn_tf.training.features import cached_features
from cnnrnn_tf.training.optimizer import make_optimizer
from tfrecords import progress
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.sources.demo import DemoSource
from tfrecords.writer import plan_shards

SIZE_PX = 12


class MeanColour:
    """An extractor that counts the pictures it is shown, and is stopped once: <float32>[batch, 3]."""

    def __init__(self, poison=None, stop_after=np.inf, error=KeyboardInterrupt):
        self.batch_sizes, self.poison = [], poison
        self.stop_after, self.error = stop_after, error

    @property
    def num_shown(self):
        return sum(self.batch_sizes)

    def __call__(self, images):
        if self.num_shown >= self.stop_after:
            raise self.error
        self.batch_sizes.append(len(images))
        colours = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2])
        return colours if self.poison is None else colours * self.poison


def build_demo(data_dir, seed=0, **options):
    """40 images of train in four shards, 10 of test in one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "plan_shards", functools.partial(plan_shards, images_per_shard=10))
        source = DemoSource(seed, num_train=40, num_test=10)
        build(source, "demo", data_dir, workers=1, progress=False, **options)
    return data_dir / "demo"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_demo(tmp_path_factory.mktemp("data"))


@pytest.fixture
def folder(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "demo"))


@pytest.fixture(scope="module")
def pictures(built):
    """Shard -> its pictures and ids, decoded once: most tests ask how often they are read, not how."""
    manifest = Manifest.load(built)
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    batches = shard_batches(built, shards, SIZE_PX, 10)
    return {shard.file: batch for shard, batch in zip(shards, batches, strict=True)}


@pytest.fixture
def decoded(folder, pictures, monkeypatch):
    """A folder whose pictures need no decoding."""

    def take(dataset_dir, shards, image_size, batch_size, *settings):
        for shard in shards:
            for start in range(0, shard.num_records, batch_size):
                rows = slice(start, start + batch_size)
                yield {key: column[rows] for key, column in pictures[shard.file].items()}

    monkeypatch.setattr(features_module, "shard_batches", take)
    return folder


def load(folder, split, extract, fingerprint="f", image_size=SIZE_PX, progress=False, **options):
    return load_or_extract(
        folder, split, fingerprint, extract, image_size, batch_size=8, progress=progress, **options
    )


def mean_colours(folder, split):
    batches = image_batches(folder, split, SIZE_PX, 100).as_numpy_iterator()
    return np.concatenate([batch["image"].mean(axis=(1, 2), dtype=np.float64) for batch in batches])


def train_file(folder, number):
    return folder / "features" / "f" / f"train-{number:05d}-of-00004.npy"


def read_all(folder):
    return {path.name: path.read_bytes() for path in (folder / "features" / "f").iterdir()}


# ---- one pass


def test_one_pass_serves_all_parts_of_a_split_in_the_order_of_the_labels(folder):
    extract = MeanColour()
    for split in ("holdout", "train", "train+holdout"):
        features = load(folder, split, extract)
        assert features.dtype == np.float32
        assert len(features) == len(load_labels(folder, split).image_ids) > 0
        np.testing.assert_allclose(features, mean_colours(folder, split), rtol=1e-5)
    assert extract.num_shown == 40
    assert len(load(folder, "test", extract)) == 10
    assert extract.batch_sizes == [8, 2] * 5  # a shard begins a batch of its own
    shards = ["test-00000-of-00001", *(f"train-{i:05d}-of-00004" for i in range(4))]
    assert sorted(read_all(folder)) == [f"{shard}.{end}" for shard in shards for end in ("json", "npy")]


def test_the_file_of_a_shard_has_the_features_of_its_records_and_their_ids(decoded):
    features = load(decoded, "train+holdout", MeanColour())
    image_ids = load_labels(decoded, "train+holdout").image_ids
    for number in range(4):
        path = train_file(decoded, number)
        np.testing.assert_array_equal(np.load(path), features[10 * number : 10 * number + 10])
        meta = json.loads(path.with_suffix(".json").read_text())
        assert meta["image_ids"] == image_ids[10 * number : 10 * number + 10]


def test_a_split_of_one_shard_is_read_through_a_memory_map(decoded):
    features = load(decoded, "test", MeanColour())
    assert isinstance(features, np.memmap) and not features.flags.writeable


def test_another_fingerprint_is_another_cache(decoded):
    extract = MeanColour()
    load(decoded, "test", extract)
    load(decoded, "test", extract, fingerprint="g")
    assert extract.num_shown == 20


def test_one_bar_runs_over_all_images_of_the_split_and_begins_where_a_stopped_pass_ended(
    decoded, capsys, monkeypatch
):
    told = []

    class SlowerThanTheBar(MeanColour):
        def __call__(self, images):
            deadline_s = time.monotonic() + 10
            while not any(told) and time.monotonic() < deadline_s:
                told.append(capsys.readouterr().err)
                time.sleep(0.001)
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        load(decoded, "train", MeanColour(stop_after=20))
    for pause in ("FIRST_LINE_S", "LINES_S"):
        monkeypatch.setattr(progress, pause, 1e-4)
    load(decoded, "train", SlowerThanTheBar(), progress=True)
    first, *_, last = ("".join(told) + capsys.readouterr().err).splitlines()
    assert first.startswith("features of train: 20 of 40 images, 50 %")
    assert last.startswith("features of train: 40 images in ")
    load(decoded, "holdout", MeanColour(), progress=True)
    assert capsys.readouterr().err == ""


# ---- stopped


@pytest.mark.parametrize(
    ("stop_after", "num_kept"), [(0, 0), (1, 0), (10, 1), (11, 1), (20, 2), (32, 3), (38, 3)]
)
def test_a_stopped_pass_goes_on_with_the_missing_shards_and_ends_as_an_unbroken_one(
    decoded, stop_after, num_kept, caplog
):
    unbroken = load(decoded, "train+holdout", MeanColour())
    expected = read_all(decoded)
    shutil.rmtree(decoded / "features")
    with pytest.raises(KeyboardInterrupt):
        load(decoded, "train", MeanColour(stop_after=stop_after))
    assert len(read_all(decoded)) == 2 * num_kept
    extract = MeanColour()
    np.testing.assert_array_equal(load(decoded, "train+holdout", extract), unbroken)
    assert extract.num_shown == 40 - 10 * num_kept
    assert read_all(decoded) == expected
    assert caplog.text == ""


def test_what_a_killed_process_leaves_of_a_shard_is_replaced_in_silence(decoded, caplog):
    load(decoded, "train", MeanColour())
    expected = read_all(decoded)
    path = train_file(decoded, 2)
    path.rename(path.with_name(f".{path.name}"))  # killed between the two files of a shard
    extract = MeanColour()
    load(decoded, "train", extract)
    assert extract.num_shown == 10 and read_all(decoded) == expected and caplog.text == ""


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(decoded, monkeypatch):
    save, saved = np.save, []

    def save_two(file, array):
        saved.append(save(file, array[:5] if len(saved) == 2 else array))
        if len(saved) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(feature_files_module.np, "save", save_two)
        with pytest.raises(UserError, match=r"No space left on device; free or choose a disk, and run again"):
            load(decoded, "train", MeanColour())
    names = [train_file(decoded, number).name for number in range(2)]
    assert sorted(name for name in read_all(decoded) if name.endswith(".npy")) == names
    assert len(read_all(decoded)) == 4
    extract = MeanColour()
    load(decoded, "train", extract)
    assert extract.num_shown == 20


def test_two_who_ask_at_once_compute_once(decoded, capsys):
    extract, results = MeanColour(), []
    threads = [
        threading.Thread(target=lambda: results.append(load(decoded, "train", extract))) for _ in range(2)
    ]
    with feature_files_module.locked(decoded / "features" / "f"):
        for thread in threads:
            thread.start()
        threads[0].join(0.5)
        assert extract.num_shown == 0
    for thread in threads:
        thread.join()
    assert extract.num_shown == 40
    np.testing.assert_array_equal(*results)
    where = decoded / "features" / "f"
    said = f"waiting for another process, which is computing these features in {where} ...\n"
    assert capsys.readouterr().err == 2 * said


# ---- foreign or damaged


def test_features_of_records_that_changed_are_computed_again(folder, tmp_path, caplog):
    old = np.array(load(folder, "test", MeanColour()))
    saved = read_all(folder)
    folder = build_demo(tmp_path, seed=1, overwrite=True)
    (folder / "features" / "f").mkdir(parents=True, exist_ok=True)
    for name, content in saved.items():  # as if the build had left them there
        (folder / "features" / "f" / name).write_bytes(content)
    extract = MeanColour()
    new = load(folder, "test", extract)
    assert extract.num_shown == 10
    assert "test-00000-of-00001.npy is computed again: its manifest is" in caplog.text
    np.testing.assert_allclose(new, mean_colours(folder, "test"), rtol=1e-5)
    assert not np.allclose(old, new)


def damage_meta(**changes):
    def damage(npy, meta):
        meta.write_text(json.dumps({**json.loads(meta.read_text()), **changes}))

    return damage


def flip_last_bit(npy, meta):
    content = bytearray(npy.read_bytes())
    content[-1] ^= 1
    npy.write_bytes(content)


def replace_array(array):
    """Another array, with a meta file that vouches for it."""

    def damage(npy, meta):
        np.save(npy, array)
        damage_meta(sha256=feature_files_module._hash_file(npy))(npy, meta)

    return damage


def rename_image(npy, meta):
    damage_meta(image_ids=["other", *json.loads(meta.read_text())["image_ids"][1:]])(npy, meta)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda npy, meta: meta.unlink(), "cannot be read (FileNotFoundError"),
        (lambda npy, meta: meta.write_text("{"), "cannot be read (JSONDecodeError"),
        (lambda npy, meta: meta.write_text("[]"), "cannot be read (TypeError"),
        (damage_meta(format=1), "its format is 1, expected 2"),
        (damage_meta(features="another"), "its features is 'another', expected 'f'"),
        (damage_meta(manifest="another"), "its manifest is 'another'"),
        (damage_meta(file="train-00000-of-00004.tfrecord"), "its file is 'train-00000-of-00004.tfrecord'"),
        (damage_meta(records_sha256="0"), "its records_sha256 is '0'"),
        (damage_meta(num_records=9), "its num_records is 9, expected 10"),
        (damage_meta(image_size=24), "its image_size is 24, expected 12"),
        (damage_meta(image_fit="stretch"), "its image_fit is 'stretch', expected 'crop'"),
        (damage_meta(hypotheses=True), "its hypotheses is True, expected False"),
        (damage_meta(image_ids=[str(i) for i in range(9)]), "the image ids beside it"),
        (rename_image, "the image ids beside it"),
        (lambda npy, meta: npy.write_bytes(npy.read_bytes()[:-7]), "it was changed or cut off"),
        (lambda npy, meta: npy.write_bytes(b""), "it was changed or cut off"),
        (lambda npy, meta: npy.write_bytes(npy.read_bytes() + b"\0"), "it was changed or cut off"),
        (flip_last_bit, "it was changed or cut off"),
        (lambda npy, meta: np.save(npy, np.zeros([10, 3], np.float32)), "it was changed or cut off"),
        (replace_array(np.zeros([9, 3], np.float32)), "it holds float32 [9, 3], expected float32 [10, ...]"),
        (replace_array(np.zeros([10, 3])), "it holds float64 [10, 3], expected float32 [10, ...]"),
    ],
)
def test_what_is_damaged_or_foreign_is_computed_again(decoded, damage, reason, caplog):
    expected = np.array(load(decoded, "test", MeanColour()))
    npy = decoded / "features" / "f" / "test-00000-of-00001.npy"
    damage(npy, npy.with_suffix(".json"))
    extract = MeanColour()
    np.testing.assert_array_equal(load(decoded, "test", extract), expected)
    assert extract.num_shown == 10
    assert f"{npy.name} is computed again: " in caplog.text and reason in caplog.text
    load(decoded, "test", extract)
    assert extract.num_shown == 10  # and is whole again


@pytest.mark.parametrize("with_meta", [False, True])
def test_shards_that_were_swapped_are_computed_again_and_no_others(decoded, with_meta, caplog):
    expected = load(decoded, "train+holdout", MeanColour())
    for suffix in (".npy", ".json") if with_meta else (".npy",):
        one, two = (train_file(decoded, number).with_suffix(suffix) for number in (1, 3))
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)
    extract = MeanColour()
    np.testing.assert_array_equal(load(decoded, "train+holdout", extract), expected)
    assert extract.num_shown == 20
    assert caplog.text.count("is computed again") == 2


def test_a_file_of_a_whole_split_as_it_was_kept_before_is_not_looked_at(decoded):
    old = decoded / "features" / "f" / "test.npy"
    old.parent.mkdir(parents=True)
    np.save(old, np.zeros([10, 3], np.float32))
    assert load(decoded, "test", MeanColour()).min() > 0


# ---- refused


def test_features_that_are_not_finite_are_refused_with_the_image(decoded):
    with pytest.raises(UserError, match="are not finite"):
        load(decoded, "test", MeanColour(poison=np.nan))
    with pytest.raises(UserError, match=load_labels(decoded, "test").image_ids[0]):
        load(decoded, "test", MeanColour(poison=np.inf))
    assert read_all(decoded) == {}


def test_an_extractor_of_the_wrong_shape_is_refused(decoded):
    with pytest.raises(ValueError, match="expected one row each"):
        load(decoded, "test", lambda images: tf.zeros([len(images), 2, 3]))
    with pytest.raises(ValueError, match="expected one row each"):
        load(decoded, "test", lambda images: tf.zeros([1, 3]))


def test_records_that_lack_one_are_refused_before_anything_is_computed(decoded):
    shard = decoded / "train-00002-of-00004.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    extract = MeanColour()
    with pytest.raises(UserError, match="holds 9 whole records, expected 10: build the data set again"):
        load(decoded, "train", extract)
    assert extract.num_shown == 0


# ---- hypotheses


@pytest.mark.parametrize("split", ["holdout", "test"])
def test_features_of_hypotheses_are_those_of_each_square_of_each_image(folder, split):
    extract = MeanColour()
    features = load(folder, split, extract, hypotheses=True, image_fit="stretch")
    num_images = len(load_labels(folder, split).image_ids)
    assert features.shape == (num_images, 6, 3) and features.dtype == np.float32
    assert extract.num_shown == 6 * (10 if split == "test" else 40)
    assert set(extract.batch_sizes) == {6}  # of one image: two would be more than 8
    files = [encoded for _, encoded in read_files(folder, split, num_images)]
    squares = [cut_hypotheses(decode_image(encoded), SIZE_PX, "stretch").numpy() for encoded in files]
    np.testing.assert_allclose(features, np.mean(squares, axis=(2, 3)), rtol=1e-5)


# ---- what the features of a CNN depend on


def make_backbone(seed=0, name="compact", policy="float32", **options):
    keras.utils.set_random_seed(seed)
    backbone = Backbone(name, image_size=options.pop("image_size", 32), dtype=policy, **options)
    backbone.build()
    backbone.freeze()
    return backbone


@pytest.fixture
def fingerprint_of(folder, monkeypatch):
    """What features of a backbone are kept under, without computing any."""

    def find(backbone, hypotheses=False, dataset_dir=folder):
        found = []
        with monkeypatch.context() as patch:
            patch.setattr(
                training_features_module, "load_or_extract", lambda *args, **options: found.append(args[2])
            )
            cached_features(backbone, dataset_dir, "test", hypotheses)
        return found[0]

    return find


def test_each_thing_that_features_depend_on_has_a_cache_of_its_own(fingerprint_of, tmp_path, monkeypatch):
    mobile = {"name": "mobilenet_v2", "feature_layer": "block_1_project"}
    fingerprints = [
        fingerprint_of(make_backbone()),
        fingerprint_of(make_backbone(seed=1)),
        fingerprint_of(make_backbone(image_fit="stretch")),
        fingerprint_of(make_backbone(image_size=48)),
        fingerprint_of(make_backbone(policy="mixed_bfloat16")),
        fingerprint_of(make_backbone(), hypotheses=True),
        fingerprint_of(make_backbone(), dataset_dir=build_demo(tmp_path / "other", seed=1)),
        fingerprint_of(make_backbone(**mobile)),
        fingerprint_of(make_backbone(**{**mobile, "feature_layer": "block_1_project_BN"})),
    ]
    monkeypatch.setattr(training_features_module, "PIXELS_VERSION", 0)
    fingerprints.append(fingerprint_of(make_backbone()))
    assert len(set(fingerprints)) == 10


def test_a_layer_that_adds_no_weights_has_a_cache_of_its_own(fingerprint_of):
    layers = ("block_1_expand_BN", "block_1_expand_relu")
    before, behind = (make_backbone(name="mobilenet_v2", feature_layer=layer) for layer in layers)
    assert [w.shape for w in before.weights] == [w.shape for w in behind.weights]
    assert fingerprint_of(before) != fingerprint_of(behind)


def test_the_same_cnn_under_another_name_shares_the_cache(fingerprint_of):
    assert fingerprint_of(make_backbone()) == fingerprint_of(make_backbone(name="compact"))
    keras.utils.set_random_seed(0)
    model = CNNRNN(3, 2, backbone="compact", image_size=32, cell_units=4, embedding_dim=3)
    model.build()
    model.backbone.freeze()
    copy = make_backbone(seed=1)
    copy.set_weights(model.backbone.get_weights())
    assert fingerprint_of(copy) == fingerprint_of(model.backbone)


@pytest.mark.parametrize("hypotheses", [False, True])
def test_cached_features_are_those_of_the_cnn_and_are_computed_once(folder, hypotheses, monkeypatch):
    backbone = make_backbone()
    features = np.array(cached_features(backbone, folder, "test", hypotheses))
    [batch] = image_batches(folder, "test", 32, 10)
    whole = features[:, 0] if hypotheses else features
    np.testing.assert_allclose(whole, backbone(batch["image"]), rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(Backbone, "call", None)
    np.testing.assert_array_equal(cached_features(backbone, folder, "test", hypotheses), features)


def test_a_cnn_that_is_trained_has_no_cached_features(folder):
    backbone = make_backbone()
    backbone.trainable = True
    with pytest.raises(UserError, match=r"features of compact cannot be kept: it is trainable"):
        cached_features(backbone, folder, "train")
    assert not (folder / "features").exists()


# ---- training on features is training through the CNN


def make_tagger(labels):
    keras.utils.set_random_seed(0)
    model = CNNRNN(
        labels.shape[1],
        longest_path(labels),
        backbone="compact",
        image_size=32,
        image_fit="stretch",
        cell_units=16,
        embedding_dim=8,
        dropout=0.5,
        standardise_features=True,
    )
    model.build()
    model.backbone.freeze()
    return model


def fit(model, trained, train_batches, holdout_batches, steps):
    """Two epochs as `train.py` has them, of `model` or of its decoder; dropout drops the same in both."""

    def seed_dropout(epoch, logs):
        for place, layer in enumerate([model.decoder.feature_dropout, model.decoder.output_dropout]):
            layer.seed_generator.state.assign([epoch, 1000 * place])

    config = TrainingConfig(epochs=2, learning_rate=1e-3, warmup_epochs=1)
    trained.compile(make_optimizer(config, steps), loss=PathNegativeLogLikelihood(), metrics=[PathNLL()])
    return trained.fit(
        train_batches,
        validation_data=holdout_batches,
        epochs=2,
        steps_per_epoch=steps,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=seed_dropout)],
        shuffle=False,
        verbose=0,
    ).history


def test_a_decoder_learns_from_cached_features_what_it_learns_through_the_frozen_cnn(folder):
    train, holdout = (load_labels(folder, split).labels for split in ("train", "holdout"))
    options = {"batch_size": 8, "num_steps": longest_path(np.concatenate([train, holdout])) + 1, "seed": 3}
    square = {"image_fit": "stretch", **options}
    steps = count_steps(len(train), 8)
    model, through_cnn = make_tagger(train), make_tagger(train)
    features = cached_features(model.backbone, folder, "train")
    for each in (model, through_cnn):
        each.decoder.adapt_features(features)
    before = [weight.numpy() for weight in model.weights]
    losses = fit(
        model,
        model.decoder,
        feature_training_batches(features, train, **options),
        feature_validation_batches(cached_features(model.backbone, folder, "holdout"), holdout, **options),
        steps,
    )
    expected = fit(
        through_cnn,
        through_cnn,
        image_training_batches(folder, "train", 32, train, flip=False, **square),
        image_validation_batches(folder, "holdout", 32, holdout, **square),
        steps,
    )
    assert losses.keys() == expected.keys() >= {"loss", "nll", "val_loss", "val_nll"}
    for name in expected:
        np.testing.assert_allclose(losses[name], expected[name], rtol=1e-5, err_msg=name)
    for one, other in zip(model.weights, through_cnn.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=one.path)
    moved = [np.abs(one - old).max() for one, old in zip(model.weights, before, strict=True)]
    assert max(moved) > 1e-2  # a thousand times the tolerance


# ---- fingerprints


WEIGHTS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(1)]


def test_the_fingerprint_stands_for_everything():
    described = {"layer": "fc7", "image_size": 224}
    fingerprint = feature_fingerprint("m", described, WEIGHTS)
    assert len(fingerprint) == 64
    assert fingerprint == feature_fingerprint(
        "m", dict(reversed(described.items())), [w.copy() for w in WEIGHTS]
    )
    changed = WEIGHTS[0].copy()
    changed[1, 2] += 1e-6 * 5
    others = [
        feature_fingerprint("n", described, WEIGHTS),
        feature_fingerprint("m", {**described, "layer": "pool5"}, WEIGHTS),
        feature_fingerprint("m", described, [changed, WEIGHTS[1]]),
        feature_fingerprint("m", described, [WEIGHTS[0].T, WEIGHTS[1]]),
        feature_fingerprint("m", described, [WEIGHTS[0].reshape(3, 2), WEIGHTS[1]]),
        feature_fingerprint("m", described, [WEIGHTS[0].astype(np.float16), WEIGHTS[1]]),
        feature_fingerprint("m", described, WEIGHTS[::-1]),
        feature_fingerprint("m", described, WEIGHTS[:1]),
    ]
    assert len({fingerprint, *others}) == 9
