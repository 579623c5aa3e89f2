"""One contract for every quantizer, and what each is for itself; test_quantizers_spread is for several
processes.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
import vector_quantize_pytorch as library
from quantizer_cases import CASES, DISCRETE, build, inputs, step
from torch import nn

from tok1d.config import ConfigError, DataConfig, EvalConfig, TokenizerConfig, TrainConfig
from tok1d.data import load_data
from tok1d.evaluate import evaluate, reconstruct
from tok1d.optimizers import build_optimizers
from tok1d.params import parse
from tok1d.quantizers import KL, LFQ, QUANTIZERS, VQ, VQEMA, SimVQ, SoftVQ
from tok1d.tables import table
from tok1d.tokenizer import Tokenizer

TINY = dict(image_size=16, patch_size=8, encoder_size="nano", decoder_size="nano", num_latent_tokens=4)


# ---------------------------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("case", CASES)
def test_shapes_ids_and_terms(case):
    quantizer = build(case)
    z = inputs(quantizer)
    codes, ids, loss, terms = quantizer(z)
    assert codes.shape == (4, 6, quantizer.dim) and codes.dtype == torch.float32
    assert loss.ndim == 0 and all(t.ndim == 0 and not t.requires_grad for t in terms.values())
    if case == "kl":
        assert ids is None and quantizer.codebook_size == 0
    else:
        assert ids.shape == (4, 6) and ids.dtype == torch.int64
        assert ids.min() >= 0 and ids.max() < quantizer.codebook_size and len(ids.unique()) > 3
    weights = {"commitment": 0.25, "entropy_sample": 0.1, "entropy_batch": -0.1, "kl": 1e-4}
    both_ways = {"commitment": 1.25} if case.startswith(("vq+", "simvq")) or case == "vq" else {}
    total = sum((weights | both_ways)[name] * term.item() for name, term in terms.items())
    assert loss.item() == pytest.approx(total, abs=1e-6), "the loss is its weighted terms"


@pytest.mark.parametrize("case", DISCRETE)
@pytest.mark.parametrize("training", [False, True])
def test_ids_decode_to_the_codes_bit_for_bit(case, training):
    quantizer = build(case).train(training and not case.startswith("vq_ema"))
    codes, ids, _, _ = quantizer(inputs(quantizer))
    assert torch.equal(quantizer.decode_ids(ids), codes)


@pytest.mark.parametrize("case", DISCRETE)
def test_a_code_is_its_own_code(case):
    """Where codes live where inputs do."""
    if case == "fsq":
        pytest.skip("fsq's inputs are squashed before they are rounded")
    quantizer = build(case).eval()
    every = torch.arange(quantizer.codebook_size)[None]
    codes = quantizer.decode_ids(every)
    assert torch.equal(quantizer(codes).ids, every) and len(codes[0].unique(dim=0)) == every.numel()


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_inputs_and_parameters(case):
    quantizer = build(case)
    z = inputs(quantizer).requires_grad_()
    output = quantizer(z)
    (output.codes * torch.randn_like(output.codes)).sum().backward(retain_graph=True)
    assert (z.grad.abs().sum(-1) > 0).all(), "codes let gradients through to every token"
    output.loss.backward() if output.loss.requires_grad else None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in quantizer.parameters())
    assert {name for name, _ in quantizer.named_parameters()} == {
        "vq": {"codebook"}, "softvq": {"codebook"}, "simvq": {"linear.weight"},
    }.get(case.split("+")[0], set())  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_float32_inside_of_autocast(case):
    quantizer = build(case).eval()
    z = inputs(quantizer).bfloat16()
    plain = quantizer(z.float())
    with torch.autocast("cpu", torch.bfloat16):
        output = quantizer(z)
        again = quantizer.decode_ids(output.ids) if case in DISCRETE else output.codes
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


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_tokenizer_with_it_learns_is_saved_and_measured(name, tmp_path):
    """It repeats one batch, and after `save_pretrained` does so bit for bit."""
    torch.manual_seed(0)
    config = TokenizerConfig(**TINY, quantizer=name, codebook_size=256, codebook_dim=8)
    images, _ = load_data(DataConfig(toy_images=4, toy_val_images=1), 16, tmp_path)
    batch = images.centre(range(4)).float() / 255
    tokenizer = Tokenizer(config).train()
    tokenizer.quantizer.entropy_weight = 0.01
    optimizers = build_optimizers(tokenizer, TrainConfig(optimizer="muon", muon_lr=0.01))
    for _ in range(80):
        output = tokenizer(batch)
        loss = (output.images - batch).square().mean()
        (loss + output.loss).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert loss < 0.25 * batch.var(0, unbiased=False).mean(), "hardly better than the mean image"

    tokenizer.eval().save_pretrained(tmp_path / "model")
    loaded = Tokenizer.from_pretrained(tmp_path / "model").eval()
    assert loaded.config == config
    with torch.no_grad():
        assert torch.equal(loaded(batch).images, tokenizer(batch).images)
        shown = reconstruct(loaded, images.centre(range(4)), (4,))[4]
        assert torch.equal(shown, (tokenizer(batch).images.clamp(0, 1) * 255).round().byte())
    (result,) = evaluate(loaded, images, EvalConfig())["results"]
    assert result["bits"] == 4 * config.bits_per_token and result["psnr"] > 10
    assert ("code_usage" in result) == ("code_perplexity" in result) == (name != "kl")


# ------------------------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("params", "said"),
    [
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
    bits = {name: TokenizerConfig(quantizer=name).bits_per_token for name in QUANTIZERS}
    assert bits.pop("fsq") == pytest.approx(torch.tensor(64000.0).log2().item())
    assert {bits.pop(name) for name in ("kl", "softvq")} == {16 * 32}
    assert set(bits.values()) == {12}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_muon_gets_maps_and_no_tables(name):
    tokenizer = Tokenizer(TokenizerConfig(**TINY, quantizer=name))
    muon, adamw = build_optimizers(tokenizer, TrainConfig(optimizer="muon"))
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
        with pytest.raises(ValueError, match=r"no ids: take codes = tokenizer\.quantize\(images\)\.codes"):
            call()
    assert tokenizer.decode(tokenizer.quantize(images).codes).shape == images.shape


def test_a_table_of_runs_with_codes_and_without():
    text = table([{"run": "kl", "bits": 512.0}, {"run": "vq", "bits": 12.0, "code_usage": 0.5}]).data
    assert text.splitlines()[2:] == ["| kl | 512 |  |", "| vq | 12 | 50.0% |"]


# ------------------------------------------------------------------------------------------------ one by one


def test_vq_loss_pulls_codes_to_inputs_and_inputs_to_codes():
    """‖sg[z] - e‖² moves the codebook, 0.25 ‖z - sg[e]‖² moves the encoder."""
    torch.manual_seed(0)
    quantizer, z = VQ(8, 4, commitment_weight=0.25), torch.randn(1, 16, 4, requires_grad=True)
    _, ids, loss, _ = quantizer(z)
    loss.backward()
    unit, codebook = F.normalize(z.detach(), dim=-1), F.normalize(quantizer.codebook.detach(), dim=-1)
    mse = F.mse_loss(unit, codebook[ids]).item()
    assert loss.item() == pytest.approx(1.25 * mse, rel=1e-5)
    e = quantizer.codebook.detach().clone().requires_grad_()
    F.mse_loss(F.embedding(ids, F.normalize(e, dim=-1)), unit).backward()
    assert torch.allclose(quantizer.codebook.grad, e.grad, atol=1e-6), "weight 1 on the codebook's term"
    z2 = z.detach().clone().requires_grad_()
    (0.25 * F.mse_loss(F.normalize(z2, dim=-1), codebook[ids])).backward()
    assert torch.allclose(z.grad, z2.grad, atol=1e-6), "weight 0.25 on the commitment"


@pytest.mark.parametrize("kind", [VQ, SoftVQ])
def test_entropy_loss_rewards_sure_tokens_and_a_used_codebook(kind):
    quantizer = kind(4, 4)
    quantizer.codebook.data = torch.eye(4)
    spread, same = torch.eye(4)[None], torch.eye(4)[:1].expand(4, 4)[None]
    unsure = torch.ones(1, 4, 4)

    def entropy(z):
        quantizer.entropy_weight = 1.0
        with_it = quantizer(z).loss
        quantizer.entropy_weight = 0.0
        return (with_it - quantizer(z).loss).item()

    assert entropy(spread) == pytest.approx(-torch.log(torch.tensor(4.0)).item(), abs=1e-3)
    assert entropy(same) == pytest.approx(0, abs=1e-3)
    assert entropy(unsure) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", [VQ, VQEMA, SimVQ])
def test_rotation_trick_turns_and_scales_gradients_as_inputs_to_codes(kind):
    """The Jacobian of a code by its input is a scaled rotation that takes the input there; see also
    vector-quantize-pytorch's own, which this uses."""
    torch.manual_seed(0)
    quantizer, z = kind(16, 5, rotation_trick=True).eval(), F.normalize(torch.randn(1, 1, 5), dim=-1)
    jacobian = torch.autograd.functional.jacobian(lambda x: quantizer(x).codes.flatten(), z).view(5, 5)
    code = quantizer(z).codes.flatten()
    if kind is SimVQ:
        turned = jacobian
    else:  # the gradient goes on through the input's normalisation, which forgets its part along z
        along = torch.outer(code, z.flatten())
        turned = jacobian + along
        assert (jacobian @ z.flatten()).abs().max() < 1e-6
    assert torch.allclose(turned @ z.flatten(), code, atol=1e-6)
    assert torch.allclose(turned @ turned.T, code.norm() ** 2 * torch.eye(5), atol=1e-6)
    assert torch.linalg.det(turned) > 0


def test_vq_ema_is_the_librarys_while_no_code_is_dead():
    torch.manual_seed(0)
    ours = VQEMA(8, 4, commitment_weight=0.25)
    theirs = library.VectorQuantize(
        4, 8, use_cosine_sim=True, decay=0.99, commitment_weight=0.25, rotation_trick=False
    )
    ours.shares.copy_(theirs._codebook.cluster_size[0] / 40)
    ours.sums.copy_(theirs._codebook.embed_avg[0] / 40)
    for _ in range(20):
        z = torch.randn(4, 10, 4)
        codes, ids, loss, _ = ours(z)
        their_codes, their_ids, their_loss = theirs(z)
        assert torch.equal(ids, their_ids) and torch.allclose(codes, their_codes, atol=1e-5)
        assert loss.item() == pytest.approx(their_loss.item(), rel=1e-4)
    assert torch.allclose(ours.table(), theirs.codebook, atol=1e-5)
    assert torch.allclose(ours.shares, theirs._codebook.cluster_size[0] / 40, atol=1e-6)


def test_vq_ema_starts_from_inputs_and_revives_dead_codes():
    torch.manual_seed(0)
    quantizer = VQEMA(32, 8)
    centres = torch.randn(32, 8)
    narrow = centres[:1] + 0.1 * torch.randn(1, 64, 8)  # far from most of the codes that were drawn
    quantizer(narrow)
    nearest = (quantizer.table() @ F.normalize(narrow[0], dim=-1).T).max(1).values
    assert nearest.min() > 0.99, "after one batch codes are inputs, or means of some"
    wide = (centres[torch.randint(0, 32, (16, 20))] + 0.05 * torch.randn(16, 20, 8)).contiguous()
    before = quantizer.eval()(wide)
    for _ in range(300):
        quantizer.train()(wide)
    after = quantizer.eval()(wide)
    assert len(before.ids.unique()) < 16 and len(after.ids.unique()) == 32
    assert after.loss < 0.3 * before.loss


def test_vq_ema_with_more_dead_codes_than_inputs_takes_each_input_once():
    torch.manual_seed(0)
    quantizer, z = VQEMA(32, 8), F.normalize(torch.randn(2, 5, 8), dim=-1)
    quantizer(z)
    same = torch.isclose(quantizer.table() @ z.flatten(0, 1).T, torch.ones(()), atol=1e-5)
    assert (same.sum(0) == 1).all(), "each once"


def test_vq_ema_does_not_learn_from_nan():
    quantizer = build("vq_ema")
    quantizer(inputs(quantizer))
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    z = inputs(quantizer, 1)
    z[0, 0, 0] = torch.nan
    assert quantizer(z).loss.isnan()
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.state_dict().items())


@pytest.mark.parametrize("case", ["vq_ema", "kl"])
def test_only_training_changes_or_draws(case):
    quantizer = build(case).eval()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    z = inputs(quantizer)
    assert torch.equal(quantizer(z).codes, quantizer(z).codes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.state_dict().items())


@pytest.mark.parametrize("size", [2, 32, 64])
def test_lfq_is_the_librarys(size):
    """Whose entropies need a probability for every token and code."""
    torch.manual_seed(0)
    ours = LFQ(size, commitment_weight=0.25)
    ours.entropy_weight = 0.1
    theirs = library.LFQ(
        codebook_size=size, spherical=True, entropy_loss_weight=0.1, commitment_loss_weight=0.25
    )
    z = torch.randn(3, 20, ours.dim)
    z[..., 1:] *= 0.1  # unsure ones
    z = z.requires_grad_()
    codes, ids, loss, terms = ours(z)
    (their_codes, _, their_loss), parts = theirs(z, inv_temperature=10, return_loss_breakdown=True)
    assert torch.allclose(codes, their_codes, atol=1e-6) and len(ids.unique()) > size / 4
    assert terms["entropy_sample"].item() == pytest.approx(parts.per_sample_entropy.item(), rel=1e-3)
    assert terms["entropy_batch"].item() == pytest.approx(parts.batch_entropy.item(), rel=1e-3)
    (grad,), (theirs_grad,) = torch.autograd.grad(loss, z), torch.autograd.grad(their_loss, z)
    assert loss.item() == pytest.approx(their_loss.item(), rel=1e-3)
    assert torch.allclose(grad, theirs_grad, atol=1e-3 * theirs_grad.abs().max().item())


@pytest.mark.parametrize("rotation_trick", [False, True])
def test_simvq_is_the_librarys(rotation_trick):
    torch.manual_seed(0)
    ours, theirs = SimVQ(16, 4, 0.25, rotation_trick), library.SimVQ(4, 16, rotation_trick=rotation_trick)
    theirs.frozen_codebook.copy_(ours.fixed)
    theirs.code_transform.load_state_dict(ours.linear.state_dict())
    z = torch.randn(2, 9, 4, requires_grad=True)
    codes, ids, loss, _ = ours(z)
    their_codes, their_ids, their_loss = theirs(z)
    assert torch.equal(ids, their_ids) and torch.allclose(codes, their_codes, atol=1e-6)
    weight = torch.randn_like(codes)
    ours_grads = torch.autograd.grad((codes * weight).sum() + loss, [z, ours.linear.weight])
    their_grads = torch.autograd.grad(
        (their_codes * weight).sum() + their_loss, [z, theirs.code_transform.weight]
    )
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours_grads, their_grads, strict=True))


def test_softvq_mixes_codes_and_ids_name_the_strongest():
    torch.manual_seed(0)
    quantizer, z = SoftVQ(8, 4, temperature=0.07), torch.randn(2, 5, 4)
    codes, ids, _, _ = quantizer(z)
    codebook = F.normalize(quantizer.codebook, dim=-1)
    weights = (nn.CosineSimilarity(-1)(z[:, :, None], codebook) / 0.07).softmax(-1)
    assert torch.allclose(codes, weights @ codebook, atol=1e-6) and torch.equal(ids, weights.argmax(-1))
    assert torch.equal(quantizer.decode_ids(ids), codebook[ids])
    quantizer.temperature = 1e-4
    assert torch.allclose(quantizer(z).codes, quantizer.decode_ids(ids), atol=1e-3), "cold, it is vq"


def test_kl_is_torchs_and_draws_its_gaussian():
    torch.manual_seed(0)
    quantizer, z = KL(3, weight=0.5), torch.randn(2, 5, 6)
    codes, _, loss, terms = quantizer(z.repeat(2000, 1, 1))
    mean, log_variance = z.chunk(2, -1)
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    nats = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).sum(-1).mean().item()
    assert terms["kl"].item() == pytest.approx(nats, rel=1e-4) and loss.item() == pytest.approx(
        nats / 2, rel=1e-4
    )
    drawn = codes.unflatten(0, (2000, 2))
    assert torch.allclose(drawn.mean(0), mean, atol=0.2)
    assert torch.allclose(drawn.std(0), normal.stddev, rtol=0.1)
    assert torch.equal(quantizer.eval()(z).codes, mean)
