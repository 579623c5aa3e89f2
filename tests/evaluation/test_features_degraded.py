"""Real frames that noise, blur or JPEG make worse are farther away, to Inception and to DINOv2."""

import pytest
import torch
from degraded import blur, jpeg, noise, squares, stacked

from tok1d.evaluation.metrics.distances import frechet, kid, prdc
from tok1d.evaluation.metrics.features import build_extractor

WORSE = {noise: (8, 72), blur: (1, 5), jpeg: (50, 5)}


@pytest.mark.parametrize("name", ["inception", "dinov2"])
def test_what_gets_worse_is_farther_away(name, frames, real_weights):
    torch.set_num_threads(1)
    file = {"inception": "inception_fid.pth", "dinov2": "dinov2_vits14_imgfocus.pth"}[name]
    extractor = build_extractor(name, str(real_weights / file), "S")
    images = squares(frames)
    originals = extractor(stacked(images))
    assert frechet(originals, originals) < 1e-6
    assert prdc(originals, originals, 1)[:2] == (1, 1)
    for make, strengths in WORSE.items():
        found = [extractor(stacked([make(image, strength) for image in images])) for strength in strengths]
        for distance in (frechet, lambda a, b: kid(a, b)[0]):
            values = [distance(originals, x) for x in (originals, *found)]
            assert values == sorted(values) and values[-1] > 1.5 * values[1], (make, values)
        near = [prdc(originals, x, 1) for x in (originals, *found)]
        for number in ("recall", "coverage"):
            values = [getattr(x, number) for x in near]
            assert values == sorted(values, reverse=True) and values[-1] < values[0], (make, number, values)
