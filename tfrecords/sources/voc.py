"""Reads PASCAL VOC 2007 as its owners ship it: XML annotations and class files that say the same.

    python -m tfrecords build voc2007 --from VOCdevkit --download

The archives of trainval and test unpack over each other, into `VOCdevkit/VOC2007`. An object marked
*difficult* does not count: a class of which an image has difficult objects alone is unknown there, as the
class files have it (0 in `<class>_<split>.txt`). Everingham et al., The PASCAL VOC Challenge 2007.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from tfrecords.annotations import Annotation, Skip
from tfrecords.download import Archive, download
from tfrecords.errors import UserError
from tfrecords.sources.base import Source
from tfrecords.sources.table_files import is_text
from tfrecords.sources.voc_files import (
    ABSENT,
    DIFFICULT,
    OTHER_DATA,
    PRESENT,
    Unreadable,
    find_set,
    read_class_files,
    read_voc,
)

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
ARCHIVES = (
    Archive(
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
        460_032_000,
        "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
        top="VOCdevkit",
    ),
    Archive(
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
        451_020_800,
        "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
        top="VOCdevkit",
    ),
)
_WORDS = {"train": "trainval", "test": "test"}  # split here -> word in the owners' file names


class Voc2007(Source):
    """Trainval for training and test for testing, boxes included.

    The class files and the XML say the same thing twice; where they do not, the build stops and says where.

    Args:
        root: `VOCdevkit`, or the folder `VOC2007` in it.
    """

    name = "voc2007"

    def __init__(self, root: str | Path):
        root = Path(root)
        inner = root / "VOC2007"
        self.root = os.fspath(inner if inner.is_dir() else root)
        if not (Path(self.root) / "ImageSets" / "Main").is_dir():
            raise UserError(
                f"{root}: no VOC2007/ImageSets/Main in it: give the VOCdevkit that the archives "
                "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar unpack to with --from, or fetch "
                "them with --download; VOC 2012 and data of your own are read by "
                f"`{OTHER_DATA} {shlex.quote(os.fspath(root))}`"
            )

    @staticmethod
    def download(root: str | Path, *, progress: bool = True) -> None:
        """Fetches what is missing of the owners' archives and unpacks it, for a source of the same `root`.

        Raises:
            UserError: as `tfrecords.download.download` does.
        """
        root = Path(root)
        is_inner = os.path.basename(os.path.abspath(root)) == "VOC2007"
        download(ARCHIVES, Path(os.path.abspath(root)).parent if is_inner else root, progress=progress)

    def splits(self) -> tuple[str, ...]:
        return tuple(_WORDS)

    def annotations(self, split: str) -> Iterator[Annotation | Skip]:
        sets, word = Path(self.root) / "ImageSets" / "Main", _WORDS[split]
        truth = read_class_files(sets, word, self._read_ids(split), CLASSES, "unpack the archives again")
        for image_id, marks in truth.items():
            path = Path(self.root) / "Annotations" / f"{image_id}.xml"
            try:
                found = read_voc(path, CLASSES)
            except Unreadable as error:
                yield Skip(image_id, "bad_annotation", f"{path}: {error}")
                continue
            self._check_agreement(split, image_id, marks, found.labels, found.ignored)
            yield Annotation(
                image_id,
                os.path.join(self.root, "JPEGImages", f"{image_id}.jpg"),
                found.labels,
                found.ignored,
                found.boxes,
            )

    def explain_skip(self, skip: Skip) -> str:
        if skip.reason != "bad_annotation":
            return ""
        return f"; classes and XML of others are read by `{OTHER_DATA} {shlex.quote(self.root)}`"

    def label_names(self) -> tuple[str, ...]:
        return CLASSES

    def _read_ids(self, split: str) -> list[str]:
        path = find_set(Path(self.root) / "ImageSets" / "Main", f"{_WORDS[split]}.txt")
        ids = path.read_text(encoding="utf-8", errors="replace").split()
        for image_id in ids:
            if os.path.basename(image_id) != image_id or image_id.startswith(".") or not is_text(image_id):
                raise UserError(f"{path}: {image_id!r} is no image's id, such as 000005")
        return ids

    def _check_agreement(self, split, image_id, marks, labels, ignored) -> None:
        for name in CLASSES:
            by_xml = PRESENT if name in labels else DIFFICULT if name in ignored else ABSENT
            if marks[name] != by_xml:
                raise UserError(
                    f"{name}_{_WORDS[split]}.txt says {marks[name]} of the image {image_id!r}, its XML "
                    f"{by_xml} (1 there, 0 difficult alone, -1 absent): unpack the archives again; of data "
                    f"of others the XML alone is read by `{OTHER_DATA} {shlex.quote(self.root)}`"
                )
