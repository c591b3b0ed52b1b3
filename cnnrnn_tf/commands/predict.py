"""A run or an export, and image files enter; each image's labels and their probabilities leave.

cnnrnn predict runs/demo/<time> photos
photos/1.jpg: 2 labels, path probability 0.31
  sky     probability 0.982   step 0.951
  clouds  probability 0.544   step 0.480
probability: the marginal, calibrated on 8,278 hold-out images (T 1.31); step: the softmax when emitted
"""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tfrecords.errors import UserError
from tfrecords.quiet import silence_native_stderr

if TYPE_CHECKING:
    from cnnrnn_tf.evaluation.calibration import Calibration
    from cnnrnn_tf.serving.tagged_image import TaggedImage

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"})
GRID_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")


@dataclass
class Predict:
    """Tag images with the model of a run or of an export.

    Each label comes with its marginal, the share of the candidate paths' probability that lies on paths with
    the label, and with its step, the softmax at the step that emitted it. Where the run was calibrated on the
    hold-out, its probability stands in place of the marginal, and a last line says so. Exit status 1 if some
    file is no image, 2 if none is.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|EXPORT")]
    """Folder of a training run (it holds config.json) or of an export (saved_model.pb, or versions)."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")] = ()
    """Files, folders (the images directly in them) or patterns such as 'photos/*.jpg'."""
    given: str = ""
    """Labels known to hold for every image, joined by commas: sky,clouds."""
    save_grid: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also draw the images and their labels into this picture."""
    batch_size: int = 32
    """Images tagged at once; more are faster and need more memory."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one line of JSON an image."""

    def run(self) -> int:
        if self.batch_size < 1:
            raise UserError(f"--batch-size {self.batch_size}: expected 1 or more")
        if self.save_grid is not None and self.save_grid.suffix.lower() not in GRID_SUFFIXES:
            raise UserError(f"--save-grid {self.save_grid}: expected {', '.join(GRID_SUFFIXES)}")
        paths, problems = find_images(self.images)
        tagger, vocabulary = _load_tagger(self.model)
        given = _read_given(self.given, vocabulary, tagger.max_length)
        report = _Report(as_json=self.json, given=given, calibration=tagger.calibration)
        for word, reason in problems:
            report.add_problem(word, reason)
        for path, image in _tag(tagger, paths, given, self.batch_size):
            report.add(path, image)
        if not report.tagged:
            raise UserError(f"none of {report.num_problems} could be tagged; each line above says why")
        report.end()
        if self.save_grid is not None:
            _save_grid(self.save_grid, report.tagged)
        return 1 if report.num_problems else 0


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


def _load_tagger(path: Path):
    """Returns what `tag_files` takes, made from a run or an export, and its vocabulary."""
    if (path / "config.json").is_file():
        return _load_run_tagger(path)
    is_export = (path / "saved_model.pb").is_file()
    if not is_export and not (path.is_dir() and any(each.name.isdecimal() for each in path.iterdir())):
        found = "neither a run nor an export" if path.is_dir() else "no such folder"
        raise UserError(
            f"{path}: {found}; expected a run (config.json and checkpoints, as train.py leaves them) or an "
            "export (saved_model.pb, or folders named by version numbers)"
        )
    with silence_native_stderr():
        from cnnrnn_tf.serving.export import load_export

    export = load_export(path)
    return export, export.vocabulary


def _load_run_tagger(path: Path):
    with silence_native_stderr():
        from cnnrnn_tf.serving.signatures import Tagger
        from cnnrnn_tf.training.runs import load_run

    run = load_run(path)
    return Tagger(run.model, run.vocabulary, run.config.decoding, run.calibration), run.vocabulary


def _read_given(text: str, vocabulary, max_length: int) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    given = [vocabulary.names[i] for i in sorted({vocabulary.id(name) for name in names})]
    if len(given) > max_length:
        raise UserError(f"--given names {len(given)} labels: this model gives an image at most {max_length}")
    return given


def _tag(tagger, paths, given, batch_size) -> Iterator[tuple[Path, TaggedImage]]:
    from cnnrnn_tf.serving.signatures import tag_files

    reasons = {}

    def read(path):
        try:
            return path.read_bytes()
        except OSError as error:
            reasons[path] = error.strerror
            return b""

    images = _advance_silently(tag_files(tagger, map(read, paths), given, batch_size))
    for path, image in zip(paths, images, strict=True):
        yield path, replace(image, error=reasons.get(path, image.error))


def _advance_silently(images: Iterator[TaggedImage]) -> Iterator[TaggedImage]:
    """What libjpeg prints of a damaged file would stand beside the line that tells of it."""
    while True:
        with silence_native_stderr():
            image = next(images, None)
        if image is None:
            return
        yield image


class _Report:
    """Prints each answer as it comes, and counts."""

    def __init__(self, as_json: bool, given: list[str], calibration: Calibration | None):
        self.tagged: list[tuple[Path, TaggedImage]] = []
        self.num_problems = 0
        self._as_json = as_json
        self._given = given
        self._calibration = calibration

    def add(self, path: Path, image: TaggedImage) -> None:
        if not image.valid:
            self.add_problem(str(path), image.error)
            return
        self.tagged.append((path, image))
        if self._as_json:
            calibrated = self._calibration is not None
            _print_json({"image": str(path), **asdict(image), "calibrated": calibrated})
        else:
            word = "marginal" if self._calibration is None else "probability"
            print("\n".join(_format(path, image, self._given, word)))

    def end(self) -> None:
        """Says what the probabilities are, where they are not the marginals."""
        found = self._calibration
        if found is not None and not self._as_json:
            print(
                f"probability: the marginal, calibrated on {found.num_images:,} hold-out images "
                f"(T {found.temperature:.2f}); step: the softmax when emitted"
            )

    def add_problem(self, word: str, reason: str) -> None:
        self.num_problems += 1
        if self._as_json:
            _print_json({"image": word, "error": reason})
        else:
            print(f"{word}: {reason}", file=sys.stderr)


def _print_json(row: dict) -> None:
    print(json.dumps(row, ensure_ascii=False))


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


def _save_grid(path: Path, tagged: list[tuple[Path, TaggedImage]]) -> None:
    from cnnrnn_tf.data.images import read_thumbnail
    from cnnrnn_tf.viz.figures import save_grid

    save_grid(
        path,
        pictures=[read_thumbnail(image_path.read_bytes()) for image_path, _ in tagged],
        tags=[list(zip(image.labels, image.probabilities, strict=True)) for _, image in tagged],
        names=[image_path.name for image_path, _ in tagged],
    )
