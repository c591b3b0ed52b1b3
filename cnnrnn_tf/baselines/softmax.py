"""Features and labels enter; scores by the multi-label softmax leave: each image's shares of one."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from cnnrnn_tf.baselines.network import NetworkMethod

_UNKNOWN_LOGIT = -1e9  # its exponential is 0, and 0 times its logarithm is still a number


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class MultiLabelSoftmax(keras.losses.Loss):
    """Cross-entropy between the softmax of the logits and an image's labels, each with an equal share.

    With n labels that are known to hold, an image's loss is the sum over them of -1/n log p, where p is the
    softmax over the known labels alone (Gong et al., arXiv 1312.4894, section 3.1). An image without such a
    label has a loss of 0. Keras reduces over images.

    >>> loss = MultiLabelSoftmax()
    >>> round(float(loss([[1, 1, 0, 0, -1]], [[0.0, 0.0, 0.0, 0.0, 9.0]])), 4)  # log 4: four labels are known
    1.3863
    """

    def __init__(self, name="multi_label_softmax", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Takes labels `[batch, labels]`, -1 where unknown, and logits of that shape; returns [batch]."""
        marks = ops.cast(y_true, "float32")
        logits = ops.where(marks >= 0, ops.cast(y_pred, "float32"), _UNKNOWN_LOGIT)
        positives = ops.cast(marks > 0, "float32")
        total = ops.sum(positives * ops.log_softmax(logits, axis=-1), axis=-1)
        return -ops.divide_no_nan(total, ops.sum(positives, axis=-1))


class Softmax(NetworkMethod):
    """The paper's softmax baseline on features: one linear layer.

    Scores are the softmax over all labels: they sum to 1 over an image's labels, so that 0.5 is no fair cut
    where images have several.
    """

    title = "Softmax"
    learns_from_positives = True

    def make_loss(self, seed: int) -> keras.losses.Loss:
        return MultiLabelSoftmax()

    def to_scores(self, logits: np.ndarray) -> np.ndarray:
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return odds / odds.sum(axis=-1, keepdims=True)


class SoftmaxHidden(Softmax):
    """The same over a hidden layer of 512 ReLUs, with dropout."""

    title = "Softmax, 512 hidden"
    hidden_units = 512

    def __init__(self, *, prior_variance: float = 0.1, dropout: float = 0.5, **settings) -> None:
        super().__init__(prior_variance=prior_variance, dropout=dropout, **settings)
