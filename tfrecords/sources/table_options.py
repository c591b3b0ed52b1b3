"""Says how a table is to be read: which column is what, and what its words and blanks mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

from tfrecords.errors import UserError, nearest
from tfrecords.manifest import SPLITS
from tfrecords.sources.split_files import SPLIT_OF_WORD

ONE_LABEL = "none"
"""The separator of a column in which each cell is one label as it stands."""
DEFAULT_SEPARATOR = ";"


@dataclass(frozen=True)
class TableOptions:
    """What a user may say of a table; each field is a flag of `build table`, and its default leaves it open.

    Attributes:
        image_column, labels_column, split_column: by default found by their names, see `table_columns`.
        label_separator: what joins labels in a cell, `;` by default; `none` where a cell is one label.
        ignore_columns: columns that are no labels.
        columns: the names of the columns, of a file without a header; `_` is a column to ignore.
        image_pattern: where an image lies, such as `{image}.jpg`, see `image_files`.
        split_words: word -> split, beside train, val, test and their like.
        no_label: words that say that an image has no label.
        minus_one, blank: what they mean in a table of one column a label that knows no 0.
        rows: whether a row is an image with all its labels, or one label of an image.
        confidence_column: of rows that are a label each: 1 where it holds, 0 where it verifiably does not.
            All labels that an image has no row for are unknown then.
        confidence_threshold: the confidence from which a label holds; between 0 and it, it is unknown.
    """

    image_column: str | None = None
    labels_column: str | None = None
    split_column: str | None = None
    label_separator: str | None = None
    ignore_columns: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    image_pattern: str | None = None
    split_words: Mapping[str, str] = field(default_factory=dict)
    no_label: tuple[str, ...] = ()
    minus_one: Literal["absent", "unknown"] | None = None
    blank: Literal["absent", "unknown"] | None = None
    rows: Literal["image", "label"] = "image"
    confidence_column: str | None = None
    confidence_threshold: float | None = None

    def __post_init__(self):
        for name in ("ignore_columns", "columns", "no_label"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "split_words", _fold_splits(self.split_words))
        if self.label_separator is not None:  # as a shell passes on what is typed for tab and line break
            typed = {r"\t": "\t", r"\n": "\n"}
            object.__setattr__(self, "label_separator", typed.get(self.label_separator, self.label_separator))
        if self.label_separator == "":
            raise UserError(
                "--label-separator is empty: give what joins labels, such as ';', or none if each cell is one"
            )
        if not all(word.strip() for word in self.no_label):
            raise UserError("--no-label is empty: give a word; a blank cell has no label anyway")
        if self.rows != "label" and self.confidence_column is not None:
            raise UserError("--confidence-column is for a table of one row a label: pass --rows label, too")
        if self.confidence_threshold is not None:
            if self.confidence_column is None:
                raise UserError("--confidence-threshold needs a --confidence-column")
            if not 0 < self.confidence_threshold <= 1:
                raise UserError(
                    f"--confidence-threshold {self.confidence_threshold:g}: expected above 0, and 1 at most"
                )
        repeated = sorted({name for name in self.columns if name != "_" and self.columns.count(name) > 1})
        if repeated:
            raise UserError(f"--columns names {repeated[0]!r} twice: every column has a name of its own")

    @property
    def separator(self) -> str | None:
        """What joins labels in a cell; None where each cell is one label."""
        if self.label_separator is None:
            return DEFAULT_SEPARATOR
        return None if self.label_separator == ONE_LABEL else self.label_separator

    def find_split(self, word: str) -> str | None:
        """The split that `word` stands for, or None."""
        folded = word.strip().casefold()
        return self.split_words.get(folded, SPLIT_OF_WORD.get(folded))

    def arguments(self) -> dict:
        """What was said, as JSON, for the manifest."""
        default = TableOptions()
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
            if value != getattr(default, name)
        }


def parse_split_words(text: str) -> dict[str, str]:
    """The words of `--split-words`, each with its split.

    >>> parse_split_words("0=train, 1=val,2=test")
    {'0': 'train', '1': 'validation', '2': 'test'}

    Raises:
        UserError: a part is no `word=split`, or a word has two splits.
    """
    splits: dict[str, str] = {}
    for part in filter(str.strip, text.split(",")):
        word, mark, name = part.rpartition("=")
        split = SPLIT_OF_WORD.get(name.strip().lower())
        if not mark or split is None:
            hint = nearest(name.strip(), SPLITS) if mark else ""
            raise UserError(
                f"--split-words {text}: {part.strip()!r} is no word=split{hint}: expected such as "
                "0=train,1=validation,2=test"
            )
        if splits.setdefault(word.strip(), split) != split:
            raise UserError(f"--split-words {text}: {word.strip()!r} has two splits: leave one out")
    return splits


def split_names(texts: Sequence[str], known: Sequence[str] = ()) -> tuple[str, ...]:
    """The names in values of a flag that joins them by commas; a value that is a known name stays whole.

    >>> split_names(["Sex, Age", "a,b"], known=["a,b"])
    ('Sex', 'Age', 'a,b')
    """
    names: list[str] = []
    for text in texts:
        names += [text] if text in known else [name.strip() for name in re.split(",", text) if name.strip()]
    return tuple(dict.fromkeys(names))


def _fold_splits(words: Mapping[str, str]) -> dict[str, str]:
    return {word.strip().casefold(): split for word, split in words.items()}
