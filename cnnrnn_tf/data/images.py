"""Makes squares of fixed size, which CNNs read, from pictures and from image files.

The same graph operations serve the records, `predict` and the exported model, so that one photograph gives
one tensor everywhere; `tfrecords.decoding` has decoded it.
"""

import tensorflow as tf

from tfrecords.decoding.headers import exif_orientation, image_size
from tfrecords.decoding.pixels import MAX_SIDE_PX, apply_orientation, decode_files, decode_image
from tfrecords.images import MAX_PIXELS

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

NUM_HYPOTHESES = 6
"""Squares that `cut_hypotheses` makes of an image."""

PIXELS_VERSION = 1
"""Features are kept under it: count it up when a change here gives other pixels for the same file."""


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

    Args:
        encoded: <string>[batch]; the batch may be empty.
        size: side of the squares, px.
        image_fit: how an image becomes one, as in `fit_to_square`.
        max_pixels: images that claim to be larger are not decoded.

    Returns:
        images: <float32>[batch, size, size, 3] RGB, whole numbers from 0 to 255, by `fit_to_square`; zeros
            where not valid.
        valid: <bool>[batch].
        errors: <string>[batch], as of `tfrecords.decoding.pixels.decode_files`.
    """

    def finish(image):
        return fit_to_square(image, size, image_fit)

    return decode_files(encoded, finish, [size, size, 3], max_pixels)


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
