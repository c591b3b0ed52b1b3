"""Says whether something can be written at a path, before the work whose result is to go there."""

from __future__ import annotations

import os
from pathlib import Path


def find_obstacle(path: str | Path) -> str | None:
    """Why `path` and the folders above it cannot be made; None where nothing stands in the way.

    Nothing is made. A disk may fill up, or a permission go, in the meantime.
    """
    path = Path(path).absolute()
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if there != path and not there.is_dir():
        return f"{there} is no folder"
    folder = there if there.is_dir() else there.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"no permission to write into {folder}"
    return None
