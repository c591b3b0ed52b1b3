"""Image files enter as bytes, with what tags them; one `TaggedImage` a file leaves."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf

from cnnrnn_tf.serving.tagged_image import TaggedImage

SERVING_DEFAULT = "serving_default"
TAG_GIVEN = "tag_given"


def tag_files(
    tagger, files: Iterable[bytes], given: Sequence[str] = (), batch_size: int = 32
) -> Iterator[TaggedImage]:
    """Tags image files batch by batch, reading no further ahead.

    Args:
        tagger: a Tagger, or an export that `load_export` has read.
        files: the content of each file.
        given: names of labels that all images are known to have.
        batch_size: images tagged at once; the answers do not depend on it.

    Yields:
        A TaggedImage for each file, in order.
    """
    files = iter(files)
    while batch := list(itertools.islice(files, batch_size)):
        inputs = {"image_bytes": tf.constant(batch, tf.string)}
        if given:
            inputs["given"] = tf.constant([list(given)] * len(batch), tf.string)
        outputs = tagger.signatures[TAG_GIVEN if given else SERVING_DEFAULT](**inputs)
        rows = {key: tensor.numpy() for key, tensor in outputs.items()}
        for i in range(len(batch)):
            yield _read_row({key: array[i] for key, array in rows.items()})


def _read_row(row):
    places = slice(0, int(row["num_labels"]))
    return TaggedImage(
        labels=tuple(name.decode() for name in row["labels"][places]),
        probabilities=tuple(row["probabilities"][places].tolist()),
        step_probabilities=tuple(row["step_probabilities"][places].tolist()),
        path_probability=float(row["path_probability"]),
        error=row["error"].decode(),
    )
