"""One test per defect of the repository this project started from; each fails if the defect is put back.

Here: 1 positions lost, 2 a layer in no optimizer, 3 latent tokens alike, 4 LayerScale, pre-norm and
normalisation lost, 5 an uninitialized baseline of another network, and of 9 the schedule that counts two
optimizers. Elsewhere: the generator's gradient in the discriminator's step (6) in test_objective.py, resizing
(7) in test_data.py, LPIPS left in training mode (9) in test_perceptual.py, and commitment's beta (9) in
test_quantizers.py.
"""

import math

import pytest
import timm
import torch
from checkpoints import NANO, UPSTREAM, save_upstream
from timm.layers import resample_abs_pos_embed, resample_patch_embed

from tok1d.config.parse import parse_train
from tok1d.config.schema import StartConfig, TokenizerConfig, TrainConfig
from tok1d.data.dataset import load_data
from tok1d.models.encoder import Encoder
from tok1d.models.pretrained import anatomy, load_pretrained_encoder
from tok1d.models.quantizers import QUANTIZER_CLASSES
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run
from tok1d.training.optim import build_optimizers
from tok1d.training.task import tokenizer_groups
from tok1d.training.train import train

SMALL = dict(
    image_size=256,
    patch_size=16,
    encoder_size="nano",
    decoder_size="nano",
    num_latent_tokens=8,
    elastic=False,
)


@pytest.fixture(params=UPSTREAM)
def started(request, tmp_path):
    """(name, encoder started from upstream's file, upstream's model), at size nano."""
    path, upstream = save_upstream(request.param, tmp_path, **NANO)
    config = TokenizerConfig(**SMALL, encoder_init=request.param)
    encoder = Encoder(config)
    load_pretrained_encoder(encoder, config, StartConfig(encoder_checkpoint=str(path)))
    return request.param, encoder, upstream


def test_1_positions_are_the_pretrained_ones_resampled(started):
    _, encoder, upstream = started
    want = resample_abs_pos_embed(upstream.pos_embed, [16, 16], num_prefix_tokens=1)
    assert torch.equal(encoder.vit.pos_embed, want) and want.std() > 0.1
    assert torch.equal(encoder.vit.pos_embed[:, 0], upstream.pos_embed[:, 0])  # the class token's own


@pytest.mark.parametrize("init", ["random", "dinov2"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("quantizer", QUANTIZER_CLASSES)
def test_2_every_layer_is_in_an_optimizer_and_moves(init, optimizer, quantizer):
    """Above all `to_codes`, the bottleneck from the encoder's width to a code."""
    torch.manual_seed(0)
    small = SMALL | dict(image_size=32, patch_size=8)
    model = Tokenizer(TokenizerConfig(**small, encoder_init=init, quantizer=quantizer)).train()
    config = TrainConfig(optimizer=optimizer, warmup_steps=0, weight_decay=0)
    optimizers = build_optimizers(tokenizer_groups(model), config)
    held = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    images = torch.rand(4, 3, 32, 32)
    for _ in range(2):  # the pixel head starts at 0, so the first step moves little else
        output = model(images)
        ((output.images - images).square().mean() + output.loss).backward()
        for o in optimizers:
            o.step()
            o.zero_grad()
    still = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert not still


def test_3_latent_tokens_differ_from_the_start(started):
    _, encoder, _ = started
    latents = encoder.latents.detach()
    assert torch.pdist(latents).min() > 0.5 * latents.shape[1] ** 0.5
    encoder.mix = None  # by their own vectors alone
    tokens = encoder(torch.rand(1, 3, 256, 256), 8)[0]
    assert torch.pdist(tokens).min() > 0.1


def test_4_layer_scale_pre_norm_patches_and_normalisation_are_kept(started):
    init, encoder, upstream = started
    ours, theirs = encoder.vit.state_dict(), upstream.state_dict()
    for name, tensor in theirs.items():
        if name != "pos_embed" and not name.startswith("head."):
            tensor = resample_patch_embed(tensor, [16, 16]) if name == "patch_embed.proj.weight" else tensor
            assert torch.equal(ours[name], tensor), name
    assert (
        {"norm_pre.weight", "norm_pre.bias"} <= ours.keys()
        if init == "clip"
        else "norm_pre.weight" not in ours
    )
    has_scale = {f"blocks.{i}.ls{n}.gamma" for i in (0, 1) for n in (1, 2)} & ours.keys()
    assert len(has_scale) == (4 if init in ("dinov2", "depth_anything_v2") else 0)
    card = timm.get_pretrained_cfg(UPSTREAM[init])
    assert encoder.mean.flatten().tolist() == pytest.approx(card.mean)
    assert encoder.std.flatten().tolist() == pytest.approx(card.std)
    assert encoder.mean.flatten().tolist() != [0.5, 0.5, 0.5]


@pytest.mark.parametrize("init", ["mae", "dino"])
def test_5_the_uninitialized_baseline_is_the_same_network(init):
    """The same parameters and modules, and the same function once it is given the same weights."""
    config = TokenizerConfig(encoder_init=init)
    plain = anatomy(TokenizerConfig(encoder_size="B"))
    assert {k for k, v in anatomy(config).items() if plain[k] != v} <= {"image mean, std"}
    small = dict(SMALL, image_size=32, patch_size=8)
    pretrained = Encoder(TokenizerConfig(**small, encoder_init=init))
    baseline = Encoder(TokenizerConfig(**small, random_like=init))
    baseline.load_state_dict(pretrained.state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(pretrained(images, 8), baseline(images, 8))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_9_schedules_count_steps_and_not_optimizers(optimizer, tmp_path):
    """A run of 8 steps: at each the learning rate is that of the step, however many optimizers take it."""
    params = dict(SMALL, image_size=16, patch_size=8, outputs=str(tmp_path), toy_images=8, toy_val_images=2)
    params |= dict(optimizer=optimizer, steps=8, batch_size=2, warmup_steps=0, log_every=1, lr=1e-3)
    configs = parse_train(params)
    _, data, tokenizer, config, _ = configs
    run = Run.open(*configs)
    images, _ = load_data(data, 16, run.cache)
    records = []
    train(run, images, tokenizer, config, on_log=records.append)
    assert [record["step"] for record in records] == list(range(1, 9))
    expected = [1e-3 * 0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert [record["lr"] for record in records] == pytest.approx(expected)
