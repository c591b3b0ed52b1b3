"""Reads NUS-WIDE as its owners ship it: image lists, label files, tags.

    python -m tfrecords build nuswide81 --from NUS-WIDE --images NUS-WIDE/Flickr
    python -m tfrecords build nuswide1000 --from NUS-WIDE --images NUS-WIDE/Flickr

Two sets over the same 161,789 training and 107,859 test images: 81 concepts that people judged, and the 1,000
most frequent of the users' own tags. Every label file has one line an image, in the order of the image list.
Chua et al., NUS-WIDE: a real-world web image database, CIVR 2009.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from tfrecords.annotations import Annotation, Skip
from tfrecords.errors import UserError, nearest
from tfrecords.sources.base import Source, is_folder, join_inside
from tfrecords.sources.table_files import is_text
from tfrecords.urls import is_url

if TYPE_CHECKING:
    import numpy as np

_WORDS = {"train": "Train", "test": "Test"}  # split here -> word in the owners' file names
_ZERO, _ONE = b"01"
_FLICKR_NUMBER = re.compile(r"^\d+_(\d+\.)")
_CHUNK_BYTES = 1 << 26
OWNERS = (
    "the owners give out the label files at https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/"
    "NUS-WIDE.html, and the images on request, for they belong to the users of Flickr"
)


class NusWide81(Source):
    """81 concepts, of `ConceptsList/Concepts81.txt` and `Groundtruth/TrainTestLabels/`.

    Args:
        root: the folder with `ImageList` and the label files, as the archives unpack.
        images: the folder, or a URL, that the names of the image lists start from; `root/Flickr` by default.
            On a disk it may also hold all images without their folders, as `0001_124984.jpg` or `124984.jpg`.
            Images that are not there (dead links are common) are skipped and counted as `missing_image`.
        untagged: `drop` skips images without any label, as the paper's protocol does; `keep` keeps them.
    """

    name = "nuswide81"

    def __init__(
        self, root: str | Path, images: str | Path | None = None, untagged: Literal["drop", "keep"] = "drop"
    ):
        if untagged not in ("drop", "keep"):
            hint = nearest(untagged, ("drop", "keep"))
            raise UserError(f"--untagged {untagged}{hint}: expected drop or keep")
        self.root = os.fspath(root)
        self.images = os.fspath(images) if images is not None else os.path.join(self.root, "Flickr")
        self.untagged = untagged
        for folder, flag, what in ((self.root, "--from", "NUS-WIDE"), (self.images, "--images", "images")):
            if not is_folder(folder):
                raise UserError(f"{folder}: no such folder of {what}: give it with {flag}; {OWNERS}")

    def splits(self) -> tuple[str, ...]:
        return tuple(_WORDS)

    def annotations(self, split: str) -> Iterator[Annotation | Skip]:
        names = self.label_names()
        images = self._read_images(split)
        rows, columns = self._read_positives(split, len(images))
        ends = rows.searchsorted(range(len(images)), side="right")
        start = 0
        places = _ImagePlaces(self.images)
        for image, end in zip(images, ends, strict=True):
            labels = tuple(names[column] for column in columns[start:end])
            start = end
            image_id = image.replace("\\", "/")
            path = places.find(image_id)
            if path is None:
                yield Skip(image_id, "path_outside_images", f"{image} climbs out of {self.images}")
            elif not labels and self.untagged == "drop":
                yield Skip(
                    image_id, "untagged", "no label holds; --untagged keep keeps such images", by_choice=True
                )
            else:
                yield Annotation(image_id, path, labels)

    def label_names(self) -> tuple[str, ...]:
        return self._read_names("ConceptsList/Concepts81.txt", 81)

    def arguments(self) -> dict:
        return {"untagged": self.untagged}

    def _read_images(self, split: str) -> list[str]:
        return self._read_lines(f"ImageList/{_WORDS[split]}Imagelist.txt")

    def _read_positives(self, split: str, num_images: int) -> tuple[np.ndarray, np.ndarray]:
        """Which labels hold: image by image, each image's labels in the order of `label_names`."""
        import numpy as np

        rows, columns = [], []
        for column, concept in enumerate(self.label_names()):
            path = self._find(f"Groundtruth/TrainTestLabels/Labels_{concept}_{_WORDS[split]}.txt")
            found = np.concatenate([row for row, _ in _read_flags(path, num_images, 1)])
            rows.append(found)
            columns.append(np.full(len(found), column, np.int16))
        rows, columns = np.concatenate(rows), np.concatenate(columns)
        order = np.argsort(rows, kind="stable")
        return rows[order], columns[order]

    def _read_names(self, file: str, expected: int) -> tuple[str, ...]:
        names = tuple(line for line in self._read_lines(file) if line)
        wrong = [name for name in names if not is_text(name)]
        if wrong:
            raise UserError(f"{self._find(file)}: the name {wrong[0]!r} is not UTF-8; unpack it again")
        if len(set(names)) != expected or len(names) != expected:
            raise UserError(
                f"{self._find(file)}: {len(names)} names, {len(set(names))} of them different: expected "
                f"{expected}, one a line; unpack it again"
            )
        return names

    def _read_lines(self, file: str) -> list[str]:
        lines = self._find(file).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        lines = [line.strip() for line in lines]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def _find(self, file: str) -> Path:
        path = Path(self.root) / file
        if not path.is_file():
            raise UserError(
                f"{path}: no such file: --from is the folder that holds ImageList, or a list of lines such "
                f"as `path 0 1 0`; {OWNERS}"
            )
        return path


class NusWide1000(NusWide81):
    """1,000 tags: `NUS_WID_Tags/TagList1k.txt`, `Train_Tags1k.dat` and `Test_Tags1k.dat`, a row an image.

    The arguments are those of `NusWide81`.
    """

    name = "nuswide1000"
    num_labels: ClassVar[int] = 1000

    def label_names(self) -> tuple[str, ...]:
        return self._read_names("NUS_WID_Tags/TagList1k.txt", self.num_labels)

    def _read_positives(self, split: str, num_images: int) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        path = self._find(f"NUS_WID_Tags/{_WORDS[split]}_Tags1k.dat")
        rows, columns = zip(*_read_flags(path, num_images, self.num_labels), strict=True)
        return np.concatenate(rows), np.concatenate(columns)


class _ImagePlaces:
    """Where the images lie: in the owners' folders, or all in one, by their names or by Flickr's number.

    >>> _ImagePlaces("gs://nuswide/Flickr").find("actor/0001_124984.jpg")
    'gs://nuswide/Flickr/actor/0001_124984.jpg'
    """

    def __init__(self, root: str):
        self.root = root
        self._names = frozenset() if is_url(root) else frozenset(os.listdir(root))

    def find(self, image: str) -> str | None:
        """The path of `actor/0001_124984.jpg`, which need not be there; None where it climbs out."""
        path = join_inside(self.root, image)
        if path is None or is_url(self.root):
            return path
        folder, _, name = image.rpartition("/")
        if folder.partition("/")[0] in self._names:
            return path
        number = _FLICKR_NUMBER.sub(r"\1", name)
        found = next((each for each in (name, number) if each in self._names), None)
        return path if found is None else os.path.join(self.root, found)


def _read_flags(path: Path, num_rows: int, num_columns: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The places of the ones in a file of 0 and 1, `num_columns` to an image, set apart by blanks or lines.

    Yields:
        rows <int64>[n] and columns <int16>[n], chunk by chunk, in the order of the file.

    Raises:
        UserError: another character or number is in the file, or another number of values.
    """
    import numpy as np

    num_values = 0
    yield np.empty(0, np.int64), np.empty(0, np.int16)  # so that there is something to concatenate
    with path.open("rb") as file:
        before = b" "
        while chunk := file.read(_CHUNK_BYTES):
            codes = np.frombuffer(before + chunk, np.uint8)
            is_value = (codes == _ZERO) | (codes == _ONE)
            is_blank = (codes == 32) | ((codes >= 9) & (codes <= 13))
            if not (is_value | is_blank).all() or (is_value[1:] & is_value[:-1]).any():
                raise UserError(f"{path}: {_find_fault(path)}: expected 0 and 1 alone; unpack it again")
            values = codes[1:][is_value[1:]]
            places = num_values + np.flatnonzero(values == _ONE)
            num_values += len(values)
            before = chunk[-1:]
            yield places // num_columns, (places % num_columns).astype(np.int16)
    if num_values != num_rows * num_columns:
        each = "" if num_columns == 1 else f" rows of {num_columns:,}"
        raise UserError(
            f"{path}: {num_values / num_columns:,.10g}{each} values, and the image list has {num_rows:,} "
            "images: the two do not belong together; unpack them again"
        )


def _find_fault(path: Path) -> str:
    """Where a file of 0 and 1 first holds something else."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            wrong = [value for value in line.split() if value not in (b"0", b"1")]
            if wrong:
                return f"line {number} holds {wrong[0][:20].decode(errors='replace')!r}"
    return "is damaged"
