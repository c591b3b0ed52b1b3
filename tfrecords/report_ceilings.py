"""The true labels of a split enter; the best scores that lists of k labels can have leave.

Conventions are those of the project's tables: C-P and C-R are means over the labels that have a positive in
the split, a label that no list holds has precision 0, and unknown labels are in no list and in no count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 8192  # images at a time, so that only one `<bool>[images, labels]` copy of a block is held


def find_ceilings(positive: np.ndarray, unknown: np.ndarray, k: int) -> dict[str, dict[str, float]]:
    """The best scores of lists of k labels, as fractions.

    No lists have a higher O-P, O-R, O-F1 or C-R. C-P and C-F1 are the highest that the lists of
    `list_rarest` and `list_every`, filled by `fill`, reach; others may reach a little more. C-F1 is the
    harmonic mean of a list's C-P and C-R.

    A list of exactly k has to hold wrong labels where an image has fewer true ones, and leaves true ones out
    where it has more; a list of at most k only does the latter. Unknown labels are in no list, so that lists
    of exactly k are shorter where fewer are known.

    Args:
        positive, unknown: `<bool>[images, labels]`.

    Returns:
        `exactly` and `at_most`, each with O-P, O-R, O-F1, C-P, C-R and C-F1.
    """
    rarest = list_rarest(positive, k)
    at_most = (rarest, list_every(rarest, positive))
    exactly = tuple(fill(lists, positive, unknown) for lists in at_most)
    return {"exactly": _find_best(exactly, positive), "at_most": _find_best(at_most, positive)}


def list_rarest(positive: np.ndarray, k: int) -> np.ndarray:
    """The true labels of each image, of more than k the rarest, by their positives in this split.

    A hit adds 1/positives of its label to the sum that C-R is the mean of: no lists have a higher C-R.

    Returns:
        `<int32>[images, min(k, labels)]`: ids, -1 after the last.
    """
    import numpy as np

    num_images, num_labels = positive.shape
    lists = np.full((num_images, min(k, num_labels)), -1, np.int32)
    rarest_first = np.lexsort((-np.arange(num_labels), positive.sum(axis=0)))
    for start in range(0, num_images, _BLOCK):
        rows, places = np.nonzero(positive[start : start + _BLOCK, rarest_first])  # row by row, rarest first
        entry = np.arange(len(rows)) - np.searchsorted(rows, rows)
        kept = entry < lists.shape[1]
        lists[start + rows[kept], entry[kept]] = rarest_first[places[kept]]
    return lists


def list_every(lists: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """`lists` of true labels, with one entry more for each label that is true somewhere and in none of them.

    A label that no list holds has precision 0: one hit makes it 1. It takes the place of the label with the
    most hits, of all in lists where it could stand; not of a label's only hit.
    """
    import numpy as np

    lists = lists.copy()
    hits = np.bincount(lists[lists >= 0], minlength=positive.shape[1])
    for label in np.flatnonzero((hits == 0) & positive.any(axis=0)):
        rows = np.flatnonzero(positive[:, label])
        row, place = np.unravel_index(np.argmax(hits[lists[rows]]), (len(rows), lists.shape[1]))
        replaced = lists[rows[row], place]
        if hits[replaced] > 1:
            lists[rows[row], place] = label
            hits[replaced] -= 1
            hits[label] += 1
    return lists


def fill(lists: np.ndarray, positive: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """`lists` of true labels, with wrong ones added until each is full, or holds all that is known.

    They go where mean precision suffers least. Labels without a positive in the split, or without a hit,
    take them for nothing. Then it is the turn, again and again, of the label for which a wrong entry costs
    least if every list that can still take it does: 1/(hits + entries) each. So they gather on few labels.
    To find the very best places is a covering problem, which is hard; this is the usual greedy solution.
    """
    import numpy as np

    lists, num_labels = lists.copy(), positive.shape[1]
    length = (lists >= 0).sum(axis=1)
    missing = np.minimum(lists.shape[1], num_labels - unknown.sum(axis=1)) - length
    short = np.flatnonzero(missing)
    hits = np.bincount(lists[lists >= 0], minlength=num_labels)
    entries = _count_open(positive, unknown, short)  # of the lists that could take each label
    while len(short):
        saved = np.where(hits > 0, hits + entries, 2 * len(lists))
        best = np.argmax(np.where(entries > 0, saved * len(lists) + entries, -1))
        takers = short[~(positive[short, best] | unknown[short, best])]
        lists[takers, length[takers]] = best
        length[takers] += 1
        missing[takers] -= 1
        entries -= _count_open(positive, unknown, short[missing[short] == 0])
        entries[best] = -len(lists)  # all that could have taken it
        short = short[missing[short] > 0]
    return lists


def _count_open(positive: np.ndarray, unknown: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How many of the images `rows` each label is neither true nor unknown of, `<int64>[labels]`."""
    import numpy as np

    count = np.zeros(positive.shape[1], np.int64)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        count += len(block) - (positive[block] | unknown[block]).sum(axis=0)
    return count


def _find_best(candidates: tuple[np.ndarray, np.ndarray], positive: np.ndarray) -> dict[str, float]:
    """The best of each score; all lists share O-P, O-R and O-F1, and the first have the highest C-R."""
    scores = [_score(lists, positive) for lists in candidates]
    return {name: max(each[name] for each in scores) for name in scores[0]}


def _score(lists: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    import numpy as np

    num_labels = positive.shape[1]
    rows, places = np.nonzero(lists >= 0)
    ids = lists[rows, places]
    listed = np.bincount(ids, minlength=num_labels)
    hits = np.bincount(ids[positive[rows, ids]], minlength=num_labels)
    truth = positive.sum(axis=0)
    measured = truth > 0
    class_p = divide((hits / np.maximum(listed, 1))[measured].sum(), measured.sum())
    class_r = divide((hits / np.maximum(truth, 1))[measured].sum(), measured.sum())
    return {
        "O-P": divide(hits.sum(), listed.sum()),
        "O-R": divide(hits.sum(), truth.sum()),
        "O-F1": divide(2 * hits.sum(), listed.sum() + truth.sum()),
        "C-P": class_p,
        "C-R": class_r,
        "C-F1": divide(2 * class_p * class_r, class_p + class_r),
    }


def divide(numerator, denominator) -> float:
    """The ratio; 0 where there is nothing to divide by."""
    return float(numerator / denominator) if denominator else 0.0
