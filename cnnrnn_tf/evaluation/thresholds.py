"""Scores and labels of a hold-out enter; the score at which to cut a list leaves, or one for each label."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from cnnrnn_tf.evaluation.label_sets import cut_sets
from cnnrnn_tf.evaluation.tables import last_of_each, read_table
from tfrecords.errors import UserError, nearest
from tfrecords.words import count

Objective = Literal["F1", "exact_match"]
OBJECTIVES = get_args(Objective)

_FAIR_CUT = 0.5  # of a probability
_HIGHEST, _LEAST_NORMAL = np.finfo(np.float32).max, np.finfo(np.float32).tiny


def fit_threshold(
    scores: Any,
    labels: Any,
    known: Any = None,
    k: int | None = None,
    standard_errors: float = 1.0,
    above: float = -np.inf,
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
        above: what a threshold must be above: a score of minus infinity, or a marginal of 0 (of a label on no
            path), says that the label was never thought of, and a cut there gives it to every image.

    Returns:
        The lowest score that enters a list.

    Raises:
        UserError: the tables do not fit, a score is NaN, no known label is true (any threshold would do), or
            no score is above `above`.

    >>> fit_threshold([[0.9, 0.6, 0.2], [0.7, 0.4, 0.3]], [[1, 1, 0], [1, 0, 0]], standard_errors=0)
    0.6
    """
    _check_standard_errors(standard_errors)
    if k is not None and k < 1:
        raise UserError(f"k, the longest list, must be at least 1, got {k!r}")
    truth, scores, mask = _read_holdout(scores, labels, known)
    num_true = np.count_nonzero(truth)
    eligible = (cut_sets(scores, mask, k) != 0) & (scores > above)
    if not eligible.any():
        raise UserError(
            f"no threshold can be fitted: no score of {count('hold-out image', len(scores))} is above "
            f"{above:g}; give a threshold, or other scores"
        )
    cuts, counts, hits = _count_by_score(scores[eligible], truth[eligible])
    f1 = 2 * hits / (counts + num_true)
    best = int(np.argmax(f1))
    if not standard_errors or not f1[best]:
        return float(cuts[best])
    lowest_f1 = f1[best] - standard_errors * np.sqrt(f1[best] * (1 - f1[best]) / num_true)
    return _middle_as_good(cuts, f1, best, lowest_f1)


def fit_label_thresholds(
    scores: Any,
    labels: Any,
    known: Any = None,
    objective: Objective = "F1",
    standard_errors: float = 1.0,
    above: float = -np.inf,
) -> np.ndarray:
    """A threshold of each label's own, in place of one for all: for lists of any length.

    `F1`: the threshold with the label's highest F1, chosen as `fit_threshold` chooses: the middle of those
    around the best that are no more than a standard error worse. Where the common threshold of
    `fit_threshold` is no more than that worse either, the images cannot tell that the label needs its own,
    and it keeps the common one; so does a label without a positive. The standard error of a label with n
    positives is sqrt(p (1 - p) / (n + 2)) with p = (n F1 + 1) / (n + 2): one more found and one more missed
    (after Agresti and Coull, The American Statistician 52, 1998), as three positives that happen to be
    separated have an F1 of 1 and are no certainty. This raises C-F1 (the mean of the labels' F1); rare labels
    gain most.

    `exact_match`: the thresholds with the most images whose whole set is right, by coordinate ascent. One
    label after the other is moved to where most images are right, of those that all other labels leave to it,
    until no label can be moved to a gain. From three starts: the best common threshold, 0.5, and the
    thresholds of `F1`; the best end is returned, the first of equals. It is no global optimum, but never
    below a start. It takes the counts of the hold-out at their word: with few images it fits chance.

    Fit it on the hold-out, never on the split that is reported.

    Args:
        scores: `<float>[images, labels]`, read as float32.
        labels: `[images, labels]`, above 0 where the image has the label, below 0 where unknown.
        known: `[images, labels]`, 0 or False where unknown: such a cell counts neither way.
        objective: "F1" or "exact_match".
        standard_errors: how much worse than the best an F1 may be, in standard errors; 0 gives each label
            with a positive the best of its own, the highest of equals.
        above: what every threshold must be above, as in `fit_threshold`; a label without such a score keeps
            the common one.

    Returns:
        `<float32>[labels]`, the lowest score at which an image gets the label.

    Raises:
        UserError: the tables do not fit, a score is NaN, no known label is true, no score is above `above`,
            or the objective has another name.

    >>> scores = [[0.9, 0.3], [0.8, 0.2], [0.2, 0.1], [0.1, 0.0]]
    >>> fit_label_thresholds(scores, [[1, 1], [1, 1], [0, 0], [0, 0]], standard_errors=0)
    array([0.8, 0.2], dtype=float32)
    """
    _check_standard_errors(standard_errors)
    if objective not in OBJECTIVES:
        raise UserError(
            f"objective {objective!r} of thresholds{nearest(str(objective), OBJECTIVES)}: "
            f"choose from {', '.join(OBJECTIVES)}"
        )
    finite = np.minimum(np.asarray(scores, np.float32), _HIGHEST)
    truth, scores, mask = _read_holdout(finite, labels, known)
    common = fit_threshold(scores, labels, known, standard_errors=standard_errors, above=above)
    own = _fit_f1(scores, truth, mask, np.float32(common), standard_errors, above)
    return own if objective == "F1" else _fit_exact_match(scores, truth, mask, own, above)


def _fit_f1(
    scores: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    common: np.float32,
    standard_errors: float,
    above: float,
) -> np.ndarray:
    fitted = np.full(scores.shape[1], common, np.float32)
    for label in np.flatnonzero((truth.any(axis=0)) & (mask & (scores > above)).any(axis=0)):
        seen = mask[:, label]
        hits, found = truth[seen, label], scores[seen, label]
        cuts, counts, correct = _count_by_score(found, hits, above)
        num_true = np.count_nonzero(hits)
        f1 = 2 * correct / (counts + num_true)
        best = int(np.argmax(f1))
        lowest = f1[best] - standard_errors * _standard_error(f1[best], num_true)
        taken = found >= common
        f1_of_common = 2 * np.count_nonzero(hits & taken) / (np.count_nonzero(taken) + num_true)
        if not standard_errors:
            fitted[label] = cuts[best]
        elif f1_of_common < lowest:
            fitted[label] = _middle_as_good(cuts, f1, best, lowest)
    return fitted


def _standard_error(f1: float, num_true: int) -> float:
    share = (num_true * f1 + 1) / (num_true + 2)
    return float(np.sqrt(share * (1 - share) / (num_true + 2)))


def _fit_exact_match(
    scores: np.ndarray, truth: np.ndarray, mask: np.ndarray, own: np.ndarray, above: float
) -> np.ndarray:
    common = _common_exact_match(scores, truth, mask, above)
    ends = [
        _ascend(scores, truth, mask, np.broadcast_to(np.asarray(start, np.float32), own.shape).copy(), above)
        for start in (common, max(_FAIR_CUT, np.nextafter(np.float32(above), np.float32(np.inf))), own)
    ]
    return max(ends, key=lambda end: end[1])[0]  # the first of equals


def _common_exact_match(scores: np.ndarray, truth: np.ndarray, mask: np.ndarray, lowest: float) -> np.float32:
    """The one threshold for all labels with the most images right, the highest of equals.

    An image is right at thresholds above its best false label, up to its worst true one.
    """
    above = np.max(scores, axis=1, where=mask & ~truth, initial=-np.inf)
    up_to = np.min(scores, axis=1, where=truth, initial=np.inf)
    can_be_right = above < up_to
    above, up_to = np.sort(above[can_be_right]), np.sort(up_to[can_be_right])
    cuts = np.append(np.unique(scores[truth & (scores > lowest)]), _just_above(scores[mask]))
    num_right = np.searchsorted(above, cuts, "left") - np.searchsorted(up_to, cuts, "left")
    return cuts[len(cuts) - 1 - np.argmax(num_right[::-1])]


def _ascend(
    scores: np.ndarray, truth: np.ndarray, mask: np.ndarray, cuts: np.ndarray, above: float
) -> tuple[np.ndarray, int]:
    """Moves one threshold after the other while images are won; returns them and how many are right."""
    wrong = ((scores >= cuts) != truth) & mask
    num_wrong = wrong.sum(axis=1)
    has_moved = True
    while has_moved:
        has_moved = False
        for label, cut in enumerate(cuts):
            others_right = num_wrong == wrong[:, label]
            counted = others_right & mask[:, label]
            better = _best_exact_cut(scores[counted, label], truth[counted, label], cut, above)
            if better is None:
                continue
            cuts[label], has_moved = better, True
            now_wrong = ((scores[:, label] >= better) != truth[:, label]) & mask[:, label]
            num_wrong += now_wrong.astype(int) - wrong[:, label]
            wrong[:, label] = now_wrong
    return cuts, int(np.count_nonzero(num_wrong == 0))


def _best_exact_cut(scores: np.ndarray, hits: np.ndarray, cut: np.float32, above: float) -> np.float32 | None:
    """The threshold with the most cells right, of equals the nearest to `cut`; None where that is as good."""
    if not len(scores):
        return None
    found, counts, correct = _count_by_score(scores, hits, above)
    found = np.concatenate([[_just_above(scores)], found])  # at the first, no image gets the label
    num_right = np.concatenate([[0], 2 * correct - counts]) + np.count_nonzero(~hits)
    if num_right.max() <= np.count_nonzero((scores >= cut) == hits):
        return None
    middles = np.append(_between(found[1:], found[:-1]), found[-1:])
    best = np.flatnonzero(num_right == num_right.max())
    distances = np.abs(middles[best].astype(np.float64) - cut)
    return middles[best[np.argmin(distances)]]


def _between(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Thresholds that tell two scores apart, halfway where there is room: above `lower`, at most `upper`."""
    middle = ((lower.astype(np.float64) + upper) / 2).astype(np.float32)
    return np.where(middle > lower, middle, upper)


def _just_above(scores: np.ndarray) -> np.float32:
    """A threshold that no score reaches; a normal float, as TensorFlow reads subnormal ones as 0."""
    with np.errstate(over="ignore"):  # above the highest float is infinity
        found = np.nextafter(scores.max(), np.float32(np.inf))
    return max(found, _LEAST_NORMAL) if found > 0 else found


def _middle_as_good(cuts: np.ndarray, f1: np.ndarray, best: int, lowest_f1: float) -> float:
    """The middle of the cuts around the best whose F1 is at least `lowest_f1`; `cuts` fall."""
    worse = np.flatnonzero(f1 < lowest_f1)
    first = max(worse[worse < best], default=-1) + 1
    last = min(worse[worse > best], default=len(f1)) - 1
    middle = float(cuts[first] / 2 + cuts[last] / 2)  # their sum may be beyond the range
    return middle if np.isfinite(middle) else float(cuts[best])


def _read_holdout(scores: Any, labels: Any, known: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, scores and known cells; refuses a hold-out on which any threshold would do."""
    truth, scores, mask = read_table(labels, scores, known)
    if not truth.any():
        raise UserError(
            f"no threshold can be fitted: none of {count('hold-out image', len(truth))} has a known label; "
            "give a threshold, or a hold-out with labels"
        )
    return truth, scores, mask


def _check_standard_errors(standard_errors: float) -> None:
    if not 0 <= standard_errors < np.inf:
        raise UserError(f"standard_errors {standard_errors}: expected 0 or more")


def _count_by_score(
    scores: np.ndarray, hits: np.ndarray, above: float = -np.inf
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct scores, highest first, and how many cells and how many true ones score at least that.

    Those of `above` and below are left out: they can only be the last ones, and change no count.
    """
    scores, hits = scores[scores > above], hits[scores > above]
    if not len(scores):
        return scores, *np.zeros((2, 0), np.int64)
    order = np.argsort(scores)[::-1]
    scores, hits = scores[order], np.cumsum(hits[order])
    ends = last_of_each(scores)
    return scores[ends], ends + 1, hits[ends]
