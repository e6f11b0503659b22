"""Learning rates beside those of the profiles (`learning_rates.csv`): what a method's place owes to its rate."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from mmvm.study import results
from mmvm.study.figures import INK, METHOD_COLOURS, METHOD_MARKERS, METHOD_NAMES, MUTED, SMALLEST, WIDTH, in_order
from mmvm.study.results import PREFIX

KEYS = ["method", "rate", "beta"]
USUAL, LAPTOPS_USUAL = 0.005, 0.002  # of the rats' `long` and the mice's profile, and of the others' `laptop`
MICE_RATE, MICE_EPOCHS = 0.00125, 200  # with which all methods have been run on mice
RATS_LATENT = 2  # numbers of a rat's latent, in all runs that compare rates
BOTH = ("probe_shared", "state_recovery")  # what all rats' latents say alike, and what one's alone says of its rat
DASHES = ("--", ":", "-.")
SHADES = ("#F3A683", "#E15759", "#9B1B30", "#4A0E17")  # from the highest rate to the lowest


def with_rates(rows: pd.DataFrame, usual: float) -> pd.DataFrame:
    """`rows` with a column `rate`, the learning rate that their notes say; `usual`, the profile's, where none."""
    said = rows["note"].fillna("").astype(str).str.extract(r"learning_rate=([0-9.e-]+)")[0]
    return rows.assign(rate=said.astype(float).fillna(usual))


def rats(latent_dim: int = RATS_LATENT) -> pd.DataFrame:
    """The rows of the long runs on simulated rats with `latent_dim` numbers a latent, of all learning rates."""
    rows = pd.concat([results.read("hippocampus_long"), _of("long")])
    said = rows["note"].fillna("").astype(str).str.extract(r"latent_dim=([0-9]+)")[0]
    return with_rates(rows[said.astype(float).fillna(RATS_LATENT) == latent_dim], USUAL)


def rats_at_best(latent_dim: int = RATS_LATENT, by: str | Sequence[str] = "probe_shared") -> pd.DataFrame:
    """Each method on simulated rats at the rate and beta that validation windows of the first fold choose `by`, and of
    how many pairs (`tried`): mean and standard deviation over folds of the shared probe and the own state's R^2."""
    rows = rats(latent_dim)
    picked = chosen(rows, by)
    found = picked.set_index("method")[["rate", "beta"]].assign(tried=candidates(rows))
    for metric in BOTH:
        folds = at_chosen(rows, picked, metric)
        found[metric], found[f"{metric} sd"] = folds.mean(axis=1), folds.std(axis=1)
    return found


def both_table(of: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Boards of `rats_at_best` (title -> board) side by side as the page shows them; the highest sum of `BOTH` in the
    last of them first."""
    parts = {}
    for title, found in of.items():
        columns = {"β": found["beta"].map("{:g}".format), "tried": found["tried"].map("{:.0f}".format)}
        for metric, label in zip(BOTH, ("shared probe", "own state's R²"), strict=True):
            spread = found[f"{metric} sd"].map(" ± {:.2f}".format).where(found[f"{metric} sd"].notna(), "")
            columns[label] = found[metric].map("{:.2f}".format) + spread
        parts[title] = pd.DataFrame(columns)
    order = found[list(BOTH)].sum(axis=1).sort_values(ascending=False).index
    return pd.concat(parts, axis=1).loc[order].rename(index=METHOD_NAMES)


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


def chosen(rows: pd.DataFrame, by: str | Sequence[str], prefix: str = PREFIX) -> pd.DataFrame:
    """Rate and beta of each method at which `by`, or the sum of several metrics, is highest with the first seed, on
    validation samples or with the `prefix` "" on test samples: `KEYS` and the score, a line per method."""
    first = rows[rows["seed"] == rows["seed"].min()]
    metrics = [prefix + metric for metric in ([by] if isinstance(by, str) else by)]
    scores = board(first, metrics)[metrics].sum(axis=1, skipna=False).rename("validated").reset_index()
    return scores.loc[scores.groupby("method")["validated"].idxmax()].reset_index(drop=True)


def candidates(rows: pd.DataFrame) -> pd.Series:
    """Of each method how many pairs of rate and beta it was run at with the first seed: of so many `chosen` chooses."""
    first = rows[rows["seed"] == rows["seed"].min()]
    return first.drop_duplicates(KEYS).groupby("method").size()


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


def frontier(lines: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """The lines of a `board` that no other exceeds in both columns, by growing `x`."""
    ordered = lines.sort_values([x, y], ascending=False)
    return ordered[ordered[y] > ordered[y].cummax().shift(fill_value=-float("inf"))].sort_values(x)


def both(panels: Mapping[str, pd.DataFrame], metrics: dict[str, str], chance: float) -> Figure:
    """Two columns of a `board` against each other, `metrics` (column -> label of the axis, x first), a panel per entry
    (title -> board): a point per method, rate and beta, filled where seeds are several, a line through those that no
    other exceeds in both; `chance` of x dotted."""
    (x, y), fig = metrics, plt.figure(figsize=(WIDTH, 3.4))
    axes = fig.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (title, lines) in zip(axes, panels.items()):
        edge = frontier(lines, *metrics)
        for method, own in lines.groupby("method"):
            for several, face in ((True, METHOD_COLOURS[method]), (False, "white")):
                part = own[(own["seeds"] > 1) == several]
                ax.plot(part[x], part[y], METHOD_MARKERS[method], color=METHOD_COLOURS[method], markerfacecolor=face,
                        markersize=5 if several else 4, zorder=3 if several else 2)
        ax.plot(edge[x], edge[y], color=INK, linewidth=0.8, zorder=1)
        ax.axvline(chance, color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
        ax.set(xlabel=metrics[x])
        ax.set_title(title, loc="left")
    axes[0].set_ylabel(metrics[y])
    shown = in_order(method for lines in panels.values() for method in lines.index.get_level_values("method"))
    fig.legend([plt.Line2D([], [], marker=METHOD_MARKERS[method], linestyle="", color=METHOD_COLOURS[method])
                for method in shown], [METHOD_NAMES[method] for method in shown], loc="outside lower center", ncols=4)
    return fig
