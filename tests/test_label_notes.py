"""What a build says of the labels that it has read."""

import pytest
from drawn_source import DrawnSource, draw

from tfrecords.build import build


def say(tmp_path, contents):
    lines = []
    build(
        DrawnSource(contents), "small", tmp_path, workers=1, progress=False, overwrite=True, tell=lines.append
    )
    return lines


def test_three_images_are_shown_with_their_labels_each_in_quotes(tmp_path):
    images = [draw(f"{name}.jpg", "haze primary", "sea") for name in "abcdef"]
    head, *shown = say(tmp_path, {"train": images, "test": [draw("x.jpg", "sea")]})
    assert head == "read 7 images and 2 labels; for example"
    assert len(shown) == 3
    assert all(line.endswith(".jpg: 'haze primary', 'sea'") for line in shown)


def test_an_image_without_labels_and_unknown_ones_are_shown_and_long_lists_cut(tmp_path):
    names = [f"label {i}" for i in range(9)]
    _, *shown = say(
        tmp_path, {"train": [draw("a.jpg"), draw("b.jpg", *names), draw("c.jpg", "x", ignored=("y",))]}
    )
    assert sorted(shown) == [
        "  a.jpg: no label",
        "  b.jpg: 'label 0', 'label 1', 'label 2', 'label 3', 'label 4', 'label 5' and 3 more",
        "  c.jpg: 'x'; unknown: 'y'",
    ]


def test_labels_that_differ_in_letter_case_alone_are_told_with_their_counts(tmp_path):
    *_, note = say(tmp_path, {"train": [draw("a", "sky", "Sky"), draw("b", "sky", "sea"), draw("c", "SKY")]})
    assert note == (
        "note: labels that differ in letter case alone are kept apart: 'sky' (2), 'SKY' (1), 'Sky' (1)"
    )


@pytest.mark.parametrize(("num", "is_told"), [(30, True), (15, False)])
def test_sentences_that_are_no_labels_are_wondered_at(tmp_path, num, is_told):
    lines = say(tmp_path, {"train": [draw(f"{i}.jpg", f"A dog, number {i}.") for i in range(num)]})
    told = [line for line in lines if line.startswith("note: ")]
    expected = "note: 30 of 30 labels hold for one training image or none: are they labels?"
    assert told == ([expected] if is_told else [])
