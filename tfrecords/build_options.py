"""Flags of `python -m tfrecords build`: one dataclass a source, each of which makes its `Source`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tfrecords.errors import UserError
from tfrecords.sources import make_source
from tfrecords.sources.base import Source
from tfrecords.sources.split_files import parse_split_files
from tfrecords.sources.table_options import parse_split_words


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
    allow_missing: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Build though more than a tenth of a split's images are missing; tables of results then say so."""
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


_Lists = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]  # --from a.csv b.csv --from c.csv
_Several = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
_Images = Annotated[str | None, tyro.conf.arg(metavar="FOLDER|URL")]
_From = Annotated[Path, tyro.conf.arg(name="from", metavar="FOLDER")]


@dataclass
class BuildNusWide81(BuildOptions):
    """Read NUS-WIDE's 81 concepts, as its owners ship them; missing images are skipped and counted."""

    root: Annotated[_Several, tyro.conf.arg(name="from", metavar="FOLDER|LIST")] = ()
    """Folder that holds ImageList, ConceptsList and Groundtruth; or lists of lines such as `path 0 1 0`, one
    a split: train=database.txt,test=test.txt."""
    images: _Images = None
    """Folder that the names of the image lists start from, or that holds all images; Flickr in the other
    folder by default, of other lists their own."""
    names: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Of lists such as `path 0 1 0`, the names of the columns, one a line; Concepts81.txt beside them by
    default."""
    untagged: Literal["drop", "keep"] = "drop"
    """Images without any label: drop them, as the paper's protocol does, or keep them."""
    name: str = "nuswide81"
    """Name of the data set."""

    def __post_init__(self):
        if not self.root:
            raise UserError("missing --from")

    def make_source(self) -> Source:
        from tfrecords.sources.nuswide_lists import NusWideLists

        if NusWideLists.are_lists(self.root):
            return NusWideLists(self.root, self.images, self.names, self.untagged)
        if self.names is not None:
            raise UserError(
                f"--names {self.names}: is for lists such as `path 0 1 0`; {self.root[0]} has its own names: "
                "leave it out"
            )
        return make_source("nuswide81", root=self.root[0], images=self.images, untagged=self.untagged)


@dataclass
class BuildNusWide1000(BuildOptions):
    """Read NUS-WIDE's 1,000 tags, as its owners ship them; missing images are skipped and counted."""

    root: _From = tyro.MISSING
    """Folder that holds ImageList and NUS_WID_Tags."""
    images: _Images = None
    """Folder that the names of the image lists start from, or that holds all images; Flickr in the other
    folder by default."""
    untagged: Literal["drop", "keep"] = "drop"
    """Images without any label: drop them, as the paper's protocol does, or keep them."""
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
class BuildCoco(BuildOptions):
    """Read your own data in COCO's form: COCO 2017, exports of Roboflow, CVAT, Label Studio, FiftyOne."""

    files: Annotated[_Several, tyro.conf.arg(name="from", metavar="JSON|FOLDER")] = ()
    """The JSON, or the folder that it is in; one a split: train=a.json,test=b.json."""
    images: Annotated[_Several, tyro.conf.arg(metavar="FOLDER|URL")] = ()
    """Folder of the images, or a .zip or .tar; by default the JSON's own, or the one above. One a split:
    train=A,test=B."""
    name: str = "coco"
    """Name of the data set."""

    def __post_init__(self):
        if not self.files:
            raise UserError("missing --from")

    def make_source(self) -> Source:
        return make_source("coco", files=self.files, images=self.images)


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
class BuildVoc(BuildOptions):
    """Read your own data in PASCAL VOC's form: VOC 2012, or XML of LabelImg, Roboflow, CVAT."""

    folders: Annotated[_Several, tyro.conf.arg(name="from", metavar="FOLDER")] = ()
    """Folder of the XML files, with or without ImageSets/Main; one a split: train=A,test=B."""
    images: Annotated[_Several, tyro.conf.arg(metavar="FOLDER|URL")] = ()
    """Folder of the images, or a .zip or .tar; the same by default. One a split: train=A,test=B."""
    name: str = "voc"
    """Name of the data set."""

    def __post_init__(self):
        if not self.folders:
            raise UserError("missing --from")

    def make_source(self) -> Source:
        return make_source("voc", folders=self.folders, images=self.images)


@dataclass
class BuildTable(BuildOptions):
    """Read your own images, listed in CSV or JSON tables: a row an image, or a row a label."""

    table: Annotated[_Lists, tyro.conf.arg(name="from", metavar="TABLE...")] = ()
    """The table: labels joined in one column, or one column a label (1, 0, blank or -1 for unknown). One a
    split: train=a.csv,test=b.csv."""
    images: Annotated[_Several, tyro.conf.arg(metavar="FOLDER|URL")] = ()
    """Folder that the image paths start from, or a .zip or .tar; the table's own folder by default. One a
    split: train=A,test=B."""
    name: str | None = None
    """Name of the data set; the table's file name without its suffix by default."""
    image_column: str | None = None
    """Column of the image paths; by default image, image_path, file, filename, path or the like."""
    labels_column: str | None = None
    """Column of joined labels; by default `labels` or `tags`. Without it, every other column is a label."""
    split_column: str | None = None
    """Column that says train, val or test; by default `split`. Without it, every image is for training."""
    label_separator: str | None = None
    """What joins the labels in their column, `;` by default; `none` if each cell is one label."""
    ignore_columns: _Several = ()
    """Columns that are no labels, joined by commas."""
    columns: str = ""
    """Names of the columns of a file without a header: image,labels,split. `_` is ignored."""
    image_pattern: str | None = None
    """How a file is named: '{image}.jpg', 'images_*/{image}', '{patient}/{stem}*.png'. Wildcards are allowed;
    in braces image (as in the table), stem (without its suffix), name (without folders), or any column."""
    split_words: str = ""
    """What other words mean in the split column: 0=train,1=validation,2=test."""
    no_label: _Several = ()
    """A word that says that an image has no label, such as 'No Finding'."""
    minus_one: Literal["absent", "unknown"] | None = None
    """What -1 means in one column a label; needed where the table has no 0, else unknown."""
    blank: Literal["absent", "unknown"] | None = None
    """What a blank means in one column a label; needed where the table has no 0, else unknown."""
    rows: Literal["image", "label"] = "image"
    """What a row is: an image with all its labels, or one label of an image."""
    confidence_column: str | None = None
    """With --rows label, column of 1 (holds) or 0 (does not); labels without a row are unknown then."""
    confidence_threshold: float | None = None
    """Confidence from which a label holds, where there are values between 0 and 1; below, it is unknown."""

    def __post_init__(self):
        if not self.table:
            raise UserError("missing --from")
        self.table = tuple(path for paths in self.table for path in paths)
        self.name = self.name or Path(parse_split_files(self.table)[0].path).stem
        parse_split_words(self.split_words)  # a mistake in it is told before the disk is looked at

    def make_source(self) -> Source:
        return make_source(
            "table",
            table=self.table,
            images=self.images,
            image_column=self.image_column,
            labels_column=self.labels_column,
            split_column=self.split_column,
            label_separator=self.label_separator,
            ignore_columns=self.ignore_columns,
            columns=[name.strip() for name in self.columns.split(",")] if self.columns else (),
            image_pattern=self.image_pattern,
            split_words=parse_split_words(self.split_words),
            no_label=self.no_label,
            minus_one=self.minus_one,
            blank=self.blank,
            rows=self.rows,
            confidence_column=self.confidence_column,
            confidence_threshold=self.confidence_threshold,
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


BUILD_COMMANDS = {
    "demo": BuildDemo,
    "table": BuildTable,
    "nuswide81": BuildNusWide81,
    "nuswide1000": BuildNusWide1000,
    "coco": BuildCoco,
    "coco2014": BuildCoco2014,
    "voc": BuildVoc,
    "voc2007": BuildVoc2007,
    "tfds": BuildTfds,
}
"""What `build` is followed by -> its flags."""
