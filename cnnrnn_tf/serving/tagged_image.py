"""A row of an answer enters, from wherever a Tagger ran; a TaggedImage leaves, or its line of JSON.

Imports nothing heavy.
"""

import json
from dataclasses import dataclass

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
