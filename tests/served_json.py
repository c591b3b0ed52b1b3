"""JSON of TensorFlow Serving's REST API enters as arrays, and outputs leave as its JSON: for the stand-in."""

import base64
import binascii
import json

import numpy as np
from served_model import DTYPES, ServerError


def read_instances(rows, signature):
    """Row format: a list of values of the only input, or of objects that name every input."""
    if not isinstance(rows, list) or not rows:
        raise ServerError(
            "INVALID_ARGUMENT", f"JSON Value: {short(rows)} Excepting 'instances' to be an list/array"
        )
    are_objects = is_object(rows[0])
    if not are_objects and len(signature.inputs) > 1:
        raise ServerError(
            "INVALID_ARGUMENT",
            "instances is a plain list, but expecting list of objects as multiple input tensors required as "
            "per tensorinfo_map",
        )
    columns = {name: [] for name in signature.inputs}
    for i, row in enumerate(rows):
        if is_object(row) != are_objects:
            raise ServerError("INVALID_ARGUMENT", f"Expecting object but got list at item {i} of input list")
        if are_objects and set(row) != set(columns):
            raise ServerError(
                "INVALID_ARGUMENT",
                f"Failed to process element: {i} of 'instances' list. JSON object: {short(row)} keys must be "
                f"equal to: {','.join(sorted(columns))}",
            )
        for name in columns:
            columns[name].append(row[name] if are_objects else row)
    return {name: read_tensor(values, signature.inputs[name].dtype) for name, values in columns.items()}


def read_columns(value, signature):
    """Column format: the only input's batch, or an object of batches."""
    if not is_object(value):
        if len(signature.inputs) > 1:
            raise ServerError("INVALID_ARGUMENT", "inputs is a plain value/list, but expecting an object")
        value = dict.fromkeys(signature.inputs, value)
    for name in signature.inputs:
        if name not in value:
            raise ServerError("INVALID_ARGUMENT", f"Missing named input: {name} in 'inputs' object.")
    return {name: read_tensor(value[name], info.dtype) for name, info in signature.inputs.items()}


def is_object(value):
    return isinstance(value, dict) and not (set(value) == {"b64"} and isinstance(value["b64"], str))


def read_tensor(value, dtype):
    """A JSON value as an array of TensorFlow's dtype; strict about shapes and types."""
    shape, inner = [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    leaves = list(read_leaves(value, tuple(shape), dtype))
    array = np.empty(len(leaves), DTYPES[dtype])
    array[:] = leaves
    return array.reshape(shape)


def read_leaves(value, shape, dtype):
    if isinstance(value, list):
        if not shape or len(value) != shape[0]:
            expected = shape[0] if shape else "none"
            raise ServerError(
                "INVALID_ARGUMENT",
                f"Encountered list at unexpected size: {len(value)} expected size: {expected}",
            )
        for each in value:
            yield from read_leaves(each, shape[1:], dtype)
    elif shape:
        raise ServerError("INVALID_ARGUMENT", f"JSON Value: {short(value)} found at incorrect level")
    else:
        yield read_leaf(value, DTYPES[dtype])


def read_leaf(value, dtype):
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if dtype == np.object_ and isinstance(value, dict) and not is_object(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error:
            raise ServerError("INVALID_ARGUMENT", "Unable to base64 decode") from None
    if dtype == np.object_ and isinstance(value, str):
        return value.encode()
    if dtype == np.float32 and is_number:
        return value
    if dtype in (np.int32, np.int64) and is_number and isinstance(value, int):
        return value
    if dtype == np.bool_ and isinstance(value, bool):
        return value
    raise ServerError(
        "INVALID_ARGUMENT", f"JSON Value: {short(value)} is not of expected type: {dtype.__name__}"
    )


def to_columns(outputs):
    """Column format: a batch of each output, without its name where it is the only one."""
    columns = {key: write_value(key, array) for key, array in sorted(outputs.items())}
    return columns if len(columns) > 1 else next(iter(columns.values()))


def to_rows(outputs):
    """Row format: an object of outputs for each row, or the values of the only output."""
    if len({len(array) for array in outputs.values()}) != 1:
        raise ServerError("INVALID_ARGUMENT", "Tensor name: ... has inconsistent batch size")
    columns = to_columns(outputs)
    if len(outputs) == 1:
        return columns
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write_value(name, value):
    """An array as JSON: floats with as few digits as float32 needs, text unless the name ends in `_bytes`."""
    if isinstance(value, np.ndarray):
        return [write_value(name, each) for each in value]
    if isinstance(value, bytes) and name.endswith("_bytes"):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")  # as it is, valid UTF-8 or not
    return float(str(value)) if isinstance(value, np.floating) else value.item()


def to_json(value):
    return json.dumps(value, ensure_ascii=False, indent=4).encode(errors="surrogateescape")


def short(value):
    return json.dumps(value)[:200]
