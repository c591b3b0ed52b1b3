"""The build: from a source to records, vocabulary and manifest; the same bytes every time, or nothing."""

import fcntl
import hashlib
import os

import pytest
import tensorflow as tf
from drawn_source import SMALL, DrawnSource, draw, read_bytes, read_records
from shared_data import SHARED

import tfrecords.build as build_module
import tfrecords.writer as writer_module
from tfrecords.annotations import Annotation, Box, Skip
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest, is_held_out
from tfrecords.sources.table import TableSource
from tfrecords.store import AnnotationStore
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.writer import plan_shards, write_shards

# ---- what comes out


def test_records_vocabulary_and_manifest_hold_what_the_source_says(tmp_path):
    rows = [{"name": "best set", "O-F1": 0.9}]
    manifest = build(DrawnSource(SMALL, ("night",), rows), "small", tmp_path, progress=False)
    vocabulary = LabelVocabulary.load(tmp_path / "small")
    assert vocabulary.names == ("sky", "sea", "boat", "night", "sun", "ufo")
    assert vocabulary.counts == (3, 2, 1, 0, 0, 0)

    assert manifest == Manifest.load(tmp_path / "small")
    train, test = manifest.splits["train"], manifest.splits["test"]
    assert (train.num_images, train.num_labels, train.num_untagged, train.num_unknown) == (4, 6, 1, 1)
    assert (test.num_images, test.num_labels, test.num_untagged, test.num_unknown) == (2, 3, 0, 0)
    assert (train.max_labels_per_image, test.max_labels_per_image, manifest.max_labels_per_image) == (3, 2, 3)
    assert (train.skipped, test.skipped) == ({"no_consent": 1}, {})
    assert manifest.vocabulary_fingerprint == vocabulary.fingerprint
    assert manifest.reference_rows == rows

    records = read_records(manifest, tmp_path / "small", "train")
    assert set(records) == {"a.jpg", "b.jpg", "c.jpg", "d.jpg"}
    d = records["d.jpg"]
    assert d["image/class/label"].tolist() == [0, 1, 2]
    assert d["image/class/text"].tolist() == [b"sky", b"sea", b"boat"]
    assert d["image/class/ignored"].tolist() == [4]
    assert (d["image/class/count"], records["c.jpg"]["image/class/count"]) == (3, 0)
    assert records["c.jpg"]["image/class/label"].shape == (0,)


def test_a_record_describes_its_image(tmp_path):
    boxes = (Box("sea", 0.25, 0.5, 1.0, 1.0, area=11.0), Box("sky", 0.0, 0.0, 0.5, 0.5))
    contents = {"train": [draw("a/b.jpg", "sky", "sea", boxes=boxes), draw("c.jpg", "sky")]}
    source = DrawnSource(contents)
    manifest = build(source, "small", tmp_path, progress=False)
    records = read_records(manifest, tmp_path / "small", "train")
    record = records["a/b.jpg"]
    original = source.read_image(contents["train"][0])
    assert record["image/encoded"] == original
    assert record["image/key/sha256"].decode() == hashlib.sha256(original).hexdigest()
    assert (record["image/format"], record["image/filename"]) == (b"jpeg", b"b.jpg")
    assert (record["image/height"], record["image/width"], record["image/orientation"]) == (6, 8, 1)
    assert record["image/object/class/label"].tolist() == [1, 0]
    assert record["image/object/bbox/xmin"].tolist() == [0.25, 0.0]
    assert record["image/object/bbox/ymax"].tolist() == [1.0, 0.5]
    assert record["image/object/area"].tolist() == [11.0, 0.25 * 48]  # the second is the box's own: 8 x 6 px
    assert records["c.jpg"]["image/object/area"].shape == (0,)


def test_an_image_with_all_labels_and_one_with_none(tmp_path):
    contents = {"train": [draw("all", "a", "b", "c"), draw("none")]}
    manifest = build(DrawnSource(contents), "small", tmp_path, progress=False)
    records = read_records(manifest, tmp_path / "small", "train")
    assert records["all"]["image/class/label"].tolist() == [0, 1, 2]
    assert records["none"]["image/class/label"].tolist() == []


def test_the_holdout_is_a_tenth_of_train_by_the_image_id_alone(tmp_path):
    contents = {"train": [draw(f"{i}.jpg", "sky", "sea") for i in range(200)], "test": [draw("t.jpg", "sea")]}
    manifest = build(DrawnSource(contents), "small", tmp_path, progress=False)
    records = read_records(manifest, tmp_path / "small", "train")
    held_out = {image_id for image_id, record in records.items() if record["image/holdout"]}
    # By hand: the first 8 bytes of the SHA-256, as a fraction of 1.
    expected = {
        f"{i}.jpg"
        for i in range(200)
        if int(hashlib.sha256(f"{i}.jpg".encode()).hexdigest()[:16], 16) / 16**16 < 0.1
    }
    assert held_out == expected
    assert 8 <= len(expected) <= 32
    assert (manifest.holdout.num_images, manifest.holdout.split) == (len(expected), "train")
    assert manifest.holdout.fraction == 0.1
    assert manifest.splits["train"].num_images == 200
    assert LabelVocabulary.load(tmp_path / "small").counts == (200, 200)


def test_the_fraction_held_out_is_as_asked():
    for fraction in (0.0, 0.1, 0.5, 1.0):
        share = sum(is_held_out(f"image {i}", fraction) for i in range(10_000)) / 10_000
        assert share == pytest.approx(fraction, abs=0.015)


def test_a_source_with_a_validation_split_has_no_holdout(tmp_path):
    contents = SMALL | {"validation": [draw("v.jpg", "sky")]}
    manifest = build(DrawnSource(contents), "small", tmp_path, progress=False)
    assert manifest.holdout is None
    assert list(manifest.splits) == ["train", "validation", "test"]


# ---- the same bytes, or nothing


def test_the_bytes_do_not_depend_on_the_number_of_workers_nor_on_the_time(tmp_path):
    contents = {
        "train": [draw(f"{i}.jpg", "sky", *["sea"] * (i % 2)) for i in range(520)],
        "test": [draw(f"t{i}.jpg", "sea") for i in range(10)],
    }
    source = DrawnSource(contents)
    one = build(source, "one", tmp_path / "x", workers=1, progress=False)
    two = build(source, "one", tmp_path / "y", workers=2, progress=False)
    files = [shard.file for shard in two.splits["train"].shards]
    assert files == [f"train-0000{i}-of-00002.tfrecord" for i in range(2)]
    assert one.fingerprint == two.fingerprint
    assert read_bytes(tmp_path / "x" / "one") == read_bytes(tmp_path / "y" / "one")


def test_the_order_on_disk_is_mixed_and_does_not_follow_the_source(tmp_path):
    contents = [draw(f"{i:03d}.jpg", "sky", "sea") for i in range(100)]
    for folder, items in (("x", contents), ("y", contents[::-1])):
        manifest = build(DrawnSource({"train": items}), "small", tmp_path / folder, progress=False)
    assert read_bytes(tmp_path / "x" / "small") == read_bytes(tmp_path / "y" / "small")
    order = list(read_records(manifest, tmp_path / "y" / "small", "train"))
    assert order != sorted(order)
    held_out = [i for i, image_id in enumerate(order) if is_held_out(image_id)]
    assert max(held_out) > 50  # the hold-out is spread over the records, not gathered at their start


def test_shards_are_even_and_the_manifest_knows_their_bytes(tmp_path):
    source = DrawnSource({})
    vocabulary = LabelVocabulary(("sky",), (1,))
    items = (("train", draw(str(i), "sky")) for i in range(10))
    store = AnnotationStore.fill(tmp_path / "annotations", items)
    tasks = plan_shards(source, vocabulary, store, "train", tmp_path, images_per_shard=4)
    assert [len(task.annotations) for task in tasks] == [3, 3, 4]
    assert [task.path.name for task in tasks] == [f"train-0000{i}-of-00003.tfrecord" for i in range(3)]
    counted = []
    results = write_shards(1, tasks, counted.append)
    assert sum(counted) == 10
    assert sorted(tmp_path.glob("*.tfrecord")) == [task.path for task in tasks]
    assert not list(tmp_path.glob("*.partial"))
    for task, result in zip(tasks, results, strict=True):
        assert result.shard.records_sha256 == hash_without_images(task.path)
        assert result.shard.num_records == len(task.annotations)


def hash_without_images(path):
    """By TensorFlow's own reader: all records, with the image cut out of each."""
    digest = hashlib.sha256()
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        example = tf.train.Example.FromString(record)
        [image] = example.features.feature["image/encoded"].bytes_list.value
        digest.update(record.replace(image, b""))
    return digest.hexdigest()


def test_an_existing_data_set_stays_unless_told_otherwise(tmp_path):
    build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    before = read_bytes(tmp_path / "small")
    (tmp_path / "small" / "features").mkdir()
    with pytest.raises(UserError, match=r"small exists: pass --overwrite to replace it"):
        build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    build(DrawnSource(SMALL), "small", tmp_path, overwrite=True, progress=False)
    assert read_bytes(tmp_path / "small") == before
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), OSError(28, "No space left")])
def test_a_failure_at_the_end_keeps_the_finished_shards_for_the_next_build(tmp_path, monkeypatch, error):
    def fail(*args):
        raise error

    build(DrawnSource(SMALL), "small", tmp_path / "whole", progress=False)
    monkeypatch.setattr(build_module, "_save_skips", fail)
    expected, message = RuntimeError, "broken"
    if isinstance(error, OSError):
        expected, message = UserError, r"cannot write .*No space left; what is finished waits in .*building"
    with pytest.raises(expected, match=message):
        build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    assert not (tmp_path / "small").exists()
    monkeypatch.undo()

    def refuse(self, annotation):
        raise AssertionError("no image is read again")

    monkeypatch.setattr(DrawnSource, "read_image", refuse)
    build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    assert read_bytes(tmp_path / "small") == read_bytes(tmp_path / "whole" / "small")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small", "whole"]


def test_a_failure_before_the_first_shard_is_finished_leaves_nothing_behind(tmp_path, monkeypatch):
    def fill_the_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer_module, "frame_record", fill_the_disk)
    with pytest.raises(UserError, match=r"cannot write .*small: .*No space left on device$"):
        build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_strict_refuses_what_would_be_skipped_unless_it_was_asked_for(tmp_path):
    with pytest.raises(
        UserError, match=r"--strict: 1 image would be skipped \(1 no_consent\), such as asked"
    ):
        build(DrawnSource(SMALL), "small", tmp_path, strict=True, progress=False)
    contents = {
        split: [item for item in items if isinstance(item, Annotation)] for split, items in SMALL.items()
    }
    contents["train"].append(Skip("x.jpg", "untagged", by_choice=True))
    build(DrawnSource(contents), "small", tmp_path, strict=True, progress=False)
    contents["test"].append(Annotation("y.jpg", str(tmp_path / "y.jpg"), ("sky",)))
    with pytest.raises(UserError, match=r"--strict: 1 image would be skipped \(1 missing_image\)"):
        build(DrawnSource(contents), "other", tmp_path, strict=True, progress=False)
    assert not (tmp_path / "other").exists()


def test_a_failed_rebuild_keeps_the_old_data_set(tmp_path, monkeypatch):
    build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    before = read_bytes(tmp_path / "small")
    monkeypatch.setattr(build_module, "_save_skips", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(DrawnSource(SMALL), "small", tmp_path, overwrite=True, progress=False)
    assert read_bytes(tmp_path / "small") == before


def test_what_a_killed_build_left_is_swept_away(tmp_path):
    leftover = tmp_path / ".small.building"
    leftover.mkdir()
    (leftover / "train-00000-of-00009.tfrecord").write_bytes(b"half")
    build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert "train-00000-of-00009.tfrecord" not in read_bytes(tmp_path / "small")


def test_two_builds_of_one_data_set_at_once_are_refused(tmp_path):
    running = tmp_path / ".small.building"
    running.mkdir()
    descriptor = os.open(running, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        with pytest.raises(UserError, match="another build of this data set is running"):
            build(DrawnSource(SMALL), "small", tmp_path, progress=False)
        assert running.exists()
    finally:
        os.close(descriptor)


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*small: .*Not a directory|File exists"):
        build(DrawnSource(SMALL), "small", tmp_path / "file", progress=False)


# ---- real photographs


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED} (set CNNRNN_SHARED)")
@pytest.mark.parametrize(
    ("name", "num_labels", "expected_unknown"), [("scenes", 5, False), ("clothing", 23, True)]
)
def test_real_tables_become_records(tmp_path, name, num_labels, expected_unknown):
    shared = SHARED / "data" / name
    lines = (shared / "labels.csv").read_text().splitlines()
    subset = [line for line in lines[1:] if "train" in line][::15] + [
        line for line in lines[1:] if "test" in line
    ][::20]
    (tmp_path / "labels.csv").write_text("\n".join([lines[0], *subset]) + "\n")
    source = TableSource(tmp_path / "labels.csv", shared / "images")
    manifest = build(source, name, tmp_path / "data", progress=False)
    assert sum(split.num_images for split in manifest.splits.values()) == len(subset)
    assert LabelVocabulary.load(tmp_path / "data" / name).size == num_labels
    assert (manifest.splits["train"].num_unknown > 0) is expected_unknown
    for image_id, record in read_records(manifest, tmp_path / "data" / name, "test").items():
        assert record["image/encoded"] == (shared / "images" / image_id).read_bytes()
        decoded = tf.io.decode_jpeg(record["image/encoded"], channels=3)
        assert decoded.shape == (record["image/height"], record["image/width"], 3)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED} (set CNNRNN_SHARED)")
@pytest.mark.parametrize(
    ("name", "images", "labels_an_image", "unknown_share"),
    [("scenes", (1154, 438), 1.24, 0.0), ("clothing", (1118, 372), 4.2, 0.07)],
)
def test_real_tables_are_read_as_their_owners_count_them(name, images, labels_an_image, unknown_share):
    source = TableSource(SHARED / "data" / name / "labels.csv", SHARED / "data" / name / "images")
    train, test = (list(source.annotations(split)) for split in ("train", "test"))
    assert (len(train), len(test)) == images
    both = train + test
    assert sum(len(item.labels) for item in both) / len(both) == pytest.approx(labels_an_image, abs=0.1)
    num_names = len(source.label_names() or ())
    unknown = sum(len(item.ignored) for item in both)
    assert unknown / max(len(both) * num_names, 1) == pytest.approx(unknown_share, abs=0.01)
