"""What only a GPU shows: `make test-gpu`. Where it is cheap the same is done on the CPU in `make test`."""

import pytest
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from evaluating import FAST, build, roads
from priors import random_prior
from small_run import start
from torch import nn
from torch.distributed.fsdp import FSDPModule

from tok1d.config.generation import SampleConfig
from tok1d.config.schema import TrainConfig
from tok1d.data.loader import Loader
from tok1d.evaluation.evaluate import evaluate
from tok1d.generation.sampling import sample
from tok1d.training.optim import build_optimizers, param_groups
from tok1d.training.state import State
from tok1d.training.task import TokenizerTask
from tok1d.training.train import train

NONE = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
CUDA = [pytest.mark.gpu, NONE]
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]
on_each_device = pytest.mark.parametrize("device", DEVICES)
GAN = dict(adversarial_weight=0.1, discriminator_start=2, elastic=True)


@pytest.fixture
def train_on(tmp_path, monkeypatch):
    """`train_on("cuda", "a")` trains a small run in folder a: the run and the model. accelerate chooses a
    device once a process; here it does each time.
    """

    def trained(device: str, folder: str, on_log=lambda record: None, **params):
        AcceleratorState._reset_state(reset_partial_state=True)
        monkeypatch.setenv("ACCELERATE_USE_CPU", str(device == "cpu").lower())
        few = dict(steps=6, log_every=1, checkpoint_every=2, mixed_precision="no", warmup_steps=0)
        run, *rest = start(tmp_path / folder, **few | params)
        return run, train(run, *rest, on_log=on_log)

    yield trained
    AcceleratorState._reset_state(reset_partial_state=True)


def curve(run) -> list[float]:
    """PSNR of each step's images, dB."""
    return [record["psnr"] for record in run.metrics]


@on_each_device
def test_in_bf16_it_learns_as_in_float32_and_keeps_float32_weights(device, train_on):
    half, model = train_on(device, "half", mixed_precision="bf16", **GAN)
    full, _ = train_on(device, "full", **GAN)
    assert curve(half) == pytest.approx(curve(full), abs=0.1) and curve(half) != curve(full)
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float32, device)}


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=CUDA)])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_compiled_blocks_compute_what_eager_ones_do(device, precision, train_on):
    eager, _ = train_on(device, "eager", mixed_precision=precision, **GAN)
    compiled, _ = train_on(device, "compiled", mixed_precision=precision, compile=True, **GAN)
    assert curve(compiled) == pytest.approx(curve(eager), abs=0.01 if precision == "no" else 0.1)


def change(device: str, **params) -> torch.Tensor:
    """What one step of these optimizers adds to a matrix, from the same gradient on every device."""
    torch.manual_seed(0)
    layer, gradient = nn.Linear(32, 32, bias=False), torch.randn(32, 32)
    layer.to(device).weight.grad = gradient.to(device)
    before = layer.weight.detach().clone()
    groups = param_groups(layer.named_parameters())
    for optimizer in build_optimizers(groups, TrainConfig(lr=0.01, muon_lr=0.01, weight_decay=0, **params)):
        optimizer.step()
    return (layer.weight.detach() - before).cpu()


@on_each_device
def test_the_first_step_of_fused_adamw_is_the_learning_rate_everywhere(device):
    moved = change(device, optimizer="adamw")
    torch.testing.assert_close(moved.abs(), torch.full((32, 32), 0.01), rtol=1e-3, atol=0)


@on_each_device
def test_muon_moves_all_directions_about_equally_far(device):
    """A random gradient's singular values differ by a factor of hundreds."""
    stretched = torch.linalg.svdvals(change(device, optimizer="muon")) / 0.01
    assert stretched.max() < 1.4 and stretched.median() > 0.6


@on_each_device
def test_the_loader_gives_every_step_and_copies_it_from_pinned_memory(device, tmp_path):
    _, images, _, config = start(tmp_path, steps=5, batch_size=4)
    cuda = device == "cuda"
    assert images.train_batch(0, 4, config.seed, pin=cuda).is_pinned() == cuda
    with Loader(images, config, device) as loader:
        for step in range(5):
            (part,) = loader.parts(step)
            assert part.device.type == device
            assert torch.equal(part.cpu(), images.train_batch(step, 4, config.seed)), step


@on_each_device
def test_an_evaluation_on_the_device_has_the_numbers_of_the_cpu(device):
    rows = [evaluate(build().to(where), roads(6), FAST)["results"] for where in (device, "cpu")]
    for mine, cpu in zip(*rows, strict=True):
        assert mine["psnr"] == pytest.approx(cpu["psnr"], abs=0.01)
        assert mine["ssim"] == pytest.approx(cpu["ssim"], abs=1e-3)


BETWEEN = [("cpu", "cuda"), ("cuda", "cpu")]


@pytest.mark.parametrize(
    "first, second, optimizer, apart",
    [
        ("cpu", "cpu", "adamw", 1e-6),
        *(pytest.param(*pair, "adamw", 0.05, marks=CUDA) for pair in BETWEEN),
        *(pytest.param(*pair, "muon", 0.5, marks=CUDA) for pair in BETWEEN),  # bfloat16 on the GPU
    ],
)
def test_a_checkpoint_goes_on_on_another_device(first, second, optimizer, apart, train_on, capsys):
    def stop(record):
        if record["step"] == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_on(first, "run", on_log=stop, optimizer=optimizer, **GAN)
    run, model = train_on(second, "run", optimizer=optimizer, **GAN)
    assert "from step 4" in capsys.readouterr().out
    alone, _ = train_on(second, "alone", optimizer=optimizer, **GAN)
    assert curve(run) == pytest.approx(curve(alone), abs=apart) and len(curve(run)) == 6
    assert {p.device.type for p in model.parameters()} == {second}


@on_each_device
def test_blocks_sharded_over_a_single_device_learn_the_same(device, train_on, tmp_path):
    plain, _ = train_on(device, "plain", optimizer="adamw", **GAN)
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", store=store, rank=0, world_size=1)
    try:
        sharded, _ = train_on(device, "sharded", optimizer="adamw", parallel="fsdp", **GAN)
        _, _, tokenizer, config = start(tmp_path / "state", parallel="fsdp")
        task = TokenizerTask(tokenizer, config)
        task.build()
        state = State.new(task, torch.device(device))
        assert all(isinstance(block, FSDPModule) for block in task.blocks(state.model))
    finally:
        dist.destroy_process_group()
    assert curve(sharded) == pytest.approx(curve(plain), abs=0.01)


@on_each_device
@pytest.mark.parametrize("kind", ["autoregressive", "masked"])
def test_samples_of_a_prior_are_those_of_the_cpu_but_for_rounding(device, kind):
    prior, asked, config = (
        random_prior(kind, num_tokens=8),
        torch.tensor([[i % 4] for i in range(16)]),
        SampleConfig(),
    )
    found, cpu = (sample(prior.to(where), asked, config, 0, range(16)) for where in (device, "cpu"))
    assert found.device.type == device
    assert (found.cpu() == cpu).float().mean() > 0.9 and len(cpu.unique(dim=0)) > 8
