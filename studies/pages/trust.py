"""Figure of the chapter `trust`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mmvm.study.figures import INK, MODALITY_COLOURS, WIDTH

# column of the counts -> what it says, colour
ENDS = {"right": ("the right result", MODALITY_COLOURS[0]),
        "other": ("read with the damage in it", MODALITY_COLOURS[4]),
        "refused": ("one clear line", MODALITY_COLOURS[1]), "faults": ("a fault", "#D55E00")}


def outcomes(counts: pd.DataFrame) -> plt.Figure:
    """A bar per kind of attack, cut by how its cases ended, in per cent; the number of cases beside it. `counts` with
    the columns of `ENDS`, a line per kind."""
    fig, ax = plt.subplots(figsize=(WIDTH, 0.42 * len(counts) + 0.9))
    shares = 100 * counts[list(ENDS)].div(counts[list(ENDS)].sum(axis=1), axis=0)
    left, places = np.zeros(len(counts)), np.arange(len(counts))
    for column, (label, colour) in ENDS.items():
        ax.barh(places, shares[column], left=left, height=0.6, color=colour, label=label)
        left += shares[column].to_numpy()
    for y, cases in zip(places, counts[list(ENDS)].sum(axis=1)):
        ax.text(101, y, f"{cases:,}", va="center", color=INK)
    ax.set_yticks(places, counts.index)
    ax.invert_yaxis()
    ax.set(xlabel="share of the cases, %", xlim=(0, 108))
    ax.set_title(f"{int(counts['faults'].sum()):,} of {int(counts[list(ENDS)].to_numpy().sum()):,} ended in a fault",
                 loc="left")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig
