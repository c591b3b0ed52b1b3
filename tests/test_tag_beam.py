"""Tagging a folder as an Apache Beam pipeline: the rows of `cnnrnn tag` on one machine, in order."""

import functools
import json
import os
import shutil

import pytest
from tiny_model import make_photograph

from cnnrnn_tf.commands.__main__ import main
from cnnrnn_tf.serving import export as export_module
from cnnrnn_tf.serving.check import find_export
from cnnrnn_tf.serving.export import load_export
from tfrecords.errors import UserError

pytest.importorskip("apache_beam", reason="Apache Beam is not installed: pip install apache-beam")

from test_beam import BucketFileSystem

from cnnrnn_tf.serving import tag_beam

IN_PROCESS = "--direct_running_mode=in_memory"


@pytest.fixture(scope="module")
def load_once():
    cached = functools.cache(load_export)
    return lambda path: cached(find_export(path))


@pytest.fixture
def quick(monkeypatch, load_once):
    """The export is loaded once for all tests."""
    monkeypatch.setattr(export_module, "load_export", load_once)
    monkeypatch.setattr(tag_beam, "load_export", load_once)


@pytest.fixture
def album(tmp_path):
    """50 photographs in three folders, some of them cut off, gone or oddly named."""
    folder = tmp_path / "album [1]"
    for seed in range(50):
        path = folder / ("", "a", "a/b")[seed % 3] / f"{seed:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_photograph(seed))
    os.truncate(folder / "a" / "31.jpg", 200)
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "new\nline.jpg").write_bytes(make_photograph(50))
    (folder / os.fsdecode(b"\xff.jpg")).write_bytes(make_photograph(51))
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(tag_beam, "_IMAGES_PER_SHARD", 20)


def tag(folder, export_dir, out, *words):
    return main(
        ["tag", str(folder), "--model", str(export_dir), "--out", str(out), "--batch-size", "8", *words]
    )


def tag_by_beam(folder, export_dir, out, *words):
    return tag(folder, export_dir, out, "--runner", "DirectRunner", f"--beam-options={IN_PROCESS}", *words)


def read_joined(out):
    return b"".join(path.read_bytes() for path in sorted(out.glob("tags-*.jsonl")))


def test_the_files_joined_are_the_rows_of_the_local_command(
    quick, album, tiny_export, tmp_path, small_shards, capfd
):
    assert tag(album, tiny_export, tmp_path / "tags.jsonl", "--given", "boat") == 1
    local = capfd.readouterr().out.splitlines()[0]
    assert tag_by_beam(album, tiny_export, tmp_path / "tags", "--given", "boat") == 1
    out, err = capfd.readouterr()
    assert read_joined(tmp_path / "tags") == (tmp_path / "tags.jsonl").read_bytes()
    assert out.splitlines() == [local.replace("tags.jsonl", "tags")]
    assert "51 of 53 images" in local and "1 cut off" in local and "Traceback" not in err
    names = sorted(path.name for path in (tmp_path / "tags").iterdir())
    assert names[:2] == ["state.json", "summary.json"] and len(names) == 2 + 4  # of 16 images
    summary = json.loads((tmp_path / "tags" / "summary.json").read_text())
    assert summary == {
        "num_images": 53,
        "errors": {"cut off": 1, "No such file or directory": 1},
        "others": {".txt": 1},
        "files": names[2:],
    }


def test_options_of_the_search_are_those_of_the_local_command(quick, album, tiny_export, tmp_path, capfd):
    options = ["--min-length", "3", "--threshold", "0.5"]
    assert tag(album, tiny_export, tmp_path / "tags.jsonl", *options) == 1
    assert tag_by_beam(album, tiny_export, tmp_path / "tags", *options) == 1
    assert read_joined(tmp_path / "tags") == (tmp_path / "tags.jsonl").read_bytes()
    capfd.readouterr()
    assert tag_by_beam(album, tiny_export, tmp_path / "tags") == 2
    assert "was begun with --min-length 3, and now it is none" in capfd.readouterr().err
    assert tag_by_beam(album, tiny_export, tmp_path / "others", "--max-length", "9") == 2
    assert capfd.readouterr().err == "error: max_length 9: expected 1 to 3\n"


def test_a_file_that_a_store_does_not_give_says_why(monkeypatch):
    from apache_beam.io.filesystem import BeamIOError

    def open_file(path):
        raise BeamIOError("quota exceeded")

    monkeypatch.setattr(tag_beam, "open_file", open_file)
    shards = tag_beam._ShardTagger("export", "test://photos", "out", "{}", (), {}, 8, 1, shared=None)
    data, reason = shards._read("1.jpg")
    assert data == b"" and reason.startswith("quota exceeded")


@pytest.mark.long
def test_worker_processes_of_beam_give_the_same_rows(album, tiny_export, tmp_path):
    """Without options the DirectRunner starts a process a core, as on a cluster: each loads the export."""
    assert tag(album, tiny_export, tmp_path / "tags.jsonl") == 1
    assert tag(album, tiny_export, tmp_path / "tags", "--runner", "DirectRunner") == 1
    assert read_joined(tmp_path / "tags") == (tmp_path / "tags.jsonl").read_bytes()


def test_a_pipeline_that_failed_goes_on_and_images_added_or_removed_are_seen(
    quick, album, tiny_export, tmp_path, small_shards, monkeypatch
):
    out = tmp_path / "tags"
    tag_batches, calls = tag_beam.tag_batches, []

    def fail_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("the machine was taken away")
        return tag_batches(*arguments)

    monkeypatch.setattr(tag_beam, "tag_batches", fail_at_the_third)
    assert tag_by_beam(album, tiny_export, out) == 2
    assert len(list(out.glob("tags-*.jsonl"))) == 2 and not (out / "summary.json").exists()
    assert tag_by_beam(album, tiny_export, out) == 1
    assert len(calls) == 3 + 2
    (album / "a" / "b" / "zz.jpg").write_bytes(make_photograph(60))
    (album / "gone.jpg").unlink()
    (out / "tags-00009-abc.jsonl.7.partial").touch()  # of a worker that was killed
    assert tag_by_beam(album, tiny_export, out) == 1
    assert tag(album, tiny_export, tmp_path / "tags.jsonl") == 1
    assert read_joined(out) == (tmp_path / "tags.jsonl").read_bytes()
    assert len(list(out.glob("tags-*"))) == 4


def test_images_and_rows_in_an_object_store(quick, album, tiny_export, tmp_path, small_shards, monkeypatch):
    for name in ("gone.jpg", "new\nline.jpg", os.fsdecode(b"\xff.jpg")):  # Beam's own listing is of text
        (album / name).unlink()
    store = tmp_path / "store"
    monkeypatch.setattr(BucketFileSystem, "root", str(store))
    shutil.copytree(album, store / "album")
    assert tag(album, tiny_export, tmp_path / "tags.jsonl") == 1
    for _ in range(2):
        assert tag_by_beam("bucket://album", tiny_export, "bucket://rows/tags") == 1
        assert read_joined(store / "rows" / "tags") == (tmp_path / "tags.jsonl").read_bytes()


def test_rows_of_another_sort_are_not_gone_on_with(quick, album, tiny_export, tmp_path, capsys):
    out = tmp_path / "tags"
    assert tag_by_beam(album, tiny_export, out) == 1
    before = read_joined(out)
    capsys.readouterr()
    assert tag_by_beam(album, tiny_export, out, "--given", "car") == 2
    assert (
        "was begun with --given none, and now it is ['car']; choose another --out" in capsys.readouterr().err
    )
    assert read_joined(out) == before
    assert tag_by_beam(album, tiny_export, out, "--given", "car", "--overwrite") == 1
    assert read_joined(out) != before
    (out / "state.json").unlink()
    assert tag_by_beam(album, tiny_export, out) == 2
    assert "already, and no state.json says what made it" in capsys.readouterr().err


def test_mistakes_are_told_in_one_line(quick, album, tiny_export, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for folder, out, message in (
        (tmp_path / "empty", "tags", "empty: no images in it or below it"),
        (tmp_path / "nowhere", "tags", "failed on DirectRunner: FileNotFoundError: [Errno 2] No such file"),
        (album, tmp_path / "file", "is a file; --runner writes a folder of files"),
    ):
        assert tag_by_beam(folder, tiny_export, tmp_path / out) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
        shutil.rmtree(tmp_path / "tags", ignore_errors=True)
    assert tag_by_beam(album, tmp_path, tmp_path / "tags") == 2
    assert "export" in capsys.readouterr().err
    monkeypatch.setattr(tag_beam, "_write_summary", lambda *arguments: None)  # as if to a disk of its own
    with pytest.raises(
        UserError, match=r"holds no summary.json, though the pipeline ended well: workers must"
    ):
        tag_beam.tag_by_beam(
            str(tiny_export / "1"), str(album), str(tmp_path / "tags"), {}, options=IN_PROCESS
        )
