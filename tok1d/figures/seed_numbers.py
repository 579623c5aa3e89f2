"""What the work that this project starts from published: rFID on its clear daytime frames of BDD100K.

64 tokens are from its table; other counts of MAE are read off its figure, which disagrees with the table
elsewhere. How they were measured is not on record (JPEG files of some hundred images, in part): they are
drawn hollow, beside numbers with a card.
"""

from __future__ import annotations

from typing import Any

BY_ENCODER: dict[str, dict[int, float]] = {
    "mae": {16: 88, 32: 63, 64: 41.44, 128: 33, 256: 28},
    "clip": {64: 42.90},
    "dino": {64: 38.42},
    "dinov2": {64: 38.94},
    "depth_anything_v2": {64: 39.60},
    "random": {64: 111.89},
}
BIGGER_DATASET = {64: 33.19}  # mae, frames of every weather and time of day


def published(params: dict[str, Any]) -> dict[int, float]:
    """Its rFID by token count for runs of these parameters: on BDD100K by labels, fixed token counts."""
    init, like = params["encoder_init"], params["random_like"]
    if not params["bdd_labels"] or params["elastic"] or like not in ("", "mae"):
        return {}
    if params["weather"] or params["timeofday"]:
        return BY_ENCODER.get(init, {})
    return BIGGER_DATASET if init == "mae" else {}
