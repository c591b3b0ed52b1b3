"""Standardised features and labels enter; one linear classifier a label leaves, all in one matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnrnn_tf.baselines.method import Examples


def fit_linear(
    make_solver: Callable[[], Any], features: np.ndarray, train: Examples, constant: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fits a linear scikit-learn classifier to each label on the images of which the label is known.

    A label without a known positive gets weights of 0 and the bias `-constant`, one without a known negative
    `+constant`; a label that is known of no image counts as without a positive.

    Args:
        make_solver: gives a new classifier with `fit`, and then `coef_` and `intercept_`.
        features: `<float32>[images, features]`.
        train: the labels of those images.
        constant: see above.

    Returns:
        Weights `<float32>[features, labels]` and biases `<float32>[labels]`.
    """
    weights = np.zeros((features.shape[1], train.num_labels), np.float32)
    biases = np.zeros(train.num_labels, np.float32)
    for label in range(train.num_labels):
        known = train.known[:, label] != 0
        truth = train.targets[known, label]
        if truth.all() or not truth.any():
            biases[label] = constant if truth.any() else -constant
            continue
        # A copy of the rows only where some are unknown: the features may be gigabytes.
        solver = make_solver().fit(features if known.all() else features[known], truth)
        weights[:, label], biases[label] = solver.coef_[0], solver.intercept_[0]
    return weights, biases
