"""Image files enter as bytes; each one's labels and probabilities leave, or why it has none.

`Tagger` holds the functions that `cnnrnn predict RUN` calls, and an export is a `Tagger` on disk: a notebook
and TensorFlow Serving agree because they run the same graph.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import tensorflow as tf

from cnnrnn_tf.data.images import decode_batch
from cnnrnn_tf.evaluation.calibration import UNSEEN
from tfrecords.errors import UserError

__all__ = ["SERVING_DEFAULT", "TAG_GIVEN", "TaggedImage", "Tagger", "tag_files"]

SERVING_DEFAULT = "serving_default"
TAG_GIVEN = "tag_given"

_IMAGE_BYTES = tf.TensorSpec([None], tf.string, name="image_bytes")
_GIVEN = tf.TensorSpec([None, None], tf.string, name="given")


class Tagger(tf.Module):
    """A model as functions of image files: what TensorFlow Serving runs.

    A file that cannot be decoded costs its own row: `valid` is False there, `error` says why, the labels are
    "" and the numbers 0. No row depends on the others of its batch. Both functions return, with M the most
    labels that a path may have:

        labels: <string>[batch, M], in the order in which the model emits them, padded with "".
        probabilities: <float32>[batch, M], the marginal of each label: the share of the candidates'
            probability that lies on paths with it; with a calibration, what that means (a rising map, see
            `evaluation.calibration`), but of given labels still the marginal. 0 in the padding.
        step_probabilities: <float32>[batch, M], the softmax at the step that emitted the label. 0 in the
            padding.
        num_labels: <int32>[batch].
        path_probability: <float32>[batch], of the labels and END in this order.
        valid: <bool>[batch].
        error: <string>[batch], "" where valid.
    """

    def __init__(self, model, vocabulary, decoding, calibration=None):
        """Wraps a model; its weights are shared with it, not copied.

        Args:
            model: a CNNRNN, built.
            vocabulary: the LabelVocabulary that it was trained with.
            decoding: a DecodingConfig: beam_size, min_length, max_length (0: the longest training path),
                length_penalty, renormalise.
            calibration: a Calibration of the model, fitted with this decoding; None to answer with marginals.

        Raises:
            UserError: the model was trained with another vocabulary, or the calibration is of another.
        """
        super().__init__(name="tagger")
        _check_vocabulary(model, vocabulary)
        if calibration is not None:
            calibration.check_vocabulary(vocabulary)
        self.calibration = calibration
        self._temperature = None if calibration is None else calibration.temperature
        self.image_size, self.image_fit = model.image_size, model.image_fit
        self.max_length = decoding.max_length or model.max_path_length
        # Of the model itself only bound methods are held: TensorFlow would track each of its weights again.
        self.weights = [variable.value for variable in model.weights]
        self._extract_features = model.extract_features
        self._decode = functools.partial(
            model.decode,
            beam_size=decoding.beam_size,
            min_length=decoding.min_length,
            max_length=self.max_length,
            length_penalty=decoding.length_penalty,
            renormalise=decoding.renormalise,
        )
        self._names = vocabulary.names

    @property
    def signatures(self):
        """The functions by name, as `tf.saved_model.load(...).signatures` has them."""
        return {SERVING_DEFAULT: self.serving_default, TAG_GIVEN: self.tag_given}

    # autograph=False: the graph is built by TensorFlow's own control flow, and mistakes stay one line.
    @tf.function(input_signature=[_IMAGE_BYTES], autograph=False)
    def serving_default(self, image_bytes):
        """Tags image files.

        Args:
            image_bytes: <string>[batch], the files' content: JPEG, PNG, GIF, BMP or WebP.

        Returns:
            A dictionary, see the class.
        """
        return self._tag(image_bytes, given=None, faults="")

    @tf.function(input_signature=[_IMAGE_BYTES, _GIVEN], autograph=False)
    def tag_given(self, image_bytes, given):
        """Tags image files of which some labels are known: they are among each answer's labels.

        Args:
            image_bytes: <string>[batch], as in `serving_default`.
            given: <string>[batch, any number], names of the known labels; "" and repetitions say nothing. An
                unknown name, or more names than a path may have labels, is the row's error.

        Returns:
            A dictionary, see the class.
        """
        num_images, num_given = tf.shape(image_bytes)[0], tf.shape(given)[0]
        check = tf.debugging.assert_equal(num_images, num_given, "given: expected one row an image")
        with tf.control_dependencies([check]):
            is_given, faults = self._look_up(given)
        return self._tag(image_bytes, is_given, faults)

    def _tag(self, image_bytes, given, faults):
        images, is_image, errors = decode_batch(image_bytes, self.image_size, self.image_fit)
        found = self._decode(self._extract_features(images), given=given)
        errors = tf.where(is_image, faults, errors)
        has_path = found.log_probs[:, 0] > float("-inf")
        errors = tf.where(
            (errors == "") & ~has_path, "the model gives no numbers: its weights are NaN", errors
        )
        probabilities = self._calibrate(found.marginals, given)
        return self._name_labels(found, probabilities, valid=errors == "", errors=errors)

    def _calibrate(self, marginals, given):
        """`calibration.apply_temperature`, in the graph; of what is given there is nothing to calibrate."""
        if self._temperature is None:
            return marginals
        shrink = 1 - 2 * UNSEEN
        logits = tf.math.log(UNSEEN + shrink * marginals) - tf.math.log(UNSEEN + shrink * (1 - marginals))
        calibrated = tf.math.sigmoid(logits / self._temperature)
        return calibrated if given is None else tf.where(given, marginals, calibrated)

    def _name_labels(self, found, probabilities, valid, errors):
        tokens = found.tokens[:, 0]  # [batch, M], the best candidate's
        is_label = (tokens < len(self._names)) & valid[:, tf.newaxis]
        labels = tf.where(is_label, tokens, 0)
        zero_elsewhere = tf.cast(is_label, tf.float32)
        return {
            "labels": tf.where(is_label, tf.gather(tf.constant(self._names), labels), ""),
            "probabilities": tf.gather(probabilities, labels, batch_dims=1) * zero_elsewhere,
            "step_probabilities": tf.exp(found.token_log_probs[:, 0]) * zero_elsewhere,
            "num_labels": tf.math.count_nonzero(is_label, axis=1, dtype=tf.int32),
            "path_probability": tf.where(valid, tf.exp(found.log_probs[:, 0]), 0.0),
            "valid": valid,
            "error": errors,
        }

    def _look_up(self, given):
        """Returns <bool>[batch, labels], what is given, and <string>[batch], what is wrong with it."""
        given = tf.concat([given, tf.fill([tf.shape(given)[0], 1], "")], axis=1)  # never without columns
        # A hash table would need an initialiser to be run at loading; comparing needs nothing.
        is_name = given[:, :, tf.newaxis] == tf.constant(self._names)  # [batch, given, labels]
        is_given = tf.reduce_any(is_name, axis=1)
        is_unknown = (given != "") & ~tf.reduce_any(is_name, axis=2)
        first = tf.argmax(tf.cast(is_unknown, tf.int32), axis=1)
        unknown = tf.strings.join(["unknown label '", tf.gather(given, first, batch_dims=1), "'"])
        num_given = tf.math.count_nonzero(is_given, axis=1, dtype=tf.int32)
        too_many = tf.strings.join(
            [tf.strings.as_string(num_given), f" labels given, and a path has at most {self.max_length}"]
        )
        faults = tf.where(num_given > self.max_length, too_many, "")
        return is_given, tf.where(tf.reduce_any(is_unknown, axis=1), unknown, faults)


@dataclass(frozen=True)
class TaggedImage:
    """One image's row of a Tagger's answer, without the padding."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    step_probabilities: tuple[float, ...]
    path_probability: float
    error: str = ""

    @property
    def valid(self):
        return not self.error


def tag_files(
    tagger, files: Iterable[bytes], given: Sequence[str] = (), batch_size: int = 32
) -> Iterator[TaggedImage]:
    """Tags image files batch by batch, reading no further ahead.

    Args:
        tagger: a Tagger, or an export that `load_export` has read.
        files: the content of each file.
        given: names of labels that all images are known to have.
        batch_size: images tagged at once; the answers do not depend on it.

    Yields:
        A TaggedImage for each file, in order.
    """
    files = iter(files)
    while batch := list(itertools.islice(files, batch_size)):
        inputs = {"image_bytes": tf.constant(batch, tf.string)}
        if given:
            inputs["given"] = tf.constant([list(given)] * len(batch), tf.string)
        outputs = tagger.signatures[TAG_GIVEN if given else SERVING_DEFAULT](**inputs)
        rows = {key: tensor.numpy() for key, tensor in outputs.items()}
        for i in range(len(batch)):
            yield _read_row({key: array[i] for key, array in rows.items()})


def _read_row(row):
    places = slice(0, int(row["num_labels"]))
    return TaggedImage(
        labels=tuple(name.decode() for name in row["labels"][places]),
        probabilities=tuple(row["probabilities"][places].tolist()),
        step_probabilities=tuple(row["step_probabilities"][places].tolist()),
        path_probability=float(row["path_probability"]),
        error=row["error"].decode(),
    )


def _check_vocabulary(model, vocabulary):
    if model.vocabulary_fingerprint != vocabulary.fingerprint:
        raise UserError(
            f"the model was trained on vocabulary {str(model.vocabulary_fingerprint)[:12]}, and this one of "
            f"{vocabulary.size} labels is {vocabulary.fingerprint[:12]}: take the vocabulary.json of its run"
        )
