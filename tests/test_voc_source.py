"""PASCAL VOC 2007 in the owners' layout, drawn here, with each awkward case."""

import numpy as np
import pytest
from drawn_source import read_records
from PIL import Image
from readme_snippet import read_as_readme_says

from tfrecords.__main__ import main
from tfrecords.annotations import Skip
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.sources.voc import CLASSES, Voc2007
from tfrecords.vocabulary import LabelVocabulary

# split word -> image id -> objects: (class, difficult, xmin, ymin, xmax, ymax), 1-based and inclusive
OBJECTS = {
    "trainval": {
        "000005": [("chair", 0, 1, 1, 40, 30), ("chair", 1, 5, 5, 9, 9), ("person", 0, 11, 6, 20, 30)],
        "000007": [("car", 1, 2, 2, 8, 8), ("person", 0, 1, 1, 2, 2)],
        "000009": [("horse", 0, 1, 1, 40, 30)],
    },
    "test": {
        "000001": [("dog", 0, 3, 3, 9, 9), ("person", 1, 1, 1, 5, 5)],
        "000002": [("train", 1, 1, 1, 9, 9)],
    },
}


def write_xml(path, objects, size="<size><width>40</width><height>30</height><depth>3</depth></size>"):
    items = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
        for name, difficult, xmin, ymin, xmax, ymax in objects
    )
    path.write_text(f"<annotation><folder>VOC2007</folder>{size}{items}</annotation>")


@pytest.fixture
def devkit(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2007"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    main_folder = root / "ImageSets" / "Main"
    for word, images in OBJECTS.items():
        (main_folder / f"{word}.txt").write_text("".join(f"{image_id}\n" for image_id in images))
        for name in CLASSES:
            lines = []
            for image_id, objects in images.items():
                marks = [difficult for each, difficult, *_ in objects if each == name]
                mark = -1 if not marks else 0 if all(marks) else 1
                lines.append(f"{image_id} {mark:2d}\n")
            (main_folder / f"{name}_{word}.txt").write_text("".join(lines))
        for image_id, objects in images.items():
            write_xml(root / "Annotations" / f"{image_id}.xml", objects)
            Image.new("RGB", (40, 30), (int(image_id), 0, 0)).save(root / "JPEGImages" / f"{image_id}.jpg")
    return root.parent


def read(devkit, split="train"):
    return {item.image_id: item for item in Voc2007(devkit).annotations(split)}


def test_a_class_with_difficult_objects_alone_is_unknown_and_any_other_holds(devkit):
    train, test = read(devkit), read(devkit, "test")
    found = {image_id: (item.labels, item.ignored) for image_id, item in (train | test).items()}
    assert found == {
        "000005": (("chair", "person"), ()),
        "000007": (("person",), ("car",)),
        "000009": (("horse",), ()),
        "000001": (("dog",), ("person",)),
        "000002": ((), ("train",)),
    }


def test_boxes_are_fractions_of_the_image_from_its_edge_to_its_edge(devkit):
    whole, small, person = read(devkit)["000005"].boxes
    assert (whole.xmin, whole.ymin, whole.xmax, whole.ymax) == (0, 0, 1, 1)
    assert (small.xmin, small.xmax) == (4 / 40, 9 / 40)
    assert (person.label, person.ymin, person.ymax) == ("person", 5 / 30, 1)


def test_a_box_a_pixel_beyond_the_image_is_cut(devkit):
    write_xml(devkit / "VOC2007" / "Annotations" / "000009.xml", [("horse", 0, 0, 1, 40.5, 31)])
    [box] = read(devkit)["000009"].boxes
    assert (box.xmin, box.ymin, box.xmax, box.ymax) == (0, 0, 1, 1)


@pytest.mark.parametrize("inner", ["", "VOC2007"])
def test_it_is_built_from_the_devkit_or_the_folder_in_it(devkit, tmp_path, inner, capsys):
    assert (
        main(["build", "voc2007", "--from", str(devkit / inner), "--data-dir", str(tmp_path / "data")]) == 0
    )
    from tfrecords.manifest import Manifest

    folder = tmp_path / "data" / "voc2007"
    manifest = Manifest.load(folder)
    vocabulary = LabelVocabulary.load(folder)
    assert vocabulary.names[0] == "person" and set(vocabulary.names) == set(CLASSES)
    record = read_records(manifest, folder, "train")["000007"]
    assert [vocabulary.names[i] for i in record["image/class/ignored"]] == ["car"]
    np.testing.assert_allclose(record["image/object/area"], [49, 4], rtol=1e-5)
    assert manifest.splits["test"].num_unknown == 2 and manifest.splits["test"].num_untagged == 1
    lines = read_as_readme_says(folder)
    assert len(lines) == min(manifest.splits["train"].num_images, 3)
    assert any("'person'" in line for line in lines)


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize(
    ("spoil", "detail"),
    [
        (lambda path: path.write_text(BOMB), "declares entities"),
        (lambda path: path.write_text(path.read_text()[:80]), "not XML"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: write_xml(path, [], size=""), "no value in <size><width>"),
        (
            lambda path: write_xml(path, [], size="<size><width>0</width><height>9</height></size>"),
            "size 0 x 9 px",
        ),
        (
            lambda path: write_xml(path, [("hors", 0, 1, 1, 2, 2)]),
            "unknown class 'hors' (did you mean 'horse'?)",
        ),
        (lambda path: write_xml(path, [("horse", 0, -1, 1, 2, 2)]), "is not within 40 x 30 px"),
        (lambda path: write_xml(path, [("horse", 0, 1, 1, 42, 2)]), "is not within 40 x 30 px"),
        (lambda path: path.write_text('<?xml version="1.0" encoding="foo"?><annotation/>'), "not XML"),
        (lambda path: path.write_text(BOMB, encoding="utf-16"), "not UTF-8"),
        (lambda path: write_xml(path, [("horse", 0, "x", 1, 4, 2)]), "'x' in <bndbox><xmin>"),
    ],
)
def test_an_annotation_that_cannot_be_read_costs_its_image_and_is_counted(devkit, spoil, detail):
    spoil(devkit / "VOC2007" / "Annotations" / "000009.xml")
    skip = read(devkit)["000009"]
    assert isinstance(skip, Skip) and skip.reason == "bad_annotation"
    assert detail in skip.detail


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "chair_trainval.txt",
            "000005 -1\n000007 -1\n000009 -1\n",
            r"says -1 of the image '000005', its XML 1",
        ),
        ("car_trainval.txt", "000005 -1\n000007  1\n000009 -1\n", r"says 1 of the image '000007', its XML 0"),
        (
            "car_trainval.txt",
            "000005 -1\n000007  0\n",
            r"car_trainval.txt: has no line for the image '000009'",
        ),
        (
            "car_trainval.txt",
            "000005 -1\n000006  0\n",
            r"car_trainval.txt line 2: the image '000006' is not in",
        ),
        (
            "car_trainval.txt",
            "000005 2\n",
            r"car_trainval.txt line 1: '000005 2': expected an image's id and",
        ),
        ("car_trainval.txt", None, r"car_trainval.txt: no such file: unpack the archives"),
        ("trainval.txt", "../000005\n", r"'../000005' is no image's id"),
    ],
)
def test_where_class_files_and_xml_disagree_is_told(devkit, file, text, message):
    path = devkit / "VOC2007" / "ImageSets" / "Main" / file
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UserError, match=message):
        read(devkit)


def test_a_folder_that_is_no_devkit_is_told(tmp_path):
    with pytest.raises(
        UserError, match=r"no VOC2007/ImageSets/Main in it: give .*`python -m tfrecords build voc --from "
    ):
        Voc2007(tmp_path)


def test_an_image_in_both_splits_is_a_leak(devkit, tmp_path):
    main_folder = devkit / "VOC2007" / "ImageSets" / "Main"
    for path in main_folder.glob("*test.txt"):
        source = main_folder / path.name.replace("test", "trainval")
        path.write_text(source.read_text())
    with pytest.raises(UserError, match="'000005' is in both train and test"):
        build(Voc2007(devkit), "voc2007", tmp_path / "data", progress=False)
