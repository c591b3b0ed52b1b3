"""A TFRecord file enters; the places of its records leave, without a byte of them being read.

Each record is framed by 8 bytes of length (little-endian) and 4 of CRC before it, and 4 of CRC behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_BEFORE, _BEHIND = 12, 4


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
