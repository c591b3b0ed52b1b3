"""Features and labels enter; scores by Weighted Approximate Rank Pairwise loss leave."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from cnnrnn_tf.baselines.network import NetworkMethod

MARGIN = 1.0
"""How much higher than every label that does not hold one that does should score."""


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class WARPLoss(keras.losses.Loss):
    """Ranks the labels that hold above those that do not, the more urgently the lower they rank.

    For each label j that an image has, labels k that it does not have are drawn with replacement until one
    violates the margin, s_k > s_j - 1. After N draws that cost

        L(floor(K / N)) (1 - s_j + s_k),   L(r) = 1 + 1/2 + ... + 1/r

    where K is the number of labels that are known not to hold, so floor(K / N) estimates the rank of j; after
    more than K draws it is 0, and so is L, so K draws are enough. An image's loss is the sum over its labels
    (Weston et al., WSABIE, IJCAI 2011, algorithm 1; Gong et al., arXiv 1312.4894, equations 3 to 5).

    The labels of one image look for their violators in one sequence of draws: to each of them it is a random
    one, and a batch takes memory for its labels, not for their pairs. The draws depend on `seed`
    and on the scores' own bits, and on nothing else: the loss is a function of its arguments, and yet no two
    steps draw alike.

    Args:
        seed: of the draws.

    >>> loss = WARPLoss()
    >>> float(loss([[1, 0, -1]], [[0.25, 0.0, 9.0]]))  # L(1) (1 - 0.25 + 0): one label can violate, and does
    0.75
    """

    def __init__(self, seed: int = 0, name="warp", **kwargs):
        super().__init__(name=name, **kwargs)
        self.seed = seed

    def call(self, y_true, y_pred):
        """Takes labels `[batch, labels]`, -1 where unknown, and scores of that shape; returns [batch]."""
        scores = ops.cast(y_pred, "float32")
        marks = ops.cast(y_true, "float32")
        return warp_of_draws(marks, scores, draw_uniform(scores, self.seed))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


def draw_uniform(scores, seed):
    """Numbers `<float32>[batch, labels]` in [0, 1), by the seed and the bits of `scores` of that shape."""
    bits = tf.reduce_sum(tf.bitcast(tf.convert_to_tensor(scores), tf.int32))  # wraps around, in any order
    both = tf.stack([tf.constant(seed, tf.int64), tf.cast(bits, tf.int64)])
    return tf.random.stateless_uniform(tf.shape(scores), both, alg="philox")


def warp_of_draws(marks, scores, draws):
    """The WARP loss of each image, given the draws.

    Args:
        marks: `<float32>[batch, labels]`: above 0 where the image has the label, -1 where unknown.
        scores: `<float32>[batch, labels]`.
        draws: `<float32>[batch, labels]` in [0, 1): the t-th draw of an image is the label at
            floor(draw K) among its K labels that do not hold.

    Returns:
        `<float32>[batch]`.
    """
    num_labels = scores.shape[-1]
    negative = marks == 0
    num_negatives = ops.sum(ops.cast(negative, "int32"), axis=-1, keepdims=True)  # [batch, 1]
    drawn = _draw_negatives(scores, negative, num_negatives, draws)  # [batch, draws]

    # The running maximum is sorted, and first exceeds a bound where the draws do.
    highest = _running_maximum(tf.stop_gradient(drawn))
    trial = tf.searchsorted(highest, tf.stop_gradient(scores) - MARGIN, side="right")  # [batch, labels]
    violator = ops.take_along_axis(drawn, ops.minimum(trial, num_labels - 1), axis=1)
    weights = ops.take(_rank_weights(num_labels), num_negatives // (trial + 1))
    hinge = ops.relu(MARGIN - scores + violator)
    return ops.sum(ops.where(marks > 0, weights * hinge, 0.0), axis=-1)


def _draw_negatives(scores, negative, num_negatives, draws):
    """The scores of the labels drawn, `<float32>[batch, draws]`."""
    places = ops.cast(draws * ops.cast(num_negatives, "float32"), "int32")
    places = ops.minimum(places, ops.maximum(num_negatives - 1, 0))  # rounding may reach K
    negatives_first = ops.argsort(ops.cast(~negative, "int32"), axis=-1)  # a stable sort
    return ops.take_along_axis(scores, ops.take_along_axis(negatives_first, places, axis=1), axis=1)


def _running_maximum(values):
    """The highest of each row so far, `<float32>[batch, draws]`: XLA refuses `ops.associative_scan`."""
    reach = 1
    while reach < values.shape[1]:
        earlier = ops.concatenate([values[:, :reach], values[:, :-reach]], axis=1)
        values, reach = ops.maximum(values, earlier), 2 * reach
    return values


def _rank_weights(num_labels):
    """L(r) of every rank r from 0, `<float32>[labels + 1]`."""
    return np.cumsum([0.0, *(1 / np.arange(1, num_labels + 1))]).astype(np.float32)


class Warp(NetworkMethod):
    """The paper's WARP baseline on features: a linear layer. Scores rank the labels of one image."""

    title = "WARP"
    learns_from_positives = True

    def __init__(self, *, learning_rate: float = 3e-4, **settings) -> None:
        super().__init__(learning_rate=learning_rate, **settings)

    def make_loss(self, seed: int) -> keras.losses.Loss:
        return WARPLoss(seed)
