"""Label scores enter in batches; mAP in three shapes, from counts in bins of the score, leaves any time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from cnnrnn_tf.evaluation.average_precision import AP_SHAPES
from cnnrnn_tf.evaluation.batches import add_sum, check_count, read_batch, read_sum
from tfrecords.errors import UserError


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class BinnedMeanAveragePrecision(keras.metrics.Metric):
    """mAP as a Keras metric: ranks images within a label, up to what falls into one bin of the score.

    Exact AP needs each score of a split (`MeanAveragePrecision`); this keeps two counts a label and bin, so
    it can watch training. It is the exact AP of scores rounded to their bins: images of one bin are tied, as
    equal scores are in `average_precision`. Bins have equal widths in the logit, log p/(1 - p), so that small
    probabilities of rare labels stay apart; beyond `max_logit` all are tied.

    Ties cost precision, so mAP comes out too low, the less so the more bins the scores fill: on 20,000
    images whose logits have a deviation of 3: 0.005 at 256 bins, 0.0012 at 1,024, 0.0003 at 4,096; with a
    deviation of 0.5: 0.033, 0.008, 0.002. Scores that crowd want more bins, or a smaller `max_logit`.

    Unknown labels come as in `SetMeasures`: -1 in `y_true`, or 0 in a `sample_weight` of `[batch, labels]`. A
    label without a positive is left out of the mean; without any positive at all mAP is 0. A NaN ranks last.

    Memory: 16 bytes a label and bin, 1.3 MB for 81 labels. Keras asks for the result in every step, which
    costs some 5 ms for 81 labels on a CPU, and time in proportion for more.

    Args:
        num_labels: number of labels, the last axis of `y_true` and `y_pred`.
        num_bins: bins of the score.
        from_logits: whether scores are logits, or others that may lie anywhere; else they are probabilities,
            and what lies outside 0 to 1 counts as 0 or 1.
        max_logit: where the outer bins end; 16 is a probability of 1e-7 from 0 or from 1.
        shapes: which of `AP_SHAPES`, each described in `average_precision`, `result()` has.
        prefix: put before every key, which keeps two of these apart in one `compile`.
        name: Keras's name for the metric. The keys of the result do not contain it.
        dtype: type of counts and results; float64 counts exactly up to 2**53.

    Raises:
        UserError: an argument makes no sense, or `y_true` and `y_pred` are not `[batch, num_labels]`.

    On any model that scores labels one by one:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, activation="sigmoid")])
    >>> model.compile(loss="binary_crossentropy", metrics=[BinnedMeanAveragePrecision(num_labels=3)])
    >>> history = model.fit(np.ones((4, 8)), np.eye(4, 3), verbose=0).history
    >>> sorted(history)
    ['loss', 'mAP_interpolated', 'mAP_raw', 'mAP_voc11']
    """

    def __init__(
        self,
        num_labels: int,
        num_bins: int = 1024,
        from_logits: bool = False,
        max_logit: float = 16.0,
        shapes: Sequence[str] = AP_SHAPES,
        prefix: str = "",
        name: str | None = None,
        dtype: Any = "float64",
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.num_labels = check_count("num_labels", num_labels)
        self.num_bins = check_count("num_bins", num_bins)
        self.from_logits = bool(from_logits)
        if not 0 < max_logit < np.inf:
            raise UserError(f"max_logit, where the outer bins end, must be above 0, got {max_logit!r}")
        self.max_logit = float(max_logit)
        for shape in shapes:
            if shape not in AP_SHAPES:
                raise UserError(f"shapes of mAP must be among {', '.join(AP_SHAPES)}, got {shape!r}")
        self.shapes = tuple(shapes)
        self.prefix = prefix
        self.counts = add_sum(self, "counts", (2, num_labels, num_bins))  # negatives, positives

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds one batch; the arguments are those of `SetMeasures.update_state`."""
        batch = read_batch(y_true, y_pred, sample_weight, self.num_labels, self.dtype)
        cells = ops.cast(batch.truth, "int32") * self.num_labels + ops.arange(self.num_labels, dtype="int32")
        cells = cells * self.num_bins + self.bin_scores(batch.scores)  # [batch, labels]
        weight = ops.cast(batch.known, self.dtype) * ops.expand_dims(batch.weight, 1)
        size = 2 * self.num_labels * self.num_bins
        sums = ops.segment_sum(ops.reshape(weight, (-1,)), ops.reshape(cells, (-1,)), num_segments=size)
        self.counts.assign_add(ops.reshape(sums, self.counts.shape))

    def bin_scores(self, scores: Any) -> Any:
        """The bin of each score, 0 to `num_bins` - 1, of the same shape; the higher the score, the higher."""
        scores = ops.convert_to_tensor(scores)
        if not self.from_logits:
            scores = ops.clip(scores, 0, 1)
            scores = ops.log(scores) - ops.log1p(-scores)
        scores = ops.where(ops.isnan(scores), -self.max_logit, scores)
        scores = ops.clip(scores, -self.max_logit, self.max_logit)
        bins = ops.cast(ops.floor((scores + self.max_logit) * (self.num_bins / 2 / self.max_logit)), "int32")
        return ops.minimum(bins, self.num_bins - 1)

    def per_label(self, shape: str = "raw") -> Any:
        """AP of each label so far, `<float>[labels]`; 0 for a label without a positive."""
        return self._average_precision(*self._count_from_above(), shape)

    def result(self) -> dict[str, Any]:
        """`mAP_<shape>` for each shape: the mean over labels with a positive."""
        found, seen = self._count_from_above()
        measured = ops.cast(found[:, -1] > 0, self.dtype)
        means = {}
        for shape in self.shapes:
            total = ops.sum(self._average_precision(found, seen, shape) * measured)
            means[f"{self.prefix}mAP_{shape}"] = ops.divide_no_nan(total, ops.sum(measured))
        return means

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "num_bins": self.num_bins,
            "from_logits": self.from_logits,
            "max_logit": self.max_logit,
            "shapes": list(self.shapes),
            "prefix": self.prefix,
        }

    def _count_from_above(self) -> tuple[Any, Any]:
        """Positives, and all images, in the highest n bins: two `<float>[labels, bins]`."""
        counts = ops.flip(read_sum(self.counts), axis=-1)
        return ops.cumsum(counts[1], axis=-1), ops.cumsum(counts[0] + counts[1], axis=-1)

    def _average_precision(self, found: Any, seen: Any, shape: str) -> Any:
        total = found[:, -1:]
        precision = ops.divide_no_nan(found, seen)
        if shape == "voc11":
            levels = [ops.where(10 * found >= i * total, precision, 0) for i in range(11)]
            highest = [ops.max(level, axis=-1) for level in levels]
            return ops.sum(ops.stack(highest), axis=0) / 11 * ops.cast(total[:, 0] > 0, self.dtype)
        if shape == "interpolated":
            precision = ops.associative_scan(ops.maximum, precision, reverse=True, axis=-1)
        gained = ops.concatenate([found[:, :1], found[:, 1:] - found[:, :-1]], axis=-1)
        return ops.divide_no_nan(ops.sum(gained * precision, axis=-1), total[:, 0])
