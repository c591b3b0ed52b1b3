"""Says of one file whether TensorFlow decodes it, for builds with `--decode` and for `verify`."""

from __future__ import annotations

import functools
from typing import NamedTuple

from tfrecords.images import ImageProblem
from tfrecords.quiet import silence_native_stderr

_REASONS = {
    "empty": "empty_file",
    "not an image": "not_an_image",
    "unsupported": "unsupported_format",
    "too large": "too_large",
    "cut off": "truncated_image",
    "damaged": "damaged_image",
}


class Header(NamedTuple):
    """What TensorFlow reads of a file that it decodes; sizes in px, as stored, before the orientation."""

    format: str
    height: int
    width: int
    orientation: int


def judge(data: bytes, max_pixels: int) -> Header:
    """Decodes all pixels of a file as training, `predict` and the exported model do.

    Raises:
        ImageProblem: it does not decode; the reasons are those of `tfrecords.images.inspect_image`.
    """
    with silence_native_stderr():
        errors, format_id, height, width, orientation = _graph()([data], max_pixels)
    error = errors[0].numpy().decode()
    if error:
        kind, _, detail = error.partition(": ")
        raise ImageProblem(_REASONS[kind], detail or f"TensorFlow does not decode it: {kind}")
    name = ("jpeg", "png", "gif", "bmp", "webp")[int(format_id[0])]
    return Header(name, int(height[0]), int(width[0]), int(orientation[0]))


@functools.cache
def _graph():
    """The decoder as one graph: traced once a process."""
    with silence_native_stderr():
        import tensorflow as tf

        from tfrecords.decoding.headers import read_header
        from tfrecords.decoding.pixels import decode_files

    def measure(image):  # what it returns needs the pixels to be there
        return tf.cast(tf.shape(image)[:2], tf.float32)

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([], tf.int64)],
    )
    def decode(encoded, max_pixels):
        header = read_header(encoded)
        _, _, errors = decode_files(encoded, measure, [2], max_pixels)
        return errors, header.format, header.height_px, header.width_px, header.orientation

    return decode
