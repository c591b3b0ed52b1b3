"""A row of an answer enters, from wherever a Tagger ran; a TaggedImage leaves, or its line of JSON.

Imports nothing heavy.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tfrecords.errors import UserError

_INT32_LIMIT = 2**31
SEPARATOR = "\n"  # between the names of a row's known labels
AS_EXPORTED = -1  # what signature `tag` takes for an option that keeps its value of the export


@dataclass(frozen=True)
class TaggedImage:
    """One image's row of a Tagger's answer, without the padding."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    step_probabilities: tuple[float, ...]
    """Empty where labels were ranked, and no path was asked for."""
    path_probability: float | None
    """None likewise."""
    error: str = ""

    @property
    def valid(self):
        return not self.error


def format_json(value) -> str:
    r"""One line of JSON that is always UTF-8.

    A file's name that is no UTF-8 is written in ASCII, its odd bytes as Python's surrogate escapes: reading
    the line as JSON and `os.fsencode` give the name back.

    >>> print(format_json({"image": "\u00e9.jpg"}), format_json({"image": "\udcff.jpg"}))
    {"image": "é.jpg"} {"image": "\udcff.jpg"}
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def check_options(
    options: Mapping[str, float], given: Sequence[str] = (), absent: Sequence[str] = ()
) -> None:
    """Refuses options that no signature takes, whatever the model.

    Args:
        options: of `cnnrnn_tf.commands.search_options`, those that are named.
        given: labels that are given with them.
        absent: labels that are known not to hold.

    Raises:
        UserError: labels are given, too; numbers out of range; or top_k with what steers a path.
    """
    named = ", ".join(options)
    if (given or absent) and options:
        word = "given" if given else "absent"
        raise UserError(f"{word} labels and {named}: no signature takes both; leave out one")
    for name, value in options.items():
        if not abs(value) < _INT32_LIMIT:  # NaN is not
            raise UserError(f"{name} {value}: no export takes such a number")
    if "top_k" in options and options["top_k"] < 1:
        raise UserError(f"top_k {options['top_k']}: expected 1 or more")
    if "top_k" in options and set(options) - {"top_k", "threshold"}:
        raise UserError(f"{named}: the most probable labels are no path; leave out top_k, or the others")
    if not 0 <= options.get("threshold", 0) <= 1:
        raise UserError(f"threshold {options['threshold']}: expected 0 to 1")


def rank_row(
    labels: Sequence[str], scores: Sequence[float], ranking: Sequence[float], options: Mapping[str, float]
) -> TaggedImage:
    """The `top_k` labels with the highest ranks, of those whose score is at least `threshold`.

    >>> rank_row(["sea", "sky", "boat"], [0.2, 0.9, 0.0], [0.1, 0.8, -0.5], {"top_k": 2}).labels
    ('sky', 'sea')
    """
    places = sorted(range(len(labels)), key=lambda place: -ranking[place])[: int(options["top_k"])]
    places = [place for place in places if scores[place] >= options.get("threshold", 0)]
    return TaggedImage(
        labels=tuple(labels[place] for place in places),
        probabilities=tuple(scores[place] for place in places),
        step_probabilities=(),
        path_probability=None,
    )


def join_names(names: Sequence[str], word: str = "given") -> str:
    r"""One row's known labels as a request carries them.

    >>> join_names(["sky", "sea, ocean"])
    'sky\nsea, ocean'

    Raises:
        UserError: a name holds a newline, which would make two of it; or `names` is one text and no list.
    """
    if isinstance(names, str):
        raise UserError(f"{word} {names!r}: expected a list of names, such as [{names!r}]")
    for name in names:
        if SEPARATOR in name:
            raise UserError(f"{word} label {name!r}: a name with a newline cannot be sent")
    return SEPARATOR.join(names)


def fill_options(options: Mapping[str, float], given: Sequence[str] = ()) -> dict[str, float]:
    """What signature `tag` takes beside the images: all its options, those not named as exported.

    >>> fill_options({"beam_size": 3})
    {'beam_size': 3, 'min_length': -1, 'max_length': -1, 'threshold': 0.0}

    Raises:
        UserError: labels are given, too; or a number that no signature takes.
    """
    check_options(options, given)
    kept = dict.fromkeys(("beam_size", "min_length", "max_length"), AS_EXPORTED)
    # JSON and gRPC alike tell a whole number from a real one.
    return kept | {"threshold": 0.0} | {**options, "threshold": float(options.get("threshold", 0))}
