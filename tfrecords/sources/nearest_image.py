"""Says of an image that is not there which file is nearly it, and the flag that finds such files."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence

from tfrecords.sources.image_files import ImageFolder

_URL = re.compile("[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # of two slashes a tidied path has one


def explain_missing(name: str, folders: Sequence[ImageFolder], pattern: str | None = None) -> str:
    """The nearest file to an image that is missing, with what to do; "" where none is near.

    Args:
        name: the image as the table has it.
        folders: where it was looked for.
        pattern: the pattern that made its file's name, where there is one: no other is suggested then.
    """
    if _URL.match(name):
        return "; it is a URL: download the images first, and name their files"
    name = posixpath.normpath(name.replace("\\", "/"))
    for folder in folders:
        for kind, found in _find_alike(name, folder):
            path = os.path.join(folder.path, found)
            flag = None if pattern else suggest_pattern(name, found)
            if flag is not None:
                return f"; {path} is there: pass --image-pattern {shlex.quote(flag)}"
            if pattern is not None:
                return f"; {path} is there, which --image-pattern {shlex.quote(pattern)} does not fit"
            return f"; {path} is there, {kind}: rename one of the two"
    return ""


def suggest_pattern(name: str, found: str) -> str | None:
    """The pattern that makes `found` of `name`, if one does.

    >>> suggest_pattern("p0", "p0.jpg"), suggest_pattern("p0.jpg", "p0.JPG")
    ('{image}.jpg', '{stem}.JPG')
    >>> suggest_pattern("p0.jpg", "in/p0.jpg"), suggest_pattern("a/p0", "b/p0.png")
    ('**/{image}', '**/{name}.png')
    >>> suggest_pattern("P0.jpg", "p0.jpg") is None
    True
    """
    folder, last = posixpath.split(name)
    found_folder, found_last = posixpath.split(found)
    stem, suffix = posixpath.splitext(last)
    moved = folder != found_folder
    if found_last == last:
        ending = ""
    elif found_last.startswith(f"{last}.") and "." not in found_last[len(last) + 1 :]:
        ending = found_last[len(last) :]
    elif suffix and posixpath.splitext(found_last)[0] == stem and not (moved and folder):
        return f"{'**/' if moved else ''}{{stem}}{posixpath.splitext(found_last)[1]}"
    else:
        return None
    return f"{'**/' if moved else ''}{{{'name' if moved and folder else 'image'}}}{ending}"


def _find_alike(name: str, folder: ImageFolder) -> Iterator[tuple[str, str]]:
    """The files like `name`, each with how it differs, the nearest first."""
    parent, last = posixpath.split(name)
    ways = (
        ("with the same name", lambda text: text),
        ("in another Unicode form", lambda text: unicodedata.normalize("NFC", text)),
        ("in other letter case", lambda text: unicodedata.normalize("NFC", text).casefold()),
        ("with another suffix", lambda text: _drop_suffix(text, last)),
        ("with another suffix and letter case", lambda text: _drop_suffix(text, last).casefold()),
    )
    own, others = folder.folders.get(parent, []), folder.folders
    for kind, fold in ways[1:]:
        wanted = fold(last)
        yield from ((kind, posixpath.join(parent, each)) for each in own if fold(each) == wanted)
    for kind, fold in ways:
        wanted = fold(last)
        for each_folder, names in others.items():
            for each in names:
                if fold(each) == wanted:
                    yield f"{kind} in another folder", posixpath.join(each_folder, each)


def _drop_suffix(text: str, wanted: str) -> str:
    """A name without its suffix, unless it is the one wanted, which may have none."""
    stem, suffix = posixpath.splitext(text)
    if text == wanted and (len(suffix) < 2 or len(suffix) > 6):
        return text
    return stem
