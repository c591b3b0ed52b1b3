"""Records enter and the bytes of a TFRecord file leave; a file enters and the places of its records leave.

Each record is framed by 8 bytes of length (little-endian) and 4 of CRC before it, and 4 of CRC behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import Struct

import google_crc32c

_BEFORE, _BEHIND = 12, 4
_LENGTH, _CRC = Struct("<Q"), Struct("<I")


def frame_record(*parts: bytes) -> tuple[bytes, ...]:
    """A record, given in parts, as it stands in a file: still in parts, none of which is copied.

    >>> before, record, behind = frame_record(b"abc")
    >>> before.hex(" ", 4), behind.hex()
    ('03000000 00000000 b099490e', '6e57f121')
    """
    length = _LENGTH.pack(sum(map(len, parts)))
    return length + checksum(length), *parts, checksum(*parts)


def checksum(*parts: bytes) -> bytes:
    """The 4 bytes that stand behind data given in parts: its CRC-32C, masked.

    It is rotated and shifted, so that the CRC of data that have CRCs in them is as good as any.
    """
    crc = 0
    for part in parts:
        crc = google_crc32c.extend(crc, part)
    return _CRC.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class DamagedFile(Exception):
    """Why a TFRecord file cannot be read on."""


def read_records(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yields (start, data) of each record, its checksums found right.

    Raises:
        DamagedFile: a checksum is wrong, or the file is cut off.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        position = 0
        while header := file.read(_BEFORE):
            if len(header) < _BEFORE or checksum(header[:8]) != header[8:]:
                raise DamagedFile(f"corrupted or cut off at byte {position:,}")
            start, [size] = position + _BEFORE, _LENGTH.unpack(header[:8])
            data, crc = file.read(size), file.read(_BEHIND)
            if len(data) < size or checksum(data) != crc:
                raise DamagedFile(f"corrupted or cut off at byte {start:,}")
            yield start, data
            position = start + size + _BEHIND


def find_records(path: str | Path) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) of the data of each whole record; one that is cut off ends the file.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        position = 0
        while len(header := file.read(8)) == 8:
            start = position + _BEFORE
            stop = start + int.from_bytes(header, "little")
            position = stop + _BEHIND
            if position > size:
                return
            yield start, stop
            file.seek(position)
