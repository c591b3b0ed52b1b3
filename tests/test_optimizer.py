"""The paper's optimiser: the rate of each part, the clipping of the whole gradient, and its schedule."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn_tf.config import TrainingConfig
from cnnrnn_tf.training.optimizer import RMSprop, make_optimizer


def step(optimizer, variables, gradients):
    optimizer.build(variables)
    before = [variable.numpy() for variable in variables]
    optimizer.apply([tf.constant(gradient, tf.float32) for gradient in gradients], variables)
    return [variable.numpy() - old for variable, old in zip(variables, before, strict=True)]


def make_variables():
    return [keras.Variable([1.0, 2.0], name="fast"), keras.Variable([3.0], name="slow")]


def test_the_first_steps_are_those_of_the_equations_of_rmsprop_with_momentum():
    config = TrainingConfig(learning_rate=0.1, rho=0.9, momentum=0.9, clip_norm=0.0)
    variables = make_variables()
    optimizer = make_optimizer(config, steps_per_epoch=1)
    mean_square, velocity = 0.0, 0.0
    for gradient in (np.array([0.3, -4.0]), np.array([0.1, 2.0])):
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        velocity = 0.9 * velocity + 0.1 * gradient / np.sqrt(mean_square + 1e-7)
        moved, _ = step(optimizer, variables, [gradient, [0.0]])
        np.testing.assert_allclose(moved, -velocity, rtol=1e-4)


def test_a_gradient_longer_than_the_limit_is_scaled_as_a_whole():
    long, short = ([3.0, 0.0], [4.0]), ([0.3, 0.0], [0.4])  # of lengths 5 and 0.5
    kwargs = {"learning_rate": 0.1, "rho": 0.0, "epsilon": 1.0}  # a step is 0.1 g / sqrt(g² + 1)
    for clip_norm, gradients, scale in ((1.0, long, 0.2), (1.0, short, 1.0), (None, long, 1.0)):
        moved = np.concatenate(step(RMSprop(clip_norm=clip_norm, **kwargs), make_variables(), gradients))
        clipped = scale * np.concatenate(gradients)
        np.testing.assert_allclose(moved, -0.1 * clipped / np.sqrt(clipped**2 + 1), rtol=1e-5)


def test_the_backbone_learns_at_a_rate_of_its_own():
    config = TrainingConfig(learning_rate=1e-2, backbone_learning_rate=1e-3, clip_norm=0.0)
    variables = make_variables()
    optimizer = make_optimizer(config, 1, slow_paths=[variables[1].path])
    fast, slow = step(optimizer, variables, ([1.0, 1.0], [1.0]))
    np.testing.assert_allclose(slow, fast[:1] / 10, rtol=1e-5)


def test_the_cosine_falls_to_zero_over_all_epochs():
    config = TrainingConfig(learning_rate=0.2, epochs=5, learning_rate_schedule="cosine")
    schedule = make_optimizer(config, steps_per_epoch=8)._learning_rate
    assert [float(schedule(step)) for step in (0, 20, 40)] == pytest.approx([0.2, 0.1, 0.0], abs=1e-7)


@pytest.mark.parametrize(
    ("schedule", "rates"), [("cosine", [0.0, 0.1, 0.2, 0.1, 0.0]), ("constant", [0.0, 0.1, 0.2, 0.2, 0.2])]
)
def test_the_warm_up_rises_from_zero_to_the_rate(schedule, rates):
    config = TrainingConfig(learning_rate=0.2, epochs=6, warmup_epochs=2, learning_rate_schedule=schedule)
    rate = make_optimizer(config, steps_per_epoch=8)._learning_rate
    assert [float(rate(step)) for step in (0, 8, 16, 32, 48)] == pytest.approx(rates, abs=1e-7)


def test_weight_decay_is_in_the_loss_unless_asked_for_beside_it():
    assert make_optimizer(TrainingConfig(), 1).weight_decay is None
    beside = make_optimizer(TrainingConfig(decoupled_weight_decay=True, weight_decay=0.01), 1)
    assert beside.weight_decay == 0.01


def test_the_configuration_makes_the_same_optimiser_again():
    optimizer = make_optimizer(TrainingConfig(), 1, slow_paths=["a/kernel"])
    again = RMSprop.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert (again.clip_norm, again.slow_paths) == (5.0, ["a/kernel"])
    assert again.slow_factor == pytest.approx(0.1)
