"""3,000 damaged image files through every command: one verdict on each, and no crash.

    python benchmarks/bench_damaged.py [--count 3000] [--photographs FOLDER] [--keep FOLDER]

Files of five formats are damaged as disks and networks damage them: a bit is flipped, a sector of 512 bytes
is all ones, all zeros, another file's or gone, 1 to 4 bytes are missing at the end, or some are added there.
They go, among good ones, through `build`, `build --decode`, `verify`, training, `predict`, `tag` and the
export by TensorFlow's C API, each in a process of its own. The verdicts stand side by side. A target is
missed by any crash or traceback, and by any file on which `build --decode`, `verify`, training, predict, tag
and the export disagree.
"""

import argparse
import collections
import csv
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import ROOT, Targets

SEED, SECTOR = 14, 512
FORMATS = {"jpeg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP"}
NUM_GOOD = 60  # without which an unlucky split might be empty
NUM_SHOWN = 10
TIMEOUT_S = 3600
JUDGES = ("build", "build --decode", "verify", "train", "predict", "tag", "C API")
PEERS = JUDGES[1:]  # who must agree; the default build copies JPEGs undecoded and asks Pillow of others

# The command cuts its list. In one process, so that the longer list holds: a crash ends that one.
_VERIFY = """
import sys
from tfrecords import verify
verify._MAX_PROBLEMS_PER_SHARD = 10**9
print(*verify.verify(sys.argv[1], workers=1).problems, sep="\\n")
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="damaged files")
    parser.add_argument(
        "--photographs", type=Path, help="folder of pictures to damage, in place of drawn ones"
    )
    parser.add_argument("--keep", type=Path, help="folder for all files, which is kept")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)).absolute()
        (folder / "images").mkdir(parents=True)
        names = write_files(folder, options.count, options.photographs)
        return measure(folder, names)


def measure(folder: Path, names: list[str]) -> int:
    targets, commands = Targets(), Commands(folder)
    build = [
        "-m",
        "tfrecords",
        "build",
        "table",
        "--from",
        "t.csv",
        "--images",
        "images",
        "--data-dir",
        "data",
    ]
    train = [ROOT / "train.py", "--data-dir", "data", "--runs-dir", "runs", "--backbone", "compact"]
    train += ["--image-size", "32", "--epochs", "1", "--batch-size", "32", "--run-name", "one"]
    said: dict[str, dict[str, str]] = {}
    commands.run("build", 0, *build, "--name", "fast")
    said["build"] = read_skips(folder / "data" / "fast")
    commands.run("build --decode", 0, *build, "--name", "slow", "--decode")
    said["build --decode"] = read_skips(folder / "data" / "slow")
    said["verify"] = said["build"] | read_problems(commands.run("verify", 0, "-c", _VERIFY, "data/fast"))
    commands.run("verify, of --decode", 0, "-m", "tfrecords", "verify", "slow", "--data-dir", "data")
    commands.run("train", 0, *train, "--dataset", "fast")
    said["train"] = said["build"] | read_undecodable(folder / "data" / "fast")
    (folder / "data" / "slow" / "undecodable.json").unlink()  # of the build: let training look itself
    commands.run("train, of --decode", 0, *train, "--dataset", "slow")
    trained_without = read_undecodable(folder / "data" / "slow")
    run_dir = folder / "runs" / "slow" / "one"
    cli = ["-m", "cnnrnn_tf.commands"]
    lines = commands.run("predict", 1, *cli, "predict", run_dir, "images", "--json").splitlines()
    said["predict"] = read_rows(lines)
    commands.run("tag", 1, *cli, "tag", "images", "--model", run_dir / "export", "--out", "tags.jsonl")
    said["tag"] = read_rows((folder / "tags.jsonl").read_text(encoding="utf-8").splitlines())
    said["C API"] = ask_c_api(run_dir / "export" / "1", folder, names)

    show(said, names)
    others = [name for name in names if disagree(name, said)]
    late = [name for name in names if name in said["tag"] and name not in said["build"]]
    strict = [name for name in names if name in said["build"] and name not in said["tag"]]
    print(f"{len(late)} of {len(names)} pass the default build and do not decode: training leaves them out")
    print(f"{len(strict)} are skipped by the default build though TensorFlow decodes them")
    for name in others[:NUM_SHOWN]:
        print(f"  {name}: " + ", ".join(f"{judge}: {said[judge].get(name, 'good')}" for judge in PEERS))
    targets.check("crashes and tracebacks", commands.num_crashes, at_most=0)
    targets.check("images of build --decode that do not train", len(trained_without), at_most=0)
    targets.check("files on which the commands disagree", len(others), at_most=0)
    targets.check(
        "good files refused", sum("-good" in name for each in said.values() for name in each), at_most=0
    )
    return targets.status


def disagree(name: str, said: dict[str, dict[str, str]]) -> bool:
    """Whether the judges of a file differ; `verify` and training never see what the build has skipped."""
    judges = [judge for judge in PEERS if judge not in ("verify", "train") or name not in said["build"]]
    return len({name in said[judge] for judge in judges}) > 1


class Commands:
    """Runs commands in a folder, and counts those that end by a signal, a traceback or another status."""

    def __init__(self, folder: Path):
        self._folder, self.num_crashes = folder, 0

    def run(self, title: str, status: int, *words: str | Path) -> str:
        """Returns what a command printed; it should end with `status`."""
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
        crashed = done.returncode != status or "Traceback (most recent" in done.stdout + done.stderr
        self.num_crashes += crashed
        print(f"{title}: exit status {done.returncode}", flush=True)
        if crashed:
            print(done.stdout[-1500:], done.stderr[-3000:], sep="\n")
        return done.stdout


# ---- files


def write_files(folder: Path, count: int, photographs: Path | None) -> list[str]:
    """Writes the files and the table that labels them, and returns their names."""
    rng = random.Random(SEED)
    names = []
    for i in range(count):
        file_format, fault = list(FORMATS)[i % len(FORMATS)], list(FAULTS)[i // len(FORMATS) % len(FAULTS)]
        data, other = (encode(file_format, draw(seed, photographs)) for seed in (i, i + 1))
        names.append(f"{i:05}-{file_format}-{fault.replace(' ', '_')}.{file_format}")
        (folder / "images" / names[-1]).write_bytes(FAULTS[fault](rng, data, other))
    for i in range(NUM_GOOD):
        file_format = list(FORMATS)[i % len(FORMATS)]
        names.append(f"{count + i:05}-{file_format}-good.{file_format}")
        (folder / "images" / names[-1]).write_bytes(encode(file_format, draw(count + i, photographs)))
    with (folder / "t.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "labels"])
        rows.writerows([name, ("sky", "sea", "sky;sea")[i % 3]] for i, name in enumerate(names))
    return names


def draw(seed: int, photographs: Path | None):
    from malformed import draw_photograph
    from PIL import Image, ImageOps

    if photographs is None:
        return draw_photograph(150 + seed % 40, 200, seed=seed)
    found = sorted(path for path in photographs.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    with Image.open(found[seed % len(found)]) as image:
        picture = ImageOps.exif_transpose(image.convert("RGB"))
    picture.thumbnail((320, 320))
    return picture


def encode(file_format: str, picture) -> bytes:
    file = io.BytesIO()
    picture = picture.quantize(64) if file_format == "gif" else picture
    picture.save(file, FORMATS[file_format])
    return file.getvalue()


def flip_bit(rng, data, other):
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def replace_sector(rng, data, content):
    start = rng.randrange(0, len(data), SECTOR)
    return data[:start] + content(start, len(data[start : start + SECTOR])) + data[start + SECTOR :]


FAULTS = {
    "a bit": flip_bit,
    "a sector of FF": lambda rng, data, other: replace_sector(rng, data, lambda _, size: b"\xff" * size),
    "a sector of zeros": lambda rng, data, other: replace_sector(rng, data, lambda _, size: bytes(size)),
    "another file's sector": lambda rng, data, other: replace_sector(
        rng, data, lambda start, size: other[start : start + size].ljust(size, b"\0")
    ),
    "a sector missing": lambda rng, data, other: replace_sector(rng, data, lambda _, size: b""),
    "bytes short": lambda rng, data, other: data[: -rng.randint(1, 4)],
    "bytes behind": lambda rng, data, other: data + rng.randbytes(rng.randint(1, 600)),
}


# ---- verdicts: {file name: why not}


def read_skips(dataset_dir: Path) -> dict[str, str]:
    with (dataset_dir / "skipped.csv").open(newline="", encoding="utf-8") as file:
        return {row["image_id"]: row["reason"] for row in csv.DictReader(file)}


def read_problems(output: str) -> dict[str, str]:
    """`train-00000-of-00001.tfrecord record 3 (ID): what is wrong`, a line each."""
    lines = [
        line.partition(" (")[2].partition("): ")
        for line in output.splitlines()
        if ".tfrecord record " in line
    ]
    return {name: reason for name, _, reason in lines}


def read_undecodable(dataset_dir: Path) -> dict[str, str]:
    content = json.loads((dataset_dir / "undecodable.json").read_text())
    return {image["image_id"]: image["reason"] for image in content["images"]}


def read_rows(lines: list[str]) -> dict[str, str]:
    rows = map(json.loads, lines)
    return {Path(row["image"]).name: row["error"] for row in rows if row["error"]}


def ask_c_api(export_dir: Path, folder: Path, names: list[str]) -> dict[str, str]:
    import numpy as np

    from cnnrnn_tf.serving.fresh_process import C_API, run_calls

    files = [(folder / "images" / name).read_bytes() for name in names]
    batches = [files[i : i + 32] for i in range(0, len(files), 32)]
    calls = [("serving_default", {"image_bytes": np.array(batch, object)}) for batch in batches]
    answers = run_calls(C_API, export_dir, calls, timeout_s=TIMEOUT_S)["calls"]
    errors = [error.decode() for answer in answers for error in answer["error"]]
    return {name: error for name, error in zip(names, errors, strict=True) if error}


def show(said: dict[str, dict[str, str]], names: list[str]) -> None:
    """Prints how many files of each format and fault every judge takes."""
    taken: dict[tuple[str, str], collections.Counter] = collections.defaultdict(collections.Counter)
    for name in names:
        _, file_format, fault = name.rsplit(".", 1)[0].split("-", 2)
        kind = taken[fault.replace("_", " "), file_format]
        kind["files"] += 1
        kind.update(judge for judge in JUDGES if name not in said[judge])
    columns = ("files", *JUDGES)
    print(f"\n{'good by the verdict of':<30}" + "".join(f"{column:>16}" for column in columns))
    for (fault, file_format), counts in sorted(taken.items()):
        print(f"{fault:<24}{file_format:<6}" + "".join(f"{counts[column]:>16}" for column in columns))
    total = sum(taken.values(), collections.Counter())
    print(f"{'all':<30}" + "".join(f"{total[column]:>16}" for column in columns) + "\n")


if __name__ == "__main__":
    sys.exit(main())
