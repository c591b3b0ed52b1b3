"""Files as <string>[] or <string>[batch] tensors enter; bytes and numbers at given positions in them leave.

Numbers and positions are <int64> throughout, so that no 32-bit number in a file can overflow. Reading past
the end of a file gives zeros; nothing here raises.
"""

import numpy as np
import tensorflow as tf


def file_size(encoded):
    """Returns the number of bytes in each file, <int64>[...]."""
    return tf.cast(tf.strings.length(encoded), tf.int64)


def read_bytes(encoded, start, num_bytes):
    """Returns the `num_bytes` bytes from `start` <int64>[...] on as <int64>[..., num_bytes]."""
    start = tf.minimum(tf.cast(start, tf.int64), file_size(encoded))
    text = tf.strings.substr(encoded, start, tf.fill(tf.shape(start), tf.constant(num_bytes, tf.int64)))
    return tf.cast(tf.io.decode_raw(text, tf.uint8, fixed_length=num_bytes), tf.int64)


def is_text(values, text):
    """Returns whether the bytes in the last axis of `values` are those of `text`, <bool>[...]."""
    return tf.reduce_all(values == np.array(list(text)), axis=-1)


def count_text(encoded, text, limit, followed_by=(b"",)):
    """Returns how often each file holds the bytes `text`, <int64>[...].

    Args:
        encoded: <string>[...].
        text: at least one byte.
        limit: places of `text` that are looked at; a file that has so many counts `limit`, whatever follows.
        followed_by: what may stand behind `text`, all of one length; only such places count.
    """
    pieces = tf.raw_ops.StringSplitV2(input=tf.reshape(encoded, [-1]), sep=text, maxsplit=limit)
    row, place = tf.unstack(pieces.indices, axis=1)
    start = tf.strings.substr(pieces.values, 0, len(followed_by[0]))
    counts = (place > 0) & tf.reduce_any(start[:, None] == list(followed_by), axis=1)
    num_files = tf.size(encoded, out_type=tf.int64)
    totals = tf.math.unsorted_segment_sum(tf.cast(counts, tf.int64), row, num_files)
    is_full = tf.math.unsorted_segment_max(place, row, num_files) >= limit
    return tf.reshape(pick(is_full, limit, totals), tf.shape(encoded))


def little_endian(values):
    """Returns the number that the bytes in the last axis spell, the lowest first, <int64>[...]."""
    return tf.reduce_sum(values * 256 ** np.arange(values.shape[-1]), axis=-1)


def big_endian(values):
    """Returns the number that the bytes in the last axis spell, the highest first, <int64>[...]."""
    return tf.reduce_sum(values * 256 ** np.arange(values.shape[-1])[::-1], axis=-1)


def pick(condition, yes, no):
    """tf.where for <int64> and Python numbers, which it would take for <int32>."""
    return tf.where(condition, tf.cast(yes, tf.int64), tf.cast(no, tf.int64))


def bounded_loop(unfinished, step, state, limit):
    """Returns the tuple `state` after `step` while `unfinished`, at most `limit` times."""
    return tf.while_loop(unfinished, step, state, maximum_iterations=limit, parallel_iterations=1)
