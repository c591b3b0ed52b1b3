"""Finds the JSON files of an export, their splits, and the folders of their images, in the usual layouts."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tfrecords.errors import UserError
from tfrecords.sources.exported_images import IMAGE_SUFFIXES, explain_folder
from tfrecords.sources.split_files import SPLIT_OF_WORD, SplitFile, parse_split_files

_ANNOTATION_FOLDERS = ("annotations", "annotation", "labels", "json", "ann", "anns")
_OWNERS_OTHERS = re.compile(r"(captions|person_keypoints|panoptic|stuff|image_info)_", re.IGNORECASE)
_MAX_DEPTH = 3
_SPLIT_WORDS = SPLIT_OF_WORD | {"trainval": "train", "minival": "validation", "dev": "validation"}


class CocoInput(NamedTuple):
    """A JSON, the split of its images, and the folder that they are looked for in."""

    split: str
    path: str
    images: str


def find_inputs(words: Sequence[str | os.PathLike], images: Sequence[str | os.PathLike]) -> list[CocoInput]:
    """What `--from` and `--images` mean.

    Raises:
        UserError: a file is missing, a folder holds no COCO file, or several of one split.
    """
    files = [found for word in parse_split_files(words) for found in _find_files(word)]
    if len(files) > 1 and all(file.split is None for file in files):
        files = [SplitFile(split_of(file.path), file.path) for file in files]
    files = _name_splits(files)
    folders = parse_split_files(images, "--images")
    return [CocoInput(file.split or "train", file.path, _find_images(file, folders)) for file in files]


def split_of(path: str) -> str | None:
    """The split that a path speaks of: in its file's name, or in that of a folder, the last one first.

    >>> split_of("annotations/instances_val2017.json"), split_of("valid/_annotations.coco.json")
    ('validation', 'validation')
    >>> split_of("export/instances_default.json") is None
    True
    """
    for part in reversed(Path(path).parts[-3:]):
        found = [_SPLIT_WORDS[word] for word in re.findall(r"[a-z]+", part.lower()) if word in _SPLIT_WORDS]
        if found:
            return found[-1]
    return None


def _find_files(file: SplitFile) -> list[SplitFile]:
    """The file itself, or the COCO files in a folder, each with its split."""
    if os.path.isfile(file.path):
        packed = explain_folder(file.path, "coco")
        if packed:
            raise UserError(f"{file.path}: is no JSON{packed}")
        return [file]
    if not os.path.isdir(file.path):
        raise UserError(
            f"{file.path}: no such file or folder: give the JSON, or the folder it is in, with --from"
        )
    candidates = sorted(_walk_json(file.path))
    if any(os.path.basename(path).lower().startswith("instances") for path in candidates):
        candidates = [path for path in candidates if not _OWNERS_OTHERS.match(os.path.basename(path))]
    found = [path for path in candidates if _looks_like_coco(path)]
    if not found:
        other = f"; {candidates[0]} is none, for it has no images and annotations" if candidates else ""
        advice = (
            explain_folder(file.path, "coco") or ": export the data as COCO, or name the file with --from"
        )
        raise UserError(f"{file.path}: no JSON with COCO's images and annotations in it{other}{advice}")
    if file.split is not None:
        if len(found) > 1:
            raise UserError(
                f"{file.path}: several COCO files are in it, {_list(found)}: name the one that is meant, "
                f"--from {file.split}={found[0]}"
            )
        return [SplitFile(file.split, found[0])]
    splits = [split_of(os.path.relpath(path, file.path)) for path in found]
    if len(found) == 1:
        return [SplitFile(None, found[0])]
    for number, (_, split) in enumerate(zip(found, splits, strict=True)):
        same = [other for other, its in zip(found[:number], splits[:number], strict=True) if its == split]
        if same or split is None:
            what = "of no split by their names" if split is None else f"of the split {split}"
            several = [p for p, s in zip(found, splits, strict=True) if s == split]
            raise UserError(
                f"{file.path}: {'several are' if len(several) > 1 else 'one is'} {what}, {_list(several)}: "
                f"name those that are meant, --from train={found[0]},test={found[-1]}"
            )
    return [SplitFile(split, path) for path, split in zip(found, splits, strict=True)]


def _name_splits(files: list[SplitFile]) -> list[SplitFile]:
    splits = {file.split for file in files}
    if len(files) == 1 and next(iter(splits)) is None:
        return [SplitFile("train", files[0].path)]
    if None in splits:
        unnamed = next(file.path for file in files if file.split is None)
        raise UserError(f"--from {unnamed}: say its split, such as train={unnamed}")
    return files


def _walk_json(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder, followlinks=True):
        depth = os.path.relpath(parent, folder).count(os.sep)
        folders[:] = sorted(each for each in folders if not each.startswith(".") and depth < _MAX_DEPTH)
        yield from (
            os.path.join(parent, name)
            for name in names
            if name.lower().endswith(".json") and not name.startswith(".")
        )


def _looks_like_coco(path: str) -> bool:
    """By the keys that such a file has, without parsing what may be half a gigabyte."""
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(b'"images"') >= 0 and content.find(b'"annotations"') >= 0
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _find_images(file: SplitFile, folders: Sequence[SplitFile]) -> str:
    for folder in folders:
        if folder.split in (None, file.split):
            return folder.path
    if folders:
        raise UserError(f"--images names no folder for the split {file.split}: add {file.split}=FOLDER")
    own = os.path.dirname(file.path) or os.curdir
    if os.path.basename(os.path.abspath(own)).lower() in _ANNOTATION_FOLDERS or not _holds_images(own):
        return os.path.dirname(own) or (os.curdir if own != os.curdir else os.pardir)
    return own


def _holds_images(folder: str) -> bool:
    for _, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [each for each in folders if not each.startswith(".")]
        if any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in names):
            return True
    return False


def _list(paths: Sequence[str], most: int = 3) -> str:
    return ", ".join(paths[:most]) + (f" and {len(paths) - most} more" if len(paths) > most else "")
