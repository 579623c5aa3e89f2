"""Losses that teach nothing are refused before a training that would end with nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tok1d.config.fields import Config, ConfigError
from tok1d.config.schema import LossConfig, TrainConfig

LEAST_WEIGHT = 1e-6  # of all that looks at pixels: below it Adam's own epsilon is larger than the gradients
CHOOSES = {  # weight of a loss -> the parameters that choose what it is
    "perceptual_weight": ("perceptual", "perceptual_checkpoint"),
    "adversarial_weight": ("discriminator", "discriminator_checkpoint", "lecam_weight"),
    "align_weight": ("align_to", "align_checkpoint"),
}


def has_perceptual_network(config: LossConfig) -> bool:
    """Whether there is a perceptual loss with a trained network: `texture` has none, and needs no file."""
    return bool(config.perceptual_weight) and config.perceptual != "texture"


def check_losses(configs: Iterable[Config], given: dict[str, Any]) -> None:
    """What a training is asked to minimize does reach its pixels, and begins before it ends; `given` are the
    parameters as they were typed.
    """
    train = next((config for config in configs if isinstance(config, TrainConfig)), None)
    if train is None:
        return
    for weight, names in CHOOSES.items():
        chosen = [name for name in names if getattr(train, name) != TrainConfig.model_fields[name].default]
        chosen += [name for name in names[:1] if name in given and weight not in given]
        if chosen and not getattr(train, weight):
            name = chosen[0]
            default = TrainConfig.model_fields[name].default
            raise ConfigError(
                f"{name}={getattr(train, name)} does nothing with {weight}=0: type {weight}=0.1, or "
                f"{name}={default if default != '' else repr('')} {weight}=0 to train without"
            )
    if train.perceptual == "texture" and train.perceptual_checkpoint:
        raise ConfigError(
            f"perceptual_checkpoint={train.perceptual_checkpoint} does nothing with perceptual=texture, "
            f"which needs no file: type perceptual_checkpoint='', or perceptual=vgg_early"
        )
    if train.adversarial_weight and train.discriminator_start >= train.steps:
        raise ConfigError(
            f"discriminator_start={train.discriminator_start} is not before the end, steps={train.steps}: "
            f"type discriminator_start={train.steps // 2}, or adversarial_weight=0"
        )
    pixels = train.l1_weight + train.l2_weight + train.charbonnier_weight + train.perceptual_weight
    if not train.adaptive_weight:
        pixels += train.adversarial_weight
    if pixels < LEAST_WEIGHT:
        what = f"are {pixels:.0e} in all" if pixels else "are 0"
        raise ConfigError(
            f"l1_weight, l2_weight, charbonnier_weight and perceptual_weight {what}, so nothing learns "
            f"the pixels: type l2_weight=1"
        )
