"""How near the demo's tagger comes to the best that anything can reach, and what sets are worth.

    python benchmarks/bench_demo.py                    nine trainings, a quarter of an hour on two cores

The rules that drew the demo are known, so the best reachable scores are too (`tfrecords.sources.demo`). Three
seeds each, on the test split: the best path with the LSTM and with the linear layer in its place (the paper's
No-RNN), and binary cross-entropy through a CNN of its own with thresholds tuned for exact match.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measure import Targets, mean, run_command, spread

from tfrecords.sources.demo import best_one_by_one, best_sets

WITHIN_POINTS = 5
MEASURES = {"O-F1": "overall_f1", "exact_match": "exact_match"}
ROWS = {
    "cnn-rnn": "best path",
    "no-rnn": "best path",
    "bce": "own, exact match",
    "bce-hidden": "own, exact match",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    found = compare(parser.parse_args().seeds)
    best = {name: 100 * getattr(best_sets(), field) for name, field in MEASURES.items()}
    targets = Targets()
    for method, row in ROWS.items():
        for name in MEASURES:
            values = found[method, row][name]
            print(f"{method:<10} {row:<18} {name:<12} {spread(values)}   best reachable {best[name]:.1f}")
            if method == "cnn-rnn":
                targets.check(name, mean(values), at_least=best[name] - WITHIN_POINTS)
    print(
        f"labels judged one by one reach an exact match of {100 * best_one_by_one().exact_match:.1f} at best"
    )
    ours = found["cnn-rnn", ROWS["cnn-rnn"]]["exact_match"]
    theirs = max((found[name, ROWS[name]]["exact_match"] for name in ("bce", "bce-hidden")), key=mean)
    wider = max(max(values) - min(values) for values in (ours, theirs))
    targets.check(
        f"exact match of the best path over binary cross-entropy, in spreads of {wider:.1f} points",
        (mean(ours) - mean(theirs)) / max(wider, 1e-9),
        at_least=1,
    )
    return targets.status


def compare(seeds: int) -> dict[tuple[str, str], dict[str, list[float]]]:
    """{(method, lists): {measure: one value a seed, in percent}}."""
    with tempfile.TemporaryDirectory() as folder:
        done = run_command(
            *(Path(sys.executable).with_name("cnnrnn"), "compare", "--dataset", "demo"),
            *("--methods", ",".join(ROWS), "--seeds", str(seeds)),
            *("--data-dir", Path(folder) / "data", "--runs-dir", Path(folder) / "runs"),
        )
        (file,) = (Path(folder) / "runs" / "demo").glob("compare-*/comparison*.json")
        blocks = json.loads(file.read_text())["blocks"]
    print(f"all methods, {seeds} seeds: {done.wall_s:.0f} s, {done.peak_gib:.1f} GiB", flush=True)
    return {
        (row["method"], row["lists"]): {
            name: [100 * value for value in row["measures"][name]["values"]] for name in MEASURES
        }
        for block in blocks
        for row in block["rows"]
    }


if __name__ == "__main__":
    sys.exit(main())
