"""Beam search against brute-force enumeration, the paper's procedure on plain lists, and worked examples."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from cnnrnn_tf.model import beam_search as beam_search_module
from cnnrnn_tf.model.beam_search import BeamResult, beam_search, rank_labels
from tfrecords.errors import UserError

MODELS, LABELS, UNITS = 200, 6, 5
END, START = LABELS, LABELS + 1


# --- 200 random models: small RNNs whose scores depend on the whole prefix, one model an image ---


def to_numpy(result: BeamResult) -> BeamResult:
    return BeamResult(*(None if field is None else field.numpy() for field in result))


class RandomModels:
    """Recurrent models with their own weights each; `step` runs them in TensorFlow, `table` in NumPy."""

    def __init__(self, seed: int, num_labels: int = LABELS, models: int = MODELS):
        random = np.random.default_rng(seed)
        self.num_labels, self.models = num_labels, models
        self.inputs = random.normal(size=(models, num_labels + 2, UNITS))
        self.recurrent = random.normal(size=(models, UNITS, UNITS))
        self.outputs = 2 * random.normal(size=(models, UNITS, num_labels + 1))
        self.images = random.normal(size=(models, num_labels + 1))

    def step(self, rows=None):
        """The step function; `rows` picks the models that make up the batch."""
        rows = tf.range(self.models) if rows is None else tf.constant(rows, tf.int32)

        def step(tokens, parents, state, image_rows):
            model = tf.gather(rows, image_rows)
            before = tf.einsum(
                "ru,ruv->rv", tf.gather(state["rnn"], parents), tf.gather(self.recurrent, model)
            )
            now = tf.tanh(tf.gather_nd(self.inputs, tf.stack([model, tokens], axis=1)) + before)
            scores = tf.einsum("ru,rul->rl", now, tf.gather(self.outputs, model))
            return scores + tf.gather(self.images, model), {"rnn": now}

        return step

    def search(self, rows=None, **options) -> BeamResult:
        batch_size = self.models if rows is None else len(rows)

        @tf.function
        def run():
            state = {"rnn": tf.zeros([1, UNITS], tf.float64)}
            return beam_search(self.step(rows), state, batch_size, self.num_labels, **options)

        return to_numpy(run())

    def table(self, max_length: int) -> dict[tuple, np.ndarray]:
        """Each prefix of up to max_length labels: log P(next token | it), <float64>[models, labels + 1]."""
        table, level = {}, {(): np.tanh(self.inputs[:, -1])}
        for _ in range(max_length + 1):
            following = {}
            for prefix, state in level.items():
                scores = np.einsum("mu,mul->ml", state, self.outputs) + self.images
                table[prefix] = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
                before = np.einsum("mu,muv->mv", state, self.recurrent)
                for label in set(range(self.num_labels)) - set(prefix):
                    following[*prefix, label] = np.tanh(before + self.inputs[:, label])
            level = following
        return table


MODEL = RandomModels(seed=1)
TABLE = MODEL.table(LABELS)
EACH = np.arange(MODELS)
TOLERANCE = 2e-5  # of sums of float32 logarithms down to -60
CONDITIONS = 20  # what an option demands of an image repeats after as many images
GIVEN_CASES = [(), (3,), (0, 5), (1, 2, 4), (0, 2, 3)]
GIVEN = [GIVEN_CASES[row % 5] for row in EACH]
GIVEN_MASK = np.array([[label in given for label in range(LABELS)] for given in GIVEN])
ABSENT = [[(), (1,), (3, 4), (5,)][row % 4] for row in EACH]  # some are given too: absent outranks it
ABSENT_MASK = np.array([[label in absent for label in range(LABELS)] for absent in ABSENT])
RANK = np.array([4, 0, 5, 2, 1, 3])  # label 1 comes first in the fixed order, label 2 last
PREFIXES = [[(), (5,), (2, 0), (4, 1, 3)][row % 4] for row in EACH]
PREFIX_ROWS = np.array([(*prefix, 0, 0, 0)[:3] for prefix in PREFIXES], np.int32)
PREFIX_LENGTHS = np.array([len(prefix) for prefix in PREFIXES], np.int32)
MINIMA = np.array(EACH % 4, np.int32)
MAXIMA = np.array(3 + EACH % 2, np.int32)


def holds_given(row, path):
    return set(GIVEN[row]) <= set(path)


def follows_order(row, path):
    """Nothing ranked after a missing given label may come: what precedes it is ranked before it."""
    return all(RANK[label] < RANK[given] for given in GIVEN[row] for label in path[: path.index(given)])


# What the options say about a whole path, never about a step: (options, may this model emit this path?)
# Each is also searched with what the masks leave renormalised.
RULES = {}
for name, (options, allows) in {
    "all six labels": (dict(max_length=6), lambda row, path: True),
    "a length penalty": (dict(max_length=4, length_penalty=0.7), lambda row, path: True),
    "a minimum": (dict(max_length=3, min_length=2), lambda row, path: len(path) >= 2),
    "a minimum for each image": (
        dict(max_length=3, min_length=MINIMA),
        lambda row, path: len(path) >= MINIMA[row],
    ),
    "a maximum for each image": (
        dict(max_length=4, row_max_length=MAXIMA),
        lambda row, path: len(path) <= MAXIMA[row],
    ),
    "given labels": (dict(max_length=3, given=GIVEN_MASK), holds_given),
    "given labels in order": (
        dict(max_length=4, given=GIVEN_MASK, given_in_order=RANK),
        lambda row, path: holds_given(row, path) and follows_order(row, path),
    ),
    "given and absent labels": (
        dict(max_length=3, given=GIVEN_MASK, absent=ABSENT_MASK),
        lambda row, path: (
            set(GIVEN[row]) - set(ABSENT[row]) <= set(path) <= set(range(LABELS)) - set(ABSENT[row])
        ),
    ),
    "a prefix": (
        dict(max_length=3, prefix=PREFIX_ROWS, prefix_lengths=PREFIX_LENGTHS),
        lambda row, path: path[: PREFIX_LENGTHS[row]] == PREFIXES[row],
    ),
    "given labels between minimum and maximum": (
        dict(max_length=4, given=GIVEN_MASK, min_length=MINIMA, row_max_length=MAXIMA),
        lambda row, path: holds_given(row, path) and MINIMA[row] <= len(path) <= MAXIMA[row],
    ),
}.items():
    RULES[name] = (options, allows)
    RULES[f"{name}, renormalised"] = (options | dict(renormalise=True), allows)


class Enumeration:
    """All paths that a rule allows some models, and log P(next token | prefix) on them, by brute force."""

    def __init__(self, rule: str, rows: np.ndarray, paths: list[tuple]):
        options = RULES[rule][0]
        self.rows, self.paths = rows, paths
        self.penalty = options.get("length_penalty", 0.0)
        self.tokens = {}  # prefix: the tokens that lead on to an allowed path
        for path in paths:
            for end, token in enumerate((*path, END)):
                self.tokens.setdefault(path[:end], set()).add(token)
        self.steps = {}  # prefix: log P of each token, <float64>[rows, labels + 1]
        for prefix, tokens in self.tokens.items():
            log_probs = np.full([len(rows), LABELS + 1], -np.inf)
            log_probs[:, list(tokens)] = TABLE[prefix][np.ix_(rows, list(tokens))]
            if options.get("renormalise"):
                log_probs -= np.log(np.exp(log_probs).sum(axis=1, keepdims=True))
            self.steps[prefix] = log_probs

    def log_probs(self, path) -> np.ndarray:
        """log P of each label and of END, <float64>[labels + 1, rows]."""
        return np.array([self.steps[path[:end]][:, token] for end, token in enumerate((*path, END))])


@functools.cache
def enumerations(rule: str) -> list[Enumeration]:
    """One Enumeration for all models that the rule allows the same paths."""
    options, allows = RULES[rule]
    candidates = [path for path in TABLE if len(path) <= options["max_length"]]
    groups = {}
    for row in range(CONDITIONS):
        paths = tuple(path for path in candidates if allows(row, path))
        groups.setdefault(paths, []).extend(range(row, MODELS, CONDITIONS))
    return [Enumeration(rule, np.array(rows), list(paths)) for paths, rows in groups.items()]


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


def shares(paths, log_probs) -> np.ndarray:
    """Each label's share of the paths' probability, for log_probs [paths, rows]."""
    holds = np.array([[label in path for label in range(LABELS)] for path in paths])
    return np.einsum("pr,pl->rl", np.exp(log_probs), holds) / np.exp(log_probs).sum(axis=0)[:, None]


def highest_steps(prefixes, rows) -> np.ndarray:
    return np.exp([TABLE[prefix][rows, :LABELS] for prefix in prefixes]).max(axis=0)


def candidates_of(result: BeamResult, row: int) -> list[tuple]:
    """The paths of one image, best first, once their padding is checked."""
    tokens, lengths = result.tokens[row], result.lengths[row]
    is_path = result.log_probs[row] > -np.inf
    is_padding = np.arange(tokens.shape[1]) >= lengths[:, None]
    assert ((tokens == result.marginals.shape[1]) == is_padding).all()
    assert (result.token_log_probs[row][is_padding] == 0).all()
    assert (lengths[~is_path] == 0).all() and (np.diff(is_path.astype(int)) <= 0).all()
    return [
        tuple(path[:length]) for path, length in zip(tokens[is_path].tolist(), lengths[is_path], strict=True)
    ]


# --- the random models: brute force, the paper's procedure, greedy ---


@pytest.mark.parametrize("rule", RULES)
def test_a_wide_beam_finds_exactly_the_paths_that_enumeration_finds(rule):
    options = RULES[rule][0]
    num_paths = sum(
        len(path) <= options["max_length"] for path in TABLE
    )  # 157, 517, or 1957 of all six labels
    result = MODEL.search(beam_size=num_paths, **options)
    assert (result.marginals <= 1).all()
    for every in enumerations(rule):
        log_probs = [every.log_probs(path) for path in every.paths]
        totals = np.array([each.sum(axis=0) for each in log_probs])  # [paths, rows]
        marginals, step_probs = shares(every.paths, totals), highest_steps(every.steps, every.rows)
        place = {path: i for i, path in enumerate(every.paths)}
        for i, row in enumerate(every.rows):
            found = candidates_of(result, row)
            assert len(found) == len(every.paths) and set(found) == place.keys()
            order = [place[path] for path in found]
            expected = totals[order, i]
            assert_close(result.log_probs[row, : len(found)], expected)
            best_first = expected / (result.lengths[row, : len(found)] + 1) ** every.penalty
            assert (np.diff(best_first) < TOLERANCE).all()
            assert_close(result.token_log_probs[row, 0, : len(found[0])], log_probs[order[0]][:-1, i])
            assert_close(result.marginals[row], marginals[i])
            assert_close(result.step_probs[row], step_probs[i])


def search_as_the_paper_says(step, beam_size, max_length, penalty):
    """Section 3.3 word for word, on lists, for one image: C best first, the steps, all paths once live."""

    def score(log_prob, length):
        return log_prob / (length + 1) ** penalty

    live, candidates, visited, num_steps = [((), 0.0)], [], set(), 0
    while live:
        num_steps += 1
        extended = []
        for path, log_prob in live:
            visited.add(path)
            tokens = step(path)
            best = sorted(tokens, key=tokens.get, reverse=True)[: min(beam_size, LABELS + 1)]
            extended += [((*path, token), log_prob + tokens[token]) for token in best]
        extended.sort(key=lambda each: each[1], reverse=True)
        survivors = extended[:beam_size]
        live = [(path, log_prob) for path, log_prob in survivors if path[-1] != END]
        candidates += [(path[:-1], log_prob) for path, log_prob in survivors if path[-1] == END]
        candidates.sort(key=lambda each: score(each[1], len(each[0])), reverse=True)
        candidates = candidates[:beam_size]
        worst = min((score(log_prob, len(path)) for path, log_prob in candidates), default=0)
        if len(candidates) == beam_size and all(score(p, max_length) < worst for _, p in live):
            break
    return candidates, num_steps, visited


@pytest.mark.parametrize(
    ("rule", "beam_size"), [(rule, 3) for rule in RULES] + [("all six labels", n) for n in (1, 2, 8)]
)
def test_a_narrow_beam_takes_the_steps_that_the_paper_describes(rule, beam_size):
    result = MODEL.search(beam_size=beam_size, **RULES[rule][0])
    for every in enumerations(rule):
        for i, row in enumerate(every.rows):
            maximum = MAXIMA[row] if "row_max_length" in RULES[rule][0] else RULES[rule][0]["max_length"]
            candidates, num_steps, visited = search_as_the_paper_says(
                lambda path: {t: every.steps[path][i, t] for t in every.tokens[path]},  # noqa: B023
                beam_size,
                maximum,
                every.penalty,
            )
            assert candidates_of(result, row) == [path for path, _ in candidates], f"model {row}"
            log_probs = np.array([[log_prob] for _, log_prob in candidates])
            assert_close(result.log_probs[row, : len(candidates)], log_probs[:, 0])
            assert result.num_steps[row] == num_steps
            assert_close(result.marginals[row], shares([path for path, _ in candidates], log_probs)[0])
            assert_close(result.step_probs[row], highest_steps(visited, row))


@pytest.mark.parametrize("minimum", [0, 2])
def test_a_beam_of_one_is_greedy_decoding(minimum):
    result = MODEL.search(beam_size=1, max_length=6, min_length=minimum)
    for row in range(MODELS):
        path = ()
        while True:
            scores = TABLE[path][row].copy()
            scores[list(path)] = -np.inf
            scores[END] = scores[END] if len(path) >= minimum else -np.inf
            if scores.argmax() == END:
                break
            path = (*path, int(scores.argmax()))
        assert candidates_of(result, row) == [path]
        assert result.num_steps[row] == len(path) + 1


@pytest.mark.parametrize("rule", ["all six labels", "given labels in order, renormalised"])
def test_a_result_does_not_depend_on_what_else_is_in_the_batch(rule):
    def search(rows):
        options = {k: v[rows] if np.shape(v)[:1] == (MODELS,) else v for k, v in RULES[rule][0].items()}
        return MODEL.search(rows, beam_size=3, **options)

    together = MODEL.search(beam_size=3, **RULES[rule][0])
    assert len(set(together.num_steps)) > 1, "some searches end before others"
    for rows in ([58], [113], [199, 3, 3, 120]):
        alone = search(rows)
        for place, row in enumerate(rows):
            for name, value in alone._asdict().items():
                if value.dtype == np.int32:
                    np.testing.assert_array_equal(value[place], getattr(together, name)[row], name)
                else:
                    np.testing.assert_allclose(value[place], getattr(together, name)[row], 1e-6, 1e-6)


# --- worked examples: the scores depend on the token before alone ---


def search_table(*tables, beam_size=2, **options) -> BeamResult:
    """Searches with a table of probabilities [token before: labels, END, START; next token] an image."""
    logs = np.log(np.array(tables, np.float32))
    num_labels = logs.shape[2] - 1

    def step(tokens, parents, state, image_rows):
        return tf.gather_nd(logs, tf.stack([image_rows, tokens], axis=1)), state

    options = dict(max_length=num_labels) | options
    result = beam_search(step, (), len(tables), num_labels, beam_size=beam_size, **options)
    return to_numpy(result)


SKY, CLOUDS, SEA = range(3)
SCENE = [  # SKY, CLOUDS, SEA, END
    [0.05, 0.40, 0.20, 0.35],  # after SKY
    [0.10, 0.10, 0.20, 0.60],  # after CLOUDS
    [0.20, 0.30, 0.10, 0.40],  # after SEA
    [0.25, 0.25, 0.25, 0.25],  # after END: never asked
    [0.60, 0.10, 0.25, 0.05],  # after START
]


def test_figure_5_by_hand():
    # Step 1: SKY .6, SEA .25 (CLOUDS .1 and END .05 find no place).
    # Step 2: SKY CLOUDS .24, SKY END .21 (SEA END .10 and SEA CLOUDS .075 find no place). C: SKY.
    # Step 3: SKY CLOUDS END .144, SKY CLOUDS SEA .048 in the place that SKY END left. C: SKY, SKY CLOUDS.
    # C is full and .048 is less than .144: the search ends, one step before the maximum of 3 labels would.
    result = search_table(SCENE)
    assert candidates_of(result, 0) == [(SKY,), (SKY, CLOUDS)]
    assert np.exp(result.log_probs[0]) == pytest.approx([0.21, 0.144])
    assert np.exp(result.token_log_probs[0, 1]) == pytest.approx([0.6, 0.4, 1.0])
    assert result.num_steps.tolist() == [3]
    assert result.marginals[0] == pytest.approx([1.0, 0.144 / 0.354, 0.0])
    assert result.step_probs[0] == pytest.approx([0.6, 0.4, 0.25])
    assert rank_labels(BeamResult(*result))[0].numpy() == pytest.approx([1.0, 0.144 / 0.354, -4.0])


def test_greedy_misses_the_better_path_of_the_scene():
    result = search_table(SCENE, beam_size=1)
    assert candidates_of(result, 0) == [(SKY, CLOUDS)] and np.exp(result.log_probs[0]) == pytest.approx(
        [0.144]
    )


def test_equal_probabilities_go_to_the_better_path_then_to_the_lower_token():
    # All 1/4. Step 1: 0 and 1. Step 2: 0 1 and 0 2. Step 3: 0 1 2 and 0 1 END. Step 4: 0 1 2 END.
    result = search_table(np.full([5, 4], 0.25))
    assert candidates_of(result, 0) == [(0, 1), (0, 1, 2)]


def test_a_live_path_as_probable_as_the_worst_candidate_goes_on_but_does_not_replace_it():
    # Step 1: 0 and END, 1/2 each. Step 2: 0 1 and 0 END, 1/4 each: C is full. Step 3: 0 1 END, 1/4.
    rare = 1e-30
    table = np.full([4, 3], rare)
    table[[0, 0, 1, 3, 3], [1, 2, 2, 0, 2]] = [0.5, 0.5, 1, 0.5, 0.5]
    result = search_table(table)
    assert candidates_of(result, 0) == [(), (0,)]
    assert result.num_steps.tolist() == [3]


def test_a_length_penalty_lets_the_longer_path_overtake_and_the_search_go_on_for_it():
    # log P / (labels + 1): SKY -1.561 / 2 = -.780, SKY CLOUDS -1.938 / 3 = -.646.
    result = search_table(SCENE, length_penalty=1.0)
    assert candidates_of(result, 0) == [(SKY, CLOUDS), (SKY,)]
    # SKY CLOUDS SEA may score log .048 / 4 = -.759 at best, above SKY's -.780: one more step than figure 5.
    assert result.num_steps.tolist() == [4]


def chain(next_tokens):
    """A table that goes on to next_tokens[token before] almost surely."""
    table = np.full([12, 11], 0.003)
    table[np.arange(12), next_tokens] = 0.97
    return table


SHORT = chain([10] * 12)  # END, whatever came before
LONG = chain([*range(1, 11), 10, 0])  # START, 0, 1, ..., 9, END


def test_the_loop_runs_as_many_steps_as_the_longest_search_needs():
    calls = []

    def step(tokens, parents, state, image_rows):
        calls.append(tokens.numpy().tolist())
        return tf.gather_nd(np.log([SHORT, LONG]), tf.stack([image_rows, tokens], axis=1)), state

    for batch_size, num_steps in ((1, [1]), (2, [1, 11])):
        calls.clear()
        result = beam_search(step, (), batch_size, 10, beam_size=1, max_length=10)
        assert result.num_steps.numpy().tolist() == num_steps
        assert len(calls) == num_steps[-1]
    assert calls[:3] == [[11, 11], [0], [1]], (
        "START, then the last label, and nothing where the search is over"
    )


@pytest.mark.parametrize(
    ("name", "options", "best"),
    [
        ("the best path is empty", {}, ()),
        ("minimum = maximum = all labels", dict(min_length=3, max_length=3), (SKY, CLOUDS, SEA)),
        ("all labels are given", dict(given=[[True] * 3]), (SKY, CLOUDS, SEA)),
        ("all given, in an order", dict(given=[[True] * 3], given_in_order=[2, 1, 0]), (SEA, CLOUDS, SKY)),
        ("more given than places", dict(given=[[False, True, True]], max_length=1), (CLOUDS,)),
        ("the one place is for the given", dict(given=[[False, False, True]], max_length=1), (SEA,)),
        ("the maximum of the image is 0", dict(row_max_length=[0], given=[[True] * 3]), ()),
        ("a maximum beyond the bound", dict(row_max_length=[9], min_length=2, max_length=2), (SKY, CLOUDS)),
        ("prefix over given", dict(prefix=[[2]], prefix_lengths=[1], given=[[True, False, False]]), (2, 0)),
        ("maximum over prefix", dict(prefix=[[SEA, SKY]], prefix_lengths=[2], row_max_length=[1]), (SEA,)),
        ("prefix over order", dict(prefix=[[2]], prefix_lengths=[1], given=[[True, False, False]],
                                   given_in_order=[0, 1, 2]), (SEA, SKY)),
        ("absent", dict(absent=[[True, False, False]], min_length=1), (CLOUDS,)),
        ("absent over the minimum", dict(absent=[[True, False, True]], min_length=3), (CLOUDS,)),
        ("all labels are absent", dict(absent=[[True] * 3], min_length=2), ()),
        ("absent over given", dict(absent=[[True, False, False]], given=[[True, True, False]]), (CLOUDS,)),
        ("prefix over absent", dict(absent=[[False, False, True]], prefix=[[2]], prefix_lengths=[1]), (SEA,)),
        ("an empty prefix", dict(prefix=np.zeros([1, 0], int), prefix_lengths=[0]), ()),
    ],
)  # fmt: skip
def test_there_is_always_an_answer(name, options, best):
    table = np.tile([0.3, 0.2, 0.1, 0.4], [5, 1])  # END first, then SKY, CLOUDS, SEA
    options = {k: np.array(v) if isinstance(v, list) else v for k, v in options.items()}
    result = search_table(table, **options)
    assert candidates_of(result, 0)[0] == best, name
    steps = [*best, 3]
    assert np.exp(result.log_probs[0, 0]) == pytest.approx(np.prod(table[0][steps])), "pruned, not scaled up"


def test_a_vocabulary_of_one_label_has_two_paths():
    result = search_table([[0.5, 0.5], [0.5, 0.5], [0.7, 0.3]], beam_size=4)
    assert candidates_of(result, 0) == [(0,), ()]
    assert np.exp(result.log_probs[0]) == pytest.approx([0.35, 0.3, 0, 0])
    assert result.marginals[0] == pytest.approx([0.35 / 0.65])


@pytest.mark.parametrize(
    ("what", "table", "prefix"),
    [
        ("scores are NaN", np.full([5, 4], np.nan), [0, 1]),
        ("the prefix repeats a label", SCENE, [0, 0]),
        ("the prefix holds END", SCENE, [3, 0]),
        ("the prefix is shorter than its length", SCENE, [0, -1]),
    ],
)
def test_an_image_without_an_answer_does_not_disturb_its_neighbours(what, table, prefix):
    prefixes = dict(prefix=np.array([[0, 1], prefix, [0, 1]]), prefix_lengths=np.array([0, 2, 2]))
    result = search_table(SCENE, table, SCENE, **prefixes)
    assert candidates_of(result, 1) == [] and (result.marginals[1] == 0).all(), what
    assert candidates_of(result, 0) == [(SKY,), (SKY, CLOUDS)]
    assert candidates_of(result, 2)[0] == (SKY, CLOUDS)
    assert np.isfinite(rank_labels(BeamResult(*result))).all()


@pytest.mark.parametrize("options", [{}, dict(length_penalty=1.0), dict(renormalise=True)])
def test_scores_that_are_no_numbers_leave_an_image_without_candidates(options):
    broken = [*SCENE[:4], [0.6, 0.1, float("nan"), 0.05]]  # after START, one of them
    result = search_table(SCENE, broken, SCENE, **options)
    assert candidates_of(result, 1) == [] and (result.log_probs[1] == -np.inf).all()
    alone = search_table(SCENE, **options)
    for row in (0, 2):
        np.testing.assert_array_equal(result.tokens[row], alone.tokens[0])
        np.testing.assert_allclose(result.log_probs[row], alone.log_probs[0], rtol=1e-6)
    assert np.isfinite(result.step_probs).all()


@pytest.mark.parametrize("options", [{}, dict(length_penalty=1.0), dict(renormalise=True, min_length=2)])
def test_each_image_may_have_a_beam_of_its_own_and_finds_what_a_search_with_it_finds(options):
    rows = list(range(12))
    sizes = [1, 2, 3, 5, 9, 4] * 2
    options = dict(max_length=4) | options
    together = MODEL.search(rows, beam_size=9, row_beam_size=tf.constant(sizes), **options)
    assert len(set(together.num_steps)) > 1
    for row, size in zip(rows, sizes, strict=True):
        alone = MODEL.search([row], beam_size=size, **options)
        for name, field in alone._asdict().items():
            found = getattr(together, name)[row]
            if name in ("tokens", "lengths", "log_probs", "token_log_probs"):
                assert (together.log_probs[row, size:] == -np.inf).all(), "places that stay empty"
                found = found[:size]
            np.testing.assert_allclose(found, field[0], 1e-5, 1e-6, err_msg=name)


def test_the_beam_may_be_known_to_the_running_graph_alone():
    @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])
    def search(beam_size):
        state = {"rnn": tf.zeros([1, UNITS], tf.float64)}
        return beam_search(MODEL.step([0, 1, 2, 3, 4]), state, 5, LABELS, beam_size=beam_size, max_length=3)

    for size in (1, 4, 8):  # 8: more than there are tokens
        expected = MODEL.search([0, 1, 2, 3, 4], beam_size=size, max_length=3)
        for name, field in search(tf.constant(size))._asdict().items():
            np.testing.assert_array_equal(field, getattr(expected, name), err_msg=name)


def test_step_probabilities_are_left_out_where_nobody_asks():
    expected = MODEL.search([0, 1, 2, 3, 4], beam_size=3, max_length=3)
    state = {"rnn": tf.zeros([1, UNITS], tf.float64)}
    options = dict(beam_size=3, max_length=3, with_step_probs=False)
    result = beam_search(MODEL.step([0, 1, 2, 3, 4]), state, 5, LABELS, **options)
    assert result.step_probs is None
    with pytest.raises(UserError, match="needs with_step_probs=True where all labels are ranked"):
        rank_labels(result)
    np.testing.assert_array_equal(result.tokens, expected.tokens)


@pytest.mark.parametrize("options", [{}, dict(length_penalty=1.0), dict(min_length=2)])
def test_of_many_labels_a_softmax_need_not_be_written_out(monkeypatch, options):
    broken = [*SCENE[:4], [0.6, 0.1, float("nan"), 0.05]]
    searches = [
        lambda **more: search_table(SCENE, broken, SCENE, **options, **more),
        lambda **more: MODEL.search(list(range(12)), beam_size=5, max_length=4, **options, **more),
    ]
    expected = [search() for search in searches]
    monkeypatch.setattr(beam_search_module, "_MANY_LABELS", 1)
    monkeypatch.setattr(tf.nn, "log_softmax", None)
    for search, result in zip(searches, expected, strict=True):
        found = search(with_step_probs=False)
        np.testing.assert_array_equal(found.tokens, result.tokens)
        for name in ("log_probs", "token_log_probs", "marginals"):
            np.testing.assert_allclose(getattr(found, name), getattr(result, name), rtol=1e-5, atol=1e-6)
    assert candidates_of(searches[0](with_step_probs=False), 1) == []


def test_an_empty_batch_gives_an_empty_result():
    result = beam_search(MODEL.step([]), {"rnn": tf.zeros([1, UNITS])}, 0, LABELS, beam_size=2, max_length=3)
    assert result.tokens.shape == (0, 2, 3) and result.marginals.shape == (0, LABELS)


def test_half_precision_scores_are_normalised_in_float32():
    def step(tokens, parents, state, image_rows):
        return tf.cast(tf.tile([[8.0, 0.0, -4.0]], [len(tokens), 1]), tf.float16), state

    result = beam_search(step, (), 1, 2, beam_size=1, max_length=1, min_length=1)
    expected = np.array([8, -4]) - np.log(np.exp(8) + 1 + np.exp(-4))
    assert result.log_probs.dtype == tf.float32
    assert result.log_probs.numpy()[0, 0] == pytest.approx(expected.sum(), rel=1e-6)


def test_labels_on_no_candidate_rank_below_all_others_down_to_tiny_probabilities():
    # 0 and 1 are on the only candidate; 3 is likelier than 4 by a hair at 1e-30, where p - 1 would tie.
    result = BeamResult(
        tokens=tf.constant([[[0, 1, 6], [6, 6, 6]]]),
        lengths=tf.constant([[2, 0]]),
        log_probs=tf.constant([[-300.0, float("-inf")]]),
        token_log_probs=tf.zeros([1, 2, 3]),
        marginals=tf.constant([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]),
        step_probs=tf.constant([[0.2, 0.1, 1.0, 1.000001e-30, 1e-30, 0.0]]),
        num_steps=tf.constant([3]),
    )
    scores = rank_labels(result)[0].numpy()
    assert np.isfinite(scores).all() and (np.diff(scores) < 0).all()


# --- graphs ---


class Tagger(tf.Module):
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, LABELS + 1], tf.float64, "images"),
            tf.TensorSpec([None], tf.int32, "min_length"),
            tf.TensorSpec([None, LABELS], tf.bool, "given"),
            tf.TensorSpec([None, None], tf.int32, "prefix"),
        ]
    )
    def tag(self, images, min_length, given, prefix):
        step_of_model_0 = MODEL.step([0])

        def step(tokens, parents, state, image_rows):
            scores, state = step_of_model_0(tokens, parents, state, tf.zeros_like(image_rows))
            return scores + tf.gather(images, image_rows), [state]  # a list where a tuple came in

        result = beam_search(
            lambda tokens, parents, state, image_rows: step(tokens, parents, state[0], image_rows),
            ({"rnn": tf.zeros([1, UNITS], tf.float64)},),
            tf.shape(images)[0],
            LABELS,
            beam_size=3,
            max_length=4,
            min_length=min_length,
            given=given,
            prefix=prefix,
            prefix_lengths=tf.zeros_like(min_length) + tf.shape(prefix)[1],
        )
        return result._asdict() | {"ranking": rank_labels(result)}


def test_an_exported_search_answers_batches_of_any_size_as_python_does(tmp_path):
    tagger = Tagger()
    tf.saved_model.save(tagger, str(tmp_path / "export"), signatures=tagger.tag)
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    graph = loaded.signatures["serving_default"].graph.as_graph_def()
    ops = {node.op for function in graph.library.function for node in function.node_def}
    assert not {op for op in ops if "PyFunc" in op or "Xla" in op}
    for rows, places in ((5, 1), (1, 0), (2, 4), (2, 6)):
        inputs = dict(
            images=tf.constant(MODEL.images[:rows]),
            min_length=tf.constant([1, 2, 3, 4, 0][:rows]),
            given=tf.constant(GIVEN_MASK[:rows]),
            prefix=tf.constant([[3, 1, 4, 2, 0, 5]] * rows)[:, :places],
        )
        here, there = tagger.tag(**inputs), loaded.signatures["serving_default"](**inputs)
        # A prefix beyond the maximum is refused where its length is known, and cut where a request brings it.
        inputs["prefix"] = inputs["prefix"][:, :4]
        eager = Tagger.tag.python_function(tagger, **inputs)
        for name, value in here.items():
            np.testing.assert_array_equal(value, there[name], name)
            np.testing.assert_allclose(value, eager[name], 1e-6, 1e-6, err_msg=name)


def test_one_image_takes_options_for_a_number_of_images_that_the_graph_does_not_know():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def search(maximum):
        options = dict(beam_size=2, max_length=3, row_max_length=maximum, length_penalty=1.0)
        return beam_search(step, (), 1, 3, **options).tokens

    def step(tokens, parents, state, image_rows):
        return tf.gather(tf.constant(np.log(SCENE), tf.float32), tokens), state

    assert search(tf.constant([2])).numpy().tolist() == [[[SKY, CLOUDS, 3], [SKY, 3, 3]]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(beam_size=0), "beam_size of 1"),
        (dict(max_length=0), "max_length from 1 to 3.* got 0"),
        (dict(max_length=4), "max_length from 1 to 3.* got 4: no label comes twice"),
        (dict(min_length=-1), "min_length from 0 to 2, the max_length, got -1"),
        (dict(min_length=3), "min_length from 0 to 2, the max_length, got 3: lower one or raise the other"),
        (dict(min_length=np.array([0, 3])), "min_length from 0 to 2.* got 3"),
        (dict(length_penalty=-0.5), "length_penalty of 0 .* got -0.5"),
        (dict(given=np.zeros([1, 2], bool)), r"<bool>\[batch, 3\].* got \(1, 2\)"),
        (dict(given_in_order=[0, 2, 2]), r"each rank from 0 to 2 once, got \[0 2 2\]"),
        (dict(prefix=np.zeros([1, 1], int)), "`prefix` and `prefix_lengths` together"),
        (dict(prefix=np.zeros([1, 3], int), prefix_lengths=[3]), r"at most 2 columns.* got \(1, 3\)"),
    ],
)
def test_what_can_never_work_is_refused_in_one_line(options, message):
    with pytest.raises(UserError, match=message):
        search_table(SCENE, **(dict(max_length=2) | options))
    with pytest.raises(UserError, match="num_labels of 1 or more, got 0"):
        beam_search(None, (), 1, 0, beam_size=1, max_length=1)
