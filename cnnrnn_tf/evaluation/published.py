"""Nothing enters; the rows of the CNN-RNN paper's tables leave as data, with what is doubtful about them.

Every number is kept as it is printed, in percent: its last digit tells its rounding, which `audit` needs.
The tables are those of Wang et al., *CNN-RNN: A Unified Framework for Multi-label Image Classification*,
CVPR 2016 (arXiv 1604.04573), read off the talk's slides, where they are whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

C_F1_OF_THE_PAPER = "harmonic"
"""Section 4.1: the F1 scores are "the geometrical average of the precision and recall scores"."""

CITED = (
    "The table cites another paper for the row, and does not say who measured it: its numbers may be that "
    "paper's own, perhaps of another split, other images or other lists."
)
"""The caveat of rows with a citation. Those with one or three measures are surely copied."""

VOC_CLASSES = (
    *("plane", "bike", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("table", "dog", "horse", "motor", "person", "plant", "sheep", "sofa", "train", "tv"),
)
"""The classes of VOC 2007 as the paper abbreviates them, in its order."""


@dataclass(frozen=True)
class PublishedRow:
    """One row of a published table.

    Attributes:
        dataset: its name in this project: nuswide81, nuswide1000, coco2014 or voc2007.
        method: as the table calls it.
        measures: percent as printed, by name: C-P, C-R, C-F1, O-P, O-R, O-F1, MAP@10, mAP.
        source: the table.
        citation: what the table cites for the row, by its number in the paper; None where it cites nothing.
        average_precisions: of `VOC_CLASSES`, percent as printed; empty for other data sets.
    """

    dataset: str
    method: str
    measures: Mapping[str, str]
    source: str
    citation: int | None = None
    average_precisions: tuple[str, ...] = ()

    @property
    def lists(self) -> str:
        """The lists that the row was measured on, such as "exactly 3 labels"; "" where it has AP alone."""
        if self.dataset not in LIST_LENGTHS:
            return ""
        rule, k = LIST_LENGTHS[self.dataset]
        return f"{rule if self.method in ('No RNN', 'CNN-RNN') else 'exactly'} {k} labels"

    @property
    def caveat(self) -> str:
        """Why the row may not be comparable with the others; "" where nothing is known against it."""
        return "" if self.citation is None else CITED


@dataclass(frozen=True)
class LabelsPerImage:
    """How many true labels the images of a test split have on average: `positives`/`images`.

    Attributes:
        images: how many images count.
        positives: how many labels they have together.
        words: which images these are.
        source: where the counts come from.
    """

    images: int
    positives: int
    words: str
    source: str

    @property
    def mean(self) -> Fraction:
        """Labels an image.

        >>> round(float(LABELS_PER_IMAGE["nuswide81"].mean), 3)
        2.412
        """
        return Fraction(self.positives, self.images)


LABELS_PER_IMAGE = {
    "nuswide81": LabelsPerImage(
        83_898,
        202_389,
        "the tagged images of the official test split",
        "Groundtruth/TrainTestLabels/Labels_<concept>_Test.txt of NUS-WIDE",
    ),
}
"""Of the images that count by the protocol `cnn-rnn`.

With the 23,961 untagged images the mean is 1.876, which no row of the paper fits. How the experiment on 1000
tags treated untagged images is not known, so there is no entry.
"""

LIST_LENGTHS = {"nuswide81": ("exactly", 3), "nuswide1000": ("exactly", 10), "coco2014": ("at most", 3)}
"""k of the paper's tables. On COCO the baselines have exactly 3 labels, and CNN-RNN at most 3."""


def _read(text: str) -> dict[str, str]:
    """The measures of a line of the table, "-" where it is blank."""
    names = ("C-P", "C-R", "C-F1", "O-P", "O-R", "O-F1", "MAP@10")
    return {name: value for name, value in zip(names, text.split(), strict=True) if value != "-"}


_BY_TABLE = {
    ("nuswide81", "table 1, k = 3"): (
        ("Metric learning", 19, "- - - - - 21.3 -"),
        ("Multi-edge graph", 23, "- - - 35.0 37.0 36.0 -"),
        ("KNN", 2, "32.6 19.3 24.3 42.9 53.4 47.6 -"),
        ("Softmax", None, "31.7 31.2 31.4 47.8 59.5 53.0 -"),
        ("WARP", 9, "31.7 35.6 33.5 48.6 60.5 53.9 -"),
        ("Joint embedding", 38, "- - - - - - 40.3"),
        ("CNN-RNN", None, "40.5 30.4 34.7 49.9 61.7 55.2 56.1"),
    ),
    ("nuswide1000", "table 2, k = 10"): (
        ("Softmax", None, "14.2 18.6 16.1 17.1 28.8 21.5 24.3"),
        ("DLSR", 22, "- - - 20.0 25.0 22.4 -"),
        ("WARP", None, "14.5 15.9 15.2 18.3 30.8 22.9 24.8"),
        ("CNN-RNN", None, "19.2 15.3 17.1 18.5 31.2 23.3 26.6"),
    ),
    ("coco2014", "table 3, k = 3"): (
        ("Softmax", None, "59.0 57.0 58.0 60.2 62.1 61.1 47.4"),
        ("WARP", None, "59.3 52.5 55.7 59.8 61.4 60.7 49.2"),
        ("Binary cross-entropy", None, "59.3 58.6 58.9 61.7 65.0 63.3 -"),
        ("No RNN", None, "65.3 54.5 59.3 68.5 61.3 65.7 57.2"),
        ("CNN-RNN", None, "66.0 55.6 60.4 69.2 66.4 67.8 61.2"),
    ),
}

_VOC = (
    (
        *("INRIA", 14, "63.5"),
        "77.2 69.3 56.2 66.6 45.5 68.1 83.4 53.6 58.3 51.1 62.2 45.2 78.4 69.7 86.1 52.4 54.4 54.3 75.8 62.1",
    ),
    (
        *("CNN-SVM", 27, "73.9"),
        "88.5 81.0 83.5 82.0 42.0 72.5 85.3 81.6 59.9 58.5 66.5 77.8 81.8 78.8 90.2 54.8 71.1 62.6 87.4 71.8",
    ),
    (
        *("I-FT", 36, "74.4"),
        "91.4 84.7 87.5 81.8 40.2 73.0 86.4 84.8 51.8 63.9 67.9 82.7 84.0 76.9 90.4 51.5 79.9 54.1 89.5 65.8",
    ),
    (
        *("HCP-1000C", 36, "81.5"),
        "95.1 90.1 92.8 89.9 51.5 80.0 91.7 91.6 57.7 77.8 70.9 89.3 89.3 85.2 93.0 64.0 85.7 62.7 94.4 78.3",
    ),
    (
        *("CNN-RNN", None, "84.0"),
        "96.7 83.1 94.2 92.8 61.2 82.1 89.1 94.2 64.2 83.6 70.0 92.4 91.7 84.2 93.7 59.8 93.2 75.3 99.7 78.6",
    ),
)

PUBLISHED = (
    *(
        PublishedRow(dataset, method, _read(text), source, citation)
        for (dataset, source), rows in _BY_TABLE.items()
        for method, citation, text in rows
    ),
    *(
        PublishedRow("voc2007", method, {"mAP": mean}, "table 4", citation, tuple(text.split()))
        for method, citation, mean, text in _VOC
    ),
)
"""Every row of the paper's tables 1 to 4, in their order."""
