"""Finds the images in a folder and below, one by one and always in the same order.

Content decides what is an image, see `file_kinds`; files that are none are counted. No list of all names is
ever held, be they in many folders or in one: a folder is read again for each window of names, the smallest
that are still to come.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Iterator

from cnnrnn_tf.serving.file_kinds import judge_file, sort_out

_WINDOW = 50_000  # names held at once; a folder of a million is read twenty times, a second each


def walk_images(
    folder: str | os.PathLike, others: Counter[str] | None = None, window: int = _WINDOW
) -> Iterator[tuple[str, str]]:
    """Yields what is to be tagged in a folder and its subfolders, in the order of `sort_key`.

    A linked folder is entered like another, unless the walk stands in it already: a link upwards ends there.

    Args:
        folder: where to begin.
        others: counts the files that are no images, by `file_kinds.name_kind`; whole when the walk ends.
        window: the most names of a folder that are held at once; the answer does not depend on it.

    Yields:
        (name, reason): the path from `folder` with "/" between its parts, and "". For a file that may be an
        image and cannot be read, why; for such a subfolder, its path with "/" at the end, and why.

    Raises:
        OSError: `folder` itself cannot be read.
    """
    root = os.fspath(folder)
    others = Counter() if others is None else others

    def judge(name):
        return judge_file(os.path.join(root, name))

    entered = [("", _identify(root), _list_sorted(root, window))]
    while entered:
        prefix, _, entries = entered[-1]
        try:
            entry = next(entries, None)
        except OSError as error:
            if not prefix:
                raise
            entered.pop()
            yield prefix, error.strerror
            continue
        if entry is None:
            entered.pop()
            continue
        name, is_folder = os.fsdecode(entry[0]), entry[1]
        if not is_folder:
            yield from sort_out([prefix + name], judge, others)
            continue
        below = f"{prefix}{name}/"
        try:
            identity = _identify(os.path.join(root, below))
        except OSError as error:
            yield below, error.strerror
            continue
        if identity not in [each for _, each, _ in entered]:
            entered.append((below, identity, _list_sorted(os.path.join(root, below), window)))


def sort_key(name: str) -> list[bytes]:
    """What a name that `walk_images` yields is ordered by: the bytes of its parts.

    >>> sorted(["b.jpg", "a/z.jpg", "a.jpg", "a/"], key=sort_key)
    ['a/', 'a/z.jpg', 'a.jpg', 'b.jpg']
    """
    return os.fsencode(name).split(b"/")


def _identify(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _list_sorted(path: str, window: int) -> Iterator[tuple[bytes, bool]]:
    """Yields (name, whether it is a folder) of all that is directly in a folder, sorted."""
    last = b""
    while True:
        with os.scandir(path) as entries:
            later = (entry for entry in entries if os.fsencode(entry.name) > last)
            listed = ((os.fsencode(entry.name), _is_folder(entry)) for entry in later)
            names = heapq.nsmallest(window, listed)
        yield from names
        if len(names) < window:
            return
        last = names[-1][0]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere, or round and round: reading it will say so
        return False
