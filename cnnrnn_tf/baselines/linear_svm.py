"""Image features and labels enter; one linear SVM's decision value a label leaves: the paper's CNN-SVM."""

from __future__ import annotations

from sklearn.svm import LinearSVC

from cnnrnn_tf.baselines.one_against_rest import OneAgainstRest


class LinearSVM(OneAgainstRest):
    """CNN-SVM: a linear support vector machine for each label, one against the rest, on features of a CNN.

    A row of the paper's table for PASCAL VOC 2007, from Razavian et al. (CVPR Workshops 2014, arXiv
    1403.6382), who read OverFeat features of length 1; here they come from any CNN. With
    features x standardised and y = 1 or -1,

        minimise  (|w|^2 + b^2) / 2 + C sum over known images of max(0, 1 - y (w x + b))^2

    for each label. The score is w x + b: it ranks, and no cut at 0 is promised to be good. A label without a
    known positive scores -1 everywhere, one without a known negative +1 (where the hinge ends).

    The solver is scikit-learn's `LinearSVC`, in the dual, whose steps are one image each: with a C this small
    it needs few passes. The time grows with images x features x labels: 3 s a label for 20,000 images of
    4,096 features on one core, so half an hour for the 125,000 images of NUS-WIDE with 81 concepts and some
    five hours with 1,000 tags. It holds a copy of the features in its own form, 16 bytes a value, beside one
    in float64: 12 GB for those. With a large C the dual takes many passes, and scikit-learn warns where they
    do not suffice.

    Args:
        regularisation: C, how much an image outside the margin costs; small values regularise.

    Raises:
        UserError: C is not above 0.
    """

    title = "CNN-SVM"

    constant = 1.0

    def __init__(self, regularisation: float = 1e-4):
        super().__init__(regularisation)

    def make_solver(self) -> LinearSVC:
        # The order of the images in each pass is drawn; it changes where the solver stops, not what it seeks.
        return LinearSVC(C=self.regularisation, dual=True, random_state=0)
