"""Keeps the suite out of the checkout, small in memory, and runs the slow files first, so that two workers
end together."""

import ctypes
import fcntl
import gc
import os
import resource
import shutil
import sys

import pytest

SLOWEST_FILES = ("test_run.py", "test_compare.py", "test_distribution.py", "test_datasets.py")


@pytest.fixture(scope="session", autouse=True)
def working_folder(tmp_path_factory, pytestconfig):
    """An empty folder that all tests and fixtures run in: no `data/` or `runs/` of the checkout is near.

    Processes that tests start there import this checkout's packages, be they installed or not.
    """
    folder = tmp_path_factory.mktemp("working_folder")
    checkout = str(pytestconfig.rootpath)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", checkout, prepend=os.pathsep)
        patch.chdir(folder)
        yield folder


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


@pytest.fixture(scope="session", autouse=True)
def modules_are_no_garbage():
    """Spares the collector the 400,000 objects that TensorFlow's import leaves for ever."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def networks_forgotten():
    """Frees the networks of a module that holds many: cycles keep them, and Keras's own state."""
    before = resident_mib()
    yield
    if resident_mib() > before + 50:  # to look through all objects takes half a second
        if "keras" in sys.modules:
            sys.modules["keras"].backend.clear_session()
        give_memory_back()


@pytest.fixture(autouse=True)
def memory_given_back(networks_forgotten):
    """Frees the graphs of a test's own trainings, wherever they have become many."""
    yield
    if resident_mib() > give_memory_back.left_mib + 150:
        give_memory_back()


def give_memory_back():
    # TensorFlow keeps the graph of each training for ever: by the gradient of the sum over devices, which no
    # one takes, in its registry of gradients.
    if "tensorflow.python.framework.ops" in sys.modules:
        gradients = sys.modules["tensorflow.python.framework.ops"].gradient_registry._registry
        for name in [name for name in gradients if name.startswith("CustomGradient-")]:
            del gradients[name]
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    give_memory_back.left_mib = resident_mib()


give_memory_back.left_mib = 0.0


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory):
    """The folder of versions of `tiny_model`'s export, made once for all workers: read it, write nothing."""
    from tiny_model import VOCABULARY, make_model

    from cnnrnn_tf.config import DecodingConfig
    from cnnrnn_tf.serving.export import export

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "tiny_export"
    with open(shared / "tiny_export.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "1").exists():
            export(make_model(), VOCABULARY, DecodingConfig(beam_size=4, max_length=3), folder)
    return folder


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def pytest_collection_modifyitems(items):
    # Stable: the others keep their order. `make test` tells pytest-xdist not to sort files by their tests.
    items.sort(key=lambda item: item.path.name not in SLOWEST_FILES)


@pytest.fixture(autouse=True)
def no_lines_of_progress():
    """What goes on is told after a moment, and how long a moment is depends on the machine's other work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfrecords.progress.FIRST_LINE_S", 60.0)
        yield
