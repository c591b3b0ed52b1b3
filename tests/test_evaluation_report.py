"""The report against scikit-learn, loops and hand-worked tables; its table against its JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from cnnrnn_tf.evaluation.metrics import fit_label_thresholds, fit_threshold
from cnnrnn_tf.evaluation.predictions import RANKING_RULE, Predictions
from cnnrnn_tf.evaluation.protocols import protocol
from cnnrnn_tf.evaluation.report import (
    choose_protocols,
    evaluate_predictions,
    find_row,
    render,
    save_metrics,
    save_per_label,
)
from tfrecords.errors import UserError
from tfrecords.vocabulary import LabelVocabulary

FREE = choose_protocols("ponds")


def make_vocabulary(num_labels):
    return LabelVocabulary.from_counts({f"label{i}": 100 - i for i in range(num_labels)})


def make_predictions(seed, num_images=120, num_labels=7, places=5, unknown=0.0):
    """Random truth, scores that lean towards it, and paths that are no cut of the scores."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((num_images, num_labels)) < 0.3).astype(int)
    scores = labels * 0.3 + rng.random((num_images, num_labels)) * 0.7
    order = np.argsort(-(scores + 0.3 * rng.random(scores.shape)), axis=1)
    return Predictions(
        image_ids=[f"{seed}-{i}" for i in range(num_images)],
        labels=labels,
        known=rng.random((num_images, num_labels)) >= unknown,
        paths=order[:, :places],
        path_lengths=rng.integers(0, places + 1, num_images),
        path_log_probs=-rng.random(num_images),
        scores=scores,
    )


def from_rows(labels, scores, paths, known=None):
    """Predictions of a few images, from plain lists."""
    places = max(1, *map(len, paths))
    num_labels = len(labels[0])
    return Predictions(
        image_ids=[str(i) for i in range(len(labels))],
        labels=labels,
        known=np.ones_like(labels) if known is None else known,
        paths=[[*path, *[num_labels] * (places - len(path))] for path in paths],
        path_lengths=[len(path) for path in paths],
        path_log_probs=np.zeros(len(labels)),
        scores=scores,
    )


# Four labels, the last without a positive; image 1 has no label, image 2 has all the others.
HAND = from_rows(
    labels=[[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]],
    scores=[[0.9, 0.2, 0.6, 0.1], [0.3, 0.1, -2.0, -9.0], [0.8, 0.7, 0.5, 0.4]],
    paths=[[0, 2], [], [0, 1]],
)
# Its best threshold is 0.6 in lists of any length, and in lists of one or two.
HAND_HOLDOUT = from_rows(labels=[[1, 0, 0, 0]], scores=[[0.6, 0.55, 0.1, 0.0]], paths=[[0]])


def evaluate(test=HAND, holdout=HAND_HOLDOUT, protocols=FREE, **options):
    return evaluate_predictions(test, holdout, protocols, make_vocabulary(test.num_labels), **options)


def render_text(metrics, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(metrics))
    return console.file.getvalue()


# ---- the rows


def test_a_hand_worked_split():
    metrics = evaluate()
    assert [row["name"] for row in metrics["rows"]] == [
        "best path", "best path, first 3", "exactly 3", "at most 3", "free length", "own thresholds",
        "own, exact match",
    ]  # fmt: skip
    # emitted: {0, 2}, {}, {0, 1}; true: {0, 1}, {}, {0, 1, 2}; label 3 has no positive
    row = find_row(metrics, "best path")
    expected = {
        "O-P": 3 / 4, "O-R": 3 / 5, "O-F1": 6 / 9, "C-P": (1 + 1 + 0) / 3, "C-R": (1 + 1 / 2 + 0) / 3,
        "C-F1_harmonic": 2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2), "C-F1_per_class": (1 + 2 / 3 + 0) / 3,
        "exact_match": 1 / 3, "hamming_loss": 3 / 12, "example_F1": (2 / 4 + 1 + 4 / 5) / 3,
        "N+": 2, "labels_never_predicted": 1, "list_length": 4 / 3,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    # a cut at 0.6: {0, 2}, {}, {0, 1}, which are the same sets
    cut = find_row(metrics, "free length")
    assert cut["threshold"] == pytest.approx(0.6)
    assert {name: cut[name] for name in expected} == pytest.approx(expected)
    # the three best: {0, 2, 1}, {0, 1, 2}, {0, 1, 2}
    exact = find_row(metrics, "exactly 3")
    assert (exact["O-P"], exact["O-R"], exact["k"], exact["threshold"]) == (5 / 9, 1, 3, None)
    counts = ("images", "images_without_labels", "labels", "labels_without_positive", "holdout_images")
    assert [metrics[name] for name in counts] == [3, 1, 4, 1, 1]
    assert metrics["labels_per_image"] == pytest.approx(5 / 3)


def test_a_hand_worked_ranking():
    ranking = evaluate()["ranking"]
    # image 0 ranks 0 2 1 3: hits at 1 and 3; image 2 ranks 0 1 2 3: all hits first; image 1 has none
    assert ranking["MAP@10_truncated"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert ranking["precision@1"] == pytest.approx(2 / 3)
    assert ranking["recall@1"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    # label 0 ranks images 0 2 1, label 1 ranks 2 0 1, label 2 ranks 0 2 1: only the last errs
    assert ranking["mAP_raw"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert ranking["precision@score>=0.5"] == pytest.approx(4 / 5)
    assert ranking["precision@score>=0.8"] == 1


def test_best_path_rows_equal_scikit_learn():
    test = make_predictions(1)
    metrics = evaluate(test, make_predictions(2))
    for name, k in (("best path", None), ("best path, first 3", 3)):
        row = find_row(metrics, name)
        sets = np.zeros_like(test.labels)
        for image in range(len(test)):
            sets[image, test.paths[image, : test.path_lengths[image]][:k]] = 1
        by_class = precision_recall_fscore_support(test.labels, sets, average="macro", zero_division=0)
        overall = precision_recall_fscore_support(test.labels, sets, average="micro", zero_division=0)
        assert [row["C-P"], row["C-R"], row["C-F1_per_class"]] == pytest.approx(by_class[:3])
        assert [row["O-P"], row["O-R"], row["O-F1"]] == pytest.approx(overall[:3])
        assert row["exact_match"] == np.mean((sets == test.labels).all(axis=1))
        assert row["hamming_loss"] == pytest.approx(np.mean(sets != test.labels))


def test_scores_are_cut_and_ranked_as_a_loop_does_with_unknown_labels():
    test, holdout = make_predictions(3, unknown=0.25), make_predictions(4, unknown=0.25)
    metrics = evaluate(test, holdout)
    for name, k in (("exactly 3", 3), ("at most 3", 3), ("free length", None)):
        row = find_row(metrics, name)
        hits = predicted = 0
        for image in range(len(test)):
            known = [label for label in range(7) if test.known[image, label]]
            best = sorted(known, key=lambda label: (-test.scores[image, label], label))[:k]
            if row["threshold"] is not None:
                best = [label for label in best if test.scores[image, label] >= row["threshold"]]
            hits += sum(test.labels[image, label] for label in best)
            predicted += len(best)
        assert row["O-P"] == pytest.approx(hits / predicted)
        assert row["O-R"] == pytest.approx(hits / (test.labels * test.known).sum())
        assert row["list_length"] == pytest.approx(predicted / len(test))
    expected = [
        average_precision_score(test.labels[seen, label], test.scores[seen, label])
        for label, seen in enumerate(test.known.T.astype(bool))
    ]
    assert metrics["ranking"]["mAP_raw"] == pytest.approx(np.mean(expected))
    assert metrics["unknown_cells"] == np.sum(test.known == 0)


def test_thresholds_are_those_of_the_hold_out_and_owe_nothing_to_the_test_split():
    test, holdout = make_predictions(5), make_predictions(6)
    row = find_row(evaluate(test, holdout), "free length")

    def overall_f1(threshold):
        chosen = holdout.scores >= threshold
        return 2 * np.sum(chosen & holdout.truth) / (np.sum(chosen) + np.sum(holdout.truth))

    best = max(map(overall_f1, np.unique(holdout.scores)))
    standard_error = np.sqrt(best * (1 - best) / np.sum(holdout.truth))
    assert best - standard_error <= overall_f1(row["threshold"]) <= best
    other = find_row(evaluate(make_predictions(7), holdout), "free length")
    assert other["threshold"] == row["threshold"]


def test_own_thresholds_cut_each_label_where_its_f1_on_the_hold_out_is_best():
    test, holdout = make_predictions(9, unknown=0.2), make_predictions(10, num_images=400, unknown=0.2)
    factors = np.linspace(1, 0.2, 7)  # the last labels score low, whether true or not
    test, holdout = (
        dataclasses.replace(each, scores=np.where(each.scores < 0.1, -5.0, each.scores * factors))
        for each in (test, holdout)
    )
    metrics = evaluate(test, holdout)
    row = find_row(metrics, "own thresholds")
    assert (row["threshold"], row["k"]) == (None, None)
    clipped = np.maximum(holdout.scores, 0)
    own = fit_label_thresholds(clipped, holdout.labels, holdout.known, above=0)
    common = fit_threshold(clipped, holdout.labels, holdout.known, above=0)
    assert row["common_threshold"] == common and np.float32(common) in own
    assert row["label_thresholds"] == own.tolist()
    chosen = (test.scores >= own) & (test.known != 0)
    by_class = precision_recall_fscore_support(test.truth, chosen, average="macro", zero_division=0)
    assert [row["C-P"], row["C-R"], row["C-F1_per_class"]] == pytest.approx(by_class[:3])
    assert row["list_length"] == pytest.approx(chosen.sum() / len(test))
    assert row["C-F1_per_class"] > find_row(metrics, "free length")["C-F1_per_class"] + 0.02
    other = find_row(evaluate(make_predictions(7), holdout), "own thresholds")
    assert other["label_thresholds"] == row["label_thresholds"]
    text = " ".join(render_text(metrics).split())
    assert f"Own thresholds: each label's with its highest F1, {min(own):.4g} to {max(own):.4g}, or" in text
    assert f"or the common one, {common:.4g}, where its F1 is as good" in text
    json.dumps(metrics, allow_nan=False)


def test_thresholds_for_exact_match_make_the_most_sets_right_as_a_whole():
    test, holdout = make_predictions(9, unknown=0.2), make_predictions(10, num_images=400, unknown=0.2)
    metrics = evaluate(test, holdout)
    own = fit_label_thresholds(holdout.scores, holdout.labels, holdout.known, objective="exact_match")
    row = find_row(metrics, "own, exact match")
    assert row["label_thresholds"] == own.tolist()
    wrong = ((test.scores >= own) != test.truth) & (test.known != 0)
    assert row["exact_match"] == pytest.approx(1 - wrong.any(axis=1).mean())
    held_out = [find_row(evaluate(holdout, holdout), name) for name in ("own, exact match", "own thresholds")]
    assert held_out[0]["exact_match"] > held_out[1]["exact_match"]


@pytest.mark.parametrize("holdout", [None, from_rows([[0, 0, 0, 0]], [[0.5, 0.4, 0.3, 0.2]], [[]])])
def test_without_labels_held_out_no_threshold_is_made_up(holdout):
    metrics = evaluate(HAND, holdout)
    assert [row["name"] for row in metrics["rows"]] == ["best path", "best path, first 3", "exactly 3"]
    assert "no hold-out with labels to fit it on" in json.dumps(metrics["conventions"])


# ---- protocols


@pytest.mark.parametrize(
    ("dataset", "name", "found", "k"),
    [
        ("nuswide81", None, ["cnn-rnn"], 3),
        ("nuswide1000", None, ["cnn-rnn"], 10),
        ("coco2014", None, ["cnn-rnn"], 3),
        ("voc2007", None, ["cnn-rnn"], None),
        ("demo", None, ["free"], None),
        ("my_table", None, ["free"], None),
        ("coco2014", "ml-gcn", ["ml-gcn", "ml-gcn-top3"], None),
    ],
)
def test_each_data_set_has_its_protocol(dataset, name, found, k):
    protocols = choose_protocols(dataset, name)
    assert [each.name for each in protocols] == found
    assert protocols[0].k == k


def test_rows_follow_the_list_length_of_the_protocol():
    metrics = evaluate(make_predictions(1, num_labels=15), make_predictions(2, num_labels=15),
                       choose_protocols("nuswide1000"))  # fmt: skip
    names = [row["name"] for row in metrics["rows"]]
    assert names[:3] == ["best path", "best path, first 10", "exactly 10"]
    assert names[3:] == ["at most 10", "free length", "own thresholds", "own, exact match"]


def test_a_protocol_of_tagged_images_leaves_the_others_out_of_everything():
    metrics = evaluate(protocols=choose_protocols("nuswide81"))
    assert (metrics["images"], metrics["images_in_split"], metrics["images_without_labels"]) == (2, 3, 0)
    assert find_row(metrics, "best path")["exact_match"] == 0
    assert metrics["ranking"]["precision@1"] == 1
    assert "1 image is left out" in json.dumps(metrics["conventions"])


def test_a_fixed_threshold_replaces_fitting_and_needs_no_hold_out():
    metrics = evaluate(HAND, None, choose_protocols("coco2014", "ml-gcn"))
    assert [find_row(metrics, name)["threshold"] for name in ("at most 3", "free length")] == [0.5, 0.5]
    assert "own thresholds" not in [row["name"] for row in metrics["rows"]]
    # 0.5 and above among the tagged images: {0, 2} and {0, 1, 2}; label 3, never predicted, counts once
    assert find_row(metrics, "free length")["O-P"] == pytest.approx(4 / (5 + 1))


def test_precision_of_labels_never_predicted_follows_the_protocol():
    labels, scores = [[1, 1], [1, 0]], [[0.9, 0.1], [0.9, 0.1]]
    test = from_rows(labels, scores, [[0], [0]])
    zero = evaluate(test, None, choose_protocols("coco2014", "ml-gcn"))
    one = evaluate(test, None, choose_protocols("coco2014", "srn"))
    assert [find_row(found, "best path")["C-P"] for found in (zero, one)] == [0.5, 1.0]


def test_protocols_that_differ_in_more_than_their_lists_are_refused():
    with pytest.raises(
        UserError, match=r"images is \{'ml-gcn': 'tagged', 'srn': 'all'\}: evaluate them one at a time"
    ):
        evaluate(protocols=(protocol("ml-gcn", "demo"), protocol("srn", "demo")))
    with pytest.raises(UserError, match="needs a protocol, got none"):
        evaluate(protocols=())


# ---- edges


def test_an_image_of_which_nothing_is_known_does_not_count():
    known = [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    test = from_rows(HAND.labels, HAND.scores, [[0, 2], [], [0, 1]], known)
    metrics = evaluate(test)
    assert (metrics["images"], metrics["images_in_split"]) == (2, 3)
    assert find_row(metrics, "best path")["O-P"] == 1 / 2
    with pytest.raises(UserError, match="none of 3 images of 'test' counts under protocol 'free'"):
        evaluate(from_rows(HAND.labels, HAND.scores, [[], [], []], np.zeros((3, 4))))


def test_one_label_is_enough():
    test = from_rows([[1], [0], [1]], [[0.9], [0.2], [-3.0]], [[0], [], []], [[1], [1], [1]])
    metrics = evaluate(test, from_rows([[1], [0]], [[0.5], [0.4]], [[0], []]))
    assert [find_row(metrics, "best path")[name] for name in ("O-P", "O-R", "exact_match")] == [1, 0.5, 2 / 3]
    assert find_row(metrics, "exactly 3")["O-P"] == pytest.approx(2 / 3)
    assert find_row(metrics, "at most 3")["O-R"] == 0.5
    assert metrics["ranking"]["MAP@10_truncated"] == 1
    # ranked 0 1 2: hits at 1 and 3
    assert metrics["ranking"]["mAP_raw"] == pytest.approx((1 + 2 / 3) / 2)
    assert "100.0" in render_text(metrics)


def test_one_label_of_which_some_are_unknown():
    test = from_rows([[1], [0], [0]], [[0.9], [0.2], [0.8]], [[0], [], [0]], [[1], [1], [0]])
    row = find_row(evaluate(test, None), "best path")
    assert (row["O-P"], row["O-R"], row["exact_match"]) == (1, 1, 1)


def test_images_with_all_labels_and_nothing_else():
    test = from_rows([[1, 1], [1, 1]], [[0.9, 0.8], [0.7, 0.6]], [[0, 1], [0, 1]])
    metrics = evaluate(test, test)
    assert find_row(metrics, "best path")["exact_match"] == 1
    assert find_row(metrics, "free length")["O-F1"] == 1


def test_nothing_undefined_reaches_json_as_a_number(tmp_path):
    test = from_rows([[0, 0], [0, 0]], [[0.1, -5.0], [0.1, -1e30]], [[], []])
    metrics = evaluate(test, None)
    undefined = ("mAP_raw", "mAP_voc11", "mAP_interpolated", "MAP@10_truncated", "MAP@10_full", "recall@1")
    assert [metrics["ranking"][name] for name in undefined] == [None] * len(undefined)
    assert metrics["ranking"]["precision@score>=0.5"] is None
    save_metrics(metrics, tmp_path / "metrics.json")
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert "nan" not in render_text(metrics)


def test_images_without_a_path_are_counted():
    test = make_predictions(1)
    log_probs = test.path_log_probs.copy()
    log_probs[:3] = -np.inf
    fields = {name: getattr(test, name) for name in ("image_ids", "labels", "known", "paths", "path_lengths")}
    metrics = evaluate(Predictions(**fields, path_log_probs=log_probs, scores=test.scores), None)
    assert metrics["images_without_path"] == 3
    assert "3 images got no path" in render_text(metrics)


def test_a_split_of_several_batches_counts_each_image_once(monkeypatch):
    test, holdout = make_predictions(1), make_predictions(2)
    whole = evaluate(test, holdout)
    monkeypatch.setattr("cnnrnn_tf.evaluation.report.BATCH_IMAGES", 50)
    parts = evaluate(test, holdout)
    assert parts["ranking"] == pytest.approx(whole["ranking"])
    for one, other in zip(parts["rows"], whole["rows"], strict=True):
        assert [one["O-F1"], one["C-P"]] == pytest.approx([other["O-F1"], other["C-P"]])


def test_a_vocabulary_of_another_size_is_refused():
    with pytest.raises(UserError, match="predictions of 4 labels do not go with a vocabulary of 5"):
        evaluate_predictions(HAND, None, FREE, make_vocabulary(5))


def test_an_unknown_row_is_told_the_nearest():
    with pytest.raises(UserError, match=r"no row is called 'at most 4' \(did you mean 'at most 3'\?\)"):
        find_row(evaluate(), "at most 4")


# ---- methods that only score labels


def without_paths(predictions, **options):
    fields = {name: getattr(predictions, name) for name in ("image_ids", "labels", "known", "scores")}
    return Predictions.from_scores(**fields, **options)


def test_scores_alone_give_the_rows_that_are_cut_from_scores_and_no_word_about_paths():
    whole = evaluate(HAND, HAND_HOLDOUT)
    metrics = evaluate(without_paths(HAND), without_paths(HAND_HOLDOUT))
    names = ["exactly 3", "at most 3", "free length", "own thresholds", "own, exact match"]
    assert [row["name"] for row in metrics["rows"]] == names
    assert metrics["rows"] == whole["rows"][2:]
    levels = {f"precision@score>={level}": None for level in (0.2, 0.5, 0.8)}  # a score is -9
    assert metrics["ranking"] == whole["ranking"] | levels
    assert "images_without_path" not in metrics and metrics["ranking_rule"] == "the scores of the method"
    text = " ".join(render_text(metrics).split())
    assert "Cut from a ranking of the labels: the scores of the method; equal scores by label id." in text
    assert "path" not in text and "beam" not in text


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (
            [[3.0, -1.0], [0.2, 0.4]],
            "these scores reach 3, so they are no probabilities: write sigmoid(score)",
        ),
        ([[0.5, -1.5], [0.2, 0.4]], "these scores go down to -1.5, so they are no probabilities: write"),
    ],
)
@pytest.mark.parametrize("name", ["ml-gcn", "srn"])
def test_scores_that_are_no_probabilities_are_not_cut_at_one(scores, words, name):
    test = Predictions.from_scores(["a", "b"], [[1, 0], [1, 1]], [[1, 1], [1, 1]], scores)
    metrics = evaluate(test, None, choose_protocols("coco2014", name))
    assert [row["name"] for row in metrics["rows"]] == ["exactly 3"]
    assert metrics["ranking"]["precision@score>=0.5"] is None
    text = " ".join(render_text(metrics).split())
    assert f"Lists cut at 0.5 are left out: {words}" in text
    # thresholds that are fitted may have any scale
    fitted = evaluate(test, test, choose_protocols("coco2014", "asl"))
    assert find_row(fitted, "free length")["threshold"] in np.float32(scores)


def test_probabilities_and_null_scores_and_marginals_of_no_path_are_cut_at_a_fixed_threshold():
    scores = [[1.0000001, -np.inf], [0.0, 0.5]]
    test = Predictions.from_scores(["a", "b"], [[1, 0], [1, 1]], [[1, 1], [1, 1]], scores)
    metrics = evaluate(test, None, choose_protocols("coco2014", "srn"))
    assert find_row(metrics, "free length")["list_length"] == 1
    assert metrics["ranking"]["precision@score>=0.5"] == 1
    assert find_row(evaluate(HAND, None, choose_protocols("coco2014", "srn")), "free length")


def test_the_report_says_how_the_scores_came_about():
    metrics = evaluate(without_paths(HAND, ranking_rule="cosines to the label embeddings"), None)
    assert "Cut from a ranking of the labels: cosines to the label embeddings;" in json.dumps(metrics)
    assert [row["name"] for row in metrics["rows"]] == ["exactly 3"]


# ---- what is written and printed


def test_metrics_are_saved_sorted_and_read_back_equal(tmp_path):
    metrics = evaluate(references=[{"name": "best set", "O-F1": np.float64(0.9), "note": math.nan}])
    path = tmp_path / "run" / "metrics-test.json"
    save_metrics(metrics, path)
    save_metrics(metrics, path)
    content = json.loads(path.read_text())
    assert list(content) == sorted(metrics)
    assert content["rows"] == metrics["rows"]
    assert content["references"] == [{"name": "best set", "O-F1": 0.9, "note": None}]
    assert [file.name for file in path.parent.iterdir()] == ["metrics-test.json"]
    with pytest.raises(ValueError, match="JSON"):
        save_metrics({"value": math.nan}, path)
    assert json.loads(path.read_text()) == content


def test_the_table_shows_the_numbers_of_the_json_in_the_papers_columns():
    metrics = json.loads(json.dumps(evaluate(make_predictions(1), make_predictions(2))))
    lines = render_text(metrics).splitlines()
    header = next(line.split() for line in lines if line.startswith("lists"))
    columns = ["C-P", "C-R", "C-F1³", "O-P", "O-R", "O-F1", "MAP@10⁵", "C-F1⁴", "exact", "mAP⁶"]
    assert header == ["lists", "length", *columns]
    keys = ["C-P", "C-R", "C-F1_harmonic", "O-P", "O-R", "O-F1", "MAP@10_truncated", "C-F1_per_class",
            "exact_match", "mAP_raw"]  # fmt: skip
    for row in metrics["rows"]:
        line = next(line for line in lines if line.startswith((row["name"] + "¹", row["name"] + "²")))
        values = {**metrics["ranking"], **row}
        expected = [f"{row['list_length']:.2f}", *(f"{100 * values[key]:.1f}" for key in keys)]
        assert line.split()[-len(expected) :] == expected
    ranked = next(line for line in lines if line.startswith("recall"))
    places = [k for k in (1, 3, 5, 10, 20) if k < metrics["labels"]]
    assert ranked.split()[1:] == [f"{100 * metrics['ranking'][f'recall@{k}']:.1f}" for k in places]


def test_the_error_of_calibrated_probabilities_is_one_line_above_the_notes():
    entry = {"ece_before": 0.0412, "ece_after": 0.00951, "temperature": 1.876, "holdout_images": 8278}
    lines = render_text({**evaluate(split="holdout"), "calibration": entry}).splitlines()
    line = "calibration error (ECE, holdout): 4.12 % before, 0.95 % after; T 1.88 from 8,278 hold-out images"
    assert [each.strip() for each in lines if "calibration error" in each] == [line]
    assert lines.index(next(each for each in lines if each.startswith("¹"))) > [
        each.strip() for each in lines
    ].index(line)
    assert "calibration error" not in render_text(evaluate())
    entry = {"temperature": 1.876, "threshold": 0.4, "holdout_images": 8278}
    text = render_text({**evaluate(split="holdout"), "calibration": entry})
    assert "no calibration error: 8,278 of these images fitted T (1.88)" in text


@pytest.mark.parametrize(
    ("dataset", "name"), [("demo", None), ("nuswide1000", None), ("voc2007", None), ("coco2014", "srn")]
)
def test_the_table_fits_into_a_hundred_columns(dataset, name):
    references = [{"name": "most probable sets, on this test split", "O-F1": 0.9, "exact_match": 0.7}]
    num_labels = 15
    metrics = evaluate(
        make_predictions(1, num_labels=num_labels),
        make_predictions(2, num_labels=num_labels),
        choose_protocols(dataset, name),
        references=references,
    )
    text = render_text(metrics)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "most probable sets, on this test split " in text


def test_references_stand_below_in_the_columns_that_they_are_scores_of():
    references = [
        {"name": "best [set]", "O-F1": 0.918, "exact_match": 0.7},
        {"name": "paper", "C-F1": 0.604, "mAP": 0.84},
    ]
    lines = render_text(evaluate(references=references)).splitlines()
    header = next(line for line in lines if line.startswith("lists"))
    start = next(i for i, line in enumerate(lines) if line.startswith("known references"))
    first, second = lines[start + 2 : start + 4]
    assert first.startswith("best [set]") and second.startswith("paper")

    def ends(line, text):
        return line.index(text) + len(text)

    assert ends(first, "91.8") == ends(header, "O-F1")
    assert ends(first, "70.0") == ends(header, "exact")
    assert ends(second, "60.4") == ends(header, "C-F1³")
    assert ends(second, "84.0") == ends(header, "mAP⁶")


def test_every_convention_is_named_below():
    metrics = evaluate(HAND, HAND_HOLDOUT)
    text = " ".join(render_text(metrics).split())
    for words in (
        FREE[0].words,
        RANKING_RULE,
        "0.6 (at most 3), 0.6 (free length)",
        "on 1 hold-out image:",
        "C-F1 as the harmonic mean",
        "C-F1 as the mean of the labels' F1",
        "3 images count, 1 of them without labels, with 1.67 true labels each",
        "1 of 4 labels without a positive",
        "labels never predicted: 1 (best path), 1 (best path, first 3)",
    ):
        assert words in text
    marked = {mark for note in metrics["conventions"] for mark in note["marks"]}
    assert {row["name"] for row in metrics["rows"]} <= marked


def test_a_protocol_with_one_average_names_only_that():
    text = render_text(evaluate(HAND, None, choose_protocols("coco2014", "srn")))
    assert "C-F1 as the mean of the labels' F1" in text and "C-F1 as the harmonic" not in text
    assert text.count("C-F1³") == 1


def test_each_label_has_its_row_in_the_csv(tmp_path):
    path = tmp_path / "figures" / "per_label.csv"
    vocabulary = LabelVocabulary(("sky", "sea, calm", "tree", "ufo"), (9, 5, 5, 0))
    save_per_label(path, HAND, vocabulary, lists="best path")
    rows = list(csv.reader(path.open()))
    assert (
        ",".join(rows[0]) == "label,train_count,positives,predicted,correct,precision,recall,F1,AP_raw,lists"
    )
    assert {row.pop() for row in rows[1:]} == {"best path"}
    assert rows[1:] == [
        ["sky", "9", "2", "2", "2", "1.000000", "1.000000", "1.000000", "1.000000"],
        ["sea, calm", "5", "2", "1", "1", "1.000000", "0.500000", "0.666667", "1.000000"],
        ["tree", "5", "1", "1", "0", "0.000000", "0.000000", "0.000000", "0.500000"],
        ["ufo", "0", "0", "0", "0", "0.000000", "", "", ""],
    ]


def test_the_means_over_the_csv_are_those_of_the_report(tmp_path):
    test = make_predictions(8, unknown=0.2)
    save_per_label(tmp_path / "labels.csv", test, make_vocabulary(7), sets=test.path_sets(3))
    rows = list(csv.DictReader((tmp_path / "labels.csv").open()))
    metrics = evaluate(test, None)
    row = find_row(metrics, "best path, first 3")
    for column, measure in (("precision", "C-P"), ("recall", "C-R"), ("F1", "C-F1_per_class")):
        assert np.mean([float(label[column]) for label in rows]) == pytest.approx(row[measure], abs=1e-6)
    assert np.mean([float(label["AP_raw"]) for label in rows]) == pytest.approx(
        metrics["ranking"]["mAP_raw"], abs=1e-6
    )
