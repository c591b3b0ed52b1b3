"""Label probabilities of a hold-out and its truth enter; the temperature that makes them honest leaves.

A model that says 0.9 of a hundred labels is calibrated if ninety of them hold. Guo et al., On Calibration of
Modern Neural Networks (arXiv 1706.04599), divide a network's logits by one number T, fitted on held-out data;
here for labels one by one, p' = sigmoid(logit(p) / T). T above 1 moves probabilities towards 0.5, below 1
away from it. The map rises, so no ranking changes, no set that is cut at a threshold (moved along with the
scores), and no path: what changes is what a probability means.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from cnnrnn_tf.evaluation.predictions import RANKING_RULE, Predictions
from cnnrnn_tf.evaluation.tables import read_table
from cnnrnn_tf.evaluation.thresholds import fit_label_thresholds, fit_threshold
from tfrecords.errors import UserError
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.words import count

FILE_NAME = "calibration.json"
NUM_BINS = 15
UNSEEN = 1e-4
"""What is kept from 0 and from 1 before the logit: p becomes UNSEEN + (1 - 2 UNSEEN) p."""

_TEMPERATURES = 0.5, 10.0  # below 0.5 float32 begins to tie what lies next to 1


def fit_temperature(scores: Any, labels: Any, known: Any = None, standard_errors: float = 1.0) -> float:
    """The temperature with the least binary log-loss, mean over the known cells.

    A marginal is exactly 0 where no candidate path holds the label, and exactly 1 where all do; it is a share
    among a few paths, and neither is certain. So `apply_temperature` first moves p by 1e-4 into the open
    interval; without it T would not touch these cells, which are most, and one wrong among them would cost
    infinitely much. A clip would tie what lies beyond it; this keeps all orders.

    It is looked for from 0.5 to 10: on a hold-out without a mistake ever lower ones are ever better. It stays
    1 unless the gain in log-loss, image by image, exceeds its own standard error (of the mean over images):
    a few images fit any T, and tell nothing of others. It is the rule by which thresholds are chosen
    (`thresholds.fit_threshold`; Breiman et al., 1984, section 3.4.3). The cells of one image hang together,
    so images are counted, not cells.

    Args:
        scores: `<float>[images, labels]`, probabilities 0 to 1; below 0 (a label on no path, ranked by
            `beam_search.rank_labels`) reads as 0.
        labels: `[images, labels]`, above 0 where the image has the label, below 0 where unknown.
        known: `[images, labels]`, 0 or False where unknown.
        standard_errors: how many standard errors of its mean the gain must exceed; 0 returns the best T.

    Returns:
        T.

    Raises:
        UserError: the tables do not fit, a score is NaN or above 1, or nothing is known.

    >>> f"{fit_temperature([[0.9]] * 40, [[1], [1], [1], [0]] * 10):.2f}"  # 3/4 hold: T = ln 9 / ln 3
    '2.00'
    >>> fit_temperature([[0.9]] * 4, [[1], [1], [1], [0]])  # four images do not tell that from chance
    1.0
    """
    truth, scores, mask = _read_probabilities(scores, labels, known)
    best = _find_temperature(truth, scores, mask)
    gains = _gain_per_image(truth, scores, mask, best)
    if not standard_errors:
        return best if gains.sum() > 0 else 1.0
    if len(gains) < 2:
        return 1.0
    standard_error = gains.std(ddof=1) / np.sqrt(len(gains))
    return best if gains.mean() > standard_errors * standard_error else 1.0


def _find_temperature(truth: np.ndarray, scores: np.ndarray, mask: np.ndarray) -> float:
    """The temperature with the least log-loss, within `_TEMPERATURES`."""
    logits = _logit(scores[mask])
    sum_of_true = logits[truth[mask]].sum()
    values, counts = np.unique(logits, return_counts=True)  # most cells are 0

    def mean_log_loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float((counts @ np.logaddexp(0, values * inverse) - sum_of_true * inverse) / len(logits))

    found = minimize_scalar(
        mean_log_loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def _gain_per_image(
    truth: np.ndarray, scores: np.ndarray, mask: np.ndarray, temperature: float
) -> np.ndarray:
    """`<float64>[images with a known label]`: how much less log-loss T gives the known cells of each."""
    logits = np.where(truth, -1, 1) * _logit(scores)
    gains = np.logaddexp(0, logits) - np.logaddexp(0, logits / temperature)
    return np.sum(gains, axis=1, where=mask)[mask.any(axis=1)]


def apply_temperature(scores: Any, temperature: float) -> np.ndarray:
    """Calibrated probabilities: sigmoid(logit(p) / T), with p moved by 1e-4 away from 0 and 1 beforehand.

    Args:
        scores: `<float>[...]`, probabilities 0 to 1; below 0 reads as 0.
        temperature: T, above 0; see `fit_temperature`.

    Returns:
        `<float>[...]` of the same type, 0 to 1, in the order of `scores`.

    Raises:
        UserError: a score is above 1, or the temperature is not above 0.

    >>> apply_temperature(np.array([0.5, 0.9, 1.0]), 2.0).round(3)
    array([0.5 , 0.75, 0.99])
    """
    if not 0 < temperature < np.inf:
        raise UserError(f"temperature {temperature}: expected a number above 0; fit_temperature gives one")
    scores = np.asarray(scores)
    dtype = scores.dtype if scores.dtype.kind == "f" else np.float64
    logits = _logit(_check_range(scores)) / temperature
    return np.exp(-np.logaddexp(0, -logits)).astype(dtype)


class Reliability(NamedTuple):
    """The bins of a reliability diagram; the means are nan where a bin is empty."""

    counts: np.ndarray
    """`<int64>[bins]`: known cells whose probability lies in the bin."""
    mean_probability: np.ndarray
    """`<float64>[bins]`: their mean probability."""
    share_true: np.ndarray
    """`<float64>[bins]`: the share of them whose label holds."""


def reliability(scores: Any, labels: Any, known: Any = None, num_bins: int = NUM_BINS) -> Reliability:
    """What probabilities promise and what holds, in bins of equal width from 0 to 1; 1 is in the last.

    Args:
        scores: `<float>[images, labels]`, probabilities; below 0 reads as 0.
        labels: `[images, labels]`, above 0 where the image has the label, below 0 where unknown.
        known: `[images, labels]`, 0 or False where unknown.
        num_bins: how many.

    Raises:
        UserError: the tables do not fit, a score is NaN or above 1, nothing is known, or there is no bin.

    >>> reliability([[0.2, 0.4, 0.9]], [[0, 1, 1]], num_bins=2).share_true
    array([0.5, 1. ])
    """
    if num_bins < 1:
        raise UserError(f"num_bins {num_bins}: expected 1 or more")
    truth, scores, mask = _read_probabilities(scores, labels, known)
    probabilities, hits = scores[mask].astype(np.float64), truth[mask]
    bins = np.minimum((probabilities * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        return Reliability(
            counts,
            np.bincount(bins, probabilities, num_bins) / counts,
            np.bincount(bins, hits, num_bins) / counts,
        )


def expected_calibration_error(
    scores: Any, labels: Any, known: Any = None, num_bins: int = NUM_BINS
) -> float:
    """ECE: the mean over all known cells of |mean probability - share true| of their bin, 0 to 1.

    Binary: the probability of the label itself, and not, as for classes, that of the most probable one. Most
    cells are labels that an image has not, with a probability near 0: on many labels a small number.

    The arguments and errors are those of `reliability`.

    >>> error = expected_calibration_error([[0.2, 0.4, 0.9]], [[0, 1, 1]], num_bins=2)
    >>> round(error, 4)  # (2 * |0.3 - 0.5| + 1 * |0.9 - 1|) / 3
    0.1667
    """
    counts, mean_probability, share_true = reliability(scores, labels, known, num_bins)
    filled = counts > 0
    gaps = np.abs(mean_probability - share_true)[filled]
    return float(counts[filled] @ gaps / counts.sum())


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was fitted on the hold-out of a run: `calibration.json`.

    Attributes:
        temperature: T of `apply_temperature`.
        threshold: the lowest calibrated probability that enters a list, one for all labels (`fit_threshold`).
        label_thresholds: each label's own, in the order of their ids (`fit_label_thresholds`, F1).
        ece_before: expected calibration error on the hold-out, of the model's marginals; 0 to 1.
        ece_after: the same of the calibrated probabilities.
        num_images: images of the hold-out.
        vocabulary_fingerprint: of the labels.
        note: what there is to say of the temperature, if anything: that it stayed 1, or ended at a bound.

    Raises:
        UserError: a number is outside its range.
    """

    temperature: float
    threshold: float
    label_thresholds: tuple[float, ...]
    ece_before: float
    ece_after: float
    num_images: int
    vocabulary_fingerprint: str
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_thresholds", tuple(self.label_thresholds))
        if not 0 < self.temperature < np.inf:
            raise UserError(f"temperature of a calibration must be above 0, got {self.temperature}")
        shares = {
            "threshold": [self.threshold],
            "label_thresholds": self.label_thresholds,
            "ece_before": [self.ece_before],
            "ece_after": [self.ece_after],
        }
        for name, values in shares.items():
            wrong = [value for value in values if not 0 <= value <= 1]
            if wrong:
                raise UserError(f"{name} of a calibration must be from 0 to 1, got {wrong[0]}")

    def apply(self, scores: Any) -> np.ndarray:
        """Calibrated probabilities of scores; see `apply_temperature`."""
        return apply_temperature(scores, self.temperature)

    def measure(self, predictions: Predictions, is_fitted_here: bool = False) -> dict[str, Any]:
        """How far off probabilities are on some split, before and after: an entry for `metrics.json`.

        Args:
            predictions: of the whole split.
            is_fitted_here: whether the hold-out is in it; then the errors are left out, as those of images
                that chose T say nothing of others.
        """
        if is_fitted_here:
            return {
                "temperature": self.temperature,
                "threshold": self.threshold,
                "holdout_images": self.num_images,
            }
        scores, marks = predictions.scores, predictions.marks
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "images": len(predictions),
            "ece_before": expected_calibration_error(scores, marks),
            "ece_after": expected_calibration_error(self.apply(scores), marks),
            "holdout_images": self.num_images,
            "holdout_ece_before": self.ece_before,
            "holdout_ece_after": self.ece_after,
        }

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for `json.dump`; `from_json` reads it back."""
        return {**dataclasses.asdict(self), "label_thresholds": list(self.label_thresholds)}

    @classmethod
    def from_json(
        cls, content: Mapping[str, Any], vocabulary: LabelVocabulary, where: str = "calibration"
    ) -> Calibration:
        """The calibration of `to_json`.

        Raises:
            UserError: it holds something else, or belongs to another vocabulary.
        """
        try:
            types = {field.name: field.type for field in dataclasses.fields(cls)}
            if "note" not in content:  # of before there were notes
                del types["note"]
            values = {name: _READERS[kind](content[name]) for name, kind in types.items()}
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{where}: is no calibration ({reason}); {_AGAIN}") from None
        try:
            found = cls(**values)
        except UserError as error:
            raise UserError(f"{where}: {error}; {_AGAIN}") from None
        found.check_vocabulary(vocabulary, where)
        return found

    def check_vocabulary(self, vocabulary: LabelVocabulary, where: str = "calibration") -> None:
        """Refuses the labels of another model.

        Raises:
            UserError: it was fitted for another vocabulary.
        """
        if self.vocabulary_fingerprint != vocabulary.fingerprint:
            raise UserError(
                f"{where}: was fitted for another vocabulary ({self.vocabulary_fingerprint[:12]}, this one "
                f"is {vocabulary.fingerprint[:12]}); {_AGAIN}"
            )
        if len(self.label_thresholds) != vocabulary.size:
            raise UserError(
                f"{where}: holds {len(self.label_thresholds)} label_thresholds for {vocabulary.size} "
                f"labels; {_AGAIN}"
            )

    def save(self, folder: str | Path) -> None:
        """Writes `calibration.json` into a folder."""
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        (Path(folder) / FILE_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, vocabulary: LabelVocabulary) -> Calibration | None:
        """Reads `calibration.json` of a run or of an export's extras; None where there is none.

        Runs from before there were calibrations have none, nor do those whose hold-out has no label.

        Raises:
            UserError: the file is damaged, or belongs to another vocabulary.
        """
        path = Path(folder) / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as JSON ({error}); {_AGAIN}") from None
        return cls.from_json(content, vocabulary, str(path))


def fit_calibration(holdout: Predictions, vocabulary: LabelVocabulary) -> Calibration:
    """Fits temperature and thresholds on a hold-out.

    The thresholds are fitted to the scores as they are and moved along with them: they cut the same sets.

    Args:
        holdout: images that neither trained the model nor are reported.
        vocabulary: the labels.

    Raises:
        UserError: the hold-out has no known label, or its scores are no probabilities.
    """
    scores, marks = probabilities_of(holdout), holdout.marks
    temperature = fit_temperature(scores, marks)
    above = lowest_cut(holdout)
    own = fit_label_thresholds(scores, marks, above=above)
    thresholds = fit_threshold(scores, marks, above=above), *own.tolist()
    common, *own = apply_temperature(np.array(thresholds), temperature).tolist()
    return Calibration(
        temperature=temperature,
        threshold=common,
        label_thresholds=tuple(own),
        ece_before=expected_calibration_error(scores, marks),
        ece_after=expected_calibration_error(apply_temperature(scores, temperature), marks),
        num_images=len(holdout),
        vocabulary_fingerprint=vocabulary.fingerprint,
        note=_describe_temperature(temperature, len(holdout)),
    )


def _describe_temperature(temperature: float, num_images: int) -> str:
    if temperature == 1:
        return f"T stays 1: {count('hold-out image', num_images)} cannot tell a better one from chance"
    low, high = _TEMPERATURES
    if temperature < 1.01 * low or temperature > 0.99 * high:
        return f"T ends at a bound of {low:g} to {high:g}, between which it is looked for"
    return ""


def probabilities_of(predictions: Predictions) -> np.ndarray:
    """The scores; those of a beam search as probabilities, 0 for labels on no path, which rank below 0.

    The scores of other methods are returned as they are: they may be of any scale.
    """
    is_marginal = predictions.ranking_rule == RANKING_RULE
    return np.maximum(predictions.scores, 0) if is_marginal else predictions.scores


def lowest_cut(predictions: Predictions) -> float:
    """What a threshold on `probabilities_of` must be above: 0 for a beam search, as 0 is on no path."""
    return 0.0 if predictions.ranking_rule == RANKING_RULE else -np.inf


_AGAIN = "train again, or remove the file to go on without calibration"
_READERS = {
    "float": float,
    "int": int,
    "str": lambda value: value[:],
    "tuple[float, ...]": lambda values: tuple(map(float, values)),
}


def _logit(probabilities: np.ndarray) -> np.ndarray:
    """`<float64>`, finite: of p moved by `UNSEEN` away from 0 and from 1."""
    p = np.asarray(probabilities, np.float64)
    return np.log(UNSEEN + (1 - 2 * UNSEEN) * p) - np.log(UNSEEN + (1 - 2 * UNSEEN) * (1 - p))


def _read_probabilities(scores: Any, labels: Any, known: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, scores, mask = read_table(labels, scores, known)
    if not mask.any():
        raise UserError(
            f"no calibration: nothing is known of the labels of {count('image', len(mask))}: take others"
        )
    return truth, _check_range(np.where(mask, scores, 0)), mask


def _check_range(scores: np.ndarray) -> np.ndarray:
    """The scores, those below 0 as 0."""
    if not (scores <= 1).all():
        raise UserError(
            f"calibration needs probabilities, 0 to 1, got a score of {np.max(scores):.4g}: scores of "
            "another scale have no logit"
        )
    return np.maximum(scores, 0)
