"""What `make addons` runs, as far as it can be tested without tensorflow-addons."""

import ast
import doctest
import importlib.util
import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "benchmarks" / "addons"


def load(name):
    spec = importlib.util.spec_from_file_location(f"addons_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compare, ours = load("compare"), load("ours")


# ---- what ours.py writes


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files of a tiny run, by name."""
    folder = tmp_path_factory.mktemp("addons")
    for side in ("ours", "theirs"):
        (folder / side).mkdir()
        (folder / side / "search-every-path-99.npz").write_bytes(b"of an older run")
    (folder / "mine").mkdir()
    (folder / "mine" / "kept.npz").write_bytes(b"of another program")
    words = ["--models", "2", "--images", "3", "--train-images", "40"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "SPEED_RUNS", 2)
        patch.setattr(ours, "NARROW", (1, 5))
        patch.setattr(ours, "LARGE", ((81, 10),))
        assert ours.main([str(folder), *words]) == 0
    assert (folder / "mine" / "kept.npz").is_file()  # no file of another folder is touched
    (folder / "mine" / "kept.npz").unlink()
    return {path.stem: dict(np.load(path)) for path in folder.glob("*/*.npz")}


def test_the_files_are_the_tables_the_searches_and_the_speed(written):
    searches = {"every-path-00", "every-path-01", "random-81", "trained-6", "trained-81"}
    assert {name.removeprefix("search-") for name in written if name.startswith("search-")} == searches
    assert {"table-ties", "table-dead-labels", "table-marginals-of-81-labels", "speed"} <= written.keys()
    assert all(written["speed"]["num_steps"] == 12)


def test_a_file_holds_all_that_its_log_probabilities_follow_from(written):
    case = written["search-trained-81"]
    tokens, log_probs = case["published_5_tokens"], case["published_5_log_probs"]
    for image, place in itertools.product(range(3), range(5)):
        path = [token for token in tokens[image, place].tolist() if token < 81]
        assert log_prob_of(case, image, path) == pytest.approx(log_probs[image, place], abs=1e-4)


def log_prob_of(case, image, path):
    """The textbook's LSTM in NumPy: the sum of log P of each label and of END."""
    num_labels, units = len(case["label_embeddings"]) - 1, len(case["output_kernel"])
    table = np.concatenate([case["label_embeddings"], case["start_embedding"]]).astype(np.float64)
    projected = case["features"][image] @ case["feature_kernel"]
    hidden, memory, total = np.zeros(units), np.zeros(units), 0.0
    for token, following in itertools.pairwise([num_labels + 1, *path, num_labels]):
        gates = table[token] @ case["kernel"] + hidden @ case["recurrent_kernel"] + case["bias"]
        i, f, c, o = np.split(gates, 4)
        memory = memory / (1 + np.exp(-f)) + np.tanh(c) / (1 + np.exp(-i))
        hidden = np.tanh(memory) / (1 + np.exp(-o))
        scores = np.maximum(hidden @ case["output_kernel"] + projected, 0) @ case["label_embeddings"].T
        total += scores[following] - np.log(np.sum(np.exp(scores)))
    return total


def test_an_exhaustive_search_finds_every_path_and_they_share_all_probability(written):
    for name in ("search-every-path-00", "search-every-path-01", "search-trained-6"):
        case = written[name]
        num_labels, max_length = len(case["label_embeddings"]) - 1, int(case["max_length"])
        lists = compare.read_paths(case, case, "renormalised", compare.EVERY_PATH)
        paths = {
            path
            for length in range(max_length + 1)
            for path in itertools.permutations(range(num_labels), length)
        }
        for found in lists:
            assert found.paths.keys() == paths
            assert sum(np.exp([*found.paths.values()])) == pytest.approx(1, abs=1e-5)


def test_the_example_of_count_paths_holds():
    assert doctest.testmod(ours) == (0, 1)


def test_a_run_removes_what_an_older_one_left_on_either_side(written):
    assert "search-every-path-99" not in written


def test_theirs_imports_nothing_that_its_environment_lacks():
    tree = ast.parse((SCRIPTS / "theirs.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in imports
    }
    assert names - sys.stdlib_module_names == {"numpy", "tensorflow", "tensorflow_addons"}


def test_every_package_of_their_environment_is_pinned_to_one_version():
    lines = (SCRIPTS / "requirements.txt").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert "tensorflow-addons==0.23.0" in packages
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in packages)


# ---- what compare.py makes of numbers by hand

# Two images of two labels: true are {0} and {0, 1}, predicted {0, 1} and {0}: label 0 is right, 1 never.
TABLE = {
    "y_true": np.array([[1, 0], [1, 1]], np.uint8),
    "y_pred": np.array([[0.9, 0.5], [0.6, 0.1]], np.float32),  # 0.5 is in our set
    "threshold": 0.5,
    "weights": np.ones(2, np.float32),
    "hamming_loss": 0.5,
    "micro_f1": 2 / 3,
    "macro_f1": 0.5,
    "true_positives": np.array([2.0, 0]),
    "predicted": np.array([2.0, 1]),
    "positives": np.array([2.0, 1]),
}
THEIR_TABLE = {
    "reached_hamming_loss": 0.5,
    "reached_micro_f1": 2 / 3,
    "reached_macro_f1": 0.5,
    "reached_confusion": np.array([[[0, 0], [0, 2]], [[0, 1], [1, 0]]], np.float32),
    "strict_hamming_loss": 0.25,
    "strict_micro_f1": 0.8,
    "strict_macro_f1": 0.5,
}

# Two labels, END is 2, paths of at most one label; `exact` is searched exhaustively, `narrow` with 1 and 2.
WEIGHTS = {"label_embeddings": np.zeros([3, 1]), "max_length": 1}
LOGS = np.log([0.5, 0.3, 0.15])
PATHS = np.array([[[0], [2], [1]]])
THEIR_PATHS = np.array([[[0, 2], [2, 2], [0, 0], [1, 2]]])  # (0, 0) never ends
THEIR_LOGS = np.log([0.5, 0.3, 0.2, 0.15])


def make_case(beams, tokens, their_tokens, log_probs, their_log_probs):
    mine, other = {**WEIGHTS, "beams": np.array(beams)}, {}
    for rule, beam in itertools.product(compare.RULES, beams):
        width = beam or 9
        for side, paths, logs in ((mine, tokens, log_probs), (other, their_tokens, their_log_probs)):
            side[f"{rule}_{beam}_tokens"] = paths[:, :width].copy()
            side[f"{rule}_{beam}_log_probs"] = np.array([logs[:width]], np.float32)
    return mine, other


@pytest.fixture
def cases():
    speed = {**WEIGHTS, "features": np.zeros([4, 1]), "output_kernel": np.zeros([8, 1]), "beam": 2}
    theirs = {f"{rule}_{field}": value for rule in compare.RULES for field, value in SPEED.items()}

    def copy(case):
        return {name: np.array(value) for name, value in case.items()}

    return {
        "table-hand": (copy(TABLE), copy(THEIR_TABLE)),
        "search-exact": make_case([0], PATHS, THEIR_PATHS, LOGS, THEIR_LOGS),
        "search-narrow": make_case([1, 2], PATHS, THEIR_PATHS, LOGS, THEIR_LOGS),
        "speed": (copy({**speed, "num_steps": [2, 2], "seconds": [0.002, 0.004, 0.003]}), copy(theirs)),
    }


SPEED = {"num_steps": 2, "seconds": [0.006, 0.007, 0.005]}


def write(cases, folder):
    for side, place in (("ours", 0), ("theirs", 1)):
        (folder / side).mkdir()
        for name, pair in cases.items():
            np.savez(folder / side / f"{name}.npz", **pair[place])


def test_equal_numbers_give_status_0_and_a_report_of_every_section(cases, tmp_path, capsys):
    write(cases, tmp_path)
    assert compare.main([str(tmp_path)]) == 0
    printed = capsys.readouterr()
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert printed.err == "" and report in printed.out and "NOT EQUAL" not in report
    assert re.findall("^## (.*)", report, re.MULTILINE) == [
        "Measures",
        "Beams as wide as there are paths",
        "Narrow beams, where the algorithms differ",
        "Speed, for information",
    ]
    assert "| hand | 2 x 2 | 0 | 1 | 2.5e-01 | 1.3e-01 | 0.0e+00 |" in report  # one score is at the threshold
    assert "| published | random | 2 | 1 | 1 | 1 | 3 | 0 | 0 | 0.0e+00 | 0.0e+00 |" in report
    assert "| theirs, bare | 2 | 6.0 | 5.0 | 2.50 |" in report


@pytest.mark.parametrize(
    ("case", "field", "change", "named"),
    [
        ("table-hand", "reached_hamming_loss", lambda old: old + 1e-5, "HammingLoss"),
        ("table-hand", "reached_micro_f1", lambda old: old - 1e-5, "F1Score micro"),
        ("table-hand", "reached_macro_f1", lambda old: old + 1e-5, "F1Score macro"),
        ("table-hand", "reached_confusion", lambda old: old[:, ::-1], "MultiLabelConfusionMatrix"),
        ("search-exact", "published_0_tokens", lambda old: old[:, [1, 0, 2, 3]], "every path, published"),
        ("search-exact", "published_0_log_probs", lambda old: old + 1e-4, "every path, published"),
        ("search-exact", "renormalised_0_log_probs", lambda old: old + 1e-4, "every path, renormalised"),
        ("search-exact", "renormalised_0_tokens", lambda old: 0 * old, "every path, renormalised"),
        ("search-narrow", "renormalised_1_tokens", lambda old: old + 1, "greedy"),
        ("search-narrow", "published_2_log_probs", lambda old: old - 1e-4, "log P of paths that both"),
    ],
)
def test_a_difference_is_found_and_named(cases, tmp_path, capsys, case, field, change, named):
    cases[case][1][field] = change(cases[case][1][field])
    write(cases, tmp_path)
    assert compare.main([str(tmp_path)]) == 1
    assert [line.startswith(f"NOT EQUAL: {named}") for line in capsys.readouterr().err.splitlines()] == [True]
    assert "**NOT EQUAL**" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_label_without_a_positive_is_out_of_our_macro_mean_and_0_in_theirs(cases):
    mine, other = cases["table-hand"]
    mine["y_true"][:, 1] = 0
    mine["positives"][1] = 0
    mine["macro_f1"], other["reached_macro_f1"] = np.array(1.0), np.array(0.5)
    assert compare._compare_table(mine, other)["macro_f1"] == 0


def test_equally_probable_paths_may_come_in_either_order():
    a, b = (compare.Found(dict.fromkeys(order, -1.0), True) for order in ([(0,), (1,)], [(1,), (0,)]))
    assert compare.find_differences([a], [b]).best == 0
    less = compare.Found({(1,): -1.0, (0,): -1.2}, True)
    assert compare.find_differences([less], [compare.Found({(0,): -1.2, (1,): -1.0}, True)]).best == 1


def test_beams_that_are_no_label_sets_are_no_paths():
    end, beams = 3, [[1, 1, 3], [0, 1, 2], [0, 3, 3], [3, 3, 3], [2, 1, 3]]
    found = compare._read_image(beams, [-1.0, -2.0, -3.0, -4.0, -1e9], end, max_length=2)
    assert found == compare.Found({(0,): -3.0, (): -4.0}, answers=False)


def test_divergence_says_who_found_the_better_path_and_by_how_much():
    same = compare.Found({(0,): -1.0}, True)
    behind = compare.Found({(1, 2): -1.5}, True)
    none = compare.Found({(2,): -0.1}, False)
    images = ([same, same, behind, same], [same, behind, same, none])
    assert compare._diverge(*images) == [
        *(4, "25.0"),
        *("33.3", "33.3", "33.3"),
        *("+0.0000", "0.500", "0.500"),
        *("1.33", "1.33"),
    ]


@pytest.mark.parametrize("missing", ["ours", "theirs"])
def test_a_missing_side_is_said_with_what_to_run(cases, tmp_path, missing):
    write(cases, tmp_path)
    (tmp_path / missing / "table-hand.npz").unlink()
    with pytest.raises(SystemExit, match=r"found \['table-hand'\] in one alone: run ours\.py"):
        compare.main([str(tmp_path)])


def test_an_empty_folder_is_no_parity(tmp_path):
    with pytest.raises(SystemExit, match=r"expected the same files in ours/ and theirs/, found none"):
        compare.main([str(tmp_path)])
