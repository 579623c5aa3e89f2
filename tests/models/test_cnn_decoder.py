"""The convolutional head: VQGAN's shape, any grid, and it learns."""

import pytest
import torch
from torch import nn
from torchvision.transforms.functional import to_tensor
from transformers.models.janus.configuration_janus import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAEDecoder

from tok1d.config.fields import ConfigError
from tok1d.config.parse import parse
from tok1d.config.schema import TokenizerConfig, TrainConfig
from tok1d.data.toy_roads.draw import draw_scene
from tok1d.models.decoder import Attention, CNNDecoder, ResBlock, Upsample
from tok1d.models.tokenizer import Tokenizer
from tok1d.training.optim import build_optimizers, is_map
from tok1d.training.task import TABLES, tokenizer_groups

NANO = dict(
    encoder_size="nano", decoder_size="nano", num_latent_tokens=8, image_size=32, patch_size=8, elastic=False
)
CNN = NANO | dict(decoder_head="cnn", cnn_channels=32, cnn_multipliers=(1, 1, 1, 2), cnn_blocks=1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def executed(module: nn.Module, x: torch.Tensor) -> tuple[list[nn.Module], torch.Tensor]:
    """The convolutions and norms of `module` in the order in which they run, and what it returns."""
    ran: list[nn.Module] = []
    leaves = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.GroupNorm)]
    hooks = [m.register_forward_hook(lambda m, *_: ran.append(m)) for m in leaves]
    out = module(x)
    for hook in hooks:
        hook.remove()
    return ran, out


@torch.no_grad()
def test_it_computes_what_transformers_vqgan_computes():
    """It has this decoder as Janus's, with attention on the lowest level alone, as ours has at 256 px."""
    theirs = JanusVQVAEDecoder(JanusVQVAEConfig(base_channels=32, latent_channels=128)).eval()
    config = TokenizerConfig(**NANO | dict(image_size=64, patch_size=16), decoder_head="cnn", cnn_channels=32)
    ours = CNNDecoder(config.model_copy(update=dict(cnn_attention=(4,))), 128)
    x = torch.randn(2, 128, 4, 4)
    layers, want = executed(theirs, x)
    for layer in executed(ours, x)[0]:
        parts = [layers.pop(0)]
        while parts[0].weight.shape[0] * len(parts) < layer.weight.shape[0]:  # query, key, value
            parts.append(layers.pop(0))
        layer.weight.copy_(torch.cat([part.weight for part in parts]))
        layer.bias.copy_(torch.cat([part.bias for part in parts]))
    assert not layers
    assert want.std() > 0.1 and (ours(x) - want).abs().max() < 1e-4


def test_it_is_the_references_at_its_size():
    """VQGAN's at 256 px: channels 128 x 1, 1, 2, 2, 4 from pixels down, three blocks a level."""
    with torch.device("meta"):
        decoder = CNNDecoder(TokenizerConfig(image_size=256, decoder_head="cnn"), 768)
        theirs = JanusVQVAEDecoder(JanusVQVAEConfig(latent_channels=768))
    assert sum(p.numel() for p in decoder.parameters()) == sum(p.numel() for p in theirs.parameters())
    kinds = [type(layer) for layer in decoder.layers]
    assert kinds.count(ResBlock) == 2 + 5 * 3 and kinds.count(Upsample) == 4
    assert kinds.count(Attention) == 1 + 3 and Attention not in kinds[kinds.index(Upsample) :]


@pytest.mark.parametrize(("side", "patch", "multipliers"), [(16, 4, (1, 2, 2)), (64, 16, (1, 1, 1, 1, 2))])
def test_any_grid(side, patch, multipliers):
    config = TokenizerConfig(**CNN | dict(image_size=side, patch_size=patch, cnn_multipliers=multipliers))
    output = Tokenizer(config)(torch.rand(2, 3, side, side))
    assert output.images.shape == (2, 3, side, side)
    assert output.images.std() < 0.1, "the first reconstruction is nearly gray"


@pytest.mark.parametrize("head", ["patch", "cnn"])
def test_what_the_losses_need_of_either_head(head):
    """The last layer's weight gets a gradient at once; the middle block's patch features are there."""
    tokenizer = Tokenizer(TokenizerConfig(**CNN | dict(decoder_head=head)))
    images = torch.rand(2, 3, 32, 32)
    output = tokenizer(images)
    assert output.features.shape == (2, 16, 128) and output.codes.shape == (2, 8, tokenizer.quantizer.dim)
    (gradient,) = torch.autograd.grad(
        (output.images - images).square().mean(), tokenizer.decoder.last_layer, retain_graph=True
    )
    assert gradient.abs().max() > 0
    (gradient,) = torch.autograd.grad(output.features.square().mean(), tokenizer.decoder.from_codes.weight)
    assert gradient.abs().max() > 0
    later = tokenizer.decoder.blocks[-1].mlp.fc2.weight.data.normal_()  # after the middle: no effect
    assert later.numel() and torch.equal(tokenizer(images).features, output.features)


@torch.no_grad()
def test_channels_last_computes_the_same():
    decoder = CNNDecoder(TokenizerConfig(**CNN), 128).eval()
    nn.init.normal_(decoder.conv_out.weight, std=0.1)
    x = torch.randn(2, 128, 4, 4)
    plain = decoder(x)
    last = decoder.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert last.stride() == plain.contiguous(memory_format=torch.channels_last).stride()
    assert torch.allclose(plain, last, atol=1e-4)


@pytest.mark.parametrize(("optimizer", "steps"), [("adamw", 100), ("muon", 45)])
def test_learns_to_repeat_one_batch(optimizer, steps):
    batch = torch.stack([to_tensor(draw_scene(i, 16)) for i in range(4)])
    config = TokenizerConfig(**CNN | dict(image_size=16, patch_size=4, cnn_multipliers=(1, 1, 2)))
    tokenizer = Tokenizer(config).train()
    assert all(is_map(n, p, TABLES) for n, p in tokenizer.decoder.to_pixels.named_parameters() if p.ndim == 4)
    optimizers = build_optimizers(
        tokenizer_groups(tokenizer), TrainConfig(optimizer=optimizer, muon_lr=0.01, lr=1e-3)
    )
    for _ in range(steps):
        output = tokenizer(batch)
        loss = (output.images - batch).square().mean()
        (loss + output.loss).backward()
        for each in optimizers:
            each.step()
            each.zero_grad()
    print(f"\n{optimizer}: {loss / batch.var(0, unbiased=False).mean():.3f} of the mean image's error")
    assert loss < 0.5 * batch.var(0, unbiased=False).mean(), "hardly better than the mean image"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (dict(patch_size=8), "type cnn_multipliers=1,2,2,4"),
        (dict(patch_size=32), "type cnn_multipliers=1,1,1,2,2,4"),
        (dict(patch_size=14, image_size=224), "type patch_size=16"),
        (
            dict(cnn_multipliers="1,2"),
            "enlarges 2 times, not patch_size=16: type cnn_multipliers=1,1,2,2,4",
        ),
        (dict(cnn_multipliers="0,1,1,1,1"), "cnn_multipliers must be at least 1"),
        (dict(cnn_channels=100), "multiple of 32"),
    ],
)
def test_what_cannot_fit_says_what_to_type(params, said):
    with pytest.raises(ConfigError) as caught:
        parse(dict(decoder_head="cnn") | params, TokenizerConfig)
    assert said in str(caught.value) and "\n" not in str(caught.value)
