"""Several processes on one model, started by `torchrun --nproc-per-node N -m mmvm train ...`.

Each process holds the model and all data and computes its share of every batch; gradients are averaged, so N processes
make the updates that one would make at the same batch size, up to rounding and the draws from the posteriors, which
differ. Process 0 alone evaluates and writes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process's number, how many there are, and its number on this machine, which is that of its GPU."""

    rank: int = 0
    size: int = 1
    local: int = 0

    def share(self, index: Tensor) -> Tensor:
        """This process's part of a batch's index (B,)."""
        return index if self.size == 1 else index.chunk(self.size)[self.rank]

    def average(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def agree(self, values: Tensor, stop: bool) -> bool:
        """Averages `values` over the processes, in place, and says whether one of them was told to stop: all stop after
        the same update."""
        if self.size == 1:
            return stop
        both = self.average(torch.cat([values, values.new_tensor([float(stop)])]))
        values.copy_(both[:-1])
        return bool(both[-1] > 0)

    def told(self, text: str | None) -> str:
        """What process 0 says."""
        said: list = [text]
        if self.size > 1:
            dist.broadcast_object_list(said)
        return said[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def ranks() -> Ranks:
    """Of this process; one of one where nothing was started."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))


@contextmanager
def started() -> Iterator[Ranks]:
    """While open, this process belongs to the group that torchrun's environment announces, if it does."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Ranks()
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield ranks()
    finally:
        dist.destroy_process_group()
