"""Learning rates beside those of the profiles (`learning_rates.csv`): what a method's place owes to its rate."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from mmvm.study import results
from mmvm.study.figures import INK, METHOD_NAMES, MUTED, SMALLEST, WIDTH
from mmvm.study.results import PREFIX

KEYS = ["method", "rate", "beta"]
USUAL, LAPTOPS_USUAL = 0.005, 0.002  # of the rats' `long` and the mice's profile, and of the others' `laptop`
MICE_RATE, MICE_EPOCHS = 0.00125, 200  # with which all methods have been run on mice
DASHES = ("--", ":", "-.")
SHADES = ("#F3A683", "#E15759", "#9B1B30", "#4A0E17")  # from the highest rate to the lowest


def with_rates(rows: pd.DataFrame, usual: float) -> pd.DataFrame:
    """`rows` with a column `rate`, the learning rate that their notes say; `usual`, the profile's, where none."""
    said = rows["note"].fillna("").astype(str).str.extract(r"learning_rate=([0-9.e-]+)")[0]
    return rows.assign(rate=said.astype(float).fillna(usual))


def rats() -> pd.DataFrame:
    """The rows of the long runs on simulated rats, of all learning rates."""
    return with_rates(pd.concat([results.read("hippocampus_long"), _of("long")]), USUAL)


def mice() -> pd.DataFrame:
    """The rows of mice with `MICE_EPOCHS` epochs, of all learning rates."""
    rows = _of("mice")
    return with_rates(rows[rows["epochs"] == MICE_EPOCHS], USUAL)


def laptop(study: str) -> pd.DataFrame:
    """The rows of a study's laptop runs that keep validation samples out, of all learning rates."""
    usual = results.validated(study)
    return with_rates(pd.concat([usual[usual["profile"] == "laptop"], _of("laptop", study)]), LAPTOPS_USUAL)


def _of(profile: str, study: str = "hippocampus") -> pd.DataFrame:
    rows = results.read("learning_rates")
    return rows[(rows["experiment"] == study) & (rows["profile"] == profile)]


def board(rows: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """A line per method, rate and beta: mean and standard deviation over seeds of the averages of `metrics`, and the
    number of seeds."""
    own = rows[rows["metric"].isin(metrics) & (rows["target"] == "mean") & (rows["source"] == "")]
    values = own.groupby([*KEYS, "metric"])["value"]
    found = values.mean().unstack().join(values.std().unstack().add_suffix(" sd"))
    return found.join(own.groupby(KEYS)["seed"].nunique().rename("seeds"))


def tried(lines: pd.DataFrame, metrics: Mapping[str, str]) -> pd.DataFrame:
    """Of a `board` of laptop runs the lines that have another rate beside the usual one: `metrics` (column -> label),
    with a column per rate."""
    wide = lines.unstack("rate")[list(metrics)].rename(columns=metrics)
    return wide[wide.drop(columns=LAPTOPS_USUAL, level="rate").notna().any(axis=1)]


def chosen(rows: pd.DataFrame, by: str, prefix: str = PREFIX) -> pd.DataFrame:
    """Rate and beta of each method at which `by` is highest with the first seed, on validation samples or with the
    `prefix` "" on test samples: `KEYS` and the score, a line per method."""
    first = rows[rows["seed"] == rows["seed"].min()]
    scores = board(first, [prefix + by])[prefix + by].rename("validated").reset_index()
    return scores.loc[scores.groupby("method")["validated"].idxmax()].reset_index(drop=True)


def at_chosen(rows: pd.DataFrame, picked: pd.DataFrame, metric: str, target: str = "mean") -> pd.DataFrame:
    """A column per seed, a row per method, each at the rate and beta `picked` for it."""
    own = rows[(rows["metric"] == metric) & (rows["target"] == target) & (rows["source"] == "")]
    return own.merge(picked[KEYS], on=KEYS).pivot(index="method", columns="seed", values="value")


def figure(lines: pd.DataFrame, metrics: dict[str, str], chance: dict[str, float], beside: tuple[str, ...],
           usual: float) -> Figure:
    """`metrics` (column -> label) of MMVM over beta, a line per rate with a standard deviation over seeds as bar;
    the methods `beside` at their `usual` rate, thin; `chance` (column -> value) dotted."""
    fig, (axes,) = plt.subplots(1, len(metrics), figsize=(WIDTH, 2.9), sharex=True, squeeze=False)
    rates = sorted(lines.loc["mmvm"].index.get_level_values("rate").unique(), reverse=True)
    for ax, (metric, label) in zip(axes, metrics.items()):
        for rate, colour in zip(rates, SHADES[-len(rates):], strict=True):
            line = lines.loc[("mmvm", rate)].sort_index()
            ax.errorbar(line.index, line[metric], yerr=line[f"{metric} sd"], color=colour, marker="o", markersize=4,
                        linewidth=1.3, elinewidth=0.8, capsize=1.5, label=f"MMVM, {rate:g}", zorder=3)
        for other, dashes in zip(beside, DASHES[:len(beside)], strict=True):
            line = lines.loc[(other, usual)].sort_index()
            ax.plot(line.index, line[metric], color=INK, linewidth=0.9, linestyle=dashes,
                    label=f"{METHOD_NAMES[other]}, {usual:g}")
        if metric in chance:
            ax.axhline(chance[metric], color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
        ax.set(xscale="log", xlabel=r"$\beta$", ylabel=label)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=SMALLEST)
    return fig
