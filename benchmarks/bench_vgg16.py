"""Time and memory of the paper's CNN: VGG16 at 224 px through training, export and tagging.

    python benchmarks/bench_vgg16.py [--images FOLDER]

The weights are random, which costs what real ones cost. Without a folder of photographs the demo's pictures,
enlarged to 400 px, stand in for them.
"""

import argparse
import csv
import io
import sys
import tempfile
from pathlib import Path

from measure import Targets, run

NUM_TRAIN, NUM_TEST = 160, 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with 200 photographs or more")
    options = parser.parse_args()
    targets = Targets()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs = folder / "photographs"
        photographs.mkdir()
        save_photographs(options.images, photographs)
        run(
            *("-m", "tfrecords", "build", "table", "--from", photographs / "labels.csv"),
            *("--name", "photographs", "--data-dir", folder / "data"),
        )
        runs, run_dir = folder / "runs", folder / "runs" / "photographs" / "vgg16"
        steps = {
            "train": (
                *(
                    "train.py",
                    "--dataset",
                    "photographs",
                    "--backbone",
                    "vgg16",
                    "--backbone-weights",
                    "none",
                ),
                *("--epochs", "3", "--data-dir", folder / "data", "--runs-dir", runs, "--run-name", "vgg16"),
            ),
            "export": ("-m", "cnnrnn_tf.commands", "export", run_dir),
            "predict": ("-m", "cnnrnn_tf.commands", "predict", run_dir / "export", photographs),
        }
        for step, words in steps.items():
            done = run(*words)
            print(f"{step}: {done.wall_s:.0f} s", flush=True)
            targets.check(f"GB at most at once, {step}", done.peak_gib * 1.073741824, at_most=6)
    return targets.status


def save_photographs(source: Path | None, folder: Path) -> None:
    """Writes the photographs and a table that gives them labels by turns."""
    if source is None:
        files = draw_photographs()
    else:
        files = [path.read_bytes() for path in sorted(source.glob("*.jpg"))[: NUM_TRAIN + NUM_TEST]]
        if len(files) < NUM_TRAIN + NUM_TEST:
            raise SystemExit(f"{source}: expected {NUM_TRAIN + NUM_TEST} files *.jpg, found {len(files)}")
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "labels", "split"])
        for i, encoded in enumerate(files):
            (folder / f"{i}.jpg").write_bytes(encoded)
            labels = [label for bit, label in enumerate(("sky", "sea", "sun")) if i >> bit & 1]
            table.writerow([f"{i}.jpg", ";".join(labels), "train" if i < NUM_TRAIN else "test"])


def draw_photographs() -> list[bytes]:
    from PIL import Image

    from tfrecords.sources.demo import DemoSource

    demo, files = DemoSource(), []
    for annotation, _ in zip(demo.annotations("train"), range(NUM_TRAIN + NUM_TEST), strict=False):
        picture = Image.open(io.BytesIO(demo.read_image(annotation))).resize((400, 400))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=92)
        files.append(file.getvalue())
    return files


if __name__ == "__main__":
    sys.exit(main())
