"""Reads image files for tagging, and turns formats that no graph decodes into JPEG or PNG on the way.

What cameras and scanners write (HEIC, AVIF, TIFF, JPEG 2000) is converted on this side of the wire, by the
rules of a build (`tfrecords.conversion`), so that a file has the labels here that its record would have.
"""

from __future__ import annotations

import io
import os
import stat
import warnings

from cnnrnn_tf.serving.file_kinds import open_regular
from tfrecords.conversion import convert, is_heif, looks_convertible, must_convert, register_heif
from tfrecords.images import MAX_PIXELS

MAX_FILE_BYTES = 1 << 30
"""A larger file is not read: two batches of them would be more than a machine has memory."""


def read_image(path: str | os.PathLike) -> tuple[bytes, str]:
    """Returns a file's content, as `make_sendable` has it, and "", or b"" and why there is none.

    Never waits for a pipe.
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return b"", "not a file"
            if status.st_size > MAX_FILE_BYTES:
                return b"", "too large"
            data = file.read()
    except OSError as error:
        return b"", error.strerror
    return make_sendable(data)


def make_sendable(data: bytes) -> tuple[bytes, str]:
    """Returns an image file as the model's graph decodes it and "", or b"" and why it cannot be converted.

    JPEG, PNG, GIF, plain BMP and WebP files stay as they are, and so does what is no image, or is of a format
    that nobody reads here: of that the graph's own `error` says what it is.
    """
    if not looks_convertible(data):
        return data, ""
    from PIL import Image, UnidentifiedImageError

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
                return _convert(image)
        except Image.DecompressionBombError:
            return b"", "too large"
        except UnidentifiedImageError:
            return data, ""
        except Exception:  # Pillow's readers raise what their parsing meets
            return b"", "damaged"


def _convert(image) -> tuple[bytes, str]:
    try:
        return convert(image).data, ""
    except ValueError as error:
        return b"", f"{image.format}: {' '.join(str(error).split())}"
