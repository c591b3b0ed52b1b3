"""Scores and targets of paths enter; one value an image leaves: the negative log-likelihood of its path.

Keras's own reductions divide by all steps, padded ones too, or by each replica's share of the weights. The
likelihood of a path is neither, so the loss here is one value an image, and its mean over images does not
depend on how long the other paths are or on which device they were.
"""

from __future__ import annotations

import keras
from keras import ops

from cnnrnn_tf.data.sequences import path_weights


def path_nll(targets, logits):
    """-log P(path): the sum over its steps, END included, of the softmax cross-entropy.

    Args:
        targets: <int>[batch, steps], labels, then END, then END as padding.
        logits: <float>[batch, steps, labels + 1].

    Returns:
        <float32>[batch], natural-log units.
    """
    logits = ops.cast(logits, "float32")
    targets = ops.cast(targets, "int32")
    steps = ops.sum(
        ops.one_hot(targets, logits.shape[-1], dtype="float32") * ops.log_softmax(logits, axis=-1), axis=-1
    )
    return -ops.sum(steps * path_weights(targets, logits.shape[-1] - 1), axis=-1)


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class PathNegativeLogLikelihood(keras.losses.Loss):
    """The paper's loss (section 3.2): the mean over images of -log P(path); see `path_nll`."""

    def __init__(self, name="path_negative_log_likelihood", **kwargs):
        super().__init__(name=name, reduction=kwargs.pop("reduction", "sum_over_batch_size"), **kwargs)

    def call(self, y_true, y_pred):
        """Takes targets <int>[batch, steps] and logits <float>[batch, steps, labels + 1]; returns [batch]."""
        return path_nll(y_true, y_pred)


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class PathNLL(keras.metrics.MeanMetricWrapper):
    """The mean of `path_nll` over all images seen: the loss without the weight decay."""

    def __init__(self, name="nll", dtype=None):
        super().__init__(fn=path_nll, name=name, dtype=dtype)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


def add_weight_decay(model: keras.Model, decay: float) -> list[str]:
    """Adds decay / 2 * ||w||^2 to the loss for every trainable matrix w, as Caffe's `weight_decay` does.

    The optimiser sees the gradient decay * w, so RMSprop scales it with the rest. Biases and the scales of
    batch normalisation are left alone.

    Args:
        model: a built model; what is frozen now is not decayed.
        decay: 0 or more; 1e-4 in the paper's time and here.

    Returns:
        The paths of the decayed variables.
    """
    decayed = [variable for variable in model.trainable_variables if len(variable.shape) > 1] if decay else []
    for variable in decayed:
        variable.regularizer = keras.regularizers.L2(decay / 2)
    return [variable.path for variable in decayed]
