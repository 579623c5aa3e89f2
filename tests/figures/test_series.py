"""Which runs make one line of a figure, and what it is called."""

import pytest
from patients import start_run
from small_run import SMALL

from tok1d.config.parse import parse_train
from tok1d.figures.series import Series, common_prefix, series_of, shared_count
from tok1d.runs import Run, RunError


def run(folder, name: str, **params) -> Run:
    return Run.open(*parse_train(SMALL | {"outputs": str(folder), "run": name} | params))


def named(runs: list[Run]) -> dict[str, list[str]]:
    return {label: [run.name for run in members] for label, members in series_of(runs)}


def test_seeds_and_token_counts_are_of_one_line_encoders_are_not(tmp_path):
    runs = [
        run(tmp_path, f"{like}-{count}-s{seed}", random_like=like, num_latent_tokens=count, seed=seed)
        for like in ("dinov2", "clip")
        for count in (4, 8)
        for seed in (0, 1)
    ]
    assert list(named(runs)) == ["random, like DINOv2", "random, like CLIP"]
    assert named(runs)["random, like CLIP"] == ["clip-4-s0", "clip-4-s1", "clip-8-s0", "clip-8-s1"]


def test_a_line_is_called_by_what_is_not_as_usual(tmp_path):
    runs = [run(tmp_path, f"f{k}", num_latent_tokens=k) for k in (2, 4, 8)]
    runs += [run(tmp_path, "e", elastic=True, num_latent_tokens=8), run(tmp_path, "slow", lr=3e-3)]
    assert list(named(runs)) == ["random", "random, elastic", "random, lr 0.003"]
    many = [run(tmp_path, f"big-data-s{s}", steps=7, warmup_steps=3, lr=1e-2, seed=s) for s in (0, 1)]
    assert named(runs + many)["big-data"] == ["big-data-s0", "big-data-s1"]


def test_what_makes_another_model_makes_another_line(tmp_path):
    """Elastic tokenizers of two sizes are measured at the same counts; a fine-tuned run began elsewhere."""
    sizes = [
        run(tmp_path, f"e{k}-s{s}", elastic=True, num_latent_tokens=k, seed=s)
        for k in (8, 16)
        for s in (0, 1)
    ]
    assert list(named(sizes)) == ["up to 8", "up to 16"]
    tuned = [run(tmp_path, f"t-s{s}", init_from="/a/b/parent", seed=s) for s in (0, 1)]
    scratch = [run(tmp_path, f"n-s{s}", seed=s) for s in (0, 1)]
    assert list(named([*scratch, *tuned])) == ["no init from", "init from parent"]


def test_no_two_lines_have_one_name(tmp_path):
    odd = {3: dict(steps=7, lr=1e-2, warmup_steps=1), 4: dict(steps=8, lr=2e-2, warmup_steps=2)}
    plain = [run(tmp_path, f"run{i}-s{s}", seed=s) for i in (1,) for s in (0, 1, 2, 3, 4)]
    others = [run(tmp_path, f"run-{i}{s}", seed=s, **odd[i]) for i in odd for s in (0, 1)]
    labels = list(named(plain + others))
    assert len(labels) == len(set(labels)) == 3, labels


def test_runs_of_which_no_two_belong_together_go_by_their_names(tmp_path):
    runs = [run(tmp_path, "mine", elastic=True), run(tmp_path, "other")]
    assert list(named(runs)) == ["mine", "other"]
    assert common_prefix([Run("a/mae-64-s0"), Run("a/mae-64-s12")]) == "mae-64"


def test_kinds_are_compared_at_64_tokens_or_where_most_are(tmp_path):
    def of(name: str, *counts: int) -> Series:
        found = start_run(tmp_path / name)
        found.write_json("eval.json", {"card": {}, "results": [{"num_tokens": n} for n in counts]})
        return Series(name, [found])

    a, b, c = of("a", 16, 64, 128), of("b", 64, 128), of("c", 16, 32)
    assert shared_count([a, b]) == 64 and shared_count([a, c]) == 16 and shared_count([a, b, c]) == 64
    assert shared_count([of("d", 16, 128), of("e", 16, 128)]) == 128
    assert shared_count([a, b], 16) == 16
    with pytest.raises(RunError, match="no run was evaluated at 5 tokens: type num_tokens=0, or one of 16"):
        shared_count([a, b], 5)
