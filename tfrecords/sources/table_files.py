"""Reads the rows of a CSV, a JSONL or a JSON file, each with its line, and judges none of them."""

from __future__ import annotations

import csv
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tfrecords.errors import UserError
from tfrecords.sources.table_options import TableOptions

DELIMITERS = (",", ";", "\t", "|")
IMAGE_SUFFIX = re.compile(r"\.(jpe?g|png|gif|bmp|webp|tiff?|heic|avif|jp2)$", re.IGNORECASE)
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_EXCEL_HINT = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_MAX_CELL = 1 << 30
"""Characters of a cell: csv's own limit of 131,072 is below what masks take."""
_FORMATS = {
    b"PK\x03\x04": "is an Excel workbook or a .zip: save the table as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook: save the table as CSV",
    b"PAR1": "is a Parquet file: save the table as CSV or JSONL",
    b"\x1f\x8b": "is compressed: unpack it first",
    b"\xff\xfe": "is in UTF-16: save the table as UTF-8",
    b"\xfe\xff": "is in UTF-16: save the table as UTF-8",
}


class TableFile(ABC):
    """A table on disk. Its rows are dictionaries: of text in a CSV, of whatever JSON has in a JSON file."""

    word = "column"
    """What a row's parts are called."""

    def __init__(self, path: str, options: TableOptions):
        self.path = path
        self.options = options

    @abstractmethod
    def rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Every row after its line, counted from 1. Raises: UserError at the first that is none."""

    def fail(self, line: int, problem: str) -> UserError:
        """An error that names the file and the line."""
        return UserError(f"{self.path} line {line}: {problem}")


class CsvTable(TableFile):
    """A table with a header; the delimiter is the one of comma, semicolon, tab, pipe that splits it most.

    Without a header the options name the columns.
    """

    @cached_property
    def header(self) -> list[str]:
        """The names of all columns; several may have none."""
        cells = next(self._read(), (0, []))[1]
        if not any(map(str.strip, cells)):
            raise UserError(f"{self.path}: is empty: expected a header such as image,labels,split")
        if not self.options.columns:
            header = [name.strip() for name in cells]
            problem = _explain_no_header(header)
            if problem is not None:
                raise self.fail(1, problem)
        elif len(cells) == len(self.options.columns):
            header = list(self.options.columns)
        else:
            raise self.fail(
                1, f"{len(cells)} cells, but --columns names {len(self.options.columns)} ('_' ignores one)"
            )
        named = [name for name in header if name and not (name == "_" and self.options.columns)]
        repeated = sorted({name for name in named if named.count(name) > 1} - {*self.options.ignore_columns})
        if repeated:
            raise self.fail(1, f"the column {repeated[0]!r} occurs twice: every column has a name of its own")
        return header

    @cached_property
    def delimiter(self) -> str:
        """What separates cells."""
        if self._excel_hint:
            return self._excel_hint
        with self._open() as file:
            first_line = file.readline()
        words = first_line.split()
        is_list = len(words) > 1 and set(words[1:]) <= {"0", "1", "-1"}
        if is_list and not any(mark in first_line for mark in DELIMITERS):
            return " "  # `a.jpg 0 1 0`
        num_columns = {mark: len(next(csv.reader([first_line], delimiter=mark), [])) for mark in DELIMITERS}
        return max(DELIMITERS, key=num_columns.__getitem__)

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        header = self.header
        lines = self._read()
        if not self.options.columns:
            next(lines)
        for line, cells in lines:
            if len(cells) != len(header):
                if not any(cells):
                    continue
                raise self.fail(
                    line,
                    f"{len(cells)} cells where the header has {len(header)}, separated by "
                    f"{self.delimiter!r}: quote cells that contain it",
                )
            yield line, dict(zip(header, cells, strict=True))

    def _read(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(_MAX_CELL)
        with self._open() as file:
            skipped = 1 if self._excel_hint else 0
            for _ in range(skipped):
                file.readline()
            is_list = self.delimiter == " "
            reader = csv.reader(file, delimiter=self.delimiter, strict=True, skipinitialspace=is_list)
            try:
                for cells in reader:
                    if cells:
                        yield reader.line_num + skipped, cells
            except csv.Error as error:
                raise self.fail(reader.line_num + skipped, f"not CSV: {error}; check the quotes") from None

    def _open(self):
        return open(self.path, encoding="utf-8-sig", newline="")

    @cached_property
    def _excel_hint(self) -> str | None:
        """The delimiter of a first line `sep=;`, which Excel reads and writes."""
        with self._open() as file:
            hint = _EXCEL_HINT.fullmatch(file.readline().strip())
        return hint and hint[1]


class JsonTable(TableFile):
    """JSON objects, one a line, or in one array: `{"image": "a.jpg", "labels": ["sea", "sky"]}`."""

    word = "key"

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        if self.options.columns:
            raise UserError(f"{self.path}: --columns is for a CSV without a header; JSON has its own keys")
        with open(self.path, encoding="utf-8-sig") as file:
            is_array = next((line for line in file if line.strip()), "").lstrip().startswith("[")
        return self._read_array() if is_array else self._read_lines()

    def _read_lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with open(self.path, encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    try:
                        item = json.loads(text)
                    except (ValueError, RecursionError) as error:
                        raise self.fail(line, self._explain_no_json(line, error)) from None
                    yield line, self._check_object(line, item)

    def _read_array(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Item by item, so that beside the text no more than one is in memory."""
        text = Path(self.path).read_text(encoding="utf-8-sig")
        skip, decode = re.compile(r"\s*(,?)\s*").match, json.JSONDecoder().raw_decode
        place = text.index("[") + 1
        line, counted, num_items = 1, 0, 0
        while True:
            gap = skip(text, place)
            place = gap.end()
            line, counted = line + text.count("\n", counted, place), place
            if text.startswith("]", place):
                if text[place + 1 :].strip():
                    raise self.fail(line, "not JSON: there is more behind the array's end")
                return
            if bool(gap[1]) != bool(num_items):
                raise self.fail(line, "not JSON: expected an array of objects, with commas between them")
            num_items += 1
            try:
                item, place = decode(text, place)
            except (ValueError, RecursionError) as error:
                raise self.fail(line, f"not JSON: {error}; expected an array of objects") from None
            yield line, self._check_object(line, item)

    def _check_object(self, line: int, item: Any) -> dict[str, Any]:
        if not isinstance(item, dict):
            raise self.fail(line, f"holds {json.dumps(item)[:40]!r}: expected one JSON object an image")
        if {"images", "annotations", "categories"} <= item.keys():
            raise self.fail(line, "is of COCO's form: `python -m tfrecords build coco --from` reads it")
        return {key.strip(): value for key, value in item.items()}

    def _explain_no_json(self, line: int, error: Exception) -> str:
        if line == 1 and Path(self.path).suffix.lower() == ".json":
            return f"not JSON: {error}; expected one object a line, or an array of objects"
        return f"not JSON: {error}; expected one object a line"


def _explain_no_header(cells: Sequence[str]) -> str | None:
    if len(cells) > 2 and set(cells[1:]) <= {"0", "1"}:
        return (
            "is of the form `path 0 1 0`, without names of labels: name the columns with --columns "
            "image,FIRST,SECOND,...; or `python -m tfrecords build nuswide81 --from FILE --names NAMES` "
            "reads it with a file of names"
        )
    if not any(map(IMAGE_SUFFIX.search, cells)):
        return None
    columns = ["image" if IMAGE_SUFFIX.search(cell) else f"column{i}" for i, cell in enumerate(cells, 1)]
    if len(columns) == 2 and columns.count("image") == 1:
        columns[columns.index("image") - 1] = "labels"
    shown, named = ", ".join(cells)[:80], ",".join(columns)
    return f"is no header but an image ({shown}): name the columns with --columns {named}"


def is_text(text: str) -> bool:
    """Whether `text` can stand in a file: no NUL and no half of a UTF-16 pair, which JSON can spell.

    >>> is_text("été"), is_text("a\\0b"), is_text("\\ud800")
    (True, False, False)
    """
    return _NO_TEXT.search(text) is None


def open_table(path: str, options: TableOptions) -> TableFile:
    """The reader for the file at `path`, by its suffix: .jsonl, .ndjson and .json are JSON, all else is CSV.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        _check_utf8(path)
    except OSError as error:
        raise UserError(f"cannot read the table {path}: {error.strerror or error}") from None
    is_json = Path(path).suffix.lower() in (".jsonl", ".ndjson", ".json")
    return (JsonTable if is_json else CsvTable)(path, options)


def _check_utf8(path: str) -> None:
    if not os.path.isfile(path) and os.path.exists(path) and not os.path.isdir(path):
        raise UserError(f"{path}: no file that can be read twice: save the table first")
    with open(path, "rb") as file:
        start = file.read(4)
        for magic, advice in _FORMATS.items():
            if start.startswith(magic):
                raise UserError(f"{path}: {advice}")
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{path} line {number}: not UTF-8: save the table as UTF-8") from None
