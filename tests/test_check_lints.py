"""Small exports with one fault each, and the line of `cnnrnn check` that names it."""

import shutil
from itertools import pairwise

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import kernel_def_pb2, node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from cnnrnn_tf.serving import check, fresh_process, lints, warmup_lint
from tfrecords.framing import frame_record

BATCH = tf.TensorSpec([None], tf.string, name="encoded")


def save(path, function, spec=(BATCH,), module=None):
    module = tf.Module() if module is None else module
    module.function = tf.function(function, input_signature=list(spec))
    tf.saved_model.save(module, str(path / "1"), {"serving_default": module.function})
    return path / "1"


def lengths(encoded):
    return tf.cast(tf.strings.length(encoded), tf.float32)


def change(path, edit):
    """Edits the graph of an export in place."""
    file = path / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    edit(saved_model.meta_graphs[0])
    file.write_bytes(saved_model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save(tmp_path_factory.mktemp("plain"), lambda encoded: {"y": lengths(encoded)})


@pytest.fixture
def export(plain, tmp_path):
    """A good export, to be spoilt."""
    shutil.copytree(plain, tmp_path / "1")
    return tmp_path / "1"


def test_the_plain_export_has_no_fault(plain):
    assert check.lint_export(plain) == []


# ---- names and methods


def test_an_input_that_rest_would_take_for_binary_is_refused_and_odd_names_are_not(tmp_path):
    def function(b64):
        return {"a-b": lengths(b64), "image/__y": lengths(b64), "fine_1": lengths(b64)}

    spec = tf.TensorSpec([None], tf.string, name="b64")
    (problem,) = check.lint_export(save(tmp_path, function, [spec]))
    assert problem.startswith("input 'b64' of signature 'serving_default' reads as {\"b64\": ...}")


def test_a_tensor_that_is_not_in_the_graph_and_a_hidden_signature_are_refused(export):
    def edit(meta_graph):
        meta_graph.signature_def["__tag"].CopyFrom(meta_graph.signature_def["serving_default"])
        meta_graph.signature_def["serving_default"].outputs["y"].name = "Nowhere:0"

    hidden, missing = check.lint_export(change(export, edit))
    assert hidden.startswith("signature '__tag' starts with __")
    assert "output 'y' of signature 'serving_default' is tensor Nowhere:0, which is not in" in missing


METHODS = {  # the fault: (method, inputs, outputs)
    "": ("classify", {"inputs": tf.string}, {"classes": (tf.string, 2), "scores": (tf.float32, 2)}),
    "takes image_bytes: that API sends serialized tf.Example": ("classify", {"image_bytes": tf.string}, {}),
    "takes inputs: that API sends": ("classify", {"inputs": tf.float32}, {"scores": (tf.float32, 2)}),
    "returns classes, error: that API": (
        "classify",
        {"inputs": tf.string},
        {"classes": (tf.string, 2), "error": (tf.string, 1)},
    ),
    "returns nothing: that API": ("classify", {"inputs": tf.string}, {}),
    "output 'scores' is not <float32>[batch, classes]": (
        "classify",
        {"inputs": tf.string},
        {"scores": (tf.float32, 1)},
    ),
    "returns y: that API reads outputs": ("regress", {"inputs": tf.string}, {"y": (tf.float32, 1)}),
    "the server knows tensorflow/serving/predict": ("guess", {"inputs": tf.string}, {}),
}


@pytest.mark.parametrize("fault", METHODS)
def test_signatures_that_their_api_cannot_call_are_refused(export, fault):
    method, inputs, outputs = METHODS[fault]

    def edit(meta_graph):
        signature = meta_graph.signature_def["serving_default"]
        given, taken = signature.inputs["encoded"].name, signature.outputs["y"].name
        signature.Clear()
        signature.method_name = f"tensorflow/serving/{method}"
        for key, dtype in inputs.items():
            info = signature.inputs[key]
            info.name, info.dtype = given, dtype.as_datatype_enum
            info.tensor_shape.dim.add().size = -1
        for key, (dtype, rank) in outputs.items():
            info = signature.outputs[key]
            info.name, info.dtype = taken, dtype.as_datatype_enum
            for _ in range(rank):
                info.tensor_shape.dim.add().size = -1

    problems = check.lint_export(change(export, edit))
    assert len(problems) == (fault != "")
    assert fault in "".join(problems)


# ---- text


@tf.function
def name_labels(ids):
    names = tf.constant([b"sky", "été".encode("latin-1")])
    return tf.cond(tf.size(ids) > 3, lambda: tf.gather(names, ids), lambda: tf.fill(tf.shape(ids), "none"))


def test_label_text_that_is_not_utf8_is_found_wherever_it_comes_from(tmp_path):
    def function(encoded):
        is_jpeg = tf.strings.substr(encoded, 0, 2) == b"\xff\xd8"  # binary, and no text of an answer
        labels = name_labels(tf.cast(is_jpeg, tf.int32))
        return {"labels": tf.strings.join(["", labels]), "raw_bytes": tf.where(is_jpeg, b"\xff\xd9", b"")}

    (problem,) = check.lint_export(save(tmp_path, function))
    assert problem.startswith(
        r"output 'labels' of signature 'serving_default' may carry b'\xe9t\xe9', which is not UTF-8"
    )


def test_text_files_beside_the_graph_must_be_utf8_and_json_json(export):
    (export / "assets").mkdir(exist_ok=True)
    (export / "assets.extra" / "more").mkdir(parents=True)
    (export / "assets" / "labels.txt").write_bytes("été".encode("latin-1"))
    (export / "assets" / "fine.txt").write_text("été", encoding="utf-8")
    (export / "assets" / "weights.bin").write_bytes(b"\xff")
    (export / "assets.extra" / "more" / "facts.json").write_text("{")
    assert [each.partition(":")[0] for each in check.lint_export(export)] == [
        "assets/labels.txt is not UTF-8",
        "assets.extra/more/facts.json is not JSON",
    ]


# ---- what loading fills


def test_variables_that_loading_does_not_fill_are_found_without_loading(tmp_path):
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3, name="head")])
    function = tf.function(model, input_signature=[tf.TensorSpec([None, 4])], autograph=False)
    tf.saved_model.save(model, str(tmp_path / "1"), function)
    (problem,) = check.lint_export(tmp_path)
    assert (
        problem.startswith("2 variables get no value at loading (such as ") and "[v.value for v in" in problem
    )


def test_values_that_are_not_on_disk_are_named(tmp_path, plain):
    module = tf.Module()
    module.kernel = tf.Variable([2.0])
    path = save(tmp_path, lambda encoded: {"y": lengths(encoded) * module.kernel}, module=module)
    assert check.lint_export(path) == []
    shutil.rmtree(path / "variables")
    shutil.copytree(plain / "variables", path / "variables")
    (problem,) = check.lint_export(path)
    assert problem.startswith(
        "variables/ lacks 1 of the values that are read at loading (such as kernel/.ATTR"
    )


def test_a_table_that_loading_does_not_fill_and_an_asset_that_is_not_there_are_found(tmp_path):
    (tmp_path / "names.txt").write_text("sky\nsea\n")
    module = tf.Module()
    source = tf.lookup.TextFileInitializer(
        str(tmp_path / "names.txt"), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, -1
    )
    module.table = tf.lookup.StaticHashTable(source, -1)
    path = save(tmp_path, lambda encoded: {"y": module.table.lookup(encoded)}, module=module)
    assert check.lint_export(path) == []
    (path / "assets" / "names.txt").unlink()
    (problem,) = check.lint_export(path)
    assert problem == "assets/names.txt, which the graph reads at loading, is not there: export again"

    def forget_initialisers(meta_graph):
        del meta_graph.signature_def["__saved_model_init_op"]
        del meta_graph.collection_def["saved_model_main_op"]

    change(path, forget_initialisers)
    problems = check.lint_export(path)
    assert any(each.startswith("the HashTableV2 is filled by nothing at loading") for each in problems)


# ---- weights and kernels


@pytest.mark.parametrize("coarse", [tf.bfloat16, tf.float16])
def test_a_weight_beside_its_rounding_is_stored_twice(tmp_path, coarse):
    module = tf.Module()
    rng = np.random.default_rng(2)
    weights, others = (rng.normal(size=[200, 300]).astype(np.float32) for _ in range(2))
    module.first, module.second = tf.Variable(weights), tf.Variable(tf.cast(weights, coarse))
    module.other = tf.Variable(others)
    (problem,) = check.lint_export(save(tmp_path, lambda encoded: {"y": lengths(encoded)}, module=module))
    assert problem.startswith("1 weights are stored more than once, 0.1 MB too much")
    assert "first" in problem and "second" in problem and "other" not in problem


def test_an_operation_whose_kernels_take_other_types_is_found():
    def kernel(device, *types, label=""):
        found = kernel_def_pb2.KernelDef(device_type=device, label=label)
        found.constraint.add(name="T").allowed_values.list.type.extend(types)
        return found

    def node(name, dtype):
        found = node_def_pb2.NodeDef(op="Mine", name=name)
        found.attr["T"].type = dtype
        return "function f", found

    kernels = [kernel("CPU", 1), kernel("CPU", 2, 3), kernel("GPU", 14), kernel("CPU", 19, label="x")]
    serialized = {"Mine": kernel_def_pb2.KernelList(kernel=kernels).SerializeToString()}
    nodes = [node("float", 1), node("int", 3), node("bfloat16", 14), node("half", 19)]
    assert lints.lint_kernels(serialized, nodes) == [
        f"operation Mine has no kernel for the types of {name} in function f: cast its inputs"
        for name in ("bfloat16", "half")
    ]


# ---- the warm-up file, as tensorflow-serving-api writes its records

IMAGES = tf.constant([b"\xff\xd8", b"GIF"])


def make_log(kind="predict", signature="serving_default", **inputs):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, f"{kind}_log").request
    request.model_spec.name = "tagger"
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return log.SerializeToString()


def write_warmup(export, *records):
    folder = export / "assets.extra"
    folder.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        for record in records:
            writer.write(record)


def test_a_warm_up_request_is_read_as_it_was_written():
    request = warmup_lint.parse_request(make_log(signature="tag", encoded=IMAGES, sizes=tf.constant([3, 5])))
    assert (request.kind, request.signature) == ("predict", "tag")
    assert request.inputs["encoded"].tolist() == [b"\xff\xd8", b"GIF"]
    assert request.inputs["sizes"].tolist() == [3, 5] and request.inputs["sizes"].dtype == np.int32


def test_warm_up_requests_that_the_server_would_fail_on_are_named(export):
    write_warmup(
        export,
        make_log(encoded=IMAGES),
        make_log(signature="", encoded=IMAGES),
        make_log(signature="serving", encoded=IMAGES),
        make_log(image=IMAGES),
        make_log(encoded=tf.constant([1.0])),
        make_log(encoded=tf.constant("one")),
        make_log("classify"),
        b"\xff\xff",
        make_log()[:-1],
        make_log("session_run"),
    )
    file = "assets.extra/tf_serving_warmup_requests: record"
    assert check.lint_export(export) == [
        f"{file} 3 calls signature 'serving', which is not there (did you mean 'serving_default'?)",
        f"{file} 4 gives 'serving_default' image: it takes encoded",
        f"{file} 5 gives input 'encoded' of 'serving_default' <float32>[1]: it takes <string>(None,)",
        f"{file} 6 gives input 'encoded' of 'serving_default' <string>[]: it takes <string>(None,)",
        f"{file} 7 is a classify request for 'serving_default', whose method name is "
        "tensorflow/serving/predict",
        f"{file} 8 is no PredictionLog (cut off)",
        f"{file} 9 is no PredictionLog (cut off)",
    ]


def test_a_warm_up_file_that_is_too_long_or_damaged_is_refused(export):
    record = make_log(encoded=IMAGES)
    write_warmup(export, *[record] * 1000)
    assert check.lint_export(export) == []
    write_warmup(export, *[record] * 1001)
    (problem,) = check.lint_export(export)
    assert "has 1001 records, and the server takes 1000 at most" in problem
    data = b"".join(frame_record(record))
    (export / "assets.extra" / "tf_serving_warmup_requests").write_bytes(data + data[:-1] + b"?")
    (problem,) = check.lint_export(export)
    assert "is damaged: corrupted or cut off at byte" in problem


def test_a_spoilt_warm_up_record_is_read_or_refused_and_nothing_else(export):
    record = make_log(encoded=IMAGES)
    for start, stop in pairwise(range(len(record) + 1)):
        for data in (record[:start], record[:start] + b"\xff" + record[stop:]):
            try:
                warmup_lint.parse_request(data)
            except (ValueError, warmup_lint.DecodeError):
                continue


def test_signatures_are_read_as_plain_data(plain):
    ((name, signature),) = fresh_process.read_signatures(plain).items()
    assert name == "serving_default"
    assert list(signature["inputs"]) == ["encoded"] and list(signature["outputs"]) == ["y"]
