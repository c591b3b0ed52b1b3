"""The dictionary of `report.summarize` enters; tables for a terminal leave."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tfrecords.words import count

WIDTH = 100
_SCORES = ("C-P", "C-R", "C-F1", "O-P", "O-R", "O-F1")
_CEILING_NOTE = (
    "O-P, O-R, O-F1 and C-R are maxima. C-P and C-F1 (harmonic) are reached by lists of the rarest true\n"
    "labels, filled up with wrong ones where these cost C-P least: others may reach a little more."
)


def render(summary: Mapping, max_rows: int = 20) -> str:
    """The report as text, at most `max_rows` rows a table."""
    # Without markup and emoji: a label may be called [b] or :car:.
    console = Console(
        file=io.StringIO(), width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False
    )
    console.print(
        f"{summary['name']}: {summary['num_labels']} labels, fingerprint {summary['fingerprint'][:12]}"
    )
    tables = [
        _tabulate_splits(summary),
        _tabulate_histogram(summary, max_rows),
        _tabulate_labels(summary, max_rows),
        _tabulate_pairs("Labels that go together (train), by lift", summary["together"][:max_rows]),
        _tabulate_exclusive(summary["exclusive"][:max_rows]),
        _tabulate_sizes(summary),
        _tabulate_formats(summary),
        _tabulate_ceilings(summary),
    ]
    _print_tables(console, tables)
    console.print(_CEILING_NOTE)
    _print_tables(console, [_tabulate_references(summary["reference_rows"])])
    for line in (*_list_dead_labels(summary), *_list_shared_images(summary)):
        console.print(line)
    return console.file.getvalue()


def _print_tables(console: Console, tables: Iterable[Table]) -> None:
    for table in tables:
        if table.row_count:
            console.print()
            console.print(table)


def _make_table(title: str, text_columns: Sequence[str], number_columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in text_columns:
        table.add_column(column, overflow="fold")
    for column in number_columns:
        table.add_column(column, justify="right")
    return table


def _tabulate_splits(summary: Mapping) -> Table:
    columns = ["images", "held out", "skipped", "labels", "an image", "min", "max", "untagged", "unknown"]
    table = _make_table("Splits", ["split"], columns)
    for name, split in summary["splits"].items():
        per_image = split["labels_per_image"]
        table.add_row(
            name,
            f"{split['num_images']:,}",
            f"{split.get('num_held_out', 0):,}",
            f"{sum(split['skipped'].values()):,}",
            f"{split['num_positives']:,}",
            f"{per_image['mean']:.2f}",
            str(per_image["min"]),
            str(per_image["max"]),
            _percent(split["untagged_share"]),
            _percent(split["unknown_share"]),
        )
    return table


def _tabulate_histogram(summary: Mapping, max_rows: int) -> Table:
    splits = summary["splits"]
    table = _make_table("Images by their number of labels", ["labels"], list(splits))
    histograms = [split["labels_per_image"]["histogram"] for split in splits.values()]
    longest = max(len(histogram) for histogram in histograms)
    for n in range(min(longest, max_rows)):
        table.add_row(str(n), *(f"{histogram.get(str(n), 0):,}" for histogram in histograms))
    if longest > max_rows:
        rest = [sum(count for n, count in h.items() if int(n) >= max_rows) for h in histograms]
        table.add_row(f"{max_rows} and more", *(f"{count:,}" for count in rest))
    return table


def _tabulate_labels(summary: Mapping, max_rows: int) -> Table:
    splits = summary["splits"]
    labels = summary["labels"]
    shown = (
        f"the {max_rows} most frequent of {len(labels)}" if len(labels) > max_rows else "most frequent first"
    )
    columns = [column for split in splits for column in (split, "share")]
    table = _make_table(f"Labels, {shown}", ["label"], columns)
    for label in labels[:max_rows]:
        cells = [
            cell
            for name, split in splits.items()
            for cell in (f"{label[name]:,}", _percent(label[name] / split["num_images"]))
        ]
        table.add_row(label["name"], *cells)
    return table


def _tabulate_pairs(title: str, rows: Iterable[Mapping]) -> Table:
    table = _make_table(title, ["a", "b"], ["images", "by chance", "lift", "P(b|a)", "P(a|b)"])
    for row in rows:
        table.add_row(
            row["a"],
            row["b"],
            f"{row['images']:,}",
            f"{row['expected']:,.1f}",
            f"{row['lift']:.2f}",
            _percent(row["P(b|a)"]),
            _percent(row["P(a|b)"]),
        )
    return table


def _tabulate_exclusive(rows: Iterable[Mapping]) -> Table:
    table = _make_table("Labels that never meet (train)", ["a", "b"], ["images by chance"])
    for row in rows:
        table.add_row(row["a"], row["b"], f"{row['expected']:,.1f}")
    return table


def _tabulate_sizes(summary: Mapping) -> Table:
    table = _make_table("Image sizes, turned upright by EXIF", ["split", "of its"], ["min", "median", "max"])
    for name, split in summary["splits"].items():
        for key, what in (
            ("width_px", "width, px"),
            ("height_px", "height, px"),
            ("file_bytes", "file, bytes"),
        ):
            sizes = split["image_sizes"][key]
            table.add_row(name, what, *(f"{sizes[column]:,.0f}" for column in ("min", "median", "max")))
    return table


def _tabulate_formats(summary: Mapping) -> Table:
    sizes = {name: split["image_sizes"] for name, split in summary["splits"].items()}
    formats = list(dict.fromkeys(each for split in sizes.values() for each in split["formats"]))
    small_px = next(iter(sizes.values()))["small_px"]
    columns = [*formats, "turned by EXIF", f"short side < {small_px} px", "share"]
    table = _make_table("Image files", ["split"], columns)
    for name, split in sizes.items():
        table.add_row(
            name,
            *(f"{split['formats'].get(each, 0):,}" for each in formats),
            _percent(split["turned_share"]),
            f"{split['num_small']:,}",
            _percent(split["num_small"] / summary["splits"][name]["num_images"]),
        )
    return table


def _tabulate_ceilings(summary: Mapping) -> Table:
    k = summary["k"]
    table = _make_table(f"The best that lists of {k} labels can reach", ["split", "list"], _SCORES)
    for name, split in summary["splits"].items():
        for key, images in (("ceilings", name), ("ceilings_of_tagged", f"{name}, tagged images")):
            for rule, scores in split.get(key, {}).items():
                figures = (_percent(scores[column]) for column in _SCORES)
                table.add_row(images, f"{rule.replace('_', ' ')} {k}", *figures)
    return table


def _tabulate_references(rows: Sequence[Mapping]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "name"))
    table = _make_table("Scores known to be reachable", ["predictor"], columns)
    for row in rows:
        table.add_row(str(row.get("name", "")), *(_format_score(row.get(column)) for column in columns))
    return table


def _format_score(value) -> str:
    if value is None:
        return ""
    return _percent(value) if isinstance(value, float) else str(value)


def _list_shared_images(summary: Mapping) -> list[str]:
    return [
        f"\n{count('image', pair['images'])} of {pair['b']} {'is' if pair['images'] == 1 else 'are'} also in "
        f"{pair['a']}, byte for byte: `python -m tfrecords verify` names one"
        for pair in summary["shared_images"]
    ]


def _list_dead_labels(summary: Mapping) -> list[str]:
    lines = []
    for name, split in summary["splits"].items():
        dead = split["dead_labels"]
        if dead:
            shown = ", ".join(dead[:20]) + (f" and {len(dead) - 20} more" if len(dead) > 20 else "")
            lines.append(f"\nDead in {name} ({count('label', len(dead))} without a positive): {shown}")
    return lines


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
