"""Archives by their URLs enter; the files in them leave, unpacked in a folder, whole or not at all.

An archive arrives in `<name>.part`, where a run that was stopped goes on. It takes its own name once its size
and SHA-256 are those known here. Its files are unpacked in a hidden folder and moved into place, and it is
removed. `.<name>.unpacked` holds its SHA-256 from then on, and the next run leaves it alone; until then that
file is empty, and locked by the run that is at work.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import shutil
import stat
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import sleep
from typing import IO

from tfrecords.errors import UserError
from tfrecords.sources.base import join_inside

PAUSES_S = (2, 10, 30)
"""Pauses after attempts in a row that brought nothing new; one attempt more, and the download is given up."""
_PASSING_FAULTS = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Archive:
    """A `.tar` or `.zip` as its owners ship it.

    >>> Archive("http://owners.example/VOCtest_06-Nov-2007.tar", 451020800, "68" * 32, top="VOCdevkit").name
    'VOCtest_06-Nov-2007.tar'
    """

    url: str
    size: int
    """In bytes."""
    sha256: str
    """64 hexadecimal digits."""
    top: str = ""
    """The folder in the archive whose content is unpacked; all of the archive by default."""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def download(archives: Sequence[Archive], folder: str | Path, *, progress: bool = True) -> None:
    """Fetches what `folder` has not yet of `archives`, unpacks it there and removes the archives.

    Args:
        archives: in the order in which they are fetched; the later may unpack over the earlier.
        folder: made where it is missing. An archive that lies there by its own name is checked and used.
        progress: say on stderr what is done, and show bars.

    Raises:
        UserError: an archive cannot be had or is not the one known, its members have no place in `folder`,
            the disk is too small or refuses, or another run is at work on the same archive.
    """
    folder = Path(folder)
    tell = partial(print, file=sys.stderr, flush=True) if progress else lambda text: None
    try:
        missing = [archive for archive in archives if not is_unpacked(archive, folder)]
        if missing:
            folder.mkdir(parents=True, exist_ok=True)
            _check_space(folder, _count_needed_bytes(missing, folder), "the archives and what they hold")
        for archive in archives:
            marker = _marker_path(archive, folder)
            if archive not in missing:
                tell(f"{archive.name} is unpacked in {folder} already (remove {marker} to fetch it again)")
                continue
            with _claim(marker, archive) as file:
                tell(f"fetching {archive.url} ({archive.size / 1e9:.2f} GB) to {folder}")
                path = fetch(archive, folder, progress=progress)
                tell(f"unpacking {path}")
                unpack(path, folder, top=archive.top, progress=progress)
                file.write(archive.sha256)
            path.unlink()
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}: mend it and run the same command again") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("run the same command again to go on") from None


def is_unpacked(archive: Archive, folder: str | Path) -> bool:
    """Whether all of this very archive was unpacked to `folder` before."""
    marker = _marker_path(archive, Path(folder))
    return marker.is_file() and marker.read_text(encoding="utf-8", errors="replace") == archive.sha256


def fetch(archive: Archive, folder: str | Path, *, progress: bool = True, timeout_s: float = 60) -> Path:
    """Fetches one archive, from where an earlier run stopped, and checks it.

    Args:
        folder: where it goes; one that lies there already, put by hand, is checked and returned.
        progress: show bars and dropped connections on stderr.
        timeout_s: how long the server may be silent.

    Returns:
        The archive's path; its size and SHA-256 are right.

    Raises:
        UserError: the server cannot be reached, has no such file, or another one. Bytes that are wrong are
            removed, so that the next run starts anew; a file that was put there by hand is left to its owner.
        OSError: the disk refuses.
    """
    path = Path(folder) / archive.name
    if path.exists():
        fault = _find_fault(path, archive, progress)
        if fault is not None:
            raise UserError(f"{path}: {fault}: remove it, and the next run fetches it from {archive.url}")
        return path
    part = _part_path(archive, Path(folder))
    if _file_size(part) > archive.size:
        part.unlink()
    _receive_all(archive, part, progress, timeout_s)
    fault = _find_fault(part, archive, progress)
    if fault is not None:
        part.unlink()
        raise UserError(
            f"{archive.url}: {fault}; what arrived was removed: run the same command again, or fetch the "
            f"file by hand and put it into {folder}"
        )
    os.replace(part, path)
    return path


def unpack(path: str | Path, folder: str | Path, *, top: str = "", progress: bool = True) -> None:
    """Unpacks the files of a `.tar` or `.zip` to `folder`, over what lies there, once all of them are out.

    Plain files alone are unpacked, and the folders that they lie in: a link or device is refused, and so is a
    name that leads out of `folder`, before anything is written.

    Args:
        path: the archive.
        folder: where its files go.
        top: the folder in the archive that `folder` stands for: of `VOCdevkit/VOC2007/x`, with the top
            `VOCdevkit`, comes `folder/VOC2007/x`.
        progress: show a bar on stderr.

    Raises:
        UserError: a member has no place in `folder`, the archive is damaged, or the disk is too small.
        OSError: the disk refuses.
    """
    path, folder = Path(path), Path(folder)
    staging = folder / f".{path.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    try:
        (staging / top).mkdir(parents=True)
        _extract(path, staging, top, progress)
        _move_content(staging / top, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}): remove it and fetch it again") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _part_path(archive: Archive, folder: Path) -> Path:
    return folder / f"{archive.name}.part"


def _marker_path(archive: Archive, folder: Path) -> Path:
    return folder / f".{archive.name}.unpacked"


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# ---- room and rivals


def _count_needed_bytes(archives: Sequence[Archive], folder: Path) -> int:
    """The most that the disk will hold at any moment beyond now; files take about their archive's size."""
    added = most = 0
    for archive in archives:
        there = max(_file_size(folder / archive.name), _file_size(_part_path(archive, folder)))
        added += 2 * archive.size - min(there, archive.size)
        most = max(most, added)
        added -= archive.size
    return most


def _check_space(folder: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: the disk has {free / 1e9:.2f} GB free, expected {needed / 1e9:.2f} GB for {what}: "
            "make room, or choose another folder"
        )


@contextmanager
def _claim(marker: Path, archive: Archive) -> Iterator[IO[str]]:
    """The empty marker, locked: a second run must not write to the same files."""
    with open(marker, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{marker.parent}: another run is downloading {archive.name} there; wait for its end"
            ) from None
        file.truncate(0)  # of another edition of the archive
        yield file


# ---- fetching


class _Dropped(Exception):
    """Why a connection failed, or ended too early: another attempt may help."""


def _receive_all(archive: Archive, part: Path, progress: bool, timeout_s: float) -> None:
    """Fills `part`, with as many attempts as bring something new and a few that do not."""
    most, failures = _file_size(part), 0
    while _file_size(part) < archive.size:
        try:
            _receive(archive, part, progress, timeout_s)
        except _Dropped as error:
            size = _file_size(part)
            failures = 0 if size > most else failures + 1
            most = max(most, size)
            if failures > len(PAUSES_S):
                raise UserError(
                    f"{archive.url}: {error}; {size:,} of {archive.size:,} bytes are there: run the same "
                    f"command again to go on, or fetch the file by hand and put it into {part.parent}"
                ) from None
            pause = PAUSES_S[max(failures - 1, 0)]
            if progress:
                print(f"{archive.name}: {error}; trying again in {pause} s", file=sys.stderr)
            sleep(pause)


def _receive(archive: Archive, part: Path, progress: bool, timeout_s: float) -> None:
    """One attempt: appends to `part`, or starts it anew where the server sends all of the file."""
    from tqdm import tqdm

    size = _file_size(part)
    with _connect(archive, part, size, timeout_s) as response:
        start = _find_start(response, archive, part)
        if start not in (0, size):
            raise _Dropped(f"bytes from {start:,} on arrived where those from {size:,} on were asked for")
        bar = tqdm(
            **{"desc": archive.name, "total": archive.size, "initial": start, "disable": not progress},
            **{"unit": "B", "unit_scale": True, "dynamic_ncols": True},
        )
        with open(part, "ab" if start else "wb") as file, bar:
            while (missing := archive.size - file.tell()) > 0:
                chunk = _read(response, min(missing, _CHUNK_BYTES))
                file.write(chunk)
                bar.update(len(chunk))


def _connect(archive: Archive, part: Path, start: int, timeout_s: float) -> http.client.HTTPResponse:
    """Asks for the bytes from `start` on.

    Another file than the one that was begun needs no If-Range: its size or its SHA-256 gives it away.
    """
    headers = {"User-Agent": "cnnrnn-tf", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        return urllib.request.urlopen(urllib.request.Request(archive.url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return _connect(archive, part, 0, timeout_s)
        found = f"HTTP {error.code} {error.reason}"
        if error.code >= 500 or error.code in _PASSING_FAULTS:
            raise _Dropped(found) from None
        raise UserError(f"{archive.url}: {found}: {_get_by_hand(archive, part)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Dropped(f"no connection ({_describe(error)})") from None


def _find_start(response: http.client.HTTPResponse, archive: Archive, part: Path) -> int:
    """The place of the first byte that the server sends.

    Raises:
        UserError: its file has another size, and all the rest would come in vain.
    """
    start, total = 0, response.headers.get("Content-Length")
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        content_range = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range.strip())
        if match is None:
            raise _Dropped(f"a part arrived with the Content-Range {content_range!r}")
        start, total = int(match[1]), match[2]
    if total is not None and total.isdecimal() and int(total) != archive.size:
        raise UserError(
            f"{archive.url}: the server has a file of {int(total):,} bytes, expected {archive.size:,}: "
            f"{_get_by_hand(archive, part)}"
        )
    return start


def _get_by_hand(archive: Archive, part: Path) -> str:
    return f"get {archive.name} from elsewhere, put it into {part.parent} and run the same command again"


def _read(response: http.client.HTTPResponse, num_bytes: int) -> bytes:
    try:
        chunk = response.read(num_bytes)
    except (OSError, http.client.HTTPException) as error:
        raise _Dropped(f"the connection was lost ({_describe(error)})") from None
    if not chunk:
        raise _Dropped("the connection ended too early")
    return chunk


def _describe(error: Exception) -> str:
    reason = getattr(error, "reason", error)  # an URLError's is what went wrong below
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def _find_fault(path: Path, archive: Archive, progress: bool) -> str | None:
    """What tells the file from the archive that is known, or None."""
    size = path.stat().st_size
    if size != archive.size:
        return f"expected {archive.size:,} bytes, found {size:,}"
    found = _hash(path, progress)
    return None if found == archive.sha256 else f"expected the SHA-256 {archive.sha256}, found {found}"


def _hash(path: Path, progress: bool) -> str:
    from tqdm import tqdm

    digest = hashlib.sha256()
    bar = tqdm(
        **{"desc": f"checking {path.name}", "total": path.stat().st_size, "disable": not progress},
        **{"unit": "B", "unit_scale": True, "dynamic_ncols": True, "leave": False},
    )
    with open(path, "rb") as file, bar:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


# ---- unpacking


@dataclass(frozen=True)
class _Member:
    """What is no folder in a tar or zip."""

    name: str
    size: int
    is_plain: bool
    open: Callable[[], IO[bytes]]


def _extract(path: Path, staging: Path, top: str, progress: bool) -> None:
    from tqdm import tqdm

    is_zip = path.suffix == ".zip"
    with zipfile.ZipFile(path) if is_zip else tarfile.open(path) as archive:
        members = _list_zip(archive) if is_zip else _list_tar(archive)
        places = [_find_place(member, path, staging, top) for member in members]
        _check_space(staging.parent, sum(member.size for member in members), f"what is in {path.name}")
        for member, place in zip(tqdm(members, unit=" files", disable=not progress), places, strict=True):
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with member.open() as source, open(place, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)


def _list_tar(archive: tarfile.TarFile) -> list[_Member]:
    return [
        _Member(item.name, item.size, item.isreg(), partial(archive.extractfile, item))
        for item in archive
        if not item.isdir()
    ]


def _list_zip(archive: zipfile.ZipFile) -> list[_Member]:
    return [
        _Member(
            item.filename,
            item.file_size,
            stat.S_IFMT(item.external_attr >> 16) in (0, stat.S_IFREG),  # 0: made where there are no modes
            partial(archive.open, item),
        )
        for item in archive.infolist()
        if not item.is_dir()
    ]


def _find_place(member: _Member, path: Path, staging: Path, top: str) -> str:
    root = os.path.join(staging, top)
    place = join_inside(root, os.path.join(os.path.abspath(staging), member.name))
    if place is None or os.path.abspath(root) == place:
        where = f"inside {top}" if top else "inside the folder that it is unpacked to"
        raise UserError(f"{path}: its member {member.name!r} is not {where}: nothing was unpacked")
    if not member.is_plain:
        raise UserError(f"{path}: its member {member.name!r} is a link or device: nothing was unpacked")
    return place


def _move_content(source: Path, folder: Path) -> None:
    """Moves all that is in `source` to `folder`, and what is in a folder that exists there into that one."""
    for entry in list(os.scandir(source)):
        place = folder / entry.name
        if entry.is_dir() and place.is_dir():
            _move_content(Path(entry.path), place)
        else:
            shutil.move(entry.path, place)
