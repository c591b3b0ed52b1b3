"""Malformed files among good ones: good rows keep their pixels, bad ones say why, nothing breaks."""

import collections
import zlib

import numpy as np
import pytest
import tensorflow as tf
from malformed import ERRORS, GOOD_FILES, KINDS, jpeg_segment, malformed_files, png, png_chunk

from cnnrnn_tf.data import images
from cnnrnn_tf.serving import fresh_process
from tfrecords.decoding import pixels

SIZE = 32
GOOD = list(GOOD_FILES.values())


@pytest.fixture(scope="module")
def decode_batch():
    """The function as a server calls it: traced once, batches of any size, NumPy out."""
    function = tf.function(
        lambda encoded: images.decode_batch(encoded, SIZE), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    return lambda rows: [output.numpy() for output in function(tf.constant(rows, tf.string, [len(rows)]))]


@pytest.fixture(scope="module")
def alone(decode_batch):
    """The square of each good file that was decoded by itself."""
    found = [decode_batch([encoded]) for encoded in GOOD]
    assert all(valid.all() for _, valid, _ in found)
    return [square[0] for square, _, _ in found]


def test_the_same_seed_makes_the_same_files_of_every_kind():
    first, again, other = (list(malformed_files(seed, 70)) for seed in (1, 1, 2))
    assert first == again != other
    assert {each.kind for each in first} == set(KINDS)


def check_batches(decode_batch, alone, seed, count, with_large):
    """Batches of 24 bad and 8 good rows; returns how often each kind got each error."""
    found = collections.Counter()
    rng, bad = np.random.default_rng(seed), malformed_files(seed, count, with_large)
    while group := [each for _, each in zip(range(24), bad, strict=False)]:
        good = rng.permutation(len(GOOD))[:8]
        order = rng.permutation(len(group) + 8)
        rows = [each.data for each in group] + [GOOD[i] for i in good]
        squares, valid, errors = decode_batch([rows[i] for i in order])
        place = np.argsort(order)  # of each of `rows` in the batch
        for i, where in zip(good, place[len(group) :], strict=True):
            np.testing.assert_array_equal(squares[where], alone[i])
            assert valid[where] and errors[where] == b""
        for each, where in zip(group, place, strict=False):
            error = errors[where].decode()
            assert each.may_say(error), (each.kind, each.origin, error)
            assert valid[where] == (error == "")
            assert valid[where] or not squares[where].any()
            found[each.kind, error] += 1
    return found


def test_no_malformed_row_changes_a_good_one_and_each_says_why(decode_batch, alone):
    found = check_batches(decode_batch, alone, seed=3, count=560, with_large=False)
    assert {error.partition(":")[0] for _, error in found} == {"", *ERRORS}


@pytest.mark.long
def test_ten_thousand_malformed_rows_change_no_good_one(decode_batch, alone):
    found = check_batches(decode_batch, alone, seed=4, count=10_000, with_large=True)
    assert sum(found.values()) == 10_000


def test_through_the_c_api_no_malformed_row_costs_another_its_labels(tiny_export):
    bad = list(malformed_files(seed=5, count=240, with_large=False))
    calls = [GOOD] + [
        [GOOD[i // 4 % len(GOOD)] if i % 4 == 0 else bad[24 * batch + i - i // 4 - 1].data for i in range(32)]
        for batch in range(10)
    ]
    inputs = [("serving_default", {"image_bytes": np.array(rows, object)}) for rows in calls]
    whole, *mixed = fresh_process.run_calls(fresh_process.C_API, tiny_export / "1", inputs)["calls"]
    assert whole["valid"].all()
    assert len({tuple(row) for row in whole["labels"].tolist()}) > 2  # rows can be told apart
    for outputs in mixed:
        assert outputs["valid"][::4].all()
        assert outputs["labels"][::4].tolist() == whole["labels"][:8].tolist()
        np.testing.assert_allclose(
            outputs["probabilities"][::4], whole["probabilities"][:8], rtol=1e-4, atol=1e-6
        )
        np.testing.assert_array_equal(outputs["valid"], outputs["error"] == b"")


# ---- what one file may cost


def flat_png(width, height, *chunks):
    return png(width, height, *chunks, png_chunk(b"IDAT", zlib.compress(bytes((1 + 3 * width) * height))))


def test_only_sides_of_up_to_65535_pixels_are_decoded(decode_batch):
    # A row of a million pixels needs 380 MB to become 32 high, and 2.7 GB to become 224.
    rows = [flat_png(*size) for size in ((65_535, 2), (65_536, 2), (2, 65_535), (2, 65_536))]
    assert decode_batch(rows)[2].tolist() == [b"", b"too large"] * 2


@pytest.mark.parametrize("count", [32, 33])
def test_a_jpeg_of_more_scans_than_any_program_writes_is_refused(decode_batch, count):
    jpeg = GOOD_FILES["JPEG, progressive"]
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    # What looks like the start of a scan within metadata is none, by what follows it.
    metadata = jpeg_segment(0xED, b"\xff\xda\0\x99" * 100)  # more places than scans may be
    data = jpeg[:2] + metadata + jpeg[2:-2] + last * (count - jpeg.count(b"\xff\xda\0")) + b"\xff\xd9"
    assert data.count(b"\xff\xda\0") == count + 100
    expected = b"" if count == 32 else b"too large"
    assert decode_batch([data])[2].tolist() == [expected]


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_png_of_more_compressed_texts_than_any_program_writes_is_refused(decode_batch, kind):
    head = {b"zTXt": b"bomb\0\0", b"iTXt": b"bomb\0\1\0en\0bomb\0"}[kind]
    text = png_chunk(kind, head + zlib.compress(b"so much"))
    rows = [flat_png(8, 8, text * count) for count in (32, 33)]
    assert decode_batch(rows)[2].tolist() == [b"", b"too large"]


def test_images_that_are_decoded_one_by_one_give_what_they_give_at_once(monkeypatch, alone):
    monkeypatch.setattr(pixels, "_MAX_PIXELS_IN_PARALLEL", 72 * 100 - 1)
    monkeypatch.setattr(pixels, "_MAX_WIDTH_IN_PARALLEL", 80)
    rows = [*GOOD, b"", flat_png(30, 30), GOOD[0][:200]]
    squares, valid, errors = images.decode_batch(tf.constant(rows), SIZE)
    np.testing.assert_array_equal(squares[: len(GOOD)], alone)
    assert errors.numpy().tolist() == [*[b""] * len(GOOD), b"empty", b"", b"cut off"]
    assert valid.numpy().tolist() == [*[True] * len(GOOD), False, True, False]
