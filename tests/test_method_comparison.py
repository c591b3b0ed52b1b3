"""Outcomes of several seeds into blocks, and blocks into a terminal's table, CSV, Markdown and LaTeX."""

import csv
import io

import numpy as np
import pytest
from rich.console import Console

from cnnrnn_tf.evaluation.method_comparison import Outcome, Spread, compare_outcomes
from cnnrnn_tf.evaluation.method_tables import print_methods, render, to_csv, to_latex, to_markdown
from cnnrnn_tf.evaluation.predictions import Predictions
from cnnrnn_tf.evaluation.protocols import protocol
from cnnrnn_tf.evaluation.published import PUBLISHED as PUBLISHED_ROWS
from cnnrnn_tf.evaluation.published import PublishedRow
from cnnrnn_tf.evaluation.report import choose_protocols, evaluate_predictions
from tfrecords.errors import UserError
from tfrecords.vocabulary import LabelVocabulary

VOCABULARY = LabelVocabulary.from_counts({"sky": 9, "sea & sand": 7, "boat_1": 5, "tree": 4})


def make_predictions(seed, num_images=40, paths=False):
    rng = np.random.default_rng(seed)
    labels = (np.random.default_rng(0).random((num_images, 4)) < 0.4).astype(np.uint8)  # one truth for all
    scores = 0.5 * labels + rng.random((num_images, 4))
    ids, known = [str(i) for i in range(num_images)], np.ones_like(labels)
    if not paths:
        return Predictions.from_scores(ids, labels, known, scores)
    order, lengths = np.argsort(-scores, axis=1), rng.integers(0, 5, num_images)
    return Predictions(ids, labels, known, order, lengths, np.zeros(num_images), scores)


def make_outcome(method, seed, paths=False, protocols=None, min_length=0, **changes):
    metrics = evaluate_predictions(
        make_predictions(seed, paths=paths),
        make_predictions(seed + 100),
        protocols or choose_protocols("ponds"),
        VOCABULARY,
    )
    return Outcome(method, method.upper(), {**metrics, **changes}, min_length)


@pytest.fixture(scope="module")
def comparison():
    outcomes = [make_outcome("rnn", seed, paths=True) for seed in range(3)]
    return compare_outcomes("ponds", [*outcomes, make_outcome("svm", 7)])


def find_row(comparison, block, title, lists=None):
    rows = next(found.rows for found in comparison.blocks if found.name == block)
    return next(row for row in rows if row.title == title and (lists is None or row.lists == lists))


# ---- spreads and blocks


def test_a_spread_is_the_mean_and_the_sample_standard_deviation():
    spread = Spread.of([0.2, 0.4, 0.9])
    assert spread.mean == pytest.approx(0.5)
    assert spread.deviation == pytest.approx((0.13) ** 0.5)  # (0.09 + 0.01 + 0.16) / 2
    assert Spread.of([0.25]).deviation is None


def test_each_kind_of_list_has_a_block_of_its_own_in_the_order_of_tables(comparison):
    assert [block.name for block in comparison.blocks][:3] == ["exactly 3", "at most 3", "free length"]
    assert [row.title for row in comparison.blocks[0].rows] == ["RNN", "SVM"]


def test_a_row_sums_up_the_same_lists_of_every_seed(comparison):
    values = [
        next(
            row for row in make_outcome("rnn", seed, paths=True).metrics["rows"] if row["name"] == "exactly 3"
        )
        for seed in range(3)
    ]
    found = find_row(comparison, "exactly 3", "RNN").measures["O-F1"]
    assert found.values == tuple(row["O-F1"] for row in values)
    assert found.mean == pytest.approx(np.mean(found.values), abs=1e-12)
    assert find_row(comparison, "exactly 3", "SVM").measures["O-F1"].deviation is None


@pytest.mark.parametrize(("min_length", "block"), [(0, "at most 3"), (2, "at most 3"), (3, "exactly 3")])
def test_the_first_labels_of_a_path_are_exactly_as_many_as_its_minimum_promises(min_length, block):
    found = compare_outcomes("ponds", [make_outcome("rnn", 0, paths=True, min_length=min_length)])
    assert find_row(found, block, "RNN", "best path, first 3").measures["O-F1"] is not None
    assert find_row(found, "free length", "RNN", "best path").measures["O-F1"] is not None


def test_numbers_of_other_images_or_protocols_are_not_put_into_one_table():
    ours = make_outcome("rnn", 0)
    with pytest.raises(UserError, match="SVM was measured on another protocols than RNN"):
        compare_outcomes("ponds", [ours, make_outcome("svm", 1, protocols=protocol("asl", "ponds"))])
    with pytest.raises(UserError, match="another images than RNN"):
        compare_outcomes("ponds", [ours, make_outcome("svm", 1, images=39)])
    with pytest.raises(UserError, match="one method at least"):
        compare_outcomes("ponds", [])


def test_an_undefined_measure_stays_undefined(comparison):
    outcome = make_outcome("svm", 1)
    outcome.metrics["ranking"]["MAP@10_truncated"] = None
    found = compare_outcomes("ponds", [outcome])
    assert find_row(found, "exactly 3", "SVM").measures["MAP@10_truncated"] is None
    assert " - " in to_markdown(found)


# ---- the tables


PUBLISHED = (
    PublishedRow("coco2014", "Softmax", {"C-P": "31.7", "O-F1": "53.0"}, "table 1"),
    PublishedRow("ponds", "Metric learning", {"O-F1": "21.3"}, "table 1", citation=19),
)


def test_the_terminal_shows_means_deviations_and_published_rows(comparison):
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(render(comparison, PUBLISHED))
    text = console.export_text()
    spread = find_row(comparison, "at most 3", "RNN", "at most 3").measures["C-P"]
    assert f"{100 * spread.mean:.1f}±{100 * spread.deviation:.1f}" in text
    assert "RNN, best path" in text and "published" in text
    assert any("Metric learning*" in line and "21.3" in line for line in text.splitlines())
    assert "* Metric learning: The table cites another paper" in text
    assert "Softmax: lists of exactly 3 labels." in text


def test_a_published_number_that_cannot_be_right_is_marked_in_every_form(comparison):
    row = next(row for row in PUBLISHED_ROWS if (row.dataset, row.method) == ("coco2014", "WARP"))
    for text in (to_markdown(comparison, [row]), to_latex(comparison, [row]), to_csv(comparison, [row])):
        assert "O-F1" in text and "which it cannot be" in text
    assert "WARP*" in to_markdown(comparison, [row])


def test_a_pipe_gets_a_line_for_each_row(comparison, capsys):
    print_methods(comparison, PUBLISHED)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("RNN, best path") for line in lines) == 2
    assert sum("own thresholds" in line and "length" in line for line in lines) == 1
    assert sum("has the highest O-F1" in line for line in lines) >= 2


def test_csv_holds_unrounded_numbers(comparison):
    rows = list(csv.DictReader(io.StringIO(to_csv(comparison, PUBLISHED))))
    found = next(row for row in rows if row["block"] == "exactly 3" and row["method"] == "rnn")
    spread = find_row(comparison, "exactly 3", "RNN").measures["O-F1"]
    assert float(found["O-F1 mean"]) == pytest.approx(100 * spread.mean, rel=1e-7)
    assert float(found["O-F1 deviation"]) == pytest.approx(100 * spread.deviation, rel=1e-5)
    assert (found["seeds"], found["lists"]) == ("3", "exactly 3")
    assert next(row for row in rows if row["title"] == "Softmax")["C-P mean"] == "31.7"


def test_markdown_has_as_many_cells_in_every_line_of_a_table(comparison):
    lines = [line for line in to_markdown(comparison, PUBLISHED).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert sum(line.startswith("|---") for line in lines) == len(comparison.blocks) + 1


def test_latex_has_as_many_cells_in_every_line_and_its_signs_escaped(comparison):
    found = [*PUBLISHED, PublishedRow("ponds", "R&D_50%", {"O-F1": "50.0"}, "table 1")]
    text = to_latex(comparison, found)
    lines = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.replace(r"\&", "").count("&") for line in lines} == {len(comparison.columns) + 1}
    assert r"R\&D\_50\%" in text and r"$\pm$" in text and "±" not in text.partition(r"\begin")[2]
