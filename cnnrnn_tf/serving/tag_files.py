"""Image files enter as bytes, with what tags them; one `TaggedImage` a file leaves."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from cnnrnn_tf.serving.tagged_image import TaggedImage, check_options, fill_options, join_names
from tfrecords.errors import UserError

SERVING_DEFAULT = "serving_default"
TAG = "tag"
TAG_GIVEN = "tag_given"
SCORES = "scores"


def tag_files(
    tagger,
    files: Iterable[bytes],
    given: Sequence[str] = (),
    batch_size: int = 32,
    absent: Sequence[str] = (),
) -> Iterator[TaggedImage]:
    """Tags image files batch by batch, reading no further ahead.

    Args:
        tagger: a Tagger, or an export that `load_export` has read.
        files: the content of each file.
        given: names of labels that all images are known to have.
        batch_size: images tagged at once; the answers do not depend on it.
        absent: names of labels that no image has.

    Yields:
        A TaggedImage for each file, in order.

    Raises:
        UserError: labels are known, and an old export does not take them as they are sent now.
    """
    known = {"given": join_names(given), "absent": join_names(absent, "absent")} if given or absent else {}
    signature = TAG_GIVEN if known else SERVING_DEFAULT
    if signature not in tagger.signatures:
        raise UserError("this export takes known labels in an older form: export the run again")
    files = iter(files)
    while batch := list(itertools.islice(files, batch_size)):
        inputs = {"image_bytes": tf.constant(batch, tf.string)}
        inputs |= {name: tf.fill([len(batch)], text) for name, text in known.items()}
        outputs = tagger.signatures[signature](**inputs)
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
        options: {name: value} of beam_size, min_length, max_length and threshold, or of top_k and threshold;
            the tagger itself for none.

    Raises:
        UserError: an option is out of its bounds, or an old export has no such signature.
    """
    if not options:
        return tagger
    if "top_k" in options:
        return _ranking(tagger, options)
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


def _ranking(tagger, options: Mapping[str, float]):
    """A tagger whose `serving_default` ranks the labels of signature `scores`, and asks for no path."""
    check_options(options)
    if SCORES not in tagger.signatures:
        raise UserError(f"--top-k: this export has no signature {SCORES}; export the run again")

    def rank(image_bytes):
        found = tagger.signatures[SCORES](image_bytes=image_bytes)
        places = tf.math.top_k(found["ranking"], min(options["top_k"], found["ranking"].shape[1])).indices
        labels, probabilities = (tf.gather(found[key], places, batch_dims=1) for key in ("labels", "scores"))
        is_shown = (probabilities >= options.get("threshold", 0)) & found["valid"][:, tf.newaxis]
        return {
            "labels": labels,
            "probabilities": probabilities,
            "num_labels": tf.math.count_nonzero(is_shown, axis=1),  # the rest ranks lower
            "error": found["error"],
        }

    return _Searching({SERVING_DEFAULT: rank}, tagger.calibration, tagger.max_length)


def _read_row(row):
    places = slice(0, int(row["num_labels"]))
    has_path = "path_probability" in row
    return TaggedImage(
        labels=tuple(name.decode() for name in row["labels"][places]),
        probabilities=tuple(row["probabilities"][places].tolist()),
        step_probabilities=tuple(row["step_probabilities"][places].tolist()) if has_path else (),
        path_probability=float(row["path_probability"]) if has_path else None,
        error=row["error"].decode(),
    )
