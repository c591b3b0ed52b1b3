"""Baselines with library solvers: against scikit-learn called directly, and brute force in NumPy."""

from __future__ import annotations

import dataclasses
import functools
import tracemalloc

import numpy as np
import pytest
import sklearn
from sklearn import linear_model, svm
from sklearn.metrics import roc_auc_score

from cnnrnn_tf.baselines.catalogue import make_method
from cnnrnn_tf.baselines.knn import KNN, Votes
from cnnrnn_tf.baselines.linear_svm import LinearSVM
from cnnrnn_tf.baselines.logistic_regression import LogisticRegression
from cnnrnn_tf.baselines.method import Examples
from cnnrnn_tf.baselines.metric_learning import SHRINKAGES, MetricLearning
from cnnrnn_tf.baselines.no_rnn import without_recurrence
from cnnrnn_tf.config import ExperimentConfig
from cnnrnn_tf.model.decoder import LabelDecoder
from tfrecords.errors import UserError

NAMES = ("svm", "logistic", "knn", "metric-learning")
NUM_FEATURES = 9
NEVER, ALWAYS, NOBODY_KNOWS = 3, 4, 5  # labels of `draw`; 0 to 2 are ordinary


def draw(num_images: int, seed: int) -> Examples:
    """Six labels: three that linear scores give away in part, one that never holds, one that always holds,
    and one of which nobody knows. The first image has no label, the second all; a quarter is unknown."""
    rng = np.random.default_rng(seed)
    features = rng.gamma(2.0, 3.0, (num_images, NUM_FEATURES))  # skewed and positive, as behind a ReLU
    features[:, 7] = 2.5  # never varies
    logits = (features @ np.random.default_rng(7).standard_normal((NUM_FEATURES, 3))) / 4
    labels = np.zeros((num_images, 6), int)
    labels[:, :3] = logits + rng.normal(size=logits.shape) > np.median(logits, axis=0)
    labels[:, ALWAYS] = 1
    known = rng.random(labels.shape) < 0.75
    labels[0, :3], labels[1, :3], known[:2] = 0, 1, True
    labels[:, NOBODY_KNOWS] = rng.random(num_images) < 0.5
    known[:, NOBODY_KNOWS] = False
    return Examples(features, labels, known)


TRAIN, HOLDOUT, TEST = draw(90, seed=1), draw(30, seed=2), draw(40, seed=3)


def standardise(features):
    """By the training images, in float64, without the code under test."""
    train = TRAIN.features.astype(np.float64)
    deviation = train.std(axis=0)
    deviation[7] = 1
    return np.clip((features - train.mean(axis=0)) / deviation, -10, 10)


def fit(name, train=TRAIN, holdout=HOLDOUT, **options):
    method = make_method(name)
    method.fit(train, holdout, **options)
    return method


@functools.cache
def fitted(name):
    return fit(name)


# ---- each method against an independent oracle


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("regularisation", [1e-4, 0.01])
def test_a_linear_svm_is_that_of_scikit_learn_on_the_images_of_which_the_label_is_known(
    label, regularisation
):
    method = LinearSVM(regularisation)
    method.fit(TRAIN, HOLDOUT)
    known = TRAIN.known[:, label] != 0
    oracle = svm.LinearSVC(C=regularisation, dual=False, tol=1e-9)  # the primal: another algorithm
    oracle.fit(standardise(TRAIN.features)[known], TRAIN.labels[known, label])
    expected = oracle.decision_function(standardise(TEST.features))
    np.testing.assert_allclose(method.score(TEST.features)[:, label], expected, atol=2e-4)


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("regularisation", [0.003, 1.0])
def test_a_logistic_regression_is_that_of_scikit_learn(label, regularisation):
    method = LogisticRegression(regularisation)
    method.fit(TRAIN, HOLDOUT)
    known = TRAIN.known[:, label] != 0
    oracle = linear_model.LogisticRegression(C=regularisation, solver="newton-cholesky", tol=1e-9)
    oracle.fit(standardise(TRAIN.features)[known], TRAIN.labels[known, label])
    expected = oracle.predict_proba(standardise(TEST.features))[:, 1]
    np.testing.assert_allclose(method.score(TEST.features)[:, label], expected, atol=2e-3)


def vote_by_hand(neighbours, weights):
    """One image's scores from its neighbours, label by label."""
    scores = np.zeros(6)
    for label in range(6):
        having = knowing = 0.0
        for row, weight in zip(neighbours, weights, strict=True):
            if TRAIN.known[row, label]:
                knowing += weight
                having += weight * TRAIN.labels[row, label]
        known = TRAIN.labels[TRAIN.known[:, label] != 0, label]
        frequency = known.mean() if len(known) else 0
        scores[label] = having / knowing if knowing else frequency
    return scores


@pytest.mark.parametrize("num_neighbours", [1, 2, 20, 90, 500])
def test_knn_is_a_weighted_vote_of_the_most_similar_images(num_neighbours):
    method = KNN(num_neighbours)
    method.fit(TRAIN, HOLDOUT)
    train, test = standardise(TRAIN.features), standardise(TEST.features)
    train, test = (table / np.linalg.norm(table, axis=1, keepdims=True) for table in (train, test))
    expected = []
    for image in test:
        similarity = train @ image
        nearest = np.argsort(-similarity)[:num_neighbours]
        expected.append(vote_by_hand(nearest, np.maximum(similarity[nearest], 1e-6)))
    np.testing.assert_allclose(method.score(TEST.features), expected, atol=1e-5)


def metric_by_hand(shrinkage):
    """M = S_t^-1 S_b S_t^-1 from the sums in the docstring, with explicit inverses."""
    features = standardise(TRAIN.features)
    between = np.zeros((NUM_FEATURES, NUM_FEATURES))
    for label in (0, 1, 2):
        known = TRAIN.known[:, label] != 0
        truth = TRAIN.labels[:, label] == 1
        difference = features[known & truth].mean(axis=0) - features[known & ~truth].mean(axis=0)
        share = truth[known].mean()
        between += share * (1 - share) * np.outer(difference, difference)
    covariance = np.cov(features.T, bias=True)
    sphere = np.trace(covariance) / NUM_FEATURES * np.eye(NUM_FEATURES)
    inverse = np.linalg.inv((1 - shrinkage) * covariance + shrinkage * sphere)
    return inverse @ between @ inverse


def score_by_metric(shrinkage, features, num_neighbours):
    metric, train = metric_by_hand(shrinkage), standardise(TRAIN.features)
    scores = []
    for image in standardise(features):
        squares = np.einsum("if,fg,ig->i", train - image, metric, train - image)
        nearest = np.argsort(squares)[:num_neighbours]
        scores.append(vote_by_hand(nearest, np.exp(-squares[nearest] / squares[nearest].max())))
    return np.array(scores)


@pytest.mark.parametrize("num_neighbours", [3, 20])
def test_metric_learning_votes_by_the_metric_that_suits_the_holdout(num_neighbours):
    method = MetricLearning(num_neighbours)
    method.fit(TRAIN, HOLDOUT)
    errors = {}
    for shrinkage in SHRINKAGES:
        errors[shrinkage] = 0
        scores = score_by_metric(shrinkage, HOLDOUT.features, num_neighbours)
        for score, truth, known in zip(scores.flat, HOLDOUT.labels.flat, HOLDOUT.known.flat, strict=True):
            errors[shrinkage] += (score - truth) ** 2 if known else 0
    assert method.shrinkage == min(errors, key=errors.get)
    expected = score_by_metric(method.shrinkage, TEST.features, num_neighbours)
    np.testing.assert_allclose(method.score(TEST.features), expected, atol=1e-3)


def test_metric_learning_looks_where_labels_differ_and_knn_at_every_feature():
    """Sixty features say nothing, one is the label with some noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (800, 1))
    features = np.hstack([rng.normal(size=(800, 60)), labels + rng.normal(size=(800, 1)) / 3])
    examples = Examples(features, labels, np.ones_like(labels))
    train, holdout, test = (
        Examples(features[rows], labels[rows], examples.known[rows])
        for rows in (slice(0, 200), slice(200, 300), slice(300, 800))
    )
    areas = {}
    for name in ("knn", "metric-learning"):
        areas[name] = roc_auc_score(test.labels[:, 0], fit(name, train, holdout).score(test.features)[:, 0])
    assert areas["metric-learning"] > areas["knn"] + 0.05


# ---- what is unknown


@pytest.mark.parametrize("name", NAMES)
def test_the_label_of_an_unknown_cell_changes_nothing(name):
    train, holdout = (
        Examples(
            examples.features, np.where(examples.known, examples.labels, 1 - examples.labels), examples.known
        )
        for examples in (TRAIN, HOLDOUT)
    )
    assert (train.labels != TRAIN.labels).sum() > 100
    scores = fit(name, train, holdout).score(TEST.features)
    np.testing.assert_array_equal(scores, fitted(name).score(TEST.features))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_which_a_label_is_unknown_does_not_train_that_label(name):
    """Knowing of those cells does change the scores, or the test before this one would prove nothing."""
    known = TRAIN.known.copy()
    known[:, :3] = 1
    scores = fit(name, Examples(TRAIN.features, TRAIN.labels, known)).score(TEST.features)
    assert (scores[:, :3] != fitted(name).score(TEST.features)[:, :3]).any(axis=0).all()


def test_votes_leave_out_neighbours_that_do_not_know():
    labels = [[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 0, 0]]
    known = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 1]]
    votes = Votes(Examples(np.zeros((4, 1)), labels, known))
    # Images 0 and 1 know of label 0, images 1 and 2 of label 1, none of label 2; in training, 0 of 1 has it.
    np.testing.assert_allclose(
        votes.count(np.array([[0, 1, 2]]), np.array([[3.0, 1.0, 5.0]])), [[3 / 4, 1 / 6, 0]], rtol=1e-6
    )


# ---- odd labels and odd images


@pytest.mark.parametrize(
    ("name", "never", "always", "nobody_knows"),
    [("svm", -1, 1, -1), ("logistic", 0, 1, 0), ("knn", 0, 1, 0), ("metric-learning", 0, 1, 0)],
)
def test_labels_without_positives_or_without_negatives_score_a_constant(name, never, always, nobody_knows):
    scores = fitted(name).score(TEST.features)
    for label, constant in ((NEVER, never), (ALWAYS, always), (NOBODY_KNOWS, nobody_knows)):
        np.testing.assert_allclose(scores[:, label], constant, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, 1])
def test_nothing_but_positives_or_nothing_but_negatives_is_no_failure(name, value):
    labels = np.full((8, 2), value)
    train = Examples(TRAIN.features[:8], labels, np.ones((8, 2)))
    scores = fit(name, train, train).score(TEST.features)
    assert scores.shape == (40, 2)
    assert len(np.unique(scores.round(5))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_single_label_will_do(name):
    train, holdout = (Examples(e.features, e.labels[:, :1], e.known[:, :1]) for e in (TRAIN, HOLDOUT))
    scores = fit(name, train, holdout).score(TEST.features)
    assert scores.shape == (40, 1)
    known = TEST.known[:, 0] != 0
    assert roc_auc_score(TEST.labels[known, 0], scores[known, 0]) > 0.75


@pytest.mark.parametrize("name", NAMES)
def test_a_single_image_will_do(name):
    train = Examples([[1.0, 2.0]], [[1, 0]], [[1, 1]])
    scores = fit(name, train, train).score(np.array([[5.0, -3.0], [1.0, 2.0]]))
    assert (scores[:, 0] > scores[:, 1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_features_that_never_vary_will_do(name):
    train = Examples(np.ones((6, 3)), [[1], [0], [1], [0], [1], [1]], np.ones((6, 1)))
    scores = fit(name, train, train).score(np.ones((2, 3)))
    assert np.isfinite(scores).all()
    if make_method(name).gives_probabilities:
        np.testing.assert_allclose(scores, 4 / 6, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_float32_for_every_image_and_label_even_of_no_image(name):
    method = fitted(name)
    scores = method.score(TEST.features.astype(np.float64))
    assert scores.shape == (40, 6) and scores.dtype == np.float32
    np.testing.assert_allclose(method.score(TEST.features[5:6]), scores[5:6], atol=1e-5)
    assert method.score(TEST.features[:0]).shape == (0, 6)


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_probabilities(name):
    scores = fitted(name).score(TEST.features)
    within = (scores >= 0).all() and (scores <= 1).all()
    assert within == make_method(name).gives_probabilities


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", [-1, 1])
def test_features_are_cut_at_ten_deviations(name, sign):
    method = fitted(name)
    far, at_ten = TEST.features.copy(), TEST.features.copy()
    far[:, 2] = sign * 1e9
    at_ten[:, 2] = TRAIN.features[:, 2].mean() + sign * 10 * TRAIN.features[:, 2].std()
    np.testing.assert_allclose(method.score(far), method.score(at_ten), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_neither_scale_nor_shift_of_a_feature_matters(name):
    scale, shift = np.geomspace(1e-3, 1e3, NUM_FEATURES), np.linspace(-5, 5, NUM_FEATURES)
    train, holdout, test = (
        Examples(e.features * scale + shift * scale, e.labels, e.known) for e in (TRAIN, HOLDOUT, TEST)
    )
    scores = fit(name, train, holdout).score(test.features)
    np.testing.assert_allclose(scores, fitted(name).score(TEST.features), atol=2e-3)


# ---- the hold-out, seeds, memory


@pytest.mark.parametrize("name", ["svm", "logistic", "knn"])
def test_the_holdout_trains_nothing(name):
    other = Examples(HOLDOUT.features + 1, 1 - HOLDOUT.labels, HOLDOUT.known)
    np.testing.assert_array_equal(
        fit(name, TRAIN, other).score(TEST.features), fitted(name).score(TEST.features)
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_seed_changes_the_scores(name):
    assert not make_method(name).is_seeded
    scores = fit(name, seed=1).score(TEST.features)
    np.testing.assert_array_equal(scores, fit(name, seed=2).score(TEST.features))


@pytest.mark.parametrize("name", NAMES)
def test_a_method_can_learn_anew(name):
    method = fit(name, draw(50, seed=9), HOLDOUT)
    method.fit(TRAIN, HOLDOUT)
    np.testing.assert_array_equal(method.score(TEST.features), fitted(name).score(TEST.features))


@pytest.mark.parametrize("name", ["knn", "metric-learning"])
def test_the_table_of_all_distances_is_never_whole(name):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 4)).astype(np.float32)
    labels = features[:, :2] > 0
    examples = Examples(features, labels, np.ones_like(labels))
    small = Examples(features[:20], labels[:20], np.ones((20, 2)))
    method = fit(name, examples, small)
    with sklearn.config_context(working_memory=1):
        tracemalloc.start()
        method.score(features)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 4000 * 4000 * 4 / 4


# ---- mistakes


@pytest.mark.parametrize("name", NAMES)
def test_scores_before_fit_are_refused(name):
    with pytest.raises(UserError, match=r"no scores before fit: call fit\(train, holdout\) first"):
        make_method(name).score(TEST.features)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((2, 8)), "trained on 9 features an image, got 8: take them from the same layer"),
        (np.zeros(9), r"reads features \[images, features\], got \[9\]$"),
        (np.zeros((2, 3, 9)), r"got \[2, 3, 9\]: pool over the hypotheses first"),
        (np.full((2, 9), np.nan), "hold NaN or infinite values: extract them anew"),
        (np.full((2, 9), 1e300), "hold NaN or infinite values"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_features_of_another_kind_are_refused(name, features, message):
    with pytest.raises(UserError, match=f"{make_method(name).title}: .*{message}"):
        fitted(name).score(features)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("train", "holdout", "message"),
    [
        ((9, 6), (8, 6), "the hold-out has 8 features and 6 labels, the training images 9 and 6"),
        ((9, 6), (9, 5), "the hold-out has 9 features and 5 labels, the training images 9 and 6"),
        ((3, 9, 6), (9, 6), r"got \[4, 3, 9\]: pool over the hypotheses first"),
        ((9, 6), (3, 9, 6), r"got \[4, 3, 9\]: pool over the hypotheses first"),
        ((0, 6), (0, 6), r"reads features \[images, features\], got \[4, 0\]"),
    ],
)
def test_examples_that_do_not_fit_are_refused(name, train, holdout, message):
    examples = [
        Examples(np.zeros((4, *shape[:-1])), np.zeros((4, shape[-1])), np.ones((4, shape[-1])))
        for shape in (train, holdout)
    ]
    with pytest.raises(UserError, match=message):
        make_method(name).fit(*examples)


def test_metric_learning_refuses_a_holdout_that_tells_nothing():
    holdout = Examples(HOLDOUT.features, HOLDOUT.labels, np.zeros_like(HOLDOUT.known))
    with pytest.raises(UserError, match=r"no label of the 30 hold-out images is known.* give a hold-out"):
        MetricLearning().fit(TRAIN, holdout)


@pytest.mark.parametrize("method", [LinearSVM, LogisticRegression])
@pytest.mark.parametrize("regularisation", [0, -1, float("nan"), float("inf")])
def test_a_regularisation_out_of_range_is_refused(method, regularisation):
    with pytest.raises(UserError, match=f"C {regularisation}: expected more than 0"):
        method(regularisation)


@pytest.mark.parametrize("method", [KNN, MetricLearning])
def test_fewer_than_one_neighbour_is_refused(method):
    with pytest.raises(UserError, match="num_neighbours 0: expected 1 or more"):
        method(0)


# ---- No-RNN


def test_no_rnn_is_the_same_experiment_without_its_cell():
    config = ExperimentConfig().updated(
        {"model": {"cell": "gru", "dropout": 0.2}, "training": {"epochs": 3}}, where="test"
    )
    changed = without_recurrence(config)
    assert changed.model.cell == "none" and config.model.cell == "gru"
    assert dataclasses.replace(changed, model=config.model) == config
    assert dataclasses.replace(changed.model, cell="gru") == config.model


def score_after(cell, paths):
    """The scores of the label that follows each path `<int>[paths, steps]`, for one image."""
    decoder = LabelDecoder(6, NUM_FEATURES, cell=cell, cell_units=8, embedding_dim=5)
    decoder.build()
    rng = np.random.default_rng(4)
    decoder.set_weights([rng.normal(size=weight.shape) for weight in decoder.get_weights()])
    tokens = np.hstack([np.full((len(paths), 1), 7), paths])  # START is 7
    image = np.tile(standardise(TEST.features[:1]).astype(np.float32), (len(paths), 1))
    return np.asarray(decoder({"features": image, "tokens": tokens}))[:, -1]


@pytest.mark.parametrize("cell", ["none", "lstm", "gru", "paper"])
def test_without_recurrence_the_last_label_alone_decides_what_comes_next(cell):
    same_last = [[0, 1, 2, 3], [2, 1, 0, 3], [1, 5, 4, 3], [3, 3, 3, 3]]
    scores = score_after(cell, np.array(same_last))
    is_forgetful = bool(np.allclose(scores, scores[0], atol=1e-5))
    assert is_forgetful == (cell == "none")
    other_last = score_after(cell, np.array([[0, 1, 2, 3], [0, 1, 3, 2]]))
    assert not np.allclose(*other_last, atol=1e-2)
