"""The settings of a CNN-RNN experiment enter; those of the paper's No-RNN leave."""

from __future__ import annotations

import dataclasses

from cnnrnn_tf.config import ExperimentConfig


def without_recurrence(config: ExperimentConfig) -> ExperimentConfig:
    """The same experiment without its RNN, the row "No RNN" of the paper's MS-COCO table.

    The paper (section 4.3): "We also replace the recurrent layer with a linear embedding layer in the
    proposed architecture". So o(t) = W w_k(t), and with that the next label depends on the image and on the
    last label alone: what came before it is forgotten (`cnnrnn_tf.model.cells.LinearCell`). Paths, training
    and the beam search stay as they are. It is no `Method`, then, but an experiment like any other:

    >>> without_recurrence(ExperimentConfig()).model.cell
    'none'
    """
    return dataclasses.replace(config, model=dataclasses.replace(config.model, cell="none"))
