"""What went wrong and how to fix it enter; one line that a person can act on leaves."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    by_folded_name = {candidate.casefold(): candidate for candidate in candidates}
    found = difflib.get_close_matches(name.casefold(), by_folded_name, n=1, cutoff=0.5)
    return f" (did you mean {by_folded_name[found[0]]!r}?)" if found else ""
