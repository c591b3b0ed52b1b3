"""How near the demo's tagger comes to the best that anything can reach, and what the recurrence is worth.

    python benchmarks/bench_demo.py                    six trainings, a quarter of an hour on two cores

The rules that drew the demo are known, so the best reachable scores are too (`tfrecords.sources.demo`). Three
seeds each, with the LSTM and with the linear layer in its place (the paper's No-RNN), by the best path on the
test split.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measure import Targets, mean, run, spread

from tfrecords.sources.demo import best_sets

WITHIN_POINTS = 5
MEASURES = {"O-F1": "overall_f1", "exact_match": "exact_match"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    best = {name: 100 * getattr(best_sets(), field) for name, field in MEASURES.items()}
    targets = Targets()
    with tempfile.TemporaryDirectory() as folder:
        for cell in ("lstm", "none"):
            rows = [train(Path(folder), cell, seed) for seed in seeds]
            for name in MEASURES:
                values = [100 * row[name] for row in rows]
                print(f"{cell:>5} {name:<12} {spread(values)}   best reachable {best[name]:.1f}", flush=True)
                if cell == "lstm":
                    targets.check(name, mean(values), at_least=best[name] - WITHIN_POINTS)
    return targets.status


def train(folder: Path, cell: str, seed: int) -> dict:
    """The measures of the best path of one training."""
    name = f"{cell}-{seed}"
    done = run(
        *("train.py", "--dataset", "demo", "--cell", cell, "--seed", str(seed)),
        *("--data-dir", folder / "data", "--runs-dir", folder / "runs", "--run-name", name),
    )
    metrics = json.loads((folder / "runs" / "demo" / name / "metrics.json").read_text())
    row = next(row for row in metrics["rows"] if row["name"] == "best path")
    print(
        f"{cell:>5} seed {seed}: O-F1 {100 * row['O-F1']:.1f}, exact match {100 * row['exact_match']:.1f}, "
        f"{done.wall_s:.0f} s, {done.peak_gib:.1f} GiB",
        flush=True,
    )
    return row


if __name__ == "__main__":
    sys.exit(main())
