"""Seeds enter; models, label tables, and what our search and our measures make of them leave as files.

    python benchmarks/addons/ours.py FOLDER [--models 30] [--images 256] [--train-images 2000]

The first step of `make addons`: `theirs.py` gives the same files to tensorflow-addons, in an environment of
its own, and `compare.py` reads the answers of both. What is written to FOLDER/ours:

- `table-NAME.npz`: truth, scores, threshold, how often each image counts, and our measures of them.
- `search-NAME.npz`: a decoder's weights, features of images, and our paths for each rule and beam. A beam of
  0 means one as wide as there are paths, which makes the search exhaustive.
- `speed.npz`: the same for one search of a fixed number of steps, and the seconds that each run took.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.quiet import silence_native_stderr

with silence_native_stderr():
    import keras
    import tensorflow as tf

from cnnrnn_tf.data.sequences import encode_paths, order_ranks
from cnnrnn_tf.evaluation.metrics import SetMeasures
from cnnrnn_tf.model.cnn_rnn import CNNRNN
from cnnrnn_tf.model.losses import PathNegativeLogLikelihood

RULES = {"published": False, "renormalised": True}
"""What happens to the probability of pruned tokens, as `renormalise`: it is lost, or shared by the others."""
EVERY_PATH = 0
"""The beam that is as wide as there are paths."""
NARROW = (1, 2, 3, 5, 10)
SMALL = ((1, 1), (4, 4), (5, 3), (6, 3))
"""Labels and most labels on a path, of vocabularies whose paths can all be searched."""
LARGE = ((23, 8), (81, 10))
BATCHES = (0.2, 0.55)
"""Where a table is cut: measures are fed batches of different sizes."""
SPEED_RUNS = 100


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where `ours` is written; older files are removed")
    parser.add_argument("--models", type=int, default=30, help="random models that are searched exhaustively")
    parser.add_argument("--images", type=int, default=256, help="images of each model with many labels")
    parser.add_argument("--train-images", type=int, default=2000, help="images that models are fitted on")
    options = parser.parse_args(words)
    folder = options.folder / "ours"
    folder.mkdir(parents=True, exist_ok=True)
    for side in ("ours", "theirs"):  # theirs too: they answer the files of this run alone
        for old in (options.folder / side).glob("*.npz"):
            old.unlink()

    def save(name: str, **arrays: Any) -> None:
        np.savez(folder / f"{name}.npz", **arrays)

    for seed in range(options.models):
        num_labels, max_length = SMALL[seed % len(SMALL)]
        model = make_random_model(num_labels, max_length, seed)
        features = draw_features(16, seed)
        save(f"search-every-path-{seed:02d}", **search(model, features, [EVERY_PATH]))
    for num_labels, max_length in LARGE:
        model = make_random_model(num_labels, max_length, seed=0)
        features = draw_features(options.images, seed=num_labels)
        save(f"search-random-{num_labels}", **search(model, features, NARROW))
    for num_labels, max_length in ((6, 3), *LARGE):
        features, labels = draw_images(options.train_images + options.images, num_labels, max_length)
        known, new = slice(options.train_images), slice(options.train_images, None)
        model = fit_model(features[known], labels[known], max_length)
        beams = [EVERY_PATH] if (num_labels, max_length) in SMALL else NARROW
        save(f"search-trained-{num_labels}", **search(model, features[new], beams))
        for name, table in predict_tables(model, features[new], labels[new]).items():
            save(f"table-{name}-of-{num_labels}-labels", **measure(table))
    for name, table in draw_tables().items():
        save(f"table-{name}", **measure(table))
    save("speed", **time_search())
    return 0


# ---- models and images


def make_random_model(num_labels: int, max_length: int, seed: int) -> CNNRNN:
    """Weights so large that paths have clear favourites, and an END that comes after some labels."""
    model = _make_model(num_labels, max_length, cell_units=16, embedding_dim=8)
    random = np.random.default_rng([num_labels, max_length, seed])
    for variable in model.decoder.trainable_variables:
        fan_in = variable.shape[-1] if "embedding" in variable.name else variable.shape[0]
        variable.assign(1.8 * random.normal(size=variable.shape) / math.sqrt(fan_in))
    embeddings = model.decoder.label_embeddings.numpy()
    embeddings[num_labels] += 0.06 * math.log(num_labels)  # END competes with every label
    model.decoder.label_embeddings.assign(embeddings)
    return model


def draw_features(num_images: int, seed: int) -> np.ndarray:
    return np.random.default_rng([7, seed]).normal(size=(num_images, FEATURES)).astype(np.float32)


FEATURES = 512  # of the compact backbone


def draw_images(num_images: int, num_labels: int, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of eight hidden causes: features <float32>[images, features], labels <uint8>[images, labels].

    A few labels are frequent and most are rare, by their ids. About three hold at once, of some images none.
    """
    random = np.random.default_rng([11, num_labels])
    causes = random.normal(size=(num_images, 8))
    evidence = causes @ random.normal(size=(8, num_labels)) + random.normal(size=(num_images, num_labels))
    share = 1 / np.arange(2, num_labels + 2)
    share = np.minimum(3 * share / share.sum(), 0.6)
    labels = np.stack(
        [row > np.quantile(row, 1 - p) for row, p in zip(evidence.T, share, strict=True)], axis=1
    )
    labels &= np.cumsum(labels, axis=1) <= max_length
    noise = 0.5 * random.normal(size=(num_images, FEATURES))
    features = np.maximum(causes @ random.normal(size=(8, FEATURES)) / 2 + noise, 0)
    return features.astype(np.float32), labels.astype(np.uint8)


def fit_model(features: np.ndarray, labels: np.ndarray, max_length: int, epochs: int = 10) -> CNNRNN:
    num_labels = labels.shape[1]
    model = _make_model(num_labels, max_length, cell_units=128, embedding_dim=32)
    tokens, targets = encode_paths(labels, max_length + 1, order_ranks("frequent", num_labels))
    model.decoder.compile(keras.optimizers.Adam(3e-3), loss=PathNegativeLogLikelihood())
    inputs = {"features": features, "tokens": tokens.numpy()}
    model.decoder.fit(inputs, targets.numpy(), batch_size=100, epochs=epochs, verbose=0)
    return model


def _make_model(num_labels: int, max_length: int, **sizes: int) -> CNNRNN:
    keras.utils.set_random_seed(num_labels)
    model = CNNRNN(num_labels, max_length, backbone="compact", image_size=32, **sizes)
    model.build()
    return model


# ---- what our search finds


def search(model: CNNRNN, features: np.ndarray, beams: list[int] | tuple[int, ...]) -> dict[str, Any]:
    """The model, the features, and C of every rule and beam: `RULE_BEAM_tokens` and `RULE_BEAM_log_probs`."""
    found = {}
    for rule, renormalise in RULES.items():
        for beam in beams:
            width = beam or count_paths(model.num_labels, model.max_path_length)
            result = model.decode(features, beam_size=width, renormalise=renormalise)
            found[f"{rule}_{beam}_tokens"] = result.tokens.numpy()
            found[f"{rule}_{beam}_log_probs"] = result.log_probs.numpy()
    return {**export_weights(model), "features": features, "beams": np.array(beams), **found}


def count_paths(num_labels: int, max_length: int) -> int:
    """How many paths there are that hold no label twice.

    >>> count_paths(3, 2)  # none; 3 of one label; 6 of two
    10
    """
    return sum(math.perm(num_labels, length) for length in range(max_length + 1))


def export_weights(model: CNNRNN) -> dict[str, Any]:
    decoder = model.decoder
    kernel, recurrent_kernel, bias = decoder.cell.get_weights()
    return {
        "kernel": kernel,
        "recurrent_kernel": recurrent_kernel,
        "bias": bias,
        "output_kernel": decoder.output_projection.kernel.numpy(),
        "feature_kernel": decoder.feature_projection.kernel.numpy(),
        "label_embeddings": decoder.label_embeddings.numpy(),
        "start_embedding": decoder.start_embedding.numpy(),
        "max_length": model.max_path_length,
    }


def time_search() -> dict[str, Any]:
    """32 images, a beam of 5, 512 units, 81 labels, and an END so unlikely that every search has 12 steps."""
    model = _make_model(81, 11, cell_units=512, embedding_dim=64)
    embeddings = model.decoder.label_embeddings.numpy()
    embeddings[81] = -1.0
    model.decoder.label_embeddings.assign(embeddings)
    features = draw_features(32, seed=0)
    decode = tf.function(lambda features: model.decode(features, beam_size=5))
    num_steps = decode(features).num_steps.numpy()
    seconds = []
    for _ in range(SPEED_RUNS):
        start = time.perf_counter()
        decode(features).log_probs.numpy()
        seconds.append(time.perf_counter() - start)
    return {
        **export_weights(model),
        "features": features,
        "beam": 5,
        "seconds": seconds,
        "num_steps": num_steps,
    }


# ---- what our measures say


def predict_tables(model: CNNRNN, features: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, Any]]:
    """The truth beside the marginals of the search, and beside the labels of the best path."""
    result = model.decode(features, beam_size=5)
    best = tf.reduce_max(tf.one_hot(result.tokens[:, 0], model.num_labels), axis=1)  # END has no column
    tables = {"marginals": result.marginals.numpy(), "best-paths": best.numpy()}
    return {name: {"y_true": labels, "y_pred": y_pred} for name, y_pred in tables.items()}


def draw_tables() -> dict[str, dict[str, Any]]:
    """Tables with what a measure can trip over; 300 images of 20 labels unless it is about that."""
    random = np.random.default_rng(3)

    def draw(num_labels: int = 20, density: float = 0.2) -> dict[str, Any]:
        y_true = random.random((300, num_labels)) < density
        scores = 0.3 * y_true + 0.7 * random.random((300, num_labels))
        return {"y_true": y_true.astype(np.uint8), "y_pred": scores.astype(np.float32)}

    edges = draw()
    edges["y_true"][:10], edges["y_true"][10:20] = 0, 1  # images without labels, and with all of them
    edges["y_pred"][5:15], edges["y_pred"][15:25] = 0, 1
    edges["y_pred"][:, 4] = 0  # a label never predicted
    dead = draw()
    dead["y_true"][:, [2, 9, 19]] = 0  # labels without a positive, of which one is never predicted
    dead["y_pred"][:, 9] = 0
    ties = draw()
    ties["y_pred"] = np.round(4 * ties["y_pred"]).astype(np.float32) / 4  # a half among them
    weighted = draw()
    weighted["weights"] = random.integers(0, 4, 300).astype(np.float32)
    nothing = {"y_true": np.zeros((9, 3), np.uint8), "y_pred": np.zeros((9, 3), np.float32)}
    return {
        "dense": draw(density=0.5),
        "sparse": draw(num_labels=81, density=0.05),
        "one-label": draw(num_labels=1),
        "edges": edges,
        "dead-labels": dead,
        "ties": ties,
        "weighted": weighted,
        "nothing": nothing,
        "high-threshold": {**draw(), "threshold": 0.7},
    }


def measure(table: dict[str, Any]) -> dict[str, Any]:
    """The table, whole, and our measures of it; the counts of each label are without the weights."""
    table = {"threshold": 0.5, "weights": np.ones(len(table["y_true"]), np.float32), **table}
    weighted = _count(table, table["weights"]).result()
    counts = _count(table, None)
    return {
        **table,
        "hamming_loss": weighted["hamming_loss"],
        "micro_f1": weighted["O-F1"],
        "macro_f1": weighted["C-F1_per_class"],
        "true_positives": counts.true_positives.numpy(),
        "predicted": counts.predicted.numpy(),
        "positives": counts.positives.numpy(),
    }


def _count(table: dict[str, Any], weights: np.ndarray | None) -> SetMeasures:
    measures = SetMeasures(table["y_true"].shape[1], threshold=table["threshold"])
    cuts = [int(cut * len(table["y_true"])) for cut in BATCHES]
    for rows in np.split(np.arange(len(table["y_true"])), cuts):
        weight = None if weights is None else weights[rows]
        measures.update_state(table["y_true"][rows], table["y_pred"][rows], weight)
    return measures


if __name__ == "__main__":
    sys.exit(main())
