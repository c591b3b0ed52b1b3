"""Features and labels enter; probabilities by binary cross-entropy, label by label, leave."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from cnnrnn_tf.baselines.method import Examples
from cnnrnn_tf.baselines.network import NetworkMethod, log_odds, sigmoid


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class KnownBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy of the known labels, summed over an image's labels.

    With logits s and labels y of 1 or 0, an image's loss is

        sum over known labels of -y log sigmoid(s) - (1 - y) log(1 - sigmoid(s))

    The sum, and not the mean over labels, is the likelihood of the image's label set, and an image with few
    known labels says less than one with many. Keras reduces over images.

    >>> loss = KnownBinaryCrossentropy()
    >>> round(float(loss([[1, 0, -1]], [[0.0, 0.0, 5.0]])), 4)  # 2 log 2; what is unknown counts for nothing
    1.3863
    """

    def __init__(self, name="known_binary_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Takes labels `[batch, labels]`, -1 where unknown, and logits of that shape; returns [batch]."""
        logits = ops.cast(y_pred, "float32")
        marks = ops.cast(y_true, "float32")
        losses = ops.softplus(logits) - ops.cast(marks > 0, "float32") * logits
        return ops.sum(ops.where(marks >= 0, losses, 0.0), axis=-1)


class BinaryCrossEntropy(NetworkMethod):
    """One logistic regression a label, all trained at once by gradients: a linear layer, then sigmoids."""

    title = "Binary cross-entropy"
    gives_probabilities = True

    def __init__(self, *, prior_variance: float = 0.003, **settings) -> None:
        super().__init__(prior_variance=prior_variance, **settings)

    def make_loss(self, seed: int) -> keras.losses.Loss:
        return KnownBinaryCrossentropy()

    def initial_bias(self, train: Examples) -> keras.initializers.Initializer:
        return log_odds(train)

    def to_scores(self, logits: np.ndarray) -> np.ndarray:
        return sigmoid(logits)


class BinaryCrossEntropyHidden(BinaryCrossEntropy):
    """The same over a hidden layer of 512 ReLUs, with dropout."""

    title = "Binary cross-entropy, 512 hidden"
    hidden_units = 512

    def __init__(self, *, prior_variance: float = 0.03, dropout: float = 0.5, **settings) -> None:
        super().__init__(prior_variance=prior_variance, dropout=dropout, **settings)
