"""Exports made here, good and bad in one way each, against the loaders that TensorFlow Serving uses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnrnn_tf.commands.__main__ import main as cnnrnn
from cnnrnn_tf.data.images import decode_batch
from cnnrnn_tf.serving import check, comparison, example_inputs, fresh_process, lints
from tfrecords.errors import UserError

BATCH = tf.TensorSpec([None], tf.string, name="encoded")
DTYPES = {"text": tf.string, "flag": tf.bool, "small": tf.int32, "large": tf.int64, "real": tf.float32}


class Tagger(tf.Module):
    """A model in the form of ours: bytes in, a row an image out, variables held once."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.kernel = tf.Variable(rng.normal(size=[3, 40_000]), dtype=tf.float32)

    @tf.function(input_signature=[BATCH])
    def tag(self, encoded):
        pixels, valid, error = decode_batch(encoded, 32)
        scores = (tf.reduce_mean(pixels, axis=[1, 2]) @ self.kernel)[:, :5] / 255
        names = tf.gather(["sky", "sea", "", "été", "car"], tf.argsort(scores))
        return {"labels": names, "scores": scores, "valid": valid, "error": error}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], dtype, name=key) for key, dtype in DTYPES.items()])
    def echo(self, text, flag, small, large, real):
        tensors = zip(DTYPES, (text, flag, small, large, real), strict=True)
        return {key: tf.reverse(tensor, [1]) for key, tensor in tensors}


@pytest.fixture(scope="module")
def good_export(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "export" / "7"
    model = Tagger()
    tf.saved_model.save(model, str(path), {"serving_default": model.tag, "echo": model.echo})
    return path


def save(path, function, name="serving_default", module=None):
    module = tf.Module() if module is None else module
    module.function = tf.function(function, input_signature=[BATCH])
    tf.saved_model.save(module, str(path / "1"), {name: module.function})
    return path / "1"


def lengths(encoded):
    return tf.cast(tf.strings.length(encoded), tf.float32)


@pytest.fixture(scope="module")
def told():
    """The lines that `good_report` told while it was made."""
    return []


@pytest.fixture(scope="module")
def good_report(good_export, told):
    (good_export.parent / "3").mkdir()
    return check.check_export(good_export.parent, latency=True, tell=told.append)


def test_a_good_export_passes_every_check_by_its_folder_of_versions(good_export, good_report):
    report = good_report
    assert report.problems == ()
    assert report.ok and report.path == good_export
    assert len(report.passed) == 15
    assert report.verdict == f"yes: TensorFlow Serving would run {good_export}"
    assert any(
        "without TensorFlow's Python, loads it and runs serving_default, echo" in x for x in report.passed
    )


def test_each_finding_is_told_once_as_it_is_made(good_report, told):
    assert sorted(told) == sorted(
        [
            *(f"  ok   {each}" for each in good_report.passed),
            *(f"  note {each}" for each in good_report.notes),
            *map(str, good_report.latencies),
        ]
    )
    (ran,) = [line for line in told if "without TensorFlow's Python" in line]
    (same,) = [line for line in told if "a TF1 session gives the same" in line]
    first = "  ok   its folder is named by a version number"
    assert told.index(first) == 0 < told.index(ran) < told.index(same)
    assert len(good_report.latencies) == 3 and told.index(str(good_report.latencies[0])) < told.index(same)


def test_both_loaders_give_what_python_gives_row_by_row(good_export):
    rows = [*check.make_images(), b"", b"no image", check.make_images()[0][:200]]
    inputs = {"encoded": np.array(rows, object)}
    python = tf.saved_model.load(str(good_export)).signatures["serving_default"](encoded=tf.constant(rows))
    for run in (check.run_signature_c_api, check.run_signature_tf1):
        outputs = run(good_export, "serving_default", inputs)
        assert outputs["valid"].tolist() == [True, True, False, False, False]
        assert outputs["error"].tolist() == [b"", b"", b"empty", b"not an image", b"cut off"]
        assert outputs["labels"].tolist() == python["labels"].numpy().tolist()
        np.testing.assert_allclose(outputs["scores"], python["scores"], rtol=1e-5)


@pytest.mark.parametrize("num_rows", [2, 0])
def test_the_c_api_carries_every_dtype_both_ways(good_export, num_rows):
    inputs = {
        "text": np.array([["a", b"\0\xff" * 50], ["", "été"]], object),
        "flag": np.array([[True, False], [False, False]]),
        "small": np.array([[-1, 2**31 - 1], [0, 7]], np.int32),
        "large": np.array([[-1, 2**63 - 1], [0, 7]]),
        "real": np.array([[0.5, -1e30], [np.inf, 0]], np.float32),
    }
    inputs = {key: array[:num_rows] for key, array in inputs.items()}
    outputs = check.run_signature_c_api(good_export, "echo", inputs)
    expected = dict(inputs, text=np.array([[b"a", b"\0\xff" * 50], [b"", "été".encode()]], object)[:num_rows])
    assert set(outputs) == set(DTYPES)
    for key, array in expected.items():
        assert outputs[key].dtype == array.dtype
        assert outputs[key].tolist() == array[:, ::-1].tolist()


def test_the_process_that_runs_the_c_api_never_imports_tensorflow():
    script = (
        "import runpy, sys; runpy.run_path(sys.argv[1])['load_library']();"
        "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'keras', 'cnnrnn_tf')])"
    )
    command = [sys.executable, "-P", "-c", script, str(fresh_process.C_API)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_keras_model_saved_by_tensorflow_is_refused_for_its_missing_variables(tmp_path):
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
    spec = tf.TensorSpec([None, 4])
    tf.saved_model.save(
        model, str(tmp_path / "1"), tf.function(model, input_signature=[spec], autograph=False)
    )
    loaded = tf.saved_model.load(str(tmp_path / "1"))  # Python accepts it
    assert loaded.signatures["serving_default"](tf.zeros([1, 4]))["output_0"].shape == (1, 3)
    report = check.check_export(tmp_path)
    assert not report.ok
    assert report.verdict.startswith("no: ")
    assert any(
        "C API, serving_default: images fail: Could not find variable" in problem and "tf.Module" in problem
        for problem in report.problems
    ), report.problems


def test_python_in_the_graph_is_refused(tmp_path):
    path = save(
        tmp_path,
        lambda encoded: {
            "y": tf.ensure_shape(tf.numpy_function(abs, [lengths(encoded)], tf.float32), [None])
        },
    )
    problems = check.check_export(path).problems
    assert any("PyFunc in function" in each and "calls Python" in each for each in problems), problems
    assert any("No OpKernel was registered" in each for each in problems), problems


def test_xla_compilation_is_refused(tmp_path):
    @tf.function(jit_compile=True)
    def compiled(x):
        return x * 2

    (problem,) = check.lint_export(save(tmp_path, lambda encoded: {"y": compiled(lengths(encoded))}))
    assert "inference_compiled" in problem and "must be compiled by XLA" in problem


SHAPES = {
    "is a scalar": lambda encoded: tf.reduce_sum(lengths(encoded)),
    "always has 1 rows": lambda encoded: tf.reduce_sum(lengths(encoded))[None],
    "has no fixed rank": lambda encoded: tf.reshape(
        lengths(encoded), tf.cast(lengths(encoded)[:1], tf.int32)
    ),
    "is ragged or sparse": tf.strings.bytes_split,
}


@pytest.mark.parametrize("fault", SHAPES)
def test_an_output_that_cannot_be_batched_is_refused(tmp_path, fault):
    path = save(tmp_path, lambda encoded: {"y": SHAPES[fault](encoded)})
    (problem,) = check.lint_export(path)
    assert problem.startswith(f"output 'y' of signature 'serving_default' {fault}")


def test_weights_stored_twice_are_found_and_zeros_are_not(tmp_path):
    module = tf.Module()
    weights = np.random.default_rng(1).normal(size=[100, 200]).astype(np.float32)
    module.first, module.second = tf.Variable(weights), tf.Variable(weights)
    module.zeros = [tf.Variable(tf.zeros([100, 200])) for _ in range(2)]
    module.tiny = [tf.Variable(weights[0]) for _ in range(2)]
    (problem,) = check.lint_export(save(tmp_path, lambda encoded: {"y": lengths(encoded)}, module=module))
    assert problem.startswith("1 weights are stored more than once, 0.1 MB too much")
    assert "first" in problem and "second" in problem


def test_weights_frozen_into_the_graph_beside_their_variable_are_found(tmp_path):
    module = tf.Module()
    weights = np.random.default_rng(1).normal(size=[20_000]).astype(np.float32)
    module.weights = tf.Variable(weights)
    path = save(tmp_path, lambda encoded: {"y": lengths(encoded) * tf.constant(weights)[0]}, module=module)
    assert any("constant" in each and "stored more than once" in each for each in check.lint_export(path))


def test_a_batch_that_one_bad_row_fails_is_refused(tmp_path):
    def decode(encoded):
        mean = tf.map_fn(
            lambda e: tf.reduce_mean(tf.cast(tf.io.decode_jpeg(e), tf.float32)), encoded, tf.float32
        )
        return {"y": mean}

    (problem,) = check.check_export(save(tmp_path, decode)).problems
    assert problem.startswith(
        "in the C API, serving_default: one row that is no image fails its whole batch, so guard the decoding"
    )


GOOD = {"y": [1.0, 2.0], "valid": [True, True], "text": ["sky", "été"]}
ANSWERS = {  # the only problem: what differs from a flawless answer (of good rows, of a bad one too, alone)
    "output 'y' of good rows changes when": ({}, {"y": [1.0, 2.1, 0.0]}, {}),
    "output 'y' of an image depends on the others of its batch (image 2: 2 and 2.1)": (
        {},
        {},
        {"y": [1, 2.1]},
    ),
    "output 'valid' is True for a row that is no image": ({}, {"valid": [True, True, True]}, {}),
    "output 'text' holds bytes that are not UTF-8": ({}, {"text": ["sky", "été", b"\xe9t\xe9"]}, {}),
    "output 'text_bytes' is text, and REST": ({}, {"text_bytes": ["sky", "", ""]}, {}),
    "": ({}, {"y": [1.0, 2.00001, 9.0], "pixels_bytes": [b"\xff", b"", b""]}, {"y": [1.00001, 2.0]}),
}


@pytest.mark.parametrize("problem", ANSWERS)
def test_rows_that_depend_on_the_batch_or_that_rest_cannot_answer_with_are_refused(good_export, problem):
    signature = fresh_process.read_meta_graph(good_export).signature_def["serving_default"]
    bad_row = {"y": [0.0], "valid": [False], "text": [""]}
    good, mixed, alone = (
        {key: [x.encode() if isinstance(x, str) else np.array(x) for x in rows] for key, rows in each.items()}
        for each in (GOOD, {key: GOOD[key] + bad_row[key] for key in GOOD}, GOOD)
    )
    for answer, change in zip((good, mixed, alone), ANSWERS[problem], strict=True):
        answer.update({k: [x.encode() if isinstance(x, str) else x for x in v] for k, v in change.items()})
    found = comparison.check_rows(comparison.Answers(good, mixed, alone), signature)
    assert len(found) == (problem != "")
    assert problem in "".join(found)


def test_numbers_are_compared_by_the_largest_of_their_row():
    def differs(first, second):
        return bool(comparison.find_differences({"y": [np.array(first)]}, {"y": [np.array(second)]}, 1e-4))

    assert not differs([1000.0, 0.01], [1000.0, 0.08])  # a logit that nearly cancels out
    assert differs([1.0, 0.01], [1.0, 0.0102])
    assert differs([1000.0, 0.01], [1000.2, 0.01])
    assert differs([np.inf, 0.01], [np.inf, 0.02]) and differs([np.nan], [1.0])
    assert not differs([np.inf, np.nan], [np.inf, np.nan])


def test_exports_of_other_programs_are_fed_what_they_can_take(tmp_path):
    """A text model and a CNN for pixels of any size; the version folder is a link to another place."""
    module = tf.Module()
    module.kernel = tf.Variable(np.random.default_rng(0).normal(size=[3, 3, 3, 8]).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def shout(text):
        words = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="strict")
        return {"shouted": tf.strings.upper(words)}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], name="pixels")])
    def convolve(pixels):
        maps = tf.nn.max_pool2d(tf.nn.conv2d(pixels, module.kernel, 1, "VALID"), 8, 8, "VALID")
        return {"features": tf.reduce_mean(maps, [1, 2])}

    tf.saved_model.save(module, str(tmp_path / "stored"), {"serving_default": shout, "cnn": convolve})
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "1").symlink_to("../stored")
    assert check.check_export(tmp_path / "served").problems == ()


def test_halves_may_round_otherwise_in_other_batches_but_not_in_another_runtime(tmp_path, monkeypatch):
    path = save(tmp_path, lambda encoded: {"y": tf.cast(tf.cast(lengths(encoded), tf.bfloat16), tf.float32)})
    monkeypatch.setattr(comparison, "_to_numpy", lambda tensor: tensor.numpy() * 1.001)
    (problem,) = check.check_export(path).problems
    assert problem.startswith("the C API and Python disagree on output 'y' of serving_default (image 1: ")


def test_an_output_that_has_no_row_an_image_is_refused(tmp_path):
    path = save(tmp_path, lambda encoded: {"y": tf.reshape(tf.tile(lengths(encoded), [2]), [-1])})
    (problem,) = check.check_export(path).problems
    assert "output 'y' has shape [4] for 2 images, give it a row an image" in problem


def test_a_warm_up_request_that_fails_is_refused(tmp_path):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")

    def measure(encoded):
        sizes = tf.strings.length(encoded)
        with tf.control_dependencies([tf.debugging.assert_less(sizes, 10_000, "too large")]):
            return {"y": tf.identity(sizes)}

    path = save(tmp_path, measure)
    (path / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(path / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        log = prediction_log_pb2.PredictionLog()
        request = log.predict_log.request
        request.model_spec.signature_name = "serving_default"
        request.inputs["encoded"].CopyFrom(tf.make_tensor_proto([b"x" * 10_000]))
        writer.write(log.SerializeToString())
    assert check.lint_export(path) == []
    (problem,) = check.check_export(path).problems
    assert problem.startswith(
        "assets.extra/tf_serving_warmup_requests: the request for serving_default fails: assertion failed"
    )


def answer_with(valid, errors=None):
    good = {"valid": valid, "error": errors or [b""] * len(valid)}
    return comparison.Answers(good, good, good)


VALIDITY = {  # by signature; problems and notes
    "all": ({"serving_default": [True, True], "tag": [True, True]}, "", ""),
    "one": (
        {"serving_default": [True, False], "tag": [True, False]},
        "",
        "not valid to serving_default: 1 of 2, such",
    ),
    "none": (
        {"serving_default": [False, False]},
        "serving_default finds none of the images valid, such as",
        "",
    ),
    "differ": (
        {"serving_default": [True, True], "tag": [True, False]},
        "tag and serving_default differ on",
        "",
    ),
}


@pytest.mark.parametrize("case", VALIDITY)
def test_all_signatures_must_find_the_same_images_valid(good_export, case):
    signature = fresh_process.read_meta_graph(good_export).signature_def["serving_default"]
    valid, problem, note = VALIDITY[case]
    findings = comparison.Findings()
    answers = {
        name: answer_with(rows, [b"" if each else b"cut off" for each in rows])
        for name, rows in valid.items()
    }
    comparison._check_validity(answers, dict.fromkeys(valid, signature), findings)
    assert len(findings.problems) == (problem != "") and problem in "".join(findings.problems)
    assert len(findings.notes) == (note != "") and note in "".join(findings.notes)
    assert ("(cut off)" in note + "".join(findings.problems + findings.notes)) == (case in ("one", "none"))


def test_rows_of_batches_are_joined_in_order_and_the_shared_one_comes_last():
    batches = [[0, 1, 4], [2, 3, 4]]
    outputs = iter([{"y": np.array([10, 11, 14])}, {"y": np.array([12, 13, 14])}, "the next call's"])
    assert comparison._collect(batches, outputs) == {"y": [10, 11, 12, 13, 14]}
    assert next(outputs) == "the next call's"
    outputs = iter(["no kernel", {"y": np.array([12, 13, 14])}, "the next call's"])
    assert comparison._collect(batches, outputs) == "no kernel"
    assert next(outputs) == "the next call's"


def test_options_images_examples_and_features_are_made_for_signatures_that_take_them():
    from tensorflow.core.protobuf import meta_graph_pb2

    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    spec = {
        "image_bytes": (tf.string, [-1]),
        "given": (tf.string, [-1]),
        "absent": (tf.string, [-1]),
        "beam_size": (tf.int32, [-1]),
        "max_length": (tf.int32, [-1]),
        "threshold": (tf.float32, [-1]),
        "features": (tf.float32, [-1, 3]),
        "whatever": (tf.int64, [-1, 2]),
    }
    tensors = [(signature.inputs, spec), (signature.outputs, {"labels": (tf.string, [-1, 5])})]
    for side, (key, (dtype, shape)) in ((side, item) for side, each in tensors for item in each.items()):
        side[key].dtype = dtype.as_datatype_enum
        for size in shape:
            side[key].tensor_shape.dim.add().size = size
    made = example_inputs.make_inputs(signature, [b"a", b"b"])
    features = made.pop("features")
    assert {key: array.tolist() for key, array in made.items()} == {
        "image_bytes": [b"a", b"b"],
        "given": [b"", b""],
        "absent": [b"", b""],
        "beam_size": [1, 1],
        "max_length": [5, 5],
        "threshold": [0, 0],
        "whatever": [[0, 0], [0, 0]],
    }
    assert made["threshold"].dtype == np.float32 and made["beam_size"].dtype == np.int32
    assert features.shape == (2, 3) and len(np.unique(features)) == 6 and features.min() >= 0
    signature.method_name = "tensorflow/serving/classify"
    example = tf.train.Example.FromString(example_inputs.make_inputs(signature, [b"a"])["image_bytes"][0])
    assert example.features.feature["image/encoded"].bytes_list.value == [b"a"]


def test_an_operation_without_a_kernel_is_found():
    from tensorflow.core.framework import kernel_def_pb2

    def kernels(*devices):
        return kernel_def_pb2.KernelList(
            kernel=[kernel_def_pb2.KernelDef(device_type=device) for device in devices]
        ).SerializeToString()

    found = lints.lint_kernels(
        {"Fine": kernels("GPU", "CPU"), "Any": kernels("DEFAULT"), "Mine": b"", "Far": kernels("TPU")}
    )
    assert [each.split()[1] for each in found] == ["Far", "Mine"]


def test_a_signature_of_another_name_and_a_folder_without_a_number_are_refused(tmp_path):
    path = save(tmp_path, lambda encoded: {"y": lengths(encoded)}, name="tag").rename(tmp_path / "latest")
    report = check.check_export(path)
    assert [each.split(",")[0] for each in report.problems] == [
        "the folder is named 'latest'",
        "there is no signature serving_default (found: tag)",
    ]
    assert any("runs tag" in each for each in report.passed)


def test_a_graph_without_the_tag_serve_and_a_damaged_file_are_refused(good_export, tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel.FromString((good_export / "saved_model.pb").read_bytes())
    saved_model.meta_graphs[0].meta_info_def.tags[:] = ["train"]
    for folder, data in (("1", saved_model.SerializeToString()), ("2", b"\xff" * 100)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "saved_model.pb").write_bytes(data)
    (problem,) = check.check_export(tmp_path / "1").problems
    assert "no graph with the tag 'serve' (found ['train'])" in problem
    (problem,) = check.check_export(tmp_path / "2").problems
    assert "saved_model.pb is damaged" in problem


def test_what_is_no_export_gets_one_line_with_the_fix(good_export, tmp_path):
    with pytest.raises(UserError, match=r"no export at .*missing: expected .* `cnnrnn export RUN` writes"):
        check.check_export(tmp_path / "missing")
    with pytest.raises(
        UserError, match=r"is not an export: expected saved_model\.pb in it, or folders named"
    ):
        check.check_export(tmp_path)
    (tmp_path / "²").mkdir()  # a digit, and no number
    shutil.copytree(good_export, tmp_path / "9")
    (tmp_path / "10").mkdir()
    with pytest.raises(
        UserError, match=r"10, the version that the server would take, holds no saved_model\.pb"
    ):
        check.check_export(tmp_path)


def test_calls_that_the_signatures_do_not_take_name_what_they_take(good_export):
    with pytest.raises(
        UserError, match=r"no signature 'serving' \(did you mean 'serving_default'\?\): the export has"
    ):
        check.run_signature_c_api(good_export, "serving", {})
    with pytest.raises(UserError, match="'serving_default' takes encoded; it was given image"):
        check.run_signature_tf1(good_export, "serving_default", {"image": np.zeros(1)})


# ---- the command


@pytest.fixture
def checked(monkeypatch, tmp_path):
    """What the command asks for, and what it is answered with."""
    seen = SimpleNamespace(calls=[], problems=())

    def check_export(path, images, latency, timeout_s, tell):
        seen.calls.append((path, images, latency, timeout_s))
        times = comparison.Latency("tag", 8, median_ms=12.34, p90_ms=20, images_per_second=648.3)
        tell("  ok   all is well")
        tell(str(times))
        return check.CheckReport(tmp_path, ("all is well",), seen.problems, ("as you know",), (times,))

    monkeypatch.setattr(check, "check_export", check_export)
    monkeypatch.setattr("cnnrnn_tf.commands.check.find_export", lambda path: path)
    return seen


@pytest.mark.parametrize("problems", [(), ("no good",)])
def test_the_command_prints_findings_as_they_come_and_says_yes_or_no_by_its_status(
    checked, capsys, tmp_path, problems
):
    checked.problems = problems
    assert cnnrnn(["check", str(tmp_path), "--timeout-s", "9"]) == len(problems)
    assert checked.calls == [(tmp_path, None, True, 9)]
    assert capsys.readouterr().out.splitlines() == [
        f"checking {tmp_path}",
        "  ok   all is well",
        "  tag, batch  8: median 12.3 ms, p90 20.0 ms, 648.3 images/s",
        f"no: TensorFlow Serving would not run {tmp_path} as it should"
        if problems
        else f"yes: TensorFlow Serving would run {tmp_path}",
    ]


def test_the_command_prints_json_and_takes_the_user_s_own_images(checked, capsys, tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"second")
    (tmp_path / "a.png").write_bytes(b"first")
    (tmp_path / "notes.txt").write_text("none")
    command = ["check", "export", "--no-latency", "--json", "--images", str(tmp_path)]
    assert cnnrnn(command) == 0
    assert checked.calls == [(Path("export"), [b"first", b"second"], False, 600)]
    facts = json.loads(capsys.readouterr().out)
    assert facts["ok"] is True and facts["passed"] == ["all is well"] and facts["path"] == str(tmp_path)
    assert facts["latencies"] == [
        {"signature": "tag", "batch_size": 8, "median_ms": 12.34, "p90_ms": 20, "images_per_second": 648.3}
    ]


def test_the_command_names_images_that_are_not_there(checked, capsys, tmp_path):
    assert cnnrnn(["check", "export", "--images", str(tmp_path / "none.jpg")]) == 2
    assert "none.jpg: no such file" in capsys.readouterr().err
    assert checked.calls == []


def test_a_run_s_own_examples_are_among_the_images(tmp_path):
    folder = tmp_path / "run" / "figures" / "examples"
    folder.mkdir(parents=True)
    version = tmp_path / "run" / "export" / "3"
    assert check.read_examples(version) == []
    for i in range(9):
        (folder / f"{i}.jpg").write_bytes(bytes([i]))
    assert check.read_examples(version) == [b"\0", b"\1"]
    assert check.read_examples(Path("/1")) == []  # there is nothing above it


def test_the_latency_is_that_of_the_c_api_s_process(good_report):
    assert [each.batch_size for each in good_report.latencies] == [1, 8, 32]
    for each in good_report.latencies:
        assert 0 < each.median_ms <= each.p90_ms
        assert each.images_per_second == pytest.approx(1000 * each.batch_size / each.median_ms)
