"""The name of a protocol and of a data set enter; the conventions that the numbers follow leave.

Published tables differ in which images count, how label lists are cut and how F1 is averaged. A `Protocol`
fixes all of it, and says it in one sentence to print beside the numbers.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from tfrecords.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The conventions behind a row of numbers.

    Attributes:
        name: what `protocol()` finds it by.
        images: "all", or "tagged": only images with at least one label known to be true.
        list_length: "exactly" k labels an image, "at_most" k, or "free".
        k: the list length, None where it is free.
        threshold: lowest score that enters a list cut from scores; None where the protocol leaves it open, so
            that it is fitted on the hold-out. Lists of exactly k need none, nor does a best path.
        c_f1: "harmonic", "per_class" or "both"; see `SetMeasures`.
        never_predicted_precision: 0 or 1, the precision of a label that is never predicted.
        never_predicted_counts: 0 or 1, what such a label adds to the predicted labels of O-P.
        ap_shape: the shape of average precision, of `AP_SHAPES`.
        companions: names of protocols that published tables print beside this one.
        words: all of it in one sentence.

    Raises:
        UserError: the conventions contradict each other.
    """

    name: str
    images: Literal["all", "tagged"]
    list_length: Literal["exactly", "at_most", "free"]
    k: int | None = None
    threshold: float | None = None
    c_f1: Literal["harmonic", "per_class", "both"] = "harmonic"
    never_predicted_precision: int = 0
    never_predicted_counts: int = 0
    ap_shape: Literal["raw", "voc11", "interpolated"] = "raw"
    companions: tuple[str, ...] = ()
    words: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "words", _describe(self))

    def set_options(self, fitted_threshold: float | None = None) -> dict[str, Any]:
        """How `SetMeasures` cuts lists from scores by this protocol: its `top_k`, `threshold` and the like.

        Lists that a model emits as such (a best path) go as 0/1 sets to a `SetMeasures` without `top_k` and
        `threshold`.

        Args:
            fitted_threshold: from `fit_threshold` on the hold-out; used where the protocol fixes none.

        Raises:
            UserError: the protocol needs a threshold and there is none.

        >>> protocol("cnn-rnn", "nuswide81").set_options()
        {'top_k': 3, 'threshold': None, 'never_predicted_precision': 0, 'never_predicted_counts': 0}
        """
        threshold = self.threshold if self.threshold is not None else fitted_threshold
        if self.list_length == "exactly":
            threshold = None
        elif threshold is None:
            raise UserError(
                f"protocol {self.name!r} cuts scores at a threshold that it leaves open: "
                "fit one on the hold-out (fit_threshold) and pass it as fitted_threshold"
            )
        return {
            "top_k": self.k,
            "threshold": threshold,
            "never_predicted_precision": self.never_predicted_precision,
            "never_predicted_counts": self.never_predicted_counts,
        }

    def image_weights(self, labels: Any, known: Any = None) -> np.ndarray:
        """Which images count: `<float32>[batch]`, 1 or 0.

        Args:
            labels: `[batch, labels]`: above 0 where the image has the label, -1 where unknown.
            known: `[batch, labels]`, 0 or False where unknown.

        >>> protocol("ml-gcn", "coco2014").image_weights([[0, 1], [0, 0]])
        array([1., 0.], dtype=float32)
        """
        labels = np.asarray(labels)
        if self.images == "all":
            return np.ones(len(labels), np.float32)
        true = (labels > 0) if known is None else (labels > 0) & (np.asarray(known) != 0)
        return true.any(axis=1).astype(np.float32)


def protocol(name: str, dataset: str) -> Protocol:
    """The protocol called `name`, as it reads for `dataset`: only `cnn-rnn` depends on it.

    Args:
        name: one of `PROTOCOL_NAMES`.
        dataset: a data set's name; `cnn-rnn` knows `nuswide81`, `nuswide1000`, `coco2014` and `voc2007`, and
            treats any other as it treats COCO.

    Raises:
        UserError: no protocol has this name.

    >>> print(protocol("cnn-rnn", "nuswide81").words)
    Images with at least one label; exactly 3 labels an image; C-F1 is the harmonic mean of C-P and C-R; \
a label never predicted has precision 0; AP is not interpolated.
    """
    if name == "cnn-rnn":
        return _CNN_RNN.get(dataset, _CNN_RNN["coco2014"])
    if name not in _PRESETS:
        raise UserError(
            f"unknown protocol {name!r}{nearest(name, PROTOCOL_NAMES)}: "
            f"choose from {', '.join(PROTOCOL_NAMES)}"
        )
    return _PRESETS[name]


def with_companions(name: str, dataset: str) -> tuple[Protocol, ...]:
    """The protocol and those printed beside it (`ml-gcn`: all labels with p >= 0.5, and their top 3)."""
    main = protocol(name, dataset)
    return (main, *(protocol(companion, dataset) for companion in main.companions))


def _check(conventions: Protocol) -> None:
    for field, allowed in _ALLOWED.items():
        value = getattr(conventions, field)
        if value not in allowed:
            raise UserError(
                f"{field} of protocol {conventions.name!r} must be one of {allowed}, got {value!r}"
            )
    if (conventions.k is None) != (conventions.list_length == "free"):
        raise UserError(
            f"protocol {conventions.name!r} has list_length {conventions.list_length!r} and "
            f"k {conventions.k!r}: lists of exactly or at most k need a k, free ones must have none"
        )


def _describe(conventions: Protocol) -> str:
    images = {"all": "All images", "tagged": "Images with at least one label"}[conventions.images]
    lists = {
        "exactly": f"exactly {conventions.k} labels an image",
        "at_most": f"at most {conventions.k} labels an image",
        "free": "lists of any length",
    }[conventions.list_length]
    if conventions.list_length != "exactly":
        cut = "fitted on the hold-out" if conventions.threshold is None else f"of {conventions.threshold:g}"
        lists += f" (scores are cut at a threshold {cut})"
    c_f1 = {
        "harmonic": "C-F1 is the harmonic mean of C-P and C-R",
        "per_class": "C-F1 is the mean of the labels' F1",
        "both": "C-F1 is given both as the harmonic mean of C-P and C-R and as the mean of the labels' F1",
    }[conventions.c_f1]
    never = f"a label never predicted has precision {conventions.never_predicted_precision}"
    if conventions.never_predicted_counts:
        never += f" and counts as {conventions.never_predicted_counts} wrong prediction in O-P"
    shape = {
        "raw": "not interpolated",
        "voc11": "the 11-point AP of VOC 2007",
        "interpolated": "interpolated at all points",
    }
    return f"{images}; {lists}; {c_f1}; {never}; AP is {shape[conventions.ap_shape]}."


_ALLOWED = {
    "images": ("all", "tagged"),
    "list_length": ("exactly", "at_most", "free"),
    "c_f1": ("harmonic", "per_class", "both"),
    "never_predicted_precision": (0, 1),
    "never_predicted_counts": (0, 1),
    "ap_shape": ("raw", "voc11", "interpolated"),
}

_CNN_RNN = {  # the paper, section 4
    "nuswide81": Protocol("cnn-rnn", "tagged", "exactly", k=3),
    "nuswide1000": Protocol("cnn-rnn", "tagged", "exactly", k=10),
    "coco2014": Protocol("cnn-rnn", "all", "at_most", k=3),
    "voc2007": Protocol("cnn-rnn", "all", "free", ap_shape="voc11"),  # the paper reports AP only
}

_ML_GCN = {"threshold": 0.5, "never_predicted_counts": 1}  # its code: Np[Np == 0] = 1
_SRN = {"c_f1": "per_class", "never_predicted_precision": 1}
_PRESETS = {
    preset.name: preset
    for preset in (
        Protocol("ml-gcn", "tagged", "free", companions=("ml-gcn-top3",), **_ML_GCN),
        Protocol("ml-gcn-top3", "tagged", "at_most", k=3, **_ML_GCN),
        Protocol("srn", "all", "free", threshold=0.5, companions=("srn-top3",), **_SRN),
        Protocol("srn-top3", "all", "at_most", k=3, threshold=0.5, **_SRN),
        Protocol("asl", "tagged", "free", c_f1="per_class"),
        Protocol("free", "all", "free", c_f1="both"),
    )
}
PROTOCOL_NAMES = ("cnn-rnn", *_PRESETS)
