"""Reads `--from train=a.csv,test=b.csv`: files or folders, each of them of one split or of no named one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from tfrecords.errors import UserError, nearest

SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_NEXT = re.compile(rf",(?=(?:{'|'.join(SPLIT_OF_WORD)})=)", re.IGNORECASE)


class SplitFile(NamedTuple):
    """A file or folder, and the split that its images belong to; None where the user names none."""

    split: str | None
    path: str


def parse_split_files(words: Sequence[str | os.PathLike], flag: str = "--from") -> tuple[SplitFile, ...]:
    """The files that the values of a flag name, in their order.

    A value is a path, or `split=path`, or several of the latter joined by commas. A path that exists is taken
    as it stands, whatever is in its name.

    >>> [(file.split, file.path) for file in parse_split_files(["train=a.csv,test=b, c.csv"])]
    [('train', 'a.csv'), ('test', 'b, c.csv')]
    >>> [(file.split, file.path) for file in parse_split_files(["a.csv", "b.csv"])]
    [(None, 'a.csv'), (None, 'b.csv')]

    Raises:
        UserError: an unknown split, an empty path, a path twice, or a split for some of the files alone.
    """
    files = [file for word in words for file in _parse_word(os.fspath(word), flag)]
    for number, file in enumerate(files):
        if file.path in [earlier.path for earlier in files[:number]]:
            raise UserError(f"{flag} {file.path}: is given twice: leave one out")
    if len({file.split is None for file in files}) > 1:
        unnamed = next(file.path for file in files if file.split is None)
        raise UserError(f"{flag} {unnamed}: say its split, such as train={unnamed}, as that of the others")
    return tuple(files)


def _parse_word(word: str, flag: str) -> list[SplitFile]:
    if os.path.exists(word):
        return [SplitFile(None, word)]
    return [_parse_piece(piece, flag) for piece in _NEXT.split(word)]


def _parse_piece(piece: str, flag: str) -> SplitFile:
    name, mark, path = piece.partition("=")
    if not mark or os.sep in name:
        split, path = None, piece
    else:
        split = SPLIT_OF_WORD.get(name.strip().lower())
        if split is None:
            expected = "train=, validation= or test= before the path"
            raise UserError(
                f"{flag} {piece}: no such file, and {name!r} is no split{nearest(name, SPLIT_OF_WORD)}: "
                f"expected {expected}"
            )
    if not path.strip():
        raise UserError(f"{flag} {piece or repr(piece)}: names no file")
    return SplitFile(split, path)
