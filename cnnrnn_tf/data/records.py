"""Shards enter; the labels and the pictures of a split leave, always in the order of the records.

A split is asked for by name, the hold-out too (`splits.select_records`). Row i is the same image everywhere.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnrnn_tf.data.decodable import undecodable_ids
from cnnrnn_tf.data.images import NUM_HYPOTHESES, cut_hypotheses, decode_image, fit_to_square
from cnnrnn_tf.data.splits import select_records
from tfrecords.framing import find_records
from tfrecords.manifest import Manifest
from tfrecords.schema import parse

_FILTER_KEYS = ("image/holdout", "image/source_id")
_PICTURE_KEYS = ("image/encoded", "image/orientation", "image/source_id")


@dataclass(frozen=True, eq=False)
class Labels:
    """The truth about the images of a split, in the order of its records.

    Attributes:
        image_ids: one a row.
        labels: <uint8>[images, labels], 1 where a label holds.
        known: <uint8>[images, labels], 0 where nobody knows; `labels` is 0 there.
    """

    image_ids: list[str]
    labels: np.ndarray
    known: np.ndarray


def load_labels(dataset_dir, split):
    """Returns the `Labels` of `split`, a name as `select_records` knows them.

    Raises:
        UserError: the data set is not built, or has no such split.
    """
    num_labels = Manifest.load(dataset_dir).load_vocabulary(dataset_dir).size
    keys = ("image/source_id", "image/class/label", "image/class/ignored")
    image_ids, positive, unknown = [], [], []
    for record in _read_records(dataset_dir, split, keys).prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
        image_ids.append(record["image/source_id"].decode("utf-8", "surrogateescape"))
        positive.append(record["image/class/label"])
        unknown.append(record["image/class/ignored"])
    labels = _mark_rows(positive, num_labels)
    known = 1 - _mark_rows(unknown, num_labels)
    return Labels(image_ids, labels & known, known)


def image_batches(dataset_dir, split, image_size, batch_size, image_fit="crop"):
    """Returns the pictures of `split`, once, in the order of `load_labels`.

    Args:
        image_size: side of the squares, px.
        image_fit: how an image becomes one, "crop" or "stretch": `cnnrnn_tf.data.images.fit_to_square`.

    Returns:
        A `tf.data.Dataset` of {"image": <uint8>[batch, image_size, image_size, 3] upright RGB, "image_id":
        <string>[batch]}; the last batch may be smaller.

    Raises:
        UserError: the data set is not built, or has no such split.
    """
    images = _decode_squares(_read_records(dataset_dir, split, _PICTURE_KEYS), image_size, image_fit)
    return images.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def shard_batches(dataset_dir, shards, image_size, batch_size, image_fit="crop", hypotheses=False):
    """Returns the pictures of whole shards, one shard after the other; no batch has pictures of two.

    The next shard is read and decoded while the last one is in use, as if all were one file.

    Args:
        shards: of the manifest, in any order; each must hold as many records as it says there.
        image_size: side of the squares, px.
        batch_size: images in a batch; the last one of each shard may be smaller.
        image_fit: how an image becomes a square, "crop" or "stretch"; one that does not decode is black.
        hypotheses: give the six squares of `cnnrnn_tf.data.images.cut_hypotheses` in place of one.

    Returns:
        As `image_batches`; with `hypotheses` "image" is <uint8>[batch, 6, image_size, image_size, 3].
    """
    sizes = [
        min(batch_size, shard.num_records - start)
        for shard in shards
        for start in range(0, shard.num_records, batch_size)
    ]
    paths = [str(Path(dataset_dir) / shard.file) for shard in shards]
    left_out = undecodable_ids(dataset_dir, Manifest.load(dataset_dir))
    records = _parse_records(paths, _PICTURE_KEYS)
    images = _decode_squares(records, image_size, image_fit, hypotheses, left_out)
    return images.batch(batch_size).rebatch(sizes).prefetch(tf.data.AUTOTUNE)


def read_files(dataset_dir, split, count):
    """Yields (format, encoded) of the first `count` images of `split`: "jpeg", and the owners' own bytes.

    Raises:
        UserError: the data set is not built, or has no such split.
    """
    records = _read_records(dataset_dir, split, ("image/format", "image/encoded"))
    for record in records.take(count).as_numpy_iterator():
        yield record["image/format"].decode(), record["image/encoded"]


class RecordReader:
    """Reads records of a split at random: places in the order of `load_labels` -> serialised records."""

    def __init__(self, dataset_dir, split):
        manifest = Manifest.load(dataset_dir)
        selection = select_records(manifest, split)
        paths = manifest.shard_paths(dataset_dir, selection.shard_split)
        self._files = [np.memmap(path, np.uint8, "r") for path in paths]
        self._places = [(number, *place) for number, path in enumerate(paths) for place in find_records(path)]
        keep = _make_filter(dataset_dir, manifest, selection)
        if keep is not None:
            kept = _parse_records(paths, _FILTER_KEYS).map(keep).as_numpy_iterator()
            self._places = [place for place, is_kept in zip(self._places, kept, strict=True) if is_kept]

    def __len__(self):
        return len(self._places)

    def __call__(self, rows):
        return np.array([self._read(*self._places[row]) for row in rows], object)

    def _read(self, number, start, stop):
        return self._files[number][start:stop].tobytes()


def _read_records(dataset_dir, split, keys):
    """A dataset of the parsed records of `split`, in the order on disk."""
    manifest = Manifest.load(dataset_dir)
    selection = select_records(manifest, split)
    paths = manifest.shard_paths(Path(dataset_dir), selection.shard_split)
    records = _parse_records(paths, {*keys, *_FILTER_KEYS})
    keep = _make_filter(dataset_dir, manifest, selection)
    return records if keep is None else records.filter(keep)


def _make_filter(dataset_dir, manifest, selection):
    """A function of a record: whether it is selected and decodes; None where all are and do."""
    left_out = undecodable_ids(dataset_dir, manifest)
    if selection.holdout is None and not left_out:
        return None

    def keep(record):
        is_selected = selection.holdout is None or record["image/holdout"] == selection.holdout
        return is_selected & ~_is_one_of(record["image/source_id"], left_out)

    return keep


def _is_one_of(image_id, image_ids):
    names = [name.encode("utf-8", "surrogateescape") for name in sorted(image_ids)]
    return tf.reduce_any(image_id == tf.constant(names, tf.string))


def _parse_records(paths, keys):
    return tf.data.TFRecordDataset(paths).map(
        lambda record: parse(record, keys), tf.data.AUTOTUNE, deterministic=True
    )


def _decode_squares(records, image_size, image_fit, hypotheses=False, black=()):
    """{"image", "image_id"} of each of `records`, decoded on all cores; those of the ids `black` are not."""
    shape = [*([NUM_HYPOTHESES] if hypotheses else []), image_size, image_size, 3]

    def decode(record):
        arguments = record["image/encoded"], record["image/orientation"], image_size, image_fit
        return (decode_squares if hypotheses else decode_square)(*arguments)

    def read(record):
        image_id = record["image/source_id"]
        if black:
            is_black = _is_one_of(image_id, black)
            image = tf.cond(is_black, lambda: tf.zeros(shape, tf.uint8), lambda: decode(record))
            return {"image": tf.ensure_shape(image, shape), "image_id": image_id}
        return {"image": decode(record), "image_id": image_id}

    return records.map(read, tf.data.AUTOTUNE, deterministic=True)


def decode_square(encoded, orientation, image_size, image_fit):
    return tf.cast(fit_to_square(decode_image(encoded, orientation), image_size, image_fit), tf.uint8)


def decode_squares(encoded, orientation, image_size, image_fit):
    return tf.cast(cut_hypotheses(decode_image(encoded, orientation), image_size, image_fit), tf.uint8)


def _mark_rows(ids, num_labels):
    """<uint8>[rows, labels] with 1 at the `ids` of each row."""
    marks = np.zeros([len(ids), num_labels], np.uint8)
    for row, columns in enumerate(ids):
        marks[row, columns] = 1
    return marks
