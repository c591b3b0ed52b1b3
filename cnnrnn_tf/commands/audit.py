"""A published row enters; whether it can be right, and how long its lists are, leaves.

cnnrnn audit --row "C-P 40.5 C-R 30.4 C-F1 34.7 O-P 49.9 O-R 61.7 O-F1 55.2" --dataset nuswide81
cnnrnn audit --published
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tfrecords.errors import UserError, nearest

_LEGEND = (
    "O-P/O-R is true labels over predicted ones. length: predicted labels an image, where the number of true "
    "ones is known. true: true labels an image, if lists have exactly k, where that number is not known."
)

if TYPE_CHECKING:
    from cnnrnn_tf.evaluation.audit import Audit as Findings
    from cnnrnn_tf.evaluation.audit import Interval
    from cnnrnn_tf.evaluation.published import PublishedRow


@dataclass
class Audit:
    """Say whether published numbers can be right, and how long their lists are.

    A printed number stands for all that round to it. Exit status 1 if a number of --row cannot be right.
    """

    row: str | None = None
    """The row, in percent and as printed: "O-P 49.9 O-R 61.7 O-F1 55.2"."""
    labels_per_image: str | None = None
    """True labels of a test image on average, as printed (2.412): tells the length of the lists."""
    dataset: str | None = None
    """Take the labels an image of a data set that is known, nuswide81, and the k of the paper's table."""
    c_f1: Literal["unknown", "harmonic", "per_class"] = "unknown"
    """The convention that C-F1 follows, where the row says so."""
    published: bool = False
    """Check every row of the paper's tables instead."""

    def run(self) -> int:
        """Prints the findings; returns 1 where a number of `--row` cannot be right, else 0.

        Raises:
            UserError: the row is malformed, or what to check is not clear.
        """
        if (self.row is None) == (not self.published):
            raise UserError('expected --row "O-P 49.9 O-R 61.7 ..", or --published, and not both')
        return self._audit_published() if self.published else self._audit_row()

    def _audit_row(self) -> int:
        from cnnrnn_tf.evaluation.audit import audit_row, read_row

        measures = read_row(self.row)
        labels, k, words = self._read_labels_per_image()
        found = audit_row(measures, labels, k, None if self.c_f1 == "unknown" else self.c_f1)
        for finding in found.findings:
            print(f"{'ok   ' if finding.ok else 'WRONG'} {finding.about}: {finding.words}")
        for line in _tell_lists(found, words, k):
            print(f"      {line}")
        if not found.findings:
            print("nothing to check: an F1 beside its precision or recall is needed")
        elif found.can_be_right:
            print("nothing in the row contradicts itself")
        else:
            wrong = " and ".join(finding.about for finding in found.findings if not finding.ok)
            print(f"the row cannot be right: {wrong}")
        return 0 if found.can_be_right else 1

    def _audit_published(self) -> int:
        from cnnrnn_tf.evaluation.audit import audit_published

        if self.labels_per_image or self.dataset or self.c_f1 != "unknown":
            raise UserError(
                "--published knows the data sets and the C-F1 of its rows: leave the other flags out, or "
                "give --row"
            )
        _print_published(audit_published())
        return 0  # what it finds are faults of the papers, and none of this command's

    def _read_labels_per_image(self) -> tuple[Interval | None, int | None, str]:
        """Labels an image, k of lists of exactly k, and what the former is, in words."""
        from cnnrnn_tf.evaluation.audit import Interval
        from cnnrnn_tf.evaluation.published import LABELS_PER_IMAGE, LIST_LENGTHS

        if self.labels_per_image is not None and self.dataset is not None:
            raise UserError("--labels-per-image and --dataset say the same thing: give one")
        if self.labels_per_image is not None:
            labels = Interval.read(self.labels_per_image, "--labels-per-image")
            return labels, None, f"{self.labels_per_image} true labels an image"
        if self.dataset is None:
            return None, None, ""
        if self.dataset not in LIST_LENGTHS:
            raise UserError(
                f"--dataset {self.dataset}: nothing is known of it{nearest(self.dataset, LIST_LENGTHS)}; "
                f"expected {', '.join(LIST_LENGTHS)}, or --labels-per-image with your own number"
            )
        rule, k = LIST_LENGTHS[self.dataset]
        fact = LABELS_PER_IMAGE.get(self.dataset)
        labels = None if fact is None else Interval(fact.mean, fact.mean)
        if fact is None and rule != "exactly":
            print(f"labels an image are not known for {self.dataset}; give --labels-per-image")
        words = "" if fact is None else f"{float(fact.mean):.3f} true labels an image, {fact.words}"
        return labels, k if rule == "exactly" else None, words


def _tell_lists(found: Findings, words: str, k: int | None) -> list[str]:
    if found.ratio is None:
        return []
    lines = [f"O-P/O-R: {found.ratio} true labels for each predicted one"]
    if found.list_length is not None:
        lines.append(f"lists of {found.list_length} labels, at {words}")
    elif found.labels_per_image is not None:
        lines.append(f"{found.labels_per_image} true labels an image, if lists have exactly {k}")
    return lines


def _print_published(found: list[tuple[PublishedRow, Findings]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for header in ("data set", "method", "C-F1", "O-F1", "mAP", "O-P/O-R", "length", "true"):
        table.add_column(header, no_wrap=True)
    for row, audit in found:
        table.add_row(row.dataset, row.method, *_list_cells(row, audit))
    console = Console(highlight=False)
    console = Console(highlight=False, width=max(112, console.width))
    console.print(table)
    wrong = [(row, finding) for row, audit in found for finding in audit.findings if not finding.ok]
    console.print(Text(f"\n{len(wrong)} numbers cannot be right as printed", style="bold"))
    for row, finding in wrong:
        console.print(Text(f"  {row.dataset} {row.method}, {finding.about}: {finding.words}"))
    console.print(Text("\nnot to be compared without a look", style="bold"))
    for caveat in dict.fromkeys(row.caveat for row, _ in found if row.caveat):
        rows = [f"{row.dataset} {row.method} [{row.citation}]" for row, _ in found if row.caveat == caveat]
        console.print(Text(f"  {', '.join(rows)}. {caveat}"))
    console.print(Text(f"\n{_LEGEND}"))


def _list_cells(row: PublishedRow, audit: Findings) -> Iterator[str]:
    judged = {finding.about: "ok" if finding.ok else "WRONG" for finding in audit.findings}
    for name in ("C-F1", "O-F1", "mAP"):
        yield f"{row.measures.get(name, '')} {judged.get(name, '')}"
    labels = audit.labels_per_image if audit.list_length is None else None
    for interval in (audit.ratio, audit.list_length, labels):
        yield str(interval or "")
