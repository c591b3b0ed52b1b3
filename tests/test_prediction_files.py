"""Files of predictions: what is written is read back to the bit, by us or `json` alone; what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cnnrnn_tf.evaluation.prediction_files import PredictionFile, load_predictions, save_predictions
from cnnrnn_tf.evaluation.predictions import Predictions
from tfrecords.errors import UserError
from tfrecords.vocabulary import LabelVocabulary

VOCABULARY = LabelVocabulary(('sky, "blue"', "été", "sea"), (9, 6, 5))
# An ordinary image, one without labels, one with all, one of which something is unknown, one without a path.
PREDICTIONS = Predictions(
    image_ids=["a", "b/ü.jpg", "\udcff.jpg", "d", "e"],
    labels=[[1, 0, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0]],
    known=[[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 1, 1]],
    paths=[[2, 0, 3], [3, 3, 3], [0, 1, 2], [0, 1, 3], [3, 3, 3]],
    path_lengths=[2, 0, 3, 2, 0],
    path_log_probs=[-0.1, -1e-30, -3.25, -100.0, -np.inf],
    scores=[[0.1, 1 / 3, 1e-45], [-1.7e38, -np.inf, 3.4e38], [0, -0.0, 1], [1, 2, 3], [16777216, 0.3, 7]],
)
CONTENT = PredictionFile(PREDICTIONS, VOCABULARY, "test", "ponds", "f00d")

HEADER = {"format": "cnnrnn-predictions", "version": 1, "labels": ["sky", "sea", "bay"], "split": "test"}
IMAGES = [
    {"image": "a", "labels": ["sky"], "scores": [0.9, 0.2, 0.1]},
    {"image": "b", "labels": [], "unknown": ["bay"], "scores": [0.3, None, 1]},
]


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def bits(values):
    return values.view(np.uint32).tolist()


def test_predictions_are_read_back_to_the_bit(tmp_path):
    save_predictions(tmp_path / "run" / "predictions-test.jsonl", CONTENT)
    found = load_predictions(tmp_path / "run" / "predictions-test.jsonl")
    assert (found.split, found.dataset, found.records_fingerprint) == ("test", "ponds", "f00d")
    assert found.vocabulary == VOCABULARY
    again = found.predictions
    assert (again.image_ids, again.ranking_rule) == (PREDICTIONS.image_ids, PREDICTIONS.ranking_rule)
    assert bits(again.scores) == bits(PREDICTIONS.scores)
    assert bits(again.path_log_probs) == bits(PREDICTIONS.path_log_probs)
    for name in ("marks", "known", "path_lengths"):
        np.testing.assert_array_equal(getattr(again, name), getattr(PREDICTIONS, name))
    for i, length in enumerate(PREDICTIONS.path_lengths):
        np.testing.assert_array_equal(again.paths[i, :length], PREDICTIONS.paths[i, :length])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["predictions-test.jsonl"]


def test_every_float32_survives_nine_digits(tmp_path):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2**32, (400, 50), dtype=np.uint32).view(np.float32)
    scores[~np.isfinite(scores)] = -np.inf
    ends = np.array([np.finfo(np.float32).max, np.finfo(np.float32).tiny, 1e-45, 1 + 2**-23], np.float32)
    scores[0, :8] = np.concatenate([ends, -ends])
    vocabulary = LabelVocabulary.from_counts({f"{i:02}": 0 for i in range(50)})
    ids = [str(i) for i in range(400)]
    predictions = Predictions.from_scores(ids, np.zeros(scores.shape), np.ones(scores.shape), scores)
    save_predictions(tmp_path / "p.jsonl", PredictionFile(predictions, vocabulary, "test"))
    assert bits(load_predictions(tmp_path / "p.jsonl").predictions.scores) == bits(scores)


def test_json_alone_reads_the_file(tmp_path):
    save_predictions(tmp_path / "p.jsonl", CONTENT)
    with open(tmp_path / "p.jsonl", encoding="utf-8") as file:
        header, *images = (json.loads(line, parse_constant=pytest.fail) for line in file)
    assert header == {
        "format": "cnnrnn-predictions", "version": 1, "images": 5, "split": "test", "dataset": "ponds",
        "labels": list(VOCABULARY.names), "counts": [9, 6, 5], "records_fingerprint": "f00d",
        "vocabulary_fingerprint": VOCABULARY.fingerprint, "ranking_rule": PREDICTIONS.ranking_rule,
    }  # fmt: skip
    assert [image["image"] for image in images] == list(PREDICTIONS.image_ids)
    assert images[0]["labels"] == ['sky, "blue"', "sea"] and images[0]["path"] == ["sea", 'sky, "blue"']
    assert images[3]["unknown"] == ['sky, "blue"'] and images[3]["labels"] == []
    assert images[4]["path"] == [] and images[4]["path_log_prob"] is None
    assert images[1]["scores"][1] is None and images[3]["scores"] == [1, 2, 3]


def test_scores_alone_are_read_back_without_paths(tmp_path):
    fields = {name: getattr(PREDICTIONS, name) for name in ("image_ids", "labels", "known", "scores")}
    scored = Predictions.from_scores(**fields, ranking_rule="cosines")
    save_predictions(tmp_path / "p.jsonl", PredictionFile(scored, VOCABULARY, "holdout"))
    again = load_predictions(tmp_path / "p.jsonl").predictions
    assert (again.has_paths, again.ranking_rule) == (False, "cosines")
    assert bits(again.scores) == bits(scored.scores)


def test_no_image_and_one_label_are_no_exception(tmp_path):
    one = LabelVocabulary(("sky",), (3,))
    for images in (0, 2):
        table = np.ones((images, 1))
        predictions = Predictions.from_scores([str(i) for i in range(images)], table, table, table)
        save_predictions(tmp_path / "p.jsonl", PredictionFile(predictions, one, "test"))
        np.testing.assert_array_equal(load_predictions(tmp_path / "p.jsonl").predictions.scores, table)


def test_another_programs_file_may_name_its_labels_in_any_order(tmp_path):
    found = load_predictions(write(tmp_path / "p.jsonl", HEADER, *IMAGES))
    assert found.vocabulary.names == ("bay", "sea", "sky") and found.vocabulary.counts == (0, 0, 0)
    np.testing.assert_array_equal(found.predictions.marks, [[0, 0, 1], [-1, 0, 0]])
    np.testing.assert_array_equal(
        found.predictions.scores, np.array([[0.1, 0.2, 0.9], [1, -np.inf, 0.3]], np.float32)
    )
    assert found.predictions.ranking_rule == "the scores in the file"


def test_counts_rank_the_labels_and_paths_keep_their_order(tmp_path):
    header = HEADER | {"counts": [1, 7, 3]}
    images = [image | {"path": ["sky", "bay"], "path_log_prob": -1} for image in IMAGES]
    found = load_predictions(write(tmp_path / "p.jsonl", header, *images))
    assert found.vocabulary.names == ("sea", "bay", "sky")
    assert found.predictions.paths.tolist() == [[2, 1], [2, 1]]
    np.testing.assert_array_equal(found.predictions.path_sets(1), [[0, 0, 1], [0, 0, 1]])


def test_a_mark_at_the_beginning_of_the_file_is_no_part_of_it(tmp_path):
    path = write(tmp_path / "p.jsonl", HEADER, *IMAGES)
    plain = load_predictions(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_predictions(path).vocabulary == plain.vocabulary


@pytest.mark.parametrize("log_prob", [np.nan, np.inf])
def test_log_probabilities_that_no_file_can_hold_are_not_written(tmp_path, log_prob):
    found = Predictions(["a"], [[1]], [[1]], [[0]], [1], [log_prob], [[0.5]])
    content = PredictionFile(found, LabelVocabulary.from_counts({"sky": 1}), "test")
    with pytest.raises(UserError, match=r"the path of image 'a' has a log-probability of (nan|inf)"):
        save_predictions(tmp_path / "p.jsonl", content)
    assert not list(tmp_path.iterdir())


def test_what_ends_in_the_middle_leaves_the_old_file(tmp_path, monkeypatch):
    save_predictions(tmp_path / "p.jsonl", CONTENT)
    before = (tmp_path / "p.jsonl").read_bytes()
    monkeypatch.setattr("cnnrnn_tf.evaluation.prediction_files._format_numbers", lambda values: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_predictions(tmp_path / "p.jsonl", CONTENT)
    assert (tmp_path / "p.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.jsonl"]


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_no_ranking_can_use_are_not_written(tmp_path, score):
    predictions = Predictions.from_scores(["a"], [[1, 0, 0]], [[1, 1, 1]], [[0, score, 0]])
    with pytest.raises(UserError, match=r"image 'a' scores .* for 'été', which cannot be ranked"):
        save_predictions(tmp_path / "p.jsonl", PredictionFile(predictions, VOCABULARY, "test"))
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_of_another_size_is_not_written(tmp_path):
    with pytest.raises(UserError, match="3 labels do not go with a vocabulary of 1"):
        save_predictions(
            tmp_path / "p.jsonl", PredictionFile(PREDICTIONS, LabelVocabulary(("a",), (1,)), "test")
        )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "coco"}, "its first line is no header of predictions; expected {\"format\": \"cnnrnn-"),
        ({"version": 2}, "predictions of version 2, and only version 1 is read here"),
        ({"labels": None}, "line 1: 'labels' must be a list, got null"),
        ({"labels": []}, "'labels' must be a list of at least one name"),
        ({"labels": ["sky", 3, "sea"]}, "'labels' must be a list of at least one name"),
        ({"labels": ["sky", "sea", "sky"]}, "the label 'sky' occurs twice in 'labels'"),
        ({"labels": ["sky", "\ud800", "sea"]}, r"the label '\\ud800' holds half a character"),
        ({"split": 3}, "'split' must be a text, got 3"),
        ({"imges": 2}, r"unknown key 'imges' \(did you mean 'images'\?\)"),
        ({"images": 3}, "has 2 images where its header says 3; the file was cut off or edited"),
        ({"images": True}, "'images' must be a whole number, got true"),
        ({"counts": [1, 2]}, "'counts' must be 3 whole numbers, one a label, none below 0"),
        ({"counts": [1, 2, -1]}, "'counts' must be 3 whole numbers"),
        ({"vocabulary_fingerprint": "00"}, "is over names and counts, and there are no 'counts'"),
        ({"vocabulary_fingerprint": "00", "counts": [3, 2, 1]}, "00 does not belong to its labels and"),
    ],
)  # fmt: skip
def test_wrong_headers_are_refused(tmp_path, header, message):
    path = write(tmp_path / "p.jsonl", HEADER | header, *IMAGES)
    with pytest.raises(UserError, match=message) as caught:
        load_predictions(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"image": 7}, "line 3: 'image' must be a text, got 7.0"),
        ({"image": "a"}, "line 3: image 'a' has been there, in line 2"),
        ({"labels": "sky"}, "'labels' must be a list of names, got \"sky\""),
        ({"labels": ["skie"]}, r"'labels' has 'skie' \(did you mean 'sky'\?\), which is no label"),
        ({"labels": ["sky", "sky"]}, "'labels' has 'sky' twice"),
        ({"labels": ["bay"]}, "'bay' is both in 'labels' and in 'unknown'"),
        ({"unknown": ["skie"]}, "'unknown' has 'skie'"),
        ({"scores": [1, 2]}, "'scores' must be 3 numbers, one a label, got 2"),
        ({"scores": 1}, "'scores' must be 3 numbers, one a label, got 1"),
        ({"scores": ["1", 2, 3]}, "'scores' must be numbers, or null for minus infinity"),
        ({"scores": [True, 2, 3]}, "'scores' must be numbers, or null"),
        ({"scores": [float("nan"), 2, 3]}, "'scores' has a number that is NaN or too large for float32"),
        ({"scores": [1e39, 2, 3]}, "NaN or too large for float32"),
        ({"scores": [10**400, 2, 3]}, "NaN or too large for float32"),
        ({"unkown": []}, r"line 3: unknown key 'unkown' \(did you mean 'unknown'\?\)"),
        ({"path": [], "path_log_prob": 0}, "in every line of a file or in none; the first image has no path"),
    ],
)
def test_wrong_images_are_refused(tmp_path, image, message):
    path = write(tmp_path / "p.jsonl", HEADER, IMAGES[0], IMAGES[1] | image)
    with pytest.raises(UserError, match=message) as caught:
        load_predictions(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ({"path": ["sky"]}, "stand in every line of a file or in none; the first image has both"),
        ({"path": ["skie"], "path_log_prob": -1}, "'path' has 'skie'"),
        ({"path": ["sky", "sky"], "path_log_prob": -1}, "'path' has 'sky' twice"),
        ({"path": [], "path_log_prob": "-1"}, "'path_log_prob' must be a number or null, got \"-1\""),
        ({"path": [], "path_log_prob": float("inf")}, "must be a number or null, got Infinity"),
        ({"path": [], "path_log_prob": float("nan")}, "must be a number or null, got NaN"),
    ],
)
def test_wrong_paths_are_refused(tmp_path, path, message):
    first = IMAGES[0] | {"path": ["sky"], "path_log_prob": -0.5}
    file = write(tmp_path / "p.jsonl", HEADER, first, IMAGES[1] | path)
    with pytest.raises(UserError, match=message):
        load_predictions(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its first line is no header of predictions"),
        (b"image,labels\na,sky\n", "its first line is no header of predictions"),
        (b"[]\n", "line 1: expected an object in braces"),
        (b"\x89PNG\xff\xfe\n", "not text in UTF-8"),
        (json.dumps(HEADER).encode() + b'\n{"image": "a", "lab', "line 2: not JSON; the file is damaged or"),
        (json.dumps(HEADER).encode() + b"\n[1]\n", "line 2: expected an object in braces"),
        (json.dumps(HEADER).encode() + b'\n{"image": "a"}\n', "line 2: has no 'labels'; expected image"),
    ],
)  # fmt: skip
def test_files_of_another_kind_are_refused(tmp_path, content, message):
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_predictions(tmp_path / "p.jsonl")


def test_a_file_cut_off_at_any_byte_is_refused(tmp_path):
    save_predictions(tmp_path / "p.jsonl", CONTENT)
    whole = (tmp_path / "p.jsonl").read_bytes()
    for length in range(0, len(whole) - 1, 7):
        (tmp_path / "cut.jsonl").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"header|not JSON|cut off"):
            load_predictions(tmp_path / "cut.jsonl")


def test_a_file_that_is_not_there_is_told(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UserError, match=r"cannot be read .* such as predictions-test.jsonl"):
            load_predictions(path)
