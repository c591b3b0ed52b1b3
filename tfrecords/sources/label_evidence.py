"""Judges by all of a table's labels whether they were read as they are meant, and names the flag if not."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tfrecords.sources.label_cells import (
    ABSENT,
    BLANK,
    MINUS_ONE,
    PRESENT,
    LabelCells,
    LabelNames,
    LabelValues,
    tell_place,
)
from tfrecords.sources.table_columns import quote_flags
from tfrecords.words import count, plural

NO_NAMES = frozenset(
    (
        "nan",
        "none",
        "n/a",
        "na",
        "null",
        "<na>",
        "#n/a",
        "nil",
        "nat",
        "-",
        "--",
        "?",
        "undefined",
        "(null)",
        "-1",
    )
)
"""What programs write for "nothing", folded; hardly ever a label."""
_STRONG = {",": "comma", "|": "pipe", ";": "semicolon", "\t": "tab", "\n": "line break"}
_STRONG |= {
    "\uff0c": "wide comma",
    "\u3001": "Chinese comma",
    "\uff1b": "wide semicolon",
    "\uff5c": "wide pipe",
}
"""Separators that names of labels seldom hold."""
_WEAK = {"/": "slash", "+": "plus", "&": "ampersand", "_": "underscore", "-": "hyphen", ":": "colon"}
"""Separators that names often hold, as all other signs: what they part must be labels by itself."""
_IN_NAMES = frozenset("'\u2019\"()[]{}.")
"""Signs that are part of names or stand around them."""
_LIKE_NO_LABEL = re.compile(
    r"(no|without)[ _]|(nothing|normal|negative|empty|background|un-?label+ed)$", re.IGNORECASE
)
_LIKE_LABELS = re.compile("label|tag|class|categor|target|genre|finding|attribute|choice", re.IGNORECASE)
_MOST_LABELS = 100_000
"""Of more different labels, the most frequent are judged."""


@dataclass(frozen=True)
class _Joined:
    """What speaks for a column being joined by `separator`: so many cells, such as `example`."""

    separator: str
    word: str
    num_cells: int
    example: str


def explain_joined(cells: LabelCells, column: str, num_rows: int, is_chosen: bool = False) -> str | None:
    """Why the labels of `column` look as if they were not split, with the flags to choose from; or None.

    Args:
        cells: all that was read.
        column: its name.
        num_rows: of the table.
        is_chosen: whether a person named the separator: what it leaves joined is then told in a note.
    """
    if cells.separator is None:
        return None
    counts = _count_labels(cells)
    if _is_split(cells):
        mixed = None if is_chosen else _find_mixed(cells, counts)
        return mixed and _explain_mixed(cells, column, mixed)
    found = _find_joined(cells, counts)
    if found is None:
        return None
    of_given = f"holds no {cells.separator!r} in {count('row', num_rows)}"
    if cells.num_separated:
        of_given = f"holds {cells.separator!r} in {cells.num_separated:,} of {count('row', num_rows)}"
    elif not cells.num_cells:
        of_given = "has lists of one text each"
    holds = "holds" if found.num_cells == 1 else "hold"
    typed = {"\n": "'\\n'", "\t": "'\\t'"}.get(found.separator, f"'{found.separator}'")
    advice = f"pass --label-separator {typed}" if cells.num_cells else "give each label a text of its own"
    return (
        f"the column {column!r} {of_given}, but {count('cell', found.num_cells)} {holds} a {found.word} "
        f"({found.example!r}): {advice}, or --label-separator none if each is one label"
    )


def note_mixed(cells: LabelCells, column: str) -> str | None:
    """Which labels of a column that was split consist of other labels; or None."""
    if cells.separator is None or not _is_split(cells):
        return None
    found = _find_mixed(cells, _count_labels(cells), at_least=0)
    if found is None:
        return None
    return (
        f"one label each, though their parts are labels too: {found.example!r} and the like, in "
        f"{count('cell', found.num_cells)} of {column!r}; write {cells.separator!r} between labels"
    )


def _explain_mixed(cells: LabelCells, column: str, found: _Joined) -> str:
    return (
        f"{count('cell', cells.num_separated)} of {column!r} are split at {cells.separator!r}, but "
        f"{found.num_cells:,} hold labels joined by a {found.word} ({found.example!r}): write "
        f"{cells.separator!r} in all rows, or pass --label-separator '{cells.separator}' if each of these is "
        "one label"
    )


def _is_split(cells: LabelCells) -> bool:
    """Whether the separator occurs as that of labels does, and not as part of a name or two."""
    return cells.num_separated * 20 > cells.num_cells


def _count_labels(cells: LabelCells) -> Counter[str]:
    pieces = cells.pieces if cells.num_cells else cells.listed or {}
    counts: Counter[str] = Counter()
    for piece, num in pieces.items():
        counts[piece.strip()] += num
    del counts[""]
    return Counter(dict(counts.most_common(_MOST_LABELS)))


def _find_joined(cells: LabelCells, counts: Counter[str]) -> _Joined | None:
    """What joins the labels of a column that was not split."""
    total = counts.total()
    for separator, word, parts in _part(cells, counts):
        num_cells = sum(counts[label] for label in parts)
        of_labels = _consist_of_labels(counts, parts)
        if separator in _STRONG:
            suspect = num_cells * 100 >= total or bool(of_labels)
        else:
            suspect = len(of_labels) >= 3 or _is_combination(counts, parts)
        if suspect:
            example = max(of_labels or parts, key=lambda label: (counts[label], label))
            return _Joined(separator, word, num_cells, example)
    return None


def _find_mixed(cells: LabelCells, counts: Counter[str], at_least: float = 0.01) -> _Joined | None:
    """What else joins labels of a column that was split: all parts of what it joins are labels themselves.

    Of separators that names hold as well, such as the blank, ten times that share is asked for.
    """
    for separator, word, parts in _part(cells, counts):
        of_labels = _consist_of_labels(counts, parts)
        share = sum(counts[label] for label in of_labels) / counts.total()
        is_weak = separator not in _STRONG
        if of_labels and share >= (max(10 * at_least, 0.1) if is_weak else at_least):
            if is_weak and len(of_labels) < 3:
                continue
            example = max(of_labels, key=lambda label: (counts[label], label))
            return _Joined(separator, word, sum(counts[label] for label in of_labels), example)
    return None


def _part(cells: LabelCells, counts: Counter[str]) -> Iterator[tuple[str, str, dict[str, tuple[str, ...]]]]:
    """Yields separators that were not split at, their names, and of the labels that hold one the parts."""
    for separator, word in _list_separators(counts).items():
        if separator == cells.separator:
            continue
        parts = {label: _split(label, separator) for label in counts}
        if parts := {label: pieces for label, pieces in parts.items() if len(pieces) > 1}:
            yield separator, word, parts


def _consist_of_labels(counts: Counter[str], parts: Mapping[str, tuple[str, ...]]) -> set[str]:
    return {label for label, pieces in parts.items() if all(piece in counts for piece in pieces)}


def _list_separators(labels: Iterable[str]) -> dict[str, str]:
    """What may join labels, each with its name; the blank is last, for it may stand around all others."""
    others = sorted({sign for label in labels for sign in label if not sign.isalnum() and not sign.isspace()})
    known = {**_STRONG, **_WEAK}
    signs = (sign for sign in others if sign not in known and sign not in _IN_NAMES)
    signs = {sign: f"{sign!r}" for sign in signs if unicodedata.category(sign)[0] in "PS"}
    return {**known, **signs, " ": "blank"}


def _split(label: str, separator: str) -> tuple[str, ...]:
    if separator == " ":
        return tuple(label.split())
    return tuple(filter(None, map(str.strip, label.split(separator))))


def _is_combination(counts: Mapping[str, int], parts: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether parts are labels, by how they recur: `haze primary`, not `polar bear` or `wine glass`.

    In a name a word keeps its place: `bear` is last and `wine` first. In a list a label may stand anywhere,
    alone too, and in several. Where it never does, the parts are still few and their combinations many.
    """
    total = sum(counts[label] for label in parts)
    places: dict[str, set[bool]] = defaultdict(set)  # part -> whether it stands last
    num_labels: Counter[str] = Counter()
    for pieces in ((label,) for label in counts if label not in parts):
        places[pieces[0]].add(True)
        num_labels[pieces[0]] += 1
    for pieces in parts.values():
        for piece in dict.fromkeys(pieces):
            places[piece].add(piece == pieces[-1])
            num_labels[piece] += 1
    moving = sum(counts[label] for label, pieces in parts.items() if any(len(places[p]) > 1 for p in pieces))
    recurring_labels = {piece for piece, num in num_labels.items() if piece in counts and num > 2}
    of_labels = sum(counts[label] for label, pieces in parts.items() if recurring_labels.intersection(pieces))
    different = {piece for pieces in parts.values() for piece in pieces}
    recurring = sum(num_labels[piece] > 1 for piece in different)
    is_product = (
        len(parts) >= 10 and len(different) * 3 <= len(parts) * 2 and recurring * 5 >= len(different) * 4
    )
    return moving * 4 >= total or of_labels * 4 >= total or is_product


def explain_no_names(names: LabelNames) -> str | None:
    """Which labels are what programs write for "nothing", with the flag that takes them so; or None."""
    found = [name for name in names.counts if name.casefold() in NO_NAMES]
    if not found:
        return None
    flags = " ".join(f"--no-label={shlex.quote(name)}" for name in found)
    which = " and ".join(
        f"{name!r} {count('time', names.counts[name])} (first in {tell_place(names.first_places[name])})"
        for name in found
    )
    return f"among the labels is {which}: pass {flags} if it means no label, or give the label another name"


def explain_wrong_values(values: LabelValues) -> str | None:
    """Which columns hold other than 1, 0, -1 and blank, all at once; or None."""
    if not values.wrong:
        return None
    (first, (_, place, text)), *others = values.wrong.items()
    some = ", ".join(f"{name!r} ({text[:20]!r})" for name, (_, _, text) in others[:4])
    more = f" and {len(others) - 4} more" if len(others) > 4 else ""
    also = f"; so have {some}{more}" if others else ""
    likely = next((name for name in values.wrong if _LIKE_LABELS.search(name)), None)
    such = f", such as {quote_flags('--labels-column', [likely])}" if likely else ""
    advice = f"a column of joined labels is named with --labels-column{such}"
    if len(values.wrong) < len(values.counts):
        advice += f", what is no label is left out with {quote_flags('--ignore-columns', values.wrong)}"
    return (
        f"{tell_place(place)}: column {first!r} has the value {text[:60]!r}: expected 1, 0, or blank or -1 "
        f"for unknown{also}; {advice}"
    )


def explain_missing_zero(values: LabelValues, minus_one: str | None, blank: str | None) -> str | None:
    """Why -1 and blank could mean either, as the table has no 0, with the flags that say it; or None."""
    open_ones = [
        (word, flag, values.count(state))
        for word, flag, state, said in (
            ("-1", "--minus-one", MINUS_ONE, minus_one),
            ("blank", "--blank", BLANK, blank),
        )
        if said is None and values.count(state)
    ]
    if not open_ones or values.count(ABSENT):
        return None
    which = " and ".join(f"{num:,} of {word}" for word, _, num in open_ones)
    flags = " and ".join(f"{flag} absent (or unknown)" for _, flag, _ in open_ones)
    return (
        f"the label columns hold {values.count(PRESENT):,} cells of 1, {which}, and no 0: say what it means "
        f"with {flags}"
    )


def note_columns_without_zero(values: LabelValues) -> str | None:
    """Which columns hold 1 and unknown but never 0, though others do; or None."""
    never = [
        name
        for name, states in values.counts.items()
        if 0 < states[PRESENT] < values.num_rows
        and states[PRESENT] + sum(states[state] for state in values.unknown) == values.num_rows
    ]
    if not never:
        return None
    return (
        f"{_list(never)}: never 0, so no image is known to be without; if a blank "
        "or -1 means it, pass --blank absent or --minus-one absent"
    )


def note_like_no_label(names: LabelNames) -> str | None:
    """Which labels sound as if they said that there is none, such as `No Finding`; or None."""
    found = [name for name in names.counts if _LIKE_NO_LABEL.match(name)]
    if not found:
        return None
    flags = " ".join(f"--no-label {shlex.quote(name)}" for name in found[:3])
    labels = plural("label", len(found))
    return f"taken as {labels} like any other: {_list(found)}; if it says none, pass {flags}"


def note_merged(names: LabelNames) -> str | None:
    """Which labels were spelled in several ways, told once; or None."""
    merged = names.merged()
    if not merged:
        return None
    some = ", ".join(f"{name!r} ({forms[0]!a})" for name, forms in list(merged.items())[:3])
    more = f" and {len(merged) - 3} more" if len(merged) > 3 else ""
    return f"spelled in several ways that look alike, and one label each: {some}{more}"


def _list(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
