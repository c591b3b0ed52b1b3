"""A command line enters; a built data set, or a report on one, leaves.

python -m tfrecords build demo
python -m tfrecords build table --from labels.csv --images photos --name scenes
python -m tfrecords report scenes
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tfrecords.cli import format_command, parse, run_main
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.sources import make_source

PROG = "python -m tfrecords"


@dataclass
class BuildOptions:
    """What every source needs to know."""

    data_dir: Path = Path("data")
    """Folder of all data sets; this one becomes DATA_DIR/NAME."""
    workers: int | None = None
    """Number of processes; one a core by default. The result is the same for any number."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace a data set of that name."""


@dataclass
class BuildDemo(BuildOptions):
    """Draw the demo data set on the spot: small land, sea and city scenes. Nothing is downloaded."""

    name: str = "demo"
    """Name of the data set."""
    seed: int = 0
    """Another seed, another set of scenes."""
    num_train: int = 2000
    """Training images, the hold-out among them."""
    num_test: int = 500
    """Test images."""


@dataclass
class BuildTable(BuildOptions):
    """Read your own images, listed in a CSV or JSONL table with one row an image."""

    table: Annotated[Path, tyro.conf.arg(name="from", metavar="TABLE")] = tyro.MISSING
    """The table: labels joined in one column, or one column a label (1, 0, blank or -1 for unknown)."""
    images: Path | None = None
    """Folder that the image paths start from; the table's own folder by default."""
    name: str | None = None
    """Name of the data set; the table's file name without its suffix by default."""
    image_column: str | None = None
    """Column of the image paths; by default image, image_path, file, filename or path."""
    labels_column: str | None = None
    """Column of joined labels; by default `labels`. Without it, every other column is a label."""
    split_column: str | None = None
    """Column that says train, val or test; by default `split`. Without it, every image is for training."""
    label_separator: str = ";"
    """What joins the labels in their column."""
    ignore_columns: str = ""
    """Columns that are no labels, joined by commas."""


@dataclass
class Report:
    """Say what a built data set holds: labels an image, dead labels, co-occurrence, the ceilings of top-k."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the data set."""
    data_dir: Path = Path("data")
    """Folder of all data sets."""
    k: int = 3
    """List length of the ceilings."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON instead of tables."""


COMMANDS = {"build": {"demo": BuildDemo, "table": BuildTable}, "report": Report}


def main(args: list[str] | None = None) -> int:
    """Runs one command line and returns its exit status: 0, or 2 after a mistake, told in one line."""
    return run_main(lambda: _run(args))


def _run(args: list[str] | None) -> None:
    options = parse(
        COMMANDS,
        args,
        prog=PROG,
        description="Data sets as their owners ship them become TFRecords.",
        config=(tyro.conf.DisallowNone,),
    )
    if isinstance(options, Report):
        _print_report(options)
    else:
        _build(options)


def _build(options: BuildDemo | BuildTable) -> None:
    from tfrecords.build import build

    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers {options.workers}: expected 1 or more")
    if isinstance(options, BuildDemo):
        name = options.name
        source = make_source(
            "demo", seed=options.seed, num_train=options.num_train, num_test=options.num_test
        )
    else:
        name = options.name or options.table.stem
        source = make_source(
            "table",
            table=options.table,
            images=options.images,
            image_column=options.image_column,
            labels_column=options.labels_column,
            split_column=options.split_column,
            label_separator=options.label_separator,
            ignore_columns=[column.strip() for column in options.ignore_columns.split(",") if column.strip()],
        )
    manifest = build(source, name, options.data_dir, workers=options.workers, overwrite=options.overwrite)
    _print_summary(manifest, options.data_dir)


def _print_summary(manifest: Manifest, data_dir: Path) -> None:
    options = [] if data_dir == Path("data") else ["--data-dir", data_dir]
    print(f"built {data_dir / manifest.name}")
    print(manifest.summary())
    print(f"next: {format_command('python', '-m', 'tfrecords', 'report', manifest.name, *options)}")


def _print_report(options: Report) -> None:
    from tfrecords.report import summarize

    if options.k < 1:
        raise UserError(f"--k {options.k}: expected 1 or more")
    summary = summarize(options.data_dir / options.name, k=options.k)
    if options.json:
        print(json.dumps(summary, ensure_ascii=False, indent=1))
    else:
        from tfrecords.report_tables import render

        print(render(summary), end="")


if __name__ == "__main__":
    sys.exit(main())
