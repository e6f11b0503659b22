"""Arrays as people have them, as tensors: numpy, pandas, masked and sparse arrays, lists.

Tensors are taken as they are, everything else is copied, whatever its strides, byte order or flags. Floats wider than
32 bits become float32, unsigned integers wider than a byte, tensors too, the next signed type; the rest stays.
Whole columns decide: one that is no number is refused by name.
"""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmvm.errors import UserError

WIDENED = {"f8": "f4", "f16": "f4", "u2": "i4", "u4": "i8"}  # numpy's kind and bytes


def as_tensor(values: Any, what: str, missing: bool = False) -> Tensor:
    """`values` as a tensor. Masked entries become NaN where entries may be `missing`, else they are refused, as is all
    that is no number: `UserError`, with `what` it is."""
    if hasattr(values, "index_select"):
        wide = not values.dtype.is_signed and values.dtype.itemsize > 1  # PyTorch hardly computes with these
        return as_tensor(values.cpu().numpy(), what).to(values.device) if wide else values
    if hasattr(values, "iloc"):
        values = _numbers_of(values, what)
    if hasattr(values, "toarray"):  # sparse
        values = values.toarray()
    if isinstance(values, np.ma.MaskedArray):
        if (gone := int(np.ma.count_masked(values))) and not missing:
            raise UserError(f"{what} is a masked array with {gone} masked entries: fill them, or describe the modality "
                            "with missing='nan'")
        values = np.ma.filled(values.astype(np.float32), np.nan) if gone else values.data
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{what} cannot be made an array ({error}): give every sample as many entries") from None
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    if array.dtype.kind not in "biuf" or kind == "u8" or not array.ndim:
        raise UserError(f"{what} holds {_kind(array)}: give numbers, one row per sample, as in "
                        "x.astype('float32'), or of texts classes, pandas.factorize(x)[0] with Categorical(ignore=-1)")
    return torch.from_numpy(np.array(array, WIDENED.get(kind, array.dtype.newbyteorder("=")), order="C"))


def of_modality(values: Any, spec: Any) -> tuple[Tensor, tuple[str, ...]]:
    """The tensor of one modality, and the names of its features where `values` is a frame with named columns.

    Raises `UserError` where these are not those of the description (a `Modality`), or in another order."""
    what = f"modality {spec.name!r}"
    x = as_tensor(values, what, missing=spec.missing is not None)
    if x.ndim == 1 and tuple(spec.shape) == (1,):
        x = x.unsqueeze(1)
    if not (hasattr(values, "iloc") and hasattr(values, "columns")) or tuple(spec.shape) != tuple(x.shape[1:]):
        return x, spec.features
    names = tuple(map(str, values.columns))
    for i, (found, expected) in enumerate(zip(names, spec.features)):
        if found != expected:
            raise UserError(f"{what}: column {i} is {found!r}, the description says {expected!r}: give the columns in "
                            "its order, as in frame[list(spec.features)]")
    return x, names


def common_index(named: Mapping[str, Any]) -> Any:
    """The index that the frames among the values share, None where there are none. Raises `UserError` with the first
    row in which two of them differ."""
    frames = {name: values.index for name, values in named.items() if hasattr(values, "iloc")}
    first = next(iter(frames), "")
    for name, index in frames.items():
        pairs = enumerate(zip(index, frames[first])) if len(index) == len(frames[first]) else ()
        if (i := next((i for i, (a, b) in pairs if a != b), None)) is not None:
            raise UserError(f"row {i} of {name!r} is {index[i]!r}, of {first!r} it is {frames[first][i]!r}: give all "
                            "frames the same rows in one order, b.loc[a.index], or reindex to a.index.union("
                            "b.index, sort=False), in whose order arrays and labels have to be")
    return frames.get(first)


def by_name(**given: Any) -> dict[str, Any]:
    """What is given, and what is in it where it is a mapping."""
    return {**given, **{f"{what} of {name}": own for what, values in given.items() if isinstance(values, Mapping)
                        for name, own in values.items()}}


def ids_of(index: Any) -> list[str] | None:
    """A frame's index as ids, where it is text or unique and says more than the number of the row."""
    if index is None or list(index) == list(range(len(index))):
        return None
    return [str(i) for i in index] if index.is_unique or index.inferred_type == "string" else None


def classes(labels: Any, names: Sequence[str] = ()) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as a tensor, and the names of the classes, or of the columns.

    (N,) text or categories become class numbers in the order of `names`, by default that of the categories or of the
    alphabet. (N,) whole floats, which pandas makes of integers, become integers; others are refused. (N, C) as it is.
    """
    if hasattr(labels, "iloc") and not hasattr(labels, "columns"):
        labels = getattr(labels, "cat", labels)  # of a series of categories
    if hasattr(labels, "categories"):
        codes, categories = np.asarray(labels.codes), tuple(map(str, labels.categories))
        _refuse_first(codes < 0, "is missing: drop the sample or give it a class")
        labels, names = [categories[code] for code in codes], names or categories
    try:
        array = labels if hasattr(labels, "index_select") else np.asarray(labels)
    except ValueError:  # lists of different lengths
        array = np.array(labels, object)
    if array.ndim == 2 and array.shape[1] == 1 and (not isinstance(array, Tensor) and array.dtype.kind in "OUT"
                                                    or array.max() > 1):
        return classes(array[:, 0], names)  # one column, of classes
    if hasattr(labels, "columns") and hasattr(labels, "iloc"):
        names = names or tuple(map(str, labels.columns))
    if not isinstance(array, Tensor) and array.dtype.kind in "OUT" and not hasattr(labels, "columns"):
        text = np.atleast_1d(array).tolist()
        _refuse_first([isinstance(label, list | tuple | set | np.ndarray) for label in text], "is a list: of several "
                      "labels a sample give an (N, C) table of zeros and ones, as sklearn's MultiLabelBinarizer makes")
        _refuse_first([not isinstance(label, str) for label in text], "is no text: drop samples without a class")
        names = tuple(names) or tuple(sorted(set(text)))
        _refuse_first([label not in names for label in text], f"is none of the classes {', '.join(names)}")
        labels = [names.index(label) for label in text]
    if (labels := as_tensor(labels, "`labels`")).ndim not in (1, 2):
        raise UserError(f"labels of shape {tuple(labels.shape)}: give (N,) classes or (N, C) zeros and ones")
    if labels.ndim == 1 and labels.is_floating_point():
        _refuse_first(labels % 1 != 0, "is no whole number: drop unknown classes; factor_probes takes what is measured")
    if labels.ndim == 1 and names:
        _refuse_first((labels < 0) | (labels >= len(names)), f"is not from 0 to {len(names) - 1}: classes have names")
    return labels.long() if labels.ndim == 1 else labels, tuple(names)


def check_classes(labels: Tensor, n: int | None) -> None:
    """Raises `UserError` where labels (N,) are not classes from 0 to `n` - 1, or (N, C) not 0, 1 or NaN, not known."""
    if labels.ndim == 1:
        _refuse_first(labels < 0, "is below 0, and classes count from 0: drop samples without a class, or renumber")
        _refuse_first(labels >= (n or float("inf")), f"is not below n_classes={n}: correct it, or n_classes")
    else:
        _refuse_first(((labels != 0) & (labels != 1) & ~labels.isnan()).any(1), "is not of 0, 1 or NaN, for not known: "
                      "give a column of these a label, or (N,) classes")


def masks(observed: Any, names: Sequence[str], n: int) -> tuple[Tensor, dict[str, Tensor]]:
    """`observed` as (M, N) bool, and the masks per entry (N, *shape) of the modalities that were given one.

    It may be an array (M, N), or a dictionary or frame, name -> (N,) or (N, *shape); what it lacks is observed.
    """
    if not hasattr(observed, "items"):
        return as_tensor(observed, "`observed`"), {}
    given = _of_names(observed, "`observed`", names)
    for name, mask in given.items():
        if mask.dtype != torch.bool or len(mask) != n:
            raise UserError(f"`observed` of {name!r} must be {n} bools, one per sample or entry, it is {mask.dtype} of "
                            f"shape {tuple(mask.shape)}")
    rows = [given.get(name, torch.ones(n, dtype=torch.bool)).unsqueeze(-1).flatten(1).any(1) for name in names]
    return torch.stack(rows), {name: mask for name, mask in given.items() if mask.ndim > 1}


def trust_of(given: Any, names: Sequence[str], observed: Tensor, ids: Sequence[str] | None) -> Tensor:
    """`given` as (M, N) float32 numbers of 0 or more, 0 where nothing is `observed`, whatever it was there: an array,
    or a dictionary or frame, name -> (N,); what it lacks is 1."""
    if hasattr(given, "items"):
        own = _of_names(given, "`trust`", names)
        given = [own.get(name, torch.ones(observed.shape[1])).tolist() for name in names]
    if (trust := as_tensor(given, "`trust`").to(observed.device, torch.float32)).shape != observed.shape:
        raise UserError(f"`trust` must be of shape (M, N) = {tuple(observed.shape)}, it is {tuple(trust.shape)}")
    unclear = observed & ~((trust >= 0) & trust.isfinite())
    for wrong, why in ((unclear.any(0), "a trust that is no number of 0 or more"),
                       (~(observed & (trust > 0)).any(0), "no observed modality with a trust above 0")):
        if rows := wrong.nonzero()[:, 0].tolist():
            raise UserError(f"sample {ids[rows[0]] if ids else rows[0]} has {why} ({len(rows)} such samples): correct "
                            "`trust`, or drop them")
    return trust.where(observed, 0.0)


def _of_names(given: Any, what: str, names: Sequence[str]) -> dict[str, Tensor]:
    """What a dictionary or frame has of the modalities, on the CPU. Raises `UserError` for another name."""
    if unknown := [name for name in given.keys() if name not in names]:
        raise UserError(f"{what} names {unknown[0]!r}: the modalities are {', '.join(names)}")
    return {name: as_tensor(values, f"{what} of {name!r}").cpu() for name, values in given.items()}


def without(x: Tensor, mask: Tensor, spec: Any) -> Tensor:
    """x (N, *shape) of a modality as floats, NaN where the mask per entry is false."""
    if not spec.missing or mask.shape != x.shape:
        raise UserError(f"`observed` of {spec.name!r} is of shape {tuple(mask.shape)}: a mask per entry has the shape "
                        f"{tuple(x.shape)} and needs a modality with missing='nan'")
    return x.float().masked_fill(~mask.to(x.device), float("nan"))


def _numbers_of(frame: Any, what: str) -> np.ndarray:
    """A frame's or series' numbers in their common type; NA of any kind is NaN."""
    import pandas as pd

    columns = list(frame.items()) if hasattr(frame, "columns") else [(frame.name, frame)]
    for name, column in columns:
        if not pd.api.types.is_numeric_dtype(column.dtype):
            some = pd.to_numeric(column.astype(str), errors="coerce").notna().any()
            raise UserError(f"{what}: column {name!r} holds {column.dtype}, not numbers: " + (
                "pandas.to_numeric(x, errors='coerce') reads those that are, and makes the others NaN" if some else
                "leave it out, or make of it pandas.get_dummies(x, dtype=float).where(x.notna()), or a modality of its "
                "own, pandas.factorize(x)[0] with Categorical(ignore=-1), in which missing values stay missing"))
    common = np.result_type(*(getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype))
                              for dtype in (column.dtype for _, column in columns)), np.bool_)
    if not frame.isna().to_numpy().any():
        return frame.to_numpy(common)
    return frame.to_numpy(common if common.kind == "f" else np.float32, na_value=np.nan)


def _kind(array: np.ndarray) -> str:
    if array.dtype.kind != "O" or not array.ndim:
        return f"{array.dtype}" if array.ndim else f"one {type(array.item()).__name__}"
    strange = next((i for i, value in enumerate(array.flat) if not isinstance(value, numbers.Real)), 0)
    place = f" in column {strange % array.shape[-1]}" if array.ndim > 1 else f" in row {strange}"
    return f"objects ({type(array.flat[strange]).__name__}{place})"


def _refuse_first(wrong: Any, why: str) -> None:
    if len(rows := torch.as_tensor(wrong).nonzero()):
        raise UserError(f"the label of sample {int(rows[0])} {why} ({len(rows)} such labels)")
