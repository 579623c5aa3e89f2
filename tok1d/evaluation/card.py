"""The card of an evaluation: how its numbers were measured, and which of that two numbers must share.

Published rFIDs of one model differ by a factor of three, because crops, statistics and sample sizes differ
silently. So every number has a card, and numbers whose cards differ are refused side by side, by name.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

from tok1d.config.registry import NUMBERS, asked_as
from tok1d.runs import Run, RunError

# What tells whose numbers these are; all else on a card is the protocol, which a comparison must share
IDENTIFIES = (
    "model",
    "model_sha256",
    "peer",
    "token_counts",
    "data",
    "reference_data",
    "made_with",
    "sampling",
    "tokenizer_sha256",
)


def differences(one: dict[str, Any], other: dict[str, Any], metric: str = "") -> dict[str, tuple]:
    """What differs between the protocols of two cards: {name: (of one, of the other)}, telling ones first.

    A metric's own part (its extractor, weights, reference) count if it is `metric`; without `metric`, those
    of every metric that both cards have count.
    """
    mine, theirs = (
        protocol(card, metric) for card in (one, other)
    )  # fmt: skip
    shared = set(one.get("metrics", ())) & set(other.get("metrics", ()))
    names = [
        n
        for n in dict.fromkeys((*mine, *theirs))
        if not n.startswith("metrics.") or n.split(".")[1] in shared
    ]
    return {n: (mine.get(n), theirs.get(n)) for n in names if mine.get(n) != theirs.get(n)}


def protocol(card: dict[str, Any], metric: str = "") -> dict[str, Any]:
    """What a comparison must share, flat: {"images": 400, …, "metrics.rfid.weights_sha256": …}."""
    found = {name: value for name, value in card.items() if name not in (*IDENTIFIES, "metrics")}
    for name, own in card.get("metrics", {}).items():
        if not metric or name in (metric, asked_as(metric)):
            found |= {f"metrics.{name}.{fact}": value for fact, value in own.items()}
    return found


def card_id(protocol: dict[str, Any]) -> str:
    """Twelve letters that are the same for numbers that were measured alike: of what `protocol` gives."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:12]


def images_of(evaluation: dict[str, Any]) -> str:
    """Whose images the numbers are of, and which ones their distances of sets are to: "images of photos
    (validation); rFID: distance to 5,000 images of photos/train".
    """
    card, own = evaluation["card"], not evaluation.get("data")
    names = [name for name, facts in card.get("metrics", {}).items() if "reference" in facts]
    said = "images of " + str(card.get("data", "data that it does not name"))
    said += " (validation)" if own else ""
    if names:
        labels = ", ".join(NUMBERS[n].label if n in NUMBERS else n.upper() for n in names)
        reference = card["metrics"][names[0]]["reference"]
        to = "the same images"
        if isinstance(reference, dict):
            to = f"{reference['images']:,} images of {card.get('reference_data', 'other data')}"
        said += f"; {labels}: distance to {to}"
    return said


def same_card(runs: list[Run], metric: str = "") -> None:
    """Raises `RunError` unless all runs were measured alike (in `metric`), naming one that was not measured
    as most were, and the first difference.
    """
    cards = [run.evaluation["card"] for run in runs]
    kinds = [card_id(protocol(card, metric)) for card in cards]
    usual = sorted(
        set(kinds), key=lambda kind: (-kinds.count(kind), kinds.index(kind))
    )  # the commonest first
    for i, j in itertools.combinations(map(kinds.index, usual), 2):
        one, run = runs[i], runs[j]
        for name, (most, own) in differences(cards[i], cards[j], metric).items():
            raise RunError(
                f"{run.path} was evaluated with {name}={own}, {one.path} with {most}: evaluate both alike "
                f"with 'tok1d evaluate {one.path} {run.path} --data DATA' (notebooks then take "
                f"eval_data=DATA), or compare other runs"
            )


def code_ceiling(card: dict[str, Any], row: dict[str, Any]) -> int:
    """The highest perplexity that the codes of a row of results could have: no more of them can be seen than
    there are tokens, nor than there are.
    """
    tokens = row["num_tokens"]
    return min(card["images"] * tokens, round(2 ** (row["bits"] / tokens)))
