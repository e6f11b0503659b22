"""The MMVM VAE: a data-dependent mixture of the M posteriors is the prior of each of them (paper, section 4)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives.base import Objective, Shared, log_normalised, log_trusted, one_of
from mmvm.objectives.gates import Gated, harden
from mmvm.objectives.mixture import keep_largest, mixture_kl, of_the_others
from mmvm.objectives.pools import Pool, order_of
from mmvm.objectives.spec import Appearance, method
from mmvm.options import Option
from mmvm.schedule import Schedule, at, bounds_of

BOUNDS = ("pairwise", "monte_carlo", "variational")
EXPONENTS = {"mixture": 1.0, "geometric": 0.0, "hellinger": 0.5}  # of the priors that have names
PRIORS, POOLS, AFFINITIES = tuple(EXPONENTS), ("exact", "matched"), ("joint", "per_dimension")
GRADIENTS = ("both", "posterior", "prior")
ALONE = "without its own component the prior of one modality is empty: give two modalities, or leave self_component out"


@method("mmvm", "MMVM", "#D55E00", "o", "paper, section 4, equation 3", [
    Option("bound", "pairwise", "what is trained for KL(q_m || h)", choices=BOUNDS,
           paper="released code: pairwise; the paper's equation: monte_carlo"),
    Option("alpha", 0.0, "weight of KL(q, N(0, I)) beside that of the mixture", at_least=0, at_most=1,
           paper="0; released code: falls to 0"),
    Option("alpha_updates", 0, "updates in which alpha falls from 1; 0: constant", at_least=0,
           paper="released code: 150000, where alpha falls"),
    Option("gate", "none", "network that weighs the mixture; none: equal weights", choices=("none", *Gated.MODES),
           paper="not in the paper"),
    Option("reads", "posteriors", "what a gate sees of a sample: the posteriors, or the encoders' last hidden features",
           choices=Gated.READS),
    Option("temperature", 1.0, "of gate=gumbel, at the start", above=0),
    Option("temperature_updates", 0, "updates in which it falls to a tenth; 0: constant", at_least=0),
    Option("load_balance", 0.0, "weight of a gate's load-balancing term, nats", at_least=0),
    Option("n_experts", 0, "experts in the mixture; 0: all", at_least=0, paper="all"),
    Option("prior", "mixture", "how the posteriors are pooled into h: their mixture, normalised geometric mean or "
           "Hellinger pool", choices=PRIORS, paper="mixture"),
    Option("exponent", None, "in place of prior, that of a power mean: 1 the mixture, 1/2 the Hellinger pool, 0 the "
           "geometric mean; closed forms for these and 1/k, else the normaliser is estimated from the draws",
           kind=float, at_least=0, at_most=1),
    Option("pool", "exact", "h itself, or one Gaussian with its mean and variance, to which KL has a closed form",
           choices=POOLS, paper="exact"),
    Option("bhattacharyya", "joint", "pool the densities of all latent dimensions, or each dimension on its own",
           choices=AFFINITIES),
    Option("weights", "equal", "of the mixture, M positive numbers as in 5+3+2; equal: 1/M each; given: each sample's "
           "own, from the trust that the data have", paper="equal"),
    Option("gradient", "both", "through which side of KL(q_m || h) the encoders learn; the other stands still",
           choices=GRADIENTS, paper="both"),
    Option("self_component", True, "q_m is in its own prior; false: h is the mixture of the others", paper="true")],
        variants={
    "mmvm:gate=soft": Appearance("MMVM, soft gate", "#E08D5B", "h"),  # gated priors: vermilion in steps
    "mmvm:gate=hard": Appearance("MMVM, hard gate", "#8F3F00", "p"),
    "mmvm:gate=gumbel": Appearance("MMVM, Gumbel gate", "#F2B999", "8"),
    "mmvm:prior=geometric": Appearance("MMVM, geometric prior", "#A6611A", "<"),
    "mmvm:prior=hellinger": Appearance("MMVM, Hellinger prior", "#C51B7D", ">")})
class MMVM(Objective):
    """The mixture-of-experts prior h(z | X) = sum_m w_m q_m(z | x_m) (paper, equation 3), w_m = 1/M by default.

    R = sum_m KL(q_m || h) has no closed form. `bound` chooses what is trained in its place:

    "pairwise"     sum_m sum_n w_n KL(q_m || q_n): an upper bound by convexity, closed form and unbounded; what the
                   released code trains
    "variational"  -sum_m log sum_n w_n exp(-KL(q_m || q_n)): closed form, between R and "pairwise" and, like R,
                   at most M log M with equal weights (the variational bound of Hershey and Olsen, 2007)
    "monte_carlo"  sum_m [log q_m(z_m) - log h(z_m)] at the drawn z_m: unbiased for R, the paper's equation

    weights                 "uniform", M positive numbers (normalised over the observed modalities), a `Gated` network
                            that reads them off the posteriors or features (not in the paper), or
                            "given": in proportion to the trust that the data have (`MultimodalData`), an oracle's
    standard_normal_weight  alpha, a number in [0, 1] or a `Schedule`: R_total = (1 - alpha) R + alpha sum_m
                            KL(q_m || N(0, I)). 0 is the paper's method, 1 is `Independent`. With 0 nothing fixes
                            where the latents lie or how wide they are; only their agreement counts.
    prior                   how h pools the posteriors: "mixture", "geometric" or "hellinger"; or, in its place, the
    exponent                in [0, 1] of any power mean (`mmvm.objectives.pools`; the project's, not the paper's). KL to
                            the geometric pool has a closed form, whatever `bound` says; for the others `bound` is as
                            above, over the pool's components. "pairwise" needs an exponent of 1/k
    pool                    "exact": h itself; "matched": one Gaussian with h's mean and variance, KL in closed form
    bhattacharyya           "joint": the densities are pooled; "per_dimension": those of each latent dimension are
    n_experts               the mixture keeps the `n_experts` largest weights of each sample and renormalises them;
                            equal weights keep the modalities that come first. None: all. Every modality is still
                            regularised towards the mixture, also one that is no expert.
    gradient                of the mixture's KL to the encoders: "both" arguments; "posterior", h stands still and q_m
                            moves towards it; "prior", q_m stands still and h moves. The value is the same, and "both"
                            is the sum of the other two. A gate's weights learn in each case.
    self_component          False: h_m = sum_(n != m) w_n q_n / (1 - w_m), which has no ceiling at -log w_m. The
                            pairwise bound is then that with q_m, over 1 - w_m: with equal weights beta times M / (M -
                            1) and nothing else. A modality that is observed alone costs nothing, as with q_m

    The mixture covers the observed modalities of each sample, and only these are regularised.

    Raises `UserError` for an unknown bound, weights that are not positive, an alpha outside 0 to 1, n_experts below 1,
    one modality without its own component.

    >>> MMVM(bound="pairwise", standard_normal_weight=0.1)(q, observed).regulariser.shape
    torch.Size([60])
    """

    BOUNDS = BOUNDS
    weights: Tensor | None
    gradient, self_component, given = "both", True, False  # of the class: earlier kept models had none

    @classmethod
    def from_options(cls, options: Mapping, latent_dim: int, n_modalities: int) -> "Objective":
        alpha, gate, temperature = options["alpha"], options["gate"], options["temperature"]
        if gate == "none" and (options["load_balance"] or options["temperature_updates"] or temperature != 1.0
                               or options["reads"] != "posteriors"):
            raise UserError("load_balance, temperature and reads belong to a gate: add gate=soft, gate=hard or "
                            "gate=gumbel")
        if gate != "gumbel" and (options["temperature_updates"] or temperature != 1.0):
            raise UserError(f"gate={gate} has no temperature: leave temperature and temperature_updates out, or add "
                            "gate=gumbel")
        if options["alpha_updates"]:
            alpha = Schedule(1.0, alpha, options["alpha_updates"])
        if options["temperature_updates"]:
            temperature = Schedule(temperature, temperature / 10, options["temperature_updates"])
        weights: str | list[float] | Gated = fixed_weights(options["weights"], n_modalities)
        if gate != "none":
            if weights != "uniform":
                raise UserError("a gate has weights of its own: leave weights or gate out")
            weights = Gated(latent_dim, gate, temperature, options["load_balance"], reads=options["reads"])
        if n_modalities < 2 and not options["self_component"]:
            raise UserError(ALONE)
        return cls(options["bound"], weights, alpha, options["n_experts"] or None, options["prior"],
                   options["exponent"], options["pool"], options["bhattacharyya"], options["gradient"],
                   options["self_component"])

    def __init__(self, bound: str = "pairwise", weights: str | Sequence[float] | Tensor | Gated = "uniform",
                 standard_normal_weight: float | Schedule = 0.0, n_experts: int | None = None, prior: str = "mixture",
                 exponent: float | None = None, pool: str = "exact", bhattacharyya: str = "joint",
                 gradient: str = "both", self_component: bool = True):
        super().__init__()
        self.bound = one_of(bound, self.BOUNDS, "bound")
        self.gate = weights if isinstance(weights, Gated) else None
        if isinstance(weights, str) and weights not in ("uniform", "given"):
            raise UserError(f"unknown weights {weights!r}: use 'uniform', a sequence of M positive numbers, 'given', "
                            "or Gated()")
        if isinstance(weights, (str, Gated)):
            given = None
            if weights == "given":
                self.given = True
        else:
            given = torch.as_tensor(weights, dtype=torch.float32)
            if given.ndim != 1 or not len(given) or not bool(((given > 0) & given.isfinite()).all()):
                raise UserError(f"weights must be M positive finite numbers, got {given.tolist()}")
        for value in bounds_of(standard_normal_weight):
            if not 0 <= value <= 1:
                raise UserError(f"standard_normal_weight must lie in [0, 1], got {value}")
        if n_experts is not None and n_experts < 1:
            raise UserError(f"n_experts must be at least 1, got {n_experts}")
        self.standard_normal_weight = standard_normal_weight
        self.n_experts = n_experts
        self._set_prior(prior, exponent, pool, bhattacharyya)
        if one_of(gradient, GRADIENTS, "gradient") != "both":
            self.gradient = gradient
        if not self_component:
            self.self_component = False
        if not self.plain and (gradient != "both" or not self_component):
            raise UserError("gradient and self_component belong to the mixture of all dimensions: leave prior, "
                            "exponent, pool and bhattacharyya out, or them")
        self.register_buffer("weights", given, persistent=False)

    def _set_prior(self, prior: str, exponent: float | None, pool: str, bhattacharyya: str) -> None:
        self.prior = one_of(prior, PRIORS, "prior")
        self.matched = one_of(pool, POOLS, "pool") == "matched"
        self.per_dimension = one_of(bhattacharyya, AFFINITIES, "bhattacharyya") == "per_dimension"
        if exponent is not None and prior != "mixture":
            raise UserError(f"prior={prior!r} has an exponent of its own: leave prior or exponent out")
        self.exponent = EXPONENTS[prior] if exponent is None else exponent
        if self.exponent and not order_of(self.exponent) and (self.matched or self.bound == "pairwise"):
            raise UserError(f"with exponent={self.exponent:g} the prior is no mixture of Gaussians: add "
                            "bound=variational or bound=monte_carlo with pool=exact, or use an exponent of 1/2, 1/3, "
                            "1/4, ...")
        self.plain = self.exponent == 1 and not self.matched and not self.per_dimension  # the paper's mixture
        if self.gate is not None and not self.plain:
            raise UserError("a gate weighs the mixture of all dimensions: leave prior, pool and bhattacharyya out, or "
                            "the gate")

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("trust",) if self.given else ("features",) if self.gate is not None and self.gate.of_features else ()

    def meet(self, widths: Sequence[int]) -> None:
        if self.gate is not None:
            self.gate.meet(widths)

    @property
    def settled_at(self) -> int:
        moving = [self.standard_normal_weight, self.gate.temperature if self.gate is not None else 0.0]
        return max(value.steps if isinstance(value, Schedule) else 0 for value in moving)

    def log_weights(self, q: DiagonalGaussian, observed: Tensor) -> Tensor:
        log_weights = self._log_weights(q, observed)
        return harden(log_weights) if self.gate is not None and self.gate.mode == "hard" else log_weights

    def _log_weights(self, q: DiagonalGaussian, observed: Tensor) -> Tensor:
        """As `log_weights`, before a hard gate chooses one."""
        if self.gate is not None:
            log_weights = self.gate.log_probabilities(q, observed)
        elif self.given:
            log_weights = log_trusted(q, observed)
        elif self.weights is None:
            log_weights = super().log_weights(q, observed)
        elif len(self.weights) != len(observed):
            raise UserError(f"{len(self.weights)} mixture weights for {len(observed)} modalities: give one each")
        else:
            log_weights = log_normalised(observed * self.weights.unsqueeze(-1))
        return log_weights if self.n_experts is None else keep_largest(log_weights, self.n_experts)

    def forward(self, q: DiagonalGaussian, observed: Tensor, step: int = 0) -> Shared:
        q = q.where(observed)
        z = q.sample()
        log_weights = self._log_weights(q, observed)
        if not self.self_component and len(observed) < 2:
            raise UserError(ALONE)
        still = q.detach() if self.gradient != "both" else q
        first, at_z = (still, z.detach()) if self.gradient == "prior" else (q, z)
        of = {"both": None, "posterior": still, "prior": q}[self.gradient]
        parts = {}
        if self.gate is not None:
            parts.update(self.gate.parts(log_weights, observed))
            kl_mixture = self.gate.mixture_kl(self.bound, first, at_z, log_weights, step, of, self.self_component)
        elif self.plain:
            own = log_weights if self.self_component else of_the_others(log_weights)
            kl_mixture = mixture_kl(self.bound, first, at_z, own, of)
        else:
            pool = Pool(q, log_weights, self.exponent, self.per_dimension)
            kl_mixture = q.kl(pool.gaussian()) if self.matched else pool.kl(self.bound, z)

        absent = ~observed
        kl_mixture = kl_mixture.masked_fill(absent, 0.0).sum(0)
        alpha = at(self.standard_normal_weight, step)
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(alpha)):  # with 0 it is only watched
            kl_standard_normal = q.kl_standard_normal().masked_fill(absent, 0.0).sum(0)
        # at both ends the other term is left out, not multiplied by zero: 0 * inf is NaN
        if alpha == 0:
            regulariser = kl_mixture
        elif alpha == 1:
            regulariser = kl_standard_normal
        else:
            regulariser = (1 - alpha) * kl_mixture + alpha * kl_standard_normal
        parts = {"kl_mixture": kl_mixture, "kl_standard_normal": kl_standard_normal, **parts}
        if self.gate is not None and self.gate.load_balance:
            parts["load_balance"] = self.gate.imbalance(log_weights, observed)
            regulariser = regulariser + self.gate.load_balance * parts["load_balance"]
        return Shared(z.unsqueeze(0), regulariser, parts)

    def importance_draws(self, q: DiagonalGaussian, observed: Tensor, n: int) -> tuple[Tensor, Tensor]:
        raise UserError("the MMVM VAE has no log-likelihood: its prior h(z | X) is made of the data it should explain, "
                        "so there is no p(z) and no joint density p(X, z) (paper, section 3). Compare its "
                        "reconstruction and imputation errors, or a joint model's log-likelihood with another's")

    def prior_latents(self, n: int, n_modalities: int, latent_dim: int) -> Tensor:
        raise UserError("the MMVM VAE has no p(z) to sample from: its prior h(z | X) is made of the data it should "
                        "explain (paper, sections 3 and 6). Fit a density to its latents, fit_latent_density or "
                        "fit_latent_diffusion, and give it as `density`")

    def anchored(self, step: int) -> bool:
        return at(self.standard_normal_weight, step) > 0

    def report(self, means: dict[str, float]) -> tuple[dict[str, float], list[str]]:
        return ({}, []) if self.gate is None else self.gate.report(means)


def fixed_weights(text: str, n_modalities: int) -> str | list[float]:
    """The weights that 5+3+2 says, "uniform" where it says equal, or "given"."""
    if text in ("equal", "given"):
        return "uniform" if text == "equal" else text
    try:
        weights = [float(word) for word in text.split("+")]
    except ValueError:
        raise UserError(f"weights must be equal, or numbers as in 5+3+2, got {text!r}; given takes the data's trust"
                        ) from None
    if len(weights) != n_modalities:
        raise UserError(f"{len(weights)} mixture weights for {n_modalities} modalities: give one each")
    return weights
