"""What `ours.py` and `theirs.py` wrote enters; a report leaves, and whether all is equal that must be.

    python benchmarks/addons/compare.py FOLDER

The last step of `make addons`. Writes FOLDER/report.md and prints it; the status is 1 if something that must
be equal is not.
"""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Case = dict[str, np.ndarray]

MEASURE_TOLERANCE = 1e-6  # theirs are float32
PATH_TOLERANCE = 1e-5  # nats, of best paths; of the others, whose log P goes down to -60, relative to it
EVERY_PATH = 0
_NO_PATH = -1e8  # what a beam scores less than is masked


class Check(NamedTuple):
    """Something that must be equal: `found` says in what way it is, or is not."""

    name: str
    held: bool
    found: str


class Found(NamedTuple):
    """The paths of one image: label ids and log-probability, best first, and whether the first answers.

    `answers` is False where the best beam repeats a label or never reached END; it is not among the paths.
    """

    paths: dict[tuple[int, ...], float]
    answers: bool


def main(words: Sequence[str] | None = None) -> int:
    (folder,) = map(Path, sys.argv[1:] if words is None else words)
    cases = read_cases(folder)
    checks, report = compare(cases)
    text = "\n".join(report) + "\n"
    (folder / "report.md").write_text(text, encoding="utf-8")
    print(text)
    missed = [check.name for check in checks if not check.held]
    for name in missed:
        print(f"NOT EQUAL: {name}", file=sys.stderr)
    return 1 if missed else 0


def read_cases(folder: Path) -> dict[str, tuple[Case, Case]]:
    """Each case by name: ours and theirs.

    Raises:
        SystemExit: one side is missing.
    """
    names = [{path.stem for path in (folder / side).glob("*.npz")} for side in ("ours", "theirs")]
    if not names[0] or names[0] != names[1]:
        odd = sorted(names[0] ^ names[1])
        raise SystemExit(
            f"{folder}: expected the same files in ours/ and theirs/, found {odd or 'none'} in one alone: "
            "run ours.py, then theirs.py, as `make addons` does"
        )
    cases = {}
    for name in sorted(names[0]):
        with (
            np.load(folder / "ours" / f"{name}.npz") as ours,
            np.load(folder / "theirs" / f"{name}.npz") as theirs,
        ):
            cases[name] = (dict(ours), dict(theirs))
    return cases


def compare(cases: dict[str, tuple[Case, Case]]) -> tuple[list[Check], list[str]]:
    """All checks, and the lines of the report."""
    tables, searches = (
        {name.removeprefix(kind): pair for name, pair in cases.items() if name.startswith(kind)}
        for kind in ("table-", "search-")
    )
    every_path = {name: pair for name, pair in searches.items() if EVERY_PATH in pair[0]["beams"]}
    narrow = {name: pair for name, pair in searches.items() if name not in every_path}
    sections = [
        compare_tables(tables),
        compare_every_path(every_path),
        compare_narrow(narrow),
        ([], compare_speed(*cases["speed"]) if "speed" in cases else []),
    ]
    checks = [check for some, _ in sections for check in some]
    verdicts = [[check.name, "equal" if check.held else "**NOT EQUAL**", check.found] for check in checks]
    summary = [
        "# Parity with tensorflow-addons 0.23",
        "",
        *_table(["what", "verdict", "found"], verdicts),
        "",
    ]
    return checks, summary + [line for _, lines in sections for line in lines]


# ---- measures


def compare_tables(tables: dict[str, tuple[Case, Case]]) -> tuple[list[Check], list[str]]:
    """HammingLoss, F1Score and MultiLabelConfusionMatrix on each table.

    Two conventions differ, and are accounted for. A score equal to the threshold is in our sets and not in
    theirs, so theirs get the next smaller threshold. Their macro F1 counts a label without a positive as 0,
    ours leaves it out, so theirs is scaled up by labels / labels with a positive.
    """
    differences, rows = defaultdict(list), []
    for name, (ours, theirs) in tables.items():
        found = _compare_table(ours, theirs)
        for measure, difference in found.items():
            differences[measure].append((difference, name))
        num_images, num_labels = ours["y_true"].shape
        plain = [abs(float(theirs[f"strict_{measure}"]) - float(ours[measure])) for measure in _MEASURES]
        num_dead = int((ours["positives"] == 0).sum())
        num_ties = int((ours["y_pred"] == np.float32(ours["threshold"])).sum())
        rows.append(
            [name, f"{num_images} x {num_labels}", num_dead, num_ties, *(f"{value:.1e}" for value in plain)]
        )
    names = {"hamming_loss": "HammingLoss", "micro_f1": "F1Score micro", "macro_f1": "F1Score macro"}
    checks = []
    for measure, found in differences.items():
        worst, name = max(found)
        limit = 0 if measure == "confusion" else MEASURE_TOLERANCE
        title = names.get(measure, "MultiLabelConfusionMatrix, cells that differ")
        checks.append(Check(title, worst <= limit, f"at most {worst:.1e} ({name}), {len(found)} tables"))
    head = ["table", "images x labels", "labels without a positive", "scores at the threshold"]
    head += [f"{names[measure]}: difference as it is" for measure in _MEASURES]
    return checks, [MEASURE_NOTES, *_table(head, rows), ""]


MEASURE_NOTES = """## Measures

Conventions that differ: theirs leave a score equal to the threshold out of the set (ours: in), and count a
label without a positive as F1 0 in the macro mean (ours: left out). The verdicts are after both are accounted
for; the last columns are before. Their confusion matrix takes no weights.
"""
_MEASURES = ("hamming_loss", "micro_f1", "macro_f1")


def _compare_table(ours: Case, theirs: Case) -> dict[str, float]:
    """By how much each measure differs; of the confusion matrices, how many cells."""
    num_labels = len(ours["positives"])
    has_positive = _weighted_positives(ours) > 0
    scale = num_labels / max(np.count_nonzero(has_positive), 1)
    hits, predicted, positives = (ours[name] for name in ("true_positives", "predicted", "positives"))
    negatives = len(ours["y_true"]) - predicted - positives + hits
    confusion = np.stack([negatives, predicted - hits, positives - hits, hits], axis=1).reshape(-1, 2, 2)
    return {
        "hamming_loss": abs(float(theirs["reached_hamming_loss"]) - float(ours["hamming_loss"])),
        "micro_f1": abs(float(theirs["reached_micro_f1"]) - float(ours["micro_f1"])),
        "macro_f1": abs(float(theirs["reached_macro_f1"]) * scale - float(ours["macro_f1"])),
        "confusion": float(np.count_nonzero(theirs["reached_confusion"] != confusion)),
    }


def _weighted_positives(ours: Case) -> np.ndarray:
    return ours["weights"] @ ours["y_true"].astype(np.float64)


# ---- paths


class Differences(NamedTuple):
    """What two searches of the same images differ in."""

    images: int = 0
    ours: int = 0
    """Paths that we found."""
    in_one: int = 0
    """Paths that one side alone found."""
    best: int = 0
    """Images whose best paths are different ones of different probability."""
    best_log_prob: float = 0.0
    """The largest difference between the log-probabilities of best paths, in nats."""
    log_prob: float = 0.0
    """That of any path that both found, relative to it where it is below -1."""

    def join(self, other: Differences) -> Differences:
        sums = (a + b for a, b in zip(self[:4], other[:4], strict=True))
        return Differences(*sums, *map(max, self[4:], other[4:]))


RULES = {
    "published": "their decoder bare, its beams that repeat a label dropped",
    "renormalised": "their decoder with our masks",
}


def compare_every_path(searches: dict[str, tuple[Case, Case]]) -> tuple[list[Check], list[str]]:
    """Beams wide enough for every path: both must return all of them, at the same probabilities."""
    checks, rows = [], []
    for rule, meaning in RULES.items():
        groups: dict[tuple, list[Differences]] = defaultdict(list)
        for name, (ours, theirs) in searches.items():
            weights = "trained" if "trained" in name else "random"
            found = find_differences(*(read_paths(side, ours, rule, EVERY_PATH) for side in (ours, theirs)))
            groups[weights, num_labels_of(ours), int(ours["max_length"])].append(found)
        joined = {key: functools.reduce(Differences.join, found) for key, found in groups.items()}
        for key, (*counts, best_log_prob, log_prob) in joined.items():
            differences = (f"{best_log_prob:.1e}", f"{log_prob:.1e}")
            rows.append([rule, *key, len(groups[key]), *counts, *differences])
        if joined:
            checks.append(
                _check_every_path(rule, meaning, functools.reduce(Differences.join, joined.values()))
            )
    head = ["rule", "weights", "labels", "at most", "models", "images", "paths", "in one list alone"]
    head += ["best path differs", "log P of the best, nats", "of any, relative"]
    return checks, ["## Beams as wide as there are paths", "", *_table(head, rows), ""]


def _check_every_path(rule: str, meaning: str, found: Differences) -> Check:
    held = not found.in_one and not found.best
    held &= max(found.best_log_prob, found.log_prob) <= PATH_TOLERANCE
    return Check(
        f"every path, {rule}: {meaning}",
        held,
        f"{found.ours} paths of {found.images} images, {found.in_one} in one list alone; {found.best} best "
        f"paths differ; log P by at most {found.best_log_prob:.1e} (best), {found.log_prob:.1e} (any)",
    )


def find_differences(ours: list[Found], theirs: list[Found]) -> Differences:
    """Compares the paths of the same images, as `read_paths` gives them."""
    per_image = (_differ(a.paths, b.paths) for a, b in zip(ours, theirs, strict=True))
    return functools.reduce(Differences.join, per_image, Differences())


def _differ(ours: dict[tuple, float], theirs: dict[tuple, float]) -> Differences:
    found = Differences(
        images=1,
        ours=len(ours),
        in_one=len(ours.keys() ^ theirs.keys()),
        log_prob=max((_gap(ours[path], theirs[path]) for path in ours.keys() & theirs.keys()), default=0.0),
    )
    if not ours or not theirs:
        return found
    best, their_best = next(iter(ours)), next(iter(theirs))
    # Of two paths that are equally probable, either may be the first.
    is_other = abs(ours[best] - ours.get(their_best, -np.inf)) > PATH_TOLERANCE
    return found._replace(best=int(is_other), best_log_prob=abs(ours[best] - theirs[their_best]))


def compare_narrow(searches: dict[str, tuple[Case, Case]]) -> tuple[list[Check], list[str]]:
    """Narrow beams, where the algorithms differ: greedy must be equal, and a path's probability always."""
    rows, greedy, shared, log_prob = [], Differences(), 0, 0.0
    for rule in ("renormalised", "published"):
        for name, (ours, theirs) in searches.items():
            for beam in ours["beams"].tolist():
                both = [read_paths(side, ours, rule, beam) for side in (ours, theirs)]
                rows.append([rule, name, beam, *_diverge(*both)])
                found = find_differences(*both)
                shared += (found.ours + sum(len(image.paths) for image in both[1]) - found.in_one) // 2
                log_prob = max(log_prob, found.log_prob)
                if beam == 1 and rule == "renormalised":
                    greedy = greedy.join(found)
    checks = [
        Check(
            "greedy (a beam of 1), renormalised: their decoder with our masks",
            not greedy.in_one,
            f"{greedy.images} images, {greedy.in_one} paths in one list alone",
        ),
        Check(
            "log P of paths that both found, narrow beams",
            log_prob <= PATH_TOLERANCE,
            f"{shared} paths, by at most {log_prob:.1e}",
        ),
    ]
    head = ["rule", "weights-labels", "beam", "images", "no answer of theirs, %", "same best path, %"]
    head += ["ours more probable, %", "theirs more probable, %", "mean log P, ours - theirs"]
    head += ["ours ahead by at most", "theirs ahead by at most", "mean labels, ours", "theirs"]
    return (checks if searches else []), [NARROW_NOTES, *_table(head, rows), ""]


NARROW_NOTES = """## Narrow beams, where the algorithms differ

Theirs: a finished beam keeps its slot. Ours (the paper's): it moves to C and frees its place.
*Renormalised*: both search the same masked model, so the algorithm alone differs.
*Published*: theirs is bare, as its users have it. Where its best beam repeats a label or never ends, it has
no answer (a label set), and the columns after that are of the images where it has one. Log P in nats.
"""


def _diverge(ours: list[Found], theirs: list[Found]) -> list[Any]:
    answered = [(mine, other) for mine, other in zip(ours, theirs, strict=True) if other.answers]
    head = [len(ours), f"{100 * (1 - len(answered) / len(ours)):.1f}"]
    if not answered:
        return [*head, *["-"] * 8]
    best = [(next(iter(mine.paths)), next(iter(other.paths))) for mine, other in answered]
    gains = np.array(
        [mine.paths[a] - other.paths[b] for (mine, other), (a, b) in zip(answered, best, strict=True)]
    )
    lead = np.where([a != b for a, b in best], gains, 0.0)
    lead = np.where(np.abs(lead) > PATH_TOLERANCE, lead, 0.0)
    percent = [np.mean([a == b for a, b in best]), np.mean(lead > 0), np.mean(lead < 0)]
    lengths = [np.mean([len(path) for path in paths]) for paths in zip(*best, strict=True)]
    return [
        *head,
        *(f"{100 * share:.1f}" for share in percent),
        f"{lead.mean():+.4f}",
        f"{max(0, lead.max()):.3f}",
        f"{max(0, -lead.min()):.3f}",
        *(f"{length:.2f}" for length in lengths),
    ]


def read_paths(found: Case, ours: Case, rule: str, beam: int) -> list[Found]:
    """The paths of each image in a case of either side: ended, of distinct labels, and not masked away."""
    tokens, log_probs = (found[f"{rule}_{beam}_{field}"] for field in ("tokens", "log_probs"))
    end, max_length = num_labels_of(ours), int(ours["max_length"])
    return [
        _read_image(*image, end, max_length)
        for image in zip(tokens.tolist(), log_probs.tolist(), strict=True)
    ]


def _read_image(beams: list[list[int]], log_probs: list[float], end: int, max_length: int) -> Found:
    paths, answers = {}, False
    for rank, (tokens, log_prob) in enumerate(zip(beams, log_probs, strict=True)):
        # Ours has no room for the END of a path of the maximum length.
        path = tuple(tokens[: tokens.index(end)] if end in tokens else tokens)
        is_set = log_prob > _NO_PATH and len(path) <= max_length and len(set(path)) == len(path)
        answers |= is_set and rank == 0
        if is_set:
            paths[path] = log_prob
    return Found(paths, answers)


def num_labels_of(case: Case) -> int:
    return len(case["label_embeddings"]) - 1


def _gap(a: float, b: float) -> float:
    """How far two log-probabilities are apart; below -1, as a share."""
    return abs(a - b) / max(1.0, abs(a))


# ---- speed


def compare_speed(ours: Case, theirs: Case) -> list[str]:
    """Informative alone: other versions of TensorFlow, in processes one after the other."""
    rows = [["ours", int(ours["num_steps"].max()), *_milliseconds(ours["seconds"]), "1.00"]]
    for rule, name in (("published", "theirs, bare"), ("renormalised", "theirs, with our masks")):
        ratio = np.min(theirs[f"{rule}_seconds"]) / np.min(
            ours["seconds"]
        )  # the others measure the neighbours
        steps, seconds = int(theirs[f"{rule}_num_steps"]), theirs[f"{rule}_seconds"]
        rows.append([name, steps, *_milliseconds(seconds), f"{ratio:.2f}"])
    units, num_images = len(ours["output_kernel"]), len(ours["features"])
    sizes = f"{num_images} images, a beam of {int(ours['beam'])}, {units} units, {num_labels_of(ours)} labels"
    head = ["search", "steps", "median, ms", "fastest, ms", "fastest / ours"]
    return ["## Speed, for information", "", f"{sizes}, compiled.", "", *_table(head, rows), ""]


def _milliseconds(seconds: np.ndarray) -> list[str]:
    return [f"{1000 * np.median(seconds):.1f}", f"{1000 * np.min(seconds):.1f}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


if __name__ == "__main__":
    sys.exit(main())
