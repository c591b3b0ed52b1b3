"""Label sets become paths and come back: hand-worked tables, and a loop in plain Python as the oracle."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn_tf.data.sequences import (
    LABEL_ORDERS,
    check_num_steps,
    decode_path,
    encode_paths,
    longest_path,
    order_ranks,
    path_weights,
    shuffle_ranks,
)
from tfrecords.errors import UserError


def encode_one_by_one(labels, num_steps, ranks):
    """The same paths, image by image."""
    num_labels = labels.shape[1]
    tokens, targets = [], []
    for row in labels:
        path = sorted(np.flatnonzero(row), key=lambda label: ranks[label])
        padding = [num_labels] * (num_steps - 1 - len(path))
        tokens.append([num_labels + 1, *path, *padding])
        targets.append([*path, num_labels, *padding])
    return np.array(tokens), np.array(targets)


def all_sets(num_labels):
    return np.array(list(itertools.product([0, 1], repeat=num_labels)), np.uint8)


@pytest.mark.parametrize(
    "order, tokens, targets",
    [
        # 4 labels: END is 4, START 5. The sets are {1, 3}, none, all.
        (
            "frequent",
            [[5, 1, 3, 4, 4], [5, 4, 4, 4, 4], [5, 0, 1, 2, 3]],
            [[1, 3, 4, 4, 4], [4, 4, 4, 4, 4], [0, 1, 2, 3, 4]],
        ),
        (
            "rare",
            [[5, 3, 1, 4, 4], [5, 4, 4, 4, 4], [5, 3, 2, 1, 0]],
            [[3, 1, 4, 4, 4], [4, 4, 4, 4, 4], [3, 2, 1, 0, 4]],
        ),
    ],
)
def test_paths_as_written_by_hand(order, tokens, targets):
    labels = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], np.uint8)
    found_tokens, found_targets = encode_paths(labels, 5, order_ranks(order, 4))
    assert found_tokens.numpy().tolist() == tokens
    assert found_targets.numpy().tolist() == targets
    assert (found_tokens.dtype, found_targets.dtype) == (tf.int32, tf.int32)
    assert path_weights(found_targets, 4).numpy().tolist() == [
        [1, 1, 1, 0, 0],
        [1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize("num_labels", [1, 2, 5])
@pytest.mark.parametrize("order", LABEL_ORDERS)
@pytest.mark.parametrize("spare_steps", [0, 3])
def test_every_set_of_a_vocabulary_goes_there_and_back(num_labels, order, spare_steps):
    labels, num_steps = all_sets(num_labels), num_labels + 1 + spare_steps
    ranks = order_ranks(order, num_labels, seed=7)
    ranks = shuffle_ranks(num_labels, [7, 1]).numpy() if ranks is None else ranks
    assert sorted(ranks) == list(range(num_labels))
    tokens, targets = encode_paths(tf.constant(labels > 0), num_steps, ranks)
    expected_tokens, expected_targets = encode_one_by_one(labels, num_steps, ranks)
    np.testing.assert_array_equal(tokens, expected_tokens)
    np.testing.assert_array_equal(targets, expected_targets)
    for paths in (tokens, targets):
        found = decode_path(paths.numpy(), num_labels)
        assert [sorted(path) for path in found] == [np.flatnonzero(row).tolist() for row in labels]
    # One step a label and one for END count.
    np.testing.assert_array_equal(
        path_weights(targets, num_labels).numpy().sum(axis=1), labels.sum(axis=1) + 1
    )


def test_steps_for_the_largest_set_are_enough_in_a_large_vocabulary():
    rng = np.random.default_rng(0)
    labels = (rng.random([64, 1000]) < 0.01).astype(np.uint8)
    num_steps, ranks = longest_path(labels) + 1, order_ranks("random", 1000, seed=3)
    tokens, targets = tf.function(encode_paths)(labels, num_steps, ranks)
    np.testing.assert_array_equal(tokens, encode_one_by_one(labels, num_steps, ranks)[0])
    np.testing.assert_array_equal(targets, encode_one_by_one(labels, num_steps, ranks)[1])


def test_the_random_order_is_one_and_the_same_for_a_seed():
    first = order_ranks("random", 81, seed=1)
    assert first.dtype == np.int32 and sorted(first) == list(range(81))
    np.testing.assert_array_equal(first, order_ranks("random", 81, seed=1))
    assert (first != order_ranks("random", 81, seed=2)).any()
    # A run from before must find its order again: these are written down.
    assert order_ranks("random", 6, seed=0).tolist() == [0, 2, 1, 5, 4, 3]


def test_shuffled_orders_differ_by_seed_and_only_by_it():
    draws = [tuple(shuffle_ranks(20, [0, step]).numpy()) for step in range(10)]
    assert len(set(draws)) == 10
    assert draws == [
        tuple(tf.function(shuffle_ranks)(20, tf.constant([0, step])).numpy()) for step in range(10)
    ]


def test_every_place_is_equally_likely_for_a_label_that_is_shuffled():
    draw = tf.function(lambda steps: tf.map_fn(lambda step: shuffle_ranks(4, [3, step]), steps))
    draws = draw(tf.range(2000)).numpy()
    shares = [[(draws[:, label] == place).mean() for place in range(4)] for label in range(4)]
    np.testing.assert_allclose(shares, 0.25, atol=0.05)  # five standard deviations


def test_an_empty_batch_gives_no_paths():
    tokens, targets = encode_paths(np.zeros([0, 3], np.uint8), 4, order_ranks("frequent", 3))
    assert tokens.shape == targets.shape == (0, 4)


def test_a_set_too_large_for_the_steps_is_refused():
    labels = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], np.uint8)
    check_num_steps(labels, 4)
    with pytest.raises(UserError, match="3 labels, which with END takes num_steps = 4"):
        check_num_steps(labels, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="longer than the path"):
        encode_paths(labels, 3, order_ranks("frequent", 4))
    with pytest.raises(tf.errors.InvalidArgumentError, match="longer than the path"):
        tf.function(encode_paths)(tf.constant(labels), 3, order_ranks("frequent", 4))


def test_no_images_have_no_longest_path():
    assert longest_path(np.zeros([0, 5], np.uint8)) == 0
    assert longest_path(np.zeros([3, 5], np.uint8)) == 0


def test_an_unknown_order_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown label order 'frequnt' \(did you mean 'frequent'\?\)"):
        order_ranks("frequnt", 3)


def test_a_token_that_is_no_label_is_refused():
    assert decode_path([[0, 1, 2]], num_labels=3) == [[0, 1, 2]]  # a path without END ends at its last step
    for path in ([4, 4, 3], [0, -1, 3], [0, 4, 3]):
        with pytest.raises(UserError, match="is not a label: with 3 labels"):
            decode_path([path], num_labels=3)
