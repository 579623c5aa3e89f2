"""Which runs make one line of a figure, and its name: those that differ in token count and seed alone.

A line is called by what sets it apart from the others: by one parameter, if that is all; else by its
encoder's initialization, and by parameters that are not as in most runs. If no two runs belong together, each
goes by its own name.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any, NamedTuple

from tok1d.runs import FREE_TO_CHANGE, Run, RunError

ENCODERS = {
    "random": "random", "mae": "MAE", "clip": "CLIP", "dino": "DINO", "dinov2": "DINOv2",
    "dinov2_reg": "DINOv2 reg", "dinov3": "DINOv3", "siglip2": "SigLIP 2",
    "depth_anything_v2": "Depth Anything v2",
}  # fmt: skip
LINEAR = "linear code, equal bits"  # the line to beat
WITHIN = {"num_latent_tokens", "seed", *FREE_TO_CHANGE}  # what may differ within a line
MOST = 2  # parameters that a name tells; with more, the runs' own names say it better


class Series(NamedTuple):
    label: str
    runs: list[Run]


def series_of(runs: list[Run], within: tuple[str, ...] = ()) -> list[Series]:
    """The lines of these runs, in the order in which their first runs come. `within` are more parameters that
    may differ in a line.
    """
    groups: dict[str, list[Run]] = {}
    apart: dict[str, dict[str, Any]] = {}
    for run in runs:
        params = {k: v for k, v in line_params(run.params).items() if k not in within}
        key = str(sorted(params.items()))
        apart.setdefault(key, params)
        groups.setdefault(key, []).append(run)
    if len(groups) == len(runs):
        return [Series(run.name, [run]) for run in runs]
    usual = commonest(apart[key] for key, members in groups.items() for _ in members)
    names = [name for name in usual if len({params.get(name, usual[name]) for params in apart.values()}) > 1]
    labels = [label(apart[key], usual, groups[key], names) for key in groups]
    for other in (common_prefix, lambda members: members[0].name):  # until no two are alike
        pairs = zip(groups.values(), labels, strict=True)
        labels = [other(members) if labels.count(name) > 1 else name for members, name in pairs]
    return [Series(name, group) for name, group in zip(labels, groups.values(), strict=True)]


def line_params(params: dict[str, Any]) -> dict[str, str]:
    """A run's parameters as far as they make it another line; the encoder's in one. Elastic tokenizers of
    other sizes are others: they are measured at the same token counts.
    """
    if "peer" in params:
        return {"encoder": str(params["run"])}
    found = {k: str(v) for k, v in params.items() if k not in WITHIN}
    if params.get("elastic"):
        found["num_latent_tokens"] = str(params["num_latent_tokens"])
    init, like = found.pop("encoder_init", "random"), found.pop("random_like", "")
    if found.pop("encoder", "vit") == "linear":
        return {"encoder": "linear tokens"} | found
    name = ENCODERS.get(init, init.removeprefix("timm:"))
    return {"encoder": f"{name}, like {ENCODERS.get(like, like)}" if like else name} | found


def commonest(params: Any) -> dict[str, str]:
    counts: dict[str, Counter] = {}
    for each in params:
        for name, value in each.items():
            counts.setdefault(name, Counter())[value] += 1
    return {name: found.most_common(1)[0][0] for name, found in counts.items()}


def label(params: dict[str, str], usual: dict[str, str], runs: list[Run], names: list[str]) -> str:
    """`names` are the parameters in which lines differ."""
    if len(names) == 1 and names != ["encoder"]:
        return format_param(names[0], params.get(names[0], usual[names[0]]))
    odd = [name for name in names if name != "encoder" and params.get(name, usual[name]) != usual[name]]
    if len(odd) > MOST:
        return common_prefix(runs)
    return ", ".join([params["encoder"], *(format_param(name, params[name]) for name in odd)])


def format_param(name: str, value: str) -> str:
    """A parameter in a label; of a path its last part."""
    if name == "elastic":
        return "elastic" if value == "True" else "fixed"
    if name == "num_latent_tokens":
        return f"up to {value}"
    words, last = name.replace("_", " "), value.rstrip("/").split("/")[-1]
    return f"{words} {last}" if last else f"no {words}"


def common_prefix(runs: list[Run]) -> str:
    """`mae-big-s0`, `mae-big-s1` -> `mae-big`."""
    names = zip(*(run.name for run in runs), strict=False)
    name = "".join(letters[0] for letters in itertools.takewhile(lambda x: len(set(x)) == 1, names))
    return re.sub(r"[-_]+(s\d*|\d+)?$", "", name) or runs[0].name


def counts_of(runs: list[Run]) -> list[int]:
    """The token counts that these runs were evaluated at."""
    return sorted({row["num_tokens"] for run in runs for row in run.evaluation["results"]})


def shared_count(series: list[Series], wanted: int = 0) -> int:
    """The token count at which series are compared: `wanted`, or the one that most have: 64, or else the
    largest of those. Raises `RunError` if none has the wanted one.
    """
    have = Counter(count for each in series for count in counts_of(each.runs))
    if wanted:
        if wanted not in have:
            known = ", ".join(map(str, sorted(have)))
            raise RunError(f"no run was evaluated at {wanted} tokens: type num_tokens=0, or one of {known}")
        return wanted
    most = max(have.values())
    return 64 if have[64] == most else max(count for count, times in have.items() if times == most)
