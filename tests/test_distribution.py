"""Two devices under MirroredStrategy take the steps of one: the same losses, step by step."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn_tf.training.distribution import check_batch_size, make_strategy
from tfrecords.errors import UserError

STEPS = 20

# Logical devices must be set up before TensorFlow starts, hence a process of its own for each number of them.
SCRIPT = """
import json, sys
import keras, numpy as np, tensorflow as tf
from cnnrnn_tf.config import TrainingConfig
from cnnrnn_tf.data.datasets import feature_training_batches
from cnnrnn_tf.model.cnn_rnn import CNNRNN
from cnnrnn_tf.model.losses import PathNegativeLogLikelihood, PathNLL, add_weight_decay
from cnnrnn_tf.training.distribution import make_strategy
from cnnrnn_tf.training.optimizer import make_optimizer


def train(strategy, kind, steps):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = (rng.random([96, 12]) < rng.uniform(0, 0.6, [96, 1])).astype(np.uint8)  # none to nearly all
    assert len(set(labels.sum(axis=1))) > 5 and labels.sum(axis=1).min() == 0
    images = rng.integers(0, 256, [96, 32, 32, 3], dtype=np.uint8)

    with strategy.scope():
        model = CNNRNN(
            12, 12, backbone="vgg16" if kind == "whole" else "compact", feature_layer="pooled", image_size=32,
            cell_units=64, dropout=0.0, trainable_from="block5_conv1" if kind == "whole" else None,
        )
        model.build()
        trained = model.decoder if kind == "decoder" else model
        add_weight_decay(trained, 1e-4)
        # A limit that is met, so that it shows whether the gradient of the whole batch is clipped.
        slow = [] if kind == "decoder" else [each.path for each in model.backbone.trainable_variables]
        rates = {"learning_rate": 1e-4 if kind == "decoder" else 1e-5, "backbone_learning_rate": 1e-6}
        optimizer = make_optimizer(TrainingConfig(**rates, clip_norm=0.5), 1, slow)
        trained.compile(optimizer, loss=PathNegativeLogLikelihood(), metrics=[PathNLL()])

    features = np.arange(96, dtype=np.float32)[:, None]
    if kind == "decoder":
        features = rng.random([96, 512], np.float32)
    batches = feature_training_batches(features, labels, batch_size=16, num_steps=13)
    if kind != "decoder":  # each row's number becomes its image
        def look_up(inputs, targets):
            rows = tf.cast(inputs.pop("features")[:, 0], tf.int32)
            return {"image": tf.gather(images, rows), **inputs}, targets
        batches = batches.map(look_up)
    before = trained.get_weights()
    history = trained.fit(batches, epochs=steps, steps_per_epoch=1, shuffle=False, verbose=0).history
    moved = [float(np.abs(new - old).max()) for new, old in zip(trained.get_weights(), before)]
    moved = [moved[i] for i, weight in enumerate(trained.weights) if weight.trainable]
    return {**history, "replicas": strategy.num_replicas_in_sync, "moved": min(moved)}

num_devices, steps, kinds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices)
strategy = make_strategy([f"CPU:{i}" for i in range(num_devices)])
print("RESULT" + json.dumps({kind: train(strategy, kind, steps) for kind in kinds}))
"""


def train(num_devices, *kinds):
    """{kind: history} of the models trained one after the other in one process."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(num_devices), str(STEPS), *kinds],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("RESULT")[2])


@pytest.fixture(scope="module")
def quick():
    """{kind: history} with one device and with two."""
    return train(1, "decoder", "compact"), train(2, "decoder", "compact")


@pytest.mark.parametrize("kind", ["decoder", pytest.param("whole", marks=pytest.mark.long), "compact"])
def test_two_devices_give_the_losses_of_one(kind, request):
    """At the same global batch, without dropout, on paths of 0 to 12 labels; CNN frozen, tuned or new."""
    histories = (train(1, kind), train(2, kind)) if kind == "whole" else request.getfixturevalue("quick")
    one, two = (history[kind] for history in histories)
    assert (one["replicas"], two["replicas"]) == (1, 2)
    assert len(one["loss"]) == STEPS and one["moved"] > 1e-5  # every weight that is trained
    for measure in ("loss", "nll"):
        np.testing.assert_allclose(two[measure], one[measure], rtol=1e-5)


def test_a_batch_is_shared_evenly_or_refused():
    class Three:
        num_replicas_in_sync = 3

    assert check_batch_size(9, 100, Three) == 9
    assert check_batch_size(64, 6, Three) == 6
    with pytest.raises(UserError, match=r"batch size 64: expected a multiple of the 3 devices .* such as 63"):
        check_batch_size(64, 100, Three)


def test_without_a_gpu_the_one_device_is_the_cpu():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    strategy = make_strategy()
    assert [device[-5:] for device in strategy.extended.worker_devices] == ["CPU:0"]
