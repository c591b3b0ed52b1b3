"""A built data set enters; what its records say leaves, as arrays. No pixel is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfrecords.manifest import Manifest
from tfrecords.progress import show_progress
from tfrecords.quiet import silence_native_stderr
from tfrecords.schema import FIELDS
from tfrecords.vocabulary import LabelVocabulary

if TYPE_CHECKING:
    import numpy as np

_BATCH = 64  # records that are parsed at once; photographs of 10 MB each must not fill the memory
_KEYS = (
    "image/class/label",
    "image/class/ignored",
    "image/width",
    "image/height",
    "image/orientation",
    "image/format",
    "image/encoded",
    "image/key/sha256",
)
_FIRST_ORIENTATION_THAT_SWAPS = 5  # EXIF 5 to 8 turn by a quarter: the stored width is seen as the height


@dataclass(frozen=True)
class Records:
    """One split, image by image in the order of its records.

    `positive` and `unknown` are `<bool>[images, labels]`, all others `[images]`. `width` and `height` are px
    as the image is seen, upright: where EXIF turns it by a quarter, the stored ones are swapped. `num_bytes`
    is the size of its file, `orientation` EXIF's 1 to 8, `format` the record's `image/format`, as bytes, and
    `sha256` the hexadecimal hash of the file.
    """

    positive: np.ndarray
    unknown: np.ndarray
    width: np.ndarray
    height: np.ndarray
    num_bytes: np.ndarray
    orientation: np.ndarray
    format: np.ndarray
    sha256: np.ndarray


@dataclass(frozen=True)
class Contents:
    """All that a report is made of."""

    manifest: Manifest
    vocabulary: LabelVocabulary
    records: dict[str, Records]


def read_contents(dataset_dir: str | Path, progress: bool = False) -> Contents:
    """The records of every split.

    Args:
        dataset_dir: folder of a built data set.
        progress: show on stderr how far it is, and the time left.

    Raises:
        UserError: nothing is built there, or a shard is not as it was built.
    """
    manifest = Manifest.load(dataset_dir)
    vocabulary = manifest.load_vocabulary(dataset_dir)
    manifest.check_shards(dataset_dir)
    num_images = sum(split.num_images for split in manifest.splits.values())
    with show_progress("reading records", num_images, "image", shown=progress) as bar:
        records = {
            split: read_records(dataset_dir, manifest, vocabulary, split, bar.update)
            for split in manifest.splits
        }
    return Contents(manifest, vocabulary, records)


def read_records(
    dataset_dir: str | Path,
    manifest: Manifest,
    vocabulary: LabelVocabulary,
    split: str,
    on_images: Callable[[int], object] = lambda num_images: None,
) -> Records:
    """Truth and sizes of `split`, in one pass over its records; calls back with numbers of images."""
    import numpy as np

    num_images = manifest.split(split).num_images
    positive, unknown = (np.zeros((num_images, vocabulary.size), bool) for _ in range(2))
    width, height, num_bytes = (np.zeros(num_images, np.int64) for _ in range(3))
    orientation, file_format = np.zeros(num_images, np.uint8), np.zeros(num_images, "S8")
    sha256 = np.zeros(num_images, "S64")
    for rows, batch in _read_batches(manifest.shard_paths(dataset_dir, split)):
        _mark(positive, rows, batch["image/class/label"])
        _mark(unknown, rows, batch["image/class/ignored"])
        width[rows], height[rows] = batch["image/width"], batch["image/height"]
        num_bytes[rows], orientation[rows] = batch["image/encoded"], batch["image/orientation"]
        file_format[rows] = batch["image/format"].astype("S8")
        sha256[rows] = batch["image/key/sha256"].astype("S64")
        on_images(rows.stop - rows.start)
    turned = orientation >= _FIRST_ORIENTATION_THAT_SWAPS
    upright = np.where(turned, height, width), np.where(turned, width, height)
    return Records(positive, unknown, *upright, num_bytes, orientation, file_format, sha256)


def read_truth(
    dataset_dir: str | Path, manifest: Manifest, vocabulary: LabelVocabulary, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """The positive and the unknown labels of `split`: two `<bool>[images, labels]`, in the records' order."""
    records = read_records(dataset_dir, manifest, vocabulary, split)
    return records.positive, records.unknown


def _mark(matrix: np.ndarray, rows: slice, lists: tuple[np.ndarray, np.ndarray]) -> None:
    """Sets the cells of lists of label ids: (the ids of all rows, how many each row has)."""
    import numpy as np

    ids, num_ids = lists
    matrix[np.repeat(np.arange(rows.start, rows.stop), num_ids), ids] = True


def _read_batches(paths: list[str]) -> Iterator[tuple[slice, dict]]:
    """(their rows, key -> values) of a few records at a time.

    Lists come as (the values of all rows, how many each row has), and of `image/encoded` its number of bytes.
    A batch is parsed in one call, which costs a twentieth of parsing each record by `schema.parse`.
    """
    with silence_native_stderr():
        import tensorflow as tf

    features = {key: _to_feature(key) for key in _KEYS}

    def parse(serialized):
        batch = tf.io.parse_example(serialized, features)
        batch["image/encoded"] = tf.strings.length(batch["image/encoded"])
        return {
            key: (values.values, values.row_lengths()) if FIELDS[key].is_list else values
            for key, values in batch.items()
        }

    records = tf.data.TFRecordDataset(paths).batch(_BATCH)
    start = 0
    for batch in records.map(parse, tf.data.AUTOTUNE, deterministic=True).prefetch(2).as_numpy_iterator():
        stop = start + len(batch["image/class/label"][1])
        yield slice(start, stop), batch
        start = stop


def _to_feature(key: str):
    import tensorflow as tf

    dtype = tf.int64 if FIELDS[key].kind == "int64" else tf.string
    return tf.io.RaggedFeature(dtype) if FIELDS[key].is_list else tf.io.FixedLenFeature([], dtype)
