"""JPEGs on a disk enter; how fast and in how much memory they become records, beside tar, leaves.

    python benchmarks/bench_build.py

Copying originals is held against the simplest copy that there is: tar writes the same files into one archive,
in the same run, in turns with the build. All is on one disk, in the system's folder for temporary files or in
--folder; it needs 9 GB there and some three minutes. The files are in the page cache: no disk is measured.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import Measured, Targets, run, run_command
from PIL import Image, ImageFilter

NUM_FILES = 40_000  # of the size of a photograph of VOC
NUM_LINKS = (100_000, 200_000)  # names of a few small files
ROUNDS = 3


def draw_jpeg(size: tuple[int, int], seed: int) -> bytes:
    """Soft noise, which compresses about as a photograph does."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.9)).save(file, "JPEG", quality=85)
    return file.getvalue()


def write_files(folder: Path, count: int) -> Path:
    """`count` photographs in folders of a thousand, and the table that lists them."""
    pictures = [draw_jpeg((500, 375), seed) for seed in range(20)]
    for i in range(count):
        path = folder / "images" / f"{i // 1000:03d}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[i % len(pictures)])
    return write_table(folder, count)


def link_files(folder: Path, count: int) -> Path:
    """`count` names of a few small pictures, and the table that lists them."""
    (folder / "originals").mkdir(parents=True)
    for i in range(count):
        original = folder / "originals" / f"{i // 30_000}.jpg"
        if i % 30_000 == 0:
            original.write_bytes(draw_jpeg((96, 72), i))
        path = folder / "images" / f"{i // 1000:03d}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(original, path)
    return write_table(folder, count)


def write_table(folder: Path, count: int) -> Path:
    path = folder / "labels.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("image,labels,split\n")
        for i in range(count):
            split = "test" if i % 5 == 0 else "train"
            file.write(f"{i // 1000:03d}/{i:06d}.jpg,sky;label{i % 80},{split}\n")
    return path


def build(table: Path, workers: int) -> Measured:
    """Builds the table beside it, into a folder that is removed again."""
    data_dir = table.parent / "data"
    measured = run(
        *("-m", "tfrecords", "build", "table", "--from", table, "--images", table.parent / "images"),
        *("--name", "bench", "--data-dir", data_dir, "--workers", str(workers)),
    )
    shutil.rmtree(data_dir)
    os.sync()
    return measured


def pack(folder: Path) -> Measured:
    """Packs the images with tar, into a file that is removed again."""
    archive = folder / "images.tar"
    measured = run_command("tar", "--create", "--file", archive, "--directory", folder, "images")
    archive.unlink()
    os.sync()
    return measured


def compare_with_tar(folder: Path, targets: Targets) -> None:
    table = write_files(folder, NUM_FILES)
    num_bytes = sum(path.stat().st_size for path in (folder / "images").glob("*/*.jpg"))
    os.sync()
    print(f"{NUM_FILES:,} files of {num_bytes / NUM_FILES / 1e3:.0f} kB, best of {ROUNDS} rounds")
    rounds = [(pack(folder), build(table, 2), build(table, 1)) for _ in range(ROUNDS)]
    tar_s, two_s, one_s = (min(each.wall_s for each in column) for column in zip(*rounds, strict=True))
    for name, seconds in (("tar", tar_s), ("two workers", two_s), ("one worker", one_s)):
        rates = f"{num_bytes / seconds / 1e6:7.0f} MB/s {NUM_FILES / seconds:9,.0f} images/s"
        print(f"  {name:<12} {seconds:6.2f} s {rates}")
    targets.check("two workers to tar, rate", tar_s / two_s, at_least=0.7)
    targets.check("two workers to one, rate", one_s / two_s, at_least=1.6)


def compare_sizes(folder: Path, targets: Targets) -> None:
    print("the same small pictures under many names, two workers")
    found = []
    for count in NUM_LINKS:
        table = link_files(folder / str(count), count)
        os.sync()
        best = min((build(table, 2) for _ in range(2)), key=lambda each: each.wall_s)
        found.append(best)
        print(
            f"  {count:,} images {best.wall_s:6.2f} s {count / best.wall_s:9,.0f} images/s; largest process "
            f"{best.peak_gib:.3f} GiB, all together {best.total_gib:.3f} GiB"
        )
    small, large = found
    rate = (NUM_LINKS[1] / large.wall_s) / (NUM_LINKS[0] / small.wall_s)
    targets.check("rate of twice the images", rate, at_least=0.9)
    targets.check("memory of twice the images", large.total_gib / small.total_gib, at_most=1.1)
    targets.check("memory of all processes (GiB)", large.total_gib, at_most=1.5e9 / 2**30)


def read_labels(folder: Path, targets: Targets) -> None:
    """The label files of NUS-WIDE, in their number and size, of random labels."""
    from tfrecords.sources.nuswide import NusWide81

    names = [f"concept{i:02d}" for i in range(81)]
    labels = folder / "Groundtruth" / "TrainTestLabels"
    for path in (labels, folder / "ImageList", folder / "ConceptsList", folder / "Flickr"):
        path.mkdir(parents=True)
    (folder / "ConceptsList" / "Concepts81.txt").write_text("\n".join(names))
    draws = np.random.default_rng(0)
    for word, count in (("Train", 161_789), ("Test", 107_859)):
        images = "".join(f"{word}\\{i:04d}_{i:09d}.jpg\n" for i in range(count))
        (folder / "ImageList" / f"{word}Imagelist.txt").write_text(images)
        for name in names:
            flags = np.where(draws.random(count) < 0.023, b"1\n", b"0\n")
            (labels / f"Labels_{name}_{word}.txt").write_bytes(flags.tobytes())
    best_s = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        num_images = sum(1 for _ in NusWide81(folder).items())
        best_s = min(best_s, time.perf_counter() - start)
    print(f"the labels of {num_images:,} images in the layout of NUS-WIDE")
    targets.check("seconds to read them", best_s, at_most=5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, help="where to write; the system's temporary folder by default"
    )
    options = parser.parse_args()
    targets = Targets()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench_build_") as folder:
        compare_with_tar(Path(folder) / "files", targets)
        shutil.rmtree(Path(folder) / "files")
        compare_sizes(Path(folder) / "links", targets)
        read_labels(Path(folder) / "NUS-WIDE", targets)
    return targets.status


if __name__ == "__main__":
    sys.exit(main())
