"""A folder of images and a run or an export enter; a file with one row of JSON an image leaves.

cnnrnn tag photos --model runs/demo/<time>/export --out tags.jsonl
tagged 998,812 of 1,000,000 images: tags.jsonl; 1,188 could not be (900 cut off, 288 not an image)
of these 20,000 now, 81.2 a second

A row is what `cnnrnn predict --json` prints, its image named by the path from the folder. While the command
runs, the rows are in tags.jsonl.part; a file called tags.jsonl is complete. Stopped or killed at any time,
the same command goes on, and ends with the bytes of an unbroken run; on a finished file it tags what has been
added to the folder since. tags.jsonl.state.json says what the rows were made of.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cnnrnn_tf.commands.search_options import OPTIONS, SearchOptions
from cnnrnn_tf.commands.tagging import check_model, load_tagger, read_given
from cnnrnn_tf.serving.file_kinds import describe_tagged
from cnnrnn_tf.serving.image_walk import walk_images
from cnnrnn_tf.serving.tag_output import check_output
from cnnrnn_tf.training.latest import find_run
from tfrecords.errors import UserError
from tfrecords.progress import Progress, loading, loading_tensorflow, show_progress
from tfrecords.quiet import silence_native_stderr

_RUN_FILES = ("config.json", "vocabulary.json", "calibration.json", "checkpoints/best.keras")
_EXPORT_FILES = ("saved_model.pb", "variables/*", "assets/*")


@dataclass
class Tag(SearchOptions):
    """Tag a folder of images, however many, into a file with one line of JSON an image.

    Subfolders are searched, too. An image is what begins as one, whatever its name, and what is named like
    one. Those that cannot be tagged have lines as well, with an error in place of labels; other files have
    none, and the summary counts them. Stopped at any time, the same command goes on where it was; when images
    are added later, it tags those. Exit status 1 if some image could not be tagged.
    """

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the images; for --runner also a URL that Beam opens."""
    model: Annotated[Path, tyro.conf.arg(metavar="RUN|EXPORT")]
    """Folder of a training run, or of an export; for --runner an export that all workers reach."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The file of rows, such as tags.jsonl; for --runner a folder or URL of several such files."""
    batch_size: int = 32
    """Images tagged at once; more are faster and need more memory. Two batches are under way at a time."""
    readers: int = 8
    """Files read at once; more help where a disk is far away."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Begin anew, whatever is in FILE."""
    runner: str | None = None
    """Tag by Apache Beam on this runner, such as DirectRunner, FlinkRunner, SparkRunner, DataflowRunner."""
    beam_options: str = ""
    """Further options of Beam's for --runner, in one text: "--project=P --region=R"."""

    def run(self) -> int:
        self.model = find_run(self.model)
        for flag, value in (("--batch-size", self.batch_size), ("--readers", self.readers)):
            if value < 1:
                raise UserError(f"{flag} {value}: expected 1 or more")
        self.check_search()
        if self.runner is not None:
            return self._run_beam()
        if self.beam_options:
            raise UserError("--beam-options is for tagging by Apache Beam: name its --runner, too")
        return self._run_here()

    def _run_here(self) -> int:
        _check_folder(self.folder)
        read_given(self.given, check_model(self.model))
        check_output(Path(self.out), self.overwrite)
        tagger, vocabulary = load_tagger(self.model)
        from cnnrnn_tf.serving.tag_files import with_options
        from cnnrnn_tf.serving.tag_folder import tag_folder
        from cnnrnn_tf.serving.tag_output import open_output

        given = read_given(self.given, vocabulary, tagger.max_length)
        made_of = {**self._made_of(given), "FOLDER": os.path.realpath(self.folder)}
        tagger = with_options(tagger, self.search_options)
        with (
            open_output(Path(self.out), made_of, self.overwrite) as output,
            _show_progress(self.folder) as bar,
        ):
            summary = tag_folder(
                tagger,
                self.folder,
                output,
                given,
                self.batch_size,
                self.readers,
                on_start=bar.skip,
                on_images=bar.update,
            )
        print(describe_tagged(summary.num_images, summary.errors, summary.others, self.out))
        if summary.num_added == 0:
            print("all of them before")
        else:
            now = (
                f"of these {summary.num_added:,} now" if summary.num_added < summary.num_images else "all now"
            )
            print(f"{now}, {summary.num_added / summary.wall_s:.1f} a second")
        return 1 if summary.errors else 0

    def _run_beam(self) -> int:
        from tfrecords.urls import import_beam

        read_given(self.given, check_model(self.model))
        with loading("Apache Beam", "apache_beam"):
            import_beam()
        with loading_tensorflow():
            from cnnrnn_tf.serving.export import load_export
            from cnnrnn_tf.serving.tag_beam import tag_by_beam
            from cnnrnn_tf.serving.tag_files import with_options

        with show_progress(f"loading {self.model}"):
            export = load_export(self.model)
        with_options(export, self.search_options)  # or every worker would find that they are out of bounds
        given = read_given(self.given, export.vocabulary, export.max_length)
        num_images, errors, others = tag_by_beam(
            str(export.path.absolute()),
            self.folder,
            self.out,
            made_of=self._made_of(given),
            given=given,
            search=self.search_options,
            batch_size=self.batch_size,
            num_readers=self.readers,
            runner=self.runner,
            options=self.beam_options,
            overwrite=self.overwrite,
        )
        print(describe_tagged(num_images, errors, others, self.out))
        return 1 if errors else 0

    def _made_of(self, given: list[str]) -> dict:
        """What the rows depend on, beside the images, as the command line calls it; None is as exported."""
        options = dict.fromkeys(OPTIONS) | self.search_options
        named = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
        return {"model": hash_model(self.model), "--given": given, **named}


def hash_model(path: Path) -> str:
    """Returns a SHA-256, hexadecimal, of the files that a run's or an export's answers depend on."""
    if (path / "config.json").is_file():
        files = [path / name for name in _RUN_FILES if (path / name).is_file()]
    else:
        from cnnrnn_tf.serving.versions import find_export

        path = find_export(path)
        files = sorted(file for pattern in _EXPORT_FILES for file in path.glob(pattern) if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        digest.update(f"{file.relative_to(path)} {found}\n".encode())
    return digest.hexdigest()


def _check_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        found = "is a file" if os.path.exists(folder) else "no such folder"
        raise UserError(f"{folder}: {found}; expected a folder of images")


@contextlib.contextmanager
def _show_progress(folder: str) -> Iterator[Progress]:
    """A bar on stderr, where nothing else is printed meanwhile: libjpeg has a line for every damaged file.

    How many images there are is found beside the tagging: of a million, that takes a while.
    """

    def count():
        with contextlib.suppress(OSError):
            bar.set_total(sum(1 for _ in walk_images(folder)))

    with show_progress("tagging", unit="image") as bar, silence_native_stderr():
        threading.Thread(target=count, daemon=True).start()
        yield bar
