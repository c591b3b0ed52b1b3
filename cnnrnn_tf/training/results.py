"""A trained model and its predictions enter; figures, a few photographs and what to type next leave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnrnn_tf.data.images import read_thumbnail
from cnnrnn_tf.data.records import read_files
from cnnrnn_tf.evaluation.calibration import Calibration, reliability
from cnnrnn_tf.evaluation.predictions import Predictions
from cnnrnn_tf.evaluation.report import print_report
from cnnrnn_tf.viz.figures import save_grid
from cnnrnn_tf.viz.reliability import save_reliability
from tfrecords.cli import format_command
from tfrecords.vocabulary import LabelVocabulary

_GRID_IMAGES = 16
_EXAMPLES = 4


def save_split_grid(
    path: Path,
    dataset_dir: Path,
    split: str,
    predictions: Predictions,
    vocabulary: LabelVocabulary,
    calibration: Calibration | None = None,
) -> None:
    """Draws the first images of a split with the labels of their best paths, right, wrong and missed.

    Args:
        path: the picture.
        dataset_dir: the records.
        split: its name.
        predictions: of the whole split, in the order of the records.
        vocabulary: the names of the labels.
        calibration: what the probabilities are calibrated with, as `cnnrnn predict` prints them; None shows
            the marginals.
    """
    pictures = [read_thumbnail(encoded) for _, encoded in read_files(dataset_dir, split, _GRID_IMAGES)]
    names = np.array(vocabulary.names)
    rows = range(len(pictures))
    scores = predictions.scores if calibration is None else calibration.apply(predictions.scores)
    paths = [predictions.paths[row, : predictions.path_lengths[row]] for row in rows]
    save_grid(
        path,
        pictures,
        tags=[[(names[i], float(scores[row, i])) for i in paths[row]] for row in rows],
        truth=[names[predictions.truth[row]].tolist() for row in rows],
        unknown=[names[predictions.known[row] == 0].tolist() for row in rows],
    )


def save_split_reliability(
    path: Path, split: str, predictions: Predictions, calibration: Calibration
) -> None:
    """Draws what the probabilities of a split promise and what holds, before and after calibration.

    Args:
        path: the picture.
        split: its name.
        predictions: of the whole split.
        calibration: fitted on the hold-out.
    """
    found = calibration.measure(predictions)
    marks = predictions.marks
    save_reliability(
        path,
        {
            f"marginals, ECE {100 * found['ece_before']:.2f} %": reliability(predictions.scores, marks),
            f"calibrated, ECE {100 * found['ece_after']:.2f} %": reliability(
                calibration.apply(predictions.scores), marks
            ),
        },
        title=f"label probabilities on {split}",
    )


def save_examples(folder: Path, dataset_dir: Path, split: str) -> None:
    """Writes the first photographs of a split as their owners' files: something to tag at once."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (file_format, encoded) in enumerate(read_files(dataset_dir, split, _EXAMPLES)):
        (folder / f"{number}.{file_format}").write_bytes(encoded)


def print_results(metrics: Mapping[str, Any], run_dir: Path, verbose: bool = False) -> None:
    """Prints the paper's table, also, with all conventions, into `train.log`, and commands that work."""
    print_report(metrics, verbose=verbose)
    with (run_dir / "train.log").open("a", encoding="utf-8") as file:
        print_report(metrics, file)
    figures, split = run_dir / "figures", metrics["split"]
    grid = figures / f"{split}_images.png"
    print(f"\n{split} images, tagged:  {grid}")
    print("next:")
    for line in (
        format_command("tensorboard", "--logdir", run_dir.parent.parent),
        format_command("cnnrnn", "predict", run_dir, figures / "examples") + "    (or your own photographs)",
        format_command("cnnrnn", "check", run_dir / "export"),
        format_command("cnnrnn", "evaluate", run_dir, *([] if split == "test" else ["--split", split])),
    ):
        print(f"  {line}")
