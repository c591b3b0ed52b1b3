"""Tells the format of an image file by its first bytes: one table for builds, served graphs and folders."""

from __future__ import annotations

from typing import NamedTuple

HEAD_BYTES = 16
"""So many of a file's first bytes say what it is."""

JPEG, PNG, GIF, BMP, WEBP = "JPEG", "PNG", "GIF", "BMP", "WebP"
HEIC, AVIF, TIFF, JPEG_2000 = "HEIC", "AVIF", "TIFF", "JPEG 2000"
ISO_MEDIA, ICON = "a video or another ISO media file", "an icon (ICO)"

DECODED = (JPEG, PNG, GIF, BMP, WEBP)
"""The formats that TensorFlow decodes."""


class Magic(NamedTuple):
    """What files of a format begin with; `?` is any byte."""

    format: str  # as messages call it
    pattern: bytes


# The first that fits counts. Films share the container of HEIC and AVIF, not their brands.
MAGIC = (
    Magic(JPEG, b"\xff\xd8\xff"),
    Magic(PNG, b"\x89PNG\r\n\x1a\n????IHDR"),
    Magic(GIF, b"GIF87a"),
    Magic(GIF, b"GIF89a"),
    *(Magic(BMP, b"BM????????????" + bytes([size, 0])) for size in (12, 40, 52, 56, 64, 108, 124)),
    Magic(WEBP, b"RIFF????WEBP"),
    *(Magic(AVIF, b"????ftyp" + brand) for brand in (b"avif", b"avis")),
    *(Magic(HEIC, b"????ftyp" + brand) for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")),
    *(Magic(HEIC, b"????ftyp" + brand) for brand in (b"mif1", b"mif2", b"msf1")),
    Magic(ISO_MEDIA, b"????ftyp"),
    Magic(TIFF, b"II*\0"),
    Magic(TIFF, b"MM\0*"),
    Magic("JPEG XR", b"II\xbc\x01"),
    Magic("JPEG XL", b"\xff\x0a"),
    Magic("JPEG XL", b"\0\0\0\x0cJXL "),
    Magic(JPEG_2000, b"\0\0\0\x0cjP  "),
    Magic(JPEG_2000, b"\xff\x4f\xff\x51"),
    Magic("a Photoshop document", b"8BPS"),
    Magic(ICON, b"\0\0\x01\0"),
)


def find_format(head: bytes) -> str:
    r"""Returns the format of a file that begins with `head`, its first HEAD_BYTES; "" of no image's.

    >>> find_format(b"RIFF\x10\0\0\0WEBPVP8 "), find_format(b"RIFF\x10\0\0\0WAVEfmt ")
    ('WebP', '')
    """
    return next((magic.format for magic in MAGIC if _matches(head, magic.pattern)), "")


def _matches(head: bytes, pattern: bytes) -> bool:
    parts, place = pattern.split(b"?"), 0
    for part in parts:
        if not head.startswith(part, place):
            return False
        place += len(part) + 1
    return len(head) >= len(pattern)
