"""An `ExperimentConfig` enters; a run folder leaves: trained model, measures, figures and a servable export.

The chapters of one experiment, in order: records, model, features, fit, calibration, evaluation, figures,
export.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import keras
import numpy as np

from cnnrnn_tf.config import ExperimentConfig
from cnnrnn_tf.data import datasets
from cnnrnn_tf.data.decodable import find_undecodable
from cnnrnn_tf.data.sequences import longest_path
from cnnrnn_tf.evaluation.calibration import Calibration, fit_calibration
from cnnrnn_tf.evaluation.predictions import Predictions
from cnnrnn_tf.evaluation.protocol_comparison import own_sets
from cnnrnn_tf.evaluation.report import choose_protocols, save_metrics, save_per_label
from cnnrnn_tf.evaluation.summary import FEW_HOLDOUT_IMAGES, warn_of_holdout
from cnnrnn_tf.model.backbones import COMPACT, load_backbone_weights
from cnnrnn_tf.model.cnn_rnn import CNNRNN
from cnnrnn_tf.model.losses import PathNegativeLogLikelihood, PathNLL, add_weight_decay
from cnnrnn_tf.serving.export import export
from cnnrnn_tf.training import runs
from cnnrnn_tf.training.callbacks import (
    TellSteps,
    best_weights_path,
    drop_backup,
    drop_unfinished,
    finished_epochs,
    is_over,
    make_callbacks,
    measure_backup,
)
from cnnrnn_tf.training.distribution import check_batch_size, make_strategy, set_up
from cnnrnn_tf.training.evaluate import evaluate_model, predict_split
from cnnrnn_tf.training.features import cached_features
from cnnrnn_tf.training.history import read_history
from cnnrnn_tf.training.latest import mark_latest
from cnnrnn_tf.training.optimizer import make_optimizer
from cnnrnn_tf.training.results import (
    print_results,
    save_examples,
    save_split_grid,
    save_split_reliability,
)
from cnnrnn_tf.viz.figures import save_history
from tfrecords import vocabulary
from tfrecords.cli import format_command
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.progress import print_above, show_progress
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.words import count

_LOGGER = logging.getLogger("cnnrnn_tf")


@dataclass(frozen=True)
class _Records:
    """The training data of one run."""

    folder: Path
    manifest: Manifest
    vocabulary: LabelVocabulary
    train: datasets.Labels
    holdout: datasets.Labels

    @property
    def max_path_length(self) -> int:
        """The most labels on one image to learn from or to select by; at least 1."""
        return max(longest_path(self.train.labels), longest_path(self.holdout.labels), 1)


def train(
    config: ExperimentConfig,
    runs_dir: Path,
    run_name: str = "",
    now: datetime | None = None,
    deliver: bool = True,
    on_epoch: Callable[[int, int], object] | None = None,
    verbose: bool = False,
) -> Path:
    """Runs one experiment from records to export.

    Args:
        config: all settings.
        runs_dir: where the run folder `<dataset>/<time>` is made.
        run_name: the folder's name in place of the time.
        now: the time; this moment by default.
        deliver: also export the model, and show on the screen how it goes and what came out.
        on_epoch: called after each epoch with its number, from 1, and the number of epochs at most.
        verbose: show all conventions below the table, which are in `train.log` in any case.

    Returns:
        The run folder.

    Raises:
        UserError: settings, records or weights that do not go together; nothing half-made is left behind.
    """
    records = _read_records(config, deliver)
    _check_feasible(config, records)
    set_up(config.training.seed, config.training.deterministic, config.training.precision)
    strategy = make_strategy()
    check_batch_size(config.training.batch_size, len(records.train.image_ids), strategy)
    with show_progress("making the model", shown=deliver):
        model = _make_model(config, records, strategy)
    run_dir = runs.create_run_folder(runs_dir, config.data.dataset, run_name, now or datetime.now())
    config.save(run_dir / runs.CONFIG_FILE)
    records.vocabulary.save(run_dir / vocabulary.FILE_NAME)
    runs.save_environment(run_dir, records.manifest, config.data.data_dir)
    return _finish(config, records, model, strategy, run_dir, deliver, on_epoch, verbose)


def resume(
    run_dir: Path,
    deliver: bool = True,
    on_epoch: Callable[[int, int], object] | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    data_dir: Path | None = None,
    verbose: bool = False,
) -> Path:
    """Goes on with a run from its last finished epoch, with its own settings.

    Args:
        run_dir: an interrupted run, or a finished one to train longer.
        deliver: as in `train`.
        on_epoch: likewise.
        epochs: most epochs from now on, those before counted in; None for the run's own.
        patience: likewise, epochs without a better one before it stops.
        data_dir: the folder of data sets; None for where it was (`runs.find_data_dir`).
        verbose: as in `train`.

    Raises:
        UserError: no run there, one that is finished under these settings, or its records have changed.
    """
    kept = runs.check_resumable(run_dir, epochs, patience)
    is_finished = (run_dir / runs.METRICS_FILE).is_file()
    found = runs.find_data_dir(run_dir, kept, data_dir)
    config = dataclasses.replace(kept, data=dataclasses.replace(kept.data, data_dir=found))
    records = _read_records(config, deliver)
    runs.check_records(run_dir, records.folder, records.manifest)
    set_up(config.training.seed, config.training.deterministic, config.training.precision)
    strategy = make_strategy()
    with show_progress("making the model", shown=deliver):
        model = _make_model(config, records, strategy)
    if is_finished:
        best = runs.load_model(run_dir / runs.MODEL_FILE, records.vocabulary)
        _choose_trained(best).save_weights(best_weights_path(run_dir))
    runs.reopen(run_dir, kept)
    drop_unfinished(run_dir)
    return _finish(config, records, model, strategy, run_dir, deliver, on_epoch, verbose)


def _finish(
    config: ExperimentConfig,
    records: _Records,
    model: CNNRNN,
    strategy,
    run_dir: Path,
    deliver: bool,
    on_epoch: Callable[[int, int], object] | None,
    verbose: bool,
) -> Path:
    with _logging_to(run_dir / "train.log", on_screen=deliver):
        _LOGGER.info("run folder: %s", run_dir)
        _LOGGER.info("%s", records.manifest.summary())
        try:
            _fit(config, records, model, strategy, run_dir, deliver, on_epoch)
            with show_progress("saving the model", shown=deliver):
                model.save(run_dir / runs.MODEL_FILE)
            holdout = predict_split(model, records.folder, "holdout", config.decoding)
            with show_progress("calibrating on the hold-out", shown=deliver):
                calibration = _calibrate(holdout, records.vocabulary, run_dir)
            with show_progress("measuring, and drawing figures", shown=deliver):
                metrics = _evaluate(config, records, model, run_dir, holdout, calibration)
            if deliver:
                facts = runs.load_facts(run_dir, metrics)
                with show_progress("exporting"):
                    export(
                        model,
                        records.vocabulary,
                        config.decoding,
                        run_dir / "export",
                        calibration,
                        training=facts,
                    )
        except KeyboardInterrupt:
            _LOGGER.info(
                "stopped; %s saved. Go on with: %s",
                _count_saved(finished_epochs(run_dir)),
                format_command("python", "train.py", "--resume", run_dir),
            )
            raise
        save_metrics(metrics, run_dir / runs.METRICS_FILE)  # from here on the run is finished
        drop_backup(run_dir, keep_last=deliver)
        if deliver:
            _LOGGER.info(
                "its last epoch is kept for training longer: %s, %.1f MB",
                run_dir / runs.BACKUP,
                measure_backup(run_dir) / 1e6,
            )
            mark_latest(run_dir)
            print_results(metrics, run_dir, verbose)
    return run_dir


def load_manifest(config: ExperimentConfig, strict: bool = False) -> Manifest:
    """The manifest of the data set, its shards and images checked; the demo is drawn where it is missing.

    Raises:
        UserError: the data set is not built, shards are missing or damaged, or `strict` and an image does not
            decode.
    """
    folder = config.data.data_dir / config.data.dataset
    if config.data.dataset == "demo" and not folder.exists():
        _build_demo(config.data.data_dir)
    manifest = Manifest.load(folder)
    manifest.check_shards(folder)
    find_undecodable(folder, strict)
    return manifest


def _read_records(config: ExperimentConfig, shown: bool) -> _Records:
    folder = config.data.data_dir / config.data.dataset
    manifest = load_manifest(config)
    with show_progress("reading labels", shown=shown):
        train, holdout = (datasets.load_labels(folder, split) for split in ("train", "holdout"))
    for name, labels in (("train", train), ("holdout", holdout)):
        if not labels.image_ids:
            raise UserError(f"{folder}: no image is left in {name}; build the data set with more images")
    return _Records(folder, manifest, manifest.load_vocabulary(folder), train, holdout)


def _check_feasible(config: ExperimentConfig, records: _Records) -> None:
    """Refuses before the training what would fail after it, or in the middle."""
    decoding, num_labels = config.decoding, records.vocabulary.size
    if decoding.max_length > num_labels:
        raise UserError(
            f"--max-length {decoding.max_length}: no label comes twice, and {records.folder} has {num_labels}"
        )
    longest = decoding.max_length or records.max_path_length
    if decoding.min_length > longest:
        raise UserError(
            f"--min-length {decoding.min_length}: no training image has more than {records.max_path_length} "
            f"labels, so paths end there; raise --max-length or lower --min-length"
        )
    name = config.evaluation.protocol
    choose_protocols(config.data.dataset, None if name == "default" else name)
    model, training = config.model, config.training
    is_fine_tuned = model.backbone != COMPACT and model.fine_tune_from != "none"
    if is_fine_tuned and training.crop and not training.flip:
        raise UserError("--no-flip: random crops are mirrored as well; add --no-crop")


def _build_demo(data_dir: Path) -> None:
    from tfrecords.build import build
    from tfrecords.sources import make_source

    print("drawing the demo data set (once)", flush=True)
    build(make_source("demo"), "demo", data_dir)


def _make_model(config: ExperimentConfig, records: _Records, strategy) -> CNNRNN:
    settings = config.model
    with strategy.scope():
        model = CNNRNN(
            records.vocabulary.size,
            records.max_path_length,
            backbone=settings.backbone,
            feature_layer=None if settings.feature_layer == "default" else settings.feature_layer,
            image_size=settings.image_size or None,
            image_fit=settings.image_fit,
            trainable_from=None if settings.fine_tune_from == "none" else settings.fine_tune_from,
            cell=settings.cell,
            cell_units=settings.cell_units,
            embedding_dim=settings.embedding_dim,
            dropout=settings.dropout,
            tie_embeddings=settings.tie_embeddings,
            standardise_features=settings.standardise_features,
            label_order=config.data.label_order,
            label_order_seed=config.training.seed,
            vocabulary_fingerprint=records.vocabulary.fingerprint,
            name="cnn_rnn",
        )
        if settings.standardise_features and model.backbone.trainable:
            raise UserError(
                "--standardise-features needs a frozen CNN: the features of one that is trained keep moving; "
                "add --no-standardise-features"
            )
        load_backbone_weights(model.backbone, settings.backbone_weights)
        model.build()
    return model


def _fit(
    config: ExperimentConfig,
    records: _Records,
    model: CNNRNN,
    strategy,
    run_dir: Path,
    shown: bool,
    on_epoch: Callable[[int, int], object] | None,
) -> None:
    """Trains the model, or the decoder alone where the CNN is frozen; ends with the best weights in place."""
    settings = config.training
    num_images = len(records.train.image_ids)
    options = {
        "batch_size": check_batch_size(settings.batch_size, num_images, strategy),
        "num_steps": records.max_path_length + 1,
        "label_order": config.data.label_order,
        "seed": settings.seed,
    }
    start_epoch = finished_epochs(run_dir)
    trained = _choose_trained(model)
    with show_progress("preparing the training", shown=shown):
        if model.backbone.trainable:
            crop = settings.crop and config.model.backbone != COMPACT
            train_batches = datasets.image_training_batches(
                records.folder,
                "train",
                model.image_size,
                records.train.labels,
                image_fit=model.image_fit,
                start_epoch=start_epoch,
                flip=settings.flip,
                shift=settings.shift if config.model.backbone == COMPACT else 0.0,
                crop=crop,
                **options,
            )
            holdout_batches = datasets.image_validation_batches(
                records.folder,
                "holdout",
                model.image_size,
                records.holdout.labels,
                image_fit=model.image_fit,
                **options,
            )
        else:
            features = cached_features(model.backbone, records.folder, "train")
            if config.model.standardise_features:
                trained.adapt_features(np.asarray(features))
            train_batches = datasets.feature_training_batches(
                features, records.train.labels, start_epoch=start_epoch, **options
            )
            holdout_batches = datasets.feature_validation_batches(
                cached_features(model.backbone, records.folder, "holdout"), records.holdout.labels, **options
            )
        steps = datasets.count_steps(num_images, options["batch_size"])
        with strategy.scope():
            if not settings.decoupled_weight_decay:
                add_weight_decay(trained, settings.weight_decay)
            trained.compile(
                make_optimizer(settings, steps, _slow_paths(model)),
                loss=PathNegativeLogLikelihood(),
                metrics=[PathNLL()],
            )
    num_weights = sum(int(np.prod(weight.shape)) for weight in trained.trainable_weights)
    _LOGGER.info(
        "training %s on %s, on %s",
        count("weight", num_weights),
        count("image", num_images),
        " and ".join(
            device.removeprefix("/job:localhost/replica:0/task:0/device:")
            for device in strategy.extended.worker_devices
        ),
    )
    if not is_over(run_dir, settings.epochs, settings.patience):
        on_terminal = sys.stdout.isatty()
        total = None if on_terminal else settings.epochs * steps
        with show_progress("training", total, "" if on_terminal else "step", shown=shown) as teller:
            teller.skip(start_epoch * steps)
            tellers = [TellSteps(teller, settings.epochs, only_first=on_terminal)]
            if on_epoch is not None:
                tell_epoch = functools.partial(_tell_epoch, on_epoch, settings.epochs)
                tellers.append(keras.callbacks.LambdaCallback(on_epoch_end=tell_epoch))
            trained.fit(
                train_batches,
                validation_data=holdout_batches,
                epochs=settings.epochs,
                initial_epoch=start_epoch,
                steps_per_epoch=steps,
                callbacks=make_callbacks(run_dir, settings.patience, settings.seed, tellers),
                shuffle=False,
                verbose=(1 if on_terminal else 2) if shown else 0,  # Keras's: a bar, or a line an epoch
            )
    _keep_best(trained, run_dir)


def _tell_epoch(on_epoch: Callable[[int, int], object], epochs: int, epoch: int, logs) -> None:
    on_epoch(epoch + 1, epochs)


def _count_saved(num_epochs: int) -> str:
    return f"{count('finished epoch', num_epochs)} {'is' if num_epochs == 1 else 'are'}"


def _choose_trained(model: CNNRNN) -> keras.Model:
    """What `fit` trains: the whole model, or the decoder of a frozen CNN."""
    return model if model.backbone.trainable else model.decoder


def _slow_paths(model: CNNRNN) -> list[str]:
    """The weights that learn at the CNN's own rate: those of a CNN that is fine-tuned."""
    if model.trainable_from is None:
        return []
    return [variable.path for variable in model.backbone.trainable_variables]


def _keep_best(trained: keras.Model, run_dir: Path) -> None:
    history = read_history(run_dir)
    path = best_weights_path(run_dir)
    if not path.is_file():
        raise UserError(
            f"{run_dir}: the loss was never a number, so there is no model; try a lower --learning-rate or a "
            "lower --clip-norm"
        )
    trained.load_weights(path)
    values = [float(row["val_nll"]) for row in history]
    best = int(np.nanargmin(values))
    _LOGGER.info(
        "%s; epoch %d is kept: %.3f nats a path on the hold-out",
        count("epoch", len(values)),
        best + 1,
        values[best],
    )


def _calibrate(holdout: Predictions, vocabulary: LabelVocabulary, run_dir: Path) -> Calibration | None:
    """Fits temperature and thresholds on the hold-out and saves them; None where there is nothing to fit."""
    if not holdout.truth.any():
        _LOGGER.info("no calibration: none of %s has a known label", count("hold-out image", len(holdout)))
        return None
    if not (holdout.scores[holdout.known != 0] > 0).any():
        _LOGGER.info("no calibration: no label is on any path of %s", count("hold-out image", len(holdout)))
        return None
    calibration = fit_calibration(holdout, vocabulary)
    calibration.save(run_dir)
    if len(holdout) < FEW_HOLDOUT_IMAGES:
        _LOGGER.warning("%s", warn_of_holdout(len(holdout)))
    _LOGGER.info(
        "calibration: T %.2f from %s%s",
        calibration.temperature,
        count("hold-out image", len(holdout)),
        f"; {calibration.note}" if calibration.note else "",
    )
    return calibration


def _evaluate(
    config: ExperimentConfig,
    records: _Records,
    model: CNNRNN,
    run_dir: Path,
    holdout: Predictions,
    calibration: Calibration | None,
) -> dict:
    """Reads the test split, once; saves tables and figures. Without one the hold-out stands in."""
    split = "test" if "test" in records.manifest.splits else "holdout"
    if split == "holdout":
        _LOGGER.info("no split test: what follows is measured on the hold-out, which also chose the epoch")
    metrics, predictions = evaluate_model(
        model, records.folder, config, split, holdout=holdout, calibration=calibration
    )
    lists, counted, sets = own_sets(predictions, metrics)
    save_per_label(run_dir / "per_label.csv", counted, records.vocabulary, sets, lists)
    figures = run_dir / "figures"
    save_history(figures / "history.png", read_history(run_dir))
    if calibration is not None and split != "holdout":  # which fitted it
        save_split_reliability(figures / "reliability.png", split, predictions, calibration)
    grid = figures / f"{split}_images.png"
    save_split_grid(grid, records.folder, split, predictions, records.vocabulary, calibration)
    save_examples(figures / "examples", records.folder, split)
    return metrics


class _AboveBars(logging.Handler):
    """Prints what is logged on the screen, above the bar of what goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        print_above(self.format(record))


class _logging_to:
    """Sends what is logged inside to a file, with the time, and as it is to the screen."""

    def __init__(self, path: Path, on_screen: bool):
        self._handlers: list[logging.Handler] = [logging.FileHandler(path, encoding="utf-8")]
        self._handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        if on_screen:
            self._handlers.append(_AboveBars())

    def __enter__(self) -> None:
        _LOGGER.setLevel(logging.INFO)
        for handler in self._handlers:
            _LOGGER.addHandler(handler)

    def __exit__(self, *error) -> None:
        for handler in self._handlers:
            _LOGGER.removeHandler(handler)
            handler.close()
