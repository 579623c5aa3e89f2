"""One contract for every quantizer; test_quantizers_spread is for several processes."""

import copy

import pytest
import torch
from quantizer_cases import CASES, DISCRETE, ENTROPY_WEIGHT, build, inputs, row_of, step

from tok1d.config.fields import ConfigError
from tok1d.config.parse import parse
from tok1d.config.registry import QUANTIZERS, number_of_codes
from tok1d.config.schema import DataConfig, EvalConfig, TokenizerConfig, TrainConfig
from tok1d.data.dataset import load_data
from tok1d.evaluation.evaluate import evaluate, reconstruct
from tok1d.jupyter.tables import show_table
from tok1d.models.quantizers import QUANTIZER_CLASSES
from tok1d.models.tokenizer import Tokenizer
from tok1d.training.optim import build_optimizers
from tok1d.training.task import tokenizer_groups

TINY = dict(
    image_size=16, patch_size=8, encoder_size="nano", decoder_size="nano", num_latent_tokens=4, elastic=False
)


# ---------------------------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("case", CASES)
def test_shapes_ids_and_terms(case):
    quantizer = build(case)
    z = inputs(quantizer)
    codes, ids, loss, terms = quantizer(z, ENTROPY_WEIGHT)
    assert codes.shape == (4, 6, quantizer.dim) and codes.dtype == torch.float32
    assert loss.ndim == 0 and all(t.ndim == 0 and not t.requires_grad for t in terms.values())
    if not row_of(case).codes:
        assert ids is None and quantizer.codebook_size == 0
    else:
        assert ids.shape == (4, 6) and ids.dtype == torch.int64
        assert ids.min() >= 0 and ids.max() < quantizer.codebook_size and len(ids.unique()) > 3
    weights = {
        "commitment": 0.25,
        "entropy_sample": ENTROPY_WEIGHT,
        "entropy_batch": -ENTROPY_WEIGHT,
        "kl": 1e-4,
    }
    both_ways = {"commitment": 1.25} if "codebook" in row_of(case).losses else {}
    total = sum((weights | both_ways)[name] * term.item() for name, term in terms.items())
    assert loss.item() == pytest.approx(total, abs=1e-6), "the loss is its weighted terms"


@pytest.mark.parametrize("case", DISCRETE)
@pytest.mark.parametrize("training", [False, True])
def test_ids_decode_to_the_codes_bit_for_bit(case, training):
    quantizer = build(case).train(training and not case.startswith("vq_ema"))
    codes, ids, _, _ = quantizer(inputs(quantizer))
    assert torch.equal(quantizer.ids_to_codes(ids), codes)


@pytest.mark.parametrize("case", [case for case in DISCRETE if case != "fsq"])
def test_a_code_is_its_own_code(case):
    """But for fsq, which squashes its inputs before it rounds them."""
    quantizer = build(case).eval()
    every = torch.arange(quantizer.codebook_size)[None]
    codes = quantizer.ids_to_codes(every)
    assert torch.equal(quantizer(codes).ids, every) and len(codes[0].unique(dim=0)) == every.numel()


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_inputs_and_parameters(case):
    quantizer = build(case)
    z = inputs(quantizer).requires_grad_()
    output = quantizer(z, ENTROPY_WEIGHT)
    (output.codes * torch.randn_like(output.codes)).sum().backward(retain_graph=True)
    assert (z.grad.abs().sum(-1) > 0).all(), "codes let gradients through to every token"
    output.loss.backward() if output.loss.requires_grad else None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in quantizer.parameters())


@pytest.mark.parametrize("name", QUANTIZERS)
def test_its_row_of_the_registry_is_what_its_class_does(name):
    """Whoever may not build one reads the row: the parameters' checks, the doctor, fine-tuning."""
    row, quantizer = QUANTIZERS[name], build(name)
    params = dict(codebook_size=64, codebook_dim=4, fsq_levels=(8, 5, 5))
    assert quantizer.codebook_size == number_of_codes(name, params)
    if row.dim:
        assert quantizer.dim == params[row.dim]
    z = inputs(quantizer).requires_grad_()
    codes, _, _, terms = quantizer(z, ENTROPY_WEIGHT)
    logged = {"commitment": ["commitment"], "entropy": ["entropy_sample", "entropy_batch"], "kl": ["kl"]}
    assert set(terms) == {term for part in row.losses for term in logged.get(part, [])}
    if row.sphere and not row.continuous:
        assert torch.allclose(codes.norm(dim=-1), torch.ones(()), atol=1e-5)
    codes.sum().backward()
    learns_by_loss = any(p.grad is None for p in quantizer.parameters())
    assert learns_by_loss == ("codebook" in row.losses)
    large = torch.full_like(z, 1e4).requires_grad_()
    quantizer.eval()(large).codes.square().sum().backward()
    assert (large.grad.abs().max() == 0) == row.saturates or name == "kl"


def test_every_row_has_a_class_and_every_class_a_row():
    assert QUANTIZER_CLASSES.keys() == QUANTIZERS.keys()


@pytest.mark.parametrize("case", CASES)
def test_float32_inside_of_autocast(case):
    quantizer = build(case).eval()
    z = inputs(quantizer).bfloat16()
    plain = quantizer(z.float())
    with torch.autocast("cpu", torch.bfloat16):
        output = quantizer(z)
        again = quantizer.ids_to_codes(output.ids) if case in DISCRETE else output.codes
    assert output.codes.dtype == output.loss.dtype == torch.float32
    assert torch.equal(output.codes, plain.codes) and torch.equal(output.loss, plain.loss)
    assert torch.equal(again, plain.codes)


@pytest.mark.parametrize("case", CASES)
def test_resumed_from_its_state_it_goes_on_bit_for_bit(case):
    whole, resumed = build(case), build(case, seed=1)
    for number in range(2):
        step(whole, number)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for number in range(2, 4):
        ours, theirs = step(resumed, number), step(whole, number)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize("case", CASES)
def test_compiles_in_one_piece(case):
    quantizer, compiled = build(case), torch.compile(build(case), backend="eager", fullgraph=True)
    torch._dynamo.reset()
    ours, theirs = step(compiled, 0), step(quantizer, 0)
    assert torch.equal(ours["loss"], theirs["loss"]) and torch.equal(ours["z.grad"], theirs["z.grad"])


@pytest.mark.parametrize("name", QUANTIZER_CLASSES)
def test_a_tokenizer_with_it_learns_is_saved_and_measured(name, tmp_path):
    """It repeats one batch, and after `save_pretrained` does so bit for bit."""
    torch.manual_seed(0)
    config = TokenizerConfig(**TINY, quantizer=name, codebook_size=256, codebook_dim=8)
    images, _ = load_data(DataConfig(toy_images=4, toy_val_images=1), 16, tmp_path)
    batch = images.center_crops(range(4)).float() / 255
    tokenizer = Tokenizer(config).train()
    optimizers = build_optimizers(tokenizer_groups(tokenizer), TrainConfig(optimizer="muon", muon_lr=0.01))
    for _ in range(150):
        output = tokenizer(batch, entropy_weight=0.01)
        loss = (output.images - batch).square().mean()
        if loss < 0.2 * batch.var(0, unbiased=False).mean():
            break
        (loss + output.loss).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    else:
        pytest.fail(f"hardly better than the mean image: {loss}")

    tokenizer.eval().save_pretrained(tmp_path / "model")
    loaded = Tokenizer.from_pretrained(tmp_path / "model").eval()
    assert loaded.config == config
    with torch.no_grad():
        assert torch.equal(loaded(batch).images, tokenizer(batch).images)
        shown = reconstruct(loaded, images.center_crops(range(4)), (4,))[4]
        assert torch.equal(shown, (tokenizer(batch).images.clamp(0, 1) * 255).round().byte())
    (result,) = evaluate(loaded, images, EvalConfig())["results"]
    assert result["bits"] == 4 * config.bits_per_token and result["psnr"] > 10
    assert ("code_usage" in result) == ("code_perplexity" in result) == bool(row_of(name).codes)


# ------------------------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (dict(quantizer="lfq", codebook_size=2), "from 4 on, as quantizer=lfq needs: type codebook_size=4"),
        (dict(quantizer="vq", codebook_dim=1), "for quantizer=vq, .* sphere: type codebook_dim=2 or more"),
        (dict(quantizer="lfq", codebook_size=1000), "lfq needs: type codebook_size=1024"),
        (dict(quantizer="lfq", codebook_size=2**20 - 1), "type codebook_size=1048576"),
        (
            dict(quantizer="kl", rotation_trick=True),
            "for quantizer=vq, vq_ema or simvq, not kl: type rotation_trick=false",
        ),
        (dict(rotation_trick=True), "not fsq: type rotation_trick=false"),
    ],
)
def test_what_does_not_fit_is_one_sentence(params, said):
    with pytest.raises(ConfigError, match=said):
        parse(params, TokenizerConfig)


def test_bits_per_token():
    bits = {name: TokenizerConfig(quantizer=name).bits_per_token for name in QUANTIZER_CLASSES}
    assert bits.pop("fsq") == pytest.approx(torch.tensor(64000.0).log2().item())
    assert {bits.pop(name) for name, row in QUANTIZERS.items() if row.continuous} == {16 * 32}
    assert set(bits.values()) == {12}


@pytest.mark.parametrize("name", QUANTIZER_CLASSES)
def test_muon_gets_maps_and_no_tables(name):
    tokenizer = Tokenizer(TokenizerConfig(**TINY, quantizer=name))
    muon, adamw = build_optimizers(tokenizer_groups(tokenizer), TrainConfig(optimizer="muon"))
    by_id = {id(p): n for n, p in tokenizer.named_parameters()}
    of = [{by_id[id(p)] for group in o.param_groups for p in group["params"]} for o in (muon, adamw)]
    assert "to_codes.weight" in of[0]
    assert {n for n in of[0] if "quantizer" in n} == (
        {"quantizer.linear.weight"} if name == "simvq" else set()
    )
    assert {n for n in of[1] if "quantizer" in n} == (
        {"quantizer.codebook"} if name in ("vq", "softvq") else set()
    )


def test_kl_says_what_to_do_instead_of_ids():
    tokenizer, images = Tokenizer(TokenizerConfig(**TINY, quantizer="kl")).eval(), torch.rand(1, 3, 16, 16)
    for call in (lambda: tokenizer.encode(images), lambda: tokenizer.decode_ids(torch.zeros(1, 4).long())):
        with pytest.raises(ValueError, match=r"no ids: take codes = tokenizer\.encode_codes\(images\)"):
            call()
    assert tokenizer.decode(tokenizer.encode_codes(images).codes).shape == images.shape


def test_a_table_of_runs_with_codes_and_without():
    text = show_table([{"run": "kl", "bits": 512.0}, {"run": "vq", "bits": 12.0, "code_usage": 0.5}]).data
    assert text.splitlines()[2:] == ["| kl | 512 |  |", "| vq | 12 | 50.0% |"]
