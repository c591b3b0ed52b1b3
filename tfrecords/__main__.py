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
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tfrecords.cli import format_command, parse, run_main
from tfrecords.errors import UserError
from tfrecords.images import ImageRules
from tfrecords.manifest import Manifest
from tfrecords.sources import make_source
from tfrecords.sources.base import Source

if TYPE_CHECKING:
    from tfrecords.build import ShardWriter

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
    strict: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Refuse the data set if any image has to be skipped."""
    max_side: int | None = None
    """Shrink images whose longer side has more px, to JPEGs; by default every image is kept byte for byte."""
    quality: int | None = None
    """Of the JPEGs that --max-side makes, 1 to 100 (default 95); without it, every image becomes one."""
    decode: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Decode every image, to skip those that do not decode though they are whole; ten times slower."""
    runner: str | None = None
    """Build by Apache Beam on this runner, such as DirectRunner, FlinkRunner, SparkRunner, DataflowRunner."""
    beam_options: str = ""
    """Further options of Beam's for --runner, in one text: "--project=P --region=R"."""
    staging: str | None = None
    """For --runner: a folder or URL that this machine and all workers reach; by default in DATA_DIR."""

    def make_source(self) -> Source:
        """The source that the flags describe."""
        raise NotImplementedError


@dataclass
class BuildDemo(BuildOptions):
    """Draw the demo data set on the spot: small land, sea and city scenes. Nothing is downloaded."""

    name: str = "demo"
    """Name of the data set."""
    seed: int = 0
    """Another seed, another set of scenes."""
    num_train: int = 3000
    """Training images, the hold-out among them."""
    num_test: int = 500
    """Test images."""

    def make_source(self) -> Source:
        return make_source("demo", seed=self.seed, num_train=self.num_train, num_test=self.num_test)


_Images = Annotated[str | None, tyro.conf.arg(metavar="FOLDER|URL")]
_From = Annotated[Path, tyro.conf.arg(name="from", metavar="FOLDER")]


@dataclass
class BuildNusWide81(BuildOptions):
    """Read NUS-WIDE's 81 concepts, as its owners ship them; missing images are skipped and counted."""

    root: _From = tyro.MISSING
    """Folder that holds ImageList, ConceptsList and Groundtruth."""
    images: _Images = None
    """Folder that the names of the image lists start from; Flickr in the other folder by default."""
    untagged: Literal["drop", "keep"] = "drop"
    """Images without any label: drop them, as the paper's protocol does, or keep them."""
    name: str = "nuswide81"
    """Name of the data set."""

    def make_source(self) -> Source:
        return make_source("nuswide81", root=self.root, images=self.images, untagged=self.untagged)


@dataclass
class BuildNusWide1000(BuildNusWide81):
    """Read NUS-WIDE's 1,000 tags, as its owners ship them; missing images are skipped and counted."""

    root: _From = tyro.MISSING
    """Folder that holds ImageList and NUS_WID_Tags."""
    name: str = "nuswide1000"
    """Name of the data set."""

    def make_source(self) -> Source:
        return make_source("nuswide1000", root=self.root, images=self.images, untagged=self.untagged)


@dataclass
class BuildCoco2014(BuildOptions):
    """Read MS-COCO 2014, as its owners ship it: train2014 for training, val2014 for testing."""

    root: _From = tyro.MISSING
    """Folder that holds annotations/instances_train2014.json."""
    images: _Images = None
    """Folder that holds train2014 and val2014; the same by default."""
    download: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """First fetch, unpack and remove the owners' archives (20.4 GB), those not yet unpacked so."""
    name: str = "coco2014"
    """Name of the data set."""

    def make_source(self) -> Source:
        if self.download:
            from tfrecords.sources.coco import Coco2014

            Coco2014.download(self.root, self.images)
        return make_source("coco2014", root=self.root, images=self.images)


@dataclass
class BuildVoc2007(BuildOptions):
    """Read PASCAL VOC 2007, as its owners ship it: trainval for training, test for testing."""

    root: _From = tyro.MISSING
    """The VOCdevkit that both archives were unpacked to."""
    download: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """First fetch, unpack and remove the owners' archives (0.9 GB), those not yet unpacked so."""
    name: str = "voc2007"
    """Name of the data set."""

    def make_source(self) -> Source:
        if self.download:
            from tfrecords.sources.voc import Voc2007

            Voc2007.download(self.root)
        return make_source("voc2007", root=self.root)


@dataclass
class BuildTable(BuildOptions):
    """Read your own images, listed in a CSV or JSONL table with one row an image."""

    table: Annotated[Path, tyro.conf.arg(name="from", metavar="TABLE")] = tyro.MISSING
    """The table: labels joined in one column, or one column a label (1, 0, blank or -1 for unknown)."""
    images: _Images = None
    """Folder that the image paths start from, or a .zip or .tar; the table's own folder by default."""
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

    def __post_init__(self):
        self.name = self.name or self.table.stem

    def make_source(self) -> Source:
        return make_source(
            "table",
            table=self.table,
            images=self.images,
            image_column=self.image_column,
            labels_column=self.labels_column,
            split_column=self.split_column,
            label_separator=self.label_separator,
            ignore_columns=[column.strip() for column in self.ignore_columns.split(",") if column.strip()],
        )


@dataclass
class BuildTfds(BuildOptions):
    """Read what TensorFlow Datasets has prepared: any data set with images and several labels an image."""

    dataset: Annotated[str, tyro.conf.arg(name="from", metavar="NAME")] = tyro.MISSING
    """The data set as TFDS spells it: name, name/config, name:version."""
    tfds_dir: Path | None = None
    """Folder that it was prepared in, TFDS's data_dir; ~/tensorflow_datasets by default."""
    name: str | None = None
    """Name of the data set here; by default its name in TFDS, with - for / and :."""
    labels_feature: str | None = None
    """Feature that holds the labels, such as labels or objects/label; by default the only one that does."""
    image_feature: str | None = None
    """Feature that holds the image; by default image, or the only one."""
    splits: str | None = None
    """TFDS's splits for each here: train=train+extra,test=validation; by default those of the same name."""
    download: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Let TFDS download and prepare the data set if it is not there."""

    def __post_init__(self):
        self.name = self.name or re.sub(r"[^A-Za-z0-9._-]+", "-", self.dataset)

    def make_source(self) -> Source:
        return make_source(
            "tfds",
            dataset=self.dataset,
            data_dir=self.tfds_dir,
            labels_feature=self.labels_feature,
            image_feature=self.image_feature,
            splits=self.splits,
            download=self.download,
        )


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


COMMANDS = {
    "build": {
        "demo": BuildDemo,
        "table": BuildTable,
        "nuswide81": BuildNusWide81,
        "nuswide1000": BuildNusWide1000,
        "coco2014": BuildCoco2014,
        "voc2007": BuildVoc2007,
        "tfds": BuildTfds,
    },
    "report": Report,
    "verify": Verify,
}


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

    # What can be wrong with the flags is told before hours of a download.
    check_target(options.name, options.data_dir, options.overwrite)
    rules = ImageRules(options.max_side, options.quality, options.decode)
    write = _make_writer(options)
    manifest = build(
        options.make_source(),
        options.name,
        options.data_dir,
        workers=options.workers,
        overwrite=options.overwrite,
        strict=options.strict,
        rules=rules,
        write=write,
    )
    _print_summary(manifest, options.data_dir)


def _make_writer(options: BuildOptions) -> ShardWriter | None:
    if options.runner is None:
        for flag, value in (("--beam-options", options.beam_options), ("--staging", options.staging)):
            if value:
                raise UserError(f"{flag} is for a build by Apache Beam: name its --runner, too")
        return None
    from tfrecords.beam import BeamWriter
    from tfrecords.urls import import_beam

    import_beam()
    return BeamWriter(options.runner, options.beam_options, options.staging, options.workers)


def _print_summary(manifest: Manifest, data_dir: Path) -> None:
    options = [] if data_dir == Path("data") else ["--data-dir", data_dir]
    print(f"built {data_dir / manifest.name}")
    print(manifest.summary())
    print(f"next: {format_command('python', '-m', 'tfrecords', 'report', manifest.name, *options)}")


def _verify(options: Verify) -> int:
    from tfrecords.verify import verify

    verdict = verify(options.data_dir / options.name, workers=options.workers)
    counts = f"{verdict.num_records:,} records in {verdict.num_shards:,} shards"
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
    contents = read_contents(options.dataset_dir)
    summary = describe(contents, k=options.k)
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
