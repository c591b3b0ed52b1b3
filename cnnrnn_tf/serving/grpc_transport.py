"""Rows of a signature's inputs enter; TensorFlow Serving's rows of outputs leave, over its gRPC API.

Its messages hold TensorFlow's, so this imports TensorFlow, which takes seconds; REST does not.
"""

from cnnrnn_tf.serving.transport_errors import ServerUnavailable, ServingError, describe_timeout, one_line
from tfrecords.errors import UserError
from tfrecords.quiet import silence_native_stderr

try:
    with silence_native_stderr():
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
except ImportError as error:
    raise UserError(
        f"a gRPC client needs a package that is missing ({error}): pip install 'cnnrnn-tf[serving]'"
    ) from None

_TRY_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_CHANNEL = [
    ("grpc.max_send_message_length", -1),  # photographs: 4 MB, the default, holds one or two
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # the client itself tries again
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class GrpcTransport:
    """The gRPC API at host:port. Threads may share the object."""

    def __init__(self, target, timeout_s):
        """Connects to nothing yet.

        Args:
            target: host:port.
            timeout_s: seconds after which a request that has no answer is given up.
        """
        self._url, self._timeout_s = f"grpc://{target}", timeout_s
        self._channel = grpc.insecure_channel(target, options=_CHANNEL)
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, model, version, signature, inputs):
        """Does what `RestTransport.predict` does."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        if version is not None:
            request.model_spec.version.value = version
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(_to_proto(values))
        try:
            response = self._service.Predict(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._describe(error) from None
        try:
            return _read_rows({name: tf.make_ndarray(proto) for name, proto in response.outputs.items()})
        except (TypeError, ValueError):
            raise ServingError(
                f"{self._url} answers without a row of each output for each image: the model is no tagger"
            ) from None

    def _describe(self, error):
        code, reason = error.code(), one_line(error.details() or "no reason given")
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return describe_timeout(self._url, self._timeout_s)
        if code == grpc.StatusCode.UNAVAILABLE and "connect" in reason:
            _, _, reason = reason.rpartition(": ")  # the chain's last link
            return ServerUnavailable(
                f"no server at {self._url} ({reason}): start it, or correct the URL; for a REST port write "
                "http:// before it"
            )
        kind = ServerUnavailable if code in _TRY_AGAIN else ServingError
        return kind(f"{self._url} answers {code.name}: {reason}")


def _to_proto(values):
    leaf = values[0][0] if isinstance(values[0], list) else values[0]
    dtype = {bytes: tf.string, str: tf.string, int: tf.int32, float: tf.float32}[type(leaf)]
    return tf.make_tensor_proto(values, dtype)


def _read_rows(outputs):
    """{name: array} -> [{name: value}], as JSON would have them."""
    columns = [_read_column(array) for array in outputs.values()]
    return [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]


def _read_column(array):
    return _decode(array.tolist()) if array.dtype == object else array.tolist()


def _decode(value):
    return [_decode(each) for each in value] if isinstance(value, list) else value.decode(errors="replace")
