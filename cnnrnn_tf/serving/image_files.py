"""Reads image files for tagging: whole, or with the reason why not."""

from __future__ import annotations

import os
import stat

from cnnrnn_tf.serving.file_kinds import open_regular

MAX_FILE_BYTES = 1 << 30
"""A larger file is not read: two batches of them would be more than a machine has memory."""


def read_image(path: str | os.PathLike) -> tuple[bytes, str]:
    """Returns a file's content and "", or b"" and why it cannot be read. Never waits for a pipe."""
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return b"", "not a file"
            if status.st_size > MAX_FILE_BYTES:
                return b"", "too large"
            return file.read(), ""
    except OSError as error:
        return b"", error.strerror
