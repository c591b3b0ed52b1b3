"""Shards enter; labels, pictures and batches for `fit` leave, in orders that a seed and an epoch decide.

Labels, pictures and features of a split are always in the order of the records, so row i is the same image
in all of them. Batches for training are a function of (seed, epoch, step) alone: a run that starts at epoch
k reads what an unbroken one reads there, on any number of replicas.
"""

from functools import partial

import numpy as np
import tensorflow as tf

from cnnrnn_tf.data.images import decode_image, random_crop_and_flip
from cnnrnn_tf.data.records import (
    Labels,
    RecordReader,
    decode_square,
    image_batches,
    load_labels,
    select_records,
)
from cnnrnn_tf.data.sequences import check_num_steps, encode_paths, order_ranks, shuffle_ranks
from tfrecords.errors import UserError
from tfrecords.schema import parse

__all__ = [
    "MAX_CACHE_BYTES",
    "Labels",
    "count_steps",
    "feature_training_batches",
    "feature_validation_batches",
    "image_batches",
    "image_training_batches",
    "image_validation_batches",
    "load_labels",
    "select_records",
]

MAX_CACHE_BYTES = 2 * 2**30
"""The pictures of a split are decoded once and kept in memory if they take no more than this."""

_IMAGE_ORDER, _BATCHES, _LABEL_ORDER, _AUGMENTATION = range(4)  # what a seed is for
_PARALLEL_DECODES = 8  # in one batch


def count_steps(num_images, batch_size, drop_remainder=True):
    """Returns the number of batches in an epoch: `steps_per_epoch` of `fit` for the datasets below."""
    order = _Order(num_images, batch_size, seed=0)
    return num_images // order.batch_size if drop_remainder else -(-num_images // order.batch_size)


def feature_training_batches(
    features,
    labels,
    *,
    batch_size,
    num_steps,
    label_order="frequent",
    seed=0,
    start_epoch=0,
    shuffle=True,
    drop_remainder=True,
):
    """Returns endless batches of features and paths for `fit(steps_per_epoch=count_steps(...))`.

    Epoch e is a permutation of the images by (seed, e), whatever was read before: `start_epoch=e` with
    `fit(initial_epoch=e)` goes on as a run that was never interrupted. With `drop_remainder` every batch is
    full, so every replica always has as many images as the others; each epoch leaves out a few, other ones
    each time. A split smaller than a batch is one batch.

    Args:
        features: <float32>[images, F], array or memory map; taken into memory once, so keep no second copy.
        labels: <uint8>[images, labels], in the same order.
        num_steps: length of the paths: the most labels of an image and one for END.
        label_order: one of `LABEL_ORDERS`; "shuffled" draws one by (seed, epoch, step).

    Returns:
        A `tf.data.Dataset` of ({"features": <float32>[batch, F], "tokens": <int32>[batch, num_steps]},
        targets <int32>[batch, num_steps]), see `encode_paths`.

    Raises:
        UserError: there are no images, rows do not match, a path does not fit, or the order is unknown.
    """
    gather = _gather_features(features, len(labels))
    order = _Order(len(labels), batch_size, seed, start_epoch, shuffle, drop_remainder)
    return _finish(
        _teach(order.batches().map(gather, tf.data.AUTOTUNE), labels, num_steps, label_order, seed)
    )


def feature_validation_batches(features, labels, *, batch_size, num_steps, label_order="frequent", seed=0):
    """Returns the batches of one pass in the order of the rows, the last one smaller: for evaluation.

    Arguments, elements and errors are those of `feature_training_batches`.
    """
    gather = _gather_features(features, len(labels))
    order = _Order(len(labels), batch_size, seed, shuffle=False, drop_remainder=False)
    return _finish(
        _teach(order.epoch_batches(0).map(gather, tf.data.AUTOTUNE), labels, num_steps, label_order, seed)
    )


def image_training_batches(
    dataset_dir,
    split,
    image_size,
    labels,
    *,
    batch_size,
    num_steps,
    label_order="frequent",
    seed=0,
    image_fit="crop",
    start_epoch=0,
    shuffle=True,
    drop_remainder=True,
    flip=True,
    shift=0.0,
    crop=False,
    max_cache_bytes=MAX_CACHE_BYTES,
):
    """Returns endless batches of pictures and paths: for training a backbone, otherwise extract features.

    What `feature_training_batches` says of epochs and batches holds here too. If the decoded pictures of the
    split take no more than `max_cache_bytes` they are kept, else files are read at random places and decoded
    each time: keep such a data set on an SSD.

    Args:
        image_size: side of the squares, px.
        labels: <uint8>[images, labels] of `load_labels(dataset_dir, split)`.
        num_steps: length of the paths; None for no paths, but the rows of `labels` as targets.
        image_fit: how an image becomes a square, "crop" or "stretch": `cnnrnn_tf.data.images.fit_to_square`.
        flip: mirror half of the pictures, drawn by (seed, epoch, step).
        shift: move each picture by up to this share of its side, below 0.5, drawn likewise; 0 moves none.
        crop: cut random squares and mirror half of them (`random_crop_and_flip`) in place of the centre;
            no pictures are kept then.

    Returns:
        As `feature_training_batches`, with "image" <uint8>[batch, image_size, image_size, 3] RGB in the place
        of "features".

    Raises:
        UserError: as there; or `crop` without `flip` or with `shift`, which do not exist.
    """
    if crop and (shift or not flip):
        raise UserError(
            "crop=True moves the squares and mirrors half of them: flip=False and a shift do not go with it"
        )
    if not 0 <= shift < 0.5:
        raise UserError(f"shift {shift}: expected 0 or more and less than 0.5, a share of the picture's side")
    order = _Order(len(labels), batch_size, seed, start_epoch, shuffle, drop_remainder)
    batches = order.batches()
    if crop:
        batches = _read_pictures(
            batches, dataset_dir, split, len(labels), partial(_crop, image_size, image_fit)
        )
    else:
        batches = _add_pictures(
            batches, dataset_dir, split, image_size, image_fit, len(labels), max_cache_bytes
        )
        if flip or shift:
            batches = batches.map(partial(_move, flip, round(shift * image_size)), tf.data.AUTOTUNE)
    return _finish(_teach(batches, labels, num_steps, label_order, seed))


def image_validation_batches(
    dataset_dir,
    split,
    image_size,
    labels,
    *,
    batch_size,
    num_steps,
    label_order="frequent",
    image_fit="crop",
    seed=0,
    max_cache_bytes=MAX_CACHE_BYTES,
):
    """Returns the batches of one pass in the order of the records, the last one smaller: for evaluation.

    Arguments, elements and errors are those of `image_training_batches`.
    """
    batches = _Order(len(labels), batch_size, seed, shuffle=False, drop_remainder=False).epoch_batches(0)
    batches = _add_pictures(batches, dataset_dir, split, image_size, image_fit, len(labels), max_cache_bytes)
    return _finish(_teach(batches, labels, num_steps, label_order, seed))


# ---- which rows, when


class _Order:
    """The rows of each batch, as a function of (seed, epoch, step)."""

    def __init__(self, num_images, batch_size, seed, start_epoch=0, shuffle=True, drop_remainder=True):
        if num_images == 0:
            raise UserError("a split without images gives no batches: build the data set with more images")
        if batch_size < 1:
            raise UserError(f"a batch of {batch_size} images: expected at least 1")
        self.num_images, self.batch_size = num_images, min(batch_size, num_images)
        self.seed, self.start_epoch = seed, start_epoch
        self.shuffle, self.drop_remainder = shuffle, drop_remainder

    def batches(self):
        """All epochs from `start_epoch` on, one after the other, without end."""
        return tf.data.Dataset.counter(self.start_epoch).flat_map(self.epoch_batches)

    def epoch_batches(self, epoch):
        """{"rows": <int64>[batch], "seed": <int64>[2] of this batch} of one epoch."""
        epoch_seed = [self.seed, epoch]
        rows = tf.range(self.num_images, dtype=tf.int64)
        if self.shuffle:
            seed = _fold(epoch_seed, _IMAGE_ORDER)
            rows = tf.random.experimental.stateless_shuffle(rows, seed, alg="philox")
        rows = tf.data.Dataset.from_tensor_slices(rows).batch(self.batch_size, self.drop_remainder)
        return rows.enumerate().map(
            lambda step, rows: {"rows": rows, "seed": _fold(_fold(epoch_seed, _BATCHES), step)}
        )


def _fold(seed, data):
    """A new seed <int64>[2] out of `seed` <int64>[2] and `data` <int64>[], the same on every device."""
    seed = tf.convert_to_tensor(seed, tf.int64)
    return tf.random.fold_in(seed, tf.cast(data, tf.int64), alg="philox")


def _teach(batches, labels, num_steps, label_order, seed):
    """Replaces rows and seed of `batches` by tokens and targets; without `num_steps`, by rows of `labels`."""
    if num_steps is None:
        return _judge(batches, labels)
    check_num_steps(labels, num_steps)
    num_labels = labels.shape[1]
    ranks = order_ranks(label_order, num_labels, seed)
    with tf.device("/CPU:0"):
        labels = tf.constant(labels, tf.uint8)

    def teach(batch):
        rows, batch_seed = batch.pop("rows"), batch.pop("seed")
        places = ranks
        if places is None:
            places = shuffle_ranks(num_labels, _fold(batch_seed, _LABEL_ORDER))
        tokens, targets = encode_paths(tf.gather(labels, rows), num_steps, places)
        return {**batch, "tokens": tokens}, targets

    return batches.map(teach, tf.data.AUTOTUNE)


def _judge(batches, labels):
    with tf.device("/CPU:0"):
        labels = tf.constant(labels)

    def judge(batch):
        rows, _ = batch.pop("rows"), batch.pop("seed")
        return batch, tf.gather(labels, rows)

    return batches.map(judge, tf.data.AUTOTUNE)


def _finish(batches):
    """Reads ahead; of several workers each takes its own share of every batch."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    options.deterministic = True
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)


# ---- what the rows hold


def _gather_features(features, num_images):
    if len(features) != num_images:
        raise UserError(
            f"{len(features):,} rows of features and {num_images:,} of labels: both must be of the same split"
        )
    with tf.device("/CPU:0"):
        features = tf.convert_to_tensor(features, tf.float32)
    return lambda batch: {**batch, "features": tf.gather(features, batch["rows"])}


def _add_pictures(batches, dataset_dir, split, image_size, image_fit, num_images, max_cache_bytes):
    if num_images * image_size**2 * 3 > max_cache_bytes:
        prepare = partial(_fit, image_size, image_fit)
        return _read_pictures(batches, dataset_dir, split, num_images, prepare)
    pictures = _load_pictures(dataset_dir, split, image_size, image_fit, num_images)
    return batches.map(lambda batch: {**batch, "image": tf.gather(pictures, batch["rows"])}, tf.data.AUTOTUNE)


def _load_pictures(dataset_dir, split, image_size, image_fit, num_images):
    """All pictures of `split`, <uint8>[images, image_size, image_size, 3]."""
    pictures = np.empty([num_images, image_size, image_size, 3], np.uint8)
    num_read = 0
    batches = image_batches(dataset_dir, split, image_size, 64, image_fit)
    for batch in batches.as_numpy_iterator():
        images = batch["image"]
        _check_count(num_read + len(images) <= num_images, split, num_images)
        pictures[num_read : num_read + len(images)] = images
        num_read += len(images)
    _check_count(num_read == num_images, split, num_images)
    with tf.device("/CPU:0"):
        return tf.convert_to_tensor(pictures)


def _read_pictures(batches, dataset_dir, split, num_images, prepare):
    """Adds "image": `prepare(encoded, orientation, seed)` of each row, read from its place on disk."""
    read = RecordReader(dataset_dir, split)
    _check_count(len(read) == num_images, split, num_images)
    keys = ("image/encoded", "image/orientation")

    def fetch(batch):
        records = tf.numpy_function(read, [batch["rows"]], tf.string, stateful=False)
        return {**batch, "records": tf.ensure_shape(records, batch["rows"].shape)}

    def decode_row(serialized, seed):
        record = parse(serialized, keys)
        return prepare(record["image/encoded"], record["image/orientation"], seed)

    def decode(batch):
        seed = _fold(batch["seed"], _AUGMENTATION)
        seeds = tf.random.stateless_uniform(
            [tf.size(batch["rows"]), 2], seed, None, None, tf.int32, alg="philox"
        )
        images = tf.map_fn(
            lambda row: decode_row(*row),
            (batch.pop("records"), seeds),
            parallel_iterations=_PARALLEL_DECODES,
            fn_output_signature=tf.uint8,
        )
        return {**batch, "image": images}

    # Two steps: what leaves the graph runs in one thread under --deterministic, decoding still in many.
    return batches.map(fetch, tf.data.AUTOTUNE).map(decode, tf.data.AUTOTUNE)


def _fit(image_size, image_fit, encoded, orientation, seed):
    del seed
    return decode_square(encoded, orientation, image_size, image_fit)


def _crop(image_size, image_fit, encoded, orientation, seed):
    square = random_crop_and_flip(decode_image(encoded, orientation), image_size, seed, image_fit)
    return tf.cast(square, tf.uint8)


def _move(flip, shift_px, batch):
    """Mirrors half of the pictures and moves each along both sides; what is bared mirrors what is beside it.

    One look-up of pixels does it all: mirroring by `images[:, :, ::-1]` is thirty times slower on a CPU.
    """
    images, seed = batch["image"], _fold(batch["seed"], _AUGMENTATION)
    size = images.shape[1]
    draws = tf.random.stateless_uniform([tf.shape(images)[0], 3], seed, alg="philox")
    offsets = tf.cast(tf.floor(draws[:, 1:] * (2 * shift_px + 1)), tf.int32) - shift_px
    rows, columns = (_reflect(tf.range(size) + offsets[:, axis, None], size) for axis in range(2))
    if flip:
        columns = tf.where(draws[:, :1] < 0.5, columns[:, ::-1], columns)
    places = tf.reshape(rows[:, :, None] * size + columns[:, None, :], [-1, size**2])
    moved = tf.gather(tf.reshape(images, [-1, size**2, 3]), places, axis=1, batch_dims=1)
    return {**batch, "image": tf.ensure_shape(tf.reshape(moved, tf.shape(images)), images.shape)}


def _reflect(positions, size):
    """Positions up to `size` - 1 beyond an edge as those that a mirror at the edge's pixel would show."""
    return size - 1 - tf.abs(size - 1 - tf.abs(positions))


def _check_count(matches, split, num_images):
    if not matches:
        raise UserError(
            f"{num_images:,} rows of labels do not belong to the split {split!r}: pass those of load_labels"
        )
