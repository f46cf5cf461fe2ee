"""One run in several processes, as torchrun starts them: each has its rows of a batch, the gradients are averaged.

    with joined(group(), device):
        forward = group().parallel(model)          # after its backward pass each process has the same gradients
        loss = group().mean(loss)

A single process is a group of one, in which nothing is sent.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Group(NamedTuple):
    """The place of this process, from 0, and how many there are in all; the same on its own machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def device(self, name: str) -> str:
        """The GPU of this process, where the name is that of all of them."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.size > 1 else name

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model, with the gradients of a backward pass averaged over the processes."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def mean(self, value: Tensor) -> Tensor:
        """The mean of the processes' values; infinite or NaN for all where it is for one."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def largest(self, number: int, device: torch.device) -> int:
        """The largest of the processes' numbers, so that all decide alike."""
        if self.size == 1:
            return number
        together = torch.tensor(number, device=device)
        dist.all_reduce(together, dist.ReduceOp.MAX)
        return int(together)


ALONE = Group()


def group() -> Group:
    """This process as torchrun's environment has it; a group of one where there is none."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Group(*(int(os.environ[name]) for name in names)) if all(name in os.environ for name in names) else ALONE


@contextmanager
def joined(group: Group, device: torch.device) -> Iterator[None]:
    """Connected with the other processes, all of which have come this far.

    Raises ConnectionError in one sentence where one of them is lost.
    """
    if group.size == 1:
        yield
        return
    if device.type == "cuda":
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        dist.barrier()
        yield
    except RuntimeError as error:
        if lost(error):
            raise ConnectionError(f"train: process {group.rank} of {group.size} has lost another") from error
        raise
    finally:
        dist.destroy_process_group()


def lost(error: RuntimeError) -> bool:
    """Whether it says that another process does not answer."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "Connection", "NCCL"))


def apart(forward: nn.Module) -> AbstractContextManager[object]:
    """Gradients are added up in this process only, until the next backward pass outside of it."""
    return forward.no_sync() if isinstance(forward, DistributedDataParallel) else nullcontext()
