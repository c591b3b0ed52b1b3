"""A seed and a number enter; so many malformed image files leave, with the errors that each may get.

    for each in malformed_files(seed=1, count=10_000):
        each.kind, each.data, each.errors

`GOOD_FILES` are what they are made from: every format and flavour that is decoded. Nothing here imports
TensorFlow, so that a process which must not can use it.
"""

import functools
import io
import itertools
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

ERRORS = ("empty", "not an image", "unsupported", "too large", "cut off", "damaged")
"""All that `error` may say of a file; "" is a file that decodes."""

ANY = frozenset(ERRORS) | {""}


@dataclass(frozen=True)
class Malformed:
    """A file that should cost its own row and no other; `errors` are those that may be told of it."""

    kind: str
    origin: str  # the good file that it was made from, or ""
    data: bytes
    errors: frozenset[str]

    def may_say(self, error):
        """Whether `error` may be told of it; behind a colon it says more."""
        return error.partition(":")[0] in self.errors


# ---- good files


def draw_photograph(height=72, width=100, seed=0):
    """A smooth picture of colours of its own."""
    blobs = np.random.default_rng(seed).integers(0, 256, [5, 6, 3], np.uint8)
    return Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC)


def encode(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *chunks, bits=8, colour_type=2, interlace=0):
    """A PNG of any header and these chunks after it."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IEND", b"")


def jpeg_segment(marker, payload):
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(payload)) + payload


def _make_good_files():
    pictures = map(lambda seed: draw_photograph(seed=seed), itertools.count())

    def draw(mode="RGB"):
        return next(pictures).convert(mode)

    def draw_translucent():
        picture = draw()
        picture.putalpha(picture.getchannel(0))
        return picture

    def animate(picture):
        return {"save_all": True, "append_images": [picture.rotate(180), picture.rotate(90)]}

    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Acme", 6
    moving, see_through = draw(), draw_translucent()
    deep_rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.asarray(draw(), np.uint16) * 257)
    return {
        "JPEG": encode(draw(), "JPEG", quality=90),
        "JPEG, 400 x 500": encode(draw_photograph(400, 500, seed=99), "JPEG", quality=90),
        "JPEG, EXIF": encode(draw(), "JPEG", exif=exif),
        "JPEG, progressive": encode(draw(), "JPEG", progressive=True),
        "JPEG, restart markers": encode(draw(), "JPEG", restart_marker_rows=1),
        "JPEG, CMYK": encode(draw("CMYK"), "JPEG"),
        "JPEG, grey": encode(draw("L"), "JPEG"),
        "PNG": encode(draw(), "PNG"),
        "PNG, grey": encode(draw("L"), "PNG"),
        "PNG, palette": encode(draw().quantize(64), "PNG"),
        "PNG, alpha": encode(draw_translucent(), "PNG"),
        "PNG, 16 bits": png(100, 72, png_chunk(b"IDAT", zlib.compress(deep_rows)), bits=16),
        # Pillow writes none. Zeros need no sorting into the seven passes.
        "PNG, interlaced": png(100, 72, png_chunk(b"IDAT", zlib.compress(bytes(25_000))), interlace=1),
        "GIF": encode(draw().quantize(64), "GIF"),
        "GIF, animated": encode(moving, "GIF", comment=b"x" * 600, **animate(moving)),
        "BMP": encode(draw(), "BMP"),
        "BMP, palette": encode(draw().quantize(64), "BMP"),
        "BMP, 32 bits": encode(draw_translucent(), "BMP"),
        "WebP": encode(draw(), "WEBP"),
        "WebP, lossless": encode(draw(), "WEBP", lossless=True),
        "WebP, alpha": encode(draw_translucent(), "WEBP"),
        "WebP, animated": encode(see_through, "WEBP", lossless=True, **animate(see_through)),
    }


GOOD_FILES = _make_good_files()


# ---- kinds: functions of a random generator and a good file's name


def malformed_files(seed, count, with_large=True):
    """Yields `count` Malformed files, the kinds in turn, each made from a good file drawn at random.

    Args:
        seed: the same seed gives the same files.
        count: how many.
        with_large: from 2,500 files on, every 2,500th is a bomb just below the limit on pixels, which takes
            seconds and up to 2 GB to decode.
    """
    rng, kinds = np.random.default_rng(seed), list(KINDS)
    large = list(_LARGE)
    for i in range(count):
        if with_large and i % 2500 == 1250:
            kind, origin = large[i // 2500 % len(large)], ""
            yield Malformed("large bomb", origin, _LARGE[kind](), frozenset({""}))
            continue
        kind = kinds[i % len(kinds)]
        make, errors = KINDS[kind]
        origin = str(rng.choice(list(GOOD_FILES)))
        yield Malformed(kind, origin, make(rng, origin), errors)


def _flip_bits(rng, origin):
    data = bytearray(GOOD_FILES[origin])
    within = len(data) if rng.integers(2) else min(len(data), 200)  # half of them in the headers
    for position in rng.integers(within, size=rng.integers(1, 17)):
        data[position] ^= 1 << rng.integers(8)
    return bytes(data)


def _cut_off(rng, origin):
    """At every order of magnitude, and some bytes before the end."""
    data = GOOD_FILES[origin]
    length = [
        lambda: rng.integers(0, 16),
        lambda: rng.integers(16, 64),
        lambda: rng.integers(64, 512),
        lambda: rng.integers(len(data)),
        lambda: len(data) - rng.integers(1, 64),
    ][rng.integers(5)]()
    return data[:length]


def _wrong_magic(rng, origin):
    """The first bytes of no format, or of another one."""
    data = GOOD_FILES[origin]
    if rng.integers(2):
        return b"\0NO\xfe" + data[4:]
    other = GOOD_FILES[str(rng.choice(list(GOOD_FILES)))]
    return other[:12] + data[12:]


def _zero_bytes(rng, origin):
    """Nothing but zeros, or a stretch of them in a good file."""
    data = bytearray(GOOD_FILES[origin])
    if rng.integers(3) == 0:
        return bytes(int(rng.integers(0, 5000)))
    start, length = rng.integers(len(data)), rng.integers(1, 2000)
    data[start : start + length] = bytes(len(data[start : start + length]))
    return bytes(data)


def _random_bytes(rng, origin):
    """Nothing but noise, or noise behind the head of a good file."""
    head = GOOD_FILES[origin][: rng.integers(8, 200)] if rng.integers(2) else b""
    return head + rng.bytes(int(rng.integers(1, 5000)))


def _huge_dimensions(rng, origin):
    """50,000 x 50,000 pixels or more, said by a header that is whole."""
    side = int(rng.integers(50_000, 65_536))
    kind = rng.integers(5)
    if kind == 0:
        return png(side * int(rng.integers(1, 30_000)), side, png_chunk(b"IDAT", zlib.compress(bytes(1000))))
    if kind == 1:
        data = GOOD_FILES[str(rng.choice(["JPEG", "JPEG, progressive", "JPEG, CMYK", "JPEG, grey"]))]
        frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        return data[: frame + 5] + struct.pack(">HH", side, side) + data[frame + 9 :]
    if kind == 2:
        data = GOOD_FILES["GIF"]
        place = 6 if rng.integers(2) else data.index(b"\x2c\0\0\0\0") + 5  # the canvas, or the picture
        return data[:place] + struct.pack("<HH", side, side) + data[place + 4 :]
    if kind == 3:
        data = GOOD_FILES[str(rng.choice(["BMP", "BMP, 32 bits"]))]
        return data[:18] + struct.pack("<ii", side, side * int(rng.choice([1, -1]))) + data[26:]
    data = GOOD_FILES["WebP, alpha"]
    return data[:24] + struct.pack("<I", side)[:3] * 2 + data[30:]


def _zip_bomb(rng, origin):
    """PNGs of some kilobytes that inflate a thousandfold, in their pixels or beside them."""
    kind = rng.integers(5)
    if kind == 0:  # pixels: 4 to 16 million bytes, in every flavour
        side = int(rng.integers(1200, 2300))
        bits, colour_type = [(8, 2), (16, 2), (8, 6), (8, 0)][rng.integers(4)]
        interlace = int(rng.integers(2))
        return png(
            side, side, _zeros(b"IDAT", b"", 44), bits=bits, colour_type=colour_type, interlace=interlace
        )
    if kind == 1:  # far more pixels than the header says
        return png(64, 64, _zeros(b"IDAT", b"", 40))
    picture = png_chunk(b"IDAT", zlib.compress(bytes(64 * (1 + 3 * 64))))
    if kind == 2:
        return png(64, 64, _zeros(b"iCCP", b"bomb\0\0", 40), picture)
    text = _zeros(b"zTXt", b"bomb\0\0", 7) * int(rng.integers(33, 200))
    return png(64, 64, *((text, picture) if kind == 3 else (picture, text)))


def _wide(rng, origin):
    """A row or a column of up to a million pixels: resizing a row takes memory in proportion to it."""
    long, short = int(rng.integers(66_000, 1_000_000)), int(rng.integers(1, 170))
    width, height = (long, short) if rng.integers(2) else (short, long)
    return png(width, height, png_chunk(b"IDAT", zlib.compress(bytes(100_000))))


def _scan_bomb(rng, origin):
    """A progressive JPEG whose last scan, of a few bytes, comes again and again."""
    data = GOOD_FILES["JPEG, progressive"]
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * int(rng.integers(40, 400)) + b"\xff\xd9"


def _endless_blocks(rng, origin):
    """Thousands of segments, chunks or blocks of next to no bytes before the picture."""
    jpeg, gif, webp = (GOOD_FILES[name] for name in ("JPEG", "GIF", "WebP, animated"))
    count = int(rng.integers(1100, 3000))
    kind = rng.integers(4)
    if kind == 0:
        return jpeg[:2] + jpeg_segment(int(rng.integers(0xE0, 0xF0)), b"") * count + jpeg[2:]
    if kind == 1:
        return jpeg[:2] + b"\xff" * count + jpeg[3:]
    if kind == 2:
        start = 13 + 3 * 2 ** (1 + gif[10] % 8)
        return gif[:start] + b"\x21\xfe\1x\0" * count + gif[start:]
    return webp[:30] + (b"JUNK" + bytes(4)) * count + webp[30:]


def _odd_exif(rng, origin):
    """Directories that lie anywhere, of any length, with orientations of any type and value."""
    order = str(rng.choice(["<", ">"]))
    tags = rng.integers(0, 4) if rng.integers(2) else rng.integers(1000, 5000)
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, int(rng.choice([8, 0, 2**32 - 1])))
    entries = np.empty(int(tags), [(name, order + "u4") for name in ("tag_and_type", "count", "value")])
    kinds = [0x0112, 0x0100, 0x8769]
    first, second = rng.choice(kinds, tags), rng.integers(0, 20, tags)
    entries["tag_and_type"] = first + second * 2**16 if order == "<" else first * 2**16 + second
    entries["count"], entries["value"] = rng.integers(0, 3, tags), rng.integers(0, 2**32, tags)
    count = int(rng.choice([0, 1, tags, 65_535]))
    body = struct.pack(order + "H", count) + entries.tobytes()
    jpeg = GOOD_FILES["JPEG"]
    return jpeg[:2] + jpeg_segment(0xE1, b"Exif\0\0" + head + body) + jpeg[2:]


def _spliced(rng, origin):
    """A stretch left out, put in or written twice, or the rest of another file."""
    data = GOOD_FILES[origin]
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 300))
    other = GOOD_FILES[str(rng.choice(list(GOOD_FILES)))]
    return [
        data[:start] + data[start + length :],
        data[:start] + rng.bytes(length) + data[start:],
        data[:start] + data[max(0, start - length) :],
        data[:start] + other[int(rng.integers(len(other))) :],
    ][rng.integers(4)]


def _other_files(rng, origin):
    """What people upload in place of a photograph; of TIFF and HEIC the message says more."""
    picture = draw_photograph(seed=int(rng.integers(100)))
    return [
        lambda: b"<html><body>404 Not Found</body></html>",
        lambda: b"%PDF-1.7\n" + rng.bytes(500),
        lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        lambda: b"PK\3\4" + rng.bytes(300),
        lambda: "Überhaupt kein Bild".encode(),
        lambda: encode(picture, "TIFF"),
        lambda: b"\0\0\0\x18ftypheic" + rng.bytes(200),
        lambda: encode(picture.convert("1"), "BMP"),
        lambda: encode(picture, "ICO"),
    ][rng.integers(9)]()


KINDS = {  # kind: (function, the errors that may be told)
    "bit flips": (_flip_bits, ANY),
    "cut off": (_cut_off, ANY - {"damaged", "too large", "unsupported"}),
    "wrong magic": (_wrong_magic, ANY),
    "zero bytes": (_zero_bytes, ANY),
    "random bytes": (_random_bytes, ANY),
    "huge dimensions": (_huge_dimensions, frozenset({"too large"})),
    "zip bomb": (_zip_bomb, frozenset({"", "too large"})),
    "wide": (_wide, frozenset({"too large"})),
    "scan bomb": (_scan_bomb, frozenset({"too large"})),
    "endless blocks": (_endless_blocks, ANY - {"empty", "too large", "unsupported"}),
    "odd EXIF": (_odd_exif, frozenset({""})),
    "spliced": (_spliced, ANY),
    "empty": (lambda rng, origin: b"", frozenset({"empty"})),
    "other files": (_other_files, frozenset({"not an image", "unsupported"})),
}


@functools.cache
def _zeros(name, head, megabytes):
    """A PNG chunk that inflates to so many million zeros."""
    return png_chunk(name, head + zlib.compress(bytes(megabytes * 1_000_000), 9))


_LARGE = {  # just below the limit of 178 million pixels
    "PNG": lambda: png(13_300, 13_300, _zeros(b"IDAT", b"", 531)),
    "JPEG, progressive": lambda: encode(Image.new("RGB", (13_300, 13_300)), "JPEG", progressive=True),
    "WebP": lambda: encode(Image.new("RGBA", (13_300, 13_300)), "WEBP", lossless=True, method=0),
    "GIF": lambda: encode(Image.new("P", (13_300, 13_300)), "GIF"),
}
