"""How good generated images are: likelihoods, distances to real images at each length, copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.generation import SampleConfig
from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import ImageDataset
from tok1d.evaluation.evaluate import evaluate
from tok1d.evaluation.generated import evaluate_generated, nearest_images, thumbnails
from tok1d.evaluation.metrics.bootstrap import interval_over_seeds
from tok1d.evaluation.metrics.features import build_extractor, checkpoint_of, networks_of
from tok1d.generation.generator import Generator
from tok1d.generation.prior import AutoregressivePrior
from tok1d.generation.token_dataset import TokenDataset
from tok1d.generation.train import Tokens
from tok1d.models.weights import model_sha256
from tok1d.runs import Run

FORMULA = "u + s (c - u), of logits u without and c with the condition"
BATCH = 200
ROWS = 15  # of a grid of samples
UNSAMPLED = {"sample_batch_size", "nearest_by"}  # parameters that change no sample


@torch.no_grad()
def likelihoods(generator: Generator, tokens: Tokens) -> list[dict[str, Any]]:
    """Nats a token on training and on validation images, and what a uniform guess has. If training images are
    much likelier, the prior knows them by heart. Empty for a masked prior, which has no likelihood.
    """
    prior = generator.prior
    if not isinstance(prior, AutoregressivePrior):
        return []
    uniform = torch.tensor(float(prior.shape.codebook_size)).log().item()
    count = len(tokens.validation)
    return [
        {"images": "training", "nats / token": nats(prior, tokens.train, count)},
        {"images": "validation", "nats / token": nats(prior, tokens.validation, count)},
        {"images": "a uniform guess", "nats / token": uniform},
    ]


def nats(prior: AutoregressivePrior, tokens: TokenDataset, most: int) -> float:
    """The mean over the first `most` images."""
    ids, asked = (each[:most].to(prior.device) for each in tokens.first_views())
    parts = zip(ids.split(BATCH), asked.split(BATCH), strict=True)
    return -sum(prior(*part).double().sum().item() for part in parts) / ids.numel()


def ask(generator: Generator, config: SampleConfig, count: int) -> Tensor:
    """What `config` asks for, [count, A]: the same of all, or everything equally often."""
    return generator.asked(config.ask, count) if config.ask else generator.balanced(count)


def measure_samples(
    run: Run, generator: Generator, tokens: Tokens, sampling: SampleConfig, config: EvalConfig
) -> dict[str, Any]:
    """Distances of sets to the validation images at each length, kept in `eval.json`:

    `results`    a row for each seed of samples and length, on `card`
    `over_seeds` the mean over seeds at each length, with a 95 % interval (Student's t), if there are several
    `training`   as many training images instead: what a prior that copies them would have
    `tokenizer`  the tokenizer's own evaluation, on as many validation images

    Without distances of sets in `config.metrics`, rows have the lengths and numbers of samples alone. Raises
    `ConfigError` for token counts that the prior's samples do not have.
    """
    counts = lengths(generator, config)
    asked = ask(generator, sampling, sampling.samples)
    reference = tokens.val_images
    facts = {
        "model": str(run.path),
        "model_sha256": model_sha256(generator.prior),
        "tokenizer_sha256": model_sha256(generator.tokenizer),
        "sampling": sampling.model_dump(mode="json", exclude=UNSAMPLED) | {"formula": FORMULA},
    }

    def distances(batches: Iterable[dict[int, Tensor]]) -> dict[str, Any]:
        device = generator.tokenizer.device
        return evaluate_generated(batches, reference, "validation images", config, run.cache, facts, device)

    found: dict[str, Any] = {}
    for seed in sampling.sample_seeds:
        one = distances(decoded(generator, asked, sampling, seed, counts))
        rows = [{"seed": seed} | row for row in one["results"]]
        found = one | {"results": found.get("results", []) + rows}
    found["over_seeds"] = over_seeds(found["results"])
    if networks_of(config.metrics):
        some = tokens.images.evenly_spaced(sampling.samples)
        parts = [some[i : i + BATCH] for i in range(0, len(some), BATCH)]
        found["training"] = distances({0: tokens.images.center_crops(part)} for part in parts)["results"]
    own = config.model_copy(
        update={
            "token_counts": counts,
            "eval_images": min(len(reference), sampling.samples),
            "metrics": tuple(dict.fromkeys(("psnr", *config.metrics))),
        }
    )
    found["tokenizer"] = evaluate(generator.tokenizer, reference, own, cache=run.cache)
    run.write_json("eval.json", found)
    return found


def lengths(generator: Generator, config: EvalConfig) -> tuple[int, ...]:
    """The lengths that samples are measured at: `token_counts`, by default all that are worth decoding."""
    K, elastic = generator.prior.shape.num_tokens, generator.tokenizer.config.elastic
    for count in config.token_counts:
        if count > K or (count < K and not elastic):
            can = f"1 … {K}" if elastic else f"{K}"
            raise ConfigError(f"token_counts={count} is no length of these samples: type {can}")
    return tuple(sorted(config.token_counts)) or generator.token_counts


def over_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of rows of several seeds the mean of every number at each length, and its interval; [] of one seed."""
    found = []
    for count in sorted({row["num_tokens"] for row in rows}):
        here = [row for row in rows if row["num_tokens"] == count]
        if len(here) < 2:
            return []
        row: dict[str, Any] = {"num_tokens": count, "samples": here[0]["samples"], "seeds": len(here)}
        for name in here[0].keys() - {"seed", *row}:
            if not name.endswith("_interval"):
                values = np.array([each[name] for each in here])
                row |= {name: float(values.mean()), f"{name}_interval": list(interval_over_seeds(values))}
        found.append(row)
    return found


def decoded(
    generator: Generator, asked: Tensor, sampling: SampleConfig, seed: int, counts: tuple[int, ...]
) -> Iterator[dict[int, Tensor]]:
    """The samples of a seed at each length, uint8 [B, 3, S, S] by number of tokens, a batch at a time."""
    for batch in generator.samples(asked, sampling, seed):
        yield {count: generator.decode(batch.ids[:, :count]) for count in counts}


def shown_samples(generator: Generator, sampling: SampleConfig, each: int) -> tuple[Tensor, Tensor]:
    """ids [B, K] and what was asked, [B, A]: the first `each` samples of everything that can be asked for, or
    of `ROWS` things, evenly spaced among them.
    """
    kinds = 1 if sampling.ask else max(1, len(generator.prior.shape.combinations))
    chosen = np.linspace(0, kinds - 1, min(kinds, ROWS)).round().astype(int).tolist()
    asked = ask(generator, sampling, kinds)[chosen * each]
    ids = [batch.ids for batch in generator.samples(asked, sampling, sampling.sample_seeds[0])]
    return torch.cat(ids), asked


def nearest_training_images(
    images: Tensor, training: ImageDataset, sampling: SampleConfig, config: EvalConfig
) -> Tensor:
    """The training image that is most like each of these, uint8 [B, 3, S, S], by `nearest_by`."""
    features: Callable[[Tensor], Tensor] = thumbnails
    if sampling.nearest_by != "pixels":
        weights = checkpoint_of(sampling.nearest_by, config)
        features = build_extractor(sampling.nearest_by, weights, config.dino_size, config.feature_dtype)
    indices, _ = nearest_images(images, training, features)
    return training.center_crops(indices)
