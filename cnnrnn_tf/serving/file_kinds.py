"""Tells images from other files by what they hold, and counts the others for a summary.

A folder of photographs holds more than photographs: notes, tables, films, a file manager's `.DS_Store`. An
image is what begins as one, whatever its name, and what is named like one, for its owner will ask after it.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable

from tfrecords.magic import HEAD_BYTES, ICON, ISO_MEDIA, find_format
from tfrecords.words import count

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp"]
    + [".heic", ".heif", ".avif", ".tif", ".tiff", ".jp2", ".j2k", ".jxl"]
)
"""Of the names of image files, in lower case."""

_NO_PHOTOGRAPHS = ("", ISO_MEDIA, ICON)
_NUM_KINDS = 5  # that a summary names


def looks_like_image(head: bytes) -> bool:
    r"""Whether a file that begins with `head`, its first HEAD_BYTES, is an image, perhaps a damaged one.

    >>> looks_like_image(b"RIFF\x10\0\0\0WEBPVP8 "), looks_like_image(b"RIFF\x10\0\0\0WAVEfmt ")
    (True, False)
    """
    return find_format(head) not in _NO_PHOTOGRAPHS


def is_named_like_image(name: str) -> bool:
    """Whether a file's name has the suffix of an image; hidden ones are a system's own, such as `._1.jpg`.

    >>> is_named_like_image("1.JPE"), is_named_like_image("._1.jpg"), is_named_like_image("1.txt")
    (True, False, False)
    """
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def judge_file(path: str | os.PathLike) -> tuple[bool, str]:
    """Returns whether a file is one to be tagged, and "" or why that could not be seen.

    Files that are named like images are not opened: what is wrong with them is told when they are read.
    """
    if is_named_like_image(os.path.basename(os.fspath(path))):
        return True, ""
    try:
        with open(path, "rb", buffering=0, opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return False, ""
            return looks_like_image(file.read(HEAD_BYTES)), ""
    except FileNotFoundError:  # a link that leads nowhere
        return False, ""
    except OSError as error:
        return False, error.strerror


def name_kind(name: str) -> str:
    """What a summary counts a file under: its suffix in lower case, or the name of a hidden file.

    >>> name_kind("a/notes.TXT"), name_kind(".DS_Store"), name_kind("._1.jpg"), name_kind("README")
    ('.txt', '.DS_Store', '._*', 'without suffix')
    """
    name = os.path.basename(name)
    if name.startswith("._"):
        return "._*"
    return name if name.startswith(".") else os.path.splitext(name)[1].lower() or "without suffix"


def describe_others(others: Counter[str]) -> str:
    """Says how many files were left out because they are no images, and of which kinds; "" of none.

    >>> describe_others(Counter({".txt": 5, ".csv": 4}))
    '9 other files are no images (5 .txt, 4 .csv)'
    >>> describe_others(Counter({"without suffix": 1}))
    '1 other file is no image (1 without suffix)'
    """
    if not others:
        return ""
    total, kinds = others.total(), sorted(others.items(), key=lambda each: (-each[1], each[0]))
    shown = kinds if len(kinds) == _NUM_KINDS + 1 else kinds[:_NUM_KINDS]
    named = [f"{number:,} {kind}" for kind, number in shown]
    if len(kinds) > len(shown):
        named.append(f"{total - sum(number for _, number in shown):,} of other kinds")
    verb = "is no image" if total == 1 else "are no images"
    return f"{count('other file', total)} {verb} ({', '.join(named)})"


def describe_tagged(num_images: int, errors: Counter[str], others: Counter[str], where: str = "") -> str:
    """The line that accounts for every file: how many are tagged, could not be, and are no images.

    >>> describe_tagged(15, Counter({"cut off": 2, "empty": 1}), Counter({".txt": 5}))
    'tagged 12 of 15 images; 3 could not be (2 cut off, 1 empty); 5 other files are no images (5 .txt)'
    """
    num_bad = errors.total()
    parts = [f"tagged {num_images - num_bad:,} of {count('image', num_images)}{where and f': {where}'}"]
    if num_bad:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in errors.most_common())
        parts.append(f"{num_bad:,} could not be ({reasons})")
    if others:
        parts.append(describe_others(others))
    return "; ".join(parts)


def sort_out(names, judge: Callable[[str], tuple[bool, str]], others: Counter[str]):
    """Yields (name, reason) of the images among `names`, and counts those that are none in `others`.

    Args:
        names: of files.
        judge: as `judge_file`, of a name.
        others: counts by `name_kind`.
    """
    for name in names:
        is_image, reason = judge(name)
        if is_image or reason:
            yield name, reason
        else:
            others[name_kind(name)] += 1


def open_regular(path: str | os.PathLike):
    """Opens a file for reading; never waits for a pipe. Raises: OSError."""
    return open(path, "rb", opener=_open_at_once)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
