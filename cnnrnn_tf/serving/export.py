"""A trained model enters; a folder that TensorFlow Serving runs leaves, and can be read back.

runs/demo/<time>/export/1/saved_model.pb
                          variables/...
                          assets.extra/vocabulary.json   the labels, in the order of their ids
                          assets.extra/export.json       how it decodes, and what it was made with
                          assets.extra/calibration.json  what its probabilities were made honest with, if so
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
from cnnrnn_tf.serving.check import find_export
from cnnrnn_tf.serving.signatures import SERVING_DEFAULT, TAG_GIVEN, Tagger
from tfrecords import vocabulary as vocabulary_file
from tfrecords.errors import UserError
from tfrecords.vocabulary import LabelVocabulary

__all__ = ["LoadedExport", "export", "load_export"]

EXTRA = "assets.extra"  # TensorFlow leaves this folder of a SavedModel to its makers
EXPORT_FILE = "export.json"
_FINGERPRINT = "vocabulary_fingerprint"


def export(model, vocabulary, decoding, out_dir, calibration=None):
    """Writes the next version of an export, which appears whole or not at all.

    It is written to a hidden folder beside the versions, which the server does not look at, then renamed.

    Args:
        model: a CNNRNN, built.
        vocabulary: the LabelVocabulary that it was trained with.
        decoding: a DecodingConfig; see `Tagger`.
        out_dir: folder of the versions, created where missing.
        calibration: a Calibration; see `Tagger`. Its thresholds go along for a client that has the scores of
            all labels. The signatures return those of the path's labels alone: on these a threshold can drop
            labels of a path that are too unsure, and can find none that the path has not.

    Returns:
        The version folder's Path: out_dir/1, or one more than the highest version there.

    Raises:
        UserError: the model was trained with another vocabulary, or cannot be decoded as `decoding` says.
    """
    tagger = Tagger(model, vocabulary, decoding, calibration)
    # Traced first, so that mistakes in `decoding` show before anything is written.
    signatures = {name: function.get_concrete_function() for name, function in tagger.signatures.items()}
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    partial = out_dir / f".partial-{uuid.uuid4().hex}"
    try:
        tf.saved_model.save(_hold_weights(tagger), str(partial), signatures=signatures)
        _write_extra(partial / EXTRA, tagger, vocabulary, decoding)
        if calibration is not None:
            calibration.save(partial / EXTRA)
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
    """Reads what `export` wrote.

    Args:
        path: the version folder, or the folder of versions, of which the highest is read.

    Raises:
        UserError: `path` is no export, or one of another program.
    """
    path = find_export(path)
    vocabulary = _load_vocabulary(path / EXTRA)
    calibration = Calibration.load(path / EXTRA, vocabulary)
    try:
        module = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises nearly anything at a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} does not load ({reason}): export the run again") from None
    missing = {SERVING_DEFAULT, TAG_GIVEN} - set(module.signatures)
    if missing:
        raise UserError(f"{path} has no signature {' or '.join(sorted(missing))}: export the run again")
    max_length = module.signatures[SERVING_DEFAULT].structured_outputs["labels"].shape[1]
    return LoadedExport(path, vocabulary, max_length, module.signatures, module, calibration)


def _hold_weights(tagger):
    """Returns what owns the variables in the export; the tagger itself would bring its functions again."""
    holder = tf.Module()
    holder.weights = tagger.weights
    return holder


def _write_extra(folder, tagger, vocabulary, decoding):
    folder.mkdir()
    vocabulary.save(folder / vocabulary_file.FILE_NAME)
    facts = {
        "decoding": {**dataclasses.asdict(decoding), "max_length": tagger.max_length},
        "image_size": tagger.image_size,
        "image_fit": tagger.image_fit,
        "num_labels": vocabulary.size,
        _FINGERPRINT: vocabulary.fingerprint,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    (folder / EXPORT_FILE).write_text(json.dumps(facts, indent=1) + "\n")


def _load_vocabulary(folder):
    vocabulary = LabelVocabulary.load(folder)
    try:
        fingerprint = json.loads((folder / EXPORT_FILE).read_text(encoding="utf-8"))[_FINGERPRINT]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder / EXPORT_FILE}: missing or damaged: export the run again") from None
    if fingerprint != vocabulary.fingerprint:
        raise UserError(
            f"{folder / vocabulary_file.FILE_NAME}: is the vocabulary of another model; export the run again"
        )
    return vocabulary


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
