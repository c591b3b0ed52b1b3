"""`cnnrnn client` and the class below it, against a stand-in for TensorFlow Serving (serving_stand_in.py)."""

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from serving_stand_in import start_stand_in
from tiny_model import VOCABULARY, make_photograph

from cnnrnn_tf.commands import predict
from cnnrnn_tf.commands.__main__ import main
from cnnrnn_tf.commands.client import Client as ClientCommand
from cnnrnn_tf.serving import client as client_module
from cnnrnn_tf.serving.client import Client, ServerUnavailable, ServingError
from cnnrnn_tf.serving.tagged_image import TaggedImage
from tfrecords.errors import UserError

ROOT = Path(__file__).parents[1]
TRANSPORTS = ("rest_url", "grpc_url")
PHOTOGRAPHS = [make_photograph(seed) for seed in range(5)]


@pytest.fixture(scope="module")
def stand_in(tiny_export):
    with start_stand_in(tiny_export) as running:
        yield running


@pytest.fixture
def count(stand_in):
    """Returns how many requests arrived since the test began."""
    before = stand_in.read_log()["requests"]
    yield lambda: stand_in.read_log()["requests"] - before
    stand_in.fail_next()


@pytest.fixture(params=TRANSPORTS)
def connect(request, stand_in):
    """A client by each transport, quick to try again."""
    url = getattr(stand_in, request.param)
    return lambda **options: Client(url, **{"first_wait_s": 0.01} | options)


@pytest.fixture
def photos(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(PHOTOGRAPHS[i])
    return tmp_path


# ---- what is sent, and what comes back


def test_images_are_sent_in_batches_and_come_back_in_order(connect, stand_in):
    together = connect().tag(PHOTOGRAPHS)
    before = len(stand_in.read_log()["batch_sizes"])
    assert [image.labels for image in connect(batch_size=2).tag(iter(PHOTOGRAPHS))] == [
        image.labels for image in together
    ]
    assert stand_in.read_log()["batch_sizes"][before:] == [2, 2, 1]
    assert len({image.labels for image in together}) > 1
    assert connect().tag([]) == []


def test_large_images_make_smaller_batches(monkeypatch):
    monkeypatch.setattr(client_module, "_MAX_BATCH_BYTES", 10)
    files = [b"x" * size for size in (4, 6, 1, 30, 2, 3, 3)]
    batches = client_module._batch(files, batch_size=3)
    assert [[len(file) for file in batch] for batch in batches] == [[4, 6], [1], [30], [2, 3, 3]]


def test_a_bad_file_costs_its_own_row(connect):
    images = connect().tag([PHOTOGRAPHS[0], b"", b"no image", PHOTOGRAPHS[1]])
    assert [image.error for image in images] == ["", "empty", "not an image", ""]
    alone = connect().tag(PHOTOGRAPHS[:2])
    assert [images[0].labels, images[3].labels] == [image.labels for image in alone]


def test_given_labels_are_in_every_answer_and_an_unknown_one_is_each_row_s_error(connect):
    images = connect().tag(PHOTOGRAPHS[:2], given=["été", "car"])
    assert all({"été", "car"} <= set(image.labels) for image in images)
    assert {image.error for image in connect().tag(PHOTOGRAPHS[:2], given=["skie"])} == {
        "unknown label 'skie' in given: send names of assets/labels.txt, joined by newlines"
    }


class Recorder:
    """A transport that keeps what it is to send, and answers that no image is one."""

    def __init__(self):
        self.requests = []

    def predict(self, model, version, signature, inputs):
        self.requests.append((model, version, signature, inputs))
        row = {"labels": [], "probabilities": [], "step_probabilities": [], "num_labels": 0}
        return [row | {"path_probability": 0.0, "error": "no"}] * len(inputs["image_bytes"])


def test_given_labels_with_commas_are_told_apart_by_the_labels_of_the_server(
    stand_in, photos, capsys, monkeypatch
):
    assert Client(stand_in.rest_url).read_labels() == list(VOCABULARY.names)
    monkeypatch.setattr(Client, "read_labels", lambda self: ["sky, sea", "boat"])
    sent = []

    def tag_each(self, files, given, options, absent):
        sent.append(given)
        return (TaggedImage((), (), (), 0.5) for _ in files)

    monkeypatch.setattr(Client, "tag_each", tag_each)
    for words in (["sky, sea,boat"], ["sky, sea", "--given", "boat"]):
        assert main(["client", "--url", stand_in.rest_url, str(photos), "--given", *words]) == 0
    assert sent == [["sky, sea", "boat"]] * 2
    with pytest.raises(UserError, match=r"unknown label 'bota' \(did you mean 'boat'\?\)"):
        ClientCommand(url=stand_in.rest_url, images=(str(photos),), given=("sky, sea,bota",)).run()


def test_the_most_probable_labels_come_by_the_same_flag_as_from_predict(connect, tiny_export):
    client = connect()
    (image,) = client.tag_each(PHOTOGRAPHS[:1], options={"top_k": 2})
    (row,) = client.call("scores", {"image_bytes": PHOTOGRAPHS[:1]})
    best = sorted(range(VOCABULARY.size), key=lambda place: -row["ranking"][place])[:2]
    assert image.labels == tuple(VOCABULARY.names[place] for place in best)
    assert image.path_probability is None and image.valid
    (bad,) = client.tag_each([b"no image"], options={"top_k": 2})
    assert bad.error == "not an image" and bad.labels == ()


def test_options_go_to_signature_tag_a_value_a_row_and_what_is_not_named_stays_as_exported():
    client = Client("http://nowhere", model="m", version=3)
    client._transport = Recorder()
    client.tag([b"1", b"2"], threshold=1)
    client.tag([b"1"], beam_size=7, min_length=0, max_length=2)
    client.tag([b"1"])
    images = {"image_bytes": [b"1", b"2"]}
    kept = {"beam_size": [-1, -1], "min_length": [-1, -1], "max_length": [-1, -1]}
    assert client._transport.requests == [
        ("m", 3, "tag", images | kept | {"threshold": [1.0, 1.0]}),
        (
            "m",
            3,
            "tag",
            {
                "image_bytes": [b"1"],
                "beam_size": [7],
                "min_length": [0],
                "max_length": [2],
                "threshold": [0.0],
            },
        ),
        ("m", 3, "serving_default", {"image_bytes": [b"1"]}),
    ]
    assert isinstance(client._transport.requests[0][3]["threshold"][0], float)


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """A stand-in over an export whose labels are the options that it was asked with."""
    whole, real = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.float32)
    files = tf.TensorSpec([None], tf.string, name="image_bytes")

    @tf.function(input_signature=[files, whole, whole, whole, real])
    def tag(image_bytes, beam_size, min_length, max_length, threshold):
        words = [tf.strings.as_string(each) for each in (beam_size, min_length, max_length)]
        labels = tf.stack([*words, tf.strings.as_string(threshold, precision=2)], axis=1)
        num_images = tf.shape(image_bytes)[0]
        return {
            "labels": labels,
            "probabilities": tf.zeros(tf.shape(labels)),
            "step_probabilities": tf.zeros(tf.shape(labels)),
            "num_labels": tf.fill([num_images], 4),
            "path_probability": tf.zeros([num_images]),
            "error": image_bytes,
        }

    module = tf.Module()
    module.tag = tag
    path = tmp_path_factory.mktemp("echo") / "1"
    tf.saved_model.save(module, str(path), {"tag": tag})
    with start_stand_in(path) as running:
        yield running


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_options_arrive_as_whole_and_real_numbers_and_text_that_is_no_utf_8_comes_back(echo, transport):
    client = Client(getattr(echo, transport))
    images = client.tag([b"a", b"\xffb"], beam_size=7, max_length=3, threshold=0.25)
    assert [image.labels for image in images] == [("7", "-1", "3", "0.25")] * 2
    assert [image.error for image in images] == ["a", "\ufffdb"]


def test_known_labels_are_sent_as_one_string_an_image():
    client = Client("http://nowhere")
    client._transport = Recorder()
    client.tag([b"1", b"2"], ["sky", "sea, ocean"])
    client.tag([b"1"], absent=["été"])
    images = {"image_bytes": [b"1", b"2"]}
    assert [request[2:] for request in client._transport.requests] == [
        ("tag_given", images | {"given": ["sky\nsea, ocean"] * 2, "absent": ["", ""]}),
        ("tag_given", {"image_bytes": [b"1"], "given": [""], "absent": ["été"]}),
    ]


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"given": "sky"}, r"given 'sky': expected a list of names, such as \['sky'\]"),
        ({"absent": "sky"}, r"absent 'sky': expected a list of names"),
        ({"given": ["sky\nsea"]}, r"given label 'sky\\nsea': a name with a newline cannot be sent"),
        ({"absent": ["sky"], "beam_size": 3}, "absent labels and beam_size: no signature takes both"),
    ],
)
def test_known_labels_that_cannot_be_sent_are_told(known, message):
    with pytest.raises(UserError, match=message):
        Client("http://nowhere").tag([b"1"], **known)


EMPTY_INPUTS = {
    "serving_default": ["image_bytes"],
    "tag": ["image_bytes", "beam_size", "min_length", "max_length", "threshold"],
    "tag_given": ["image_bytes", "given", "absent"],
    "scores": ["image_bytes"],
    "embed": ["image_bytes"],
}


@pytest.mark.parametrize("signature", EMPTY_INPUTS)
def test_no_rows_are_answered_with_none_and_are_not_sent(connect, count, signature):
    assert connect().call(signature, {name: [] for name in EMPTY_INPUTS[signature]}) == []
    assert count() == 0


def test_numbers_of_numpy_and_whole_thresholds_are_sent_as_the_signature_takes_them(connect):
    whole = dict.fromkeys(("beam_size", "min_length", "max_length"), np.array([-1]))
    inputs = {"image_bytes": np.array(PHOTOGRAPHS[:1], object), **whole, "threshold": [0]}
    (row,) = connect().call("tag", inputs)
    assert tuple(row["labels"][: row["num_labels"]]) == connect().tag(PHOTOGRAPHS[:1])[0].labels


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "no inputs: name each with a value a row"),
        (
            {"image_bytes": [], "given": ["sky"]},
            r"numbers of rows \(image_bytes 0, given 1\): send one of each",
        ),
        ({"image_bytes": b"file"}, "image_bytes: expected a list with a value a row, and got a single bytes"),
        ({"image_bytes": [None]}, "image_bytes: a value of type NoneType cannot be sent; expected text or"),
        ({"image_bytes": [b""], "beam_size": [2.5]}, "beam_size 2.5: expected a whole number"),
        ({"image_bytes": [b""], "beam_size": [True]}, "beam_size: a value of type bool cannot be sent"),
    ],
)
def test_inputs_that_would_fail_other_requests_are_not_sent(connect, count, inputs, message):
    with pytest.raises(UserError, match=message):
        connect().call("tag", inputs)
    assert count() == 0


# ---- retries and time-outs


def test_a_server_that_is_busy_or_away_for_a_moment_is_asked_again(connect, stand_in, count):
    stand_in.fail_next("unavailable", "exhausted", "close")
    (image,) = connect(retries=3).tag(PHOTOGRAPHS[:1])
    assert image.valid and count() == 4


def test_retries_end(connect, stand_in, count):
    stand_in.fail_next(*["unavailable"] * 5)
    with pytest.raises(
        ServerUnavailable, match=r"(503|UNAVAILABLE): the stand-in was told to be unavailable; tried 3 times$"
    ):
        connect(retries=2).tag(PHOTOGRAPHS[:1])
    assert count() == 3
    with pytest.raises(ServerUnavailable, match=r"unavailable$"):
        connect(retries=0).tag(PHOTOGRAPHS[:1])
    assert count() == 4


def test_an_error_that_would_come_again_is_told_at_once_on_one_line(connect, stand_in, count):
    stand_in.fail_next("internal")
    with pytest.raises(
        ServingError, match=r"^\S+ answers (500|INTERNAL): the stand-in was told to be internal$"
    ):
        connect().tag(PHOTOGRAPHS[:1])
    assert count() == 1


def test_a_server_that_does_not_answer_is_given_up_and_not_asked_again(connect, stand_in, count):
    stand_in.fail_next("hang")
    begun = time.monotonic()
    with pytest.raises(
        ServingError, match=r"no answer from \S+ within 0.3 s: send fewer images at once, or wait"
    ):
        connect(timeout_s=0.3).tag(PHOTOGRAPHS[:1])
    assert time.monotonic() - begun < 4
    assert count() == 1


@contextlib.contextmanager
def serve_bytes(*pieces, pause_s=0.0):
    """The URL of a server that answers one request with these bytes, piece by piece; and what it is sent."""
    received = []

    def answer():
        connection, _ = listener.accept()
        with connection:
            file = connection.makefile("rb")
            received.extend(iter(file.readline, b"\r\n"))
            (length,) = (int(line.split()[1]) for line in received if line.startswith(b"Content-Length"))
            file.read(length)
            with contextlib.suppress(OSError):  # the client has gone
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause_s)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
        thread.join()


def write_answer(value, length=None):
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (length or len(body)) + body


def test_an_answer_that_drips_is_given_up_in_time():
    with (
        serve_bytes(write_answer([], length=1000), *[b" "] * 20, pause_s=0.1) as (url, _),
        pytest.raises(ServingError, match=r"no answer from \S+ within 0.5 s"),
    ):
        Client(url, timeout_s=0.5, retries=0).tag(PHOTOGRAPHS[:1])


def test_an_answer_that_is_cut_off_is_asked_for_again():
    with (
        serve_bytes(write_answer({"predictions": []}, length=1000)) as (url, _),
        pytest.raises(ServerUnavailable, match=r"closed the connection"),
    ):
        Client(url, retries=0).tag(PHOTOGRAPHS[:1])


@pytest.mark.parametrize("predictions", [5, None, [5], {"labels": []}, [{"labels": [], "num_labels": "2"}]])
def test_answers_of_another_model_are_one_line(predictions):
    with (
        serve_bytes(write_answer({"predictions": predictions})) as (url, _),
        pytest.raises(ServingError, match=r"the model is no (tagger|export of `cnnrnn export`)"),
    ):
        Client(url, retries=0).tag(PHOTOGRAPHS[:1])


def test_a_grpc_answer_without_rows_is_one_line():
    from cnnrnn_tf.serving.grpc_transport import GrpcTransport

    class Service:
        def Predict(self, request, timeout):
            return SimpleNamespace(outputs={"y": tf.make_tensor_proto(1.0)})

    transport = GrpcTransport("nowhere:1", timeout_s=1)
    transport._service = Service()
    with pytest.raises(ServingError, match="without a row of each output for each image"):
        transport.predict("tagger", None, "serving_default", {"image_bytes": [b""]})


def test_a_path_before_the_api_s_own_may_hold_anything():
    with (
        serve_bytes(write_answer({"predictions": []})) as (url, received),
        pytest.raises(ServingError, match="0 rows came back for 1 images"),
    ):
        Client(f"{url}/été one%20two/", model="a b", retries=0).tag(PHOTOGRAPHS[:1])
    assert received[0].startswith(b"POST /%C3%A9t%C3%A9%20one%20two/v1/models/a%20b:predict HTTP/1.1\r\n")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_waits_double_and_are_shortened_at_random_where_no_server_is(scheme, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{unused.getsockname()[1]}"
        waits = []
        monkeypatch.setattr(client_module.time, "sleep", waits.append)
        with pytest.raises(
            ServerUnavailable,
            match=rf"^no server at {url} \(Connection refused\): start it, .*; tried 5 times$",
        ):
            Client(url, retries=4).tag(PHOTOGRAPHS[:1])
    assert len(waits) == 4
    for wait, longest in zip(waits, (0.5, 1, 2, 4), strict=True):
        assert longest / 2 <= wait <= longest
    assert len({wait / longest for wait, longest in zip(waits, (0.5, 1, 2, 4), strict=True)}) > 1


def test_no_wait_is_longer_than_half_a_minute():
    waits = list(Client("http://nowhere", retries=2000)._waits())
    assert waits.pop() is None
    assert max(waits) <= 30 and min(waits[10:]) >= 15


# ---- what is not a tagger


@pytest.mark.parametrize(
    ("options", "signature", "message"),
    [
        ({"model": "tager"}, "serving_default", r"answers (404|NOT_FOUND): Servable not found for request"),
        ({"version": 7}, "serving_default", r"request: Specific\(tagger, 7\)"),
        ({}, "taag", r"(not found in signature def|key \"taag\" not found)"),
        (
            {},
            "tag_given",
            r"tag_given takes absent, given, image_bytes on this server, and was sent gven, image_bytes: an "
            r"export of an older version: export the run again .*(keys must be equal|Missing but required)",
        ),
        (
            {},
            "tag",
            r"^tag takes beam_size, .*threshold on this server, and was sent image_bytes: send these",
        ),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(connect, options, signature, message):
    inputs = {"image_bytes": PHOTOGRAPHS[:1]}
    if signature == "tag_given":
        inputs["gven"] = ["sky"]
    with pytest.raises(ServingError, match=message):
        connect(**options).call(signature, inputs)


def test_the_version_that_is_served_may_be_named(connect):
    assert connect(version=1).tag(PHOTOGRAPHS[:1]) == connect().tag(PHOTOGRAPHS[:1])


def test_a_proxy_s_page_is_one_line_and_a_port_of_the_other_kind_is_told(stand_in):
    stand_in.fail_next("page")
    with pytest.raises(ServingError, match=r"answers 502: <html> <h1>Bad gateway</h1> </html>$"):
        Client(stand_in.rest_url).tag(PHOTOGRAPHS[:1])
    with pytest.raises(ServingError, match=r"does not speak HTTP: for its gRPC port write grpc://"):
        Client(stand_in.grpc_url.replace("grpc:", "http:")).tag(PHOTOGRAPHS[:1])
    with pytest.raises(ServerUnavailable, match=r"for a REST port write http:// before it"):
        Client(stand_in.rest_url.replace("http:", "grpc:"), retries=0).tag(PHOTOGRAPHS[:1])


# ---- the command


def test_the_command_prints_what_predict_prints(stand_in, tiny_export, photos, monkeypatch, capsys):
    loaded = predict.load_tagger(tiny_export)
    monkeypatch.setattr(predict, "load_tagger", lambda path: loaded)
    for flags in ([], ["--given", "boat, car"]):
        assert main(["predict", str(tiny_export), str(photos), *flags]) == 0
        predicted = capsys.readouterr().out.replace("marginal", "probability")
        assert "probability 0." in predicted
        for url in (stand_in.rest_url, stand_in.grpc_url, stand_in.grpc_url.removeprefix("grpc://")):
            assert main(["client", "--url", url, str(photos), *flags]) == 0
            assert capsys.readouterr().out == predicted


def test_bad_files_are_status_1_and_none_usable_is_status_2(stand_in, photos, capsys):
    (photos / "cut.jpg").write_bytes(PHOTOGRAPHS[0][:200])
    words = ["client", "--url", stand_in.rest_url, "--json"]
    assert main([*words, str(photos), "nowhere.jpg"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["error"] for row in rows] == ["no such file", "", "", "", "cut off"]
    assert rows[1]["labels"] == list(Client(stand_in.rest_url).tag(PHOTOGRAPHS[:1])[0].labels)
    assert main([*words, str(photos / "cut.jpg")]) == 2
    assert "none of 1 could be tagged" in capsys.readouterr().err


MISTAKES = [
    (
        "--url ftp://host:21",
        "URL 'ftp://host:21': expected http://host:8501 (REST) or grpc://host:8500 (gRPC)",
    ),
    ("--url localhost", "URL 'localhost': expected http://host:8501"),
    ("--url http://localhost:port", "URL 'http://localhost:port': expected http://host:8501"),
    ("--url http:///x", "URL 'http:///x': expected http://host:8501"),
    ("--url http://[::1:8501", "URL 'http://[::1:8501': expected http://host:8501"),
    ("--url grpc://localhost", "URL 'grpc://localhost': expected http://host:8501"),
    ("--url http://me:secret@host:8501", "URL with a user or a password: neither would be sent; expected"),
    ("--url grpc://host:8500/prefix", "URL 'grpc://host:8500/prefix': gRPC has no path; expected"),
    ("--url http://a..b:8501 --retries 0", "no server at http://a..b:8501 (encoding with 'idna' codec"),
    ("--batch-size 0", "batch_size 0: expected 1 or more"),
    ("--retries -1", "retries -1: expected 0 or more"),
    ("--timeout-s 0", "timeout_s 0.0: expected more than 0"),
    ("--beam-size 99999999999", "beam_size 99999999999: no export takes such a number"),
    ("--threshold nan", "threshold nan: no export takes such a number"),
    ("--timeout-s inf", "timeout_s inf: expected more than 0, and 1,000,000 at most"),
    ("--given sky --beam-size 3", "given labels and beam_size: no signature takes both; leave out one"),
    (
        "--url http://127.0.0.1:9 --retries 0",
        "no server at http://127.0.0.1:9 (Connection refused): start it",
    ),
]


@pytest.mark.parametrize(("flags", "message"), MISTAKES)
def test_mistakes_are_one_line_and_status_2(photos, capsys, flags, message):
    assert main(["client", str(photos), *flags.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


def test_without_the_serving_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "cnnrnn_tf.serving.grpc_transport", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(UserError, match=r"missing .*: pip install 'cnnrnn-tf\[serving\]'$"):
        Client("grpc://localhost:8500")


def test_the_rest_client_imports_neither_tensorflow_nor_grpc(stand_in, photos):
    script = (
        "import sys\nfrom cnnrnn_tf.commands.__main__ import main\nstatus = main(sys.argv[1:])\n"
        "print(status, {'tensorflow', 'keras', 'grpc', 'numpy'} & set(sys.modules))"
    )
    words = ["client", "--url", stand_in.rest_url, str(photos)]
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 set()", done.stderr


# ---- the server's settings


def test_the_batching_parameters_are_what_the_server_and_the_client_need():
    text = re.sub(r"#.*", "", (ROOT / "docs/serving/batching.config").read_text(encoding="utf-8"))
    found = re.findall(r"^(\w+)(?: \{ value: (\d+) \}|: (\w+))$", text, flags=re.MULTILINE)
    assert len(found) == len(text.split("\n")) - text.split("\n").count("")  # nothing else is in the file
    values = {name: value or text for name, value, text in found}
    assert set(values) <= {
        *("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"),
        *("allowed_batch_sizes", "pad_variable_length_inputs"),
    }
    sizes = [int(size) for name, _, size in found if name == "allowed_batch_sizes"]
    assert sizes == sorted(sizes) and sizes[-1] == int(values["max_batch_size"])
    assert Client("http://nowhere")._batch_size <= sizes[-1]
    # With padding, one request of the wrong rank ends the server (test_joined_requests).
    assert values["pad_variable_length_inputs"] == "false"


# ---- the stand-in


def ask(url, body=None):
    """(status, JSON) of a request."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(url, data, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_stand_in_runs_the_export_without_tensorflow_s_python(stand_in):
    Client(stand_in.rest_url).tag(PHOTOGRAPHS[:1])
    assert stand_in.read_log()["tensorflow"] == []


def test_the_stand_in_speaks_status_metadata_and_both_formats(stand_in):
    url = f"{stand_in.rest_url}/v1/models/tagger"
    assert ask(url)[1]["model_version_status"][0]["state"] == "AVAILABLE"
    assert ask(f"{stand_in.rest_url}/v1/models/other")[0] == 404
    found = ask(f"{url}/metadata")[1]["metadata"]["signature_def"]["signature_def"]
    assert found["tag_given"]["inputs"]["given"]["dtype"] == "DT_STRING"
    files = [{"b64": base64.b64encode(file).decode()} for file in PHOTOGRAPHS[:2]]
    _, rows = ask(f"{url}:predict", {"instances": files})
    _, columns = ask(f"{url}/versions/1:predict", {"inputs": {"image_bytes": files}})
    assert [row["labels"] for row in rows["predictions"]] == columns["outputs"]["labels"]
    assert [row["probabilities"] for row in rows["predictions"]] == columns["outputs"]["probabilities"]


BAD_REQUESTS = {
    "Missing 'inputs' or 'instances' key": {},
    "not found in signature def": {"signature_name": "x", "instances": ["a"]},
    "is not of expected type": {"instances": [1]},
    "Unable to base64 decode": {"instances": [{"b64": "?"}]},
    "keys must be equal to: absent,given,image_bytes": {
        "signature_name": "tag_given",
        "instances": [{"image_bytes": "a"}],
    },
    "instances is a plain list": {"signature_name": "tag_given", "instances": ["a"]},
    "list at unexpected size: 1": {"instances": [["a", "b"], ["a"]]},
}


@pytest.mark.parametrize("words", BAD_REQUESTS)
def test_the_stand_in_refuses_what_the_server_refuses(stand_in, words):
    status, answer = ask(f"{stand_in.rest_url}/v1/models/tagger:predict", BAD_REQUESTS[words])
    assert status == 400 and re.search(re.escape(words), answer["error"])
