"""The Frechet distance of two Gaussians, and means and covariances that are summed up batch by batch."""

import torch
from torch import Tensor

from mmvm.errors import UserError

WIDEST = 2_048  # features that are used as they are; Inception's number


def frechet_distance(mean_1, cov_1, mean_2, cov_2) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared 2-Wasserstein distance of two Gaussians.

    Means (F,) and covariances (F, F), arrays or tensors; computed in float64 on the CPU. Symmetric, never negative, in
    squared units of the features. Raises `UserError` where shapes do not fit, numbers are not finite or a covariance
    is none.
    """
    mean_1, cov_1, mean_2, cov_2 = (torch.as_tensor(a, dtype=torch.float64).detach().cpu()
                                    for a in (mean_1, cov_1, mean_2, cov_2))
    n = mean_1.numel()
    if not (mean_1.shape == mean_2.shape == (n,) and cov_1.shape == cov_2.shape == (n, n)):
        raise UserError(f"means {tuple(mean_1.shape)}, {tuple(mean_2.shape)} and covariances {tuple(cov_1.shape)}, "
                        f"{tuple(cov_2.shape)}: give (F,), (F,) and (F, F), (F, F) of the same F features")
    # The eigenvalues of C1 C2 are those of C1^(1/2) C2 C1^(1/2), real and not negative: the squared singular values of
    # C1^(1/2) C2^(1/2). Taking these directly loses no precision to a square root where covariances are singular.
    cross = torch.linalg.svdvals(square_root(cov_1) @ square_root(cov_2)).sum()
    distance = (mean_1 - mean_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * cross
    return max(distance.item(), 0.0)


def square_root(cov: Tensor) -> Tensor:
    """The symmetric root of a covariance; eigenvalues that rounding made negative count as zero."""
    if not torch.isfinite(cov).all():
        raise UserError("a covariance holds NaN or infinity: look for them in the features and the images they are of")
    values, vectors = torch.linalg.eigh(cov)
    if len(values) and values[0] < -1e-6 * values[-1].abs():
        raise UserError(f"a covariance has the eigenvalue {values[0]:.3g} beside {values[-1]:.3g}, so it is none: "
                        "give symmetric matrices without negative eigenvalues")
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


class RunningMoments:
    """Mean (F,) and covariance (F, F; n - 1) of features that come in batches, float64, on the features' device.

    Batches are centred and merged (Chan et al. 1983): sums of squares would lose a small variance's precision beside
    a large mean.
    """

    def __init__(self):
        self.n = 0
        self.mean = self._scatter = None

    def update(self, features: Tensor) -> None:
        """Adds a batch (B, F)."""
        features = features.detach().double()
        if features.ndim != 2 or self.n and features.shape[1] != len(self.mean):
            raise UserError(f"a batch of features of shape {tuple(features.shape)}: give (B, F), with one F for all")
        if not len(features):
            return
        if self.n == 0:
            self.mean = features.new_zeros(features.shape[1])
            self._scatter = features.new_zeros(features.shape[1], features.shape[1])
        n = self.n + len(features)
        mean = features.mean(0)
        centred, shift = features - mean, mean - self.mean
        self._scatter.addmm_(centred.T, centred).addr_(shift, shift, alpha=self.n * len(features) / n)
        self.mean.add_(shift, alpha=len(features) / n)
        self.n = n

    @property
    def cov(self) -> Tensor:
        """Raises `UserError` for fewer than two samples."""
        if self.n < 2:
            raise UserError(f"a covariance needs at least 2 samples, there are {self.n}: give more data")
        return self._scatter / (self.n - 1)
