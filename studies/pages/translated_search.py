"""The page `translated`: the search for a net (`polymnist_search.csv`), how far it has come, and what holds it."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmvm.study.figures import INK, MUTED, SMALLEST, WIDTH, fraction, label_panels, modality_colour

UNTRAINED = "untrained"  # as a method: encoders before their first update, which are no run
WARM = "beta_updates"  # in the note of a run whose beta rises from 0
SIZE_COLOURS = {64: "#E8A9C9", 128: "#C9479B", 256: "#84258C", 512: "#3B0F57"}  # none of the modalities'
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
    return board.assign(latent_dim=_size(board["note"])).sort_values("probe", ascending=False)


def floors(rows: pd.DataFrame, metric: str = "probe") -> pd.Series:
    """What a probe reads from untrained encoders, mean over modalities and seeds, by `latent_dim`; `metric` may be
    "probe_curve", the one of `curve`, fitted to fewer encodings."""
    own = rows[(rows["method"] == UNTRAINED) & (rows["metric"] == metric) & (rows["target"] != "mean")]
    return own["value"].groupby(_size(own["note"])).mean().rename_axis("latent_dim")


def _size(notes: pd.Series) -> pd.Series:
    return notes.str.extract(r"latent_dim=(\d+)")[0].astype(float).fillna(512).astype(int)  # the profile's


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


def same_but(board: pd.DataFrame, run: str, beta: float, warm: int = 0) -> str:
    """The run of a `board` that has everything from another one, of constant beta, but this beta, reached after `warm`
    updates."""
    note = board.loc[run, "note"] + (f";optimizer=adam:decay=cosine,{WARM}={warm}" if warm else "")
    return str(board.index[(board["note"] == note) & (board["beta"] == beta)].item())


def figure(rows: pd.DataFrame, paper: float, less: float, chance: float) -> Figure:
    """Left: probe over updates of every run of MMVM, at the edge that of untrained encoders, the best one's line drawn
    on, and the paper's number; beside it what modalities know and what their decoders show, of the run with the best
    probe and of the same at beta `less`; dotted: `chance`."""
    board = runs(rows)
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 3.3), width_ratios=(1.7, 1, 1))
    for run, line in board.iterrows():
        own = curve(rows, run)
        left.plot(own.index, own, color=SIZE_COLOURS[line["latent_dim"]], linewidth=0.8 if line["beta"] < 1 else 1.3,
                  linestyle="--" if WARM in line["note"] else "-", marker="" if line["beta"] == 1 else ".")
    best = board.index[0]
    slope, intercept = per_decade(curve(rows, best))
    on = np.array([curve(rows, best).index[-1], PAPERS_UPDATES], float)
    left.plot(on, slope * np.log10(on) + intercept, color=SIZE_COLOURS[board.loc[best, "latent_dim"]], linewidth=0.9,
              linestyle=":")
    left.plot(PAPERS_UPDATES, paper, "*", color=INK, markersize=9, clip_on=False)
    bare = floors(rows, "probe_curve")
    for size, probe in bare.items():
        left.plot([0, 0.06], [probe, probe], color=SIZE_COLOURS[size], linewidth=2.5, solid_capstyle="butt",
                  transform=left.get_yaxis_transform())
        left.annotate(f"{size}", (0.06, probe), (3, 0), xycoords=left.get_yaxis_transform(),
                      textcoords="offset points", va="center", fontsize=SMALLEST, color=SIZE_COLOURS[size])
    left.annotate("untrained, of D =", (0.02, bare.min()), (0, -13), xycoords=left.get_yaxis_transform(),
                  textcoords="offset points", fontsize=SMALLEST, color=MUTED)
    left.annotate("paper", (PAPERS_UPDATES, paper), (-6, 0), textcoords="offset points", ha="right", va="center",
                  fontsize=SMALLEST, color=INK)
    first = min(curve(rows, run).index[0] for run in board.index)
    left.set(xscale="log", xlim=(first / 3.5, 1.25 * PAPERS_UPDATES), ylim=(0.22, 1), xlabel="updates",
             ylabel="linear probe, accuracy")
    kinds = {"β from 0 to 1": {"linestyle": "--"}, "β from 0 to 4": {"linestyle": "--", "marker": "."},
             "β below 1": {"linewidth": 0.8, "marker": "."}}
    left.legend([plt.Line2D([], [], color=INK, **how) for how in kinds.values()], list(kinds), fontsize=SMALLEST,
                loc="upper left", frameon=False)
    for ax, run in ((middle, best), (right, same_but(board, best, less))):
        _bars(ax, by_modality(rows, run))
        ax.axhline(chance, color=MUTED, linewidth=0.8, linestyle=":")
    right.set(yticklabels=[])
    fig.legend([plt.Rectangle((0, 0), 1, 1, color=INK, alpha=alpha) for _, alpha in SHADES.values()],
               [name for name, _ in SHADES.values()], fontsize=SMALLEST, loc="outside lower right", ncols=len(SHADES))
    label_panels([left, middle, right], ["(a) Probe over updates", "(b) Best, β = 1", f"(c) β = {fraction(less)}"])
    return fig


def _bars(ax: Axes, known: pd.DataFrame) -> None:
    for i, line in enumerate(known.itertuples()):
        for k, (column, (_, alpha)) in enumerate(SHADES.items()):
            ax.bar(i + 0.27 * (k - 1), getattr(line, column), 0.25, color=modality_colour(i), alpha=alpha)
    ax.set(xticks=range(len(known)), xticklabels=known.index, ylim=(0, 1))
