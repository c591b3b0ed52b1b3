"""Finds the XML files of a data set in VOC's form, and their splits: by lists, by folders, or none."""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tfrecords.errors import UserError
from tfrecords.sources.exported_images import explain_folder
from tfrecords.sources.split_files import SPLIT_OF_WORD, SplitFile
from tfrecords.sources.table_files import is_text
from tfrecords.sources.voc_files import DIFFICULT, PRESENT, read_class_files, sort_marks

ANNOTATIONS = ("Annotations", "annotations", "Annotation", "annotation", "xmls", "xml", "labels")
_LIST_FOLDERS = ("ImageSets/Main", "ImageSets", ".")
_LISTS = ("train", "val", "valid", "validation", "test", "trainval")


@dataclass
class VocLayout:
    """What lies in a folder.

    Attributes:
        root: the folder, or the VOC2012 in it.
        files: the XML files as seen from it, with `/`, each with its split.
        marks: without XML: what class files say of each image, split -> image id -> labels and unknown ones.
        unlisted: XML files that are in no list of a split.
        absent: ids in the lists that have no XML, with their splits.
        lists: the files that name the splits.
    """

    root: str
    files: list[tuple[str, str]] = field(default_factory=list)
    marks: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)
    absent: list[tuple[str, str]] = field(default_factory=list)
    lists: tuple[str, ...] = ()

    @property
    def splits(self) -> set[str]:
        return {split for split, _ in self.files} | set(self.marks)


def find_layout(given: SplitFile) -> VocLayout:
    """The XML files below a folder, of the split given or of those that lists or folders name.

    Raises:
        UserError: there is no such folder, it has neither XML nor class files, or several data sets.
    """
    root = _find_root(given.path)
    layout = VocLayout(root)
    xml = sorted(_walk_xml(root))
    lists = {} if given.split else _read_lists(root)
    if not xml:
        if not lists:
            hint = explain_folder(given.path, "voc") or ": give the folder of VOC's XML files with --from"
            raise UserError(f"{given.path}: no XML in it{hint}")
        _read_marks(layout, lists)
        return layout
    if lists:
        _sort_by_lists(layout, xml, lists)
        return layout
    if given.split:
        layout.files = [(given.split, name) for name in xml]
        return layout
    splits = [_split_of_folders(name) for name in xml]
    if any(splits) and not all(splits):
        stray, other = xml[splits.index(None)], next(name for name in xml if _split_of_folders(name))
        raise UserError(
            f"{os.path.join(root, stray)}: is in no folder of a split, as {other} is: move it, or name the "
            "folders that are meant, --from train=A,test=B"
        )
    layout.files = [(split or "train", name) for split, name in zip(splits, xml, strict=True)]
    return layout


def stem_of(name: str) -> str:
    """An XML's path without its suffix and its folder of annotations: what its image is called.

    >>> stem_of("Annotations/000005.xml"), stem_of("train/a.b.xml")
    ('000005', 'train/a.b')
    """
    stem = name[: -len(".xml")]
    parts = [part for part in stem.split("/")[:-1] if part not in ANNOTATIONS]
    return "/".join([*parts, posixpath.basename(stem)])


def _find_root(path: str) -> str:
    """The folder itself, or the only one in it, or in its VOCdevkit, that is laid out as VOC2012 is."""
    if not os.path.isdir(path):
        hint = explain_folder(path, "voc")
        problem = "is a file" if os.path.isfile(path) else "no such folder"
        raise UserError(
            f"{path}: {problem}{hint or ': give the folder that holds the XML files with --from'}"
        )
    if os.path.isdir(os.path.join(path, ANNOTATIONS[0])):
        return path
    inner = sorted(
        os.path.dirname(each)
        for depth in ("*", "*/*")
        for each in glob.glob(os.path.join(glob.escape(path), depth, ANNOTATIONS[0]))
        if os.path.isdir(os.path.join(os.path.dirname(each), "ImageSets"))
        or os.path.basename(os.path.dirname(each)).upper().startswith("VOC")
    )
    if len(inner) > 1:
        names = " and ".join(os.path.relpath(each, path) for each in inner)
        raise UserError(f"{path}: {names} are in it: give one, --from {inner[0]}")
    return inner[0] if inner else path


def _walk_xml(root: str) -> Iterator[str]:
    for parent, folders, names in os.walk(root, followlinks=True):
        folders[:] = [each for each in folders if not each.startswith(".")]
        relative = os.path.relpath(parent, root).replace(os.sep, "/")
        for name in names:
            if name.lower().endswith(".xml") and not name.startswith("."):
                yield name if relative == os.curdir else f"{relative}/{name}"


def _split_of_folders(name: str) -> str | None:
    for part in reversed(name.split("/")[:-1]):
        if part.lower() in SPLIT_OF_WORD:
            return SPLIT_OF_WORD[part.lower()]
    return None


# ---- lists of images


def _read_lists(root: str) -> dict[str, Path]:
    """Split -> the list of its images; empty where there is none of training images."""
    for folder in _LIST_FOLDERS:
        found = {word: Path(root, folder, f"{word}.txt") for word in _LISTS}
        found = {word: path for word, path in found.items() if path.is_file()}
        words = {SPLIT_OF_WORD.get(word, "trainval"): word for word in found}
        if "train" in words and "validation" in words:
            words.pop("trainval", None)
        elif "trainval" in words:  # the lists of what is in it are not all there
            words = {"train": words["trainval"], **{key: words[key] for key in ("test",) if key in words}}
        if "train" in words:
            return {split: found[word] for split, word in words.items()}
    return {}


def _read_ids(path: Path) -> list[str]:
    """The image ids of a list: the first word of each line, or all of it where that is a path with blanks."""
    ids = []
    for number, line in enumerate(
        path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1
    ):
        words = line.split()
        if len(words) == 2 and words[1].lstrip("-").isdigit():
            line = words[0]  # 000005 1, as in a class file
        name = line.strip().replace("\\", "/")
        if not name or (len(words) == 2 and words[1] == "-1"):
            continue
        if not is_text(name):
            raise UserError(f"{path} line {number}: {name!r} is no image's name")
        ids.append(name)
    return list(dict.fromkeys(ids))


def _sort_by_lists(layout: VocLayout, xml: Sequence[str], lists: Mapping[str, Path]) -> None:
    by_stem: dict[str, str] = {}
    for name in xml:
        by_stem[stem_of(name)] = name
        by_stem.setdefault(posixpath.basename(stem_of(name)), name)
    listed: set[str] = set()
    for split, path in lists.items():
        for image_id in _read_ids(path):
            last = posixpath.basename(image_id)
            ways = (image_id, posixpath.splitext(image_id)[0], last, posixpath.splitext(last)[0])
            name = next((by_stem[way] for way in ways if way in by_stem), None)
            if name is None:
                layout.absent.append((split, image_id))
            else:
                layout.files.append((split, name))
                listed.add(name)
    layout.unlisted = [name for name in xml if name not in listed]
    layout.lists = tuple(str(path) for path in lists.values())
    if not layout.files:
        raise UserError(
            f"{layout.lists[0]}: none of its images has an XML below {layout.root}: expected names such as "
            f"{posixpath.basename(stem_of(xml[0]))}"
        )


def _read_marks(layout: VocLayout, lists: Mapping[str, Path]) -> None:
    for split, path in lists.items():
        classes = sorted(
            each.name.removesuffix(f"_{path.name}")
            for each in path.parent.glob(f"*_{path.name}")
            if each.name != path.name
        )
        if not classes:
            raise UserError(
                f"{layout.root}: neither XML files nor class files such as {path.parent}/sky_{path.name}: "
                "give the folder that has them with --from"
            )
        ids = [posixpath.splitext(posixpath.basename(image_id))[0] for image_id in _read_ids(path)]
        truth = read_class_files(path.parent, path.stem, ids, classes, "mend one of the two")
        layout.marks[split] = {image_id: sort_marks(marks) for image_id, marks in truth.items()}
    layout.lists = tuple(str(path) for path in lists.values())
    if not any(labels or unknown for marks in layout.marks.values() for labels, unknown in marks.values()):
        raise UserError(f"{layout.root}: no class file has a {PRESENT} or a {DIFFICULT} in it")
