"""Says in a sentence how good a model is, and which of its rows a protocol is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tfrecords.words import count

BEST_PATH = "best path"
"""The row of what a model emits, and how the names of rows begin that are cut from it."""

FEW_HOLDOUT_IMAGES = 30
"""A hold-out of fewer images is warned of: what is fitted on it is chance as much as fit."""

_OF_PATHS = ("cnn-rnn", "free")
"""The protocols whose lists are what a model emits, where it emits any."""


def own_row(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row with the lists that the protocol asks for; None where there is none, for want of a threshold.

    For `cnn-rnn` and `free` that is what the model emits, where it emits paths: the whole best path, or its
    first k labels. Lists of exactly k need paths that are long enough, as a minimum length makes them: to a
    tenth of a label, as the paper's own have 2.98 of 3. For the other protocols, for paths that are shorter,
    and where there are scores alone, the row is cut from scores.
    """
    main, rows = metrics["protocols"][0], {row["name"]: row for row in metrics["rows"]}
    k = main["k"]
    emitted = BEST_PATH if k is None else f"{BEST_PATH}, first {k}"
    if main["name"] in _OF_PATHS and emitted in rows:
        is_long_enough = main["list_length"] != "exactly" or round(rows[emitted]["list_length"], 1) == k
        if is_long_enough:
            return rows[emitted]
    cut = {"exactly": f"exactly {k}", "at_most": f"at most {k}", "free": "free length"}
    return rows.get(cut[main["list_length"]])


def summarise(metrics: Mapping[str, Any]) -> str:
    """What the protocol's own row says, for who knows none of the measures; whole numbers.

    >>> row = {"name": "best path", "list_length": 2.1, "O-P": 0.854, "O-R": 0.82, "exact_match": 0.74}
    >>> protocol = {"name": "free", "k": None, "list_length": "free"}
    >>> summarise({"protocols": [protocol], "rows": [row]}).split("; ")[1:]
    ['it finds 82 of 100', '74 % of the sets are right as a whole (best path).']
    """
    row = own_row(metrics) or metrics["rows"][0]
    if not row["list_length"]:
        return f"It gives no image any label ({row['name']})."
    right, found, whole = (_round(row[key]) for key in ("O-P", "O-R", "exact_match"))
    are = "is" if right == 1 else "are"
    finds = "" if found is None else f" it finds {found} of 100;"
    return (
        f"Of 100 labels it gives, {right} {are} right;{finds} {whole} % of the sets are right as a whole "
        f"({row['name']})."
    )


def warn(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What makes the numbers weak, a sentence each."""
    num_holdout, num_images = metrics["holdout_images"], metrics["images"]
    if num_holdout is not None and num_holdout < FEW_HOLDOUT_IMAGES:
        yield warn_of_holdout(num_holdout)
    if num_images < FEW_HOLDOUT_IMAGES:
        yield f"These are measures of {count('image', num_images)}: so few say little of others."


def warn_of_holdout(num_images: int) -> str:
    """The warning of a small hold-out."""
    return (
        f"The hold-out has {count('image', num_images)}: the epoch, thresholds and calibration that so few "
        f"choose are chance as much as fit; {FEW_HOLDOUT_IMAGES} or more are better."
    )


def _round(fraction: float | None) -> int | None:
    return None if fraction is None else round(100 * fraction)
