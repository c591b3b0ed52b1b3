"""One photograph, stored in eight ways and three formats, gives equal tags everywhere."""

import io
import json
import struct

import numpy as np
import pytest
from malformed import encode, jpeg_segment, png_chunk
from PIL import Image
from tiny_model import VOCABULARY, make_model

from cnnrnn_tf.commands.__main__ import main
from cnnrnn_tf.config import DecodingConfig, ExperimentConfig
from cnnrnn_tf.data.images import decode_batch
from cnnrnn_tf.data.records import image_batches
from cnnrnn_tf.serving import fresh_process
from cnnrnn_tf.serving.export import export
from tfrecords.build import build
from tfrecords.sources.table import TableSource

DECODING = DecodingConfig(beam_size=4, max_length=3)
TURNS = {  # what a camera held that way stores of an upright picture, by the definition of the tag
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}


def draw_blocks(seed, rows=5, columns=7):
    """A picture of 8 x 8 px blocks of one colour each: a JPEG of it is turned without any loss."""
    colours = np.random.default_rng(seed).integers(0, 256, [rows, columns, 3], np.uint8)
    return colours.repeat(8, axis=0).repeat(8, axis=1)


def encode_jpeg(pixels):
    return encode(Image.fromarray(np.ascontiguousarray(pixels)), "JPEG", quality=95, subsampling=0)


def store(pixels, orientation, byte_order, suffix):
    """The file of a picture that was taken with the camera turned; PNG and WebP hold the JPEG's pixels."""
    order = {"<": b"II", ">": b"MM"}[byte_order]
    entry = struct.pack(byte_order + "HHHIHH", 1, 0x0112, 3, 1, orientation, 0)
    tiff = order + struct.pack(byte_order + "HI", 42, 8) + entry + bytes(4)
    if suffix == "jpg":
        jpeg = encode_jpeg(TURNS[orientation](pixels))
        return jpeg[:2] + jpeg_segment(0xE1, b"Exif\0\0" + tiff) + jpeg[2:]
    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(pixels))))
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](decoded)))
    if suffix == "webp":
        return encode(stored, "WEBP", lossless=True, exif=b"Exif\0\0" + tiff)
    png = encode(stored, "PNG")
    place = png.index(b"IDAT") - 4 if byte_order == "<" else png.index(b"IEND") - 4  # it may stand at the end
    return png[:place] + png_chunk(b"eXIf", tiff) + png[place:]


NAMES = [
    f"{orientation}{order}.{suffix}"
    for suffix in ("jpg", "png", "webp")
    for orientation in TURNS
    for order in ("II", "MM")
]


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def picture(model):
    """Of some pictures the first that gets other labels when it is not turned upright."""
    for seed in range(50):
        pixels = draw_blocks(seed)
        ways = [encode(Image.fromarray(np.ascontiguousarray(turn(pixels))), "PNG") for turn in TURNS.values()]
        tokens = model.decode(
            model.extract_features(decode_batch(ways, model.image_size)[0]), beam_size=4, max_length=3
        ).tokens[:, 0]
        if len(np.unique(tokens, axis=0)) > 1:
            return pixels
    raise AssertionError("the model tells no picture from its turned self")


@pytest.fixture(scope="module")
def folder(picture, tmp_path_factory):
    path = tmp_path_factory.mktemp("photographs")
    for name in NAMES:
        data = store(picture, int(name[0]), {"II": "<", "MM": ">"}[name[1:3]], name.partition(".")[2])
        (path / name).write_bytes(data)
    rows = "".join(f"{name},{'sky' if i % 2 else 'sea;sky'}\n" for i, name in enumerate(NAMES))
    (path / "labels.csv").write_text("image,labels\n" + rows)
    return path


@pytest.fixture(scope="module")
def files(folder):
    return [(folder / name).read_bytes() for name in NAMES]


@pytest.fixture(scope="module")
def expected(model, folder):
    """The pixels and the labels of the upright photograph, decoded by Pillow and searched by the model."""
    with Image.open(folder / "1II.jpg") as image:
        pixels = np.asarray(image)
    square, valid, _ = decode_batch([encode(Image.fromarray(pixels), "PNG")], model.image_size)
    assert valid.numpy().all()
    found = model.decode(model.extract_features(square), beam_size=4, max_length=3)
    tokens = found.tokens[0, 0, : found.lengths[0, 0]].numpy()
    return square[0].numpy(), [VOCABULARY.names[token] for token in tokens]


def test_the_files_are_stored_in_eight_ways(picture, files):
    sizes = set()
    for name, data in zip(NAMES, files, strict=True):
        with Image.open(io.BytesIO(data)) as image:
            assert image.getexif()[0x0112] == int(name[0])
            sizes.add(image.size)
    assert sizes == {(56, 40), (40, 56)}
    jpegs = [data for data in files if data.startswith(b"\xff\xd8")]
    assert len(jpegs) == 16 and len({data.split(b"\xff\xdb", 1)[1] for data in jpegs}) == 8


def test_records_are_read_upright_to_the_bit(model, folder, expected, tmp_path):
    build(TableSource(folder / "labels.csv"), "turned", tmp_path, progress=False)
    batches = list(image_batches(tmp_path / "turned", "train+holdout", model.image_size, 4))
    seen = {
        image_id.decode(): image
        for batch in batches
        for image_id, image in zip(batch["image_id"].numpy(), batch["image"].numpy(), strict=True)
    }
    assert set(seen) == set(NAMES)
    for name, square in seen.items():
        np.testing.assert_array_equal(square, expected[0], err_msg=name)


def test_predict_gives_all_of_them_the_same_labels(model, folder, expected, tmp_path, capsys):
    run_dir = tmp_path / "runs" / "turned" / "first"
    (run_dir / "checkpoints").mkdir(parents=True)
    ExperimentConfig(decoding=DECODING).save(run_dir / "config.json")
    VOCABULARY.save(run_dir / "vocabulary.json")
    model.save(run_dir / "checkpoints" / "best.keras")
    assert main(["predict", str(run_dir), *(str(folder / name) for name in NAMES), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["labels"] for row in rows] == [expected[1]] * len(NAMES)
    for row in rows:
        assert row["probabilities"] == pytest.approx(rows[0]["probabilities"], rel=1e-5)


def test_the_export_gives_all_of_them_the_same_labels(model, files, expected, tmp_path):
    version = export(model, VOCABULARY, DECODING, tmp_path)
    inputs = {"image_bytes": np.array(files, object)}
    (outputs,) = fresh_process.run_calls(fresh_process.C_API, version, [("serving_default", inputs)])["calls"]
    assert outputs["valid"].all()
    labels = [[name.decode() for name in row if name] for row in outputs["labels"]]
    assert labels == [expected[1]] * len(NAMES)
    probabilities = outputs["probabilities"]
    np.testing.assert_allclose(
        probabilities, np.broadcast_to(probabilities[0], probabilities.shape), rtol=1e-5
    )


def test_an_orientation_that_is_not_honoured_would_give_other_labels(model, files, expected):
    """The picture can tell: without its EXIF a photograph that is stored turned gets labels of its own."""
    plain = [data[:2] + data[data.index(b"\xff\xe0") :] for data in files if data.startswith(b"\xff\xd8")]
    squares, valid, _ = decode_batch(plain, model.image_size)
    assert valid.numpy().all()
    found = model.decode(model.extract_features(squares), beam_size=4, max_length=3)
    paths = [
        [VOCABULARY.names[token] for token in tokens[0, :length]]
        for tokens, length in zip(found.tokens.numpy(), found.lengths[:, 0].numpy(), strict=True)
    ]
    assert any(path != expected[1] for path in paths)
