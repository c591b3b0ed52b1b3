"""Image features and labels enter a method's `fit`; the scores of every label leave its `score`.

What all baselines have in common. Each has a module of its own and is usable alone:

    method = LogisticRegression()
    method.fit(train, holdout, seed=0)
    scores = method.score(test_features)
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfrecords.errors import UserError


@dataclass(frozen=True, eq=False)
class Examples:
    """Images as features, and what is known of their labels.

    Attributes:
        features: `<float32>[images, features]`; for methods that pool over hypotheses
            `<float32>[images, hypotheses, features]`.
        labels: `<uint8>[images, labels]`, 1 where the image has the label; says nothing where unknown.
        known: `<uint8>[images, labels]`, 0 where nobody knows.

    Raises:
        UserError: the tables do not fit each other, or there is no image.
    """

    features: np.ndarray
    labels: np.ndarray
    known: np.ndarray

    def __post_init__(self) -> None:
        for name, kind in (("features", np.float32), ("labels", np.uint8), ("known", np.uint8)):
            object.__setattr__(self, name, np.asarray(getattr(self, name)).astype(kind, copy=False))
        shapes = [list(array.shape) for array in (self.features, self.labels, self.known)]
        if self.labels.ndim != 2 or self.labels.shape != self.known.shape or not self.labels.size:
            raise UserError(
                f"labels and known must be one table [images, labels], got {shapes[1]}, {shapes[2]}"
            )
        if self.features.ndim not in (2, 3) or len(self.features) != len(self.labels):
            raise UserError(
                f"features must be [images, features] with a row for each of the {len(self.labels)} rows of "
                f"labels, got {shapes[0]}"
            )

    @property
    def num_labels(self) -> int:
        """L, the number of labels."""
        return self.labels.shape[1]

    @property
    def targets(self) -> np.ndarray:
        """`<uint8>[images, labels]`: 1 where a label is known to hold, 0 elsewhere."""
        return self.labels * (self.known != 0)


class Method(abc.ABC):
    """One way to score labels from features.

    Unknown labels are neither positive nor negative in `fit`. The hold-out chooses what a method has to
    choose (when to stop, say) and trains nothing. A method with `gives_probabilities` scores from 0 to 1, so
    that 0.5 is a fair cut; the scores of others only rank, and are cut at fitted thresholds.

    Attributes:
        title: what tables call it.
        is_seeded: whether another seed gives another result.
        gives_probabilities: whether scores are probabilities.
        reads_hypotheses: whether `features` has an axis of hypotheses.
    """

    title: str
    is_seeded: bool = False
    _on_epoch: Callable[[int, int], object] | None = None
    gives_probabilities: bool = False
    reads_hypotheses: bool = False

    def watch(self, on_epoch: Callable[[int, int], object]) -> None:
        """Has `fit` call back after each epoch: with its number, from 1, and the number of epochs at most."""
        self._on_epoch = on_epoch

    @abc.abstractmethod
    def fit(self, train: Examples, holdout: Examples, seed: int = 0) -> None:
        """Learns from `train`; may choose by `holdout`.

        Args:
            train: images to learn from.
            holdout: other images, to choose by.
            seed: of all that is drawn at random.

        Raises:
            UserError: the examples do not fit the method or each other.
        """

    @abc.abstractmethod
    def score(self, features: np.ndarray) -> np.ndarray:
        """Scores of all labels, the higher the likelier.

        Args:
            features: `<float32>[images, features]`, as `fit` had them.

        Returns:
            `<float32>[images, labels]`.

        Raises:
            UserError: `fit` has not run, or the features have another width.
        """
