"""The features of one shard enter; a file leaves that says what it belongs to, and is known again by it.

`train-00000-of-00004.npy` is an array for `np.load`. The `.json` beside it, which appears before it, has the
image ids, what the array was computed from, and its SHA-256.
"""

import fcntl
import hashlib
import json
import logging
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tfrecords.manifest import Shard
from tfrecords.progress import show_progress

_LOGGER = logging.getLogger(__name__)
_FORMAT = 2  # 1 had one file a split
_MISSING = "missing"


@dataclass(frozen=True)
class FeatureFile:
    """Where the features of one shard are, or will be.

    Attributes:
        folder: of all files with these features.
        shard: the records whose images they are of, as the manifest has it.
        belongs_to: what else they are computed from, as a dict for JSON; a file that says otherwise is not
            used.
    """

    folder: Path
    shard: Shard
    belongs_to: dict

    @property
    def path(self):
        """The file of the array; the `.json` is beside it."""
        return self.folder / Path(self.shard.file).with_suffix(".npy").name

    def is_whole(self, warn=False):
        """Whether the file is there, unchanged, and belongs to what it should.

        Args:
            warn: log why a file that is there cannot be used.
        """
        fault = self._find_fault()
        if warn and fault not in (None, _MISSING):
            _LOGGER.warning("%s is computed again: %s", self.path, fault)
        return fault is None

    def load(self):
        """Returns <float32>[images, ...], a read-only memory map."""
        return np.load(self.path, mmap_mode="r")

    def load_image_ids(self):
        """Returns the image ids, one a row."""
        return json.loads(self._meta_path.read_text(encoding="utf-8"))["image_ids"]

    def save(self, features, image_ids):
        """Writes the array and what it belongs to; the array appears last, whole.

        Raises:
            OSError: the disk refuses.
        """
        with _appearing_file(self.path) as hidden:
            with hidden.open("wb") as file:
                np.save(file, features)
            meta = {
                **self._expected(),
                "image_ids_sha256": _hash_ids(image_ids),
                "sha256": _hash_file(hidden),
                "image_ids": image_ids,
            }
            with _appearing_file(self._meta_path) as hidden_meta:
                hidden_meta.write_text(json.dumps(meta, indent=0) + "\n", encoding="utf-8")

    @property
    def _meta_path(self):
        return self.path.with_suffix(".json")

    def _expected(self):
        return {"format": _FORMAT, **self.belongs_to, **asdict(self.shard)}

    def _find_fault(self):
        if not self.path.exists():
            return _MISSING
        try:
            meta = json.loads(self._meta_path.read_text(encoding="utf-8"))
            for key, expected in self._expected().items():
                if meta[key] != expected:
                    return f"its {key} is {meta[key]!r}, expected {expected!r}"
            ids, num_images = meta["image_ids"], self.shard.num_records
            if len(ids) != num_images or _hash_ids(ids) != meta["image_ids_sha256"]:
                return "the image ids beside it are not those of its rows"
            if _hash_file(self.path) != meta["sha256"]:
                return "it was changed or cut off"
            features = self.load()
            if features.dtype != np.float32 or len(features) != num_images:
                return (
                    f"it holds {features.dtype} {list(features.shape)}, expected float32 [{num_images}, ...]"
                )
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            return f"it or what is said beside it cannot be read ({type(error).__name__}: {error})"
        return None


@contextmanager
def locked(folder, doing="computing these features"):
    """Makes `folder` and keeps other processes from `doing` this at the same time: the second one waits."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with show_progress(f"waiting for another process, which is {doing} in {folder}", at_once=True):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # which unlocks it, as the end of a killed process does


def _hash_ids(image_ids):
    return hashlib.sha256(json.dumps(image_ids).encode()).hexdigest()


def _hash_file(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _appearing_file(path):
    """A hidden file beside `path` to write to, which takes its place when the block ends well.

    Its name is always the same, so what a killed process leaves is written over by the next one.
    """
    hidden = path.with_name(f".{path.name}")
    try:
        yield hidden
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
