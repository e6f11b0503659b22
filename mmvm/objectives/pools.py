"""Pools of M Gaussians: the power means (sum_m w_m q_m^t)^(1/t), normalised, of exponent t in [0, 1].

t = 1 is the mixture, t = 1/2 the Hellinger pool (sum_m w_m sqrt(q_m))^2, and the limit t = 0 the geometric pool, the
normalised product of the powers q_m^w_m, itself a Gaussian. Multiplied out, an exponent of 1/k is a mixture of
Gaussians: every choice of k posteriors, a posterior allowed more than once, has one component, the normalised geometric
mean of the chosen, with weight proportional to

    k! / (a_1! ... a_M!)  prod_m w_m^a_m  BC_a,    BC_a = integral prod_m q_m^(a_m / k),

a_m how often m is chosen and BC_a the affinity of the chosen, for a pair the Bhattacharyya coefficient. For two,
with precisions l: precision (l_m + l_n) / 2, mean (l_m mu_m + l_n mu_n) / (l_m + l_n), weight w_m w_n BC_mn, twice for
m != n. The sum of these weights is the normaliser Z, so log Z has a closed form for t = 1/k. For other exponents
Z = E_h[(sum_m w_m q_m^t)^(1/t) / h], h the mixture, is estimated from one draw of each q_m: a ratio of at most 1, whose
logarithm is low on average, by nats where t is small and the posteriors are far apart. For small t take 1/k or 0.

Letters: M modalities, B batch, D latent, K components, R rows (B, or B D where every dimension is pooled on its own).
"""

import itertools
import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian, in_float32
from mmvm.objectives import pairs

MOST_CHOSEN = 8        # k: beyond, the exponent's normaliser is estimated
MOST_COMPONENTS = 2_000


class Pool:
    """The pool of Gaussians q (M, B, D), every one of them usable, with log-weights (M, B), -inf for those left out.

    exponent       t in [0, 1]
    per_dimension  pool each latent dimension on its own, a product of D pools of one-dimensional Gaussians: the weights
                   know one dimension's affinity. Otherwise the densities of all D are pooled: one set of weights a
                   sample, from affinities that are products over D and nearly 0 where D is large

    >>> mmvm.objectives.Pool(q, torch.full((2, 60), 0.5).log()).sample().shape  # equal weights
    torch.Size([60, 2])
    """

    def __init__(self, q: DiagonalGaussian, log_weights: Tensor, exponent: float = 0.5, per_dimension: bool = False):
        self.order = order_of(exponent)
        self.exponent = 1 / self.order if self.order else exponent
        self.shape, self.per_dimension, self._given = q.shape[1:], per_dimension, (q, log_weights)
        if per_dimension:
            q = DiagonalGaussian.within_limits(self._rows(q.mean), self._rows(q.logvar))
            log_weights = log_weights.repeat_interleave(self.shape[1], 1)
        self.q, self.log_weights = q, log_weights                                          # (M, R, D or 1), (M, R)
        self._weights: tuple[Tensor, Tensor] | None = None

    def _rows(self, z: Tensor) -> Tensor:
        return z.reshape(*z.shape[:-2], -1, 1) if self.per_dimension else z

    def _per_sample(self, values: Tensor) -> Tensor:
        """(..., R) -> (..., B)."""
        return values.unflatten(-1, tuple(self.shape)).sum(-1) if self.per_dimension else values

    def components(self) -> tuple[DiagonalGaussian, Tensor]:
        """The K Gaussians (K, R, D or 1) whose mixture the pool is, and their log-weights (K, R), normalised. Raises
        `UserError` for an exponent that is not 1/k, of which there are none."""
        log_weights, _ = self._mixture()
        parts = geometric_means(self.q, choices(len(self.q.mean), self.order)[0])
        return parts, log_weights - log_weights.logsumexp(0)

    def _mixture(self) -> tuple[Tensor, Tensor]:
        """Log-weights of the components (K, R), which sum to Z, and their log-affinities (K, R)."""
        if self._weights is None:
            if not self.order:
                raise UserError(f"the pool of exponent {self.exponent:g} is no mixture of Gaussians: use an exponent "
                                "of 1/2, 1/3, 1/4, ...")
            chosen, ways = choices(len(self.q.mean), self.order)
            affinity = affinities(self.q, chosen)
            self._weights = log_products(self.log_weights, chosen, ways) + affinity, affinity
        return self._weights

    def log_normaliser(self, z: Tensor | None = None) -> Tensor:
        """log Z (R,), at most 0: closed form for exponents 0 and 1/k, else from draws z (M, R, .) of the posteriors."""
        if self.order:
            return self._mixture()[0].logsumexp(0)
        log_q = self.q.log_prob(self.q.sample().unsqueeze(-3) if z is None else z.unsqueeze(-3))  # (M drawn, M, R)
        ratio = self._log_mean(log_q, 1) - (self.log_weights + log_q).logsumexp(1)
        return (self.log_weights + ratio).logsumexp(0)

    def _log_mean(self, log_q: Tensor, dim: int) -> Tensor:
        return (self.log_weights + self.exponent * log_q).logsumexp(dim) / self.exponent

    def gaussian(self) -> DiagonalGaussian:
        """One Gaussian (B, D): the geometric pool itself for exponent 0, otherwise that with the pool's mean and
        variance in every dimension."""
        if self.exponent == 0:
            matched = geometric(self.q, self.log_weights)
        elif self.order == 2:
            q, log_weights = self._given
            log_v = log_products(log_weights, *choices(len(q.mean), 2)) if self.per_dimension else self._mixture()[0]
            mean, var = pairs.moments(q.mean, q.logvar, log_v, self.per_dimension)
            matched = DiagonalGaussian(mean, var.log())
        else:
            parts, log_v = self.components()
            v = log_v.exp().unsqueeze(-1)
            mean = (v * parts.mean).sum(0)
            matched = DiagonalGaussian(mean, (v * (parts.var + (parts.mean - mean).square())).sum(0).log())
        return DiagonalGaussian.within_limits(matched.mean.reshape(self.shape), matched.logvar.reshape(self.shape))

    def log_prob(self, z: Tensor, draws: Tensor | None = None) -> Tensor:
        """log-density at z (..., B, D): (..., B) nats. `draws` (M, B, D) as for `log_normaliser`."""
        z = self._rows(z)
        if self.exponent == 0:
            return self._per_sample(geometric(self.q, self.log_weights).log_prob(z))
        log_z = self.log_normaliser(None if draws is None else self._rows(draws))
        return self._per_sample(self._log_mean(self.q.log_prob(z.unsqueeze(-3)), -2) - log_z)

    def kl(self, bound: str, z: Tensor) -> Tensor:
        """KL(q_m || pool), (M, B) nats, z (M, B, D) draws, z_m from q_m. Exponent 0: closed form. Otherwise

        "pairwise"     the convexity bound sum_a v_a KL(q_m || c_a) over the components c_a with weights v_a, as sums
                       over m: KL(q_m || c_a) = sum_n (a_n / k) KL(q_m || q_n) + log BC_a; exponents 1/k alone
        "variational"  -(1/t) log sum_n w_n exp(-t KL(q_m || q_n)) + log Z, Jensen's inequality as for the mixture. At
                       t = 0 it is no bound but the divergence
        "monte_carlo"  the log-ratio at z_m, unbiased where log Z has a closed form
        """
        if self.exponent == 0:
            return self._per_sample(self.q.kl(geometric(self.q, self.log_weights)))
        rows = self._rows(z)
        if bound == "monte_carlo":
            return self._per_sample(self.q.log_prob(rows)) - self.log_prob(z, z)
        if bound == "variational":
            return self._per_sample(self.log_normaliser(rows) - self._log_mean(-self.q.pairwise_kl(), 1))
        log_v, affinity = self._mixture()
        v = (log_v - log_v.logsumexp(0)).exp()
        chosen = torch.tensor(choices(len(self.q.mean), self.order)[0], device=v.device)
        share = torch.nn.functional.one_hot(chosen, len(self.q.mean)).sum(1).to(v.dtype) / self.order   # (K, M)
        with in_float32(v):
            weights = torch.einsum("km,kr->mr", share, v)
        return self._per_sample(self.q.mean_kl(weights) + (v * affinity).sum(0))

    def sample(self) -> Tensor:
        """One draw (B, D) with its pathwise gradient, that of the components' weights included: z moves with the
        parameters so that its distribution function F(z) stays put, dz = -dF / density (implicit reparametrisation,
        Figurnov et al. 2018), dimension after dimension of a joint pool, each given those before it (Graves 2016)."""
        parts, log_v = self.components()
        with torch.no_grad():
            chosen = torch.multinomial(log_v.exp().t(), 1).t().unsqueeze(-1).expand(1, *parts.shape[1:])
            noise = torch.randn(parts.shape[1:], dtype=log_v.dtype, device=log_v.device)
            drawn = parts.mean.gather(0, chosen)[0] + parts.std.gather(0, chosen)[0] * noise
        if not torch.is_grad_enabled():
            return drawn.reshape(self.shape)
        moving = []
        for d in range(drawn.shape[-1]):
            u = (drawn[:, d] - parts.mean[..., d]) / parts.std[..., d]                     # (K, R)
            weights = log_v.softmax(0)
            below = (weights * torch.special.ndtr(u)).sum(0)
            density = (weights * parts[..., d:d + 1].log_prob(drawn[:, d:d + 1]).exp()).sum(0).detach()
            moving.append(drawn[:, d] - (below - below.detach()) / density)
            log_v = log_v + parts[..., d:d + 1].log_prob(moving[-1].unsqueeze(-1))
        return torch.stack(moving, -1).reshape(self.shape)


def order_of(exponent: float) -> int:
    """k where the exponent is 1/k, to two parts in a thousand (0.333 is 1/3); otherwise 0."""
    if not 0 <= exponent <= 1:
        raise UserError(f"the exponent of a pool must lie in [0, 1], got {exponent}")
    order = round(1 / exponent) if exponent else 0
    return order if abs(order * exponent - 1) < 2e-3 and order <= MOST_CHOSEN else 0


def choices(n_modalities: int, order: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """All choices of `order` modalities with repetition, and in how many ways each can be put in order."""
    n = math.comb(n_modalities + order - 1, order)
    if n > MOST_COMPONENTS:
        raise UserError(f"a pool of {n_modalities} posteriors with exponent 1/{order} has {n:,} components: use an "
                        f"exponent of {'1/2 or above' if order > 2 else '1'}, or 0")
    chosen = list(itertools.combinations_with_replacement(range(n_modalities), order))
    return chosen, [math.factorial(order) // math.prod(math.factorial(choice.count(m)) for m in set(choice))
                    for choice in chosen]


def log_products(log_weights: Tensor, chosen: Sequence[tuple[int, ...]], ways: Sequence[int]) -> Tensor:
    """log of ways_a prod_m w_m^a_m of each choice a: log-weights (M, R) -> (K, R)."""
    products = reduce(torch.add, (log_weights[list(column)] for column in zip(*chosen)))
    return products + products.new_tensor(ways).log().unsqueeze(-1)


def geometric(q: DiagonalGaussian, log_weights: Tensor) -> DiagonalGaussian:
    """The normalised product of the powers q_m^w_m: (M, B, D), log-weights (M, B) -> (B, D), in O(M)."""
    w = log_weights.exp().unsqueeze(-1)
    centre = (w * q.mean).sum(0)  # means are seen from here: what is far from the origin loses nothing
    precision = w * (-q.logvar).exp()
    total = precision.sum(0)
    return DiagonalGaussian(centre + (precision * (q.mean - centre)).sum(0) / total, -total.log())


def geometric_means(q: DiagonalGaussian, chosen: Sequence[tuple[int, ...]]) -> DiagonalGaussian:
    """The normalised geometric means of chosen Gaussians, K choices of k each: (K, B, D)."""
    mean, share, total = _shares(q, chosen)
    middle = mean[0] + sum(s * (other - mean[0]) for s, other in zip(share[1:], mean[1:]))
    return DiagonalGaussian(middle, math.log(len(mean)) - total)


def affinities(q: DiagonalGaussian, chosen: Sequence[tuple[int, ...]]) -> Tensor:
    """log of the integral of the geometric mean of the chosen, K choices of k: (K, B), 0 where all are equal, otherwise
    negative.

    With shares s_i of the precisions among the k chosen and their sum L, one dimension of it is
    1/2 [mean of log l_i - log(L / k)] - L / (2 k) sum_(i<j) s_i s_j (mu_i - mu_j)^2: nothing large is subtracted.
    """
    k, m = len(chosen[0]), len(q.mean)
    if k == 1:
        return q.mean.new_zeros(q.shape[:2])
    if k == 2:
        of_pairs, own = iter(pairs.affinities(q.mean, q.logvar) if m > 1 else ()), q.mean.new_zeros(q.shape[1])
        return torch.stack([own if i == j else next(of_pairs) for i, j in chosen])
    mean, share, total = _shares(q, chosen)
    spread = sum(share[i] * share[j] * (mean[i] - mean[j]).square() for i in range(k) for j in range(i))
    log_precision = -sum(q.logvar[list(column)] for column in zip(*chosen)) / k
    return 0.5 * (log_precision - total + math.log(k) - total.exp() * spread / k).sum(-1)


def _shares(q: DiagonalGaussian, chosen: Sequence[tuple[int, ...]]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Means of the k chosen, shares of their precisions, each k times (K, B, D), and the log of the precisions' sum."""
    columns = [list(column) for column in zip(*chosen)]
    total = -q.logvar[columns[0]]
    for column in columns[1:]:
        total = torch.logaddexp(total, -q.logvar[column])
    return [q.mean[column] for column in columns], [(-q.logvar[column] - total).exp() for column in columns], total
