"""Finds the images that an export names: by the end of their names, whatever folders or URLs stand before."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple
from urllib.parse import unquote

from tfrecords.annotations import Skip
from tfrecords.sources.archives import open_archive, split_archive
from tfrecords.sources.base import Source, find_inside, stamp_file
from tfrecords.sources.image_files import ImageFolder
from tfrecords.urls import is_url

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".heic")
    + (".heif", ".avif", ".jp2")
)
_PACKED = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


class FoundFile(NamedTuple):
    """A file: its name as seen from the folder it was looked for in, with `/`, and its path on the disk."""

    name: str
    path: str


class AmbiguousName(Exception):
    """Several files answer to a name, and none better than the others."""


class ExportedImages:
    """The images below a folder, an archive or a URL, found by names that were written elsewhere.

    Args:
        path: the folder.
        near: words of folders that go before others where several files have one name: the JSON's own.
    """

    def __init__(self, path: str, near: Sequence[str] = ()):
        self.folder = ImageFolder(path)
        self.near = [word for word in near if word]
        self.other_names: dict[str, str] = {}
        """Names under which files were found that are called otherwise -> the files' names."""

    @property
    def path(self) -> str:
        return self.folder.path

    def find(self, name: str) -> FoundFile | None:
        """The file that an export calls `name`; None where there is none.

        Raises:
            AmbiguousName: several are called so.
        """
        if is_url(self.path):
            inside = find_inside(self.path, name.replace("\\", "/"))
            return None if inside is None else FoundFile(inside, f"{self.path.rstrip('/')}/{inside}")
        for wanted in spell_name(name):
            found = self._choose(wanted, self._by_name.get(posixpath.basename(wanted), ()))
            if found is None:
                found = self._choose(wanted, self._by_folded_name.get(_fold(posixpath.basename(wanted)), ()))
            if found is not None:
                if not f"/{found}".endswith(f"/{name}"):
                    self.other_names[name] = found
                return FoundFile(found, os.path.join(self.path, found))
        return None

    def find_stem(self, name: str, folders: Sequence[str] = ()) -> FoundFile | None:
        """The image of this name without its suffix, in the first of `folders` that has one.

        Raises:
            AmbiguousName: a folder has several.
        """
        for folder in folders:
            found = self._by_stem.get(posixpath.join(folder, name), ())
            if len(found) > 1:
                raise AmbiguousName(f"both {found[0]} and {found[1]} are there: remove one")
            if found:
                return FoundFile(found[0], os.path.join(self.path, found[0]))
        return None

    def find_anywhere(self, stem: str) -> FoundFile | None:
        """The only image of this name without its folder and suffix.

        Raises:
            AmbiguousName: there are several.
        """
        found = self._by_last_stem.get(stem, ())
        if len(found) > 1:
            raise AmbiguousName(
                f"both {found[0]} and {found[1]} may be its image: name a folder with --images"
            )
        return FoundFile(found[0], os.path.join(self.path, found[0])) if found else None

    @property
    def top(self) -> set[str]:
        """The folders in the folder itself."""
        return {name.partition("/")[0] for name in self.folder.folders}

    @property
    def names(self) -> Iterator[str]:
        """All images."""
        return (name for names in self._by_name.values() for name in names)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for folder, names in self.folder.folders.items():
            if any(part.startswith(".") for part in folder.split("/")):
                continue  # of a build that goes on, or of another program
            for name in names:
                if posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                    found.setdefault(name, []).append(posixpath.join(folder, name))
        return found

    @cached_property
    def _by_folded_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, paths in self._by_name.items():
            found.setdefault(_fold(name), []).extend(paths)
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for paths in self._by_name.values():
            for path in paths:
                found.setdefault(posixpath.splitext(path)[0], []).append(path)
        return {stem: sorted(paths) for stem, paths in found.items()}

    @cached_property
    def _by_last_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for stem, paths in self._by_stem.items():
            found.setdefault(posixpath.basename(stem), []).extend(paths)
        return found

    def _choose(self, wanted: str, candidates: Sequence[str]) -> str | None:
        if len(candidates) < 2:
            return next(iter(candidates), None)
        ranked = sorted(candidates, key=lambda each: (self._rank(wanted, each), each), reverse=True)
        if self._rank(wanted, ranked[0]) == self._rank(wanted, ranked[1]):
            raise AmbiguousName(f"both {ranked[1]} and {ranked[0]} may be meant: name a folder with --images")
        return ranked[0]

    def _rank(self, wanted: str, candidate: str) -> tuple[int, int, bool]:
        """How well a file answers: by the folders before its name, and by folders that are called alike."""
        parts, others = wanted.split("/"), candidate.split("/")
        same = 0
        while same < min(len(parts), len(others)) and parts[-1 - same] == others[-1 - same]:
            same += 1
        near = max((len(self.near) - i for i, word in enumerate(self.near) if word in others[:-1]), default=0)
        return same, near, len(others) == len(parts)


class ExportSource(Source):
    """A source whose images lie in folders or archives that are searched by name."""

    def read_image(self, annotation) -> bytes:
        place = self._find_archive(annotation)
        if place is None:
            return super().read_image(annotation)
        return open_archive(place[0]).read(place[1])

    def stamp_image(self, annotation) -> tuple[int, ...] | None:
        place = self._find_archive(annotation)
        return super().stamp_image(annotation) if place is None else stamp_file(place[0])

    def has_archives(self) -> bool:
        """Whether any of its images is in an archive."""
        return False

    def _find_archive(self, annotation) -> tuple[str, str] | None:
        return split_archive(annotation.image_path) if self.has_archives() else None


def explain_folder(path: str, wanted: str) -> str:
    """What else a file or folder seems to be than an export in the form `wanted`, with what to do; or ""."""
    if os.path.isfile(path):
        return "; it is packed: unpack it first" if path.lower().endswith(_PACKED) else ""
    found: set[str] = set()
    for _, folders, names in os.walk(path, followlinks=True):
        folders[:] = [each for each in folders if not each.startswith(".")]
        found |= {posixpath.splitext(name)[1].lower() for name in names}
    quoted = shlex.quote(path)
    if ".xml" in found and wanted != "voc":
        return f"; XML of VOC's form is read by `python -m tfrecords build voc --from {quoted}`"
    if ".json" in found and wanted != "coco":
        return f"; JSON of COCO's form is read by `python -m tfrecords build coco --from {quoted}`"
    if ".csv" in found or ".jsonl" in found:
        return "; tables are read by `python -m tfrecords build table --from TABLE`"
    if ".txt" in found and found & IMAGE_SUFFIXES:
        return "; labels in YOLO's .txt are not read: export them as COCO or VOC"
    if any(f".{each}" in found for each in ("zip", "tar", "gz")):
        return "; it holds an archive: unpack it first"
    return ""


def locate(name: str, images: ExportedImages, prefix: str = "") -> tuple[str, str] | Skip:
    """The id and the path of the image that an export calls `name`.

    Where it is not there, its path as it is written: that is told when it is read. An id is the path as seen
    from the folder of images, behind `prefix`.
    """
    try:
        found = images.find(name)
    except AmbiguousName as problem:
        return Skip(name, "ambiguous_image", f"{name}: {problem}")
    if found is not None:
        return posixpath.join(prefix, found.name), found.path
    spelled = spell_name(name)
    if not spelled:
        return Skip(name, "no_image_path", f"{name!r} names no file")
    return posixpath.join(prefix, spelled[-1]), os.path.join(images.path, spelled[-1])


def spell_name(name: str) -> list[str]:
    """What a file may be called that an export calls `name`, the likeliest first, with `/`.

    >>> spell_name("upload\\\\1\\\\a b.jpg"), spell_name("https://host/x/a%20b.jpg?v=1")
    (['upload/1/a b.jpg'], ['x/a%20b.jpg', 'x/a b.jpg'])
    >>> spell_name("/data/local-files/?d=photos%2Fa.jpg"), spell_name("../a.jpg")
    (['photos%2Fa.jpg', 'photos/a.jpg'], ['a.jpg'])
    """
    text = name.strip().replace("\\", "/")
    address = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*/", text)
    query = re.search(r"\?(?:.*&)?d=([^&#]+)", text)  # Label Studio's local files
    if query:
        text = query[1]
    elif address:
        text = re.split(r"[?#]", text[address.end() :])[0]
    ways = [text, unquote(text)]
    tidied = ["/".join(part for part in way.split("/") if part not in ("", ".", "..")) for way in ways]
    return [way for way in dict.fromkeys(tidied) if way]


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
