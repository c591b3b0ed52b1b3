"""An export enters; its signatures' outputs leave as TensorFlow Serving would give them, batched or not.

It is loaded through TensorFlow's C library. No Python of TensorFlow's runs: of the package, only generated
protocol buffers are imported (`import_protos`).
"""

import importlib.util
import os
import sys
import threading
import types
from pathlib import Path

import numpy as np

from cnnrnn_tf.serving.c_api_runner import Session, load_library

DTYPES = {1: np.float32, 3: np.int32, 7: np.object_, 9: np.int64, 10: np.bool_}  # TensorFlow's numbers
DEFAULT_SIGNATURE = "serving_default"


class ServerError(Exception):
    """An answer that is none: the name of a gRPC status code, and the server's words."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


def import_protos():
    """Makes `tensorflow.core` importable in this process without running TensorFlow's `__init__`."""
    spec = importlib.util.find_spec("tensorflow")
    package = types.ModuleType("tensorflow")
    package.__path__, package.__spec__ = list(spec.submodule_search_locations), spec
    sys.modules["tensorflow"] = package


class ServedModel:
    """The version of an export that the server would serve."""

    def __init__(self, export_dir, name, batching=None):
        """Loads it.

        Args:
            export_dir: the version folder, or the folder of versions.
            name: the model's name.
            batching: a dictionary of `Batcher`'s options, None to run each request alone.
        """
        from tensorflow.core.protobuf import saved_model_pb2

        path = find_version(Path(export_dir))
        saved_model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        (meta_graph,) = [each for each in saved_model.meta_graphs if "serve" in each.meta_info_def.tags]
        self.name, self.version = name, int(path.name)
        self.signatures = dict(meta_graph.signature_def)
        self.batch_sizes = []  # rows of each run, padding included
        self._session = Session(load_library(), str(path))
        self._batchers = {
            each: Batcher(lambda inputs, each=each: self._run(each, inputs), **batching)
            for each in self.signatures
            if batching
        }

    def check(self, name, version):
        """Raises a ServerError where the server has no such model."""
        if name != self.name:
            raise ServerError("NOT_FOUND", f"Servable not found for request: Latest({name})")
        if version is not None and version != self.version:
            raise ServerError("NOT_FOUND", f"Servable not found for request: Specific({name}, {version})")

    def predict(self, signature_name, inputs):
        """Returns {output name: array} for {input name: array}."""
        signature = self.signatures[signature_name]
        if set(inputs) != set(signature.inputs):
            extra, missing = set(inputs) - set(signature.inputs), set(signature.inputs) - set(inputs)
            raise ServerError(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} "
                f"len({{{','.join(sorted(inputs))}}}) != len({{{','.join(sorted(signature.inputs))}}}). "
                f"Sent extra: {{{','.join(sorted(extra))}}}. "
                f"Missing but required: {{{','.join(sorted(missing))}}}.",
            )
        batcher = self._batchers.get(signature_name)
        return self._run(signature_name, inputs) if batcher is None else batcher.run(inputs)

    def _run(self, signature_name, inputs):
        signature = self.signatures[signature_name]
        self.batch_sizes.append(max((len(array) for array in inputs.values()), default=0))
        try:
            return self._session.run(
                {signature.inputs[name].name: array for name, array in inputs.items()},
                {name: info.name for name, info in signature.outputs.items()},
            )
        except RuntimeError as error:  # the C API's code is not passed on; it is this one, mostly
            raise ServerError("INVALID_ARGUMENT", str(error)) from None


class Batcher:
    """Joins concurrent requests of one signature, by the rules of the server's BatchingSession.

    Rows are joined along the first dimension, and filled up to the next of the allowed batch sizes with the
    first row of the last request. If the run fails, or the requests do not fit together, all of them fail.
    With `pad_variable_length_inputs`, narrower inputs are widened with the first value of their request, and
    inputs of different ranks end the process, as they end the server. A request without rows waits for the
    end of a batch that has some. At most `num_batch_threads` batches run at once.
    """

    def __init__(
        self,
        run,
        max_batch_size,
        batch_timeout_s,
        allowed_batch_sizes,
        pad_variable_length_inputs=False,
        num_batch_threads=2,
        die=os.abort,
    ):
        self._run, self._threads = run, threading.Semaphore(num_batch_threads)
        self._max_batch_size, self._timeout_s = max_batch_size, batch_timeout_s
        self._allowed, self._pads = allowed_batch_sizes, pad_variable_length_inputs
        self._lock, self._open = threading.Lock(), None
        self._die, self._ran, self._last = die, threading.Condition(), None

    def run(self, inputs):
        sizes = {len(array) for array in inputs.values()}
        if len(sizes) != 1:
            raise ServerError(
                "INVALID_ARGUMENT",
                "Batching session Run() input tensors must have equal 0th-dimension size",
            )
        (size,) = sizes
        if size > self._max_batch_size:
            raise ServerError(
                "INVALID_ARGUMENT",
                f"Task size {size} is larger than maximum input batch size {self._max_batch_size}",
            )
        if size == 0:
            return self._wait_for_rows()
        with self._lock:
            batch = self._open
            leads = batch is None or batch.size + size > self._max_batch_size
            if leads:
                if batch is not None:
                    batch.closed.set()
                batch = self._open = _Batch()
            start = batch.add(inputs, size)
            if batch.size == self._max_batch_size:
                batch.closed.set()
        if leads:
            self._process(batch)
        batch.done.wait()
        if batch.error is not None:
            raise batch.error
        return {name: array[start : start + size] for name, array in batch.outputs.items()}

    def _wait_for_rows(self):
        with self._ran:
            before = self._last
            self._ran.wait_for(lambda: self._last is not before)
            batch = self._last
        if batch.error is not None:
            raise batch.error
        return {name: array[:0] for name, array in batch.outputs.items()}

    def _process(self, batch):
        batch.closed.wait(self._timeout_s)
        with self._lock:
            if self._open is batch:
                self._open = None
        try:
            with self._threads:
                batch.outputs, batch.error = self._run(self._join(batch)), None
        except ServerError as error:
            batch.error = error
        finally:
            batch.done.set()
            with self._ran:
                self._last = batch
                self._ran.notify_all()

    def _join(self, batch):
        filling = next(size for size in self._allowed if size >= batch.size) - batch.size
        joined = {}
        for name in batch.requests[0]:
            arrays = [inputs[name] for inputs in batch.requests]
            arrays = self._fit(name, arrays)
            joined[name] = np.concatenate([*arrays, *[arrays[-1][:1]] * filling])
        return joined

    def _fit(self, name, arrays):
        """Arrays of one type, and of one shape but for the rows."""
        if len({array.dtype for array in arrays}) > 1:
            raise ServerError(
                "INVALID_ARGUMENT", f"Tensors with name '{name}' from different tasks have different types"
            )
        if len({array.shape[1:] for array in arrays}) == 1:
            return arrays
        if not self._pads:
            raise ServerError(
                "FAILED_PRECONDITION",
                f"Tensors with name '{name}' from different tasks have different shapes and padding is "
                "turned off.Set pad_variable_length_inputs to true, or ensure that all tensors with the same "
                "name have equal dimensions starting with the first dim.",
            )
        if any(array.size == 0 for array in arrays):
            raise ServerError("INVALID_ARGUMENT", "Got empty tensor in batch of non-empty tensors.")
        if len({array.ndim for array in arrays}) > 1:
            self._die()  # tensor_shape.cc: Check failed: d < dims()
        width = max(array.shape[1] for array in arrays)
        return [
            np.pad(each, [(0, 0), (0, width - each.shape[1])], constant_values=each.flat[0])
            for each in arrays
        ]


class _Batch:
    def __init__(self):
        self.requests, self.size = [], 0
        self.closed, self.done = threading.Event(), threading.Event()
        self.outputs, self.error = None, ServerError("INTERNAL", "the batch was not run")

    def add(self, inputs, size):
        """Returns the request's first row."""
        start, self.size = self.size, self.size + size
        self.requests.append(inputs)
        return start


def find_version(path):
    """The version folder: the path itself, or the highest version in it."""
    if (path / "saved_model.pb").is_file():
        return path
    return max((each for each in path.iterdir() if each.name.isdecimal()), key=lambda each: int(each.name))
