"""`cnnrnn tag` on a folder: images a second beside the model's bare loop, and memory on folders of two sizes.

    python benchmarks/bench_tag.py [--images FOLDER]

The bare loop calls the export's signature on batches whose files are in memory already, one after the other;
both are timed in turn, and the command's own seconds are counted from the model's loading on. Photographs of
FOLDER are linked until there are enough; without one, pictures are drawn. Weights are random: speed and
memory do not depend on them.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import ROOT, Targets, mean, run, spread
from photographs import SHARED
from PIL import Image

REPEATS = 3
BACKBONES = {"compact": 4000, "mobilenet_v2": 500, "vgg16": 128}  # images that take some seconds
LOWEST_RATIO = 0.95  # of the bare loop's images a second
FOLDERS = (1_000, 20_000)
MOST_GROWTH = 1.1  # memory of the larger folder, beside the smaller

_EXPORT = """
import sys
from cnnrnn_tf.config import DecodingConfig
from cnnrnn_tf.model.cnn_rnn import CNNRNN
from cnnrnn_tf.serving.export import export
from tfrecords.vocabulary import LabelVocabulary

backbone, out = sys.argv[1:]
vocabulary = LabelVocabulary.from_counts({f"label{i}": 100 - i for i in range(81)})
model = CNNRNN(81, 12, backbone=backbone, image_size=96 if backbone == "compact" else 224,
               vocabulary_fingerprint=vocabulary.fingerprint)
model.build()
export(model, vocabulary, DecodingConfig(beam_size=5, max_length=12), out)
"""

_BARE_LOOP = """
import itertools, pathlib, sys, time
import tensorflow as tf
from cnnrnn_tf.serving.export import load_export

export = load_export(sys.argv[1])
files = iter([path.read_bytes() for path in sorted(pathlib.Path(sys.argv[2]).iterdir())])
batches = list(iter(lambda: list(itertools.islice(files, 32)), []))
tag = export.signatures["serving_default"]
start = time.perf_counter()
for batch in batches:
    tag(image_bytes=tf.constant(batch))["labels"].numpy()
print(sum(map(len, batches)) / (time.perf_counter() - start))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=Path, default=SHARED / "data" / "clothing" / "images")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    options = parser.parse_args()
    targets = Targets()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = find_photographs(options.images) or draw_photographs(folder / "drawn")
        for backbone in options.backbones:
            run("-c", _EXPORT, backbone, folder / backbone)
            compare_speed(targets, backbone, folder, sources)
        if "compact" in options.backbones:
            compare_memory(targets, folder, sources)
    return targets.status


def compare_speed(targets: Targets, backbone: str, folder: Path, sources: list[Path]) -> None:
    """Images a second of the command and of the bare loop, in turn."""
    num_images = BACKBONES[backbone]
    photos = link(sources, folder / f"{backbone}-photos", num_images)
    bare, tagged = [], []
    for _ in range(REPEATS):
        bare.append(float(read_output("-c", _BARE_LOOP, folder / backbone, photos).split()[-1]))
        out = read_output(*words(photos, folder / backbone, folder / "tags.jsonl"))
        tagged.append(float(re.search(r"([\d.]+) a second", out)[1]))
    print(
        f"{backbone}, {num_images:,} images: bare loop {spread(bare)}, cnnrnn tag {spread(tagged)} a second"
    )
    targets.check(f"{backbone}: cnnrnn tag / bare loop", mean(tagged) / mean(bare), at_least=LOWEST_RATIO)


def compare_memory(targets: Targets, folder: Path, sources: list[Path]) -> None:
    """The most memory of the command on a small folder and on a large one."""
    peaks = []
    for num_images in FOLDERS:
        photos = link(sources, folder / f"photos-{num_images}", num_images)
        done = run(*words(photos, folder / "compact", folder / "tags.jsonl"))
        peaks.append(done.peak_gib)
        print(f"{num_images:,} images: {done.peak_gib:.3f} GiB, {done.wall_s:.0f} s", flush=True)
        with (folder / "tags.jsonl").open(encoding="utf-8") as file:
            num_good = sum(not json.loads(line)["error"] for line in file)
        targets.check(f"images tagged of {num_images:,}", num_good, at_least=num_images)
    targets.check(
        f"memory at {FOLDERS[1]:,} / {FOLDERS[0]:,} images", peaks[1] / peaks[0], at_most=MOST_GROWTH
    )


def words(photos: Path, export: Path, out: Path) -> list[str | Path]:
    """The command, after `python`."""
    return ["-m", "cnnrnn_tf.commands", "tag", photos, "--model", export, "--out", out, "--overwrite"]


def read_output(*arguments: str | Path) -> str:
    """What `python ARGUMENTS...` prints."""
    ended = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise SystemExit(f"{arguments} ended with status {ended.returncode}:\n{ended.stderr[-3000:]}")
    return ended.stdout


def find_photographs(folder: Path) -> list[Path]:
    """The JPEGs directly in a folder; none where it is missing."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path.resolve() for path in found if path.suffix.lower() == ".jpg"]


def draw_photographs(folder: Path) -> list[Path]:
    """100 smooth pictures of 500 x 375 px."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(100):
        blobs = Image.fromarray(rng.integers(0, 256, [12, 16, 3], np.uint8))
        blobs.resize((500, 375), Image.BICUBIC).save(folder / f"{i}.jpg")
    return sorted(folder.iterdir())


def link(sources: list[Path], folder: Path, num_images: int) -> Path:
    """A folder of links to photographs, each as often as it takes."""
    folder.mkdir()
    for number, source in enumerate(itertools.islice(itertools.cycle(sources), num_images)):
        (folder / f"{number:07}{source.suffix}").symlink_to(source)
    return folder


if __name__ == "__main__":
    sys.exit(main())
