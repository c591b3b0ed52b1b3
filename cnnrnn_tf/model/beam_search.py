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

from cnnrnn_tf.model.path_rules import Allowed, allow, make_rules, require, take_rows

Step = Callable[[tf.Tensor, tf.Tensor, Any, tf.Tensor], tuple[tf.Tensor, Any]]

_MANY_LABELS = 500  # from here on, a softmax whose probabilities nobody reads is not written out
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
    step_probs: tf.Tensor | None
    """<float32>[batch, labels]: the label's highest softmax probability, before any pruning, at any step of
    any live path, 0 to 1. None where it was not asked for."""
    num_steps: tf.Tensor
    """<int32>[batch]: steps until the image's own search ended, however long the others took."""


def beam_search(
    step: Step,
    initial_state: Any,
    batch_size: int | tf.Tensor,
    num_labels: int,
    *,
    beam_size: int | tf.Tensor,
    max_length: int,
    row_beam_size: tf.Tensor | None = None,
    min_length: int | tf.Tensor = 0,
    row_max_length: tf.Tensor | None = None,
    given: tf.Tensor | None = None,
    absent: tf.Tensor | None = None,
    given_in_order: tf.Tensor | None = None,
    prefix: tf.Tensor | None = None,
    prefix_lengths: tf.Tensor | None = None,
    renormalise: bool = False,
    length_penalty: float = 0.0,
    with_step_probs: bool = True,
) -> BeamResult:
    """Finds the most probable paths of labels, as section 3.3 of the paper does.

    A path's probability is the product of the softmaxes as the step function gives them. What a path may
    not emit (a label it holds already, END before the minimum, anything but END at the maximum, whatever
    contradicts `given`, `absent` or `prefix`) is pruned after the softmax, and the rest is not scaled up: the
    published formula stays true. Equal probabilities go to the better path first, then to the lower token; in
    C to the candidate that was there first.

    One image's values never raise, because one request must not fail the others. Where they contradict each
    other, the maximum outranks the prefix, the prefix the absent labels, and these the given ones and the
    minimum. So every image gets an answer, unless its scores are NaN, or its prefix repeats a label or holds
    what is none: such an image has no candidate (see `BeamResult`), and its neighbours do not notice.

    >>> table = tf.math.log([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8], [0.6, 0.1, 0.3], [0.7, 0.2, 0.1]])
    >>> def step(tokens, parents, state, image_rows):  # the scores depend on the token before alone
    ...     return tf.gather(table, tokens), state
    >>> found = beam_search(step, (), 1, 2, beam_size=2, max_length=2)
    >>> found.tokens.numpy().tolist(), [f"{p:.2f}" for p in tf.exp(found.log_probs[0])]
    ([[[0, 2], [1, 2]]], ['0.21', '0.16'])

    Args:
      step: one step of all live paths, a row each, those of an image together. It takes tokens <int32>[rows],
        the last of each path: START (labels + 1) at first, then labels; parents <int32>[rows], the row that
        each path had in the call before, without that token; the state that call returned; and image_rows
        <int32>[rows], the image of each path. It returns scores (logits) of any float type
        [rows, labels + 1], END last, and the new state: nested tensors of the structure and the inner
        dimensions of the one before, the first dimension free.
      initial_state: the state before START, `()` for none. All first paths have row 0 of it as their parent,
        because the recurrent state depends on the labels emitted and never on the image.
      batch_size: the number of images.
      num_labels: L. Labels are the tokens 0 to L - 1, END is L, START is L + 1.
      beam_size: N; <int32>[] where it is not known before.
      max_length: the most labels that any path may have, 1 to L; the width of the result.
      row_beam_size: <int32>[batch], an N for each image, up to `beam_size`: its result is that of a search
        with this N, and places beyond it stay empty.
      min_length: END is pruned before as many labels; an int or <int32>[batch].
      row_max_length: <int32>[batch], a maximum for each image; what exceeds `max_length` is read as that.
      given: <bool>[batch, labels], labels known to hold: END is pruned until the path has them all, and
        everything but them once they need all places that are left. Constraints, not a prefix: the path's
        probability is the model's. Of more labels than places, those that fit are emitted.
      absent: <bool>[batch, labels], labels known not to hold: no path has them, and the path's probability is
        the model's. Where they leave fewer labels than the minimum, the path ends earlier.
      given_in_order: <int32>[labels], each label's rank in the fixed order in which the model emits labels;
        None for a model without one. While a given label is missing, every label ranked after the next
        missing one is pruned: a model with an order never saw it come earlier.
      prefix: <int32>[batch, places], distinct labels that every path of the image begins with. For models
        without a fixed order. The path's probability includes them.
      prefix_lengths: <int32>[batch], how many tokens of each prefix count; goes with `prefix`.
      renormalise: scale the probabilities of what is not pruned up to a sum of 1, at every step.
      length_penalty: alpha >= 0; candidates are ranked by log_prob / (labels + 1) ** alpha, END counted.
        0 is the paper's ranking.
      with_step_probs: False spares the work of `BeamResult.step_probs`, which then is None; only rankings of
        all labels need it.

    Returns:
      The candidates of each image and the quantities derived from them.

    Raises:
      UserError: an option is out of its range, or two of them contradict each other.
    """
    _check_sizes(num_labels, beam_size, max_length, min_length, length_penalty)
    rules = make_rules(
        num_labels,
        max_length,
        min_length,
        row_max_length,
        given,
        absent,
        given_in_order,
        prefix,
        prefix_lengths,
    )
    is_place = None  # <bool>[batch, beam]: the places that an image may use; None if all
    if row_beam_size is not None:
        is_place = tf.range(beam_size) < tf.cast(row_beam_size, tf.int32)[:, tf.newaxis]

    def advance(time: tf.Tensor, search: _Search) -> tuple[tf.Tensor, _Search]:
        rows = _find_live_rows(search.live)
        tokens, parents = tf.gather(_flatten(search.last), rows), tf.gather(_flatten(search.parents), rows)
        image_rows = rows // beam_size
        state = tf.nest.pack_sequence_as(initial_state, search.state)
        logits, state = step(tokens, parents, state, image_rows)
        scores, total = tf.cast(logits, tf.float32), None
        if with_step_probs or renormalise or num_labels < _MANY_LABELS:
            scores = tf.nn.log_softmax(scores)
        else:
            total = _log_sum_exp(scores)
        new = tf.gather(search.new, parents) & tf.one_hot(
            tokens, num_labels + 1, on_value=False, off_value=True
        )
        allowed = allow(take_rows(rules, image_rows), time, new)
        extensions = _find_extensions(scores, total, allowed, beam_size, renormalise)
        survivors, last, parents = _extend(search.live, extensions)
        survivors = _keep(survivors, is_place)
        has_ended = last == num_labels
        ended, live = _keep(survivors, has_ended), _keep(survivors, ~has_ended)
        candidates = _admit(search.candidates, ended, is_place, num_labels, length_penalty)
        live = _stop_finished(live, candidates, is_place, rules.max_length, num_labels, length_penalty)
        highest = [
            tf.math.unsorted_segment_max(scores, image_rows, batch_size) for _ in search.label_log_probs
        ]
        return time + 1, _Search(
            live=live,
            candidates=candidates,
            last=last,
            parents=parents,
            new=new,
            state=tf.nest.flatten(state),
            label_log_probs=[*map(tf.maximum, search.label_log_probs, highest)],
            num_steps=search.num_steps + tf.cast(_are_live(search.live), tf.int32),
        )

    start = _start(initial_state, batch_size, num_labels, beam_size, with_step_probs)
    any_size = tf.nest.map_structure(lambda field: tf.TensorShape([None, *field.shape[1:]]), start)
    any_labels = tf.TensorShape([None, start.last.shape[1], None, 2])  # a step longer with each step
    any_size = any_size._replace(
        live=any_size.live._replace(labels=any_labels),
        candidates=any_size.candidates._replace(labels=any_labels),
    )
    _, search = tf.while_loop(
        cond=lambda time, search: tf.reduce_any(search.live.log_probs > _NEVER),
        body=advance,
        loop_vars=(tf.constant(0), start),
        shape_invariants=(tf.TensorShape([]), any_size),
    )
    tokens, token_log_probs = _read_candidates(search.candidates, num_labels, max_length)
    log_probs = search.candidates.log_probs
    return BeamResult(
        tokens=tokens,
        lengths=tf.math.count_nonzero(tokens < num_labels, axis=2, dtype=tf.int32),
        log_probs=log_probs,
        token_log_probs=token_log_probs,
        marginals=_marginals(tokens, log_probs, num_labels),
        step_probs=_exponentiate(search.label_log_probs[0][:, :-1]) if with_step_probs else None,
        num_steps=search.num_steps,
    )


def rank_labels(result: BeamResult) -> tf.Tensor:
    """Scores all labels for rankings (MAP@10, AP): by marginal, those on no candidate by step probability.

    A label on a candidate scores its marginal, 0 to 1. Any other scores -1 / p, p its highest step
    probability: -1 or less, so below all of the former, and in the order of p down to the smallest float
    (p - 1 would tie every p under 6e-8). The scale is one for all images, as AP over images needs it.

    Args:
      result: what `beam_search` returned, with step probabilities.

    Returns:
      <float32>[batch, labels], finite, higher is more probable.

    Raises:
      UserError: the search left the step probabilities out.
    """
    require(result.step_probs is not None, "with_step_probs=True where all labels are ranked")
    each = tf.ones_like(result.log_probs)
    num_candidates = _sum_over_candidates(each, result.tokens, result.marginals.shape[-1])
    smallest = np.finfo(np.float32).tiny
    return tf.where(num_candidates > 0, result.marginals, -1.0 / tf.maximum(result.step_probs, smallest))


class _Paths(NamedTuple):
    """Places for paths; one whose log-probability is -inf is free, and its other fields mean nothing."""

    log_probs: tf.Tensor  # <float32>[batch, places]
    # The token of each step so far and its log-probability, END's too, padded with END: in one tensor, for
    # they move together.
    labels: tf.Tensor  # <float32>[batch, places, steps, 2]


class _Search(NamedTuple):
    """What one step hands to the next. Its rows are those of `step`: the live paths and no others."""

    live: _Paths
    candidates: _Paths  # best first
    last: tf.Tensor  # <int32>[batch, beam]: the token that the next step reads
    parents: tf.Tensor  # <int32>[batch, beam]: the row of the path that each live path extends
    new: tf.Tensor  # <bool>[rows, labels + 1]: the labels that are not on a row's path; never END
    state: list[tf.Tensor]  # what `step` returned
    label_log_probs: list[tf.Tensor]  # <float32>[batch, labels + 1], or nothing where nobody asks
    num_steps: tf.Tensor  # <int32>[batch]


def _start(initial_state, batch_size, num_labels, beam_size, with_step_probs) -> _Search:
    """One live path of no labels and probability 1 for each image; all other places are free."""
    nothing = _Paths(
        log_probs=tf.fill([batch_size, beam_size], _NEVER),
        labels=tf.zeros([batch_size, beam_size, 0, 2]),
    )
    is_first = tf.range(beam_size) == 0
    return _Search(
        live=nothing._replace(log_probs=tf.where(is_first, 0.0, nothing.log_probs)),
        candidates=nothing,
        last=tf.fill([batch_size, beam_size], num_labels + 1),
        parents=tf.zeros([batch_size, beam_size], tf.int32),
        new=tf.range(num_labels + 1)[tf.newaxis] < num_labels,
        state=[tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(initial_state)],
        label_log_probs=[tf.fill([batch_size, num_labels + 1], _NEVER)] * with_step_probs,
        num_steps=tf.zeros([batch_size], tf.int32),
    )


def _find_live_rows(live: _Paths) -> tf.Tensor:
    """Returns <int32>[rows]: the places of all live paths, counted through the batch."""
    return tf.cast(tf.where(_flatten(live.log_probs) > _NEVER)[:, 0], tf.int32)


class _Extensions(NamedTuple):
    """The best tokens of each live path: its N best labels, best first, and END."""

    log_probs: tf.Tensor  # <float32>[rows, extensions], -inf for what may not follow
    tokens: tf.Tensor  # <int32>[rows, extensions]


def _log_sum_exp(logits: tf.Tensor) -> tf.Tensor:
    """Returns <float32>[rows, 1], what a logit exceeds its log-probability by.

    oneDNN has a softmax and no logarithm of it, and the highest probability of a row is never small.
    """
    highest = tf.reduce_max(logits, axis=1, keepdims=True)
    return highest - tf.math.log(tf.reduce_max(tf.nn.softmax(logits), axis=1, keepdims=True))


def _find_extensions(
    scores: tf.Tensor, total: tf.Tensor | None, allowed: Allowed, beam_size, renormalise: bool
) -> _Extensions:
    """Finds them by scores <float32>[rows, labels + 1], log-probabilities once `total` is deducted."""
    pruned = tf.where(allowed.labels, scores, _NEVER)
    num_labels = scores.shape[-1] - 1
    num_best = min(beam_size, num_labels) if isinstance(beam_size, int) else tf.minimum(beam_size, num_labels)
    best, tokens = tf.math.top_k(pruned, k=num_best)
    end = scores[:, -1:]
    log_probs = tf.concat([best, end], axis=1)
    if total is not None:
        log_probs -= total
    if renormalise:
        labels = tf.where(allowed.any_label, pruned, _NEVER)
        every = tf.concat([labels, tf.where(allowed.end, end, _NEVER)], axis=1)
        log_probs -= tf.reduce_logsumexp(every, axis=1, keepdims=True)
    is_allowed = tf.where(tf.range(num_best + 1) < num_best, allowed.any_label, allowed.end)
    # NaN is greater than nothing; one among the scores makes all of a row's NaN.
    log_probs = tf.where(is_allowed & (log_probs > _NEVER), log_probs, _NEVER)
    return _Extensions(log_probs, tf.pad(tokens, [[0, 0], [0, 1]], constant_values=num_labels))


def _extend(live: _Paths, extensions: _Extensions) -> tuple[_Paths, tf.Tensor, tf.Tensor]:
    """Returns the best N extended paths, and of each its last token and its parent's row."""
    num_places, num_extensions = _count_places(live), tf.shape(extensions.tokens)[1]
    is_live = live.log_probs > _NEVER
    # The row of each place; one that is free shows another place's row, which does not count.
    place_rows = tf.cumsum(tf.cast(_flatten(is_live), tf.int32)) - 1
    place_rows = tf.reshape(tf.maximum(place_rows, 0), tf.shape(is_live))
    totals = live.log_probs[..., tf.newaxis] + tf.gather(extensions.log_probs, place_rows)
    log_probs, chosen = tf.math.top_k(tf.reshape(totals, [-1, num_places * num_extensions]), k=num_places)
    places = chosen // num_extensions
    parents = _take(place_rows, places)
    chosen = parents * num_extensions + chosen % num_extensions
    last = tf.gather(_flatten(extensions.tokens), chosen)
    added = tf.gather(_flatten(extensions.log_probs), chosen)
    label = tf.stack([tf.cast(last, tf.float32), added], axis=-1)[:, :, tf.newaxis]
    survivors = _Paths(log_probs, tf.concat([_take(live.labels, places), label], axis=2))
    return survivors, last, parents


def _admit(
    candidates: _Paths, ended: _Paths, is_place: tf.Tensor | None, num_labels: int, length_penalty: float
) -> _Paths:
    """Returns the best N of the candidates and the newly ended paths, N of each image's own."""
    candidates = candidates._replace(labels=_pad_labels(candidates.labels, 1, num_labels))  # as of `ended`
    both = _Paths(*(tf.concat(parts, axis=1) for parts in zip(candidates, ended, strict=True)))
    scores = _score(both, num_labels, length_penalty)
    places = tf.math.top_k(scores, k=_count_places(candidates)).indices
    return _keep(_Paths(*(_take(field, places) for field in both)), is_place)


def _stop_finished(
    live: _Paths,
    candidates: _Paths,
    is_place: tf.Tensor | None,
    max_length: tf.Tensor,
    num_labels: int,
    length_penalty: float,
) -> _Paths:
    """Frees the live places of images whose C is full of paths that no live path can overtake.

    A log-probability can only fall, so no live path can come to score more than its present log-probability
    would at the maximum length. Without a live path nothing of an image changes any more: it is frozen.
    """
    bound = _penalise(tf.reduce_max(live.log_probs, axis=1, keepdims=True), max_length, length_penalty)
    scores = _score(candidates, num_labels, length_penalty)
    if is_place is not None:
        scores = tf.where(is_place, scores, float("inf"))
    worst = tf.reduce_min(scores, axis=1, keepdims=True)  # -inf unless C is full
    return _keep(live, bound >= worst)


def _score(paths: _Paths, num_labels: int, length_penalty: float) -> tf.Tensor:
    if not length_penalty:
        return paths.log_probs
    lengths = tf.math.count_nonzero(paths.labels[..., 0] < num_labels, axis=2, dtype=tf.int32)
    return _penalise(paths.log_probs, lengths, length_penalty)


def _penalise(log_probs: tf.Tensor, lengths: tf.Tensor, length_penalty: float) -> tf.Tensor:
    if not length_penalty:
        return log_probs
    return log_probs / tf.cast(lengths + 1, tf.float32) ** length_penalty


def _are_live(live: _Paths) -> tf.Tensor:
    """Returns <bool>[batch]: whose search goes on."""
    return tf.reduce_any(live.log_probs > _NEVER, axis=1)


def _keep(paths: _Paths, condition: tf.Tensor | None) -> _Paths:
    if condition is None:
        return paths
    return paths._replace(log_probs=tf.where(condition, paths.log_probs, _NEVER))


def _take(field: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    return tf.gather(field, places, batch_dims=1)


def _count_places(paths: _Paths) -> int | tf.Tensor:
    return paths.log_probs.shape[1] or tf.shape(paths.log_probs)[1]


def _flatten(field: tf.Tensor) -> tf.Tensor:
    return tf.reshape(field, [-1])


def _pad_labels(labels: tf.Tensor, num_steps: int | tf.Tensor, num_labels: int) -> tf.Tensor:
    return tf.pad(labels, [[0, 0], [0, 0], [0, num_steps], [0, 0]], constant_values=float(num_labels))


def _read_candidates(candidates: _Paths, num_labels: int, max_length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns tokens and token_log_probs as `BeamResult` has them; what a free place holds means nothing."""
    labels = candidates.labels[:, :, :max_length]
    labels = _pad_labels(labels, max_length - tf.shape(labels)[2], num_labels)
    tokens, token_log_probs = tf.unstack(labels, num=2, axis=-1)
    tokens.set_shape([None, None, max_length])
    is_path = candidates.log_probs[..., tf.newaxis] > _NEVER
    tokens = tf.where(is_path, tf.cast(tokens, tf.int32), num_labels)
    return tokens, tf.where(tokens < num_labels, token_log_probs, 0.0)


def _exponentiate(log_probs: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_nan(log_probs), 0.0, tf.exp(log_probs))


def _marginals(tokens: tf.Tensor, log_probs: tf.Tensor, num_labels: int) -> tf.Tensor:
    shares = tf.nn.softmax(log_probs)  # NaN without candidates, but then all tokens are END
    return tf.minimum(_sum_over_candidates(shares, tokens, num_labels), 1.0)


def _sum_over_candidates(weights: tf.Tensor, tokens: tf.Tensor, num_labels: int) -> tf.Tensor:
    """Sums the weights <float32>[batch, beam] of the candidates that hold a label, for each label."""
    num_tokens = num_labels + 1
    batch_size = tf.shape(tokens)[0]
    places = tokens + tf.range(batch_size)[:, tf.newaxis, tf.newaxis] * num_tokens
    weights = tf.broadcast_to(weights[..., tf.newaxis], tf.shape(tokens))
    sums = tf.math.unsorted_segment_sum(weights, places, batch_size * num_tokens)
    return tf.reshape(sums, [-1, num_tokens])[:, :num_labels]  # END's column goes


def _check_sizes(num_labels: int, beam_size: int, max_length: int, min_length, length_penalty: float) -> None:
    require(num_labels >= 1, f"num_labels of 1 or more, got {num_labels}")
    known_beam_size = tf.get_static_value(tf.convert_to_tensor(beam_size))
    require(
        known_beam_size is None or known_beam_size >= 1, f"a beam_size of 1 (greedy) or more, got {beam_size}"
    )
    require(
        1 <= max_length <= num_labels,
        f"a max_length from 1 to {num_labels}, the number of labels, got {max_length}: no label comes twice",
    )
    for known in np.ravel(tf.get_static_value(tf.convert_to_tensor(min_length))):
        require(
            known is None or 0 <= known <= max_length,
            f"a min_length from 0 to {max_length}, the max_length, got {known}: lower one or raise the other",
        )
    require(
        0 <= length_penalty < float("inf"),
        f"a length_penalty of 0 (the paper's ranking) or more, got {length_penalty}",
    )
