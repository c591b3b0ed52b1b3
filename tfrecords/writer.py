"""Annotations enter and shards of TFRecords leave: deterministic, atomic, in parallel.

A shard is one task for one worker: it reads each image, checks it, and writes its record. The bytes of a
shard depend on its annotations and images only, never on the number of workers.
"""

from __future__ import annotations

import hashlib
import math
import os
import posixpath
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

from tfrecords.annotations import Annotation, Skip
from tfrecords.errors import UserError
from tfrecords.images import MAX_PIXELS, ImageFacts, ImageProblem, inspect_image
from tfrecords.manifest import Shard, is_held_out
from tfrecords.quiet import silence_native_stderr
from tfrecords.sources.base import Source
from tfrecords.vocabulary import LabelVocabulary

IMAGES_PER_SHARD = 500
MAX_SHARDS = 1024
# A spawned worker imports TensorFlow first, which takes longer than this many images.
_MIN_IMAGES_FOR_POOL = 300


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to write one shard to `path`."""

    source: Source
    vocabulary: LabelVocabulary
    split: str
    annotations: tuple[Annotation, ...]
    path: Path
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class ShardResult:
    """What a task wrote, for the manifest, and what it left out."""

    split: str
    shard: Shard
    num_labels: int
    num_unknown: int
    num_untagged: int
    num_held_out: int
    max_labels_per_image: int
    skips: tuple[Skip, ...]


def plan_shards(
    source: Source,
    vocabulary: LabelVocabulary,
    split: str,
    annotations: Sequence[Annotation],
    folder: Path,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> list[ShardTask]:
    """The tasks that write `split`, in shards of equal size.

    Images are ordered by a hash of their ids, so that shards read one after the other are mixed already. It
    is not the hash of the hold-out, by which the held-out images would fill the first shards.
    """
    ordered = sorted(annotations, key=lambda annotation: _order_key(annotation.image_id))
    num_shards = min(max(math.ceil(len(ordered) / images_per_shard), 1), MAX_SHARDS)
    bounds = [len(ordered) * i // num_shards for i in range(num_shards + 1)]
    return [
        ShardTask(
            source=source,
            vocabulary=vocabulary,
            split=split,
            annotations=tuple(ordered[bounds[i] : bounds[i + 1]]),
            path=folder / f"{split}-{i:05d}-of-{num_shards:05d}.tfrecord",
        )
        for i in range(num_shards)
    ]


def write_shards(
    tasks: Sequence[ShardTask], workers: int, on_images: Callable[[int], object] = lambda num_images: None
) -> list[ShardResult]:
    """Runs `tasks` in a pool of processes; the results come in the order of the tasks.

    Args:
        workers: number of processes. With one, or where few images would not repay the start of a pool, all
            is done in this process.
        on_images: called with the number of images that were dealt with since the last call.

    Raises:
        UserError: a worker died, most likely for want of memory.
        OSError: a shard cannot be written.
    """
    num_images = sum(len(task.annotations) for task in tasks)
    if workers <= 1 or len(tasks) <= 1 or num_images < _MIN_IMAGES_FOR_POOL:
        return [write_shard(task, on_images) for task in tasks]
    others = set(active_children())
    pool = ProcessPoolExecutor(min(workers, len(tasks)), get_context("spawn"), initializer=_prepare_worker)
    try:
        futures = {pool.submit(write_shard, task): len(task.annotations) for task in tasks}
        for future in as_completed(futures):
            future.result()
            on_images(futures[future])
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} worker processes died, most likely for want of memory: try --workers 1"
        ) from None
    except KeyboardInterrupt:  # nobody wants the shards that are half done: a pool would finish them first
        for worker in set(active_children()) - others:
            worker.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def write_shard(task: ShardTask, on_images: Callable[[int], object] = lambda num_images: None) -> ShardResult:
    """Writes one shard, first under a temporary name: a reader never sees a half shard.

    Raises:
        OSError: the shard cannot be written.
    """
    with silence_native_stderr():
        import tensorflow as tf
    from tfrecords.schema import encode

    skips: list[Skip] = []
    written: list[Annotation] = []
    partial = task.path.with_name(task.path.name + ".partial")
    try:
        with tf.io.TFRecordWriter(str(partial)) as writer:
            for annotation in task.annotations:
                try:
                    writer.write(encode(_make_record(task, annotation)))
                    written.append(annotation)
                except ImageProblem as problem:
                    skips.append(Skip(annotation.image_id, problem.reason, problem.detail))
                on_images(1)
    except tf.errors.OpError as error:
        raise OSError(f"{task.path}: {error.message}") from None
    with open(partial, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(partial, task.path)
    num_labels = [len(annotation.labels) for annotation in written]
    return ShardResult(
        split=task.split,
        shard=Shard(task.path.name, len(written), sha256),
        num_labels=sum(num_labels),
        num_unknown=sum(len(annotation.ignored) for annotation in written),
        num_untagged=num_labels.count(0),
        num_held_out=sum(is_held_out(annotation.image_id) for annotation in written),
        max_labels_per_image=max(num_labels, default=0),
        skips=tuple(skips),
    )


def _make_record(task: ShardTask, annotation: Annotation) -> dict:
    data = _read_bytes(task.source, annotation)
    try:
        facts = inspect_image(data, task.max_pixels)
    except ImageProblem as problem:
        where = annotation.image_path or annotation.image_id
        raise ImageProblem(
            problem.reason, f"{where}: {problem.detail}" if problem.detail else where
        ) from None
    ids = task.vocabulary.ids(annotation.labels)
    return {
        "image/encoded": data,
        "image/format": facts.format,
        "image/height": facts.height,
        "image/width": facts.width,
        "image/orientation": facts.orientation,
        "image/source_id": annotation.image_id,
        "image/filename": posixpath.basename(annotation.image_path or annotation.image_id),
        "image/key/sha256": hashlib.sha256(data).hexdigest(),
        "image/holdout": int(is_held_out(annotation.image_id)),
        "image/class/label": ids,
        "image/class/text": [task.vocabulary.names[i] for i in ids],
        "image/class/count": len(ids),
        "image/class/ignored": task.vocabulary.ids(annotation.ignored),
        **_make_objects(annotation, facts, task.vocabulary),
    }


def _make_objects(annotation: Annotation, facts: ImageFacts, vocabulary: LabelVocabulary) -> dict:
    boxes = annotation.boxes
    num_pixels = facts.height * facts.width
    return {
        "image/object/bbox/xmin": [box.xmin for box in boxes],
        "image/object/bbox/ymin": [box.ymin for box in boxes],
        "image/object/bbox/xmax": [box.xmax for box in boxes],
        "image/object/bbox/ymax": [box.ymax for box in boxes],
        "image/object/class/label": [vocabulary.id(box.label) for box in boxes],
        "image/object/area": [
            (box.xmax - box.xmin) * (box.ymax - box.ymin) * num_pixels if box.area is None else box.area
            for box in boxes
        ],
    }


def _read_bytes(source: Source, annotation: Annotation) -> bytes:
    try:
        return source.read_image(annotation)
    except FileNotFoundError as error:
        raise ImageProblem("missing_image", str(error.filename or annotation.image_path)) from None
    except OSError as error:  # no permission, a folder, a loop of links
        where = error.filename or annotation.image_path
        raise ImageProblem("unreadable_image", f"{where}: {error.strerror or error}") from None


def _order_key(image_id: str) -> bytes:
    return hashlib.sha256(b"order\0" + image_id.encode("utf-8", "surrogateescape")).digest()


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a worker needs no accelerator and must not claim its memory
