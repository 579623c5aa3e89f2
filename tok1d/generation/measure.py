"""How good generated images are: likelihoods, distances to real images at each length, copies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tok1d.config.generation import SampleConfig
from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import ImageDataset
from tok1d.evaluation.evaluate import evaluate
from tok1d.evaluation.generated import evaluate_generated, nearest_images
from tok1d.generation.generator import Generator
from tok1d.generation.prior import AutoregressivePrior
from tok1d.generation.token_dataset import TokenDataset
from tok1d.generation.train import Tokens
from tok1d.models.weights import model_sha256
from tok1d.runs import Run

FORMULA = "u + s (c - u), of logits u without and c with the condition"
BATCH = 200


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
    """`{"card", "results", "tokenizer", "warnings"}`: distances of sets to the validation images at each
    length, a row for each seed of samples, and the tokenizer's own evaluation on as many images; kept in
    `eval.json`.

    Without distances of sets in `config.metrics`, rows have the lengths and numbers of samples alone.
    """
    asked = ask(generator, sampling, sampling.samples)
    reference = tokens.val_images
    facts = {
        "model": str(run.path),
        "model_sha256": model_sha256(generator.prior),
        "tokenizer_sha256": model_sha256(generator.tokenizer),
        "sampling": sampling.model_dump(mode="json", exclude={"sample_batch_size"}) | {"formula": FORMULA},
    }
    found: dict[str, Any] = {}
    for seed in sampling.sample_seeds:
        batches = decoded(generator, asked, sampling, seed)
        one = evaluate_generated(
            batches, reference, "validation images", config, run.cache, facts, generator.tokenizer.device
        )
        rows = [{"seed": seed} | row for row in one["results"]]
        found = one | {"results": found.get("results", []) + rows}
    own = config.model_copy(
        update={
            "token_counts": generator.token_counts,
            "eval_images": min(len(reference), sampling.samples),
            "metrics": tuple(dict.fromkeys(("psnr", *config.metrics))),
        }
    )
    found["tokenizer"] = evaluate(generator.tokenizer, reference, own, cache=run.cache)
    run.write_json("eval.json", found)
    return found


def decoded(
    generator: Generator, asked: Tensor, sampling: SampleConfig, seed: int
) -> Iterator[dict[int, Tensor]]:
    """The samples of a seed at each length, uint8 [B, 3, S, S] by number of tokens, a batch at a time."""
    for batch in generator.samples(asked, sampling, seed):
        yield {count: generator.decode(batch.ids[:, :count]) for count in generator.token_counts}


def shown_samples(generator: Generator, sampling: SampleConfig, each: int) -> tuple[Tensor, Tensor]:
    """ids [B, K] and what was asked, [B, A]: the first `each` samples of everything that can be asked for."""
    kinds = 1 if sampling.ask else max(1, len(generator.prior.shape.combinations))
    asked = ask(generator, sampling, kinds * each)
    ids = [batch.ids for batch in generator.samples(asked, sampling, sampling.sample_seeds[0])]
    return torch.cat(ids), asked


def nearest_training_images(images: Tensor, training: ImageDataset) -> Tensor:
    """The training image that is most like each of these, uint8 [B, 3, S, S]."""
    indices, _ = nearest_images(images, training)
    return training.center_crops(indices)
