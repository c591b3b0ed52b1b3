"""The flags by which predict, tag and client steer a search, and what the labels in `--given` mean."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from cnnrnn_tf.serving.tagged_image import check_options
from tfrecords.errors import UserError, nearest

OPTIONS = ("beam_size", "min_length", "max_length", "threshold", "top_k")


@dataclass(kw_only=True)
class SearchOptions:
    """Flags of the commands that may search otherwise than the model was trained or exported to."""

    given: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="LABELS")] = ()
    """Labels known to hold for every image, joined by commas: sky,clouds. May be named several times; a
    label with a comma in it is written as it is: --given "sea, ocean" --given sky."""
    beam_size: int | None = None
    """Candidate paths of the search; this and the three below stay as exported where they are not named."""
    min_length: int | None = None
    """The fewest labels of an image."""
    max_length: int | None = None
    """The most labels of an image."""
    threshold: float | None = None
    """Labels with a probability below this are left out."""
    top_k: int | None = None
    """The N most probable labels of an image, of all that there are, in place of its most probable set."""

    @property
    def search_options(self) -> dict[str, float]:
        """The options that are named, by name."""
        return {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}

    def check_search(self) -> None:
        """Refuses, before anything is loaded, what no model answers.

        Raises:
            UserError: options out of bounds, or that do not go together.
        """
        check_options(self.search_options, self.given)


def split_given(values: Iterable[str], names: Sequence[str] | None = None) -> list[str]:
    """The labels in the values of `--given`, each once: a value that is a label as a whole is that label.

    Args:
        values: names, joined by commas, which labels may hold themselves.
        names: of all labels; None where they are not known, and every comma divides.

    Raises:
        UserError: one is not in `names`, with the nearest that is.

    >>> split_given(["sea, ocean,sky", "boat"], ["sky", "sea, ocean", "boat"])
    ['sea, ocean', 'sky', 'boat']
    """
    known = None if names is None else {_fold(name): name for name in names}
    found: dict[str, None] = {}
    for value in values:
        parts = value.split(",")
        while parts:
            length = 1 if known is None else _find_label(parts, known)
            name = ",".join(parts[:length]).strip()
            if known is not None and _fold(name) in known:
                name = known[_fold(name)]
            elif known is not None and name:
                raise UserError(_explain_unknown(",".join(parts), name, names))
            if name:
                found[name] = None
            parts = parts[length:]
    return list(found)


def _find_label(parts: Sequence[str], known: dict[str, str]) -> int:
    """How many of the parts are the longest label that they begin with; 1 where they begin with none."""
    lengths = range(len(parts), 0, -1)
    return next((length for length in lengths if _fold(",".join(parts[:length])) in known), 1)


def _fold(name: str) -> str:
    """What two spellings of one label have in common: Unicode's form, and blanks around and in it."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def _explain_unknown(rest: str, name: str, names: Sequence[str]) -> str:
    whole = rest.strip()
    if nearest(whole, names):
        name = whole
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"unknown label {name!r}{nearest(name, names)}: expected one of {shown}"
