"""Reads PASCAL VOC's XML and class files: strictly, as the owners ship them, or freely."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from tfrecords.annotations import Box
from tfrecords.errors import UserError, nearest
from tfrecords.sources.label_cells import tidy_name
from tfrecords.sources.table_files import is_text

OTHER_DATA = "python -m tfrecords build voc --from"
"""The command for files that are not the owners'."""
PRESENT, DIFFICULT, ABSENT = "1", "0", "-1"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DECLARED = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([\w.-]+)["']""")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_BARE_AMPERSAND = re.compile(r"&(?!#\d+;|#x[0-9a-fA-F]+;|[A-Za-z]\w*;)")


class Unreadable(Exception):
    """Why an XML file cannot be read."""


@dataclass
class VocFile:
    """What one XML file says of its image.

    Attributes:
        file_name: as it stands in the file, which need not be the image's; "" without one.
        labels: classes of objects that are not marked as difficult, sorted.
        ignored: classes of which the image has difficult objects alone, sorted.
        boxes: of the objects, in their order.
        lost_boxes: why boxes are left out -> how many.
    """

    file_name: str = ""
    labels: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    lost_boxes: Counter[str] = field(default_factory=Counter)


def read_voc(path: str | os.PathLike, classes: Sequence[str] | None = None) -> VocFile:
    """Reads one XML file. Corners are 1-based and inclusive there.

    Args:
        path: the file.
        classes: the only classes that there are: the file is then refused for all that the owners' never
            have. Without them only the objects' names are needed, and boxes that are not whole are left out.

    Raises:
        Unreadable: it is damaged, not XML, or lacks what is needed.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None
    tree = _parse_strictly(data) if classes is not None else _parse_freely(data)
    if tree.tag != "annotation" and classes is None:
        raise Unreadable(f"has <{tree.tag}> where VOC's XML has <annotation>")
    found = VocFile((tree.findtext("filename") or "").strip())
    size = _read_size(tree, is_needed=classes is not None)
    objects: list[tuple[str, bool]] = []
    boxes = []
    for number, item in enumerate(tree.iter("object") if classes is not None else tree.findall("object"), 1):
        label = _read_name(item, number, classes)
        box = (
            _read_box_strictly(item, label, size)
            if classes is not None
            else _read_box(item, label, size, found)
        )
        objects.append((label, _is_difficult(item)))
        boxes += [] if box is None else [box]
    labels = {label for label, is_difficult in objects if not is_difficult}
    found.labels, found.boxes = tuple(sorted(labels)), tuple(boxes)
    found.ignored = tuple(sorted({label for label, _ in objects} - labels))
    return found


def read_class_files(
    folder: str | os.PathLike, word: str, ids: Iterable[str], classes: Sequence[str], advice: str
) -> dict[str, dict[str, str]]:
    """What `<class>_<word>.txt` say: image id -> class -> 1, 0 (difficult objects alone) or -1.

    Args:
        folder: `ImageSets/Main`.
        word: of the owners' for a split, such as trainval.
        ids: the images of the split.
        classes: those of which there are files.
        advice: what to do about a file that is at odds with another.

    Raises:
        UserError: a file is missing, a line is not as it should be, or of another image.
    """
    truth: dict[str, dict[str, str]] = {image_id: {} for image_id in ids}
    for name in classes:
        path = find_set(folder, f"{name}_{word}.txt")
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        ):
            words = line.split()
            if not words:
                continue
            if len(words) != 2 or words[1] not in (PRESENT, DIFFICULT, ABSENT):
                raise UserError(f"{path} line {number}: {line!r}: expected an image's id and 1, 0 or -1")
            if words[0] not in truth:
                raise UserError(
                    f"{path} line {number}: the image {words[0]!r} is not in {word}.txt: {advice}"
                )
            truth[words[0]][name] = words[1]
    for image_id, marks in truth.items():
        if len(marks) != len(classes):
            [missing, *_] = [name for name in classes if name not in marks]
            path = find_set(folder, f"{missing}_{word}.txt")
            raise UserError(f"{path}: has no line for the image {image_id!r}: {advice}")
    return truth


def find_set(folder: str | os.PathLike, file: str) -> Path:
    """A list of images in `ImageSets/Main`. Raises: UserError where there is none."""
    path = Path(folder) / file
    if not path.is_file():
        root = shlex.quote(os.path.dirname(os.path.dirname(os.fspath(folder))) or os.curdir)
        raise UserError(
            f"{path}: no such file: unpack the archives of trainval and of test, with its annotations, "
            f"over each other; data of others are read by `{OTHER_DATA} {root}`"
        )
    return path


# ---- XML


def _parse_strictly(data: bytes) -> ElementTree.Element:
    if b"\0" in data:
        raise Unreadable("not UTF-8")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise Unreadable("declares entities, which may be a bomb and no VOC file does")
    try:
        return _parse(data)
    except (expat.ExpatError, LookupError, ValueError) as error:  # of an encoding there is not, too
        raise Unreadable(f"not XML: {error}") from None


def _parse_freely(data: bytes) -> ElementTree.Element:
    """Mends what programs get wrong: a bare &, and an encoding that is not the one declared."""
    if not data.strip():
        raise Unreadable("empty")
    try:
        return _parse(data)
    except (expat.ExpatError, LookupError, ValueError) as error:
        problem = error
    text, is_sure = _decode(data)
    try:
        tree = _parse(_BARE_AMPERSAND.sub("&amp;", _DECLARATION.sub("", text.lstrip("\ufeff"))))
    except (expat.ExpatError, LookupError, ValueError):
        raise Unreadable(f"not XML: {problem}") from None
    if not is_sure:
        for item in tree.iter("name"):
            if not (item.text or "").isascii():
                raise Unreadable(f"not UTF-8, and no encoding is declared: the class may be {item.text!r}")
    return tree


def _decode(data: bytes) -> tuple[str, bool]:
    """The text, and whether its encoding is sure."""
    declared = _DECLARED.search(data[:200])
    for encoding in ("utf-8-sig", declared[1].decode() if declared else "utf-8"):
        try:
            return data.decode(encoding), True
        except (UnicodeDecodeError, LookupError):
            pass
    return data.decode("latin-1"), False


def _parse(data: bytes | str) -> ElementTree.Element:
    """The tree of an XML that declares no entities: these may expand to gigabytes, or name other files."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = _refuse_entities
    parser.Parse(data, True)
    return builder.close()


def _refuse_entities(*_) -> None:
    raise Unreadable("declares entities, which may be a bomb and no VOC file does")


# ---- objects


def _read_name(item: ElementTree.Element, number: int, classes: Container[str] | None) -> str:
    text = item.findtext("name") or ""
    label = tidy_name(text) if classes is None else text.strip()
    if classes is not None and label not in classes:
        raise Unreadable(f"unknown class {label!r}{nearest(label, classes)}")
    if not label or not is_text(label):
        raise Unreadable(f"object {number} has no <name>")
    return label


def _is_difficult(item: ElementTree.Element) -> bool:
    return (item.findtext("difficult") or "0").strip().lower() in ("1", "true", "yes")


def _read_size(tree: ElementTree.Element, is_needed: bool) -> tuple[float, float] | None:
    """Width and height in px; None where the file does not give them and they are not needed."""
    try:
        width, height = (_read_number(tree, f"size/{side}") for side in ("width", "height"))
    except Unreadable:
        if is_needed:
            raise
        return None
    if width < 1 or height < 1 or not math.isfinite(width * height):
        if is_needed:
            raise Unreadable(f"size {width:g} x {height:g} px")
        return None
    return width, height


def _read_box_strictly(item: ElementTree.Element, label: str, size: tuple[float, float]) -> Box:
    width, height = size
    xmin, ymin, xmax, ymax = (_read_number(item, f"bndbox/{corner}") for corner in _CORNERS)
    # Rounding may put an edge a pixel beyond the image; what lies further out is another image's.
    if not (0 <= xmin <= xmax <= width + 1 and 0 <= ymin <= ymax <= height + 1):
        raise Unreadable(
            f"the box {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g} of {label!r} is not within {width:g} x "
            f"{height:g} px"
        )
    return _make_box(label, (xmin, ymin, xmax, ymax), size)


def _read_box(
    item: ElementTree.Element, label: str, size: tuple[float, float] | None, found: VocFile
) -> Box | None:
    if item.find("bndbox") is None:
        found.lost_boxes["drawn as another shape"] += 1
        return None
    if size is None:
        found.lost_boxes["of images whose size the XML does not give"] += 1
        return None
    try:
        x1, y1, x2, y2 = (_read_number(item, f"bndbox/{corner}") for corner in _CORNERS)
        if not all(map(math.isfinite, (x1, y1, x2, y2))):
            raise Unreadable("not finite")
    except Unreadable:
        found.lost_boxes["without four numbers"] += 1
        return None
    box = _make_box(label, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), size)
    if box.xmin >= box.xmax or box.ymin >= box.ymax:
        found.lost_boxes["outside of their images"] += 1
        return None
    return box


def _make_box(label: str, corners: Sequence[float], size: tuple[float, float]) -> Box:
    (xmin, ymin, xmax, ymax), (width, height) = corners, size
    places = ((xmin - 1) / width, (ymin - 1) / height, xmax / width, ymax / height)
    return Box(label, *(min(max(place, 0.0), 1.0) for place in places))


def _read_number(element: ElementTree.Element, path: str) -> float:
    text = element.findtext(path)
    try:
        return float(text or "")
    except ValueError:
        found = "no value" if text is None else repr(text)
        raise Unreadable(f"{found} in <{path.replace('/', '><')}>") from None


def sort_marks(marks: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes that hold and those that are unknown, of class -> 1, 0 or -1."""
    present = tuple(sorted(name for name, mark in marks.items() if mark == PRESENT))
    return present, tuple(sorted(name for name, mark in marks.items() if mark == DIFFICULT))
