"""One modality: what the model has to know of it, and what can be told from its values."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmvm import arrays
from mmvm.errors import UserError, ValueWarning
from mmvm.likelihoods import Bernoulli, Beta, Categorical, Laplace, NegativeBinomial, Normal, Poisson, StudentT
from mmvm.likelihoods.base import Likelihood

PIECE = 4_096    # rows looked at at once
CLASSES = 50     # whole numbers below it, in one column, are taken for classes
OUTLIER = 6.0    # standard deviations
SMALL = 0.01     # a scale below it is for bytes or other large numbers, not for 0 to 1
BESIDES = {"observed", "label", "id", "trust"}  # what a sample of data has that is no modality
TOLERANCE = 1e-6  # of rounding, at the ends of a likelihood's range
FEW = 20         # samples that may well have other whole numbers each, by chance


@dataclass(frozen=True)
class Modality:
    """What the model has to know of one modality.

    `shape` is one sample's, `likelihood` is p_m(x_m | z_m), `weight` is w_m in the loss, and the stored value
    times `scale` is what networks and likelihood see (1/255 for images stored as bytes).

    missing     "nan": NaN in a sample is an entry that was not observed, which adds 0 nats and shows encoders a 0; a
                sample of NaN alone is not observed at all. None: there are no such entries.
    mask_input  the encoder also gets the mask of the observed entries, ones and zeros behind its features or channels:
                its samples are of `input_shape`
    features    names of the entries of a vector, or none
    standardise networks and likelihood see (value - mean) / standard deviation, one of each per entry of a vector or
                channel, and what is imputed or generated is in the values' own units. `MultimodalData` takes both
                numbers from its samples: describe all other data with the training data's `specs`
    centre, spread  those numbers

    Raises `UserError` where these do not fit together.

    >>> counts = Modality("counts", (20,), Poisson(), weight=2.0)
    >>> counts.log_prob(torch.zeros(5, 20), torch.ones(5, 20)).shape
    torch.Size([5])
    """

    name: str
    shape: tuple[int, ...]
    likelihood: Likelihood
    weight: float = 1.0
    scale: float = 1.0
    missing: str | None = None
    mask_input: bool = False
    features: tuple[str, ...] = ()
    standardise: bool = False
    centre: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.shape, int) or not isinstance(self.likelihood, Likelihood):
            raise UserError(f"modality {self.name!r}: shape is a tuple such as (20,) and likelihood an object such as "
                            f"Normal(), got {self.shape!r} and {self.likelihood!r}")
        if not tuple(self.shape):
            raise UserError(f"modality {self.name!r} has shape (): one number per sample is (1,), an array of (N, 1)")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise UserError(f"modality {self.name!r}: weight must be at least 0 and finite, got {self.weight}")
        if not (math.isfinite(self.scale) and self.scale):
            raise UserError(f"modality {self.name!r}: scale must be finite and not 0, got {self.scale}")
        if self.missing not in (None, "nan"):
            raise UserError(f"modality {self.name!r}: missing must be 'nan' or None, got {self.missing!r}")
        if self.missing and self.likelihood.discrete:
            raise UserError(f"modality {self.name!r} holds tokens, of which none is NaN: store missing ones as the "
                            "number that Categorical(ignore=...) names, and leave `missing` out; a sample of these "
                            "alone is not observed")
        if self.mask_input and not self.missing:
            raise UserError(f"modality {self.name!r}: mask_input shows encoders which entries are missing, so it needs "
                            "missing='nan'")
        if self.standardise and (self.likelihood.discrete or self.likelihood.lowest > -math.inf):
            raise UserError(f"modality {self.name!r}: standardised values are reals around 0, and a "
                            f"{type(self.likelihood).__name__} does not take those: use Normal, Laplace or StudentT, "
                            "or leave `standardise` out")
        if self.features and self.shape != (len(self.features),):
            raise UserError(f"modality {self.name!r} has {len(self.features)} feature names for samples of shape "
                            f"{tuple(self.shape)}: give one name per entry of a vector")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of a sample as its encoder sees it."""
        return (2 * self.shape[0], *self.shape[1:]) if self.mask_input else tuple(self.shape)

    def check_parameters(self, given: Tensor) -> None:
        """Raises `UserError` where a decoder's output (B, ...) is not what the likelihood takes; it would broadcast."""
        expected = self.likelihood.parameter_shape(tuple(self.shape))
        if not isinstance(given, Tensor):
            raise UserError(f"the decoder of modality {self.name!r} gives a {type(given).__name__}: it must return one "
                            f"tensor (B, {', '.join(map(str, expected))}); widths belong into the likelihood")
        if given.ndim != 1 + len(expected) or any(n not in (m, "C") for m, n in zip(given.shape[1:], expected)):
            raise UserError(f"the decoder of modality {self.name!r} gives {tuple(given.shape)}, where samples of shape "
                            f"{tuple(self.shape)} under {type(self.likelihood).__name__} take "
                            f"(B, {', '.join(map(str, expected))}): correct the decoder or the description")

    def check_prepared(self, x: Tensor, stored: Tensor) -> None:
        """Raises `UserError` where prepared values (B, *shape) are NaN, infinite or so out of the likelihood's range
        that NaN may come of them, as of counts below 0. A `ValueWarning` for fractions out of it, and for pictures that
        were `stored` as bytes, or not, against `scale`."""
        low, high = torch.stack(x.aminmax()).tolist() if x.numel() else (0, 0)  # NaN where one is
        p, finite = self.likelihood, math.isfinite(high - low)
        least, most = (-math.inf, math.inf) if p.discrete else (  # zeros stand for what is absent
            min(p.lowest, 0) - TOLERANCE, max(p.highest, 0) + TOLERANCE)
        inside, bounded = least <= low <= high <= most, not p.whole and math.isfinite(p.highest - p.lowest)
        if not (finite and (inside or bounded)):
            what = (f"what {type(p).__name__} does not take, values lie from {low:g} to {high:g} (times scale): give "
                    "them in the units of the training data" if finite else
                    "NaN or infinity: say what is absent by missing='nan' or `observed`, mend the rest")
            first = int(((x < least) | (x > most) if finite else ~x.isfinite()).nonzero()[0, 0])
            raise UserError(f"modality {self.name!r}, sample {first} of the batch holds {what} "
                            "(mmvm.checks.check_values names it)")
        what = "" if inside else f"values beyond the {p.lowest} to {p.highest} of {type(p).__name__} (times scale)"
        picture = len(self.shape) == 3 and not self.spread
        if picture and not p.whole and self.scale == 1 and stored.dtype == torch.uint8 and high > 1:
            what = "bytes, against its scale of 1"
        elif (picture and stored.is_floating_point() and self.scale < SMALL and 0 <= low < high <= self.scale * 1.0001
              and bool((stored.nan_to_num() % 1).any())):
            what = f"fractions of 1, against its scale of {self.scale:.3g}"
        if what:
            warnings.warn(f"modality {self.name!r} holds {what}: give values in the units of the training data",
                          ValueWarning, 2)

    def prepare(self, x: Tensor) -> Tensor:
        """Stored values (B, *shape) as the floats the networks see; token ids stay integers (scale 1)."""
        if self.likelihood.discrete and not x.is_floating_point():
            return x.long()
        x = x.float() * self.scale
        if self.spread:
            centre, spread = self._columns(x, self.centre, self.spread)
            x = (x - centre) / spread
        return x.masked_fill(x.isnan(), 0.0) if self.missing else x

    def seen(self, x: Tensor) -> Tensor | None:
        """Which entries of stored values (B, *shape) were observed, bool; None where nothing can be missing."""
        return ~x.isnan() if self.missing else None

    def known(self, x: Tensor) -> Tensor | None:
        """Which samples (B,) of stored values hold anything, not NaN or ignored tokens alone; None where all do."""
        ignore = getattr(self.likelihood, "ignore", None)
        seen = self.seen(x) if ignore is None else x != ignore
        return None if seen is None else seen.flatten(1).any(1)

    def log_prob(self, parameters: Tensor, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """log p(x | parameters) of prepared values (..., *shape): (...,) nats, of the entries that are `seen` (all)."""
        mask = () if seen is None else (seen,)
        return self.likelihood.log_prob(parameters, x, len(self.shape), *mask)

    def restore(self, x: Tensor) -> Tensor:
        """What `standardise` did to values (B, *shape), undone: in the units of what was stored. Others stay as they
        are, values times `scale`."""
        if not self.spread:
            return x
        centre, spread = self._columns(x, self.centre, self.spread)
        return (x * spread + centre) / self.scale

    def standardised(self, x: Tensor) -> Tensor:
        """What `restore` did, undone: what a model makes, (B, *shape), as networks and classifiers see values."""
        if not self.spread:
            return x
        centre, spread = self._columns(x, self.centre, self.spread)
        return (x * self.scale - centre) / spread

    def _columns(self, like: Tensor, *numbers: tuple[float, ...]) -> list[Tensor]:
        """One number per entry of a vector or channel, broadcast over a batch's last dimensions."""
        kept = self.__dict__.setdefault("_kept", {})  # on its device once, not once a batch
        if (key := (like.device, like.dtype)) not in kept:
            kept[key] = [like.new_tensor(n).view(-1, *[1] * (len(self.shape) - 1)) for n in numbers]
        return kept[key]

    def n_tokens(self, x: Any, present: Tensor) -> int | None:
        """V of tokens 0 to V - 1 in the stored x (N, *shape) where `present` (N,); None where they are no tokens."""
        if not self.likelihood.discrete:
            return None
        known = x[:][present]
        if known.is_floating_point() and not known.isfinite().all():
            raise UserError(f"modality {self.name!r} holds NaN or infinity, and tokens are whole numbers: store "
                            "missing ones as integers, -1 with Categorical(ignore=-1) for instance")
        ignore = getattr(self.likelihood, "ignore", None)
        known = known if ignore is None else known[known != ignore]
        return 1 + int(known.max()) if known.numel() else 1

    def log_rates(self, x: Any, present: Tensor) -> Tensor | None:
        """Logarithms (F,) of a Poisson's mean counts, of each column, by up to 1,000 stored x (N, *shape); or None."""
        if not isinstance(self.likelihood, Poisson):
            return None
        some = x.index_select(0, torch.nonzero(present)[::1 + len(x) // 1_000, 0]).double().transpose(0, 1).flatten(1)
        return (some * self.scale).nanmean(1).nan_to_num(1.0, 1.0, 1.0).clamp(min=1e-3).log()

    def fitted(self, x: Any, present: Tensor) -> "Modality":
        """This modality with `centre` and `spread` of the stored x (N, *shape) where `present` (N,), NaN left out; as
        it is where it has them or does not want them. A column that does not vary has spread 1."""
        if not self.standardise or self.spread:
            return self
        def sums(of: Callable[[Tensor], Tensor]) -> Tensor:
            """Over all observed entries of each column, (F,) float64, a piece at a time."""
            pieces = torch.nonzero(present)[:, 0].split(PIECE)
            return sum((of((x.index_select(0, rows).double() * self.scale).transpose(0, 1).flatten(1)).nansum(1)
                        for rows in pieces), start=torch.zeros((), dtype=torch.float64, device=present.device))
        if not present.any():
            raise UserError(f"modality {self.name!r} is to be standardised and no sample has it: leave it out")
        count = sums(lambda values: (~values.isnan()).double()).clamp(min=1.0)
        centre = sums(lambda values: values) / count
        spread = (sums(lambda values: (values - centre.unsqueeze(1)).square()) / count).sqrt()
        spread = spread.where(spread > 1e-6 * centre.abs(), torch.ones_like(spread))  # rounding is no variation
        return replace(self, centre=tuple(centre.tolist()), spread=tuple(spread.tolist()))

    @classmethod
    def guess(cls, name: str, values: Any, say: Callable[[str], None] | None = print, **chosen: Any) -> "Modality":
        """A description that fits `values` (N, *shape), arrays or frames, and says why in one line. What is `chosen`, a
        likelihood, weight or any other field, stays.

        Bytes of pictures are scaled to 0 to 1, under the paper's Laplace; one column of whole numbers below 50 is of
        classes; counts are negative binomial, unless they vary no more than a Poisson's; only 0 and 1 is Bernoulli;
        between 0 and 1, a Beta; other reals are standardised, under a Normal, or a Student t where there are outliers.
        NaN means missing entries. Look at the reason: a guess from numbers does not know what they are; ages look like
        classes. Raises `UserError`.
        """
        x = arrays.as_tensor(values, f"modality {name!r}", missing=True)
        x = x.unsqueeze(1) if x.ndim == 1 else x
        if not len(x):
            raise UserError(f"modality {name!r} has no sample to guess from: describe it with Modality(...)")
        found, why = _guessed(x)
        if x.is_floating_point() and x.isnan().any():
            found["missing"], why = "nan", f"{why}; NaN are missing entries"
        if "likelihood" in chosen:  # the rest was for another one
            found = {key: value for key, value in found.items() if key == "missing"}
            why = "as given"
        modality = cls(name, tuple(x.shape[1:]), **{**found, **chosen})
        if say is not None:
            extra = "".join(f", {key}={getattr(modality, key)!r}" for key in ("missing", "standardise")
                            if getattr(modality, key))
            scale = "" if modality.scale == 1 else f", scale 1/{1 / modality.scale:g}"
            say(f"{name}: {modality.likelihood}{scale}{extra}: {why}")
        return modality


def check_units(model: Any, data: Any) -> None:
    """Raises `UserError` where `data` has other modalities than a model, or was standardised by other numbers."""
    ours, theirs = ({m.name: tuple(m.shape) for m in specs} for specs in (model.modalities, data.specs))
    if [*ours.items()] != [*theirs.items()]:
        raise UserError(f"the data's modalities are {theirs}, the model's {ours}: give data of the same names and "
                        "shapes in the same order")
    for m, given in zip(model.modalities, data.specs):
        if (m.centre, m.spread) != (given.centre, given.spread):
            raise UserError(f"modality {m.name!r} was standardised by other numbers than the model's: describe "
                            "these data as the training data, MultimodalData(arrays, model.modalities)")


def in_order(values: Any, data: Any, what: str) -> np.ndarray:
    """`values` of the samples, one each, as an array. Raises `UserError` for a frame or series with another index than
    their ids; where they have none, with their numbers in another order."""
    rows = data.ids or list(map(str, range(len(data))))
    index = list(map(str, values.index)) if hasattr(values, "iloc") and len(values) == len(data) else rows
    if index != rows and ((moved := sorted(index) == sorted(set(rows))) or data.ids):  # moved: unique, and the same
        name, texts = what.split()[0].strip("`"), isinstance(values.index[0], str)
        named = ".loc[data.ids]" if texts else f".set_axis({name}.index.map(str)).loc[data.ids]"
        cure = f"give {name}{named if data.ids else '.sort_index()'}; " if moved else ""
        raise UserError(f"the index of {what} is not that of the samples in their order: {cure}where its rows are in "
                        f"that order, give {name}.to_numpy()")
    return np.asarray(values)


def groups_of(by: Any, data: Any, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of groups (N,), names or numbers: their names, the number of each sample's, their sizes. Raises `UserError`."""
    groups, n = in_order(by, data, what), len(data)
    if groups.shape != (n,):
        name = what.strip("`")
        raise UserError(f"{what} is of shape {groups.shape}: give one group for each of the {n:,} samples; of rows "
                        f"divided before {name}[[int(i) for i in data.ids]], or of a series {name}.loc[data.ids]")
    if any(nameless := [group is None or group != group for group in groups.tolist()]):
        raise UserError(f"{sum(nameless)} samples have no group in {what} (the first: sample {nameless.index(True)}): "
                        "give each its own")
    return np.unique(groups.astype(str) if groups.dtype == object else groups, return_inverse=True, return_counts=True)


def _guessed(x: Tensor) -> tuple[dict, str]:
    """Fields of a `Modality` for values (N, *shape), and the reason."""
    shape = tuple(x.shape[1:])
    if x.dtype == torch.uint8 and len(shape) == 3:
        if shape[-1] in (1, 3, 4) and shape[0] > 4:
            raise UserError(f"pictures of shape {shape} have their channels last: give x.transpose(0, 3, 1, 2)")
        return {"likelihood": Laplace(), "scale": 1 / 255}, f"bytes of pictures, {shape[0]} channels"
    known = x[~x.isnan()].double() if x.is_floating_point() else x.flatten().double()
    if not len(known):
        raise UserError("every value is NaN: leave this modality out")
    low, high, whole = known.min().item(), known.max().item(), not (known % 1).any()
    if whole and (low, high) in ((0, 1), (0, 0), (1, 1)):
        return {"likelihood": Bernoulli()}, "only 0 and 1"
    codes = whole and shape == (1,) and high < CLASSES and not x.is_floating_point()
    if codes and 0 <= low:
        return {"likelihood": Categorical()}, f"one column of whole numbers, taken for {int(high) + 1} classes"
    hint = "; classes with -1 for missing ones take Categorical(ignore=-1)" if codes and low == -1 else _hint(x)
    if whole and 0 <= low:
        columns = x.double().flatten(1)
        mean = columns.nanmean(0)
        var = (columns - mean).square().nanmean(0)
        ratio = (var.nansum() / mean.nansum().clamp(min=1e-12)).item()
        kind = Poisson() if ratio < 1.5 else NegativeBinomial()
        grey = "; if they are grey values, divide by the largest and give (N, C, H, W)" if (
            len(shape) > 1 and high > CLASSES) else ""
        grey += ", or bytes, x.astype('uint8')" * bool(grey and high < 256)
        return {"likelihood": kind}, f"counts, whose variance is {ratio:.2g} times their mean{grey}{hint}"
    if 0 <= low and high <= 1:
        return {"likelihood": Beta()}, "fractions, between 0 and 1"
    outliers = (_columnwise(x).abs() > OUTLIER).double().mean().item()
    if outliers > 1e-3:
        return ({"likelihood": StudentT(), "standardise": True},
                f"reals, {outliers:.1%} of them beyond {OUTLIER:g} standard deviations{hint}")
    return {"likelihood": Normal(), "standardise": True}, f"reals from {low:.3g} to {high:.3g}{hint}"


def _hint(x: Tensor) -> str:
    """What may be meant otherwise in values (N, *shape): ids among the columns, and which axis has units of its own."""
    if x.ndim == 3:
        return (f"; standardised by one mean for each of {x.shape[1]} rows of {x.shape[2]}: if these are time points, "
                "give (N, units, T)")
    if x.ndim != 2 or len(x) < FEW:
        return ""
    ids = list(islice((i for i, own in enumerate(x.T) if not (own % 1).any() and len(own.unique()) == len(x)), 2))
    return ("" if len(ids) != 1 else  # several are large counts
            f"; column {ids[0]} is another whole number in every sample: leave it out if it is an id")


def _columnwise(x: Tensor) -> Tensor:
    """Known values in standard deviations of their own entry."""
    x = x.double().flatten(1)
    away = x - x.nanmean(0)
    return (away / away.square().nanmean(0).sqrt().clamp(min=1e-12))[~x.isnan()]
