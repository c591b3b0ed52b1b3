"""The audit of published rows: the four F1s that cannot follow, the lengths of lists, and random tables."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from shared_data import SHARED

from cnnrnn_tf.commands.__main__ import main as cnnrnn
from cnnrnn_tf.evaluation.audit import Interval, audit_published, audit_row, read_row
from cnnrnn_tf.evaluation.prediction_files import PredictionFile
from cnnrnn_tf.evaluation.predictions import Predictions
from cnnrnn_tf.evaluation.protocol_comparison import measure
from cnnrnn_tf.evaluation.published import LABELS_PER_IMAGE, PUBLISHED, VOC_CLASSES
from cnnrnn_tf.evaluation.report import find_row
from tfrecords.errors import UserError
from tfrecords.vocabulary import LabelVocabulary

NUSWIDE = SHARED / "data" / "nuswide"
ROW = "C-P 40.5 C-R 30.4 C-F1 34.7 O-P 49.9 O-R 61.7 O-F1 55.2"


def find(dataset, method):
    return next(audit for row, audit in audit_published() if (row.dataset, row.method) == (dataset, method))


# ---- the paper's tables


def test_exactly_four_f1s_of_the_paper_cannot_follow_from_their_precision_and_recall():
    wrong = {
        (row.dataset, row.method, finding.about, row.measures[finding.about])
        for row, audit in audit_published()
        for finding in audit.findings
        if not finding.ok
    }
    assert wrong == {
        ("coco2014", "WARP", "O-F1", "60.7"),
        ("coco2014", "No RNN", "C-F1", "59.3"),
        ("coco2014", "No RNN", "O-F1", "65.7"),
        ("nuswide1000", "DLSR", "O-F1", "22.4"),
    }


@pytest.mark.parametrize(
    ("dataset", "method", "about", "follows"),
    [  # 2PR/(P + R) at P and R half a digit lower and half a digit higher
        ("coco2014", "WARP", "O-F1", "60.54 to 60.64"),
        ("coco2014", "No RNN", "C-F1", "59.36 to 59.46"),
        ("coco2014", "No RNN", "O-F1", "64.65 to 64.75"),
        ("nuswide1000", "DLSR", "O-F1", "22.17 to 22.27"),
    ],
)
def test_the_words_say_what_would_follow(dataset, method, about, follows):
    (words,) = (finding.words for finding in find(dataset, method).findings if finding.about == about)
    assert follows in words


@pytest.mark.parametrize(
    ("dataset", "method", "ratio"),
    [
        ("nuswide81", "KNN", "0.803"),  # 42.9/53.4
        ("nuswide81", "Softmax", "0.803"),  # 47.8/59.5
        ("nuswide81", "WARP", "0.803"),  # 48.6/60.5
        ("coco2014", "Softmax", "0.969"),  # 60.2/62.1
        ("coco2014", "CNN-RNN", "1.042"),  # 69.2/66.4
        ("nuswide1000", "Softmax", "0.594"),  # 17.1/28.8, so 5.9 tags an image
    ],
)
def test_the_ratio_of_precision_to_recall_is_that_of_true_to_predicted_labels(dataset, method, ratio):
    found = find(dataset, method).ratio
    row = next(row for row in PUBLISHED if (row.dataset, row.method) == (dataset, method))
    middle = Fraction(row.measures["O-P"]) / Fraction(row.measures["O-R"])
    assert f"{float(middle):.3f}" == ratio
    assert found.low < middle < found.high and found.high - found.low < Fraction(6, 1000)


def test_lists_of_the_baselines_have_three_labels_and_those_of_the_paper_fewer():
    for method in ("KNN", "Softmax", "WARP"):
        lists = find("nuswide81", method).list_length
        assert lists.low < 3 < lists.high
        # Lists of 3 imply 2.412 labels an image; all 107,859 images would have 1.876.
        labels = find("nuswide81", method).labels_per_image
        assert labels.low < Fraction("2.412") < labels.high
    paper = find("nuswide81", "CNN-RNN")
    assert f"{float(paper.ratio.low):.3f} {float(paper.ratio.high):.3f}" == "0.807 0.810"
    middle = LABELS_PER_IMAGE["nuswide81"].mean * Fraction("61.7") / Fraction("49.9")
    assert f"{float(middle):.2f}" == "2.98"
    assert paper.list_length.low < middle < paper.list_length.high < 3
    assert f"{float(find('nuswide1000', 'Softmax').labels_per_image.low):.1f}" == "5.9"
    graph = find("nuswide81", "Multi-edge graph").list_length
    assert graph.high < Fraction("2.6")  # no lists of 3 on these images, so numbers from elsewhere


def test_labels_an_image_are_the_counts_of_the_ground_truth():
    fact = LABELS_PER_IMAGE["nuswide81"]
    assert (fact.images, fact.positives) == (83_898, 202_389)
    assert f"{float(fact.mean):.3f}" == "2.412"
    assert f"{202_389 / 107_859:.3f}" == "1.876"


@pytest.mark.long
@pytest.mark.skipif(not NUSWIDE.is_dir(), reason="needs NUS-WIDE's label files: set CNNRNN_SHARED")
def test_labels_an_image_and_the_protocol_of_the_paper_hold_on_the_real_ground_truth():
    """Lists of the three most frequent concepts: O-P/O-R is 0.804 over tagged images, and 0.625 over all."""
    files = sorted((NUSWIDE / "Groundtruth" / "TrainTestLabels").glob("Labels_*_Test.txt"))
    columns = {file.stem.split("_")[1]: np.array(file.read_text().split(), np.uint8) for file in files}
    labels = np.stack(list(columns.values()), axis=1)
    tagged = labels.any(axis=1)
    fact = LABELS_PER_IMAGE["nuswide81"]
    assert (len(columns), tagged.sum(), labels.sum()) == (81, fact.images, fact.positives)
    scores = np.zeros(labels.shape, np.float32)
    for rank, name in enumerate(("sky", "clouds", "person")):
        scores[:, list(columns).index(name)] = 3 - rank
    vocabulary = LabelVocabulary.from_counts(dict.fromkeys(columns, 0))
    ids = [str(i) for i in range(len(labels))]
    predictions = Predictions.from_scores(ids, labels, np.ones_like(labels), scores)
    content = PredictionFile(predictions, vocabulary, "test", "nuswide81")
    ratios = []
    for name in ("cnn-rnn", "free"):
        row = find_row(measure(content, None, name), "exactly 3")
        ratios.append(row["O-P"] / row["O-R"])
        printed = {key: f"{100 * row[key]:.1f}" for key in ("O-P", "O-R", "O-F1")}
        assert audit_row(printed).can_be_right
        assert audit_row(printed).ratio.low <= ratios[-1] <= audit_row(printed).ratio.high
    assert ratios == pytest.approx([202_389 / 83_898 / 3, 202_389 / 107_859 / 3])


def test_every_row_of_the_tables_is_there():
    rows = {}
    for row in PUBLISHED:
        rows.setdefault(row.dataset, []).append(row)
    assert {name: len(found) for name, found in rows.items()} == {
        "nuswide81": 7, "nuswide1000": 4, "coco2014": 5, "voc2007": 5,
    }  # fmt: skip
    assert len(VOC_CLASSES) == 20
    for row in rows["voc2007"]:
        assert len(row.average_precisions) == 20
        mean = sum(map(Fraction, row.average_precisions)) / 20
        assert abs(mean - Fraction(row.measures["mAP"])) <= Fraction("0.1")
    assert {row.method for row in PUBLISHED if row.caveat} == {
        *("Metric learning", "Multi-edge graph", "KNN", "WARP", "Joint embedding", "DLSR"),
        *("INRIA", "CNN-SVM", "I-FT", "HCP-1000C"),
    }
    own = [row for row in PUBLISHED if row.method == "CNN-RNN"]
    assert len(own) == 4 and not any(row.caveat for row in own)


def test_an_ap_that_was_misprinted_is_found():
    row = next(row for row in PUBLISHED if row.dataset == "voc2007")
    wrong = type(row)("voc2007", "x", row.measures, "", None, ("87.2", *row.average_precisions[1:]))
    ((_, audit),) = audit_published([wrong])
    assert [finding.about for finding in audit.findings if not finding.ok] == ["mAP"]


# ---- any row


def test_no_row_of_true_counts_is_ever_called_wrong():
    """Rows measured on random tables, rounded, by both conventions: the audit must let each pass."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        num_labels = int(rng.integers(1, 8))
        truth = rng.random((int(rng.integers(1, 30)), num_labels)) < rng.choice([0.1, 0.5, 0.9])
        predicted = np.where(rng.random(truth.shape) < 0.7, truth, rng.random(truth.shape) < 0.3)
        if not truth.any() or not predicted.any():
            continue
        hits, never = truth & predicted, int(rng.integers(2))
        found, listed, true = (table.sum(axis=0) for table in (hits, predicted, truth))
        measured = true > 0
        precision = np.where(listed > 0, found / np.maximum(listed, 1), never)[measured]
        recall, f1 = (found / np.maximum(true, 1))[measured], (2 * found / (listed + true + 1e-300))[measured]
        c_p, c_r = precision.mean(), recall.mean()
        o_p, o_r = hits.sum() / predicted.sum(), hits.sum() / truth.sum()
        o_f1 = 2 * hits.sum() / (predicted.sum() + truth.sum())
        harmonic = 2 * c_p * c_r / (c_p + c_r) if c_p + c_r else 0.0
        digits = int(rng.integers(0, 3))
        for convention, c_f1 in (("harmonic", harmonic), ("per_class", f1.mean())):
            values = {"C-P": c_p, "C-R": c_r, "C-F1": c_f1, "O-P": o_p, "O-R": o_r, "O-F1": o_f1}
            row = {name: f"{100 * value:.{digits}f}" for name, value in values.items()}
            labels = Fraction(int(truth.sum()), len(truth))
            audit = audit_row(row, Interval(labels, labels), c_f1=convention)
            assert audit.can_be_right, row
            assert convention in audit.c_f1_fits
            assert audit_row(row).can_be_right
            if audit.list_length is not None:
                lists = Fraction(int(predicted.sum()), len(truth))
                assert audit.list_length.low <= lists <= audit.list_length.high


@pytest.mark.parametrize(
    ("c_f1", "fits"),
    [
        ("34.7", ("harmonic", "per_class")),  # 2 * 40.5 * 30.4/70.9 = 34.73
        ("34.8", ("harmonic", "per_class")),  # 34.78 at the most, which rounds to it
        ("34.9", ()),  # no mean of F1s lies above the harmonic mean
        ("34.5", ("per_class",)),
        ("0.0", ("per_class",)),
        ("35", ("harmonic", "per_class")),  # 34.5 to 35.5
    ],
)
def test_which_c_f1_fits(c_f1, fits):
    found = audit_row({"C-P": "40.5", "C-R": "30.4", "C-F1": c_f1})
    assert found.c_f1_fits == fits and found.can_be_right == bool(fits)


def test_high_precision_and_recall_leave_the_mean_of_f1s_a_lower_bound():
    # Of labels with precision 0.9 and recall 0.8 on average, 0.7 have both: 69.9 at half a digit less.
    assert audit_row({"C-P": "90.0", "C-R": "80.0", "C-F1": "69.9"}).c_f1_fits == ("per_class",)
    found = audit_row({"C-P": "90.0", "C-R": "80.0", "C-F1": "69.8"})
    assert not found.can_be_right and "lies below both" in found.findings[0].words


def test_a_convention_that_is_known_is_held_to():
    row = {"C-P": "65.3", "C-R": "54.5", "C-F1": "59.3"}
    assert audit_row(row).can_be_right and audit_row(row, c_f1="per_class").can_be_right
    assert not audit_row(row, c_f1="harmonic").can_be_right


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ({"O-F1": "21.3"}, True),  # nothing to hold it against
        ({"O-P": "20.0", "O-F1": "33.3"}, True),  # O-R of 100 gives 33.33
        ({"O-P": "20.0", "O-F1": "34.0"}, False),
        ({"C-R": "20.0", "C-F1": "34.0"}, False),
        ({"O-P": "0.0", "O-R": "0.0", "O-F1": "0.0"}, True),
        ({"O-P": "100.0", "O-R": "100.0", "O-F1": "100.0"}, True),
        ({"O-P": "100", "O-R": "100", "O-F1": "98"}, False),  # 99.5 at least
        ({"MAP@10": "40.3", "mAP": "84.0"}, True),
    ],
)
def test_rows_with_gaps_and_at_the_ends(row, right):
    assert audit_row(row).can_be_right == right


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("40.5", "40.45", "40.55"), ("40", "39.5", "40.5"), ("2.412", "2.4115", "2.4125"), ("0.0", "0", "0.05")],
)
def test_a_printed_number_stands_for_all_that_round_to_it(text, low, high):
    assert Interval.read(text) == Interval(Fraction(low), Fraction(high))


@pytest.mark.parametrize(
    "text",
    ["C-P 40.5 C-R 30.4", "C-P=40.5,C-R=30.4", "| C-P: 40.5 % | C-R: 30.4 % |", "C-P\t40.5\nC-R\t30.4"],
)
def test_a_row_may_be_pasted_as_it_stands(text):
    assert read_row(text) == {"C-P": "40.5", "C-R": "30.4"}


# ---- the command


@pytest.mark.parametrize(
    ("words", "status", "lines"),
    [
        (["--row", ROW, "--labels-per-image", "2.412"], 0, ["0.8073 to 0.8102", "2.976 to 2.988 labels"]),
        (
            ["--row", ROW, "--dataset", "nuswide81"],
            0,
            ["2.977 to 2.988", "nothing in the row contradicts itself"],
        ),
        (
            ["--row", ROW, "--dataset", "coco2014"],
            0,
            ["labels an image are not known for coco2014; give --labels-per-image", "0.8073 to 0.8102"],
        ),
        (["--row", "O-P 17.1 O-R 28.8", "--dataset", "nuswide1000"], 0, ["5.910 to 5.965 true", "nothing"]),
        (["--row", "O-P 68.5 O-R 61.3 O-F1 65.7"], 1, ["WRONG O-F1", "the row cannot be right: O-F1"]),
        (["--row", "C-P 65.3 C-R 54.5 C-F1 59.3"], 0, ["so that it can be that"]),
        (["--row", "C-P 65.3 C-R 54.5 C-F1 59.3", "--c-f1", "harmonic"], 1, ["cannot be right: C-F1"]),
        (["--row", "MAP@10 40.3"], 0, ["nothing to check"]),
        (["--published"], 0, ["4 numbers cannot be right", "Multi-edge graph [23]", "another split"]),
    ],
)
def test_the_command_says_it_and_its_status_too(words, status, lines, capsys):
    assert cnnrnn(["audit", *words]) == status
    out = capsys.readouterr().out
    for line in lines:
        assert line in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --row"),
        (["--row", ROW, "--published"], "and not both"),
        (["--row", ""], "an empty row: expected names and numbers"),
        (["--row", "CP 40.5"], "unknown measure 'CP' (did you mean 'C-P'?)"),
        (["--row", "40.5 30.4"], "unknown measure '40.5'"),
        (["--row", "C-P"], "C-P must be followed by its number in percent"),
        (["--row", "C-P C-R 30.4"], "C-P must be followed by its number in percent, such as 40.5, got 'C-R'"),
        (["--row", "C-P 40.5 C-P 40.5"], "C-P is twice in the row"),
        (["--row", "C-P 140.5"], "C-P 140.5: expected percent, 0 to 100"),
        (["--row", "C-P -4"], "got '-4'"),
        (["--row", "O-P 0.499 O-R 0.617"], "look like fractions; write percent"),
        (["--row", ROW, "--labels-per-image", "many"], "--labels-per-image 'many': expected a plain decimal"),
        (["--row", ROW, "--labels-per-image", "2", "--dataset", "nuswide81"], "say the same thing"),
        (["--row", ROW, "--dataset", "nuswide"], "did you mean 'nuswide81'?"),
        (["--published", "--dataset", "nuswide81"], "leave the other flags out"),
        (["--row", ROW, "--c-f1", "macro"], "--c-f1 macro: no such choice"),
    ],
)  # fmt: skip
def test_malformed_rows_end_with_one_line_and_status_2(words, message, capsys):
    assert cnnrnn(["audit", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_number_that_is_no_percentage_is_refused():
    with pytest.raises(UserError, match="O-P 101: expected percent, 0 to 100"):
        audit_row({"O-P": "101"})
    with pytest.raises(UserError, match="must be harmonic or per_class, got 'macro'"):
        audit_row({}, c_f1="macro")


def test_the_audit_needs_no_tensorflow():
    code = (
        "import sys; sys.modules.update(tensorflow=None, keras=None)\n"
        "from cnnrnn_tf.commands.__main__ import main; sys.exit(main(['audit', '--published']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0 and "4 numbers" in ended.stdout, ended.stderr
