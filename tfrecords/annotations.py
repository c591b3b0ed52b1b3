"""What every source yields, before ids exist: an `Annotation` an image, or a `Skip` for one left out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """One object of an image: corners as fractions of width and height (0 to 1), `area` in px² if known."""

    label: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    area: float | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """The source's truth about one image, in names and not ids.

    Attributes:
        image_id: unique within a data set, over all its splits; the hold-out and the order on disk hash it.
        image_path: the file that holds the image; None where the source makes the image itself.
        labels: names that hold, in any order, each once; may be empty.
        ignored: names of which nobody knows whether they hold; never a name that is also in `labels`.
        boxes: objects, where the source has them.
    """

    image_id: str
    image_path: str | None
    labels: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Skip:
    """An image left out for a short named `reason` such as `missing_image`; `detail` is for a person.

    `by_choice` says that the user asked for it to be left out: nothing is wrong with it.
    """

    image_id: str
    reason: str
    detail: str = ""
    by_choice: bool = False
