"""A training step: parts of a batch, steps without a finite gradient, what a record says."""

import copy
import json
import math

import pytest
import torch
from accelerate import Accelerator
from small_run import SMALL, start

from tok1d.config.schema import TokenizerConfig, TrainConfig
from tok1d.losses.statistics import code_use, of_batch, statistics
from tok1d.models.tokenizer import Reconstruction
from tok1d.runs import RunError
from tok1d.training.logbook import summarize
from tok1d.training.state import State
from tok1d.training.step import train_step
from tok1d.training.task import TokenizerTask
from tok1d.training.train import train


def fresh(**params) -> State:
    torch.manual_seed(0)
    config = TrainConfig(**dict(lr=1e-3, warmup_steps=0, l1_weight=1.0) | params)
    task = TokenizerTask(TokenizerConfig(**SMALL), config)
    task.build()
    return State.new(task, torch.device("cpu"))


def take(state: State, parts: list[torch.Tensor]) -> dict[str, float]:
    return train_step(state, parts, Accelerator(), logged=True)


@pytest.mark.parametrize("gan", [{}, dict(adversarial_weight=0.1, adaptive_weight="false")])
def test_a_batch_in_parts_is_the_same_step(gan):
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    whole = fresh(**gan)
    parts = copy.deepcopy(whole.model)
    first = take(whole, [images])
    state = fresh(**gan, grad_accum_steps=4)
    state.model.load_state_dict(parts.state_dict())
    second = take(state, list(images.chunk(4)))
    assert first.keys() == second.keys() and {"psnr", "perplexity", "variation", "grad_norm"} <= first.keys()
    for name, value in first.items():
        assert value == pytest.approx(second[name], rel=1e-4, abs=1e-6), name
    for a, b in zip(whole.model.parameters(), state.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_step_without_a_finite_gradient_changes_nothing_and_is_counted():
    state = fresh(adversarial_weight=0.1)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    take(state, [images])
    before = copy.deepcopy([module.state_dict() for module in (state.model, state.ema, state.objective)])
    weight = state.model.to_codes.weight
    handle = weight.register_hook(lambda grad: grad * math.nan)
    record = take(state, [images])
    handle.remove()
    assert (
        math.isnan(record["grad_norm"]) and state.counts["skipped"] == state.counts["nonfinite_streak"] == 1
    )
    after = [module.state_dict() for module in (state.model, state.ema, state.objective)]
    for old, new in zip(before, after, strict=True):
        assert all(torch.equal(old[name], new[name]) for name in old)
    take(state, [images])
    assert state.counts["skipped"] == 1 and state.counts["nonfinite_streak"] == 0
    assert not torch.equal(weight, before[0]["to_codes.weight"])


def test_after_too_many_such_steps_it_goes_back_once_then_stops(tmp_path, capsys):
    """A learning rate that throws the weights to infinity, so that no gradient is ever finite again."""
    wild = dict(lr=1.0, grad_clip=1e30, l2_weight=1e30, steps=40, checkpoint_every=50, nan_patience=3)
    run, images, tokenizer, config = start(tmp_path, **wild)
    records = []
    with pytest.raises(RunError, match=r"^nan: 3 steps in a row.*again.*: type lr=0\.3, .* and another run="):
        train(run, images, tokenizer, config, on_log=records.append)
    assert "back to step 0, from there at 0.3 of the learning rate" in capsys.readouterr().out
    saved = torch.load(run / "last.ckpt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


def test_records_of_a_run(tmp_path):
    run, images, tokenizer, config = start(tmp_path, steps=4, log_every=2, adversarial_weight=0.1)
    records = []
    train(run, images, tokenizer, config, on_log=records.append)
    assert [record["step"] for record in records] == [2, 4]
    expected = {
        "loss", "psnr", "num_tokens", "lr", "code_usage", "perplexity", "grad_norm", "grad_norm_encoder",
        "grad_norm_decoder", "grad_norm_quantizer", "variation", "skipped", "l2", "adversarial", "quantizer",
        "logits_real", "logits_fake", "discriminator", "adaptive_weight",
    }  # fmt: skip
    assert expected <= records[0].keys()
    kept = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    times = {"images_per_second", "loader_wait"}
    assert kept == [{k: v for k, v in record.items() if k not in times} for record in records]
    assert all(records[0][name] >= 0 for name in times)


def test_code_use_and_variation():
    assert code_use(torch.tensor([2.0, 2.0, 0.0, 0.0]), 1) == pytest.approx(
        {"code_usage": 0.5, "perplexity": 2.0}
    )
    images = torch.rand(4, 3, 16, 16)
    ids, zero = torch.tensor([[0, 1], [2, 3], [0, 1], [2, 3]]), torch.zeros(())

    def described(pixels):
        output = Reconstruction(pixels, ids, zero, {}, pixels, pixels)
        return summarize([statistics(output, images, 8)], of_batch)

    exact, mean = described(images), described(images.mean(0, keepdim=True).expand_as(images))
    assert exact["variation"] == pytest.approx(1) and mean["variation"] == pytest.approx(0, abs=1e-5)
    assert exact["psnr"] == pytest.approx(100) and exact["code_usage"] == 0.5
    assert exact["perplexity"] == pytest.approx(4)
