"""Annotations enter and shards of TFRecords leave: deterministic, atomic, in parallel.

A shard is one task for one worker: it reads each image, checks it, and writes its record. The bytes of a
shard depend on its annotations and images only, never on the number of workers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from tfrecords.annotations import Annotation, Skip
from tfrecords.framing import DamagedFile, frame_record, read_records
from tfrecords.images import ORIGINALS, ImageProblem, ImageRules, PreparedImage, prepare_image
from tfrecords.manifest import FORMAT_VERSION, MISSING, Shard, is_held_out
from tfrecords.pool import IMAGE_TIMEOUT_S, ImageFault, run_tasks
from tfrecords.schema import FIELDS, decode, encode_parts, strip_image
from tfrecords.sources.base import Source
from tfrecords.store import AnnotationStore
from tfrecords.urls import is_url
from tfrecords.vocabulary import LabelVocabulary

IMAGES_PER_SHARD = 500
MAX_SHARDS = 1024
RESULT_SUFFIX = ".result.json"
_UNREADABLE = "unreadable_image"
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to write one shard to `path`.

    `faults` are the images, by their place among the annotations, that killed the process that read them.
    """

    source: Source
    vocabulary: LabelVocabulary
    split: str
    annotations: Collection[Annotation]
    path: Path
    rules: ImageRules = ORIGINALS
    faults: Mapping[int, ImageFault] = field(default_factory=dict)

    def leave_out(self, place: int, fault: ImageFault) -> ShardTask:
        """The same task without one image."""
        return replace(self, faults={**self.faults, place: fault})


@dataclass(frozen=True)
class StoredAnnotations:
    """The annotations of one shard, which are read from the store at each iteration."""

    store: Path
    split: str
    first: bytes
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Annotation]:
        with AnnotationStore(self.store) as store:
            yield from store.annotations(self.split, self.first, self.count)

    def __contains__(self, annotation: object) -> bool:
        return any(each == annotation for each in self)


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

    def to_json(self) -> dict:
        """A plain dictionary for `json.dump`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict) -> ShardResult:
        """The result of `to_json`. Raises: KeyError or TypeError, where it is none."""
        shard, skips = Shard(**content["shard"]), tuple(Skip(**skip) for skip in content["skips"])
        return cls(**{**content, "shard": shard, "skips": skips})


def plan_shards(
    source: Source,
    vocabulary: LabelVocabulary,
    store: AnnotationStore,
    split: str,
    folder: Path,
    rules: ImageRules = ORIGINALS,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> list[ShardTask]:
    """The tasks that write `split`, in shards of equal size, in the order of the store."""
    num_images = store.count_images(split)
    num_shards = min(max(math.ceil(num_images / images_per_shard), 1), MAX_SHARDS)
    bounds = [num_images * i // num_shards for i in range(num_shards + 1)]
    starts = set(bounds)
    firsts = [position for i, position in enumerate(store.positions(split)) if i in starts]
    return [
        ShardTask(
            source,
            vocabulary,
            split,
            StoredAnnotations(store.path, split, first, bounds[i + 1] - bounds[i]),
            folder / f"{split}-{i:05d}-of-{num_shards:05d}.tfrecord",
            rules,
        )
        for i, first in enumerate(firsts)
    ]


def write_shards(
    workers: int | None,
    tasks: Sequence[ShardTask],
    on_images: Callable[[int], object] = lambda num_images: None,
    isolate: bool = False,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
) -> list[ShardResult]:
    """Runs `tasks` in a pool of processes; the results come in the order of the tasks.

    Args:
        workers: number of processes, one a core by default; see `tfrecords.pool.run_tasks`.
        on_images: called with the number of images that were dealt with since the last call.
        isolate: use other processes even for one task and few images.
        image_timeout_s: an image that takes longer is left out.

    Raises:
        UserError: a worker died, and of no image.
        OSError: a shard cannot be written.
    """
    return run_tasks(
        write_shard,
        tasks,
        [len(task.annotations) for task in tasks],
        workers,
        on_images,
        leave_out=ShardTask.leave_out,
        isolate=isolate,
        image_timeout_s=image_timeout_s,
    )


def write_shard(task: ShardTask, on_images: Callable[[int], object] = lambda num_images: None) -> ShardResult:
    """Writes one shard, first under a temporary name: a reader never sees a half shard.

    Its result is kept beside it until the data set is whole. A build that was stopped and is run again finds
    it there, and does not write the shard anew unless an annotation, a label's id or an image has changed.

    Raises:
        OSError: the shard cannot be written.
    """
    annotations = list(task.annotations)
    key = make_key(replace(task, annotations=annotations))
    kept = find_kept(task.path, key)
    if kept is not None:
        on_images(len(annotations))
        return kept
    skips: list[Skip] = []
    written: list[Annotation] = []
    partial = task.path.with_name(f"{task.path.name}.{os.getpid()}.partial")
    try:
        sha256 = _write_file(partial, _make_records(task, annotations, written, skips, on_images))
    except OSError:
        partial.unlink(missing_ok=True)  # the disk may be full
        raise
    os.replace(partial, task.path)
    num_labels = [len(annotation.labels) for annotation in written]
    result = ShardResult(
        split=task.split,
        shard=Shard(task.path.name, len(written), sha256),
        num_labels=sum(num_labels),
        num_unknown=sum(len(annotation.ignored) for annotation in written),
        num_untagged=num_labels.count(0),
        num_held_out=sum(is_held_out(annotation.image_id) for annotation in written),
        max_labels_per_image=max(num_labels, default=0),
        skips=tuple(skips),
    )
    keep_result(task.path, key, result)
    return result


def find_kept(shard: Path, key: str) -> ShardResult | None:
    """What an earlier build kept of a shard; None where there is nothing, or something of another key."""
    try:
        content = json.loads(_result_path(shard).read_text(encoding="utf-8"))
        result = ShardResult.from_json(content["result"])
        if content["key"] != key:
            return None
        if hash_records(shard) != result.shard.records_sha256:  # it is of another build
            return None
        return result
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    except DamagedFile:  # the power failed before all of it was on the disk
        return None


def keep_result(shard: Path, key: str, result: ShardResult) -> None:
    """Keeps what was written for a later build, unless it might be better then, see `is_final`.

    Args:
        key: of `make_key`, taken before the first image was read: what changed since is read again.
    """
    if not is_final(result):
        return
    content = {"key": key, "result": result.to_json()}
    partial = shard.with_name(f"{shard.name}.result.{os.getpid()}.partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, _result_path(shard))


def is_final(result: ShardResult) -> bool:
    """Whether the same key will give the same shard.

    A shard without records is worth nothing; a file that could not be read may be mended without a trace; and
    one that was missing at a URL may be there without one, for URLs have no stamps.
    """
    return result.shard.num_records > 0 and not any(
        skip.reason == _UNREADABLE or (skip.reason == MISSING and is_url(skip.detail))
        for skip in result.skips
    )


def hash_records(path: Path) -> str:
    """`Shard.records_sha256` of a file, whose checksums are found right.

    Raises:
        DamagedFile, ValueError: it is not as it was written.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    for _, record in read_records(path):
        digest.update(strip_image(record, decode(record)["image/encoded"]))
    return digest.hexdigest()


def make_key(task: ShardTask) -> str:
    """SHA-256 of all that the shard's bytes depend on; for an image file, its size and time of change."""
    digest = hashlib.sha256()
    for part in (
        *(FORMAT_VERSION, FIELDS, version("pillow")),
        *(task.source.name, task.source.arguments(), task.vocabulary.fingerprint, task.rules),
    ):
        digest.update(f"{part!r}\n".encode("utf-8", "surrogateescape"))
    for annotation in task.annotations:
        truth = annotation.labels, annotation.ignored, annotation.boxes
        stamp = task.source.stamp_image(annotation)
        line = f"{annotation.image_id!r} {annotation.image_path!r} {truth!r} {stamp}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _make_records(
    task: ShardTask,
    annotations: Sequence[Annotation],
    written: list[Annotation],
    skips: list[Skip],
    on_images: Callable[[int], object],
) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The records of a shard, in parts; what became one is added to `written`, what did not to `skips`."""
    for place, annotation in enumerate(annotations):
        try:
            record = encode_parts(_make_record(task, annotation, task.faults.get(place)))
        except ImageProblem as problem:
            skips.append(Skip(annotation.image_id, problem.reason, problem.detail))
        else:
            yield record
            written.append(annotation)
        on_images(1)


def _write_file(path: Path, records: Iterable[tuple[bytes, bytes, bytes]]) -> str:
    """Writes a TFRecord file of records in parts and returns `Shard.records_sha256`, taken on the way."""
    digest = hashlib.sha256()
    with path.open("wb", buffering=_BUFFER_BYTES) as file:
        for before, image, behind in records:
            for part in frame_record(before, image, behind):
                file.write(part)
            digest.update(before)
            digest.update(behind)
    return digest.hexdigest()


def _result_path(shard: Path) -> Path:
    """Where the result of a shard is kept while its data set is being built."""
    return shard.with_name(shard.name + RESULT_SUFFIX)


def _make_record(task: ShardTask, annotation: Annotation, fault: ImageFault | None) -> dict:
    data = b"" if fault else _read_bytes(task.source, annotation)
    try:
        if fault:
            raise ImageProblem(fault.reason, fault.detail)
        image = prepare_image(data, task.rules)
    except ImageProblem as problem:
        where = annotation.image_path or annotation.image_id
        raise ImageProblem(
            problem.reason, f"{where}: {problem.detail}" if problem.detail else where
        ) from None
    ids = task.vocabulary.ids(annotation.labels)
    return {
        "image/encoded": image.data,
        "image/format": image.facts.format,
        "image/height": image.facts.height,
        "image/width": image.facts.width,
        "image/orientation": image.facts.orientation,
        "image/source_id": annotation.image_id,
        "image/filename": task.source.file_name(annotation),
        "image/key/sha256": hashlib.sha256(image.data).hexdigest(),
        "image/holdout": int(is_held_out(annotation.image_id)),
        "image/class/label": ids,
        "image/class/text": [task.vocabulary.names[i] for i in ids],
        "image/class/count": len(ids),
        "image/class/ignored": task.vocabulary.ids(annotation.ignored),
        **_make_objects(annotation, image, task.vocabulary),
    }


def _make_objects(annotation: Annotation, image: PreparedImage, vocabulary: LabelVocabulary) -> dict:
    boxes = annotation.boxes
    num_pixels = image.facts.height * image.facts.width
    return {
        "image/object/bbox/xmin": [box.xmin for box in boxes],
        "image/object/bbox/ymin": [box.ymin for box in boxes],
        "image/object/bbox/xmax": [box.xmax for box in boxes],
        "image/object/bbox/ymax": [box.ymax for box in boxes],
        "image/object/class/label": [vocabulary.id(box.label) for box in boxes],
        "image/object/area": [
            (box.xmax - box.xmin) * (box.ymax - box.ymin) * num_pixels
            if box.area is None
            else box.area * image.area_fraction
            for box in boxes
        ],
    }


def _read_bytes(source: Source, annotation: Annotation) -> bytes:
    try:
        return source.read_image(annotation)
    except FileNotFoundError as error:
        raise ImageProblem(MISSING, str(error.filename or annotation.image_path)) from None
    except ValueError as error:  # a NUL in the path
        raise ImageProblem("invalid_image_path", f"{annotation.image_path!r}: {error}") from None
    except OSError as error:  # no permission, a folder, a loop of links
        where = error.filename or annotation.image_path
        raise ImageProblem(_UNREADABLE, f"{where}: {error.strerror or error}") from None
