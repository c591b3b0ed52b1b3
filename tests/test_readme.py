"""README tells the truth: its Python runs, its flags exist, its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tfrecords.build import build
from tfrecords.sources import make_source

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EVERY_SNIPPET = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SNIPPETS = [
    snippet for snippet in EVERY_SNIPPET if "localhost" not in snippet
]  # test_readme_serving has those
COMMANDS = {
    "train.py": ("train.py",),
    **{
        f"tfrecords build {source}": ("-m", "tfrecords", "build", source)
        for source in ("table", "nuswide81", "coco", "coco2014", "voc", "voc2007", "tfds")
    },
    "tfrecords report": ("-m", "tfrecords", "report"),
    "cnnrnn predict": ("-m", "cnnrnn_tf.commands", "predict"),
    "cnnrnn tag": ("-m", "cnnrnn_tf.commands", "tag"),
    "cnnrnn evaluate": ("-m", "cnnrnn_tf.commands", "evaluate"),
    "cnnrnn export": ("-m", "cnnrnn_tf.commands", "export"),
    "cnnrnn check": ("-m", "cnnrnn_tf.commands", "check"),
    "cnnrnn client": ("-m", "cnnrnn_tf.commands", "client"),
    "cnnrnn compare": ("-m", "cnnrnn_tf.commands", "compare"),
    "cnnrnn audit": ("-m", "cnnrnn_tf.commands", "audit"),
}


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[-1][:40])
def test_a_snippet_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "data/demo" in snippet:
        build(make_source("demo", num_train=20, num_test=8), "demo", "data", workers=1, progress=False)
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})


def test_the_snippet_that_reads_records_needs_nothing_of_this_project():
    (snippet,) = [snippet for snippet in SNIPPETS if "TFRecordDataset" in snippet]
    assert "cnnrnn_tf" not in snippet and "import tfrecords" not in snippet


@pytest.mark.parametrize("snippet", EVERY_SNIPPET, ids=lambda text: text.splitlines()[-1][:40])
def test_a_snippet_lets_tensorflow_say_nothing_when_it_is_imported(snippet):
    """What greets is imported after this package, or with stderr out of the way."""
    imports = re.findall(r"^(?:import|from) (\w+)", snippet, flags=re.MULTILINE)
    greeting = [i for i, name in enumerate(imports) if name in ("tensorflow", "keras", "tensorflow_serving")]
    if greeting and "os.devnull, os.O_WRONLY), 2)" not in snippet:
        assert "cnnrnn_tf" in imports[: greeting[0]]


def test_every_flag_of_a_command_exists():
    known = {name: read_flags(words) for name, words in COMMANDS.items()}
    every_flag = set().union(*known.values())
    for line in README.splitlines():
        if line.split()[:1] == ["tensorboard"]:
            continue
        flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", line.split("docker")[0]))
        names = [name for name in known if name in line]
        assert names or "tfrecords build" not in line, line
        allowed = set().union(*(known[name] for name in names)) if names else every_flag
        assert flags <= allowed, line
    assert every_flag >= {"--given", "--label-order", "--images", "--save-grid", "--protocol"}


def read_flags(words):
    page = subprocess.run(
        [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return set(re.findall(r"--[a-z][a-z-]*", page))


def test_links_and_files_that_are_named_exist():
    for path in re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(
        r"(?:notebooks|benchmarks)/\w+\.\w+", README
    ):
        assert (ROOT / path).is_file(), path
