"""Each label's own threshold against brute force: every cut of every label, and every combination of cuts."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import f1_score

from cnnrnn_tf.evaluation.label_sets import cut_sets
from cnnrnn_tf.evaluation.metrics import SetMeasures, fit_label_thresholds, fit_threshold
from tfrecords.errors import UserError


def draw_table(seed, num_images=30, num_labels=4, unknown=0.2, digits=1):
    """Truth, scores with many ties, and known cells: some image has no label, some has all."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((num_images, num_labels)) < rng.uniform(0.05, 0.6, num_labels)).astype(int)
    truth[0], truth[1] = 0, 1
    scores = np.round(0.4 * truth + 0.6 * rng.random(truth.shape) ** rng.uniform(0.5, 4, num_labels), digits)
    return truth, scores.astype(np.float32), rng.random(truth.shape) >= unknown


def count_right(scores, truth, known, cuts):
    """Images whose whole set is right, one by one."""
    return sum(
        all((score >= cut) == bool(label) for score, label, seen, cut in zip(*row, cuts, strict=True) if seen)
        for row in zip(scores, truth, known, strict=True)
    )


def cuts_of(scores):
    return [*np.unique(scores), np.nextafter(scores.max(), np.float32(np.inf))]


# ---- F1


@pytest.mark.parametrize("seed", range(20))
def test_each_label_s_cut_is_the_highest_of_the_best_of_its_f1_by_exhaustive_search(seed):
    truth, scores, known = draw_table(seed)
    found = fit_label_thresholds(scores, truth, known, standard_errors=0)
    assert found.dtype == np.float32 and found.shape == (4,)
    for label, cut in enumerate(found):
        seen = known[:, label]
        hits, values = truth[seen, label], scores[seen, label]
        trials = {each: f1_score(hits, values >= each, zero_division=0) for each in np.unique(values)}
        if hits.any():
            assert cut == max(each for each, f1 in trials.items() if f1 > max(trials.values()) - 1e-12)
        else:
            assert cut == np.float32(fit_threshold(scores, truth, known, standard_errors=0))


@pytest.mark.parametrize("standard_errors", [0.5, 1, 2])
def test_a_label_leaves_the_common_cut_only_where_its_f1_gains_more_than_a_standard_error(standard_errors):
    num_own = num_common = 0
    for seed in range(20):
        truth, scores, known = draw_table(seed, digits=3)
        common = fit_threshold(scores, truth, known, standard_errors=standard_errors)
        found = fit_label_thresholds(scores, truth, known, standard_errors=standard_errors)
        for label, cut in enumerate(found):
            seen = known[:, label]
            hits, values = truth[seen, label], scores[seen, label]

            def f1(each, hits=hits, values=values):
                taken = values >= np.float32(each)
                return 2 * sum(hits * taken) / max(sum(hits) + sum(taken), 1)

            best, n = max(map(f1, np.unique(values))), hits.sum()
            share = (n * best + 1) / (n + 2)
            bound = best - standard_errors * np.sqrt(share * (1 - share) / (n + 2))
            if f1(common) >= bound - 1e-9:
                assert cut == np.float32(common)
                num_common += 1
            else:
                assert bound - 1e-9 <= f1(cut) <= best
                num_own += 1
    assert num_own > 3 and num_common > 20


def test_a_hand_worked_table():
    """The common cut misses all of label 1, whose scores are low, and label 2 has no positive."""
    many = [[0.9, 0.3, 0.1]] * 20 + [[0.8, 0.1, 0.2]] * 20 + [[0.1, 0.1, 0.3]] * 20
    truth = [[1, 1, 0]] * 20 + [[1, 0, 0]] * 20 + [[0, 0, 0]] * 20
    # lists cut at 0.8: 40 of 60 true labels and none wrong, O-F1 0.8; at 0.3: 60 of 80 right, 0.857
    assert fit_threshold(many, truth, standard_errors=0) == pytest.approx(0.3)
    found = fit_label_thresholds(many, truth)
    # of label 0 the F1 at 0.3 is 1, of label 1 too: both keep the common cut, as label 2 does
    assert found.tolist() == pytest.approx([fit_threshold(many, truth)] * 3)
    many = [[0.9, 0.2, 0.1]] * 20 + many[20:40] + [[0.1, 0.1, 0.3]] * 20
    # at 0.8 O-F1 is still 0.8; at 0.2: 60 of 100 are right, 0.75
    assert fit_threshold(many, truth) == pytest.approx(0.8)
    assert fit_label_thresholds(many, truth).tolist() == pytest.approx([0.8, 0.2, 0.8])


def test_a_few_positives_that_chance_separated_do_not_move_a_label():
    """Two positives, both found by the common cut beside one false: F1 0.8 against 1, and no certainty."""
    scores = [[0.9, 0.9], [0.8, 0.8], [0.7, 0.7], *[[0.1, 0.1]] * 20, *[[0.7, 0.1]] * 30]
    truth = [[1, 1], [1, 1], [1, 0], *[[0, 0]] * 20, *[[1, 0]] * 30]
    common = fit_threshold(scores, truth)
    assert common == pytest.approx(0.7)
    # 1 - sqrt(3/4 * 1/4 / 4) is 0.78: 0.8 is not worse by a standard error; without the addition it would be
    assert fit_label_thresholds(scores, truth).tolist() == pytest.approx([0.7, 0.7])
    assert fit_label_thresholds(scores, truth, standard_errors=0)[1] == np.float32(0.8)


def test_own_thresholds_raise_c_f1_on_other_images_where_labels_differ_in_their_scores():
    rng = np.random.default_rng(0)

    def draw(num_images):
        truth = rng.random((num_images, 12)) < np.linspace(0.5, 0.05, 12)
        probabilities = np.where(truth, rng.beta(4, 2, truth.shape), rng.beta(1, 6, truth.shape))
        return truth.astype(int), (probabilities * np.linspace(1, 0.3, 12)).astype(np.float32)

    holdout, test = draw(500), draw(5000)
    c_f1 = []
    for threshold in (fit_threshold(holdout[1], holdout[0]), fit_label_thresholds(holdout[1], holdout[0])):
        measures = SetMeasures(12, threshold=threshold)
        measures.update_state(*test)
        c_f1.append(float(measures.result()["C-F1_per_class"]))
    assert c_f1[1] > c_f1[0] + 0.05


# ---- exact match


@pytest.mark.parametrize("seed", range(30))
def test_no_single_label_can_be_moved_to_win_an_image_and_no_start_is_better(seed):
    truth, scores, known = draw_table(seed, num_images=15, num_labels=3)
    found = fit_label_thresholds(scores, truth, known, objective="exact_match")
    right = count_right(scores, truth, known, found)
    for label in range(3):
        for cut in cuts_of(scores):
            moved = found.copy()
            moved[label] = cut
            assert count_right(scores, truth, known, moved) <= right
    commons = [count_right(scores, truth, known, [cut] * 3) for cut in cuts_of(scores)]
    assert right >= max(commons)
    assert right >= count_right(scores, truth, known, fit_label_thresholds(scores, truth, known))


def test_coordinate_ascent_nearly_always_finds_the_best_of_all_combinations():
    reached = 0
    for seed in range(30):
        truth, scores, known = draw_table(seed, num_images=12, num_labels=3)
        found = count_right(
            scores, truth, known, fit_label_thresholds(scores, truth, known, objective="exact_match")
        )
        columns = [cuts_of(column) for column in scores.T]
        best = max(count_right(scores, truth, known, cuts) for cuts in itertools.product(*columns))
        assert found <= best
        reached += found == best
    assert reached >= 27


def test_a_hand_worked_table_for_exact_match():
    """One cut for both labels has two images of three right; own cuts all."""
    scores, truth = [[0.9, 0.3], [0.6, 0.4], [0.2, 0.1]], [[1, 0], [0, 1], [0, 0]]
    found = fit_label_thresholds(scores, truth, objective="exact_match")
    assert 0.6 < found[0] <= 0.9 and 0.3 < found[1] <= 0.4
    assert (
        max(count_right(scores, truth, np.ones((3, 2)), [cut] * 2) for cut in cuts_of(np.array(scores))) == 2
    )


def test_the_same_table_gives_the_same_thresholds():
    truth, scores, known = draw_table(3, num_images=200, num_labels=9)
    first, second = (fit_label_thresholds(scores, truth, known, "exact_match") for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_large_table_takes_seconds():
    rng = np.random.default_rng(0)
    truth = (rng.random((4000, 80)) < 0.03).astype(int)
    scores = np.clip(0.5 * truth + rng.random(truth.shape) ** 3 * 0.6, 0, 1).astype(np.float32)
    found = fit_label_thresholds(scores, truth, objective="exact_match")
    ours = np.all((scores >= found) == truth, axis=1).sum()
    assert ours > max(np.all((scores >= cut) == truth, axis=1).sum() for cut in np.linspace(0, 1, 50))


# ---- edges, of both objectives


@pytest.mark.parametrize("objective", ["F1", "exact_match"])
def test_unknown_cells_count_neither_way(objective):
    truth, scores, known = draw_table(5, num_images=60)
    found = fit_label_thresholds(scores, truth, known, objective)
    other_truth, other_scores = np.where(known, truth, 1 - truth), np.where(known, scores, np.nan)
    np.testing.assert_array_equal(fit_label_thresholds(other_scores, other_truth, known, objective), found)
    marks = np.where(known, truth, -1)
    np.testing.assert_array_equal(fit_label_thresholds(other_scores, marks, None, objective), found)


@pytest.mark.parametrize("objective", ["F1", "exact_match"])
@pytest.mark.parametrize("standard_errors", [0, 1])
def test_one_label_is_no_exception(objective, standard_errors):
    scores, truth = [[0.9], [0.7], [0.4], [0.1]], [[1], [1], [0], [0]]
    (cut,) = fit_label_thresholds(scores, truth, None, objective, standard_errors)
    assert 0.4 < cut <= 0.9


@pytest.mark.parametrize("objective", ["F1", "exact_match"])
def test_where_every_image_has_all_labels_every_image_gets_them(objective):
    scores = [[0.9, 0.3], [0.8, 0.2]]
    found = fit_label_thresholds(scores, [[1, 1], [1, 1]], None, objective, standard_errors=0)
    assert (np.asarray(scores, np.float32) >= found).all()


def test_a_label_without_a_positive_is_given_to_no_image_where_whole_sets_count():
    scores, truth = [[0.9, 0.95], [0.2, 0.8], [0.3, 0.1]], [[1, 0], [0, 0], [0, 0]]
    found = fit_label_thresholds(scores, truth, objective="exact_match")
    assert count_right(scores, truth, np.ones((3, 2)), found) == 3
    assert found[1] > np.float32(0.95)


@pytest.mark.parametrize("objective", ["F1", "exact_match"])
def test_scores_of_any_scale_and_infinite_ones_are_cut(objective):
    scores = np.float32([[np.inf, -3e38], [1e30, 3e38], [-np.inf, -1e30], [-1.0, -np.inf]])
    assert np.isfinite(fit_label_thresholds(scores, [[1, 1], [1, 1], [1, 1], [1, 1]], None, objective)).all()
    truth = [[1, 0], [1, 1], [0, 0], [0, 0]]
    found = fit_label_thresholds(scores, truth, None, objective, standard_errors=0)
    np.testing.assert_array_equal(scores >= found, np.asarray(truth) == 1)


@pytest.mark.parametrize("k", [None, 1, 2])
def test_minus_infinity_is_never_a_threshold_and_sets_are_cut_as_they_were_counted(k):
    """Every true label of image 0 scores minus infinity: only a cut there would find them."""
    scores = np.float32([[-np.inf, -np.inf, -np.inf], [-np.inf, -2, -np.inf], [3, -np.inf, -np.inf]])
    truth = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1]])
    cut = fit_threshold(scores, truth, k=k, standard_errors=0)
    assert cut == -2
    measures = SetMeasures(3, top_k=k, threshold=cut)
    measures.update_state(truth, scores)
    assert float(measures.result()["O-F1"]) == pytest.approx(2 * 2 / (2 + 9))
    assert cut_sets(scores, np.ones((3, 3)), k, cut).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
    for objective in ("F1", "exact_match"):
        own = fit_label_thresholds(scores, truth, None, objective, standard_errors=0)
        assert (own > -np.inf).all()
    # label 2 has no score to cut at, and keeps the common one
    assert fit_label_thresholds(scores, truth, standard_errors=0).tolist() == [3, -2, -2]


def test_a_marginal_of_0_is_no_threshold_and_its_label_keeps_the_common_one():
    """Label 1 is on no path of the images that have it: at 0 every image would get it."""
    scores = np.float32([[0.9, 0]] * 20 + [[0.0, 0]] * 5 + [[0.1, 0.3]] * 5)
    truth = [[1, 1]] * 20 + [[0, 1]] * 5 + [[0, 0]] * 5
    assert fit_label_thresholds(scores, truth, standard_errors=0)[1] == 0
    found = fit_label_thresholds(scores, truth, above=0)
    assert found.tolist() == [fit_threshold(scores, truth, above=0)] * 2 == pytest.approx([0.6, 0.6])
    for seed in range(20):
        truth, scores, known = draw_table(seed)
        scores = np.maximum(scores - 0.3, 0)  # many are 0
        assert fit_threshold(scores, truth, known, above=0) > 0
        for objective in ("F1", "exact_match"):
            assert (fit_label_thresholds(scores, truth, known, objective, above=0) > 0).all()


def test_a_label_that_scores_0_everywhere_is_given_to_no_image():
    """TensorFlow reads the float just above 0 as 0, and every image would reach it."""
    scores, truth = np.zeros((3, 1), np.float32), [[1], [0], [0]]
    own = fit_label_thresholds(scores, truth, objective="exact_match")
    measures = SetMeasures(1, threshold=own)
    measures.update_state(truth, scores)
    assert float(measures.result()["exact_match"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[-np.inf]], [[1]]), "no score of 1 hold-out image is above -inf; give a threshold, or other"),
        (([[0.0]], [[1]], None, "F1", 1.0, 0.0), "no score of 1 hold-out image is above 0"),
        (([[0.5]], [[0]]), "none of 1 hold-out image has a known label"),
        (([[0.5]], [[1]], [[0]]), "none of 1 hold-out image has a known label"),
        (([[np.nan]], [[1]]), "1 scores of known labels are NaN"),
        (([[0.5, 0.1]], [[1]]), r"one shape \[images, labels\], got \[1, 1\], \[1, 2\]"),
        (([[0.5]], [[1]], None, "f1"), r"objective 'f1' of thresholds.*: choose from F1, exact_match"),
        (([[0.5]], [[1]], None, "F1", -1), "standard_errors -1: expected 0 or more"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        fit_label_thresholds(*arguments)
