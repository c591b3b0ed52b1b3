"""manifest.json: free of clocks and machines, guarded by its fingerprint, and clear when it is not there."""

import hashlib
import json

import pytest
from drawn_source import SMALL, DrawnSource
from PIL import Image

from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.sources.table import TableSource
from tfrecords.vocabulary import LabelVocabulary


def test_the_manifest_has_no_path_of_this_machine_and_no_time(tmp_path):
    (tmp_path / "labels.csv").write_text("image,labels\na.jpg,sea;sky\nb.jpg,sea\n")
    for name in "ab":
        Image.new("RGB", (8, 6)).save(tmp_path / f"{name}.jpg")
    build(TableSource(tmp_path / "labels.csv"), "mine", tmp_path / "data", progress=False)
    text = (tmp_path / "data" / "mine" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["source_arguments"] == {"from": "labels.csv"}


def test_the_fingerprint_of_the_manifest_covers_everything_else(tmp_path):
    manifest = build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    path = tmp_path / "small" / "manifest.json"
    content = json.loads(path.read_text())
    rest = {key: value for key, value in content.items() if key != "fingerprint"}
    canonical = json.dumps(rest, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert content["fingerprint"] == manifest.fingerprint == hashlib.sha256(canonical.encode()).hexdigest()
    content["splits"]["train"]["num_images"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was edited after the build"):
        Manifest.load(tmp_path / "small")


def test_a_vocabulary_of_other_records_is_refused(tmp_path):
    manifest = build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    assert manifest.load_vocabulary(tmp_path / "small").size == 5
    LabelVocabulary.from_counts({"a": 2, "b": 1}).save(tmp_path / "small" / "vocabulary.json")
    with pytest.raises(UserError, match="not the vocabulary that the records were built with"):
        manifest.load_vocabulary(tmp_path / "small")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "format version None, expected 2"),
        ('{"format_version": 1}', "format version 1, expected 2; build the data set again"),
        ('{"format_version": 2}', "not a manifest"),
    ],
)
def test_a_damaged_manifest_is_told_in_one_line(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=message):
        Manifest.load(tmp_path)


def test_a_data_set_that_is_not_built_is_told_with_the_command_that_builds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the checkout may have its own data/demo
    with pytest.raises(
        UserError,
        match=r"^the data set 'demo' is not built in .*/data: run `python -m tfrecords build demo`$",
    ):
        Manifest.load("data/demo")
    build(DrawnSource(SMALL), "scenes", tmp_path, progress=False)
    with pytest.raises(
        UserError, match=r"'sceens' is not built in /.* \(did you mean 'scenes'\?\): run `python -m tfr"
    ):
        Manifest.load(tmp_path / "sceens")


def test_an_unknown_split_is_told_with_those_there_are(tmp_path):
    manifest = build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    with pytest.raises(
        UserError, match=r"no split 'tests' \(did you mean 'test'\?\): expected train or test"
    ):
        manifest.split("tests")
