"""An export's signatures enter; the requests leave that TensorFlow Serving runs before the first client's.

The server reads them, one after the other, from `assets.extra/tf_serving_warmup_requests`, a TFRecord of
PredictionLog protos, and takes the version into use once all have been answered; one that fails, such as one
of more rows than `max_batch_size`, keeps the version from loading. Of a request's `model_spec` it reads the
name of the signature; the model's name may be anything, and stays empty.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnrnn_tf.serving.example_inputs import draw_photograph
from cnnrnn_tf.serving.examples import make_example
from cnnrnn_tf.serving.signatures import CLASSIFY

FOLDER = "assets.extra"
FILE_NAME = "tf_serving_warmup_requests"
DEFAULT_BATCH_SIZE = 8
_PHOTOGRAPH_PX = (480, 640)  # height, width: decoding is warmed up along


def write_warmup_requests(export_dir, functions, max_length, batch_size=DEFAULT_BATCH_SIZE):
    """Writes requests of one row and of `batch_size` rows for every function.

    Args:
        export_dir: the version folder.
        functions: {signature name: concrete function}, as they are exported.
        max_length: the most labels on a path.
        batch_size: rows of the larger request; the server's `max_batch_size` must allow as many.

    Returns:
        The number of requests.
    """
    logs = [
        _make_log(name, function, num_rows, max_length)
        for num_rows in sorted({1, batch_size})
        for name, function in sorted(functions.items())
    ]
    folder = Path(export_dir) / FOLDER
    folder.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / FILE_NAME)) as writer:
        for log in logs:
            writer.write(log)
    return len(logs)


def find_inputs(function):
    """Returns {name: TensorSpec} of what a concrete function takes, in order."""
    return {spec.name: spec for spec in tf.nest.flatten(function.structured_input_signature)}


def _make_log(name, function, num_rows, max_length):
    """Returns a serialized PredictionLog."""
    if name == CLASSIFY:
        return _field(2, _field(1, _make_classify_request(name, num_rows)))  # classify_log.request
    inputs = {
        key: _make_input(key, spec, num_rows, max_length) for key, spec in find_inputs(function).items()
    }
    return _field(6, _field(1, _make_predict_request(name, inputs)))  # predict_log.request


def _make_predict_request(name, inputs):
    entries = [
        _field(2, _field(1, key.encode()) + _field(2, tf.make_tensor_proto(value).SerializeToString()))
        for key, value in inputs.items()
    ]
    return _make_model_spec(name) + b"".join(entries)  # model_spec, inputs


def _make_classify_request(name, num_rows):
    example = make_example(draw_photograph(*_PHOTOGRAPH_PX))
    examples = _field(1, example) * num_rows  # ExampleList.examples
    return _make_model_spec(name) + _field(2, _field(1, examples))  # model_spec, input.example_list


def _make_model_spec(name):
    return _field(1, _field(3, name.encode()))  # model_spec.signature_name


def _make_input(key, spec, num_rows, max_length):
    if key == "image_bytes":
        return np.array([draw_photograph(*_PHOTOGRAPH_PX)] * num_rows, object)
    if key in ("given", "absent"):
        return np.array([""] * num_rows, object)
    if key == "features":
        return np.zeros([num_rows, spec.shape[1]], np.float32)
    value = {"beam_size": 1, "min_length": 0, "max_length": max_length, "threshold": 0.0}[key]
    return np.full([num_rows], value, spec.dtype.as_numpy_dtype)


def _field(number, content):
    """Returns bytes as a length-delimited field of a protocol buffer.

    The messages are those of tensorflow_serving/apis: prediction_log.proto, predict.proto,
    classification.proto, input.proto and model.proto. Their package is heavy, and clients alone need it.
    """
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
