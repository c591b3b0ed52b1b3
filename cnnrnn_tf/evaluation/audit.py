"""A published row of measures enters, as printed; whether it can be right, and what it implies, leaves.

Nothing but the row is needed. A printed number stands for every number that rounds to it: half a unit of its
last digit to both sides. All arithmetic is on such intervals, in exact fractions:

    O-F1 = 2 O-P O-R/(O-P + O-R)                             always, as all three come from the same counts
    C-F1 = 2 C-P C-R/(C-P + C-R)                             where it is the harmonic mean
    max(0, C-P + C-R - 1) <= C-F1 <= 2 C-P C-R/(C-P + C-R)   where it is the mean of the labels' F1
    O-P/O-R = true labels/predicted labels                   so: list length = labels an image * O-R/O-P

The third line: a label's F1 is a concave function of its precision and recall, so its mean over labels is at
most the F1 of the means (Jensen; equal only where every label has the same ratio of precision to recall), and
is least where each label has precision and recall of 0 or 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from cnnrnn_tf.evaluation.published import (
    C_F1_OF_THE_PAPER,
    LABELS_PER_IMAGE,
    LIST_LENGTHS,
    PUBLISHED,
    PublishedRow,
)
from tfrecords.errors import UserError, nearest

MEASURES = ("C-P", "C-R", "C-F1", "O-P", "O-R", "O-F1", "MAP@10", "mAP")
"""What a row may hold, in percent; the last two are not checked."""

_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`, both included.

    >>> print(Interval.read("40.5"))
    40.45 to 40.55
    """

    low: Fraction
    high: Fraction

    @classmethod
    def read(cls, text: str, what: str = "number") -> Interval:
        """What rounds to a printed number: half a unit of its last digit to both sides, not below 0.

        Raises:
            UserError: it is no plain decimal number.
        """
        if not _NUMBER.fullmatch(text):
            raise UserError(f"{what} {text!r}: expected a plain decimal number such as 40.5")
        half = Fraction(1, 2 * 10 ** len(text.partition(".")[2]))
        value = Fraction(text)
        return cls(max(value - half, Fraction(0)), value + half)

    def meets(self, other: Interval) -> bool:
        """Whether some number is in both."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        return f"{_round(self.low)} to {_round(self.high)}"


@dataclass(frozen=True)
class Finding:
    """What one check found: about which measure, whether it can be right, and in words."""

    about: str
    ok: bool
    words: str


@dataclass(frozen=True)
class Audit:
    """What a row says when it is taken at its word.

    Attributes:
        findings: one a check.
        c_f1_fits: the conventions of C-F1 that can have given it, of "harmonic" and "per_class"; empty where
            none can, or where the row does not have all three.
        ratio: O-P/O-R, which is true labels over predicted ones; None where the row lacks either.
        list_length: labels predicted an image; None where `ratio` or the labels an image are not known.
        labels_per_image: true labels an image that lists of exactly k imply; None where k is not known.
    """

    findings: tuple[Finding, ...]
    c_f1_fits: tuple[str, ...] = ()
    ratio: Interval | None = None
    list_length: Interval | None = None
    labels_per_image: Interval | None = None

    @property
    def can_be_right(self) -> bool:
        """Whether some true counts give these numbers, as far as the checks reach."""
        return all(finding.ok for finding in self.findings)


def read_row(text: str) -> dict[str, str]:
    """Names and numbers of a row as it may be pasted: "C-P 40.5 C-R 30.4", with `=`, `:`, `,` or `|` too.

    Raises:
        UserError: a name is unknown or twice there, a number is missing, or is no percentage.

    >>> read_row("O-P 49.9, O-R 61.7")
    {'O-P': '49.9', 'O-R': '61.7'}
    """
    words = re.split(r"[\s=:,|%]+", text.strip(" \t\n=:,|%"))
    if words == [""]:
        raise UserError('an empty row: expected names and numbers, such as "O-P 49.9 O-R 61.7 O-F1 55.2"')
    row: dict[str, str] = {}
    for name, value in zip(words[::2], [*words[1::2], ""][: len(words[::2])], strict=True):
        if name not in MEASURES:
            raise UserError(
                f"unknown measure {name!r}{nearest(name, MEASURES)}: expected {', '.join(MEASURES)}"
            )
        if name in row:
            raise UserError(f"{name} is twice in the row: give it once")
        if not _NUMBER.fullmatch(value):
            raise UserError(f"{name} must be followed by its number in percent, such as 40.5, got {value!r}")
        if Fraction(value) > 100:
            raise UserError(f"{name} {value}: expected percent, 0 to 100")
        row[name] = value
    if all(Fraction(value) <= 1 and "." in value for value in row.values()):
        raise UserError(f"{name} {value}: numbers of 1 or less look like fractions; write percent, 0 to 100")
    return row


def audit_row(
    measures: Mapping[str, str],
    labels_per_image: Interval | None = None,
    exactly: int | None = None,
    c_f1: str | None = None,
) -> Audit:
    """Checks one row against itself.

    Args:
        measures: percent as printed, by name.
        labels_per_image: true labels an image, to tell the length of the lists.
        exactly: k, where the lists have exactly k labels, to tell the true labels an image.
        c_f1: the convention that the row is known to follow, "harmonic" or "per_class"; None where unknown.

    Raises:
        UserError: a number is no percentage, or there is no such convention.

    >>> audit_row({"C-P": "65.3", "C-R": "54.5", "C-F1": "59.3"}).c_f1_fits
    ('per_class',)
    """
    if c_f1 not in (None, "harmonic", "per_class"):
        raise UserError(f"the convention of C-F1 must be harmonic or per_class, got {c_f1!r}")
    known = {name: _read_percent(text, name) for name, text in measures.items() if name in MEASURES}
    fits, ratio = _fit_c_f1(known), _divide(known.get("O-P"), known.get("O-R"))
    implied = (
        None if ratio is None or exactly is None else Interval(exactly * ratio.low, exactly * ratio.high)
    )
    return Audit(
        findings=(*_check_c_f1(known, fits, c_f1), *_check_o_f1(known)),
        c_f1_fits=fits,
        ratio=ratio,
        list_length=None if ratio is None else _divide(labels_per_image, ratio),
        labels_per_image=implied,
    )


def audit_published(rows: Sequence[PublishedRow] = PUBLISHED) -> list[tuple[PublishedRow, Audit]]:
    """Checks published rows, with what is known of their data sets; C-F1 is the paper's."""
    return [(row, _audit_published(row)) for row in rows]


def _audit_published(row: PublishedRow) -> Audit:
    fact = LABELS_PER_IMAGE.get(row.dataset)
    rule, k = LIST_LENGTHS.get(row.dataset, ("", None))
    found = audit_row(
        row.measures,
        None if fact is None else Interval(fact.mean, fact.mean),
        k if rule == "exactly" else None,
        C_F1_OF_THE_PAPER,
    )
    if not row.average_precisions:
        return found
    return Audit((*found.findings, _check_mean(row.average_precisions, row.measures["mAP"])))


def _fit_c_f1(known: Mapping[str, Interval]) -> tuple[str, ...]:
    if not {"C-P", "C-R", "C-F1"} <= set(known):
        return ()
    harmonic = _harmonic(known["C-P"], known["C-R"])
    bounds = {"harmonic": harmonic, "per_class": _bound_per_class(known["C-P"], known["C-R"])}
    return tuple(name for name, interval in bounds.items() if interval.meets(known["C-F1"]))


def _check_c_f1(
    known: Mapping[str, Interval], fits: Sequence[str], convention: str | None
) -> Iterator[Finding]:
    if "C-F1" not in known:
        return
    if not {"C-P", "C-R"} <= set(known):
        yield from _check_half("C", known)
        return
    harmonic = _harmonic(known["C-P"], known["C-R"])
    lowest = _bound_per_class(known["C-P"], known["C-R"]).low
    words = f"printed {known['C-F1']}; the harmonic mean of C-P and C-R is {harmonic}"
    per_class = f"the mean of the labels' F1 can be anything from {_round(lowest)} to {_round(harmonic.high)}"
    if not fits:
        side = "above" if known["C-F1"].low > harmonic.high else "below"
        yield Finding("C-F1", False, f"{words}, and {per_class}: it lies {side} both.")
    elif convention is not None and convention not in fits:
        yield Finding("C-F1", False, f"{words}, from which it cannot follow; {per_class}.")
    elif "harmonic" in fits:
        yield Finding(
            "C-F1",
            True,
            f"{words}, which fits. {per_class[0].upper()}{per_class[1:]}, and is the harmonic mean only "
            "where every label has the same ratio of precision to recall.",
        )
    else:
        yield Finding("C-F1", True, f"{words}, which does not fit; {per_class}, so that it can be that.")


def _check_o_f1(known: Mapping[str, Interval]) -> Iterator[Finding]:
    if "O-F1" not in known:
        return
    if not {"O-P", "O-R"} <= set(known):
        yield from _check_half("O", known)
        return
    harmonic = _harmonic(known["O-P"], known["O-R"])
    fits = harmonic.meets(known["O-F1"])
    words = f"printed {known['O-F1']}; from O-P and O-R follows {harmonic}"
    yield Finding("O-F1", fits, f"{words}{', which fits' if fits else ', which it cannot be'}.")


def _check_half(kind: str, known: Mapping[str, Interval]) -> Iterator[Finding]:
    """F1 beside precision or recall alone: the other is 100 at most."""
    given = [name for name in (f"{kind}-P", f"{kind}-R") if name in known]
    if given:
        most = _harmonic(known[given[0]], Interval(Fraction(0), Fraction(100))).high
        ok = known[f"{kind}-F1"].low <= most
        yield Finding(f"{kind}-F1", ok, f"beside {given[0]} alone it can be {_round(most)} at most.")


def _check_mean(values: Sequence[str], mean: str) -> Finding:
    intervals = [_read_percent(value, "AP") for value in values]
    found = Interval(
        sum(interval.low for interval in intervals) / len(values),
        sum(interval.high for interval in intervals) / len(values),
    )
    printed = _read_percent(mean, "mAP")
    ok = found.meets(printed)
    ends = "which fits" if ok else "which it is not"
    return Finding("mAP", ok, f"printed {printed}; the mean of the {len(values)} APs is {found}, {ends}.")


def _read_percent(text: str, name: str) -> Interval:
    interval = Interval.read(text, name)
    if Fraction(text) > 100:
        raise UserError(f"{name} {text}: expected percent, 0 to 100")
    return Interval(interval.low, min(interval.high, Fraction(100)))


def _harmonic(one: Interval, other: Interval) -> Interval:
    """2 one other/(one + other), which rises with both."""
    return Interval(_f1(one.low, other.low), _f1(one.high, other.high))


def _f1(one: Fraction, other: Fraction) -> Fraction:
    return 2 * one * other / (one + other) if one + other else Fraction(0)


def _bound_per_class(precision: Interval, recall: Interval) -> Interval:
    lowest = max(Fraction(0), precision.low + recall.low - 100)
    return Interval(lowest, _harmonic(precision, recall).high)


def _divide(one: Interval | None, other: Interval | None) -> Interval | None:
    if one is None or other is None or not other.low:
        return None
    return Interval(one.low / other.high, one.high / other.low)


def _round(value: Fraction) -> str:
    """Percent with two digits; ratios and lengths of lists with three or four."""
    digits = 2 if value >= 10 else 3 if value >= 1 else 4 if value else 0
    return f"{float(value):.{digits}f}"
