"""`Predictions`: sets of paths against loops and hand-worked tables, unknown labels, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cnnrnn_tf.evaluation.predictions import Predictions
from tfrecords.errors import UserError

# Five images: an ordinary one, one without labels, one with all, one of which half is unknown, and one for
# which the search found no path. The four labels are 0 to 3, so END is 4.
FIELDS = {
    "image_ids": ["ordinary", "none", "all", "half", "silent"],
    "labels": [[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 0]],
    "known": [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1]],
    "paths": [[2, 0, 1, 4], [4, 4, 4, 4], [0, 1, 2, 3], [0, 3, 2, -1], [4, 4, 4, 4]],
    "path_lengths": [3, 0, 4, 3, 0],
    "path_log_probs": [-0.1, -0.2, -3.0, -1.0, -np.inf],
    "scores": np.linspace(-5, 1, 20).reshape(5, 4),
}


def make(**changes):
    return Predictions(**{**FIELDS, **changes})


def test_paths_become_sets_of_their_known_labels():
    np.testing.assert_array_equal(
        make().path_sets(), [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    )


@pytest.mark.parametrize(
    ("k", "ordinary", "all_labels", "half"),
    [
        (1, [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]),
        (2, [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]),
        (3, [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 1, 1]),
        (9, [1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 1]),
    ],
)
def test_the_first_k_are_taken_in_emitted_order_after_unknown_labels_have_left(k, ordinary, all_labels, half):
    np.testing.assert_array_equal(make().path_sets(k), [ordinary, [0] * 4, all_labels, half, [0] * 4])


def test_sets_equal_those_of_a_loop():
    rng = np.random.default_rng(3)
    num_images, num_labels, places = 200, 7, 5
    paths = np.array([rng.permutation(num_labels)[:places] for _ in range(num_images)])
    lengths = rng.integers(0, places + 1, num_images)
    known = rng.integers(0, 2, (num_images, num_labels))
    predictions = Predictions(
        image_ids=[str(i) for i in range(num_images)],
        labels=rng.integers(0, 2, (num_images, num_labels)),
        known=known,
        paths=paths,
        path_lengths=lengths,
        path_log_probs=np.zeros(num_images),
        scores=np.zeros((num_images, num_labels)),
    )
    for k in (None, 1, 2, 4):
        expected = np.zeros((num_images, num_labels))
        for image in range(num_images):
            emitted = [label for label in paths[image, : lengths[image]] if known[image, label]]
            expected[image, emitted[:k]] = 1
        np.testing.assert_array_equal(predictions.path_sets(k), expected)


def test_truth_leaves_out_what_is_unknown_and_marks_say_so():
    np.testing.assert_array_equal(make().truth[3], [False, False, True, False])
    np.testing.assert_array_equal(make().marks[3], [-1, -1, 1, 0])
    np.testing.assert_array_equal(make().marks[2], [1, 1, 1, 1])


def test_a_vocabulary_of_one_label_is_no_exception():
    found = Predictions(
        image_ids=["yes", "no", "who knows"],
        labels=[[1], [0], [1]],
        known=[[1], [1], [0]],
        paths=[[0], [1], [0]],
        path_lengths=[1, 0, 1],
        path_log_probs=[0, 0, 0],
        scores=[[0.9], [-3.0], [0.9]],
    )
    np.testing.assert_array_equal(found.path_sets(), [[1], [0], [0]])
    np.testing.assert_array_equal(found.path_sets(3), [[1], [0], [0]])


def test_arrays_have_the_declared_types():
    found = make(labels=np.array(FIELDS["labels"], bool), scores=np.array(FIELDS["scores"], np.float64))
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    assert {name: str(value.dtype) for name, value in values.items() if isinstance(value, np.ndarray)} == {
        "labels": "uint8",
        "known": "uint8",
        "paths": "int32",
        "path_lengths": "int32",
        "path_log_probs": "float32",
        "scores": "float32",
    }
    assert (len(found), found.num_labels) == (5, 4)


@pytest.mark.parametrize("images", [np.array([False, False, True, True, False]), np.array([2, 3])])
def test_some_images_are_taken_with_all_that_belongs_to_them(images):
    taken = make().take(images)
    assert taken.image_ids == ("all", "half")
    for name in ("labels", "known", "paths", "path_lengths", "path_log_probs"):
        np.testing.assert_array_equal(getattr(taken, name), np.asarray(FIELDS[name])[2:4])
    np.testing.assert_array_equal(taken.path_sets(), make().path_sets()[2:4])


def test_no_image_can_be_taken():
    assert make().take(np.zeros(5, bool)).path_sets().shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"known": [[1, 1, 1, 1]]}, r"known of .* 5 images must have shape \[5, 4\], got \[1, 4\]"),
        ({"labels": [1, 0, 0, 0, 0]}, r"labels of .* must have shape \[5, labels\], got \[5\]"),
        ({"scores": np.zeros((5, 3))}, r"scores of .* must have shape \[5, 4\], got \[5, 3\]"),
        ({"path_lengths": [1, 2]}, r"path_lengths .* shape \[5\], got \[2\]"),
        ({"path_log_probs": np.zeros((5, 1))}, r"path_log_probs .* shape \[5\], got \[5, 1\]"),
        ({"paths": [4] * 5}, r"paths .* shape \[5, places\], got \[5\]"),
        ({"labels": np.full((5, 4), 2)}, "labels of predictions must be 0 or 1 in every cell"),
        ({"labels": np.full((5, 4), -1)}, "must be 0 or 1 in every cell; unknown cells go into `known`"),
        ({"known": np.full((5, 4), 0.5)}, "known of predictions must be 0 or 1"),
        ({"path_lengths": [4, 0, 4, 3, 0]}, r"'ordinary' has a path with an id outside 0 to 3"),
        ({"path_lengths": [3, 0, 5, 3, 0]}, "image 'all' has a path length outside 0 to 4"),
        ({"path_lengths": [3, -1, 4, 3, 0]}, "image 'none' has a path length outside 0 to 4"),
        ({"paths": [[2, 0, 2, 4], *FIELDS["paths"][1:]]}, "'ordinary' has a path that holds a label twice"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        make(**changes)


def test_tables_without_a_label_are_refused():
    empty = {name: np.zeros((5, 0)) for name in ("labels", "known", "scores")}
    with pytest.raises(UserError, match="predictions need at least one label"):
        make(**empty, path_lengths=[0] * 5)


def test_k_below_one_is_refused():
    with pytest.raises(UserError, match="must be at least 1, got 0"):
        make().path_sets(0)


# ---- predictions without paths

SCORED = {name: FIELDS[name] for name in ("image_ids", "labels", "known", "scores")}


def test_predictions_of_scores_alone_have_truth_and_scores_and_no_paths():
    found = Predictions.from_scores(**SCORED, ranking_rule="cosines")
    assert (found.has_paths, found.ranking_rule, len(found), found.num_labels) == (False, "cosines", 5, 4)
    assert make().has_paths
    np.testing.assert_array_equal(found.marks, make().marks)
    np.testing.assert_array_equal(found.scores, make().scores)


def test_some_images_of_scores_alone_are_taken_with_the_rule():
    taken = Predictions.from_scores(**SCORED, ranking_rule="cosines").take(np.array([2, 3]))
    assert (taken.image_ids, taken.has_paths, taken.ranking_rule) == (("all", "half"), False, "cosines")
    np.testing.assert_array_equal(taken.scores, make().scores[2:4])


def test_scores_alone_have_no_sets_of_paths():
    with pytest.raises(UserError, match="have scores and no paths, so there are no sets of paths"):
        Predictions.from_scores(**SCORED).path_sets()


def test_paths_come_whole_or_not_at_all():
    with pytest.raises(UserError, match=r"but path_lengths and path_log_probs is None: use .*from_scores"):
        make(path_lengths=None, path_log_probs=None)


def test_scores_alone_are_checked_like_any_table():
    with pytest.raises(UserError, match=r"scores of .* must have shape \[5, 4\], got \[5, 3\]"):
        Predictions.from_scores(**{**SCORED, "scores": np.zeros((5, 3))})
