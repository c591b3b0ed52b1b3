"""The losses of the baselines against NumPy, label by label, on tables with unknown labels and odd images."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn_tf.baselines.asymmetric_loss import AsymmetricSigmoidLoss
from cnnrnn_tf.baselines.binary_cross_entropy import KnownBinaryCrossentropy
from cnnrnn_tf.baselines.softmax import MultiLabelSoftmax
from cnnrnn_tf.baselines.squared_loss import KnownSquaredLoss
from cnnrnn_tf.baselines.warp import WARPLoss, draw_uniform, warp_of_draws
from tfrecords.errors import UserError

LOSSES = {
    "bce": KnownBinaryCrossentropy,
    "softmax": MultiLabelSoftmax,
    "squared": KnownSquaredLoss,
    "asl": AsymmetricSigmoidLoss,
    "warp": WARPLoss,
}

MARKS = np.array(
    [
        [1, 0, 0, 1, -1],
        [0, 0, 0, 0, 0],  # no label
        [1, 1, 1, 1, 1],  # every label
        [-1, -1, -1, -1, -1],  # nothing known
        [0, -1, 1, -1, 0],
        [0, 0, -1, -1, 0],  # no label, as far as anyone knows
    ]
)


@pytest.fixture(params=range(4))
def scores(request):
    return np.random.default_rng(request.param).normal(scale=3, size=MARKS.shape).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def bce_by_hand(marks, scores):
    terms = [-np.log(sigmoid(s if y else -s)) for y, s in zip(marks, scores, strict=True) if y >= 0]
    return sum(terms)


def softmax_by_hand(marks, scores):
    known = {label: np.exp(np.float64(scores[label])) for label, y in enumerate(marks) if y >= 0}
    true = [label for label, y in enumerate(marks) if y > 0]
    return sum(-np.log(known[label] / sum(known.values())) / len(true) for label in true)


def squared_by_hand(marks, scores):
    return sum((np.float64(s) - y) ** 2 for y, s in zip(marks, scores, strict=True) if y >= 0)


def asl_by_hand(marks, scores, gamma_neg=4.0, gamma_pos=0.0, clip=0.05):
    total = 0.0
    for y, s in zip(marks, scores, strict=True):
        p = sigmoid(s)
        shifted = max(p - clip, 0)
        if y == 1:
            total -= (1 - p) ** gamma_pos * np.log(p)
        elif y == 0:
            total -= shifted**gamma_neg * np.log(1 - shifted)
    return total


def warp_by_hand(marks, scores, draws):
    """The sampling loop of WSABIE's algorithm 1, for each label that holds, on float32 numbers."""
    negatives = [label for label, y in enumerate(marks) if y == 0]
    total = 0.0
    for label in (label for label, y in enumerate(marks) if y > 0):
        for trial, draw in enumerate(draws[: len(negatives)], start=1):
            hinge = 1 - scores[label] + scores[negatives[int(draw * len(negatives))]]
            if hinge > 0:
                rank = len(negatives) // trial
                total += sum(1 / r for r in range(1, rank + 1)) * hinge
                break
    return total


def by_hand(oracle, marks, scores, *rest):
    return np.array([oracle(*row) for row in zip(marks, scores, *rest, strict=True)])


@pytest.mark.parametrize(
    ("name", "oracle"),
    [("bce", bce_by_hand), ("softmax", softmax_by_hand), ("squared", squared_by_hand), ("asl", asl_by_hand)],
)
def test_the_loss_of_each_image_is_what_its_known_labels_say_one_by_one(name, oracle, scores):
    found = LOSSES[name](reduction="none")(MARKS, scores)
    np.testing.assert_allclose(found, by_hand(oracle, MARKS, scores), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("gamma_neg", "gamma_pos", "clip"), [(4, 1, 0.05), (2, 2, 0), (0, 0, 0.2), (0.5, 0, 0)]
)
def test_the_asymmetric_loss_follows_its_equations_at_other_constants(gamma_neg, gamma_pos, clip, scores):
    loss = AsymmetricSigmoidLoss(gamma_neg, gamma_pos, clip, reduction="none")
    expected = [asl_by_hand(y, s, gamma_neg, gamma_pos, clip) for y, s in zip(MARKS, scores, strict=True)]
    np.testing.assert_allclose(loss(MARKS, scores), expected, rtol=2e-5, atol=1e-6)


def test_without_its_constants_the_asymmetric_loss_is_binary_cross_entropy(scores):
    found = AsymmetricSigmoidLoss(0, 0, 0, reduction="none")(MARKS, scores)
    np.testing.assert_allclose(found, KnownBinaryCrossentropy(reduction="none")(MARKS, scores), rtol=1e-6)


def test_binary_cross_entropy_of_a_fully_known_table_is_kerass_own_times_the_labels(scores):
    marks = np.maximum(MARKS, 0)
    keras_own = keras.losses.BinaryCrossentropy(from_logits=True)(marks, scores)
    assert float(KnownBinaryCrossentropy()(marks, scores)) == pytest.approx(5 * float(keras_own), rel=1e-5)


# Three labels hold or not: scores 2, 0 and 1.5. Worked by hand.
@pytest.mark.parametrize(
    ("name", "marks", "expected"),
    [
        ("softmax", [1, 1, 0], (np.log1p(np.exp(-2) + np.exp(-0.5)) + np.log1p(np.exp(2) + np.exp(1.5))) / 2),
        ("softmax", [1, -1, -1], 0.0),  # it is the only label known
        ("softmax", [0, 0, 0], 0.0),
        ("bce", [1, -1, 0], np.log1p(np.exp(-2)) + np.log1p(np.exp(1.5))),
        ("squared", [1, 0, 1], 1 + 0 + 0.25),
        ("warp", [1, -1, 0], 0.5),  # one label can violate: L(1) (1 - 2 + 1.5)
        ("warp", [1, 0, -1], 0.0),  # it lies more than 1 below
        ("warp", [1, 1, 1], 0.0),
        ("warp", [0, 0, 0], 0.0),
    ],
)
def test_losses_worked_by_hand(name, marks, expected):
    scores = np.array([[2, 0, 1.5]], np.float32)
    assert float(LOSSES[name]()(np.array([marks]), scores)) == pytest.approx(expected, abs=1e-6)


# ---- WARP


@pytest.mark.parametrize("num_labels", [1, 2, 5, 40])
def test_warp_is_the_sampling_loop_on_the_same_draws(num_labels):
    rng = np.random.default_rng(num_labels)
    marks = rng.choice([-1, 0, 1], size=[60, num_labels], p=[0.15, 0.6, 0.25]).astype(np.float32)
    scores = rng.normal(scale=2, size=marks.shape).astype(np.float32)
    draws = rng.random(marks.shape, np.float32)
    found = warp_of_draws(marks, scores, draws)
    np.testing.assert_allclose(found, by_hand(warp_by_hand, marks, scores, draws), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("draw", "expected"), [(0.4, (1 + 1 / 2) * (1 + 2)), (0.5, (1 + 1 / 2) * (1 + 1.5))])
def test_the_first_draw_costs_its_own_violation_by_the_highest_rank(draw, expected):
    # Both other labels beat label 1, so the first draw violates, whichever it is.
    marks, scores = np.array([[0, 1, 0]], np.float32), np.array([[2, 0, 1.5]], np.float32)
    draws = np.array([[draw, 0.9, 0.1]], np.float32)
    assert float(warp_of_draws(marks, scores, draws)[0]) == pytest.approx(expected)


def test_the_labels_of_an_image_each_stop_at_the_draw_that_first_violates_their_own_margin():
    # Labels 0 and 1 hold; 2, 3 and 4 are drawn in this order. 2.5 - 1 < 2 at once: L(3) (1 - 2.5 + 2).
    # 3.5 - 1 < 3 at the third draw only: L(3 // 3) (1 - 3.5 + 3).
    marks = np.array([[1, 1, 0, 0, 0]], np.float32)
    scores = np.array([[2.5, 3.5, 2.0, 0.0, 3.0]], np.float32)
    draws = np.array([[0.1, 0.5, 0.9, 0.0, 0.0]], np.float32)
    expected = (1 + 1 / 2 + 1 / 3) * 0.5 + 1 * 0.5
    assert float(warp_of_draws(marks, scores, draws)[0]) == pytest.approx(expected)


def test_the_mean_of_warp_over_draws_is_what_enumerating_every_sequence_of_draws_gives():
    marks = np.array([1, 0, 0, 0, -1], np.float32)
    scores = np.array([0.5, 0.2, -0.4, -2.0, 9.0], np.float32)  # the third label never violates
    sequences = itertools.product(range(3), repeat=3)
    expected = np.mean([warp_by_hand(marks, scores, (np.array(s) + 0.5) / 3) for s in sequences])

    num_images = 20_000
    tables = np.tile(marks, [num_images, 1]), np.tile(scores, [num_images, 1])
    values = np.asarray(WARPLoss(seed=3, reduction="none")(*tables))
    assert values.mean() == pytest.approx(expected, abs=4 * float(values.std()) / num_images**0.5)


def test_warps_gradient_raises_the_label_that_holds_and_lowers_the_violator_by_the_weight():
    marks = tf.constant([[1, 0, 0]], tf.float32)
    scores = tf.Variable([[0.0, 1.0, -5.0]])
    with tf.GradientTape() as tape:
        loss = warp_of_draws(marks, scores + 0.0, tf.constant([[0.9, 0.1, 0.0]]))  # the second draw violates
    np.testing.assert_allclose(tape.gradient(loss, scores), [[-1, 1, 0]])  # L(2 // 2) = 1


def test_the_draws_follow_seed_and_scores_and_nothing_else():
    scores = np.random.default_rng(0).normal(size=[8, 6]).astype(np.float32)
    first = np.asarray(draw_uniform(scores, 1))
    tf.random.set_seed(99)
    np.testing.assert_array_equal(draw_uniform(scores, 1), first)
    moved = scores.copy()
    moved[3, 2] = np.nextafter(moved[3, 2], 9)
    assert not np.array_equal(draw_uniform(moved, 1), first)
    assert not np.array_equal(draw_uniform(scores, 2), first)


# ---- all of them


@pytest.mark.parametrize("name", LOSSES)
def test_scores_of_unknown_labels_change_neither_loss_nor_gradient(name):
    rng = np.random.default_rng(5)
    scores = rng.normal(size=MARKS.shape).astype(np.float32)
    changed = np.where(MARKS < 0, rng.normal(scale=50, size=MARKS.shape), scores).astype(np.float32)
    if name == "warp":
        draws = rng.random(MARKS.shape, np.float32)

        def loss(marks, values):
            return warp_of_draws(tf.constant(marks, tf.float32), values, draws)
    else:
        loss = LOSSES[name](reduction="none")
    results = []
    for values in (scores, changed):
        values = tf.Variable(values)
        with tf.GradientTape() as tape:
            losses = loss(MARKS, values + 0.0)
        results.append((losses.numpy(), tf.convert_to_tensor(tape.gradient(losses, values)).numpy()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert (results[0][1][MARKS < 0] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_an_image_of_which_nothing_is_known_has_no_loss(name):
    loss = LOSSES[name](reduction="none")
    assert float(loss(MARKS[3:4], np.full([1, 5], 3.0))[0]) == 0
    if name in ("softmax", "warp"):  # nor has one without labels
        assert float(loss(MARKS[1:2], np.full([1, 5], 3.0))[0]) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_batch_is_the_mean_over_its_images(name, scores):
    each = np.asarray(LOSSES[name](reduction="none")(MARKS, scores))
    assert each.shape == (6,)
    assert float(LOSSES[name]()(MARKS, scores)) == pytest.approx(each.mean(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_scores_and_whole_number_labels_are_read_as_they_are(name):
    halves = np.random.default_rng(2).integers(-20, 20, MARKS.shape).astype(np.float16) / np.float16(4)
    expected = LOSSES[name](reduction="none")(MARKS.astype(np.float32), halves.astype(np.float32))
    for dtype in (tf.float16, tf.bfloat16):
        found = LOSSES[name]().call(tf.constant(MARKS, tf.int8), tf.cast(halves, dtype))
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1e4, -1e4, 0.0])
def test_extreme_scores_have_finite_losses_and_gradients(name, size):
    scores = tf.Variable(np.full(MARKS.shape, size, np.float32))
    losses = [LOSSES[name]()]
    if name == "asl":
        losses += [AsymmetricSigmoidLoss(*constants) for constants in [(0, 0, 0), (0.5, 0.5, 0.3), (1, 1, 0)]]
    for loss in losses:
        with tf.GradientTape() as tape:
            value = loss(MARKS, scores + 0.0)
        assert np.isfinite(value)
        assert np.isfinite(tf.convert_to_tensor(tape.gradient(value, scores))).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_vocabulary_of_one_label_has_a_loss(name):
    found = np.asarray(LOSSES[name](reduction="none")([[1], [0], [-1]], [[0.0], [0.0], [0.0]]))
    expected = {
        "bce": [np.log(2), np.log(2), 0],
        "softmax": [0, 0, 0],
        "squared": [1, 0, 0],
        "asl": [np.log(2), -(0.45**4) * np.log(0.55), 0],
        "warp": [0, 0, 0],
    }
    np.testing.assert_allclose(found, expected[name], rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_xla_computes_the_same(name):
    """Keras compiles by XLA unasked where there is a GPU, and XLA refuses shapes that depend on values."""
    loss, scores = LOSSES[name](), np.random.default_rng(1).normal(size=MARKS.shape).astype(np.float32)
    compiled = tf.function(loss, jit_compile=True)
    np.testing.assert_allclose(
        compiled(tf.constant(MARKS), tf.constant(scores)), loss(MARKS, scores), rtol=1e-5
    )


@pytest.mark.parametrize("name", LOSSES)
def test_any_model_can_be_compiled_with_the_loss_and_saved_with_it(name, tmp_path):
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(5, kernel_initializer="zeros")])
    model.compile("sgd", loss=LOSSES[name]())
    inputs = np.random.default_rng(0).normal(size=[6, 3]).astype(np.float32)
    history = model.fit(inputs, MARKS, epochs=2, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert any(np.abs(weight).sum() > 0 for weight in model.get_weights())
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.loss) is LOSSES[name]
    assert again.evaluate(inputs, MARKS, verbose=0) == pytest.approx(model.evaluate(inputs, MARKS, verbose=0))


@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        (WARPLoss(seed=7), {"seed": 7}),
        (AsymmetricSigmoidLoss(2, 1, 0.1), {"gamma_neg": 2, "gamma_pos": 1, "clip": 0.1}),
        (MultiLabelSoftmax(name="mine"), {"name": "mine"}),
        (KnownBinaryCrossentropy(reduction="sum"), {"reduction": "sum"}),
        (KnownSquaredLoss(), {}),
    ],
)
def test_losses_survive_a_round_trip_through_their_configuration(loss, arguments, scores):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss)
    assert {key: getattr(again, key) for key in arguments} == arguments
    assert float(again(MARKS, scores)) == float(loss(MARKS, scores))


@pytest.mark.parametrize("arguments", [{"gamma_neg": -1}, {"gamma_pos": float("nan")}, {"clip": 1.0}])
def test_constants_that_make_no_asymmetric_loss_are_refused(arguments):
    with pytest.raises(UserError, match="takes gamma_neg and gamma_pos of 0 or more and a clip from 0"):
        AsymmetricSigmoidLoss(**arguments)
