"""Says what a command is doing and how far it is, so that none is silent for more than three seconds.

    with show_progress("features of train", total=3000, unit="image") as bar:
        bar.update(32)
    with show_progress("drawing the figures"):
        ...

On a terminal it is tqdm's bar, on stderr. In a pipe or a file it is plain lines, the first after a moment and
then some seconds apart, and more seconds as time goes by: a day's work leaves no log of thousands of lines.
What is over at once says nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TextIO

from tfrecords.quiet import open_stderr, silence_native_stderr
from tfrecords.words import count, plural

FIRST_LINE_S = 0.3
"""What is over sooner than this says nothing."""

LINES_S = 2.5
"""Seconds between two lines in a pipe, of all that goes on together."""

_MAX_LINES_S, _LINES_SHARE = 30.0, 1 / 120  # after five minutes the lines become fewer
_WIDTH = 80  # of a terminal that does not know its own
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}, {rate_fmt}]"
_SHARE = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
_ELAPSED = "{desc} ... {elapsed}"


class Progress:
    """Something that goes on, and is told of until `close`; made by `show_progress`."""

    def __init__(
        self,
        words: str,
        total: float | None,
        unit: str,
        initial: float,
        at_once: bool,
        count_done: Callable[[], float] | None,
    ) -> None:
        self.words, self.total, self.unit = words, total, unit
        self._count_done = count_done
        self.count = self._initial = initial
        self._start_s = time.monotonic()
        self._first_s = self._start_s + (0 if at_once else FIRST_LINE_S)
        self._has_spoken = False
        self._stream = open_stderr()
        self._bar = self._make_bar() if self._stream.isatty() else None
        self._ended = threading.Event()
        _Speakers.going_on.append(self)
        if at_once and self._bar is None:
            self._say(f"{words} ...")
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def update(self, count: float = 1) -> None:
        """Adds to what is done."""
        self.count += count
        if self._bar is not None:
            self._bar.update(count)

    def skip(self, count: float) -> None:
        """Adds what was done before, which tells nothing of how long the rest will take."""
        self.count += count
        self._initial += count
        if self._bar is not None:
            self._bar.initial += count
            self._bar.n += count

    def describe(self, words: str) -> None:
        """Says from now on that it is this that goes on."""
        self.words = words
        if self._bar is not None:
            self._bar.set_description_str(words, refresh=False)

    def set_total(self, total: float) -> None:
        """Says how much there is to do, once that is known."""
        self.total = total
        if self._bar is not None:
            self._bar.total, self._bar.bar_format = total, self._choose_format()

    def print(self, text: str, file: TextIO | None = None) -> None:
        """Prints a line above the bar, on stdout or where `file` leads."""
        print_above(text, file)

    def close(self) -> None:
        """Says no more; of what was counted and took a while, says how it ended."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._ticker.join()
        if self._bar is not None:
            self._bar.close()
        elif self._has_spoken and self.unit and self.count != self._initial:
            self._say(f"{self.words}: {self._format_count()} in {_format_s(self._elapsed_s)}")
        _Speakers.going_on.remove(self)
        with contextlib.suppress(OSError, ValueError):
            self._stream.close()

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._start_s

    def _make_bar(self):
        from tqdm import tqdm

        return tqdm(
            total=self.total,
            desc=self.words,
            unit=f" {plural(self.unit, 0)}",
            initial=self.count,
            file=self._stream,
            **({"dynamic_ncols": True} if _find_width(self._stream) else {"ncols": _WIDTH}),
            leave=None if self.unit else False,  # None: unless it is within another
            delay=max(self._first_s - self._start_s, 1e-9),
            bar_format=self._choose_format(),
        )

    def _choose_format(self) -> str | None:
        if self.total is None:
            return None if self.unit else _ELAPSED
        return _BAR if self.unit else _SHARE

    def _tick(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the stream was closed: nobody reads
            while not self._ended.wait(FIRST_LINE_S):
                now_s = time.monotonic()
                if now_s < self._first_s or _Speakers.going_on[-1] is not self:
                    continue
                is_due = now_s >= _Speakers.said_s + _pause_s(now_s - self._start_s)
                if self._count_done is not None and is_due:
                    self.update(self._count_done() - self.count)
                if self._bar is not None:
                    self._bar.refresh()
                elif is_due:
                    self._say(self._format_line())

    def _say(self, line: str) -> None:
        self._has_spoken = True
        _Speakers.said_s = time.monotonic()
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def _format_line(self) -> str:
        parts = [self._format_count()] if self.unit else []
        if self.total:
            parts.append(f"{100 * self.count / self.total:.0f} %")
            done = self.count - self._initial
            if done > 0 and self.count < self.total:
                left_s = self._elapsed_s * max(self.total - self.count, 0) / done
                parts.append(f"{_format_s(left_s)} left")
        return f"{self.words}: {', '.join(parts)}" if parts else f"{self.words} ... {self._format_elapsed()}"

    def _format_count(self) -> str:
        if self.total is None or self.count == self.total:
            return count(self.unit, round(self.count))
        return f"{self.count:,.0f} of {count(self.unit, round(self.total))}"

    def _format_elapsed(self) -> str:
        return _format_s(self._elapsed_s)


class _Speakers:
    """All that goes on, the innermost last: a process has one stderr, and only that one speaks there."""

    going_on: ClassVar[list[Progress]] = []
    said_s = 0.0


@contextlib.contextmanager
def show_progress(
    words: str,
    total: float | None = None,
    unit: str = "",
    initial: float = 0,
    shown: bool = True,
    at_once: bool = False,
    count_done: Callable[[], float] | None = None,
) -> Iterator[Progress | Silent]:
    """Tells on stderr of what goes on in the block.

    Args:
        words: what it is: "features of train".
        total: how much there is to do; None where nobody knows.
        unit: of what is counted, in the singular; "" shows a share or the time alone.
        initial: what was done before.
        shown: whether to say anything at all.
        at_once: say the words now, and not only where it takes a moment.
        count_done: finds out how much is done, where nobody calls `update`; called in a thread.

    Yields:
        A `Progress`, whose `update` counts.
    """
    teller = Progress(words, total, unit, initial, at_once, count_done) if shown else Silent()
    try:
        yield teller
    finally:
        teller.close()


def print_above(text: str, file: TextIO | None = None) -> None:
    """Prints a line on stdout, or where `file` leads, above the bars of all that goes on."""
    bars = [teller._bar for teller in _Speakers.going_on if teller._bar is not None]
    if not bars:
        print(text, file=file, flush=True)
        return
    with bars[0].get_lock():
        for bar in bars:
            bar.clear(nolock=True)
        print(text, file=file, flush=True)
        for bar in bars:
            bar.refresh(nolock=True)


@contextlib.contextmanager
def loading(title: str, package: str) -> Iterator[None]:
    """Announces an import that takes some seconds, and keeps what native code greets with off the screen.

    Args:
        title: what people call it.
        package: its name in Python; where it was imported before, nothing is said.
    """
    if package in sys.modules:
        yield
        return
    with show_progress(f"loading {title}", at_once=True), silence_native_stderr():
        yield


def loading_tensorflow() -> contextlib.AbstractContextManager[None]:
    """Announces an import of TensorFlow, see `loading`.

    >>> with loading_tensorflow():
    ...     import tensorflow
    """
    return loading("TensorFlow", "tensorflow")


class Silent:
    """What counts like a `Progress` and says nothing."""

    def update(self, count: float = 1) -> Any:
        """Counts nothing."""

    def skip(self, count: float) -> Any:
        """Counts nothing."""

    def describe(self, words: str) -> Any:
        """Says nothing."""

    def set_total(self, total: float) -> Any:
        """Says nothing."""

    def print(self, text: str, file: TextIO | None = None) -> Any:
        """Prints a line on stdout, or where `file` leads."""
        print(text, file=file, flush=True)

    def close(self) -> Any:
        """Ends nothing."""


def _find_width(stream: Any) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return 0


def _pause_s(elapsed_s: float) -> float:
    return min(max(LINES_S, elapsed_s * _LINES_SHARE), _MAX_LINES_S)


def _format_s(seconds: float) -> str:
    """`7 s`, `2 min 5 s`, `3 h 12 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds and minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
