"""peers.ipynb headless, over small peers: a table, a figure, a slider."""

import json

import nbformat
from peers import save_small_peer
from workbench import tok1d_run

from tok1d.figures.quality import LINEAR
from tok1d.jupyter.report import build_report, executed_notebooks


def test_peers_beside_codecs_and_a_linear_code(tmp_path, photos):
    names = [save_small_peer(tmp_path / name, name) for name in ("one-d-piece-s256", "titok-bl64-onestage")]
    data = photos(6, size=(40, 32))
    done = tok1d_run(
        "peers", tmp_path / "out", peers=",".join(f"peer:{name}" for name in names), eval_data=data,
        fit_data=photos(40, "more", (40, 32)), show_images=2, resamples=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "out" / "peers"
    cells = [c for c in nbformat.read(folder / "peers.ipynb", 4).cells if c.cell_type == "code"]
    shown = [output for cell in cells for output in cell.outputs]
    text = "\n".join(
        str(output.get("data", {}).get("text/markdown", output.get("text", ""))) for output in shown
    )
    for words in (
        "bits / image",
        "WebP, quality",
        LINEAR,
        "308 loaded",
        "219 loaded",
        "64 channels of all 8",
    ):
        assert words in text.replace("&#44;", ","), words
    assert any("tok1d-slider" in output.get("data", {}).get("text/html", "") for output in shown)
    drawn = json.loads((folder / "figures" / "peers.json").read_text(encoding="utf-8"))["drawn"]
    series = {item["series"] for item in drawn}
    assert {"WebP", LINEAR} < series and len([d for d in drawn if d["line"] == "tokens"]) == 5
    assert (folder / "figures" / "peers.pdf").exists()
    page = build_report(executed_notebooks(folder), folder / "report.html").read_text(encoding="utf-8")
    assert 'class="tok1d-slider"' in page and "Peers on the same bench" in page
