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
