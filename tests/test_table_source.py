"""The table source: every form of CSV and JSONL that it reads, and every mistake that it names."""

import json
import os
import pickle

import pytest

from tfrecords.annotations import Annotation, Skip
from tfrecords.errors import UserError
from tfrecords.sources import make_source
from tfrecords.sources.table import TableSource

JOINED = "image,labels,split\na.jpg,sea;sky,train\nb.jpg,,train\nc.jpg,sky,test\n"
EXPECTED = [("a.jpg", ("sea", "sky"), ()), ("b.jpg", (), ()), ("c.jpg", ("sky",), ())]


@pytest.fixture
def write(tmp_path):
    """Writes a table and returns its source; images are looked for in tmp_path/photos."""
    (tmp_path / "photos").mkdir()

    def write_table(text, name="labels.csv", encoding="utf-8", **options):
        data = text if isinstance(text, bytes) else text.encode(encoding)
        (tmp_path / name).write_bytes(data)
        return TableSource(tmp_path / name, tmp_path / "photos", **options)

    return write_table


def read_all(source):
    """Every annotation in the order train, validation, test, as (id, labels, ignored)."""
    items = [item for split in source.splits() for item in source.annotations(split)]
    return [(item.image_id, item.labels, item.ignored) for item in items if isinstance(item, Annotation)]


def read_skips(source):
    items = [item for split in source.splits() for item in source.annotations(split)]
    return [(item.image_id, item.reason) for item in items if isinstance(item, Skip)]


def jsonl(*objects):
    return "".join(json.dumps(item) + "\n" for item in objects)


# ---- forms


@pytest.mark.parametrize(
    ("text", "options"),
    [
        pytest.param(JOINED, {}, id="comma"),
        pytest.param(JOINED.replace(",", "\t"), {}, id="tab"),
        pytest.param(
            'image;labels;split\na.jpg;"sea;sky";train\nb.jpg;"";train\nc.jpg;sky;test\n', {}, id="semicolon"
        ),
        pytest.param(JOINED.replace("\n", "\r\n"), {}, id="CRLF"),
        pytest.param(JOINED.rstrip("\n"), {}, id="no newline at the end"),
        pytest.param(JOINED.replace("\n", "\n\n"), {}, id="blank lines"),
        pytest.param("\ufeff" + JOINED, {}, id="BOM"),
        pytest.param(JOINED.replace("image,labels,split", "File, Labels ,SPLIT"), {}, id="other header case"),
        pytest.param(JOINED.replace("sea;sky", " sea ;; sky;sea ; "), {}, id="blanks, empty pieces, twice"),
        pytest.param(
            JOINED.replace("a.jpg", "./a.jpg").replace("b.jpg", "x/../b.jpg"), {}, id="untidy paths"
        ),
        pytest.param(
            JOINED.replace(";", "|").replace("image,labels,split", "photo,tags,part"),
            dict(image_column="photo", labels_column="tags", split_column="part", label_separator="|"),
            id="named columns",
        ),
        pytest.param(
            JOINED.replace(";", ",").replace("sea,sky", '"sea,sky"'), dict(label_separator=","), id="by comma"
        ),
        pytest.param(
            "image,width,sky,sea,split\na.jpg,9,1,1,train\nb.jpg,9,0,0,train\nc.jpg,9,1,0,test\n",
            dict(ignore_columns=["width"]),
            id="one column a label",
        ),
        pytest.param(
            "image,sea,sky,split\na.jpg,1.0,1,train\nb.jpg,0.0,0,train\nc.jpg,0, 1 ,test\n", {}, id="1.0"
        ),
    ],
)
def test_every_form_of_csv_gives_the_same_annotations(write, text, options):
    source = write(text, **options)
    assert source.splits() == ("train", "test")
    assert [(i, tuple(sorted(labels)), ignored) for i, labels, ignored in read_all(source)] == EXPECTED


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param([["sea", "sky"], [], ["sky"]], id="lists"),
        pytest.param([["sea", " sky ", "sea", ""], [], ["sky"]], id="untidy lists"),
        pytest.param(["sea;sky", "", "sky"], id="joined text"),
        pytest.param([{"sea": 1, "sky": 1}, {"sea": 0, "sky": 0}, {"sky": 1}], id="one key a label"),
        pytest.param([{"sea": True, "sky": 1.0}, {}, {"sea": "0", "sky": "1"}], id="other spellings of 1"),
    ],
)
def test_every_form_of_jsonl_gives_the_same_annotations(write, labels):
    images = zip("abc", labels, ("train", "train", "test"), strict=True)
    text = jsonl(
        *({"image": f"{name}.jpg", "labels": value, "split": split} for name, value, split in images)
    )
    assert read_all(write(text, "labels.jsonl")) == EXPECTED
    assert read_all(write(text.replace("\n", "\r\n\r\n"), "labels.ndjson")) == EXPECTED


def test_a_blank_or_minus_one_is_unknown_in_one_column_a_label(write):
    source = write("image,sea,sky,sun\na.jpg,1,,-1\nb.jpg,0,-1.0,0\n")
    assert read_all(source) == [("a.jpg", ("sea",), ("sky", "sun")), ("b.jpg", (), ("sky",))]
    assert source.label_names() == ("sea", "sky", "sun")


def test_unknown_labels_beside_joined_labels_stand_in_a_column_of_their_own(write):
    source = write("image,labels,unknown\na.jpg,sea,sky;sun\nb.jpg,sky,\n")
    assert read_all(source) == [("a.jpg", ("sea",), ("sky", "sun")), ("b.jpg", ("sky",), ())]
    assert source.label_names() is None


def test_unknown_labels_in_jsonl(write):
    lines = [
        {"image": "a.jpg", "labels": ["sea"], "unknown": ["sky"]},
        {"image": "b.jpg", "labels": "sky", "ignored": "sea;sun"},
        {"image": "c.jpg", "labels": {"sea": 1, "sky": None, "sun": -1, "ufo": 0}},
    ]
    source = write(jsonl(*lines), "labels.jsonl")
    assert read_all(source) == [
        ("a.jpg", ("sea",), ("sky",)),
        ("b.jpg", ("sky",), ("sea", "sun")),
        ("c.jpg", ("sea",), ("sky", "sun")),
    ]
    assert source.label_names() == ("sea", "sky", "sun", "ufo")


def test_labels_and_paths_in_any_script(write):
    source = write("image,labels\nフォト/1.jpg,Äpfel;海\n")
    assert read_all(source) == [("フォト/1.jpg", ("Äpfel", "海"), ())]


def test_paths_with_backslashes_get_slashes(write, tmp_path):
    source = write("image,labels\ntrain\\1.jpg,sea\n")
    [annotation] = source.annotations("train")
    assert annotation.image_id == "train/1.jpg"
    assert annotation.image_path == str(tmp_path / "photos" / "train" / "1.jpg")


@pytest.mark.parametrize(
    ("word", "split"),
    [("train", "train"), ("Training", "train"), ("val", "validation"), ("valid", "validation")]
    + [("validation", "validation"), ("test", "test"), (" TESTING ", "test")],
)
def test_splits_go_by_several_words(write, word, split):
    assert write(f"image,labels,split\na.jpg,sea,{word}\n").splits() == (split,)


def test_without_a_split_column_everything_is_for_training(write):
    assert write("image,labels\na.jpg,sea\n").splits() == ("train",)
    assert write(jsonl({"image": "a.jpg", "labels": ["sea"]}), "a.jsonl").splits() == ("train",)


def test_images_lie_beside_the_table_unless_said_otherwise(tmp_path):
    (tmp_path / "labels.csv").write_text("image,labels\na.jpg,sea\n")
    [annotation] = TableSource(tmp_path / "labels.csv").annotations("train")
    assert annotation.image_path == str(tmp_path / "a.jpg")


def test_the_manifest_gets_the_arguments_but_no_path_of_this_machine(write, tmp_path):
    source = write(JOINED, label_separator="|")
    assert source.arguments() == {"from": "labels.csv", "label_separator": "|"}
    assert str(tmp_path) not in json.dumps(source.arguments())


def test_a_source_pickles_small_and_still_reads(write):
    rows = "".join(f"{i}.jpg,sea;sky\n" for i in range(2000))
    source = write("image,labels\n" + rows)
    assert len(read_all(source)) == 2000
    pickled = pickle.dumps(source)
    assert len(pickled) < 2000
    assert read_all(pickle.loads(pickled)) == read_all(source)


# ---- rows that are left out, counted and named


def test_a_row_without_an_image_path_is_skipped(write):
    source = write("image,labels\na.jpg,sea\n,sky\n")
    assert read_skips(source) == [("line 3", "no_image_path")]
    lines = jsonl(
        {"image": "a.jpg", "labels": []}, {"image": "", "labels": []}, {"image": None, "labels": []}
    )
    assert read_skips(write(lines, "a.jsonl")) == [("line 2", "no_image_path"), ("line 3", "no_image_path")]


def test_an_identical_row_is_skipped_and_told_with_both_lines(write):
    source = write("image,labels\na.jpg,sea;sky\nb.jpg,sea\n./a.jpg,sky;sea\n")
    *_, skip = source.annotations("train")
    assert (skip.image_id, skip.reason) == ("a.jpg", "duplicate_row")
    assert skip.detail.endswith("labels.csv line 4 repeats line 2")


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "..", "..\\secret.jpg"]
)
def test_a_path_that_climbs_out_of_the_image_folder_is_skipped(write, path):
    assert read_skips(write(f"image,labels\na.jpg,sea\n{path},sea\n")) == [(path, "path_outside_images")]


def test_an_absolute_path_inside_the_image_folder_is_fine(write, tmp_path):
    source = write(f"image,labels\n{tmp_path}/photos/x/a.jpg,sea\n")
    assert read_all(source) == [("x/a.jpg", ("sea",), ())]


# ---- mistakes

BAD_CSV = [
    (
        "value",
        "image,sea,sky\na.jpg,1,0\nb.jpg,yes,0\n",
        r"line 3: column 'sea' has the value 'yes': expected 1, 0",
    ),
    ("two", "image,sea\na.jpg,2\n", r"line 2: column 'sea' has the value '2': expected 1, 0, or blank or -1"),
    ("nan", "image,sea\na.jpg,nan\n", r"column 'sea' has the value 'nan'"),
    ("text column", "image,notes\na.jpg,sea;sky\n", r"'sea;sky'.* named with --labels-column"),
    (
        "split",
        "image,labels,split\na.jpg,sea,dev\n",
        r"line 2: the split 'dev' is not one of train, training, val",
    ),
    ("blank split", "image,labels,split\na.jpg,sea,\n", r"line 2: the split '' is not one of"),
    (
        "ragged",
        "image,labels\na.jpg,sea\nb.jpg,sea,sky\n",
        r"line 3: 3 cells where the header has 2, .*quote cells",
    ),
    ("short", "image,labels,split\na.jpg,sea\n", r"line 2: 2 cells where the header has 3"),
    ("quote", 'image,labels\na.jpg,"sea\n', r"line 2: not CSV: unexpected end of data; check the quotes"),
    (
        "both",
        "image,labels,unknown\na.jpg,sea;sky,sky\n",
        r"line 2: the label 'sky' is both given and unknown",
    ),
    (
        "no image",
        "thing,labels\na.jpg,sea\n",
        r"line 1: no column of image paths among thing, labels: expected image",
    ),
    (
        "no labels",
        "image,split\na.jpg,train\n",
        r"line 1: no column of labels among image, split: expected `labels`",
    ),
    ("unnamed", "image,sea,\na.jpg,1,0\n", r"line 1: column 3 has no name"),
    ("twice", "image,sea,sea\na.jpg,1,0\n", r"line 1: the column 'sea' occurs twice"),
    ("empty", "", r"labels.csv: is empty: expected a header"),
    ("header only", "image,labels\n", r"labels.csv: has no rows"),
    (
        "not UTF-8",
        "image,labels\na.jpg,Äpfel\n".encode("latin-1"),
        r"line 2: not UTF-8: save the table as UTF-8",
    ),
    (
        "conflict",
        "image,labels\na.jpg,sea\nb.jpg,sea\na.jpg,sky\n",
        r"lines 2 and 4: the image 'a.jpg' has different labels in the two rows \(sea against sky\)",
    ),
    (
        "leak",
        "image,labels,split\na.jpg,sea,train\nb.jpg,sea,test\na.jpg,sea,test\n",
        r"lines 2 and 4: the image 'a.jpg' is in both train and test: what is tested would leak",
    ),
]


@pytest.mark.parametrize(
    ("text", "message"), [case[1:] for case in BAD_CSV], ids=[case[0] for case in BAD_CSV]
)
def test_a_mistake_in_a_csv_is_told_with_its_place(write, text, message):
    with pytest.raises(UserError, match=message) as raised:
        read_all(write(text))
    assert "\n" not in str(raised.value)


BAD_JSONL = [
    (
        "cut off",
        '{"image": "a.jpg", "labels": []}\n{"image": \n',
        r"line 2: not JSON: .*expected one object a line",
    ),
    (
        "a number beyond all bounds",
        '{"image": "a.jpg", "labels": {"sea": 1' + "0" * 400 + "}}",
        r"line 1: column 'sea' has the value '10",
    ),
    (
        "an empty label",
        jsonl({"image": "a.jpg", "labels": {"": 1, "sea": 0}}),
        r"line 1: the labels .* are empty",
    ),
    (
        "two alike",
        jsonl({"image": "a.jpg", "labels": {" sea": 1, "sea": 0}}),
        r"line 1: the labels .* or alike",
    ),
    (
        "an array cut off",
        '[\n{"image": "a.jpg", "labels": []},\n{"image": ',
        r"line 3: not JSON: .* array",
    ),
    ("no comma", '[{"image": "a.jpg", "labels": []}\n{}]', r"line 2: not JSON: expected an array of objects"),
    (
        "behind the array",
        '[{"image": "a.jpg", "labels": []}]\n{}',
        r"not JSON: there is more behind",
    ),
    (
        "a list",
        '["a.jpg", "sea"]\n',
        r"line 1: holds '\"a.jpg\"': expected one JSON object an image",
    ),
    (
        "no labels",
        '{"image": "a.jpg", "label": []}\n',
        r"line 1: column 'label' has the value '\[\]': .* named with --labels-column",
    ),
    (
        "no image",
        '{"labels": []}\n',
        r"line 1: no key of image paths among labels: expected image",
    ),
    (
        "numbers",
        '{"image": "a.jpg", "labels": [1, 2]}\n',
        r"line 1: the labels are \[1, 2\]: expected a list of texts",
    ),
    (
        "null",
        '{"image": "a.jpg", "labels": null}\n',
        r"among the labels is 'null' 1 time \(first in .* line 1\): pass --no-label=null if",
    ),
    ("value", '{"image": "a.jpg", "labels": {"sea": "yes"}}\n', r"line 1: column 'sea' has the value 'yes'"),
    ("image", '{"image": 7, "labels": []}\n', r"line 1: the image path is 7: expected text"),
    (
        "some splits",
        '{"image": "a.jpg", "labels": [], "split": "test"}\n{"image": "b.jpg", "labels": []}\n',
        r"lines 1 and 2: one names its split, one does not",
    ),
]


@pytest.mark.parametrize(
    ("text", "message"), [case[1:] for case in BAD_JSONL], ids=[case[0] for case in BAD_JSONL]
)
def test_a_mistake_in_a_jsonl_is_told_with_its_line(write, text, message):
    with pytest.raises(UserError, match=message):
        read_all(write(text, "labels.jsonl"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(image_column="imag"), r"--image-column imag: no such column \(did you mean 'image'\?\)"),
        (
            dict(labels_column="tags"),
            r"--labels-column tags: no such column; the columns are image, labels, split",
        ),
        (
            dict(labels_column="image"),
            r"the column 'image' cannot be both --image-column and --labels-column",
        ),
        (dict(split_column="slit"), r"--split-column slit: no such column \(did you mean 'split'\?\)"),
        (dict(ignore_columns=["width"]), r"--ignore-columns width: no such column"),
        (dict(label_separator=""), r"--label-separator is empty"),
    ],
)
def test_an_option_that_names_no_column_is_told(write, options, message):
    with pytest.raises(UserError, match=message):
        read_all(write(JOINED, **options))


def test_a_table_or_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the table .*nope\.csv: No such file"):
        TableSource(tmp_path / "nope.csv").splits()
    with pytest.raises(UserError, match=r"cannot read the table .*: Is a directory"):
        TableSource(tmp_path).splits()
    with pytest.raises(
        UserError, match=r"nowhere: no such folder or archive of images: give it with --images"
    ):
        TableSource(tmp_path / "nope.csv", tmp_path / "nowhere")


def test_sources_go_by_name():
    with pytest.raises(
        UserError, match=r"unknown source 'tabel' \(did you mean 'table'\?\): expected demo or nuswide81"
    ):
        make_source("tabel")


def test_a_path_that_no_file_can_have_is_skipped_and_such_a_label_refused(write):
    rows = [{"image": name, "labels": ["sea"]} for name in ("a.jpg", "b\0.jpg", "\ud800.jpg")]
    source = write("".join(json.dumps(row) + "\n" for row in rows), "labels.jsonl")
    items = list(source.annotations("train"))
    assert [getattr(item, "reason", "kept") for item in items] == ["kept", *["invalid_image_path"] * 2]
    source = write(json.dumps({"image": "a.jpg", "labels": ["\ud800"]}), "labels.jsonl")
    with pytest.raises(UserError, match=r"line 1: the label .* holds a character that is no text"):
        source.splits()


def test_a_table_that_comes_through_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(UserError, match=r"labels\.csv: no file that can be read twice: save the table first"):
        TableSource(tmp_path / "labels.csv", tmp_path).splits()
