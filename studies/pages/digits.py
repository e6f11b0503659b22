"""Rows on digits that several pages read: laptop runs in place with all their seeds, and translated digits by other
nets than the grid's."""

import pandas as pd

from mmvm.study import results
from studies.pages.information import with_more_seeds

LAPTOP = "three convolutions"  # of the profiles `laptop` and `translated`, which differ in width
NETS = {"information_translated": f"{LAPTOP}, D = 32", "polymnist": f"{LAPTOP} of 24 channels, D = 64"}


def in_place(profile: str = "laptop") -> pd.DataFrame:
    """The runs of a profile on digits in place. At beta 1 polymnist.csv lacks seeds of the laptop's; information.csv,
    the same runs with more measured, has them."""
    rows = results.read("polymnist")
    rows = rows[rows["profile"] == profile]
    more = results.read("information")
    return with_more_seeds(rows, more[(more["profile"] == profile) & more["method"].isin(set(rows["method"]))])


def without_lost(board: pd.DataFrame, most: float = 0.05) -> pd.DataFrame:
    """A scoreboard without the standard deviations of lines of which a run lost the digit: where that of the probe is
    above `most`, bars would cross the figure."""
    spreads = [name for name in board if name.endswith(" sd")]
    return board.assign(**{name: board[name].where(~(board["probe sd"] > most)) for name in spreads})


def other_nets() -> pd.DataFrame:
    """Translated digits by smaller nets without normalisation, one seed, test tuples: a line per net, beta, method and
    number of updates (the index), with `probe` and, where it was measured, `nonlinear`, the digit by a probe with a
    hidden layer, means over modalities; the highest probe of a net first."""
    kept = results.read("information_translated").assign(net=NETS["information_translated"])
    long = results.read("polymnist")
    rows = pd.concat([kept, long[long["profile"] == "translated"].assign(net=NETS["polymnist"])])
    named = {"probe": "probe", "factor_digit_nonlinear": "nonlinear"}
    rows = rows[rows["metric"].isin(named) & (rows["target"] == "mean") & (rows["source"] == "")]
    lines = rows.pivot_table(index=["net", "updates", "method", "beta"], columns="metric", values="value")
    lines = lines.rename(columns=named).rename_axis(columns=None)[list(named.values())]
    return lines.sort_values("probe", ascending=False).sort_index(level=["net", "updates"], sort_remaining=False,
                                                                  kind="stable")
