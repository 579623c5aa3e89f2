"""A sweep is planned before it starts: which runs, with which names, and one sentence for what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workbench import ENV, REPO

from tok1d.cli import main
from tok1d.config.fields import ConfigError
from tok1d.jupyter.tables import as_text, terminal
from tok1d.models.flops import forward_flops
from tok1d.sweeps.dry_run import estimate, missing, training_flops
from tok1d.sweeps.plan import read_plan
from tok1d.sweeps.run import load_site, with_keys
from tok1d.sweeps.table import lengths, rows, sweep_table

SMALL = dict(image_size=16, patch_size=8, encoder_size="nano", decoder_size="nano", toy_images=4)


def written(tmp_path, **values) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"params": SMALL} | values, sort_keys=False))
    return file


def sentence(tmp_path, **values) -> str:
    with pytest.raises(ConfigError) as caught:
        read_plan(written(tmp_path, **values))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cells_times_grid_times_seeds(tmp_path):
    plan = read_plan(
        written(
            tmp_path, cells=[{"quantizer": "vq"}, {"run": "mine", "lr": "1e-4"}],
            grid={"num_latent_tokens": [4, 8], "elastic": [True]}, seeds=[0, 7],
        )
    )  # fmt: skip
    assert [cell.name for cell in plan.cells] == [
        f"{which}-{count}-elastic-True-s{seed}"
        for which in ("vq", "mine") for count in (4, 8) for seed in (0, 7)
    ]  # fmt: skip
    last = plan.cells[-1]
    assert (last.train.seed, last.train.lr, last.of_tokenizer.tokenizer.num_latent_tokens) == (7, 1e-4, 8)
    assert last.run.path == Path("outputs/mine/mine-8-elastic-True-s7")


def test_parameters_from_outside_hold_for_all_runs_but_not_for_the_grid(tmp_path):
    file = written(
        tmp_path, cells=[{"lr": 1e-4, "steps": 7}, {"lr": 1e-3}], grid={"num_latent_tokens": [4, 8]}
    )
    cells = read_plan(file, {"steps": 9, "num_latent_tokens": 2}).cells
    assert {cell.train.steps for cell in cells} == {9}
    assert [cell.of_tokenizer.tokenizer.num_latent_tokens for cell in cells] == [4, 8, 4, 8]


def test_what_is_wrong_is_one_sentence_that_names_the_run(tmp_path):
    assert "run lr-2 of the sweep: lr must be at most 1" in sentence(tmp_path, cells=[{"lr": 2}])
    assert "did you mean steps?" in sentence(tmp_path, cells=[{"stepz": 3}])
    assert "batch_size is no part of a sweep: put it under params:" in sentence(tmp_path, batch_size=3)
    assert "two runs of the sweep are called vq" in sentence(tmp_path, cells=[{"quantizer": "vq"}] * 2)
    assert "no parameter file params/none.yaml" in sentence(tmp_path, base="params/none.yaml")
    assert "after_run" in sentence(tmp_path, after_run=["dance"])
    assert "write after_run: [evaluate, reconstruct] too" in sentence(tmp_path, evaluation={"data": "x"})
    measured = {"after_run": ["evaluate"], "params": SMALL | {"num_latent_tokens": 4}}
    assert "evaluation: each of metrics must be" in sentence(
        tmp_path, evaluation={"metrics": ["fid"]}, **measured
    )
    assert "did you mean eval_images?" in sentence(tmp_path, evaluation={"evl_images": 2}, **measured)
    assert "run run of the sweep: token_counts=8" in sentence(
        tmp_path, evaluation={"token_counts": 8}, **measured
    )


def test_where_a_sweep_goes_is_no_parameter_of_its_runs(tmp_path):
    remedies = {"outputs": "type -o FOLDER", "sweep": "write sweep: NAME", "run": "names of their own"}
    for name, remedy in remedies.items():
        with pytest.raises(ConfigError, match=f"-p {name} has no place in a sweep: .*{remedy}"):
            read_plan(written(tmp_path), {name: "x"})


def test_what_is_missing_is_said_once(tmp_path):
    cells = [
        {"data": str(tmp_path / "none"), "run": "a"},
        {"encoder_init": "mae", "encoder_checkpoint": "w.pth"},
    ]
    plan = read_plan(written(tmp_path, cells=cells, grid={"num_latent_tokens": [4, 8]}))
    found = missing(plan)
    assert len(found) == 2 and "none" in found[0] and "w.pth" in found[1]
    evaluation = {
        "data": "nowhere",
        "metrics": "rfid,lpips",
        "inception_checkpoint": "i.pth",
        "lpips_checkpoint": "l",
    }
    found = missing(read_plan(written(tmp_path, after_run=["evaluate"], evaluation=evaluation, seeds=[0, 1])))
    assert len(found) == 3 and all(name in found[i] for i, name in enumerate(("file i", "file l", "nowhere")))


def test_the_estimate_adds_up(tmp_path):
    plan = read_plan(written(tmp_path, grid={"steps": [100, 200, 400]}))
    flops = [training_flops(cell) for cell in plan.cells]
    assert flops[2] == 2 * flops[1] == 4 * flops[0]
    per_image = 3 * forward_flops(plan.cells[0].of_tokenizer.tokenizer)
    assert flops[0] == 100 * plan.cells[0].train.batch_size * per_image
    alone, two = (estimate("here", slots, flops, 1.0) for slots in (1, 2))
    assert alone.hours == pytest.approx(sum(flops) / 3600, rel=0.01) and two.hours == two.longest


def test_the_papers_sweep_has_every_row(tmp_path):
    plan = read_plan(REPO / "params/sweeps/reference.yaml")
    tokenizers = [cell.of_tokenizer.tokenizer for cell in plan.cells]
    inits = {(t.encoder_init, t.num_latent_tokens) for t in tokenizers}
    names = ("mae", "clip", "dino", "dinov2", "depth_anything_v2", "random")
    assert inits == {(name, 64) for name in names} | {("mae", count) for count in (16, 32, 128, 256)}
    assert [t.num_latent_tokens for t in tokenizers if t.elastic] == [256] * 3
    assert any(c.name.startswith("mae-big-data") for c in plan.cells) and len(plan.cells) == 42


def test_a_thousand_cells_are_planned_and_shown(tmp_path):
    """Not timed to the letter: these machines are noisy; a second is the aim, minutes would be a bug."""
    plan = read_plan(written(tmp_path, grid={"num_latent_tokens": [1, 2, 4, 8]}, seeds=list(range(250))))
    assert len(plan.cells) == 1000 and len({cell.name for cell in plan.cells}) == 1000
    text = as_text(sweep_table(rows(tmp_path, lengths(plan))), terminal())
    assert text.endswith("1000 waiting") and len(text.splitlines()) == 1002


def test_a_terminal_too_low_for_all_runs_shows_those_at_work():
    found = [{"run": f"r{i}", "state": "running" if i == 90 else "waiting"} for i in range(100)]
    text = as_text(sweep_table(found, height=24), terminal())
    assert [line.split() for line in text.splitlines()[:-1]] == [["run", "state"], ["r90", "running"]]
    assert text.endswith("99 waiting · 1 running")


def test_watch_prints_once_where_there_is_no_terminal_and_redraws_in_one(tmp_path, capsys, monkeypatch):
    (tmp_path / "sweep.json").write_text('{"cells": [{"run": "a [bold]", "steps": 9, "batch_size": 1}]}')
    assert main(["watch", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "run       state\na [bold]  waiting\n1 waiting\n"
    (tmp_path / "a [bold]").mkdir()
    (tmp_path / "a [bold]" / "status.json").write_text('{"state": "done"}')
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert main(["watch", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "a [bold]" in said and "1 done" in said and "\x1b[?25h" in said  # the cursor is back


def test_a_dry_run_lists_and_says_what_is_missing(tmp_path):
    file = written(tmp_path, grid={"num_latent_tokens": [4, 8]}, cells=[{"data": str(tmp_path / "none")}])
    command = [sys.executable, "-m", "tok1d.cli", "sweep", str(file), "--dry-run"]
    said = subprocess.run(command, cwd=REPO, env=ENV, capture_output=True, text=True)
    assert said.returncode == 1 and "2 runs, 0 finished" in said.stdout and said.stdout.count("missing:") == 1
    assert all(f"on {where}" in said.stdout for where in ("this machine", "1 H100", "8 H100"))
    assert not Path(REPO / "outputs/mine").exists()


def test_of_a_cluster_the_estimate_is_not_of_this_machine(tmp_path, capsys):
    file = written(tmp_path, outputs=str(tmp_path), grid={"num_latent_tokens": [4, 8]})
    assert main(["sweep", str(file), "--dry-run", "--site", str(REPO / "params/sites/slurm.py")]) == 0
    said = capsys.readouterr().out
    assert "slurm.py, if its GPUs are H100s (32 runs at a time" in said and "this machine" not in said


KUBERNETES = """
current-context: a
contexts: [{name: a, context: {cluster: a, user: a}}]
clusters: [{name: a, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: a, user: {}}]
"""


@pytest.mark.parametrize("site", sorted((REPO / "params/sites").glob("*.py")), ids=lambda site: site.stem)
def test_every_site_can_be_used_and_lets_no_other_user_of_a_machine_send_code(site, tmp_path, monkeypatch):
    (tmp_path / "kubernetes.yaml").write_text(KUBERNETES)
    if library := sys.modules.get("kubernetes.config.kube_config"):
        monkeypatch.setattr(library, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubernetes.yaml"))
    try:
        config = load_site(site, read_plan(written(tmp_path), outputs=str(tmp_path)))
    except ConfigError as error:
        if "type 'pip install" not in str(error):
            raise
        pytest.skip(str(error))
    with_keys(config, tmp_path / "keys")
    for executor in config.executors:
        assert executor.encrypted
        if site.stem == "local":
            assert Path(executor.cert_dir).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "# A heading\n\nwith words\n",
            r"site.py line 3 cannot be used \(SyntaxError: .*mend it, or type --site",
        ),
        ("import os\n\nos.nothing\n", r"site.py line 3 cannot be used \(AttributeError: "),
        ("exit(3)\n", r"site.py line 1 cannot be used \(SystemExit: 3\)"),
        ("config = 3\n", r"site.py defines no Parsl config: write config = parsl.Config"),
        ("\0", r"site.py cannot be used \("),
    ],
)
def test_a_site_that_is_none_is_one_sentence(text, says, tmp_path):
    (tmp_path / "site.py").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_site(tmp_path / "site.py", read_plan(written(tmp_path)))


@pytest.mark.parametrize("slots", ["abc", "0", "-1", "1.5"])
def test_runs_at_a_time_are_a_number(slots, tmp_path, monkeypatch):
    monkeypatch.setenv("TOK1D_SLOTS", slots)
    with pytest.raises(
        ConfigError, match=f"^TOK1D_SLOTS={slots} is no number of runs at a time: type TOK1D_SLOTS=2"
    ):
        load_site(REPO / "params/sites/local.py", read_plan(written(tmp_path)))
