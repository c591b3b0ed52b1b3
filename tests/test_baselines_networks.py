"""The gradient-trained baselines on small problems whose answer is known, and on examples that do not fit."""

import functools
import inspect

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from cnnrnn_tf.baselines.binary_cross_entropy import BinaryCrossEntropy, BinaryCrossEntropyHidden
from cnnrnn_tf.baselines.catalogue import METHODS, make_method
from cnnrnn_tf.baselines.joint_embedding import JointEmbedding
from cnnrnn_tf.baselines.max_pooling import MaxPooling
from cnnrnn_tf.baselines.method import Examples
from cnnrnn_tf.baselines.warp import Warp
from tfrecords.errors import UserError

NAMES = [
    "softmax",
    "softmax-hidden",
    "bce",
    "bce-hidden",
    "asl",
    "warp",
    "squared",
    "joint-embedding",
    "max-pooling",
]
PROBABILITIES = {"bce", "bce-hidden", "asl", "max-pooling"}
NUM_FEATURES = 12


def make(name, **settings):
    return type(make_method(name))(**settings)


def draw_examples(num_images, num_labels=4, seed=0, hypotheses=False, share_known=0.85):
    """Labels by a noisy linear rule; in one of three hypotheses, of which the other two show nothing."""
    rng = np.random.default_rng(seed)
    rule = np.random.default_rng(99).normal(size=[NUM_FEATURES, num_labels])
    signal = rng.normal(size=[num_images, NUM_FEATURES])
    labels = signal @ rule + rng.normal(scale=0.5, size=[num_images, num_labels]) > 1.5
    features = 3 * signal + 7  # far from standardised
    if hypotheses:
        parts = np.full([num_images, 3, NUM_FEATURES], 7.0) + rng.normal(scale=0.1, size=[num_images, 3, 1])
        parts[np.arange(num_images), rng.integers(0, 3, num_images)] = features
        features = parts
    known = rng.random(labels.shape) < share_known
    return Examples(features, labels, known)


def problem(name, **options):
    hypotheses = make_method(name).reads_hypotheses
    return tuple(
        draw_examples(num_images, seed=seed, hypotheses=hypotheses, **options)
        for seed, num_images in enumerate((600, 100, 200))
    )


def fit_briefly(name, train, holdout, seed=0):
    method = make(name, max_epochs=1)
    method.fit(train, holdout, seed=seed)
    return method


@functools.cache
def briefly_fitted(name):
    """The problem's three tables, a method that learned from them, and its scores of the last."""
    train, holdout, test = problem(name)
    method = fit_briefly(name, train, holdout)
    return train, holdout, test, method, method.score(test.features)


@pytest.mark.parametrize("name", NAMES)
def test_each_method_learns_to_rank_the_labels_of_an_image_and_the_images_of_a_label(name):
    train, holdout, test = problem(name)
    method = make(name, learning_rate=0.02, batch_size=100, max_epochs=12)
    method.fit(train, holdout)
    scores = method.score(test.features)
    assert scores.shape == test.labels.shape and scores.dtype == np.float32
    with_both = [i for i, row in enumerate(test.labels) if 0 < row.sum() < 4]
    within_images = np.mean([roc_auc_score(test.labels[i], scores[i]) for i in with_both])
    within_labels = average_precision_score(test.labels, scores)
    assert within_images > 0.93, within_images  # 0.5 by chance
    assert within_labels > (0.7 if method.learns_from_positives else 0.9), within_labels  # 0.35 by chance


@pytest.mark.parametrize("name", NAMES)
def test_labels_that_nobody_knows_and_the_state_of_global_generators_change_nothing(name):
    train, holdout, test, _, scores = briefly_fitted(name)
    flipped = [
        Examples(e.features, np.where(e.known, e.labels, 1 - e.labels), e.known) for e in (train, holdout)
    ]
    assert not np.array_equal(flipped[0].labels, train.labels)
    keras.utils.set_random_seed(123)
    np.testing.assert_array_equal(fit_briefly(name, *flipped).score(test.features), scores)


@pytest.mark.parametrize("name", ["softmax-hidden", "bce", "joint-embedding", "max-pooling"])
def test_another_seed_gives_another_result(name):
    train, holdout, test, _, scores = briefly_fitted(name)
    assert not np.array_equal(fit_briefly(name, train, holdout, seed=1).score(test.features), scores)


@pytest.mark.parametrize("name", ["softmax-hidden", "bce", "warp", "joint-embedding", "max-pooling"])
def test_a_vocabulary_of_one_label_and_images_without_any_can_be_learned(name):
    train, holdout, test = problem(name, num_labels=1)
    assert (train.targets.sum(axis=1) == 0).any()
    scores = fit_briefly(name, train, holdout).score(test.features)
    assert scores.shape == (200, 1) and np.isfinite(scores).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_knows_what_each_method_is(name):
    method = make_method(name)
    assert METHODS[name].startswith(type(method).__module__)
    assert method.is_seeded
    assert method.gives_probabilities == (name in PROBABILITIES)
    assert method.reads_hypotheses == (name == "max-pooling")
    assert inspect.getdoc(type(method)) and method.title


def test_titles_tell_the_methods_apart():
    assert len({make_method(name).title for name in NAMES}) == len(NAMES)


# ---- what a linear scorer must come to


def test_binary_cross_entropy_comes_to_what_scikit_learn_s_solver_finds():
    rng = np.random.default_rng(0)
    features = 3 * rng.normal(size=[200, 8]) + 7
    standardised = StandardScaler().fit_transform(features)
    odds = np.exp(standardised @ (0.8 * rng.normal(size=[8, 3])) - 0.5)
    labels = rng.random([200, 3]) < odds / (1 + odds)
    train = Examples(features, labels, np.ones([200, 3]))

    method = make("bce", prior_variance=0.05, learning_rate=0.02, batch_size=50, max_epochs=25, patience=25)
    method.fit(train, train)  # so nothing but the penalty holds it back
    found = method.score(features)
    for label in range(3):
        solved, free = (
            LogisticRegression(C=C).fit(standardised, labels[:, label]).predict_proba(standardised)[:, 1]
            for C in (0.05, 1e6)
        )
        np.testing.assert_allclose(found[:, label], solved, atol=0.03)
        assert np.abs(free - solved).max() > 0.1  # the penalty is felt


def test_probabilities_of_labels_without_a_clue_are_their_shares():
    rng = np.random.default_rng(0)
    labels = rng.random([400, 2]) < [0.5, 0.1]
    examples = Examples(rng.normal(size=[400, 3]), labels, np.ones([400, 2]))
    method = fit_briefly("bce", examples, examples)
    np.testing.assert_allclose(method.score(np.zeros([1, 3]))[0], labels.mean(axis=0), atol=0.02)


def test_max_pooling_takes_the_best_hypothesis_in_any_order_and_any_number():
    _, _, test, method, scores = briefly_fitted("max-pooling")
    np.testing.assert_allclose(method.score(test.features[:, ::-1]), scores, rtol=1e-5)
    alone = [method.score(test.features[:, i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(np.max(alone, axis=0), scores, rtol=1e-5)


def test_vectors_of_the_joint_embedding_are_no_longer_than_the_norm_and_score_by_inner_products():
    train, holdout, test = problem("joint-embedding")
    method = JointEmbedding(embedding_dim=5, max_norm=0.5, learning_rate=0.1, max_epochs=3)
    method.fit(train, holdout)
    images, labels = method.model.get_layer("images"), method.model.get_layer("labels")
    for kernel, axis in ((images.kernel, 1), (labels.kernel, 0)):
        norms = np.linalg.norm(kernel.numpy(), axis=axis)
        assert norms.max() == pytest.approx(0.5, abs=1e-4)
    mean, deviation = train.features.mean(axis=0), train.features.std(axis=0)
    embedded = (test.features - mean) / deviation @ images.kernel.numpy() + images.bias.numpy()
    np.testing.assert_allclose(method.score(test.features), embedded @ labels.kernel.numpy(), atol=1e-4)


# ---- features


def test_a_feature_that_never_varies_in_training_is_no_danger_and_wild_ones_are_cut():
    train, holdout, test = problem("bce")
    constant = [
        Examples(
            np.concatenate([e.features, np.full([len(e.features), 1], value)], axis=1), e.labels, e.known
        )
        for e, value in ((train, 0.1), (holdout, 0.1))
    ]
    method = fit_briefly("bce", *constant)
    row = np.append(test.features[0], 0.1)
    seen = method.score(row[None])
    np.testing.assert_allclose(method.score(np.append(test.features[0], 0.2)[None]), seen, atol=1e-3)

    deviation, mean = train.features.std(axis=0), train.features.mean(axis=0)
    at_limit, beyond = row.copy(), row.copy()
    at_limit[2], beyond[2] = mean[2] + 10 * deviation[2], 1e9
    np.testing.assert_allclose(method.score(beyond[None]), method.score(at_limit[None]), rtol=1e-4)


def test_a_memory_map_of_features_gives_what_an_array_gives(tmp_path):
    train, holdout, test, _, expected = briefly_fitted("bce")
    np.save(tmp_path / "features.npy", train.features)
    mapped = Examples(np.load(tmp_path / "features.npy", mmap_mode="r"), train.labels, train.known)
    assert isinstance(mapped.features.base, np.memmap)
    np.testing.assert_array_equal(fit_briefly("bce", mapped, holdout).score(test.features), expected)


def test_training_ends_when_the_hold_out_gains_no_more_and_the_best_weights_are_kept():
    train, holdout, _ = problem("bce-hidden")
    method = BinaryCrossEntropyHidden(learning_rate=0.01, prior_variance=100.0, patience=2)
    method.fit(train, holdout)
    losses = method.history["val_data_loss"]
    assert len(losses) == np.argmin(losses) + 3 < 200
    marks = np.where(holdout.known, holdout.labels, -1.0)
    found = float(method.make_loss(0)(marks, method.model.predict(holdout.features, verbose=0)))
    assert found == pytest.approx(min(losses), rel=1e-4)


def test_a_global_policy_of_half_precision_leaves_the_networks_alone():
    train, holdout, test, _, expected = briefly_fitted("bce")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        np.testing.assert_array_equal(fit_briefly("bce", train, holdout).score(test.features), expected)
    finally:
        keras.config.set_dtype_policy("float32")


# ---- mistakes


@pytest.mark.parametrize("name", NAMES)
def test_a_method_that_knows_nothing_does_not_score(name):
    with pytest.raises(UserError, match=r"has nothing to score by: call fit first"):
        make_method(name).score(np.zeros([2, 3]))


def test_features_of_another_width_or_rank_are_not_scored():
    _, _, _, method, _ = briefly_fitted("bce")
    message = r"was fitted to features \[images, 12\], got \[5, 11\]: score the same layer"
    with pytest.raises(UserError, match=message):
        method.score(np.zeros([5, 11]))
    with pytest.raises(UserError, match=r"got \[5, 3, 12\]"):
        method.score(np.zeros([5, 3, 12]))
    assert method.score(np.zeros([0, 12])).shape == (0, 4)

    _, _, _, method, _ = briefly_fitted("max-pooling")
    with pytest.raises(UserError, match=r"\[images, hypotheses, 12\], got \[5, 12\]"):
        method.score(np.zeros([5, 12]))
    with pytest.raises(UserError, match=r"got \[5, 0, 12\]"):
        method.score(np.zeros([5, 0, 12]))


def examples(features, num_labels=2, labels=1, known=1):
    table = np.ones([len(features), num_labels])
    return Examples(features, labels * table, known * table)


@pytest.mark.parametrize(
    ("method", "train", "holdout", "message"),
    [
        (
            BinaryCrossEntropy,
            np.ones([3, 2, 4]),
            np.ones([3, 4]),
            r"reads features \[images, features\], but train",
        ),
        (
            MaxPooling,
            np.ones([3, 4]),
            np.ones([3, 2, 4]),
            r"features \[images, hypotheses, features\], but train",
        ),
        (BinaryCrossEntropy, np.ones([3, 4]), np.ones([3, 5]), r"train has 4 and 2, holdout 5 and 2"),
        (BinaryCrossEntropy, np.ones([3, 0]), np.ones([3, 0]), r"but train has \[3, 0\]"),
        (BinaryCrossEntropy, np.full([3, 4], np.nan), np.ones([3, 4]), r"features of train are not finite"),
        (BinaryCrossEntropy, np.full([3, 4], np.inf), np.ones([3, 4]), r"features of train are not finite"),
    ],
)
def test_features_that_do_not_fit_are_refused(method, train, holdout, message):
    with pytest.raises(UserError, match=message):
        method().fit(examples(train), examples(holdout))


def test_examples_that_teach_nothing_are_refused():
    good, features = examples(np.ones([3, 4])), np.ones([3, 4])
    with pytest.raises(UserError, match=r"train has 4 and 2, holdout 4 and 3"):
        BinaryCrossEntropy().fit(good, examples(features, num_labels=3))
    with pytest.raises(UserError, match=r"cannot learn: no image of train has a known label"):
        BinaryCrossEntropy().fit(examples(features, known=0), good)
    with pytest.raises(
        UserError, match=r"cannot learn: no image of holdout has a label that is known to hold"
    ):
        Warp().fit(good, examples(features, labels=0))


def test_a_hold_out_that_cannot_be_scored_is_told_of():
    train, holdout, _ = problem("bce")
    blank = Examples(np.full_like(holdout.features, np.nan), holdout.labels, holdout.known)
    with pytest.raises(UserError, match=r"found no finite loss on the hold-out: check its features"):
        fit_briefly("bce", train, blank)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior_variance": 0.0}, r"must be above 0, got 0.0, 0.001, 64 and 200"),
        ({"batch_size": 0}, r"must be above 0"),
        ({"dropout": 1.0}, r"must be from 0 to less than 1, got 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        BinaryCrossEntropy(**{"prior_variance": 0.003, **settings})
