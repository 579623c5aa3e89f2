"""What the work that this project starts from published: rFID on its clear daytime frames of BDD100K.

By initialisation (as `tok1d.series` calls it) and token count. 64 tokens are from its table; other counts of
MAE are read off its figure, where the table and the figure disagree elsewhere. How they were measured is not
on record (JPEG files of some hundred images, in part): they are drawn hollow, beside numbers with a card.
"""

SEED_RFID: dict[str, dict[int, float]] = {
    "MAE": {16: 88, 32: 63, 64: 41.44, 128: 33, 256: 28},
    "CLIP": {64: 42.90},
    "DINO": {64: 38.42},
    "DINOv2": {64: 38.94},
    "Depth Anything v2": {64: 39.60},
    "random": {64: 111.89},
    "mae-big-data": {64: 33.19},
}
