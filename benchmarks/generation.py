"""What generating costs, and whether samples are what was asked for.

python -m benchmarks.generation speed        sequences/s: with and without a cache, masked, both heads
python -m benchmarks.generation decoder RUN  images/s of a trained prior, and the decoder's share
python -m benchmarks.generation labels RUN NAME=VALUE …    a small classifier, trained on real toy roads,
                                             on samples of a prior; guidance=2 and any sampling parameter
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tok1d.config.generation import SampleConfig
from tok1d.config.parse import parse, parse_pairs
from tok1d.config.schema import DataConfig
from tok1d.data.dataset import ImageDataset, load_data, to_float
from tok1d.generation.generator import Generator
from tok1d.generation.prior import Prior, PriorShape
from tok1d.generation.sampling import sample
from tok1d.runs import Run

FSQ = (8, 8, 8, 5, 5, 5)
ATTRIBUTES = ("timeofday", "weather")


def main(command: str = "speed", *arguments: str) -> None:
    COMMANDS[command](*arguments)


def seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """The least of a few times."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def speed() -> None:
    """Sequences a second of untrained priors of the default size, guided; and of a training step."""
    prior = untrained(64)
    cached, plain = draw(prior), draw(prior, cache=False)
    say("autoregressive, 64 tokens, batch 64", cached, "with a cache", plain, "without")
    masked, one_by_one = untrained(32, "masked"), untrained(32)
    for batch in (
        1,
        64,
    ):  # one waits for the steps, many for the arithmetic, of which masked has 8 times more
        pair = draw(masked, batch), draw(one_by_one, batch)
        say(f"32 tokens, batch {batch}", pair[0], "masked in 8 steps", pair[1], "autoregressive")
    whole, factors = untrained(32, levels=(64_000,)), untrained(32)
    say("sampling, 64,000 codes", draw(factors), "with factors", draw(whole), "with one softmax")
    say("training, 64,000 codes", train(factors), "with factors", train(whole), "with one softmax")


def say(what: str, rate: float, how: str, other: float, otherwise: str) -> None:
    print(
        f"{what}: {rate:.2f} sequences/s {how}, {other:.2f} {otherwise}, {rate / other:.1f} times", flush=True
    )


def untrained(num_tokens: int, kind: str = "autoregressive", levels: tuple[int, ...] = FSQ) -> Prior:
    classes = {"class": ("one", "other")}
    return Prior.build(PriorShape(kind=kind, num_tokens=num_tokens, levels=levels, attributes=classes)).eval()


def draw(prior: Prior, count: int = 64, cache: bool = True) -> float:
    """Guided sequences a second."""
    asked, config = torch.zeros(count, 1, dtype=torch.long), SampleConfig(guidance=2)
    return count / seconds(lambda: sample(prior, asked, config, 0, range(count), cache=cache))


def train(prior: Prior) -> float:
    """Sequences a second, forwards and backwards, 16 at once."""
    prior.train()
    ids = torch.randint(0, 64_000, (16, prior.shape.num_tokens))
    asked = torch.zeros(16, 1, dtype=torch.long)
    return 16 / seconds(lambda: prior(ids, asked).sum().backward(), 2)


def decoder(folder: str, count: str = "64") -> None:
    generator = Generator.of_run(Run(folder))
    asked = generator.balanced(int(count))
    drawn = seconds(lambda: generator.ids(asked, SampleConfig(sample_batch_size=int(count))), 1)
    ids = generator.ids(asked, SampleConfig())
    decoded = seconds(lambda: generator.decode(ids), 1)
    print(f"{int(count) / (drawn + decoded):.2f} images/s, decoder {decoded / (drawn + decoded):.1%}")


# ---- is it what was asked for? ----


class Classifier(nn.Module):
    """float images in 0 … 1 -> logits of each attribute."""

    def __init__(self, sizes: list[int]):
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, 1 if a == 3 else 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()
                )
                for a, b in itertools.pairwise(widths)
            )
        )
        self.heads = nn.ModuleList(nn.Linear(2 * widths[-1], size) for size in sizes)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.layers(images)
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        return [head(x) for head in self.heads]


def labels(folder: str, *texts: str) -> None:
    generator = Generator.of_run(Run(folder))
    (config,) = parse(parse_pairs(list(texts)), SampleConfig)
    size = generator.tokenizer.config.image_size
    images, val_images = load_data(DataConfig(toy_images=4000, toy_val_images=400), size, Run(folder).cache)
    values = generator.prior.shape.attributes
    names = [name for name in ATTRIBUTES if name in values]
    classifier = train_classifier(images, names, values)
    truth = targets(val_images, names, values)
    own = accuracy(classifier, [val_images.center_crops(range(len(val_images)))], truth)
    counts = range(len(val_images))
    asked = generator.balanced(config.samples)
    wanted = asked[:, [list(values).index(name) for name in names]]
    made = [generator.decode(batch.ids) for batch in generator.samples(asked, config, config.sample_seeds[0])]
    found = accuracy(classifier, made, wanted)
    for name, real, generated in zip(names, own, found, strict=True):
        print(f"{name}: {real:.1%} of {len(counts)} real images, {generated:.1%} of {len(asked)} samples")


def targets(images: ImageDataset, names: list[str], values: dict[str, tuple[str, ...]]) -> Tensor:
    assert images.labels is not None
    return torch.tensor([[values[name].index(label[name]) for name in names] for label in images.labels])


def train_classifier(
    images: ImageDataset, names: list[str], values: dict[str, tuple[str, ...]], steps: int = 700
) -> Classifier:
    torch.manual_seed(0)
    classifier = Classifier([len(values[name]) for name in names])
    pixels, truth = images.center_crops(range(len(images))), targets(images, names, values)
    optimizer = torch.optim.AdamW(classifier.parameters(), 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(pixels), (48,))
        batch = to_float(pixels[chosen])
        found = classifier(batch.flip(-1) if step % 2 else batch)
        losses = [F.cross_entropy(logits, truth[chosen, a]) for a, logits in enumerate(found)]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


@torch.no_grad()
def accuracy(classifier: Classifier, batches: list[Tensor], truth: Tensor) -> list[float]:
    """The share of images that are what `truth` [N, A] says, of each attribute."""
    parts = [part for batch in batches for part in batch.split(100)]
    found = [classifier(to_float(part)) for part in parts]
    best = torch.stack([torch.cat([f[a] for f in found]).argmax(1) for a in range(truth.shape[1])], 1)
    return (best == truth).float().mean(0).tolist()


COMMANDS: dict[str, Callable[..., None]] = {"speed": speed, "decoder": decoder, "labels": labels}

if __name__ == "__main__":
    main(*sys.argv[1:])
