"""A JPEG's bytes enter; its size and EXIF block leave, in a few microseconds and without Pillow.

A build copies originals as fast as a disk gives them, and to open each with Pillow would take a third of its
time. What is not a plain JPEG is left to Pillow.
"""

from __future__ import annotations

from typing import NamedTuple

_START_OF_IMAGE = b"\xff\xd8"
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, Huffman-coded
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_APP1, _START_OF_SCAN = 0xE1, 0xDA
_EXIF = b"Exif\0\0"


class JpegHeader(NamedTuple):
    """`height` and `width` in px, as stored; `exif` is the first EXIF block, from its `Exif` on, or None."""

    height: int
    width: int
    exif: bytes | None


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Walks the segments of a JPEG up to its pixels; None where it is not a plain one.

    Plain is: 8 bits a channel, one channel or three, Huffman-coded, with a frame before its first scan (ITU
    T.81, annex B).
    """
    if not data.startswith(_START_OF_IMAGE):
        return None
    height = width = 0
    exif = None
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        start, stop = position + 4, position + 2 + (data[position + 2] << 8 | data[position + 3])
        if marker == _START_OF_SCAN:
            return JpegHeader(height, width, exif) if height and width else None
        if not 0xC0 <= marker <= 0xFE or marker in _OTHER_FRAMES or stop < start or stop > len(data):
            return None
        if marker in _PLAIN_FRAMES:
            if height or stop < start + 6 or data[start] != 8 or data[start + 5] not in (1, 3):
                return None
            height = data[start + 1] << 8 | data[start + 2]
            width = data[start + 3] << 8 | data[start + 4]
        elif marker == _APP1 and exif is None and data.startswith(_EXIF, start):
            exif = data[start:stop]
        position = stop
    return None
