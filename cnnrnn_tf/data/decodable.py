"""Finds the images of a data set that do not decode, once, so that training and evaluation leave them out."""

import logging
from pathlib import Path

import tensorflow as tf

from tfrecords.decoding.pixels import decode_files
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.progress import show_progress
from tfrecords.quiet import silence_native_stderr
from tfrecords.schema import parse
from tfrecords.undecodable import (
    FILE_NAME,
    Undecodable,
    describe_undecodable,
    load_undecodable,
    save_undecodable,
)

_LOGGER = logging.getLogger("cnnrnn_tf")
_BATCH_SIZE = 32
_JPEG_RATIO = 8  # all of a JPEG's data is read for an eighth of its pixels, in half of the time


def find_undecodable(dataset_dir, strict=False, shown=True) -> tuple[Undecodable, ...]:
    """Returns the images that do not decode; from then on all readers of the records leave them out.

    The first call decodes every image, JPEGs at an eighth of their size, and keeps the answer beside the
    records; a build with `--decode` has left it there.

    Args:
        dataset_dir: folder of the data set.
        strict: refuse the data set if there are such images.
        shown: show on stderr how far it is.

    Raises:
        UserError: the data set is not built or damaged, `strict` and an image does not decode, or none does.
    """
    manifest = Manifest.load(dataset_dir)
    images = load_undecodable(dataset_dir, manifest)
    if images is None:
        manifest.check_shards(dataset_dir)
        images = _decode_all(dataset_dir, manifest, shown)
        try:
            save_undecodable(dataset_dir, manifest, images)
        except OSError as error:
            raise UserError(f"cannot write {Path(dataset_dir) / FILE_NAME}: {error.strerror}") from None
    if images:
        line = f"{describe_undecodable(images)}, such as {images[0].image_id}"
        place = Path(dataset_dir) / FILE_NAME
        if strict:
            raise UserError(
                f"--strict: {line}; {place} names all of them: mend them and build again, or build with "
                "--decode, which leaves them out"
            )
        _LOGGER.info("%s: %s names them, --strict refuses them", line, place)
    return images


def undecodable_ids(dataset_dir, manifest) -> frozenset[str]:
    """Returns the ids of the images that are known not to decode."""
    return frozenset(image.image_id for image in load_undecodable(dataset_dir, manifest) or ())


def _decode_all(dataset_dir, manifest, shown):
    found = []
    num_images = sum(split.num_images for split in manifest.splits.values())
    with show_progress("decoding every image once", num_images, "image", shown=shown) as bar:
        for name in manifest.splits:
            for ids, errors in _judge_split(manifest.shard_paths(dataset_dir, name)):
                bad = [(image_id, error) for image_id, error in zip(ids, errors, strict=True) if error]
                found += [
                    Undecodable(name, image_id.decode("utf-8", "surrogateescape"), error.decode())
                    for image_id, error in bad
                ]
                bar.update(len(ids))
    return tuple(found)


def _judge_split(paths):
    """Yields (image ids, errors) of batches, both <string>[batch]."""

    def read(record):
        return parse(record, ("image/encoded", "image/source_id"))

    def judge(batch):
        _, _, errors = decode_files(batch["image/encoded"], _measure, [2], jpeg_ratio=_JPEG_RATIO)
        return batch["image/source_id"], errors

    batches = tf.data.TFRecordDataset(paths).map(read, 2).batch(_BATCH_SIZE).map(judge, 2).prefetch(1)
    iterator = batches.as_numpy_iterator()
    while True:
        with silence_native_stderr():  # libjpeg has a line for every damaged file
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch


def _measure(image):
    """The decoded size: what needs the pixels and is small."""
    return tf.cast(tf.shape(image)[:2], tf.float32)
