"""Reads a JPEG's size and EXIF block in a few microseconds, without Pillow, and names JPEGs nobody decodes.

A build copies originals as fast as a disk gives them, and to open each with Pillow would take a third of its
time. What is not a plain JPEG is left to Pillow.
"""

from __future__ import annotations

from typing import NamedTuple

_START_OF_IMAGE = b"\xff\xd8"
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, Huffman-coded
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_FOREIGN_FRAMES = {
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "a lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "a hierarchical JPEG"),
    0xF7: "JPEG-LS",
}
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


def name_foreign_jpeg(data: bytes) -> str:
    """What a JPEG is called whose pixels TensorFlow does not decode; "" for others, and for other files.

    Pillow must not see them: its decoder writes past its buffer when it scales a lossless one.

    >>> name_foreign_jpeg(bytes.fromhex("ffd8 ffc3 0011 08 0001 0001 03 011100 021100 031100"))
    'a lossless JPEG'
    """
    position = 2 if data.startswith(_START_OF_IMAGE) else len(data)
    while position + 5 <= len(data):
        if data[position] != 0xFF or data[position + 1] == 0xFF:  # stray and fill bytes
            position += 1
            continue
        marker = data[position + 1]
        if marker in _FOREIGN_FRAMES:
            return _FOREIGN_FRAMES[marker]
        if marker in _PLAIN_FRAMES or marker in _OTHER_FRAMES:
            return "a 12-bit JPEG" if data[position + 4] == 12 else ""
        if marker == _START_OF_SCAN:
            return ""
        is_alone = marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8
        position += 2 if is_alone else 2 + (data[position + 2] << 8 | data[position + 3])
    return ""
