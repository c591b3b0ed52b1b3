"""Reads a user's own tables of images and labels: CSV, JSONL or JSON, in any of the forms that people have.

A row is an image, with one column of labels joined by a separator (in JSON a list) or one column a label with
1, 0, and blank or -1 for unknown; or a row is one label of an image. A further column may name the split.

    python -m tfrecords build table --from labels.csv --images photos --name scenes
"""

from __future__ import annotations

import os
import posixpath
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tfrecords.annotations import Annotation, Skip
from tfrecords.errors import UserError
from tfrecords.manifest import SPLITS
from tfrecords.sources.archives import open_archive
from tfrecords.sources.base import Source, stamp_file
from tfrecords.sources.image_files import FoundImage, ImageFinder, ImageFolder, ImagePattern
from tfrecords.sources.label_cells import tell_place, tell_places
from tfrecords.sources.label_rows import Row
from tfrecords.sources.nearest_image import explain_missing
from tfrecords.sources.split_files import SplitFile, parse_split_files
from tfrecords.sources.table_columns import folder_split
from tfrecords.sources.table_files import is_text
from tfrecords.sources.table_options import TableOptions
from tfrecords.sources.table_rows import TableReader
from tfrecords.words import count

_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_Words = str | Path | Sequence[str | Path]


class TableSource(Source):
    """The images of one table or several. An image's id is its file's path as seen from its folder of images.

    Args:
        table: a CSV (comma, semicolon, tab or pipe; UTF-8) or, by its suffix .jsonl, .ndjson or .json, a file
            of JSON objects; or several, each perhaps with its split: `["train=a.csv", "test=b.csv"]`.
        images: the folder that the image paths start from, which may be a .zip or .tar, or a folder in one,
            or a URL; each table's own folder by default. Several are looked through, unless they are of a
            split each, as tables may be. A path that climbs out is skipped as `path_outside_images`.
        options: fields of `TableOptions`.
    """

    name = "table"

    def __init__(self, table: _Words, images: _Words | None = None, **options):
        self.options = TableOptions(**options)
        self.files = parse_split_files(_list_words(table))
        self.images = parse_split_files(_list_words(images or ()), "--images")
        if self.options.split_column is not None and any(file.split for file in self.files):
            raise UserError(
                "--split-column and the splits that --from names exclude each other: leave one out"
            )
        _refuse_unnamed_splits(self.files, self.options)
        self._splits: tuple[str, ...] | None = None
        self._label_names: tuple[str, ...] | None = None
        self._notes: list[str] = []
        folders = [ImageFolder(path) for path in self._list_folders()]
        self._archives = {
            os.path.join(folder.path, ""): folder.archive[0]
            for folder in folders
            if folder.archive is not None
        }
        ImageFinder(folders, self.options.image_pattern)  # says what is wrong with the pattern

    def splits(self) -> tuple[str, ...]:
        self._read_once()
        return self._splits

    def annotations(self, split: str) -> Iterator[Annotation | Skip]:
        return (item for its_split, item in self.items() if its_split == split)

    def items(self) -> Iterator[tuple[str, Annotation | Skip]]:
        reader, images = self._open(), _Images(self)
        found: set[str] = set()
        for split, item in self._read_items(reader, images):
            found.add(split)
            yield split, item
        if not found:
            raise UserError(f"{self.files[0].path}: has no rows: expected one row an image below the header")
        self._splits = tuple(split for split in SPLITS if split in found)
        self._label_names = reader.label_names()
        self._notes = [*reader.notes(), *images.notes()]

    def label_names(self) -> tuple[str, ...] | None:
        self._read_once()
        return self._label_names

    def notes(self) -> list[str]:
        return self._notes

    def read_image(self, annotation: Annotation) -> bytes:
        archive = self._find_archive(annotation)
        if archive is None:
            return super().read_image(annotation)
        return open_archive(archive).read(os.path.relpath(annotation.image_path, archive))

    def stamp_image(self, annotation: Annotation) -> tuple[int, ...] | None:
        archive = self._find_archive(annotation)
        return super().stamp_image(annotation) if archive is None else stamp_file(archive)

    def explain_skip(self, skip: Skip) -> str:
        if skip.reason == "path_outside_images" and self.options.image_pattern is None:
            return "; if the files lie in --images itself: pass --image-pattern '{name}'"
        if skip.reason != "missing_image":
            return ""
        path = skip.detail or skip.image_id
        folders = [ImageFolder(folder) for folder in self._list_folders()]
        own = next((folder for folder in folders if path.startswith(os.path.join(folder.path, ""))), None)
        if own is None:
            return ""
        others = [folder for folder in folders if folder is not own]
        name = os.path.relpath(path, own.path)
        return explain_missing(name, [own, *others], self.options.image_pattern)

    def arguments(self) -> dict:
        names = [
            f"{file.split}={os.path.basename(file.path)}" if file.split else os.path.basename(file.path)
            for file in self.files
        ]
        return {"from": names[0] if len(names) == 1 else names, **self.options.arguments()}

    def _open(self) -> TableReader:
        pattern = self.options.image_pattern
        own = ("image", "name", "stem")
        columns = (
            [] if pattern is None else [name for name in ImagePattern(pattern).fields if name not in own]
        )
        return TableReader(self.files, self.options, columns)

    def _read_once(self) -> None:
        if self._splits is None:
            for _ in self.items():
                pass

    def _list_folders(self) -> list[str]:
        if self.images:
            return [file.path for file in self.images]
        return list(dict.fromkeys(os.path.dirname(file.path) or os.curdir for file in self.files))

    def _find_archive(self, annotation: Annotation) -> str | None:
        """The archive that holds the image, or None."""
        path = annotation.image_path
        return next((archive for folder, archive in self._archives.items() if path.startswith(folder)), None)

    def _read_items(self, reader: TableReader, images: _Images) -> Iterator[tuple[str, Annotation | Skip]]:
        """Every row's split and annotation or skip; refuses rows that contradict an earlier one."""
        seen: set[int] = set()  # hashes of image ids: of a table of any length, no row is kept
        repeated: dict[str, Row] | None = None
        for row in reader.rows():
            split = row.split or "train"
            found = images.find(row)
            if isinstance(found, Skip):
                yield split, found
                continue
            for image_id, image_path in found:
                if hash(image_id) in seen:
                    if repeated is None:
                        repeated, num_differing = self._find_repeated()
                    earlier = repeated.get(image_id, row)
                    if earlier.place != row.place:
                        self._refuse_contradiction(image_id, row, earlier, num_differing)
                        same = row.place[0] == earlier.place[0]
                        first = f"line {earlier.place[1]}" if same else tell_place(earlier.place)
                        detail = f"{tell_place(row.place)} repeats {first}"
                        yield split, Skip(image_id, "duplicate_row", detail)
                        continue
                seen.add(hash(image_id))
                yield split, Annotation(image_id, image_path, row.labels, row.unknown)

    def _find_repeated(self) -> tuple[dict[str, Row], int]:
        """The first row of each image that has more than one, and how many of these have rows that differ.

        It takes a second look at the tables.
        """
        seen: set[int] = set()
        repeated: set[int] = set()
        for image_id, _ in self._identify_rows():
            key = hash(image_id)
            (repeated if key in seen else seen).add(key)
        first: dict[str, Row] = {}
        differing: set[str] = set()
        for image_id, row in self._identify_rows():
            if hash(image_id) in repeated and first.setdefault(image_id, row).labels != row.labels:
                differing.add(image_id)
        return first, len(differing)

    def _identify_rows(self) -> Iterator[tuple[str, Row]]:
        images = _Images(self)
        for row in self._open().rows():
            found = images.find(row)
            for image_id, _ in () if isinstance(found, Skip) else found:
                yield image_id, row

    def _refuse_contradiction(self, image_id: str, row: Row, seen: Row, num_differing: int) -> None:
        both = f"{tell_places(seen.place, row.place)}: the image {image_id!r}"
        if seen.split != row.split:
            raise UserError(
                f"{both} is in both {seen.split} and {row.split}: what is tested would leak into training; "
                f"leave it in one of the two"
            )
        if set(seen.labels) != set(row.labels) or set(seen.unknown) != set(row.unknown):
            others = f", as {num_differing:,} images have" if num_differing > 1 else ""
            raise UserError(
                f"{both} has different labels in the two rows ({_join(seen.labels)} against "
                f"{_join(row.labels)}){others}: leave one row, or pass --rows label if each row is one label "
                "of its image"
            )


class _Images:
    """Where the images of rows are, by the folder of their split or of their table."""

    def __init__(self, source: TableSource):
        self.source = source
        self._finders: dict[str | None, ImageFinder] = {}
        self._prefixes: dict[str | None, str] = {}
        folders: dict[str | None, list[str]] = {}
        for file in source.images:
            folders.setdefault(file.split, []).append(file.path)
        if not source.images:
            for file in source.files:
                folders[file.path] = [os.path.dirname(file.path) or os.curdir]
        self._by_split = any(file.split for file in source.images)
        different = {folder for paths in folders.values() for folder in paths}
        apart = len(folders) > 1 and len(different) > 1
        common = os.path.commonpath([os.path.abspath(path) for path in different]) if apart else ""
        for key, paths in folders.items():
            self._finders[key] = ImageFinder(
                [ImageFolder(path) for path in paths], source.options.image_pattern
            )
            self._prefixes[key] = os.path.relpath(paths[0], common) if apart else ""

    def find(self, row: Row) -> list[FoundImage] | Skip:
        """The files of a row's image, each with its id; a skip where there can be none."""
        where = tell_place(row.place)
        if not row.image:
            return Skip(f"line {row.place[1]}", "no_image_path", f"{where}: no image path")
        if not is_text(row.image):
            detail = f"{where}: {row.image!r} holds what no file name can"
            return Skip(f"line {row.place[1]}", "invalid_image_path", detail)
        key = None
        if self._by_split:
            key = row.split or "train"
            if key not in self._finders:
                raise UserError(f"{where}: is of the split {key}, for which --images names no folder")
        elif not self.source.images:
            key = row.place[0]
        finder = self._finders[key]
        try:
            found = finder.find(row.image, row.values or {})
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if not found:
            folder = finder.folders[0].path
            return Skip(row.image, "path_outside_images", f"{where}: {row.image} climbs out of {folder}")
        if not self._prefixes[key]:
            return found
        return [FoundImage(posixpath.join(self._prefixes[key], name), path) for name, path in found]

    def notes(self) -> list[str]:
        """What a person should be told of the files' names."""
        num = sum(finder.num_other_forms for finder in self._finders.values())
        if not num:
            return []
        return [f"found under a name in another Unicode form than the table's: {count('image', num)}"]


def _list_words(words: _Words) -> list[str | Path]:
    return [words] if isinstance(words, str | os.PathLike) else list(words)


def _refuse_unnamed_splits(files: Sequence[SplitFile], options: TableOptions) -> None:
    """Tables whose names say train, valid or test would all be for training, and a folder is no table."""
    for file in files:
        tables = _find_tables(file.path) if os.path.isdir(file.path) else []
        if tables:
            words = ",".join(f"{folder_split(path) or 'train'}={path}" for path in tables)
            raise UserError(
                f"--from {file.path}: is a folder: name its tables, such as --from {shlex.quote(words)}"
            )
    splits = [folder_split(file.path) for file in files]
    is_said = options.split_column is not None or any(file.split for file in files)
    if not is_said and len(set(splits)) > 1 and None not in splits:
        words = ",".join(f"{split}={file.path}" for split, file in zip(splits, files, strict=True))
        raise UserError(
            f"--from names {len(files)} tables without their splits, which their names seem to say: pass "
            f"--from {shlex.quote(words)}, or --split-column if they have one"
        )


def _find_tables(folder: str) -> list[str]:
    """The tables in a folder or right below it, at most one for each split that their names say."""
    found: dict[str, str] = {}
    for path in _walk(folder):
        split = folder_split(path)
        if path.lower().endswith(_TABLE_SUFFIXES) and split is not None:
            found.setdefault(split, path)
    return [found[split] for split in SPLITS if split in found]


def _walk(folder: str) -> Iterable[str]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_file():
            yield os.path.normpath(entry.path)
    for entry in ordered:
        if entry.is_dir():
            for name in sorted(os.listdir(entry.path)):
                yield os.path.normpath(os.path.join(entry.path, name))


def _join(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "none"
