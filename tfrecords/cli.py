"""Words of a command line enter; a filled dataclass leaves, or one line on stderr and exit status 2.

Both `python -m tfrecords` and `cnnrnn` read their dataclasses here. tyro reports a mistake as a box of many
lines; a command of ours reports every mistake, tyro's included, as one line that ends with the fix.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import platform
import re
import shlex
import shutil
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from tfrecords.errors import UserError, find_nearest, nearest

T = TypeVar("T")

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130
# What TensorFlow raises at a file of records that was removed, cut off or changed since it was built.
_RECORD_ERRORS = ("DataLossError", "NotFoundError", "FailedPreconditionError")


def run_main(run: Callable[[], int | None]) -> int:
    """Calls `run` and returns the exit status, for `sys.exit(run_main(...))`.

    0 or what `run` returned; 2 and one line `error: ...` on stderr after a UserError; 130 after Ctrl-C.
    TensorFlow, if `run` imports it, logs nothing of its own unless TF_CPP_MIN_LOG_LEVEL says otherwise: its
    lines would stand between those of a table and break up progress bars.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.suppress(AttributeError):  # stdout may be replaced; a path need not be UTF-8
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        return run() or 0
    except UserError as error:
        return _tell(str(error))
    except KeyboardInterrupt as stop:
        print(f"interrupted: {stop}" if str(stop) else "interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of `... | head` has left; Python must not flush to it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_MISTAKE
    except OSError as error:
        if error.filename is None:
            raise
        return _tell(f"{error.filename}: {error.strerror}; choose another place, or mend its permissions")
    except Exception as error:
        if "tensorflow" not in type(error).__module__:
            raise
        if type(error).__name__ == "InvalidArgumentError" and "jpeg" in str(error).lower():
            return _tell(
                "an image in the records does not decode: `python -m tfrecords verify NAME` says which, and "
                "`python -m tfrecords build ... --decode` leaves it out"
            )
        if type(error).__name__ not in _RECORD_ERRORS:
            raise
        reason = getattr(error, "message", str(error)).strip().partition("\n")[0].partition("}} ")
        return _tell(f"records are missing or damaged ({reason[2] or reason[0]}): build the data set again")


def _tell(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_MISTAKE


def show_version() -> typing.NoReturn:
    """Answers `--version`: prints the versions of this package and of what it stands on, and ends.

    Raises:
        SystemExit: status 0.
    """
    others = ", ".join(f"{name} {_find_version(name)}" for name in ("tensorflow", "keras"))
    print(f"cnnrnn-tf {_find_version('cnnrnn-tf')} (Python {platform.python_version()}, {others})")
    raise SystemExit(0)


def _find_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def find_command(name: str) -> str:
    """What to type for `name` (`python`, `cnnrnn`, `tensorboard`) so that it runs in this environment.

    The bare name where the shell finds this environment's program by it, else the program's path.
    """
    program = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not program.is_file() or (found is not None and os.path.samefile(found, program)):
        return name
    relative = os.path.relpath(program)
    return str(program) if relative.startswith(os.pardir) else relative


def format_command(name: str, *words: str | Path) -> str:
    """A command line that works as it stands in this environment: `find_command`, then quoted words."""
    return shlex.join([find_command(name), *map(str, words)])


def parse(
    command: type[T] | Mapping[str, Any] | Any,
    args: Sequence[str] | None = None,
    *,
    prog: str,
    description: str | None = None,
    default: T | None = None,
    config: Sequence[Any] = (),
) -> T:
    """Reads `args` into a dataclass, or into the one that a subcommand names.

    Args:
        command: a dataclass; or subcommands: a dictionary of name -> dataclass or further dictionary, or a
            union of dataclasses, named like the classes (`ExportRun` -> `export-run`).
        args: the words after the program's name; those of this process by default.
        prog: the program's name as the user types it.
        description: first words of the help; the dataclass's docstring by default.
        default: an instance whose values are the flags' defaults; not for subcommands.
        config: markers of `tyro.conf` for all flags.

    Returns:
        An instance of the dataclass.

    Raises:
        UserError: an unknown subcommand or flag, with the nearest right one; a missing or wrong value; a flag
            that is given twice, unless it takes several (`tyro.conf.UseAppendAction`).
        SystemExit: status 0, after `--help`.
    """
    args = list(sys.argv[1:] if args is None else args)
    subcommands = _find_subcommands(command)
    if subcommands is None:
        options = {"config": tuple(config), **({} if default is None else {"default": default})}
        return _parse_flags(command, args, prog, description, options)
    if args and args[0] in subcommands:
        return parse(subcommands[args[0]], args[1:], prog=f"{prog} {args[0]}", config=config)
    if args and args[0] in ("-h", "--help"):
        print(_list_subcommands(subcommands, prog, description))
        raise SystemExit(0)
    if args[:1] == ["--version"]:
        show_version()
    expected = f"expected {' or '.join(subcommands)}; see `{prog} --help`"
    if not args:
        raise UserError(f"`{prog}` needs a subcommand: {expected}")
    raise UserError(f"unknown subcommand {args[0]!r}{nearest(args[0], subcommands)}: {expected}")


def _find_subcommands(command) -> dict[str, Any] | None:
    if isinstance(command, Mapping):
        return dict(command)
    if typing.get_origin(command) in (typing.Union, types.UnionType):
        return dict(_name_member(member) for member in typing.get_args(command))
    return None


def _name_member(member) -> tuple[str, Any]:
    """A member of a union with its name: the one given by `tyro.conf.subcommand`, or the class's own."""
    if typing.get_origin(member) is typing.Annotated:
        annotated, *markers = typing.get_args(member)
        for marker in markers:
            if getattr(marker, "name", None):
                return marker.name, annotated
        member = annotated
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", member.__name__).lower(), member


def _list_subcommands(subcommands: Mapping[str, Any], prog: str, description: str | None) -> str:
    rows = [(name, _first_line(_describe(command))) for name, command in subcommands.items()]
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"usage: {prog} {{{','.join(subcommands)}}} ...", ""]
    lines += [description, ""] if description else []
    lines += [f"  {name:<{width}}{text}".rstrip() for name, text in rows]
    return "\n".join([*lines, "", f"`{prog} <name> --help` tells more of each."])


def _describe(command) -> str:
    subcommands = _find_subcommands(command)
    return (command.__doc__ or "") if subcommands is None else " | ".join(subcommands)


def _first_line(text: str) -> str:
    return text.strip().split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def _parse_flags(command: type[T], args: list[str], prog: str, description: str | None, options: dict) -> T:
    import tyro

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            filled = tyro.cli(command, args=args, prog=prog, description=description, **options)
        repeated = _explain_repeated_flag(command, args)
        if repeated is None:
            return filled
        raise UserError(f"{repeated}; see `{prog} --help`")
    except SystemExit as stop:
        if not stop.code:
            raise
    help_page, _ = _capture(command, ["--help"], options)
    _, box = _capture(command, args, options)
    raise UserError(f"{_explain_unknown_flag(args, help_page) or _flatten_box(box)}; see `{prog} --help`")


def _capture(command, args: Sequence[str], options: Mapping) -> tuple[str, str]:
    """What tyro writes to stdout and stderr on a terminal so wide that it breaks no line."""
    import tyro

    out, err = io.StringIO(), io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            tyro.cli(command, args=args, **options)
    except SystemExit:
        pass
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return out.getvalue(), err.getvalue()


def _explain_unknown_flag(args: Sequence[str], help_page: str) -> str | None:
    known = sorted(set(re.findall(r"--[A-Za-z][\w.:-]*", help_page)))
    for word in args:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag != "--" and flag.replace("_", "-") not in known:
            return f"unknown flag {flag}{_nearest_flag(flag, known)}"
    return None


def _explain_repeated_flag(command, args: Sequence[str]) -> str | None:
    """Of a flag that would replace itself in silence: `--seed 1 --seed 2`, or `--tie` and `--no-tie`."""
    repeatable, switches = _sort_flags(command)
    given: dict[str, str] = {}
    for position, word in enumerate(args):
        if word == "--":  # what follows is no flag
            break
        flag, mark, value = word.partition("=")
        flag = flag.replace("_", "-")
        if not re.fullmatch(r"--[A-Za-z][\w.:-]*", flag):
            continue
        prefix, name = re.fullmatch(r"(--(?:.*\.)?)(.*)", flag).groups()
        if not mark and not {name, name.removeprefix("no-")} & switches:
            value = args[position + 1] if position + 1 < len(args) else ""
        opposite = prefix + (name.removeprefix("no-") if name.startswith("no-") else f"no-{name}")
        if opposite in given:
            first, second = sorted([f"{opposite} {given[opposite]}".strip(), f"{flag} {value}".strip()])
            return f"{first} and {second} exclude each other: leave one out"
        if flag in given and name not in repeatable | switches:
            return f"{flag} is given twice, as {given[flag]!r} and as {value!r}: leave one out"
        given[flag] = value
    return None


def _sort_flags(command) -> tuple[set[str], set[str]]:
    """Names of the flags that may be repeated, and of those without a value; last parts of nested ones."""
    import tyro

    repeatable, switches = set(), set()
    hints = typing.get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        kind, markers = hints[field.name], ()
        if typing.get_origin(kind) is typing.Annotated:
            kind, *markers = typing.get_args(kind)
        if dataclasses.is_dataclass(kind):
            for names, nested in zip((repeatable, switches), _sort_flags(kind), strict=True):
                names |= nested
        name = next((marker.name for marker in markers if getattr(marker, "name", None)), field.name)
        if tyro.conf.UseAppendAction in markers:
            repeatable.add(name.replace("_", "-"))
        if kind is bool:
            switches.add(name.replace("_", "-"))
    return repeatable, switches


def _nearest_flag(flag: str, known: Sequence[str]) -> str:
    """As `nearest`, but a nested flag is also found by its last part: --rate finds --optimizer.rate."""
    last_part = flag.removeprefix("--").replace("_", "-")
    nested = [name for name in known if name.split(".")[-1] == last_part]
    if nested:
        return f" (did you mean {nested[0]!r}?)"
    # Without the dashes, which all of them have and which would make --threshold like --help.
    found = find_nearest(last_part, [name.removeprefix("--") for name in known])
    return "" if found is None else f" (did you mean '--{found}'?)"


def _flatten_box(box: str) -> str:
    """The sense of tyro's message in one line: what stands between the title's rule and the next one."""
    text = "\n".join(line.strip() for line in box.splitlines() if line.strip())
    title, *blocks = re.split(r"\n-+\n", text)
    body = blocks[0] if blocks else title
    if title == "Required options":
        missing = re.findall(r"^(--[\w.-]+|[A-Z]{2,})", body, flags=re.MULTILINE)
        return f"missing {' and '.join(missing)}"
    choice = re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", body)
    if choice:
        value, flag, choices = choice.groups()
        names = re.findall(r"'([^']+)'", choices)
        return f"{flag} {value}: no such choice{nearest(value, names)}; expected {' or '.join(names)}"
    body = re.sub(r"^Error parsing (--[\w.-]+): ", r"\1: ", body)
    body = re.sub(r"^Error parsing \w+: ", "", body)  # a dataclass that refused its values
    return " ".join(body.split()).removesuffix(".")
