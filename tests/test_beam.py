"""A build as an Apache Beam pipeline: the records and the manifest of a local build, byte for byte."""

import io
import os
import sys

import pytest
from drawn_source import SMALL, DrawnSource, draw, read_bytes
from PIL import Image

from tfrecords.__main__ import main
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.sources.table import TableSource

pytest.importorskip("apache_beam", reason="Apache Beam is not installed: pip install apache-beam")

from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem

import tfrecords.beam as beam_module
from tfrecords.beam import BeamWriter

IN_PROCESS = "--direct_running_mode=in_memory"


@pytest.fixture
def table(tmp_path):
    """1,300 rows, of which some images are missing, cut off or no images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = ["image,labels,split"]
    for i in range(1300):
        if i % 97 != 5:
            Image.new("RGB", (8, 6), (i % 256, 0, 0)).save(folder / f"{i}.jpg")
        if i % 97 == 6:
            os.truncate(folder / f"{i}.jpg", 300)
        labels = ";".join(name for name, every in (("sky", 2), ("sea", 3), ("ship", 11)) if i % every == 0)
        rows.append(f"{i}.jpg,{labels},{'test' if i % 5 == 0 else 'train'}")
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_two_worker_processes_of_beam_give_the_bytes_of_a_local_build_and_leave_nothing_else(table, capfd):
    words = [
        "build",
        "table",
        "--from",
        str(table),
        "--images",
        str(table.parent / "photos"),
        "--name",
        "mine",
    ]
    assert main([*words, "--data-dir", str(table.parent / "local")]) == 0
    beam = ["--data-dir", str(table.parent / "beam"), "--runner", "DirectRunner", "--workers", "2"]
    assert main([*words, *beam]) == 0
    local, beam = (read_bytes(table.parent / folder / "mine") for folder in ("local", "beam"))
    assert len(local) == 3 + 1 + 3  # of train, of test, and the files beside them
    assert local == beam
    assert b"missing_image" in local["skipped.csv"] and b"truncated_image" in local["skipped.csv"]
    assert [path.name for path in (table.parent / "beam").iterdir()] == ["mine"]
    assert "Traceback" not in capfd.readouterr().err


class CountedSource(DrawnSource):
    """Notes in a file which images are read: Beam's workers have copies of the source."""

    def __init__(self, contents, log):
        super().__init__(contents)
        self.log = str(log)

    def read_image(self, annotation):
        with open(self.log, "a") as file:
            file.write(f"{annotation.image_id}\n")
        return super().read_image(annotation)


def test_a_pipeline_that_failed_goes_on_where_it_was(tmp_path, monkeypatch):
    contents = {"train": [draw(f"{i}.jpg", "sky", *["sea"] * (i % 2)) for i in range(1200)]}
    source, log = CountedSource(contents, tmp_path / "log"), tmp_path / "log"
    writer = BeamWriter("DirectRunner", IN_PROCESS)
    build(DrawnSource(contents), "whole", tmp_path, progress=False)
    write_shards, calls = beam_module.write_shards, []

    def fail_at_the_last(workers, tasks, **options):
        calls.append(tasks)
        if len(calls) == 3:
            raise RuntimeError("the machine was taken away")
        return write_shards(workers, tasks, **options)

    monkeypatch.setattr(beam_module, "write_shards", fail_at_the_last)
    with pytest.raises(
        UserError, match=r"failed on DirectRunner: .*the machine was taken away.*; what is finished waits in"
    ):
        build(source, "mine", tmp_path, write=writer, progress=False)
    assert len(log.read_text().splitlines()) == 800
    build(source, "mine", tmp_path, write=writer, progress=False)
    assert len(log.read_text().splitlines()) == 1200
    mine, whole = (read_bytes(tmp_path / name) for name in ("mine", "whole"))
    assert {name: data for name, data in mine.items() if name != "manifest.json"} == {
        name: data for name, data in whole.items() if name != "manifest.json"
    }


def test_shards_of_a_local_build_that_was_stopped_are_not_written_again(tmp_path):
    class Stopped(CountedSource):
        def read_image(self, annotation):
            if len(seen) == 600:
                raise KeyboardInterrupt
            seen.append(annotation.image_id)
            return super().read_image(annotation)

    contents, seen = {"train": [draw(f"{i}.jpg", "sky", *["sea"] * (i % 2)) for i in range(1000)]}, []
    with pytest.raises(KeyboardInterrupt):
        build(Stopped(contents, tmp_path / "first"), "mine", tmp_path, workers=1, progress=False)
    counted = []

    def write(tasks, on_images):
        return BeamWriter("DirectRunner", IN_PROCESS)(tasks, counted.append)

    source = CountedSource(contents, tmp_path / "second")
    build(source, "mine", tmp_path, write=write, progress=False)
    assert len((tmp_path / "second").read_text().splitlines()) == 500
    assert counted == [500, 500]


# ---- object stores


class BucketFileSystem(FileSystem):
    """`bucket://name` is the folder of that name: an object store, as far as a build sees one."""

    root = None

    @classmethod
    def scheme(cls):
        return "bucket"

    def place(self, path):
        return os.path.join(self.root, path.removeprefix("bucket://"))

    def join(self, basepath, *paths):
        return "/".join((basepath.rstrip("/"), *paths))

    def split(self, path):
        return path.rsplit("/", 1)

    def has_dirs(self):
        return False

    def mkdirs(self, path):
        raise OSError("an object store has no folders")

    def _list(self, dir_or_prefix):
        place = self.place(dir_or_prefix)
        for folder, _, names in os.walk(place if os.path.isdir(place) else os.path.dirname(place)):
            for name in names:
                path = os.path.join(folder, name)
                yield FileMetadata("bucket://" + os.path.relpath(path, self.root), os.path.getsize(path))

    def create(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        os.makedirs(os.path.dirname(self.place(path)), exist_ok=True)
        return open(self.place(path), "wb")

    def open(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        with open(self.place(path), "rb") as file:
            return io.BytesIO(file.read())

    def copy(self, source_file_names, destination_file_names):
        raise NotImplementedError

    def rename(self, source_file_names, destination_file_names):
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            os.replace(self.place(source), self.place(destination))

    def exists(self, path):
        return os.path.isfile(self.place(path))

    def size(self, path):
        return os.path.getsize(self.place(path))

    def last_updated(self, path):
        return os.path.getmtime(self.place(path))

    def checksum(self, path):
        return str(self.size(path))

    def metadata(self, path):
        return FileMetadata(path, self.size(path))

    def delete(self, paths):
        for path in paths:
            for item in list(self._list(path)) if not self.exists(path) else [FileMetadata(path, 0)]:
                os.remove(self.place(item.path))


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder that stands for the object store."""
    folder = tmp_path / "store"
    folder.mkdir()
    monkeypatch.setattr(BucketFileSystem, "root", str(folder))
    return folder


def test_images_and_staging_in_an_object_store_give_the_same_bytes(table, bucket):
    os.rename(table.parent / "photos", bucket / "photos")
    source = TableSource(table, "bucket://photos")
    writer = BeamWriter("DirectRunner", IN_PROCESS, staging="bucket://staging/here")
    build(source, "mine", table.parent / "beam", write=writer, progress=False)
    build(TableSource(table, bucket / "photos"), "mine", table.parent / "local", progress=False)
    beam, local = (read_bytes(table.parent / folder / "mine") for folder in ("beam", "local"))
    assert beam.pop("skipped.csv") == local.pop("skipped.csv").replace(
        str(bucket).encode() + b"/", b"bucket://"
    )
    assert beam == local
    assert [path for path in (bucket / "staging").rglob("*") if path.is_file()] == []


def test_images_in_an_object_store_are_read_by_a_local_build_too(table, bucket):
    os.rename(table.parent / "photos", bucket / "photos")
    source = TableSource(table, "bucket://photos")
    manifest = build(source, "mine", table.parent / "data", workers=1, progress=False)
    assert manifest.splits["train"].skipped == {"missing_image": 11, "truncated_image": 11}


def test_an_image_that_was_missing_in_an_object_store_is_looked_for_again(table, bucket):
    os.rename(table.parent / "photos", bucket / "photos")
    source, folder = TableSource(table, "bucket://photos"), table.parent / "data"
    writer = BeamWriter("DirectRunner", IN_PROCESS, staging="bucket://staging")
    for write in (None, writer):
        with pytest.raises(UserError, match="14 missing_image"):
            build(source, "mine", folder, workers=1, strict=True, write=write, progress=False)
    for i in range(5, 1300, 97):
        if not (bucket / "photos" / f"{i}.jpg").exists():
            Image.new("RGB", (8, 6), (i % 256, 0, 0)).save(bucket / "photos" / f"{i}.jpg")
    manifest = build(source, "mine", folder, write=writer, progress=False)
    assert {reason for split in manifest.splits.values() for reason in split.skipped} == {"truncated_image"}


class Locked(DrawnSource):
    """Has no permission to read one image while the file `lock` is there."""

    def __init__(self, contents, lock):
        super().__init__(contents)
        self.lock = lock

    def read_image(self, annotation):
        if self.lock.exists() and annotation.image_id == "a.jpg":
            raise PermissionError(13, "Permission denied", "a.jpg")
        return super().read_image(annotation)


@pytest.mark.parametrize("suffix", ["", ".result.json"])
def test_a_collection_that_broke_off_is_made_up_for(tmp_path, bucket, monkeypatch, suffix):
    """The shard, or its result, has gone from the staging folder, and an image cannot be read at first."""

    def break_off(path):
        delete(path)
        if path.endswith(f".tfrecord{suffix}"):
            raise OSError(5, "the network is down", path)

    lock = tmp_path / "lock"
    lock.touch()
    delete = beam_module.delete
    writer = BeamWriter("DirectRunner", IN_PROCESS, staging="bucket://staging")
    monkeypatch.setattr(beam_module, "delete", break_off)
    with pytest.raises(UserError, match="the network is down"):
        build(Locked(SMALL, lock), "small", tmp_path, write=writer, progress=False)
    monkeypatch.setattr(beam_module, "delete", delete)
    lock.unlink()
    manifest = build(Locked(SMALL, lock), "small", tmp_path, write=writer, progress=False)
    assert manifest.splits["train"].skipped == {"no_consent": 1}


def test_a_staged_shard_that_is_not_what_was_written_is_refused(tmp_path, bucket, monkeypatch):
    def flip(path, chunks):
        data = bytearray(b"".join(chunks))
        if path.endswith(".tfrecord"):
            data[len(data) // 2] ^= 1
        write_whole(path, [bytes(data)])

    write_whole = beam_module.write_whole
    monkeypatch.setattr(beam_module, "write_whole", flip)
    writer = BeamWriter("DirectRunner", IN_PROCESS, staging="bucket://staging")
    with pytest.raises(UserError, match=r"train-.*: is not what the worker wrote: remove bucket://"):
        build(DrawnSource(SMALL), "small", tmp_path, write=writer, progress=False)


# ---- mistakes


@pytest.mark.parametrize(
    ("writer", "message"),
    [
        (BeamWriter("DirektRunner"), "failed on DirektRunner: Unexpected pipeline runner"),
        (
            BeamWriter("DirectRunner", "--direct_num_workers=many"),
            r"^--beam-options .*invalid int value: 'many'\)",
        ),
        (
            BeamWriter("DirectRunner", IN_PROCESS, staging="nowhere://x"),
            "nowhere://x/small.building-.*/train.*: Unable to get filesystem",
        ),
    ],
)
def test_what_beam_refuses_is_told_in_one_line_and_nothing_is_left(tmp_path, writer, message, capsys):
    with pytest.raises(UserError, match=message):
        build(DrawnSource(SMALL), "small", tmp_path, write=writer, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_workers_that_do_not_reach_the_staging_folder_are_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(beam_module, "_write_staged", print)  # as if they had written to disks of their own
    with pytest.raises(UserError, match=r"is not there, though the pipeline ended well: give .* --staging"):
        build(
            DrawnSource(SMALL),
            "small",
            tmp_path,
            write=BeamWriter("DirectRunner", IN_PROCESS),
            progress=False,
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("build demo --staging x", "--staging is for a build by Apache Beam: name its --runner, too"),
        ("build demo --beam-options=--x=1", "--beam-options is for a build by Apache Beam"),
        (
            "build demo --data-dir gs://bucket/data",
            "--data-dir gs:/bucket/data: a data set is built on a disk",
        ),
    ],
)
def test_flags_of_beam_alone_are_refused_whatever_is_built_already(
    line, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "demo").mkdir(parents=True)
    assert main(line.split()) == 2
    assert message in capsys.readouterr().err


def test_a_missing_beam_is_told_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"Apache Beam is needed .*pip install apache-beam"):
        build(DrawnSource(SMALL), "small", tmp_path, write=BeamWriter("DirectRunner"), progress=False)


class Deadly(DrawnSource):
    """Ends the process that reads one of its images, as a decoder that crashes does."""

    def read_image(self, annotation):
        if annotation.image_id == "a.jpg":
            os.abort()
        return super().read_image(annotation)


def test_an_image_that_kills_its_process_costs_itself_here_and_on_beam(tmp_path):
    writers = {"beam": BeamWriter("DirectRunner", IN_PROCESS), "here": None}
    for folder, writer in writers.items():
        manifest = build(
            Deadly(SMALL), "small", tmp_path / folder, isolate=True, write=writer, progress=False
        )
        assert manifest.splits["train"].skipped["crashing_image"] == 1
    beam, here = (read_bytes(tmp_path / folder / "small") for folder in writers)
    assert beam == here and b"a.jpg,crashing_image," in here["skipped.csv"]
