"""Records: what is encoded comes back, in tf.data and without this project; the bytes are TensorFlow's."""

import numpy as np
import pytest
import tensorflow as tf

from tfrecords.errors import UserError
from tfrecords.framing import DamagedFile, find_records, frame_record, read_records
from tfrecords.schema import FIELDS, decode, encode, encode_parts, parse, strip_image

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


def test_what_was_encoded_is_decoded_without_tensorflow():
    for values in (SCALARS | LISTS, SCALARS | {key: [] for key in LISTS}):
        assert decode(encode(values)) == values
    odd = SCALARS | {"image/filename": b"\xff.jpg".decode("utf-8", "surrogateescape")}
    assert decode(encode(odd))["image/filename"].encode("utf-8", "surrogateescape") == b"\xff.jpg"


def test_what_is_no_record_is_told():
    with pytest.raises(ValueError, match=r"not a tf\.train\.Example"):
        decode(b"no record")
    with pytest.raises(ValueError, match="has no image/encoded"):
        decode(b"")
    twice = tf.train.Example.FromString(encode(SCALARS))
    twice.features.feature["image/height"].int64_list.value.append(3)
    with pytest.raises(ValueError, match="has 2 values of image/height"):
        decode(twice.SerializeToString())


def test_a_record_without_its_image_still_has_all_else():
    record, other = (encode(SCALARS | LISTS | {"image/encoded": image}) for image in (b"abcd", b"efgh"))
    assert strip_image(record, b"abcd") == strip_image(other, b"efgh")
    assert strip_image(record, b"abcd") == record.replace(b"abcd", b"")


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


def test_the_bytes_of_a_record_are_those_of_tensorflows_own_message():
    kinds = {"int64": "int64_list", "float32": "float_list", "text": "bytes_list", "bytes": "bytes_list"}
    for values in (SCALARS | LISTS, SCALARS | {key: [] for key in LISTS}):
        example = tf.train.Example()
        for key, value in values.items():
            several = value if isinstance(value, list) else [value]
            several = [item.encode() if isinstance(item, str) else item for item in several]
            kind = getattr(example.features.feature[key], kinds[FIELDS[key].kind])
            kind.SetInParent()
            kind.value.extend(several)
        assert encode(values) == example.SerializeToString(deterministic=True)


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16_000, 16_383, 16_384, 2_097_151, 2_097_152])
def test_an_image_of_any_size_is_passed_on_uncopied_in_a_record_that_parses(size):
    image = bytes(size)
    before, middle, behind = encode_parts(SCALARS | LISTS | {"image/encoded": image})
    assert middle is image
    whole = before + middle + behind
    example = tf.train.Example.FromString(whole)
    assert example.features.feature["image/encoded"].bytes_list.value == [image]
    assert example.SerializeToString(deterministic=True) == whole


@pytest.mark.parametrize("size", [5, 15, 17, 20, 35, 45, 60])
def test_a_file_that_is_cut_off_anywhere_or_changed_is_damaged(tmp_path, size):
    path = tmp_path / "records"
    data = b"".join(part for record in (b"abcdef", b"ghijkl", b"mnopqr") for part in frame_record(record))
    assert len(data) == 3 * (12 + 6 + 4)
    path.write_bytes(data)
    assert list(read_records(path)) == [(12, b"abcdef"), (34, b"ghijkl"), (56, b"mnopqr")]
    path.write_bytes(data[:size])
    found = []
    with pytest.raises(DamagedFile, match="corrupted or cut off at byte"):
        for record in read_records(path):
            found.append(record)
    assert len(found) == size // 22
    changed = bytearray(data)
    changed[size] ^= 1
    path.write_bytes(changed)
    with pytest.raises(DamagedFile, match="corrupted or cut off at byte"):
        list(read_records(path))


def test_a_file_of_framed_records_is_that_of_tensorflows_own_writer(tmp_path):
    records = [b"", b"a", bytes(range(256)) * 500, encode(SCALARS | LISTS)]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    theirs = (tmp_path / "theirs").read_bytes()
    assert b"".join(part for record in records for part in frame_record(record)) == theirs
    assert b"".join(part for record in records for part in frame_record(record[:9], record[9:])) == theirs
    assert [theirs[start:stop] for start, stop in find_records(tmp_path / "theirs")] == records


def test_missing_scalars_and_unknown_keys_are_refused():
    with pytest.raises(UserError, match="a record needs image/height, image/width"):
        encode({k: v for k, v in SCALARS.items() if k not in ("image/height", "image/width")})
    with pytest.raises(UserError, match=r"no key 'image/hight' \(did you mean 'image/height'\?\)"):
        encode(SCALARS | {"image/hight": 3})
    with pytest.raises(UserError, match="no key 'label'"):
        parse(tf.constant(b""), ["label"])
