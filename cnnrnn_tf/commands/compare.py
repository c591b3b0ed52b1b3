"""A built data set enters; the paper's table of all methods on the same features leaves.

cnnrnn compare --dataset scenes --backbone mobilenet_v2
cnnrnn compare --dataset coco2014 --methods cnn-rnn,no-rnn,softmax,warp,bce --seeds 1
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cnnrnn_tf.baselines.catalogue import METHOD_NAMES, PATH_METHODS, check_methods
from cnnrnn_tf.config import ExperimentConfig, resolve
from cnnrnn_tf.model.backbone_names import check_backbone_name, check_backbone_weights
from cnnrnn_tf.training.runs import check_run_folder
from tfrecords.cli import format_command
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest
from tfrecords.progress import loading_tensorflow, show_progress
from tfrecords.words import count


@dataclass
class Compare:
    """Run CNN-RNN and every baseline on the same features, and print the paper's table."""

    dataset: str
    """Name of a built data set."""
    methods: str = "all"
    """Names of methods, joined by commas: cnn-rnn, no-rnn, softmax, softmax-hidden, bce, bce-hidden, asl,
    warp, squared, svm, logistic, knn, joint-embedding, metric-learning, max-pooling; or all."""
    seeds: int = 3
    """Seeds of each method that draws at random."""
    protocol: str | None = None
    """Whose conventions: cnn-rnn, ml-gcn, srn, asl or free. By default the paper's for the data sets of the
    paper, and free for any other."""
    data_dir: Path = Path("data")
    """Folder of all data sets."""
    runs_dir: Path = Path("runs")
    """Where the comparison's folder goes: RUNS_DIR/DATASET/compare-..."""
    config: Path | None = None
    """JSON file of settings of CNN-RNN and of the CNN, such as the config.json of a run."""
    backbone: str | None = None
    """CNN whose features all methods share; the data set's preset by default."""
    backbone_weights: str | None = None
    """imagenet, none (random), or the path of a weights file."""
    min_length: int | None = None
    """Fewest labels on a path; the data set's preset by default."""
    strict: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Refuse a data set with images that do not decode; by default they are left out and counted."""

    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print all notes below the tables; the files always have them."""

    def run(self) -> None:
        """Prints the tables and writes them into the comparison's folder.

        Raises:
            UserError: no such data set, method or protocol, or what a method refuses.
        """
        from cnnrnn_tf.evaluation.protocols import protocol

        config = self._configure()
        names = self.methods.split(",") if self.methods != "all" else METHOD_NAMES
        check_methods(names)
        if self.seeds < 1:
            raise UserError(f"--seeds {self.seeds}: expected 1 or more")
        check_backbone_name(config.model.backbone)
        check_backbone_weights(config.model.backbone, config.model.backbone_weights)
        if self.protocol is not None:
            protocol(self.protocol, self.dataset)
        check_run_folder(self.runs_dir, self.dataset)  # from here on the disk is looked at
        if self.dataset != "demo":
            Manifest.load(self.data_dir / self.dataset)  # a data set that is not built: say so at once
        seeds = count("seed", self.seeds)
        print(f"comparing on {self.dataset}: {', '.join(names)}; {seeds} of what draws at random", flush=True)
        with loading_tensorflow():
            from cnnrnn_tf.training import compare, run
        if self.strict:
            run.load_manifest(config, strict=True)
        from cnnrnn_tf.evaluation.method_tables import print_methods
        from cnnrnn_tf.evaluation.published import PUBLISHED

        with show_progress("making the CNN"):
            comparer = compare.Comparer(config, self.runs_dir)
        print(f"results: {comparer.folder}; what is finished is kept there", flush=True)
        try:
            comparison = comparer.run(names, self.seeds, self.protocol)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "finished methods are kept; the same command goes on with the others"
            ) from None
        published = []
        if comparison.protocol == "cnn-rnn":  # the paper's: numbers of other conventions share no column
            published = [row for row in PUBLISHED if row.dataset == self.dataset]
        file_name = "-".join(
            ["comparison", *(["part"] if self.methods != "all" else []), *filter(None, [self.protocol])]
        )
        with show_progress("drawing the tables"):
            files = compare.save_tables(comparer.folder, comparison, published, file_name)
        print_methods(comparison, published, self.verbose)
        print(f"\nalso as {', '.join(path.suffix[1:] for path in files)}: {files[0].with_suffix('')}.*")
        if set(names) & set(PATH_METHODS):
            print(f"next: {format_command('tensorboard', '--logdir', self.runs_dir)}")

    def _configure(self) -> ExperimentConfig:
        flags = {
            "data": {"data_dir": self.data_dir},
            "model": {"backbone": self.backbone, "backbone_weights": self.backbone_weights},
            "decoding": {"min_length": self.min_length},
        }
        return resolve(self.dataset, self.config, flags)
