"""What telling a label is worth: exact match of the rest on the demo, O-F1 of the rest on clothing.

    python benchmarks/bench_given.py --data FOLDER --weights mobilenet_v2.weights.h5
    python benchmarks/bench_given.py --demo-run runs/demo/<time>     a run that is there is not trained again

A given label is a constraint (`tag_given`): the answer is the best path that holds it. Being told a label
makes that label right for nothing, so it leaves truth and answer, with it told and without. Judged is the
rest, on the test split.

demo: the rules that drew it are known (`tfrecords.sources.demo`). Who is inside a tent cannot be seen; a
company of two labels (clown and elephant, say) comes whole; by day five companies may be there, by night
two. Told is one label of the company that is there, on every picture with a tent: of its two the one that
the model emits first; then, apart, the one that it emits second. Either decides between the rivals, for no
label belongs to two companies. Judged is the exact match of all other labels, through the export, from
image bytes.

clothing (FOLDER/clothing, and MobileNetV2 with ImageNet weights; skipped without them): told is a label
that is known to be true. Each true label of each image is told in its turn, so that nothing is picked; each
image's rarest and its most frequent one, by training counts, are shown beside. To judge the rest, the told
label counts as unknown, with it told and without: it leaves truth, path and ranking before lists are cut.
The lists:

    exactly 3    the 3 other labels with the highest scores (`rank_labels`)
    path of 3    the first 3 others on the best path of 4 labels or more, which leaves room for the told one
    best path    all others on the best path

So both sides have equally long lists in the first two, but for labels unknown on a path. The targets are on
each true label in its turn. Beam 5 is the default; a beam of 10 shows what is lost by the search: among few
paths, some never come to a given label that is rare, or only at next to no probability.
"""

import argparse
import dataclasses
import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import Targets, mean, run, spread
from photographs import SHARED, build_records

from tfrecords.quiet import silence_native_stderr
from tfrecords.sources.demo import COMPANIES, DemoSource

BATCH = 64
K = 3
BEAM_SIZES = (5, 10)  # the default, and twice as wide
LIFT_POINTS = 10
LISTS = ("exactly 3", "path of 3", "best path")
EACH, RAREST, MOST_FREQUENT = "each true label", "the rarest", "the most frequent"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="holds clothing/")
    weights = SHARED / "weights" / "mobilenet_v2_imagenet_no_top.weights.h5"
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--demo-run", type=Path, help="a finished run; trained anew where not given")
    parser.add_argument("--clothing-run", type=Path, help="the same, with its records where it found them")
    options = parser.parse_args()
    with silence_native_stderr():
        import tensorflow  # noqa: F401
    targets = Targets()
    with tempfile.TemporaryDirectory() as folder:
        measure_demo(options, Path(folder), targets)
        for path in (options.data / "clothing", options.weights):
            if not path.exists() and options.clothing_run is None:
                print(f"clothing: skipped: {path} is not there; give --data and --weights")
                return targets.status
        measure_clothing(options, Path(folder), targets)
    return targets.status


# --- demo


def measure_demo(options: argparse.Namespace, folder: Path, targets: Targets) -> None:
    """Exact match of the rest on pictures with a tent, and the target on each of the two labels told."""
    runs = [options.demo_run] if options.demo_run else train(options, folder, "demo")
    found = [judge_demo(run_dir / "export") for run_dir in runs]
    print(f"demo, {found[0]['pictures']} pictures with a tent, exact match of the rest, seeds: {len(runs)}")
    for told in ("first", "second"):
        for part in ("all", "day", "night"):
            without, given = ([each[told, part, side] for each in found] for side in (False, True))
            print(f"    {told} label of the company, {part:<5}  {spread(without)} -> {spread(given)}")
        lifts = [each[told, "all", True] - each[told, "all", False] for each in found]
        targets.check(f"points of exact match, {told} label told", mean(lifts), at_least=LIFT_POINTS)


def judge_demo(export_dir: Path) -> dict:
    """{(which is told, which pictures, whether it is told): exact match in percent}, and `pictures`."""
    from cnnrnn_tf.serving.export import load_export

    loaded, demo = load_export(export_dir), DemoSource()
    annotations = [each for each in demo.annotations("test") if demo.view(each.image_id).tent]
    files = [demo.read_image(each) for each in annotations]
    truth = [set(each.labels) for each in annotations]
    is_night = np.array([demo.view(each.image_id).night for each in annotations])
    inside = set().union(*COMPANIES.values())
    companies = [sorted(labels & inside, key=loaded.vocabulary.names.index) for labels in truth]
    alone = tag(loaded, files, None)
    found = {"pictures": len(files)}
    for place, which in enumerate(("first", "second")):
        told = [company[place] for company in companies]
        for is_told, answers in ((False, alone), (True, tag(loaded, files, told))):
            rows = zip(answers, truth, told, strict=True)
            right = np.array([answer - {label} == labels - {label} for answer, labels, label in rows])
            for part, chosen in (("all", is_night | True), ("day", ~is_night), ("night", is_night)):
                found[which, part, is_told] = 100 * right[chosen].mean()
    return found


def tag(loaded, files: list[bytes], told: list[str] | None) -> list[set[str]]:
    """Each file's labels by an export, with one label told of each, or none."""
    import tensorflow as tf

    answers = []
    for start in range(0, len(files), BATCH):
        inputs = {"image_bytes": tf.constant(files[start : start + BATCH])}
        if told is not None:
            inputs["given"] = tf.constant(told[start : start + BATCH])
            inputs["absent"] = tf.fill(tf.shape(inputs["given"]), "")
        outputs = loaded.signatures["serving_default" if told is None else "tag_given"](**inputs)
        if not outputs["valid"].numpy().all():
            raise SystemExit(f"a good picture was refused: {set(outputs['error'].numpy())}")
        answers += [{name.decode() for name in row if name} for row in outputs["labels"].numpy()]
    return answers


# --- clothing


def measure_clothing(options: argparse.Namespace, folder: Path, targets: Targets) -> None:
    """O-F1 of the rest for each beam, label told and list; the targets are on each label told in its turn."""
    if options.clothing_run is None:
        build_records(options, "clothing", folder / "data")
        words = ("--backbone", "mobilenet_v2", "--backbone-weights", options.weights.resolve())
        runs = train(options, folder, "clothing", *words)
    else:
        runs = [options.clothing_run]
    for beam_size in BEAM_SIZES:
        found = [judge_clothing(run_dir, beam_size) for run_dir in runs]
        print(f"clothing, beam {beam_size}, O-F1 of the rest, seeds: {len(runs)}; without -> with one told")
        for told, lists in itertools.product((EACH, RAREST, MOST_FREQUENT), LISTS):
            without, given = (np.array([each[told, lists, side] for each in found]) for side in (False, True))
            print(
                f"    {told:<17} {lists}  {spread(without[:, 0])} -> {spread(given[:, 0])}   "
                f"labels a list {without[:, 1].mean():.2f} -> {given[:, 1].mean():.2f}",
                flush=True,
            )
        for lists in LISTS:
            gains = [each[EACH, lists, True][0] - each[EACH, lists, False][0] for each in found]
            targets.check(f"points of O-F1, beam {beam_size}, {EACH}, {lists}", mean(gains), at_least=0)


def judge_clothing(run_dir: Path, beam_size: int) -> dict:
    """{(which is told, lists, whether it is told): (O-F1 of the rest in percent, labels a list)}."""
    from cnnrnn_tf.data.records import load_labels
    from cnnrnn_tf.training.features import cached_features
    from cnnrnn_tf.training.runs import load_run

    run = load_run(run_dir)
    decoding = dataclasses.replace(run.config.decoding, beam_size=beam_size)
    dataset_dir = run.config.data.data_dir / run.config.data.dataset
    records = load_labels(dataset_dir, "test")
    features = np.asarray(cached_features(run.model.backbone, dataset_dir, "test"))
    truth = (records.labels != 0) & (records.known != 0)
    images, labels = np.nonzero(truth)  # one row a true label of an image, by id, so the most frequent first
    is_first, is_last = np.diff(images, prepend=-1) > 0, np.diff(images, append=len(truth)) > 0
    told = np.eye(truth.shape[1], dtype=bool)[labels]  # [rows, labels]
    known = (records.known[images] != 0) & ~told
    found = {}
    for is_told in (False, True):
        given = told if is_told else None
        lists = cut_lists(run.model, decoding, features[images], given, records.labels[images], known)
        for which, rows in ((EACH, is_first | True), (RAREST, is_last), (MOST_FREQUENT, is_first)):
            for name, sets in lists.items():
                found[which, name, is_told] = score(sets[rows], truth[images][rows], known[rows])
    return found


def cut_lists(model, decoding, features, told, labels, known) -> dict[str, np.ndarray]:
    """The lists of the rest, `<uint8>[rows, labels]` each: see the beginning of this file."""
    import tensorflow as tf

    from cnnrnn_tf.evaluation.label_sets import cut_sets
    from cnnrnn_tf.evaluation.predictions import Predictions
    from cnnrnn_tf.model.beam_search import rank_labels

    @tf.function(autograph=False, reduce_retracing=True)
    def search(features, given, min_length):
        found = model.decode(
            features,
            given=given,
            beam_size=decoding.beam_size,
            min_length=min_length,
            max_length=decoding.max_length or None,
            renormalise=decoding.renormalise,
            length_penalty=decoding.length_penalty,
        )
        return found.tokens[:, 0], found.lengths[:, 0], found.log_probs[:, 0], rank_labels(found)

    def predict(min_length):
        parts = []
        for start in range(0, len(features), BATCH):
            rows = slice(start, start + BATCH)
            given = None if told is None else tf.constant(told[rows])
            parts.append([part.numpy() for part in search(features[rows], given, tf.constant(min_length))])
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Predictions([str(row) for row in range(len(features))], labels, known, *columns)

    free, long = predict(decoding.min_length), predict(K + 1)
    by_score = cut_sets(free.scores, known, k=K)
    return dict(zip(LISTS, (by_score, long.path_sets(K), free.path_sets()), strict=True))


def score(sets: np.ndarray, truth: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """O-F1 in percent over the known cells, and labels a list."""
    truth, sets = truth & known, (sets != 0) & known
    return 200 * (truth & sets).sum() / (truth.sum() + sets.sum()), sets.sum() / len(sets)


def train(options: argparse.Namespace, folder: Path, dataset: str, *words: str | Path) -> list[Path]:
    """Trains a run a seed; returns their folders."""
    found = []
    for seed in range(options.seeds):
        done = run(
            *("train.py", "--dataset", dataset, "--seed", str(seed), "--run-name", str(seed), *words),
            *("--data-dir", folder / "data", "--runs-dir", folder / "runs"),
        )
        print(f"{dataset}, seed {seed}: trained in {done.wall_s:.0f} s", flush=True)
        found.append(folder / "runs" / dataset / str(seed))
    return found


if __name__ == "__main__":
    sys.exit(main())
