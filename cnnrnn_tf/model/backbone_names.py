"""Knows the names of CNNs and what weights can be asked of them, without an import of Keras.

A name that is misspelt is to be told at once, and not after the seconds that TensorFlow takes to load.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from tfrecords.errors import UserError, nearest

COMPACT = "compact"
PRETRAINED = ("vgg16", "resnet50", "mobilenet_v2")
"""Networks of `keras.applications` with a name of ours, beside the names of their classes."""

_CLASS = re.compile(r'"keras\.applications\.\w+\.([A-Z]\w*)"')  # as Keras's source exports them


def backbone_names() -> list[str]:
    """Every name that `Backbone` takes: ours first, then the classes of `keras.applications`."""
    return [COMPACT, *PRETRAINED, *sorted(find_application_classes())]


def find_application_classes() -> set[str]:
    """The classes of `keras.applications`, read from the source of the installed Keras."""
    spec = importlib.util.find_spec("keras")
    folders = [] if spec is None else spec.submodule_search_locations or []
    files = (file for folder in folders for file in Path(folder, "src", "applications").glob("*.py"))
    return {name for file in files for name in _CLASS.findall(file.read_text(encoding="utf-8"))}


def check_backbone_name(name: str) -> None:
    """Refuses a name that no CNN has.

    Raises:
        UserError: with the nearest right name.
    """
    if name in (COMPACT, *PRETRAINED) or name in backbone_names():
        return
    raise UserError(
        f"unknown backbone {name!r}{nearest(name, backbone_names())}: expected {COMPACT}, "
        f"{', '.join(PRETRAINED)}, or a class of keras.applications"
    )


def check_backbone_weights(backbone: str, weights: str) -> None:
    """Refuses weights that are not there.

    Args:
        backbone: name of the CNN.
        weights: `imagenet`, `none` or the path of a file.

    Raises:
        UserError: no such file, or ImageNet weights of a CNN that has none.
    """
    if weights == "imagenet":
        if backbone == COMPACT:
            raise UserError(
                "backbone weights `imagenet`: nobody trained the compact backbone on ImageNet; use `none` "
                "(--backbone-weights none)"
            )
    elif weights != "none" and not Path(weights).is_file():
        raise UserError(
            f"backbone weights {weights}: no such file; expected `imagenet`, `none` or the path of a file"
        )
