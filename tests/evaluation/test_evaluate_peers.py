"""`tok1d evaluate peer:PATH`: on the same bench, with the same card, as runs of ours."""

import json

import pytest
from evaluating import finished_run
from peers import save_small_peer

from tok1d.cli import main
from tok1d.evaluation.peers import open_run
from tok1d.evaluation.runs import load_tokenizer
from tok1d.figures.draw import FIGURES, draw_figure
from tok1d.figures.rate_distortion import of_runs
from tok1d.runs import Run, RunError
from tok1d.runs.find import find_runs


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An elastic peer of 32 pixels and 8 tokens, in One-D-Piece's layout."""
    return save_small_peer(tmp_path_factory.mktemp("peers") / "piece", "one-d-piece-s256")


def evaluated(folder, *arguments) -> int:
    return main(["evaluate", *map(str, arguments), "-o", str(folder), "-p", "resamples=100"])


def test_a_peer_and_a_run_on_the_same_images(small, tmp_path, photos, capsys):
    ours = finished_run(tmp_path, "ours", image_size=32, num_latent_tokens=8)
    data = photos(5, size=(50, 40))
    assert evaluated(tmp_path, ours.path, f"peer:{small}", "--data", data) == 0
    said = capsys.readouterr().out
    assert "bits / image" in said and "minus" in said and "do not come back in either range" in said
    peer = open_run(f"peer:{small}", str(tmp_path)).on("")
    rows = peer.evaluation["results"]
    assert [(row["num_tokens"], row["bits"]) for row in rows] == [(k, 12 * k) for k in (1, 2, 4, 8)]
    assert all("psnr_interval" in row and row["decode_images_per_s"] > 0 for row in rows)
    card = peer.evaluation["card"]
    facts = {"bits_per_token": 12, "input_range": "0 … 1", "format": "TiTok, two-stage"}
    assert facts.items() <= card["peer"].items() and "peer" not in ours.on(str(data)).evaluation["card"]
    report = json.loads((peer / "bridge_report.json").read_text(encoding="utf-8"))
    assert report["self_test"]["images"] == 5 and report["sha256"] and len(report["tensors"]) > 300
    assert load_tokenizer(peer).name == f"peer:{small}"

    found = find_runs(tmp_path / "runs", ("ours", f"peer:{small}"), str(data))
    assert [run.kind for run in found] == ["tokenizer", "peer"]
    drawn = of_runs(found)
    labels = {item["series"] for item in drawn if item["line"] == "tokens"}
    assert labels == {"ours", peer.name}
    assert not {"JPEG", "linear code, equal bits"} - {item["series"] for item in drawn}

    for name in FIGURES:  # of a sweep, with a peer among its runs: drawn, or said why not
        draw_figure(name, found, tmp_path / "figures")
    assert {"quality.json", "codes.json", "rate-distortion.json"} <= {
        path.name for path in (tmp_path / "figures").iterdir()
    }

    assert evaluated(tmp_path, f"peer:{small}", "-p", "token_counts=2") == 0  # on the images that it had
    assert open_run(f"peer:{small}", str(tmp_path)).on(str(data)).evaluation["card"]["token_counts"] == [2]


def test_what_a_peer_cannot_do_is_one_sentence(small, tmp_path, photos, capsys):
    for arguments, expected in [
        ([f"peer:{small}"], f"has no validation images of its own: type 'tok1d evaluate peer:{small} --data"),
        ([f"peer:{small}", "--data", photos(2), "-p", "token_counts=9"], "token_counts=9 is no count"),
        (["peer:titok-l23"], "did you mean peer:titok-l32?"),
        ([f"peer:{tmp_path}"], "holds no weights"),
    ]:
        assert evaluated(tmp_path / "out", *arguments) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tok1d: ")]
        assert len(lines) == 1 and expected in lines[0]
    with pytest.raises(RunError, match="was not evaluated: type 'tok1d evaluate peer:titok-l32 --data"):
        find_runs(tmp_path / "runs", ("peer:titok-l32",))


THEIRS = """
class Columns:
    image_size, token_counts, codebook_size, license = 32, (2, 4), 16, "MIT"

    def encode(self, images, num_tokens):
        columns = images.mean((1, 2)).unfold(1, 32 // num_tokens, 32 // num_tokens).mean(2)
        return (columns * 15).round().long()

    def decode(self, ids):
        return (ids / 15).repeat_interleave(32 // ids.shape[1], 1)[:, None, None].expand(-1, 3, 32, -1)
"""


def test_any_package_of_the_users_is_measured_by_a_function(tmp_path, photos, monkeypatch, capsys):
    (tmp_path / "their_package.py").write_text(THEIRS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert evaluated(tmp_path, "peer:their_package:Columns", "--data", photos(3)) == 0
    assert "peer:their_package:Columns, license: MIT" in capsys.readouterr().out
    run = find_runs(tmp_path / "runs", ("peer:their_package:Columns",))[0]
    assert [(row["num_tokens"], row["bits"]) for row in run.evaluation["results"]] == [(2, 8), (4, 16)]
    assert json.loads((run / "bridge_report.json").read_text(encoding="utf-8"))["license"] == "MIT"
    for name, said in (("their_package:Rows", "is no function of"), ("no_such:make", "is no function of")):
        assert evaluated(tmp_path, f"peer:{name}", "--data", photos(3)) == 1
        assert said in capsys.readouterr().err


def test_prefetch_says_what_to_bring(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["prefetch", "peer:one-d-piece-l256"]) == 1
    said = capsys.readouterr().err
    assert "model.safetensors (2.6 GB) of turing-motors/One-D-Piece-L-256 (license: Apache-2.0)" in said


def test_a_peer_in_the_hubs_cache_is_read_with_its_commit(small, tmp_path, monkeypatch, capsys):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--turing-motors--One-D-Piece-S-256"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / commit).symlink_to(small)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["prefetch", "peer:one-d-piece-s256"]) == 0
    assert f"turing-motors/One-D-Piece-S-256@{commit}/model.safetensors" in capsys.readouterr().out
    run = open_run("peer:one-d-piece-s256", str(tmp_path / "out"))
    assert run.name == "one-d-piece-s256" and Run(run.path).kind == "peer"
