"""A `Source` enters; `data/<name>/` leaves, whole or not at all: shards, vocabulary, manifest, skips."""

from __future__ import annotations

import csv
import fcntl
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tfrecords import vocabulary as vocabularies
from tfrecords.annotations import Annotation, Skip
from tfrecords.errors import UserError, nearest
from tfrecords.manifest import FILE_NAME as MANIFEST_FILE_NAME
from tfrecords.manifest import SPLITS, Holdout, Manifest, Split
from tfrecords.sources.base import Source
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.writer import ShardResult, plan_shards, write_shards

SKIPPED_FILE_NAME = "skipped.csv"


def build(
    source: Source,
    name: str,
    data_dir: str | Path = "data",
    *,
    workers: int | None = None,
    overwrite: bool = False,
    strict: bool = False,
    progress: bool = True,
) -> Manifest:
    """Turns `source` into the data set `data_dir/name`.

    The folder appears in one step when everything is written; whatever fails leaves nothing behind. A build
    that is killed, or interrupted by Ctrl-C, keeps its finished shards in a hidden folder; run again, it goes
    on there and ends with the same bytes as one that was not.

    Args:
        name: letters, digits, `.`, `_` and `-`; the name that training asks for.
        workers: number of processes, one a core by default; the result is the same for any number.
        overwrite: replace a data set of that name.
        strict: refuse the data set if any image has to be skipped; what the user asked to leave out may be.
        progress: show a bar on stderr.

    Raises:
        UserError: the data set exists, the source is at odds with itself, fewer than two labels or an empty
            split came out, the disk refuses, or `strict` and an image was skipped.
    """
    _check_name(name)
    target = Path(data_dir) / name
    _refuse_existing(target, overwrite)
    annotations, skips = _read_source(source)
    if strict:
        _refuse_skips(skips)
    vocabulary = _count_labels(source, annotations)
    try:
        with _appearing_folder(target, overwrite) as folder:
            results = _write_records(source, vocabulary, annotations, folder, workers, progress)
            for result in results:
                skips[result.split].extend(result.skips)
            if strict:
                _refuse_skips(skips)
            manifest = _make_manifest(source, name, vocabulary, results, skips)
            vocabulary.save(folder / vocabularies.FILE_NAME)
            _save_skips(folder / SKIPPED_FILE_NAME, skips)
            manifest.save(folder)
            _drop_others(folder, manifest)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error}") from None
    return manifest


def _read_source(source: Source) -> tuple[dict[str, list[Annotation]], dict[str, list[Skip]]]:
    """The annotations and skips of each split; refuses an image that is in two splits, or twice in one."""
    splits = _check_splits(source)
    annotations: dict[str, list[Annotation]] = {split: [] for split in splits}
    skips: dict[str, list[Skip]] = {split: [] for split in splits}
    split_of_image: dict[str, str] = {}
    for split in splits:
        for item in source.annotations(split):
            if isinstance(item, Skip):
                skips[split].append(item)
                continue
            earlier = split_of_image.setdefault(item.image_id, split)
            if earlier != split:
                raise UserError(
                    f"the image {item.image_id!r} is in both {earlier} and {split}: what is tested would "
                    f"leak into training; leave it in one of the two"
                )
            annotations[split].append(item)
        if len(split_of_image) != sum(map(len, annotations.values())):
            [(image_id, count)] = Counter(item.image_id for item in annotations[split]).most_common(1)
            raise UserError(f"the image {image_id!r} occurs {count} times in {split}: an id is unique")
        if not annotations[split]:
            raise UserError(_explain_empty_split(split, skips[split]))
    return annotations, skips


def _check_splits(source: Source) -> list[str]:
    names = source.splits()
    for name in names:
        if name not in SPLITS:
            raise UserError(f"unknown split {name!r}{nearest(name, SPLITS)}: expected {', '.join(SPLITS)}")
    if "train" not in names:
        raise UserError(f"the source has the splits {', '.join(names) or 'none'}: it needs a split train")
    return [split for split in SPLITS if split in names]


def _count_labels(source: Source, annotations: Mapping[str, Sequence[Annotation]]) -> LabelVocabulary:
    """Ranks by all of train, held-out images included; names seen only elsewhere join with count 0."""
    counts = Counter(dict.fromkeys(source.label_names() or (), 0))
    for split, items in annotations.items():
        for item in items:
            counts.update(item.labels if split == "train" else dict.fromkeys(item.labels, 0))
            counts.update(dict.fromkeys(item.ignored, 0))
            counts.update({box.label: 0 for box in item.boxes})
    if len(counts) < 2 or not any(counts.values()):
        raise UserError(_explain_few_labels(counts, sum(map(len, annotations.values()))))
    return LabelVocabulary.from_counts(counts)


def _explain_few_labels(counts: Mapping[str, int], num_images: int) -> str:
    where = f"in the annotations of {num_images:,} images"
    if len(counts) == 1:
        found = f"a single label, {next(iter(counts))!r}, was found {where}"
    elif counts:
        found = f"none of the {len(counts)} labels holds for any training image {where}"
    else:
        found = f"no label at all was found {where}"
    return f"{found}: a tagger needs two or more; of a table, check the label column and --label-separator"


def _write_records(
    source: Source,
    vocabulary: LabelVocabulary,
    annotations: Mapping[str, Sequence[Annotation]],
    folder: Path,
    workers: int | None,
    progress: bool,
) -> list[ShardResult]:
    from tqdm import tqdm

    tasks = [
        task
        for split, items in annotations.items()
        for task in plan_shards(source, vocabulary, split, items, folder)
    ]
    num_images = sum(map(len, annotations.values()))
    with tqdm(total=num_images, unit=" images", disable=not progress, dynamic_ncols=True) as bar:
        return write_shards(tasks, workers, bar.update)


def _make_manifest(
    source: Source,
    name: str,
    vocabulary: LabelVocabulary,
    results: Sequence[ShardResult],
    skips: Mapping[str, Sequence[Skip]],
) -> Manifest:
    splits = {
        split: _make_split(split, [result for result in results if result.split == split], left_out)
        for split, left_out in skips.items()
    }
    num_held_out = sum(result.num_held_out for result in results if result.split == "train")
    return Manifest(
        name=name,
        source=source.name,
        source_arguments=source.arguments(),
        vocabulary_fingerprint=vocabulary.fingerprint,
        splits=splits,
        holdout=None if "validation" in splits else Holdout(num_held_out),
        reference_rows=source.reference_rows(),
    )


def _make_split(name: str, results: Sequence[ShardResult], skips: Sequence[Skip]) -> Split:
    num_images = sum(result.shard.num_records for result in results)
    if num_images == 0:
        raise UserError(_explain_empty_split(name, skips))
    return Split(
        num_images=num_images,
        num_labels=sum(result.num_labels for result in results),
        num_unknown=sum(result.num_unknown for result in results),
        num_untagged=sum(result.num_untagged for result in results),
        max_labels_per_image=max(result.max_labels_per_image for result in results),
        shards=tuple(result.shard for result in results),
        skipped=_count_reasons(skips),
    )


def _refuse_skips(skips: Mapping[str, Sequence[Skip]]) -> None:
    faults = [skip for left_out in skips.values() for skip in left_out if not skip.by_choice]
    if faults:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in _count_reasons(faults).items())
        raise UserError(
            f"--strict: {len(faults):,} images would be skipped ({reasons}), such as "
            f"{faults[0].detail or faults[0].image_id}: mend them, or leave the flag out"
        )


def _count_reasons(skips: Sequence[Skip]) -> dict[str, int]:
    return dict(sorted(Counter(skip.reason for skip in skips).items()))


def _explain_empty_split(name: str, skips: Sequence[Skip]) -> str:
    if not skips:
        return f"the split {name} has no images: leave it out or fill it"
    [(reason, count)] = Counter(skip.reason for skip in skips).most_common(1)
    example = next(skip for skip in skips if skip.reason == reason)
    return (
        f"no image of the split {name} is left: all {len(skips):,} were skipped, {count:,} as {reason}, "
        f"such as {example.detail or example.image_id}; of a table, check --images"
    )


def _save_skips(path: Path, skips: Mapping[str, Sequence[Skip]]) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["split", "image_id", "reason", "detail"])
        for split, left_out in skips.items():
            ordered = sorted(left_out, key=lambda skip: (skip.reason, skip.image_id, skip.detail))
            writer.writerows([split, skip.image_id, skip.reason, skip.detail] for skip in ordered)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(
            f"{name!r} cannot name a data set: expected letters, digits, '.', '_' and '-'; "
            f"choose another with --name"
        )


def _refuse_existing(target: Path, overwrite: bool) -> None:
    """Nothing is replaced unless asked for, and nothing but a data set ever: it might be the photographs."""
    if not target.exists():
        return
    if not (target / MANIFEST_FILE_NAME).is_file():
        raise UserError(f"{target} exists and is no data set that was built here: choose another --name")
    if not overwrite:
        raise UserError(f"{target} exists: pass --overwrite to replace it, or choose another --name")


@contextmanager
def _appearing_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden folder beside `target` that becomes `target` at the end, and vanishes on any failure.

    Only Ctrl-C, or a kill, leaves it there for the next build.
    """
    hidden = target.with_name(f".{target.name}.building")
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock_folder(hidden)
    try:
        _mend_replacement(target)
        _refuse_existing(target, overwrite)  # another build may have ended since
        yield hidden
        _move_into_place(hidden, target)
    except KeyboardInterrupt:  # what is finished serves the next build
        raise KeyboardInterrupt("run the same command again to go on") from None
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _drop_others(folder: Path, manifest: Manifest) -> None:
    """Removes what is no part of the data set: kept results, and what an earlier build left."""
    shards = {shard.file for split in manifest.splits.values() for shard in split.shards}
    for path in folder.iterdir():
        if path.name not in {*shards, vocabularies.FILE_NAME, SKIPPED_FILE_NAME, MANIFEST_FILE_NAME}:
            path.unlink()


def _lock_folder(folder: Path) -> int:
    """Makes `folder` and locks it until the returned descriptor is closed or this process ends."""
    while True:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"{folder}: another build of this data set is running; wait for its end"
            ) from None
        except FileNotFoundError:
            pass  # the build that held it has just renamed it
        os.close(descriptor)


def _mend_replacement(target: Path) -> None:
    """Ends what a build that was killed while it replaced `target` had begun."""
    replaced = _replaced_path(target)
    if replaced.exists() and not target.exists():
        os.rename(replaced, target)
    shutil.rmtree(replaced, ignore_errors=True)


def _replaced_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _move_into_place(hidden: Path, target: Path) -> None:
    replaced = _replaced_path(target)
    if target.exists():
        os.rename(target, replaced)
    os.rename(hidden, target)
    shutil.rmtree(replaced, ignore_errors=True)
