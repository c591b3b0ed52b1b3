"""Reads a user's own data in COCO's form: of COCO 2017, Roboflow, CVAT, Label Studio, FiftyOne and others.

    python -m tfrecords build coco --from export
    python -m tfrecords build coco --from train=train.json,test=test.json --images photos

Only what labels need is asked for: images with an id and a file name, categories with names, annotations that
name both. Boxes and areas are carried where they are whole.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfrecords import words
from tfrecords.annotations import Annotation, Skip
from tfrecords.manifest import SPLITS
from tfrecords.sources.archives import split_archive
from tfrecords.sources.coco_files import CocoFile, read_coco
from tfrecords.sources.coco_layout import find_inputs
from tfrecords.sources.exported_images import ExportedImages, ExportSource, locate, spell_name
from tfrecords.sources.nearest_image import explain_missing
from tfrecords.urls import is_url


class CocoSource(ExportSource):
    """The images of one or more files of instances, each of one split.

    An image's id is its path below the folder of images. Where there is a validation split and no test split,
    the former is the one that is measured, as it is of COCO: it becomes `test`.

    Args:
        files: the JSON, or the folder that it is in; `train=..,test=..` for a file or folder a split.
        images: the folder or archive of the images, or a URL; by default the JSON's own folder, or the one
            above where that has no images.

    Raises:
        UserError: a file or folder is missing, or it is not clear which is meant.
    """

    name = "coco"

    def __init__(
        self, files: str | os.PathLike | Sequence[str | os.PathLike], images: Sequence[str | os.PathLike] = ()
    ):
        files = [files] if isinstance(files, str | os.PathLike) else list(files)
        images = [images] if isinstance(images, str | os.PathLike) else list(images)
        self.inputs = find_inputs(files, images)
        self.moves_validation = False
        if not any("=" in os.fspath(word) for word in files):
            splits = {found.split for found in self.inputs}
            if "validation" in splits and "test" not in splits:
                self.moves_validation = True
                self.inputs = [
                    found._replace(split="test") if found.split == "validation" else found
                    for found in self.inputs
                ]
        for found in self.inputs:
            ExportedImages(found.images)  # says that there is no such folder
        self._has_archives = any(
            not is_url(found.images) and split_archive(found.images) is not None for found in self.inputs
        )
        self._names: dict[str, None] = {}
        self._notes: list[str] = []

    def splits(self) -> tuple[str, ...]:
        found = {each.split for each in self.inputs}
        return tuple(split for split in SPLITS if split in found)

    def annotations(self, split: str) -> Iterator[Annotation | Skip]:
        return (item for its_split, item in self.items() if its_split == split)

    def items(self) -> Iterator[tuple[str, Annotation | Skip]]:
        self._names, self._notes = {}, []
        if self.moves_validation:
            self._notes.append(
                "there is no test split: the validation split is the one that is measured, and a tenth of "
                "train is held out in its place (--from train=A,validation=B keeps it)"
            )
        top = _common_folder([found.images for found in self.inputs])
        lost: Counter[str] = Counter()
        labels: set[str] = set()
        for found in self.inputs:
            file = read_coco(found.path)
            self._names |= dict.fromkeys(file.names)
            lost.update(file.lost_boxes)
            stem = Path(found.path).stem.split("_")[-1]
            images = ExportedImages(found.images, (stem, Path(found.path).parent.name, found.split))
            prefix = os.path.relpath(found.images, top) if top else found.split
            for image in file.images:
                item = locate(image.file_name, images, "" if prefix == os.curdir else prefix)
                if isinstance(item, Skip):
                    yield found.split, item
                    continue
                image_id, path = item
                labels.update(image.labels)
                yield found.split, Annotation(image_id, path, image.labels, image.ignored, image.boxes)
            self._notes += [note for note in _describe(file, images) if note not in self._notes]
        if lost:
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in lost.items())
            many = words.count("annotation", lost.total())
            self._notes.append(f"boxes of {many} are left out, their labels kept: {reasons}")

    def label_names(self) -> tuple[str, ...]:
        if not self._names:
            for _ in self.items():
                pass
        return tuple(self._names)

    def notes(self) -> list[str]:
        return self._notes

    def has_archives(self) -> bool:
        return self._has_archives

    def explain_skip(self, skip: Skip) -> str:
        if skip.reason != "missing_image":
            return ""
        for folder in dict.fromkeys(found.images for found in self.inputs):
            images = ExportedImages(folder)
            wanted = (spell_name(os.path.relpath(skip.detail, images.path)) or [""])[-1]
            found = explain_missing(wanted, [images.folder], pattern="{image}") if wanted else ""
            if found:
                return found.split(", and --image-pattern")[0]
        return ""

    def arguments(self) -> dict:
        return {"from": [f"{found.split}={os.path.basename(found.path)}" for found in self.inputs]}


def _common_folder(folders: Sequence[str]) -> str | None:
    """The folder that all others are in; None where a URL or another root is among several."""
    if len(set(folders)) == 1:
        return folders[0]
    if any(map(is_url, folders)):
        return None
    try:
        return os.path.commonpath([os.path.abspath(folder) for folder in folders])
    except ValueError:
        return None


def _describe(file: CocoFile, images: ExportedImages) -> Iterator[str]:
    if file.groups:
        names = ", ".join(map(repr, file.groups))
        what = (
            "is the group of others and has no annotation"
            if len(file.groups) == 1
            else ("are groups of others and have no annotations")
        )
        yield f"{names} {what}: no label"
    for name, keys in file.merged.items():
        yield f"{name!r} is the name of the categories {' and '.join(keys)}: one label"
    if file.is_federated:
        yield (
            "each image names the categories that it was searched for, as in LVIS: those found and those of "
            "neg_category_ids; all others are unknown there"
        )
    if images.other_names:
        name, found = next(iter(images.other_names.items()))
        many = words.count("image", len(images.other_names))
        yield f"{many} found under another name, such as {name} as {found}"
