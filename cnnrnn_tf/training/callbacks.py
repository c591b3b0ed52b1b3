"""A run folder and its history enter; the callbacks of one `fit` leave, ready to go on where it stopped.

What a callback keeps between epochs is told again from `history.csv` when a run is resumed, so that a
resumed run ends as an unbroken one.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from cnnrnn_tf.training.history import (
    ANEW,
    MONITOR,
    find_best,
    is_out_of_patience,
    read_rows,
    read_values,
)
from cnnrnn_tf.training.runs import BACKUP
from tfrecords.errors import UserError
from tfrecords.progress import Progress, Silent


class EarlyStopping(keras.callbacks.Callback):
    """Stops after `patience` epochs without a better value, those before a resumption counted too.

    Args:
        patience: epochs; 0 never stops.
        history: `MONITOR` of each finished epoch, in order.
    """

    def __init__(self, patience: int, history: list[float]):
        super().__init__()
        self.patience = patience
        self.history = list(history)

    def on_epoch_end(self, epoch, logs=None):
        self.history.append(float((logs or {})[MONITOR]))
        if is_out_of_patience(self.history, self.patience):
            self.model.stop_training = True


class TellSteps(keras.callbacks.Callback):
    """Tells of the steps within an epoch, of which Keras says nothing where there is no terminal.

    Args:
        teller: counts steps; closed by its owner.
        epochs: how many there will be at most.
        only_first: end with the first step, which takes longest: TensorFlow traces its graph. On a terminal
            Keras's bar tells the rest.
    """

    def __init__(self, teller: Progress | Silent, epochs: int, only_first: bool = False):
        super().__init__()
        self._teller, self._epochs, self._only_first = teller, epochs, only_first

    def on_epoch_begin(self, epoch, logs=None):
        self._teller.describe(f"epoch {epoch + 1} of {self._epochs}")

    def on_train_batch_end(self, batch, logs=None):
        self._teller.update(1)
        if self._only_first:
            self._teller.close()


class DropoutOfEpoch(keras.callbacks.Callback):
    """Makes what dropout drops a function of (seed, epoch, step), as the batches are.

    Keras counts the draws since the model was made, and keeps the count in no checkpoint, so a resumed run
    would drop what the first epochs dropped.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        layers = [each for each in self.model._flatten_layers() if isinstance(each, keras.layers.Dropout)]
        for place, layer in enumerate(layers):
            if not layer.rate:  # such a layer draws nothing, and has no generator
                continue
            seed, draws = np.random.SeedSequence([self.seed, epoch, place]).generate_state(2) >> 1
            layer.seed_generator.state.assign([seed, draws])


class Backup(keras.callbacks.BackupAndRestore):
    """Keras's backup of weights, moments and epoch, of which a stop at any moment leaves a whole one behind.

    Keras writes over the files of the last epoch. Here both are written to a folder beside, which then takes
    the place of the other.
    """

    def on_train_begin(self, logs=None):
        try:
            super().on_train_begin(logs)
        except Exception as error:  # whatever h5py or Keras raise at a damaged file
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{self.backup_dir}: the backup cannot be read ({reason}): {ANEW}") from None

    def _save_model(self):
        place = Path(self.backup_dir)
        beside = place.with_name(f"{place.name}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        self._weights_path, self._training_metadata_path = _backup_files(beside)
        super()._save_model()
        self._weights_path, self._training_metadata_path = _backup_files(place)
        old = place.with_name(f"{place.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        beside.rename(place)
        shutil.rmtree(old, ignore_errors=True)


def _backup_files(folder: Path) -> tuple[str, str]:
    return str(folder / "latest.weights.h5"), str(folder / "training_metadata.json")


def make_callbacks(
    run_dir: Path, patience: int, seed: int, tellers: Sequence[keras.callbacks.Callback] = ()
) -> list:
    """The callbacks of one run, in the order in which they have to act; those that only tell come first.

    The backup comes last: what it says is finished, the others have written.
    """
    history = read_values(run_dir)
    checkpoint = keras.callbacks.ModelCheckpoint(
        str(best_weights_path(run_dir)),
        monitor=MONITOR,
        mode="min",
        save_best_only=True,
        save_weights_only=True,
        initial_value_threshold=find_best(history),  # inf at first, or Keras would keep a NaN
    )
    callbacks = [
        keras.callbacks.TerminateOnNaN(),
        checkpoint,
        EarlyStopping(patience, history),
        DropoutOfEpoch(seed),
        keras.callbacks.CSVLogger(str(run_dir / "history.csv"), append=True),
        keras.callbacks.TensorBoard(str(run_dir), write_graph=False),
        Backup(str(run_dir / BACKUP), delete_checkpoint=False),
    ]
    return [*tellers, *callbacks]


def is_over(run_dir: Path, epochs: int, patience: int) -> bool:
    """Whether a run has trained all its epochs, or stopped early: what is left is to evaluate it."""
    history = read_values(run_dir)
    return len(history) >= epochs or is_out_of_patience(history, patience)


def best_weights_path(run_dir: Path) -> Path:
    """The weights with the best `MONITOR` so far, of what `fit` trains."""
    return run_dir / "checkpoints" / "best.weights.h5"


def finished_epochs(run_dir: Path) -> int:
    """The epochs that the backup of a run covers."""
    path = run_dir / BACKUP / "training_metadata.json"
    if not path.is_file():
        return 0
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["epoch"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: damaged: {ANEW}") from None


def drop_unfinished(run_dir: Path) -> None:
    """Cuts `history.csv` back to the epochs that the backup covers: the others will run again."""
    place, old = (run_dir / name for name in (BACKUP, f"{BACKUP}.old"))
    if old.exists() and not place.exists():  # stopped between the two renamings
        old.rename(place)
    rows, finished = read_rows(run_dir), finished_epochs(run_dir)
    if len(rows) <= finished:
        return
    path = run_dir / "history.csv"
    if not finished:
        path.unlink()
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows[:finished])


def drop_backup(run_dir: Path, keep_last: bool = False) -> None:
    """Removes what only an unfinished run needs; `keep_last` leaves what it takes to train it longer."""
    for name in (*([] if keep_last else [BACKUP]), f"{BACKUP}.partial", f"{BACKUP}.old"):
        shutil.rmtree(run_dir / name, ignore_errors=True)
    best_weights_path(run_dir).unlink(missing_ok=True)


def measure_backup(run_dir: Path) -> int:
    """Bytes of what a run keeps of its last epoch."""
    return sum(file.stat().st_size for file in (run_dir / BACKUP).glob("*"))
