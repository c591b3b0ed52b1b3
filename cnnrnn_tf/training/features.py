"""A frozen CNN and a split of records enter; the features of every image leave, computed once for all."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cnnrnn_tf.data.features import feature_fingerprint, load_or_extract
from cnnrnn_tf.data.images import PIXELS_VERSION
from cnnrnn_tf.model.backbones import Backbone
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest

EXTRACTION_BATCH = 32


def cached_features(
    backbone: Backbone, dataset_dir: Path, split: str, hypotheses: bool = False
) -> np.ndarray:
    """The features of a frozen CNN, in the order of `load_labels`.

    The first who asks shows every image to the CNN; `train.py`, baselines and later runs find the features
    in the data set's folder, as long as weights, layer, preprocessing and records are the same.

    Args:
        backbone: frozen, with its weights.
        dataset_dir: the folder of a built data set.
        split: `train`, `holdout`, `test` or another name that `select_records` knows.
        hypotheses: features of the whole image and of five parts of it, for methods that pool over them:
            `cnnrnn_tf.data.images.cut_hypotheses`.

    Returns:
        `<float32>[images, features]`, or `<float32>[images, 6, features]` with `hypotheses`; may be a
        read-only memory map.

    Raises:
        UserError: the backbone is trainable; or as `load_or_extract`.
    """
    if backbone.trainable:
        raise UserError(
            f"features of {backbone.backbone} cannot be kept: it is trainable, so they change with its "
            "weights; call `freeze()` first"
        )
    size = backbone.image_size
    extract = tf.function(
        lambda images: backbone(images, training=False),
        input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)],
        autograph=False,
    )
    return load_or_extract(
        dataset_dir,
        split,
        fingerprint_of(backbone, Manifest.load(dataset_dir), hypotheses),
        extract,
        size,
        backbone.image_fit,
        batch_size=EXTRACTION_BATCH,
        hypotheses=hypotheses,
    )


def fingerprint_of(backbone: Backbone, records: Manifest, hypotheses: bool = False) -> str:
    """What the features of a CNN depend on: its weights and layer, the preprocessing and the records."""
    return feature_fingerprint(
        records.fingerprint,
        _describe(backbone, hypotheses),
        [weight.numpy() for weight in backbone.weights],
    )


def _describe(backbone: Backbone, hypotheses: bool) -> dict:
    """All but weights and records: what is done to a file's bytes."""
    return {
        "backbone": backbone.backbone,
        "feature_layer": backbone.feature_layer,
        "image_size": backbone.image_size,
        "image_fit": backbone.image_fit,
        "policy": backbone.dtype_policy.name,
        "hypotheses": hypotheses,
        "pixels": PIXELS_VERSION,
        "keras": keras.__version__,  # whose code the network and its scaling of pixels are
    }
