"""Puts counts into words for messages and tables: `1 image`, `2,000 images`."""

from __future__ import annotations

_IRREGULAR = {"epoch": "epochs"}
_NO_S = ("s", "x", "z", "ch", "sh")


def count(noun: str, number: int) -> str:
    """A number with its noun, in the plural where there is not just one.

    Args:
        noun: in the singular; of several words the last one is changed: "hold-out image".
        number: how many.

    >>> count("image", 1), count("image", 2000), count("box", 0), count("category", 2), count("epoch", 2)
    ('1 image', '2,000 images', '0 boxes', '2 categories', '2 epochs')
    """
    return f"{number:,} {plural(noun, number)}"


def plural(noun: str, number: int) -> str:
    """The noun alone, as it stands after `number`.

    >>> plural("image", 1), plural("image", 2), plural("finished epoch", 2)
    ('image', 'images', 'finished epochs')
    """
    if number == 1:
        return noun
    *others, last = noun.split(" ")
    if last in _IRREGULAR:
        return " ".join([*others, _IRREGULAR[last]])
    if noun.endswith(_NO_S):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"
