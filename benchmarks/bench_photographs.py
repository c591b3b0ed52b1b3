"""Scores on two sets of real photographs, from the owners' tables to an export.

    python benchmarks/bench_photographs.py --data FOLDER --weights mobilenet_v2.weights.h5

FOLDER holds `scenes` (the natural scenes of the LAMDA MIML image data) and `clothing` (the Stanford Clothing
Attribute data), each with `labels.csv` and `images/`. The CNN is MobileNetV2, frozen, with the ImageNet
weights of keras.applications without the top. Three seeds; labels ranked by beam marginals.
"""

import json
import sys
import tempfile
from pathlib import Path

from measure import Targets, mean, run, spread
from photographs import build_records, read_options

LIMIT_S = 180  # from records to export
ROWS = {  # data set -> row of the report, {measure: lowest mean, in percent}
    "clothing": ("exactly 3", {"C-F1_harmonic": 41.5, "O-F1": 64.5, "MAP@10_truncated": 77.5}),
    "scenes": ("at most 3", {"O-F1": 83.5, "MAP@10_truncated": 92.5, "mAP_raw": 91.5}),
}


def main() -> int:
    options = read_options(__doc__)
    if options is None:
        return 0
    targets = Targets()
    for dataset, (row_name, bounds) in ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = measure(options, dataset, row_name, Path(folder))
        print(f"{dataset}, {row_name}: mean (lowest to highest) of {options.seeds} seeds", flush=True)
        for measure_name in found[0]:
            if measure_name != "seconds":
                print(f"    {measure_name:<18} {spread([each[measure_name] for each in found])}")
        for measure_name, lowest in bounds.items():
            targets.check(measure_name, mean([each[measure_name] for each in found]), at_least=lowest)
        targets.check(
            "seconds from records to export", max(each["seconds"] for each in found), at_most=LIMIT_S
        )
    return targets.status


def measure(options, dataset: str, row_name: str, folder: Path) -> list[dict[str, float]]:
    """The measures of each seed in percent, and the seconds of each training."""
    built = build_records(options, dataset, folder / "data")
    print(f"{dataset}: records in {built.wall_s:.0f} s", flush=True)
    found = []
    for seed in range(options.seeds):
        done = run(
            *("train.py", "--dataset", dataset, "--backbone", "mobilenet_v2"),
            *("--backbone-weights", options.weights.resolve(), "--seed", str(seed)),
            *("--data-dir", folder / "data", "--runs-dir", folder / "runs", "--run-name", str(seed)),
        )
        metrics = json.loads((folder / "runs" / dataset / str(seed) / "metrics.json").read_text())
        row = next(row for row in metrics["rows"] if row["name"] == row_name)
        values = {**metrics["ranking"], **row}
        names = ("C-F1_harmonic", "O-F1", "exact_match", "MAP@10_truncated", "mAP_raw")
        found.append({**{name: 100 * values[name] for name in names}, "seconds": done.wall_s})
        print(f"    seed {seed}: {done.wall_s:.0f} s, {done.peak_gib:.1f} GiB", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
