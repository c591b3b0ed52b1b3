"""A build that is stopped, killed or interrupted: it ends at once, and goes on with the same bytes."""

import contextlib
import dataclasses
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawn_source import SMALL, DrawnSource, read_bytes, read_records
from PIL import Image

import tfrecords.build as build_module
from tfrecords.annotations import Annotation
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.writer import plan_shards

ROOT = Path(__file__).parents[1]
_BUILD = """
import sys
from tfrecords.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["build", "demo", "--data-dir", sys.argv[1], "--workers", "2", "--num-train", "20000"]))
"""


def test_two_presses_of_ctrl_c_end_a_build_of_several_processes_at_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_BUILD)
    data_dir = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, script, data_dir],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's `&` has it ignored
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        deadline = time.monotonic() + 60
        while not list(data_dir.rglob("*.result.json")) and time.monotonic() < deadline:
            time.sleep(0.1)
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.2)
        try:
            _, err = process.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, err
    assert "Traceback" not in err and err.rstrip().endswith("run the same command again to go on")
    assert [path.name for path in data_dir.iterdir()] == [".demo.building"]


class CountedSource(DrawnSource):
    """Notes which images are read, and stops at the one called `stop_at`."""

    def __init__(self, contents, stop_at=None):
        super().__init__(contents)
        self.stop_at, self.read = stop_at, []

    def read_image(self, annotation):
        self.read.append(annotation.image_id)
        if annotation.image_id == self.stop_at:
            raise KeyboardInterrupt
        return super().read_image(annotation)


@pytest.fixture
def files(tmp_path):
    """40 image files and what they show, split as in a data set of several shards."""
    folder = tmp_path / "files"
    folder.mkdir()
    contents = {"train": [], "test": []}
    for i in range(40):
        path = folder / f"{i}.png"
        Image.new("RGB", (8, 6), (i, i, i)).save(path)
        split = "test" if i % 4 == 0 else "train"
        contents[split].append(Annotation(f"{i}.png", str(path), ("sky", "sea") if i % 3 else ("sky",)))
    return contents


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(build_module, "plan_shards", functools.partial(plan_shards, images_per_shard=5))


@pytest.fixture
def stopped(files, small_shards, tmp_path):
    """The images that a build had read when it was stopped at the 23rd."""
    reader = CountedSource(files)
    build(reader, "whole", tmp_path, progress=False)
    stopped = CountedSource(files, stop_at=reader.read[22])
    with pytest.raises(KeyboardInterrupt, match="run the same command again to go on"):
        build(stopped, "small", tmp_path, progress=False)
    return reader.read


def test_a_stopped_build_goes_on_where_it_was_and_ends_with_the_same_bytes(stopped, files, tmp_path):
    again = CountedSource(files)
    build(again, "small", tmp_path, progress=False)
    assert again.read == stopped[20:]  # four shards of five were finished
    whole, small = (read_bytes(tmp_path / name) for name in ("whole", "small"))
    whole.pop("manifest.json"), small.pop("manifest.json")  # the name is in it, and so in its fingerprint
    assert whole == small


def test_a_stopped_build_reads_again_what_has_changed_since(stopped, files, tmp_path):
    changed = files["train"][0]
    Image.new("RGB", (9, 9)).save(changed.image_path)
    again = CountedSource(files)
    manifest = build(again, "small", tmp_path, progress=False)
    assert set(stopped[20:]) | {changed.image_id} <= set(again.read)
    assert len(again.read) == len(stopped[20:]) + (0 if changed.image_id in stopped[20:] else 5)
    record = read_records(manifest, tmp_path / "small", "train")[changed.image_id]
    assert record["image/width"] == 9


def test_a_stopped_build_trusts_no_shard_that_the_disk_has_lost_and_no_file_that_was_unreadable(
    files, small_shards, stopped, tmp_path
):
    hidden = tmp_path / ".small.building"
    first = sorted(hidden.glob("*.tfrecord"))[0]
    first.write_bytes(bytes(first.stat().st_size))  # zeros, as after a power failure
    again = CountedSource(files)
    build(again, "small", tmp_path, progress=False)
    assert len(again.read) == len(stopped[20:]) + 5
    whole, small = (read_bytes(tmp_path / name) for name in ("whole", "small"))
    assert whole[first.name] == small[first.name]


def test_an_image_that_could_not_be_read_is_tried_again_by_the_next_build(files, small_shards, tmp_path):
    class Locked(CountedSource):
        def read_image(self, annotation):
            if annotation.image_id == self.locked:
                raise PermissionError(13, "Permission denied", annotation.image_path)
            return super().read_image(annotation)

    order = CountedSource(files)
    build(order, "whole", tmp_path, progress=False)
    locked = Locked(files, stop_at=order.read[22])
    locked.locked = order.read[0]
    with pytest.raises(KeyboardInterrupt):
        build(locked, "small", tmp_path, progress=False)
    manifest = build(CountedSource(files), "small", tmp_path, progress=False)
    assert manifest.splits["train"].skipped == {}


def test_a_build_that_was_killed_while_it_replaced_a_data_set_is_mended(tmp_path):
    build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    before = read_bytes(tmp_path / "small")
    os.rename(tmp_path / "small", tmp_path / ".small.replaced")  # killed between the two renamings
    with pytest.raises(UserError, match="small exists: pass --overwrite"):
        build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    assert read_bytes(tmp_path / "small") == before
    shutil.copytree(tmp_path / "small", tmp_path / ".small.replaced")  # killed while it removed the old one
    build(DrawnSource(SMALL), "small", tmp_path, overwrite=True, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_the_workers_of_a_killed_build_end_with_it(tmp_path):
    command = [sys.executable, "-m", "tfrecords", "build", "demo", "--workers", "2", "--data-dir", tmp_path]
    with subprocess.Popen([*command, "--num-train", "20000"], stderr=subprocess.DEVNULL) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.partial")) and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = [int(word) for word in children.read_text().split()]
        process.kill()
    assert workers
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists() and not is_zombie(pid)]


def is_zombie(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_stopped_build_sees_an_image_exchanged_for_one_of_the_same_size_and_date(tmp_path, small_shards):
    folder = tmp_path / "files"
    folder.mkdir()
    annotations = []
    for i in range(12):
        Image.new("RGB", (8, 6), "red").save(folder / f"{i}.bmp")
        annotations.append(Annotation(f"{i}.bmp", str(folder / f"{i}.bmp"), ("sky", "sea")[: 1 + i % 2]))
    order = CountedSource({"train": annotations})
    build(order, "whole", tmp_path, progress=False)
    with pytest.raises(KeyboardInterrupt):
        build(CountedSource({"train": annotations}, order.read[-1]), "small", tmp_path, progress=False)
    first = folder / order.read[0]
    facts = first.stat()
    Image.new("RGB", (8, 6), "blue").save(first)
    os.utime(first, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (first.stat().st_size, first.stat().st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    manifest = build(CountedSource({"train": annotations}), "small", tmp_path, progress=False)
    record = read_records(manifest, tmp_path / "small", "train")[order.read[0]]
    assert record["image/encoded"] == first.read_bytes()


def test_half_shards_of_killed_builds_do_not_pile_up(stopped, files, tmp_path):
    half = tmp_path / ".small.building" / "train-00000-of-00006.tfrecord.123.partial"
    half.write_bytes(bytes(1000))
    order = CountedSource(files, stop_at=stopped[25])
    with pytest.raises(KeyboardInterrupt):
        build(order, "small", tmp_path, progress=False)
    assert not half.exists()


def test_a_stopped_build_with_other_labels_starts_anew(stopped, files, tmp_path):
    files["train"] = [dataclasses.replace(item, labels=("boat",)) for item in files["train"]]
    again = CountedSource(files)
    build(again, "small", tmp_path, progress=False)
    assert sorted(again.read) == sorted(stopped)


MODES = (
    ("--workers", "1"),
    ("--workers", "2"),
    ("--workers", "5"),
    ("--workers", "2", "--runner", "DirectRunner"),
)


def kill_and_finish(tmp_path, num_kills, seed, mode):
    """A build that is killed at random moments, finished at last; and one that is not."""
    rng = random.Random(seed)
    command = [sys.executable, "-m", "tfrecords", "build", "demo", "--num-train", "1200", "--num-test", "300"]
    for _ in range(num_kills):
        with subprocess.Popen(
            [*command, "--data-dir", tmp_path / "killed", *mode],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                process.wait(rng.uniform(0.5, 6))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        if (tmp_path / "killed" / "demo").exists():
            break
    for folder, words in (("killed", mode), ("unbroken", MODES[0])):
        if not (tmp_path / folder / "demo").exists():
            subprocess.run(
                [*command, "--data-dir", tmp_path / folder, *words],
                check=True,
                capture_output=True,
            )
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["demo"]
    return (read_bytes(tmp_path / folder / "demo") for folder in ("killed", "unbroken"))


def test_a_build_that_is_killed_and_run_again_ends_with_the_same_bytes(tmp_path):
    killed, unbroken = kill_and_finish(tmp_path, num_kills=2, seed=0, mode=MODES[2])
    assert killed == unbroken


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("mode", MODES, ids="_".join)
def test_a_build_that_is_killed_at_many_moments_ends_with_the_same_bytes(tmp_path, seed, mode):
    if "--runner" in mode:
        pytest.importorskip("apache_beam", reason="Apache Beam is not installed")
    killed, unbroken = kill_and_finish(tmp_path, num_kills=1, seed=seed, mode=mode)
    assert killed == unbroken
