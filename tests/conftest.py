"""Keeps the suite out of the checkout, and runs the slow files first, so that two workers end together."""

import os
import shutil

import pytest

SLOWEST_FILES = ("test_run.py", "test_compare.py", "test_distribution.py", "test_datasets.py")


@pytest.fixture(scope="session", autouse=True)
def working_folder(tmp_path_factory):
    """An empty folder that all tests and fixtures run in: no `data/` or `runs/` of the checkout is near."""
    folder = tmp_path_factory.mktemp("working_folder")
    checkout = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(checkout)


@pytest.fixture(autouse=True)
def own_folder(working_folder, request):
    """Each test finds the working folder empty, and fails if it leaves something there."""
    yield
    left = sorted(working_folder.iterdir())
    for path in left:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if left:
        names = ", ".join(path.name for path in left)
        pytest.fail(f"{request.node.name} left {names} in the working folder: let it write to tmp_path")


def pytest_collection_modifyitems(items):
    # Stable: the others keep their order. `make test` tells pytest-xdist not to sort files by their tests.
    items.sort(key=lambda item: item.path.name not in SLOWEST_FILES)


@pytest.fixture(autouse=True)
def no_lines_of_progress():
    """What goes on is told after a moment, and how long a moment is depends on the machine's other work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfrecords.progress.FIRST_LINE_S", 60.0)
        yield
