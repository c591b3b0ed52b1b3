"""Label scores or 0/1 label sets enter in batches; one measure of `SetMeasures` leaves as a single value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from cnnrnn_tf.evaluation.set_metrics import SetMeasures
from tfrecords.errors import UserError


class _OneSetMeasure(SetMeasures):
    """One of `SET_MEASURES` as a metric with a single value; several of them cost as many passes."""

    measure: str

    def __init__(
        self,
        num_labels: int,
        top_k: int | None = None,
        threshold: float | Sequence[float] | None = None,
        never_predicted_precision: int = 0,
        never_predicted_counts: int = 0,
        name: str | None = None,
        dtype: Any = "float64",
    ) -> None:
        super().__init__(
            num_labels,
            top_k,
            threshold,
            never_predicted_precision,
            never_predicted_counts,
            measures=(self.measure,),
            name=name,
            dtype=dtype,
        )

    def result(self) -> Any:
        return super().result()[self.measure]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {key: value for key, value in config.items() if key not in ("measures", "prefix")}


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class ClassPrecision(_OneSetMeasure):
    """C-P of `SetMeasures`: the mean over labels of precision."""

    measure = "C-P"


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class ClassRecall(_OneSetMeasure):
    """C-R of `SetMeasures`: the mean over labels of recall."""

    measure = "C-R"


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class ClassF1(_OneSetMeasure):
    """C-F1 of `SetMeasures`: "harmonic", of C-P and C-R, or "per_class", the mean of the labels' F1."""

    def __init__(self, num_labels: int, average: str, **options: Any) -> None:
        if average not in ("harmonic", "per_class"):
            raise UserError(f"average of ClassF1 must be 'harmonic' or 'per_class', got {average!r}")
        self.average = average
        self.measure = f"C-F1_{average}"
        super().__init__(num_labels, **options)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "average": self.average}


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class OverallPrecision(_OneSetMeasure):
    """O-P of `SetMeasures`: right among all predicted labels."""

    measure = "O-P"


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class OverallRecall(_OneSetMeasure):
    """O-R of `SetMeasures`: found among all true labels."""

    measure = "O-R"


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class OverallF1(_OneSetMeasure):
    """O-F1 of `SetMeasures`: the harmonic mean of O-P and O-R."""

    measure = "O-F1"


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class HammingLoss(_OneSetMeasure):
    """Hamming loss of `SetMeasures`: wrong among all known cells."""

    measure = "hamming_loss"


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class ExactMatch(_OneSetMeasure):
    """Subset accuracy of `SetMeasures`: images whose known labels are all right."""

    measure = "exact_match"


@keras.saving.register_keras_serializable(package="cnnrnn_tf")
class ExampleF1(_OneSetMeasure):
    """Example-based F1 of `SetMeasures`: the mean over images of each image's F1."""

    measure = "example_F1"
