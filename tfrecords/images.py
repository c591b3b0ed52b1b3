"""An image file's bytes enter; its format, size and orientation leave, or a named reason to skip it."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

MAX_PIXELS = 178_000_000
"""The largest image that is decoded: width times height by its header. Beyond lie decompression bombs."""

_EXIF_ORIENTATION = 0x0112
# MPO is the JPEG of phones and stereo cameras with further pictures behind the first one.
_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp", "WEBP": "webp"}
_FIRST_BYTES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"RIFF")
_PNG_END = b"IEND\xaeB`\x82"
# The orders of bytes in a BMP that TensorFlow reads as Pillow does; palettes it takes for shades of grey.
_READABLE_BMP = {("raw", order) for order in ("BGR", "BGRX", "BGRA", "L")}


class ImageProblem(Exception):
    """An image cannot become a record: `reason` is the short name that the manifest counts."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class ImageFacts:
    """What a record says about its image: `height` and `width` in px, as stored, before the orientation."""

    format: str
    height: int
    width: int
    orientation: int


def inspect_image(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decodes `data` once and tells what it is; the file's name plays no part.

    Args:
        data: an encoded image file.
        max_pixels: larger images are refused by their header, before they are decoded.

    Raises:
        ImageProblem: `empty_file`, `not_an_image`, `unsupported_format`, `too_large` or `truncated_image`.
    """
    from PIL import Image

    if not data:
        raise ImageProblem("empty_file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is the owners' business
        try:
            image = Image.open(io.BytesIO(data))
        except Image.DecompressionBombError as error:
            raise ImageProblem("too_large", str(error)) from None
        except Exception as error:  # Pillow's readers raise what their parsing meets: OSError, SyntaxError...
            looks_known = data.startswith(_FIRST_BYTES)
            raise ImageProblem(
                "truncated_image" if looks_known else "not_an_image", _one_line(error)
            ) from None
        with image:
            facts = _inspect_opened(image, max_pixels)
    if facts.format == "png" and _PNG_END not in data:  # which Pillow forgives and TensorFlow does not
        raise ImageProblem("truncated_image", "the end of the PNG is missing")
    return facts


def _inspect_opened(image, max_pixels: int) -> ImageFacts:
    if image.format not in _FORMATS:
        raise ImageProblem("unsupported_format", f"{image.format}: expected JPEG, PNG, GIF, BMP or WebP")
    if image.format == "BMP" and (image.tile[0].codec_name, image.tile[0].args[0]) not in _READABLE_BMP:
        raise ImageProblem("unsupported_format", "a BMP with a palette, packed or compressed: save it as PNG")
    width, height = image.size
    if width * height > max_pixels:
        raise ImageProblem("too_large", f"{width} x {height} px: expected at most {max_pixels:,} pixels")
    orientation = _read_orientation(image)
    # All of a JPEG's data is read even when it is drafted at an eighth of its size, at a third of the cost.
    image.draft(None, (1, 1))
    try:
        image.load()
    except Exception as error:  # see inspect_image
        raise ImageProblem("truncated_image", _one_line(error)) from None
    return ImageFacts(_FORMATS[image.format], height, width, orientation)


def _read_orientation(image) -> int:
    if _FORMATS[image.format] != "jpeg":
        return 1
    try:
        tag = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block does not make the pixels worse
        return 1
    return tag if isinstance(tag, int) and 1 <= tag <= 8 else 1


def _one_line(error: Exception) -> str:
    # Pillow quotes the in-memory file by its address, which differs from run to run.
    return " ".join(str(error).split("<_io.BytesIO")[0].split()) or type(error).__name__
