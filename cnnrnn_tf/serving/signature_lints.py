"""A SavedModel's signatures enter; what requests over gRPC and REST could not do with them leaves.

Like `lints`, these read and run nothing: each returns sentences on what is wrong and how to mend it.
"""

import tensorflow as tf

from cnnrnn_tf.serving.fresh_process import public_signatures

PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{name}" for name in ("predict", "classify", "regress"))

_OF_TENSORFLOW = ("__saved_model_init_op", "__saved_model_train_op")


def lint_shapes(export):
    signatures = public_signatures(export.meta_graph)
    problems = []
    if "serving_default" not in signatures:
        found = ", ".join(sorted(signatures)) or "none"
        problems.append(
            f"there is no signature serving_default (found: {found}), which clients call when they name "
            "none: pass it in `signatures` to tf.saved_model.save"
        )
    for where, _, info in _iterate_tensors(signatures):
        fault = _find_shape_fault(info)
        if fault:
            problems.append(f"{where} {fault}")
    return problems


def lint_names(export):
    """Finds names that clients cannot send, and tensors that are not in the graph.

    All others can be sent, by JSON and gRPC alike: "image/encoded" and "dense-1", too.
    """
    nodes = {node.name for node in export.meta_graph.graph_def.node}
    problems = [
        f"signature {name!r} starts with __, which hides it from clients: name it otherwise"
        for name in sorted(export.meta_graph.signature_def)
        if name.startswith("__") and name not in _OF_TENSORFLOW
    ]
    for where, key, info in _iterate_tensors(public_signatures(export.meta_graph)):
        if key == "b64":
            problems.append(f'{where} reads as {{"b64": ...}}, which marks binary values in REST: rename it')
        if info.name and info.name.partition(":")[0] not in nodes:
            problems.append(f"{where} is tensor {info.name}, which is not in the graph: export again")
    return problems


def lint_methods(export):
    """Finds signatures that the API that their method name promises them to cannot call."""
    problems = []
    for name, signature in sorted(public_signatures(export.meta_graph).items()):
        fault = _find_method_fault(signature)
        if fault:
            problems.append(f"signature {name!r} has the method name {signature.method_name}, but {fault}")
    return problems


def _iterate_tensors(signatures):
    for name, signature in sorted(signatures.items()):
        for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
            for key, info in sorted(tensors.items()):
                yield f"{kind} {key!r} of signature {name!r}", key, info


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


def _find_method_fault(signature):
    method = signature.method_name
    if method == PREDICT:
        return None
    if method not in (CLASSIFY, REGRESS):
        return (
            "the server knows tensorflow/serving/predict, classify and regress: export it with one of these"
        )
    if set(signature.inputs) != {"inputs"} or signature.inputs["inputs"].dtype != tf.string.as_datatype_enum:
        return (
            f"takes {', '.join(sorted(signature.inputs)) or 'nothing'}: that API sends serialized tf.Example "
            "to one <string>[batch] input named inputs"
        )
    found = sorted(signature.outputs)
    if method == REGRESS:
        return None if found == ["outputs"] else f"returns {', '.join(found)}: that API reads outputs alone"
    if not found or not set(found) <= {"classes", "scores"}:
        return f"returns {', '.join(found) or 'nothing'}: that API reads classes and scores, and no others"
    expected = {"classes": tf.string, "scores": tf.float32}
    for key, info in sorted(signature.outputs.items()):
        if info.dtype != expected[key].as_datatype_enum or len(info.tensor_shape.dim) != 2:
            return f"output {key!r} is not <{expected[key].name}>[batch, classes]"
    return None
