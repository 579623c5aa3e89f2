"""A small evaluated sweep, whose figures are drawn."""

import json

import pytest
from evaluating import FAST, finished_run

from tok1d.evaluation.evaluate import reconstruct
from tok1d.evaluation.runs import evaluate_run, evaluation_images, load_tokenizer
from tok1d.figures.draw import draw_figure, named
from tok1d.figures.images import save_images
from tok1d.runs.find import find_runs

KINDS = {
    "a": dict(random_like="dinov2", num_latent_tokens=2, elastic=False),
    "b": dict(random_like="dinov2", num_latent_tokens=4, elastic=False),
    "c": dict(random_like="clip", num_latent_tokens=4, elastic=False),
    "e": dict(random_like="clip", num_latent_tokens=4),
}


@pytest.fixture(scope="session")
def figure_sweep(tmp_path_factory):
    """Runs of two initializations, two token counts and two seeds, and elastic ones, with all their files."""
    folder = tmp_path_factory.mktemp("figures")
    for kind, params in KINDS.items():
        for seed in (0, 1):
            run = finished_run(folder, f"{kind}{seed}", seed, **params | {"image_size": 32})
            run.write_json("params.yaml", run.params | {"seed": seed})
            evaluate_run(run, FAST)
            tokenizer, images = load_tokenizer(run), evaluation_images(run, "", 32)
            shown = images.center_crops([0, 5, 9])
            save_images(run / "recon", shown, reconstruct(tokenizer, shown, tokenizer.config.token_counts))
            run.write_json("manifest.json", {"data": {"train": "toy"}})
            for step in range(2, 21, 2):
                most = params["num_latent_tokens"]
                run.log("metrics.jsonl", {"step": step, "num_tokens": most, "psnr": 10 + step / 10 + seed})
                run.log("timings.jsonl", {"step": step, "images_per_second": 5.0})
    return folder / "runs"


def drawn(folder, name: str, **options) -> dict:
    draw_figure(name, find_runs(folder), folder / "figures", **{"metric": "psnr", "num_tokens": 0} | options)
    return json.loads((folder / "figures" / f"{named(name, options)}.json").read_text())
