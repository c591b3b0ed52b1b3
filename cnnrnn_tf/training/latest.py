"""Keeps `runs/<dataset>/latest`, a link to the run that finished last, and finds what it stands for."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tfrecords.errors import UserError

LATEST = "latest"
_FINISHED = "metrics.json"


def mark_latest(run_dir: Path) -> bool:
    """Makes `latest` beside a finished run a link to it; the link is there at every moment, old or new.

    Returns:
        Whether it is: not on file systems without links, nor where something of the user's has the name.
    """
    link = run_dir.parent / LATEST
    if link.exists() and not link.is_symlink():
        return False
    partial = link.with_name(f".{LATEST}.{os.getpid()}")
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(run_dir.name, target_is_directory=True)
        os.replace(partial, link)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        return False
    return True


def find_run(path: str | Path) -> Path:
    """What a path with `latest` in it means: the run's own folder in the link's place, link or no link.

    Args:
        path: of a run, or of something in it, such as runs/demo/latest/export; any other path is returned.

    Raises:
        UserError: there is no finished run to be the latest.
    """
    path = Path(path)
    if LATEST not in path.parts:
        return path
    place = path.parts.index(LATEST)
    link, rest = Path(*path.parts[: place + 1]), path.parts[place + 1 :]
    if link.is_symlink():
        return link.parent.joinpath(os.readlink(link), *rest)
    if link.exists() or not link.parent.is_dir():
        return path
    finished = [each.parent for each in link.parent.glob(f"*/{_FINISHED}")]
    if not finished:
        raise UserError(f"{path}: no run in {link.parent} is finished; train one with `python train.py`")
    return max(finished, key=lambda each: (each / _FINISHED).stat().st_mtime).joinpath(*rest)
