"""What bfloat16 costs in scores and gains in speed, and what an export adds to the bare CNN.

    python benchmarks/bench_precision.py --data FOLDER --weights mobilenet_v2.weights.h5

Scores: MobileNetV2 with ImageNet weights is trained on `clothing` once (skipped without them, see
bench_photographs.py) and exported in float32 and in bfloat16. Both exports tag the test photographs from
their files. The targets are on every measure of the paper's table, of lists of exactly 3 labels by the
rankings of the signature `scores`. What `serving_default` emits is shown beside, with no target: its best
paths hold rare labels once or twice, and one that comes or goes moves C-P by up to 100 / 23 points.

Speed: VGG16 with random weights, which cost what real ones cost, 81 labels, beam 5, an END that makes lists
of some three labels, as trained models do, batches of 32 photographs (clothing's; without them the demo's
pictures, enlarged to 400 px). JPEG bytes to labels, through the export, are timed beside the bare forward
pass on pixels that are decoded already: Keras's own VGG16 and `preprocess_input`, with weights and
arithmetic of the same precision. What the export's CNN takes alone is told too: in bfloat16 its dense
layers are laid out for oneDNN. All are timed in both precisions, by turns in one process; the best of all
rounds counts. Where the processor does not multiply bfloat16 it is not timed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_vgg16 import draw_photographs
from measure import Targets, run, run_command
from photographs import SHARED, build_records

from tfrecords.quiet import silence_native_stderr

PRECISIONS = ("float32", "bfloat16")
WITHIN_POINTS = 0.3
BEST_PATH = "best path"  # how the names of rows begin that are no lists of the ranking
MEASURES = ("C-P", "C-R", "C-F1_harmonic", "O-P", "O-R", "O-F1")
RANKING_MEASURES = ("MAP@10_truncated", "mAP_raw")
BATCH, NUM_LABELS, MAX_LENGTH = 32, 81, 12
WHOLE, BARE = "JPEG bytes to labels", "bare forward pass"
SPEED_UP, SHARE_OF_BARE = 1.7, 0.93
CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="holds clothing/")
    weights = SHARED / "weights" / "mobilenet_v2_imagenet_no_top.weights.h5"
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--clothing-run", type=Path, help="a finished run; trained anew where not given")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with silence_native_stderr():
        import tensorflow  # noqa: F401
    targets = Targets()
    with tempfile.TemporaryDirectory() as folder:
        missing = [path for path in (options.data / "clothing", options.weights) if not path.exists()]
        if missing:
            print(f"scores: skipped: {missing[0]} is not there; give --data and --weights")
        else:
            compare_scores(options, Path(folder), targets)
        compare_speed(options, Path(folder), targets)
    return targets.status


# --- scores


def compare_scores(options: argparse.Namespace, folder: Path, targets: Targets) -> None:
    """Prints every measure in both precisions; the target is on the largest difference."""
    run_dir = options.clothing_run or train(options, folder)
    found = {}
    for precision in PRECISIONS:
        out_dir = folder / f"export-{precision}"
        cnnrnn = Path(sys.executable).with_name("cnnrnn")
        run_command(cnnrnn, "export", run_dir, "--precision", precision, "--out", out_dir)
        found[precision] = measure_export(out_dir, run_dir, options.data / "clothing" / "images")
    print("clothing, percent: float32, bfloat16, difference", flush=True)
    differences = {}
    for name, expected in found["float32"].items():
        actual = found["bfloat16"][name]
        print(f"    {name:<36} {expected:6.2f} {actual:6.2f} {actual - expected:+6.2f}")
        if not name.startswith(BEST_PATH):
            differences[name] = abs(actual - expected)
    largest = max(differences, key=differences.get)
    targets.check(f"points of difference at most, {largest}", differences[largest], at_most=WITHIN_POINTS)


def train(options: argparse.Namespace, folder: Path) -> Path:
    build_records(options, "clothing", folder / "data")
    done = run(
        *("train.py", "--dataset", "clothing", "--backbone", "mobilenet_v2", "--seed", "0"),
        *("--backbone-weights", options.weights.resolve(), "--data-dir", folder / "data"),
        *("--runs-dir", folder / "runs", "--run-name", "0"),
    )
    print(f"clothing: trained in {done.wall_s:.0f} s", flush=True)
    return folder / "runs" / "clothing" / "0"


def measure_export(export_dir: Path, run_dir: Path, images_dir: Path) -> dict[str, float]:
    """{`list, measure`: percent} on the test split, from what an export says of the files."""
    from cnnrnn_tf.data.records import load_labels
    from cnnrnn_tf.evaluation.report import choose_protocols, evaluate_predictions
    from cnnrnn_tf.serving.export import load_export
    from cnnrnn_tf.training.runs import load_config

    loaded, data = load_export(export_dir), load_config(run_dir).data
    records = load_labels(data.data_dir / data.dataset, "test")
    predictions = ask(loaded, records, [(images_dir / name).read_bytes() for name in records.image_ids])
    metrics = evaluate_predictions(predictions, None, choose_protocols("clothing"), loaded.vocabulary)
    lists = {f"{row['name']}, {name}": 100 * row[name] for row in metrics["rows"] for name in MEASURES}
    return lists | {name: 100 * metrics["ranking"][name] for name in RANKING_MEASURES}


def ask(loaded, records, files: list[bytes]):
    """The `Predictions` of an export: paths by `serving_default`, rankings by `scores`."""
    import tensorflow as tf

    from cnnrnn_tf.evaluation.predictions import Predictions

    parts = []
    for start in range(0, len(files), BATCH):
        batch = tf.constant(files[start : start + BATCH])
        tagged = loaded.signatures["serving_default"](image_bytes=batch)
        scored = loaded.signatures["scores"](image_bytes=batch)
        if not tagged["valid"].numpy().all():
            raise SystemExit(f"a good photograph was refused: {set(tagged['error'].numpy())}")
        parts.append(
            [
                each.numpy()
                for each in (
                    tagged["labels"],
                    tagged["num_labels"],
                    tagged["path_probability"],
                    scored["ranking"],
                    scored["labels"],
                )
            ]
        )
    labels, lengths, probabilities, ranking, columns = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    names = [name.encode() for name in loaded.vocabulary.names]
    if columns[0].tolist() != names:
        raise SystemExit("the columns of `scores` are not the labels in the order of their ids")
    ids = {name: i for i, name in enumerate(names)}
    paths = np.array([[ids.get(name, len(names)) for name in row] for row in labels])
    return Predictions(
        records.image_ids, records.labels, records.known, paths, lengths, np.log(probabilities), ranking
    )


# --- speed


def compare_speed(options: argparse.Namespace, folder: Path, targets: Targets) -> None:
    """Prints images a second of every pair of precision and way, and the ratios that have targets."""
    precisions = PRECISIONS if has_bfloat16() else PRECISIONS[:1]
    if len(precisions) == 1:
        print(f"bfloat16 is not timed: /proc/cpuinfo has none of {', '.join(sorted(CPU_FLAGS))}")
    ways = prepare(read_photographs(options.data), precisions, folder)
    seconds = {name: [] for name in ways}
    for way in ways.values():
        way()  # traced and warm
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    rates = {name: BATCH / min(values) for name, values in seconds.items()}
    print(f"VGG16, batches of {BATCH}: images a second, best of {options.rounds} rounds", flush=True)
    for (what, precision), rate in rates.items():
        print(f"    {what:<20} {precision:<9} {rate:6.2f}")
    for precision in precisions:
        share = rates[WHOLE, precision] / rates[BARE, precision]
        targets.check(f"{WHOLE} over the {BARE}, {precision}", share, at_least=SHARE_OF_BARE)
    if len(precisions) == 2:
        ratio = rates[WHOLE, "bfloat16"] / rates[WHOLE, "float32"]
        targets.check(f"bfloat16 over float32, {WHOLE}", ratio, at_least=SPEED_UP)


def has_bfloat16(path: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16; False where nobody says so."""
    return path.is_file() and bool(CPU_FLAGS & set(path.read_text(encoding="utf-8").split()))


def read_photographs(data: Path) -> list[bytes]:
    """The files of one batch."""
    paths = sorted((data / "clothing" / "images").glob("*.jpg"))[:BATCH]
    if len(paths) < BATCH:
        print("speed: the demo's pictures stand in for photographs", flush=True)
        return draw_photographs()[:BATCH]
    return [path.read_bytes() for path in paths]


def prepare(files: list[bytes], precisions, folder: Path) -> dict[tuple[str, str], Callable[[], None]]:
    """{(what, precision): a function that does it to one batch and waits for the answer}."""
    import tensorflow as tf

    from cnnrnn_tf.config import DecodingConfig
    from cnnrnn_tf.data.images import decode_batch
    from cnnrnn_tf.model.cnn_rnn import CNNRNN
    from cnnrnn_tf.serving.export import export, load_export
    from cnnrnn_tf.serving.precision import make_extractor
    from tfrecords.vocabulary import LabelVocabulary

    vocabulary = LabelVocabulary.from_counts({f"label {i:02d}": NUM_LABELS - i for i in range(NUM_LABELS)})
    tf.keras.utils.set_random_seed(0)
    model = CNNRNN(NUM_LABELS, MAX_LENGTH, backbone="vgg16", vocabulary_fingerprint=vocabulary.fingerprint)
    model.build()
    encoded = tf.constant(files)
    pixels, valid, _ = decode_batch(encoded, model.image_size, model.image_fit)
    if not valid.numpy().all():
        raise SystemExit("a photograph does not decode")
    shorten_paths(model, pixels)
    ways = {}
    for precision in precisions:
        version = export(
            model, vocabulary, DecodingConfig(), folder / f"vgg16-{precision}", precision=precision
        )
        loaded = load_export(version)
        ways[BARE, precision] = time_forward(make_bare(model.backbone, precision), pixels)
        ways["the export's CNN", precision] = time_forward(
            make_extractor(model.backbone, precision)[0], pixels
        )
        ways[WHOLE, precision] = lambda loaded=loaded: loaded.signatures["serving_default"](
            image_bytes=encoded
        )["labels"].numpy()
    return ways


def make_bare(backbone, precision: str) -> Callable:
    """VGG16 as Keras makes it under the policy `precision`, up to the backbone's features."""
    import keras

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        whole = keras.applications.VGG16(weights=None)
    finally:
        keras.config.set_dtype_policy(policy)
    network = keras.Model(whole.input, whole.get_layer(backbone.network.layers[-1].name).output)
    network.set_weights(backbone.network.get_weights())
    return lambda pixels: network(keras.applications.vgg16.preprocess_input(pixels), training=False)


def time_forward(extract: Callable, pixels) -> Callable[[], None]:
    import tensorflow as tf

    forward = tf.function(extract, autograph=False).get_concrete_function(
        tf.TensorSpec([None, *pixels.shape[1:]], tf.float32)
    )
    return lambda: tf.cast(forward(pixels), tf.float32).numpy()


def shorten_paths(model, pixels) -> None:
    """Raises the score of END until the best paths have three labels at most, on average."""
    features = model.extract_features(pixels)
    embeddings = model.decoder.label_embeddings.numpy()
    while model.decode(features, beam_size=5).lengths[:, 0].numpy().mean() > 3:
        embeddings[NUM_LABELS] += 0.01
        model.decoder.label_embeddings.assign(embeddings)


if __name__ == "__main__":
    sys.exit(main())
