"""Tagged pictures, training curves, reliability: what is written on them, and that it fits on the page."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cnnrnn_tf.viz.figures import save_grid, save_history
from cnnrnn_tf.viz.reliability import save_reliability
from tfrecords.errors import UserError

MARGIN_PX = 30  # of the page; nothing may be drawn in it
MANY = [(f"label_{i} of some length", 0.9 - i / 20) for i in range(12)]


def paint(height, width, colour=(200, 30, 30)):
    return np.full((height, width, 3), colour, np.uint8)


def read_texts(path):
    """The texts of an SVG, in the order in which they were drawn: Matplotlib notes each in a comment."""
    return re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))


def draw_texts(tmp_path, *args, **options):
    save_grid(tmp_path / "grid.svg", *args, **options)
    return read_texts(tmp_path / "grid.svg")


def read_pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def find_area(pixels, colour):
    """Height and width of the smallest box that holds all pixels of a colour; (0, 0) where there are none."""
    rows, columns = np.nonzero((pixels == colour).all(axis=-1))
    return (0, 0) if not len(rows) else (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)


# ---- grids


def test_without_a_truth_tags_are_written_as_they_come(tmp_path):
    texts = draw_texts(tmp_path, [paint(9, 9)], [[("sky", 0.976), ("sea", None), ("boat", float("nan"))]])
    assert texts == ["sky 0.98", "sea", "boat"]


def test_with_a_truth_tags_are_right_or_wrong_and_missed_labels_follow(tmp_path):
    texts = draw_texts(
        tmp_path,
        [paint(9, 9), paint(9, 9)],
        [[("sky", 0.9), ("car", 0.4), ("sea", 0.3)], [("tree", 1.0)]],
        truth=[("boat", "sky"), {"tree", "sun", "road"}],
        unknown=[["sea"], []],
    )
    assert texts == [
        "✓ sky 0.90", "✗ car 0.40", "? sea 0.30", "○ boat",
        "✓ tree 1.00", "○ road", "○ sun",
        "✓ right", "✗ wrong", "○ missed", "? unknown",
    ]  # fmt: skip


def test_the_legend_explains_only_what_occurs(tmp_path):
    texts = draw_texts(tmp_path, [paint(9, 9)], [[("sky", 0.5)]], truth=[["sky"]])
    assert texts == ["✓ sky 0.50", "✓ right"]


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        (None, ["no labels"]),
        ([[]], ["✓ no labels", "✓ right"]),
        ([["sky"]], ["no labels", "○ sky", "○ missed"]),
    ],
)
def test_a_picture_without_tags_says_so(tmp_path, truth, expected):
    assert draw_texts(tmp_path, [paint(9, 9)], [[]], truth=truth) == expected


def test_titles_and_names_are_written_and_nothing_is_read_as_a_formula(tmp_path):
    texts = draw_texts(
        tmp_path, [paint(9, 9)], [[(r"$\frac$", 0.5)]], title="ten $ and $ more", names=["a_b$c$.jpg"]
    )
    assert texts == ["ten $ and $ more", "a_b$c$.jpg", r"$\frac$ 0.50"]  # as a formula it would be an error


def test_a_name_too_long_for_its_picture_loses_its_middle_and_keeps_its_probability(tmp_path):
    (text,) = draw_texts(tmp_path, [paint(9, 9)], [[("an endless name " * 12, 0.123)]])
    assert text.startswith("an endless name an") and text.endswith("… 0.12")


@pytest.mark.parametrize(("num_pictures", "columns"), [(1, 4), (3, 4), (5, 4), (16, 4), (2, 1)])
def test_everything_stays_on_the_page(tmp_path, num_pictures, columns):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 300, (num_pictures, 2))
    save_grid(
        tmp_path / "grid.png",
        [paint(*size) for size in sizes],
        [MANY[: 12 - i % 13] for i in range(num_pictures)],
        truth=[["label_1 of some length", "missed " * 9]] * num_pictures,
        names=["a/long/path/" * 9] * num_pictures,
        columns=columns,
        title="a title that is far too long " * 9,
    )
    pixels = read_pixels(tmp_path / "grid.png")
    edges = [pixels[:MARGIN_PX], pixels[-MARGIN_PX:], pixels[:, :MARGIN_PX], pixels[:, -MARGIN_PX:]]
    assert all((edge == 255).all() for edge in edges)


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (300, 300), (10, 200), (400, 20), (1, 1)])
def test_pictures_keep_their_shape_and_colours(tmp_path, size):
    save_grid(tmp_path / "grid.png", [paint(*size), paint(5, 5, (9, 9, 9))], [[], []])
    height, width = find_area(read_pixels(tmp_path / "grid.png"), (200, 30, 30))
    assert height / width == pytest.approx(size[0] / size[1], rel=0.05)
    assert max(height, width) > 360


def test_grey_pictures_are_drawn_grey(tmp_path):
    save_grid(tmp_path / "grid.png", [np.full((20, 20), 77, np.uint8)], [[]])
    assert find_area(read_pixels(tmp_path / "grid.png"), (77, 77, 77)) == (540, 540)


def test_a_picture_is_not_turned_or_mirrored(tmp_path):
    picture = paint(40, 40, (0, 0, 0))
    picture[:20, :20], picture[:20, 20:], picture[20:, :20] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    save_grid(tmp_path / "grid.png", [picture], [[]])
    pixels = read_pixels(tmp_path / "grid.png")[33:573, 33:573]
    corners = [pixels[50, 50], pixels[50, -50], pixels[-50, 50], pixels[-50, -50]]
    expected = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (0, 0, 0)]
    assert [tuple(corner.tolist()) for corner in corners] == expected


def test_right_and_wrong_differ_in_lightness_too(tmp_path):
    fills = {}
    for name, truth in (("right", ["sky"]), ("wrong", [])):
        save_grid(tmp_path / f"{name}.png", [paint(9, 9)], [[("sky", 0.5)]], truth=[truth])
        colours, counts = np.unique(
            read_pixels(tmp_path / f"{name}.png")[573:].reshape(-1, 3), axis=0, return_counts=True
        )
        fills[name] = colours[np.argsort(counts)[-2]]  # the page's white comes first
    assert np.abs(fills["right"] - fills["wrong"]).max() > 30


def test_the_same_grid_gives_the_same_pixels(tmp_path):
    for name in ("a.png", "b.png"):
        save_grid(tmp_path / name, [paint(30, 40)] * 2, [MANY, []], truth=[{"a", "b", "c"}, set()])
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), read_pixels(tmp_path / "b.png"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pictures": [], "tags": []}, "a grid needs at least one picture"),
        ({"tags": [[], []]}, "tags must have one entry a picture: 2 for 1 pictures"),
        ({"truth": []}, "truth must have one entry a picture: 0 for 1"),
        ({"names": ["a", "b"]}, "names must have one entry a picture"),
        ({"truth": ["sky"]}, "truth and unknown must be lists of names for each picture, got 'sky'"),
        ({"columns": 0}, "columns of a grid must be at least 1, got 0"),
        ({"pictures": [np.zeros((3, 3, 3))]}, r"picture 0 must be <uint8>.* got <float64>\[3, 3, 3\]"),
        ({"pictures": [np.zeros((3, 3, 4), np.uint8)]}, r"got <uint8>\[3, 3, 4\]"),
        ({"pictures": [np.zeros((0, 3, 3), np.uint8)]}, r"got <uint8>\[0, 3, 3\]"),
        ({"path": "grid.xyz"}, "grid.xyz: cannot draw into such a file; name one that ends in .png"),
        ({"path": "grid"}, "grid: cannot draw into such a file"),
    ],
)
def test_mistakes_are_told(tmp_path, changes, message):
    arguments = {"path": "grid.png", "pictures": [paint(5, 5)], "tags": [[("sky", 0.5)]], **changes}
    with pytest.raises(UserError, match=message):
        save_grid(tmp_path / arguments.pop("path"), **arguments)
    assert not list(tmp_path.iterdir())


# ---- curves

HISTORY = [
    {"epoch": i, "loss": 5 / (i + 1), "val_loss": 2 + abs(i - 6) / 10, "val_O-F1": "" if i % 2 else f"0.{i}"}
    for i in range(10)
]


def test_each_measure_has_its_panel_and_the_best_epoch_is_named(tmp_path):
    save_history(tmp_path / "history.svg", HISTORY, title="demo")
    texts = read_texts(tmp_path / "history.svg")
    assert [text for text in texts if text in ("loss", "O-F1", "demo")] == ["loss", "O-F1", "demo"]
    assert "lowest 2, epoch 7" in texts  # epochs are counted from 1 for people
    assert {"training", "validation"} <= set(texts)


def test_curves_are_drawn_over_epochs_that_lack_a_measure(tmp_path):
    def count_ink(name, rows):
        save_history(tmp_path / name, rows)
        return np.sum((read_pixels(tmp_path / name) == (0xD5, 0x5E, 0x00)).all(axis=-1))

    sparse = [{"epoch": i, "val_O-F1": "" if i % 2 else i / 50} for i in range(49)]
    full = [{"epoch": i, "val_O-F1": i / 50} for i in range(49)]
    assert count_ink("sparse.png", sparse) == pytest.approx(count_ink("full.png", full), rel=0.05)


@pytest.mark.parametrize(
    "rows",
    [
        [{"epoch": "0", "loss": "3.5"}],
        [{"loss": 3.5}, {"loss": float("nan"), "val_loss": None}],
        [{"epoch": 0, "loss": 1.0, "val_loss": float("inf")}, {"epoch": 1, "loss": 0.5, "val_loss": 2.0}],
    ],
)
def test_short_and_broken_runs_are_drawn(tmp_path, rows):
    save_history(tmp_path / "figures" / "history.png", rows)
    assert read_pixels(tmp_path / "figures" / "history.png").min() < 255


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the history holds no measure of any epoch"),
        ([{"epoch": 0, "loss": ""}], "the history holds no measure"),
        ([{"epoch": 0, "loss": "much"}], r"the history's column 'loss' holds what is no number: \['much'\]"),
    ],
)
def test_a_history_without_numbers_is_refused(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        save_history(tmp_path / "history.png", rows)


# ---- reliability

BINS = (np.array([900, 0, 40, 20]), np.array([0.02, np.nan, 0.6, 0.9]), np.array([0.05, np.nan, 0.5, 1.0]))


@pytest.mark.parametrize("names", [["marginals"], ["marginals", "calibrated, ECE 1.20 %"]])
def test_each_curve_is_named_and_its_counts_stand_below(tmp_path, names):
    save_reliability(tmp_path / "a" / "reliability.svg", dict.fromkeys(names, BINS), title="test: $honest$")
    texts = read_texts(tmp_path / "a" / "reliability.svg")
    assert [text for text in texts if text in names] == names
    assert {"test: $honest$", "as promised", "cells in the bin", "probability of the label"} <= set(texts)


def test_a_bin_of_one_cell_and_a_curve_of_one_bin_are_drawn(tmp_path):
    one = (np.array([0, 1]), np.array([np.nan, 1.0]), np.array([np.nan, 1.0]))
    save_reliability(tmp_path / "reliability.png", {"one": one})
    pixels = read_pixels(tmp_path / "reliability.png")
    height, width = find_area(pixels, (0xD5, 0x5E, 0x00))
    assert height > 50 and width > 50  # the point above, the bar below


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "a reliability diagram has one or two curves, got 0"),
        (dict.fromkeys("abc", BINS), "a reliability diagram has one or two curves, got 3"),
        ({"a": (np.array([0]), np.array([np.nan]), np.array([np.nan]))}, "curve 'a' has no cell in any bin"),
    ],
)
def test_reliability_without_cells_is_refused(tmp_path, curves, message):
    with pytest.raises(UserError, match=message):
        save_reliability(tmp_path / "reliability.png", curves)
    with pytest.raises(UserError, match="cannot draw into such a file"):
        save_reliability(tmp_path / "reliability.xyz", {"a": BINS})


def test_drawing_needs_neither_pyplot_nor_tensorflow(tmp_path):
    code = (
        "import sys, numpy; from cnnrnn_tf.viz.figures import save_grid\n"
        "save_grid(sys.argv[1], [numpy.zeros((5, 5, 3), numpy.uint8)], [[('sky', 0.5)]])\n"
        "sys.exit(bool({'matplotlib.pyplot', 'tensorflow'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "grid.png")]
    assert subprocess.run(command).returncode == 0
