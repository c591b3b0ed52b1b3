"""Finds which column of a table is what, by the names that people use, and asks where that is a guess."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfrecords.errors import nearest
from tfrecords.sources.table_files import IMAGE_SUFFIX, CsvTable, TableFile
from tfrecords.sources.table_options import TableOptions, split_names

IMAGE_COLUMNS = (
    *("image", "image_path", "file", "filename", "file_name", "path", "filepath", "file_path"),
    *(
        "image_file",
        "image_filename",
        "image_name",
        "fname",
        "img",
        "img_path",
        "img_name",
        "photo",
        "picture",
    ),
    *("image_index", "image_id", "img_id"),
)
LABELS_COLUMNS = ("labels", "tags")
SPLIT_COLUMNS = ("split",)
CONFIDENCE_COLUMNS = ("confidence", "conf", "score", "probability")
UNKNOWN_COLUMNS = ("unknown", "ignored")
_LIKE_SPLITS = re.compile(
    "(data)?(split|subset|partition|fold|phase|stage|usage|set)(name)?|dataset|is(train|valid|val|test)(ing)?"
    "|isvalidation|traintest|trainvaltest"
)
_SPLIT_VALUES = {"0", "1", "2", "true", "false", "0.0", "1.0", "2.0"}


@dataclass(frozen=True)
class Roles:
    """The columns of a table by what they are; `label_columns` are empty where labels are joined in one."""

    image: str
    split: str | None
    labels: str | None
    unknown: str | None
    confidence: str | None
    label_columns: tuple[str, ...]


def read_rows(
    table: TableFile, options: TableOptions, split: str | None = None
) -> Iterator[tuple[int, Mapping[str, Any], Roles]]:
    """The rows of a table, each with its line and the roles of its columns.

    A CSV has one header; the objects of a JSON file may each have other keys. `split` is what the user says
    of all rows, if anything.

    Raises:
        UserError: a column that is needed is not there, or one is of two kinds, or looks like a split and is
            neither named as it nor ignored.
    """
    if isinstance(table, CsvTable):
        roles = find_roles(table, 1, table.header, options)
        for number, (line, row) in enumerate(table.rows()):
            if number == 0:
                _check_first_row(table, line, row, roles, options, split)
            yield line, row, roles
        return
    known: dict[tuple[str, ...], Roles] = {}
    first: tuple[int, Roles] | None = None
    for line, row in table.rows():
        keys = tuple(row)
        roles = known.get(keys)
        if roles is None:
            roles = known[keys] = find_roles(table, line, keys, options)
        if first is None:
            first = line, roles
            _check_first_row(table, line, row, roles, options, split)
        if (roles.labels is None) != (first[1].labels is None):
            missing = roles.labels or first[1].labels
            raise table.fail(line, f"lines {first[0]} and {line} differ: one has {missing!r}, one does not")
        yield line, row, roles
    if known:
        keys = tuple(dict.fromkeys(key for names in known for key in names))
        for name in split_names(options.ignore_columns, known=keys):
            _find(table, line, keys, "--ignore-columns", name, ())


def find_roles(table: TableFile, line: int, names: Sequence[str], options: TableOptions) -> Roles:
    """What the columns `names` are. Raises: UserError, see `read_rows`."""
    ignored = split_names(options.ignore_columns, known=names)
    if isinstance(table, CsvTable):
        for name in ignored:
            _find(table, line, names, "--ignore-columns", name, ())
    candidates = [name for name in names if name and name not in ignored]
    image = _find(table, line, candidates, "--image-column", options.image_column, IMAGE_COLUMNS)
    split = _find(table, line, candidates, "--split-column", options.split_column, SPLIT_COLUMNS)
    labels = _find(table, line, candidates, "--labels-column", options.labels_column, LABELS_COLUMNS)
    confidence = _find(table, line, candidates, "--confidence-column", options.confidence_column, ())
    unknown = _find(table, line, candidates, "", None, UNKNOWN_COLUMNS) if labels else None
    if image is None:
        raise table.fail(line, _explain_no_image(table, names))
    parts = {"image": image, "split": split, "labels": labels, "confidence": confidence}
    for (part, name), (other, other_name) in itertools.combinations(parts.items(), 2):
        if name is not None and name == other_name:
            raise table.fail(line, f"the column {name!r} cannot be both --{part}-column and --{other}-column")
    surely = find_confidence(candidates)
    is_read = confidence is not None or surely in (None, labels, image, split)
    if not is_read and (labels is not None or options.rows == "label"):
        raise table.fail(
            line,
            f"the {table.word} {surely!r} seems to say how surely a label holds and is not read: pass --rows "
            f"label {quote_flags('--confidence-column', [surely])}, or "
            f"{quote_flags('--ignore-columns', [surely])}",
        )
    if labels is not None:
        return Roles(image, split, labels, unknown, confidence, ())
    if options.rows == "label":
        raise table.fail(line, f"no column of labels among {', '.join(names)}: name it with --labels-column")
    taken = {image, split, confidence, *(["_"] if options.columns else [])}
    columns = tuple(name for name in candidates if name not in taken)
    if not columns:
        raise table.fail(
            line,
            f"no {table.word} of labels among {', '.join(filter(None, names)) or 'none'}: expected `labels`, "
            "one named with --labels-column, or one a label",
        )
    return Roles(image, split, None, None, None, columns)


def find_confidence(names: Iterable[str]) -> str | None:
    """The column that by its name says how surely a label holds, if there is one."""
    return next((name for name in names if _fold(name) in CONFIDENCE_COLUMNS), None)


def quote_flags(flag: str, names: Iterable[str]) -> str:
    """A flag with names, as one types it.

    >>> quote_flags("--ignore-columns", ["Sex", "Age", "a,b"])
    '--ignore-columns Sex,Age --ignore-columns a,b'
    """
    plain = [name for name in names if "," not in name]
    joined = [*([",".join(plain)] if plain else []), *(name for name in names if "," in name)]
    return " ".join(f"{flag} {shlex.quote(text)}" for text in joined)


def looks_like_split(name: str, value: Any) -> bool:
    """Whether a column that nobody named may say which split an image is in, by its name and one value."""
    text = str(value).strip().casefold()
    folded = _fold(name)
    if TableOptions().find_split(text) is not None:
        return True
    return text in _SPLIT_VALUES and (folded not in ("set", "stage", "dataset") and _is_like_split(folded))


def _is_like_split(folded: str) -> bool:
    return _LIKE_SPLITS.fullmatch(folded) is not None


def _fold(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _find(
    table: TableFile, line: int, names: Sequence[str], flag: str, given: str | None, known: Sequence[str]
) -> str | None:
    if given is not None:
        if given not in names:
            raise table.fail(
                line,
                f"{flag} {given}: no such {table.word}{nearest(given, names)}; the {table.word}s are "
                f"{', '.join(filter(None, names)) or 'none'}",
            )
        return given
    of_folded = {_fold(name): name for name in reversed(names)}
    return next((of_folded[_fold(name)] for name in known if _fold(name) in of_folded), None)


def _explain_no_image(table: TableFile, names: Sequence[str]) -> str:
    if len(names) and all(map(IMAGE_SUFFIX.search, names)):
        return f"has images for keys: write objects such as {{'image': {names[0]!r}, 'labels': [...]}}"
    _, row = next(table.rows(), (0, {}))
    likely = next((n for n, v in row.items() if isinstance(v, str) and IMAGE_SUFFIX.search(v)), None)
    likely = likely or next((name for name in row if _fold(name) in ("id", "name", "imageurl", "url")), None)
    return (
        f"no {table.word} of image paths among {', '.join(filter(None, names)) or 'none'}: expected image, "
        "image_path, filename or the like, or name it with --image-column"
        + (f", such as {shlex.quote(likely)} ({row[likely]})" if likely else "")
    )


def _check_first_row(
    table: TableFile,
    line: int,
    row: Mapping[str, Any],
    roles: Roles,
    options: TableOptions,
    split: str | None,
) -> None:
    """Of the first row: no header where there should be none, and nothing that is left unread by mistake."""
    if roles.label_columns and str(row.get("", "")).strip() and (place := table.header.index("")):
        # The first column is the running number that pandas writes.
        raise table.fail(1, f"column {place + 1} has no name: a label column needs one")
    if options.columns and _fold(str(row[roles.image])) in map(_fold, IMAGE_COLUMNS):
        raise table.fail(line, f"is a header ({', '.join(map(str, row.values()))}): leave --columns out")
    if roles.split is not None or split is not None:
        return
    ignored = split_names(options.ignore_columns, known=tuple(row))
    for name, value in row.items():
        if name in (roles.image, roles.labels, roles.unknown, roles.confidence, *ignored) or not name:
            continue
        if isinstance(value, (str, int, bool)) and looks_like_split(name, value):
            raise table.fail(
                line,
                f"the {table.word} {name!r} looks like a split ({value}) and none is named: pass "
                f"{quote_flags('--split-column', [name])}{_suggest_words(options, name, value)}, or "
                f"{quote_flags('--ignore-columns', [name])}",
            )


def _suggest_words(options: TableOptions, name: str, value: Any) -> str:
    if options.find_split(str(value)) is not None:
        return ""
    of_valid = "test" if "test" in _fold(name) else "validation"
    if str(value).strip().casefold() in ("true", "false"):
        return f" --split-words False=train,True={of_valid}"
    return f" --split-words 0=train,1={of_valid}" + ("" if _fold(name).startswith("is") else ",2=test")


def folder_split(path: str) -> str | None:
    """The split that a table's own name or its folder's stands for, such as `valid/_classes.csv`.

    >>> folder_split("data/valid/_classes.csv"), folder_split("in/test.csv"), folder_split("labels.csv")
    ('validation', 'test', None)
    """
    options = TableOptions()
    stem = os.path.splitext(os.path.basename(path))[0]
    return options.find_split(stem) or options.find_split(os.path.basename(os.path.dirname(path)))
