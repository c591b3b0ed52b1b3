"""Rows of a signature's inputs enter; TensorFlow Serving's rows of outputs leave, over its gRPC API.

Its messages hold TensorFlow's, so this imports TensorFlow, which takes seconds; REST does not.
"""

from cnnrnn_tf.serving.transport_errors import (
    RequestRefused,
    ServerUnavailable,
    ServingError,
    describe_timeout,
    one_line,
)
from tfrecords.errors import UserError
from tfrecords.quiet import silence_native_stderr

try:
    with silence_native_stderr():
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc
except ImportError as error:
    raise UserError(
        f"a gRPC client needs a package that is missing ({error}): pip install 'cnnrnn-tf[serving]'"
    ) from None

_TRY_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
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
            request.inputs[name].CopyFrom(_to_proto(name, values))
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

    def list_inputs(self, model, version, signature):
        """Does what `RestTransport.list_inputs` does."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        found = get_model_metadata_pb2.SignatureDefMap()
        try:
            answer = self._service.GetModelMetadata(request, timeout=self._timeout_s)
        except grpc.RpcError:
            return None
        answer.metadata["signature_def"].Unpack(found)
        return sorted(found.signature_def[signature].inputs) if signature in found.signature_def else None

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
        kind = RequestRefused if code in _REFUSED else ServingError
        kind = ServerUnavailable if code in _TRY_AGAIN else kind
        return kind(f"{self._url} answers {code.name}: {reason}")


def _to_proto(name, values):
    leaf = values
    while isinstance(leaf, list) and leaf:
        leaf = leaf[0]
    dtype = {bytes: tf.string, str: tf.string, int: tf.int32, float: tf.float32}.get(type(leaf), tf.float32)
    try:
        return tf.make_tensor_proto(values, dtype)
    except (TypeError, ValueError):
        raise UserError(f"{name}: its rows differ in type or length; send them alike") from None


def _read_rows(outputs):
    """{name: array} -> [{name: value}], as JSON would have them."""
    columns = [_read_column(array) for array in outputs.values()]
    return [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]


def _read_column(array):
    return _decode(array.tolist()) if array.dtype == object else array.tolist()


def _decode(value):
    return [_decode(each) for each in value] if isinstance(value, list) else value.decode(errors="replace")
