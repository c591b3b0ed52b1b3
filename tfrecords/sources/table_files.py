"""A CSV or JSONL file enters; `Row`s leave, one an image, with the line they stand on.

Rows are read one by one. Whatever cannot be read is refused with file, line, column, what was found and what
was expected.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tfrecords.errors import UserError, nearest

IMAGE_COLUMNS = ("image", "image_path", "file", "filename", "path")
UNKNOWN_COLUMNS = ("unknown", "ignored")
DELIMITERS = (",", ";", "\t")
_VALUES = {"1": 1, "0": 0, "-1": None, "": None}
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_VALUE_RULE = "expected 1, 0, or blank or -1 for unknown"


@dataclass(frozen=True)
class Columns:
    """Which columns play which part; None leaves it to the names that this module knows."""

    image: str | None = None
    labels: str | None = None
    split: str | None = None
    separator: str = ";"
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One image as the table has it: `line` counts from 1, `split` is None without such a column."""

    line: int
    image: str
    split: str | None
    labels: tuple[str, ...]
    ignored: tuple[str, ...]


class TableFile(ABC):
    """A table on disk: its rows, and the label names that it announces."""

    def __init__(self, path: str, columns: Columns):
        self.path = path
        self.columns = columns

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """The rows from top to bottom. Raises: UserError at the first that cannot be read."""

    @abstractmethod
    def label_names(self) -> tuple[str, ...] | None:
        """The names of one-column-a-label tables, once `rows` is exhausted; None where labels are joined."""

    def fail(self, line: int, problem: str) -> UserError:
        return UserError(f"{self.path} line {line}: {problem}")

    def split_labels(self, text: str) -> tuple[str, ...]:
        """The labels of a joined cell: stripped, each once, empty pieces left out."""
        pieces = (piece.strip() for piece in text.split(self.columns.separator))
        return tuple(dict.fromkeys(piece for piece in pieces if piece))

    def sort_values(self, line: int, values: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The labels that hold and those that are unknown, of label -> 1, 0 or -1."""
        known = {name: self._read_value(line, name, value) for name, value in values.items()}
        positive = tuple(name for name, value in known.items() if value == 1)
        return positive, tuple(name for name, value in known.items() if value is None)

    def make_row(self, line: int, image: str, split: str | None, labels, ignored) -> Row:
        for name in (*labels, *ignored):
            if not is_text(name):
                raise self.fail(line, f"the label {name!r} holds a character that is no text: write it anew")
        for name in labels:
            if name in ignored:
                raise self.fail(line, f"the label {name!r} is both given and unknown: leave one of the two")
        return Row(line, image, split, tuple(labels), tuple(ignored))

    def _read_value(self, line: int, label: str, value: Any) -> int | None:
        text = "" if value is None else str(value).strip()
        if text in _VALUES:
            return _VALUES[text]
        try:
            number = float(value)  # 1.0, as spreadsheets write it, and JSON's true
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if number in (1, 0, -1):
            return None if number == -1 else int(number)
        raise self.fail(
            line,
            f"column {label!r} has the value {text!r}: {_VALUE_RULE}; a column of joined labels is named "
            f"with --labels-column, one that is no label with --ignore-columns",
        )


class CsvTable(TableFile):
    """A table with a header; the delimiter (comma, semicolon, tab) is the one that splits the header most."""

    @cached_property
    def header(self) -> list[str]:
        with open(self.path, encoding="utf-8-sig", newline="") as file:
            first_line = file.readline()
            file.seek(0)
            if not first_line.strip():
                raise UserError(f"{self.path}: is empty: expected a header such as image,labels,split")
            header = [name.strip() for name in next(csv.reader(file, delimiter=self.delimiter))]
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise self.fail(1, f"the column {repeated[0]!r} occurs twice: every column has a name of its own")
        return header

    @cached_property
    def delimiter(self) -> str:
        with open(self.path, encoding="utf-8-sig", newline="") as file:
            first_line = file.readline()
        num_columns = {mark: len(next(csv.reader([first_line], delimiter=mark), [])) for mark in DELIMITERS}
        return max(DELIMITERS, key=num_columns.__getitem__)

    @cached_property
    def roles(self) -> dict[str, str | None]:
        """image, split, labels, unknown -> the column that plays this part, or None."""
        given = self.columns
        roles = {
            "image": self._find("--image-column", given.image, IMAGE_COLUMNS),
            "split": self._find("--split-column", given.split, ("split",)),
            "labels": self._find("--labels-column", given.labels, ("labels",)),
        }
        roles["unknown"] = self._find("", None, UNKNOWN_COLUMNS) if roles["labels"] else None
        if roles["image"] is None:
            raise self.fail(
                1,
                f"no column of image paths among {', '.join(self.header)}: expected "
                f"{' or '.join(IMAGE_COLUMNS)}, or name it with --image-column",
            )
        parts = [part for part in ("image", "split", "labels") if roles[part] is not None]
        for part, other in itertools.combinations(parts, 2):
            if roles[part] == roles[other]:
                raise self.fail(
                    1, f"the column {roles[part]!r} cannot be both --{part}-column and --{other}-column"
                )
        return roles

    @cached_property
    def label_columns(self) -> list[str]:
        """The columns that are a label each; none where labels are joined in one."""
        for name in self.columns.ignore:
            self._find("--ignore-columns", name, ())
        if self.roles["labels"]:
            return []
        taken = {*self.roles.values(), *self.columns.ignore}
        names = [name for name in self.header if name not in taken]
        if not names:
            raise self.fail(
                1, "no column of labels: expected `labels`, one named with --labels-column, or one a label"
            )
        if "" in names:
            raise self.fail(1, f"column {self.header.index('') + 1} has no name: a label column needs one")
        return names

    def rows(self) -> Iterator[Row]:
        header, roles, label_columns = self.header, self.roles, self.label_columns
        with open(self.path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            try:
                next(reader)
                for cells in reader:
                    if not any(cells):
                        continue
                    if len(cells) != len(header):
                        raise self.fail(reader.line_num, self._explain_ragged(cells))
                    values = dict(zip(header, cells, strict=True))
                    image = values[roles["image"]].strip()
                    split = values[roles["split"]] if roles["split"] else None
                    if label_columns:
                        named = {name: values[name] for name in label_columns}
                        labels, ignored = self.sort_values(reader.line_num, named)
                    else:
                        labels = self.split_labels(values[roles["labels"]])
                        ignored = self.split_labels(values[roles["unknown"]]) if roles["unknown"] else ()
                    yield self.make_row(reader.line_num, image, split, labels, ignored)
            except csv.Error as error:
                raise self.fail(reader.line_num, f"not CSV: {error}; check the quotes") from None

    def label_names(self) -> tuple[str, ...] | None:
        return tuple(self.label_columns) or None

    def _find(self, flag: str, given: str | None, candidates: Sequence[str]) -> str | None:
        if given is not None:
            if given not in self.header:
                raise self.fail(
                    1,
                    f"{flag} {given}: no such column{nearest(given, self.header)}; "
                    f"the columns are {', '.join(self.header)}",
                )
            return given
        of_lower_case = {name.lower(): name for name in self.header}
        return next((of_lower_case[name] for name in candidates if name in of_lower_case), None)

    def _explain_ragged(self, cells: Sequence[str]) -> str:
        return (
            f"{len(cells)} cells where the header has {len(self.header)}, separated by {self.delimiter!r}: "
            f"quote cells that contain it"
        )


class JsonlTable(TableFile):
    """One JSON object a line: `{"image": "a.jpg", "labels": ["sea", "sky"], "split": "train"}`.

    `labels` may also be a joined text, or an object label -> 1, 0, -1 or null; there a label that is left out
    is 0. A list or joined text `unknown` may name the labels that are not known.
    """

    def __init__(self, path: str, columns: Columns):
        super().__init__(path, columns)
        self._names: dict[str, None] = {}

    def rows(self) -> Iterator[Row]:
        with open(self.path, encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    yield self._read_line(line, text)

    def label_names(self) -> tuple[str, ...] | None:
        return tuple(self._names) or None

    def _read_line(self, line: int, text: str) -> Row:
        try:
            item = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.fail(line, f"not JSON: {error}; expected one object a line") from None
        if not isinstance(item, dict):
            raise self.fail(line, f"holds {text.strip()[:40]!r}: expected one JSON object a line")
        image = self._take(line, item, (self.columns.image,) if self.columns.image else IMAGE_COLUMNS)
        if image is not None and not isinstance(image, str):
            raise self.fail(line, f"the image path is {image!r}: expected text")
        split = self._take(line, item, (self.columns.split or "split",), required=bool(self.columns.split))
        labels, ignored = self._read_labels(line, self._take(line, item, (self.columns.labels or "labels",)))
        unknown = self._take(line, item, UNKNOWN_COLUMNS, required=False)
        ignored += self._read_names(line, unknown) if unknown is not None else ()
        return self.make_row(
            line, (image or "").strip(), None if split is None else str(split), labels, ignored
        )

    def _take(self, line: int, item: Mapping, keys: Sequence[str], required: bool = True) -> Any:
        for key in keys:
            if key in item:
                return item[key]
        if required:
            raise self.fail(
                line, f"has no key {' or '.join(map(repr, keys))}; its keys are {', '.join(item) or 'none'}"
            )
        return None

    def _read_labels(self, line: int, labels: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if isinstance(labels, dict):
            values = {name.strip(): value for name, value in labels.items()}
            if "" in values or len(values) < len(labels):
                raise self.fail(line, f"the labels {list(labels)} are empty or alike: name each once")
            self._names.update(dict.fromkeys(values))
            return self.sort_values(line, values)
        return self._read_names(line, labels), ()

    def _read_names(self, line: int, names: Any) -> tuple[str, ...]:
        if isinstance(names, str):
            return self.split_labels(names)
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            stripped = (name.strip() for name in names)
            return tuple(dict.fromkeys(name for name in stripped if name))
        raise self.fail(
            line,
            f"the labels are {names!r}: expected a list of texts, a joined text, or an object of 1 and 0",
        )


def is_text(text: str) -> bool:
    """Whether `text` can stand in a file: no NUL and no half of a UTF-16 pair, which JSON can spell.

    >>> is_text("été"), is_text("a\\0b"), is_text("\\ud800")
    (True, False, False)
    """
    return _NO_TEXT.search(text) is None


def open_table(path: str, columns: Columns) -> TableFile:
    """The reader for the file at `path`, by its suffix: .jsonl, .ndjson and .json are JSONL, all else is CSV.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        _check_utf8(path)
    except OSError as error:
        raise UserError(f"cannot read the table {path}: {error.strerror or error}") from None
    is_jsonl = Path(path).suffix.lower() in (".jsonl", ".ndjson", ".json")
    return (JsonlTable if is_jsonl else CsvTable)(path, columns)


def _check_utf8(path: str) -> None:
    if not os.path.isfile(path) and os.path.exists(path) and not os.path.isdir(path):
        raise UserError(f"{path}: no file that can be read twice: save the table first")
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{path} line {number}: not UTF-8: save the table as UTF-8") from None
