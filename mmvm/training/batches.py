"""The order in which a run meets its samples, and how a batch reaches the device that trains."""

import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from mmvm.data import Batch, MultimodalData, Repeated
from mmvm.errors import UserError
from mmvm.training.distributed import Ranks


class Batches:
    """An epoch is a fresh permutation, a function of (seed, epoch) alone, cut into batches; the remainder, fewer than
    `size` samples and others in every epoch, is left out. Each process gets its share of every batch."""

    def __init__(self, data: MultimodalData, size: int, seed: int, device: torch.device, ranks: Ranks):
        self.data, self.seed, self.device, self.ranks = on_gpu_if_it_fits(data, device), int(seed), device, ranks
        self.size = min(int(size), len(data))
        if self.size % ranks.size:
            raise UserError(f"a batch of {self.size} samples cannot be shared by {ranks.size} processes: choose a "
                            "batch_size that is a multiple of their number")
        self.per_epoch = len(data) // self.size

    def of_epoch(self, epoch: int, done: int) -> Iterator[Batch]:
        """This process's share of the batches of an epoch of which `done` were seen before."""
        return prefetched(self.data, [*map(self.ranks.share, self.order(epoch).split(self.size)[done:])], self.device)

    def order(self, epoch: int) -> Tensor:
        """The samples of an epoch, of all processes."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.data), generator=generator)[:self.per_epoch * self.size].to(self.data.device)

    def any(self) -> Batch:
        """A batch to measure with: the first samples, as many as a process gets."""
        index = torch.arange(self.size // self.ranks.size, device=self.data.device)
        return to_device(self.data.batch(index), self.device)


def on_gpu_if_it_fits(data: MultimodalData, device: torch.device) -> MultimodalData:
    """The whole set on the GPU when it takes less than half of what is free: then a batch is an index on the device."""
    if device.type != "cuda":
        return data
    n_bytes = sum(x.numel() * x.element_size() for x in data.modalities.values())
    return data.to(device) if n_bytes < 0.5 * torch.cuda.mem_get_info(device)[0] else data


def prefetched(data: MultimodalData, indices: list[Tensor], device: torch.device) -> Iterator[Batch]:
    """The batches on `device`, each made ready while the one before is computed on: a disk reads ahead, and a GPU's
    next batch is gathered by a thread. On a CPU a thread would take more from the computation than it gives."""
    if device.type == "cuda" and data.device.type == "cpu":
        with ThreadPoolExecutor(1) as gatherer:
            ahead = [gatherer.submit(_pinned, data, index) for index in indices[:1]]
            for i in range(len(indices)):
                batch = ahead.pop().result()
                ahead += [gatherer.submit(_pinned, data, index) for index in indices[i + 1:i + 2]]
                yield to_device(batch, device)
        return
    for i, index in enumerate(indices):
        if data.files and i + 1 < len(indices):
            announce(data, indices[i + 1])
        yield data.batch(index)


def announce(data: MultimodalData, index: Tensor) -> None:
    """Tells the system which samples are wanted next: it reads them from the disk while others are computed on."""
    if not hasattr(mmap, "MADV_WILLNEED"):
        return  # then they are read when they are wanted
    for x, array in zip(data.modalities.values(), data.files):
        rows = x.rows.index_select(0, index).unique() if isinstance(x, Repeated) else index.sort().values
        size, start = array.strides[0], array.offset % mmap.ALLOCATIONGRANULARITY
        for row in rows.tolist():
            first = start + row * size
            page = first - first % mmap.PAGESIZE
            array._mmap.madvise(mmap.MADV_WILLNEED, page, first + size - page)  # type: ignore[attr-defined]


def to_device(batch: Batch, device: torch.device) -> Batch:
    if batch.x[0].device.type == device.type:
        return batch
    return batch.map(lambda x: x.to(device, non_blocking=True))


def _pinned(data: MultimodalData, index: Tensor) -> Batch:
    """A batch in memory that a GPU can read by itself."""
    return data.batch(index).map(Tensor.pin_memory)
