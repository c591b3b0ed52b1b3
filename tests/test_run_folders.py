"""Where a run is found again, by the name `latest`, and where it finds its data."""

import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest
from squares import build_squares, configure

from cnnrnn_tf.training import runs
from cnnrnn_tf.training.latest import find_run, mark_latest
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    build_squares(path)
    return path


def test_latest_is_a_link_that_can_be_moved_with_its_folder(tmp_path):
    for name in ("first", "second"):
        (tmp_path / "a" / name).mkdir(parents=True)
        (tmp_path / "a" / name / "metrics.json").touch()
        assert mark_latest(tmp_path / "a" / name)
    assert find_run(tmp_path / "a" / "latest") == tmp_path / "a" / "second"
    assert find_run(tmp_path / "a" / "latest" / "export") == tmp_path / "a" / "second" / "export"
    (tmp_path / "a").rename(tmp_path / "b")
    assert find_run(tmp_path / "b" / "latest") == tmp_path / "b" / "second"
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["first", "latest", "second"]


def test_where_links_cannot_be_made_latest_is_still_understood(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for age, name in enumerate(("old", "new", "unfinished")):
        (tmp_path / name).mkdir()
        if name != "unfinished":
            (tmp_path / name / "metrics.json").touch()
            os.utime(tmp_path / name / "metrics.json", (age, age))
    assert not mark_latest(tmp_path / "new")
    assert find_run(tmp_path / "latest") == tmp_path / "new"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no run in .*empty is finished"):
        find_run(tmp_path / "empty" / "latest")


def test_a_folder_of_the_users_called_latest_is_left_alone(tmp_path):
    (tmp_path / "latest").mkdir()
    (tmp_path / "run").mkdir()
    assert not mark_latest(tmp_path / "run")
    assert find_run(tmp_path / "latest") == tmp_path / "latest"
    with pytest.raises(UserError, match="--run-name latest: is the link"):
        runs.create_run_folder(tmp_path, "mine", "latest", datetime(2026, 1, 1))


def test_a_run_finds_its_data_from_any_folder(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(data_dir.parent)
    config = configure(data_dir.name)
    (tmp_path / "run").mkdir()
    manifest = Manifest.load(data_dir / "squares")
    runs.save_environment(tmp_path / "run", manifest, config.data.data_dir)
    assert runs.find_data_dir(tmp_path / "run", config) == Path(data_dir.name)
    monkeypatch.chdir(tmp_path)
    assert runs.find_data_dir(tmp_path / "run", config) == data_dir
    (tmp_path / "copy").mkdir()
    shutil.copytree(data_dir / "squares", tmp_path / "copy" / "squares")
    assert runs.find_data_dir(tmp_path / "run", config, Path("copy")) == Path("copy")
    runs.save_environment(tmp_path / "run", manifest, tmp_path / "gone")
    message = f"'squares' is not in {tmp_path}/gone nor in {tmp_path}/{data_dir.name}: .* --data-dir FOLDER"
    with pytest.raises(UserError, match=message):
        runs.find_data_dir(tmp_path / "run", config)
