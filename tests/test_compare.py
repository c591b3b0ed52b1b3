"""Every method on the same features of a small data set: what is kept, run again, and chooses nothing."""

import csv
import json

import numpy as np
import pytest
from squares import build_squares, configure, leave_out_figures, with_model

from cnnrnn_tf.baselines.logistic_regression import LogisticRegression
from cnnrnn_tf.commands.__main__ import main as cnnrnn
from cnnrnn_tf.data.records import load_labels
from cnnrnn_tf.training import compare, run, runs
from tfrecords.errors import UserError

METHODS = ("cnn-rnn", "logistic", "warp")


def frozen(data_dir, dataset="squares"):
    """MobileNetV2 with random weights on pictures of 32 px, and a decoder that trains for two epochs."""
    config = configure(data_dir, dataset, epochs=2)
    return with_model(config, backbone="mobilenet_v2", standardise_features=True)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    build_squares(path)
    build_squares(path, "other_truth", shift=3)
    return path


@pytest.fixture(scope="module", autouse=True)
def no_figures_of_runs():
    with pytest.MonkeyPatch.context() as patch:
        leave_out_figures(patch)
        yield


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    lines = []
    comparer = compare.Comparer(frozen(data_dir), tmp_path_factory.mktemp("runs"), lines.append)
    comparison = comparer.run(METHODS, num_seeds=2)
    return comparer, comparison, lines


def refuse(*arguments, **options):
    raise AssertionError("what is finished was run again")


# ---- what a comparison leaves


def test_methods_that_draw_nothing_are_run_once_and_the_others_with_every_seed(finished):
    comparer, comparison, lines = finished
    names = {path.name for path in (comparer.folder / "predictions").iterdir()}
    assert names == {"cnn-rnn-0.npz", "cnn-rnn-1.npz", "logistic-0.npz", "warp-0.npz", "warp-1.npz"}
    assert len(lines) == 5
    seeds = {row.method: len(row.measures["O-F1"].values) for row in comparison.blocks[0].rows}
    assert seeds == {"cnn-rnn": 2, "logistic": 1, "warp": 2}


def test_the_path_models_are_runs_like_those_of_train(finished):
    comparer, comparison, _ = finished
    found = runs.load_run(comparer.folder / "cnn-rnn-1")
    assert found.config.training.seed == 1
    metrics = json.loads((found.path / "metrics.json").read_text())
    ours = next(row for row in comparison.blocks[0].rows if row.method == "cnn-rnn")
    row = next(row for row in metrics["rows"] if row["name"] == ours.lists)
    assert ours.measures["O-F1"].values[1] == pytest.approx(row["O-F1"], abs=1e-9)


def test_the_tables_and_the_picture_are_written_beside_each_other(finished):
    comparer, comparison, _ = finished
    paths = compare.save_tables(comparer.folder, comparison, ())
    assert [path.suffix for path in paths] == [".json", ".csv", ".md", ".tex", ".png"]
    content = json.loads(paths[0].read_text())
    assert [block["name"] for block in content["blocks"]] == [block.name for block in comparison.blocks]
    with paths[1].open(newline="") as file:
        assert {row["method"] for row in csv.DictReader(file)} == set(METHODS)
    assert paths[4].stat().st_size > 10_000


def test_no_rnn_is_the_same_run_without_a_cell(data_dir, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(run, "train", lambda config, *arguments, **options: started.append(config) or 1 / 0)
    comparer = compare.Comparer(frozen(data_dir), tmp_path, lambda line: None)
    for name in ("cnn-rnn", "no-rnn"):
        with pytest.raises(ZeroDivisionError):
            comparer.run([name], num_seeds=1)
    ours, theirs = started
    assert (ours.model.cell, theirs.model.cell) == ("lstm", "none")
    assert with_model(theirs, cell="lstm") == ours


# ---- run again


def test_what_is_finished_is_not_run_again_by_any_protocol(finished, monkeypatch):
    comparer, comparison, _ = finished
    monkeypatch.setattr(run, "train", refuse)
    monkeypatch.setattr(compare, "predict_split", refuse)
    monkeypatch.setattr(LogisticRegression, "fit", refuse)
    assert comparer.run(METHODS, num_seeds=2) == comparison
    other = comparer.run(METHODS, num_seeds=2, protocol="asl")
    assert other.protocol == "asl"


def test_a_stopped_comparison_keeps_what_is_finished(data_dir, tmp_path, monkeypatch):
    comparer = compare.Comparer(frozen(data_dir), tmp_path, lambda line: None)
    with monkeypatch.context() as patch:
        patch.setattr(LogisticRegression, "fit", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            comparer.run(["knn", "logistic"], num_seeds=1)
    kept = comparer.folder / "predictions" / "knn-0.npz"
    stamp = kept.stat().st_mtime_ns
    comparison = compare.Comparer(frozen(data_dir), tmp_path, lambda line: None).run(["knn", "logistic"], 1)
    assert kept.stat().st_mtime_ns == stamp
    assert [row.method for row in comparison.blocks[0].rows] == ["knn", "logistic"]


def test_other_settings_or_other_records_have_a_folder_of_their_own(finished, data_dir):
    comparer, _, _ = finished
    runs_dir = comparer.folder.parent.parent
    wider = with_model(frozen(data_dir), image_fit="stretch")
    assert compare.Comparer(frozen(data_dir), runs_dir).folder == comparer.folder
    assert compare.Comparer(wider, runs_dir).folder != comparer.folder
    assert compare.Comparer(frozen(data_dir, "other_truth"), runs_dir).folder.name != comparer.folder.name


def test_scores_that_are_no_probabilities_are_not_cut_at_a_fixed_threshold(finished):
    comparer, _, _ = finished
    found = comparer.run(["logistic", "warp"], num_seeds=2, protocol="ml-gcn")
    rows = {(row.method, row.lists) for block in found.blocks for row in block.rows}
    assert ("logistic", "free length") in rows and ("warp", "exactly 3") in rows
    assert ("warp", "free length") not in rows and ("warp", "at most 3") not in rows


# ---- whose features, whose labels


@pytest.mark.long
def test_baselines_read_a_cnn_of_their_own_where_the_cnn_is_trained(data_dir, tmp_path):
    comparer = compare.Comparer(configure(data_dir, epochs=6), tmp_path, lambda line: None)
    comparison = comparer.run(["logistic"], num_seeds=1)
    assert (comparer.folder / "cnn-0.weights.h5").is_file()
    assert not (comparer.folder / "cnn-rnn-0").exists()
    measures = comparison.blocks[0].rows[0].measures
    assert measures["mAP_raw"].mean > 0.9  # squares in three colours; features of random weights stay below
    assert any("trained by binary cross-entropy" in note for note in comparison.notes)
    stamp = (comparer.folder / "cnn-0.weights.h5").stat().st_mtime_ns
    own_head = comparer.run(["bce"], num_seeds=1).blocks[0].rows[0].measures
    assert own_head["mAP_raw"].mean > 0.9
    assert (comparer.folder / "cnn-0.weights.h5").stat().st_mtime_ns == stamp  # trained once


@pytest.mark.parametrize("method", ["logistic", "warp", pytest.param("cnn-rnn", marks=pytest.mark.long)])
def test_the_labels_of_the_test_split_choose_nothing(finished, data_dir, tmp_path, method):
    """The same pictures and training labels, another truth in the test split: the same predictions."""
    comparer, _, _ = finished
    other = compare.Comparer(frozen(data_dir, "other_truth"), tmp_path, lambda line: None)
    other.run([method], num_seeds=1)
    truth = [load_labels(data_dir / name, "test").labels for name in ("squares", "other_truth")]
    assert (truth[0] != truth[1]).any()
    ours, theirs = (np.load(each.folder / "predictions" / f"{method}-0.npz") for each in (comparer, other))
    assert ours.files == theirs.files and len(ours.files) >= 3
    for key in set(ours.files) - {"made_by"}:  # the records differ
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


# ---- mistakes


def test_results_of_another_method_or_of_other_settings_are_not_believed(data_dir, tmp_path):
    lines = []
    comparer = compare.Comparer(frozen(data_dir), tmp_path, lines.append)
    comparer.run(["knn"], 1)
    folder = comparer.folder / "predictions"
    (folder / "svm-0.npz").write_bytes((folder / "knn-0.npz").read_bytes())
    comparer.run(["svm"], 1)
    assert "svm-0.npz: was made by other settings or versions" in " ".join(lines)
    ours, theirs = (np.load(folder / f"{name}-0.npz") for name in ("svm", "knn"))
    assert (ours["test_scores"] != theirs["test_scores"]).any()


def test_a_method_that_refuses_is_left_out_and_the_others_are_shown(data_dir, tmp_path, monkeypatch):
    def fit(*arguments):
        raise UserError("no image to learn from")

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    comparer = compare.Comparer(frozen(data_dir), tmp_path, lambda line: None)
    comparison = comparer.run(["logistic", "knn"], 1)
    assert [row.method for row in comparison.blocks[0].rows] == ["knn"]
    assert "logistic is left out: no image to learn from" in comparison.notes
    with pytest.raises(UserError, match="no image to learn from"):
        comparer.run(["logistic"], 1)


def test_a_random_cnn_is_one_for_all_methods_and_seeds(finished):
    comparer, _, _ = finished
    weights = [
        runs.load_run(comparer.folder / f"cnn-rnn-{seed}").model.backbone.network.get_weights()
        for seed in range(2)
    ]
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("methods", "seeds", "message"),
    [
        (["wrap"], 1, r"no method is called 'wrap' \(did you mean 'warp'\?\)"),
        ([], 1, "--methods: expected some of cnn-rnn"),
        (["knn", "knn"], 1, "names one twice"),
        (["knn"], 0, "--seeds 0: expected 1 or more"),
    ],
)
def test_mistakes_are_told_before_anything_runs(finished, methods, seeds, message):
    with pytest.raises(UserError, match=message):
        finished[0].run(methods, seeds)


def test_no_cell_is_no_cnn_rnn(data_dir, tmp_path):
    comparer = compare.Comparer(with_model(frozen(data_dir), cell="none"), tmp_path)
    with pytest.raises(UserError, match="cnn-rnn has a cell"):
        comparer.run(["cnn-rnn"], 1)


def test_a_damaged_result_is_named(data_dir, tmp_path):
    comparer = compare.Comparer(frozen(data_dir), tmp_path, lambda line: None)
    path = comparer.folder / "predictions" / "knn-0.npz"
    path.parent.mkdir()
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"knn-0\.npz: damaged .* remove it and compare again"):
        comparer.run(["knn"], 1)


def test_the_command_prints_the_table_and_where_it_is(data_dir, tmp_path, capsys):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"model": {"image_size": 32}}))
    words = ["compare", "--dataset", "squares", "--methods", "logistic,knn", "--seeds", "1"]
    words += ["--backbone", "mobilenet_v2", "--backbone-weights", "none", "--config", str(settings)]
    status = cnnrnn([*words, "--data-dir", str(data_dir), "--runs-dir", str(tmp_path / "runs")])
    output = capsys.readouterr().out
    assert status == 0
    assert "exactly 3" in output and "logistic regression" in output.lower() and "MAP@10" in output
    (folder,) = (tmp_path / "runs" / "squares").iterdir()
    assert (folder / "comparison-part.tex").is_file()


def test_the_papers_rows_stand_beside_ours_under_its_own_protocol_alone(tmp_path, capsys):
    build_squares(tmp_path, "coco2014")
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"model": {"image_size": 32}}))
    words = ["compare", "--dataset", "coco2014", "--methods", "logistic", "--backbone", "mobilenet_v2"]
    words += ["--backbone-weights", "none", "--config", str(settings), "--data-dir", str(tmp_path)]
    words += ["--runs-dir", str(tmp_path / "runs")]
    assert cnnrnn(words) == 0
    output = capsys.readouterr().out
    assert "published" in output and "No RNN, CNN-RNN: lists of at most 3 labels." in output
    assert "WARP*" in output  # its O-F1 does not follow from its O-P and O-R
    assert cnnrnn([*words, "--protocol", "asl"]) == 0
    assert "published" not in capsys.readouterr().out


def test_the_command_names_a_data_set_that_is_not_built(tmp_path, capsys):
    assert cnnrnn(["compare", "--dataset", "nuswide81", "--data-dir", str(tmp_path)]) == 2
    assert "python -m tfrecords build nuswide81" in capsys.readouterr().err
