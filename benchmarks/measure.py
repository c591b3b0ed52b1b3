"""Commands and targets enter; their time, their memory and one line a target, held or missed, leave.

Whole commands are measured as a user runs them, in processes of their own.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Measured:
    """One finished command: seconds by the clock, and the most memory that it held at once, in GiB.

    `peak_gib` is the operating system's count for the largest process of the command; `total_gib` is the sum
    over all its processes, each at its own peak, as of the last look, a tenth of a second apart.
    """

    wall_s: float
    peak_gib: float
    total_gib: float


def run(*words: str | Path, cwd: Path = ROOT) -> Measured:
    """Runs `python WORDS...` with this interpreter and waits for it, see `run_command`."""
    return run_command(sys.executable, *words, cwd=cwd)


def run_command(*words: str | Path, cwd: Path = ROOT) -> Measured:
    """Runs a command and waits for it.

    Raises:
        SystemExit: the command failed; the end of what it wrote is shown.
    """
    command = [*map(str, words)]
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        peaks: dict[int, float] = {}
        ended = threading.Event()
        watch = threading.Thread(target=_watch_memory, args=(process.pid, peaks, ended))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        ended.set()
        watch.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}:\n{text[-3000:]}")
    return Measured(wall_s, usage.ru_maxrss / 2**20, sum(peaks.values()))


def _watch_memory(pid: int, peaks: dict[int, float], ended: threading.Event) -> None:
    """Keeps in `peaks` the highest resident set of each process of a tree, in GiB, until `ended`."""
    while not ended.wait(0.1):
        for each in _find_tree(pid):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{each}/status").read_text(encoding="utf-8")
                found = re.search(r"VmHWM:\s+(\d+) kB", status)
                if found:
                    peaks[each] = int(found[1]) / 2**20


def _find_tree(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        return [pid, *(each for child in children for each in _find_tree(int(child)))]
    return []


class Targets:
    """Prints each target as it is decided, and knows whether all were held."""

    def __init__(self):
        self.all_held = True

    def check(
        self, name: str, value: float, *, at_least: float = -float("inf"), at_most: float = float("inf")
    ):
        """One line: the value reached and the bound."""
        held = at_least <= value <= at_most
        self.all_held &= held
        bound = f">= {at_least:g}" if at_most == float("inf") else f"<= {at_most:g}"
        print(f"  {'held  ' if held else 'MISSED'} {name}: {value:.2f} (target {bound})", flush=True)

    @property
    def status(self) -> int:
        """The exit status of a benchmark: 0 where every target was held."""
        return 0 if self.all_held else 1


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def spread(values: Sequence[float]) -> str:
    """`81.2 (80.9 to 81.6)`: the mean, the lowest and the highest."""
    return f"{mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"
