"""Toy roads: the built-in data set of drawn dashcam scenes, labelled with weather, time of day and scene.

`draw(index, size, seed)` is pure: the same picture in every process, the same scene at every size.
`scene.py` samples what there is; this file paints sky, ground, road and weather on a canvas larger than
the picture; `things.py` paints what stands between them.
"""

from itertools import pairwise
from math import exp, pi

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from tok1d.data.toy_roads.scene import (
    SNOW,
    Z_FAR,
    mix,
    sample_scene,
    shades,
)
from tok1d.data.toy_roads.things import things

SOFT = 80  # side of the small pictures that hold soft things: sky, ground, glow
WARM, METAL = shades("ffd084 5c626a")


def draw_scene(index: int, size: int = 256, seed: int = 0) -> Image.Image:
    """Picture `index` of the data set with this seed, RGB, `size` x `size`, size 16..1024.

    Raises ValueError for a negative index or seed, or another size.
    """
    if not 16 <= size <= 1024:
        raise ValueError(f"toy-roads cannot draw {size} pixels: type a size from 16 to 1024.")
    shrink = max(2, -(-256 // size))  # draw larger, then average: antialiasing
    canvas = Canvas(sample_scene(index, seed), size * shrink)
    for paint in (sky, far, ground, road, things, wet_road, hood):
        paint(canvas)
    return precipitation(canvas, shine(canvas, canvas.image.reduce(shrink)), shrink)


class Canvas:
    """A picture in progress. Corners are (x, y) metres, right and up, at z metres ahead."""

    def __init__(self, scene, side: int):
        self.scene, self.light, self.side = scene, scene.light, side
        self.weather, self.night = scene.labels.weather, scene.labels.timeofday == "night"
        self.image = Image.new("RGB", (side, side))
        self.wet = Image.new("L", (side, side))  # where the road mirrors
        self.pen, self.wet_pen = ImageDraw.Draw(self.image), ImageDraw.Draw(self.wet)
        self.top = round(scene.horizon * side)
        self.glows = []  # x, y, radius across, radius down (shares of the side), red, green, blue 0..1
        drop = scene.focal * scene.eye
        steps = np.linspace(drop / Z_FAR, 1.02 - scene.horizon, 24)
        self.slices = (drop / steps).tolist()  # distances, far to near, evenly spread on the picture
        self.near = self.slices[-1]

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        """The camera: metres right, up, ahead -> place on the picture, in shares of its side."""
        s = self.scene
        return s.vanish_x + s.focal * (x / z + s.bend * z), s.horizon + s.focal * (s.eye - y) / z

    def tone(self, color, z: float, gain: float = 1.0) -> tuple[int, ...]:
        """A surface color as seen: lit by the hour, faded by z metres of air."""
        fade, (i, j, k), (r, g, b) = exp(-z * self.light.air), self.light.ambient, self.light.haze
        lit, haze = gain * fade / 255, 1 - fade
        x, y, z = color
        return int(x * i * lit + r * haze), int(y * j * lit + g * haze), int(z * k * lit + b * haze)

    def lamp_tone(self, color, z: float) -> tuple[int, ...]:
        """A lamp's color as seen: it needs no light, and reaches further through the air."""
        return tuple(map(int, mix(self.light.haze, color, exp(-z * self.light.air * 0.5))))

    def poly(self, points, color, mirror: int = 0) -> None:
        """A polygon with corners (x, y, z), in a color as seen."""
        pixels = [v * self.side for point in points for v in self.at(*point)]
        self.pen.polygon(pixels, fill=color)
        if self.weather == "rainy":
            self.wet_pen.polygon(pixels, fill=mirror)

    def face(self, z: float, corners, color, gain: float = 1.0) -> None:
        """A polygon that faces the camera."""
        self.poly([(x, y, z) for x, y in corners], self.tone(color, z, gain))

    def box(self, z: float, x0: float, x1: float, y0: float, y1: float, color, gain: float = 1.0) -> None:
        self.face(z, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), color, gain)

    def disc(self, x: float, y: float, z: float, rx: float, ry: float, color) -> None:
        """An ellipse in a color as seen."""
        box = *self.at(x - rx, y + ry, z), *self.at(x + rx, y - ry, z)
        self.pen.ellipse([v * self.side for v in box], fill=color)

    def ribbon(self, a, b, z0: float, z1: float, color, gain: float = 1.0, mirror: int = 0) -> None:
        """The segment from corner a to b swept along the road from z0 to z1: lane marks, walls, roofs."""
        z0, z1 = max(z0, self.near), min(z1, Z_FAR)
        if z0 >= z1:
            return
        cuts = [z1, *(z for z in self.slices if z0 < z < z1), z0]
        for back, front in pairwise(cuts):
            corners = (*a, back), (*b, back), (*b, front), (*a, front)
            self.poly(corners, self.tone(color, (back * front) ** 0.5, gain), mirror)

    def glow(self, x, y, z, radius: float, color, strength: float, stretch: float = 1.0) -> None:
        """Light around a lamp: fog widens it, a wet road repeats it below."""
        (px, py), low = self.at(x, y, z), self.at(x, -y, z)[1]
        r = max(radius * self.scene.focal / z, 0.006) * (1.7 if self.weather == "foggy" else 1)
        shown = [c / 255 * strength * self.light.lamps * exp(-z * self.light.air * 0.5) for c in color]
        self.glows.append((px, py, r, r * stretch, *shown))
        if self.weather == "rainy" and y > 0:
            self.glows.append((px, low, r * 0.7, r * 3, *[c * 0.45 for c in shown]))

    def spot(self, x: float, y: float, r: float, color, squash: float = 1.0, start: int = 0) -> None:
        """An ellipse placed on the picture, or its upper half when start is 180."""
        box = [v * self.side for v in (x - r, y - r * squash, x + r, y + r * squash)]
        self.pen.chord(box, start, 360, fill=tuple(map(int, color)))


def noise(rng: np.random.Generator, *grids: tuple[int, int]) -> np.ndarray:
    """Smooth texture, SOFT x SOFT, about 0..1: random (rows, columns) grids blown up, finer ones fainter."""
    layers = [Image.fromarray(rng.random(grid).astype(np.float32)).resize((SOFT, SOFT), 3) for grid in grids]
    return np.average(
        [np.asarray(layer) for layer in layers], axis=0, weights=[0.5**i for i in range(len(grids))]
    )


def to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def sky(c: Canvas) -> None:
    """Gradient, soft cloud, halo of the sun or moon; on clear days also stars, the disc and cumulus."""
    s, (top, mid, low), rng, v = c.scene, c.light.sky, c.scene.dice(1), (np.arange(SOFT) + 0.5) / SOFT
    rows = np.stack([np.interp(v, (0, 0.55, 1), stops) for stops in zip(top, mid, low, strict=True)], axis=-1)
    cover = np.clip((noise(rng, (5, 2), (11, 4), (24, 9)) - 0.62 + 0.3 * c.light.cover) * 5, 0, 1)
    cover *= (0.25 if c.weather == "foggy" else 0.75) * np.clip(v, 0.2, 1)[:, None] ** 0.3
    lit = mix(low, (255, 255, 255), 0 if c.night else 0.35 * (1 - c.light.cover))
    bright = noise(rng, (7, 3), (16, 7))[..., None] if c.light.cover > 0.5 else 1.0
    cloud = np.array(lit) * bright + np.array(top) * 0.88 * (1 - bright)
    pixels = rows[:, None] + (cloud - rows[:, None]) * cover[..., None]  # SOFT SOFT 3
    if c.weather == "clear":
        away = ((v - s.sun[0]) ** 2 + ((v * s.horizon - s.sun[1]) ** 2)[:, None])[..., None]
        halo = (0.55 * np.exp(-away / 0.02) + 0.25 * np.exp(-away / 0.12)) * (0.35 if c.night else 1.0)
        pixels += halo * (np.array(mix(low, (255, 250, 230), 0.5)) - pixels)
    c.image.paste(to_image(pixels).resize((c.side, c.top), 2))
    if c.weather != "clear":
        return
    for x, y, big in rng.random((60 * c.night, 3)).tolist():
        c.spot(x, y * s.horizon, 0.0014 + 0.0022 * big**4, mix(mid, (255, 250, 235), 0.4 + 0.6 * big))
    c.spot(*s.sun, (240, 238, 220) if c.night else mix(low, (255, 252, 232), 0.8))
    for x, y, width in s.puffs if not c.night else ():  # lobes in shade, then in light a little higher
        lobes = [(t / 5, (0.23 - 0.028 * t * t) * rng.uniform(0.7, 1.3)) for t in (-2, -1, 0, 1, 2)]
        shade, sunlit = mix(low, mid, 0.35), mix(low, (255, 255, 255), 0.6)
        for color, lift, scale in ((shade, 0, 1.0), (sunlit, 0.04, 0.86)):
            for t, r in lobes:
                c.spot(x + t * width, y - lift * width, max(r, 0.07) * width * scale, color, 0.9, 180)


def far(c: Canvas) -> None:
    """Two ranges of hills and, before them, a skyline; all end at the horizon."""
    s, rng, xs = c.scene, c.scene.dice(2), np.linspace(0, 1, 49)
    green = mix(s.road.ground if s.labels.scene != "city street" else s.foliage, s.foliage, 0.6)
    stone = SNOW if c.weather == "snowy" else mix(green, (84, 100, 132), 0.5)
    waves = np.array([1, 2, 3, 5, 9, 14])[:, None]
    for z, share, color in ((560, 1.0, stone), (260, 0.5, green)):
        size, phase = rng.random((2, 6, 1))
        ridge = (size / (1 + waves * (1 - 0.7 * s.hills[1])) * np.sin(5 * waves * xs + 2 * pi * phase)).sum(0)
        ridge = s.horizon - s.hills[0] * share * (0.35 + 0.65 * (ridge - ridge.min()) / np.ptp(ridge))
        outline = np.stack([xs, ridge], axis=1).ravel().tolist()
        outline += 1, s.horizon + 0.02, 0, s.horizon + 0.02
        c.pen.polygon([v * c.side for v in outline], fill=c.tone(color, z))
    x = -0.05
    while x < 1 and s.skyline:
        width, rise, tint, step = rng.random(4).tolist()
        width = 0.02 + 0.045 * width
        tall = s.skyline * (0.25 + 0.75 * rise**2) * (0.6 + 0.8 * np.exp(-(((x - s.vanish_x) / 0.3) ** 2)))
        rect = (x, s.horizon - tall, x + width, s.horizon + 0.01)
        stone = mix((120, 128, 146), (178, 160, 148), tint)
        c.pen.rectangle([v * c.side for v in rect], fill=c.tone(stone, 230))
        for across, up, on in rng.random((10 if c.light.lamps > 0.5 else 0, 3)).tolist():
            px, py = x + width * (0.1 + 0.65 * across), s.horizon - tall * (0.1 + 0.85 * up)
            lit = c.lamp_tone(mix((90, 90, 100), WARM, on * c.light.lamps), 200)
            c.pen.rectangle([v * c.side for v in (px, py, px + 0.004, py + 0.005)], fill=lit)
        x += width * (0.8 + 0.6 * step)


def ground(c: Canvas) -> None:
    """Grass, earth or snow from the horizon down, with a texture that lies flat."""
    s, grid = c.scene, (np.arange(SOFT) + 0.5) / SOFT
    z = s.focal * s.eye / (grid * (1 - s.horizon))[:, None]  # SOFT 1
    x = (grid - s.vanish_x) * z / s.focal  # SOFT SOFT
    texture = noise(s.dice(3), (24, 24), (48, 48)) - 0.5
    patch = texture[(z * 2.5).astype(int) % SOFT, (x * 4).astype(int) % SOFT] * np.exp(-z / 40)
    fade = np.exp(-z * c.light.air)[..., None]
    surface = np.array(s.road.ground) * c.light.ambient / 255 * (1 + 0.28 * patch[..., None])
    pixels = surface * fade + np.array(c.light.haze) * (1 - fade)
    c.image.paste(to_image(pixels).resize((c.side, c.side - c.top), 2), (0, c.top))


def road(c: Canvas) -> None:
    """Pavement, asphalt, wheel tracks, lane marks, kerbs: everything that runs along the road."""
    r, snowy, city = c.scene.road, c.weather == "snowy", c.scene.labels.scene == "city street"

    def strip(x0: float, x1: float, color, mirror: int = 0, z0: float = 0, z1: float = Z_FAR) -> None:
        c.ribbon((x0, 0), (x1, 0), z0, z1, color, 1.0, mirror)

    strip(r.verge - r.walk, r.right + r.walk, r.paving)
    if r.median:
        strip(r.left - r.median + 1, r.left - 1, r.ground)
        strip(r.verge, r.left - r.median, r.asphalt, 255)
    strip(r.left, r.right, r.asphalt, 255)
    worn, hidden = mix(r.asphalt, (60, 64, 72), 0.45 if snowy else 0.12), 0.65 if snowy else 0.05
    white, yellow = mix((240, 240, 236), r.asphalt, hidden), mix((244, 190, 60), r.asphalt, hidden)
    for i in range(lanes := round((r.right - r.left) / r.lane)):
        x = r.left + i * r.lane
        for track in (x + r.lane / 2 - 0.8, x + r.lane / 2 + 0.8):
            strip(track - 0.3, track + 0.3, worn, 255)
        if i and city and abs(x - r.center) < 0.1:
            strip(x - 0.26, x - 0.1, yellow if r.yellow else white)
            strip(x + 0.1, x + 0.26, yellow if r.yellow else white)
        elif i:
            for z in np.arange(r.dash[2], 75, r.dash[0] + r.dash[1]).tolist():
                strip(x - 0.09, x + 0.09, white, 0, z, z + r.dash[0])
    for edge, beyond in ((r.left, r.left - r.median / 2), (r.right, r.right + r.walk)):
        if lanes > 2 or city or r.median:
            inner = edge + (0.25 if edge < 0 else -0.25)
            strip(inner - 0.09, inner + 0.09, yellow if r.median and edge < 0 else white)
        if not r.median:
            c.ribbon((edge, 0), (edge, 0.14), 0, Z_FAR, r.paving, 0.78)
        elif r.rail:
            for z in range(80, 3, -4):
                c.box(z, beyond - 0.07, beyond + 0.07, 0, 0.5, METAL)
            c.ribbon((beyond, 0.45), (beyond, 0.8), 0, Z_FAR, (186, 192, 198))


def wet_road(c: Canvas) -> None:
    """In rain the road mirrors what stands beyond it, smeared downwards."""
    if c.weather != "rainy":
        return
    above = c.image.crop((0, 0, c.side, c.top)).resize((SOFT, 20), Image.Resampling.BOX)
    mirror = above.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((c.side, c.side - c.top), 2)
    ramp = np.interp(np.linspace(0, 1, SOFT), (0, 0.08, 0.4, 1), (30, 120, 150, 90))
    strength = to_image(np.repeat(ramp[:, None], 2, axis=1)).resize(mirror.size, 2)
    c.image.paste(mirror, (0, c.top), ImageChops.multiply(c.wet.crop((0, c.top, c.side, c.side)), strength))


def hood(c: Canvas) -> None:
    """Our own headlights, and the bonnet of our own car."""
    s = c.scene
    if s.labels.timeofday != "daytime":
        power = [v / 255 * 0.2 * c.light.lamps**2 for v in WARM]
        c.glows += [(s.vanish_x + x, s.horizon + 0.4, 0.24, 0.2, *power) for x in (-0.14, 0.14)]
    if s.hood:
        c.spot(0.5, 1.12, 0.65, c.tone(s.hood, 0, 0.85), 0.29)
        c.spot(0.5, 1.134, 0.65, c.tone(s.hood, 0), 0.29)


def shine(c: Canvas, picture: Image.Image) -> Image.Image:
    """Add the lamps: they light what is around them, then glow over it."""
    if not c.light.lamps or not c.glows:
        return picture
    grid, light = (np.arange(SOFT, dtype=np.float32) + 0.5) / SOFT, np.zeros((SOFT, SOFT, 3), np.float32)
    for x, y, rx, ry, *rgb in c.glows:
        (i, j), (k, m) = [np.searchsorted(grid, (v - 2.5 * r, v + 2.5 * r)) for v, r in ((y, ry), (x, rx))]
        across, down = np.exp(-(((grid[k:m] - x) / rx) ** 2)), np.exp(-(((grid[i:j] - y) / ry) ** 2))
        light[i:j, k:m] += down[:, None, None] * (across[:, None] * np.array(rgb, np.float32))
    light = np.asarray(to_image(255 * (1 - np.exp(-light))).resize(picture.size, 2), np.float32) / 255
    pixels = np.minimum(np.asarray(picture, np.float32) * (1 + 1.1 * light), 255)
    return to_image(255 - (255 - pixels) * (1 - light))


def precipitation(c: Canvas, picture: Image.Image, shrink: int) -> Image.Image:
    """Streaks of rain or flakes of snow, near ones larger."""
    if c.weather not in ("rainy", "snowy"):
        return picture
    rainy, mask = c.weather == "rainy", Image.new("L", (c.side, c.side))
    pen = ImageDraw.Draw(mask)
    for x, y, near in c.scene.dice(4).random((110 if rainy else 190, 3)).tolist():
        x, y = 1.2 * x - 0.1, 1.1 * y - 0.1
        if rainy:
            long, wide = 0.03 + 0.07 * near, 0.0012 + 0.0022 * near
            tip = x + long * c.scene.wind
            streak = (x, y, x + wide, y, tip + wide, y + long, tip, y + long)
            pen.polygon([v * c.side for v in streak], fill=int(50 + 60 * near))
        else:
            r = 0.0022 + 0.0075 * near**3
            pen.ellipse([v * c.side for v in (x - r, y - r, x + r, y + r)], fill=int(230 - 70 * near))
    tint = mix((255, 255, 255), c.light.sky[2], 0.35 if rainy else 0.05)
    tint = mix(tint, c.light.ambient, 0.5) if c.night else tint
    picture.paste(tuple(map(int, tint)), (0, 0), mask.reduce(shrink))
    return picture
