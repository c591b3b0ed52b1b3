"""The C API's session, as a server of the tests' own holds it: for long, from threads, and given back whole.

Each script here runs in a process of its own, which never imports TensorFlow's Python.
"""

import json
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from cnnrnn_tf.serving import c_api_runner, fresh_process

START = """
import json, runpy, sys, threading
import numpy as np
runner = runpy.run_path(sys.argv[1])
Session, api = runner["Session"], runner["load_library"]()
path, signatures = sys.argv[2], json.loads(sys.argv[3])

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
"""
END = """
assert not {"tensorflow", "keras", "cnnrnn_tf"} & {name.split(".")[0] for name in sys.modules}
"""


class Echo(tf.Module):
    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(tf.random.normal([2_000_000]))  # 8 MB

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, "text"), tf.TensorSpec([None], tf.float32, "real")]
    )
    def echo(self, text, real):
        same_size = 0 * tf.cast(tf.strings.length(text), tf.float32)  # other sizes cannot be added
        return {
            "text": tf.strings.join([text, "!"]),
            "real": real + same_size + 0 * self.weights[0],
            "coarse": tf.cast(real, tf.bfloat16),
        }


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    path = tmp_path_factory.mktemp("echo") / "1"
    module = Echo()
    tf.saved_model.save(module, str(path), {"echo": module.echo})
    return path


def run(export, script):
    signatures = json.dumps(fresh_process.read_signatures(export))
    command = [sys.executable, "-P", "-c", START + script + END, str(fresh_process.C_API), export, signatures]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_calls_leave_nothing_behind(export):
    """A gigabyte of strings goes through, in good calls, failing ones, and ones that are never made."""
    script = """
def call(session, words, size):
    inputs = {"text": np.array(words, object), "real": np.zeros(size, np.float32)}
    try:
        session.run_signature("echo", inputs)
    except (RuntimeError, TypeError) as error:
        return type(error).__name__
    return "fine"

kinds, sizes = set(), []
with Session(api, path, signatures) as session:
    for i in range(300):
        big = bytes([i % 256]) * 1_000_000
        kinds |= {call(session, [big], 1), call(session, [big, b""], 3), call(session, [big, None], 2)}
        sizes.append(resident_mb())
print(json.dumps([sorted(kinds), sizes[-1] - sizes[30]]))
"""
    kinds, growth_mb = run(export, script)
    assert kinds == ["RuntimeError", "TypeError", "fine"]
    assert growth_mb < 30


def test_a_closed_session_gives_the_export_s_memory_back(export):
    script = """
sizes = []
for _ in range(24):
    with Session(api, path) as session:
        pass
    session.close()
    sizes.append(resident_mb())
try:
    session.run({}, {})
except RuntimeError as error:
    message = str(error)
for _ in range(24):
    try:
        Session(api, path + "/missing")
    except RuntimeError as error:
        missing = str(error)
print(json.dumps([sizes[-1] - sizes[3], message, missing]))
"""
    growth_mb, message, missing = run(export, script)
    assert growth_mb < 40  # the weights of one are 8 MB
    assert message == "the session is closed"
    assert "Could not find SavedModel" in missing


def test_threads_share_a_session_and_each_gets_its_own_answers(export):
    script = """
wrong = []
def work(session, start):
    for i in range(200):
        word, number = f"{start} {i}", 1000 * start + i
        found = session.run_signature("echo", {"text": [word], "real": np.array([number], np.float32)})
        if found["text"].tolist() != [(word + "!").encode()] or found["real"].tolist() != [number]:
            wrong.append(word)

with Session(api, path, signatures) as session:
    threads = [threading.Thread(target=work, args=(session, start)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(json.dumps(wrong))
"""
    assert run(export, script) == []


def test_bfloat16_is_read_as_the_float32_of_the_same_value(export):
    script = """
with Session(api, path, signatures) as session:
    real = np.array([1, -2.5, 3.14159, 1e30], np.float32)
    found = session.run_signature("echo", {"text": [b""] * 4, "real": real})["coarse"]
print(json.dumps([str(found.dtype), found.tolist()]))
"""
    expected = tf.cast([1, -2.5, 3.14159, 1e30], tf.bfloat16)
    assert run(export, script) == ["float32", tf.cast(expected, tf.float32).numpy().tolist()]


def test_a_slow_call_is_timed_once_and_a_quick_one_until_the_seconds_are_over():
    class Session:
        def __init__(self, pause_s):
            self.pause_s, self.num_calls = pause_s, 0

        def run(self):
            self.num_calls += 1
            time.sleep(self.pause_s)
            return {}

    slow, quick = Session(0.02), Session(0)
    assert len(c_api_runner._time_call(slow, {}, seconds=0.01)) == slow.num_calls == 1
    assert len(c_api_runner._time_call(quick, {}, seconds=1000)) == 50 == quick.num_calls - 1


def test_what_is_timed_is_repeated_and_a_process_that_saw_tensorflow_proves_nothing(
    export, monkeypatch, tmp_path
):
    inputs = {"text": [b"a"], "real": tf.constant([1.0]).numpy()}
    result = fresh_process.run_calls(
        fresh_process.C_API,
        export,
        [],
        timed=[
            ("echo", inputs),
            ("echo", {**inputs, "text": [b"a", b"b"] * 2, "real": tf.zeros([3]).numpy()}),
        ],
        seconds=0.05,
    )
    good, bad = result["timed"]
    assert len(good) >= 1 and all(seconds > 0 for seconds in good)
    assert sum(good) >= 0.05 or len(good) == 50
    assert sum(good[:-1]) < 0.05
    assert "Incompatible shapes" in bad
    assert result["imported"] == []
    tainted = tmp_path / "runner.py"
    tainted.write_text(
        "import pickle, sys, pathlib\n"
        "pathlib.Path(sys.argv[2]).write_bytes(pickle.dumps({'calls': [], 'imported': ['tensorflow']}))\n"
    )
    with pytest.raises(fresh_process.LoadError, match="imported tensorflow, so it proves nothing"):
        fresh_process.run_calls(tainted, export, [])
