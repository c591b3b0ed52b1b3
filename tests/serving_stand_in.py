"""An export enters; a process leaves that speaks TensorFlow Serving's REST and gRPC APIs over it.

    python tests/serving_stand_in.py EXPORT --rest-port 8501 --grpc-port 8500

It stands in for the server in tests of clients. It proves a client, not TensorFlow Serving: paths, messages,
rules of batching and words of errors are written after the server's, and the export runs in the C library
that the server links; all else is ours. Faults for the next requests are posted to /stand-in/faults, a JSON
list of:

    unavailable, exhausted, internal   503, 429, 500 and their gRPC codes
    hang       no answer for 5 s
    close      the connection ends without an answer (gRPC: UNAVAILABLE)
    page       a proxy's HTML in the place of an answer (REST alone)
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from served_json import (
    read_columns,
    read_instances,
    read_leaf,
    short,
    to_columns,
    to_json,
    to_rows,
    write_value,
)
from served_model import DEFAULT_SIGNATURE, DTYPES, ServedModel, ServerError, import_protos

ROOT = Path(__file__).parents[1]
HANG_S = 5
HTTP_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}
FAULTS = {"unavailable": "UNAVAILABLE", "exhausted": "RESOURCE_EXHAUSTED", "internal": "INTERNAL"}
CLASSIFY = "tensorflow/serving/classify"


# ---- for tests: the process


@dataclass
class StandIn:
    """A stand-in that runs."""

    rest_url: str
    grpc_url: str
    pid: int

    def fail_next(self, *faults):
        """Sets what happens to the next requests, one each."""
        self._post("faults", list(faults))

    def read_log(self):
        """Returns {"requests": how many arrived, "batch_sizes": rows of each run, "tensorflow": modules}."""
        return self._post("log", None)

    def _post(self, name, value):
        request = urllib.request.Request(f"{self.rest_url}/stand-in/{name}", json.dumps(value).encode())
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)


@contextlib.contextmanager
def start_stand_in(export_dir, *flags):
    """Runs this file on an export, on ports of its own, until the block ends."""
    command = [sys.executable, __file__, str(export_dir), "--rest-port", "0", "--grpc-port", "0", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the stand-in ended with status {process.wait()}")
        ports = json.loads(line)
        yield StandIn(f"http://127.0.0.1:{ports['rest']}", f"grpc://127.0.0.1:{ports['grpc']}", process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# ---- REST


class RestHandler(BaseHTTPRequestHandler):
    """The server's HTTP paths, and /stand-in/."""

    protocol_version = "HTTP/1.1"
    model = faults = None  # set by `serve_rest`

    def do_GET(self):
        found = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(/metadata)?", self.path)
        self._answer(lambda: self._describe(*found.groups()) if found else self._refuse())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path.startswith("/stand-in/"):
            return self._reply(200, self._control(json.loads(body)))
        fault = self.faults.take()
        if fault == "close":
            self.close_connection = True
            return None
        if fault == "page":
            return self._reply(502, b"<html>\n<h1>Bad gateway</h1>\n</html>", "text/html")
        found = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:(predict|classify)", self.path)
        self._answer(lambda: self._run(found, body, fault) if found else self._refuse())

    def log_message(self, *words):
        """Nothing is logged."""

    def _refuse(self):
        raise ServerError("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")

    def _answer(self, answer):
        try:
            self._reply(200, to_json(answer()))
        except ServerError as error:
            self._reply(HTTP_STATUSES[error.code], to_json({"error": error.message}))

    def _reply(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _control(self, value):
        if self.path == "/stand-in/faults":
            self.faults.next = list(value)
        loaded = [name for name in sys.modules if name.startswith(("tensorflow.python", "keras"))]
        return to_json(
            {
                "requests": self.faults.num_requests,
                "batch_sizes": self.model.batch_sizes,
                "tensorflow": loaded,
            }
        )

    def _describe(self, name, version, metadata):
        self.model.check(name, version and int(version))
        if not metadata:
            status = {"error_code": "OK", "error_message": ""}
            version = {"version": str(self.model.version), "state": "AVAILABLE", "status": status}
            return {"model_version_status": [version]}
        from google.protobuf import json_format

        signatures = {
            key: json_format.MessageToDict(each, preserving_proto_field_name=True)
            for key, each in self.model.signatures.items()
        }
        spec = {"name": name, "signature_name": "", "version": str(self.model.version)}
        return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}

    def _run(self, found, body, fault):
        name, version, method = found.groups()
        self.faults.raise_or_wait(fault)
        self.model.check(name, version and int(version))
        try:
            request = json.loads(body)
        except ValueError as error:
            raise ServerError("INVALID_ARGUMENT", f"JSON Parse error: {error}") from None
        if not isinstance(request, dict):
            raise ServerError("INVALID_ARGUMENT", f"JSON Value: {short(request)} Is not object")
        signature_name = request.get("signature_name") or DEFAULT_SIGNATURE
        if signature_name not in self.model.signatures:
            raise ServerError(
                "INVALID_ARGUMENT", f'Serving signature name: "{signature_name}" not found in signature def'
            )
        if method == "classify":
            return {"results": classify(self.model, signature_name, read_examples(request))}
        signature = self.model.signatures[signature_name]
        if ("instances" in request) == ("inputs" in request):
            raise ServerError("INVALID_ARGUMENT", "Missing 'inputs' or 'instances' key")
        if "instances" in request:
            outputs = self.model.predict(signature_name, read_instances(request["instances"], signature))
            return {"predictions": to_rows(outputs)}
        outputs = self.model.predict(signature_name, read_columns(request["inputs"], signature))
        return {"outputs": to_columns(outputs)}


class RestServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that hung up is no fault of the server's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve_rest(model, faults, port):
    RestHandler.model, RestHandler.faults = model, faults
    server = RestServer(("127.0.0.1", port), RestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


# ---- Classify


def read_examples(request):
    """The Classify API's JSON examples as serialized tf.Examples."""
    from tensorflow.core.example import example_pb2

    if not request.get("examples"):
        raise ServerError("INVALID_ARGUMENT", "When method is classify, key 'examples' is expected")
    serialized = []
    for features in request["examples"]:
        example = example_pb2.Example()
        for name, values in features.items():
            for value in values if isinstance(values, list) else [values]:
                example.features.feature[name].bytes_list.value.append(read_leaf(value, np.object_))
        serialized.append(example.SerializeToString())
    return serialized


def classify(model, signature_name, examples):
    """Returns [[class, score]] for each example."""
    method = model.signatures[signature_name].method_name
    if method != CLASSIFY:
        raise ServerError(
            "INVALID_ARGUMENT",
            f"Expected classification signature method_name to be {CLASSIFY}. Was: {method}",
        )
    outputs = model.predict(signature_name, {"inputs": np.array(examples, object)})
    rows = zip(outputs["classes"], outputs["scores"], strict=True)
    return [
        [
            [write_value("classes", name), write_value("scores", score)]
            for name, score in zip(*row, strict=True)
        ]
        for row in rows
    ]


# ---- gRPC


def serve_grpc(model, faults, port):
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    pool = concurrent.futures.ThreadPoolExecutor(32)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(pool, options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(make_servicer(model, faults), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return port, server  # it ends when it is forgotten


def make_servicer(model, faults):
    import grpc
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    def find_signature(request, context, answer):
        """Runs `answer(signature name)`, or ends the call with the server's error."""
        fault = faults.take()
        spec = request.model_spec
        try:
            faults.raise_or_wait(fault)
            if fault == "close":
                raise ServerError("UNAVAILABLE", "Socket closed")
            model.check(spec.name, spec.version.value if spec.HasField("version") else None)
            name = spec.signature_name or DEFAULT_SIGNATURE
            if name not in model.signatures:
                raise ServerError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
            return answer(name)
        except ServerError as error:
            context.abort(getattr(grpc.StatusCode, error.code), error.message)

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            def answer(name):
                inputs = {key: from_proto(proto) for key, proto in request.inputs.items()}
                response = predict_pb2.PredictResponse()
                for key, array in model.predict(name, inputs).items():
                    fill_proto(response.outputs[key], array)
                response.model_spec.name, response.model_spec.signature_name = model.name, name
                response.model_spec.version.value = model.version
                return response

            return find_signature(request, context, answer)

        def Classify(self, request, context):
            def answer(name):
                examples = [each.SerializeToString() for each in request.input.example_list.examples]
                response = classification_pb2.ClassificationResponse()
                for row in classify(model, name, examples):
                    classes = response.result.classifications.add().classes
                    for label, score in row:
                        classes.add(label=label, score=score)
                return response

            return find_signature(request, context, answer)

        def GetModelMetadata(self, request, context):
            def answer(name):
                signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=model.signatures)
                response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
                response.metadata["signature_def"].Pack(signatures)
                return response

            return find_signature(request, context, answer)

    return Servicer()


def from_proto(proto):
    shape = [dim.size for dim in proto.tensor_shape.dim]
    dtype = DTYPES[proto.dtype]
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    fields = {1: "float_val", 3: "int_val", 7: "string_val", 9: "int64_val", 10: "bool_val"}
    values = list(getattr(proto, fields[proto.dtype]))
    size = int(np.prod(shape, dtype=int))
    array = np.empty(size, dtype)
    array[:] = values + values[-1:] * (size - len(values))  # the last value stands for all further ones
    return array.reshape(shape)


def fill_proto(proto, array):
    fields = {
        np.float32: "float_val",
        np.int32: "int_val",
        np.object_: "string_val",
        np.int64: "int64_val",
        np.bool_: "bool_val",
    }
    proto.dtype = next(number for number, dtype in DTYPES.items() if array.dtype == dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, fields[DTYPES[proto.dtype]]).extend(array.ravel().tolist())


# ---- the process itself


class Faults:
    """What is to go wrong with the next requests."""

    def __init__(self):
        self.next, self.num_requests, self._lock = [], 0, threading.Lock()

    def take(self):
        with self._lock:
            self.num_requests += 1
            return self.next.pop(0) if self.next else None

    def raise_or_wait(self, fault):
        if fault in FAULTS:
            raise ServerError(FAULTS[fault], f"the stand-in was told to be\n{fault}")
        if fault == "hang":
            time.sleep(HANG_S)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("export", type=Path, help="folder of an export, or of its versions")
    parser.add_argument("--rest-port", type=int, default=8501)
    parser.add_argument("--grpc-port", type=int, default=8500)
    parser.add_argument("--model", default="tagger", help="the name to serve it by")
    parser.add_argument("--batching", type=json.loads, help="JSON of served_model.Batcher's options")
    words = parser.parse_args()
    import_protos()
    model, faults = ServedModel(words.export, words.model, words.batching), Faults()
    grpc_port, server = serve_grpc(model, faults, words.grpc_port)
    rest_port = serve_rest(model, faults, words.rest_port)
    print(json.dumps({"rest": rest_port, "grpc": grpc_port}), flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
