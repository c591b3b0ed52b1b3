"""A step function and its first state enter; the most probable paths of labels of every image leave.

The search is the paper's (section 3.3, figure 5), for a whole batch at once. An image has N live paths.
Each is extended by its min(N, labels + 1) best tokens, END among them, and the best N of all extensions
survive. A survivor that emitted END moves to the image's candidate set C and frees its place; C keeps the
N best. The search of an image ends once C is full and every live path is less probable than all of C, or
when no path is left. N = 1 is greedy decoding.

Nothing here knows the model: no variables, no Python loop over images, paths or steps, and only kernels
that every TensorFlow runtime has, so that the search runs eagerly, in a `tf.function` and in a SavedModel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfrecords.errors import UserError

Step = Callable[[tf.Tensor, Any, tf.Tensor], tuple[tf.Tensor, Any]]

_NEVER = float("-inf")  # the log-probability of what is pruned, and of a place without a path


class BeamResult(NamedTuple):
    """The candidate set C of each image, best first, and what it says about each label.

    A place of C that stayed empty has log_probs -inf, lengths 0, END in all tokens and no weight anywhere.
    """

    tokens: tf.Tensor
    """<int32>[batch, beam, max_length]: the labels in emitted order, padded with END."""
    lengths: tf.Tensor
    """<int32>[batch, beam]: labels on the path, END not counted."""
    log_probs: tf.Tensor
    """<float32>[batch, beam]: natural-log probability of the path and its END."""
    token_log_probs: tf.Tensor
    """<float32>[batch, beam, max_length]: natural-log probability of each label on the path, 0 in the
    padding. What they lack to `log_probs` is END's."""
    marginals: tf.Tensor
    """<float32>[batch, labels]: the share of C's probability on candidates that hold the label, 0 to 1."""
    step_probs: tf.Tensor
    """<float32>[batch, labels]: the label's highest softmax probability, before any pruning, at any step of
    any live path, 0 to 1."""
    num_steps: tf.Tensor
    """<int32>[batch]: steps until the image's own search ended, however long the others took."""


def beam_search(
    step: Step,
    initial_state: Any,
    batch_size: int | tf.Tensor,
    num_labels: int,
    *,
    beam_size: int,
    max_length: int,
    min_length: int | tf.Tensor = 0,
    row_max_length: tf.Tensor | None = None,
    given: tf.Tensor | None = None,
    given_in_order: tf.Tensor | None = None,
    prefix: tf.Tensor | None = None,
    prefix_lengths: tf.Tensor | None = None,
    renormalise: bool = False,
    length_penalty: float = 0.0,
) -> BeamResult:
    """Finds the most probable paths of labels, as section 3.3 of the paper does.

    A path's probability is the product of the softmaxes as the step function gives them. What a path may
    not emit (a label it holds already, END before the minimum, anything but END at the maximum, whatever
    contradicts `given` or `prefix`) is pruned after the softmax, and the rest is not scaled up: the published
    formula stays true. Equal probabilities go to the better path first, then to the lower token; in C to the
    candidate that was there first.

    One image's values never raise, because one request must not fail the others. Where they contradict each
    other, the maximum outranks the prefix, and the prefix the given labels. So every image gets an answer,
    unless its scores are NaN, or its prefix repeats a label or holds what is none: such an image has no
    candidate (see `BeamResult`), and its neighbours do not notice.

    >>> table = tf.math.log([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8], [0.6, 0.1, 0.3], [0.7, 0.2, 0.1]])
    >>> def step(tokens, state, image_rows):  # the scores depend on the token before alone
    ...     return tf.gather(table, tokens), state
    >>> found = beam_search(step, (), 1, 2, beam_size=2, max_length=2)
    >>> found.tokens.numpy().tolist(), [f"{p:.2f}" for p in tf.exp(found.log_probs[0])]
    ([[[0, 2], [1, 2]]], ['0.21', '0.16'])

    Args:
      step: takes tokens <int32>[rows], the state with leaves [rows, ...] and image_rows <int32>[rows], the
        image that each row belongs to; returns scores (logits) of any float type [rows, labels + 1], END
        last, and the new state. There are batch * beam rows. The first tokens are START (labels + 1), later
        ones labels; a row without a path is fed END, and what comes back for it is not used.
      initial_state: the state before START, of ONE path: nested tensors [1, ...], `()` for none. All images
        share it, because the recurrent state depends on the labels emitted and never on the image.
      batch_size: the number of images.
      num_labels: L. Labels are the tokens 0 to L - 1, END is L, START is L + 1.
      beam_size: N.
      max_length: the most labels that any path may have, 1 to L; the width of the result.
      min_length: END is pruned before as many labels; an int or <int32>[batch].
      row_max_length: <int32>[batch], a maximum for each image; what exceeds `max_length` is read as that.
      given: <bool>[batch, labels], labels known to hold: END is pruned until the path has them all, and
        everything but them once they need all places that are left. Constraints, not a prefix: the path's
        probability is the model's. Of more labels than places, those that fit are emitted.
      given_in_order: <int32>[labels], each label's rank in the fixed order in which the model emits labels;
        None for a model without one. While a given label is missing, every label ranked after the next
        missing one is pruned: a model with an order never saw it come earlier.
      prefix: <int32>[batch, places], distinct labels that every path of the image begins with. For models
        without a fixed order. The path's probability includes them.
      prefix_lengths: <int32>[batch], how many tokens of each prefix count; goes with `prefix`.
      renormalise: scale the probabilities of what is not pruned up to a sum of 1, at every step.
      length_penalty: alpha >= 0; candidates are ranked by log_prob / (labels + 1) ** alpha, END counted.
        0 is the paper's ranking.

    Returns:
      The candidates of each image and the quantities derived from them.

    Raises:
      UserError: an option is out of its range, or two of them contradict each other.
    """
    _check_sizes(num_labels, beam_size, max_length, min_length, length_penalty)
    _check_known_labels(num_labels, max_length, given, given_in_order, prefix, prefix_lengths)
    rules = _Rules(
        min_length=tf.cast(min_length, tf.int32),
        max_length=_clip(max_length if row_max_length is None else row_max_length, max_length),
        given=None if given is None else tf.cast(given, tf.bool),
        rank=None if given_in_order is None else tf.cast(given_in_order, tf.int32),
        prefix=None if prefix is None else _pad_prefix(prefix, max_length),
        prefix_lengths=None if prefix_lengths is None else tf.cast(prefix_lengths, tf.int32),
    )
    image_rows = tf.repeat(tf.range(batch_size), beam_size)
    first_row = tf.range(batch_size)[:, tf.newaxis] * beam_size

    def advance(time: tf.Tensor, search: _Search) -> tuple[tf.Tensor, _Search]:
        state = tf.nest.pack_sequence_as(initial_state, search.state)
        logits, state = step(tf.reshape(search.inputs, [-1]), state, image_rows)
        softmax = _log_softmax(tf.reshape(logits, [batch_size, beam_size, num_labels + 1]))
        allowed = _allow(rules, time, search.emitted)
        survivors, parents, last = _extend(search.live, _prune(softmax, allowed, renormalise), time)
        is_path = survivors.log_probs > _NEVER
        has_ended = is_path & (last == num_labels)
        candidates = _admit(search.candidates, _keep(survivors, has_ended), length_penalty)
        live = _stop_finished(
            _keep(survivors, is_path & ~has_ended), candidates, rules.max_length, length_penalty
        )
        inherited = tf.reshape(first_row + parents, [-1])
        return time + 1, _Search(
            live=live,
            candidates=candidates,
            emitted=tf.gather(search.emitted, parents, batch_dims=1) | _one_hot(last, num_labels),
            inputs=tf.where(live.log_probs > _NEVER, last, num_labels),
            state=[tf.gather(leaf, inherited) for leaf in tf.nest.flatten(state)],
            label_log_probs=tf.maximum(search.label_log_probs, _best_of_live(softmax, search.live)),
            num_steps=search.num_steps + tf.cast(_is_searching(search), tf.int32),
        )

    start = _start(initial_state, batch_size, num_labels, beam_size, max_length)
    any_batch = tf.nest.map_structure(lambda field: tf.TensorShape([None, *field.shape[1:]]), start)
    _, search = tf.while_loop(
        cond=lambda time, search: tf.reduce_any(_is_searching(search)),
        body=advance,
        loop_vars=(tf.constant(0), start),
        shape_invariants=(tf.TensorShape([]), any_batch),
        maximum_iterations=max_length + 1,
    )
    return BeamResult(
        *search.candidates,
        marginals=_marginals(search.candidates, num_labels),
        step_probs=tf.exp(search.label_log_probs),
        num_steps=search.num_steps,
    )


def rank_labels(result: BeamResult) -> tf.Tensor:
    """Scores all labels for rankings (MAP@10, AP): by marginal, those on no candidate by step probability.

    A label on a candidate scores its marginal, 0 to 1. Any other scores -1 / p, p its highest step
    probability: -1 or less, so below all of the former, and in the order of p down to the smallest float
    (p - 1 would tie every p under 6e-8). The scale is one for all images, as AP over images needs it.

    Args:
      result: what `beam_search` returned.

    Returns:
      <float32>[batch, labels], finite, higher is more probable.
    """
    each = tf.ones_like(result.log_probs)
    num_candidates = _sum_over_candidates(each, result.tokens, result.marginals.shape[-1])
    smallest = np.finfo(np.float32).tiny
    return tf.where(num_candidates > 0, result.marginals, -1.0 / tf.maximum(result.step_probs, smallest))


class _Rules(NamedTuple):
    """What paths may not do, as tensors; None where there is no such rule."""

    min_length: tf.Tensor  # <int32>[batch] or []
    max_length: tf.Tensor  # <int32>[batch] or []
    given: tf.Tensor | None  # <bool>[batch, labels]
    rank: tf.Tensor | None  # <int32>[labels]
    prefix: tf.Tensor | None  # <int32>[batch, max_length + 1]
    prefix_lengths: tf.Tensor | None  # <int32>[batch]


class _Paths(NamedTuple):
    """Places for paths; one whose log-probability is -inf is free, and its other fields mean nothing."""

    tokens: tf.Tensor  # <int32>[batch, places, max_length], padded with END
    lengths: tf.Tensor  # <int32>[batch, places]
    log_probs: tf.Tensor  # <float32>[batch, places]
    token_log_probs: tf.Tensor  # <float32>[batch, places, max_length], padded with 0


class _Search(NamedTuple):
    """What one step hands to the next."""

    live: _Paths
    candidates: _Paths  # best first
    emitted: tf.Tensor  # <bool>[batch, beam, labels]: the labels on each live path
    inputs: tf.Tensor  # <int32>[batch, beam]: the token that the next step reads
    state: list[tf.Tensor]  # leaves [batch * beam, ...]
    label_log_probs: tf.Tensor  # <float32>[batch, labels]
    num_steps: tf.Tensor  # <int32>[batch]


def _start(initial_state, batch_size, num_labels: int, beam_size: int, max_length: int) -> _Search:
    """One live path of no labels and probability 1 for each image; all other places are free."""
    nothing = _Paths(
        tokens=tf.fill([batch_size, beam_size, max_length], num_labels),
        lengths=tf.zeros([batch_size, beam_size], tf.int32),
        log_probs=tf.fill([batch_size, beam_size], _NEVER),
        token_log_probs=tf.zeros([batch_size, beam_size, max_length]),
    )
    is_first = tf.range(beam_size) == 0
    return _Search(
        live=nothing._replace(log_probs=tf.where(is_first, 0.0, nothing.log_probs)),
        candidates=nothing,
        emitted=tf.zeros([batch_size, beam_size, num_labels], tf.bool),
        inputs=tf.fill([batch_size, beam_size], num_labels + 1),
        state=[tf.repeat(leaf, batch_size * beam_size, axis=0) for leaf in tf.nest.flatten(initial_state)],
        label_log_probs=tf.fill([batch_size, num_labels], _NEVER),
        num_steps=tf.zeros([batch_size], tf.int32),
    )


def _allow(rules: _Rules, time: tf.Tensor, emitted: tf.Tensor) -> tf.Tensor:
    """Returns <bool>[batch, beam, labels + 1]: what may follow each live path, which has `time` labels."""
    new = ~emitted
    labels = new  # [batch, beam, labels]
    end = tf.reshape(time >= rules.min_length, [-1, 1])  # [batch or 1, beam or 1]
    places = tf.reshape(rules.max_length - time, [-1, 1])  # [batch or 1, 1]
    if rules.given is not None:
        missing = rules.given[:, tf.newaxis] & new
        num_missing = tf.math.count_nonzero(missing, axis=-1, dtype=tf.int32)
        end &= num_missing == 0
        if rules.rank is not None:
            last_rank = tf.shape(emitted)[-1]
            next_rank = tf.reduce_min(tf.where(missing, rules.rank, last_rank), axis=-1, keepdims=True)
            labels &= rules.rank <= next_rank
        is_forced = num_missing >= places
        labels &= missing | ~is_forced[..., tf.newaxis]
    if rules.prefix is not None:
        in_prefix = (time < rules.prefix_lengths)[:, tf.newaxis]  # [batch, 1]
        next_label = _one_hot(rules.prefix[:, time, tf.newaxis], emitted.shape[-1])
        labels = tf.where(in_prefix[..., tf.newaxis], new & next_label, labels)
        end &= ~in_prefix
    is_full = places <= 0
    labels &= ~is_full[..., tf.newaxis]
    end = tf.broadcast_to(end | is_full, tf.shape(emitted)[:2])
    return tf.concat([labels, end[..., tf.newaxis]], axis=-1)


def _prune(softmax: tf.Tensor, allowed: tf.Tensor, renormalise: bool) -> tf.Tensor:
    pruned = tf.where(allowed, softmax, _NEVER)
    if not renormalise:
        return pruned
    total = tf.reduce_logsumexp(pruned, axis=-1, keepdims=True)
    return pruned - tf.maximum(total, tf.float32.min)  # -inf - -inf would be NaN, which top_k misplaces


def _extend(live: _Paths, token_log_probs: tf.Tensor, time: tf.Tensor) -> tuple[_Paths, tf.Tensor, tf.Tensor]:
    """Returns the best N extensions, the place of each one's parent and its last token, both [batch, beam].

    The best N of all extensions are the best N among each path's own N best: one selection does both.
    """
    _, beam_size, num_tokens = token_log_probs.shape
    flat_shape = [-1, beam_size * num_tokens]
    totals = tf.reshape(live.log_probs[..., tf.newaxis] + token_log_probs, flat_shape)
    log_probs, chosen = tf.math.top_k(totals, k=beam_size)
    parents, last = chosen // num_tokens, chosen % num_tokens
    added = tf.gather(tf.reshape(token_log_probs, flat_shape), chosen, batch_dims=1)
    is_label = last < num_tokens - 1
    paths = _take(live, parents)
    is_here = tf.range(live.tokens.shape[-1]) == time
    survivors = _Paths(
        tokens=tf.where(is_here, last[..., tf.newaxis], paths.tokens),
        lengths=paths.lengths + tf.cast(is_label, tf.int32),
        log_probs=log_probs,
        token_log_probs=tf.where(
            is_here & is_label[..., tf.newaxis], added[..., tf.newaxis], paths.token_log_probs
        ),
    )
    return survivors, parents, last


def _admit(candidates: _Paths, ended: _Paths, length_penalty: float) -> _Paths:
    """Returns the best N of the candidates and the newly ended paths.

    Free places of `candidates` precede those of `ended`, so that only they can remain: they are still blank.
    """
    both = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=1), candidates, ended)
    scores = _score(both.log_probs, both.lengths, length_penalty)
    return _take(both, tf.math.top_k(scores, k=candidates.log_probs.shape[1]).indices)


def _stop_finished(live: _Paths, candidates: _Paths, max_length: tf.Tensor, length_penalty: float) -> _Paths:
    """Frees the live places of images whose C is full of paths that no live path can overtake.

    A log-probability can only fall, so no live path can come to score more than its present log-probability
    would at the maximum length. Without a live path nothing of an image changes any more: it is frozen.
    """
    bound = _score(tf.reduce_max(live.log_probs, axis=1), max_length, length_penalty)
    worst = _score(candidates.log_probs, candidates.lengths, length_penalty)[:, -1]  # -inf unless C is full
    return _keep(live, (bound >= worst)[:, tf.newaxis])


def _score(log_probs: tf.Tensor, num_labels: tf.Tensor, length_penalty: float) -> tf.Tensor:
    if not length_penalty:
        return log_probs
    return log_probs / tf.cast(num_labels + 1, tf.float32) ** length_penalty


def _log_softmax(logits: tf.Tensor) -> tf.Tensor:
    """Returns <float32> natural-log probabilities, whatever float the model computes in; NaN becomes -inf."""
    softmax = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    return tf.where(tf.math.is_nan(softmax), _NEVER, softmax)


def _best_of_live(softmax: tf.Tensor, live: _Paths) -> tf.Tensor:
    """Returns <float32>[batch, labels]: each label's highest log-probability at this step."""
    is_live = (live.log_probs > _NEVER)[..., tf.newaxis]
    return tf.reduce_max(tf.where(is_live, softmax[..., :-1], _NEVER), axis=1)


def _is_searching(search: _Search) -> tf.Tensor:
    return tf.reduce_any(search.live.log_probs > _NEVER, axis=1)  # [batch]


def _keep(paths: _Paths, condition: tf.Tensor) -> _Paths:
    return paths._replace(log_probs=tf.where(condition, paths.log_probs, _NEVER))


def _take(paths: _Paths, places: tf.Tensor) -> _Paths:
    return tf.nest.map_structure(lambda field: tf.gather(field, places, batch_dims=1), paths)


def _one_hot(tokens: tf.Tensor, depth: int) -> tf.Tensor:
    return tf.one_hot(tokens, depth, on_value=True, off_value=False)


def _marginals(candidates: _Paths, num_labels: int) -> tf.Tensor:
    shares = tf.nn.softmax(candidates.log_probs)  # NaN without candidates, but then all tokens are END
    return tf.minimum(_sum_over_candidates(shares, candidates.tokens, num_labels), 1.0)


def _sum_over_candidates(weights: tf.Tensor, tokens: tf.Tensor, num_labels: int) -> tf.Tensor:
    """Sums the weights <float32>[batch, beam] of the candidates that hold a label, for each label."""
    num_tokens = num_labels + 1
    batch_size = tf.shape(tokens)[0]
    places = tokens + tf.range(batch_size)[:, tf.newaxis, tf.newaxis] * num_tokens
    weights = tf.broadcast_to(weights[..., tf.newaxis], tf.shape(tokens))
    sums = tf.math.unsorted_segment_sum(weights, places, batch_size * num_tokens)
    return tf.reshape(sums, [-1, num_tokens])[:, :num_labels]  # END's column goes


def _clip(row_max_length: int | tf.Tensor, max_length: int) -> tf.Tensor:
    return tf.clip_by_value(tf.cast(row_max_length, tf.int32), 0, max_length)


def _pad_prefix(prefix: tf.Tensor, max_length: int) -> tf.Tensor:
    """Returns <int32>[batch, max_length + 1], so that every step has a column; -1 is no label."""
    prefix = tf.cast(prefix, tf.int32)[:, :max_length]
    padding = [[0, 0], [0, max_length + 1 - tf.shape(prefix)[1]]]
    return tf.pad(prefix, padding, constant_values=-1)


def _check_sizes(num_labels: int, beam_size: int, max_length: int, min_length, length_penalty: float) -> None:
    _require(num_labels >= 1, f"num_labels of 1 or more, got {num_labels}")
    _require(beam_size >= 1, f"a beam_size of 1 (greedy) or more, got {beam_size}")
    _require(
        1 <= max_length <= num_labels,
        f"a max_length from 1 to {num_labels}, the number of labels, got {max_length}: no label comes twice",
    )
    for known in np.ravel(tf.get_static_value(tf.convert_to_tensor(min_length))):
        _require(
            known is None or 0 <= known <= max_length,
            f"a min_length from 0 to {max_length}, the max_length, got {known}: lower one or raise the other",
        )
    _require(
        0 <= length_penalty < float("inf"),
        f"a length_penalty of 0 (the paper's ranking) or more, got {length_penalty}",
    )


def _check_known_labels(num_labels: int, max_length: int, given, rank, prefix, prefix_lengths) -> None:
    _require(
        given is None or given.shape[-1] in (None, num_labels),
        f"`given` as <bool>[batch, {num_labels}], one column a label, got {getattr(given, 'shape', None)}",
    )
    rank = None if rank is None else tf.get_static_value(tf.convert_to_tensor(rank))
    _require(
        rank is None or np.array_equal(np.sort(rank), np.arange(num_labels)),
        f"`given_in_order` to hold each rank from 0 to {num_labels - 1} once, got {rank}",
    )
    _require(
        (prefix is None) == (prefix_lengths is None),
        "`prefix` and `prefix_lengths` together, got one of them: pass both or none",
    )
    _require(
        prefix is None or (prefix.shape[-1] or 0) <= max_length,
        f"a prefix of at most {max_length} columns, the max_length, got {getattr(prefix, 'shape', None)}: "
        "shorten it or raise max_length",
    )


def _require(condition: bool, need: str) -> None:
    if not condition:
        raise UserError(f"beam search needs {need}")
