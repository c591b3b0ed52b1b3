"""Runs tasks over many images in several processes, and outlives an image that kills or hangs one of them.

Native code decodes images, and on some file it may crash, never end or take all memory. The process dies then
and is replaced; the image it was at is tried once more, and left out if it kills again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from tfrecords.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

IMAGE_TIMEOUT_S = 120.0
"""Seconds without a finished image after which a process is taken to hang."""

_MIN_IMAGES_FOR_POOL = 300  # to start a pool takes longer than to deal with so few
_MAX_FAULTS = 50  # beyond, it is not the images
_POLL_S = 0.2


@dataclass(frozen=True)
class ImageFault:
    """Why an image cannot be dealt with: `reason` is the short name that the manifest counts."""

    reason: str
    detail: str


def run_tasks(
    function: Callable[[T, Callable[[int], object]], R],
    tasks: Sequence[T],
    num_images: Sequence[int],
    workers: int | None = None,
    on_images: Callable[[int], object] = lambda count: None,
    *,
    leave_out: Callable[[T, int, ImageFault], T] | None = None,
    isolate: bool = False,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
) -> list[R]:
    """Calls `function(task, on_images)` for each task; the results come in the order of the tasks.

    Args:
        function: of a module, so that a process can import it; the tasks must pickle. It deals with the
            images of a task in their order and tells `on_images` after each.
        num_images: how many images each task deals with.
        workers: number of processes, one a core by default. With one, or where few images would not repay the
            start of a pool, all is done in this process, unless `isolate`.
        on_images: called with the number of images that were dealt with since the last call.
        leave_out: gives a task that leaves out its image of that number, from 0, for that fault.
        isolate: use other processes even for one task and few images, so that no image can kill this one.
        image_timeout_s: a process that finishes no image for so long hangs.

    Raises:
        UserError: a process died, and no image was found that it died of.
    """
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if not isolate and (workers <= 1 or sum(num_images) < _MIN_IMAGES_FOR_POOL):
        return [function(task, on_images) for task in tasks]
    pool = _Pool(function, tasks, num_images, workers, on_images, leave_out, image_timeout_s)
    try:
        return pool.run()
    finally:
        with _ignoring_interrupts():  # a second Ctrl-C would leave the workers at work
            pool.end()


@dataclass
class _Worker:
    """A process, and what it is at."""

    process: Any
    pipe: connection.Connection
    slot: int
    is_ready: bool = False
    task: int | None = None
    num_done: int = 0
    alive_at: float = 0.0  # when it last finished an image, by time.monotonic


class _Pool:
    def __init__(self, function, tasks, num_images, workers, on_images, leave_out, image_timeout_s):
        self._function, self._tasks, self._num_images = function, list(tasks), num_images
        self._on_images, self._leave_out, self._timeout_s = on_images, leave_out, image_timeout_s
        self._context = get_context("spawn")
        self._progress = self._context.RawArray(ctypes.c_longlong, max(workers, 1))
        self._workers: list[_Worker] = []
        self._waiting = deque(range(len(tasks)))
        self._results: dict[int, Any] = {}
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._num_faults = self._num_told = 0

    def run(self) -> list:
        for slot in range(len(self._progress) if self._tasks else 0):
            self._workers.append(self._start(slot))
        while len(self._results) < len(self._tasks):
            ends = [end for each in self._workers for end in (each.pipe, each.process.sentinel)]
            connection.wait(ends, timeout=_POLL_S)
            for worker in list(self._workers):
                self._attend(worker)
            self._tell_progress()
        return [self._results[number] for number in range(len(self._tasks))]

    def end(self) -> None:
        for worker in self._workers:
            worker.pipe.close()
            if len(self._results) < len(self._tasks):  # nobody wants what is half done
                worker.process.kill()
        for worker in self._workers:
            worker.process.join()

    def _start(self, slot: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        arguments = self._function, theirs, self._progress, slot
        process = self._context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, slot)

    def _attend(self, worker: _Worker) -> None:
        """Hears what a worker has to say, gives it work, and replaces it where it died or hangs."""
        while (words := _receive(worker)) is not None:
            self._hear(worker, *words)
        if worker.process.exitcode is not None:
            self._replace(worker, _explain_death(worker.process.exitcode))
        elif worker.task is not None:
            num_done = self._progress[worker.slot]
            if num_done != worker.num_done:
                worker.num_done, worker.alive_at = num_done, time.monotonic()
            elif time.monotonic() - worker.alive_at > self._timeout_s:
                worker.process.kill()
                worker.process.join()
                detail = f"it is not done after {self._timeout_s:.0f} s"
                self._replace(worker, ImageFault("hanging_image", detail), is_certain=True)
        elif worker.is_ready and self._waiting:
            self._give(worker, self._waiting.popleft())

    def _hear(self, worker: _Worker, word: str, content: Any) -> None:
        if word == "failed":
            raise content
        if word == "done":
            self._results[worker.task] = content
            worker.task, worker.num_done, self._progress[worker.slot] = None, 0, 0
        worker.is_ready = True
        if self._waiting:
            self._give(worker, self._waiting.popleft())

    def _give(self, worker: _Worker, task: int) -> None:
        worker.task, worker.num_done, worker.alive_at = task, 0, time.monotonic()
        self._progress[worker.slot] = 0
        worker.pipe.send(self._tasks[task])

    def _replace(self, worker: _Worker, fault: ImageFault, is_certain: bool = False) -> None:
        """Starts another worker; an image that killed two, or hung one, is left out of its task."""
        number, image = worker.task, self._progress[worker.slot]
        worker.pipe.close()
        self._workers.remove(worker)
        if not worker.is_ready:
            raise UserError(
                f"a worker process did not start ({fault.detail}): a script that builds needs "
                "`if __name__ == '__main__':` around its call"
            )
        if number is not None:
            self._deaths[number, image] += 1
            if is_certain or self._deaths[number, image] > 1:
                self._num_faults += 1
                no_image = self._leave_out is None or image >= self._num_images[number]
                if no_image or self._num_faults > _MAX_FAULTS:
                    raise UserError(
                        f"worker processes end again and again ({fault.detail}): for want of memory, "
                        "perhaps; try --workers 1"
                    )
                self._tasks[number] = self._leave_out(self._tasks[number], image, fault)
            self._waiting.appendleft(number)
        self._progress[worker.slot] = 0
        self._workers.append(self._start(worker.slot))

    def _tell_progress(self) -> None:
        num_done = sum(self._num_images[number] for number in self._results)
        num_done += sum(self._progress[each.slot] for each in self._workers if each.task is not None)
        if num_done > self._num_told:  # a task that begins again is told of once
            self._on_images(num_done - self._num_told)
            self._num_told = num_done


def _receive(worker: _Worker) -> tuple[str, Any] | None:
    """What a worker has sent; None where there is nothing yet, or it has ended."""
    try:
        return worker.pipe.recv() if worker.pipe.poll() else None
    except (EOFError, OSError):
        worker.process.join()
        return None


def _explain_death(exit_code: int) -> ImageFault:
    if exit_code == -signal.SIGKILL:
        return ImageFault(
            "memory_exhausting_image", "it was killed (SIGKILL), for want of memory most likely"
        )
    if exit_code < 0:
        return ImageFault("crashing_image", f"it crashed ({signal.Signals(-exit_code).name})")
    return ImageFault("crashing_image", f"it ended the process (status {exit_code})")


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# ---- in the workers


def _work(function: Callable, pipe: connection.Connection, progress: Any, slot: int) -> None:
    """Does the tasks that come through `pipe` until it is closed."""
    _prepare_worker()

    def on_images(count: int) -> None:
        progress[slot] += count

    pipe.send(("ready", None))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer = ("done", function(task, on_images))
        except Exception as error:
            answer = ("failed", error)
        try:
            pipe.send(answer)
        except Exception as error:  # it does not pickle
            pipe.send(("failed", RuntimeError(f"{answer[1]!r}: {error}")))


def _prepare_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a worker needs no accelerator and must not claim its memory
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # what a library prints as it crashes stands in no line of ours
    os.close(nowhere)


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on writing beside the next build."""
    parent_process().join()
    os._exit(1)
