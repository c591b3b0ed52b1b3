"""A run folder, or a file of predictions, enters; the paper's table leaves, on the screen and as JSON.

cnnrnn evaluate runs/demo/2024-05-01-120000
cnnrnn evaluate runs/coco2014/2024-05-01-120000 --protocol ml-gcn
cnnrnn evaluate runs/coco2014/2024-05-01-120000 --protocol all
cnnrnn evaluate --predictions scores-test.jsonl --holdout scores-holdout.jsonl --protocol asl
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cnnrnn_tf.training.latest import find_run
from tfrecords.errors import UserError
from tfrecords.progress import loading_tensorflow, show_progress


@dataclass
class Evaluate:
    """Measure a trained run, or predictions of any program: the paper's table, and what is behind it.

    A run keeps `predictions-SPLIT.jsonl` of the split and of the hold-out, from which its numbers are taken
    again without the model, and a table of labels for each, `per_label-SPLIT.csv` or
    `per_label-SPLIT-PROTOCOL.csv`, of the lists that the protocol asks for.
    """

    run_dir: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """Folder of the run, such as runs/demo/2024-05-01-120000."""
    split: str = "test"
    """Split of the run to measure; thresholds are fitted on the hold-out, whichever it is."""
    data_dir: Path | None = None
    """Folder of the data sets, where it is no longer the one that the run was trained from."""
    protocol: str | None = None
    """Whose conventions: cnn-rnn, ml-gcn, srn, asl or free; all shows every one, and why they differ. By
    default the paper's for the data sets of the paper, and free for any other."""
    predictions: Path | None = None
    """File of predictions to measure in place of a run; cnnrnn_tf/evaluation/prediction_files.py describes
    it, and any program can write one."""
    holdout: Path | None = None
    """File of predictions of other images, beside --predictions, to fit thresholds on."""

    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Say below the table by which conventions it was measured."""

    def run(self) -> None:
        """Prints the table and writes it beside the predictions.

        In a run `metrics-SPLIT.json`, or `metrics-SPLIT-PROTOCOL.json`; beside FILE.jsonl
        `FILE-metrics.json`, or `FILE-metrics-PROTOCOL.json`, and `FILE-per_label.csv`, or
        `FILE-per_label-PROTOCOL.csv`.

        Raises:
            UserError: there is no such run, file, split or protocol.
        """
        from cnnrnn_tf.evaluation.protocols import protocol

        self._check_inputs()
        if self.run_dir is not None:
            self.run_dir = find_run(self.run_dir)
        if self.protocol not in (None, "all"):
            protocol(self.protocol, dataset="")  # a wrong name is told before TensorFlow is loaded
        self._check_places()
        with loading_tensorflow():
            import tensorflow  # noqa: F401
        with show_progress("measuring"):
            metrics, file, stem = self._measure_run() if self.predictions is None else self._measure_file()
        from cnnrnn_tf.evaluation.protocol_comparison import name_label_tables, print_comparison
        from cnnrnn_tf.evaluation.report import print_report, save_metrics

        save_metrics(metrics, file)
        (print_comparison if self.protocol == "all" else print_report)(metrics, verbose=self.verbose)
        print(f"\nall measures: {file}")
        for table in name_label_tables(stem, metrics, self.protocol):
            print(f"label by label: {table}")

    def _measure_run(self) -> tuple[dict, Path, Path]:
        """The measures, the file they go to, and how the names of the tables of labels begin."""
        from cnnrnn_tf.training.evaluate import evaluate_run
        from cnnrnn_tf.training.runs import load_run

        with show_progress(f"loading {self.run_dir}"):
            run = load_run(self.run_dir)
        metrics = evaluate_run(run, self.split, self.protocol, self.data_dir)
        file = run.path / f"metrics-{'-'.join(filter(None, (self.split, self.protocol)))}.json"
        return metrics, file, run.path / f"per_label-{self.split}"

    def _measure_file(self) -> tuple[dict, Path, Path]:
        from cnnrnn_tf.evaluation.prediction_files import load_predictions
        from cnnrnn_tf.evaluation.protocol_comparison import measure, save_label_tables

        test = load_predictions(self.predictions)
        holdout = None if self.holdout is None else load_predictions(self.holdout)
        metrics = measure(test, holdout, self.protocol)
        stem = self.predictions.with_suffix("")
        tables = Path(f"{stem}-per_label")
        save_label_tables(tables, test, metrics, self.protocol)
        return metrics, Path(f"{stem}-{'-'.join(filter(None, ('metrics', self.protocol)))}.json"), tables

    def _check_places(self) -> None:
        """Reads what is small: whether the run, its records and the split, or the files are there."""
        if self.predictions is not None:
            for file in filter(None, (self.predictions, self.holdout)):
                if not file.is_file():
                    raise UserError(f"{file}: cannot be read (no such file)")
            return
        from cnnrnn_tf.data.splits import select_records
        from cnnrnn_tf.training.runs import check_finished, check_records, find_data_dir
        from tfrecords.manifest import Manifest

        config, _ = check_finished(self.run_dir)
        dataset_dir = find_data_dir(self.run_dir, config, self.data_dir) / config.data.dataset
        manifest = Manifest.load(dataset_dir)
        check_records(self.run_dir, dataset_dir, manifest)
        select_records(manifest, self.split)

    def _check_inputs(self) -> None:
        if (self.run_dir is None) == (self.predictions is None):
            raise UserError("expected the folder of a run, or --predictions FILE, and not both")
        if self.data_dir is not None and self.predictions is not None:
            raise UserError(
                "--data-dir is where a run finds its records, and a file of predictions needs none: leave it "
                "out"
            )
        if self.holdout is not None and self.predictions is None:
            raise UserError(
                "--holdout FILE goes with --predictions FILE: a run brings its own hold-out; leave it out"
            )
        if self.predictions is not None and self.split != "test":
            raise UserError(
                f"--split {self.split} chooses a split of a run, and a file of predictions is of one split: "
                "leave it out"
            )
