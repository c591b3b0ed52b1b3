"""Image files enter as bytes, with what tags them; one `TaggedImage` a file leaves."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from cnnrnn_tf.serving.tagged_image import TaggedImage, fill_options
from tfrecords.errors import UserError

SERVING_DEFAULT = "serving_default"
TAG = "tag"
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


@dataclass(frozen=True)
class _Searching:
    """What `tag_files` takes of a tagger."""

    signatures: Mapping[str, Callable]
    calibration: object
    max_length: int


def with_options(tagger, options: Mapping[str, float]):
    """Returns a tagger that searches by `options`: its `serving_default` is signature `tag` with these.

    Args:
        tagger: a Tagger, or an export that `load_export` has read.
        options: {name: value} of beam_size, min_length, max_length and threshold; the tagger itself for none.

    Raises:
        UserError: an option is out of its bounds, or an old export has no such signature.
    """
    if not options:
        return tagger
    if TAG not in tagger.signatures:
        raise UserError(f"{', '.join(options)}: this export has no signature {TAG}; export the run again")
    values = fill_options(options)

    def tag(image_bytes):
        rows = {name: tf.fill(tf.shape(image_bytes), value) for name, value in values.items()}
        return tagger.signatures[TAG](image_bytes=image_bytes, **rows)

    searching = _Searching({SERVING_DEFAULT: tag}, tagger.calibration, tagger.max_length)
    (image,) = tag_files(searching, [tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8)).numpy()])
    if image.error:  # as that of every row would be
        raise UserError(image.error)
    return searching


def _read_row(row):
    places = slice(0, int(row["num_labels"]))
    return TaggedImage(
        labels=tuple(name.decode() for name in row["labels"][places]),
        probabilities=tuple(row["probabilities"][places].tolist()),
        step_probabilities=tuple(row["step_probabilities"][places].tolist()),
        path_probability=float(row["path_probability"]),
        error=row["error"].decode(),
    )
