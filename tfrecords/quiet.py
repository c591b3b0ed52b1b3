"""A block of code enters and runs; what native libraries would print during it is dropped."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silence_native_stderr() -> Iterator[None]:
    """Sends file descriptor 2 to nowhere inside the block; Python's exceptions pass as ever.

    For the import of TensorFlow, whose greetings (no CUDA, oneDNN is on) come before its log level counts and
    would break up progress bars and one-line errors.

    >>> with silence_native_stderr():
    ...     import tensorflow
    """
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
