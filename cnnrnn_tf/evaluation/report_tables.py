"""The dictionary of `report.evaluate_predictions` enters; the paper's table for a terminal leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import IO, Any, NamedTuple

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cnnrnn_tf.evaluation.report_notes import explain_essentials, explain_words
from cnnrnn_tf.evaluation.summary import summarise, warn
from tfrecords.words import count

WIDTH = 100
"""Columns that the widest table needs; a pipe counts as 80, which would cut it."""

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_NOTHING = "-"  # an undefined measure
_LONG_NAME = "best path, first 3"
_NUMBER_WIDTH = 6  # of a number and a blank before it: 100.0


class Column(NamedTuple):
    """A column of measures: its header, where its value is kept and what conventions call it."""

    header: str
    key: str  # of a row or of the ranking
    mark: str  # what a convention calls it


def print_report(metrics: Mapping[str, Any], file: IO[str] | None = None, verbose: bool = True) -> None:
    """Prints `render` to the terminal or to `file`, wide enough for every column."""
    open_console(file).print(render(metrics, verbose))


def open_console(file: IO[str] | None = None) -> Console:
    """A console wide enough for every column; of a file, one that a notebook does not show in its place."""
    options = {"highlight": False, "file": file, **({} if file is None else {"force_jupyter": False})}
    return Console(**options, width=max(WIDTH, Console(**options).width))


def render(metrics: Mapping[str, Any], verbose: bool = True) -> RenderableType:
    """A sentence, the paper's columns in percent, one row a list rule, known references, and what it means.

    Args:
        metrics: of `report.evaluate_predictions`.
        verbose: with all conventions; else a key of the words and what a number cannot be read without.

    >>> from rich.console import Console
    >>> Console(width=100).print(render(metrics))  # doctest: +SKIP
    """
    tables = [
        *tabulate_lists(metrics, marked=verbose),
        tabulate_places(metrics),
        *([describe_calibration(metrics)] if "calibration" in metrics else []),
        *map(Text, metrics.get("remarks", ())),
        *(Text(words, style="yellow") for words in warn(metrics)),
        list_details([metrics], verbose, marked=verbose),
    ]
    return Group(
        describe_title(metrics),
        Text(summarise(metrics)),
        *(part for table in tables for part in ("", table)),
    )


def describe_title(metrics: Mapping[str, Any]) -> Text:
    """One line: of what the numbers are."""
    names = ", ".join(found["name"] for found in metrics["protocols"])
    return Text.assemble(
        (metrics["split"], "bold"),
        f": {count('image', metrics['images'])}, {count('label', metrics['labels'])}, protocol ",
        (names, "bold"),
        ", in percent",
    )


def tabulate_lists(
    metrics: Mapping[str, Any], marked: bool = False, with_references: bool = True
) -> Iterator[Table]:
    """The table of rows, equal ones as one, and, below it in the same columns, the references."""
    columns = choose_columns(metrics["protocols"][0])
    notes = _number(metrics["conventions"]) if marked else []
    marks = {mark: _superscript(n) for n, note in notes for mark in note["marks"]}
    rows: dict[tuple[str, ...], list[str]] = {}
    for row in metrics["rows"]:
        cells = [_percent({**metrics["ranking"], **row}[column.key]) for column in columns]
        name = f"{row['name']}{marks.get(row['name'], '')}"
        rows.setdefault((f"{row['list_length']:.2f}", *cells), []).append(name)
    headers = [column.header + marks.get(column.mark, "") for column in columns]
    widths = [max(len(header) + 1, _NUMBER_WIDTH) for header in headers]
    name_width = max(len(name) for name in [*(name for names in rows.values() for name in names), _LONG_NAME])

    table = _make_table()
    for header, width in zip(
        ["lists", "length", *headers], [name_width, _NUMBER_WIDTH, *widths], strict=True
    ):
        table.add_column(Text(header), width=width, justify="left" if header == "lists" else "right")
    for cells, names in rows.items():
        table.add_row(Text("\n".join(names)), *cells)
    yield table
    if metrics["references"] and with_references:
        yield _tabulate_references(metrics["references"], columns, widths, name_width + 1 + _NUMBER_WIDTH)


def _tabulate_references(
    references: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    widths: Sequence[int],
    name_width: int,
) -> Table:
    """Scores known from elsewhere; their long names take the room of the columns that none of them has."""
    rows = [
        [_percent(row[key]) if key in row else "" for key in map(partial(_find_key, row), columns)]
        for row in references
    ]
    first = next((i for i in range(len(columns)) if any(row[i] for row in rows)), len(columns))
    table = _make_table()
    table.add_column("known references", width=name_width + sum(width + 1 for width in widths[:first]))
    for width in widths[first:]:
        table.add_column("", width=width, justify="right")
    for reference, row in zip(references, rows, strict=True):
        table.add_row(Text(str(reference.get("name", ""))), *row[first:], style="cyan")
    return table


def tabulate_places(metrics: Mapping[str, Any]) -> Table:
    """Precision and recall of an image's k best labels, and of all labels above a score."""
    ranking = metrics["ranking"]
    places = sorted(int(key.removeprefix("recall@")) for key in ranking if key.startswith("recall@"))
    places = [k for k in places if k == 1 or k < metrics["labels"]]  # the top 20 of 5 labels are no ranking
    levels = [key.partition(">=")[2] for key in ranking if key.startswith("precision@score>=")]
    table = _make_table()
    table.add_column("ranked labels")
    for header in [f"top {k}" for k in places] + [f"score ≥ {level}" for level in levels]:
        table.add_column(header, width=len(header) + 1, justify="right")
    precision = [ranking[f"precision@{k}"] for k in places]
    precision += [ranking[f"precision@score>={level}"] for level in levels]
    table.add_row("precision", *map(_percent, precision))
    table.add_row("recall", *(_percent(ranking[f"recall@{k}"]) for k in places))
    return table


def list_details(found: Sequence[Mapping[str, Any]], verbose: bool, marked: bool = False) -> Table:
    """What the numbers of one or several tables mean, each note once.

    Args:
        found: the metrics of each table.
        verbose: all conventions; else the key of the words and what a number cannot be read without.
        marked: with the numbers that `tabulate_lists` puts beside names and headers.
    """
    notes = Table.grid(padding=(0, 1, 0, 0))
    if verbose:
        numbered = [each for metrics in found for each in _number(metrics["conventions"])]
        words = {note["words"]: _superscript(number) if marked else "" for number, note in numbered}
        others = [note for metrics in found for note in metrics["conventions"] if not note["marks"]]
        words |= {note["words"]: "" for note in others}
    else:
        columns = [column for metrics in found for column in choose_columns(metrics["protocols"][0])]
        words = {line: "" for line in explain_words({column.mark for column in columns})}
        words |= {line: "" for metrics in found for line in explain_essentials(metrics)}
    for line, mark in words.items():
        notes.add_row(*([mark] if marked else []), Text(line), style="dim")
    return notes


def describe_calibration(metrics: Mapping[str, Any]) -> Text:
    """One line: how far off probabilities are before and after, or why that is not measured."""
    found = metrics["calibration"]
    if "ece_before" not in found:
        return Text(
            f"no calibration error: {found['holdout_images']:,} of these images fitted T "
            f"({found['temperature']:.2f})"
        )
    return Text(
        f"calibration error (ECE, {metrics['split']}): {100 * found['ece_before']:.2f} % before, "
        f"{100 * found['ece_after']:.2f} % after; T {found['temperature']:.2f} from "
        f"{count('hold-out image', found['holdout_images'])}"
    )


def _make_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, header_style="bold")


def choose_columns(main: Mapping[str, Any]) -> list[Column]:
    """The paper's columns in the paper's order, then what it leaves out, as protocol `main` has them."""
    averages = {"both": ["harmonic", "per_class"]}.get(main["c_f1"], [main["c_f1"]])
    c_f1, *other_c_f1 = [Column("C-F1", f"C-F1_{average}", f"C-F1_{average}") for average in averages]
    return [
        *(Column(name, name, name) for name in ("C-P", "C-R")),
        c_f1,
        *(Column(name, name, name) for name in ("O-P", "O-R", "O-F1")),
        Column("MAP@10", "MAP@10_truncated", "MAP@10"),
        *other_c_f1,
        Column("exact", "exact_match", "exact_match"),
        Column("mAP", f"mAP_{main['ap_shape']}", "mAP"),
    ]


def _find_key(reference: Mapping[str, Any], column: Column) -> str:
    """What a reference calls the column: its full key, or as published tables do, C-F1, MAP@10 and mAP."""
    return column.key if column.key in reference else column.header


def _number(conventions: Sequence[Mapping[str, Any]]) -> list[tuple[int, Mapping[str, Any]]]:
    """The conventions that mark a row or a column, counted from 1."""
    return list(enumerate((note for note in conventions if note["marks"]), start=1))


def _superscript(number: int) -> str:
    return str(number).translate(_SUPERSCRIPTS)


def _percent(fraction: float | None) -> str:
    return _NOTHING if fraction is None else f"{100 * fraction:.1f}"
