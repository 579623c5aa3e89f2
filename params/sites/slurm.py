"""A Slurm cluster: up to four nodes of eight GPUs, each GPU given to one run. Change what is yours."""

from parsl import Config, HighThroughputExecutor
from parsl.launchers import SrunLauncher
from parsl.providers import SlurmProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            available_accelerators=8,
            max_workers_per_node=8,
            cores_per_worker=1e-3,  # GPUs are what is scarce
            heartbeat_period=15,
            heartbeat_threshold=60,
            block_error_handler=False,
            provider=SlurmProvider(
                partition="gpu",
                account=None,
                walltime="24:00:00",  # runs that are cut off go on in the next job
                nodes_per_block=1,
                init_blocks=1,
                min_blocks=0,
                max_blocks=4,
                exclusive=True,
                scheduler_options="#SBATCH --gpus-per-node=8",
                worker_init="source .venv/bin/activate",  # or mamba activate tokenization
                launcher=SrunLauncher(),
            ),
        )
    ],
)
