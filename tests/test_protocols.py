"""The presets against the table of protocols, their sentences, and the mistakes they refuse."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from cnnrnn_tf.evaluation.metrics import AP_SHAPES, SetMeasures
from cnnrnn_tf.evaluation.protocols import PROTOCOL_NAMES, Protocol, protocol, with_companions
from tfrecords.errors import UserError


@pytest.mark.parametrize(
    ("name", "dataset", "images", "list_length", "k", "threshold", "c_f1", "never", "ap_shape"),
    [
        ("cnn-rnn", "nuswide81", "tagged", "exactly", 3, None, "harmonic", 0, "raw"),
        ("cnn-rnn", "nuswide1000", "tagged", "exactly", 10, None, "harmonic", 0, "raw"),
        ("cnn-rnn", "coco2014", "all", "at_most", 3, None, "harmonic", 0, "raw"),
        ("cnn-rnn", "voc2007", "all", "free", None, None, "harmonic", 0, "voc11"),
        ("cnn-rnn", "my_own_table", "all", "at_most", 3, None, "harmonic", 0, "raw"),
        ("ml-gcn", "coco2014", "tagged", "free", None, 0.5, "harmonic", 0, "raw"),
        ("ml-gcn-top3", "coco2014", "tagged", "at_most", 3, 0.5, "harmonic", 0, "raw"),
        ("srn", "coco2014", "all", "free", None, 0.5, "per_class", 1, "raw"),
        ("srn-top3", "coco2014", "all", "at_most", 3, 0.5, "per_class", 1, "raw"),
        ("asl", "coco2014", "tagged", "free", None, None, "per_class", 0, "raw"),
        ("free", "demo", "all", "free", None, None, "both", 0, "raw"),
    ],
)
def test_presets_are_those_of_the_table(
    name, dataset, images, list_length, k, threshold, c_f1, never, ap_shape
):
    found = protocol(name, dataset)
    conventions = (found.images, found.list_length, found.k, found.threshold)
    assert conventions == (images, list_length, k, threshold)
    assert (found.c_f1, found.never_predicted_precision, found.ap_shape) == (c_f1, never, ap_shape)
    assert found.never_predicted_counts == (1 if name.startswith("ml-gcn") else 0)
    assert found.name == name


@pytest.mark.parametrize("name", PROTOCOL_NAMES)
@pytest.mark.parametrize("dataset", ["nuswide81", "nuswide1000", "coco2014", "voc2007", "demo"])
def test_every_preset_cuts_lists_that_set_measures_takes(name, dataset):
    for preset in with_companions(name, dataset):
        metric = SetMeasures(4, **preset.set_options(fitted_threshold=0.3))
        metric.update_state([[1, 0, 1, 0]], [[0.9, 0.4, 0.6, 0.1]])
        expected = {"exactly": 4, "at_most": 3, "free": 3}[preset.list_length]
        if preset.k == 3:
            expected = min(expected, 3)
        if preset.threshold == 0.5:
            expected = 2
        assert float(metric.predicted.numpy().sum()) == expected
        assert preset.ap_shape in AP_SHAPES


def test_sentences_say_what_the_fields_say():
    assert protocol("cnn-rnn", "coco2014").words == (
        "All images; at most 3 labels an image (scores are cut at a threshold fitted on the hold-out); "
        "C-F1 is the harmonic mean of C-P and C-R; a label never predicted has precision 0; "
        "AP is not interpolated."
    )
    assert protocol("srn", "coco2014").words == (
        "All images; lists of any length (scores are cut at a threshold of 0.5); "
        "C-F1 is the mean of the labels' F1; a label never predicted has precision 1; AP is not interpolated."
    )
    assert (
        "a label never predicted has precision 0 and counts as 1 wrong prediction in O-P"
        in protocol("ml-gcn-top3", "coco2014").words
    )
    assert "the 11-point AP of VOC 2007" in protocol("cnn-rnn", "voc2007").words
    changed = dataclasses.replace(protocol("cnn-rnn", "nuswide81"), k=5)
    assert "exactly 5 labels an image" in changed.words


def test_protocols_with_companions_list_both_blocks_of_the_published_table():
    assert [found.name for found in with_companions("ml-gcn", "coco2014")] == ["ml-gcn", "ml-gcn-top3"]
    assert [found.name for found in with_companions("cnn-rnn", "coco2014")] == ["cnn-rnn"]


def test_tagged_protocols_leave_out_images_without_a_known_label():
    labels = [[1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1], [-1, -1, -1]]
    known = [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]]
    weights = protocol("ml-gcn", "coco2014").image_weights(labels, known)
    np.testing.assert_array_equal(weights, [1, 0, 1, 0, 0])
    np.testing.assert_array_equal(protocol("ml-gcn", "coco2014").image_weights(labels), [1, 0, 1, 1, 0])
    np.testing.assert_array_equal(protocol("srn", "coco2014").image_weights(labels, known), np.ones(5))
    assert protocol("asl", "coco2014").image_weights([[1], [0]]).tolist() == [1, 0]


def test_exactly_k_needs_no_threshold_and_ignores_a_fitted_one():
    assert protocol("cnn-rnn", "nuswide81").set_options(0.7)["threshold"] is None


def test_a_fixed_threshold_is_never_replaced_by_a_fitted_one():
    assert protocol("ml-gcn", "coco2014").set_options(0.7)["threshold"] == 0.5


def test_an_open_threshold_must_be_given():
    with pytest.raises(UserError, match="'asl' cuts scores at a threshold that it leaves open: fit one"):
        protocol("asl", "coco2014").set_options()


def test_an_unknown_protocol_is_told_the_nearest():
    with pytest.raises(
        UserError, match=r"unknown protocol 'cnn_rnn' \(did you mean 'cnn-rnn'\?\): choose from"
    ):
        protocol("cnn_rnn", "demo")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"list_length": "exactly", "k": None}, "need a k"),
        ({"list_length": "free", "k": 3}, "free ones must have none"),
        ({"images": "some"}, r"images of protocol 'mine' must be one of \('all', 'tagged'\), got 'some'"),
        ({"c_f1": "macro"}, "c_f1 of protocol 'mine'"),
        ({"never_predicted_precision": 2}, "never_predicted_precision of protocol 'mine'"),
        ({"never_predicted_counts": 2}, "never_predicted_counts of protocol 'mine'"),
        ({"ap_shape": "voc"}, "ap_shape of protocol 'mine'"),
    ],
)
def test_contradictory_conventions_are_refused(changes, message):
    conventions = {"name": "mine", "images": "all", "list_length": "at_most", "k": 3, **changes}
    with pytest.raises(UserError, match=message):
        Protocol(**conventions)


def test_a_protocol_is_plain_data():
    found = json.loads(json.dumps(dataclasses.asdict(protocol("free", "demo"))))
    assert found["words"].startswith("All images; lists of any length")
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol("free", "demo").k = 3


def test_protocols_can_be_listed_without_tensorflow():
    code = "import sys, cnnrnn_tf.evaluation.protocols; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
