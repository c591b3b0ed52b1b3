"""Tagging a folder: every image once, bad ones with a reason, the same bytes however often it is stopped."""

import errno
import fcntl
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tiny_model import VOCABULARY, make_model, make_photograph

from cnnrnn_tf.commands import predict, tag
from cnnrnn_tf.commands.__main__ import main
from cnnrnn_tf.config import DecodingConfig
from cnnrnn_tf.serving import tag_output as tag_output_module
from cnnrnn_tf.serving.image_files import read_image
from cnnrnn_tf.serving.image_walk import sort_key, walk_images
from cnnrnn_tf.serving.signatures import Tagger
from cnnrnn_tf.serving.tag_files import with_options
from cnnrnn_tf.serving.tag_folder import tag_folder
from cnnrnn_tf.serving.tag_output import open_output
from tfrecords import progress
from tfrecords.errors import UserError

MADE_OF = {"model": "a" * 64, "--given": [], "FOLDER": "photos"}


class BatchTagger:
    """Stands for a model whose last digits depend on the whole batch, and which is no model at all.

    A file is good if it begins with "good"; its label is its content.
    """

    calibration, max_length = None, 1

    def __init__(self, seconds=0.0, stop_at=None):
        self.seconds, self.stop_at, self.files = seconds, stop_at, []
        self.signatures = {"serving_default": self.tag}

    def tag(self, image_bytes):
        time.sleep(self.seconds)
        files = list(image_bytes.numpy())
        if self.stop_at is not None and self.stop_at in files:
            raise KeyboardInterrupt
        self.files += files
        good = np.array([file.startswith(b"good") for file in files])
        digest = int(hashlib.sha256(b"".join(files)).hexdigest()[:8], 16)
        number = np.where(good, np.float32(digest / 2**33), np.float32(0))
        return {
            "labels": tf.constant([[file if ok else b""] for file, ok in zip(files, good, strict=True)]),
            "probabilities": tf.constant(number[:, None]),
            "step_probabilities": tf.constant(number[:, None]),
            "num_labels": tf.constant(good.astype(np.int32)),
            "path_probability": tf.constant(number),
            "valid": tf.constant(good),
            "error": tf.constant(["" if ok else "not an image" for ok in good]),
        }


def run(folder, out, tagger=None, batch_size=4, made_of=MADE_OF, overwrite=False, **options):
    with open_output(Path(out), made_of, overwrite) as output:
        return tag_folder(tagger or BatchTagger(), folder, output, batch_size=batch_size, **options)


def read_rows(out):
    return [json.loads(line) for line in Path(out).read_bytes().split(b"\n")[:-1]]


def read_names(out):
    return [row["image"] for row in read_rows(out)]


@pytest.fixture
def photos(tmp_path):
    """31 files in four folders, two of them no images."""
    folder = tmp_path / "photos"
    for i in range(31):
        path = folder / ("", "a", "a/b", "z")[i % 4] / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bad" if i in (3, 20) else f"good {i}".encode())
    return folder


@pytest.fixture(scope="module")
def loaded():
    return Tagger(make_model(), VOCABULARY, DecodingConfig(beam_size=4, max_length=3)), VOCABULARY


# ---- what is found


@pytest.mark.parametrize("window", [1, 2, 3, 1000])
def test_images_are_found_in_one_order_whatever_is_held_at_once(tmp_path, window):
    names = ["b.jpg", "a/z.JPG", "a.jpg", "a/b/c.webp", "a-b/1.png", "é.gif", ".jpg/x.jpg", "B.jpeg", "Z.bmp"]
    for name in [*names, "notes.txt", "a/notes", "a/.jpg"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = list(walk_images(tmp_path, window=window))
    assert found == [(name, "") for name in sorted(names, key=sort_key)]
    assert [name for name, _ in found][:4] == [".jpg/x.jpg", "B.jpeg", "Z.bmp", "a/b/c.webp"]


def test_a_link_upwards_ends_there_and_a_linked_folder_is_entered(tmp_path):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").touch()
    (tmp_path / "photos" / "a" / "up").symlink_to("..")
    (tmp_path / "photos" / "a" / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    found = list(walk_images(tmp_path / "photos"))
    assert found == [("a/self.jpg", ""), ("linked/1.jpg", "")]


def test_a_folder_that_cannot_be_read_is_told_of_and_the_others_are_searched(photos, tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).rstrip("/").endswith("/a"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    summary = run(photos, tmp_path / "tags.jsonl")
    rows = read_rows(tmp_path / "tags.jsonl")
    assert {"image": "a/", "error": "Permission denied"} in rows
    assert len(rows) == 31 - 16 + 1 == summary.num_images
    assert summary.errors == {"not an image": 2, "Permission denied": 1}


def test_a_depth_of_folders_beyond_python_s_recursion_is_walked(tmp_path):
    start, depth = os.getcwd(), sys.getrecursionlimit() + 100
    try:
        os.chdir(tmp_path)
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        Path("1.jpg").touch()
        assert list(walk_images(tmp_path)) == [("d/" * depth + "1.jpg", "")]
    finally:  # pytest cannot remove it
        Path("1.jpg").unlink(missing_ok=True)
        while os.getcwd() != str(tmp_path):
            os.chdir("..")
            os.rmdir("d")
        os.chdir(start)


# ---- bad files


def test_every_sort_of_bad_file_has_a_row_that_says_why(tmp_path, loaded):
    folder = tmp_path / "photos"
    (folder / "folder.jpg").mkdir(parents=True)
    (folder / "folder.jpg" / "in.jpg").write_bytes(make_photograph(1))
    (folder / "good.jpg").write_bytes(make_photograph(2))
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no photograph")
    (folder / "cut.jpg").write_bytes(make_photograph(3)[:200])
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "round.jpg").symlink_to("round.jpg")
    os.mkfifo(folder / "pipe.jpg")
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(1 << 40)
    tagger, _ = loaded
    summary = run(folder, tmp_path / "tags.jsonl", tagger)
    errors = {row["image"]: row["error"] for row in read_rows(tmp_path / "tags.jsonl")}
    assert errors == {
        "folder.jpg/in.jpg": "",
        "good.jpg": "",
        "empty.jpg": "empty",
        "text.jpg": "not an image",
        "cut.jpg": "cut off",
        "broken.jpg": "No such file or directory",
        "round.jpg": "Too many levels of symbolic links",
        "pipe.jpg": "not a file",
        "huge.jpg": "too large",
    }
    assert summary.errors == Counter(error for error in errors.values() if error)


def test_a_file_that_vanishes_between_listing_and_reading_or_refuses_has_a_row(photos, tmp_path):
    class Vanishing(BatchTagger):
        def tag(self, image_bytes):
            if b"good 7" in image_bytes.numpy():  # its folder has been listed
                (photos / "z" / "27.jpg").unlink()
            return super().tag(image_bytes)

    summary = run(photos, tmp_path / "tags.jsonl", Vanishing(), batch_size=1)
    assert summary.errors == {"not an image": 2, "No such file or directory": 1}
    assert len(read_rows(tmp_path / "tags.jsonl")) == 31


def test_a_file_that_cannot_be_opened_says_what_the_system_says(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert read_image(tmp_path / "x.jpg") == (b"", "Permission denied")


def test_names_of_any_bytes_are_valid_json_and_lead_back_to_the_file(tmp_path):
    folder = os.fsencode(tmp_path / "photos")
    os.mkdir(folder)
    names = [b"new\nline.jpg", b'"quoted".jpg', b"\xff\xfe.jpg", "été\u2028.jpg".encode(), b"back\\slash.jpg"]
    for name in names:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"good")
    run(os.fsdecode(folder), tmp_path / "tags.jsonl")
    data = (tmp_path / "tags.jsonl").read_bytes()
    data.decode("utf-8")  # strict
    assert data.count(b"\n") == len(names)
    assert [os.fsencode(name) for name in read_names(tmp_path / "tags.jsonl")] == sorted(names)
    again = BatchTagger()
    run(os.fsdecode(folder), tmp_path / "tags.jsonl", again)
    assert again.files == []


# ---- stopped and gone on


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(photos, tmp_path):
    run(photos, tmp_path / "whole.jsonl")
    out = tmp_path / "tags.jsonl"
    stopped = BatchTagger(stop_at=b"good 13")
    with pytest.raises(KeyboardInterrupt, match=r"images are tagged in .*part; run the same command again"):
        run(photos, out, stopped)
    assert not out.exists() and (tmp_path / "tags.jsonl.part").exists()
    again = BatchTagger()
    summary = run(photos, out, again)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "tags.jsonl.part").exists()
    assert 0 < summary.num_added == len(again.files) < 31 == summary.num_images
    assert summary.errors == {"not an image": 2}


def test_cut_anywhere_the_rest_gives_the_same_bytes(photos, tmp_path):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "tags.jsonl"
    run(photos, whole)
    data = whole.read_bytes()
    part = tmp_path / "tags.jsonl.part"
    rng = random.Random(0)
    for size in [0, 1, len(data) - 1, len(data), *rng.sample(range(len(data)), 30)]:
        out.unlink(missing_ok=True)
        run(photos, out)
        os.replace(out, part)
        os.truncate(part, size)
        run(photos, out)
        assert out.read_bytes() == data, size


# Imports once; each child that it forks tags, and is killed in the midst of it.
_KILL = """
import os, random, signal, sys, time
from test_tag_folder import BatchTagger, run

folder, out, num_kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(1)
for i in range(num_kills + 1):
    child = os.fork()
    if not child:
        run(folder, out, BatchTagger(seconds=0.02), batch_size=4)
        os._exit(0)
    if i < num_kills:
        time.sleep(rng.uniform(0, 0.25))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    print(status, flush=True)
"""


@pytest.mark.parametrize("num_kills", [5, pytest.param(40, marks=pytest.mark.long)])
def test_killed_at_random_moments_it_ends_with_the_bytes_of_an_unbroken_run(tmp_path, num_kills):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(60 * num_kills):
        (folder / f"{i}.jpg").write_bytes(b"bad" if i % 50 == 7 else f"good {i}".encode())
    run(folder, tmp_path / "whole.jsonl")
    root = Path(__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", _KILL, folder, tmp_path / "tags.jsonl", str(num_kills)],
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    statuses = [int(word) for word in ended.stdout.split()]
    assert statuses[-1] == 0 and statuses.count(signal.SIGKILL) >= num_kills // 2
    assert (tmp_path / "tags.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("stop_at", [b"good 6", None])
def test_images_added_in_between_are_tagged_too_wherever_they_sort(photos, tmp_path, stop_at):
    out = tmp_path / "tags.jsonl"
    if stop_at is None:
        run(photos, out)
    else:
        with pytest.raises(KeyboardInterrupt):
            run(photos, out, BatchTagger(stop_at=stop_at))
    for name in ("0.jpg", "a/00.jpg", "a/b/zz.jpg", "zz.jpg", "y/1.jpg"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(f"good {name}".encode())
    (photos / "a" / "01.jpg").unlink()
    run(photos, out)
    names = read_names(out)
    assert len(names) == len(set(names)) == 31 + 5  # what has been removed keeps its row
    assert {name for name, _ in walk_images(photos)} == set(names) - {"a/01.jpg"}
    before = out.read_bytes()
    again = BatchTagger()
    assert run(photos, out, again).num_added == 0
    assert again.files == [] and out.read_bytes() == before


def test_a_finished_file_that_is_added_to_and_killed_loses_nothing(photos, tmp_path):
    out = tmp_path / "tags.jsonl"
    for i in range(6):
        for j in range(7):
            (photos / f"{j}{i}.jpg").write_bytes(f"good {i} {j}".encode())
        with pytest.raises(KeyboardInterrupt):
            run(photos, out, BatchTagger(stop_at=f"good {i} 3".encode()))
        if i % 2:
            run(photos, out)
    names = read_names(out)
    assert sorted(names, key=sort_key) == [name for name, _ in walk_images(photos)]


def test_another_batch_size_may_go_on(photos, tmp_path):
    out = tmp_path / "tags.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(photos, out, BatchTagger(stop_at=b"good 8"), batch_size=4)
    run(photos, out, batch_size=3)
    assert read_names(out) == [name for name, _ in walk_images(photos)]


# ---- what is refused


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "model",
            "b" * 64,
            "was begun with model aaaaaaaaaaaa, and now it is bbbbbbbbbbbb; choose another --out",
        ),
        ("--given", ["sky"], r"with --given none, and now it is \['sky'\]; .* --overwrite to begin anew"),
        ("FOLDER", "elsewhere", "with FOLDER photos, and now it is elsewhere"),
    ],
)
def test_rows_of_another_model_are_not_gone_on_with_unless_told_to(photos, tmp_path, key, value, message):
    out = tmp_path / "tags.jsonl"
    run(photos, out)
    before = out.read_bytes()
    with pytest.raises(UserError, match=message):
        run(photos, out, made_of={**MADE_OF, key: value})
    assert out.read_bytes() == before
    assert run(photos, out, made_of={**MADE_OF, key: value}, overwrite=True).num_added == 31
    with pytest.raises(UserError, match="was begun with"):
        run(photos, out)


def test_a_file_of_another_program_is_not_touched(photos, tmp_path):
    out = tmp_path / "tags.jsonl"
    out.write_text("mine\n")
    with pytest.raises(UserError, match=r"is there already, and no tags.jsonl.state.json beside it says"):
        run(photos, out)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["tags.jsonl"]
    run(photos, out, overwrite=True)
    (tmp_path / "tags.jsonl.part").write_text("mine\n")
    with pytest.raises(UserError, match=r"and so is tags.jsonl.part, which would replace it; remove one"):
        run(photos, out)
    with pytest.raises(UserError, match=r"photos: is a folder; expected a file"):
        run(photos, photos)


def test_a_line_that_was_edited_is_told_by_its_number(photos, tmp_path):
    out = tmp_path / "tags.jsonl"
    run(photos, out)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([*lines[:5], b"{}\n", *lines[6:]]))
    with pytest.raises(UserError, match=r"tags.jsonl, line 6: is no row of this command; mend or remove"):
        run(photos, out)


def test_only_one_process_writes(photos, tmp_path):
    out = tmp_path / "tags.jsonl"
    run(photos, out)
    with (tmp_path / "tags.jsonl.state.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is writing it; wait for that one"):
            run(photos, out, overwrite=True)
    assert len(read_rows(out)) == 31


def test_a_file_system_without_locks_is_one_line(photos, tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(tag_output_module.fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"tags.jsonl: cannot be locked \(No locks available\); choose an"):
        run(photos, tmp_path / "tags.jsonl")


def test_a_full_disk_is_one_line_and_what_is_written_is_gone_on_with(photos, tmp_path, monkeypatch):
    run(photos, tmp_path / "whole.jsonl")
    out = tmp_path / "tags.jsonl"

    class Full(tag_output_module._Appender):
        def __init__(self, file, path):
            super().__init__(FullFile(file), path)

    class FullFile:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if self.file.tell() > 2000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data[:100])

    with monkeypatch.context() as patch:
        patch.setattr(tag_output_module, "_Appender", Full)
        with pytest.raises(
            UserError,
            match=r"tags.jsonl.part: cannot be written \(No space left on device\); make room there",
        ):
            run(photos, out)
    assert out.with_name("tags.jsonl.part").stat().st_size > 2000
    run(photos, out)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_folder_without_images_is_a_mistake_and_leaves_no_rows(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"photos: no images in it or below it$"):
        run(tmp_path / "photos", tmp_path / "tags.jsonl")
    assert not (tmp_path / "tags.jsonl").exists() and not (tmp_path / "tags.jsonl.part").exists()


# ---- the command


@pytest.fixture
def quick(monkeypatch, loaded):
    """The model is made once for all tests of the command."""
    monkeypatch.setattr(tag, "check_model", lambda path: loaded[1])
    monkeypatch.setattr(predict, "check_model", lambda path: loaded[1])
    monkeypatch.setattr(tag, "load_tagger", lambda path: loaded)
    monkeypatch.setattr(predict, "load_tagger", lambda path: loaded)
    monkeypatch.setattr(tag, "hash_model", lambda path: "a" * 64)


@pytest.fixture
def album(tmp_path):
    """70 photographs, one of them cut off, and a note."""
    folder = tmp_path / "album"
    folder.mkdir()
    for seed in range(70):
        (folder / f"{seed:02}.jpg").write_bytes(make_photograph(seed))
    os.truncate(folder / "33.jpg", 1000)  # libjpeg has a line for it
    (folder / "notes.txt").touch()
    return folder


@pytest.mark.parametrize("given", ["", "boat, été"])
def test_the_rows_are_those_of_predict_to_the_digit(quick, album, tmp_path, capfd, given):
    out = tmp_path / "new" / "tags.jsonl"
    words = ["--batch-size", "16", "--given", given]
    assert main(["predict", "RUN", str(album), "--json", *words]) == 1
    expected = capfd.readouterr().out.replace(f"{album}/", "")
    assert main(["tag", str(album), "--model", "RUN", "--out", str(out), *words]) == 1
    assert out.read_text(encoding="utf-8") == expected
    assert any(row.get("labels") for row in read_rows(out))
    said, err = capfd.readouterr()
    assert said.startswith(f"tagged 69 of 70 images: {out}; 1 could not be (1 cut off); 1 other file is no")
    assert " is no image (1 .txt)\nall now, " in said and err == ""
    assert main(["tag", str(album), "--model", "RUN", "--out", str(out), *words]) == 1
    assert capfd.readouterr().out.endswith("(1 .txt)\nall of them before\n")


def test_rows_are_searched_by_the_options_and_not_gone_on_with_by_others(
    quick, loaded, album, tmp_path, capfd
):
    out, (tagger, _) = tmp_path / "tags.jsonl", loaded
    words = ["tag", str(album), "--model", "RUN", "--out", str(out)]
    options = ["--beam-size", "3", "--min-length", "2", "--max-length", "2", "--threshold", "0.8"]
    assert main([*words, *options]) == 1
    files = [path.read_bytes() for path in sorted(album.glob("*.jpg"))]
    numbers = {"beam_size": 3, "min_length": 2, "max_length": 2, "threshold": 0.8}
    columns = {name: tf.constant([number] * len(files)) for name, number in numbers.items()}
    found = tagger.tag(tf.constant(files), **columns)["labels"].numpy().tolist()
    labels = [row.get("labels", []) for row in read_rows(out)]
    assert labels == [[name.decode() for name in row if name] for row in found]
    assert {len(row) for row in labels} == {0, 1, 2}
    capfd.readouterr()
    for others in ([], options[2:], [*options[:-1], "0.7"]):
        assert main([*words, *others]) == 2
        assert "was begun with --" in capfd.readouterr().err
    old = SimpleNamespace(signatures={"serving_default": None})
    with pytest.raises(UserError, match="beam_size: this export has no signature tag; export the run again"):
        with_options(old, {"beam_size": 2})


def test_the_bar_counts_what_was_there_before(quick, album, tmp_path, capfd, monkeypatch):
    for pause in ("FIRST_LINE_S", "LINES_S"):
        monkeypatch.setattr(progress, pause, 0.001)
    (album / "33.jpg").write_bytes(make_photograph(33))
    words = ["tag", str(album), "--model", "RUN", "--out", str(tmp_path / "tags.jsonl")]
    assert main(words) == 0
    assert "70 images" in capfd.readouterr().err
    for seed in range(3):
        (album / f"1{seed}a.jpg").write_bytes(make_photograph(seed))
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert re.search(r"^tagging: 64 (of 73 )?images", err, re.MULTILINE)
    assert "tagging: 73 images in" in err
    assert "of these 9 now" in out


MISTAKES = [
    ("--given skie", "error: unknown label 'skie' (did you mean 'sky'?)"),
    ("--batch-size 0", "error: --batch-size 0: expected 1 or more"),
    ("--readers 0", "error: --readers 0: expected 1 or more"),
    ("--beam-size 99", "error: beam_size 99: expected 1 to 10"),
    ("--given sky --threshold 0.5", "error: given labels and threshold: no signature takes both; leave out"),
    ("--beam-options=--x=1", "error: --beam-options is for tagging by Apache Beam: name its --runner, too"),
]


@pytest.mark.parametrize(("flags", "message"), MISTAKES)
def test_mistakes_are_one_line_and_status_2(quick, album, tmp_path, capsys, flags, message):
    words = ["tag", str(album), "--model", "RUN", "--out", str(tmp_path / "tags.jsonl"), *flags.split()]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message) and err.count("\n") == 1
    assert not list(tmp_path.glob("tags*"))


def test_a_folder_that_is_none_is_told_before_the_model_is_loaded(tmp_path, capsys):
    for name, found in (("nowhere", "no such folder"), (__file__, "is a file")):
        assert main(["tag", name, "--model", "RUN", "--out", str(tmp_path / "tags.jsonl")]) == 2
        assert capsys.readouterr().err == f"error: {name}: {found}; expected a folder of images\n"
    assert main(["tag", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: missing --model and --out; see `cnnrnn tag --help`\n"


def test_a_model_is_known_by_the_files_that_its_answers_depend_on(tmp_path):
    for name in ("config.json", "vocabulary.json", "calibration.json", "checkpoints/best.keras", "train.log"):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for name in ("saved_model.pb", "variables/variables.index", "assets/labels.txt", "assets.extra/card.md"):
        path = tmp_path / "export" / "2" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for folder, inner, unrelated in (
        ("run", "run", "train.log"),
        ("export", "export/2", "assets.extra/card.md"),
    ):
        first = tag.hash_model(tmp_path / folder)
        for path in sorted((tmp_path / inner).rglob("*")):
            if path.is_file():
                text = path.read_text()
                path.write_text("changed")
                is_same = tag.hash_model(tmp_path / folder) == first
                assert is_same == (path.relative_to(tmp_path / inner).as_posix() == unrelated), path
                path.write_text(text)
