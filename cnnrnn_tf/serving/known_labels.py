"""Reads what a request knows of its images' labels: names as text, into masks for the search.

A request carries the names of a row as one string, joined by newlines, "" for none. So no input has a second
dimension, and requests with any number of names fit together in the server's batches without padding.
"""

from collections.abc import Sequence

import tensorflow as tf

from cnnrnn_tf.serving.tagged_image import SEPARATOR

_MAX_QUOTED_CHARACTERS = 100


def look_up(text, names: Sequence[str], word: str):
    """Finds the labels that each row names.

    Args:
        text: <string>[batch], names joined by newlines; "" and repetitions say nothing.
        names: of all L labels, in the order of their ids.
        word: what the input is called, for the error.

    Returns:
        <bool>[batch, L], the labels that are named, and <string>[batch], what is wrong with the first unknown
        name, or "".
    """
    num_rows, num_labels = tf.size(text), len(names)
    split = tf.strings.split(text, SEPARATOR)
    found, rows = split.values, tf.cast(split.value_rowids(), tf.int32)
    # The labels come first, each once, so a label's place among all distinct names is its id. (A hash
    # table would need an initialiser to be run at loading; comparing each with each, much memory.)
    _, places = tf.unique(tf.concat([names, found], axis=0))
    ids = tf.minimum(places[num_labels:], num_labels)
    counts = tf.scatter_nd(tf.stack([rows, ids], axis=1), tf.ones_like(ids), [num_rows, num_labels + 1])
    is_unknown = (found != "") & (ids == num_labels)
    order = tf.range(tf.size(found))
    first = tf.math.unsorted_segment_min(tf.boolean_mask(order, is_unknown), rows[is_unknown], num_rows)
    has_unknown = first < tf.size(found)  # of a row without one, the largest number there is
    unknown = tf.gather(tf.concat([found, [""]], axis=0), tf.minimum(first, tf.size(found)))
    error = tf.strings.join(
        [
            "unknown label '",
            quote(unknown),
            f"' in {word}: send names of assets/labels.txt, joined by newlines",
        ]
    )
    return counts[:, :num_labels] > 0, tf.where(has_unknown, error, "")


def find_contradictions(is_given, is_absent, names: Sequence[str]):
    """Returns <string>[batch]: the first label that a row has in both masks <bool>[batch, L], or ""."""
    both = is_given & is_absent
    first = tf.gather(tf.constant(names), tf.argmax(tf.cast(both, tf.int32), axis=1))
    error = tf.strings.join(["label '", quote(first), "' is in given and in absent: name it in one of them"])
    return tf.where(tf.reduce_any(both, axis=1), error, "")


def quote(text):
    """Returns text of a request as an answer can carry it: in UTF-8, which REST needs, and not too long."""
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    return tf.strings.substr(text, 0, _MAX_QUOTED_CHARACTERS, unit="UTF8_CHAR")
