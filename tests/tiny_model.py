"""A number enters; a photograph of its own leaves. And a real model that tells such photographs apart."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from cnnrnn_tf.data.images import decode_batch
from cnnrnn_tf.model.cnn_rnn import CNNRNN
from tfrecords.vocabulary import LabelVocabulary

VOCABULARY = LabelVocabulary.from_counts({"sky": 9, "sea": 8, "été": 7, "boat": 6, "tree": 5, "car": 4})


def make_photograph(seed, file_format="JPEG"):
    """A smooth picture of a few colours, all its own, as a file's bytes."""
    rng = np.random.default_rng(seed)
    width, height = rng.integers(40, 120, 2)
    blobs = Image.fromarray(rng.integers(0, 256, [4, 4, 3], np.uint8))
    file = io.BytesIO()
    blobs.resize((int(width), int(height)), Image.BICUBIC).save(file, file_format)
    return file.getvalue()


def make_model(vocabulary=VOCABULARY, max_path_length=4, seed=1, image_fit="crop"):
    """A model with random weights and standardised features, so that photographs have labels of their own."""
    tf.keras.utils.set_random_seed(seed)
    model = CNNRNN(
        vocabulary.size,
        max_path_length,
        backbone="compact",
        image_size=32,
        image_fit=image_fit,
        cell_units=160,  # its kernels are large enough for the lint that finds copies
        standardise_features=True,
        vocabulary_fingerprint=vocabulary.fingerprint,
    )
    model.build()
    decoder = model.decoder
    photographs, _, _ = decode_batch(tf.constant([make_photograph(i) for i in range(8)]), model.image_size)
    decoder.adapt_features(model.extract_features(photographs).numpy())
    for variable in (decoder.label_embeddings, decoder.output_projection.kernel):
        variable.assign(4.0 * variable)  # some paths are short, some empty
    return model


def inference_weights(backbone):
    """What an export stores of a backbone: each kernel, and of each batch normalisation a bias."""
    return [weight for weight in backbone.weights if weight.path.endswith(("kernel", "beta"))]
