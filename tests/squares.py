"""Labels enter; a small data set of coloured squares leaves, and settings that learn it in seconds."""

import dataclasses
import io

import numpy as np
from drawn_source import DrawnSource, draw
from PIL import Image

from cnnrnn_tf.config import ExperimentConfig
from cnnrnn_tf.training import run
from tfrecords.build import build

SQUARES = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 60, 230)}


class SquaresSource(DrawnSource):
    """Pictures of 32 px with a square for each label of their image, each in a corner of its own."""

    def read_image(self, annotation):
        pixels = np.full([32, 32, 3], 128, np.uint8)
        for label, (top, left) in zip(SQUARES, ((0, 0), (0, 16), (16, 0)), strict=True):
            if label in annotation.image_id.split("-")[1:]:
                pixels[top : top + 16, left : left + 16] = SQUARES[label]
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def annotate(split, count, shift=0):
    """Every set of labels, the empty one too; with `shift`, the labels of another picture."""
    sets = [[label for bit, label in enumerate(SQUARES) if i >> bit & 1] for i in range(8)]
    for i in range(count):
        yield draw("-".join([f"{split}{i}", *sets[i % 8]]), *sets[(i + shift) % 8])


def build_squares(data_dir, name="squares", shift=0):
    contents = {"train": list(annotate("train", 160)), "test": list(annotate("test", 24, shift))}
    build(SquaresSource(contents), name, data_dir, workers=1, progress=False)


def configure(data_dir, dataset="squares", **training):
    return ExperimentConfig().updated(
        {
            "data": {"dataset": dataset, "data_dir": str(data_dir)},
            "model": {
                "backbone": "compact",
                "backbone_weights": "none",
                "image_size": 32,
                "cell_units": 24,
                "dropout": 0.2,
            },
            "training": {
                "epochs": 8,
                "batch_size": 16,
                "learning_rate": 1e-3,
                "warmup_epochs": 1,
                "patience": 0,
            }
            | training,
        },
        where="test",
    )


def with_model(config, **model):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


def leave_out_figures(patch):
    """Lets trainings end without their figures, which take a second or two of each."""
    for name in ("save_history", "save_split_reliability", "save_split_grid", "save_examples"):
        patch.setattr(run, name, lambda *args: None)
