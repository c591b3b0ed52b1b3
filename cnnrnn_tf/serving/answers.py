"""Features of images enter, with what is wrong with some of them; what each signature answers leaves.

`Answers` is what the signatures share: every row that has an error already, or gets one here, answers with
it, with "" for labels and 0 for numbers.
"""

import functools
from typing import NamedTuple

import tensorflow as tf

from cnnrnn_tf.evaluation.calibration import UNSEEN
from cnnrnn_tf.model.beam_search import rank_labels
from cnnrnn_tf.serving.known_labels import find_contradictions, look_up
from cnnrnn_tf.serving.tagged_image import AS_EXPORTED
from tfrecords.errors import UserError

DEFAULT_MAX_BEAM_SIZE = 10

_ROUNDING = 1e-6  # the marginal of a label on all candidates is 1 but for rounding, which the batch decides
_NOT_FINITE = "the model gives no numbers: its weights are NaN"


class Options(NamedTuple):
    """How to search, row by row."""

    beam_size: tf.Tensor
    """<int32>[batch], 1 to `Answers.max_beam_size`; -1, for the lengths too, for the configured number."""
    min_length: tf.Tensor
    """<int32>[batch], 0 to `max_length`; the configured number is lowered to it."""
    max_length: tf.Tensor
    """<int32>[batch], 1 to `Answers.max_length`."""
    threshold: tf.Tensor
    """<float32>[batch], 0 to 1: labels of the path that are less probable are left out."""


class Answers:
    """A model's decoder as functions of features.

    What a search can look up (`LabelDecoder.tabulate`) is computed once, here, so that an export does not
    compute it with each request. The tables are a snapshot: of a model that is trained further, make new
    Answers.

    Args:
        model: a CNNRNN, built.
        vocabulary: the LabelVocabulary that it was trained with.
        decoding: a DecodingConfig.
        calibration: a Calibration of the model; None to answer with marginals.
        max_beam_size: the widest beam that a request may ask for; None for the configured beam, at least 10.

    Raises:
        UserError: the model or the calibration is of another vocabulary, a label has no name, or
            `max_beam_size` excludes the configured beam.
    """

    def __init__(self, model, vocabulary, decoding, calibration=None, max_beam_size=None):
        check_vocabulary(model, vocabulary)
        if calibration is not None:
            calibration.check_vocabulary(vocabulary)
        self.calibration = calibration
        self.max_length = decoding.max_length or model.max_path_length
        self._beam_size, self._min_length = decoding.beam_size, decoding.min_length
        self.max_beam_size = _choose_max_beam_size(max_beam_size, decoding.beam_size)
        self.feature_size = model.backbone.feature_size
        self._names = vocabulary.names
        self._temperature = None if calibration is None else calibration.temperature
        self._project = model.decoder.project
        tables = model.decoder.tabulate()
        self.tables = type(tables)(
            *(tf.Variable(table, trainable=False, name=name) for name, table in tables._asdict().items())
        )
        self._decode = functools.partial(
            model.decode,
            beam_size=decoding.beam_size,
            min_length=decoding.min_length,
            max_length=self.max_length,
            length_penalty=decoding.length_penalty,
            renormalise=decoding.renormalise,
            with_step_probs=False,  # for rankings of all labels alone
            tables=self.tables,
        )
        # One function in the graph, which several signatures call.
        self._search = tf.function(
            self._decode,
            input_signature=[tf.TensorSpec([None, self.feature_size], tf.float32)],
            autograph=False,
        )

    def find_paths(self, features, errors):
        """The most probable path of each image, by the configured search.

        Args:
            features: <float32>[batch, features].
            errors: <string>[batch], "" where there is an image.

        Returns:
            The outputs of `Tagger.serving_default`.
        """
        return self._name_labels(self._search(features), errors)

    def find_chosen_paths(self, features, errors, options):
        """As `find_paths`, searched with each row's own `Options`; one out of bounds is the row's error."""
        options = self._fill_in(Options(**_check_rows(features, options._asdict())))
        errors = _join_errors(errors, self._check_options(options))
        is_good = errors == ""
        beam_size = tf.where(is_good, options.beam_size, 1)
        found = self._decode(
            features,
            beam_size=tf.maximum(tf.reduce_max(beam_size), 1),  # of no rows, the least number
            row_beam_size=beam_size,
            min_length=tf.where(is_good, options.min_length, 0),
            row_max_length=tf.where(is_good, options.max_length, self.max_length),
        )
        return self._name_labels(found, errors, threshold=options.threshold)

    def find_given_paths(self, features, errors, given, absent):
        """As `find_paths`, among paths with the labels in `given` and without those in `absent`.

        Both are <string>[batch], names joined by newlines.
        """
        known = _check_rows(features, {"given": given, "absent": absent})
        is_given, unknown_given = look_up(known["given"], self._names, "given")
        is_absent, unknown_absent = look_up(known["absent"], self._names, "absent")
        num_given = tf.math.count_nonzero(is_given, axis=1, dtype=tf.int32)
        too_many = tf.strings.join(
            [tf.strings.as_string(num_given), f" labels given, and a path has at most {self.max_length}"]
        )
        errors = _join_errors(
            errors,
            unknown_given,
            unknown_absent,
            find_contradictions(is_given, is_absent, self._names),
            tf.where(num_given > self.max_length, too_many, ""),
        )
        found = self._decode(features, given=is_given, absent=is_absent)
        return self._name_labels(found, errors, given=is_given)

    def score_labels(self, features, errors):
        """The scores of all labels: the outputs of `Tagger.scores`."""
        found = self._decode(features, with_step_probs=True)
        errors = _join_errors(errors, _find_missing_paths(found))
        valid = errors == ""
        ranking = rank_labels(found)
        # A label that is on no candidate ranks below 0.
        scores = tf.where(ranking >= 0, self._calibrate(found.marginals), 0.0)
        is_valid = valid[:, tf.newaxis]
        return {
            "labels": tf.where(is_valid, tf.constant([self._names]), ""),
            "scores": tf.where(is_valid, scores, 0.0),
            "ranking": tf.where(is_valid, ranking, 0.0),
            "valid": valid,
            "error": errors,
        }

    def embed(self, features, errors):
        """The images in the joint space: the outputs of `Tagger.embed`."""
        embedding = tf.cast(self._project(features, training=False), tf.float32)
        is_finite = tf.reduce_all(tf.math.is_finite(embedding), axis=1)
        errors = _join_errors(errors, tf.where(is_finite, "", _NOT_FINITE))
        valid = errors == ""
        return {
            "embedding": tf.where(valid[:, tf.newaxis], embedding, 0.0),
            "valid": valid,
            "error": errors,
        }

    def classify(self, features, errors):
        """The path's labels and their probabilities, under the names of the server's Classify API."""
        answer = self.find_paths(features, errors)
        return {"classes": answer["labels"], "scores": answer["probabilities"]}

    def _calibrate(self, marginals, given=None):
        """`calibration.apply_temperature`, in the graph; of what is given there is nothing to calibrate."""
        if self._temperature is None:
            return marginals
        shrink = 1 - 2 * UNSEEN
        logits = tf.math.log(UNSEEN + shrink * marginals) - tf.math.log(UNSEEN + shrink * (1 - marginals))
        calibrated = tf.math.sigmoid(logits / self._temperature)
        return calibrated if given is None else tf.where(given, marginals, calibrated)

    def _name_labels(self, found, errors, given=None, threshold=None):
        errors = _join_errors(errors, _find_missing_paths(found))
        valid = errors == ""
        tokens = found.tokens[:, 0]  # [batch, M], the best candidate's
        is_label = (tokens < len(self._names)) & valid[:, tf.newaxis]
        labels = tf.where(is_label, tokens, 0)
        probabilities = tf.gather(self._calibrate(found.marginals, given), labels, batch_dims=1)
        step_probabilities = tf.exp(found.token_log_probs[:, 0])
        if threshold is not None:
            is_label &= probabilities >= threshold[:, tf.newaxis] - _ROUNDING
            # The lower place goes first among equals: the labels that stay move up in their order.
            places = tf.math.top_k(tf.cast(is_label, tf.int32), k=is_label.shape[1]).indices
            is_label, labels, probabilities, step_probabilities = (
                tf.gather(each, places, batch_dims=1)
                for each in (is_label, labels, probabilities, step_probabilities)
            )
        return {
            "labels": tf.where(is_label, tf.gather(tf.constant(self._names), labels), ""),
            "probabilities": tf.where(is_label, probabilities, 0.0),
            "step_probabilities": tf.where(is_label, step_probabilities, 0.0),
            "num_labels": tf.math.count_nonzero(is_label, axis=1, dtype=tf.int32),
            "path_probability": tf.where(valid, tf.exp(found.log_probs[:, 0]), 0.0),
            "valid": valid,
            "error": errors,
        }

    def _fill_in(self, options):
        """Returns `Options` with the configured numbers for what is `AS_EXPORTED`."""
        beam_size, min_length, max_length, threshold = options
        beam_size = tf.where(beam_size == AS_EXPORTED, self._beam_size, beam_size)
        max_length = tf.where(max_length == AS_EXPORTED, self.max_length, max_length)
        min_length = tf.where(min_length == AS_EXPORTED, tf.minimum(self._min_length, max_length), min_length)
        return Options(beam_size, min_length, max_length, threshold)

    def _check_options(self, options):
        """Returns <string>[batch]: the first option that is out of its bounds, and what they are."""
        beam_size, min_length, max_length, threshold = options
        return _join_errors(
            _find_outside("beam_size", beam_size, 1, self.max_beam_size),
            _find_outside("max_length", max_length, 1, self.max_length),
            _find_outside("min_length", min_length, 0, max_length),
            _find_outside("threshold", threshold, 0.0, 1.0),
        )


def check_vocabulary(model, vocabulary):
    """Raises a UserError where the model was trained with another vocabulary, or a label has no name."""
    if "" in vocabulary.names:
        raise UserError(
            "the vocabulary has a label without a name, which nothing tells from the padding of a list: name "
            "it in the source, build the data set again and train again"
        )
    if model.vocabulary_fingerprint != vocabulary.fingerprint:
        raise UserError(
            f"the model was trained on vocabulary {str(model.vocabulary_fingerprint)[:12]}, and this one of "
            f"{vocabulary.size} labels is {vocabulary.fingerprint[:12]}: take the vocabulary.json of its run"
        )


def _find_outside(name, values, low, high):
    """Returns <string>[batch]: "" where `values` are from `low` to `high`, else both; NaN is nowhere."""
    found, low_text, high_text = (_format(tf.cast(each, values.dtype)) for each in (values, low, high))
    fault = tf.strings.join([f"{name} ", found, ": expected ", low_text, " to ", high_text])
    return tf.where((values >= low) & (values <= high), "", fault)


def _format(numbers):
    return tf.strings.as_string(numbers, shortest=numbers.dtype.is_floating)


def _find_missing_paths(found):
    """A search gives every image a path unless its scores are NaN."""
    return tf.where(found.log_probs[:, 0] > float("-inf"), "", _NOT_FINITE)


def _join_errors(*errors):
    """Returns each row's first error, <string>[batch]."""
    first, *others = errors
    for later in others:
        first = tf.where(first == "", later, first)
    return first


def _check_rows(features, inputs):
    """Returns the inputs {name: tensor}, to be read once each is known to have a row for each image.

    Else the request fails as a whole: which rows belong together?
    """
    checks = [
        tf.debugging.assert_equal(
            tf.shape(features)[0], tf.shape(values)[0], f"{name}: expected one row an image"
        )
        for name, values in inputs.items()
    ]
    with tf.control_dependencies(checks):
        return {name: tf.identity(values) for name, values in inputs.items()}


def _choose_max_beam_size(wanted, beam_size):
    if wanted is None:
        return max(beam_size, DEFAULT_MAX_BEAM_SIZE)
    if wanted < beam_size:
        raise UserError(f"max_beam_size {wanted}: expected at least the configured beam size, {beam_size}")
    return wanted
