"""The encoder initialisations by name: which network, which weights, from where.

Only names, so that a parameter file is checked at once. `tok1d.models.vit` builds the network,
`tok1d.models.weights` fetches the file, `tok1d.models.pretrained` turns it into the network's tensors,
`tok1d.models.load_report` proves it.

| encoder_init | sizes on the hub | what its network has beyond a plain ViT |
|---|---|---|
| mae (arXiv:2111.06377) | B L | |
| clip (DFN-2B, arXiv:2309.17425) | B L | pre-norm, no patch bias, norms of eps 1e-5 |
| dino (arXiv:2104.14294) | S B | |
| dinov2 (arXiv:2304.07193) | S B L | LayerScale |
| dinov2_reg (arXiv:2309.16588) | S B L | LayerScale, 4 registers |
| depth_anything_v2 (arXiv:2406.09414) | S B L | LayerScale |
| dinov3 (arXiv:2508.10104) | S B L | LayerScale, 4 registers, rotary positions, no qkv bias |
| siglip2 (arXiv:2502.14786) | B L | no class token |
| timm:NAME | its own | whatever timm's NAME has |
"""

from __future__ import annotations

import difflib
from typing import NamedTuple


class Backbone(NamedTuple):
    """timm's model per encoder size, and the hub's (repository, file) where that is not timm's own.

    `revision` is the hub's branch, tag or commit, unless `encoder_revision` names another. No commit could be
    looked up where this was written, so it is a branch: the commit it stood for is in each run's
    `load_report.json`, to be typed as `encoder_revision` by whoever repeats that run.
    """

    models: dict[str, str]
    files: dict[str, tuple[str, str]] = {}  # noqa: RUF012
    revision: str = "main"


def _depth_anything(size: str) -> tuple[str, str]:
    name = {"S": "Small", "B": "Base", "L": "Large"}[size]
    return f"depth-anything/Depth-Anything-V2-{name}", f"depth_anything_v2_vit{size.lower()}.pth"


def _sizes(pattern: str, sizes: str) -> dict[str, str]:
    return {size: pattern.format({"S": "small", "B": "base", "L": "large"}[size]) for size in sizes}


BACKBONES: dict[str, Backbone] = {
    "mae": Backbone(_sizes("vit_{}_patch16_224.mae", "BL")),
    "clip": Backbone({"B": "vit_base_patch16_clip_224.dfn2b", "L": "vit_large_patch14_clip_224.dfn2b"}),
    "dino": Backbone(_sizes("vit_{}_patch16_224.dino", "SB")),
    "dinov2": Backbone(_sizes("vit_{}_patch14_dinov2.lvd142m", "SBL")),
    "depth_anything_v2": Backbone(
        _sizes("vit_{}_patch14_dinov2.lvd142m", "SBL"),  # the same network, trained on
        {size: _depth_anything(size) for size in "SBL"},
    ),
    "dinov2_reg": Backbone(_sizes("vit_{}_patch14_reg4_dinov2.lvd142m", "SBL")),
    "dinov3": Backbone(_sizes("vit_{}_patch16_dinov3.lvd1689m", "SBL")),
    "siglip2": Backbone(_sizes("vit_{}_patch16_siglip_256.v2_webli", "BL")),
}  # fmt: skip
TIMM = "timm:"


def known_init(name: str) -> str:
    """`name` if it is an initialisation (`timm:NAME` is looked up once the network is built). Raises
    ValueError.
    """
    if name == "random" or name in BACKBONES or name.removeprefix(TIMM) not in ("", name):
        return name
    options = ["random", *BACKBONES]
    close = difflib.get_close_matches(name.lower().replace("-", ""), options, n=1, cutoff=0.5)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"must be one of {', '.join(options)} or timm:NAME{meant}")


def known_like(name: str) -> str:
    """The same for `random_like`, where empty means a plain ViT."""
    return known_init(name) if name not in ("", "random") else ""


def timm_name(init: str, size: str) -> str:
    """timm's name of the network: of `size`, else of B, whose width, depth and heads are then replaced."""
    if init.startswith(TIMM):
        return init.removeprefix(TIMM)
    models = BACKBONES[init].models
    return models.get(size, models["B"])
