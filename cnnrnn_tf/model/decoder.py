"""Image features and the labels so far enter; the scores of every next label, and of END, leave.

This is the paper's model without its CNN (section 3.1, equations 1 to 5): what is trained on cached features,
and what the beam search steps through.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from cnnrnn_tf.model.cells import make_cell
from tfrecords.errors import UserError

MAX_DEVIATIONS = 10.0
"""How far from its mean a standardised feature may be; what lies beyond is taken to lie there."""


class DecoderTables(NamedTuple):
    """What decoding would compute again and again: what tokens add, and where all paths begin."""

    inputs: Any
    """<float>[labels + 2, ...]: `cell.project_inputs` of each token."""
    products: Any
    """<float>[labels + 2, ...]: `cell.project_state` of the state after START and each label; at END's place
    that of the state before START, at START's that of the state after it."""


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class LabelDecoder(keras.Model):
    """The joint space of images and labels, and the recurrence over the labels emitted.

    With U_l the label embeddings, e_k the label emitted before and I the image's features:

        w_k(t) = U_l e_k                                label embedding
        r(t), o(t) = cell(r(t-1), w_k(t))
        x_t = relu(U_o o(t) + U_I I)                    joint image/label space
        s(t) = U_l^T x_t,  p(t) = softmax(s(t))

    U_l has a row for each label and one for END, and is one variable: it reads labels in and scores them.
    START has an input row of its own that is never scored. Dropout acts on what the projections U_o and U_I
    read. The state depends on the labels emitted and never on the image.

    Args:
        num_labels: L; tokens are labels 0 to L - 1, END = L and START = L + 1.
        feature_size: length of the feature vector I.
        cell: `lstm`, `paper`, `gru` or `none`; see `cnnrnn_tf.model.cells`.
        cell_units: size of r and o.
        embedding_dim: dimensions of the joint space.
        dropout: share of the projections' inputs that is dropped in training, 0 to below 1.
        tie_embeddings: False gives the scores a matrix of their own.
        standardise_features: shift and scale each feature by its mean and deviation on the training images,
            which `adapt_features` sets, and cut it at ten deviations.

    Raises:
        UserError: a size below 1, or dropout out of range.
    """

    def __init__(
        self,
        num_labels: int,
        feature_size: int,
        cell: str = "lstm",
        cell_units: int = 512,
        embedding_dim: int = 64,
        dropout: float = 0.5,
        tie_embeddings: bool = True,
        standardise_features: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        _check_sizes(
            num_labels=num_labels,
            feature_size=feature_size,
            cell_units=cell_units,
            embedding_dim=embedding_dim,
        )
        if not 0 <= dropout < 1:
            raise UserError(f"dropout {dropout}: expected 0 or more and less than 1")
        self.num_labels = num_labels
        self.feature_size = feature_size
        self.cell_name = cell
        self.cell_units = cell_units
        self.embedding_dim = embedding_dim
        self.dropout = dropout
        self.tie_embeddings = tie_embeddings
        self.standardise_features = standardise_features
        policy = {"dtype": self.dtype_policy}
        self.cell = make_cell(cell, cell_units, **policy)
        self.recurrence = keras.layers.RNN(self.cell, return_sequences=True, name="recurrence", **policy)
        self.output_dropout = keras.layers.Dropout(dropout, name="output_dropout", **policy)
        self.feature_dropout = keras.layers.Dropout(dropout, name="feature_dropout", **policy)
        projection = {"units": embedding_dim, "use_bias": False, **policy}
        self.output_projection = keras.layers.Dense(name="output_projection", **projection)
        # A thousand features of deviation 1 would fill the joint space with the noise of random weights, more
        # than a thousand images unlearn.
        initializer = "glorot_uniform"
        if standardise_features:
            initializer = keras.initializers.VarianceScaling(0.1, "fan_in", "uniform")
        self.feature_projection = keras.layers.Dense(
            name="feature_projection", kernel_initializer=initializer, **projection
        )

    def build(self, input_shape=None):
        # Unit-length rows in expectation, so that scores start near the size of x.
        initializer = keras.initializers.RandomNormal(stddev=self.embedding_dim**-0.5)
        rows = self.num_labels + 1
        self.label_embeddings = self.add_weight(
            shape=(rows, self.embedding_dim), initializer=initializer, name="label_embeddings"
        )
        self.start_embedding = self.add_weight(
            shape=(1, self.embedding_dim), initializer=initializer, name="start_embedding"
        )
        if self.tie_embeddings:
            self.score_weights = self.label_embeddings
        else:
            self.score_weights = self.add_weight(
                shape=(rows, self.embedding_dim), initializer=initializer, name="score_weights"
            )
        if self.standardise_features:
            self.feature_mean = self.add_weight(
                shape=(self.feature_size,), initializer="zeros", trainable=False, name="feature_mean"
            )
            self.feature_scale = self.add_weight(
                shape=(self.feature_size,), initializer="ones", trainable=False, name="feature_scale"
            )
        self.recurrence.build((None, None, self.embedding_dim))
        self.output_projection.build((None, None, self.cell_units))
        self.feature_projection.build((None, self.feature_size))
        self.built = True

    def call(self, inputs, training=None):
        """Teacher forcing: the scores of every step, given the true labels before it.

        Args:
            inputs: {"features": <float>[batch, features], "tokens": <int>[batch, steps]}, tokens beginning
                with START.
            training: whether dropout acts.

        Returns:
            <float32>[batch, steps, labels + 1], logits, END last.
        """
        projected = self.project(inputs["features"], training=training)  # [batch, embedding]
        states = self.recurrence(self.embed(inputs["tokens"]), training=training)  # [batch, steps, units]
        return self._score(states, projected[:, None], training)

    def project(self, features, training=None):
        """U_I I: <float>[batch, features], standardised first if so set, -> <float>[batch, embedding]."""
        features = ops.cast(features, self.compute_dtype)
        if self.standardise_features:
            mean, scale = (ops.cast(each, features.dtype) for each in (self.feature_mean, self.feature_scale))
            # What hardly ever varied in training has a deviation of next to nothing.
            features = ops.clip((features - mean) * scale, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        return self.feature_projection(self.feature_dropout(features, training=training))

    def embed(self, tokens):
        """U_l e_k: tokens <int>[...], START among them -> <float>[..., embedding]."""
        table = ops.concatenate([self.label_embeddings, self.start_embedding], axis=0)
        # Keras builds a model under several replicas from the mean of their batches, which is of floats.
        tokens = ops.cast(tokens, "int32")
        return ops.cast(ops.take(table, tokens, axis=0), self.compute_dtype)

    def tabulate_inputs(self):
        """What each token adds to the cell's step, <float>[labels + 2, ...]: looked up, not multiplied again.

        The vocabulary is small, and what `cell.project_inputs` makes of a label is the same at every step.
        """
        return self.cell.project_inputs(self.embed(ops.arange(self.num_labels + 2)))

    def tabulate(self) -> DecoderTables:
        """What decoding can look up, for whoever decodes often with the same weights."""
        inputs = self.tabulate_inputs()
        products = [self.cell.project_state(self.initial_state())]
        _, state = self.cell.combine(inputs[-1:], products[0], self.initial_state())
        products.append(self.cell.project_state(state))
        labels = [ops.repeat(each, self.num_labels, axis=0) for each in (products[1], *state)]
        _, states = self.cell.combine(inputs[: self.num_labels], labels[0], labels[1:])
        return DecoderTables(inputs, ops.concatenate([self.cell.project_state(states), *products], axis=0))

    def initial_state(self):
        """The state before START of one path: a list of <float>[1, ...]."""
        state = self.cell.get_initial_state(batch_size=1)
        return list(state) if isinstance(state, (list, tuple)) else [state]

    def step(self, tokens, state, projected):
        """One step of decoding, equal to the same step of teacher forcing without dropout.

        Args:
            tokens: <int>[rows], the labels emitted last, or START.
            state: as `initial_state` gives it, with `rows` rows.
            projected: <float>[rows, embedding], `project` of each row's image.

        Returns:
            The scores of the next token <float32>[rows, labels + 1], and the new state.
        """
        output, state = self.cell(self.embed(tokens), state, training=False)
        return self._score(output, projected, training=False), list(state)

    def adapt_features(self, features) -> None:
        """Sets the mean and the deviation that `standardise_features` uses.

        Args:
            features: <float32>[images, features] of the training images alone, a NumPy array.
        """
        if not self.standardise_features:
            raise UserError("adapt_features: this decoder was made with standardise_features=False")
        count = len(features)
        mean = np.sum(features, axis=0, dtype=np.float64) / count
        mean_square = np.einsum("if,if->f", features, features, dtype=np.float64, casting="safe") / count
        deviation = np.sqrt(np.maximum(mean_square - mean**2, 0))
        # A feature that never varies says nothing; it is only shifted.
        scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 1)
        self.feature_mean.assign(mean.astype(np.float32))
        self.feature_scale.assign(scale.astype(np.float32))

    def get_config(self):
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "feature_size": self.feature_size,
            "cell": self.cell_name,
            "cell_units": self.cell_units,
            "embedding_dim": self.embedding_dim,
            "dropout": self.dropout,
            "tie_embeddings": self.tie_embeddings,
            "standardise_features": self.standardise_features,
        }

    def score(self, projected_output, projected):
        """s(t) from U_o o(t) and U_I I, <float>[..., embedding] each -> <float32>[..., labels + 1]."""
        joint = ops.relu(projected_output + projected)
        scores = ops.matmul(joint, ops.transpose(ops.cast(self.score_weights, joint.dtype)))
        return ops.cast(scores, "float32")

    def _score(self, outputs, projected, training):
        projected_output = self.output_projection(self.output_dropout(outputs, training=training))
        return self.score(projected_output, projected)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} {size}: expected 1 or more")
