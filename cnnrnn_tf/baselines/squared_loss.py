"""Features and labels enter; scores by the squared loss on labels leave."""

from __future__ import annotations

import keras
from keras import ops

from cnnrnn_tf.baselines.network import NetworkMethod


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class KnownSquaredLoss(keras.losses.Loss):
    """Sum over an image's known labels of (score - label)^2, the label being 1 or 0.

    Keras reduces over images.

    >>> loss = KnownSquaredLoss()
    >>> float(loss([[1, 0, -1]], [[0.5, 2.0, 9.0]]))  # 0.25 + 4
    4.25
    """

    def __init__(self, name="known_squared_loss", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Takes labels `[batch, labels]`, -1 where unknown, and scores of that shape; returns [batch]."""
        marks = ops.cast(y_true, "float32")
        errors = ops.cast(y_pred, "float32") - ops.cast(marks > 0, "float32")
        return ops.sum(ops.where(marks >= 0, ops.square(errors), 0.0), axis=-1)


class SquaredLoss(NetworkMethod):
    """The paper's I-FT baseline on VOC, a squared loss on shared CNN features (Wei et al., arXiv 1406.5726).

    A linear layer on fixed features: what I-FT does beyond that is to fine-tune the CNN. Scores are estimates
    of 0 and 1 that may lie outside.
    """

    title = "Squared loss"

    def __init__(self, *, prior_variance: float = 3e-4, learning_rate: float = 3e-4, **settings) -> None:
        super().__init__(prior_variance=prior_variance, learning_rate=learning_rate, **settings)

    def make_loss(self, seed: int) -> keras.losses.Loss:
        return KnownSquaredLoss()
