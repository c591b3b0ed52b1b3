"""A loss and a Keras network enter; a method that trains it on features, and scores by it, leaves.

What the gradient-trained baselines share: standardised features, Adam, a penalty on the weights, and training
that stops once the hold-out gains nothing more. A subclass says which loss, and which network where a linear
one will not do.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from cnnrnn_tf.baselines.method import Examples, Method
from cnnrnn_tf.baselines.standardiser import fit_scaler, read_chunks
from cnnrnn_tf.model.decoder import MAX_DEVIATIONS
from tfrecords.errors import UserError

NETWORK_DTYPE = "float32"
"""Of all layers, whatever the global policy: the networks are small."""


class NetworkMethod(Method):
    """A linear scorer, or one with a hidden layer of ReLUs, trained by gradients of `make_loss`.

    Features are shifted and scaled by their means and deviations on the training images and cut at ten
    deviations; one that does not vary there is only shifted. Each batch is taken from the features as it is
    needed, so a memory map is never read whole into memory. `fit` leaves Keras's global seed alone: initial
    weights, dropout and the order of images are drawn from `seed`.

    Args:
        prior_variance: the weights' penalty is ||w||^2 / (2 prior_variance) beside the sum of the losses of
            all training images, the `C` of scikit-learn: the more images, the less it says.
        dropout: share of the standardised features, and of the hidden units, left out in each step.
        learning_rate: Adam's.
        batch_size: images a step.
        max_epochs: epochs at most.
        patience: epochs without a better loss on the hold-out before training ends, with the best weights.

    Attributes:
        hidden_units: units of the hidden layer; 0 for a linear scorer.
        learns_from_positives: whether the loss of an image without labels is always 0.
        model: the network once `fit` has run: features in, logits `<float32>[images, labels]` out.
        history: Keras's `history` of that fit; `data_loss` and `val_data_loss` are without the penalty.

    Raises:
        UserError: a setting is out of its range.
    """

    is_seeded = True
    hidden_units = 0
    learns_from_positives = False

    def __init__(
        self,
        *,
        prior_variance: float = 0.01,
        dropout: float = 0.0,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        max_epochs: int = 200,
        patience: int = 10,
    ) -> None:
        _check_settings(prior_variance, dropout, learning_rate, batch_size, max_epochs)
        self.prior_variance = prior_variance
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.model: keras.Model | None = None
        self.history: dict[str, list[float]] = {}

    def fit(self, train: Examples, holdout: Examples, seed: int = 0) -> None:
        self._check_examples(train, "train")
        self._check_examples(holdout, "holdout", like=train)
        model = self._build(train, seed)
        loss = self.make_loss(seed)
        model.compile(
            optimizer=keras.optimizers.Adam(self.learning_rate),
            loss=loss,
            metrics=[keras.metrics.MeanMetricWrapper(loss.call, name="data_loss")],
            jit_compile=False,  # compiling would take longer than most of these fits
        )
        stop = keras.callbacks.EarlyStopping(
            "val_data_loss", mode="min", patience=self.patience, restore_best_weights=True
        )
        fitted = model.fit(
            _batches(train, self.batch_size, seed),
            validation_data=_batches(holdout, self.batch_size),
            epochs=self.max_epochs,
            callbacks=[stop, keras.callbacks.LambdaCallback(on_epoch_end=self._tell_epoch)],
            shuffle=False,  # the batches are
            verbose=0,
        )
        if not np.isfinite(fitted.history["val_data_loss"]).any():
            raise UserError(
                f"{self.title} found no finite loss on the hold-out: check its features, or lower the "
                f"learning_rate of {self.learning_rate}"
            )
        self.model, self.history = model, fitted.history

    def score(self, features: np.ndarray) -> np.ndarray:
        if self.model is None:
            raise UserError(f"{self.title} has nothing to score by: call fit first")
        features = np.asarray(features)
        expected = self.model.input_shape[1:]
        fits = features.ndim == len(expected) + 1 and features.shape[-1] == expected[-1]
        if not fits or 0 in features.shape[1:]:
            raise UserError(
                f"{self.title} was fitted to features {_shape(expected)}, got {list(features.shape)}: "
                "score the same layer of the same backbone"
            )
        logits = [
            ops.convert_to_numpy(self.model(rows.astype(NETWORK_DTYPE), training=False))
            for rows in read_chunks(features)
        ]
        if not logits:
            return np.zeros([0, self.model.output_shape[-1]], np.float32)
        return self.to_scores(np.concatenate(logits))

    def make_loss(self, seed: int) -> keras.losses.Loss:
        """The loss on logits; labels come as 1, 0 and, where unknown, -1."""
        raise NotImplementedError

    def build_scorer(self, inputs: keras.KerasTensor, train: Examples, seed: int) -> keras.KerasTensor:
        """The network from standardised features to logits, `<float32>[batch, labels]`."""
        penalty = self.make_penalty(len(train.labels))
        hidden = _drop(inputs, self.dropout, seed)
        if self.hidden_units:
            hidden = keras.layers.Dense(
                self.hidden_units,
                activation="relu",
                kernel_initializer=keras.initializers.HeNormal(seed),
                kernel_regularizer=penalty,
                dtype=NETWORK_DTYPE,
                name="hidden",
            )(hidden)
            hidden = _drop(hidden, self.dropout, seed + 1)
        return keras.layers.Dense(
            train.num_labels,
            kernel_initializer="zeros",
            bias_initializer=self.initial_bias(train),
            kernel_regularizer=penalty,
            dtype=NETWORK_DTYPE,
            name="logits",
        )(hidden)

    def initial_bias(self, train: Examples) -> keras.initializers.Initializer:
        """The logits' biases before training."""
        del train
        return keras.initializers.Zeros()

    def make_penalty(self, num_images: int) -> keras.regularizers.Regularizer:
        """The penalty on a matrix of weights, in the units of the mean loss of an image."""
        return keras.regularizers.L2(1 / (2 * self.prior_variance * num_images))

    def to_scores(self, logits: np.ndarray) -> np.ndarray:
        """Scores `<float32>[images, labels]` from the network's logits."""
        return logits

    def _tell_epoch(self, epoch: int, logs: dict | None) -> None:
        if self._on_epoch is not None:
            self._on_epoch(epoch + 1, self.max_epochs)

    def _build(self, train: Examples, seed: int) -> keras.Model:
        scaler = fit_scaler(train.features)
        mean, variance = scaler.mean_.astype(np.float32), np.square(scaler.scale_).astype(np.float32)
        inputs = keras.Input(
            [*(None for _ in train.features.shape[1:-1]), train.features.shape[-1]], dtype=NETWORK_DTYPE
        )
        x = keras.layers.Normalization(mean=mean, variance=variance, dtype=NETWORK_DTYPE)(inputs)
        x = ops.clip(x, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        return keras.Model(inputs, self.build_scorer(x, train, seed))

    def _check_examples(self, examples: Examples, name: str, like: Examples | None = None) -> None:
        rank = 3 if self.reads_hypotheses else 2
        if examples.features.ndim != rank or not examples.features.size:
            wanted = "[images, hypotheses, features]" if self.reads_hypotheses else "[images, features]"
            raise UserError(
                f"{self.title} reads features {wanted}, but {name} has {list(examples.features.shape)}"
            )
        if like is not None:
            widths = [(one.features.shape[-1], one.num_labels) for one in (like, examples)]
            if widths[0] != widths[1]:
                raise UserError(
                    "train and holdout must have the same features and labels, but train has {} and {}, "
                    "holdout {} and {}".format(*widths[0], *widths[1])
                )
        known = examples.targets if self.learns_from_positives else examples.known
        if not known.any():
            what = "label that is known to hold" if self.learns_from_positives else "known label"
            raise UserError(f"{self.title} cannot learn: no image of {name} has a {what}")


def _check_settings(
    prior_variance: float, dropout: float, learning_rate: float, batch_size: int, max_epochs: int
) -> None:
    if not (prior_variance > 0 and learning_rate > 0 and batch_size >= 1 and max_epochs >= 1):
        raise UserError(
            "prior_variance, learning_rate, batch_size and max_epochs must be above 0, got "
            f"{prior_variance}, {learning_rate}, {batch_size} and {max_epochs}"
        )
    if not 0 <= dropout < 1:
        raise UserError(f"dropout, the share left out, must be from 0 to less than 1, got {dropout}")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities from logits, without overflow."""
    return ops.convert_to_numpy(ops.sigmoid(logits))


def log_odds(train: Examples) -> keras.initializers.Initializer:
    """Biases whose sigmoids are the labels' shares of the training images: a long way for small steps."""
    num_known = np.count_nonzero(train.known, axis=0)
    share = (train.targets.sum(axis=0, dtype=np.int64) + 0.5) / (num_known + 1)
    return keras.initializers.Constant(np.log(share / (1 - share)).astype(np.float32))


def _drop(inputs: keras.KerasTensor, rate: float, seed: int) -> keras.KerasTensor:
    return keras.layers.Dropout(rate, seed=seed, dtype=NETWORK_DTYPE)(inputs) if rate else inputs


def _batches(examples: Examples, batch_size: int, seed: int | None = None) -> tf.data.Dataset:
    """Features, and labels of 1, 0 or -1; each pass in another order by `seed`, without one as they lie."""
    random = None if seed is None else np.random.default_rng(seed)
    num_images = len(examples.labels)

    def read_epoch():
        order = np.arange(num_images) if random is None else random.permutation(num_images)
        for start in range(0, num_images, batch_size):
            rows = order[start : start + batch_size]
            marks = np.where(examples.known[rows] != 0, examples.labels[rows] != 0, -1)
            yield examples.features[rows], marks.astype(np.float32)

    signature = (
        tf.TensorSpec([None, *examples.features.shape[1:]], tf.float32),
        tf.TensorSpec([None, examples.num_labels], tf.float32),
    )
    batches = tf.data.Dataset.from_generator(read_epoch, output_signature=signature)
    return batches.apply(tf.data.experimental.assert_cardinality(-(-num_images // batch_size))).prefetch(2)


def _shape(sizes: tuple[int | None, ...]) -> str:
    return str(["images", *("hypotheses" if size is None else size for size in sizes)]).replace("'", "")
