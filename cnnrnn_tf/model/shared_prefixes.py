"""A decoder and projected images enter; a step function for the search leaves, no prefix computed twice.

The recurrent state depends on the labels emitted and never on the image (section 3.1 of the paper, equations
2 to 5). After START there is one state for all images, after one label at most as many as labels. So the
states of a search are kept by prefix, each once for all paths of all images that begin with it:

- the prefixes of a step are the distinct pairs of a prefix of the step before and a label;
- the product of the state and the recurrent kernel, nearly all of a step's cost, is taken once for each
  prefix that is extended, however many labels follow it;
- what a label adds is looked up in a table, see `LabelDecoder.tabulate_inputs`.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class PrefixStates(NamedTuple):
    """The states of the distinct prefixes of one step, and whose they are."""

    prefix: tf.Tensor
    """<int64>[rows]: the place of each path's prefix in `states`."""
    states: list[tf.Tensor]
    """The cell's state, <float>[prefixes, ...] each."""


class SharedPrefixStep:
    """The step function of `beam_search` for a LabelDecoder."""

    def __init__(self, decoder, projected, input_table=None):
        """Prepares the steps of one search.

        Args:
            decoder: a LabelDecoder, built.
            projected: <float>[batch, embedding], `decoder.project` of the images' features.
            input_table: `decoder.tabulate_inputs()`; computed here if None.
        """
        self._decoder = decoder
        self._projected = projected
        self._input_table = decoder.tabulate_inputs() if input_table is None else input_table
        self._num_tokens = decoder.num_labels + 2
        self.initial_state = PrefixStates(tf.zeros([1], tf.int64), decoder.initial_state())

    def __call__(self, tokens, parents, state, image_rows):
        """Returns scores <float32>[rows, labels + 1] and the new PrefixStates; see `beam_search`."""
        decoder, cell = self._decoder, self._decoder.cell
        pairs = tf.gather(state.prefix, parents) * self._num_tokens + tf.cast(tokens, tf.int64)
        pairs, prefix = tf.unique(pairs, out_idx=tf.int64)
        before, token = pairs // self._num_tokens, pairs % self._num_tokens
        extended, place = tf.unique(before)  # a prefix may be followed by several labels
        products = cell.project_state([tf.gather(leaf, extended) for leaf in state.states])
        output, states = cell.combine(
            tf.gather(self._input_table, token),
            tf.gather(products, place),
            [tf.gather(leaf, before) for leaf in state.states],
        )
        output = decoder.output_projection(output)
        scores = decoder.score(tf.gather(output, prefix), tf.gather(self._projected, image_rows))
        return scores, PrefixStates(prefix, states)
