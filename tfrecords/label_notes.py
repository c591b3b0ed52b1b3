"""Says what labels a build has read, with a few images, so that a person sees whether they are as meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from tfrecords.annotations import Annotation
from tfrecords.store import AnnotationStore
from tfrecords.vocabulary import LabelVocabulary
from tfrecords.words import count

NUM_IMAGES = 3
_MANY_LABELS, _RARE_SHARE = 20, 0.8
_MOST_NAMES = 6


def note_labels(store: AnnotationStore, vocabulary: LabelVocabulary, splits: Sequence[str]) -> Iterator[str]:
    """Short lines on what was read: how much, three images of train, and names that are nearly one.

    The three are the first on disk, which a hash has mixed.
    """
    num_images = sum(map(store.count_images, splits))
    yield f"read {count('image', num_images)} and {count('label', vocabulary.size)}; for example"
    for annotation in store.annotations("train", b"", NUM_IMAGES):
        yield f"  {_shorten(annotation.image_id)}: {describe_image(annotation)}"
    rare = sum(num <= 1 for num in vocabulary.counts)
    if vocabulary.size > _MANY_LABELS and rare > _RARE_SHARE * vocabulary.size:
        share = f"{rare:,} of {vocabulary.size:,} labels"
        yield f"note: {share} hold for one training image or none: are they labels?"
    alike = find_alike(vocabulary)
    if alike:
        some = "; ".join(
            ", ".join(f"{name!r} ({vocabulary.counts[vocabulary.id(name)]:,})" for name in names)
            for names in alike[:3]
        )
        more = f"; and {len(alike) - 3:,} more" if len(alike) > 3 else ""
        yield f"note: labels that differ in letter case alone are kept apart: {some}{more}"


def describe_image(annotation: Annotation) -> str:
    """The labels of an image in a few words.

    >>> describe_image(Annotation("a.jpg", None, ("sea", "sky"), ("boat",)))
    "'sea', 'sky'; unknown: 'boat'"
    >>> describe_image(Annotation("a.jpg", None, ()))
    'no label'
    """
    text = _list_names(annotation.labels) or "no label"
    return f"{text}; unknown: {_list_names(annotation.ignored)}" if annotation.ignored else text


def find_alike(vocabulary: LabelVocabulary) -> list[list[str]]:
    """The labels that differ in letter case alone, together.

    >>> find_alike(LabelVocabulary.from_counts({"sky": 3, "Sky": 1, "sea": 2}))
    [['sky', 'Sky']]
    """
    of_folded: dict[str, list[str]] = defaultdict(list)
    for name in vocabulary.names:
        of_folded[name.casefold()].append(name)
    return [names for names in of_folded.values() if len(names) > 1]


def _list_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(repr(_shorten(name)) for name in names[:_MOST_NAMES]) + more


def _shorten(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}...{text[-most // 2 + 2 :]}"
