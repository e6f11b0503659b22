"""Intervals that several pages give."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def half_of_students(values: Sequence[float] | np.ndarray) -> float:
    """Half of the 95 % interval of a mean, by Student's t over independent values, of which there must be two or more:
    of three, as over three seeds, a bootstrap would be far too narrow."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n ** 0.5)
