"""On real photographs a run, its export and the server's loaders give one answer; skipped without them."""

import csv
import json

import numpy as np
import pytest
from shared_data import SHARED

from cnnrnn_tf.commands.__main__ import main as cnnrnn
from cnnrnn_tf.config import ExperimentConfig, preset
from cnnrnn_tf.serving.fresh_process import run_signature_c_api, run_signature_tf1
from cnnrnn_tf.training import run
from tfrecords.build import build
from tfrecords.sources import make_source

SCENES = SHARED / "data" / "scenes"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_imagenet_no_top.weights.h5"
NUM_PHOTOGRAPHS = 100

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (SCENES.is_dir() and WEIGHTS.is_file()), reason=f"no photographs at {SHARED}"),
]


@pytest.fixture(scope="module")
def photographs():
    with open(SCENES / "labels.csv", newline="") as file:
        names = [row["image"] for row in csv.DictReader(file) if row["split"] == "test"]
    return [SCENES / "images" / name for name in names[:NUM_PHOTOGRAPHS]]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    source = make_source("table", table=SCENES / "labels.csv", images=SCENES / "images")
    build(source, "scenes", folder / "data", progress=False)
    config = ExperimentConfig().updated(preset("scenes"), where="preset")
    settings = {
        "data": {"dataset": "scenes", "data_dir": str(folder / "data")},
        "model": {"backbone": "mobilenet_v2", "backbone_weights": str(WEIGHTS)},
        "training": {"epochs": 8},
    }
    return run.train(config.updated(settings, where="test"), folder / "runs", "first")


@pytest.mark.parametrize("loader", [run_signature_c_api, run_signature_tf1])
def test_the_server_s_loaders_give_what_predict_gives_on_100_photographs(
    loader, run_dir, photographs, capsys
):
    capsys.readouterr()
    assert cnnrnn(["predict", str(run_dir), *map(str, photographs), "--json"]) == 0
    predicted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["image"] for each in predicted] == [str(path) for path in photographs]
    assert len({tuple(each["labels"]) for each in predicted}) > 4  # the tagger tells photographs apart

    encoded = np.array([path.read_bytes() for path in photographs], object)
    served = loader(run_dir / "export" / "1", "serving_default", {"image_bytes": encoded})
    assert served["valid"].all() and len(served["valid"]) == NUM_PHOTOGRAPHS
    for i, each in enumerate(predicted):
        num_labels = len(each["labels"])
        assert served["num_labels"][i] == num_labels
        assert [name.decode() for name in served["labels"][i][:num_labels]] == each["labels"]
        for key in ("probabilities", "step_probabilities"):
            np.testing.assert_allclose(served[key][i][:num_labels], each[key], atol=1e-4)
        np.testing.assert_allclose(served["path_probability"][i], each["path_probability"], atol=1e-4)
