"""How soon the explorer answers, in a real JupyterLab in Chromium: needs playwright and a browser.

python -m benchmarks.in_jupyterlab          milliseconds to a new frame and to an edited token's picture, of
                                            the shipped tokenizer (64 px) and of a ViT-S of 256 px, random
python -m benchmarks.in_jupyterlab FOLDER   screenshots instead: the README's, dark, and narrow as a phone
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tok1d.config.schema import TokenizerConfig
from tok1d.data.toy_roads.draw import draw_scene
from tok1d.models.tokenizer import Tokenizer

REPO = Path(__file__).resolve().parents[1]
TIMES = 30
SLIDE = """async () => {
  const range = document.querySelector('.tok1d-explorer input[aria-label="number of tokens"]');
  const took = [];
  for (let i = 0; i < TIMES; i++) {
    const before = range.getAttribute('aria-valuetext'), began = performance.now();
    range.value = (Number(range.value) + 1) % (Number(range.max) + 1);
    range.dispatchEvent(new Event('input', { bubbles: true }));
    await new Promise(requestAnimationFrame);
    if (range.getAttribute('aria-valuetext') === before) throw new Error('no new frame');
    took.push(performance.now() - began);
  }
  return took;
}""".replace("TIMES", str(TIMES))
DARK = "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
EDIT = """async () => {
  const buttons = [...document.querySelectorAll('.tok1d-explorer details button')];
  const drop = buttons.find((button) => button.textContent.startsWith('drop or'));
  const canvas = drop.closest('details').querySelector('.panes canvas');
  const took = [];
  for (let i = 0; i < TIMES; i++) {
    const before = canvas.dataset.answered, began = performance.now();
    drop.click();
    while (canvas.dataset.answered === before) await new Promise(requestAnimationFrame);
    took.push(performance.now() - began);
  }
  return took;
}""".replace("TIMES", str(TIMES))


def main(folder: str = "") -> None:
    sys.path.insert(0, str(REPO / "tests" / "support"))
    from browser import chromium, jupyter_lab, open_in_lab, run_all

    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        large = TokenizerConfig(
            encoder="vit", image_size=256, encoder_size="S", decoder_size="S", num_latent_tokens=64
        )
        Tokenizer(large).save_pretrained(root / "vit-s-256px" / "model")
        models = {
            "shipped, 64 px": REPO / "outputs/published/toy-roads-64px",
            "ViT-S, 256 px": root / "vit-s-256px",
        }
        with jupyter_lab(root) as lab, chromium(1280, 1500) as browser:
            page, faults = browser.page, list[str]()
            page.on("console", lambda said: faults.extend([said.text] * (said.type == "error")))
            page.on("pageerror", lambda error: faults.append(str(error)))
            for i, (name, where) in enumerate(models.items()):
                (root / f"{i}.ipynb").write_text(json.dumps(notebook(where)), encoding="utf-8")
                open_in_lab(page, lab, f"{i}.ipynb")
                run_all(page, 300)
                page.wait_for_selector(".tok1d-explorer .panes canvas >> nth=1")
                if folder:
                    return take(page, Path(folder))
                slide = page.evaluate(SLIDE)
                page.locator(".tok1d-explorer summary").first.click()
                page.wait_for_selector(".tok1d-explorer .small canvas")
                say(name, slide, page.evaluate(EDIT))
            print(f"errors in the console: {len(faults)}", *faults, sep="\n")


def notebook(where: Path) -> dict[str, Any]:
    lines = [
        "from tok1d.config.schema import DataConfig",
        "from tok1d.jupyter.explorer.widget import Explorer",
        f"Explorer(({str(where)!r},), DataConfig(toy_images=20, toy_val_images=20))",
    ]
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "a",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
    }
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {
        "cells": [cell | {"source": "\n".join(lines)}],
        "metadata": kernel,
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def say(name: str, *took: list[float]) -> None:
    slide, edit = (f"{statistics.median(each):.0f} ms (most {max(each):.0f})" for each in took)
    print(f"{name}: slider to frame {slide}, token to picture {edit}, medians of {TIMES}", flush=True)


def take(page: Any, folder: Path) -> None:
    """Screenshots of the widget: the README's three, then in the dark, and as wide as a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    explorer = page.locator(".tok1d-explorer").first
    photo = folder / "my-photo.jpg"
    draw_scene(34, 256).save(photo, quality=95)

    def upload() -> None:
        explorer.locator("input[type=file]").first.set_input_files(photo)
        explorer.locator("figcaption", has_text=photo.name).wait_for()
        explorer.get_by_label("comparison").select_option("wipe")
        photo.unlink()

    def touch() -> None:
        explorer.locator("summary").first.click()
        explorer.locator(".small canvas").first.wait_for()
        explorer.get_by_role("button", name="drop or keep it").click()
        page.wait_for_timeout(3000)

    shots: dict[str, Callable[[], object]] = {
        "all-cells-run": lambda: None,
        "your-photo": upload,
        "a-token-dropped": touch,
        "dark": lambda: page.evaluate(DARK),
        "phone": lambda: explorer.evaluate("element => element.style.width = '380px'"),
    }
    for i, (name, prepare) in enumerate(shots.items(), 1):
        prepare()
        page.wait_for_timeout(1500)
        explorer.screenshot(path=folder / f"{i}-{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
