"""What a method says of a split enters, stamped with all it depends on; it leaves again, or nothing does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from cnnrnn_tf.data.records import Labels
from cnnrnn_tf.evaluation.predictions import Predictions
from tfrecords.errors import UserError

_STAMP = "made_by"


class KeptPredictions:
    """Predictions of one method and seed in one file, whole or not there.

    Args:
        path: the `.npz` file: `<split>_scores` of each split and, of path models, `<split>_paths` and so on.
        stamp: a text of everything that the predictions depend on; a file with another one is not used.
    """

    def __init__(self, path: Path, stamp: str) -> None:
        self.path, self._stamp = path, stamp

    def is_there(self) -> bool:
        """Whether the file is there and was made by what `stamp` says.

        Raises:
            UserError: it cannot be read.
        """
        if not self.path.is_file():
            return False
        with self._open() as arrays:
            return _STAMP in arrays.files and str(arrays[_STAMP]) == self._stamp

    def save(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes the file, which appears whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial.npz")
        np.savez(partial, **arrays, **{_STAMP: np.array(self._stamp)})
        os.replace(partial, self.path)

    def load(self, split: str, truth: Labels) -> Predictions:
        """The predictions of a split, beside its truth.

        Raises:
            UserError: the file is damaged, or of other images.
        """
        prefix = f"{split}_"
        with self._open() as arrays:
            names = [name for name in arrays.files if name.startswith(prefix)]
            try:
                found = {name.removeprefix(prefix): arrays[name] for name in names}
                if "paths" in found:
                    return Predictions(truth.image_ids, truth.labels, truth.known, **found)
                return Predictions.from_scores(truth.image_ids, truth.labels, truth.known, **found)
            except (EOFError, ValueError, TypeError, BadZipFile) as error:
                raise self._damaged(error) from None

    def _open(self):
        try:
            return np.load(self.path)
        except (OSError, EOFError, ValueError, BadZipFile) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"{self.path}: damaged ({error}); remove it and compare again")
