"""The name of a cell enters; a Keras RNN cell leaves that turns the last label's embedding into o(t).

Every cell obeys Keras's contract for cells, `call(inputs, states) -> (output, new states)`, so
`keras.layers.RNN` can run it over whole paths (teacher forcing) and the beam search one step at a time.
"""

from __future__ import annotations

import keras
from keras import ops

from tfrecords.errors import UserError, nearest


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
        state = states[0]
        gates = ops.relu(ops.matmul(inputs, self.kernel) + ops.matmul(state, self.recurrent_kernel))
        candidate, input_gate, forget_gate, output_gate = ops.split(gates, 4, axis=-1)
        state = forget_gate * state + input_gate * candidate
        return state * output_gate, [state]

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
        return ops.matmul(inputs, self.kernel), states

    def get_initial_state(self, batch_size=None):
        """Zeros <float>[batch, 1], which nothing reads."""
        return [ops.zeros((batch_size, 1), dtype=self.compute_dtype)]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


CELLS = {
    "lstm": keras.layers.LSTMCell,
    "paper": PaperCell,
    "gru": lambda units, **kwargs: keras.layers.GRUCell(units, reset_after=False, **kwargs),
    "none": LinearCell,
}
"""`lstm` is the textbook's and the default; `paper` the paper's equations; `gru` that of the paper's slides,
whose reset gate acts before the product and whose z is the complement of Keras's; `none` is the No-RNN."""


def make_cell(name: str, units: int, dtype=None) -> keras.layers.Layer:
    """The cell called `name` with `units` units, of a Keras dtype or policy; the global one by default.

    Raises:
        UserError: there is no such cell.
    """
    if name not in CELLS:
        raise UserError(f"unknown cell {name!r}{nearest(name, CELLS)}: expected {' or '.join(CELLS)}")
    return CELLS[name](units, name=f"{name}_cell", dtype=dtype)
