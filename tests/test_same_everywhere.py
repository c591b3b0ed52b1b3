"""One export, one answer: in Python, a TF1 session, the C API, REST and gRPC; alone, and with anything else.

REST and gRPC are those of the stand-in, which runs the export in TensorFlow's C library; see its docstring.
"""

import base64
import concurrent.futures
import json
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from served_model import Batcher, ServerError
from serving_stand_in import start_stand_in
from tensorflow_serving.apis import classification_pb2, prediction_service_pb2_grpc
from tiny_model import VOCABULARY, make_model, make_photograph

from cnnrnn_tf.config import DecodingConfig
from cnnrnn_tf.serving import client as client_module
from cnnrnn_tf.serving import grpc_transport
from cnnrnn_tf.serving.client import Client
from cnnrnn_tf.serving.export import export, load_export
from cnnrnn_tf.serving.fresh_process import C_API, TF1, run_calls
from cnnrnn_tf.serving.signatures import tag_files

GOOD = [
    make_photograph(seed, kind) for seed, kind in enumerate(["JPEG", "PNG", "GIF", "BMP", "JPEG", "JPEG"])
]
HUGE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\2\0\0\0"
BAD = [b"", b"not an image", GOOD[0][:300], GOOD[1][:-40], HUGE, b"\xff\xd8\xff" + b"\0" * 50]
FILES = [file for pair in zip(GOOD, BAD, strict=True) for file in pair]
GIVEN = [["boat"], ["été", "car"]]
BATCH_SIZES = (1, 3, 8)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("same") / "export"
    return export(make_model(), VOCABULARY, DecodingConfig(beam_size=4, min_length=1, max_length=3), folder)


@pytest.fixture(scope="module")
def loaded(version):
    return load_export(version)


@pytest.fixture(scope="module")
def alone(loaded):
    """Each file's answer in Python, tagged alone."""
    answers = list(tag_files(loaded, FILES, batch_size=1))
    assert [answer.valid for answer in answers] == [True, False] * len(GOOD)
    assert len({answer.labels for answer in answers if answer.valid}) > 2
    return answers


@pytest.fixture(scope="module")
def stand_in(version):
    with start_stand_in(version) as running:
        yield running


TRANSPORTS = pytest.mark.parametrize("transport", ["rest_url", "grpc_url"])


@pytest.fixture(scope="module")
def batching_stand_in(version):
    """Joins 8 rows, waits long for them, and pads nothing: as docs/serving/batching.config."""
    options = {
        "max_batch_size": 8,
        "batch_timeout_s": 30,
        "allowed_batch_sizes": [8],
    }
    with start_stand_in(version, "--batching", json.dumps(options)) as running:
        yield running


def expect_same(answers, expected):
    answers, expected = list(answers), list(expected)
    assert [(each.labels, each.error) for each in answers] == [(each.labels, each.error) for each in expected]
    for first, second in zip(answers, expected, strict=True):
        for key in ("probabilities", "step_probabilities", "path_probability"):
            np.testing.assert_allclose(getattr(first, key), getattr(second, key), rtol=1e-4, atol=1e-6)


def cut(rows, size):
    return [rows[i : i + size] for i in range(0, len(rows), size)]


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_python_gives_the_same_in_any_batch(loaded, alone, batch_size):
    expect_same(tag_files(loaded, FILES, batch_size=batch_size), alone)


@pytest.mark.parametrize("runner", [C_API, TF1], ids=["C API", "TF1"])
def test_the_loaders_of_a_server_give_the_same_in_any_batch(version, alone, runner):
    batches = [batch for size in BATCH_SIZES for batch in cut(FILES, size)]
    calls = [("serving_default", {"image_bytes": np.array(batch, object)}) for batch in batches]
    rows = [row for outputs in run_calls(runner, version, calls)["calls"] for row in read_rows(outputs)]
    expect_same(rows, alone * len(BATCH_SIZES))


def read_rows(outputs):
    return map(client_module._read_row, grpc_transport._read_rows(outputs))


@TRANSPORTS
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_a_client_is_given_the_same_in_any_batch(stand_in, alone, transport, batch_size):
    expect_same(Client(getattr(stand_in, transport), batch_size=batch_size).tag(FILES), alone)


@TRANSPORTS
def test_options_that_a_client_does_not_name_stay_as_exported(stand_in, loaded, alone, transport):
    def tag(beam_size, min_length, max_length, threshold):
        whole = {"beam_size": beam_size, "min_length": min_length, "max_length": max_length}
        inputs = {name: tf.constant([value] * len(FILES)) for name, value in whole.items()}
        inputs |= {"image_bytes": tf.constant(FILES), "threshold": tf.constant([threshold] * len(FILES))}
        outputs = loaded.signatures["tag"](**inputs)
        return read_rows({name: tensor.numpy() for name, tensor in outputs.items()})

    client = Client(getattr(stand_in, transport))
    expect_same(client.tag(FILES, threshold=0.0), alone)
    expect_same(client.tag(FILES, beam_size=1), tag(1, 1, 3, 0.0))
    expect_same(client.tag(FILES, min_length=3), tag(4, 3, 3, 0.0))
    expect_same(client.tag(FILES, max_length=1, threshold=0.5), tag(4, 1, 1, 0.5))
    (image,) = client.tag(GOOD[:1], beam_size=99)
    assert image.error == "beam_size 99: expected 1 to 10"


@TRANSPORTS
def test_scores_and_embeddings_are_python_s(stand_in, loaded, transport):
    client = Client(getattr(stand_in, transport))
    for signature, name in (("scores", "scores"), ("embed", "embedding")):
        expected = loaded.signatures[signature](image_bytes=tf.constant(FILES))
        rows = client.call(signature, {"image_bytes": FILES})
        np.testing.assert_allclose([row[name] for row in rows], expected[name], rtol=1e-4, atol=1e-6)
        assert [row["error"] for row in rows] == [each.decode() for each in expected["error"].numpy()]


def test_the_classify_api_answers_with_the_path_s_labels_by_rest_and_grpc(stand_in, alone):
    examples = [{"image/encoded": {"b64": base64.b64encode(file).decode()}} for file in FILES]
    body = json.dumps({"signature_name": "classify", "examples": examples}).encode()
    url = f"{stand_in.rest_url}/v1/models/tagger:classify"
    with urllib.request.urlopen(url, body, timeout=60) as response:
        by_rest = [[name for name, _ in row] for row in json.load(response)["results"]]
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "tagger", "classify"
    for file in FILES:
        feature = request.input.example_list.examples.add().features.feature["image/encoded"]
        feature.bytes_list.value.append(file)
    with grpc.insecure_channel(stand_in.grpc_url.removeprefix("grpc://")) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        rows = service.Classify(request, timeout=60).result.classifications
    by_grpc = [[each.label for each in row.classes] for row in rows]
    assert [tuple(name for name in row if name) for row in by_rest] == [image.labels for image in alone]
    assert by_rest == by_grpc


def test_concurrent_requests_that_a_server_joins_are_answered_as_if_alone(batching_stand_in, alone):
    before = len(batching_stand_in.read_log()["batch_sizes"])
    sent = [*range(len(FILES)), *range(4)]  # two full batches: none waits for more
    urls = (batching_stand_in.rest_url, batching_stand_in.grpc_url)
    clients = [Client(url, retries=0, batch_size=1) for url in urls]
    with concurrent.futures.ThreadPoolExecutor(len(sent)) as pool:
        answers = pool.map(lambda i: clients[i // 2 % 2].tag([FILES[i]])[0], sent)
        expect_same(answers, [alone[i] for i in sent])
    assert batching_stand_in.read_log()["batch_sizes"][before:] == [8, 8]


def test_given_labels_of_joined_requests_stay_with_their_own_rows(batching_stand_in, loaded):
    expected = [list(tag_files(loaded, GOOD[:4], given)) for given in GIVEN]
    before = len(batching_stand_in.read_log()["batch_sizes"])
    sent = [GIVEN[0], GIVEN[1] * 10]  # repetitions say nothing
    client = Client(batching_stand_in.rest_url, retries=0)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda given: client.tag(GOOD[:4], given), sent)
    assert batching_stand_in.read_log()["batch_sizes"][before:] == [8]
    expect_same(first + second, expected[0] + expected[1])
    assert any("été" not in image.labels for image in first)


def test_a_run_that_fails_fails_every_request_that_was_joined():
    """The stand-in's rule, as the server's: why a bad file must cost its row, and no more."""

    def run(inputs):
        if b"bad" in inputs["image_bytes"].tolist():
            raise ServerError("INVALID_ARGUMENT", "undecodable")
        return inputs

    def ask(file):
        try:
            return batcher.run({"image_bytes": np.array([file], object)})["image_bytes"].tolist()
        except ServerError as error:
            return error.message

    batcher = Batcher(run, max_batch_size=3, batch_timeout_s=5, allowed_batch_sizes=[3])
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, [b"1", b"2", b"3"])) == [[b"1"], [b"2"], [b"3"]]
        assert list(pool.map(ask, [b"1", b"bad", b"3"])) == ["undecodable"] * 3
