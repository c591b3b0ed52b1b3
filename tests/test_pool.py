"""Tasks in other processes, which may crash, hang or be killed on one image: it is found and left out."""

import os
import signal
import time
from dataclasses import dataclass, field, replace

import pytest

from tfrecords.errors import UserError
from tfrecords.pool import run_tasks


@dataclass(frozen=True)
class Numbers:
    """A task whose images are whole numbers; dealing with one of `deeds` does what it says."""

    values: tuple
    deeds: dict = field(default_factory=dict)
    faults: dict = field(default_factory=dict)

    def leave_out(self, place, fault):
        return replace(self, faults={**self.faults, place: fault})


def crash_once(path):
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    os.abort()


DEEDS = {
    "abort": lambda: os.abort(),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(1000),
    "exit": lambda: os._exit(3),
    "raise": lambda: (_ for _ in ()).throw(OSError(28, "No space left on device", "x")),
}


def double(task, on_images):
    results = []
    for place, value in enumerate(task.values):
        deed = task.deeds.get(value)
        if place in task.faults:
            results.append(task.faults[place].reason)
        else:
            if deed is not None:
                DEEDS[deed]() if deed in DEEDS else crash_once(deed)
            results.append(2 * value)
        on_images(1)
    return results


def run(tasks, workers=2, **options):
    counts = [len(task.values) for task in tasks]
    options = {"leave_out": Numbers.leave_out, "isolate": True, "image_timeout_s": 3.0, **options}
    return run_tasks(double, tasks, counts, workers, **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_kills_or_hangs_a_process_costs_itself_alone(workers):
    deeds = {3: "abort", 12: "kill", 14: "hang", 21: "exit"}
    tasks = [Numbers(tuple(range(start, start + 5)), deeds) for start in (0, 10, 20)]
    seen = []
    assert run(tasks, workers, on_images=seen.append) == [
        [0, 2, 4, "crashing_image", 8],
        [20, 22, "memory_exhausting_image", 26, "hanging_image"],
        [40, "crashing_image", 44, 46, 48],
    ]
    assert sum(seen) == 15


def test_a_death_that_does_not_come_again_costs_nothing(tmp_path):
    task = Numbers((1, 2, 3), {2: str(tmp_path / "crashed")})
    assert run([task]) == [[2, 4, 6]]
    assert (tmp_path / "crashed").is_dir()


def test_what_a_task_raises_comes_through_as_it_is():
    with pytest.raises(OSError, match="No space left on device"):
        run([Numbers((1, 2), {2: "raise"}), Numbers((3,))])


def test_without_a_way_to_leave_an_image_out_its_death_is_told():
    with pytest.raises(UserError, match=r"worker processes end again and again \(it crashed \(SIGABRT\)\)"):
        run([Numbers((1,), {1: "abort"})], leave_out=None)


def test_few_images_are_dealt_with_in_this_process_unless_isolated():
    def here(task, on_images):  # cannot be sent to another process
        on_images(1)
        return os.getpid()

    assert run_tasks(here, [1, 2], [1, 1], workers=2) == [os.getpid()] * 2


def test_no_tasks_have_no_results():
    assert run([]) == []
