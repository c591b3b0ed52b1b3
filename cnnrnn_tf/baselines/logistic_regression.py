"""Image features and labels enter; each label's probability by a logistic regression of its own leaves."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from sklearn import linear_model

from cnnrnn_tf.baselines.one_against_rest import OneAgainstRest


class LogisticRegression(OneAgainstRest):
    """A logistic regression for each label, one against the rest, on features of a CNN.

    Not in the paper: the plainest method that gives probabilities, and hard to beat on small data. With
    features x standardised and y = 1 or -1,

        minimise  |w|^2 / 2 + C sum over known images of log(1 + exp(-y (w x + b)))

    for each label. The score is 1 / (1 + exp(-w x - b)). A label without a known positive scores 0
    everywhere, one without a known negative 1.

    The solver is scikit-learn's `LogisticRegression` with L-BFGS, which works in float32 and passes over all
    images once an iteration, some twenty times. The time grows with images x features x labels: 1 s a label
    for 20,000 images of 4,096 features, so ten minutes for the 125,000 images of NUS-WIDE with 81 concepts
    and two hours with 1,000 tags. Its products are small: where other work shares the cores, one thread
    (`OPENBLAS_NUM_THREADS=1`) is much faster than many that wait for each other.

    Args:
        regularisation: C, how much an image's likelihood weighs; small values regularise.

    Raises:
        UserError: C is not above 0.
    """

    title = "Logistic regression"
    gives_probabilities = True

    constant = np.inf  # where the likelihood of a label that never varies has its supremum

    def __init__(self, regularisation: float = 0.003):
        super().__init__(regularisation)

    def score(self, features: np.ndarray) -> np.ndarray:
        return expit(super().score(features))

    def make_solver(self) -> linear_model.LogisticRegression:
        return linear_model.LogisticRegression(C=self.regularisation, solver="lbfgs", max_iter=1000)
