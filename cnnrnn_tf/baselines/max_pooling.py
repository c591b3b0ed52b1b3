"""Features of an image's hypotheses and labels enter; each label's highest probability in one leaves."""

from __future__ import annotations

import keras
from keras import ops

from cnnrnn_tf.baselines.binary_cross_entropy import BinaryCrossEntropy
from cnnrnn_tf.baselines.method import Examples


class MaxPooling(BinaryCrossEntropy):
    """The principle of HCP (Wei et al., arXiv 1406.5726): what any part of the image shows, the image has.

    One linear layer scores the labels of each hypothesis, a part of the image; a label's logit is its highest
    over the image's hypotheses. Binary cross-entropy trains through the pooling, so each label learns from
    the hypothesis that shows it best. Features are `[images, hypotheses, features]`; `score` takes any number
    of hypotheses.
    """

    title = "Max-pooling"
    reads_hypotheses = True

    def build_scorer(self, inputs: keras.KerasTensor, train: Examples, seed: int) -> keras.KerasTensor:
        return ops.max(super().build_scorer(inputs, train, seed), axis=1)
