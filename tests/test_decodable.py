"""Images that do not decode are found once, and every reader of the records leaves them out alike."""

import json
import logging

import numpy as np
import pytest
from drawn_source import DrawnSource, draw
from malformed import draw_photograph, encode

from cnnrnn_tf.data.datasets import load_labels
from cnnrnn_tf.data.decodable import find_undecodable
from cnnrnn_tf.data.features import load_or_extract
from cnnrnn_tf.data.records import RecordReader, image_batches, read_files
from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.images import ImageRules
from tfrecords.manifest import Manifest
from tfrecords.schema import decode
from tfrecords.undecodable import FILE_NAME, Undecodable, load_undecodable

GOOD = encode(draw_photograph(48, 64), "JPEG", quality=90)
_TABLE = GOOD.index(b"\xff\xc4") + 5
DAMAGED = GOOD[:_TABLE] + b"\xff" * 16 + GOOD[_TABLE + 16 :]  # it ends as a JPEG does
CUT_GIF = encode(draw_photograph(48, 64), "GIF")[:-2]  # Pillow takes it, TensorFlow does not


class Photographs(DrawnSource):
    """Good photographs, but for two whose ids say what is wrong with them."""

    def read_image(self, annotation):
        return {"damaged": DAMAGED, "cut": CUT_GIF}.get(annotation.image_id.split("-")[0], GOOD)


CONTENTS = {
    "train": [
        draw(f"{name}-{i}", "sea") for i, name in enumerate(["good"] * 30 + ["damaged"] + ["good"] * 9)
    ],
    "test": [draw(f"{name}-t{i}", "sky") for i, name in enumerate(["good", "cut", "good"])],
}


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    build(Photographs(CONTENTS), "photographs", data_dir, progress=False)
    return data_dir / "photographs"


@pytest.fixture(scope="module")
def found(dataset_dir):
    return find_undecodable(dataset_dir, shown=False)


def test_the_images_that_do_not_decode_are_found_and_kept(dataset_dir, found):
    assert found == (Undecodable("train", "damaged-30", "damaged"), Undecodable("test", "cut-t1", "cut off"))
    kept = json.loads((dataset_dir / FILE_NAME).read_text())
    assert [image["image_id"] for image in kept["images"]] == ["damaged-30", "cut-t1"]
    assert load_undecodable(dataset_dir, Manifest.load(dataset_dir)) == found


def test_the_second_look_reads_the_file_alone(dataset_dir, found, monkeypatch):
    monkeypatch.setattr("cnnrnn_tf.data.decodable._decode_all", lambda *_: pytest.fail("it decodes again"))
    assert find_undecodable(dataset_dir) == found


def test_one_line_tells_of_them_and_strict_refuses(dataset_dir, found, caplog):
    with caplog.at_level(logging.INFO, "cnnrnn_tf"):
        find_undecodable(dataset_dir)
    line = "2 images do not decode and are left out (1 of train, 1 of test; 1 damaged, 1 cut off), such as d"
    assert caplog.messages[0].startswith(line)
    with pytest.raises(UserError, match=r"^--strict: 2 images do not decode .*undecodable.json names all"):
        find_undecodable(dataset_dir, strict=True)


@pytest.mark.parametrize("split", ["train", "holdout", "train+holdout", "test"])
def test_every_reader_leaves_them_out_and_keeps_one_order(dataset_dir, found, split):
    ids = load_labels(dataset_dir, split).image_ids
    assert not {"damaged-30", "cut-t1"} & set(ids)
    pictures = [
        name.decode()
        for batch in image_batches(dataset_dir, split, 8, 4)
        for name in batch["image_id"].numpy()
    ]
    reader = RecordReader(dataset_dir, split)
    records = [decode(record)["image/source_id"] for record in reader(range(len(reader)))]
    features = load_or_extract(
        dataset_dir, split, "f" * 64, lambda images: np.ones([len(images), 2]), 8, progress=False
    )
    assert pictures == records == ids and len(features) == len(ids)
    assert len(list(read_files(dataset_dir, split, 100))) == len(ids)


def test_a_look_at_other_records_counts_for_nothing(dataset_dir, found, tmp_path):
    path = tmp_path / FILE_NAME
    content = json.loads((dataset_dir / FILE_NAME).read_text())
    content["key"]["manifest"] = "0" * 64
    path.write_text(json.dumps(content))
    assert load_undecodable(tmp_path, Manifest.load(dataset_dir)) is None
    path.write_text("{")
    assert load_undecodable(tmp_path, Manifest.load(dataset_dir)) is None


def test_a_build_that_decodes_leaves_them_out_and_nothing_to_find(tmp_path):
    rules = ImageRules(decode=True)
    manifest = build(Photographs(CONTENTS), "decoded", tmp_path, rules=rules, progress=False)
    assert {name: split.skipped for name, split in manifest.splits.items()} == {
        "train": {"damaged_image": 1},
        "test": {"truncated_image": 1},
    }
    assert load_undecodable(tmp_path / "decoded", manifest) == ()
