"""Words of a command line enter; the files, labels and model that they mean leave, and what is printed.

`cnnrnn predict` and `cnnrnn tag` have the model in their own process, `cnnrnn client` on a server: what two
of them read or print is here once.
"""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from cnnrnn_tf.serving.tagged_image import TaggedImage, format_json
from tfrecords.errors import UserError
from tfrecords.progress import loading_tensorflow, show_progress

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"})


def find_images(words: Iterable[str]) -> tuple[list[Path], list[tuple[str, str]]]:
    """Returns the files that words on a command line mean, each once, and what is wrong with the other words.

    Args:
        words: files, folders or patterns. A folder means the files directly in it that are named like images.

    Returns:
        paths: in the order of the words, sorted within a folder or a pattern.
        problems: (word, reason).

    Raises:
        UserError: there are no words.
    """
    words = list(words)
    if not words:
        raise UserError("no images: name files, folders or patterns such as 'photos/*.jpg' after the model")
    paths, problems = {}, []
    for word in words:
        found, reason = _find_files(word)
        paths.update(dict.fromkeys(found))
        if not found:
            problems.append((word, reason))
    return list(paths), problems


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
        try:
            return path.read_bytes()
        except OSError as error:
            reasons[path] = error.strerror
            return b""

    for path, image in zip(paths, tag(map(read, paths)), strict=True):
        yield path, replace(image, error=reasons.get(path, image.error))


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


def read_given(text: str, vocabulary, max_length: int | None = None) -> list[str]:
    """Returns the labels named in `text`, joined by commas, each once and the most frequent first.

    Args:
        text: names, joined by commas.
        vocabulary: of the model.
        max_length: the most labels of an image; None where the model is not loaded yet.

    Raises:
        UserError: one is not in the vocabulary, or they are more than the `max_length` of an image.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    given = [vocabulary.names[i] for i in sorted({vocabulary.id(name) for name in names})]
    if max_length is not None and len(given) > max_length:
        raise UserError(f"--given names {len(given)} labels: this model gives an image at most {max_length}")
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
        self.num_problems = 0
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

    def add_problem(self, word: str, reason: str) -> None:
        self.num_problems += 1
        if self._as_json:
            self.print(format_json({"image": word, "error": reason}))
        else:
            self.print(f"{word}: {reason}", file=sys.stderr)

    def exit_status(self) -> int:
        """0, or 1 if some file has no labels.

        Raises:
            UserError: none has.
        """
        if not self.tagged:
            raise UserError(f"none of {self.num_problems} could be tagged; each line above says why")
        return 1 if self.num_problems else 0


def _load_run_tagger(path: Path):
    with loading_tensorflow():
        from cnnrnn_tf.serving.signatures import Tagger
        from cnnrnn_tf.training.runs import load_run

    with show_progress(f"loading {path}"):
        run = load_run(path)
        return Tagger(run.model, run.vocabulary, run.config.decoding, run.calibration), run.vocabulary


def _find_files(word: str) -> tuple[list[Path], str]:
    path = Path(word)
    if path.is_file():
        return [path], ""
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.is_file())
        return [each for each in files if each.suffix.lower() in IMAGE_SUFFIXES], "no images in this folder"
    if glob.has_magic(word):
        files = sorted(Path(each) for each in glob.glob(word))
        return [each for each in files if each.is_file()], "no file matches"
    return [], "no such file"


def _format(path: Path, image: TaggedImage, given: list[str], word: str) -> Iterator[str]:
    """The lines of one image; `word` is what its probabilities are called."""
    num_labels = len(image.labels)
    count = "no labels" if not num_labels else "1 label" if num_labels == 1 else f"{num_labels} labels"
    yield f"{path}: {count}, path probability {image.path_probability:.3g}"
    width = max(map(len, image.labels), default=0)
    rows = zip(image.labels, image.probabilities, image.step_probabilities, strict=True)
    for name, probability, step in rows:
        known = "   given" if name in given else ""
        yield f"  {name:<{width}}  {word} {probability:.3f}   step {step:.3f}{known}"
