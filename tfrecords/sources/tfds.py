"""A data set that TensorFlow Datasets has prepared enters; annotations leave.

    python -m tfrecords build tfds --from coco/2014 --splits train=train,test=validation

Labels and images are read from the TFRecords that TFDS wrote, which needs neither the data set's code nor a
network: one of your own that was prepared elsewhere is read too. `tfds_features` says what holds labels.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tfrecords.annotations import Annotation, Skip
from tfrecords.cli import format_command
from tfrecords.errors import UserError, nearest
from tfrecords.example import example_class
from tfrecords.framing import DamagedFile, checksum, read_records
from tfrecords.manifest import SPLITS
from tfrecords.quiet import silence_native_stderr
from tfrecords.sources.base import Source
from tfrecords.sources.tfds_features import BadRecord, find_image, find_labels, read_image

_FILE_FORMAT = "tfrecord"
_CRC_BYTES = 4


class TfdsSource(Source):
    """The images of one data set. An image's id is its `tfds_id`: its shard's name, and its number there.

    An image whose labels are all unknown (TFDS writes -1) is skipped as `unlabelled`, and one whose record is
    not what the data set's features say as `bad_annotation`.

    Args:
        dataset: as TFDS spells it: `name`, `name/config`, `name:version` or `name/config:version`.
        data_dir: the folder that it was prepared in; TFDS's own by default.
        labels_feature: path of the feature that holds labels; by default the only one that does.
        image_feature: path of the image; by default `image`, or the only one.
        splits: the splits of TFDS that each split here is read from, such as
            `train=train+extra,test=validation`; by default train, validation and test, where they are.
        download: prepare the data set first, where it is not.
    """

    name = "tfds"

    def __init__(
        self,
        dataset: str,
        data_dir: str | Path | None = None,
        *,
        labels_feature: str | None = None,
        image_feature: str | None = None,
        splits: str | None = None,
        download: bool = False,
    ):
        info = _open_prepared(dataset, None if data_dir is None else os.fspath(data_dir), download)
        self.full_name = info.full_name
        self.image_feature = find_image(info.features, image_feature, self.full_name)
        self.labels_feature = find_labels(info.features, labels_feature, self.full_name)
        self.split_words = _choose_splits(info, splits)
        self._shards = {
            split: [shard for word in words for shard in _list_shards(info.splits[word])]
            for split, words in self.split_words.items()
        }

    def splits(self) -> tuple[str, ...]:
        return tuple(self.split_words)

    def annotations(self, split: str) -> Iterator[Annotation | Skip]:
        has_labels = False
        for shard in self._shards[split]:
            for item in self._read_shard(shard):
                if isinstance(item, Annotation) and (item.labels or item.ignored):
                    has_labels = True
                yield item
        if not has_labels:
            raise UserError(
                f"{self.full_name}: {self.labels_feature.path} names nothing on any image of the split "
                f"{'+'.join(self.split_words[split])}: where the owners keep its labels back, choose others "
                "with --splits, such as train=train,test=validation"
            )

    def image_file(self, annotation: Annotation) -> str | None:
        return _Place.parse(annotation.image_path).file

    def read_image(self, annotation: Annotation) -> bytes:
        place = _Place.parse(annotation.image_path)
        with open(place.file, "rb") as file:
            file.seek(place.start)
            data = file.read(place.stop - place.start)
            crc = file.read(_CRC_BYTES).hex()
        try:
            if crc == place.crc:
                return read_image(_parse(data), self.image_feature)
        except BadRecord:
            pass  # the data have changed, if not their checksum
        raise OSError("the file has changed since its labels were read")

    def file_name(self, annotation: Annotation) -> str:
        return annotation.image_id

    def label_names(self) -> tuple[str, ...] | None:
        return self.labels_feature.names

    def arguments(self) -> dict:
        return {
            "from": self.full_name,
            "labels_feature": self.labels_feature.path,
            "image_feature": self.image_feature,
            "splits": {split: "+".join(words) for split, words in self.split_words.items()},
        }

    def _read_shard(self, shard: _Shard) -> Iterator[Annotation | Skip]:
        number = 0
        for place, data in _read_records(shard.file):
            yield self._read_labels(f"{os.path.basename(shard.file)}__{number}", place, data)
            number += 1
        if number != shard.num_records:
            raise UserError(
                f"{shard.file}: holds {number:,} records, and dataset_info.json says {shard.num_records:,}: "
                f"prepare {self.full_name} again"
            )

    def _read_labels(self, image_id: str, place: _Place, data: bytes) -> Annotation | Skip:
        try:
            example = _parse(data)
            read_image(example, self.image_feature)
            found = self.labels_feature.read(example)
        except BadRecord as error:
            return Skip(image_id, "bad_annotation", f"{image_id}: {error}")
        if found is None:
            return Skip(image_id, "unlabelled", f"{image_id}: all its labels are unknown")
        return Annotation(image_id, str(place), found.labels, found.ignored, found.boxes)


class _Shard(NamedTuple):
    file: str
    num_records: int


class _Place(NamedTuple):
    """Where a record's data are, as an `Annotation.image_path`: `<file>#<start>-<stop>-<crc>`.

    `start` and `stop` are bytes of the file; `crc` is the checksum that stands behind the data, by which an
    annotation is told from that of a record prepared anew.
    """

    file: str
    start: int
    stop: int
    crc: str

    def __str__(self) -> str:
        return f"{self.file}#{self.start}-{self.stop}-{self.crc}"

    @classmethod
    def parse(cls, text: str) -> _Place:
        file, _, numbers = text.rpartition("#")
        start, stop, crc = numbers.split("-")
        return cls(file, int(start), int(stop), crc)


def _parse(data: bytes):
    from google.protobuf.message import DecodeError

    try:
        return example_class().FromString(data)
    except DecodeError:
        raise BadRecord("not a tf.train.Example") from None


def _read_records(path: str) -> Iterator[tuple[_Place, bytes]]:
    """The records of one shard in their order, each checked against its CRC.

    Raises:
        UserError: the file is not there, or damaged.
    """
    again = "prepare the data set again"
    try:
        for start, data in read_records(path):
            yield _Place(path, start, start + len(data), checksum(data).hex()), data
    except DamagedFile as error:
        raise UserError(f"{path}: is damaged ({error}): {again}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: {again}") from None


def _open_prepared(dataset: str, data_dir: str | None, download: bool):
    """The `tfds.core.DatasetInfo` of a data set whose files are there.

    Raises:
        UserError: TFDS is not installed, knows no such data set, or has not prepared it as TFRecords.
    """
    builder = _find_builder(dataset, data_dir)
    if download and not _is_prepared(builder):
        try:
            builder.download_and_prepare()
        except Exception as error:  # of the data set's own code, of the network, of the disk
            raise UserError(
                f"{dataset}: TensorFlow Datasets cannot prepare it: {_first_line(error)}"
            ) from error
    if not _is_prepared(builder):
        raise UserError(
            f"{dataset}: not prepared in {builder.data_dir}{_list_prepared(Path(builder.data_dir).parent)}: "
            f"pass --download, or run `{_format_preparation(dataset, data_dir)}`"
        )
    file_format = builder.info.file_format.value
    if file_format != _FILE_FORMAT:
        raise UserError(
            f"{builder.info.full_name}: prepared as {file_format}, and only {_FILE_FORMAT} is read: prepare "
            f"it in another folder with file_format={_FILE_FORMAT!r}, or pass --tfds-dir OTHER --download"
        )
    return builder.info


def _find_builder(dataset: str, data_dir: str | None):
    tfds = _import_tfds()
    try:
        return tfds.builder(dataset, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        folder = data_dir or "~/tensorflow_datasets or $TFDS_DATA_DIR"
        name = dataset.partition("/")[0].partition(":")[0]
        known = [*tfds.list_builders(with_community_datasets=False), *_list_folders(data_dir)]
        hint = "" if name in known else nearest(name, known)
        there = "" if data_dir is None else _list_prepared(Path(data_dir) / name)
        raise UserError(
            f"{dataset!r}{hint}: TensorFlow Datasets knows no such data set, and {folder} holds none{there}: "
            "give a name such as coco/2014 or voc/2007:5.0.0 with --from, and the folder with --tfds-dir"
        ) from None
    except Exception as error:  # of the data set's own code
        raise UserError(f"{dataset!r}: TensorFlow Datasets refuses it: {_first_line(error)}") from error


def _import_tfds():
    with silence_native_stderr():
        import tensorflow  # noqa: F401  # its greetings would come later, when TFDS first needs it
    try:
        import tensorflow_datasets
    except ModuleNotFoundError as error:
        if error.name != "tensorflow_datasets":
            raise
        raise UserError(
            "the source tfds needs TensorFlow Datasets: run `pip install tensorflow-datasets`"
        ) from None
    return tensorflow_datasets


def _format_preparation(dataset: str, data_dir: str | None) -> str:
    # The program `tfds` needs packages that TensorFlow Datasets does not install.
    arguments = json.dumps(dataset) + ("" if data_dir is None else f", data_dir={json.dumps(data_dir)}")
    return format_command("python", "-c", f"import tensorflow_datasets as t; t.load({arguments})")


def _is_prepared(builder) -> bool:
    return (Path(builder.data_dir) / "dataset_info.json").is_file()


def _list_prepared(folder: Path) -> str:
    found = sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("dataset_info.json"))
    return f" (there is {', '.join(found)})" if found else ""


def _list_folders(data_dir: str | None) -> list[str]:
    with contextlib.suppress(OSError):  # then there is nothing to suggest
        return [] if data_dir is None else sorted(os.listdir(data_dir))
    return []


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _choose_splits(info, wanted: str | None) -> dict[str, tuple[str, ...]]:
    """Split here -> the splits of TFDS that it is read from."""
    known = list(info.splits)
    found = ", ".join(known)
    if wanted is None:
        chosen = {split: (split,) for split in SPLITS if split in known}
        if "train" not in chosen:
            raise UserError(
                f"{info.full_name}: has no split train, but {found}: say which is for what with --splits, as "
                f"in train={known[0]}"
            )
        return chosen
    chosen = {}
    for part in wanted.split(","):
        split, _, words = (word.strip() for word in part.partition("="))
        if split not in SPLITS or not words or split in chosen:
            hint = "" if split in SPLITS else nearest(split, SPLITS)
            raise UserError(
                f"--splits {wanted}: {part.strip()!r} is not understood{hint}: expected "
                f"{', '.join(SPLITS)}, each once, as in train=train+extra,test=validation"
            )
        chosen[split] = tuple(word.strip() for word in words.split("+"))
        for word in chosen[split]:
            if word not in known:
                raise UserError(
                    f"--splits {wanted}: no split {word!r} in {info.full_name}{nearest(word, known)}: "
                    f"expected {found}"
                )
    return {split: chosen[split] for split in SPLITS if split in chosen}


def _list_shards(split) -> list[_Shard]:
    return [
        _Shard(os.fspath(path), num_records)
        for path, num_records in zip(split.filepaths, split.shard_lengths, strict=True)
    ]
