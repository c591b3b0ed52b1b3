"""Values of one image enter and a serialised `tf.train.Example` leaves, and the other way round.

`FIELDS` is the one table that both `encode` and `parse` read, so the two cannot drift apart. The keys are
those of TensorFlow's model garden. TensorFlow is imported when a record is parsed; `encode` does without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfrecords.errors import UserError, nearest
from tfrecords.example import example_class, features_class

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Field:
    """One key of a record. `kind` is `bytes`, `text` (UTF-8), `int64` or `float32`."""

    kind: str
    is_list: bool
    meaning: str


FIELDS: dict[str, Field] = {
    "image/encoded": Field(
        "bytes", False, "the image file: as its owners ship it, unless the manifest says otherwise"
    ),
    "image/format": Field(
        "text", False, "jpeg, png, gif, bmp or webp: by the content, not by the file's name"
    ),
    "image/height": Field("int64", False, "px, of the pixels as stored: before the orientation is applied"),
    "image/width": Field("int64", False, "px, of the pixels as stored: before the orientation is applied"),
    "image/orientation": Field("int64", False, "EXIF tag 0x0112, 1 to 8; a reader applies it; 1 = upright"),
    "image/source_id": Field("text", False, "Annotation.image_id: unique in the data set"),
    "image/filename": Field("text", False, "the file's name without its folder"),
    "image/key/sha256": Field("text", False, "SHA-256 of image/encoded, hexadecimal"),
    "image/holdout": Field("int64", False, "1 if manifest.is_held_out(image_id); for splits with a hold-out"),
    "image/class/label": Field("int64", True, "sorted label ids: the frequent-first path without its END"),
    "image/class/text": Field("text", True, "the label names, in the order of image/class/label"),
    "image/class/count": Field("int64", False, "number of labels: an absent and an empty list parse alike"),
    "image/class/ignored": Field("int64", True, "sorted ids of which nobody knows whether they hold"),
    "image/object/bbox/xmin": Field("float32", True, "fraction of the width, 0 to 1; one entry an object"),
    "image/object/bbox/ymin": Field("float32", True, "fraction of the height"),
    "image/object/bbox/xmax": Field("float32", True, "fraction of the width"),
    "image/object/bbox/ymax": Field("float32", True, "fraction of the height"),
    "image/object/class/label": Field("int64", True, "label id of the object, in the order of the boxes"),
    "image/object/area": Field("float32", True, "px²: of the mask where the source has one, else of the box"),
}


_LIST_OF_KIND = {"int64": "int64_list", "float32": "float_list", "text": "bytes_list", "bytes": "bytes_list"}
_IMAGE = "image/encoded"
_SCALARS = tuple(key for key, field in FIELDS.items() if not field.is_list)
_BEFORE_IMAGE = tuple(key for key in FIELDS if key < _IMAGE)
_BEHIND_IMAGE = tuple(key for key in FIELDS if key > _IMAGE)
# Protobuf's tags of the first and the second field of a message, of bytes whose length follows.
_FEATURES = _ENTRY = _LIST = b"\x0a"
_VALUE = b"\x12"
_IMAGE_KEY = _ENTRY + bytes([len(_IMAGE)]) + _IMAGE.encode()


def encode(values: Mapping[str, Any]) -> bytes:
    """The serialised record of `values` (key of `FIELDS` -> scalar or sequence).

    The same values give the same bytes. Lists that are left out are written empty.

    Raises:
        UserError: a key is not in `FIELDS`, or a scalar is missing.
    """
    return b"".join(encode_parts(values))


def encode_parts(values: Mapping[str, Any]) -> tuple[bytes, bytes, bytes]:
    """The three parts of `encode`: what comes before the image, the image as it was given, what comes behind.

    An image is many times as large as all else: a writer that takes the parts copies none of it.
    """
    _check_keys(values)
    missing = [key for key in _SCALARS if key not in values]
    if missing:
        raise UserError(f"a record needs {', '.join(missing)}: every scalar of schema.FIELDS must be given")
    image = values[_IMAGE]
    # A map is a repeated entry, sorted by its keys, so that the parts of one may be written one by one.
    before = _encode_features(_BEFORE_IMAGE, values)
    behind = _encode_features(_BEHIND_IMAGE, values)
    value = _LIST + _encode_length(len(image))  # BytesList.value
    feature = _LIST + _encode_length(len(value) + len(image)) + value  # Feature.bytes_list
    entry = _IMAGE_KEY + _VALUE + _encode_length(len(feature) + len(image)) + feature
    before += _ENTRY + _encode_length(len(entry) + len(image)) + entry
    size = len(before) + len(image) + len(behind)
    return _FEATURES + _encode_length(size) + before, image, behind


def decode(record: bytes) -> dict[str, Any]:
    """The values that `encode` was given, all lists as lists, without TensorFlow.

    Raises:
        ValueError: it is no record, or lacks a key.
    """
    from google.protobuf.message import DecodeError

    try:
        features = example_class().FromString(record).features.feature
    except DecodeError:
        raise ValueError("not a tf.train.Example") from None
    return {key: _get_feature(features, key, field) for key, field in FIELDS.items()}


def strip_image(record: bytes, image: bytes) -> bytes:
    """What is left of a record without the bytes of its image, whose SHA-256 is still in it."""
    start = record.index(image)
    return record[:start] + record[start + len(image) :]


def parse(serialized: tf.Tensor, keys: Iterable[str] | None = None) -> dict[str, tf.Tensor]:
    """The tensors of one record, for `tf.data.TFRecordDataset(...).map(parse)`.

    Args:
        serialized: `<string>[]`, what `encode` returned.
        keys: the keys of `FIELDS` to read; all of them by default. Fewer keys parse faster.

    Returns:
        key -> tensor: scalars `[]`, lists dense `[n]` (n = 0 for an empty list); `<string>`, `<int64>` or
        `<float32>` as `FIELDS` says.
    """
    import tensorflow as tf

    keys = tuple(FIELDS) if keys is None else tuple(keys)
    _check_keys(keys)
    return tf.io.parse_single_example(serialized, {key: _parsing_spec(FIELDS[key]) for key in keys})


def _parsing_spec(field: Field):
    import tensorflow as tf

    dtype = {"int64": tf.int64, "float32": tf.float32}.get(field.kind, tf.string)
    if field.is_list:
        return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)
    return tf.io.FixedLenFeature([], dtype)


def _encode_features(keys: Iterable[str], values: Mapping[str, Any]) -> bytes:
    """Serialised `Features` of a part of the keys."""
    features = features_class()()
    for key in keys:
        _set_feature(features.feature[key], FIELDS[key], values.get(key, ()))
    return features.SerializeToString(deterministic=True)


def _encode_length(number: int) -> bytes:
    """A protobuf varint."""
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _set_feature(feature, field: Field, value) -> None:
    kind = getattr(feature, _LIST_OF_KIND[field.kind])
    if not field.is_list:
        value = (value,)
    elif not value:
        kind.SetInParent()  # an empty list is written, too
        return
    if field.kind == "text":
        # Names that came from the file system may not be UTF-8: their bytes survive the round trip.
        value = [text.encode("utf-8", "surrogateescape") for text in value]
    kind.value.extend(value)


def _get_feature(features, key: str, field: Field):
    if key not in features:
        raise ValueError(f"has no {key}")
    values = list(getattr(features[key], _LIST_OF_KIND[field.kind]).value)
    if not field.is_list and len(values) != 1:
        raise ValueError(f"has {len(values)} values of {key}")
    if field.kind == "text":
        values = [text.decode("utf-8", "surrogateescape") for text in values]
    return values if field.is_list else values[0]


def _check_keys(keys: Iterable[str]) -> None:
    for key in keys:
        if key not in FIELDS:
            raise UserError(f"a record has no key {key!r}{nearest(key, FIELDS)}: schema.FIELDS lists them")
