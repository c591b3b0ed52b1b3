"""A `Source` enters; `data/<name>/` leaves, whole or not at all: shards, vocabulary, manifest, skips."""

from __future__ import annotations

import csv
import fcntl
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tfrecords import vocabulary as vocabularies
from tfrecords.annotations import Annotation, Skip
from tfrecords.errors import UserError, nearest
from tfrecords.images import ORIGINALS, ImageRules
from tfrecords.label_notes import note_labels
from tfrecords.manifest import FILE_NAME as MANIFEST_FILE_NAME
from tfrecords.manifest import SPLITS, Holdout, Manifest, Split
from tfrecords.missing import refuse_missing_files, refuse_missing_images
from tfrecords.progress import show_progress
from tfrecords.sources.base import Source
from tfrecords.store import AnnotationStore
from tfrecords.undecodable import FILE_NAME as UNDECODABLE_FILE_NAME
from tfrecords.undecodable import save_undecodable
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.words import count
from tfrecords.writer import RESULT_SUFFIX, ShardResult, ShardTask, plan_shards, write_shards

SKIPPED_FILE_NAME = "skipped.csv"
_KEPT_FILES = (vocabularies.FILE_NAME, SKIPPED_FILE_NAME, MANIFEST_FILE_NAME, UNDECODABLE_FILE_NAME)
ShardWriter = Callable[[Sequence[ShardTask], Callable[[int], object]], list[ShardResult]]
"""Runs tasks and returns their results in the same order; calls back with numbers of images."""
_STORE_FILE_NAME = "annotations.sqlite"


def build(
    source: Source,
    name: str,
    data_dir: str | Path = "data",
    *,
    workers: int | None = None,
    isolate: bool = False,
    overwrite: bool = False,
    strict: bool = False,
    allow_missing: bool = False,
    rules: ImageRules = ORIGINALS,
    write: ShardWriter | None = None,
    progress: bool = True,
    tell: Callable[[str], object] = lambda line: None,
) -> Manifest:
    """Turns `source` into the data set `data_dir/name`.

    The folder appears in one step when everything is written. A build that fails, is killed or interrupted by
    Ctrl-C keeps its finished shards in a hidden folder; run again, it goes on there and ends with the same
    bytes as one that was not. Beyond what the source itself keeps, memory does not grow with the images.

    Args:
        name: letters, digits, `.`, `_` and `-`; the name that training asks for.
        workers: number of processes, one a core by default; the result is the same for any number.
        isolate: read images in other processes even where they are few, so that none can end this one.
        overwrite: replace a data set of that name.
        strict: refuse the data set if any image has to be skipped; what the user asked to leave out may be.
        allow_missing: build though more than a tenth of a split's images are missing (`missing.LIMIT`).
        rules: how images become what records hold: byte for byte by default.
        write: what runs the tasks in place of `workers` processes: `tfrecords.beam.BeamWriter`, say.
        progress: show on stderr how far it is, and the time left.
        tell: called with each line that a person should see once the labels are read.

    Raises:
        UserError: the data set exists, the source is at odds with itself, fewer than two labels or an empty
            split came out, the disk refuses, many images are missing, or `strict` and an image was skipped.
    """
    target = check_target(name, data_dir, overwrite)
    write = write or partial(write_shards, workers, isolate=isolate)
    try:
        with _appearing_folder(target, overwrite) as folder:
            counts: Counter[str] = Counter()
            with show_progress("reading labels", unit="image", shown=progress) as bar:
                items = _count_labels(_read_items(source), counts, bar.update)
                filled = AnnotationStore.fill(folder / _STORE_FILE_NAME, items)
            with filled as store:
                splits = _check_store(source, store)
                if strict:
                    _refuse_skips(store, splits)
                if not allow_missing:
                    refuse_missing_files(source, store, splits)
                vocabulary = _make_vocabulary(source, store, counts, splits)
                for line in (
                    *note_labels(store, vocabulary, splits),
                    *map("note: {}".format, source.notes()),
                ):
                    tell(line)
                tasks = [
                    task
                    for split in splits
                    for task in plan_shards(source, vocabulary, store, split, folder, rules)
                ]
                results = _write_records(tasks, write, progress)
                for result in results:
                    store.add_skips(result.split, result.skips)
                if strict:
                    _refuse_skips(store, splits)
                if not allow_missing:
                    refuse_missing_images(source, store, _count_written(results, splits))
                manifest = _make_manifest(source, name, vocabulary, rules, results, store, splits)
                _save_skips(folder / SKIPPED_FILE_NAME, store, splits)
            vocabulary.save(folder / vocabularies.FILE_NAME)
            manifest.save(folder)
            if rules.decode:
                save_undecodable(folder, manifest, [])
            _drop_others(folder, manifest)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error}") from None
    return manifest


def check_target(name: str, data_dir: str | Path, overwrite: bool = False) -> Path:
    """The folder that a data set is to be built in; worth a look before anything else is done.

    Raises:
        UserError: there is one already, or `name` cannot name one.
    """
    _check_name(name)
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(data_dir)):
        raise UserError(
            f"--data-dir {data_dir}: a data set is built on a disk of this machine; --staging takes a URL"
        )
    target = Path(data_dir) / name
    _refuse_existing(target, overwrite)
    return target


def _read_items(source: Source) -> Iterator[tuple[str, Annotation | Skip]]:
    """The items of a source, whose files are not to be mistaken for those that are written."""
    try:
        yield from source.items()
    except OSError as error:
        raise UserError(f"cannot read the source: {error}") from None


def _count_labels(
    items: Iterator[tuple[str, Annotation | Skip]], counts: Counter[str], on_images: Callable[[int], object]
) -> Iterator[tuple[str, Annotation | Skip]]:
    """Passes `items` on; adds to `counts` the labels of train, and with 0 all other names that occur."""
    for split, item in items:
        if isinstance(item, Annotation):
            for label in item.labels:
                counts[label] += split == "train"
            for label in item.ignored:
                counts[label] += 0
            for box in item.boxes:
                counts[box.label] += 0
        on_images(1)
        yield split, item


def _check_store(source: Source, store: AnnotationStore) -> list[str]:
    """The splits, in their order; refuses an image that is in two of them or twice in one, and empty ones."""
    names = source.splits()
    for name in names:
        if name not in SPLITS:
            raise UserError(f"unknown split {name!r}{nearest(name, SPLITS)}: expected {', '.join(SPLITS)}")
    if "train" not in names:
        raise UserError(f"the source has the splits {', '.join(names) or 'none'}: it needs a split train")
    repeated = store.find_repeated()
    if repeated is not None:
        image_id, [first, *others] = repeated
        for other in others:
            if other != first:
                raise UserError(
                    f"the image {image_id!r} is in both {first} and {other}: what is tested would leak into "
                    "training; leave it in one of the two"
                )
        raise UserError(f"the image {image_id!r} occurs {len(others) + 1} times in {first}: an id is unique")
    splits = [split for split in SPLITS if split in names]
    for split in splits:
        if not store.count_images(split):
            raise UserError(_explain_empty_split(source, split, store))
    return splits


def _make_vocabulary(
    source: Source, store: AnnotationStore, counts: Counter[str], splits: Sequence[str]
) -> LabelVocabulary:
    """Ranks by all of train, held-out images included; names seen only elsewhere join with count 0."""
    for name in source.label_names() or ():
        counts[name] += 0
    if len(counts) < 2 or not any(counts.values()):
        raise UserError(_explain_few_labels(counts, sum(map(store.count_images, splits))))
    return LabelVocabulary.from_counts(counts)


def _explain_few_labels(counts: Mapping[str, int], num_images: int) -> str:
    where = f"in the annotations of {count('image', num_images)}"
    if len(counts) == 1:
        found = f"a single label, {next(iter(counts))!r}, was found {where}"
    elif counts:
        found = f"none of the {len(counts)} labels holds for any training image {where}"
    else:
        found = f"no label at all was found {where}"
    return f"{found}: a tagger needs two or more; of a table, check the label column and --label-separator"


def _write_records(tasks: Sequence[ShardTask], write: ShardWriter, progress: bool) -> list[ShardResult]:
    num_images = sum(len(task.annotations) for task in tasks)
    with show_progress("writing records", num_images, "image", shown=progress) as bar:
        return write(tasks, bar.update)


def _count_written(results: Sequence[ShardResult], splits: Sequence[str]) -> dict[str, int]:
    """The records of each split."""
    return {
        split: sum(result.shard.num_records for result in results if result.split == split)
        for split in splits
    }


def _make_manifest(
    source: Source,
    name: str,
    vocabulary: LabelVocabulary,
    rules: ImageRules,
    results: Sequence[ShardResult],
    store: AnnotationStore,
    splits: Sequence[str],
) -> Manifest:
    num_held_out = sum(result.num_held_out for result in results if result.split == "train")
    return Manifest(
        name=name,
        source=source.name,
        source_arguments=source.arguments() | rules.arguments(),
        vocabulary_fingerprint=vocabulary.fingerprint,
        splits={
            split: _make_split(source, split, [each for each in results if each.split == split], store)
            for split in splits
        },
        holdout=None if "validation" in splits else Holdout(num_held_out),
        reference_rows=source.reference_rows(),
    )


def _make_split(source: Source, name: str, results: Sequence[ShardResult], store: AnnotationStore) -> Split:
    num_images = sum(result.shard.num_records for result in results)
    if num_images == 0:
        raise UserError(_explain_empty_split(source, name, store))
    return Split(
        num_images=num_images,
        num_labels=sum(result.num_labels for result in results),
        num_unknown=sum(result.num_unknown for result in results),
        num_untagged=sum(result.num_untagged for result in results),
        max_labels_per_image=max(result.max_labels_per_image for result in results),
        shards=tuple(result.shard for result in results),
        skipped=store.count_skips(name),
    )


def _refuse_skips(store: AnnotationStore, splits: Sequence[str]) -> None:
    faults: Counter[str] = Counter()
    for split in splits:
        faults.update(store.count_skips(split, faults_only=True))
    if faults:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(faults.items()))
        example = next(skip for split in splits for skip in store.skips(split) if not skip.by_choice)
        raise UserError(
            f"--strict: {count('image', faults.total())} would be skipped ({reasons}), such as "
            f"{example.detail or example.image_id}: mend them, or leave the flag out"
        )


def _explain_empty_split(source: Source, name: str, store: AnnotationStore) -> str:
    counts = store.count_skips(name)
    if not counts:
        return f"the split {name} has no images: leave it out or fill it"
    reason = max(counts, key=counts.__getitem__)
    example = next(skip for skip in store.skips(name) if skip.reason == reason)
    return (
        f"no image of the split {name} is left: all {sum(counts.values()):,} were skipped, "
        f"{counts[reason]:,} as {reason}, such as {example.detail or example.image_id}"
        f"{source.explain_skip(example) or '; of a table, check --images'}"
    )


def _save_skips(path: Path, store: AnnotationStore, splits: Sequence[str]) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["split", "image_id", "reason", "detail"])
        for split in splits:
            for skip in store.skips(split):
                writer.writerow([split, skip.image_id, skip.reason, skip.detail])


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(
            f"{name!r} cannot name a data set: expected letters, digits, '.', '_' and '-'; "
            f"choose another with --name"
        )


def _refuse_existing(target: Path, overwrite: bool) -> None:
    """Nothing is replaced unless asked for, and nothing but a data set ever: it might be the photographs."""
    if target.is_symlink():
        raise UserError(
            f"{target} is a link: build where it leads to, with --data-dir {target.resolve().parent}, or "
            "choose another --name"
        )
    if not target.exists():
        return
    if not (target / MANIFEST_FILE_NAME).is_file():
        raise UserError(f"{target} exists and is no data set that was built here: choose another --name")
    if not overwrite:
        raise UserError(f"{target} exists: pass --overwrite to replace it, or choose another --name")


@contextmanager
def _appearing_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden folder beside `target` that becomes `target` at the end.

    After a failure it vanishes, unless there are finished shards in it: these serve the next build.
    """
    hidden = target.with_name(f".{target.name}.building")
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock_folder(hidden)
    try:
        for partial_file in hidden.glob("*.partial"):  # of a build that was killed
            partial_file.unlink()
        _mend_replacement(target)
        _refuse_existing(target, overwrite)  # another build may have ended since
        yield hidden
        _move_into_place(hidden, target)
    except BaseException as error:
        if not any(hidden.rglob(f"*{RESULT_SUFFIX}")):
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt("run the same command again to go on") from None
        if not isinstance(error, UserError | OSError):
            raise
        problem = error if isinstance(error, UserError) else f"cannot write {target}: {error}"
        raise UserError(f"{problem}; what is finished waits in {hidden}: run again to go on") from None
    finally:
        os.close(lock)


def _drop_others(folder: Path, manifest: Manifest) -> None:
    """Removes what is no part of the data set: kept results, and what an earlier build left."""
    shards = {shard.file for split in manifest.splits.values() for shard in split.shards}
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in {*shards, *_KEPT_FILES}:
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
