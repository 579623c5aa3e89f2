"""Fine-tuning: what one tokenizer has learned is worth something to another that differs from it."""

import shutil

import pytest
import torch
from tuning import fresh, tuned

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig, EvalConfig, StartConfig, TrainConfig
from tok1d.data.dataset import load_data, to_float
from tok1d.evaluation.evaluate import evaluate
from tok1d.jupyter.tables import explanations, summary
from tok1d.models.finetune import load_from_tokenizer
from tok1d.models.tokenizer import Tokenizer
from tok1d.training.optim import build_optimizers, set_learning_rate
from tok1d.training.task import tokenizer_groups


class Roads:
    """Toy roads: a few steps of training on them, and PSNR (dB) on others."""

    def __init__(self, cache):
        self.cache = cache

    def images(self, size: int):
        return load_data(DataConfig(toy_images=40, toy_val_images=12), size, self.cache)

    def train(self, model: Tokenizer, steps: int) -> Tokenizer:
        images, _ = self.images(model.config.image_size)
        config = TrainConfig(steps=steps, optimizer="muon", warmup_steps=5)
        optimizers = build_optimizers(tokenizer_groups(model.train()), config)
        for step in range(steps):
            batch = to_float(images.train_batch(step, 8, 0))
            set_learning_rate(optimizers, step, config)
            (model(batch).images - batch).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        return model.eval()

    def psnr(self, model: Tokenizer, count: int | None = None) -> float:
        counts = (count or model.config.num_latent_tokens,)
        _, val = self.images(model.config.image_size)
        return evaluate(model, val, EvalConfig(token_counts=counts))["results"][0]["psnr"]


@pytest.fixture(scope="module")
def roads(tmp_path_factory):
    return Roads(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def fixed(roads, tmp_path_factory):
    """The folder of a tokenizer of 8 tokens that has learned something."""
    folder = tmp_path_factory.mktemp("fixed")
    roads.train(fresh(), 70).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def elastic(roads, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elastic")
    roads.train(fresh(elastic=True), 20).save_pretrained(folder)
    return folder


# ---------------------------------------------------------------------------------------- what is kept counts


def test_the_same_network_is_the_same_to_the_bit(fixed, roads):
    model, rows = tuned(fixed)
    parent = Tokenizer.from_pretrained(fixed).eval()
    images = to_float(roads.images(16)[1].center_crops(range(4)))
    assert torch.equal(model.eval()(images).images, parent(images).images)
    report = rows.pop("report")
    assert {(row["status"], row["reason"]) for row in rows.values()} == {("loaded", "")}
    assert report["changes"] == [] and rows.keys() == parent.state_dict().keys()


@pytest.mark.parametrize(
    ("params", "loss", "gain"),
    [  # dB that the start may lose of its parent's quality; dB that it must be above a fresh start
        (dict(num_latent_tokens=16), 1.0, 3.0),
        (dict(num_latent_tokens=4), 4.0, 1.5),
        (dict(elastic=True), 2.0, 2.5),
        (dict(image_size=32), 4.0, 1.5),
        (dict(image_size=32, patch_size=8), 2.0, 2.5),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_it_starts_near_its_parent_and_learns_faster_than_from_scratch(params, loss, gain, fixed, roads):
    child = roads.psnr(tuned(fixed, **params)[0])
    parent, scratch = roads.psnr(Tokenizer.from_pretrained(fixed)), roads.psnr(fresh(**params))
    print(f"parent {parent:.2f}, at step 0 {child:.2f}, fresh {scratch:.2f} dB")
    assert child > parent - loss and child > scratch + gain
    after, other = (
        roads.psnr(roads.train(model, 8)) for model in (tuned(fixed, **params)[0], fresh(**params))
    )
    print(f"after 8 steps {after:.2f}, from scratch {other:.2f} dB")
    assert after > other + 0.5


@pytest.mark.parametrize("count", [4, 16])
def test_the_prefixes_of_an_elastic_tokenizer_stay_what_they_were(count, elastic, roads):
    model, _ = tuned(elastic, elastic=True, num_latent_tokens=count)
    parent, images = (
        Tokenizer.from_pretrained(elastic).eval(),
        to_float(roads.images(16)[1].center_crops(range(4))),
    )
    for k in (1, 4, 8)[: 2 if count == 4 else 3]:
        assert torch.equal(model.eval().encode(images, k), parent.encode(images, k))
        torch.testing.assert_close(model(images, k).images, parent(images, k).images)


# --------------------------------------------------------------------------------------- every tensor is told


def test_added_tokens_start_as_in_a_fresh_model_and_disturb_nobody(fixed):
    model, rows = tuned(fixed, num_latent_tokens=12)
    parent, new = Tokenizer.from_pretrained(fixed), fresh(num_latent_tokens=12)
    for name in ("encoder.latents", "encoder.mix", "decoder.token_positions"):
        mine, theirs, unborn = (m.get_parameter(name) for m in (model, parent, new))
        assert torch.equal(mine[:8], theirs) and torch.equal(mine[8:], unborn[8:])
        assert rows[name]["reason"] == "8 tokens, and 4 more that start as in a fresh model"
    assert not model.decoder.mix[:, 8:].any() and torch.equal(model.decoder.mix[:, :8], parent.decoder.mix)
    assert rows["report"]["changes"] == ["num_latent_tokens: 8 to 12"]


def test_the_grid_is_resampled_and_sums_over_patches_keep_their_scale(fixed):
    model, rows = tuned(fixed, image_size=32)
    with torch.no_grad():
        parent = Tokenizer.from_pretrained(fixed)
        flat = parent.encoder.mix.sum(1)  # what a mix makes of an image of one color
    torch.testing.assert_close(model.encoder.mix.sum(1), flat, rtol=0.1, atol=0.1)
    resampled = {name for name, row in rows.items() if row.get("status") == "resampled"}
    assert resampled == {
        "encoder.vit.pos_embed", "encoder.mix", "decoder.mask_tokens", "decoder.mix",
    }  # fmt: skip
    assert rows["decoder.mix"]["reason"] == "4x4 to 8x8 by antialiased bicubic"
    there, _ = tuned(fixed, image_size=32)
    there.save_pretrained(folder := fixed.parent / "there")
    back = fresh()
    load_from_tokenizer(back, StartConfig(init_from=str(folder)))
    torch.testing.assert_close(back.decoder.mask_tokens, parent.decoder.mask_tokens, rtol=0.3, atol=0.3)


def test_what_fits_nowhere_is_new_or_dropped_and_says_why(fixed):
    _, rows = tuned(fixed, quantizer="vq")
    new = {name for name, row in rows.items() if row.get("status") == "new"}
    codes = {f"{part}.{kind}" for part in ("to_codes", "decoder.from_codes") for kind in ("weight", "bias")}
    assert new == codes | {"quantizer.codebook"}
    assert rows["to_codes.weight"]["reason"] == "codes of quantizer=vq, not fsq"
    model, rows = tuned(fixed, decoder_size="T")
    assert rows["decoder.blocks.0.attn.qkv.weight"]["status"] == "new"
    assert rows["decoder.token_positions"]["reason"] == "[8, 128] there, [8, 192] here"
    assert torch.equal(model.decoder.norm.weight, fresh(decoder_size="T").decoder.norm.weight)
    _, rows = tuned(fixed, token_mixing=False)
    assert {name for name, row in rows.items() if row.get("status") == "dropped"} == {
        "encoder.mix", "decoder.mix",
    }  # fmt: skip
    _, rows = tuned(fixed, elastic=True)
    assert "same weights, but token k now sees tokens 1 … k alone" in rows["report"]["changes"][1]


def test_mixing_that_is_added_changes_nothing_at_first(roads, tmp_path):
    roads.train(fresh(token_mixing=False), 3).save_pretrained(tmp_path)
    model, rows = tuned(tmp_path)
    assert rows["encoder.mix"]["reason"] == "[8, 16]: zeros, which change nothing at first"
    images = to_float(roads.images(16)[1].center_crops(range(2)))
    assert torch.equal(model.eval()(images).images, Tokenizer.from_pretrained(tmp_path).eval()(images).images)
    trained = roads.train(model, 2)
    assert trained.encoder.mix.any() and trained.decoder.mix.any()


def test_a_report_reads_well_in_the_notebook(fixed):
    _, rows = tuned(fixed, num_latent_tokens=4, image_size=32)
    told = summary(rows["report"])
    assert told["changes"] == "image_size: 16 to 32; num_latent_tokens: 8 to 4"
    assert told["tensors resampled"] == 4 and not {"tensors new", "tensors dropped"} & told.keys()
    [mix] = [line for line in explanations(rows["report"]).data.splitlines() if "encoder.mix" in line]
    assert "4x4 to 8x8 by antialiased bicubic; the first 4 of 8 tokens" in mix


# -------------------------------------------------------------------------------- whatever is wrong, it stops


@pytest.mark.parametrize(
    ("tokenizer", "start", "said"),
    [
        (dict(encoder_size="T"), {}, "has encoder_size=nano, not T: type encoder_size=nano"),
        (dict(encoder_init="mae", encoder_size="nano"), {}, "type encoder_init=random (no pretrained file"),
        (dict(random_like="dinov2"), {}, "not of encoder_init=random random_like=dinov2: type encoder_init="),
        (
            {},
            dict(encoder_checkpoint="a.pth"),
            "encoder_checkpoint=a.pth would not be used, since init_from=",
        ),
        ({}, dict(init_from="outputs/no/such"), "there is no folder outputs/no/such: type init_from="),
        ({}, dict(init_from="tests"), "tests holds no tokenizer: type init_from="),
    ],
)
def test_a_start_that_cannot_be_is_one_sentence(tokenizer, start, said, fixed):
    with pytest.raises(ConfigError) as caught:
        load_from_tokenizer(fresh(**tokenizer), StartConfig(**dict(init_from=str(fixed)) | start))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "foreign config", "checkpoint"])
def test_a_damaged_tokenizer_is_one_sentence(damage, fixed, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(fixed, folder)
    if damage == "cut":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    if damage == "foreign config":
        (folder / "config.json").write_text('{"architectures": ["ViTModel"]}')
    if damage == "checkpoint":
        shutil.rmtree(folder)
        (tmp_path / "last.ckpt").write_bytes(b"PK half a file")
        (tmp_path / "params.yaml").write_text("image_size: 16\n")
    with pytest.raises(ConfigError, match=r"type init_from=outputs/SWEEP/RUN") as caught:
        tuned(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
