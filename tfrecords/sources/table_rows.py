"""Reads tables into rows of images and labels; refuses at the end what all rows together make doubtful."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfrecords.errors import UserError, nearest
from tfrecords.sources import label_evidence
from tfrecords.sources.label_cells import (
    LabelCells,
    LabelNames,
    LabelValues,
    Place,
    tell_place,
    tell_places,
)
from tfrecords.sources.label_rows import Row, join_rows
from tfrecords.sources.split_files import SPLIT_OF_WORD, SplitFile
from tfrecords.sources.table_columns import Roles, read_rows
from tfrecords.sources.table_files import TableFile, open_table
from tfrecords.sources.table_options import TableOptions
from tfrecords.vocabulary import tidy_name
from tfrecords.words import count

_MOST_WORDS = 20
"""Of a column with more words that are no splits, nobody would say what each means."""


class TableReader:
    """Reads all rows of the tables once; afterwards it knows their labels and what a person should be told.

    Args:
        files: the tables, and what the user says of the split of each.
        options: how they are to be read.
        columns: columns whose values are to be kept, for the names of image files.
    """

    def __init__(self, files: Sequence[SplitFile], options: TableOptions, columns: Sequence[str] = ()):
        self.files = files
        self.options = options
        self.columns = columns
        self.names = LabelNames(options.no_label)
        self.cells = LabelCells(options.separator, self.names)
        self.values = LabelValues(options.minus_one, options.blank)
        self.num_rows = 0
        self.has_splits = False
        self.labels_column: str | None = None
        self._odd_splits: dict[str, tuple[int, Place]] = {}
        self._odd_confidences: tuple[int, Place, str] | None = None
        self._of_columns: dict[tuple[str, ...], dict[str, str]] = {}

    def rows(self) -> Iterator[Row]:
        """One row an image, or several that may contradict each other.

        Raises:
            UserError: a row cannot be read; or, at the end, all of them need a flag that says what is meant.
        """
        if self.options.rows == "image":
            yield from self._read_all()
        else:
            verified = self.options.confidence_column is not None
            yield from join_rows(self._read_all(), (lambda: self.names.counts) if verified else None)

    def label_names(self) -> tuple[str, ...] | None:
        """The names that the tables announce, once `rows` is exhausted; None where labels are joined."""
        if self.options.confidence_column is not None:
            return tuple(self.names.counts)
        return tuple(self.values.counts) or None

    def notes(self) -> list[str]:
        """What a person should be told of what was read."""
        found = [label_evidence.note_merged(self.names), label_evidence.note_like_no_label(self.names)]
        if self.labels_column is not None:
            found.append(label_evidence.note_mixed(self.cells, self.labels_column))
        if self.values.num_rows:
            found.append(label_evidence.note_columns_without_zero(self.values))
        return [note for note in found if note]

    def _read_all(self) -> Iterator[Row]:
        first: Row | None = None
        for file in self.files:
            table = open_table(file.path, self.options)
            for line, values, roles in read_rows(table, self.options, file.split):
                self.num_rows += 1
                row = self._read(table, line, values, roles, file.split)
                first = first or row
                if (row.split is None) != (first.split is None):
                    raise UserError(
                        f"{tell_places(first.place, row.place)}: one names its split, one does not: name it "
                        "in every row or in none"
                    )
                yield row
        self._judge()

    def _read(
        self, table: TableFile, line: int, values: Mapping[str, Any], roles: Roles, split: str | None
    ) -> Row:
        place = (table.path, line)
        image = values[roles.image]
        if self.options.image_pattern is not None and type(image) is int:  # of a name such as 000017.jpg
            image = str(image)
        if image is not None and not isinstance(image, str):
            raise table.fail(line, f"the image path is {image!r}: expected text")
        absent: Sequence[str] = ()
        try:
            if roles.label_columns:
                given = {name: values[name] for name in roles.label_columns if name in values}
                labels, unknown = self._read_values(table, given, place)
            elif isinstance(values[roles.labels], dict) and values[roles.labels].keys() != {"choices"}:
                labels, unknown = self._read_values(table, values[roles.labels], place)
            else:
                labels, unknown = self.cells.read(values[roles.labels], place), ()
                self.labels_column = roles.labels
            if roles.unknown and values.get(roles.unknown) is not None:
                unknown = (*unknown, *self.cells.read(values[roles.unknown], place))
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise table.fail(line, str(error)) from None
        if unknown:
            for name in labels:
                if name in unknown:
                    raise table.fail(
                        line, f"the label {name!r} is both given and unknown: leave one of the two"
                    )
        if roles.confidence:
            labels, unknown, absent = self._weigh(values[roles.confidence], labels, place)
        return Row(
            place,
            (image or "").strip(),
            self._read_split(table, line, values, roles, split),
            tuple(labels),
            tuple(unknown),
            tuple(absent),
            {name: values[name] for name in self.columns if name in values} if self.columns else None,
        )

    def _read_values(self, table: TableFile, given: Mapping[str, Any], place: Place):
        columns = tuple(given)
        names = self._of_columns.get(columns)
        if names is None:
            names = {column: self.names.read(column, place) for column in columns}
            no_label = self.names.no_label
            names = {c: name for c, name in names.items() if name or tidy_name(c).casefold() not in no_label}
            spelled = list(names.values())
            alike = [column for column, name in names.items() if not name or spelled.count(name) > 1]
            if alike:
                raise table.fail(place[1], f"the labels {alike} are empty or alike: name each once")
            if table.word == "column":
                self._of_columns[columns] = names
        return self.values.read({name: given[column] for column, name in names.items()}, place)

    def _read_split(
        self, table: TableFile, line: int, values: Mapping[str, Any], roles: Roles, of_file: str | None
    ) -> str | None:
        if roles.split is None or roles.split not in values:
            return of_file
        self.has_splits = True
        word = str(values[roles.split])
        split = self.options.find_split(word)
        if split is None:
            num, place = self._odd_splits.get(word, (0, (table.path, line)))
            self._odd_splits[word] = num + 1, place
            if len(self._odd_splits) > _MOST_WORDS:
                raise table.fail(
                    line,
                    f"{self._tell_odd_splits(2)} and many more; another column is named with --split-column",
                )
            return "train"  # until all have been seen, and are refused
        if of_file is not None and split != of_file:
            raise table.fail(line, f"is of the split {word!r}, but --from says {of_file}")
        return split

    def _weigh(self, value: Any, labels: Sequence[str], place: Place):
        """The labels of a row by its confidence: those that hold, are unknown, or are known not to hold."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = -1.0
        if not 0 <= number <= 1:
            raise UserError(f"{tell_place(place)}: the confidence is {value!r}: expected 0 to 1")
        threshold = self.options.confidence_threshold
        if number == 0:
            return (), (), labels
        if number == 1 or (threshold is not None and number >= threshold):
            return labels, (), ()
        if threshold is None:
            num, first, text = self._odd_confidences or (0, place, str(value))
            self._odd_confidences = num + 1, first, text
        return (), labels, ()

    def _judge(self) -> None:
        """Refuses what needs a word of the user's."""
        where = ", ".join(file.path for file in self.files)
        problem = label_evidence.explain_wrong_values(self.values)
        if problem is None and self._odd_splits:
            problem = f"{tell_place(next(iter(self._odd_splits.values()))[1])}: {self._tell_odd_splits(6)}"
        if problem is not None:
            raise UserError(problem)
        if self._odd_confidences is not None:
            num, place, text = self._odd_confidences
            raise UserError(
                f"{tell_place(place)}: the confidence is {text!r}, between 0 and 1 (in {count('row', num)}): "
                "say from where a label holds, such as --confidence-threshold 0.5; below, it is unknown"
            )
        problem = label_evidence.explain_missing_zero(self.values, self.options.minus_one, self.options.blank)
        if problem is None and self.labels_column is not None:
            is_chosen = self.options.label_separator is not None
            problem = label_evidence.explain_joined(self.cells, self.labels_column, self.num_rows, is_chosen)
        problem = problem or label_evidence.explain_no_names(self.names)
        if problem is None and self.cells.num_separated and set(self.names.counts) <= {"0", "1"}:
            problem = (
                f"the cells of {self.labels_column!r} are rows of 0 and 1, without names of labels: make a "
                "column of each label, called by its name"
            )
        if problem is None and self.names.unused and self.num_rows:
            word = self.names.no_label[min(self.names.unused)]
            problem = (
                f"--no-label {shlex.quote(word)}: no cell and no column is called so"
                f"{nearest(word, self.names.counts)}"
            )
        problem = problem or self._explain_unused()
        if problem is not None:
            raise UserError(f"{where}: {problem}")

    def _explain_unused(self) -> str | None:
        """A flag that says what something means that is not there: there may be a mistake behind it."""
        options, has_values = self.options, self.values.num_rows > 0
        if not self.num_rows:
            return None
        if options.split_words and not self.has_splits:
            return "--split-words is given, but there is no split column: name it with --split-column"
        if options.label_separator is not None and self.labels_column is None:
            return "--label-separator is given, but no column of joined labels: name it with --labels-column"
        for flag, word in (("--minus-one", options.minus_one), ("--blank", options.blank)):
            if word is not None and not has_values:
                return f"{flag} is for one column a label, and here {self.labels_column!r} has them all"
        return None

    def _tell_odd_splits(self, most: int) -> str:
        words = list(self._odd_splits)
        known = ", ".join(SPLIT_OF_WORD)
        others = ", ".join(f"{word!r} {count('time', self._odd_splits[word][0])}" for word in words[1:most])
        also = f" (nor {others})" if others else ""
        return (
            f"the split {words[0]!r} is not one of {known}{also}: say what each word means, such as "
            f"--split-words {shlex.quote(','.join(_suggest(words[:most])))}, or name another --split-column"
        )


def _suggest(words: Sequence[str]) -> list[str]:
    """Words of splits with the split that each may mean, in the order that people count them in."""
    ordered = sorted(words, key=lambda word: (len(word), word.casefold()))
    folded = [word.strip().casefold() for word in ordered]
    if folded == ["true"]:
        splits = ["validation"]
    elif folded in (["true", "false"], ["false"]):
        ordered, splits = sorted(words), ["train", "validation"]
    else:
        splits = ["train", "validation", "test"] if len(words) > 2 else ["train", "test"]
    return [f"{word}={split}" for word, split in zip(ordered, splits, strict=False)]
