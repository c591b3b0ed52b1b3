"""A signature and image files enter; inputs that the signature takes, one row an image, leave.

Signatures of other models are served as well as can be without knowing them: strings, one a row, are images,
or text where nothing decodes images; options by their names as in this project's signatures; other numbers
are 0, real ones between 0 and 1; dimensions that are free are as large as CNNs need them.
"""

import io

import numpy as np
import tensorflow as tf

from cnnrnn_tf.serving.examples import make_example
from cnnrnn_tf.serving.signature_lints import CLASSIFY, REGRESS

KNOWN_LABELS = ("given", "absent")
"""Inputs that name labels: none are sent."""

_SEED = 0
_FREE_SIDE_PX = 128  # where the height and the width of pixels are free
_IMAGE_DECODERS = {f"Decode{name}" for name in ("Image", "Jpeg", "AndCropJpeg", "Png", "Gif", "Bmp", "WebP")}


def make_images():
    """Returns two small JPEGs of different sizes, as bytes."""
    return [draw_photograph(64, 96), draw_photograph(80, 48)]


def draw_photograph(height_px, width_px):
    """Returns a smooth picture as a JPEG file's bytes."""
    from PIL import Image

    y, x = np.mgrid[:height_px, :width_px]
    pixels = np.stack([255 * x / width_px, 255 * y / height_px, 128 + 0 * x], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def make_rows(images, operations):
    """Returns what to send as strings: the images, or as many sentences if no operation decodes images."""
    if not images or _IMAGE_DECODERS & set(operations):
        return list(images)
    return [f"photograph number {i + 1} of the sea".encode() for i in range(len(images))]


def takes_images(signature):
    return any(_is_list_of_strings(info) for key, info in signature.inputs.items() if key not in KNOWN_LABELS)


def takes_examples(signature):
    return signature.method_name in (CLASSIFY, REGRESS)


def make_inputs(signature, images):
    """Returns {input name: array} with a row an image."""
    rows = [make_example(each) for each in images] if takes_examples(signature) else list(images)
    return {key: _make_input(key, info, signature, rows) for key, info in sorted(signature.inputs.items())}


def take_rows(inputs, rows):
    """Returns the inputs with some of their rows alone."""
    return {key: array[list(rows)] for key, array in inputs.items()}


def _make_input(key, info, signature, rows):
    if key in KNOWN_LABELS and info.dtype == tf.string.as_datatype_enum:
        return np.full([len(rows), *(1 for _ in info.tensor_shape.dim[1:])], b"", object)
    if _is_list_of_strings(info):
        array = np.empty(len(rows), object)
        array[:] = rows
        return array
    dtype = tf.as_dtype(info.dtype)
    sizes = [dimension.size for dimension in info.tensor_shape.dim[1:]]
    free = _FREE_SIDE_PX if dtype.is_floating and len(sizes) == 3 else 1
    shape = [len(rows), *(free if size == -1 else size for size in sizes)]
    if dtype == tf.string:
        return np.full(shape, b"", object)
    option = _find_option(key, signature)
    if option is not None:
        return np.full(shape, option, dtype.as_numpy_dtype)
    if dtype.is_floating:
        return np.random.default_rng(_SEED).random(shape).astype(dtype.as_numpy_dtype)
    return np.zeros(shape, dtype.as_numpy_dtype)


def _is_list_of_strings(info):
    return info.dtype == tf.string.as_datatype_enum and len(info.tensor_shape.dim) == 1


def _find_option(key, signature):
    """A value that every export allows for an option of the signature `tag`; None for other inputs."""
    labels = signature.outputs.get("labels")
    longest = (
        labels.tensor_shape.dim[1].size if labels is not None and len(labels.tensor_shape.dim) == 2 else 1
    )
    options = {"beam_size": 1, "min_length": 0, "max_length": max(longest, 1), "threshold": 0}
    return options.get(key)
