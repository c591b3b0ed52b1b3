"""Backbones: their input scaling against keras's own, their weights from files, and what they refuse."""

import http.server
import threading

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from cnnrnn_tf.model.backbones import Backbone, load_backbone_weights
from tfrecords.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, [2, 64, 64, 3], dtype=np.uint8)


@pytest.fixture(scope="module")
def vgg16():
    return Backbone("vgg16", "pooled", 64)


def test_the_input_of_vgg16_is_what_keras_preprocess_input_makes_of_the_pixels(vgg16):
    seen = []
    network, vgg16.network = vgg16.network, lambda pixels, training: seen.append(pixels) or network(pixels)
    try:
        vgg16(PIXELS)
    finally:
        vgg16.network = network
    expected = keras.applications.vgg16.preprocess_input(PIXELS.astype("float32"))
    np.testing.assert_array_equal(seen[0], expected)
    # BGR minus the ImageNet means, by hand, for one pixel
    blue_first = PIXELS[0, 0, 0, ::-1].astype("float64") - [103.939, 116.779, 123.68]
    np.testing.assert_allclose(seen[0][0, 0, 0], blue_first, rtol=1e-5)


@pytest.mark.parametrize(
    "name, module",
    [
        ("mobilenet_v2", keras.applications.mobilenet_v2),
        ("resnet50", keras.applications.resnet50),
        ("MobileNet", keras.applications.mobilenet),
    ],
)
def test_a_backbone_is_the_keras_application_on_its_own_scaling(name, module):
    layer = Backbone(name, image_size=64)
    expected = layer.network(module.preprocess_input(PIXELS.astype("float32")))
    np.testing.assert_allclose(layer(PIXELS), expected, rtol=1e-5, atol=1e-6)
    assert layer.feature_size == expected.shape[-1]


def test_fc7_is_the_second_dense_layer_of_vgg16_after_its_relu():
    layer = Backbone("vgg16", "fc7", 32)
    assert layer.feature_size == 4096
    assert layer.network.layers[-1].name == "fc2"
    assert layer.network.layers[-1].activation is keras.activations.relu


def test_a_frozen_backbone_ignores_training_and_has_no_trainable_weights():
    layer = Backbone("mobilenet_v2", image_size=32)
    layer.freeze()
    assert layer.trainable_variables == []
    np.testing.assert_array_equal(layer(PIXELS[:, :32, :32], training=True), layer(PIXELS[:, :32, :32]))


def test_fine_tuning_from_a_layer_frees_that_layer_and_those_after_it(vgg16):
    vgg16.freeze("block5_conv2")
    names = {variable.path.split("/")[0] for variable in vgg16.trainable_variables}
    assert names == {"block5_conv2", "block5_conv3"}


def test_batch_normalisation_stays_frozen_where_the_rest_is_tuned():
    layer = Backbone("mobilenet_v2", image_size=32)
    layer.freeze("block_15_expand")
    assert layer.trainable_variables
    assert not any("BN" in variable.path for variable in layer.trainable_variables)


def test_weights_saved_from_keras_are_loaded_as_they_are(tmp_path):
    source = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg"
    )
    source.save_weights(tmp_path / "no_top.weights.h5")
    layer = Backbone("mobilenet_v2", image_size=64)
    load_backbone_weights(layer, str(tmp_path / "no_top.weights.h5"))
    np.testing.assert_allclose(layer(PIXELS), source(PIXELS / 127.5 - 1), rtol=1e-5, atol=1e-6)


def test_weights_of_the_whole_classifier_fill_the_network_up_to_a_layer(tmp_path):
    source = keras.applications.MobileNetV2(weights=None)
    source.save_weights(tmp_path / "whole.weights.h5")
    layer = Backbone("mobilenet_v2", "block_3_expand", 224)
    load_backbone_weights(layer, str(tmp_path / "whole.weights.h5"))
    np.testing.assert_array_equal(
        layer.network.get_layer("Conv1").get_weights()[0], source.get_layer("Conv1").get_weights()[0]
    )


def test_weights_of_another_backbone_are_refused_in_one_line(tmp_path):
    keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(
        tmp_path / "other.weights.h5"
    )
    layer = Backbone("mobilenet_v2", image_size=32)
    with pytest.raises(UserError, match=r"other.weights.h5: not the weights of mobilenet_v2") as error:
        load_backbone_weights(layer, str(tmp_path / "other.weights.h5"))
    assert "\n" not in str(error.value)


@pytest.fixture
def narrow_networks(monkeypatch):
    """Networks whose layers are as many as ever, but have 8 units or filters: VGG's weights take 0.6 GB."""

    def narrow(make):
        def make_narrow(self, *args, **kwargs):
            return make(self, *(min(width, 8) for width in args[:1]), *args[1:], **kwargs)

        return make_narrow

    for layer in (keras.layers.Conv2D, keras.layers.Dense):
        monkeypatch.setattr(layer, "__init__", narrow(layer.__init__))


def test_weights_of_a_deeper_sister_are_refused_though_every_layer_is_found(tmp_path, narrow_networks):
    deeper = keras.applications.VGG19(include_top=False, weights=None, input_shape=(32, 32, 3))
    deeper.save(tmp_path / "vgg19.keras")
    layer = Backbone("vgg16", "pooled", 32)
    with pytest.raises(UserError, match="it has layers that vgg16 has not, such as 'block3_conv4'"):
        load_backbone_weights(layer, str(tmp_path / "vgg19.keras"))
    deeper.save_weights(tmp_path / "vgg19.weights.h5")
    layer = Backbone("vgg16", "block2_pool", 32)  # up to here the two are one
    with pytest.raises(UserError, match="it has weights of 16 layers, vgg16 of 4"):
        load_backbone_weights(layer, str(tmp_path / "vgg19.weights.h5"))


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    path = tmp_path / "text.weights.h5"
    path.write_text("not weights")
    with pytest.raises(UserError, match="not the weights of mobilenet_v2"):
        load_backbone_weights(Backbone("mobilenet_v2", image_size=32), str(path))


@pytest.fixture
def weights_server(tmp_path, monkeypatch):
    """A server on this machine in the place of the one that keras.applications downloads MobileNetV2 from."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr("keras.src.applications.mobilenet_v2.BASE_WEIGHT_PATH", url)
    (tmp_path / "home").mkdir()
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path / "home"))
    yield folder
    server.shutdown()


def test_imagenet_weights_are_downloaded_and_loaded(weights_server):
    source = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
    source.save_weights(weights_server / "file.weights.h5")
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
    legacy_h5_format.save_weights_to_hdf5_group(h5py.File(weights_server / name, "w"), source)
    layer = Backbone("mobilenet_v2", image_size=96)
    load_backbone_weights(layer, "imagenet")
    for target, weight in zip(layer.network.weights, source.weights, strict=True):
        np.testing.assert_array_equal(target, weight)


def test_without_a_network_the_error_says_which_file_to_put_where(weights_server):
    layer = Backbone("mobilenet_v2", image_size=96)
    with pytest.raises(
        UserError, match=r"_96_no_top.h5.*put it into .*models, or pass --backbone-weights"
    ) as error:
        load_backbone_weights(layer, "imagenet")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Backbone("vgg61"), r"unknown backbone 'vgg61' \(did you mean"),
        (lambda: Backbone("vgg16", "fc8", 32), r"vgg16 has no layer 'fc8' \(did you mean"),
        (lambda: Backbone("compact", "fc7"), r"feature layer 'fc7': the compact backbone has 'pooled' alone"),
        (lambda: Backbone("compact", image_size=8), "image size 8: the compact backbone needs 32"),
        (lambda: Backbone("vgg16", "pooled", 32).freeze("block9"), r"vgg16 has no layer 'block9'"),
        (
            lambda: load_backbone_weights(Backbone("compact"), "imagenet"),
            "nobody trained the compact backbone",
        ),
        (lambda: load_backbone_weights(Backbone("compact"), "no/such.h5"), "no/such.h5: no such file"),
    ],
)
def test_mistakes_get_one_line(make, message):
    with pytest.raises(UserError, match=message):
        make()
