"""The path likelihood against NumPy, on batches whose paths have different lengths."""

import keras
import numpy as np
import pytest

from cnnrnn_tf.model.decoder import LabelDecoder
from cnnrnn_tf.model.losses import PathNegativeLogLikelihood, PathNLL, add_weight_decay, path_nll

END = 3
TARGETS = np.array(
    [
        [0, 2, 1, END],  # every label
        [1, END, END, END],
        [END, END, END, END],  # no label: END alone is said
        [2, 0, END, END],
    ]
)
STEPS_THAT_COUNT = [4, 2, 1, 3]


def expected_nll(targets, logits):
    """-log P of each path, step by step."""
    values = []
    for path, scores, steps in zip(targets, logits, STEPS_THAT_COUNT, strict=True):
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        values.append(-sum(np.log(probabilities[step, path[step]]) for step in range(steps)))
    return np.array(values)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=[4, 4, 4]).astype("float32")


def test_the_loss_of_an_image_is_the_sum_over_the_steps_of_its_own_path(logits):
    np.testing.assert_allclose(path_nll(TARGETS, logits), expected_nll(TARGETS, logits), rtol=1e-5)


def test_the_loss_of_a_batch_is_the_mean_over_images_and_not_over_steps(logits):
    found = float(PathNegativeLogLikelihood()(TARGETS, logits))
    assert found == pytest.approx(expected_nll(TARGETS, logits).mean(), rel=1e-5)


def test_what_follows_end_counts_for_nothing(logits):
    changed = logits.copy()
    changed[1, 2:] += 100
    changed[2, 1:] -= 50
    np.testing.assert_allclose(path_nll(TARGETS, changed), path_nll(TARGETS, logits), rtol=1e-6)


def test_the_metric_averages_over_batches_of_different_sizes_by_their_images(logits):
    metric = PathNLL()
    metric.update_state(TARGETS[:3], logits[:3])
    metric.update_state(TARGETS[3:], logits[3:])
    assert float(metric.result()) == pytest.approx(expected_nll(TARGETS, logits).mean(), rel=1e-5)


def test_a_vocabulary_of_one_label_has_a_loss():
    found = path_nll(np.array([[0, 1], [1, 1]]), np.zeros([2, 2, 2], "float32"))
    np.testing.assert_allclose(found, [2 * np.log(2), np.log(2)], rtol=1e-6)


def test_weight_decay_gives_every_matrix_the_gradient_decay_times_weight_and_leaves_biases_alone():
    decoder = LabelDecoder(3, feature_size=5, cell_units=4, embedding_dim=2)
    decoder.build()
    decayed = add_weight_decay(decoder, 0.5)
    matrices = [variable for variable in decoder.trainable_variables if len(variable.shape) > 1]
    assert sorted(decayed) == sorted(variable.path for variable in matrices)
    assert any(variable.path.endswith("bias") for variable in decoder.trainable_variables)
    expected = sum(0.25 * np.square(np.asarray(variable)).sum() for variable in matrices)
    assert float(sum(decoder.losses)) == pytest.approx(expected, rel=1e-5)


def test_no_weight_decay_adds_no_loss():
    decoder = LabelDecoder(3, feature_size=5, cell_units=4, embedding_dim=2)
    decoder.build()
    assert add_weight_decay(decoder, 0) == []
    assert decoder.losses == []


def test_loss_and_metric_survive_a_round_trip_through_their_configuration(logits):
    for made in (PathNegativeLogLikelihood(), PathNLL()):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made))
        assert float(again(TARGETS, logits)) == pytest.approx(float(made(TARGETS, logits)))
