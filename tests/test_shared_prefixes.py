"""Decoding that computes equal prefixes once, against decoding path by path."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn_tf.model.beam_search import beam_search
from cnnrnn_tf.model.cells import CELLS
from cnnrnn_tf.model.decoder import LabelDecoder
from cnnrnn_tf.model.shared_prefixes import SharedPrefixStep

LABELS, IMAGES, BEAM, LONGEST = 7, 6, 4, 5


def make_decoder(cell="lstm", dtype=None):
    keras.utils.set_random_seed(2)
    decoder = LabelDecoder(LABELS, 3, cell=cell, cell_units=16, embedding_dim=8, dtype=dtype)
    decoder.build()
    for variable in decoder.trainable_variables:
        variable.assign(2.0 * variable)  # clear favourites
    decoder.label_embeddings.assign(decoder.label_embeddings - np.eye(LABELS + 1, 8)[:, ::-1])
    return decoder


def search(decoder, projected, step, state):
    return beam_search(step, state, len(projected), LABELS, beam_size=BEAM, max_length=LONGEST)


def project_images(decoder, seed=0):
    features = np.random.default_rng(seed).normal(size=[IMAGES, 3], scale=4.0).astype(np.float32)
    return decoder.project(np.concatenate([features, features[:1]]))  # the last image is the first again


@pytest.mark.parametrize("cell", CELLS)
def test_shared_prefixes_find_what_a_search_path_by_path_finds(cell):
    decoder = make_decoder(cell)
    projected = project_images(decoder)

    def step(tokens, parents, state, image_rows):
        state = [tf.gather(leaf, parents) for leaf in state]
        return decoder.step(tokens, state, tf.gather(projected, image_rows))

    expected = search(decoder, projected, step, decoder.initial_state())
    shared = SharedPrefixStep(decoder, projected)
    found = search(decoder, projected, shared, shared.initial_state)
    assert len({tuple(path) for path in expected.tokens[:, 0].numpy().tolist()}) > 1
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    for name in ("log_probs", "token_log_probs", "marginals", "step_probs"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), 1e-4, 1e-5, err_msg=name)


def test_a_prefix_is_computed_once_for_all_its_paths_and_extended_once_for_all_its_labels():
    decoder = make_decoder()
    projected = project_images(decoder)
    shared = SharedPrefixStep(decoder, projected)
    paths, products = [[]], []
    project_state, decoder.cell.project_state = decoder.cell.project_state, None

    def count(states):
        products.append(len(states[0]))
        return project_state(states)

    decoder.cell.project_state = count

    def step(tokens, parents, state, image_rows):
        before = [tuple(paths[parent]) for parent in parents.numpy()]
        paths[:] = [[*path, token] for path, token in zip(before, tokens.numpy().tolist(), strict=True)]
        scores, state = shared(tokens, parents, state, image_rows)
        assert [len(leaf) for leaf in state.states] == [len({tuple(path) for path in paths})] * 2
        assert products[-1] == len(set(before))
        return scores, state

    search(decoder, projected, step, shared.initial_state)
    assert products[0] == products[1] == 1, "START, whatever the number of images"
    assert max(products) < BEAM * (IMAGES + 1), "the last image shares all with the first"
    assert len(products) > 3


def test_a_table_of_the_inputs_may_be_kept():
    decoder = make_decoder()
    projected = project_images(decoder)
    table = decoder.tabulate_inputs()
    assert tuple(table.shape) == (LABELS + 2, 4 * 16)
    results = []
    for shared in (SharedPrefixStep(decoder, projected), SharedPrefixStep(decoder, projected, table)):
        results.append(search(decoder, projected, shared, shared.initial_state))
    np.testing.assert_array_equal(results[0].log_probs, results[1].log_probs)
    wrong = SharedPrefixStep(decoder, projected, tf.zeros_like(table))
    other = search(decoder, projected, wrong, wrong.initial_state)
    assert np.abs(other.log_probs - results[0].log_probs).max() > 0.01, "it is read"
