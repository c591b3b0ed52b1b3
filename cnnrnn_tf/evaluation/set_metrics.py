"""Label scores or 0/1 label sets enter in batches; C- and O- measures, Hamming loss and exact match leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from cnnrnn_tf.evaluation.batches import Batch, add_sum, check_count, rank_best, read_batch, read_sum
from tfrecords.errors import UserError, nearest

SET_MEASURES = (
    "C-P",
    "C-R",
    "C-F1_harmonic",
    "C-F1_per_class",
    "O-P",
    "O-R",
    "O-F1",
    "hamming_loss",
    "exact_match",
    "example_F1",
    "N+",
    "labels_never_predicted",
    "labels_without_positive",
    "images",
)
"""Every key of `SetMeasures.result()`. All but the last four are fractions, 0 to 1."""


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class SetMeasures(keras.metrics.Metric):
    """All measures of predicted label sets, from one pass.

    The set of an image is cut from its scores:

    | arguments | set |
    |---|---|
    | `top_k` | exactly the k best labels (all of them where fewer are known) |
    | `top_k`, `threshold` | at most k: those of the k best whose score >= threshold |
    | `threshold` | every label whose score >= threshold |
    | neither | `y_pred` already is a 0/1 set (a threshold of 0.5) |

    Unknown labels leave an image's ranking before its best k are taken, and leave truth and prediction alike.
    Equal scores rank by label id, the lower first. With TP, predicted and truth counted per label (sums over
    images) or per image:

    - `C-P`, `C-R`: means over labels of TP/predicted and TP/truth. A label never predicted has precision
      `never_predicted_precision`. A label without a positive is left out of every C- mean, and counted in
      `labels_without_positive`.
    - `C-F1_harmonic`: 2 C-P C-R/(C-P + C-R). `C-F1_per_class`: mean over labels of 2 TP/(predicted + truth).
    - `O-P`, `O-R`: counts summed over labels and images, then the ratio; `O-F1`: 2 O-P O-R/(O-P + O-R). In
      O-P each label never predicted counts as `never_predicted_counts` wrong predictions.
    - `hamming_loss`: wrong cells among the known cells.
    - `exact_match`: images whose known labels are all right. `example_F1`: mean over images of
      2 TP/(predicted + truth), where nothing predicted of nothing true is 1. An image without any known
      label counts in neither, nor in `images`.
    - `N+`: number of labels with recall > 0. `labels_never_predicted`: number of labels in no predicted set.

    A ratio of nothing to nothing is 0, as in Keras's own metrics.

    Unknown labels come as a `sample_weight` of `[batch, labels]` that is 0 there, which Keras hands only to
    `compile(weighted_metrics=...)`, or as -1 in `y_true`, which works everywhere. A `sample_weight` of
    `[batch]` says how often each image counts. Under a strategy each replica counts for itself and reading
    adds up.

    Args:
        num_labels: number of labels, the last axis of `y_true` and `y_pred`.
        top_k: list length, or None.
        threshold: lowest score that enters a set: a number, or one per label.
        never_predicted_precision: 0 (most papers) or 1 (SRN), the precision of a label never predicted.
        never_predicted_counts: 0 (most papers) or 1 (the code of ML-GCN, which sets the count of such a label
            to 1 before it sums), what each label never predicted adds to the predicted labels of O-P.
        measures: the keys of `result()`, from `SET_MEASURES`; None for all.
        prefix: put before every key, which keeps two of these apart in one `compile`.
        name: Keras's name for the metric. The keys of the result do not contain it.
        dtype: type of counts and results; float64 counts exactly up to 2**53.

    Raises:
        UserError: an argument makes no sense, or `y_true` and `y_pred` are not `[batch, num_labels]`.

    >>> measures = SetMeasures(num_labels=3, top_k=1, measures=("O-P", "O-R"))
    >>> measures.update_state([[1, 1, 0], [0, 0, 1]], [[0.9, 0.8, 0.1], [0.6, 0.1, 0.5]])
    >>> {name: float(value) for name, value in measures.result().items()}  # 1 hit, 2 predicted, 3 true
    {'O-P': 0.5, 'O-R': 0.3333333333333333}
    """

    def __init__(
        self,
        num_labels: int,
        top_k: int | None = None,
        threshold: float | Sequence[float] | None = None,
        never_predicted_precision: int = 0,
        never_predicted_counts: int = 0,
        measures: Sequence[str] | None = None,
        prefix: str = "",
        name: str | None = None,
        dtype: Any = "float64",
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.num_labels = check_count("num_labels", num_labels)
        self.top_k = None if top_k is None else check_count("top_k", top_k)
        self.threshold = _check_threshold(threshold, num_labels)
        self.never_predicted_precision = _check_0_or_1("precision", never_predicted_precision)
        self.never_predicted_counts = _check_0_or_1("counts", never_predicted_counts)
        self.measures = _check_measures(measures)
        self.prefix = prefix
        self.true_positives = add_sum(self, "true_positives", (num_labels,))
        self.predicted = add_sum(self, "predicted", (num_labels,))
        self.positives = add_sum(self, "positives", (num_labels,))
        self.known_cells = add_sum(self, "known_cells")
        self.exact_matches = add_sum(self, "exact_matches")
        self.example_f1 = add_sum(self, "example_f1")
        self.images = add_sum(self, "images")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts one batch.

        Args:
            y_true: `<float32|int>[batch, labels]`: above 0 where the image has the label, -1 where unknown.
            y_pred: `<float>[batch, labels]`, scores or 0/1 sets.
            sample_weight: `[batch]`, how often each image counts, or `[batch, labels]`, 0 where unknown.
        """
        batch = read_batch(y_true, y_pred, sample_weight, self.num_labels, self.dtype)
        predicted = ops.logical_and(self._cut(batch.scores, batch.known), batch.known)
        hits = ops.logical_and(predicted, batch.truth)
        self._count_labels(hits, predicted, batch.truth, batch.weight)
        self._count_images(hits, predicted, batch)

    def result(self) -> dict[str, Any]:
        """The measures by name, scalars of the metric's dtype."""
        values = {**self._class_measures(), **self._overall_measures(), **self._image_measures()}
        return {self.prefix + measure: values[measure] for measure in self.measures}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "top_k": self.top_k,
            "threshold": self.threshold,
            "never_predicted_precision": self.never_predicted_precision,
            "never_predicted_counts": self.never_predicted_counts,
            "measures": list(self.measures),
            "prefix": self.prefix,
        }

    def _cut(self, scores: Any, known: Any) -> Any:
        """The predicted sets, `<bool>[batch, labels]`; unknown labels may still be in them."""
        if self.top_k is None:
            return self._reach(scores)
        ids, taken = rank_best(scores, known, self.top_k)
        places = ops.one_hot(ids, self.num_labels, dtype="bool")  # [batch, k, labels]
        best = ops.any(ops.logical_and(places, ops.expand_dims(taken, -1)), axis=1)
        return best if self.threshold is None else ops.logical_and(best, self._reach(scores))

    def _reach(self, scores: Any) -> Any:
        threshold = 0.5 if self.threshold is None else self.threshold
        return scores >= ops.convert_to_tensor(threshold, dtype=scores.dtype)

    def _count_labels(self, hits: Any, predicted: Any, truth: Any, weight: Any) -> None:
        for total, mask in (
            (self.true_positives, hits),
            (self.predicted, predicted),
            (self.positives, truth),
        ):
            total.assign_add(ops.sum(ops.cast(mask, self.dtype) * ops.expand_dims(weight, 1), axis=0))

    def _count_images(self, hits: Any, predicted: Any, batch: Batch) -> None:
        per_image = [
            ops.sum(ops.cast(mask, self.dtype), axis=1)
            for mask in (hits, predicted, batch.truth, batch.known)
        ]
        num_hits, num_predicted, num_true, num_known = per_image
        named = num_predicted + num_true
        right = ops.cast(named == 2 * num_hits, self.dtype)
        f1 = ops.where(named == 0, ops.ones_like(named), ops.divide_no_nan(2 * num_hits, named))
        for total, value in (
            (self.known_cells, num_known),
            (self.exact_matches, right),
            (self.example_f1, f1),
            (self.images, ops.ones_like(named)),
        ):
            total.assign_add(ops.sum(value * batch.weight))

    def _class_measures(self) -> dict[str, Any]:
        hits, predicted, positives = (
            read_sum(total) for total in (self.true_positives, self.predicted, self.positives)
        )
        measured = ops.cast(positives > 0, self.dtype)
        never_predicted = predicted == 0

        def mean_over_labels(values: Any) -> Any:
            return ops.divide_no_nan(ops.sum(values * measured), ops.sum(measured))

        precision = ops.where(
            never_predicted,
            ops.cast(self.never_predicted_precision, self.dtype),
            ops.divide_no_nan(hits, predicted),
        )
        class_p = mean_over_labels(precision)
        class_r = mean_over_labels(ops.divide_no_nan(hits, positives))
        return {
            "C-P": class_p,
            "C-R": class_r,
            "C-F1_harmonic": ops.divide_no_nan(2 * class_p * class_r, class_p + class_r),
            "C-F1_per_class": mean_over_labels(ops.divide_no_nan(2 * hits, predicted + positives)),
            "N+": ops.sum(ops.cast(hits > 0, self.dtype)),
            "labels_never_predicted": ops.sum(ops.cast(never_predicted, self.dtype)),
            "labels_without_positive": ops.sum(ops.cast(positives == 0, self.dtype)),
        }

    def _overall_measures(self) -> dict[str, Any]:
        hits, predicted, positives = (
            ops.sum(read_sum(total)) for total in (self.true_positives, self.predicted, self.positives)
        )
        never_predicted = ops.sum(ops.cast(read_sum(self.predicted) == 0, self.dtype))
        counted = predicted + self.never_predicted_counts * never_predicted
        return {
            "O-P": ops.divide_no_nan(hits, counted),
            "O-R": ops.divide_no_nan(hits, positives),
            "O-F1": ops.divide_no_nan(2 * hits, counted + positives),
            "hamming_loss": ops.divide_no_nan(predicted + positives - 2 * hits, read_sum(self.known_cells)),
        }

    def _image_measures(self) -> dict[str, Any]:
        images = read_sum(self.images)
        return {
            "exact_match": ops.divide_no_nan(read_sum(self.exact_matches), images),
            "example_F1": ops.divide_no_nan(read_sum(self.example_f1), images),
            "images": images,
        }


def _check_threshold(threshold: Any, num_labels: int) -> float | tuple[float, ...] | None:
    if threshold is None:
        return None
    values = np.asarray(threshold, dtype=np.float64)
    if values.shape not in ((), (num_labels,)) or np.isnan(values).any():
        raise UserError(
            f"threshold must be a number, or one for each of the {num_labels} labels, "
            f"got shape {list(values.shape)}: {threshold!r}"
        )
    return tuple(values.tolist()) if values.ndim else float(values)


def _check_0_or_1(what: str, value: int) -> int:
    if value not in (0, 1):
        raise UserError(f"never_predicted_{what} must be 0 or 1, got {value!r}")
    return int(value)


def _check_measures(measures: Sequence[str] | None) -> tuple[str, ...]:
    for measure in measures or ():
        if measure not in SET_MEASURES:
            known = ", ".join(SET_MEASURES)
            raise UserError(
                f"no set measure is called {measure!r}{nearest(measure, SET_MEASURES)}: take from {known}"
            )
    return SET_MEASURES if measures is None else tuple(measures)
