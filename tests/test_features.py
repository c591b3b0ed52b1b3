"""Features are computed once, belong to their records and to nothing else, and come in the records' order."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import cnnrnn_tf.data.features as features_module
from cnnrnn_tf.data.datasets import image_batches, load_labels
from cnnrnn_tf.data.features import feature_fingerprint, load_or_extract
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.sources.demo import DemoSource

SIZE_PX = 12


class MeanColour:
    """An extractor that counts the pictures it is shown: <float32>[batch, 3]."""

    def __init__(self, num_wide=3, poison=None):
        self.num_shown, self.num_wide, self.poison = 0, num_wide, poison

    def __call__(self, images):
        self.num_shown += len(images)
        colours = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2])[:, : self.num_wide]
        return colours if self.poison is None else colours * self.poison


def build_demo(data_dir, seed=0, **options):
    build(DemoSource(seed, num_train=40, num_test=10), "demo", data_dir, workers=1, progress=False, **options)
    return data_dir / "demo"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_demo(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def decoded(built):
    """The batches of a split, decoded once: most tests here ask how often they are read, not how."""
    whole = {split: list(image_batches(built, split, SIZE_PX, 16)) for split in ("train+holdout", "test")}
    return lambda dataset_dir, split, image_size, batch_size, image_fit: whole[split]


@pytest.fixture
def folder(built, decoded, tmp_path, monkeypatch):
    monkeypatch.setattr(features_module, "image_batches", decoded)
    return Path(shutil.copytree(built, tmp_path / "demo"))


def load(folder, split, extract, fingerprint="f", image_size=SIZE_PX):
    return load_or_extract(folder, split, fingerprint, extract, image_size, batch_size=16, progress=False)


def mean_colours(folder, split):
    batches = image_batches(folder, split, SIZE_PX, 100).as_numpy_iterator()
    return np.concatenate([batch["image"].mean(axis=(1, 2), dtype=np.float64) for batch in batches])


def test_one_pass_serves_all_parts_of_a_split_in_the_order_of_the_labels(folder, monkeypatch):
    monkeypatch.setattr(features_module, "image_batches", image_batches)
    extract = MeanColour()
    for split in ("holdout", "train", "train+holdout"):
        features = load(folder, split, extract)
        assert features.dtype == np.float32
        assert len(features) == len(load_labels(folder, split).image_ids)
        np.testing.assert_allclose(features, mean_colours(folder, split), rtol=1e-5)
    assert extract.num_shown == 40
    assert len(load(folder, "test", extract)) == 10
    assert extract.num_shown == 50
    names = sorted(path.name for path in (folder / "features" / "f").iterdir())
    assert names == ["test.json", "test.npy", "train.json", "train.npy"]


def test_a_whole_split_is_read_through_a_memory_map(folder):
    features = load(folder, "train+holdout", MeanColour())
    assert isinstance(features, np.memmap) and not features.flags.writeable


def test_another_fingerprint_is_another_cache(folder):
    extract = MeanColour()
    load(folder, "test", extract)
    load(folder, "test", extract, fingerprint="g")
    assert extract.num_shown == 20


def test_features_of_records_that_changed_are_computed_again(folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(features_module, "image_batches", image_batches)
    old = np.array(load(folder, "test", MeanColour()))
    saved = {path.name: path.read_bytes() for path in (folder / "features" / "f").iterdir()}
    folder = build_demo(tmp_path, seed=1, overwrite=True)
    (folder / "features" / "f").mkdir(parents=True, exist_ok=True)
    for name, content in saved.items():  # as if the build had left them there
        (folder / "features" / "f" / name).write_bytes(content)
    extract = MeanColour()
    new = load(folder, "test", extract)
    assert extract.num_shown == 10
    assert "does not belong to the records" in caplog.text
    np.testing.assert_allclose(new, mean_colours(folder, "test"), rtol=1e-5)
    assert not np.allclose(old, new)


def damage_meta(**changes):
    def damage(npy, meta):
        meta.write_text(json.dumps({**json.loads(meta.read_text()), **changes}))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda npy, meta: meta.unlink(),
        lambda npy, meta: meta.write_text("{"),
        lambda npy, meta: npy.write_bytes(npy.read_bytes()[:-7]),
        lambda npy, meta: npy.write_bytes(b""),
        lambda npy, meta: np.save(npy, np.zeros([9, 3], np.float32)),
        lambda npy, meta: np.save(npy, np.zeros([10, 3], np.float64)),
        damage_meta(features="another"),
        damage_meta(split="train"),
        damage_meta(image_size=24),
        damage_meta(image_ids=[str(i) for i in range(10)]),
        damage_meta(shape=[10, 4]),
    ],
)
def test_what_is_damaged_or_foreign_is_computed_again(folder, damage):
    expected = np.array(load(folder, "test", MeanColour()))
    npy = folder / "features" / "f" / "test.npy"
    damage(npy, npy.with_suffix(".json"))
    extract = MeanColour()
    np.testing.assert_array_equal(load(folder, "test", extract), expected)
    assert extract.num_shown == 10
    load(folder, "test", extract)
    assert extract.num_shown == 10  # and is whole again


def test_an_interrupted_pass_leaves_nothing_behind(folder):
    def fail(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(folder, "test", fail)
    assert list((folder / "features" / "f").iterdir()) == []


def test_features_that_are_not_finite_are_refused_with_the_image(folder):
    with pytest.raises(UserError, match="are not finite"):
        load(folder, "test", MeanColour(poison=np.nan))
    with pytest.raises(UserError, match=load_labels(folder, "test").image_ids[0]):
        load(folder, "test", MeanColour(poison=np.inf))
    assert list((folder / "features" / "f").iterdir()) == []


def test_an_extractor_of_the_wrong_shape_is_refused(folder):
    with pytest.raises(ValueError, match="expected one row an image"):
        load(folder, "test", lambda images: tf.zeros([len(images), 2, 3]))
    with pytest.raises(ValueError, match="expected one row an image"):
        load(folder, "test", lambda images: tf.zeros([1, 3]))


def test_the_bar_names_the_split_and_the_rate(folder, capsys):
    load_or_extract(folder, "test", "f", MeanColour(), SIZE_PX)
    shown = capsys.readouterr().err
    assert "features of test" in shown and "images/s" in shown


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
