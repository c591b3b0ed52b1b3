"""A batch as Keras hands it to a metric enters; truth, scores, known labels, weights and ranks leave."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfrecords.errors import UserError


class Batch(NamedTuple):
    """One batch of images, ready to be measured.

    Attributes:
        truth: `<bool>[batch, labels]`, the known labels that the image has.
        scores: `<float32|float64>[batch, labels]`; half precision arrives here as float32.
        known: `<bool>[batch, labels]`, False where nobody knows whether the image has the label.
        weight: `<float>[batch]`, how often the image counts; 0 for an image without any known label.
    """

    truth: Any
    scores: Any
    known: Any
    weight: Any


def read_batch(
    y_true: Any, y_pred: Any, sample_weight: Any, num_labels: int | None, dtype: str = "float64"
) -> Batch:
    """Turns the three arguments of `update_state` into a `Batch`.

    A label is unknown where `sample_weight` is `[batch, labels]` and 0, or where `y_true` is negative. A
    `sample_weight` of shape `[batch]` (or `[batch, 1]`) says how often each image counts, 0 leaving it out.

    Raises:
        UserError: the arguments are not tables of the same labels.
    """
    scores = ops.convert_to_tensor(y_pred)
    if keras.backend.standardize_dtype(scores.dtype) != "float64":
        scores = ops.cast(scores, "float32")
    marks = ops.cast(ops.convert_to_tensor(y_true), "float32")
    _check_tables(marks.shape, scores.shape, num_labels)
    known = marks >= 0
    weight = ops.ones_like(scores[:, 0], dtype=dtype)
    if sample_weight is not None:
        sample_weight = ops.cast(ops.convert_to_tensor(sample_weight), dtype)
        if len(sample_weight.shape) == 1 or sample_weight.shape[-1] == 1:
            weight = ops.reshape(sample_weight, (-1,))
        else:
            known = ops.logical_and(known, sample_weight != 0)
    weight = weight * ops.cast(ops.any(known, axis=1), dtype)
    return Batch(ops.logical_and(marks > 0, known), scores, known, weight)


def rank_best(scores: Any, known: Any, num_best: int) -> tuple[Any, Any]:
    """Ranks each image's known labels by score and returns the best `num_best`.

    Equal scores are ranked by label id, the lower first. A score of NaN or -inf ranks last among the known.

    Returns:
        `<int32>[batch, best]` label ids, best first, where best is min(num_best, labels), and
        `<bool>[batch, best]`, False at places left empty because fewer labels are known.
    """
    lowest = float(np.finfo(keras.backend.standardize_dtype(scores.dtype)).min)
    finite = ops.where(scores > lowest, scores, lowest)
    ranked = ops.where(known, finite, -np.inf)
    best, ids = ops.top_k(ranked, min(num_best, scores.shape[-1]), sorted=True)  # [batch, best]
    return ids, best >= lowest


def add_sum(metric: keras.metrics.Metric, name: str, shape: tuple[int, ...] = ()) -> keras.Variable:
    """A running sum of `metric`'s: kept apart on each replica, added up when it is read.

    `Metric.add_variable` would do, but for one thing: inside a mixed-precision layer its variables read as
    half precision, which cannot count past 2,048.
    """
    return keras.Variable(
        "zeros",
        shape=shape,
        dtype=metric.dtype,
        trainable=False,
        autocast=False,
        aggregation="sum",
        synchronization="on_read",
        name=name,
    )


def read_sum(total: keras.Variable) -> Any:
    """The sum over all replicas (inside a replica: its own), as a tensor."""
    return tf.convert_to_tensor(total)  # Keras's own convert_to_tensor returns the variable


def check_count(name: str, value: int) -> int:
    """Returns `value` if it is a whole number of at least 1.

    Raises:
        UserError: it is not.
    """
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def _check_tables(true_shape: Any, score_shape: Any, num_labels: int | None) -> None:
    right_ranks = len(true_shape) == len(score_shape) == 2
    widths = {size for size in (true_shape[-1:] + score_shape[-1:] + (num_labels,)) if size is not None}
    if not right_ranks or len(widths) > 1:
        raise UserError(
            f"y_true (0/1) and y_pred (scores) must both be [batch, {num_labels or 'labels'}], "
            f"but y_true is {list(true_shape)} and y_pred is {list(score_shape)}: "
            "turn label ids into 0/1 columns, and give the metric the model's number of labels"
        )
