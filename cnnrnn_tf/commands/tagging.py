"""Finds the files, labels and model that the words of a command line mean, and prints what comes of them.

`cnnrnn predict` and `cnnrnn tag` have the model in their own process, `cnnrnn client` on a server: what two
of them read or print is here once.
"""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from cnnrnn_tf.commands.search_options import split_given
from cnnrnn_tf.serving.file_kinds import describe_others, describe_tagged, judge_file, sort_out
from cnnrnn_tf.serving.image_files import read_image
from cnnrnn_tf.serving.tagged_image import TaggedImage, format_json
from tfrecords.errors import UserError
from tfrecords.progress import loading_tensorflow, show_progress
from tfrecords.words import count

UNLIKELY = 0.01
"""The probability of a step on the way to a given label below which a person is told of it."""


class FoundImages(NamedTuple):
    """What words on a command line mean: `paths`, in their order, each once, and what else there is.

    `problems` are (word, reason); `others` counts files of folders that are no images, see `file_kinds`;
    `num_folders` were not searched.
    """

    paths: list[Path]
    problems: list[tuple[str, str]]
    others: Counter[str]
    num_folders: int


def find_images(words: Iterable[str]) -> FoundImages:
    """Returns the files that words on a command line mean, and what is wrong with the other words.

    Args:
        words: files, folders or patterns. A folder means the images directly in it, sorted: what begins as
            one, whatever its name, and what is named like one.

    Raises:
        UserError: there are no words.
    """
    words = list(words)
    if not words:
        raise UserError("no images: name files, folders or patterns such as 'photos/*.jpg' after the model")
    found = FoundImages([], [], Counter(), 0)
    for word in words:
        more, reason = _find_files(word)
        if not more.paths and not more.problems:
            more.problems.append((word, reason))
        found = FoundImages(*(one + other for one, other in zip(found, more, strict=True)))
    return found._replace(paths=list(dict.fromkeys(found.paths)))


def tag_paths(
    paths: Iterable[Path], tag: Callable[[Iterator[bytes]], Iterator[TaggedImage]]
) -> Iterator[tuple[Path, TaggedImage]]:
    """Tags files as they are read; one that cannot be read is told as such.

    Args:
        paths: the files.
        tag: takes the files' content and yields a row for each, in order.
    """
    paths, reasons = list(paths), {}

    def read(path):
        data, reasons[path] = read_image(path)
        return data

    for path, image in zip(paths, tag(map(read, paths)), strict=True):
        yield path, replace(image, error=reasons[path] or image.error)


def check_model(path: Path):
    """Returns the vocabulary of a run or an export; what is wrong with its folder is told without TensorFlow.

    Args:
        path: folder of a training run (it holds config.json), or of an export or its versions.

    Raises:
        UserError: `path` is neither, or what it holds is not finished.
    """
    if (path / "config.json").is_file():
        from cnnrnn_tf.training.runs import check_finished

        return check_finished(path)[1]
    is_export = (path / "saved_model.pb").is_file()
    if not is_export and not (path.is_dir() and any(each.name.isdecimal() for each in path.iterdir())):
        found = "neither a run nor an export" if path.is_dir() else "no such folder"
        raise UserError(
            f"{path}: {found}; expected a run (config.json and checkpoints, as train.py leaves them) or an "
            "export (saved_model.pb, or folders named by version numbers)"
        )
    from cnnrnn_tf.serving.versions import find_export, read_assets

    return read_assets(find_export(path))[1]


def load_tagger(path: Path):
    """Returns what `tag_files` takes, made from a run or an export, and its vocabulary.

    Args:
        path: see `check_model`.

    Raises:
        UserError: as `check_model`, or what the folder holds cannot be used.
    """
    check_model(path)
    if (path / "config.json").is_file():
        return _load_run_tagger(path)
    with loading_tensorflow():
        from cnnrnn_tf.serving.export import load_export

    with show_progress(f"loading {path}"):
        export = load_export(path)
    return export, export.vocabulary


def read_given(values: Iterable[str], vocabulary, max_length: int | None = None) -> list[str]:
    """Returns the labels that `--given` names, each once and the most frequent first.

    Args:
        values: see `split_given`.
        vocabulary: of the model.
        max_length: the most labels of an image; None where the model is not loaded yet.

    Raises:
        UserError: one is not in the vocabulary, or they are more than the `max_length` of an image.
    """
    given = sorted(split_given(values, vocabulary.names), key=vocabulary.names.index)
    if max_length is not None and len(given) > max_length:
        raise UserError(
            f"--given names {count('label', len(given))}: this model gives an image at most {max_length}"
        )
    return given


class Report:
    """Prints each answer as it comes, and counts."""

    def __init__(self, as_json: bool, given: Sequence[str] = ()):
        """Prints nothing yet.

        Args:
            as_json: whether to print a line of JSON an image.
            given: labels to mark as given.

        Attributes:
            word: what the probabilities are called.
            facts: what else is in the JSON of every image that has labels.
            print: what prints a line: Python's own, or that of a bar which must not be broken up.
        """
        self.tagged: list[tuple[Path, TaggedImage]] = []
        self.errors: Counter[str] = Counter()
        self.word = "probability"
        self.facts: Mapping = {}
        self.print: Callable[..., object] = print
        self._as_json = as_json
        self._given = given

    def add(self, path: Path, image: TaggedImage) -> None:
        if not image.valid:
            self.add_problem(str(path), image.error)
            return
        self.tagged.append((path, image))
        if self._as_json:
            self.print(format_json({"image": str(path), **asdict(image), **self.facts}))
        else:
            self.print("\n".join(_format(path, image, self._given, self.word)))
        if (name := _find_unlikely(image, self._given)) is not None:
            self.print(
                f"{path}: given {name!r}, which the model finds very unlikely here: look whether it is right",
                file=sys.stderr,
            )

    def add_problem(self, word: str, reason: str) -> None:
        self.errors[reason] += 1
        if self._as_json:
            self.print(format_json({"image": word, "error": reason}))
        else:
            self.print(f"{word}: {reason}", file=sys.stderr)

    def account(self, others: Counter[str], num_folders: int = 0) -> None:
        """Says on stderr what of the files found has no labels; nothing where all have, or none was read."""
        if not self.tagged or not (self.errors or others or num_folders):
            return
        line = describe_tagged(len(self.tagged) + self.errors.total(), self.errors, others)
        if num_folders:
            verb = "was" if num_folders == 1 else "were"
            line += f"; {count('folder', num_folders)} {verb} not searched (cnnrnn tag searches all)"
        print(line, file=sys.stderr)

    def exit_status(self, others: Counter[str]) -> int:
        """0, or 1 if some image has no labels.

        Args:
            others: files that are no images, of which the error tells.

        Raises:
            UserError: none has.
        """
        if not self.tagged:
            found = f"; {describe_others(others)}" if others else ""
            raise UserError(f"none of {self.errors.total()} could be tagged; each line above says why{found}")
        return 1 if self.errors else 0


def _load_run_tagger(path: Path):
    with loading_tensorflow():
        from cnnrnn_tf.serving.signatures import Tagger
        from cnnrnn_tf.training.runs import load_run

    with show_progress(f"loading {path}"):
        run = load_run(path)
        return Tagger(run.model, run.vocabulary, run.config.decoding, run.calibration), run.vocabulary


def _find_files(word: str) -> tuple[FoundImages, str]:
    path, others = Path(word), Counter()
    if path.is_file():
        return FoundImages([path], [], others, 0), ""
    if path.is_dir():
        entries = sorted(path.iterdir())
        files = [each for each in entries if not each.is_dir()]
        judged = list(sort_out(map(os.fspath, files), judge_file, others))
        paths = [Path(name) for name, reason in judged if not reason]
        problems = [(name, reason) for name, reason in judged if reason]
        return FoundImages(paths, problems, others, len(entries) - len(files)), "no images in this folder"
    if glob.has_magic(word):
        entries = sorted(Path(each) for each in glob.glob(word))
        files = [each for each in entries if each.is_file()]
        return FoundImages(files, [], others, sum(each.is_dir() for each in entries)), "no file matches"
    return FoundImages([], [], others, 0), "no such file"


def _find_unlikely(image: TaggedImage, given: Sequence[str]) -> str | None:
    """The given label that a step leads to of which the model says less than `UNLIKELY`; None without one."""
    is_unlikely = False
    for name, step in zip(image.labels, image.step_probabilities, strict=False):
        is_unlikely |= step < UNLIKELY
        if is_unlikely and name in given:
            return name
    return None


def _format(path: Path, image: TaggedImage, given: Sequence[str], word: str) -> Iterator[str]:
    """The lines of one image; `word` is what its probabilities are called."""
    found = count("label", len(image.labels)) if image.labels else "no labels"
    width = max(map(len, image.labels), default=0)
    if image.path_probability is None:
        yield f"{path}: {found}, the most probable first"
        for name, probability in zip(image.labels, image.probabilities, strict=True):
            yield f"  {name:<{width}}  {word} {probability:.3f}"
        return
    yield f"{path}: {found}, path probability {image.path_probability:.3g}"
    rows = zip(image.labels, image.probabilities, image.step_probabilities, strict=True)
    for name, probability, step in rows:
        known = "   given" if name in given else ""
        yield f"  {name:<{width}}  {word} {probability:.3f}   step {step:.3f}{known}"
