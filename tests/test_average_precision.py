"""Average precision in three shapes, and the fitted threshold: against scikit-learn and brute force."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from cnnrnn_tf.evaluation.metrics import (
    AP_SHAPES,
    MeanAveragePrecision,
    SetMeasures,
    average_precision,
    fit_threshold,
)
from tfrecords.errors import UserError


def random_table(rng, distinct_scores=False):
    """Truth, scores and known cells with dead labels, empty and full truths, unknowns and (mostly) ties."""
    num_images, num_labels = rng.integers(1, 25), rng.integers(1, 5)
    truth = rng.random((num_images, num_labels)) < rng.choice([0.1, 0.5, 0.9])
    truth[rng.random(num_images) < 0.1] = True
    truth[:, rng.random(num_labels) < 0.2] = False
    scores = rng.integers(0, 8, truth.shape) / 7
    if distinct_scores:
        scores = rng.permutation(truth.size).reshape(truth.shape) / truth.size
    known = rng.random(truth.shape) < rng.choice([0.7, 1.0])
    return truth.astype(int), scores, known


def curve_by_hand(hits, scores):
    """Exact (recall, precision) of the images that reach each distinct score, highest first."""
    total = sum(hits)
    points = []
    for cut in sorted(set(scores), reverse=True):
        reached = [hit for hit, score in zip(hits, scores, strict=True) if score >= cut]
        points.append((Fraction(sum(reached), total), Fraction(sum(reached), len(reached))))
    return points


def ap_by_hand(hits, scores, shape):
    """AP from the definitions, in exact fractions."""
    points = curve_by_hand([int(hit) for hit in hits], list(scores))
    if shape == "voc11":
        levels = [Fraction(i, 10) for i in range(11)]
        return float(sum(max(p for r, p in points if r >= level) for level in levels) / 11)
    area, before = Fraction(0), Fraction(0)
    for i, (recall, precision) in enumerate(points):
        height = precision if shape == "raw" else max(p for _, p in points[i:])
        area, before = area + (recall - before) * height, recall
    return float(area)


# Six images by falling score, right at places 1, 3 and 6: precision there 1, 2/3, 1/2, recall 1/3, 2/3, 1.
HAND = {
    "raw": (1 + 2 / 3 + 1 / 2) / 3,
    "interpolated": (1 + 2 / 3 + 1 / 2) / 3,
    "voc11": (4 * 1 + 3 * 2 / 3 + 4 * 1 / 2) / 11,  # recall 0 to .3, .4 to .6, .7 to 1
}


@pytest.mark.parametrize("shape", AP_SHAPES)
def test_average_precision_equals_the_hand_worked_ranking(shape):
    labels = np.array([[1, 0, 1, 0, 0, 1]]).T
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]]).T
    assert average_precision(labels, scores, shape=shape) == pytest.approx([HAND[shape]])


def test_interpolation_lifts_a_dip_to_the_precision_that_follows():
    # Right at places 2, 3 and 4: precision 1/2, 2/3, 3/4, so that every dip is lifted to 3/4.
    labels, scores = [[0], [1], [1], [1]], [[0.9], [0.8], [0.7], [0.6]]
    assert average_precision(labels, scores, shape="raw") == pytest.approx([(1 / 2 + 2 / 3 + 3 / 4) / 3])
    assert average_precision(labels, scores, shape="interpolated") == pytest.approx([3 / 4])
    assert average_precision(labels, scores, shape="voc11") == pytest.approx([3 / 4])


def test_eleven_points_meet_recalls_of_exact_tenths():
    # Ten right images, a wrong one after the third and many after the sixth. Recall 3/10 meets the level 0.3,
    # with precision 1; in floating point 3 * 0.1 > 3/10, and the level would read the 6/7 that follows.
    hits = [1] * 3 + [0] + [1] * 3 + [0] * 13 + [1] * 4
    labels, scores = np.array([hits]).T, -np.arange(len(hits), dtype=float)[:, None]
    expected = (4 * 1 + 3 * 6 / 7 + 4 * 10 / 24) / 11
    assert average_precision(labels, scores, shape="voc11") == pytest.approx([expected])


@pytest.mark.parametrize("distinct_scores", [False, True])
def test_average_precision_equals_its_definition_on_random_tables(distinct_scores):
    rng = np.random.default_rng(0)
    for _ in range(100):
        truth, scores, known = random_table(rng, distinct_scores)
        for shape in AP_SHAPES:
            expected = [
                ap_by_hand(truth[k, j], scores[k, j], shape) if truth[k, j].any() else np.nan
                for j, k in enumerate(known.T)
            ]
            found = average_precision(truth, scores, known, shape)
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_raw_average_precision_equals_scikit_learn():
    rng = np.random.default_rng(1)
    for _ in range(100):
        truth, scores, known = random_table(rng)
        for j, value in enumerate(average_precision(truth, scores, known)):
            hits, reached = truth[known[:, j], j], scores[known[:, j], j]
            expected = average_precision_score(hits, reached) if hits.any() else np.nan
            assert value == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("num_right", [1, 3, 7, 9, 13])  # no recall is a tenth, which rounding would decide
def test_eleven_points_equal_a_transcription_of_the_voc_devkit(num_right):
    # VOCevaldet.m: for t=0:0.1:1, p=max(prec(rec>=t)); if isempty(p), p=0; end; ap=ap+p/11; end
    rng = np.random.default_rng(num_right)
    for _ in range(20):
        truth = rng.permutation(40) < num_right
        scores = rng.permutation(40).astype(float)
        right = truth[np.argsort(-scores)]
        tp, fp = np.cumsum(right), np.cumsum(~right)
        rec, prec = tp / num_right, tp / (tp + fp)
        expected = sum(max(prec[rec >= t], default=0) / 11 for t in np.linspace(0, 1, 11))
        assert average_precision(truth[:, None], scores[:, None], shape="voc11") == pytest.approx([expected])


@pytest.mark.parametrize("shape", AP_SHAPES)
def test_equal_scores_make_the_order_of_images_irrelevant(shape):
    rng = np.random.default_rng(3)
    truth, scores, known = (rng.random((30, 3)) < 0.4), rng.integers(0, 3, (30, 3)) / 2, np.ones((30, 3))
    shuffled = rng.permutation(30)
    found = average_precision(truth, scores, known, shape)
    again = average_precision(truth[shuffled], scores[shuffled], known[shuffled], shape)
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("shape", AP_SHAPES)
def test_all_scores_equal_give_the_share_of_positives_even_at_minus_infinity(shape):
    for score in (0.0, -np.inf):
        found = average_precision([[1], [0], [0], [1]], np.full((4, 1), score), shape=shape)
        assert found == pytest.approx([0.5])


@pytest.mark.parametrize("shape", AP_SHAPES)
def test_labels_without_a_positive_have_no_average_precision(shape):
    labels = [[1, 0, 1, -1], [1, 0, 0, 1]]  # always, never, once, once known
    scores = [[0.1, 0.2, 0.3, 0.9], [0.4, 0.5, 0.6, 0.1]]
    expected = [1, np.nan, 0.5, 1]
    np.testing.assert_allclose(average_precision(labels, scores, shape=shape), expected)


def test_mean_average_precision_in_batches_is_that_of_the_whole():
    rng = np.random.default_rng(4)
    truth, scores = rng.random((41, 6)) < 0.2, rng.integers(0, 9, (41, 6)).astype(np.float32)
    truth[:, 2] = False
    known = rng.random((41, 6)) < 0.8
    metric = MeanAveragePrecision()
    for start in (0, 7, 8, 40):
        stop = {0: 7, 7: 8, 8: 40, 40: 41}[start]
        metric.update(truth[start:stop], scores[start:stop], known[start:stop])
    result = metric.result()
    for shape in AP_SHAPES:
        whole = average_precision(truth, scores, known, shape)
        np.testing.assert_array_equal(metric.per_label(shape), whole)
        assert result[f"mAP_{shape}"] == pytest.approx(np.nanmean(whole))
    assert result["labels_without_positive"] == np.isnan(whole).sum() >= 1


def test_mean_average_precision_keeps_its_own_copy_of_the_scores():
    metric, scores = MeanAveragePrecision(("raw",)), np.array([[0.9], [0.1]], np.float32)
    metric.update([[1], [0]], scores)
    scores[:] = [[0.1], [0.9]]
    assert metric.result()["mAP_raw"] == 1


def test_mean_average_precision_of_no_positive_at_all_is_nan():
    metric = MeanAveragePrecision(("raw",))
    metric.update([[0, 0]], [[0.1, 0.2]])
    result = metric.result()
    assert np.isnan(result["mAP_raw"]) and result["labels_without_positive"] == 2


def o_f1_of_lists(scores, truth, known, k, threshold):
    predicted = np.zeros_like(truth)
    for row in range(len(truth)):
        labels = sorted(np.flatnonzero(known[row]), key=lambda label: (-scores[row, label], label))
        for label in labels[:k]:
            predicted[row, label] = scores[row, label] >= threshold
    return f1_score(truth[known], predicted[known], zero_division=0)


@pytest.mark.parametrize("k", [None, 1, 2, 10])
def test_fitted_threshold_is_the_highest_of_the_best_by_exhaustive_search(k):
    rng = np.random.default_rng(5)
    for _ in range(30):
        truth, scores, known = random_table(rng)
        if not truth[known].any():
            continue
        trials = {cut: o_f1_of_lists(scores, truth, known, k, cut) for cut in np.unique(scores[known])}
        found = fit_threshold(scores, truth, known, k, standard_errors=0)
        best = max(trials.values())
        assert found == max(cut for cut, value in trials.items() if value > best - 1e-12)


@pytest.mark.parametrize("k", [None, 1, 2, 10])
def test_fitted_threshold_is_the_middle_of_those_that_a_standard_error_cannot_tell_from_the_best(k):
    rng = np.random.default_rng(7)
    num_moved = 0
    for _ in range(30):
        truth, scores, known = random_table(rng)
        if not truth[known].any():
            continue
        best_known = [np.sort(row[mask])[::-1][:k] for row, mask in zip(scores, known, strict=True)]
        cuts = np.unique(np.concatenate(best_known))  # those that change a list
        values = [o_f1_of_lists(scores, truth, known, k, cut) for cut in cuts]
        highest = max(values)
        if not highest:  # no list is ever right: no threshold is better than another
            assert fit_threshold(scores, truth, known, k) == cuts[-1]
            continue
        best = max(i for i, value in enumerate(values) if value > highest - 1e-12)
        bound = highest - np.sqrt(highest * (1 - highest) / truth[known].sum()) - 1e-12
        first = last = best
        while first > 0 and values[first - 1] >= bound:
            first -= 1
        while last + 1 < len(cuts) and values[last + 1] >= bound:
            last += 1
        assert fit_threshold(scores, truth, known, k) == pytest.approx((cuts[first] + cuts[last]) / 2)
        num_moved += first != best or last != best
    assert num_moved > 10


def test_where_no_threshold_is_any_good_the_highest_is_taken_and_infinity_is_no_middle():
    assert fit_threshold([[0.1, 0.2, 0.9]], [[1, 0, 0]], k=1) == 0.9
    scores, labels = [[np.inf, 0.4, -np.inf], [np.inf, 0.5, -np.inf]], [[1, 0, 0], [1, 1, 0]]
    best = fit_threshold(scores, labels, standard_errors=0)
    assert best == 0.5 and fit_threshold(scores, labels, standard_errors=9) == best


def test_with_many_images_the_fitted_threshold_is_as_good_as_the_best():
    rng = np.random.default_rng(8)
    scores = rng.random((100_000, 4))
    truth = (rng.random(scores.shape) < scores**4).astype(int)
    fitted, best = (fit_threshold(scores, truth, standard_errors=count) for count in (1, 0))
    assert fitted == pytest.approx(best, abs=0.02)
    halves = fit_threshold(scores[:100], truth[:100]), fit_threshold(scores[100:200], truth[100:200])
    assert halves == pytest.approx((best, best), abs=0.1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fitted_threshold_gives_set_measures_the_o_f1_it_was_chosen_for(dtype):
    rng = np.random.default_rng(6)
    truth, scores = (rng.random((50, 6)) < 0.3).astype(int), rng.random((50, 6)).astype(dtype)
    threshold = fit_threshold(scores, truth, k=3)
    metric = SetMeasures(6, top_k=3, threshold=threshold)
    metric.update_state(truth, scores)
    expected = o_f1_of_lists(scores, truth, truth >= 0, 3, threshold)
    assert float(metric.result()["O-F1"]) == pytest.approx(expected, rel=1e-12)


def test_fitted_threshold_ignores_unknown_labels_before_taking_the_best_k():
    scores, labels = [[0.9, 0.5, 0.1], [0.8, 0.4, 0.1]], [[0, 1, 0], [0, 1, 0]]
    assert fit_threshold(scores, labels, [[0, 1, 1], [0, 1, 1]], k=1) == 0.4
    assert fit_threshold(scores, [[-1, 1, 0], [-1, 1, 0]], k=1) == 0.4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: average_precision([[1]], [[0.5]], shape="voc12"), "raw, voc11, interpolated, got 'voc12'"),
        (
            lambda: average_precision([[1, 0]], [[0.5]]),
            r"one shape \[images, labels\], got \[1, 2\], \[1, 1\]",
        ),
        (lambda: average_precision([1], [0.5]), r"one shape \[images, labels\], got \[1\]"),
        (lambda: average_precision([[1]], [[np.nan]]), "1 scores of known labels are NaN"),
        (lambda: MeanAveragePrecision(("voc",)), "shapes of mAP must be among raw, voc11, interpolated"),
        (lambda: MeanAveragePrecision().result(), "before the first update"),
        (lambda: fit_threshold([[0.5]], [[0]]), "none of 1 hold-out image has a known label"),
        (lambda: fit_threshold([[0.5]], [[1]], k=0), "must be at least 1, got 0"),
        (lambda: fit_threshold([[0.5]], [[1]], standard_errors=-1), "standard_errors -1: expected 0 or more"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_batches_of_other_widths_are_refused():
    metric = MeanAveragePrecision()
    metric.update([[1, 0]], [[0.1, 0.2]])
    with pytest.raises(UserError, match="3 labels where those before had 2"):
        metric.update([[1, 0, 0]], [[0.1, 0.2, 0.3]])


def test_nan_scores_of_unknown_labels_are_no_mistake():
    assert average_precision([[1], [-1]], [[0.5], [np.nan]]) == [1.0]
