"""Mistakes that can be known without TensorFlow are told without it: in one line, with status 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from squares import build_squares, configure

from cnnrnn_tf.model.backbone_names import backbone_names, find_application_classes
from tfrecords.manifest import Manifest
from tfrecords.vocabulary import LabelVocabulary

ROOT = Path(__file__).parents[1]

# Runs each command line in one interpreter that refuses TensorFlow and Keras, and prints what came of it.
RUN = """
import contextlib, io, json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras") and not importing_spec:
            raise RuntimeError(f"imports {name}")

importing_spec = False
sys.meta_path.insert(0, Refuse())
import importlib.util

def find_spec(name, package=None, find=importlib.util.find_spec):
    global importing_spec
    importing_spec = True
    try:
        return find(name, package)
    finally:
        importing_spec = False

importlib.util.find_spec = find_spec
import train
from cnnrnn_tf.commands import __main__ as cnnrnn

told = []
for name, *words in json.load(sys.stdin):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = train.main(words) if name == "train.py" else cnnrnn.main([name, *words])
        except RuntimeError as error:
            status = str(error)
    told.append([status, err.getvalue()])
print(json.dumps(told))
"""

MISTAKES = [
    ("train.py --dataset ponds", "run `python -m tfrecords build table --from LABELS.csv"),
    ("train.py --dataset sqares", "(did you mean 'squares'?): run `python -m tfrecords build"),
    ("train.py --dataset coco2014", "run `python -m tfrecords build coco2014 --from FOLDER`"),
    ("train.py --dataset squares --backbone mobilnet_v2", "(did you mean 'mobilenet_v2'?)"),
    ("train.py --dataset squares --backbone EfficientNetB9", "(did you mean 'EfficientNetB0'?)"),
    (
        "train.py --dataset demo --backbone-weights none.h5",
        "backbone weights none.h5: no such file; expected `imagenet`",
    ),
    (
        "train.py --dataset demo --backbone-weights imagenet",
        "nobody trained the compact backbone on ImageNet",
    ),
    ("train.py --cell lstn", "--cell lstn: no such choice (did you mean 'lstm'?)"),
    ("train.py --dataset demo --protocol cnnrnn", "unknown protocol 'cnnrnn' (did you mean 'cnn-rnn'?)"),
    ("train.py --dataset squares --run-name first", "runs/squares/first exists, and a run is never"),
    ("train.py --dataset demo --runs-dir note.txt", "note.txt/demo: cannot be created ("),
    ("train.py --resume none", "none: no config.json there; expected the folder of a run"),
    (
        "train.py --resume runs/squares/first",
        "longer with `python train.py --resume runs/squares/first",
    ),
    ("train.py --resume runs/squares/first --epochs 2", "--epochs 2: runs/squares/first has 8 already"),
    ("train.py --resume runs/squares/first --epochs 9", "first/backup: is gone, so this finished run cannot"),
    ("train.py --resume runs/squares/first --seed 9", "leave --seed out; only --epochs, --patience and"),
    ("train.py", "expected --dataset NAME: start with"),
    ("predict none photo.jpg", "none: no such folder; expected a run"),
    ("predict runs/squares/open photo.jpg", "the run is not finished; finish it with `python train.py"),
    ("predict RUN none.jpg", "none of 1 could be tagged; each line above says why"),
    ("predict EXPORT none.jpg", "none of 1 could be tagged; each line above says why"),
    ("predict RUN photo.jpg --given rad", "unknown label 'rad' (did you mean 'red'?)"),
    ("predict EXPORT photo.jpg --given rad", "unknown label 'rad' (did you mean 'red'?)"),
    ("predict RUN photo.jpg --save-grid note.txt/a.png", "--save-grid note.txt/a.png: cannot be written ("),
    ("tag . --model none --out new.jsonl", "none: no such folder; expected a run"),
    ("tag . --model EXPORT --out new.jsonl --given rad", "unknown label 'rad' (did you mean 'red'?)"),
    ("tag . --model EXPORT --out note.txt", "note.txt: is there already, and no note.txt.state.json"),
    ("tag . --model EXPORT --out note.txt/a", "--out note.txt/a: cannot be written ("),
    ("evaluate none", "none: no config.json there"),
    ("evaluate RUN --split tset", "has no split 'tset' (did you mean 'test'?)"),
    ("evaluate RUN --protocol mlgcn", "unknown protocol 'mlgcn' (did you mean 'ml-gcn'?)"),
    ("evaluate runs/squares/moved", "moved: its data set 'gone' is not in "),
    ("evaluate RUN --data-dir nowhere", "the data set 'squares' is not built in "),
    ("evaluate nothing/latest", "nothing/latest: no config.json there"),
    ("evaluate runs/squares", "expected the folder of a run, such as "),
    ("evaluate --predictions none.jsonl", "none.jsonl: cannot be read"),
    ("export none", "none: no config.json there"),
    ("export RUN --out note.txt", "--out note.txt: cannot be written ("),
    ("check none", "no export at none"),
    ("check EXPORT --images none.jpg", "--images none.jpg: no such file"),
    ("compare --dataset ponds", "the data set 'ponds' is not built in "),
    ("compare --dataset squares --methods sofmax", "no method is called 'sofmax' (did you mean 'softmax'?)"),
    ("compare --dataset squares --backbone vgg61", "unknown backbone 'vgg61' (did you mean 'vgg16'?)"),
    ("compare --dataset squares --seeds 0", "--seeds 0: expected 1 or more"),
    ("compare --dataset squares --protocol asll", "unknown protocol 'asll' (did you mean 'asl'?)"),
    ("compare --dataset squares --runs-dir note.txt", "note.txt/squares: cannot be created ("),
    ("evaluate RUN --threshold 0.5", "unknown flag --threshold; see `cnnrnn evaluate --help`"),
    ("export RUN --precison bfloat16", "unknown flag --precison (did you mean '--precision'?)"),
    ("train.py --learning_rat 1", "unknown flag --learning_rat (did you mean '--learning-rate'?)"),
    ("client none.jpg", "none of 1 could be tagged; each line above says why"),
    # What is wrong with the flags alone comes before what is on the disk.
    ("train.py --dataset ponds --backbone vgg61", "unknown backbone 'vgg61' (did you mean 'vgg16'?)"),
    ("train.py --dataset ponds --protocol asll", "unknown protocol 'asll' (did you mean 'asl'?)"),
    ("predict none none.jpg --batch-size 0", "--batch-size 0: expected 1 or more"),
    ("predict none none.jpg --save-grid note.txt", "--save-grid note.txt: expected .png, "),
    ("tag none --model none --out note.txt --readers 0", "--readers 0: expected 1 or more"),
    ("tag none --model none --out note.txt --beam-options=--x=1", "--beam-options is for tagging by Apache"),
    ("evaluate none --protocol mlgcn", "unknown protocol 'mlgcn' (did you mean 'ml-gcn'?)"),
    ("evaluate none --holdout none.jsonl", "--holdout FILE goes with --predictions FILE"),
    ("export none --max-beam-size -1", "--max-beam-size -1: expected 1 or more, or 0"),
    ("check none --timeout-s 0", "--timeout-s 0: expected 1 or more"),
    ("compare --dataset ponds --protocol asll", "unknown protocol 'asll' (did you mean 'asl'?)"),
    ("compare --dataset ponds --methods sofmax", "no method is called 'sofmax' (did you mean 'softmax'?)"),
    ("client none.jpg --batch-size 0", "batch_size 0: expected 1 or more"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set, a finished and an open run, and an export, as far as they are read without TensorFlow."""
    path = tmp_path_factory.mktemp("mistakes")
    build_squares(path / "data")
    (path / "note.txt").write_text("a note")
    (path / "photo.jpg").touch()
    vocabulary = LabelVocabulary.load(path / "data" / "squares")
    records = {"records_fingerprint": Manifest.load(path / "data" / "squares").fingerprint}
    for name, dataset in (("first", "squares"), ("open", "squares"), ("moved", "gone")):
        run = path / "runs" / "squares" / name
        (run / "checkpoints").mkdir(parents=True)
        configure("data", dataset).save(run / "config.json")
        vocabulary.save(run / "vocabulary.json")
        (run / "environment.json").write_text(json.dumps(records))
        if name != "open":
            (run / "checkpoints" / "best.keras").touch()
            (run / "metrics.json").write_text("{}")
            (run / "history.csv").write_text("epoch,val_nll\n" + "".join(f"{i},1.0\n" for i in range(8)))
    version = path / "runs" / "squares" / "first" / "export" / "1"
    (version / "assets").mkdir(parents=True)
    (version / "saved_model.pb").touch()
    vocabulary.save(version / "assets" / "vocabulary.json")
    facts = {"vocabulary_fingerprint": vocabulary.fingerprint}
    (version / "assets" / "export.json").write_text(json.dumps(facts))
    return path


def test_mistakes_are_told_before_tensorflow_is_loaded(folder):
    names = {"RUN": "runs/squares/first", "EXPORT": "runs/squares/first/export"}
    lines = [[names.get(word, word) for word in line.split()] for line, _ in MISTAKES]
    ended = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(lines),
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    wrong = []
    for (line, message), (status, err) in zip(MISTAKES, json.loads(ended.stdout), strict=True):
        last = err.splitlines()[-1] if err else ""
        if status != 2 or not last.startswith("error: ") or message not in last:
            wrong.append((line, status, err))
    assert not wrong, "\n".join(map(str, wrong))


def test_the_names_of_backbones_are_those_of_keras():
    from cnnrnn_tf.model.backbones import _application_classes

    assert find_application_classes() == set(_application_classes())
    assert backbone_names()[:4] == ["compact", "vgg16", "resnet50", "mobilenet_v2"]
