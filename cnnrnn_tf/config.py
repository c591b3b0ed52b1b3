"""Flags, presets and a config file enter; one frozen `ExperimentConfig` leaves, which a run folder keeps.

Plain data: nothing heavy is imported here, so `--help` answers at once. Precedence, the later the stronger:
defaults, the data set's preset, `--config FILE`, flags.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tfrecords.errors import UserError, nearest

LabelOrder = Literal["frequent", "rare", "random", "shuffled"]


@dataclass(frozen=True)
class DataConfig:
    """Which images and labels."""

    dataset: str = "demo"
    """Name of a built data set; demo is made on the spot."""
    data_dir: Path = Path("data")
    """Folder of all data sets."""
    label_order: LabelOrder = "frequent"
    """Order of the labels on a training path; shuffled draws a fresh one for every batch."""


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    backbone: str = "vgg16"
    """CNN: vgg16, resnet50, mobilenet_v2, a class of keras.applications, or compact (small, trained here)."""
    backbone_weights: str = "imagenet"
    """imagenet, none (random), or the path of a weights file."""
    feature_layer: str = "default"
    """Layer of the CNN that represents the image: fc7 for vgg16 by default, `pooled` for the others."""
    image_size: int = 0
    """Pixels a side; 0 takes the backbone's own."""
    image_fit: Literal["crop", "stretch"] = "crop"
    """How a photograph becomes a square: crop cuts out its centre, stretch keeps all of it, squeezed."""
    fine_tune_from: str = "none"
    """First layer of the CNN that is trained along; `none` freezes it (compact is always trained)."""
    cell: Literal["lstm", "paper", "gru", "none"] = "lstm"
    """Recurrent cell: the textbook's LSTM, the paper's equations, the GRU of its slides, or none (No-RNN)."""
    cell_units: int = 512
    """Size of the recurrent state."""
    embedding_dim: int = 64
    """Dimensions of the joint space of images and labels."""
    dropout: float = 0.5
    """Share of the projections' inputs that is dropped in training."""
    tie_embeddings: bool = True
    """Read labels in and score them with one matrix, as the paper does."""
    standardise_features: bool = False
    """Shift and scale each feature of a frozen CNN by its mean and deviation on the training images."""


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are learned."""

    epochs: int = 50
    """Most epochs."""
    batch_size: int = 64
    """Images a step, over all devices together."""
    learning_rate: float = 1e-4
    """Of RMSprop."""
    backbone_learning_rate: float = 1e-5
    """Of the CNN's layers, where they are fine-tuned; the compact CNN learns at the rate of the rest."""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """Cosine lets the rate fall to zero over the epochs."""
    warmup_epochs: int = 0
    """Epochs over which the rate first rises from 0: RMSprop's first steps are its longest."""
    momentum: float = 0.9
    """Of RMSprop."""
    rho: float = 0.99
    """Of RMSprop: how slowly the mean square of the gradient moves."""
    clip_norm: float = 5.0
    """Longest gradient, over all weights together; 0 clips none."""
    weight_decay: float = 1e-4
    """L2 in the loss."""
    decoupled_weight_decay: bool = False
    """Decay the weights beside the gradient (times the learning rate) instead of in the loss."""
    patience: int = 12
    """Epochs without a better validation likelihood before training stops; 0 never stops."""
    flip: bool = True
    """Mirror images at random, where the CNN is trained."""
    shift: float = 0.1
    """Move images at random by up to this share of their side, where the compact CNN is trained."""
    crop: bool = True
    """Cut images at random, where a CNN of keras.applications is fine-tuned."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """Of the computation; weights and scores stay float32."""
    seed: int = 0
    """Of the weights, the batches and the random label order."""
    deterministic: bool = False
    """The same run twice gives the same bits; slower."""


@dataclass(frozen=True)
class DecodingConfig:
    """The beam search."""

    beam_size: int = 5
    """Paths kept at each step."""
    min_length: int = 0
    """Fewest labels on a path."""
    max_length: int = 0
    """Most labels on a path; 0 takes the longest of the training split."""
    renormalise: bool = False
    """Scale what the masks leave up to a sum of 1."""
    length_penalty: float = 0.0
    """Exponent of the length that log-probabilities are divided by; 0 is the paper's."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured."""

    protocol: str = "default"
    """Conventions: cnn-rnn, ml-gcn, srn, asl or free; by default the paper's for its data sets, else free."""


@dataclass(frozen=True)
class ExperimentConfig:
    """One experiment: everything that decides its result, besides the records themselves."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        _check_ranges(self)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Nested plain data."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))

    def save(self, path: str | Path) -> None:
        """Writes JSON."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> ExperimentConfig:
        """Reads what `save` wrote, or a file with some of it.

        Raises:
            UserError: no such file, not JSON, an unknown key or a value of the wrong kind.
        """
        return cls().updated(read_settings(path), where=str(path))

    def updated(self, settings: Mapping[str, Mapping[str, Any]], where: str) -> ExperimentConfig:
        """This configuration with the settings {concern: {name: value}} in place.

        Raises:
            UserError: an unknown concern or name, with the nearest right one, or a value of the wrong kind.
        """
        changed = {}
        for concern, values in settings.items():
            names = [item.name for item in dataclasses.fields(self)]
            if concern not in names:
                raise UserError(
                    f"{where}: unknown key {concern!r}{nearest(concern, names)}: "
                    f"expected {' or '.join(names)}"
                )
            if not isinstance(values, Mapping):
                raise UserError(f"{where}: {concern!r} holds {values!r}: expected names and values in braces")
            section = getattr(self, concern)
            changed[concern] = dataclasses.replace(
                section, **_read_values(section, values, f"{where}: {concern}")
            )
        return dataclasses.replace(self, **changed)


def read_settings(path: str | Path) -> dict:
    """The settings of a JSON config file: {"training": {"epochs": 20}, ...}.

    Raises:
        UserError: no such file, or it is not JSON.
    """
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a JSON file") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(settings, dict):
        raise UserError(f'{path}: expected an object such as {{"training": {{"epochs": 20}}}}')
    return settings


def find_setting(settings: Mapping[str, Any], concern: str, name: str) -> Any:
    """What a config file says of one setting; None where it says nothing."""
    values = settings.get(concern, {})
    return values.get(name) if isinstance(values, Mapping) else None


def resolve(
    dataset: str | None = None,
    file: str | Path | None = None,
    flags: Mapping[str, Mapping[str, Any]] | None = None,
) -> ExperimentConfig:
    """All settings of an experiment; the later the stronger: defaults, the data set's preset, a file, flags.

    Args:
        dataset: name of the data set; None for the file's, else the default.
        file: JSON file of settings.
        flags: {concern: {name: value}}; None as a value is a flag that was not given.

    Raises:
        UserError: a file that cannot be read, an unknown name, or a value of the wrong kind.
    """
    settings = read_settings(file) if file else {}
    given = {
        concern: {name: value for name, value in values.items() if value is not None}
        for concern, values in (flags or {}).items()
    }
    backbone = find_setting(given, "model", "backbone") or find_setting(settings, "model", "backbone")
    config = ExperimentConfig()
    dataset = dataset or find_setting(settings, "data", "dataset") or config.data.dataset
    config = config.updated(preset(dataset, backbone), where="preset")
    config = config.updated(settings, where=str(file))
    return config.updated(given, where="flags").updated({"data": {"dataset": dataset}}, where="flags")


_PAPER = {
    "model": {"backbone": "vgg16", "feature_layer": "fc7"},
    "training": {"learning_rate": 1e-4, "rho": 0.9},
    "evaluation": {"protocol": "cnn-rnn"},
}
_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "demo": {
        "model": {"backbone": "compact", "backbone_weights": "none", "cell_units": 128, "dropout": 0.1},
        "training": {
            "epochs": 45,
            "learning_rate": 6e-4,
            "learning_rate_schedule": "cosine",
            "warmup_epochs": 3,
            "rho": 0.9,
            "patience": 0,
        },
    },
    "nuswide81": _PAPER | {"decoding": {"min_length": 3}},
    "nuswide1000": _PAPER | {"decoding": {"min_length": 10}},
    "coco2014": _PAPER,
    "voc2007": _PAPER,
}
_OWN = {
    "model": {"image_fit": "stretch", "standardise_features": True, "dropout": 0.7},
    "training": {"learning_rate": 4e-5, "warmup_epochs": 3, "epochs": 60},
}
_COMPACT = {"backbone_weights": "none", "feature_layer": "default", "standardise_features": False}


def preset(dataset: str, backbone: str | None = None) -> dict[str, dict[str, Any]]:
    """The settings that suit a data set: the paper's for its own, those for small data for any other.

    Args:
        dataset: its name.
        backbone: the CNN, where it is named: another than the preset's takes back what only that one has,
            and compact what only a frozen CNN has.

    >>> preset("ponds", "compact")["model"]["standardise_features"]
    False
    """
    found = _PRESETS.get(dataset, _OWN)
    if backbone in (None, found["model"].get("backbone")):
        return found
    changes = _COMPACT if backbone == "compact" else {"feature_layer": "default"}  # fc7 is VGG16's
    return {**found, "model": found["model"] | changes}


def _read_values(section, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = {item.name: item for item in dataclasses.fields(section)}
    result = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(
                f"{where}: unknown key {name!r}{nearest(name, known)}: expected {' or '.join(known)}"
            )
        result[name] = _convert(value, getattr(section, name), f"{where}: {name}")
    return result


def _convert(value, current, where: str):
    """`value` as the kind of `current`; a whole number will do for a float, and nothing else is bent."""
    kind = type(current)
    if isinstance(current, Path):
        if isinstance(value, (str, Path)):
            return Path(value)
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif type(value) is kind:
        return value
    name = "text" if kind is str or isinstance(current, Path) else kind.__name__
    raise UserError(
        f"{where} is {value!r}: expected {name}, such as {str(current) if name == 'text' else current!r}"
    )


def _check_ranges(config: ExperimentConfig) -> None:
    model, training, decoding = config.model, config.training, config.decoding
    for name, value, low, high in (
        ("image_size", model.image_size, 0, 4096),
        ("cell_units", model.cell_units, 1, 16_384),
        ("embedding_dim", model.embedding_dim, 1, 16_384),
        ("dropout", model.dropout, 0, 0.999),
        ("epochs", training.epochs, 1, math.inf),
        ("batch_size", training.batch_size, 1, math.inf),
        ("warmup_epochs", training.warmup_epochs, 0, math.inf),
        ("momentum", training.momentum, 0, 0.999),
        ("rho", training.rho, 0, 0.9999),
        ("clip_norm", training.clip_norm, 0, math.inf),
        ("weight_decay", training.weight_decay, 0, math.inf),
        ("patience", training.patience, 0, math.inf),
        ("seed", training.seed, 0, 2**32 - 1),
        ("shift", training.shift, 0, 0.49),
        ("beam_size", decoding.beam_size, 1, math.inf),
        ("min_length", decoding.min_length, 0, math.inf),
        ("max_length", decoding.max_length, 0, math.inf),
        ("length_penalty", decoding.length_penalty, 0, math.inf),
    ):
        if not (low <= value <= high and value < math.inf):
            limit = f"{low} or more" if high == math.inf else f"{low} to {high}"
            raise UserError(f"{name} {value}: expected {limit}")
    for name, rate in (
        ("learning_rate", training.learning_rate),
        ("backbone_learning_rate", training.backbone_learning_rate),
    ):
        if not 0 < rate < math.inf:
            raise UserError(f"{name} {rate}: expected more than 0")
    if decoding.max_length and decoding.min_length > decoding.max_length:
        raise UserError(
            f"min_length {decoding.min_length}: expected at most max_length, {decoding.max_length}"
        )
    for section, name in (
        (config.data, "label_order"),
        (model, "image_fit"),
        (model, "cell"),
        (training, "precision"),
        (training, "learning_rate_schedule"),
    ):
        choices = _choices(section, name)
        value = getattr(section, name)
        if value not in choices:
            raise UserError(f"{name} {value!r}{nearest(value, choices)}: expected {' or '.join(choices)}")


def _choices(section, name: str) -> tuple[str, ...]:
    from typing import get_args, get_type_hints

    return get_args(get_type_hints(type(section))[name])
