"""A one-stage TiTok under `init_from`: our tokenizer gives its ids and its pixels at the first step."""

import pytest
import torch
from peers import write_peer

from tok1d.config.fields import ConfigError
from tok1d.config.parse import parse_train, read_params
from tok1d.config.peers import PEERS
from tok1d.config.schema import StartConfig, TokenizerConfig
from tok1d.models.finetune import load_from_tokenizer
from tok1d.models.peers import load_peer, published_config
from tok1d.models.peers.parent import our_config
from tok1d.models.peers.titok import TiTok
from tok1d.models.tokenizer import Tokenizer


def save_random(folder, theirs):
    """A checkpoint with random weights, for small images."""
    torch.manual_seed(0)
    with torch.device("meta"):
        peer = TiTok(theirs)
    state = {
        name: torch.randn(p.shape) * (0.5 if p.ndim < 2 or "embed" in name else p[0].numel() ** -0.5)
        for name, p in peer.named_parameters()
    }
    mode = "vq" if theirs.codebook_size else "vae"
    told = {"is_legacy": theirs.legacy, "quantize_mode": mode, "use_l2_norm": theirs.unit_codes}
    return write_peer(folder, {"model": {"vq_model": told}}, state)


@pytest.mark.parametrize("name", ["titok-bl64-vq", "titok-ll32-vae"])
@torch.no_grad()
def test_the_same_ids_and_pixels(name, tmp_path):
    theirs = published_config(PEERS[name])._replace(
        encoder_size="base", decoder_size="base", image_size=48, num_latent_tokens=5
    )
    folder = save_random(tmp_path, theirs)
    model = Tokenizer(our_config(theirs)).eval()
    report = load_from_tokenizer(model, StartConfig(init_from=f"peer:{folder}"))
    assert {row["status"] for row in report["tensors"]} == {"loaded"} and not report["changes"]
    peer, images = load_peer(f"peer:{folder}"), torch.rand(3, 3, 48, 48)
    quantized = model.encode_codes(images)
    if theirs.codebook_size:
        assert (quantized.ids == peer.encode(images)).float().mean() > 0.9
        codes = peer.quantize.embedding(peer.encode(images))
        pixels = peer.decode(peer.encode(images))
    else:
        codes = peer.encode(images)
        assert (quantized.codes - codes).abs().max() < 1e-3 * codes.abs().max()
        pixels = peer.decode(codes)
    ours = model.decode_unclamped(codes).images
    assert (ours - pixels).abs().max() < 1e-3 * pixels.abs().max()


def test_what_no_network_of_ours_agrees_with(tmp_path):
    small = published_config(PEERS["titok-s128"])._replace(image_size=32, num_latent_tokens=4)
    start = StartConfig(init_from=f"peer:{save_random(tmp_path, small)}")
    with pytest.raises(ConfigError, match="has two stages, so no network of ours"):
        load_from_tokenizer(Tokenizer(TokenizerConfig(encoder="vit", encoder_size="nano")), start)


def test_the_parameter_file_is_of_that_network():
    params = parse_train(read_params("params/finetune_titok.yaml"))
    assert params.tokenizer == our_config(published_config(PEERS["titok-bl64-vq"]))
