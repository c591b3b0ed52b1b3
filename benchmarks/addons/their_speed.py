"""Names of cases enter on standard input; the seconds of tensorflow-addons' beam search leave, a line each.

    .venv-addons/bin/python benchmarks/addons/their_speed.py FOLDER

`bench_beam_search.py` runs it in turns with its own search: a line `CASE RUNS` is answered by a line of JSON,
{"bare": [seconds], "masked": [seconds]}, for the search as it is and with our masks (see `theirs.py`).
FOLDER/CASE.npz holds a decoder's weights and features of images, as `ours.py` writes them.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
import theirs

NAMES = {"published": "bare", "renormalised": "masked"}


def main() -> int:
    folder, decoders = Path(sys.argv[1]), {}
    for line in sys.stdin:
        case, runs = line.split()
        if case not in decoders:
            decoders[case] = compile_decoders(folder / f"{case}.npz")
        print(
            json.dumps({name: time_runs(run, int(runs)) for name, run in decoders[case].items()}), flush=True
        )
    return 0


def compile_decoders(path):
    with np.load(path) as file:
        case = dict(file)
    decoders = {}
    for rule, make_cell in theirs.CELLS.items():
        decoders[NAMES[rule]] = tf.function(_bind(make_cell(case), case))
        decoders[NAMES[rule]]()
    return decoders


def time_runs(run, runs):
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        run()[1].numpy()
        seconds.append(time.perf_counter() - start)
    return seconds


def _bind(cell, case):
    return lambda: theirs.search(cell, case, int(case["beam"]))


if __name__ == "__main__":
    sys.exit(main())
