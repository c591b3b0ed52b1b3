"""README's clients of a server run as they stand, against the stand-in, and print the labels."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving_stand_in import start_stand_in
from tiny_model import make_model, make_photograph

from cnnrnn_tf.config import DecodingConfig
from cnnrnn_tf.serving.client import Client
from cnnrnn_tf.serving.export import export
from tfrecords.sources.demo import COMPANIES, all_views
from tfrecords.vocabulary import LabelVocabulary

OF_THE_DEMO = LabelVocabulary.from_counts({"clouds": 9, "sea": 8, "moon": 7, "boat": 6, "tree": 5, "car": 4})
KNOWN = {  # what README says is given and absent: of its command, its client and its gRPC
    "--given sea,clouds --absent moon": (["sea", "clouds"], ["moon"]),
    'given=["sea"], absent=["moon"]': (["sea"], ["moon"]),
    r'["sea\nclouds"]': (["sea", "clouds"], ["moon"]),
}

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = [
    snippet
    for snippet in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    if "localhost" in snippet
]
SHELL = re.findall(r"^    ((?:echo .* \| curl|cnnrnn client) .*)$", README, re.MULTILINE)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme") / "export"
    export(make_model(OF_THE_DEMO), OF_THE_DEMO, DecodingConfig(beam_size=4, max_length=3), folder)
    with start_stand_in(folder) as running:
        yield running


@pytest.fixture(scope="module")
def labels(stand_in):
    """A photograph that has labels, and {what README knows of it: its labels}."""
    client = Client(stand_in.rest_url)
    photographs = [make_photograph(seed) for seed in range(8)]
    chosen = next(i for i, image in enumerate(client.tag(photographs)) if image.labels)
    found = {words: client.tag([photographs[chosen]], *known) for words, known in (KNOWN | {"": ()}).items()}
    return photographs[chosen], {words: images[0].labels for words, images in found.items()}


def find_expected(labels, text):
    """The labels that a line or snippet of README prints."""
    (known,) = [words for words in KNOWN if words in text] or [""]
    assert labels[1][known]
    return labels[1][known]


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
    assert all(name in printed for name in find_expected(labels, snippet))


@pytest.mark.usefixtures("folder")
def test_the_grpc_snippet_prints_why_there_are_no_labels(stand_in, capfd):
    Path("photo.jpg").write_bytes(b"no image")
    exec(compile(point_at(stand_in, SNIPPETS[2]), "README.md", "exec"), {"__name__": "readme"})
    assert "not an image" in capfd.readouterr().out


def test_the_labels_that_readme_gives_are_the_demo_s():
    names = {name for view, _ in all_views() for name in view.visible_labels()}.union(*COMPANIES.values())
    assert {name for known in KNOWN.values() for each in known for name in each} <= names
    assert all(any(words in text for text in (*SNIPPETS, *SHELL)) for words in KNOWN)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("line", SHELL)
def test_a_line_for_the_shell_prints_the_labels(line, stand_in, labels):
    if "| curl" in line and not shutil.which("curl"):
        pytest.skip("no curl here")
    line = point_at(stand_in, line).replace("cnnrnn client", f"{sys.executable} -m cnnrnn_tf.commands client")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in find_expected(labels, line)), done.stderr
