"""Label sets enter as rows of 0 and 1; paths leave, what a decoder reads and what it has to say, and back.

With L labels, the tokens of a path are the ids 0 to L-1, END = L and START = L+1. Padding has no token of its
own: what follows the first END is END again, with a weight of 0. In what order the labels of a set are
learned (Wang et al., CVPR 2016, section 3.2) is decided here and nowhere else.
"""

import numpy as np
import tensorflow as tf

from tfrecords.errors import UserError, nearest

LABEL_ORDERS = ("frequent", "rare", "random", "shuffled")
"""Frequent labels first; rare ones first; one random order of all labels; another one for every batch."""


def order_ranks(order, num_labels, seed=0):
    """Returns the place of each label in `order`, <int32>[labels]; None for "shuffled", which has no places.

    >>> order_ranks("rare", 3)
    array([2, 1, 0], dtype=int32)

    Args:
        order: one of `LABEL_ORDERS`.
        num_labels: L.
        seed: int from 0 of "random": the same seed gives the same order, with any version of NumPy.

    Raises:
        UserError: there is no such order.
    """
    if order not in LABEL_ORDERS:
        raise UserError(
            f"unknown label order {order!r}{nearest(str(order), LABEL_ORDERS)}: "
            f"expected one of {', '.join(LABEL_ORDERS)}"
        )
    if order == "shuffled":
        return None
    if order == "frequent":
        ranks = np.arange(num_labels)
    elif order == "rare":
        ranks = np.arange(num_labels)[::-1]
    else:
        # NumPy promises the stream of a bit generator for ever, that of `permutation` it does not.
        draws = np.random.Philox(key=seed).random_raw(num_labels)
        ranks = np.argsort(np.argsort(draws, kind="stable"))
    return np.ascontiguousarray(ranks, np.int32)


def shuffle_ranks(num_labels, seed):
    """Returns a random place for each label, <int32>[labels], by `seed` <int>[2] alone; runs in a graph."""
    # Philox by name: left to itself TensorFlow chooses by device.
    return tf.random.experimental.stateless_shuffle(tf.range(num_labels), seed, alg="philox")


def encode_paths(labels, num_steps, ranks):
    """Returns the paths of a batch of label sets, for teacher forcing.

    At step t a decoder reads `tokens[:, t]`, the label before, and has to give `targets[:, t]`:

        labels 1, 4     tokens  START 1 4 END     targets  1 4 END END     weights  1 1 1 0
        no labels       tokens  START END ..      targets  END ..          weights  1 0 ..

    Args:
        labels: <uint8 or bool>[batch, labels].
        num_steps: length of the paths, at least the most labels of a set and one for END.
        ranks: <int32>[labels], the place of each label: `order_ranks` or `shuffle_ranks`.

    Returns:
        tokens: <int32>[batch, num_steps]: START, the labels by their ranks, END to the end.
        targets: <int32>[batch, num_steps]: the labels by their ranks, END to the end.

    Raises:
        tf.errors.InvalidArgumentError: while running, if a set is too large for `num_steps`;
            `check_num_steps` asks beforehand and names the length that is needed.
    """
    labels = tf.cast(tf.convert_to_tensor(labels), tf.bool)
    num_labels = labels.shape[1]
    num_slots = min(num_steps - 1, num_labels)
    num_positive = tf.reduce_sum(tf.cast(labels, tf.int32), axis=1, keepdims=True)  # [batch, 1]
    fits = tf.debugging.assert_less_equal(num_positive, num_slots, "a label set is longer than the path")
    with tf.control_dependencies([fits] if fits is not None else []):
        urgency = tf.where(labels, num_labels - tf.cast(ranks, tf.int32), 0)  # 1 to L; 0: not in the set
    ids = tf.math.top_k(urgency, k=num_slots).indices  # [batch, slots]
    end = tf.constant(num_labels, tf.int32)
    path = tf.where(tf.range(num_slots) < num_positive, ids, end)
    padding = [[0, 0], [0, num_steps - 1 - num_slots]]
    path = tf.pad(path, padding, constant_values=num_labels)  # [batch, num_steps - 1]
    column = tf.fill([tf.shape(labels)[0], 1], end)
    tokens, targets = tf.concat([column + 1, path], axis=1), tf.concat([path, column], axis=1)
    return tf.ensure_shape(tokens, [None, num_steps]), tf.ensure_shape(targets, [None, num_steps])


def path_weights(targets, num_labels):
    """Returns which steps of `targets` count, <float32>[batch, steps]: 1 up to the first END, 0 after it."""
    is_end = tf.cast(tf.convert_to_tensor(targets) == num_labels, tf.int32)
    return tf.cast(tf.cumsum(is_end, axis=1, exclusive=True) == 0, tf.float32)


def decode_path(tokens, num_labels):
    """Returns the label ids of each path up to its END, as lists of int in the order of the path.

    >>> decode_path([[4, 2, 0, 3], [1, 3, 3, 3]], num_labels=3)
    [[2, 0], [1]]

    Args:
        tokens: <int>[batch, steps]; with START before or without, `encode_paths` gives both.
        num_labels: L.

    Raises:
        UserError: before END is something that is neither a label nor a START at the beginning.
    """
    return [_decode_row(row, num_labels) for row in np.asarray(tokens).tolist()]


def longest_path(labels):
    """Returns the most labels of one set of `labels` <uint8 or bool>[images, labels], as an int."""
    return int(np.count_nonzero(labels, axis=1).max(initial=0))


def check_num_steps(labels, num_steps):
    """Raises UserError if a set of `labels` <uint8 or bool>[images, labels] has no room in `num_steps`."""
    needed = longest_path(labels) + 1
    if num_steps < needed:
        raise UserError(
            f"paths of {num_steps} steps are too short: the largest label set has {needed - 1} labels, "
            f"which with END takes num_steps = {needed}"
        )


def _decode_row(row, num_labels):
    path = row[1:] if row[:1] == [num_labels + 1] else row
    ids = path[: path.index(num_labels)] if num_labels in path else path
    for token in ids:
        if not 0 <= token < num_labels:
            raise UserError(
                f"the token {token} is not a label: with {num_labels} labels, a path holds 0 to "
                f"{num_labels - 1} before END = {num_labels}"
            )
    return ids
