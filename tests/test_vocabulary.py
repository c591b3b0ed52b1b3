"""LabelVocabulary against hand-worked tables: order, ids, tokens, fingerprint, and every way to damage it."""

import json

import pytest

from tfrecords.errors import UserError, nearest
from tfrecords.vocabulary import LabelVocabulary

COUNTS = {"sea": 5, "sky": 9, "boat": 5, "ufo": 0, "Äpfel": 5}
RANKED = ("sky", "boat", "sea", "Äpfel", "ufo")


def test_ids_rank_labels_by_training_count_and_ties_by_name():
    vocabulary = LabelVocabulary.from_counts(COUNTS)
    assert vocabulary.names == RANKED
    assert vocabulary.counts == (9, 5, 5, 5, 0)


def test_the_order_does_not_depend_on_the_order_of_the_counts():
    reversed_counts = dict(reversed(COUNTS.items()))
    assert LabelVocabulary.from_counts(reversed_counts) == LabelVocabulary.from_counts(COUNTS)


def test_sorted_ids_are_the_frequent_first_path():
    vocabulary = LabelVocabulary.from_counts(COUNTS)
    assert vocabulary.ids(["ufo", "sea", "sky"]) == [0, 2, 4]
    assert vocabulary.ids([]) == []
    assert vocabulary.ids(reversed(RANKED)) == [0, 1, 2, 3, 4]
    assert vocabulary.id("boat") == 1


@pytest.mark.parametrize("names", [RANKED, RANKED[:1]], ids=["five labels", "one label"])
def test_end_and_start_follow_the_labels(names):
    vocabulary = LabelVocabulary(names, range(len(names), 0, -1))
    assert (vocabulary.size, len(vocabulary)) == (len(names), len(names))
    assert (vocabulary.end_token, vocabulary.start_token) == (len(names), len(names) + 1)


def test_an_unknown_label_is_told_with_the_nearest_right_one():
    vocabulary = LabelVocabulary.from_counts(COUNTS)
    with pytest.raises(
        UserError, match=r"unknown label 'boot' \(did you mean 'boat'\?\): expected one of sky"
    ):
        vocabulary.ids(["sea", "boot"])


def test_a_label_is_found_in_whatever_unicode_form_it_is_typed():
    vocabulary = LabelVocabulary.from_counts({"caf\u00e9": 2, "mer bleue": 1})
    assert vocabulary.ids(["cafe\u0301", " mer  bleue\u200b"]) == [0, 1]


def test_a_long_vocabulary_is_not_printed_whole():
    vocabulary = LabelVocabulary.from_counts({f"label{i:04d}": 1 for i in range(1000)})
    with pytest.raises(UserError, match=r"label0009 and 990 more$"):
        vocabulary.id("zebra")


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        ("SKY", "sea sky", "sky"),
        ("skie", "sea Sky", "Sky"),
        ("tset", "train test holdout", "test"),
        ("mobilnet_v2", "vgg16 mobilenet_v2 MobileNet", "mobilenet_v2"),
        ("vgg61", "VGG19 vgg16", "vgg16"),  # the same letters
        ("sofmax", "softmax softmax-hidden squared", "softmax"),
        ("cnnrnn", "cnn-rnn no-rnn", "cnn-rnn"),
        ("lstn", "lstm paper gru none", "lstm"),
        ("bicycle", "sea sky", None),
        ("beach", "sea sky", None),
        ("skie", "singer night", None),
        ("serving", "scores serving_default", "serving_default"),
        ("transformer", "lstm paper gru none", None),
        ("night", "light", "light"),
        ("sky", "", None),
        ("", "sea sky", None),
    ],
)
def test_the_nearest_name_is_told_only_where_it_is_near(name, candidates, expected):
    assert nearest(name, candidates.split()) == ("" if expected is None else f" (did you mean {expected!r}?)")


def test_a_saved_vocabulary_comes_back_equal(tmp_path):
    vocabulary = LabelVocabulary.from_counts(COUNTS)
    vocabulary.save(tmp_path / "vocabulary.json")
    for path in (tmp_path, tmp_path / "vocabulary.json"):
        loaded = LabelVocabulary.load(path)
        assert loaded == vocabulary
        assert loaded.fingerprint == vocabulary.fingerprint
    assert "Äpfel" in (tmp_path / "vocabulary.json").read_text(encoding="utf-8")


def test_the_fingerprint_is_sha256_of_canonical_json():
    # echo -n '{"counts":[2,1],"names":["a","b"]}' | sha256sum
    expected = "cc14630c1f08f9da6856bc8434c82acae02afcf163f831c1943ed72608376587"
    assert LabelVocabulary(("a", "b"), (2, 1)).fingerprint == expected


@pytest.mark.parametrize("other", [{"a": 2, "b": 2}, {"a": 2, "c": 1}, {"a": 2}, {"a": 2, "b": 1, "c": 0}])
def test_the_fingerprint_changes_with_names_and_with_counts(other):
    original = LabelVocabulary.from_counts({"a": 2, "b": 1})
    assert LabelVocabulary.from_counts(other).fingerprint != original.fingerprint


@pytest.mark.parametrize(
    ("names", "counts", "message"),
    [
        (("a", "b"), (1, 2), r"ordered by \(-training count, name\)"),
        (("b", "a"), (1, 1), r"ordered by \(-training count, name\)"),
        (("a", "a"), (1, 1), "the label 'a' occurs twice"),
        (("a", "b"), (1,), "2 names needs as many counts, got 1"),
    ],
)
def test_names_out_of_order_or_repeated_are_refused(names, counts, message):
    with pytest.raises(UserError, match=message):
        LabelVocabulary(names, counts)


def test_a_damaged_file_is_told_in_one_line(tmp_path):
    path = tmp_path / "vocabulary.json"
    with pytest.raises(UserError, match=r"vocabulary\.json: no vocabulary there"):
        LabelVocabulary.load(path)
    path.write_text("{")
    with pytest.raises(UserError, match=r"vocabulary\.json: not JSON"):
        LabelVocabulary.load(path)
    path.write_text('{"names": ["a"]}')
    with pytest.raises(UserError, match="expected the keys names, counts and fingerprint"):
        LabelVocabulary.load(path)
    edited = LabelVocabulary(("a", "b"), (2, 1)).to_json() | {"counts": [3, 1]}
    path.write_text(json.dumps(edited))
    with pytest.raises(UserError, match="the file was edited: build the data set again"):
        LabelVocabulary.load(path)
