"""Label counts of a training split enter; `LabelVocabulary`, names ranked by frequency, leaves."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tfrecords.errors import UserError, nearest

FILE_NAME = "vocabulary.json"
# Blanks of width zero and marks of direction. Joiners are part of emoji and of Persian words.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_WIDE = re.compile("[\u3000\uff01-\uffee]+")


@dataclass(frozen=True)
class LabelVocabulary:
    """Label names ordered by (-training count, name): an id is a frequency rank.

    A sorted list of ids is therefore already the paper's training order, frequent labels first (section 3.2),
    and ties do not depend on the order of any file. With L labels, the tokens of a path are the ids 0 to L-1,
    END = L, and START = L+1, which is only ever read in.

    >>> vocabulary = LabelVocabulary.from_counts({"sea": 5, "sky": 9, "boat": 5})
    >>> vocabulary.names
    ('sky', 'boat', 'sea')
    >>> vocabulary.ids(["sea", "sky"]), vocabulary.end_token, vocabulary.start_token
    ([0, 2], 3, 4)
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "counts", tuple(int(count) for count in self.counts))
        if len(self.names) != len(self.counts):
            raise UserError(
                f"a vocabulary of {len(self.names)} names needs as many counts, got {len(self.counts)}"
            )
        ranked = sorted(zip(self.names, self.counts, strict=True), key=_rank)
        if tuple(name for name, _ in ranked) != self.names:
            raise UserError("the names of a vocabulary are ordered by (-training count, name); these are not")
        if len(set(self.names)) != len(self.names):
            repeated = next(name for name in self.names if self.names.count(name) > 1)
            raise UserError(f"the label {repeated!r} occurs twice in the vocabulary: every name occurs once")

    @classmethod
    def from_counts(cls, counts: Mapping[str, int]) -> LabelVocabulary:
        """The vocabulary of `counts` (name -> number of training images); names with count 0 stay in it."""
        ranked = sorted(counts.items(), key=_rank)
        return cls(tuple(name for name, _ in ranked), tuple(count for _, count in ranked))

    @property
    def size(self) -> int:
        """L, the number of labels, END and START not among them."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def end_token(self) -> int:
        return self.size

    @property
    def start_token(self) -> int:
        return self.size + 1

    def id(self, name: str) -> int:
        """The rank of `name`, which may be typed in another Unicode form, see `tidy_name`.

        Raises:
            UserError: there is no such label; with the nearest right name.
        """
        rank = self._id_of_name.get(name)
        if rank is None:
            rank = self._id_of_name.get(tidy_name(name))
        if rank is None:
            raise UserError(
                f"unknown label {name!r}{nearest(name, self.names)}: expected one of {self._summary()}"
            )
        return rank

    def ids(self, names: Iterable[str]) -> list[int]:
        """The sorted ranks of `names`, most frequent first. Raises: UserError at the first unknown name."""
        return sorted(self.id(name) for name in names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical JSON of names and counts: manifest, checkpoint and export carry it."""
        canonical = json.dumps(self._content(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> dict:
        """A plain dictionary for `json.dump`; `from_json` reads it back and checks the fingerprint."""
        return {**self._content(), "fingerprint": self.fingerprint}

    @classmethod
    def from_json(cls, content: Mapping, where: str = "vocabulary") -> LabelVocabulary:
        """The vocabulary of `to_json`.

        Raises:
            UserError: keys are missing, or the content was changed after its fingerprint was taken.
        """
        try:
            vocabulary = cls(tuple(content["names"]), tuple(content["counts"]))
            stored = content["fingerprint"][:]
        except UserError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{where}: not a label vocabulary ({error}); expected the keys names, counts and fingerprint"
            ) from None
        if stored != vocabulary.fingerprint:
            raise UserError(
                f"{where}: fingerprint {stored[:12]} does not belong to its names and counts "
                f"({vocabulary.fingerprint[:12]}); the file was edited: build the data set again"
            )
        return vocabulary

    def save(self, path: str | Path) -> None:
        """Writes JSON to `path`."""
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n"
        Path(path).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> LabelVocabulary:
        """Reads what `save` wrote; of a folder, its `vocabulary.json`.

        Raises:
            UserError: there is no such file, or it does not hold a vocabulary.
        """
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no vocabulary there") from None
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error}); build the data set again") from None
        return cls.from_json(content, where=str(path))

    def _content(self) -> dict:
        return {"names": list(self.names), "counts": list(self.counts)}

    @cached_property
    def _id_of_name(self) -> dict[str, int]:
        return {name: rank for rank, name in enumerate(self.names)}

    def _summary(self, most: int = 10) -> str:
        more = f" and {self.size - most} more" if self.size > most else ""
        return ", ".join(self.names[:most]) + more


def _rank(name_and_count: tuple[str, int]) -> tuple[int, str]:
    name, count = name_and_count
    return -count, name


def tidy_name(text: str) -> str:
    """A name in Unicode's composed form, of normal width, without invisible characters and doubled blanks.

    >>> tidy_name(" mer  bleue\\u200b"), tidy_name("cafe\\u0301") == "café", tidy_name("\\uff33ky")
    ('mer bleue', True, 'Sky')
    """
    if not text.isascii():
        text = _WIDE.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    return " ".join(text.split())
