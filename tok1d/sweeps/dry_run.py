"""What is looked at before a sweep starts: that the data and weights of each run are there.

What is heavy to import is imported where it is needed, so that a sweep that needs no weights starts at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from tok1d.config.schema import (
    Config,
    ConfigError,
    DataConfig,
    EvalConfig,
    LossConfig,
    StartConfig,
    TokenizerConfig,
)
from tok1d.data.sources import find_sources
from tok1d.sweeps.plan import Cell, Plan


def missing(plan: Plan) -> list[str]:
    """A sentence for each thing that some run needs and that is not there."""
    looks = dict.fromkeys(look for cell in plan.cells for look in needs(cell, plan))
    found: dict[str, None] = {}
    for function, *arguments in looks:
        try:
            function(*arguments)
        except ConfigError as error:
            found[str(error)] = None
    return list(found)


def needs(cell: Cell, plan: Plan) -> Iterator[tuple]:
    """Functions that raise `ConfigError` if something is not there, each with its arguments: the same ones
    for runs that need the same.
    """
    init = cell.tokenizer.encoder_init, cell.tokenizer.encoder_size
    size, cache = cell.tokenizer.image_size, cell.run.path.parent.parent / ".cache"
    yield find_sources, cell.data, size, cache
    yield start_weights, *init, part(cell.train, StartConfig)
    yield weights_of_losses, part(cell.train, LossConfig)
    if "evaluate" in plan.config.after_run:
        config, data = plan.config.measuring
        for metric in config.metrics:
            yield weights_of_metrics, config.model_copy(update={"metrics": (metric,)})
        for each in filter(None, (data, config.reference_data)):
            yield find_sources, DataConfig(data=each, val_data=each), size, cache


def start_weights(init: str, size: str, start: StartConfig) -> None:
    if start.init_from:
        from tok1d.models.parents import read_parent

        read_parent(start.init_from)
    elif init != "random":
        from tok1d.models.weights import read_weights

        read_weights(TokenizerConfig(encoder_init=init, encoder_size=size), start)


def weights_of_losses(config: LossConfig) -> None:
    if config.perceptual_weight or config.adversarial_weight or config.align_weight:
        from tok1d.losses.loss_weights import loss_weights

        loss_weights(config)


def weights_of_metrics(config: EvalConfig) -> None:
    from tok1d.evaluation.metric_weights import metric_weights

    metric_weights(config)


def part(config: Config, cls: type[Config]) -> Config:
    """The values of `config` that `cls` has."""
    return cls(**{name: getattr(config, name) for name in cls.model_fields})
