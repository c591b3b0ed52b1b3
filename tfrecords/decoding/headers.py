"""Reads format, size and EXIF orientation from the headers of image files, without decoding a pixel.

Everything here is TensorFlow graph operations, so that it runs alike in tf.data, in a TF1 session and in
TensorFlow Serving. `encoded` is one file or a batch of them, <string>[] or <string>[batch], and every result
has its shape; a batch costs hardly more than one file. Whatever the bytes, nothing raises: what cannot be
read is 0 (a size) or 1 (an orientation), and the work is bounded by the number of blocks looked at.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrecords.decoding.animations import (
    cut_gif,
    cut_webp,
    find_gif_picture,
    find_webp_picture,
    is_animated_webp,
)
from tfrecords.decoding.file_bytes import (
    big_endian,
    bounded_loop,
    count_text,
    file_size,
    is_text,
    little_endian,
    pick,
    read_bytes,
)
from tfrecords.magic import DECODED, HEAD_BYTES, MAGIC

MAX_BLOCKS = 1024  # JPEG segments, what may start a scan, or EXIF tags: so many are looked at
MAX_PASSES = 32  # scans of a JPEG, of which programs write a dozen, or compressed texts of a PNG

JPEG, PNG, GIF, BMP, WEBP, OTHER, UNKNOWN = range(7)  # OTHER: an image that TensorFlow does not decode

_DECODED = dict(zip(DECODED, (JPEG, PNG, GIF, BMP, WEBP), strict=True))
SERVED_FORMATS = f"{', '.join(DECODED[:-1])} or {DECODED[-1]}"
"""What TensorFlow decodes, as messages call it."""
# What the walk through a JPEG makes of the byte after FF. The first two are also the bytes to go on by.
_STRAY, _ALONE, _SEGMENT, _FRAME, _STOP = range(1, 6)
_JPEG_KINDS = np.full(256, _SEGMENT)
_JPEG_KINDS[[0x00, 0x01, *range(0xD0, 0xD9)]] = _ALONE  # markers without a length
_JPEG_KINDS[0xFF] = _STRAY  # fill bytes, and what is no marker, are stepped over as libjpeg does
_JPEG_KINDS[[*(marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC)), 0xF7]] = _FRAME
_JPEG_KINDS[[0xD9, 0xDA]] = _STOP  # end of image, start of scan
# Frames of a JPEG that TensorFlow does not decode, by the marker's second byte.
_JPEG_NAMES = np.full(256, "", object)
_JPEG_NAMES[[0xC3, 0xC7, 0xCB, 0xCF]] = "a lossless JPEG"
_JPEG_NAMES[[0xC5, 0xC6, 0xCD, 0xCE]] = "a hierarchical JPEG"
_JPEG_NAMES[0xF7] = "JPEG-LS"
_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4  # TIFF field types


class ImageHeader(NamedTuple):
    """What encoded images say about themselves; every field has the shape of `encoded`."""

    format: tf.Tensor  # <int32>[...]: JPEG, PNG, GIF, BMP, WEBP, OTHER or UNKNOWN
    height_px: tf.Tensor  # <int64>[...]: as stored, before orientation is applied; 0 if unknown
    width_px: tf.Tensor  # <int64>[...]
    orientation: tf.Tensor  # <int32>[...]: EXIF 1 to 8; 1 if absent or malformed
    num_passes: tf.Tensor  # <int64>[...]: scans of a JPEG, compressed texts of a PNG; else 0
    foreign: tf.Tensor  # <string>[...]: the name of what TensorFlow does not decode, or not rightly; else ""
    still: tf.Tensor  # <string>[...]: what to decode: the file, BMPs to their last pixel, one picture; or ""


def read_header(encoded):
    """Returns the ImageHeader of encoded images.

    TensorFlow decodes every frame of a GIF before it throws all but one away, whatever their number and size,
    and on an animated WebP writes past the end of its buffer (2.21): decode `still`, never the file itself.

    Args:
        encoded: <string>[] or <string>[batch], whole files, or any other bytes.
    """
    encoded = tf.convert_to_tensor(encoded)
    format_id = find_format(encoded)
    is_format = [format_id == i for i in range(UNKNOWN + 1)]
    frame, exif = _find_jpeg_segments(encoded, is_format[JPEG])
    return _read_frame(encoded, format_id, is_format, frame)._replace(
        orientation=_read_orientation(encoded, *_find_exif(encoded, is_format, exif)),
        num_passes=_count_scans(encoded, is_format[JPEG]) + _count_texts(encoded, is_format[PNG]),
    )


def read_still(encoded):
    """Returns the ImageHeader of images that are no JPEGs, without `orientation` and `num_passes`.

    It is what decoding needs where the orientation is known, and has a third less operations than
    `read_header`. A JPEG has no size here.

    Args:
        encoded: <string>[] or <string>[batch].
    """
    format_id = find_format(encoded)
    is_format = [format_id == i for i in range(UNKNOWN + 1)]
    return _read_frame(encoded, format_id, is_format, tf.zeros(tf.shape(encoded), tf.int64))


def _read_frame(encoded, format_id, is_format, jpeg_frame):
    is_animated = is_format[WEBP] & is_animated_webp(encoded)
    webp_picture = find_webp_picture(encoded, is_animated)
    gif_picture = find_gif_picture(encoded, is_format[GIF])
    sizes = {
        JPEG: _read_jpeg_size(encoded, jpeg_frame),
        PNG: read_png_size(encoded),
        GIF: _read_gif_size(encoded, gif_picture),
        BMP: _read_bmp_size(encoded),
        WEBP: _read_webp_size(encoded, webp_picture),
    }
    height_px, width_px = (
        sum(pick(is_format[i], size[axis], 0) for i, size in sizes.items()) for axis in range(2)
    )
    has_size = (height_px > 0) & (width_px > 0)
    still = tf.where(is_format[GIF], cut_gif(encoded, gif_picture), encoded)
    still = tf.where(is_format[BMP], _cut_bmp(encoded, *sizes[BMP]), still)
    return ImageHeader(
        format=format_id,
        height_px=pick(has_size, height_px, 0),
        width_px=pick(has_size, width_px, 0),
        orientation=tf.ones_like(format_id),
        num_passes=tf.zeros_like(height_px),
        foreign=_name_foreign(encoded, is_format, jpeg_frame),
        still=tf.where(is_animated, cut_webp(encoded, webp_picture), still),
    )


def image_size(encoded):
    """Returns the sizes that JPEG, PNG, GIF, BMP and WebP headers claim, before EXIF orientation.

    Read it before decoding: a file of a few hundred bytes can claim 50,000 x 50,000 pixels.

    Args:
        encoded: <string>[] or <string>[batch].

    Returns:
        (height_px, width_px), both <int64> of the same shape; (0, 0) where no header can be read.
    """
    header = read_header(encoded)
    return header.height_px, header.width_px


def exif_orientation(encoded):
    """Returns the EXIF orientation, 1 to 8: tag 0x0112 in the EXIF block of a JPEG, PNG or WebP file.

    That is the first APP1 segment of a JPEG, the chunk eXIf of a PNG, the chunk EXIF of a WebP file. Other
    formats, no tag, and every malformed structure give 1 (upright).

    Args:
        encoded: <string>[] or <string>[batch].

    Returns:
        <int32> of the same shape.
    """
    encoded = tf.convert_to_tensor(encoded)
    format_id = find_format(encoded)
    is_format = [format_id == i for i in range(UNKNOWN + 1)]
    _, exif = _find_jpeg_segments(encoded, is_format[JPEG])
    return _read_orientation(encoded, *_find_exif(encoded, is_format, exif))


def find_format(encoded):
    """Returns which format the first bytes announce, <int32> of the shape of `encoded`."""
    format_ids = [_DECODED.get(magic.format, OTHER) for magic in MAGIC]
    format_ids = tf.constant([*format_ids, UNKNOWN], tf.int32)
    return tf.gather(format_ids, _match_magic(encoded))


def _match_magic(encoded):
    """Returns the place in `MAGIC` of the first bytes, <int32>[...]; its length where it has none."""
    patterns = np.array([list(magic.pattern.ljust(HEAD_BYTES, b"?")) for magic in MAGIC])
    head = read_bytes(encoded, 0, HEAD_BYTES)[..., None, :]
    same = tf.reduce_all((head == patterns) | (patterns == ord("?")), axis=-1)  # <bool>[..., magics]
    return tf.reduce_min(tf.where(same, np.arange(len(MAGIC), dtype=np.int32), len(MAGIC)), axis=-1)


def _name_foreign(encoded, is_format, frame):
    """Returns what an image is called that TensorFlow does not decode; "" for those that it does."""
    names = ["" if magic.format in DECODED else magic.format for magic in MAGIC]
    names = tf.constant([*names, ""])
    name = tf.gather(names, _match_magic(encoded))
    marker, precision = read_bytes(encoded, frame + 1, 1)[..., 0], read_bytes(encoded, frame + 4, 1)[..., 0]
    jpeg_name = tf.gather(tf.constant(_JPEG_NAMES), marker)
    jpeg_name = tf.where((jpeg_name == "") & (precision == 12), "a 12-bit JPEG", jpeg_name)
    name = tf.where(is_format[JPEG] & (frame > 0), jpeg_name, name)
    odd_bmp = "a BMP that is compressed or has no whole bytes a pixel"
    return tf.where(is_format[BMP] & ~_is_plain_bmp(encoded), odd_bmp, name)


# ---- sizes: (height_px, width_px)


def read_png_size(encoded):
    """Returns (height_px, width_px) of files that are PNGs, both <int64> of the shape of `encoded`."""
    size = read_bytes(encoded, 16, 8)
    return big_endian(size[..., 4:]), big_endian(size[..., :4])


def _read_bmp_size(encoded):
    size = read_bytes(encoded, 18, 8)
    height_px = little_endian(size[..., 4:])
    height_px = tf.minimum(height_px, 2**32 - height_px)  # negative where rows run from the top down
    return height_px, little_endian(size[..., :4])


def _cut_bmp(encoded, height_px, width_px):
    """Returns the file up to its last pixel: Photoshop adds two bytes, and TensorFlow wants not one more.

    A side of more than 2**20 px is too large anyway, and the product fits.
    """
    head = read_bytes(encoded, 0, 30)
    height_px, width_px = (tf.minimum(side_px, 2**20) for side_px in (height_px, width_px))
    bits = tf.minimum(little_endian(head[..., 28:30]), 32)
    row_size = (bits * width_px + 31) // 32 * 4
    end = little_endian(head[..., 10:14]) + row_size * height_px
    return tf.strings.substr(encoded, tf.zeros_like(end), tf.minimum(end, file_size(encoded)))


def _is_plain_bmp(encoded):
    """TensorFlow decodes whole bytes a pixel, uncompressed, in the order blue, green, red."""
    head = read_bytes(encoded, 0, 58)
    header_size, bits = little_endian(head[..., 14:18]), little_endian(head[..., 28:30])
    compression, red_mask = little_endian(head[..., 30:34]), little_endian(head[..., 54:58])
    plain = (compression == 0) & ((bits == 8) | (bits == 24) | (bits == 32))
    masked = (compression == 3) & (bits == 32) & (red_mask == 0xFF0000)
    return ((header_size >= 40) & (plain | masked)) | (file_size(encoded) < 58)  # cut off: nobody knows


def _read_jpeg_size(encoded, frame):
    size = read_bytes(encoded, frame + 5, 4)  # after marker, length and precision
    return pick(frame > 0, big_endian(size[..., :2]), 0), pick(frame > 0, big_endian(size[..., 2:]), 0)


def _read_gif_size(encoded, start):
    """TensorFlow decodes the first picture, which may exceed the canvas: the larger of the two counts."""
    canvas, picture = read_bytes(encoded, 6, 4), read_bytes(encoded, start + 5, 4)
    height_px = tf.maximum(little_endian(canvas[..., 2:]), little_endian(picture[..., 2:]))
    width_px = tf.maximum(little_endian(canvas[..., :2]), little_endian(picture[..., :2]))
    return pick(start > 0, height_px, 0), pick(start > 0, width_px, 0)


def _read_webp_size(encoded, start):
    """Reads the size in the chunk at `start`; each of the three kinds of chunks spells it in its own way."""
    chunk = read_bytes(encoded, start, 18)
    bits = little_endian(chunk[..., 9:13])
    extended = 1 + little_endian(chunk[..., 15:18]), 1 + little_endian(chunk[..., 12:15])
    lossless = 1 + bits // 2**14 % 2**14, 1 + bits % 2**14
    lossy = little_endian(chunk[..., 16:18]) % 2**14, little_endian(chunk[..., 14:16]) % 2**14
    name = chunk[..., :4]
    kinds = ((b"VP8X", extended), (b"VP8L", lossless), (b"VP8 ", lossy))
    return tuple(sum(pick(is_text(name, kind), size[axis], 0) for kind, size in kinds) for axis in range(2))


# ---- what a small file can make a decoder do over and over


def _count_scans(encoded, is_jpeg):
    """A scan of a few bytes goes over all pixels once more: at 178 million of them, half a second."""
    # Within a scan no FF is followed by DA, and what stands in metadata seldom goes on like this.
    lengths = [bytes([6 + 2 * components, components]) for components in range(1, 5)]
    return count_text(tf.where(is_jpeg, encoded, ""), b"\xff\xda\0", MAX_BLOCKS, lengths)


def _count_texts(encoded, is_png):
    """libpng inflates each, to 8 MB at most, before TensorFlow ignores it."""
    files = tf.where(is_png, encoded, "")
    return sum(count_text(files, kind, MAX_PASSES + 1) for kind in (b"zTXt", b"iTXt"))


# ---- JPEG segments


def _find_jpeg_segments(encoded, is_jpeg):
    """Returns the positions of the frame header (SOFn) and of the first Exif segment before it, or 0."""
    end = file_size(encoded)
    zero = tf.zeros_like(end)

    def unfinished(position, advance, kind, exif):
        return tf.reduce_any((advance > 0) & (position + advance < end))

    def step(position, advance, kind, exif):
        position += advance
        window = read_bytes(encoded, position, 10)
        kind = pick(window[..., 0] == 0xFF, tf.gather(_JPEG_KINDS, window[..., 1]), _STRAY)
        is_exif = (window[..., 1] == 0xE1) & (kind == _SEGMENT) & is_text(window[..., 4:], b"Exif\0\0")
        length = 2 + big_endian(window[..., 2:4])
        advance = pick(kind == _SEGMENT, length, pick(kind < _SEGMENT, kind, 0))  # 0: stay here
        return position, advance, kind, pick(is_exif & (exif == 0), position, exif)

    state = (zero, pick(is_jpeg, 2, 0), zero, zero)
    position, _, kind, exif = bounded_loop(unfinished, step, state, MAX_BLOCKS)
    return pick(kind == _FRAME, position, 0), exif


def _find_exif(encoded, is_format, jpeg_segment):
    """Returns where the TIFF structure of an EXIF block begins, or 0, and where the block ends."""
    jpeg_end = jpeg_segment + 2 + big_endian(read_bytes(encoded, jpeg_segment + 2, 2))
    png_start, png_end = _find_png_exif(encoded, is_format[PNG])
    webp_start, webp_end = _find_webp_exif(encoded, is_format[WEBP])
    jpeg_start = pick(jpeg_segment > 0, jpeg_segment + 10, 0)  # behind marker, length, "Exif\0\0"
    start = jpeg_start + png_start + webp_start  # a file has one of them
    return start, pick(jpeg_start > 0, jpeg_end, png_end + webp_end)


def _find_png_exif(encoded, is_png):
    """A search for the chunk's name: to walk hundreds of chunks of pixels would take longer."""
    files = tf.reshape(tf.where(is_png, encoded, ""), [-1])
    pieces = tf.raw_ops.StringSplitV2(input=files, sep=b"eXIf", maxsplit=1)
    row, place = tf.unstack(pieces.indices, axis=1)
    before = pick(place == 0, tf.strings.length(pieces.values), 0)
    name = tf.reshape(tf.math.unsorted_segment_sum(before, row, tf.size(files)), tf.shape(encoded))
    end = name + 4 + big_endian(read_bytes(encoded, tf.maximum(name - 4, 0), 4))
    is_there = is_png & (name > 4) & (end <= file_size(encoded))
    return _skip_exif_name(encoded, pick(is_there, name + 4, 0)), pick(is_there, end, 0)


def _find_webp_exif(encoded, is_webp):
    """Walks the chunks of files whose extended header says that they have an EXIF block."""
    chunk = read_bytes(encoded, 12, 9)
    has_exif = is_webp & is_text(chunk[..., :4], b"VP8X") & (chunk[..., 8] // 8 % 2 == 1)
    end = file_size(encoded)

    def is_exif(position):
        return is_text(read_bytes(encoded, position, 4), b"EXIF")

    def chunk_end(position):
        return position + 8 + little_endian(read_bytes(encoded, position + 4, 4))

    position = bounded_loop(
        lambda position: tf.reduce_any((position < end) & ~is_exif(position)),
        lambda position: (pick(is_exif(position), position, (chunk_end(position) + 1) // 2 * 2),),
        (pick(has_exif, 12, end),),
        MAX_BLOCKS,
    )[0]
    is_there = has_exif & is_exif(position) & (chunk_end(position) <= end)
    return _skip_exif_name(encoded, pick(is_there, position + 8, 0)), pick(is_there, chunk_end(position), 0)


def _skip_exif_name(encoded, start):
    """Some programs put "Exif\0\0" before the TIFF structure in other formats than JPEG, too."""
    return start + pick(is_text(read_bytes(encoded, start, 6), b"Exif\0\0"), 6, 0)


def _read_orientation(encoded, tiff, end):
    """Returns the orientation <int32>[...] in the first directory of the TIFF structure at `tiff`, or 1."""
    order = read_bytes(encoded, tiff, 4)
    little = is_text(order, b"II*\0")

    def number(values, little=little):
        return pick(little, little_endian(values), big_endian(values))

    directory = tiff + number(read_bytes(encoded, tiff + 4, 4))
    num_entries = tf.minimum(number(read_bytes(encoded, directory, 2)), (end - directory - 2) // 12)
    num_entries = tf.clip_by_value(num_entries, 0, MAX_BLOCKS)
    entries = tf.range(tf.maximum(tf.reduce_max(num_entries), 1))
    starts = directory[..., None] + 2 + 12 * entries  # <int64>[..., entries]
    tags = read_bytes(encoded[..., None], starts, 2)  # <int64>[..., entries, 2]
    is_tag = (number(tags, little[..., None]) == _ORIENTATION_TAG) & (entries < num_entries[..., None])
    entry = read_bytes(encoded, directory + 2 + 12 * tf.argmax(tf.cast(is_tag, tf.int32), axis=-1), 12)
    field_type, count = number(entry[..., 2:4]), number(entry[..., 4:8])
    short, long = number(entry[..., 8:10]), number(entry[..., 8:12])
    value = pick(field_type == _SHORT, short, pick(field_type == _LONG, long, 0))
    well_formed = (tiff > 0) & (little | is_text(order, b"MM\0*")) & (count == 1)
    well_formed &= tf.reduce_any(is_tag, axis=-1) & (value >= 1) & (value <= 8)
    return tf.cast(pick(well_formed, value, 1), tf.int32)
