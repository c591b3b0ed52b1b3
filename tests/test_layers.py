"""The layer picture: imports run downwards only, and what `--help` needs leaves TensorFlow alone.

The imports are read from the source by `ast`, those inside functions and under TYPE_CHECKING too, and so are
the strings that name a module of ours, for `import_module` takes them.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the bottom up: a module may import its own layer and those in the lines above its own.
PICTURE = (
    ("tfrecords",),
    ("config",),
    ("data",),
    ("model",),
    ("evaluation", "viz"),
    ("serving", "baselines"),
    ("training",),
    ("commands", "train.py"),
)
HEIGHTS = {layer: height for height, layers in enumerate(PICTURE) for layer in layers}
PROJECT = ("tfrecords/**/*.py", "cnnrnn_tf/**/*.py", "train.py")
MODULE_NAME = re.compile(r"(?:cnnrnn_tf|tfrecords)(?:\.\w+)+(?=:\w+$|$)")

FREE_OF_TENSORFLOW = (
    "tfrecords.schema",
    "cnnrnn_tf.config",
    "cnnrnn_tf.serving.client",
    "cnnrnn_tf.commands.__main__",
    "train",
)
SUBCOMMANDS = {"predict", "tag", "check", "export", "evaluate", "audit", "client", "compare"}


def find_violations(root: Path) -> list[str]:
    """Every import of the project below `root` that the picture forbids, as `file:line: what is wrong`."""
    violations = []
    for path in (p for pattern in PROJECT for p in sorted(root.glob(pattern))):
        relative = path.relative_to(root)
        for line, target in read_imports(path.read_text(encoding="utf-8"), module_name(relative)):
            problem = judge(module_name(relative), target)
            if problem:
                violations.append(f"{relative.as_posix()}:{line}: {problem}")
    return sorted(violations)


def module_name(relative: Path) -> str:
    """`cnnrnn_tf/data/images.py` -> `cnnrnn_tf.data.images`; a package keeps its `.__init__`."""
    return ".".join(relative.with_suffix("").parts)


def read_imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that `source`, the text of `module`, imports or names as a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            start = ".".join([*package, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = MODULE_NAME.match(node.value)
            if named:
                yield node.lineno, named.group()


def judge(importer: str, target: str) -> str | None:
    """What is wrong with `importer` importing `target`; None where the picture allows it."""
    upper, lower = layer_of(importer), layer_of(target)
    if lower is None or upper == lower:
        return None
    for name, layer in ((importer, upper), (target, lower)):
        if layer != "cnnrnn_tf" and layer not in HEIGHTS:
            return f"{name} is in no layer of the picture"
    if upper == "cnnrnn_tf" and target.startswith("tfrecords.quiet"):
        return None  # it silences TensorFlow's greetings, whichever module is the first to import it
    if upper == "cnnrnn_tf":
        return f"the package itself imports {target}, and so would every module of it"
    if lower == "cnnrnn_tf":
        return None if upper != "tfrecords" else f"tfrecords imports {target}"
    return None if HEIGHTS[lower] < HEIGHTS[upper] else f"{upper} imports {lower} ({target})"


def layer_of(module: str) -> str | None:
    """The layer of a dotted name; `cnnrnn_tf` for the package's own `__init__`; None for other projects."""
    first, *rest = module.split(".")
    if first in ("tests", "benchmarks", "setup"):
        return first
    if first == "train":
        return "train.py"
    if first != "cnnrnn_tf":
        return first if first == "tfrecords" else None
    return rest[0] if rest and rest[0] != "__init__" else "cnnrnn_tf"


# ---- imports run downwards only


def test_imports_run_downwards_only():
    assert find_violations(ROOT) == []


def test_every_package_and_module_of_the_project_is_in_the_picture():
    pictured = {name for layers in PICTURE for name in layers if name not in ("tfrecords", "train.py")}
    files = [path.relative_to(ROOT / "cnnrnn_tf") for path in (ROOT / "cnnrnn_tf").rglob("*.py")]
    assert {path.parts[0].removesuffix(".py") for path in files} - {"__init__"} <= pictured
    homes = [
        *(f"cnnrnn_tf/{path.parts[0]}" for path in files if len(path.parts) > 1),
        "tfrecords",
        "cnnrnn_tf",
    ]
    assert [home for home in homes if not (ROOT / home / "__init__.py").is_file()] == []
    assert (ROOT / "train.py").is_file()


@pytest.mark.parametrize(
    ("path", "source", "problem"),
    [
        ("tfrecords/build.py", "import cnnrnn_tf", "tfrecords imports cnnrnn_tf"),
        ("tfrecords/build.py", "from cnnrnn_tf import config", "tfrecords imports config (cnnrnn_tf.config)"),
        ("tfrecords/build.py", "def f():\n import cnnrnn_tf.config", "tfrecords imports config"),
        ("tfrecords/sources/demo.py", "NAME = 'cnnrnn_tf.data.images:read'", "tfrecords imports data"),
        ("cnnrnn_tf/data/images.py", "from cnnrnn_tf import model", "data imports model (cnnrnn_tf.model)"),
        ("cnnrnn_tf/data/images.py", "from ..model import cells", "data imports model"),
        ("cnnrnn_tf/data/images.py", "def f():\n from cnnrnn_tf.viz.figures import x", "data imports viz"),
        ("cnnrnn_tf/data/__init__.py", "from ..model.cells import x", "data imports model"),
        ("cnnrnn_tf/config.py", "import cnnrnn_tf.data.images", "config imports data"),
        (
            "cnnrnn_tf/model/cells.py",
            "if TYPE_CHECKING:\n from cnnrnn_tf.viz import figures",
            "model imports viz",
        ),
        ("cnnrnn_tf/model/cells.py", "import_module('cnnrnn_tf.training.run')", "model imports training"),
        ("cnnrnn_tf/viz/figures.py", "import cnnrnn_tf.evaluation.report", "viz imports evaluation"),
        ("cnnrnn_tf/serving/export.py", "from cnnrnn_tf.baselines import knn", "serving imports baselines"),
        ("cnnrnn_tf/training/run.py", "from cnnrnn_tf.commands import check", "training imports commands"),
        ("cnnrnn_tf/commands/check.py", "import train", "commands imports train.py"),
        ("train.py", "from cnnrnn_tf.commands.check import Check", "train.py imports commands"),
        ("train.py", "from tests import drawn_source", "tests.drawn_source is in no layer"),
        ("train.py", "from cnnrnn_tf import *", "cnnrnn_tf.* is in no layer"),
        ("cnnrnn_tf/__init__.py", "from cnnrnn_tf.config import x", "the package itself imports"),
        ("cnnrnn_tf/__init__.py", "from tfrecords.manifest import Manifest", "the package itself imports"),
        ("cnnrnn_tf/extras/new.py", "import tfrecords", "cnnrnn_tf.extras.new is in no layer"),
    ],
)
def test_an_import_that_runs_upwards_or_sideways_is_found(tmp_path, path, source, problem):
    lay_out(tmp_path, {path: "import json\n" + source})
    (violation,) = find_violations(tmp_path)
    assert violation.startswith(f"{path}:{source.count(chr(10)) + 2}: {problem}")


def test_imports_that_run_downwards_and_words_that_name_no_module_are_let_be(tmp_path):
    below = (
        "from tfrecords.errors import UserError\nfrom cnnrnn_tf import config\nimport cnnrnn_tf.data.images\n"
    )
    files = {
        "tfrecords/build.py": '"""Read by cnnrnn_tf.data.datasets."""\nfrom tfrecords.sources import base\n',
        "cnnrnn_tf/config.py": "from tfrecords.errors import UserError\n",
        "cnnrnn_tf/model/cells.py": below + "from . import losses\nfrom ..data import images\nimport keras\n",
        "cnnrnn_tf/training/run.py": below + "import cnnrnn_tf.baselines.knn, cnnrnn_tf.serving.export\n",
        "train.py": below + "from cnnrnn_tf.training import run\nimport cnnrnn_tf\n",
    }
    lay_out(tmp_path, files)
    assert find_violations(tmp_path) == []


def lay_out(root: Path, files: dict[str, str]) -> None:
    for path, text in ({"train.py": ""} | files).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


# ---- what --help needs leaves TensorFlow alone

# Imports each module named, in one interpreter that refuses TensorFlow and Keras, and prints who asked for
# them, even where the module catches the ImportError.
WATCH = """
import importlib, json, sys

class Watch:
    wishes = []

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras"):
            self.wishes.append(name)
            raise ModuleNotFoundError(name, name=name)

watch = Watch()
sys.meta_path.insert(0, watch)
guilty = []
for name in json.loads(sys.argv[1]):
    watch.wishes.clear()
    try:
        importlib.import_module(name)
    except ImportError as error:
        if not watch.wishes:
            raise
    if watch.wishes:
        guilty.append(f"{name} imports {watch.wishes[0]}")
print(json.dumps(guilty))
"""


def find_guilty(modules: list[str], root: Path) -> list[str]:
    """Those of `modules` that import TensorFlow or Keras when they are imported, in a fresh interpreter."""
    command = [sys.executable, "-c", WATCH, json.dumps(modules)]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_no_module_that_help_needs_imports_tensorflow():
    needed = [*(ROOT / "tfrecords").rglob("*.py"), *(ROOT / "cnnrnn_tf/commands").rglob("*.py")]
    names = {module_name(path.relative_to(ROOT)).removesuffix(".__init__") for path in needed}
    names = {name for name in names if not name.startswith("tfrecords.decoding.")}  # graph operations
    assert find_guilty(sorted(names | set(FREE_OF_TENSORFLOW)), ROOT) == []


def test_a_module_that_imports_tensorflow_is_found_even_where_it_catches_the_error(tmp_path):
    (tmp_path / "light.py").write_text("def f():\n    import tensorflow\n")
    (tmp_path / "heavy.py").write_text("import tensorflow as tf\n")
    (tmp_path / "hiding.py").write_text("try:\n    import keras.ops\nexcept ImportError:\n    keras = None\n")
    modules = ["light", "heavy", "hiding", "json"]
    assert find_guilty(modules, tmp_path) == ["heavy imports tensorflow", "hiding imports keras"]


def read_help(command: list[str], root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """(command line, fault) of each `--help` at and below `command`; the fault is empty where all is well."""
    argv = [sys.executable, "-X", "importtime", *command, "--help"]
    ended = subprocess.run(argv, cwd=root, capture_output=True, text=True, timeout=120)
    yield " ".join(command), find_fault(ended)
    subcommands = re.match(r"usage: .*\{([\w,-]+)\} \.\.\.\n", ended.stdout)
    for name in subcommands.group(1).split(",") if subcommands else ():
        yield from read_help([*command, name], root)


def find_fault(ended: subprocess.CompletedProcess) -> str:
    """What is wrong with a `--help` that ended; its stderr holds the import times."""
    if ended.returncode != 0:
        said = [line for line in ended.stderr.splitlines() if not line.startswith("import time:")]
        return f"exit status {ended.returncode}: {said[-1:]}"
    imported = re.search(r"^import time:.*\| +((?:tensorflow|keras)\b.*)$", ended.stderr, flags=re.MULTILINE)
    return f"imports {imported.group(1)}" if imported else ""


@pytest.mark.parametrize(
    ("command", "subcommands"),
    [
        ("train.py", set()),
        ("-m cnnrnn_tf.commands", SUBCOMMANDS),
        ("-m tfrecords", {"build", "build demo", "build table", "report"}),
    ],
)
def test_help_answers_without_tensorflow_at_every_subcommand(command, subcommands):
    pages = dict(read_help(command.split()))
    assert {line: fault for line, fault in pages.items() if fault} == {}
    assert {f"{command} {name}" for name in subcommands} <= set(pages)


def test_a_help_page_that_fails_or_imports_tensorflow_is_found(tmp_path):
    usage = (
        "import sys\nif len(sys.argv) == 2:\n    sys.exit(print('usage: tool {light,heavy,broken} ...'))\n"
    )
    heavy = "if sys.argv[1] == 'heavy':\n    import tensorflow.keras\n"
    broken = "if sys.argv[1] == 'broken':\n    sys.exit(3)\n"
    lay_out(
        tmp_path, {"tool.py": usage + heavy + broken, "tensorflow/keras.py": "", "tensorflow/__init__.py": ""}
    )
    pages = dict(read_help(["tool.py"], tmp_path))
    assert set(pages) == {"tool.py", "tool.py light", "tool.py heavy", "tool.py broken"}
    assert pages["tool.py"] == pages["tool.py light"] == ""
    assert pages["tool.py heavy"].startswith("imports tensorflow")
    assert pages["tool.py broken"] == "exit status 3: []"
