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


@pytest.mark.parametrize("cell", CELLS)
def test_tables_may_be_kept_and_are_read(cell):
    decoder = make_decoder(cell)
    projected = project_images(decoder)
    tables = decoder.tabulate()

    def decode(tables):
        shared = SharedPrefixStep(decoder, projected, tables)
        return search(decoder, projected, shared, shared.initial_state)

    expected, found = decode(None), decode(tables)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, 1e-5, 1e-5)
    for name in tables._fields if cell != "none" else ("inputs",):  # that one forgets what came before
        wrong = tables._replace(**{name: 3.0 + getattr(tables, name)})
        assert np.abs(decode(wrong).log_probs - expected.log_probs).max() > 0.01, name


def test_tables_spare_the_products_of_the_first_three_steps():
    decoder = make_decoder()
    projected = project_images(decoder)
    tables = decoder.tabulate()
    products = []
    project_state = decoder.cell.project_state
    decoder.cell.project_state = lambda states: products.append(len(states[0])) or project_state(states)
    num_products = []
    for kept in (None, tables):
        products.clear()
        shared = SharedPrefixStep(decoder, projected, kept)
        search(decoder, projected, shared, shared.initial_state)
        num_products.append(len(products))
    assert num_products[0] - num_products[1] == 3 and num_products[1] > 0
