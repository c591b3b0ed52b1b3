"""A trained model enters; the functions that TensorFlow Serving runs leave: from bytes to labels.

`Tagger` holds the functions that `cnnrnn predict RUN` calls, and an export is a `Tagger` on disk: a notebook
and TensorFlow Serving agree because they run the same graph. `FeatureExtractor` and `FeatureTagger` are its
two halves, for those who keep features.
"""

import tensorflow as tf

from cnnrnn_tf.data.images import decode_batch
from cnnrnn_tf.serving.answers import Answers, Options
from cnnrnn_tf.serving.examples import read_image_bytes
from cnnrnn_tf.serving.precision import FLOAT32, make_extractor, to_float32
from cnnrnn_tf.serving.tag_files import SCORES, SERVING_DEFAULT, TAG, TAG_GIVEN, TaggedImage, tag_files

__all__ = [
    "CLASSIFY",
    "EMBED",
    "SCORES",
    "SERVING_DEFAULT",
    "TAG",
    "TAG_GIVEN",
    "FeatureExtractor",
    "FeatureTagger",
    "TaggedImage",
    "Tagger",
    "tag_files",
]

EMBED = "embed"
CLASSIFY = "classify"

_IMAGE_BYTES = tf.TensorSpec([None], tf.string, name="image_bytes")
_EXAMPLES = tf.TensorSpec([None], tf.string, name="inputs")  # the Classify API's own name
_KNOWN = (tf.TensorSpec([None], tf.string, name="given"), tf.TensorSpec([None], tf.string, name="absent"))
_OPTIONS = (
    tf.TensorSpec([None], tf.int32, name="beam_size"),
    tf.TensorSpec([None], tf.int32, name="min_length"),
    tf.TensorSpec([None], tf.int32, name="max_length"),
    tf.TensorSpec([None], tf.float32, name="threshold"),
)


def _signature(*specs):
    # autograph=False: the graph is built by TensorFlow's own control flow, and mistakes stay one line.
    return tf.function(input_signature=specs, autograph=False)


class Tagger(tf.Module):
    """A model as functions of image files: what TensorFlow Serving runs.

    A file that cannot be decoded costs its own row: `valid` is False there, `error` says why, the labels are
    "" and the numbers 0. No row depends on the others of its batch, and no files give no rows.
    Sums round by the batch's size: of two paths as probable as each other but for that, either may be given.

    Args:
        model: a CNNRNN, built; its weights are shared with it, not copied, but for a CNN in bfloat16 and the
            tables that a search looks up, a snapshot of them at construction: of a model that is trained
            further, make a new Tagger. One of mixed precision is copied and computes in float32, as
            its weights are, here and in the export alike.
        vocabulary: the LabelVocabulary that it was trained with.
        decoding: a DecodingConfig: beam_size, min_length, max_length (0: the longest training path),
            length_penalty, renormalise.
        calibration: a Calibration of the model, fitted with this decoding; None to answer with marginals.
        max_beam_size: the widest beam that a request of `tag` may ask for; None for the configured beam, at
            least 10.
        precision: of the CNN; see `cnnrnn_tf.serving.precision`.

    Raises:
        UserError: the model was trained with another vocabulary, the calibration is of another, or
            `max_beam_size` or `precision` is out of range. Another option out of range is told when a
            function is first called or traced.
    """

    def __init__(self, model, vocabulary, decoding, calibration=None, max_beam_size=None, precision=FLOAT32):
        super().__init__(name="tagger")
        model = to_float32(model)
        self.answers = Answers(model, vocabulary, decoding, calibration, max_beam_size)
        self.calibration, self.max_length = calibration, self.answers.max_length
        extract, weights = make_extractor(model.backbone, precision)
        self._read = _make_reader(extract, model.image_size, model.image_fit)
        # Of the model itself only functions are held: TensorFlow would track each of its weights again.
        self.weights = [variable.value for variable in (*weights, *model.decoder.weights)]
        self.weights += self.answers.tables

    @property
    def signatures(self):
        """The functions by name, as `tf.saved_model.load(...).signatures` has them."""
        return {
            SERVING_DEFAULT: self.serving_default,
            TAG: self.tag,
            TAG_GIVEN: self.tag_given,
            SCORES: self.scores,
            EMBED: self.embed,
            CLASSIFY: self.classify,
        }

    @_signature(_IMAGE_BYTES)
    def serving_default(self, image_bytes):
        """Tags image files.

        Args:
            image_bytes: <string>[batch], the files' content: JPEG, PNG, GIF, BMP or WebP.

        Returns:
            A dictionary, with M the most labels that a path may have:

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
        return self.answers.find_paths(*self._read(image_bytes))

    @_signature(_IMAGE_BYTES, *_OPTIONS)
    def tag(self, image_bytes, beam_size, min_length, max_length, threshold):
        """Tags image files, each searched in its own way.

        Args:
            image_bytes: <string>[batch], as in `serving_default`.
            beam_size: <int32>[batch], 1 (greedy) to `max_beam_size`; -1, for the lengths too, for what the
                export was made with.
            min_length: <int32>[batch], the fewest labels on a path, 0 to `max_length`.
            max_length: <int32>[batch], the most labels on a path, 1 to M.
            threshold: <float32>[batch], 0 to 1: labels of the path whose probability is below are left out. 0
                keeps all. The path's own probability stays that of the whole path.

        Returns:
            As `serving_default`. An option out of its bounds is the row's error.
        """
        options = Options(beam_size, min_length, max_length, threshold)
        return self.answers.find_chosen_paths(*self._read(image_bytes), options)

    @_signature(_IMAGE_BYTES, *_KNOWN)
    def tag_given(self, image_bytes, given, absent):
        """Tags image files of which some labels are known to hold, or known not to.

        Args:
            image_bytes: <string>[batch], as in `serving_default`.
            given: <string>[batch], names of labels that hold, joined by newlines; "" for none. They are among
                the answer's labels.
            absent: <string>[batch], names of labels that do not hold, likewise. No answer has one.

        Returns:
            As `serving_default`. Marginals are among the paths that agree with what is known, so that of a
            given label is 1; `path_probability` stays the model's own, and is not scaled up to those paths.
            An unknown name, one in both, or more given names than a path may have labels, is the row's error.
            An image of which too many labels are absent for the configured minimum has fewer.
        """
        return self.answers.find_given_paths(*self._read(image_bytes), given, absent)

    @_signature(_IMAGE_BYTES)
    def scores(self, image_bytes):
        """Scores all L labels of image files.

        Args:
            image_bytes: <string>[batch], as in `serving_default`.

        Returns:
            A dictionary:

            labels: <string>[batch, L], all names in the order of their ids.
            scores: <float32>[batch, L], as `probabilities` of `serving_default`; 0 for labels that are on no
                candidate path.
            ranking: <float32>[batch, L], what the evaluation ranks by: among labels on no candidate path,
                those below 0, it still tells the more probable one (`beam_search.rank_labels`).
            valid, error: as in `serving_default`.
        """
        return self.answers.score_labels(*self._read(image_bytes))

    @_signature(_IMAGE_BYTES)
    def embed(self, image_bytes):
        """Puts image files into the joint space of images and labels: U_I I of the paper's equation 4.

        Args:
            image_bytes: <string>[batch], as in `serving_default`.

        Returns:
            A dictionary: embedding <float32>[batch, D], and valid, error as in `serving_default`.
        """
        return self.answers.embed(*self._read(image_bytes))

    @_signature(_EXAMPLES)
    def classify(self, inputs):
        """Tags the files in tf.Examples, for the server's Classify API.

        Args:
            inputs: <string>[batch], serialized tf.Examples with the file in `image/encoded`.

        Returns:
            A dictionary: classes <string>[batch, M], scores <float32>[batch, M], `labels` and `probabilities`
            of `serving_default`. The API has no room for errors: all of a bad row's classes are "".
        """
        return self.answers.classify(*self._read(read_image_bytes(inputs)))


class FeatureExtractor(tf.Module):
    """The first half of a `Tagger`: image files enter, the CNN's features leave.

    Args:
        model: a CNNRNN, built.
        precision: of the CNN; see `cnnrnn_tf.serving.precision`.
    """

    def __init__(self, model, precision=FLOAT32):
        super().__init__(name="feature_extractor")
        model = to_float32(model)
        extract, weights = make_extractor(model.backbone, precision)
        self._read = _make_reader(extract, model.image_size, model.image_fit)
        self.weights = [variable.value for variable in weights]

    @property
    def signatures(self):
        """As `Tagger.signatures`."""
        return {SERVING_DEFAULT: self.serving_default}

    @_signature(_IMAGE_BYTES)
    def serving_default(self, image_bytes):
        """Extracts the features of image files.

        Args:
            image_bytes: <string>[batch], as in `Tagger.serving_default`.

        Returns:
            A dictionary: features <float32>[batch, F], 0 where there is no image, and valid, error as in
            `Tagger.serving_default`.
        """
        features, errors = self._read(image_bytes)
        valid = errors == ""
        return {
            "features": tf.where(valid[:, tf.newaxis], features, 0.0),
            "valid": valid,
            "error": errors,
        }


class FeatureTagger(tf.Module):
    """The second half of a `Tagger`: its functions, of features <float32>[batch, F] in place of files.

    A row with NaN or infinity is that row's error.

    Args:
        model, vocabulary, decoding, calibration, max_beam_size: as of `Tagger`.
    """

    def __init__(self, model, vocabulary, decoding, calibration=None, max_beam_size=None):
        super().__init__(name="feature_tagger")
        model = to_float32(model)
        self.answers = Answers(model, vocabulary, decoding, calibration, max_beam_size)
        self.calibration, self.max_length = calibration, self.answers.max_length
        self.weights = [variable.value for variable in model.decoder.weights]
        self.weights += self.answers.tables
        self.signatures = self._make_signatures(
            tf.TensorSpec([None, self.answers.feature_size], name="features")
        )

    def _make_signatures(self, spec):
        answers = self.answers

        @_signature(spec)
        def serving_default(features):
            return answers.find_paths(*_check_features(features))

        @_signature(spec, *_OPTIONS)
        def tag(features, beam_size, min_length, max_length, threshold):
            options = Options(beam_size, min_length, max_length, threshold)
            return answers.find_chosen_paths(*_check_features(features), options)

        @_signature(spec, *_KNOWN)
        def tag_given(features, given, absent):
            return answers.find_given_paths(*_check_features(features), given, absent)

        @_signature(spec)
        def scores(features):
            return answers.score_labels(*_check_features(features))

        @_signature(spec)
        def embed(features):
            return answers.embed(*_check_features(features))

        return {
            SERVING_DEFAULT: serving_default,
            TAG: tag,
            TAG_GIVEN: tag_given,
            SCORES: scores,
            EMBED: embed,
        }


def _make_reader(extract, image_size, image_fit):
    """Returns a function of image files: their features, and <string>[batch] why some have none."""

    @_signature(_IMAGE_BYTES)  # in the graph once, however many signatures call it
    def read(image_bytes):
        images, _, errors = decode_batch(image_bytes, image_size, image_fit)
        num_rows = tf.size(errors)
        # TensorFlow's convolutions take no empty batch on a CPU.
        blank = tf.zeros([1, image_size, image_size, 3])
        images = tf.cond(num_rows > 0, lambda: images, lambda: blank)
        return extract(images)[:num_rows], errors

    return read


def _check_features(features):
    is_finite = tf.reduce_all(tf.math.is_finite(features), axis=1)
    errors = tf.where(is_finite, "", "the features hold NaN or infinity")
    return tf.where(is_finite[:, tf.newaxis], features, 0.0), errors
