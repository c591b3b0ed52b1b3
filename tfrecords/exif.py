"""Reads the EXIF orientation of an image file: how the camera was held."""

from __future__ import annotations

import warnings

ORIENTATION_TAG = 0x0112
_NAME = b"Exif\0\0"


def find_exif(data: bytes, file_format: str) -> bytes | None:
    """The EXIF block of a PNG or WebP file: of the chunk eXIf or EXIF; None where it has none.

    A JPEG's is in `tfrecords.jpeg.read_jpeg_header`; other formats have none that TensorFlow's side reads.

    >>> extended = b"VP8X" + bytes([10, 0, 0, 0, 8]) + bytes(9)
    >>> find_exif(b"RIFF....WEBP" + extended + b"EXIF" + bytes([2, 0, 0, 0]) + b"II", "webp")
    b'II'
    """
    if file_format == "png":
        return _find_png_exif(data)
    return _find_webp_exif(data) if file_format == "webp" else None


def parse_orientation(exif: bytes | None) -> int:
    """The orientation, 1 to 8, of an EXIF block; 1, upright, without a block or a sound tag in it."""
    if exif is None:
        return 1
    from PIL import Image

    tags = Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tags.load(exif)
            tag = tags.get(ORIENTATION_TAG, 1)
        except Exception:  # a broken EXIF block does not make the pixels worse
            return 1
    return tag if isinstance(tag, int) and 1 <= tag <= 8 else 1


def _find_png_exif(data: bytes) -> bytes | None:
    name = data.find(b"eXIf")
    if name <= 4:
        return None
    end = name + 4 + int.from_bytes(data[name - 4 : name], "big")
    return data[name + 4 : end] if end <= len(data) else None


def _find_webp_exif(data: bytes) -> bytes | None:
    if data[12:16] != b"VP8X" or not data[20:21] or not data[20] & 8:
        return None
    position = 12
    while position + 8 <= len(data):
        end = position + 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"EXIF":
            return data[position + 8 : end] if end <= len(data) else None
        position = (end + 1) // 2 * 2
    return None
