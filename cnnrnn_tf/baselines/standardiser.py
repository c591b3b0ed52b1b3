"""Features as a CNN gives them enter, of mean 0 and deviation 1 on the training images they leave.

What the baselines with library solvers do to features before all else, and the checks that go with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.preprocessing import StandardScaler

from cnnrnn_tf.baselines.method import Examples
from cnnrnn_tf.model.decoder import MAX_DEVIATIONS
from tfrecords.errors import UserError

_ROWS_AT_ONCE = 4096


class Standardiser:
    """Shifts and scales each feature by its mean and deviation on the training images, and cuts it.

    What lies beyond ten deviations is taken to lie there; a feature that never varied in training is only
    shifted. `LabelDecoder(standardise_features=True)` does the same for CNN-RNN.

    Args:
        title: of the method that asks, for its error messages.
    """

    def __init__(self, title: str):
        self.title = title
        self._scaler: StandardScaler | None = None

    def fit(self, train: Examples, holdout: Examples) -> np.ndarray:
        """Learns means and deviations of `train`.

        Args:
            train: images to learn from.
            holdout: only checked: the same features and labels as `train`.

        Returns:
            `<float32>[images, features]`, the features of `train`, standardised.

        Raises:
            UserError: features with an axis of hypotheses, NaN or infinite, or a hold-out of other widths.
        """
        _check_table(self.title, train.features)
        _check_table(self.title, holdout.features)
        widths, expected = (
            [examples.features.shape[1], examples.num_labels] for examples in (holdout, train)
        )
        if widths != expected:
            raise UserError(
                f"{self.title}: the hold-out has {widths[0]} features and {widths[1]} labels, the training "
                f"images {expected[0]} and {expected[1]}: take both from one data set and one CNN"
            )
        self._scaler = fit_scaler(train.features)
        return self.transform(train.features)

    def transform(self, features: np.ndarray) -> np.ndarray:
        """`<float>[images, features]` -> `<float32>[images, features]`, standardised.

        Raises:
            UserError: `fit` has not run, or the features have another rank or width, or are NaN or infinite.
        """
        if self._scaler is None:
            raise UserError(f"{self.title}: no scores before fit: call fit(train, holdout) first")
        features = np.asarray(features, np.float32)
        _check_table(self.title, features)
        width = self._scaler.n_features_in_
        if features.shape[1] != width:
            raise UserError(
                f"{self.title}: trained on {width} features an image, got {features.shape[1]}: "
                "take them from the same layer of the same CNN"
            )
        if not len(features):
            return features
        standard = self._scaler.transform(features)
        return np.clip(standard, -MAX_DEVIATIONS, MAX_DEVIATIONS, out=standard)


def fit_scaler(features: np.ndarray) -> StandardScaler:
    """Means and deviations of each feature, chunk by chunk: a memory map is never read whole into memory.

    Args:
        features: `<float32>[images, features]`, or `[images, hypotheses, features]`, of training images.

    Raises:
        UserError: a feature is NaN or infinite.
    """
    scaler = StandardScaler()
    for rows in read_chunks(features):
        rows = rows.reshape(-1, rows.shape[-1])
        if not np.isfinite(rows).all():
            raise UserError("features of train are not finite: check the backbone's weights")
        scaler.partial_fit(rows)
    return scaler


def read_chunks(features: np.ndarray) -> Iterator[np.ndarray]:
    """A few thousand rows at a time."""
    rows_at_once = max(_ROWS_AT_ONCE // int(np.prod(features.shape[1:-1])), 1)
    return (features[start : start + rows_at_once] for start in range(0, len(features), rows_at_once))


def _check_table(title: str, features: np.ndarray) -> None:
    if features.ndim != 2 or not features.shape[1]:
        raise UserError(
            f"{title}: reads features [images, features], got {list(features.shape)}"
            + (": pool over the hypotheses first" if features.ndim == 3 else "")
        )
    if not np.isfinite(np.sum(features, dtype=np.float64)):
        raise UserError(f"{title}: features hold NaN or infinite values: extract them anew")
