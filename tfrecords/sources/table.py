"""A user's own table of images and labels (CSV or JSONL) enters; annotations leave.

Two forms are read: one column of labels joined by a separator (in JSON a list), or one column a label with 1,
0, and blank or -1 for unknown. A further column may name the split.

    python -m tfrecords build table --from labels.csv --images photos --name scenes
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfrecords.annotations import Annotation, Skip
from tfrecords.errors import UserError
from tfrecords.manifest import SPLITS
from tfrecords.sources.archives import open_archive, split_archive
from tfrecords.sources.base import Source, find_inside, is_folder, stamp_file
from tfrecords.sources.split_files import SPLIT_OF_WORD
from tfrecords.sources.table_files import Columns, Row, is_text, open_table


class TableSource(Source):
    """The images of one table. An image's id is its path as the table writes it, tidied, with `/` separators.

    Args:
        table: a CSV (comma, semicolon or tab; UTF-8) or, by its suffix .jsonl or .ndjson, a JSONL file.
        images: the folder that the table's image paths start from, which may be a .zip or .tar, or a folder
            in one, or a URL; the table's own folder by default. A path that climbs out of it is skipped
            as `path_outside_images`.
        image_column: by default the first of `image`, `image_path`, `file`, `filename`, `path`.
        labels_column: the column of joined labels; by default `labels` where there is one, else every column
            that is left over is a label.
        split_column: by default `split` where there is one; without it every image belongs to train.
        label_separator: what joins labels within a cell.
        ignore_columns: columns that are no labels.
    """

    name = "table"

    def __init__(
        self,
        table: str | Path,
        images: str | Path | None = None,
        *,
        image_column: str | None = None,
        labels_column: str | None = None,
        split_column: str | None = None,
        label_separator: str = ";",
        ignore_columns: Sequence[str] = (),
    ):
        if not label_separator:
            raise UserError("--label-separator is empty: give the character that joins labels, such as ';'")
        self.table = os.fspath(table)
        self.images = os.fspath(images) if images is not None else os.path.dirname(self.table) or os.curdir
        self.columns = Columns(
            image_column, labels_column, split_column, label_separator, tuple(ignore_columns)
        )
        self._splits: tuple[str, ...] | None = None
        self._label_names: tuple[str, ...] | None = None
        self.archive = split_archive(self.images)
        if self.archive is not None:
            open_archive(self.archive[0])
        elif not is_folder(self.images):
            raise UserError(f"{self.images}: no such folder or archive of images: give it with --images")

    def splits(self) -> tuple[str, ...]:
        self._read_once()
        return self._splits

    def annotations(self, split: str) -> Iterator[Annotation | Skip]:
        return (item for its_split, item in self.items() if its_split == split)

    def items(self) -> Iterator[tuple[str, Annotation | Skip]]:
        table = open_table(self.table, self.columns)
        found: set[str] = set()
        for split, item in self._read_items(table.rows()):
            found.add(split)
            yield split, item
        if not found:
            raise UserError(f"{self.table}: has no rows: expected one row an image below the header")
        self._splits = tuple(split for split in SPLITS if split in found)
        self._label_names = table.label_names()

    def label_names(self) -> tuple[str, ...] | None:
        self._read_once()
        return self._label_names

    def read_image(self, annotation: Annotation) -> bytes:
        if self.archive is None:
            return super().read_image(annotation)
        path, folder = self.archive
        return open_archive(path).read(os.path.join(folder, os.path.normpath(annotation.image_id)))

    def stamp_image(self, annotation: Annotation) -> tuple[int, ...] | None:
        return super().stamp_image(annotation) if self.archive is None else stamp_file(self.archive[0])

    def arguments(self) -> dict:
        given = {key: value for key, value in vars(self.columns).items() if value}
        return {"from": os.path.basename(self.table), **given}

    def _read_once(self) -> None:
        if self._splits is None:
            for _ in self.items():
                pass

    def _read_items(self, rows: Iterator[Row]) -> Iterator[tuple[str, Annotation | Skip]]:
        """Every row's split and annotation or skip; refuses rows that contradict an earlier one."""
        seen: set[int] = set()  # hashes of image ids: of a table of any length, no row is kept
        repeated: dict[str, Row] | None = None
        first = None
        for row in rows:
            first = first or row
            if (row.split is None) != (first.split is None):
                raise UserError(
                    f"{self.table} lines {first.line} and {row.line}: one names its split, one does not: "
                    f"name it in every row or in none"
                )
            split = self._read_split(row)
            path = self._find_path(row)
            if isinstance(path, Skip):
                yield split, path
                continue
            image_id = path.replace(os.sep, posixpath.sep)
            if hash(image_id) in seen:
                if repeated is None:
                    repeated = self._find_repeated()
                earlier = repeated.get(image_id, row)
                if earlier.line != row.line:
                    self._refuse_contradiction(image_id, split, row, self._read_split(earlier), earlier)
                    detail = f"{self._where(row)} repeats line {earlier.line}"
                    yield split, Skip(image_id, "duplicate_row", detail)
                    continue
            seen.add(hash(image_id))
            image_path = os.path.join(self.images, path)
            yield split, Annotation(image_id, image_path, row.labels, row.ignored)

    def _find_path(self, row: Row) -> str | Skip:
        """The image's path as seen from `images`, or why there is none."""
        if not row.image:
            return Skip(f"line {row.line}", "no_image_path", f"{self._where(row)}: no image path")
        if not is_text(row.image):
            detail = f"{self._where(row)}: {row.image!r} holds what no file name can"
            return Skip(f"line {row.line}", "invalid_image_path", detail)
        # A path may be written with the separators of another system: train\0001.jpg.
        path = find_inside(self.images, row.image.replace("\\", "/"))
        if path is None:
            detail = f"{self._where(row)}: {row.image} climbs out of {self.images}"
            return Skip(row.image, "path_outside_images", detail)
        return path

    def _find_repeated(self) -> dict[str, Row]:
        """The first row of each image that has more than one, by a second look at the table."""
        seen: set[int] = set()
        repeated: set[int] = set()
        for image_id, _ in self._identify_rows():
            key = hash(image_id)
            (repeated if key in seen else seen).add(key)
        first: dict[str, Row] = {}
        for image_id, row in self._identify_rows():
            if hash(image_id) in repeated:
                first.setdefault(image_id, row)
        return first

    def _identify_rows(self) -> Iterator[tuple[str, Row]]:
        for row in open_table(self.table, self.columns).rows():
            path = self._find_path(row)
            if isinstance(path, str):
                yield path.replace(os.sep, posixpath.sep), row

    def _read_split(self, row: Row) -> str:
        if row.split is None:
            return "train"
        split = SPLIT_OF_WORD.get(row.split.strip().lower())
        if split is None:
            raise UserError(
                f"{self._where(row)}: the split {row.split!r} is not one of {', '.join(SPLIT_OF_WORD)}; "
                f"another column can be named with --split-column"
            )
        return split

    def _refuse_contradiction(self, image_id: str, split: str, row: Row, seen_split: str, seen: Row) -> None:
        both = f"{self.table} lines {seen.line} and {row.line}: the image {image_id!r}"
        if split != seen_split:
            raise UserError(
                f"{both} is in both {seen_split} and {split}: what is tested would leak into training; "
                f"leave it in one of the two"
            )
        if set(seen.labels) != set(row.labels) or set(seen.ignored) != set(row.ignored):
            raise UserError(
                f"{both} has different labels in the two rows ({_join(seen.labels)} against "
                f"{_join(row.labels)}): leave one row"
            )

    def _where(self, row: Row) -> str:
        return f"{self.table} line {row.line}"


def _join(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "none"
