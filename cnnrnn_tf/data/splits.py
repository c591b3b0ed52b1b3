"""Says which records the name of a split stands for, the hold-out's too; reads the manifest alone."""

from __future__ import annotations

from dataclasses import dataclass

from tfrecords.errors import UserError, nearest
from tfrecords.manifest import Manifest


@dataclass(frozen=True)
class Selection:
    """The records behind the name of a split: those of `shard_split` with this `image/holdout`; None: all."""

    shard_split: str
    holdout: int | None


def select_records(manifest: Manifest, split: str) -> Selection:
    """Returns the `Selection` that `split` stands for.

    "train" leaves out the images that are held out, "holdout" is those, "train+holdout" is the whole split on
    disk. A data set with a validation split holds nothing out: there "train" is whole and "holdout" is the
    validation split. Any other name is that of a split on disk.

    Raises:
        UserError: there is no such split.
    """
    if manifest.holdout is not None:
        kept = manifest.holdout.split
        named = {
            "train": Selection(kept, 0),
            "holdout": Selection(kept, 1),
            "train+holdout": Selection(kept, None),
        }
    else:
        named = {
            "train": Selection("train", None),
            "holdout": Selection("validation", None),
            "train+holdout": Selection("train", None),
        }
    names = {name: selection for name, selection in named.items() if selection.shard_split in manifest.splits}
    names |= {name: Selection(name, None) for name in manifest.splits if name not in names}
    if split not in names:
        raise UserError(
            f"the data set {manifest.name!r} has no split {split!r}{nearest(split, names)}: "
            f"expected one of {', '.join(names)}"
        )
    return names[split]
