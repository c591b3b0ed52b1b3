"""How predict, tag and client are steered: what --given means, and which options go together."""

import pytest

from cnnrnn_tf.commands.search_options import SearchOptions, split_given
from cnnrnn_tf.commands.tagging import _find_unlikely
from cnnrnn_tf.serving.tagged_image import TaggedImage, check_options, rank_row
from tfrecords.errors import UserError

NAMES = ["sky", "sea, ocean", "trees, woods, forest", "café", "a  b", "boat"]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([], []),
        (["", " , "], []),
        (["sky"], ["sky"]),
        (["boat,sky", "sky"], ["boat", "sky"]),
        (["sea, ocean"], ["sea, ocean"]),
        (["sea, ocean", "sky"], ["sea, ocean", "sky"]),
        ([" sky , sea, ocean , boat"], ["sky", "sea, ocean", "boat"]),
        (["trees, woods, forest,sky"], ["trees, woods, forest", "sky"]),
        (["cafe\u0301"], ["café"]),
        (["a b"], ["a  b"]),
    ],
)
def test_a_value_that_is_a_label_is_that_label_and_else_commas_divide(values, labels):
    assert split_given(values, NAMES) == labels


def test_where_labels_are_not_known_every_comma_divides():
    assert split_given(["sea, ocean", "sky"]) == ["sea", "ocean", "sky"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["skie"], r"unknown label 'skie' \(did you mean 'sky'\?\): expected one of sky, sea, ocean"),
        (["sea,oceans"], r"unknown label 'sea,oceans' \(did you mean 'sea, ocean'\?\)"),
        (["sky,bota"], r"unknown label 'bota' \(did you mean 'boat'\?\)"),
    ],
)
def test_an_unknown_label_is_told_with_the_nearest(values, message):
    with pytest.raises(UserError, match=message):
        split_given(values, NAMES)


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"beam_size": 3}, ["sky"], "given labels and beam_size: no signature takes both"),
        ({"top_k": 2}, ["sky"], "given labels and top_k"),
        ({"top_k": 0}, [], "top_k 0: expected 1 or more"),
        ({"top_k": 2, "max_length": 3}, [], "top_k, max_length: the most probable labels are no path"),
        ({"threshold": 1.5}, [], "threshold 1.5: expected 0 to 1"),
        ({"beam_size": 2**31}, [], "beam_size 2147483648: no export takes such a number"),
    ],
)
def test_options_that_no_model_answers_are_refused_before_one_is_loaded(options, given, message):
    with pytest.raises(UserError, match=message):
        check_options(options, given)


def test_options_that_go_together():
    for options in ({}, {"top_k": 2, "threshold": 0.5}, {"beam_size": 1, "max_length": 2}):
        check_options(options)
        assert SearchOptions(**options).search_options == options
    check_options({}, ["sky"])


def test_the_most_probable_labels_come_in_the_order_of_the_ranking():
    labels, scores, ranking = ("a", "b", "c", "d"), (0.0, 0.5, 0.9, 0.0), (-0.25, 0.5, 0.9, -0.5)
    assert rank_row(labels, scores, ranking, {"top_k": 3}).labels == ("c", "b", "a")
    assert rank_row(labels, scores, ranking, {"top_k": 9}).probabilities == (0.9, 0.5, 0.0, 0.0)
    assert rank_row(labels, scores, ranking, {"top_k": 3, "threshold": 0.6}).labels == ("c",)


@pytest.mark.parametrize(
    ("steps", "given", "name"),
    [
        ((0.9, 0.5), ["boat"], None),
        ((0.9, 0.009), ["boat"], "boat"),
        ((0.009, 0.9), ["boat"], "boat"),  # the sky, which the boat needs, is what was unlikely
        ((0.009, 0.9), ["sky"], "sky"),
        ((0.9, 0.009), ["sky"], None),
        ((0.009, 0.009), [], None),
    ],
)
def test_a_given_label_is_unlikely_where_a_step_to_it_is(steps, given, name):
    image = TaggedImage(("sky", "boat"), (1.0, 1.0), steps, 0.01)
    assert _find_unlikely(image, given) == name
