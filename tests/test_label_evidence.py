"""Labels that were not split as they are meant are refused, and names that hold blanks are not."""

import itertools
import random

import pytest

from tfrecords.errors import UserError
from tfrecords.sources.table import TableSource
from tfrecords.vocabulary import tidy_name

COCO = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball
bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife,
spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair,
couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone,
microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear"""
COCO = " ".join(COCO.split()).split(", ")
CIFAR = """apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, bridge,
bus, butterfly, lawn mower, leopard, maple tree, mountain, mouse, mushroom, oak tree, orange, palm tree,
pear, pickup truck, pine tree, plain, plate, poppy, sweet pepper, table, tank, willow tree, wolf,
woman, worm"""
CIFAR = " ".join(CIFAR.split()).split(", ")
BEARS = ["polar bear", "brown bear", "black bear", "sun bear", "panda"]
BIRDS = [
    "Laysan Albatross",
    "Sooty Albatross",
    "House Sparrow",
    "House Wren",
    "Black Tern",
    "Arctic Tern",
    "Mallard",
]
PLANET = ["haze primary", "agriculture clear primary water", "clear primary", "clear primary road"]
SCAB = ["scab frog_eye complex", "scab", "healthy", "frog_eye complex", "scab frog_eye", "complex"]
TAGS = ["sea", "sky", "boat", "sun", "tree", "dog"]
GROUND = [
    f"{sky} {use}" for sky in ("clear", "haze", "cloudy") for use in ("primary", "road", "water", "farm")
]


def joined(separator, names=TAGS, num=200, seed=0):
    """Sets of `names`, as they come, joined."""
    draw = random.Random(seed)
    return [separator.join(draw.sample(names, draw.randrange(1, 4))) for _ in range(num)]


def read(tmp_path, cells, form="csv", **options):
    path = tmp_path / f"t.{form}"
    if form == "csv":
        quoted = (cell.replace('"', '""') for cell in cells)
        path.write_text("image,labels\n" + "".join(f'{i}.jpg,"{cell}"\n' for i, cell in enumerate(quoted)))
    else:
        import json

        path.write_text(
            "".join(json.dumps({"image": f"{i}.jpg", "labels": c}) + "\n" for i, c in enumerate(cells))
        )
    return [item.labels for _, item in TableSource(path, **options).items()]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("cells", "word", "flag"),
    [
        (PLANET, "blank", "' '"),
        (SCAB, "blank", "' '"),
        (["desert mountains", "sunset sea", "desert"], "blank", "' '"),
        (GROUND, "blank", "' '"),
        (["sky sea", "boat sea", "sea"], "blank", "' '"),
        ([*COCO * 9, "dog cat", "person car", "dog person"], "blank", "' '"),
        (joined(" "), "blank", "' '"),
        (joined(","), "comma", "','"),
        (joined(", "), "comma", "','"),
        (joined("|"), "pipe", "'|'"),
        (joined("/"), "slash", "'/'"),
        (joined("+"), "plus", "'+'"),
        (joined(" & "), "ampersand", "'&'"),
        (joined("_"), "underscore", "'_'"),
        (joined("\t"), "tab", r"'\t'"),
        (joined("\n"), "line break", r"'\n'"),
        (joined("#"), "'#'", "'#'"),
        (joined(" > "), "'>'", "'>'"),
        (joined("::"), "colon", "':'"),
        (joined("\uff0c"), "wide comma", "'\uff0c'"),
        (joined("\u3001"), "Chinese comma", "'\u3001'"),
        (joined("\uff1b"), "wide semicolon", "'\uff1b'"),
        (joined("\xa0"), "blank", "' '"),
        (["desert, mountains", "sea"], "comma", "','"),
        ([*["sea"] * 60, *["sky"] * 60, "sea,sky"], "comma", "','"),
        (joined(", ", names=COCO), "comma", "','"),
    ],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_labels_that_look_joined_are_refused_with_the_flag(tmp_path, cells, word, flag, form):
    with pytest.raises(UserError, match=f"hold.? a {word}") as raised:
        read(tmp_path, cells, form)
    assert f"--label-separator {flag}, or --label-separator none if each" in str(raised.value)
    expected = [(tidy_name(cell),) for cell in cells]
    assert read(tmp_path, cells, form, label_separator="none") == expected


@pytest.mark.parametrize(
    ("separator", "word"),
    [(",", "comma"), (", ", "comma"), ("\n", "line break"), (" ", "blank"), ("/", "slash")],
)
def test_a_column_that_is_split_in_some_rows_alone_is_refused(tmp_path, separator, word):
    cells = [*joined(separator), *joined(";", num=200, seed=1)]
    with pytest.raises(UserError, match=rf"are split at ';', but .* joined by a {word}") as raised:
        read(tmp_path, cells)
    assert "write ';' in all rows, or pass --label-separator ';' if each of these is one label" in str(
        raised.value
    )
    expected = [tuple(map(tidy_name, cell.split(";"))) for cell in cells]
    assert read(tmp_path, cells, label_separator=";") == expected


def test_the_one_cell_that_is_joined_otherwise_is_noted(tmp_path):
    cells = [*joined(";", num=300), "sea,sky", *["sea", "sky", "Tom, Dick"] * 3]
    assert read(tmp_path, cells)[300] == ("sea,sky",)
    source = TableSource(tmp_path / "t.csv")
    list(source.items())
    [note] = [note for note in source.notes() if "their parts are labels" in note]
    assert "'sea,sky' and the like, in 1 cell of 'labels'; write ';' between labels" in note


@pytest.mark.parametrize(
    "cells",
    [
        COCO * 3,
        CIFAR * 3,
        BEARS * 5,
        BIRDS * 4,
        [*["hot dog"] * 9, *["dog"] * 9, *["bear"] * 9, *["polar bear"] * 9],
        joined(";", names=COCO),
        joined(";", names=BEARS),
        joined(";", names=["sea, ocean", "sky", "boat", "and/or"]),
        ["/m/04hgtk", "/m/07yv9", "/m/01g317"] * 5,
        ["T-shirt", "shirt", "dress", "skirt"] * 5,
        ["rock & roll", "pop", "folk"],
        [*[f"class {i}" for i in range(9)], "Tom, Dick and Harry"] * 1 + ["x"] * 200,
        ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"] * 4,
        ["sea"],
    ],
    ids=[
        *(
            "COCO",
            "CIFAR",
            "bears",
            "birds",
            "dogs",
            "sets of COCO",
            "sets of bears",
            "sets with commas",
            "codes",
        ),
        *("T-shirt", "rock & roll", "a rare comma", "CUB", "one"),
    ],
)
def test_names_that_hold_blanks_and_the_like_are_taken_as_they_are(tmp_path, cells):
    expected = [tuple(dict.fromkeys(part for part in cell.split(";"))) for cell in cells]
    assert read(tmp_path, cells) == expected


def test_counts_and_an_example_are_told(tmp_path):
    cells = [*itertools.repeat("haze primary", 30), *itertools.repeat("primary water", 9), "cloudy"]
    with pytest.raises(UserError) as raised:
        read(tmp_path, cells)
    assert str(raised.value).endswith(
        "t.csv: the column 'labels' holds no ';' in 40 rows, but 39 cells hold a blank ('haze primary'): "
        "pass --label-separator ' ', or --label-separator none if each is one label"
    )


@pytest.mark.parametrize(("separator", "flag"), [(";", ","), (",", ";"), ("|", ","), (" ", ",")])
def test_another_separator_that_never_occurs_is_told_as_the_default_is(tmp_path, separator, flag):
    with pytest.raises(UserError, match=rf"--label-separator '{flag}', or"):
        read(tmp_path, joined(flag), label_separator=separator)


def test_lists_of_one_joined_text_are_refused_too(tmp_path):
    for cells in ([[text] for text in PLANET], [str([text]) for text in PLANET]):
        with pytest.raises(
            UserError, match=r"has lists of one text each, but 4 cells hold a blank .*its own"
        ):
            read(tmp_path, cells, "jsonl")
        assert read(tmp_path, cells, "jsonl", label_separator="none") == [(text,) for text in PLANET]
        assert len(read(tmp_path, [*cells, ["a", "b"]], "jsonl")) == 5


def test_lists_are_never_taken_for_joined(tmp_path):
    cells = ["['desert, sand', 'haze primary']", "['haze', 'primary']", "['desert', 'sand']"]
    assert read(tmp_path, cells) == [
        ("desert, sand", "haze primary"),
        ("haze", "primary"),
        ("desert", "sand"),
    ]
