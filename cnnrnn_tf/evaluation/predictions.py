"""What a model says of a split enters beside the truth; `Predictions`, checked and aligned, leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from tfrecords.errors import UserError

RANKING_RULE = "beam marginals; labels on no path follow by their highest step probability"
"""How the scores of a path model rank labels: `cnnrnn_tf.model.beam_search.rank_labels`."""

_PATH_FIELDS = ("paths", "path_lengths", "path_log_probs")


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The truth of some images, and each one's best path and label scores.

    A method that only scores labels has no paths: make its predictions by `from_scores`. The arrays are
    converted to the types below, and must not be written to afterwards.

    >>> predictions = Predictions(
    ...     image_ids=["a", "b"], labels=[[1, 0, 1], [0, 0, 0]], known=[[1, 1, 1], [1, 1, 0]],
    ...     paths=[[2, 1], [2, 3]], path_lengths=[2, 1], path_log_probs=[-0.2, -0.9],
    ...     scores=[[0.1, 0.7, 0.9], [0.2, -8.0, 0.8]])
    >>> predictions.path_sets(k=1)  # nobody knows whether b has label 2
    array([[0, 0, 1],
           [0, 0, 0]], dtype=uint8)

    Attributes:
        image_ids: one text an image.
        labels: `<uint8>[images, labels]`, 1 where the image has the label; says nothing where unknown.
        known: `<uint8>[images, labels]`, 0 where nobody knows whether the image has the label.
        paths: `<int32>[images, places]`, label ids in the order in which they were emitted; what lies
            beyond a path's length is padding of any value.
        path_lengths: `<int32>[images]`, labels on each path, END not counted.
        path_log_probs: `<float32>[images]`, natural-log probability of each path; -inf where the search
            found none. All three are None together where there are no paths.
        scores: `<float32>[images, labels]`, whose descending order is the ranking.
        ranking_rule: how the scores came about, in words to print beside what is cut from them.

    Raises:
        UserError: the arrays do not fit each other, or a path holds what is no label or a label twice.
    """

    image_ids: Sequence[str]
    labels: np.ndarray
    known: np.ndarray
    paths: np.ndarray | None
    path_lengths: np.ndarray | None
    path_log_probs: np.ndarray | None
    scores: np.ndarray
    ranking_rule: str = RANKING_RULE

    @classmethod
    def from_scores(
        cls,
        image_ids: Sequence[str],
        labels: np.ndarray,
        known: np.ndarray,
        scores: np.ndarray,
        ranking_rule: str = "the scores of the method",
    ) -> Predictions:
        """Predictions of a method that scores labels and emits no path.

        >>> found = Predictions.from_scores(["a"], [[1, 0]], [[1, 1]], [[0.9, 0.2]])
        >>> found.has_paths
        False
        """
        return cls(image_ids, labels, known, None, None, None, scores, ranking_rule)

    def __post_init__(self) -> None:
        self._check_paths_are_whole()
        object.__setattr__(self, "image_ids", tuple(self.image_ids))
        for name in ("labels", "known"):
            object.__setattr__(self, name, _read_flags(name, getattr(self, name)))
        object.__setattr__(self, "scores", np.asarray(self.scores, np.float32))
        if self.has_paths:
            for name in ("paths", "path_lengths"):
                object.__setattr__(self, name, np.asarray(getattr(self, name)).astype(np.int32, copy=False))
            object.__setattr__(self, "path_log_probs", np.asarray(self.path_log_probs, np.float32))
        self._check_shapes()
        if self.has_paths:
            self._check_paths()

    def __len__(self) -> int:
        """The number of images."""
        return len(self.image_ids)

    @property
    def num_labels(self) -> int:
        """L, the number of labels."""
        return self.labels.shape[1]

    @property
    def has_paths(self) -> bool:
        """Whether there is a best path for each image, not scores alone."""
        return self.paths is not None

    @cached_property
    def truth(self) -> np.ndarray:
        """`<bool>[images, labels]`: the labels that are known to be true."""
        return (self.labels != 0) & (self.known != 0)

    @cached_property
    def marks(self) -> np.ndarray:
        """`<int8>[images, labels]`: 1 true, 0 false, -1 unknown, as every measure of ours reads truth."""
        return np.where(self.known != 0, self.labels, -1).astype(np.int8)

    def path_sets(self, k: int | None = None) -> np.ndarray:
        """The labels of each path as a set: `<uint8>[images, labels]`, 0 or 1.

        Unknown labels are left out, and then all but the first `k`: an image with an unknown label is judged
        by as many labels as any other, just as an unknown label leaves a ranking before its top k is taken.

        Args:
            k: how many known labels of a path count, in the order in which they were emitted; None for all.

        Raises:
            UserError: k is below 1, or there are no paths.
        """
        if not self.has_paths:
            raise UserError(
                "these predictions have scores and no paths, so there are no sets of paths: cut sets from "
                "the scores, at a threshold or a length"
            )
        if k is not None and k < 1:
            raise UserError(f"k, the number of labels that count on a path, must be at least 1, got {k!r}")
        inside = self._inside()
        ids = np.where(inside, self.paths, 0)
        counted = inside & (np.take_along_axis(self.known, ids, axis=1) != 0)  # [images, places]
        if k is not None:
            counted &= np.cumsum(counted, axis=1) <= k
        sets = np.zeros(self.labels.shape, np.uint8)
        images, places = np.nonzero(counted)
        sets[images, ids[images, places]] = 1
        return sets

    def take(self, images: np.ndarray) -> Predictions:
        """The predictions of some images: `images` is `<bool>[images]`, or positions `<int>[taken]`."""
        images = np.arange(len(self))[images]
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        taken = {name: value[images] for name, value in fields.items() if isinstance(value, np.ndarray)}
        taken["image_ids"] = [self.image_ids[image] for image in images]
        return Predictions(**fields | taken)

    def _inside(self) -> np.ndarray:
        """`<bool>[images, places]`: places that hold a label and no padding."""
        return np.arange(self.paths.shape[1]) < self.path_lengths[:, np.newaxis]

    def _check_paths_are_whole(self) -> None:
        missing = [name for name in _PATH_FIELDS if getattr(self, name) is None]
        if len(missing) not in (0, len(_PATH_FIELDS)):
            raise UserError(
                f"predictions have all of {', '.join(_PATH_FIELDS)} or none, but {' and '.join(missing)} "
                "is None: use Predictions.from_scores where there are no paths"
            )

    def _check_shapes(self) -> None:
        table = (len(self.image_ids), self.labels.shape[-1] if self.labels.ndim == 2 else "labels")
        expected = {
            "labels": table,
            "known": table,
            "scores": table,
        }
        if self.has_paths:
            places = self.paths.shape[-1] if self.paths.ndim == 2 else "places"
            expected |= {
                "paths": (table[0], places),
                "path_lengths": table[:1],
                "path_log_probs": table[:1],
            }
        for name, shape in expected.items():
            arrived = getattr(self, name).shape
            if arrived != shape:
                expected_shape = ", ".join(str(size) for size in shape)
                raise UserError(
                    f"{name} of predictions for {table[0]} images must have shape [{expected_shape}], "
                    f"got {list(arrived)}"
                )
        if not self.num_labels:
            raise UserError("predictions need at least one label, got tables without a column")

    def _check_paths(self) -> None:
        places = self.paths.shape[1]
        wrong = (self.path_lengths < 0) | (self.path_lengths > places)
        self._refuse(wrong, f"a path length outside 0 to {places}, the width of `paths`")
        inside = self._inside()
        is_label = (self.paths >= 0) & (self.paths < self.num_labels)
        self._refuse(
            (inside & ~is_label).any(axis=1), f"a path with an id outside 0 to {self.num_labels - 1}"
        )
        distinct_padding = -1 - np.arange(places, dtype=np.int32)
        ids = np.sort(np.where(inside, self.paths, distinct_padding), axis=1)
        self._refuse((ids[:, 1:] == ids[:, :-1]).any(axis=1), "a path that holds a label twice")

    def _refuse(self, wrong: np.ndarray, what: str) -> None:
        if wrong.any():
            image = int(np.flatnonzero(wrong)[0])
            path, length = self.paths[image].tolist(), int(self.path_lengths[image])
            raise UserError(f"image {self.image_ids[image]!r} has {what}: {path}, of length {length}")


def _read_flags(name: str, values: np.ndarray) -> np.ndarray:
    """A table of 0 and 1 as uint8."""
    values = np.asarray(values)
    flags = values.astype(np.uint8, copy=False)
    if not np.array_equal(flags, values) or (flags > 1).any():
        raise UserError(f"{name} of predictions must be 0 or 1 in every cell; unknown cells go into `known`")
    return flags
