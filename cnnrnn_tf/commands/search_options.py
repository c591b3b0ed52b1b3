"""Flags of a command line enter; the options of signature `tag` that they name leave."""

from __future__ import annotations

from dataclasses import dataclass

OPTIONS = ("beam_size", "min_length", "max_length", "threshold")


@dataclass(kw_only=True)
class SearchOptions:
    """Flags of the commands that may search otherwise than the export was made to."""

    beam_size: int | None = None
    """Candidate paths of the search; this and the three below stay as exported where they are not named."""
    min_length: int | None = None
    """The fewest labels of an image."""
    max_length: int | None = None
    """The most labels of an image."""
    threshold: float | None = None
    """Labels with a probability below this are left out."""

    @property
    def search_options(self) -> dict[str, float]:
        """The options that are named, by name."""
        return {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}
