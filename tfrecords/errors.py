"""What went wrong and how to fix it enter; one line that a person can act on leaves."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable

_ALIKE = 0.55  # of 1: `skie` is 0.57 like `sky`, and `beach` 0.5 like `sea`


class UserError(ValueError):
    """A mistake of the user's: says in one line what failed, what was expected, what arrived and what to do.

    Commands print it as `error: ...` and exit with status 2, without a traceback (`tfrecords.cli.run_main`).
    """


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The suffix ` (did you mean 'sky'?)` for the candidate most like `name`, or "" when none is alike.

    >>> "unknown label 'skie'" + nearest("skie", ["sea", "sky", "clouds"])
    "unknown label 'skie' (did you mean 'sky'?)"
    >>> nearest("bicycle", ["sea", "sky"])
    ''
    """
    found = find_nearest(name, candidates)
    return "" if found is None else f" (did you mean {found!r}?)"


def find_nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `name`, its case aside; None when none is alike.

    Of equally like ones the one that begins alike, then the one with the same letters: `vgg61` is rather
    `vgg16` than `vgg19`.
    """
    scored = [(_compare(name, candidate), candidate) for candidate in candidates]
    alike = [each for each in scored if each[0][0] >= _ALIKE]
    return max(alike, key=lambda each: each[0])[1] if alike else None


def _compare(name: str, candidate: str) -> tuple[float, int, float]:
    first, second = name.casefold(), candidate.casefold()
    matcher = difflib.SequenceMatcher(None, second, first)
    if matcher.quick_ratio() < _ALIKE:  # an upper bound, and fast: a vocabulary has thousands of names
        return 0.0, 0, 0.0
    letters = difflib.SequenceMatcher(None, sorted(second), sorted(first))
    if second not in first and first not in second:
        edits = sum(max(b - a, d - c) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal")
        if 2 * edits > max(len(first), len(second)):  # `skie` has three letters of `singer`, too
            return 0.0, 0, 0.0
    same_start = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return matcher.ratio(), len(list(same_start)), letters.ratio()
