"""What all baselines have in common: `Examples` checks its tables, and the catalogue makes every method."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from cnnrnn_tf.baselines.catalogue import METHODS, make_method
from cnnrnn_tf.baselines.method import Examples, Method
from tfrecords.errors import UserError

FEATURES = np.arange(6.0).reshape(3, 2)
LABELS = [[1, 0, 1], [0, 0, 1], [1, 1, 0]]
KNOWN = [[1, 1, 0], [1, 1, 1], [0, 1, 1]]


# ---- Examples


def test_examples_hold_their_tables_in_the_types_they_promise():
    examples = Examples(FEATURES, LABELS, np.array(KNOWN, bool))
    assert [array.dtype for array in (examples.features, examples.labels, examples.known)] == [
        np.float32,
        np.uint8,
        np.uint8,
    ]
    assert examples.num_labels == 3


def test_features_of_the_right_type_are_not_copied():
    features = FEATURES.astype(np.float32)
    assert Examples(features, LABELS, KNOWN).features is features


def test_targets_are_the_labels_known_to_hold():
    examples = Examples(FEATURES, LABELS, KNOWN)
    assert examples.targets.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert examples.targets.dtype == np.uint8


@pytest.mark.parametrize(
    ("labels", "known", "targets"),
    [
        ([[0, 0]], [[1, 1]], [[0, 0]]),  # an image without labels
        ([[1, 1]], [[1, 1]], [[1, 1]]),  # with all labels
        ([[1, 1]], [[0, 0]], [[0, 0]]),  # of which nothing is known
        ([[1]], [[1]], [[1]]),  # a vocabulary of one label
        ([[1, 0]], [[7, 2]], [[1, 0]]),  # whatever is not 0 is known
    ],
)
def test_targets_of_odd_images(labels, known, targets):
    assert Examples(np.zeros((1, 2)), labels, known).targets.tolist() == targets


def test_features_may_have_an_axis_of_hypotheses():
    assert Examples(np.zeros((3, 5, 2)), LABELS, KNOWN).features.shape == (3, 5, 2)


@pytest.mark.parametrize(
    ("features", "labels", "known", "message"),
    [
        (FEATURES, [1, 0, 1], [1, 1, 1], r"one table \[images, labels\], got \[3\], \[3\]"),
        (FEATURES, LABELS, KNOWN[:2], r"one table \[images, labels\], got \[3, 3\], \[2, 3\]"),
        (np.zeros((0, 2)), np.zeros((0, 3)), np.zeros((0, 3)), r"got \[0, 3\], \[0, 3\]"),
        (FEATURES, np.zeros((3, 0)), np.zeros((3, 0)), r"got \[3, 0\], \[3, 0\]"),
        (FEATURES[:2], LABELS, KNOWN, r"a row for each of the 3 rows of labels, got \[2, 2\]"),
        (np.zeros(3), LABELS, KNOWN, r"features must be \[images, features\].* got \[3\]"),
        (np.zeros((3, 1, 1, 2)), LABELS, KNOWN, r"features must be .* got \[3, 1, 1, 2\]"),
    ],
)
def test_tables_that_do_not_fit_each_other_are_refused(features, labels, known, message):
    with pytest.raises(UserError, match=message):
        Examples(features, labels, known)


def test_examples_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Examples(FEATURES, LABELS, KNOWN).labels = np.zeros((3, 3))


# ---- the catalogue


@pytest.mark.parametrize("name", METHODS)
def test_every_name_of_the_catalogue_makes_a_method(name):
    method = make_method(name)
    assert isinstance(method, Method)
    assert type(method).__name__ == METHODS[name].partition(":")[2]
    assert method.title
    for flag in (method.is_seeded, method.gives_probabilities, method.reads_hypotheses):
        assert isinstance(flag, bool)
    assert make_method(name) is not method


def test_no_two_methods_share_a_title():
    titles = [make_method(name).title for name in METHODS]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", METHODS)
def test_no_method_scores_before_it_has_learned(name):
    method = make_method(name)
    features = np.zeros((2, 3, 4) if method.reads_hypotheses else (2, 4), np.float32)
    with pytest.raises(UserError, match="fit"):
        method.score(features)


@pytest.mark.parametrize(
    ("wrong", "right"), [("sofmax", "softmax"), ("KNN", "knn"), ("logistics", "logistic"), ("wrap", "warp")]
)
def test_a_wrong_name_gets_the_nearest_right_one(wrong, right):
    with pytest.raises(UserError, match=rf"'{wrong}' \(did you mean '{right}'\?\): choose from softmax, "):
        make_method(wrong)


def test_a_name_like_no_other_gets_the_whole_list():
    with pytest.raises(UserError, match=r"no method is called 'qqq': choose from softmax, .*, max-pooling"):
        make_method("qqq")


def test_neither_tensorflow_nor_scikit_learn_is_imported_with_the_catalogue():
    code = (
        "import sys, cnnrnn_tf.baselines.catalogue as c; print(sorted({'tensorflow', 'keras', 'sklearn'} & "
    )
    code += "set(sys.modules)), len(c.METHODS))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == f"[] {len(METHODS)}\n"
