"""Keeps, beside the shards of a data set, which of its images do not decode: training leaves them out.

A default build copies JPEGs without decoding them. What is damaged inside shows when the pixels are wanted: a
build with `--decode` looks at once, and else the first training does.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from tfrecords.manifest import Manifest
from tfrecords.words import count

FILE_NAME = "undecodable.json"
_DECODER_VERSION = 1  # count it up when a change in tfrecords.decoding gives other verdicts


@dataclass(frozen=True)
class Undecodable:
    """An image of the split that does not decode; `reason` is that of `tfrecords.decoding.pixels`."""

    split: str
    image_id: str
    reason: str


def load_undecodable(dataset_dir: str | Path, manifest: Manifest) -> tuple[Undecodable, ...] | None:
    """The images that do not decode; None where nobody has looked at these records with this decoder."""
    try:
        content = json.loads((Path(dataset_dir) / FILE_NAME).read_text(encoding="utf-8"))
        if content["key"] != _make_key(manifest):
            return None
        return tuple(Undecodable(**image) for image in content["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_undecodable(dataset_dir: str | Path, manifest: Manifest, images: Sequence[Undecodable]) -> None:
    """Writes the file, whole or not at all. Raises: OSError where the folder cannot be written."""
    path = Path(dataset_dir) / FILE_NAME
    partial = path.with_name(f".{FILE_NAME}.{os.getpid()}.partial")
    content = {"key": _make_key(manifest), "images": [asdict(image) for image in images]}
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")  # ASCII: an id need not be UTF-8
    os.replace(partial, path)


def describe_undecodable(images: Sequence[Undecodable]) -> str:
    """How many there are, by split and reason, as it stands under tables.

    >>> describe_undecodable([Undecodable("train", "a", "cut off"), Undecodable("test", "b", "cut off")])
    '2 images do not decode and are left out (1 of train, 1 of test; 2 cut off)'
    """
    splits = ", ".join(f"{number:,} of {name}" for name, number in Counter(i.split for i in images).items())
    reasons = ", ".join(
        f"{number:,} {name}" for name, number in Counter(i.reason for i in images).most_common()
    )
    verb = "does not decode and is" if len(images) == 1 else "do not decode and are"
    return f"{count('image', len(images))} {verb} left out ({splits}; {reasons})"


def remark_undecodable(images: Sequence[Undecodable]) -> list[str]:
    """What belongs under every table of results: how many images are left out; nothing where none is."""
    return [f"{describe_undecodable(images)}: {FILE_NAME} of the data set names them."] if images else []


def _make_key(manifest: Manifest) -> dict:
    return {
        "manifest": manifest.fingerprint,
        "tensorflow": version("tensorflow"),
        "decoder": _DECODER_VERSION,
    }
