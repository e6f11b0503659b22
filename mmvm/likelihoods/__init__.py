"""p(x | parameters): what a decoder's output means, in nats, for reals, fractions, counts and classes."""

from mmvm.likelihoods.base import Bernoulli, Categorical, Laplace, Likelihood, Normal, Poisson
from mmvm.likelihoods.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from mmvm.likelihoods.robust import Beta, StudentT

__all__ = ["Bernoulli", "Beta", "Categorical", "Laplace", "Likelihood", "NegativeBinomial", "Normal", "Poisson",
           "StudentT", "ZeroInflatedNegativeBinomial"]
