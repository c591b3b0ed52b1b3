"""10,000 malformed files among good ones: what is told of each, and what they cost.

    python benchmarks/bench_malformed.py [--count 10000]

Through the C API: the export of a small model is loaded by a process that never imports TensorFlow's Python.
It is sent batches of 32 rows: 24 malformed files, four of them in all just below the limit on pixels, and 8
good ones. The answers of the good rows are compared with those of the same rows among other good ones. Their
pixels are equal to the bit (tests/test_malformed.py). Their probabilities are not quite, whatever is beside
them: TensorFlow's logarithm of a softmax rounds the last rows of a tensor in another way, so does a product
of fewer than 16 rows, and how many rows a search has depends on the batch. So where the target of equal bits
is missed, the same count for good rows among other good ones says whether the malformed ones are to blame.

Through the stand-in for TensorFlow Serving of the tests, REST and gRPC: six clients at once send the same
files, 6 beside 2 good ones in a request, and the stand-in joins requests to batches of up to 32 rows. There
the same row is in another batch, of another size, each time. Last, malformed requests (the wrong rank or
type, no rows): which of them fail a good request that the server joins them with.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import functools
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from measure import ROOT, Targets

BATCH_SIZE, NUM_GOOD = 32, 8
PLACES = range(0, BATCH_SIZE, BATCH_SIZE // NUM_GOOD)  # of the good rows
SEED = 20260
MAX_PEAK_GIB = 2.5  # above what the process holds once it is warm; the images of 178 million pixels take it
MAX_KEPT_GIB = 2  # at the end: the allocator keeps some of what such an image took

NUM_CLIENTS = 6  # half of them REST, half gRPC
REQUEST_SIZE, GOOD_PER_REQUEST = 8, 2
BATCHING = {"max_batch_size": BATCH_SIZE, "batch_timeout_s": 0.02, "allowed_batch_sizes": [8, 16, 24, 32]}
NUM_BATCH_THREADS = 2  # each may hold what one batch may
MAX_DIFFERENCE = 1e-6  # of a number of one row among other rows: a few last bits of a probability
NUM_CONTROLS = 40  # batches for each of `good_batches`


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="malformed files")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)  # the other process: export, signature
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    if options.serve:
        serve(*options.serve, options.count)
        return 0
    targets = Targets()
    with tempfile.TemporaryDirectory() as folder:
        export_dir, signature = export_small_model(Path(folder))
        measure_c_api(export_dir, signature, options.count, targets)
        measure_server(export_dir, options.count, targets)
        measure_requests(export_dir, targets)
    return targets.status


def measure_c_api(export_dir: Path, signature: dict, count: int, targets: Targets) -> None:
    print("---- the C API")
    command = [sys.executable, __file__, "--count", str(count)]
    done = subprocess.run(
        [*command, "--serve", str(export_dir), json.dumps(signature)], capture_output=True, check=False
    )
    targets.check("exit status of the process that serves", abs(done.returncode), at_most=0)
    lines = done.stdout.decode().splitlines()
    if done.returncode:
        print(f"{lines[-1:]}\n{done.stderr.decode(errors='replace')[-2000:]}")
        return
    found = json.loads(lines[-1])
    report(found, count, targets, MAX_PEAK_GIB)
    bits, control = found["other_bits"] / found["num_good"], found["control_bits"] / found["num_control"]
    print(f"good rows with another bit: {bits:.2%} among malformed ones, {control:.2%} among other good ones")
    print(f"largest difference of one of their numbers: {found['difference']:.1e}")
    targets.check("good rows with another bit anywhere", found["other_bits"], at_most=0)
    targets.check("largest difference of a number of a good row", found["difference"], at_most=MAX_DIFFERENCE)


def export_small_model(folder: Path) -> tuple[Path, dict]:
    """An export, and the names of its tensors: {"image_bytes": tensor, "outputs": {name: tensor}}."""
    from tiny_model import VOCABULARY, make_model

    from cnnrnn_tf.config import DecodingConfig
    from cnnrnn_tf.serving.export import export
    from cnnrnn_tf.serving.fresh_process import public_signatures, read_meta_graph

    version = export(make_model(), VOCABULARY, DecodingConfig(beam_size=4, max_length=3), folder)
    signature = public_signatures(read_meta_graph(version))["serving_default"]
    outputs = {name: info.name for name, info in signature.outputs.items()}
    return version, {"image_bytes": signature.inputs["image_bytes"].name, "outputs": outputs}


def report(found: dict, count: int, targets: Targets, max_peak_gib: float) -> None:
    kinds = sorted({kind for kind, _, _ in found["counts"]})
    print(f"{count} malformed and {found['num_good']} good rows; what was told of the malformed ones:")
    for kind in kinds:
        told = [f"{number} {error or 'decoded'}" for each, error, number in found["counts"] if each == kind]
        print(f"  {kind:<16} {', '.join(told)}")
    start, peak, end = (found[key] / 2**20 for key in ("rss_start", "rss_peak", "rss_end"))
    print(f"resident memory, GiB: {start:.2f} once warm, {peak:.2f} at most, {end:.2f} at the end")
    print(f"{found['rows_per_s']:.0f} rows/s; the slowest call {found['slowest_s']:.1f} s")
    targets.check("malformed rows with an error that their kind does not allow", found["wrong"], at_most=0)
    targets.check("good rows lost", found["lost"], at_most=0)
    targets.check("good rows with other labels", found["changed"], at_most=0)
    targets.check("different answers among the good rows", found["answers"], at_least=3)
    targets.check("malformed rows answered", found["num_bad"], at_least=count)
    targets.check("GiB at most, above the start", peak - start, at_most=max_peak_gib)
    targets.check("GiB kept at the end", end - start, at_most=MAX_KEPT_GIB)


# ---- the stand-in, and its clients here


def measure_server(export_dir: Path, count: int, targets: Targets) -> None:
    from malformed import GOOD_FILES, malformed_files
    from serving_stand_in import start_stand_in

    from cnnrnn_tf.serving.client import Client
    from tfrecords.quiet import silence_native_stderr

    print("---- the stand-in for TensorFlow Serving, by REST and gRPC")
    good = list(GOOD_FILES.values())
    batching = json.dumps({**BATCHING, "num_batch_threads": NUM_BATCH_THREADS})
    with contextlib.ExitStack() as stack:
        with silence_native_stderr():  # for good: libjpeg has a line for every damaged file
            server = stack.enter_context(start_stand_in(export_dir, "--batching", batching))
        clients = [
            Client(url, timeout_s=300, retries=0) for url in (server.rest_url, server.grpc_url) for _ in "123"
        ]
        references = clients[0].tag(good)
        rss_start, start = read_kib("VmRSS", server.pid), time.perf_counter()
        requests = _Requests(malformed_files(SEED, count), good)
        told, found = collections.Counter(), collections.Counter()
        with concurrent.futures.ThreadPoolExecutor(NUM_CLIENTS) as pool:
            senders = [pool.submit(send_all, client, requests, references, told, found) for client in clients]
        slowest_s, difference = (
            max(values) for values in zip(*(each.result() for each in senders), strict=True)
        )
        wall_s, log = time.perf_counter() - start, server.read_log()
        names = ("wrong", "lost", "changed", "num_bad", "num_good")
        result = {name: found[name] for name in names} | {
            "counts": [[kind, error, number] for (kind, error), number in sorted(told.items())],
            "answers": len({image.labels for image in references}),
            "rss_start": rss_start,
            "rss_peak": read_kib("VmHWM", server.pid),
            "rss_end": read_kib("VmRSS", server.pid),
            "rows_per_s": (found["num_bad"] + found["num_good"]) / wall_s,
            "slowest_s": slowest_s,
        }
    num_runs = len(log["batch_sizes"]) - 1
    print(f"{found['requests']} requests of {NUM_CLIENTS} clients in {num_runs} batches, {wall_s:.0f} s")
    report(result, count, targets, NUM_BATCH_THREADS * MAX_PEAK_GIB)
    print(f"largest difference of a good row's number: {difference:.1e}")
    targets.check("largest difference of a number of a good row", difference, at_most=MAX_DIFFERENCE)
    targets.check("requests a batch", found["requests"] / num_runs, at_least=1.2)
    targets.check("modules of TensorFlow's Python in the stand-in", len(log["tensorflow"]), at_most=0)


def measure_requests(export_dir: Path, targets: Targets) -> None:
    """Sends malformed requests beside good ones to a stand-in that joins them, without padding."""
    from malformed import GOOD_FILES
    from malformed_requests import BATCHING, MALFORMED, send_both
    from serving_stand_in import start_stand_in

    print("---- malformed requests, each joined with a good one: HTTP status of both")
    image, unexpected = next(iter(GOOD_FILES.values())), 0
    with start_stand_in(export_dir, "--batching", json.dumps(BATCHING)) as server:
        for request in MALFORMED:
            found = send_both(server.rest_url, request, image)
            unexpected += found != (request.bad, request.good)
            allowed = "" if request.good == 200 else "   the server fails all that it joins with it"
            print(f"  {request.name:<28} {found[0]}   the good one {found[1]}{allowed}")
    targets.check("requests that were answered otherwise than the server does", unexpected, at_most=0)


class _Requests:
    """Requests of malformed files among good ones, dealt out to threads."""

    def __init__(self, bad, good: list[bytes]):
        self.lock = threading.Lock()
        self._bad, self._good, self._first = bad, good, itertools.count()

    def take(self) -> tuple[list, list[int]]:
        """The next malformed files, none at the end, and which good files go along: at the front and back."""
        with self.lock:
            group = list(itertools.islice(self._bad, REQUEST_SIZE - GOOD_PER_REQUEST))
            first = next(self._first)
            return group, [(first + i) % len(self._good) for i in range(GOOD_PER_REQUEST)]

    def send(self, client, group: list, places: list[int]) -> list:
        first, last = (self._good[i] for i in places)
        return client.tag([first, *(each.data for each in group), last])


def send_all(client, requests: _Requests, references: list, told, found) -> tuple[float, float]:
    """Sends requests until there are none; returns the slowest one's seconds and the largest difference."""
    slowest_s = difference = 0.0
    while True:
        group, places = requests.take()
        if not group:
            return slowest_s, difference
        before = time.perf_counter()
        images = requests.send(client, group, places)
        slowest_s = max(slowest_s, time.perf_counter() - before)
        with requests.lock:
            found["requests"] += 1
            found["num_good"] += len(places)
            found["num_bad"] += len(group)
            for image, place in zip((images[0], images[-1]), places, strict=True):
                found["lost"] += not image.valid
                found["changed"] += image.labels != references[place].labels
                difference = max(difference, find_difference(image, references[place]))
            for image, each in zip(images[1:-1], group, strict=True):
                told[each.kind, image.error] += 1
                found["wrong"] += not each.may_say(image.error)


def find_difference(first, second) -> float:
    pairs = zip(
        (*first.probabilities, *first.step_probabilities, first.path_probability),
        (*second.probabilities, *second.step_probabilities, second.path_probability),
        strict=False,  # other labels are told of as such
    )
    return max(abs(one - other) for one, other in pairs)


# ---- the process that serves: no TensorFlow in Python


def serve(export_dir: str, signature_text: str, count: int) -> None:
    """Prints, as its last line, what `report` shows."""
    from malformed import malformed_files

    tag, told, found = (
        load(export_dir, json.loads(signature_text)),
        collections.Counter(),
        collections.Counter(),
    )
    bad, references, slowest_s = malformed_files(SEED, count), [tag(rows) for rows in good_batches()], 0.0
    if not all(reference["valid"].all() for reference in references):
        raise SystemExit("a good file is refused among good ones")
    rss_start, start = read_kib("VmRSS"), time.perf_counter()
    while group := list(itertools.islice(bad, BATCH_SIZE - NUM_GOOD)):
        first = found["batches"] % len(references)
        before = time.perf_counter()
        answer = tag(mix(good_batches()[first], group))
        slowest_s = max(slowest_s, time.perf_counter() - before)
        compare(answer, references[first], found)
        judge(answer, group, told, found)
        found["batches"] += 1
        print(f"{found['batches']} batches done", flush=True)  # where it stopped, if it does
    control = compare_good_batches(tag, references)
    names = ("wrong", "lost", "changed", "other_bits", "num_bad", "num_good")
    result = {name: int(found[name]) for name in names} | {
        "control_bits": int(control["other_bits"]),
        "num_control": control["num_good"],
        "difference": found["difference"],
        "counts": [[kind, error, number] for (kind, error), number in sorted(told.items())],
        "answers": len({str(row) for reference in references for row in reference["labels"]}),
        "rss_start": rss_start,
        "rss_peak": read_kib("VmHWM"),
        "rss_end": read_kib("VmRSS"),
        "rows_per_s": (found["num_bad"] + found["num_good"]) / (time.perf_counter() - start),
        "slowest_s": slowest_s,
    }
    print(json.dumps(result))


def load(export_dir: str, signature: dict):
    """A function from rows of bytes to {output: array}."""
    import numpy as np

    from cnnrnn_tf.serving import c_api_runner

    session = c_api_runner.Session(c_api_runner.load_library(), export_dir)
    if "tensorflow" in sys.modules:
        raise SystemExit("TensorFlow's Python was imported: this proves nothing about the C API")
    return lambda rows: session.run({signature["image_bytes"]: np.array(rows, object)}, signature["outputs"])


@functools.cache
def good_batches() -> list[list[bytes]]:
    """Batches of good files, one that begins with each: good rows keep their place among bad ones."""
    from malformed import GOOD_FILES

    good = list(GOOD_FILES.values())
    return [[good[(first + i) % len(good)] for i in range(BATCH_SIZE)] for first in range(len(good))]


def mix(good: list[bytes], group: list) -> list[bytes]:
    """`good` with malformed files, or none, in every place that is not one of PLACES."""
    bad = itertools.chain((each.data for each in group), itertools.repeat(b""))
    return [data if i in PLACES else next(bad) for i, data in enumerate(good)]


def compare_good_batches(tag, references: list[dict]) -> collections.Counter:
    """Counts as `compare`, with other good files in the places of malformed ones."""
    found, rng = collections.Counter(), random.Random(SEED)
    for batch, reference in zip(good_batches(), references, strict=True):
        for _ in range(NUM_CONTROLS):
            others = [data if i in PLACES else rng.choice(batch) for i, data in enumerate(batch)]
            compare(tag(others), reference, found)
    return found


def compare(answer: dict, reference: dict, found: collections.Counter) -> None:
    """Counts the good rows that are not what they are in the reference."""
    for i in PLACES:
        found["lost"] += not answer["valid"][i]
        found["changed"] += answer["labels"][i].tolist() != reference["labels"][i].tolist()
        pairs = [(values[i : i + 1], reference[name][i : i + 1]) for name, values in answer.items()]
        found["other_bits"] += any((one != other).any() for one, other in pairs)
        numbers = [abs(one - other).max() for one, other in pairs if one.dtype.kind == "f"]
        found["difference"] = max(found["difference"], *map(float, numbers))
    found["num_good"] += NUM_GOOD


def judge(answer: dict, group: list, told: collections.Counter, found: collections.Counter) -> None:
    """Counts what is told of the malformed rows, and what may not be."""
    others = (i for i in range(BATCH_SIZE) if i not in PLACES)
    for i, each in zip(others, group, strict=False):
        error = answer["error"][i].decode()
        told[each.kind, error] += 1
        found["wrong"] += not each.may_say(error) or answer["valid"][i] != (error == "")
    found["num_bad"] += len(group)


def read_kib(name: str, process: int | str = "self") -> int:
    """A line of /proc/PROCESS/status, such as VmHWM, the highest resident memory."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())[1])


if __name__ == "__main__":
    sys.exit(main())
