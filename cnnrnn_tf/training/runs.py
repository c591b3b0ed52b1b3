"""A data set's name and a time enter; the folder of a run leaves, new or found again.

runs/<dataset>/<time>/   config.json  vocabulary.json  environment.json  train.log  history.csv  metrics.json
                         calibration.json  checkpoints/  train/  validation/  figures/  export/1/
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnrnn_tf.config import ExperimentConfig
from cnnrnn_tf.training.history import is_out_of_patience, read_rows, read_values
from cnnrnn_tf.training.latest import LATEST
from tfrecords.errors import UserError
from tfrecords.manifest import FILE_NAME as MANIFEST_FILE
from tfrecords.manifest import Manifest
from tfrecords.places import find_obstacle
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.words import count

if TYPE_CHECKING:
    from cnnrnn_tf.evaluation.calibration import Calibration
    from cnnrnn_tf.model.cnn_rnn import CNNRNN
    from cnnrnn_tf.serving.model_card import TrainingFacts

CONFIG_FILE = "config.json"
MODEL_FILE = "checkpoints/best.keras"
METRICS_FILE = "metrics.json"
BACKUP = "backup"
"""Weights, moments of the optimiser and number of the last epoch: what a run needs to be trained on."""
_ENVIRONMENT_FILE = "environment.json"
_RECORDS = "records_fingerprint"
_DATA_DIR = "data_dir"


@dataclass(frozen=True)
class Run:
    """A finished run, loaded."""

    path: Path
    config: ExperimentConfig
    vocabulary: LabelVocabulary
    model: CNNRNN
    calibration: Calibration | None = None
    """None for runs from before there were any, and for a hold-out without a label."""


def create_run_folder(runs_dir: Path, dataset: str, name: str, now: datetime) -> Path:
    """A new folder `runs_dir/dataset/name`; without a name, named by the time.

    Raises:
        UserError: a run of that name exists; none is ever overwritten.
    """
    _check_name(name)
    path = runs_dir / dataset / (name or now.strftime("%Y-%m-%d-%H%M%S"))
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise _refuse_existing(path) from None
    except OSError as error:
        raise _refuse_place(path, error.strerror) from None
    for folder in ("checkpoints", "figures"):
        (path / folder).mkdir()
    return path


def check_run_folder(runs_dir: Path, dataset: str, name: str = "") -> None:
    """Refuses at once what `create_run_folder` would refuse once all is loaded; makes nothing.

    Raises:
        UserError: a run of that name exists, or no folder can be made there.
    """
    _check_name(name)
    path = runs_dir / dataset / name
    if name and path.exists():
        raise _refuse_existing(path)
    obstacle = find_obstacle(path / "new")
    if obstacle is not None:
        raise _refuse_place(path, obstacle)


def check_resumable(
    run_dir: Path, epochs: int | None = None, patience: int | None = None
) -> ExperimentConfig:
    """The settings with which a run goes on: an interrupted one, or a finished one that is to train longer.

    Args:
        run_dir: its folder.
        epochs: most epochs from now on; None for those of its settings.
        patience: likewise.

    Raises:
        UserError: there is no run in that folder, it is finished under these settings, or what it would go on
            from is gone.
    """
    config = load_config(run_dir)
    changes = {"epochs": epochs, "patience": patience}
    changes = {name: value for name, value in changes.items() if value is not None}
    config = config.updated({"training": changes}, where="flags")
    num_epochs = len(read_rows(run_dir))
    if epochs is not None and epochs < num_epochs:
        raise UserError(f"--epochs {epochs}: {run_dir} has {num_epochs} already; give more")
    if not (run_dir / METRICS_FILE).is_file():
        return config
    done = read_values(run_dir)
    if config.training.epochs <= len(done):
        raise UserError(
            f"{run_dir}: this run is finished, with {count('epoch', len(done))}; train it longer with "
            f"`python train.py --resume {run_dir} --epochs {2 * len(done)}`, or measure it with "
            f"`cnnrnn evaluate {run_dir}`"
        )
    if is_out_of_patience(done, config.training.patience):
        raise UserError(
            f"{run_dir}: this run stopped early, after {count('epoch', len(done))}, the last "
            f"{config.training.patience} of them no better on the hold-out: add --patience 0 to train it all "
            f"{config.training.epochs} epochs"
        )
    if not (run_dir / BACKUP).is_dir():
        raise UserError(
            f"{run_dir / BACKUP}: is gone, so this finished run cannot be trained longer; train anew with "
            f"`python train.py --config {run_dir / CONFIG_FILE} --epochs {config.training.epochs}`"
        )
    return config


def reopen(run_dir: Path, config: ExperimentConfig) -> None:
    """Writes the settings with which a run goes on; a finished one counts as interrupted from here on."""
    partial = run_dir / f"{CONFIG_FILE}.partial"
    config.save(partial)
    partial.replace(run_dir / CONFIG_FILE)
    (run_dir / METRICS_FILE).unlink(missing_ok=True)


def check_finished(run_dir: str | Path) -> tuple[ExperimentConfig, LabelVocabulary]:
    """The settings and the labels of a run whose model is there; the model itself is not read.

    Raises:
        UserError: no run, or an unfinished one.
    """
    run_dir = Path(run_dir)
    config = load_config(run_dir)
    vocabulary = LabelVocabulary.load(run_dir)
    path = run_dir / MODEL_FILE
    if path.is_file():
        return config, vocabulary
    if (run_dir / METRICS_FILE).is_file():
        raise UserError(
            f"{path}: is gone, though the run was finished; train again with `python train.py --config "
            f"{run_dir / CONFIG_FILE}`"
        )
    raise UserError(
        f"{run_dir}: the run is not finished; finish it with `python train.py --resume {run_dir}`"
    )


def load_config(run_dir: str | Path) -> ExperimentConfig:
    """The configuration of a run.

    Raises:
        UserError: there is no run in that folder.
    """
    path = Path(run_dir) / CONFIG_FILE
    if not path.is_file():
        latest = Path(run_dir) / LATEST
        example = latest if latest.is_dir() else "runs/demo/2026-01-31-120000"
        raise UserError(f"{run_dir}: no {CONFIG_FILE} there; expected the folder of a run, such as {example}")
    return ExperimentConfig.load(path)


def find_data_dir(run_dir: Path, config: ExperimentConfig, data_dir: Path | None = None) -> Path:
    """The folder of data sets that has the one of a run, from whatever folder the command is called.

    Args:
        run_dir: the run.
        config: its settings.
        data_dir: where the user says that it is; by default where it was when the run began, else where the
            settings say, seen from here.

    Raises:
        UserError: it is not there; with the folders that were searched.
    """
    if data_dir is not None:
        Manifest.load(data_dir / config.data.dataset)
        return data_dir
    environment = _read_json(Path(run_dir) / _ENVIRONMENT_FILE)
    recorded = environment.get(_DATA_DIR) if isinstance(environment, dict) else None
    places = [Path(recorded)] if isinstance(recorded, str) else []
    places = list(dict.fromkeys([*places, config.data.data_dir.absolute()]))
    for place in places:
        if (place / config.data.dataset / MANIFEST_FILE).is_file():
            return _shorten(place)
    again = " (`python -m tfrecords build demo` draws it again)" if config.data.dataset == "demo" else ""
    raise UserError(
        f"{run_dir}: its data set {config.data.dataset!r} is not in {' nor in '.join(map(str, places))}: "
        f"name the folder that has it, --data-dir FOLDER{again}"
    )


def _shorten(path: Path) -> Path:
    """The path as seen from here, where it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def load_run(run_dir: str | Path) -> Run:
    """A finished run: its configuration, its vocabulary, its best model and its calibration.

    Raises:
        UserError: no run, an unfinished one, or a checkpoint or a calibration of another vocabulary.
    """
    from cnnrnn_tf.evaluation.calibration import Calibration

    run_dir = Path(run_dir)
    config, vocabulary = check_finished(run_dir)
    calibration = Calibration.load(run_dir, vocabulary)
    model = load_model(run_dir / MODEL_FILE, vocabulary)
    return Run(run_dir, config, vocabulary, model, calibration)


def load_model(path: str | Path, vocabulary: LabelVocabulary) -> CNNRNN:
    """The model of a checkpoint, its vocabulary checked.

    Raises:
        UserError: the file is no checkpoint of this project, or one of another vocabulary.
    """
    import keras
    import numpy as np

    from cnnrnn_tf.model.cnn_rnn import CNNRNN

    try:
        model = keras.saving.load_model(path, compile=False)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be read as a checkpoint ({_first_line(error)})") from None
    if not isinstance(model, CNNRNN):
        raise UserError(f"{path}: holds a {type(model).__name__}; expected a checkpoint that train.py wrote")
    if model.vocabulary_fingerprint != vocabulary.fingerprint:
        raise UserError(
            f"{path}: was trained with another vocabulary ({model.vocabulary_fingerprint[:12]}, this one is "
            f"{vocabulary.fingerprint[:12]}): an id would mean another label; train again on these records"
        )
    broken = [weight.path for weight in model.weights if not np.isfinite(weight.numpy()).all()]
    if broken:
        raise UserError(
            f"{path}: {len(broken)} weights are not finite, such as {broken[0]}: its answers would be no "
            "numbers; train again"
        )
    return model


def save_environment(run_dir: Path, records: Manifest, data_dir: Path | None = None) -> None:
    """Writes what a run was made with: versions, devices, and the records, their sizes and their place."""
    num_images = {name: split.num_images for name, split in records.splits.items()}
    save_json(
        run_dir / _ENVIRONMENT_FILE,
        {
            **describe_environment(),
            _RECORDS: records.fingerprint,
            "num_images": num_images,
            **({} if data_dir is None else {_DATA_DIR: str(data_dir.absolute())}),
        },
    )


def load_facts(run_dir: str | Path, metrics: Mapping[str, Any] | None = None) -> TrainingFacts:
    """What a run recorded of itself, for the model card of its export.

    Args:
        run_dir: its folder.
        metrics: its measures, where they are not written yet.

    Raises:
        UserError: there is no run in that folder, or a file of it is damaged.
    """
    from cnnrnn_tf.serving.model_card import TrainingFacts

    run_dir = Path(run_dir)
    environment = _read_json(run_dir / _ENVIRONMENT_FILE) or {}
    return TrainingFacts(
        config=load_config(run_dir).to_json(),
        environment={key: value for key, value in environment.items() if key != _DATA_DIR},
        metrics=_read_json(run_dir / METRICS_FILE) if metrics is None else metrics,
    )


def check_records(run_dir: Path, dataset_dir: Path, records: Manifest) -> None:
    """Refuses records that are not those of the run: an image may have moved from train to test.

    Raises:
        UserError: they have changed, or the run does not say which it had.
    """
    path = run_dir / _ENVIRONMENT_FILE
    try:
        fingerprint = json.loads(path.read_text(encoding="utf-8"))[_RECORDS]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: does not say which records the run was trained on; train again") from None
    if fingerprint != records.fingerprint:
        raise UserError(
            f"{dataset_dir}: was built again since {run_dir} began, from other images, labels or splits: "
            f"build it as it was, or train again with `python train.py --config {run_dir / CONFIG_FILE}`"
        )


def describe_environment() -> dict:
    """Versions and devices, for environment.json; nothing that names the machine or its user."""
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in ("cnnrnn-tf", "tensorflow", "keras", "numpy")},
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
    }


def save_json(path: Path, content) -> None:
    """Writes indented JSON."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_name(name: str) -> None:
    if name == LATEST:
        raise UserError(f"--run-name {name}: is the link to the run that finished last; choose another name")


def _refuse_existing(path: Path) -> UserError:
    return UserError(
        f"{path} exists, and a run is never overwritten: choose another --run-name, or go on with "
        f"`python train.py --resume {path}`"
    )


def _refuse_place(path: Path, reason: str | None) -> UserError:
    return UserError(f"{path}: cannot be created ({reason}); choose another --runs-dir")


def _read_json(path: Path):
    """The file's content; None where there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); remove it, or train again") from None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
