"""A record of TensorFlow Datasets enters; its image and its labels leave, by the features of its data set.

A feature is named by its path, as TFDS writes it into a record: `labels`, `objects/label`. Labels are held by

- a `Sequence` of `ClassLabel` or of `Text` (tags); a class of -1 is TFDS's word for unknown, and names
  nothing, as an empty text does;
- one of those in a `Sequence` of a dictionary: the objects of an image, with their box (`BBoxFeature`),
  `area` and `is_difficult`, where there are such; one whose `confidence` is 0 (Open Images) is not there;
- a dictionary of `bool`, one a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tfrecords.annotations import Box
from tfrecords.errors import UserError, nearest

if TYPE_CHECKING:
    import tensorflow as tf

_EXPECTED = (
    "a Sequence of ClassLabel or of Text, alone or in a Sequence of a dictionary, or a dictionary of bool"
)


class BadRecord(Exception):
    """Why a record does not hold what the features of its data set say."""


class RecordLabels(NamedTuple):
    """What one record says, in the words of `Annotation`."""

    labels: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class LabelsFeature:
    """Where a data set's labels are in its records. It is plain data, and pickles small.

    Attributes:
        path: the feature's path.
        kind: `classes`, `texts`, or `flags` for a dictionary of bool.
        names: the names of the classes, or of the flags; None for texts.
        bbox: path of the objects' boxes, as fractions ymin, xmin, ymax, xmax; None where there are none.
        area: path of their areas, in px², or None.
        difficult: path of the flags of objects that do not count, or None.
        confidence: path of the numbers of which 0 says that an object is not there, or None.
    """

    path: str
    kind: Literal["classes", "texts", "flags"]
    names: tuple[str, ...] | None = None
    bbox: str | None = None
    area: str | None = None
    difficult: str | None = None
    confidence: str | None = None

    def read(self, example: tf.train.Example) -> RecordLabels | None:
        """The labels of one record; None where all that it names is unknown.

        A class with difficult objects alone is ignored, as in PASCAL VOC.

        Raises:
            BadRecord: a feature is missing, or does not fit the others.
        """
        features = example.features.feature
        if self.kind == "flags":
            flags = {name: _read_scalar(features, f"{self.path}/{name}", "int64_list") for name in self.names}
            return RecordLabels(tuple(name for name, flag in flags.items() if flag))
        names = self._read_names(features)
        if names and not any(names):
            return None
        confidences = _read_column(features, self.confidence, len(names), 1)
        difficult = _read_column(features, self.difficult, len(names), 0)
        boxes = self._read_boxes(features, names)
        there = [number for number, name in enumerate(names) if name and confidences[number] > 0]
        labels = {names[number] for number in there if not difficult[number]}
        ignored = {names[number] for number in there} - labels
        return RecordLabels(
            tuple(sorted(labels)),
            tuple(sorted(ignored)),
            tuple(boxes[number] for number in there) if boxes else (),
        )

    def _read_names(self, features: Mapping) -> list[str]:
        """One name an entry, "" for what names nothing."""
        if self.kind == "texts":
            return [_decode(text) for text in _read_values(features, self.path, "bytes_list")]
        classes = _read_values(features, self.path, "int64_list")
        for value in classes:
            if not -1 <= value < len(self.names):
                raise BadRecord(f"{self.path} is {value}: expected -1 to {len(self.names) - 1}")
        return [self.names[value] if value >= 0 else "" for value in classes]

    def _read_boxes(self, features: Mapping, names: Sequence[str]) -> list[Box]:
        """One box an entry; none where the data set has none."""
        if self.bbox is None:
            return []
        corners = _read_values(features, self.bbox, "float_list")
        if len(corners) != 4 * len(names):
            raise BadRecord(f"{self.bbox} has {len(corners)} values: expected 4 for each of {len(names)}")
        areas = _read_column(features, self.area, len(names), None)
        boxes = []
        for number, (name, area) in enumerate(zip(names, areas, strict=True)):
            ymin, xmin, ymax, xmax = corners[4 * number : 4 * number + 4]
            if not (0 <= xmin <= xmax <= 1 and 0 <= ymin <= ymax <= 1):
                raise BadRecord(f"{self.bbox} is {ymin:g}, {xmin:g}, {ymax:g}, {xmax:g}: expected fractions")
            boxes.append(Box(name, xmin, ymin, xmax, ymax, None if area is None else float(area)))
        return boxes


def find_labels(features, wanted: str | None, where: str) -> LabelsFeature:
    """The feature that holds labels: the one called `wanted`, or the only one there is.

    Args:
        features: `tfds.core.DatasetInfo.features`.
        wanted: a path, such as `objects/label`.
        where: the data set's name, for messages.

    Raises:
        UserError: there is no such feature, it holds no labels, or there are several to choose from.
    """
    leaves = sorted(_walk(features), key=lambda leaf: leaf.path)
    fitting = {leaf.path: leaf for leaf in leaves if _find_kind(leaf) is not None}
    if wanted is not None:
        if wanted not in fitting:
            raise UserError(_explain_misfit(leaves, fitting, wanted, where))
        return _describe(fitting[wanted], leaves)
    if not fitting:
        raise UserError(
            f"{where}: no feature holds several labels an image: expected {_EXPECTED}; it has "
            f"{_list_features(leaves)}"
        )
    if len(fitting) > 1:
        raise UserError(
            f"{where}: several features may hold its labels ({', '.join(fitting)}): choose one with "
            f"--labels-feature"
        )
    [leaf] = fitting.values()
    return _describe(leaf, leaves)


def find_image(features, wanted: str | None, where: str) -> str:
    """The path of the image: `wanted`, or `image`, or the only one there is.

    Raises:
        UserError: there is no such image, or there are several to choose from.
    """
    leaves = sorted(_walk(features), key=lambda leaf: leaf.path)
    paths = [leaf.path for leaf in leaves if _is_image(leaf)]
    if wanted is not None:
        if wanted not in paths:
            raise UserError(
                f"--image-feature {wanted}: no image of {where}{nearest(wanted, paths)}: expected "
                f"{' or '.join(paths) or 'a data set with images'}"
            )
        return wanted
    if "image" in paths:
        return "image"
    if not paths:
        raise UserError(
            f"{where}: has no image: expected a feature Image of uint8; it has {_list_features(leaves)}"
        )
    if len(paths) > 1:
        raise UserError(f"{where}: has several images ({', '.join(paths)}): choose one with --image-feature")
    return paths[0]


def read_image(example: tf.train.Example, path: str) -> bytes:
    """The encoded image of one record. Raises: BadRecord where it holds none, or several."""
    return _read_scalar(example.features.feature, path, "bytes_list")


class _Leaf(NamedTuple):
    """A feature with its path, and the paths of the sequences that it is in, the outermost first."""

    path: str
    feature: Any
    sequences: tuple[str, ...]


def _walk(feature, path: str = "", sequences: tuple[str, ...] = ()) -> Iterator[_Leaf]:
    """Every feature that is no sequence: dictionaries and what is in them."""
    from tensorflow_datasets import features as kinds

    if isinstance(feature, kinds.FeaturesDict):
        if path:
            yield _Leaf(path, feature, sequences)
        for key, inner in feature.items():
            yield from _walk(inner, f"{path}/{key}" if path else key, sequences)
    elif isinstance(feature, kinds.Sequence) and not isinstance(feature, (kinds.Dataset, kinds.Video)):
        yield from _walk(feature.feature, path, (*sequences, path))
    else:
        yield _Leaf(path, feature, sequences)


def _find_kind(leaf: _Leaf) -> Literal["classes", "texts", "flags"] | None:
    """How a feature holds labels; None where it holds none."""
    from tensorflow_datasets import features as kinds

    if isinstance(leaf.feature, kinds.FeaturesDict):
        return "flags" if not leaf.sequences and len(_find_flags(leaf.feature)) > 1 else None
    if len(leaf.sequences) != 1:
        return None
    if isinstance(leaf.feature, kinds.ClassLabel):
        return "classes" if leaf.feature.num_classes is not None else None
    return "texts" if _is_scalar(leaf.feature, "O") else None


def _find_flags(features) -> tuple[str, ...]:
    return tuple(sorted(key for key, feature in features.items() if _is_scalar(feature, "b")))


def _is_scalar(feature, dtype_kinds: str) -> bool:
    """Whether it is one number (`iuf`), bool (`b`) or text (`O`), by the kinds of NumPy's dtypes."""
    from tensorflow_datasets import features as kinds

    is_tensor = isinstance(feature, kinds.Tensor) and feature.shape == ()
    return is_tensor and _dtype_kind(feature) in dtype_kinds


def _dtype_kind(feature) -> str:
    import numpy as np

    return np.dtype(feature.np_dtype).kind


def _is_image(leaf: _Leaf) -> bool:
    from tensorflow_datasets import features as kinds

    is_photograph = isinstance(leaf.feature, kinds.Image) and not isinstance(leaf.feature, kinds.LabeledImage)
    # TFDS keeps the bytes of a float32 image as a PNG of four channels, which shows something else.
    return is_photograph and not leaf.sequences and _dtype_kind(leaf.feature) == "u"


def _is_box(feature) -> bool:
    """Whether it is a box of fractions in TFDS's usual order; one in px, or in another order, is not read."""
    from tensorflow_datasets import features as kinds

    if not isinstance(feature, kinds.BBoxFeature):
        return False
    # Before TFDS wrote the format down there was only this one.
    box_format = getattr(feature, "bbox_format", None)
    return box_format is None or box_format.value == "REL_YXYX"


def _describe(leaf: _Leaf, leaves: Sequence[_Leaf]) -> LabelsFeature:
    kind = _find_kind(leaf)
    if kind == "flags":
        return LabelsFeature(leaf.path, kind, _find_flags(leaf.feature))
    beside = [other for other in leaves if other.sequences == leaf.sequences and other is not leaf]
    bboxes = [other.path for other in beside if _is_box(other.feature)]
    numbers = {
        other.path.rpartition("/")[2]: other.path for other in beside if _is_scalar(other.feature, "biuf")
    }
    return LabelsFeature(
        path=leaf.path,
        kind=kind,
        names=tuple(leaf.feature.names) if kind == "classes" else None,
        bbox=bboxes[0] if len(bboxes) == 1 else None,
        area=numbers.get("area"),
        difficult=numbers.get("is_difficult", numbers.get("difficult")),
        confidence=numbers.get("confidence"),
    )


def _explain_misfit(leaves: Sequence[_Leaf], fitting: Mapping[str, _Leaf], wanted: str, where: str) -> str:
    from tensorflow_datasets import features as kinds

    choice = f"expected {' or '.join(fitting) or _EXPECTED}"
    found = next((leaf for leaf in leaves if leaf.path == wanted), None)
    if found is None:
        hint = nearest(wanted, fitting)
        return f"--labels-feature {wanted}: no such feature in {where}{hint}: {choice}"
    if isinstance(found.feature, kinds.ClassLabel) and not found.sequences:
        reason = "holds a single label an image, and a tagger needs several"
    elif len(found.sequences) > 1:
        reason = "is a sequence of sequences"
    elif isinstance(found.feature, kinds.Tensor) and _dtype_kind(found.feature) in "biuf":
        reason = "holds numbers, and nothing says which names they stand for"
    else:
        reason = f"is {' '.join(repr(found.feature).split())}"
    return f"--labels-feature {wanted}: {reason}: {choice}"


def _list_features(leaves) -> str:
    from tensorflow_datasets import features as kinds

    return ", ".join(leaf.path for leaf in leaves if not isinstance(leaf.feature, kinds.FeaturesDict))


def _read_column(features: Mapping, path: str | None, size: int, default) -> Sequence:
    """One number an entry; `default` for each where the data set has no such feature."""
    if path is None:
        return [default] * size
    values = _read_values(features, path, "int64_list", "float_list")
    if len(values) != size:
        raise BadRecord(f"{path} has {len(values)} values: expected one for each of {size}")
    return values


def _read_scalar(features: Mapping, path: str, kind: str):
    values = _read_values(features, path, kind)
    if len(values) != 1:
        raise BadRecord(f"{path} has {len(values)} values: expected one")
    return values[0]


def _read_values(features: Mapping, path: str, *kinds: str) -> Sequence:
    if path not in features:
        raise BadRecord(f"no {path}")
    kind = features[path].WhichOneof("kind")
    if kind is None:  # an empty list
        return ()
    if kind not in kinds:
        raise BadRecord(f"{path} is a {kind}: expected {' or '.join(kinds)}")
    return getattr(features[path], kind).value


def _decode(text: bytes) -> str:
    try:
        return text.decode().strip()
    except UnicodeDecodeError:
        raise BadRecord(f"{text!r} is not UTF-8") from None
