"""A `Comparison` and published rows enter; the paper's table leaves: for a terminal, CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cnnrnn_tf.evaluation.audit import audit_published
from cnnrnn_tf.evaluation.method_comparison import Comparison, Row, Spread
from cnnrnn_tf.evaluation.published import PublishedRow
from tfrecords.words import count

PUBLISHED = "published"
_GAP = 2  # blanks between columns
_SECOND = "†"  # marks the other of two columns with one header


@dataclass(frozen=True)
class _Section:
    """A block, or the published rows: a name, and cells of text under the header."""

    name: str
    rows: tuple[tuple[str, ...], ...]


def print_methods(
    comparison: Comparison, published: Sequence[PublishedRow] = (), verbose: bool = True
) -> None:
    """Prints `render` to the terminal or to a pipe, wide enough for every column."""
    widths = _measure_widths(comparison, published)
    needed = sum(widths) + (_GAP + 1) * (len(widths) - 1)  # rich puts a blank between columns
    width = max(needed, Console().width)
    Console(highlight=False, width=width).print(render(comparison, published, verbose))


def render(
    comparison: Comparison, published: Sequence[PublishedRow] = (), verbose: bool = True
) -> RenderableType:
    """Who is ahead; the blocks, in the same columns; the published rows; what the numbers mean."""
    sections, header = _lay_out(comparison, published), _make_header(comparison)
    widths = _measure_widths(comparison, published)
    parts: list[RenderableType] = [Text(_make_title(comparison), style="bold")]
    parts += map(Text, _name_best(comparison))
    for section in sections:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
        table.add_column(Text(section.name), width=widths[0], header_style="bold")
        for title, width in zip(header[1:], widths[1:], strict=True):
            table.add_column(Text(title), width=width + _GAP, justify="right", header_style="bold")
        for row in section.rows:
            table.add_row(*map(Text, row), style="cyan" if section.name == PUBLISHED else None)
        parts += ["", table]
    parts.append("")
    parts += [Text(note, style="dim") for note in _make_notes(comparison, published, verbose)]
    return Group(*parts)


def to_csv(comparison: Comparison, published: Sequence[PublishedRow] = ()) -> str:
    """One row a method and kind of list: mean and deviation of every measure in percent, unrounded."""
    keys = [column.key for column in comparison.columns]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    spread = [f"{key} {kind}" for key in ["list_length", *keys] for kind in ("mean", "deviation")]
    writer.writerow(["block", "method", "title", "lists", "seeds", *spread, "caveat"])
    for block in comparison.blocks:
        for row in block.rows:
            cells = [cell for key in ["list_length", *keys] for cell in _csv_cells(key, row.measures[key])]
            seeds = max((len(each.values) for each in row.measures.values() if each), default=0)
            writer.writerow([block.name, row.method, row.title, row.lists, seeds, *cells, ""])
    for found in published:
        values = [found.measures.get(column.header, "") for column in comparison.columns]
        cells = [cell for value in ["", *values] for cell in (value, "")]
        caveat = " ".join(_find_caveats(found))
        writer.writerow([PUBLISHED, "", found.method, found.lists, "", *cells, caveat])
    return file.getvalue()


def to_markdown(comparison: Comparison, published: Sequence[PublishedRow] = ()) -> str:
    """The tables and their notes in GitHub's Markdown."""
    header = _make_header(comparison)
    lines = [f"## {_make_title(comparison)}"]
    for section in _lay_out(comparison, published):
        lines += ["", _markdown_row((section.name, *header[1:])), "|---" + "|---:" * (len(header) - 1) + "|"]
        lines += map(_markdown_row, section.rows)
    notes = (note.replace("*", r"\*") for note in _make_notes(comparison, published))
    lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def to_latex(comparison: Comparison, published: Sequence[PublishedRow] = ()) -> str:
    r"""The tables as one `tabular` of the package booktabs, with the notes below."""
    header = _make_header(comparison)
    lines = [
        f"% {_make_title(comparison)}",
        r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
        r"\toprule",
        _latex_row(header),
    ]
    for section in _lay_out(comparison, published):
        name = _escape_latex(section.name)
        lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{{name}}}}} \\"]
        lines += map(_latex_row, section.rows)
    lines.append(r"\bottomrule")
    for note in _make_notes(comparison, published):
        words = rf"\footnotesize {_escape_latex(note)}"
        lines.append(rf"\multicolumn{{{len(header)}}}{{p{{\linewidth}}}}{{{words}}} \\")
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _measure_widths(comparison: Comparison, published: Sequence[PublishedRow]) -> list[int]:
    """Characters of every column, the same in all sections."""
    sections = _lay_out(comparison, published)
    rows = [_make_header(comparison), *(row for section in sections for row in section.rows)]
    rows += [(section.name, *[""] * len(comparison.columns), "") for section in sections]
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _lay_out(comparison: Comparison, published: Sequence[PublishedRow]) -> list[_Section]:
    sections = [
        _Section(block.name, tuple(_make_cells(row, comparison) for row in block.rows))
        for block in comparison.blocks
    ]
    if published:
        rows = [
            (f"{found.method}*" if _find_caveats(found) else found.method, "")
            + tuple(_published_cell(found, column.header) for column in comparison.columns)
            for found in published
        ]
        sections.append(_Section(PUBLISHED, tuple(rows)))
    return sections


def _make_title(comparison: Comparison) -> str:
    return (
        f"{comparison.dataset}, {comparison.split}: {count('image', comparison.num_images)}, "
        f"protocol {comparison.protocol}, {count('seed', comparison.num_seeds)}"
    )


def _make_header(comparison: Comparison) -> tuple[str, ...]:
    headers = [column.header for column in comparison.columns]
    marked = [f"{header}{_SECOND}" if header in headers[:i] else header for i, header in enumerate(headers)]
    return ("", "length", *marked)


def _make_cells(row: Row, comparison: Comparison) -> tuple[str, ...]:
    title = _title_of(row)
    length = row.measures["list_length"]
    measures = [_show(row.measures[column.key]) for column in comparison.columns]
    return (title, f"{length.mean:.2f}" if length else "-", *measures)


def _show(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    deviation = "" if spread.deviation is None else f"±{100 * spread.deviation:.1f}"
    return f"{100 * spread.mean:.1f}{deviation}"


def _published_cell(found: PublishedRow, header: str) -> str:
    return found.measures.get(header, "")


def _csv_cells(key: str, spread: Spread | None) -> tuple[str, str]:
    if spread is None:
        return "", ""
    scale = 1 if key == "list_length" else 100
    deviation = "" if spread.deviation is None else f"{scale * spread.deviation:.6g}"
    return f"{scale * spread.mean:.8g}", deviation


def _name_best(comparison: Comparison) -> Iterator[str]:
    """A sentence a block: who has the highest O-F1 there."""
    for block in comparison.blocks:
        found = [(row.measures["O-F1"].mean, _title_of(row)) for row in block.rows if row.measures["O-F1"]]
        if len(found) > 1:
            f1, title = max(found, key=lambda each: each[0])
            yield f"Of the lists in block {block.name!r}, {title} has the highest O-F1, {100 * f1:.1f}."


def _title_of(row: Row) -> str:
    return f"{row.title}, best path" if row.lists.startswith("best path") else row.title


def _make_notes(
    comparison: Comparison, published: Sequence[PublishedRow], verbose: bool = True
) -> Iterator[str]:
    yield from comparison.notes
    yield from comparison.details if verbose else ()
    if any(header.endswith(_SECOND) for header in _make_header(comparison)):
        yield f"C-F1 is the harmonic mean of C-P and C-R, C-F1{_SECOND} the mean of the labels' F1."
    if not published:
        return
    yield f"Rows under {PUBLISHED} are figures of papers: other features, other code."
    lists: dict[str, list[str]] = {}
    grouped: dict[str, list[str]] = {}
    for found in published:
        if found.lists:
            lists.setdefault(found.lists, []).append(found.method)
        for caveat in _find_caveats(found):
            grouped.setdefault(caveat, []).append(found.method)
    yield from (f"{', '.join(methods)}: lists of {words}." for words, methods in lists.items())
    yield from (f"* {', '.join(methods)}: {caveat}" for caveat, methods in grouped.items())


def _find_caveats(found: PublishedRow) -> list[str]:
    """What is doubtful about a published row: whose it is, and what its own numbers contradict."""
    (_, audit), *_ = audit_published([found])
    wrong = [f"{finding.about}: {finding.words}" for finding in audit.findings if not finding.ok]
    return [*([found.caveat] if found.caveat else []), *wrong]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escape_latex, cells)) + r" \\"


def _escape_latex(text: str) -> str:
    for sign in "&%_#$":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("±", r" $\pm$ ").replace(_SECOND, r"$^\dagger$")
