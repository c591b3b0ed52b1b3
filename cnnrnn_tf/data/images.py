"""Encoded images enter; upright RGB pixels of a fixed size leave, and for what is no image, why.

The same graph operations serve the records, `predict` and the exported model, so that one photograph gives
one tensor everywhere: EXIF orientation is applied, JPEGs decode by libjpeg's accurate method (bit for bit
what Pillow gives; TensorFlow's default is a few levels off), and a size is read before it is allocated.
"""

import tensorflow as tf

from cnnrnn_tf.data.image_bytes import file_size, little_endian, read_bytes
from cnnrnn_tf.data.image_headers import (
    BMP,
    GIF,
    JPEG,
    MAX_PASSES,
    PNG,
    UNKNOWN,
    WEBP,
    exif_orientation,
    find_format,
    image_size,
    read_header,
)

__all__ = [
    "IMAGE_FITS",
    "MAX_PIXELS",
    "MAX_SIDE_PX",
    "NUM_HYPOTHESES",
    "PIXELS_VERSION",
    "apply_orientation",
    "cut_hypotheses",
    "decode_batch",
    "decode_image",
    "exif_orientation",
    "fit_to_square",
    "image_size",
    "random_crop_and_flip",
    "read_thumbnail",
]

IMAGE_FITS = ("crop", "stretch")
"""How an image becomes a square: its centre is cut out, or the whole of it is squeezed into one."""

MAX_PIXELS = 178_000_000
"""The largest image that is decoded, height times width by its header; beyond lie decompression bombs."""

NUM_HYPOTHESES = 6
"""Squares that `cut_hypotheses` makes of an image."""

PIXELS_VERSION = 1
"""Features are kept under it: count it up when a change here gives other pixels for the same file."""

MAX_SIDE_PX = 65_535
"""The longest side that `decode_batch` takes: resizing needs memory for the width, whatever the height."""

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
            `decode_batch` is for bytes that nobody has checked.
    """
    encoded = tf.convert_to_tensor(encoded)
    if orientation is None:
        orientation = exif_orientation(encoded)
    # Photographs take the short way: the size as libjpeg itself reads it, and no other header.
    image = tf.cond(
        find_format(encoded) == JPEG,
        lambda: _decode_jpeg_within(encoded, max_pixels),
        lambda: _decode_other_within(encoded, tf.constant(max_pixels, tf.int64)),
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


def fit_to_square(image, size, image_fit="crop"):
    """Returns `image` as a square, resized by an antialiased bilinear filter.

    Args:
        image: <uint8 or float32>[height, width, 3], 0 to 255.
        size: side of the square, px.
        image_fit: "crop" resizes the short side to `size` and cuts out the centre, as CNNs are trained on
            ImageNet; "stretch" resizes each side to `size`, so that nothing at the margins is lost.

    Returns:
        <float32>[size, size, 3] RGB, whole numbers from 0 to 255.
    """
    return _resize_window(image, size, side=size, position=(0.5, 0.5), image_fit=image_fit)


def cut_hypotheses(image, size, image_fit="crop"):
    """Returns the whole of `image` and five parts of it as squares: for methods that pool over parts.

    HCP (arXiv:1406.5726) takes parts that a detector proposes and the largest score over them, so that a
    thing counts where it is. Here they are fixed: two thirds of each side, at the corners and in the middle.

    Args:
        image: <uint8 or float32>[height, width, 3], 0 to 255.
        size: side of the squares, px.
        image_fit: how the image and each part become one, as in `fit_to_square`.

    Returns:
        <float32>[6, size, size, 3] RGB, whole numbers from 0 to 255: the whole, then top left, top right,
        bottom left, bottom right, middle.

    >>> rows = tf.range(9.0)[:, None, None] * tf.ones([9, 9, 3])
    >>> cut_hypotheses(rows, 6)[1:, :, 0, 0].numpy().astype(int).tolist()
    [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6]]
    """
    height_px, width_px = tf.unstack(tf.shape(image)[:2])
    part_height_px, part_width_px = (2 * height_px + 1) // 3, (2 * width_px + 1) // 3  # rounded
    bottom, right = height_px - part_height_px, width_px - part_width_px
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    parts = [image[top : top + part_height_px, left : left + part_width_px] for top, left in corners]
    return tf.stack([fit_to_square(part, size, image_fit) for part in (image, *parts)])


def random_crop_and_flip(image, size, seed, image_fit="crop", side=None):
    """Returns a random square of `image`, mirrored half of the time: for training a backbone further.

    The same seed gives the same square. Equally likely are all positions of the square within the image, its
    short side, or each of its sides where it is stretched, resized to `side`.

    Args:
        image: <uint8 or float32>[height, width, 3], 0 to 255.
        size: side of the square, px.
        seed: <int>[2].
        image_fit: as in `fit_to_square`.
        side: px; 256 / 224 of `size` if None, as VGG's training had it.

    Returns:
        <float32>[size, size, 3] RGB, whole numbers from 0 to 255.
    """
    side = round(size * 256 / 224) if side is None else side
    draws = tf.random.stateless_uniform([3], seed)
    square = _resize_window(image, size, side, position=draws[:2], image_fit=image_fit)
    return tf.where(draws[2] < 0.5, square[:, ::-1], square)


def read_thumbnail(encoded, longest_px=480):
    """Returns the whole of an image for people to look at, upright, in its own shape.

    Args:
        encoded: the file's bytes.
        longest_px: most pixels of its longer side; a smaller image keeps its size.

    Returns:
        <uint8>[height, width, 3] RGB, a NumPy array.

    Raises:
        tf.errors.InvalidArgumentError: it is no image that `decode_image` takes.
    """
    image = decode_image(encoded)
    extent = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.minimum(longest_px / tf.reduce_max(extent), 1.0)
    size = tf.maximum(tf.cast(tf.round(extent * scale), tf.int32), 1)
    small = tf.image.resize(image, size, antialias=True)
    return tf.saturate_cast(tf.round(small), tf.uint8).numpy()


def decode_batch(encoded, size, image_fit="crop", max_pixels=MAX_PIXELS):
    """Returns a batch of files as upright squares; a bad file costs its own row and no other.

    Runs in a SavedModel as TensorFlow Serving loads it: no Python, and no row raises.

    What hostile files can cost is bounded. Decoding takes up to 12 bytes a pixel (3 for a plain JPEG, 9 for a
    progressive one, 12 for WebP): images of up to 16 million pixels are decoded at most eight at once, larger
    ones after them one by one. A batch of any size so holds about 2.3 GB beside its files, and a row
    takes some seconds at most, or 3 s for each MB of a PNG that inflates to more than its pixels.

    Args:
        encoded: <string>[batch]; the batch may be empty.
        size: side of the squares, px.
        image_fit: as in `fit_to_square`.
        max_pixels: images that claim to be larger are not decoded.

    Returns:
        images: <float32>[batch, size, size, 3] RGB, whole numbers from 0 to 255, by `fit_to_square`; zeros
            where not valid.
        valid: <bool>[batch].
        errors: <string>[batch], "" where valid, else "empty", "not an image", "unsupported" (TIFF, HEIC,
            JPEG XL, or a BMP that is compressed or has no whole bytes a pixel), "too large" (by its pixels, a
            side over 65,535 px, or more than 32 scans of a JPEG or compressed texts of a PNG), "cut off" or
            "damaged".
    """
    with tf.device("/CPU:0"):  # strings live there; on a GPU every small number would travel
        return _decode_batch(tf.convert_to_tensor(encoded), size, image_fit, max_pixels)


def _decode_batch(encoded, size, image_fit, max_pixels):
    batch = tf.size(encoded, out_type=tf.int64)
    header = read_header(encoded)
    fault = _find_fault(encoded, header, max_pixels)
    longest_px = tf.maximum(header.height_px, header.width_px)
    is_bomb = (longest_px > MAX_SIDE_PX) | (header.num_passes > MAX_PASSES)
    fault = tf.where((fault == "") & is_bomb, "too large", fault)
    is_large = header.height_px * header.width_px > _MAX_PIXELS_IN_PARALLEL
    is_large |= header.width_px > _MAX_WIDTH_IN_PARALLEL

    def decode(row, still, format_id, orientation):
        image = apply_orientation(_decode_still(still, format_id), orientation)
        return row, fit_to_square(image, size, image_fit)

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
        .concatenate(tf.data.Dataset.from_tensors((tf.zeros([], tf.int64), tf.zeros([size, size, 3]))))
        .batch(batch + 1)
    )
    good_rows, squares = decoded.get_single_element()
    good_rows, squares = good_rows[:-1, None], squares[:-1]
    valid = tf.scatter_nd(good_rows, tf.ones_like(good_rows[:, 0]), [batch]) > 0
    is_in_place = tf.reduce_all(valid) & ~tf.reduce_any(is_large)
    images = tf.cond(
        is_in_place, lambda: squares, lambda: tf.scatter_nd(good_rows, squares, [batch, size, size, 3])
    )
    images.set_shape([None, size, size, 3])
    failed = tf.where(fault == "", _name_failure(encoded, header), fault)
    return images, valid, tf.where(valid, "", failed)


# ---- pixels


def _decode_jpeg_within(encoded, max_pixels):
    height_px, width_px, _ = tf.unstack(tf.cast(tf.io.extract_jpeg_shape(encoded), tf.int64))
    check = tf.debugging.assert_less_equal(
        height_px * width_px, tf.constant(max_pixels, tf.int64), "too large"
    )
    with tf.control_dependencies([check]):
        return _decode_jpeg(encoded)


# Functions of their own, not inlined: where a branch is not taken, one operation is skipped and not hundreds.
@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)],
    experimental_attributes={"_noinline": True},
)
def _decode_other_within(encoded, max_pixels):
    header = read_header(encoded)
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


def _decode_still(still, format_id):
    image = tf.cond(format_id == JPEG, lambda: _decode_jpeg(still), lambda: _decode_other(still, format_id))
    image.set_shape([None, None, 3])
    return image


def _decode_jpeg(encoded):
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


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


def _resize_window(image, size, side, position, image_fit):
    """Resizes and cuts at once: only the window's pixels are computed. `position` is <float32>[2], 0 to 1."""
    extent = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = side / (extent if image_fit == "stretch" else tf.reduce_min(extent, keepdims=True))
    scale = tf.broadcast_to(scale, [2])
    offset = (extent * scale - size) * position
    rows = _resize_height(image, size, scale[0], -offset[0])
    columns = _resize_height(tf.transpose(rows, [1, 0, 2]), size, scale[1], -offset[1])
    # Whole levels, as a picture that is kept has them, and 0 to 255: the filter's weights are positive and
    # add up to 1, but for rounding.
    return tf.round(tf.transpose(columns, [1, 0, 2]))


def _resize_height(image, num_rows, scale, translation):
    """Resizes one direction alone: <dtype>[height, width, channels] to <float32>[num_rows, width, channels].

    Twice this is faster than both directions at once, and gives the same numbers to the bit: the operation
    adds vectors of channels, and a whole row is shown to it as one pixel of many channels.
    """
    height, width, channels = tf.unstack(tf.shape(image))
    rows = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(image, [1, height, 1, width * channels]),
        size=[num_rows, 1],
        scale=[scale, 1.0],
        translation=[translation, 0.0],
        kernel_type="triangle",
        antialias=True,
    )
    return tf.reshape(rows, [num_rows, width, image.shape[2]])


# ---- faults


def _find_fault(encoded, header, max_pixels):
    """Returns what a header alone says against decoding, <string>[...]; "" is nothing."""
    limit = tf.constant(2**31, tf.int64)  # the product fits
    num_pixels = tf.minimum(header.height_px, limit) * tf.minimum(header.width_px, limit)
    fault = tf.where((num_pixels == 0) | (header.still == ""), _name_failure(encoded, header), "")
    fault = tf.where(num_pixels > max_pixels, "too large", fault)
    fault = tf.where(header.decodable, fault, "unsupported")
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
