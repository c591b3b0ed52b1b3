"""GIF and WebP files enter; where their first picture lies, and a file of that picture alone, leave.

TensorFlow decodes every frame of a GIF before it throws all but one away, whatever their number and size, and
on an animated WebP it writes past the end of its buffer (2.21): neither must see an animation. Everything is
graph operations on <string>[] or <string>[batch]; the bytes may be anything.
"""

import tensorflow as tf

from tfrecords.decoding.file_bytes import bounded_loop, file_size, is_text, little_endian, pick, read_bytes

MAX_BLOCKS = 1024  # GIF extension blocks or WebP chunks before the picture that are looked at
MAX_GIF_DATA_BLOCKS = 2**16  # of up to 255 bytes, in the first picture of a GIF

_BYTE_STRINGS = [bytes([value]) for value in range(256)]


def find_gif_picture(encoded, is_gif):
    """Returns the position of the first image descriptor, <int64>[...]; 0 if there is none."""
    end = file_size(encoded)

    def unfinished(position, found, in_extension):
        return tf.reduce_any((position < end) & (found == 0))

    def step(position, found, in_extension):
        byte = read_bytes(encoded, position, 1)[..., 0]
        is_picture = ~in_extension & (byte == 0x2C) & (found == 0)
        starts_extension = ~in_extension & (byte == 0x21)
        advance = pick(starts_extension, 2, pick(in_extension, 1 + byte, end))
        found = pick(is_picture, position, found)
        return position + advance, found, starts_extension | (in_extension & (byte > 0))

    start = pick(is_gif, 13 + _gif_palette_size(read_bytes(encoded, 10, 1)[..., 0]), end)
    return bounded_loop(unfinished, step, (start, tf.zeros_like(end), tf.zeros_like(is_gif)), MAX_BLOCKS)[1]


def cut_gif(encoded, start):
    """Returns the file up to the end of the picture at `start`, or "" where the file ends before."""
    palette_size = _gif_palette_size(read_bytes(encoded, start + 9, 1)[..., 0])
    first_block = start + 10 + palette_size + 1  # the 1 holds the smallest code size
    end = file_size(encoded)

    def block_size(position):
        return read_bytes(encoded, position, 1)[..., 0]

    position = bounded_loop(
        lambda position: tf.reduce_any(block_size(position) > 0),
        lambda position: (position + pick(block_size(position) > 0, 1 + block_size(position), 0),),
        (pick(start > 0, first_block, end),),
        MAX_GIF_DATA_BLOCKS,
    )[0]
    whole = (position < end) & (block_size(position) == 0)
    picture = tf.strings.substr(encoded, tf.zeros_like(end), pick(whole, position + 1, 0))
    return tf.where(whole, tf.strings.join([picture, b";"]), b"")


def is_animated_webp(encoded):
    """Returns whether an extended header says that WebP files hold an animation, <bool>[...]."""
    chunk = read_bytes(encoded, 12, 9)
    return is_text(chunk[..., :4], b"VP8X") & (chunk[..., 8] // 2 % 2 == 1)


def find_webp_picture(encoded, is_animated):
    """Returns where the picture's chunk begins; in an animation, that is inside the first frame ("ANMF")."""
    end = file_size(encoded)

    def is_picture(position):
        name = read_bytes(encoded, position, 4)
        return is_text(name, b"VP8 ") | is_text(name, b"VP8L") | ~is_animated

    def step(position):
        is_frame = is_text(read_bytes(encoded, position, 4), b"ANMF")
        size = pick(is_frame, 8 + 16, _webp_chunk_size(encoded, position))
        return (position + pick(is_picture(position), 0, size),)

    return bounded_loop(
        lambda position: tf.reduce_any((position < end) & ~is_picture(position)),
        step,
        (tf.fill(tf.shape(end), tf.constant(12, tf.int64)),),
        MAX_BLOCKS,
    )[0]


def cut_webp(encoded, start):
    """Returns a WebP file of the one chunk that begins at `start`, or "" where it is not all there."""
    size = _webp_chunk_size(encoded, start)
    whole = start + size <= file_size(encoded)
    riff_size = tf.gather(_BYTE_STRINGS, (4 + size)[..., None] // [1, 2**8, 2**16, 2**24] % 256)
    chunk = tf.strings.substr(encoded, pick(whole, start, 0), pick(whole, size, 0))
    picture = tf.strings.join([b"RIFF", tf.strings.reduce_join(riff_size, axis=-1), b"WEBP", chunk])
    return tf.where(whole, picture, b"")


def _webp_chunk_size(encoded, start):
    return 8 + (little_endian(read_bytes(encoded, start + 4, 4)) + 1) // 2 * 2  # padded to an even length


def _gif_palette_size(flags):
    return pick(flags >= 0x80, 3 * 2 ** (1 + flags % 8), 0)
