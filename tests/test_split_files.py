"""`--from train=a.csv,test=b.csv` and its like: which files are meant, and of which split."""

import pytest

from tfrecords.errors import UserError
from tfrecords.sources.split_files import parse_split_files


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.csv"], [(None, "a.csv")]),
        (["a.csv", "b.csv"], [(None, "a.csv"), (None, "b.csv")]),
        (["train=a.csv,test=b.csv"], [("train", "a.csv"), ("test", "b.csv")]),
        (["train=a.csv", "Valid=b.csv"], [("train", "a.csv"), ("validation", "b.csv")]),
        (["train=a.csv,train=b.csv"], [("train", "a.csv"), ("train", "b.csv")]),
        (["train=sea, sky.csv,val=x=1.csv"], [("train", "sea, sky.csv"), ("validation", "x=1.csv")]),
        (["sea, sky.csv"], [(None, "sea, sky.csv")]),
        (["in/a=1.csv"], [(None, "in/a=1.csv")]),
        (["gs://bucket/a.csv"], [(None, "gs://bucket/a.csv")]),
        (["train=gs://bucket/a.csv"], [("train", "gs://bucket/a.csv")]),
    ],
)
def test_files_and_their_splits_are_read_from_a_flag(words, expected):
    assert parse_split_files(words) == tuple(expected)


def test_a_path_that_exists_is_taken_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train=a.csv", "b,test=c.csv", "k=3.csv"):
        (tmp_path / name).touch()
    words = ["train=a.csv", "b,test=c.csv", "k=3.csv"]
    assert parse_split_files(words) == tuple((None, word) for word in words)
    assert parse_split_files(["train=train=a.csv"]) == (("train", "train=a.csv"),)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["tests=a.csv"],
            r"^--from tests=a.csv: no such file, and 'tests' is no split \(did you mean 'test'\?\): expected "
            r"train=, validation= or test= before the path",
        ),
        (["train="], r"^--from train=: names no file"),
        ([""], r"^--from '': names no file"),
        (["a.csv", "a.csv"], r"^--from a.csv: is given twice: leave one out"),
        (["train=a.csv,test=a.csv"], r"^--from a.csv: is given twice"),
        (
            ["train=a.csv", "b.csv"],
            r"^--from b.csv: say its split, such as train=b.csv, as that of the others",
        ),
    ],
)
def test_files_that_cannot_be_meant_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        parse_split_files(words)
