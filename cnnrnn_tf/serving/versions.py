"""A folder of versions enters; the version folder that TensorFlow Serving takes leaves."""

from pathlib import Path

from tfrecords.errors import UserError

__all__ = ["find_export"]


def find_export(path):
    """Returns the version folder at `path`, or of those below it the one that the server takes: the highest.

    Raises:
        UserError: there is none, or it is half-written.
    """
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    if not path.is_dir():
        raise UserError(
            f"no export at {path}: expected a SavedModel's folder, such as `cnnrnn export RUN` writes"
        )
    versions = sorted(
        (p for p in path.iterdir() if p.is_dir() and p.name.isdecimal()), key=lambda p: int(p.name)
    )
    if not versions:
        raise UserError(
            f"{path} is not an export: expected saved_model.pb in it, or folders named by version numbers; "
            "`cnnrnn export RUN` writes one"
        )
    if not (versions[-1] / "saved_model.pb").is_file():
        raise UserError(
            f"{versions[-1]}, the version that the server would take, holds no saved_model.pb: remove it, or "
            "export again"
        )
    return versions[-1]
