"""Reads `history.csv`, the epochs of a run, and says whether they are enough; needs no TensorFlow."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from tfrecords.errors import UserError

MONITOR = "val_nll"
"""What selects the checkpoint: the mean over the hold-out of -log P(path)."""

ANEW = "start a new run with `python train.py --config` and the config.json of this one"


def read_history(run_dir: Path) -> list[dict[str, str]]:
    """The rows of `history.csv`, one an epoch; none before the first."""
    rows = read_rows(run_dir)
    try:
        for row in rows:
            float(row[MONITOR])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{run_dir / 'history.csv'}: damaged, an epoch has no {MONITOR}: {ANEW}") from None
    return rows


def read_values(run_dir: Path) -> list[float]:
    """`MONITOR` of each finished epoch, in order."""
    return [float(row[MONITOR]) for row in read_history(run_dir)]


def read_rows(run_dir: Path) -> list[dict[str, str]]:
    """The rows as they stand, whatever is in them: the last may be cut off."""
    path = run_dir / "history.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return list(csv.DictReader(file))


def is_out_of_patience(history: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` epochs are no better than one before; a patience of 0 has no end."""
    if not patience or not history:
        return False
    best = find_best(history)
    last_best = history.index(best) if best in history else -1
    return len(history) - 1 - last_best >= patience


def find_best(history: Sequence[float]) -> float:
    """The lowest value, NaN left out; infinity where there is none."""
    return min((value for value in history if not math.isnan(value)), default=math.inf)
