r"""`Predictions` of a split enter and a file of JSON lines leaves; or such a file of any program's, and back.

The file is text in UTF-8. Its first line is a header, every other line one image:

    {"format": "cnnrnn-predictions", "version": 1, "images": 2, "labels": ["sky", "sea"], "split": "test"}
    {"image": "a", "labels": ["sky"], "path": ["sky"], "path_log_prob": -0.2, "scores": [0.9, 0.1]}
    {"image": "b", "labels": [], "unknown": ["sea"], "path": [], "path_log_prob": -1, "scores": [0, 0.2]}

| header | |
|---|---|
| `format`, `version` | "cnnrnn-predictions" and 1 |
| `labels` | the names of the labels, in the order of every image's `scores` |
| `split` | what the images are: "test", "holdout" |
| `images` | optional: how many lines follow, so that a file that was cut off is found |
| `dataset` | optional: its name, for the protocol that depends on it |
| `counts` | optional: how many training images have each label |
| `vocabulary_fingerprint` | optional: SHA-256 of names and counts, as in `vocabulary.json`; needs `counts` |
| `records_fingerprint` | optional: the `fingerprint` of the records that were read |
| `ranking_rule` | optional: how the scores came about, in words |

| image | |
|---|---|
| `image` | its id, in no other line |
| `labels` | the names that are true of it |
| `unknown` | optional: the names of which nobody knows |
| `scores` | one number a label, the higher the likelier; null is minus infinity |
| `path` | the labels in the order in which the model emits them; in every line or in none |
| `path_log_prob` | with `path`: the natural-log probability of the path; null is minus infinity |

Nothing but `json` is needed to read it:

    with open("predictions-test.jsonl", encoding="utf-8") as file:
        header, *images = map(json.loads, file)

Scores have nine digits, from which every float32 comes back as it was. Equal scores rank by training count
and then by name, as everywhere in this project; without `counts`, by name.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnrnn_tf.evaluation.predictions import Predictions
from tfrecords.errors import UserError, nearest
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.words import count

FORMAT = "cnnrnn-predictions"
VERSION = 1
FOREIGN_RULE = "the scores in the file"
"""The ranking rule of a file that names none."""

_HEADER_KEYS = {
    "format": str,
    "version": int,
    "labels": list,
    "split": str,
    "images": int,
    "dataset": str,
    "counts": list,
    "vocabulary_fingerprint": str,
    "records_fingerprint": str,
    "ranking_rule": str,
}
_KINDS = {str: "a text", int: "a whole number", list: "a list"}
_REQUIRED_OF_HEADER = ("format", "version", "labels", "split")
_IMAGE_KEYS = ("image", "labels", "unknown", "path", "path_log_prob", "scores")
_REQUIRED_OF_IMAGE = ("image", "labels", "scores")


@dataclass(frozen=True, eq=False)
class PredictionFile:
    """The predictions of one split and what they are of.

    Attributes:
        predictions: of every image of the split.
        vocabulary: the names of the labels; all counts are 0 where the file has none.
        split: the name of the split.
        dataset: the name of the data set, "" where unknown.
        records_fingerprint: of the records that were read, "" where unknown.
    """

    predictions: Predictions
    vocabulary: LabelVocabulary
    split: str
    dataset: str = ""
    records_fingerprint: str = ""


def save_predictions(path: str | Path, content: PredictionFile) -> None:
    """Writes line by line; a reader sees the old file or the whole new one.

    What `Predictions.labels` says of unknown cells says nothing, and is not kept.

    Raises:
        UserError: a score or a path's log-probability is NaN or infinite upwards, or the tables and the
            names do not fit.
    """
    _check_content(content)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            for line in _make_lines(content):
                file.write(line + "\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_predictions(path: str | Path) -> PredictionFile:
    """Reads and checks what `save_predictions`, or another program, wrote.

    Raises:
        UserError: there is no such file, it is of another kind or damaged; the line at fault is named.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig") as file:  # some programs begin a file with a mark
            return _Reader(path, file).read()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text in UTF-8; expected predictions as JSON lines") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a file of predictions, such as "
            "predictions-test.jsonl in the folder of a run that was evaluated"
        ) from None


def _check_content(content: PredictionFile) -> None:
    predictions, vocabulary = content.predictions, content.vocabulary
    if predictions.num_labels != vocabulary.size:
        raise UserError(
            f"predictions of {count('label', predictions.num_labels)} do not go with a vocabulary of "
            f"{vocabulary.size}"
        )
    wrong = np.isnan(predictions.scores) | (predictions.scores == np.inf)
    if wrong.any():
        image, label = (int(found[0]) for found in np.nonzero(wrong))
        raise UserError(
            f"image {predictions.image_ids[image]!r} scores {predictions.scores[image, label]} for "
            f"{vocabulary.names[label]!r}, which cannot be ranked: the model that gave it has diverged"
        )
    if predictions.has_paths:
        wrong = np.isnan(predictions.path_log_probs) | (predictions.path_log_probs == np.inf)
        if wrong.any():
            image = int(np.flatnonzero(wrong)[0])
            raise UserError(
                f"the path of image {predictions.image_ids[image]!r} has a log-probability of "
                f"{predictions.path_log_probs[image]}: the model that gave it has diverged"
            )


def _can_be_encoded(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _make_lines(content: PredictionFile) -> Iterator[str]:
    predictions, names = content.predictions, content.vocabulary.names
    yield _to_json(
        {
            "format": FORMAT,
            "version": VERSION,
            "split": content.split,
            "dataset": content.dataset,
            "images": len(predictions),
            "ranking_rule": predictions.ranking_rule,
            "records_fingerprint": content.records_fingerprint,
            "vocabulary_fingerprint": content.vocabulary.fingerprint,
            "labels": list(names),
            "counts": list(content.vocabulary.counts),
        }
    )
    quoted = np.array([_to_json(name) for name in names], object)
    for i, image_id in enumerate(predictions.image_ids):
        parts = [
            f'"image": {_to_json(image_id)}',
            f'"labels": [{", ".join(quoted[predictions.truth[i]])}]',
            f'"unknown": [{", ".join(quoted[predictions.known[i] == 0])}]',
        ]
        if predictions.has_paths:
            path = predictions.paths[i, : predictions.path_lengths[i]]
            parts += [
                f'"path": [{", ".join(quoted[path])}]',
                f'"path_log_prob": {_format_numbers(predictions.path_log_probs[i : i + 1])}',
            ]
        yield f'{{{", ".join(parts)}, "scores": [{_format_numbers(predictions.scores[i])}]}}'


def _format_numbers(values: np.ndarray) -> str:
    """Nine digits: nearer to a float32 than half its distance to the next, whichever way it is parsed."""
    text = ", ".join(["%.9g"] * len(values)) % tuple(values.tolist())
    return text.replace("-inf", "null")


def _to_json(value: Any) -> str:
    return json.dumps(value)  # in ASCII: the name of a file need not be UTF-8


class _Reader:
    """One pass over the lines of one file; knows where it is, to say so."""

    def __init__(self, path: Path, lines: Iterator[str]) -> None:
        self._path = path
        self._lines = enumerate(lines, start=1)
        self._where = str(path)

    def read(self) -> PredictionFile:
        header = self._read_header()
        names = self._read_names(header)
        vocabulary = self._read_vocabulary(header, names)
        images = list(self._read_images(names))
        self._check_number(header, len(images))
        self._where = str(self._path)
        order = [names[name] for name in vocabulary.names]  # columns of the file, most frequent label first
        rank = np.argsort(order)
        try:
            predictions = _assemble(images, order, rank, header.get("ranking_rule", FOREIGN_RULE))
        except UserError as error:
            raise UserError(f"{self._path}: {error}") from None
        return PredictionFile(
            predictions,
            vocabulary,
            header["split"],
            header.get("dataset", ""),
            header.get("records_fingerprint", ""),
        )

    def _read_header(self) -> dict[str, Any]:
        header = self._next_object(int)
        if header is None or header.get("format") != FORMAT:
            raise UserError(
                f'{self._path}: its first line is no header of predictions; expected {{"format": "{FORMAT}", '
                f'"version": {VERSION}, "split": .., "labels": [..]}}'
            )
        if header.get("version") != VERSION:
            raise UserError(
                f"{self._path}: predictions of version {header.get('version')!r}, and only version {VERSION} "
                "is read here: write them again, or update this program"
            )
        self._check_keys(header, _HEADER_KEYS, _REQUIRED_OF_HEADER)
        for key, value in header.items():
            if not isinstance(value, _HEADER_KEYS[key]) or isinstance(value, bool):
                self._refuse(f"{key!r} must be {_KINDS[_HEADER_KEYS[key]]}, got {json.dumps(value)}")
        return header

    def _read_names(self, header: Mapping[str, Any]) -> dict[str, int]:
        """The column of each label."""
        names = header["labels"]
        if not names or not all(isinstance(name, str) for name in names):
            self._refuse("'labels' must be a list of at least one name")
        for name in names:
            if not _can_be_encoded(name):
                self._refuse(f"the label {name!a} holds half a character (a lone surrogate): write its text")
        columns = {name: column for column, name in enumerate(names)}
        if len(columns) < len(names):
            repeated = next(name for column, name in enumerate(names) if columns[name] != column)
            self._refuse(f"the label {repeated!r} occurs twice in 'labels'")
        return columns

    def _read_vocabulary(self, header: Mapping[str, Any], names: Mapping[str, int]) -> LabelVocabulary:
        counts = header.get("counts", [0] * len(names))
        if len(counts) != len(names) or not all(type(count) is int and count >= 0 for count in counts):
            self._refuse(f"'counts' must be {len(names)} whole numbers, one a label, none below 0")
        vocabulary = LabelVocabulary.from_counts(dict(zip(names, counts, strict=True)))
        fingerprint = header.get("vocabulary_fingerprint")
        if fingerprint is None:
            return vocabulary
        if "counts" not in header:
            self._refuse("'vocabulary_fingerprint' is over names and counts, and there are no 'counts'")
        if fingerprint != vocabulary.fingerprint:
            self._refuse(
                f"vocabulary_fingerprint {fingerprint[:12]} does not belong to its labels and counts "
                f"({vocabulary.fingerprint[:12]}); the file was edited: write it again"
            )
        return vocabulary

    def _read_images(self, names: Mapping[str, int]) -> Iterator[_Image]:
        seen: dict[str, int] = {}
        has_paths = None
        while (line := self._next_object(float)) is not None:
            self._check_keys(line, _IMAGE_KEYS, _REQUIRED_OF_IMAGE)
            if has_paths is None:
                has_paths = "path" in line
            if ("path" in line) != has_paths or ("path_log_prob" in line) != has_paths:
                self._refuse(
                    "'path' and 'path_log_prob' stand in every line of a file or in none; "
                    f"the first image has {'both' if has_paths else 'no path'}"
                )
            image_id = line["image"]
            if not isinstance(image_id, str):
                self._refuse(f"'image' must be a text, got {json.dumps(image_id)}")
            if image_id in seen:
                self._refuse(f"image {image_id!r} has been there, in line {seen[image_id]}")
            seen[image_id] = self._number
            labels, unknown = (self._read_labels(line, key, names) for key in ("labels", "unknown"))
            if not set(labels).isdisjoint(unknown):
                both = next(name for name in line["labels"] if name in line["unknown"])
                self._refuse(f"{both!r} is both in 'labels' and in 'unknown'")
            yield _Image(
                image_id,
                labels,
                unknown,
                self._read_scores(line["scores"], names),
                self._read_labels(line, "path", names) if has_paths else None,
                self._read_number(line["path_log_prob"]) if has_paths else None,
            )

    def _read_labels(self, line: Mapping[str, Any], key: str, names: Mapping[str, int]) -> list[int]:
        """The columns of some names."""
        found = line.get(key, [])
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            self._refuse(f"{key!r} must be a list of names, got {json.dumps(found)[:80]}")
        for name in found:
            if name not in names:
                self._refuse(f"{key!r} has {name!r}{nearest(name, names)}, which is no label of the header")
        if len(set(found)) < len(found):
            repeated = next(name for name in found if found.count(name) > 1)
            self._refuse(f"{key!r} has {repeated!r} twice")
        return [names[name] for name in found]

    def _read_scores(self, scores: Any, names: Mapping[str, int]) -> np.ndarray:
        if not isinstance(scores, list) or len(scores) != len(names):
            arrived = len(scores) if isinstance(scores, list) else json.dumps(scores)[:40]
            self._refuse(f"'scores' must be {len(names)} numbers, one a label, got {arrived}")
        numbers = [-math.inf if score is None else score for score in scores]
        if not all(type(number) is float for number in numbers):
            self._refuse("'scores' must be numbers, or null for minus infinity")
        with np.errstate(over="ignore"):
            values = np.array(numbers, np.float64).astype(np.float32)
        if np.isnan(values).any() or (values == np.inf).any():
            self._refuse("'scores' has a number that is NaN or too large for float32")
        return values

    def _read_number(self, value: Any) -> float:
        if value is None:
            return -math.inf
        if type(value) is not float or math.isnan(value) or value == math.inf:
            self._refuse(f"'path_log_prob' must be a number or null, got {json.dumps(value)[:40]}")
        return float(value)

    def _next_object(self, parse_int: type) -> dict[str, Any] | None:
        """The next line that is not blank; None at the end. `float` keeps the sign of a score of -0."""
        for number, text in self._lines:
            self._number, self._where = number, f"{self._path}, line {number}"
            if not text.strip():
                continue
            try:
                value = json.loads(text, parse_int=parse_int)
            except (ValueError, RecursionError):
                if number == 1:
                    return None
                self._refuse("not JSON; the file is damaged or was cut off: write it again")
            if not isinstance(value, dict):
                self._refuse("expected an object in braces")
            return value
        return None

    def _check_keys(self, line: Mapping[str, Any], allowed: Sequence[str], required: Sequence[str]) -> None:
        for key in required:
            if key not in line:
                self._refuse(f"has no {key!r}; expected {', '.join(required)}")
        for key in line:
            if key not in allowed:
                self._refuse(f"unknown key {key!r}{nearest(key, allowed)}: expected {', '.join(allowed)}")

    def _check_number(self, header: Mapping[str, Any], num_images: int) -> None:
        if header.get("images", num_images) != num_images:
            raise UserError(
                f"{self._path}: has {num_images} images where its header says {header['images']}; the file "
                "was cut off or edited: write it again"
            )

    def _refuse(self, what: str) -> None:
        raise UserError(f"{self._where}: {what}")


@dataclass(frozen=True, eq=False)
class _Image:
    """One line; labels are columns of the file."""

    image_id: str
    labels: list[int]
    unknown: list[int]
    scores: np.ndarray
    path: list[int] | None
    path_log_prob: float | None


def _assemble(
    images: Sequence[_Image], order: Sequence[int], rank: np.ndarray, ranking_rule: str
) -> Predictions:
    """The tables of all lines: `order` holds the column of each label id, `rank` the id of each column."""
    shape = (len(images), len(order))
    labels, known = np.zeros(shape, np.uint8), np.ones(shape, np.uint8)
    scores = np.zeros(shape, np.float32)
    for i, image in enumerate(images):
        labels[i, rank[image.labels]] = 1
        known[i, rank[image.unknown]] = 0
        scores[i] = image.scores[order]
    ids = [image.image_id for image in images]
    if not images or images[0].path is None:
        return Predictions.from_scores(ids, labels, known, scores, ranking_rule)
    lengths = np.array([len(image.path) for image in images], np.int32)
    paths = np.full((len(images), lengths.max()), len(order), np.int32)  # padded with END
    for i, image in enumerate(images):
        paths[i, : lengths[i]] = rank[image.path]
    log_probs = [image.path_log_prob for image in images]
    return Predictions(ids, labels, known, paths, lengths, log_probs, scores, ranking_rule)
