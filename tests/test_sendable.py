"""Formats that no graph decodes are converted on our side of the wire: files of tag, predict and client."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from cnnrnn_tf.serving import tag_beam
from cnnrnn_tf.serving.client import Client
from cnnrnn_tf.serving.image_files import read_image
from tfrecords import images
from tfrecords.conversion import make_sendable

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, [3, 4, 3], np.uint8)).resize((64, 48))


def encode(file_format, picture=PICTURE, **options):
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("file_format", "target"),
    [("HEIF", "JPEG"), ("AVIF", "JPEG"), ("JPEG2000", "JPEG"), ("TIFF", "PNG")],
)
def test_what_cameras_make_is_sent_as_jpeg_or_png(tmp_path, file_format, target):
    (tmp_path / "photo").write_bytes(encode(file_format))
    data, reason = read_image(tmp_path / "photo")
    assert reason == ""
    with Image.open(io.BytesIO(data)) as sent:
        assert (sent.format, sent.size) == (target, (64, 48))
        difference = np.abs(np.asarray(sent.convert("RGB"), int) - np.asarray(PICTURE, int)).mean()
    assert difference < (8 if target == "JPEG" else 1e-9)


@pytest.mark.parametrize("file_format", ["AVIF", "TIFF"])  # a HEIC is turned by its own irot, not by EXIF
def test_the_orientation_goes_along(file_format):
    data, _ = make_sendable(encode(file_format, exif=turned(6)))
    with Image.open(io.BytesIO(data)) as sent:
        upright = sent.size[::-1] if sent.getexif().get(0x0112, 1) == 6 else sent.size
    assert upright == (48, 64)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_what_a_graph_decodes_is_sent_byte_for_byte(file_format):
    data = encode(file_format)
    assert make_sendable(data) == (data, "")


BAD = {
    "no image": (b"no photograph", ""),
    "a format that nobody reads": (b"\xff\x0a" + bytes(50), ""),
    "a TIFF cut off": (encode("TIFF")[:200], "damaged"),
    "an AVIF cut off": (encode("AVIF")[:100], None),
    "a TIFF of fractions": (
        encode("TIFF", Image.new("F", (4, 4), 0.5)),
        "TIFF: its pixels are no colours: scale them to 0 to 255 and save it as PNG",
    ),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD)
def test_what_cannot_be_converted_has_a_reason_or_is_left_to_the_graph(data, reason):
    sent, said = make_sendable(data)
    assert (sent == data) == (said == "")
    assert reason is None or said == reason


def test_a_bomb_is_told_by_its_header(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 48 - 1)
    assert make_sendable(encode("TIFF")) == (b"", "too large")


def test_without_the_extra_a_heic_says_how_to_install_it(monkeypatch):
    data = encode("HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert make_sendable(data) == (b"", "HEIC: pip install 'cnnrnn-tf[heif]' to read it")


def test_the_client_converts_what_it_sends_and_leaves_the_rest_to_the_server(monkeypatch):
    sent, client = [], Client("http://nowhere:1")

    def predict(model, version, signature, inputs):
        sent.extend(inputs["image_bytes"])
        row = {"labels": [], "probabilities": [], "step_probabilities": [], "num_labels": 0}
        return [{**row, "path_probability": 1.0, "error": ""}] * len(inputs["image_bytes"])

    monkeypatch.setattr(client._transport, "predict", predict)
    cut = encode("TIFF")[:200]
    client.tag([encode("TIFF"), b"no photograph", cut])
    assert sent[0].startswith(b"\x89PNG") and sent[1:] == [b"no photograph", cut]


def test_an_object_of_a_store_is_converted_too(monkeypatch):
    monkeypatch.setattr(tag_beam, "open_file", lambda path: io.BytesIO(encode("TIFF")))
    shards = tag_beam._ShardTagger("export", "test://photos", "out", "{}", (), {}, 8, 1, shared=None)
    data, reason = shards._read("1.tif")
    assert data.startswith(b"\x89PNG") and reason == ""
