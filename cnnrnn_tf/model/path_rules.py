"""Options of the beam search enter; what may follow each path, as masks, leaves.

A path may hold no label twice; END waits for the minimum, and nothing but END follows at the maximum; given
labels, absent ones and prefixes constrain the rest. The search prunes what is not allowed, and knows nothing
else of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrecords.errors import UserError


class Rules(NamedTuple):
    """What paths may not do, as tensors; None where there is no such rule."""

    min_length: tf.Tensor  # <int32>[] or [batch, 1]
    max_length: tf.Tensor  # <int32>[] or [batch, 1]
    given: tf.Tensor | None  # <bool>[batch, labels + 1]
    absent: tf.Tensor | None  # <bool>[batch, labels + 1]
    rank: tf.Tensor | None  # <int32>[labels + 1]
    prefix: tf.Tensor | None  # <int32>[batch, max_length + 1]
    prefix_lengths: tf.Tensor | None  # <int32>[batch, 1]


def make_rules(
    num_labels: int,
    max_length: int,
    min_length,
    row_max_length,
    given,
    absent,
    given_in_order,
    prefix,
    prefix_lengths,
) -> Rules:
    """The options of `beam_search` as tensors of one form.

    Raises:
        UserError: two of them contradict each other, or the vocabulary.
    """
    _check_known_labels(num_labels, max_length, given, absent, given_in_order, prefix, prefix_lengths)
    if given is not None and absent is not None:
        given = tf.cast(given, tf.bool) & ~tf.cast(absent, tf.bool)
    row_max_length = max_length if row_max_length is None else row_max_length
    return Rules(
        min_length=_stand(min_length),
        max_length=tf.clip_by_value(_stand(row_max_length), 0, max_length),
        given=None if given is None else tf.pad(tf.cast(given, tf.bool), [[0, 0], [0, 1]]),
        absent=None if absent is None else tf.pad(tf.cast(absent, tf.bool), [[0, 0], [0, 1]]),
        rank=None if given_in_order is None else tf.pad(tf.cast(given_in_order, tf.int32), [[0, 1]]),
        prefix=None if prefix is None else _pad_prefix(prefix, max_length),
        prefix_lengths=None if prefix_lengths is None else _stand(prefix_lengths),
    )


def take_rows(rules: Rules, image_rows: tf.Tensor) -> Rules:
    """Returns the rules of each row's image; what holds for all images stays as it is."""
    of_images = rules._replace(rank=None)._asdict()
    of_rows = {
        name: tf.gather(field, image_rows)
        for name, field in of_images.items()
        if field is not None and field.shape.rank
    }
    return rules._replace(**of_rows)


class Allowed(NamedTuple):
    """What may follow each live path."""

    labels: tf.Tensor  # <bool>[rows, labels + 1], END's column False
    any_label: tf.Tensor  # <bool>[] or [rows, 1]: False where the path is full, whatever `labels` says
    end: tf.Tensor  # <bool>[] or [rows, 1]


def allow(rules: Rules, time: tf.Tensor, new: tf.Tensor) -> Allowed:
    """Returns what may follow the live paths, which have `time` labels each and lack the labels `new`."""
    places = rules.max_length - time  # [] or [rows, 1], as all that follows
    labels, end = new, time >= rules.min_length
    if rules.absent is not None:
        labels &= ~rules.absent
        end |= ~tf.reduce_any(labels, axis=-1, keepdims=True)  # no label is left for the minimum
    if rules.given is not None:
        missing = rules.given & new
        num_missing = tf.math.count_nonzero(missing, axis=-1, keepdims=True, dtype=tf.int32)
        end &= num_missing == 0
        if rules.rank is not None:
            last_rank = tf.shape(missing)[-1]
            next_rank = tf.reduce_min(tf.where(missing, rules.rank, last_rank), axis=-1, keepdims=True)
            labels &= rules.rank <= next_rank
        labels &= missing | (num_missing < places)
    if rules.prefix is not None:
        in_prefix = time < rules.prefix_lengths
        next_label = tf.one_hot(rules.prefix[:, time], new.shape[-1], on_value=True, off_value=False)
        labels = tf.where(in_prefix, new & next_label, labels)
        end &= ~in_prefix
    return Allowed(labels, any_label=places > 0, end=end | (places <= 0))


def _stand(value) -> tf.Tensor:
    """Returns <int32>[] of one value for all images, <int32>[batch, 1] of one an image."""
    value = tf.cast(value, tf.int32)
    return value[:, tf.newaxis] if value.shape.rank else value


def _pad_prefix(prefix: tf.Tensor, max_length: int) -> tf.Tensor:
    """Returns <int32>[batch, max_length + 1], so that every step has a column; -1 is no label."""
    prefix = tf.cast(prefix, tf.int32)[:, :max_length]
    padding = [[0, 0], [0, max_length + 1 - tf.shape(prefix)[1]]]
    return tf.pad(prefix, padding, constant_values=-1)


def _check_known_labels(
    num_labels: int, max_length: int, given, absent, rank, prefix, prefix_lengths
) -> None:
    for name, known in (("given", given), ("absent", absent)):
        require(
            known is None or known.shape[-1] in (None, num_labels),
            f"`{name}` as <bool>[batch, {num_labels}], one column a label, got "
            f"{getattr(known, 'shape', None)}",
        )
    rank = None if rank is None else tf.get_static_value(tf.convert_to_tensor(rank))
    require(
        rank is None or np.array_equal(np.sort(rank), np.arange(num_labels)),
        f"`given_in_order` to hold each rank from 0 to {num_labels - 1} once, got {rank}",
    )
    require(
        (prefix is None) == (prefix_lengths is None),
        "`prefix` and `prefix_lengths` together, got one of them: pass both or none",
    )
    require(
        prefix is None or (prefix.shape[-1] or 0) <= max_length,
        f"a prefix of at most {max_length} columns, the max_length, got {getattr(prefix, 'shape', None)}: "
        "shorten it or raise max_length",
    )


def require(condition: bool, need: str) -> None:
    """Raises a UserError on what the search needs, unless it has it."""
    if not condition:
        raise UserError(f"beam search needs {need}")
