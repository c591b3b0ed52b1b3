"""Records: what is encoded comes back, inside tf.data and without this project; and what an image tells."""

import io
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfrecords.errors import UserError
from tfrecords.images import ImageFacts, ImageProblem, inspect_image
from tfrecords.schema import FIELDS, encode, parse

SCALARS = {
    "image/encoded": b"\xff\xd8\x00bytes",
    "image/format": "jpeg",
    "image/height": 48,
    "image/width": 64,
    "image/orientation": 6,
    "image/source_id": "train/Äpfel 1.jpg",
    "image/filename": "Äpfel 1.jpg",
    "image/key/sha256": "ab" * 32,
    "image/holdout": 1,
    "image/class/count": 2,
}
LISTS = {
    "image/class/label": [0, 3],
    "image/class/text": ["sky", "Meer"],
    "image/class/ignored": [1],
    "image/object/bbox/xmin": [0.0, 0.25],
    "image/object/bbox/ymin": [0.5, 0.0],
    "image/object/bbox/xmax": [1.0, 0.75],
    "image/object/bbox/ymax": [0.75, 1.0],
    "image/object/class/label": [3, 3],
    "image/object/area": [12.5, 7.0],
}


def decode_text(tensor):
    return [text.decode() for text in tensor.numpy().tolist()]


def test_every_field_comes_back_as_it_was_encoded():
    parsed = parse(tf.constant(encode(SCALARS | LISTS)))
    assert set(parsed) == set(FIELDS) == set(SCALARS | LISTS)
    for key, value in (SCALARS | LISTS).items():
        found = parsed[key].numpy()
        if isinstance(value, str):
            assert found.decode() == value
        elif isinstance(value, bytes):
            assert found == value
        elif key == "image/class/text":
            assert decode_text(parsed[key]) == value
        else:
            np.testing.assert_array_equal(found, value)
        assert parsed[key].shape == np.shape(value)


def test_records_parse_without_this_project():
    example = tf.train.Example.FromString(encode(SCALARS | LISTS))
    feature = example.features.feature
    assert feature["image/encoded"].bytes_list.value == [SCALARS["image/encoded"]]
    assert feature["image/class/label"].int64_list.value == [0, 3]
    assert feature["image/object/area"].float_list.value == [12.5, 7.0]
    assert feature["image/class/text"].bytes_list.value == [b"sky", b"Meer"]


def test_records_parse_inside_a_tf_data_map_with_dense_lists():
    records = [
        encode(SCALARS | {"image/class/label": ids, "image/class/count": len(ids)}) for ids in ([], [0, 2])
    ]
    dataset = tf.data.Dataset.from_tensor_slices(records).map(parse)
    assert dataset.element_spec["image/class/label"] == tf.TensorSpec([None], tf.int64)
    assert dataset.element_spec["image/encoded"] == tf.TensorSpec([], tf.string)
    assert [item["image/class/label"].tolist() for item in dataset.as_numpy_iterator()] == [[], [0, 2]]
    assert [int(item["image/class/count"]) for item in dataset.as_numpy_iterator()] == [0, 2]


def test_an_absent_list_and_an_empty_list_parse_alike():
    absent = parse(tf.constant(encode(SCALARS)))
    empty = parse(tf.constant(encode(SCALARS | dict.fromkeys(LISTS, ()))))
    for key in LISTS:
        assert absent[key].shape == empty[key].shape == (0,)
    example = tf.train.Example.FromString(encode(SCALARS))
    del example.features.feature["image/class/label"]
    assert parse(tf.constant(example.SerializeToString()))["image/class/label"].shape == (0,)


def test_only_the_keys_asked_for_are_parsed():
    parsed = parse(tf.constant(encode(SCALARS | LISTS)), ["image/class/label", "image/holdout"])
    assert set(parsed) == {"image/class/label", "image/holdout"}


def test_the_same_values_in_any_order_give_the_same_bytes():
    values = SCALARS | LISTS
    assert encode(dict(reversed(values.items()))) == encode(values)


def test_missing_scalars_and_unknown_keys_are_refused():
    with pytest.raises(UserError, match="a record needs image/height, image/width"):
        encode({k: v for k, v in SCALARS.items() if k not in ("image/height", "image/width")})
    with pytest.raises(UserError, match=r"no key 'image/hight' \(did you mean 'image/height'\?\)"):
        encode(SCALARS | {"image/hight": 3})
    with pytest.raises(UserError, match="no key 'label'"):
        parse(tf.constant(b""), ["label"])


# ---- what an image tells (tfrecords.images)


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
def test_a_useless_image_is_named_by_its_reason(data, reason):
    with pytest.raises(ImageProblem) as raised:
        inspect_image(data)
    assert raised.value.reason == reason
    assert "0x" not in raised.value.detail  # no address of this run


def test_the_size_limit_counts_pixels_by_the_header():
    data = encode_picture()
    assert inspect_image(data, max_pixels=64 * 48).width == 64
    with pytest.raises(ImageProblem, match="64 x 48 px: expected at most 3,071 pixels"):
        inspect_image(data, max_pixels=64 * 48 - 1)
