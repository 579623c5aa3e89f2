"""Which images of one set are held out for validation, and whether two sets have images in common."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tok1d.data.left_out import say

if TYPE_CHECKING:
    from torch import Tensor

    from tok1d.data.dataset import ImageDataset
    from tok1d.data.sources import Source

SHARE = 20  # one of 20 is held out
BLOCKS = 5  # stretches of a video
COMPARED = 2000  # images of either set that are looked at, evenly over all
SIDE = 8  # pixels of the small pictures that are compared
ALIKE = 3.0  # their largest root mean square difference, of 255


def hold_out(names: list[str], how: str, where: str) -> tuple[list[int], list[int]]:
    """Indices of the images to train on and of those to validate on, of two names or more; in order.

    `how` is `tail` (the last of each folder, unless the folders are smaller than four images), `every` or
    `block`, as the parameter `hold_out` says. What is in neither part is said.
    """
    if how == "block":
        held, beside = _blocks(names)
    else:
        held, beside = (_tails(names) if how == "tail" else _every(len(names))), set()
    if beside:
        say(f"left out of {where}: {len(beside)} images beside the ones that hold_out=block holds out")
    kept = [i for i in range(len(names)) if i not in held and i not in beside]
    return kept, sorted(held)


def _tails(names: list[str]) -> set[int]:
    """The last 5 % of each folder, at least one; where folders are small, of all."""
    folders: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        folders.setdefault(_folder(name), []).append(i)
    groups = list(folders.values())
    if len(groups) > len(names) // 4:
        groups = [list(range(len(names)))]
    return {i for group in groups if len(group) > 1 for i in group[-max(1, len(group) // SHARE) :]}


def _every(count: int) -> set[int]:
    """One of each stretch of 20, from its middle."""
    held = max(1, count // SHARE)
    return {int((i + 0.5) * count / held) for i in range(held)}


def _blocks(names: list[str]) -> tuple[set[int], set[int]]:
    """Five stretches that hold 5 % together, and as many images of the same folder on both sides of each."""
    count, held = len(names), max(1, len(names) // SHARE)
    blocks = min(BLOCKS, held)
    inside: set[int] = set()
    beside: set[int] = set()
    for k in range(blocks):
        size = held * (k + 1) // blocks - held * k // blocks
        first = int((k + 0.5) * count / blocks - size / 2)
        inside.update(range(first, first + size))
        gap = min(size, (count - held) // (4 * blocks))
        ends = [(i, first) for i in range(first - gap, first)]
        ends += [(i, first + size - 1) for i in range(first + size, min(first + size + gap, count))]
        beside.update(i for i, end in ends if i >= 0 and _folder(names[i]) == _folder(names[end]))
    return inside, beside - inside


def _folder(name: str) -> str:
    """The folder of an image, the same in every shard."""
    return "/".join(part for part in os.path.dirname(name).split("/") if not part.lower().endswith(".tar"))


def overlap(train: Source, val: Source) -> str:
    """What is to be said of files that are in both, "" if there are none."""
    here = set(map(train.place, train.names))
    both = [name for name in val.names if val.place(name) in here]
    if not both:
        return ""
    return (
        f"{len(both)} of {len(val.names)} validation images are training images too, the first is {both[0]}"
    )


def alike(train: ImageDataset, val: ImageDataset) -> str:
    """What is to be said of validation images that look like training images, "" if none does.

    Copies and neighboring frames do: at 8 x 8 pixels they differ by less than 3 levels of 255. Of large sets
    some images stand for all.
    """
    import torch  # here, so that a sweep finds its images at once

    if train.streamed:
        return ""
    mine, theirs = train.evenly_spaced(COMPARED), val.evenly_spaced(COMPARED)
    distance, nearest = torch.cdist(_small(val, theirs), _small(train, mine)).min(1)
    found = (distance / (3 * SIDE * SIDE) ** 0.5 < ALIKE).nonzero().flatten().tolist()
    if not found:
        return ""
    one = val.names[theirs[found[0]]], train.names[mine[int(nearest[found[0]])]]
    return (
        f"{len(found)} of {len(theirs)} validation images look like training images, "
        f"such as {one[0]} like {one[1]}"
    )


def _small(images: ImageDataset, indices: list[int]) -> Tensor:
    """[len(indices), 3 * 8 * 8], in 0 … 255."""
    import torch

    parts = [images.center_crops(indices[i : i + 64]).float() for i in range(0, len(indices), 64)]
    return torch.cat([torch.nn.functional.adaptive_avg_pool2d(part, SIDE).flatten(1) for part in parts])
