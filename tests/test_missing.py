"""A build that would lose much of its images stops; with --allow-missing it says so, and so do the tables."""

import io
import zipfile

import numpy as np
import pytest
from drawn_source import DrawnSource, draw
from PIL import Image

from cnnrnn_tf.evaluation.predictions import Predictions
from cnnrnn_tf.evaluation.report import choose_protocols, evaluate_predictions, print_report
from tfrecords.__main__ import main
from tfrecords.annotations import Annotation
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.sources.table import TableSource
from tfrecords.vocabulary import LabelVocabulary


def write_table(folder, num_images, missing):
    """`num_images` rows, of which those in `missing` have no file."""
    photos = folder / "photos"
    photos.mkdir()
    rows = ["image,labels,split"]
    for i in range(num_images):
        rows.append(f"{i:02d}.jpg,{'sky' if i % 2 else 'sea'},{'test' if i % 4 == 3 else 'train'}")
        if i not in missing:
            Image.new("RGB", (8, 6), (i, 0, 0)).save(photos / f"{i:02d}.jpg")
    table = folder / "labels.csv"
    table.write_text("\n".join(rows))
    return [
        "build",
        "table",
        "--from",
        str(table),
        "--images",
        str(photos),
        "--data-dir",
        str(folder / "data"),
    ]


@pytest.mark.parametrize(
    ("missing", "status"),
    [
        (set(), 0),
        ({0, 4, 8}, 0),  # a tenth of the 30 training images
        ({0, 4, 8, 12}, 2),
        ({3}, 0),
        ({3, 7}, 2),  # of 10 test images
    ],
)
def test_a_tenth_of_a_split_and_a_single_image_may_be_missing(tmp_path, missing, status):
    assert main(write_table(tmp_path, 40, missing)) == status


def test_the_line_counts_names_the_first_path_and_what_is_there(tmp_path, capsys):
    command = write_table(tmp_path, 40, {4, 0, 12, 8})
    assert main(command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    photos = tmp_path / "photos"
    assert line.startswith(
        f"error: 4 of the 30 train images are missing (13.3 %), the first {photos}/00.jpg: {photos} has no "
        "00.jpg; "
    )
    assert "--allow-missing builds from the others" in line
    assert not (tmp_path / "data" / "labels").exists()


def test_a_wrong_folder_is_told_by_what_it_holds(tmp_path):
    write_table(tmp_path, 40, set())
    empty = tmp_path / "empty"
    (empty / "other").mkdir(parents=True)
    source = TableSource(tmp_path / "labels.csv", empty)
    with pytest.raises(UserError, match=r"00.jpg: .*/empty has no 00.jpg; it holds other; "):
        build(source, "mine", tmp_path / "data", progress=False)
    (empty / "other").rmdir()
    with pytest.raises(UserError, match=r"/empty is empty; "):
        build(source, "mine", tmp_path / "data", progress=False)


def test_with_the_flag_it_is_built_and_says_so(tmp_path, capsys):
    command = write_table(tmp_path, 40, {*range(0, 40, 4), 3})
    assert main(command) == 2
    capsys.readouterr()
    assert main([*command, "--allow-missing"]) == 0
    remark = (
        "Missing when the data set was built: 10 of 30 train images (33.3 %), 1 of 10 test images (10.0 %)."
    )
    assert f"note: {remark}" in capsys.readouterr().out
    assert Manifest.load(tmp_path / "data" / "labels").remarks() == [remark]


def test_missing_members_of_an_archive_are_found_when_they_are_read(tmp_path):
    write_table(tmp_path, 40, {0, 4, 8, 12})
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in (tmp_path / "photos").iterdir():
            archive.write(path, path.name)
    source = TableSource(tmp_path / "labels.csv", tmp_path / "photos.zip")
    with pytest.raises(UserError, match=r"4 of the 30 train images are missing .*photos.zip/00.jpg"):
        build(source, "mine", tmp_path / "data", progress=False)
    build(source, "mine", tmp_path / "data", allow_missing=True, progress=False)


def test_nothing_is_read_before_the_files_are_looked_for(tmp_path):
    class Unread(DrawnSource):
        def read_image(self, annotation):
            raise AssertionError("an image was read")

    items = [Annotation(f"{i}.jpg", str(tmp_path / f"{i}.jpg"), ("sea", "sky")) for i in range(20)]
    with pytest.raises(UserError, match=r"20 of the 20 train images are missing .100 %., the first .*/0.jpg"):
        build(Unread({"train": items}), "mine", tmp_path / "data", workers=1, progress=False)


def test_a_source_that_draws_its_images_misses_none(tmp_path):
    items = [draw(f"{i}.jpg", "sea", "sky") for i in range(20)]
    manifest = build(DrawnSource({"train": items}), "mine", tmp_path, progress=False)
    assert manifest.remarks() == []


def test_the_share_stands_under_the_table():
    labels = np.array([[1, 0], [0, 1]], np.uint8)
    test = Predictions(["a", "b"], labels, np.ones_like(labels), None, None, None, labels.astype(np.float32))
    vocabulary = LabelVocabulary.from_counts({"sea": 2, "sky": 1})
    remark = "Missing when the data set was built: 1 of 3 test images (33.3 %)."
    metrics = evaluate_predictions(test, None, choose_protocols("mine"), vocabulary, remarks=[remark])
    file = io.StringIO()
    print_report(metrics, file)
    assert file.getvalue().count(remark) == 1
