"""Settings: their precedence, their round trip, and mistakes in them."""

import json

import pytest

import train
from cnnrnn_tf.commands.compare import Compare
from cnnrnn_tf.config import ExperimentConfig, preset
from tfrecords.cli import parse
from tfrecords.errors import UserError


def read(*args):
    return parse(
        train.Train, args, prog="train", default=train.Train(experiment=train._find_defaults(list(args)))
    ).experiment


def test_flags_beat_the_config_file_which_beats_the_preset_which_beats_the_defaults(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"training": {"epochs": 7, "batch_size": 8}, "decoding": {"min_length": 2}}))
    config = read("--dataset", "nuswide81", "--config", str(path), "--epochs", "3")
    assert config.training.epochs == 3
    assert config.training.batch_size == 8
    assert config.decoding.min_length == 2
    assert config.model.feature_layer == "fc7"
    assert config.decoding.beam_size == ExperimentConfig().decoding.beam_size


def test_the_presets_are_the_papers_settings_for_its_data_sets():
    for dataset, min_length in (("nuswide81", 3), ("nuswide1000", 10), ("coco2014", 0), ("voc2007", 0)):
        config = read(f"--dataset={dataset}")
        assert (config.model.backbone, config.model.feature_layer) == ("vgg16", "fc7")
        assert (config.training.momentum, config.training.weight_decay, config.model.dropout) == (
            0.9,
            1e-4,
            0.5,
        )
        assert (config.model.cell, config.model.cell_units, config.model.embedding_dim) == ("lstm", 512, 64)
        assert config.decoding.min_length == min_length
        assert not config.model.standardise_features


def test_any_other_data_set_gets_the_settings_for_small_data():
    assert preset("ponds") == preset("mine") != preset("demo")
    assert preset("coco2014", "vgg16") == preset("coco2014")
    assert preset("coco2014", "mobilenet_v2")["model"]["feature_layer"] == "default"  # it has no fc7
    config = read("--dataset", "ponds")
    assert config.model.standardise_features and config.model.dropout == 0.7
    assert (config.training.learning_rate, config.training.warmup_epochs) == (4e-5, 3)


def test_a_backbone_in_the_file_is_the_flag_s_in_train_and_in_compare(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"model": {"backbone": "mobilenet_v2"}}))
    of_file, of_flag = {"config": path}, {"backbone": "mobilenet_v2"}
    by_file, by_flag = (Compare("nuswide81", **options)._configure() for options in (of_file, of_flag))
    assert by_file == by_flag == read("--dataset", "nuswide81", "--config", str(path))
    assert (by_file.model.backbone, by_file.model.feature_layer) == ("mobilenet_v2", "default")
    assert by_file.decoding.min_length == 3


@pytest.mark.parametrize("dataset", ["ponds", "nuswide81", "demo"])
def test_the_compact_backbone_takes_back_what_only_a_frozen_one_has(dataset, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"model": {"backbone": "compact"}}))
    for args in (["--backbone", "compact"], ["--backbone=compact"], ["--config", str(path)]):
        config = read("--dataset", dataset, *args)
        model = config.model
        assert (model.backbone, model.backbone_weights, model.feature_layer) == ("compact", "none", "default")
        assert not model.standardise_features
        assert config.training == read("--dataset", dataset).training
    assert read(
        "--dataset", dataset, "--backbone", "compact", "--standardise-features"
    ).model.standardise_features


def test_the_config_file_may_name_the_data_set_whose_preset_counts(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"data": {"dataset": "nuswide81"}}))
    assert read(f"--config={path}").decoding.min_length == 3


def test_what_was_saved_is_loaded_again(tmp_path):
    config = read("--dataset", "ponds", "--cell", "paper", "--no-tie-embeddings", "--dropout", "0.25")
    config.save(tmp_path / "config.json")
    assert ExperimentConfig.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"training": {"epoch": 3}}', r"training: unknown key 'epoch' \(did you mean 'epochs'\?\)"),
        ('{"trainings": {}}', r"unknown key 'trainings' \(did you mean 'training'\?\)"),
        ('{"training": 3}', "'training' holds 3: expected names and values in braces"),
        ('{"training": {"epochs": "3"}}', "epochs is '3': expected int"),
        ('{"training": {"learning_rate": true}}', "learning_rate is True: expected float"),
        (
            '{"model": {"cell": "lstn"}}',
            r"cell 'lstn' \(did you mean 'lstm'\?\): expected lstm or paper or gru",
        ),
        ("{", "not JSON"),
        ("[]", "expected an object such as"),
    ],
)
def test_a_mistake_in_a_config_file_gets_one_line(content, message, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read("--config", str(path))


@pytest.mark.parametrize(
    "args, message",
    [
        (["--epochs", "0"], "epochs 0: expected 1 or more"),
        (["--dropout", "1"], "dropout 1.0: expected 0 to 0.999"),
        (["--learning-rate", "0"], "learning_rate 0.0: expected more than 0"),
        (["--min-length", "4", "--max-length", "3"], "min_length 4: expected at most max_length, 3"),
        (["--beam-size", "0"], "beam_size 0: expected 1 or more"),
        (["--weight-decay", "inf"], "weight_decay inf: expected 0 or more"),
        (["--seed", "-1"], "seed -1: expected 0 to 4294967295"),
        (["--image-size", "5000"], "image_size 5000: expected 0 to 4096"),
        (["--cell-units", "2000000"], "cell_units 2000000: expected 1 to 16384"),
        (["--embedding-dim", "2000000"], "embedding_dim 2000000: expected 1 to 16384"),
        (["--datset", "demo"], r"unknown flag --datset \(did you mean '--dataset'\?\)"),
    ],
)
def test_a_mistake_in_a_flag_gets_one_line(args, message):
    with pytest.raises(UserError, match=message):
        read(*args)


def test_a_data_set_that_is_not_built_is_told_with_the_command_that_builds_it(capsys, tmp_path):
    assert train.main(["--dataset", "ponds", "--data-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "python -m tfrecords build" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["--epochs", "3"]])
def test_without_a_data_set_it_says_how_to_start_and_what_is_built(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    for name in ("ponds", "demo"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "manifest.json").write_text("{}")
    assert train.main(words) == 2
    error = capsys.readouterr().err
    assert "train.py --dataset demo`" in error and "built in data: demo, ponds; " in error
    assert error.count("\n") == 1


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("cnnrnn-tf ")


@pytest.mark.parametrize("name", ["data/scenes", "..", ""])
def test_a_data_set_has_a_name_and_not_a_path(capsys, name):
    assert train.main(["--dataset", name]) == 2
    assert "expected the name of a data set, such as scenes; --data-dir" in capsys.readouterr().err


def test_resume_takes_no_flag_that_would_make_it_another_run(capsys):
    assert train.main(["--resume", "somewhere", "--seed", "3"]) == 2
    assert "leave --seed out; only --epochs, --patience and --data-dir" in capsys.readouterr().err
