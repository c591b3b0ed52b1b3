"""The report on a hand-worked data set: counts, dead labels, pairs, the ceilings that short lists allow."""

import itertools
import json

import numpy as np
import pytest
from drawn_source import DrawnSource, draw

from tfrecords.build import build
from tfrecords.report import count_pairs, find_ceilings, read_truth, summarize
from tfrecords.report_tables import render
from tfrecords.vocabulary import LabelVocabulary

# 40 images of a sunny beach, 30 of a night, 20 of the sea by night, 10 of nothing.
TRAIN = (
    [draw(f"beach{i}", "sea", "sun", "sand") for i in range(40)]
    + [draw(f"night{i}", "moon", ignored=("sea",)) for i in range(30)]
    + [draw(f"both{i}", "sea", "moon") for i in range(20)]
    + [draw(f"none{i}") for i in range(10)]
)
TEST = [draw("t1", "sea", "sun", "sand", "whale"), draw("t2", "moon"), draw("t3")]


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    rows = [{"name": "best set", "O-F1": 0.918, "exact_match": 0.7}]
    source = DrawnSource({"train": TRAIN, "test": TEST}, label_names=("ufo",), reference_rows=rows)
    build(source, "coast", data_dir, workers=1, progress=False)
    return data_dir / "coast"


@pytest.fixture(scope="module")
def summary(dataset_dir):
    return summarize(dataset_dir, k=3)


def test_each_split_is_counted(summary):
    train, test = summary["splits"]["train"], summary["splits"]["test"]
    assert (train["num_images"], train["num_positives"]) == (100, 40 * 3 + 30 + 20 * 2)
    assert train["labels_per_image"] == {
        "mean": 1.9,
        "min": 0,
        "max": 3,
        "histogram": {"0": 10, "1": 30, "2": 20, "3": 40},
    }
    assert train["untagged_share"] == pytest.approx(0.1)
    assert train["unknown_share"] == pytest.approx(30 / (100 * 6))
    assert test["labels_per_image"]["histogram"] == {"0": 1, "1": 1, "2": 0, "3": 0, "4": 1}


def test_labels_are_listed_by_rank_with_their_positives(summary):
    assert summary["labels"] == [
        {"name": "sea", "train": 60, "test": 1},
        {"name": "moon", "train": 50, "test": 1},
        {"name": "sand", "train": 40, "test": 1},
        {"name": "sun", "train": 40, "test": 1},
        {"name": "ufo", "train": 0, "test": 0},
        {"name": "whale", "train": 0, "test": 1},
    ]


def test_labels_without_a_positive_are_dead_in_that_split(summary):
    assert summary["splits"]["train"]["dead_labels"] == ["ufo", "whale"]
    assert summary["splits"]["test"]["dead_labels"] == ["ufo"]


def test_pairs_that_meet_are_ranked_by_lift(summary):
    # P(sand, sun) = 0.4, by chance 0.16: lift 2.5. P(sea, sand) = 0.4, by chance 0.24: lift 1.67.
    pairs = [(row["a"], row["b"], row["images"], round(row["lift"], 2)) for row in summary["together"]]
    assert pairs == [
        ("sand", "sun", 40, 2.5),
        ("sea", "sand", 40, 1.67),
        ("sea", "sun", 40, 1.67),
        ("sea", "moon", 20, 0.67),
    ]
    sea_and_moon = summary["together"][-1]
    assert sea_and_moon["P(b|a)"] == pytest.approx(20 / 60)
    assert sea_and_moon["P(a|b)"] == pytest.approx(20 / 50)
    assert sea_and_moon["expected"] == pytest.approx(30)


def test_pairs_that_never_meet_though_chance_would_join_them_exclude_each_other(summary):
    pairs = [(row["a"], row["b"], row["expected"]) for row in summary["exclusive"]]
    assert pairs == [("moon", "sand", 20.0), ("moon", "sun", 20.0)]  # and not ufo, which chance never joins


def test_pairs_are_counted_as_by_brute_force():
    rng = np.random.default_rng(0)
    positive = rng.random((20_000, 5)) < 0.3
    pairs = count_pairs(positive)
    expected = [
        (a, b, int((positive[:, a] & positive[:, b]).sum())) for a, b in itertools.combinations(range(5), 2)
    ]
    assert list(zip(pairs.a, pairs.b, pairs.together, strict=True)) == expected


def test_the_ceilings_of_the_test_split_are_as_worked_by_hand(summary):
    # Truth: 4, 1 and 0 labels. Lists of three hold 9, of which at best 3 + 1 + 0 are right; 5 are to find.
    ceilings = summary["splits"]["test"]["ceilings"]
    assert ceilings["exactly"] == pytest.approx({"O-P": 4 / 9, "O-R": 4 / 5, "O-F1": 8 / 14})
    assert ceilings["at_most"] == pytest.approx({"O-P": 1.0, "O-R": 4 / 5, "O-F1": 8 / 9})
    tagged = summary["splits"]["test"]["ceilings_of_tagged"]
    assert tagged["exactly"] == pytest.approx({"O-P": 4 / 6, "O-R": 4 / 5, "O-F1": 8 / 11})


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_no_lists_at_all_beat_the_ceilings(k):
    rng = np.random.default_rng(k)
    positive = rng.random((3, 4)) < 0.5
    unknown = ~positive & (rng.random((3, 4)) < 0.3)
    best = {"exactly": 0.0, "at_most": 0.0}
    for lists in itertools.product(itertools.product([False, True], repeat=4), repeat=3):
        listed = np.array(lists)
        size = listed.sum(axis=1)
        if (listed & unknown).any() or (size > k).any():
            continue
        f1 = 2 * (listed & positive).sum() / max(listed.sum() + positive.sum(), 1)
        best["at_most"] = max(best["at_most"], f1)
        if (size == np.minimum(k, 4 - unknown.sum(axis=1))).all():
            best["exactly"] = max(best["exactly"], f1)
    ceilings = find_ceilings(positive, unknown, k)
    assert {rule: scores["O-F1"] for rule, scores in ceilings.items()} == pytest.approx(best)


def test_ceilings_of_a_split_without_any_label_are_zero_and_not_an_error():
    nothing = np.zeros((3, 2), bool)
    assert find_ceilings(nothing, nothing, 3)["at_most"] == {"O-P": 0.0, "O-R": 0.0, "O-F1": 0.0}


def test_ceilings_of_an_image_with_all_labels_and_of_a_single_label():
    everything, nothing = np.ones((1, 5), bool), np.zeros((1, 5), bool)
    assert find_ceilings(everything, nothing, 3)["exactly"]["O-R"] == pytest.approx(3 / 5)
    assert find_ceilings(everything, nothing, 5)["exactly"]["O-F1"] == 1.0
    assert find_ceilings(np.array([[True], [False]]), np.zeros((2, 1), bool), 3)["exactly"]["O-P"] == 0.5
    assert len(count_pairs(np.ones((4, 1), bool)).a) == 0


def test_truth_is_read_from_the_records(dataset_dir):
    from tfrecords.manifest import Manifest

    vocabulary = LabelVocabulary.load(dataset_dir)
    positive, unknown = read_truth(dataset_dir, Manifest.load(dataset_dir), vocabulary, "train")
    assert positive.shape == unknown.shape == (100, 6)
    assert positive.sum(axis=0).tolist() == list(vocabulary.counts)
    assert unknown.sum(axis=0).tolist() == [30, 0, 0, 0, 0, 0]
    assert not (positive & unknown).any()


def test_the_summary_is_json(summary):
    assert json.loads(json.dumps(summary)) == summary


def test_the_text_shows_every_section(summary):
    text = render(summary)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    held_out = summary["splits"]["train"]["num_held_out"]
    assert f"train 100 {held_out} 0 190 1.90 0 3 10.0 % 5.0 %" in lines
    assert "sea 60 60.0 % 1 33.3 %" in lines
    assert "sand sun 40 16.0 2.50 100.0 % 100.0 %" in lines
    assert "moon sand 20.0" in lines
    assert "test exactly 3 44.4 % 80.0 % 57.1 %" in lines
    assert "test, tagged images at most 3 100.0 % 80.0 % 88.9 %" in lines
    assert "best set 91.8 % 70.0 %" in lines
    assert "Dead in train (2 labels without a positive): ufo, whale" in lines
    assert max(map(len, text.splitlines())) <= 100


def test_long_tables_are_cut_and_say_so(summary):
    text = render(summary, max_rows=2)
    assert "Labels, the 2 most frequent of 6" in text
    assert "2 and more" in text
    assert "sand" not in text.split("Labels, the 2")[1].split("Labels that go")[0]
