"""What is known of an exported model enters; its model card leaves, Markdown for whoever has to decide on it.

Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993): what it was trained on, how it was
measured and with what result, and what it cannot do. What nobody recorded is said to be missing. No path, no
commit and no name of a machine is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cnnrnn_tf.evaluation.report_tables import choose_columns, describe_calibration
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.words import count

RARE = 50
"""Training images below which a label's results are a matter of chance."""

_UNKNOWN = "not recorded"
_NAMED_LABELS = 10
_MARKUP = re.compile(r"([\\`*_\[\]<>|~#!&$])")
_MEASURES = ("split", "images", "protocols", "rows", "ranking", "references", "conventions")
_NAMED_WEIGHTS = ("imagenet", "none")


@dataclass(frozen=True)
class TrainingFacts:
    """What a run recorded of itself."""

    config: Mapping[str, Any]
    """`ExperimentConfig.to_json`."""
    environment: Mapping[str, Any]
    """environment.json: versions, the fingerprint of the records and, where recorded, images by split."""
    metrics: Mapping[str, Any] | None = None
    """metrics.json, see `evaluation.report.evaluate_predictions`; None where nothing was measured."""


def write_model_card(
    vocabulary: LabelVocabulary, export: Mapping[str, Any], training: TrainingFacts | None
) -> str:
    """Returns the card.

    Args:
        vocabulary: the labels.
        export: the content of export.json.
        training: what its run recorded; None for a model that comes without a run.
    """
    sections = {
        "Data": _describe_data(vocabulary, training),
        "Training": _describe_training(export, training),
        "Protocol and results": _describe_results(export, training),
        "Limits": _describe_limits(vocabulary, export, training),
        "Use": _describe_use(export),
    }
    name = _escape(training.config["data"]["dataset"]) if training else f"{vocabulary.size} labels"
    blocks = [f"# Model card: image tagger, {name}", _describe_model(vocabulary, export)]
    for title, lines in sections.items():
        blocks += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(blocks) + "\n"


def _describe_model(vocabulary: LabelVocabulary, export: Mapping[str, Any]) -> str:
    part = {
        "whole": f"It answers a photograph with labels from a list of {vocabulary.size:,} (labels.txt)",
        "backbone": "This export holds the first half: it answers a photograph with the features of its CNN",
        "decoder": (
            "This export holds the second half: it answers the features of a photograph with labels from a "
            f"list of {vocabulary.size:,} (labels.txt)"
        ),
    }[export["part"]]
    return (
        "CNN-RNN after Wang et al., CVPR 2016: a CNN sees the photograph, and a recurrent network emits its "
        f"labels one by one. {part}."
    )


def _describe_data(vocabulary: LabelVocabulary, training: TrainingFacts | None) -> Iterator[str]:
    if training is None:
        yield f"- Data set: {_UNKNOWN}; the model was exported without its run."
    else:
        counts = training.environment.get("num_images")
        images = ", ".join(f"{count:,} {name}" for name, count in counts.items()) if counts else _UNKNOWN
        yield f"- Data set: {_escape(training.config['data']['dataset'])}"
        yield f"- Images: {images}; the hold-out, which chose the epoch, is a part of train"
        yield f"- Fingerprint of the records: {training.environment.get('records_fingerprint', _UNKNOWN)}"
    yield f"- Labels: {vocabulary.size:,}, fingerprint {vocabulary.fingerprint}"
    if any(vocabulary.counts):
        pairs = list(zip(vocabulary.names, vocabulary.counts, strict=True))
        yield f"- Most frequent in training: {_list_labels(pairs[:_NAMED_LABELS])}"
        if len(pairs) > _NAMED_LABELS:
            yield f"- Least frequent in training: {_list_labels(pairs[_NAMED_LABELS:][-_NAMED_LABELS:])}"


def _list_labels(pairs) -> str:
    return ", ".join(f"{_escape(name)} ({count:,})" for name, count in pairs)


def _describe_training(export: Mapping[str, Any], training: TrainingFacts | None) -> Iterator[str]:
    fit = {"crop": "their centres cut out", "stretch": "all of each squeezed into one"}[export["image_fit"]]
    yield f"- Images enter as squares of {export['image_size']} px, {fit}."
    if training is None:
        yield f"- Settings, versions: {_UNKNOWN}."
        return
    model, settings = training.config["model"], training.config["training"]
    weights = model["backbone_weights"]
    tuned = "trained along" if model["backbone"] == "compact" else f"tuned from {model['fine_tune_from']}"
    if model["backbone"] != "compact" and model["fine_tune_from"] == "none":
        tuned = "frozen"
    yield (
        f"- CNN: {_escape(model['backbone'])}, layer {_escape(model['feature_layer'])}, first weights: "
        f"{weights if weights in _NAMED_WEIGHTS else 'a file'}, {_escape(tuned)}"
    )
    yield (
        f"- Decoder: cell {model['cell']} of {model['cell_units']:,} units, joint space of "
        f"{model['embedding_dim']:,} dimensions, labels in the order {training.config['data']['label_order']}"
    )
    yield (
        f"- At most {count('epoch', settings['epochs'])}, {count('image', settings['batch_size'])} a step, "
        f"learning rate {settings['learning_rate']:g}, precision {settings['precision']}, "
        f"seed {settings['seed']}"
    )
    packages = training.environment.get("packages", {})
    versions = ", ".join(f"{_escape(name)} {_escape(version)}" for name, version in packages.items())
    yield f"- Trained with: {versions or _UNKNOWN}"


def _describe_results(export: Mapping[str, Any], training: TrainingFacts | None) -> Iterator[str]:
    metrics = None if training is None else training.metrics
    if metrics is None:
        yield "Not measured, or the measures did not come along."
        return
    missing = [key for key in _MEASURES if key not in metrics]
    if missing:
        yield (
            f"The run's measures are of an earlier version of this program (without {', '.join(missing)}), "
            "and are not repeated here."
        )
        return
    yield f"Measured on {_escape(metrics['split'])}, {count('image', metrics['images'])}, in percent."
    if metrics["split"] == "holdout":
        yield "There is no test split: these images also chose the epoch, and the results flatter the model."
    yield ""
    yield from _tabulate(metrics)
    yield ""
    if "calibration" in metrics:
        yield f"- {_escape(describe_calibration(metrics).plain)}"
    yield from (f"- {_escape(note['words'])}" for note in metrics["conventions"])
    yield f"- Beam search: {_describe_decoding(export['decoding'])}"


def _tabulate(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The paper's columns, one row a list rule, then what is known of other models."""
    columns = choose_columns(metrics["protocols"][0])
    headers = [column.header for column in columns]
    headers = [  # C-F1 may be there twice, of two definitions
        column.mark.replace("_", " ") if headers.count(column.header) > 1 else column.header
        for column in columns
    ]
    yield f"| lists | length | {' | '.join(map(_escape, headers))} |"
    yield "|---|---:|" + "---:|" * len(columns)
    for row in metrics["rows"]:
        cells = [_percent({**metrics["ranking"], **row}.get(column.key)) for column in columns]
        yield f"| {_escape(row['name'])} | {row['list_length']:.2f} | {' | '.join(cells)} |"
    for reference in metrics["references"]:
        cells = [_percent(reference.get(column.key, reference.get(column.header))) for column in columns]
        yield f"| known: {_escape(str(reference.get('name', '')))} | | {' | '.join(cells)} |"


def _describe_decoding(decoding: Mapping[str, Any]) -> str:
    return (
        f"{decoding['beam_size']} paths, {decoding['min_length']} to {decoding['max_length']} labels, length "
        f"penalty {decoding['length_penalty']:g}{', renormalised' if decoding['renormalise'] else ''}"
    )


def _describe_limits(
    vocabulary: LabelVocabulary, export: Mapping[str, Any], training: TrainingFacts | None
) -> Iterator[str]:
    yield f"- It knows these {vocabulary.size:,} labels and no others: it is blind to all else."
    yield f"- No image gets more than {count('label', export['decoding']['max_length'])}."
    if any(vocabulary.counts):
        rare = [
            name for name, images in zip(vocabulary.names, vocabulary.counts, strict=True) if images < RARE
        ]
        if rare:
            named = ", ".join([*map(_escape, rare[:_NAMED_LABELS]), *["..."] * (len(rare) > _NAMED_LABELS)])
            yield (
                f"- {count('label', len(rare))} had fewer than {RARE} training images each, too few to rely "
                f"on ({named})."
            )
    yield (
        "- A probability is the share of the search's candidates that hold the label"
        + (", calibrated on the hold-out" if export["calibrated"] else ", not calibrated")
        + "; on other photographs than those of the data set it may mean less."
    )
    if export["precision"] != "float32":
        yield (
            f"- This export computes its CNN in {export['precision']}. What is printed above was measured in "
            f"{training.config['training']['precision'] if training else 'float32'}, and not again in this."
        )
    yield "- How it does on photographs of other origin, or for groups of people, was not measured."


def _describe_use(export: Mapping[str, Any]) -> Iterator[str]:
    for name, tensors in export["signatures"].items():
        inputs, outputs = (", ".join(f"`{key}`" for key in tensors[kind]) for kind in ("inputs", "outputs"))
        yield f"- `{name}`: {inputs} to {outputs}"
    yield ""
    yield (
        "A row that cannot be answered (no image, cut off, too large, an option out of bounds) has `valid` "
        "false and says why in `error`; the other rows of its batch are answered."
    )


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _escape(text: str) -> str:
    """`text` on one line, with nothing in it that Markdown would read."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
