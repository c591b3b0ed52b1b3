"""Image features and labels enter; the labels of similar training images leave, as weighted shares."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from sklearn.neighbors import NearestNeighbors

from cnnrnn_tf.baselines.method import Examples, Method
from cnnrnn_tf.baselines.standardiser import Standardiser
from tfrecords.errors import UserError

SMALLEST_WEIGHT = 1e-6
"""What a neighbour weighs at least: where none is similar, all count alike."""


class KNN(Method):
    """The K nearest neighbours of the paper's NUS-WIDE table: training images nearby vote for their labels.

    The paper says no more than "K nearest neighbor search"; the number of neighbours, the distance and the
    weights are ours. Neighbours are the training images of highest cosine similarity between standardised
    features, and weigh as much as they are similar. With N the neighbours of an image of which label l is
    known,

        score(l) = sum over N of weight * (has l) / sum over N of weight

    A neighbour of which l is unknown has no vote on l. Where none has, the score is the share of the training
    images known to have l among those of which l is known; 0 where l is known of no image at all.

    scikit-learn's `NearestNeighbors` compares every image with every training image, by matrix products in
    blocks of at most `sklearn.get_config()["working_memory"]` (1 GiB): the table of all distances is never
    whole. The time grows with images x training images x features: 1.3 s for 1,000 images against 20,000 of
    4,096 features, so some ten minutes for the 84,000 test images of NUS-WIDE against its 125,000.

    Args:
        num_neighbours: how many vote; all training images where there are fewer.

    Raises:
        UserError: fewer than one neighbour.
    """

    title = "KNN"
    gives_probabilities = True

    def __init__(self, num_neighbours: int = 20):
        if num_neighbours < 1:
            raise UserError(f"{self.title}: num_neighbours {num_neighbours}: expected 1 or more")
        self.num_neighbours = num_neighbours
        self._standardiser = Standardiser(self.title)

    def fit(self, train: Examples, holdout: Examples, seed: int = 0) -> None:
        features = self._standardiser.fit(train, holdout)
        self._search = find_neighbours(features, self.num_neighbours, "cosine")
        self._votes = Votes(train)

    def score(self, features: np.ndarray) -> np.ndarray:
        features = self._standardiser.transform(features)
        if not len(features):
            return np.zeros((0, self._votes.num_labels), np.float32)
        distances, neighbours = self._search.kneighbors(features)
        return self._votes.count(neighbours, 1 - distances)


class Votes:
    """Counts what training images say of each label; images of which it is unknown say nothing."""

    def __init__(self, train: Examples):
        self.num_labels = train.num_labels
        self._has = train.targets.astype(np.float32)
        self._knows = (train.known != 0).astype(np.float32)
        num_known = self._knows.sum(axis=0, dtype=np.float64)
        self._frequencies = self._has.sum(axis=0, dtype=np.float64) / np.maximum(num_known, 1)

    def count(self, neighbours: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The weighted share of the neighbours that have each label, among those that know of it.

        Args:
            neighbours: `<int>[images, neighbours]`, rows of the training images.
            weights: `<float>[images, neighbours]`; what is below `SMALLEST_WEIGHT` is raised to it.

        Returns:
            `<float32>[images, labels]`, 0 to 1; a label's training frequency where no neighbour knows of it.
        """
        num_images, num_neighbours = neighbours.shape
        weights = np.maximum(weights, SMALLEST_WEIGHT).astype(np.float32)
        ends = np.arange(num_images + 1) * num_neighbours
        shape = (num_images, len(self._has))
        table = csr_array((weights.ravel(), neighbours.ravel(), ends), shape=shape)
        having, knowing = table @ self._has, table @ self._knows  # [images, labels]
        shares = having / np.where(knowing > 0, knowing, 1)
        return np.where(knowing > 0, shares, self._frequencies).astype(np.float32)


def find_neighbours(features: np.ndarray, num_neighbours: int, metric: str) -> NearestNeighbors:
    """A search among the rows of `features`, `<float32>[images, features]`; never for more than there are."""
    search = NearestNeighbors(
        n_neighbors=min(num_neighbours, len(features)), metric=metric, algorithm="brute"
    )
    return search.fit(features)
