"""A source of small grey pictures for tests, in a module of its own that worker processes can import."""

import hashlib
import io

from PIL import Image

from tfrecords.annotations import Annotation, Skip
from tfrecords.sources.base import Source


class DrawnSource(Source):
    """Draws a grey picture for each image, by its id; `contents` is split -> annotations and skips."""

    name = "drawn"

    def __init__(self, contents, label_names=None, reference_rows=()):
        self.contents = contents
        self.names = label_names
        self.rows = list(reference_rows)

    def splits(self):
        return tuple(self.contents)

    def annotations(self, split):
        return iter(self.contents[split])

    def label_names(self):
        return self.names

    def reference_rows(self):
        return self.rows

    def read_image(self, annotation):
        if annotation.image_path is not None:
            return super().read_image(annotation)
        shade = int(hashlib.sha256(annotation.image_id.encode()).hexdigest()[:2], 16)
        file = io.BytesIO()
        Image.new("RGB", (8, 6), (shade, shade, shade)).save(file, "JPEG")
        return file.getvalue()


def draw(image_id, *labels, **options):
    return Annotation(image_id, None, labels, **options)


SMALL = {
    "train": [
        draw("a.jpg", "sky", "sea"),
        draw("b.jpg", "sky"),
        draw("c.jpg"),
        draw("d.jpg", "sky", "boat", "sea", ignored=("sun",)),
        Skip("e.jpg", "no_consent", "asked to be left out"),
    ],
    "test": [draw("t/f.jpg", "sea", "ufo"), draw("t/g.jpg", "boat")],
}


def read_records(manifest, folder, split):
    """The parsed records of one split by their image ids, in the order on disk."""
    import tensorflow as tf

    from tfrecords.schema import parse

    dataset = tf.data.TFRecordDataset(manifest.shard_paths(folder, split)).map(parse)
    return {record["image/source_id"].decode(): record for record in dataset.as_numpy_iterator()}


def read_bytes(folder):
    """The bytes of every file in a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
