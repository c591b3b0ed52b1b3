"""Cells against NumPy transcriptions of their published equations."""

import numpy as np
import pytest

from cnnrnn_tf.model.cells import CELLS, make_cell
from tfrecords.errors import UserError

BATCH, INPUTS, UNITS, STEPS = 3, 5, 4, 6


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def run_cell(cell, sequence):
    """The outputs of `cell` over sequence [batch, steps, inputs], from its own initial state."""
    state = cell.get_initial_state(batch_size=len(sequence))
    outputs = []
    for step in range(sequence.shape[1]):
        output, state = cell(sequence[:, step], state)
        outputs.append(np.asarray(output))
    return np.stack(outputs, axis=1)


def make_sequence(seed=0):
    return np.random.default_rng(seed).normal(size=[BATCH, STEPS, INPUTS]).astype("float32")


def test_the_paper_cell_computes_equations_2_and_3_of_the_paper():
    cell, sequence = make_cell("paper", UNITS), make_sequence()
    found = run_cell(cell, sequence)
    w_x, w_i, w_f, w_o = np.split(np.asarray(cell.kernel), 4, axis=1)
    u_x, u_i, u_f, u_o = np.split(np.asarray(cell.recurrent_kernel), 4, axis=1)
    r = np.zeros([BATCH, UNITS])
    for step in range(STEPS):
        w = sequence[:, step]
        x = relu(r @ u_x + w @ w_x)
        i = relu(r @ u_i + w @ w_i)
        f = relu(r @ u_f + w @ w_f)
        g = relu(r @ u_o + w @ w_o)
        r = f * r + i * x
        np.testing.assert_allclose(found[:, step], r * g, rtol=1e-5, atol=1e-6)
    assert found.any()


def test_the_gru_resets_the_state_before_the_product_as_the_slides_print_it():
    cell, sequence = make_cell("gru", UNITS), make_sequence(1)
    found = run_cell(cell, sequence)
    # Keras orders z, r, h; its z keeps the old state, where the slides' z takes the new one.
    (w_z, w_r, w_h), (u_z, u_r, u_h) = (
        np.split(np.asarray(kernel), 3, axis=1) for kernel in (cell.kernel, cell.recurrent_kernel)
    )
    h = np.zeros([BATCH, UNITS])
    for step in range(STEPS):
        x = sequence[:, step]
        z = 1 - sigmoid(x @ w_z + h @ u_z)
        r = sigmoid(x @ w_r + h @ u_r)
        c = np.tanh(x @ w_h + (r * h) @ u_h)
        h = (1 - z) * h + z * c
        np.testing.assert_allclose(found[:, step], h, rtol=1e-4, atol=1e-6)


def test_the_lstm_is_the_textbooks():
    cell, sequence = make_cell("lstm", UNITS), make_sequence(2)
    found = run_cell(cell, sequence)
    h, c = np.zeros([BATCH, UNITS]), np.zeros([BATCH, UNITS])
    for step in range(STEPS):
        gates = (
            sequence[:, step] @ np.asarray(cell.kernel)
            + h @ np.asarray(cell.recurrent_kernel)
            + np.asarray(cell.bias)
        )
        i, f, candidate, o = np.split(gates, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(found[:, step], h, rtol=1e-4, atol=1e-6)


def test_without_recurrence_the_output_is_a_linear_embedding_of_the_last_label_alone():
    cell, sequence = make_cell("none", UNITS), make_sequence(3)
    found = run_cell(cell, sequence)
    np.testing.assert_allclose(found, sequence @ np.asarray(cell.kernel), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_keeps_the_shapes_of_its_state_for_any_number_of_rows(name):
    cell = make_cell(name, UNITS)
    state = cell.get_initial_state(batch_size=7)
    states = state if isinstance(state, (list, tuple)) else [state]
    output, after = cell(np.ones([7, INPUTS], "float32"), states)
    assert tuple(output.shape) == (7, UNITS)
    assert [tuple(leaf.shape) for leaf in after] == [tuple(leaf.shape) for leaf in states]


def test_an_unknown_cell_is_named_beside_the_nearest_right_one():
    with pytest.raises(
        UserError, match=r"unknown cell 'lsmt' \(did you mean 'lstm'\?\): expected lstm or paper"
    ):
        make_cell("lsmt", 4)


@pytest.mark.parametrize("name", CELLS)
def test_a_step_in_parts_is_the_step(name):
    cell = make_cell(name, UNITS)
    inputs = np.random.default_rng(3).normal(size=[5, 4]).astype("float32")
    cell.build((None, 4))
    for variable in cell.trainable_variables:  # the biases too
        variable.assign(np.random.default_rng(4).normal(size=variable.shape))
    states = [0.1 + leaf for leaf in as_list(cell.get_initial_state(batch_size=5))]
    expected, expected_states = cell(inputs, states)
    parts = cell.project_inputs(inputs), cell.project_state(states)
    output, new_states = cell.combine(*parts, states)
    np.testing.assert_allclose(output, expected, 1e-5, 1e-6)
    for found, state in zip(new_states, as_list(expected_states), strict=True):
        np.testing.assert_allclose(found, state, 1e-5, 1e-6)


def as_list(states):
    return list(states) if isinstance(states, (list, tuple)) else [states]
