"""`verify` finds each way in which a record can differ from what was built, and nothing in what was."""

import hashlib
import io
import json
import shutil

import pytest
import tensorflow as tf
from drawn_source import SMALL, DrawnSource, draw
from PIL import Image

from tfrecords import schema
from tfrecords.__main__ import main
from tfrecords.annotations import Annotation
from tfrecords.build import build
from tfrecords.manifest import Manifest, is_held_out
from tfrecords.verify import verify


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    build(DrawnSource(SMALL), "small", folder, progress=False)
    return folder / "small"


@pytest.fixture
def folder(built, tmp_path):
    return shutil.copytree(built, tmp_path / "small")


def read_values(path):
    """Each record of a shard as `schema.encode` takes it."""
    records = tf.data.TFRecordDataset(str(path)).map(schema.parse).as_numpy_iterator()
    for record in records:
        yield {key: decode(schema.FIELDS[key], value) for key, value in record.items()}


def decode(field, value):
    values = value.tolist() if field.is_list else [value]
    if field.kind == "text":
        values = [each.decode() for each in values]
    return values if field.is_list else values[0]


def rewrite(folder, change, name="train-00000-of-00001.tfrecord"):
    """Changes the record of d.jpg, or all of them, with CRCs and the manifest's SHA-256 made to fit."""
    path = folder / name
    values = change(list(read_values(path)))
    written = [schema.encode(each) for each in values]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in written:
            writer.write(record)
    text = (folder / "manifest.json").read_text()
    manifest = Manifest.load(folder)
    [shard] = [shard for split in manifest.splits.values() for shard in split.shards if shard.file == name]
    rest = b"".join(each.replace(values[i]["image/encoded"], b"") for i, each in enumerate(written))
    sha256 = hashlib.sha256(rest).hexdigest()
    (folder / "manifest.json").write_text(text.replace(shard.records_sha256, sha256))


def edit(**changes):
    def change(values):
        [record] = [each for each in values if each["image/source_id"] == "d.jpg"]
        record.update({key.replace("__", "/"): value for key, value in changes.items()})
        return values

    return change


def draw_png(size=(8, 6)):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    return file.getvalue()


OTHER = draw_png()
OTHER_SHA256 = hashlib.sha256(OTHER).hexdigest()


def test_what_was_built_is_found_as_it_was(built, capsys):
    verdict = verify(built, progress=False)
    assert verdict.ok and (verdict.num_records, verdict.num_shards, verdict.notes) == (6, 2, ())
    assert main(["verify", "small", "--data-dir", str(built.parent)]) == 0
    assert capsys.readouterr().out == "yes: as it was built: small, 6 records in 2 shards\n"


def test_a_flipped_bit_is_found_by_the_crc_and_by_the_hash_of_the_shard(folder, capsys):
    path = folder / "train-00000-of-00001.tfrecord"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    first, second, *counts = verify(folder, progress=False).problems
    assert first.startswith(f"{path.name}: cannot be read from record ") and "corrupted" in first
    assert second == f"{path.name}: the SHA-256 of its records is not that of the manifest"
    assert any(each.startswith("train: ") and "images, the manifest says 4" in each for each in counts)
    assert main(["verify", "small", "--data-dir", str(folder.parent)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("no: not as it was built: small") and f"  FAIL {first}" in out


def test_a_shard_that_is_gone_is_found(folder):
    (folder / "test-00000-of-00001.tfrecord").unlink()
    problems = verify(folder, progress=False).problems
    assert problems[0] == "test-00000-of-00001.tfrecord: No such file or directory"
    assert "test: 0 images, the manifest says 2" in problems


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (edit(image__encoded=OTHER, image__format="png"), "its image is not the one that was written"),
        (edit(image__encoded=b"no image"), "its image does not decode (not_an_image"),
        (edit(image__format="png"), "its format, size or orientation is not that of its image"),
        (edit(image__height=7), "its format, size or orientation is not that of its image"),
        (edit(image__orientation=3), "its format, size or orientation is not that of its image"),
        (
            edit(image__class__label=[1, 0, 2]),
            "its labels are not ids in the order of the vocabulary: [1, 0, 2]",
        ),
        (edit(image__class__label=[0, 1, 99]), "its labels are not ids in the order of the vocabulary"),
        (edit(image__class__ignored=[0]), "a label both holds and is unknown: [0]"),
        (
            edit(image__class__text=["sky", "boat", "sea"]),
            "its labels' names are not those of the vocabulary",
        ),
        (edit(image__class__count=2), "it says 2 labels and has 3"),
        (edit(image__holdout=1), "its mark of the hold-out is not that of its id"),
    ],
)
def test_a_record_that_was_changed_behind_its_crc_is_named(folder, change, problem):
    rewrite(folder, change)
    found = [each for each in verify_without_fingerprint(folder) if "(d.jpg)" in each]
    assert any(problem in each for each in found), found


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (lambda values: values[:-1], ["train: 3 images, the manifest says 4"]),
        (lambda values: [*values, values[0]], ["train: 5 images, the manifest says 4", "is also in train"]),
    ],
)
def test_counts_and_repeated_ids_are_compared(folder, change, problems):
    rewrite(folder, change)
    found = verify_without_fingerprint(folder)
    for problem in problems:
        assert any(problem in each for each in found), found


def verify_without_fingerprint(folder):
    """The manifest was edited to fit the shard, so that only what is in the records can tell."""

    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    stored = content.pop("fingerprint")
    manifest = Manifest.from_json({**content, "fingerprint": stored_of(content)})
    assert manifest.fingerprint != stored
    manifest.save(folder)
    problems = verify(folder, progress=False).problems
    assert not any("SHA-256" in each for each in problems)
    return problems


def stored_of(content):

    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def test_the_same_picture_in_train_and_test_is_told_and_is_no_damage(tmp_path, capsys):
    path = tmp_path / "same.png"  # two ids of train, of which one is held out, must be told too
    path.write_bytes(OTHER)
    same = [draw(f"{name}.png", "sky", "sea") for name in ("two", "three")]
    contents = {
        split: [*SMALL[split], type(item)(item.image_id, str(path), item.labels)]
        for split, item in zip(("train", "test"), same, strict=True)
    }
    build(DrawnSource(contents), "small", tmp_path, progress=False)
    verdict = verify(tmp_path / "small", progress=False)
    assert verdict.ok
    [note] = verdict.notes
    assert note.startswith("1 image of test is also in train, byte for byte, such as three.png = two.png")


def test_the_same_picture_in_train_and_the_hold_out_is_told(tmp_path):
    path = tmp_path / "same.png"
    path.write_bytes(OTHER)
    held_out = next(f"{i}.png" for i in range(1000) if is_held_out(f"{i}.png"))
    kept = next(f"{i}.png" for i in range(1000) if not is_held_out(f"{i}.png"))
    twins = [Annotation(image_id, str(path), ("sky",)) for image_id in (kept, held_out)]
    build(DrawnSource({**SMALL, "train": [*SMALL["train"], *twins]}), "small", tmp_path, progress=False)
    [note] = verify(tmp_path / "small", progress=False).notes
    assert "the hold-out" in note and kept in note and held_out in note
