"""What a toy road picture holds: its labels, its light, and every sampled number, before anything is drawn.

`sample_scene(index, seed)` is pure. Lengths are metres (x right of the camera, y up from the road, z ahead);
places on the picture are shares of its side, so a scene has no resolution. `toy_roads.py` draws it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# BDD100K's own words.
WEATHER = ("clear", "overcast", "rainy", "snowy", "foggy")
TIMES_OF_DAY = ("daytime", "dawn/dusk", "night")
SCENES = ("city street", "highway", "residential")
Z_FAR = 160.0  # metres; the road ends here, behind it stand hills and skyline

Color = tuple[float, float, float]  # RGB, 0..255


class SceneLabels(NamedTuple):
    weather: str
    timeofday: str
    scene: str


def mix(a: Color, b: Color, share: float) -> Color:
    """`a` moved towards `b` by `share` 0..1."""
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share


@dataclass(frozen=True)
class Light:
    """The light of one hour under one weather."""

    sky: tuple[Color, Color, Color]  # at the top, halfway, at the horizon
    ambient: Color  # how a white wall looks
    haze: Color  # what distance fades into
    air: float  # haze per metre
    lamps: float  # how strongly lamps shine, 0..1
    cover: float  # share of the sky under cloud, 0..1


@dataclass(frozen=True)
class Road:
    """The road's cross-section, in metres from the camera."""

    left: float  # our roadway, oncoming lanes included unless there is a median
    right: float
    lane: float  # width of one lane
    center: float  # where the two directions meet; equals `left` on a highway
    median: float  # a highway's strip of grass before the oncoming lanes, 0 elsewhere
    verge: float  # where the leftmost lane ends, oncoming ones included
    walk: float  # width of the pavement or hard shoulder
    asphalt: Color
    paving: Color
    ground: Color  # grass, earth, snow
    dash: tuple[float, float, float]  # length, gap, phase of the lane marks
    yellow: bool  # the center line's color
    rail: bool  # a highway's crash barrier


@dataclass(frozen=True)
class Thing:
    """Something that stands on the ground at (x, z): drawn by the function of its `kind`."""

    kind: str
    x: float
    z: float
    width: float
    height: float
    depth: float = 0.0
    color: Color = (128, 128, 128)
    bits: int = 0  # random bits for small decisions: which windows are lit, which shape a sign has

    @property
    def side(self) -> int:
        """-1 left of the camera, +1 right of it."""
        return -1 if self.x < 0 else 1

    def pick(self, count: int, salt: int = 0) -> int:
        """A fixed choice from 0..count-1."""
        return (self.bits >> (salt * 7 % 41)) % 1009 % count


@dataclass(frozen=True)
class Scene:
    """One picture, without a resolution."""

    key: tuple[int, int]  # (seed, index)
    labels: SceneLabels
    light: Light
    road: Road
    things: tuple[Thing, ...]  # far to near
    horizon: float  # height on the picture, 0 at the top
    vanish_x: float
    focal: float  # in picture sides
    eye: float  # camera height, metres
    bend: float  # the road's sideways shift is bend * z**2
    sun: tuple[float, float, float]  # sun or moon: x, y, radius on the picture
    hills: tuple[float, float]  # height and ruggedness
    skyline: float  # height, 0 for none
    puffs: tuple[tuple[float, float, float], ...]  # cumulus clouds: x, y, width on the picture
    wind: float  # slant of the rain
    foliage: Color
    hood: Color | None  # the bonnet of the camera's own car

    def dice(self, purpose: int) -> np.random.Generator:
        """A generator of its own for one dense pattern (stars, flakes, cloud texture)."""
        return np.random.default_rng((*self.key, purpose))


def shades(text: str) -> tuple[Color, ...]:
    """Colors from hexadecimal RGB."""
    return tuple(tuple(bytes.fromhex(word)) for word in text.split())


# Palettes. Skies run from the top over the middle to the horizon; greys are the same under full cloud.
SKIES = {
    "daytime": "3476c4 76b0e6 d4e7f0, 4092bc 8ac8d8 e4f0e6, 5674c2 98b0e0 eae2e6, 2662ac 68a4d8 f2e6ce",
    "dawn/dusk": "323870 ba6c84 ffb670, 485492 e28e7e ffd092, 24305c 7c588a fa8e5c, 5c7aac deacac ffdcac",
    "night": "060a1c 101836 2e3458, 050d1b 0c2034 1e4254, 0c071e 20153a 4c3254",
}
GREYS = ("86919e acb5be ced3d6", "58546c 947c88 d6ac98", "14161e 22222a 3e383a")  # by time of day
AMBIENT = shades("fffcf4 c49896 384060")
AIR = {  # cloud cover, haze per metre, brightness, lamps needed by day
    "clear": (0.10, 1 / 700, 1.00, 0.0), "overcast": (0.85, 1 / 380, 0.86, 0.0),
    "rainy": (0.95, 1 / 150, 0.68, 0.45), "snowy": (0.90, 1 / 130, 0.96, 0.25),
    "foggy": (1.00, 1 / 26, 0.92, 0.45),
}  # fmt: skip
FOLIAGE = shades("4a7c42 608c48 3a6a4e 8c923e cc8e3a ba603c")
GRASS = shades("769854 8aa258 688e5c a8a062 9c8e68")
WALLS = shades("c46c54 debe96 a4acb4 788696 d2a06e 965c50 e4d8c6 6a7a80 b09688")
HOUSES = shades("ece2d0 ced8d6 b2c4ce e8cca0 c48c76 aabaa0")
PAINTS = shades("e8eaec b8bec4 30343c be342e 305ca0 3c685c d6c4a4 eebe3c 68707a 7a2c3a")
ASPHALT, PAVING, SNOW = shades("5c6068 706e6e 4e525c"), shades("aca8a4 beb2a4"), (236, 240, 248)
BODIES = ((1.8, 1.45, 4.3), (1.8, 1.45, 4.3), (1.95, 1.8, 4.6), (2.45, 3.3, 8.5))  # width, height, length
SKYLINES = {"city street": 0.8, "highway": 0.35, "residential": 0.15}  # how often there is one


def labels(index: int, seed: int = 0) -> SceneLabels:
    """Labels of picture `index`: each 45 indices from a multiple of 45 hold every combination once."""
    if index < 0 or seed < 0:
        raise ValueError(f"toy-roads has no picture {index} of seed {seed}: type 0 or more for both.")
    block, place = divmod(index, 45)
    order = np.argsort(np.random.default_rng((seed, block, 45)).random(45), kind="stable")
    rest, scene = divmod(int(order[place]), 3)
    return SceneLabels(WEATHER[rest // 3], TIMES_OF_DAY[rest % 3], SCENES[scene])


def one_of(rng: np.random.Generator, options):
    return options[int(rng.random() * len(options))]


def sample_scene(index: int, seed: int = 0) -> Scene:
    """Everything there is to draw in picture `index`."""
    what, rng = labels(index, seed), np.random.default_rng((seed, index))
    dice, road = rng.uniform, _road(rng, what)
    turn, horizon = dice(-1, 1), dice(0.42, 0.56)
    foliage = mix(one_of(rng, FOLIAGE), (96, 112, 96), dice(0, 0.4))
    low, high = (0.75, 0.95) if what.timeofday == "dawn/dusk" else (0.12, 0.5)
    puffs = [(dice(-0.05, 1.05), dice(0.1, 0.72) * horizon, dice(0.12, 0.34)) for _ in range(5)]
    return Scene(
        key=(seed, index),
        labels=what,
        light=_light(rng, what),
        road=road,
        things=_things(rng, what, road, foliage),
        horizon=horizon,
        vanish_x=0.5 + 0.13 * dice(-1, 1) - 0.06 * turn,
        focal=dice(0.78, 1.0),
        eye=dice(1.45, 2.3),
        bend=turn * abs(turn) * 0.0022,
        sun=(dice(0.08, 0.92), horizon * dice(low, high), dice(0.026, 0.046)),
        hills=(dice(0.02, 0.13), dice(0, 1)),
        skyline=dice(0.06, 0.2) * (rng.random() < SKYLINES[what.scene]),
        puffs=tuple(puffs[: int(dice(1, 6))]),
        wind=dice(-0.35, 0.35),
        foliage=foliage,
        hood=mix(one_of(rng, PAINTS), (40, 40, 46), 0.45) if rng.random() < 0.35 else None,
    )


def _light(rng: np.random.Generator, what: SceneLabels) -> Light:
    hour, (cover, air, bright, dark_day) = TIMES_OF_DAY.index(what.timeofday), AIR[what.weather]
    dim = 0.5 + bright / 2 if what.timeofday == "night" else bright
    clear, gray = shades(one_of(rng, SKIES[what.timeofday].split(","))), shades(GREYS[hour])
    sky = [mix((0, 0, 0), mix(a, b, cover * 0.9), dim) for a, b in zip(clear, gray, strict=True)]
    if what.weather == "foggy":  # fog swallows the sky as well
        sky = [mix(color, sky[2], 0.75) for color in sky]
    ambient = mix((0, 0, 0), AMBIENT[hour], dim)
    ambient = mix(ambient, (sum(ambient) / 3,) * 3, 0.4 * cover)  # clouds scatter: less colored light
    return Light(
        tuple(sky),
        ambient,
        mix(sky[2], sky[1], 0.15),
        air * rng.uniform(0.75, 1.35),
        (dark_day, 0.55, 1.0)[hour],
        cover,
    )


def _road(rng: np.random.Generator, what: SceneLabels) -> Road:
    dice, highway = rng.uniform, what.scene == "highway"
    most = {"city street": 2, "highway": 4, "residential": 1}[what.scene]
    ours, theirs = int(dice(1 + highway, most + 1)), 0 if highway else int(dice(1, most + 1))
    lane, median = dice(3.2, 3.8), dice(3.5, 9) if highway else 0.0
    center = -(int(dice(0, ours)) + 0.5) * lane + dice(-0.4, 0.4)
    left = center - theirs * lane
    asphalt, paving = mix(one_of(rng, ASPHALT), (128, 124, 120), dice(0, 0.4)), one_of(rng, PAVING)
    ground = mix(one_of(rng, GRASS), one_of(rng, GRASS), 0.5)
    ground = mix(paving, (120, 120, 120), 0.3) if what.scene == "city street" else ground
    paving = mix(asphalt, paving, 0.25) if highway else paving
    if what.weather == "rainy":
        asphalt, paving, ground = (mix(c, (40, 48, 60), 0.3) for c in (asphalt, paving, ground))
    if what.weather == "snowy":
        asphalt, paving, ground = mix(asphalt, SNOW, 0.5), mix(paving, SNOW, 0.8), SNOW
    return Road(
        left, center + ours * lane, lane, center, median, left - median - 3 * lane if highway else left,
        dice(2.2, 3.6) if what.scene == "city street" else dice(1.2, 2.2), asphalt, paving, ground,
        (dice(2.5, 4.5), dice(4.0, 7.5), dice(-8, 0)), rng.random() < 0.7, highway and rng.random() < 0.7,
    )  # fmt: skip


def _things(rng: np.random.Generator, what: SceneLabels, road: Road, foliage: Color) -> tuple[Thing, ...]:
    beside = {"city street": _city, "highway": _country, "residential": _suburb}[what.scene]
    things = _traffic(rng, what, road)
    for side, edge in ((-1, road.verge - road.walk), (1, road.right + road.walk)):
        things += beside(rng, side, edge, foliage)
    return tuple(sorted(things, key=lambda t: -t.z - t.depth))


def _row(rng: np.random.Generator, start: float, end: float, low: float, high: float) -> list[float]:
    """Distances ahead from `start` to `end`, `low` to `high` apart."""
    ahead = start - low + rng.uniform(low, high, 30).cumsum()
    return ahead[ahead < end].tolist()


def _one(rng: np.random.Generator, kind: str, *place: float, color: Color = (128, 128, 128)) -> Thing:
    """A thing with random bits; `place` is x, z, width, height, depth."""
    return Thing(kind, *place, color=color, bits=int(rng.random() * 2**52))


def _tree(rng: np.random.Generator, x: float, z: float, foliage: Color, tallest: float) -> Thing:
    height = rng.uniform(0.5, 1) * tallest
    color = mix(foliage, one_of(rng, FOLIAGE[:4]), rng.uniform(0, 0.5))
    return _one(rng, "tree", x, z, height * rng.uniform(0.45, 0.7), height, color=color)


def _city(rng: np.random.Generator, side: int, edge: float, foliage: Color) -> list[Thing]:
    dice, kerb, things, tall = rng.uniform, edge - side * 0.7, [], rng.uniform(9, 24)
    for z in _row(rng, dice(1, 6), 110, 12, 24):
        color, depth = mix(one_of(rng, WALLS), one_of(rng, WALLS), dice(0, 0.4)), dice(11, 18)
        height = tall * dice(0.5, 1.25)
        things.append(_one(rng, "building", edge, z, 14, height, depth, color=color))
    things += [Thing("lamp", kerb, z, 2.2, 7.5) for z in _row(rng, dice(9, 24), 90, 24, 24)]
    things += [_tree(rng, kerb, z, foliage, 7) for z in _row(rng, dice(8, 20), dice(0, 90), 9, 22)]
    things += [_one(rng, "signal", kerb, dice(13, 34), 3.4, 5.6)] * (side > 0 and rng.random() < 0.55)
    return things + [_one(rng, "sign", kerb, dice(8, 28), 0.8, 2.7)] * (rng.random() < 0.5)


def _country(rng: np.random.Generator, side: int, edge: float, foliage: Color) -> list[Thing]:
    dice, wood, gap = rng.uniform, rng.uniform(4, 18), rng.uniform(4, 14)
    rows = _row(rng, dice(8, 25), 120, gap * 0.5, gap * 1.5)
    things = [_tree(rng, edge + side * (wood + dice(0, 9)), z, foliage, 11) for z in rows]
    lamps = _row(rng, dice(12, 30), 110, 30, 30)
    things += [Thing("lamp", edge, z, 3, 10) for z in lamps] * (rng.random() < 0.4)
    things += [_one(rng, "gantry", edge + 0.8, dice(22, 60), 15, 6.2)] * (side > 0 and rng.random() < 0.55)
    return things + [_one(rng, "sign", edge + side * 0.8, dice(9, 30), 1.2, 3)] * (rng.random() < 0.5)


def _suburb(rng: np.random.Generator, side: int, edge: float, foliage: Color) -> list[Thing]:
    dice, lawn, things = rng.uniform, rng.uniform(4, 8), []
    for z in _row(rng, dice(3, 12), 105, 13, 22):
        color = mix(one_of(rng, HOUSES), one_of(rng, WALLS), dice(0, 0.3))
        place = edge + side * (lawn + dice(0, 2)), z, dice(7, 10), one_of(rng, (3.2, 5.6)), dice(8, 12)
        things.append(_one(rng, "house", *place, color=color))
    for z in _row(rng, dice(7, 16), 110, 6, 17):
        things.append(_tree(rng, edge + side * dice(1, lawn + 4), z, foliage, 9))
    things += [Thing("lamp", edge, z, 1.6, 5.2) for z in _row(rng, dice(12, 40), 90, 34, 34)]
    return things + [_one(rng, "sign", edge, dice(8, 24), 0.8, 2.6)] * (rng.random() < 0.4)


def _traffic(rng: np.random.Generator, what: SceneLabels, road: Road) -> list[Thing]:
    """Cars in every lane, `x` in their middle. Kind "rear" goes our way, "front" comes towards us."""
    dice, busy, things = rng.uniform, rng.uniform(14, 60), []
    oncoming = road.left - road.median if road.median else road.center
    lanes = [("rear", road.center + (i + 0.5) * road.lane) for i in range(4)]
    lanes += [("front", oncoming - (i + 0.5) * road.lane) for i in range(3)]
    lanes += [("parked", road.right - 0.8)] * (what.scene == "residential" and rng.random() < 0.7)
    for kind, x in lanes:
        if road.verge < x < road.right:
            start = dice(9, 9 + busy) if abs(x) < 2 else dice(5, 5 + busy)
            for z in _row(rng, start, 85, 11 + busy * 0.3, 11 + busy * 1.5):
                width, height, depth = one_of(rng, BODIES[:3] if kind == "parked" else BODIES)
                color = mix(one_of(rng, PAINTS), (150, 150, 150), dice(0, 0.2))
                things.append(_one(rng, kind, x + dice(-0.3, 0.3), z, width, height, depth, color=color))
    return things
