"""p(x | parameters): what a decoder's output means.

Every likelihood is in nats, summed over a modality's own pixels, tokens or bins (the last `event_ndim`
dimensions of x) and over nothing else, so that terms of different modalities add up to a joint log-likelihood.
Log-densities include their constants: a Laplace of scale 0.75 has at best log p = -D ln 1.5, the floor that the
paper's reconstruction errors sit on.
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmvm.errors import UserError


def widen(params: Tensor) -> Tensor:
    # bfloat16 has 8 bits of mantissa: neither a sum over 2,352 pixels nor a uniform draw survives that
    return params.float() if params.dtype in (torch.bfloat16, torch.float16) else params


def sum_event(x: Tensor, event_ndim: int) -> Tensor:
    return x.flatten(x.ndim - event_ndim).sum(-1) if event_ndim else x


def _count(x: Tensor, event_ndim: int, seen: Tensor | None) -> Any:
    """How many entries of an event count: a number, or (...,)."""
    return x.shape[x.ndim - event_ndim:].numel() if seen is None else sum_event(seen, event_ndim)


def where_seen(params: Tensor, x: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both 0 in entries that do not count, so that these can neither overflow nor send a gradient."""
    return (params, x) if seen is None else (params.masked_fill(~seen, 0.0), x.masked_fill(~seen, 0))


@dataclass(frozen=True)
class Likelihood:
    """What all likelihoods can do. `params` and x have the same event shape, except for `Categorical` and those with
    several numbers an entry.

    log_prob(params, x, event_ndim, seen)  (...,) nats, the event's dimensions summed; entries where `seen`, bool of x's
                                           shape, is false add exactly 0, whatever is there; None: all are seen
    mean(params)                           the prediction, in the units of x
    sample(params)                         one draw
    floor(n)                               the smallest possible -log p of n values, in nats
    parameter_shape(shape)                 a decoder's output for one sample; a letter where any number may stand

    x lies between `lowest` and `highest`, and is a whole number where `whole`.

    >>> Normal().lowest, Poisson().whole, Normal().parameter_shape((3, 28, 28))
    (-inf, True, (3, 28, 28))
    """

    discrete = False
    lowest, highest, whole = -math.inf, math.inf, False

    def parameter_shape(self, shape: tuple[int, ...]) -> tuple[int | str, ...]:
        return tuple(shape)

    def elementwise(self, params: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError

    def log_prob(self, params: Tensor, x: Tensor, event_ndim: int, seen: Tensor | None = None) -> Tensor:
        params, x = where_seen(widen(params), x, seen)
        values = self.elementwise(params, x)
        return sum_event(values if seen is None else values.masked_fill(~seen, 0.0), event_ndim)

    def mean(self, params: Tensor) -> Tensor:
        return params

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        raise NotImplementedError

    def floor(self, n: int) -> float:
        return 0.0


@dataclass(frozen=True)
class Laplace(Likelihood):
    """Independent Laplace around the decoder's output; scale 0.75 for images throughout the paper
    (section 5).

    log_prob (...,) in nats; `mean` is the output itself. Raises `UserError` for a scale that is not positive.

    >>> Laplace(0.75).log_prob(torch.zeros(5, 4), torch.ones(5, 4), event_ndim=1)[0]  # 4 entries
    tensor(-6.9552)
    """

    scale: float = 0.75

    def __post_init__(self) -> None:
        positive("Laplace scale", self.scale)

    def log_prob(self, params: Tensor, x: Tensor, event_ndim: int, seen: Tensor | None = None) -> Tensor:
        # scale and constant after the sum: once a sample instead of once a pixel
        params, x = where_seen(widen(params), x, seen)
        distance = (params - x).abs()
        return -sum_event(distance, event_ndim) / self.scale - self.floor(_count(distance, event_ndim, seen))

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        params = widen(params)
        u = torch.rand(params.shape, generator=generator, device=params.device, dtype=params.dtype) - 0.5
        return params - self.scale * u.sign() * torch.log1p(-2 * u.abs().clamp(max=0.5 - 1e-7))

    def floor(self, n: int) -> float:
        return n * math.log(2 * self.scale)


@dataclass(frozen=True)
class Normal(Likelihood):
    """Independent Gaussian around the decoder's output, standard deviation `scale`, in the units of x.

    log_prob (...,) in nats; `mean` is the output itself. Raises `UserError` for a scale that is not positive.

    >>> Normal().log_prob(torch.zeros(5, 4), torch.ones(5, 4), event_ndim=1)[0]
    tensor(-5.6758)
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        positive("Normal scale", self.scale)

    def log_prob(self, params: Tensor, x: Tensor, event_ndim: int, seen: Tensor | None = None) -> Tensor:
        params, x = where_seen(widen(params), x, seen)
        squared = (params - x).square()
        return -0.5 / self.scale**2 * sum_event(squared, event_ndim) - self.floor(_count(squared, event_ndim, seen))

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        params = widen(params)
        noise = torch.randn(params.shape, generator=generator, device=params.device, dtype=params.dtype)
        return params + self.scale * noise

    def floor(self, n: int) -> float:
        return n * (math.log(self.scale) + 0.5 * math.log(2 * math.pi))


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Independent Bernoulli; the decoder gives logits, x is 0, 1 or (as a soft target) between.

    >>> Bernoulli().mean(torch.tensor([0.0, 100.0]))
    tensor([0.5000, 1.0000])
    """

    lowest, highest = 0, 1

    def elementwise(self, params: Tensor, x: Tensor) -> Tensor:
        x = x.to(params.dtype).expand_as(params)  # the function itself does not broadcast
        return -F.binary_cross_entropy_with_logits(params, x, reduction="none")

    def mean(self, params: Tensor) -> Tensor:
        return torch.sigmoid(params)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.bernoulli(torch.sigmoid(widen(params)), generator=generator)


@dataclass(frozen=True)
class Categorical(Likelihood):
    """One of C classes per position: x (..., L) holds integers, the decoder gives logits (..., C, L).

    `ignore` is a class that counts nothing (padding); it need not be one of the C, -1 will do.

    >>> logits, tokens = torch.zeros(5, 10, 7), torch.zeros(5, 7, dtype=torch.long)  # 10 classes, 7 positions
    >>> Categorical().log_prob(logits, tokens, event_ndim=1)[0]  # -7 log 10
    tensor(-16.1181)
    """

    ignore: int | None = None

    discrete = True
    lowest, whole = 0, True

    def parameter_shape(self, shape: tuple[int, ...]) -> tuple[int | str, ...]:
        return ("C", *shape)

    def log_prob(self, params: Tensor, x: Tensor, event_ndim: int, seen: Tensor | None = None) -> Tensor:
        class_dim = params.ndim - event_ndim - 1
        log_p = F.log_softmax(widen(params), class_dim)
        x = x.long().expand(*params.shape[:class_dim], *params.shape[class_dim + 1:])
        ignored = torch.zeros_like(x, dtype=torch.bool) if self.ignore is None else x == self.ignore
        if seen is not None:
            ignored = ignored | ~seen
        chosen = log_p.gather(class_dim, x.masked_fill(ignored, 0).unsqueeze(class_dim)).squeeze(class_dim)
        return sum_event(chosen.masked_fill(ignored, 0.0), event_ndim)

    def mean(self, params: Tensor) -> Tensor:
        """Class probabilities (..., C, L), for one dimension of positions."""
        return params.softmax(-2)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        p = widen(params).softmax(-2).movedim(-2, -1)
        return torch.multinomial(p.flatten(0, -2), 1, generator=generator).view(p.shape[:-1])


@dataclass(frozen=True)
class Poisson(Likelihood):
    """Counts x = 0, 1, 2, ..., independent given z; the decoder gives log-rates per bin, of x's shape, `mean` is the
    rate in counts, log_prob (...,) in nats.

    >>> Poisson().mean(torch.zeros(2))
    tensor([1., 1.])
    """

    lowest, whole = 0, True

    def elementwise(self, params: Tensor, x: Tensor) -> Tensor:
        return x * params - params.exp() - torch.lgamma(x + 1)

    def mean(self, params: Tensor) -> Tensor:
        return params.exp()

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.poisson(widen(params).exp(), generator=generator)


def positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not value > 0:
        raise UserError(f"{name} must be positive, got {value!r}")
