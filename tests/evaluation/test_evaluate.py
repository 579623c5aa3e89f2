"""What an evaluation measures, of our tokenizers and of anybody's; numbers against other code."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from evaluating import Means, Roads, build, roads
from PIL import Image
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from tok1d.config.fields import ConfigError
from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import to_float
from tok1d.evaluation.evaluate import evaluate, reconstruct
from tok1d.evaluation.metrics.images import ms_ssim, psnr, seams, sharpness, ssim


class Jpeg:
    """A codec with bytes instead of tokens."""

    def encode(self, images):
        return [self.file(image) for image in images]

    def file(self, image) -> bytes:
        out = io.BytesIO()
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(out, "JPEG", quality=30)
        return out.getvalue()

    def decode(self, files):
        pictures = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("size", [16, 176])
def test_similarities_are_torchmetrics(size):
    a = torch.rand(3, 3, size, size)
    b = (a + torch.tensor([0.05, 0.2, 0.5]).view(3, 1, 1, 1) * torch.randn_like(a)).clamp(0, 1)
    theirs = structural_similarity_index_measure(b, a, data_range=1.0, reduction="none")
    torch.testing.assert_close(ssim(b, a), theirs, atol=1e-5, rtol=1e-5)
    if size > 160:
        theirs = multiscale_structural_similarity_index_measure(b, a, data_range=1.0, reduction="none")
        torch.testing.assert_close(ms_ssim(b, a), theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("quantizer", ["fsq", "vq", "kl"])
def test_one_pass_gives_what_each_count_alone_gives(quantizer, tmp_path):
    tokenizer, images = build(quantizer=quantizer), roads(7)
    config = EvalConfig(eval_batch_size=3, resamples=50)
    evaluation = evaluate(tokenizer, images, config, table=tmp_path / "eval.parquet")
    assert [row["num_tokens"] for row in evaluation["results"]] == [1, 2, 4, 8]
    originals = images.center_crops(range(7))
    pictures = reconstruct(tokenizer, originals, (1, 2, 4, 8))
    table = pd.read_parquet(tmp_path / "eval.parquet")
    for row in evaluation["results"]:
        k = row["num_tokens"]
        expected = psnr(to_float(pictures[k]), to_float(originals))
        mine = table[table.num_tokens == k].sort_values("image")
        np.testing.assert_allclose(mine.psnr, expected, rtol=1e-4)
        assert list(mine.name) == images.names
        assert row["psnr"] == pytest.approx(expected.mean().item(), rel=1e-4)
        assert row["psnr_interval"][0] < row["psnr"] < row["psnr_interval"][1]
        assert row["bits"] == k * tokenizer.config.bits_per_token
        if quantizer == "kl":
            assert "code_usage" not in row and not evaluation["positions"]
        else:
            ids = tokenizer.encode(to_float(originals), k)
            share = torch.bincount(ids.flatten()).double() / ids.numel()
            size = tokenizer.quantizer.codebook_size
            assert row["code_usage"] == pytest.approx((share > 0).sum().item() / size)
            assert row["code_perplexity"] == pytest.approx(torch.special.entr(share).sum().exp().item())
    if quantizer != "kl":
        first = torch.bincount(tokenizer.encode(to_float(originals))[:, 0]).double() / 7
        bits = torch.special.entr(first).sum().item() / np.log(2)
        assert evaluation["positions"]["8"]["entropy"][0] == pytest.approx(bits)
        assert len(evaluation["positions"]["8"]["usage"]) == 8


def test_images_are_read_once_for_all_counts(monkeypatch):
    read = []
    own = Roads.__getitem__
    monkeypatch.setattr(Roads, "__getitem__", lambda self, i: (read.append(i), own(self, i))[1])
    evaluate(build(), roads(5), EvalConfig(eval_batch_size=2))
    assert read == [0, 1, 2, 3, 4]


def test_a_codec_is_measured_under_the_same_card(tmp_path):
    ours = evaluate(build(), roads(6), EvalConfig())
    evaluation = evaluate(Jpeg(), roads(6), EvalConfig(), table=tmp_path / "eval.parquet")
    (row,) = evaluation["results"]
    files = Jpeg().encode(to_float(roads(6).center_crops(range(6))))
    assert row["num_tokens"] is None and row["bits"] == 8 * np.mean([len(file) for file in files])
    assert 20 < row["psnr"] < 50
    differ = {k for k, v in evaluation["card"].items() if v != ours["card"][k]}
    assert differ == {"model", "model_sha256", "token_counts"}


def test_a_peers_tokenizer_is_measured_at_its_counts():
    evaluation = evaluate(Means(), roads(6), EvalConfig())
    assert [(row["num_tokens"], row["bits"]) for row in evaluation["results"]] == [(2, 8), (4, 16)]
    assert evaluation["results"][1]["psnr"] > evaluation["results"][0]["psnr"]
    assert evaluation["results"][1]["code_perplexity"] > 1 and set(evaluation["positions"]) == {"2", "4"}
    assert evaluation["card"]["model"] == "means"
    with pytest.raises(ConfigError, match="token_counts=3 is no count of this Means: type token_counts=2,4"):
        evaluate(Means(), roads(2), EvalConfig(token_counts=3))
    with pytest.raises(ConfigError, match="a list has no encode"):
        evaluate([], roads(2), EvalConfig())


def test_other_pixels_are_another_card():
    """Even where whoever made them says nothing of it."""
    cards = [evaluate(Jpeg(), images, EvalConfig())["card"] for images in (roads(3), roads(3, start=1))]
    assert cards[0]["pixels_sha256"] != cards[1]["pixels_sha256"]


def test_ms_ssim_needs_large_images_and_says_so():
    small = evaluate(Jpeg(), roads(2), EvalConfig())
    assert "ms_ssim" not in small["results"][0] and "MS-SSIM is left out" in small["warnings"][0]
    large = evaluate(Jpeg(), roads(2, 176), EvalConfig())
    assert 0.5 < large["results"][0]["ms_ssim"] < 1 and not large["warnings"]


def test_bf16_is_another_card():
    one, other = (evaluate(build(), roads(3), EvalConfig(eval_dtype=d)) for d in ("float32", "bf16"))
    assert one["card"]["dtype"] != other["card"]["dtype"]
    assert one["results"][-1]["psnr"] == pytest.approx(other["results"][-1]["psnr"], abs=0.5)
    assert one["results"][-1]["psnr"] != other["results"][-1]["psnr"]


def test_too_few_images_are_one_sentence():
    (row,) = evaluate(Jpeg(), roads(1), EvalConfig())["results"]
    assert row["psnr"] > 20 and "psnr_interval" not in row
    with pytest.raises(ConfigError, match="no images to evaluate on"):
        evaluate(Jpeg(), roads(0), EvalConfig())
    with pytest.raises(ConfigError, match="rfid is a distance of sets"):
        evaluate(Jpeg(), roads(1), EvalConfig(metrics="psnr,rfid"))


def test_sharpness_and_seams_of_what_can_be_counted():
    image = torch.arange(32.0).expand(1, 3, 32, 32) / 64  # steps of 1 / 64 to the right, none downwards
    flat = torch.full_like(image, 0.5)
    tiles = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), scale_factor=8)
    assert sharpness(image / 2, image).item() == pytest.approx(0.5, abs=1e-3)
    assert sharpness(flat, image).item() < 1e-3 and sharpness(image, image).item() == 1
    assert seams(image, image).item() == pytest.approx(1, abs=1e-3) and seams(flat, image).item() == 1
    assert seams(tiles, image).item() > 1000  # every step is a border
    stepped = image.clone()
    stepped[..., 16:] += 1 / 64  # one of the three borders to the right has twice the step
    assert seams(stepped, image).item() == pytest.approx(4 / 3, abs=1e-3)
