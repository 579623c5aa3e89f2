"""Quantizers on two processes compute what they compute on one: losses, gradients, codebooks."""

import pytest
import torch
import torch.distributed as dist
from quantizer_cases import CASES, build, step

STEPS = 3


def run(rank: int, folder: str) -> None:
    """One of two processes: every case on its half of the batch."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    made = {}
    for case in CASES:
        quantizer = build(case)
        steps = [step(quantizer, number, rank, 2) for number in range(STEPS)]
        made[case] = steps, quantizer.state_dict()
    torch.save(made, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("spread"))
    torch.multiprocessing.spawn(run, (folder,), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(case, halves):
    quantizer = build(case)
    (first, state), (second, other_state) = (half[case] for half in halves)
    for number in range(STEPS):
        whole, a, b = step(quantizer, number), first[number], second[number]
        assert whole.keys() == a.keys() == b.keys()
        for name, want in whole.items():
            if name in ("z.grad", "codes"):  # parts are interleaved; each loss is a mean over half the batch
                got = torch.stack([a[name], b[name]], 1).flatten(0, 1) / (2 if name == "z.grad" else 1)
            else:
                got = (a[name] + b[name]) / 2
            assert torch.allclose(got, want, rtol=1e-4, atol=1e-6), (number, name)
    for name, want in quantizer.state_dict().items():
        assert torch.equal(state[name], other_state[name]), f"{name} is one in both processes"
        assert torch.allclose(state[name], want, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("case", ["vq", "lfq", "softvq"])
def test_the_batchs_entropy_is_over_both_processes(case, halves):
    """And not the mean of each one's own, which is less."""
    a, b = (half[case][0][0]["entropy_batch"] for half in halves)
    assert torch.equal(a, b)
    alone = [step(build(case), 0, rank, 2)["entropy_batch"] for rank in (0, 1)]
    assert a > sum(alone) / 2 + 0.01
