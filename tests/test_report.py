"""The report on hand-worked data sets: counts, dead labels, pairs, image sizes, ceilings of short lists."""

import itertools
import json

import numpy as np
import pytest
from drawn_source import DrawnSource, draw, read_records
from PIL import Image, ImageOps

from cnnrnn_tf.evaluation.metrics import SetMeasures
from tfrecords import report_ceilings, report_records
from tfrecords.annotations import Annotation
from tfrecords.build import build
from tfrecords.report import count_pairs, count_together, find_ceilings, read_contents, read_truth, summarize
from tfrecords.report_ceilings import fill, list_every, list_rarest
from tfrecords.report_tables import render
from tfrecords.sources.table import TableSource
from tfrecords.verify import verify
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
    assert count_together(positive).diagonal().tolist() == positive.sum(axis=0).tolist()


# ---- ceilings


def test_the_ceilings_of_the_test_split_are_as_worked_by_hand(summary):
    # Truth: sea sun sand whale | moon | nothing. Lists of three hold 9, of which 3 + 1 + 0 are right; 5 are
    # to find. Each of the five labels is on one image, so one of the first four is missed: C-R 4/5. Wrong
    # labels: 2 on the second image and 3 on the third. There ufo (no positive) and the missed one cost
    # nothing; one more is needed on the third, right once and wrong once. C-P (1 + 1 + 1 + 1/2 + 0) / 5.
    ceilings = summary["splits"]["test"]["ceilings"]
    exactly = {"O-P": 4 / 9, "O-R": 4 / 5, "O-F1": 8 / 14, "C-P": 3.5 / 5, "C-R": 4 / 5, "C-F1": 5.6 / 7.5}
    assert ceilings["exactly"] == pytest.approx(exactly)
    at_most = {"O-P": 1.0, "O-R": 4 / 5, "O-F1": 8 / 9, "C-P": 4 / 5, "C-R": 4 / 5, "C-F1": 4 / 5}
    assert ceilings["at_most"] == pytest.approx(at_most)
    # Without the third image nothing has to be wrong but ufo and the label that is missed anyway.
    tagged = summary["splits"]["test"]["ceilings_of_tagged"]
    exactly = {"O-P": 4 / 6, "O-R": 4 / 5, "O-F1": 8 / 11, "C-P": 4 / 5, "C-R": 4 / 5, "C-F1": 4 / 5}
    assert tagged["exactly"] == pytest.approx(exactly)


def test_of_more_than_k_true_labels_the_rarest_are_listed():
    positive = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    assert list_rarest(positive, 2).tolist() == [[3, 2], [2, 1], [1, 0], [0, -1], [-1, -1]]
    assert list_rarest(positive, 9).tolist()[:2] == [[3, 2, 1, 0], [2, 1, 0, -1]]


def test_a_label_that_is_never_among_the_rarest_is_listed_once():
    # sky is on all four images, each time beside a rarer label; one of sea's two places is given to it.
    positive = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]], bool)
    rarest = list_rarest(positive, 1)
    assert rarest.tolist() == [[1], [1], [2], [3]]
    assert list_every(rarest, positive).tolist() == [[0], [1], [2], [3]]
    # C-R of the rarest: (0 + 2/2 + 1 + 1) / 4. C-P of the others: 1; they have C-R (1/4 + 1/2 + 1 + 1) / 4.
    found = find_ceilings(positive, np.zeros_like(positive), 1)["at_most"]
    recall = 2.75 / 4
    assert found == pytest.approx(
        {"O-P": 1, "O-R": 4 / 8, "O-F1": 8 / 12, "C-P": 1, "C-R": 3 / 4, "C-F1": 2 * recall / (1 + recall)}
    )


def test_an_only_hit_is_not_given_away():
    positive = np.array([[1, 1], [0, 0]], bool)
    rarest = list_rarest(positive, 1)
    assert list_every(rarest, positive).tolist() == rarest.tolist() == [[1], [-1]]


def test_wrong_labels_gather_where_they_cost_mean_precision_least():
    # Nine images of a, the first of b too, and one of c. Lists of two lack an entry on nine images, and b can
    # take all: right once, wrong nine times. With c and a instead: (9/10 + 1 + 1/9) / 3, which is less.
    positive = np.array([[1, 1, 0]] + [[1, 0, 0]] * 8 + [[0, 0, 1]], bool)
    nothing = np.zeros_like(positive)
    lists = fill(list_rarest(positive, 2), positive, nothing)
    assert lists.tolist() == [[1, 0]] + [[0, 1]] * 8 + [[2, 1]]
    assert find_ceilings(positive, nothing, 2)["exactly"]["C-P"] == pytest.approx((1 + 1 / 10 + 1) / 3)


def test_where_few_lists_are_short_the_frequent_label_takes_the_wrong_entries():
    # Two images of a and b, seven of b and c, one of d alone: one wrong entry in all, and it is b's tenth.
    positive = np.array([[1, 1, 0, 0]] * 2 + [[0, 1, 1, 0]] * 7 + [[0, 0, 0, 1]], bool)
    found = find_ceilings(positive, np.zeros_like(positive), 2)["exactly"]
    assert found["C-P"] == pytest.approx((1 + 9 / 10 + 1 + 1) / 4)


def test_a_label_without_a_positive_takes_wrong_entries_for_nothing_and_an_unknown_one_takes_none():
    positive = np.array([[1, 0, 0], [0, 1, 0]], bool)
    nothing = np.zeros_like(positive)
    assert fill(list_rarest(positive, 2), positive, nothing).tolist() == [[0, 2], [1, 2]]
    unknown = np.array([[0, 0, 1], [0, 0, 0]], bool)
    assert fill(list_rarest(positive, 2), positive, unknown).tolist() == [[0, 1], [1, 2]]
    all_unknown = ~positive  # nothing else is known: lists stay short
    assert fill(list_rarest(positive, 2), positive, all_unknown).tolist() == [[0, -1], [1, -1]]


def measure(listed, positive, unknown):
    """The six scores of lists `<bool>[images, labels]`, by the measures that models are judged with."""
    measures = SetMeasures(positive.shape[1])
    measures.update_state(np.where(unknown, -1.0, positive), listed.astype(np.float32))
    found = {name: float(value) for name, value in measures.result().items()}
    return {
        **{name: found[name] for name in ("O-P", "O-R", "O-F1", "C-P", "C-R")},
        "C-F1": found["C-F1_harmonic"],
    }


def mark(lists, num_labels):
    listed = np.zeros((len(lists), num_labels), bool)
    for row, labels in enumerate(lists.tolist()):
        listed[row, [label for label in labels if label >= 0]] = True
    return listed


def draw_truth(seed, shape, most_true=0.6):
    rng = np.random.default_rng(seed)
    positive = rng.random(shape) < rng.random(shape[1]) * most_true
    return positive, ~positive & (rng.random(shape) < 0.15)


@pytest.mark.parametrize(("seed", "k"), [(0, 1), (1, 2), (2, 3), (3, 5), (4, 12), (5, 20)])
def test_ceilings_are_the_scores_of_real_lists_by_the_measures_that_models_are_judged_with(seed, k):
    positive, unknown = draw_truth(seed, (300, 12), most_true=0.3)
    positive[:, 3], unknown[:, 5] = False, ~positive[:, 5]
    num_known = 12 - unknown.sum(axis=1)
    rarest = list_rarest(positive, k)
    ceilings = find_ceilings(positive, unknown, k)
    for rule in ("exactly", "at_most"):
        found = []
        for lists in (rarest, list_every(rarest, positive)):
            listed = mark(fill(lists, positive, unknown) if rule == "exactly" else lists, 12)
            assert not (listed & unknown).any()
            right_size = np.minimum(k, num_known if rule == "exactly" else positive.sum(axis=1))
            assert listed.sum(axis=1).tolist() == right_size.tolist()
            found.append(measure(listed, positive, unknown))
        assert ceilings[rule] == pytest.approx(
            {name: max(scores[name] for scores in found) for name in found[0]}
        )
        assert ceilings[rule]["C-R"] == pytest.approx(found[0]["C-R"])


def list_all(positive, unknown, k, exact):
    """Every way to give each image a list, `<bool>[ways, images, labels]`."""
    num_images, num_labels = positive.shape
    subsets = np.array(list(itertools.product([False, True], repeat=num_labels)))
    size = subsets.sum(axis=1)
    choices = []
    for row in range(num_images):
        longest = min(k, num_labels - unknown[row].sum())
        fits = (size == longest) if exact else (size <= longest)
        choices.append(subsets[fits & ~(subsets & unknown[row]).any(axis=1)])
    return np.array(list(itertools.product(*choices)))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_no_lists_at_all_beat_the_maxima_and_class_precision_is_within_reach(seed, k):
    positive, unknown = draw_truth(seed, (4, 4), most_true=1.2)
    ceilings = find_ceilings(positive, unknown, k)
    for rule, exact in (("exactly", True), ("at_most", False)):
        listed = list_all(positive, unknown, k, exact)
        hits, sizes, truth = (listed & positive).sum(axis=1), listed.sum(axis=1), positive.sum(axis=0)
        measured = truth > 0
        precision = np.mean((hits / np.maximum(sizes, 1))[:, measured], axis=1)
        recall = np.mean((hits / np.maximum(truth, 1))[:, measured], axis=1)
        best = {
            "O-P": np.max(hits.sum(axis=1) / np.maximum(sizes.sum(axis=1), 1)),
            "O-R": np.max(hits.sum(axis=1)) / truth.sum(),
            "O-F1": np.max(2 * hits.sum(axis=1) / (sizes.sum(axis=1) + truth.sum())),
            "C-R": recall.max(),
        }
        assert {name: ceilings[rule][name] for name in best} == pytest.approx(best)
        assert ceilings[rule]["C-P"] <= precision.max() + 1e-9
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        assert ceilings[rule]["C-F1"] <= f1.max() + 1e-9
        # The lists are not the best in C-P and C-F1, but near it even where a single entry weighs this much.
        assert ceilings[rule]["C-P"] >= precision.max() - 0.2
        assert ceilings[rule]["C-F1"] >= f1.max() - 0.2


def test_ceilings_of_a_split_without_any_label_are_zero_and_not_an_error():
    nothing = np.zeros((3, 2), bool)
    zero = {"O-P": 0.0, "O-R": 0.0, "O-F1": 0.0, "C-P": 0.0, "C-R": 0.0, "C-F1": 0.0}
    assert find_ceilings(nothing, nothing, 3) == {"exactly": zero, "at_most": zero}


def test_ceilings_of_an_image_with_all_labels_and_of_a_single_label():
    everything, nothing = np.ones((1, 5), bool), np.zeros((1, 5), bool)
    found = find_ceilings(everything, nothing, 3)["exactly"]
    assert (found["O-R"], found["C-R"], found["C-P"]) == pytest.approx((3 / 5, 3 / 5, 3 / 5))
    assert set(find_ceilings(everything, nothing, 5)["exactly"].values()) == {1.0}
    single = find_ceilings(np.array([[True], [False]]), np.zeros((2, 1), bool), 3)["exactly"]
    assert (single["O-P"], single["C-P"], single["C-R"]) == (0.5, 0.5, 1.0)
    assert len(count_pairs(np.ones((4, 1), bool)).a) == 0


def test_ceilings_are_found_in_blocks_as_in_one(monkeypatch):
    positive, unknown = draw_truth(0, (100, 9))
    whole = find_ceilings(positive, unknown, 2)
    monkeypatch.setattr(report_ceilings, "_BLOCK", 7)
    assert find_ceilings(positive, unknown, 2) == whole


# ---- image sizes

FILES = {  # name: (format, width, height as stored, EXIF orientation)
    "a.jpg": ("JPEG", 300, 200, 1),
    "b.jpg": ("JPEG", 400, 250, 6),
    "c.jpg": ("JPEG", 500, 224, 3),
    "d.png": ("PNG", 90, 1000, None),
    "e.webp": ("WEBP", 223, 225, None),
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A data set of `FILES`, all for training; and the folder of the files."""
    folder = tmp_path_factory.mktemp("photographs")
    for i, (name, (file_format, width, height, orientation)) in enumerate(FILES.items()):
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        pixels = np.random.default_rng(i).integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name, file_format, exif=exif.tobytes() if orientation else b"")
    drawn = [draw("x", "sea"), draw("y", "sky")]
    rows = [Annotation(name, folder / name, ("sea", "sky")) for name in FILES]
    build(DrawnSource({"train": rows, "test": drawn}), "files", folder / "data", workers=1, progress=False)
    return folder


def test_image_sizes_are_those_that_pillow_sees_upright(photographs):
    contents = read_contents(photographs / "data" / "files")
    seen = []
    for name in FILES:
        with Image.open(photographs / name) as image:
            seen.append((*ImageOps.exif_transpose(image).size, (photographs / name).stat().st_size))
    records = contents.records["train"]
    found = zip(records.width.tolist(), records.height.tolist(), records.num_bytes.tolist(), strict=True)
    assert sorted(found) == sorted(seen)
    assert (250, 400) in {size[:2] for size in seen}  # b.jpg, turned by a quarter


def test_image_sizes_are_summed_up(photographs):
    sizes = summarize(photographs / "data" / "files")["splits"]["train"]["image_sizes"]
    files = [(photographs / name).stat().st_size for name in FILES]
    assert sizes == {
        "width_px": {"min": 90, "median": 250.0, "max": 500},
        "height_px": {"min": 200, "median": 225.0, "max": 1000},
        "file_bytes": {"min": min(files), "median": float(np.median(files)), "max": max(files)},
        "formats": {"jpeg": 3, "png": 1, "webp": 1},
        "turned_share": 2 / 5,
        "small_px": 224,
        "num_small": 3,  # a.jpg 200, d.png 90, e.webp 223; c.jpg is just large enough
    }


def test_records_are_read_in_batches_as_one_by_one(dataset_dir, monkeypatch):
    contents = read_contents(dataset_dir)
    monkeypatch.setattr(report_records, "_BATCH", 7)
    again = read_contents(dataset_dir)
    for split, records in contents.records.items():
        for name, values in vars(records).items():
            np.testing.assert_array_equal(getattr(again.records[split], name), values)
    by_hand = read_records(contents.manifest, dataset_dir, "train").values()
    truth = [record["image/class/label"].tolist() for record in by_hand]
    assert [np.flatnonzero(row).tolist() for row in contents.records["train"].positive] == truth


# ---- the truth, the text


def test_truth_is_read_from_the_records(dataset_dir):
    from tfrecords.manifest import Manifest

    vocabulary = LabelVocabulary.load(dataset_dir)
    positive, unknown = read_truth(dataset_dir, Manifest.load(dataset_dir), vocabulary, "train")
    assert positive.shape == unknown.shape == (100, 6)
    assert positive.sum(axis=0).tolist() == list(vocabulary.counts)
    assert unknown.sum(axis=0).tolist() == [30, 0, 0, 0, 0, 0]
    assert not (positive & unknown).any()


def test_the_same_picture_in_train_and_test_is_told_by_its_hash(tmp_path, capsys):
    for name, colour in (("a.png", "red"), ("b.png", "blue"), ("c.png", "red"), ("d.png", "lime")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    rows = ("a.png,sky;sea,train", "b.png,sky,train", "c.png,sea,test", "d.png,sea,test")
    (tmp_path / "labels.csv").write_text("image,labels,split\n" + "\n".join(rows))
    build(TableSource(tmp_path / "labels.csv"), "mine", tmp_path / "data", progress=False)
    summary = summarize(tmp_path / "data" / "mine")
    assert summary["shared_images"] == [{"a": "train", "b": "test", "images": 1}]
    told = "1 image of test is also in train, byte for byte: `python -m tfrecords verify` names one"
    assert told in render(summary)
    [note] = verify(tmp_path / "data" / "mine", progress=False).notes
    assert "c.png = a.png" in note


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
    assert "train width, px 8 8 8" in lines
    assert "train 100 0.0 % 100 100.0 %" in lines  # jpeg, turned, below 224 px
    assert "test exactly 3 70.0 % 80.0 % 74.7 % 44.4 % 80.0 % 57.1 %" in lines
    assert "test, tagged images at most 3 80.0 % 80.0 % 80.0 % 100.0 % 80.0 % 88.9 %" in lines
    assert "C-R are maxima. C-P and C-F1 (harmonic) are reached by lists of the rarest true" in text
    assert "best set 91.8 % 70.0 %" in lines
    assert "Dead in train (2 labels without a positive): ufo, whale" in lines
    assert max(map(len, text.splitlines())) <= 100


def test_long_tables_are_cut_and_say_so(summary):
    text = render(summary, max_rows=2)
    assert "Labels, the 2 most frequent of 6" in text
    assert "2 and more" in text
    assert "sand" not in text.split("Labels, the 2")[1].split("Labels that go")[0]


def test_names_that_look_like_markup_are_printed_as_they_are(summary):
    text = render({**summary, "labels": [{"name": "[b]sea[/b] :car:", "train": 60, "test": 1}]})
    assert "[b]sea[/b] :car:" in text
