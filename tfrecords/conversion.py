"""Turns HEIC, AVIF, TIFF and other images that TensorFlow does not decode into JPEG or PNG files.

Pillow reads them, HEIC with the extra `[heif]`. A build stores the converted file, and `predict`, `tag` and
`client` send it.
"""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

from tfrecords.exif import ORIENTATION_TAG
from tfrecords.magic import AVIF, BMP, HEAD_BYTES, HEIC, JPEG_2000, TIFF, find_format

LOSSY, LOSSLESS = "JPEG", "PNG"

# Pillow's name of a format: what its pictures become. Photographs that were compressed with loss stay small.
TARGETS = {
    "HEIF": LOSSY,
    "AVIF": LOSSY,
    "JPEG2000": LOSSY,
    "TIFF": LOSSLESS,
    "BMP": LOSSLESS,
    "DIB": LOSSLESS,
}
QUALITY = 95
"""Of the JPEGs that are made of lossy originals."""

_CONVERTIBLE = frozenset([HEIC, AVIF, TIFF, JPEG_2000, BMP])
_MAX_JPEG_SIDE = 65_500  # px, of libjpeg
# The orders of bytes in a BMP that TensorFlow reads as Pillow does; palettes it takes for shades of grey.
_PLAIN_BMP = {("raw", order) for order in ("BGR", "BGRX", "BGRA", "L")}


class Converted(NamedTuple):
    """An image file made of another: `format` is `jpeg` or `png`, sizes are in px."""

    data: bytes
    format: str
    height: int
    width: int
    orientation: int


def looks_convertible(data: bytes) -> bool:
    """Whether the first bytes are of a format that may need a conversion."""
    return find_format(data[:HEAD_BYTES]) in _CONVERTIBLE


def is_heif(data: bytes) -> bool:
    """Whether the first bytes are those of a HEIC or HEIF file, which Pillow reads with pillow-heif alone."""
    return find_format(data[:HEAD_BYTES]) == HEIC


def register_heif() -> bool:
    """Teaches Pillow to read HEIC; whether it could."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def must_convert(image) -> bool:
    """Whether an image that Pillow has opened is of a kind that TensorFlow does not decode."""
    if image.format == "BMP":
        return (image.tile[0].codec_name, image.tile[0].args[0]) not in _PLAIN_BMP
    return image.format in TARGETS


def convert(image) -> Converted:
    """Encodes an opened image anew, its first picture, without transparency, with 8 bits a channel.

    Raises:
        ValueError: its pixels are no colours.
        Exception: of every kind that Pillow's readers raise at damaged files.
    """
    from PIL import Image

    target = TARGETS[image.format]
    image.load()
    orientation = image.getexif().get(ORIENTATION_TAG, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    pixels = to_eight_bits(image)
    profile = image.info.get("icc_profile") if image.mode == pixels.mode else None
    if max(pixels.size) > _MAX_JPEG_SIDE:
        target = LOSSLESS
    exif = Image.Exif()
    if orientation != 1:
        exif[ORIENTATION_TAG] = orientation
    file = io.BytesIO()
    options = {"quality": QUALITY} if target == LOSSY else {"compress_level": 1}
    pixels.save(file, target, exif=exif, icc_profile=profile, **options)
    width, height = pixels.size
    return Converted(file.getvalue(), target.lower(), height, width, orientation)


def to_eight_bits(image):
    """The pixels of a Pillow image as TensorFlow reads them: RGB or grey, of 16 bits the upper half.

    Raises:
        ValueError: floating-point numbers, or whole ones beyond 16 bits.
    """
    from PIL import Image

    if image.mode == "F" or (image.mode == "I" and image.getextrema()[1] > 65_535):
        raise ValueError("its pixels are no colours: scale them to 0 to 255 and save it as PNG")
    if image.mode.startswith("I"):
        import numpy as np

        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype("uint8"))
    return image.convert("L" if image.mode == "L" else "RGB")


def make_sendable(data: bytes) -> tuple[bytes, str]:
    """Returns an image file as TensorFlow decodes it and "", or b"" and why it cannot be converted.

    JPEG, PNG, GIF, plain BMP and WebP files stay as they are, and so does what is no image, or is of a format
    that nobody reads here: of that the graph's own `error` says what it is.
    """
    if not looks_convertible(data):
        return data, ""
    from PIL import Image, UnidentifiedImageError

    from tfrecords.images import MAX_PIXELS  # which imports this module

    if is_heif(data) and not register_heif():
        return b"", "HEIC: pip install 'cnnrnn-tf[heif]' to read it"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        try:
            with Image.open(io.BytesIO(data)) as image:
                if not must_convert(image):
                    return data, ""
                if image.width * image.height > MAX_PIXELS:
                    return b"", "too large"
                return _convert_or_explain(image)
        except Image.DecompressionBombError:
            return b"", "too large"
        except UnidentifiedImageError:
            return data, ""
        except Exception:  # Pillow's readers raise what their parsing meets
            return b"", "damaged"


def _convert_or_explain(image) -> tuple[bytes, str]:
    try:
        return convert(image).data, ""
    except ValueError as error:
        return b"", f"{image.format}: {' '.join(str(error).split())}"
