"""What each signature of a tiny real model's export answers through the C API, row by row; and its halves."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_model import VOCABULARY, inference_weights, make_model, make_photograph

from cnnrnn_tf.config import DecodingConfig
from cnnrnn_tf.data.images import decode_batch
from cnnrnn_tf.evaluation.calibration import Calibration, apply_temperature
from cnnrnn_tf.model.beam_search import BeamResult, rank_labels
from cnnrnn_tf.serving import check, fresh_process
from cnnrnn_tf.serving.answers import Answers
from cnnrnn_tf.serving.export import BACKBONE, DECODER, export, load_export
from cnnrnn_tf.serving.signatures import FeatureTagger, Tagger
from tfrecords.errors import UserError

DECODING = DecodingConfig(beam_size=4, max_length=3)
CALIBRATION = Calibration(2.5, 0.3, [0.3, 0.2, 0.3, 0.4, 0.3, 0.5], 0.09, 0.02, 40, VOCABULARY.fingerprint)

PHOTOGRAPHS = [make_photograph(seed) for seed in range(6)]
FILES = [*PHOTOGRAPHS[:3], b"", PHOTOGRAPHS[0][:200], *PHOTOGRAPHS[3:]]
GOOD_ROWS = [0, 1, 2, 5, 6, 7]
IMAGES = {"image_bytes": np.array(FILES, object)}

OPTION_KINDS = {"beam_size": "int32", "min_length": "int32", "max_length": "int32", "threshold": "float32"}
OPTIONS = [  # of each row, and its error
    (4, 0, 3, 0.0, b""),
    (1, 0, 3, 0.0, b""),
    (10, 0, 3, 0.0, b""),
    (2, 2, 3, 0.0, b""),
    (3, 0, 1, 0.0, b""),
    (4, 3, 3, 0.6, b""),  # which the second of three labels does not reach
    (4, 3, 3, 1.0, b""),
    (0, 0, 3, 0.0, b"beam_size 0: expected 1 to 10"),
    (11, 0, 3, 0.0, b"beam_size 11: expected 1 to 10"),
    (4, 2, 1, 0.0, b"min_length 2: expected 0 to 1"),
    (4, 0, 4, 0.0, b"max_length 4: expected 1 to 3"),
    (4, 0, 3, np.nan, b"threshold nan: expected 0 to 1"),
    (4, -2, 3, 0.0, b"min_length -2: expected 0 to 3"),
    (4, 0, 3, 1.25, b"threshold 1.25: expected 0 to 1"),
    (4, 0, 3, 0.0, b"empty"),
    (99, 0, 3, 0.0, b"not an image"),  # the file's fault is told first
]
OPTION_FILES = [PHOTOGRAPHS[row % len(PHOTOGRAPHS)] for row in range(len(OPTIONS))]
OPTION_FILES[-2:] = [b"", b"junk"]


def make_example(**features):
    proto = tf.train.Features(feature={key.replace("__", "/"): value for key, value in features.items()})
    return tf.train.Example(features=proto).SerializeToString()


def hold_bytes(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


EXAMPLES = [
    make_example(image__encoded=hold_bytes(PHOTOGRAPHS[2]), other=hold_bytes(b"of no account")),
    b"\xff\xff no proto",
    make_example(image__encoded=hold_bytes(PHOTOGRAPHS[0])),
    b"",
    make_example(image=hold_bytes(PHOTOGRAPHS[1])),
    make_example(image__encoded=tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))),
    make_example(image__encoded=tf.train.Feature(float_list=tf.train.FloatList(value=[0.5]))),
    make_example(image__encoded=hold_bytes(PHOTOGRAPHS[1], PHOTOGRAPHS[2])),
    make_example(image__encoded=hold_bytes(b"no image")),
    make_example(image__encoded=hold_bytes(PHOTOGRAPHS[5])),
]
GOOD_EXAMPLES = {0: 2, 2: 0, 9: 5}  # row: photograph; that of row 0 has labels

CALLS = [
    ("serving_default", IMAGES),
    (
        "tag",
        {
            "image_bytes": np.array(OPTION_FILES, object),
            **{
                name: np.array([row[place] for row in OPTIONS], kind)
                for place, (name, kind) in enumerate(OPTION_KINDS.items())
            },
        },
    ),
    (
        "tag_given",
        {
            **IMAGES,
            "given": np.array(["sea"] * 6 + ["sky\nsue", ""], object),
            "absent": np.array(["", "sky\nété"] * 4, object),
        },
    ),
    ("scores", IMAGES),
    ("embed", IMAGES),
    ("classify", {"inputs": np.array(EXAMPLES, object)}),
]
PLACES = {name: place for place, (name, _) in enumerate(CALLS)}


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def tagger(model):
    return Tagger(model, VOCABULARY, DECODING, CALIBRATION)


@pytest.fixture(scope="module")
def version(model, tmp_path_factory):
    return export(model, VOCABULARY, DECODING, tmp_path_factory.mktemp("export"), CALIBRATION)


@pytest.fixture(scope="module")
def answers(version):
    """What each signature gives through the C API, by name."""
    calls = fresh_process.run_calls(fresh_process.C_API, version, CALLS)["calls"]
    assert [call for call in calls if isinstance(call, str)] == []
    return dict(zip(PLACES, calls, strict=True))


@pytest.fixture(scope="module")
def features(model):
    images, valid, _ = decode_batch(tf.constant(PHOTOGRAPHS), model.image_size)
    assert valid.numpy().all()
    return model.extract_features(images)


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for key, values in expected.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[key], values, rtol=1e-4, atol=1e-5, err_msg=key)
        else:
            assert found[key].tolist() == values.tolist(), key


def names_of(outputs, row):
    return [name.decode() for name in outputs["labels"][row][: outputs["num_labels"][row]]]


@pytest.mark.parametrize("name", PLACES)
def test_every_signature_answers_through_the_c_api_as_python_does(tagger, answers, name):
    inputs = CALLS[PLACES[name]][1]
    constants = {
        key: tf.constant(value.tolist(), tf.string if value.dtype == object else value.dtype)
        for key, value in inputs.items()
    }
    expected = tagger.signatures[name](**constants)
    assert_equal(answers[name], {key: tensor.numpy() for key, tensor in expected.items()})


def test_a_request_without_rows_is_answered_with_none(version):
    calls = [(name, {key: values[:0] for key, values in inputs.items()}) for name, inputs in CALLS]
    found = fresh_process.run_calls(fresh_process.C_API, version, calls)["calls"]
    assert [call for call in found if isinstance(call, str)] == []
    for outputs in found:
        assert {len(values) for values in outputs.values()} == {0}


@pytest.mark.parametrize("name", ["serving_default", "tag_given", "scores", "embed"])
def test_a_bad_file_costs_its_own_row_and_says_why(answers, name):
    outputs = answers[name]
    assert outputs["error"].tolist()[3:5] == [b"empty", b"cut off"]
    assert outputs["valid"].tolist()[3:6] == [False, False, True]
    for key, values in outputs.items():
        if key not in ("error", "valid"):
            assert not values[3:5].any(), key  # "" and 0
            assert key in ("labels", "num_labels") or values[GOOD_ROWS].any(), key


# ---- tag


def test_each_row_of_tag_is_the_search_that_its_own_options_describe(model, features, answers):
    outputs = answers["tag"]
    for row, (beam_size, min_length, max_length, threshold, error) in enumerate(OPTIONS):
        if error:
            continue
        place = row % len(PHOTOGRAPHS)
        found = model.decode(
            features[place : place + 1],
            beam_size=beam_size,
            min_length=min_length,
            max_length=3,
            row_max_length=tf.constant([max_length]),
        )
        marginals = found.marginals[0].numpy()
        path = found.tokens[0, 0, : found.lengths[0, 0]].numpy()
        probabilities = apply_temperature(marginals[path], CALIBRATION.temperature)
        expected = [VOCABULARY.names[token] for token in path[probabilities >= threshold]]
        assert outputs["error"][row] == b""
        assert names_of(outputs, row) == expected, row
        count = len(expected)
        np.testing.assert_allclose(
            outputs["probabilities"][row, :count], probabilities[probabilities >= threshold], rtol=1e-4
        )
        assert not outputs["probabilities"][row, count:].any()
        assert outputs["path_probability"][row] == pytest.approx(np.exp(found.log_probs[0, 0]), rel=1e-4)


def test_the_rows_of_tag_differ_by_their_options(answers):
    outputs = answers["tag"]
    assert outputs["num_labels"][[5, 6]].tolist() == [2, 0]  # of paths of three labels
    assert outputs["valid"][6]
    assert outputs["num_labels"][3] >= 2 and outputs["num_labels"][4] <= 1


@pytest.mark.parametrize(("threshold", "expected"), [(1.0, 1), (0.99, 1), (0.5, 2), (0.50001, 1)])
def test_a_threshold_of_1_keeps_a_label_on_all_candidates_however_its_marginal_was_rounded(
    model, threshold, expected
):
    found = BeamResult(
        tokens=tf.constant([[[2, 0, 6]]]),
        lengths=tf.constant([[2]]),
        log_probs=tf.constant([[-1.0]]),
        token_log_probs=tf.constant([[[-0.5, -0.25, 0.0]]]),
        marginals=tf.constant([[0.5, 0, 1 - 2**-23, 0, 0, 0]]),
        step_probs=None,
        num_steps=tf.constant([3]),
    )
    answers = Answers(model, VOCABULARY, DECODING)
    outputs = answers._name_labels(found, tf.constant([""]), threshold=tf.constant([threshold]))
    assert names_of({key: tensor.numpy() for key, tensor in outputs.items()}, 0) == ["été", "sky"][:expected]


def test_an_option_out_of_its_bounds_is_its_row_s_error(answers):
    outputs = answers["tag"]
    assert outputs["error"].tolist() == [row[4] for row in OPTIONS]
    assert outputs["valid"].tolist() == [error == b"" for error in outputs["error"]]
    bad = ~outputs["valid"]
    assert not outputs["num_labels"][bad].any() and not outputs["path_probability"][bad].any()


def test_the_configured_options_give_the_configured_answer(answers):
    row = {key: values[:1] for key, values in answers["tag"].items()}
    assert_equal(row, {key: values[:1] for key, values in answers["serving_default"].items()})


def test_the_widest_beam_is_fixed_when_the_tagger_is_made(model):
    wide = Tagger(model, VOCABULARY, DecodingConfig(beam_size=12, max_length=3))
    assert wide.answers.max_beam_size == 12
    assert Tagger(model, VOCABULARY, DECODING, max_beam_size=20).answers.max_beam_size == 20
    with pytest.raises(UserError, match="max_beam_size 11: expected at least the configured beam size, 12"):
        Tagger(model, VOCABULARY, DecodingConfig(beam_size=12), max_beam_size=11)


def test_options_need_a_row_for_each_image(tagger):
    one = tf.constant([1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="beam_size: expected one row an image"):
        tagger.tag(tf.constant(FILES[:2]), one, one, one, tf.constant([0.0]))


# ---- scores, embed, classify


def test_scores_are_the_calibrated_marginals_of_all_labels_in_the_order_of_ids(model, features, answers):
    outputs = answers["scores"]
    found = model.decode(features, beam_size=4, max_length=3)
    marginals = found.marginals.numpy()
    on_a_candidate = np.array(
        [[label in found.tokens[row].numpy() for label in range(6)] for row in range(len(PHOTOGRAPHS))]
    )
    assert on_a_candidate.any() and not on_a_candidate.all()
    expected = np.where(on_a_candidate, apply_temperature(marginals, CALIBRATION.temperature), 0)
    np.testing.assert_allclose(outputs["scores"][GOOD_ROWS], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(outputs["ranking"][GOOD_ROWS], rank_labels(found), rtol=1e-4)
    for row in GOOD_ROWS:
        assert [name.decode() for name in outputs["labels"][row]] == list(VOCABULARY.names)


def test_scores_and_ranking_order_labels_alike_and_the_ranking_leaves_no_ties(answers):
    scores, ranking = (answers["scores"][key][GOOD_ROWS] for key in ("scores", "ranking"))
    order = np.argsort(-ranking, axis=1)
    assert (np.diff(np.take_along_axis(scores, order, axis=1)) <= 1e-7).all()
    assert ((ranking < 0) == (scores == 0)).all()
    assert all(len(set(row[row < 0])) == (row < 0).sum() for row in ranking)


def test_scores_of_the_path_s_labels_are_the_probabilities_of_serving_default(answers):
    tagged, scored = answers["serving_default"], answers["scores"]
    for row in GOOD_ROWS:
        for place, name in enumerate(names_of(tagged, row)):
            score = scored["scores"][row, VOCABULARY.id(name)]
            assert score == pytest.approx(tagged["probabilities"][row, place], rel=1e-4)


def test_the_embedding_is_the_projection_of_the_standardised_features(model, features, answers):
    decoder = model.decoder
    mean, scale = decoder.feature_mean.numpy(), decoder.feature_scale.numpy()
    standardised = np.clip((features.numpy() - mean) * scale, -10, 10)
    expected = standardised @ decoder.feature_projection.kernel.numpy()
    np.testing.assert_allclose(answers["embed"]["embedding"][GOOD_ROWS], expected, rtol=1e-3, atol=1e-4)


def test_weights_that_are_no_numbers_give_an_error_and_no_embedding(model, tagger):
    kernel = model.decoder.feature_projection.kernel
    kept = kernel.numpy()
    try:
        kernel.assign(np.full_like(kept, np.nan))
        outputs = tagger.embed(tf.constant([PHOTOGRAPHS[0], b""]))
    finally:
        kernel.assign(kept)
    assert outputs["error"].numpy().tolist() == [b"the model gives no numbers: its weights are NaN", b"empty"]
    assert not outputs["embedding"].numpy().any()


def test_classify_gives_the_labels_of_the_files_in_tf_examples_and_none_for_broken_ones(tagger, answers):
    outputs = answers["classify"]
    expected = tagger.serving_default(tf.constant(PHOTOGRAPHS))
    for row in range(len(EXAMPLES)):
        if row in GOOD_EXAMPLES:
            place = GOOD_EXAMPLES[row]
            assert outputs["classes"][row].tolist() == expected["labels"][place].numpy().tolist()
            np.testing.assert_allclose(outputs["scores"][row], expected["probabilities"][place], rtol=1e-4)
        else:
            assert not outputs["classes"][row].any() and not outputs["scores"][row].any()
    assert outputs["classes"][list(GOOD_EXAMPLES)].any()


def test_the_server_takes_classify_for_its_classify_api_and_all_others_for_predict(version):
    signatures = fresh_process.public_signatures(fresh_process.read_meta_graph(version))
    assert {name: signature.method_name.rpartition("/")[2] for name, signature in signatures.items()} == {
        **dict.fromkeys(PLACES, "predict"),
        "classify": "classify",
    }
    assert sorted(signatures["classify"].outputs) == ["classes", "scores"]  # all that the API takes
    assert load_export(version).signatures.keys() == set(PLACES)


# ---- halves of a model


@pytest.fixture(scope="module")
def halves(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("halves")
    return {
        part: export(model, VOCABULARY, DECODING, folder / part, CALIBRATION, part=part)
        for part in (BACKBONE, DECODER)
    }


def test_the_two_halves_one_after_the_other_answer_as_the_whole(halves, answers):
    backbone = fresh_process.run_calls(fresh_process.C_API, halves[BACKBONE], CALLS[:1])["calls"][0]
    assert backbone["features"].shape == (len(FILES), 512)
    assert backbone["error"].tolist() == answers["serving_default"]["error"].tolist()
    assert not backbone["features"][3:5].any()
    rows = backbone["features"][GOOD_ROWS]
    known = {name: CALLS[PLACES["tag_given"]][1][name][GOOD_ROWS] for name in ("given", "absent")}
    one = np.ones(len(rows), np.int32)
    options = {"beam_size": 4 * one, "min_length": 0 * one, "max_length": 3 * one, "threshold": 0.0 * one}
    options["threshold"] = options["threshold"].astype(np.float32)
    calls = [
        ("serving_default", {"features": rows}),
        ("tag_given", {"features": rows, **known}),
        ("scores", {"features": rows}),
        ("embed", {"features": rows}),
        ("tag", {"features": rows, **options}),
    ]
    found = fresh_process.run_calls(fresh_process.C_API, halves[DECODER], calls)["calls"]
    for (name, _), outputs in zip(calls, found, strict=True):
        whole = answers["serving_default" if name == "tag" else name]
        assert_equal(outputs, {key: values[GOOD_ROWS] for key, values in whole.items()})


def test_each_half_has_its_own_weights_alone_and_passes_the_lints(model, halves):
    decoder_weights = [*model.decoder.weights, *model.decoder.tabulate()]
    for part, weights in ((BACKBONE, inference_weights(model.backbone)), (DECODER, decoder_weights)):
        assert check.lint_export(halves[part]) == []
        prefix = str(halves[part] / "variables" / "variables")
        stored = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
        sizes = sorted(int(np.prod(shape)) for name, shape in stored.items() if "GRAPH" not in name)
        expected = sorted(int(np.prod(weight.shape)) for weight in weights)
        assert [size for size in sizes if size > 1] == [size for size in expected if size > 1]


def test_features_that_are_no_numbers_cost_their_own_row(model, features):
    tagger = FeatureTagger(model, VOCABULARY, DECODING)
    rows = features.numpy()[:4].copy()
    rows[1, 7], rows[3, 0] = np.nan, -np.inf
    outputs = tagger.signatures["serving_default"](features=tf.constant(rows))
    alone = tagger.signatures["serving_default"](features=features[:1])
    message = b"the features hold NaN or infinity"
    assert outputs["error"].numpy().tolist() == [b"", message, b"", message]
    assert outputs["labels"][0].numpy().tolist() == alone["labels"][0].numpy().tolist()
    assert not outputs["path_probability"].numpy()[[1, 3]].any()


def test_half_a_model_is_not_read_as_a_whole_one(halves):
    for part, path in halves.items():
        with pytest.raises(UserError, match=f"holds the {part} alone, which tags no files"):
            load_export(path)
