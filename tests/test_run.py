"""One experiment from records to export on a small data set; stopped and resumed; and what it refuses."""

import contextlib
import csv
import dataclasses
import io
import json
import shlex
import shutil

import keras
import numpy as np
import pytest
from drawn_source import DrawnSource, draw
from PIL import Image
from squares import SquaresSource, annotate, build_squares, configure, leave_out_figures, with_model
from tiny_model import make_model

import train as train_command
from cnnrnn_tf.commands.__main__ import main as cnnrnn
from cnnrnn_tf.config import DecodingConfig
from cnnrnn_tf.evaluation.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
)
from cnnrnn_tf.evaluation.predictions import Predictions
from cnnrnn_tf.evaluation.report import find_row
from cnnrnn_tf.serving.export import export, load_export
from cnnrnn_tf.serving.model_card import write_model_card
from cnnrnn_tf.serving.signatures import Tagger, tag_files
from cnnrnn_tf.serving.versions import find_export
from cnnrnn_tf.training import callbacks, evaluate, results, run, runs
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.manifest import is_held_out
from tfrecords.report import summarize
from tfrecords.vocabulary import LabelVocabulary


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    build_squares(path)
    build_squares(path, "other_truth", shift=3)
    return path


@pytest.fixture(scope="module")
def printed():
    """What the trainings of `finished`, `untested` and `stopped` printed, by the name of their run."""
    return {}


def train_and_listen(printed, config, runs_dir, name):
    printed[name] = io.StringIO()
    with contextlib.redirect_stdout(printed[name]):
        return run.train(config, runs_dir, name)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs of today's")  # a shell needs quotes around it


@pytest.fixture(scope="module")
def finished(data_dir, runs_dir, printed):
    return train_and_listen(printed, configure(data_dir), runs_dir, "first")


@pytest.fixture(scope="module")
def untested(tmp_path_factory, runs_dir, printed):
    """A run on a data set without a test split, and the folder of that set."""
    folder = tmp_path_factory.mktemp("untested")
    build(SquaresSource({"train": list(annotate("train", 160))}), "half", folder, workers=1, progress=False)
    return train_and_listen(printed, configure(folder, "half", epochs=1), runs_dir, "untested"), folder


@pytest.fixture
def exports():
    """Asked for by a test whose own trainings end with figures and an export."""


@pytest.fixture(autouse=True)
def no_other_exports(request, monkeypatch):
    """Figures and an export take a third of such a training, and those of `finished` have them."""
    if "exports" not in request.fixturenames:
        leave_out_figures(monkeypatch)
        monkeypatch.setattr(run, "export", lambda *args, **facts: None)


def read_history(path):
    with open(path / "history.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def read_weights(path):
    return [weight.numpy() for weight in keras.saving.load_model(path / runs.MODEL_FILE).weights]


# ---- what a run leaves


def test_a_run_leaves_the_folder_of_the_design(finished):
    assert finished.parts[-2:] == ("squares", "first")
    names = {path.name for path in finished.iterdir()}
    assert names == {
        *("config.json", "vocabulary.json", "environment.json", "train.log", "history.csv", "metrics.json"),
        *(
            "per_label.csv",
            "checkpoints",
            "train",
            "validation",
            "figures",
            "export",
            "calibration.json",
            "backup",
        ),
    }
    assert [path.name for path in (finished / "checkpoints").iterdir()] == ["best.keras"]
    assert [path.name for path in (finished / "export").iterdir()] == ["1"]
    for events in ("train", "validation"):
        assert list((finished / events).glob("events.out.tfevents.*"))
    for figure in ("test_images.png", "history.png", "reliability.png"):
        with Image.open(finished / "figures" / figure) as image:
            assert min(image.size) > 100


def test_the_settings_the_labels_and_the_versions_are_kept(finished, data_dir):
    assert runs.load_config(finished) == configure(data_dir)
    assert LabelVocabulary.load(finished) == LabelVocabulary.load(data_dir / "squares")
    environment = json.loads((finished / "environment.json").read_text())
    assert set(environment["packages"]) == {"cnnrnn-tf", "tensorflow", "keras", "numpy"}
    assert "CPU" in environment["devices"]


def test_the_model_learns_what_the_pictures_show(finished):
    history = read_history(finished)
    assert len(history) == 8
    assert min(row["val_nll"] for row in history) < history[0]["val_nll"] / 2
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["images"] == 24
    assert find_row(metrics, "best path")["O-F1"] > 0.9  # of every label, 0.67; of none, 0


def test_the_checkpoint_is_that_of_the_best_epoch_on_the_hold_out(finished, data_dir):
    loaded = runs.load_run(finished)
    assert loaded.model.vocabulary_fingerprint == loaded.vocabulary.fingerprint
    from cnnrnn_tf.data import datasets
    from cnnrnn_tf.model.losses import path_nll

    folder = data_dir / "squares"
    labels = datasets.load_labels(folder, "holdout")
    assert all(is_held_out(image_id) for image_id in labels.image_ids)
    batches = datasets.image_validation_batches(
        folder, "holdout", 32, labels.labels, batch_size=64, num_steps=4
    )
    values = np.concatenate([path_nll(targets, loaded.model(inputs)) for inputs, targets in batches])
    best = min(row["val_nll"] for row in read_history(finished))
    np.testing.assert_allclose(values.mean(), best, rtol=1e-4)


def test_the_export_carries_the_vocabulary_and_tags_the_example_photographs(finished, capsys):
    assert load_export(finished / "export").vocabulary == LabelVocabulary.load(finished)
    examples = sorted((finished / "figures" / "examples").iterdir())
    assert [path.suffix for path in examples] == [".png"] * 4
    capsys.readouterr()
    answers = []
    for model in (finished, finished / "export"):
        assert cnnrnn(["predict", str(model), str(examples[0].parent), "--json"]) == 0
        answers.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert [each["labels"] for each in answers[0]] == [each["labels"] for each in answers[1]]
    assert len(answers[0]) == 4


def test_the_model_card_of_the_export_is_made_of_what_the_run_recorded(finished):
    assets = finished / "export" / "1" / "assets"
    facts = runs.load_facts(finished)
    assert facts.environment["num_images"] == {"train": 160, "test": 24}
    expected = write_model_card(
        LabelVocabulary.load(finished), json.loads((assets / "export.json").read_text()), facts
    )
    assert (assets / "model_card.md").read_text(encoding="utf-8") == expected
    assert "Measured on test, 24 images" in expected


def test_the_calibration_is_fitted_on_the_hold_out_and_measured_on_the_test_split(finished, data_dir):
    loaded = runs.load_run(finished)
    holdout, test = (
        evaluate.predict_split(loaded.model, data_dir / "squares", split, loaded.config.decoding)
        for split in ("holdout", "test")
    )
    found = loaded.calibration
    assert found.num_images == len(holdout) == 20
    assert found.temperature == pytest.approx(fit_temperature(holdout.scores, holdout.marks), rel=1e-3)
    assert len(found.label_thresholds) == 3
    entry = json.loads((finished / "metrics.json").read_text())["calibration"]
    assert (entry["images"], entry["holdout_images"]) == (24, 20)
    assert entry["ece_before"] == pytest.approx(
        expected_calibration_error(test.scores, test.labels), abs=1e-4
    )
    after = expected_calibration_error(apply_temperature(test.scores, found.temperature), test.labels)
    assert entry["ece_after"] == pytest.approx(after, abs=1e-4)
    assert entry["holdout_ece_after"] == found.ece_after
    drawn = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "save_grid", lambda path, pictures, **content: drawn.update(content))
        arguments = finished / "x.png", data_dir / "squares", "test", test, loaded.vocabulary
        results.save_split_grid(*arguments, loaded.calibration)
    names = np.array(loaded.vocabulary.names)
    for row, tags in enumerate(drawn["tags"]):
        for name, shown in tags:
            score = test.scores[row, names == name]
            assert shown == pytest.approx(float(found.apply(score)[0]))
    line = "calibration error (ECE, test): "
    assert line in (finished / "train.log").read_text()


def test_predict_and_the_export_answer_with_calibrated_probabilities(finished, tmp_path, capsys):
    examples = finished / "figures" / "examples"
    plain = shutil.copytree(finished, tmp_path / "of_before")
    (plain / "calibration.json").unlink()
    capsys.readouterr()
    answers = []
    for model in (plain, finished, finished / "export"):
        assert cnnrnn(["predict", str(model), str(examples), "--json"]) == 0
        answers.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    fitted = load_export(finished / "export").calibration
    assert fitted == runs.load_run(finished).calibration and fitted.temperature != 1
    for before, by_run, by_export in zip(*answers, strict=True):
        expected = apply_temperature(np.array(before["probabilities"]), fitted.temperature)
        for found in (by_run, by_export):
            assert found["labels"] == before["labels"]
            assert found["probabilities"] == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_run_of_before_there_were_calibrations_is_exported_and_evaluated_without(finished, tmp_path):
    plain = shutil.copytree(finished, tmp_path / "of_before")
    (plain / "calibration.json").unlink()
    assert cnnrnn(["export", str(plain), "--out", str(tmp_path / "export")]) == 0
    assert load_export(tmp_path / "export").calibration is None
    assert "calibration" not in evaluate.evaluate_run(runs.load_run(plain))


def test_evaluating_a_finished_run_gives_the_measures_it_printed(finished, capsys):
    assert cnnrnn(["evaluate", str(finished)]) == 0
    out = capsys.readouterr().out
    printed = json.loads((finished / "metrics.json").read_text())
    again = json.loads((finished / "metrics-test.json").read_text())
    assert again["rows"] == printed["rows"]
    assert again["calibration"] == pytest.approx(printed["calibration"])
    assert again["ranking"] == pytest.approx(printed["ranking"], nan_ok=True)
    assert "best path" in out and "MAP@10" in out and "calibration error (ECE, test)" in out


def test_the_log_names_the_devices_and_ends_with_the_table(finished):
    log = (finished / "train.log").read_text()
    assert "on CPU:0" in log and "epoch" in log and "best path" in log


# ---- selection


def test_the_labels_of_the_test_split_choose_nothing(finished, data_dir, tmp_path):
    """The same pictures and the same training labels, another truth in the test split: the same weights."""
    other = run.train(configure(data_dir, "other_truth"), tmp_path, "other")
    assert [row["val_nll"] for row in read_history(other)] == [
        row["val_nll"] for row in read_history(finished)
    ]
    for ours, theirs in zip(read_weights(finished), read_weights(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    rows = [
        find_row(json.loads((path / "metrics.json").read_text()), "best path") for path in (finished, other)
    ]
    assert rows[1]["O-F1"] < rows[0]["O-F1"] - 0.2


def test_early_stopping_counts_the_epochs_before_a_resumption():
    model = keras.Sequential()
    stopping = callbacks.EarlyStopping(patience=2, history=[3.0, 1.0, 2.0])
    stopping.set_model(model)
    model.stop_training = False
    stopping.on_epoch_end(3, {"val_nll": 1.5})
    assert model.stop_training


# ---- stopped and resumed


def test_what_dropout_drops_follows_from_the_seed_the_epoch_and_the_step():
    def masks(seed, epochs):
        layer = keras.layers.Dropout(0.5)
        model = keras.Sequential([keras.Input((50,)), layer])
        callback = callbacks.DropoutOfEpoch(seed)
        callback.set_model(model)
        found = {}
        for epoch in epochs:
            callback.on_epoch_begin(epoch)
            found[epoch] = [model(np.ones([1, 50]), training=True).numpy().tobytes() for _ in range(2)]
        return found

    unbroken, resumed = masks(0, range(3)), masks(0, [2])
    assert unbroken[2] == resumed[2]
    assert len({mask for epoch in unbroken.values() for mask in epoch}) == 6
    assert masks(1, [2])[2] != resumed[2]


class StopAt(keras.callbacks.Callback):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.stop_epoch, self.current = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.current = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.current == self.stop_epoch and batch == 3:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def interrupted(data_dir, runs_dir, printed):
    """A run that was stopped in its third epoch."""
    make = run.make_callbacks
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(run, "make_callbacks", lambda *args: [StopAt(2), *make(*args)])
        train_and_listen(printed, configure(data_dir), runs_dir, "stopped")
    return runs_dir / "squares" / "stopped"


@pytest.fixture
def stopped(interrupted, tmp_path):
    """A copy of it to go on with, or to damage."""
    return shutil.copytree(interrupted, tmp_path / "squares" / "stopped")


def test_a_run_stopped_by_ctrl_c_says_how_to_go_on(interrupted, printed):
    command = shlex.join(["--resume", str(interrupted)])
    out = printed["stopped"].getvalue()
    assert "2 finished epochs are saved. Go on with: " in out and f"train.py {command}" in out
    with pytest.raises(UserError, match="the run is not finished; finish it with"):
        runs.load_run(interrupted)


def test_a_run_that_was_stopped_and_resumed_ends_as_an_unbroken_one(finished, stopped):
    (stopped / "backup").rename(stopped / "backup.old")  # as if stopped while the backup was replaced
    assert train_command.main(["--resume", str(stopped)]) == 0
    np.testing.assert_allclose(
        [row["val_nll"] for row in read_history(stopped)],
        [row["val_nll"] for row in read_history(finished)],
        rtol=1e-5,
    )
    for ours, theirs in zip(read_weights(finished), read_weights(stopped), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


# ---- from pictures to squares


class WideSource(SquaresSource):
    """The same pictures twice as wide."""

    def read_image(self, annotation):
        file = io.BytesIO()
        with Image.open(io.BytesIO(super().read_image(annotation))) as square:
            square.resize((64, 32)).save(file, "PNG")
        return file.getvalue()


@pytest.mark.parametrize(
    ("frozen", "image_fit"),
    [
        (True, "crop"),
        (False, "stretch"),
        pytest.param(True, "stretch", marks=pytest.mark.long),
        pytest.param(False, "crop", marks=pytest.mark.long),
    ],
)
def test_pictures_become_squares_in_one_way_in_evaluation_and_export(tmp_path, frozen, image_fit):
    contents = {"train": list(annotate("train", 48)), "test": list(annotate("test", 8))}
    source = WideSource(contents)
    build(source, "wide", tmp_path, workers=1, progress=False)
    vocabulary = LabelVocabulary.load(tmp_path / "wide")
    model = make_model(vocabulary, max_path_length=3, image_fit=image_fit)
    model.backbone.trainable = not frozen
    decoding = DecodingConfig()
    found = evaluate.predict_split(model, tmp_path / "wide", "test", decoding)
    annotations = {annotation.image_id: annotation for annotation in contents["test"]}
    files = [source.read_image(annotations[image_id]) for image_id in found.image_ids]

    def differ_from(tagger):
        probabilities = [image.path_probability for image in tag_files(tagger, files)]
        return np.abs(np.divide(probabilities, np.exp(found.path_log_probs)) - 1).max()

    assert differ_from(load_export(export(model, vocabulary, decoding, tmp_path / "export"))) < 1e-3
    model.backbone.image_fit = "crop" if image_fit == "stretch" else "stretch"
    assert differ_from(Tagger(model, vocabulary, decoding)) > 0.01  # or this test could not fail


@pytest.mark.long
def test_a_run_trains_on_pictures_as_its_settings_say(data_dir, tmp_path):
    build(WideSource({"train": list(annotate("train", 64))}), "wide", tmp_path, workers=1, progress=False)
    first, second = (
        run.train(with_model(configure(tmp_path, "wide", epochs=1), image_fit=image_fit), tmp_path, image_fit)
        for image_fit in ("crop", "stretch")
    )
    for path in (first, second):
        assert runs.load_run(path).model.image_fit == path.name
    [one], [other] = read_history(first), read_history(second)
    # Far more than two runs of one setting differ by, which is rounding.
    assert abs(one["nll"] - other["nll"]) > 1e-3 and abs(one["val_nll"] - other["val_nll"]) > 1e-3


# ---- cached features, label orders


def test_a_frozen_backbone_sees_each_image_once_and_another_run_not_at_all(data_dir, tmp_path, monkeypatch):
    config = with_model(
        configure(data_dir, epochs=2), backbone="mobilenet_v2", image_size=32, standardise_features=True
    )
    first = run.train(config, tmp_path, "first")
    from cnnrnn_tf.model.backbones import Backbone

    def refuse(*args, **options):
        raise AssertionError("the CNN was run again")

    monkeypatch.setattr(Backbone, "call", refuse)
    with pytest.raises(AssertionError, match="run again"):  # another seed, other random weights
        run.train(
            dataclasses.replace(config, training=dataclasses.replace(config.training, seed=1)),
            tmp_path,
            "other",
        )
    second = run.train(config, tmp_path, "second")
    assert read_history(first) == read_history(second)


@pytest.mark.parametrize(
    "order", [*(pytest.param(each, marks=pytest.mark.long) for each in ("rare", "random")), "shuffled"]
)
def test_every_label_order_can_be_trained(data_dir, tmp_path, order):
    config = configure(data_dir, epochs=3)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, label_order=order))
    path = run.train(config, tmp_path, order)
    assert runs.load_run(path).model.label_order == order
    history = read_history(path)
    assert history[-1]["nll"] < history[0]["nll"]


def test_a_cnn_that_is_fine_tuned_learns_at_its_own_rate_from_the_named_layer_on(
    data_dir, tmp_path, monkeypatch
):
    made = []
    make = run.make_optimizer
    monkeypatch.setattr(run, "make_optimizer", lambda *args: made.append(make(*args)) or made[-1])
    config = with_model(
        configure(data_dir, epochs=1), backbone="mobilenet_v2", fine_tune_from="block_16_project"
    )
    path = run.train(config, tmp_path, "tuned")
    backbone = runs.load_run(path).model.backbone
    tuned = {variable.path.split("/")[-2] for variable in backbone.trainable_variables}
    assert tuned == {"block_16_project", "Conv_1"}
    assert {name.split("/")[-2] for name in made[0].slow_paths} == tuned
    assert made[0].slow_factor == pytest.approx(config.training.backbone_learning_rate / 1e-3)


def test_training_stops_where_the_hold_out_no_longer_improves(data_dir, tmp_path):
    config = configure(data_dir, epochs=9, patience=2, learning_rate=1e-30, warmup_epochs=0)
    path = run.train(with_model(config, backbone="mobilenet_v2"), tmp_path, "still")
    assert len(read_history(path)) == 3


def test_a_run_of_mixed_precision_without_dropout_answers_as_its_export_does(
    data_dir, tmp_path, capsys, exports
):
    config = with_model(configure(data_dir, epochs=1, precision="mixed_bfloat16"), dropout=0.0)
    try:
        path = run.train(config, tmp_path, "mixed")
    finally:
        keras.config.set_dtype_policy("float32")
    capsys.readouterr()
    answers = []
    for model in (path, path / "export"):
        assert cnnrnn(["predict", str(model), str(path / "figures" / "examples"), "--json"]) == 0
        answers.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    for ours, theirs in zip(*answers, strict=True):
        assert ours["labels"] == theirs["labels"]
        assert ours["step_probabilities"] == pytest.approx(theirs["step_probabilities"], abs=1e-4)


# ---- mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoding": {"max_length": 9}}, "--max-length 9: no label comes twice, and .* has 3"),
        ({"decoding": {"min_length": 4}}, "--min-length 4: no training image has more than 3"),
        ({"evaluation": {"protocol": "ml-gnc"}}, "unknown protocol 'ml-gnc' .did you mean 'ml-gcn'"),
        (
            {
                "model": {"backbone": "mobilenet_v2", "fine_tune_from": "Conv_1"},
                "training": {"flip": False},
            },
            "--no-flip: random crops are mirrored as well; add --no-crop",
        ),
        ({"model": {"backbone": "mobilenet_v2", "image_size": 16}}, "cannot be made for images of 16 px"),
    ],
)
def test_what_would_fail_after_the_training_is_refused_before_it(data_dir, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        run.train(configure(data_dir).updated(settings, where="test"), tmp_path, "never")
    assert not list(tmp_path.iterdir())


def test_a_run_is_never_overwritten(finished, data_dir, capsys):
    status = train_command.main(
        [
            *("--dataset", "squares", "--data-dir", str(data_dir), "--backbone", "compact"),
            *("--image-size", "32", "--backbone-weights", "none", "--no-standardise-features"),
            *("--runs-dir", str(finished.parent.parent), "--run-name", "first"),
        ]
    )
    assert status == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "a run is never overwritten: choose another --run-name" in line


def test_a_finished_run_is_not_resumed_and_says_how_it_is_trained_longer(finished):
    message = "this run is finished, with 8 epochs; train it longer with `python train.py .* --epochs 16`"
    with pytest.raises(UserError, match=message):
        run.resume(finished)


def test_a_run_that_stopped_early_goes_on_with_more_patience_alone(finished, tmp_path):
    stopped = tmp_path / "early"
    shutil.copytree(finished, stopped)
    config = configure(tmp_path, epochs=60, patience=2)
    config.save(stopped / runs.CONFIG_FILE)
    rows = "".join(f"{i},{value}\n" for i, value in enumerate((2.0, 1.0, 1.5, 1.25)))
    (stopped / "history.csv").write_text(f"epoch,val_nll\n{rows}")
    for epochs in (None, 80):
        with pytest.raises(UserError, match=r"early, after 4 epochs, the last 2 .* add --patience 0"):
            runs.check_resumable(stopped, epochs)
    assert runs.check_resumable(stopped, patience=0).training.epochs == 60
    assert (
        runs.check_resumable(stopped, 80, 3).training == configure(tmp_path, epochs=80, patience=3).training
    )


@pytest.mark.long
def test_a_run_that_is_trained_longer_ends_as_one_that_trained_so_long_at_once(data_dir, tmp_path, capsys):
    def train(name, epochs):
        config = configure(data_dir, epochs=epochs, deterministic=True, decoupled_weight_decay=True)
        return run.train(config, tmp_path, name)

    longer, at_once = train("longer", 1), train("at_once", 2)
    assert (tmp_path / "squares" / "latest").resolve() == at_once.resolve()
    assert train_command.main(["--resume", str(longer), "--epochs", "2"]) == 0
    assert read_history(longer) == read_history(at_once)
    for ours, theirs in zip(read_weights(longer), read_weights(at_once), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    metrics = [(path / runs.METRICS_FILE).read_bytes() for path in (longer, at_once)]
    assert metrics[0] == metrics[1]
    assert (longer / runs.CONFIG_FILE).read_bytes() == (at_once / runs.CONFIG_FILE).read_bytes()
    assert (tmp_path / "squares" / "latest").resolve() == longer.resolve()
    assert "its last epoch is kept for training longer: " in capsys.readouterr().out


def test_the_best_epoch_is_kept_where_training_longer_finds_no_better_one(finished, data_dir, tmp_path):
    longer = tmp_path / "longer"
    shutil.copytree(finished, longer)
    rows = (longer / "history.csv").read_text().splitlines()
    place = rows[0].split(",").index("val_nll")
    cells = rows[-1].split(",")
    cells[place] = "-1.0"  # no later epoch is as good as what the last one says of itself
    (longer / "history.csv").write_text("\n".join([*rows[:-1], ",".join(cells)]) + "\n")
    run.resume(longer, epochs=9)
    for before, after in zip(read_weights(finished), read_weights(longer), strict=True):
        np.testing.assert_array_equal(before, after)


def test_an_export_says_nothing_of_where_the_data_were(finished, data_dir):
    assert str(data_dir) in (finished / "environment.json").read_text()
    assert "data_dir" not in runs.load_facts(finished).environment


def test_images_that_changed_places_since_are_neither_resumed_nor_evaluated(finished, tmp_path):
    """The same images, labels and counts, one image of train now in test: a leak that no count shows."""
    train, test = list(annotate("train", 160)), list(annotate("test", 24))
    train[8], test[0] = test[0], train[8]
    build(SquaresSource({"train": train, "test": test}), "squares", tmp_path, workers=1, progress=False)
    loaded = runs.load_run(finished)
    stopped = shutil.copytree(finished, tmp_path / "stopped")
    (stopped / "metrics.json").unlink()
    for act in (
        lambda: evaluate.evaluate_run(loaded, data_dir=tmp_path),
        lambda: run.resume(stopped, data_dir=tmp_path),
    ):
        with pytest.raises(UserError, match=r"was built again since .* began, from other images"):
            act()
    (stopped / "environment.json").write_text("{}")
    with pytest.raises(UserError, match="does not say which records the run was trained on"):
        run.resume(stopped, data_dir=tmp_path)


@pytest.mark.parametrize("act", ["train", "evaluate", "report"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut off", "another's"])
def test_shards_that_are_not_as_they_were_built_are_told_at_once(finished, data_dir, tmp_path, damage, act):
    shutil.copytree(data_dir / "squares", tmp_path / "squares")
    [shard] = (tmp_path / "squares").glob("test-*")
    whole = shard.read_bytes()
    if damage == "gone":
        shard.unlink()
    elif damage == "empty":
        shard.write_bytes(b"")
    elif damage == "cut off":
        shard.write_bytes(whole[:-10])
    else:
        shard.write_bytes(2 * whole)
    fault = {
        "gone": "is missing",
        "empty": "holds 0 whole records",
        "cut off": "holds 23 whole records",
        "another's": "holds 48 whole records",
    }
    with pytest.raises(UserError, match=f"{shard}: {fault[damage]}, expected 24: build the data set again"):
        if act == "train":
            run.train(configure(tmp_path), tmp_path / "runs", "never")
        elif act == "evaluate":
            evaluate.evaluate_run(runs.load_run(finished), data_dir=tmp_path)
        else:
            summarize(tmp_path / "squares")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("backup/latest.weights.h5", "no weights", "backup: the backup cannot be read"),
        ("backup/training_metadata.json", "{", "training_metadata.json: damaged"),
        ("history.csv", "epoch,loss\n0,1.0\n", "history.csv: damaged, an epoch has no val_nll"),
    ],
)
def test_a_damaged_backup_is_told_in_one_line(stopped, file, content, message):
    (stopped / file).write_text(content)
    with pytest.raises(UserError, match=f"{message}.*: start a new run with"):
        run.resume(stopped)


@pytest.mark.long
def test_the_row_of_an_epoch_that_was_cut_off_is_run_again(stopped):
    history = stopped / "history.csv"
    history.write_text(history.read_text() + "2,")
    assert run.resume(stopped) == stopped
    assert [row["epoch"] for row in read_history(stopped)] == list(range(8))


def test_a_finished_run_whose_model_is_gone_is_not_said_to_be_unfinished(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / runs.MODEL_FILE).unlink()
    with pytest.raises(UserError, match=r"best.keras: is gone, though the run was finished; train again"):
        runs.load_run(copy)


def test_a_checkpoint_whose_weights_are_no_numbers_is_refused(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    model = runs.load_run(copy).model
    model.decoder.output_projection.kernel.assign(np.nan * model.decoder.output_projection.kernel)
    model.save(copy / runs.MODEL_FILE)
    with pytest.raises(UserError, match=r"1 weights are not finite, such as .*output_projection"):
        runs.load_run(copy)


def test_a_checkpoint_of_another_vocabulary_is_refused(finished):
    other = LabelVocabulary.from_counts({"red": 1, "green": 2, "blue": 3})
    with pytest.raises(UserError, match="was trained with another vocabulary"):
        runs.load_model(finished / runs.MODEL_FILE, other)


def test_a_data_set_that_was_built_again_with_other_labels_is_not_evaluated(finished, tmp_path):
    contents = {"train": [draw("a", "x"), draw("b", "y")], "test": [draw("c", "x")]}
    build(DrawnSource(contents), "squares", tmp_path, workers=1, progress=False)
    loaded = runs.load_run(finished)
    with pytest.raises(UserError, match="not those that the model was trained with"):
        evaluate.evaluate_model(loaded.model, tmp_path / "squares", loaded.config)


def test_a_loss_that_is_no_number_leaves_no_model_and_says_what_to_try(data_dir, tmp_path):
    config = configure(data_dir, epochs=1, learning_rate=1e30, clip_norm=0.0)
    with pytest.raises(UserError, match="there is no model; try a lower --learning-rate"):
        run.train(config, tmp_path, "diverged")


def test_standardised_features_need_a_frozen_backbone(data_dir, tmp_path):
    with pytest.raises(UserError, match="--standardise-features needs a frozen CNN"):
        run.train(with_model(configure(data_dir), standardise_features=True), tmp_path, "moving")
    assert not list(tmp_path.iterdir())


def test_without_a_test_split_the_hold_out_is_measured_and_named(untested, printed):
    path, _ = untested
    assert "no split test: what follows is measured on the hold-out" in printed["untested"].getvalue()
    metrics = json.loads((path / "metrics.json").read_text())
    assert (metrics["split"], metrics["images"]) == ("holdout", 20)
    assert all(row["threshold"] is None for row in metrics["rows"])  # nothing is left to fit one on
    assert (path / "figures" / "holdout_images.png").is_file()
    assert set(metrics["calibration"]) == {"temperature", "threshold", "holdout_images"}
    assert not (path / "figures" / "reliability.png").exists()
    log = " ".join((path / "train.log").read_text().split())
    assert "no calibration error: 20 of these images fitted T" in log
    assert "the hold-out is what is reported, so nothing is fitted on it" in log


def test_a_hold_out_without_a_label_calibrates_nothing_and_says_so(tmp_path, capsys, exports):
    contents = [
        dataclasses.replace(each, labels=()) if is_held_out(each.image_id) else each
        for each in annotate("train", 160)
    ]
    build(SquaresSource({"train": contents}), "bare", tmp_path, progress=False)
    path = run.train(configure(tmp_path, "bare", epochs=1), tmp_path / "runs", "bare")
    assert "no calibration: none of 20 hold-out images has a known label" in capsys.readouterr().out
    assert not (path / "calibration.json").exists()
    assert not (path / "figures" / "reliability.png").exists()
    assert "calibration" not in json.loads((path / "metrics.json").read_text())
    assert load_export(path / "export").calibration is None


def test_a_hold_out_without_a_label_on_a_path_calibrates_nothing_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO", logger="cnnrnn_tf")
    empty = Predictions(["a"], [[1]], [[1]], [[1]], [0], [-0.1], [[-3.0]])
    assert run._calibrate(empty, LabelVocabulary.from_counts({"sky": 1}), tmp_path) is None
    assert "no calibration: no label is on any path of 1 hold-out image" in caplog.text
    some = Predictions(["a"], [[1]], [[1]], [[0]], [1], [-0.1], [[0.9]])
    assert run._calibrate(some, LabelVocabulary.from_counts({"sky": 1}), tmp_path).temperature == 1
    assert "calibration: T 1.00 from 1 hold-out image; T stays 1" in caplog.text
    assert "T stays 1" in json.loads((tmp_path / "calibration.json").read_text())["note"]


@pytest.mark.parametrize("name", ["first", "untested"])
def test_each_command_that_a_run_prints_works(finished, untested, printed, runs_dir, capsys, name):
    """With a test split and without one; TensorBoard itself is not started."""
    path = {"first": finished, "untested": untested[0]}[name]
    commands = printed[name].getvalue().partition("next:\n")[2].splitlines()
    words = [shlex.split(line.partition("    (")[0]) for line in commands]
    assert [each[0].rpartition("/")[2] for each in words] == ["tensorboard", *["cnnrnn"] * 3]
    assert words[0][1:] == ["--logdir", str(runs_dir)]
    for each in words[1:]:
        if each[1] != "check":
            assert cnnrnn(each[1:]) == 0, each
        else:  # half a minute; tests/test_check.py does it
            assert each[2:] == [str(path / "export")]
            assert find_export(each[2]) == path / "export" / "1"
