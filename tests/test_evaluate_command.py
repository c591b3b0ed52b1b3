"""`cnnrnn evaluate`: a run under every protocol from one decoding, and files of any program's predictions."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from datetime import datetime

import numpy as np
import pytest
from drawn_source import DrawnSource, draw
from PIL import Image
from tiny_model import make_model

from cnnrnn_tf.commands.__main__ import main as cnnrnn
from cnnrnn_tf.config import ExperimentConfig
from cnnrnn_tf.evaluation.calibration import Calibration
from cnnrnn_tf.evaluation.label_sets import cut_sets
from cnnrnn_tf.evaluation.prediction_files import PredictionFile, load_predictions, save_predictions
from cnnrnn_tf.evaluation.predictions import Predictions
from cnnrnn_tf.evaluation.protocol_comparison import (
    COMPARED,
    measure,
    own_row,
    own_sets,
    print_comparison,
    save_label_tables,
)
from cnnrnn_tf.evaluation.report import find_row
from cnnrnn_tf.evaluation.set_metrics import SetMeasures
from cnnrnn_tf.training import evaluate, runs
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.vocabulary import LabelVocabulary

LABELS = ("sky", "sea", "boat")


class TonesSource(DrawnSource):
    """A picture of one tone for each image."""

    def read_image(self, annotation):
        file = io.BytesIO()
        tone = sum(annotation.image_id.encode()) % 256
        Image.fromarray(np.full([32, 32, 3], tone, np.uint8)).save(file, "PNG")
        return file.getvalue()


def annotate(split, count):
    for i in range(count):
        yield draw(f"{split}{i}", *(label for bit, label in enumerate(LABELS) if i >> bit & 1))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run folder as a training leaves it, of a model with random weights."""
    data_dir = tmp_path_factory.mktemp("data")
    contents = {"train": list(annotate("train", 120)), "test": list(annotate("test", 16))}
    build(TonesSource(contents), "tones", data_dir, workers=1, progress=False)
    path = runs.create_run_folder(tmp_path_factory.mktemp("runs"), "tones", "one", datetime(2026, 1, 1))
    vocabulary = LabelVocabulary.load(data_dir / "tones")
    config = ExperimentConfig().updated(
        {"data": {"dataset": "tones", "data_dir": str(data_dir)}, "model": {"image_size": 32}}, where="test"
    )
    config.save(path / runs.CONFIG_FILE)
    vocabulary.save(path / "vocabulary.json")
    make_model(vocabulary, max_path_length=3).save(path / runs.MODEL_FILE)
    runs.save_environment(path, Manifest.load(data_dir / "tones"))
    return path


def tabulate(split, num_images, seed, dataset="", paths=False):
    """Predictions of 12 labels, the last without a positive; a fifth of the images has no label."""
    rng = np.random.default_rng(seed)
    vocabulary = LabelVocabulary.from_counts({f"l{i:02}": 100 - i for i in range(12)})
    labels = (rng.random((num_images, 12)) < 0.25).astype(int)
    labels[rng.random(num_images) < 0.2] = 0
    labels[:, 11] = 0
    scores = 0.35 * labels + 0.65 * rng.random(labels.shape)
    scores[:, 9] *= 0.3  # seldom or never predicted
    ids = [f"{split}{i}" for i in range(num_images)]
    predictions = Predictions.from_scores(ids, labels, np.ones_like(labels), scores, "noisy truth")
    return PredictionFile(predictions, vocabulary, split, dataset)


def add_paths(content, min_length=0):
    """Each image's path has the labels that score 0.45 or more, best first, and `min_length` at least."""
    found = content.predictions
    order = np.argsort(-found.scores, axis=1)
    lengths = np.maximum((found.scores >= 0.45).sum(axis=1), min_length)
    fields = {name: getattr(found, name) for name in ("image_ids", "labels", "known", "scores")}
    paths = Predictions(**fields, paths=order, path_lengths=lengths, path_log_probs=np.zeros(len(found)))
    return dataclasses.replace(content, predictions=paths)


TEST, HOLDOUT = tabulate("test", 300, 0, "nuswide81"), tabulate("holdout", 200, 1, "nuswide81")


@pytest.fixture(scope="module")
def comparison():
    return measure(TEST, HOLDOUT, "all")


# ---- a run


def test_all_protocols_of_a_run_come_from_one_decoding_of_each_split(run_dir, capsys, monkeypatch):
    decoded = []
    predict = evaluate.predict_split
    monkeypatch.setattr(evaluate, "predict_split", lambda *args: decoded.append(args[2]) or predict(*args))
    assert cnnrnn(["evaluate", str(run_dir), "--protocol", "all"]) == 0
    assert decoded == ["test", "holdout"]
    out = capsys.readouterr().out
    assert out.count("test: ") == len(COMPARED) and "why they differ" in out
    saved = json.loads((run_dir / "metrics-test-all.json").read_text())
    assert list(saved["protocols"]) == sorted(COMPARED)
    names = {path.name for path in run_dir.iterdir() if path.suffix in (".jsonl", ".csv", ".json")}
    names -= {"config.json", "vocabulary.json", "environment.json"}
    assert names == {
        *("predictions-test.jsonl", "predictions-holdout.jsonl"),
        *(f"per_label-{split}-{name}.csv" for split in ("test", "holdout") for name in COMPARED),
        "metrics-test-all.json",
    }
    assert all(f"label by label: {run_dir}/per_label-test-{name}.csv\n" in out for name in COMPARED)
    lists = {}
    for name in COMPARED:
        rows = list(csv.DictReader((run_dir / f"per_label-test-{name}.csv").open()))
        lists[name] = {row["lists"] for row in rows}
        assert lists[name] == {own_row(saved["protocols"][name])["name"]}
        assert sum(int(row["positives"]) for row in rows) == round(
            saved["protocols"][name]["labels_per_image"] * saved["protocols"][name]["images"]
        )
    assert lists["free"] == {"best path"} and lists["asl"] == {"free length"}


def test_the_files_of_a_run_give_its_numbers_again_without_the_model(run_dir, capsys):
    assert cnnrnn(["evaluate", str(run_dir)]) == 0
    test, holdout = (run_dir / f"predictions-{split}.jsonl" for split in ("test", "holdout"))
    content = load_predictions(test)
    assert content.dataset == "tones" and content.vocabulary == LabelVocabulary.load(run_dir)
    environment = json.loads((run_dir / "environment.json").read_text())
    assert content.records_fingerprint == environment["records_fingerprint"]
    before = json.loads((run_dir / "metrics-test.json").read_text())
    assert cnnrnn(["evaluate", "--predictions", str(test), "--holdout", str(holdout)]) == 0
    again = json.loads((run_dir / "predictions-test-metrics.json").read_text())
    assert again == before
    assert f"label by label: {run_dir / 'predictions-test-per_label.csv'}" in capsys.readouterr().out
    per_label = (run_dir / "per_label-test.csv").read_text()
    assert (run_dir / "predictions-test-per_label.csv").read_text() == per_label


@pytest.mark.parametrize("split", ["holdout", "train+holdout"])
def test_a_split_that_holds_the_hold_out_fits_no_threshold_on_itself(run_dir, capsys, split):
    assert cnnrnn(["evaluate", str(run_dir), "--split", split]) == 0
    metrics = json.loads((run_dir / f"metrics-{split}.json").read_text())
    assert [row["threshold"] for row in metrics["rows"]] == [None] * len(metrics["rows"])
    assert metrics["holdout_images"] is None
    assert "the hold-out is what is reported, so nothing is fitted on it" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_error_of_a_calibration_is_not_measured_on_the_images_that_fitted_it(run_dir, tmp_path, capsys):
    copy = shutil.copytree(run_dir, tmp_path / "calibrated")
    vocabulary = LabelVocabulary.load(copy)
    Calibration(1.3, 0.4, [0.4] * 3, 0.1, 0.05, 12, vocabulary.fingerprint).save(copy)
    for split, measured in (("holdout", False), ("train+holdout", False), ("train", True), ("test", True)):
        assert cnnrnn(["evaluate", str(copy), "--split", split]) == 0
        out = capsys.readouterr().out
        entry = json.loads((copy / f"metrics-{split}.json").read_text())["calibration"]
        assert ("ece_after" in entry, "ece_before" in entry) == (measured, measured)
        assert ("no calibration error: 12 of these images fitted T (1.30)" in out) != measured
        assert (f"calibration error (ECE, {split})" in out) == measured
    assert cnnrnn(["evaluate", str(copy), "--protocol", "all"]) == 0
    assert capsys.readouterr().out.count("calibration error (ECE, test)") == 1  # once for all protocols


def test_the_rest_of_train_has_its_thresholds_from_the_hold_out(run_dir, capsys):
    assert cnnrnn(["evaluate", str(run_dir), "--split", "train"]) == 0
    metrics = json.loads((run_dir / "metrics-train.json").read_text())
    assert find_row(metrics, "free length")["threshold"] is not None


# ---- what the protocols say of one set of predictions


def test_each_protocol_is_measured_as_it_is_alone(comparison):
    for name in COMPARED:
        assert comparison["protocols"][name] == measure(TEST, HOLDOUT, name)


def test_each_protocol_has_its_own_row(comparison):
    rows = {name: own_row(metrics)["name"] for name, metrics in comparison["protocols"].items()}
    assert rows == {"cnn-rnn": "exactly 3"} | dict.fromkeys(COMPARED[1:], "free length")
    at_most = measure(tabulate("test", 50, 0, "coco2014"), HOLDOUT, "cnn-rnn")
    assert own_row(at_most)["name"] == "at most 3"
    assert own_row(measure(TEST, None, "asl")) is None


@pytest.mark.parametrize(
    ("dataset", "protocol", "min_length", "row"),
    [
        ("nuswide81", "cnn-rnn", 3, "best path, first 3"),
        ("nuswide81", "cnn-rnn", 0, "exactly 3"),  # what is emitted is shorter
        ("coco2014", "cnn-rnn", 0, "best path, first 3"),
        ("voc2007", "cnn-rnn", 0, "best path"),
        ("mine", "free", 0, "best path"),
        ("mine", "asl", 0, "free length"),
        ("mine", "ml-gcn", 0, "free length"),
        ("mine", "srn", 0, "free length"),
    ],
)
def test_the_row_of_a_model_of_paths_is_what_it_emits_unless_the_protocol_cuts_scores(
    dataset, protocol, min_length, row
):
    test = add_paths(tabulate("test", 40, 0, dataset), min_length)
    holdout = add_paths(tabulate("holdout", 40, 1), min_length)
    metrics = measure(test, holdout, protocol)
    assert own_row(metrics)["name"] == row
    name, counted, sets = own_sets(test.predictions, metrics)
    main = metrics["protocols"][0]
    truth = test.predictions.truth
    chosen = truth.any(axis=1) if main["images"] == "tagged" else np.ones(40, bool)
    assert name == row and len(counted) == metrics["images"] == chosen.sum()
    assert sets.sum() == pytest.approx(own_row(metrics)["list_length"] * metrics["images"])
    right = np.sum((sets != 0) & truth[chosen])
    assert right == pytest.approx(own_row(metrics)["O-R"] * truth.sum())
    file = io.StringIO()
    print_comparison(measure(test, holdout, "all"), file)
    text = " ".join(file.getvalue().split())
    assert "free: what the model emits, " in text and "asl: every label that reaches the threshold, " in text
    assert "Not needed: cnn-rnn and free." in text


def test_a_table_of_labels_counts_the_images_and_the_lists_of_its_protocol(tmp_path):
    """Two images of three count for asl; the threshold is 0.5 for srn, and label b is unknown of y."""
    vocabulary = LabelVocabulary.from_counts({"a": 2, "b": 1})
    labels, known = [[1, 1], [1, 0], [0, 0]], [[1, 1], [1, 0], [1, 1]]
    found = Predictions.from_scores(["x", "y", "z"], labels, known, [[0.9, 0.2], [0.4, 0.9], [0.8, 0.1]])
    test = PredictionFile(found, vocabulary, "test")
    holdout = Predictions.from_scores(["h"], [[1, 1]], [[1, 1]], [[0.3, 0.2]])
    for protocol, expected in {
        "asl": [("a", 2, 2, 2), ("b", 1, 1, 1)],
        "srn": [("a", 2, 2, 1), ("b", 1, 0, 0)],
    }.items():
        metrics = measure(test, PredictionFile(holdout, vocabulary, "holdout"), protocol)
        save_label_tables(tmp_path / "t", test, metrics, protocol)
        rows = list(csv.DictReader((tmp_path / f"t-{protocol}.csv").open()))
        keys = ("positives", "predicted", "correct")
        assert [(row["label"], *(int(row[key]) for key in keys)) for row in rows] == expected
        assert [row["lists"] for row in rows] == ["free length"] * 2


def test_a_protocol_under_which_no_image_counts_is_left_out_with_one_line(tmp_path):
    bare = PredictionFile(TEST.predictions.take(~TEST.predictions.truth.any(axis=1)), TEST.vocabulary, "test")
    found = measure(bare, HOLDOUT, "all")
    assert list(found["protocols"]) == ["cnn-rnn", "srn", "free"]
    assert list(found["left_out"]) == ["ml-gcn", "asl"]
    file = io.StringIO()
    print_comparison(found, file)
    assert "ml-gcn is left out: no image counts. Images with at least one label;" in file.getvalue()
    save_label_tables(tmp_path / "t", bare, found, "all")
    assert {path.name for path in tmp_path.iterdir()} == {"t-cnn-rnn.csv", "t-srn.csv", "t-free.csv"}
    nothing = Predictions.from_scores(["x"], [[0] * 12], [[0] * 12], [[0.5] * 12])
    with pytest.raises(UserError, match="none of 1 image of 'test' counts under protocol 'cnn-rnn'"):
        measure(PredictionFile(nothing, TEST.vocabulary, "test"), HOLDOUT, "all")


def test_protocols_of_scores_that_are_no_probabilities_say_so():
    logits = 6 * TEST.predictions.scores - 3
    test = dataclasses.replace(
        TEST, predictions=dataclasses.replace(TEST.predictions, scores=logits), dataset=""
    )
    found = measure(test, None, "all")
    words = {part["about"]: part["words"] for part in found["differences"]}
    assert "srn: every label that reaches the threshold, left out as these scores are no" in words["lists"]
    print_comparison(found, io.StringIO())


def test_the_words_hold_the_numbers_of_the_tables(comparison):
    words = {part["about"]: part["words"] for part in comparison["differences"]}
    found = comparison["protocols"]
    rows = {name: own_row(metrics) for name, metrics in found.items()}
    truth = TEST.predictions.truth
    tagged = int(truth.any(axis=1).sum())
    assert f"cnn-rnn, ml-gcn and asl count the {tagged} images with a label" in words["images"]
    assert f"srn and free count all 300 ({truth.sum() / 300:.2f} labels each)" in words["images"]
    counted = TEST.predictions.take(truth.any(axis=1))
    chosen = counted.scores >= np.float32(0.5)
    never = int(np.sum(~chosen.any(axis=0)))
    plain = 100 * np.sum(chosen & counted.truth) / chosen.sum()
    added = 100 * np.sum(chosen & counted.truth) / (chosen.sum() + never)
    assert never and f"O-P {plain:.1f} without those images" in words["images"]
    assert (
        f"ml-gcn: O-P is {added:.1f} with the {never}, {plain:.1f} without"
        in (words["labels never predicted"])
    )
    assert rows["ml-gcn"]["O-P"] == pytest.approx(added / 100)
    assert rows["ml-gcn"]["O-R"] == rows["srn"]["O-R"] and plain > 100 * rows["srn"]["O-P"]
    assert "cnn-rnn: exactly 3 labels, 3.00 an image" in words["lists"]
    assert "fixed for ml-gcn (0.5) and srn (0.5)" in words["thresholds"]
    assert f"free ({rows['free']['threshold']:.4g}, on 200 images)" in words["thresholds"]
    assert "Not needed: cnn-rnn." in words["thresholds"]
    pair = [100 * rows["asl"][f"C-F1_{average}"] for average in ("harmonic", "per_class")]
    assert f"asl {pair[0]:.1f} and {pair[1]:.1f}" in words["C-F1"]
    assert words["mAP"].startswith("not interpolated for cnn-rnn, ml-gcn, srn, asl and free.")
    assert f"{100 * found['srn']['ranking']['mAP_voc11']:.1f} 11 points" in words["mAP"]
    assert words["MAP@10"].startswith(f"{100 * found['srn']['ranking']['MAP@10_truncated']:.1f} for all")


def test_the_other_precision_of_labels_never_predicted_is_the_one_that_would_be_measured(comparison):
    words = {part["about"]: part["words"] for part in comparison["differences"]}["labels never predicted"]
    row = own_row(comparison["protocols"]["srn"])
    assert row["labels_never_predicted_with_positive"] >= 1
    measures = SetMeasures(12, threshold=0.5, never_predicted_precision=0)
    measures.update_state(TEST.predictions.marks, TEST.predictions.scores)
    other = 100 * float(measures.result()["C-P"])
    concerned = f"srn: {row['labels_never_predicted_with_positive']} of 11 labels with a positive "
    assert concerned in words
    assert f"C-P is {100 * row['C-P']:.1f}, and would be {other:.1f} the other way" in words


def test_where_every_image_has_a_label_the_words_say_that_it_changes_nothing():
    chosen = TEST.predictions.truth.any(axis=1)
    every = PredictionFile(TEST.predictions.take(chosen), TEST.vocabulary, "test", "nuswide81")
    found = measure(every, None, "all")
    words = {part["about"]: part["words"] for part in found["differences"]}
    assert "Here every image has a label, so that this changes nothing." in words["images"]
    assert "None is fitted: no hold-out with labels to fit it on." in words["thresholds"]
    assert "free: every label that reaches the threshold, left out for want of a threshold." in words["lists"]
    print_comparison(found, io.StringIO())


def test_the_comparison_fits_into_a_hundred_columns(comparison):
    file = io.StringIO()
    print_comparison(comparison, file)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    assert all(name in text for name in COMPARED)


@pytest.mark.parametrize(("k", "threshold"), [(3, None), (3, 0.5), (None, 0.5), (20, 0.2), (1, None)])
def test_cut_sets_are_those_that_set_measures_judges(k, threshold):
    rng = np.random.default_rng(4)
    scores = (rng.integers(0, 6, (60, 5)) / 5).astype(np.float32)
    known = rng.random((60, 5)) < 0.8
    labels = (rng.random((60, 5)) < 0.4).astype(int)
    sets = cut_sets(scores, known, k, threshold)
    direct, by_sets = SetMeasures(5, top_k=k, threshold=threshold), SetMeasures(5)
    direct.update_state(np.where(known, labels, -1), scores)
    by_sets.update_state(np.where(known, labels, -1), sets)
    assert {key: float(value) for key, value in direct.result().items()} == {
        key: float(value) for key, value in by_sets.result().items()
    }


# ---- files


def write_foreign(path, split, num_images, seed):
    """What another program may write: its own order of labels, no counts, no paths."""
    rng = np.random.default_rng(seed)
    names = ["sea", "sky", "boat"]
    lines = [{"format": "cnnrnn-predictions", "version": 1, "split": split, "labels": names}]
    for i in range(num_images):
        hits = rng.random(3) < 0.5
        scores = np.round(0.5 * hits + 0.5 * rng.random(3), 3).tolist()
        labels = [name for name, hit in zip(names, hits, strict=True) if hit]
        lines.append({"image": f"{split}-{i}", "labels": labels, "scores": scores})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [dict(zip(names, line["scores"], strict=True)) for line in lines[1:]]


def test_a_file_of_another_program_is_measured(tmp_path, capsys):
    scores = write_foreign(tmp_path / "mine.jsonl", "test", 40, 0)
    write_foreign(tmp_path / "other.jsonl", "holdout", 40, 1)
    command = ["evaluate", "--predictions", str(tmp_path / "mine.jsonl"), "--holdout"]
    assert cnnrnn([*command, str(tmp_path / "other.jsonl"), "--protocol", "srn", "--verbose"]) == 0
    assert "the scores in the file" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "mine-metrics-srn.json").read_text())
    reached = sum(value >= 0.5 for image in scores for value in image.values())
    assert find_row(metrics, "free length")["list_length"] == pytest.approx(reached / 40)
    rows = list(csv.DictReader((tmp_path / "mine-per_label-srn.csv").open()))
    assert [row["label"] for row in rows] == ["boat", "sea", "sky"]
    assert [row["train_count"] for row in rows] == [""] * 3
    assert int(rows[2]["predicted"]) == sum(image["sky"] >= 0.5 for image in scores)
    assert cnnrnn(command[:-1] + ["--protocol", "all"]) == 0
    assert "why they differ" in capsys.readouterr().out


@pytest.mark.parametrize("all_null", [False, True])
def test_scores_of_null_are_measured_where_any_other_is_left(tmp_path, capsys, all_null):
    """The true labels of the hold-out score null: the best threshold would be minus infinity."""
    header = {"format": "cnnrnn-predictions", "version": 1, "labels": ["sea", "sky"]}
    for split in ("test", "holdout"):
        lines = [header | {"split": split}]
        scores = [None, None if all_null else 0.25]
        lines += [{"image": f"{split}{i}", "labels": ["sea"], "scores": scores} for i in range(3)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = [str(tmp_path / f"{split}.jsonl") for split in ("test", "holdout")]
    status = cnnrnn(["evaluate", "--predictions", files[0], "--holdout", files[1], "--protocol", "asl"])
    assert status == (2 if all_null else 0)
    err = capsys.readouterr().err
    if all_null:
        assert "no threshold can be fitted: no score of 3 hold-out images is above -inf" in err
        assert err.count("\n") == 1
    else:
        rows = json.loads((tmp_path / "test-metrics-asl.json").read_text())["rows"]
        assert find_row({"rows": rows}, "free length")["threshold"] == 0.25


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected the folder of a run, or --predictions FILE, and not both"),
        (["run", "--predictions", "p.jsonl"], "and not both"),
        (["run", "--holdout", "p.jsonl"], "--holdout FILE goes with --predictions FILE"),
        (["--predictions", "p.jsonl", "--split", "train"], "a file of predictions is of one split"),
        (["--predictions", "p.jsonl", "--protocol", "sm"], "unknown protocol 'sm'"),
        (["--predictions", "none.jsonl"], "none.jsonl: cannot be read"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(words, message, capsys):
    assert cnnrnn(["evaluate", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_hold_out_of_other_labels_is_refused(tmp_path):
    names = LabelVocabulary.from_counts({"sky": 1})
    one = Predictions.from_scores(["x"], [[1]], [[1]], [[0.5]])
    with pytest.raises(UserError, match="not those of 'test'; they differ such as 'l00'"):
        measure(TEST, PredictionFile(one, names, "holdout"))
    other = LabelVocabulary.from_counts({f"l{i:02}": 50 - i for i in range(12)})
    with pytest.raises(UserError, match="they differ in their training counts"):
        measure(TEST, PredictionFile(HOLDOUT.predictions, other, "holdout"))


def test_a_hold_out_that_shares_images_is_refused():
    with pytest.raises(UserError, match="300 images are both in 'test' and in the hold-out, such as 'test0'"):
        measure(TEST, dataclasses.replace(TEST, split="holdout"))


@pytest.mark.parametrize(("test", "holdout"), [("test", "test"), ("val", "test"), ("val", "val")])
def test_a_hold_out_that_is_another_file_of_what_is_reported_is_refused(test, holdout):
    files = dataclasses.replace(TEST, split=test), dataclasses.replace(HOLDOUT, split=holdout)
    with pytest.raises(
        UserError, match=f"are of split '{holdout}', and thresholds would be fitted on .*; give"
    ):
        measure(*files)


def test_saved_predictions_are_measured_to_the_last_digit(tmp_path, comparison):
    for content in (TEST, HOLDOUT):
        save_predictions(tmp_path / f"{content.split}.jsonl", content)
    files = [load_predictions(tmp_path / f"{split}.jsonl") for split in ("test", "holdout")]
    assert measure(*files, "all") == comparison
