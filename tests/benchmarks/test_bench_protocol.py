"""Ways to evaluate slightly differently: none of them goes without another card."""

from benchmarks.silent_choices import FloatJpeg, check, photographs, ways
from tok1d.config.schema import EvalConfig
from tok1d.evaluation.card import differences
from tok1d.evaluation.evaluate import evaluate

NAMED = {
    "half of the images": "images", "shorter side to 292, then cropped": "resize",
    "squashed instead of cropped": "resize", "antialiased bilinear": "resize",
    "bicubic, not antialiased": "resize", "originals kept as JPEG, quality 95": "resize",
    "reconstructions saved as JPEG, 95": "reconstruction", "truncated instead of rounded": "reconstruction",
    "clamped too late: values wrap around": "reconstruction",
}  # fmt: skip


def test_every_way_has_a_card_of_its_own(photos):
    folder = photos(2, size=(320, 280))
    frames = photographs(str(folder))
    cards, numbers = {}, {}
    for what, images, extra in ways(frames, frames):
        config = EvalConfig(metrics="psnr", resamples=0, eval_images=extra.pop("eval_images", 0))
        found = evaluate(FloatJpeg(), images, config, **extra)
        cards[what], numbers[what] = found["card"], found["results"][0]["psnr"]
    ours = cards.pop("as tok1d does it")
    assert len(cards) == 10
    del cards["statistics of training images"]  # of rFID alone: see test_set_metrics.py
    assert {what: next(iter(differences(ours, card))) for what, card in cards.items()} == NAMED
    assert len(set(numbers.values())) == len(numbers) - 1  # all but the reference, which PSNR has not


def test_the_codec_is_jpeg_up_to_rounding():
    assert check() < 1
