"""Reads an instances JSON in COCO's form: strictly, as its owners ship it, or freely, as exported."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tfrecords.annotations import Box
from tfrecords.errors import UserError
from tfrecords.sources.label_cells import tidy_name
from tfrecords.sources.table_files import is_text

OTHER_DATA = "python -m tfrecords build coco --from"
"""The command for files that are not the owners'."""
ANNOTATIONS = "annotations"
_LISTS = ("images", ANNOTATIONS, "categories")
_OTHER_KINDS = (
    # what an annotation holds -> what the file is, and what to give instead
    ("caption", "captions", "instances_*.json, which has the categories"),
    ("segments_info", "panoptic segments", "instances_*.json, which has the same things as objects"),
)
_OTHER_FORMATS = (
    # keys at the top -> whose they are
    (("shapes", "imagePath"), "LabelMe's, one file an image"),
    (("_via_img_metadata",), "the VGG Image Annotator's project"),
    (("database", "taxonomy"), "a list of videos"),
)


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image as the file lists it.

    Attributes:
        key: its id, see `make_key`.
        file_name: as it stands in the file.
        labels: names of the categories of its annotations, each once, sorted.
        ignored: names of which the file does not say whether they hold.
        boxes: those that are whole, in the order of the annotations.
    """

    key: str
    file_name: str
    labels: tuple[str, ...]
    ignored: tuple[str, ...]
    boxes: tuple[Box, ...]


@dataclass
class CocoFile:
    """What one file says.

    Attributes:
        path: of the file.
        names: the names of its labels: all categories, in their order, without those that only group others.
        images: in the order of the file.
        groups: names of categories that are left out, as they have no annotation and others in them.
        merged: names that several categories have, with their ids.
        lost_boxes: why boxes are left out -> how many.
        is_federated: each image names the categories that were looked for, as in LVIS; the rest is unknown.
    """

    path: str
    names: tuple[str, ...] = ()
    images: list[CocoImage] = field(default_factory=list)
    groups: tuple[str, ...] = ()
    merged: dict[str, list[str]] = field(default_factory=dict)
    lost_boxes: Counter[str] = field(default_factory=Counter)
    is_federated: bool = False


def read_coco(path: str | os.PathLike, *, strict: bool = False) -> CocoFile:
    """Reads a file of instances.

    Args:
        path: the JSON.
        strict: refuse what COCO's own files never lack: whole numbers as ids, sizes, boxes, areas. Otherwise
            only what labels need is asked for.

    Raises:
        UserError: it is no such file, or a record lacks what is needed; the message names field and record.
    """
    return _Reader(os.fspath(path), strict).read()


def make_key(value: Any) -> str | None:
    """An id or a reference to one as a text: 1, 1.0, "1" and "1.0" are one; None where it is none.

    >>> make_key(1), make_key(1.0), make_key(" 1 "), make_key("1.0"), make_key("a-7"), make_key(None)
    ('1', '1', '1', '1', 'a-7', None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    text = str(value).strip()
    return text.removesuffix(".0") if text.removesuffix(".0").isdigit() else text or None


class _Fault(Exception):
    """What is wrong with an annotation."""


class _Reader:
    """Reads one file; keeps what its messages need."""

    def __init__(self, path: str, strict: bool):
        self.path = path
        self.strict = strict
        self.advice = "mend it, or export it again"
        if strict:
            root = shlex.quote(os.path.dirname(os.path.dirname(path)) or os.curdir)
            self.advice = f"COCO's own files are whole; data of others are read by `{OTHER_DATA} {root}`"
        self.found = CocoFile(path)

    def read(self) -> CocoFile:
        content = self._load()
        self._check_kind(content)
        categories = self._read_categories(content)
        images = self._read_images(content)
        by_image, used = self._sort_annotations(content, images, categories)
        self._name_labels(content, categories, used)
        unknown = self._find_unknown(images, categories)
        for key, item in images.items():
            objects = by_image.get(key, ())
            boxes = [self._read_box(item, annotation, label) for annotation, label in objects]
            labels = tuple(sorted({label for _, label in objects}))
            ignored = tuple(sorted(unknown[key].difference(labels))) if unknown else ()
            whole = tuple(box for box in boxes if box is not None)
            self.found.images.append(CocoImage(key, self._file_name(item), labels, ignored, whole))
        return self.found

    def fail(self, problem: str) -> UserError:
        return UserError(f"{self.path}: {problem}: {self.advice}")

    # ---- the file

    def _load(self) -> dict[str, list]:
        try:
            with open(self.path, encoding="utf-8-sig") as file:
                content = json.load(file, object_hook=_drop_mask)
        except UnicodeDecodeError as error:
            raise self.fail(f"not COCO's instances ({error.reason}), for it is not UTF-8") from None
        except (ValueError, RecursionError) as error:
            advice = "unpack it again" if self.strict else "export it again"
            raise UserError(f"{self.path}: cut off or damaged ({error}): {advice}") from None
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from None
        if not isinstance(content, dict):
            what = "a list" if isinstance(content, list) else f"{content!r:.20}"
            hint = ""
            if isinstance(content, list) and content and isinstance(content[0], dict):
                if "score" in content[0]:
                    hint = "; these are a detector's results"
                elif ANNOTATIONS in content[0]:
                    hint = "; Label Studio's own JSON: export it as COCO"
            raise UserError(
                f"{self.path}: not COCO's instances: {what}, expected an object with images, annotations and "
                f"categories{hint}"
            )
        return content

    def _check_kind(self, content: Mapping[str, Any]) -> None:
        for keys, whose in _OTHER_FORMATS:
            if all(key in content for key in keys):
                raise UserError(f"{self.path}: not COCO's instances but {whose}: export the data as COCO")
        needed = _LISTS if self.strict else _LISTS[:1]
        for name in _LISTS:
            items = content.get(name)
            if not isinstance(items, list if items is not None or name in needed else type(None)):
                if items is None:
                    raise UserError(
                        f"{self.path}: lists no images or no categories: expected COCO's instances, with "
                        f"images, annotations and categories; its keys are {', '.join(content) or 'none'}"
                    )
                raise self.fail(f"not COCO's instances: {name} is {type(items).__name__}, expected a list")
        annotations = content.get(ANNOTATIONS) or []
        for name in ("images", ANNOTATIONS):
            for number, item in enumerate(content.get(name) or [], start=1):
                if not isinstance(item, dict):
                    raise self.fail(f"not COCO's instances: number {number} of {name} is {item!r:.40}")
        if annotations:
            for key, what, instead in _OTHER_KINDS:
                if key in annotations[0] and (key == "segments_info" or "category_id" not in annotations[0]):
                    raise UserError(f"{self.path}: holds {what} and no labels: give {instead}")
        if self.strict and not (content["images"] and content["categories"]):
            raise UserError(f"{self.path}: lists no images or no categories: expected COCO's instances")
        if not content["images"]:
            raise UserError(f"{self.path}: lists no images: expected COCO's instances")

    # ---- categories

    def _read_categories(self, content: Mapping[str, Any]) -> dict[str, str]:
        """Key -> name."""
        categories: dict[str, str] = {}
        for number, item in enumerate(content.get("categories") or [], start=1):
            if isinstance(item, str) and not self.strict:
                categories[item.strip()] = self._check_name("category", number, "name", item)
                continue
            if not isinstance(item, dict):
                raise self.fail(f"not COCO's instances: number {number} of categories is {item!r:.40}")
            key = self._read_id("category", item, number)
            if "name" not in item:
                raise self.fail(f"the category {item['id']} has no name")
            name = self._check_name("category", item["id"], "name", item["name"])
            if key in categories and categories[key] != name:
                raise self.fail(f"the id {item['id']} is of two categories, {categories[key]!r} and {name!r}")
            categories[key] = name
        return categories

    def _name_labels(self, content: Mapping[str, Any], categories: Mapping[str, str], used: set[str]) -> None:
        """Sets the names of the labels; without categories, those that annotations name."""
        rows = [item for item in content.get("categories") or [] if isinstance(item, dict)]
        groups: set[str] = set()
        if not self.strict:
            above = {tidy_name(str(item.get("supercategory") or "")) for item in rows}
            own = {name for item in rows if (name := tidy_name(str(item["name"]))) not in used}
            selves = {
                tidy_name(str(item["name"]))
                for item in rows
                if tidy_name(str(item.get("supercategory") or "")) == tidy_name(str(item["name"]))
            }
            groups = (own & above) - selves
        names = dict.fromkeys(name for name in categories.values() if name not in groups)
        self.found.names = tuple(names | dict.fromkeys(sorted(used - set(names))))
        self.found.groups = tuple(sorted(groups))
        by_name: dict[str, list[str]] = {}
        for key, name in categories.items():
            by_name.setdefault(name, []).append(key)
        self.found.merged = {name: keys for name, keys in by_name.items() if len(keys) > 1}

    # ---- images

    def _read_images(self, content: Mapping[str, Any]) -> dict[str, dict]:
        images: dict[str, dict] = {}
        of_name: dict[str, str] = {}
        twice: list[tuple[str, str, str]] = []
        for number, item in enumerate(content["images"], start=1):
            key = self._read_id("image", item, number)
            if not self.strict and "file_name" not in item and isinstance(item.get("coco_url"), str):
                item["file_name"] = "/".join(item["coco_url"].split("/")[-2:])  # LVIS
            for name in ("file_name", "width", "height") if self.strict else ("file_name",):
                if name not in item:
                    raise self.fail(f"the image {item['id']} has no {name}")
            file_name = self._file_name(item)
            if not isinstance(file_name, str) or not is_text(file_name) or not file_name.strip():
                expected = "a number and a text" if self.strict else "a text"
                raise UserError(
                    f"{self.path}: the image {item['id']!r} has the file_name {file_name!r}: expected "
                    f"{expected}; {self.advice}"
                )
            if key in images:
                other = self._file_name(images[key])
                raise self.fail(f"the id {item['id']} is of two images, {other!r} and {file_name!r}")
            if file_name in of_name:
                twice.append((file_name, of_name[file_name], key))
            images[key], of_name[file_name] = item, key
        if twice:
            name, one, other = twice[0]
            many = "an image is" if len(twice) == 1 else f"{len(twice):,} images are"
            raise UserError(
                f"{self.path}: {many} listed twice, such as {name!r}, as {one} and {other}: leave one of "
                "each, with all its annotations"
            )
        return images

    @staticmethod
    def _file_name(item: Mapping[str, Any]) -> Any:
        return item["file_name"]

    def _find_unknown(self, images: Mapping[str, dict], categories: Mapping[str, str]) -> dict[str, set[str]]:
        """LVIS: an image's annotators looked for its own categories and those in `neg_category_ids` alone."""
        if self.strict or not any("neg_category_ids" in item for item in images.values()):
            return {}
        self.found.is_federated = True
        every = set(self.found.names)
        return {
            key: every - {categories.get(make_key(each) or "") for each in item.get("neg_category_ids") or ()}
            for key, item in images.items()
        }

    # ---- annotations

    def _sort_annotations(
        self, content: Mapping[str, Any], images: Mapping[str, dict], categories: Mapping[str, str]
    ) -> tuple[dict[str, list[tuple[dict, str]]], set[str]]:
        """Image -> its annotations, each with a label; and the labels that occur."""
        items = list(enumerate(content.get(ANNOTATIONS) or [], start=1))
        if self.strict:
            for _, item in items:
                missing = [key for key in ("id", "image_id", "category_id") if key not in item]
                if missing:
                    raise self.fail(f"not COCO's instances: an annotation has no {missing[0]}")
                if not isinstance(item["id"], int):
                    raise self.fail(f"annotation {item['id']!r} has no number for its id")
            items.sort(key=lambda pair: pair[1]["id"])
        by_image: dict[str, list[tuple[dict, str]]] = {}
        used: set[str] = set()
        faults: list[str] = []
        for number, item in items:
            try:
                image = self._read_image(item, number, images)
                for label in self._read_labels(item, number, categories):
                    by_image.setdefault(image, []).append((item, label))
                    used.add(label)
            except _Fault as fault:
                faults.append(str(fault))
        if faults:
            more = f", and {len(faults) - 1:,} more of {len(items):,} are at fault" if len(faults) > 1 else ""
            raise self.fail(f"{faults[0]}{more}")
        return by_image, used

    def _read_image(self, item: dict, number: int, images: Mapping[str, dict]) -> str:
        if "image_id" not in item:
            raise _Fault(f"{self._tell(item, number)} has no image_id")
        image = make_key(item["image_id"])
        if image not in images:
            raise _Fault(
                f"{self._tell(item, number)} has the image_id {item['image_id']}, which the file does "
                f"not list among its {len(images):,} images"
            )
        return image

    def _read_labels(self, item: dict, number: int, categories: Mapping[str, str]) -> Iterator[str]:
        fields = ("category_id", *(() if self.strict else ("category_ids", "category_name", "category")))
        name = next((each for each in fields if each in item), None)
        if name is None:
            raise _Fault(f"{self._tell(item, number)} has no category_id")
        values = item[name] if isinstance(item[name], list) and not self.strict else [item[name]]
        for value in values:
            key = make_key(value)
            if key in categories:
                yield categories[key]
            elif not self.strict and isinstance(value, str) and self._is_name(value, categories):
                yield tidy_name(value)
            else:
                ids = ", ".join(list(categories)[:8]) + (", ..." if len(categories) > 8 else "")
                raise _Fault(
                    f"{self._tell(item, number)} has the {name} {value}, which the file does not list among "
                    f"its {len(categories):,} categories" + (f" ({ids})" if ids else "")
                )

    @staticmethod
    def _is_name(value: str, categories: Mapping[str, str]) -> bool:
        """Whether a reference is a category's name; any text is where no categories are listed."""
        name = tidy_name(value)
        if not categories:
            return bool(name) and not name.isdigit() and is_text(name)
        return name in categories.values()

    def _read_box(self, image: Mapping[str, Any], item: Mapping[str, Any], label: str) -> Box | None:
        """`bbox` is x, y, width, height in px from 0; rounding lets some reach beyond the image."""
        if not self.strict and not item.get("bbox"):
            return None  # of an image as a whole, or drawn as a mask alone
        try:
            width, height = float(image["width"]), float(image["height"])
        except (KeyError, TypeError, ValueError, OverflowError):
            width = height = 0.0
        try:
            x, y, box_width, box_height = map(float, item["bbox"])
            area = _read_area(item, self.strict)
            if not all(map(math.isfinite, (x, y, box_width, box_height, area or 0))):
                raise ValueError("not finite")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if self.strict:
                raise self.fail(f"annotation {item['id']} has no whole box ({error!r})") from None
            self.found.lost_boxes["not four numbers"] += 1
            return None
        if not (width > 0 and height > 0):
            if self.strict:
                raise self.fail(f"annotation {item['id']} has no whole box (of an image without a size)")
            self.found.lost_boxes["of images whose size the file does not give"] += 1
            return None
        ends = (x, width), (y, height), (x + box_width, width), (y + box_height, height)
        return Box(label, *(min(max(place / side, 0.0), 1.0) for place, side in ends), area)

    # ---- what messages name

    def _read_id(self, kind: str, item: Mapping[str, Any], number: int) -> str:
        key = make_key(item.get("id"))
        if key is None or (self.strict and not isinstance(item["id"], int)):
            if self.strict:
                name = item.get("name" if kind == "category" else "file_name")
                raise UserError(
                    f"{self.path}: the {kind} {item.get('id')!r} has the name {name!r}: expected a number "
                    f"and a text; {self.advice}"
                )
            what = "no id" if "id" not in item else f"the id {item['id']!r}"
            raise self.fail(f"the {kind} number {number} of the list has {what}")
        return key

    def _check_name(self, kind: str, identity: Any, field: str, value: Any) -> str:
        text = value
        if not self.strict and isinstance(value, int | float) and not isinstance(value, bool):
            text = str(value)
        if not isinstance(text, str) or not is_text(text) or not text.strip():
            expected = "a number and a text" if self.strict else "a text"
            raise UserError(
                f"{self.path}: the {kind} {identity!r} has the {field} {value!r}: expected {expected}; "
                f"{self.advice}"
            )
        return text if self.strict else tidy_name(text)

    def _tell(self, item: Mapping[str, Any], number: int) -> str:
        if self.strict:
            return f"annotation {item['id']}"
        return f"annotation {item['id']} (number {number})" if "id" in item else f"annotation number {number}"


def _read_area(item: Mapping[str, Any], strict: bool) -> float | None:
    if strict:
        return float(item["area"])
    try:
        area = float(item["area"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return area if math.isfinite(area) and area >= 0 else None


def _drop_mask(item: dict) -> dict:
    """Masks are most of the file, and nobody here reads them."""
    item.pop("segmentation", None)
    return item
