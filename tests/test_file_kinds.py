"""Which files of a folder are images: what begins as one or is named like one. The others are counted."""

import io
import os
from collections import Counter

import pytest
from PIL import Image

from cnnrnn_tf.commands import tagging
from cnnrnn_tf.serving.file_kinds import describe_others, judge_file, looks_like_image, name_kind
from cnnrnn_tf.serving.image_files import read_image
from cnnrnn_tf.serving.image_walk import walk_images


def encode(file_format):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, file_format)
    return file.getvalue()


FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000")
OTHERS = {
    "empty": b"",
    "text": b"BMW;Audi;sky;sea and more text",
    "sound": b"RIFF\x10\0\0\0WAVEfmt ",
    "film": b"\0\0\0\x14ftypqt  \0\0\0\0",
    "document": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3",
    "AppleDouble": b"\0\5\x16\7\0\2\0\0Mac OS X",
    "short": b"\xff\xd8",
}


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_image_is_known_by_its_content_whatever_its_name(tmp_path, file_format):
    for name in ("IMG_1.jfif", "noext", "photo.txt", ".hidden"):
        (tmp_path / name).write_bytes(encode(file_format))
        assert judge_file(tmp_path / name) == (True, ""), name


@pytest.mark.parametrize("head", OTHERS.values(), ids=OTHERS)
def test_other_files_are_no_images_but_for_those_that_are_named_like_one(tmp_path, head):
    assert not looks_like_image(head)
    for name, is_image in (("1.txt", False), ("1.JPE", True), ("._1.jpg", False), (".jpg", False)):
        (tmp_path / name).write_bytes(head)
        assert judge_file(tmp_path / name) == (is_image, ""), name


def test_pipes_and_links_to_nowhere_are_others_and_a_locked_file_is_told_of(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "locked").touch()
    for name in ("pipe", "link"):
        assert judge_file(tmp_path / name) == (False, "")

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert judge_file(tmp_path / "locked") == (False, "Permission denied")
    assert read_image(tmp_path / "locked") == (b"", "Permission denied")


@pytest.mark.parametrize("window", [1, 2, 100])
def test_a_walk_finds_images_of_any_name_and_counts_the_other_files(tmp_path, window):
    photo = encode("JPEG")
    images = ["a/1", "a/2.jpe", "b.JFIF", "z.txt"]
    others = ["a/1.txt", "a/b/2.TXT", "a/.DS_Store", "Thumbs.db", "._b.JFIF", "README"]
    for name in (*images, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photo if name in images else b"x")
    counted = Counter()
    assert list(walk_images(tmp_path, counted, window)) == [(name, "") for name in images]
    kinds = {".txt": 2, ".DS_Store": 1, ".db": 1, "._*": 1, "without suffix": 1}
    assert counted == kinds == Counter(map(name_kind, others))


def test_of_many_kinds_the_most_frequent_are_named():
    others = Counter({f".{letter}": 2 + (letter == "g") for letter in "abcdefg"})
    assert (
        describe_others(others)
        == "15 other files are no images (3 .g, 2 .a, 2 .b, 2 .c, 2 .d, 4 of other kinds)"
    )


def test_a_folder_named_on_a_command_line_is_chosen_from_alike(tmp_path):
    for name, data in (("1.jfif", encode("JPEG")), ("2", encode("PNG")), ("3.jpe", b"x"), ("4.csv", b"x")):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "below").mkdir()
    os.mkfifo(tmp_path / "pipe")
    found = tagging.find_images([str(tmp_path)])
    assert [path.name for path in found.paths] == ["1.jfif", "2", "3.jpe"]
    assert found.others == {".csv": 1, "without suffix": 1} and found.num_folders == 1 and not found.problems
