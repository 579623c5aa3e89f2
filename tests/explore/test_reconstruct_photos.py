"""`tok1d reconstruct`: any photo becomes PNG files and one HTML file; what cannot be is one sentence."""

import re

import numpy as np
import pytest
from peers import save_small_peer
from PIL import Image
from workbench import REPO

from tok1d.cli import main
from tok1d.config.fields import ConfigError
from tok1d.data.toy_roads.draw import draw_scene
from tok1d.explore.opened import SHIPPED
from tok1d.explore.photo import open_photo
from tok1d.jupyter.photos import reconstruct_photos

RUN = str(REPO / SHIPPED)


@pytest.fixture
def road(tmp_path):
    draw_scene(0, 96).save(tmp_path / "road.jpg", quality=95)
    return tmp_path / "road.jpg"


@pytest.mark.parametrize("size", [0, -64])
def test_a_photo_of_no_size_is_one_sentence(road, size):
    with pytest.raises(ConfigError, match=f"{size} pixels is none: type the tokenizer's image_size"):
        open_photo(road, size)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_png_files_and_one_html_file(road, tmp_path, capsys):
    (tmp_path / "turned").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera on its side
    Image.open(road).transpose(Image.Transpose.ROTATE_90).save(
        tmp_path / "turned/road.jpg", exif=exif, quality=95
    )
    out, words = tmp_path / "out", [str(road), str(tmp_path / "turned/road.jpg"), "--tokens", "8,1"]
    assert main(["reconstruct", RUN, *words, "-o", str(out)]) == 0
    assert f"6 PNG files beside {out / 'slider.html'}" in capsys.readouterr().out
    labels = ("original", "1_tokens", "8_tokens")
    files = {f"{name}_{label}.png" for name in ("road", "road-2") for label in labels}
    assert {path.name for path in out.iterdir()} == files | {"slider.html"}
    assert all(pixels(out / file).shape == (64, 64, 3) for file in files)
    assert abs(pixels(out / "road_original.png") - pixels(out / "road-2_original.png")).mean() < 4
    errors = [
        abs(pixels(out / f"road_{label}.png") - pixels(out / "road_original.png")).mean() for label in labels
    ]
    assert errors[1] > errors[2] > 0

    page = (out / "slider.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<link", page) and page.count("data:image/webp") == 4
    assert re.search(r"8 tokens · 128 bits · PSNR [\d.]+ dB · SSIM [\d.]+ \(linear code [\d.]+ dB", page)

    before = {path: path.read_bytes() for path in out.iterdir()}
    assert main(["reconstruct", RUN, *words, "-o", str(out)]) == 1
    assert "is there already: type -o and another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_real_frames(frames, tmp_path):
    for i, frame in enumerate(frames[:2]):
        frame.save(tmp_path / f"{i}.jpg", quality=95)
    photos = [tmp_path / f"{i}.jpg" for i in range(2)]
    *_, page = reconstruct_photos(RUN, photos, "1,128", tmp_path / "out")
    for i in range(2):
        original = pixels(tmp_path / f"out/{i}_original.png")
        errors = [abs(pixels(tmp_path / f"out/{i}_{k}_tokens.png") - original).mean() for k in (1, 128)]
        assert errors[1] < errors[0] / 2
    assert page.stat().st_size < 100_000


def test_large_gray_and_printed_photos(tmp_path):
    Image.linear_gradient("L").resize((8660, 5774)).save(tmp_path / "large.jpg")  # 50 megapixels
    Image.linear_gradient("L").save(tmp_path / "gray.png")
    Image.merge("CMYK", [Image.linear_gradient("L")] * 4).save(tmp_path / "printed.jpg")
    photos = [str(tmp_path / name) for name in ("large.jpg", "gray.png", "printed.jpg")]
    assert main(["reconstruct", RUN, *photos, "--tokens", "1", "-o", str(tmp_path / "out")]) == 0
    for name in ("large", "gray", "printed"):
        picture = pixels(tmp_path / f"out/{name}_original.png")
        assert picture.std() > 40 and np.ptp(picture, axis=2).max() <= 8  # a gradient without color


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{run}", "{photos}/broken.jpg"], "broken.jpg cannot be shown ("),
        (["{run}", "{photos}/phone.heic"], "pip install pillow-heif"),
        (["{run}", "{photos}/none.jpg"], "none.jpg cannot be shown (no such file or directory)"),
        (
            ["{run}", "{road}", "--tokens", "129"],
            "129 is no count here: type of 1 … 128, such as --tokens 1,2,4",
        ),
        (["{run}", "{road}", "--tokens", "1,,x"], "nothing is no count here"),
        (["{photos}/none", "{road}"], "there is no folder"),
        (["{photos}", "{road}"], "there is no config.json"),
        (["{photos}/training", "{road}"], "training is still training, or was stopped: wait for it"),
        (["{photos}/prior", "{road}"], "prior is a prior, not a tokenizer"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_writes_nothing(words, says, road, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(road.read_bytes()[:300])
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    for run, params in (("training", "image_size: 64\n"), ("prior", "run: x\nprior_tokens: 4\n")):
        (tmp_path / run).mkdir()
        (tmp_path / run / "params.yaml").write_text(params, encoding="utf-8")
    words = [word.format(run=RUN, photos=tmp_path, road=road) for word in words]
    assert main(["reconstruct", *words, "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tok1d: ") and says in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a\udcff.jpg", "a\u202egpj.jpg", "<svg onload=hit()>.jpg"])
def test_a_photo_of_any_name_has_a_page(name, road, tmp_path):
    """Bytes that are no UTF-8, text turned around, HTML."""
    (tmp_path / name).write_bytes(road.read_bytes())
    assert main(["reconstruct", str(RUN), str(tmp_path / name), "-o", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "slider.html").read_text(encoding="utf-8")
    assert "\u202e" not in page and "<svg onload" not in page
    assert any(
        title in page for title in ("<title>a�: ", "<title>a�gpj: ", "<title>&lt;svg onload=hit()&gt;: ")
    )


def test_a_peer_takes_photos_too(road, tmp_path, capsys):
    peer = f"peer:{save_small_peer(tmp_path / 'piece', 'one-d-piece-s256')}"
    assert main(["reconstruct", peer, str(road), "--tokens", "1,8", "-o", str(tmp_path / "out")]) == 0
    assert pixels(tmp_path / "out/road_8_tokens.png").shape == (32, 32, 3)
    assert "8 tokens · 96 bits" in (tmp_path / "out/slider.html").read_text(encoding="utf-8")
    assert main(["reconstruct", peer, str(road), "--tokens", "9"]) == 1
    assert "type of 1 … 8, such as --tokens 1,2,4,8" in capsys.readouterr().err
