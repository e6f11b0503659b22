"""What every loader returns: M modalities of the same N samples, in memory or memory-mapped.

Images stay uint8 until they are on the device that trains, and a batch is an index, not a Python loop over
samples: five modalities of 60,000 small colour images are 706 MB as bytes and 2.8 GB as floats.
"""

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike

import numpy as np
import torch
from torch import Tensor

from mmvm.errors import UserError
from mmvm.likelihoods import Likelihood

PIECE = 4_096   # rows that move to another device at once


@dataclass(frozen=True)
class Modality:
    """What the model has to know of one modality.

    `shape` is one sample's, `likelihood` is p_m(x_m | z_m), `weight` is w_m in the loss, and the stored value
    times `scale` is what networks and likelihood see (1/255 for images stored as bytes).
    """

    name: str
    shape: tuple[int, ...]
    likelihood: Likelihood
    weight: float = 1.0
    scale: float = 1.0

    def __post_init__(self):
        if not tuple(self.shape):
            raise UserError(f"modality {self.name!r} has shape (): one number per sample is (1,), an array of (N, 1)")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise UserError(f"modality {self.name!r}: weight must be at least 0 and finite, got {self.weight}")
        if not (math.isfinite(self.scale) and self.scale):
            raise UserError(f"modality {self.name!r}: scale must be finite and not 0, got {self.scale}")

    def check_parameters(self, given: Tensor) -> None:
        """Raises `UserError` where a decoder's output (B, ...) is not what the likelihood takes; it would broadcast."""
        expected = self.likelihood.parameter_shape(tuple(self.shape))
        if given.ndim != 1 + len(expected) or any(n not in (m, "C") for m, n in zip(given.shape[1:], expected)):
            raise UserError(f"the decoder of modality {self.name!r} gives {tuple(given.shape)}, where samples of shape "
                            f"{tuple(self.shape)} under {type(self.likelihood).__name__} take "
                            f"(B, {', '.join(map(str, expected))}): correct the decoder or the description")

    def prepare(self, x: Tensor) -> Tensor:
        """Stored values (B, *shape) as the floats the networks see; token ids stay integers (scale 1)."""
        if self.likelihood.discrete and not x.is_floating_point():
            return x.long()
        return x.float() * self.scale


class Repeated:
    """Rows of a tensor by index, some more than once: ten texts share one stored image.

    values (R, *shape), possibly memory-mapped; rows (N,) which of them each sample is. Has of a tensor what
    `MultimodalData` and the training loop use; `index_select` and `[...]` return tensors.
    """

    def __init__(self, values: Tensor, rows: Tensor):
        self.values, self.rows = values, rows

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.rows), *self.values.shape[1:]))

    device = property(lambda self: self.values.device)
    dtype = property(lambda self: self.values.dtype)
    ndim = property(lambda self: self.values.ndim)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index) -> Tensor:
        return self.values[self.rows[index]]

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        return self.values.index_select(dim, self.rows.index_select(0, index))

    def select(self, index: Tensor) -> "Repeated":
        """Samples of `index` (B,), looking into the same values."""
        return Repeated(self.values, self.rows.index_select(0, index))

    def to(self, device) -> "Repeated":
        """On another device, only the values that are used, a piece at a time."""
        if torch.device(device) == self.device:
            return self
        used, rows = self.rows.unique(return_inverse=True)
        values = torch.empty((len(used), *self.values.shape[1:]), dtype=self.dtype, device=device)
        for start in range(0, len(used), PIECE):
            values[start:start + PIECE] = self.values.index_select(0, used[start:start + PIECE]).to(device)
        return Repeated(values, rows.to(device))

    def numel(self) -> int:
        """Numbers that are stored for these rows, not rows times their size."""
        return len(self.rows.unique()) * self.values[0].numel() if len(self.values) else 0

    def element_size(self) -> int:
        return self.values.element_size()


@dataclass
class Batch:
    """`x[m]` is (B, *shape_m) in its stored type; `observed` (M, B) says which modalities are present."""

    x: list[Tensor]
    observed: Tensor
    labels: Tensor | None = None


@dataclass
class MultimodalData:
    """N samples of M modalities.

    modalities  name -> (N, *shape), in the order of `specs`: tensors or `Repeated` rows of them
    specs       one `Modality` each
    labels      (N,) class numbers or (N, C) zeros and ones, or None
    observed    (M, N) bool; None means that everything is present
    ids         one name per sample for error messages, or None
    n_classes   C, where the labels are class numbers
    files       the memory-mapped arrays that `modalities` look into, one each, which may be larger than memory

    Raises `UserError` where the pieces do not fit together.
    """

    modalities: dict[str, Tensor | Repeated]
    specs: tuple[Modality, ...]
    labels: Tensor | None = None
    observed: Tensor | None = None
    ids: list[str] | None = None
    n_classes: int | None = None
    files: tuple[np.memmap, ...] = ()

    def __post_init__(self):
        names = [spec.name for spec in self.specs]
        if list(self.modalities) != names:
            raise UserError(f"the arrays are named {list(self.modalities)}, their descriptions {names}: "
                            "give both the same names in the same order")
        if not names:
            raise UserError("there is no modality: give at least one array and its description")
        for spec in self.specs:
            x = self.modalities[spec.name]
            if tuple(x.shape[1:]) != tuple(spec.shape):
                raise UserError(f"modality {spec.name!r} holds samples of shape {tuple(x.shape[1:])}, its "
                                f"description says {tuple(spec.shape)}: correct one of them")
            if len(x) != len(self):
                raise UserError(f"modality {spec.name!r} has {len(x)} samples, {names[0]!r} has {len(self)}: "
                                "row i of every modality must be the same sample; mark what is absent in `observed`")
        if self.labels is not None and len(self.labels) != len(self):
            raise UserError(f"{len(self.labels)} labels for {len(self)} samples: give one label per sample")
        if self.ids is not None and len(self.ids) != len(self):
            raise UserError(f"{len(self.ids)} ids for {len(self)} samples: give one id per sample")
        if self.observed is None:
            self.observed = torch.ones(len(self.specs), len(self), dtype=torch.bool)
        if self.observed.shape != (len(self.specs), len(self)) or self.observed.dtype != torch.bool:
            raise UserError(f"`observed` must be a bool tensor of shape (M, N) = {(len(self.specs), len(self))}, "
                            f"it is {self.observed.dtype} of shape {tuple(self.observed.shape)}")
        absent = torch.nonzero(~self.observed.any(0))
        if len(absent):
            raise UserError(f"sample {self.ids[absent[0]] if self.ids else int(absent[0])} has no observed modality "
                            f"({len(absent)} such samples): drop them, there is nothing to learn from them")

    def __len__(self) -> int:
        return len(next(iter(self.modalities.values())))

    @classmethod
    def from_files(cls, paths: Mapping[str, str | PathLike], specs: tuple[Modality, ...], **rest) -> "MultimodalData":
        """Modalities from .npy files, memory-mapped: only what a batch needs is ever read. `rest` as above."""
        files = {}
        for name, path in paths.items():
            try:
                files[name] = np.load(path, mmap_mode="c")  # PyTorch wants it writable; the file stays as it is
            except (OSError, ValueError) as error:
                raise UserError(f"{path} cannot be memory-mapped ({error}): write modality {name!r} there with "
                                "numpy.save") from None
        return cls({name: torch.from_numpy(file) for name, file in files.items()}, specs, files=tuple(files.values()),
                   **rest)

    @property
    def names(self) -> list[str]:
        return [spec.name for spec in self.specs]

    @property
    def device(self) -> torch.device:
        return next(iter(self.modalities.values())).device

    def batch(self, index: Tensor) -> Batch:
        """The samples of `index` (B,), gathered at once on whichever device the data lives."""
        return Batch([x.index_select(0, index) for x in self.modalities.values()],
                     self.observed.index_select(1, index),
                     None if self.labels is None else self.labels.index_select(0, index))

    def announce(self, index: Tensor) -> None:
        """Tells the system which samples are wanted next: it reads them from the disk while others are computed on."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return  # then they are read when they are wanted
        for x, array in zip(self.modalities.values(), self.files):
            rows = x.rows.index_select(0, index).unique() if isinstance(x, Repeated) else index.sort().values
            size, start = array.strides[0], array.offset % mmap.ALLOCATIONGRANULARITY
            for row in rows.tolist():
                first = start + row * size
                page = first - first % mmap.PAGESIZE
                array._mmap.madvise(mmap.MADV_WILLNEED, page, first + size - page)

    def batches(self, batch_size: int):
        """All samples in their own order, `batch_size` at a time; the last batch may be smaller."""
        for index in torch.arange(len(self), device=self.device).split(batch_size):
            yield self.batch(index)

    def subset(self, index) -> "MultimodalData":
        """The samples of `index` (integers, a slice or a bool mask), copied."""
        index = torch.arange(len(self))[index]
        on_device = index.to(self.device)
        batch = self.batch(on_device)
        return replace(self, modalities=dict(zip(self.names, batch.x)), labels=batch.labels, observed=batch.observed,
                       files=(), ids=None if self.ids is None else [self.ids[i] for i in index.tolist()])

    def to(self, device) -> "MultimodalData":
        return replace(self, files=self.files if torch.device(device) == self.device else (),
                       modalities={name: x.to(device) for name, x in self.modalities.items()},
                       labels=None if self.labels is None else self.labels.to(device),
                       observed=self.observed.to(device))
