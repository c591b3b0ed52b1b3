"""The name of a CNN enters; a layer leaves that turns RGB pixels, 0 to 255, into a feature vector an image.

Each backbone scales its own input, so callers hand over plain pixels and nothing is scaled twice or not at
all. `vgg16` is the paper's: fc7 after its ReLU, 4096 numbers.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import ops

from cnnrnn_tf.data.images import IMAGE_FITS
from cnnrnn_tf.model.backbone_names import (
    COMPACT,
    check_backbone_name,
    check_backbone_weights,
)
from tfrecords.errors import UserError, nearest

# name here -> (module of keras.applications, class, default feature layer, pixels a side)
_NAMED = {
    "vgg16": ("vgg16", "VGG16", "fc7", 224),
    "resnet50": ("resnet50", "ResNet50", "pooled", 224),
    "mobilenet_v2": ("mobilenet_v2", "MobileNetV2", "pooled", 224),
}
_LAYER_ALIASES = {"fc6": "fc1", "fc7": "fc2"}  # the paper's names -> those of keras.applications
COMPACT_SIZE_PX = 96
POOLED = "pooled"


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class Backbone(keras.layers.Layer):
    """A CNN with its own input scaling: <uint8 or float>[batch, size, size, 3] -> <float32>[batch, features].

    Args:
        backbone: `vgg16`, `resnet50`, `mobilenet_v2`, any other model of `keras.applications` by its class
            name, or `compact`, a small one for 96 px pictures that is trained from scratch.
        feature_layer: `pooled` (mean over the last map), or the name of a layer whose output is the feature,
            such as `fc7`; None takes the backbone's own default.
        image_size: pixels a side; None takes the backbone's default.
        image_fit: how a picture of any shape becomes such a square, `crop` or `stretch`; said here for those
            who prepare the pixels: `cnnrnn_tf.data.images.fit_to_square`.

    Weights are random until `load_weights_into` fills them.

    Raises:
        UserError: no such backbone, layer or size.
    """

    def __init__(
        self,
        backbone: str,
        feature_layer: str | None = None,
        image_size: int | None = None,
        image_fit: str = "crop",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if image_fit not in IMAGE_FITS:
            raise UserError(f"image_fit {image_fit!r}: expected {' or '.join(IMAGE_FITS)}")
        self.backbone = backbone
        self.image_fit = image_fit
        if backbone == COMPACT:
            if feature_layer not in (None, POOLED):
                raise UserError(f"feature layer {feature_layer!r}: the compact backbone has {POOLED!r} alone")
            self.image_size = image_size or COMPACT_SIZE_PX
            self.feature_layer = POOLED
            self._preprocess = _scale_to_unit
            with _layers_of(self.dtype_policy):
                self.network = _make_compact(self.image_size)
        else:
            module, make, default_layer, default_size = _find_application(backbone)
            self.image_size = image_size or default_size
            self.feature_layer = feature_layer or default_layer
            self._preprocess = _speed_up(module.preprocess_input)
            with _layers_of(self.dtype_policy):
                self.network = _make_application(make, backbone, self.feature_layer, self.image_size)

    @property
    def feature_size(self) -> int:
        """Length of the feature vector."""
        return self.network.output_shape[-1]

    def build(self, input_shape=None):
        self.built = True  # the network was built by its constructor

    def call(self, images, training=None):
        """Returns <float32>[batch, features]; a frozen backbone always runs as in inference."""
        features = self.network(self.preprocess(images), training=bool(training) and self.trainable)
        return ops.cast(features, "float32")

    def preprocess(self, images):
        """Scales images, <uint8 or float, 0 to 255>[batch, size, size, 3], as the network takes them."""
        return self._preprocess(ops.cast(images, "float32"))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.feature_size)

    def freeze(self, trainable_from: str | None = None) -> None:
        """Freezes the CNN, or what comes before the layer `trainable_from`.

        Batch normalisation stays frozen wherever the rest is tuned: its statistics belong to the data the
        weights were learned on.

        Raises:
            UserError: the CNN has no layer of that name.
        """
        self.trainable = trainable_from is not None
        if trainable_from is None:
            return
        names = [layer.name for layer in self.network.layers]
        trainable_from = _LAYER_ALIASES.get(trainable_from, trainable_from)
        if trainable_from not in names:
            raise UserError(
                f"{self.backbone} has no layer {trainable_from!r}{nearest(trainable_from, names)}: "
                f"its layers are {', '.join(names)}"
            )
        first = names.index(trainable_from)
        for position, layer in enumerate(self.network.layers):
            layer.trainable = position >= first and not isinstance(layer, keras.layers.BatchNormalization)

    def get_config(self):
        return {
            **super().get_config(),
            "backbone": self.backbone,
            "feature_layer": self.feature_layer,
            "image_size": self.image_size,
            "image_fit": self.image_fit,
        }


def load_backbone_weights(layer: Backbone, weights: str) -> None:
    """Fills a backbone's weights.

    Args:
        layer: the backbone.
        weights: `imagenet` downloads those of keras.applications (or takes them from its cache); `none`
            leaves them random; anything else is the path of a `.weights.h5` or `.keras` file.

    Raises:
        UserError: no network, no such file, or the weights of another network; the message says which file to
            put where.
    """
    check_backbone_weights(layer.backbone, weights)
    if weights == "none":
        return
    if weights == "imagenet":
        _load_imagenet(layer)
        return
    _load_file(layer, Path(weights))


def _load_imagenet(layer: Backbone) -> None:
    _, make, *_ = _find_application(layer.backbone)
    top = layer.feature_layer != POOLED
    try:
        shape = {} if top else {"input_shape": _shape(layer)}
        trained = make(weights="imagenet", include_top=top, **shape)
    except Exception as error:
        cache = Path(os.environ.get("KERAS_HOME", "~/.keras")) / "models"
        raise UserError(
            f"the ImageNet weights of {layer.backbone} could not be had ({_first_line(error)}): fetch that "
            f"file where there is a network and put it into {cache}, or pass --backbone-weights PATH, or "
            "--backbone-weights none for random ones"
        ) from None
    _copy_weights(trained, layer)


def _load_file(layer: Backbone, path: Path) -> None:
    """Tries the file as weights of the cut network, then of the classifier that the network is cut from."""
    failures = []
    for network in _candidate_networks(layer):
        try:
            if path.suffix == ".keras":
                trained = keras.saving.load_model(path, compile=False)
                _refuse_surplus_layers(trained, network, layer)
                _copy_weights(trained, layer)
            else:
                _refuse_surplus_weights(path, network, layer)
                with warnings.catch_warnings():  # Keras only warns where a file lacks weights
                    warnings.filterwarnings("error", message=".*freshly-initialized")
                    network.load_weights(str(path))
                if network is not layer.network:
                    _copy_weights(network, layer)
            return
        except UserError:
            raise
        except Exception as error:
            failures.append(_first_line(error))
    raise UserError(
        f"{path}: not the weights of {layer.backbone} up to its layer {layer.feature_layer!r} "
        f"({failures[0]}); expected a file saved from keras.applications with the same name and layers"
    )


def _refuse_surplus_weights(path: Path, network: keras.Model, layer: Backbone) -> None:
    """Keras ignores what a `.weights.h5` file, which numbers its layers by kind, holds beyond the network."""
    import h5py  # of Keras, which imports it late

    with h5py.File(path, "r") as file:
        found = sum(1 for group in file.get("layers", {}).values() if len(group.get("vars", ())))
    expected = sum(1 for each in network.layers if each.weights)
    if found > expected:
        raise ValueError(f"it has weights of {found} layers, {layer.backbone} of {expected}")


def _refuse_surplus_layers(trained: keras.Model, network: keras.Model, layer: Backbone) -> None:
    """VGG19 has all the layers of VGG16, and would fill it."""
    known = {each.name for each in network.layers}
    surplus = [each.name for each in trained.layers if each.weights and each.name not in known]
    if surplus:
        raise ValueError(f"it has layers that {layer.backbone} has not, such as {surplus[0]!r}")


def _candidate_networks(layer: Backbone):
    yield layer.network
    if layer.backbone != COMPACT:
        _, make, *_ = _find_application(layer.backbone)
        yield make(weights=None, include_top=False, input_shape=_shape(layer))
        yield make(weights=None, include_top=True)


def _copy_weights(trained: keras.Model, layer: Backbone) -> None:
    """Copies weights layer by layer, by name; every weight of the target has to be found."""
    sources = {source.name: source for source in trained.layers}
    for target in layer.network.layers:
        if not target.weights:
            continue
        source = sources.get(target.name)
        shapes = [tuple(weight.shape) for weight in target.weights]
        found = [tuple(weight.shape) for weight in source.weights] if source is not None else None
        if found != shapes:
            raise UserError(
                f"these weights are of another network than {layer.backbone}: its layer {target.name!r} "
                f"needs {shapes}, found {'no such layer' if found is None else found}"
            )
        target.set_weights(source.get_weights())


def _find_application(name: str):
    """Returns the preprocessing module, the constructor, the default feature layer and the default size."""
    if name in _NAMED:
        module, class_name, layer, size = _NAMED[name]
        module = getattr(keras.applications, module)
        return module, getattr(module, class_name), layer, size
    check_backbone_name(name)
    module = _application_classes()[name]
    make = getattr(module, name)
    return module, make, POOLED, _default_size(name, make)


def _application_classes() -> dict:
    """Class name -> its module, for every network of `keras.applications`."""
    classes = {}
    for module in vars(keras.applications).values():
        if inspect.ismodule(module) and hasattr(module, "preprocess_input"):
            for name, value in vars(module).items():
                if inspect.isfunction(value) and name[0].isupper():
                    classes[name] = module
    return classes


def _default_size(name: str, make) -> int:
    """Pixels a side that the network was made for, as its own constructor says with the top on."""
    shape = make(weights=None, include_top=True).input_shape
    return shape[1] or 224


def _make_application(make, name: str, feature_layer: str, image_size: int) -> keras.Model:
    top = {"include_top": False, "pooling": "avg"} if feature_layer == POOLED else {"include_top": True}
    try:
        whole = make(weights=None, input_shape=(image_size, image_size, 3), **top)
    except ValueError as error:
        raise UserError(
            f"{name} cannot be made for images of {image_size} px ({_first_line(error)}): choose another "
            "--image-size, or 0 for its own"
        ) from None
    if feature_layer == POOLED:
        return whole
    wanted = _LAYER_ALIASES.get(feature_layer, feature_layer)
    names = [layer.name for layer in whole.layers]
    if wanted not in names:
        raise UserError(
            f"{name} has no layer {feature_layer!r}{nearest(feature_layer, names)}: expected {POOLED!r} "
            f"or one of {', '.join(names)}"
        )
    output = whole.get_layer(wanted).output
    if len(output.shape) == 4:
        output = keras.layers.GlobalAveragePooling2D(name="feature_pooling")(output)
    return keras.Model(whole.input, output, name=f"{name}_{wanted}")


def _make_compact(size: int) -> keras.Model:
    """Strided 3 x 3 convolutions; mean and maximum over the last map, so that small things count."""
    if size < 32:
        raise UserError(f"image size {size}: the compact backbone needs 32 pixels a side or more")
    images = keras.Input((size, size, 3))
    x = images
    for block, filters in enumerate((16, 32, 64, 256)):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name=f"conv{block}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, synchronized=True, name=f"norm{block}")(x)
        x = keras.layers.ReLU(name=f"relu{block}")(x)
    mean = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    largest = keras.layers.GlobalMaxPooling2D(name="largest")(x)
    return keras.Model(images, keras.layers.Concatenate(name="feature")([mean, largest]), name=COMPACT)


@contextlib.contextmanager
def _layers_of(policy: keras.DTypePolicy):
    """Layers made inside compute by `policy`: the constructors of keras.applications take none."""
    global_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(global_policy)


def _scale_to_unit(pixels):
    return pixels / 127.5 - 1.0


def _speed_up(preprocess):
    """Returns a function that does the same to the bit: what reorders channels, as VGG's, as a convolution.

    Keras takes the channels apart and puts them together again, which took 3 % of VGG16's time in bfloat16.
    """
    pixels = np.concatenate([np.zeros([1, 3]), 255 * np.eye(3)]).astype(np.float32)
    black, *primaries = np.array(preprocess(pixels[None, None]))[0, 0]
    order = (np.array(primaries) - black) / 255
    if np.allclose(order, np.eye(3)) or not np.allclose(order, np.round(order), atol=1e-6):
        return preprocess
    kernel = np.round(order)[None, None].astype(np.float32)
    return lambda images: ops.conv(images, kernel) + black


def _shape(layer: Backbone) -> tuple[int, int, int]:
    return (layer.image_size, layer.image_size, 3)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
