"""A model and a split of records enter; predictions and the measures of the paper's tables leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from cnnrnn_tf.config import DecodingConfig, ExperimentConfig
from cnnrnn_tf.data.datasets import image_batches, load_labels
from cnnrnn_tf.data.decodable import find_undecodable
from cnnrnn_tf.data.splits import select_records
from cnnrnn_tf.evaluation.calibration import Calibration
from cnnrnn_tf.evaluation.prediction_files import PredictionFile, save_predictions
from cnnrnn_tf.evaluation.predictions import Predictions
from cnnrnn_tf.evaluation.protocol_comparison import ALL, measure, save_label_tables
from cnnrnn_tf.evaluation.report import choose_protocols
from cnnrnn_tf.model.beam_search import rank_labels
from cnnrnn_tf.training.features import EXTRACTION_BATCH, cached_features
from cnnrnn_tf.training.runs import Run, check_records, find_data_dir
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.progress import show_progress
from tfrecords.undecodable import remark_undecodable
from tfrecords.vocabulary import LabelVocabulary

if TYPE_CHECKING:
    from cnnrnn_tf.model.cnn_rnn import CNNRNN


def evaluate_run(
    run: Run, split: str = "test", protocol: str | None = None, data_dir: Path | None = None
) -> dict:
    """Measures a finished run on a split of the records that it was trained on.

    Thresholds, where a protocol leaves them open, are fitted on the hold-out. Both splits are decoded once;
    their predictions and a table of labels, of the protocol's own lists, are left in the run,
    `predictions-SPLIT.jsonl` and `per_label-SPLIT.csv`, or `per_label-SPLIT-PROTOCOL.csv`.

    Args:
        run: the run.
        split: the split to report.
        protocol: whose conventions; "all" for every protocol's; None for those of the configuration.
        data_dir: the folder of data sets; None for where it was (`runs.find_data_dir`).

    Returns:
        What `protocol_comparison.measure` returns, and for a run with a calibration an entry `calibration`:
        how far off its probabilities are on the split; the errors are left out where the split has the
        hold-out's images, which fitted it.

    Raises:
        UserError: the records are gone, damaged or not those of the run; no such split or protocol.
    """
    dataset_dir = find_data_dir(run.path, run.config, data_dir) / run.config.data.dataset
    check_records(run.path, dataset_dir, Manifest.load(dataset_dir))
    metrics, files = _evaluate(run.model, dataset_dir, run.config, split, protocol)
    for content in files:
        save_predictions(run.path / f"predictions-{content.split}.jsonl", content)
        save_label_tables(run.path / f"per_label-{content.split}", content, metrics, protocol)
    return _add_calibration(metrics, run.calibration, files[0].predictions)


def evaluate_model(
    model: CNNRNN,
    dataset_dir: Path,
    config: ExperimentConfig,
    split: str = "test",
    protocol: str | None = None,
    holdout: Predictions | None = None,
    calibration: Calibration | None = None,
) -> tuple[dict, Predictions]:
    """The measures of a split, and the predictions they come from.

    Args:
        model: a CNNRNN.
        dataset_dir: its records.
        config: the settings of its run.
        split: the split to report.
        protocol: whose conventions; None for those of the configuration.
        holdout: what the model says of the hold-out, where that is known already.
        calibration: see `evaluate_run`.
    """
    metrics, files = _evaluate(model, dataset_dir, config, split, protocol, holdout)
    return _add_calibration(metrics, calibration, files[0].predictions), files[0].predictions


def predict_split(model: CNNRNN, dataset_dir: Path, split: str, decoding: DecodingConfig) -> Predictions:
    """The best path and the label scores of every image of a split, beside its truth."""
    labels = load_labels(dataset_dir, split)
    decode = _make_decoder(model, decoding)
    batches = _feature_batches(model, dataset_dir, split)
    found = []
    with show_progress(f"decoding {split}", len(labels.image_ids), "image") as bar:
        for features in batches:
            found.append([part.numpy() for part in decode(features)])
            bar.update(len(features))
    paths, lengths, log_probs, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Predictions(labels.image_ids, labels.labels, labels.known, paths, lengths, log_probs, scores)


def load_vocabulary(dataset_dir: Path, model: CNNRNN) -> LabelVocabulary:
    """The vocabulary of a data set, checked against a model's.

    Raises:
        UserError: they differ, so an id would mean another label.
    """
    vocabulary = Manifest.load(dataset_dir).load_vocabulary(dataset_dir)
    if vocabulary.fingerprint != model.vocabulary_fingerprint:
        raise UserError(
            f"{dataset_dir}: its labels or their counts are not those that the model was trained with; the "
            "data set was built again or changed. Train again, or build it as it was"
        )
    return vocabulary


def _add_calibration(metrics: dict, calibration: Calibration | None, predictions: Predictions) -> dict:
    if calibration is None:
        return metrics
    return {**metrics, "calibration": calibration.measure(predictions, metrics["holdout_is_reported"])}


def _evaluate(
    model: CNNRNN,
    dataset_dir: Path,
    config: ExperimentConfig,
    split: str,
    protocol: str | None,
    holdout: Predictions | None = None,
) -> tuple[dict, list[PredictionFile]]:
    """The measures of a split, and the predictions of it and of the hold-out."""
    manifest = Manifest.load(dataset_dir)
    vocabulary = load_vocabulary(dataset_dir, model)
    manifest.check_shards(dataset_dir)
    undecodable = find_undecodable(dataset_dir)
    name = protocol or config.evaluation.protocol
    name = None if name == "default" else name
    if name != ALL:
        choose_protocols(config.data.dataset, name)  # a wrong name is told before anything is decoded
    known = {} if holdout is None else {"holdout": holdout}
    is_reported = _holds_holdout(manifest, split)
    splits = [split] if is_reported else [split, "holdout"]
    files = [
        PredictionFile(
            known[each] if each in known else predict_split(model, dataset_dir, each, config.decoding),
            vocabulary,
            each,
            config.data.dataset,
            manifest.fingerprint,
        )
        for each in splits
    ]
    references = manifest.reference_rows if split == "test" else ()
    holdout_file = None if is_reported else files[1]
    remarks = [*manifest.remarks(), *remark_undecodable(undecodable)]
    metrics = measure(files[0], holdout_file, name, references, is_reported, remarks)
    if undecodable:
        metrics["undecodable"] = dict(Counter(image.split for image in undecodable))
    return metrics, files


def _holds_holdout(manifest: Manifest, split: str) -> bool:
    """Whether a split has images of the hold-out, which then must not fit its thresholds."""
    asked, kept = select_records(manifest, split), select_records(manifest, "holdout")
    return asked.shard_split == kept.shard_split and asked.holdout in (None, kept.holdout)


def _feature_batches(model: CNNRNN, dataset_dir: Path, split: str) -> Iterator[np.ndarray]:
    if model.backbone.trainable:  # its weights belong to this run alone: nothing to share
        extract = tf.function(model.extract_features, reduce_retracing=True)
        square = model.image_size, EXTRACTION_BATCH, model.image_fit
        for batch in image_batches(dataset_dir, split, *square):
            yield extract(batch["image"])
        return
    features = cached_features(model.backbone, dataset_dir, split)
    for start in range(0, len(features), EXTRACTION_BATCH):
        yield features[start : start + EXTRACTION_BATCH]


def _make_decoder(model: CNNRNN, decoding: DecodingConfig):
    @tf.function(
        input_signature=[tf.TensorSpec([None, model.backbone.feature_size], tf.float32)],
        autograph=False,  # so that mistakes stay one line
    )
    def decode(features):
        found = model.decode(
            features,
            beam_size=decoding.beam_size,
            min_length=decoding.min_length,
            max_length=decoding.max_length or None,
            renormalise=decoding.renormalise,
            length_penalty=decoding.length_penalty,
        )
        return found.tokens[:, 0], found.lengths[:, 0], found.log_probs[:, 0], rank_labels(found)

    return decode
