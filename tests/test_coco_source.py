"""MS-COCO 2014 in the owners' layout, drawn here, with each awkward case."""

import json

import numpy as np
import pytest
from drawn_source import read_records
from PIL import Image
from pycocotools.coco import COCO
from readme_snippet import read_as_readme_says

from tfrecords.__main__ import main
from tfrecords.annotations import Skip
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.sources.coco import Coco2014
from tfrecords.vocabulary import LabelVocabulary

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}]


def describe(image_id, word):
    return {"id": image_id, "file_name": f"COCO_{word}_{image_id:012d}.jpg", "width": 40, "height": 30}


def annotate(number, image_id, category_id, bbox=(4, 3, 20, 15), area=111.5, iscrowd=0):
    return {
        **{"id": number, "image_id": image_id, "category_id": category_id},
        **{"bbox": list(bbox), "area": area, "iscrowd": iscrowd, "segmentation": [[1, 1, 2, 2, 3, 3]]},
    }


CONTENTS = {
    "train2014": {
        "images": [describe(image_id, "train2014") for image_id in (9, 25, 30)],
        "annotations": [
            annotate(5, 9, 18),
            annotate(3, 9, 1, bbox=(0, 0, 40.02, 30), area=600),
            annotate(4, 9, 18),
            annotate(900, 25, 1, iscrowd=1),
        ],
    },
    "val2014": {
        "images": [describe(42, "val2014"), describe(7, "val2014")],
        "annotations": [annotate(1, 42, 90)],
    },
}


def write(root, word, content):
    path = root / "annotations" / f"instances_{word}.json"
    path.write_text(json.dumps({"info": {}, "categories": CATEGORIES, **content}))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "COCO"
    (root / "annotations").mkdir(parents=True)
    for word, content in CONTENTS.items():
        write(root, word, content)
        (root / word).mkdir()
        for image in content["images"]:
            Image.new("RGB", (40, 30), (image["id"], 0, 0)).save(root / word / image["file_name"])
    return root


def read(root, split="train"):
    return {item.image_id.rpartition("_")[2]: item for item in Coco2014(root).annotations(split)}


def test_an_image_has_each_category_of_its_objects_once_crowds_too(root):
    train = {image_id: item.labels for image_id, item in read(root).items()}
    assert train == {
        "000000000009.jpg": ("dog", "person"),
        "000000000025.jpg": ("person",),  # a crowd alone
        "000000000030.jpg": (),
    }
    assert {item.labels for item in read(root, "test").values()} == {("toothbrush",), ()}


def test_boxes_and_areas_are_carried_in_the_order_of_their_ids(root):
    boxes = read(root)["000000000009.jpg"].boxes
    assert [(box.label, box.area) for box in boxes] == [("person", 600), ("dog", 111.5), ("dog", 111.5)]
    assert (boxes[0].xmin, boxes[0].xmax) == (0, 1)  # what reaches beyond the image is cut
    assert (boxes[1].xmin, boxes[1].ymin, boxes[1].xmax, boxes[1].ymax) == (0.1, 0.1, 0.6, 0.6)


def test_it_reads_what_the_owners_own_library_reads(root):
    coco = COCO(root / "annotations" / "instances_train2014.json")
    names = {number: category["name"] for number, category in coco.cats.items()}
    for item in Coco2014(root).annotations("train"):
        number = int(item.image_id.rpartition("_")[2].removesuffix(".jpg"))
        objects = coco.loadAnns(coco.getAnnIds(number))
        assert item.labels == tuple(sorted({names[each["category_id"]] for each in objects}))
        assert sorted(box.area for box in item.boxes) == sorted(each["area"] for each in objects)


def test_it_is_built_from_the_command_line(root, tmp_path, capsys):
    command = ["build", "coco2014", "--from", str(root), "--data-dir", str(tmp_path / "data")]
    assert main(command) == 0
    assert "note:" not in capsys.readouterr().out
    folder = tmp_path / "data" / "coco2014"
    manifest = Manifest.load(folder)
    assert {name: split.num_images for name, split in manifest.splits.items()} == {"train": 3, "test": 2}
    assert manifest.splits["train"].num_untagged == 1
    assert LabelVocabulary.load(folder).names == ("person", "dog", "toothbrush")
    record = read_records(manifest, folder, "train")["train2014/COCO_train2014_000000000009.jpg"]
    np.testing.assert_allclose(record["image/object/area"], [600, 111.5, 111.5])
    assert record["image/object/class/label"].tolist() == [0, 1, 1]
    assert "[0 1] ['person', 'dog']" in read_as_readme_says(folder)


def test_a_path_that_climbs_out_is_skipped(root):
    image = {**describe(9, "train2014"), "file_name": "../../x.jpg"}
    write(root, "train2014", {"images": [image], "annotations": []})
    [item] = Coco2014(root).annotations("train")
    assert isinstance(item, Skip) and item.reason == "path_outside_images"


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([annotate(1, 10, 1)], "annotation 1 has the image_id 10, which the file does not list"),
        ([annotate(1, 9, 2)], "annotation 1 has the category_id 2, which the file does not list"),
        ([annotate(1, 9, 1) | {"bbox": [1, 2]}], "annotation 1 has no whole box"),
        ([annotate(1, 9, 1) | {"bbox": [float("nan"), 2, 3, 4]}], "annotation 1 has no whole box"),
        ([annotate(1, 9, 1) | {"area": 10**400}], "annotation 1 has no whole box"),
        ([{"id": 1}], "not COCO's instances"),
    ],
)
def test_annotations_of_what_is_not_there_are_told(root, annotations, message):
    write(root, "train2014", {"images": CONTENTS["train2014"]["images"], "annotations": annotations})
    with pytest.raises(UserError, match=message):
        read(root)


def test_images_and_categories_that_lack_something_are_told(root):
    image = {"id": 9, "width": 40, "height": 30}
    write(root, "train2014", {"images": [image], "annotations": []})
    with pytest.raises(
        UserError, match=r"the image 9 has no file_name: .*`python -m tfrecords build coco --from "
    ):
        read(root)
    images = CONTENTS["train2014"]["images"]
    write(root, "train2014", {"images": images, "annotations": [], "categories": [{"id": 1}]})
    with pytest.raises(
        UserError, match=r"the category 1 has no name: .*`python -m tfrecords build coco --from "
    ):
        read(root)


@pytest.mark.parametrize("name", [5, None, "a\0b.jpg", "\ud800.jpg"])
def test_a_name_that_is_no_text_is_told(root, name):
    image = {**describe(9, "train2014"), "file_name": name}
    write(root, "train2014", {"images": [image], "annotations": []})
    with pytest.raises(UserError, match=r"the image 9 has the file_name .*: expected a number and a text"):
        read(root)
    contents = {"images": CONTENTS["train2014"]["images"], "annotations": []}
    write(root, "train2014", {**contents, "categories": [{"id": 1, "name": name}]})
    with pytest.raises(UserError, match=r"the category 1 has the name .*: expected a number and a text"):
        read(root)


def test_a_download_into_an_object_store_is_refused(root, capsys):
    command = ["build", "coco2014", "--from", str(root), "--images", "gs://bucket/coco", "--download"]
    assert main([*command, "--data-dir", str(root / "data")]) == 2
    assert "--download puts files on a disk, and --images is gs://bucket/coco" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [{"id"', "cut off or damaged"),
        ("[]", "not COCO's instances"),
        ("{}", "lists no images or no categories"),
    ],
)
def test_a_file_that_is_cut_off_or_another_is_told(root, text, message):
    (root / "annotations" / "instances_train2014.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read(root)


def test_missing_files_and_folders_are_told(root, tmp_path):
    with pytest.raises(
        UserError,
        match=r"instances_train2014.json: no such file: give .*`python -m tfrecords build coco --from ",
    ):
        Coco2014(tmp_path)
    with pytest.raises(UserError, match="train2014: no such folder of images"):
        Coco2014(root, images=tmp_path)
