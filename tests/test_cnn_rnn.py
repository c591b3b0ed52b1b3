"""The decoder and the whole model: one-step decoding, round trips, tied weights, features for images."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn_tf.model.beam_search import beam_search
from cnnrnn_tf.model.cells import CELLS
from cnnrnn_tf.model.cnn_rnn import CNNRNN
from cnnrnn_tf.model.decoder import LabelDecoder
from tfrecords.errors import UserError

NUM_LABELS, START, END = 5, 6, 5
TOKENS = np.array([[START, 0, 3, 4], [START, 2, END, END], [START, END, END, END]])


def make_model(**options):
    keras.utils.set_random_seed(1)
    options = {"backbone": "compact", "image_size": 32, "cell_units": 8, "embedding_dim": 4} | options
    model = CNNRNN(NUM_LABELS, 3, vocabulary_fingerprint="f", **options)
    model.build()
    return model


def make_features(model, rows=3, seed=0):
    shape = [rows, model.backbone.feature_size]
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("cell", CELLS)
def test_one_step_decoding_gives_the_scores_of_teacher_forcing(cell):
    model = make_model(cell=cell, cell_units=16)
    features = make_features(model)
    expected = model({"features": features, "tokens": TOKENS}, training=False).numpy()
    state = [tf.repeat(leaf, 3, axis=0) for leaf in model.decoder.initial_state()]
    projected = model.decoder.project(features)
    for step in range(TOKENS.shape[1]):
        scores, state = model.decoder.step(TOKENS[:, step], state, projected)
        np.testing.assert_allclose(scores, expected[:, step], atol=1e-5)
    assert np.std(expected) > 0.01


def test_the_scores_are_those_of_the_papers_equations_4_and_5():
    model = make_model(cell="none")
    decoder, features = model.decoder, make_features(model)
    embeddings = np.concatenate([np.asarray(decoder.label_embeddings), np.asarray(decoder.start_embedding)])
    o = embeddings[TOKENS] @ np.asarray(decoder.cell.kernel)
    image = features @ np.asarray(decoder.feature_projection.kernel)
    x = np.maximum(o @ np.asarray(decoder.output_projection.kernel) + image[:, None], 0)
    expected = x @ embeddings[: NUM_LABELS + 1].T
    found = model({"features": features, "tokens": TOKENS})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_tied_embeddings_are_one_variable_that_reads_and_scores():
    decoder = make_model().decoder
    shapes = [tuple(variable.shape) for variable in decoder.trainable_variables]
    assert shapes.count((NUM_LABELS + 1, 4)) == 1
    assert decoder.score_weights is decoder.label_embeddings


def test_untied_embeddings_are_two():
    decoder = make_model(tie_embeddings=False).decoder
    shapes = [tuple(variable.shape) for variable in decoder.trainable_variables]
    assert shapes.count((NUM_LABELS + 1, 4)) == 2


def test_start_has_a_row_of_its_own_that_is_never_scored():
    model = make_model()
    found = model({"features": make_features(model), "tokens": TOKENS})
    assert found.shape[-1] == NUM_LABELS + 1
    assert tuple(model.decoder.start_embedding.shape) == (1, 4)


def test_the_state_never_sees_the_image():
    model = make_model()
    state = [tf.repeat(leaf, 2, axis=0) for leaf in model.decoder.initial_state()]
    projected = model.decoder.project(make_features(model, rows=2))
    _, state = model.decoder.step(np.array([2, 2]), state, projected)
    for leaf in state:
        np.testing.assert_array_equal(leaf[0], leaf[1])


def test_dropout_acts_on_what_the_projections_read_and_never_in_inference():
    model = make_model(dropout=0.9)
    inputs = {"features": make_features(model), "tokens": TOKENS}
    np.testing.assert_array_equal(model(inputs, training=False), model(inputs, training=False))
    assert np.abs(model(inputs, training=True) - model(inputs, training=True)).max() > 0


@pytest.mark.parametrize("silenced", ["feature_projection", "output_projection"])
def test_each_projection_has_a_dropout_of_its_own(silenced):
    """With the other projection silenced, the scores still change from one draw to the next."""
    model = make_model(dropout=0.5)
    kernel = getattr(model.decoder, silenced).kernel
    kernel.assign(0 * kernel)
    inputs = {"features": make_features(model), "tokens": TOKENS}
    assert np.abs(model(inputs, training=True) - model(inputs, training=True)).max() > 0


@pytest.mark.parametrize(
    "options",
    [{"length_penalty": 2.0}, {"row_max_length": [1, 2, 0]}, {"renormalise": True}, {"max_length": 1}],
)
def test_the_options_of_decoding_reach_the_search(options):
    model = make_model()
    for variable in (model.decoder.label_embeddings, model.decoder.output_projection.kernel):
        variable.assign(4.0 * variable)
    features = make_features(model)
    projected = model.decoder.project(features)

    def step(tokens, parents, state, rows):  # path by path, nothing shared
        state = [tf.gather(leaf, parents) for leaf in state]
        return model.decoder.step(tokens, state, tf.gather(projected, rows))

    state = model.decoder.initial_state()
    settings = {"beam_size": 4, "max_length": 3} | options
    expected = beam_search(step, state, 3, NUM_LABELS, **settings)
    plain = beam_search(step, state, 3, NUM_LABELS, beam_size=4, max_length=3)
    found = model.decode(features, **settings)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, rtol=1e-5)
    assert (
        found.tokens.shape != plain.tokens.shape or (found.log_probs.numpy() != plain.log_probs.numpy()).any()
    )


def test_the_random_order_and_its_seed_survive_a_round_trip(tmp_path):
    model = make_model(label_order="random", label_order_seed=3)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again._order_ranks, model._order_ranks)
    assert (make_model(label_order="random", label_order_seed=0)._order_ranks != model._order_ranks).any()


def test_a_model_of_mixed_precision_keeps_it_when_it_is_loaded(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_model(backbone="compact")
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, again):
        parts = (
            each.decoder,
            each.decoder.cell,
            each.decoder.feature_projection,
            each.backbone.network.layers[1],
        )
        assert [part.compute_dtype for part in parts] == ["bfloat16"] * 4
    images = np.random.default_rng(0).integers(0, 256, [2, 32, 32, 3], dtype=np.uint8)
    np.testing.assert_array_equal(again.extract_features(images), model.extract_features(images))
    inputs = {"features": make_features(model), "tokens": TOKENS}
    np.testing.assert_array_equal(again(inputs), model(inputs))
    assert again(inputs).dtype == tf.float32


def test_a_feature_that_hardly_varied_in_training_cannot_outweigh_all_others():
    model = make_model(standardise_features=True)
    features = np.zeros([900, model.backbone.feature_size], np.float32)
    features[:, 1:] = np.random.default_rng(0).normal(size=features[:, 1:].shape)
    features[0, 0] = 0.002
    model.decoder.adapt_features(features)
    usual = model.decoder.project(features[1:2]).numpy()
    odd = features[1:2].copy()
    odd[0, 0] = 1.0  # 15,000 deviations
    kernel = model.decoder.feature_projection.kernel.numpy()
    np.testing.assert_allclose(model.decoder.project(odd) - usual, 10.0 * kernel[:1], atol=0.01)


def test_images_and_their_cached_features_give_the_same_scores():
    model = make_model()
    images = np.random.default_rng(0).integers(0, 256, [3, 32, 32, 3], dtype=np.uint8)
    features = model.extract_features(images)
    from_images = model({"image": images, "tokens": TOKENS}, training=False)
    np.testing.assert_allclose(
        from_images, model({"features": features, "tokens": TOKENS}, training=False), atol=1e-5
    )


@pytest.mark.parametrize(
    "options",
    [
        {"cell": cell, "tie_embeddings": tie, "standardise_features": standardise}
        for (cell, tie), standardise in zip(
            itertools.product(CELLS, (True, False)), itertools.cycle((False, True, True)), strict=False
        )
    ],
)
def test_a_saved_model_comes_back_with_its_scores_and_its_configuration(options, tmp_path):
    model = make_model(label_order="rare", **options)
    features = make_features(model)
    if model.decoder.standardise_features:
        model.decoder.adapt_features(features)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_config() == model.get_config()
    inputs = {"features": features, "tokens": TOKENS}
    np.testing.assert_array_equal(again(inputs), model(inputs))
    assert again.vocabulary_fingerprint == "f"


def test_standardised_features_have_mean_0_and_deviation_1_and_a_constant_one_is_only_shifted():
    decoder = LabelDecoder(3, feature_size=3, cell_units=4, embedding_dim=3, standardise_features=True)
    decoder.build()
    features = np.random.default_rng(0).normal([5, -2, 0], [3, 0.1, 0], [1000, 3]).astype("float32")
    decoder.adapt_features(features)
    decoder.feature_projection.kernel.assign(np.eye(3))
    found = decoder.project(features).numpy()
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=0), [1, 1, 0], atol=1e-4)


@pytest.mark.parametrize("order", ["frequent", "rare"])
def test_given_labels_are_on_every_path_and_keep_the_models_order(order):
    model = make_model(label_order=order)
    given = np.zeros([3, NUM_LABELS], bool)
    given[:, [1, 3]] = True
    found = model.decode(make_features(model), beam_size=4, given=given)
    for row in range(3):
        path = found.tokens[row, 0, : found.lengths[row, 0]].numpy().tolist()
        assert {1, 3} <= set(path)
        assert (path.index(1) < path.index(3)) == (order == "frequent")


def test_a_prefix_is_refused_by_a_model_with_a_fixed_order_and_taken_by_one_without():
    prefix = {"prefix": np.array([[3], [3], [3]]), "prefix_lengths": np.array([1, 1, 1])}
    model = make_model()
    with pytest.raises(UserError, match=r"learned paths in the order 'frequent'.*pass the labels as `given`"):
        model.decode(make_features(model), **prefix)
    free = make_model(label_order="shuffled")
    assert np.all(free.decode(make_features(free), **prefix).tokens[:, 0, 0] == 3)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_path_length": 6}, "max_path_length 6: expected 1 to the number of labels, 5"),
        ({"max_path_length": 0}, "max_path_length 0"),
        ({"dropout": 1.0}, "dropout 1.0: expected 0 or more and less than 1"),
        ({"cell_units": 0}, "cell_units 0: expected 1 or more"),
        ({"trainable_from": "conv1"}, "the compact backbone is always trained as a whole"),
    ],
)
def test_sizes_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        CNNRNN(**{"num_labels": 5, "max_path_length": 3, "backbone": "compact", "image_size": 32} | options)


def test_a_vocabulary_of_one_label_can_be_tagged():
    model = CNNRNN(1, 1, backbone="compact", image_size=32, cell_units=4, embedding_dim=2)
    model.build()
    found = model.decode(make_features(model), beam_size=5, renormalise=True)
    probabilities = np.exp(found.log_probs[:, :2])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)  # {} and {0} are all there is
