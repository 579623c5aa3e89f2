"""This machine: each of its GPUs is given to one run at a time; without a GPU, two runs share the CPU.

TOK1D_SLOTS=4 says how many runs at a time, TOK1D_GPUS=0,1,5 (or CUDA_VISIBLE_DEVICES) which GPUs.
"""

import os

from parsl import Config, HighThroughputExecutor
from parsl.providers import LocalProvider

from tok1d.config.fields import ConfigError

gpus = []
said = os.environ.get("TOK1D_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES"))
if said is not None:
    gpus = [gpu for gpu in said.split(",") if gpu]
elif any(os.path.exists(f"/dev/{driver}") for driver in ("nvidiactl", "kfd", "dxg")):  # NVIDIA, AMD, Windows
    import torch  # seconds

    gpus = [str(i) for i in range(torch.cuda.device_count())]

slots = os.environ.get("TOK1D_SLOTS") or str(len(gpus) or 2)
if not slots.isdecimal() or int(slots) < 1:
    raise ConfigError(f"TOK1D_SLOTS={slots} is no number of runs at a time: type TOK1D_SLOTS=2")
slots = int(slots)
threads = max(1, (os.cpu_count() or 1) // slots)  # more would be in each other's way

config = Config(
    executors=[
        HighThroughputExecutor(
            available_accelerators=gpus,
            max_workers_per_node=slots,
            cores_per_worker=1e-3,  # GPUs are what is scarce
            address="127.0.0.1",
            heartbeat_period=2,
            heartbeat_threshold=10,  # seconds until runs of a killed pool start again
            block_error_handler=False,
            provider=LocalProvider(
                init_blocks=1,
                min_blocks=0,
                max_blocks=1,  # two would book the same GPUs
                worker_init=f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{threads}}}",
            ),
        )
    ],
    strategy_period=1,
)
