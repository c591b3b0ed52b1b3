"""Reads a user's own data in PASCAL VOC's form: VOC 2012, LabelImg's, Roboflow's or CVAT's XML, any classes.

    python -m tfrecords build voc --from VOCdevkit/VOC2012
    python -m tfrecords build voc --from photos --name mine

Classes are the names of the objects. Splits are those of `ImageSets/Main`, of lists `train.txt`, `val.txt`
and `test.txt`, or of folders called so; without any, all images are for training, a tenth of them held out.
"""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence

from tfrecords.annotations import Annotation, Skip
from tfrecords.manifest import MISSING, SPLITS
from tfrecords.sources.archives import split_archive
from tfrecords.sources.exported_images import AmbiguousName, ExportedImages, ExportSource, FoundFile
from tfrecords.sources.nearest_image import explain_missing
from tfrecords.sources.split_files import parse_split_files
from tfrecords.sources.voc_files import Unreadable, VocFile, read_voc
from tfrecords.sources.voc_layout import ANNOTATIONS, VocLayout, find_layout, stem_of
from tfrecords.urls import is_url
from tfrecords.words import count

_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "image", "imgs", "img", "data")


class VocSource(ExportSource):
    """The images of one or more folders of XML files, or of class files alone.

    An object marked as difficult does not count: a class of which an image has difficult objects alone is
    unknown there. Boxes are carried where they are whole. An image's id is its path below the folder.

    Args:
        folders: the folder of XML and images; `train=A,test=B` for one a split.
        images: the folder or archive of the images; by default the same.

    Raises:
        UserError: a folder is missing, has no XML, or it is not clear which is meant.
    """

    name = "voc"

    def __init__(
        self,
        folders: str | os.PathLike | Sequence[str | os.PathLike],
        images: Sequence[str | os.PathLike] = (),
    ):
        folders = [folders] if isinstance(folders, str | os.PathLike) else list(folders)
        images = [images] if isinstance(images, str | os.PathLike) else list(images)
        self.folders = parse_split_files(folders)
        self.image_folders = parse_split_files(images, "--images")
        layouts = [find_layout(folder) for folder in self.folders]
        found = set().union(*(layout.splits for layout in layouts))
        self.moves_validation = (
            "validation" in found and "test" not in found and all(each.split is None for each in self.folders)
        )
        self._splits = {"test" if self.moves_validation and s == "validation" else s for s in found}
        for layout in layouts:
            self._open_images(layout)
        self._names: dict[str, None] | None = None
        self._notes: list[str] = []

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split in self._splits)

    def annotations(self, split: str) -> Iterator[Annotation | Skip]:
        return (item for its_split, item in self.items() if its_split == split)

    def items(self) -> Iterator[tuple[str, Annotation | Skip]]:
        self._names, self._notes = {}, []
        if self.moves_validation:
            self._notes.append(
                "there is no test split: the validation split is the one that is measured, and a tenth of "
                "train is held out in its place"
            )
        lost: Counter[str] = Counter()
        for folder in self.folders:
            layout = find_layout(folder)
            prefix = os.path.basename(os.path.abspath(layout.root)) if len(self.folders) > 1 else ""
            images = self._open_images(layout)
            for split, item in self._read(layout, images, prefix, lost):
                yield "test" if self.moves_validation and split == "validation" else split, item
            if layout.unlisted:
                lists = ", ".join(map(os.path.basename, layout.lists))
                many = count("XML file", len(layout.unlisted))
                self._notes.append(
                    f"{many} in no list of a split ({lists}): left out, such as {layout.unlisted[0]}"
                )
        if lost:
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in lost.items())
            self._notes.append(
                f"boxes of {count('object', lost.total())} are left out, their labels kept: {reasons}"
            )

    def label_names(self) -> tuple[str, ...]:
        if self._names is None:
            for _ in self.items():
                pass
        return tuple(sorted(self._names or ()))

    def notes(self) -> list[str]:
        return self._notes

    def has_archives(self) -> bool:
        return any(
            not is_url(folder.path) and split_archive(folder.path) is not None
            for folder in self.image_folders
        )

    def explain_skip(self, skip: Skip) -> str:
        if skip.reason != MISSING:
            return ""
        for folder in (*self.image_folders, *self.folders):
            if not is_url(folder.path) and skip.detail.startswith(os.path.join(folder.path, "")):
                images = ExportedImages(folder.path)
                name = os.path.relpath(skip.detail, images.path)
                found = explain_missing(name, [images.folder], pattern="{image}").split(", and --image")[0]
                if found and ".xml is there" not in found.lower():
                    return found
                return f"; no image of this name is below {folder.path}: give their folder with --images"
        return ""

    def arguments(self) -> dict:
        names = [(each.split, os.path.basename(os.path.abspath(each.path))) for each in self.folders]
        return {"from": [f"{split}={name}" if split else name for split, name in names]}

    def _open_images(self, layout: VocLayout) -> ExportedImages:
        folders = [folder for folder in self.image_folders if folder.split in (None, *layout.splits)]
        return ExportedImages(folders[0].path if folders else layout.root)

    def _read(
        self, layout: VocLayout, images: ExportedImages, prefix: str, lost: Counter[str]
    ) -> Iterator[tuple[str, Annotation | Skip]]:
        used: set[str] = set()
        for split, name in layout.files:
            path = os.path.join(layout.root, name)
            try:
                file = read_voc(path)
                found = _find_image(name, file, images)
            except Unreadable as error:
                yield split, Skip(stem_of(name), "bad_annotation", f"{path}: {error}")
                continue
            except AmbiguousName as error:
                yield split, Skip(stem_of(name), "ambiguous_image", f"{path}: {error}")
                continue
            used.add(found.name)
            lost.update(file.lost_boxes)
            self._names |= dict.fromkeys((*file.labels, *file.ignored))
            image_id = posixpath.join(prefix, found.name)
            yield split, Annotation(image_id, found.path, file.labels, file.ignored, file.boxes)
        for split, marks in layout.marks.items():
            for image_id, (labels, ignored) in marks.items():
                self._names |= dict.fromkeys((*labels, *ignored))
                found = _find_image(f"{image_id}.xml", VocFile(), images)
                yield split, Annotation(posixpath.join(prefix, found.name), found.path, labels, ignored)
        for split, image_id in layout.absent:
            yield split, Skip(image_id, "missing_annotation", f"{layout.root}: has no XML of {image_id}")
        if layout.files and not layout.lists:
            folders = {posixpath.dirname(name) for name in used}
            for name in sorted(images.names):
                if name not in used and posixpath.dirname(name) in folders:
                    split = layout.files[0][0] if len(layout.splits) == 1 else _split_like(name, layout)
                    yield split, Skip(name, "no_annotation", f"{os.path.join(images.path, name)}: has no XML")


def _split_like(name: str, layout: VocLayout) -> str:
    """The split of the XML files beside an image."""
    folder = posixpath.dirname(name)
    return next((split for split, xml in layout.files if posixpath.dirname(xml) == folder), "train")


def _find_image(name: str, file: VocFile, images: ExportedImages) -> FoundFile:
    """The image of an XML: of its own name, in its folder or one beside it; else of the name in it."""
    parts = name.split("/")[:-1]
    stem = posixpath.basename(name)[: -len(".xml")]
    plain = [part for part in parts if part not in ANNOTATIONS]
    folders = ["/".join(parts), "/".join(plain)]
    for number, part in enumerate(parts):
        if part in ANNOTATIONS:
            folders += ["/".join([*parts[:number], other, *parts[number + 1 :]]) for other in _IMAGE_FOLDERS]
    folders += ["/".join([*plain, other]) for other in _IMAGE_FOLDERS]
    folders += ["/".join([other, *plain]) for other in _IMAGE_FOLDERS]
    found = images.find_stem(stem, list(dict.fromkeys(folders)))
    if found is None:
        found = images.find_anywhere(stem)
    if found is None and file.file_name:
        found = images.find(file.file_name)
    if found is not None:
        return found
    folder = "JPEGImages" if "JPEGImages" in images.top else folders[1]
    wanted = posixpath.join(folder, f"{stem}.jpg")
    return FoundFile(wanted, os.path.join(images.path, wanted))
