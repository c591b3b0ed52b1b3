"""Scores and labels of a hold-out enter; the score at which to cut a list leaves."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnrnn_tf.evaluation.tables import last_of_each, read_table
from tfrecords.errors import UserError


def fit_threshold(
    scores: Any, labels: Any, known: Any = None, k: int | None = None, standard_errors: float = 1.0
) -> float:
    """The threshold that gives lists of at most `k` labels the highest O-F1, as far as the images can tell.

    A list holds those of an image's k best known labels whose score is at least the threshold, as
    `SetMeasures` cuts it (equal scores rank by label id, the lower first). Every distinct score is tried. A
    hundred images hardly tell good thresholds apart, and the best of them is best by chance; so the middle of
    the thresholds around it that are no more than a standard error worse is returned (the rule of Breiman et
    al., Classification and Regression Trees, 1984, section 3.4.3). With many images it is the best itself.

    Fit it on the hold-out, never on the split that is reported.

    Args:
        scores: `<float>[images, labels]`.
        labels: `[images, labels]`, above 0 where the image has the label, below 0 where unknown.
        known: `[images, labels]`, 0 or False where unknown.
        k: longest list; None for any length.
        standard_errors: how much worse than the best a threshold may be, as multiples of
            sqrt(F1 (1 - F1) / true labels); 0 returns the best score, the highest of equals.

    Returns:
        The lowest score that enters a list.

    Raises:
        UserError: the tables do not fit, a score is NaN, or no known label is true (any threshold would do).

    >>> fit_threshold([[0.9, 0.6, 0.2], [0.7, 0.4, 0.3]], [[1, 1, 0], [1, 0, 0]], standard_errors=0)
    0.6
    """
    if not 0 <= standard_errors < np.inf:
        raise UserError(f"standard_errors {standard_errors}: expected 0 or more")
    if k is not None and k < 1:
        raise UserError(f"k, the longest list, must be at least 1, got {k!r}")
    truth, scores, mask = read_table(labels, scores, known)
    num_true = np.count_nonzero(truth)
    if num_true == 0:
        raise UserError(
            f"no threshold can be fitted: none of the {len(truth)} hold-out images has a known label; "
            "give a threshold, or a hold-out with labels"
        )
    eligible = mask if k is None else _best_known(scores, mask, k)
    cuts, counts, hits = _count_by_score(scores[eligible], truth[eligible])
    f1 = 2 * hits / (counts + num_true)
    best = int(np.argmax(f1))
    if not standard_errors or not f1[best]:
        return float(cuts[best])
    lowest_f1 = f1[best] - standard_errors * np.sqrt(f1[best] * (1 - f1[best]) / num_true)
    worse = np.flatnonzero(f1 < lowest_f1)
    first = max(worse[worse < best], default=-1) + 1
    last = min(worse[worse > best], default=len(f1)) - 1
    middle = float((cuts[first] + cuts[last]) / 2)
    return middle if np.isfinite(middle) else float(cuts[best])


def _best_known(scores: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    """`<bool>[images, labels]`: each image's k best known labels, all of them where fewer are known."""
    order = np.lexsort((-scores, ~mask), axis=1)[:, :k]  # the last key is the first to sort by
    best = np.zeros_like(mask)
    np.put_along_axis(best, order, True, axis=1)
    return best & mask


def _count_by_score(scores: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct scores, highest first, and how many cells and how many true ones score at least that."""
    order = np.argsort(scores)[::-1]
    scores, hits = scores[order], np.cumsum(hits[order])
    ends = last_of_each(scores)
    return scores[ends], ends + 1, hits[ends]
