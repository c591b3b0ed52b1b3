"""A data set and a function from pictures to features enter; every image's features leave, computed once.

They are kept as `features/<fingerprint>/<split>.npy` in the data set's folder, beside a `<split>.json` that
says what they belong to. The fingerprint stands for all they depend on (`feature_fingerprint`), so another
layer, image size or set of weights has a folder of its own. What does not belong to the records as they are
now is computed again, never used.
"""

import hashlib
import json
import logging
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cnnrnn_tf.data.datasets import image_batches, select_records
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest, is_held_out

FOLDER_NAME = "features"

_LOGGER = logging.getLogger(__name__)


def load_or_extract(
    dataset_dir, split, fingerprint, extract, image_size, image_fit="crop", batch_size=32, progress=True
) -> np.ndarray:
    """Returns the features of `split`, in the order of `load_labels`: from the cache, or in one pass.

    The whole split on disk is computed and kept, so "train", "holdout" and "train+holdout" share one file.

    Args:
        split: a name as `select_records` knows them.
        fingerprint: what the features depend on: `feature_fingerprint`.
        extract: <uint8>[batch, image_size, image_size, 3] RGB -> <float>[batch, F]; called only where the
            cache has nothing.
        image_size: side of the squares that `extract` gets, px.
        image_fit: how an image becomes one, "crop" or "stretch".
        progress: show a bar and the images per second on stderr.

    Returns:
        <float32>[images, F]: a read-only memory map, or an array of the selected rows of it.

    Raises:
        UserError: the data set is not built, has no such split, a feature is not finite, or the disk refuses.
    """
    manifest = Manifest.load(dataset_dir)
    selection = select_records(manifest, split)
    path = Path(dataset_dir) / FOLDER_NAME / fingerprint / f"{selection.shard_split}.npy"
    belongs_to = {
        "manifest": manifest.fingerprint,
        "features": fingerprint,
        "split": selection.shard_split,
        "image_size": image_size,
        "image_fit": image_fit,
    }
    meta = _read_meta(path, belongs_to)
    if meta is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _extract(path, belongs_to, dataset_dir, manifest, extract, batch_size, progress)
        except OSError as error:
            raise UserError(
                f"cannot keep features in {path.parent}: {error}; free or choose a disk"
            ) from None
        meta = _read_meta(path, belongs_to)
        if meta is None:
            raise UserError(
                f"{path} changed while it was written: is another data set built there? Try again"
            )
    features = np.load(path, mmap_mode="r")
    if selection.holdout is None:
        return features
    held_out = [is_held_out(image_id, manifest.holdout.fraction) for image_id in meta["image_ids"]]
    return np.asarray(features[np.equal(held_out, bool(selection.holdout))])


def feature_fingerprint(manifest_fingerprint, description, weights) -> str:
    """Returns a SHA-256, hexadecimal, of everything that features depend on.

    Args:
        manifest_fingerprint: `Manifest.fingerprint`: the images.
        description: what is done to them, as a dict for JSON: backbone, layer, preprocessing, image size.
        weights: the arrays of the backbone, in its own order.
    """
    content = {"manifest": manifest_fingerprint, "description": description}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for array in weights:
        array = np.asarray(array)
        digest.update(f"{array.dtype.name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _extract(path, belongs_to, dataset_dir, manifest, extract, batch_size, progress):
    """Writes `path` and its meta file; both appear whole, the meta file last."""
    shard_split, num_images = belongs_to["split"], manifest.split(belongs_to["split"]).num_images
    on_disk = _name_on_disk(manifest, shard_split)
    image_ids, features = [], None
    with (
        _appearing_file(path) as hidden,
        tqdm(
            total=num_images, desc=f"features of {shard_split}", unit=" images", disable=not progress
        ) as bar,
    ):
        square = belongs_to["image_size"], batch_size, belongs_to["image_fit"]
        for batch in image_batches(dataset_dir, on_disk, *square):
            ids = [image_id.decode("utf-8", "surrogateescape") for image_id in batch["image_id"].numpy()]
            rows = np.asarray(extract(batch["image"]), np.float32)
            _check_rows(rows, ids, features)
            if features is None:
                features = np.lib.format.open_memmap(hidden, "w+", np.float32, (num_images, rows.shape[1]))
            features[len(image_ids) : len(image_ids) + len(ids)] = rows
            image_ids += ids
            bar.update(len(ids))
        features.flush()
    meta = {
        **belongs_to,
        "shape": features.shape,
        "image_ids_sha256": _hash_ids(image_ids),
        "image_ids": image_ids,
    }
    with _appearing_file(_meta_path(path)) as hidden:
        hidden.write_text(json.dumps(meta, indent=0) + "\n", encoding="utf-8")


def _read_meta(path, belongs_to):
    """The content of the meta file; None where nothing is kept, or something else."""
    if not path.exists():
        return None
    try:
        meta = json.loads(_meta_path(path).read_text(encoding="utf-8"))
        features = np.load(path, mmap_mode="r")
        belongs = (
            {key: meta[key] for key in belongs_to} == belongs_to
            and meta["shape"] == list(features.shape)
            and features.dtype == np.float32
            and len(meta["image_ids"]) == len(features)
            and meta["image_ids_sha256"] == _hash_ids(meta["image_ids"])
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        belongs = False
    if not belongs:
        _LOGGER.warning("%s does not belong to the records as they are now: it is computed again", path)
    return meta if belongs else None


def _name_on_disk(manifest, shard_split):
    """The name under which `select_records` gives all of a split."""
    whole = {select_records(manifest, name): name for name in (*manifest.splits, "train+holdout")}
    return next(
        name for kept, name in whole.items() if kept.shard_split == shard_split and kept.holdout is None
    )


def _check_rows(rows, image_ids, features):
    width = rows.shape[-1] if features is None else features.shape[1]
    if rows.shape != (len(image_ids), width):
        raise ValueError(
            f"extract gave features of shape {rows.shape} for {len(image_ids)} images: "
            f"expected one row an image, all of one width"
        )
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise UserError(
            f"the features of {image_ids[int(np.argmin(finite))]!r} are not finite: "
            "check the backbone's weights, or compute in float32"
        )


def _hash_ids(image_ids):
    return hashlib.sha256(json.dumps(image_ids).encode()).hexdigest()


def _meta_path(path):
    return path.with_suffix(".json")


@contextmanager
def _appearing_file(path):
    """A file beside `path` to write to, which takes its place when the block ends well."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    hidden = Path(name)
    try:
        yield hidden
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
