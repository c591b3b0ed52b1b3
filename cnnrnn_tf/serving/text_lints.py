"""A SavedModel enters; text in it that REST clients could not read leaves, with what to do about it.

REST answers are JSON, so all text that an output may carry has to be UTF-8. Constants of a graph may well be
binary, such as the first bytes of a JPEG: only those that flow into an output as strings are text.
"""

import json

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from cnnrnn_tf.serving.fresh_process import public_signatures

BINARY_SUFFIX = "_bytes"  # outputs so named are base64-encoded over REST, and others are not

_STRING = tf.string.as_datatype_enum
_CALLS = {  # operations that call functions: (attributes that name them, place of the first argument)
    "PartitionedCall": (("f",), 0),
    "StatefulPartitionedCall": (("f",), 0),
    "If": (("then_branch", "else_branch"), 1),
    "StatelessIf": (("then_branch", "else_branch"), 1),
    "Case": (("branches",), 1),
    "StatelessCase": (("branches",), 1),
    "While": (("body",), 0),
    "StatelessWhile": (("body",), 0),
}
_TEXT_FILES = {".json", ".txt", ".csv", ".tsv", ".md"}


def lint_text(export):
    """Finds constants that an output may carry and text files beside the graph that are not UTF-8."""
    problems = []
    for name, signature in sorted(public_signatures(export.meta_graph).items()):
        for key, info in sorted(signature.outputs.items()):
            if info.dtype == _STRING and info.name and not key.endswith(BINARY_SUFFIX):
                for value in sorted(_Trace(export.meta_graph).find_constants(info.name)):
                    if not is_utf8(value):
                        problems.append(
                            f"output {key!r} of signature {name!r} may carry {value[:40]!r}, which is not "
                            f"UTF-8: encode text so, or end the name of a binary output in {BINARY_SUFFIX}"
                        )
    return [*dict.fromkeys(problems), *_lint_files(export)]


def is_utf8(value):
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lint_files(export):
    for folder in ("assets", "assets.extra"):
        for path in sorted((export.path / folder).rglob("*")):
            if path.suffix not in _TEXT_FILES or not path.is_file():
                continue
            name, data = path.relative_to(export.path), path.read_bytes()
            if not is_utf8(data):
                yield f"{name} is not UTF-8: write it again in that encoding"
            elif path.suffix == ".json" and not _is_json(data):
                yield f"{name} is not JSON: export again"


def _is_json(data):
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


class _Trace:
    """Follows strings backwards from a tensor through the graph and the functions that it calls."""

    def __init__(self, meta_graph):
        self._functions = {f.signature.name: f for f in meta_graph.graph_def.library.function}
        self._graph = {node.name: node for node in meta_graph.graph_def.node}
        self._bodies = {}

    def find_constants(self, tensor_name):
        """Returns the strings, as bytes, of the constants that may reach a tensor of the graph."""
        found, seen = set(), set()
        waiting = [((), tensor_name)]  # (the calls that lead here, outermost first; a tensor there)
        while waiting:
            calls, tensor = waiting.pop()
            if (calls, tensor) in seen:
                continue
            seen.add((calls, tensor))
            node, sources = self._find_sources(calls, tensor)
            if node is not None and node.op == "Const" and node.attr["value"].tensor.dtype == _STRING:
                found.update(tf.make_ndarray(node.attr["value"].tensor).ravel().tolist())
            waiting += sources
        return found

    def _find_sources(self, calls, tensor):
        """Returns the NodeDef of a tensor (None for a function's argument) and what may flow into it."""
        name, *_, index = tensor.split(":") if ":" in tensor else (tensor, "0")
        if calls:
            caller, function_name = calls[-1]
            arguments = [arg.name for arg in self._functions[function_name].signature.input_arg]
            if name in arguments:
                call = self._nodes(calls[:-1])[caller]
                _, first = _CALLS.get(call.op, ((), 0))
                return None, [(calls[:-1], call.input[first + arguments.index(name)])]
        node = self._nodes(calls).get(name)
        if node is None:
            return None, []
        functions = self._called(node)
        if functions:
            return node, [
                (calls + ((name, each.signature.name),), each.ret[each.signature.output_arg[int(index)].name])
                for each in functions
            ] + ([(calls, node.input[int(index)])] if "While" in node.op else [])
        return node, [(calls, source) for source in self._string_inputs(node)]

    def _nodes(self, calls):
        if not calls:
            return self._graph
        name = calls[-1][1]
        if name not in self._bodies:
            self._bodies[name] = {node.name: node for node in self._functions[name].node_def}
        return self._bodies[name]

    def _called(self, node):
        if node.op in self._functions:
            return [self._functions[node.op]]
        attributes = [node.attr[key] for key in _CALLS.get(node.op, ((), 0))[0]]
        names = [f.name for each in attributes for f in [each.func, *each.list.func] if f.name]
        return [self._functions[name] for name in names]

    def _string_inputs(self, node):
        """Returns the inputs of a node that are strings, by its operation's definition."""
        operation = op_def_registry.get(node.op)
        if operation is None:
            return []
        types = []
        for argument in operation.input_arg:
            if argument.type_list_attr:
                types += node.attr[argument.type_list_attr].list.type
                continue
            dtype = argument.type or node.attr[argument.type_attr].type
            types += [dtype] * (node.attr[argument.number_attr].i if argument.number_attr else 1)
        inputs = [each for each in node.input if not each.startswith("^")]
        return [each for each, dtype in zip(inputs, types, strict=False) if dtype == _STRING]
