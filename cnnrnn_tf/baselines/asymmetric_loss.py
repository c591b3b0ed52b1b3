"""Features and labels enter; probabilities by the asymmetric loss, which lets easy negatives be, leave."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from cnnrnn_tf.baselines.method import Examples
from cnnrnn_tf.baselines.network import NetworkMethod, log_odds, sigmoid
from tfrecords.errors import UserError

_TINY = 1e-8  # the derivative of 0 to the power of gamma is not always a number


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class AsymmetricSigmoidLoss(keras.losses.Loss):
    """The asymmetric loss (ASL) of Ben-Baruch et al., arXiv 2009.14119, equations 4 to 7.

    With p the sigmoid of a logit and p_m = max(p - clip, 0), an image's loss is the sum over its known labels

        -(1 - p)^gamma_pos log p               where the label holds,
        -p_m^gamma_neg log(1 - p_m)            where it does not

    so a label that does not hold and whose probability is below `clip` counts for nothing. With all three 0
    it is binary cross-entropy. The gradient goes through the powers too. Keras reduces over images.

    Args:
        gamma_neg: how little easy negatives count.
        gamma_pos: how little easy positives count.
        clip: the probability shift m, from 0 to less than 1.

    Raises:
        UserError: an argument is out of its range.

    >>> loss = AsymmetricSigmoidLoss()
    >>> round(float(loss([[1, 0, -1]], [[0.0, 0.0, 5.0]])), 4)  # log 2 - 0.45^4 log 0.55
    0.7177
    """

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        clip: float = 0.05,
        name="asymmetric_sigmoid_loss",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if not (gamma_neg >= 0 and gamma_pos >= 0 and 0 <= clip < 1):
            raise UserError(
                "the asymmetric loss takes gamma_neg and gamma_pos of 0 or more and a clip from 0 up to 1, "
                f"got {gamma_neg}, {gamma_pos} and {clip}"
            )
        self.gamma_neg = gamma_neg
        self.gamma_pos = gamma_pos
        self.clip = clip

    def call(self, y_true, y_pred):
        """Takes labels `[batch, labels]`, -1 where unknown, and logits of that shape; returns [batch]."""
        logits = ops.cast(y_pred, "float32")
        marks = ops.cast(y_true, "float32")
        losses = ops.where(marks > 0, self._positive(logits), self._negative(logits))
        return ops.sum(ops.where(marks >= 0, losses, 0.0), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "gamma_neg": self.gamma_neg,
            "gamma_pos": self.gamma_pos,
            "clip": self.clip,
        }

    def _positive(self, logits):
        return ops.softplus(-logits) * _power(ops.sigmoid(-logits), self.gamma_pos)

    def _negative(self, logits):
        shifted = ops.relu(ops.sigmoid(logits) - self.clip)
        # Without a shift 1 - p rounds to 0 for a large logit, and its logarithm is not finite.
        nll = -ops.log1p(-shifted) if self.clip else ops.softplus(logits)
        return nll * _power(shifted, self.gamma_neg)


def _power(base, exponent):
    return ops.power(ops.maximum(base, _TINY), exponent) if exponent else 1.0


class AsymmetricLoss(NetworkMethod):
    """A linear layer and sigmoids, trained by the asymmetric loss with the constants of its paper.

    Its probabilities are higher than the labels' shares, for easy negatives hardly hold them down: a cut that
    is fitted on the hold-out serves better than 0.5.
    """

    title = "Asymmetric loss"
    gives_probabilities = True

    def make_loss(self, seed: int) -> keras.losses.Loss:
        return AsymmetricSigmoidLoss()

    def initial_bias(self, train: Examples) -> keras.initializers.Initializer:
        return log_odds(train)

    def to_scores(self, logits: np.ndarray) -> np.ndarray:
        return sigmoid(logits)
