"""The warm-up file of an export enters; why TensorFlow Serving would refuse it, and its requests, leave.

    assets.extra/tf_serving_warmup_requests    a TFRecord of PredictionLog messages

The server sends these to itself before it says that a version is ready, and gives the version up if one
fails. The messages are read here by their field numbers, which spares users tensorflow-serving-api.
"""

from dataclasses import dataclass

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2

from cnnrnn_tf.serving.fresh_process import public_signatures
from cnnrnn_tf.serving.signature_lints import CLASSIFY, REGRESS
from tfrecords.errors import nearest
from tfrecords.framing import DamagedFile, read_records

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000  # the server refuses more

_LOGS = {2: "classify", 3: "regress", 4: "multi_inference", 5: "session_run", 6: "predict", 7: "streamed"}
_METHODS = {"classify": CLASSIFY, "regress": REGRESS}
_VARINT, _LENGTH = 0, 2
_FIXED_SIZES = {1: 8, 5: 4}


@dataclass(frozen=True)
class WarmupRequest:
    """What a record asks: `kind` is "predict", "classify", "regress" or another of PredictionLog's."""

    kind: str
    signature: str
    inputs: dict
    """{input name: array} of a predict request."""


def lint_warmup(export):
    """Finds what is wrong with the warm-up file; an export may be without one."""
    path = export.path / WARMUP_FILE
    if not path.is_file():
        return []
    signatures = public_signatures(export.meta_graph)
    problems, num_records = [], 0
    try:
        for _, data in read_records(path):
            num_records += 1
            try:
                fault = _find_fault(parse_request(data), signatures)
            except (ValueError, DecodeError) as error:
                fault = f"is no PredictionLog ({error})"
            if fault:
                problems.append(f"{WARMUP_FILE}: record {num_records} {fault}")
    except DamagedFile as error:
        problems.append(f"{WARMUP_FILE} is damaged: {error}; export again")
    if num_records > MAX_RECORDS:
        problems.append(
            f"{WARMUP_FILE} has {num_records} records, and the server takes {MAX_RECORDS} at most"
        )
    return problems


def read_warmup(export):
    """Yields the WarmupRequests of an export whose file the lint finds good; none where there is no file."""
    path = export.path / WARMUP_FILE
    if path.is_file():
        for _, data in read_records(path):
            yield parse_request(data)


def parse_request(data):
    """Returns the WarmupRequest of a serialized PredictionLog.

    Raises:
        ValueError: it is none.
    """
    logs = [
        (kind, value)
        for number, values in _read_fields(data).items()
        if (kind := _LOGS.get(number))
        for value in values
    ]
    if len(logs) != 1:
        raise ValueError(f"{len(logs)} requests in it")
    [(kind, log)] = logs
    request = _read_fields(_only(_read_fields(log), 1))
    spec = _read_fields(_only(request, 1))
    signature = _only(spec, 3).decode() or "serving_default"
    inputs = {}
    if kind == "predict":
        for entry in map(_read_fields, request.get(2, [])):
            tensor = tensor_pb2.TensorProto.FromString(_only(entry, 2))
            inputs[_only(entry, 1).decode()] = tf.make_ndarray(tensor)
    return WarmupRequest(kind, signature, inputs)


def _find_fault(request, signatures):
    if request.kind not in ("predict", *_METHODS):
        return None  # for other APIs than this project's
    signature = signatures.get(request.signature)
    if signature is None:
        meant = nearest(request.signature, signatures)
        return f"calls signature {request.signature!r}, which is not there{meant}"
    if request.kind in _METHODS:
        if signature.method_name == _METHODS[request.kind]:
            return None
        method = signature.method_name
        return f"is a {request.kind} request for {request.signature!r}, whose method name is {method}"
    if set(request.inputs) != set(signature.inputs):
        expected, arrived = (
            ", ".join(sorted(each)) or "nothing" for each in (signature.inputs, request.inputs)
        )
        return f"gives {request.signature!r} {arrived}: it takes {expected}"
    for key, array in sorted(request.inputs.items()):
        dtype = tf.as_dtype(array.dtype)
        info = signature.inputs[key]
        shape = tf.TensorShape(info.tensor_shape)
        if dtype.as_datatype_enum != info.dtype or not shape.is_compatible_with(array.shape):
            expected = f"<{tf.as_dtype(info.dtype).name}>{shape}"
            arrived = f"<{dtype.name}>{list(array.shape)}"
            return f"gives input {key!r} of {request.signature!r} {arrived}: it takes {expected}"
    return None


def _only(fields, number):
    """The last value of a field, as protocol buffers have it; empty where there is none."""
    value = fields.get(number, [b""])[-1]
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} is a number")
    return value


def _read_fields(data):
    """Returns {field number: [value]} of a serialized message: bytes, or int for a number.

    >>> _read_fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69]))
    {1: [150], 2: [b'hi']}
    """
    fields, position = {}, 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _read_varint(data, position)
        else:
            if kind == _LENGTH:
                size, position = _read_varint(data, position)
            elif kind in _FIXED_SIZES:
                size = _FIXED_SIZES[kind]
            else:
                raise ValueError(f"wire type {kind}")
            value, position = data[position : position + size], position + size
            if position > len(data):
                raise ValueError("cut off")
        fields.setdefault(number, []).append(value)
    return fields


def _read_varint(data, position):
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 10 bytes")
