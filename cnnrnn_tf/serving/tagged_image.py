"""A row of an answer enters, from wherever a Tagger ran; TaggedImage holds it. Imports nothing heavy."""

from dataclasses import dataclass

AS_EXPORTED = -1  # what signature `tag` takes for an option that keeps its value of the export


@dataclass(frozen=True)
class TaggedImage:
    """One image's row of a Tagger's answer, without the padding."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    step_probabilities: tuple[float, ...]
    path_probability: float
    error: str = ""

    @property
    def valid(self):
        return not self.error
