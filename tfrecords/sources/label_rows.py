"""Joins the rows of a table of one row a label into one an image, on the disk and not in memory."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tfrecords.errors import UserError
from tfrecords.sources.label_cells import Place, tell_places


@dataclass(frozen=True, slots=True)
class Row:
    """One image as a table has it, or one of its rows.

    Attributes:
        place: the table and the line.
        image: what the table names the image.
        split: one of ours; None where the table names none.
        labels: names that hold.
        unknown: names of which nobody knows.
        absent: names that verifiably do not hold, where a table says so of some alone.
        values: the row's other columns, as far as `--image-pattern` needs them.
    """

    place: Place
    image: str
    split: str | None
    labels: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    values: Mapping[str, Any] | None = None


def join_rows(rows: Iterable[Row], all_names: Callable[[], Iterable[str]] | None = None) -> Iterator[Row]:
    """One row an image, in the order of their names; the place is that of its first row.

    A label that one row affirms and another denies is unknown.

    Args:
        all_names: all labels of the table, asked for when it is read; those that no row of an image mentions
            are unknown there. Without it they are absent.

    Raises:
        UserError: the rows of an image name different splits.
    """
    with contextlib.closing(
        sqlite3.connect("")
    ) as store:  # a file of its own that vanishes with the connection
        store.execute("CREATE TABLE rows (image BLOB, row BLOB)")
        store.executemany(
            "INSERT INTO rows VALUES (?, ?)",
            ((row.image.encode("utf-8", "surrogatepass"), pickle.dumps(_to_tuple(row), 5)) for row in rows),
        )
        names = None if all_names is None else tuple(all_names())
        query = "SELECT image, row FROM rows ORDER BY image, rowid"
        for _, group in itertools.groupby(store.execute(query), key=lambda pair: pair[0]):
            yield _join([Row(*pickle.loads(row)) for _, row in group], names)


def _to_tuple(row: Row) -> tuple:
    return row.place, row.image, row.split, row.labels, row.unknown, row.absent, row.values


def _join(rows: list[Row], names: tuple[str, ...] | None) -> Row:
    first = rows[0]
    for row in rows:
        if row.split != first.split:
            raise UserError(
                f"{tell_places(first.place, row.place)}: the image {first.image!r} is in both {first.split} "
                f"and {row.split}: what is tested would leak into training; leave it in one of the two"
            )
    labels = dict.fromkeys(name for row in rows for name in row.labels)
    absent = {name for row in rows for name in row.absent}
    unknown = dict.fromkeys(name for row in rows for name in row.unknown if name not in labels)
    unknown = {name: None for name in unknown if name not in absent}
    unknown |= {name: None for name in labels if name in absent}
    if names is not None:
        unknown |= {name: None for name in names if name not in labels and name not in absent}
    held = tuple(name for name in labels if name not in absent)
    return Row(first.place, first.image, first.split, held, tuple(unknown), (), first.values)
