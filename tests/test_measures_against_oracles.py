"""Every measure on random tables: against exact fractions, scikit-learn and the rules of VOC and COCO.

A table may have images without labels and with all, labels without a positive, ties, unknown cells, images of
which nothing is known, and one label. A hundred are quick; `long` takes a thousand.
"""

from __future__ import annotations

import warnings
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from sklearn import metrics as sk

from cnnrnn_tf.evaluation.metrics import (
    BinnedMeanAveragePrecision,
    MAPAtN,
    MeanAveragePrecision,
    PrecisionAtK,
    RecallAtK,
    SetMeasures,
    average_precision,
)

THOUSAND = [100, pytest.param(1000, marks=pytest.mark.long)]
CUTS = [(None, None), (2, None), (2, 0.4), (None, 0.4), (9, None)]
NUM_LABELS = (1, 2, 5)


def draw_table(rng, number):
    """Truth, scores and known cells `[images, labels]`; every second table is known whole."""
    num_images, num_labels = int(rng.integers(1, 14)), NUM_LABELS[number % len(NUM_LABELS)]
    truth = rng.random((num_images, num_labels)) < rng.choice([0.1, 0.4, 0.8])
    truth[rng.random(num_images) < 0.2] = False
    truth[rng.random(num_images) < 0.1] = True
    truth[:, rng.random(num_labels) < 0.2] = False
    scores = rng.integers(0, 6, truth.shape) / 5
    if rng.random() < 0.5:
        scores = rng.permutation(truth.size).reshape(truth.shape) / truth.size
    scores[rng.random(num_images) < 0.1] = 0  # with a threshold, an empty list
    known = np.ones(truth.shape, bool)
    if number % 2:
        known = rng.random(truth.shape) < rng.choice([0.5, 0.8])
        known[rng.random(num_images) < 0.1] = False
    return truth.astype(np.int32), scores.astype(np.float32), known


@cache
def make_set_measures(num_labels, top_k, threshold, never):
    return SetMeasures(num_labels, top_k, threshold, never)


@cache
def make_ranking_measures(n):
    return {"map": MAPAtN(n), "map_full": MAPAtN(n, "full"), "p": PrecisionAtK(n), "r": RecallAtK(n)}


def measure(metric, truth, scores, known, split):
    """A metric fed in two batches, of which the first may be empty."""
    metric.reset_state()
    marks = np.where(known, truth, -1)
    for rows in (slice(0, split), slice(split, None)):
        metric.update_state(marks[rows], scores[rows])
    result = metric.result()
    return {k: float(v) for k, v in result.items()} if isinstance(result, dict) else float(result)


# ---- exact fractions, by loops over images and labels


def list_labels(scores, known, k=None, threshold=None):
    """The list of one image: known labels by score and then by id, the first k, those that reach."""
    order = sorted((-score, label) for label, score in enumerate(scores.tolist()) if known[label])
    return [label for negative, label in order[:k] if threshold is None or -negative >= np.float32(threshold)]


def divide(one, other):
    return Fraction(int(one), int(other)) if other else Fraction(0)


def average(values):
    values = list(values)
    return sum(values, Fraction(0)) / len(values) if values else Fraction(0)


def measure_sets_by_hand(truth, lists, known, never):
    num_labels = truth.shape[1]
    true = [{j for j in range(num_labels) if truth[i, j] and known[i, j]} for i in range(len(truth))]
    hits = [sum(j in t and j in p for t, p in zip(true, lists, strict=True)) for j in range(num_labels)]
    listed = [sum(j in p for p in lists) for j in range(num_labels)]
    positives = [sum(j in t for t in true) for j in range(num_labels)]
    measured = [j for j in range(num_labels) if positives[j]]
    c_p = average(divide(hits[j], listed[j]) if listed[j] else Fraction(never) for j in measured)
    c_r = average(divide(hits[j], positives[j]) for j in measured)
    images = [(t, set(p)) for t, p, seen in zip(true, lists, known, strict=True) if seen.any()]
    wrong = sum(len(t ^ set(p)) for t, p in zip(true, lists, strict=True))
    return {
        "C-P": c_p,
        "C-R": c_r,
        "C-F1_harmonic": 2 * c_p * c_r / (c_p + c_r) if c_p + c_r else 0,
        "C-F1_per_class": average(divide(2 * hits[j], listed[j] + positives[j]) for j in measured),
        "O-P": divide(sum(hits), sum(listed)),
        "O-R": divide(sum(hits), sum(positives)),
        "O-F1": divide(2 * sum(hits), sum(listed) + sum(positives)),
        "hamming_loss": divide(wrong, known.sum()),
        "exact_match": average(Fraction(t == p) for t, p in images),
        "example_F1": average(divide(2 * len(t & p), len(t) + len(p)) if t or p else 1 for t, p in images),
        "N+": sum(hit > 0 for hit in hits),
        "labels_never_predicted": listed.count(0),
        "labels_without_positive": positives.count(0),
        "images": len(images),
    }


def measure_ranking_by_hand(truth, lists, n):
    """`lists` are whole rankings."""
    hits = [[int(truth[i, j]) for j in ranking] for i, ranking in enumerate(lists)]
    gained = [sum(Fraction(sum(h[: i + 1]), i + 1) for i in range(min(n, len(h))) if h[i]) for h in hits]
    labelled = [(g, h) for g, h in zip(gained, hits, strict=True) if sum(h)]
    return {
        "map": average(g / min(sum(h), n) for g, h in labelled),
        "map_full": average(g / sum(h) for g, h in labelled),
        "p": average(divide(sum(h[:n]), len(h[:n])) for h in hits if h),
        "r": average(divide(sum(h[:n]), sum(h)) for _, h in labelled),
    }


@pytest.mark.parametrize("num_tables", THOUSAND)
def test_every_measure_of_sets_and_of_rankings_equals_exact_fractions(num_tables):
    rng = np.random.default_rng(0)
    for number in range(num_tables):
        truth, scores, known = draw_table(rng, number)
        split, never = int(rng.integers(len(truth))), int(rng.integers(2))
        k, threshold = CUTS[number % len(CUTS)]
        found = measure(make_set_measures(truth.shape[1], k, threshold, never), truth, scores, known, split)
        cut = 0.5 if k is None and threshold is None else threshold
        lists = [list_labels(*row, k, cut) for row in zip(scores, known, strict=True)]
        expected = measure_sets_by_hand(truth, lists, known, never)
        assert found == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-14)

        n = (1, 3, 10)[number % 3]
        rankings = [list_labels(*row) for row in zip(scores, known, strict=True)]
        for name, value in measure_ranking_by_hand(truth, rankings, n).items():
            metric = make_ranking_measures(n)[name]
            assert measure(metric, truth, scores, known, split) == pytest.approx(float(value), rel=1e-14)


# ---- scikit-learn


@pytest.mark.parametrize("num_tables", THOUSAND)
def test_every_measure_that_scikit_learn_has_equals_it(num_tables):
    rng = np.random.default_rng(1)
    for number in range(0, 2 * num_tables, 2):  # tables that are known whole: scikit-learn knows no other
        truth, scores, known = draw_table(rng, number)
        k, threshold = CUTS[number // 2 % len(CUTS)]
        never = int(rng.integers(2))
        metric = make_set_measures(truth.shape[1], k, threshold, never)
        found = measure(metric, truth, scores, known, 0)
        cut = 0.5 if k is None and threshold is None else threshold
        sets = np.zeros_like(truth)
        for i, score in enumerate(scores):
            sets[i, list_labels(score, known[i], k, cut)] = 1
        assert found == pytest.approx(
            {**found, **measure_sets_by_scikit_learn(truth, sets, never)}, rel=1e-12
        )

        labelled = truth.any(axis=1)
        if number // 2 % 4 or not labelled.any():
            continue
        distinct = rng.permutation(truth.size).reshape(truth.shape).astype(np.float32)
        by_image = MAPAtN(truth.shape[1], "full")
        by_image.update_state(truth, distinct)
        expected = 1.0  # of one label; scikit-learn wants two
        if truth.shape[1] > 1:
            expected = sk.label_ranking_average_precision_score(truth[labelled], distinct[labelled])
        assert float(by_image.result()) == pytest.approx(expected, rel=1e-12)


def measure_sets_by_scikit_learn(truth, sets, never):
    """Whole tables at once, beside a label that is never there: one label alone would be a binary task."""
    padded = [np.pad(table, ((0, 0), (0, 1))) for table in (truth, sets)]
    measured = np.append(truth.any(axis=0), False)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        *padded, average=None, zero_division=0, labels=range(truth.shape[1] + 1)
    )
    precision = np.where(padded[1].any(axis=0), precision, never)
    o_p, o_r, o_f1, _ = sk.precision_recall_fscore_support(*padded, average="micro", zero_division=0)
    c_p, c_r, c_f1 = (values[measured].mean() if measured.any() else 0 for values in (precision, recall, f1))
    return {
        "C-P": c_p,
        "C-R": c_r,
        "C-F1_harmonic": 2 * c_p * c_r / (c_p + c_r) if c_p + c_r else 0,
        "C-F1_per_class": c_f1,
        "O-P": o_p,
        "O-R": o_r,
        "O-F1": o_f1,
        "exact_match": sk.accuracy_score(*padded),
        "hamming_loss": sk.hamming_loss(*padded) * (truth.shape[1] + 1) / truth.shape[1],
        "example_F1": sk.f1_score(*padded, average="samples", zero_division=1),
    }


# ---- average precision: scikit-learn, VOC 2007, VOC 2010, COCO


def read_curve(truth, scores):
    """Exact recall and precision of the images that reach each distinct score, highest first."""
    cuts = [scores >= cut for cut in np.unique(scores)[::-1]]
    total = int(truth.sum())
    recall = [Fraction(int(truth[cut].sum()), total) for cut in cuts]
    return recall, [Fraction(int(truth[cut].sum()), int(cut.sum())) for cut in cuts]


def measure_as_voc_2007(recall, precision):
    """VOCevap.m: for t=0:0.1:1, p=max(prec(rec>=t)); if isempty(p), p=0; end; ap=ap+p/11; end."""
    ap = Fraction(0)
    for t in (Fraction(i, 10) for i in range(11)):
        ap += max((p for r, p in zip(recall, precision, strict=True) if r >= t), default=0) / Fraction(11)
    return float(ap)


def measure_as_voc_2010(recall, precision):
    """VOCap.m: mrec=[0;rec;1]; mpre=[0;prec;0]; the envelope from the right; steps where mrec changes."""
    mrec, mpre = [Fraction(0), *recall, Fraction(1)], [Fraction(0), *precision, Fraction(0)]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    steps = [i for i in range(1, len(mrec)) if mrec[i] != mrec[i - 1]]
    return float(sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in steps))


def measure_as_coco(recall, precision, levels):
    """COCOeval.accumulate: the envelope, read at recall levels by searchsorted from the left; its mean."""
    envelope = np.maximum.accumulate(np.array(precision, float)[::-1])[::-1]
    places = np.searchsorted(np.array(recall, float), np.array(levels, float), side="left")
    return float(np.mean([envelope[place] if place < len(envelope) else 0 for place in places]))


def test_average_precision_equals_scikit_learn_voc_and_coco_on_a_thousand_tables():
    rng = np.random.default_rng(2)
    num_labels = 0
    for number in range(1000):
        truth, scores, known = draw_table(rng, number)
        found = {s: average_precision(truth, scores, known, s) for s in ("raw", "voc11", "interpolated")}
        for j, seen in enumerate(known.T):
            hits, reached = truth[seen, j], scores[seen, j]
            if not hits.any():
                assert all(np.isnan(values[j]) for values in found.values())
                continue
            num_labels += 1
            recall, precision = read_curve(hits, reached)
            assert found["raw"][j] == pytest.approx(sk.average_precision_score(hits, reached), rel=1e-12)
            assert found["voc11"][j] == pytest.approx(measure_as_voc_2007(recall, precision), rel=1e-12)
            expected = measure_as_voc_2010(recall, precision)
            assert found["interpolated"][j] == pytest.approx(expected, rel=1e-12)
            # COCO's rule at the recalls that there are: every positive counts once.
            levels = [Fraction(i + 1, int(hits.sum())) for i in range(int(hits.sum()))]
            assert measure_as_coco(recall, precision, levels) == pytest.approx(expected, rel=1e-12)
    assert num_labels > 1000


def test_cocos_101_points_are_another_measure_that_comes_near_the_interpolated_one():
    rng = np.random.default_rng(3)
    truth = rng.random((2000, 3)) < 0.3
    scores = truth * 0.3 + rng.random(truth.shape)
    found = average_precision(truth, scores, shape="interpolated")
    levels = np.linspace(0, 1, 101)
    for j in range(3):
        recall, precision = read_curve(truth[:, j], scores[:, j])
        assert found[j] == pytest.approx(measure_as_coco(recall, precision, levels), abs=0.005)


@pytest.mark.parametrize("num_tables", THOUSAND)
def test_map_in_batches_and_in_bins_equals_scikit_learn(num_tables):
    """Scores of fifths fall into bins of their own, so that binning loses nothing."""
    rng = np.random.default_rng(4)
    metrics = {num_labels: BinnedMeanAveragePrecision(num_labels) for num_labels in NUM_LABELS}
    for number in range(num_tables):
        truth, _, known = draw_table(rng, number)
        scores = (rng.integers(0, 6, truth.shape) / 5).astype(np.float32)
        split = int(rng.integers(len(truth)))
        columns = [(truth[seen, j], scores[seen, j]) for j, seen in enumerate(known.T)]
        values = [sk.average_precision_score(*column) for column in columns if column[0].any()]
        binned = measure(metrics[truth.shape[1]], truth, scores, known, split)
        whole = MeanAveragePrecision()
        for rows in (slice(0, split), slice(split, None)):
            whole.update(truth[rows], scores[rows], known[rows])
        exact = whole.result()
        assert exact["labels_without_positive"] == sum(not column[0].any() for column in columns)
        if not values:
            assert np.isnan(exact["mAP_raw"]) and binned["mAP_raw"] == 0
            continue
        assert exact["mAP_raw"] == pytest.approx(np.mean(values), rel=1e-12)
        for name, value in binned.items():
            assert value == pytest.approx(exact[name], rel=1e-12)


# ---- hand-worked


def test_a_table_worked_by_hand_in_every_measure():
    """Three images, three labels: truth {0, 1}, {}, {2}; the best two of each: {0, 2}, {1, 0}, {2, 0}."""
    truth = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]], np.int32)
    scores = np.array([[0.9, 0.1, 0.5], [0.4, 0.6, 0.2], [0.3, 0.1, 0.8]], np.float32)
    known = np.ones(truth.shape, bool)
    found = measure(SetMeasures(3, top_k=2), truth, scores, known, 1)
    expected = {
        "C-P": (1 / 3 + 0 / 1 + 1 / 2) / 3, "C-R": (1 + 0 + 1) / 3, "C-F1_per_class": (2 / 4 + 0 + 2 / 3) / 3,
        "O-P": 2 / 6, "O-R": 2 / 3, "O-F1": 4 / 9, "hamming_loss": (2 + 2 + 1) / 9, "exact_match": 0,
        "example_F1": (2 / 4 + 0 + 2 / 3) / 3, "N+": 2, "labels_never_predicted": 0, "images": 3,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    # Image 0 ranks 0 2 1: right at 1 and 3; image 2 ranks 2 0 1: right at 1.
    assert measure(MAPAtN(2), truth, scores, known, 2) == pytest.approx((1 / 2 + 1) / 2)
    assert measure(MAPAtN(3), truth, scores, known, 2) == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert measure(PrecisionAtK(2), truth, scores, known, 2) == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)
    assert measure(RecallAtK(1), truth, scores, known, 0) == pytest.approx((1 / 2 + 1) / 2)
    # Label 0 ranks images 0 1 2 and 1 is last of label 1, tied with image 2: after image 1, 1 right of 3.
    assert average_precision(truth, scores).tolist() == pytest.approx([1, 1 / 3, 1])


@pytest.fixture(autouse=True)
def quiet_scikit_learn():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")
        yield
