"""A SavedModel's graph and checkpoint enter; what TensorFlow Serving would refuse or regret in them leaves.

Nothing is loaded or run here: each lint reads, and returns sentences on what is wrong and how to mend it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnrnn_tf.serving.fresh_process import public_signatures

SMALL_TENSOR_BYTES = 64 * 1024  # smaller tensors may be equal by chance, or cheap

_PYTHON_OPERATIONS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_MUST_COMPILE = "_XlaMustCompile"


@dataclass(frozen=True)
class Export:
    """A version folder and the graph in it that the server loads."""

    path: Path
    meta_graph: object  # a MetaGraphDef

    def nodes(self):
        """Yields (where, NodeDef) for the graph and every function in its library."""
        graph = self.meta_graph.graph_def
        for node in graph.node:
            yield "the graph", node
        for function in graph.library.function:
            for node in function.node_def:
                yield f"function {function.signature.name}", node

    def operations(self):
        """Returns the names of all operations, those that are calls of the graph's own functions left out."""
        functions = {function.signature.name for function in self.meta_graph.graph_def.library.function}
        return sorted({node.op for _, node in self.nodes()} - functions)


def lint_version(export):
    if export.path.resolve().name.isdecimal():
        return []
    return [
        f"the folder is named {export.path.resolve().name!r}, and the server reads only folders named by a "
        "version number: move it to a folder such as 1"
    ]


def lint_signatures(export):
    signatures = public_signatures(export.meta_graph)
    problems = []
    if "serving_default" not in signatures:
        found = ", ".join(sorted(signatures)) or "none"
        problems.append(
            f"there is no signature serving_default (found: {found}), which clients call when they name "
            "none: pass it in `signatures` to tf.saved_model.save"
        )
    for name, signature in sorted(signatures.items()):
        for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
            for key, info in sorted(tensors.items()):
                fault = _find_shape_fault(info)
                if fault:
                    problems.append(f"{kind} {key!r} of signature {name!r} {fault}")
    return problems


def lint_python_operations(export):
    found = sorted(
        {f"{node.op} in {where}" for where, node in export.nodes() if node.op in _PYTHON_OPERATIONS}
    )
    return [
        f"{each} calls Python, which the server does not have: write it in TensorFlow operations"
        for each in found
    ]


def lint_compilation(export):
    library = export.meta_graph.graph_def.library
    found = {f.signature.name for f in library.function if f.attr[_MUST_COMPILE].b}
    found |= {
        node.name for _, node in export.nodes() if _MUST_COMPILE in node.attr and node.attr[_MUST_COMPILE].b
    }
    if not found:
        return []
    return [
        f"{', '.join(sorted(found))} must be compiled by XLA, which the server refuses: export without "
        "jit_compile=True"
    ]


def lint_weights(export):
    """Finds large tensors of equal content; those of one value all over, such as zeros, tell nothing."""
    by_content = {}
    for name, array in _iterate_large_tensors(export):
        if array.size and (array == array.flat[0]).all():
            continue
        digest = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
        by_content.setdefault((array.shape, str(array.dtype), digest), []).append((name, array.nbytes))
    copies = [group for group in by_content.values() if len(group) > 1]
    if not copies:
        return []
    wasted = sum(num_bytes for group in copies for _, num_bytes in group[1:])
    names = " = ".join(name for name, _ in copies[0])
    return [
        f"{len(copies)} weights are stored more than once, {wasted / 1e6:.1f} MB too much (such as {names}): "
        "hold each variable in one attribute of the exported tf.Module, and constants as variables"
    ]


def lint_kernels(kernels):
    """Finds operations that cannot run on a CPU; `kernels` is {operation: serialized KernelList}."""
    from tensorflow.core.framework import kernel_def_pb2

    missing = []
    for operation, serialized in sorted(kernels.items()):
        devices = {kernel.device_type for kernel in kernel_def_pb2.KernelList.FromString(serialized).kernel}
        if not devices & {"CPU", "DEFAULT"} and operation not in _PYTHON_OPERATIONS:
            missing.append(operation)
    return [
        f"operation {operation} has no kernel in the server's library (a custom operation, or for other "
        "devices): build the graph without it"
        for operation in missing
    ]


def _find_shape_fault(info):
    encoding = info.WhichOneof("encoding")
    if encoding in ("coo_sparse", "composite_tensor"):
        return "is ragged or sparse, which requests cannot carry: pad it to a dense tensor"
    if info.tensor_shape.unknown_rank:
        return "has no fixed rank: give it one with set_shape or ensure_shape"
    dimensions = [dimension.size for dimension in info.tensor_shape.dim]
    if not dimensions:
        return "is a scalar, and fails every batched request: give it one row an example"
    if dimensions[0] != -1:
        return f"always has {dimensions[0]} rows, and the server batches: leave the first dimension unknown"
    return None


def _iterate_large_tensors(export):
    prefix = export.path / "variables" / "variables"
    if prefix.with_suffix(".index").is_file():
        reader = tf.train.load_checkpoint(str(prefix))
        dtypes = reader.get_variable_to_dtype_map()
        for name, shape in sorted(reader.get_variable_to_shape_map().items()):
            if dtypes[name] != tf.string and np.prod(shape) * dtypes[name].size > SMALL_TENSOR_BYTES:
                yield name, reader.get_tensor(name)
    for where, node in export.nodes():
        if node.op == "Const" and node.attr["value"].tensor.ByteSize() > SMALL_TENSOR_BYTES:
            array = tf.make_ndarray(node.attr["value"].tensor)
            if array.dtype != object:
                yield f"constant {node.name} in {where}", array
