"""A run or an export, and image files enter; each image's labels and their probabilities leave.

cnnrnn predict runs/demo/<time> photos
photos/1.jpg: 2 labels, path probability 0.31
  sky     probability 0.982   step 0.951
  clouds  probability 0.544   step 0.480
probability: the marginal, calibrated on 8,278 hold-out images (T 1.31); step: the softmax when emitted
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cnnrnn_tf.commands.search_options import SearchOptions
from cnnrnn_tf.commands.tagging import (
    Report,
    check_model,
    find_images,
    load_tagger,
    read_given,
    tag_paths,
)
from cnnrnn_tf.training.latest import find_run
from tfrecords.errors import UserError
from tfrecords.places import find_obstacle
from tfrecords.progress import show_progress
from tfrecords.quiet import silence_native_stderr
from tfrecords.words import count

if TYPE_CHECKING:
    from cnnrnn_tf.serving.tagged_image import TaggedImage

GRID_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")


@dataclass
class Predict(SearchOptions):
    """Tag images with the model of a run or of an export.

    Each label comes with its marginal, the share of the candidate paths' probability that lies on paths with
    the label, and with its step, the softmax at the step that emitted it. Where the run was calibrated on the
    hold-out, its probability stands in place of the marginal, and a last line says so. Files without labels
    are accounted for on stderr. Exit status 1 if some image could not be tagged, 2 if none could.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|EXPORT")]
    """Folder of a training run (it holds config.json) or of an export (saved_model.pb, or versions)."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")] = ()
    """Files, folders (the images directly in them) or patterns such as 'photos/*.jpg'."""
    save_grid: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also draw the images and their labels into this picture."""
    batch_size: int = 32
    """Images tagged at once; more are faster and need more memory."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one line of JSON an image."""

    def run(self) -> int:
        self.model = find_run(self.model)
        if self.batch_size < 1:
            raise UserError(f"--batch-size {self.batch_size}: expected 1 or more")
        if self.save_grid is not None and self.save_grid.suffix.lower() not in GRID_SUFFIXES:
            raise UserError(f"--save-grid {self.save_grid}: expected {', '.join(GRID_SUFFIXES)}")
        obstacle = None if self.save_grid is None else find_obstacle(self.save_grid)
        if obstacle is not None:
            raise UserError(f"--save-grid {self.save_grid}: cannot be written ({obstacle}); choose another")
        self.check_search()
        given = read_given(self.given, check_model(self.model))
        # The shell's runs/mine/* is a run and `latest`, which is the same run and no picture.
        words = [word for word in self.images if not _is_same(word, self.model)]
        found = find_images(words)
        report = Report(self.json, given)
        paths, problems = found.paths, found.problems
        for problem in problems:
            report.add_problem(*problem)
        if not paths:
            return report.exit_status(found.others)
        tagger, vocabulary = load_tagger(self.model)
        read_given(self.given, vocabulary, tagger.max_length)
        tagger = self._steer(tagger)
        calibration = tagger.calibration
        report.word = "marginal" if calibration is None else "probability"
        report.facts = {"calibrated": calibration is not None}
        with show_progress("tagging", total=len(paths), unit="image") as bar:
            report.print = bar.print
            for path, image in tag_paths(paths, lambda files: _tag(tagger, files, given, self.batch_size)):
                report.add(path, image)
                bar.update()
        report.account(found.others, found.num_folders)
        status = report.exit_status(found.others)
        if calibration is not None and not self.json:
            print(
                f"probability: the marginal, calibrated on {count('hold-out image', calibration.num_images)} "
                f"(T {calibration.temperature:.2f})"
                + ("" if self.top_k else "; step: the softmax when emitted")
            )
        if self.save_grid is not None:
            with show_progress(f"drawing {self.save_grid}"):
                _save_grid(self.save_grid, report.tagged)
        return status

    def _steer(self, tagger):
        from cnnrnn_tf.serving.tag_files import with_options

        return with_options(tagger, self.search_options)


def _tag(tagger, files: Iterator[bytes], given: list[str], batch_size: int) -> Iterator[TaggedImage]:
    """What libjpeg prints of a damaged file would stand beside the line that tells of it: it is silenced."""
    from cnnrnn_tf.serving.signatures import tag_files

    images = tag_files(tagger, files, given, batch_size)
    while True:
        with silence_native_stderr():
            image = next(images, None)
        if image is None:
            return
        yield image


def _is_same(word: str, folder: Path) -> bool:
    return folder.exists() and os.path.exists(word) and os.path.samefile(word, folder)


def _save_grid(path: Path, tagged: list[tuple[Path, TaggedImage]]) -> None:
    from cnnrnn_tf.data.images import read_thumbnail
    from cnnrnn_tf.serving.image_files import read_image
    from cnnrnn_tf.viz.figures import save_grid

    save_grid(
        path,
        pictures=[read_thumbnail(read_image(image_path)[0]) for image_path, _ in tagged],
        tags=[list(zip(image.labels, image.probabilities, strict=True)) for _, image in tagged],
        names=[image_path.name for image_path, _ in tagged],
    )
