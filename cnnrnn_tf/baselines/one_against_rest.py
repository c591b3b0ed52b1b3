"""Standardised features and labels enter; one linear classifier a label leaves, all in one matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnrnn_tf.baselines.method import Examples, Method
from cnnrnn_tf.baselines.standardiser import Standardiser
from tfrecords.errors import UserError


class OneAgainstRest(Method):
    """A linear classifier of scikit-learn's for each label, on standardised features.

    Args:
        regularisation: C, how much an image's loss weighs beside |w|^2 / 2; small values regularise.

    Attributes:
        constant: the score of a label that is known to hold of every image; `-constant` of one that holds of
            none.

    Raises:
        UserError: C is not above 0.
    """

    constant: float

    def __init__(self, regularisation: float) -> None:
        if not 0 < regularisation < np.inf:
            raise UserError(f"{self.title}: C {regularisation}: expected more than 0")
        self.regularisation = regularisation
        self._standardiser = Standardiser(self.title)

    def fit(self, train: Examples, holdout: Examples, seed: int = 0) -> None:
        features = self._standardiser.fit(train, holdout)
        self._weights, self._biases = fit_linear(self.make_solver, features, train, self.constant)

    def score(self, features: np.ndarray) -> np.ndarray:
        return self._standardiser.transform(features) @ self._weights + self._biases

    def make_solver(self) -> Any:
        """A new classifier with `fit`, and then `coef_` and `intercept_`."""
        raise NotImplementedError


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
