"""Says what an image file is and what a record holds of it, or why it cannot become a record."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tfrecords.conversion import (
    convert,
    is_heif,
    looks_convertible,
    must_convert,
    register_heif,
    to_eight_bits,
)
from tfrecords.errors import UserError
from tfrecords.exif import ORIENTATION_TAG, find_exif, parse_orientation
from tfrecords.jpeg import name_foreign_jpeg, read_jpeg_header

MAX_PIXELS = 178_000_000
"""The largest image that is decoded: width times height by its header. Beyond lie decompression bombs."""

# MPO is the JPEG of phones and stereo cameras with further pictures behind the first one.
_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp", "WEBP": "webp"}
_FIRST_BYTES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"RIFF")
_MAX_JPEG_SIDE = 65_500  # px, of libjpeg
_JPEG_END = b"\xff\xd9"

DEFAULT_QUALITY = 95
"""Of a JPEG that is made because its original was larger than asked for."""


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


@dataclass(frozen=True)
class ImageRules:
    """How an image file becomes what a record holds; by default byte for byte.

    Attributes:
        max_side: images whose longer side has more px are shrunk to it, and become JPEGs.
        quality: of those JPEGs, 1 to 100; without `max_side` every image becomes one.
        decode: decode every image, to find pixels that are damaged and not only cut off.
        max_pixels: larger images are refused by their header, before they are decoded.
    """

    max_side: int | None = None
    quality: int | None = None
    decode: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self):
        if self.max_side is not None and self.max_side < 1:
            raise UserError(f"--max-side {self.max_side}: expected 1 px or more")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality}: expected 1 to 100")

    def arguments(self) -> dict:
        """What makes the records other than their originals, for the manifest."""
        given = {"max_side": self.max_side, "quality": self.quality}
        return {key: value for key, value in given.items() if value is not None}

    def must_encode(self, facts: ImageFacts) -> bool:
        """Whether such an image becomes a JPEG of ours."""
        if self.max_side is None:
            return self.quality is not None
        return max(facts.height, facts.width) > self.max_side


ORIGINALS = ImageRules()
"""Every image byte for byte."""


@dataclass(frozen=True)
class PreparedImage:
    """What a record holds: the encoded image, its facts, and its area as a fraction of the original's."""

    data: bytes
    facts: ImageFacts
    area_fraction: float = 1.0


def prepare_image(data: bytes, rules: ImageRules) -> PreparedImage:
    """Checks an image file, and encodes it anew where TensorFlow does not decode its format or the rules ask.

    An image that is encoded anew keeps its orientation as a tag, so that boxes stay where they are, and its
    colour profile. It loses transparency, all frames but the first, and what is beyond 8 bits a channel, none
    of which a tagger sees.

    Raises:
        ImageProblem: see `inspect_image`.
    """
    if looks_convertible(data):
        data = _convert(data, rules.max_pixels)
    facts = inspect_image(data, rules.max_pixels, rules.decode)
    if not rules.must_encode(facts):
        return PreparedImage(data, facts)
    with _opened(data) as image:
        try:
            pixels = _shrink(image, rules.max_side)
        except Exception as error:  # see inspect_image
            raise ImageProblem("truncated_image", _one_line(error)) from None
        profile = image.info.get("icc_profile") if image.mode == pixels.mode else None
    width, height = pixels.size
    if max(width, height) > _MAX_JPEG_SIDE:
        raise ImageProblem(
            "too_large",
            f"{width} x {height} px: a JPEG has at most {_MAX_JPEG_SIDE:,} a side; use --max-side",
        )
    encoded = _encode_jpeg(pixels, rules.quality or DEFAULT_QUALITY, facts.orientation, profile)
    return PreparedImage(
        encoded,
        ImageFacts("jpeg", height, width, facts.orientation),
        (width * height) / (facts.width * facts.height),
    )


def inspect_image(data: bytes, max_pixels: int = MAX_PIXELS, decode: bool = True) -> ImageFacts:
    """Tells what `data` is; the file's name plays no part.

    Args:
        data: an encoded image file.
        max_pixels: larger images are refused by their header, before they are decoded.
        decode: decode all pixels by TensorFlow, as training does. Without it, a plain JPEG that ends as one
            does is taken to be whole, at a hundredth of the cost; any other image is decoded by Pillow.

    Raises:
        ImageProblem: `empty_file`, `not_an_image`, `unsupported_format`, `too_large`, `truncated_image` or
            `damaged_image`.
    """
    if not data:
        raise ImageProblem("empty_file")
    if not decode:
        return _inspect_quickly(data, max_pixels)
    from tfrecords.decoding.verdict import judge

    header = judge(data, max_pixels)
    try:
        with _opened(data) as image:
            return _read_facts(image, data, max_pixels)
    except ImageProblem:  # Pillow is stricter with some headers than who will decode it
        return ImageFacts(*header)


def _inspect_quickly(data: bytes, max_pixels: int) -> ImageFacts:
    if data.endswith(_JPEG_END):
        found = read_jpeg_header(data)
        if found is not None and found.height * found.width <= max_pixels:
            return ImageFacts("jpeg", found.height, found.width, parse_orientation(found.exif))
    foreign = name_foreign_jpeg(data)
    if foreign:
        raise ImageProblem("unsupported_format", f"{foreign}: save it as a JPEG of 8 bits, or as PNG")
    with _opened(data) as image:
        facts = _read_facts(image, data, max_pixels)
        _load_pixels(image)
    if facts.format == "png":
        _verify_png(data)
    return facts


def _convert(data: bytes, max_pixels: int) -> bytes:
    """The file as JPEG or PNG, where TensorFlow does not decode its format; else as it is."""
    if is_heif(data) and not register_heif():
        raise ImageProblem("unsupported_format", "HEIC: pip install 'cnnrnn-tf[heif]' to read it")
    with _opened(data) as image:
        if not must_convert(image):
            return data
        _check_size(image, max_pixels)
        try:
            return convert(image).data
        except ValueError as error:
            raise ImageProblem("unsupported_format", f"{image.format}: {_one_line(error)}") from None
        except Exception as error:  # see _opened
            raise ImageProblem("truncated_image", _one_line(error)) from None


@contextmanager
def _opened(data: bytes) -> Iterator:
    """The image as Pillow opens it, by its header."""
    from PIL import Image

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
            yield image


def _read_facts(image, data: bytes, max_pixels: int) -> ImageFacts:
    if image.format not in _FORMATS:
        raise ImageProblem("unsupported_format", f"{image.format}: expected JPEG, PNG, GIF, BMP or WebP")
    _check_size(image, max_pixels)
    file_format = _FORMATS[image.format]
    # Not getexif(), which would also believe XMP, as TensorFlow's side does not.
    exif = image.info.get("exif") if file_format == "jpeg" else find_exif(data, file_format)
    width, height = image.size
    return ImageFacts(file_format, height, width, parse_orientation(exif))


def _check_size(image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageProblem("too_large", f"{width} x {height} px: expected at most {max_pixels:,} pixels")


def _load_pixels(image) -> None:
    # All of a JPEG's data is read even when it is drafted at an eighth of its size, at a third of the cost.
    image.draft(None, (1, 1))
    try:
        image.load()
    except Exception as error:  # see _opened
        raise ImageProblem("truncated_image", _one_line(error)) from None


def _verify_png(data: bytes) -> None:
    """Decoding forgives a wrong checksum and a missing end, which TensorFlow does not."""
    with _opened(data) as image:
        try:
            image.verify()
        except Exception as error:  # see _opened
            raise ImageProblem("truncated_image", _one_line(error)) from None


def _shrink(image, max_side: int | None):
    """The pixels as RGB or grey, as TensorFlow reads them, no side longer than `max_side`."""
    from PIL import Image

    if max_side is not None and image.format in ("JPEG", "MPO"):
        image.draft(None, (2 * max_side, 2 * max_side))  # decodes at a half, a quarter or an eighth
    pixels = to_eight_bits(image)
    if max_side is not None:
        pixels.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return pixels


def _encode_jpeg(pixels, quality: int, orientation: int, profile: bytes | None) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    if orientation != 1:
        exif[ORIENTATION_TAG] = orientation
    file = io.BytesIO()
    pixels.save(file, "JPEG", quality=quality, exif=exif, icc_profile=profile)
    return file.getvalue()


def _one_line(error: Exception) -> str:
    # Pillow quotes the in-memory file by its address, which differs from run to run.
    return " ".join(str(error).split("<_io.BytesIO")[0].split()) or type(error).__name__
