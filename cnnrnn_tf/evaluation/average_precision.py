"""Labels and scores of a whole split enter; each label's average precision over images, and mAP, leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnrnn_tf.evaluation.tables import last_of_each, read_table
from tfrecords.errors import UserError

AP_SHAPES = ("raw", "voc11", "interpolated")


def average_precision(labels: Any, scores: Any, known: Any = None, shape: str = "raw") -> np.ndarray:
    """Average precision of each label, from ranking the images by the label's score.

    With P(n), R(n) precision and recall of the images that score at least the n-th highest distinct score:

    - `raw`: sum over n of (R(n) - R(n-1)) P(n); scikit-learn's `average_precision_score`.
    - `interpolated`: the same sum with max over m >= n of P(m) in place of P(n); VOC 2010 and later.
    - `voc11`: mean over r = 0, 0.1, .., 1 of the highest P(n) among R(n) >= r; the official rule of
      VOC 2007. R(n) >= r is decided in whole numbers; floating point would miss, say, 3/10 >= 3 * 0.1.

    Equal scores are one step in all three shapes, so the order of the images never matters. (The VOC devkit
    lets their order decide; the two agree where a label's scores are distinct.) Unknown images are left out
    label by label.

    Args:
        labels: `[images, labels]`, above 0 where the image has the label, below 0 where unknown.
        scores: `<float>[images, labels]`.
        known: `[images, labels]`, 0 or False where unknown.
        shape: one of `AP_SHAPES`.

    Returns:
        `<float64>[labels]`, 0 to 1; nan for a label without a positive image.

    Raises:
        UserError: the tables do not fit, a score is NaN, or the shape has another name.

    >>> average_precision([[1], [0], [1]], [[0.9], [0.8], [0.7]])  # 1/2 * 1/1 + 1/2 * 2/3
    array([0.83333333])
    """
    if shape not in AP_SHAPES:
        raise UserError(f"shape of average precision must be one of {', '.join(AP_SHAPES)}, got {shape!r}")
    return _measure_labels(labels, scores, known, (shape,))[shape]


class MeanAveragePrecision:
    """mAP in any of its shapes over a split that arrives in batches: ranks images within a label.

    A plain Python accumulator rather than a Keras metric: exact AP needs every score of the split, and a
    Keras metric would have to hold them on each replica and rank the split anew in every step. So it is fed
    on the host, from `predict` or from outputs gathered over replicas:

    >>> metric = MeanAveragePrecision(shapes=("raw",))
    >>> metric.update(labels=[[1, 0], [0, 0]], scores=[[0.9, 0.2], [0.1, 0.3]])
    >>> metric.update(labels=[[1, 0]], scores=[[0.8, 0.1]])
    >>> metric.result()
    {'mAP_raw': 1.0, 'labels_without_positive': 1}

    It keeps the scores as they come (4 bytes a cell in float32) and one byte a cell for the labels.

    Args:
        shapes: which of `AP_SHAPES` `result()` reports.
    """

    def __init__(self, shapes: Sequence[str] = AP_SHAPES) -> None:
        for shape in shapes:
            if shape not in AP_SHAPES:
                raise UserError(f"shapes of mAP must be among {', '.join(AP_SHAPES)}, got {shape!r}")
        self.shapes = tuple(shapes)
        self._marks: list[np.ndarray] = []  # <int8>[batch, labels]: 1 true, 0 false, -1 unknown
        self._scores: list[np.ndarray] = []

    def update(self, labels: Any, scores: Any, known: Any = None) -> None:
        """Adds a batch; the arguments are those of `average_precision`."""
        truth, scores, mask = read_table(labels, scores, known)
        if self._scores and scores.shape[1] != self._scores[0].shape[1]:
            raise UserError(
                f"a batch has {scores.shape[1]} labels where those before had {self._scores[0].shape[1]}"
            )
        self._marks.append(np.where(mask, truth, -1).astype(np.int8))
        self._scores.append(np.array(scores))

    def per_label(self, shape: str = "raw") -> np.ndarray:
        """`average_precision` of all that came in, `<float64>[labels]`; nan where no image is positive."""
        return average_precision(*self._read_all(), shape=shape)

    def result(self) -> dict[str, float | int]:
        """`mAP_<shape>` for each shape, the mean over labels with a positive, and how many have none.

        Where no label has a positive there is no mAP, and its value is nan.
        """
        marks, scores = self._read_all()
        values = _measure_labels(marks, scores, None, self.shapes)
        means = {
            f"mAP_{shape}": float(np.nanmean(value)) if not np.isnan(value).all() else float("nan")
            for shape, value in values.items()
        }
        return {**means, "labels_without_positive": int(np.sum(np.all(marks <= 0, axis=0)))}

    def _read_all(self) -> tuple[np.ndarray, np.ndarray]:
        if not self._scores:
            raise UserError("no average precision before the first update: feed at least one batch")
        return np.concatenate(self._marks), np.concatenate(self._scores)


def _measure_labels(labels: Any, scores: Any, known: Any, shapes: Sequence[str]) -> dict[str, np.ndarray]:
    """AP of each label in each shape, from one sort a label: `<float64>[labels]` by the name of the shape."""
    truth, scores, mask = read_table(labels, scores, known)
    columns = zip(truth.T, scores.T, mask.T, strict=True)
    values = [_measure_label(hit[seen], score[seen], shapes) for hit, score, seen in columns]
    return dict(zip(shapes, np.array(values, np.float64).reshape(len(values), len(shapes)).T, strict=True))


def _measure_label(hits: np.ndarray, scores: np.ndarray, shapes: Sequence[str]) -> list[float]:
    """AP of one label from `<bool>[images]` and `<float>[images]`, all known."""
    total = int(hits.sum())
    if total == 0:
        return [float("nan")] * len(shapes)
    order = np.argsort(scores)[::-1]
    found = np.cumsum(hits[order])
    ends = last_of_each(scores[order])
    found = found[ends]
    precision = found / (ends + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]

    def sum_steps(heights: np.ndarray) -> float:
        return float(np.sum(np.diff(found, prepend=0) * heights) / total)

    measure = {
        "raw": lambda: sum_steps(precision),
        "interpolated": lambda: sum_steps(envelope),
        "voc11": lambda: float(np.mean(envelope[np.searchsorted(10 * found, np.arange(11) * total)])),
    }
    return [measure[shape]() for shape in shapes]
