"""A data set, methods and seeds enter; predictions and the table of all methods on the same features leave.

runs/<dataset>/compare-<key>/   compare.json                  what is compared; the key is its fingerprint
                                cnn-rnn-0/ no-rnn-0/ ...      runs as train.py makes them, one a seed
                                cnn-0.weights.h5              where the CNN is trained: that of the baselines
                                predictions/<method>-0.npz    scores of the hold-out and of the test split
                                comparison[-part][-<protocol>].{json,csv,md,tex,png}

A method whose predictions are there, made by the same settings and versions, is not run again, whatever ended
the comparison. Measuring is quick and always done anew, so that another protocol costs no training.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from cnnrnn_tf.baselines.catalogue import PATH_METHODS, check_methods, make_method
from cnnrnn_tf.baselines.method import Examples, Method
from cnnrnn_tf.baselines.no_rnn import without_recurrence
from cnnrnn_tf.config import ExperimentConfig
from cnnrnn_tf.data.decodable import find_undecodable
from cnnrnn_tf.data.feature_files import locked
from cnnrnn_tf.data.records import load_labels
from cnnrnn_tf.evaluation.method_comparison import Comparison, Outcome, Row, compare_outcomes
from cnnrnn_tf.evaluation.method_tables import to_csv, to_latex, to_markdown
from cnnrnn_tf.evaluation.predictions import Predictions
from cnnrnn_tf.evaluation.protocols import Protocol
from cnnrnn_tf.evaluation.published import PublishedRow
from cnnrnn_tf.evaluation.report import choose_protocols, evaluate_predictions, save_metrics
from cnnrnn_tf.model.backbones import Backbone
from cnnrnn_tf.training import run, runs
from cnnrnn_tf.training.cnn import is_frozen, make_backbone
from cnnrnn_tf.training.distribution import set_up
from cnnrnn_tf.training.evaluate import predict_split
from cnnrnn_tf.training.features import cached_features, fingerprint_of
from cnnrnn_tf.training.kept_predictions import KeptPredictions
from cnnrnn_tf.training.multi_label_cnn import MultiLabelCNN, train_multi_label_cnn
from cnnrnn_tf.viz.comparison import MethodBlock, save_comparison
from tfrecords.errors import UserError
from tfrecords.progress import Progress, Silent, print_above, show_progress
from tfrecords.undecodable import remark_undecodable

SPLIT = "test"
OWN_HEAD = "bce"
"""The method that a trained CNN is trained by, so that it needs no second head on its features."""

RESULTS_VERSION = 1
"""To be raised with every change of code that changes what a method predicts."""

_CNN_WEIGHT = 10.0
"""How much work it is to train the CNN of the baselines, see `_weigh`."""

_PATH_FIELDS = ("paths", "path_lengths", "path_log_probs")


class Comparer:
    """All methods on one data set's features.

    Attributes:
        folder: where results are kept.
    """

    def __init__(
        self, config: ExperimentConfig, runs_dir: Path, say: Callable[[str], None] = print_above
    ) -> None:
        """Reads the records, makes the CNN and opens the folder.

        Args:
            config: of CNN-RNN and of the CNN that all methods share; its seed is not used.
            runs_dir: where run folders go.
            say: gets a line about each method as it is done.

        Raises:
            UserError: records, weights or settings that do not go together.
        """
        self._config, self._say = config, say
        self._dataset_dir = config.data.data_dir / config.data.dataset
        self._manifest = run.load_manifest(config)
        if SPLIT not in self._manifest.splits:
            raise UserError(
                f"{self._dataset_dir}: has no split {SPLIT} to compare methods on; build it with one "
                "(a column `split` in a table of your own)"
            )
        self._vocabulary = self._manifest.load_vocabulary(self._dataset_dir)
        with show_progress("reading labels"):
            self._truth = {
                split: load_labels(self._dataset_dir, split) for split in ("train", "holdout", SPLIT)
            }
        set_up(0, config.training.deterministic, config.training.precision)
        content = self._describe()
        self._key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        self.folder = runs_dir / config.data.dataset / f"compare-{self._key[:8]}"
        save_metrics(content, self.folder / "compare.json")
        self._features: dict[str, np.ndarray] = {}
        self._teller = _Teller(Silent())

    def run(self, methods: Sequence[str], num_seeds: int, protocol: str | None = None) -> Comparison:
        """Runs what has not been run, measures all and sums up.

        Args:
            methods: of `catalogue.METHOD_NAMES`, in the order of the table.
            num_seeds: seeds of the methods that draw at random: 0, 1, ...
            protocol: whose conventions; those of the data set by default.

        Raises:
            UserError: an unknown method or protocol, no seed, or no method that can be fitted; one that
                refuses is left out, and a note says why.
        """
        check_methods(methods)
        if num_seeds < 1:
            raise UserError(f"--seeds {num_seeds}: expected 1 or more")
        if "cnn-rnn" in methods and self._config.model.cell == "none":
            raise UserError("--methods: cnn-rnn has a cell, and the settings say `none`: that is no-rnn")
        if protocol is None and self._config.evaluation.protocol != "default":
            protocol = self._config.evaluation.protocol
        protocols = choose_protocols(self._config.data.dataset, protocol)
        outcomes, refusals = [], {}
        work = sum(_weigh(name) * self._count_fits(name, num_seeds) for name in methods)
        if not self._is_frozen and not set(methods) <= set(PATH_METHODS):
            untrained = [seed for seed in range(num_seeds) if not self._cnn_weights_path(seed).is_file()]
            work += _CNN_WEIGHT * len(untrained)
        with (
            locked(self.folder, "comparing methods"),
            show_progress("comparing methods", total=work) as bar,
        ):
            self._teller = _Teller(bar)
            for name in methods:
                try:
                    outcomes += self._measure(name, num_seeds, protocols)
                except UserError as error:
                    self._say(f"{name}: left out: {error}")
                    refusals[name] = str(error)
        if not outcomes:
            raise UserError(" ".join(refusals.values()))
        return compare_outcomes(self._config.data.dataset, outcomes, self._explain(refusals, protocols))

    def _measure(self, name: str, num_seeds: int, protocols: Sequence[Protocol]) -> list[Outcome]:
        title, _, gives_probabilities = _describe_method(name)
        outcomes = []
        for seed in range(self._count_fits(name, num_seeds)):
            found = self._predict(name, title, seed)
            metrics = evaluate_predictions(found[SPLIT], found["holdout"], protocols, self._vocabulary, SPLIT)
            if not gives_probabilities and protocols[0].threshold is not None:
                metrics["rows"] = [row for row in metrics["rows"] if row["threshold"] is None]
            min_length = self._config.decoding.min_length if name in PATH_METHODS else 0
            outcomes.append(Outcome(name, title, metrics, min_length))
        return outcomes

    def _count_fits(self, name: str, num_seeds: int) -> int:
        _, is_seeded, _ = _describe_method(name)
        return num_seeds if is_seeded or not self._is_frozen else 1

    def _explain(self, refusals: Mapping[str, str], protocols: Sequence[Protocol]) -> list[str]:
        """What a reader of the tables has to know of the methods."""
        notes = [*self._manifest.remarks(), *remark_undecodable(find_undecodable(self._dataset_dir))]
        notes += [f"{name} is left out: {words}" for name, words in refusals.items()]
        if not self._is_frozen:
            notes.append(
                "The CNN is trained: CNN-RNN and No-RNN train their own; the baselines read one of the same "
                f"recipe that was trained by binary cross-entropy, whose own last layer is {OWN_HEAD}."
            )
        if protocols[0].threshold is not None:
            notes.append(
                f"Methods whose scores are no probabilities have no lists cut at {protocols[0].threshold:g}."
            )
        return notes

    def _predict(self, name: str, title: str, seed: int) -> dict[str, Predictions]:
        """The predictions of hold-out and test split: those that are kept, or made now."""
        path = self.folder / "predictions" / f"{name}-{seed}.npz"
        kept = KeptPredictions(path, self._stamp(name, seed))
        is_kept, start = kept.is_there(), time.perf_counter()
        self._teller.begin(f"{title}, seed {seed}", _weigh(name), is_kept)
        if not is_kept:
            if path.is_file():
                self._say(f"{path}: was made by other settings or versions; {title} runs again")
            if name in PATH_METHODS:
                kept.save(self._run_path_method(name, seed))
            elif name == OWN_HEAD and not self._is_frozen:
                kept.save(self._score_by_own_head(seed))
            else:
                kept.save(self._run_baseline(make_method(name), seed))
        self._teller.end()
        took = "    kept" if is_kept else f"{time.perf_counter() - start:6.1f} s"
        self._say(f"{title:<32} seed {seed}   {took}")
        return {split: kept.load(split, self._truth[split]) for split in ("holdout", SPLIT)}

    def _stamp(self, name: str, seed: int) -> str:
        """Everything that predictions depend on."""
        if name in PATH_METHODS:
            settings = dataclasses.asdict(self._config.decoding)
        else:
            settings = {key: value for key, value in vars(make_method(name)).items() if key[0] != "_"}
        versions = [f"{package} {version(package)}" for package in ("keras", "tensorflow", "scikit-learn")]
        content = [self._key, RESULTS_VERSION, name, seed, settings, versions]
        return json.dumps(content, sort_keys=True, default=str)

    def _run_path_method(self, name: str, seed: int) -> dict[str, np.ndarray]:
        run_dir = self._finish_run(name, seed)
        model = runs.load_run(run_dir).model
        arrays = {}
        for split in ("holdout", SPLIT):
            found = predict_split(model, self._dataset_dir, split, self._config.decoding)
            arrays |= {f"{split}_{field}": getattr(found, field) for field in ("scores", *_PATH_FIELDS)}
        keras.utils.clear_session()
        return arrays

    def _finish_run(self, name: str, seed: int) -> Path:
        """The run folder of a path method, trained to its end."""
        config = self._config if name == "cnn-rnn" else without_recurrence(self._config)
        config = with_seed(self._share_random_cnn(config), seed)
        run_dir = self.folder / f"{name}-{seed}"
        if (run_dir / runs.METRICS_FILE).is_file():
            return run_dir
        if (run_dir / runs.CONFIG_FILE).is_file():
            return run.resume(run_dir, deliver=False, on_epoch=self._teller.tell_epoch)
        # train() puts a run into a folder of its data set.
        name = str(run_dir.relative_to(self.folder.parent))
        return run.train(
            config,
            self.folder.parent.parent,
            name,
            deliver=False,
            on_epoch=self._teller.tell_epoch,
        )

    def _share_random_cnn(self, config: ExperimentConfig) -> ExperimentConfig:
        """The settings with the weights of the CNN in a file, where each run would draw its own."""
        if not self._is_frozen or config.model.backbone_weights != "none":
            return config
        path = self.folder / "cnn.weights.h5"
        if not path.is_file():
            self._backbone.network.save_weights(path)
        return dataclasses.replace(
            config, model=dataclasses.replace(config.model, backbone_weights=str(path))
        )

    def _run_baseline(self, method: Method, seed: int) -> dict[str, np.ndarray]:
        features = {split: self._read_features(split, seed, method.reads_hypotheses) for split in self._truth}
        train, holdout = (
            Examples(features[split], self._truth[split].labels, self._truth[split].known)
            for split in ("train", "holdout")
        )
        method.watch(self._teller.tell_epoch)
        method.fit(train, holdout, seed)
        arrays = {f"{split}_scores": method.score(features[split]) for split in ("holdout", SPLIT)}
        keras.utils.clear_session()
        return arrays

    @property
    def _is_frozen(self) -> bool:
        return is_frozen(self._config.model)

    @cached_property
    def _backbone(self) -> Backbone | None:
        return make_backbone(self._config.model) if self._is_frozen else None

    def _score_by_own_head(self, seed: int) -> dict[str, np.ndarray]:
        """Binary cross-entropy through the CNN: its own last layer on its own features."""
        head = self._train_cnn(seed).head
        arrays = {
            f"{split}_scores": keras.ops.convert_to_numpy(
                keras.ops.sigmoid(head(np.asarray(self._read_features(split, seed))))
            )
            for split in ("holdout", SPLIT)
        }
        keras.utils.clear_session()
        return arrays

    def _read_features(self, split: str, seed: int, hypotheses: bool = False) -> np.ndarray:
        """Features of the CNN that all baselines share: a frozen one, or the one that this seed trained."""
        if not self._is_frozen:
            backbone = self._train_cnn(seed).backbone
            backbone.freeze()
            return cached_features(backbone, self._dataset_dir, split, hypotheses)
        if hypotheses:
            return cached_features(self._backbone, self._dataset_dir, split, hypotheses)
        if split not in self._features:  # checked once, and not for each method
            self._features[split] = cached_features(self._backbone, self._dataset_dir, split)
        return self._features[split]

    def _train_cnn(self, seed: int) -> MultiLabelCNN:
        """The CNN that judges labels one by one, trained once a seed."""
        config = with_seed(self._config, seed)
        return train_multi_label_cnn(
            config,
            self._truth["train"],
            self._truth["holdout"],
            self._cnn_weights_path(seed),
            self._teller.tell_cnn_epoch,
        )

    def _cnn_weights_path(self, seed: int) -> Path:
        return self.folder / f"cnn-{seed}.weights.h5"

    def _describe(self) -> dict:
        """All that results depend on, besides method, seed and decoding."""
        settings = self._config.to_json()
        del settings["training"]["seed"], settings["data"]["data_dir"]
        del settings["evaluation"], settings["decoding"]  # nothing is trained by them
        weights = Path(self._config.model.backbone_weights)
        if self._is_frozen:
            settings["model"]["backbone_weights"] = fingerprint_of(self._backbone, self._manifest)
        elif weights.is_file():
            settings["model"]["backbone_weights"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        return {
            "records": self._manifest.fingerprint,
            "version": version("cnnrnn-tf"),
            "settings": settings,
        }


class _Teller:
    """Tells which method and seed is at work, in which epoch, and about how long all of them will take yet.

    Args:
        bar: counts work, in the units of `_weigh`.
    """

    def __init__(self, bar: Progress | Silent) -> None:
        self._bar = bar
        self._words, self._weight, self._told = "", 0.0, 0.0

    def begin(self, words: str, weight: float, is_kept: bool) -> None:
        """A method begins with a seed; what is kept of an earlier comparison takes no time."""
        self._words, self._weight, self._told = words, weight, 0.0
        if is_kept:
            self._bar.skip(weight)
            self._told = weight
        self._bar.describe(words)

    def tell_epoch(self, epoch: int, epochs: int) -> None:
        """An epoch has ended."""
        self._bar.describe(f"{self._words}, epoch {epoch} of {epochs}")
        self._count(self._weight * epoch / epochs)

    def tell_cnn_epoch(self, epoch: int, epochs: int) -> None:
        """An epoch of the CNN that the baselines share has ended."""
        self._bar.update(_CNN_WEIGHT / epochs)
        self._bar.describe(f"{self._words}, the CNN that it reads, epoch {epoch} of {epochs}")

    def end(self) -> None:
        """The method is done, perhaps before its last epoch."""
        self._count(self._weight)

    def _count(self, work: float) -> None:
        self._bar.update(max(work - self._told, 0.0))
        self._told = max(work, self._told)


def _weigh(name: str) -> float:
    """About how long a method takes, a linear layer being 1: for the time that is left."""
    return _CNN_WEIGHT if name in PATH_METHODS else 3.0 if name == "max-pooling" else 1.0


def with_seed(config: ExperimentConfig, seed: int) -> ExperimentConfig:
    """The same experiment with another seed."""
    return dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))


def save_tables(
    folder: Path, comparison: Comparison, published: Sequence[PublishedRow], name: str = "comparison"
) -> list[Path]:
    """Writes `name`.json, .csv, .md, .tex and .png into `folder`; returns their paths."""
    path = folder / f"{name}.json"
    save_metrics({**comparison.to_json(), "published": [dataclasses.asdict(row) for row in published]}, path)
    paths = [path]
    for suffix, write in ((".csv", to_csv), (".md", to_markdown), (".tex", to_latex)):
        paths.append(path.with_suffix(suffix))
        paths[-1].write_text(write(comparison, published), encoding="utf-8")
    paths.append(path.with_suffix(".png"))
    save_comparison(paths[-1], list(_plot_blocks(comparison)), _plot_title(comparison))
    return paths


def _describe_method(name: str) -> tuple[str, bool, bool]:
    """Title, whether it is seeded, whether its scores are probabilities."""
    if name in PATH_METHODS:
        return PATH_METHODS[name], True, True
    method = make_method(name)
    return method.title, method.is_seeded, method.gives_probabilities


def _plot_title(comparison: Comparison) -> str:
    return f"{comparison.dataset}, {comparison.num_images:,} {comparison.split} images, in percent"


def _plot_blocks(comparison: Comparison) -> Iterator[MethodBlock]:
    """The sets of each block by three measures, then the rankings, which are the same in all blocks."""
    ranked: dict[str, Row] = {}
    for block in comparison.blocks:
        rows = {_plot_name(row): row for row in block.rows}
        yield MethodBlock(block.name, _plot_columns(comparison, rows, ("C-F1", "O-F1", "exact")))
        ranked |= {row.title: row for row in block.rows if not row.lists.startswith("best path")}
    yield MethodBlock("ranking", _plot_columns(comparison, ranked, ("MAP@10", "mAP")))


def _plot_columns(
    comparison: Comparison, rows: Mapping[str, Row], headers: Sequence[str]
) -> dict[str, dict[str, tuple[float, ...]]]:
    """{header: {method: values in percent}}; of two columns with a header the first."""
    keys = {column.header: column.key for column in reversed(comparison.columns)}
    return {
        header: {
            name: tuple(100 * value for value in spread.values)
            for name, row in rows.items()
            if (spread := row.measures[keys[header]]) is not None
        }
        for header in headers
    }


def _plot_name(row: Row) -> str:
    return f"{row.title}, best path" if row.lists.startswith("best path") else row.title
