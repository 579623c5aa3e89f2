"""What can be wrong with a training, by name: `training.doctor` looks for it, `stop_on` chooses from it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

DIAGNOSES = {
    "nan": "steps are skipped because the loss or a gradient is not finite",
    "diverging": "reconstructions are far worse than they were, or than plain grey",
    "exploding-gradient": "gradients are far larger than they were",
    "dead-parameters": "a part of the network gets no gradient",
    "collapse": "codebook (or posterior) collapse: tokens hardly differ from image to image",
    "mean-image": "stuck at the mean image: every image gets the same reconstruction",
    "discriminator-winning": "the discriminator is sure of everything and teaches nothing",
    "gan-onset": "reconstructions got far worse when the discriminator came in",
    "data-bound": "much of the time goes into waiting for images",
}  # causes first: the order in which they are shown


@dataclass(frozen=True)
class Diagnosis:
    """One complaint: its name (of `DIAGNOSES`), the step since which it holds, the numbers that show it, and
    what to try, as parameters to type.
    """

    name: str
    since_step: int
    evidence: str
    advice: str

    def __str__(self) -> str:
        meaning = DIAGNOSES[self.name]
        return f"{self.name} since step {self.since_step}: {meaning} ({self.evidence}); {self.advice}"


def known_diagnosis(name: str) -> str:
    """`name` if it is a diagnosis. Raises ValueError, for pydantic, with the name that was probably meant."""
    if name in DIAGNOSES:
        return name
    close = difflib.get_close_matches(name.lower().replace("_", "-"), DIAGNOSES, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else ""
    raise ValueError(f"must be one of {', '.join(DIAGNOSES)}{f' ({hint})' if hint else ''}")
