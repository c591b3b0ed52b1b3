"""The settings of a network enter; its CNN leaves, with its weights, trainable as far as they say."""

from __future__ import annotations

from cnnrnn_tf.config import ModelConfig
from cnnrnn_tf.model.backbones import COMPACT, Backbone, load_backbone_weights


def is_frozen(settings: ModelConfig) -> bool:
    """Whether the CNN stays as it is, so that each image has its features once and for all."""
    return settings.backbone != COMPACT and settings.fine_tune_from == "none"


def make_backbone(settings: ModelConfig) -> Backbone:
    """The CNN of `settings`: compact is trained as a whole, others from `fine_tune_from` on, or frozen.

    Raises:
        UserError: a name that there is not, or weights that are not there or not of this CNN.
    """
    backbone = Backbone(
        settings.backbone,
        None if settings.feature_layer == "default" else settings.feature_layer,
        settings.image_size or None,
        settings.image_fit,
        name="backbone",
    )
    if settings.backbone != COMPACT:
        backbone.freeze(None if settings.fine_tune_from == "none" else settings.fine_tune_from)
    load_backbone_weights(backbone, settings.backbone_weights)
    backbone.build()
    return backbone
