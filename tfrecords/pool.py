"""A function and its tasks enter; their results leave, in order, from several processes or from this one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from typing import TypeVar

from tfrecords.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

# To start a pool takes longer than to deal with so few images.
_MIN_IMAGES_FOR_POOL = 300


def run_tasks(
    function: Callable[[T, Callable[[int], object]], R],
    tasks: Sequence[T],
    num_images: Sequence[int],
    workers: int | None = None,
    on_images: Callable[[int], object] = lambda count: None,
) -> list[R]:
    """Calls `function(task, on_images)` for each task; the results come in the order of the tasks.

    Args:
        function: of a module, so that a process can import it; the tasks must pickle.
        num_images: how many images each task deals with.
        workers: number of processes, one a core by default. With one, or where few images would not repay the
            start of a pool, all is done in this process.
        on_images: called with the number of images that were dealt with since the last call.

    Raises:
        UserError: a worker died, most likely for want of memory.
    """
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers <= 1 or sum(num_images) < _MIN_IMAGES_FOR_POOL:
        return [function(task, on_images) for task in tasks]
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_prepare_worker)
    try:
        futures = {
            pool.submit(function, task, _ignore): count for task, count in zip(tasks, num_images, strict=True)
        }
        for future in as_completed(futures):
            future.result()
            on_images(futures[future])
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} worker processes died: for want of memory, perhaps (try --workers 1), or of a "
            "script without `if __name__ == '__main__':`"
        ) from None
    except KeyboardInterrupt:  # nobody wants what is half done: a pool would finish it first
        with _ignoring_interrupts():  # or the second press would leave the workers at work, and wait for them
            for worker in set(active_children()) - others:
                worker.kill()
            pool.shutdown(wait=True, cancel_futures=True)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on writing beside the next build."""
    parent_process().join()
    os._exit(1)


def _ignore(num_images: int) -> None:
    """A worker's progress shows when its task ends."""


def _prepare_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a worker needs no accelerator and must not claim its memory
