"""Annotations and skips enter in the order of their source; they leave in the order on disk, shard by shard.

They wait in a file and not in memory, so that a build of any number of images needs the same.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tfrecords.annotations import Annotation, Skip

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE images (split TEXT, position BLOB, image_id BLOB, annotation BLOB);
CREATE TABLE skips (split TEXT, reason TEXT, image_id BLOB, detail BLOB, by_choice INTEGER);
"""
_INDEXES = """
CREATE INDEX by_id ON images (image_id, split);
CREATE INDEX by_position ON images (split, position);
"""


class AnnotationStore:
    """A file of all annotations and skips of a build, for one process to fill and for many to read.

    Images are ordered by a hash of their ids, so that shards read one after the other are mixed already. It
    is not the hash of the hold-out, by which the held-out images would fill the first shards.
    """

    def __init__(self, path: str | Path):
        """Opens what `fill` has made, to be read."""
        self.path = Path(path)
        self._connection = sqlite3.connect(self.path)

    @classmethod
    def fill(cls, path: str | Path, items: Iterable[tuple[str, Annotation | Skip]]) -> AnnotationStore:
        """Makes the file anew, of (split, item) as a source yields them.

        Raises:
            OSError: the disk refuses.
        """
        Path(path).unlink(missing_ok=True)
        with _os_errors(path):
            store = cls(path)
            store._connection.executescript(_TABLES)
            with store._connection:
                store._connection.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", store._divide(items))
                store._connection.executescript(_INDEXES)
        return store

    def _divide(self, items: Iterable[tuple[str, Annotation | Skip]]) -> Iterator[tuple]:
        for split, item in items:
            if isinstance(item, Skip):
                self.add_skips(split, [item])
            else:
                image_id = _to_bytes(item.image_id)
                position = hashlib.sha256(b"order\0" + image_id).digest()
                yield split, position, image_id, _to_pickle(item)

    def add_skips(self, split: str, skips: Iterable[Skip]) -> None:
        """Adds images that were left out of `split`. Raises: OSError where the disk refuses."""
        rows = (
            (split, skip.reason, _to_bytes(skip.image_id), _to_bytes(skip.detail), skip.by_choice)
            for skip in skips
        )
        with _os_errors(self.path):
            self._connection.executemany("INSERT INTO skips VALUES (?, ?, ?, ?, ?)", rows)

    def count_images(self, split: str) -> int:
        """How many annotations `split` has."""
        [(count,)] = self._connection.execute("SELECT COUNT(*) FROM images WHERE split = ?", (split,))
        return count

    def find_repeated(self) -> tuple[str, list[str]] | None:
        """An image id that occurs more than once, and the split of each time; None where there is none."""
        query = "SELECT image_id FROM images GROUP BY image_id HAVING COUNT(*) > 1 LIMIT 1"
        for (image_id,) in self._connection.execute(query):
            query = "SELECT split FROM images WHERE image_id = ? ORDER BY rowid"
            splits = [split for (split,) in self._connection.execute(query, (image_id,))]
            return _to_text(image_id), splits
        return None

    def positions(self, split: str) -> Iterator[bytes]:
        """The hashes that order the images of `split`, in their order."""
        query = "SELECT position FROM images WHERE split = ? ORDER BY position"
        return (position for (position,) in self._connection.execute(query, (split,)))

    def annotations(self, split: str, first: bytes, count: int) -> Iterator[Annotation]:
        """`count` annotations of `split` from the position `first` on, in their order."""
        query = (
            "SELECT annotation FROM images WHERE split = ? AND position >= ? ORDER BY position, rowid LIMIT ?"
        )
        rows = self._connection.execute(query, (split, first, count))
        return (Annotation(*pickle.loads(values)) for (values,) in rows)

    def annotations_as_read(self, split: str) -> Iterator[Annotation]:
        """The annotations of `split` in the order of their source."""
        query = "SELECT annotation FROM images WHERE split = ? ORDER BY rowid"
        return (Annotation(*pickle.loads(values)) for (values,) in self._connection.execute(query, (split,)))

    def count_skips(self, split: str, faults_only: bool = False) -> dict[str, int]:
        """Reason -> how many images of `split` were left out for it; of `faults_only`, not by choice."""
        query = "SELECT reason, COUNT(*) FROM skips WHERE split = ? AND by_choice <= ? GROUP BY 1 ORDER BY 1"
        return dict(self._connection.execute(query, (split, not faults_only)))

    def skips(self, split: str) -> Iterator[Skip]:
        """The images of `split` that were left out, by reason, id and detail."""
        query = (
            "SELECT image_id, reason, detail, by_choice FROM skips WHERE split = ? "
            "ORDER BY reason, image_id, detail"
        )
        for image_id, reason, detail, by_choice in self._connection.execute(query, (split,)):
            yield Skip(_to_text(image_id), reason, _to_text(detail), bool(by_choice))

    def close(self) -> None:
        """Releases the file."""
        self._connection.close()

    def __enter__(self) -> AnnotationStore:
        return self

    def __exit__(self, *error) -> None:
        self.close()


@contextmanager
def _os_errors(path: str | Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:  # of a disk that is full, read-only or broken
        raise OSError(errno.EIO, str(error), os.fspath(path)) from None


def _to_pickle(item: Annotation) -> bytes:
    """The values alone, at a third of the cost of the object."""
    values = (item.image_id, item.image_path, item.labels, item.ignored, item.boxes)
    return pickle.dumps(values, protocol=5)


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
