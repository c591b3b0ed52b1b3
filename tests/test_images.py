"""Encoded images against Pillow, which reads the same files with its own code; and all that can be broken."""

import io
import resource
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from cnnrnn_tf.data import images
from tfrecords.decoding import headers as image_headers

SIZE = 48


def make_photograph(height=64, width=96):
    """Smooth colours, all different in the four corners, so that a wrong turn cannot go unseen."""
    y, x = np.mgrid[:height, :width]
    channels = [255 * x / (width - 1), 255 * y / (height - 1), 127 + 120 * np.sin(x / 9) * np.cos(y / 7)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def encode(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def exif_segment(tags, order="<", directory=8):
    """An APP1 segment; `tags` are (tag, type, count, four value bytes)."""
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, directory)
    body = struct.pack(order + "H", len(tags))
    body += b"".join(struct.pack(order + "HHI", *tag[:3]) + tag[3] for tag in tags) + bytes(4)
    return segment(0xE1, b"Exif\0\0" + head + body)


def segment(marker, payload):
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(payload)) + payload


def orientation_tag(value, order="<"):
    return (0x0112, 3, 1, struct.pack(order + "HH", value, 0))


def with_segments(jpeg, *segments):
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def png(width, height, bits, colour_type, rows):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pillow_pixels(encoded):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB"))


def top_down_bmp(image):
    """A 24-bit BMP whose negative height says that its rows run from the top down; Pillow writes none."""
    rows = np.asarray(image)[..., ::-1].tobytes()
    return encode(image, "BMP")[:22] + struct.pack("<i", -image.height) + encode(image, "BMP")[26:54] + rows


PHOTOGRAPH = make_photograph()
JPEG = encode(PHOTOGRAPH, "JPEG", quality=95)
TRANSLUCENT = PHOTOGRAPH.copy()
TRANSLUCENT.putalpha(PHOTOGRAPH.getchannel(0))
FORMATS = {
    "JPEG": JPEG,
    "JPEG, grey": encode(PHOTOGRAPH.convert("L"), "JPEG"),
    "JPEG, CMYK": encode(PHOTOGRAPH.convert("CMYK"), "JPEG"),
    "JPEG, progressive": encode(PHOTOGRAPH, "JPEG", progressive=True),
    "PNG": encode(PHOTOGRAPH, "PNG"),
    "PNG, grey": encode(PHOTOGRAPH.convert("L"), "PNG"),
    "PNG, grey and alpha": encode(TRANSLUCENT.convert("LA"), "PNG"),
    "PNG, alpha": encode(TRANSLUCENT, "PNG"),
    "PNG, palette": encode(PHOTOGRAPH.quantize(16), "PNG"),
    "PNG, palette with transparency": encode(PHOTOGRAPH.quantize(16), "PNG", transparency=3),
    "PNG, one bit": encode(PHOTOGRAPH.convert("1"), "PNG"),
    "GIF": encode(PHOTOGRAPH, "GIF"),
    "GIF, animated": encode(
        PHOTOGRAPH, "GIF", save_all=True, append_images=[PHOTOGRAPH.rotate(180)], loop=0, comment=b"x" * 600
    ),
    "BMP": encode(PHOTOGRAPH, "BMP"),
    "BMP, palette": encode(PHOTOGRAPH.quantize(16), "BMP"),
    "BMP, grey": encode(PHOTOGRAPH.convert("L"), "BMP"),
    "BMP, 32 bits": encode(TRANSLUCENT, "BMP"),
    "BMP, from the top down": top_down_bmp(PHOTOGRAPH),
    "WebP": encode(PHOTOGRAPH, "WEBP"),
    "WebP, lossless": encode(PHOTOGRAPH, "WEBP", lossless=True),
    "WebP, alpha": encode(TRANSLUCENT, "WEBP"),
    "WebP, lossless, alpha": encode(TRANSLUCENT, "WEBP", lossless=True),
    "WebP, animated": encode(
        TRANSLUCENT,
        "WEBP",
        save_all=True,
        append_images=[TRANSLUCENT.rotate(180)],
        lossless=True,
        icc_profile=b"odd",  # chunks are padded to an even length
    ),
}


def with_frame(marker, precision=8):
    """A photograph whose frame header (SOF0) says that it is another kind of JPEG."""
    return JPEG.replace(b"\xff\xc0\0\x11\x08", bytes([0xFF, marker, 0, 0x11, precision]))


UNSUPPORTED = {  # name in the answer: file
    "TIFF": encode(PHOTOGRAPH, "TIFF"),
    "a BMP that is compressed or has no whole bytes a pixel": encode(PHOTOGRAPH.convert("1"), "BMP"),
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(100),
    "AVIF": encode(PHOTOGRAPH, "AVIF"),
    "JPEG 2000": encode(PHOTOGRAPH, "JPEG2000"),
    "JPEG XL": b"\xff\x0a" + bytes(100),
    "a video or another ISO media file": b"\0\0\0\x18ftypmp42" + bytes(100),
    "a 12-bit JPEG": with_frame(0xC1, precision=12),
    "a lossless JPEG": with_frame(0xC3),
    "JPEG-LS": with_frame(0xF7),
    "an icon (ICO)": encode(PHOTOGRAPH, "ICO"),
}


@pytest.fixture(scope="module")
def decode_batch():
    """The function as a server calls it: traced once, batches of any size, NumPy out."""
    function = tf.function(
        lambda encoded: images.decode_batch(encoded, SIZE), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    return lambda rows: [output.numpy() for output in function(tf.constant(rows, tf.string, [len(rows)]))]


@pytest.fixture(scope="module")
def read_header():
    return tf.function(
        image_headers.read_header, autograph=False, input_signature=[tf.TensorSpec([None], tf.string)]
    )


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_decodes_to_the_pixels_that_pillow_gives(name):
    pixels = images.decode_image(FORMATS[name]).numpy()
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, pillow_pixels(FORMATS[name]))


def test_sixteen_bits_become_eight():
    pixels = np.asarray(PHOTOGRAPH)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels.astype(np.uint16) * 257)
    np.testing.assert_array_equal(images.decode_image(png(96, 64, 16, 2, rows)), pixels)


def test_a_batch_gives_for_every_format_what_one_file_gives(decode_batch):
    squares, valid, errors = decode_batch(list(FORMATS.values()))
    assert valid.all() and set(errors) == {b""}
    for square, encoded in zip(squares, FORMATS.values(), strict=True):
        np.testing.assert_array_equal(square, images.fit_to_square(images.decode_image(encoded), SIZE))


def test_headers_give_the_sizes_that_pillow_reads(read_header):
    header = read_header(list(FORMATS.values()))
    for height_px, width_px, encoded in zip(header.height_px, header.width_px, FORMATS.values(), strict=True):
        assert (width_px, height_px) == Image.open(io.BytesIO(encoded)).size
    header = read_header([encoded[:9] for encoded in FORMATS.values()])
    assert not (header.height_px.numpy().any() or header.width_px.numpy().any())


def test_one_photograph_in_eight_orientations_and_both_byte_orders_gives_one_tensor(decode_batch):
    pixels = np.asarray(PHOTOGRAPH)
    stored = {  # what a camera held that way stores, by the definition of the tag
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, 1),
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(pixels, -1),
    }
    files = []
    for value, array in stored.items():
        np.testing.assert_array_equal(images.apply_orientation(tf.constant(array.copy()), value), pixels)
        jpeg = encode(Image.fromarray(array), "JPEG", quality=95)
        files += [with_segments(jpeg, exif_segment([orientation_tag(value, o)], o)) for o in "<>"]
        for file in files[-2:]:
            assert Image.open(io.BytesIO(file)).getexif()[0x0112] == value
            assert images.exif_orientation(file) == value
            np.testing.assert_array_equal(images.decode_image(file), pillow_pixels(file))
        lossless = encode(Image.fromarray(array), "PNG")
        np.testing.assert_array_equal(images.decode_image(lossless, tf.constant(value, tf.int64)), pixels)
    squares, valid, _ = decode_batch(files)
    assert valid.all()
    assert (
        np.abs(squares - squares[0]).max() < 8
    )  # eight JPEGs of the same scene: their blocks differ a little


VALUE_6 = (0x0112, 3, 1, b"\6\0\0\0")
XMP = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
EXIF_TABLE = {
    "no segment": ([], 1),
    "plain": ([exif_segment([VALUE_6])], 6),
    "after XMP, which is APP1 too": ([XMP, exif_segment([VALUE_6])], 6),
    "after fill bytes": ([b"\xff\xff\xff" + exif_segment([VALUE_6])], 6),
    "the first of two counts": ([exif_segment([VALUE_6]), exif_segment([orientation_tag(3)])], 6),
    "among other tags": ([exif_segment([(0x010F, 2, 4, b"Acme"), VALUE_6, (0x0128, 3, 1, bytes(4))])], 6),
    "as a long": ([exif_segment([(0x0112, 4, 1, b"\6\0\0\0")])], 6),
    "as a big-endian long": ([exif_segment([(0x0112, 4, 1, b"\0\0\0\6")], ">")], 6),
    "as text": ([exif_segment([(0x0112, 2, 1, b"6\0\0\0")])], 1),
    "two values": ([exif_segment([(0x0112, 3, 2, b"\6\0\6\0")])], 1),
    "value 0": ([exif_segment([orientation_tag(0)])], 1),
    "value 9": ([exif_segment([orientation_tag(9)])], 1),
    "no tags": ([exif_segment([])], 1),
    "another tag": ([exif_segment([(0x0113, 3, 1, b"\6\0\0\0")])], 1),
    "directory beyond the file": ([exif_segment([VALUE_6], directory=2**32 - 1)], 1),
    "neither byte order": ([exif_segment([VALUE_6]).replace(b"II*\0", b"IM*\0")], 1),
    "more tags announced than there are": (
        [exif_segment([VALUE_6]).replace(b"\1\0\x12", b"\xff\xff\x12")],
        6,
    ),
    "a tag behind the last one announced": (
        [exif_segment([(0x010F, 3, 1, bytes(4)), VALUE_6]).replace(b"\2\0\x0f", b"\1\0\x0f")],
        1,
    ),
    "an empty segment": ([segment(0xE1, b"")], 1),
    "cut off after its name": ([segment(0xE1, b"Exif\0\0")], 1),
    "cut off within the tag": ([segment(0xE1, exif_segment([VALUE_6])[4:-10])], 1),
}


def test_orientation_is_1_wherever_the_structure_is_malformed():
    files = [with_segments(JPEG, *segments) for segments, _ in EXIF_TABLE.values()]
    found = images.exif_orientation(files).numpy()
    assert dict(zip(EXIF_TABLE, found, strict=True)) == {
        name: value for name, (_, value) in EXIF_TABLE.items()
    }


@pytest.mark.parametrize("encoded", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1", FORMATS["PNG"]])
def test_orientation_of_what_is_no_whole_jpeg_is_1(encoded):
    assert images.exif_orientation(encoded) == 1


def test_a_jpeg_whose_size_comes_after_300_kilobytes_of_metadata_is_read():
    encoded = with_segments(JPEG, *[segment(0xED, bytes(60_000))] * 5, exif_segment([VALUE_6]))
    assert [int(side) for side in images.image_size(encoded)] == [64, 96]
    assert images.decode_image(encoded).shape == (96, 64, 3)


def huge_jpeg():
    frame = JPEG.index(b"\xff\xc0")
    return JPEG[: frame + 5] + struct.pack(">HH", 50_000, 50_000) + JPEG[frame + 9 :]


def huge_gif():
    """The canvas is small, the picture is not."""
    gif = FORMATS["GIF"]
    picture = gif.index(b"\x2c\0\0\0\0" + struct.pack("<HH", 96, 64))
    return gif[: picture + 5] + struct.pack("<HH", 50_000, 50_000) + gif[picture + 9 :]


BOMBS = {
    "PNG": png(50_000, 50_000, 8, 2, bytes(1000)),
    "JPEG": huge_jpeg(),
    "GIF": huge_gif(),
    "BMP": FORMATS["BMP"][:18] + struct.pack("<ii", 50_000, -50_000) + FORMATS["BMP"][26:],
    "WebP": FORMATS["WebP, alpha"][:24] + b"\xff\xff\xff\xff\xff\xff" + FORMATS["WebP, alpha"][30:],
    "PNG of 2**32 - 1": png(2**32 - 1, 2**32 - 1, 8, 2, bytes(10)),
}


def test_bombs_are_refused_by_their_header_and_not_decoded(decode_batch):
    decode_batch([JPEG])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, valid, errors = decode_batch([*BOMBS.values(), JPEG])
    added_kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert added_kilobytes < 500_000  # 50,000 x 50,000 pixels would take 7.5 GB
    assert valid.tolist() == [False] * len(BOMBS) + [True]
    assert errors.tolist() == [b"too large"] * len(BOMBS) + [b""]
    for bomb in BOMBS.values():
        with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
            images.decode_image(bomb)


def test_the_limit_on_pixels_is_an_argument():
    encoded = tf.constant([JPEG, FORMATS["PNG"]])
    assert images.decode_batch(encoded, SIZE, max_pixels=64 * 96)[1].numpy().all()
    assert (
        images.decode_batch(encoded, SIZE, max_pixels=64 * 96 - 1)[2].numpy().tolist() == [b"too large"] * 2
    )
    for file in (JPEG, FORMATS["PNG"]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
            images.decode_image(file, max_pixels=64 * 96 - 1)


def test_only_the_first_picture_of_an_animation_reaches_the_decoder(read_header):
    # TensorFlow 2.21 corrupts its heap on an animated WebP, and decodes all frames of a GIF.
    names = ["GIF, animated", "WebP, animated"]
    for still, name in zip(read_header([FORMATS[name] for name in names]).still.numpy(), names, strict=True):
        assert Image.open(io.BytesIO(FORMATS[name])).n_frames == 2
        assert Image.open(io.BytesIO(still)).n_frames == 1


BAD_ROWS = {
    b"": b"empty",
    b"x": b"not an image",
    b"<html>404 Not Found</html>": b"not an image",
    bytes(10_000): b"not an image",
    **{
        encoded: f"unsupported: {name}; send JPEG, PNG, GIF, BMP or WebP".encode()
        for name, encoded in UNSUPPORTED.items()
    },
    JPEG[:300]: b"cut off",
    JPEG[: len(JPEG) // 2]: b"cut off",
    JPEG[:1000] + bytes(200) + JPEG[1200:]: b"",  # damaged scan data may decode: then it is valid
    JPEG.replace(b"\xff\xda", b"\xff\xdb"): b"damaged",
    FORMATS["PNG"][:100] + bytes(50) + FORMATS["PNG"][150:]: b"damaged",
}


def test_bad_rows_say_why_and_good_rows_keep_their_place_and_their_pixels(decode_batch):
    rows = [row for bad in BAD_ROWS for row in (bad, JPEG)] + [FORMATS["PNG"]]
    squares, valid, errors = decode_batch(rows)
    expected = [error for bad in BAD_ROWS.values() for error in (bad, b"")] + [b""]
    assert errors.tolist() == expected
    assert valid.tolist() == [error == b"" for error in expected]
    assert not squares[~valid].any()
    for row in (1, len(rows) - 2, len(rows) - 1):
        np.testing.assert_array_equal(squares[row], decode_batch([rows[row]])[0][0])


def test_every_format_cut_at_any_length_is_cut_off_and_nothing_else(decode_batch):
    for name, encoded in FORMATS.items():
        lengths = [
            30,
            60,
            100,
            len(encoded) // 4,
            len(encoded) // 2,
            len(encoded) * 3 // 4,
            len(encoded) - 30,
        ]
        if "animated" in name:  # whose first picture may be all there
            lengths = lengths[:4]
        _, valid, errors = decode_batch([encoded[:length] for length in lengths])
        assert not valid.any(), name
        assert set(errors) == {b"cut off"}, (name, errors)


def test_a_png_that_lacks_a_byte_of_its_last_checksum_is_cut_off_and_not_damaged(decode_batch):
    assert (
        decode_batch([FORMATS["PNG"][:-missing] for missing in range(1, 5)])[2].tolist() == [b"cut off"] * 4
    )


def test_a_large_image_that_is_decoded_after_the_others_keeps_its_place(decode_batch):
    wide, small = (encode(make_photograph(*size), "PNG") for size in ((3, 16_001), (40, 50)))
    squares, valid, _ = decode_batch([wide, small])
    assert valid.all()
    for row, encoded in enumerate((wide, small)):
        expected = images.fit_to_square(images.decode_image(encoded), SIZE)
        np.testing.assert_array_equal(squares[row], expected)


@pytest.mark.parametrize("rows", [[], [b""], [b"", b"no", JPEG[:99]]])
def test_batches_without_a_good_row_work(decode_batch, rows):
    squares, valid, errors = decode_batch(rows)
    assert squares.shape == (len(rows), SIZE, SIZE, 3) and not squares.any()
    assert valid.tolist() == [False] * len(rows)
    assert errors.tolist() == [b"empty", b"not an image", b"cut off"][: len(rows)]


def mutate(encoded, rng):
    """Flips bits, overwrites, inserts, deletes or cuts, anywhere."""
    data = bytearray(encoded)
    start, length = rng.integers(len(data)), rng.integers(1, 40)
    kind = rng.integers(5)
    if kind == 0:
        for position in rng.integers(len(data), size=rng.integers(1, 9)):
            data[position] ^= 1 << rng.integers(8)
    elif kind == 1:
        data[start : start + length] = rng.bytes(len(data[start : start + length]))
    elif kind == 2:
        data[start:start] = rng.bytes(length)
    elif kind == 3:
        del data[start : start + length]
    else:
        del data[start:]
    return bytes(data)


def test_300_mutated_jpegs_raise_nothing_and_leave_the_good_rows_alone(decode_batch, read_header):
    rng = np.random.default_rng(7)
    whole = with_segments(JPEG, exif_segment([VALUE_6]))
    alone = decode_batch([whole])[0][0]
    for _ in range(10):
        rows = [mutate(whole, rng) for _ in range(30)]
        squares, valid, errors = decode_batch([*rows[:15], whole, *rows[15:]])
        np.testing.assert_array_equal(squares[15], alone)
        assert [error == b"" for error in errors] == valid.tolist()
        assert set(errors) <= {b"", b"empty", b"not an image", b"cut off", b"damaged", b"too large"}
        header = read_header(rows)
        for row, height_px, width_px in zip(rows, header.height_px, header.width_px, strict=True):
            try:  # what is checked against the limit is what libjpeg is going to allocate
                libjpeg_size = tf.io.extract_jpeg_shape(row)[:2]
            except tf.errors.InvalidArgumentError:
                continue
            assert libjpeg_size.numpy().tolist() == [height_px, width_px]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 61), (48, 48), (20, 30), (1, 7), (400, 51)])
def test_resizing_equals_pillow_on_the_centre_square(height, width):
    image = (
        make_photograph(height, width)
        if min(height, width) > 1
        else Image.new("RGB", (width, height), (9, 8, 7))
    )
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)
    expected = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box))
    square = images.fit_to_square(tf.constant(np.asarray(image)), SIZE).numpy()
    assert square.dtype == np.float32 and square.shape == (SIZE, SIZE, 3)
    assert np.abs(square - expected).max() <= 1.01  # Pillow rounds after each of its two passes


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 61), (48, 48), (20, 30), (400, 51)])
def test_stretching_equals_pillow_on_the_whole_image(height, width):
    image = make_photograph(height, width)
    expected = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    square = images.fit_to_square(tf.constant(np.asarray(image)), SIZE, "stretch").numpy()
    assert np.abs(square - expected).max() <= 1.01
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    batch, _, _ = images.decode_batch([buffer.getvalue()], SIZE, "stretch")
    np.testing.assert_array_equal(batch[0], square)


@pytest.mark.parametrize(
    ("height", "width"),
    [(64, 96), (97, 61), (20, 30), (1, 7), (400, 51), (1000, 1001), (9, 65_535), (65_535, 9)],
)
def test_one_direction_at_a_time_gives_the_bits_of_both_at_once(height, width):
    image = np.random.default_rng(height).integers(0, 256, [height, width, 3], np.uint8)
    for image_fit, side in (("crop", SIZE), ("stretch", SIZE), ("crop", SIZE + 9)):
        extent = np.float32([height, width])
        scale = np.broadcast_to(np.float32(side) / (extent if image_fit == "stretch" else extent.min()), [2])
        position = np.float32([0.2, 0.7])
        both = tf.raw_ops.ScaleAndTranslate(
            images=image[np.newaxis],
            size=[SIZE, SIZE],
            scale=scale,
            translation=-(extent * scale - SIZE) * position,
            kernel_type="triangle",
            antialias=True,
        )[0]
        window = images._resize_window(tf.constant(image), SIZE, side, position, image_fit)
        np.testing.assert_array_equal(window, np.round(both))


@pytest.mark.parametrize("image_fit", images.IMAGE_FITS)
def test_a_white_image_stays_within_255(image_fit):
    white = tf.fill([333, 77, 3], np.uint8(255))
    assert images.fit_to_square(white, SIZE, image_fit).numpy().max() <= 255


def test_random_squares_lie_within_the_image_and_are_mirrored_half_of_the_time():
    # Red says the column, green the row: each square tells where it was cut.
    y, x = np.mgrid[:64, :96]
    image = tf.constant(np.stack([2.0 * x, 2.0 * y, 0 * x], axis=-1), tf.float32)
    squares = np.stack([images.random_crop_and_flip(image, 32, [seed, 1], side=64) for seed in range(200)])
    red, green = squares[..., 0] / 2, squares[..., 1] / 2
    mirrored = red[:, 0, 0] > red[:, 0, -1]
    assert 70 < mirrored.sum() < 130
    np.testing.assert_allclose(np.abs(red[:, 0, -1] - red[:, 0, 0]), 31, atol=1e-3)
    np.testing.assert_allclose(green[:, -1, 0] - green[:, 0, 0], 31, atol=1e-3)
    left, top = red.min(axis=(1, 2)), green[:, 0, 0]
    assert left.min() >= 0 and left.max() <= 64 and left.min() < 5 and left.max() > 59
    assert top.min() >= 0 and top.max() <= 32 and top.min() < 3 and top.max() > 29


def test_random_squares_of_a_stretched_image_lie_within_it():
    y, x = np.mgrid[:64, :128]
    image = tf.constant(np.stack([x, y, 0 * x], axis=-1), tf.float32)
    squares = np.stack(
        [images.random_crop_and_flip(image, 48, [seed, 1], "stretch", side=64) for seed in range(60)]
    )
    widths, heights = (np.ptp(squares[..., channel], axis=(1, 2)) for channel in (0, 1))
    np.testing.assert_allclose(widths, 2 * 47, atol=0.6)  # 48 of 64 columns, each two pixels wide
    np.testing.assert_allclose(heights, 47, atol=1e-3)
    assert squares[..., 0].min() < 8 and squares[..., 0].max() > 119


@pytest.mark.parametrize(
    ("height", "width", "image_fit", "corners"),
    [
        # Parts of 4 x 4 px: nothing is resized.
        (6, 6, "crop", [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]),
        (6, 6, "stretch", [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]),
        # Parts of 4 x 6 px, of which "crop" cuts out the middle.
        (6, 9, "crop", [(0, 1), (0, 4), (2, 1), (2, 4), (1, 2)]),
        # Two thirds of 7 are 5, rounded: parts of 5 x 4 px, whose middle begins half a pixel down.
        (7, 6, "crop", [(0.5, 0), (0.5, 2), (2.5, 0), (2.5, 2), (1.5, 1)]),
        # Two thirds of 8 are 5, rounded; the middle part begins one of three pixels down.
        (8, 6, "crop", [(0.5, 0), (0.5, 2), (3.5, 0), (3.5, 2), (1.5, 1)]),
    ],
)
def test_the_parts_lie_at_the_corners_and_in_the_middle(height, width, image_fit, corners):
    def shade(top, left, height=4, width=4):  # 10 y + x in row y and column x
        return np.add.outer(10 * (top + np.arange(height)), left + np.arange(width))

    image = np.repeat(shade(0, 0, height, width)[:, :, None], 3, axis=2).astype(np.uint8)
    found = images.cut_hypotheses(tf.constant(image), 4, image_fit).numpy()
    assert found.shape == (6, 4, 4, 3) and found.dtype == np.float32
    np.testing.assert_array_equal(found[1:, :, :, 0], [shade(*corner) for corner in corners])
    np.testing.assert_array_equal(found[0], images.fit_to_square(tf.constant(image), 4, image_fit))


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 61), (31, 200), (1, 1)])
def test_parts_that_are_stretched_are_those_of_pillow(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, [height, width, 3], np.uint8)
    picture = Image.fromarray(pixels)
    found = images.cut_hypotheses(tf.constant(pixels), 24, "stretch").numpy()
    h, w = round(height * 2 / 3), round(width * 2 / 3)
    middle = ((width - w) // 2, (height - h) // 2)
    for part, (left, top) in zip(
        found[1:], [(0, 0), (width - w, 0), (0, height - h), (width - w, height - h), middle], strict=True
    ):
        expected = picture.crop((left, top, left + w, top + h)).resize((24, 24), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(part, np.asarray(expected, np.float32), atol=1)


def test_a_thumbnail_is_the_whole_image_upright_in_its_own_shape():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    buffer = io.BytesIO()
    image = make_photograph(600, 900)
    image.save(buffer, "JPEG", quality=95, exif=exif)
    small = images.read_thumbnail(buffer.getvalue(), longest_px=300)
    assert small.dtype == np.uint8 and small.shape == (300, 200, 3)
    expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270).resize((200, 300), Image.BILINEAR))
    assert np.abs(small.astype(int) - expected).mean() < 2
    assert images.read_thumbnail(JPEG).shape == (64, 96, 3)  # never made larger


def test_a_thumbnail_of_16_bits_keeps_its_greys():
    grey = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    small = images.read_thumbnail(buffer.getvalue())
    np.testing.assert_allclose(small[..., 0], grey / 257, atol=1.5)


def test_random_squares_follow_from_the_seed():
    image = tf.constant(np.asarray(PHOTOGRAPH))
    first, again, other = (images.random_crop_and_flip(image, 32, [seed, 0]).numpy() for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1


@pytest.mark.parametrize("name", [name for name in FORMATS if name.startswith("BMP")])
def test_bytes_behind_the_pixels_of_a_bmp_change_nothing_and_one_missing_is_told(name):
    data = FORMATS[name]
    pixels, valid, _ = images.decode_batch([data, data + b"\0\0", data + bytes(700), data[:-1]], SIZE)
    assert valid.numpy().tolist() == [True, True, True, False]
    np.testing.assert_array_equal(pixels[1], pixels[0])
    np.testing.assert_array_equal(pixels[2], pixels[0])
