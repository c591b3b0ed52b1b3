"""The warm-up requests of an export: the server's own protos read them, and the export answers them."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_model import VOCABULARY, make_model

from cnnrnn_tf.config import DecodingConfig
from cnnrnn_tf.serving import fresh_process
from cnnrnn_tf.serving.export import BACKBONE, DECODER, export
from cnnrnn_tf.serving.warmup import _field, _varint

prediction_log_pb2 = pytest.importorskip(
    "tensorflow_serving.apis.prediction_log_pb2", reason="needs tensorflow-serving-api (extra [serving])"
)

SIGNATURES = ["classify", "embed", "scores", "serving_default", "tag", "tag_given"]


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def version(model, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("export")
    return export(model, VOCABULARY, DecodingConfig(max_length=3), out_dir, warmup_batch_size=4)


def read_requests(version):
    """[(signature name, request)] as the server reads them: one PredictionLog a record."""
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    requests = [getattr(log, log.WhichOneof("log_type")).request for log in logs]
    return [(request.model_spec.signature_name, request) for request in requests]


def read_inputs(request):
    if request.DESCRIPTOR.name == "ClassificationRequest":
        examples = request.input.example_list.examples
        return {"inputs": np.array([example.SerializeToString() for example in examples], object)}
    return {key: tf.make_ndarray(proto) for key, proto in request.inputs.items()}


def test_every_signature_is_warmed_up_with_one_row_and_with_several(version):
    found = [
        (name, request.DESCRIPTOR.name, {len(rows) for rows in read_inputs(request).values()})
        for name, request in read_requests(version)
    ]
    kinds = {name: "ClassificationRequest" if name == "classify" else "PredictRequest" for name in SIGNATURES}
    assert found == [(name, kinds[name], {num_rows}) for num_rows in (1, 4) for name in SIGNATURES]


def test_the_requests_have_nothing_that_the_server_s_protos_do_not_know(version):
    for _, request in read_requests(version):
        assert request.FromString(request.SerializeToString()) == request
        assert request.model_spec.name == "" and not request.model_spec.HasField("version")
        copy = type(request).FromString(request.SerializeToString())
        copy.DiscardUnknownFields()
        assert copy == request


def test_the_export_answers_each_request_and_every_row_is_valid(version):
    requests = read_requests(version)
    calls = [(name, read_inputs(request)) for name, request in requests]
    answers = fresh_process.run_calls(fresh_process.C_API, version, calls)["calls"]
    for (name, inputs), outputs in zip(calls, answers, strict=True):
        assert not isinstance(outputs, str), f"{name}: {outputs}"
        num_rows = len(next(iter(inputs.values())))
        assert all(len(rows) == num_rows for rows in outputs.values())
        if name != "classify":
            assert outputs["error"].tolist() == [b""] * num_rows, name


@pytest.mark.parametrize(("part", "names"), [(BACKBONE, ["serving_default"]), (DECODER, SIGNATURES[1:])])
def test_half_a_model_is_warmed_up_as_well(model, tmp_path, part, names):
    version = export(
        model, VOCABULARY, DecodingConfig(max_length=3), tmp_path, part=part, warmup_batch_size=2
    )
    requests = read_requests(version)
    assert [name for name, _ in requests] == names * 2
    calls = [(name, read_inputs(request)) for name, request in requests]
    answers = fresh_process.run_calls(fresh_process.C_API, version, calls)["calls"]
    assert [outputs["valid"].all() for outputs in answers] == [True] * len(calls)


def test_a_batch_of_one_gives_one_request_a_signature(model, tmp_path):
    decoding = DecodingConfig(max_length=3)
    version = export(model, VOCABULARY, decoding, tmp_path, part=BACKBONE, warmup_batch_size=1)
    assert [name for name, _ in read_requests(version)] == ["serving_default"]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**21 - 1, 2**21, 2**35])
def test_varints_are_those_of_protocol_buffers(value):
    timestamp = pytest.importorskip("google.protobuf.wrappers_pb2").UInt64Value(value=value)
    assert timestamp.SerializeToString() == (b"\x08" + _varint(value) if value else b"")


def test_a_field_is_a_tag_a_length_and_the_content():
    assert _field(1, b"ab") == b"\x0a\x02ab"
    assert _field(16, b"") == b"\x82\x01\x00"
