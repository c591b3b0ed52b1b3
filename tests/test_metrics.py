"""Set and ranking metrics: against hand-worked tables, scikit-learn and brute force, and inside Keras."""

from __future__ import annotations

import itertools
import json

import keras
import numpy as np
import pytest
from sklearn import metrics as sk

from cnnrnn_tf.evaluation.metrics import (
    SET_MEASURES,
    ClassF1,
    ClassPrecision,
    ClassRecall,
    ExactMatch,
    ExampleF1,
    HammingLoss,
    MAPAtN,
    OverallF1,
    OverallPrecision,
    OverallRecall,
    PrecisionAtK,
    RecallAtK,
    SetMeasures,
)
from tfrecords.errors import UserError

CUTS = [(None, None), (3, None), (3, 0.4), (None, 0.4), (1, None), (99, None), (2, "per label")]


def measure(metric, truth, scores, weight=None, batch_size=None):
    """The metric's values as Python floats, fed whole or in batches."""
    for start in range(0, len(truth), batch_size or max(len(truth), 1)):
        rows = slice(start, start + (batch_size or len(truth)))
        metric.update_state(truth[rows], scores[rows], None if weight is None else weight[rows])
    result = metric.result()
    return {k: float(v) for k, v in result.items()} if isinstance(result, dict) else float(result)


def random_table(rng):
    """Truth, scores and known cells with ties, empty truths, full truths, dead labels and unknown images."""
    num_images, num_labels = rng.integers(1, 12), rng.integers(1, 8)
    truth = rng.random((num_images, num_labels)) < rng.choice([0.1, 0.4, 0.8])
    truth[rng.random(num_images) < 0.2] = False
    truth[rng.random(num_images) < 0.1] = True
    truth[:, rng.random(num_labels) < 0.2] = False
    scores = (rng.integers(0, 6, truth.shape) / 5).astype(np.float32)
    known = rng.random(truth.shape) < rng.choice([0.7, 1.0])
    known[rng.random(num_images) < 0.1] = False
    return truth.astype(np.int32), scores, known


def ranked(scores, known):
    """Known label ids of one image, best first, equal scores by id."""
    return sorted(np.flatnonzero(known), key=lambda label: (-scores[label], label))


def cut_by_hand(scores, known, top_k, threshold):
    predicted = np.zeros(scores.shape, int)
    for row, (score, seen) in enumerate(zip(scores, known, strict=True)):
        for label in ranked(score, seen)[:top_k]:
            cut = 0.5 if top_k is None and threshold is None else threshold
            cut = cut[label] if isinstance(cut, np.ndarray) else cut
            predicted[row, label] = cut is None or score[label] >= np.float32(cut)
    return predicted


def oracle(truth, predicted, known, never_predicted_precision=0):
    """Every set measure by scikit-learn, label by label and image by image, over the known cells."""
    columns = [(truth[k, j], predicted[k, j]) for j, k in enumerate(known.T)]
    measured = [(t, p) for t, p in columns if t.any()]
    rows = [(truth[i, k], predicted[i, k]) for i, k in enumerate(known) if k.any()]
    cells = truth[known], predicted[known]

    def mean(function, pairs, **options):
        return float(np.mean([function(*pair, **options) for pair in pairs])) if pairs else 0.0

    cp = mean(sk.precision_score, measured, zero_division=never_predicted_precision)
    cr = mean(sk.recall_score, measured)
    return {
        "C-P": cp,
        "C-R": cr,
        "C-F1_harmonic": 2 * cp * cr / (cp + cr) if cp + cr else 0.0,
        "C-F1_per_class": mean(sk.f1_score, measured),
        "O-P": sk.precision_score(*cells, zero_division=0) if known.any() else 0.0,
        "O-R": sk.recall_score(*cells, zero_division=0) if known.any() else 0.0,
        "O-F1": sk.f1_score(*cells, zero_division=0) if known.any() else 0.0,
        "hamming_loss": sk.hamming_loss(*cells) if known.any() else 0.0,
        "exact_match": mean(np.array_equal, rows),
        "example_F1": mean(sk.f1_score, rows, zero_division=1),
        "N+": sum((t & p).any() for t, p in columns),
        "labels_never_predicted": sum(not p.any() for _, p in columns),
        "labels_without_positive": sum(not t.any() for t, _ in columns),
        "images": len(rows),
    }


# Five images, four labels. Per label, 3, 1, 0, 0 right of 3, 3, 0, 1 predicted and of 3, 2, 1, 0 true:
# label 2 is never predicted, label 3 has no positive and leaves the C- means.
TRUTH, PREDICTED = np.array(
    [  # truth          predicted       wrong cells, F1 of the image
        [[1, 1, 0, 0], [1, 0, 0, 1]],  # 2, 2*1/(2 + 2)
        [[1, 1, 1, 0], [1, 1, 0, 0]],  # 1, 2*2/(3 + 2)
        [[0, 0, 0, 0], [0, 1, 0, 0]],  # 1, 0
        [[1, 0, 0, 0], [1, 1, 0, 0]],  # 1, 2*1/(1 + 2)
        [[0, 0, 0, 0], [0, 0, 0, 0]],  # 0, 1
    ]
).transpose(1, 0, 2)
BY_HAND = {
    "C-P": 4 / 9,  # (1 + 1/3 + 0)/3
    "C-R": 1 / 2,  # (1 + 1/2 + 0)/3
    "C-F1_harmonic": 8 / 17,
    "C-F1_per_class": 7 / 15,  # (1 + 2/5 + 0)/3
    "O-P": 4 / 7,
    "O-R": 4 / 6,
    "O-F1": 8 / 13,
    "hamming_loss": 5 / 20,
    "exact_match": 1 / 5,
    "example_F1": (1 / 2 + 4 / 5 + 0 + 2 / 3 + 1) / 5,
    "N+": 2,
    "labels_never_predicted": 1,
    "labels_without_positive": 1,
    "images": 5,
}


def test_set_measures_equal_the_hand_worked_table():
    assert measure(SetMeasures(4), TRUTH, PREDICTED) == pytest.approx(BY_HAND, abs=1e-15)


def test_precision_of_labels_never_predicted_can_count_as_one():
    values = measure(SetMeasures(4, never_predicted_precision=1), TRUTH, PREDICTED)
    assert values["C-P"] == pytest.approx(7 / 9)  # (1 + 1/3 + 1)/3
    assert values["C-F1_harmonic"] == pytest.approx(14 / 23)
    assert values["C-F1_per_class"] == pytest.approx(7 / 15)  # its recall is 0 either way


def test_labels_never_predicted_can_count_as_one_prediction_each():
    values = measure(SetMeasures(4, never_predicted_counts=1), TRUTH, PREDICTED)
    assert values["O-P"] == pytest.approx(4 / 8)  # label 2 makes 8 of 7 predictions
    assert values["O-F1"] == pytest.approx(8 / 14)
    assert {**values, "O-P": BY_HAND["O-P"], "O-F1": BY_HAND["O-F1"]} == pytest.approx(BY_HAND)
    assert measure(OverallPrecision(4, never_predicted_counts=1), TRUTH, PREDICTED) == pytest.approx(4 / 8)
    # nothing is ever predicted: nothing is right of 4
    assert measure(SetMeasures(4, never_predicted_counts=1), TRUTH, 0 * PREDICTED)["O-P"] == 0


@pytest.mark.parametrize("seed", range(10))
def test_the_overall_measures_of_ml_gcn_are_those_of_its_rule(seed):
    """Its code counts label by label (Nc right, Np predicted, Ng true), and sets an Np of 0 to 1."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((20, 30)) < 0.1).astype(int)
    scores = (0.6 * rng.random((20, 30)) ** 2 + 0.4 * truth * rng.random((20, 30))).astype(np.float32)
    scores[:, :3] *= 0.5  # these are never predicted
    n_c = np.array([np.sum(truth[:, k] * (scores[:, k] >= 0.5)) for k in range(30)])
    n_p = np.array([np.sum(scores[:, k] >= 0.5) for k in range(30)])
    n_g = np.array([np.sum(truth[:, k] == 1) for k in range(30)])
    assert (n_p == 0).any()
    n_p[n_p == 0] = 1
    op, recall = n_c.sum() / n_p.sum(), n_c.sum() / n_g.sum()
    values = measure(SetMeasures(30, threshold=0.5, never_predicted_counts=1), truth, scores)
    assert (values["O-P"], values["O-R"]) == pytest.approx((op, recall))
    assert values["O-F1"] == pytest.approx(2 * op * recall / (op + recall))


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_set_measures_equal_scikit_learn_on_random_tables(cut):
    rng = np.random.default_rng(0)
    for _ in range(12):
        truth, scores, known = random_table(rng)
        top_k, threshold = cut
        if threshold == "per label":
            threshold = rng.random(truth.shape[1])
        precision = int(rng.integers(2))
        metric = SetMeasures(truth.shape[1], top_k, threshold, never_predicted_precision=precision)
        expected = oracle(truth, cut_by_hand(scores, known, top_k, threshold), known, precision)
        # A weight of one column means images, so a single label's unknowns are said in y_true.
        marked = np.where(known, truth, -1) if truth.shape[1] == 1 else truth
        weight = known if truth.shape[1] > 1 else None
        assert measure(metric, marked, scores, weight) == pytest.approx(expected)


def test_ranking_metrics_equal_brute_force_on_random_tables():
    rng = np.random.default_rng(1)
    for _, n in itertools.product(range(12), (1, 3, 10)):
        truth, scores, known = random_table(rng)
        marked = np.where(known, truth, -1)
        lists = [[truth[i, label] for label in ranked(scores[i], known[i])] for i in range(len(truth))]
        gained = [sum(sum(hits[:i]) / i for i in range(1, n + 1) if sum(hits[i - 1 : i])) for hits in lists]
        expected = {
            MAPAtN(n): [g / min(sum(hits), n) for g, hits in zip(gained, lists, strict=True) if sum(hits)],
            MAPAtN(n, "full"): [g / sum(hits) for g, hits in zip(gained, lists, strict=True) if sum(hits)],
            PrecisionAtK(n): [sum(hits[:n]) / len(hits[:n]) for hits in lists if hits],
            RecallAtK(n): [sum(hits[:n]) / sum(hits) for hits in lists if sum(hits)],
        }
        for metric, values in expected.items():
            assert measure(metric, marked, scores) == pytest.approx(np.mean(values) if values else 0.0)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (MAPAtN(2), (1 / 2 / 2 + 2 / 2) / 2),
        (MAPAtN(2, "full"), (1 / 2 / 2 + 2 / 3) / 2),
        (MAPAtN(10), ((1 / 2 + 2 / 3) / 2 + 3 / 3) / 2),
        (MAPAtN(10, "full"), ((1 / 2 + 2 / 3) / 2 + 3 / 3) / 2),
        (PrecisionAtK(2), (1 / 2 + 2 / 2 + 0) / 3),
        (RecallAtK(2), (1 / 2 + 2 / 3) / 2),
    ],
)
def test_ranking_metrics_equal_the_hand_worked_table(metric, expected):
    truth = [[1, 1, 0], [1, 1, 1], [0, 0, 0]]  # the first image's ranking is 2, 0, 1: wrong, right, right
    scores = np.array([[0.6, 0.5, 0.7], [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert measure(metric, truth, scores) == pytest.approx(expected)


def test_unknown_labels_leave_the_ranking_before_its_top_k_is_taken():
    truth, scores, known = [[0, 1, 0]], [[0.9, 0.8, 0.7]], [[False, True, True]]
    values = measure(SetMeasures(3, top_k=1), truth, scores, known)
    assert (values["O-P"], values["exact_match"], values["hamming_loss"]) == (1, 1, 0)
    assert measure(MAPAtN(1), truth, scores, known) == 1


def test_exactly_k_takes_what_there_is_where_fewer_labels_are_known():
    truth, scores = [[1, -1, -1], [1, 1, 0]], [[0.1, 0.9, 0.9], [0.3, 0.2, 0.1]]
    values = measure(SetMeasures(3, top_k=2), truth, scores)
    assert values["O-P"] == 1 and values["O-R"] == 1  # 1 of 1 and 2 of 2


def test_unknown_labels_never_displace_a_known_label_of_log_probability_minus_infinity():
    values = measure(SetMeasures(3, top_k=1), [[-1, -1, 1]], [[-np.inf, -np.inf, -np.inf]])
    assert values["O-R"] == 1


def test_equal_scores_rank_by_label_id():
    for dtype in ("float32", "float64", "float16"):
        scores = np.array([[0.5, 0.7, 0.5, 0.7, 0.7]], dtype)
        assert measure(SetMeasures(5, top_k=2), [[0, 1, 0, 1, 0]], scores)["exact_match"] == 1


def test_threshold_keeps_scores_equal_to_it():
    threshold = float(np.float32(0.3))
    values = measure(SetMeasures(2, threshold=threshold), [[1, 1]], np.array([[0.3, 0.29]], np.float32))
    assert values["O-R"] == 0.5
    values = measure(SetMeasures(2, threshold=0.3), [[1, 1]], np.array([[0.3, 0.29]], np.float64))
    assert values["O-R"] == 0.5


@pytest.mark.parametrize("num_labels", [1, 4])
def test_image_with_all_labels_and_image_without_are_measured(num_labels):
    full, empty = np.ones((1, num_labels)), np.zeros((1, num_labels))
    perfect = {"O-F1": 1, "C-F1_harmonic": 1, "exact_match": 1, "example_F1": 1, "hamming_loss": 0}
    assert measure(SetMeasures(num_labels, measures=tuple(perfect)), full, full) == perfect
    nothing = {"O-F1": 0, "C-F1_harmonic": 0, "exact_match": 1, "example_F1": 1, "hamming_loss": 0}
    assert measure(SetMeasures(num_labels, measures=tuple(nothing)), empty, empty) == nothing
    assert measure(MAPAtN(3), full, full) == 1
    assert measure(MAPAtN(3), empty, full) == 0


def test_a_label_unknown_in_every_image_is_counted_and_left_out():
    values = measure(SetMeasures(2), [[1, -1], [1, -1]], [[1, 1], [0, 1]])
    assert values["labels_without_positive"] == 1 and values["labels_never_predicted"] == 1
    assert values["C-R"] == 0.5 and values["O-P"] == 1 and values["exact_match"] == 0.5


def test_metrics_before_any_image_are_zero():
    assert set(measure(SetMeasures(3), np.zeros((0, 3)), np.zeros((0, 3))).values()) == {0.0, 3.0}
    assert measure(MAPAtN(3), np.zeros((0, 3)), np.zeros((0, 3))) == 0


def all_metrics(num_labels):
    return [
        SetMeasures(num_labels, top_k=2, prefix="top2/"),
        SetMeasures(num_labels, top_k=2, threshold=0.4, prefix="at_most_2/"),
        SetMeasures(num_labels, threshold=[0.3] * num_labels, prefix="free/"),
        MAPAtN(3),
        MAPAtN(3, "full", name="map_full"),
        PrecisionAtK(2),
        RecallAtK(2),
    ]


def measure_all(truth, scores, weight=None, batch_size=None):
    values = {}
    for metric in all_metrics(truth.shape[1]):
        result = measure(metric, truth, scores, weight, batch_size)
        values.update(result if isinstance(result, dict) else {metric.name: result})
    return values


def one_table(num_images=37, num_labels=5):
    rng = np.random.default_rng(2)
    truth = (rng.random((num_images, num_labels)) < 0.3).astype(np.int32)
    scores = (rng.integers(0, 12, truth.shape) / 11).astype(np.float32)
    return truth, scores, (rng.random(truth.shape) < 0.85).astype(np.float32)


def stripped(values):
    """Names without the counter that Keras appends to the automatic ones."""
    return {name.rstrip("0123456789_"): value for name, value in values.items() if name != "loss"}


@pytest.mark.parametrize("batch_size", [1, 5, 36])
def test_odd_batches_give_what_one_batch_gives(batch_size):
    truth, scores, known = one_table()
    whole = stripped(measure_all(truth, scores, known))
    assert stripped(measure_all(truth, scores, known, batch_size)) == pytest.approx(whole, abs=1e-14)


def test_image_weights_count_images_as_often_as_they_say():
    truth, scores, _ = one_table()
    times = np.arange(len(truth)) % 4
    repeated = stripped(measure_all(np.repeat(truth, times, axis=0), np.repeat(scores, times, axis=0)))
    assert stripped(measure_all(truth, scores, times)) == pytest.approx(repeated, abs=1e-14)
    assert stripped(measure_all(truth, scores, times[:, None])) == pytest.approx(repeated, abs=1e-14)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_scores_are_measured_as_their_float32_values(dtype):
    truth, scores, known = one_table()
    half = keras.ops.cast(scores, dtype)
    rounded = keras.ops.convert_to_numpy(keras.ops.cast(half, "float32"))
    assert stripped(measure_all(truth, half, known)) == stripped(measure_all(truth, rounded, known))


def test_counts_stay_exact_past_what_single_precision_holds():
    metric = SetMeasures(2, top_k=1)
    truth, scores = [[1, 0], [0, 1]], keras.ops.cast([[0.9, 0.1], [0.9, 0.1]], "float16")
    metric.update_state(truth, scores, sample_weight=[2**25, 1])  # 2**25 + 1 is no float32
    metric.update_state(truth, scores, sample_weight=[0, 1])
    values = {name: float(value) for name, value in metric.result().items()}
    assert values["images"] == 2**25 + 2
    assert values["O-P"] == 2**25 / (2**25 + 2)


def test_counts_stay_exact_inside_a_mixed_precision_layer():
    class Tagger(keras.layers.Layer):
        def __init__(self):
            super().__init__(dtype="mixed_float16")
            self.measures = SetMeasures(2, top_k=1)

        def call(self, scores):
            self.measures.update_state(keras.ops.ones_like(scores), scores)
            return scores

    tagger = Tagger()
    for _ in range(4):
        tagger(np.ones((1001, 2), np.float32))
    assert float(tagger.measures.result()["images"]) == 4004  # float16 holds 3003, on the way, as 3004


def identity_model(num_labels, dtype=None):
    """A model whose output is its input, so that it trains nothing and predicts what a test says."""
    return keras.Sequential([keras.Input((num_labels,)), keras.layers.Activation("linear", dtype=dtype)])


@pytest.mark.parametrize(("dtype", "jit_compile"), [("float32", True), ("mixed_bfloat16", False)])
def test_metrics_work_in_compile_and_evaluate(dtype, jit_compile):
    truth, scores, known = one_table()
    scores = np.array(keras.ops.cast(keras.ops.cast(scores, "bfloat16"), "float32"))
    model = identity_model(truth.shape[1], dtype)
    model.compile(loss="mse", weighted_metrics=all_metrics(truth.shape[1]), jit_compile=jit_compile)
    marked = np.where(known > 0, truth, -1)
    values = model.evaluate(scores, marked, batch_size=8, verbose=0, return_dict=True)
    assert stripped(values) == pytest.approx(stripped(measure_all(truth, scores, known)), rel=1e-12)


def test_metrics_follow_the_epochs_of_fit_and_survive_saving(tmp_path):
    truth, scores, _ = one_table()
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5, activation="sigmoid")])
    metrics = [SetMeasures(5, top_k=2, measures=("O-F1", "exact_match")), MAPAtN(3, name="map")]
    model.compile("sgd", "binary_crossentropy", metrics=metrics)
    options = {"epochs": 2, "batch_size": 8, "verbose": 0}
    history = model.fit(scores, truth, validation_data=(scores, truth), **options).history
    assert {"O-F1", "exact_match", "map", "val_O-F1", "val_exact_match", "val_map"} <= set(history)
    predicted = model.predict(scores, verbose=0)
    last = {name: values[-1] for name, values in history.items()}
    expected = measure(SetMeasures(5, top_k=2), truth, predicted)
    assert last["val_O-F1"] == pytest.approx(expected["O-F1"])
    assert last["val_exact_match"] == pytest.approx(expected["exact_match"])
    assert last["val_map"] == pytest.approx(measure(MAPAtN(3), truth, predicted))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    values = again.evaluate(scores, truth, verbose=0, return_dict=True)
    assert values["O-F1"] == pytest.approx(expected["O-F1"])


SINGLE = [
    (ClassPrecision(4), "C-P"),
    (ClassRecall(4), "C-R"),
    (ClassF1(4, "harmonic"), "C-F1_harmonic"),
    (ClassF1(4, "per_class"), "C-F1_per_class"),
    (OverallPrecision(4), "O-P"),
    (OverallRecall(4), "O-R"),
    (OverallF1(4), "O-F1"),
    (HammingLoss(4), "hamming_loss"),
    (ExactMatch(4), "exact_match"),
    (ExampleF1(4), "example_F1"),
]


@pytest.mark.parametrize(("metric", "name"), SINGLE, ids=[name for _, name in SINGLE])
def test_single_valued_metrics_are_the_set_measure_of_their_name(metric, name):
    assert measure(metric, TRUTH, PREDICTED) == pytest.approx(BY_HAND[name])
    metric.reset_state()
    assert float(metric.result()) == 0


@pytest.mark.parametrize(
    "metric",
    [
        SetMeasures(4, 2, [0.1, 0.2, 0.3, 0.4], 1, 1, measures=("O-P",), prefix="a/", name="b"),
        SetMeasures(4, threshold=0.25),
        ClassF1(4, "per_class", top_k=3, name="c"),
        OverallF1(4, threshold=0.5, never_predicted_counts=1),
        MAPAtN(7, "full"),
        PrecisionAtK(7),
        RecallAtK(7, dtype="float32"),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_metrics_come_back_from_their_json_configuration(metric):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(metric)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(metric) and again.get_config() == metric.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SetMeasures(0), "num_labels must be a whole number of at least 1, got 0"),
        (lambda: SetMeasures(3, top_k=0), "top_k must be a whole number of at least 1, got 0"),
        (lambda: SetMeasures(3, threshold=[0.1, 0.2]), r"one for each of the 3 labels, got shape \[2\]"),
        (lambda: SetMeasures(3, never_predicted_precision=0.5), "must be 0 or 1, got 0.5"),
        (lambda: SetMeasures(3, never_predicted_counts=2), "never_predicted_counts must be 0 or 1, got 2"),
        (lambda: SetMeasures(3, measures=("O-F2",)), r"called 'O-F2' \(did you mean 'O-F1'\?\)"),
        (lambda: ClassF1(3, "macro"), "must be 'harmonic' or 'per_class', got 'macro'"),
        (lambda: MAPAtN(3, "both"), "must be 'truncated' or 'full', got 'both'"),
        (lambda: RecallAtK(2.5), "whole number of at least 1, got 2.5"),
        (lambda: SetMeasures(3).update_state([[1, 0]], [[0.1, 0.2]]), r"must both be \[batch, 3\], but"),
        (lambda: MAPAtN(3).update_state([1, 0], [[0.1, 0.2]]), r"y_true is \[2\] and y_pred is \[1, 2\]"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_every_set_measure_is_in_the_result_in_order():
    assert tuple(SetMeasures(2).result()) == SET_MEASURES
