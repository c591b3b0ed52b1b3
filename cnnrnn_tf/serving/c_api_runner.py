"""A job file enters; the outputs of an export's signatures leave, run as TensorFlow Serving runs them.

    python c_api_runner.py JOB RESULT

The loader that the server uses is in the TensorFlow wheel: `TF_LoadSessionFromSavedModel` of its C library.
This script calls it through ctypes and must never import TensorFlow's Python, which would register operations
that the server lacks. `fresh_process` writes the job, a pickled dictionary, and reads the result, another:

    job      export_dir: str, operations: [name], calls: [{inputs: {tensor: array}, outputs: {name: tensor}}]
    result   kernels: {operation: serialized KernelList}, calls: [{name: array} or error: str]
             or, if the export does not load, error: str
"""

import ctypes
import importlib.util
import pickle
import sys
from pathlib import Path

import numpy as np

_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 7: np.object_, 9: np.int64, 10: np.bool_}
_STRING = 7
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
    "TF_NewGraph": (_POINTER, []),
    "TF_NewSessionOptions": (_POINTER, []),
    "TF_LoadSessionFromSavedModel": (
        _POINTER,
        [_POINTER, _POINTER, ctypes.c_char_p, _POINTER, ctypes.c_int, _POINTER, _POINTER, _POINTER],
    ),
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
    session = Session(api, job["export_dir"])
    return {"kernels": kernels, "calls": [_run_call(session, call) for call in job["calls"]]}


def _run_call(session, call):
    try:
        return session.run(**call)
    except RuntimeError as error:
        return str(error)


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
    """An export, loaded with the tag `serve` as the server does."""

    def __init__(self, api, export_dir):
        self._api = api
        self._graph = api.TF_NewGraph()
        tags = (ctypes.c_char_p * 1)(b"serve")
        options = api.TF_NewSessionOptions()
        with _Status(api) as status:
            self._session = api.TF_LoadSessionFromSavedModel(
                options, None, export_dir.encode(), tags, 1, self._graph, None, status
            )

    def run(self, inputs, outputs):
        """Returns {name: array} for `outputs` {name: tensor name}, fed with `inputs` {tensor name: array}."""
        api = self._api
        fed = (_Output * len(inputs))(*map(self._find, inputs))
        values = (_POINTER * len(inputs))(*(_to_tensor(api, array) for array in inputs.values()))
        fetched = (_Output * len(outputs))(*map(self._find, outputs.values()))
        results = (_POINTER * len(outputs))()
        try:
            with _Status(api) as status:
                api.TF_SessionRun(
                    self._session,
                    None,
                    fed,
                    values,
                    len(fed),
                    fetched,
                    results,
                    len(fetched),
                    None,
                    0,
                    None,
                    status,
                )
            return {name: _to_array(api, tensor) for name, tensor in zip(outputs, results, strict=True)}
        finally:
            for tensor in (*values, *results):
                if tensor:
                    api.TF_DeleteTensor(tensor)

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
        if self._api.TF_GetCode(self._status) != 0:
            raise RuntimeError(self._api.TF_Message(self._status).decode(errors="replace"))


def _registered_kernels(api, operation_name):
    with _Status(api) as status:
        kernels = api.TF_GetRegisteredKernelsForOp(operation_name.encode(), status).contents
    return ctypes.string_at(kernels.data, kernels.length)


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
    tensor = _allocate(api, _STRING, array.shape, array.size * _TSTRING_SIZE)
    start = api.TF_TensorData(tensor)
    for i, value in enumerate(array.ravel().tolist()):
        value = value.encode() if isinstance(value, str) else value
        address = start + i * _TSTRING_SIZE
        api.TF_StringInit(address)
        api.TF_StringCopy(address, value, len(value))
    return tensor


def _allocate(api, dtype, shape, num_bytes):
    return api.TF_AllocateTensor(dtype, (ctypes.c_int64 * len(shape))(*shape), len(shape), num_bytes)


def _to_array(api, tensor):
    shape = [api.TF_Dim(tensor, axis) for axis in range(api.TF_NumDims(tensor))]
    dtype = api.TF_TensorType(tensor)
    if dtype not in _DTYPES:
        raise RuntimeError(f"outputs of TensorFlow's dtype number {dtype} cannot be read")
    start, num_bytes = api.TF_TensorData(tensor), api.TF_TensorByteSize(tensor)
    if dtype != _STRING:
        data = ctypes.string_at(start, num_bytes) if num_bytes else b""
        return np.frombuffer(data, _DTYPES[dtype]).reshape(shape).copy()
    array = np.empty(num_bytes // _TSTRING_SIZE, object)
    for i in range(array.size):
        address = start + i * _TSTRING_SIZE
        array[i] = ctypes.string_at(api.TF_StringGetDataPointer(address), api.TF_StringGetSize(address))
    return array.reshape(shape)


if __name__ == "__main__":
    main(*sys.argv[1:])
