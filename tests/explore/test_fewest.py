"""The fewest tokens for a wished quality: as by trying every count, and over a data set."""

import pytest
from evaluating import build, roads

from tok1d.config.fields import ConfigError
from tok1d.data.dataset import to_float
from tok1d.evaluation.evaluate import reconstruct
from tok1d.evaluation.metrics.images import psnr
from tok1d.explore.fewest import fewest_in, fewest_of_each, fewest_tokens, needs
from tok1d.figures.quality import draw_needs

ROUNDING = 1e-3  # dB, between batches of several sizes


@pytest.fixture(scope="module")
def tokenizer():
    """Its random weights make quality rise and fall with the count."""
    return build()


@pytest.fixture(scope="module")
def qualities(tokenizer) -> list[list[float]]:
    """PSNR of 6 images at 1 … 8 tokens."""
    images = roads(6).center_crops(range(6))
    made = reconstruct(tokenizer, images, tuple(range(1, 9)))
    return [[psnr(to_float(made[k][i : i + 1]), to_float(images[i : i + 1])).item() for k in range(1, 9)]
            for i in range(6)]  # fmt: skip


def test_it_is_the_first_count_that_reaches_the_wish(tokenizer, qualities):
    images = roads(6).center_crops(range(6))
    assert any(row != sorted(row) for row in qualities)
    every = sorted(value for row in qualities for value in row)
    wish = every[len(every) * 3 // 4] - ROUNDING
    wanted = [next((k for k, value in enumerate(row, 1) if value >= wish), None) for row in qualities]
    assert None in wanted and len(set(wanted)) > 1
    assert fewest_of_each(tokenizer, images, psnr=wish) == wanted
    assert [fewest_tokens(tokenizer, image, psnr=wish) for image in images] == wanted
    some = fewest_of_each(tokenizer, images, psnr=wish, counts=(8, 4))
    assert some == [next((k for k in (4, 8) if row[k - 1] >= wish), None) for row in qualities]


def test_it_is_less_where_less_is_better(tokenizer):
    image = roads(1).center_crops([0])[0]
    assert (
        fewest_tokens(tokenizer, image, seams=1e9) == 1 and fewest_tokens(tokenizer, image, seams=0) is None
    )
    fixed = build(elastic=False)
    assert fewest_tokens(fixed, image, psnr=1) == 8


def test_a_data_set_needs(tokenizer, qualities):
    wish = min(max(row) for row in qualities) - ROUNDING  # every image reaches it
    found = fewest_in(tokenizer, roads(6), psnr=wish)
    rows = needs(found, range(1, 9))
    assert rows[-1] == {"num_tokens": 8, "images": 6, "share": 1}
    assert [row["images"] for row in rows] == sorted(row["images"] for row in rows)
    assert needs([None, 3, 1], (1, 2, 4)) == [
        {"num_tokens": k, "images": n, "share": n / 3} for k, n in ((1, 1), (2, 1), (4, 2))
    ]
    (axis,) = draw_needs({"one": rows, "other": rows}, "psnr", 25).axes
    assert [line.get_ydata()[-1] for line in axis.lines] == [100, 100] and "≥ 25" in axis.get_ylabel()


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({}, "there are 0 wishes"),
        (dict(psnr=25, ssim=0.5), "there are 2 wishes"),
        (dict(rfid=10), "rfid is no quality of a single image"),
        (dict(ms_ssim=0.9), "MS-SSIM is left out: it needs images of 161 pixels"),
        (dict(psnr=float("nan")), "psnr=nan is no number: type psnr=25"),
        (dict(psnr="25"), "psnr='25' is no number"),
        (dict(psnr=25, counts=(9,)), "token_counts=9 is no count of this tokenizer"),
    ],
)
def test_other_wishes_are_refused(tokenizer, wish, says):
    with pytest.raises(ConfigError, match=says):
        fewest_tokens(tokenizer, roads(1).center_crops([0])[0], **wish)
