"""The token ids of a data set, made once and kept: what a prior is trained on.

A tokenizer's encoder is frozen now, so an image needs to be encoded only once for each view: the center crop
and its mirror image, or `crops` random crops and theirs, as LlamaGen (arXiv:2406.06525) keeps ten. They are
found again by the images' fingerprint and a hash of whatever makes ids; a decoder that was fine-tuned since
makes no other ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.registry import QUANTIZERS
from tok1d.data.dataset import ImageDataset, to_float
from tok1d.data.decode import random_crop_flip
from tok1d.models.tokenizer import Tokenizer
from tok1d.models.weights import state_sha256
from tok1d.system.files import replacing
from tok1d.system.progress import counted

BATCH = 100  # images at once
UNKNOWN = ("", "undefined")  # in labels: BDD100K has both
Attributes = dict[str, tuple[str, ...]]  # what can be asked for, and its values


@dataclass(frozen=True)
class TokenDataset:
    """`ids` int32 [N, V, K], memory-mapped: of each image V views; `asked` int64 [N, A], of each attribute
    the index of its value, or the number of values where it is unknown.
    """

    ids: np.ndarray
    asked: np.ndarray
    attributes: Attributes
    fingerprint: str

    def __len__(self) -> int:
        return len(self.ids)

    def train_batch(
        self, step: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, pin: bool = False
    ) -> Tensor:
        """int64 [batch_size / world, A + K]: what could be asked for, and the ids of a random view.

        Every epoch sees every image once, as `ImageDataset.train_batch` does.
        """
        rows = []
        for position in range(step * batch_size + rank, (step + 1) * batch_size, world):
            epoch, offset = divmod(position, len(self))
            image = np.random.default_rng((seed, 0, epoch)).permutation(len(self))[offset]
            view = np.random.default_rng((seed, 1, position)).integers(self.ids.shape[1])
            rows.append(np.concatenate([self.asked[image], self.ids[image, view]]))
        batch = torch.from_numpy(np.stack(rows).astype(np.int64))
        return batch.pin_memory() if pin else batch

    def first_views(self) -> tuple[Tensor, Tensor]:
        """ids [N, K] of each image's first view, and `asked` [N, A]."""
        return torch.from_numpy(self.ids[:, 0].astype(np.int64)), torch.from_numpy(self.asked)


def token_dataset(
    tokenizer: Tokenizer,
    images: ImageDataset,
    cache: Path,
    num_tokens: int,
    condition: tuple[str, ...] = (),
    crops: int = 0,
    attributes: Attributes | None = None,
) -> TokenDataset:
    """The ids of all `images`, from the folder `cache` or made now, the first `num_tokens` of each.

    `crops` 0: the center crop and its mirror image. `condition` names the labels that can be asked for,
    empty: all that the images have, "none": none; or with `attributes`, those and their values. Raises
    `ConfigError` for a tokenizer without ids, for labels that are not there.
    """
    config = tokenizer.config
    if QUANTIZERS[config.quantizer].continuous:
        raise ConfigError(
            f"quantizer={config.quantizer} has continuous tokens, which these priors cannot learn: "
            f"type tokenizer=FOLDER of one with ids, such as quantizer=fsq"
        )
    labels = labels_of(images)
    if attributes is None:
        attributes = attributes_in(labels, condition)
    asked = [
        [index_of(label.get(name, ""), values) for name, values in attributes.items()] for label in labels
    ]
    identity = {
        "images": images.fingerprint, "count": len(images), "size": images.size, "rule": images.rule,
        "ids": ids_sha256(tokenizer), "tokens": config.num_latent_tokens, "crops": crops,
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    file = cache / f"ids-{key}.npy"
    if not file.exists():
        with replacing(file) as temporary:
            write_ids(tokenizer, images, temporary, crops)
    ids = np.load(file, mmap_mode="r")[:, :, :num_tokens]
    return TokenDataset(ids, np.array(asked, np.int64).reshape(len(images), -1), attributes, f"ids-{key}")


@torch.no_grad()
def write_ids(tokenizer: Tokenizer, images: ImageDataset, file: Path, crops: int) -> None:
    """int32 [N, V, K] as numpy's .npy."""
    shape = (len(images), 2 * max(crops, 1), tokenizer.config.num_latent_tokens)
    with open(file, "wb") as out:  # numpy would add a suffix to a name
        np.lib.format.write_array_header_1_0(out, {"descr": "<i4", "fortran_order": False, "shape": shape})
        starts = range(0, len(images), BATCH)
        for start in counted(starts, f"encoding {BATCH} images at a time", len(starts), "batches"):
            chosen = range(start, min(start + BATCH, len(images)))
            found = []
            for crop in range(max(crops, 1)):
                pixels = views(images, chosen, crop) if crops else images.center_crops(chosen)
                batch = to_float(pixels.to(tokenizer.device))
                found += [tokenizer.encode(batch), tokenizer.encode(batch.flip(-1))]
            out.write(torch.stack(found, 1).to(torch.int32).cpu().numpy().astype("<i4").tobytes())


def views(images: ImageDataset, chosen: range, crop: int) -> Tensor:
    """The `crop`-th random crop of each image, uint8 [B, 3, S, S]."""
    rows = [
        random_crop_flip(images[i], images.size, np.random.default_rng((2, i, crop))).transpose(2, 0, 1)
        for i in chosen
    ]
    return torch.from_numpy(np.ascontiguousarray(np.stack(rows)))


def ids_sha256(tokenizer: Tokenizer) -> str:
    """A hash of whatever decides a tokenizer's ids: all of its weights but the decoder's."""
    decoding = ("decoder.", "refine.")
    rest = {name: t for name, t in tokenizer.state_dict().items() if not name.startswith(decoding)}
    return state_sha256(rest, str(tokenizer.config.model_dump(exclude={"decoder_refine"})))


# ---- what can be asked for ----


def labels_of(images: ImageDataset) -> list[Mapping[str, str]]:
    """Each image's attributes by name; of pictures in several folders, their first folder is their class."""
    if images.labels is not None:
        return list(images.labels)
    folders = [name.split("/")[0] if "/" in name else "" for name in images.names]
    several = len(set(folders)) > 1 and "" not in folders
    return [{"class": folder} if several else {} for folder in folders]


def attributes_in(labels: list[Mapping[str, str]], condition: tuple[str, ...]) -> Attributes:
    """Of the attributes in `condition` (empty: of all) the values that labels have, at least two."""
    if condition == ("none",):
        return {}
    known = {name: values_of(labels, name) for name in dict.fromkeys(n for label in labels for n in label)}
    known = {name: values for name, values in known.items() if len(values) > 1}
    for name in condition:
        if name not in known:
            can = f"type one of {', '.join(known)}" if known else "type condition=none"
            raise ConfigError(f"these images have no label {name} with two values: {can}")
    return {name: known[name] for name in condition or known}


def values_of(labels: list[Mapping[str, str]], name: str) -> tuple[str, ...]:
    return tuple(sorted({label.get(name, "") for label in labels} - {*UNKNOWN}))


def index_of(value: str, values: tuple[str, ...]) -> int:
    return values.index(value) if value in values else len(values)
