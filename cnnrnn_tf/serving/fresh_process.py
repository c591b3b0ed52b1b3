"""An export and inputs for a signature enter; what a process that has never seen the model gives leaves.

`tf.saved_model.load` accepts exports that TensorFlow Serving cannot run. The two loaders here do not: the C
API without TensorFlow's Python, which is what the server links, and a TF1 session.
"""

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tfrecords.errors import UserError, nearest

_FOLDER = Path(__file__).parent
C_API, TF1 = _FOLDER / "c_api_runner.py", _FOLDER / "tf1_runner.py"


class LoadError(RuntimeError):
    """What the loader said against an export or a call."""


def run_signature_c_api(export_dir, signature, inputs):
    """Runs a signature through TensorFlow's C API, as TensorFlow Serving would, in a fresh process.

    Args:
        export_dir: the version folder, which holds saved_model.pb.
        signature: its name, such as "serving_default".
        inputs: {input name: array}; strings as arrays of bytes.

    Returns:
        {output name: array}; strings as object arrays of bytes.

    Raises:
        UserError: no such signature, or other inputs than it has.
        LoadError: the export does not load, or the call fails.
    """
    return _run_one(C_API, export_dir, signature, inputs)


def run_signature_tf1(export_dir, signature, inputs):
    """Does what `run_signature_c_api` does in a TF1 session."""
    return _run_one(TF1, export_dir, signature, inputs)


def run_calls(runner, export_dir, calls, operations=(), timeout_s=600, timed=(), seconds=5.0):
    """Runs several calls in one fresh process.

    Args:
        runner: C_API or TF1.
        export_dir: the version folder.
        calls: (signature name, {input name: array}) each.
        operations: names of operations whose registered kernels to list (C_API only).
        timeout_s: after which the process is ended.
        timed: calls to repeat and time, after the others (C_API only).
        seconds: for which each of these is repeated.

    Returns:
        {"calls": [{output name: array}, or what TensorFlow said against the call], "kernels": {operation:
        serialized KernelList}, "timed": [seconds of each repetition]}; the calls alone from TF1.

    Raises:
        UserError: a signature or an input that the export does not have.
        LoadError: the export does not load, or the C API's process has seen TensorFlow's Python.
    """
    signatures = public_signatures(read_meta_graph(export_dir))
    job = {
        "export_dir": str(export_dir),
        "operations": list(operations),
        "calls": [_resolve_call(signatures, name, inputs) for name, inputs in calls],
        "timed": [_resolve_call(signatures, name, inputs) for name, inputs in timed],
        "seconds": seconds,
    }
    with tempfile.TemporaryDirectory() as folder:
        job_path, result_path = Path(folder) / "job", Path(folder) / "result"
        job_path.write_bytes(pickle.dumps(job))
        # -P: the runner's folder stays off the path, so that no module of ours shadows another.
        command = [sys.executable, "-P", str(runner), str(job_path), str(result_path)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise LoadError(f"no answer within {timeout_s} s") from None
        if not result_path.exists():
            raise LoadError(f"the process ended with status {done.returncode}: {_last_line(done.stderr)}")
        result = pickle.loads(result_path.read_bytes())
    if "error" in result:
        raise LoadError(result["error"])
    if result.get("imported"):
        raise LoadError(f"its process imported {' and '.join(result['imported'])}, so it proves nothing")
    return result


def read_signatures(export_dir):
    """Returns the public signatures in plain data, for a `c_api_runner.Session`.

    Returns:
        {name: {"inputs": {input name: tensor name}, "outputs": {output name: tensor name}}}

    Raises:
        UserError: see `read_meta_graph`.
    """
    return {
        name: {"inputs": _tensor_names(signature.inputs), "outputs": _tensor_names(signature.outputs)}
        for name, signature in public_signatures(read_meta_graph(export_dir)).items()
    }


def read_meta_graph(export_dir):
    """Returns the MetaGraphDef with the tags {serve}, which is the one that the server loads.

    Raises:
        UserError: there is no readable saved_model.pb, or none of its graphs has the tag.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = Path(export_dir) / "saved_model.pb"
    if not path.is_file():
        raise UserError(f"{export_dir} is not a SavedModel: it holds no saved_model.pb")
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except DecodeError:
        raise UserError(f"{path} is damaged: export the model again") from None
    tags = [set(meta_graph.meta_info_def.tags) for meta_graph in saved_model.meta_graphs]
    if {"serve"} not in tags:
        found = ", ".join(str(sorted(each)) for each in tags) or "none"
        raise UserError(
            f"{path} has no graph with the tag 'serve' (found {found}): save it with tf.saved_model.save"
        )
    return saved_model.meta_graphs[tags.index({"serve"})]


def public_signatures(meta_graph):
    """Returns {name: SignatureDef} without those of TensorFlow's own, which initialise."""
    signatures = meta_graph.signature_def.items()
    return {name: signature for name, signature in signatures if not name.startswith("__")}


def _run_one(runner, export_dir, signature, inputs):
    (outputs,) = run_calls(runner, export_dir, [(signature, inputs)])["calls"]
    if isinstance(outputs, str):
        raise LoadError(outputs)
    return outputs


def _resolve_call(signatures, name, inputs):
    if name not in signatures:
        known = sorted(signatures)
        raise UserError(f"no signature {name!r}{nearest(name, known)}: the export has {', '.join(known)}")
    signature = signatures[name]
    if set(inputs) != set(signature.inputs):
        expected, arrived = ", ".join(sorted(signature.inputs)), ", ".join(sorted(inputs))
        raise UserError(f"signature {name!r} takes {expected}; it was given {arrived or 'nothing'}")
    return {
        "inputs": {signature.inputs[key].name: np.asarray(value) for key, value in inputs.items()},
        "outputs": _tensor_names(signature.outputs),
    }


def _tensor_names(tensors):
    """Ragged and sparse ones have no tensor of their own, and are left out; the lints say so."""
    return {key: info.name for key, info in tensors.items() if info.name}


def _last_line(stderr):
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
