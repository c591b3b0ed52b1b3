"""A .zip or .tar of images enters; the bytes of any of its members leave, the others unread."""

from __future__ import annotations

import errno
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePath

from tfrecords.errors import UserError
from tfrecords.sources.base import stamp_file

_COMPRESSED_TARS = (".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MAX_BYTES = 1 << 30
"""The largest member that is read: beyond lie decompression bombs."""


class ImageArchive(ABC):
    """The members of an archive, by their tidied names."""

    def __init__(self, path: str):
        self.path = path

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of one member.

        Raises:
            FileNotFoundError: there is no such member.
            OSError: it is damaged, encrypted or too large.
        """

    @abstractmethod
    def names(self) -> Iterator[str]:
        """The tidied names of all members that are files."""

    @abstractmethod
    def __contains__(self, name: str) -> bool:
        """Whether there is a member of this tidied name."""

    def _fail(self, name: str, code: int, reason: str | None = None) -> OSError:
        return OSError(code, reason or os.strerror(code), os.path.join(self.path, name))


class ZipArchive(ImageArchive):
    """Finds members by the directory at the end of the file."""

    def __init__(self, path: str):
        super().__init__(path)
        self._file = zipfile.ZipFile(path)
        self._members = {os.path.normpath(info.filename): info for info in self._file.infolist()}

    def names(self) -> Iterator[str]:
        return (name for name, info in self._members.items() if not info.is_dir())

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str) -> bytes:
        info = self._members.get(name)
        if info is None:
            raise self._fail(name, errno.ENOENT)
        if info.is_dir():
            raise self._fail(name, errno.EISDIR)
        if info.file_size > _MAX_BYTES:
            raise self._fail(name, errno.EFBIG)
        try:
            return self._file.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise self._fail(name, errno.EIO, f"damaged in the archive ({error})") from None
        except (RuntimeError, NotImplementedError) as error:  # a password, or a method that Python lacks
            raise self._fail(name, errno.EIO, f"cannot be unpacked ({error})") from None


class TarArchive(ImageArchive):
    """Finds members by an index of their places, made when the archive is opened."""

    def __init__(self, path: str):
        super().__init__(path)
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - until `__del__`
        self._places: dict[str, tuple[int, int] | None] = {}  # start and size; None for what is no file
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                place = (info.offset_data, info.size) if info.isreg() else None
                if info.islnk():  # a second name of a file that stands before it
                    place = self._places.get(os.path.normpath(info.linkname))
                self._places[os.path.normpath(info.name)] = place
                archive.members.clear()  # which it would keep

    def __del__(self) -> None:
        self._file.close()

    def names(self) -> Iterator[str]:
        return (name for name, place in self._places.items() if place is not None)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def read(self, name: str) -> bytes:
        if name not in self._places:
            raise self._fail(name, errno.ENOENT)
        place = self._places[name]
        if place is None:
            raise self._fail(name, errno.EINVAL, "no plain file in the archive")
        start, size = place
        if size > _MAX_BYTES:
            raise self._fail(name, errno.EFBIG)
        data = os.pread(self._file.fileno(), size, start)
        if len(data) != size:
            raise self._fail(name, errno.EIO, "cut off in the archive")
        return data


def split_archive(path: str) -> tuple[str, str] | None:
    """The archive and the folder in it that `path` names; None where it names a folder on the disk.

    Raises:
        UserError: it is an archive that cannot be read member by member.
    """
    parts = PurePath(path).parts
    for end in range(1, len(parts) + 1):
        start = str(PurePath(*parts[:end]))
        if os.path.isfile(start):
            if start.lower().endswith(_COMPRESSED_TARS):
                raise UserError(
                    f"{start}: a compressed tar cannot be read image by image: unpack it, or pack the images "
                    "as .tar or .zip"
                )
            return start, os.path.normpath(os.path.join(*parts[end:])) if parts[end:] else ""
    return None


def open_archive(path: str) -> ImageArchive:
    """The archive at `path`, opened once a process as long as it does not change.

    Raises:
        UserError: it is neither a .zip nor a .tar, or is damaged.
    """
    return _open_once(path, stamp_file(path))


@lru_cache(maxsize=2)
def _open_once(path: str, stamp) -> ImageArchive:
    try:
        return (ZipArchive if zipfile.is_zipfile(path) else TarArchive)(path)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{path}: neither a folder of images, nor a .zip or .tar of them ({error}): give one with "
            "--images"
        ) from None
