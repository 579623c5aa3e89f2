"""The load report: nothing unexplained, one network for all, and what may not move stays."""

import json

import nbformat
import pytest
import torch
import yaml
from checkpoints import NANO, UPSTREAM, save_upstream
from safetensors.torch import load_file, save_file
from workbench import REPO, train_tiny
from workbench import TINY as TINY_RUN

from tok1d.cli import main
from tok1d.config.fields import ConfigError
from tok1d.config.parse import parse, parse_train, read_params
from tok1d.config.schema import StartConfig, TokenizerConfig, TrainConfig
from tok1d.models.encoder import Encoder
from tok1d.models.pretrained import anatomy, compare_features, fairness, load_pretrained_encoder
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run
from tok1d.training.initialize import learning_report
from tok1d.training.optim import build_optimizers, set_learning_rate
from tok1d.training.task import tokenizer_groups

TINY = dict(
    image_size=32, patch_size=8, encoder_size="nano", decoder_size="nano", num_latent_tokens=4, elastic=False
)
EXTRA = {  # what each network has that a plain ViT-B/16 has not, or the other way round
    "mae": set(),
    "dino": set(),
    "dinov2": {"blocks.*.ls1.gamma", "blocks.*.ls2.gamma", "parameters"},
    "depth_anything_v2": {"blocks.*.ls1.gamma", "blocks.*.ls2.gamma", "parameters"},
    "clip": {"norm_pre.weight", "norm_pre.bias", "patch_embed.proj.bias", "norm eps", "parameters"},
}


# ------------------------------------------------------------------------------------------- the same network


@pytest.mark.parametrize("init", UPSTREAM)
def test_all_networks_are_one_apart_from_what_the_report_lists(init):
    """At Base, for 256 px; LayerScale is 24 vectors of 768, CLIP's pre-norm two, without a patch bias."""
    config = TokenizerConfig(encoder_init=init)
    plain = TokenizerConfig(encoder_size="B")
    ours, theirs = anatomy(config), anatomy(plain)
    differing = {part for part in {*ours, *theirs} if ours.get(part) != theirs.get(part)}
    assert differing - {"image mean, std"} == EXTRA[init]
    listed = {line.split(":")[0] for line in fairness(config)["differences_from_plain_random"]}
    assert listed == differing
    count, least = (int(parts["parameters"].replace(",", "")) for parts in (ours, theirs))
    assert count - least == {"clip": 2 * 768 - 768, "mae": 0, "dino": 0}.get(init, 24 * 768)


@pytest.mark.parametrize("init", [*UPSTREAM, "dinov2_reg", "dinov3", "siglip2", "timm:vit_tiny_patch16_224"])
def test_the_pair_the_report_calls_fair_is_the_same_network(init):
    config = TokenizerConfig(encoder_init=init)
    pair = fairness(config)["fair_pair"]
    assert pair == f"encoder_init=random random_like={init}"
    params = dict(part.split("=") for part in pair.split())
    assert anatomy(TokenizerConfig(encoder_size="B", **params)) == anatomy(config)


def test_random_like_has_the_modules_and_no_weights_of_its_model():
    torch.manual_seed(0)
    encoder = Encoder(TokenizerConfig(**TINY, random_like="dinov2"))
    assert all((block.ls1.gamma == 1).all() for block in encoder.vit.blocks)
    assert encoder.vit.pos_embed[:, 1:].square().mean().sqrt().item() == pytest.approx(1, abs=0.01)
    with pytest.raises(ConfigError, match="random_like=dinov2 needs encoder_init=random, not mae"):
        parse(dict(encoder_init="mae", random_like="dinov2"), TokenizerConfig)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(encoder_init="dinov22"), "or timm:NAME; did you mean dinov2?, got 'dinov22'"),
        (dict(encoder_init="timm:"), "must be one of random, mae"),
        (dict(random_like="maee"), "did you mean mae?"),
        (dict(encoder_freeze="half"), "must be none, all, or the number of first blocks to freeze"),
        (dict(encoder_freeze=-1), "must be none, all"),
        (dict(encoder_lr_decay=1.5), "must be at most 1, got 1.5"),
    ],
)
def test_bad_values_are_one_sentence(given, said):
    with pytest.raises(ConfigError) as caught:
        parse_train(given)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["timm:resnet50", "timm:vit_base_patch16_225", "timm:vit_base_patch16_rope_mixed_224"]
)
def test_a_timm_model_that_is_no_plain_vit_is_one_sentence(name):
    with pytest.raises(ConfigError, match=r"timm:\w+ is no .*timm:\w+"):
        Encoder(TokenizerConfig(encoder_init=name))


# -------------------------------------------------------------------------------- whatever is wrong, it stops


@pytest.fixture
def dinov2(tmp_path):
    """A DINOv2 checkpoint of size nano: its path, and a config that takes it."""
    path, _ = save_upstream("dinov2", tmp_path, **NANO)
    return path, TokenizerConfig(**TINY, encoder_init="dinov2")


@pytest.mark.parametrize("edit", ["without LayerScale", "one tensor more", "other grid"])
def test_a_tensor_that_cannot_be_explained_stops_the_run(dinov2, edit):
    path, config = dinov2
    state = load_file(path)
    if edit == "without LayerScale":
        state = {k: v for k, v in state.items() if "ls1" not in k}
    if edit == "one tensor more":
        state["blocks.0.extra.weight"] = torch.zeros(3)
    if edit == "other grid":
        state["pos_embed"] = state["pos_embed"][:, :-1].contiguous()
    save_file(state, path)
    with pytest.raises(ConfigError, match=r"is (missing|unexpected|wrong shape), "):
        load_pretrained_encoder(Encoder(config), config, StartConfig(encoder_checkpoint=str(path)))


@pytest.mark.parametrize("damage", ["mean", "pos_embed", "gamma", "bias"])
def test_an_encoder_that_computes_something_else_stops_the_run(dinov2, damage, monkeypatch):
    """Damaged after loading: the features are no longer timm's."""
    path, config = dinov2
    encoder = Encoder(config)
    seen = []
    monkeypatch.setattr(
        "tok1d.models.pretrained.compare_features", lambda *arguments: seen.extend(arguments) or {}
    )
    load_pretrained_encoder(encoder, config, StartConfig(encoder_checkpoint=str(path)))
    assert compare_features(*seen)["least"] > 0.9999
    with torch.no_grad():
        dict(
            mean=encoder.mean, pos_embed=encoder.vit.pos_embed,
            gamma=encoder.vit.blocks[0].ls1.gamma, bias=encoder.vit.blocks[0].attn.qkv.bias,
        )[damage].fill_(0.5)  # fmt: skip
    with pytest.raises(ConfigError, match="does not compute what timm computes from it"):
        compare_features(*seen)


def test_a_parameter_that_no_optimizer_moves_stops_the_run():
    model, optimizers = trained_one_step("none", TrainConfig())
    assert all(row["trainable"] == row["with_gradient"] for row in learning_report(model, optimizers, str))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if p is not model.to_codes.weight]
    with pytest.raises(ConfigError, match=r"to_codes.weight is trainable but in 0 optimizers"):
        learning_report(model, optimizers, str)


def test_loading_disturbs_no_random_choice(dinov2):
    path, config = dinov2
    encoder = Encoder(config)
    torch.manual_seed(3)
    load_pretrained_encoder(encoder, config, StartConfig(encoder_checkpoint=str(path)))
    drawn = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(4))


# ----------------------------------------------------------------------------------- freezing and slow layers


def trained_one_step(freeze: str, train: TrainConfig, steps: int = 2):
    """A tokenizer after two steps on noise, gradients kept, and its optimizers."""
    torch.manual_seed(0)
    model = Tokenizer(TokenizerConfig(**TINY))
    model.encoder.freeze(freeze)
    optimizers = build_optimizers(tokenizer_groups(model, train.encoder_lr_decay), train)
    images = torch.rand(2, 3, 32, 32)
    for step in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        set_learning_rate(optimizers, step, train)
        (model(images).images - images).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    return model, optimizers


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("freeze", ["none", "1", "all"])
def test_what_is_frozen_does_not_move_a_bit(optimizer, freeze):
    train = TrainConfig(optimizer=optimizer, weight_decay=0.1, encoder_freeze=freeze, encoder_lr_decay=0.5)
    before = dict(trained_one_step(freeze, train, steps=0)[0].named_parameters())
    model, optimizers = trained_one_step(freeze, train, steps=3)
    frozen = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    vit = {name for name in before if name.startswith("encoder.vit.")}
    first = {n for n in vit if "encoder.vit.norm" not in n and "blocks.1." not in n}
    assert frozen == {"none": set(), "1": first, "all": vit}[freeze]
    held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_lower_blocks_learn_slower(optimizer):
    train = TrainConfig(optimizer=optimizer, encoder_lr_decay=0.5, lr=1e-3, muon_lr=0.02, warmup_steps=0)
    model, optimizers = trained_one_step("none", train, steps=1)
    rates = {id(p): group["peak_lr"] for o in optimizers for group in o.param_groups for p in group["params"]}
    vit, matrix = model.encoder.vit, 0.02 if optimizer == "muon" else 1e-3
    assert rates[id(model.to_codes.weight)] == matrix and rates[id(model.encoder.latents)] == 1e-3
    assert rates[id(vit.blocks[1].attn.qkv.weight)] == matrix * 0.5
    assert rates[id(vit.blocks[0].attn.qkv.weight)] == matrix * 0.25
    assert rates[id(vit.patch_embed.proj.weight)] == matrix * 0.125
    assert rates[id(vit.pos_embed)] == 1e-3 * 0.125 and rates[id(vit.blocks[0].norm1.weight)] == 1e-3 * 0.25
    assert optimizers[-1].param_groups[0]["peak_lr"] == 1e-3  # the rate that metrics.jsonl records


def test_more_frozen_blocks_than_there_are_is_one_sentence():
    with pytest.raises(
        ConfigError, match="encoder_freeze=9 but the encoder has 2 blocks: type encoder_freeze=all"
    ):
        Encoder(TokenizerConfig(**TINY)).freeze("9")


# ------------------------------------------------------------------------------------------ a run, end to end


def test_a_path_may_be_corrected_until_the_run_has_begun(tmp_path):
    """A run that stopped at a wrong path is not held to it."""
    params = dict(outputs=str(tmp_path), encoder_init="mae")
    Run.open(*parse_train(params | dict(encoder_checkpoint="typo.pth")))
    run = Run.open(*parse_train(params | dict(encoder_checkpoint="right.pth")))
    (run / "last.ckpt").touch()
    with pytest.raises(ConfigError, match=r"was started with encoder_checkpoint=right\.pth, not other\.pth"):
        Run.open(*parse_train(params | dict(encoder_checkpoint="other.pth")))


def test_a_run_keeps_its_report_and_goes_on_without_the_file(dinov2, tmp_path, capsys):
    """Through the notebook: loaded at step 0, frozen to the bit, needed neither to go on nor to use."""
    path, _ = dinov2
    params = dict(encoder_init="dinov2", encoder_checkpoint=path, encoder_freeze="all", optimizer="muon")
    result = train_tiny(tmp_path, **params)
    assert result.returncode == 0, result.stderr
    run = Run(tmp_path / "runs" / "quickstart")
    report = json.loads((run / "load_report.json").read_text())
    assert report["source"] == str(path) and report["cosine"]["least"] > 0.999
    vit = next(row for row in report["parameters"] if row["part"] == "encoder.vit")
    assert vit["trainable"] == vit["in_an_optimizer"] == vit["with_gradient"] == 0 < vit["tensors"]
    learning = [row for row in report["parameters"] if row is not vit]
    assert all(row["tensors"] == row["in_an_optimizer"] == row["gradient_not_0"] for row in learning)
    notebook = nbformat.read(run / "train.ipynb", 4)
    shown = "".join(str(output) for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "by antialiased bicubic" in shown and report["sha256"] in shown and "gradient not 0" in shown

    original, trained = load_file(path), load_file(run / "model" / "model.safetensors")
    for name in ("blocks.1.attn.qkv.weight", "blocks.0.ls1.gamma", "norm.weight"):
        assert torch.equal(original[name], trained[f"encoder.vit.{name}"])
    path.unlink()
    (run / "done.json").unlink()
    for file in (run / "model").iterdir():
        file.unlink()
    pairs = (TINY_RUN | params | {"outputs": tmp_path}).items()
    assert main(["train", *(text for name, value in pairs for text in ("-p", f"{name}={value}"))]) == 0
    assert "continuing" in capsys.readouterr().out
    assert json.loads((run / "load_report.json").read_text()) == report
    loaded = Tokenizer.from_pretrained(run / "model")
    assert torch.equal(loaded.encoder.vit.blocks[0].ls1.gamma, original["blocks.0.ls1.gamma"])
    assert loaded.encoder.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


# ---- the reference's parameters

REFERENCE = sorted((REPO / "params" / "reference").glob("*.yaml"))


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.stem)
def test_the_seeds_parameters_with_tok1d_and_with_plain_papermill(path):
    params = read_params(path)
    assert "base" not in params
    merged = yaml.safe_load((path.parent / "base.yaml").read_text()) | yaml.safe_load(path.read_text())
    merged.pop("base", None)
    configs = parse_train(params)
    assert configs == parse_train(merged)
    assert configs.tokenizer.encoder_size == "B" and configs.tokenizer.grid == 16


def test_every_row_of_the_reference_is_there():
    rows = [parse_train(read_params(path)) for path in REFERENCE if path.stem != "base"]
    made = {(row[2].encoder_init, row[2].num_latent_tokens) for row in rows}
    assert made == {(init, 64) for init in [*UPSTREAM, "random"]} | {
        ("mae", k) for k in (16, 32, 64, 128, 256)
    }
    assert len({row[0].run for row in rows}) == len(rows)


def test_a_base_may_have_a_base(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.yaml").write_text("steps: 1\nlr: 1e-4\n")
    (tmp_path / "deep" / "b.yaml").write_text("base: ../a.yaml\nsteps: 2\n")
    (tmp_path / "deep" / "c.yaml").write_text("base: b.yaml\nseed: 3\n")
    assert read_params(tmp_path / "deep" / "c.yaml") == {"steps": 2, "lr": "1e-4", "seed": 3}
    (tmp_path / "a.yaml").write_text("base: deep/c.yaml\n")
    with pytest.raises(ConfigError, match="is its own base"):
        read_params(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("base: nosuch.yaml\n")
    with pytest.raises(ConfigError, match=r"there is no parameter file .*nosuch.yaml"):
        read_params(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("base: [b.yaml]\n")
    with pytest.raises(ConfigError, match=r"type base: params/reference/base\.yaml"):
        read_params(tmp_path / "a.yaml")
