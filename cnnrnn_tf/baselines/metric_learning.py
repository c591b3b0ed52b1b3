"""Image features and labels enter; what neighbours in a metric learned from labels have leaves, as shares."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve
from sklearn.covariance import shrunk_covariance

from cnnrnn_tf.baselines.knn import KNN, Votes, find_neighbours
from cnnrnn_tf.baselines.method import Examples
from tfrecords.errors import UserError

SHRINKAGES = (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9)
"""What the hold-out chooses from: how far the covariance of the features is drawn to a sphere."""


class MetricLearning(KNN):
    """Nearest neighbours in a Mahalanobis metric that is Fisher's discriminant, summed over labels.

    What it is: a closed-form metric in which images with a label lie apart from images without it. With x the
    standardised features, m+ and m- their means over the images known to have label l and known not to, and
    p and 1 - p the shares of the two,

        S_b = sum over labels of p (1 - p) (m+ - m-)(m+ - m-)^T      between images with and without a label
        S_t = (1 - s) Cov(x) + s tr(Cov(x))/D I                      of all images, shrunk
        d(x, y)^2 = (x - y)^T M (x - y),   M = S_t^-1 S_b S_t^-1

    so images are compared in at most L dimensions, the outputs of L linear discriminants (Fisher 1936; with
    the between-scatter summed over labels as in Wang, Ding and Huang, Multi-label Linear Discriminant
    Analysis, ECCV 2010). A label's direction counts the more, the better it separates. The shrinkage s is
    the one of `SHRINKAGES` whose scores have the least mean squared error on the known cells of the hold-out.
    Then the nearest training images vote, as in `KNN`, with weights exp(-d^2 / d_K^2), d_K the distance
    of the farthest of them.

    What it is not: the algorithm behind the "Metric Learning" row of the paper's NUS-WIDE table, whose number
    is quoted there. That row cites reference 19, which we take to be Li, Lin, Rui, Rui and Tao, A Distributed
    Approach toward Discriminative Distance Metric Learning (TNNLS 2015, arXiv 1905.05177):
    metrics learned on subsets of the data and then aggregated. Nor is it Wang et al.'s MLDA, which
    compares images with a label with the mean of all, has a within-scatter, and spreads labels by their
    correlation.

    All images and features are used; nothing is sampled or reduced first. The covariance takes images x
    features^2 steps and some 40 features^2 bytes, a few minutes and 700 MB for 125,000 images of 4,096
    features; each shrinkage a Cholesky factorisation, features^3 / 3, and a search in L dimensions. Unknown
    labels enter neither means nor votes. A label without a known positive or a known negative shapes no
    metric and scores 0 or 1 everywhere, as in `KNN`; where no label has both, or no feature varies,
    neighbours are those in the features as they are.

    Args:
        num_neighbours: how many vote; all training images where there are fewer.

    Raises:
        UserError: fewer than one neighbour.
    """

    title = "Metric learning"

    def fit(self, train: Examples, holdout: Examples, seed: int = 0) -> None:
        features = self._standardiser.fit(train, holdout)
        if not holdout.known.any():
            raise UserError(
                f"{self.title}: no label of the {len(holdout.labels)} hold-out images is known, "
                "so none of its metrics can be chosen: give a hold-out with labels"
            )
        self._votes = Votes(train)
        held_out = self._standardiser.transform(holdout.features)
        differences = contrast_labels(features, train)  # [labels, features]
        if not differences.any():
            self._set_metric(features, None)
            return
        covariance = _estimate_covariance(features)
        errors = {}
        for shrinkage in SHRINKAGES:
            projection = learn_projection(covariance, differences, shrinkage)
            self._set_metric(features, projection)
            errors[shrinkage] = _squared_error(self._vote(held_out), holdout), projection
        self.shrinkage = min(errors, key=lambda shrinkage: errors[shrinkage][0])
        self._set_metric(features, errors[self.shrinkage][1])

    def score(self, features: np.ndarray) -> np.ndarray:
        return self._vote(self._standardiser.transform(features))

    def _set_metric(self, features: np.ndarray, projection: np.ndarray | None) -> None:
        self._projection = projection
        self._search = find_neighbours(self._project(features), self.num_neighbours, "euclidean")

    def _project(self, features: np.ndarray) -> np.ndarray:
        return features if self._projection is None else features @ self._projection

    def _vote(self, features: np.ndarray) -> np.ndarray:
        if not len(features):
            return np.zeros((0, self._votes.num_labels), np.float32)
        distances, neighbours = self._search.kneighbors(self._project(features))
        farthest = distances[:, -1:]
        relative = np.divide(distances, farthest, out=np.zeros_like(distances), where=farthest > 0)
        return self._votes.count(neighbours, np.exp(-(relative**2)))


def contrast_labels(features: np.ndarray, train: Examples) -> np.ndarray:
    """Rows d_l with S_b = sum of d_l d_l^T: sqrt(p (1 - p)) (m+ - m-) of each label.

    Args:
        features: `<float32>[images, features]`.
        train: the labels of those images.

    Returns:
        `<float64>[labels with a known positive and a known negative, features]`.
    """
    has = train.targets.astype(np.float32)
    lacks = (train.known != 0) - has
    num_having, num_lacking = (table.sum(axis=0, dtype=np.float64) for table in (has, lacks))
    both = (num_having > 0) & (num_lacking > 0)
    num_having, num_lacking = num_having[both, None], num_lacking[both, None]
    means_having = (has[:, both].T @ features) / num_having
    means_lacking = (lacks[:, both].T @ features) / num_lacking
    spread = np.sqrt(num_having * num_lacking) / (num_having + num_lacking)
    return spread * (means_having - means_lacking)


def learn_projection(covariance: np.ndarray, differences: np.ndarray, shrinkage: float) -> np.ndarray:
    """P with M = P P^T, so that the metric is the Euclidean distance between rows of features @ P.

    Args:
        covariance: `<float64>[features, features]`.
        differences: `<float64>[labels, features]`, as `contrast_labels` gives them.
        shrinkage: s, above 0 and at most 1.

    Returns:
        S_t^-1 d_l as columns, `<float32>[features, labels]`.
    """
    scatter = shrunk_covariance(covariance, shrinkage=shrinkage)
    return solve(scatter, differences.T, assume_a="pos").astype(np.float32)


def _estimate_covariance(features: np.ndarray) -> np.ndarray:
    """`<float64>[features, features]`, without a copy of the features in float64."""
    mean = features.mean(axis=0, dtype=np.float64)
    second_moment = (features.T @ features).astype(np.float64) / len(features)
    return second_moment - np.outer(mean, mean)


def _squared_error(scores: np.ndarray, examples: Examples) -> float:
    known = examples.known != 0
    return float(np.mean((scores - examples.targets)[known] ** 2))
