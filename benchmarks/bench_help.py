"""How long `--help` takes: a command line that answers at once is one that people ask.

    python benchmarks/bench_help.py

The best of five runs of each command counts: the others measure what else the machine was doing.
"""

import sys

from measure import ROOT, Targets, run

RUNS = 5
LIMIT_S = 0.5
COMMANDS = (
    ("train.py", "--help"),
    ("-m", "cnnrnn_tf.commands", "--help"),
    ("-m", "cnnrnn_tf.commands", "predict", "--help"),
    ("-m", "tfrecords", "--help"),
    ("-m", "tfrecords", "build", "table", "--help"),
)


def main() -> int:
    targets = Targets()
    for command in COMMANDS:
        words = [ROOT / word if word == "train.py" else word for word in command]
        fastest_s = min(run(*words).wall_s for _ in range(RUNS))
        targets.check(f"seconds of python {' '.join(command)}", fastest_s, at_most=LIMIT_S)
    return targets.status


if __name__ == "__main__":
    sys.exit(main())
