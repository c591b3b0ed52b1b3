"""`tag_given` of 200 small taggers against conditioned enumeration: every path, by an LSTM in NumPy.

A model trained in a fixed order has learned not to leave it: a label out of order has next to no probability.
Random weights know nothing of an order: `learn_order` sets them so that they do. Then the answer has to be
P(set | the given labels are in it) over all sets and all their paths, whatever the search prunes.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf
from tiny_model import make_photograph

from cnnrnn_tf.config import DecodingConfig
from cnnrnn_tf.data.images import decode_batch
from cnnrnn_tf.data.sequences import order_ranks
from cnnrnn_tf.model.cnn_rnn import CNNRNN
from cnnrnn_tf.serving.signatures import Tagger
from tfrecords.vocabulary import LabelVocabulary

NAMES = ("sky", "sea", "été", "boat", "tree", "car")
UNITS, FREE_DIMENSIONS = 12, 6
MODELS_OF_AN_ORDER = 50
PHOTOGRAPHS = [make_photograph(seed) for seed in range(6)]
OUT_OF_ORDER = -40.0  # the score of such a label: e**-40 of its probability
NEAR = 1e-4  # two probabilities nearer than this share of themselves may change places by rounding

CASES = {  # order: labels, the longest path; all four make 200 models
    "frequent": (5, 5),
    "rare": (6, 3),
    "random": (5, 4),
    "shuffled": (5, 5),
}


@dataclass
class Small:
    """A real CNNRNN whose decoder's weights are drawn again and again, and every path that it has."""

    order: str
    model: CNNRNN
    vocabulary: LabelVocabulary
    features: np.ndarray
    """<float32>[images, features], of `PHOTOGRAPHS`."""
    paths: list[tuple[int, ...]]

    @property
    def max_length(self):
        return self.model.max_path_length

    @property
    def holds(self):
        """<bool>[paths, labels]."""
        return np.array([[label in path for label in range(self.model.num_labels)] for path in self.paths])

    @property
    def leaves_order(self):
        """<bool>[paths]: whether a path leaves the order that its model has, if any."""
        if self.ranks is None:
            return np.zeros(len(self.paths), bool)
        return np.array([(np.diff(self.ranks[list(path)]) < 0).any() for path in self.paths])

    @property
    def ranks(self):
        return order_ranks(self.order, self.model.num_labels)


@pytest.fixture(scope="module", params=CASES)
def small(request):
    num_labels, max_length = CASES[request.param]
    vocabulary = LabelVocabulary.from_counts({name: 9 - i for i, name in enumerate(NAMES[:num_labels])})
    tf.keras.utils.set_random_seed(3)
    model = CNNRNN(
        num_labels,
        max_length,
        backbone="compact",
        image_size=32,
        cell_units=UNITS,
        embedding_dim=2 * num_labels + FREE_DIMENSIONS,
        label_order=request.param,
        vocabulary_fingerprint=vocabulary.fingerprint,
    )
    model.build()
    pixels, _, _ = decode_batch(tf.constant(PHOTOGRAPHS), model.image_size)
    paths = [
        path for length in range(max_length + 1) for path in itertools.permutations(range(num_labels), length)
    ]
    return Small(request.param, model, vocabulary, model.extract_features(pixels).numpy(), paths)


# --- weights


def draw_weights(small, random):
    """Weights by name: random ones, so that many sets have a share of the probability."""
    num_labels, dimensions = small.model.num_labels, small.model.decoder.embedding_dim
    size = np.linalg.norm(small.features, axis=1).mean()
    weights = {
        "labels": random.normal(size=(num_labels + 1, dimensions)),
        "start": random.normal(size=(1, dimensions)),
        "kernel": random.normal(size=(dimensions, 4 * UNITS)) / 2,
        "recurrent": random.normal(size=(UNITS, 4 * UNITS)) / 2,
        "bias": random.normal(size=4 * UNITS) / 2,
        "output": random.normal(size=(UNITS, dimensions)) / 2,
        "image": random.normal(size=(small.features.shape[1], dimensions)) / size / 2,
    }
    if small.ranks is not None:
        learn_order(weights, small.ranks)
    return weights


def learn_order(weights, ranks):
    """Gives labels that rank below the last one emitted `OUT_OF_ORDER`, through the LSTM.

    The first L dimensions of an embedding say which label it is and score nothing; the first L units
    remember the last label; the next L dimensions of the joint space score it.
    """
    num_labels = len(ranks)
    names, scores = slice(0, num_labels), slice(num_labels, 2 * num_labels)
    for rows in (weights["labels"], weights["start"]):
        rows[:, : 2 * num_labels] = 0
    weights["labels"][:num_labels, names] = np.eye(num_labels)
    weights["labels"][:num_labels, scores] = OUT_OF_ORDER * (ranks[:, None] < ranks)
    weights["kernel"][scores] = 0
    for gate, (bias, strength) in enumerate([(30, 0), (-30, 0), (0, 30), (30, 0)]):  # of i, f, c, o
        units = slice(gate * UNITS, gate * UNITS + num_labels)
        weights["kernel"][:, units] = 0
        weights["kernel"][names, units] = strength * np.eye(num_labels)
        weights["recurrent"][:, units] = 0
        weights["bias"][units] = bias
    for projection in (weights["output"], weights["image"]):
        projection[:, : 2 * num_labels] = 0
    weights["output"][:num_labels, scores] = np.eye(num_labels) / np.tanh(1)


def assign(model, weights):
    decoder = model.decoder
    variables = {
        "labels": decoder.label_embeddings,
        "start": decoder.start_embedding,
        "kernel": decoder.cell.kernel,
        "recurrent": decoder.cell.recurrent_kernel,
        "bias": decoder.cell.bias,
        "output": decoder.output_projection.kernel,
        "image": decoder.feature_projection.kernel,
    }
    for name, variable in variables.items():
        variable.assign(weights[name])


# --- the oracle


def enumerate_paths(small, weights):
    """Natural-log probability of every path and its END: <float64>[images, paths]."""
    num_labels, found = small.model.num_labels, {}
    image = small.features.astype(np.float64) @ weights["image"]
    paths, log_probs, inputs = [()], np.zeros([len(image), 1]), weights["start"]
    output = memory = np.zeros([1, UNITS])  # [paths, units]
    for _ in range(small.max_length + 1):
        gates = inputs @ weights["kernel"] + output @ weights["recurrent"] + weights["bias"]
        i, f, c, o = np.split(gates, 4, axis=1)
        memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(c)
        output = sigmoid(o) * np.tanh(memory)
        joint = np.maximum(output @ weights["output"] + image[:, None], 0)  # [images, paths, dimensions]
        scores = joint @ weights["labels"].T
        steps = log_probs[..., None] + scores - np.log(np.exp(scores).sum(axis=2, keepdims=True))
        found.update(zip(paths, steps[..., num_labels].T, strict=True))
        longer = [(i, label) for i, path in enumerate(paths) for label in set(range(num_labels)) - set(path)]
        if not longer:
            break
        parents, last = np.array(longer).T
        paths = [(*paths[i], label) for i, label in longer]
        log_probs, inputs = steps[:, parents, last], weights["labels"][last]
        output, memory = output[parents], memory[parents]
    return np.array([found[path] for path in small.paths]).T


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def condition(small, log_probs, given, absent):
    """What enumeration says of labels that hold and that do not: each set's share, and each label's.

    Args:
        given, absent: <bool>[images, labels].

    Returns:
        <float64>[images, paths], 0 where a given label is missing or an absent one is there;
        <float64>[images, 2**labels], by the set's bits; <float64>[images, labels].
    """
    allowed = ~((given[:, None] & ~small.holds) | (absent[:, None] & small.holds)).any(axis=2)
    probs = np.exp(log_probs) * allowed
    shares = probs / probs.sum(axis=1, keepdims=True)
    return probs, sum_sets(small.holds, shares), shares @ small.holds


def sum_sets(holds, shares):
    """Adds up each set's paths; `holds` is [paths, labels] or, of paths by image, [images, paths, labels]."""
    bits = holds @ (1 << np.arange(holds.shape[-1]))
    bits = np.broadcast_to(bits, shares.shape)
    size = 1 << holds.shape[-1]
    return np.array([np.bincount(b, s, minlength=size) for b, s in zip(bits, shares, strict=True)])


def draw_given(small, random):
    """One case a photograph, <bool>[images, labels]: none, one, some, and as many as a path may have."""
    given = np.zeros([len(PHOTOGRAPHS), small.model.num_labels], bool)
    for row, count in zip(given, [0, 1, 1, 2, 3, small.max_length], strict=True):
        row[random.permutation(len(row))[:count]] = True
    return given


def draw_absent(given, random):
    """One or two of the labels that are not given, of every second case; <bool>[images, labels]."""
    absent = random.permuted(np.indices(given.shape)[1] < 2, axis=1) & ~given
    absent[::2] = False
    return absent


def as_names(small, known):
    """<string>[images]: names in no order, one of them twice, and newlines before them."""
    rows = []
    for row in known:
        names = [small.vocabulary.names[label] for label in np.flatnonzero(row)[::-1]]
        rows.append("\n".join(["", *names, *names[:1]]))
    return tf.constant(rows)


# --- the test


def test_tag_given_equals_conditioned_enumeration_over_all_sets(small):
    random, random_absent = np.random.default_rng(5), np.random.default_rng(6)
    tagger = Tagger(small.model, small.vocabulary, DecodingConfig(beam_size=len(small.paths)))
    search = tf.function(small.model.decode)
    num_near, likeliest = 0, []
    for _ in range(MODELS_OF_AN_ORDER):
        weights = draw_weights(small, random)
        assign(small.model, weights)
        for table, rows in zip(tagger.answers.tables, small.model.decoder.tabulate(), strict=True):
            table.assign(rows)
        given = draw_given(small, random)
        absent = draw_absent(given, random_absent)
        log_probs = enumerate_paths(small, weights)
        assert np.exp(log_probs[:, small.leaves_order]).sum() < 1e-9
        probs, sets, marginals = condition(small, log_probs, given, absent)
        likeliest.append(sets.max(axis=1))

        answer = tagger.tag_given(tf.constant(PHOTOGRAPHS), as_names(small, given), as_names(small, absent))
        num_near += check_answer(
            small, {name: value.numpy() for name, value in answer.items()}, probs, marginals
        )
        # The answer tells of the best path's labels alone; the search behind it, of all sets and labels.
        found = search(
            small.features,
            given=tf.constant(given),
            absent=tf.constant(absent),
            beam_size=len(small.paths),
        )
        assert_near(share_sets(small, found), sets)
        assert_near(found.marginals, marginals)
    assert num_near < MODELS_OF_AN_ORDER / 10
    assert 0.2 < np.median(likeliest) < 0.9, "one set holds next to all or nothing: the models say too little"


def check_answer(small, answer, probs, marginals):
    """Holds an answer against the most probable path; returns how many images have two of them, nearly."""
    assert answer["valid"].all() and (answer["error"] == b"").all()
    np.testing.assert_allclose(answer["path_probability"], probs.max(axis=1), rtol=1e-4)
    num_near = 0
    for row, (best, second) in enumerate(np.argsort(-probs, axis=1)[:, :2]):
        if probs[row, best] < probs[row, second] * (1 + NEAR):
            num_near += 1
            continue
        path = small.paths[best]
        padding = small.max_length - len(path)
        names = [small.vocabulary.names[label].encode() for label in path]
        assert answer["labels"][row].tolist() == names + [b""] * padding
        assert answer["num_labels"][row] == len(path)
        assert_near(answer["probabilities"][row], [*marginals[row, list(path)], *[0] * padding])
    return num_near


def share_sets(small, found):
    """Each set's share of the candidates, <float64>[images, 2**labels]."""
    labels = tf.one_hot(found.tokens, small.model.num_labels, dtype=tf.int32)  # END is no label: zeros
    return sum_sets(tf.reduce_sum(labels, axis=2).numpy(), tf.nn.softmax(found.log_probs).numpy())


def assert_near(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
