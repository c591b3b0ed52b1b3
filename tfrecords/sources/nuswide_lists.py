"""Reads NUS-WIDE's labels as papers on hashing pass them on: lists of lines such as `images/1.jpg 0 1 0`.

    python -m tfrecords build nuswide81 --from train=database.txt,test=test.txt --names Concepts81.txt
    python -m tfrecords build nuswide81 --from lists --images Flickr --names names21.txt --name nuswide21

A line is an image's path and one 0 or 1 a concept, without the concepts' names: these are in
Concepts81.txt, or in a file of the user's, one a line. Any other data set in this form is read as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tfrecords.annotations import Annotation, Skip
from tfrecords.errors import UserError
from tfrecords.manifest import MISSING, SPLITS
from tfrecords.sources.archives import split_archive
from tfrecords.sources.exported_images import ExportedImages, ExportSource, locate
from tfrecords.sources.label_cells import tidy_name
from tfrecords.sources.nearest_image import explain_missing
from tfrecords.sources.split_files import SPLIT_OF_WORD, SplitFile, parse_split_files
from tfrecords.urls import is_url
from tfrecords.words import count

CONCEPTS = "Concepts81.txt"
_TRAIN, _TEST = "database.txt", "test.txt"


class NusWideLists(ExportSource):
    """The images of one list a split.

    Args:
        lists: a list; or `train=..,test=..`; or a folder with `train.txt`, `val.txt`, `test.txt`. Of
            hashing's `database.txt`, `train.txt` and `test.txt` the first is for training, for it has the
            second in it.
        images: the folder or archive of the images; by default that of the lists.
        names: the file of the concepts' names, one a line; by default Concepts81.txt beside the lists or in
            ConceptsList there, where there are 81 columns.
        untagged: `drop` skips images without any label, `keep` keeps them.
    """

    name = "nuswide81"

    def __init__(
        self,
        lists: Sequence[str | os.PathLike],
        images: str | os.PathLike | None = None,
        names: str | os.PathLike | None = None,
        untagged: Literal["drop", "keep"] = "drop",
    ):
        self.lists = [found for given in parse_split_files(lists) for found in _find_lists(given)]
        if len(self.lists) == 1 and self.lists[0].split is None:
            self.lists = [SplitFile("train", self.lists[0].path)]
        unnamed = [found.path for found in self.lists if found.split is None]
        if unnamed:
            raise UserError(f"--from {unnamed[0]}: say its split, such as train={unnamed[0]}")
        self.untagged = untagged
        self.images = (
            os.path.dirname(self.lists[0].path) or os.curdir if images is None else os.fspath(images)
        )
        self.archive = None if is_url(self.images) else split_archive(self.images)
        ExportedImages(self.images)  # says that there is no such folder
        self._names = self._read_names(names)

    @staticmethod
    def are_lists(words: Sequence[str | os.PathLike]) -> bool:
        """Whether `--from` names such lists, and not the folder of the owners' files."""
        files = parse_split_files(words)
        if len(files) != 1 or files[0].split is not None or os.path.isfile(files[0].path):
            return True
        return not os.path.isdir(os.path.join(files[0].path, "ImageList")) and bool(
            _list_folder(files[0].path)
        )

    def splits(self) -> tuple[str, ...]:
        found = {each.split for each in self.lists}
        return tuple(split for split in SPLITS if split in found)

    def annotations(self, split: str) -> Iterator[Annotation | Skip]:
        return (item for its_split, item in self.items() if its_split == split)

    def items(self) -> Iterator[tuple[str, Annotation | Skip]]:
        images = ExportedImages(self.images)
        for split, path in self.lists:
            for _, name, flags in _read_list(path, len(self._names)):
                labels = tuple(label for label, flag in zip(self._names, flags, strict=True) if flag == "1")
                item = locate(name, images)
                if isinstance(item, Skip):
                    yield split, item
                elif not labels and self.untagged == "drop":
                    detail = "no label holds; --untagged keep keeps such images"
                    yield split, Skip(item[0], "untagged", detail, by_choice=True)
                else:
                    yield split, Annotation(item[0], item[1], labels)

    def label_names(self) -> tuple[str, ...]:
        return self._names

    def has_archives(self) -> bool:
        return self.archive is not None

    def explain_skip(self, skip: Skip) -> str:
        if skip.reason != MISSING or is_url(self.images):
            return ""
        images = ExportedImages(self.images)
        name = os.path.relpath(skip.detail, images.path)
        return explain_missing(name, [images.folder], pattern="{image}").split(", and --image")[0]

    def arguments(self) -> dict:
        names = [f"{split}={os.path.basename(path)}" for split, path in self.lists]
        return {"from": names, "untagged": self.untagged}

    def _read_names(self, given: str | os.PathLike | None) -> tuple[str, ...]:
        first = self.lists[0].path
        line, _, flags = next(_read_list(first, None), (0, "", []))
        if not line:
            raise UserError(f"{first}: is empty: expected lines such as `images/1.jpg 0 1 0`")
        folder = Path(first).parent
        path = next(
            (each for each in (folder / CONCEPTS, folder / "ConceptsList" / CONCEPTS) if each.is_file()), None
        )
        if given is not None:
            path = Path(given)
        elif len(flags) != 81 or path is None:
            where = f", or lay {CONCEPTS} beside it" if len(flags) == 81 else ""
            columns = count("column", len(flags))
            raise UserError(
                f"{first} line {line}: has {columns} of 0 and 1 and no names: give a file "
                f"of their names, one a line in the order of the columns, with --names{where}"
            )
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--names {path}: cannot be read as text ({error})") from None
        names = tuple(name for name in map(tidy_name, lines) if name)
        if len(names) != len(flags) or len(set(names)) != len(names):
            columns = count("column", len(flags))
            raise UserError(
                f"{path}: {count('name', len(names))}, {len(set(names)):,} of them different, and {first} "
                f"has {columns} of 0 and 1: expected one name a column, in their order"
            )
        return names


def _find_lists(given: SplitFile) -> list[SplitFile]:
    if not os.path.isdir(given.path):
        if not os.path.isfile(given.path):
            raise UserError(f"--from {given.path}: no such file or folder")
        return [given]
    found = _list_folder(given.path)
    if given.split is not None or not found:
        raise UserError(
            f"--from {given.path}: is a folder without lists such as train.txt and test.txt: name the files, "
            "--from train=a.txt,test=b.txt"
        )
    return found


def _list_folder(folder: str) -> list[SplitFile]:
    """The lists in a folder by their names; `database.txt` in place of `train.txt`, which is a part of it."""
    found = {
        split: os.path.join(folder, f"{word}.txt")
        for word, split in reversed(SPLIT_OF_WORD.items())
        if os.path.isfile(os.path.join(folder, f"{word}.txt"))
    }
    if os.path.isfile(os.path.join(folder, _TRAIN)):
        found["train"] = os.path.join(folder, _TRAIN)
    return [SplitFile(split, found[split]) for split in SPLITS if split in found] if "train" in found else []


def _read_list(path: str, num_columns: int | None) -> Iterator[tuple[int, str, list[str]]]:
    """Every line's number, path and flags.

    Raises:
        UserError: a line has no path, something else than 0 and 1, or another number of them than the first.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                words = line.split() if len(line.split()) > 1 else line.strip().split(",")
                if not any(words):
                    continue
                start = len(words)
                while start > 1 and words[start - 1] in ("0", "1"):
                    start -= 1
                flags = words[start:]
                if not flags or (num_columns is not None and len(flags) != num_columns):
                    expected = "0 and 1" if num_columns is None else f"{num_columns:,} times 0 or 1"
                    found = "none" if not flags else f"{len(flags):,}"
                    after = f" behind {words[start - 1][:20]!r}" if start > 1 or flags else ""
                    raise UserError(
                        f"{path} line {number}: has {found}{after}, expected a path and then {expected}"
                    )
                yield number, " ".join(words[:start]), flags
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8: save the list as UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
