"""Model cards: what they say of a run, what they admit not to know, and what must not be in them."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from squares import configure
from tiny_model import make_model

from cnnrnn_tf.commands.__main__ import main as cnnrnn
from cnnrnn_tf.evaluation.predictions import Predictions
from cnnrnn_tf.evaluation.report import choose_protocols, evaluate_predictions, save_metrics
from cnnrnn_tf.serving.model_card import TrainingFacts, write_model_card
from cnnrnn_tf.training import runs
from tfrecords.errors import UserError
from tfrecords.vocabulary import LabelVocabulary

VOCABULARY = LabelVocabulary.from_counts({"sky": 900, "a|b *c*\n# <d>": 60, "boat": 7})
FACTS = {
    "part": "whole",
    "precision": "float32",
    "decoding": {
        "beam_size": 5,
        "min_length": 0,
        "max_length": 4,
        "length_penalty": 0.0,
        "renormalise": False,
    },
    "calibrated": True,
    "image_size": 224,
    "image_fit": "crop",
    "signatures": {"serving_default": {"inputs": ["image_bytes"], "outputs": ["error", "labels"]}},
}


def measure(vocabulary):
    """Measures of 24 made-up images."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, [24, vocabulary.size]).astype(np.uint8)
    scores = np.clip(0.6 * truth + rng.uniform(0, 0.4, truth.shape), 0, 1).astype(np.float32)
    ids = [f"image{i}" for i in range(24)]
    predictions = Predictions(ids, truth, np.ones_like(truth), None, None, None, scores)
    return evaluate_predictions(predictions, predictions, choose_protocols("squares"), vocabulary)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that nobody has trained."""
    path = tmp_path_factory.mktemp("runs") / "squares" / "first"
    (path / "checkpoints").mkdir(parents=True)
    vocabulary = LabelVocabulary.from_counts({"red": 80, "green": 70, "blue": 60})
    configure(path.parent / "data").save(path / runs.CONFIG_FILE)
    vocabulary.save(path / "vocabulary.json")
    make_model(vocabulary, max_path_length=3).save(path / runs.MODEL_FILE)
    splits = {name: SimpleNamespace(num_images=count) for name, count in (("train", 160), ("test", 24))}
    runs.save_environment(path, SimpleNamespace(fingerprint="f0" * 32, splits=splits))
    save_metrics(measure(vocabulary), path / runs.METRICS_FILE)
    return path


@pytest.fixture(scope="module")
def card(finished):
    return write_model_card(LabelVocabulary.load(finished), FACTS, runs.load_facts(finished))


def section(card, title):
    return card.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_card_of_a_run_has_its_data_protocol_results_and_limits(card, finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert card.startswith("# Model card: image tagger, squares\n")
    data = section(card, "Data")
    assert "- Images: 160 train, 24 test; the hold-out" in data
    assert json.loads((finished / "environment.json").read_text())["records_fingerprint"] in data
    assert LabelVocabulary.load(finished).fingerprint in data
    results = section(card, "Protocol and results")
    assert "Measured on test, 24 images, in percent." in results
    assert metrics["protocols"][0]["words"] in results
    [row] = [line for line in results.splitlines() if line.startswith("| exactly 3 |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    expected = next(row for row in metrics["rows"] if row["name"] == "exactly 3")
    measures = ("C-P", "C-R", "C-F1_harmonic", "O-P", "O-R", "O-F1")
    assert cells[2:8] == [f"{100 * expected[key]:.1f}" for key in measures]
    assert "No image gets more than 4 labels" in section(card, "Limits")


def test_each_line_of_the_table_has_as_many_cells_as_its_head(card):
    lines = [line for line in card.splitlines() if line.startswith("|")]
    assert len(lines) > 4
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_the_card_names_no_path_no_commit_and_no_machine(card, finished):
    assert str(finished.parents[2]) not in card and "/" not in re.sub(r"https?://\S+", "", card)
    assert not re.search(r"\b[0-9a-f]{40}\b", card)
    facts = runs.load_facts(finished)
    config = {**facts.config, "model": {**facts.config["model"], "backbone_weights": "/home/jane/vgg.h5"}}
    text = write_model_card(VOCABULARY, FACTS, TrainingFacts(config, facts.environment, facts.metrics))
    assert "jane" not in text and "first weights: a file" in text


def test_a_model_without_a_run_says_what_is_missing():
    text = write_model_card(VOCABULARY, FACTS, None)
    assert "the model was exported without its run" in section(text, "Data")
    assert section(text, "Training").count("not recorded") == 1
    assert "Not measured" in section(text, "Protocol and results")


def test_a_run_from_before_sizes_were_recorded_says_so(finished):
    facts = runs.load_facts(finished)
    old = {key: value for key, value in facts.environment.items() if key != "num_images"}
    text = write_model_card(VOCABULARY, FACTS, TrainingFacts(facts.config, old, None))
    assert "- Images: not recorded" in text
    assert "Not measured" in text


def test_measures_of_an_earlier_version_are_said_to_be_missing_and_stop_no_export(finished):
    facts = runs.load_facts(finished)
    old = {key: value for key, value in facts.metrics.items() if key not in ("protocols", "references")}
    text = write_model_card(VOCABULARY, FACTS, TrainingFacts(facts.config, facts.environment, old))
    results = section(text, "Protocol and results")
    assert "of an earlier version of this program (without protocols, references)" in results


def test_names_cannot_break_the_markdown():
    text = write_model_card(VOCABULARY, FACTS, None)
    assert r"a\|b \*c\* \# \<d\> (60)" in text


def test_labels_with_few_training_images_are_named():
    assert "- 1 label had fewer than 50 training images each, too few to rely on (boat)." in write_model_card(
        VOCABULARY, FACTS, None
    )


def test_a_hold_out_that_stands_in_for_a_test_split_is_said_to_flatter(finished):
    facts = runs.load_facts(finished)
    metrics = {**facts.metrics, "split": "holdout"}
    text = write_model_card(VOCABULARY, FACTS, TrainingFacts(facts.config, facts.environment, metrics))
    assert "the results flatter the model" in text


@pytest.mark.parametrize(("part", "words"), [("backbone", "first half"), ("decoder", "second half")])
def test_half_a_model_is_called_one(part, words):
    assert words in write_model_card(VOCABULARY, {**FACTS, "part": part}, None)


def test_bfloat16_is_said_not_to_be_what_was_measured():
    text = write_model_card(VOCABULARY, {**FACTS, "precision": "bfloat16"}, None)
    assert "This export computes its CNN in bfloat16." in section(text, "Limits")


# ---- the command


def test_half_a_model_goes_into_a_folder_of_its_own(finished, capsys):
    assert cnnrnn(["export", str(finished), "--decoder-only", "--max-beam-size", "6"]) == 0
    facts = json.loads((finished / "export-decoder" / "1" / "assets" / "export.json").read_text())
    assert (facts["part"], facts["max_beam_size"]) == ("decoder", 6)
    assert "export-decoder" in capsys.readouterr().out


def test_bfloat16_comes_with_a_line_on_this_machine(finished, tmp_path, capsys):
    flags = ["--backbone-only", "--precision", "bfloat16", "--warmup-batch-size", "2"]
    assert cnnrnn(["export", str(finished), "--out", str(tmp_path), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("bfloat16: ")
    facts = json.loads((tmp_path / "1" / "assets" / "export.json").read_text())
    assert (facts["precision"], facts["warmup_batch_sizes"]) == ("bfloat16", [1, 2])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backbone-only", "--decoder-only"], "without either, the export holds both"),
        (["--max-beam-size", "-1"], "--max-beam-size -1: expected 1 or more, or 0"),
        (["--max-beam-size", "3"], "max_beam_size 3: expected at least the configured beam size, 5"),
        (["--decoder-only", "--precision", "bfloat16"], "the decoder computes in float32"),
        (["--precision", "float16"], "expected float32 or bfloat16"),
    ],
)
def test_flags_that_contradict_each_other_are_one_line_and_status_2(
    finished, tmp_path, capsys, flags, message
):
    assert cnnrnn(["export", str(finished), "--out", str(tmp_path / "out"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_of_the_run_is_one_line(finished, tmp_path):
    (tmp_path / "config.json").write_text((finished / "config.json").read_text())
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.json: not JSON"):
        runs.load_facts(tmp_path)
