"""A data set and a function from pictures to features enter; every image's features leave, computed once.

They are kept in the data set's folder, a file for each shard of its records: the features of
`train-00000-of-00004.tfrecord` are `features/<fingerprint>/train-00000-of-00004.npy`. The fingerprint stands
for all they depend on (`feature_fingerprint`), so another layer, image size or set of weights has a folder of
its own. A pass that is stopped goes on with the shards that are missing, and ends with the bytes of an
unbroken one. A file that does not belong to the records as they are now, or was damaged, is computed again.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnrnn_tf.data.decodable import undecodable_ids
from cnnrnn_tf.data.feature_files import FeatureFile, locked
from cnnrnn_tf.data.images import NUM_HYPOTHESES
from cnnrnn_tf.data.records import shard_batches
from cnnrnn_tf.data.splits import select_records
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest, is_held_out
from tfrecords.progress import show_progress

FOLDER_NAME = "features"


def load_or_extract(
    dataset_dir,
    split,
    fingerprint,
    extract,
    image_size,
    image_fit="crop",
    batch_size=32,
    hypotheses=False,
    progress=True,
) -> np.ndarray:
    """Returns the features of `split`, in the order of `load_labels`: from the cache, or in one pass.

    The whole split on disk is computed and kept, so "train", "holdout" and "train+holdout" share their files.
    A shard begins a batch of its own, so its features do not depend on what was computed before it.

    Args:
        split: a name as `select_records` knows them.
        fingerprint: what the features depend on: `feature_fingerprint`.
        extract: <uint8>[batch, image_size, image_size, 3] RGB -> <float>[batch, F]; called only for shards
            that the cache has not.
        image_size: side of the squares that `extract` gets, px.
        image_fit: how an image becomes one, "crop" or "stretch".
        batch_size: the most squares that `extract` gets at once, 6 or more with `hypotheses`.
        hypotheses: compute the features of six squares of each image, the whole of it and five parts:
            `cnnrnn_tf.data.images.cut_hypotheses`.
        progress: show on stderr how far it is, and the time left.

    Returns:
        <float32>[images, F], or <float32>[images, 6, F] with `hypotheses`: an array; or a read-only memory
        map, if the split is all of one shard.

    Raises:
        UserError: the data set is not built or damaged, has no such split or no images there, a feature is
            not finite, or the disk refuses.
    """
    manifest = Manifest.load(dataset_dir)
    selection = select_records(manifest, split)
    belongs_to = {
        "manifest": manifest.fingerprint,
        "features": fingerprint,
        "image_size": image_size,
        "image_fit": image_fit,
        "hypotheses": hypotheses,
    }
    folder = Path(dataset_dir) / FOLDER_NAME / fingerprint
    shards = [shard for shard in manifest.split(selection.shard_split).shards if shard.num_records]
    files = [FeatureFile(folder, shard, belongs_to) for shard in shards]
    if not files:
        raise UserError(f"{dataset_dir}: no image is in {split!r}; build the data set with more images")
    if not all(file.is_whole() for file in files):
        manifest.check_shards(dataset_dir)
        _complete(files, dataset_dir, extract, batch_size, progress)
    return _gather(files, manifest, selection.holdout, undecodable_ids(dataset_dir, manifest))


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


def _complete(files, dataset_dir, extract, batch_size, progress):
    """Computes those of `files`, which are all of a split, that are not there or cannot be used."""
    folder = files[0].folder
    try:
        with locked(folder):
            missing = [file for file in files if not file.is_whole(warn=True)]
            if missing:  # else another process has made them in the meantime
                with _show(files, missing, progress) as bar:
                    _extract(missing, dataset_dir, extract, batch_size, bar)
    except OSError as error:
        raise UserError(
            f"cannot keep features in {folder}: {error}; free or choose a disk, and run again: the shards "
            "that are finished are kept"
        ) from None
    if not all(file.is_whole() for file in missing):
        raise UserError(f"{folder} changed while it was written: is a data set built there? Try again")


def _show(files, missing, shown):
    """A bar over all images of `files` that begins behind those whose features are kept."""
    total, num_missing = (sum(file.shard.num_records for file in each) for each in (files, missing))
    split = files[0].shard.file.rsplit("-", 3)[0]
    return show_progress(f"features of {split}", total, "image", initial=total - num_missing, shown=shown)


def _extract(files, dataset_dir, extract, batch_size, bar):
    """Computes and saves each of `files`, whose settings are the same."""
    settings = files[0].belongs_to
    hypotheses = settings["hypotheses"]
    batches = shard_batches(
        dataset_dir,
        [file.shard for file in files],
        settings["image_size"],
        max(batch_size // NUM_HYPOTHESES, 1) if hypotheses else batch_size,
        settings["image_fit"],
        hypotheses,
    )
    batches = iter(batches)
    for file in files:
        image_ids, rows = [], []
        while len(image_ids) < file.shard.num_records:
            batch = next(batches)
            ids = [image_id.decode("utf-8", "surrogateescape") for image_id in batch["image_id"].numpy()]
            rows.append(_extract_batch(extract, batch["image"], ids))
            image_ids += ids
            bar.update(len(ids))
        file.save(np.concatenate(rows), image_ids)


def _extract_batch(extract, images, image_ids):
    """<float32>[images, F], or <float32>[images, hypotheses, F] of images with an axis of hypotheses."""
    squares = tf.reshape(images, [-1, *images.shape[-3:]])
    rows = np.asarray(extract(squares), np.float32)
    if rows.ndim != 2 or len(rows) != len(squares):
        raise ValueError(
            f"extract gave features of shape {rows.shape} for {len(squares)} squares: expected one row each"
        )
    rows = rows.reshape([*images.shape[:-3], -1])
    finite = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    if not finite.all():
        raise UserError(
            f"the features of {image_ids[int(np.argmin(finite))]!r} are not finite: "
            "check the backbone's weights, or compute in float32"
        )
    return rows


def _gather(files, manifest, holdout, left_out):
    """The rows of all files whose images are held out, or are not; of all images if `holdout` is None."""
    if holdout is None and len(files) == 1 and not left_out:
        return files[0].load()
    kept = [_find_rows(file, manifest, holdout, left_out) for file in files]
    width = files[0].load().shape[1:]
    features = np.empty([sum(map(np.count_nonzero, kept)), *width], np.float32)
    start = 0
    for file, rows in zip(files, kept, strict=True):
        stop = start + np.count_nonzero(rows)
        features[start:stop] = file.load()[rows]
        start = stop
    return features


def _find_rows(file, manifest, holdout, left_out):
    if holdout is None and not left_out:
        return np.ones(file.shard.num_records, bool)
    image_ids = file.load_image_ids()
    kept = [
        (holdout is None or is_held_out(image_id, manifest.holdout.fraction) == bool(holdout))
        and image_id not in left_out
        for image_id in image_ids
    ]
    return np.array(kept, bool)
