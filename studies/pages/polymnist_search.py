"""The search for a net on translated digits (`polymnist_search.csv`): how far it has come, and what holds it."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmvm.study.figures import INK, MUTED, SMALLEST, WIDTH, label_panels, modality_colour

WARM = "beta_updates"  # in the note of a run whose beta rises from 0
SIZE_COLOURS = {64: "#CC79A7", 128: "#D55E00", 256: "#009E73", 512: "#0072B2"}
SHADES = {"probe": ("probe of the latent", 1.0), "shown": ("seen in its picture", 0.6),
          "imputed": ("seen in imputed ones", 0.3)}
PAPERS_UPDATES = 117_000  # 500 epochs of 60,000 tuples in batches of 256 (paper, appendix B.4)


def runs(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a run of MMVM, by its hash: note, beta, `latent_dim`, probe (mean over modalities), cross coherence and
    training's error, nats; the best probe first."""
    own = rows[(rows["source"] == "") & (rows["method"] == "mmvm")]
    named = {("probe", "mean"): "probe", ("coherence", "cross"): "cross", ("reconstruction", "sum"): "error"}
    own = own.assign(column=pd.Series(list(zip(own["metric"], own["target"])), index=own.index).map(named))
    board = own.dropna(subset=["column"]).pivot_table(index="run", columns="column", values="value")
    notes = own.groupby("run").agg(note=("note", lambda notes: min(notes, key=len)), beta=("beta", "first"),
                                   updates=("updates", "first"))
    board = board.join(notes)
    size = board["note"].str.extract(r"latent_dim=(\d+)")[0].astype(float).fillna(512).astype(int)  # the profile's
    return board.assign(latent_dim=size).sort_values("probe", ascending=False)


def curve(rows: pd.DataFrame, run: str) -> pd.Series:
    """The probe of a run over updates."""
    own = rows[(rows["run"] == run) & (rows["metric"] == "probe_curve")]
    return own.assign(updates=own["source"].astype(int)).groupby("updates")["value"].mean().sort_index()


def per_decade(line: pd.Series) -> tuple[float, float]:
    """Slope and intercept of a probe over log10 of updates, by least squares."""
    slope, intercept = np.polyfit(np.log10(line.index.to_numpy(float)), line.to_numpy(), 1)
    return float(slope), float(intercept)


def updates_to(line: pd.Series, probe: float) -> float:
    """Updates at which the straight line over log10 of updates would reach a probe."""
    slope, intercept = per_decade(line)
    return math.inf if slope <= 0 else 10 ** ((probe - intercept) / slope)


def by_modality(rows: pd.DataFrame, run: str) -> pd.DataFrame:
    """A line a modality: `probe`, and `shown`, the share of pictures decoded from their own latent in which the
    classifier finds their digit, and `imputed`, the same from another's latent, mean over the others."""
    own = rows[rows["run"] == run]
    probe = own[(own["metric"] == "probe") & (own["source"] == "") & (own["target"] != "mean")]
    pairs = own[(own["metric"] == "coherence") & (own["source"] != "")]
    same = pairs["source"] == pairs["target"]
    return pd.DataFrame({"probe": probe.set_index("target")["value"],
                         "shown": pairs[same].set_index("target")["value"],
                         "imputed": pairs[~same].groupby("target")["value"].mean()})


def figure(rows: pd.DataFrame, paper: float) -> Figure:
    """Left: probe over updates of every run of MMVM, the best one's line drawn on, and the paper's number; right: of
    the run with the best probe, what its modalities know and what their decoders show."""
    board = runs(rows)
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.0), width_ratios=(1.5, 1))
    for run, line in board.iterrows():
        own = curve(rows, run)
        left.plot(own.index, own, color=SIZE_COLOURS[line["latent_dim"]], linewidth=1.3,
                  linestyle="--" if WARM in line["note"] else "-")
    best = board.index[0]
    slope, intercept = per_decade(curve(rows, best))
    on = np.array([curve(rows, best).index[-1], PAPERS_UPDATES], float)
    left.plot(on, slope * np.log10(on) + intercept, color=SIZE_COLOURS[board.loc[best, "latent_dim"]], linewidth=0.9,
              linestyle=":")
    left.plot(PAPERS_UPDATES, paper, "*", color=INK, markersize=9, clip_on=False)
    left.annotate("paper", (PAPERS_UPDATES, paper), (-6, 0), textcoords="offset points", ha="right", va="center",
                  fontsize=SMALLEST, color=INK)
    left.axhline(0.1, color=MUTED, linewidth=0.8, linestyle=":")
    left.set(xscale="log", ylim=(0, 1), xlabel="updates", ylabel="linear probe, accuracy")
    marks = [plt.Line2D([], [], color=colour) for colour in SIZE_COLOURS.values()]
    left.legend([*marks, plt.Line2D([], [], color=MUTED, linestyle="--")],
                [*(f"D = {size}" for size in SIZE_COLOURS), "β from 0"], fontsize=SMALLEST, loc="lower right")
    known = by_modality(rows, best)
    for i, line in enumerate(known.itertuples()):
        for k, (column, (_, alpha)) in enumerate(SHADES.items()):
            right.bar(i + 0.27 * (k - 1), getattr(line, column), 0.25, color=modality_colour(i), alpha=alpha)
    right.axhline(0.1, color=MUTED, linewidth=0.8, linestyle=":")
    right.set(xticks=range(len(known)), xticklabels=known.index, ylim=(0, 1))
    right.legend([plt.Rectangle((0, 0), 1, 1, color=INK, alpha=alpha) for _, alpha in SHADES.values()],
                 [name for name, _ in SHADES.values()], fontsize=SMALLEST, loc="upper center")
    label_panels([left, right], ["(a) Probe over updates", "(b) The best of them"])
    return fig
