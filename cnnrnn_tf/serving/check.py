"""An export enters; whether TensorFlow Serving would run it, or why not, leaves.

    cnnrnn check EXPORT

The graph and the checkpoint are read for what the server refuses (`lints` and its neighbours), then the
export is loaded and run as the server does it, in a fresh process, and compared with Python (`comparison`).
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from cnnrnn_tf.serving import lints, signature_lints
from cnnrnn_tf.serving.comparison import Latency, compare_runtimes, explain
from cnnrnn_tf.serving.example_inputs import make_images
from cnnrnn_tf.serving.fresh_process import (
    LoadError,
    read_meta_graph,
    run_signature_c_api,
    run_signature_tf1,
)
from cnnrnn_tf.serving.text_lints import lint_text
from cnnrnn_tf.serving.versions import find_export
from cnnrnn_tf.serving.warmup_lint import lint_warmup, read_warmup
from tfrecords.errors import UserError
from tfrecords.progress import show_progress

__all__ = [
    "CheckReport",
    "LoadError",
    "check_export",
    "find_export",
    "lint_export",
    "make_images",
    "run_signature_c_api",
    "run_signature_tf1",
]

MAX_EXAMPLES = 2  # of the run's own pictures, beside the two that are made: VGG16 runs each 30 times

_LINTS = (  # (what holds if the lint finds nothing, the lint)
    ("its folder is named by a version number", lints.lint_version),
    ("its signatures have fixed ranks and a free batch dimension", signature_lints.lint_shapes),
    ("its names can be sent over gRPC and REST", signature_lints.lint_names),
    ("its signatures fit the server's Predict, Classify and Regress", signature_lints.lint_methods),
    ("its text is UTF-8", lint_text),
    ("no operation calls Python", lints.lint_python_operations),
    ("no function must be compiled by XLA", lints.lint_compilation),
    ("each variable gets its value at loading", lints.lint_variables),
    ("each table and asset is there at loading", lints.lint_initialisation),
    ("each weight is stored once", lints.lint_weights),
    ("its warm-up requests, if any, fit its signatures", lint_warmup),
)


@dataclass(frozen=True)
class CheckReport:
    """The verdict on one version folder: `problems` say what is wrong and how to mend it."""

    path: Path
    passed: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    latencies: tuple[Latency, ...] = ()

    @property
    def ok(self):
        return not self.problems

    @property
    def verdict(self):
        """Yes or no, in one line."""
        if self.ok:
            return f"yes: TensorFlow Serving would run {self.path}"
        return f"no: TensorFlow Serving would not run {self.path} as it should"

    @property
    def facts(self):
        """The same in plain data, for JSON."""
        return {"ok": self.ok, **dataclasses.asdict(self), "path": str(self.path)}


def check_export(path, images=None, latency=False, timeout_s=600, tell=lambda line: None):
    """Returns whether TensorFlow Serving would run an export, as a CheckReport.

    Args:
        path: a version folder, or the folder of versions, of which the server takes the highest.
        images: encoded image files (bytes) to run; if None, two small JPEGs and, of an export in a run's
            folder, some of the run's own examples.
        latency: whether to time it at batch 1, 8 and 32.
        timeout_s: for each of the two processes that load the export.
        tell: gets a line for each finding as it is made.

    Raises:
        UserError: `path` is no export.
    """
    export_dir = find_export(path)
    try:
        export = lints.Export(export_dir, read_meta_graph(export_dir))
    except UserError as error:
        return _give_up(export_dir, str(error), tell)
    try:
        with show_progress("reading the graph and the weights"):
            passed, problems = _lint(export, tell)
    except (tf.errors.OpError, IndexError, ValueError) as error:  # what its reader raises at a damaged file
        reason = explain(getattr(error, "message", error))
        return _give_up(export_dir, f"its variables cannot be read ({reason}): export again", tell)
    images = [*make_images(), *read_examples(export_dir)] if images is None else list(images)
    warmup = [] if lint_warmup(export) else list(read_warmup(export))
    found = compare_runtimes(export, images, warmup, latency, timeout_s, tell)
    return CheckReport(
        export_dir,
        (*passed, *found.passed),
        (*problems, *found.problems),
        tuple(found.notes),
        tuple(found.latencies),
    )


def lint_export(path):
    """Returns the problems that can be seen without loading the export: a second's work.

    Raises:
        UserError: `path` is no export.
    """
    export_dir = find_export(path)
    return _lint(lints.Export(export_dir, read_meta_graph(export_dir)))[1]


def read_examples(export_dir):
    """Returns some of the pictures, as bytes, that a run keeps beside its export: RUN/figures/examples."""
    folder = export_dir.resolve().parent.parent / "figures" / "examples"
    files = sorted(path for path in folder.glob("*") if path.is_file())
    return [path.read_bytes() for path in files[:MAX_EXAMPLES]]


def _give_up(export_dir, problem, tell):
    tell(f"  FAIL {problem}")
    return CheckReport(export_dir, (), (problem,))


def _lint(export, tell=lambda line: None):
    passed, problems = [], []
    for statement, lint in _LINTS:
        found = lint(export)
        problems += found
        if not found:
            passed.append(statement)
        for line in [f"  FAIL {each}" for each in found] or [f"  ok   {statement}"]:
            tell(line)
    return passed, problems
