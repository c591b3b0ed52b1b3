"""What an image file tells, why it cannot become a record, and what becomes of one that is encoded anew."""

import io
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tfrecords.errors import UserError
from tfrecords.images import ImageFacts, ImageProblem, ImageRules, inspect_image, prepare_image
from tfrecords.jpeg import read_jpeg_header


def make_picture(mode="RGB", size=(64, 48)):
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3)
    return Image.fromarray(ramp.astype(np.uint8)).convert(mode)


def encode_picture(format="JPEG", mode="RGB", **options):
    file = io.BytesIO()
    make_picture(mode).save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("JPEG", "L"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("PNG", "1"),
        ("GIF", "P"),
        ("BMP", "RGB"),
        ("WEBP", "RGB"),
    ],
)
def test_the_format_and_size_come_from_the_content_and_tensorflow_agrees(format, mode):
    data = encode_picture(format, mode)
    assert inspect_image(data) == ImageFacts(format.lower(), height=48, width=64, orientation=1)
    assert tf.io.decode_image(data, channels=3, expand_animations=False).shape == (48, 64, 3)


def test_the_jpeg_of_a_phone_with_further_pictures_is_a_jpeg():
    data = encode_picture("MPO", save_all=True, append_images=[make_picture()])
    assert inspect_image(data).format == "jpeg"


@pytest.mark.parametrize(
    ("stored", "read"), [(None, 1), *((tag, tag) for tag in range(1, 9)), (0, 1), (9, 1), (65535, 1)]
)
def test_the_orientation_is_the_exif_tag_or_upright(stored, read):
    exif = Image.Exif()
    if stored is not None:
        exif[0x0112] = stored
    facts = inspect_image(encode_picture(exif=exif.tobytes()))
    assert facts == ImageFacts("jpeg", height=48, width=64, orientation=read)


def test_only_jpegs_have_an_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert inspect_image(encode_picture("PNG", exif=exif.tobytes())).orientation == 1


def test_a_broken_exif_block_does_not_spoil_an_image():
    assert inspect_image(encode_picture(exif=b"Exif\0\0MM\0*\0\0\xff\xff")).orientation == 1


def make_bomb():
    """A PNG of a few bytes whose header claims 50,000 x 50,000 px."""
    data = bytearray(encode_picture("PNG"))
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty_file", id="empty file"),
        pytest.param(b"I am a text that someone called photo.jpg\n", "not_an_image", id="text as JPEG"),
        pytest.param(b"\0" * 5000, "not_an_image", id="zeros"),
        pytest.param(encode_picture()[:-2], "truncated_image", id="JPEG without its last bytes"),
        pytest.param(encode_picture()[:700], "truncated_image", id="JPEG cut in two"),
        pytest.param(encode_picture()[:100], "truncated_image", id="JPEG cut in its header"),
        pytest.param(encode_picture("PNG")[:-10], "truncated_image", id="PNG without its end"),
        pytest.param(encode_picture("PNG")[:200], "truncated_image", id="PNG cut in two"),
        pytest.param(encode_picture("GIF")[:400], "truncated_image", id="GIF cut in two"),
        pytest.param(encode_picture("WEBP")[:-10], "truncated_image", id="WebP without its end"),
        pytest.param(encode_picture("BMP")[:-10], "truncated_image", id="BMP without its end"),
        pytest.param(encode_picture("TIFF"), "unsupported_format", id="TIFF"),
        pytest.param(encode_picture("BMP", "1"), "unsupported_format", id="BMP of one bit"),
        pytest.param(encode_picture("BMP", "P"), "unsupported_format", id="BMP with a palette"),
        pytest.param(make_bomb(), "too_large", id="bomb of 50,000 x 50,000"),
    ],
)
@pytest.mark.parametrize("decode", [True, False])
def test_a_useless_image_is_named_by_its_reason(data, reason, decode):
    with pytest.raises(ImageProblem) as raised:
        inspect_image(data, decode=decode)
    assert raised.value.reason == reason
    assert "0x" not in raised.value.detail  # no address of this run


def test_the_size_limit_counts_pixels_by_the_header():
    data = encode_picture()
    assert inspect_image(data, max_pixels=64 * 48).width == 64
    with pytest.raises(ImageProblem, match="64 x 48 px: expected at most 3,071 pixels"):
        inspect_image(data, max_pixels=64 * 48 - 1)


# ---- without decoding


def with_orientation(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif.tobytes()


JPEGS = {
    "RGB": encode_picture(),
    "grey": encode_picture(mode="L"),
    "CMYK": encode_picture(mode="CMYK"),
    "progressive": encode_picture(progressive=True),
    "optimised": encode_picture(optimize=True, quality=30),
    "restarts": encode_picture(restart_marker_blocks=2),
    "comment": encode_picture(comment=b"a comment \xff\xd9 with a mark in it"),
    "profile": encode_picture(icc_profile=b"x" * 70_000),  # in two segments
    "phone": encode_picture("MPO", save_all=True, append_images=[make_picture()]),
    **{f"EXIF {tag}": encode_picture(exif=with_orientation(tag)) for tag in range(1, 9)},
    "broken EXIF": encode_picture(exif=b"Exif\0\0MM\0*\0\0\xff\xff"),
    "bytes behind its end": encode_picture() + b"\0" * 100,
    "orientation in XMP alone": encode_picture(
        xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF>'
    ),
    "padding before a marker": encode_picture()[:2] + b"\xff\xff" + encode_picture()[2:],
}


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_tells_the_same_whether_it_is_decoded_or_not(name):
    assert inspect_image(JPEGS[name], decode=False) == inspect_image(JPEGS[name])


def test_plain_jpegs_alone_are_read_without_pillow():
    plain = {name for name, data in JPEGS.items() if read_jpeg_header(data) is not None}
    assert set(JPEGS) - plain == {"CMYK", "padding before a marker"}


@pytest.mark.parametrize("size", range(2, len(JPEGS["EXIF 6"]), 7))
def test_a_jpeg_that_is_cut_anywhere_is_found_without_decoding(size):
    """Even where what is left ends as a JPEG does."""
    for data in (JPEGS["EXIF 6"][:size], JPEGS["EXIF 6"][:size] + b"\xff\xd9"):
        header = read_jpeg_header(data)
        assert header is None or header[:2] == (48, 64)
    with pytest.raises(ImageProblem):
        inspect_image(JPEGS["EXIF 6"][:size], decode=False)


def test_damaged_pixels_are_found_by_decoding_alone():
    data = bytearray(encode_picture("PNG"))
    data[len(data) // 2] ^= 0xFF
    for decode in (True, False):
        with pytest.raises(ImageProblem, match="truncated_image"):
            inspect_image(bytes(data), decode=decode)
    jpeg = encode_picture(quality=95)
    tables = jpeg.index(b"\xff\xc4")  # of Huffman codes
    jpeg = jpeg[: tables + 5] + b"\xff" * 16 + jpeg[tables + 21 :]
    with pytest.raises(ImageProblem, match="truncated_image"):
        inspect_image(jpeg)
    assert inspect_image(jpeg, decode=False).width == 64


# ---- encoded anew


def decode(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)


def test_by_default_every_image_stays_as_it_is():
    for data in (*JPEGS.values(), encode_picture("PNG", "RGBA"), encode_picture("GIF")):
        prepared = prepare_image(data, ImageRules())
        assert (prepared.data, prepared.area_fraction) == (data, 1.0)
        assert prepared.facts == inspect_image(data)


def test_only_images_that_are_too_large_are_shrunk_and_keep_their_shape():
    data = encode_picture(quality=95)  # 64 x 48 px
    assert prepare_image(data, ImageRules(max_side=64, quality=50)).data == data
    prepared = prepare_image(data, ImageRules(max_side=32))
    assert prepared.facts == ImageFacts("jpeg", 24, 32, 1) == inspect_image(prepared.data)
    assert prepared.area_fraction == 0.25
    expected = decode(data).reshape(24, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(decode(prepared.data) - expected).mean() < 3


def test_a_quality_alone_makes_every_image_a_jpeg_of_that_quality():
    sizes = {}
    for quality in (30, 90):
        prepared = prepare_image(encode_picture("PNG"), ImageRules(quality=quality))
        assert prepared.facts == ImageFacts("jpeg", 48, 64, 1)
        assert np.abs(decode(prepared.data) - decode(encode_picture("PNG"))).mean() < 6
        sizes[quality] = len(prepared.data)
    assert sizes[30] < 0.9 * sizes[90]
    tables = Image.open(io.BytesIO(prepared.data)).quantization
    assert tables == Image.open(io.BytesIO(encode_picture(quality=90))).quantization


@pytest.mark.parametrize("tag", range(1, 9))
def test_an_image_that_is_shrunk_keeps_its_orientation(tag):
    data = encode_picture(exif=with_orientation(tag), quality=95)
    prepared = prepare_image(data, ImageRules(max_side=32))
    assert prepared.facts == ImageFacts("jpeg", 24, 32, tag) == inspect_image(prepared.data)
    upright = [ImageOps.exif_transpose(Image.open(io.BytesIO(each))) for each in (data, prepared.data)]
    small, large = (np.asarray(image.resize((8, 8)), np.float32) for image in upright)
    assert np.abs(small - large).mean() < 4


@pytest.mark.parametrize(
    ("format", "mode"),
    [("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "1"), ("GIF", "P"), ("WEBP", "RGB"), ("JPEG", "L")],
)
def test_what_is_shrunk_looks_to_tensorflow_as_its_original_does(format, mode):
    data = encode_picture(format, mode)
    prepared = prepare_image(data, ImageRules(quality=100))
    found, expected = (
        tf.io.decode_image(each, channels=3, expand_animations=False).numpy().reshape(6, 8, 8, 8, 3)
        for each in (prepared.data, data)
    )
    assert np.abs(found.mean((1, 3)) - expected.mean((1, 3))).mean() < 5


def test_of_16_bits_a_channel_the_upper_eight_are_kept_as_tensorflow_does():
    file = io.BytesIO()
    levels = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    Image.fromarray(levels).save(file, "PNG")
    prepared = prepare_image(file.getvalue(), ImageRules(quality=100))
    expected = tf.io.decode_png(file.getvalue(), channels=1).numpy()[..., 0]
    np.testing.assert_array_equal(expected, levels >> 8)
    found = np.asarray(Image.open(io.BytesIO(prepared.data)), np.float32)
    assert np.abs(found - expected).max() < 4


def test_of_an_animation_the_first_frame_is_kept():
    file = io.BytesIO()
    red, blue = (Image.new("RGB", (64, 48), colour) for colour in ("red", "blue"))
    red.save(file, "GIF", save_all=True, append_images=[blue])
    pixels = decode(prepare_image(file.getvalue(), ImageRules(max_side=32)).data)
    assert np.abs(pixels - [255, 0, 0]).max() < 5


def test_an_image_too_wide_for_a_jpeg_is_a_problem_of_its_own():
    file = io.BytesIO()
    Image.new("L", (66_000, 2)).save(file, "PNG")
    with pytest.raises(ImageProblem, match=r"too_large.*66000 x 2 px: a JPEG has at most 65,500 a side"):
        prepare_image(file.getvalue(), ImageRules(quality=90))
    assert prepare_image(file.getvalue(), ImageRules(max_side=6600)).facts.width == 6600


def test_a_cut_off_image_is_a_problem_before_it_is_encoded():
    with pytest.raises(ImageProblem, match="truncated_image"):
        prepare_image(encode_picture()[:700], ImageRules(max_side=8))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"max_side": 0}, "--max-side 0: expected 1 px or more"),
        ({"quality": 0}, "--quality 0: expected 1 to 100"),
        ({"quality": 101}, "--quality 101: expected 1 to 100"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(rules, message):
    with pytest.raises(UserError, match=message):
        ImageRules(**rules)
