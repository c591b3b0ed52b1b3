"""A built data set enters; a dictionary of what is in it leaves (`report_tables` prints it for a person).

Read it before anyone trains: how many labels an image has, which labels are dead, which go together or never
do, and how high scores can reach at all when lists hold k labels. Images are not decoded.

    python -m tfrecords report demo
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfrecords.manifest import Manifest
from tfrecords.quiet import silence_native_stderr
from tfrecords.vocabulary import LabelVocabulary

if TYPE_CHECKING:
    import numpy as np

MIN_PAIR_IMAGES = 10
"""A pair of labels says something if it is on this many training images, or by chance alone would be."""


def summarize(dataset_dir: str | Path, k: int = 3, max_rows: int = 20) -> dict:
    """What the data set in `dataset_dir` holds, ready for `json.dump`.

    Args:
        k: list length of the ceilings: the best O-P, O-R and O-F1 that lists of exactly, or at most, k reach.
        max_rows: the most pairs of labels in `together` and in `exclusive`, both of the training split.

    Returns:
        `name`, `fingerprint`, `num_labels`, `k`; `splits`: the figures of each; `labels`: name and positives
        in each split; `together` and `exclusive`: pairs of labels; and the manifest's `reference_rows`.

    Raises:
        UserError: nothing is built there, or a shard is not as it was built.
    """
    manifest = Manifest.load(dataset_dir)
    vocabulary = manifest.load_vocabulary(dataset_dir)
    manifest.check_shards(dataset_dir)
    truth = {split: read_truth(dataset_dir, manifest, vocabulary, split) for split in manifest.splits}
    pairs = count_pairs(truth["train"][0])
    num_positive = {split: positive.sum(axis=0) for split, (positive, _) in truth.items()}
    return {
        "name": manifest.name,
        "fingerprint": manifest.fingerprint,
        "num_labels": vocabulary.size,
        "k": k,
        "splits": {
            split: _summarize_split(manifest, vocabulary, split, *truth[split], k)
            for split in manifest.splits
        },
        "labels": [
            {"name": name, **{split: int(counts[i]) for split, counts in num_positive.items()}}
            for i, name in enumerate(vocabulary.names)
        ],
        "together": pairs.list_together(vocabulary.names, max_rows),
        "exclusive": pairs.list_exclusive(vocabulary.names, max_rows),
        "reference_rows": manifest.reference_rows,
    }


def read_truth(
    dataset_dir: str | Path, manifest: Manifest, vocabulary: LabelVocabulary, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """The positive and the unknown labels of `split`: two `<bool>[images, labels]`, in the records' order."""
    import numpy as np

    with silence_native_stderr():
        import tensorflow as tf
    from tfrecords.schema import parse

    keys = ("image/class/label", "image/class/ignored")
    records = tf.data.TFRecordDataset(manifest.shard_paths(dataset_dir, split))
    shape = (manifest.split(split).num_images, vocabulary.size)
    positive, unknown = np.zeros(shape, bool), np.zeros(shape, bool)
    parsed = records.map(lambda record: parse(record, keys), num_parallel_calls=tf.data.AUTOTUNE)
    for row, record in enumerate(parsed.as_numpy_iterator()):
        positive[row, record["image/class/label"]] = True
        unknown[row, record["image/class/ignored"]] = True
    return positive, unknown


def find_ceilings(positive: np.ndarray, unknown: np.ndarray, k: int) -> dict[str, dict[str, float]]:
    """The best overall scores that any method reaches with lists of k labels, as fractions.

    A list of exactly k has to hold wrong labels where an image has fewer right ones, and leaves right ones
    out where it has more; a list of at most k only does the latter. Unknown labels are in no list.

    Args:
        positive, unknown: `<bool>[images, labels]`.

    Returns:
        `exactly` and `at_most`, each with O-P, O-R and O-F1.
    """
    import numpy as np

    num_true = positive.sum(axis=1)
    num_hit = np.minimum(num_true, k).sum()
    num_listed = {
        "exactly": np.minimum(positive.shape[1] - unknown.sum(axis=1), k).sum(),
        "at_most": num_hit,
    }
    return {
        rule: {
            "O-P": _divide(num_hit, listed),
            "O-R": _divide(num_hit, num_true.sum()),
            "O-F1": _divide(2 * num_hit, listed + num_true.sum()),
        }
        for rule, listed in num_listed.items()
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
            "P(b|a)": _divide(self.together[i], self.num_a[i]),
            "P(a|b)": _divide(self.together[i], self.num_b[i]),
        }


def count_pairs(positive: np.ndarray) -> Pairs:
    """Counts how often each pair of labels meets, of `positive` `<bool>[images, labels]`."""
    import numpy as np

    counts = positive.sum(axis=0)  # [labels]
    together = np.zeros((positive.shape[1],) * 2, np.int64)
    for start in range(0, len(positive), 8192):  # products of 0 and 1 in float32 are exact, and fast
        block = positive[start : start + 8192].astype(np.float32)
        together += (block.T @ block).astype(np.int64)
    a, b = np.triu_indices(positive.shape[1], k=1)
    return Pairs(a, b, counts[a], counts[b], together[a, b], counts[a] * counts[b] / max(len(positive), 1))


def _summarize_split(
    manifest: Manifest,
    vocabulary: LabelVocabulary,
    split: str,
    positive: np.ndarray,
    unknown: np.ndarray,
    k: int,
) -> dict:
    import numpy as np

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
        "dead_labels": [vocabulary.names[i] for i in dead],
        "ceilings": find_ceilings(positive, unknown, k),
    }
    if manifest.holdout and manifest.holdout.split == split:
        summary["num_held_out"] = manifest.holdout.num_images
    if tagged.any() and not tagged.all():
        summary["ceilings_of_tagged"] = find_ceilings(positive[tagged], unknown[tagged], k)
    return summary


def _divide(numerator, denominator) -> float:
    return float(numerator / denominator) if denominator else 0.0
