"""Data sets that TensorFlow Datasets prepared: small ones, written here by TFDS itself."""

import csv
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from drawn_source import read_bytes, read_records
from readme_snippet import read_as_readme_says

from tfrecords.__main__ import main
from tfrecords.annotations import Annotation, Box, Skip
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.framing import find_records
from tfrecords.manifest import Manifest
from tfrecords.sources.tfds import TfdsSource
from tfrecords.sources.tfds_features import BadRecord, LabelsFeature, RecordLabels, find_image, find_labels
from tfrecords.verify import verify
from tfrecords.vocabulary import LabelVocabulary

tfds = pytest.importorskip("tensorflow_datasets", reason="needs `pip install tensorflow-datasets`")

from tfds_builders import DrawnPhotos, DrawnTags, draw, prepare  # noqa: E402

UNKNOWN = "unlabelled"
# What the first eight pictures have, by hand: labels and unknown labels, or why the picture is skipped.
EXPECTED = {
    "labels": [
        *(("blue", "red"), ()),
        *((), ()),
        *(UNKNOWN, None),
        *(("green",), ()),
        *(("blue",), ()),
        *(("red",), ()),
        *(("green",), ()),
        *(("blue", "green", "red"), ()),
    ],
    "objects/label": [
        *(("red",), ("blue",)),
        *((), ("green",)),
        *(("green",), ()),
        *(UNKNOWN, None),
        *[(), ()] * 4,
    ],
    "tags": [
        *(("sea", "sky"), ()),
        *((), ()),
        *(UNKNOWN, None),
        *(("boat",), ()),
        *(("sky",), ()),
        *(("sky",), ()),
        *(("sea",), ()),
        *(("Küste",), ()),
    ],
    "attributes": [
        *(("blurred", "old"), ()),
        *((), ()),
        *(("old",), ()),
        *(("blurred",), ()),
        *(("old",), ()),
        *((), ()),
        *(("blurred", "old"), ()),
        *((), ()),
    ],
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which TFDS has prepared drawn_photos and drawn_tags/plain."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    prepare(DrawnPhotos(data_dir=folder), num_shards=4)
    prepare(DrawnTags(data_dir=folder, config="plain"))
    return folder


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy of drawn_photos that a test may spoil; returns the folder of its files."""
    shutil.copytree(prepared, tmp_path / "tfds")
    return tmp_path / "tfds" / "drawn_photos" / "1.2.0"


def find_numbers(folder, split):
    """tfds_id -> number of the picture, as TFDS itself reads them."""
    dataset = tfds.builder("drawn_photos", data_dir=folder).as_dataset(
        split=split,
        read_config=tfds.ReadConfig(add_tfds_id=True),
        decoders={"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()},
    )
    number_of = {draw(number): number for number in DrawnPhotos.NUMBERS[split]}
    return {each["tfds_id"].decode(): number_of[each["image"]] for each in dataset.as_numpy_iterator()}


# ---- labels


@pytest.mark.parametrize("feature", list(EXPECTED))
def test_every_kind_of_feature_gives_the_labels_that_tfds_was_given(prepared, feature):
    source = TfdsSource("drawn_photos", prepared, labels_feature=feature)
    numbers = find_numbers(prepared, "train")
    found = {}
    for item in source.annotations("train"):
        is_skip = isinstance(item, Skip)
        found[numbers[item.image_id]] = (item.reason, None) if is_skip else (item.labels, item.ignored)
    assert sorted(found) == list(range(300))
    assert [value for number in range(8) for value in found[number]] == EXPECTED[feature]


def test_objects_bring_their_boxes_and_areas_without_those_that_name_nothing(prepared):
    numbers = find_numbers(prepared, "test")
    source = TfdsSource("drawn_photos", prepared, labels_feature="objects/label")
    boxes = {
        numbers[item.image_id] % 8: item.boxes
        for item in source.annotations("test")
        if isinstance(item, Annotation)
    }
    corners = {"ymin": 0.125, "xmin": 0.25, "ymax": 0.5, "xmax": 1.0}
    assert boxes[0] == tuple(
        Box(label, **corners, area=area) for label, area in (("red", 600), ("red", 5), ("blue", 7))
    )
    assert boxes[2] == (Box("green", **corners, area=9),)
    assert boxes[4] == ()


def test_names_of_classes_are_known_beforehand_and_those_of_texts_are_not(prepared):
    names = {
        feature: TfdsSource("drawn_photos", prepared, labels_feature=feature).label_names()
        for feature in EXPECTED
    }
    assert names == {
        "labels": ("red", "green", "blue"),
        "objects/label": ("red", "green", "blue"),
        "tags": None,
        "attributes": ("blurred", "old", "wide"),
    }


def features_of(**columns):
    lists = {
        name: tf.train.Feature(float_list=tf.train.FloatList(value=values))
        if any(isinstance(value, float) for value in values)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        for name, values in columns.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=lists))


def test_an_object_of_confidence_0_is_not_there():
    labels = LabelsFeature("label", "classes", ("cat", "dog", "owl"), confidence="confidence")
    example = features_of(label=[0, 1, 1, 2], confidence=[0, 0, 10, 3])
    assert labels.read(example) == RecordLabels(("dog", "owl"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [2]}, "label is 2: expected -1 to 1"),
        ({"label": [-2]}, "label is -2: expected -1 to 1"),
        ({}, "no label"),
        ({"label": [0.5]}, "label is a float_list: expected int64_list"),
        ({"label": [0, 1], "bbox": [0.0] * 7}, "bbox has 7 values: expected 4 for each of 2"),
        ({"label": [0], "bbox": [0.0, 0.0, 30.0, 40.0]}, "bbox is 0, 0, 30, 40: expected fractions"),
        ({"label": [0], "bbox": [0.5, 0.0, 0.25, 1.0]}, "bbox is 0.5, 0, 0.25, 1: expected fractions"),
        ({"label": [0], "bbox": [0.0, 0.5, 1.0, 0.25]}, "bbox is 0, 0.5, 1, 0.25: expected fractions"),
        ({"label": [0], "bbox": [0.0, 0.0, 1.5, 1.0]}, "bbox is 0, 0, 1.5, 1: expected fractions"),
        ({"label": [0], "bbox": [0.0, float("nan"), 1.0, 1.0]}, "bbox is 0, nan, 1, 1: expected fractions"),
        ({"label": [0], "bbox": [0.0, 0.0, 1.0, 1.0], "hard": []}, "hard has 0 values: expected one"),
    ],
)
def test_a_record_that_is_not_what_its_features_say_is_told(columns, message):
    labels = LabelsFeature("label", "classes", ("cat", "dog"), bbox="bbox", difficult="hard")
    whole = {"hard": [0] * len(columns.get("label", ())), **columns}
    with pytest.raises(BadRecord, match=message):
        labels.read(features_of(**whole))


# ---- which features


def describe(**features):
    return tfds.features.FeaturesDict(features)


CLASSES = tfds.features.ClassLabel(names=["cat", "dog"])
MANY = tfds.features.Sequence(CLASSES)
OBJECTS = tfds.features.Sequence({"label": CLASSES, "bbox": tfds.features.BBoxFeature(), "id": np.int64})


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"tags": MANY}, LabelsFeature("tags", "classes", ("cat", "dog"))),
        ({"objects": OBJECTS}, LabelsFeature("objects/label", "classes", ("cat", "dog"), "objects/bbox")),
        ({"a/b": {"c": MANY}}, LabelsFeature("a/b/c", "classes", ("cat", "dog"))),
        ({"words": tfds.features.Sequence(np.str_)}, LabelsFeature("words", "texts")),
        (
            {"is": {"old": np.bool_, "new": np.bool_, "x": np.int64}},
            LabelsFeature("is", "flags", ("new", "old")),
        ),
        # Of another order, or in px: the labels are read, and the boxes are not.
        (
            {
                "o": tfds.features.Sequence(
                    {"label": CLASSES, "b": tfds.features.BBoxFeature(bbox_format="XYXY")}
                )
            },
            LabelsFeature("o/label", "classes", ("cat", "dog")),
        ),
        # Boxes of another sequence are not those of these labels.
        (
            {"o": {"label": MANY, "bbox": tfds.features.Sequence(tfds.features.BBoxFeature())}},
            LabelsFeature("o/label", "classes", ("cat", "dog")),
        ),
    ],
)
def test_the_only_feature_that_holds_labels_is_found(features, expected):
    assert (
        find_labels(describe(image=tfds.features.Image(), single=CLASSES, **features), None, "x") == expected
    )


def test_boxes_of_before_tfds_wrote_their_format_are_read():
    objects = tfds.features.Sequence({"label": CLASSES, "b": tfds.features.BBoxFeature(bbox_format=None)})
    assert find_labels(describe(o=objects), None, "x").bbox == "o/b"


@pytest.mark.parametrize(
    ("features", "wanted", "message"),
    [
        ({"label": CLASSES}, None, "^x: no feature holds several labels an image: .*; it has label$"),
        (
            {"b": MANY, "a": OBJECTS},
            None,
            r"hold its labels \(a/label, b\): choose one with --labels-feature",
        ),
        ({"b": MANY}, "bb", r"--labels-feature bb: no such feature in x \(did you mean 'b'\?\): expected b$"),
        ({"a": CLASSES, "b": MANY}, "a", "feature a: holds a single label an image, .*: expected b$"),
        (
            {"a": tfds.features.Tensor(shape=(9,), dtype=np.int64)},
            "a",
            "holds numbers, and nothing says which",
        ),
        (
            {"a": tfds.features.Sequence(MANY), "b": MANY},
            "a",
            "feature a: is a sequence of sequences: expected b",
        ),
        ({"a": tfds.features.Image(), "b": MANY}, "a", r"feature a: is Image\(.*\): expected b$"),
    ],
)
def test_a_feature_that_holds_no_labels_and_several_that_do_are_told(features, wanted, message):
    with pytest.raises(UserError, match=message):
        find_labels(describe(**features), wanted, "x")


def test_the_image_is_the_feature_of_that_name_or_the_only_one():
    image, mask = tfds.features.Image(), tfds.features.LabeledImage(labels=2)
    depth = tfds.features.Image(shape=(None, None, 1), dtype=np.float32)
    assert find_image(describe(image=image, other=image), None, "x") == "image"
    assert find_image(describe(image=image, other=image), "other", "x") == "other"
    assert find_image(describe(photo=image, mask=mask, depth=depth), None, "x") == "photo"
    for features, wanted, message in (
        ({"a": image, "b": image}, None, r"x: has several images \(a, b\): choose one with --image-feature"),
        ({"mask": mask, "depth": depth}, None, "x: has no image: .*; it has depth, mask"),
        ({"photo": image}, "foto", r"--image-feature foto: no image of x \(did you mean 'photo'\?\)"),
    ):
        with pytest.raises(UserError, match=message):
            find_image(describe(**features), wanted, "x")


# ---- the build


def test_it_is_built_from_the_command_line_with_images_byte_for_byte(prepared, tmp_path, capsys):
    words = ["build", "tfds", "--from", "drawn_photos", "--labels-feature", "objects/label"]
    assert main([*words, "--tfds-dir", str(prepared), "--data-dir", str(tmp_path)]) == 0
    capsys.readouterr()
    folder = tmp_path / "drawn_photos"
    manifest = Manifest.load(folder)
    assert manifest.source_arguments == {
        "from": "drawn_photos/1.2.0",
        "labels_feature": "objects/label",
        "image_feature": "image",
        "splits": {"train": "train", "test": "test"},
    }
    for split, skips in (("train", 38), ("test", 2)):  # pictures 3 to 299 and 307, 315
        numbers = find_numbers(prepared, split)
        assert manifest.splits[split].skipped == {"unlabelled": skips}
        records = read_records(manifest, folder, split)
        assert set(records) < set(numbers)
        for image_id, record in records.items():
            assert record["image/encoded"] == draw(numbers[image_id])
            assert record["image/filename"].decode() == image_id
    assert set(LabelVocabulary.load(folder).names) == {"red", "green", "blue"}
    assert len(read_as_readme_says(folder)) == 3
    assert verify(folder, progress=False).ok
    written = (folder / "manifest.json").read_text() + (folder / "skipped.csv").read_text()
    assert str(prepared) not in written
    with open(folder / "skipped.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert row["detail"] == f"{row['image_id']}: all its labels are unknown"


def test_the_bytes_do_not_depend_on_the_number_of_workers(prepared, tmp_path):
    source = TfdsSource("drawn_photos", prepared, labels_feature="attributes")
    for workers in (1, 2):
        build(source, "photos", tmp_path / str(workers), workers=workers, progress=False)
    records = read_records(Manifest.load(tmp_path / "2" / "photos"), tmp_path / "2" / "photos", "train")
    assert len(records) == 300  # enough for a pool
    assert read_bytes(tmp_path / "1" / "photos") == read_bytes(tmp_path / "2" / "photos")


def test_a_worker_gets_a_small_source_that_reads_images(prepared):
    source = TfdsSource("drawn_photos", prepared, labels_feature="labels")
    sent = pickle.dumps(source)
    assert len(sent) < 2000
    numbers = find_numbers(prepared, "test")
    for item in source.annotations("test"):
        if isinstance(item, Annotation):
            assert pickle.loads(sent).read_image(item) == draw(numbers[item.image_id])


@pytest.mark.parametrize(
    ("name", "default"),
    [("drawn_tags/plain", "drawn_tags-plain"), ("drawn_tags/plain:2.0.0", "drawn_tags-plain-2.0.0")],
)
def test_a_configuration_a_version_and_splits_of_its_own_are_chosen(
    prepared, tmp_path, capsys, name, default
):
    words = ["build", "tfds", "--from", name, "--splits", "test = rest, train=first_half"]
    assert main([*words, "--tfds-dir", str(prepared), "--data-dir", str(tmp_path)]) == 0
    capsys.readouterr()
    manifest = Manifest.load(tmp_path / default)
    assert manifest.source_arguments == {
        "from": "drawn_tags/plain/2.0.0",
        "labels_feature": "tags",
        "image_feature": "photo",
        "splits": {"train": "first_half", "test": "rest"},
    }
    assert {split: facts.num_images for split, facts in manifest.splits.items()} == {"train": 6, "test": 3}
    encoded = {
        record["image/encoded"] for record in read_records(manifest, tmp_path / default, "test").values()
    }
    assert encoded == {draw(number, "PNG") for number in (6, 7, 8)}


def test_one_split_can_be_read_from_several(prepared):
    source = TfdsSource("drawn_tags/plain", prepared, splits="test=rest,train=first_half+rest")
    assert source.splits() == ("train", "test")
    assert [len(list(source.annotations(split))) for split in source.splits()] == [9, 3]


def test_a_data_set_that_is_not_there_is_prepared_if_asked_for(tmp_path, capsys):
    words = f"build tfds --from drawn_tags --tfds-dir {tmp_path} --data-dir {tmp_path / 'data'}".split()
    words += ["--splits", "train=first_half,test=rest"]
    assert main(words) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(
        f"error: drawn_tags: not prepared in {tmp_path}/drawn_tags/plain/2.0.0: pass --download"
    )
    code = f'import tensorflow_datasets as t; t.load("drawn_tags", data_dir="{tmp_path}")'
    assert f"-c '{code}'`" in line
    assert main([*words, "--download"]) == 0
    assert Manifest.load(tmp_path / "data" / "drawn_tags").splits["train"].num_images == 6


# ---- mistakes


MISTAKES = [
    (
        {"dataset": "drawn_photo"},
        r"'drawn_photo' \(did you mean 'drawn_photos'\?\): TensorFlow Datasets knows no",
    ),
    (
        {"dataset": "drawn_photos:9.0.0"},
        r"'drawn_photos:9.0.0': TensorFlow Datasets knows .* holds none \(there is 1.2.0\)",
    ),
    ({"dataset": "not a name"}, "'not a name': TensorFlow Datasets refuses it: Parsing builder name string"),
    (
        {"dataset": "drawn_tags/palin"},
        "'drawn_tags/palin': TensorFlow Datasets refuses it: .*palin not found",
    ),
    ({"labels_feature": None}, r"drawn_photos/1.2.0: several .*\(attributes, labels, objects/label, tags\)"),
    (
        {"splits": "train"},
        "--splits train: 'train' is not understood: expected train, validation, test, each",
    ),
    ({"splits": "trian=train"}, r"'trian=train' is not understood \(did you mean 'train'\?\)"),
    ({"splits": "train=train,train=test"}, "'train=test' is not understood"),
    ({"splits": "train=train+etxra"}, r"no split 'etxra' in drawn_photos/1.2.0 \(did you mean 'extra'\?\)"),
    ({"splits": "train="}, "'train=' is not understood"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_told_in_one_line(prepared, arguments, message):
    arguments = {"dataset": "drawn_photos", "labels_feature": "labels", **arguments}
    with pytest.raises(UserError, match=message) as raised:
        TfdsSource(data_dir=prepared, **arguments)
    assert "\n" not in str(raised.value)


def test_a_data_set_without_train_names_the_flag(prepared):
    message = "has no split train, but first_half, rest: say .* with --splits, as in train=first_half"
    with pytest.raises(UserError, match=message):
        TfdsSource("drawn_tags/plain", prepared)


def test_a_split_whose_labels_are_held_back_is_told(prepared):
    source = TfdsSource(
        "drawn_photos", prepared, labels_feature="objects/label", splits="train=train,test=bare"
    )
    with pytest.raises(
        UserError, match=r"objects/label names nothing on any image of the split bare: .*--splits"
    ):
        list(source.annotations("test"))


def test_a_split_that_is_used_twice_is_a_leak(prepared, tmp_path):
    source = TfdsSource(
        "drawn_photos", prepared, labels_feature="labels", splits="train=train+test,test=test"
    )
    with pytest.raises(
        UserError, match=r"drawn_photos-test.tfrecord-00000-of-00004__0' is in both train and test"
    ):
        build(source, "photos", tmp_path, progress=False)


def test_a_version_beside_the_wanted_one_is_named(tmp_path):
    (tmp_path / "drawn_tags" / "plain" / "1.0.0").mkdir(parents=True)
    (tmp_path / "drawn_tags" / "plain" / "1.0.0" / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match=r"not prepared in .*2.0.0 \(there is 1.0.0\): pass"):
        TfdsSource("drawn_tags/plain", tmp_path)


def test_another_file_format_is_refused_with_what_to_do(tmp_path):
    prepare(DrawnPhotos(data_dir=tmp_path, file_format="array_record"))
    with pytest.raises(
        UserError, match="prepared as array_record, and only tfrecord is read: prepare it in another"
    ):
        TfdsSource("drawn_photos", tmp_path)


def test_what_stops_the_preparation_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot prepare it: the owners' server$"):
        TfdsSource("drawn_tags/broken", tmp_path, download=True)


def test_the_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"needs TensorFlow Datasets: run `pip install tensorflow-datasets`"):
        TfdsSource("drawn_photos")


# ---- files that are not as TFDS left them


def open_copy(folder):
    return TfdsSource("drawn_photos", folder.parents[1], labels_feature="labels")


def flip(path):
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)


def drop_last_record(path):
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    write(path, records[:-1])


def change_images(path):
    """Other bytes in records of the same size, at the same places."""
    examples = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    for example in examples:
        [image] = example.features.feature["image"].bytes_list.value
        example.features.feature["image"].bytes_list.value[:] = [image[:-3] + b"\0" + image[-2:]]
    size = path.stat().st_size
    write(path, [example.SerializeToString() for example in examples])
    assert path.stat().st_size == size


def blot(path):
    """Damages each record, and leaves its checksum."""
    content = bytearray(path.read_bytes())
    for start, _ in find_records(path):
        content[start] = 0xFF
    path.write_bytes(content)


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "No such file or directory: prepare the data set again"),
        (flip, "is damaged .*: prepare the data set again"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "is damaged .*: prepare the data set again"),
        (drop_last_record, "holds 3 records, and dataset_info.json says 4: prepare drawn_photos/1.2.0 again"),
    ],
    ids=["missing", "a flipped bit", "cut off", "too short"],
)
def test_a_shard_that_is_missing_or_damaged_is_told(copied, spoil, message):
    shard = copied / "drawn_photos-test.tfrecord-00002-of-00004"
    spoil(shard)
    with pytest.raises(UserError, match=f"^{shard}: {message}") as raised:
        list(open_copy(copied).annotations("test"))
    assert "\n" not in str(raised.value)


def test_a_record_that_cannot_be_read_costs_its_image_and_is_counted(copied):
    shard = copied / "drawn_photos-test.tfrecord-00001-of-00004"
    first, second, third, last = (record.numpy() for record in tf.data.TFRecordDataset(str(shard)))
    example = tf.train.Example.FromString(second)
    example.features.feature["labels"].int64_list.value[:] = [3]
    blind = tf.train.Example.FromString(third)
    del blind.features.feature["image"]
    write(shard, [b"\xff" + first, example.SerializeToString(), blind.SerializeToString(), last])
    found = {
        item.image_id.rpartition("__")[2]: item
        for item in open_copy(copied).annotations("test")
        if item.image_id.startswith(shard.name)
    }
    assert {item.reason for number, item in found.items() if number != "3"} == {"bad_annotation"}
    details = [found[number].detail.partition(": ")[2] for number in "012"]
    assert details == ["not a tf.train.Example", "labels is 3: expected -1 to 2", "no image"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "missing_image"),
        (lambda path: path.write_bytes(b""), "unreadable_image"),
        (lambda path: change_images(path), "unreadable_image"),
        (lambda path: blot(path), "unreadable_image"),
    ],
    ids=["missing", "empty", "prepared anew", "damaged"],
)
def test_a_shard_that_changes_while_it_is_read_costs_its_images(copied, tmp_path, monkeypatch, spoil, reason):
    shard = copied / "drawn_photos-test.tfrecord-00003-of-00004"
    source = open_copy(copied)
    annotations = {split: list(source.annotations(split)) for split in source.splits()}
    lost = [
        item for item in annotations["test"] if isinstance(item, Annotation) and shard.name in item.image_id
    ]
    assert lost
    spoil(shard)
    monkeypatch.setattr(source, "annotations", lambda split: iter(annotations[split]))
    manifest = build(source, "photos", tmp_path / "data", workers=1, allow_missing=True, progress=False)
    assert manifest.splits["test"].skipped[reason] == len(lost)


def test_records_of_other_images_in_the_same_place_give_other_annotations(copied):
    """By its annotations a build that goes on tells which finished shards still hold."""
    shard = copied / "drawn_photos-test.tfrecord-00000-of-00004"
    before = list(open_copy(copied).annotations("test"))
    change_images(shard)
    changed = [
        old.image_id
        for old, new in zip(before, open_copy(copied).annotations("test"), strict=True)
        if old != new
    ]
    assert changed == [
        item.image_id for item in before if isinstance(item, Annotation) and shard.name in item.image_id
    ]
    assert changed


def test_what_tensorflow_logs_is_left_as_it_was(prepared):
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("INFO")
    list(TfdsSource("drawn_photos", prepared, labels_feature="labels").annotations("test"))
    assert logger.level == 20
    logger.setLevel(level)
