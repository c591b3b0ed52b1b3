"""An export enters; whether TensorFlow Serving would run it, or why not, leaves.

    cnnrnn check EXPORT

The graph and the checkpoint are read for what the server refuses (`lints`), then the export is loaded and run
as the server does it, in fresh processes, on images of which one cannot be decoded (`fresh_process`).
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnrnn_tf.serving import lints
from cnnrnn_tf.serving.fresh_process import (
    C_API,
    TF1,
    LoadError,
    read_meta_graph,
    run_calls,
    run_signature_c_api,
    run_signature_tf1,
)
from tfrecords.errors import UserError

__all__ = [
    "CheckReport",
    "LoadError",
    "check_export",
    "find_export",
    "lint_export",
    "run_signature_c_api",
    "run_signature_tf1",
]

UNDECODABLE = b"not an image"
_TOLERANCE = 1e-4  # between loaders and between batches, which may add up in another order
_HINTS = {  # what TensorFlow says: what to do
    "Could not find variable": "save a tf.Module that holds [v.value for v in keras_model.variables]",
    "No OpKernel was registered": "the operation exists in Python only",
}

_LINTS = (  # (what holds if the lint finds nothing, the lint)
    ("its folder is named by a version number", lints.lint_version),
    ("its signatures have fixed ranks and a free batch dimension", lints.lint_signatures),
    ("no operation calls Python", lints.lint_python_operations),
    ("no function must be compiled by XLA", lints.lint_compilation),
    ("each weight is stored once", lints.lint_weights),
)


@dataclass(frozen=True)
class CheckReport:
    """The verdict on one version folder: `problems` say what is wrong and how to mend it."""

    path: Path
    passed: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ok(self):
        return not self.problems

    @property
    def lines(self):
        """The verdict, one line a finding, to print."""
        if self.ok:
            head = f"yes: TensorFlow Serving would run {self.path}"
        else:
            head = f"no: TensorFlow Serving would not run {self.path} as it should"
        return [
            head,
            *(f"  ok   {each}" for each in self.passed),
            *(f"  FAIL {each}" for each in self.problems),
        ]


def check_export(path, images=None, timeout_s=600):
    """Returns whether TensorFlow Serving would run an export, as a CheckReport.

    Args:
        path: a version folder, or the folder of versions, of which the server takes the highest.
        images: encoded image files (bytes) to run, all of them good; two small JPEGs if None.
        timeout_s: for each of the two processes that load the export.

    Raises:
        UserError: `path` is no export.
    """
    export_dir = find_export(path)
    try:
        export = lints.Export(export_dir, read_meta_graph(export_dir))
    except UserError as error:
        return CheckReport(export_dir, (), (str(error),))
    try:
        passed, problems = _lint(export)
    except (tf.errors.OpError, IndexError, ValueError) as error:  # what its reader raises at a damaged file
        reason = _explain(getattr(error, "message", error))
        return CheckReport(export_dir, (), (f"its variables cannot be read ({reason}): export again",))
    if "serving_default" in export.meta_graph.signature_def:
        found = _check_runs(export, make_images() if images is None else list(images), timeout_s)
        passed, problems = passed + found[0], problems + found[1]
    return CheckReport(export_dir, tuple(passed), tuple(problems))


def lint_export(path):
    """Returns the problems that can be seen without loading the export: a second's work.

    Raises:
        UserError: `path` is no export.
    """
    export_dir = find_export(path)
    return _lint(lints.Export(export_dir, read_meta_graph(export_dir)))[1]


def find_export(path):
    """Returns the version folder at `path`, or of those below it the one that the server takes: the highest.

    Raises:
        UserError: there is none, or it is half-written.
    """
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    if not path.is_dir():
        raise UserError(
            f"no export at {path}: expected a SavedModel's folder, such as `cnnrnn export RUN` writes"
        )
    versions = sorted(
        (p for p in path.iterdir() if p.is_dir() and p.name.isdecimal()), key=lambda p: int(p.name)
    )
    if not versions:
        raise UserError(
            f"{path} is not an export: expected saved_model.pb in it, or folders named by version numbers; "
            "`cnnrnn export RUN` writes one"
        )
    if not (versions[-1] / "saved_model.pb").is_file():
        raise UserError(
            f"{versions[-1]}, the version that the server would take, holds no saved_model.pb: remove it, or "
            "export again"
        )
    return versions[-1]


def make_images():
    """Returns two small JPEGs of different sizes, as bytes."""
    from PIL import Image

    files = []
    for width, height in ((96, 64), (48, 80)):
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], axis=-1).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    return files


def _lint(export):
    passed, problems = [], []
    for statement, lint in _LINTS:
        found = lint(export)
        problems += found
        if not found:
            passed.append(statement)
    return passed, problems


def _check_runs(export, images, timeout_s):
    """Runs serving_default on the images, then on the images and one that cannot be decoded."""
    signature = export.meta_graph.signature_def["serving_default"]
    if not any(info.name for info in signature.outputs.values()):  # ragged or sparse: the lints say so
        return [], []
    calls = [("serving_default", _make_inputs(signature, rows)) for rows in (images, [*images, UNDECODABLE])]
    passed, problems, results = [], [], []
    for name, runner in (("the C API", C_API), ("a TF1 session", TF1)):
        operations = export.operations() if runner is C_API else ()
        try:
            result = run_calls(runner, export.path, calls, operations, timeout_s)
        except LoadError as error:
            problems.append(f"{name} does not load it: {_explain(error)}")
            return passed, problems  # what one loader refuses, the other need not repeat
        problems += lints.lint_kernels(result.get("kernels", {}))
        good, mixed = result["calls"]
        found = _check_rows(good, mixed, len(images), signature)
        problems += [f"in {name}, {each}" for each in found]
        if isinstance(good, str):
            return passed, problems
        if not found:
            passed.append(f"{name} loads and runs it, and a row that is no image costs no other row")
        results.append(good)
    different = _find_differences(*results)
    problems += [f"the C API and a TF1 session disagree on output {key!r}" for key in different]
    if not different:
        passed.append("the C API and a TF1 session agree")
    return passed, problems


def _make_inputs(signature, rows):
    """Encoded images for string inputs; zeros for others, such as the features that a decoder alone takes."""
    import tensorflow as tf

    inputs = {}
    for key, info in signature.inputs.items():
        dtype = tf.dtypes.as_dtype(info.dtype)
        if dtype == tf.string:
            inputs[key] = np.array(rows, object)
        else:
            inner = [max(dimension.size, 1) for dimension in info.tensor_shape.dim[1:]]
            inputs[key] = np.zeros([len(rows), *inner], dtype.as_numpy_dtype)
    return inputs


def _check_rows(good, mixed, num_good, signature):
    """Compares the outputs for good rows alone with those for good rows and one that cannot be decoded."""
    if isinstance(good, str):
        return [f"good images fail: {_explain(good)}"]
    if isinstance(mixed, str):
        return [
            f"one row that is no image fails its whole batch, so guard the decoding by row: {_explain(mixed)}"
        ]
    problems = []
    for key, array in good.items():
        if array.shape[:1] != (num_good,) or mixed[key].shape[:1] != (num_good + 1,):
            problems.append(
                f"output {key!r} has shape {list(array.shape)} for {num_good} images: give it a row an image"
            )
    if problems:
        return problems
    changed = _find_differences(good, {key: array[:num_good] for key, array in mixed.items()})
    problems += [
        f"output {key!r} of good rows changes when a row that is no image is added: guard the decoding by row"
        for key in changed
    ]
    takes_images = all(info.dtype == 7 for info in signature.inputs.values())  # DT_STRING
    if takes_images and "valid" in mixed:
        expected = [True] * num_good + [False]
        if mixed["valid"].tolist() != expected:
            problems.append(
                f"output 'valid' is {mixed['valid'].tolist()}: expected {expected}, the last is no image"
            )
    return problems


def _find_differences(first, second):
    return [key for key in sorted(first) if not _is_equal(first[key], second[key])]


def _is_equal(first, second):
    if first.shape != second.shape:
        return False
    if first.dtype.kind == "f":
        return np.allclose(first, second, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    return (first == second).all()


def _explain(error):
    """What TensorFlow said, to the first full stop or line, and what is known to help."""
    line = str(error).strip().partition("\n")[0].partition(" This could mean ")[0]
    line = line if len(line) <= 300 else line[:297] + "..."
    hints = [hint for symptom, hint in _HINTS.items() if symptom in line]
    return f"{line} ({hints[0]})" if hints else line
