"""Predictions of a test split and of a hold-out enter; every measure leaves as JSON, with its conventions.

One model gives several rows: the labels of its best path, where it has paths, and lists cut from its label
scores. The test split
is read once; what has to be chosen, a threshold, is fitted on the hold-out. `report_tables.render` shows the
rows as the paper's table.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnrnn_tf.evaluation.calibration import lowest_cut, probabilities_of
from cnnrnn_tf.evaluation.metrics import (
    MAP_DENOMINATORS,
    SET_MEASURES,
    MAPAtN,
    MeanAveragePrecision,
    PrecisionAtK,
    RecallAtK,
    SetMeasures,
    average_precision,
    fit_label_thresholds,
    fit_threshold,
)
from cnnrnn_tf.evaluation.predictions import RANKING_RULE, Predictions
from cnnrnn_tf.evaluation.protocols import Protocol, with_companions
from cnnrnn_tf.evaluation.report_notes import explain
from cnnrnn_tf.evaluation.report_tables import print_report, render
from cnnrnn_tf.evaluation.summary import BEST_PATH
from tfrecords.errors import UserError, nearest
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.words import count

__all__ = [
    "RANKING_RULE",
    "choose_images",
    "choose_protocols",
    "evaluate_predictions",
    "find_row",
    "print_report",
    "render",
    "save_metrics",
    "save_per_label",
]

PAPER_DATASETS = ("nuswide81", "nuswide1000", "coco2014", "voc2007")
DEFAULT_K = 3  # list length of the rows that need one, where no protocol names it
_ROUNDING = 1e-6  # by which a probability may be outside 0 to 1
MAP_PLACES = 10
RANKING_PLACES = (1, 3, 5, 10, 20)  # 20: a summary of the paper quotes recall@20 on COCO
SCORE_LEVELS = (0.2, 0.5, 0.8)
BATCH_IMAGES = 2048  # images measured at a time: one-hot lists take k * labels bytes each


def choose_protocols(dataset: str, name: str | None = None) -> tuple[Protocol, ...]:
    """The protocol called `name` and its companions; without a name, the data set's own.

    That is the paper's for the data sets of the paper, and `free` for the demo and for a user's own table.

    Raises:
        UserError: no protocol has this name.

    >>> [found.name for found in choose_protocols("ponds")], choose_protocols("nuswide81")[0].k
    (['free'], 3)
    """
    return with_companions(name or ("cnn-rnn" if dataset in PAPER_DATASETS else "free"), dataset)


def choose_images(main: Protocol, predictions: Predictions) -> np.ndarray:
    """The images that count: those of the protocol with any known label, `<bool>[images]`."""
    return (main.image_weights(predictions.labels, predictions.known) > 0) & predictions.known.any(axis=1)


def evaluate_predictions(
    test: Predictions,
    holdout: Predictions | None,
    protocols: Protocol | Sequence[Protocol],
    vocabulary: LabelVocabulary,
    split: str = "test",
    references: Sequence[Mapping[str, Any]] = (),
    rankings: MutableMapping[Any, dict[str, Any]] | None = None,
    holdout_is_reported: bool = False,
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """Measures all label lists that one set of predictions gives.

    The rows, with k from the protocols (3 where they name none):

    | name | list |
    |---|---|
    | `best path` | what the model emits |
    | `best path, first k` | the first k known labels of that |
    | `exactly k` | the k labels with the highest scores |
    | `at most k` | those of them that reach a threshold |
    | `free length` | all labels that reach a threshold |
    | `own thresholds` | all labels that reach each its own; only where the protocol leaves thresholds open |
    | `own, exact match` | the same, with thresholds that make the most sets right as a whole |

    The threshold is the protocol's; where it leaves that open, the one with the highest O-F1 on the hold-out,
    to a standard error (`fit_threshold`), for each row; each label's own is the one with its highest F1
    there, or those of all labels together the ones with the most exact matches (`fit_label_thresholds`).
    Without a hold-out (or without a label in it) such rows are left out, and the conventions say so. So are
    the rows of paths where there are none, and those cut at a protocol's threshold where the scores are no
    probabilities.

    Args:
        test: the split to report.
        holdout: images that neither trained the model nor are reported; None where there are none.
        protocols: from `choose_protocols`; they may differ in their lists alone.
        vocabulary: the names of the labels.
        split: the name of `test`, to print.
        references: scores to print beside, `{"name": .., "O-F1": 0..1, ..}`, from the data set's manifest.
        rankings: keeps the measures of the ranking from one call to the next, which take most of the time;
            pass one dictionary to calls that differ in their protocols alone.
        holdout_is_reported: whether `holdout` is None because its images are in `test`, to say so.
        remarks: what stands under every table on this data set: `Manifest.remarks`.

    Returns:
        A dictionary ready for JSON: `split`, `protocols`, `images` (how many count) and other counts, `rows`
        (see `find_row`), `ranking` (measures of the ranking behind all rows), `conventions` (`marks`, the
        rows and columns concerned, and `words`), `remarks` and `references`. Fractions are 0 to 1; None
        where a measure is undefined.

    Raises:
        UserError: no image counts, the protocols contradict each other, or the tables do not fit.
    """
    protocols = _check_protocols((protocols,) if isinstance(protocols, Protocol) else tuple(protocols))
    main = protocols[0]
    for predictions in (test, holdout):
        if predictions is not None and predictions.num_labels != vocabulary.size:
            raise UserError(
                f"predictions of {count('label', predictions.num_labels)} do not go with a vocabulary of "
                f"{vocabulary.size}: use the vocabulary that the model was trained with"
            )
    counted, holdout = _count_in(main, test), None if holdout is None else _count_in(main, holdout)
    if not len(counted):
        raise UserError(
            f"none of {count('image', len(test))} of {split!r} counts under protocol {main.name!r}: "
            f"{main.words}"
        )
    metrics = {
        "split": split,
        "protocols": [dataclasses.asdict(found) for found in protocols],
        "vocabulary_fingerprint": vocabulary.fingerprint,
        "images": len(counted),
        "images_in_split": len(test),
        "images_without_labels": int(np.sum(~counted.truth.any(axis=1))),
        "ranking_rule": test.ranking_rule,
        "off_scale": _find_off_scale(counted),
        "labels": vocabulary.size,
        "labels_without_positive": int(np.sum(~counted.truth.any(axis=0))),
        "labels_per_image": float(counted.truth.sum() / len(counted)),
        "unknown_cells": int(np.sum(counted.known == 0)),
        "holdout_images": None if holdout is None else len(holdout),
        "holdout_is_reported": holdout_is_reported,
        "rows": [_measure_list(entry, counted, main) for entry in _make_lists(counted, holdout, protocols)],
        "ranking": _recall_ranking({} if rankings is None else rankings, counted, protocols),
        "remarks": list(remarks),
        "references": [{key: _plain(value) for key, value in row.items()} for row in references],
    }
    if counted.has_paths:
        metrics["images_without_path"] = int(np.sum(~np.isfinite(counted.path_log_probs)))
    return {**metrics, "conventions": explain(metrics)}


def find_row(metrics: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The row called `name`, such as "best path" or "at most 3".

    Raises:
        UserError: there is no such row.
    """
    rows = {row["name"]: row for row in metrics["rows"]}
    if name not in rows:
        raise UserError(f"no row is called {name!r}{nearest(name, rows)}: there are {', '.join(rows)}")
    return rows[name]


def save_metrics(metrics: Mapping[str, Any], path: str | Path) -> None:
    """Writes sorted, indented JSON; a reader sees the old file or the whole new one.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not know.
    """
    text = json.dumps(metrics, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)


def save_per_label(
    path: str | Path,
    test: Predictions,
    vocabulary: LabelVocabulary,
    sets: np.ndarray | None = None,
    lists: str = BEST_PATH,
) -> None:
    """Writes one CSV row a label, most frequent in training first.

    The columns: label, train_count, positives, predicted, correct, precision, recall, F1, AP_raw, lists.
    Unknown cells count nowhere. A label never predicted has precision 0; one without a positive has no
    recall, F1 and AP: blank.

    Args:
        path: the file.
        test: the images that count.
        vocabulary: the names and training counts of the labels; where all counts are 0, nobody has counted,
            and the column is blank.
        sets: `<uint8>[images, labels]`, the predicted sets; those of the best paths by default.
        lists: the name of the row that has these sets, in every row of the last column.

    Raises:
        UserError: there are neither sets nor paths.
    """
    sets = test.path_sets() if sets is None else np.asarray(sets)
    predicted_cells = (sets != 0) & (test.known != 0)
    correct = np.sum(predicted_cells & test.truth, axis=0)
    predicted, positives = predicted_cells.sum(axis=0), test.truth.sum(axis=0)
    ap = average_precision(test.marks, test.scores, shape="raw")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "label",
                "train_count",
                "positives",
                "predicted",
                "correct",
                "precision",
                "recall",
                "F1",
                "AP_raw",
                "lists",
            ]
        )
        for i, (name, count) in enumerate(zip(vocabulary.names, vocabulary.counts, strict=True)):
            fractions = [correct[i] / max(predicted[i], 1), "", "", ""]
            if positives[i]:
                fractions[1:] = [
                    correct[i] / positives[i],
                    2 * correct[i] / (predicted[i] + positives[i]),
                    ap[i],
                ]
            cells = [value if value == "" else f"{value:.6f}" for value in fractions]
            counted = count if any(vocabulary.counts) else ""
            writer.writerow([name, counted, positives[i], predicted[i], correct[i], *cells, lists])


@dataclasses.dataclass(frozen=True)
class _Lists:
    """One list of labels an image: a row of the table.

    Attributes:
        name: the row's name.
        words: what is in a list.
        k: the most labels in a list; None for any number.
        values: `[images, labels]`, 0/1 sets or scores.
        cut: how `SetMeasures` makes sets of `values`: `top_k` and `threshold`.
        common_threshold: what labels are cut at that have no threshold of their own.
    """

    name: str
    words: str
    k: int | None
    values: np.ndarray
    cut: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    common_threshold: float | None = None


def _make_lists(
    test: Predictions, holdout: Predictions | None, protocols: Sequence[Protocol]
) -> Iterator[_Lists]:
    lengths = _list_lengths(protocols)
    if test.has_paths:
        yield _Lists(BEST_PATH, "the labels of the most probable path", None, test.path_sets())
        for k in lengths:
            words = f"the first {k} labels of the best path, fewer where it is shorter"
            yield _Lists(f"{BEST_PATH}, first {k}", words, k, test.path_sets(k))
    for k in lengths:
        words = f"the {k} labels with the highest scores"
        yield _Lists(f"exactly {k}", words, k, test.scores, {"top_k": k})
    fixed = protocols[0].threshold
    if fixed is None and (holdout is None or not holdout.truth.any()):
        return
    if fixed is not None and _find_off_scale(test) is not None:
        return
    for k in (*lengths, None):
        threshold = fixed
        if fixed is None:
            threshold = fit_threshold(holdout.scores, holdout.marks, k=k)
        within = "all labels" if k is None else f"those of the {k} labels with the highest scores"
        yield _Lists(
            "free length" if k is None else f"at most {k}",
            f"{within} whose score is at least {threshold:.4g}",
            k,
            test.scores,
            {"top_k": k, "threshold": threshold},
        )
    if fixed is None:
        yield from _make_own_lists(test, holdout)


def _make_own_lists(test: Predictions, holdout: Predictions) -> Iterator[_Lists]:
    scores, values = probabilities_of(holdout), probabilities_of(test)
    above = lowest_cut(holdout)
    if not (scores[holdout.known != 0] > above).any():
        return
    common = fit_threshold(scores, holdout.marks, above=above)
    for name, objective in (("own thresholds", "F1"), ("own, exact match", "exact_match")):
        thresholds = fit_label_thresholds(scores, holdout.marks, objective=objective, above=above)
        words = "all labels whose score is at least their own threshold, fitted for "
        words += "each label's F1" if objective == "F1" else "the whole set"
        yield _Lists(name, words, None, values, {"threshold": thresholds}, common)


def _measure_list(entry: _Lists, test: Predictions, main: Protocol) -> dict[str, Any]:
    measures = SetMeasures(
        test.num_labels,
        never_predicted_precision=main.never_predicted_precision,
        never_predicted_counts=main.never_predicted_counts,
        **entry.cut,
    )
    for batch in _batches(len(test)):
        measures.update_state(test.marks[batch], entry.values[batch])
    values = {name: float(value) for name, value in measures.result().items()}
    num_predicted = float(np.sum(measures.predicted.numpy()))
    threshold = entry.cut.get("threshold")
    is_own = isinstance(threshold, np.ndarray)
    return {
        "name": entry.name,
        "lists": entry.words,
        "k": entry.k,
        "threshold": None if is_own else threshold,
        **(
            {"label_thresholds": threshold.tolist(), "common_threshold": entry.common_threshold}
            if is_own
            else {}
        ),
        "list_length": num_predicted / len(test),
        **{name: values[name] for name in SET_MEASURES[:-4]},  # the fractions
        "N+": int(values["N+"]),
        "labels_never_predicted": int(values["labels_never_predicted"]),
        "labels_never_predicted_with_positive": _count_missed(measures),
    }


def _count_missed(measures: SetMeasures) -> int:
    """Labels with a positive that are in no predicted set: those whose precision is a convention."""
    return int(np.sum((measures.predicted.numpy() == 0) & (measures.positives.numpy() > 0)))


def _recall_ranking(
    rankings: MutableMapping[Any, dict[str, Any]], counted: Predictions, protocols: Sequence[Protocol]
) -> dict[str, Any]:
    """`_measure_ranking`, once for all protocols that count the same images."""
    places = tuple(sorted({*RANKING_PLACES, *_list_lengths(protocols)}))
    key = protocols[0].images, places
    if key not in rankings:
        rankings[key] = _measure_ranking(counted, places)
    return dict(rankings[key])


def _measure_ranking(test: Predictions, places: Sequence[int]) -> dict[str, Any]:
    """Every measure of `test.scores` as a ranking; None where no image or label can be ranked."""
    each_image = {f"MAP@{MAP_PLACES}_{name}": MAPAtN(MAP_PLACES, name) for name in MAP_DENOMINATORS}
    for k in places:
        each_image |= {f"precision@{k}": PrecisionAtK(k), f"recall@{k}": RecallAtK(k)}
    all_images = MeanAveragePrecision()
    for batch in _batches(len(test)):
        for metric in each_image.values():
            metric.update_state(test.marks[batch], test.scores[batch])
        all_images.update(test.marks[batch], test.scores[batch])
    undefined = not test.truth.any()
    values = {
        name: None if undefined and not name.startswith("precision") else float(metric.result())
        for name, metric in each_image.items()
    }
    is_off_scale = _find_off_scale(test) is not None
    by_score = {
        f"precision@score>={level}": None if is_off_scale else _precision_at(test, level)
        for level in SCORE_LEVELS
    }
    maps = {name: value for name, value in all_images.result().items() if name.startswith("mAP")}
    return {name: _plain(value) for name, value in {**values, **maps, **by_score}.items()}


def _precision_at(test: Predictions, level: float) -> float:
    """O-P of all labels that score at least `level`; nan where none does."""
    reached = (test.scores >= np.float32(level)) & (test.known != 0)
    return float(np.sum(reached & test.truth) / reached.sum()) if reached.any() else float("nan")


def _check_protocols(protocols: tuple[Protocol, ...]) -> tuple[Protocol, ...]:
    """Returns the protocols if one table can hold them all."""
    if not protocols:
        raise UserError("an evaluation needs a protocol, got none: take them from choose_protocols")
    fields = "images", "threshold", "c_f1", "never_predicted_precision", "never_predicted_counts", "ap_shape"
    for field in fields:
        values = {found.name: getattr(found, field) for found in protocols}
        if len(set(values.values())) > 1:
            raise UserError(
                f"one table holds protocols that differ in their lists alone, but {field} is {values}: "
                "evaluate them one at a time"
            )
    return protocols


def _count_in(main: Protocol, predictions: Predictions) -> Predictions:
    return predictions.take(choose_images(main, predictions))


def _find_off_scale(predictions: Predictions) -> float | None:
    """The score that is furthest outside 0 to 1; None for a beam search, whose marginals rank below 0."""
    seen = predictions.scores[(predictions.known != 0) & np.isfinite(predictions.scores)]
    if predictions.ranking_rule == RANKING_RULE or not len(seen):
        return None
    lowest, highest = float(seen.min()), float(seen.max())
    if max(-lowest, highest - 1) <= _ROUNDING:
        return None
    return highest if highest - 1 >= -lowest else lowest


def _list_lengths(protocols: Sequence[Protocol]) -> list[int]:
    return sorted({found.k for found in protocols if found.k is not None}) or [DEFAULT_K]


def _batches(num_images: int) -> Iterator[slice]:
    return (slice(start, start + BATCH_IMAGES) for start in range(0, num_images, BATCH_IMAGES))


def _plain(value: Any) -> Any:
    """A value for JSON: NumPy scalars become Python's, NaN and infinity become None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
