"""What is looked at once, before training: values against likelihoods, and what links the modalities.

Errors stand for what would train to a wrong result, warnings (`ValueWarning`) for what would train to a poor one.
"""

import warnings
import weakref
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mmvm.data import Modality, MultimodalData, Repeated
from mmvm.errors import UserError, ValueWarning
from mmvm.likelihoods import Bernoulli, Laplace, Normal, Poisson
from mmvm.modality import TOLERANCE
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import evaluating

PIECE = 4 * 2**20       # bytes looked at at once: they stay in the processor's cache
LARGE = 2 * 2**30       # bytes of a memory-mapped modality of which not everything is read, but
SAMPLED = 256 * 2**20   # so much, in evenly spread pieces
ROWS = 1_000            # samples from which spreads are measured
FAR = 100.0             # spread over a likelihood's scale, or its inverse, that does not fit
RARE = 0.01             # share of the samples that have a modality, below which it is hardly ever seen
KNOWN = 32              # numbers of a modality by which a sample without a name may be known again
ALIKE = 4_096           # samples that are compared at once

_checked: "weakref.WeakKeyDictionary[MultimodalVAE, list[weakref.ref]]" = weakref.WeakKeyDictionary()


def check_values(data: MultimodalData, model: MultimodalVAE | None = None) -> None:
    """Looks at every observed value once, in pieces and in its stored type; with a model once per model and data.

    Refused (`UserError`, with modality, sample and entry): NaN and infinity, values outside the likelihood's range,
    fractions where it counts, tokens that `model`'s decoder has no class for, bytes of pictures without a scale.
    Warned about (`ValueWarning`): modalities that are constant, hardly ever seen, or never seen together with others,
    columns of vectors that are constant or NaN, other bytes without a scale, spreads far from the likelihood's scale.
    Of a memory-mapped modality above 2 GB only 256 MB in evenly spread pieces are read.
    """
    seen: list[weakref.ref] = [] if model is None else _checked.setdefault(model, [])
    if any(ref() is data for ref in seen):
        return
    wrong, poor = findings(data, model)
    if wrong:
        raise UserError(wrong[0])
    for sentence in poor:
        warnings.warn(sentence, ValueWarning, stacklevel=4)  # where `fit` is called
    seen.append(weakref.ref(data))


def check_split(train: MultimodalData, test: MultimodalData, what: str = "test") -> None:
    """Warns about samples that are in both sets, by their ids; where these are none or the numbers of rows, by their
    values, if no two training samples are alike. The same set twice is meant so. `what` the second set is for, "test"
    or "validation"."""
    if test is train:
        return
    ids = [data.ids or [] for data in (train, test)]
    named = not any(own == list(map(str, range(len(own)))) for own in ids)
    names, others = ids if named else map(_contents, (train, test))
    there = {name: row for row, name in enumerate(names)}
    both = [i for i, name in enumerate(others) if name in there]
    if both and not named:
        both = _alike(train, test, [(there[others[i]], i) for i in both]) if len(there) == len(train) else []
    if both:
        warnings.warn(f"{len(both)} of {len(test)} {what} samples are also training samples (the first: "
                      f"{test.ids[both[0]] if test.ids else both[0]}): take them out of one of the two, as split(data, "
                      "by=data.ids) keeps rows of one name together; the numbers would say how well they are "
                      "remembered", ValueWarning, stacklevel=3)


def _contents(data: MultimodalData) -> list[bytes]:
    """A few numbers of each sample, by which it may be known again; of data in files, which would all be read, none."""
    return [row.tobytes() for batch in (() if data.files else data.batches(ALIKE)) for row in torch.cat([
        x[:, ::-(-x.shape[1] // KNOWN)].float().masked_fill(~seen.unsqueeze(1), 0.0)
        for x, seen in zip((x.flatten(1) for x in batch.x), batch.observed)], 1).cpu().numpy()]


def _alike(train: MultimodalData, test: MultimodalData, pairs: list[tuple[int, int]]) -> list[int]:
    """Of pairs of rows whose few numbers are equal, as those of sparse counts often are, the test rows of those that
    are equal in every number."""
    found: list[int] = []
    for rows in torch.tensor(pairs).split(ALIKE):
        one, two = (data.batch(own.to(data.device)).map(Tensor.cpu) for data, own in zip((train, test), rows.t()))
        same = [((x == y) | x.isnan() & y.isnan()).flatten(1).all(1) | ~seen
                for x, y, seen in zip(one.x, two.x, two.observed)]
        found += rows[torch.stack([*same, *(one.observed == two.observed)]).all(0), 1].tolist()
    return found


def findings(data: MultimodalData, model: MultimodalVAE | None = None) -> tuple[list[str], list[str]]:
    """What is wrong and what is poor, a sentence each."""
    wrong, poor = [], _links(data)
    if model is not None and "trust" in model.objective.needs and data.trust is None:
        wrong.append(model.objective.untold)
    for m, spec in enumerate(data.specs):
        if not len(values := Values(data, m)):
            continue
        if error := _error(values, spec, None if model is None else n_classes(model, data, m)):
            wrong.append(error)
        else:
            poor += _warnings(values, spec)
    return wrong, poor


class Values:
    """The observed values of one modality: a column's smallest and largest, and the way to a single one.

    lowest, highest  (F,) over the samples, in the stored type, NaN where one of them is, 0 where `empty`
    empty            (F,) bool, of which columns no sample has an entry
    """

    def __init__(self, data: MultimodalData, m: int):
        self.spec, self.ids = data.specs[m], data.ids
        self.rows: Tensor | None = None
        x, self.present = data.modalities[self.spec.name], data.observed[m]
        self.x = x.values if isinstance(x, Repeated) else x
        if isinstance(x, Repeated):  # what several samples share is looked at once
            self.rows = x.rows.masked_fill(~self.present, -1)
            self.present = torch.isin(torch.arange(len(self.x), device=self.x.device), self.rows)
        size = self.x[:1].numel() * self.x.element_size()
        self.step = max(1, PIECE // max(size, 1))
        self.starts = range(0, len(self.x), self.step)
        if data.files and size * len(self.x) > LARGE:
            self.starts = self.starts[::-(-size * len(self.x) // SAMPLED)]
        ends = [(self._known(piece, torch.inf).amin(0), self._known(piece, -torch.inf).amax(0))
                for _, piece in self.pieces()]
        if ends:
            lowest, highest = (end(torch.stack(own), 0) for end, own in zip((torch.amin, torch.amax), zip(*ends)))
            self.empty = lowest > highest
            self.lowest, self.highest = lowest.masked_fill(self.empty, 0), highest.masked_fill(self.empty, 0)

    def __len__(self) -> int:
        return int(self.present.sum())

    def pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows (n,) and their values (n, F). What the likelihood ignores is shown as 0."""
        ignored = getattr(self.spec.likelihood, "ignore", None)
        for start in self.starts:
            present = self.present[start:start + self.step]
            rows, piece = start + torch.nonzero(present)[:, 0], self.x[start:start + self.step]
            piece = (piece if len(rows) == len(present) else piece[present]).flatten(1)
            if len(rows):
                yield rows, piece if ignored is None else piece.masked_fill(piece == ignored, 0)

    def _known(self, piece: Tensor, missing: float) -> Tensor:
        """With a number in place of entries that are missing."""
        return piece.masked_fill(piece.isnan(), missing) if self.spec.missing and piece.is_floating_point() else piece

    def first(self, bad: Callable[[Tensor], Tensor]) -> str | None:
        """The first value for which `bad` says so, in words; never one that is missing."""
        for rows, piece in self.pieces():
            if len(found := torch.nonzero(bad(piece) & ~piece.isnan() if self.spec.missing else bad(piece))):
                row, column = rows[found[0, 0]], int(found[0, 1])
                sample = int(row if self.rows is None else torch.nonzero(self.rows == row)[0, 0])
                named = f" ({self.ids[sample]})" if self.ids is not None else ""
                place = [int(i) for i in torch.unravel_index(torch.tensor(column), self.spec.shape)]
                where = f"column {place[0]}" if len(place) == 1 else f"entry {tuple(place)}"
                value = piece[found[0, 0], column].item()
                return f"modality {self.spec.name!r}, sample {sample}{named}, {where} is {value:g}"
        return None

    def spread(self) -> tuple[float, float]:
        """Of about `ROWS` samples, as networks see them: roots of the columns' mean variance and mean squared mean."""
        rows = torch.nonzero(self.present)[:, 0]
        rows = rows[::-(-len(rows) // ROWS)]
        x = self.spec.prepare(self.x[rows]).flatten(1).double()
        return x.var(0, correction=0).mean().sqrt().item(), x.mean(0).square().mean().sqrt().item()


@torch.no_grad()
def n_classes(model: MultimodalVAE, data: MultimodalData, m: int) -> int | None:
    """How many classes the decoder of a modality of tokens has, seen from a sample of zeros; None for others."""
    if not (spec := data.specs[m]).likelihood.discrete:
        return None
    with evaluating(model) as device:
        x = spec.prepare(torch.zeros(1, *spec.shape, dtype=data.modalities[spec.name].dtype, device=device))
        out = model.decoders[m](model.encoders[m](x)[0])
    model.modalities[m].check_parameters(out)
    return out.shape[1]


def _error(values: Values, spec: Modality, classes: int | None) -> str | None:
    """The first thing that is wrong with a modality's values."""
    x, likelihood, kind = values.x, spec.likelihood, type(spec.likelihood).__name__
    if x.is_floating_point() and not (values.lowest.isfinite() & values.highest.isfinite()).all():
        found = values.first(lambda piece: ~piece.isfinite())
        return (f"{found}: for single values that are absent describe the modality with missing='nan', for whole "
                "samples use `observed`; others have to be mended or left out")
    scale = 1 if likelihood.discrete else spec.scale
    lowest, highest = sorted((values.lowest.min().item() * scale, values.highest.max().item() * scale))
    if x.dtype == torch.uint8 and scale == 1 and highest > 1 and not likelihood.whole and len(spec.shape) == 3:
        return (f"modality {spec.name!r} holds pictures as bytes, {lowest:g} to {highest:g}, without a scale: say "
                f"Modality({spec.name!r}, ..., scale=1/255)")
    if lowest < likelihood.lowest - TOLERANCE or highest > likelihood.highest + TOLERANCE:
        found = values.first(lambda piece: (piece.double() * scale < likelihood.lowest - TOLERANCE)
                             | (piece.double() * scale > likelihood.highest + TOLERANCE))
        end = "" if likelihood.highest == torch.inf else f" to {likelihood.highest}"
        return (f"{found}, {kind} takes values from {likelihood.lowest}{end} and these lie from {lowest:g} to "
                f"{highest:g} (times scale): {_fitting(lowest, highest, x, spec)}")
    if likelihood.whole and (x.is_floating_point() or scale % 1):
        if found := values.first(lambda piece: (piece.double() * scale) % 1 != 0):
            return f"{found}, {kind} takes whole numbers (times scale): give counts, or use Normal or Laplace"
    if classes is not None and highest >= classes:
        found = values.first(lambda piece: piece >= classes)
        return (f"{found}, but the decoder has {classes} classes, 0 to {classes - 1}: correct the tokens, or give the "
                "decoder as many classes as there are words")
    return None


def _fitting(lowest: float, highest: float, x: Tensor, spec: Modality) -> str:
    """The cure for values out of range."""
    if spec.likelihood.discrete and lowest == -1:
        return "say Categorical(ignore=-1) if -1 is for missing ones"
    kinds = [kind.__name__ for kind in (Normal, Laplace, Bernoulli, Poisson)
             if kind.lowest <= lowest and highest <= kind.highest and not (kind.whole and x.is_floating_point())]
    grey = len(spec.shape) == 3 and 0 <= lowest and spec.likelihood.highest < highest <= 255
    cure = "scale=1/255 brings bytes into 0 to 1; " if x.dtype == torch.uint8 else "divide grey values by 255; " * grey
    return f"{cure}{', '.join(kinds)} fit them"


def _warnings(values: Values, spec: Modality) -> list[str]:
    """What makes a modality's values poor to learn from."""
    if len(values) < 2:
        return []
    if (constant := values.lowest == values.highest).all():
        return [f"modality {spec.name!r} is the same in all its {len(values)} samples: leave it out, it holds nothing"]
    found = []
    for columns, what in ((constant & ~values.empty, "the same"), (values.empty, "NaN")):
        some = torch.nonzero(columns)[:, 0].tolist()
        if some and len(spec.shape) == 1 and not spec.likelihood.discrete:
            shown = ", ".join(map(str, some[:5])) + ", ..." * (len(some) > 5)
            found.append(f"modality {spec.name!r}: {len(some)} of {len(columns)} columns are {what} in all samples "
                         f"(columns {shown}): leave them out, they hold nothing")
    if values.x.dtype == torch.uint8 and spec.scale == 1 and not spec.likelihood.whole and values.highest.max() > 1:
        found.append(f"modality {spec.name!r} holds bytes without a scale: say scale=1/255, or give floats if 0 to "
                     "255 is what is meant")
    scale = getattr(spec.likelihood, "scale", None)
    if scale is not None and not spec.likelihood.whole and not spec.standardise:
        spread, away = values.spread()
        if max(spread, away) > FAR * scale or spread * FAR < scale:
            found.append(f"modality {spec.name!r}: values lie around {away:.3g} with a spread of {spread:.3g}, under a "
                         f"{type(spec.likelihood).__name__} of scale {scale:g}: standardise the columns (mean 0, "
                         f"spread 1), or choose a likelihood scale near {spread:.2g}")
    return found


def _links(data: MultimodalData) -> list[str]:
    """Modalities that are hardly ever observed, and groups of modalities that no sample shows together."""
    seen = data.observed.double()
    counts, n = (seen @ seen.t()).long().tolist(), len(data)
    found = [f"modality {name!r} is observed in {counts[m][m]} of {n} samples: leave it out, or find out where its "
             "values are lost" for m, name in enumerate(data.names) if counts[m][m] < RARE * n or not counts[m][m]]
    groups: list[list[int]] = []  # of modalities that samples link, directly or by others
    for m in (m for m in range(len(counts)) if counts[m][m]):
        linked = [group for group in groups if any(counts[m][other] for other in group)]
        groups = [group for group in groups if group not in linked] + [sum(linked, [m])]
    if len(groups) > 1:
        names = [" and ".join(data.names[m] for m in sorted(group)) for group in groups]
        pairs = ", ".join(f"{a} with {b} {counts[i][j]}" for i, a in enumerate(data.names)
                          for j, b in enumerate(data.names[:i]))
        found.append(f"nothing links {' to '.join(names)}: no sample shows them together (samples with both: {pairs}); "
                     "check `observed`, or add samples that have both")
    return found
