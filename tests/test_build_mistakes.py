"""What a build leaves out and counts, and what it refuses: one line each, and nothing half-written."""

import csv

import pytest
from drawn_source import SMALL, DrawnSource, draw, read_records
from PIL import Image

from cnnrnn_tf.data.records import image_batches
from tfrecords.__main__ import main
from tfrecords.annotations import Box
from tfrecords.build import build
from tfrecords.cli import run_main
from tfrecords.errors import UserError
from tfrecords.images import ImageRules
from tfrecords.sources.table import TableSource
from tfrecords.verify import verify
from tfrecords.vocabulary import LabelVocabulary

# ---- images that are left out


@pytest.fixture
def photos(tmp_path):
    """A folder with one good photograph and every kind of bad one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (8, 6), "red").save(folder / "good.jpg")
    Image.new("RGB", (8, 6), "red").save(folder / "png named.jpg", "PNG")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("I am no photograph\n" * 20)
    (folder / "truncated.jpg").write_bytes((folder / "good.jpg").read_bytes()[:-20])
    (folder / "folder.jpg").mkdir()
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    Image.new("RGB", (8, 6), "red").save(folder / "drawing.tga")
    return folder


BAD_IMAGES = {
    "missing.jpg": "missing_image",
    "empty.jpg": "empty_file",
    "text.jpg": "not_an_image",
    "truncated.jpg": "truncated_image",
    "folder.jpg": "unreadable_image",
    "loop.jpg": "unreadable_image",
    "drawing.tga": "unsupported_format",
    "../outside.jpg": "path_outside_images",
}


def test_each_bad_image_is_skipped_counted_and_listed_by_its_reason(tmp_path, photos):
    rows = "".join(f"{name},sea;sky\n" for name in ("good.jpg", "png named.jpg", *BAD_IMAGES, "good.jpg", ""))
    (tmp_path / "labels.csv").write_text("image,labels\n" + rows)
    manifest = build(TableSource(tmp_path / "labels.csv", photos), "mine", tmp_path / "data", progress=False)
    train = manifest.splits["train"]
    assert train.num_images == 2
    expected = {reason: list(BAD_IMAGES.values()).count(reason) for reason in BAD_IMAGES.values()}
    assert train.skipped == expected | {"duplicate_row": 1, "no_image_path": 1}

    with open(tmp_path / "data" / "mine" / "skipped.csv", newline="") as file:
        listed = {row["image_id"]: row for row in csv.DictReader(file)}
    assert {name: row["reason"] for name, row in listed.items() if name in BAD_IMAGES} == BAD_IMAGES
    assert listed["missing.jpg"]["detail"] == str(photos / "missing.jpg")
    assert "truncated" in listed["truncated.jpg"]["detail"]
    records = read_records(manifest, tmp_path / "data" / "mine", "train")
    assert {name: record["image/format"] for name, record in records.items()} == {
        "good.jpg": b"jpeg",
        "png named.jpg": b"png",
    }
    assert "8 missing_image" not in manifest.summary()
    assert "1 missing_image" in manifest.summary()


@pytest.fixture
def damaged(tmp_path):
    """A table of two photographs, one with a broken table of Huffman codes, though it ends as a JPEG does."""
    for name, colour in (("good.jpg", "red"), ("damaged.jpg", "blue")):
        Image.new("RGB", (64, 48), colour).save(tmp_path / name)
    data = (tmp_path / "damaged.jpg").read_bytes()
    start = data.index(b"\xff\xc4") + 5
    (tmp_path / "damaged.jpg").write_bytes(data[:start] + b"\xff" * 16 + data[start + 16 :])
    (tmp_path / "mine.csv").write_text("image,labels\ngood.jpg,sea\ndamaged.jpg,sky\n")
    return tmp_path


def test_damaged_pixels_are_skipped_where_every_image_is_decoded(damaged, capsys):
    words = ["build", "table", "--from", str(damaged / "mine.csv"), "--data-dir", str(damaged / "data")]
    assert main([*words, "--decode"]) == 0
    assert "skipped: 1 damaged_image" in capsys.readouterr().out


def test_damaged_pixels_are_else_found_by_verify_and_told_when_they_are_read(damaged, capsys):
    words = ["--data-dir", str(damaged / "data")]
    assert main(["build", "table", "--from", str(damaged / "mine.csv"), *words]) == 0
    assert main(["verify", "mine", *words]) == 1
    out = capsys.readouterr().out
    assert "(damaged.jpg): its image does not decode (damaged_image" in out and "--decode" in out

    def read():
        for batch in image_batches(damaged / "data" / "mine", "train", 32, 2, "crop"):
            batch["image"].numpy()

    assert run_main(read) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(
        "error: an image in the records does not decode: `python -m tfrecords verify NAME`"
    )


def test_images_are_shrunk_where_asked_for_and_boxes_and_areas_with_them(tmp_path):
    boxes = (Box("sea", 0.25, 0.5, 1.0, 1.0, area=12.0), Box("sky", 0.0, 0.0, 0.5, 0.5))
    contents = {"train": [draw("a.jpg", "sky", "sea", boxes=boxes)]}  # 8 x 6 px
    rules = ImageRules(max_side=4, quality=90)
    manifest = build(DrawnSource(contents), "small", tmp_path, rules=rules, progress=False)
    assert manifest.source_arguments == {"max_side": 4, "quality": 90}
    record = read_records(manifest, tmp_path / "small", "train")["a.jpg"]
    assert (record["image/width"], record["image/height"]) == (4, 3)
    assert record["image/object/bbox/xmin"].tolist() == [0.25, 0.0]
    assert record["image/object/area"].tolist() == [3.0, 0.25 * 12]
    assert verify(tmp_path / "small", progress=False).ok


def test_an_image_without_permission_is_skipped(tmp_path):
    class Locked(DrawnSource):
        def read_image(self, annotation):
            if annotation.image_id == "a.jpg":
                raise PermissionError(13, "Permission denied", "a.jpg")
            return super().read_image(annotation)

    manifest = build(Locked(SMALL), "small", tmp_path, workers=1, progress=False)
    assert manifest.splits["train"].skipped == {"no_consent": 1, "unreadable_image": 1}
    assert LabelVocabulary.load(tmp_path / "small").counts[0] == 3  # skipped images still count their labels


def test_a_split_whose_images_are_all_gone_is_told_with_an_example(tmp_path):
    (tmp_path / "labels.csv").write_text("image,labels\na.jpg,sea\nb.jpg,sky\n")
    with pytest.raises(
        UserError,
        match=r"no image of the split train is left: all 2 were skipped, 2 as missing_image, "
        r"such as .*[ab]\.jpg; of a table, check --images",
    ):
        build(
            TableSource(tmp_path / "labels.csv"),
            "mine",
            tmp_path / "data",
            allow_missing=True,
            progress=False,
        )
    assert list((tmp_path / "data").iterdir()) == []


# ---- sources at odds with themselves


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (
            {"train": [draw("a", "sea", "sky")], "test": [draw("a", "sea")]},
            r"'a' is in both train and test: .*leak",
        ),
        (
            {"train": [draw("a", "sea", "sky"), draw("a", "sea")]},
            r"'a' occurs 2 times in train: an id is unique",
        ),
        (
            {"train": [], "test": [draw("a", "sea")]},
            r"the split train has no images: leave it out or fill it",
        ),
        ({"test": [draw("a", "sea", "sky")]}, r"has the splits test: it needs a split train"),
        ({"train": [draw("a", "sea", "sky")], "tset": []}, r"unknown split 'tset' \(did you mean 'test'\?\)"),
        (
            {"train": [draw("a", "sea", "sky")], "test": []},
            r"the split test has no images: leave it out or fill it",
        ),
        (
            {"train": [draw("a", "sea;sky"), draw("b", "sea;sky")]},
            r"a single label, 'sea;sky', .*of 2 images: .*two",
        ),
        ({"train": [draw("a"), draw("b")]}, r"no label at all was found .*of 2 images: .*--label-separator"),
        (
            {"train": [draw("a")], "test": [draw("b", "x", "y")]},
            r"none of the 2 labels holds for any training",
        ),
    ],
)
def test_a_source_at_odds_with_itself_is_refused_and_nothing_is_written(tmp_path, contents, message):
    with pytest.raises(UserError, match=message):
        build(DrawnSource(contents), "small", tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "two words", "-x"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="cannot name a data set"):
        build(DrawnSource(SMALL), name, tmp_path, progress=False)


def test_a_link_to_a_data_set_is_refused_at_once_with_where_to_build(tmp_path):
    build(DrawnSource(SMALL), "small", tmp_path / "other", progress=False)
    (tmp_path / "small").symlink_to(tmp_path / "other" / "small")
    with pytest.raises(
        UserError, match=r"small is a link: build where it leads to, with --data-dir .*other,"
    ):
        build(DrawnSource(SMALL), "small", tmp_path, overwrite=True, progress=False)
    assert (tmp_path / "small").is_symlink()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_data_set_is_never_replaced(tmp_path, overwrite):
    """It might hold the very photographs: `--data-dir . --name photos --overwrite`."""
    photograph = tmp_path / "photos" / "a.jpg"
    photograph.parent.mkdir()
    photograph.write_bytes(b"precious")
    with pytest.raises(UserError, match="exists and is no data set that was built here"):
        build(DrawnSource(SMALL), "photos", tmp_path, overwrite=overwrite, progress=False)
    assert photograph.read_bytes() == b"precious"
