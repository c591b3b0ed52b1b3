"""NumPy tables of labels, scores and known cells enter; the same tables, checked and in one form, leave."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfrecords.errors import UserError


def read_table(labels: Any, scores: Any, known: Any = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checks three tables against each other.

    Args:
        labels: `[images, labels]`, above 0 where the image has the label, below 0 where unknown.
        scores: `<float>[images, labels]`.
        known: `[images, labels]`, 0 or False where unknown; None where `labels` says it all.

    Returns:
        Truth `<bool>`, False where unknown; scores `<float32|float64>`; known `<bool>`.

    Raises:
        UserError: the shapes differ, or a known label's score is NaN.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64 if scores.dtype.kind in "iu" else np.float32)
    mask = np.ones(labels.shape, bool) if known is None else np.asarray(known) != 0
    if not (labels.ndim == 2 and labels.shape == scores.shape == mask.shape):
        raise UserError(
            "labels, scores and known must be tables of one shape [images, labels], "
            f"got {list(labels.shape)}, {list(scores.shape)} and {list(mask.shape)}"
        )
    mask = mask & (labels >= 0)
    if np.isnan(scores[mask]).any():
        raise UserError(
            f"{int(np.isnan(scores[mask]).sum())} scores of known labels are NaN and cannot be ranked: "
            "the model that gave them has diverged"
        )
    return (labels > 0) & mask, scores, mask


def last_of_each(sorted_values: np.ndarray) -> np.ndarray:
    """Where each run of equal values ends: `<int>[distinct]` positions in a sorted `[n]` array, n >= 1."""
    return np.append(np.flatnonzero(sorted_values[1:] != sorted_values[:-1]), len(sorted_values) - 1)
