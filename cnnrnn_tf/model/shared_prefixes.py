"""A decoder and projected images enter; a step function for the search leaves, no prefix computed twice.

The recurrent state depends on the labels emitted and never on the image (section 3.1 of the paper, equations
2 to 5). After START there is one state for all images, after one label at most as many as labels. So the
states of a search are kept by prefix, each once for all paths of all images that begin with it:

- the prefixes of a step are the distinct pairs of a prefix of the step before and a label;
- the product of the state and the recurrent kernel, nearly all of a step's cost, is taken once for each
  prefix that is extended, however many labels follow it; where the decoder's tables are kept, those of the
  first three steps are looked up;
- what a label adds is looked up.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from cnnrnn_tf.model.decoder import DecoderTables


class PrefixStates(NamedTuple):
    """The states of the distinct prefixes of one step, and whose they are."""

    prefix: tf.Tensor
    """<int64>[rows]: the place of each path's prefix in `states`."""
    states: list[tf.Tensor]
    """The cell's state, <float>[prefixes, ...] each."""
    last: tf.Tensor
    """<int64>[prefixes]: their last tokens; END before START."""
    length: tf.Tensor
    """<int32>[1]: their tokens, START counted."""


class SharedPrefixStep:
    """The step function of `beam_search` for a LabelDecoder."""

    def __init__(self, decoder, projected, tables: DecoderTables | None = None):
        """Prepares the steps of one search.

        Args:
            decoder: a LabelDecoder, built.
            projected: <float>[batch, embedding], `decoder.project` of the images' features.
            tables: `decoder.tabulate()`, where it was kept; without it, only what labels add is looked up.
        """
        self._decoder = decoder
        self._projected = projected
        self._inputs = tf.convert_to_tensor(decoder.tabulate_inputs() if tables is None else tables.inputs)
        self._products = None if tables is None else tf.convert_to_tensor(tables.products)
        self._num_tokens = decoder.num_labels + 2
        self.initial_state = PrefixStates(
            prefix=tf.zeros([1], tf.int64),
            states=decoder.initial_state(),
            last=tf.constant([decoder.num_labels], tf.int64),
            length=tf.zeros([1], tf.int32),
        )

    def __call__(self, tokens, parents, state, image_rows):
        """Returns scores <float32>[rows, labels + 1] and the new PrefixStates; see `beam_search`."""
        decoder = self._decoder
        pairs = tf.gather(state.prefix, parents) * self._num_tokens + tf.cast(tokens, tf.int64)
        pairs, prefix = tf.unique(pairs, out_idx=tf.int64)
        before, last = pairs // self._num_tokens, pairs % self._num_tokens
        extended, place = tf.unique(before)  # a prefix may be followed by several labels
        output, states = decoder.cell.combine(
            tf.gather(self._inputs, last),
            tf.gather(self._find_products(state, extended), place),
            [tf.gather(leaf, before) for leaf in state.states],
        )
        output = decoder.output_projection(output)
        scores = decoder.score(tf.gather(output, prefix), tf.gather(self._projected, image_rows))
        return scores, PrefixStates(prefix, states, last, state.length + 1)

    def _find_products(self, state, extended):
        """`cell.project_state` of the prefixes that are extended."""

        def multiply():
            return self._decoder.cell.project_state([tf.gather(leaf, extended) for leaf in state.states])

        if self._products is None:
            return multiply()
        return tf.cond(
            state.length[0] <= 2,
            lambda: tf.gather(self._products, tf.gather(state.last, extended)),
            multiply,
        )
