"""One model on several devices."""

from __future__ import annotations

from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tok1d.config import TrainConfig
from tok1d.distributed import world_size


def wrap(model: nn.Module, config: TrainConfig, accelerator: Accelerator) -> nn.Module:
    """The module to call in training: its gradients are means over all processes."""
    if world_size() == 1:
        return model
    devices = [accelerator.device] if accelerator.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
