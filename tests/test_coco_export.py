"""Exports in COCO's form, as several programs write them: what is asked for, and what is told."""

import json
import zipfile

import pytest
from PIL import Image

from tfrecords.__main__ import main
from tfrecords.annotations import Annotation
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.sources.coco_export import CocoSource
from tfrecords.vocabulary import LabelVocabulary

LABELS = {"a.jpg": ("cat",), "b.jpg": ("cat", "dog"), "c.jpg": ()}


def make_content():
    """Three images: a has a cat, b two dogs and a cat, c nothing."""
    box = {"bbox": [4, 3, 20, 15], "area": 111.5, "iscrowd": 0, "segmentation": [[1, 1, 2, 2, 3, 3]]}
    pairs = ((1, 1), (2, 3), (2, 3), (2, 1))
    return {
        "images": [
            {"id": i, "file_name": f"{name}.jpg", "width": 40, "height": 30}
            for i, name in enumerate("abc", 1)
        ],
        "categories": [
            {"id": 1, "name": "cat", "supercategory": "animal"},
            {"id": 3, "name": "dog", "supercategory": "animal"},
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, **box}
            for number, (image, category) in enumerate(pairs, 1)
        ],
    }


def draw(*paths):
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number, 0, 0)).save(path)


@pytest.fixture
def export(tmp_path):
    """A folder with `_annotations.coco.json` beside its images; `write` changes the JSON."""
    folder = tmp_path / "export"
    draw(*(folder / name for name in LABELS))
    write(folder)
    return folder


def write(folder, change=lambda content: None, name="_annotations.coco.json"):
    content = make_content()
    content = change(content) or content
    (folder / name).write_text(json.dumps(content))
    return folder / name


def read(source):
    """image id -> labels, and id -> reason, over all splits."""
    items = [item for _, item in source.items()]
    return {item.image_id: item.labels for item in items if isinstance(item, Annotation)}


def each(key, function):
    def change(content):
        for item in content[key]:
            function(item)

    return change


def drop(*keys):
    return lambda item: [item.pop(key) for key in keys]


# ---- what labels need, and no more


def as_dogs_and_cats(content):
    content["categories"][0]["id"], content["categories"][1]["id"] = 0, 1
    for item in content["annotations"]:
        item["category_id"] = {1: 0, 3: 1}[item["category_id"]]


def as_texts(content):
    for item in content["images"]:
        item["id"] = f"5858{item['id']}-23d2"
    for item in content["annotations"]:
        item.update(
            id=f"a-{item['id']}",
            image_id=f"5858{item['image_id']}-23d2",
            category_id=str(item["category_id"]),
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda content: None,
        each("annotations", drop("area")),
        each("annotations", drop("bbox")),
        each("annotations", drop("id")),
        each("annotations", drop("bbox", "area", "segmentation", "iscrowd")),
        each("annotations", lambda item: item.update(bbox=[])),
        each("annotations", lambda item: item.update(bbox=None, area="large")),
        each(
            "annotations",
            lambda item: item.update(iscrowd=1, segmentation={"size": [30, 40], "counts": "ab"}),
        ),
        each("annotations", lambda item: item.update(id=1)),
        each("annotations", lambda item: item.update(image_id=str(item["image_id"]))),
        each("annotations", lambda item: item.update(image_id=float(item["image_id"]))),
        each("annotations", lambda item: item.update(category_id=[item["category_id"]])),
        each("images", drop("width", "height")),
        each("images", lambda item: item.update(width=0, height=0)),
        each("images", lambda item: item.update(id=float(item["id"]))),
        each("images", lambda item: item.update(id=f"{item['id']}.0")),
        each("categories", drop("supercategory")),
        each("categories", lambda item: item.update(supercategory="none")),
        each("categories", lambda item: item.update(supercategory=item["name"])),
        each("categories", lambda item: item.update(name=f" {item['name']}\u200b")),
        as_dogs_and_cats,
        as_texts,
    ],
)
def test_only_what_labels_need_is_asked_for(export, change):
    write(export, change)
    source = CocoSource(export)
    assert read(source) == LABELS
    assert source.label_names() == ("cat", "dog")


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item.update(file_name=f"https://example.org/x/{item['file_name']}?v=2"),
        lambda item: item.update(file_name=f"upload/7/{item['file_name']}"),
        lambda item: item.update(file_name=f"images\\{item['file_name']}"),
        lambda item: item.update(file_name=f"/home/user/photos/{item['file_name']}"),
        lambda item: item.update(file_name=f"/data/local-files/?d=photos%2F{item['file_name']}"),
        lambda item: item.update(file_name=item["file_name"].upper()),
    ],
)
def test_images_are_found_by_the_end_of_their_names(export, change):
    write(export, each("images", change))
    source = CocoSource(export / "_annotations.coco.json")
    assert read(source) == LABELS
    assert any("3 images found under another name" in note for note in source.notes())


def test_a_name_in_percent_signs_is_found(export):
    draw(export / "ä b.jpg")
    write(export, lambda content: content["images"][0].update(file_name="%C3%A4%20b.jpg"))
    assert read(CocoSource(export))["ä b.jpg"] == ("cat",)


def test_boxes_and_areas_are_carried_where_they_are_whole(export):
    def change(content):
        content["annotations"][0].update(bbox=[0, 0, 40.5, 30], area=None)
        content["annotations"][1].update(bbox=[1, 2, 3])
        content["annotations"][2].update(bbox=["4", "3", "20", "15"])

    write(export, change)
    source = CocoSource(export)
    boxes = {item.image_id: item.boxes for _, item in source.items()}
    [whole] = boxes["a.jpg"]
    assert (whole.xmin, whole.xmax, whole.ymax, whole.area) == (0, 1, 1, None)
    assert [(box.label, box.xmin, box.area) for box in boxes["b.jpg"]] == [
        ("dog", 0.1, 111.5),
        ("cat", 0.1, 111.5),
    ]
    assert source.notes() == ["boxes of 1 annotation are left out, their labels kept: 1 not four numbers"]


# ---- the vocabulary


def test_a_category_that_groups_others_and_has_no_image_is_no_label(export):
    def change(content):
        content["categories"].insert(0, {"id": 0, "name": "animal", "supercategory": "none"})

    write(export, change)
    source = CocoSource(export)
    assert source.label_names() == ("cat", "dog")
    assert source.notes() == ["'animal' is the group of others and has no annotation: no label"]
    write(export, lambda content: change(content) or content["annotations"][0].update(category_id=0))
    assert set(CocoSource(export).label_names()) == {"animal", "cat", "dog"}


def test_categories_of_one_name_are_one_label_and_those_without_images_stay(export):
    def change(content):
        content["categories"] += [{"id": 4, "name": "cat"}, {"id": 5, "name": "fox"}]
        content["annotations"][0]["category_id"] = 4

    write(export, change)
    source = CocoSource(export)
    assert read(source) == LABELS
    assert source.label_names() == ("cat", "dog", "fox")
    assert source.notes() == ["'cat' is the name of the categories 1 and 4: one label"]


@pytest.mark.parametrize("key", ["category_id", "category_name", "category"])
def test_categories_may_be_named_in_the_annotations_alone(export, key):
    def change(content):
        del content["categories"]
        for item in content["annotations"]:
            item[key] = {1: "cat", 3: "dog"}[item.pop("category_id")]

    write(export, change)
    assert read(CocoSource(export)) == LABELS


def test_of_lvis_what_was_not_looked_for_is_unknown(export):
    def change(content):
        content["categories"].append({"id": 5, "name": "fox"})
        for item in content["images"]:
            item["coco_url"] = f"http://images.example/{export.name}/{item.pop('file_name')}"
            item.update(neg_category_ids=[3] if item["id"] == 1 else [], not_exhaustive_category_ids=[])

    write(export, change)
    source = CocoSource(export)
    found = {item.image_id: (item.labels, item.ignored) for _, item in source.items()}
    assert found == {
        "a.jpg": (("cat",), ("fox",)),
        "b.jpg": (("cat", "dog"), ("fox",)),
        "c.jpg": ((), ("cat", "dog", "fox")),
    }
    assert "as in LVIS" in source.notes()[0]


# ---- layouts


def splits_of(source):
    return {(split, item.image_id) for split, item in source.items()}


def test_the_layout_of_coco_2017_has_val_as_its_test_split(tmp_path):
    (tmp_path / "annotations").mkdir()
    for word, image in (("train2017", "a.jpg"), ("val2017", "b.jpg")):
        draw(tmp_path / word / image)
        keep = image == "a.jpg"
        for kind in ("instances", "captions", "person_keypoints"):
            write(
                tmp_path / "annotations",
                lambda content, keep=keep: {
                    **content,
                    "images": content["images"][:1] if keep else content["images"][1:2],
                    "annotations": content["annotations"][:1] if keep else content["annotations"][1:],
                },
                f"{kind}_{word}.json",
            )
    source = CocoSource(tmp_path)
    assert splits_of(source) == {("train", "train2017/a.jpg"), ("test", "val2017/b.jpg")}
    assert "there is no test split" in source.notes()[0]
    words = [
        f"{split}={tmp_path}/annotations/instances_{word}.json"
        for split, word in (("train", "train2017"), ("val", "val2017"))
    ]
    assert CocoSource(words).splits() == ("train", "validation")
    assert CocoSource([",".join(words)]).splits() == ("train", "validation")


def test_the_layout_of_roboflow_has_a_folder_a_split(tmp_path):
    for folder in ("train", "valid", "test"):
        draw(*(tmp_path / folder / name for name in LABELS))
        write(tmp_path / folder)
    source = CocoSource(tmp_path)
    assert source.splits() == ("train", "validation", "test")
    assert ("validation", "valid/a.jpg") in splits_of(source) and len(splits_of(source)) == 9
    assert source.notes() == []
    one = CocoSource([f"train={tmp_path / 'train'},test={tmp_path / 'test'}"])
    assert splits_of(one) == {(split, f"{split}/{name}") for split in ("train", "test") for name in LABELS}


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations/instances_default.json", "images"),  # CVAT
        ("annotations/instances_default.json", "images/default/task"),
        ("result.json", "images"),  # Label Studio
        ("labels.json", "data"),  # FiftyOne
        ("export.json", "."),
    ],
)
def test_one_file_and_its_images_are_found_by_the_folder(tmp_path, file, images):
    draw(*(tmp_path / images / name for name in LABELS))
    (tmp_path / file).parent.mkdir(exist_ok=True)
    write((tmp_path / file).parent, name=(tmp_path / file).name)
    for given in (tmp_path, tmp_path / file):
        source = CocoSource(given)
        assert source.splits() == ("train",)
        assert [labels for _, labels in sorted(read(source).items())] == list(LABELS.values())


def test_images_may_be_elsewhere_and_in_an_archive(export, tmp_path):
    file = write(tmp_path, name="labels.json")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in LABELS:
            archive.write(export / name, f"in/{name}")
    for images in (export, tmp_path / "photos.zip"):
        manifest = build(CocoSource(file, [images]), images.name, tmp_path / "data", progress=False)
        assert manifest.splits["train"].num_images == 3


def test_of_two_files_with_one_name_the_one_in_the_folder_of_the_split_is_meant(tmp_path):
    (tmp_path / "annotations").mkdir()
    for word in ("train", "val"):
        draw(*(tmp_path / "images" / word / name for name in LABELS))
    file = write(tmp_path / "annotations", name="train.json")
    assert set(read(CocoSource(file))) == {f"images/train/{name}" for name in LABELS}
    (tmp_path / "images" / "train").rename(tmp_path / "images" / "other")
    [first, *_] = [item for _, item in CocoSource(file).items()]
    assert (
        first.reason == "ambiguous_image" and "both images/other/a.jpg and images/val/a.jpg" in first.detail
    )


def test_the_command_line_builds_it(export, tmp_path, capsys):
    command = ["build", "coco", "--from", str(export), "--name", "mine", "--data-dir", str(tmp_path / "data")]
    assert main(command) == 0
    assert Manifest.load(tmp_path / "data" / "mine").splits["train"].num_untagged == 1
    assert LabelVocabulary.load(tmp_path / "data" / "mine").counts == (2, 1)
    (export / "a.jpg").unlink()
    (export / "b.jpg").rename(export / "x.jpg")
    assert main([*command, "--overwrite"]) == 2
    assert "2 of the 3 train images are missing" in capsys.readouterr().err


# ---- mistakes: the field and the record, and never "unpack it again"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content["annotations"][0].update(category_id=99),
            r"annotation 1 \(number 1\) has the category_id 99, which the file does not list among its 2 "
            r"categories \(1, 3\): mend it, or export it again$",
        ),
        (
            lambda content: content["annotations"][1].update(image_id=10),
            r"annotation 2 \(number 2\) has the image_id 10, which the file does not list among its 3 images",
        ),
        (
            lambda content: content["annotations"].append({"image_id": 1}),
            "annotation number 5 has no category_id",
        ),
        (
            each("annotations", lambda item: item.update(image_id=item["image_id"] + 2)),
            r"annotation 2 \(number 2\) has the image_id 4, .* images, and 2 more of 4 are at fault: mend",
        ),
        (
            lambda content: content["annotations"].append({"category_id": 1}),
            "annotation number 5 has no image_id",
        ),
        (lambda content: content["images"][1].pop("id"), "the image number 2 of the list has no id"),
        (lambda content: content["images"][1].pop("file_name"), "the image 2 has no file_name"),
        (
            lambda content: content["images"][1].update(file_name=7),
            "the image 2 has the file_name 7: expected a text",
        ),
        (
            lambda content: content["images"][1].update(id=1),
            r"the id 1 is of two images, 'a.jpg' and 'b.jpg'",
        ),
        (
            lambda content: content["images"][1].update(file_name="a.jpg"),
            r"an image is listed twice, such as 'a.jpg', as 1 and 2: leave one of each",
        ),
        (lambda content: content["categories"][1].pop("name"), "the category 3 has no name"),
        (
            lambda content: content["categories"][1].update(name=" "),
            "the category 3 has the name ' ': expected a text",
        ),
        (
            lambda content: content["categories"][1].update(id=1),
            "the id 1 is of two categories, 'cat' and 'dog'",
        ),
        (lambda content: content.update(images={}), "images is dict, expected a list"),
        (lambda content: content.update(annotations=[3]), "number 1 of annotations is 3"),
        (lambda content: {"images": [], "annotations": []}, "lists no images"),
        (
            lambda content: content.update(categories=None),
            r"has the category_id 1, which the file does not list among its 0 categories",
        ),
        (
            each("annotations", lambda item: item.pop("category_id") and item.update(caption="a cat")),
            "holds captions and no labels: give instances_",
        ),
        (
            each("annotations", lambda item: item.update(segments_info=[])),
            "holds panoptic segments and no labels: give instances_",
        ),
        (
            lambda content: [{"image_id": 1, "category_id": 1, "score": 0.5}],
            "a list, .*these are a detector's results",
        ),
        (lambda content: [{"id": 1, "annotations": []}], "Label Studio's own JSON: export it as COCO"),
        (lambda content: {"shapes": [], "imagePath": "a.jpg"}, "LabelMe's, one file an image"),
        (lambda content: {"a": 1}, "lists no images or no categories.*its keys are a$"),
    ],
)
def test_the_record_at_fault_is_named(export, change, message):
    def replace(content):
        found = change(content)
        return found if isinstance(found, list | dict) and "name" not in found else content

    file = write(export, replace)
    with pytest.raises(UserError, match=message) as caught:
        read(CocoSource(file))
    assert str(caught.value).startswith(f"{file}: ") and "unpack" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"images": [{"id"', "cut off or damaged"),
        (b'{"images": "\xff"}', "not UTF-8"),
        (b"", "cut off or damaged"),
    ],
)
def test_a_file_that_is_no_json_is_told(export, data, message):
    (export / "x.json").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read(CocoSource(export / "x.json"))


def test_what_is_not_clear_is_refused(export, tmp_path):
    write(export, name="other.json")
    with pytest.raises(
        UserError, match=r"several are of no split by their names, .*: name those that are meant"
    ):
        CocoSource(export)
    with pytest.raises(UserError, match="several COCO files are in it"):
        CocoSource([f"train={export}"])
    with pytest.raises(UserError, match="no such file or folder: give the JSON"):
        CocoSource(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "x.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"no JSON with COCO's .*x.json is none, for it has no images and annot"
    ):
        CocoSource(empty)
    (empty / "a.xml").touch()
    with pytest.raises(
        UserError, match=r"in it; .*; XML of VOC's form is read by `python -m tfrecords build voc"
    ):
        CocoSource(empty)
    (tmp_path / "export.zip").touch()
    with pytest.raises(UserError, match=r"export.zip: is no JSON; it is packed: unpack it first"):
        CocoSource(tmp_path / "export.zip")
    with pytest.raises(UserError, match="--images names no folder for the split train"):
        CocoSource(export / "other.json", [f"test={export}"])
