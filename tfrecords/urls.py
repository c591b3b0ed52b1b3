"""A path or URL enters; the bytes there leave, or are written, by the file systems of Apache Beam.

A path is of a disk of this machine, or of one that it shares; which URLs there are (`gs://`, `s3://`, `hdfs://`)
is the business of Beam and of its extras.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from typing import IO

from tfrecords.errors import UserError


def is_url(path: str | os.PathLike) -> bool:
    """Whether `path` names something in an object store, such as `gs://bucket/images`."""
    return "://" in os.fspath(path)


def read_url(path: str) -> bytes:
    """The content of a file by Beam's file systems.

    Raises:
        FileNotFoundError, OSError: there is no such file, or it cannot be read.
        UserError: Beam is not installed, or lacks what this kind of URL needs.
    """
    import_beam()
    with open_file(path) as file:
        return file.read()


def import_beam() -> None:
    """Imports Apache Beam, which takes a moment. Raises: UserError where it is not installed."""
    logging.disable(logging.WARNING)  # Beam warns of what it would need on Google's cloud
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise UserError(f"Apache Beam is needed ({error}): pip install apache-beam") from None
    finally:
        logging.disable(logging.NOTSET)


def join_path(folder: str, name: str) -> str:
    """The place of `name` in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def _file_systems():
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


@contextlib.contextmanager
def _beam_errors(path: str) -> Iterator[None]:
    """Beam's errors as Python's."""
    from apache_beam.io.filesystem import BeamIOError

    try:
        yield
    except BeamIOError as error:
        raise OSError(errno.EIO, last_line(error), path) from None
    except ValueError as error:  # a kind of URL that Beam does not know, or lacks a library for
        raise UserError(f"{path}: {last_line(error)}; for gs:// pip install 'apache-beam[gcp]'") from None


def open_file(path: str) -> IO[bytes]:
    """Opens a file to be read. Raises: FileNotFoundError, other OSErrors, UserError, as `read_url`."""
    from apache_beam.io.filesystem import CompressionTypes

    with _beam_errors(path):
        if not _file_systems().exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return _file_systems().open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def write_whole(path: str, chunks: Iterable[bytes]) -> None:
    """Writes a file that nobody sees before it is whole; another worker may write the same one."""
    from apache_beam.io.filesystem import CompressionTypes

    systems = _file_systems()
    partial = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.partial"
    with _beam_errors(path):
        with contextlib.suppress(OSError):  # it exists; object stores have no folders
            systems.mkdirs(os.path.dirname(path))
        with systems.create(partial, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            for chunk in chunks:
                file.write(chunk)
        systems.rename([partial], [path])


def delete(path: str) -> None:
    """Removes a file, or all below a folder."""
    with _beam_errors(path):
        _file_systems().delete([path])


def remove_folder(folder: str) -> None:
    """Removes all that is below a folder."""
    if is_url(folder):
        delete(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def last_line(error: BaseException) -> str:
    """The last line that says something: runners wrap a worker's traceback in their own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line]
    return (named or lines or [type(error).__name__])[-1]
