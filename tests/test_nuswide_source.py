"""NUS-WIDE in the owners' layout: the real label files where they are, and fakes with each awkward case."""

import os
import shutil
from collections import Counter

import pytest
from PIL import Image
from readme_snippet import read_as_readme_says
from shared_data import SHARED

from tfrecords.__main__ import main
from tfrecords.annotations import Annotation, Skip
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.report_records import read_truth
from tfrecords.sources.nuswide import NusWide81, NusWide1000
from tfrecords.sources.nuswide_lists import NusWideLists
from tfrecords.vocabulary import LabelVocabulary

NUSWIDE = SHARED / "data" / "nuswide"
CONCEPTS = [f"concept{i:02d}" for i in range(81)]
TAGS = [f"tag{i}" for i in range(1000)]
# split word -> image -> the labels that hold, by number
IMAGES = {
    "Train": {
        r"actor\0001_1.jpg": [3, 5],
        r"actor\0002_2.jpg": [],
        r"zoo\0003_3.jpg": [5],
        r"zoo\4.jpg": [0, 5],
    },
    "Test": {r"actor\0005_5.jpg": [5, 80], r"zoo\0006_6.jpg": []},
}


@pytest.fixture
def root(tmp_path):
    """The real layout; each image is there."""
    root = tmp_path / "NUS-WIDE"
    for folder in ("ConceptsList", "ImageList", "Groundtruth/TrainTestLabels", "NUS_WID_Tags"):
        (root / folder).mkdir(parents=True)
    (root / "ConceptsList" / "Concepts81.txt").write_text("".join(f"{name}\n" for name in CONCEPTS))
    (root / "NUS_WID_Tags" / "TagList1k.txt").write_text("".join(f"{name} \r\n" for name in TAGS))
    for word, images in IMAGES.items():
        (root / "ImageList" / f"{word}Imagelist.txt").write_text("".join(f"{name} \r\n" for name in images))
        for number, name in enumerate(CONCEPTS):
            flags = "".join(f"{int(number in labels)}\n" for labels in images.values())
            (root / "Groundtruth" / "TrainTestLabels" / f"Labels_{name}_{word}.txt").write_text(flags)
        rows = "".join(
            "\t".join(str(int(number in labels)) for number in range(1000)) + "\t\n"
            for labels in images.values()
        )
        (root / "NUS_WID_Tags" / f"{word}_Tags1k.dat").write_text(rows)
        for number, name in enumerate(images):
            path = root / "Flickr" / name.replace("\\", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6), (number, 0, 0)).save(path)
    return root


def read(source, split):
    """image id -> label names, and image id -> reason."""
    items = list(source.annotations(split))
    annotations = {item.image_id: item.labels for item in items if isinstance(item, Annotation)}
    return annotations, {item.image_id: item.reason for item in items if isinstance(item, Skip)}


# ---- what is read


@pytest.mark.parametrize(("make", "names"), [(NusWide81, CONCEPTS), (NusWide1000, TAGS)])
def test_labels_belong_to_their_images_and_untagged_ones_are_counted(root, make, names):
    annotations, skips = read(make(root), "train")
    assert annotations == {
        "actor/0001_1.jpg": (names[3], names[5]),
        "zoo/0003_3.jpg": (names[5],),
        "zoo/4.jpg": (names[0], names[5]),
    }
    assert skips == {"actor/0002_2.jpg": "untagged"}
    kept, skips = read(make(root, untagged="keep"), "train")
    assert kept == {**annotations, "actor/0002_2.jpg": ()} and not skips


def test_the_data_set_says_how_untagged_and_missing_images_were_treated(root, tmp_path):
    (root / "Flickr" / "zoo" / "0003_3.jpg").unlink()
    manifest = build(NusWide81(root), "nuswide81", tmp_path / "data", progress=False)
    assert manifest.source_arguments == {"untagged": "drop"}
    assert manifest.splits["train"].skipped == {"missing_image": 1, "untagged": 1}
    assert (manifest.splits["train"].num_images, manifest.splits["test"].num_images) == (2, 1)
    vocabulary = LabelVocabulary.load(tmp_path / "data" / "nuswide81")
    # Ranked over all of train, missing images too; all 81 stay, dead ones by name.
    assert vocabulary.names[:4] == ("concept05", "concept00", "concept03", "concept01")
    assert vocabulary.counts[:4] == (3, 1, 1, 0) and vocabulary.size == 81


def test_the_command_line_builds_both(root, tmp_path, capsys):
    for name in ("nuswide81", "nuswide1000"):
        assert main(["build", name, "--from", str(root), "--data-dir", str(tmp_path / "data")]) == 0
        assert f"built {tmp_path / 'data' / name}" in capsys.readouterr().out
        (line,) = read_as_readme_says(tmp_path / "data" / name, "test")
        names = "['concept05', 'concept80']" if name == "nuswide81" else "['tag5', 'tag80']"
        assert line.startswith("[") and line.endswith(f"] {names}")


@pytest.mark.parametrize("spell", [lambda name: name, lambda name: name.partition("_")[2] or name])
def test_all_images_may_lie_in_one_folder(root, tmp_path, spell):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (root / "Flickr").rglob("*.jpg"):
        path.rename(flat / spell(path.name))
    found = {
        item.image_id: item.image_path
        for item in NusWide81(root, flat).annotations("train")
        if isinstance(item, Annotation)
    }
    assert found == {
        image_id: str(flat / spell(image_id.rpartition("/")[2]))
        for image_id in ("actor/0001_1.jpg", "zoo/0003_3.jpg", "zoo/4.jpg")
    }
    (flat / spell("0003_3.jpg")).unlink()
    assert read(NusWide81(root, flat), "train")[0].keys() == found.keys()  # it is missing when it is read


# ---- lists of lines such as `path 0 1 0`


@pytest.fixture
def lists(tmp_path):
    """Hashing's three lists, where train.txt is a part of database.txt, and images under other folders."""
    folder = tmp_path / "lists"
    folder.mkdir()
    lines = {
        "database": ("1.jpg 0 1 0", "in here/2 b.jpg\t1 1 0 ", "3.jpg 0 0 0"),
        "train": ("1.jpg 0 1 0",),
        "test": ("4.jpg 0 0 1",),
    }
    for name, rows in lines.items():
        (folder / f"{name}.txt").write_text("".join(f"/home/someone/nus/{row}\n" for row in rows))
    (folder / "names.txt").write_text("sky\nsea\n\nboat\n")
    for number, name in enumerate(("1.jpg", "2 b.jpg", "3.jpg", "4.jpg")):
        (folder / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), (number, 0, 0)).save(folder / "photos" / name)
    return folder


def test_lists_of_zeros_and_ones_are_read_with_the_names_of_a_file(lists, tmp_path, capsys):
    source = NusWideLists([lists], names=lists / "names.txt")
    assert read(source, "train")[0] == {"photos/1.jpg": ("sea",), "photos/2 b.jpg": ("sky", "sea")}
    assert read(source, "train")[1] == {"photos/3.jpg": "untagged"}
    assert (source.splits(), source.label_names()) == (("train", "test"), ("sky", "sea", "boat"))
    one = NusWideLists([lists / "train.txt"], names=lists / "names.txt")
    assert read(one, "train")[0] == {"photos/1.jpg": ("sea",)} and one.splits() == ("train",)
    words = f"train={lists / 'database.txt'},test={lists / 'test.txt'}"
    command = ["build", "nuswide81", "--from", words, "--names", str(lists / "names.txt")]
    assert main([*command, "--name", "mine", "--data-dir", str(tmp_path / "data")]) == 0
    assert LabelVocabulary.load(tmp_path / "data" / "mine").names == ("sea", "sky", "boat")
    assert main([*command, "--images", str(tmp_path / "none")]) == 2
    assert "none: no such folder" in capsys.readouterr().err


def test_lists_of_81_columns_have_the_names_of_the_owners(lists, root):
    flags = " ".join("1" if number in (0, 80) else "0" for number in range(81))
    (lists / "train.txt").write_text(f"1.jpg {flags}\n")
    (lists / "database.txt").unlink()
    shutil.copytree(root / "ConceptsList", lists / "ConceptsList")
    source = NusWideLists([f"train={lists / 'train.txt'}"])
    assert read(source, "train")[0] == {"photos/1.jpg": ("concept00", "concept80")}


@pytest.mark.parametrize(
    ("line", "names", "message"),
    [
        ("1.jpg 0 1", None, r"database.txt line 1: has 2 columns of 0 and 1 and no names: give a file of"),
        ("1.jpg 0 1", "sky\nsea\nboat", r"names.txt: 3 names, 3 of them different, and .* has 2 columns"),
        ("1.jpg 0 1", "sky\nsky", r"names.txt: 2 names, 1 of them different"),
        (
            "1.jpg 0 1\n2.jpg 0",
            "sky\nsea",
            r"line 2: has 1 behind '2.jpg', expected a path and then 2 times 0 or 1",
        ),
        ("1.jpg 0 1\n2.jpg 0 2", "sky\nsea", r"line 2: has none behind '2', expected a path"),
        ("1.jpg", "sky\nsea", r"line 1: has none, expected a path and then 0 and 1"),
        ("\n", "sky\nsea", r"database.txt: is empty: expected lines such as"),
    ],
)
def test_lists_that_cannot_be_read_are_told_by_their_line(lists, line, names, message):
    (lists / "database.txt").write_text(line)
    if names is not None:
        (lists / "names.txt").write_text(names)
    with pytest.raises(UserError, match=message):
        list(NusWideLists([lists], names=names and lists / "names.txt").items())


# ---- mistakes


def spoil(root, file, change):
    path = root / file
    path.unlink() if change is None else path.write_text(change(path.read_text()))


LABELS = "Groundtruth/TrainTestLabels/Labels_concept07_Train.txt"


@pytest.mark.parametrize(
    ("make", "file", "change", "message"),
    [
        (NusWide81, LABELS, lambda text: text[:-2], r"Labels_concept07_Train.txt: 3 values, .* has 4 images"),
        (
            NusWide81,
            LABELS,
            lambda text: text + "0\n",
            r"Labels_concept07_Train.txt: 5 values, .* has 4 images",
        ),
        (
            NusWide81,
            LABELS,
            lambda text: "2" + text[1:],
            r"concept07_Train.txt: line 1 holds '2': expected 0 and 1",
        ),
        (NusWide81, LABELS, lambda text: "0\n10\n0\n0\n", r"concept07_Train.txt: line 2 holds '10'"),
        (NusWide81, LABELS, lambda text: "-1\n0\n0\n0\n", r"concept07_Train.txt: line 1 holds '-1'"),
        (
            NusWide81,
            LABELS,
            None,
            r"Labels_concept07_Train.txt: no such file: --from is the folder that holds",
        ),
        (NusWide81, "ConceptsList/Concepts81.txt", lambda text: text[10:], r"80 names, 80 of them different"),
        (NusWide81, "ImageList/TrainImagelist.txt", lambda text: text + "x.jpg\n", r"has 5 images"),
        (
            NusWide1000,
            "NUS_WID_Tags/TagList1k.txt",
            lambda text: text + "tag7\n",
            r"1001 names, 1000 of them",
        ),
        (
            NusWide1000,
            "NUS_WID_Tags/Train_Tags1k.dat",
            lambda text: text[:-4],
            r"rows of 1,000 values, .* 4 images",
        ),
    ],
)
def test_files_that_do_not_belong_together_are_told_by_name(root, make, file, change, message):
    spoil(root, file, change)
    with pytest.raises(UserError, match=message):
        list(make(root).annotations("train"))


def test_names_that_are_not_utf_8_are_told(root):
    (root / "NUS_WID_Tags" / "TagList1k.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"TagList1k.txt: the name 'caf.*' is not UTF-8"):
        list(NusWide1000(root).annotations("train"))


def test_the_same_image_in_train_and_test_is_a_leak(root, tmp_path):
    spoil(root, "ImageList/TestImagelist.txt", lambda text: text.replace(r"actor\0005_5.jpg", r"zoo\4.jpg"))
    with pytest.raises(UserError, match=r"'zoo/4.jpg' is in both train and test"):
        build(NusWide81(root), "nuswide81", tmp_path / "data", progress=False)


def test_a_path_that_climbs_out_of_the_images_is_skipped(root):
    spoil(root, "ImageList/TrainImagelist.txt", lambda text: text.replace(r"zoo\4.jpg", r"..\..\4.jpg"))
    assert read(NusWide81(root), "train")[1]["../../4.jpg"] == "path_outside_images"


def test_folders_that_are_not_there_are_told_with_the_owners_terms(root, tmp_path, capsys):
    for flags in (["--from", "nowhere"], ["--from", str(root), "--images", "nowhere"]):
        assert main(["build", "nuswide81", *flags]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: nowhere: no such folder of") and "the images on request" in line
    with pytest.raises(UserError, match=r"--untagged kep \(did you mean 'keep'\?\): expected drop or keep"):
        NusWide81(root, untagged="kep")


# ---- the real label files


@pytest.mark.skipif(not NUSWIDE.is_dir(), reason="needs NUS-WIDE's label files: set CNNRNN_SHARED")
def test_the_real_label_files_give_the_published_counts(tmp_path):
    source = NusWide81(NUSWIDE, images=tmp_path)
    counts, images, positives = {}, {}, {}
    for split in ("train", "test"):
        annotations, skips = read(source, split)
        counts[split] = Counter(name for labels in annotations.values() for name in labels)
        images[split] = (len(annotations), len(annotations) + len(skips))
        positives[split] = sum(counts[split].values())
        for word in ("sky", "map", "toy"):  # each file alone, by Python's own reading
            file = NUSWIDE / "Groundtruth" / "TrainTestLabels" / f"Labels_{word}_{split.title()}.txt"
            assert counts[split][word] == file.read_text().split().count("1")
    assert images == {"train": (125_449, 161_789), "test": (83_898, 107_859)}
    assert positives == {"train": 301_459, "test": 202_389}
    ranked = sorted(counts["train"].items(), key=lambda item: (-item[1], item[0]))
    assert ranked[:4] == [("sky", 44_255), ("clouds", 32_418), ("person", 30_909), ("water", 21_004)]


@pytest.mark.skipif(not NUSWIDE.is_dir(), reason="needs NUS-WIDE's label files: set CNNRNN_SHARED")
def test_the_real_label_files_with_stand_in_images_give_every_count_in_the_records(tmp_path):
    """All of NUS-WIDE: each of its 269,648 names is a link to one of a few pictures of this test's own."""
    originals = [tmp_path / f"{i}.jpg" for i in range(9)]
    for i, path in enumerate(originals):
        Image.new("RGB", (8 + i, 8), (28 * i, 0, 0)).save(path)
    images = tmp_path / "Flickr"
    for word in ("Train", "Test"):
        for number, name in enumerate((NUSWIDE / "ImageList" / f"{word}Imagelist.txt").read_text().split()):
            path = images / name.replace("\\", "/")
            if number == 0 or not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
            os.link(originals[number // 30_000], path)  # a file system allows 65,000 links to a file
    manifest = build(NusWide81(NUSWIDE, images), "nuswide81", tmp_path / "data", progress=False)
    shutil.rmtree(images)
    folder = tmp_path / "data" / "nuswide81"
    vocabulary = LabelVocabulary.load(folder)
    files = NUSWIDE / "Groundtruth" / "TrainTestLabels"
    truth = {
        split: {
            name: (files / f"Labels_{name}_{split.title()}.txt").read_bytes().count(b"1")
            for name in vocabulary.names
        }
        for split in ("train", "test")
    }
    ranked = sorted(truth["train"].items(), key=lambda item: (-item[1], item[0]))
    assert list(zip(vocabulary.names, vocabulary.counts, strict=True)) == ranked
    assert ranked[:4] == [("sky", 44_255), ("clouds", 32_418), ("person", 30_909), ("water", 21_004)]
    for split, num_images, num_labels, num_all in (
        ("train", 125_449, 301_459, 161_789),
        ("test", 83_898, 202_389, 107_859),
    ):
        facts = manifest.splits[split]
        assert (facts.num_images, facts.num_labels) == (num_images, num_labels)
        assert facts.skipped == {"untagged": num_all - num_images}
        positive, unknown = read_truth(folder, manifest, vocabulary, split)
        assert positive.shape == (num_images, 81) and not unknown.any() and positive.any(axis=1).all()
        assert dict(zip(vocabulary.names, positive.sum(axis=0).tolist(), strict=True)) == truth[split]
    assert manifest.max_labels_per_image == 13
    assert manifest.holdout.num_images == pytest.approx(12_545, abs=300)  # inside the 125,449
    shutil.rmtree(tmp_path / "data")
