"""PASCAL VOC 2007 as its owners ship it enters: XML annotations and class files; annotations leave.

    python -m tfrecords build voc2007 --from VOCdevkit --download

The archives of trainval and test unpack over each other, into `VOCdevkit/VOC2007`. An object marked
*difficult* does not count: a class of which an image has difficult objects alone is unknown there, as the
class files have it (0 in `<class>_<split>.txt`). Everingham et al., The PASCAL VOC Challenge 2007.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tfrecords.annotations import Annotation, Box, Skip
from tfrecords.download import Archive, download
from tfrecords.errors import UserError, nearest
from tfrecords.sources.base import Source
from tfrecords.sources.table_files import is_text

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
_PRESENT, _DIFFICULT, _ABSENT = "1", "0", "-1"


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
                "them with --download"
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
        truth = self._read_class_files(split)
        for image_id, marks in truth.items():
            path = Path(self.root) / "Annotations" / f"{image_id}.xml"
            try:
                boxes, difficult = _read_objects(path)
            except _Unreadable as error:
                yield Skip(image_id, "bad_annotation", f"{path}: {error}")
                continue
            labels = {
                box.label for box, is_difficult in zip(boxes, difficult, strict=True) if not is_difficult
            }
            ignored = {box.label for box in boxes} - labels
            self._check_agreement(split, image_id, marks, labels, ignored)
            yield Annotation(
                image_id,
                os.path.join(self.root, "JPEGImages", f"{image_id}.jpg"),
                tuple(sorted(labels)),
                tuple(sorted(ignored)),
                tuple(boxes),
            )

    def label_names(self) -> tuple[str, ...]:
        return CLASSES

    def _read_class_files(self, split: str) -> dict[str, dict[str, str]]:
        """image id -> class -> 1, 0 (difficult objects alone) or -1."""
        truth: dict[str, dict[str, str]] = {image_id: {} for image_id in self._read_ids(split)}
        for name in CLASSES:
            path = self._find(f"{name}_{_WORDS[split]}.txt")
            for number, line in enumerate(
                path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
            ):
                words = line.split()
                if not words:
                    continue
                if len(words) != 2 or words[1] not in (_PRESENT, _DIFFICULT, _ABSENT):
                    raise UserError(f"{path} line {number}: {line!r}: expected an image's id and 1, 0 or -1")
                if words[0] not in truth:
                    raise UserError(
                        f"{path} line {number}: the image {words[0]!r} is not in {_WORDS[split]}.txt: "
                        "unpack the archives again"
                    )
                truth[words[0]][name] = words[1]
        for image_id, marks in truth.items():
            if len(marks) != len(CLASSES):
                [missing, *_] = [name for name in CLASSES if name not in marks]
                raise UserError(
                    f"{self._find(f'{missing}_{_WORDS[split]}.txt')}: has no line for the image "
                    f"{image_id!r}: unpack the archives again"
                )
        return truth

    def _read_ids(self, split: str) -> list[str]:
        path = self._find(f"{_WORDS[split]}.txt")
        ids = path.read_text(encoding="utf-8", errors="replace").split()
        for image_id in ids:
            if os.path.basename(image_id) != image_id or image_id.startswith(".") or not is_text(image_id):
                raise UserError(f"{path}: {image_id!r} is no image's id, such as 000005")
        return ids

    def _find(self, file: str) -> Path:
        path = Path(self.root) / "ImageSets" / "Main" / file
        if not path.is_file():
            raise UserError(
                f"{path}: no such file: unpack the archives of trainval and of test, with its annotations, "
                "over each other"
            )
        return path

    def _check_agreement(self, split, image_id, marks, labels, ignored) -> None:
        for name in CLASSES:
            by_xml = _PRESENT if name in labels else _DIFFICULT if name in ignored else _ABSENT
            if marks[name] != by_xml:
                raise UserError(
                    f"{name}_{_WORDS[split]}.txt says {marks[name]} of the image {image_id!r}, its XML "
                    f"{by_xml} (1 there, 0 difficult alone, -1 absent): unpack the archives again"
                )


class _Unreadable(Exception):
    """Why an XML file cannot be read."""


def _read_objects(path: Path) -> tuple[list[Box], list[bool]]:
    """The boxes of one XML file and which of them are difficult. Corners are 1-based and inclusive there."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise _Unreadable(error.strerror or str(error)) from None
    if b"\0" in text:
        raise _Unreadable("not UTF-8")
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise _Unreadable("declares entities, which may be a bomb and no VOC file does")
    try:
        tree = ElementTree.fromstring(text)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # of an encoding there is not, too
        raise _Unreadable(f"not XML: {error}") from None
    width, height = (_read_number(tree, f"size/{side}") for side in ("width", "height"))
    if width < 1 or height < 1:
        raise _Unreadable(f"size {width:g} x {height:g} px")
    boxes, difficult = [], []
    for item in tree.iter("object"):
        label = (item.findtext("name") or "").strip()
        if label not in CLASSES:
            raise _Unreadable(f"unknown class {label!r}{nearest(label, CLASSES)}")
        xmin, ymin, xmax, ymax = (
            _read_number(item, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")
        )
        # Rounding may put an edge a pixel beyond the image; what lies further out is another image's.
        if not (0 <= xmin <= xmax <= width + 1 and 0 <= ymin <= ymax <= height + 1):
            raise _Unreadable(
                f"the box {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g} of {label!r} is not within {width:g} x "
                f"{height:g} px"
            )
        boxes.append(
            Box(
                label,
                max(xmin - 1, 0) / width,
                max(ymin - 1, 0) / height,
                min(xmax / width, 1),
                min(ymax / height, 1),
            )
        )
        difficult.append((item.findtext("difficult") or "0").strip() == "1")
    return boxes, difficult


def _read_number(element, path: str) -> float:
    text = element.findtext(path)
    try:
        number = float(text or "")
    except ValueError:
        found = "no value" if text is None else repr(text)
        raise _Unreadable(f"{found} in <{path.replace('/', '><')}>") from None
    return number
