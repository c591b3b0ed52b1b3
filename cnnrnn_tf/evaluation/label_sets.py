"""Scores of all labels enter; each image's set of labels, cut at a length, a threshold or both, leaves."""

from __future__ import annotations

import numpy as np


def cut_sets(
    scores: np.ndarray, known: np.ndarray, k: int | None = None, threshold: float | None = None
) -> np.ndarray:
    """The sets that `SetMeasures` judges, as a table: the k best known labels that reach the threshold.

    Equal scores rank by label id, the lower first.

    Args:
        scores: `<float32>[images, labels]`.
        known: `[images, labels]`, 0 where nobody knows; such labels are in no set.
        k: the most labels of an image; None for any number.
        threshold: the lowest score of a set; None for none.

    Returns:
        `<uint8>[images, labels]`, 0 or 1.

    >>> cut_sets(np.array([[0.9, 0.8, 0.7]]), np.array([[0, 1, 1]]), k=1)
    array([[0, 1, 0]], dtype=uint8)
    """
    chosen = np.asarray(known) != 0
    if k is not None:
        order = np.lexsort((-scores, ~chosen), axis=1)[:, :k]  # the last key is the first to sort by
        best = np.zeros_like(chosen)
        np.put_along_axis(best, order, True, axis=1)
        chosen = chosen & best
    if threshold is not None:
        chosen = chosen & (scores >= scores.dtype.type(threshold))
    return chosen.astype(np.uint8)
