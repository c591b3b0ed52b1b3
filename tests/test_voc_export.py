"""A user's own data in VOC's form: what programs write, where they put it, and what is told."""

import pytest
from PIL import Image

from tfrecords.__main__ import main
from tfrecords.annotations import Annotation, Skip
from tfrecords.errors import UserError
from tfrecords.sources.voc_export import VocSource

SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"
BOX = "<bndbox><xmin>5</xmin><ymin>4</ymin><xmax>20</xmax><ymax>15</ymax></bndbox>"


def tell(name, box=BOX, difficult="<difficult>0</difficult>", extra=""):
    return f"<object><name>{name}</name>{difficult}{box}{extra}</object>"


def annotate(*objects, size=SIZE, head="", file_name="x.jpg"):
    return f"{head}<annotation><filename>{file_name}</filename>{size}{''.join(objects)}</annotation>"


def draw(*paths):
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number, 0, 0)).save(path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def photos(tmp_path):
    """What LabelImg leaves: XML beside the images, and nothing else."""
    folder = tmp_path / "photos"
    draw(folder / "a.jpg", folder / "b.png")
    write(folder / "a.xml", annotate(tell("dog"), tell("red fox")))
    write(folder / "b.xml", annotate(tell("dog")))
    return folder


def read(source):
    """image id -> labels and unknown ones, or why it is skipped."""
    return {
        item.image_id: (item.labels, item.ignored) if isinstance(item, Annotation) else item.detail
        for _, item in source.items()
    }


def splits_of(source):
    return {(split, item.image_id) for split, item in source.items() if isinstance(item, Annotation)}


# ---- one file


def test_a_folder_of_labelimg_has_the_classes_of_its_xml_and_no_test_split(photos, tmp_path):
    source = VocSource(photos)
    assert read(source) == {"a.jpg": (("dog", "red fox"), ()), "b.png": (("dog",), ())}
    assert (source.splits(), source.label_names(), source.notes()) == (("train",), ("dog", "red fox"), [])
    command = ["build", "voc", "--from", str(photos), "--name", "mine", "--data-dir", str(tmp_path / "data")]
    assert main(command) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (annotate(tell(" dog\n ")), (("dog",), ())),
        (annotate(tell("dog", difficult="")), (("dog",), ())),
        (annotate(tell("dog", difficult="<difficult>1</difficult>")), ((), ("dog",))),
        (annotate(tell("dog", difficult="<difficult>True</difficult>"), tell("dog")), (("dog",), ())),
        (annotate(tell("man", extra=f"<part><name>head</name>{BOX}</part>")), (("man",), ())),
        (annotate(tell("dog", box="<polygon><x1>1</x1></polygon>")), (("dog",), ())),
        (annotate(tell("dog", box=BOX.replace("5", "5.25"))), (("dog",), ())),
        (annotate(tell("dog", box=BOX.replace("20", "-3"))), (("dog",), ())),
        (annotate(tell("dog", box=BOX.replace("20", "far"))), (("dog",), ())),
        (annotate(tell("dog"), size=""), (("dog",), ())),
        (annotate(tell("dog"), size=SIZE.replace("40", "0")), (("dog",), ())),
        (annotate(), ((), ())),
        ("\ufeff" + annotate(tell("dog")), (("dog",), ())),
        ('<?xml version="1.0"?><!DOCTYPE annotation>' + annotate(tell("dog")), (("dog",), ())),
        (annotate(tell("salt & pepper"), file_name="Tom & Jerry.jpg"), (("salt & pepper",), ())),
        (annotate(tell("salt &amp; pepper")), (("salt & pepper",), ())),
        (
            annotate(tell("b\u00e9b\u00e9"), head='<?xml version="1.0" encoding="ISO-8859-1"?>').encode(
                "latin-1"
            ),
            (("b\u00e9b\u00e9",), ()),
        ),
        (
            annotate(tell("\u72d7"), head='<?xml version="1.0" encoding="gbk"?>').encode("gbk"),
            (("\u72d7",), ()),
        ),
        (annotate(tell("dog"), file_name="\u00e9.jpg").encode("latin-1"), (("dog",), ())),
        (
            annotate(tell("dog"), head='<?xml version="1.0" encoding="utf-16"?>').encode("utf-16"),
            (("dog",), ()),
        ),
    ],
)
def test_what_programs_write_is_read(photos, text, expected):
    write(photos / "a.xml", text)
    assert read(VocSource(photos))["a.jpg"] == expected


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'
FOREIGN = BOMB.replace('"ha"', 'SYSTEM "file:///etc/hostname"')


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (BOMB, "declares entities"),
        (FOREIGN, "declares entities"),
        (annotate(tell("dog"))[:60], "not XML"),
        ("", "empty"),
        ("<html></html>", "has <html> where VOC's XML has <annotation>"),
        (annotate(tell("dog"), tell(" ")), "object 2 has no <name>"),
        (annotate(tell("b\u00e9b\u00e9")).encode("latin-1"), "not UTF-8, and no encoding is declared"),
    ],
)
def test_an_xml_that_cannot_be_read_costs_its_image_and_says_why(photos, text, detail):
    write(photos / "a.xml", text)
    [skip] = [
        item for _, item in VocSource(photos).items() if isinstance(item, Skip) and item.image_id == "a"
    ]
    assert skip.reason == "bad_annotation" and detail in skip.detail and str(photos / "a.xml") in skip.detail


def test_a_build_stops_where_much_of_the_xml_cannot_be_read(photos, tmp_path, capsys):
    for name in ("a", "b"):
        write(photos / f"{name}.xml", "<annotation>")
    draw(photos / "c.jpg", photos / "d.jpg")
    for name in ("c", "d"):
        write(photos / f"{name}.xml", annotate(tell("dog"), tell("fox")))
    command = ["build", "voc", "--from", str(photos), "--name", "mine", "--data-dir", str(tmp_path / "data")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "2 of the 4 train images have no annotation that can be read (50.0 %), the first" in error
    assert "a.xml: not XML" in error and "--allow-missing" in error
    assert main([*command, "--allow-missing"]) == 0
    assert "Missing when the data set was built: 2 of 4 train images (50.0 %)" in capsys.readouterr().out


def test_boxes_are_sorted_and_cut_and_what_is_no_box_is_left_out(photos):
    swapped = "<bndbox><xmin>20</xmin><ymin>40</ymin><xmax>5</xmax><ymax>-2</ymax></bndbox>"
    outside = BOX.replace("20", "70").replace("5<", "60<")
    write(photos / "a.xml", annotate(tell("dog", swapped), tell("fox", outside), tell("cat", "<polygon/>")))
    source = VocSource(photos)
    [(box,), _] = [item.boxes for _, item in source.items()]
    assert (box.label, box.xmin, box.ymin, box.xmax, box.ymax) == ("dog", 0.1, 0, 0.5, 1)
    assert source.label_names() == ("cat", "dog", "fox")
    assert source.notes() == [
        "boxes of 2 objects are left out, their labels kept: 1 outside of their images, "
        "1 drawn as another shape"
    ]


# ---- layouts


@pytest.fixture
def devkit(tmp_path):
    """VOC 2012: lists of train, val and trainval, no test; one XML in none of them."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name, label in (("2007_1", "dog"), ("2007_2", "fox"), ("2007_3", "dog"), ("2007_4", "cat")):
        draw(root / "JPEGImages" / f"{name}.jpg")
        write(root / "Annotations" / f"{name}.xml", annotate(tell(label)))
    for word, ids in (("train", "12"), ("val", "3"), ("trainval", "123")):
        write(root / "ImageSets" / "Main" / f"{word}.txt", "".join(f"2007_{number}\n" for number in ids))
    return root.parent


@pytest.mark.parametrize("inner", ["", "VOC2012", ".."])
def test_voc_2012_has_val_as_its_test_split(devkit, inner):
    source = VocSource(devkit / inner)
    images = {("train", "1"), ("train", "2"), ("test", "3")}
    assert splits_of(source) == {(split, f"JPEGImages/2007_{number}.jpg") for split, number in images}
    assert source.label_names() == ("dog", "fox")
    assert "there is no test split" in source.notes()[0]
    assert source.notes()[1:] == [
        "1 XML file in no list of a split (train.txt, val.txt): left out, such as Annotations/2007_4.xml"
    ]


def test_lists_may_name_files_and_folders_and_what_is_not_there(devkit):
    sets = devkit / "VOC2012" / "ImageSets" / "Main"
    for path in sets.iterdir():
        path.unlink()
    write(sets / "train.txt", "JPEGImages/2007_1.jpg\n2007_2  1\n\\\\host\\share\\2007_4.png\n")
    write(sets / "test.txt", "2007_3\n2007_9\n")
    source = VocSource(devkit)
    assert {(split, image[-5]) for split, image in splits_of(source)} == {
        ("train", "1"),
        ("train", "2"),
        ("train", "4"),
        ("test", "3"),
    }
    assert read(source)["2007_9"].endswith("has no XML of 2007_9")


def test_folders_called_train_valid_and_test_are_splits(tmp_path):
    for split in ("train", "valid", "test"):
        draw(tmp_path / split / "a.jpg")
        write(tmp_path / split / "a.xml", annotate(tell("dog")))
    assert splits_of(VocSource(tmp_path)) == {
        ("train", "train/a.jpg"),
        ("validation", "valid/a.jpg"),
        ("test", "test/a.jpg"),
    }
    both = VocSource([f"train={tmp_path / 'train'},test={tmp_path / 'test'}"])
    assert splits_of(both) == {("train", "train/a.jpg"), ("test", "test/a.jpg")}
    write(tmp_path / "b.xml", annotate())
    with pytest.raises(UserError, match=r"b.xml: is in no folder of a split, as test/a.xml is"):
        VocSource(tmp_path)


@pytest.mark.parametrize(
    ("xml", "image"),
    [
        ("Annotations/a.xml", "JPEGImages/a.JPG"),
        ("annotations/a.xml", "images/a.png"),
        ("xmls/in/a.xml", "images/in/a.jpeg"),
        ("labels/a.xml", "a.jpg"),
        ("a.xml", "deep/er/a.jpg"),
        ("1.xml", "pictures/from the file.jpg"),
    ],
)
def test_an_image_is_found_by_the_name_of_its_xml_or_the_name_in_it(tmp_path, xml, image):
    draw(tmp_path / image)
    write(tmp_path / xml, annotate(tell("dog"), file_name="from the file.jpg"))
    assert list(read(VocSource(tmp_path))) == [image]


def test_images_without_xml_are_left_out_and_listed(photos):
    draw(photos / "c.jpg", photos / "other" / "d.jpg")
    assert read(VocSource(photos))["c.jpg"] == f"{photos}/c.jpg: has no XML"
    assert "other/d.jpg" not in read(VocSource(photos))


def test_two_images_of_one_xml_are_told(photos):
    draw(photos / "a.png")
    assert "both a.jpg and a.png are there" in read(VocSource(photos))["a"]


def test_a_missing_image_is_looked_for_where_the_others_are(devkit, tmp_path, capsys):
    for number in (1, 2):
        (devkit / "VOC2012" / "JPEGImages" / f"2007_{number}.jpg").unlink()
    assert main(["build", "voc", "--from", str(devkit), "--data-dir", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert "2 of the 2 train images are missing (100 %)" in error and "JPEGImages/2007_1.jpg" in error
    assert "no image of this name is below" in error and "--images" in error


def test_class_files_alone_are_enough(devkit):
    root = devkit / "VOC2012"
    for path in (root / "Annotations").iterdir():
        path.unlink()
    for word, lines in (
        ("train", ("2007_1  1\n2007_2 -1\n", "2007_1 -1\n2007_2  0\n")),
        ("val", ("2007_3 1\n", "2007_3 1\n")),
    ):
        for name, text in zip(("dog", "red_fox"), lines, strict=True):
            write(root / "ImageSets" / "Main" / f"{name}_{word}.txt", text)
    assert read(VocSource(root)) == {
        "JPEGImages/2007_1.jpg": (("dog",), ()),
        "JPEGImages/2007_2.jpg": ((), ("red_fox",)),
        "JPEGImages/2007_3.jpg": (("dog", "red_fox"), ()),
    }
    write(root / "ImageSets" / "Main" / "dog_train.txt", "2007_1 1\n")
    with pytest.raises(
        UserError, match=r"dog_train.txt: has no line for the image '2007_2': mend one of the two"
    ):
        list(VocSource(root).items())


def test_folders_that_cannot_be_meant_are_told(devkit, tmp_path):
    (devkit / "VOC2007" / "Annotations").mkdir(parents=True)
    with pytest.raises(UserError, match=r"VOC2007 and VOC2012 are in it: give one, --from .*VOC2007"):
        VocSource(devkit)
    with pytest.raises(UserError, match="no such folder: give the folder that holds the XML files"):
        VocSource(tmp_path / "none")
    with pytest.raises(UserError, match=r"2007_1.xml: is a file: give the folder"):
        VocSource(devkit / "VOC2012" / "Annotations" / "2007_1.xml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no XML in it: give the folder of VOC's XML files with --from"):
        VocSource(tmp_path / "empty")
    for name, message in (
        ("x.json", "build coco --from"),
        ("x.csv", "build table --from"),
        ("x.zip", "unpack it"),
    ):
        write(tmp_path / name / name, "")
        with pytest.raises(UserError, match=f"no XML in it; .*{message}"):
            VocSource(tmp_path / name)
    write(devkit / "VOC2012" / "ImageSets" / "Main" / "train.txt", "1\n")
    write(devkit / "VOC2012" / "ImageSets" / "Main" / "val.txt", "2\n")
    with pytest.raises(
        UserError, match=r"train.txt: none of its images has an XML .*: expected names such as 2007_1"
    ):
        VocSource(devkit / "VOC2012")
