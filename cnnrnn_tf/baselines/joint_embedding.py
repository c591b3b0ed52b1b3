"""Features and labels enter; scores by their nearness in one low-dimensional space leave."""

from __future__ import annotations

import keras

from cnnrnn_tf.baselines.method import Examples
from cnnrnn_tf.baselines.network import NETWORK_DTYPE
from cnnrnn_tf.baselines.warp import Warp


class JointEmbedding(Warp):
    """WSABIE (Weston, Bengio, Usunier, IJCAI 2011): images and labels in one space, ranked by inner products.

    An image with features x lies at V x, a label at w, and the label's score is their inner product. WARP
    ranks; what regularises is that the space is small and that no column of V and no w is longer than
    `max_norm`. x has one more feature, always 1 (the bias of V), for standardised features have a mean of 0
    and could not say that a label is frequent.

    Args:
        embedding_dim: dimensions of the space; the authors' 100.
        max_norm: the longest a feature's and a label's vector may be.
        learning_rate, batch_size, max_epochs, patience: of `NetworkMethod`.
    """

    title = "Joint embedding"

    def __init__(
        self,
        *,
        embedding_dim: int = 100,
        max_norm: float = 1.0,
        learning_rate: float = 3e-4,
        batch_size: int = 64,
        max_epochs: int = 200,
        patience: int = 10,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate, batch_size=batch_size, max_epochs=max_epochs, patience=patience
        )
        self.embedding_dim = embedding_dim
        self.max_norm = max_norm

    def build_scorer(self, inputs: keras.KerasTensor, train: Examples, seed: int) -> keras.KerasTensor:
        deviation = inputs.shape[-1] ** -0.5
        longest = [keras.constraints.MaxNorm(self.max_norm, axis=axis) for axis in (0, 1)]
        embedded = keras.layers.Dense(
            self.embedding_dim,
            kernel_initializer=keras.initializers.RandomNormal(stddev=deviation, seed=seed),
            kernel_constraint=longest[1],
            bias_constraint=longest[0],
            dtype=NETWORK_DTYPE,
            name="images",
        )(inputs)
        return keras.layers.Dense(
            train.num_labels,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=deviation, seed=seed + 1),
            kernel_constraint=longest[0],
            dtype=NETWORK_DTYPE,
            name="labels",
        )(embedded)
