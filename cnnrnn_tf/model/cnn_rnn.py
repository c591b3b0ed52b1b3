"""Photographs, or cached features of them, enter; the scores of label paths leave, or the paths themselves.

`CNNRNN` is the whole tagger of Wang et al. (CVPR 2016) as one Keras model: a backbone and a `LabelDecoder`.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from cnnrnn_tf.data.sequences import order_ranks
from cnnrnn_tf.model.backbones import COMPACT, Backbone
from cnnrnn_tf.model.beam_search import BeamResult, beam_search
from cnnrnn_tf.model.decoder import LabelDecoder
from cnnrnn_tf.model.shared_prefixes import SharedPrefixStep
from tfrecords.errors import UserError


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class CNNRNN(keras.Model):
    """The CNN-RNN multi-label tagger.

    It takes `image` or cached `features`, and the two agree to rounding. With a frozen backbone, train
    `model.decoder` on features that were extracted once; otherwise train the model itself.

    Args:
        num_labels: L.
        max_path_length: the most labels on one path, END not counted; decoding stops there by default.
        backbone: name of the CNN; see `cnnrnn_tf.model.backbones.Backbone`.
        feature_layer: the CNN's layer that represents the image; None for the backbone's default.
        image_size: pixels a side; None for the backbone's default.
        image_fit: how a picture becomes a square of that size, `crop` or `stretch`.
        trainable_from: first layer of the CNN that is fine-tuned; None freezes all of it. The compact
            backbone has no weights worth freezing and is always trained.
        cell, cell_units, embedding_dim, dropout, tie_embeddings, standardise_features: of `LabelDecoder`.
        label_order: the order of labels on the training paths; see `cnnrnn_tf.data.sequences`.
        label_order_seed: decides the order `random`.
        vocabulary_fingerprint: of the vocabulary whose ids the labels are; checked wherever the two meet.

    Raises:
        UserError: a name or size that there is not.
    """

    def __init__(
        self,
        num_labels: int,
        max_path_length: int,
        backbone: str = "vgg16",
        feature_layer: str | None = None,
        image_size: int | None = None,
        image_fit: str = "crop",
        trainable_from: str | None = None,
        cell: str = "lstm",
        cell_units: int = 512,
        embedding_dim: int = 64,
        dropout: float = 0.5,
        tie_embeddings: bool = True,
        standardise_features: bool = False,
        label_order: str = "frequent",
        label_order_seed: int = 0,
        vocabulary_fingerprint: str = "",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not 1 <= max_path_length <= num_labels:
            raise UserError(
                f"max_path_length {max_path_length}: expected 1 to the number of labels, {num_labels}"
            )
        policy = self.dtype_policy  # of a model that is loaded, its own and not that of the process
        self.backbone = Backbone(
            backbone, feature_layer, image_size, image_fit, dtype=policy, name="backbone"
        )
        if backbone == COMPACT and trainable_from is not None:
            raise UserError("trainable_from: the compact backbone is always trained as a whole")
        if backbone != COMPACT:
            self.backbone.freeze(trainable_from)
        self.decoder = LabelDecoder(
            num_labels,
            self.backbone.feature_size,
            cell=cell,
            cell_units=cell_units,
            embedding_dim=embedding_dim,
            dropout=dropout,
            tie_embeddings=tie_embeddings,
            standardise_features=standardise_features,
            dtype=policy,
            name="decoder",
        )
        self.num_labels = num_labels
        self.max_path_length = max_path_length
        self.trainable_from = trainable_from
        self.label_order = label_order
        self.label_order_seed = label_order_seed
        self.vocabulary_fingerprint = vocabulary_fingerprint
        self._order_ranks = order_ranks(label_order, num_labels, label_order_seed)

    @property
    def image_size(self) -> int:
        """Pixels a side of the images that the backbone takes."""
        return self.backbone.image_size

    @property
    def image_fit(self) -> str:
        """How a picture becomes a square, `crop` or `stretch`; see `cnnrnn_tf.data.images.fit_to_square`."""
        return self.backbone.image_fit

    def build(self, input_shape=None):
        self.backbone.build()
        self.decoder.build()
        self.built = True

    def call(self, inputs, training=None):
        """Teacher forcing: the scores of every step, given the true labels before it.

        Args:
            inputs: {"image": <uint8 or float, RGB 0 to 255>[batch, size, size, 3]} or
                {"features": <float>[batch, features]}, and {"tokens": <int>[batch, steps]} from START on.
            training: whether dropout acts and batch statistics are used.

        Returns:
            <float32>[batch, steps, labels + 1], logits, END last.
        """
        if "features" in inputs:
            features = inputs["features"]
        else:
            features = self.backbone(inputs["image"], training=training)
        return self.decoder({"features": features, "tokens": inputs["tokens"]}, training=training)

    def extract_features(self, images):
        """The representation I of images <uint8 or float, 0 to 255>[batch, size, size, 3], as in inference.

        Returns:
            <float32>[batch, features].
        """
        return self.backbone(images, training=False)

    def decode(
        self,
        features,
        *,
        beam_size=5,
        row_beam_size=None,
        min_length=0,
        max_length: int | None = None,
        row_max_length=None,
        given=None,
        absent=None,
        prefix=None,
        prefix_lengths=None,
        renormalise: bool = False,
        length_penalty: float = 0.0,
        with_step_probs: bool = True,
        tables=None,
    ) -> BeamResult:
        """The most probable paths of each image, by beam search.

        Args:
            features: <float>[batch, features], of `extract_features`.
            given: <bool>[batch, labels], labels known to hold. A model trained on paths in one order never
                saw a label come out of it, so they constrain the path and do not begin it.
            absent: <bool>[batch, labels], labels known not to hold: no path has them.
            max_length: most labels on a path; `max_path_length` by default.
            beam_size, row_beam_size, min_length, row_max_length, prefix, prefix_lengths, renormalise,
                length_penalty, with_step_probs: of `cnnrnn_tf.model.beam_search.beam_search`.
            tables: `decoder.tabulate()`, where it was kept from before.

        Raises:
            UserError: an option out of range; or a prefix, and this model was trained on paths in one order.
        """
        if prefix is not None and self._order_ranks is not None:
            raise UserError(
                f"prefix: this model learned paths in the order {self.label_order!r} and never saw one begin "
                "otherwise; pass the labels as `given`"
            )
        projected = self.decoder.project(features, training=False)
        step = SharedPrefixStep(self.decoder, projected, tables)
        return beam_search(
            step,
            step.initial_state,
            tf.shape(projected)[0],
            self.num_labels,
            beam_size=beam_size,
            row_beam_size=row_beam_size,
            max_length=max_length or self.max_path_length,
            min_length=min_length,
            row_max_length=row_max_length,
            given=given,
            absent=absent,
            given_in_order=None if given is None else self._order_ranks,
            prefix=prefix,
            prefix_lengths=prefix_lengths,
            renormalise=renormalise,
            length_penalty=length_penalty,
            with_step_probs=with_step_probs,
        )

    def get_config(self):
        decoder = self.decoder.get_config()
        own = {name: decoder[name] for name in _DECODER_ARGUMENTS}
        backbone = self.backbone.get_config()
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "max_path_length": self.max_path_length,
            "backbone": backbone["backbone"],
            "feature_layer": backbone["feature_layer"],
            "image_size": backbone["image_size"],
            "image_fit": backbone["image_fit"],
            "trainable_from": self.trainable_from,
            **own,
            "label_order": self.label_order,
            "label_order_seed": self.label_order_seed,
            "vocabulary_fingerprint": self.vocabulary_fingerprint,
        }


_DECODER_ARGUMENTS = (
    "cell",
    "cell_units",
    "embedding_dim",
    "dropout",
    "tie_embeddings",
    "standardise_features",
)
