"""A row of an answer enters, from wherever a Tagger ran; a TaggedImage leaves, or its line of JSON.

Imports nothing heavy.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tfrecords.errors import UserError

_INT32_LIMIT = 2**31
AS_EXPORTED = -1  # what signature `tag` takes for an option that keeps its value of the export


@dataclass(frozen=True)
class TaggedImage:
    """One image's row of a Tagger's answer, without the padding."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    step_probabilities: tuple[float, ...]
    path_probability: float
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


def fill_options(options: Mapping[str, float], given: Sequence[str] = ()) -> dict[str, float]:
    """What signature `tag` takes beside the images: all its options, those not named as exported.

    >>> fill_options({"beam_size": 3})
    {'beam_size': 3, 'min_length': -1, 'max_length': -1, 'threshold': 0.0}

    Raises:
        UserError: labels are given, too; or a number that no signature takes.
    """
    if given:
        raise UserError(f"given labels and {', '.join(options)}: no signature takes both; leave out one")
    for name, value in options.items():
        if not abs(value) < _INT32_LIMIT:  # NaN is not
            raise UserError(f"{name} {value}: no export takes such a number")
    kept = dict.fromkeys(("beam_size", "min_length", "max_length"), AS_EXPORTED)
    # JSON and gRPC alike tell a whole number from a real one.
    return kept | {"threshold": 0.0} | {**options, "threshold": float(options.get("threshold", 0))}
