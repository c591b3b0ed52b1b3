"""Label scores or label sets enter in batches; the measures of multi-label tables leave, 0 to 1.

    model.compile(loss="binary_crossentropy", metrics=[SetMeasures(num_labels=81, top_k=3), MAPAtN(10)])

The one place to import measures from. `SetMeasures` and its single-valued kin judge label sets; `MAPAtN`,
`PrecisionAtK` and `RecallAtK` rank labels within an image. These are Keras metrics, at home in `compile`, in
mixed precision and under replicas. `MeanAveragePrecision` ranks images within a label and is fed on the host;
`BinnedMeanAveragePrecision` is a Keras metric that comes close to it.
"""

from cnnrnn_tf.evaluation.average_precision import AP_SHAPES, MeanAveragePrecision, average_precision
from cnnrnn_tf.evaluation.binned_average_precision import BinnedMeanAveragePrecision
from cnnrnn_tf.evaluation.ranking_metrics import MAP_DENOMINATORS, MAPAtN, PrecisionAtK, RecallAtK
from cnnrnn_tf.evaluation.set_metrics import SET_MEASURES, SetMeasures
from cnnrnn_tf.evaluation.single_set_metrics import (
    ClassF1,
    ClassPrecision,
    ClassRecall,
    ExactMatch,
    ExampleF1,
    HammingLoss,
    OverallF1,
    OverallPrecision,
    OverallRecall,
)
from cnnrnn_tf.evaluation.thresholds import fit_label_thresholds, fit_threshold

__all__ = [
    "AP_SHAPES",
    "MAP_DENOMINATORS",
    "SET_MEASURES",
    "BinnedMeanAveragePrecision",
    "ClassF1",
    "ClassPrecision",
    "ClassRecall",
    "ExactMatch",
    "ExampleF1",
    "HammingLoss",
    "MAPAtN",
    "MeanAveragePrecision",
    "OverallF1",
    "OverallPrecision",
    "OverallRecall",
    "PrecisionAtK",
    "RecallAtK",
    "SetMeasures",
    "average_precision",
    "fit_label_thresholds",
    "fit_threshold",
]
