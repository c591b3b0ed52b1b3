"""Finds the version of an export that TensorFlow Serving takes, and reads what is beside its graph.

Nothing here imports TensorFlow: what can be wrong with a folder is told before the seconds that takes.
"""

import json
from pathlib import Path

from tfrecords import vocabulary as vocabulary_file
from tfrecords.errors import UserError
from tfrecords.vocabulary import LabelVocabulary

__all__ = ["find_export", "read_assets"]

WHOLE = "whole"
ASSETS = "assets"
EXPORT_FILE = "export.json"
FINGERPRINT = "vocabulary_fingerprint"
_OLD_ASSETS = "assets.extra"  # where the first exports have these files


def find_export(path):
    """Returns the version folder at `path`, or of those below it the one that the server takes: the highest.

    Raises:
        UserError: there is none, or it is half-written.
    """
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    if not path.is_dir():
        raise UserError(
            f"no export at {path}: expected a SavedModel's folder, such as `cnnrnn export RUN` writes"
        )
    versions = sorted(
        (p for p in path.iterdir() if p.is_dir() and p.name.isdecimal()), key=lambda p: int(p.name)
    )
    if not versions:
        raise UserError(
            f"{path} is not an export: expected saved_model.pb in it, or folders named by version numbers; "
            "`cnnrnn export RUN` writes one"
        )
    if not (versions[-1] / "saved_model.pb").is_file():
        raise UserError(
            f"{versions[-1]}, the version that the server would take, holds no saved_model.pb: remove it, or "
            "export again"
        )
    return versions[-1]


def read_assets(export_dir):
    """Reads the labels of an export that tags files.

    Args:
        export_dir: its version folder, as `find_export` returns it.

    Returns:
        The folder of its assets, and its LabelVocabulary.

    Raises:
        UserError: it was made by another program, is damaged, or holds half a model.
    """
    is_old = (export_dir / _OLD_ASSETS / EXPORT_FILE).is_file()
    folder = export_dir / (_OLD_ASSETS if is_old else ASSETS)
    vocabulary = LabelVocabulary.load(folder)
    part = _read_facts(folder, vocabulary).get("part", WHOLE)
    if part != WHOLE:
        raise UserError(
            f"{export_dir} holds the {part} alone, which tags no files: name an export of a whole model"
        )
    return folder, vocabulary


def _read_facts(folder, vocabulary):
    """Returns the content of export.json."""
    try:
        facts = json.loads((folder / EXPORT_FILE).read_text(encoding="utf-8"))
        fingerprint = facts[FINGERPRINT]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder / EXPORT_FILE}: missing or damaged: export the run again") from None
    if fingerprint != vocabulary.fingerprint:
        raise UserError(
            f"{folder / vocabulary_file.FILE_NAME}: is the vocabulary of another model; export the run again"
        )
    return facts
