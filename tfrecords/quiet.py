"""Keeps what native libraries print off the screen, TensorFlow's greetings above all.

TensorFlow says four to eight lines when it is imported (oneDNN is on, no CUDA here), whatever its log level:
they would stand between those of a table, break up progress bars and hide the one line of a mistake.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import TextIO

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
"""TensorFlow's own variable: who sets it sees what it lets through, the greetings included."""

_saved: list[int] = []  # what file descriptor 2 was before each `silence_native_stderr` that goes on


@contextlib.contextmanager
def silence_native_stderr() -> Iterator[None]:
    """Sends file descriptor 2 to nowhere inside the block; Python's exceptions pass as ever.

    >>> with silence_native_stderr():
    ...     import tensorflow
    """
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    _saved.append(saved)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        _saved.remove(saved)
        os.close(saved)
        os.close(nowhere)


def open_stderr() -> TextIO:
    """A stream to where stderr leads, and goes on to lead while native code is silenced; to be closed.

    Where Python's stderr is not file descriptor 2 (a notebook's, a test's) nothing silences it.
    """
    try:
        is_native = sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # none, closed, or no file
        is_native = False
    if not is_native:
        return _KeptOpen(sys.stderr)
    descriptor = os.dup(_saved[0] if _saved else 2)
    return os.fdopen(descriptor, "w", encoding=sys.stderr.encoding, errors="replace")


def greet_silently(package: str = "tensorflow") -> None:
    """Lets the first import of `package` in this process, whoever does it, print nothing of its own.

    TensorFlow's log level is set to errors alone, too. Nothing is done where it was imported already, or
    where the user has set the level.
    """
    if package in sys.modules or os.environ.get(LOG_LEVEL) not in (None, "3"):
        return
    if not any(isinstance(finder, _SilentFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _SilentFinder(package))


class _SilentFinder(importlib.abc.MetaPathFinder):
    """Finds one package as Python would, with a loader that is silent while it runs; then it is gone."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name, path=None, target=None):
        if name != self._package:
            return None
        with contextlib.suppress(ValueError):  # another thread was first
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _SilentLoader(spec.loader)
        return spec


class _SilentLoader(importlib.abc.Loader):
    def __init__(self, loader) -> None:
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        os.environ.setdefault(LOG_LEVEL, "3")
        with silence_native_stderr():
            self._loader.exec_module(module)


class _KeptOpen:
    """A stream that belongs to somebody else, and is not closed."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return 0 if self._stream is None else self._stream.write(text)

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def close(self) -> None:
        """Leaves it to its owner."""
