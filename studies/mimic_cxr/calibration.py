"""Whether probabilities mean what they say: of all samples that a label is given 30 % for, 30 % should have it.

Every label is a binary question, and its probability of being present is what is binned, into bins of equal width.
Guo et al. (2017), whose expected calibration error this is for one question, bin the confidence in whatever class is
predicted instead; for rare labels that is a number close to 1 nearly everywhere. Labels that are NaN, not known, do not
count, nor does an answer that is NaN.
"""

from dataclasses import dataclass

import numpy as np

from mmvm.errors import UserError


@dataclass(frozen=True)
class Reliability:
    """Per bin (K,): mean probability, share of samples that have the label, number of samples; the first two are NaN
    where a bin is empty."""

    confidence: np.ndarray
    frequency: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: |frequency - confidence|, mean over the samples; NaN where there is none."""
        filled = self.count > 0
        if not filled.any():
            return float("nan")
        gap = np.abs(self.frequency - self.confidence)[filled]
        return float((self.count[filled] * gap).sum() / self.count.sum())


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> Reliability:
    """Of probabilities and labels of one shape, (N,) or (N, C); several labels are pooled. A probability of 1 is in the
    last bin."""
    p, y = _checked(probabilities, labels)
    if bins < 1:
        raise UserError(f"bins must be at least 1, got {bins}")
    known = ~(np.isnan(p) | np.isnan(y))
    p, y = p[known], y[known]
    at = np.minimum((p * bins).astype(int), bins - 1)
    count = np.bincount(at, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(np.bincount(at, p, bins) / count, np.bincount(at, y, bins) / count, count)


def calibration_errors(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> np.ndarray:
    """Expected calibration error per label, (C,), of probabilities and labels (N, C). It depends on the number of bins,
    and for few samples it is above zero even where probabilities are right."""
    p, y = _checked(probabilities, labels)
    return np.array([reliability(p[:, c], y[:, c], bins).error for c in range(p.shape[1])])


def brier_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean squared difference of probability and label (Brier 1950) per label, (C,), of probabilities and labels
    (N, C). Always to answer with the share q of samples that have the label scores q (1 - q)."""
    p, y = _checked(probabilities, labels)
    squared = np.ma.masked_invalid((p - y) ** 2)
    return squared.mean(0).filled(np.nan) if len(p) else np.full(p.shape[1], np.nan)


def _checked(probabilities, labels) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(probabilities, float), np.asarray(labels, float)
    if p.shape != y.shape:
        raise UserError(f"probabilities {p.shape} and labels {y.shape}: give both in the same shape")
    if (p < 0).any() or (p > 1).any():
        raise UserError(f"probabilities must lie in [0, 1], got {np.nanmin(p):.3g} to {np.nanmax(p):.3g}: logits go "
                        "through a sigmoid first")
    return p, y
