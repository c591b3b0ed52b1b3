"""Stops a build that would lose much of its images: its paths are then more likely wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from tfrecords.annotations import Annotation, Skip
from tfrecords.errors import UserError
from tfrecords.manifest import BAD_ANNOTATIONS, MISSING, format_share
from tfrecords.sources.base import Source
from tfrecords.store import AnnotationStore
from tfrecords.urls import is_url

LIMIT = 0.1
"""The share of a split's images that may be missing. A single one always may."""
_SAMPLE = 1000  # images of a split that are looked for before all of them are
_SHOWN = 3  # names of a folder in a message


def refuse_missing_files(source: Source, store: AnnotationStore, splits: Sequence[str]) -> None:
    """Looks for the image files before any is read, where that is cheap: on a disk, and not in an archive.

    The store's order is that of a hash, so its first images stand for all. Only where too many of them are
    missing are all the others looked for.

    Raises:
        UserError: more than `LIMIT` of a split's images are missing, or without a readable annotation.
    """
    for split in splits:
        _refuse_bad_annotations(source, store, split)
        sample = list(store.annotations(split, b"", _SAMPLE))
        missing = sum(_is_missing(source, annotation) for annotation in sample)
        if _is_too_much(missing, len(sample)):
            missing, first = 0, None
            for annotation in store.annotations_as_read(split):
                if _is_missing(source, annotation):
                    missing += 1
                    first = first or annotation
            total = store.count_images(split)
            if first is not None and _is_too_much(missing, total):
                skip = Skip(first.image_id, MISSING, first.image_path or "")
                raise UserError(_explain(source, split, missing, total, skip))


def _refuse_bad_annotations(source: Source, store: AnnotationStore, split: str) -> None:
    counts = store.count_skips(split)
    bad = sum(counts.get(reason, 0) for reason in BAD_ANNOTATIONS)
    total = bad + store.count_images(split)
    if _is_too_much(bad, total):
        first = next(skip for skip in store.skips(split) if skip.reason in BAD_ANNOTATIONS)
        raise UserError(
            f"{bad:,} of the {total:,} {split} images have no annotation that can be read "
            f"({format_share(bad, total)}), the first {first.detail}{source.explain_skip(first)}; "
            "--allow-missing builds from the others, and every table of results says how many are not in it"
        )


def refuse_missing_images(source: Source, store: AnnotationStore, num_images: dict[str, int]) -> None:
    """Counts the images that were not there when they were read; `num_images` are the others of each split.

    Raises:
        UserError: more than `LIMIT` of a split's images are missing.
    """
    for split, num_read in num_images.items():
        missing = store.count_skips(split).get(MISSING, 0)
        if _is_too_much(missing, missing + num_read):
            first = next(skip for skip in store.skips(split) if skip.reason == MISSING)
            raise UserError(_explain(source, split, missing, missing + num_read, first))


def _is_too_much(missing: int, total: int) -> bool:
    return missing > max(LIMIT * total, 1)


def _is_missing(source: Source, annotation: Annotation) -> bool:
    path = source.image_file(annotation)
    if path is None or is_url(path) or source.stamp_image(annotation) is not None:
        return False
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):  # no permission, a loop of links: told when it is read
        return False
    return False


def _explain(source: Source, split: str, missing: int, total: int, first: Skip) -> str:
    hint = source.explain_skip(first).removeprefix("; ") or "; ".join(_describe_place(first.detail))
    where = first.detail or first.image_id
    return (
        f"{missing:,} of the {total:,} {split} images are missing ({format_share(missing, total)}), the "
        f"first {where}{': ' if hint else ''}{hint}; where they are meant to be missing, --allow-missing "
        "builds from the others, and every table of results says how many are not in it"
    )


def _describe_place(path: str) -> Iterator[str]:
    """What is where the file is not: the nearest folder above it that exists, and what it holds."""
    if not path or is_url(path):
        return
    folder, wanted = os.path.split(path)
    while folder and not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder, wanted = os.path.split(folder)
    folder = folder or os.curdir
    if os.path.isfile(folder):
        return
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return
    if not names:
        yield f"the folder {folder} is empty"
        return
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
    yield f"{folder} has no {wanted}; it holds {shown}"
