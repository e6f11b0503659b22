"""When a factor is dropped: linear Gaussian VAEs with M modalities, a shared and a private factor each, whose optimum
is known in closed form for most methods, and found by L-BFGS for all.

    x_m = (a s + t e_m1, b u_m + t e_m2),    s, u_m, e ~ N(0, 1),    decoders with noise variance sigma^2

Encoders q_m(z | x_m) = N(W_m x_m, V_m) with diagonal V_m, decoders C_m z. The regularisers are the project's own
(`mmvm.objectives`), so that what is derived also tests the code. Everything is float64 and in nats.

`python -m studies.pages.collapse data/collapse.csv` makes the points of the phase diagram again, in some minutes.

Letters: M modalities, K components of a joint posterior, B points, D latent, P private factors.
"""

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import optimize, special
from torch import Tensor

from mmvm import MMVM, Aggregated, DiagonalGaussian, Independent, MultimodalData

OBJECTIVES = {"independent": Independent(), "mmvm": MMVM(), "mmvm:bound=monte_carlo": MMVM(bound="monte_carlo"),
              "poe": Aggregated("poe"), "moe": Aggregated("moe")}
METHODS = tuple(OBJECTIVES)  # of the diagram
GEOMETRIC = "mmvm:prior=geometric"
OBJECTIVES[GEOMETRIC] = MMVM(prior="geometric")
KEPT = 2e-3  # nats about a factor above which it counts as kept


@dataclass(frozen=True)
class Factors:
    """Variances: of the shared factor a^2, the private b^2, the noise t^2 in the data, sigma^2 of the likelihood."""

    shared: float = 1.0
    private: float = 1.0
    noise: float = 0.1
    likelihood: float = 0.1
    m: int = 2

    def mixing(self) -> Tensor:
        """(M, 2, 1 + 3M): how s, u_1 ... u_M and the noises make x_m."""
        a, b, t = (math.sqrt(value) for value in (self.shared, self.private, self.noise))
        mix = torch.zeros(self.m, 2, 1 + 3 * self.m, dtype=torch.float64)
        for m in range(self.m):
            mix[m, 0, 0], mix[m, 1, 1 + m] = a, b
            mix[m, 0, 1 + self.m + m], mix[m, 1, 1 + 2 * self.m + m] = t, t
        return mix


# thresholds: the beta above which a factor is dropped ---------------------------------------------------------------

def thresholds(method: str, f: Factors) -> tuple[float, float]:
    """beta_shared and beta_private, above which the optimum of a linear Gaussian VAE drops the factor. Of the exact
    mixture (`mmvm:bound=monte_carlo`): above which dropping it is a local optimum."""
    shared, private, pull = f.shared + f.noise, f.private + f.noise, 1 - 1 / f.m
    joint = f.m * f.shared + f.noise
    return {
        "independent": (shared / f.likelihood, private / f.likelihood),
        "mmvm": (shared**2 / (2 * pull * f.noise * f.likelihood), private / (2 * pull * f.likelihood)),
        **dict.fromkeys(("mmvm:bound=monte_carlo", GEOMETRIC), (shared**2 / (pull * f.noise * f.likelihood),
                                                                private / (pull * f.likelihood))),
        "poe": (joint / f.likelihood, private / f.likelihood),
        "moe": (joint**2 / (f.m * shared * f.likelihood), private / (f.m * f.likelihood)),
    }[method]


def least_loss(method: str, f: Factors, beta: float) -> float:
    """The loss at the optimum with D = 1 + M, in nats, less the likelihood's constant; not for the exact mixture."""
    shared, private, half = f.shared + f.noise, f.private + f.noise, 1 / (2 * f.likelihood)
    if method in ("mmvm", GEOMETRIC):
        pull = beta * (1 - 1 / f.m) / (1 if method == "mmvm" else 2)
        ratio = max(1.0, math.sqrt(shared**2 * half / (pull * f.noise)))
        of_shared = shared * half / ratio + pull * f.noise / shared * (ratio - 1)
        if method == GEOMETRIC:
            return f.m * (of_shared + private_under_geometric(private * half, beta, f.m))
        y = optimize.brentq(lambda y: y**3 * (1 + y) - 2 * private * half / pull, 0, 1e3)
        of_private = private * half / max(y, 1)**2 + pull * (2 * max(y, 1) + max(y, 1)**2 - 3) / 2
        return f.m * (of_shared + of_private)
    of_shared, of_private = (value * f.likelihood for value in thresholds(method, f))
    gains = [of_shared] * (f.m if method == "independent" else 1) + [of_private] * f.m
    kept = sum((value * half - beta / 2 * (1 + math.log(value / (beta * f.likelihood))))
               for value in gains if value > beta * f.likelihood)
    return f.m * (shared + private) * half - kept


def private_under_geometric(left: float, beta: float, m: int) -> float:
    """The least of what a private factor leaves, `left` over 1 + tau, and costs under the geometric prior, nats: over
    the signal-to-noise ratio tau of its own posterior, and gamma, the other posteriors' variance over its own."""
    def loss(logs: np.ndarray) -> float:
        tau, gamma = np.exp(logs)
        pooled = (1 + (m - 1) / gamma) / m  # precision of the pool over that of the own posterior
        apart = tau * (m - 1) * ((m - 1) / gamma**2 + 1) / (m**2 * pooled)
        spread = pooled * (1 + (m - 1) * gamma) - m - m * math.log(pooled) - (m - 1) * math.log(gamma)
        return left / (1 + tau) + beta / 2 * (spread + apart)

    starts = ([math.log(tau), 0.0] for tau in (0.01, 1.0, 100.0))
    found = [optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
             for start in starts]
    return min(left, *(float(best.fun) for best in found))


# the optimum by L-BFGS ------------------------------------------------------------------------------------------------

def points(f: Factors) -> tuple[Tensor, Tensor]:
    """Values (B, 1 + 3M) of the factors and noises whose mean is 0 and whose covariance is exactly I, and x (M, B, 2)
    of them: for what is quadratic in x, their mean is the expectation."""
    n = 1 + 3 * f.m
    eye = math.sqrt(n) * torch.eye(n, dtype=torch.float64)
    values = torch.cat([eye, -eye])
    return values, torch.einsum("mij,bj->mbi", f.mixing(), values)


def normal_points(f: Factors, d: int, n: int = 2**11) -> tuple[Tensor, Tensor, Tensor]:
    """n low-discrepancy normal values (B, 1 + 3M), x (M, B, 2) of them, and noise (M, B, D) for the latents."""
    size = 1 + 3 * f.m
    uniform = torch.quasirandom.SobolEngine(size + f.m * d, scramble=True, seed=0).draw(n, dtype=torch.float64)
    normal = torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9))
    values, noise = normal[:, :size], normal[:, size:].reshape(n, f.m, d).transpose(0, 1)
    values = values - values.mean(0)
    values = values @ torch.linalg.inv(torch.linalg.cholesky(values.T @ values / n)).T  # covariance exactly I
    return values, torch.einsum("mij,bj->mbi", f.mixing(), values), noise


def distortion(mean: Tensor, var: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """E |x - C z|^2 for the best linear decoder C of x (B, n) from z, which is N(mean_k, var_k) with probability
    `weights` (K), mean and var (K, B, D)."""
    n = x.shape[0]
    zz = torch.einsum("k,kbd,kbe->de", weights, mean, mean) / n
    zz = zz + torch.diag((weights[:, None, None] * var).sum((0, 1)) / n)
    xz = torch.einsum("k,bi,kbd->id", weights, x, mean) / n
    return x.square().sum() / n - (xz * torch.linalg.solve(zz, xz.T).T).sum()


class LinearVAE:
    """The objective of one method as a function of all encoders' weights and variances, with the best decoders."""

    def __init__(self, method: str, factors: Factors, beta: float, latent_dim: int | None = None):
        self.method, self.f, self.beta = method, factors, beta
        self.d = latent_dim or 1 + factors.m
        self.objective = OBJECTIVES[method]
        if method == "mmvm:bound=monte_carlo":
            self.values, self.x, self.noise = normal_points(factors, self.d)
        else:
            self.values, self.x = points(factors)
        self.observed = torch.ones(self.x.shape[:2], dtype=torch.bool)

    def posteriors(self, parameters: Tensor) -> DiagonalGaussian:
        """(M, B, D) from W (M, D, 2) and log V (M, D)."""
        w, logvar = parameters[: 2 * self.f.m * self.d], parameters[2 * self.f.m * self.d:]
        mean = torch.einsum("mdi,mbi->mbd", w.reshape(self.f.m, self.d, 2), self.x)
        return DiagonalGaussian(mean, logvar.reshape(self.f.m, 1, self.d).expand_as(mean))

    def read(self, q: DiagonalGaussian) -> list[tuple[DiagonalGaussian, Tensor]]:
        """What decoder m reads from: components (K, B, D) and their weights (K), a pair for each modality."""
        if isinstance(self.objective, Aggregated):
            parts, log_weights = self.objective.components(q, self.observed)
            return [(parts, log_weights[:, 0].exp())] * self.f.m
        return [(q[m:m + 1], q.mean.new_ones(1)) for m in range(self.f.m)]

    def loss(self, parameters: Tensor) -> Tensor:
        """-E log p + beta R in nats, less the constant of the likelihood."""
        q = self.posteriors(parameters)
        if self.method == "mmvm:bound=monte_carlo":
            log_weights = q.mean.new_full(q.shape[:2], -math.log(self.f.m))
            z = q.mean + q.std * self.noise  # the bound's own draws would move from one evaluation to the next
            regulariser = (q.log_prob(z) - q.mixture_log_prob(z, log_weights)).sum(0).mean()
        else:
            regulariser = self.objective(q, self.observed).regulariser.mean()
        error = sum(distortion(parts.mean, parts.var, weights, x) for (parts, weights), x in zip(self.read(q), self.x))
        return error / (2 * self.f.likelihood) + self.beta * regulariser

    def information(self, parameters: Tensor) -> tuple[float, float]:
        """Nats about s, and about u_m (mean over modalities), in what each decoder reads, or in q_m for a mixture."""
        q = self.posteriors(parameters)
        own = [parts if len(parts.mean) == 1 else q[m:m + 1] for m, (parts, _) in enumerate(self.read(q))]
        found = np.array([[about(part, self.values[:, i]) for i in (0, 1 + m)] for m, part in enumerate(own)])
        return tuple(found.mean(0))

    def minimise(self, starts: int = 3, seed: int = 0) -> tuple[float, tuple[float, float]]:
        """The least loss over several random starts, and what its latents tell of the factors."""
        random, best = np.random.default_rng(seed), None

        def value_and_gradient(p: np.ndarray) -> tuple[float, np.ndarray]:
            parameters = torch.tensor(p, requires_grad=True)
            value = self.loss(parameters)
            return value.item(), torch.autograd.grad(value, parameters)[0].numpy()

        n = 3 * self.f.m * self.d
        for _ in range(starts):
            start = np.concatenate([random.normal(size=2 * n // 3), random.normal(scale=0.5, size=n // 3) - 1])
            found = optimize.minimize(value_and_gradient, start, jac=True, method="L-BFGS-B",
                                      bounds=[(-30, 30)] * n, options={"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-8})
            best = found if best is None or found.fun < best.fun else best
        return float(best.fun), self.information(torch.tensor(best.x))


def about(q: DiagonalGaussian, factor: Tensor) -> float:
    """I(z; factor) of jointly normal z (1, B, D) and factor (B,), in nats."""
    mean, n = q.mean[0], len(factor)
    zz = mean.T @ mean / n + torch.diag(q.var[0].mean(0))
    c = mean.T @ factor / n
    return float(-0.5 * torch.log1p(-(c @ torch.linalg.solve(zz, c)).clamp(max=1 - 1e-12)))


# the ceiling of the exact mixture -------------------------------------------------------------------------------------

def mean_mixture_kl(t: float, p: int, nodes: int = 60) -> float:
    """E sum_m KL(q_m || h) of M = 2 modalities with P private factors that are each kept at a signal-to-noise ratio t:
    unit Gaussians at a squared distance of 2 t chi^2_P."""
    half, weights = special.roots_genlaguerre(nodes, p / 2 - 1)
    distance = np.sqrt(4 * t * half)[:, None]
    x, of_x = special.roots_hermitenorm(nodes)
    inner = math.log(2) - np.logaddexp(0, distance * x - distance**2 / 2) @ of_x / math.sqrt(2 * math.pi)
    return float(2 * (weights @ inner) / special.gamma(p / 2))


def exact_keeps_below(p: int) -> tuple[float, float]:
    """beta, in units of lambda / sigma^2, below which M = 2 modalities under the exact mixture are better off with
    their P private factors of variance lambda than without, all kept alike: the largest ratio of what they explain to
    what they cost; and the signal-to-noise ratio t at which it is reached."""
    found = optimize.minimize_scalar(lambda u: -p * math.exp(u) / (1 + math.exp(u)) / mean_mixture_kl(math.exp(u), p),
                                     bounds=(-9, 9), method="bounded")
    return -float(found.fun), math.exp(found.x)


def canonical_correlations(train: MultimodalData, test: MultimodalData, d: int) -> np.ndarray:
    """How far any two modalities' pictures correlate, (pairs, d), largest first: along the pairs of directions, within
    each modality's d leading principal components, that correlate most in the training tuples; their correlation in
    the test tuples. rho of `Factors` is that of the one direction which its modalities share."""
    parts = []
    for name in train.names:
        x, y = (data.modalities[name].flatten(1).double() for data in (train, test))
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            turn = torch.pca_lowrank(x - x.mean(0), min(d + 16, *x.shape), center=False, niter=4)[2][:, :d]
        z = (x - x.mean(0)) @ turn
        whiten = torch.linalg.inv(torch.linalg.cholesky(z.T @ z / len(z))).T
        parts.append((z @ whiten, (y - x.mean(0)) @ turn @ whiten))
    found = []
    for (x, x_test), (y, y_test) in itertools.combinations(parts, 2):
        u, _, vt = torch.linalg.svd(x.T @ y / len(x))
        pairs = torch.stack([x_test @ u, y_test @ vt.T])
        pairs = (pairs - pairs.mean(1, keepdim=True)) / pairs.std(1, keepdim=True, correction=0)
        found.append(pairs.prod(0).mean(0).numpy())
    return np.stack(found)


# the phase diagram ----------------------------------------------------------------------------------------------------

SHARED, BETAS = np.logspace(-2, 0.5, 8), np.logspace(0, 3, 8)


def diagram(methods: Sequence[str] = METHODS, shared: Sequence[float] = SHARED, betas: Sequence[float] = BETAS,
            starts: int = 2) -> pd.DataFrame:
    """A line a method, variance a^2 of the shared factor, and beta: the least loss and the nats kept of each factor."""
    lines = []
    for method in methods:
        for a in shared:
            for beta in betas:
                loss, kept = LinearVAE(method, Factors(shared=float(a)), float(beta)).minimise(starts)
                lines.append((method, a, beta, loss, *kept))
    return pd.DataFrame(lines, columns=["method", "shared", "beta", "loss", "about_shared", "about_private"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    diagram().to_csv(Path(sys.argv[1]), index=False, float_format="%.10g")
