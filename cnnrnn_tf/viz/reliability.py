"""Bins of probabilities and of what held in them enter; a reliability diagram leaves as an image file.

Above, each bin's share of true labels over its mean probability: on the diagonal a probability means what it
says, below it promises too much. Beneath, how many cells are in each bin, without which the first is easily
misread: nearly all labels of nearly all images are in the leftmost.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, PercentFormatter, StrMethodFormatter

from cnnrnn_tf.viz.figures import check_path
from cnnrnn_tf.viz.sheet import DPI, GREY, INK, TITLE_FONT
from tfrecords.errors import UserError

Bins = tuple[np.ndarray, np.ndarray, np.ndarray]

_STYLES = (("#D55E00", "o"), ("#0072B2", "s"))  # vermilion and blue of Okabe and Ito, told apart by all
_RULE, _PALE = "#B8C2CA", "#E3E8EC"


def save_reliability(path: str | Path, curves: Mapping[str, Bins], title: str | None = None) -> None:
    """Draws one or two reliability curves over how many cells are behind each of their points.

    The vertical line at a point is where the share may well lie: Wilson's interval of one standard error,
    which says something of a few cells too, and of shares of 0 and 1.

    Args:
        path: the file; its suffix decides the format.
        curves: for each name, in the order to be drawn, `<int>[bins]` cells, `<float>[bins]` their mean
            probability and `<float>[bins]` the share whose label holds; of bins of equal width from 0 to 1,
            nan where empty. `evaluation.calibration.reliability` gives them.
        title: a line above all.

    Raises:
        UserError: there are no curves, more than two, or a curve without a cell; or a suffix that Matplotlib
            cannot write.
    """
    path = check_path(path)
    _check_curves(curves)
    figure = Figure(figsize=(5.4, 6.4), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    _draw_curves(above, curves)
    _draw_counts(below, curves)
    for axes in (above, below):
        _tidy(axes)
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontproperties=TITLE_FONT, parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_curves(axes: Any, curves: Mapping[str, Bins]) -> None:
    for (name, (counts, promised, held)), (colour, marker) in zip(curves.items(), _STYLES, strict=False):
        filled = counts > 0
        n, x, y = counts[filled], promised[filled], held[filled]
        low, high = _wilson(y, n)
        axes.vlines(x, low, high, color=colour, linewidth=1.2, alpha=0.55, zorder=2)
        axes.plot(
            x,
            y,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.4,
            label=name,
            zorder=3,
            clip_on=False,
        )
    axes.plot([0, 1], [0, 1], color=_RULE, linewidth=1.2, zorder=1, label="as promised")
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of cells whose label holds", color=GREY, fontsize=9)
    axes.yaxis.set_major_locator(FixedLocator(np.linspace(0, 1, 6)))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")


def _wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of Wilson's score interval for a share of n cells, of one standard error."""
    middle = (n * share + 0.5) / (n + 1)
    reach = np.sqrt(n * share * (1 - share) + 0.25) / (n + 1)
    return middle - reach, middle + reach


def _draw_counts(axes: Any, curves: Mapping[str, Bins]) -> None:
    for place, ((counts, _, _), (colour, _)) in enumerate(zip(curves.values(), _STYLES, strict=False)):
        width = 1 / len(counts)
        bar = 0.84 * width / len(curves)
        left = width * np.arange(len(counts)) + 0.08 * width + place * bar
        axes.bar(left, counts, bar, align="edge", color=colour)
    highest = max(int(counts.max()) for counts, _, _ in curves.values())
    axes.set_yscale("log")
    axes.set_ylim(0.7, 2 * max(highest, 5))
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("cells in the bin", color=GREY, fontsize=9)
    axes.set_xlabel("probability of the label", color=GREY, fontsize=9)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(FixedLocator(np.linspace(0, 1, 6)))
    axes.xaxis.set_major_formatter(PercentFormatter(1))


def _tidy(axes: Any) -> None:
    axes.tick_params(colors=GREY, labelsize=8)
    axes.grid(True, color=_PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_RULE)


def _check_curves(curves: Mapping[str, Bins]) -> None:
    if not 1 <= len(curves) <= len(_STYLES):
        raise UserError(f"a reliability diagram has one or two curves, got {len(curves)}")
    for name, (counts, _, _) in curves.items():
        if not np.sum(counts):
            raise UserError(
                f"the reliability curve {name!r} has no cell in any bin, so there is nothing to draw"
            )
