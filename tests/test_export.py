"""A tiny real model's export: what Python, the C API and a TF1 session make of it, row by row."""

import dataclasses
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from tiny_model import VOCABULARY, inference_weights, make_model, make_photograph

from cnnrnn_tf.config import DecodingConfig
from cnnrnn_tf.data.images import decode_batch
from cnnrnn_tf.evaluation.calibration import Calibration, apply_temperature
from cnnrnn_tf.serving import check, fresh_process
from cnnrnn_tf.serving import export as export_module
from cnnrnn_tf.serving.check import check_export
from cnnrnn_tf.serving.export import export, load_export
from cnnrnn_tf.serving.signatures import Tagger, tag_files
from tfrecords.errors import UserError
from tfrecords.vocabulary import LabelVocabulary

DECODING = DecodingConfig(beam_size=4, max_length=3)
FLOATS = ("probabilities", "step_probabilities", "path_probability")
EXACT = ("labels", "num_labels", "valid", "error")


PHOTOGRAPHS = [make_photograph(seed, "PNG" if seed % 3 == 0 else "JPEG") for seed in range(12)]
BAD = {2: (b"", b"empty"), 5: (PHOTOGRAPHS[1][:200], b"cut off"), 13: (b"<html>", b"not an image")}
MIXED = list(PHOTOGRAPHS)
for row, (data, _) in sorted(BAD.items()):
    MIXED.insert(row, data)
GOOD_ROWS = [row for row in range(len(MIXED)) if row not in BAD]

GIVEN = [  # beside the first photographs
    ["", "", "", ""],
    ["car", "", "car", ""],
    ["tree", "sky", "", ""],
    ["été", "boat", "sea", ""],
    ["sky", "skie", "", "cat"],
    ["sky", "sea", "été", "boat"],
]


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def tagger(model):
    return Tagger(model, VOCABULARY, DECODING)


@pytest.fixture(scope="module")
def version(model, tmp_path_factory):
    """An export beside an older one and a folder that is none."""
    out_dir = tmp_path_factory.mktemp("export")
    for name in ("1", "7", "notes.99"):
        (out_dir / name).mkdir()
    return export(model, VOCABULARY, DECODING, out_dir)


@pytest.fixture(scope="module")
def loaded(version):
    return load_export(version.parent)


@pytest.fixture(scope="module")
def answers(tagger, version):
    """What each runtime gives for the two signatures: {runtime: [serving_default's, tag_given's]}."""
    calls = [
        ("serving_default", {"image_bytes": np.array(MIXED, object)}),
        (
            "tag_given",
            {
                "image_bytes": np.array(PHOTOGRAPHS[: len(GIVEN)], object),
                "given": np.array(["\n".join(names) for names in GIVEN], object),
                "absent": np.array([""] * len(GIVEN), object),
            },
        ),
    ]
    with ThreadPoolExecutor() as pool:  # two processes at once
        c_api = pool.submit(fresh_process.run_calls, fresh_process.C_API, version, calls)
        tf1 = pool.submit(fresh_process.run_calls, fresh_process.TF1, version, calls)
        in_python = [
            tagger.signatures[name](**{key: tf.constant(value.tolist()) for key, value in inputs.items()})
            for name, inputs in calls
        ]
    return {
        "python": [{key: tensor.numpy() for key, tensor in outputs.items()} for outputs in in_python],
        "c_api": c_api.result()["calls"],
        "tf1": tf1.result()["calls"],
    }


def decode_eagerly(model, files, given=None):
    """The model's own search, without the Tagger."""
    images, valid, _ = decode_batch(tf.constant(files), model.image_size)
    assert valid.numpy().all()
    if given is not None:
        given = tf.constant([[name in row for name in VOCABULARY.names] for row in given])
    return model.decode(model.extract_features(images), beam_size=4, max_length=3, given=given)


def read_path(found, row):
    tokens = found.tokens[row, 0, : found.lengths[row, 0]].numpy()
    return [VOCABULARY.names[token] for token in tokens]


def shares_by_name(found, row):
    """The marginals, summed over the candidates in NumPy."""
    weights = np.exp(found.log_probs[row].numpy())
    weights /= weights.sum()
    paths = [found.tokens[row, place].numpy() for place in range(len(weights))]
    return {
        name: sum(weight for weight, path in zip(weights, paths, strict=True) if token in path)
        for token, name in enumerate(VOCABULARY.names)
    }


def labels_of(outputs, row):
    """One row's labels, the padding checked."""
    count = outputs["num_labels"][row]
    labels = [name.decode() for name in outputs["labels"][row]]
    assert set(labels[count:]) <= {""}
    for key in ("probabilities", "step_probabilities"):
        assert not outputs[key][row, count:].any()
    return labels[:count]


def test_the_photographs_differ_enough_to_tell_rows_apart(answers):
    outputs = answers["python"][0]
    found = {tuple(labels_of(outputs, row)) for row in GOOD_ROWS}
    assert len(found) >= 4
    assert () in found


@pytest.mark.parametrize("runtime", ["c_api", "tf1"])
@pytest.mark.parametrize("call", [0, 1], ids=["serving_default", "tag_given"])
def test_the_server_s_loaders_answer_as_python_does(answers, runtime, call):
    expected, found = answers["python"][call], answers[runtime][call]
    assert set(found) == set(FLOATS + EXACT)
    for key in EXACT:
        assert found[key].tolist() == expected[key].tolist(), key
    for key in FLOATS:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, atol=1e-6, err_msg=key)


def test_an_answer_is_the_best_candidate_of_the_model_s_own_search(model, answers):
    outputs = answers["c_api"][0]
    found = decode_eagerly(model, PHOTOGRAPHS)
    assert outputs["labels"].shape == (len(MIXED), 3)
    for row, place in zip(range(len(PHOTOGRAPHS)), GOOD_ROWS, strict=True):
        labels = labels_of(outputs, place)
        assert labels == read_path(found, row)
        shares = shares_by_name(found, row)
        count = len(labels)
        np.testing.assert_allclose(
            outputs["probabilities"][place, :count], [shares[name] for name in labels], rtol=1e-4
        )
        steps = outputs["step_probabilities"][place, :count]
        np.testing.assert_allclose(np.log(steps), found.token_log_probs[row, 0, :count], rtol=1e-4, atol=1e-5)
        assert outputs["path_probability"][place] == pytest.approx(np.exp(found.log_probs[row, 0]), rel=1e-4)
        assert outputs["path_probability"][place] <= np.prod(steps) * (1 + 1e-5)  # END's own is in it


def test_bad_rows_say_why_and_carry_nothing(answers):
    outputs = answers["tf1"][0]
    assert outputs["valid"].tolist() == [row not in BAD for row in range(len(MIXED))]
    expected = [BAD[row][1] if row in BAD else b"" for row in range(len(MIXED))]
    assert outputs["error"].tolist() == expected
    for row in BAD:
        assert labels_of(outputs, row) == []
        assert outputs["path_probability"][row] == 0


def test_an_answer_does_not_depend_on_the_batch(tagger, answers):
    together = answers["python"][0]
    for row in (0, 2, 3, len(MIXED) - 1):
        alone = tagger.serving_default(tf.constant([MIXED[row]]))
        for key in EXACT:
            assert alone[key].numpy().tolist() == together[key][row : row + 1].tolist()
        for key in FLOATS:
            np.testing.assert_allclose(alone[key].numpy()[0], together[key][row], rtol=1e-4, atol=1e-6)


def test_given_labels_constrain_the_search(model, answers):
    outputs = answers["c_api"][1]
    found = decode_eagerly(model, PHOTOGRAPHS[:4], GIVEN[:4])
    assert outputs["valid"][:4].all()
    for row in range(4):
        labels = labels_of(outputs, row)
        assert labels == read_path(found, row)
        assert set(GIVEN[row]) - {""} <= set(labels)
        shares = shares_by_name(found, row)
        np.testing.assert_allclose(
            outputs["probabilities"][row, : len(labels)], [shares[name] for name in labels], rtol=1e-4
        )
    free = [labels_of(answers["c_api"][0], row) for row in GOOD_ROWS[:4]]
    assert any(set(names) - {""} - set(labels) for names, labels in zip(GIVEN[:4], free, strict=True))


def test_an_unknown_or_a_surplus_name_costs_its_row_alone(answers):
    outputs = answers["c_api"][1]
    assert outputs["valid"].tolist() == [True] * 4 + [False] * 2
    assert outputs["error"].tolist()[4:] == [
        b"unknown label 'skie' in given: send names of assets/labels.txt, joined by newlines",
        b"4 labels given, and a path has at most 3",
    ]
    assert labels_of(outputs, 4) == labels_of(outputs, 5) == []


def test_an_unknown_name_is_told_in_utf_8_and_cut_short(tagger):
    """Over REST one answer that is no UTF-8 spoils all of the response."""
    names = [
        b"\xffbad",
        b"\xe2\x82",
        "é".encode() * 5000,
        "\U0001f600".encode(),
        b"a\x00b",
        "sky",
        "",
        "été ",
    ]
    nothing = tf.constant([""] * len(names))
    outputs = tagger.tag_given(tf.constant(PHOTOGRAPHS[: len(names)]), tf.constant(names), nothing)
    told = ["\ufffdbad", "\ufffd", "é" * 100, "\U0001f600", "a\x00b", None, None, "été "]
    errors = [each.decode() for each in outputs["error"].numpy()]
    hint = " in given: send names of assets/labels.txt, joined by newlines"
    assert errors == ["" if name is None else f"unknown label '{name}'{hint}" for name in told]


def test_many_given_names_are_looked_up_in_memory_for_the_names_and_not_for_names_times_labels(tagger):
    split = tf.strings.split(tf.constant(["a\nb", "", "sky"]), "\n")
    assert split.values.shape == [4]  # a value a name, whatever the labels are
    names = ["\n".join(f"{row} {place}" for place in range(5000)) for row in range(2)]
    names.append("\n" * 4999 + "sky")
    outputs = tagger.tag_given(tf.constant(PHOTOGRAPHS[:3]), tf.constant(names), tf.constant([""] * 3))
    found = [error.decode().partition(" in given")[0] for error in outputs["error"].numpy()]
    assert found == ["unknown label '0 0'", "unknown label '1 0'", ""]
    assert b"sky" in outputs["labels"].numpy()[2]


def test_a_label_without_a_name_is_refused_for_it_would_read_as_padding():
    vocabulary = LabelVocabulary.from_counts({"sky": 2, "": 1})
    with pytest.raises(UserError, match="a label without a name, which nothing tells from the padding"):
        Tagger(make_model(vocabulary, max_path_length=2), vocabulary, DECODING)


def test_absent_labels_are_never_answered_and_one_that_is_given_too_costs_its_own_row(tagger, answers):
    rows = [row for row in GOOD_ROWS if labels_of(answers["python"][0], row)][:2]
    free = [labels_of(answers["python"][0], row) for row in rows]
    files = tf.constant([MIXED[row] for row in rows] + PHOTOGRAPHS[:4])
    absent = [*("\n".join(names) for names in free), "skie", "sea\nsky", "\n".join(VOCABULARY.names), "car"]
    outputs = tagger.tag_given(files, tf.constant(["", "", "sea", "boat\nsky", "", "car\nsea"]), absent)
    outputs = {key: tensor.numpy() for key, tensor in outputs.items()}
    for row in range(2):
        assert not set(free[row]) & set(labels_of(outputs, row))
    assert outputs["error"].tolist() == [
        b"",
        b"",
        b"unknown label 'skie' in absent: send names of assets/labels.txt, joined by newlines",
        b"label 'sky' is in given and in absent: name it in one of them",
        b"",
        b"label 'car' is in given and in absent: name it in one of them",
    ]
    assert labels_of(outputs, 4) == [] and outputs["valid"][4]  # nothing is left to emit


def test_no_given_names_at_all_change_nothing(tagger, answers):
    outputs = tagger.tag_given(tf.constant(MIXED[:2]), tf.constant(["", "\n"]), tf.constant(["", "\n\n"]))
    assert outputs["labels"].numpy().tolist() == answers["python"][0]["labels"][:2].tolist()


def test_the_file_s_fault_is_told_before_that_of_the_given_names(tagger):
    outputs = tagger.tag_given(tf.constant([b""]), tf.constant(["cat"]), tf.constant([""]))
    assert outputs["error"].numpy().tolist() == [b"empty"]


def test_given_names_need_a_row_for_each_image(tagger):
    one, two = tf.constant(["sky"]), tf.constant(["", ""])
    for word, known in (("given", (one, two)), ("absent", (two, one))):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{word}: expected one row an image"):
            tagger.tag_given(tf.constant(MIXED[:2]), *known)


def test_weights_that_are_no_numbers_give_an_error_and_not_an_answer(model, tagger):
    kernel = model.decoder.output_projection.kernel
    kept = kernel.numpy()
    try:
        kernel.assign(np.full_like(kept, np.nan))
        outputs = tagger.serving_default(tf.constant(PHOTOGRAPHS[:1] + [b""]))
    finally:
        kernel.assign(kept)
    assert outputs["error"].numpy().tolist() == [b"the model gives no numbers: its weights are NaN", b"empty"]
    assert outputs["num_labels"].numpy().tolist() == [0, 0]


def test_files_are_tagged_alike_in_any_batches_by_the_run_s_model_and_its_export(tagger, loaded):
    by_tagger = list(tag_files(tagger, iter(MIXED), batch_size=4))
    by_export = list(tag_files(loaded, MIXED, batch_size=100))
    assert [len(by_tagger), len(by_export)] == [len(MIXED)] * 2
    for first, second in zip(by_tagger, by_export, strict=True):
        assert (first.labels, first.error) == (second.labels, second.error)
        np.testing.assert_allclose(first.probabilities, second.probabilities, rtol=1e-4)
        assert len(first.labels) == len(first.probabilities) == len(first.step_probabilities)
    assert by_tagger[2].error == "empty" and not by_tagger[2].valid
    (known,) = tag_files(tagger, PHOTOGRAPHS[:1], given=["car", "été"])
    assert {"car", "été"} <= set(known.labels)


def test_an_image_without_labels_and_one_with_all_of_a_one_label_vocabulary():
    vocabulary = LabelVocabulary.from_counts({"sky": 1})
    model = make_model(vocabulary, max_path_length=1)
    embeddings = model.decoder.label_embeddings
    # What the joint space holds is never negative: END scores above the label for every image.
    embeddings.assign(np.stack([np.full(64, -1.0), np.full(64, 1.0)]))
    tagger = Tagger(model, vocabulary, DecodingConfig())
    assert tagger.max_length == 1  # the longest training path
    outputs = tagger.tag_given(tf.constant(PHOTOGRAPHS[:2]), tf.constant(["", "sky"]), tf.constant(["", ""]))
    outputs = {key: tensor.numpy() for key, tensor in outputs.items()}
    assert outputs["valid"].all()
    assert [labels_of(outputs, row) for row in (0, 1)] == [[], ["sky"]]
    assert outputs["probabilities"].tolist() == [[0.0], [pytest.approx(1.0)]]
    without, with_all = outputs["path_probability"]
    assert 0.5 < without <= 1
    # The path's probability is not scaled up to the constraint: both answers' are the model's.
    assert with_all <= outputs["step_probabilities"][1, 0] <= 1 - 0.5


# ---- calibrated probabilities

CALIBRATION = Calibration(2.5, 0.3, [0.3, 0.2, 0.3, 0.4, 0.3, 0.5], 0.09, 0.02, 40, VOCABULARY.fingerprint)


@pytest.fixture(scope="module")
def calibrated_version(model, tmp_path_factory):
    return export(model, VOCABULARY, DECODING, tmp_path_factory.mktemp("calibrated"), CALIBRATION)


def test_probabilities_are_calibrated_in_the_graph_and_nothing_else_changes(answers, calibrated_version):
    inputs = {"image_bytes": np.array(MIXED, object)}
    result = fresh_process.run_calls(fresh_process.C_API, calibrated_version, [("serving_default", inputs)])
    expected, found = answers["python"][0], result["calls"][0]
    for key in EXACT:
        assert found[key].tolist() == expected[key].tolist(), key
    for key in ("step_probabilities", "path_probability"):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, atol=1e-6)
    is_label = np.arange(3) < expected["num_labels"][:, np.newaxis]
    assert is_label.any() and not found["probabilities"][~is_label].any()  # the padding stays 0
    marginals = expected["probabilities"][is_label].astype(float)
    shrunk = 1e-4 + (1 - 2e-4) * marginals
    np.testing.assert_allclose(
        found["probabilities"][is_label],
        1 / (1 + (1 / shrunk - 1) ** (1 / 2.5)),  # sigmoid(logit(p) / T) is p^(1/T) / (p^(1/T) + q^(1/T))
        rtol=1e-4,
    )
    assert np.abs(found["probabilities"][is_label] - marginals).max() > 0.05


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5, 10.0])
def test_the_graph_s_map_is_that_of_numpy_also_at_0_and_1(model, temperature):
    tagger = Tagger(model, VOCABULARY, DECODING, dataclasses.replace(CALIBRATION, temperature=temperature))
    marginals = np.float32([[0, 1, 0.5, 1e-6, 1 - 1e-6, 0.9]])
    found = tagger.answers._calibrate(tf.constant(marginals), None).numpy()
    np.testing.assert_allclose(found, apply_temperature(marginals, temperature), rtol=2e-5)
    assert found[0, 0] > 0 and found[0, 2] == 0.5


def test_the_run_s_tagger_and_its_export_calibrate_alike(model, calibrated_version):
    tagger, loaded = Tagger(model, VOCABULARY, DECODING, CALIBRATION), load_export(calibrated_version)
    for first, second in zip(tag_files(tagger, MIXED), tag_files(loaded, MIXED), strict=True):
        assert (first.labels, first.error) == (second.labels, second.error)
        np.testing.assert_allclose(first.probabilities, second.probabilities, rtol=1e-4)


def test_of_a_given_label_there_is_nothing_to_calibrate(model, tagger):
    calibrated = Tagger(model, VOCABULARY, DECODING, CALIBRATION)
    (plain,) = tag_files(tagger, PHOTOGRAPHS[:1], given=["car"])
    (found,) = tag_files(calibrated, PHOTOGRAPHS[:1], given=["car"])
    assert found.labels == plain.labels
    for label, before, after in zip(plain.labels, plain.probabilities, found.probabilities, strict=True):
        expected = before if label == "car" else float(apply_temperature(before, 2.5))
        assert after == pytest.approx(expected, rel=1e-4)
    assert dict(zip(found.labels, found.probabilities, strict=True))["car"] == pytest.approx(1)


def test_the_calibration_is_in_the_export_s_assets_and_read_back(calibrated_version, loaded):
    assert Calibration.load(calibrated_version / "assets", VOCABULARY) == CALIBRATION
    assert load_export(calibrated_version).calibration == CALIBRATION
    assert loaded.calibration is None
    assert not (loaded.path / "assets" / "calibration.json").exists()
    assert check.lint_export(calibrated_version) == []


def test_a_calibration_of_other_labels_is_refused(model, calibrated_version, tmp_path):
    other = dataclasses.replace(CALIBRATION, vocabulary_fingerprint="f" * 64)
    with pytest.raises(
        UserError, match=r"calibration: was fitted for another vocabulary .ffffffffffff, this"
    ):
        export(model, VOCABULARY, DECODING, tmp_path / "out", other)
    assert not (tmp_path / "out").exists()
    copy = shutil.copytree(calibrated_version, tmp_path / "1")
    other.save(copy / "assets")
    with pytest.raises(UserError, match=r"calibration.json: was fitted for another vocabulary"):
        load_export(tmp_path)


# ---- the folder


def test_the_export_has_the_next_number_and_all_that_reads_it_back(version, loaded):
    assert version.name == "8"
    assert sorted(path.name for path in version.parent.iterdir()) == ["1", "7", "8", "notes.99"]
    assert LabelVocabulary.load(version / "assets") == VOCABULARY
    facts = json.loads((version / "assets" / "export.json").read_text())
    assert facts["decoding"] == {
        "beam_size": 4,
        "min_length": 0,
        "max_length": 3,
        "renormalise": False,
        "length_penalty": 0.0,
    }
    assert (facts["image_size"], facts["num_labels"]) == (32, 6)
    assert facts["max_beam_size"] == 10
    assert facts["signatures"]["tag_given"]["inputs"] == ["image_bytes", "given", "absent"]
    assert (version / "assets" / "labels.txt").read_text(encoding="utf-8").splitlines() == [*VOCABULARY.names]
    assert (loaded.path, loaded.vocabulary, loaded.max_length) == (version, VOCABULARY, 3)


def test_an_export_with_its_files_in_the_old_place_is_still_read(version, tmp_path):
    old = shutil.copytree(version, tmp_path / "1")
    shutil.rmtree(old / "assets.extra")
    (old / "assets").rename(old / "assets.extra")
    facts = json.loads((old / "assets.extra" / "export.json").read_text())
    del facts["part"]
    (old / "assets.extra" / "export.json").write_text(json.dumps(facts))
    assert load_export(tmp_path).vocabulary == VOCABULARY


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "head"}, "part 'head': expected whole, backbone or decoder"),
        ({"part": "decoder", "precision": "bfloat16"}, "precision bfloat16: the decoder computes in float32"),
        (
            {"precision": "float16"},
            "precision 'float16' .did you mean 'bfloat16'.*: expected float32 or bfloat16",
        ),
        ({"max_beam_size": 3}, "max_beam_size 3: expected at least the configured beam size, 4"),
        ({"warmup_batch_size": 0}, "warm-up batch size 0: expected 1 or more"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_written(model, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        export(model, VOCABULARY, DECODING, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_export_passes_the_lints(version):
    assert check.lint_export(version) == []


def test_each_signature_s_function_is_in_the_graph_once(version):
    library = fresh_process.read_meta_graph(version).graph_def.library.function
    operations = [node.op for function in library for node in function.node_def]
    assert operations.count("DatasetToSingleElement") == 2  # where image files and tf.Examples are collected
    assert operations.count("Conv2D") == 4  # the CNN, which six signatures share


def test_what_a_label_adds_is_looked_up_in_tables_and_never_multiplied(model, tagger):
    decoder, tables = model.decoder, tagger.answers.tables
    for table, expected in zip(tables, decoder.tabulate(), strict=True):
        np.testing.assert_array_equal(table.numpy(), expected)
    multiplied = {decoder.cell.kernel.value.ref(), decoder.start_embedding.value.ref()}
    for name in ("serving_default", "tag", "tag_given", "scores", "classify"):
        read = {variable.ref() for variable in tagger.signatures[name].get_concrete_function().variables}
        assert {table.ref() for table in tables} <= read and not read & multiplied, name
        assert decoder.cell.recurrent_kernel.value.ref() in read, name


def test_each_weight_is_in_the_checkpoint_once(model, version):
    stored = tf.train.load_checkpoint(str(version / "variables" / "variables")).get_variable_to_shape_map()
    sizes = sorted(int(np.prod(shape)) for name, shape in stored.items() if "GRAPH" not in name)
    assert [size for size in sizes if size > 1] == sorted(
        int(np.prod(weight.shape))
        for weight in (
            *inference_weights(model.backbone),
            *model.decoder.weights,
            *model.decoder.tabulate(),
        )
        if np.prod(weight.shape) > 1
    )


@pytest.fixture
def quick_tagger(monkeypatch, tagger):
    """Exports reuse the tagger that is traced already."""
    monkeypatch.setattr(export_module, "Tagger", lambda *_: tagger)


def test_a_version_appears_whole_and_under_a_number_that_nobody_took_meanwhile(
    quick_tagger, monkeypatch, model, tmp_path
):
    seen, save = [], tf.saved_model.save

    def save_beside_another_export(module, path, signatures):
        save(module, path, signatures)
        (tmp_path / "1" / "variables").mkdir(parents=True)
        seen.extend(sorted(os.listdir(tmp_path)))

    numbers = iter([1, 2])
    monkeypatch.setattr(export_module, "_next_version", lambda _: next(numbers))
    monkeypatch.setattr(tf.saved_model, "save", save_beside_another_export)
    assert export(model, VOCABULARY, DECODING, tmp_path) == tmp_path / "2"
    assert len(seen) == 2 and seen[0].startswith(".partial-") and seen[1] == "1"
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


@pytest.mark.parametrize("stage", ["_hold_weights", "_name_classify_method", "_write_assets", "_publish"])
def test_an_export_that_fails_at_any_point_leaves_nothing_behind(
    quick_tagger, monkeypatch, model, tmp_path, stage
):
    def fill_the_disk(*_):
        assert stage == "_hold_weights" or len(os.listdir(tmp_path)) == 1
        raise OSError("no space left")

    def save_no_graph(module, path, signatures):  # takes seconds, and is not what fails
        os.mkdir(path)

    monkeypatch.setattr(tf.saved_model, "save", save_no_graph)
    monkeypatch.setattr(export_module, "_name_classify_method", lambda _: None)
    monkeypatch.setattr(export_module, stage, fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        export(model, VOCABULARY, DECODING, tmp_path)
    assert os.listdir(tmp_path) == []


def test_several_exports_at_once_each_get_a_version_of_their_own(quick_tagger, monkeypatch, model, tmp_path):
    barrier = threading.Barrier(4)

    def save_no_graph(module, path, signatures):
        os.mkdir(path)
        barrier.wait(timeout=60)

    monkeypatch.setattr(tf.saved_model, "save", save_no_graph)
    monkeypatch.setattr(export_module, "_name_classify_method", lambda _: None)
    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(lambda _: export(model, VOCABULARY, DECODING, tmp_path), range(4)))
    assert sorted(path.name for path in versions) == sorted(os.listdir(tmp_path)) == ["1", "2", "3", "4"]
    for path in versions:
        assert (path / "assets" / "model_card.md").is_file()
        assert (path / "assets.extra" / "tf_serving_warmup_requests").is_file()


def test_a_model_of_another_vocabulary_is_refused(model, tmp_path):
    other = LabelVocabulary.from_counts(dict(zip(VOCABULARY.names, range(6, 0, -1), strict=True)))
    with pytest.raises(UserError, match=f"trained on vocabulary {VOCABULARY.fingerprint[:12]}"):
        export(model, other, DECODING, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options_that_cannot_be_decoded_with_are_refused_before_anything_is_written(model, tmp_path):
    with pytest.raises(UserError, match="a max_length from 1 to 6, the number of labels, got 7"):
        export(model, VOCABULARY, DecodingConfig(max_length=7), tmp_path)
    assert os.listdir(tmp_path) == []


def test_an_export_with_another_vocabulary_or_damaged_weights_is_refused(version, tmp_path):
    other = shutil.copytree(version, tmp_path / "1")
    LabelVocabulary.from_counts({"moon": 2, "sun": 1}).save(other / "assets" / "vocabulary.json")
    with pytest.raises(UserError, match=r"vocabulary.json: is the vocabulary of another model"):
        load_export(tmp_path)
    damaged = shutil.copytree(version, tmp_path / "2")
    [weights] = (damaged / "variables").glob("variables.data*")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"2 does not load .*: export the run again"):
        load_export(tmp_path)
    report = check_export(tmp_path)
    assert not report.ok and "its variables cannot be read" in report.problems[0]


def test_a_folder_that_is_no_export_of_ours_is_refused(tmp_path):
    with pytest.raises(UserError, match="no export at"):
        load_export(tmp_path / "nowhere")
    module = tf.Module()
    module.f = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([None], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "1"), {"serving_default": module.f})
    with pytest.raises(UserError, match=r"assets.vocabulary.json: no vocabulary there"):
        load_export(tmp_path)
    VOCABULARY.save(tmp_path / "1" / "assets" / "vocabulary.json")
    with pytest.raises(UserError, match=r"export.json: missing or damaged: export the run again"):
        load_export(tmp_path)
    (tmp_path / "1" / "assets" / "export.json").write_text(
        json.dumps({"vocabulary_fingerprint": VOCABULARY.fingerprint})
    )
    with pytest.raises(UserError, match="no signature tag_given: export the run again"):
        load_export(tmp_path)
