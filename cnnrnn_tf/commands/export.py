"""A run enters; its best model as the next version of an export for TensorFlow Serving leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cnnrnn_tf.training.latest import find_run
from tfrecords.cli import format_command
from tfrecords.errors import UserError
from tfrecords.places import find_obstacle
from tfrecords.progress import loading_tensorflow, show_progress

_ON = tyro.conf.FlagCreatePairsOff


@dataclass
class Export:
    """Write a run's model for TensorFlow Serving, as the next version of its export.

    The version holds the model as functions of image files, the label list, its configuration, a model card
    and warm-up requests. Half a model is for those who keep features, and goes to a folder of its own.
    """

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    """Folder of a training run: it holds config.json and checkpoints."""
    out: Path | None = None
    """Folder of the versions; RUN/export by default, RUN/export-backbone or RUN/export-decoder for halves."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the CNN; bfloat16 halves weights and time of one like VGG16 where the server's processor multiplies
    it. Of MobileNetV2 nearly all stays in float32."""
    backbone_only: Annotated[bool, _ON] = False
    """Export the CNN alone: image files enter, features leave."""
    decoder_only: Annotated[bool, _ON] = False
    """Export the rest alone: features enter, labels leave."""
    max_beam_size: int = 0
    """Widest beam that a request may ask for; 0 takes the run's own beam, at least 10."""
    warmup_batch_size: int = 8
    """Images in the larger warm-up requests; the server's max_batch_size must allow as many."""

    def run(self) -> None:
        self.run_dir = find_run(self.run_dir)
        if self.backbone_only and self.decoder_only:
            raise UserError("--backbone-only and --decoder-only: without either, the export holds both")
        if self.max_beam_size < 0:
            raise UserError(f"--max-beam-size {self.max_beam_size}: expected 1 or more, or 0")
        from cnnrnn_tf.training.runs import check_finished

        check_finished(self.run_dir)
        obstacle = None if self.out is None else find_obstacle(self.out / "new")
        if obstacle is not None:
            raise UserError(f"--out {self.out}: cannot be written ({obstacle}); choose another")
        with loading_tensorflow():
            from cnnrnn_tf.serving.export import BACKBONE, DECODER, WHOLE, export
            from cnnrnn_tf.serving.precision import BFLOAT16, describe_bfloat16
            from cnnrnn_tf.training.runs import load_facts, load_run

        with show_progress(f"loading {self.run_dir}"):
            run = load_run(self.run_dir)
        part = BACKBONE if self.backbone_only else DECODER if self.decoder_only else WHOLE
        folder = "export" if part == WHOLE else f"export-{part}"
        with show_progress("exporting"):
            version = export(
                run.model,
                run.vocabulary,
                run.config.decoding,
                self.run_dir / folder if self.out is None else self.out,
                run.calibration,
                part=part,
                precision=self.precision,
                max_beam_size=self.max_beam_size or None,
                warmup_batch_size=self.warmup_batch_size,
                training=load_facts(self.run_dir),
            )
        if self.precision == BFLOAT16:
            print(describe_bfloat16())
        print(f"exported {version}")
        print(f"next: {format_command('cnnrnn', 'check', version)}")
