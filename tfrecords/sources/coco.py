"""MS-COCO 2014 as its owners ship it enters: instances and two folders of images; annotations leave.

    python -m tfrecords build coco2014 --from COCO --download

train2014 is for training and val2014 for testing, as in the paper. An image has a label if one of its
objects, a crowd included, is of that category. Lin et al., Microsoft COCO, ECCV 2014.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

from tfrecords.annotations import Annotation, Box, Skip
from tfrecords.download import Archive, download
from tfrecords.errors import UserError
from tfrecords.sources.base import Source, is_folder, join_inside
from tfrecords.sources.table_files import is_text
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
                    "annotations_trainval2014.zip was unpacked in with --from, or fetch it with --download"
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
        path = self._annotation_file(split)
        coco = _load(path)
        names = {category["id"]: category["name"] for category in coco.cats.values()}
        self._names = tuple(names.values())
        for item in coco.anns.values():
            for key, known in (("image_id", coco.imgs), ("category_id", names)):
                if item[key] not in known:
                    raise UserError(
                        f"{path}: annotation {item['id']} has the {key} {item[key]}, which the file does not "
                        "list: unpack it again"
                    )
        folder = os.path.join(self.images, _WORDS[split])
        for image_id in sorted(coco.imgs):
            image = coco.imgs[image_id]
            image_path = join_inside(folder, image["file_name"])
            if image_path is None:
                yield Skip(image["file_name"], "path_outside_images", f"climbs out of {folder}")
                continue
            objects = sorted(coco.imgToAnns.get(image_id, ()), key=lambda item: item["id"])
            boxes = tuple(_make_box(item, names[item["category_id"]], image, path) for item in objects)
            labels = tuple(sorted({box.label for box in boxes}))
            yield Annotation(f"{_WORDS[split]}/{image['file_name']}", image_path, labels, boxes=boxes)

    def label_names(self) -> tuple[str, ...]:
        if self._names is None:
            categories = _load(self._annotation_file("train")).cats.values()
            self._names = tuple(category["name"] for category in categories)
        return self._names

    def _annotation_file(self, split: str) -> Path:
        return Path(self.root) / "annotations" / f"instances_{_WORDS[split]}.json"


def _load(path: Path):
    """The file as pycocotools indexes it, without its masks: they are most of it, and nobody here reads them.

    Raises:
        UserError: it is cut off, or not such a file.
    """
    from pycocotools.coco import COCO

    coco = COCO()
    try:
        with open(path, encoding="utf-8") as file, contextlib.redirect_stdout(io.StringIO()):
            coco.dataset = json.load(file, object_hook=_drop_mask)
            if not isinstance(coco.dataset, dict):
                raise TypeError("no JSON object")
            coco.createIndex()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not COCO's instances ({error!r}): unpack it again") from None
    except ValueError as error:
        raise UserError(f"{path}: cut off or damaged ({error}): unpack it again") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not COCO's instances ({error!r}): unpack it again") from None
    for kind, items, name, keys in (
        ("image", coco.imgs, "file_name", ("file_name", "width", "height")),
        ("category", coco.cats, "name", ("name",)),
    ):
        for number, item in items.items():
            missing = [key for key in keys if key not in item]
            if missing:
                raise UserError(f"{path}: the {kind} {number} has no {missing[0]}: unpack it again")
            if not (isinstance(number, int) and isinstance(item[name], str) and is_text(item[name])):
                raise UserError(
                    f"{path}: the {kind} {number!r} has the {name} {item[name]!r}: expected a number and a "
                    "text; unpack it again"
                )
    if not (coco.imgs and coco.cats):
        raise UserError(f"{path}: lists no images or no categories: expected COCO's instances")
    return coco


def _drop_mask(item: dict) -> dict:
    item.pop("segmentation", None)
    return item


def _make_box(item: dict, label: str, image: dict, path: Path) -> Box:
    """`bbox` is x, y, width, height in px from 0; rounding lets some reach beyond the image by a fraction."""
    try:
        x, y, width, height = item["bbox"]
        corners = x / image["width"], y / image["height"]
        ends = (x + width) / image["width"], (y + height) / image["height"]
        area = float(item["area"])
        if not all(map(math.isfinite, (*corners, *ends, area))):
            raise ValueError("not finite")
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise UserError(
            f"{path}: annotation {item['id']} has no whole box ({error!r}): unpack it again"
        ) from None
    return Box(label, *(min(max(float(each), 0.0), 1.0) for each in (*corners, *ends)), area)
