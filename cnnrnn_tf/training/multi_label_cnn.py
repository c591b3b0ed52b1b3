"""The settings of an experiment enter; its CNN leaves, trained to judge labels one by one.

Where the CNN is trained, CNN-RNN trains its own, and what it learned of sets would be in its features. The
baselines of a comparison therefore read this one: the same network, recipe, batches and stopping, but binary
cross-entropy on a linear layer in the place of paths.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from cnnrnn_tf.baselines.binary_cross_entropy import KnownBinaryCrossentropy
from cnnrnn_tf.config import ExperimentConfig
from cnnrnn_tf.data import datasets
from cnnrnn_tf.model.backbones import COMPACT, Backbone
from cnnrnn_tf.model.losses import add_weight_decay
from cnnrnn_tf.training.cnn import make_backbone
from cnnrnn_tf.training.distribution import check_batch_size, make_strategy, set_up
from cnnrnn_tf.training.optimizer import make_optimizer
from tfrecords.errors import UserError


class MultiLabelCNN(keras.Model):
    """A backbone and one linear layer: logits of all labels.

    Args:
        backbone: a `Backbone`, its weights loaded.
        num_labels: L.
        dropout: share of the features that is dropped in training.
    """

    def __init__(self, backbone: Backbone, num_labels: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.backbone = backbone
        self.feature_dropout = keras.layers.Dropout(dropout)
        self.head = keras.layers.Dense(num_labels, dtype="float32", name="head")

    def build(self, input_shape=None):
        self.backbone.build()
        self.head.build((None, self.backbone.feature_size))
        self.built = True

    def call(self, inputs, training=None):
        """{"image": <uint8>[batch, size, size, 3] RGB} -> <float32>[batch, labels], logits."""
        features = self.backbone(inputs["image"], training=training)
        return self.head(self.feature_dropout(features, training=training))


def train_multi_label_cnn(
    config: ExperimentConfig,
    train: datasets.Labels,
    holdout: datasets.Labels,
    weights_path: Path,
    on_epoch: Callable[[int, int], object] = lambda epoch, epochs: None,
) -> MultiLabelCNN:
    """Trains the CNN of `config`, or loads what was trained before.

    Args:
        config: data, CNN, optimiser, epochs, patience and seed.
        train: labels of the split `train`.
        holdout: labels of the hold-out, whose loss chooses the epoch.
        weights_path: a `.weights.h5` file: read where it is there, written where it is not.
        on_epoch: called after each epoch with its number, from 1, and the number of epochs at most.

    Returns:
        The model with the weights of its best epoch.

    Raises:
        UserError: a setting or weights that the CNN cannot have, or a loss that was never a number.
    """
    settings = config.training
    set_up(settings.seed, settings.deterministic, settings.precision)
    strategy = make_strategy()
    with strategy.scope():
        backbone, num_labels = make_backbone(config.model), train.labels.shape[1]
        model = MultiLabelCNN(backbone, num_labels, config.model.dropout, name="multi_label_cnn")
        model.build()
    if weights_path.is_file():
        model.load_weights(weights_path)
        return model
    folder, num_images = config.data.data_dir / config.data.dataset, len(train.image_ids)
    batch_size = check_batch_size(settings.batch_size, num_images, strategy)
    options = {"batch_size": batch_size, "seed": settings.seed, "image_fit": model.backbone.image_fit}
    is_compact = config.model.backbone == COMPACT
    batches = datasets.image_training_batches(
        folder,
        "train",
        model.backbone.image_size,
        _mark(train),
        num_steps=None,
        flip=settings.flip,
        shift=settings.shift if is_compact else 0.0,
        crop=settings.crop and not is_compact,
        **options,
    )
    holdout_batches = datasets.image_validation_batches(
        folder, "holdout", model.backbone.image_size, _mark(holdout), num_steps=None, **options
    )
    steps = datasets.count_steps(num_images, batch_size)
    slow = [] if is_compact else [variable.path for variable in model.backbone.trainable_variables]
    with strategy.scope():
        if not settings.decoupled_weight_decay:
            add_weight_decay(model, settings.weight_decay)
        model.compile(
            make_optimizer(settings, steps, slow),
            loss=KnownBinaryCrossentropy(),
            metrics=[keras.metrics.MeanMetricWrapper(KnownBinaryCrossentropy().call, name="data_loss")],
        )
    stop = keras.callbacks.EarlyStopping(
        "val_data_loss",
        mode="min",
        patience=settings.patience or settings.epochs,
        restore_best_weights=True,
    )
    fitted = model.fit(
        batches,
        validation_data=holdout_batches,
        epochs=settings.epochs,
        steps_per_epoch=steps,
        callbacks=[
            stop,
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: on_epoch(epoch + 1, settings.epochs)
            ),
        ],
        shuffle=False,
        verbose=0,
    )
    if not np.isfinite(fitted.history.get("val_data_loss", [np.nan])).any():
        raise UserError("the CNN of the baselines: its loss was never a number; try a lower learning_rate")
    partial = weights_path.with_name(f"partial-{weights_path.name}")
    model.save_weights(partial)
    partial.replace(weights_path)
    return model


def _mark(truth: datasets.Labels) -> np.ndarray:
    """`<int8>[images, labels]`: 1 where a label holds, 0 where not, -1 where unknown."""
    return np.where(truth.known != 0, truth.labels.astype(np.int8), np.int8(-1))
