"""Shard tasks enter; their results leave, the shards written by an Apache Beam pipeline (extra `[beam]`).

    python -m tfrecords build coco2014 --from COCO --images gs://bucket/coco --runner DataflowRunner \\
        --staging gs://bucket/staging --beam-options "--project=P --region=R --temp_location=gs://bucket/tmp"

The same tasks are written by the same function as in a local build, to the same bytes. Labels are read, and
the data set appears, where the command runs; workers read tasks from the staging folder, read their images,
and leave the shards there. Both sides must reach that folder: a URL that Beam can open, or a shared disk's.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import pickle
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfrecords.errors import UserError
from tfrecords.framing import DamagedFile
from tfrecords.progress import show_progress
from tfrecords.quiet import silence_native_stderr
from tfrecords.urls import (
    delete,
    import_beam,
    is_url,
    join_path,
    last_line,
    open_file,
    remove_folder,
    write_whole,
)
from tfrecords.writer import (
    RESULT_SUFFIX,
    ShardResult,
    ShardTask,
    find_kept,
    hash_records,
    is_final,
    keep_result,
    make_key,
    write_shards,
)

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class BeamWriter:
    """Writes shards by a pipeline; see `tfrecords.build.build`.

    Attributes:
        runner: a name that Beam knows: `DirectRunner`, `FlinkRunner`, `SparkRunner`, `DataflowRunner`...
        options: further options of Beam's, as on a command line.
        staging: a folder or URL that this machine and all workers reach; beside the data set by default.
        workers: number of processes of the DirectRunner, one a core by default; other runners have options.
    """

    runner: str
    options: str = ""
    staging: str | None = None
    workers: int | None = None

    def __call__(
        self, tasks: Sequence[ShardTask], on_images: Callable[[int], object] = lambda num_images: None
    ) -> list[ShardResult]:
        """Runs `tasks`; the results come in their order.

        Raises:
            UserError: Beam is not installed, knows no such runner or option, or the pipeline failed.
            OSError: a shard cannot be written here.
        """
        import_beam()
        keys = [make_key(task) for task in tasks]
        results = [find_kept(task.path, key) for task, key in zip(tasks, keys, strict=True)]
        missing = [i for i, result in enumerate(results) if result is None]
        on_images(sum(len(task.annotations) for task, kept in zip(tasks, results, strict=True) if kept))
        if missing:
            folder = self._staging_folder(tasks[0].path.parent, keys)
            places = [_stage(tasks[i], keys[i], folder) for i in missing]
            with show_progress(
                f"writing shards on {self.runner}",
                len(places),
                "shard",
                count_done=None if is_url(folder) else functools.partial(_count_staged, places),
            ):
                self._run(places)
            for i in missing:
                results[i] = _collect(tasks[i], keys[i], folder)
                on_images(len(tasks[i].annotations))
            remove_folder(folder)
        return results

    def _staging_folder(self, hidden: Path, keys: Sequence[str]) -> str:
        """A folder of its own for each data set of these very tasks, which is built in `hidden`."""
        if self.staging is None:
            return str(hidden.absolute() / "staging")
        digest = hashlib.sha256("".join(keys).encode()).hexdigest()
        return join_path(self.staging, f"{hidden.name.strip('.')}-{digest[:12]}")

    def _run(self, places: Sequence[str]) -> None:
        import apache_beam as beam

        def write(pipeline):
            _ = (
                pipeline
                | "Tasks" >> beam.Create(places)
                | "One by one" >> beam.Reshuffle()  # or a runner may give all of them to one worker
                | "Write shards" >> beam.Map(_write_staged)
            )

        run_pipeline(write, self.runner, self.options, self.workers)


def run_pipeline(
    add_steps: Callable[[Any], None], runner: str, options: str = "", workers: int | None = None
) -> None:
    """Runs a pipeline and waits for its end.

    Args:
        add_steps: adds all steps to an empty pipeline.
        runner, options, workers: see `BeamWriter`.

    Raises:
        UserError: Beam knows no such runner or option, or the pipeline failed.
    """
    import apache_beam as beam

    found = _make_options(runner, options, workers)
    # Workers of this machine inherit stderr, and greet; what goes wrong in them is raised here.
    is_local = runner == "DirectRunner"
    try:
        with silence_native_stderr() if is_local else contextlib.nullcontext():
            pipeline = beam.Pipeline(options=found)
            add_steps(pipeline)
            state = pipeline.run().wait_until_finish()
    except Exception as error:  # of every kind: what a runner raises, it also wraps
        raise UserError(f"the pipeline failed on {runner}: {last_line(error)}") from error
    if state not in (None, "DONE"):
        raise UserError(f"the pipeline on {runner} ended as {state}: see the runner's own log")


def _make_options(runner: str, text: str, num_workers: int | None):
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, WorkerOptions

    complaints = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaints):  # argparse prints them, and ends the process
            options = PipelineOptions([*shlex.split(text), f"--runner={runner}"])
            direct, workers = options.view_as(DirectOptions), options.view_as(WorkerOptions)
    except (SystemExit, ValueError) as error:
        reason = complaints.getvalue().strip().rpartition("\n")[2] or error
        raise UserError(f"--beam-options {text!r}: Beam refuses them ({reason})") from None
    if runner == "DirectRunner" and "direct_" not in text:
        direct.direct_num_workers = num_workers or os.cpu_count() or 1
        direct.direct_running_mode = "multi_processing"
        workers.default_sdk_harness_log_level = "ERROR"  # else each says a dozen lines
    return options


# ---- what the workers do


def _write_staged(place: str) -> None:
    """Writes the shard of the task at `place` beside it, unless an earlier run of the pipeline has."""
    with open_file(place) as file:
        key, task = pickle.load(file)
    shard = _strip_task(place)
    staged = _read_staged(shard, key)
    if staged is not None and is_final(staged):
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / task.path.name
        # In a process of its own, so that an image that kills it does not end the pipeline. But files of an
        # object store are read with what the runner has told this process of it.
        isolate = not any(is_url(each.image_path or "") for each in task.annotations)
        [result] = write_shards(1, [replace(task, path=local)], isolate=isolate)
        with local.open("rb") as source:
            write_whole(shard, iter(lambda: source.read(_CHUNK_BYTES), b""))
    content = json.dumps({"key": key, "result": result.to_json()}).encode()
    write_whole(shard + RESULT_SUFFIX, [content])


# ---- what the command does


def _stage(task: ShardTask, key: str, folder: str) -> str:
    """Writes the task where a worker finds it, its annotations in it, and returns the place."""
    place = join_path(folder, f"{task.path.name}.task")
    content = key, replace(task, annotations=tuple(task.annotations))
    write_whole(place, [pickle.dumps(content)])
    return place


def _collect(task: ShardTask, key: str, folder: str) -> ShardResult:
    """Fetches a shard that a worker has written and keeps it as a local build would."""
    shard = join_path(folder, task.path.name)
    result = _read_staged(shard, key)
    if result is None:
        raise UserError(
            f"{shard}: is not there, though the pipeline ended well: give a folder that workers reach, too, "
            "with --staging"
        )
    partial = task.path.with_name(f"{task.path.name}.{os.getpid()}.partial")
    try:
        with open_file(shard) as source, partial.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK_BYTES)
    except OSError:
        partial.unlink(missing_ok=True)  # the disk may be full
        raise
    try:
        is_whole = hash_records(partial) == result.shard.records_sha256
    except (DamagedFile, ValueError):
        is_whole = False
    if not is_whole:
        raise UserError(f"{shard}: is not what the worker wrote: remove {folder} and run again")
    os.replace(partial, task.path)
    keep_result(task.path, key, result)
    delete(shard + RESULT_SUFFIX)  # first: a result without its shard would be trusted
    delete(shard)
    return result


def _count_staged(places: Sequence[str]) -> int:
    """How many of the tasks on a disk have left their result."""
    return sum(os.path.exists(_strip_task(place) + RESULT_SUFFIX) for place in places)


def _read_staged(shard: str, key: str) -> ShardResult | None:
    """The result of a shard in the staging folder; None where there is none, or one of another task."""
    try:
        with open_file(shard + RESULT_SUFFIX) as file:
            content = json.load(file)
    except OSError:
        return None
    return ShardResult.from_json(content["result"]) if content["key"] == key else None


def _strip_task(place: str) -> str:
    return place.removesuffix(".task")
