"""The pretrained files of an evaluation's metrics, for `tok1d prefetch metrics=rfid,lpips`."""

from __future__ import annotations

from tok1d.config.metrics import NEEDS
from tok1d.config.schema import EvalConfig, LossConfig
from tok1d.evaluation.features import extractor_weights
from tok1d.losses.loss_weights import perceptual_weights
from tok1d.models.weights import Weights


def metric_weights(config: EvalConfig) -> list[Weights]:
    """Every file that the metrics of `config` need. Raises `ConfigError` if one cannot be had."""
    files = {"inception": config.inception_weights, "dinov2": config.dino_weights}
    networks = dict.fromkeys(NEEDS[metric] for metric in config.metrics if metric in NEEDS)
    found = [extractor_weights(name, files[name], config.dino_size) for name in networks]
    if "lpips" in config.metrics:
        loss = LossConfig(perceptual="lpips", perceptual_weights=config.lpips_weights)
        found.append(perceptual_weights(loss))
    return found
