"""A command line enters; where the two sets of real photographs and the CNN's weights are leaves.

What the benchmarks on real photographs share.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from measure import Measured, run

SHARED = Path(os.environ.get("CNNRNN_SHARED", "../shared"))
DATASETS = ("clothing", "scenes")


def read_options(description: str) -> argparse.Namespace | None:
    """`data`, `weights` and `seeds`; None where a file is missing, which a line says."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument(
        "--weights", type=Path, default=SHARED / "weights" / "mobilenet_v2_imagenet_no_top.weights.h5"
    )
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for path in (*map(options.data.joinpath, DATASETS), options.weights):
        if not path.exists():
            print(f"skipped: {path} is not there; give --data and --weights")
            return None
    return options


def build_records(options: argparse.Namespace, dataset: str, data_dir: Path) -> Measured:
    """Makes records of `clothing` or `scenes` in `data_dir`."""
    source = options.data / dataset
    return run(
        *("-m", "tfrecords", "build", "table", "--from", source / "labels.csv"),
        *("--images", source / "images", "--name", dataset, "--data-dir", data_dir),
    )
