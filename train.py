"""Trains a tagger: a built data set enters; a run folder with tables, TensorBoard and an export leaves.

    python train.py --dataset demo          draws its data, trains a minute or two, prints the paper's table
    python train.py --dataset nuswide81     the paper's model on the paper's data
    python train.py --resume runs/demo/...  goes on with an interrupted run, or longer: --epochs 90

The records come from `python -m tfrecords build`; only the demo's are made on the spot.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cnnrnn_tf.config import ExperimentConfig, find_setting, read_settings, resolve
from cnnrnn_tf.model.backbone_names import check_backbone_name, check_backbone_weights
from cnnrnn_tf.training.latest import find_run
from cnnrnn_tf.training.runs import check_resumable, check_run_folder, find_data_dir
from tfrecords.cli import format_command, parse, run_main, show_version
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest, list_built
from tfrecords.progress import loading_tensorflow

PROG = "python train.py"
_BESIDE_RESUME = ("--resume", "--epochs", "--patience", "--data-dir", "--verbose")


@dataclass
class Train:
    """Train, evaluate and export one tagger.

    Every setting has a flag. The later is the stronger: defaults, the data set's preset, --config, flags.
    """

    config: Path | None = None
    """JSON file of settings, such as the config.json of another run."""
    runs_dir: Path = Path("runs")
    """Where run folders go."""
    run_name: str = ""
    """Name of the run folder; the time by default."""
    strict: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Refuse a data set with images that do not decode; by default they are left out, counted and named."""
    resume: Path | None = None
    """Folder of a run to go on with, with its own settings: an interrupted one; or a finished one, to train
    it longer, to more --epochs. --patience and --data-dir may be given, too."""
    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Say below the table by which conventions it was measured; train.log always has them."""
    experiment: Annotated[ExperimentConfig, tyro.conf.OmitArgPrefixes] = field(
        default_factory=ExperimentConfig
    )


def main(args: list[str] | None = None) -> int:
    """Runs one command line and returns its exit status: 0, or 2 after a mistake, told in one line."""
    return run_main(lambda: _run(list(sys.argv[1:] if args is None else args)))


def _run(args: list[str]) -> None:
    if args[:1] == ["--version"]:
        show_version()
    default = Train(experiment=_find_defaults(args))
    options = parse(Train, args, prog=PROG, default=default, config=(tyro.conf.DisallowNone,))
    if options.resume is not None:
        _resume(options, args)
        return
    data = options.experiment.data
    if _find_dataset(args) is None:
        raise UserError(_explain_start(data.data_dir))
    if data.dataset in ("", ".", "..") or "/" in data.dataset:
        raise UserError(
            f"--dataset {data.dataset}: expected the name of a data set, such as scenes; --data-dir names "
            "the folder that holds it"
        )
    _check(options)
    with loading_tensorflow():
        from cnnrnn_tf.training import run
    if options.strict:
        run.load_manifest(options.experiment, strict=True)
    run.train(options.experiment, options.runs_dir, options.run_name, verbose=options.verbose)


def _resume(options: Train, args: list[str]) -> None:
    for word in args:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag not in _BESIDE_RESUME:
            raise UserError(
                f"--resume goes on with the run's own settings: leave {flag} out; only --epochs, --patience "
                "and --data-dir may be others"
            )
    training, data = options.experiment.training, options.experiment.data
    epochs = None if _find_value(args, "--epochs") is None else training.epochs
    patience = None if _find_value(args, "--patience") is None else training.patience
    data_dir = None if _find_value(args, "--data-dir") is None else data.data_dir
    run_dir = find_run(options.resume)
    find_data_dir(run_dir, check_resumable(run_dir, epochs, patience), data_dir)
    with loading_tensorflow():
        from cnnrnn_tf.training import run
    run.resume(run_dir, epochs=epochs, patience=patience, data_dir=data_dir, verbose=options.verbose)


def _check(options: Train) -> None:
    """Tells what is wrong with the settings before TensorFlow is loaded, as far as that can be known."""
    data, model = options.experiment.data, options.experiment.model
    check_backbone_name(model.backbone)
    check_backbone_weights(model.backbone, model.backbone_weights)
    if options.experiment.evaluation.protocol != "default":
        from cnnrnn_tf.evaluation.protocols import protocol

        protocol(options.experiment.evaluation.protocol, data.dataset)
    check_run_folder(options.runs_dir, data.dataset, options.run_name)
    if data.dataset != "demo":
        Manifest.load(data.data_dir / data.dataset)


def _find_defaults(args: list[str]) -> ExperimentConfig:
    """What the flags change: the data set's preset and the config file, which have to be known first."""
    flags = {"model": {"backbone": _find_value(args, "--backbone")}}
    return resolve(_find_value(args, "--dataset"), _find_value(args, "--config"), flags)


def _find_dataset(args: list[str]) -> str | None:
    """The data set that the flags or the config file name; None where neither does."""
    config_file = _find_value(args, "--config")
    settings = read_settings(config_file) if config_file else {}
    named = _find_value(args, "--dataset")
    return find_setting(settings, "data", "dataset") if named is None else named


def _explain_start(data_dir: Path) -> str:
    """How to start, for who names no data set: with the demo, or with one that is built."""
    names = list_built(data_dir)
    built = f"; built in {data_dir}: {', '.join(names)}" if names else ""
    start = format_command("python", "train.py", "--dataset", "demo")
    return (
        f"expected --dataset NAME: start with `{start}`, which draws its own pictures and trains in some "
        f"minutes{built}; of your own photographs `python -m tfrecords build table --help` tells"
    )


def _find_value(args: list[str], flag: str) -> str | None:
    for position, word in enumerate(args):
        if word == flag and position + 1 < len(args):
            return args[position + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


if __name__ == "__main__":
    sys.exit(main())
