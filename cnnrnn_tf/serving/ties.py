"""Finds images at a tie, where rounding decides between equally probable paths: they prove nothing.

A product of matrices rounds its last bits otherwise for another number of rows. That moves a score by 1e-7,
and is no fault. But where two paths are equally probable, as (sky, sea) and (sea, sky) are to a model that is
hardly trained, these bits decide which of them the beam search keeps. Then labels, probabilities and rankings
differ by more than any tolerance, though no image looks at another.

Such an image is known by itself: in batches of nothing but its own copies it already has more than one
answer. What reads other rows (a batch's mean, a shared maximum) finds the same in all copies, so no such
fault is excused.
"""

from collections.abc import Callable, Iterable, Mapping

from cnnrnn_tf.serving.example_inputs import take_rows
from cnnrnn_tf.serving.fresh_process import C_API, run_calls

_NUMBERS_OF_COPIES = (1, 2, 3, 4, 5, 8, 16)


class Ties:
    """The images of a check that are at a tie, found when some of their answers differ."""

    def __init__(self, export_dir, inputs: Mapping, is_equal: Callable, timeout_s: float):
        """Looks for none yet.

        Args:
            export_dir: the version folder.
            inputs: {signature: {input name: array with a row an image}}.
            is_equal: whether two rows of an output are equal but for rounding.
            timeout_s: for each process that loads the export.
        """
        self.rows: set[int] = set()
        """Of the images that were found at a tie, from 0."""
        self._export_dir, self._inputs = export_dir, inputs
        self._is_equal, self.timeout_s = is_equal, timeout_s
        self._seen: set[tuple[str, int]] = set()

    def look_for(self, rows: Mapping[str, Iterable[int]]) -> None:
        """Runs images in batches of their own copies; `rows` are those to look at, by signature."""
        asked = sorted({(name, row) for name, each in rows.items() for row in each} - self._seen)
        if not asked:
            return
        self._seen.update(asked)
        calls = [
            (name, take_rows(self._inputs[name], [row] * number))
            for name, row in asked
            for number in _NUMBERS_OF_COPIES
        ]
        outputs = iter(run_calls(C_API, self._export_dir, calls, timeout_s=self.timeout_s)["calls"])
        for _, row in asked:
            if self._differ([next(outputs) for _ in _NUMBERS_OF_COPIES]):
                self.rows.add(row)

    def _differ(self, answers: list) -> bool:
        if any(isinstance(answer, str) for answer in answers):
            return False  # a failure is no tie
        alone = answers[0]
        return any(
            not self._is_equal(alone[key][0], copy)
            for answer in answers
            for key in alone
            for copy in answer[key]
        )


def describe_ties(rows: set[int], num_images: int) -> str:
    """Says which images were not compared, and why."""
    which = f"image {min(rows) + 1}" if len(rows) == 1 else f"{len(rows)} of {num_images} images"
    text = (
        f"at a tie: rounding decides between equally probable paths for {which}, which differs in batches of "
        "its own copies; such answers change with the batch's size, and were not compared"
    )
    return text if len(rows) < num_images else f"{text}; no image was: pass others with --images"
