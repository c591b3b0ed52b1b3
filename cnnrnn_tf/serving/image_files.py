"""Reads image files for tagging, and turns formats that no graph decodes into JPEG or PNG on the way.

What cameras and scanners write (HEIC, AVIF, TIFF, JPEG 2000) is converted on this side of the wire, by the
rules of a build (`tfrecords.conversion`), so that a file has the labels here that its record would have.
"""

from __future__ import annotations

import os
import stat

from cnnrnn_tf.serving.file_kinds import open_regular
from tfrecords.conversion import make_sendable

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
