"""An export and image files enter; where the C API, a TF1 session and Python differ on them leaves.

Every signature runs on every image: through the C API, as the server would, batched, batched with a row that
is no image, and each alone; in a TF1 session and in Python batched. Labels must be equal, and numbers nearly
so, for another order of adding up is no fault.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from cnnrnn_tf.serving import lints
from cnnrnn_tf.serving.example_inputs import make_inputs, make_rows, take_rows, takes_examples, takes_images
from cnnrnn_tf.serving.examples import IMAGE_FEATURE
from cnnrnn_tf.serving.fresh_process import C_API, TF1, LoadError, public_signatures, run_calls
from cnnrnn_tf.serving.text_lints import BINARY_SUFFIX, is_utf8
from cnnrnn_tf.serving.ties import Ties, describe_ties
from cnnrnn_tf.serving.warmup_lint import WARMUP_FILE
from tfrecords.progress import show_progress
from tfrecords.quiet import silence_native_stderr
from tfrecords.words import count

UNDECODABLE = b"not an image"
MAX_BATCH = 32
LATENCY_BATCHES = (1, 8, 32)

_TOLERANCE, _HALF_TOLERANCE = 1e-4, 2e-2  # of 1, or of the largest number in the row
_HALF_TYPES = {14, 19}  # DT_BFLOAT16, DT_HALF
_SECONDS_A_BATCH_SIZE = 4.0
_HINTS = {  # what TensorFlow says: what to do
    "Could not find variable": "save a tf.Module that holds [v.value for v in keras_model.variables]",
    "No OpKernel was registered": "the operation exists in Python only",
    "Table not initialized": "hold the table in the exported tf.Module, which fills it at loading",
}


@dataclass(frozen=True)
class Latency:
    """How long a call takes in the C API's process: without the network, on a machine that is in use."""

    signature: str
    batch_size: int
    median_ms: float
    p90_ms: float
    images_per_second: float

    def __str__(self) -> str:
        return (
            f"  {self.signature}, batch {self.batch_size:>2}: median {self.median_ms:.1f} ms, "
            f"p90 {self.p90_ms:.1f} ms, {self.images_per_second:.1f} images/s"
        )


@dataclass
class Findings:
    """What running an export has shown."""

    passed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    tell: Callable[[str], object] = lambda line: None
    """Gets a line for each finding, see `tell_new`."""
    _told: list[str] = field(default_factory=list)

    def tell_new(self) -> None:
        """Tells what was found since the last time."""
        lines = [
            *(f"  ok   {each}" for each in self.passed),
            *(f"  FAIL {each}" for each in self.problems),
            *(f"  note {each}" for each in self.notes),
            *map(str, self.latencies),
        ]
        for line in lines:
            if line not in self._told:
                self._told.append(line)
                self.tell(line)


@dataclass(frozen=True)
class Answers:
    """What a signature gives: {output name: [row]}, or what TensorFlow says in its place."""

    good: dict | str
    """Of the images, batched."""
    mixed: dict | str
    """Of the same, each batch with one row more that is no image; the last row is one of these."""
    alone: dict | str
    """Of each image in a batch of its own."""


def compare_runtimes(export, images, warmup=(), latency=True, timeout_s=600, tell=lambda line: None):
    """Runs an export in all three runtimes, and returns the Findings.

    Args:
        export: a `lints.Export`.
        images: encoded image files, as bytes.
        warmup: its WarmupRequests, of which the smallest for each signature is run.
        latency: whether to time serving_default, or the first signature, at LATENCY_BATCHES.
        timeout_s: for each of the two processes that are started.
        tell: gets a line for each finding as it is made.
    """
    findings = Findings(tell=tell)
    _compare(export, images, warmup, latency, timeout_s, findings)
    findings.tell_new()
    return findings


def _compare(export, images, warmup, latency, timeout_s, findings):
    signatures = _select_signatures(export, findings)
    if not signatures:
        return
    rows = make_rows([*images, UNDECODABLE], export.operations())
    inputs = {name: make_inputs(signature, rows) for name, signature in signatures.items()}
    try:
        with show_progress("running it in TensorFlow's C library" + ", and timing it" * latency):
            answers = _run_c_api(
                export, inputs, len(images), _smallest_of_each(warmup), timeout_s, latency, findings
            )
    except LoadError as error:
        findings.problems.append(f"the C API does not load it: {explain(error)}")
        return  # what one loader refuses, the others need not repeat
    tolerance = _find_tolerance(export)
    ties = Ties(
        export.path, inputs, functools.partial(_is_equal, tolerance=max(tolerance, _TOLERANCE)), timeout_s
    )
    with show_progress("running images in batches of their own copies"):
        ties.look_for({name: _find_moving_rows(answers[name], tolerance) for name in signatures})
    for name, signature in signatures.items():
        findings.problems += [
            f"in the C API, {name}: {each}"
            for each in check_rows(answers[name], signature, tolerance, ties.rows)
        ]
    if not findings.problems:
        _check_validity(answers, signatures, findings)
    if findings.problems:
        return
    findings.passed.append(
        f"the C API, in a process without TensorFlow's Python, loads it and runs {', '.join(signatures)}"
    )
    num_compared = len(images) - len(ties.rows)
    if num_compared or not images:
        findings.passed.append(
            f"each of {count('image', num_compared)} has the same answer alone, batched, and beside a row "
            "that is no image"
        )
    findings.tell_new()
    with show_progress("running it in a TF1 session and in Python"):
        _compare_with_others(export, inputs, answers, len(images), ties, findings)
    if ties.rows:
        findings.notes.append(describe_ties(ties.rows, len(images)))


def check_rows(answers, signature, tolerance=_TOLERANCE, ties=frozenset()):
    """Returns what is wrong with a signature's Answers, leaving out the rows `ties`."""
    if isinstance(answers.good, str):
        return [f"images fail: {explain(answers.good)}"]
    if isinstance(answers.mixed, str):
        return [
            "one row that is no image fails its whole batch, so guard the decoding by row: "
            f"{explain(answers.mixed)}"
        ]
    if isinstance(answers.alone, str):
        return [f"an image alone fails, and a batch does not: {explain(answers.alone)}"]
    problems = [
        f"output {key!r} of good rows changes when a row that is no image is added: guard the decoding by row"
        for key in find_differences(answers.good, answers.mixed, tolerance, ties)
    ]
    problems += [
        f"output {key!r} of an image depends on the others of its batch ({how})"
        for key, how in find_differences(answers.good, answers.alone, tolerance, ties).items()
    ]
    if takes_images(signature) and "valid" in answers.mixed and np.any(answers.mixed["valid"][-1]):
        problems.append("output 'valid' is True for a row that is no image")
    return problems + _check_text(answers.mixed)


def find_differences(first, second, tolerance, ties=frozenset()):
    """Returns {output name: where its rows differ first}.

    Rows that only `second` has are not compared, nor the rows `ties`.
    """
    different = {}
    for key in sorted(first):
        for row, (one, other) in enumerate(zip(first[key], second[key], strict=False)):
            if row not in ties and not _is_equal(one, other, tolerance):
                different[key] = f"image {row + 1}: {_brief(one)} and {_brief(other)}"
                break
    return different


def _find_moving_rows(answers, tolerance):
    """Returns the rows whose answer changes with their company."""
    if any(isinstance(each, str) for each in (answers.good, answers.mixed, answers.alone)):
        return set()
    return {
        row
        for others in (answers.mixed, answers.alone)
        for row in _find_different_rows(answers.good, others, tolerance)
    }


def _find_different_rows(first, second, tolerance):
    return {
        row
        for key in first
        for row, (one, other) in enumerate(zip(first[key], second[key], strict=False))
        if not _is_equal(one, other, tolerance)
    }


def explain(error):
    """What TensorFlow said, to the first full stop or line, and what is known to help."""
    line = str(error).strip().partition("\n")[0].partition(" This could mean ")[0]
    line = line if len(line) <= 300 else line[:297] + "..."
    hints = [hint for symptom, hint in _HINTS.items() if symptom in line]
    return f"{line} ({hints[0]})" if hints else line


def _select_signatures(export, findings):
    """Returns {name: SignatureDef} of those that can be run, serving_default first."""
    selected = {}
    signatures = public_signatures(export.meta_graph)
    for name in sorted(signatures, key=lambda name: (name != "serving_default", name)):
        signature = signatures[name]
        if not all(info.name for info in (*signature.inputs.values(), *signature.outputs.values())):
            continue  # ragged or sparse, as the lints say
        if takes_examples(signature) and not _has_constant(export, IMAGE_FEATURE):
            findings.notes.append(f"{name} was not run: its tf.Examples have other features than images")
        elif signature.outputs:
            selected[name] = signature
    return selected


def _has_constant(export, text):
    return any(
        text.encode() in value
        for _, node in export.nodes()
        if node.op == "Const" and node.attr["dtype"].type == tf.string.as_datatype_enum
        for value in node.attr["value"].tensor.string_val
    )


def _smallest_of_each(warmup):
    """Returns {signature: inputs}: of requests that differ in size alone, the quickest is enough."""
    smallest = {}
    for request in sorted(warmup, key=lambda request: sum(array.size for array in request.inputs.values())):
        if request.kind == "predict":
            smallest.setdefault(request.signature, request.inputs)
    return smallest


def _run_c_api(export, inputs, num_images, warmup, timeout_s, latency, findings):
    """Returns {signature: Answers}, and adds what the warm-up and the timing show."""
    rows = range(num_images)
    batches = {
        "good": _split(rows, MAX_BATCH),
        "mixed": [[*each, num_images] for each in _split(rows, MAX_BATCH - 1)],
        "alone": _split(rows, 1),
    }
    calls = [
        (name, take_rows(arrays, batch))
        for name, arrays in inputs.items()
        for kind in batches
        for batch in batches[kind]
    ]
    timed = []
    if latency:
        name = next(iter(inputs))
        timed = [
            (name, take_rows(inputs[name], [i % num_images for i in range(size)])) for size in LATENCY_BATCHES
        ]
    result = run_calls(
        C_API,
        export.path,
        calls + list(warmup.items()),
        export.operations(),
        timeout_s=timeout_s,
        timed=timed,
        seconds=_SECONDS_A_BATCH_SIZE,
    )
    outputs = iter(result["calls"])
    answers = {
        name: Answers(**{kind: _collect(batches[kind], outputs) for kind in batches}) for name in inputs
    }
    for name, output in zip(warmup, outputs, strict=True):
        if isinstance(output, str):
            findings.problems.append(f"{WARMUP_FILE}: the request for {name} fails: {explain(output)}")
    findings.problems += lints.lint_kernels(result["kernels"], export.nodes())
    findings.latencies += [
        _summarise(timed[0][0], size, times)
        for size, times in zip(LATENCY_BATCHES, result["timed"], strict=False)
        if not isinstance(times, str)  # it failed above too
    ]
    return answers


def _split(rows, size):
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def _collect(batches, outputs):
    """Joins the outputs of batches of row numbers as {output name: [row]}, or returns what is wrong."""
    rows, error = {}, None
    for batch in batches:
        output = next(outputs)
        if isinstance(output, str):
            error = error or output
            continue
        for key, array in output.items():
            if array.shape[:1] != (len(batch),):
                shape = f"shape {list(array.shape)} for {len(batch)} images"
                error = error or f"output {key!r} has {shape}, give it a row an image"
            else:
                rows.setdefault(key, {}).update(zip(batch, array, strict=True))
    return error or {key: [by_row[row] for row in sorted(by_row)] for key, by_row in rows.items()}


def _summarise(signature, batch_size, times):
    milliseconds = 1000 * np.array(times)
    median = float(np.median(milliseconds))
    p90 = float(np.percentile(milliseconds, 90))
    return Latency(signature, batch_size, median, p90, 1000 * batch_size / median)


def _check_validity(answers, signatures, findings):
    """All signatures must find the same images good; images that they do not are told of."""
    reference = None
    for name, answer in answers.items():
        if "valid" not in answer.good or not takes_images(signatures[name]):
            continue
        valid = [bool(np.all(row)) for row in answer.good["valid"]]
        if reference is None:
            reference = name, valid
            errors = answer.good.get("error", [b""] * len(valid))
            wrong = [
                f"image {row + 1} ({_brief(error)})"
                for row, (is_valid, error) in enumerate(zip(valid, errors, strict=True))
                if not is_valid
            ]
            if wrong and len(wrong) == len(valid):
                findings.problems.append(f"{name} finds none of the images valid, such as {wrong[0]}")
            elif wrong:
                findings.notes.append(
                    f"not valid to {name}: {len(wrong)} of {len(valid)}, such as {wrong[0]}"
                )
        elif valid != reference[1]:
            row = [a == b for a, b in zip(valid, reference[1], strict=True)].index(False)
            error = _brief(answer.good["error"][row]) if "error" in answer.good else "no reason given"
            findings.problems.append(
                f"{name} and {reference[0]} differ on whether image {row + 1} is valid: {error}"
            )


def _check_text(outputs):
    """What REST would do to the strings of an answer: text must be UTF-8, and all but text is base64."""
    problems = []
    for key, rows in sorted(outputs.items()):
        values = [
            value for row in rows for value in np.ravel(row).tolist() if isinstance(value, bytes) and value
        ]
        are_text = all(map(is_utf8, values))
        if not are_text and not key.endswith(BINARY_SUFFIX):
            problems.append(
                f"output {key!r} holds bytes that are not UTF-8, which REST cannot answer with: give binary "
                f"outputs a name that ends in {BINARY_SUFFIX}"
            )
        if values and are_text and key.endswith(BINARY_SUFFIX):
            problems.append(
                f"output {key!r} is text, and REST would encode it in base64 for the {BINARY_SUFFIX} at its "
                "end: rename it"
            )
    return problems


def _compare_with_others(export, inputs, answers, num_images, ties, findings):
    """Runs the images in a TF1 session and here in Python, at the same time, in the batches of `good`."""
    batches = _split(range(num_images), MAX_BATCH)
    calls = [(name, take_rows(arrays, batch)) for name, arrays in inputs.items() for batch in batches]
    with ThreadPoolExecutor() as pool:
        others = {
            "a TF1 session": pool.submit(_run_tf1, export, calls, ties.timeout_s),
            "Python": pool.submit(_run_python, export, calls),
        }
    for runtime, future in others.items():
        try:
            outputs = iter(future.result())
        except LoadError as error:
            findings.problems.append(f"{runtime} does not load it: {explain(error)}")
            continue
        problems = []
        for name in inputs:
            found = _collect(batches, outputs)
            if isinstance(found, str):
                problems.append(f"in {runtime}, {name}: images fail: {explain(found)}")
                continue
            ties.look_for({name: _find_different_rows(answers[name].good, found, _TOLERANCE)})
            problems += [
                f"the C API and {runtime} disagree on output {key!r} of {name} ({how})"
                for key, how in find_differences(answers[name].good, found, _TOLERANCE, ties.rows).items()
            ]
        findings.problems += problems
        if not problems:
            findings.passed.append(f"{runtime} gives the same labels, and numbers within {_TOLERANCE:g}")


def _run_tf1(export, calls, timeout_s):
    return run_calls(TF1, export.path, calls, timeout_s=timeout_s)["calls"]


def _run_python(export, calls):
    """Returns what `tf.saved_model.load` makes of the calls, in the form of `run_calls`."""

    def run(name, inputs):
        signature = module.signatures[name]
        dtypes = {key: spec.dtype for key, spec in signature.structured_input_signature[1].items()}
        tensors = {
            key: tf.constant(array.tolist(), dtypes[key], array.shape) for key, array in inputs.items()
        }
        try:
            return {key: _to_numpy(tensor) for key, tensor in signature(**tensors).items()}
        except (tf.errors.OpError, ValueError, TypeError) as error:
            return str(error)

    with silence_native_stderr():
        try:
            module = tf.saved_model.load(str(export.path))
        except Exception as error:  # TensorFlow raises nearly anything
            raise LoadError(str(error) or type(error).__name__) from None
        return [run(name, inputs) for name, inputs in calls]


def _to_numpy(tensor):
    return (tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor).numpy()


def _find_tolerance(export):
    """Half the bits hold no four digits: there another batch size may round otherwise."""
    types = (value.type for _, node in export.nodes() for value in node.attr.values())
    return _HALF_TOLERANCE if _HALF_TYPES & set(types) else _TOLERANCE


def _is_equal(first, second, tolerance):
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        return False
    if first.dtype.kind == "f":
        finite = np.abs(first[np.isfinite(first)])
        scale = max(
            finite.max(initial=0), 1
        )  # sums of large numbers round to these, small ones among them too
        return np.allclose(first, second, rtol=0, atol=tolerance * scale, equal_nan=True)
    return bool((first == second).all())


def _brief(row):
    """A row of an output in a few characters."""
    values = [v.decode(errors="replace") if isinstance(v, bytes) else v for v in np.ravel(row).tolist()]
    text = ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values[:6])
    return (text if len(text) <= 60 else text[:57] + "...") or "nothing"
