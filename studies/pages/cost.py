"""Figures of the chapter `cost`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb

from mmvm.study.figures import INK, METHOD_COLOURS, MODALITY_COLOURS, MUTED, SMALLEST, WIDTH, label_panels

# of the committed measurements the machine that the chapter's text is about
MACHINE = "Intel(R) Xeon(R) Processor, 2 threads, amx_bf16, avx512_bf16"
PRECISION_COLOURS = {"float32": MODALITY_COLOURS[0], "bfloat16": METHOD_COLOURS["mmvm"]}
LAYER_MARKERS = {"convolution": "o", "transposed convolution": "v", "dense": "s"}


def roofline(layers: dict[str, pd.DataFrame], peaks: dict[str, float], bandwidth: float) -> plt.Figure:
    """One panel per network: each layer's FLOP/s against its FLOP per byte, under what the machine allows.

    `layers[network]` has the columns precision, kind, flops_per_byte, flops_per_second; `peaks`: precision -> FLOP/s;
    `bandwidth` in bytes per second.
    """
    figure, axes = plt.subplots(1, len(layers), figsize=(WIDTH, 3.3), sharey=True)
    intensity = np.logspace(0, 4, 200)
    for ax, table in zip(axes, layers.values()):
        for precision, colour in PRECISION_COLOURS.items():
            roof = np.minimum(peaks[precision], bandwidth * intensity)
            ax.plot(intensity, roof, color=colour, linewidth=1.2)
            ax.annotate(precision, (intensity[-1], roof[-1]), xytext=(0, 7), ha="right", va="center",
                        textcoords="offset points", fontsize=SMALLEST, color=0.75 * np.array(to_rgb(colour)))
            own = table[table["precision"] == precision]
            for kind, marker in LAYER_MARKERS.items():
                dots = own[own["kind"] == kind]
                ax.scatter(dots["flops_per_byte"], dots["flops_per_second"], color=colour, marker=marker, s=28,
                           edgecolors="white", linewidths=0.5, zorder=3)
        ax.set(xscale="log", yscale="log", xlabel="FLOP per byte", xlim=(1, 1e4), ylim=(None, 2 * max(peaks.values())))
    axes[0].set_ylabel("FLOP per second")
    handles = [plt.Line2D([], [], color=INK, marker=marker, linestyle="", label=kind)
               for kind, marker in LAYER_MARKERS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    label_panels(axes, list(layers))
    return figure


def bars(tables: dict[str, pd.DataFrame], labels: dict[str, str], label: str) -> plt.Figure:
    """Horizontal bars with their range, one panel per entry; columns arm, value, low, high; `labels`: arm -> text.
    What bars of one colour have in common stands beside the last panel."""
    height = 0.26 * max(map(len, tables.values())) + 0.9
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDTH, height), sharey=True, squeeze=False)
    for ax, table in zip(axes[0], tables.values()):
        table = table.set_index("arm").reindex(list(labels))
        position = np.arange(len(table))
        kinds = ["bfloat16" if "bfloat16" in arm else "float32" if "float32" in arm else "other programs"
                 for arm in table.index]
        colours = [PRECISION_COLOURS.get(kind, MUTED) for kind in kinds]
        spread = np.abs(table[["low", "high"]].to_numpy().T - table["value"].to_numpy())
        ax.barh(position, table["value"], xerr=spread, color=colours, height=0.65, error_kw={"linewidth": 1})
        for y, value, high in zip(position, table["value"], table["high"]):
            if np.isfinite(value):
                ax.annotate(f"{value:,.0f}", (high, y), xytext=(4, 0), textcoords="offset points", va="center",
                            color=INK, fontsize=SMALLEST)
        ax.margins(x=0.2)  # room for the numbers
        ax.set(xlabel=label)
        ax.set_yticks(position, labels.values())
    axes[0, 0].invert_yaxis()
    for kind in dict.fromkeys(kinds):
        middle = np.mean([y for y, of in zip(position, kinds) if of == kind])
        ax.text(1.03, middle, kind, transform=ax.get_yaxis_transform(), rotation=270, va="center", fontsize=SMALLEST,
                color=0.75 * np.array(to_rgb(PRECISION_COLOURS.get(kind, MUTED))))
    label_panels(axes[0], list(tables))
    return figure


def scaling_with_modalities(table: pd.DataFrame) -> plt.Figure:
    """Seconds of an update and of the MMVM term against M (left), and memory against M (right); columns arm, metric,
    modalities, value."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
    styles = {"update": (INK, "-", "o"), "MMVM term, all pairs": (MUTED, "--", "s"),
              "MMVM term": (METHOD_COLOURS["mmvm"], "-", "o")}
    for arm, (colour, line, marker) in styles.items():
        own = table[(table["arm"] == arm) & (table["metric"] == "seconds")].sort_values("modalities")
        left.plot(own["modalities"], own["value"], color=colour, linestyle=line, marker=marker)
        left.annotate(arm.replace(", ", ",\n"), (own["modalities"].iloc[-2], own["value"].iloc[-2]),
                      textcoords="offset points", xytext={"update": (-26, 10)}.get(arm, (2, -15)), va="center",
                      fontsize=SMALLEST, color=0.75 * np.array(to_rgb(colour)))
    left.set(xscale="log", yscale="log", xlabel="modalities $M$", ylabel="seconds an update")
    memory = table[table["metric"] == "memory_bytes"].sort_values("modalities")
    right.plot(memory["modalities"], memory["value"] / 1e9, color=INK, marker="o")
    right.set(xlabel="modalities $M$", ylabel="peak memory (GB)", ylim=(0, None), xlim=(0, None))
    ticks = sorted(set(memory["modalities"]))
    left.set_xticks(ticks, [str(m) for m in ticks])
    left.minorticks_off()
    label_panels((left, right), ["(a) All pairs would outgrow the rest", "(b) Memory is linear in $M$"])
    return figure
