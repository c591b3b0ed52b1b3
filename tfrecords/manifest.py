"""`Manifest`: what a built data set holds, from `data/<name>/manifest.json` and back; and who is held out.

The same input gives the same bytes: no clock, no path of a machine, no number of workers is in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from tfrecords import vocabulary as vocabularies
from tfrecords.errors import UserError, nearest
from tfrecords.framing import find_records
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.words import count

FILE_NAME = "manifest.json"
FORMAT_VERSION = 2
HOLDOUT_FRACTION = 0.1
SPLITS = ("train", "validation", "test")
MISSING = "missing_image"
"""The reason of a skip whose image's file is not there."""
BAD_ANNOTATIONS = ("missing_annotation", "bad_annotation", "ambiguous_image")
"""The reasons of skips whose annotation cannot be read, or not be matched with an image."""


def is_held_out(image_id: str, fraction: float = HOLDOUT_FRACTION) -> bool:
    """Whether an image of train belongs to the hold-out, by the SHA-256 of its id alone.

    The first eight bytes, read as a big-endian number, fall below `fraction` of 2⁶⁴. TensorFlow has no
    SHA-256, so the answer for the default fraction is stored in every record as `image/holdout`. It counts
    only where the manifest names a hold-out: a data set with a validation split has none.
    """
    digest = hashlib.sha256(image_id.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


@dataclass(frozen=True)
class Shard:
    """One file of records, in the data set's folder.

    `records_sha256` is over all records in their order, each without the bytes of its image: the image's own
    SHA-256 is in the record. So nothing goes unseen, and a build hashes each image once.
    """

    file: str
    num_records: int
    records_sha256: str


@dataclass(frozen=True)
class Split:
    """What one split holds. `num_labels` counts positives, `num_unknown` ignored labels, over all images.

    `skipped` counts the images that were left out, by reason; each is listed in `skipped.csv`.
    """

    num_images: int
    num_labels: int
    num_unknown: int
    num_untagged: int
    max_labels_per_image: int
    shards: tuple[Shard, ...]
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def num_missing(self) -> int:
        """Images that were not there, or without a readable annotation, when the data set was built."""
        return sum(self.skipped.get(reason, 0) for reason in (MISSING, *BAD_ANNOTATIONS))


@dataclass(frozen=True)
class Holdout:
    """The images of `split` that readers keep for selection: those with `image/holdout` = 1."""

    num_images: int
    split: str = "train"
    fraction: float = HOLDOUT_FRACTION
    hash: str = "sha256"


@dataclass(frozen=True)
class Manifest:
    """What a built data set holds and where it came from.

    `holdout` is None where the source has a validation split of its own. `reference_rows` are scores known to
    be reachable. `fingerprint` stands for all of it, the shards' bytes included.
    """

    name: str
    source: str
    source_arguments: dict
    vocabulary_fingerprint: str
    splits: dict[str, Split]
    holdout: Holdout | None
    reference_rows: list[dict] = field(default_factory=list)
    format_version: int = FORMAT_VERSION

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical JSON of everything else."""
        canonical = json.dumps(asdict(self), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def max_labels_per_image(self) -> int:
        """The most labels on one image, over all splits."""
        return max(split.max_labels_per_image for split in self.splits.values())

    def split(self, name: str) -> Split:
        """The split called `name`. Raises: UserError where the data set has no such split."""
        if name not in self.splits:
            raise UserError(
                f"the data set {self.name!r} has no split {name!r}{nearest(name, self.splits)}: "
                f"expected {' or '.join(self.splits)}"
            )
        return self.splits[name]

    def remarks(self) -> list[str]:
        """What belongs under every table of results on this data set: the images that it lacks."""
        shares = [
            f"{split.num_missing:,} of {split.num_missing + split.num_images:,} {name} images "
            f"({format_share(split.num_missing, split.num_missing + split.num_images)})"
            for name, split in self.splits.items()
            if split.num_missing
        ]
        return [f"Missing when the data set was built: {', '.join(shares)}."] if shares else []

    def shard_paths(self, dataset_dir: str | Path, split: str) -> list[str]:
        """The shard files of `split`, in their order."""
        return [str(Path(dataset_dir) / shard.file) for shard in self.split(split).shards]

    def check_shards(self, dataset_dir: str | Path) -> None:
        """Counts the records of every shard by their headers, which takes a moment: nothing is decoded.

        Raises:
            UserError: a shard is missing, cut off, or holds another number of records than was built.
        """
        for split in self.splits.values():
            for shard in split.shards:
                path = Path(dataset_dir) / shard.file
                found = _count_records(path)
                if found != shard.num_records:
                    fault = "is missing" if found is None else f"holds {found:,} whole records"
                    raise UserError(
                        f"{path}: {fault}, expected {shard.num_records:,}: build the data set again"
                    )

    def load_vocabulary(self, dataset_dir: str | Path) -> LabelVocabulary:
        """The labels behind the ids in the records.

        Raises:
            UserError: there is no vocabulary, or one that the records were not built with.
        """
        vocabulary = LabelVocabulary.load(dataset_dir)
        if vocabulary.fingerprint != self.vocabulary_fingerprint:
            raise UserError(
                f"{Path(dataset_dir) / vocabularies.FILE_NAME}: not the vocabulary that the records were "
                "built with, so an id would mean another label; build the data set again"
            )
        return vocabulary

    def to_json(self) -> dict:
        """A plain dictionary for `json.dump`."""
        return {**asdict(self), "fingerprint": self.fingerprint}

    @classmethod
    def from_json(cls, content: Mapping, where: str = "manifest") -> Manifest:
        """The manifest of `to_json`.

        Raises:
            UserError: the content is of another format version, misses keys, or was edited.
        """
        version = content.get("format_version") if isinstance(content, Mapping) else None
        if version != FORMAT_VERSION:
            raise UserError(
                f"{where}: format version {version!r}, expected {FORMAT_VERSION}; build the data set again"
            )
        try:
            values = dict(content)
            stored = values.pop("fingerprint")
            values["splits"] = {name: _read_split(split) for name, split in values["splits"].items()}
            values["holdout"] = values["holdout"] and Holdout(**values["holdout"])
            manifest = cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where}: not a manifest ({error}); build the data set again") from None
        if stored != manifest.fingerprint:
            raise UserError(f"{where}: was edited after the build; build the data set again")
        return manifest

    def save(self, dataset_dir: str | Path) -> None:
        """Writes `manifest.json` into the data set's folder."""
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n"
        (Path(dataset_dir) / FILE_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, dataset_dir: str | Path) -> Manifest:
        """Reads the manifest of a built data set.

        Raises:
            UserError: nothing is built there, with the command that builds it; or the file is damaged.
        """
        dataset_dir = Path(dataset_dir)
        path = dataset_dir / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(_explain_unbuilt(dataset_dir)) from None
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error}); build the data set again") from None
        return cls.from_json(content, where=str(path))

    def summary(self) -> str:
        """A few lines for a person: images, labels and skips of each split."""
        lines = [_summarize_split(name, split) for name, split in self.splits.items()]
        if self.holdout:
            share = f"{self.holdout.num_images:,} of them"
            lines.insert(1, f"  {'':<10} {share:>14} held out for selection, by a hash of the image id")
        return "\n".join(lines)


def list_built(data_dir: Path) -> list[str]:
    """The names of the data sets that are built in a folder, sorted."""
    return sorted(path.parent.name for path in data_dir.glob(f"[!.]*/{FILE_NAME}"))


def format_share(part: int, whole: int) -> str:
    """A share in percent that is never rounded to none or to all.

    >>> format_share(1, 8), format_share(1, 50000), format_share(99999, 100000), format_share(3, 3)
    ('12.5 %', '0.002 %', '99.999 %', '100 %')
    """
    share, digits = 100 * part / whole, 1
    while 0 < part < whole and digits < 9 and round(share, digits) in (0, 100):
        digits += 1
    return "100 %" if part == whole else f"{share:.{digits}f} %"


def _count_records(path: Path) -> int | None:
    """The whole records of a shard; None where there is no file."""
    try:
        return sum(1 for _ in find_records(path))
    except FileNotFoundError:
        return None


def _read_split(content: Mapping) -> Split:
    return Split(**{**content, "shards": tuple(Shard(**shard) for shard in content["shards"])})


def _summarize_split(name: str, split: Split) -> str:
    line = f"  {name:<10} {split.num_images:>7,} images {split.num_labels:>9,} labels"
    if split.num_untagged:
        line += f", {count('image', split.num_untagged)} without labels"
    if split.num_unknown:
        line += f", {count('label', split.num_unknown)} unknown"
    if split.skipped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(split.skipped.items()))
        line += f"; skipped: {reasons} (listed in skipped.csv)"
    return line


def _explain_unbuilt(dataset_dir: Path) -> str:
    name, data_dir = dataset_dir.name, dataset_dir.parent
    options = "" if str(data_dir) == "data" else f" --data-dir {data_dir}"
    place = data_dir.absolute()
    if name == "demo":
        return f"the data set 'demo' is not built in {place}: run `python -m tfrecords build demo{options}`"
    if name in ("nuswide81", "nuswide1000", "coco2014", "voc2007"):
        return (
            f"the data set {name!r} is not built in {place}: unpack its owners' archives, then run "
            f"`python -m tfrecords build {name} --from FOLDER{options}`"
        )
    if name in ("coco", "voc"):
        return (
            f"the data set {name!r} is not built in {place}: run `python -m tfrecords build {name} --from "
            f"FOLDER{options}`"
        )
    meant = nearest(name, list_built(data_dir))
    return (
        f"the data set {name!r} is not built in {place}{meant}: run `python -m tfrecords build table "
        f"--from LABELS.csv --images FOLDER --name {name}{options}`"
    )
