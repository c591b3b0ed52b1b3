"""The report's pictures: what is drawn is what was counted, any name can be written, nothing is cut off."""

import subprocess
import sys

import numpy as np
import pytest
from drawn_source import DrawnSource, draw
from PIL import Image

from tfrecords.build import build
from tfrecords.errors import UserError
from tfrecords.manifest import Manifest, Split
from tfrecords.report import read_contents
from tfrecords.report_figures import (
    MAX_NAMED_LABELS,
    _luminance,
    check_folder,
    draw_co_occurrence,
    draw_image_sizes,
    draw_label_frequencies,
    save_figures,
)
from tfrecords.report_records import Contents, Records
from tfrecords.vocabulary import LabelVocabulary

NAMES = ["co_occurrence.png", "label_frequencies.png", "image_sizes.png"]
PADDING_PX = 30  # around what is drawn


def make_contents(names, train, test=None, sizes=((600, 400),)):
    """Contents in memory: `train` and `test` are 0/1 matrices, `sizes` repeat over the images.

    Labels are ranked, as a vocabulary ranks them.
    """
    counts = np.sum(train, axis=0)
    ranked = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))
    names, train = [names[i] for i in ranked], np.array(train)[:, ranked]
    test = None if test is None else np.array(test)[:, ranked]
    splits = {"train": np.array(train, bool)} | ({} if test is None else {"test": np.array(test, bool)})
    vocabulary = LabelVocabulary(tuple(names), tuple(splits["train"].sum(axis=0).tolist()))
    manifest = Manifest(
        "coast", "drawn", {}, "", {split: Split(len(m), 0, 0, 0, 0, ()) for split, m in splits.items()}, None
    )
    return Contents(manifest, vocabulary, {split: make_records(m, sizes) for split, m in splits.items()})


def make_records(positive, sizes):
    width, height = np.resize(np.array(sizes), (len(positive), 2)).T
    ones = np.ones(len(positive), np.uint8)
    return Records(
        positive, np.zeros_like(positive), width, height, width, ones, np.full(len(ones), b"jpeg"), ones
    )


def make_ranked(num_labels, seed=0):
    """`<bool>[300, labels]` in which label i is on i images fewer than label 0."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(300) < max(280 - i, 1) for i in range(num_labels)], axis=1)


def read_texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


# sea 4 images, sun 3, sand 2, whale 0
COAST = ["sea", "sun", "sand", "whale"]
TRAIN = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
TEST = [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


# ---- co-occurrence


def test_a_cell_of_the_heat_map_is_p_of_the_column_given_the_row():
    figure = draw_co_occurrence(make_contents(COAST, TRAIN, TEST))
    shown = np.ma.filled(figure.axes[0].images[0].get_array(), -1)
    np.testing.assert_allclose(shown, [[-1, 75, 50], [100, -1, 200 / 3], [100, 100, -1]])


def test_rows_and_columns_are_named_and_cells_of_few_labels_are_written_out():
    texts = read_texts(draw_co_occurrence(make_contents(COAST, TRAIN)))
    assert {"sea (4)", "sun (3)", "sand (2)", "sea", "sun", "sand"} <= set(texts)
    assert [text for text in texts if text in ("75.0", "50.0", "66.7", "0")] == ["75.0", "50.0", "66.7"]
    (subtitle,) = [text for text in texts if text.startswith("P(column | row) in percent")]
    assert "Training split, 5 images; the 3 most frequent of 4 labels" in subtitle
    assert "coast: which labels go together" in texts


@pytest.mark.parametrize(
    ("num_labels", "num_shown", "num_written"), [(12, 12, 12 * 11), (13, 13, 0), (60, 40, 0)]
)
def test_of_many_labels_the_most_frequent_are_shown_and_no_cell_is_written_out(
    num_labels, num_shown, num_written
):
    names = [f"label_{i}" for i in range(num_labels)]
    axes = draw_co_occurrence(make_contents(names, make_ranked(num_labels))).axes[0]
    assert axes.images[0].get_array().shape == (num_shown, num_shown)
    assert [text.get_text().split()[0] for text in axes.get_yticklabels()] == names[:num_shown]
    assert sum(text.get_text().replace(".", "").isdigit() for text in axes.texts) == num_written


def test_written_cells_can_be_read_on_their_colour():
    names = [f"label_{i}" for i in range(12)]
    positive = make_ranked(12) & (np.arange(300)[:, None] >= 20 * np.arange(12))
    axes = draw_co_occurrence(make_contents(names, positive)).axes[0]
    image = axes.images[0]
    cells = [text for text in axes.texts if text.get_text().replace(".", "").isdigit()]
    assert len(cells) == 12 * 11
    assert {text.get_color() for text in cells} == {"white", "black"}
    for text in cells:
        column, row = text.get_position()
        paper = _luminance(image.to_rgba(image.get_array()[int(row), int(column)]))
        ink = {"white": 1.0, "black": 0.0}[text.get_color()]
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5  # WCAG AA


def test_a_split_with_a_single_live_label_has_an_empty_heat_map():
    figure = draw_co_occurrence(make_contents(["sea", "sky", "sun"], [[1, 0, 0], [0, 0, 0]]))
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(shown, -1), [[-1, 0], [-1, -1]])


# ---- frequencies


def test_bars_are_shares_of_each_splits_images_by_rank():
    axes = draw_label_frequencies(make_contents(COAST, TRAIN, TEST)).axes[0]
    train, test = ([bar.get_x() + bar.get_width() for bar in bars] for bars in axes.containers)
    lowest = axes.get_xlim()[0]
    assert train == pytest.approx([4 / 5, 3 / 5, 2 / 5, lowest])
    assert test == pytest.approx([1 / 4, 1 / 4, lowest, 1 / 4])
    assert axes.get_xscale() == "log" and lowest < 1 / 4
    assert [text.get_text() for text in axes.get_yticklabels()] == COAST
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "test"]
    assert [text.get_text() for text in axes.texts[:8]] == ["4", "3", "2", "0", "1", "1", "0", "1"]


def test_more_labels_than_bars_are_a_curve_over_ranks_and_the_first_are_named():
    num_labels = MAX_NAMED_LABELS + 1
    names = [f"label_{i:02}" for i in range(num_labels)]
    train, test = make_ranked(num_labels), make_ranked(num_labels, seed=1)[:100]
    test[:, 7] = False
    axes = draw_label_frequencies(make_contents(names, train, test)).axes[0]
    curves = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_allclose(curves["train"][:, 0], np.arange(1, num_labels + 1))
    np.testing.assert_allclose(curves["train"][:, 1], train.mean(axis=0))
    assert len(curves["test (1 label without an image)"]) == num_labels - 1
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert {"label_00", "label_01", "label_02", "label_04"} <= {text.get_text() for text in axes.texts}


def test_the_scale_holds_all_shares():
    rare = np.zeros((2000, 2), bool)
    rare[:, 0], rare[0, 1] = True, True
    axes = draw_label_frequencies(make_contents(["every", "once"], rare)).axes[0]
    lowest, highest = axes.get_xlim()
    assert (lowest, highest) == pytest.approx((0.0002, 1.0))  # once is 0.0005


# ---- sizes


def test_a_panel_of_image_sizes_counts_the_images_of_its_split():
    contents = make_contents(COAST, TRAIN, TEST, sizes=[(600, 400), (600, 400), (100, 800)])
    figure = draw_image_sizes(contents)
    for axes, images in zip(figure.axes, (5, 4), strict=False):
        counts = axes.collections[0].get_array().filled(0)
        assert counts.sum() == images
        row, column = np.unravel_index(counts.argmax(), counts.shape)
        corners = axes.collections[0].get_coordinates()[row : row + 2, column : column + 2]
        (left, bottom), (right, top) = corners[0, 0], corners[1, 1]
        assert left <= 600 <= right and bottom <= 400 <= top  # the width is across
    assert figure.axes[0].get_title(loc="left") == "train, 5 images; most often 600 x 400 (80 %)"


@pytest.mark.parametrize("sizes", [[(224, 224)], [(1, 1)], [(1, 60000), (60000, 1)], [(12000, 9000)]])
def test_every_size_is_within_the_axes(sizes):
    figure = draw_image_sizes(make_contents(COAST, TRAIN, sizes=sizes))
    axes = figure.axes[0]
    assert axes.collections[0].get_array().filled(0).sum() == 5
    low, high = axes.get_xlim()
    assert low < min(224, *np.ravel(sizes)) and high > max(224, *np.ravel(sizes)) and high / low >= 3.99
    assert len(axes.get_xticks()[(axes.get_xticks() >= low) & (axes.get_xticks() <= high)]) >= 2


# ---- files


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rows = [draw(f"{i}", *(["sea"] if i % 2 else []), *(["sky"] if i % 3 else [])) for i in range(12)]
    build(
        DrawnSource({"train": rows, "test": [draw("t", "sea")]}), "coast", folder, workers=1, progress=False
    )
    return folder


def read_pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def check_picture(path):
    """A picture is of a sensible size, holds ink, and leaves its edges free."""
    pixels = read_pixels(path)
    height, width = pixels.shape[:2]
    assert 300 <= height <= 3000 and 600 <= width <= 2600, (path, width, height)
    inked = (pixels < 200).any(axis=-1)
    assert inked.mean() > 0.005
    edges = [pixels[:PADDING_PX], pixels[-PADDING_PX:], pixels[:, :PADDING_PX], pixels[:, -PADDING_PX:]]
    assert all((edge == 255).all() for edge in edges)
    rows, columns = np.nonzero(inked)
    assert np.ptp(rows) > 0.8 * height - 2 * PADDING_PX and np.ptp(columns) > 0.8 * width - 2 * PADDING_PX


def test_figures_of_a_built_data_set_are_png_files_that_fit_their_page(data_dir, tmp_path):
    paths = save_figures(read_contents(data_dir / "coast"), tmp_path / "new" / "folder")
    assert [path.name for path in paths] == NAMES
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(NAMES)
    for path in paths:
        check_picture(path)


@pytest.mark.parametrize("num_labels", [2, 12, 40, 41, 1000])
def test_names_of_any_kind_are_drawn_and_stay_on_the_page(tmp_path, num_labels):
    odd = [r"$\frac$", "a $ and a $", "名前", "نص", "an endless name " * 9, "two\nlines", "🐋", "_{x}^2"]
    names = [f"{odd[i % len(odd)]} {i}" for i in range(num_labels)]
    contents = make_contents(names, make_ranked(num_labels), make_ranked(num_labels, 1)[:40])
    for path in save_figures(contents, tmp_path):
        check_picture(path)


def test_long_names_end_in_an_ellipsis_and_lines_are_joined():
    contents = make_contents(
        ["an endless name of a label", "an endless name of a label!", "two\n lines"], make_ranked(3)
    )
    columns = [text.get_text() for text in draw_co_occurrence(contents).axes[0].get_xticklabels()]
    assert columns == ["an endless name of a label", "an endless name of a labe…", "two lines"]


def test_the_same_contents_give_the_same_bytes(data_dir, tmp_path):
    contents = read_contents(data_dir / "coast")
    first, again = save_figures(contents, tmp_path / "a"), save_figures(contents, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_a_folder_that_cannot_be_written_is_told_with_the_flags_that_help(tmp_path):
    (tmp_path / "file").write_text("")
    fault = f"cannot write figures into {tmp_path / 'file' / 'x'}: .*--figures FOLDER, .*--no-figures$"
    with pytest.raises(UserError, match=fault):
        check_folder(tmp_path / "file" / "x")
    with pytest.raises(UserError, match=fault):
        save_figures(make_contents(COAST, TRAIN), tmp_path / "file" / "x")
    check_folder(tmp_path / "new" / "folder")
    (tmp_path / "taken" / NAMES[0]).mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot write figures into .*: Is a directory; choose another"):
        save_figures(make_contents(COAST, TRAIN), tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == [
        NAMES[0]
    ]  # nothing half-written is left


def test_drawing_needs_neither_pyplot_nor_tensorflow():
    code = (
        "import sys, tfrecords.report_figures\n"
        "sys.exit(bool({'matplotlib.pyplot', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
