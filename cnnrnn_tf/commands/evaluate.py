"""A run folder enters; the paper's table of one of its splits leaves, on the screen and as JSON.

cnnrnn evaluate runs/demo/2024-05-01-120000
cnnrnn evaluate runs/coco2014/2024-05-01-120000 --protocol ml-gcn
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass
class Evaluate:
    """Measure a trained run on a split: the paper's table, and every convention behind it."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, such as runs/demo/2024-05-01-120000."""
    split: str = "test"
    """Split to measure; thresholds are fitted on the hold-out, whichever it is."""
    protocol: str | None = None
    """Whose conventions: cnn-rnn, ml-gcn, srn, asl or free. By default the paper's for the data sets of the
    paper, and free for any other."""

    def run(self) -> None:
        """Prints the table and writes `metrics-SPLIT.json`, or `metrics-SPLIT-PROTOCOL.json`, into the run.

        Raises:
            UserError: there is no such run, split or protocol.
        """
        from cnnrnn_tf.evaluation.protocols import protocol

        if self.protocol is not None:
            protocol(self.protocol, dataset="")  # a wrong name is told before TensorFlow is loaded
        from tfrecords.quiet import silence_native_stderr

        with silence_native_stderr():
            import tensorflow  # noqa: F401
        from cnnrnn_tf.evaluation.report import print_report, save_metrics
        from cnnrnn_tf.training.evaluate import evaluate_run
        from cnnrnn_tf.training.runs import load_run

        run = load_run(self.run_dir)
        metrics = evaluate_run(run, self.split, self.protocol)
        file = run.path / f"metrics-{'-'.join(filter(None, (self.split, self.protocol)))}.json"
        save_metrics(metrics, file)
        print_report(metrics)
        print(f"\nall measures: {file}")
