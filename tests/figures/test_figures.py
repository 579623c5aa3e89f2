"""The figures of a sweep: each number drawn is that of the run folders, and says how it was measured."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from figure_runs import drawn
from PIL import Image

from tok1d.evaluation.card import card_id, code_ceiling, protocol
from tok1d.figures.draw import FIGURES, draw_figure, redraw
from tok1d.figures.images import save_images
from tok1d.figures.quality import PUBLISHED, at_counts
from tok1d.figures.style import spread
from tok1d.runs import RunError
from tok1d.runs.find import find_runs

OF_TOKENIZERS = FIGURES.keys() - {"guidance"}  # of priors: tests/generation/test_priors.py


@pytest.fixture
def folder(figure_sweep, tmp_path):
    """A copy of the runs, to be altered."""
    shutil.copytree(figure_sweep, tmp_path / "sweep")
    return tmp_path / "sweep"


def pixels(folder, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "figures" / f"{name}.png").convert("RGB"))


@pytest.mark.parametrize("name", sorted(OF_TOKENIZERS))
def test_every_number_names_its_run_and_its_card(folder, name):
    kept = drawn(folder, name)
    ((card, facts),) = kept["cards"].items()
    assert card == card_id(facts) and kept["caption"].endswith(".") and "{" not in kept["caption"]
    paths = {str(run.path) for run in find_runs(folder)}
    for item in kept["drawn"]:
        assert item["card"] == card
        assert item["run"] in paths if name != "rate-distortion" else item.get("run", "") in paths | {""}
    for kind in ("png", "pdf"):
        assert (folder / "figures" / f"{name}.{kind}").stat().st_size > 5000


def test_quality_is_of_the_run_folders_and_in_lines(folder):
    kept = drawn(folder, "quality", metric="ssim")
    for item in kept["drawn"]:
        rows = find_runs(folder, (item["run"],))[0].evaluation["results"]
        row = next(row for row in rows if row["num_tokens"] == item["num_tokens"])
        assert (item["ssim"], item["ssim_interval"]) == (row["ssim"], row["ssim_interval"])
    lines = {item["series"]: set() for item in kept["drawn"]}
    for item in kept["drawn"]:
        lines[item["series"]].add(item["num_tokens"])
    like = "random, like "
    assert lines == {f"{like}DINOv2": {2, 4}, f"{like}CLIP": {4}, f"{like}CLIP, elastic": {1, 2, 4}}
    facts = next(iter(kept["cards"].values()))
    assert facts == json.loads(json.dumps(protocol(find_runs(folder)[0].evaluation["card"], "ssim")))


def alter(run, change) -> None:
    evaluation = run.evaluation
    for row in evaluation["results"]:
        change(row)
    run.write_json("eval.json", evaluation)


def all_higher(row: dict) -> None:
    for name, value in row.items():
        if isinstance(value, float) and not name.endswith("_s"):
            row[name] = value * 1.25


@pytest.mark.parametrize(
    "name", ["encoders", "token-counts", "quality", "rate-distortion", "codes", "elastic"]
)
def test_a_number_altered_by_hand_moves_in_every_figure_that_shows_it(folder, name):
    before, picture = drawn(folder, name), None
    picture = pixels(folder, name)
    altered = [run for run in find_runs(folder) if run.name in ("b0", "c0", "e0")]
    for run in altered:
        alter(run, all_higher)
    after = drawn(folder, name)
    assert pixels(folder, name).shape != picture.shape or (pixels(folder, name) != picture).any()
    moved = 0
    for old, new in zip(before["drawn"], after["drawn"], strict=True):
        values = [k for k, v in old.items() if isinstance(v, float) and "run" in old]
        for key in values:
            factor = 1.25 if old["run"].endswith(("b0", "c0", "e0")) else 1
            assert new[key] == pytest.approx(old[key] * factor)
            moved += factor > 1
    assert moved


def test_training_curves_are_of_the_records(folder):
    items = [d for d in drawn(folder, "training")["drawn"] if d["run"].endswith("b1")]
    batch = find_runs(folder)[0].params["batch_size"]
    assert [d["psnr"] for d in items] == [11 + step / 10 for step in range(2, 21, 2)]
    assert [d["seconds"] for d in items] == pytest.approx([step * batch / 5 for step in range(2, 21, 2)])
    before = pixels(folder, "training")
    run = find_runs(folder, ("b1",))[0]
    run.write_text("metrics.jsonl", (run / "metrics.jsonl").read_text().replace("11.2", "14.2"))
    drawn(folder, "training")
    assert (pixels(folder, "training") != before).any()


@pytest.mark.parametrize("name", sorted(OF_TOKENIZERS - {"training"}))
def test_a_run_whose_card_differs_is_refused_by_name(folder, name):
    odd = "c0" if name == "elastic" else "b0"
    run = find_runs(folder, (odd,))[0]
    run.write_json("eval.json", run.evaluation | {"card": run.evaluation["card"] | {"resize": "bilinear"}})
    with pytest.raises(RunError, match=rf"{odd} was evaluated with resize=bilinear, .* evaluate both alike"):
        shown = (
            ("a0", "b0", "b1", "c0") if name == "token-counts" else ()
        )  # else it is that of an elastic run
        draw_figure(name, find_runs(folder, shown), folder / "figures")
    assert not (folder / "figures").exists()


def test_runs_that_were_trained_on_other_images_share_no_training_figure(folder, capsys):
    run = find_runs(folder, ("c0",))[0]
    run.write_json("manifest.json", {"data": {"train": "other"}})
    items = drawn(folder, "training")["drawn"]
    assert {d["run"][-2:] for d in items} == {"b0", "b1", "c1", "e0", "e1"}
    assert "not in the figure of training: c0" in capsys.readouterr().out


def test_no_more_codes_can_be_seen_than_there_are_tokens(folder):
    """Tokens of twelve images are fewer than the 64,000 codes of fsq: perplexity has a lower ceiling."""
    items = drawn(folder, "codes")["drawn"]
    images = find_runs(folder)[0].evaluation["card"]["images"]
    for item in items:
        assert item["code_ceiling"] == images * item["num_tokens"] < item["codebook_size"] == 64_000
        assert 1 <= item["code_perplexity"] <= item["code_ceiling"]
    card = {"images": 10_000}
    assert code_ceiling(card, {"num_tokens": 64, "bits": 64 * 12}) == 4096  # more tokens than codes


def test_half_a_record_is_none(folder):
    run = find_runs(folder, ("b0",))[0]
    with open(run / "timings.jsonl", "a") as out:
        out.write('{"step": 22, "images_')
    assert len(drawn(folder, "training")["drawn"]) == 60


def test_images_that_have_changed_are_not_compared_with_codecs(folder, capsys):
    drawn(folder, "rate-distortion")
    for run in find_runs(folder):
        run.write_json(
            "eval.json", run.evaluation | {"card": run.evaluation["card"] | {"data_fingerprint": "x"}}
        )
    drawn(folder, "rate-distortion")  # the earlier figure is kept
    assert "have changed: evaluate it again" in capsys.readouterr().out


def test_without_psnr_or_images_of_a_count_it_is_said(folder, capsys):
    for run in find_runs(folder):
        alter(run, lambda row: row.update(rfid=row.pop("psnr")))
    for name, options in (("rate-distortion", {}), ("encoders", {"num_tokens": 1})):
        draw_figure(name, find_runs(folder), folder / "figures", **options)
    said = capsys.readouterr().out
    assert "was evaluated without psnr: 'tok1d evaluate" in said and "encoders is not drawn" not in said
    shutil.rmtree(find_runs(folder, ("b0",))[0] / "recon")
    draw_figure("encoders", find_runs(folder), folder / "figures")
    assert "encoders is not drawn" in capsys.readouterr().out


def test_rows_of_other_images_are_refused(folder):
    run = find_runs(folder, ("c0",))[0]
    Image.new("RGB", (32, 32)).save(run / "recon" / "original_1.png")
    with pytest.raises(RunError, match=r"shows other images than .* show_images=3"):
        drawn(folder, "encoders")


def test_elastic_and_fixed_are_compared_if_nothing_else_differs(folder):
    items = drawn(folder, "elastic")["drawn"]
    assert {(d["series"], d["run"][-2]) for d in items} == {("fixed", "c"), ("elastic", "e")}


@pytest.mark.parametrize("names", [("c0", "e0"), ("c0",), ("a0", "b0"), ("a0", "c0", "e0")])
def test_no_two_figures_are_the_same(folder, names, capsys):
    """Of runs of which little, or nothing, can be compared."""
    runs = find_runs(folder, names)
    for name in OF_TOKENIZERS - {"rate-distortion", "training", "encoders"}:  # all that are of numbers alone
        draw_figure(name, runs, folder / "figures", metric="psnr", num_tokens=0)
    found = [path.read_bytes() for path in (folder / "figures").glob("*.png")]
    assert found and len(set(found)) == len(found), sorted((folder / "figures").glob("*.png"))
    same = "elastic is not drawn: the figure of quality has the same lines"
    assert (same in capsys.readouterr().out) == (names == ("c0", "e0"))


def test_what_cannot_be_drawn_is_said(folder, capsys):
    draw_figure("elastic", find_runs(folder, ("a0", "b0")), folder / "figures")
    draw_figure("token-counts", find_runs(folder, ("b0", "c0")), folder / "figures")
    said = capsys.readouterr().out
    assert "elastic is not drawn: it needs both elastic and fixed runs" in said
    assert "token-counts is not drawn: it needs more than one token count" in said


def test_without_its_runs_a_figure_of_numbers_is_drawn_again_from_its_json(folder):
    drawn(folder, "quality")
    drawn(folder, "encoders")
    picture, sidecar = pixels(folder, "quality"), folder / "figures" / "quality.json"
    (folder / "figures" / "quality.png").unlink()
    for run in find_runs(folder):
        shutil.rmtree(run.path)
    assert redraw(sidecar) and (pixels(folder, "quality") == picture).all()
    kept = json.loads(sidecar.read_text())
    kept["drawn"][0]["psnr"] += 1
    sidecar.write_text(json.dumps(kept))
    assert redraw(sidecar) and (pixels(folder, "quality") != picture).any()
    assert not redraw(folder / "figures" / "encoders.json")


def test_seeds_are_averaged_and_so_are_their_intervals():
    rows = [
        {"num_tokens": 4, "psnr": 20.0, "psnr_interval": [19.0, 21.0]},
        {"num_tokens": 4, "psnr": 22.0, "psnr_interval": [20.0, 25.0]},
        {"num_tokens": 2, "psnr": 18.0},
    ]
    two, four = at_counts(rows, "psnr")
    assert two == {"num_tokens": 2, "mean": 18.0, "seeds": [18.0], "interval": [18.0, 18.0]}
    assert four == {"num_tokens": 4, "mean": 21.0, "seeds": [20.0, 22.0], "interval": [19.5, 23.0]}


def test_labels_do_not_cover_each_other():
    wanted = np.array([0.5, 0.52, 0.1, 0.51, 0.9])
    places = spread(wanted, 0.1)
    assert (np.diff(np.sort(places)) >= 0.1 - 1e-9).all() and (np.argsort(places) == np.argsort(wanted)).all()
    assert places[2] == 0.1 and places[4] == 0.9 and places[[0, 1, 3]].mean() == pytest.approx(0.51)


def test_published_numbers_of_the_reference_are_hollow_marks_of_rfid_alone(folder):
    def hollow(metric: str) -> list:
        kept = drawn(folder, "quality", metric=metric)
        lines = FIGURES["quality"].draw(kept["drawn"], metric=metric).axes[0].lines
        marks = [x for x in lines if x.get_markerfacecolor() == "none" and len(x.get_xdata())]
        assert bool(marks) == ("Hollow marks" in kept["caption"])
        return marks

    bdd = {"bdd_labels": "labels", "weather": ["clear"], "timeofday": ["daytime"]}
    for run in find_runs(folder):
        alter(run, lambda row: row.update(rfid=50.0, rfid_interval=[45.0, 55.0]))
        run.write_json("params.yaml", run.params | {"random_like": "", "encoder_init": "mae"})
    assert not hollow("rfid")  # of other images than those of the reference
    for run in find_runs(folder):
        run.write_json("params.yaml", run.params | bdd)
    kept = drawn(folder, "quality", metric="rfid")["drawn"]
    assert {d["series"] for d in kept} == {"fixed", "elastic"}
    (line,) = hollow("rfid")
    theirs = yaml.safe_load(PUBLISHED.read_text())["clear_daytime"]["mae"]
    assert list(line.get_ydata()) == list(theirs.values())
    assert np.allclose(line.get_xdata(), list(theirs), rtol=0.1)
    assert not hollow("psnr")


def test_images_are_replaced_all_at_once(tmp_path, monkeypatch):
    """A repeat that is killed halfway leaves the images of before, and what people keep beside them stays."""
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    folder = tmp_path / "recon"
    save_images(folder, images, {1: images, 4: images})
    (folder / "notes.txt").write_text("mine")
    (folder / "more").mkdir()
    before = sorted(p.name for p in folder.iterdir())
    written, save = [], Image.Image.save

    def fails(image, path, **options):
        written.append(path)
        if len(written) == 3:
            raise OSError("killed")
        save(image, path, **options)

    monkeypatch.setattr(Image.Image, "save", fails)
    with pytest.raises(OSError):
        save_images(folder, images[:2] + 9, {1: images[:2]})
    assert sorted(p.name for p in folder.iterdir()) == before and len(list(tmp_path.iterdir())) == 1
    monkeypatch.undo()
    save_images(folder, images[:1], {2: images[:1]})
    assert {p.name for p in folder.iterdir()} == {"original_0.png", "2_tokens_0.png", "notes.txt", "more"}
