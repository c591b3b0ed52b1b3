"""Pictures, tags and titles enter from the top down; a page that has grown to hold them leaves as a file."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from PIL import Image

DPI = 150
INK = "#22303C"
GREY = "#66727D"


@dataclasses.dataclass(frozen=True)
class Style:
    """How a tag looks; the symbol says the same as the colours."""

    symbol: str
    ink: str
    fill: str
    edge: str
    meaning: str


PLAIN = Style("", INK, "#E9EEF2", "#E9EEF2", "")
RIGHT = Style("✓", "#00543F", "#CDEBE1", "#CDEBE1", "right")
WRONG = Style("✗", "#8A3300", "#FADCC6", "#FADCC6", "wrong")
MISSED = Style("○", "#33506B", "#FFFFFF", "#8FA6BA", "missed")
UNKNOWN = Style("?", GREY, "#F1F1F1", "#F1F1F1", "unknown")


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Lengths in inches."""

    cell: float = 2.5  # width of a picture
    single_cell: float = 3.6  # of the only picture of a row
    gap: float = 0.26
    margin: float = 0.22
    tallest: float = 1.25  # of a picture, as a share of its width
    line: float = 0.215  # from one row of tags to the next
    tag_height: float = 0.175
    tag_padding: float = 0.055
    tag_gap: float = 0.05


SIZES = _Sizes()
_TAG_FONT = FontProperties(family="DejaVu Sans", size=7.5)
_NAME_FONT = FontProperties(family="DejaVu Sans", size=6.5)
TITLE_FONT = FontProperties(family="DejaVu Sans", size=12, weight="bold")


@dataclasses.dataclass(frozen=True)
class Cell:
    picture: Image.Image
    name: str
    tags: list[tuple[str, Style]]


class Sheet:
    """A page of fixed width that grows downwards. All lengths are inches, from the top left corner.

    Nothing is placed until `save`, when the height is known: the page collects what to draw.
    """

    def __init__(self, width: float) -> None:
        self.width = width
        self._figure = Figure(figsize=(width, 1), dpi=DPI, facecolor="white")
        self._renderer = FigureCanvasAgg(self._figure).get_renderer()
        self._drawing: list[Any] = []  # functions of the page's height

    def draw_row(self, row: Sequence[Cell], width: float, top: float) -> float:
        """Draws pictures side by side and their captions; returns the height."""
        sizes = [_fit(cell.picture.size, width) for cell in row]
        tallest = max(height for _, height in sizes)
        lowest = top
        for place, (cell, (wide, high)) in enumerate(zip(row, sizes, strict=True)):
            left = SIZES.margin + place * (width + SIZES.gap)
            self._place_picture(cell.picture, left, top + tallest - high, wide, high)
            below = top + tallest + 0.07
            if cell.name:
                text = self._shorten(cell.name, width, _NAME_FONT)
                self._write(text, left, below + 0.06, _NAME_FONT, GREY)
                below += 0.16
            lowest = max(lowest, self.draw_tags(cell.tags, left, below, width))
        return lowest - top

    def draw_tags(self, tags: Sequence[tuple[str, Style]], left: float, top: float, width: float) -> float:
        """Draws tags in rows no wider than `width`; returns where they end."""
        x = left
        for text, style in tags:
            text = self._shorten(f"{style.symbol} {text}".strip(), width - 2 * SIZES.tag_padding, _TAG_FONT)
            wide = self._measure(text, _TAG_FONT) + 2 * SIZES.tag_padding
            if x > left and x + wide > left + width:
                x, top = left, top + SIZES.line
            self._place_box(x, top, wide, style)
            self._write(text, x + SIZES.tag_padding, top + SIZES.tag_height / 2, _TAG_FONT, style.ink)
            x += wide + SIZES.tag_gap
        return top + SIZES.tag_height

    def draw_legend(self, styles: Sequence[Style], top: float) -> float:
        """Draws what the styles mean; returns the height."""
        tags = [(style.meaning, style) for style in styles]
        end = self.draw_tags(tags, SIZES.margin, top, self.width - 2 * SIZES.margin)
        return end - top + SIZES.gap

    def write_title(self, title: str, top: float) -> float:
        """Writes a title; returns the height."""
        text = self._shorten(title, self.width - 2 * SIZES.margin, TITLE_FONT)
        self._write(text, SIZES.margin, top + 0.08, TITLE_FONT, INK)
        return 0.32

    def save(self, path: Path, height: float) -> None:
        """Draws everything on a page of `height` and writes it."""
        pixels = math.ceil(height * DPI)
        self._figure.set_size_inches(self.width, pixels / DPI)
        for draw in self._drawing:
            draw(pixels / DPI)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._figure.savefig(path, dpi=DPI)

    def _place_picture(self, picture: Image.Image, left: float, top: float, wide: float, high: float) -> None:
        size = (max(1, round(wide * DPI)), max(1, round(high * DPI)))
        pixels = np.asarray(picture.resize(size, Image.Resampling.LANCZOS))

        def draw(height: float) -> None:
            bottom = round(height * DPI) - round(top * DPI) - size[1]
            self._figure.figimage(pixels, round(left * DPI), bottom)

        self._drawing.append(draw)

    def _place_box(self, left: float, top: float, wide: float, style: Style) -> None:
        def draw(height: float) -> None:
            corner = (left, height - top - SIZES.tag_height)
            box = FancyBboxPatch(
                corner,
                wide,
                SIZES.tag_height,
                boxstyle="round,pad=0,rounding_size=0.045",
                transform=self._figure.dpi_scale_trans,
                facecolor=style.fill,
                edgecolor=style.edge,
                linewidth=0.7,
            )
            self._figure.add_artist(box)

        self._drawing.append(draw)

    def _write(self, text: str, left: float, middle: float, font: FontProperties, colour: str) -> None:
        def draw(height: float) -> None:
            self._figure.text(
                left,
                height - middle,
                text,
                transform=self._figure.dpi_scale_trans,
                fontproperties=font,
                color=colour,
                va="center_baseline",
                parse_math=False,
            )

        self._drawing.append(draw)

    def _measure(self, text: str, font: FontProperties) -> float:
        return self._renderer.get_text_width_height_descent(text, font, ismath=False)[0] / DPI

    def _shorten(self, text: str, width: float, font: FontProperties) -> str:
        """`text` if it fits, else as much of its start and end as does."""
        text = " ".join(text.split()).encode("utf-8", "replace").decode()  # a file's name may be any bytes
        if self._measure(text, font) <= width:
            return text

        def keep(count: int) -> str:
            end = min(5, count // 3)  # where the probability stands
            return text[: count - end] + "…" + text[len(text) - end :]

        fitting = bisect_right(range(1, len(text)), width, key=lambda count: self._measure(keep(count), font))
        return keep(fitting)


def _fit(size: tuple[int, int], width: float) -> tuple[float, float]:
    """Width and height, in inches, of a picture of `size` pixels that keeps its shape."""
    high = min(width * size[1] / size[0], width * SIZES.tallest)
    return high * size[0] / size[1], high
