"""A backbone enters, and the precision to run it in; a function from images to features leaves.

Batch normalisation after a convolution becomes part of it: MobileNetV2 takes little more than half of the
time, and features move by a millionth.

bfloat16 halves the weights and, on processors that multiply it, the time or better. It has the range of
float32 and 8 bits of mantissa, so what is small and counts stays in float32: means over the last map, the
decoder and the search, depthwise convolutions, and batch normalisation where it joins no convolution.

So does a convolution next to a depthwise one, as nearly all of MobileNetV2's are: it has so few products for
each number read and written that converting those costs more time than bfloat16 saves, and all of the error.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfrecords.errors import UserError, nearest

FLOAT32 = "float32"
BFLOAT16 = "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)

_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # of x86, and of Arm
_FEW_ROWS = 8  # from here on `_RowMajorDense` multiplies from the left
_AMPERE = (8, 0)  # the first CUDA architecture that multiplies bfloat16


def make_extractor(backbone, precision=FLOAT32):
    """Returns a backbone as a function, and the weights that the function reads.

    Args:
        backbone: a `cnnrnn_tf.model.backbones.Backbone`.
        precision: "float32" or "bfloat16".

    Returns:
        extract: takes images <float32>[batch, size, size, 3], RGB 0 to 255; returns features
            <float32>[batch, features].
        weights: Keras variables: the backbone's own where it runs as it is, else copies.

    Raises:
        UserError: no such precision.
    """
    if precision not in PRECISIONS:
        raise UserError(
            f"precision {precision!r}{nearest(precision, PRECISIONS)}: expected {' or '.join(PRECISIONS)}"
        )
    network = prepare_for_inference(backbone.network, precision)

    def extract(images):
        return tf.cast(network(backbone.preprocess(images), training=False), tf.float32)

    return extract, network.weights


def to_float32(model):
    """Returns a CNNRNN that computes in float32: `model` itself, or, of one of mixed precision, a copy."""
    if model.compute_dtype == FLOAT32:
        return model
    copy = type(model).from_config({**model.get_config(), "dtype": FLOAT32})
    copy.build()
    copy.set_weights(model.get_weights())  # of mixed precision, float32 already
    return copy


def prepare_for_inference(network, precision):
    """Returns a functional Keras model that infers the same: `network`, or a copy if that is faster.

    Batch normalisation joins convolutions by arithmetic in float64. Of bfloat16, the top of this module says
    which weights are stored and which products are taken in it.
    """
    folded = dict(_find_folded(network))  # convolution: the batch normalisation after it
    gone = {layer.name for layer in folded.values()}
    in_bfloat16 = _find_bfloat16(network) if precision == BFLOAT16 else set()
    if not folded and not in_bfloat16:
        return network
    copy = keras.models.clone_model(
        network,
        clone_function=lambda layer: _clone(
            layer,
            BFLOAT16 if layer.name in in_bfloat16 else FLOAT32,
            layer.name in folded,
            layer.name in gone,
        ),
    )
    for target in copy.layers:
        if target.weights:
            source = network.get_layer(target.name)
            norm = folded.get(target.name)
            weights = source.get_weights() if norm is None else _fold(source, norm)
            if isinstance(target, _RowMajorDense):
                weights[0] = weights[0].T
            target.set_weights(weights)
    return copy


def describe_bfloat16():
    """Returns one line: whether this machine multiplies bfloat16, which decides if it is faster."""
    for device in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(device)
        if details.get("compute_capability", (0, 0)) >= _AMPERE:
            return f"bfloat16: this machine's {details.get('device_name', 'GPU')} multiplies it"
    flags = _read_cpu_flags()
    if flags is None:
        return "bfloat16: it is not known whether this machine's processor multiplies it; time it"
    found = sorted(flags & _CPU_FLAGS)
    if found:
        return f"bfloat16: this machine's processor multiplies it ({', '.join(found)})"
    return (
        "bfloat16: this machine's processor does not multiply it, and would be slower with this export than "
        "with float32; serve it where `grep -E 'avx512_bf16|amx_bf16' /proc/cpuinfo` finds something"
    )


class _Passing(keras.layers.Layer):
    """Stands where batch normalisation was, and is called like it."""

    def call(self, inputs, training=None, mask=None):
        return inputs


class _RowMajorDense(keras.layers.Layer):
    """A dense layer for few rows whose kernel lies in memory with the weights of each unit together.

    oneDNN packs the right one of two matrices anew at every call. Of VGG16's fc6 that is 100 million weights,
    and packing them takes longer than multiplying them. So here the kernel is the left one, or, for very few
    rows, a right one that needs no packing: two thirds of the time with 8 rows, two fifths with 32.
    """

    def __init__(self, units, activation=None, use_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.units, self.use_bias = units, use_bias
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(self.units, input_shape[-1]), name="kernel")
        self.bias = self.add_weight(shape=(self.units,), name="bias") if self.use_bias else 0

    def call(self, inputs):
        """Returns <bfloat16>[rows, units] of <bfloat16>[rows, numbers]."""
        kernel = tf.convert_to_tensor(self.kernel)
        product = tf.cond(
            tf.shape(inputs)[0] < _FEW_ROWS,
            lambda: tf.matmul(inputs, kernel, transpose_b=True),
            lambda: tf.transpose(tf.matmul(kernel, inputs, transpose_b=True)),
        )
        return self.activation(product + self.bias)


def _clone(layer, dtype, is_folded, is_gone):
    config = layer.get_config()
    if is_gone:
        return _Passing(name=layer.name, dtype=dtype)
    if type(layer) is keras.layers.Dense and len(layer.output.shape) == 2 and dtype == BFLOAT16:
        return _RowMajorDense(layer.units, layer.activation, layer.use_bias, name=layer.name, dtype=dtype)
    if isinstance(layer, keras.layers.BatchNormalization) and dtype == BFLOAT16:
        dtype = "mixed_bfloat16"  # statistics stored and used in float32
    if is_folded:
        config["use_bias"] = True
    return type(layer).from_config({**config, "dtype": dtype})


def _find_bfloat16(network) -> set[str]:
    """Returns the names of the layers that compute in bfloat16."""
    sources, readers = defaultdict(list), defaultdict(list)
    for layer in network.layers:
        for node in layer._inbound_nodes:
            for parent in node.parent_nodes:
                sources[layer.name].append(parent.operation)
                readers[parent.operation.name].append(layer)
    found = set()
    for layer in network.layers:  # each after those that it reads
        if _multiplies(layer):
            near = [layer, *_find_near(layer, sources), *_find_near(layer, readers)]
            is_wanted = not any(isinstance(each, keras.layers.DepthwiseConv2D) for each in near)
        else:
            # What pools the map into a vector, or joins such vectors, stays in float32.
            is_wanted = bool(layer.weights) or len(layer.output.shape) > 2
            is_wanted &= bool(sources[layer.name]) and all(each.name in found for each in sources[layer.name])
        if is_wanted:
            found.add(layer.name)
    return found


def _find_near(layer, edges: dict) -> Iterator:
    """Yields the first layers that multiply along `edges`, behind any that do not."""
    pending, seen = [*edges[layer.name]], set()
    while pending:
        near = pending.pop()
        if _multiplies(near):
            yield near
        elif near.name not in seen:
            seen.add(near.name)
            pending += edges[near.name]


def _multiplies(layer) -> bool:
    return bool(layer.weights) and not isinstance(layer, keras.layers.BatchNormalization)


def _find_folded(network):
    """Yields (name of a convolution, batch normalisation) where nothing else reads the convolution."""
    for layer in network.layers:
        if type(layer) not in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D):
            continue
        if layer.activation is not keras.activations.linear or len(layer._outbound_nodes) != 1:
            continue
        reader = layer._outbound_nodes[0].operation
        if isinstance(reader, keras.layers.BatchNormalization) and len(reader._inbound_nodes) == 1:
            yield layer.name, reader


def _fold(convolution, norm):
    """Returns the kernel and the bias of both in one: gamma (K x + b - mean) / deviation + beta."""
    kernel, *bias = (weight.astype(np.float64) for weight in convolution.get_weights())
    mean, variance = (np.float64(weight.numpy()) for weight in (norm.moving_mean, norm.moving_variance))
    gamma = np.float64(norm.gamma.numpy()) if norm.scale else 1.0
    beta = np.float64(norm.beta.numpy()) if norm.center else 0.0
    scale = gamma / np.sqrt(variance + norm.epsilon)
    is_depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
    per_output = scale.reshape(kernel.shape[2:]) if is_depthwise else scale
    return [kernel * per_output, ((bias[0] if bias else 0.0) - mean) * scale + beta]


def _read_cpu_flags(path=Path("/proc/cpuinfo")):
    """Returns what Linux says of the processor; None elsewhere."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    named = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return set(named[0].split()) if named else None
