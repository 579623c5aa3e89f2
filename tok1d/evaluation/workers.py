"""What a device computes of a batch, and several devices at once: an evaluation uses every GPU.

Each has its own copy of the tokenizer and of all networks that measure. Nothing here writes a file or keeps a
sum: `tok1d.evaluation.evaluate` gathers what was found in the order of the images, so its numbers are the
same on any number of devices of a kind.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import to_float, to_uint8
from tok1d.evaluation.measured import Encoded, ForeignTokenizer, NativeTokenizer, timed
from tok1d.evaluation.metrics.features import Extractor
from tok1d.evaluation.metrics.images import ImageMetric

Item = TypeVar("Item")
Result = TypeVar("Result")
Net = TypeVar("Net", bound=nn.Module)


class Saving(NamedTuple):
    """How a decoder's output becomes an image. Rounding, clamping, files of another kind all move numbers."""

    rule: str
    apply: Callable[[Tensor], Tensor]  # float [B, 3, H, W], about 0 … 1 -> uint8 [B, 3, H, W]


UINT8 = Saving("clamped to 0 … 1, rounded to uint8", to_uint8)


class Batch(NamedTuple):
    first: int  # the index of its first image
    images: Tensor  # uint8 [B, 3, H, W]
    kept: dict[str, Tensor]  # the features of these images that are known, by network, [B, D]


class CountResult(NamedTuple):
    """What is found of a batch at one token count, all of it on the CPU."""

    num_tokens: int | None
    ids: Tensor | None  # [B, num_tokens]
    encode_seconds: float
    decode_seconds: float
    columns: dict[str, Tensor]  # numbers of each image, [B]
    features: dict[str, Tensor]  # of the reconstructions, by network, [B, D]


class BatchResult(NamedTuple):
    batch: Batch
    features: dict[str, Tensor]  # of the originals, by network, [B, D], on the CPU
    counts: list[CountResult]


class Worker:
    """Encodes a batch once, decodes it at each token count, and measures that: on the tokenizer's device."""

    def __init__(
        self,
        measured: NativeTokenizer | ForeignTokenizer,
        metrics: dict[str, ImageMetric],
        extractors: dict[str, Extractor],
        saving: Saving,
    ):
        self.measured, self.metrics, self.extractors = measured, metrics, extractors
        self.saving, self.device = saving, measured.device

    @torch.no_grad()
    def __call__(self, batch: Batch) -> BatchResult:
        images = batch.images.to(self.device)
        original = to_float(images)
        features = {
            name: batch.kept[name].to(self.device) if name in batch.kept else extractor(images)
            for name, extractor in self.extractors.items()
        }
        counts = [self.at(encoded, original, features) for encoded in self.measured.encode(original)]
        return BatchResult(batch, on_cpu(features), counts)

    def at(self, encoded: Encoded, original: Tensor, features: dict[str, Tensor]) -> CountResult:
        output, seconds = timed(lambda: self.measured.decode(encoded.codes), self.device)
        saved = self.saving.apply(output).to(self.device)
        restored = to_float(saved)
        columns = {name: metric.measure(restored, original) for name, metric in self.metrics.items()}
        made = {name: extractor(saved) for name, extractor in self.extractors.items()}
        columns |= {f"{name}_shift": (made[name] - features[name]).norm(dim=1) for name in made}
        if encoded.bits is not None:
            columns["bits"] = torch.tensor(encoded.bits, dtype=torch.float64)
        ids = None if encoded.ids is None else encoded.ids.cpu()
        return CountResult(
            encoded.num_tokens, ids, encoded.seconds, seconds, on_cpu(columns), on_cpu(made)
        )  # fmt: skip


def on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def devices_for(measured: NativeTokenizer | ForeignTokenizer, config: EvalConfig) -> list[torch.device]:
    """The tokenizer's device, and if that is a GPU every other one too, up to `config.eval_devices`.

    `CUDA_VISIBLE_DEVICES` hides GPUs. A peer stays where it is: nobody knows what it keeps there.
    """
    own = measured.device
    if own.type != "cuda" or isinstance(measured, ForeignTokenizer):
        return [own]
    every = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    return [own, *(device for device in every if device != own)][: config.eval_devices or None]


def copies(net: Net, devices: Sequence[torch.device]) -> list[Net]:
    """`net` itself, moved to the first device, and a copy of it on each of the others."""
    return [net.to(devices[0]), *(copy.deepcopy(net).to(device) for device in devices[1:])]


def in_order(workers: Sequence[Callable[[Item], Result]], items: Iterable[Item]) -> Iterator[Result]:
    """What workers make of items, in the order of the items; all work at once, each on one item at a time.

    Items are drawn in the caller's thread, one more than there are workers, so that none waits for the next.
    A single worker works in the caller's thread, too.
    """
    if len(workers) == 1:
        yield from map(workers[0], items)
        return
    free: SimpleQueue = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def work(item: Item) -> Result:
        worker = free.get()
        try:
            return worker(item)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(len(workers)) as pool:
        begun: deque[Future[Result]] = deque()
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > len(workers):
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
