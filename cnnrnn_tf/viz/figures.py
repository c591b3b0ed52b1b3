"""Pictures with their tags, or the history of a training run, enter; an image file leaves.

Drawn with Matplotlib's figures and its Agg canvas alone: no pyplot, so no window, no global state and nothing
to close.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from cnnrnn_tf.viz.sheet import (
    DPI,
    GREY,
    INK,
    MISSED,
    PLAIN,
    RIGHT,
    SIZES,
    TITLE_FONT,
    UNKNOWN,
    WRONG,
    Cell,
    Sheet,
)
from tfrecords.errors import UserError

Tag = tuple[str, float | None]

_TRAINING, _VALIDATION = "#0072B2", "#D55E00"  # blue and vermilion of Okabe and Ito, told apart by all


def save_grid(
    path: str | Path,
    pictures: Sequence[np.ndarray],
    tags: Sequence[Sequence[Tag]],
    truth: Sequence[Collection[str]] | None = None,
    columns: int = 4,
    title: str | None = None,
    names: Sequence[str] | None = None,
    unknown: Sequence[Collection[str]] | None = None,
) -> None:
    """Draws pictures in a grid, with their tags beneath.

    With a truth, each tag is marked: ✓ right, ✗ wrong, and labels that were missed follow with ○.

    Args:
        path: the file; its suffix decides the format.
        pictures: `<uint8>[height, width, 3]` RGB each, or `[height, width]` grey; of any size.
        tags: for each picture (name, probability 0 to 1 or None), in the order to be shown.
        truth: the true labels of each picture.
        columns: pictures in a row.
        title: a line above all.
        names: a line above the tags of each picture, such as its file name.
        unknown: labels of each picture of which nobody knows whether they are true: neither right nor wrong.

    Raises:
        UserError: nothing to draw, lists of different lengths, something that is no picture, or a suffix that
            Matplotlib cannot write.
    """
    path = check_path(path)
    _check_grid(pictures, columns, tags=tags, truth=truth, names=names, unknown=unknown)
    cells = [
        Cell(
            picture=_read_picture(picture, i),
            name=names[i] if names is not None else "",
            tags=_mark(tags[i], None if truth is None else truth[i], unknown[i] if unknown else ()),
        )
        for i, picture in enumerate(pictures)
    ]
    columns = min(columns, len(cells))
    width = SIZES.single_cell if columns == 1 else SIZES.cell
    sheet = Sheet(2 * SIZES.margin + columns * width + (columns - 1) * SIZES.gap)
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    top = SIZES.margin
    if title:
        top += sheet.write_title(title, top)
    for row in rows:
        top += sheet.draw_row(row, width, top) + SIZES.gap
    if truth is not None:
        shown = {style.meaning for cell in cells for _, style in cell.tags}
        top += sheet.draw_legend([s for s in (RIGHT, WRONG, MISSED, UNKNOWN) if s.meaning in shown], top)
    sheet.save(path, top - SIZES.gap + SIZES.margin)


def save_history(path: str | Path, rows: Iterable[Mapping[str, Any]], title: str | None = None) -> None:
    """Draws the curves of a training run: training and validation of each measure, the loss first.

    Args:
        path: the file; its suffix decides the format.
        rows: one an epoch, as in `history.csv`: `epoch` (counted from 0), `loss`, `val_loss` and whatever
            else was measured, as numbers or as text; a blank is an epoch without that measure.
        title: a line above all.

    Raises:
        UserError: there is no epoch or no measure, or a value is no number.
    """
    path = check_path(path)
    rows = list(rows)
    curves = {key: _read_curve(rows, key) for key in dict.fromkeys(key for row in rows for key in row)}
    epochs = curves.pop("epoch", np.arange(len(rows), dtype=float)) + 1
    curves = {key: values for key, values in curves.items() if np.isfinite(values).any()}
    measures = sorted({key.removeprefix("val_") for key in curves}, key=lambda name: (name != "loss", name))
    if not measures:
        raise UserError("the history holds no measure of any epoch, so there is no curve to draw")
    columns = min(3, len(measures))
    num_rows = math.ceil(len(measures) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * num_rows + 0.2), dpi=DPI, layout="constrained")
    for place, measure in enumerate(measures, start=1):
        axes = figure.add_subplot(num_rows, columns, place)
        _draw_curves(axes, epochs, measure, curves.get(measure), curves.get(f"val_{measure}"))
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontproperties=TITLE_FONT, parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def check_path(path: str | Path) -> Path:
    """The path of a picture, if Matplotlib can write such a file.

    Raises:
        UserError: its suffix is of no known format.
    """
    path = Path(path)
    formats = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise UserError(
            f"{path}: cannot draw into such a file; name one that ends in .png, .jpg, .pdf or .svg"
        )
    return path


def _mark(tags: Sequence[Tag], truth: Collection[str] | None, unknown: Collection[str]) -> list:
    """The tags of one picture as they are to be drawn: (text, style)."""
    if isinstance(truth, str) or isinstance(unknown, str):
        raise UserError(
            f"truth and unknown must be lists of names for each picture, got {truth or unknown!r}"
        )
    texts = {name: name if _is_blank(p) else f"{name} {p:.2f}" for name, p in tags}
    if truth is None:
        return [(text, PLAIN) for text in texts.values()] or [("no labels", PLAIN)]
    styles = {name: RIGHT if name in truth else UNKNOWN if name in unknown else WRONG for name in texts}
    marked = [(text, styles[name]) for name, text in texts.items()]
    in_order = truth if isinstance(truth, Sequence) else sorted(truth)  # a set has no order of its own
    missed = [(name, MISSED) for name in in_order if name not in texts]
    nothing = [] if marked else [("no labels", PLAIN if missed else RIGHT)]
    return nothing + marked + missed


def _is_blank(probability: float | None) -> bool:
    return probability is None or not math.isfinite(probability)


def _read_picture(picture: np.ndarray, i: int) -> Image.Image:
    pixels = np.asarray(picture)
    is_picture = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not is_picture or not pixels.size:
        raise UserError(
            f"picture {i} must be <uint8>[height, width, 3] RGB or [height, width] grey, "
            f"got <{pixels.dtype}>{list(pixels.shape)}"
        )
    return Image.fromarray(pixels).convert("RGB")


def _check_grid(pictures: Sequence[np.ndarray], columns: int, **lists: Sequence[Any] | None) -> None:
    if not len(pictures):
        raise UserError("a grid needs at least one picture, got none")
    if columns < 1:
        raise UserError(f"columns of a grid must be at least 1, got {columns}")
    for name, values in lists.items():
        if values is not None and len(values) != len(pictures):
            raise UserError(
                f"{name} must have one entry a picture: {len(values)} for {len(pictures)} pictures"
            )


def _read_curve(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """One measure over all epochs, `<float64>[epochs]`, nan where an epoch has none."""
    values = [row.get(key) for row in rows]
    try:
        return np.array([math.nan if value in (None, "") else float(value) for value in values])
    except (TypeError, ValueError):
        raise UserError(f"the history's column {key!r} holds what is no number: {values}") from None


def _draw_curves(
    axes: Any, epochs: np.ndarray, name: str, training: np.ndarray | None, validation: np.ndarray | None
) -> None:
    for label, colour, values in (
        ("training", _TRAINING, training),
        ("validation", _VALIDATION, validation),
    ):
        if values is not None:
            seen = np.isfinite(values)
            dots = "o" if seen.sum() <= 12 else None
            axes.plot(
                epochs[seen],
                values[seen],
                color=colour,
                label=label,
                linewidth=1.8,
                marker=dots,
                markersize=3.5,
            )
    if name == "loss" and validation is not None:
        best = int(np.nanargmin(np.where(np.isfinite(validation), validation, np.nan)))
        axes.plot(epochs[best], validation[best], "o", color=_VALIDATION, markersize=8, fillstyle="none")
        words = f"lowest {validation[best]:.3g}, epoch {epochs[best]:.0f}"
        axes.set_title(words, loc="right", color=_VALIDATION, fontsize=8)
    axes.set_title(name.replace("_", " "), loc="left", color=INK, fontsize=10, parse_math=False)
    axes.set_xlabel("epoch", color=GREY, fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(colors=GREY, labelsize=8)
    axes.grid(True, color="#E3E8EC", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#B8C2CA")
    if training is not None and validation is not None:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
