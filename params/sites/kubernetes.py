"""A Kubernetes cluster: up to eight pods of one GPU each, which share a volume. Change what is yours.

It needs Kubernetes' own library: pip install kubernetes
"""

from parsl import Config, HighThroughputExecutor
from parsl.addresses import address_by_route
from parsl.providers import KubernetesProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            available_accelerators=1,
            max_workers_per_node=1,
            cores_per_worker=1e-3,
            address=address_by_route(),
            heartbeat_period=15,
            heartbeat_threshold=60,
            block_error_handler=False,
            provider=KubernetesProvider(
                namespace="default",
                image="registry.example/tok1d:latest",
                worker_init="cd /mnt/tok1d && . .venv/bin/activate",
                persistent_volumes=[("shared", "/mnt")],
                init_cpu=8,
                max_cpu=8,
                init_mem="64Gi",
                max_mem="64Gi",
                extra_requests={"nvidia.com/gpu": "1"},
                extra_limits={"nvidia.com/gpu": "1"},
                init_blocks=1,
                min_blocks=0,
                max_blocks=8,
            ),
        )
    ],
)
