"""A SavedModel's graph and checkpoint enter; what TensorFlow Serving would refuse or regret in them leaves.

Nothing is loaded or run here: each lint reads, and returns sentences on what is wrong and how to mend it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

SMALL_TENSOR_BYTES = 64 * 1024  # smaller tensors may be equal by chance, or cheap

_PYTHON_OPERATIONS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_MUST_COMPILE = "_XlaMustCompile"
_VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}
_TABLES = {"HashTable", "HashTableV2"}  # mutable ones may be empty, and their content is in the checkpoint


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
    name = export.path.absolute().name  # a link may lead anywhere: the server goes by the link's name
    if name.isdecimal():
        return []
    return [
        f"the folder is named {name!r}, and the server reads only folders named by a "
        "version number: move it to a folder such as 1"
    ]


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
    """Finds large tensors of equal content; those of one value all over, such as zeros, tell nothing.

    A float32 tensor and its rounding to half the bits are copies too.
    """
    copies = [group for group in _group_equal(export) if len(group) > 1]
    if not copies:
        return []
    wasted = sum(sum(sorted(num_bytes for _, num_bytes in group)[:-1]) for group in copies)
    names = " = ".join(name for name, _ in copies[0])
    return [
        f"{len(copies)} weights are stored more than once, {wasted / 1e6:.1f} MB too much (such as {names}): "
        "hold each variable in one attribute of the exported tf.Module, and constants as variables"
    ]


def lint_variables(export):
    """Finds variables that nothing gives a value when the server loads, and values that are not on disk."""
    graph = _MainGraph(export.meta_graph)
    filled = graph.ancestors(graph.loading_operations())
    without = sorted(
        node.attr["shared_name"].s.decode() or node.name
        for node in graph.nodes.values()
        if node.op in _VARIABLES and node.name not in filled
    )
    problems = []
    if without:
        problems.append(
            f"{len(without)} variables get no value at loading (such as {without[0]}): save a tf.Module that "
            "holds [v.value for v in keras_model.variables]"
        )
    missing = sorted(_restored_names(export) - set(_read_stored_shapes(export)))
    if missing:
        problems.append(
            f"variables/ lacks {len(missing)} of the values that are read at loading (such as {missing[0]}): "
            "export again"
        )
    return problems


def lint_initialisation(export):
    """Finds lookup tables that nothing fills when the server loads, and asset files that are not there."""
    graph = _MainGraph(export.meta_graph)
    tables = sorted({node.op for _, node in export.nodes() if node.op in _TABLES})
    problems = []
    if tables and not graph.initialisers():
        problems.append(
            f"the {tables[0]} is filled by nothing at loading: hold the table in the exported tf.Module, or "
            "compare with a constant"
        )
    names = {asset.filename for asset in export.meta_graph.asset_file_def}
    problems += [
        f"assets/{name}, which the graph reads at loading, is not there: export again"
        for name in sorted(names)
        if not (export.path / "assets" / name).is_file()
    ]
    return problems


def lint_kernels(kernels, nodes=()):
    """Finds operations that cannot run on a CPU.

    Args:
        kernels: {operation: serialized KernelList}.
        nodes: (where, NodeDef) each, whose types a kernel must accept; see `Export.nodes`.
    """
    from tensorflow.core.framework import kernel_def_pb2

    on_cpu = {
        operation: [
            kernel
            for kernel in kernel_def_pb2.KernelList.FromString(serialized).kernel
            if kernel.device_type in ("CPU", "DEFAULT") and not kernel.label
        ]
        for operation, serialized in sorted(kernels.items())
        if operation not in _PYTHON_OPERATIONS
    }
    problems = [
        f"operation {operation} has no kernel in the server's library (a custom operation, or for other "
        "devices): build the graph without it"
        for operation, found in on_cpu.items()
        if not found
    ]
    unfit = {
        f"operation {node.op} has no kernel for the types of {node.name} in {where}: cast its inputs"
        for where, node in nodes
        if on_cpu.get(node.op) and not any(_accepts(kernel, node) for kernel in on_cpu[node.op])
    }
    return problems + sorted(unfit)


class _MainGraph:
    """The graph outside its functions, where variables live and loading starts."""

    def __init__(self, meta_graph):
        self.nodes = {node.name: node for node in meta_graph.graph_def.node}
        self._meta_graph = meta_graph

    def initialisers(self):
        """Names of the operations that fill tables and run once."""
        collections = self._meta_graph.collection_def
        names = [
            name
            for key in ("saved_model_main_op", "legacy_init_op")
            if key in collections
            for name in collections[key].node_list.value
        ]
        signature = self._meta_graph.signature_def.get("__saved_model_init_op")
        return names + ([info.name for info in signature.outputs.values()] if signature else [])

    def loading_operations(self):
        restore = self._meta_graph.saver_def.restore_op_name
        return self.initialisers() + ([restore] if restore else [])

    def ancestors(self, names):
        """Names of all nodes that these nodes need."""
        found, waiting = set(), [_strip(name) for name in names]
        while waiting:
            name = waiting.pop()
            if name not in found and name in self.nodes:
                found.add(name)
                waiting += map(_strip, self.nodes[name].input)
        return found


def _strip(tensor_name):
    return tensor_name.removeprefix("^").partition(":")[0]


def _restored_names(export):
    """Names of the values that the graph reads from the checkpoint."""
    graph = export.meta_graph.graph_def
    names = set()
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        by_name = {node.name: node for node in nodes}
        for node in nodes:
            source = by_name.get(_strip(node.input[1])) if node.op == "RestoreV2" else None
            if source is not None and source.op == "Const":
                names.update(name.decode() for name in tf.make_ndarray(source.attr["value"].tensor).ravel())
    return names - {"_CHECKPOINTABLE_OBJECT_GRAPH"}


def _accepts(kernel, node):
    """Whether a kernel takes a node's types; those that a node leaves at their defaults are not looked at."""
    for constraint in kernel.constraint:
        if constraint.name in node.attr:
            value = node.attr[constraint.name]
            types = [value.type] if value.WhichOneof("value") == "type" else value.list.type
            if not set(types) <= set(constraint.allowed_values.list.type):
                return False
    return True


def _group_equal(export):
    """Returns [(name, bytes)] each for large tensors that are equal, or are so once one is rounded."""
    coarse_types = _half_types(export)
    groups, rounded = {}, {}
    for name, array in _iterate_large_tensors(export):
        if _is_uniform(array):
            continue
        key = _identify(array)
        groups.setdefault(key, []).append((name, array.nbytes))
        if array.dtype in (np.float32, np.float64):
            rounded[key] = [_identify(array.astype(dtype)) for dtype in coarse_types]
    for key, others in rounded.items():
        for other in others:
            if other in groups and key in groups:
                groups[other] += groups.pop(key)
    return list(groups.values())


def _half_types(export):
    """NumPy's types of the 16-bit floats among the export's weights."""
    reader = _open_checkpoint(export)
    found = set() if reader is None else set(reader.get_variable_to_dtype_map().values())
    found |= {tf.as_dtype(node.attr["dtype"].type) for _, node in export.nodes() if node.op == "Const"}
    return [dtype.as_numpy_dtype for dtype in (tf.bfloat16, tf.float16) if dtype in found]


def _is_uniform(array):
    return not array.size or bool((array == array.flat[0]).all())


def _identify(array):
    digest = hashlib.sha256(np.ascontiguousarray(array).view(np.uint8)).hexdigest()
    return array.shape, str(array.dtype), digest


def _open_checkpoint(export):
    prefix = export.path / "variables" / "variables"
    return tf.train.load_checkpoint(str(prefix)) if prefix.with_suffix(".index").is_file() else None


def _read_stored_shapes(export):
    reader = _open_checkpoint(export)
    return {} if reader is None else reader.get_variable_to_shape_map()


def _iterate_large_tensors(export):
    reader = _open_checkpoint(export)
    if reader is not None:
        dtypes = reader.get_variable_to_dtype_map()
        for name, shape in sorted(reader.get_variable_to_shape_map().items()):
            if dtypes[name] != tf.string and np.prod(shape) * dtypes[name].size > SMALL_TENSOR_BYTES:
                yield name, reader.get_tensor(name)
    for where, node in export.nodes():
        if node.op == "Const" and node.attr["value"].tensor.ByteSize() > SMALL_TENSOR_BYTES:
            array = tf.make_ndarray(node.attr["value"].tensor)
            if array.dtype != object:
                yield f"constant {node.name} in {where}", array
