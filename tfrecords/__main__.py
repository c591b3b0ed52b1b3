"""A command line enters; a built data set, or a report on one, leaves.

python -m tfrecords build demo
python -m tfrecords build nuswide81 --from NUS-WIDE --images NUS-WIDE/Flickr
python -m tfrecords build voc2007 --from VOCdevkit --download
python -m tfrecords build table --from labels.csv --images photos --name scenes
python -m tfrecords report scenes
python -m tfrecords verify scenes
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tfrecords.build_options import BUILD_COMMANDS, BuildOptions
from tfrecords.cli import format_command, parse, run_main
from tfrecords.errors import UserError
from tfrecords.images import ImageRules
from tfrecords.manifest import Manifest
from tfrecords.progress import loading, loading_tensorflow, show_progress
from tfrecords.words import count

if TYPE_CHECKING:
    from tfrecords.build import ShardWriter

PROG = "python -m tfrecords"


@dataclass
class Report:
    """Say, and draw, what a data set holds: labels, co-occurrence, image sizes, the ceilings of top-k."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the data set."""
    data_dir: Path = Path("data")
    """Folder of all data sets."""
    k: int = 3
    """List length of the ceilings."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON instead of tables."""
    figures: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for the PNG files of co-occurrence, label frequencies and image sizes; DATA_DIR/NAME/report by
    default."""
    no_figures: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Draw nothing."""

    @property
    def dataset_dir(self) -> Path:
        """The folder of the data set."""
        return self.data_dir / self.name


@dataclass
class Verify:
    """Read every record again: CRC, hash, pixels, label order, all counts. Exit status 1 if one is wrong."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the data set."""
    data_dir: Path = Path("data")
    """Folder of all data sets."""
    workers: int | None = None
    """Number of processes; one a core by default."""


COMMANDS = {"build": BUILD_COMMANDS, "report": Report, "verify": Verify}


def main(args: list[str] | None = None) -> int:
    """Runs one command line and returns its exit status: 0, or 2 after a mistake, told in one line."""
    return run_main(lambda: _run(args))


def _run(args: list[str] | None) -> int | None:
    options = parse(
        COMMANDS,
        args,
        prog=PROG,
        description="Data sets as their owners ship them become TFRecords.",
        config=(tyro.conf.DisallowNone,),
    )
    if isinstance(options, Report):
        return _print_report(options)
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers {options.workers}: expected 1 or more")
    return _verify(options) if isinstance(options, Verify) else _build(options)


def _build(options: BuildOptions) -> None:
    from tfrecords.build import build, check_target

    # Flags first, then what is on the disk, and both before hours of a download.
    rules = ImageRules(options.max_side, options.quality, options.decode)
    _check_beam_flags(options)
    check_target(options.name, options.data_dir, options.overwrite)
    write = _make_writer(options)
    manifest = build(
        options.make_source(),
        options.name,
        options.data_dir,
        workers=options.workers,
        isolate=True,
        overwrite=options.overwrite,
        strict=options.strict,
        allow_missing=options.allow_missing,
        rules=rules,
        write=write,
        tell=print,
    )
    _print_summary(manifest, options.data_dir)


def _check_beam_flags(options: BuildOptions) -> None:
    for flag, value in (("--beam-options", options.beam_options), ("--staging", options.staging)):
        if value and options.runner is None:
            raise UserError(f"{flag} is for a build by Apache Beam: name its --runner, too")


def _make_writer(options: BuildOptions) -> ShardWriter | None:
    if options.runner is None:
        return None
    from tfrecords.beam import BeamWriter
    from tfrecords.urls import import_beam

    with loading("Apache Beam", "apache_beam"):
        import_beam()
    return BeamWriter(options.runner, options.beam_options, options.staging, options.workers)


def _print_summary(manifest: Manifest, data_dir: Path) -> None:
    options = [] if data_dir == Path("data") else ["--data-dir", data_dir]
    print(f"built {data_dir / manifest.name}")
    print(manifest.summary())
    for note in manifest.remarks():
        print(f"note: {note}")
    print(f"next: {format_command('python', '-m', 'tfrecords', 'report', manifest.name, *options)}")


def _verify(options: Verify) -> int:
    from tfrecords.verify import verify

    verdict = verify(options.data_dir / options.name, workers=options.workers, isolate=True)
    counts = f"{count('record', verdict.num_records)} in {count('shard', verdict.num_shards)}"
    head = "yes: as it was built" if verdict.ok else "no: not as it was built"
    print(f"{head}: {options.name}, {counts}")
    for problem in verdict.problems:
        print(f"  FAIL {problem}")
    for note in verdict.notes:
        print(f"  note {note}")
    if not verdict.ok:
        print("build the data set again: python -m tfrecords build ... --overwrite")
    return 0 if verdict.ok else 1


def _print_report(options: Report) -> None:
    from tfrecords.report import describe, read_contents

    if options.k < 1:
        raise UserError(f"--k {options.k}: expected 1 or more")
    if options.no_figures and options.figures is not None:
        raise UserError(f"--figures {options.figures} and --no-figures exclude each other: leave one out")
    Manifest.load(options.dataset_dir)  # a data set that is not built is told of first
    folder = None if options.no_figures else options.figures or options.dataset_dir / "report"
    if folder is not None:
        from tfrecords.report_figures import check_folder, save_figures

        check_folder(folder)
    with loading_tensorflow():
        import tensorflow  # noqa: F401
    contents = read_contents(options.dataset_dir, progress=True)
    with show_progress("counting labels and pairs of them"):
        summary = describe(contents, k=options.k)
    with show_progress("drawing the figures"):
        figures = [] if folder is None else save_figures(contents, folder)
    if options.json:
        summary["figures"] = [str(path) for path in figures]
        print(json.dumps(summary, ensure_ascii=False, indent=1))
    else:
        from tfrecords.report_tables import render

        print(render(summary), end="")
        if figures:
            print(f"\nfigures: {', '.join(path.name for path in figures)} in {folder}")


if __name__ == "__main__":
    sys.exit(main())
