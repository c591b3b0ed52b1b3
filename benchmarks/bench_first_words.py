"""How long each command is silent: until its first word, until it says how far it is, and at most.

    python benchmarks/bench_first_words.py                  some ten minutes
    python benchmarks/bench_first_words.py --of FOLDER      the same of another checkout, to compare

Every command runs as a whole, on the demo, its output in pipes. The import of TensorFlow is announced, and is
the one silence that may be longer than three seconds. It is measured in the same run, as is what else the
machine does. Mistakes are to be told before it: the best of three runs counts.
"""

from __future__ import annotations

import argparse
import itertools
import os
import selectors
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from measure import ROOT, Targets

SILENCE_S = 3.0
MISTAKE_S = 0.5
NOISE = 1.5  # what else the machine does may come while TensorFlow is loaded
EPOCHS = 3
NUM_PHOTOS = 500
# What says that a command has begun, and not how far it is.
ANNOUNCEMENTS = (b"loading ",)


@dataclass(frozen=True)
class Heard:
    """When a command spoke, in seconds from its start."""

    first_s: float
    progress_s: float
    silence_s: float
    wall_s: float
    status: int
    text: str


def listen(words: list[str], folder: Path, root: Path) -> Heard:
    """Runs `python WORDS...` in `folder` and notes when something comes out of it."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    times, chunks = [0.0], []
    first_s = progress_s = None
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                    continue
                now = time.perf_counter() - start
                times.append(now)
                chunks.append(chunk)
                first_s = now if first_s is None else first_s
                if progress_s is None and not chunk.startswith(ANNOUNCEMENTS):
                    progress_s = now
    status = process.wait()
    times.append(time.perf_counter() - start)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    text = b"".join(chunks).decode(errors="replace")
    return Heard(first_s or times[-1], progress_s or times[-1], max(gaps), times[-1], status, text)


def write_photos(dataset: Path, folder: Path) -> None:
    """Writes the demo's test images as files."""
    from tfrecords.framing import read_records
    from tfrecords.manifest import Manifest
    from tfrecords.schema import decode

    folder.mkdir()
    for path in Manifest.load(dataset).shard_paths(dataset, "test"):
        for number, record in read_records(path):
            values = decode(record)
            name = f"{Path(path).stem}-{number}.{values['image/format'].lower()}"
            (folder / name).write_bytes(values["image/encoded"])


def list_commands(train: str) -> list[tuple[str, list[str]]]:
    """(what it is, its words), in an order in which each finds what it needs."""
    tool, run = ["-m", "cnnrnn_tf.commands"], "runs/demo/first"
    demo, epochs = [train, "--dataset", "demo"], ["--epochs", str(EPOCHS)]
    frozen = ["--backbone", "mobilenet_v2", "--backbone-weights", "none", "--image-size", "96"]
    return [
        ("tfrecords build demo", ["-m", "tfrecords", "build", "demo"]),
        ("tfrecords report", ["-m", "tfrecords", "report", "demo"]),
        ("tfrecords report --json", ["-m", "tfrecords", "report", "demo", "--json", "--no-figures"]),
        ("tfrecords verify", ["-m", "tfrecords", "verify", "demo"]),
        ("train.py", [*demo, "--run-name", "first", *epochs]),
        ("train.py, frozen CNN", [*demo, "--run-name", "frozen", *epochs, *frozen]),
        ("predict RUN, 500 images", [*tool, "predict", run, "photos"]),
        ("predict EXPORT --json", [*tool, "predict", f"{run}/export", "photos", "--json"]),
        ("tag", [*tool, "tag", "photos", "--model", f"{run}/export", "--out", "tags.jsonl"]),
        (
            "tag --runner",
            [
                *tool,
                *("tag", "photos", "--model", f"{run}/export", "--out", "tags", "--runner", "DirectRunner"),
            ],
        ),
        ("evaluate", [*tool, "evaluate", run]),
        ("evaluate --protocol all", [*tool, "evaluate", run, "--protocol", "all"]),
        ("export", [*tool, "export", run]),
        ("check", [*tool, "check", f"{run}/export"]),
        ("check --json", [*tool, "check", f"{run}/export", "--json"]),
        (
            "compare",
            [
                *tool,
                *("compare", "--dataset", "demo", "--config", "quick.json", "--seeds", "1"),
                *("--methods", "cnn-rnn,no-rnn,softmax,bce,svm,knn,max-pooling"),
            ],
        ),
        ("audit --published", [*tool, "audit", "--published"]),
    ]


def list_mistakes(train: str) -> list[tuple[str, list[str]]]:
    """(what is wrong, the words); each is told in one line, with status 2."""
    tool, run = ["-m", "cnnrnn_tf.commands"], "runs/demo/first"
    demo, export = [train, "--dataset", "demo"], f"{run}/export"
    return [
        ("train.py, a data set that is not built", [train, "--dataset", "ponds"]),
        ("train.py, a backbone misspelt", [*demo, "--backbone", "mobilnet_v2"]),
        ("train.py, a cell misspelt", [*demo, "--cell", "lstn"]),
        ("train.py, a protocol misspelt", [*demo, "--protocol", "cnnrnn"]),
        ("train.py, a run that exists", [*demo, "--run-name", "first"]),
        ("train.py, an unwritable --runs-dir", [*demo, "--runs-dir", "quick.json"]),
        ("train.py, no such weights", [*demo, "--backbone", "vgg16", "--backbone-weights", "none.h5"]),
        ("train.py --resume of no run", [train, "--resume", "runs/demo/none"]),
        ("train.py --resume of a finished run", [train, "--resume", run]),
        ("predict, no such run", [*tool, "predict", "runs/demo/none", "photos"]),
        ("predict, no such photo", [*tool, "predict", run, "none.jpg"]),
        ("predict, an unknown label given", [*tool, "predict", run, "photos", "--given", "skie"]),
        ("predict EXPORT, an unknown label given", [*tool, "predict", export, "photos", "--given", "skie"]),
        ("predict --save-grid nowhere", [*tool, "predict", run, "photos", "--save-grid", "quick.json/a.png"]),
        ("tag, no such model", [*tool, "tag", "photos", "--model", "none", "--out", "new.jsonl"]),
        (
            "tag, an unknown label given",
            [*tool, "tag", "photos", "--model", export, "--out", "new.jsonl", "--given", "skie"],
        ),
        (
            "tag, --out that is not its own",
            [*tool, "tag", "photos", "--model", export, "--out", "quick.json"],
        ),
        ("evaluate, no such run", [*tool, "evaluate", "runs/demo/none"]),
        ("evaluate, a split misspelt", [*tool, "evaluate", run, "--split", "tset"]),
        ("evaluate, a protocol misspelt", [*tool, "evaluate", run, "--protocol", "mlgcn"]),
        ("evaluate, no such predictions", [*tool, "evaluate", "--predictions", "none.jsonl"]),
        ("export, no such run", [*tool, "export", "runs/demo/none"]),
        ("check, no such export", [*tool, "check", "runs/demo/none"]),
        ("check, no such image", [*tool, "check", export, "--images", "none.jpg"]),
        ("compare, a method misspelt", [*tool, "compare", "--dataset", "demo", "--methods", "sofmax"]),
        ("compare, a data set that is not built", [*tool, "compare", "--dataset", "ponds"]),
        ("client, no such photo", [*tool, "client", "none.jpg"]),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--of", type=Path, default=ROOT, help="the checkout to measure")
    parser.add_argument("--only", default="", help="only what has this in its name, and what comes before it")
    options = parser.parse_args()
    root, targets = options.of.resolve(), Targets()
    train = str(root / "train.py")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "quick.json").write_text(f'{{"training": {{"epochs": {EPOCHS}}}}}')
        load_s = max(listen(["-c", "import tensorflow"], folder, root).wall_s for _ in range(3))
        limit_s = max(SILENCE_S, NOISE * load_s)
        print(f"`import tensorflow` alone: {load_s:.1f} s")
        print(f"{'':<28}{'first':>9}{'progress':>10}{'silence':>10}{'all':>9}", flush=True)
        for what, words in list_commands(train):
            heard = listen(words, folder, root)
            print(
                f"{what:<28}{heard.first_s:>7.1f} s{heard.progress_s:>8.1f} s{heard.silence_s:>8.1f} s"
                f"{heard.wall_s:>7.1f} s",
                flush=True,
            )
            if heard.status not in (0, 1):
                print(heard.text[-2000:])
            targets.check(f"longest silence of {what}", heard.silence_s, at_most=limit_s)
            if what == "tfrecords build demo":
                write_photos(folder / "data" / "demo", folder / "photos")
        for what, words in list_mistakes(train):
            told = [listen(words, folder, root) for _ in range(3)]
            lines = told[0].text.strip().splitlines()
            if told[0].status != 2 or len([line for line in lines if line.startswith("error: ")]) != 1:
                print(f"  status {told[0].status}: {told[0].text[-500:]}")
            targets.check(f"seconds to tell: {what}", min(each.wall_s for each in told), at_most=MISTAKE_S)
    return targets.status


if __name__ == "__main__":
    sys.exit(main())
