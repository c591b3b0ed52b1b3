"""How fast the beam search is: beside tensorflow-addons, beside a search in Python, and by what it costs.

    make .venv-addons/.installed && python benchmarks/bench_beam_search.py [--cost-only]

Batch 32, a beam of 5, an LSTM of 512 units, 12 steps at most, 81 and 1,000 labels, the same weights for all:

- `random`: weights as they are initialised. Nearly all paths differ, so hardly a prefix is shared.
- `full`: trained weights, and an END so unlikely that no path ends early.
- `trained`: the same weights with their own END, so lists of some three labels.

All searches are compiled, and run in turns; the fastest run of each counts, for the others measure what else
the machine did. tensorflow-addons has an environment of its own, and runs bare and with our masks: the faster
one is the peer. The search in Python calls a compiled step for each image, and keeps its paths in lists.

What a search costs against labels, beam and batch is drawn into build/bench/beam-search.png.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import ROOT, Targets

from tfrecords.quiet import silence_native_stderr

with silence_native_stderr():
    import keras
    import tensorflow as tf

from addons import ours

from cnnrnn_tf.data.sequences import encode_paths, order_ranks
from cnnrnn_tf.model.cnn_rnn import CNNRNN
from cnnrnn_tf.model.decoder import DecoderTables
from cnnrnn_tf.model.losses import PathNegativeLogLikelihood

LABELS = (81, 1000)
IMAGES, BEAM, LONGEST = 32, 5, 11
ROUNDS, RUNS = 8, 12
AT_LEAST = {"random": 1.5, "full": 1.5, "trained": 4.0}
PYTHON_AT_LEAST = 20.0
OUT = ROOT / "build" / "bench"
ADDONS_PYTHON = ROOT / ".venv-addons" / "bin" / "python"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cost-only", action="store_true", help="draw what a search costs, without peers")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    targets = Targets()
    if not options.cost_only:
        compare_with_peers(targets)
    draw_costs(OUT / "beam-search.png")
    return targets.status


def compare_with_peers(targets: Targets) -> None:
    if not ADDONS_PYTHON.exists():
        raise SystemExit("tensorflow-addons has no environment yet: run `make .venv-addons/.installed` first")
    cases = {}
    for num_labels in LABELS:
        for kind, (model, features) in make_models(num_labels).items():
            cases[f"{kind}-{num_labels}"] = (model, features)
            arrays = {**ours.export_weights(model), "features": features, "beam": BEAM}
            np.savez(OUT / f"{kind}-{num_labels}.npz", **arrays)
    with subprocess.Popen(
        [ADDONS_PYTHON, ROOT / "benchmarks" / "addons" / "their_speed.py", OUT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as peer:
        for case, (model, features) in cases.items():
            compare_case(targets, case, model, features, peer)
        peer.stdin.close()


def compare_case(targets: Targets, case: str, model: CNNRNN, features: np.ndarray, peer) -> None:
    search = compile_search(model, features, BEAM)
    num_steps = search().num_steps.numpy()
    seconds: dict[str, list[float]] = {"ours": []}
    ask(peer, case, 3)
    for _ in range(ROUNDS):
        seconds["ours"] += time_runs(search, RUNS)
        for name, theirs in ask(peer, case, RUNS).items():
            seconds.setdefault(name, []).extend(theirs)
    in_python = PythonSearch(model)
    seconds["python"] = [min(time_runs(lambda: in_python.search(features), 1)) for _ in range(3)]
    fastest = {name: min(each) for name, each in seconds.items()}
    line = ", ".join(f"{name} {1000 * each:.1f} ms" for name, each in fastest.items())
    print(f"{case}: {num_steps.mean():.1f} steps an image ({num_steps.max()} at most); {line}", flush=True)
    ratio = min(fastest["bare"], fastest["masked"]) / fastest["ours"]
    targets.check(f"{case}: tensorflow-addons / ours", ratio, at_least=AT_LEAST[case.split("-")[0]])
    targets.check(
        f"{case}: a search in Python / ours", fastest["python"] / fastest["ours"], at_least=PYTHON_AT_LEAST
    )


def ask(peer, case: str, runs: int) -> dict[str, list[float]]:
    peer.stdin.write(f"{case} {runs}\n")
    peer.stdin.flush()
    answer = peer.stdout.readline()
    if not answer:
        raise SystemExit("tensorflow-addons' process ended: try `make addons`, which shows what it says")
    return json.loads(answer)


def compile_search(model: CNNRNN, features: np.ndarray, beam_size: int) -> Callable:
    """The search as an export runs it: with the decoder's tables, and without rankings of all labels."""
    tables = DecoderTables(*map(tf.Variable, model.decoder.tabulate()))
    inputs = tf.constant(features)

    @tf.function(autograph=False)
    def search(features):
        return model.decode(features, beam_size=beam_size, tables=tables, with_step_probs=False)

    return lambda: search(inputs)


def time_runs(run: Callable, runs: int) -> list[float]:
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        np.asarray(run().log_probs)
        seconds.append(time.perf_counter() - start)
    return seconds


# ---- models


def make_models(num_labels: int) -> dict[str, tuple[CNNRNN, np.ndarray]]:
    """The three cases, and features of 32 images for each."""
    trained, features = train(num_labels)
    return {
        "random": (suppress_end(make_model(num_labels)), ours.draw_features(IMAGES, seed=0)),
        "full": (suppress_end(clone(trained)), features),
        "trained": (trained, features),
    }


def suppress_end(model: CNNRNN) -> CNNRNN:
    """The model with an END that hardly scores, so that each search has all 12 steps."""
    embeddings = model.decoder.label_embeddings.numpy()
    embeddings[model.num_labels] = -1.0
    model.decoder.label_embeddings.assign(embeddings)
    return model


def make_model(num_labels: int) -> CNNRNN:
    keras.utils.set_random_seed(num_labels)
    sizes = dict(cell_units=512, embedding_dim=64)
    model = CNNRNN(num_labels, LONGEST, backbone="compact", image_size=32, **sizes)
    model.build()
    return model


def train(num_labels: int) -> tuple[CNNRNN, np.ndarray]:
    """A model of drawn images (see `addons/ours.py`) of some three labels, and the features of 32 others."""
    features, labels = ours.draw_images(2000 + IMAGES, num_labels, LONGEST)
    model = make_model(num_labels)
    tokens, targets = encode_paths(labels[:-IMAGES], LONGEST + 1, order_ranks("frequent", num_labels))
    model.decoder.compile(keras.optimizers.Adam(1e-3), loss=PathNegativeLogLikelihood())
    inputs = {"features": features[:-IMAGES], "tokens": tokens.numpy()}
    model.decoder.fit(inputs, targets.numpy(), batch_size=100, epochs=10, verbose=0)
    return model, features[-IMAGES:]


def clone(model: CNNRNN) -> CNNRNN:
    other = make_model(model.num_labels)
    for to, value in zip(other.decoder.weights, model.decoder.weights, strict=True):
        to.assign(value)
    return other


# ---- the search in Python


class PythonSearch:
    """Section 3.3 of the paper image by image: a compiled step of the model, and lists of paths around it."""

    def __init__(self, model: CNNRNN):
        self._decoder, self._longest = model.decoder, model.max_path_length
        self._step = tf.function(self._decoder.step, autograph=False, reduce_retracing=True)

    def search(self, features: np.ndarray):
        """The same candidates as ours; an object with `log_probs`, of each image the best."""
        projected = self._decoder.project(features)
        best = [self._search_one(projected[i : i + 1])[0][0] for i in range(len(features))]
        return argparse.Namespace(log_probs=np.array(best))

    def _search_one(self, projected) -> list[tuple[float, tuple[int, ...]]]:
        end = self._decoder.num_labels
        live, candidates = [(0.0, ())], []
        tokens, state = [end + 1], self._decoder.initial_state()
        for time_step in range(self._longest + 1):
            rows = tf.repeat(projected, len(live), axis=0)
            scores, state = self._step(tf.constant(tokens), state, rows)
            log_probs = tf.nn.log_softmax(scores).numpy()
            extended = []
            for row, (total, path) in enumerate(live):
                allowed = log_probs[row].copy()
                allowed[list(path)] = -np.inf
                if time_step == self._longest:
                    allowed[:end] = -np.inf
                for token in np.argpartition(-allowed, BEAM)[:BEAM].tolist():
                    if allowed[token] > -np.inf:
                        extended.append((total + float(allowed[token]), (*path, token), row))
            survivors = sorted(extended, reverse=True)[:BEAM]
            candidates += [(total, path[:-1]) for total, path, _ in survivors if path[-1] == end]
            candidates = sorted(candidates, reverse=True)[:BEAM]
            survivors = [each for each in survivors if each[1][-1] != end]
            worst = candidates[-1][0] if len(candidates) == BEAM else -math.inf
            if not survivors or survivors[0][0] < worst:
                break
            live = [(total, path) for total, path, _ in survivors]
            tokens = [path[-1] for _, path in live]
            parents = [row for _, _, row in survivors]
            state = [tf.gather(leaf, parents) for leaf in state]
        return candidates


# ---- what a search costs


def draw_costs(path: Path) -> None:
    """Milliseconds a batch against the number of labels, the beam and the batch, no path ending early."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), sharey=True, layout="constrained")
    series = {
        "labels": [(n, (n, BEAM, IMAGES)) for n in (81, 1000, 5018)],
        "beam": [(n, (81, n, IMAGES)) for n in (1, 2, 3, 5, 10, 20)],
        "images in the batch": [(n, (81, BEAM, n)) for n in (1, 2, 4, 8, 16, 32, 64, 128)],
    }
    models = {}
    for axis, (name, points) in zip(axes, series.items(), strict=True):
        costs = []
        for value, (num_labels, beam_size, num_images) in points:
            if num_labels not in models:
                models[num_labels] = suppress_end(make_model(num_labels))
            search = compile_search(models[num_labels], ours.draw_features(num_images, seed=0), beam_size)
            search()
            costs.append(1000 * min(time_runs(search, 20)))
            print(f"{name} {value}: {costs[-1]:.1f} ms", flush=True)
        axis.loglog([value for value, _ in points], costs, "o-")
        axis.set(xlabel=name, xticks=[value for value, _ in points])
        axis.set_xticklabels([f"{value:,}" for value, _ in points])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="ms a batch", yticks=(5, 10, 20, 50, 100), yticklabels=("5", "10", "20", "50", "100"))
    figure.suptitle(
        f"Beam search: {IMAGES} images, a beam of {BEAM}, 81 labels but where the axis says; 12 steps"
    )
    figure.savefig(path, dpi=110)
    print(f"drawn: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
