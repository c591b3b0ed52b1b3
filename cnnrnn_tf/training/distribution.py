"""Seeds, a precision and the machine's devices enter; the strategy leaves that `fit` runs under."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfrecords.errors import UserError


def make_strategy(devices: Sequence[str] | None = None) -> tf.distribute.Strategy:
    """MirroredStrategy over all visible GPUs, or over the CPU where there is none.

    Args:
        devices: names such as "CPU:0", "CPU:1", in place of all GPUs.
    """
    return tf.distribute.MirroredStrategy(devices)


def set_up(seed: int, deterministic: bool, precision: str) -> None:
    """Seeds Python, NumPy and TensorFlow, and sets the precision of the layers made from now on."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_global_policy(precision)


def check_batch_size(batch_size: int, num_images: int, strategy: tf.distribute.Strategy) -> int:
    """The global batch: `batch_size`, or all images where they are fewer.

    Raises:
        UserError: the devices could not share it evenly, so their losses could not be added up.
    """
    replicas = strategy.num_replicas_in_sync
    size = min(batch_size, num_images)
    if size % replicas:
        raise UserError(
            f"batch size {size}: expected a multiple of the {replicas} devices that share it, such as "
            f"{max(size // replicas, 1) * replicas}"
        )
    return size
