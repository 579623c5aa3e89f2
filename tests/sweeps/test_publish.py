"""Published results, and the table that the README makes of them."""

import json
import shutil

import pandas as pd
import pytest
from evaluating import FAST
from figure_runs import drawn
from workbench import REPO

from tok1d.cli import main
from tok1d.evaluation.card import card_id, protocol
from tok1d.evaluation.runs import evaluate_run
from tok1d.figures.series import series_of
from tok1d.runs import RunError
from tok1d.runs.find import find_runs
from tok1d.sweeps.publish import BEGIN, END, PUBLISHED, cell, everywhere, publish, renew, results_table


def test_the_readme_says_what_is_published():
    """If this fails: `tok1d publish` was not run, or something was edited by hand."""
    text = (REPO / "README.md").read_text()
    assert text.split(BEGIN)[1].split(END)[0].strip() == results_table(REPO / PUBLISHED).strip()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([20.0], "20.00 (19.50\u00a0…\u00a020.50)"),
        ([20.0, 20.001], "20.00 (20.00, 20.00)"),  # no ± 0.00: of two there is no spread to speak of
        ([20.0, 21.0], "20.50 (20.00, 21.00)"),
        ([20.0, 20.001, 20.002], "20.00 ± < 0.01"),
        ([20.0, 21.0, 22.0], "21.00 ± 1.00"),
    ],
)
def test_the_spread_of_seeds_is_said_as_what_it_is(values, says):
    rows = pd.DataFrame({"psnr": values, "psnr_interval": "[19.5, 20.5]"})
    assert cell("psnr", rows) == says


def test_published_figures_name_runs_and_cards_and_no_machine():
    for file in (REPO / PUBLISHED).glob("*/*.json"):
        kept = json.loads(file.read_text())
        assert everywhere(kept) == kept
        assert all(item.get("run", "outputs/").startswith("outputs/") for item in kept.get("drawn", ()))
        assert all(item["card"] in kept["cards"] for item in kept.get("drawn", ()))
    for file in (REPO / PUBLISHED).glob("*/*.csv"):
        assert pd.read_csv(file)["path"].str.startswith("outputs/").all()


@pytest.fixture
def sweep(figure_sweep, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(figure_sweep, folder)
    rows = []
    for label, members in series_of(find_runs(folder)):
        for run in members:
            card = card_id(protocol(run.evaluation["card"]))
            rows += [
                {"run": run.name, "series": label, **r, "card": card, "path": str(run.path)}
                for r in run.evaluation["results"]
            ]
    (folder / "sweep_done.json").write_text("{}")
    pd.DataFrame(rows).assign(init_from="/a/b/parent").to_csv(folder / "results.csv", index=False)
    drawn(folder, "quality")
    return folder


def test_a_sweep_is_published_with_its_numbers_and_without_its_place(sweep, tmp_path):
    sidecar = sweep / "figures/quality.json"  # as it would be of images in a folder
    sidecar.write_text(sidecar.read_text().replace("images of toy-roads", "images of /a/b/photos"))
    folder = publish(sweep, "Toy roads", tmp_path / "published")
    names = {path.name for path in folder.iterdir()}
    assert names == {"results.csv", "about.json", "quality.png", "quality.pdf", "quality.json"}
    for name in ("results.csv", "about.json", "quality.json"):
        text = (folder / name).read_text()
        assert str(tmp_path) not in text and "/a/b" not in text
    assert "images of photos" in json.loads((folder / "quality.json").read_text())["caption"]
    assert "parent" in (folder / "results.csv").read_text()
    items = json.loads((folder / "quality.json").read_text())["drawn"]
    assert {item["run"] for item in items} == {f"outputs/sweep/{k}{s}" for k in "abce" for s in (0, 1)}
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    renew(readme, tmp_path / "published")
    text = readme.read_text()
    assert text.startswith(
        f"before\n{BEGIN}\n**Toy roads**, 12 images at 32 pixels; mean and both values of 2 "
    )
    assert text.endswith(f"{END}\nafter\n") and "old" not in text
    runs = {run.name: run.evaluation["results"][0] for run in find_runs(sweep, ("c0", "c1"))}
    mean = (runs["c0"]["psnr"] + runs["c1"]["psnr"]) / 2
    low, high = sorted(run["psnr"] for run in runs.values())
    bits = runs["c0"]["bits"]
    assert f"| random, like CLIP | 4 | {bits:.0f} | {mean:.2f} ({low:.2f}, {high:.2f}) | " in text


def test_figures_that_show_images_can_be_left_out(sweep, tmp_path):
    for suffix in ("png", "json"):
        (sweep / "figures" / f"encoders.{suffix}").write_text('{"drawn": []}')
    folder = publish(sweep, "Toy roads", tmp_path / "published")
    assert (folder / "encoders.png").exists() and (folder / "encoders.json").exists()
    publish(sweep, "Toy roads", tmp_path / "published", pictures=False)
    assert not list(folder.glob("encoders.*")) and (folder / "quality.png").exists()


def test_of_one_seed_the_interval_is_printed_and_whose_images_they_are(sweep, tmp_path, photos):
    """Also of a sweep whose evaluation names other images: numbers, card and name are of those."""
    data, rows = str(photos(12)), []
    for run in find_runs(sweep, ("a0", "b0")):
        found = evaluate_run(run, FAST, data)
        card = card_id(protocol(found["card"]))
        rows += [{"run": run.name, "series": run.name, **r, "card": card} for r in found["results"]]
    assert find_runs(sweep, ("a0",))[0].evaluation["card"]["data"] == "toy-roads"
    pd.DataFrame(rows).to_csv(sweep / "results.csv", index=False)
    publish(sweep, "Noise", tmp_path / "published")
    text = results_table(tmp_path / "published")
    first = rows[0]
    low, high = first["psnr_interval"]
    assert (
        f"| a0 | 2 | {first['bits']:.0f} | {first['psnr']:.2f} ({low:.2f}\u00a0…\u00a0{high:.2f}) |" in text
    )
    assert (
        "12 images at 32 pixels; one seed, in brackets the 95 % interval" in text
        and "; images of photos (" in text
    )


def test_names_that_look_like_numbers_stay_names(sweep, tmp_path):
    rows = pd.read_csv(sweep / "results.csv")
    rows["card"] = "123456e78901"
    rows.to_csv(sweep / "results.csv", index=False)
    folder = publish(sweep, "Toy roads", tmp_path / "published")
    assert "123456e78901" in (folder / "results.csv").read_text()


def test_a_readme_without_a_place_is_left_alone(tmp_path):
    for text in (None, "nothing"):
        if text:
            (tmp_path / "README.md").write_text(text)
        with pytest.raises(RunError, match="has no place for results"):
            renew(tmp_path / "README.md", tmp_path)


def test_what_was_not_measured_alike_is_not_published(sweep, tmp_path):
    rows = pd.read_csv(sweep / "results.csv")
    rows.loc[rows["run"] == "b1", "card"] = "other"
    rows.to_csv(sweep / "results.csv", index=False)
    with pytest.raises(RunError, match="b1 was not measured as the other runs"):
        publish(sweep, "Toy roads", tmp_path / "published")
    assert not (tmp_path / "published").exists()
    with pytest.raises(RunError, match=r"is no finished sweep: finish it with 'tok1d sweep"):
        publish(tmp_path, "Toy roads", tmp_path / "published")


def test_all_figures_are_drawn_again_also_where_the_runs_are_gone(sweep, tmp_path, capsys):
    publish(sweep, "Toy roads", tmp_path / "published")
    picture = (tmp_path / "published" / "sweep" / "quality.png").read_bytes()
    (tmp_path / "published" / "sweep" / "quality.png").unlink()
    shutil.rmtree(sweep)
    assert main(["figures", str(tmp_path)]) == 0
    assert (tmp_path / "published" / "sweep" / "quality.png").read_bytes() == picture
    assert "0 of 0 sweeps and 1 published figures are drawn again" in capsys.readouterr().out


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("fails", ["write_files", "about", "json.dumps"])
def test_what_fails_on_the_way_leaves_what_was_published_before(sweep, tmp_path, monkeypatch, fails):
    published = tmp_path / "published"
    publish(sweep, "Toy roads", published)
    before = files_of(published)
    monkeypatch.setattr(f"tok1d.sweeps.publish.{fails}", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        publish(sweep, "Toy roads", published)
    assert files_of(published) == before
    monkeypatch.undo()
    publish(sweep, "Another title", published)
    after = files_of(published)
    assert after.keys() == before.keys() and b"Another title" in after["sweep/about.json"]


@pytest.mark.parametrize("path", ["sweep/..", "sweep/../sweep", "sweep/figures/..", "sweep/."])
def test_a_path_of_any_spelling_is_a_sweep_or_refused_and_deletes_nothing(sweep, tmp_path, path):
    published = sweep.parent / "published"
    publish(sweep, "Toy roads", published)
    before = files_of(tmp_path)
    if path == "sweep/..":
        with pytest.raises(RunError, match="is no finished sweep"):
            publish(sweep.parent / path, "Toy roads", published)
    else:
        assert publish(sweep.parent / path, "Toy roads", published) == published / "sweep"
    assert files_of(tmp_path) == before


def test_two_sweeps_of_one_name_do_not_replace_each_other(sweep, tmp_path):
    published, other = tmp_path / "published", tmp_path / "elsewhere" / "sweep"
    shutil.copytree(sweep, other)
    publish(sweep, "First", published)
    before = files_of(published)
    with pytest.raises(RunError, match=r"holds another sweep of that name, First: rename"):
        publish(other, "Second", published)
    assert files_of(published) == before
    shutil.rmtree(published / "sweep")
    publish(other, "Second", published)


def test_a_title_with_the_readmes_own_marks_cuts_nothing_off(sweep, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"of {END}: before\n{BEGIN}\nold\n{END}\nafter\n")
    publish(sweep, f"A {END} title {BEGIN}", tmp_path / "published")
    for _ in range(3):
        renew(readme, tmp_path / "published")
    text = readme.read_text()
    assert text.startswith(f"of {END}: before\n{BEGIN}\n**A &#60;!-- end") and text.endswith(
        f"\n{END}\nafter\n"
    )
    assert text.count(BEGIN) == 1 and text.count(END) == 2


def test_what_a_killed_publisher_left_is_no_result(sweep, tmp_path):
    publish(sweep, "Toy roads", tmp_path / "published")
    table = results_table(tmp_path / "published")
    (tmp_path / "published" / "sweep").rename(tmp_path / "published" / ".sweep.00c0ffee-1.tmp")
    assert results_table(tmp_path / "published") == ""
    publish(sweep, "Toy roads", tmp_path / "published")
    assert results_table(tmp_path / "published") == table
