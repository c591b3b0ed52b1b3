"""Serialized tf.Example protos enter, as Classify requests carry them; the image files in them leave.

`make_example` is the way back.
"""

import tensorflow as tf

IMAGE_FEATURE = "image/encoded"
"""The feature that holds the file, as in the records."""

_FEATURES = {IMAGE_FEATURE: tf.io.FixedLenFeature([], tf.string)}


def make_example(image):
    """Returns a serialized tf.Example that holds an image file as this project's records do."""
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    return tf.train.Example(features=tf.train.Features(feature={IMAGE_FEATURE: feature})).SerializeToString()


def read_image_bytes(serialized):
    """Returns the image files of tf.Examples <string>[batch], as <string>[batch].

    "" where the bytes are no tf.Example, or one without `image/encoded`, with several values there or with
    one of another type. Runs in a SavedModel as TensorFlow Serving loads it, and no row raises.
    """
    with tf.device("/CPU:0"):
        return _read_image_bytes(tf.convert_to_tensor(serialized))


def _read_image_bytes(serialized):
    batch = tf.size(serialized, out_type=tf.int64)

    def parse(row, example):
        return row, tf.io.parse_single_example(example, _FEATURES)[IMAGE_FEATURE]

    # An operation that fails ends a graph, but in a data set only its element. The element at the end is
    # there because a data set without elements gives no batch.
    parsed = (
        tf.data.Dataset.from_tensor_slices(serialized)
        .enumerate()
        .map(parse)
        .ignore_errors()
        .concatenate(tf.data.Dataset.from_tensors((batch, "")))
        .batch(batch + 1)
    )
    rows, files = parsed.get_single_element()
    places = tf.scatter_nd(rows[:, tf.newaxis], tf.range(tf.size(rows)), [batch + 1])
    is_parsed = tf.scatter_nd(rows[:, tf.newaxis], tf.ones_like(rows, tf.int32), [batch + 1]) > 0
    return tf.where(is_parsed, tf.gather(files, places), "")[:-1]
