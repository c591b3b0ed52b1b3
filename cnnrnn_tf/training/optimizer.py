"""Learning rates and decay enter; the paper's optimiser leaves, the same on one device as on several."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from cnnrnn_tf.config import TrainingConfig


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class RMSprop(keras.optimizers.RMSprop):
    """Keras's RMSprop, with clipping over all devices and a rate of its own for the CNN.

    Keras clips each replica's share of the gradient before the shares are added up, so two devices would not
    give what one does; here the sum is clipped.

    Args:
        clip_norm: longest gradient, over all weights together; None clips none.
        slow_paths: paths of the variables that learn at another rate, those of a CNN that is fine-tuned.
        slow_factor: what their learning rate is multiplied by.
        **kwargs: of `keras.optimizers.RMSprop`.
    """

    def __init__(
        self,
        *args,
        clip_norm: float | None = None,
        slow_paths: Sequence[str] = (),
        slow_factor: float = 1.0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.clip_norm = clip_norm
        self.slow_paths = list(slow_paths)
        self.slow_factor = slow_factor

    def build(self, variables):
        super().build(variables)
        self._rate_factors = [
            self.slow_factor if variable.path in self.slow_paths else 1.0 for variable in variables
        ]

    def apply(self, grads, trainable_variables=None):
        """Clips the gradient of the whole batch, then lets Keras apply it."""
        context = tf.distribute.get_replica_context()
        if self.clip_norm and context is not None:
            replicas = context.num_replicas_in_sync
            present = [tf.convert_to_tensor(grad) for grad in grads if grad is not None]
            if replicas > 1:
                present = context.all_reduce(tf.distribute.ReduceOp.SUM, present)
            present, _ = tf.clip_by_global_norm(present, self.clip_norm)
            rest = iter([grad / replicas for grad in present])  # Keras adds the replicas' shares up again
            grads = [None if grad is None else next(rest) for grad in grads]
        return super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        factor = self._rate_factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self):
        return {
            **super().get_config(),
            "clip_norm": self.clip_norm,
            "slow_paths": self.slow_paths,
            "slow_factor": self.slow_factor,
        }


def make_optimizer(
    config: TrainingConfig, steps_per_epoch: int, slow_paths: Sequence[str] = ()
) -> keras.optimizers.Optimizer:
    """RMSprop as `config` has it.

    Args:
        config: rates, schedule, clipping and decay.
        steps_per_epoch: for the schedule.
        slow_paths: paths of the variables that learn at `config.backbone_learning_rate`.
    """
    return RMSprop(
        _make_schedule(config, steps_per_epoch),
        rho=config.rho,
        momentum=config.momentum,
        clip_norm=config.clip_norm or None,
        slow_paths=slow_paths,
        slow_factor=config.backbone_learning_rate / config.learning_rate,
        weight_decay=config.weight_decay if config.decoupled_weight_decay else None,
    )


def _make_schedule(config: TrainingConfig, steps_per_epoch: int):
    """The rate of each step: up from 0 in the warm-up, then constant or along a cosine to 0."""
    if config.learning_rate_schedule == "constant" and not config.warmup_epochs:
        return config.learning_rate
    warmup_steps = config.warmup_epochs * steps_per_epoch
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else config.learning_rate,
        max(config.epochs * steps_per_epoch - warmup_steps, 1),
        alpha=1.0 if config.learning_rate_schedule == "constant" else 0.0,
        warmup_target=config.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
