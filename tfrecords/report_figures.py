"""The records of a data set enter; pictures of what is in it leave: PNG files.

Drawn with Matplotlib's figures and its Agg canvas alone: no pyplot, so no window, no global state and nothing
to close. Import it only where pictures are wanted: Matplotlib takes a moment.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from tfrecords.errors import UserError
from tfrecords.report import SMALL_PX, count_together
from tfrecords.report_records import Contents, Records
from tfrecords.words import count

DPI = 150
MAX_NAMED_LABELS = 40
"""The most labels in the heat map, and the most whose bars are drawn, each by its name."""

_MAX_ANNOTATED_LABELS = 12
_MAX_NAME = 26  # characters of a label's name; a longer one ends in an ellipsis
_NAMED_RANKS = (1, 2, 3, 5, 10, 20, 50, 100)  # those of more labels than have bars
_SIZE_BINS = 48
_INK, _GREY, _RULE, _PALE = "#22303C", "#66727D", "#B8C2CA", "#E3E8EC"
# Blue, green and vermilion of Okabe and Ito, told apart by all.
_SPLIT_COLOURS = {"train": "#0072B2", "validation": "#009E73", "test": "#D55E00"}
_FONT = "DejaVu Sans"  # Matplotlib brings it along; a box stands for each letter that it lacks
_NOTE = {"color": _GREY, "fontsize": 8, "fontfamily": _FONT}
_TICKS = {"colors": _GREY, "labelsize": 8, "labelfontfamily": _FONT}


def save_figures(contents: Contents, folder: str | Path) -> list[Path]:
    """Draws all figures of a data set into `folder`, each whole or not at all; returns the files.

    Raises:
        UserError: the folder cannot be written.
    """
    return [_save(draw(contents), Path(folder) / f"{name}.png") for name, draw in FIGURES.items()]


def check_folder(folder: str | Path) -> None:
    """Refuses a folder that cannot be made or written, before the records are read.

    Raises:
        UserError: with the flags that help.
    """
    place = Path(folder)
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise UserError(_explain(folder, f"{place} is no folder"))
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(_explain(folder, f"{place} cannot be written"))


def draw_co_occurrence(contents: Contents) -> Figure:
    """The heat map of P(column | row) in percent, over the training split's most frequent labels.

    A row is blank where its label has no image, and so is the diagonal.
    """
    positive = contents.records["train"].positive
    num_live = int(positive.any(axis=0).sum())  # a prefix: the vocabulary is ranked by training counts
    num_shown = min(MAX_NAMED_LABELS, max(2, num_live), contents.vocabulary.size)
    together = count_together(positive[:, :num_shown])
    counts = together.diagonal()
    shares = np.full(together.shape, np.nan)
    shares[counts > 0] = 100 * together[counts > 0] / counts[counts > 0, None]
    np.fill_diagonal(shares, np.nan)
    names = [_shorten(name) for name in contents.vocabulary.names[:num_shown]]
    figure, axes = _draw_matrix(shares, names, [f"{n} ({c:,})" for n, c in zip(names, counts, strict=True)])
    which = f"the {num_shown} most frequent of" if num_shown < contents.vocabulary.size else "all"
    _write_title(
        axes,
        f"{_shorten(contents.manifest.name, 40)}: which labels go together",
        f"P(column | row) in percent: of the images with the row's label, how many have the column's too.\n"
        f"Training split, {count('image', len(positive))}; {which} {count('label', contents.vocabulary.size)}"
        f", in brackets the images of each.",
    )
    return figure


def draw_label_frequencies(contents: Contents) -> Figure:
    """The share of each split's images that has a label, by its rank in training, on a logarithmic scale.

    Bars with names for up to `MAX_NAMED_LABELS` labels; a line, with some names, for more.
    """
    shares = {split: records.positive.mean(axis=0) for split, records in contents.records.items()}
    names = [_shorten(name) for name in contents.vocabulary.names]
    figure = Figure(dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    if len(names) <= MAX_NAMED_LABELS:
        counts = {split: records.positive.sum(axis=0) for split, records in contents.records.items()}
        axes = _draw_bars(figure, shares, counts, names)
    else:
        axes = _draw_curves(figure, shares, names)
    sizes = ", ".join(count(f"{split} image", len(r.positive)) for split, r in contents.records.items())
    _write_title(
        axes,
        f"{_shorten(contents.manifest.name, 40)}: how frequent the labels are",
        f"Share of a split's images that have the label; {count('label', len(names))}, {sizes}.",
    )
    return figure


def draw_image_sizes(contents: Contents) -> Figure:
    """How many images there are of each width and height, as seen upright: a panel a split."""
    splits = contents.records
    limits = _find_limits(splits.values())
    edges = np.geomspace(*limits, _SIZE_BINS + 1)
    counts = {  # [height, width]
        split: np.histogram2d(records.height, records.width, bins=(edges, edges))[0]
        for split, records in splits.items()
    }
    norm = LogNorm(1, max(2, *(count.max() for count in counts.values())))
    panel, gap = 4.0, 0.75
    width, height = len(splits) * (panel + gap) + 0.6, panel + 2.0
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for place, (split, records) in enumerate(splits.items()):
        left = gap + place * (panel + gap)
        axes = figure.add_axes((left / width, 0.7 / height, panel / width, panel / height))
        mesh = axes.pcolormesh(
            edges, edges, np.ma.masked_equal(counts[split], 0), norm=norm, cmap=colormaps["viridis_r"]
        )
        _finish_size_axes(axes, limits, split, records, is_first=place == 0)
        if place == 0:
            name = _shorten(contents.manifest.name, 40)
            _write_title(axes, f"{name}: how large the images are", _SIZES_SUBTITLE, above=30)
    bar = axes.inset_axes((1.04, 0, 0.04, 1))
    _draw_colour_bar(figure, mesh, bar, "images")
    return figure


FIGURES: Mapping[str, Callable[[Contents], Figure]] = {
    "co_occurrence": draw_co_occurrence,
    "label_frequencies": draw_label_frequencies,
    "image_sizes": draw_image_sizes,
}

_SIZES_SUBTITLE = (
    "Width and height in pixels, turned upright by EXIF. "
    f"Dashes: squares. Dots: a short side of {SMALL_PX} px."
)


def _draw_matrix(shares: np.ndarray, columns: Sequence[str], rows: Sequence[str]) -> tuple[Figure, Axes]:
    num_labels = len(rows)
    cell = float(np.clip(7.2 / num_labels, 0.24, 1.1))  # inches; names stand around them
    side = num_labels * cell
    figure = Figure(figsize=(side + 4, side + 4), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((2.4 / (side + 4), 2.4 / (side + 4), side / (side + 4), side / (side + 4)))
    known = shares[np.isfinite(shares)]
    highest = max(10, 10 * np.ceil(known.max() / 10)) if known.size else 10
    cmap = colormaps["viridis"].with_extremes(bad=_PALE)
    image = axes.imshow(np.ma.masked_invalid(shares), cmap=cmap, norm=Normalize(0, highest))
    size = 9 if num_labels <= 20 else 7.5
    style = {"parse_math": False, "fontsize": size, "color": _INK, "fontfamily": _FONT}
    axes.set_yticks(range(num_labels), rows, **style)
    axes.set_xticks(range(num_labels), columns, rotation=90, **style)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(num_labels - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(num_labels - 1) + 0.5, minor=True)
    axes.grid(True, which="minor", color="white", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    if num_labels <= _MAX_ANNOTATED_LABELS:
        _write_cells(axes, shares, image)
    _draw_colour_bar(figure, image, axes.inset_axes((1 + 0.2 / side, 0, 0.2 / side, 1)), "percent")
    return figure, axes


def _write_cells(axes: Axes, shares: np.ndarray, image) -> None:
    for row, column in zip(*np.nonzero(np.isfinite(shares)), strict=True):
        value = shares[row, column]
        ink = (
            "white" if _luminance(image.to_rgba(value)) < 0.18 else "black"
        )  # the better contrast of the two
        text = f"{value:.1f}" if value else "0"
        axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=ink, fontfamily=_FONT)


def _luminance(rgba: Sequence[float]) -> float:
    """The relative luminance of WCAG, 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in map(float, rgba[:3])]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _draw_colour_bar(figure: Figure, mappable, axes: Axes, label: str) -> None:
    bar = figure.colorbar(mappable, cax=axes)
    bar.outline.set_visible(False)
    axis = bar.ax.yaxis
    is_logarithmic = isinstance(mappable.norm, LogNorm)
    axis.set_major_locator(LogLocator(10, (1, 2, 5)) if is_logarithmic else MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_locator(NullLocator())
    bar.ax.tick_params(**_TICKS)
    bar.set_label(label, **_NOTE)


def _draw_bars(
    figure: Figure, shares: Mapping[str, np.ndarray], counts: Mapping[str, np.ndarray], names: Sequence[str]
) -> Axes:
    thickness = 0.14  # inches, of a bar
    pitch = thickness * len(shares) + 0.1
    height = pitch * len(names)
    figure.set_size_inches(9, height + 2)
    axes = figure.add_axes((2.2 / 9, 0.8 / (height + 2), 6.2 / 9, height / (height + 2)))
    lowest, highest = _find_share_limits(shares)
    for place, (split, values) in enumerate(shares.items()):
        y = np.arange(len(names)) + (place - (len(shares) - 1) / 2) * thickness / pitch
        lengths = np.where(values > 0, values - lowest, 0)
        axes.barh(y, lengths, 0.92 * thickness / pitch, left=lowest, color=_SPLIT_COLOURS[split], label=split)
        for where, share, number in zip(y, values, counts[split], strict=True):
            axes.annotate(
                f"{number:,}", (max(share, lowest), where), (3, 0), textcoords="offset points", va="center",
                fontsize=6.5, color=_INK if number else _SPLIT_COLOURS[split], fontfamily=_FONT,
            )  # fmt: skip
    axes.set_xlim(lowest, highest)
    _finish_share_axis(axes, axes.xaxis, lowest, highest)
    axes.set_xlabel("images that have the label (logarithmic), and their number", **_NOTE)
    axes.set_ylim(len(names) - 0.5, -0.5)  # the most frequent on top
    axes.set_yticks(range(len(names)), names, parse_math=False, fontsize=9, color=_INK, fontfamily=_FONT)
    axes.tick_params(axis="y", length=0)
    _write_legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return axes


def _draw_curves(figure: Figure, shares: Mapping[str, np.ndarray], names: Sequence[str]) -> Axes:
    figure.set_size_inches(9.5, 5.6)
    axes = figure.add_axes((0.09, 0.11, 0.88, 0.70))
    lowest, highest = _find_share_limits(shares)
    ranks = np.arange(len(names)) + 1
    for split, values in reversed(shares.items()):  # training last, above the others
        num_dead = int((values == 0).sum())
        label = split + (f" ({count('label', num_dead)} without an image)" if num_dead else "")
        seen = values > 0
        dots = {"linestyle": "", "marker": "o", "markersize": 2.6 if len(names) < 300 else 1.6}
        look = {"linewidth": 2} if split == "train" else dots
        axes.plot(ranks[seen], values[seen], color=_SPLIT_COLOURS[split], label=label, **look)
    for rank in _NAMED_RANKS:
        share = max(values[rank - 1] for values in shares.values()) if rank <= len(names) else 0
        if share:
            _write_name(axes, _shorten(names[rank - 1], 20), rank, share)
    axes.set_xscale("log")
    axes.set_xlim(0.85, len(names) * 1.15)
    axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    _finish_share_axis(axes, axes.yaxis, lowest, highest)
    axes.set_ylim(lowest, highest * (highest / lowest) ** 0.28)  # room for the first names
    axes.set_xlabel("rank of the label in training (logarithmic)", **_NOTE)
    axes.set_ylabel("images that have the label (logarithmic)", **_NOTE)
    handles, labels = axes.get_legend_handles_labels()
    _write_legend(axes, handles=handles[::-1], labels=labels[::-1], loc="lower left")
    return axes


def _write_name(axes: Axes, name: str, rank: int, share: float) -> None:
    axes.annotate(
        name, (rank, share), (2, 7), textcoords="offset points", rotation=40, rotation_mode="anchor",
        fontsize=8, color=_INK, fontfamily=_FONT, parse_math=False,
        path_effects=[withStroke(linewidth=2, foreground="white")],
    )  # fmt: skip


def _write_legend(axes: Axes, **options) -> None:
    axes.legend(frameon=False, labelcolor=_INK, prop={"family": _FONT, "size": 8}, **options)


def _find_share_limits(shares: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Round shares below and above all of them but 0, with some room: 1, 2 or 5 times a power of ten."""
    seen = np.concatenate([values[values > 0] for values in shares.values()])
    steps = np.array([step * 10.0**power for power in range(-7, 1) for step in (1, 2, 5)][:-2])
    return steps[steps <= seen.min() / 1.3].max(), steps[steps >= min(1, 1.2 * seen.max())].min()


def _finish_share_axis(axes: Axes, axis, lowest: float, highest: float) -> None:
    is_across = axis is axes.xaxis
    (axes.set_xscale if is_across else axes.set_yscale)("log")
    steps = [step * 10.0**power for power in range(-7, 1) for step in (1, 2, 5)]
    most = 1.001 * highest
    axis.set_major_locator(FixedLocator([share for share in steps if 0.999 * lowest <= share <= most]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axis.set_minor_locator(NullLocator())
    axis.grid(True, color=_PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(**_TICKS)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_RULE)
    axes.spines["bottom" if is_across else "left"].set_bounds(lowest, highest)


def _find_limits(splits) -> tuple[float, float]:
    """The shortest and the longest side to be drawn, px: a factor of 4 apart or more."""
    sides = [side for records in splits for side in (records.width, records.height)]
    shortest = min(min(side.min() for side in sides), SMALL_PX) / 1.15
    longest = max(max(side.max() for side in sides), SMALL_PX) * 1.15
    stretch = max(1.0, (4 * shortest / longest) ** 0.5)
    return float(shortest / stretch), float(longest * stretch)


def _finish_size_axes(
    axes: Axes, limits: tuple[float, float], split: str, records: Records, is_first: bool
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    decades = np.log10(limits[1] / limits[0])
    steps = (1, 1.5, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2 else (1, 3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(10, steps))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_minor_locator(NullLocator())
    axes.plot(limits, limits, color=_GREY, linewidth=0.8, linestyle="--", zorder=0.5)
    far = limits[1]
    axes.plot(
        [SMALL_PX, SMALL_PX, far], [far, SMALL_PX, SMALL_PX], color=_INK, linewidth=1.2, linestyle=":",
        path_effects=[withStroke(linewidth=2.4, foreground="white")],
    )  # fmt: skip
    axes.grid(True, color=_PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(**_TICKS)
    axes.spines[:].set_color(_RULE)
    axes.set_xlabel("width, px", **_NOTE)
    if is_first:
        axes.set_ylabel("height, px", **_NOTE)
    axes.set_title(
        f"{split}, {count('image', len(records.width))}{_describe_mode(records)}",
        fontsize=8.5, color=_INK, loc="left", fontfamily=_FONT,
    )  # fmt: skip


def _describe_mode(records: Records) -> str:
    """The most frequent size, in words; nothing where hardly any two images share one."""
    sizes, counts = np.unique(np.stack([records.width, records.height], axis=1), axis=0, return_counts=True)
    (width, height), share = sizes[counts.argmax()], counts.max() / counts.sum()
    return f"; most often {width} x {height} ({100 * share:.0f} %)" if share >= 0.05 else ""


def _write_title(axes: Axes, title: str, subtitle: str, above: float = 10) -> None:
    """Two texts, above the axes and flush with them."""
    at = {"xy": (0, 1), "xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
    below = axes.annotate(
        subtitle, xytext=(0, above), fontsize=8.5, color=_GREY, fontfamily=_FONT, parse_math=False,
        linespacing=1.4, **at,
    )  # fmt: skip
    lines = below.get_text().count("\n") + 1
    axes.annotate(
        title, xytext=(0, above + 13 * lines + 6), fontsize=12, color=_INK, fontfamily=_FONT, weight="bold",
        parse_math=False, **at,
    )  # fmt: skip


def _shorten(name: str, most: int = _MAX_NAME) -> str:
    name = " ".join(name.split())
    return name if len(name) <= most else f"{name[: most - 1].rstrip()}…"


def _save(figure: Figure, path: Path) -> Path:
    """Writes the figure, trimmed to what is drawn; the file is there when it is whole."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure.savefig(content, format="png", bbox_inches="tight", pad_inches=0.25)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content.getvalue())
        os.replace(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise UserError(_explain(path.parent, error.strerror)) from None
    return path


def _explain(folder: str | Path, fault: str) -> str:
    return (
        f"cannot write figures into {folder}: {fault}; choose another place with --figures FOLDER, "
        "or leave them out with --no-figures"
    )
