"""The `demo` data set: a seed enters; drawn landscapes, their label sets and the best reachable scores leave.

It needs no download and carries the point of Wang et al. (CVPR 2016) where the truth is known. The rules
below are the whole generator; `tfrecords.sources.demo_pictures` only draws what they decide.

What is visible (every probability is given what stands before it):

    scene      meadow 0.40, sea 0.35, city 0.25                            exactly one
    night      0.40                                                        otherwise it is day: no label
    clouds     0.45
    disc       0.70 under a clear sky, 0.30 with clouds                    `sun` by day, `moon` by night
    stars      at night without clouds, always
    rainbow    0.25 by day with clouds and sun
    mountain   meadow 0.40, sea 0.15
    tree       meadow 0.70, city 0.25
    road       city always, meadow 0.55
    blob       0.60 on a road or on the sea                                `car` on a road, `boat` on the sea
    wings      0.35                                                        `plane` over a city, else `bird`
    lighthouse sea 0.20
    tent       0.75, striped red, green, violet, blue or yellow, 0.2 each
    pennant    on a tent by night, in one of the four other colours, 0.25 each

The disc, the blob and the wings are drawn alike whatever they are called: only the scene tells.

What is not visible: who is inside a tent. Its flaps are shut and nothing else in the picture depends on the
company, which always comes whole: circus = clown + elephant, market = cheese + fruit, wedding = bride + cake,
concert = guitar + singer, theatre = mask + puppet. The stripes name a favourite (red the circus, green the
market, violet the wedding, blue the concert, yellow the theatre), the pennant its rival:

    by day     the favourite 0.40, each of the four others 0.15
    by night   the favourite 0.53, its rival 0.47

One label at a time, a favourite by day (0.40) is less likely than a rival by night (0.47), so no threshold on
a label's probability takes the one and leaves the other: it yields empty tents, or two companies in one. The
most probable *set* is right in both.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tfrecords.annotations import Annotation
from tfrecords.sources.base import Source

COMPANIES = {
    "red": ("clown", "elephant"),
    "green": ("cheese", "fruit"),
    "violet": ("bride", "cake"),
    "blue": ("guitar", "singer"),
    "yellow": ("mask", "puppet"),
}
COLOURS = tuple(COMPANIES)
FAVOURITE_BY_DAY, OTHER_BY_DAY = 0.40, 0.15
FAVOURITE_BY_NIGHT, RIVAL_BY_NIGHT = 0.53, 0.47
TENT = 0.75


@dataclass(frozen=True)
class View:
    """All that a picture shows: the evidence from which its labels have to be told."""

    scene: str
    night: bool
    clouds: bool
    disc: bool
    rainbow: bool
    mountain: bool
    tree: bool
    road: bool
    blob: bool
    wings: bool
    lighthouse: bool
    tent: str | None  # the colour of its stripes
    pennant: str | None  # its colour

    def visible_labels(self) -> frozenset[str]:
        """The labels that the picture settles."""
        disc = "moon" if self.night else "sun"
        blob = "boat" if self.scene == "sea" else "car"
        wings = "plane" if self.scene == "city" else "bird"
        present = {
            self.scene: True,
            "night": self.night,
            "clouds": self.clouds,
            disc: self.disc,
            "stars": self.night and not self.clouds,
            "rainbow": self.rainbow,
            "mountain": self.mountain,
            "tree": self.tree,
            "road": self.road,
            blob: self.blob,
            wings: self.wings,
            "lighthouse": self.lighthouse,
            "tent": self.tent is not None,
        }
        return frozenset(name for name, is_present in present.items() if is_present)

    def companies(self) -> dict[frozenset[str], float]:
        """What may be inside the tent, with the probability of each; the empty set where there is none."""
        if self.tent is None:
            return {frozenset(): 1.0}
        favourite = frozenset(COMPANIES[self.tent])
        if self.pennant is not None:
            return {favourite: FAVOURITE_BY_NIGHT, frozenset(COMPANIES[self.pennant]): RIVAL_BY_NIGHT}
        others = (frozenset(COMPANIES[colour]) for colour in COLOURS if colour != self.tent)
        return {favourite: FAVOURITE_BY_DAY} | dict.fromkeys(others, OTHER_BY_DAY)

    def label_sets(self) -> dict[frozenset[str], float]:
        """P(labels | picture): every label set that this view allows, with its probability."""
        return {self.visible_labels() | company: p for company, p in self.companies().items()}


def all_views() -> Iterator[tuple[View, float]]:
    """Every view that the rules can make, with its probability; the probabilities sum to 1."""

    def extend(values: dict, probability: float, rules: tuple) -> Iterator[tuple[View, float]]:
        if not rules:
            yield View(**values), probability
            return
        (name, odds), *rest = rules
        for outcome, chance in odds(values).items():
            if chance > 0:
                yield from extend({**values, name: outcome}, probability * chance, tuple(rest))

    yield from extend({}, 1.0, _RULES)


def sample_view(rng: np.random.Generator) -> View:
    """Draws one view by the rules."""
    values: dict = {}
    for name, odds in _RULES:
        choices = odds(values)
        outcome = rng.choice(len(choices), p=list(choices.values()))
        values[name] = list(choices)[outcome]
    return View(**values)


def sample_labels(view: View, rng: np.random.Generator) -> frozenset[str]:
    """Draws the labels of a view: what is visible, and who happens to be inside the tent."""
    sets = view.label_sets()
    return list(sets)[rng.choice(len(sets), p=list(sets.values()))]


@dataclass(frozen=True)
class Reachable:
    """Scores, in 0..1, of a predictor that knows the rules: nothing that sees the same evidence does better.

    Attributes:
        exact_match: Share of images whose label set is right as a whole.
        overall_f1: O-F1, from the expected counts over labels and images.
    """

    exact_match: float
    overall_f1: float


def best_sets() -> Reachable:
    """The best reachable of all: in exact match, the most probable set of each view; in O-F1, the best cut.

    The two are different predictors (a set that maximises O-F1 leaves out what is less likely than F1 / 2),
    so no single one need reach both.
    """
    exact = sum(weight * max(view.label_sets().values()) for view, weight in all_views())
    return Reachable(exact, _best_overall_f1(_marginals_of_views()))


def most_probable_sets() -> Reachable:
    """What the most probable set of each view scores: the aim of a search for the best path."""
    hits = predicted = true = exact = 0.0
    for view, weight in all_views():
        sets = view.label_sets()
        best = max(sets, key=sets.get)
        exact += weight * sets[best]
        predicted += weight * len(best)
        true += weight * sum(p * len(labels) for labels, p in sets.items())
        hits += weight * sum(p * len(labels & best) for labels, p in sets.items())
    return Reachable(exact, 2 * hits / (predicted + true))


def best_one_by_one() -> Reachable:
    """The best that labels judged one by one can reach: exact marginals, the best threshold for each.

    Found by trying every combination of thresholds that tells two marginals apart. The labels of one company
    have equal marginals in every view; thresholds that split them can only lose, so they share one.
    """
    contexts: dict[tuple, float] = {}
    settled = 0.0
    for view, weight in all_views():
        if view.tent is None:
            settled += weight
        else:
            odds = {tuple(sorted(company)): p for company, p in view.companies().items()}
            key = tuple(odds.get(tuple(sorted(labels)), 0.0) for labels in COMPANIES.values())
            contexts[key] = contexts.get(key, 0.0) + weight
    marginals = np.array(list(contexts))  # [contexts, companies]
    weights = np.array(list(contexts.values()))
    levels = [[*np.unique(column), np.inf] for column in marginals.T]
    best = 0.0
    for thresholds in itertools.product(*levels):
        taken = marginals >= np.array(thresholds)
        alone = taken.sum(axis=1) == 1  # two companies at once, or an empty tent, are never right
        best = max(best, float(np.sum(weights * alone * np.sum(marginals * taken, axis=1))))
    return Reachable(settled + best, _best_overall_f1(_marginals_of_views()))


def best_without_picture() -> Reachable:
    """A control that sees nothing: the most frequent set, and the best cut of the label frequencies."""
    sets: Counter[frozenset[str]] = Counter()
    for view, weight in all_views():
        for labels, p in view.label_sets().items():
            sets[labels] += weight * p
    frequencies: Counter[str] = Counter()
    for labels, p in sets.items():
        frequencies.update({name: p for name in labels})
    return Reachable(max(sets.values()), _best_overall_f1((p, 1.0) for p in frequencies.values()))


class DemoSource(Source):
    """Drawn pictures of land, sea and city by day and night, 96 px, deterministic by seed.

    Args:
        seed: Decides everything: views, label sets and pictures.
        num_train: Images in `train`; a hold-out is taken from it at reading time.
        num_test: Images in `test`.
    """

    name = "demo"

    def __init__(self, seed: int = 0, num_train: int = 3000, num_test: int = 500):
        self.seed = seed
        self.num_images = {"train": num_train, "test": num_test}

    def splits(self) -> tuple[str, ...]:
        return tuple(self.num_images)

    def arguments(self) -> dict:
        return {"seed": self.seed, **{f"num_{split}": count for split, count in self.num_images.items()}}

    def label_names(self) -> tuple[str, ...]:
        return tuple(
            sorted(set().union(*(labels for view, _ in all_views() for labels in view.label_sets())))
        )

    def annotations(self, split: str) -> Iterator[Annotation]:
        for index in range(self.num_images[split]):
            _, labels = self._sample(split, index)
            yield Annotation(
                image_id=f"{split}-{index:05d}",
                image_path=None,
                labels=tuple(sorted(labels)),
                ignored=(),
                boxes=(),
            )

    def read_image(self, annotation: Annotation) -> bytes:
        """Draws the picture of one annotation and returns it as JPEG bytes."""
        from tfrecords.sources.demo_pictures import draw_jpeg

        split, _, index = annotation.image_id.partition("-")
        view, _ = self._sample(split, int(index))
        return draw_jpeg(view, self._rng(split, int(index), purpose="picture"))

    def view(self, image_id: str) -> View:
        """The evidence that the picture of an image id shows."""
        split, _, index = image_id.partition("-")
        return self._sample(split, int(index))[0]

    def reference_rows(self) -> list[dict]:
        """Scores known to be reachable, expected and on the test split as drawn, for the results table."""
        rows = [
            ("best reachable, by sets", best_sets()),
            ("most probable set of each picture", most_probable_sets()),
            ("most probable sets, on this test split", self._most_probable_on("test")),
            ("best reachable, labels one by one", best_one_by_one()),
            ("best without seeing the picture", best_without_picture()),
        ]
        return [
            {"name": name, "O-F1": round(row.overall_f1, 6), "exact_match": round(row.exact_match, 6)}
            for name, row in rows
        ]

    def _sample(self, split: str, index: int) -> tuple[View, frozenset[str]]:
        rng = self._rng(split, index, purpose="labels")
        view = sample_view(rng)
        return view, sample_labels(view, rng)

    def _rng(self, split: str, index: int, purpose: str) -> np.random.Generator:
        key = json.dumps(["demo", self.seed, split, index, purpose]).encode()
        return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:16], "big"))

    def _most_probable_on(self, split: str) -> Reachable:
        hits = total = exact = 0
        for index in range(self.num_images[split]):
            view, labels = self._sample(split, index)
            sets = view.label_sets()
            best = max(sets, key=sets.get)
            hits += len(best & labels)
            total += len(best) + len(labels)
            exact += best == labels
        return Reachable(exact / max(self.num_images[split], 1), 2 * hits / max(total, 1))


def _chance(probability: float) -> dict[bool, float]:
    return {False: 1.0 - probability, True: probability}


def _pennant_odds(tent: str | None) -> dict[str | None, float]:
    if tent is None:
        return {None: 1.0}
    rivals = [colour for colour in COLOURS if colour != tent]
    return dict.fromkeys(rivals, 1 / len(rivals))


# One row a variable, in the order in which they are drawn: its name, and its odds given those before it.
_RULES = (
    ("scene", lambda v: {"meadow": 0.40, "sea": 0.35, "city": 0.25}),
    ("night", lambda v: _chance(0.40)),
    ("clouds", lambda v: _chance(0.45)),
    ("disc", lambda v: _chance(0.30 if v["clouds"] else 0.70)),
    ("rainbow", lambda v: _chance(0.25 if v["clouds"] and v["disc"] and not v["night"] else 0.0)),
    ("mountain", lambda v: _chance({"meadow": 0.40, "sea": 0.15, "city": 0.0}[v["scene"]])),
    ("tree", lambda v: _chance({"meadow": 0.70, "sea": 0.0, "city": 0.25}[v["scene"]])),
    ("road", lambda v: _chance({"meadow": 0.55, "sea": 0.0, "city": 1.0}[v["scene"]])),
    ("blob", lambda v: _chance(0.60 if v["road"] or v["scene"] == "sea" else 0.0)),
    ("wings", lambda v: _chance(0.35)),
    ("lighthouse", lambda v: _chance(0.20 if v["scene"] == "sea" else 0.0)),
    ("tent", lambda v: {None: 1 - TENT, **dict.fromkeys(COLOURS, TENT / len(COLOURS))}),
    ("pennant", lambda v: _pennant_odds(v["tent"]) if v["night"] else {None: 1.0}),
)


def _marginals_of_views() -> list[tuple[float, float]]:
    """(P(label | view), expected number of (image, label) pairs per image judged with it)."""
    mass: Counter[float] = Counter()
    for view, weight in all_views():
        mass[1.0] += weight * len(view.visible_labels())
        for company, p in view.companies().items():
            mass[p] += weight * len(company)
    return list(mass.items())


def _best_overall_f1(pairs: Iterable[tuple[float, float]]) -> float:
    """Best O-F1 from known probabilities: that of the best cut, for a likelier pair never costs more.

    Args:
        pairs: (probability, expected number of (image, label) pairs per image judged with it).
    """
    pairs = sorted(pairs, reverse=True)
    true = sum(p * mass for p, mass in pairs)
    best = hits = predicted = 0.0
    for p, mass in pairs:
        hits += p * mass
        predicted += mass
        best = max(best, 2 * hits / (predicted + true))
    return best
