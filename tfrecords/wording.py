"""Counts things in words: `1 image`, `2,000 images`."""

from __future__ import annotations


def count(num: int, noun: str, nouns: str | None = None) -> str:
    """A number with its noun, in the plural where it is not 1; `nouns` is a plural that takes more than an s.

    >>> count(1, "image"), count(2000, "image"), count(0, "category", "categories")
    ('1 image', '2,000 images', '0 categories')
    """
    return f"{num:,} {noun if num == 1 else nouns or f'{noun}s'}"
