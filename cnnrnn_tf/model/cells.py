"""The name of a cell enters; a Keras RNN cell leaves that turns the last label's embedding into o(t).

Every cell obeys Keras's contract for cells, `call(inputs, states) -> (output, new states)`, so that
`keras.layers.RNN` can run it over whole paths (teacher forcing). It also has the step in three parts, which
together are the same step, so that a search computes each once for all that share it:

    project_inputs(inputs)      what the label adds: once for each label of the vocabulary
    project_state(states)       what the labels before it add: once for each path that is extended
    combine(inputs, state, states)  the rest, from what the two returned: for each path and new label
"""

from __future__ import annotations

import keras
from keras import ops

from tfrecords.errors import UserError, nearest


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class LSTMCell(keras.layers.LSTMCell):
    """Keras's LSTM cell, the textbook's; its state is [h, c]."""

    def project_inputs(self, inputs):
        """<float>[rows, inputs] -> <float>[rows, 4 * units], the bias added."""
        return _multiply(inputs, self.kernel) + ops.cast(self.bias, inputs.dtype)

    def project_state(self, states):
        """[h, c] <float>[rows, units] each -> <float>[rows, 4 * units]."""
        return _multiply(states[0], self.recurrent_kernel)

    def combine(self, inputs, state, states):
        """Returns h <float>[rows, units] and [h, c]."""
        gates = inputs + state
        # Slices are copied side by side, by all threads; a split by one.
        slices = (gates[:, i * self.units : (i + 1) * self.units] for i in range(4))
        input_gate, forget_gate, candidate, output_gate = slices
        kept = self.recurrent_activation(forget_gate) * states[1]
        carry = kept + self.recurrent_activation(input_gate) * self.activation(candidate)
        output = self.recurrent_activation(output_gate) * self.activation(carry)
        return output, [output, carry]


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class GRUCell(keras.layers.GRUCell):
    """The paper's slides' GRU; its reset gate acts before the product, and its z is Keras's, 1 - the slides'.

    Args:
        units: the size of its one state.
    """

    def __init__(self, units: int, reset_after: bool = False, **kwargs):
        super().__init__(units, reset_after=reset_after, **kwargs)
        if reset_after:
            raise UserError("reset_after=True: the slides' reset gate acts before the product")

    def project_inputs(self, inputs):
        """<float>[rows, inputs] -> <float>[rows, 3 * units], the bias added."""
        return _multiply(inputs, self.kernel) + ops.cast(self.bias, inputs.dtype)

    def project_state(self, states):
        """[h] <float>[rows, units] -> <float>[rows, 2 * units], of z and r."""
        return _multiply(states[0], self.recurrent_kernel[:, : 2 * self.units])

    def combine(self, inputs, state, states):
        """Returns h <float>[rows, units] and [h]. The candidate's product reads r, so it is taken here."""
        of_gates, of_candidate = ops.split(inputs, [2 * self.units], axis=-1)
        update_gate, reset_gate = ops.split(self.recurrent_activation(of_gates + state), 2, axis=-1)
        reset = _multiply(reset_gate * states[0], self.recurrent_kernel[:, 2 * self.units :])
        candidate = self.activation(of_candidate + reset)
        output = update_gate * states[0] + (1 - update_gate) * candidate
        return output, [output]


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class PaperCell(keras.layers.Layer):
    """The recurrent cell of Wang et al. (CVPR 2016), equations 2 and 3; it differs from the textbook's LSTM.

    With d(.) a ReLU, w the embedding of the last label and r the state:

        x = d(U_r r(t-1) + U_w w)        i = d(U_ir r(t-1) + U_iw w)
        f = d(U_fr r(t-1) + U_fw w)      g = d(U_or r(t-1) + U_ow w)
        r(t) = f * r(t-1) + i * x        o(t) = r(t) * g

    There are no biases, and no gate is bounded: gradients should be clipped.

    Args:
        units: the size of r and o.
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units
        self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], 4 * self.units), initializer="glorot_uniform", name="kernel"
        )
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, 4 * self.units), initializer="orthogonal", name="recurrent_kernel"
        )

    def call(self, inputs, states, training=None):
        """Takes w <float>[batch, inputs] and [r <float>[batch, units]]; returns o and [the next r].

        The columns of both kernels are x, i, f and g, in that order.
        """
        return self.combine(self.project_inputs(inputs), self.project_state(states), states)

    def project_inputs(self, inputs):
        """<float>[rows, inputs] -> <float>[rows, 4 * units]."""
        return _multiply(inputs, self.kernel)

    def project_state(self, states):
        """[r] <float>[rows, units] -> <float>[rows, 4 * units]."""
        return _multiply(states[0], self.recurrent_kernel)

    def combine(self, inputs, state, states):
        """Returns o <float>[rows, units] and [r]."""
        candidate, input_gate, forget_gate, output_gate = ops.split(ops.relu(inputs + state), 4, axis=-1)
        following = forget_gate * states[0] + input_gate * candidate
        return following * output_gate, [following]

    def get_initial_state(self, batch_size=None):
        """The state before START: zeros <float>[batch, units]."""
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype)]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class LinearCell(keras.layers.Layer):
    """The paper's No-RNN control: the recurrent layer replaced by a linear embedding of the last label.

    o(t) = W w_k(t): what came before the last label is forgotten. The state is there for the contract alone.

    Args:
        units: the size of o.
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = 1
        self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="kernel"
        )

    def call(self, inputs, states, training=None):
        """Takes w <float>[batch, inputs] and any state; returns o <float>[batch, units] and that state."""
        return self.combine(self.project_inputs(inputs), self.project_state(states), states)

    def project_inputs(self, inputs):
        """<float>[rows, inputs] -> <float>[rows, units]."""
        return _multiply(inputs, self.kernel)

    def project_state(self, states):
        """Nothing: the state itself, <float>[rows, 1]."""
        return states[0]

    def combine(self, inputs, state, states):
        """Returns o <float>[rows, units] and the state as it was."""
        return inputs, list(states)

    def get_initial_state(self, batch_size=None):
        """Zeros <float>[batch, 1], which nothing reads."""
        return [ops.zeros((batch_size, 1), dtype=self.compute_dtype)]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


CELLS = {"lstm": LSTMCell, "paper": PaperCell, "gru": GRUCell, "none": LinearCell}
"""`lstm` is the textbook's and the default; `paper` the paper's equations; `gru` that of the paper's slides;
`none` is the No-RNN."""


def make_cell(name: str, units: int, dtype=None) -> keras.layers.Layer:
    """The cell called `name` with `units` units, of a Keras dtype or policy; the global one by default.

    Raises:
        UserError: there is no such cell.
    """
    if name not in CELLS:
        raise UserError(f"unknown cell {name!r}{nearest(name, CELLS)}: expected {' or '.join(CELLS)}")
    return CELLS[name](units, name=f"{name}_cell", dtype=dtype)


def _multiply(rows, kernel):
    return ops.matmul(rows, ops.cast(kernel, rows.dtype))
