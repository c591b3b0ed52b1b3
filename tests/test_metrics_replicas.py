"""Two replicas measure what one does: a process with two logical devices measures, this one compares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cnnrnn_tf.evaluation.metrics import BinnedMeanAveragePrecision, MAPAtN, RecallAtK, SetMeasures

# Logical devices must be set up before TensorFlow starts, hence a process of its own.
SCRIPT = """
import json, sys
import keras, numpy as np, tensorflow as tf
from test_metrics_replicas import TABLE, all_metrics, identity_model

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
truth, scores, known = TABLE
values = {}

with strategy.scope():
    model = identity_model(truth.shape[1], "mixed_bfloat16")
    model.compile(loss="mse", weighted_metrics=all_metrics(truth.shape[1]))
for batch_size in (8, 12):  # the second run must count from zero
    values[f"evaluate {batch_size}"] = model.evaluate(
        scores, np.where(known, truth, -1), batch_size=batch_size, verbose=0, return_dict=True
    )

with strategy.scope():
    metrics = all_metrics(truth.shape[1])
step = tf.function(lambda rows: [strategy.run(metric.update_state, args=rows) for metric in metrics] and None)
batches = tf.data.Dataset.from_tensor_slices((truth, scores, known.astype("float32"))).batch(9)
for rows in strategy.experimental_distribute_dataset(batches):
    step(rows)
values["run"] = {}
for metric in metrics:
    result = metric.result()
    values["run"].update(result if isinstance(result, dict) else {metric.name: result})

for metric in metrics:
    metric.reset_state()
    metric.update_state(truth[:20], scores[:20], known[:20])
    metric.update_state(truth[20:], scores[20:], known[20:])
values["host"] = {}
for metric in metrics:
    result = metric.result()
    values["host"].update(result if isinstance(result, dict) else {metric.name: result})

as_floats = {run: {name: float(value) for name, value in found.items()} for run, found in values.items()}
print("RESULT" + json.dumps(as_floats))
"""


def _table():
    """37 images, so that 8 a batch leaves 5 (3 and 2) and 12 leaves 1 (1 and none)."""
    rng = np.random.default_rng(0)
    truth = (rng.random((37, 5)) < 0.3).astype(np.int32)
    scores = (rng.integers(0, 12, truth.shape) / 16).astype(np.float32)  # exact in bfloat16
    return truth, scores, rng.random(truth.shape) < 0.85


TABLE = _table()


def all_metrics(num_labels):
    return [
        SetMeasures(num_labels, top_k=2, threshold=0.4, prefix="at_most_2/"),
        SetMeasures(num_labels, threshold=[0.3] * num_labels, prefix="free/"),
        MAPAtN(3, name="map"),
        RecallAtK(2, name="recall"),
        BinnedMeanAveragePrecision(num_labels, num_bins=64),
    ]


def identity_model(num_labels, dtype):
    return keras.Sequential([keras.Input((num_labels,)), keras.layers.Activation("linear", dtype=dtype)])


@pytest.fixture(scope="module")
def on_two_replicas():
    tests = Path(__file__).parent
    search_path = os.pathsep.join((str(tests), str(tests.parent)))
    env = {**os.environ, "PYTHONPATH": search_path, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.split("RESULT")[1])


@pytest.fixture(scope="module")
def on_one():
    truth, scores, known = TABLE
    values = {}
    for metric in all_metrics(truth.shape[1]):
        metric.update_state(truth, scores, known)
        result = metric.result()
        values.update(result if isinstance(result, dict) else {metric.name: result})
    return {name: float(value) for name, value in values.items()}


@pytest.mark.parametrize("batch_size", [8, 12])
def test_evaluate_on_two_replicas_gives_the_digits_of_one(on_two_replicas, on_one, batch_size):
    found = on_two_replicas[f"evaluate {batch_size}"]
    assert {name: found[name] for name in on_one} == pytest.approx(on_one, rel=1e-13)


def test_update_inside_strategy_run_gives_the_digits_of_one(on_two_replicas, on_one):
    assert on_two_replicas["run"] == pytest.approx(on_one, rel=1e-13)


def test_a_metric_made_for_replicas_can_be_fed_on_the_host(on_two_replicas, on_one):
    assert on_two_replicas["host"] == pytest.approx(on_one, rel=1e-13)
