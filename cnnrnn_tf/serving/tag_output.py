"""Rows of tagged images enter; a JSONL file leaves that appears once it is whole, and can be gone on with.

    tags.jsonl              the rows, once every image has one
    tags.jsonl.part         the rows so far
    tags.jsonl.state.json   what they were made of: model, options, folder

Which images are done is known from the rows alone. A run appends its rows in the walk's order; a later run
does so again with the images that have none yet, so the file is a few sorted sections, one after the other,
and merging them gives the sorted names of all that is done without holding them.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cnnrnn_tf.serving.image_walk import sort_key
from cnnrnn_tf.serving.tagged_image import TaggedImage, format_json
from tfrecords.errors import UserError
from tfrecords.places import find_obstacle

_FORMAT = 1
_CHUNK_BYTES = 1 << 16


def format_row(name: str, image: TaggedImage, calibrated: bool) -> bytes:
    r"""One line of JSON, as `cnnrnn predict --json` has it, with its "\n"."""
    row = {"image": name, "error": image.error}
    if image.valid:
        row = {"image": name, **asdict(image), "calibrated": calibrated}
    return format_json(row).encode() + b"\n"


def parse_row(line: bytes, path: str | Path, number: int) -> tuple[str, str]:
    """Returns the name and the error of a row.

    Raises:
        UserError: it is none; `path` and `number` say which line it is.
    """
    try:
        row = json.loads(line)
        return row["image"], row["error"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}, line {number}: is no row of this command; mend or remove that line, or --overwrite"
        ) from None


@dataclass
class Rows:
    """What a file of rows holds, up to `num_bytes`.

    Attributes:
        sections: where each sorted section begins, in bytes.
        errors: how many rows have each error; the others are good.
    """

    path: Path
    num_bytes: int = 0
    num_rows: int = 0
    sections: list[int] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def iterate_keys(self) -> Iterator[list[bytes]]:
        """Yields the `sort_key` of each row's name, sorted."""
        with self.path.open("rb") as file:
            spans = itertools.pairwise([*self.sections, self.num_bytes])
            sections = [_read_keys(file, *span) for span in spans]
            yield from heapq.merge(*sections)


def scan_rows(path: Path, multiple: int = 1) -> Rows:
    """Reads a file of rows up to its last whole line, or the last of which the number is a multiple.

    Raises:
        UserError: a line that was not cut off is no row.
    """
    rows = Rows(path)
    with path.open("rb") as file:
        pending: list[tuple[bool, str]] = []  # (whether a section begins, error) since the last multiple
        starts: list[int] = []
        end, last = 0, []
        for line in file:
            if not line.endswith(b"\n"):
                break
            name, error = parse_row(line, path, rows.num_rows + len(pending) + 1)
            key = sort_key(name)
            pending.append((key <= last or not end, error))
            starts.append(end)
            end, last = end + len(line), key
            if len(pending) == multiple:
                rows.sections += [s for s, (begins, _) in zip(starts, pending, strict=True) if begins]
                rows.errors.update(error for _, error in pending if error)
                rows.num_rows, rows.num_bytes = rows.num_rows + multiple, end
                pending, starts = [], []
    return rows


def find_missing(found: Iterable[tuple[str, str]], done: Iterator[list[bytes]]) -> Iterator[tuple[str, str]]:
    """Yields those of `walk_images` that have no row.

    Args:
        found: (name, reason), in the order of `sort_key`.
        done: the keys of what has a row, sorted.
    """
    key = next(done, None)
    for name, reason in found:
        wanted = sort_key(name)
        while key is not None and key < wanted:
            key = next(done, None)
        if key != wanted:
            yield name, reason


class TagOutput:
    """The files of one output, in the hands of this process alone; made by `open_output`."""

    def __init__(self, path: Path):
        self.path = path
        self.part = path.with_name(f"{path.name}.part")

    @property
    def is_finished(self) -> bool:
        """Whether the file is there under its own name."""
        return self.path.exists()

    def reopen(self) -> None:
        """Makes a finished file one that is being written: there are images that it has not."""
        os.replace(self.path, self.part)

    @contextlib.contextmanager
    def appending(self, rows: Rows) -> Iterator[_Appender]:
        """Cuts off what follows `rows`, and takes further ones; finishes the file if the block ends well.

        Raises:
            UserError: the disk refuses.
        """
        with _told(self.part):
            file = self.part.open("ab", buffering=0)
        with file:
            with _told(self.part):
                file.truncate(rows.num_bytes)
            yield _Appender(file, self.part)
            with _told(self.part):
                os.fsync(file.fileno())
                os.replace(self.part, self.path)


class _Appender:
    def __init__(self, file, path: Path):
        self._file, self._path = file, path

    def append(self, lines: Iterable[bytes]) -> None:
        """Writes rows; a process that is killed after it leaves them there."""
        data = memoryview(b"".join(lines))
        with _told(self._path):
            while data:
                data = data[self._file.write(data) :]


@contextlib.contextmanager
def open_output(path: Path, made_of: dict, overwrite: bool = False) -> Iterator[TagOutput]:
    """Takes an output into the hands of this process, if it is new or was made of the same.

    Args:
        path: the file to be; its folder is created where missing.
        made_of: what the rows depend on, as a dict for JSON, its keys in the words of the command line.
        overwrite: begin anew, whatever is there.

    Raises:
        UserError: it was made of something else, by something else, or another process writes it.
    """
    check_output(path, overwrite)
    output, state_path = TagOutput(path), _find_state(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(state_path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{path}: another process is writing it; wait for that one, or choose another --out"
            ) from None
        except OSError as error:  # some network file systems have no locks
            raise UserError(
                f"{path}: cannot be locked ({error.strerror}); choose an --out on another file system"
            ) from None
        if overwrite:
            path.unlink(missing_ok=True)
            output.part.unlink(missing_ok=True)
        state = {"format": _FORMAT, **made_of}
        if path.exists() or output.part.exists():
            _check_own(output, state_path, overwrite)
            check_state(path, _read_state(descriptor), state)
        else:
            with _told(state_path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(state, indent=1).encode() + b"\n", 0)
        yield output
    finally:
        os.close(descriptor)  # which unlocks it, as the end of a killed process does


def check_output(path: Path, overwrite: bool = False) -> None:
    """Refuses an output that `open_output` would not take, before the model is loaded; makes nothing.

    Raises:
        UserError: what is there was made by something else, or nothing can be written there.
    """
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; expected a file, such as {path / 'tags.jsonl'}")
    obstacle = find_obstacle(path)
    if obstacle is not None:
        raise UserError(f"--out {path}: cannot be written ({obstacle}); choose another")
    _check_own(TagOutput(path), _find_state(path), overwrite)


def _find_state(path: Path) -> Path:
    return path.with_name(f"{path.name}.state.json")


def _check_own(output: TagOutput, state_path: Path, overwrite: bool) -> None:
    there = [each for each in (output.path, output.part) if each.exists()]
    if overwrite or not there:
        return
    if not state_path.exists():
        raise UserError(
            f"{there[0]}: is there already, and no {state_path.name} beside it says what made it; choose "
            "another --out, or --overwrite it"
        )
    if len(there) == 2:
        raise UserError(
            f"{output.path}: is there, and so is {output.part.name}, which would replace it; remove one of "
            "them, or --overwrite both"
        )


def check_state(path: str | Path, state: dict, expected: dict) -> None:
    """Refuses to go on with rows that were made of something else.

    Raises:
        UserError: a value of `expected` is another in `state`.
    """
    for key, value in expected.items():
        if state.get(key) != value:
            raise UserError(
                f"{path}: was begun with {key} {_show(state.get(key))}, and now it is {_show(value)}; choose "
                "another --out, or --overwrite to begin anew"
            )


def _show(value) -> str:
    text = value[:12] if isinstance(value, str) and len(value) == 64 else value  # of a SHA-256, its start
    return str(text) if text not in (None, "", []) else "none"


def _read_state(descriptor: int) -> dict:
    try:
        state = json.loads(os.pread(descriptor, 1 << 20, 0))
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}


def _read_keys(file, start: int, end: int) -> Iterator[list[bytes]]:
    """Yields the keys of one section; other sections are read from the same file in between."""
    while start < end:
        file.seek(start)
        for line in file.readlines(_CHUNK_BYTES):
            if start >= end:
                return
            start += len(line)
            yield sort_key(json.loads(line)["image"])


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make room there, and run the same command again: "
            "it goes on"
        ) from None
