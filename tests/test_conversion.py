"""What cameras and programs make beside JPEG and PNG: it becomes a JPEG or PNG when built, and when sent."""

import io

import numpy as np
import pytest
from malformed import draw_photograph, encode
from PIL import Image

from tfrecords.conversion import looks_convertible, make_sendable
from tfrecords.images import ORIGINALS, ImageProblem, ImageRules, prepare_image

PHOTOGRAPH = draw_photograph(48, 64)


def encode_heic(picture):
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra [heif]")
    file = io.BytesIO()
    pillow_heif.from_pillow(picture).save(file, format="HEIF", quality=90)
    return file.getvalue()


def rotate_tag(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


FILES = {  # name: (file, format of the record)
    "AVIF": (lambda: encode(PHOTOGRAPH, "AVIF", quality=95), "jpeg"),
    "HEIC": (lambda: encode_heic(PHOTOGRAPH), "jpeg"),
    "JPEG 2000": (lambda: encode(PHOTOGRAPH, "JPEG2000"), "jpeg"),
    "TIFF": (lambda: encode(PHOTOGRAPH, "TIFF"), "png"),
    "TIFF, compressed": (lambda: encode(PHOTOGRAPH, "TIFF", compression="tiff_lzw"), "png"),
    "TIFF, two pages": (
        lambda: encode(PHOTOGRAPH, "TIFF", save_all=True, append_images=[PHOTOGRAPH.rotate(180)]),
        "png",
    ),
    "BMP, palette of 16": (lambda: encode(PHOTOGRAPH.quantize(16), "BMP"), "png"),
    "BMP, one bit": (lambda: encode(PHOTOGRAPH.convert("1"), "BMP"), "png"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_formats_become_jpeg_or_png_of_the_same_picture(name):
    make, expected_format = FILES[name]
    data = make()
    assert looks_convertible(data)
    prepared = prepare_image(data, ORIGINALS)
    assert (prepared.facts.format, prepared.facts.height, prepared.facts.width) == (expected_format, 48, 64)
    assert prepared.facts.orientation == 1 and prepared.area_fraction == 1
    with Image.open(io.BytesIO(data)) as original, Image.open(io.BytesIO(prepared.data)) as made:
        assert made.format.lower() == expected_format
        difference = np.abs(np.asarray(original.convert("RGB"), int) - np.asarray(made.convert("RGB"), int))
    assert difference.max() <= (0 if expected_format == "png" else 40)
    assert difference.mean() <= (0 if expected_format == "png" else 6)
    assert make_sendable(data) == (prepared.data, "")


@pytest.mark.parametrize("name", ["AVIF", "TIFF", "JPEG2000"])
def test_a_turned_picture_stays_turned_the_same_way(name):
    turned = PHOTOGRAPH.transpose(Image.Transpose.ROTATE_90)
    tag = {"exif": rotate_tag(6)} if name != "JPEG2000" else {}
    prepared = prepare_image(encode(turned, name, **tag), ORIGINALS)
    with Image.open(io.BytesIO(prepared.data)) as made:
        orientation = made.getexif().get(0x0112, 1)
        upright = made.size == (64, 48)  # a TIFF is turned as it is read
    assert prepared.facts.orientation == orientation
    assert (orientation == 6) != (upright or name == "JPEG2000")


def test_sixteen_bits_become_the_upper_eight():
    levels = (np.arange(48 * 64, dtype=np.uint16) * 20).reshape(48, 64)
    prepared = prepare_image(encode(Image.fromarray(levels), "TIFF"), ORIGINALS)
    with Image.open(io.BytesIO(prepared.data)) as made:
        np.testing.assert_array_equal(np.asarray(made), levels >> 8)


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (
            lambda: encode(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"),
            "unsupported_format",
            "its pixels are no colours",
        ),
        (lambda: encode(PHOTOGRAPH, "TIFF")[:2000], "truncated_image", ""),
        (lambda: encode(PHOTOGRAPH, "AVIF")[:200], "not_an_image|truncated_image", ""),
        (lambda: b"II*\0" + bytes(50), "not_an_image|truncated_image", ""),
    ],
)
def test_what_cannot_be_converted_is_named(data, reason, detail):
    with pytest.raises(ImageProblem) as caught:
        prepare_image(data(), ORIGINALS)
    assert caught.value.reason in reason.split("|") and detail in caught.value.detail
    sent, said = make_sendable(data())
    assert sent == (b"" if said else data())


def test_heic_without_its_extra_says_what_to_install(monkeypatch):
    data = b"\0\0\0\x18ftypheic" + bytes(100)
    monkeypatch.setattr("tfrecords.images.register_heif", lambda: False)
    with pytest.raises(ImageProblem) as caught:
        prepare_image(data, ORIGINALS)
    assert caught.value.reason == "unsupported_format"
    assert "pip install 'cnnrnn-tf[heif]'" in caught.value.detail


def test_a_converted_image_over_the_limit_is_refused_by_its_header():
    with pytest.raises(ImageProblem) as caught:
        prepare_image(encode(PHOTOGRAPH, "TIFF"), ImageRules(max_pixels=48 * 64 - 1))
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize(
    ("marker", "precision", "name"),
    [
        (0xC3, 8, "a lossless JPEG"),
        (0xF7, 8, "JPEG-LS"),
        (0xC1, 12, "a 12-bit JPEG"),
        (0xC5, 8, "a hierarchical"),
    ],
)
@pytest.mark.parametrize("cut", [0, 2])
def test_jpegs_that_nobody_decodes_are_named_before_a_decoder_sees_them(marker, precision, name, cut):
    jpeg = encode(PHOTOGRAPH, "JPEG")
    data = jpeg.replace(b"\xff\xc0\0\x11\x08", bytes([0xFF, marker, 0, 0x11, precision]))
    assert data != jpeg
    with pytest.raises(ImageProblem) as caught:
        prepare_image(data[: len(data) - cut], ORIGINALS)
    assert caught.value.reason == "unsupported_format" and caught.value.detail.startswith(name)


def test_what_a_server_takes_is_sent_as_it_is():
    for file_format in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        data = encode(PHOTOGRAPH, file_format)
        assert make_sendable(data)[0] is data
    assert make_sendable(b"text") == (b"text", "") and make_sendable(b"") == (b"", "")
