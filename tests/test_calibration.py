"""Temperature and calibration error against grid search, loops and hand-worked bins; and what they leave."""

import dataclasses
import json

import numpy as np
import pytest

from cnnrnn_tf.evaluation.calibration import (
    FILE_NAME,
    Calibration,
    apply_temperature,
    expected_calibration_error,
    fit_calibration,
    fit_temperature,
    probabilities_of,
    reliability,
)
from cnnrnn_tf.evaluation.metrics import SetMeasures, fit_label_thresholds, fit_threshold
from cnnrnn_tf.evaluation.predictions import Predictions
from tfrecords.errors import UserError
from tfrecords.vocabulary import LabelVocabulary


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def draw_table(seed, temperature=2.0, num_images=400, num_labels=6):
    """Truth drawn from honest probabilities, and scores that are too sure by `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, (num_images, num_labels))
    truth = (rng.random(logits.shape) < sigmoid(logits)).astype(int)
    truth[0], truth[1] = 0, 1
    return truth, sigmoid(temperature * logits).astype(np.float32)


def make_predictions(seed, num_images=300, num_labels=5, unknown=0.1):
    """Marginals that are too sure, labels on no path below 0, as `rank_labels` gives them."""
    truth, scores = draw_table(seed, 2.0, num_images, num_labels)
    rng = np.random.default_rng(seed)
    scores = np.where(scores < 0.05, -1 / np.maximum(scores, 1e-6), np.where(scores > 0.99, 1, scores))
    return Predictions(
        image_ids=[str(i) for i in range(num_images)],
        labels=truth,
        known=rng.random(truth.shape) >= unknown,
        paths=np.zeros((num_images, 1)),
        path_lengths=np.zeros(num_images),
        path_log_probs=np.zeros(num_images),
        scores=scores,
    )


def vocabulary_of(num_labels):
    return LabelVocabulary.from_counts({f"label{i}": 100 - i for i in range(num_labels)})


# ---- temperature


def mean_log_loss(scores, truth, known, temperature):
    """As the definition has it, cell by cell."""
    losses = []
    for p, label, seen in zip(scores.ravel(), truth.ravel(), known.ravel(), strict=True):
        if seen:
            p = 1e-4 + (1 - 2e-4) * max(float(p), 0.0)
            p = sigmoid(np.log(p / (1 - p)) / temperature)
            losses.append(-np.log(p if label else 1 - p))
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6, 3.0])
def test_the_temperature_is_that_of_a_grid_search(temperature):
    truth, scores = draw_table(1, temperature, num_images=60)
    known = np.random.default_rng(2).random(truth.shape) < 0.8
    found = fit_temperature(scores, truth, known, standard_errors=0)
    grid = np.geomspace(found / 1.5, found * 1.5, 61)
    losses = [mean_log_loss(scores, truth, known, each) for each in grid]
    assert abs(int(np.argmin(losses)) - 30) <= 1
    assert mean_log_loss(scores, truth, known, found) <= min(losses) + 1e-9


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6, 3.0])
def test_with_many_images_the_temperature_that_spoilt_the_probabilities_is_found(temperature):
    truth, scores = draw_table(3, temperature, num_images=50_000)
    assert fit_temperature(scores, truth) == pytest.approx(temperature, rel=0.05)


def test_labels_on_no_path_count_as_probability_0_and_all_paths_as_1_without_infinite_loss():
    truth = np.array([[1, 0]] * 90 + [[0, 1]] * 10)
    ranked, plain = np.array([[1.0, -1e6]] * 100), np.array([[1.0, 0.0]] * 100)
    found = fit_temperature(ranked, truth)
    assert found == fit_temperature(plain, truth)
    # nine of ten hold where 0.9999 was said: ln 9999 / T = ln 9
    assert found == pytest.approx(np.log(9999) / np.log(9), rel=1e-3)
    np.testing.assert_allclose(apply_temperature(ranked, found), [[0.9, 0.1]] * 100, rtol=1e-3)


def test_a_hold_out_without_a_mistake_or_without_a_hint_gives_a_temperature_within_bounds():
    scores = [[0.9, 0.1], [0.8, 0.3]]
    assert fit_temperature(scores, [[1, 0], [1, 0]]) == pytest.approx(0.5, rel=1e-3)
    assert fit_temperature(scores, [[0, 1], [0, 1]]) == pytest.approx(10, rel=1e-3)
    for standard_errors in (0, 1):
        assert fit_temperature([[0.5, 0.5]] * 2, [[0, 1]] * 2, None, standard_errors) == 1


@pytest.mark.parametrize("seed", range(8))
def test_the_temperature_stays_1_unless_the_gain_of_images_exceeds_its_standard_error(seed):
    """As the definition has it: the losses of each image before and after, their differences, and t > 1."""
    truth, scores = draw_table(seed, 1.3, num_images=6 + 10 * seed)
    known = np.random.default_rng(seed).random(truth.shape) < 0.8
    best = fit_temperature(scores, truth, known, standard_errors=0)
    gains = []
    for row in zip(scores, truth, known, strict=True):
        if row[2].any():
            before, after = (mean_log_loss(*row, temperature) for temperature in (1.0, best))
            gains.append((before - after) * row[2].sum())
    assert best != 1
    bound = np.std(gains, ddof=1) / np.sqrt(len(gains))
    assert fit_temperature(scores, truth, known) == (best if np.mean(gains) > bound else 1)


def test_one_image_and_a_few_that_disagree_leave_the_temperature_at_1():
    assert fit_temperature([[0.9, 0.1]], [[0, 1]]) == 1
    scores, truth = [[0.9]] * 6, [[1], [1], [1], [1], [1], [0]]
    assert fit_temperature(scores, truth, standard_errors=0) > 1.3
    assert fit_temperature(scores, truth) == 1
    assert fit_temperature(scores * 100, truth * 100) > 1.3


@pytest.mark.parametrize(
    ("scores", "truth", "note"),
    [
        ([[0.9]] * 4, [[1], [1], [1], [0]], "T stays 1: 4 hold-out images cannot tell a better one from"),
        ([[0.9]] * 4, [[0]] * 4, "T ends at a bound of 0.5 to 10"),
        ([[0.9]] * 4, [[1]] * 4, "T ends at a bound of 0.5 to 10"),
        ([[0.9]] * 40, [[1], [1], [1], [0]] * 10, ""),
    ],
)
def test_a_calibration_says_what_is_odd_about_its_temperature(scores, truth, note):
    ids = [str(i) for i in range(len(scores) + 1)]  # one more has the label, as thresholds need
    holdout = Predictions.from_scores(ids, [*truth, [1]], [[1]] * len(ids), [*scores, [0.9]])
    if note.startswith("T stays"):
        holdout = holdout.take(np.arange(4))
    found = fit_calibration(holdout, vocabulary_of(1)).note
    assert found.startswith(note) and bool(found) == bool(note)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [0.5, 0.8, 1.0, 2.5, 10.0])
def test_the_map_rises_and_keeps_its_type(dtype, temperature):
    scores = np.linspace(0, 1, 10_001).astype(dtype)
    found = apply_temperature(scores, temperature)
    assert found.dtype == dtype
    steps = np.diff(found)
    assert (steps >= 0).all() and (steps > 0).sum() > 0.999 * len(steps)
    assert (dtype == np.float32 and temperature < 1) or (steps > 0).all()
    assert 0 < found[0] < 0.3 and 0.7 < found[-1] <= 1
    assert found[5000] == 0.5


def test_rankings_and_sets_at_thresholds_are_as_before():
    test, holdout = make_predictions(1), make_predictions(2)
    scores, fitted_on = probabilities_of(test), probabilities_of(holdout)
    temperature = fit_temperature(fitted_on, holdout.marks)
    assert temperature > 1.3
    calibrated = apply_temperature(scores, temperature)
    for before, after in zip(scores, calibrated, strict=True):
        np.testing.assert_array_equal(np.argsort(-before, kind="stable"), np.argsort(-after, kind="stable"))
    common = fit_threshold(fitted_on, holdout.marks)
    for threshold in (np.full(5, common), fit_label_thresholds(fitted_on, holdout.marks)):
        moved = apply_temperature(threshold, temperature)
        np.testing.assert_array_equal(scores >= threshold, calibrated >= moved)


# ---- calibration error


def test_a_hand_worked_calibration_error():
    scores = [[0.0, 0.05, 0.12], [0.95, 1.0, 0.5], [-3.0, 0.19, 0.9]]
    labels = [[0, 0, 1], [1, 0, 1], [1, 0, 1]]
    known = [[1, 1, 1], [1, 1, 1], [1, 1, 0]]
    found = reliability(scores, labels, known, num_bins=5)
    # 0 to 0.2: 0, 0.05, 0.12, 0 and 0.19, two of five true; 0.4 to 0.6: 0.5; 0.8 to 1: 0.95 and 1, one true
    assert found.counts.tolist() == [5, 0, 1, 0, 2]
    nan = np.nan
    np.testing.assert_allclose(found.mean_probability, [0.072, nan, 0.5, nan, 0.975])
    np.testing.assert_allclose(found.share_true, [0.4, nan, 1.0, nan, 0.5])
    expected = (5 * (0.4 - 0.072) + 1 * (1 - 0.5) + 2 * (0.975 - 0.5)) / 8
    assert expected_calibration_error(scores, labels, known, num_bins=5) == pytest.approx(expected)


@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_calibration_error_is_that_of_a_loop(num_bins):
    truth, scores = draw_table(4, num_images=50)
    known = np.random.default_rng(4).random(truth.shape) < 0.7
    bins = {}
    for p, label, seen in zip(scores.ravel(), truth.ravel(), known.ravel(), strict=True):
        if seen:
            bins.setdefault(min(int(np.float64(p) * num_bins), num_bins - 1), []).append((p, label))
    expected = sum(abs(sum(p - label for p, label in cells)) for cells in bins.values()) / known.sum()
    assert expected_calibration_error(scores, truth, known, num_bins) == pytest.approx(expected, rel=1e-5)


def test_the_temperature_of_one_split_halves_the_error_of_another():
    holdout, test = draw_table(5, 3.0, 2000), draw_table(6, 3.0, 2000)
    temperature = fit_temperature(holdout[1], holdout[0])
    before = expected_calibration_error(test[1], test[0])
    after = expected_calibration_error(apply_temperature(test[1], temperature), test[0])
    assert before > 0.08 and after < before / 4


@pytest.mark.parametrize("labels", [[[0], [0]], [[1], [1]]])
def test_one_label_that_always_or_never_holds(labels):
    found = reliability([[0.25], [0.75]], labels, num_bins=2)
    assert found.counts.tolist() == [1, 1]
    assert expected_calibration_error([[0.25], [0.75]], labels) == pytest.approx(0.5)
    assert 0.5 <= fit_temperature([[0.25], [0.75]], labels) <= 10


def test_only_the_scores_of_a_beam_search_are_read_as_probabilities_of_0_below_0():
    found = make_predictions(1)
    assert (found.scores < 0).any()
    np.testing.assert_array_equal(probabilities_of(found), np.where(found.scores < 0, 0, found.scores))
    margins = dataclasses.replace(found, ranking_rule="distances to a hyperplane")
    assert probabilities_of(margins) is margins.scores


# ---- what a run keeps


def test_all_is_fitted_on_the_hold_out_and_thresholds_are_calibrated_probabilities():
    holdout = make_predictions(7)
    found = fit_calibration(holdout, vocabulary_of(5))
    scores, marks = np.maximum(holdout.scores, 0), holdout.marks
    assert found.temperature == fit_temperature(scores, marks)
    assert found.threshold == pytest.approx(
        float(apply_temperature(np.float64(fit_threshold(scores, marks)), found.temperature))
    )
    own = apply_temperature(fit_label_thresholds(scores, marks).astype(float), found.temperature)
    assert found.label_thresholds == pytest.approx(own.tolist())
    assert (found.num_images, found.vocabulary_fingerprint) == (300, vocabulary_of(5).fingerprint)
    assert found.ece_after < found.ece_before == expected_calibration_error(holdout.scores, marks)
    # the calibrated scores at the calibrated threshold give the O-F1 that the threshold was chosen for
    f1 = []
    for values, threshold in ((scores, fit_threshold(scores, marks)), (found.apply(scores), found.threshold)):
        measures = SetMeasures(5, threshold=threshold)
        measures.update_state(marks, values)
        f1.append(float(measures.result()["O-F1"]))
    assert f1[0] == f1[1]


def test_a_label_on_no_path_has_no_threshold_that_every_image_reaches():
    """Label 1 scores below 0 wherever it is true: it keeps the common threshold, and 0 is none."""
    places = {"paths": [[0]] * 40, "path_lengths": [1] * 40, "path_log_probs": [0.0] * 40}
    ids, scores = [str(i) for i in range(40)], [[0.9, -5.0]] * 30 + [[0.2, 0.0]] * 10
    labels = [[1, 1]] * 30 + [[0, 1]] * 10
    found = fit_calibration(
        Predictions(ids, labels, np.ones((40, 2)), scores=scores, **places), vocabulary_of(2)
    )
    lowest = float(apply_temperature(np.array(0.0), found.temperature))
    assert found.threshold > lowest + 0.01
    assert found.label_thresholds == pytest.approx([found.threshold] * 2)


def test_the_error_is_measured_on_another_split_with_what_the_hold_out_fitted():
    found, test = fit_calibration(make_predictions(7), vocabulary_of(5)), make_predictions(8, num_images=200)
    entry = found.measure(test)
    assert entry == {
        "temperature": found.temperature,
        "threshold": found.threshold,
        "images": 200,
        "ece_before": expected_calibration_error(test.scores, test.labels, test.known),
        "ece_after": expected_calibration_error(found.apply(test.scores), test.labels, test.known),
        "holdout_images": 300,
        "holdout_ece_before": found.ece_before,
        "holdout_ece_after": found.ece_after,
    }
    assert entry["ece_after"] < entry["ece_before"]
    on_itself = found.measure(test, is_fitted_here=True)
    assert on_itself == {key: entry[key] for key in ("temperature", "threshold", "holdout_images")}
    json.dumps(entry, allow_nan=False)


def test_a_calibration_is_read_back_equal(tmp_path):
    found = fit_calibration(make_predictions(7), vocabulary_of(5))
    found.save(tmp_path)
    assert Calibration.load(tmp_path, vocabulary_of(5)) == found
    content = json.loads((tmp_path / FILE_NAME).read_text())
    assert list(content) == [field.name for field in dataclasses.fields(Calibration)]
    del content["note"]  # as it was before there were notes
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    assert Calibration.load(tmp_path, vocabulary_of(5)) == dataclasses.replace(found, note="")
    assert Calibration.load(tmp_path / "figures", vocabulary_of(5)) is None


GOOD = Calibration(1.5, 0.4, (0.4, 0.2), 0.1, 0.05, 20, vocabulary_of(2).fingerprint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, "temperature of a calibration must be above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature of a calibration must be above 0, got nan"),
        ({"temperature": "warm"}, r"is no calibration \(could not convert string to float: 'warm'\)"),
        ({"threshold": 40}, "threshold of a calibration must be from 0 to 1, got 40.0"),
        ({"label_thresholds": [0.4]}, "holds 1 label_thresholds for 2 labels"),
        ({"label_thresholds": [0.4, -2]}, "label_thresholds of a calibration must be from 0 to 1, got -2.0"),
        ({"label_thresholds": 0.4}, r"is no calibration \('float' object is not iterable\)"),
        ({"ece_after": 2}, "ece_after of a calibration must be from 0 to 1, got 2.0"),
        (
            {"vocabulary_fingerprint": "0" * 64},
            "was fitted for another vocabulary .000000000000, this one is",
        ),
        ({"vocabulary_fingerprint": None}, r"is no calibration \('NoneType' object is not subscriptable\)"),
    ],
)
def test_a_damaged_file_is_told_in_one_line_that_says_what_to_do(tmp_path, changes, message):
    content = {**GOOD.to_json(), **changes}
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=f"calibration.json: {message}.*; train again, or remove the file"
    ) as told:
        Calibration.load(tmp_path, vocabulary_of(2))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"cannot be read as JSON \(Expecting"),
        ("{}", r"is no calibration \('temperature' is missing\)"),
        ("[]", r"is no calibration \(list indices"),
    ],
)
def test_what_is_no_calibration_at_all_is_told(tmp_path, text, message):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(UserError, match=f"{message}.*; train again, or remove the file"):
        Calibration.load(tmp_path, vocabulary_of(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fit_temperature([[0.5]], [[1]], [[0]]), "nothing is known of the labels of 1 image: take"),
        (lambda: fit_temperature([[7.5]], [[1]]), "needs probabilities, 0 to 1, got a score of 7.5"),
        (lambda: fit_temperature([[np.nan]], [[1]]), "1 scores of known labels are NaN"),
        (lambda: fit_temperature([[0.5]], [[1, 0]]), r"one shape \[images, labels\], got \[1, 2\], \[1, 1\]"),
        (lambda: apply_temperature([0.5], 0), "temperature 0: expected a number above 0"),
        (lambda: apply_temperature([1.5], 1), "got a score of 1.5"),
        (lambda: expected_calibration_error([[0.5]], [[1]], num_bins=0), "num_bins 0: expected 1 or more"),
        (
            lambda: fit_calibration(
                Predictions.from_scores(["a"], [[0, 0]], [[1, 1]], [[0.5, 0.5]]), vocabulary_of(2)
            ),
            "none of 1 hold-out image has a known label",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
