"""A built data set enters; whether every record is as it was built, or what is not, leaves.

    python -m tfrecords verify scenes

Each record is read again: its CRC, the hash and the pixels of its image, the order and the names of its
labels, and all counts against the manifest. Images of test that are also in train, byte for byte, are told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tfrecords.framing import DamagedFile, read_records
from tfrecords.images import ImageProblem, inspect_image
from tfrecords.manifest import Holdout, Manifest, Shard, Split, is_held_out
from tfrecords.pool import ImageFault, run_tasks
from tfrecords.progress import show_progress
from tfrecords.schema import decode, strip_image
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.words import count

_MAX_PROBLEMS_PER_SHARD = 20


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: `problems` say what is not as it was built, `notes` what its user should know."""

    num_records: int
    num_shards: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all is as it was built."""
        return not self.problems


@dataclass(frozen=True)
class _Task:
    path: Path
    shard: Shard
    vocabulary: LabelVocabulary
    faults: Mapping[int, ImageFault] = field(default_factory=dict)  # by record: it killed who decoded it

    def leave_out(self, number: int, fault: ImageFault) -> _Task:
        return replace(self, faults={**self.faults, number: fault})


@dataclass(frozen=True)
class _Found:
    """What one shard holds; `images` are (image id, SHA-256 of its file), record by record."""

    images: list[tuple[str, bytes]]
    num_labels: list[int]
    num_unknown: int
    problems: list[str]


def verify(
    dataset_dir: str | Path, workers: int | None = None, isolate: bool = False, progress: bool = True
) -> Verdict:
    """Reads every record of a data set again, and decodes every image as training does.

    Args:
        workers: number of processes, one a core by default.
        isolate: decode in other processes even where images are few, so that none can end this one.
        progress: show on stderr how far it is, and the time left.

    Raises:
        UserError: nothing is built there, or its manifest or vocabulary is damaged.
    """
    dataset_dir = Path(dataset_dir)
    manifest = Manifest.load(dataset_dir)
    vocabulary = manifest.load_vocabulary(dataset_dir)
    tasks = {
        split: [_Task(dataset_dir / shard.file, shard, vocabulary) for shard in facts.shards]
        for split, facts in manifest.splits.items()
    }
    every = [task for shards in tasks.values() for task in shards]
    counts = [task.shard.num_records for task in every]
    with show_progress("reading records", sum(counts), "image", shown=progress) as bar:
        results = iter(
            run_tasks(
                _verify_shard,
                every,
                counts,
                workers,
                bar.update,
                leave_out=_Task.leave_out,
                isolate=isolate,
            )
        )
    found = {split: [next(results) for _ in shards] for split, shards in tasks.items()}
    problems = [problem for shards in found.values() for shard in shards for problem in shard.problems]
    for split, shards in found.items():
        problems += _compare_counts(split, manifest.splits[split], shards)
    problems += _compare_holdout(manifest, found)
    problems += _find_repeated_ids(found)
    return Verdict(
        sum(len(shard.images) for shards in found.values() for shard in shards),
        len(every),
        tuple(problems),
        tuple(_find_shared_images(found, manifest.holdout)),
    )


def _verify_shard(task: _Task, on_images: Callable[[int], object]) -> _Found:
    name, problems = task.path.name, []
    found = _Found([], [], 0, problems)
    digest = hashlib.sha256()
    num_unknown = 0
    for number, (rest, record) in enumerate(_read_shard(task.path, problems)):
        digest.update(rest)
        image_id = record["image/source_id"]
        if len(problems) < _MAX_PROBLEMS_PER_SHARD:
            problems += [
                f"{name} record {number} ({image_id}): {fault}"
                for fault in _find_faults(record, image_id, task.vocabulary, task.faults.get(number))
            ]
        found.images.append((image_id, hashlib.sha256(record["image/encoded"]).digest()))
        found.num_labels.append(len(record["image/class/label"]))
        num_unknown += len(record["image/class/ignored"])
        on_images(1)
    if digest.hexdigest() != task.shard.records_sha256:
        problems.append(f"{name}: the SHA-256 of its records is not that of the manifest")
    if len(problems) >= _MAX_PROBLEMS_PER_SHARD:
        problems.append(f"{name}: there may be more; these were the first")
    return _Found(found.images, found.num_labels, num_unknown, problems)


def _read_shard(path: Path, problems: list[str]) -> Iterator[tuple[bytes, dict]]:
    """Each record without its image, and its values, as long as they can be read; the end is a problem."""
    number = 0
    try:
        for _, record in read_records(path):
            values = decode(record)
            yield strip_image(record, values["image/encoded"]), values
            number += 1
    except OSError as error:
        problems.append(f"{path.name}: {error.strerror}")
    except (DamagedFile, ValueError) as error:
        problems.append(f"{path.name}: cannot be read from record {number} on ({error})")


def _find_faults(
    record: dict, image_id: str, vocabulary: LabelVocabulary, killer: ImageFault | None
) -> Iterator[str]:
    data = record["image/encoded"]
    if hashlib.sha256(data).hexdigest() != record["image/key/sha256"]:
        yield "its image is not the one that was written: the hash differs"
    try:
        if killer is not None:
            raise ImageProblem(killer.reason, killer.detail)
        facts = inspect_image(data)
    except ImageProblem as problem:
        reason = f"{problem.reason} {problem.detail}".rstrip()
        yield f"its image does not decode ({reason}); a build with --decode leaves it out"
    else:
        stored = tuple(record[f"image/{key}"] for key in ("format", "height", "width", "orientation"))
        if (facts.format, facts.height, facts.width, facts.orientation) != stored:
            yield "its format, size or orientation is not that of its image"
    ids, ignored = record["image/class/label"], record["image/class/ignored"]
    for what, values in (("labels", ids), ("unknown labels", ignored)):
        if values != sorted(set(values)) or not all(0 <= each < vocabulary.size for each in values):
            yield f"its {what} are not ids in the order of the vocabulary: {values}"
            return
    if set(ids) & set(ignored):
        yield f"a label both holds and is unknown: {sorted(set(ids) & set(ignored))}"
    if [vocabulary.names[each] for each in ids] != record["image/class/text"]:
        yield "its labels' names are not those of the vocabulary"
    if record["image/class/count"] != len(ids):
        yield f"it says {record['image/class/count']} labels and has {len(ids)}"
    if record["image/holdout"] != is_held_out(image_id):
        yield "its mark of the hold-out is not that of its id"


def _compare_counts(split: str, facts: Split, shards: list[_Found]) -> Iterator[str]:
    num_labels = [count for shard in shards for count in shard.num_labels]
    for what, found, expected in (
        ("images", len(num_labels), facts.num_images),
        ("labels", sum(num_labels), facts.num_labels),
        ("unknown labels", sum(shard.num_unknown for shard in shards), facts.num_unknown),
        ("images without labels", num_labels.count(0), facts.num_untagged),
        ("labels on one image at most", max(num_labels, default=0), facts.max_labels_per_image),
    ):
        if found != expected:
            yield f"{split}: {found:,} {what}, the manifest says {expected:,}"


def _compare_holdout(manifest: Manifest, found: dict[str, list[_Found]]) -> Iterator[str]:
    if manifest.holdout is None:
        return
    images = [image_id for shard in found[manifest.holdout.split] for image_id, _ in shard.images]
    held_out = sum(is_held_out(image_id, manifest.holdout.fraction) for image_id in images)
    if held_out != manifest.holdout.num_images:
        yield f"hold-out: {count('image', held_out)}, the manifest says {manifest.holdout.num_images:,}"


def _find_repeated_ids(found: dict[str, list[_Found]]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for split, shards in found.items():
        for shard in shards:
            for image_id, _ in shard.images:
                if image_id in seen:
                    yield f"the image id {image_id!r} of {split} is also in {seen[image_id]}"
                seen[image_id] = split


def _find_shared_images(found: dict[str, list[_Found]], holdout: Holdout | None) -> Iterator[str]:
    """Pairs of splits, the hold-out one of them, that hold the same file under two ids."""
    places: dict[bytes, tuple[str, str]] = {}
    shared: dict[tuple[str, str], list[str]] = {}
    for on_disk, shards in found.items():
        for shard in shards:
            for image_id, digest in shard.images:
                is_kept_back = holdout is not None and on_disk == holdout.split
                is_kept_back = is_kept_back and is_held_out(image_id, holdout.fraction)
                split = "the hold-out" if is_kept_back else on_disk
                first_split, first_id = places.setdefault(digest, (split, image_id))
                if first_split != split:
                    shared.setdefault((split, first_split), []).append(f"{image_id} = {first_id}")
    for (split, first_split), pairs in shared.items():
        yield (
            f"{count('image', len(pairs))} of {split} {'is' if len(pairs) == 1 else 'are'} also in "
            f"{first_split}, byte for byte, such as {pairs[0]}: leave them out of one of the two"
        )
