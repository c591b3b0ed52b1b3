"""README's clients of a server run as they stand, against the stand-in, and print the labels."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving_stand_in import start_stand_in
from tiny_model import make_photograph

from cnnrnn_tf.serving.client import Client

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = [
    snippet
    for snippet in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    if "localhost" in snippet
]
SHELL = re.findall(r"^    ((?:curl|cnnrnn client) .*)$", README, re.MULTILINE)


@pytest.fixture(scope="module")
def stand_in(tiny_export):
    with start_stand_in(tiny_export) as running:
        yield running


@pytest.fixture(scope="module")
def labels(stand_in):
    """A photograph that has labels, and {labels given as README does: its labels}."""
    client = Client(stand_in.rest_url)
    photographs = [make_photograph(seed) for seed in range(8)]
    chosen = next(i for i, image in enumerate(client.tag(photographs)) if image.labels)
    given = ("", "sky", "sky,sea")
    found = {words: client.tag([photographs[chosen]], words.split(",") if words else []) for words in given}
    return photographs[chosen], {words: images[0].labels for words, images in found.items()}


@pytest.fixture
def folder(labels, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/1.jpg"):
        (tmp_path / name).write_bytes(labels[0])
    monkeypatch.chdir(tmp_path)


def point_at(stand_in, text):
    """README's lines with the stand-in's ports for the server's."""
    rest, grpc = (url.rpartition("//")[2] for url in (stand_in.rest_url, stand_in.grpc_url))
    return text.replace("localhost:8501", rest).replace("localhost:8500", grpc)


def test_there_are_snippets_for_rest_the_client_and_grpc():
    assert len(SNIPPETS) == 3 and len(SHELL) >= 2


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("snippet", SNIPPETS, ids=["REST", "Client", "gRPC"])
def test_a_snippet_prints_the_labels(snippet, stand_in, labels, capfd):
    exec(compile(point_at(stand_in, snippet), "README.md", "exec"), {"__name__": "readme"})
    printed = capfd.readouterr().out
    expected = labels[1]["sky" if "sky" in snippet else ""]
    assert expected and all(name in printed or str(name.encode()) in printed for name in expected)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("line", SHELL)
def test_a_line_for_the_shell_prints_the_labels(line, stand_in, labels):
    if line.startswith("curl") and not shutil.which("curl"):
        pytest.skip("no curl here")
    line = point_at(stand_in, line).replace("cnnrnn client", f"{sys.executable} -m cnnrnn_tf.commands client")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in labels[1]["sky,sea" if "--given" in line else ""]), done.stderr
