"""bfloat16 backbones: what is stored and computed in which type, how far features move, and what is said."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_model import VOCABULARY, make_model, make_photograph

from cnnrnn_tf.config import DecodingConfig
from cnnrnn_tf.data.images import decode_batch
from cnnrnn_tf.model.backbones import Backbone
from cnnrnn_tf.model.cnn_rnn import CNNRNN
from cnnrnn_tf.serving import check, fresh_process, precision
from cnnrnn_tf.serving.export import BACKBONE, export
from cnnrnn_tf.serving.precision import (
    describe_bfloat16,
    make_extractor,
    prepare_for_inference,
    to_float32,
)
from cnnrnn_tf.serving.signatures import Tagger
from tfrecords.errors import UserError

PHOTOGRAPHS = [make_photograph(seed) for seed in range(6)]


def make_images(size):
    images, valid, _ = decode_batch(tf.constant(PHOTOGRAPHS), size)
    assert valid.numpy().all()
    return images


def unsettle(backbone):
    """Statistics as after training: those of fresh batch normalisation are 0 and 1, which any type holds."""
    rng = np.random.default_rng(0)
    for weight in backbone.weights:
        if weight.path.endswith(("moving_mean", "beta")):
            weight.assign(rng.normal(0, 0.1, weight.shape))
        elif weight.path.endswith(("moving_variance", "gamma")):
            weight.assign(rng.uniform(0.7, 1.3, weight.shape))


@pytest.mark.parametrize(
    "name",
    [
        "compact",
        "mobilenet_v2",
        pytest.param("resnet50", marks=pytest.mark.long),
        pytest.param("vgg16", marks=pytest.mark.long),
    ],
)
def test_features_in_bfloat16_are_close_and_weights_in_it_where_it_pays(name):
    tf.keras.utils.set_random_seed(0)
    layer = "pooled" if name == "vgg16" else None  # fc7 has half a gigabyte of weights
    backbone = Backbone(name, layer, 64)
    backbone.build()
    unsettle(backbone)
    images = make_images(64)
    extract, weights = make_extractor(backbone, "bfloat16")
    expected, found = backbone(images).numpy(), extract(images).numpy()
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)
    assert np.abs(found - expected).max() > 0  # or nothing was computed in bfloat16
    # Every batch normalisation of these networks follows a convolution, and is in its weights.
    in_bfloat16 = {weight.path for weight in weights if weight.dtype == "bfloat16"}
    if name == "mobilenet_v2":  # all others are next to depthwise convolutions
        assert in_bfloat16 == {"Conv_1/kernel", "Conv_1/bias"}
    else:
        assert in_bfloat16 == {weight.path for weight in weights}
    num_kernels = sum(np.prod(w.shape) for w in backbone.weights if w.path.endswith("kernel"))
    assert num_kernels < sum(np.prod(w.shape) for w in weights) < 1.05 * num_kernels


def test_batch_normalisation_stays_where_it_cannot_join_a_convolution():
    layers = keras.layers
    images = keras.Input([32, 32, 3])
    x = layers.BatchNormalization(name="before")(images)
    read_twice = layers.Conv2D(8, 3, name="read_twice")(x)
    x = layers.Add()([layers.BatchNormalization(name="of_one_reader")(read_twice), read_twice])
    x = layers.Conv2D(8, 3, activation="relu", name="bent")(x)
    x = layers.BatchNormalization(name="after_relu")(x)
    x = layers.Conv2D(8, 1, name="joined")(x)
    x = layers.BatchNormalization(scale=False, epsilon=0.5, name="no_scale")(x)
    x = layers.Conv2D(8, 1, name="before_deep")(layers.ReLU(name="bend")(x))
    x = layers.ReLU(name="bend_float32")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="deep")(x)
    x = layers.BatchNormalization(center=False, name="no_center")(x)
    network = keras.Model(images, layers.GlobalAveragePooling2D(name="mean")(x))
    unsettle(network)
    copy = prepare_for_inference(network, "bfloat16")
    assert {layer.name for layer in copy.layers if isinstance(layer, layers.BatchNormalization)} == {
        *("before", "of_one_reader", "after_relu"),
    }
    kinds = {weight.path: weight.dtype for weight in copy.weights}
    assert kinds["before/moving_variance"] == kinds["after_relu/gamma"] == "float32"
    assert kinds["joined/kernel"] == kinds["joined/bias"] == "bfloat16"
    assert kinds["before_deep/kernel"] == kinds["deep/kernel"] == kinds["deep/bias"] == "float32"
    computed = {layer.name: layer.compute_dtype for layer in copy.layers}
    assert computed["no_scale"] == computed["bend"] == "bfloat16"
    assert computed["bend_float32"] == computed["no_center"] == computed["mean"] == "float32"
    pixels = make_images(32) / 127.5 - 1
    expected, found = network(pixels).numpy(), tf.cast(copy(pixels), tf.float32).numpy()
    assert 0 < np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_dense_layer_gives_few_rows_and_many_what_keras_gives(use_bias):
    vector = keras.Input([48])
    hidden = keras.layers.Dense(32, "relu", use_bias=use_bias, name="hidden")(vector)
    network = keras.Model(vector, keras.layers.Dense(24, name="last")(hidden))
    unsettle(network)
    copy = prepare_for_inference(network, "bfloat16")
    assert copy.get_layer("hidden").kernel.shape == (32, 48)  # as one unit's weights lie together
    for num_rows in (1, 7, 8, 33):
        rows = np.random.default_rng(num_rows).normal(size=[num_rows, 48]).astype(np.float32)
        expected, found = network(rows).numpy(), tf.cast(copy(rows), tf.float32).numpy()
        assert found.shape == expected.shape
        assert 0 < np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["compact", "mobilenet_v2"])
def test_features_in_float32_are_those_of_the_backbone_without_batch_normalisation(name):
    backbone = Backbone(name, image_size=64)
    unsettle(backbone)
    images = make_images(64)
    extract, weights = make_extractor(backbone)
    np.testing.assert_allclose(extract(images), backbone(images), rtol=1e-3, atol=1e-5)
    error = np.linalg.norm(extract(images) - backbone(images)) / np.linalg.norm(backbone(images))
    assert error < 2e-6
    assert {weight.dtype for weight in weights} == {"float32"}
    assert not any(weight.path.endswith("moving_mean") for weight in weights)


def test_float32_without_batch_normalisation_is_the_backbone_itself():
    backbone = Backbone("vgg16", "pooled", image_size=32)
    extract, weights = make_extractor(backbone)
    images = make_images(32)
    assert [a is b for a, b in zip(weights, backbone.weights, strict=True)] == [True] * len(weights)
    np.testing.assert_array_equal(extract(images), backbone(images))


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match=r"precision 'bfloat' \(did you mean 'bfloat16'"):
        make_extractor(Backbone("compact", image_size=32), "bfloat")


def test_an_export_in_bfloat16_answers_like_the_other_and_stores_half(tmp_path):
    model = make_model()
    images = {"image_bytes": np.array([*PHOTOGRAPHS, b""], object)}
    answers, sizes = [], []
    for kind in ("float32", "bfloat16"):
        folder = tmp_path / kind
        version = export(model, VOCABULARY, DecodingConfig(), folder, part=BACKBONE, precision=kind)
        assert check.lint_export(version) == []
        answers.append(fresh_process.run_signature_c_api(version, "serving_default", images))
        sizes.append((version / "variables" / "variables.data-00000-of-00001").stat().st_size)
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.05)
    assert [each["error"].tolist() for each in answers] == [[b""] * 6 + [b"empty"]] * 2
    expected, found = (each["features"] for each in answers)
    assert found.dtype == np.float32
    assert 0 < np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_a_tagger_in_bfloat16_keeps_its_decoder_in_float32():
    model = make_model()
    tagger = Tagger(model, VOCABULARY, DecodingConfig(), precision="bfloat16")
    kinds = [weight.dtype.name for weight in tagger.weights]
    count = len([*model.decoder.weights, *tagger.answers.tables])
    assert set(kinds[:-count]) == {"bfloat16"} and set(kinds[-count:]) == {"float32"}
    embedding = tagger.embed(tf.constant(PHOTOGRAPHS))["embedding"]
    expected = model.decoder.project(model.extract_features(make_images(32))).numpy()
    assert 0 < np.linalg.norm(embedding - expected) < 0.05 * np.linalg.norm(expected)


def test_a_model_of_mixed_precision_is_exported_in_float32():
    mixed = CNNRNN(3, 2, "compact", image_size=32, cell_units=8, dtype="mixed_bfloat16")
    mixed.build()
    plain = to_float32(mixed)
    assert (plain.compute_dtype, plain.backbone.compute_dtype) == ("float32", "float32")
    assert {layer.compute_dtype for layer in (plain.decoder, plain.decoder.cell)} == {"float32"}
    for found, expected in zip(plain.get_weights(), mixed.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert to_float32(plain) is plain


def test_a_run_of_mixed_precision_is_tagged_in_float32_as_its_export_is():
    plain = make_model()
    mixed = type(plain).from_config({**plain.get_config(), "dtype": "mixed_bfloat16"})
    mixed.build()
    mixed.set_weights(plain.get_weights())
    of_plain, of_mixed = (Tagger(model, VOCABULARY, DecodingConfig()) for model in (plain, mixed))
    expected, found = (tagger.embed(tf.constant(PHOTOGRAPHS))["embedding"] for tagger in (of_plain, of_mixed))
    np.testing.assert_array_equal(found, expected)
    assert {table.dtype for table in of_mixed.answers.tables} == {tf.float32}
    own = tf.cast(mixed.decoder.project(mixed.extract_features(make_images(32))), tf.float32)
    assert np.abs(own - expected).max() > 0.001


@pytest.mark.parametrize(
    ("cpuinfo", "words"),
    [
        ("flags\t\t: fpu avx512_bf16 amx_bf16\n", r"processor multiplies it \(amx_bf16, avx512_bf16\)"),
        ("Features\t: fp asimd bf16\n", r"multiplies it \(bf16\)"),
        ("flags\t\t: fpu avx2\n", "does not multiply it, and would be slower"),
        ("no such line\n", "not known"),
        (None, "not known"),
    ],
)
def test_one_line_says_whether_the_machine_multiplies_bfloat16(monkeypatch, tmp_path, cpuinfo, words):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    flags = precision._read_cpu_flags(path)
    monkeypatch.setattr(precision, "_read_cpu_flags", lambda: flags)
    line = describe_bfloat16()
    assert line.startswith("bfloat16: ") and "\n" not in line
    assert re.search(words, line)


@pytest.mark.parametrize(("capability", "found"), [((8, 0), True), ((7, 5), False)])
def test_a_gpu_counts_from_the_generation_that_multiplies_bfloat16(monkeypatch, capability, found):
    details = {"device_name": "A card", "compute_capability": capability}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    monkeypatch.setattr(precision, "_read_cpu_flags", lambda: set())
    assert ("A card multiplies it" in describe_bfloat16()) == found
