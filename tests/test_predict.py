"""Command lines of `cnnrnn`: predict, export and check, on a run made by hand with a tiny real model."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_model import VOCABULARY, make_model, make_photograph

from cnnrnn_tf.commands import predict, tagging
from cnnrnn_tf.commands.__main__ import main
from cnnrnn_tf.config import DecodingConfig, ExperimentConfig
from cnnrnn_tf.evaluation.calibration import Calibration, apply_temperature
from cnnrnn_tf.serving import image_files
from cnnrnn_tf.serving.tagged_image import TaggedImage
from tfrecords.cli import format_command
from tfrecords.errors import UserError


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run as train.py leaves it, as far as these commands read it."""
    path = tmp_path_factory.mktemp("runs") / "photos" / "first"
    (path / "checkpoints").mkdir(parents=True)
    ExperimentConfig(decoding=DecodingConfig(beam_size=4, max_length=3)).save(path / "config.json")
    VOCABULARY.save(path / "vocabulary.json")
    make_model().save(path / "checkpoints" / "best.keras")
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of three photographs, a note, a damaged photograph and a folder with one more."""
    path = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(("c.jpg", "a.PNG", "b.jpeg")):
        (path / name).write_bytes(make_photograph(seed, "PNG" if name.endswith("PNG") else "JPEG"))
    (path / "notes.txt").write_text("not a photograph")
    (path / "cut.jpg").write_bytes(make_photograph(5)[:200])
    (path / "more").mkdir()
    (path / "more" / "d.jpg").write_bytes(make_photograph(7))
    return path


@pytest.fixture(scope="module")
def loaded(run_dir):
    return predict.load_tagger(run_dir)


@pytest.fixture
def quick(monkeypatch, loaded):
    """The run is loaded once for all tests of what is printed."""
    monkeypatch.setattr(predict, "check_model", lambda path: loaded[1])
    monkeypatch.setattr(predict, "load_tagger", lambda path: loaded)


def run_json(capsys, *words, status=0):
    assert main(["predict", *map(str, words), "--json"]) == status
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], err


# ---- what is tagged


def test_words_are_files_folders_and_patterns_each_file_once(photos, monkeypatch):
    monkeypatch.chdir(photos)
    words = ["c.jpg", ".", "more", "*.txt", "*", "x.jpg", "*.tif", "more"]
    paths, problems, others, num_folders = predict.find_images(words)
    assert [str(path) for path in paths] == ["c.jpg", "a.PNG", "b.jpeg", "cut.jpg", "more/d.jpg", "notes.txt"]
    assert problems == [("x.jpg", "no such file"), ("*.tif", "no file matches")]
    assert others == {".txt": 1} and num_folders == 2  # more, in . and in *


def test_a_folder_without_images_and_a_name_that_looks_like_a_pattern(tmp_path):
    (tmp_path / "empty").mkdir()
    odd = tmp_path / "a[1].jpg"
    odd.write_bytes(b"")
    found = predict.find_images([str(odd), str(tmp_path / "empty")])
    assert found.paths == [odd]
    assert found.problems == [(str(tmp_path / "empty"), "no images in this folder")]


def test_a_name_that_is_no_utf_8_leaves_json_that_is(capsysbinary):
    report = tagging.Report(as_json=True)
    report.add_problem("\udcff.jpg", "empty")
    report.add(Path("é\udcfe.jpg"), TaggedImage(("été",), (0.5,), (0.5,), 0.5))
    report.add_problem("é.jpg", "empty")
    lines = capsysbinary.readouterr().out.splitlines()
    assert lines[2].decode() == '{"image": "é.jpg", "error": "empty"}'
    rows = [json.loads(line) for line in lines]
    assert [os.fsencode(row["image"]) for row in rows[:2]] == [b"\xff.jpg", "é".encode() + b"\xfe.jpg"]
    assert rows[1]["labels"] == ["été"]


def test_no_images_at_all_are_a_mistake():
    with pytest.raises(UserError, match="no images: name files, folders or patterns"):
        predict.find_images([])


# ---- what is printed


def test_each_image_is_told_with_its_labels_and_probabilities(quick, loaded, photos, capsys):
    from cnnrnn_tf.serving.signatures import tag_files

    tagger, _ = loaded
    files = [photos / "c.jpg", photos / "a.PNG", photos / "b.jpeg", photos / "more" / "d.jpg"]
    assert main(["predict", "RUN", *map(str, files), "--batch-size", "3"]) == 0
    blocks = re.split(r"^(?=\S)", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    assert len(blocks) == 4
    answers = list(tag_files(tagger, [path.read_bytes() for path in files]))
    assert any(answer.labels for answer in answers)
    for block, path, answer in zip(blocks, files, answers, strict=True):
        head, *rows = block.splitlines()
        assert head.startswith(f"{path}: ")
        assert head.endswith(f"path probability {answer.path_probability:.3g}")
        found = [row.split() for row in rows]
        assert [row[0] for row in found] == list(answer.labels)
        assert [float(row[2]) for row in found] == pytest.approx(answer.probabilities, abs=6e-4)
        assert [float(row[4]) for row in found] == pytest.approx(answer.step_probabilities, abs=6e-4)


def test_bad_files_get_a_line_each_and_status_1(quick, photos, capsys):
    words = [photos, photos / "notes.txt", photos / "x.jpg"]
    assert main(["predict", "RUN", *map(str, words)]) == 1
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"{photos / 'x.jpg'}: no such file",
        f"{photos / 'cut.jpg'}: cut off",
        f"{photos / 'notes.txt'}: not an image",
        "tagged 3 of 6 images; 3 could not be (1 no such file, 1 cut off, 1 not an image); 1 other file "
        "is no image (1 .txt); 1 folder was not searched (cnnrnn tag searches all)",
    ]
    assert len(re.findall(r"path probability", out)) == 3


def test_a_file_that_cannot_be_read_is_told_as_such(quick, photos, capsys, monkeypatch):
    open_regular = image_files.open_regular

    def refuse(path):
        if path.name == "a.PNG":
            raise PermissionError(13, "Permission denied")
        return open_regular(path)

    monkeypatch.setattr(image_files, "open_regular", refuse)
    rows, _ = run_json(capsys, "RUN", photos / "a.PNG", photos / "c.jpg", status=1)
    assert rows[0] == {"image": str(photos / "a.PNG"), "error": "Permission denied"}
    assert rows[1]["error"] == ""


def test_nothing_usable_is_status_2(quick, photos, capsys):
    assert main(["predict", "RUN", str(photos / "cut.jpg"), "nowhere"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[:2] == ["nowhere: no such file", f"{photos / 'cut.jpg'}: cut off"]
    assert err.splitlines()[2].startswith("error: none of 2 could be tagged")


def test_given_labels_are_in_every_answer_and_marked(quick, photos, capsys):
    words = ["RUN", str(photos / "c.jpg"), str(photos / "b.jpeg"), "--given", "car, été,car"]
    assert main(["predict", *words]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^  car .* given$", out, flags=re.MULTILINE)) == 2
    assert len(re.findall(r"^  été .* given$", out, flags=re.MULTILINE)) == 2
    assert out.count("given") == 4


MISTAKES = [
    ("--given skie", "error: unknown label 'skie' (did you mean 'sky'?): expected one of sky, sea, été"),
    ("--given sky,sea,boat,car", "error: --given names 4 labels: this model gives an image at most 3"),
    ("--batch-size 0", "error: --batch-size 0: expected 1 or more"),
    ("--save-grid grid.txt", "error: --save-grid grid.txt: expected .png, .jpg, .jpeg, .pdf, .svg"),
    ("--gven sky", "error: unknown flag --gven (did you mean '--given'?); see `cnnrnn predict --help`"),
]


def test_the_most_probable_labels_are_those_of_signature_scores(quick, loaded, photos, capsys):
    tagger, vocabulary = loaded
    file = photos / "c.jpg"
    ranking = tagger.scores([file.read_bytes()])["ranking"].numpy()[0]
    best = [vocabulary.names[i] for i in np.argsort(-ranking, kind="stable")]
    [row], _ = run_json(capsys, "RUN", file, "--top-k", 3)
    assert row["labels"] == best[:3] and row["step_probabilities"] == [] and row["path_probability"] is None
    [row], _ = run_json(capsys, "RUN", file, "--top-k", 99)
    assert row["labels"] == best
    [some], _ = run_json(capsys, "RUN", file, "--top-k", 99, "--threshold", row["probabilities"][1])
    assert some["labels"] == best[:2]
    assert main(["predict", "RUN", str(file), "--top-k", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{file}: 1 label, the most probable first\n  {best[0]}  ")


def test_the_search_is_steered_as_the_server_s_is(quick, loaded, photos, capsys):
    tagger, _ = loaded
    file = photos / "c.jpg"
    options = {"beam_size": 2, "min_length": 1, "max_length": 2, "threshold": 0.2}
    flags = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    [row], _ = run_json(capsys, "RUN", file, *flags)
    expected = tagger.tag([file.read_bytes()], **{name: [value] for name, value in options.items()})
    assert row["labels"] == [name.decode() for name in expected["labels"].numpy()[0] if name]
    assert row["path_probability"] == expected["path_probability"].numpy()[0]


def test_a_run_s_own_folder_among_the_images_is_no_image(quick, run_dir, photos, capsys):
    words = [run_dir, run_dir, photos / "c.jpg"]  # as a shell reads runs/photos/*
    rows, err = run_json(capsys, *words)
    assert len(rows) == 1 and err == ""


@pytest.mark.parametrize(("flags", "message"), MISTAKES)
def test_mistakes_are_one_line_and_status_2(quick, photos, capsys, flags, message):
    assert main(["predict", "RUN", str(photos), *flags.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message) and err.count("\n") == 1


def test_the_grid_shows_the_images_that_were_tagged(quick, photos, tmp_path, capsys, monkeypatch):
    from cnnrnn_tf.viz import figures

    drawn = {}
    monkeypatch.setattr(figures, "save_grid", lambda path, **content: drawn.update(path=path, **content))
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (60, 40)).save(turned, exif=exif)
    words = ["RUN", photos / "cut.jpg", photos / "c.jpg", turned, "--save-grid", tmp_path / "grid.png"]
    rows, _ = run_json(capsys, *words, status=1)
    assert drawn["path"] == tmp_path / "grid.png"
    assert drawn["names"] == ["c.jpg", "turned.jpg"]
    assert drawn["pictures"][1].shape == (60, 40, 3)
    expected = [list(zip(row["labels"], row["probabilities"], strict=True)) for row in rows[1:]]
    assert [[(name, p) for name, p in tags] for tags in drawn["tags"]] == expected


def test_the_grid_is_a_picture(quick, photos, tmp_path):
    assert main(["predict", "RUN", str(photos / "c.jpg"), "--save-grid", str(tmp_path / "grid.png")]) == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert min(grid.size) > 100


# ---- runs and exports


def test_an_export_of_a_run_tags_as_the_run_does(run_dir, photos, capsys, request, monkeypatch):
    assert main(["export", str(run_dir)]) == 0
    version = run_dir / "export" / "1"
    assert capsys.readouterr().out.splitlines() == [
        f"exported {version}",
        f"next: {format_command('cnnrnn', 'check', version)}",
    ]
    from_export, _ = run_json(capsys, version.parent, photos, "--given", "boat", status=1)
    request.getfixturevalue("quick")
    from_run, _ = run_json(capsys, run_dir, photos, "--given", "boat", status=1)
    assert [row.get("labels") for row in from_export] == [row.get("labels") for row in from_run]
    assert from_export[-1] == {"image": str(photos / "cut.jpg"), "error": "cut off"}
    for first, second in zip(from_run[:-1], from_export[:-1], strict=True):
        for key in ("probabilities", "step_probabilities", "path_probability"):
            np.testing.assert_allclose(first[key], second[key], rtol=1e-4)
    monkeypatch.undo()
    shutil.rmtree(version / "variables")
    assert main(["predict", str(version), str(photos)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {version} does not load (") and err.count("\n") == 1


def test_the_next_export_may_go_elsewhere(run_dir, tmp_path, monkeypatch, capsys):
    from cnnrnn_tf.serving import export as export_module

    calls = []

    def export(model, vocabulary, decoding, out_dir, calibration, **options):
        calls.append((model.vocabulary_fingerprint, vocabulary, decoding.beam_size, out_dir, calibration))
        assert (options["part"], options["precision"]) == ("whole", "float32")
        return out_dir / "4"

    monkeypatch.setattr(export_module, "export", export)
    assert main(["export", str(run_dir), "--out", str(tmp_path)]) == 0
    assert calls == [(VOCABULARY.fingerprint, VOCABULARY, 4, tmp_path, None)]  # a run without a calibration
    assert capsys.readouterr().out.startswith(f"exported {tmp_path / '4'}\n")


def test_predict_and_export_use_the_run_s_calibration(run_dir, tmp_path, photos, monkeypatch, capsys):
    from cnnrnn_tf.serving import export as export_module

    fitted = Calibration(3.0, 0.4, [0.4] * 6, 0.1, 0.05, 20, VOCABULARY.fingerprint)
    copy = shutil.copytree(run_dir, tmp_path / "calibrated")
    fitted.save(copy)
    calls = []
    monkeypatch.setattr(export_module, "export", lambda *args, **_: calls.append(args) or tmp_path / "4")
    assert main(["export", str(copy)]) == 0
    assert calls[0][-1] == fitted
    capsys.readouterr()
    rows = [run_json(capsys, path, photos / "a.PNG", photos / "b.jpeg")[0] for path in (run_dir, copy)]
    assert any(row["labels"] for row in rows[0])
    for plain, calibrated in zip(*rows, strict=True):
        assert (plain["calibrated"], calibrated["calibrated"]) == (False, True)
        expected = apply_temperature(np.array(plain["probabilities"]), 3.0)
        assert calibrated["probabilities"] == pytest.approx(expected.tolist(), rel=1e-4)
        for key in ("labels", "step_probabilities", "path_probability"):
            assert calibrated[key] == plain[key]
    for path, word, other in ((run_dir, "marginal", "probability"), (copy, "probability", "marginal")):
        assert main(["predict", str(path), str(photos / "a.PNG"), str(photos / "b.jpeg")]) == 0
        out = capsys.readouterr().out
        assert re.search(rf"^  \S+ +{word} \d", out, re.MULTILINE)
        assert not re.search(rf"^  \S+ +{other} \d", out, re.MULTILINE)
        legend = "probability: the marginal, calibrated on 20 hold-out images (T 3.00); step:"
        assert out.count(legend) == (path == copy)
    (copy / "calibration.json").write_text("{}")
    assert main(["predict", str(copy), str(photos / "a.PNG")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "calibration.json: is no calibration" in line and "train again, or remove the file" in line


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predict nowhere x.jpg", "nowhere: no such folder; expected a run (config.json and checkpoints"),
        ("predict folder x.jpg", "folder: neither a run nor an export; expected a run (config.json"),
        ("export folder", "folder: no config.json there; expected the folder of a run"),
        ("check folder", "folder is not an export: expected saved_model.pb in it"),
        ("check nowhere", "no export at nowhere"),
    ],
)
def test_a_wrong_folder_is_one_line_that_says_what_was_expected(
    tmp_path, monkeypatch, capsys, command, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "x.jpg").touch()
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


@pytest.mark.parametrize("command", ["", "predict", "evaluate", "export", "check"])
def test_help_answers_without_tensorflow(command):
    script = (
        "import sys\nfrom cnnrnn_tf.commands.__main__ import main\n"
        "try: main([*sys.argv[1:], '--help'])\nexcept SystemExit as stop: assert not stop.code\n"
        "print(sorted({'tensorflow', 'keras', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"usage: cnnrnn {command}".rstrip())
    assert done.stdout.endswith("[]\n")
