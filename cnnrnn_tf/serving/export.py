"""A trained model enters; a folder that TensorFlow Serving runs leaves, and can be read back.

runs/demo/<time>/export/1/saved_model.pb
                          variables/...
                          assets/vocabulary.json    the labels, in the order of their ids
                          assets/labels.txt         their names alone, one a line
                          assets/export.json        what it holds, how it decodes, and what it was made with
                          assets/calibration.json   what its probabilities were made honest with, if so
                          assets/model_card.md      data, protocol, results, limits
                          assets.extra/tf_serving_warmup_requests
"""

import dataclasses
import errno
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from cnnrnn_tf.evaluation.calibration import Calibration
from cnnrnn_tf.serving.answers import check_vocabulary
from cnnrnn_tf.serving.model_card import TrainingFacts, write_model_card
from cnnrnn_tf.serving.precision import FLOAT32
from cnnrnn_tf.serving.signatures import (
    CLASSIFY,
    SERVING_DEFAULT,
    TAG_GIVEN,
    FeatureExtractor,
    FeatureTagger,
    Tagger,
)
from cnnrnn_tf.serving.versions import ASSETS, EXPORT_FILE, FINGERPRINT, WHOLE, find_export, read_assets
from cnnrnn_tf.serving.warmup import DEFAULT_BATCH_SIZE, find_inputs, write_warmup_requests
from tfrecords import vocabulary as vocabulary_file
from tfrecords.errors import UserError
from tfrecords.vocabulary import LabelVocabulary

__all__ = ["BACKBONE", "DECODER", "WHOLE", "LoadedExport", "export", "load_export"]

BACKBONE, DECODER = "backbone", "decoder"
"""What an export can hold of a model, beside the WHOLE of it."""

LABELS_FILE = "labels.txt"
MODEL_CARD_FILE = "model_card.md"


def export(
    model,
    vocabulary,
    decoding,
    out_dir,
    calibration=None,
    *,
    part=WHOLE,
    precision=FLOAT32,
    max_beam_size=None,
    warmup_batch_size=DEFAULT_BATCH_SIZE,
    training: TrainingFacts | None = None,
):
    """Writes the next version of an export, which appears whole or not at all.

    It is written to a hidden folder beside the versions, which the server does not look at, then renamed.

    Args:
        model: a CNNRNN, built; see `Tagger`.
        vocabulary: the LabelVocabulary that it was trained with.
        decoding: a DecodingConfig; see `Tagger`.
        out_dir: folder of the versions, created where missing.
        calibration: a Calibration; see `Tagger`. Its thresholds go along for a client that has the scores of
            all labels (`scores`). The other signatures return those of the path's labels alone: on these a
            threshold can drop labels of a path that are too unsure, and can find none that the path has not.
        part: WHOLE; or BACKBONE, which gives features, or DECODER, which takes them.
        precision: of the CNN, "float32" or "bfloat16"; see `cnnrnn_tf.serving.precision`.
        max_beam_size: the widest beam that a request may ask for; see `Tagger`.
        warmup_batch_size: rows of the larger warm-up requests; the server's max_batch_size must allow them.
        training: what the run recorded, for the model card; None where there is no run.

    Returns:
        The version folder's Path: out_dir/1, or one more than the highest version there.

    Raises:
        UserError: the model was trained with another vocabulary, cannot be decoded as `decoding` says, or the
            options contradict each other.
    """
    if part == BACKBONE:
        calibration = None  # of probabilities, and there are none
    if warmup_batch_size < 1:
        raise UserError(f"warm-up batch size {warmup_batch_size}: expected 1 or more")
    tagger = _make_tagger(model, vocabulary, decoding, calibration, part, precision, max_beam_size)
    # Traced first, so that mistakes in `decoding` show before anything is written.
    functions = {name: function.get_concrete_function() for name, function in tagger.signatures.items()}
    facts = {
        "part": part,
        "precision": precision,
        "decoding": {
            **dataclasses.asdict(decoding),
            "max_length": decoding.max_length or model.max_path_length,
        },
        "max_beam_size": None if part == BACKBONE else tagger.answers.max_beam_size,
        "calibrated": calibration is not None,
        "image_size": model.image_size,
        "image_fit": model.image_fit,
        "num_features": model.backbone.feature_size,
        "num_labels": vocabulary.size,
        FINGERPRINT: vocabulary.fingerprint,
        "signatures": {name: _list_tensors(function) for name, function in functions.items()},
        "warmup_batch_sizes": sorted({1, warmup_batch_size}),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    partial = out_dir / f".partial-{uuid.uuid4().hex}"
    try:
        tf.saved_model.save(_hold_weights(tagger), str(partial), signatures=functions)
        if CLASSIFY in functions:
            _name_classify_method(partial)
        _write_assets(partial / ASSETS, vocabulary, facts, calibration, training)
        write_warmup_requests(partial, functions, facts["decoding"]["max_length"], warmup_batch_size)
        return _publish(partial, out_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True)
class LoadedExport:
    """An export in this process, for `tag_files`."""

    path: Path
    vocabulary: LabelVocabulary
    max_length: int
    """The most labels that it gives an image."""
    signatures: Mapping
    """Its functions by name."""
    module: object
    """What was loaded; it owns the variables, which the signatures alone do not keep alive."""
    calibration: Calibration | None = None
    """What its probabilities are calibrated with; None where they are the model's marginals."""


def load_export(path):
    """Reads what `export` wrote, of a whole model.

    Args:
        path: the version folder, or the folder of versions, of which the highest is read.

    Raises:
        UserError: `path` is no export, one of another program, or one of half a model.
    """
    path = find_export(path)
    folder, vocabulary = read_assets(path)
    calibration = Calibration.load(folder, vocabulary)
    try:
        module = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises nearly anything at a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} does not load ({reason}): export the run again") from None
    missing = {SERVING_DEFAULT, TAG_GIVEN} - set(module.signatures)
    if missing:
        raise UserError(f"{path} has no signature {' or '.join(sorted(missing))}: export the run again")
    max_length = module.signatures[SERVING_DEFAULT].structured_outputs["labels"].shape[1]
    signatures = dict(module.signatures)
    if "absent" not in signatures[TAG_GIVEN].structured_input_signature[1]:
        del signatures[TAG_GIVEN]  # of an older version, which took a list of names a row
    return LoadedExport(path, vocabulary, max_length, signatures, module, calibration)


def _make_tagger(model, vocabulary, decoding, calibration, part, precision, max_beam_size):
    if part == WHOLE:
        return Tagger(model, vocabulary, decoding, calibration, max_beam_size, precision)
    if part == BACKBONE:
        check_vocabulary(model, vocabulary)
        return FeatureExtractor(model, precision)
    if part != DECODER:
        raise UserError(f"part {part!r}: expected {WHOLE}, {BACKBONE} or {DECODER}")
    if precision != FLOAT32:
        raise UserError(
            f"precision {precision}: the decoder computes in {FLOAT32}; {precision} is for exports of the CNN"
        )
    return FeatureTagger(model, vocabulary, decoding, calibration, max_beam_size)


def _hold_weights(tagger):
    """Returns what owns the variables in the export; the tagger itself would bring its functions again."""
    holder = tf.Module()
    holder.weights = tagger.weights
    return holder


def _list_tensors(function):
    return {
        "inputs": list(find_inputs(function)),
        "outputs": sorted(function.structured_outputs),
    }


def _name_classify_method(export_dir):
    """The server answers Classify requests with signatures of that method; TensorFlow writes `predict`."""
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(export_dir))
    updater.replace_method_name(CLASSIFY, tf.saved_model.CLASSIFY_METHOD_NAME)
    updater.save()


def _write_assets(folder, vocabulary, facts, calibration, training):
    folder.mkdir(exist_ok=True)
    vocabulary.save(folder / vocabulary_file.FILE_NAME)
    # A name with a line break would count as two labels.
    names = [" ".join(name.splitlines()) for name in vocabulary.names]
    (folder / LABELS_FILE).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    (folder / EXPORT_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if calibration is not None:
        calibration.save(folder)
    card = write_model_card(vocabulary, facts, training)
    (folder / MODEL_CARD_FILE).write_text(card, encoding="utf-8")


def _publish(partial, out_dir):
    while True:
        version = out_dir / str(_next_version(out_dir))
        try:
            return partial.rename(version)
        except OSError as error:  # another export took the number meanwhile
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise


def _next_version(out_dir):
    return 1 + max((int(path.name) for path in out_dir.iterdir() if path.name.isdecimal()), default=0)
