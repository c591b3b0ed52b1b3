"""Label scores enter in batches; MAP@N, precision@k and recall@k of each image's labels leave."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from cnnrnn_tf.evaluation.batches import Batch, add_sum, check_count, rank_best, read_batch, read_sum
from tfrecords.errors import UserError

MAP_DENOMINATORS = ("truncated", "full")


class _MeanOverImages(keras.metrics.Metric):
    """The weighted mean over images of what `_values` says of each; 0 where no image counts."""

    def __init__(self, num_best: int, name: str | None = None, dtype: Any = "float64") -> None:
        super().__init__(name=name, dtype=dtype)
        self._num_best = check_count("the number of best labels", num_best)
        self.total = add_sum(self, "total")
        self.images = add_sum(self, "images")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds one batch.

        Args:
            y_true: `<float32|int>[batch, labels]`: above 0 where the image has the label, -1 where unknown.
            y_pred: `<float>[batch, labels]` scores.
            sample_weight: `[batch]`, how often each image counts, or `[batch, labels]`, 0 where unknown.
        """
        batch = read_batch(y_true, y_pred, sample_weight, None, self.dtype)
        ids, taken = rank_best(batch.scores, batch.known, self._num_best)
        hits = ops.take_along_axis(batch.truth, ids, axis=1)  # [batch, best], False at places left empty
        values, counted = self._values(ops.cast(hits, self.dtype), ops.cast(taken, self.dtype), batch)
        weight = batch.weight * ops.cast(counted, self.dtype)
        self.total.assign_add(ops.sum(values * weight))
        self.images.assign_add(ops.sum(weight))

    def result(self) -> Any:
        return ops.divide_no_nan(read_sum(self.total), read_sum(self.images))

    def _values(self, hits: Any, taken: Any, batch: Batch) -> tuple[Any, Any]:
        """Each image's value `<float>[batch]` and whether it counts `<bool>[batch]`.

        Args:
            hits: `<float>[batch, best]`, 1 at places that hold a true label.
            taken: `<float>[batch, best]`, 1 at places that hold any known label.
            batch: truth, scores, known labels and weights.
        """
        raise NotImplementedError

    def _num_true(self, batch: Batch) -> Any:
        return ops.sum(ops.cast(batch.truth, self.dtype), axis=1)


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class MAPAtN(_MeanOverImages):
    """MAP@N: ranks labels within an image (mAP, of `MeanAveragePrecision`, ranks images within a label).

    Of an image's known labels, best score first and equal scores by label id, the AP cut at N is

        sum over places i <= n that hold a true label of (true labels among the first i) / i

    divided by min(#truth, n), `truncated`, or by #truth, `full`. The mean is over images with at least one
    label that is known to be true.

    Args:
        n: number of places that count.
        denominator: "truncated" or "full".

    >>> metric = MAPAtN(n=2)
    >>> metric.update_state([[1, 0, 1]], [[0.9, 0.8, 0.7]])  # hits at place 1 of 2, two are true
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        n: int = 10,
        denominator: str = "truncated",
        name: str | None = None,
        dtype: Any = "float64",
    ) -> None:
        super().__init__(n, name=name, dtype=dtype)
        if denominator not in MAP_DENOMINATORS:
            raise UserError(f"denominator of MAP@N must be 'truncated' or 'full', got {denominator!r}")
        self.n = self._num_best
        self.denominator = denominator

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n": self.n, "denominator": self.denominator}

    def _values(self, hits: Any, taken: Any, batch: Batch) -> tuple[Any, Any]:
        places = ops.cast(ops.arange(1, hits.shape[-1] + 1), self.dtype)
        gained = ops.sum(hits * ops.cumsum(hits, axis=1) / places, axis=1)
        num_true = self._num_true(batch)
        best_possible = num_true
        if self.denominator == "truncated":
            best_possible = ops.minimum(num_true, ops.cast(self.n, self.dtype))
        return ops.divide_no_nan(gained, best_possible), num_true > 0


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class PrecisionAtK(_MeanOverImages):
    """Precision@k: mean over images of the share of the k best labels that are true.

    Images without labels count, with 0. Where fewer than k labels are known, the share is of those.
    """

    def __init__(self, k: int, name: str | None = None, dtype: Any = "float64") -> None:
        super().__init__(k, name=name, dtype=dtype)
        self.k = self._num_best

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}

    def _values(self, hits: Any, taken: Any, batch: Batch) -> tuple[Any, Any]:
        num_taken = ops.sum(taken, axis=1)
        return ops.divide_no_nan(ops.sum(hits, axis=1), num_taken), num_taken > 0


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class RecallAtK(_MeanOverImages):
    """Recall@k: mean, over images with at least one label, of the share of its labels among the k best."""

    def __init__(self, k: int, name: str | None = None, dtype: Any = "float64") -> None:
        super().__init__(k, name=name, dtype=dtype)
        self.k = self._num_best

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}

    def _values(self, hits: Any, taken: Any, batch: Batch) -> tuple[Any, Any]:
        num_true = self._num_true(batch)
        return ops.divide_no_nan(ops.sum(hits, axis=1), num_true), num_true > 0
