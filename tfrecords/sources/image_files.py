"""Finds the files of a table's images: in one folder or several, in archives, by a pattern of their names."""

from __future__ import annotations

import bisect
import fnmatch
import glob
import os
import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from tfrecords.errors import UserError, nearest
from tfrecords.sources.archives import open_archive, split_archive
from tfrecords.sources.base import find_inside, is_folder
from tfrecords.urls import is_url

_FIELD = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}$")


class FoundImage(NamedTuple):
    """An image's path as seen from its folder of images, with `/`, and its path on the disk."""

    name: str
    path: str


class ImageFolder:
    """A folder of images on the disk, a .zip or .tar, a folder in one, or a URL.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, path: str):
        self._matched: dict[str, list[str]] = {}
        self.archive = split_archive(path)
        self.path = path if self.archive is None else os.path.normpath(os.path.join(*self.archive))
        if self.archive is not None:
            open_archive(self.archive[0])
        elif not is_folder(path):
            raise UserError(f"{path}: no such folder or archive of images: give it with --images")

    def has(self, name: str) -> bool:
        """Whether there is a file of this tidied name, as seen from this folder."""
        if self.archive is None:
            return os.path.exists(os.path.join(self.path, name))
        return os.path.normpath(os.path.join(self.archive[1], name)) in open_archive(self.archive[0])

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """Every folder in it, "" for itself, with the sorted names of the files there, but hidden ones."""
        if is_url(self.path):
            return {}
        folders: dict[str, list[str]] = {}
        if self.archive is None:
            seen: set[tuple[int, int]] = set()  # a link may lead back up
            for folder, below, names in os.walk(self.path, followlinks=True):
                place = os.stat(folder)
                if (place.st_dev, place.st_ino) in seen:
                    below.clear()
                    continue
                seen.add((place.st_dev, place.st_ino))
                below[:] = [name for name in below if not name.startswith(".")]
                relative = os.path.relpath(folder, self.path)
                relative = "" if relative == os.curdir else relative.replace(os.sep, "/")
                folders[relative] = sorted(name for name in names if not name.startswith("."))
            return folders
        path, inside = self.archive
        for member in open_archive(path).names():
            name = find_inside(inside or os.curdir, os.path.relpath(member, inside or os.curdir))
            if name is not None:
                folder, _, last = name.rpartition("/")
                if f"/{name}".count("/."):
                    continue
                folders.setdefault(folder, []).append(last)
        return {folder: sorted(names) for folder, names in folders.items()}

    def match(self, pattern: str) -> list[str]:
        """The files in it that a pattern fits."""
        parent, _, last = pattern.rpartition("/")
        if parent not in self._matched:
            if glob.has_magic(parent):
                fits = re.compile(_translate(parent)).fullmatch
                self._matched[parent] = sorted(
                    each for each in self.folders if fits(f"{each}/" if each else "")
                )
            else:
                plain = os.path.normpath(parent) if parent else ""
                self._matched[parent] = [plain] if plain in self.folders else []
        return [
            posixpath.join(folder, name)
            for folder in self._matched[parent]
            for name in _match_names(self.folders[folder], last)
        ]


class ImagePattern:
    """Makes the name of an image's file of a row: `{image}.jpg`, `images_*/{image}`, `{patient}/{stem}*.png`.

    In braces stand `image`, what the table has; `stem`, the same without its suffix; `name`, without its
    folders; or another column; `{image:0>8}` fills it up with zeros to 8 characters, as Python's formats do.
    `*`, `?`, `[ab]` are wild, `**` stands for any folders.

    Raises:
        UserError: there is nothing in braces.
    """

    def __init__(self, text: str):
        self.text = text
        self.fields = tuple(dict.fromkeys(match[1] for match in _FIELD.finditer(text)))
        if not self.fields:
            raise UserError(f"--image-pattern {text}: says no {{image}}: expected such as '{{image}}.jpg'")
        plain = _FIELD.sub("", text)
        self.is_wild = glob.has_magic(plain)
        self.is_last_wild = glob.has_magic(_FIELD.sub("", text.rpartition("/")[2]))

    def fill(self, image: str, row: Mapping[str, Any]) -> str:
        """The pattern with a row's values in the place of the braces; what is wild in those is not.

        Raises:
            UserError: the row has no such column.
        """
        own = {"image": image, "name": posixpath.basename(image), "stem": _SUFFIX.sub("", image)}

        def find(match: re.Match) -> str:
            field = match[1]
            value = own[field] if field in own else row.get(field)
            if value is None:
                raise UserError(
                    f"--image-pattern {self.text}: {{{field}}} is no column{nearest(field, [*own, *row])}: "
                    f"expected {{image}}, {{stem}}, {{name}} or a column of the table"
                )
            try:
                text = format(str(value), match[2] or "")
            except ValueError as error:
                raise UserError(
                    f"--image-pattern {self.text}: {match[0]}: {error}; expected such as {{image:0>8}}"
                ) from None
            return glob.escape(text) if self.is_wild else text

        return _FIELD.sub(find, self.text)


class ImageFinder:
    """Finds the images of a table's rows in its folders.

    Args:
        folders: where to look. A single one without wildcards is not looked into: what is missing there is
            found when it is read.
    """

    def __init__(self, folders: Sequence[ImageFolder], pattern: str | None = None):
        self.folders = folders
        self.pattern = None if pattern is None else ImagePattern(pattern)
        self.num_other_forms = 0
        """Images found under a name of another Unicode form than the table's."""
        if len(folders) > 1 or (self.pattern is not None and self.pattern.is_wild):
            for folder in folders:
                if is_url(folder.path):
                    raise UserError(
                        f"--images {folder.path}: at a URL nothing can be looked for: give one folder alone, "
                        "and no --image-pattern with wildcards"
                    )

    def find(self, image: str, row: Mapping[str, Any]) -> list[FoundImage]:
        """The files of a row, one unless the pattern's last part is wild; none outside of the folders.

        Raises:
            UserError: several files answer where one is meant.
        """
        # A path may be written with the separators of another system: train\0001.jpg.
        text = image.replace("\\", "/")
        if self.pattern is not None:
            text = self.pattern.fill(text, row)
        found = [(folder, name) for folder in self.folders for name in self._find_in(folder, text)]
        if not found:
            name = find_inside(self.folders[0].path, text)
            return [] if name is None else [self._make(self.folders[0], name)]
        if len(found) > 1 and not (self.pattern is not None and self.pattern.is_last_wild):
            (one, first), (other, second), *_ = found
            raise UserError(
                f"{image!r} is in {os.path.join(one.path, first)} and in {os.path.join(other.path, second)}: "
                "leave one of the folders out, or write an --image-pattern that only one of them fits"
            )
        return [self._make(folder, name) for folder, name in found]

    def _make(self, folder: ImageFolder, name: str) -> FoundImage:
        return FoundImage(name.replace(os.sep, "/"), os.path.join(folder.path, name))

    def _find_in(self, folder: ImageFolder, text: str) -> Sequence[str]:
        if self.pattern is not None and self.pattern.is_wild:
            return folder.match(text)
        name = find_inside(folder.path, text)
        if name is None or is_url(folder.path):
            return [] if name is None else [name]
        if len(self.folders) == 1 and name.isascii():
            return [name]
        if folder.has(name):
            return [name]
        for form in ("NFC", "NFD"):  # macOS writes é as two characters, and most others as one
            other = unicodedata.normalize(form, name)
            if other != name and folder.has(other):
                self.num_other_forms += 1
                return [other]
        return []


def _translate(pattern: str) -> str:
    """The regular expression of a pattern of folders: `**` is any number of them, none too."""
    parts = []
    for part in pattern.split("/"):
        if part == "**":
            parts.append("(?:[^/]+/)*")
        else:
            parts.append(fnmatch.translate(part).removesuffix(r"\Z").replace(".*", "[^/]*") + "/")
    return "".join(parts)


def _match_names(names: Sequence[str], pattern: str) -> list[str]:
    """The names that a pattern fits, found by what stands before its first wildcard."""
    if not glob.has_magic(pattern):
        place = bisect.bisect_left(names, pattern)
        return [pattern] if place < len(names) and names[place] == pattern else []
    prefix = re.match(r"(?:[^*?\[]|\[[*?\[]\])*", pattern)[0]
    prefix = re.sub(r"\[([*?\[])\]", r"\1", prefix)
    start = bisect.bisect_left(names, prefix)
    stop = bisect.bisect_left(names, prefix + "\U0010ffff")
    return fnmatch.filter(names[start:stop], pattern)
