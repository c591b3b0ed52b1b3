"""The name of a baseline enters; its method leaves. Nothing is imported before a method is made."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from tfrecords.errors import UserError, nearest

if TYPE_CHECKING:
    from cnnrnn_tf.baselines.method import Method

METHODS = {
    "softmax": "cnnrnn_tf.baselines.softmax:Softmax",
    "softmax-hidden": "cnnrnn_tf.baselines.softmax:SoftmaxHidden",
    "bce": "cnnrnn_tf.baselines.binary_cross_entropy:BinaryCrossEntropy",
    "bce-hidden": "cnnrnn_tf.baselines.binary_cross_entropy:BinaryCrossEntropyHidden",
    "asl": "cnnrnn_tf.baselines.asymmetric_loss:AsymmetricLoss",
    "warp": "cnnrnn_tf.baselines.warp:Warp",
    "squared": "cnnrnn_tf.baselines.squared_loss:SquaredLoss",
    "svm": "cnnrnn_tf.baselines.linear_svm:LinearSVM",
    "logistic": "cnnrnn_tf.baselines.logistic_regression:LogisticRegression",
    "knn": "cnnrnn_tf.baselines.knn:KNN",
    "joint-embedding": "cnnrnn_tf.baselines.joint_embedding:JointEmbedding",
    "metric-learning": "cnnrnn_tf.baselines.metric_learning:MetricLearning",
    "max-pooling": "cnnrnn_tf.baselines.max_pooling:MaxPooling",
}
"""Every baseline that reads features, in the order of tables (No-RNN is CNN-RNN without its cell)."""

PATH_METHODS = {"cnn-rnn": "CNN-RNN", "no-rnn": "No-RNN"}
"""The methods that emit paths, which are runs of training, and their titles."""

METHOD_NAMES = (*PATH_METHODS, *METHODS)
"""All that can be compared, in the order of tables."""


def check_methods(methods: Sequence[str]) -> None:
    """Refuses names that no method has.

    Raises:
        UserError: with the nearest right name.
    """
    if not methods:
        raise UserError(f"--methods: expected some of {', '.join(METHOD_NAMES)}")
    for name in methods:
        if name not in METHOD_NAMES:
            raise UserError(
                f"no method is called {name!r}{nearest(name, METHOD_NAMES)}: choose from "
                f"{', '.join(METHOD_NAMES)}"
            )
    if len(set(methods)) < len(methods):
        raise UserError(f"--methods: names one twice: {', '.join(methods)}")


def make_method(name: str) -> Method:
    """A new method of that name, as yet without knowledge.

    Raises:
        UserError: no method has this name.
    """
    if name not in METHODS:
        raise UserError(
            f"no method is called {name!r}{nearest(name, METHODS)}: choose from {', '.join(METHODS)}"
        )
    module, _, attribute = METHODS[name].partition(":")
    return getattr(import_module(module), attribute)()
