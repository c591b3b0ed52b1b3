"""Every method on the same features of two sets of real photographs, beside what a prototype reached.

    python benchmarks/bench_compare.py --data FOLDER --weights mobilenet_v2.weights.h5

FOLDER is that of bench_photographs.py: the natural scenes of the LAMDA MIML image data and the Stanford
Clothing Attribute data. The CNN is MobileNetV2, frozen; three seeds. The expected figures are those of a
prototype on the same splits: a method lands no more than 2.5 points below them.
"""

import json
import sys
import tempfile
from pathlib import Path

from measure import Targets, run_command
from photographs import build_records, read_options

WITHIN_POINTS = 2.5
LIMIT_S = 1200  # both data sets together
SAME_MAP_POINTS = 0.5  # linear binary cross-entropy is logistic regression
MEASURES = ("C-F1_harmonic", "O-F1", "MAP@10_truncated", "mAP_raw")
BEST_PATH = "best path, first 3"
EXPECTED = {  # (method, lists): {data set: MEASURES}
    "clothing": {
        ("logistic", "exactly 3"): (44.0, 68.6, 82.7, 57.7),
        ("svm", "exactly 3"): (46.8, 65.3, 76.6, 57.0),
        ("knn", "exactly 3"): (38.6, 66.5, 79.5, 51.5),
        ("bce", "exactly 3"): (45.9, 63.6, 72.9, 54.7),
        ("bce-hidden", "exactly 3"): (45.8, 67.0, 80.4, 55.6),
        ("softmax", "exactly 3"): (47.5, 62.5, 73.6, 53.1),
        ("softmax-hidden", "exactly 3"): (46.2, 64.8, 78.8, 53.1),
        ("warp", "exactly 3"): (47.5, 63.9, 73.5, 50.3),
        ("cnn-rnn", "exactly 3"): (42.6, 65.5, 78.5, 52.8),
        ("cnn-rnn", BEST_PATH): (39.3, 64.9, 77.0, 50.0),
    },
    "scenes": {
        ("logistic", "at most 3"): (84.7, 84.4, 94.7, 93.0),
        ("svm", "at most 3"): (81.5, 81.3, 94.2, 92.6),
        ("knn", "at most 3"): (82.7, 82.2, 93.4, 91.6),
        ("bce", "at most 3"): (83.5, 83.4, 93.7, 92.3),
        ("bce-hidden", "at most 3"): (84.3, 84.1, 94.7, 93.3),
        ("softmax", "at most 3"): (82.0, 81.8, 92.9, 90.9),
        ("softmax-hidden", "at most 3"): (83.9, 83.6, 94.0, 92.3),
        ("warp", "at most 3"): (80.9, 80.9, 93.8, 89.9),
        ("cnn-rnn", "at most 3"): (85.2, 84.8, 93.7, 92.9),
        ("cnn-rnn", BEST_PATH): (84.7, 84.4, 92.2, 91.9),
    },
}
MIN_LENGTH = {"clothing": 3, "scenes": 0}


def main() -> int:
    options = read_options(__doc__)
    if options is None:
        return 0
    targets, seconds = Targets(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for dataset, expected in EXPECTED.items():
            found, wall_s = compare(options, dataset, Path(folder))
            seconds += wall_s
            print(f"{dataset}: all methods, {options.seeds} seeds, in {wall_s:.0f} s", flush=True)
            check_rows(targets, found, expected)
    targets.check("seconds of both comparisons", seconds, at_most=LIMIT_S)
    return targets.status


def compare(options, dataset: str, folder: Path) -> tuple[dict, float]:
    """{(method, lists): {measure: mean in percent}} and the seconds of the command."""
    build_records(options, dataset, folder / "data")
    done = run_command(
        *(Path(sys.executable).with_name("cnnrnn"), "compare", "--dataset", dataset),
        *("--backbone", "mobilenet_v2", "--backbone-weights", options.weights.resolve()),
        *("--min-length", str(MIN_LENGTH[dataset]), "--seeds", str(options.seeds)),
        *("--data-dir", folder / "data", "--runs-dir", folder / "runs"),
    )
    (file,) = (folder / "runs" / dataset).glob("compare-*/comparison*.json")
    rows = [row for block in json.loads(file.read_text())["blocks"] for row in block["rows"]]
    found = {
        (row["method"], row["lists"]): {name: 100 * row["measures"][name]["mean"] for name in MEASURES}
        for row in rows
    }
    return found, done.wall_s


def check_rows(targets: Targets, found: dict, expected: dict) -> None:
    lists = {lists for _, lists in expected}
    for (method, row), measures in found.items():
        if row in lists:
            values = "  ".join(f"{value:5.1f}" for value in measures.values())
            print(f"    {method:<16} {row:<20} {values}", flush=True)
    for (method, row), bounds in expected.items():
        for name, bound in zip(MEASURES, bounds, strict=True):
            targets.check(
                f"{method}, {row}: {name}", found[method, row][name], at_least=bound - WITHIN_POINTS
            )
    row = next(row for method, row in expected if method == "logistic")
    distance = abs(found["logistic", row]["mAP_raw"] - found["bce", row]["mAP_raw"])
    targets.check("mAP of bce beside scikit-learn's logistic regression", distance, at_most=SAME_MAP_POINTS)


if __name__ == "__main__":
    sys.exit(main())
