"""Reads MS-COCO 2014 as its owners ship it: instances and two folders of images.

    python -m tfrecords build coco2014 --from COCO --download

train2014 is for training and val2014 for testing, as in the paper. An image has a label if one of its
objects, a crowd included, is of that category; `coco_export` reads other data in this form.
Lin et al., Microsoft COCO, ECCV 2014.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from tfrecords.annotations import Annotation, Skip
from tfrecords.download import Archive, download
from tfrecords.errors import UserError
from tfrecords.sources.base import Source, is_folder, join_inside
from tfrecords.sources.coco_files import OTHER_DATA, read_coco
from tfrecords.urls import is_url

ANNOTATION_ARCHIVES = (
    Archive(
        "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
        252_872_794,
        "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    ),
)
IMAGE_ARCHIVES = (
    Archive(
        "http://images.cocodataset.org/zips/train2014.zip",
        13_510_573_713,
        "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
    ),
    Archive(
        "http://images.cocodataset.org/zips/val2014.zip",
        6_645_013_297,
        "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
    ),
)
_WORDS = {"train": "train2014", "test": "val2014"}  # split here -> word in the owners' file names


class Coco2014(Source):
    """80 categories, the boxes and areas (of the masks) of all objects carried.

    Args:
        root: the folder that holds `annotations/instances_{train,val}2014.json`.
        images: the folder that holds `train2014` and `val2014`, or a URL; `root` by default.
    """

    name = "coco2014"

    def __init__(self, root: str | Path, images: str | Path | None = None):
        self.root = os.fspath(root)
        self.images = os.fspath(images) if images is not None else self.root
        self._names: tuple[str, ...] | None = None  # a file of 450 MB tells them, which is read once
        for split, word in _WORDS.items():
            if not self._annotation_file(split).is_file():
                raise UserError(
                    f"{self._annotation_file(split)}: no such file: give the folder that "
                    "annotations_trainval2014.zip was unpacked in with --from, or fetch it with --download; "
                    f"COCO 2017 and other data are read by `{OTHER_DATA} {shlex.quote(self.root)}`"
                )
            if not is_folder(os.path.join(self.images, word)):
                raise UserError(
                    f"{os.path.join(self.images, word)}: no such folder of images: give the folder that "
                    "train2014.zip and val2014.zip were unpacked in with --images, or fetch them with "
                    "--download"
                )

    @staticmethod
    def download(root: str | Path, images: str | Path | None = None, *, progress: bool = True) -> None:
        """Fetches what is missing of the owners' archives and unpacks it, for a source of the same arguments.

        Raises:
            UserError: as `tfrecords.download.download` does.
        """
        if images is not None and is_url(images):
            raise UserError(
                f"--download puts files on a disk, and --images is {images}: leave one of them out"
            )
        if images is None or os.path.abspath(images) == os.path.abspath(root):
            download(ANNOTATION_ARCHIVES + IMAGE_ARCHIVES, root, progress=progress)
        else:
            download(ANNOTATION_ARCHIVES, root, progress=progress)
            download(IMAGE_ARCHIVES, images, progress=progress)

    def splits(self) -> tuple[str, ...]:
        return tuple(_WORDS)

    def annotations(self, split: str) -> Iterator[Annotation | Skip]:
        file = read_coco(self._annotation_file(split), strict=True)
        self._names = file.names
        folder = os.path.join(self.images, _WORDS[split])
        for image in sorted(file.images, key=lambda image: int(image.key)):
            path = join_inside(folder, image.file_name)
            if path is None:
                yield Skip(image.file_name, "path_outside_images", f"climbs out of {folder}")
                continue
            yield Annotation(f"{_WORDS[split]}/{image.file_name}", path, image.labels, boxes=image.boxes)

    def label_names(self) -> tuple[str, ...]:
        if self._names is None:
            self._names = read_coco(self._annotation_file("train"), strict=True).names
        return self._names

    def _annotation_file(self, split: str) -> Path:
        return Path(self.root) / "annotations" / f"instances_{_WORDS[split]}.json"
