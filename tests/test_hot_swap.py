"""A new version appears while a reader loads in a loop, as a server would: no load ever fails.

The reader is a process of its own, without TensorFlow's Python: again and again it takes the highest version,
loads it through the C API, runs it, and writes a line.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import tensorflow as tf
from tiny_model import VOCABULARY, make_model, make_photograph

from cnnrnn_tf.config import DecodingConfig
from cnnrnn_tf.serving import export as export_module
from cnnrnn_tf.serving import fresh_process
from cnnrnn_tf.serving.fresh_process import read_signatures
from cnnrnn_tf.serving.signatures import Tagger

ROOT = Path(__file__).parents[1]
READER = """
import json, os, runpy, sys
from cnnrnn_tf.serving.versions import find_export
from tfrecords.errors import UserError

runner, folder, signatures = runpy.run_path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
image = bytes.fromhex(sys.argv[4])
api = runner["load_library"]()
while not os.path.exists(os.path.join(folder, "stop")):
    line = {}
    try:
        version = find_export(folder)
        line["version"] = int(version.name)
        with runner["Session"](api, version, signatures) as session:
            outputs = session.run_signature("serving_default", {"image_bytes": [image]})
        line["answer"] = repr(sorted((key, array.tolist()) for key, array in outputs.items()))
    except (RuntimeError, UserError) as error:
        line["failure"] = str(error)
    print(json.dumps(line), flush=True)
assert "tensorflow" not in sys.modules
"""


class Reader:
    """The process that loads in a loop, and what it has written."""

    def __init__(self, folder, signatures, image, log):
        self.log = log
        command = [sys.executable, "-P", "-c", READER, str(fresh_process.C_API), str(folder)]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*command, json.dumps(signatures), image.hex()],
                stdout=file,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def lines(self):
        return [
            json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line[-1] == "\n"
        ]

    def wait(self, holds, timeout_s=120):
        """Waits until `holds(lines)`."""
        end = time.monotonic() + timeout_s
        while not holds(self.lines()):
            assert self.process.poll() is None, "the reader ended"
            assert time.monotonic() < end, f"nothing within {timeout_s} s"
            time.sleep(0.01)

    def wait_for_version(self, version):
        self.wait(lambda lines: any(line.get("version", 0) >= version for line in lines))


@contextmanager
def reading(folder, image, tmp_path):
    """A reader of the versions in a folder, of which the first is there; all have its signatures."""
    reader = Reader(folder, read_signatures(folder / "1"), image, tmp_path / "reader.jsonl")
    try:
        reader.wait_for_version(1)
        yield reader
        (folder / "stop").touch()
        assert reader.process.wait(120) == 0
    finally:
        reader.process.kill()
        reader.process.wait()


class Model(tf.Module):
    """Large enough to take a while to write, small enough to load often."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal([1_000_000], [1, 2]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def measure(self, image_bytes):
        return {"y": tf.cast(tf.strings.length(image_bytes), tf.float32) * self.kernel[0]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = Model()
    tf.saved_model.save(model, str(folder), {"serving_default": model.measure})
    return folder


def publish(saved, folder):
    """What `export` does once it has written its files."""
    partial = folder / f".partial-{time.monotonic_ns()}"
    shutil.copytree(saved, partial)
    return export_module._publish(partial, folder)


def publish_in_place(saved, folder, wait_for_failure):
    """What it must not do; goes on once the reader has stumbled over each step."""
    version = folder / str(1 + max(int(path.name) for path in folder.iterdir()))
    version.mkdir()
    wait_for_failure("holds no saved_model.pb")
    shutil.copy(saved / "saved_model.pb", version)
    wait_for_failure("Could not find variable")
    shutil.copytree(saved / "variables", version / "variables")


def test_no_load_fails_while_versions_appear_and_old_ones_go(saved, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    publish(saved, folder)
    with reading(folder, b"four", tmp_path) as reader:
        for version in range(2, 22):
            assert publish(saved, folder).name == str(version)
            if version % 4 == 0:
                reader.wait_for_version(version)
                for old in range(version - 4, version):  # a server that holds the next is done with these
                    shutil.rmtree(folder / str(old), ignore_errors=True)
        reader.wait_for_version(21)
    lines = reader.lines()
    assert [line for line in lines if "failure" in line] == []
    assert len({line["answer"] for line in lines}) == 1
    versions = [line["version"] for line in lines]
    assert versions == sorted(versions) and len(set(versions)) > 5


def test_the_reader_does_see_versions_that_are_written_in_place(saved, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    publish(saved, folder)
    with reading(folder, b"four", tmp_path) as reader:

        def wait_for_failure(words):
            reader.wait(lambda lines: any(words in line.get("failure", "") for line in lines))

        publish_in_place(saved, folder, wait_for_failure)
        reader.wait_for_version(2)


@pytest.mark.long
def test_no_load_fails_while_a_model_is_exported_again_and_again(tmp_path, monkeypatch):
    model, decoding = make_model(), DecodingConfig(beam_size=4, max_length=3)
    tagger = Tagger(model, VOCABULARY, decoding)
    monkeypatch.setattr(export_module, "Tagger", lambda *_, **__: tagger)  # traced once
    folder = tmp_path / "export"
    export_module.export(model, VOCABULARY, decoding, folder)
    with reading(folder, make_photograph(1), tmp_path) as reader:
        version = 1
        while len(reader.lines()) < 20:
            version += 1
            assert export_module.export(model, VOCABULARY, decoding, folder).name == str(version)
        reader.wait_for_version(version)
    lines = reader.lines()
    assert [line for line in lines if "failure" in line] == []
    assert len({line["answer"] for line in lines}) == 1
    assert len({line["version"] for line in lines}) > 5
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(map(str, range(1, version + 1)))
