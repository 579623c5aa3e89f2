"""One training in several processes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tok1d.config.parse import parse_train
from tok1d.data.dataset import load_data
from tok1d.runs import Run
from tok1d.training.train import train

EVERYTHING = dict(
    image_size=16, patch_size=8, encoder_size="nano", decoder_size="nano", num_latent_tokens=4, elastic=True,
    toy_images=40, toy_val_images=4, steps=50, batch_size=8, grad_accum_steps=2, log_every=1,
    checkpoint_every=7, quantizer="vq", codebook_size=32, entropy_weight=0.01, entropy_decay_steps=40,
    l1_weight=1.0, adversarial_weight=0.1, lecam_weight=0.01, discriminator_start=5, discriminator_ramp=10,
    optimizer="adamw", lr=1e-4, discriminator_lr=1e-5, warmup_steps=5,
)  # fmt: skip


def arguments(outputs: Path, **params) -> list[str]:
    """`tok1d train` with everything on."""
    pairs = (EVERYTHING | dict(sweep="runs", run="run", outputs=outputs) | params).items()
    return ["train", *(text for name, value in pairs for text in ("-p", f"{name}={value}"))]


def train_alone(outputs: Path, **params) -> Run:
    """The same in this very process."""
    params = EVERYTHING | dict(sweep="runs", run="run", outputs=str(outputs)) | params
    configs = parse_train(params)
    run = Run.open(*configs)
    train(run, load_data(configs.data, 16, run.cache)[0], configs.tokenizer, configs.train)
    return run


def assert_close(run: Run, other: Run) -> None:
    """The curves to 1e-4, of what the adversarial game does not make chaotic."""
    assert len(run.metrics) == len(other.metrics) == EVERYTHING["steps"]
    for mine, theirs in zip(run.metrics, other.metrics, strict=True):
        assert mine.keys() == theirs.keys()
        for name in ("loss", "l1", "l2", "psnr", "quantizer", "perplexity", "num_tokens", "lr"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-4), (name, mine["step"])
    weights, others = (load_file(r / "model" / "model.safetensors") for r in (run, other))
    for name in weights:
        torch.testing.assert_close(weights[name], others[name], rtol=1e-2, atol=1e-3)


def last_step(outputs: Path) -> int:
    return torch.load(outputs / "runs" / "run" / "last.ckpt", weights_only=True)["counts"]["step"]
