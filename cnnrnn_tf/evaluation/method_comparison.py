"""The measures of several methods over several seeds enter; the blocks of a comparison table leave.

A block holds lists that were made by one rule, for numbers of different rules are not to be compared: exactly
k labels, at most k, any number. `method_tables` shows the blocks.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cnnrnn_tf.evaluation.report_tables import Column, choose_columns
from cnnrnn_tf.evaluation.summary import warn
from tfrecords.errors import UserError
from tfrecords.words import count


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """One method, fitted with one seed and measured.

    Attributes:
        method: its name on the command line.
        title: what a table calls it.
        metrics: of `report.evaluate_predictions`.
        min_length: the fewest labels that its paths were made to have; 0 for methods without paths.
    """

    method: str
    title: str
    metrics: Mapping[str, Any]
    min_length: int = 0


@dataclasses.dataclass(frozen=True)
class Spread:
    """One measure over the seeds, as fractions.

    Attributes:
        mean: the arithmetic mean.
        deviation: the sample standard deviation; None where there is one value alone.
        values: one a seed.
    """

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """The spread of the values; None where one of them is undefined.

        >>> Spread.of([0.5, 0.7]).mean, Spread.of([0.5, None])
        (0.6, None)
        """
        values = tuple(values)
        if not values or any(value is None for value in values):
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(math.fsum(values) / len(values), deviation, values)


@dataclasses.dataclass(frozen=True)
class Row:
    """One method's lists in a block: `measures` has a `Spread`, or None where undefined, for each column."""

    method: str
    title: str
    lists: str
    measures: Mapping[str, Spread | None]


@dataclasses.dataclass(frozen=True)
class Block:
    """All rows whose lists were made by one rule."""

    name: str
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What the tables, the figure and the JSON of a comparison show."""

    dataset: str
    split: str
    protocol: str
    num_images: int
    num_seeds: int
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    details: tuple[str, ...] = ()
    """What else there is to say of the numbers: in the files, and on the screen where it is asked for."""

    def to_json(self) -> dict[str, Any]:
        """Nested plain data."""
        return dataclasses.asdict(self)


def compare_outcomes(dataset: str, outcomes: Sequence[Outcome], notes: Sequence[str] = ()) -> Comparison:
    """Sorts the rows of all outcomes into blocks, and sums up over seeds.

    The labels of a best path are in the block of the lists that they are: with a minimum length of k their
    first k are exactly k, else at most k; whole paths have any length.

    Args:
        dataset: its name.
        outcomes: all of one split under the same protocols; those of one method, one a seed, have the same
            `method`. Methods stay in this order.
        notes: what else a reader has to know.

    Raises:
        UserError: no outcomes, or of different splits, protocols or images.
    """
    if not outcomes:
        raise UserError("a comparison needs the outcome of one method at least")
    first = outcomes[0].metrics
    for outcome in outcomes:
        for key in ("split", "protocols", "images", "vocabulary_fingerprint"):
            if outcome.metrics[key] != first[key]:
                raise UserError(
                    f"{outcome.title} was measured on another {key.replace('_', ' ')} than "
                    f"{outcomes[0].title}: such numbers do not belong into one table"
                )
    main = first["protocols"][0]
    columns = tuple(choose_columns(main))
    by_method: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_method.setdefault(outcome.method, []).append(outcome)
    num_seeds = max(len(group) for group in by_method.values())
    return Comparison(
        dataset=dataset,
        split=first["split"],
        protocol=" and ".join(found["name"] for found in first["protocols"]),
        num_images=first["images"],
        num_seeds=num_seeds,
        columns=columns,
        blocks=tuple(_make_blocks(by_method.values(), columns)),
        notes=(*_make_notes(first, num_seeds), *notes),
        details=tuple(_make_details(first, outcomes)),
    )


def _make_blocks(groups: Iterable[Sequence[Outcome]], columns: Sequence[Column]) -> list[Block]:
    rows: dict[str, list[Row]] = {}
    for group in groups:
        for name in [row["name"] for row in group[0].metrics["rows"]]:
            rows.setdefault(_choose_block(name, group[0].min_length), []).append(
                _sum_up(group, name, columns)
            )
    return [Block(name, tuple(rows[name])) for name in sorted(rows, key=_block_order)]


def _choose_block(name: str, min_length: int) -> str:
    """The block of a report's row: by the rule that its lists follow."""
    if name == "best path":
        return "free length"
    if name.startswith("best path, first "):
        k = int(name.rpartition(" ")[2])
        return f"exactly {k}" if min_length >= k else f"at most {k}"
    return name


def _block_order(name: str) -> tuple[int, int, str]:
    kinds = ("exactly ", "at most ", "free length", "own thresholds", "own, ")
    kind = next((i for i, words in enumerate(kinds) if name.startswith(words)), len(kinds))
    number = name.rpartition(" ")[2]
    return kind, int(number) if number.isdecimal() else 0, name


def _sum_up(group: Sequence[Outcome], name: str, columns: Sequence[Column]) -> Row:
    found = [
        {**outcome.metrics["ranking"], **row}
        for outcome in group
        for row in outcome.metrics["rows"]
        if row["name"] == name
    ]
    keys = [*(column.key for column in columns), "list_length"]
    measures = {key: Spread.of(row[key] for row in found) for key in keys}
    return Row(group[0].method, group[0].title, name, measures)


def _make_notes(metrics: Mapping[str, Any], num_seeds: int) -> Iterable[str]:
    if num_seeds > 1:
        yield "In percent, mean ± standard deviation over seeds; a method without ± draws nothing at random."
    else:
        yield "In percent, of one seed."
    yield from (f"Protocol {found['name']}: {found['words']}" for found in metrics["protocols"])
    yield from warn(metrics)


def _make_details(metrics: Mapping[str, Any], outcomes: Sequence[Outcome]) -> Iterable[str]:
    if any(row["name"].startswith("best path") for outcome in outcomes for row in outcome.metrics["rows"]):
        yield (
            "A best path is what CNN-RNN and No-RNN emit; their other rows, and the MAP@10 and mAP of all of "
            "them, cut or rank labels by their marginals over the beam's paths."
        )
    yield "MAP@10 ranks the labels of an image, mAP the images of a label: the two are not comparable."
    fitted = any(row["threshold"] is not None for outcome in outcomes for row in outcome.metrics["rows"])
    if fitted and metrics["protocols"][0]["threshold"] is None:
        yield f"Thresholds were fitted on {count('hold-out image', metrics['holdout_images'])}."
    yield f"The hold-out chose when to stop; nothing was chosen on the split {metrics['split']}."
