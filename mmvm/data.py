"""What every loader returns: M modalities of the same N samples, in memory or memory-mapped.

Images stay uint8 until they are on the device that trains, and a batch is an index, not a Python loop over
samples: five modalities of 60,000 small colour images are 706 MB as bytes and 2.8 GB as floats.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmvm import arrays
from mmvm.errors import UserError
from mmvm.files import read_array
from mmvm.modality import BESIDES, Modality, check_units as check_units, groups_of as groups_of, in_order as in_order

__all__ = ["Batch", "MultimodalData", "Repeated"]

PIECE = 4_096   # rows that move to another device at once
ROWS = 1_024    # that are described at once


class Repeated:
    """Rows of a tensor by index, some more than once: ten texts share one stored image.

    values (R, *shape), possibly memory-mapped; rows (N,) which of them each sample is. Has of a tensor what
    `MultimodalData` and the training loop use; `index_select` and `[...]` return tensors.

    >>> mmvm.data.Repeated(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0, 1]))[:].flatten()
    tensor([1., 1., 2.])
    """

    def __init__(self, values: Tensor, rows: Tensor):
        self.values, self.rows = arrays.as_tensor(values, "`values`"), rows

    shape = property(lambda self: torch.Size((len(self.rows), *self.values.shape[1:])))
    device = property(lambda self: self.values.device)
    dtype = property(lambda self: self.values.dtype)
    ndim = property(lambda self: self.values.ndim)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Tensor:
        return self.values[self.rows[index]]

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        return self.values.index_select(dim, self.rows.index_select(0, index))

    def select(self, index: Tensor) -> "Repeated":
        """Samples of `index` (B,), looking into the same values."""
        return Repeated(self.values, self.rows.index_select(0, index))

    def to(self, device: torch.device | str) -> "Repeated":
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
    """`x[m]` is (B, *shape_m) in its stored type; `observed` (M, B) says which modalities are present, `trust` (M, B)
    how far each is to be trusted, where the data say so.

    >>> data.batch(torch.tensor([0, 3])).x[0].shape
    torch.Size([2, 3])
    """

    x: list[Tensor]
    observed: Tensor
    labels: Tensor | None = None
    trust: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """What a model reads: all but the labels."""
        return [*self.x, self.observed, *([] if self.trust is None else [self.trust])]

    @property
    def told(self) -> dict[str, Tensor]:
        """`trust` by name, where there is one: a model's own `forward` need not know of what its data never say."""
        return {} if self.trust is None else {"trust": self.trust}

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same of changed `tensors`: on another device, for instance."""
        return Batch([change(x) for x in self.x], change(self.observed),
                     trust=None if self.trust is None else change(self.trust))


@dataclass
class MultimodalData(Dataset):
    """N samples of M modalities; a data set of PyTorch, `data[i]` being one sample.

    modalities  name -> (N, *shape), in the order of `specs`: tensors or `Repeated` rows of them, taken as they are, or
                what `mmvm.arrays` copies: numpy and sparse arrays, pandas frames, lists (float64 becomes float32)
    specs       one `Modality` each; a frame's columns become its `features`, or have to be those; `standardise` takes
                its numbers from these samples, so give the training data's specs with all others
    labels      (N,) class numbers or names, or (N, C) zeros and ones, or None; read by `mmvm.arrays.classes`
    observed    (M, N) bool; None means that everything is present. Or name -> (N,) bool, or (N, *shape) bool for the
                entries of a modality with missing="nan", which are then stored as NaN; a sample of NaN alone is not
                observed
    ids         one name per sample for error messages, or None; a frame's index where that is text or unique
    n_classes   C, where the labels are class numbers
    files       the memory-mapped arrays that `modalities` look into, one each, which may be larger than memory
    label_names of the classes, or of the columns of `labels`; give those of the training data with text labels
    trust       (M, N) numbers of 0 or more, how far each modality of a sample is to be trusted against its others, for
                objectives that take their weights from the data; or name -> (N,), 1 where it lacks one; or None

    Raises `UserError` where the pieces do not fit together.

    >>> few = data.subset(slice(10))
    >>> len(few), few.names, few[0]["label"]
    (10, ['a', 'b'], tensor(0))
    """

    modalities: dict[str, Tensor | Repeated]
    specs: tuple[Modality, ...]
    labels: Tensor | None = None
    observed: Tensor = None  # type: ignore[assignment]  # None where it is given, a tensor ever after
    ids: list[str] | None = None
    n_classes: int | None = None
    files: tuple[np.memmap, ...] = ()
    label_names: tuple[str, ...] = ()
    trust: Tensor | None = None

    if TYPE_CHECKING:  # what is taken; the fields say what is kept
        def __init__(self, modalities: Mapping[str, Any], specs: Sequence[Modality], labels: Any = None,
                     observed: Any = None, ids: Sequence[str] | None = None, n_classes: int | None = None,
                     files: tuple[np.memmap, ...] = (), label_names: Sequence[str] = (),
                     trust: Any = None) -> None: ...

    def __post_init__(self) -> None:
        if not isinstance(self.modalities, Mapping):
            raise UserError(f"the arrays are in a {type(self.modalities).__name__}: give a dictionary, name -> array")
        specs, self.specs = self.specs, tuple(self.specs if isinstance(self.specs, Iterable) else ())
        names = [spec.name if isinstance(spec, Modality) else None for spec in self.specs]
        if isinstance(specs, Modality) or None in names:
            raise UserError(f"the descriptions are no list of Modality but a {type(specs).__name__}: give one Modality "
                            "for each array, [Modality(...), ...], in the order of the arrays")
        if list(self.modalities) != names:
            raise UserError(f"the arrays are named {list(self.modalities)}, their descriptions {names}: "
                            "give both the same names in the same order")
        if not names:
            raise UserError("there is no modality: give at least one array and its description")
        if taken := BESIDES.intersection(names):
            raise UserError(f"a modality is named {min(taken)!r}, which a sample has besides its modalities: rename it")
        index = arrays.common_index({**self.modalities, "labels": self.labels, **arrays.by_name(
            observed=self.observed, trust=self.trust)})
        read = [arrays.of_modality(x, spec) for x, spec in zip(self.modalities.values(), self.specs)]
        self.modalities = {name: x for name, (x, _) in zip(names, read)}
        self._check_shapes()
        self.specs = tuple(spec if spec.features == features else replace(spec, features=features)
                           for spec, (_, features) in zip(self.specs, read))
        if self.labels is not None:
            self.labels, self.label_names = arrays.classes(self.labels, self.label_names)
            if len(self.labels) != len(self):
                raise UserError(f"{len(self.labels)} labels for {len(self)} samples: give one label per sample")
            if self.labels.ndim == 1 and self.label_names and self.n_classes is None:
                self.n_classes = len(self.label_names)
            arrays.check_classes(self.labels, self.n_classes)
        own = arrays.ids_of(index)
        self.ids = own if self.ids is None else list(map(str, self.ids))
        if self.ids is not None and len(self.ids) != len(self):
            raise UserError(f"{len(self.ids)} ids for {len(self)} samples: give one id per sample")
        others = set(own or ())  # names of their own may replace an index, but not move its names to other rows
        for i, (given, name) in enumerate(zip(self.ids or (), own or ())):
            if given != name and given in others:
                raise UserError(f"row {i} is {name} in the frames' index and {given} in `ids`: leave `ids` out, or "
                                "reset the index of the frames if their rows are in the order of `ids`")
        self._set_observed()
        if self.trust is not None:
            self.trust = arrays.trust_of(self.trust, names, self.observed, self.ids)
        self.specs = tuple(spec.fitted(self.modalities[spec.name], present)
                           for spec, present in zip(self.specs, self.observed))

    def _check_shapes(self) -> None:
        for spec in self.specs:
            if tuple((x := self.modalities[spec.name]).shape[1:]) != tuple(spec.shape):
                raise UserError(f"modality {spec.name!r} holds samples of shape {tuple(x.shape[1:])}, its "
                                f"description says {tuple(spec.shape)}: correct one of them")
            if len(x) != len(self):
                raise UserError(f"modality {spec.name!r} has {len(x)} samples, {self.names[0]!r} has {len(self)}: "
                                "row i of every modality must be the same sample; mark what is absent in `observed` "
                                "(frames: reindex both to a.index.union(b.index, sort=False), with missing='nan' for "
                                "rows of NaN; arrays and labels have to be in that order)")

    def _set_observed(self) -> None:
        if self.observed is None:
            self.observed = torch.ones(len(self.specs), len(self), dtype=torch.bool)
        observed, entries = arrays.masks(self.observed, self.names, len(self))
        self.observed = observed.to(self.device)
        if self.observed.shape != (len(self.specs), len(self)) or self.observed.dtype != torch.bool:
            raise UserError(f"`observed` must be a bool tensor of shape (M, N) = {(len(self.specs), len(self))}, "
                            f"it is {self.observed.dtype} of shape {tuple(self.observed.shape)}")
        for m, spec in enumerate(self.specs):
            x, mask = self.modalities[spec.name], entries.get(spec.name)
            if mask is not None:
                x = self.modalities[spec.name] = arrays.without(x[:], mask, spec)
            if not spec.missing and getattr(spec.likelihood, "ignore", None) is None:
                continue  # nothing within says so, and rows in files are not read for it
            pieces = [spec.known(x[i:i + PIECE]) for i in range(0, len(self), PIECE)]
            if some := [piece for piece in pieces if piece is not None]:
                here = self.observed[m] & torch.cat(some)
                self.observed = torch.cat([self.observed[:m], here[None], self.observed[m + 1:]])
        if len(absent := torch.nonzero(~self.observed.any(0))):
            raise UserError(f"sample {self.ids[absent[0]] if self.ids else int(absent[0])} has no observed modality "
                            f"({len(absent)} such samples): drop them, there is nothing to learn from them")

    def __repr__(self) -> str:
        """At most ten lines, without a value or an id of any sample."""
        size = sum(x.numel() * x.element_size() for x in self.modalities.values()) / 1e3
        taken = f"{size / 1e3:,.1f} MB" if size > 1e3 else f"{size:.1f} kB"
        lines = [f"{type(self).__name__}: {len(self):,} samples of {len(self.specs)} modalities, {taken}"
                 f"{' in files' if self.files else ''}"]
        for spec, x, seen in zip(self.specs[:7], self.modalities.values(), self.observed):
            kind = f"{tuple(spec.shape)} {str(x.dtype).removeprefix('torch.')}, {spec.likelihood}"
            lines.append(f"  {spec.name}: {kind}, {float(seen.float().mean()):.1%} observed"
                         + (", entries may be NaN" if spec.missing else ""))
        if len(self.specs) > 7:
            lines.append(f"  and {len(self.specs) - 7} more: {', '.join(self.names[7:12])}, ..."[:120])
        if self.labels is not None and self.labels.ndim == 1:
            values, counts = (x.tolist() for x in self.labels.unique(return_counts=True))
            named = [f"{self.label_names[v] if self.label_names else v} {n:,}" for v, n in zip(values, counts)]
            lines.append(f"  labels: {len(values)} classes, {', '.join(named[:8] + ['...'] * (len(named) > 8))}"[:120])
        elif self.labels is not None:
            lines.append(f"  labels: {self.labels.shape[1]} columns {', '.join(self.label_names)}"[:120].rstrip())
        return "\n".join(lines)

    def inventory(self, what: str, **groups: Sequence) -> list[str]:
        """What the set holds, in numbers and without an id: a line of samples, modalities and `groups` (name -> the
        group of each sample), one per modality of shape, type, observed range and what is missing, one of labels."""
        counts = ", ".join(f"{len(set(own)):,} {name}" for name, own in groups.items())
        lines = [f"{what}: {len(self):,} samples of {len(self.specs)} modalities" + f" ({counts})" * bool(counts)]
        for spec, x, seen in zip(self.specs, self.modalities.values(), self.observed):
            ends, unknown = [], 0
            for i in range(0, len(self), ROWS):
                piece = x[i:i + ROWS][seen[i:i + ROWS]]
                known = piece[spec.seen(piece)] if spec.missing else piece
                unknown += piece.numel() - known.numel()
                ends += [known.min().item(), known.max().item()] if known.numel() else []
            there = f"{min(ends):g} to {max(ends):g}" if ends else "none observed"
            absent = f"{int((~seen).sum()):,} samples missing"
            absent += f", {unknown:,} entries of the others" * bool(spec.missing)
            kind = str(x[:1].dtype).removeprefix("torch.")
            lines.append(f"{what}, {spec.name}: {tuple(spec.shape)} {kind}, {there}; {absent}")
        if (labels := self.labels) is not None and labels.ndim == 1:
            n = torch.bincount(labels.long(), minlength=self.n_classes or 0).tolist()
            own = [f"{self.label_names[c] if self.label_names else c} {k:,}" for c, k in enumerate(n)]
            lines.append(f"{what}, labels: {len(n)} classes, {', '.join(own)}")
        elif labels is not None:
            names = self.label_names or range(len(labels.T))
            own = [f"{name} {int((x == 1).sum()):,}" for name, x in zip(names, labels.T)]
            lines.append(f"{what}, labels: {', '.join(own)}; {int(labels.isnan().sum()):,} not known")
        return lines

    def __getitem__(self, i: int) -> dict[str, Tensor | str]:
        """One sample: modalities by name as stored, "observed" (M,), "label", "id", "trust" (M,) where there."""
        try:
            i = range(len(self))[operator.index(i)]  # an IndexError where iteration ends
        except TypeError:
            raise UserError("data[i] is one sample, i an integer: data.subset(index) has several") from None
        rest = {"observed": self.observed[:, i], "label": None if self.labels is None else self.labels[i],
                "id": None if self.ids is None else self.ids[i],
                "trust": None if self.trust is None else self.trust[:, i]}
        return {**{name: x[i] for name, x in self.modalities.items()},
                **{name: value for name, value in rest.items() if value is not None}}

    def __len__(self) -> int:
        return len(next(iter(self.modalities.values())))

    @classmethod
    def from_files(cls, paths: Mapping[str, str | PathLike], specs: Sequence[Modality],
                   **rest: Any) -> "MultimodalData":
        """Modalities from .npy files, memory-mapped: only what a batch needs is ever read, as it is stored: (N, *shape)
        bytes, integers or floats in the machine's own byte order. `rest` as above. Raises `UserError`."""
        files: dict[str, Any] = {}
        for name, path in paths.items():
            try:
                files[name] = read_array(Path(path), mmap_mode="c")  # PyTorch wants it writable; the file stays as is
                if not files[name].dtype.isnative or files[name].dtype.str[1:] in ("u2", "u4", "u8"):
                    raise UserError(f"{path} holds {files[name].dtype.str}, which is not mapped")
            except UserError as error:
                raise UserError(f"{error}: write modality {name!r} there with numpy.save, as floats or int32") from None
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
        return Batch([x.index_select(0, index) for x in self.modalities.values()], self.observed.index_select(1, index),
                     None if self.labels is None else self.labels.index_select(0, index),
                     None if self.trust is None else self.trust.index_select(1, index))

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All samples in their own order, `batch_size` at a time; the last batch may be smaller."""
        for index in torch.arange(len(self), device=self.device).split(batch_size):
            yield self.batch(index)

    def subset(self, index: Any) -> "MultimodalData":
        """The samples of `index` (integers, a slice or a bool mask), copied; of files, looking into the same ones.
        Raises `UserError` for any other index."""
        index = torch.arange(len(self))[index if isinstance(index, slice) else self._rows(index)]
        on_device = index.to(self.device)
        x = {name: (x.index_select(0, on_device) if not self.files else
                    x.select(on_device) if isinstance(x, Repeated) else Repeated(x, on_device))
             for name, x in self.modalities.items()}
        return replace(self, modalities=x, observed=self.observed.index_select(1, on_device),
                       labels=None if self.labels is None else self.labels.index_select(0, on_device),
                       ids=None if self.ids is None else [self.ids[i] for i in index.tolist()],
                       trust=None if self.trust is None else self.trust.index_select(1, on_device))

    def _rows(self, index: Any) -> Tensor:
        """Integers or a bool mask, for samples that there are."""
        array, n = np.array(index.tolist() if hasattr(index, "tolist") else index), len(self)
        if array.ndim != 1 or array.size and array.dtype.kind not in "biu":
            raise UserError(f"an index of {array.dtype} and shape {array.shape}: give row numbers [3, 5], one as [3], "
                            "a mask of bools, or a slice; of ids the rows, [data.ids.index(name) for name in some]")
        if array.dtype.kind == "b" and len(array) != n:
            raise UserError(f"a mask of {len(array)} bools for {n} samples: give one per sample")
        if array.size and array.dtype.kind != "b" and not -n <= array.min() <= array.max() < n:
            raise UserError(f"rows {array.min()} to {array.max()} are asked for, the {n} samples are 0 to {n - 1}")
        return torch.from_numpy(array if array.dtype.kind == "b" else array.astype(np.int64))

    def to(self, device: torch.device | str) -> "MultimodalData":
        return replace(self, files=self.files if torch.device(device) == self.device else (),
                       modalities={name: x.to(device) for name, x in self.modalities.items()},
                       labels=None if self.labels is None else self.labels.to(device),
                       observed=self.observed.to(device), trust=None if self.trust is None else self.trust.to(device))
