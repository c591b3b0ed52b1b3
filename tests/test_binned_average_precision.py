"""The binned mAP: the exact AP of binned scores to the last digit, near that of the scores, and in Keras."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from cnnrnn_tf.evaluation.metrics import (
    AP_SHAPES,
    BinnedMeanAveragePrecision,
    MeanAveragePrecision,
    average_precision,
)
from tfrecords.errors import UserError


def random_table(rng):
    """Truth, probabilities and known cells with dead labels, empty and full truths, ties and extremes."""
    num_images, num_labels = rng.integers(1, 40), rng.integers(1, 6)
    truth = rng.random((num_images, num_labels)) < rng.choice([0.1, 0.5, 0.9])
    truth[rng.random(num_images) < 0.1] = True
    truth[:, rng.random(num_labels) < 0.2] = False
    scores = 1 / (1 + np.exp(-rng.normal(scale=rng.choice([0.1, 3, 20]), size=truth.shape)))
    scores[rng.random(truth.shape) < 0.2] = rng.choice([0, 0.5, 1])
    known = rng.random(truth.shape) < rng.choice([0.7, 1.0])
    return truth.astype(np.int32), scores.astype(np.float32), known


def measure(metric, truth, scores, known=None, batch_size=None):
    size = batch_size or len(truth)
    marks = truth if known is None else np.where(known, truth, -1)
    metric.reset_state()
    for start in range(0, len(truth), size):
        metric.update_state(marks[start : start + size], scores[start : start + size])
    return {name: float(value) for name, value in metric.result().items()}


def exact(truth, scores, known=None):
    metric = MeanAveragePrecision()
    metric.update(truth, scores, known)
    return {name: value for name, value in metric.result().items() if name.startswith("mAP")}


@pytest.mark.parametrize("num_bins", [1, 2, 7, 1024])
def test_it_is_the_exact_average_precision_of_the_scores_rounded_to_their_bins(num_bins):
    rng = np.random.default_rng(num_bins)
    metrics = {}
    for _ in range(25):
        truth, scores, known = random_table(rng)
        num_labels = truth.shape[1]
        metric = metrics.setdefault(num_labels, BinnedMeanAveragePrecision(num_labels, num_bins))
        found = measure(metric, truth, scores, known)
        bins = np.array(metric.bin_scores(scores))
        assert bins.min() >= 0 and bins.max() < num_bins
        for shape in AP_SHAPES:
            expected = average_precision(truth, bins, known, shape)
            np.testing.assert_allclose(
                np.array(metric.per_label(shape)), np.nan_to_num(expected), rtol=1e-13, atol=1e-13
            )
            mean = 0 if np.isnan(expected).all() else np.nanmean(expected)
            assert found[f"mAP_{shape}"] == pytest.approx(mean, rel=1e-13)


def test_a_hand_worked_ranking_of_three_bins():
    # Bins of the logit: below -4/3, to 4/3, above: images 0 and 1 share the best, 2 and 3 the middle one.
    metric = BinnedMeanAveragePrecision(1, num_bins=3, from_logits=True, max_logit=4)
    scores = np.array([[3.0], [2.0], [1.0], [-1.0], [-2.0]])
    assert np.array(metric.bin_scores(scores)).ravel().tolist() == [2, 2, 1, 1, 0]
    # In the first n bins: 1 right of 2, 2 right of 4, 3 right of 5.
    found = measure(metric, np.array([[1], [0], [0], [1], [1]]), scores)
    assert found["mAP_raw"] == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)
    # The last precision is the highest, so all others are lifted to it.
    assert found["mAP_interpolated"] == found["mAP_voc11"] == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("score", "place"),
    [(0.0, 0), (1e-30, 0), (1e-7, 0), (0.4999, 3), (0.5, 4), (0.99, 5), (1, 7), (np.nan, 0), (-3, 0), (2, 7)],
)  # fmt: skip
def test_bins_have_equal_widths_in_the_logit_and_tie_what_lies_beyond(score, place):
    # Eight bins of width 4 from -16 to 16; the logit of 0.99 is 4.6.
    assert int(BinnedMeanAveragePrecision(1, num_bins=8).bin_scores([[score]])[0, 0]) == place


def test_small_probabilities_of_rare_labels_stay_apart():
    metric = BinnedMeanAveragePrecision(1)
    bins = np.array(metric.bin_scores(np.array([[1e-6, 1.1e-6, 1e-5, 1e-4, 1e-3]], np.float32)))
    assert len(set(bins.ravel().tolist())) == 5


def test_logits_and_their_probabilities_fall_into_the_same_bins():
    logits = np.random.default_rng(0).normal(scale=3, size=(200, 4))
    by_logit = BinnedMeanAveragePrecision(4, from_logits=True).bin_scores(logits)
    by_probability = BinnedMeanAveragePrecision(4).bin_scores(1 / (1 + np.exp(-logits)))
    np.testing.assert_array_equal(np.array(by_logit), np.array(by_probability))


@pytest.mark.parametrize(
    ("spread", "num_bins", "distance"),
    [(3, 256, 0.012), (3, 1024, 0.003), (3, 4096, 0.001), (0.5, 1024, 0.02), (0.5, 4096, 0.005)],
)
def test_it_comes_near_the_exact_one_and_nearer_with_more_bins(spread, num_bins, distance):
    rng = np.random.default_rng(1)
    rarity = np.linspace(-4, 0, 6)
    noise = rng.normal(size=(5000, 6))
    truth = (rng.random(noise.shape) < 1 / (1 + np.exp(-(rarity + 2 * noise)))).astype(int)
    scores = 1 / (1 + np.exp(-(rarity + spread * noise)))
    found, expected = measure(BinnedMeanAveragePrecision(6, num_bins), truth, scores), exact(truth, scores)
    for name, value in expected.items():
        assert 0 < value - found[name] < distance


def test_odd_batches_give_the_digits_of_one():
    rng = np.random.default_rng(2)
    truth, scores = (rng.random((37, 5)) < 0.3).astype(int), rng.random((37, 5)).astype(np.float32)
    known, metric = rng.random((37, 5)) < 0.8, BinnedMeanAveragePrecision(5)
    whole = measure(metric, truth, scores, known)
    for batch_size in (1, 5, 36):
        assert measure(metric, truth, scores, known, batch_size) == whole


def test_weights_say_how_often_an_image_counts_and_which_labels_are_known():
    rng = np.random.default_rng(3)
    truth, scores = (rng.random((20, 3)) < 0.4).astype(int), rng.random((20, 3))
    known, times = rng.random((20, 3)) < 0.7, np.arange(20) % 3
    metric = BinnedMeanAveragePrecision(3)
    metric.update_state(truth, scores, times)
    repeated = measure(BinnedMeanAveragePrecision(3), truth.repeat(times, 0), scores.repeat(times, 0))
    assert {name: float(value) for name, value in metric.result().items()} == pytest.approx(repeated)
    metric.reset_state()
    metric.update_state(truth, scores, known)
    marked = measure(BinnedMeanAveragePrecision(3), truth, scores, known)
    assert {name: float(value) for name, value in metric.result().items()} == marked


def test_nothing_and_no_positive_give_zero():
    metric = BinnedMeanAveragePrecision(2)
    assert set(map(float, metric.result().values())) == {0.0}
    assert set(measure(metric, np.zeros((3, 2), int), np.full((3, 2), 0.5)).values()) == {0.0}
    assert set(measure(metric, np.ones((3, 2), int), np.full((3, 2), 0.5)).values()) == {1.0}


def test_counts_stay_exact_past_what_half_and_single_precision_hold():
    class Tagger(keras.layers.Layer):
        def __init__(self):
            super().__init__(dtype="mixed_float16")
            self.measure = BinnedMeanAveragePrecision(1, num_bins=4)

        def call(self, scores):
            self.measure.update_state(keras.ops.ones_like(scores), scores)
            return scores

    tagger = Tagger()
    for _ in range(4):
        tagger(np.full((1001, 1), 0.5, np.float32))  # float16 holds 3003, on the way, as 3004
    assert float(np.sum(tagger.measure.counts.numpy())) == 4004
    metric = BinnedMeanAveragePrecision(1, num_bins=4)
    metric.update_state([[1]], [[0.5]], [2**25])
    metric.update_state([[1]], [[0.5]], [1])
    assert float(np.sum(metric.counts.numpy())) == 2**25 + 1  # no float32


@pytest.mark.parametrize(("dtype", "jit_compile"), [("float32", True), ("mixed_bfloat16", False)])
def test_it_watches_fit_and_survives_saving(dtype, jit_compile, tmp_path):
    rng = np.random.default_rng(4)
    features = rng.normal(size=(50, 4)).astype(np.float32)
    truth = (features[:, :3] > 0.3).astype(np.int32)
    output = keras.layers.Dense(3, activation="sigmoid", dtype=dtype)
    model = keras.Sequential([keras.Input((4,)), output])
    metric = BinnedMeanAveragePrecision(3, shapes=("raw",), prefix="watched/")
    model.compile("sgd", "binary_crossentropy", metrics=[metric], jit_compile=jit_compile)
    options = {"epochs": 2, "batch_size": 8, "verbose": 0, "validation_data": (features, truth)}
    history = model.fit(features, truth, **options).history
    predicted = model.predict(features, batch_size=8, verbose=0)
    expected = exact(truth, np.array(metric.bin_scores(predicted)))["mAP_raw"]
    assert history["val_watched/mAP_raw"][-1] == pytest.approx(expected, abs=0.01)
    assert "watched/mAP_raw" in history
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    values = again.evaluate(features, truth, verbose=0, return_dict=True)
    assert values["watched/mAP_raw"] == pytest.approx(expected, abs=0.01)


def test_it_comes_back_from_its_json_configuration():
    metric = BinnedMeanAveragePrecision(3, 64, True, 9.0, ("voc11",), "a/", name="b", dtype="float32")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(metric)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == metric.get_config() and again.shapes == ("voc11",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinnedMeanAveragePrecision(0), "num_labels must be a whole number of at least 1, got 0"),
        (lambda: BinnedMeanAveragePrecision(2, 0.5), "num_bins must be a whole number of at least 1"),
        (lambda: BinnedMeanAveragePrecision(2, max_logit=0), "max_logit, .* must be above 0, got 0"),
        (lambda: BinnedMeanAveragePrecision(2, shapes=("coco",)), "shapes of mAP must be among raw, voc11"),
        (
            lambda: BinnedMeanAveragePrecision(2).update_state([[1, 0, 0]], [[0.1, 0.2, 0.3]]),
            r"must both be \[batch, 2\]",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
