"""Toy roads: the same picture everywhere, the same scene at every size, balanced and visible labels."""

import hashlib
import subprocess
import sys
from collections import Counter
from functools import cache

import numpy as np
import pytest
from PIL import Image

from tok1d.data.toy_roads.draw import draw_scene
from tok1d.data.toy_roads.scene import SCENES, TIMES_OF_DAY, WEATHER, labels

FINGERPRINT = """
import hashlib
from tok1d.data.toy_roads.draw import draw_scene
from tok1d.data.toy_roads.scene import labels
print(hashlib.sha256(b"".join(draw_scene(i, 32, 3).tobytes() for i in range(12))).hexdigest(), labels(7, 3))
"""


@cache
def pixels(index: int, size: int = 64) -> np.ndarray:
    """Gray values 0..1, H W."""
    return np.asarray(draw_scene(index, size).convert("L"), np.float32) / 255


def mean_over(statistic, **wanted: str) -> float:
    """The statistic's mean over the pictures among the first 180 that carry the wanted labels."""
    chosen = [i for i in range(180) if all(getattr(labels(i), key) == word for key, word in wanted.items())]
    return float(np.mean([statistic(pixels(i)) for i in chosen]))


@pytest.mark.parametrize("size", [16, 64, 100, 256])
def test_size_and_mode(size):
    picture = draw_scene(3, size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))


def test_same_pixels_in_another_process():
    here = hashlib.sha256(b"".join(draw_scene(i, 32, 3).tobytes() for i in range(12))).hexdigest()
    there = subprocess.run(
        [sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, check=True
    ).stdout
    assert there.strip() == f"{here} {labels(7, 3)}"


def test_order_of_drawing_does_not_matter():
    first = draw_scene(5, 32)
    draw_scene(6, 32)
    assert draw_scene(5, 32).tobytes() == first.tobytes()
    assert draw_scene(5, 32, seed=1).tobytes() != first.tobytes()


def test_same_scene_at_every_size():
    def far_apart(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a - b).mean())

    large = [
        np.asarray(draw_scene(i, 256).resize((64, 64), Image.Resampling.BOX).convert("L")) / 255
        for i in range(24)
    ]
    same = [far_apart(large[i], pixels(i)) for i in range(24)]
    other = [far_apart(large[i], pixels((i + 1) % 24)) for i in range(24)]
    assert max(same) < 0.03
    assert np.mean(other) > 8 * np.mean(same)


def test_labels_are_balanced_and_pure():
    found = [labels(i) for i in range(1000)]
    for words, column in zip((WEATHER, TIMES_OF_DAY, SCENES), zip(*found, strict=True), strict=True):
        counts = Counter(column)
        assert set(counts) == set(words)
        assert max(counts.values()) - min(counts.values()) < 0.05 * 1000 / len(words)
    assert len(set(found[:45])) == 45  # every combination once
    assert labels(123) == found[123]
    assert [labels(i, seed=1) for i in range(45)] != found[:45]


def test_time_of_day_can_be_seen():
    day, dusk, night = (mean_over(np.mean, timeofday=word) for word in TIMES_OF_DAY)
    assert day > 1.1 * dusk
    assert night < 0.5 * day
    assert night < 0.65 * dusk

    def warmth(i: int) -> float:
        red, _, blue = np.asarray(draw_scene(i, 32), np.float32).reshape(-1, 3).mean(0)
        return float((red - blue) / (red + blue))

    by_hour = {hour: [warmth(i) for i in range(60) if labels(i).timeofday == hour] for hour in TIMES_OF_DAY}
    assert np.mean(by_hour["dawn/dusk"]) > 0.04 + np.mean(by_hour["daytime"])


def test_weather_can_be_seen():
    def ground(picture: np.ndarray) -> float:
        return float(picture[42:58].mean())

    def contrast(picture: np.ndarray) -> float:
        return float(picture[:58].std())

    def fine_detail(picture: np.ndarray) -> float:
        return float(np.abs(np.diff(picture[:24], axis=1)).mean())

    def seen(statistic, weather: str, hour: str = "daytime") -> float:
        return mean_over(statistic, weather=weather, timeofday=hour)

    for hour in TIMES_OF_DAY:
        assert seen(ground, "snowy", hour) > 1.15 * seen(ground, "clear", hour)
    assert seen(contrast, "foggy") < 0.75 * seen(contrast, "clear")
    assert seen(fine_detail, "rainy") > 1.15 * seen(fine_detail, "overcast")
    assert seen(np.mean, "rainy") < 0.9 * seen(np.mean, "overcast") < seen(np.mean, "clear")


@pytest.mark.parametrize(("index", "size", "seed"), [(-1, 64, 0), (0, 15, 0), (0, 1025, 0), (0, 64, -1)])
def test_wrong_input_says_what_to_type(index, size, seed):
    with pytest.raises(ValueError, match="type "):
        draw_scene(index, size, seed)


def test_labels_refuse_a_negative_index():
    with pytest.raises(ValueError, match="type "):
        labels(-1)
