"""Command lines of `python -m tfrecords`, and the helper that both command lines of the project share."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro
from drawn_source import SMALL, DrawnSource
from PIL import Image
from readme_snippet import read_as_readme_says

from tfrecords.__main__ import main
from tfrecords.build import build
from tfrecords.cli import format_command, parse, run_main
from tfrecords.errors import UserError

ROOT = Path(__file__).parents[1]
FIGURES = ["co_occurrence.png", "label_frequencies.png", "image_sizes.png"]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of 20 photographs in the current folder; returns its path."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for i in range(20):
        Image.new("RGB", (8, 6), (i, i, i)).save(f"{i}.jpg")
        rows.append(f"{i}.jpg,{'sea;sky' if i % 2 else 'sky'},{'test' if i > 14 else 'train'}\n")
    Path("labels.csv").write_text("image,labels,split\n" + "".join(rows))
    return "labels.csv"


# ---- the commands


def test_a_table_is_built_and_reported(table, capsys):
    assert main(["build", "table", "--from", table, "--name", "coast"]) == 0
    out = capsys.readouterr().out
    assert "built data/coast" in out
    assert "train           15 images        22 labels" in out
    assert f"next: {format_command('python', '-m', 'tfrecords', 'report', 'coast')}" in out
    lines = read_as_readme_says("data/coast")
    assert len(lines) == 3 and all("'sea'" in line or "'sky'" in line for line in lines)
    assert main(["report", "coast"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("coast: 2 labels")
    assert out.splitlines()[-1] == f"figures: {', '.join(FIGURES)} in data/coast/report"
    assert main(["report", "coast", "--json", "--k", "1", "--no-figures"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["splits"]["test"]["num_images"] == 5
    assert summary["figures"] == []


def test_figures_of_a_report_go_where_the_flags_say(table, capsys):
    assert main(["build", "table", "--from", table]) == 0
    folder = Path("data/labels")
    built = sorted(path.name for path in folder.iterdir())
    capsys.readouterr()
    assert main(["report", "labels", "--no-figures"]) == 0
    assert "figures" not in capsys.readouterr().out
    assert main(["report", "labels", "--json", "--figures", "here/there"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"] == [f"here/there/{name}" for name in FIGURES]
    assert sorted(path.name for path in folder.iterdir()) == built
    assert main(["report", "labels", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["figures"]
    assert written == [f"data/labels/report/{name}" for name in FIGURES]
    for path in written:
        with Image.open(path) as image:
            assert image.format == "PNG" and min(image.size) > 300


def test_a_data_set_with_figures_is_verified_and_built_again(table, capsys):
    assert main(["build", "table", "--from", table]) == 0
    assert main(["report", "labels"]) == 0
    assert main(["verify", "labels"]) == 0
    assert main(["build", "table", "--from", table, "--overwrite"]) == 0
    assert not Path("data/labels/report").exists()  # it might not be true of the new one
    assert main(["report", "labels"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--figures labels.csv",
            "error: cannot write figures into labels.csv: labels.csv is no folder; choose",
        ),
        (
            "--figures labels.csv/x",
            "another place with --figures FOLDER, or leave them out with --no-figures",
        ),
        ("--figures x --no-figures", "error: --figures x and --no-figures exclude each other: leave one out"),
    ],
)
def test_figures_that_cannot_be_written_are_told_before_anything_is_read(table, capsys, flags, message):
    assert main(["build", "table", "--from", table]) == 0
    for shard in Path("data/labels").glob("*.tfrecord"):
        shard.unlink()
    capsys.readouterr()
    assert main(["report", "labels", *flags.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""


def test_skips_are_shown_by_reason_after_a_build(table, capsys):
    Path("3.jpg").unlink()
    Path("4.jpg").write_bytes(b"")
    assert main(["build", "table", "--from", table, "--data-dir", "elsewhere"]) == 0
    out = capsys.readouterr().out
    assert "skipped: 1 empty_file, 1 missing_image (listed in skipped.csv)" in out
    assert "python -m tfrecords report labels --data-dir elsewhere" in out


def test_the_demo_is_built_by_name(tmp_path, capsys):
    data_dir = str(tmp_path)
    assert main(["build", "demo", "--num-train", "20", "--num-test", "8", "--data-dir", data_dir]) == 0
    manifest = json.loads((tmp_path / "demo" / "manifest.json").read_text())
    assert (manifest["source"], manifest["splits"]["train"]["num_images"]) == ("demo", 20)


def test_the_version_is_that_of_the_package_and_of_what_it_stands_on(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(version(name) in out for name in ("cnnrnn-tf", "tensorflow", "keras"))


MISTAKES = [
    ("", "`python -m tfrecords` needs a subcommand: expected build or report"),
    ("bild demo", "unknown subcommand 'bild' (did you mean 'build'?)"),
    ("build", "`python -m tfrecords build` needs a subcommand: expected demo or table or nuswide81"),
    (
        "build coko",
        "unknown subcommand 'coko' (did you mean 'coco'?): expected demo or table or nuswide81",
    ),
    (
        "build demo --sed 3",
        "unknown flag --sed (did you mean '--seed'?); see `python -m tfrecords build demo --help`",
    ),
    ("build demo --seed=x", "--seed: invalid literal for int() with base 10: 'x'; see `python"),
    ("build demo --seed", "Missing value for argument '--seed'"),
    ("build demo extra", "Unrecognized options: extra"),
    ("build demo --workers 0", "--workers 0: expected 1 or more"),
    ("build demo --num-train 0", "error: "),
    ("build table", "missing --from; see `python -m tfrecords build table --help`"),
    ("build table --from nope.csv", "cannot read the table nope.csv: No such file or directory"),
    ("build table --from labels.csv --images nowhere", "nowhere: no such folder or archive of images"),
    ("build table --from labels.csv --labels-column tags", "--labels-column tags: no such column"),
    ("build table --from labels.csv --label-separator ,", "error: "),
    ("build table --from labels.csv --name a/b", "'a/b' cannot name a data set"),
    ("build table --from one.csv", "a single label, 'sea', was found in the annotations of 2 images"),
    (
        "build table --from values.csv",
        "values.csv line 3: column 'sky' has the value '2': expected 1, 0, or blank",
    ),
    ("report", "missing NAME"),
    ("report coast", "data: run `python -m tfrecords build table --from LABELS.csv"),
    ("report demo", "data: run `python -m tfrecords build demo`"),
    ("report coast --k 0", "--k 0: expected 1 or more"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[case[0] or "nothing" for case in MISTAKES])
def test_a_mistake_is_one_line_on_stderr_and_status_2(table, capsys, line, message):
    Path("one.csv").write_text("image,labels\n1.jpg,sea\n2.jpg,sea\n")
    Path("values.csv").write_text("image,sea,sky\n1.jpg,1,0\n2.jpg,1,2\n")
    if "--label-separator" in line:
        Path("labels.csv").write_text("image,labels\n1.jpg,sea;sky\n2.jpg,sea;sky\n")
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert not Path("data").exists() or not list(Path("data").iterdir())


def test_an_existing_data_set_is_refused_with_the_flag_that_replaces_it(table, capsys):
    assert main(["build", "table", "--from", table]) == 0
    assert main(["build", "table", "--from", table]) == 2
    assert capsys.readouterr().err.endswith(
        "error: data/labels exists: pass --overwrite to replace it, or choose another --name\n"
    )
    assert main(["build", "table", "--from", table, "--overwrite"]) == 0


@pytest.mark.parametrize(
    "line", [["--help"], ["build", "--help"], ["build", "table", "-h"], ["report", "--help"]]
)
def test_help_answers_with_status_0_and_without_tensorflow(line):
    # In a process of its own, so that what other tests imported does not count.
    code = (
        "import sys, tfrecords.__main__\n"
        "try: tfrecords.__main__.main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'tensorflow', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: python -m tfrecords" in done.stdout


def test_no_module_but_the_records_own_needs_tensorflow_to_be_imported():
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "tfrecords").rglob("*.py")
        if path.parent.name != "decoding"  # graph operations
    )
    code = (
        f"import sys, importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_output_into_a_closed_pipe_ends_quietly(table):
    assert main(["build", "table", "--from", table]) == 0
    line = f"{sys.executable} -m tfrecords report labels --json | true"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


# ---- the helper


@dataclass
class Optimizer:
    """How to descend."""

    learning_rate: float = 1e-3
    momentum: float = 0.9


@dataclass
class TrainModel:
    """Trains a model. More about it."""

    dataset: str
    """Name of the data set."""
    cell: Literal["lstm", "gru", "paper"] = "lstm"
    epochs: int = 10
    photos: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="from")] = ()
    mirror: bool = True
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    optimizer: Optimizer = field(default_factory=Optimizer)

    def __post_init__(self):
        if self.epochs < 1:
            raise UserError(f"--epochs {self.epochs}: expected 1 or more")


@dataclass
class Check:
    """Checks an export."""

    export: Annotated[str, tyro.conf.Positional]


def test_a_dataclass_is_filled_from_flags_and_defaults():
    filled = parse(TrainModel, ["--dataset", "demo", "--optimizer.learning-rate=0.1"], prog="train.py")
    assert filled == TrainModel("demo", optimizer=Optimizer(learning_rate=0.1))
    default = TrainModel("demo", epochs=3, optimizer=Optimizer(momentum=0.5))
    assert parse(TrainModel, ["--epochs", "4"], prog="train.py", default=default) == TrainModel(
        "demo", epochs=4, optimizer=Optimizer(momentum=0.5)
    )


@pytest.mark.parametrize(
    "commands",
    [
        {"train-model": TrainModel, "check": Check},
        TrainModel | Check,
        Annotated[TrainModel, tyro.conf.subcommand(name="train-model")] | Check,
    ],
    ids=["dictionary", "union", "named union"],
)
def test_subcommands_come_as_a_dictionary_or_a_union(commands, capsys):
    assert parse(commands, ["check", "out/1"], prog="cnnrnn") == Check("out/1")
    assert parse(commands, ["train-model", "--dataset", "demo"], prog="cnnrnn") == TrainModel("demo")
    with pytest.raises(
        UserError, match=r"unknown subcommand 'chekc' \(did you mean 'check'\?\): expected train-model"
    ):
        parse(commands, ["chekc"], prog="cnnrnn")
    with pytest.raises(SystemExit) as stop:
        parse(commands, ["--help"], prog="cnnrnn", description="Tags images.")
    assert not stop.value.code
    page = capsys.readouterr().out
    assert page.startswith("usage: cnnrnn {train-model,check} ...\n\nTags images.\n")
    assert "  train-model  Trains a model\n" in page


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--datset", "demo"],
            r"^unknown flag --datset \(did you mean '--dataset'\?\); see `train.py --help`$",
        ),
        (
            ["--learning-rate", "1"],
            r"^unknown flag --learning-rate \(did you mean '--optimizer.learning-rate'\?\)",
        ),
        (["--optimizer.learning_rat=1"], r"\(did you mean '--optimizer.learning-rate'\?\)"),
        (
            ["--dataset", "a", "--optimizer.learning_rate", "x"],
            r"^--optimizer.learning-rate: could not convert",
        ),
        (["--zebra"], r"^unknown flag --zebra; see `train.py --help`$"),
        ([], r"^missing --dataset; see"),
        (
            ["--dataset", "a", "--cell", "lsmt"],
            r"^--cell lsmt: no such choice \(did you mean 'lstm'\?\); expected lstm or",
        ),
        (["--dataset", "a", "--epochs", "1" * 90 + "x"], "^--epochs: invalid literal .*" + "1" * 90 + "x"),
        (["--dataset", "a", "--epochs", "0"], r"^--epochs 0: expected 1 or more; see"),
        (["--dataset", "a", "--epochs"], r"^Missing value for argument '--epochs'\. Expected 1 values; see"),
    ],
)
def test_every_mistake_in_flags_is_one_line_with_the_fix(args, message, capsys):
    with pytest.raises(UserError, match=message) as raised:
        parse(TrainModel, args, prog="train.py")
    assert "\n" not in str(raised.value)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--epochs 3 --epochs 4", r"^--epochs is given twice, as '3' and as '4': leave one out; see `"),
        ("--epochs=3 --cell gru --epochs 3", r"^--epochs is given twice, as '3' and as '3'"),
        ("--epochs=3 --epochs=4", r"^--epochs is given twice, as '3' and as '4'"),
        ("--dataset b", r"^--dataset is given twice, as 'a' and as 'b'"),
        (
            "--optimizer.learning_rate 1 --optimizer.learning-rate=2",
            r"^--optimizer.learning-rate is given twice, as '1' and as '2'",
        ),
        ("--mirror --no-mirror", r"^--mirror and --no-mirror exclude each other: leave one out"),
    ],
)
def test_a_flag_that_would_replace_itself_is_refused(line, message):
    with pytest.raises(UserError, match=message):
        parse(TrainModel, ["--dataset", "a", *line.split()], prog="train.py")


def test_flags_that_take_several_values_and_switches_may_come_again():
    line = "--dataset a --from x.csv --quick --from=y.csv --quick --optimizer.momentum -1"
    filled = parse(TrainModel, line.split(), prog="train.py")
    assert (filled.photos, filled.quick, filled.optimizer.momentum) == (("x.csv", "y.csv"), True, -1.0)


@pytest.mark.parametrize("columns", ["66", None])
def test_the_width_of_the_terminal_is_left_as_it_was(monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(UserError):
        parse(TrainModel, [], prog="train.py")
    assert os.environ.get("COLUMNS") == columns


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [(UserError("no\nsuch thing"), 2, "error: no such thing\n"), (KeyboardInterrupt(), 130, "interrupted\n")],
)
def test_run_main_turns_errors_into_a_status_and_one_line(error, status, text, capsys):
    def run():
        raise error

    assert run_main(run) == status
    assert capsys.readouterr().err == text


def test_run_main_passes_the_status_on_and_leaves_bugs_alone():
    assert run_main(lambda: None) == 0
    assert run_main(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        run_main(lambda: 1 / 0)


def test_files_that_are_in_the_way_and_shards_that_are_gone_are_one_line(tmp_path, capsys):
    build(DrawnSource(SMALL), "small", tmp_path, progress=False)
    shard = next((tmp_path / "small").glob("train-*.tfrecord"))
    whole = shard.read_bytes()
    damages = {
        f"{shard}: is missing, expected 4": None,
        f"{shard}: holds 3 whole records, expected 4": whole[:-5],
        "records are missing or damaged": whole[:20] + b"xxxx" + whole[24:],
    }
    for fault, content in damages.items():
        shard.unlink() if content is None else shard.write_bytes(content)
        assert main(["report", "small", "--data-dir", str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(f"error: {fault}") and line.endswith("build the data set again")
    (tmp_path / "odd" / "manifest.json").mkdir(parents=True)
    assert main(["report", "odd", "--data-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {tmp_path / 'odd' / 'manifest.json'}: Is a directory")
