"""Images of a table by a pattern, in several folders or archives; and what is said of one that is missing."""

import os
import unicodedata
import zipfile

import pytest
from PIL import Image

from tfrecords.__main__ import main
from tfrecords.annotations import Skip
from tfrecords.errors import UserError
from tfrecords.sources.image_files import ImageFolder
from tfrecords.sources.nearest_image import explain_missing
from tfrecords.sources.table import TableSource

NFC, NFD = unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Makes files, of which only the names count, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(name.encode())

    return make


def find(lines, header="image,labels", **options):
    """The ids and paths that a table of these rows has."""
    with open("t.csv", "w", encoding="utf-8") as file:
        file.write(header + "\n" + "".join(f"{row}\n" for row in lines))
    source = TableSource("t.csv", **options)
    return [(item.image_id, item.image_path) for _, item in source.items()]


def paths(lines, header="image,labels", **options):
    return [path for _, path in find(lines, header, **options)]


@pytest.mark.parametrize(
    ("files", "image", "pattern", "expected"),
    [
        (["im/a.jpg"], "a", "{image}.jpg", ["im/a.jpg"]),
        (["im/a.JPG"], "a.jpg", "{stem}.JPG", ["im/a.JPG"]),
        (["im/x/a.b.png"], "x/a.b.jpg", "{stem}.png", ["im/x/a.b.png"]),
        (["im/a.jpg"], "/home/me/photos/a.jpg", "{name}", ["im/a.jpg"]),
        (["im/a.jpg"], "C:\\me\\a.jpg", "{name}", ["im/a.jpg"]),
        (["im/1/images/a.jpg", "im/2/images/b.jpg"], "b.jpg", "*/images/{image}", ["im/2/images/b.jpg"]),
        (["im/1/2/3/a.jpg"], "a.jpg", "**/{image}", ["im/1/2/3/a.jpg"]),
        (["im/a.jpg"], "a.jpg", "**/{image}", ["im/a.jpg"]),
        (["im/p/1/a.jpg"], "a", "**/1/{image}.jpg", ["im/p/1/a.jpg"]),
        (["im/a_1.jpg", "im/a_2.jpg", "im/ab_1.jpg"], "a", "{image}_*.jpg", ["im/a_1.jpg", "im/a_2.jpg"]),
        (["im/a/1.jpg", "im/a/2.jpg", "im/b/1.jpg"], "a", "{image}/*", ["im/a/1.jpg", "im/a/2.jpg"]),
        (["im/a.png", "im/b.jpg"], "a", "{image}.[jp][pn]*g", ["im/a.png"]),
        (["im/left a.jpg", "im/left b.jpg"], "b", "*{image}.jpg", ["im/left b.jpg"]),
        (["im/1/a[1]*.jpg", "im/1/a1x.jpg"], "a[1]*", "?/{image}.jpg", ["im/1/a[1]*.jpg"]),
        (["im/00000017.png"], "17", "{image:0>8}.png", ["im/00000017.png"]),
        (["im/.thumbs/a.jpg", "im/1/a.jpg", "im/1/._a.jpg"], "a", "**/*{image}.jpg", ["im/1/a.jpg"]),
        (["im/a.jpg"], "b.jpg", "*/{image}", ["im/*/b.jpg"]),  # missing is found when it is read
    ],
)
def test_a_pattern_finds_the_files(here, files, image, pattern, expected):
    here(*files)
    assert paths([f"{image},sea"], images="im", image_pattern=pattern) == expected


def test_a_pattern_may_name_any_column(here):
    here("im/p1/x_front.png")
    rows = ["x,p1,front,sea"]
    options = {"images": "im", "image_pattern": "{patient}/{image}_{view}.png", "ignore_columns": ["patient"]}
    assert find(rows, "image,patient,view,labels", **options) == [("p1/x_front.png", "im/p1/x_front.png")]
    options = {"image_pattern": "{patient}/{image}.png", "rows": "label"}
    assert paths(["x,p1,sea", "x,p1,sky"], "image,patient,labels", **options) == ["./p1/x.png"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("*.jpg", r"--image-pattern \*.jpg: says no \{image\}: expected such as '\{image\}.jpg'"),
        ("{imag}.jpg", r"t.csv line 2: --image-pattern .*: \{imag\} is no column \(did you mean 'image'\?\)"),
        (
            "**/{image}",
            r"t.csv line 2: 'a.jpg' is in im/1/a.jpg and in im/2/a.jpg: leave one of",
        ),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused(here, pattern, message):
    here("im/1/a.jpg", "im/2/a.jpg")
    with pytest.raises(UserError, match=message):
        paths(["a.jpg,sea"], images="im", image_pattern=pattern)


def test_a_link_that_leads_back_up_is_not_followed_for_ever(here):
    here("im/1/a.jpg")
    os.symlink("..", "im/1/up")
    assert paths(["a.jpg,sea"], images="im", image_pattern="**/{image}") == ["im/1/a.jpg"]


def test_several_folders_and_archives_are_looked_through(here):
    here("one/a.jpg", "two/x/b.jpg")
    with zipfile.ZipFile("three.zip", "w") as archive:
        archive.writestr("in/c.jpg", b"c")
    rows = ["a.jpg,sea", "x/b.jpg,sky", "c.jpg,sea", "d.jpg,sea"]
    images = ["one", "two", "three.zip/in"]
    assert find(rows, images=images) == [
        ("a.jpg", "one/a.jpg"),
        ("x/b.jpg", "two/x/b.jpg"),
        ("c.jpg", "three.zip/in/c.jpg"),
        ("d.jpg", "one/d.jpg"),
    ]
    source = TableSource("t.csv", images)
    items = [item for _, item in source.items()]
    assert [source.read_image(item) for item in items[:3]] == [b"one/a.jpg", b"two/x/b.jpg", b"c"]
    assert find(["c,sea"], images="three.zip", image_pattern="**/{image}.jpg") == [
        ("in/c.jpg", "three.zip/in/c.jpg")
    ]
    here("two/a.jpg")
    with pytest.raises(UserError, match=r"t.csv line 2: 'a.jpg' is in one/a.jpg and in two/a.jpg: leave"):
        find(rows, images=images)
    with pytest.raises(UserError, match=r"--images gs://x: at a URL nothing can be looked for"):
        find(rows, images=["one", "gs://x"])


def test_a_folder_a_split_keeps_equal_names_apart(here):
    here("img/train/a.jpg", "img/val/a.jpg")
    rows = ["a.jpg,sea,train", "b.jpg,sky,train"]
    options = {"images": ["train=img/train,val=img/val"]}
    assert find(rows, "image,labels,split", **options) == [
        ("train/a.jpg", "img/train/a.jpg"),
        ("train/b.jpg", "img/train/b.jpg"),
    ]


@pytest.mark.parametrize(("in_table", "on_disk"), [(NFC, NFD), (NFD, NFC)])
def test_another_unicode_form_of_a_name_is_the_same_file_and_said(here, in_table, on_disk):
    here(f"im/{on_disk}")
    assert paths([f"{in_table},sea"], images="im") == [f"im/{on_disk}"]
    source = TableSource("t.csv", "im")
    list(source.items())
    assert source.notes() == ["found under a name in another Unicode form than the table's: 1 image"]


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("a", ["im/a.jpg"], "; im/a.jpg is there: pass --image-pattern '{image}.jpg'"),
        ("a.jpg", ["im/a.JPG"], "; im/a.JPG is there: pass --image-pattern '{stem}.JPG'"),
        ("a.png", ["im/a.jpg"], "; im/a.jpg is there: pass --image-pattern '{stem}.jpg'"),
        ("a.jpg", ["im/1/a.jpg"], "; im/1/a.jpg is there: pass --image-pattern '**/{image}'"),
        ("a", ["im/1/a.jpg"], "; im/1/a.jpg is there: pass --image-pattern '**/{image}.jpg'"),
        ("old/a.jpg", ["im/1/a.jpg"], "; im/1/a.jpg is there: pass --image-pattern '**/{name}'"),
        ("old/a.jpg", ["im/a.jpg"], "; im/a.jpg is there: pass --image-pattern '**/{name}'"),
        ("A.jpg", ["im/a.jpg"], "; im/a.jpg is there, in other letter case: rename one of the two"),
        ("http:/x/a.jpg", ["im/a.jpg"], "; it is a URL: download the images first, and name their files"),
        ("a.jpg", ["im/b.jpg"], ""),
    ],
)
def test_the_nearest_file_is_named_with_the_flag_that_finds_it(here, name, files, said):
    here(*files)
    assert explain_missing(name, [ImageFolder("im")]) == said


def test_of_a_pattern_that_fits_nothing_the_nearest_file_is_named(here):
    here("im/1/a.jpg")
    said = "; im/1/a.jpg is there, which --image-pattern 'x/{image}' does not fit"
    assert explain_missing("x/a.jpg", [ImageFolder("im")], "x/{image}") == said


def test_the_nearest_file_is_looked_for_in_all_folders(here):
    here("one/x.jpg", "two/a.jpg")
    find(["a,sea"], images=["one", "two"])
    source = TableSource("t.csv", ["one", "two"])
    said = source.explain_skip(Skip("a", "missing_image", "one/a"))
    assert said == "; two/a.jpg is there: pass --image-pattern '{image}.jpg'"


def test_a_suggested_pattern_is_right(here):
    for name, file in [
        ("a", "im/a.jpg"),
        ("b.jpg", "im/b.JPG"),
        ("c.jpg", "im/1/c.jpg"),
        ("d", "im/2/d.png"),
    ]:
        here(file)
        pattern = explain_missing(name, [ImageFolder("im")]).rpartition(" ")[2].strip("'")
        assert paths([f"{name},sea"], images="im", image_pattern=pattern) == [file]


def test_a_build_without_a_single_image_names_the_nearest_and_the_flag(here, capsys):
    here("im/x")
    for name in "ab":
        Image.new("RGB", (8, 6)).save(f"im/{name}.jpg")
    with open("t.csv", "w") as file:
        file.write("image,labels\na,sea\nb,sky\n")
    assert main(["build", "table", "--from", "t.csv", "--images", "im"]) == 2
    err = capsys.readouterr().err
    assert "im/a.jpg is there: pass --image-pattern '{image}.jpg'" in err or "im/b.jpg is there: pass" in err
    words = ["build", "table", "--from", "t.csv", "--images", "im", "--image-pattern", "{image}.jpg"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("read 2 images and 2 labels; for example\n  ")
    assert "  a.jpg: 'sea'\n" in out and "  b.jpg: 'sky'\n" in out
