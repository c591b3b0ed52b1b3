"""A job file enters; the outputs of an export's signatures leave, run as TensorFlow Serving runs them.

    python c_api_runner.py JOB RESULT

The loader that the server uses is in the TensorFlow wheel: `TF_LoadSessionFromSavedModel` of its C library.
This script calls it through ctypes and must never import TensorFlow's Python, which would register operations
that the server lacks. `fresh_process` writes the job, a pickled dictionary, and reads the result, another:

    job      export_dir: str, operations: [name], calls: [{inputs: {tensor: array}, outputs: {name: tensor}}],
             timed: [call], seconds: float, the time to repeat each of these
    result   kernels: {operation: serialized KernelList}, calls: [{name: array} or error: str],
             timed: [[seconds of each repetition] or error: str], imported: [what it should not have]
             or, if the export does not load, error: str
"""

import ctypes
import importlib.util
import pickle
import sys
import time
from pathlib import Path

import numpy as np

_DTYPES = {  # TensorFlow's number: NumPy's type
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    7: np.object_,
    9: np.int64,
    10: np.bool_,
    17: np.uint16,
    19: np.float16,
    22: np.uint32,
    23: np.uint64,
}
_STRING = 7
_BFLOAT16 = 14  # NumPy has none: outputs are widened to float32, which loses nothing
_MAX_REPETITIONS = 50
_TSTRING_SIZE = 24  # sizeof(TF_TString)
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class _Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]


_PROTOTYPES = {  # function: (result, arguments)
    "TF_NewStatus": (_POINTER, []),
    "TF_GetCode": (ctypes.c_int, [_POINTER]),
    "TF_Message": (ctypes.c_char_p, [_POINTER]),
    "TF_DeleteStatus": (None, [_POINTER]),
    "TF_NewGraph": (_POINTER, []),
    "TF_DeleteGraph": (None, [_POINTER]),
    "TF_NewSessionOptions": (_POINTER, []),
    "TF_DeleteSessionOptions": (None, [_POINTER]),
    "TF_LoadSessionFromSavedModel": (
        _POINTER,
        [_POINTER, _POINTER, ctypes.c_char_p, _POINTER, ctypes.c_int, _POINTER, _POINTER, _POINTER],
    ),
    "TF_CloseSession": (None, [_POINTER, _POINTER]),
    "TF_DeleteSession": (None, [_POINTER, _POINTER]),
    "TF_DeleteBuffer": (None, [_POINTER]),
    "TF_GetRegisteredKernelsForOp": (ctypes.POINTER(_Buffer), [ctypes.c_char_p, _POINTER]),
    "TF_GraphOperationByName": (_POINTER, [_POINTER, ctypes.c_char_p]),
    "TF_SessionRun": (
        None,
        [_POINTER, _POINTER]
        + [_POINTER, _POINTER, ctypes.c_int] * 2  # inputs, outputs
        + [_POINTER, ctypes.c_int, _POINTER, _POINTER],
    ),
    "TF_AllocateTensor": (_POINTER, [ctypes.c_int, _POINTER, ctypes.c_int, _SIZE]),
    "TF_DeleteTensor": (None, [_POINTER]),
    "TF_TensorData": (_POINTER, [_POINTER]),
    "TF_TensorByteSize": (_SIZE, [_POINTER]),
    "TF_TensorType": (ctypes.c_int, [_POINTER]),
    "TF_NumDims": (ctypes.c_int, [_POINTER]),
    "TF_Dim": (ctypes.c_int64, [_POINTER, ctypes.c_int]),
    "TF_StringInit": (None, [_POINTER]),
    "TF_StringCopy": (None, [_POINTER, ctypes.c_char_p, _SIZE]),
    "TF_StringGetDataPointer": (_POINTER, [_POINTER]),
    "TF_StringGetSize": (_SIZE, [_POINTER]),
}


def main(job_path, result_path):
    job = pickle.loads(Path(job_path).read_bytes())
    try:
        result = run_job(job)
    except (RuntimeError, OSError) as error:
        result = {"error": str(error)}
    Path(result_path).write_bytes(pickle.dumps(result))


def run_job(job):
    """Returns the result of a job (see above).

    Raises:
        RuntimeError: what TensorFlow says against the export.
        OSError: the library is missing.
    """
    api = load_library()
    kernels = {name: _registered_kernels(api, name) for name in job["operations"]}
    with Session(api, job["export_dir"]) as session:
        calls = [_run_call(session, call) for call in job["calls"]]
        timed = [_time_call(session, call, job["seconds"]) for call in job["timed"]]
    imported = sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "keras"})
    return {"kernels": kernels, "calls": calls, "timed": timed, "imported": imported}


def _run_call(session, call):
    try:
        return session.run(**call)
    except RuntimeError as error:
        return str(error)


def _time_call(session, call, seconds):
    """Returns the seconds of each repetition.

    The first call, which allocates, is not among them, unless it took longer than `seconds`: of a call so
    slow it is a trifle, and another would only tell the same.
    """
    start = time.perf_counter()
    outputs = _run_call(session, call)
    first = time.perf_counter() - start
    if isinstance(outputs, str):
        return outputs
    times = [first] if first > seconds else []
    while sum(times) < seconds and len(times) < _MAX_REPETITIONS:
        start = time.perf_counter()
        session.run(**call)
        times.append(time.perf_counter() - start)
    return times


def load_library():
    """Returns the C library of the installed TensorFlow, its functions typed; imports nothing of it."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise OSError("TensorFlow is not installed: pip install tensorflow")
    folder = Path(spec.origin).parent
    ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"), mode=ctypes.RTLD_GLOBAL)
    api = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(api, name)
        function.restype, function.argtypes = result, arguments
    return api


class Session:
    """An export, loaded with the tag `serve` as the server does; threads may share it.

    `close` it, or use it in a `with` block, to give its memory back; no call may be running then.

    >>> with Session(load_library(), "export/1", signatures) as session:  # doctest: +SKIP
    ...     session.run_signature("serving_default", {"image_bytes": [jpeg]})
    """

    def __init__(self, api, export_dir, signatures=None):
        """Loads an export.

        Args:
            api: what `load_library` returns.
            export_dir: the version folder, which holds saved_model.pb.
            signatures: for `run_signature` alone, see `fresh_process.read_signatures`.

        Raises:
            RuntimeError: what TensorFlow says against the export.
        """
        self._api = api
        self._signatures = signatures or {}
        self._session, self._graph = None, api.TF_NewGraph()
        tags = (ctypes.c_char_p * 1)(b"serve")
        options = api.TF_NewSessionOptions()
        try:
            with _Status(api) as status:
                self._session = api.TF_LoadSessionFromSavedModel(
                    options, None, str(export_dir).encode(), tags, 1, self._graph, None, status
                )
        except RuntimeError:
            self.close()
            raise
        finally:
            api.TF_DeleteSessionOptions(options)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Gives back what the export holds; a second call does nothing."""
        session, graph, self._session, self._graph = self._session, self._graph, None, None
        if session:
            with _Status(self._api) as status:
                self._api.TF_CloseSession(session, status)
            with _Status(self._api) as status:
                self._api.TF_DeleteSession(session, status)
        if graph:
            self._api.TF_DeleteGraph(graph)

    def run_signature(self, name, inputs):
        """Returns {output name: array} of a signature by its name, fed with `inputs` {input name: array}."""
        signature = self._signatures[name]
        return self.run(
            {signature["inputs"][key]: array for key, array in inputs.items()}, signature["outputs"]
        )

    def run(self, inputs, outputs):
        """Returns {name: array} for `outputs` {name: tensor name}, fed with `inputs` {tensor name: array}.

        Raises:
            RuntimeError: what TensorFlow says against the call.
        """
        api = self._api
        if not self._session:
            raise RuntimeError("the session is closed")
        fed = (_Output * len(inputs))(*map(self._find, inputs))
        fetched = (_Output * len(outputs))(*map(self._find, outputs.values()))
        values = (_POINTER * len(inputs))()
        results = (_POINTER * len(outputs))()
        try:
            for i, array in enumerate(inputs.values()):
                values[i] = _to_tensor(api, array)
            with _Status(api) as status:
                # session, options; inputs; outputs; targets; metadata
                api.TF_SessionRun(
                    *(self._session, None),
                    *(fed, values, len(fed)),
                    *(fetched, results, len(fetched)),
                    *(None, 0),
                    *(None, status),
                )
            return {name: _to_array(api, tensor) for name, tensor in zip(outputs, results, strict=True)}
        finally:
            for tensor in (*values, *results):
                if tensor:
                    api.TF_DeleteTensor(tensor)  # with the strings in it

    def _find(self, tensor_name):
        operation_name, _, index = tensor_name.partition(":")
        operation = self._api.TF_GraphOperationByName(self._graph, operation_name.encode())
        if not operation:
            raise RuntimeError(f"the signature names {tensor_name}, which is not in the graph")
        return _Output(operation, int(index or 0))


class _Status:
    """A TF_Status that raises when the block ends."""

    def __init__(self, api):
        self._api = api

    def __enter__(self):
        self._status = self._api.TF_NewStatus()
        return self._status

    def __exit__(self, *exception):
        code = self._api.TF_GetCode(self._status)
        message = self._api.TF_Message(self._status).decode(errors="replace")
        self._api.TF_DeleteStatus(self._status)
        if code != 0:
            raise RuntimeError(message)


def _registered_kernels(api, operation_name):
    with _Status(api) as status:
        buffer = api.TF_GetRegisteredKernelsForOp(operation_name.encode(), status)
    kernels = ctypes.string_at(buffer.contents.data, buffer.contents.length)
    api.TF_DeleteBuffer(buffer)
    return kernels


def _to_tensor(api, array):
    array = np.asarray(array)
    if array.dtype.kind in "SUO":
        return _to_string_tensor(api, array)
    dtypes = [dtype for dtype, numpy_type in _DTYPES.items() if array.dtype == numpy_type]
    if not dtypes:
        raise RuntimeError(f"inputs of dtype {array.dtype} cannot be fed")
    array = np.ascontiguousarray(array)
    tensor = _allocate(api, dtypes[0], array.shape, array.nbytes)
    ctypes.memmove(api.TF_TensorData(tensor), array.tobytes(), array.nbytes)
    return tensor


def _to_string_tensor(api, array):
    values = [value.encode() if isinstance(value, str) else bytes(value) for value in array.ravel().tolist()]
    tensor = _allocate(api, _STRING, array.shape, array.size * _TSTRING_SIZE)
    start = api.TF_TensorData(tensor)
    for i, value in enumerate(values):
        address = start + i * _TSTRING_SIZE
        api.TF_StringInit(address)
        api.TF_StringCopy(address, value, len(value))
    return tensor


def _allocate(api, dtype, shape, num_bytes):
    return api.TF_AllocateTensor(dtype, (ctypes.c_int64 * len(shape))(*shape), len(shape), num_bytes)


def _to_array(api, tensor):
    shape = [api.TF_Dim(tensor, axis) for axis in range(api.TF_NumDims(tensor))]
    dtype = api.TF_TensorType(tensor)
    if dtype not in _DTYPES and dtype != _BFLOAT16:
        raise RuntimeError(f"outputs of TensorFlow's dtype number {dtype} cannot be read")
    start, num_bytes = api.TF_TensorData(tensor), api.TF_TensorByteSize(tensor)
    if dtype != _STRING:
        data = ctypes.string_at(start, num_bytes) if num_bytes else b""
        if dtype == _BFLOAT16:  # the upper half of a float32
            return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return np.frombuffer(data, _DTYPES[dtype]).reshape(shape).copy()
    array = np.empty(num_bytes // _TSTRING_SIZE, object)
    for i in range(array.size):
        address = start + i * _TSTRING_SIZE
        array[i] = ctypes.string_at(api.TF_StringGetDataPointer(address), api.TF_StringGetSize(address))
    return array.reshape(shape)


if __name__ == "__main__":
    main(*sys.argv[1:])
