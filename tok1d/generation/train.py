"""Training a prior: `notebooks/generate.ipynb`, and `tok1d prior` in each of several processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tok1d.config.fields import ConfigError
from tok1d.config.generation import PriorConfig
from tok1d.config.notebooks import GenerateParams
from tok1d.config.parse import own_parameters, parse_notebook
from tok1d.data.dataset import ImageDataset, load_data
from tok1d.distributed import main_process_first
from tok1d.generation.generator import Generator, load_tokenizer, prior_tokens, shape_of
from tok1d.generation.prior import Prior
from tok1d.generation.task import PriorTask
from tok1d.generation.token_dataset import TokenDataset, ids_sha256, token_dataset
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run, RunError
from tok1d.training.launch import fit_anywhere, run_training
from tok1d.training.train import fit

NOTEBOOK = Path("notebooks/generate.ipynb")


class Tokens(NamedTuple):
    """What a prior is trained on and measured with."""

    train: TokenDataset
    validation: TokenDataset
    images: ImageDataset  # those that `train` are ids of
    val_images: ImageDataset


def open_tokenizer(config: PriorConfig) -> Tokenizer:
    """The tokenizer that `config` names, or that of the prior it takes. Raises `ConfigError`, `RunError`."""
    if config.prior_from:
        return Generator.of_run(Run(config.prior_from)).tokenizer
    return load_tokenizer(config.tokenizer)


def tokens_of(tokenizer: Tokenizer, params: GenerateParams) -> Tokens:
    """The ids of the training and validation images, kept beside the images. Raises `ConfigError`."""
    config, cache = params.prior, Path(params.run.outputs) / ".cache"
    if config.prior_from:
        shape = Prior.from_pretrained(Run(config.prior_from) / "model").shape
        count, attributes = shape.num_tokens, shape.attributes
    else:
        count, attributes = prior_tokens(config, tokenizer.config), None
    images, val_images = load_data(params.data, tokenizer.config.image_size, cache)
    train = token_dataset(tokenizer, images, cache, count, config.condition, config.prior_crops, attributes)
    validation = token_dataset(tokenizer, val_images, cache, count, attributes=train.attributes)
    return Tokens(train, validation, images, val_images)


def train_prior(
    run: Run,
    tokenizer: Tokenizer,
    tokens: TokenDataset,
    params: GenerateParams,
    on_log: Callable[[dict[str, float]], None] = lambda record: None,
) -> Generator:
    """A prior over these tokens, trained in `run` from where it was left; or `prior_from`, which is another
    run's. Raises what `fit` raises, and `ConfigError` for a prior of other ids.
    """
    if params.prior.prior_from:
        return Generator(Prior.from_pretrained(Run(params.prior.prior_from) / "model"), tokenizer)
    if run.has_model:
        check_same_ids(run, tokenizer)
    task = PriorTask(shape_of(params.prior, tokenizer, tokens), params.train, params.prior.condition_drop)
    prior = fit_anywhere(run, task, tokens, "prior", on_log)
    return Generator(prior.to(tokenizer.device).eval(), tokenizer)


def check_same_ids(run: Run, tokenizer: Tokenizer) -> None:
    """Raises `RunError` if the tokenizer was trained anew since this prior was."""
    if Prior.from_pretrained(run / "model").shape.ids_sha256 != ids_sha256(tokenizer):
        raise RunError(
            f"{run.path} was trained on ids that {run.params['tokenizer']} no longer makes: "
            f"type another run=NAME, or delete that folder"
        )


def train_prior_command(params: dict[str, Any], again: list[str]) -> int:
    """Train as the notebook does; returns an exit status. `again`: see `train_command`."""
    own = own_parameters(NOTEBOOK) if NOTEBOOK.exists() else {}
    found = parse_notebook("generate", own | params)
    assert isinstance(found, GenerateParams)
    if found.prior.prior_from:
        raise ConfigError("prior_from is trained already: type prior_from= to train another one")
    return run_training(found.train, again, lambda: train_here(found))


def train_here(params: GenerateParams) -> None:
    """Train in this process, or with the others that it has process_group."""
    with main_process_first():
        tokenizer = load_tokenizer(params.prior.tokenizer).cpu()
        tokens = tokens_of(tokenizer, params).train
        run = Run.open(*params)
    shape = shape_of(params.prior, tokenizer, tokens)
    fit(run, PriorTask(shape, params.train, params.prior.condition_drop), tokens)
