"""What a person reads first: the sentence above a table, its key, and what makes its numbers weak."""

import copy
import io

import pytest

from cnnrnn_tf.evaluation.protocols import protocol
from cnnrnn_tf.evaluation.report_tables import print_report
from cnnrnn_tf.evaluation.summary import summarise, warn

MEASURES = ("C-P", "C-R", "C-F1_harmonic", "C-F1_per_class", "O-P", "O-R", "O-F1", "exact_match")


def make_row(name, *fractions, length=2.0, **more):
    row = dict(zip(MEASURES, fractions, strict=True))
    return (
        {"name": name, "list_length": length, "k": None, "threshold": None, "labels_never_predicted": 0}
        | row
        | more
    )


FREE = {**vars(protocol("free", "ponds")), "words": protocol("free", "ponds").words}
METRICS = {
    "split": "test",
    "protocols": [FREE],
    "images": 40,
    "images_in_split": 41,
    "images_without_labels": 1,
    "labels": 5,
    "labels_per_image": 2.0,
    "labels_without_positive": 0,
    "unknown_cells": 7,
    "holdout_images": 30,
    "holdout_is_reported": False,
    "off_scale": None,
    "ranking": {f"recall@{k}": 0.5 for k in (1, 3, 5, 10, 20)}
    | {f"precision@{k}": 0.5 for k in (1, 3, 5, 10, 20)}
    | {"precision@score>=0.5": None, "MAP@10_truncated": 0.9, "mAP_raw": 0.8},
    "rows": [
        make_row("best path", 0.8, 0.8, 0.8, 0.8, 0.853, 0.824, 0.838, 0.738),
        make_row("exactly 3", 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.1, length=3.0),
        make_row("at most 3", 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.1, length=3.0),
    ],
    "references": [],
    "conventions": [
        {"marks": ["exactly 3", "at most 3"], "words": "How lists are cut."},
        {"marks": [], "words": "All that is counted."},
    ],
}


def show(verbose=False, **changes):
    file = io.StringIO()
    print_report({**copy.deepcopy(METRICS), **changes}, file, verbose)
    return file.getvalue()


def test_the_table_starts_with_a_sentence_that_anyone_understands():
    sentence = (
        "Of 100 labels it gives, 85 are right; it finds 82 of 100; 74 % of the sets are right as a whole "
        "(best path)."
    )
    assert summarise(METRICS) == sentence
    title, *lines = show().splitlines()
    assert title.startswith("test: 40 images, 5 labels, protocol free, in percent")
    assert " ".join("\n".join(lines).split()).startswith(sentence)


@pytest.mark.parametrize(
    ("fractions", "length", "words"),
    [
        (
            (0, 0, 0, 0, 0.01, 0.0, 0, 0.0),
            1.0,
            "Of 100 labels it gives, 1 is right; it finds 0 of 100; 0 % of",
        ),
        ((0, 0, 0, 0, 0.0, None, 0, 1.0), 1.0, "Of 100 labels it gives, 0 are right; 100 % of the sets are"),
        ((0, 0, 0, 0, 0.0, 0.0, 0, 0.0), 0.0, "It gives no image any label (best path)."),
    ],
)
def test_the_sentence_of_odd_measures(fractions, length, words):
    metrics = {**METRICS, "rows": [make_row("best path", *fractions, length=length)]}
    assert summarise(metrics).startswith(words)


def test_equal_rows_are_one():
    lines = show().splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("exactly 3"))
    assert "60.0" in lines[place] and lines[place + 1].strip() == "at most 3"


def test_there_are_no_columns_beyond_the_labels():
    header = next(line for line in show().splitlines() if line.startswith("ranked labels"))
    assert "top 1 " in header and "top 3" in header and "top 5" not in header and "top 20" not in header


def test_the_words_are_explained_and_the_conventions_are_for_who_asks():
    short, long = (" ".join(show(verbose).split()) for verbose in (False, True))
    for words in ("precision (of what is given", "MAP@10: how near", "ECE: how far", FREE["words"]):
        assert words in short
    assert "7 unknown labels left out of rankings" in short and "1 image is left out" in short
    assert "How lists are cut." not in short and "¹" not in short
    assert "How lists are cut." in long and "exactly 3¹" in long and "All that is counted." in long


@pytest.mark.parametrize(
    ("num_holdout", "num_images", "words"),
    [
        (30, 30, []),
        (None, 30, []),
        (1, 30, ["The hold-out has 1 image: the epoch, thresholds and calibration that so few choose"]),
        (29, 1, ["The hold-out has 29 images: ", "These are measures of 1 image: so few say little"]),
    ],
)
def test_few_images_are_warned_of(num_holdout, num_images, words):
    found = list(warn({**METRICS, "holdout_images": num_holdout, "images": num_images}))
    assert len(found) == len(words)
    assert all(line.startswith(start) for line, start in zip(found, words, strict=True))
    assert all(
        start in " ".join(show(holdout_images=num_holdout, images=num_images).split()) for start in words
    )
