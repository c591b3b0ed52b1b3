"""Tags a folder of images, however many, into a file with one row of JSON for each, bad ones included.

Two stages run at once, with bounded queues between them: threads read files ahead, and two batches at a time
are in the model's graph, so that one is decoded while the other is in the network. The graph is that of
`cnnrnn predict` or of the export, and the batches are cut alike: the rows are its rows, to the digit.

(Decoding in a graph of its own, one batch ahead of a graph that begins with pixels, was measured too: it was
no faster, for both keep all cores busy, and an export has no signature that takes pixels.)
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from cnnrnn_tf.serving.file_kinds import describe_others
from cnnrnn_tf.serving.image_files import read_image
from cnnrnn_tf.serving.image_walk import walk_images
from cnnrnn_tf.serving.signatures import TaggedImage, tag_files
from cnnrnn_tf.serving.tag_output import TagOutput, find_missing, format_row, scan_rows
from tfrecords.errors import UserError
from tfrecords.words import count

_NUM_IN_FLIGHT = 2  # batches in the model's graph
_NUM_AHEAD = 2  # further batches of which the files are being read


@dataclass(frozen=True)
class TagSummary:
    """What an output holds when it is finished, and what of it this run added.

    Attributes:
        num_images: rows in the file.
        errors: how many rows have each error.
        others: how many files of the folder are no images and have no row, by `file_kinds.name_kind`.
        num_added: rows of this run.
        wall_s: seconds that they took.
    """

    num_images: int
    errors: Counter[str]
    others: Counter[str]
    num_added: int
    wall_s: float


def tag_folder(
    tagger,
    folder: str | os.PathLike,
    output: TagOutput,
    given: Sequence[str] = (),
    batch_size: int = 32,
    num_readers: int = 8,
    on_start: Callable[[int], object] = lambda num_done: None,
    on_images: Callable[[int], object] = lambda num_images: None,
) -> TagSummary:
    """Tags those images of a folder that have no row in `output` yet, and finishes it.

    Rows are dropped until their number is a multiple of the batch size, so that the batches, and with them
    the last digits, are those of a run that was never stopped.

    Args:
        tagger: a Tagger, or an export that `load_export` has read.
        folder: what `walk_images` takes.
        output: where the rows go, from `open_output`.
        given: names of labels that all images are known to have.
        batch_size: images tagged at once.
        num_readers: files read at once.
        on_start: called with the number of rows that are kept.
        on_images: called with the number of rows that were added.

    Raises:
        UserError: there are no images, the rows that are there are damaged, or the disk refuses.
        KeyboardInterrupt: with a message that says how to go on.
    """

    def read(name):
        return read_image(os.path.join(folder, name))

    start = time.perf_counter()
    others = Counter()
    if output.is_finished:
        rows = scan_rows(output.path)
        if next(find_missing(walk_images(folder, others), rows.iterate_keys()), None) is None:
            return TagSummary(rows.num_rows, rows.errors, others, 0, time.perf_counter() - start)
        output.reopen()
    output.part.touch()
    rows = scan_rows(output.part, batch_size)
    others = Counter()
    missing = find_missing(walk_images(folder, others), rows.iterate_keys())
    first = next(missing, None)
    if first is None and not rows.num_rows:
        output.part.unlink()
        raise UserError(describe_no_images(folder, others))
    on_start(rows.num_rows)
    calibrated = tagger.calibration is not None
    errors, num_added = Counter(rows.errors), 0
    missing = itertools.chain([] if first is None else [first], missing)
    try:
        batches = tag_batches(tagger, read, missing, given, batch_size, num_readers)
        with output.appending(rows) as appender, contextlib.closing(batches):
            for names, images in batches:
                appender.append(format_row(*pair, calibrated) for pair in zip(names, images, strict=True))
                errors.update(image.error for image in images if not image.valid)
                num_added += len(images)
                on_images(len(images))
    except KeyboardInterrupt:
        done = rows.num_rows + num_added
        raise KeyboardInterrupt(
            f"{count('image', done)} {'is' if done == 1 else 'are'} tagged in {output.part}; run the same "
            "command again to go on"
        ) from None
    return TagSummary(rows.num_rows + num_added, errors, others, num_added, time.perf_counter() - start)


def describe_no_images(folder: str | os.PathLike, others: Counter[str]) -> str:
    """The mistake of a folder in which there is nothing to tag."""
    found = f"; {describe_others(others)}" if others else ""
    return f"{folder}: no images in it or below it{found}"


def tag_batches(
    tagger,
    read: Callable[[str], tuple[bytes, str]],
    found: Iterable[tuple[str, str]],
    given: Sequence[str] = (),
    batch_size: int = 32,
    num_readers: int = 8,
) -> Iterator[tuple[list[str], list[TaggedImage]]]:
    """Tags images batch by batch, in order, reading and decoding ahead of the model by a few batches.

    Args:
        tagger: a Tagger, or an export that `load_export` has read.
        read: name -> (content, ""), or (b"", why it cannot be read); called in threads.
        found: (name, "" or why it cannot be read), as `walk_images` gives them.
        given: names of labels that all images are known to have.
        batch_size: images tagged at once.
        num_readers: files read at once.

    Yields:
        The names of each batch, and the answers.
    """

    def tag(files: list[Future]) -> list[TaggedImage]:
        return _tag_batch(tagger, [file.result() for file in files], given)

    found = iter(found)
    readers, callers = ThreadPoolExecutor(num_readers), ThreadPoolExecutor(_NUM_IN_FLIGHT)
    waiting: deque[tuple[list[str], Future]] = deque()
    try:
        while batch := list(itertools.islice(found, batch_size)):
            files = [readers.submit(_read, read, *each) for each in batch]
            waiting.append(([name for name, _ in batch], callers.submit(tag, files)))
            if len(waiting) >= _NUM_IN_FLIGHT + _NUM_AHEAD:
                names, images = waiting.popleft()
                yield names, images.result()
        for names, images in waiting:
            yield names, images.result()
    finally:
        callers.shutdown(cancel_futures=True)  # first: its calls wait for files
        readers.shutdown(cancel_futures=True)


def _read(read: Callable[[str], tuple[bytes, str]], name: str, reason: str) -> tuple[bytes, str]:
    return (b"", reason) if reason else read(name)


def _tag_batch(tagger, files: Sequence[tuple[bytes, str]], given: Sequence[str]) -> list[TaggedImage]:
    """Tags in one call; `files` are (content, "" or why there is none)."""
    images = tag_files(tagger, [data for data, _ in files], given, len(files))
    return [
        replace(image, error=reason or image.error) for image, (_, reason) in zip(images, files, strict=True)
    ]
