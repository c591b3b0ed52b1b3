"""The collected tests enter; those of slow files leave first, so that two workers end together."""

import pytest

SLOWEST_FILES = ("test_run.py", "test_compare.py", "test_distribution.py", "test_datasets.py")


def pytest_collection_modifyitems(items):
    # Stable: the others keep their order. `make test` tells pytest-xdist not to sort files by their tests.
    items.sort(key=lambda item: item.path.name not in SLOWEST_FILES)


@pytest.fixture(autouse=True)
def no_lines_of_progress():
    """What goes on is told after a moment, and how long a moment is depends on the machine's other work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfrecords.progress.FIRST_LINE_S", 60.0)
        yield
