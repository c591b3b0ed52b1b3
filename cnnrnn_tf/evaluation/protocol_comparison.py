"""One set of predictions enters; its measures under every protocol, and why they differ, leave.

The numbers of one model move by several points with the conventions alone. Here the same predictions are
measured by each preset of `protocols`, and the differences are told with the numbers at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cnnrnn_tf.evaluation.label_sets import cut_sets
from cnnrnn_tf.evaluation.prediction_files import PredictionFile
from cnnrnn_tf.evaluation.predictions import Predictions
from cnnrnn_tf.evaluation.protocols import Protocol
from cnnrnn_tf.evaluation.report import (
    choose_images,
    choose_protocols,
    evaluate_predictions,
    save_per_label,
)
from cnnrnn_tf.evaluation.report_notes import explain_no_threshold
from cnnrnn_tf.evaluation.report_tables import (
    describe_calibration,
    describe_title,
    list_details,
    open_console,
    tabulate_lists,
    tabulate_places,
)
from cnnrnn_tf.evaluation.summary import BEST_PATH, own_row, summarise, warn
from tfrecords.errors import UserError
from tfrecords.words import count

COMPARED = ("cnn-rnn", "ml-gcn", "srn", "asl", "free")
ALL = "all"
"""The name that stands for every protocol of `COMPARED`."""


def measure(
    test: PredictionFile,
    holdout: PredictionFile | None,
    protocol: str | None = None,
    references: Sequence[Mapping[str, Any]] = (),
    holdout_is_reported: bool = False,
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """The measures of predictions, by one protocol or by all.

    Args:
        test: the split to report.
        holdout: other images of the same labels, to fit thresholds on; None where there are none.
        protocol: a protocol's name, or "all"; None takes the data set's own.
        references: scores known from elsewhere, to print beside.
        holdout_is_reported: whether `test` has the hold-out's images; always so if that is its split's name.
        remarks: what stands under every table on this data set: `Manifest.remarks`.

    Returns:
        What `evaluate_predictions` returns; for "all", `split`, `holdout_is_reported`, `protocols` (those by
        name), `left_out` (why, for each under which no image counts) and `differences` (one entry a
        convention: `about` and `words`).

    Raises:
        UserError: no such protocol; the two have other labels, or share an image; no image counts.
    """
    if holdout is not None:
        _check_pair(test, holdout)
    chosen = {
        name: choose_protocols(test.dataset, name) for name in (COMPARED if protocol == ALL else [protocol])
    }
    empty = [name for name, (main, *_) in chosen.items() if not choose_images(main, test.predictions).any()]
    if len(empty) == len(chosen):
        empty = []  # it is told as for one protocol
    rankings: dict[Any, dict[str, Any]] = {}
    holdout_is_reported |= test.split == "holdout"
    found = {
        name: evaluate_predictions(
            test.predictions,
            None if holdout is None else holdout.predictions,
            protocols,
            test.vocabulary,
            test.split,
            references,
            rankings,
            holdout_is_reported,
            remarks,
        )
        for name, protocols in chosen.items()
        if name not in empty
    }
    if protocol != ALL:
        return found[protocol]
    return {
        "split": test.split,
        "holdout_is_reported": holdout_is_reported,
        "protocols": found,
        "left_out": {name: f"no image counts. {chosen[name][0].words}" for name in empty},
        "differences": explain_differences(found),
    }


def own_sets(predictions: Predictions, metrics: Mapping[str, Any]) -> tuple[str, Predictions, np.ndarray]:
    """What a table of labels is about: the lists of the protocol's own row, of the images that count.

    Args:
        predictions: of any split.
        metrics: by one protocol. Where its own row is left out, the first is taken.

    Returns:
        The row's name, the predictions of the images that count, and their sets `<uint8>[images, labels]`.
    """
    fields = {name: value for name, value in metrics["protocols"][0].items() if name != "words"}
    counted = predictions.take(choose_images(Protocol(**fields), predictions))
    row = own_row(metrics) or metrics["rows"][0]
    if _is_emitted(row):
        return row["name"], counted, counted.path_sets(row["k"])
    return row["name"], counted, cut_sets(counted.scores, counted.known, row["k"], row["threshold"])


def name_label_tables(stem: str | Path, metrics: Mapping[str, Any], protocol: str | None) -> list[Path]:
    """The files of `save_label_tables`: `STEM.csv`, or `STEM-PROTOCOL.csv`, for all protocols one each.

    >>> [path.name for path in name_label_tables("per_label-test", {}, "asl")]
    ['per_label-test-asl.csv']
    """
    names = metrics["protocols"] if protocol == ALL else [protocol]
    return [Path("-".join(filter(None, (str(stem), name))) + ".csv") for name in names]


def save_label_tables(
    stem: str | Path, content: PredictionFile, metrics: Mapping[str, Any], protocol: str | None = None
) -> None:
    """Writes `save_per_label` of the protocol's own row, for all protocols one file each.

    Args:
        stem: the path, without `.csv`.
        content: predictions of any split; a protocol under which none of its images counts has no file.
        metrics: from `measure`.
        protocol: what `measure` was given.
    """
    parts = metrics["protocols"].values() if protocol == ALL else [metrics]
    for path, part in zip(name_label_tables(stem, metrics, protocol), parts, strict=True):
        name, counted, sets = own_sets(content.predictions, part)
        if len(counted):
            save_per_label(path, counted, content.vocabulary, sets, name)


def explain_differences(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Why the numbers of one model differ: each convention, who follows which, and what it is worth here.

    Args:
        found: the metrics of each protocol, by name.
    """
    parts = (
        ("images", _explain_images),
        ("lists", _explain_lists),
        ("thresholds", _explain_thresholds),
        ("C-F1", _explain_c_f1),
        ("labels never predicted", _explain_never_predicted),
        ("mAP", _explain_ap),
        ("MAP@10", _explain_map_at_10),
    )
    return [{"about": about, "words": " ".join(explain(found))} for about, explain in parts]


def print_comparison(
    comparison: Mapping[str, Any], file: IO[str] | None = None, verbose: bool = True
) -> None:
    """Prints the rows of all protocols side by side, why they differ, then each protocol's own table.

    Args:
        comparison: what `measure` returns for "all".
        file: where to; standard output by default.
        verbose: with all conventions, each once.
    """
    console = open_console(file)
    found = comparison["protocols"]
    first = next(iter(found.values()))
    console.print(Text.assemble((first["split"], "bold"), " by every protocol, in percent"))
    console.print(Text(summarise(found.get("free", first))), "", _tabulate(found), sep="\n")
    for name, words in comparison["left_out"].items():
        console.print(Text(f"{name} is left out: {words}"))
    if "calibration" in comparison:
        console.print(Text("\n"), describe_calibration(comparison), sep="")
    console.print(Text("\nwhy they differ", style="bold"))
    for part in comparison["differences"]:
        console.print(Padding(Text(f"{part['about']}: {part['words']}"), (0, 0, 0, 2)))
    rankings = []
    for metrics in found.values():
        console.print("", describe_title(metrics), sep="\n")
        for table in tabulate_lists(metrics, with_references=metrics is first):
            console.print("", table, sep="\n")
        if metrics["ranking"] not in rankings:  # one for all protocols that count the same images
            rankings.append(metrics["ranking"])
            console.print("", tabulate_places(metrics), sep="\n")
    console.print("")
    console.print(*map(Text, first.get("remarks", ())), sep="\n")
    for words in dict.fromkeys(words for metrics in found.values() for words in warn(metrics)):
        console.print(Text(words, style="yellow"))
    console.print(list_details(list(found.values()), verbose))


def _check_pair(test: PredictionFile, holdout: PredictionFile) -> None:
    if test.vocabulary != holdout.vocabulary:
        other = sorted(set(test.vocabulary.names) ^ set(holdout.vocabulary.names))
        what = f"such as {other[0]!r}" if other else "in their training counts"
        raise UserError(f"the labels of the hold-out are not those of {test.split!r}; they differ {what}")
    if holdout.split in ("test", test.split):
        raise UserError(
            f"the hold-out's predictions are of split {holdout.split!r}, and thresholds would be fitted on "
            "what is reported or is read once; give the hold-out's file"
        )
    shared = set(test.predictions.image_ids) & set(holdout.predictions.image_ids)
    if shared:
        are = f"{count('image', len(shared))} {'is' if len(shared) == 1 else 'are'}"
        raise UserError(
            f"{are} both in {test.split!r} and in the hold-out, such as {min(shared)!r}: a threshold fitted "
            "on images that are reported is chosen by their truth; take other images"
        )


def _explain_images(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    groups = _group(found, lambda metrics: metrics["protocols"][0]["images"])
    some = next(iter(found.values()))
    if len(groups) == 1:
        yield f"all protocols count {some['images']:,} of {count('image', some['images_in_split'])}."
        return
    tagged, every = found[groups["tagged"][0]], found[groups["all"][0]]
    yield (
        f"{_join(groups['tagged'])} count the {count('image', tagged['images'])} with a label "
        f"({tagged['labels_per_image']:.2f} labels each); {_join(groups['all'])} count all "
        f"{every['images']:,} ({every['labels_per_image']:.2f} labels each)."
    )
    if tagged["images"] == every["images"]:
        yield "Here every image has a label, so that this changes nothing."
        return
    yield "Images without labels can only lower O-P, and never change O-R."
    one, other = (find for find in (found.get("ml-gcn"), found.get("srn")))
    if one is not None and other is not None:
        first, second = own_row(one), own_row(other)
        if first is not None and second is not None:
            plain = (
                _percent(_count_never_predicted(metrics, row)[0])
                for metrics, row in ((one, first), (other, second))
            )
            yield "ml-gcn and srn cut the same lists: O-P {} without those images and {} with them.".format(
                *plain
            )


def _explain_lists(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, metrics in found.items():
        main, row = metrics["protocols"][0], own_row(metrics)
        if _is_emitted(row):
            words = "what the model emits" + (
                "" if row["k"] is None else f", its first {count('label', row['k'])}"
            )
        elif main["list_length"] != "free":
            words = f"{main['list_length'].replace('_', ' ')} {count('label', main['k'])}"
        else:
            words = "every label that reaches the threshold"
        if row is None:
            reason = (
                "as these scores are no probabilities"
                if _is_off_scale(metrics)
                else "for want of a threshold"
            )
            yield f"{name}: {words}, left out {reason}."
            continue
        yield (
            f"{name}: {words}, {row['list_length']:.2f} an image on average, O-P {_percent(row['O-P'])}, O-R "
            f"{_percent(row['O-R'])}."
        )
    yield "O-P/O-R is true labels over predicted ones: longer lists trade precision for recall."


def _explain_thresholds(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    fixed, fitted, none = [], [], []
    for name, metrics in found.items():
        main, row = metrics["protocols"][0], own_row(metrics)
        if main["list_length"] == "exactly" or _is_emitted(row):
            none.append(name)
        elif main["threshold"] is not None:
            fixed.append(f"{name} ({main['threshold']:g})")
        elif row is not None:
            fitted.append(f"{name} ({row['threshold']:.4g}, on {count('image', metrics['holdout_images'])})")
    if fixed:
        yield f"fixed for {_join(fixed)}."
    if fitted:
        yield f"Fitted for O-F1 on the hold-out: {_join(fitted)}."
    elif len(fixed) + len(none) < len(found):
        yield f"None is fitted: {explain_no_threshold(next(iter(found.values())))}."
    if none:
        yield f"Not needed: {_join(none)}."


def _is_off_scale(metrics: Mapping[str, Any]) -> bool:
    return metrics["off_scale"] is not None and metrics["protocols"][0]["threshold"] is not None


def _is_emitted(row: Mapping[str, Any] | None) -> bool:
    return row is not None and row["name"].startswith(BEST_PATH)


def _explain_c_f1(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    groups = _group(found, lambda metrics: metrics["protocols"][0]["c_f1"])
    words = {
        "harmonic": "is the harmonic mean of C-P and C-R",
        "per_class": "is the mean of the labels' F1",
        "both": "is given both ways",
    }
    yield "; ".join(f"for {_join(names)} it {words[average]}" for average, names in groups.items()) + "."
    pairs = [
        f"{name} {_percent(row['C-F1_harmonic'])} and {_percent(row['C-F1_per_class'])}"
        for name, metrics in found.items()
        if (row := own_row(metrics)) is not None
    ]
    if pairs:
        yield f"Of the same lists, harmonic and per class: {_join(pairs)}."


def _explain_never_predicted(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    groups = _group(found, lambda metrics: metrics["protocols"][0]["never_predicted_precision"])
    yield "; ".join(f"precision {value} for {_join(names)}" for value, names in sorted(groups.items())) + "."
    for name, metrics in found.items():
        row = own_row(metrics)
        if row is None:
            continue
        num_labels = metrics["labels"] - metrics["labels_without_positive"]
        concerned = row["labels_never_predicted_with_positive"]
        if not concerned:
            yield f"{name}: of {count('label', num_labels)} with a positive, all are predicted."
            continue
        counted = metrics["protocols"][0]["never_predicted_precision"]
        other = row["C-P"] + (1 - 2 * counted) * concerned / num_labels
        yield (
            f"{name}: {concerned} of {count('label', num_labels)} with a positive "
            f"{'is' if concerned == 1 else 'are'} never predicted; C-P is {_percent(row['C-P'])}, and would "
            f"be {_percent(other)} the other way."
        )
    yield from _explain_never_predicted_counts(found)


def _explain_never_predicted_counts(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    groups = _group(found, lambda metrics: metrics["protocols"][0]["never_predicted_counts"])
    if 1 not in groups:
        return
    yield f"In O-P each counts as one wrong prediction for {_join(groups[1])}, for the others as none."
    for name in groups[1]:
        row = own_row(found[name])
        if row is not None and row["labels_never_predicted"]:
            without, counted = map(_percent, _count_never_predicted(found[name], row))
            yield f"{name}: O-P is {counted} with the {row['labels_never_predicted']}, {without} without."


def _count_never_predicted(metrics: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[float, float]:
    """O-P of a row where labels never predicted count nothing, and where each counts as one prediction."""
    predicted = row["list_length"] * metrics["images"]
    never, added = row["labels_never_predicted"], metrics["protocols"][0]["never_predicted_counts"]
    hits = row["O-P"] * (predicted + added * never)
    return hits / max(predicted, 1), hits / max(predicted + never, 1)


def _explain_ap(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    shapes = {"raw": "not interpolated", "voc11": "11 points", "interpolated": "interpolated at all points"}
    groups = _group(found, lambda metrics: metrics["protocols"][0]["ap_shape"])
    yield "; ".join(f"{shapes[shape]} for {_join(names)}" for shape, names in groups.items()) + "."
    for num_images, names in _group(found, lambda metrics: metrics["images"]).items():
        ranking = found[names[0]]["ranking"]
        values = [f"{_percent(ranking[f'mAP_{shape}'])} {words}" for shape, words in shapes.items()]
        yield f"Over {count('image', num_images)}: {_join(values)}."


def _explain_map_at_10(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    groups = _group(found, lambda metrics: _percent(metrics["ranking"]["MAP@10_truncated"]))
    if len(groups) == 1:
        yield (
            f"{next(iter(groups))} for all: lists and thresholds do not enter it, and images without labels "
            "never count."
        )
    else:
        yield "; ".join(f"{value} for {_join(names)}" for value, names in groups.items()) + "."


def _tabulate(found: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("protocol")
    table.add_column("lists")
    for header in ("images", "length", "C-P", "C-R", "C-F1", "O-P", "O-R", "O-F1", "mAP"):
        table.add_column(header, justify="right")
    for name, metrics in found.items():
        main, row = metrics["protocols"][0], own_row(metrics)
        if row is None:
            continue
        average = {"both": "harmonic"}.get(main["c_f1"], main["c_f1"])
        cells = [row[key] for key in ("C-P", "C-R", f"C-F1_{average}", "O-P", "O-R", "O-F1")]
        cells.append(metrics["ranking"][f"mAP_{main['ap_shape']}"])
        length = f"{row['list_length']:.2f}"
        table.add_row(name, row["name"], f"{metrics['images']:,}", length, *map(_percent, cells))
    return table


def _group(found: Mapping[str, Mapping[str, Any]], key: Any) -> dict[Any, list[str]]:
    """The names of the protocols by what `key` says of their metrics."""
    groups: dict[Any, list[str]] = {}
    for name, metrics in found.items():
        groups.setdefault(key(metrics), []).append(name)
    return groups


def _join(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"
