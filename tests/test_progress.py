"""What a command says of what it does: when, how often, and where."""

import os
import pty
import re
import subprocess
import sys
import termios
import time

import pytest

from tfrecords import progress as progress_module
from tfrecords.progress import Progress, loading_tensorflow, show_progress
from tfrecords.quiet import greet_silently, silence_native_stderr


@pytest.fixture
def quick(monkeypatch):
    """The same with short times: a line after 0.02 s, and then 0.05 s apart."""
    monkeypatch.setattr(progress_module, "FIRST_LINE_S", 0.02)
    monkeypatch.setattr(progress_module, "LINES_S", 0.05)


def wait_for(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)


def test_no_pause_between_two_lines_is_three_seconds_long():
    code = "from tfrecords.progress import FIRST_LINE_S, LINES_S; print(FIRST_LINE_S + LINES_S)"
    pause_s = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert 1 < float(pause_s) < 3


def test_what_is_over_at_once_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "FIRST_LINE_S", 2.0)
    with show_progress("features of train", total=9, unit="image") as bar:
        bar.update(9)
    with show_progress("drawing"):
        pass
    assert capsys.readouterr() == ("", "")


def test_in_a_pipe_lines_say_how_much_is_done_and_how_long_it_will_take(quick, capsys):
    with show_progress("features of train", total=3000, unit="image", initial=1000) as bar:
        bar.update(1000)
        time.sleep(0.2)
        bar.update(1000)
    out, err = capsys.readouterr()
    first, *_, last = err.splitlines()
    assert out == ""
    assert first == "features of train: 2,000 of 3,000 images, 67 %, 0 s left"
    assert last == "features of train: 3,000 images in 0 s"
    assert 3 <= len(err.splitlines()) <= 6


def test_a_step_of_unknown_length_says_since_when(quick, capsys):
    with show_progress("drawing the figures"):
        time.sleep(0.1)
    assert set(capsys.readouterr().err.splitlines()) == {"drawing the figures ... 0 s"}


def test_only_the_innermost_speaks(quick, capsys):
    with show_progress("comparing", total=2) as outer:
        with show_progress("features", total=4, unit="image") as inner:
            inner.update(1)
            time.sleep(0.1)
        middle = capsys.readouterr().err
        outer.update(1)
        time.sleep(0.15)
    assert "features: 1 of 4 images, 25 %" in middle and "comparing" not in middle
    assert "comparing: 50 %, 0 s left" in capsys.readouterr().err


def test_long_work_has_fewer_lines():
    assert [progress_module._pause_s(seconds) for seconds in (0, 300, 1200, 86_400)] == [2.5, 2.5, 10, 30]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (125, "2 min 5 s"), (120, "2 min"), (1000, "16 min"), (7500, "2 h 5 min")],
)
def test_times_are_written_for_people(seconds, words):
    assert progress_module._format_s(seconds) == words


def test_hidden_progress_counts_and_is_silent(quick, capsys):
    with show_progress("features", total=1, shown=False) as bar:
        bar.update(1)
        bar.describe("others")
        bar.set_total(2)
        time.sleep(0.1)
        bar.print("a line")
    assert capsys.readouterr() == ("a line\n", "")


def test_a_bar_is_heard_while_native_code_is_silenced(quick, capfd):
    with show_progress("tagging", at_once=True), silence_native_stderr():
        os.write(2, b"libjpeg: corrupt data\n")
        with show_progress("reading", at_once=True):
            pass
    assert capfd.readouterr().err == "tagging ...\nreading ...\n"


def test_the_end_of_a_block_that_fails_ends_the_bar(quick, capsys):
    with pytest.raises(KeyboardInterrupt), show_progress("tagging") as bar:
        raise KeyboardInterrupt
    assert isinstance(bar, Progress) and not bar._ticker.is_alive()


def test_a_stream_that_nobody_reads_any_more_breaks_nothing(quick, monkeypatch):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stderr", Closed())
    with show_progress("tagging", at_once=True):
        time.sleep(0.1)
    monkeypatch.setattr(sys, "stderr", None)
    with show_progress("tagging", at_once=True):
        time.sleep(0.1)


def test_an_import_of_tensorflow_is_announced_once(monkeypatch, capfd):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with loading_tensorflow():
        os.write(2, b"oneDNN custom operations are on\n")
    assert capfd.readouterr().err == "loading TensorFlow ...\n"
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    with loading_tensorflow():
        pass
    assert capfd.readouterr().err == ""


SCRIPT = """
import time
from tfrecords import progress as module
module.FIRST_LINE_S = 0.05
with module.show_progress("features", total=4, unit="image") as bar:
    for _ in range(4):
        time.sleep(0.15)
        bar.update()
    bar.print("a line of output")
with module.show_progress("drawing"):
    time.sleep(0.2)
"""


@pytest.mark.parametrize("columns", [100, 0])
def test_on_a_terminal_it_is_a_bar_that_lines_of_output_do_not_break(columns):
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, columns))
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=terminal, stderr=terminal)
    os.close(terminal)
    text = b""
    try:
        while chunk := os.read(controller, 1 << 16):
            text += chunk
    except OSError:  # Linux's way of saying that the other side is gone
        pass
    os.close(controller)
    assert process.wait() == 0
    drawn = [part.strip() for part in re.split(r"[\r\n]|\x1b\[\w", text.decode())]
    assert any(part.startswith("features:  50%|") and "2/4 images" in part for part in drawn)
    assert "a line of output" in drawn  # alone on its line
    assert any(part.startswith("features: 100%|") for part in drawn)
    assert any(part.startswith("drawing ... 00:00") for part in drawn)


# ---- a package that greets


@pytest.fixture
def greeter(tmp_path, monkeypatch):
    """Writes a package that says something in native code, twice as TensorFlow does: at import, and later."""
    (tmp_path / "greeter.py").write_text("import os\nos.write(2, b'I0000 hello')\nVALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    yield "greeter"
    sys.modules.pop("greeter", None)


def test_the_first_import_of_a_package_that_greets_is_silent(greeter, capfd):
    finders = len(sys.meta_path)
    greet_silently(greeter)
    import greeter as package

    assert package.VALUE == 3 and package.__spec__.loader is package.__loader__
    assert package.__loader__.get_source("greeter").startswith("import os")
    assert capfd.readouterr().err == ""
    assert len(sys.meta_path) == finders
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_who_has_set_the_log_level_hears_the_greeting(greeter, capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    greet_silently(greeter)
    import greeter

    assert greeter.VALUE == 3
    assert capfd.readouterr().err == "I0000 hello"
