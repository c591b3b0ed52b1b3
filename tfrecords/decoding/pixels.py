"""Decodes image files to upright pixels, and says of files that do not decode why.

These graph operations are the one verdict on a file: `build --decode` and `verify` judge by them, training
reads records by them, and `predict` and the exported model answer by them. EXIF orientation is applied, JPEGs
decode by libjpeg's accurate method (bit for bit what Pillow gives; TensorFlow's default is a few levels off),
and a size is read before it is allocated.
"""

import tensorflow as tf

from tfrecords.decoding.file_bytes import file_size, little_endian, read_bytes
from tfrecords.decoding.headers import (
    BMP,
    GIF,
    JPEG,
    MAX_PASSES,
    PNG,
    SERVED_FORMATS,
    UNKNOWN,
    WEBP,
    exif_orientation,
    find_format,
    read_header,
    read_png_size,
    read_still,
)
from tfrecords.images import MAX_PIXELS

MAX_SIDE_PX = 65_535
"""The longest side that `decode_files` takes: resizing needs memory for the width, whatever the height."""

# In one batch. The two together keep what it holds below what one image of MAX_PIXELS may take.
_NUM_PARALLEL_DECODES = 8
_MAX_PIXELS_IN_PARALLEL = 16_000_000  # larger images, or wider ones than 16,000 px, are decoded one by one
_MAX_WIDTH_IN_PARALLEL = 16_000


def decode_image(encoded, orientation=None, max_pixels=MAX_PIXELS):
    """Returns the pixels of a JPEG, PNG, GIF, BMP or WebP file, upright, as <uint8>[height, width, 3] RGB.

    Alpha is dropped, grey and CMYK become RGB, 16 bits become 8, an animation gives its first picture.

    Args:
        encoded: <string>[].
        orientation: <int>[], EXIF 1 to 8, as a record holds it; read from the file if None.
        max_pixels: images that claim to be larger are not decoded.

    Raises:
        tf.errors.InvalidArgumentError: while running, if it is no such image, cut off, damaged or too large.
            `decode_files` is for bytes that nobody has checked.
    """
    encoded = tf.convert_to_tensor(encoded)
    if orientation is None:
        orientation = exif_orientation(encoded)
    # JPEGs and PNGs take the short way, and read no header but the size.
    format_id, limit = find_format(encoded), tf.constant(max_pixels, tf.int64)
    image = tf.case(
        [
            (format_id == JPEG, lambda: _decode_jpeg_within(encoded, limit)),
            (format_id == PNG, lambda: _decode_png_within(encoded, limit)),
        ],
        default=lambda: _decode_other_within(encoded, limit),
    )
    image.set_shape([None, None, 3])
    return apply_orientation(image, orientation)


def apply_orientation(image, orientation):
    """Returns `image` turned upright.

    Args:
        image: <dtype>[height, width, channels], as stored.
        orientation: <int>[], EXIF 1 to 8: which edges of the scene the first row and column show.

    Returns:
        <dtype>[height, width, channels], height and width exchanged for 5 to 8.
    """
    orientation = tf.cast(orientation, tf.int32)

    def is_one_of(*values):
        return tf.reduce_any(orientation == values)

    def turn():
        transposed = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        flips = [is_one_of(3, 4, 7, 8), is_one_of(2, 3, 6, 7), False]  # of rows, columns, channels
        return tf.raw_ops.Reverse(tensor=transposed, dims=tf.stack(flips))

    upright = tf.cond(orientation > 1, turn, lambda: image)
    upright.set_shape([None, None, image.shape[2]])
    return upright


def decode_files(encoded, finish, shape, max_pixels=MAX_PIXELS, jpeg_ratio=1):
    """Decodes a batch of files; a bad file costs its own row and no other.

    Runs in a SavedModel as TensorFlow Serving loads it: no Python, and no row raises.

    What hostile files can cost is bounded. Decoding takes up to 12 bytes a pixel (3 for a plain JPEG, 9 for a
    progressive one, 12 for WebP): images of up to 16 million pixels are decoded at most eight at once, larger
    ones after them one by one. A batch of any size so holds about 2.3 GB beside its files, and a row
    takes some seconds at most, or 3 s for each MB of a PNG that inflates to more than its pixels.

    Args:
        encoded: <string>[batch]; the batch may be empty.
        finish: what is done to the upright pixels, <uint8>[height, width, 3] -> <float32>[*shape].
        shape: of what `finish` returns.
        max_pixels: images that claim to be larger are not decoded.
        jpeg_ratio: JPEGs are decoded to 1/1, 1/2, 1/4 or 1/8 of their size; the verdict is the same.

    Returns:
        pictures: <float32>[batch, *shape]; zeros where not valid.
        valid: <bool>[batch].
        errors: <string>[batch], "" where valid, else "empty", "not an image", "unsupported: " and the format
            with what to send instead, "too large" (by its pixels, a side over 65,535 px, or more than 32
            scans of a JPEG or compressed texts of a PNG), "cut off" or "damaged".
    """
    with tf.device("/CPU:0"):  # strings live there; on a GPU every small number would travel
        return _decode_batch(tf.convert_to_tensor(encoded), finish, list(shape), max_pixels, jpeg_ratio)


def _decode_batch(encoded, finish, shape, max_pixels, jpeg_ratio):
    batch = tf.size(encoded, out_type=tf.int64)
    header = read_header(encoded)
    fault = _find_fault(encoded, header, max_pixels)
    longest_px = tf.maximum(header.height_px, header.width_px)
    is_bomb = (longest_px > MAX_SIDE_PX) | (header.num_passes > MAX_PASSES)
    fault = tf.where((fault == "") & is_bomb, "too large", fault)
    is_large = header.height_px * header.width_px > _MAX_PIXELS_IN_PARALLEL
    is_large |= header.width_px > _MAX_WIDTH_IN_PARALLEL

    def decode(row, still, format_id, orientation):
        image = apply_orientation(_decode_still(still, format_id, jpeg_ratio), orientation)
        return row, tf.ensure_shape(finish(image), shape)

    def decode_rows(is_wanted, num_parallel_calls):
        rows = tf.where(is_wanted)[:, 0]  # <int64>[wanted rows]
        columns = [tf.gather(column, rows) for column in (header.still, header.format, header.orientation)]
        return tf.data.Dataset.from_tensor_slices((rows, *columns)).map(decode, num_parallel_calls)

    # An operation that fails ends a graph, but in a data set only its element. The element at the end is
    # there because a data set without elements gives no batch.
    decoded = (
        decode_rows((fault == "") & ~is_large, _NUM_PARALLEL_DECODES)
        .concatenate(decode_rows((fault == "") & is_large, None))
        .ignore_errors()
        .concatenate(tf.data.Dataset.from_tensors((tf.zeros([], tf.int64), tf.zeros(shape))))
        .batch(batch + 1)
    )
    good_rows, pictures = decoded.get_single_element()
    good_rows, pictures = good_rows[:-1, None], pictures[:-1]
    valid = tf.scatter_nd(good_rows, tf.ones_like(good_rows[:, 0]), [batch]) > 0
    is_in_place = tf.reduce_all(valid) & ~tf.reduce_any(is_large)
    images = tf.cond(
        is_in_place, lambda: pictures, lambda: tf.scatter_nd(good_rows, pictures, [batch, *shape])
    )
    images.set_shape([None, *shape])
    failed = tf.where(fault == "", _name_failure(encoded, header), fault)
    return images, valid, tf.where(valid, "", failed)


# ---- pixels


def _decode_jpeg_within(encoded, max_pixels):
    height_px, width_px, _ = tf.unstack(tf.cast(tf.io.extract_jpeg_shape(encoded), tf.int64))
    with tf.control_dependencies([_check_size(height_px, width_px, max_pixels)]):
        return _decode_jpeg(encoded)


def _decode_png_within(encoded, max_pixels):
    with tf.control_dependencies([_check_size(*read_png_size(encoded), max_pixels)]):
        return tf.io.decode_png(encoded, channels=3)


def _check_size(height_px, width_px, max_pixels):
    return tf.debugging.assert_less_equal(_count_pixels(height_px, width_px), max_pixels, "too large")


def _count_pixels(height_px, width_px):
    limit = tf.constant(2**31, tf.int64)  # the product fits
    return tf.minimum(height_px, limit) * tf.minimum(width_px, limit)


# Functions of their own, not inlined: where a branch is not taken, one operation is skipped and not hundreds.
@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)],
    experimental_attributes={"_noinline": True},
)
def _decode_other_within(encoded, max_pixels):
    header = read_still(encoded)
    fault = _find_fault(encoded, header, max_pixels)
    with tf.control_dependencies([tf.debugging.Assert(fault == "", [fault])]):
        return _decode_other(tf.identity(header.still), header.format)


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)],
    experimental_attributes={"_noinline": True},
)
def _decode_other(still, format_id):
    def decode():
        return tf.io.decode_image(still, channels=3, expand_animations=False)

    def decode_webp():  # TensorFlow wants the file's own number of channels
        return tf.io.decode_image(still, channels=0, expand_animations=False)[..., :3]

    return tf.case(
        [(format_id == WEBP, decode_webp), (format_id == BMP, lambda: _decode_bmp(still))], default=decode
    )


def _decode_still(still, format_id, jpeg_ratio):
    image = tf.cond(
        format_id == JPEG, lambda: _decode_jpeg(still, jpeg_ratio), lambda: _decode_other(still, format_id)
    )
    image.set_shape([None, None, 3])
    return image


def _decode_jpeg(encoded, ratio=1):
    return tf.io.decode_jpeg(encoded, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")


def _decode_bmp(still):
    """TensorFlow takes the palette's indices for grey levels."""
    image = tf.io.decode_bmp(still)
    header_size, bits = little_endian(read_bytes(still, 14, 4)), little_endian(read_bytes(still, 28, 2))
    palette = tf.reshape(read_bytes(still, 14 + header_size, 4 * 256), [256, 4])[
        :, 2::-1
    ]  # blue, green, red, 0
    palette = tf.cast(palette, tf.uint8)
    return tf.cond(
        bits == 8, lambda: tf.gather(palette, tf.cast(image[..., 0], tf.int32)), lambda: image[..., :3]
    )


# ---- faults


def _find_fault(encoded, header, max_pixels):
    """Returns what a header alone says against decoding, <string>[...]; "" is nothing."""
    num_pixels = _count_pixels(header.height_px, header.width_px)
    fault = tf.where((num_pixels == 0) | (header.still == ""), _name_failure(encoded, header), "")
    fault = tf.where(num_pixels > max_pixels, "too large", fault)
    advice = tf.strings.join(["unsupported: ", header.foreign, f"; send {SERVED_FORMATS}"])
    fault = tf.where(header.foreign == "", fault, advice)
    fault = tf.where(header.format == UNKNOWN, "not an image", fault)
    return tf.where(file_size(encoded) == 0, "empty", fault)


def _name_failure(encoded, header):
    """Returns "cut off" or "damaged", <string>[...], by whether the end of the file is there."""
    size = file_size(encoded)
    tail = read_bytes(encoded, tf.maximum(size - 64, 0), 64)
    head = read_bytes(encoded, 0, 8)

    def tail_has(text):
        windows = [tail[..., i : 64 - len(text) + 1 + i] == value for i, value in enumerate(text)]
        return tf.reduce_any(tf.reduce_all(windows, axis=0), axis=-1)

    has_end = (
        ((header.format == JPEG) & tail_has(b"\xff\xd9"))
        | ((header.format == PNG) & tail_has(b"IEND\xaeB`\x82"))  # and its checksum
        | ((header.format == GIF) & (header.still != ""))
        | ((header.format == BMP) & (little_endian(head[..., 2:6]) <= size))
        | ((header.format == WEBP) & (8 + little_endian(head[..., 4:8]) <= size))
    )
    return tf.where(has_end, "damaged", "cut off")
