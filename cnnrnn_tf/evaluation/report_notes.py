"""The measured rows of a report enter; the conventions behind its numbers leave, in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tfrecords.words import count

_AP_WORDS = {
    "raw": "AP is not interpolated",
    "voc11": "AP has the 11 points of VOC 2007",
    "interpolated": "AP is interpolated at all points",
}
_C_F1_WORDS = {
    "harmonic": "C-F1 as the harmonic mean of C-P and C-R, as in the paper.",
    "per_class": "C-F1 as the mean of the labels' F1.",
}


def explain(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conventions of `report.evaluate_predictions`, read off what it has measured.

    Returns:
        One entry a convention: `words`, and `marks`, the rows and columns that it explains (none: all).
    """
    names = [row["name"] for row in metrics["rows"]]
    by_path = [name for name in names if name.startswith("best path")]
    main = metrics["protocols"][0]
    averages = _C_F1_WORDS if main["c_f1"] == "both" else [main["c_f1"]]
    notes = [
        ([name for name in names if name not in by_path], _explain_cuts(metrics)),
        *(([f"C-F1_{average}"], _C_F1_WORDS[average]) for average in averages),
        (
            ["MAP@10"],
            "MAP@10 ranks the labels within an image, over images with a label, and divides by min(true "
            "labels, 10). All rows share the ranking.",
        ),
        (
            ["mAP"],
            "mAP ranks the images within a label, over labels with a positive; "
            f"{_AP_WORDS[main['ap_shape']]}. All rows share the ranking.",
        ),
        ([], f"{'; '.join(_count_in_words(metrics))}."),
    ]
    if by_path:
        words = "The labels of the most probable path, in the order in which the model emits them."
        notes.insert(0, (by_path, words))
    notes += [([], f"Protocol {found['name']}: {found['words']}") for found in metrics["protocols"]]
    return [{"marks": marks, "words": words} for marks, words in notes]


def explain_words(columns: Collection[str]) -> Iterator[str]:
    """The key of the table: what its headers stand for.

    Args:
        columns: marks of the columns that are shown.
    """
    yield (
        "P, R, F1: precision (of what is given, the share that is right), recall (of what is true, the "
        "share that is found), and their harmonic mean. C-: for each label, mean over labels; O-: over all "
        "labels together."
    )
    if "C-F1_per_class" in columns and "C-F1_harmonic" in columns:
        yield "C-F1: first of the means C-P and C-R, then the mean of the labels' F1."
    yield (
        "MAP@10: how near the top the true labels of an image rank; mAP: how near the top the true images "
        "of a label rank; exact: sets right as a whole; length: labels in a list; ECE: how far "
        "probabilities are off."
    )


def explain_essentials(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers cannot be read without: the protocol, with its k, and what counts."""
    for found in metrics["protocols"]:
        yield f"Protocol {found['name']}: {found['words']}"
    yield f"{'; '.join(_count_images(metrics))}."
    if (reason := _explain_left_out(metrics)) is not None:
        yield reason


def explain_no_threshold(metrics: Mapping[str, Any]) -> str:
    """Why no threshold is fitted."""
    if metrics["holdout_is_reported"]:
        return "the hold-out is what is reported, so nothing is fitted on it"
    return "no hold-out with labels to fit it on"


def _explain_scale(score: float) -> str:
    reach = f"reach {score:.4g}" if score > 1 else f"go down to {score:.4g}"
    return f"these scores {reach}, so they are no probabilities: write sigmoid(score)"


def _explain_left_out(metrics: Mapping[str, Any]) -> str | None:
    """Which lists there are not, and why; None where there are all."""
    fixed = metrics["protocols"][0]["threshold"]
    if fixed is not None and metrics["off_scale"] is not None:
        return f"Lists cut at {fixed:g} are left out: {_explain_scale(metrics['off_scale'])}."
    if all(row["threshold"] is None for row in metrics["rows"]):
        return f"Lists that need a threshold are left out: {explain_no_threshold(metrics)}."
    return None


def _explain_cuts(metrics: Mapping[str, Any]) -> str:
    rule = f"Cut from a ranking of the labels: {metrics['ranking_rule']}; equal scores by label id."
    fixed = metrics["protocols"][0]["threshold"]
    cuts = [
        f"{row['threshold']:.4g} ({row['name']})" for row in metrics["rows"] if row["threshold"] is not None
    ]
    if (reason := _explain_left_out(metrics)) is not None:
        return f"{rule} {reason}"
    if fixed is not None:
        return f"{rule} At most k and free length: scores of at least {fixed:g}."
    return (
        f"{rule} Thresholds with the highest O-F1, to a standard error, on "
        f"{count('hold-out image', metrics['holdout_images'])}: {', '.join(cuts)}.{_explain_own(metrics)}"
    )


def _explain_own(metrics: Mapping[str, Any]) -> str:
    row = next((row for row in metrics["rows"] if "label_thresholds" in row), None)
    if row is None:
        return ""
    own = row["label_thresholds"]
    return (
        f" Own thresholds: each label's with its highest F1, {min(own):.4g} to {max(own):.4g}, or the common "
        f"one, {row['common_threshold']:.4g}, where its F1 is as good, to a standard error; for exact match, "
        "those with the most sets right as a whole."
    )


def _count_in_words(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield from _count_images(metrics)
    never = [f"{row['labels_never_predicted']} ({row['name']})" for row in metrics["rows"]]
    if any(row["labels_never_predicted"] for row in metrics["rows"]):
        yield f"labels never predicted: {', '.join(never)}"


def _count_images(metrics: Mapping[str, Any]) -> Iterator[str]:
    num_images = metrics["images"]
    yield (
        f"{count('image', num_images)} {'counts' if num_images == 1 else 'count'}, "
        f"{metrics['images_without_labels']:,} of them without labels, "
        f"with {metrics['labels_per_image']:.2f} true labels each (length: labels in a list)"
    )
    left_out = metrics["images_in_split"] - metrics["images"]
    if left_out:
        yield f"{count('image', left_out)} {'is' if left_out == 1 else 'are'} left out"
    if metrics.get("images_without_path"):
        yield f"{count('image', metrics['images_without_path'])} got no path"
    if metrics["unknown_cells"]:
        yield f"{count('unknown label', metrics['unknown_cells'])} left out of rankings, lists and truth"
    if metrics["labels_without_positive"]:
        yield (
            f"{metrics['labels_without_positive']:,} of {count('label', metrics['labels'])} "
            "without a positive left out of C-P, C-R, C-F1 and mAP"
        )
