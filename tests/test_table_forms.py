"""Tables as people have them: lists as text, a row a label, a table a split, no header, JSON arrays."""

import json
import random
import shlex

import pytest
from PIL import Image

from tfrecords.__main__ import main
from tfrecords.annotations import Annotation
from tfrecords.errors import UserError
from tfrecords.sources.table import TableSource
from tfrecords.sources.table_options import parse_split_words


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Writes files into the current folder and reads the first, or the `table` that is named."""
    monkeypatch.chdir(tmp_path)

    def make_source(files, table=None, **options):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return TableSource(table or next(iter(files)), **options)

    return make_source


def read(source):
    """Image id -> labels and unknown labels, and the split where there are several."""
    items = list(source.items())
    items = [(split, item) for split, item in items if isinstance(item, Annotation)]
    return {item.image_id: (split, item.labels, item.ignored) for split, item in items}


def labels_of(source):
    return {image_id: labels for image_id, (_, labels, _) in read(source).items()}


@pytest.mark.parametrize(
    "cell",
    [
        "['sea', 'sky']",
        '["sea", "sky"]',
        "['sea' 'sky']",
        "['sea'\n 'sky']",
        "[ \"sea\" , 'sky' ]",
        "['sea', 'sky', ]",
        '{"choices": ["sea", "sky"]}',
        "{'choices': ['sea', 'sky']}",
        "('sea', 'sky')",
        "{'sea', 'sky'}",
        "array(['sea', 'sky'], dtype=object)",
        "sea;sky",
        " sea ;; sky",
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_list_as_text_is_read_as_a_list(make, cell, form):
    if form == "csv":
        text = 'image,labels\na.jpg,"{}"\n'.format(cell.replace('"', '""'))
    else:
        text = json.dumps({"image": "a.jpg", "labels": cell})
    assert labels_of(make({f"t.{form}": text})) == {"a.jpg": ("sea", "sky")}


def test_lists_with_quotes_commas_and_other_scripts_are_read_as_they_are(make):
    cells = [["sea, ocean", "it's"], ['a "b"', "海"], [], ["back\\slash"]]
    for write in (str, json.dumps, lambda cell: json.dumps(cell, ensure_ascii=False)):
        rows = [{"image": f"{i}.jpg", "labels": write(cell)} for i, cell in enumerate(cells)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        assert list(labels_of(make({"t.jsonl": text})).values()) == [tuple(cell) for cell in cells]


def test_label_studios_choices_are_read_from_json(make):
    rows = [
        {"image": "a.jpg", "choice": {"choices": ["sea", "sky"]}},
        {"image": "b.jpg", "choice": "sea"},
        {"image": "c.jpg", "choice": {"choices": "sky"}},
    ]
    source = make({"t.json": json.dumps(rows)}, labels_column="choice")
    assert labels_of(source) == {"a.jpg": ("sea", "sky"), "b.jpg": ("sea",), "c.jpg": ("sky",)}


@pytest.mark.parametrize("cell", ["[sea, sky]", "[1, 2]", "[0 1 0]", "['sea', 2]", "{'sea': 1}"])
def test_what_looks_like_a_list_but_is_none_of_texts_is_refused(make, cell):
    with pytest.raises(UserError, match=r"t.csv line 2: the labels .*expected"):
        read(make({"t.csv": f'image,labels\na.jpg,"{cell}"\n'}))


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_is_read_and_its_faults_are_told_by_line(make, indent):
    rows = [{"image": "a.jpg", "labels": ["sea"]}, {"image": "b.jpg", "labels": ["sea", "sky"]}]
    text = json.dumps(rows, indent=indent)
    assert labels_of(make({"t.json": text})) == {"a.jpg": ("sea",), "b.jpg": ("sea", "sky")}
    with pytest.raises(UserError, match=r"line \d+: the image path is 7: expected text"):
        read(make({"t.json": json.dumps([*rows, {"image": 7, "labels": []}], indent=indent)}))


def test_an_array_of_one_key_a_label_is_read_like_columns(make):
    rows = [{"image": "a.jpg", "sea": 1, "sky": 0}, {"image": "b.jpg", "sea": None, "sky": True}]
    found = read(make({"t.json": json.dumps(rows)}))
    assert found == {"a.jpg": ("train", ("sea",), ()), "b.jpg": ("train", ("sky",), ("sea",))}


def test_a_json_object_with_images_for_keys_is_told_how_to_be_written(make):
    with pytest.raises(UserError, match=r"has images for keys: write objects such as \{'image': 'a.jpg', "):
        read(make({"t.json": json.dumps({"a.jpg": ["sea"], "b.jpg": ["sky"]})}))


def test_a_coco_file_is_named_as_what_it_is(make):
    with pytest.raises(UserError, match=r"t.json line 1: is of COCO's form: .*build coco --from"):
        read(make({"t.json": json.dumps({"images": [], "annotations": [], "categories": []})}))


def test_a_cell_longer_than_csvs_own_limit_is_read(make):
    mask = "1 " * 100_000
    assert labels_of(make({"t.csv": f"image,labels,mask\na.jpg,sea,{mask}\n"})) == {"a.jpg": ("sea",)}


@pytest.mark.parametrize(
    "header",
    ["file_name", "Image Index", "ImageID", "img_path", "FilePath", "image-name", "file path", "IMG"],
)
def test_image_columns_go_by_the_names_that_people_use(make, header):
    assert labels_of(make({"t.csv": f"{header},labels\na.jpg,sea\n"})) == {"a.jpg": ("sea",)}


def test_a_column_with_image_names_is_suggested(make):
    with pytest.raises(UserError, match=r"no column of image paths .* such as 'my photo' \(a.jpg\)"):
        read(make({"t.csv": "n,my photo,labels\n1,a.jpg,sea\n"}))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sep=;\nimage;labels\na.jpg;sea\n", "t.csv"),
        ("image|labels\na.jpg|sea\n", "t.txt"),
        ("\ufeffimage\tlabels\r\na.jpg\tsea\r\n", "t.tsv"),
        ("image,labels\ra.jpg,sea\r", "t.csv"),
        (",image,labels\n0,a.jpg,sea\n", "t.csv"),
        ("image,labels,\na.jpg,sea,\n", "t.csv"),
        ("\n\nimage,labels\na.jpg,sea\n", "t.csv"),
    ],
    ids=[
        "Excel's sep",
        "pipe",
        "BOM, tab, CRLF",
        "CR",
        "pandas' index",
        "comma at the end",
        "blank lines first",
    ],
)
def test_csv_is_read_as_programs_write_it(make, text, name):
    assert labels_of(make({name: text})) == {"a.jpg": ("sea",)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04..", "is an Excel workbook or a .zip: save the table as CSV"),
        (b"\x1f\x8b\x08", "is compressed: unpack it first"),
        (b"PAR1", "is a Parquet file: save the table as CSV or JSONL"),
        ("image,labels".encode("utf-16"), "is in UTF-16: save the table as UTF-8"),
    ],
)
def test_a_file_that_is_no_text_is_named_as_what_it_is(tmp_path, data, message):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read(TableSource(tmp_path / "t.csv"))


# ---- no header


def test_a_table_without_a_header_is_read_by_the_names_given(make):
    source = make(
        {"t.csv": "a.jpg,9,sea;sky,train\nb.jpg,8,sky,test\n"}, columns=["image", "_", "labels", "split"]
    )
    assert read(source) == {"a.jpg": ("train", ("sea", "sky"), ()), "b.jpg": ("test", ("sky",), ())}


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("a.jpg,sea\n", (), r"line 1: is no header but an image \(a.jpg, sea\): .* --columns image,labels"),
        ("a.jpg,1,x\n", (), r"--columns image,column2,column3"),
        ("a.jpg,sea\n", ["image"], r"line 1: 2 cells, but --columns names 1 \('_' ignores one\)"),
        ("Image,Labels\na.jpg,sea\n", ["image", "labels"], r"line 1: is a header \(Image, Labels\): leave"),
        ("a.jpg,sea\n", ["image", "image"], r"--columns names 'image' twice"),
        ("a.jpg 0 1 0\nb.jpg 1 0 0\n", (), r"line 1: is of the form `path 0 1 0`, .*build nuswide81"),
    ],
)
def test_a_header_that_is_missing_or_not_is_told(make, text, columns, message):
    with pytest.raises(UserError, match=message):
        read(make({"t.csv": text}, columns=columns))


# ---- splits


def test_other_words_for_splits_are_given(make):
    files = {"t.csv": "image,partition,a,b\n0.jpg,0,1,0\n1.jpg,1,0,1\n2.jpg,2,0,1\n3.jpg,test,1,1\n"}
    words = parse_split_words("0=train,1=val,2=test")
    found = read(make(files, split_column="partition", split_words=words))
    assert [split for split, _, _ in found.values()] == ["train", "validation", "test", "test"]
    files = {"t.csv": "image,is_valid,labels\n0.jpg,False,a\n1.jpg,TRUE,b\n"}
    words = parse_split_words("False=train,True=validation")
    found = read(make(files, split_column="is_valid", split_words=words))
    assert [split for split, _, _ in found.values()] == ["train", "validation"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", r"'0' is no word=split: expected such as"),
        ("0=tran", r"'0=tran' is no word=split \(did you mean 'train'\?\)"),
        ("0=train,0=test", r"'0' has two splits: leave one out"),
    ],
)
def test_words_for_splits_that_mean_nothing_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_split_words(text)


@pytest.mark.parametrize(
    ("header", "values", "advice"),
    [
        (
            "is_valid,labels",
            ["False,a", "True,b"],
            "--split-column is_valid --split-words False=train,True=valid",
        ),
        (
            "partition,a,b",
            ["0,1,0", "1,0,1"],
            "--split-column partition --split-words 0=train,1=validation,2=test",
        ),
        ("Usage,labels", ["Training,a", "Test,b"], "--split-column Usage, or --ignore-columns Usage"),
        ("is_test,a,b", ["0,1,0", "1,0,1"], "--split-column is_test --split-words 0=train,1=test, or"),
        ("subset,labels", ["train,a", "val,b"], "--split-column subset, or --ignore-columns subset"),
    ],
)
def test_a_column_that_looks_like_a_split_is_not_passed_over(make, header, values, advice):
    files = {"t.csv": f"image,{header}\n" + "".join(f"{i}.jpg,{row}\n" for i, row in enumerate(values))}
    with pytest.raises(UserError, match=r"t.csv line 2: the column .* looks like a split") as raised:
        read(make(files))
    assert advice in str(raised.value)
    name = header.partition(",")[0]
    assert len(read(make(files, ignore_columns=[name]))) == 2
    assert len(read(make(files, f"train={'t.csv'}", ignore_columns=[name]))) == 2


def test_words_that_are_no_splits_are_all_named_with_the_flag(make):
    rows = "".join(f"{i}.jpg,{word},a\n" for i, word in enumerate(["0", "1", "2", "1", "train"]))
    with pytest.raises(UserError) as raised:
        read(make({"t.csv": f"image,split,labels\n{rows}"}))
    assert "t.csv line 2: the split '0' is not one of train" in str(raised.value)
    assert "(nor '1' 2 times, '2' 1 time)" in str(raised.value)
    assert "--split-words 0=train,1=validation,2=test, or name another --split-column" in str(raised.value)
    rows = "".join(f"{i}.jpg,{i},a\n" for i in range(100))
    with pytest.raises(UserError, match=r"line 22: .* and many more; another column is named with"):
        read(make({"t.csv": f"image,split,labels\n{rows}"}))


def test_a_table_a_split_is_read(make):
    files = {"a.csv": "image,labels\n1.jpg,sea\n", "b.csv": "image,labels\n2.jpg,sky\n"}
    for table in (["train=a.csv,test=b.csv"], ["train=a.csv", "test=b.csv"]):
        found = read(make(files, table))
        assert found == {"1.jpg": ("train", ("sea",), ()), "2.jpg": ("test", ("sky",), ())}
    assert make(files, table).arguments() == {"from": ["train=a.csv", "test=b.csv"]}
    assert {split for split, _, _ in read(make(files, ["a.csv", "b.csv"])).values()} == {"train"}


def test_tables_in_folders_of_their_own_find_their_images_there_and_ids_stay_apart(make, tmp_path):
    files = {"train/c.csv": "filename, a, b\n1.jpg, 1, 0\n", "valid/c.csv": "filename, a, b\n1.jpg, 0, 1\n"}
    source = make(files, ["train=train/c.csv,val=valid/c.csv"])
    found = {(split, item.image_id, item.image_path, item.labels) for split, item in source.items()}
    assert found == {
        ("train", "train/1.jpg", "train/1.jpg", ("a",)),
        ("validation", "valid/1.jpg", "valid/1.jpg", ("b",)),
    }


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (["."], {}, r"--from \.: is a folder: .* --from train=train/c.csv,validation=valid/c.csv"),
        (
            ["train/c.csv", "valid/c.csv"],
            {},
            r"--from names 2 tables without their splits, .* --from train=train/c.csv,validation=valid/c.csv",
        ),
        (
            ["train=train/c.csv"],
            {"split_column": "x"},
            r"--split-column and the splits that --from names exclude",
        ),
        (["train=split.csv"], {}, r"split.csv line 3: is of the split 'test', but --from says train"),
        (
            ["train/c.csv"],
            {"images": ["train=train"]},
            r"c.csv line 3: is of the split test, .* --images names no",
        ),
    ],
)
def test_tables_whose_splits_would_be_a_guess_are_refused(make, table, options, message):
    split = "image,labels,split\n1.jpg,a,train\n2.jpg,b,test\n"
    files = {"train/c.csv": split, "valid/c.csv": "filename,a,b\n1.jpg,0,1\n", "split.csv": split}
    with pytest.raises(UserError, match=message):
        read(make(files, table, **options))


def test_an_image_in_two_tables_is_told_with_both(make):
    files = {"a.csv": "image,labels\n1.jpg,sea\n", "b.csv": "image,labels\n2.jpg,sky\n1.jpg,sea\n"}
    with pytest.raises(UserError, match=r"a.csv line 2 and b.csv line 3: the image '1.jpg' is in both train"):
        read(make(files, ["train=a.csv,test=b.csv"]))


# ---- a row a label

OPEN_IMAGES = (
    "ImageID,Source,LabelName,Confidence\n"
    "a,verification,/m/sea,0\nb,verification,/m/sky,1\na,verification,/m/sky,1\n"
    "a,crowd,/m/boat,1\nb,verification,/m/boat,0\nc,verification,/m/sea,1\n"
)


def test_rows_that_are_one_label_each_are_joined_by_image(make):
    text = "image,labels,split\na,sea,train\nb,sky,test\na,sky,train\na,sea,train\nc,,train\n"
    found = read(make({"t.csv": text}, rows="label"))
    assert found == {
        "a": ("train", ("sea", "sky"), ()),
        "b": ("test", ("sky",), ()),
        "c": ("train", (), ()),
    }


def test_a_confidence_of_zero_is_a_verified_absence_and_labels_without_a_row_are_unknown(make):
    source = make(
        {"t.csv": OPEN_IMAGES}, rows="label", labels_column="LabelName", confidence_column="Confidence"
    )
    assert read(source) == {
        "a": ("train", ("/m/sky", "/m/boat"), ()),  # sea is known to be absent
        "b": ("train", ("/m/sky",), ("/m/sea",)),
        "c": ("train", ("/m/sea",), ("/m/sky", "/m/boat")),
    }
    assert source.label_names() == ("/m/sea", "/m/sky", "/m/boat")


def test_a_label_that_is_both_affirmed_and_denied_is_unknown(make):
    text = "image,labels,confidence\na,sea,1\na,sea,0\na,sky,1\n"
    source = make({"t.csv": text}, rows="label", confidence_column="confidence")
    assert read(source) == {"a": ("train", ("sky",), ("sea",))}


def test_a_confidence_between_needs_a_threshold_below_which_labels_are_unknown(make):
    text = "image,labels,confidence\na,sea,0.7\na,sky,0.2\nb,sky,1.0\n"
    options = {"rows": "label", "confidence_column": "confidence"}
    with pytest.raises(
        UserError, match=r"line 2: the confidence is '0.7', between 0 and 1 \(in 2 rows\): say"
    ):
        read(make({"t.csv": text}, **options))
    found = read(make({"t.csv": text}, **options, confidence_threshold=0.5))
    assert found == {"a": ("train", ("sea",), ("sky",)), "b": ("train", ("sky",), ("sea",))}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            OPEN_IMAGES,
            {"labels_column": "LabelName", "ignore_columns": ["Confidence"]},
            r"lines 2 and 4: .* as 2 images have: leave one row, or pass --rows label if each row is one",
        ),
        (
            OPEN_IMAGES,
            {"labels_column": "LabelName", "rows": "label"},
            r"the column 'Confidence' seems to say how surely .* --confidence-column Confidence, or --igno",
        ),
        (
            "image,labels,confidence\na,sea,1\nb,sky,0\n",  # never two rows of an image
            {},
            r"the column 'confidence' seems to say how surely .* --rows label --confidence-column conf",
        ),
        (
            "image,labels\na,0 1 1\nb,1 0 0\n",
            {"label_separator": " "},
            r"'labels' are rows of 0 and 1",
        ),
        (
            "a,b\n1,2\n",
            {"rows": "label", "image_column": "a"},
            r"no column of labels among a, b: name it",
        ),
        (
            "image,labels,split\na,sea,train\na,sky,test\n",
            {"rows": "label"},
            r"lines 2 and 3: the image 'a' is in both train and test: what is tested would leak",
        ),
        (
            "image,labels,confidence\na,sea,yes\n",
            {"rows": "label", "confidence_column": "confidence"},
            r"line 2: the confidence is 'yes': expected 0 to 1",
        ),
        ("image,labels\na,sea\n", {"confidence_column": "x"}, r"pass --rows label, too"),
        (
            "image,labels\na,sea\n",
            {"rows": "label", "confidence_threshold": 0.5},
            r"needs a --confidence-column",
        ),
    ],
)
def test_rows_that_are_one_label_each_are_not_guessed_at(make, text, options, message):
    with pytest.raises(UserError, match=message):
        read(make({"t.csv": text}, **options))


# ---- words and values


def test_a_word_for_no_label_leaves_an_image_without_labels(make):
    text = "image,labels\na.jpg,No Finding\nb.jpg,Edema;no  finding\nc.jpg,Edema\n"
    source = make({"t.csv": text}, no_label=["No Finding"])
    assert labels_of(source) == {"a.jpg": (), "b.jpg": ("Edema",), "c.jpg": ("Edema",)}
    source = make(
        {"t.csv": "image,No Finding,Edema,Mass\na.jpg,1,0,0\nb.jpg,0,1,0\n"}, no_label=["No Finding"]
    )
    assert labels_of(source) == {"a.jpg": (), "b.jpg": ("Edema",)}
    assert source.label_names() == ("Edema", "Mass")
    with pytest.raises(UserError, match=r"--no-label Nothing: no cell and no column is called so"):
        read(make({"t.csv": text}, no_label=["No Finding", "Nothing"]))


@pytest.mark.parametrize("word", ["nan", "None", "N/A", "null", "NaN", "<NA>", "-"])
@pytest.mark.parametrize("form", ["cell", "part", "list", "json"])
def test_what_programs_write_for_nothing_is_no_label_unless_said(make, word, form):
    cell = {"cell": word, "part": f"sky;{word}", "list": f"['{word}']", "json": word}[form]
    if form == "json":
        text, name = (
            json.dumps({"image": "a.jpg", "labels": [cell]}) + '\n{"image": "b", "labels": []}',
            "t.jsonl",
        )
    else:
        text, name = f'image,labels\na.jpg,"{cell}"\nb,sea\n', "t.csv"
    with pytest.raises(
        UserError, match=r"among the labels is .* 1 time \(first in t\.\w+ line \d\)"
    ) as raised:
        read(make({name: text}))
    assert f"--no-label={shlex.quote(word)} if it means no label" in str(raised.value)
    assert labels_of(make({name: text}, no_label=[word]))["a.jpg"] == (("sky",) if form == "part" else ())


def test_json_null_and_nan_are_no_labels_only_if_said(make):
    text = '{"image": "a.jpg", "labels": null}\n{"image": "b.jpg", "labels": NaN}\n'
    with pytest.raises(UserError, match=r"pass --no-label=null --no-label=NaN if it means no label"):
        read(make({"t.jsonl": text}))
    assert labels_of(make({"t.jsonl": text}, no_label=["null", "nan"])) == {"a.jpg": (), "b.jpg": ()}


def test_labels_that_look_alike_are_one_and_said_once(make):
    rows = [
        "caf\u00e9",
        "cafe\u0301",
        "mer bleue",
        "mer  bleue",
        "sea",
        "sea\u200b",
        "\uff33ky",
        "Sky",
        "\u2764",
        "\u2764\ufe0f",
    ]
    source = make({"t.csv": "image,labels\n" + "".join(f"{i}.jpg,{row}\n" for i, row in enumerate(rows))})
    found = [labels for (labels,) in labels_of(source).values()]
    assert found == [name for name in ("caf\u00e9", "mer bleue", "sea", "Sky", "\u2764") for _ in range(2)]
    (note,) = source.notes()
    assert note.startswith(
        "spelled in several ways that look alike, and one label each: 'caf\u00e9' ('cafe\\u0301')"
    )
    assert "and 2 more" in note
    assert make({"t.csv": "image,labels\na.jpg,cafe\u0301;sea\n"}).notes() == []


@pytest.mark.parametrize(
    ("rows", "flags"),
    [
        (["1,-1", "-1,1"], ["--minus-one absent (or unknown)"]),
        (["1,", ",1"], ["--blank absent (or unknown)"]),
        (["1,", "-1,1"], ["--minus-one absent (or unknown) and --blank absent (or unknown)"]),
        (["1.0,-1.0", "-1.0,1.0"], ["--minus-one absent"]),
    ],
)
def test_minus_one_or_blank_without_any_zero_needs_a_word(make, rows, flags):
    files = {"t.csv": "image,a,b\n" + "".join(f"{i}.jpg,{row}\n" for i, row in enumerate(rows))}
    with pytest.raises(UserError, match=r"t.csv: the label columns hold 2 cells of 1, .* and no 0") as raised:
        read(make(files))
    assert all(flag in str(raised.value) for flag in flags)
    absent = read(make(files, minus_one="absent", blank="absent"))
    assert absent == {"0.jpg": ("train", ("a",), ()), "1.jpg": ("train", ("b",), ())}
    unknown = read(make(files, minus_one="unknown", blank="unknown"))
    assert unknown == {"0.jpg": ("train", ("a",), ("b",)), "1.jpg": ("train", ("b",), ("a",))}


def test_minus_one_and_no_zero_in_objects_of_json_needs_a_word_unless_a_key_is_left_out(make):
    rows = [
        {"image": "a.jpg", "labels": {"sea": 1, "sky": -1}},
        {"image": "b.jpg", "labels": {"sea": -1, "sky": 1}},
    ]
    with pytest.raises(UserError, match=r"hold 2 cells of 1, 2 of -1, and no 0: .* --minus-one absent"):
        read(make({"t.json": json.dumps(rows)}))
    del rows[0]["labels"]["sky"]  # is 0
    assert read(make({"t.json": json.dumps(rows)}))["b.jpg"] == ("train", ("sky",), ("sea",))


def test_a_column_that_is_never_zero_is_told_where_others_are(make):
    source = make({"t.csv": "image,a,b,c\n0.jpg,1,1,\n1.jpg,, 0,-1\n2.jpg,-1,0,1\n"})
    assert len(read(source)) == 3
    (note,) = source.notes()
    assert note.startswith("'a', 'c': never 0, so no image is known to be without")
    said = make({"t.csv": "image,a,b\n0.jpg,1,1\n1.jpg,-1,0\n"}, minus_one="absent")
    assert len(read(said)) == 2
    assert said.notes() == []


def test_columns_that_are_no_labels_are_named_at_once(make):
    text = 'Path,Sex,Age,AP/PA,"View, side",Edema\na.jpg,F,68,AP,left,1\nb.jpg,M,7,PA,right,0\n'
    with pytest.raises(UserError) as raised:
        read(make({"t.csv": text}))
    said = str(raised.value)
    assert said.startswith("t.csv line 2: column 'Sex' has the value 'F': expected 1, 0, or blank or -1")
    assert "'Age' ('68'), 'AP/PA' ('AP'), 'View, side' ('left')" in said
    flags = shlex.split(said[said.index("--ignore-columns") :])
    assert flags == ["--ignore-columns", "Sex,Age,AP/PA", "--ignore-columns", "View, side"]
    source = make({"t.csv": text}, ignore_columns=flags[1::2])
    assert labels_of(source) == {"a.jpg": ("Edema",), "b.jpg": ()}


def test_columns_that_are_alike_are_refused(make):
    with pytest.raises(UserError, match=r"the labels \['caf.*', 'caf.*'\] are empty or alike"):
        read(make({"t.csv": "image,caf\u00e9,cafe\u0301,sea\na.jpg,1,0,0\n"}))


def test_a_list_of_paths_and_zeros_and_ones_is_read_by_the_names_given(make):
    text = "a.jpg 0  1 0\nb.jpg 1 0 0\n"
    source = make({"database.txt": text}, columns=["image", "sea", "sky", "sun"])
    assert labels_of(source) == {"a.jpg": ("sky",), "b.jpg": ("sea",)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_words": {"0": "train"}}, r"--split-words is given, but there is no split column"),
        ({"minus_one": "absent"}, r"--minus-one is for one column a label, and here 'labels' has them all"),
        ({"blank": "absent"}, r"--blank is for one column a label"),
        ({"no_label": [" "]}, r"--no-label is empty: give a word; a blank cell has no label anyway"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(make, options, message):
    with pytest.raises(UserError, match=message):
        read(make({"t.csv": "image,labels\na.jpg,sea;sky\n"}, **options))


def test_a_separator_for_columns_of_values_and_a_column_to_ignore_that_no_json_has_are_refused(make):
    with pytest.raises(UserError, match=r"--label-separator is given, but no column of joined labels"):
        read(make({"t.csv": "image,a,b\n1,1,0\n"}, label_separator=","))
    text = json.dumps([{"image": "a.jpg", "labels": [], "size": 1}, {"image": "b.jpg", "labels": []}])
    assert len(read(make({"t.json": text}, ignore_columns=["size"]))) == 2
    with pytest.raises(UserError, match=r"--ignore-columns sise: no such key \(did you mean 'size'\?\)"):
        read(make({"t.json": text}, ignore_columns=["sise"]))


@pytest.mark.parametrize(("typed", "between"), [(r"\t", "\t"), (r"\n", "\n"), ("::", "::"), (", ", ", ")])
def test_any_text_may_join_labels(make, typed, between):
    text = f'image;labels\na.jpg;"sea{between}sky"\nb.jpg;sea\n'
    assert labels_of(make({"t.csv": text}, label_separator=typed))["a.jpg"] == ("sea", "sky")


def test_the_column_that_is_likely_to_hold_labels_is_suggested(make):
    with pytest.raises(UserError) as raised:
        read(make({"t.csv": "Image Index,Finding Labels,Age\na.png,Edema|Mass,58\n"}))
    assert str(raised.value).endswith("with --labels-column, such as --labels-column 'Finding Labels'")


def test_tables_may_follow_one_flag_as_a_shell_lists_them(make, tmp_path, capsys):
    make({"a.csv": "image,labels\n1.png,sea\n", "b.csv": "image,labels\n2.png,sky\n"})
    for name in "12":
        Image.new("RGB", (8, 6)).save(tmp_path / f"{name}.png")
    assert main(["build", "table", "--from", "a.csv", "b.csv", "--workers", "1"]) == 0
    assert "read 2 images and 2 labels" in capsys.readouterr().out


def test_a_label_that_sounds_like_none_is_said(make):
    text = "image,labels\na.jpg,No Finding\nb.jpg,Edema\nc.jpg,Edema;Nodule\n"
    source = make({"t.csv": text})
    assert len(read(source)) == 3
    (note,) = source.notes()
    assert note == (
        "taken as label like any other: 'No Finding'; if it says none, pass --no-label 'No Finding'"
    )


def test_every_flag_of_the_command_reaches_the_source(make, tmp_path, capsys):
    for name in ("1_x.png", "2_x.png", "3_x.png"):
        (tmp_path / "img").mkdir(exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "img" / name)
    text = "1|sea|1|0|9\n1|sky|0|0|9\n2|sky|0.7|0|9\n3|none|1|1|9\n3|sky|1|1|9\n"
    (tmp_path / "t.csv").write_text(text)
    line = (
        "build table --from t.csv --images img --name mine --columns photo,what,surely,part,_ "
        "--image-column photo --labels-column what --split-column part --rows label "
        "--confidence-column surely --confidence-threshold 0.5 --image-pattern {image}_*.png "
        "--split-words 0=train,1=test --no-label none --label-separator none --ignore-columns _ --workers 1"
    )
    assert main(line.split()) == 0
    out = capsys.readouterr().out
    assert "1_x.png: 'sea'\n" in out and "2_x.png: 'sky'; unknown: 'sea'" in out
    manifest = json.loads((tmp_path / "data/mine/manifest.json").read_text())
    assert {name: split["num_images"] for name, split in manifest["splits"].items()} == {
        "train": 2,
        "test": 1,
    }
    assert manifest["source_arguments"]["image_pattern"] == "{image}_*.png"
    values = "image,a,b\n1_x.png,1,-1\n2_x.png,,1\n"
    (tmp_path / "v.csv").write_text(values)
    line = "build table --from v.csv --images img --minus-one absent --blank unknown --workers 1"
    assert main(line.split()) == 0
    assert "2_x.png: 'b'; unknown: 'a'" in capsys.readouterr().out
    assert main(["build", "table"]) == 2
    assert "error: missing --from" in capsys.readouterr().err


def test_no_table_ends_in_anything_but_rows_or_an_error_that_names_it(make):
    draw = random.Random(0)
    csv = 'image;labels\na.jpg;"[\'a\', \'b\']"\nb.jpg;"{""choices"": [""a""]}"\n'
    rows = [{"image": "a.jpg", "labels": ["sea"]}, {"image": "b.jpg", "labels": {"sea": 1, "x": None}}]
    texts = {"t.csv": csv, "t.json": json.dumps(rows)}
    signs = [*"\"',;\n\r[]{}\0\\\ufeff", "null", "-1", "\\u0000"]
    forms = [{}, {"label_separator": "none"}, {"image_pattern": "*/{stem}*"}, {"rows": "label"}]
    for _ in range(100):
        name, text = draw.choice(list(texts.items()))
        for _ in range(draw.randrange(1, 5)):
            place = draw.randrange(len(text) + 1)
            text = text[:place] + draw.choice(signs) + text[place + draw.randrange(3) :]
        try:
            found = read(make({name: text}, **draw.choice(forms)))
        except UserError as error:
            assert str(error).startswith(name), error
        else:
            assert all(not set(labels) & set(unknown) for _, labels, unknown in found.values())
