"""Rate and distortion, and what the tokens say: what is drawn is what was measured."""

import pytest
from evaluating import FAST, build, finished_run, roads
from PIL import Image, features

from tok1d.config.fields import ConfigError
from tok1d.config.registry import NUMBERS
from tok1d.evaluation.metrics.tokens import token_ids
from tok1d.evaluation.runs import evaluate_run, evaluation_images
from tok1d.figures import codebook, rate_distortion
from tok1d.figures.quality import quality
from tok1d.jupyter.tables import print_table, show_table
from tok1d.runs import RunError


@pytest.fixture
def run(tmp_path):
    run = finished_run(tmp_path, "a", image_size=32)
    evaluate_run(run, FAST)
    return run


def test_a_codec_is_charged_for_its_whole_file(tmp_path):
    picture = Image.fromarray(roads(1, 64)[0])
    picture.save(tmp_path / "a.webp", quality=50, method=4)
    pixels, file = rate_distortion.code(picture, 1, 50, rate_distortion.CODECS["WebP"])
    assert file == (tmp_path / "a.webp").read_bytes() and pixels.shape == (64, 64, 3)
    assert len(rate_distortion.code(picture, 4, 50, rate_distortion.CODECS["WebP"])[1]) < len(file)


@pytest.mark.parametrize("name", rate_distortion.BARE)
def test_without_headers_a_file_counts_its_coded_pixels_alone(name):
    """A comment, or a profile of colors, is longer and costs nothing; a better picture does."""
    if not features.check(rate_distortion.PILLOW[name]):
        pytest.skip(f"this Pillow has no {name}")
    picture, options = Image.fromarray(roads(1, 64)[0]), rate_distortion.CODECS[name]
    sizes = []
    for setting, more in ((30, {}), (30, {"icc_profile": b"x" * 500}), (80, {})):
        _, file = rate_distortion.code(picture, 1, setting, options | more)
        sizes.append((len(file), rate_distortion.payload(file)))
    (whole, bare), (longer, same), (_, better) = sizes
    assert longer >= whole + 500 and same == bare and 0 < bare < whole - 100 and better > bare


def test_only_the_best_settings_are_drawn():
    points = [dict(bytes=b, psnr=p) for b, p in ((10, 20), (20, 19), (30, 25), (30, 24), (40, 25), (50, 30))]
    best = rate_distortion.envelope(points)
    assert [p["bytes"] for p in best] == [10, 30, 50]
    assert rate_distortion.at(best, 9) is None and rate_distortion.at(best, 60) is None
    assert rate_distortion.at(best, 30) == 25 and 20 < rate_distortion.at(best, 20) < 25


def test_tokens_beside_codecs_of_the_same_images(run):
    images = evaluation_images(run, "", 32)
    drawn = rate_distortion.rate_distortion([run], images, count=12)
    tokens = [point for point in drawn if point["line"] == "tokens"]
    for point, row in zip(tokens, run.evaluation["results"], strict=True):
        assert point["bytes"] == row["bits"] / 8 and point["psnr"] == pytest.approx(row["psnr"], rel=1e-5)
        assert point["equal_bytes"].keys() >= {"JPEG", "WebP"}
        assert point["equal_bytes"]["JPEG"] is None  # no JPEG file has 8 bytes
    assert {"tokens", "JPEG", "WebP"} <= {point["line"] for point in drawn}


def test_the_id_matrix_and_positions_are_those_of_the_images(run):
    tokenizer, images = build(), roads(6)
    ids = token_ids(tokenizer, images, batch_size=4)
    assert ids.shape == (6, 8)
    _, drawn = codebook.id_matrix(run, ids)
    assert [row["ids"] for row in drawn] == ids.tolist()
    _, drawn = codebook.usage_histogram(run, ids, tokenizer.quantizer.codebook_size)
    assert sum(row["share"] for row in drawn) == pytest.approx(1)
    _, drawn = codebook.positions(run)
    assert [row["entropy"] for row in drawn] == run.evaluation["positions"]["4"]["entropy"]
    _, drawn = codebook.images_of_codes(run, ids, images)
    for row in drawn:
        assert (ids[row["images"], row["position"] - 1] == row["code"]).all() and row["images"]
    with pytest.raises(ConfigError, match="no ids"):
        token_ids(build(quantizer="kl"), images)


def test_effects_are_of_the_swapped_token_alone(run):
    tokenizer, originals = build(), roads(3).center_crops(range(3))
    maps = codebook.effects(tokenizer, originals, [0, 7])
    assert maps.shape == (2, 3, 32, 32) and (maps >= 0).all() and maps.max() > 0
    alike = originals[:1].expand(2, -1, -1, -1)  # the next image has the same tokens
    assert codebook.effects(tokenizer, alike, [0]).max() < 1e-5
    figure, drawn = codebook.effect_maps(run, tokenizer, originals)
    assert [row["position"] for row in drawn] == [1, 2, 3, 5, 8] and len(figure.axes) == 3 * 6


def test_quality_is_drawn_with_its_interval_or_refused_by_name(run):
    drawn = quality([run], "code_perplexity")
    rows = run.evaluation["results"]
    assert [row["code_perplexity_interval"] for row in drawn] == [r["code_perplexity_interval"] for r in rows]
    with pytest.raises(
        RunError, match=r"was not evaluated for kid: type 'tok1d evaluate .* metrics=psnr,ssim,kid'"
    ):
        quality([run], "kid")


def test_tables_print_an_interval_after_its_number(capsys):
    rows = [
        {"num_tokens": 4, "psnr": 21.456, "psnr_interval": [21.0, 22.0]},
        {"num_tokens": 8, "kid": 0.0123},
    ]
    assert "| 4 | 21.46 (21.00\u00a0…\u00a022.00) |  |" in show_table(rows).data
    print_table(rows)
    head, first, last = capsys.readouterr().out.splitlines()
    assert NUMBERS["kid"].label in head and "21.46 (21.00 … 22.00)" in first and last.endswith("12.30")


def test_an_arrow_says_which_end_is_good():
    """Also of precision and recall, which are better higher though they come from distances of features."""
    assert all(NUMBERS[name].higher_is_better for name in ("psnr", "precision", "recall", "code_usage"))
    assert not any(NUMBERS[name].higher_is_better for name in ("lpips", "rfid", "kid", "frechet_dinov2"))
