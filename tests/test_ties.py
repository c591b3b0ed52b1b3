"""Images at a tie are told from images that look at others: by batches of nothing but their own copies."""

import numpy as np
import pytest

from cnnrnn_tf.serving import comparison, ties

NUM_IMAGES = 4


def rounding(rows):
    """Image 2 has another ranking in batches of three and more, whatever is in them."""
    size = len(rows)
    return [400.0 if row == 2 and size >= 3 else float(row) for row in rows]


def leaking(rows):
    """Every row has the mean of its batch in it."""
    return [row + np.mean(rows) for row in rows]


def both(rows):
    return [one + other for one, other in zip(rounding(rows), leaking(rows), strict=True)]


def clean(rows):
    return [row * (1 + 1e-7 * len(rows)) for row in rows]


def run_all(function):
    """Answers of an export with one signature, as the check collects them; the image that is none is -1."""
    images = [float(row) for row in range(NUM_IMAGES)]

    def collect(batches):
        return {"ranking": [np.array([value]) for batch in batches for value in function(batch)]}

    mixed = function([*images, -1.0])
    return comparison.Answers(
        collect([images]),
        {"ranking": [np.array([value]) for value in mixed]},
        collect([[image] for image in images]),
    )


@pytest.mark.parametrize(
    ("function", "found", "is_faulty"),
    [(clean, set(), False), (rounding, {2}, False), (leaking, set(), True), (both, {2}, True)],
)
def test_a_tie_is_excused_and_a_row_that_reads_others_is_not(monkeypatch, function, found, is_faulty):
    asked = []

    def run_calls(runner, export_dir, calls, timeout_s):
        asked.extend(calls)
        return {
            "calls": [
                {"ranking": np.array(function(inputs["image_bytes"].tolist()))[:, np.newaxis]}
                for _, inputs in calls
            ]
        }

    monkeypatch.setattr(ties, "run_calls", run_calls)
    inputs = {"scores": {"image_bytes": np.arange(float(NUM_IMAGES))}}
    at_a_tie = ties.Ties("export", inputs, lambda a, b: comparison._is_equal(a, b, 1e-4), 60)
    answers = run_all(function)
    moving = comparison._find_moving_rows(answers, 1e-4)
    at_a_tie.look_for({"scores": moving})
    assert at_a_tie.rows == found
    differences = comparison.find_differences(answers.good, answers.alone, 1e-4, at_a_tie.rows)
    assert bool(differences) == is_faulty
    assert bool(asked) == bool(moving)  # nothing is run where nothing moved
    num_asked = len(asked)
    at_a_tie.look_for({"scores": moving})
    assert len(asked) == num_asked


def test_a_failure_among_copies_is_no_tie(monkeypatch):
    monkeypatch.setattr(ties, "run_calls", lambda *_, **__: {"calls": ["out of memory"] * 7})
    found = ties.Ties("export", {"scores": {"image_bytes": np.arange(1.0)}}, lambda a, b: a == b, 60)
    found.look_for({"scores": {0}})
    assert found.rows == set()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({2}, "paths for image 3, which differs"),
        ({0, 2}, "paths for 2 of 4 images, which"),
        ({0, 1, 2, 3}, "no image was: pass others with --images"),
    ],
)
def test_ties_are_told_in_a_note(rows, words):
    assert words in ties.describe_ties(rows, NUM_IMAGES)
