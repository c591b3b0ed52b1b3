"""A command line enters; what a trained model does with it leaves.

cnnrnn predict runs/demo/<time> photo.jpg
cnnrnn tag photos --model runs/demo/<time> --out tags.jsonl
cnnrnn evaluate runs/demo/<time>
cnnrnn audit --published
cnnrnn export runs/demo/<time>
cnnrnn check runs/demo/<time>/export
cnnrnn client --url http://localhost:8501 photo.jpg
cnnrnn compare --dataset scenes

No module of this package imports TensorFlow before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from cnnrnn_tf.commands.audit import Audit
from cnnrnn_tf.commands.check import Check
from cnnrnn_tf.commands.client import Client
from cnnrnn_tf.commands.compare import Compare
from cnnrnn_tf.commands.evaluate import Evaluate
from cnnrnn_tf.commands.export import Export
from cnnrnn_tf.commands.predict import Predict
from cnnrnn_tf.commands.tag import Tag
from tfrecords.cli import parse, run_main

PROG = "cnnrnn"
COMMANDS = {
    "predict": Predict,
    "tag": Tag,
    "evaluate": Evaluate,
    "audit": Audit,
    "export": Export,
    "check": Check,
    "client": Client,
    "compare": Compare,
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit status: 0; 1 where it found faults; 2 after a mistake."""
    return run_main(lambda: _run(args))


def _run(args: Sequence[str] | None) -> int | None:
    command = parse(
        COMMANDS,
        args,
        prog=PROG,
        description="Trained models tag photographs, are measured, and leave for TensorFlow Serving.",
        config=(tyro.conf.DisallowNone,),
    )
    return command.run()


if __name__ == "__main__":
    sys.exit(main())
