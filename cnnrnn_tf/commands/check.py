"""An export's folder enters; whether TensorFlow Serving would run it, line by line, leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cnnrnn_tf.commands.tagging import find_images
from cnnrnn_tf.serving.tagged_image import format_json
from cnnrnn_tf.serving.versions import find_export
from cnnrnn_tf.training.latest import find_run
from tfrecords.errors import UserError
from tfrecords.progress import loading_tensorflow, print_above


@dataclass
class Check:
    """Say whether TensorFlow Serving would run an export, and if not, why. Exit status 1 if not.

    The export is read for what the server refuses, run through TensorFlow's C API in a process without its
    Python, as the server does it, and compared with a TF1 session and with Python.
    """

    export: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPORT")]
    """Folder that holds saved_model.pb, or folders named by version numbers: the highest is checked."""
    images: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="IMAGE...")
    ] = ()
    """Files, folders or patterns to run; by default two made pictures and some of the run's examples."""
    latency: bool = True
    """Time it at batch 1, 8 and 32: about 15 seconds more, of a large model half a minute."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the report as one line of JSON."""
    timeout_s: int = 600
    """Seconds that loading and running may take, in each of the two loaders."""

    def run(self) -> int:
        self.export = find_run(self.export)
        if self.timeout_s < 1:
            raise UserError(f"--timeout-s {self.timeout_s}: expected 1 or more")
        version = find_export(self.export)
        words = [word for words in self.images for word in words]
        images = _read_images(words) if words else None
        if not self.json:
            print(f"checking {version}", flush=True)
        with loading_tensorflow():
            from cnnrnn_tf.serving.check import check_export

        report = check_export(
            version, images, self.latency, self.timeout_s, tell=_ignore if self.json else print_above
        )
        print(format_json(report.facts) if self.json else report.verdict)
        return 0 if report.ok else 1


def _read_images(words: Sequence[str]) -> list[bytes]:
    paths, problems = find_images(words)[:2]
    if problems:
        raise UserError("; ".join(f"--images {word}: {reason}" for word, reason in problems))
    return [path.read_bytes() for path in paths]


def _ignore(line: str) -> None:
    """JSON comes in one line at the end."""
