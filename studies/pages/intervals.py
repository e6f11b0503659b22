"""Intervals that several pages give."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def half_of_students(values: Sequence[float] | np.ndarray) -> float:
    """Half of the 95 % interval of a mean, by Student's t over independent values, of which there must be two or more:
    of three, as over three seeds, a bootstrap would be far too narrow."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n ** 0.5)


def half_of_welchs(*samples: tuple[float, int], least: int = 1) -> float:
    """Half of the 95 % interval of the difference of two means, by Welch's t, of (standard deviation, number of values)
    each; with at least so many degrees of freedom each, for a deviation that is taken from elsewhere; infinite where a
    deviation is not known."""
    parts = [(sd**2 / n, max(n - 1, least)) for sd, n in samples]
    square = sum(part for part, _ in parts)
    if not square > 0:
        return 0.0 if square == 0 else np.inf
    return float(stats.t.ppf(0.975, square**2 / sum(part**2 / free for part, free in parts))) * square**0.5
