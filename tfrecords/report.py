"""A built data set enters; a dictionary of what is in it leaves (`report_tables` prints it for a person).

Read it before anyone trains: how many labels an image has, which labels are dead, which go together or never
do, how large the images are, and how high scores can reach at all when lists hold k labels. Images are not
decoded.

    python -m tfrecords report demo
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfrecords.report_ceilings import divide, find_ceilings
from tfrecords.report_records import Contents, Records, read_contents, read_truth

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "MIN_PAIR_IMAGES",
    "SMALL_PX",
    "Pairs",
    "count_pairs",
    "count_together",
    "describe",
    "find_ceilings",
    "read_contents",
    "read_truth",
    "summarize",
]

MIN_PAIR_IMAGES = 10
"""A pair of labels says something if it is on this many training images, or by chance alone would be."""

SMALL_PX = 224
"""The square that most CNNs read: an image with a shorter short side is enlarged for them."""


def summarize(dataset_dir: str | Path, k: int = 3, max_rows: int = 20) -> dict:
    """What the data set in `dataset_dir` holds, ready for `json.dump`.

    Args:
        k: list length of the ceilings: the best scores of lists of exactly, or at most, k labels.
        max_rows: the most pairs of labels in `together` and in `exclusive`, both of the training split.

    Returns:
        `name`, `fingerprint`, `num_labels`, `k`; `splits`: the figures of each; `labels`: name and positives
        in each split; `together` and `exclusive`: pairs of labels; `shared_images`: how many images of one
        split are also in another, byte for byte; and the manifest's `reference_rows`.

    Raises:
        UserError: nothing is built there, or a shard is not as it was built.
    """
    return describe(read_contents(dataset_dir), k, max_rows)


def describe(contents: Contents, k: int = 3, max_rows: int = 20) -> dict:
    """`summarize` of records that were read before."""
    manifest, vocabulary = contents.manifest, contents.vocabulary
    pairs = count_pairs(contents.records["train"].positive)
    num_positive = {split: records.positive.sum(axis=0) for split, records in contents.records.items()}
    return {
        "name": manifest.name,
        "fingerprint": manifest.fingerprint,
        "num_labels": vocabulary.size,
        "k": k,
        "splits": {split: _summarize_split(contents, split, k) for split in manifest.splits},
        "labels": [
            {"name": name, **{split: int(counts[i]) for split, counts in num_positive.items()}}
            for i, name in enumerate(vocabulary.names)
        ],
        "together": pairs.list_together(vocabulary.names, max_rows),
        "exclusive": pairs.list_exclusive(vocabulary.names, max_rows),
        "shared_images": list(_count_shared(contents.records)),
        "reference_rows": manifest.reference_rows,
    }


@dataclass(frozen=True)
class Pairs:
    """Every pair of labels, a more frequent than b, each attribute `[pairs]`.

    `a` and `b` are ids; `num_a`, `num_b` and `together` count images; `expected` is how many would have both
    if the two labels knew nothing of each other.
    """

    a: np.ndarray
    b: np.ndarray
    num_a: np.ndarray
    num_b: np.ndarray
    together: np.ndarray
    expected: np.ndarray

    @property
    def lift(self) -> np.ndarray:
        """P(a, b) / (P(a) P(b)): 1 is chance."""
        import numpy as np

        return self.together / np.maximum(self.expected, 1e-9)

    def list_together(self, names: Sequence[str], max_rows: int) -> list[dict]:
        """The pairs of the highest lift; those on fewer than `MIN_PAIR_IMAGES` images may be chance."""
        return self._list(self.together >= MIN_PAIR_IMAGES, self.lift, names, max_rows)

    def list_exclusive(self, names: Sequence[str], max_rows: int) -> list[dict]:
        """The pairs that never meet though chance would join them often, most surprising first."""
        never = (self.together == 0) & (self.expected >= MIN_PAIR_IMAGES)
        return self._list(never, self.expected, names, max_rows)

    def _list(self, chosen: np.ndarray, key: np.ndarray, names: Sequence[str], max_rows: int) -> list[dict]:
        import numpy as np

        chosen = np.flatnonzero(chosen)
        highest_first = chosen[np.argsort(-key[chosen], kind="stable")]
        return [self._describe(i, names) for i in highest_first[:max_rows]]

    def _describe(self, i: int, names: Sequence[str]) -> dict:
        return {
            "a": names[self.a[i]],
            "b": names[self.b[i]],
            "images": int(self.together[i]),
            "expected": float(self.expected[i]),
            "lift": float(self.lift[i]),
            "P(b|a)": divide(self.together[i], self.num_a[i]),
            "P(a|b)": divide(self.together[i], self.num_b[i]),
        }


def count_pairs(positive: np.ndarray) -> Pairs:
    """Counts how often each pair of labels meets, of `positive` `<bool>[images, labels]`."""
    import numpy as np

    together = count_together(positive)
    counts = together.diagonal()
    a, b = np.triu_indices(positive.shape[1], k=1)
    return Pairs(a, b, counts[a], counts[b], together[a, b], counts[a] * counts[b] / max(len(positive), 1))


def count_together(positive: np.ndarray) -> np.ndarray:
    """How many images have both labels, `<int64>[labels, labels]`; on the diagonal, how many have the one."""
    import numpy as np

    together = np.zeros((positive.shape[1],) * 2, np.int64)
    for start in range(0, len(positive), 8192):  # products of 0 and 1 in float32 are exact, and fast
        block = positive[start : start + 8192].astype(np.float32)
        together += (block.T @ block).astype(np.int64)
    return together


def _count_shared(records: Mapping[str, Records]) -> Iterator[dict]:
    """Pairs of splits that hold the same files, by their hashes: what is tested would leak into training."""
    import numpy as np

    for (a, first), (b, second) in itertools.combinations(records.items(), 2):
        count = int(np.isin(second.sha256, first.sha256).sum())
        if count:
            yield {"a": a, "b": b, "images": count}


def _summarize_split(contents: Contents, split: str, k: int) -> dict:
    import numpy as np

    manifest, records = contents.manifest, contents.records[split]
    positive, unknown = records.positive, records.unknown
    num_true = positive.sum(axis=1)
    histogram = np.bincount(num_true)
    dead = np.flatnonzero(positive.sum(axis=0) == 0)
    tagged = num_true > 0
    summary = {
        "num_images": len(positive),
        "skipped": manifest.split(split).skipped,
        "num_positives": int(num_true.sum()),
        "labels_per_image": {
            "mean": float(num_true.mean()),
            "min": int(num_true.min()),
            "max": int(num_true.max()),
            "histogram": {str(n): int(count) for n, count in enumerate(histogram)},
        },
        "untagged_share": float(1 - tagged.mean()),
        "unknown_share": float(unknown.mean()),
        "dead_labels": [contents.vocabulary.names[i] for i in dead],
        "image_sizes": _summarize_sizes(records),
        "ceilings": find_ceilings(positive, unknown, k),
    }
    if manifest.holdout and manifest.holdout.split == split:
        summary["num_held_out"] = manifest.holdout.num_images
    if tagged.any() and not tagged.all():
        summary["ceilings_of_tagged"] = find_ceilings(positive[tagged], unknown[tagged], k)
    return summary


def _summarize_sizes(records: Records) -> dict:
    """Sizes as the images are seen, upright; `num_small` have a short side below `small_px`."""
    import numpy as np

    formats, counts = np.unique(records.format, return_counts=True)
    return {
        "width_px": _summarize_range(records.width),
        "height_px": _summarize_range(records.height),
        "file_bytes": _summarize_range(records.num_bytes),
        "formats": {name.decode(): int(count) for name, count in zip(formats, counts, strict=True)},
        "turned_share": float((records.orientation != 1).mean()),
        "small_px": SMALL_PX,
        "num_small": int((np.minimum(records.width, records.height) < SMALL_PX).sum()),
    }


def _summarize_range(values: np.ndarray) -> dict:
    import numpy as np

    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}
