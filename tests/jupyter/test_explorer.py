"""The explorer: every answer to its front end, one sentence for whatever cannot be shown, and JupyterLab."""

import asyncio
import io
import json

import numpy as np
import pytest
from browser import accessibility_faults, chromium, differ, jupyter_lab, open_in_lab, pixels, run_all
from peers import save_small_peer
from PIL import Image
from priors import linear_tokenizer
from workbench import REPO

from tok1d.config.schema import DataConfig
from tok1d.explore.optimize import STEPS
from tok1d.jupyter.explorer.models import Model
from tok1d.jupyter.explorer.static import EffectSlider, ModelSlider, Wipe, first_and_last
from tok1d.jupyter.explorer.widget import Explorer
from tok1d.runs import Run, RunError

SHIPPED = str(REPO / "outputs/published/toy-roads-64px")
FEW = DataConfig(toy_images=8, toy_val_images=8)


@pytest.fixture
def explorer(tmp_path):
    """One of the shipped tokenizer."""
    return said_by(Explorer((SHIPPED,), FEW, tmp_path))


def said_by(explorer):
    """The same explorer, which keeps what it sends."""
    explorer.said = []
    explorer.send = lambda message, buffers=(): explorer.said.append((message, list(buffers)))
    return explorer


def ask(explorer, raw: bytes = b"", **message):
    """The last answer to a message of the front end, and the pictures that came with it."""
    explorer._answer(explorer, message, [memoryview(raw)] if raw else [])
    message, buffers = explorer.said[-1]
    return message, [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in buffers]


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def road(width: int = 90, height: int = 60) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], -1)
    return Image.fromarray(pixels.round().astype(np.uint8))


def test_a_picture_comes_with_every_count_and_the_line_to_beat(explorer):
    ask(explorer, do="start")
    message, pictures = explorer.said[-1][0], ask(explorer, do="start")[1]
    row, line = message["rows"]
    assert row["counts"] == [1, 2, 4, 8, 16, 32, 64, 128] == line["counts"] and line["dashed"]
    assert len(pictures) == 17 and all(picture.shape == (64, 64, 3) for picture in pictures)
    assert row["psnr"] == sorted(row["psnr"]) and row["psnr"][-1] > line["psnr"][-1]
    assert len(message["tokens"]["ids"]) == 128 and "not queries" in message["tokens"]["why"]


def test_an_interrupt_of_the_kernel_is_an_answer(explorer, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("tok1d.jupyter.explorer.widget.fewest_tokens", interrupted)
    assert ask(explorer, do="fewest", psnr=24)[0] == {"kind": "error", "text": "stopped: ask again"}


def test_tokens_answer(explorer):
    ids = ask(explorer, do="start")[0]["tokens"]["ids"]
    same, (whole,) = ask(explorer, do="decode", ids=ids)
    assert same["text"] == "no token changed"
    edited, (without,) = ask(explorer, do="decode", ids=[None, *ids[1:]])
    assert edited["text"] == "1 of 128 tokens changed" and differ(whole, without) > 5
    token, pictures = ask(explorer, do="token", k=0)
    assert len(pictures) == 1 + len(token["codes"]) and "without it -" in token["text"]
    assert "there is no second image" in ask(explorer, do="blend", share=0.5)[0]["text"]
    second, _ = ask(explorer, do="open", index=3, second=True)
    _, (other,) = ask(explorer, do="decode", ids=second["ids"])
    _, (blended,) = ask(explorer, do="blend", share=1)
    assert differ(other, blended) < 1 and differ(other, whole) > 5
    assert ask(explorer, do="decode", ids=[None] * 128)[0]["text"].startswith("every token is dropped")


UPLOADS = {
    "fifty megapixels": lambda: saved(road().resize((8700, 5800)), "JPEG"),
    "gray": lambda: saved(road().convert("L")),
    "cmyk": lambda: saved(road().convert("CMYK"), "JPEG"),
    "transparent": lambda: saved(road().convert("RGBA")),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_of_any_kind_is_shown(explorer, name):
    message, pictures = ask(explorer, UPLOADS[name](), do="open", name=f"{name}.img")
    assert message["kind"] == "frames" and message["label"] == f"{name}.img"
    assert pictures[0].shape == (64, 64, 3) and pictures[0].std() > 10


def test_a_portrait_is_upright(explorer):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right
    _, pictures = ask(explorer, saved(road(), "JPEG", exif=exif, quality=95), do="open", name="portrait.jpg")
    _, upright = ask(
        explorer, saved(road().transpose(Image.Transpose.ROTATE_270)), do="open", name="upright.png"
    )
    assert differ(pictures[0], upright[0]) < 3


def test_what_cannot_be_shown_is_one_line_and_the_picture_before_stays(explorer, tmp_path):
    before = ask(explorer, do="start")[1][0]
    (tmp_path / "outputs/runs/young").mkdir(parents=True)
    Run(tmp_path / "outputs/runs/young").write_text("params.yaml", "steps: 5\n")
    whole, heic = saved(road(), "JPEG"), b"\0\0\0\x18ftypheic" + bytes(100)
    wrong = {
        "cut.jpg cannot be shown": dict(do="open", name="cut.jpg", raw=whole[: len(whole) // 2]),
        "notes.txt cannot be shown (not an image)": dict(do="open", name="notes.txt", raw=b"hello"),
        "photo.heic cannot be shown (HEIC needs another library: type pip install pillow-heif)": dict(
            do="open", name="photo.heic", raw=heic
        ),
        "nowhere.png cannot be shown (no such file": dict(do="open", path="nowhere.png"),
        "there is no image 99: type 0 … 7": dict(do="open", index=99),
        "there is no folder nowhere": dict(do="add", where="nowhere"),
        "no model is chosen: keep one": dict(do="models", names=[]),
        "is still training, or was stopped": dict(do="add", where=str(tmp_path / "outputs/runs/young")),
        "pixels: choose models of one size": dict(do="add", where=str(tmp_path / "small")),
    }
    linear_tokenizer(tmp_path / "small")
    for words, asked in wrong.items():
        raw = asked.pop("raw", b"")
        message, _ = ask(explorer, raw, **asked)
        errors = [said["text"] for said, _ in explorer.said if said["kind"] == "error"]
        assert words in errors[-1] and "\n" not in errors[-1], (words, errors[-1], message)
        assert np.array_equal(ask(explorer, do="start")[1][0], before)


def test_the_fewest_tokens_are_those_of_the_slider(explorer):
    rows = ask(explorer, do="start")[0]["rows"]
    message, _ = ask(explorer, do="fewest", psnr=rows[0]["psnr"][4])
    assert 8 < message["count"] <= 16 and message["text"] == f"{message['count']} tokens"
    assert ask(explorer, do="fewest", psnr=59)[0]["text"] == "not even with 128 tokens"


def test_a_hole_is_filled_step_by_step(explorer):
    async def fill(hole: list[int], stop_at: int = 99) -> list[tuple[dict, list[bytes]]]:
        explorer._answer(explorer, {"do": "fill", "hole": hole}, [])
        while not (explorer.filling.done() or len(explorer.said) > stop_at):
            await asyncio.sleep(0.001)
        explorer._answer(explorer, {"do": "stop"}, [])
        await explorer.filling
        return [each for each in explorer.said if each[0]["kind"] == "filled"]

    steps = asyncio.run(fill([25, 25, 50, 50]))
    assert steps[-1][0]["done"] and steps[-1][0]["text"] == f"made in {STEPS} steps"
    known = explorer.image.permute(1, 2, 0).numpy().copy()
    made = np.asarray(Image.open(io.BytesIO(steps[-1][1][0])).convert("RGB")).copy()
    assert differ(known[16:48, 16:48], made[16:48, 16:48]) > 1
    known[16:48, 16:48] = made[16:48, 16:48] = 0
    assert np.array_equal(known, made)
    assert "the hole is empty" in ask(explorer, do="fill", hole=[0, 0, 0, 0])[0]["text"]
    explorer.said.clear()
    stopped = asyncio.run(fill([25, 25, 50, 50], stop_at=4))[-1][0]
    assert stopped["done"] and stopped["text"] in [f"made in {n} steps" for n in range(1, STEPS)]


def test_tokens_approach_a_second_picture(explorer):
    async def approach() -> None:
        explorer._answer(explorer, {"do": "resemble"}, [])
        await explorer.filling

    assert "there is no second image" in ask(explorer, do="resemble")[0]["text"]
    ask(explorer, do="start")
    ask(explorer, do="open", index=2, second=True)
    asyncio.run(approach())
    made = [
        Image.open(io.BytesIO(pictures[0])) for said, pictures in explorer.said if said["kind"] == "filled"
    ]
    aim = explorer.other.image.permute(1, 2, 0).numpy()
    first, *_, last = (differ(aim, np.asarray(each.convert("RGB"))) for each in made)
    assert last < 0.8 * first


def test_lpips_is_measured_where_its_network_is(tmp_path, real_weights):
    vgg = str(real_weights / "vgg16_features_keras.pth")
    model = Model("shipped", [SHIPPED], lpips_checkpoint=vgg)
    row = model.row(Explorer((SHIPPED,), FEW, tmp_path).image)
    distances = row.numbers["vgg_distance"]  # keras' weights are not LPIPS' own
    assert distances[0] > distances[-1] > 0 and len(distances) == len(row.frames)


def test_a_peer_is_under_the_slider_and_its_tokens_are_left_alone(tmp_path):
    folder = save_small_peer(tmp_path / "piece", "one-d-piece-s256", tokens=16)
    peer = Explorer((f"peer:{folder}",), FEW, tmp_path)
    message, pictures = ask(said_by(peer), do="start")
    assert message["rows"][0]["counts"] == [1, 2, 4, 8, 16] and len(pictures) == 6
    assert message["rows"][0]["bits"][-1] == 16 * 12
    assert message["tokens"]["ids"] == [] and "channels of all 16 latent tokens" in message["tokens"]["why"]
    for asked in (
        dict(do="fewest", psnr=20),
        dict(do="fill", hole=[25, 25, 50, 50]),
        dict(do="decode", ids=[1]),
    ):
        assert "cannot be touched here: each of its tokens is made of" in ask(peer, **asked)[0]["text"]
    model = peer.first
    assert "channels of all" in EffectSlider(model, peer.image)._repr_html_()
    assert first_and_last(model, peer.image[None]) is None
    assert "16 tokens" in ModelSlider([model], peer.image[None])._repr_html_()


def test_models_of_one_name_are_told_apart(tmp_path):
    places = [tmp_path / name / "runs" / "mine" for name in ("a", "b")]
    for place in places:
        linear_tokenizer(place)
    explorer = Explorer(tuple(map(str, places)), FEW, tmp_path)
    assert list(explorer.choices) == ["runs/mine", str(places[1])] == explorer.chosen


def test_without_any_model_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"train one with 'tok1d run notebooks/train\.ipynb'"):
        Explorer(outputs=tmp_path / "outputs")


def test_eight_images_of_three_models_are_one_small_page_without_a_kernel(tmp_path):
    paths = [SHIPPED, str(tmp_path / "fixed")]
    linear_tokenizer(tmp_path / "fixed", image_size=64, elastic=False)
    models = [Model("shipped", paths[:1]), Model("fixed", paths[1:]), Model("again", paths[:1])]
    images = Explorer((SHIPPED,), FEW, tmp_path).images.center_crops(range(8))
    parts = [ModelSlider(models, images), Wipe(models[0], images), EffectSlider(models[0], images[0])]
    page = tmp_path / "page.html"
    body = "".join(part._repr_html_() for part in parts)
    page.write_text(
        f'<!doctype html><html lang="en"><title>t</title><main>{body}</main></html>', encoding="utf-8"
    )
    assert page.stat().st_size < 12e6
    with chromium() as browser:
        browser.page.goto(page.as_uri())
        assert accessibility_faults(browser.page) == []
        shown = browser.page.locator(".tok1d-slider figure:visible").first
        before = pixels(shown)
        browser.page.locator(".tok1d-slider input:checked").first.focus()
        browser.page.keyboard.press("ArrowRight")
        assert differ(before, pixels(shown)) > 0.01
        wipe = browser.page.locator(".tok1d-wipe .pairs")
        before = pixels(wipe)
        browser.page.locator(".tok1d-wipe input").check()
        assert differ(before, pixels(wipe)) > 0.5 and not browser.outside


def test_it_answers_in_jupyterlab(tmp_path):
    lines = [
        "from tok1d.config.schema import DataConfig",
        "from tok1d.jupyter.explorer.widget import Explorer",
        f"Explorer(({SHIPPED!r},), DataConfig(toy_images=8, toy_val_images=8))",
    ]
    cell = {"cell_type": "code", "id": "a", "execution_count": None, "metadata": {}, "outputs": []}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [cell | {"source": "\n".join(lines)}], "metadata": kernel}
    (tmp_path / "own.ipynb").write_text(json.dumps(notebook | {"nbformat": 4, "nbformat_minor": 5}))
    road(300, 200).save(tmp_path / "mine.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with jupyter_lab(tmp_path) as lab, chromium(1280, 1500) as browser:
        page, faults = browser.page, []
        page.on("console", lambda said: said.type == "error" and faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        open_in_lab(page, lab, "own.ipynb")
        run_all(page)
        explorer = page.locator(".tok1d-explorer")
        frame = explorer.locator(".panes canvas").nth(1)
        frame.wait_for()
        explorer.get_by_label("number of tokens").focus()
        before = pixels(frame)
        page.keyboard.press("ArrowRight")
        explorer.get_by_text("32 tokens").wait_for()
        assert differ(before, pixels(frame)) > 0.1
        explorer.locator("input[type=file]").first.set_input_files(tmp_path / "broken.png")
        explorer.locator(".error", has_text="broken.png cannot be shown").wait_for()
        explorer.locator("input[type=file]").first.set_input_files(tmp_path / "mine.png")
        explorer.locator("figcaption", has_text="mine.png").wait_for()  # one's own photo, in three actions
        explorer.locator("summary").first.click()
        picture = explorer.locator("details .panes canvas").first
        explorer.get_by_label("token 0, code").click()
        explorer.locator(".says", has_text="token 0: code").wait_for()
        before = pixels(picture)
        explorer.get_by_role("button", name="drop or keep it").click()
        explorer.locator("figcaption", has_text="1 of 128 tokens changed").wait_for()
        assert differ(before, pixels(picture)) > 1
        explorer.locator("summary").nth(1).click()
        explorer.get_by_role("button", name="fill").click()
        explorer.locator("output", has_text=f"made in {STEPS} steps").wait_for()
        assert accessibility_faults(page, ".tok1d-explorer") == []
        peer = save_small_peer(tmp_path / "piece", "one-d-piece-s256")
        explorer.get_by_placeholder("hub id").fill(f"peer:{peer}")
        explorer.get_by_role("button", name="add").click()
        explorer.locator(".error", has_text="choose models of one size").wait_for()
        assert faults == [] and not browser.outside
