"""A run enters; its best model as the next version of an export for TensorFlow Serving leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tfrecords.cli import format_command
from tfrecords.quiet import silence_native_stderr


@dataclass
class Export:
    """Write a run's model for TensorFlow Serving, as the next version of its export."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    """Folder of a training run: it holds config.json and checkpoints."""
    out: Path | None = None
    """Folder of the versions; RUN/export by default."""

    def run(self) -> None:
        with silence_native_stderr():
            from cnnrnn_tf.serving.export import export
            from cnnrnn_tf.training.runs import load_run

        run = load_run(self.run_dir)
        out_dir = self.run_dir / "export" if self.out is None else self.out
        version = export(run.model, run.vocabulary, run.config.decoding, out_dir, run.calibration)
        print(f"exported {version}")
        print(f"next: {format_command('cnnrnn', 'check', version)}")
