"""The measures of several methods over seeds enter; one picture with a dot for each method leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cnnrnn_tf.viz.figures import check_path
from cnnrnn_tf.viz.sheet import DPI, GREY, INK, TITLE_FONT

_DOT, _OURS = "#0072B2", "#D55E00"  # blue and vermilion of Okabe and Ito, told apart by all
_ROW_IN, _PANEL_IN, _NAMES_IN, _HEAD_IN = 0.2, 2.6, 1.9, 0.55


@dataclass(frozen=True)
class MethodBlock:
    """A row of panels: what its lists are, and {measure: {method: values in percent, one a seed}}."""

    name: str
    measures: Mapping[str, Mapping[str, Sequence[float]]]


def save_comparison(path: str | Path, blocks: Sequence[MethodBlock], title: str | None = None) -> None:
    """Draws a row of panels for each block: a method a line, a dot at its mean, a bar from lowest to highest.

    The lines of the path models (CNN-RNN and No-RNN) have a colour of their own.

    Args:
        path: the file; its suffix decides the format.
        blocks: in order from the top; each measure is a panel.
        title: a line above all.

    Raises:
        UserError: a suffix that Matplotlib cannot write.
    """
    path = check_path(path)
    heights = [
        _HEAD_IN + _ROW_IN * max(map(len, block.measures.values()), default=0) + 0.2 for block in blocks
    ]
    columns = max(len(block.measures) for block in blocks)
    size = (_NAMES_IN + _PANEL_IN * columns, sum(heights) + 0.3)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(len(blocks), columns, height_ratios=heights)
    for i, block in enumerate(blocks):
        names = list(dict.fromkeys(name for values in block.measures.values() for name in values))
        for j, (measure, values) in enumerate(block.measures.items()):
            axes = figure.add_subplot(grid[i, j])
            _draw_panel(axes, names, values)
            axes.set_title(f"{block.name}: {measure}", loc="left", color=INK, fontsize=9, parse_math=False)
            if j:
                axes.set_yticklabels([])
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontproperties=TITLE_FONT, parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_panel(axes: Any, names: Sequence[str], values: Mapping[str, Sequence[float]]) -> None:
    for place, name in enumerate(names):
        if name not in values:
            continue
        seen = values[name]
        colour = _OURS if "RNN" in name else _DOT
        axes.plot([min(seen), max(seen)], [place, place], color=colour, linewidth=2, alpha=0.45)
        axes.plot(sum(seen) / len(seen), place, "o", color=colour, markersize=4.5)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(colors=GREY, labelsize=7.5)
    axes.grid(True, color="#E3E8EC", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(x=0.08)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#B8C2CA")
