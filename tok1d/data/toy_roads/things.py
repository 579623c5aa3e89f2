"""What stands beside or on a toy road: houses, trees, lamps, signs, cars; each function draws one.

All take the canvas `c` of `draw.py` and a `Thing` t of `scene.py`; lengths are metres.
"""

from math import cos, pi, sin

from tok1d.data.toy_roads.scene import SNOW, mix, shades

WARM, COOL, RED, AMBER, GREEN, GLASS, METAL, DARK = shades(
    "ffd084 d8e4ff ff2c1e ffc43c 46e682 465c74 5c626a 202226"
)
SHOPS = shades("bc4034 366e62 e2a840 3e588a e8e2d2")
TILES = shades("965442 605c64 7a6250 54646e")
SIGNS = (4, 0, "f0be32 face50"), (3, pi, "ce2c2c f4f0e8"), (16, 0, "cc2c2c f4f2ee"), (16, 0, "2c60b0 3a74c4")


def things(c) -> None:
    """Everything that stands, far to near."""
    houses = {"building": building, "house": house}
    others = {"tree": tree, "lamp": lamp, "sign": sign, "signal": signal, "gantry": gantry}
    for t in c.scene.things:
        if t.kind in houses and t.z + t.depth > c.near:
            houses[t.kind](c, t)
        elif t.z > c.near + 0.5:
            others.get(t.kind, car)(c, t)


def window(c, t, i: int, a, b, z0: float, z1: float | None = None) -> None:
    """Window i of a house, corners a to b: facing the camera at z0, or the road from z0 to z1."""
    if (z := max(z0, c.near)) >= (z1 or z0 + 0.01):
        return
    if c.light.lamps > 0.4 and (t.bits >> (i * 11 % 47)) % 16 < 8 * c.light.lamps:
        color = c.lamp_tone(mix(WARM, COOL, 0.5 * (i % 3 == 0)), z)
    else:
        color = c.tone(mix(GLASS, c.light.sky[1], 0.35), z)
    c.poly([(*a, z), (b[0], a[1], z1 or z), (*b, z1 or z), (a[0], b[1], z)], color)


def walls(c, t, color=None, low: float = 0, out: float = 0) -> None:
    """The wall that faces the road and the one that faces the camera; the one away from the sun is darker."""
    front, flank = (0.8, 1.0) if (c.scene.sun[0] - 0.5) * t.side < 0 else (0.98, 0.8)
    x, back, top = t.x - t.side * out, t.x + t.side * t.width, t.height + out
    c.ribbon((x, low), (x, top), t.z, t.z + t.depth, color or t.color, flank)
    if t.z > c.near:
        c.box(t.z, x, back, low, top, color or t.color, front)


def building(c, t) -> None:
    """A town house: storeys of windows above shops with awnings."""
    storey, bay, end = 3.2 + t.pick(3) * 0.3, 2.6 + t.pick(3, 1) * 0.7, t.z + t.depth
    walls(c, t)
    walls(c, t, SNOW if c.weather == "snowy" else mix(t.color, METAL, 0.4), t.height - 0.4, 0.25)
    if t.z > 60:
        return
    for i in range(int((t.height - 0.6) / storey)):
        low, high = (i * storey + 0.8, i * storey + 0.8 + storey * 0.52) if i else (0.4, 2.5)
        for j in range(int(t.depth / bay)):
            z = t.z + (j + 0.25) * bay
            window(c, t, i * 5 + j * 3, (t.x, low), (t.x, high), z, z + bay * (0.5 if i else 0.8))
        for j in range(3 if i and t.z < 30 else 0):
            x = t.x + t.side * (j + 0.3) * bay
            window(c, t, i * 7 + j, (x, low), (x + t.side * bay * 0.45, high), t.z)
    awning = mix(SHOPS[t.pick(5, 2)], t.color, 0.2)
    c.ribbon((t.x, 3.3), (t.x - t.side * 0.9, 2.7), t.z + 0.5, end - 0.5, awning)


def house(c, t) -> None:
    """A home with a gable roof, a door and perhaps a chimney."""
    middle, back, end = t.x + t.side * t.width / 2, t.x + t.side * t.width, t.z + t.depth
    ridge = t.height + t.width * (0.28 + 0.08 * t.pick(3, 3))
    walls(c, t)
    gable = ((t.x, t.height), (middle, ridge), (back, t.height))
    c.face(max(t.z, c.near), gable, t.color, 0.8 if (c.scene.sun[0] - 0.5) * t.side < 0 else 0.98)
    tiles = SNOW if c.weather == "snowy" else TILES[t.pick(4, 1)]
    c.ribbon((t.x - t.side * 0.5, t.height - 0.2), (middle, ridge + 0.15), t.z - 0.4, end, tiles, 0.9)
    if t.z > 60:
        return
    if t.pick(2):
        c.box(t.z + 3, middle - 0.4, middle + 0.4, ridge, ridge + 1.1, TILES[0])
    for i in range(4 if t.height > 4 else 2):
        y, j = 0.9 + i // 2 * 2.6, i % 2
        z, x = t.z + 1.2 + j * t.depth * 0.52, t.x + t.side * t.width * (0.18 + 0.42 * j)
        window(c, t, i, (t.x, y), (t.x, y + 1.4), z, z + 2)
        window(c, t, i + 5, (x, y), (x + t.side * 1.6, y + 1.4), t.z)
    c.ribbon((t.x, 0), (t.x, 2.1), t.z + t.depth * 0.42, t.z + t.depth * 0.42 + 1.1, SHOPS[t.pick(5, 2)], 0.8)


def tree(c, t) -> None:
    """A conical, tall, or round tree, lit from the sun's side; snow lies on top of it."""
    kind, lean, w, h = t.pick(4), 1 if c.scene.sun[0] > 0.5 else -1, t.width, t.height
    leaves = t.color if kind else mix(t.color, (52, 96, 72), 0.75)  # conifers know no autumn
    dark, light = c.tone(leaves, t.z, 0.78), c.tone(leaves, t.z, 1.12)
    if snowy := c.weather == "snowy":
        dark, light = c.tone(SNOW, t.z), c.tone(leaves, t.z, 0.85)
    if c.weather in ("clear", "overcast", "snowy"):
        c.disc(t.x - lean * w * 0.2, 0, t.z, w * 0.55, w * 0.07, c.tone(c.scene.road.ground, t.z, 0.72))
    c.box(t.z, t.x - 0.16, t.x + 0.16, 0, h * 0.5, (98, 78, 64), 0.9)
    if kind == 0:
        for low, high, r in ((0.12, 0.55, 0.5 * w), (0.34, 0.78, 0.4 * w), (0.56, 1.0, 0.28 * w)):
            tip, mid = (t.x, h * high, t.z), (t.x + lean * r * 0.1, h * (low + 0.06), t.z)
            c.poly([(t.x - r, h * low, t.z), mid, (t.x + r, h * low, t.z), tip], dark)
            c.poly([(t.x + lean * r, h * low, t.z), mid, tip], light)
        return
    lobes = (
        ((0, 0.6, 0.3, 0.38),)
        if kind == 1
        else ((-0.28, 0.5, 0.26, 0.2), (0.28, 0.52, 0.25, 0.2), (0, 0.7, 0.34, 0.3))
    )
    shift, lift, scale = (0, -0.07, 0.94) if snowy else (lean * 0.08, 0.05, 0.74)
    for color, dx, dy, grow in ((dark, 0, 0, 1), (light, shift, lift, scale)):
        for x, y, rx, ry in lobes:
            c.disc(t.x + (x + dx) * w, (y + dy) * h, t.z, rx * grow * w, ry * grow * h, color)


def lamp(c, t) -> None:
    """A lamp post whose arm reaches over the road."""
    h, tip, on = t.height, t.x - t.side * t.width, c.light.lamps > 0.5
    c.box(t.z, t.x - 0.07, t.x + 0.07, 0, h, METAL)
    c.face(t.z, ((t.x, h), (tip, h + 0.35), (tip, h + 0.2), (t.x, h - 0.2)), METAL)
    head = [(tip + dx, h + dy, t.z) for dx, dy in ((-0.4, 0.1), (0.4, 0.1), (0.3, 0.35), (-0.3, 0.35))]
    c.poly(head, c.lamp_tone((255, 236, 190), t.z) if on else c.tone((110, 116, 124), t.z))
    if on:
        for y, radius, strength, stretch in ((h, 1.3, 0.8, 1), (h * 0.6, 3.5, 0.12, 1), (0, 4.5, 0.25, 0.3)):
            c.glow(tip, y, t.z, radius, WARM, strength, stretch)


def sign(c, t) -> None:
    """A road sign: warning diamond, give way, speed limit, or a blue disc."""
    corners, turn, colors = SIGNS[t.pick(4)]
    c.box(t.z, t.x - 0.05, t.x + 0.05, 0, t.height, METAL)
    ring = [(sin(turn + 2 * pi * k / corners), cos(turn + 2 * pi * k / corners)) for k in range(corners)]
    for color, r in zip(shades(colors), (0.6 * t.width, 0.42 * t.width), strict=True):
        c.face(t.z, [(t.x + r * p, t.height + r * q) for p, q in ring], color)


def signal(c, t) -> None:
    """Traffic lights on an arm."""
    tip, y = t.x - t.width, t.height - 0.6
    c.box(t.z, t.x - 0.1, t.x + 0.1, 0, t.height, METAL)
    c.box(t.z, tip, t.x, t.height - 0.15, t.height, METAL)
    c.box(t.z, tip - 0.28, tip + 0.28, y - 0.9, y + 0.7, DARK)
    for i, color in enumerate((RED, AMBER, GREEN)):
        on = i == t.pick(3)
        c.disc(
            tip,
            y + 0.42 - i * 0.5,
            t.z,
            0.2,
            0.2,
            c.lamp_tone(color, t.z) if on else c.tone(METAL, t.z),
        )
        if on:
            c.glow(tip, y + 0.42 - i * 0.5, t.z, 0.7, color, 0.7)


def gantry(c, t) -> None:
    """One or two green boards above a highway."""
    left, top, boards = c.scene.road.left - 1, t.height, 1 + t.pick(2)
    span = t.x - left
    for x0, x1, low in ((left, left + 0.3, 0), (t.x - 0.3, t.x, 0), (left, t.x, top + 0.5)):
        c.box(t.z, x0, x1, low, top + 0.8, METAL)
    for x in (left + span * (i + 0.5) / boards for i in range(boards)):
        w = span * 0.2
        c.box(t.z, x - w, x + w, top - 0.4, top + 1.7, (238, 240, 236))
        c.box(t.z, x - w + 0.12, x + w - 0.12, top - 0.28, top + 1.58, (34, 112, 84))
        for row in range(2):
            end = x + w * (0.1 + 0.3 * t.pick(3, row + int(x) % 4))
            c.box(t.z, x - w * 0.75, end, top + 0.1 + row * 0.7, top + 0.4 + row * 0.7, (232, 238, 232))


def car(c, t) -> None:
    """A car or truck: shadow, flank, wheels, then the end towards us with its lamps."""
    w, h, z, truck, coming = t.width / 2, t.height, t.z, t.height > 3, t.kind == "front"
    waist, hip, flank, end = 0.55 if truck else 0.58, 0.96 if truck else 0.72, t.x - w * t.side, z + t.depth
    body, glass = mix(t.color, (30, 32, 38), 0.35), mix((40, 50, 64), c.light.sky[1], 0.2)
    c.disc(t.x, 0.02, z, w * 1.12, 0.16, c.tone(c.scene.road.asphalt, z, 0.45))
    c.ribbon((flank, 0.0), (flank, 0.3), z, end, DARK)
    c.ribbon((flank, 0.2), (flank, h * (0.97 if truck else waist)), z, end, body)
    if not truck:
        roof, sill = (t.x - w * hip * t.side, h * 0.97), (flank, h * waist)
        c.ribbon(sill, roof, z + 0.2, end - 1.2, body)
        c.ribbon(
            mix((*sill, 0), (*roof, 0), 0.15)[:2],
            mix((*sill, 0), (*roof, 0), 0.8)[:2],
            z + 0.4,
            end - 1.5,
            glass,
        )

    def panel(color, *corners) -> None:
        c.face(z, [(t.x + u * w, v * h) for u, v in corners], color)

    def band(color, low: float, high: float, wide: float, narrow: float) -> None:
        panel(color, (-wide, low), (-narrow, high), (narrow, high), (wide, low))

    for u in (-0.8, 0.8):
        c.box(z, t.x + (u - 0.16) * w, t.x + (u + 0.16) * w, 0, 0.4, DARK)
    band(t.color, 0.14, waist, 1, 0.97)
    band(t.color, waist, 1, 0.96, hip)
    if coming or not truck:
        band(glass, waist + 0.03, 0.92, 0.82, hip - 0.06)
    else:
        panel(body, (-0.02, 0.2), (-0.02, 0.95), (0.02, 0.95), (0.02, 0.2))
    if c.weather == "snowy" and t.pick(2):
        band(SNOW, 0.97, 1.05, hip, hip - 0.12)
    band(body, 0.14, 0.26, 0.98, 0.98)
    c.box(z, t.x - 0.26, t.x + 0.26, h * 0.28, h * 0.28 + 0.14, (226, 226, 214))
    on, bright = c.light.lamps > 0.3 and t.kind != "parked", coming or t.pick(3) == 0
    color, y = shades("fff4d6")[0] if coming else RED, 0.8 if truck else h * (waist - 0.17)
    for x in (t.x - 0.8 * w, t.x + 0.8 * w):
        c.box(z, x - 0.17, x + 0.17, y - 0.09, y + 0.09, mix(color, METAL, 0.3))
        if on:
            lens = ((x - 0.17, y - 0.09), (x + 0.17, y - 0.09), (x + 0.17, y + 0.09), (x - 0.17, y + 0.09))
            c.poly([(*corner, z) for corner in lens], c.lamp_tone(color, z))
            c.glow(x, y, z, 0.45, color, 1.0 if bright else 0.6)
    if on:
        c.glow(t.x, y, z, 1.9, color, 0.32 if bright else 0.16, 0.7)
        c.glow(t.x, 0, z - 1.5, 1.9, color, 0.25 if bright else 0.1, 0.3)
