"""Small data sets for TensorFlow Datasets to prepare; the code of all but one is unknown to TFDS by name."""

import io

import numpy as np
import pytest
from PIL import Image

tfds = pytest.importorskip("tensorflow_datasets", reason="needs `pip install tensorflow-datasets`")
tfds.disable_progress_bar()

COLOURS = ("red", "green", "blue")
TAGS = ("sky", "sea", "boat")


def draw(number, format="JPEG"):
    """The bytes of a picture that is like no other."""
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (number % 256, number // 256, 9)).save(
        file, format, comment=f"picture {number}"
    )
    return file.getvalue()


def describe(number):
    """What the photographs of `DrawnPhotos` hold: each awkward case comes up among the first eight."""
    objects = {
        0: [("red", False, 600), ("red", True, 5), ("blue", True, 7)],
        1: [("green", True, 3)],
        2: [(-1, False, 1), ("green", False, 9)],
        3: [(-1, False, 1), (-1, False, 2)],
    }.get(number % 8, [])
    return {
        "image": draw(number),
        "mask": np.full((30, 40, 1), number % 256, np.uint8),
        "labels": [[0, 2], [], [-1], [1, -1, 1], [2], [0], [1], [0, 1, 2]][number % 8],
        "tags": [["sky", " sea"], [], [""], ["boat", ""], ["sky"], ["sky"], ["sea"], ["Küste"]][number % 8],
        "attributes": {"old": number % 2 == 0, "blurred": number % 3 == 0, "wide": False},
        "objects": [
            {
                "label": label,
                "bbox": tfds.features.BBox(0.125, 0.25, 0.5, 1.0),
                "is_difficult": hard,
                "area": area,
            }
            for label, hard, area in objects
        ],
    }


class DrawnPhotos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Every kind of feature that holds labels, over several shards."""

    VERSION = tfds.core.Version("1.2.0")
    NUMBERS = {"train": range(300), "test": range(304, 320), "extra": range(320, 328), "bare": range(4, 8)}

    def _info(self):
        colour = tfds.features.ClassLabel(names=COLOURS)
        features = {
            "image": tfds.features.Image(),
            "mask": tfds.features.Image(shape=(None, None, 1)),
            "labels": tfds.features.Sequence(colour),
            "tags": tfds.features.Sequence(tfds.features.Text()),
            "attributes": {"old": np.bool_, "blurred": np.bool_, "wide": np.bool_},
            "objects": tfds.features.Sequence(
                {
                    "label": colour,
                    "bbox": tfds.features.BBoxFeature(),
                    "is_difficult": np.bool_,
                    "area": np.int64,
                }
            ),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {split: self._generate_examples(numbers) for split, numbers in self.NUMBERS.items()}

    def _generate_examples(self, numbers):
        for number in numbers:
            content = describe(number)
            yield number, {**content, "image": io.BytesIO(content["image"])}


class DrawnTags(tfds.core.GeneratorBasedBuilder):
    """Tags alone, in splits of its own, in two configurations, and known to TFDS by its code."""

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="plain"), tfds.core.BuilderConfig(name="broken")]

    def _info(self):
        features = {
            "photo": tfds.features.Image(encoding_format="png"),
            "tags": tfds.features.Sequence(tfds.features.Text()),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        if self.builder_config.name == "broken":
            raise OSError("the owners' server\nis gone")
        return {"first_half": self._generate_examples(range(6)), "rest": self._generate_examples(range(6, 9))}

    def _generate_examples(self, numbers):
        for number in numbers:
            tags = [tag for bit, tag in enumerate(TAGS) if number + 1 >> bit & 1]
            yield number, {"photo": io.BytesIO(draw(number, "PNG")), "tags": tags}


def prepare(builder, num_shards=1, **options):
    """Lets TFDS write the data set; nothing is downloaded."""
    config = tfds.download.DownloadConfig(
        num_shards=num_shards, compute_stats=tfds.download.ComputeStatsMode.SKIP, try_download_gcs=False
    )
    builder.download_and_prepare(download_config=config, **options)
    return builder
