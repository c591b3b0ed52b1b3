"""Reads the labels of a cell: joined text, a list as JSON, Python or NumPy writes it, or 1, 0, -1, blank."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tfrecords.sources.table_files import is_text
from tfrecords.vocabulary import tidy_name

ABSENT, PRESENT, MINUS_ONE, BLANK = 0, 1, -1, None
_WRONG = object()
_STATES = {"1": PRESENT, "0": ABSENT, "-1": MINUS_ONE, "": BLANK}
_STATES |= {"1.0": PRESENT, "0.0": ABSENT, "-1.0": MINUS_ONE}
_STATES |= {word: state for state, word in enumerate(("false", "true"))}
_LIST = re.compile(  # NumPy's, too, with and without its name
    r"(?:array|set|frozenset|list)?\(?[\[({](?P<body>.*?)[\])}]\)?(?:, dtype=\S+\))?", re.DOTALL
)
_QUOTED = re.compile(r"""\s*,?\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_JOINERS = re.compile("[\u200c\u200d\ufe0e\ufe0f]")

Place = tuple[str, int]
"""A table's path, and a line in it, from 1."""


def tell_place(place: Place) -> str:
    """A place as messages name it.

    >>> tell_place(("labels.csv", 3))
    'labels.csv line 3'
    """
    return f"{place[0]} line {place[1]}"


def tell_places(first: Place, second: Place) -> str:
    """Two places as messages name them.

    >>> tell_places(("a.csv", 3), ("a.csv", 7)), tell_places(("a.csv", 3), ("b.csv", 7))
    ('a.csv lines 3 and 7', 'a.csv line 3 and b.csv line 7')
    """
    if first[0] == second[0]:
        return f"{first[0]} lines {first[1]} and {second[1]}"
    return f"{tell_place(first)} and {tell_place(second)}"


class LabelNames:
    """Gives alike names one spelling, the first, and counts names; those that say "no label" are none.

    Alike are names that differ in Unicode's form (composed, decomposed, wide), in invisible characters, or in
    the number of blanks. Letter case tells names apart.
    """

    def __init__(self, no_label: tuple[str, ...] = ()):
        self.counts: Counter[str] = Counter()
        """Name -> how often it was read."""
        self.first_places: dict[str, Place] = {}
        """Name -> where it stood first."""
        self.no_label = {tidy_name(word).casefold(): word for word in no_label}
        self.unused = set(self.no_label)
        """Of the words for no label, those not met so far."""
        self._of_raw: dict[str, str] = {}
        self._of_key: dict[str, str] = {}
        self._other_forms: dict[str, dict[str, None]] = {}

    def read(self, raw: str, place: Place) -> str:
        """The name that `raw` spells; "" where it is blank or says "no label".

        Raises:
            ValueError: it holds a character that is no text.
        """
        name = self._of_raw.get(raw)
        if name is None:
            name = self._of_raw[raw] = self._find(raw, place)
        if name:
            self.counts[name] += 1
        return name

    def merged(self) -> dict[str, list[str]]:
        """The names that were spelled in several ways, each with the others."""
        return {
            name: list(forms)
            for name, forms in self._other_forms.items()
            if len(forms) + (name in self._of_raw) > 1
        }

    def _find(self, raw: str, place: Place) -> str:
        name = tidy_name(raw)
        if not is_text(name):
            raise ValueError(f"the label {name!r} holds a character that is no text: write it anew")
        folded = name.casefold()
        if folded in self.no_label:
            self.unused.discard(folded)
            return ""
        if not name:
            return ""
        name = self._of_key.setdefault(_JOINERS.sub("", name), name)
        self.first_places.setdefault(name, place)
        if raw.strip() != name:
            self._other_forms.setdefault(name, {})[raw.strip()] = None
        return name


class LabelCells:
    """Reads cells of joined labels and counts what tells whether they were split as they should be."""

    def __init__(self, separator: str | None, names: LabelNames):
        self.separator = separator
        self.names = names
        self.num_cells = 0
        """Cells of text that hold any label."""
        self.num_separated = 0
        """Those of them that hold the separator."""
        self.pieces: Counter[str] = Counter()
        """What the separator left of these cells -> how often."""
        self.listed: Counter[str] | None = Counter()
        """Of lists, as long as none holds several texts: their texts -> how often; then None."""

    def read(self, cell: Any, place: Place) -> tuple[str, ...]:
        """The labels of a cell, each once, in their order.

        Raises:
            ValueError: it is neither text nor a list of texts; the message says what it is.
        """
        if isinstance(cell, str):
            listed = self._parse_list(cell.strip())
            pieces = self._split(cell) if listed is None else self._note_list(listed)
        elif cell is None or cell != cell:  # JSON's null, and NaN
            pieces = ["null" if cell is None else "NaN"]
        else:
            pieces = self._note_list(_read_list(cell))
        read = self.names.read
        return tuple(dict.fromkeys(name for piece in pieces if (name := read(piece, place))))

    def _split(self, cell: str) -> list[str]:
        text = cell.strip()
        if not text:
            return []
        if self.separator is None:
            return [text]
        self.num_cells += 1
        if self.separator == " ":
            pieces = text.split()
        else:
            pieces = text.split(self.separator)
        self.num_separated += len(pieces) > 1
        self.pieces.update(pieces)
        return pieces

    def _parse_list(self, text: str) -> list[str] | None:
        try:
            return parse_list(text)
        except ValueError:
            if self.separator is None:  # a label in brackets
                return None
            raise

    def _note_list(self, names: list[str]) -> list[str]:
        if len(names) > 1:
            self.listed = None
        elif self.listed is not None:
            self.listed.update(names)
        return names


def parse_list(text: str) -> list[str] | None:
    """The texts of a list that stands in a cell as text; None where the cell is none.

    >>> parse_list("['sea', 'sky']"), parse_list('["sea", "sky"]'), parse_list("['sea' 'sky']")
    (['sea', 'sky'], ['sea', 'sky'], ['sea', 'sky'])
    >>> parse_list('{"choices": ["sea"]}'), parse_list("('sea', 'sky')"), parse_list("[]")
    (['sea'], ['sea', 'sky'], [])
    >>> parse_list("sea"), parse_list("(sea)")
    (None, None)

    Raises:
        ValueError: it begins and ends as a list, but is none of texts.
    """
    found = _LIST.fullmatch(text)
    if found is None:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return _read_list(json.loads(text))
    if text.startswith("{"):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            value = ast.literal_eval(text)
            if isinstance(value, dict):
                return _read_list(value)
    body, place, names = found["body"], 0, []
    while quoted := _QUOTED.match(body, place):  # Python's own reader would join 'a' 'b' to 'ab'
        names.append(_ESCAPE.sub(_unescape, quoted[1][1:-1]))
        place = quoted.end()
    if not body[place:].strip(" \t\r\n,"):
        return names
    if not names and text[0] in "({":  # brackets around plain words
        return None
    raise ValueError(
        f"the labels {text[:60]!r} look like a list but are none of quoted texts: expected ['sea', 'sky'], "
        "or text that --label-separator splits"
    )


def _unescape(escape: re.Match) -> str:
    code = escape[1]
    return chr(int(code[1:], 16)) if len(code) > 1 else {"n": "\n", "t": "\t", "r": "\r"}.get(code, code)


def _read_list(value: Any) -> list[str]:
    if isinstance(value, dict) and value.keys() == {"choices"}:  # Label Studio's
        value = value["choices"]
        value = [value] if isinstance(value, str) else value
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return list(value)
    raise ValueError(
        f"the labels are {str(value)[:60]}: expected a list of texts, a joined text, or an object of 1 and 0"
    )


class LabelValues:
    """Reads 1, 0, -1 and blank of one column a label, and counts what they are."""

    def __init__(self, minus_one: str | None = None, blank: str | None = None):
        self.unknown = {MINUS_ONE} if minus_one != "absent" else set()
        """The states that leave it open whether a label holds."""
        self.unknown |= {BLANK} if blank != "absent" else set()
        self.num_rows = 0
        self.counts: dict[str, Counter] = {}
        """Column -> state -> how often; 0 is not counted."""
        self.wrong: dict[str, tuple[int, Place, str]] = {}
        """Column -> how many cells hold something else, where the first stands, and what it holds."""

    def read(self, values: Mapping[str, Any], place: Place) -> tuple[list[str], list[str]]:
        """The columns that hold, and those that are unknown, of column -> value."""
        self.num_rows += 1
        if not values.keys() <= self.counts.keys():
            self.counts.update({name: Counter() for name in values if name not in self.counts})
        present, unknown = [], []
        for name, value in values.items():
            if value == "0":  # in a hurry: it is most of a table
                continue
            state = _read_state(value)
            if state is ABSENT:
                continue
            if state is _WRONG:
                num, first_place, text = self.wrong.get(name, (0, place, str(value)))
                self.wrong[name] = num + 1, first_place, text
                continue
            self.counts[name][state] += 1
            if state is PRESENT:
                present.append(name)
            elif state in self.unknown:
                unknown.append(name)
        return present, unknown

    def count(self, state: int | None) -> int:
        """How many cells hold `state`; 0 is what all others hold, keys that JSON leaves out among them."""
        if state is ABSENT:
            wrong = sum(num for num, _, _ in self.wrong.values())
            others = sum(num for states in self.counts.values() for num in states.values())
            return self.num_rows * len(self.counts) - others - wrong
        return sum(states[state] for states in self.counts.values())


def _read_state(value: Any) -> Any:
    if value is None:
        return BLANK
    state = _STATES.get(str(value), _WRONG)
    if state is not _WRONG:
        return state
    state = _STATES.get(str(value).strip().lower(), _WRONG)
    if state is not _WRONG:
        return state
    try:
        number = float(value)  # 1.0, as spreadsheets write it, and JSON's true
    except (TypeError, ValueError, OverflowError):
        return _WRONG
    return int(number) if number in (1, 0, -1) else _WRONG
