"""An export's folder enters; whether TensorFlow Serving would run it, line by line, leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tfrecords.errors import UserError
from tfrecords.quiet import silence_native_stderr


@dataclass
class Check:
    """Say whether TensorFlow Serving would run an export, and if not, why. Exit status 1 if not."""

    export: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPORT")]
    """Folder that holds saved_model.pb, or folders named by version numbers: the highest is checked."""
    timeout_s: int = 600
    """Seconds that loading and running may take, in each of the two loaders."""

    def run(self) -> int:
        with silence_native_stderr():
            from cnnrnn_tf.serving.check import check_export

        if self.timeout_s < 1:
            raise UserError(f"--timeout-s {self.timeout_s}: expected 1 or more")
        report = check_export(self.export, timeout_s=self.timeout_s)
        print("\n".join(report.lines))
        return 0 if report.ok else 1
