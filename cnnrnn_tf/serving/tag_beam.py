"""A folder of images enters; files of rows leave, written by an Apache Beam pipeline (extra `[beam]`).

    cnnrnn tag gs://bucket/photos --model EXPORT --out gs://bucket/tags --runner DataflowRunner \\
        --beam-options "--project=P --region=R --temp_location=gs://bucket/tmp"

    tags/state.json                    what the rows were made of
    tags/tags-00000-1b9d6bcd8e1f.jsonl   the rows of the first 1,024 images, and so on
    tags/summary.json                  appears last: the files in order, how many rows have which error,
                                       and how many files are no images

One worker lists the images and deals them out in shards; a worker takes a shard, tags it by the function and
in the batches of `cnnrnn tag` on one machine, and its file appears whole. Joined in order the files are the
rows of that command. A shard is named by a digest of what it is made of: a pipeline that failed is run again,
and shards that are there are not made again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnrnn_tf.serving.export import load_export
from cnnrnn_tf.serving.file_kinds import is_named_like_image, looks_like_image, sort_out
from cnnrnn_tf.serving.image_files import MAX_FILE_BYTES, read_image
from cnnrnn_tf.serving.image_walk import sort_key, walk_images
from cnnrnn_tf.serving.tag_files import with_options
from cnnrnn_tf.serving.tag_folder import describe_no_images, tag_batches
from cnnrnn_tf.serving.tag_output import check_state, format_row, parse_row
from tfrecords.beam import run_pipeline
from tfrecords.conversion import make_sendable
from tfrecords.errors import UserError
from tfrecords.magic import HEAD_BYTES
from tfrecords.progress import Progress, show_progress
from tfrecords.urls import delete, is_url, join_path, open_file, write_whole

SUMMARY_FILE = "summary.json"
_STATE_FILE = "state.json"
_PREFIX = "tags-"
_IMAGES_PER_SHARD = 1024
_FORMAT = 1
_OTHERS = "others"  # Beam's name of what `_plan_shards` gives beside the shards


def tag_by_beam(
    export_dir: str,
    folder: str,
    out: str,
    made_of: dict,
    given: Sequence[str] = (),
    search: Mapping[str, float] | None = None,
    batch_size: int = 32,
    num_readers: int = 8,
    runner: str = "DirectRunner",
    options: str = "",
    overwrite: bool = False,
) -> tuple[int, Counter[str], Counter[str]]:
    """Tags a folder by a pipeline.

    Args:
        export_dir: version folder of an export, which all workers reach under this path.
        folder: of the images: a folder that all workers reach, or a URL.
        out: a folder or URL for the files, which this machine and all workers reach.
        made_of: what the rows depend on, as a dict for JSON.
        given, batch_size, num_readers: see `tag_folder`.
        search: options of signature `tag`, see `with_options`.
        runner, options: see `tfrecords.beam.BeamWriter`.
        overwrite: begin anew.

    Returns:
        How many images have a row, how many rows have each error, and how many files are no images, by
        `file_kinds.name_kind`.

    Raises:
        UserError: there are no images, `out` holds rows that were made of something else, or the pipeline
            failed.
    """
    import apache_beam as beam
    from apache_beam.utils.shared import Shared

    folder, out = (place if is_url(place) else os.path.abspath(place) for place in (folder, out))
    made_of = {"format": _FORMAT, **made_of, "FOLDER": folder}
    _prepare(out, made_of, overwrite)
    num_images = max(_IMAGES_PER_SHARD // batch_size, 1) * batch_size
    tag_shard = _ShardTagger(
        *(export_dir, folder, out, json.dumps(made_of), tuple(given), dict(search or {})),
        *(batch_size, num_readers, Shared()),
    )

    def add_steps(pipeline):
        planned = (
            pipeline
            | "Folder" >> beam.Create([folder])
            | "List" >> beam.FlatMap(_plan_shards, num_images).with_outputs(_OTHERS, main="shards")
        )
        _ = (
            planned.shards
            | "One by one" >> beam.Reshuffle()  # or all shards stay with the worker that lists them
            | "Tag" >> beam.Map(tag_shard)
            | "Gather" >> beam.combiners.ToList()
            | "Sum up"
            >> beam.Map(
                _write_summary, beam.pvalue.AsSingleton(planned[_OTHERS]), join_path(out, SUMMARY_FILE)
            )
        )

    with show_progress(
        f"tagging on {runner}",
        unit="shard",
        count_done=None if is_url(out) else lambda: len(_list_files(out)),
    ) as bar:
        if not is_url(folder):
            count = functools.partial(_count_shards, bar, folder, num_images)
            threading.Thread(target=count, daemon=True).start()
        run_pipeline(add_steps, runner, options)
    summary = _read_json(join_path(out, SUMMARY_FILE))
    if summary is None:
        raise UserError(
            f"{out}: holds no {SUMMARY_FILE}, though the pipeline ended well: workers must reach --out, too"
        )
    _remove_others(out, summary["files"])
    others = Counter(summary["others"])
    if not summary["num_images"]:
        raise UserError(describe_no_images(folder, others))
    return summary["num_images"], Counter(summary["errors"]), others


# ---- what the workers do


def _plan_shards(folder: str, num_images: int) -> Iterator:
    """Yields (number, [(name, reason)]) of each shard, and last the files that are no images, counted.

    Names are bytes, for Beam's text must be UTF-8.
    """
    from apache_beam.pvalue import TaggedOutput

    others = Counter()
    found = _list_url(folder, others) if is_url(folder) else walk_images(folder, others)
    names = ((os.fsencode(name), reason) for name, reason in found)
    for number in itertools.count():
        shard = list(itertools.islice(names, num_images))
        if not shard:
            break
        yield number, shard
    yield TaggedOutput(_OTHERS, dict(others))


def _list_url(folder: str, others: Counter[str]) -> Iterable[tuple[str, str]]:
    from apache_beam.io.filesystems import FileSystems

    start = join_path(folder, "")
    (found,) = FileSystems.match([f"{start}**"])
    names = [each.path.removeprefix(start) for each in found.metadata_list]
    return sort_out(sorted(names, key=sort_key), lambda name: _judge_url(start + name), others)


def _judge_url(url: str) -> tuple[bool, str]:
    """As `file_kinds.judge_file`: of an object that is not named like an image, the first bytes are read."""
    if is_named_like_image(url.rsplit("/", 1)[-1]):
        return True, ""
    try:
        with open_file(url) as file:
            return looks_like_image(file.read(HEAD_BYTES)), ""
    except OSError as error:
        return False, _explain(error)


@dataclass(frozen=True)
class _ShardTagger:
    """Tags shards; what of it is in `state` is in the names of their files."""

    export_dir: str
    folder: str
    out: str
    state: str
    given: tuple[str, ...]
    search: dict[str, float]
    batch_size: int
    num_readers: int
    shared: Any
    """Beam's handle of the export, which all threads of a worker share."""

    def __call__(self, shard: tuple[int, list[tuple[bytes, str]]]) -> tuple[str, int, dict[str, int]]:
        """Writes a shard's file unless it is there, and returns its name, its rows and its errors."""
        number, found = shard
        digest = hashlib.sha256(repr((self.state, self.batch_size, found)).encode()).hexdigest()
        name = f"{_PREFIX}{number:05}-{digest[:12]}.jsonl"
        path = join_path(self.out, name)
        errors = _count_errors(path)
        if errors is None:
            write_whole(path, self._tag([(os.fsdecode(name), reason) for name, reason in found]))
            errors = _count_errors(path)
        return name, len(found), dict(errors)

    def _tag(self, found: Sequence[tuple[str, str]]) -> Iterator[bytes]:
        export = with_options(
            self.shared.acquire(functools.partial(load_export, self.export_dir)), self.search
        )
        calibrated = export.calibration is not None
        batches = tag_batches(export, self._read, found, self.given, self.batch_size, self.num_readers)
        for names, images in batches:
            for name, image in zip(names, images, strict=True):
                yield format_row(name, image, calibrated)

    def _read(self, name: str) -> tuple[bytes, str]:
        if not is_url(self.folder):
            return read_image(os.path.join(self.folder, name))
        try:
            with open_file(join_path(self.folder, name)) as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            return b"", _explain(error)
        return make_sendable(data) if len(data) <= MAX_FILE_BYTES else (b"", "too large")


def _explain(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__  # Beam's own have no strerror


def _count_errors(path: str) -> Counter[str] | None:
    """How many rows of a shard's file have each error; None where there is no such file."""
    try:
        with open_file(path) as file:
            rows = [parse_row(line, path, number) for number, line in enumerate(file.read().splitlines(), 1)]
    except FileNotFoundError:
        return None
    return Counter(error for _, error in rows if error)


def _write_summary(
    shards: Sequence[tuple[str, int, dict[str, int]]], others: Mapping[str, int], path: str
) -> None:
    errors = Counter()
    for _, _, found in shards:
        errors.update(found)
    summary = {
        "num_images": sum(num_images for _, num_images, _ in shards),
        "errors": dict(errors.most_common()),
        "others": dict(sorted(others.items())),
        "files": sorted(name for name, _, _ in shards),
    }
    write_whole(path, [json.dumps(summary, indent=1).encode() + b"\n"])


# ---- what the command does


def _prepare(out: str, made_of: dict, overwrite: bool) -> None:
    """Makes `out` one that holds rows of this very sort, or none."""
    state_path, there = join_path(out, _STATE_FILE), _list_files(out)
    if not is_url(out) and os.path.isfile(out):
        raise UserError(f"--out {out}: is a file; --runner writes a folder of files")
    if there and not overwrite:
        state = _read_json(state_path)
        if state is None:
            raise UserError(
                f"{out}: holds {there[0]} already, and no {_STATE_FILE} says what made it; choose another "
                "--out, or --overwrite it"
            )
        check_state(out, state, made_of)
    if overwrite:
        _remove_others(out, [])
    if _read_json(join_path(out, SUMMARY_FILE)) is not None:
        delete(join_path(out, SUMMARY_FILE))  # it says that all is there
    write_whole(state_path, [json.dumps(made_of, indent=1).encode() + b"\n"])


def _count_shards(bar: Progress, folder: str, num_images: int) -> None:
    """Finds beside the tagging how many files there will be."""
    with contextlib.suppress(OSError):
        bar.set_total(math.ceil(sum(1 for _ in walk_images(folder)) / num_images))


def _list_files(out: str) -> list[str]:
    from apache_beam.io.filesystems import FileSystems

    start = join_path(out, "")
    if not is_url(out):
        return (
            sorted(name for name in os.listdir(out) if name.startswith(_PREFIX)) if os.path.isdir(out) else []
        )
    (found,) = FileSystems.match([f"{start}{_PREFIX}*"])
    return sorted(each.path.removeprefix(start) for each in found.metadata_list)


def _remove_others(out: str, files: Collection[str]) -> None:
    """Removes shards that are not in `files`: of images that were there, or half-written."""
    for name in sorted(set(_list_files(out)) - set(files)):
        delete(join_path(out, name))


def _read_json(path: str) -> dict | None:
    try:
        with open_file(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return None
