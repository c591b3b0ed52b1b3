"""`Source`: the one interface between a data set as its owners ship it and everything that builds records."""

from __future__ import annotations

import os
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Iterator

from tfrecords.annotations import Annotation, Skip
from tfrecords.urls import is_url, read_url


class Source(ABC):
    """A data set as its owners ship it.

    A source is sent to worker processes, so it must pickle, and small: open files in methods and not in
    `__init__`. Labels are read in `annotations`; images only in `read_image`, which runs in the workers.
    """

    name: str = ""
    """The source's name on the command line (`table`), which the manifest keeps."""

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits that this data set has, among `train`, `validation` and `test`; always `train`."""

    @abstractmethod
    def annotations(self, split: str) -> Iterator[Annotation | Skip]:
        """Every image of `split`, in an order that is the same at every call."""

    def items(self) -> Iterator[tuple[str, Annotation | Skip]]:
        """Every split's annotations, each with its split; a source that mixes its splits reads them here."""
        for split in self.splits():
            for item in self.annotations(split):
                yield split, item

    def read_image(self, annotation: Annotation) -> bytes:
        """The image as its owners' encoded bytes. Raises: OSError where the file cannot be read."""
        if annotation.image_path is None:
            raise NotImplementedError(f"{type(self).__name__} makes its images, so it must define read_image")
        return read_file(annotation.image_path)

    def image_file(self, annotation: Annotation) -> str | None:
        """The file that holds the image, whether it is there or not; None where no file does."""
        return annotation.image_path

    def stamp_image(self, annotation: Annotation) -> tuple[int, ...] | None:
        """What changes when the image does, of its file (`stamp_file`); None without a file, and at a URL."""
        return None if annotation.image_path is None else stamp_file(annotation.image_path)

    def file_name(self, annotation: Annotation) -> str:
        """What a record names its image's file, without its folder."""
        return posixpath.basename(annotation.image_path or annotation.image_id)

    def arguments(self) -> dict:
        """What makes this data set what it is, as JSON, for the manifest; no absolute path of a machine."""
        return {}

    def label_names(self) -> tuple[str, ...] | None:
        """Names known beforehand, which stay in the vocabulary even if they never occur; or None."""
        return None

    def notes(self) -> list[str]:
        """What a person should be told of what was read, each in a line; asked for after `items`."""
        return []

    def explain_skip(self, skip: Skip) -> str:
        """What to do about an image that was left out, to stand behind its reason and detail; or ""."""
        return ""

    def reference_rows(self) -> list[dict]:
        """Scores known to be reachable, such as `{"name": "best set", "O-F1": 0.9}`, for the manifest."""
        return []


def is_folder(path: str | os.PathLike) -> bool:
    """Whether `path` is a folder on the disk, or a URL: what is there is seen when it is read."""
    return is_url(path) or os.path.isdir(path)


def read_file(path: str | os.PathLike) -> bytes:
    """The content of a file on the disk, or, by Apache Beam's file systems, of a URL.

    Raises:
        OSError: the file cannot be read.
        UserError: it is a URL, and Apache Beam is not installed.
    """
    if is_url(path):
        return read_url(path)
    with open(path, "rb", buffering=0) as file:
        return file.read()


def stamp_file(path: str) -> tuple[int, ...] | None:
    """A file's size and its times of change, of its content and of anything, in ns; None without a file."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def find_inside(root: str, path: str) -> str | None:
    """`path`, tidied, as seen from `root`; None where it climbs out of it, by `..` or as an absolute path.

    The check reads the text and not the disk: links that the user laid inside `root` are followed.

    >>> find_inside("photos", "a/./b.jpg"), find_inside("photos", "../photos/b.jpg")
    ('a/b.jpg', 'b.jpg')
    >>> find_inside("photos", "../secrets.jpg") is None
    True
    """
    if os.pardir not in path and not os.path.isabs(path):
        return os.path.normpath(path)
    relative = os.path.relpath(os.path.join(root, path), root)
    climbs = relative == os.pardir or relative.startswith(os.pardir + os.sep)
    return None if climbs else relative


def join_inside(root: str, path: str) -> str | None:
    """`path` joined to the folder `root`; None where it climbs out of it, see `find_inside`.

    >>> join_inside("photos", "a/./b.jpg")
    'photos/a/b.jpg'
    """
    relative = find_inside(root, path)
    if relative is None:
        return None
    joined = os.path.join(root, relative)
    return joined if is_url(root) else os.path.normpath(joined)
