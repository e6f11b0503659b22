"""Figures of the page `ablations`; `table` is that of `studies.pages.ablations.measured` throughout."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmvm.objectives.gates import COLLAPSED, EXPLODED
from mmvm.study.figures import INK, METHOD_COLOURS, MUTED, SMALLEST, WIDTH, label_panels
from studies.pages.ablations import (
    BASE,
    CORRUPTIONS,
    MEASURES,
    ON_TRANSLATED,
    QUESTIONS,
    SHARES,
    STANDARD,
    Question,
    Setting,
    effect,
    of,
    same,
)

BASE_COLOUR, OTHER, PALE = METHOD_COLOURS["mmvm"], "#0072B2", "#9CC3DE"
LIES, HONEST = "#0072B2", "#E69F00"
CHANCE = {"probe": 0.1, "coherence": 0.1}


def colour_of(setting: Setting, against: Setting) -> str:
    return BASE_COLOUR if same(setting, against) else (
        METHOD_COLOURS["independent"] if "objective=independent" in setting.words else OTHER)


def effects(table: pd.DataFrame, question: Question) -> Figure:
    """A row per setting, a panel per measure: each seed a small dot, the mean a large one, and as a bar the interval of
    the difference to the base, which is the line. Bars that are longer leave the panel (`within`)."""
    settings, base = question.settings, of(table, STANDARD)
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(WIDTH, 0.23 * len(settings) + 0.75), sharey=True)
    for ax, (measure, label) in zip(axes, MEASURES.items()):
        ax.axvline(base[measure].mean(), color=BASE_COLOUR, linewidth=0.8, linestyle="--", zorder=1)
        for y, setting in enumerate(settings):
            one_row(ax, y, table, setting, measure, STANDARD)
        within(ax, measure, pd.concat([of(table, setting)[measure] for setting in settings]))
        ax.set_xlabel(label)
    rows(axes, [setting.name for setting in settings])
    return figure


def one_row(ax: Any, y: float, table: pd.DataFrame, setting: Setting, measure: str, against: Setting) -> None:
    """Each seed small, the mean large; the bar is the interval of `effect`, set at the mean of `against` over the seeds
    that both have."""
    values, colour = of(table, setting)[measure], colour_of(setting, against)
    if not len(values):
        return
    ax.plot(values, [y] * len(values), "o", color=colour, markersize=2.6, alpha=0.6, zorder=2)
    ax.plot(values.mean(), y, "o", color=colour, markersize=5.5, markeredgecolor="white", markeredgewidth=0.5, zorder=3)
    if not same(setting, against):
        _, low, high = effect(table, setting, measure, against)
        common = of(table, against)[measure].reindex(values.index).mean()
        ax.plot([common + low, common + high], [y, y], color=INK, linewidth=1.1, solid_capstyle="butt", zorder=4)


def within(ax: Any, measure: str, values: pd.Series) -> None:
    """The axis of the runs, whatever a bar asks for: of two seeds Student's t is thirteen times their error, and such a
    bar goes on beyond the panel."""
    room = 0.08 * (values.max() - values.min())
    if measure in SHARES:
        ax.set_xlim(0, 1)
    elif room > 0:  # not of a single run, nor of none
        ax.set_xlim(values.min() - room, values.max() + room)


def rows(axes: Any, names: Sequence[str]) -> None:
    """Names at the left of the first panel, from the top."""
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    for ax in axes:
        ax.tick_params(axis="y", length=0)
        ax.locator_params(axis="x", nbins=3)


def over(table: pd.DataFrame, question: Question) -> Figure:
    """A panel per measure over the factor's numbers: seeds small, their mean a line, the base marked, chance dotted."""
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(WIDTH, 2.2))
    known = [setting for setting in question.settings if len(of(table, setting))]
    for ax, (measure, label) in zip(axes, MEASURES.items()):
        means = [of(table, setting)[measure].mean() for setting in known]
        ax.plot([setting.x for setting in known], means, color=OTHER, linewidth=1.2, zorder=2)
        for setting, mean in zip(known, means):
            colour, values = colour_of(setting, STANDARD), of(table, setting)[measure]
            ax.plot([setting.x] * len(values), values, "o", color=colour, markersize=2.6, alpha=0.6, zorder=3)
            ax.plot(setting.x, mean, "o", color=colour, markersize=5.5, markeredgecolor="white", markeredgewidth=0.5,
                    zorder=4)
        if measure in CHANCE:
            ax.axhline(CHANCE[measure], color=MUTED, linewidth=0.9, linestyle=":")
            ax.set_ylim(0, 1)
        else:
            ax.set_ylim(0, 1.12 * max(of(table, setting)[measure].max() for setting in known) if known else None)
        if question.log:
            ax.set_xscale("log")
        ticks = sorted(setting.x for setting in question.settings)
        shown = _apart(ticks, question.log)
        ax.set_xticks(shown, [f"{tick:.2g}" if tick < 1 else f"{tick:g}" for tick in shown])
        ax.minorticks_off()
        ax.set_title(label, loc="left")
    figure.supxlabel(question.axis, fontsize=10)
    return figure


def _apart(ticks: Sequence[float], log: bool, least: float = 0.3) -> list[float]:
    """Of rising `ticks` the first and each that is at least the share `least` of the axis above the one before."""
    places = np.log(ticks) if log else np.asarray(ticks, dtype=float)
    shown = [0]
    for i, place in enumerate(places):
        if place - places[shown[-1]] >= least * (places[-1] - places[0]) > 0:
            shown.append(i)
    return [ticks[i] for i in shown]


def who_finds_the_liar(table: pd.DataFrame) -> Figure:
    """Tuples of which one picture lies: a panel per kind of lie and score, a row per way to weigh; the line at equal
    weights on the same tuples, dotted at the base on honest ones."""
    figure, axes = plt.subplots(len(SHARES), len(CORRUPTIONS), figsize=(WIDTH, 5.0), sharey=True, sharex="row")
    for ax, said in zip(axes[0], CORRUPTIONS.values()):
        ax.set_title(said, loc="left")
    for row, measure in zip(axes, SHARES):
        for ax, kind in zip(row, CORRUPTIONS):
            settings = QUESTIONS[f"corrupted-{kind}"].settings
            equal = settings[0]
            ax.axvline(of(table, STANDARD)[measure].mean(), color=MUTED, linewidth=0.9, linestyle=":")
            ax.axvline(of(table, equal)[measure].mean(), color=BASE_COLOUR, linewidth=0.8, linestyle="--", zorder=1)
            for y, setting in enumerate(settings):
                one_row(ax, y, table, setting, measure, equal)
            ax.set_xlim(0, 1)
            ax.set_xlabel(MEASURES[measure])
        rows(row, [setting.name for setting in settings])
    return figure


def twice(table: pd.DataFrame, translated: pd.DataFrame) -> Figure:
    """The settings of `ON_TRANSLATED`, a panel per measure: open on digits in place, filled on translated ones; the
    lines are each one's base."""
    settings = ON_TRANSLATED.settings
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(WIDTH, 0.27 * len(settings) + 1.0), sharey=True)
    for ax, (measure, label) in zip(axes, MEASURES.items()):
        for runs, lift, full in ((table, -0.16, False), (translated, 0.16, True)):
            ax.axvline(of(runs, STANDARD)[measure].mean(), color=BASE_COLOUR, linewidth=0.8, zorder=1,
                       linestyle="--" if full else ":")
            for y, setting in enumerate(settings):
                values, colour = of(runs, setting)[measure], colour_of(setting, STANDARD)
                ax.plot(values.mean(), y + lift, "o", color=colour, markersize=5, markeredgewidth=1.1, zorder=3,
                        markerfacecolor=colour if full else "white")
        if measure in CHANCE:
            ax.set_xlim(0, 1)
        ax.set_xlabel(label)
    rows(axes, [setting.name for setting in settings])
    marks = [Line2D([], [], marker="o", linestyle=line, color=INK, linewidth=0.8, markersize=5, markeredgewidth=1.1,
                    markerfacecolor=face, label=name)
             for name, line, face in (("in place", ":", "white"), ("translated", "--", INK))]
    figure.legend(handles=marks, loc="outside upper right", ncols=2)
    return figure


def overview(table: pd.DataFrame) -> Figure:
    """A row per question, a dot per setting at its mean: cross coherence and probe; the base's line and colour, chance
    dotted."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.25 * len(QUESTIONS) + 0.8), sharey=True)
    for ax, measure in zip(axes, ("coherence", "probe")):
        ax.axvline(of(table, STANDARD)[measure].mean(), color=BASE_COLOUR, linewidth=0.8, linestyle="--", zorder=1)
        ax.axvline(CHANCE[measure], color=MUTED, linewidth=0.9, linestyle=":", zorder=1)
        for y, question in enumerate(QUESTIONS.values()):
            for setting in question.settings:
                ax.plot(of(table, setting)[measure].mean(), y, "o", color=colour_of(setting, STANDARD), markersize=4.5,
                        alpha=0.75, markeredgecolor="white", markeredgewidth=0.4)
        ax.set(xlabel=MEASURES[measure], xlim=(0, 1))
    rows(axes, [question.title for question in QUESTIONS.values()])
    return figure


def pulls(pulled: pd.DataFrame) -> Figure:
    """What the loss asks of each score of a gate that still weighs all alike, of the picture that lies and of honest
    ones: a panel per kind of lie, a row per bound."""
    bounds = {"pairwise": "pairwise bound", "monte_carlo": "exact divergence"}
    figure, axes = plt.subplots(len(bounds), len(CORRUPTIONS), figsize=(WIDTH, 3.6))
    for ax, said in zip(axes[0], CORRUPTIONS.values()):
        ax.set_title(said, loc="left")
    for row, (bound, name) in zip(axes, bounds.items()):
        for ax, kind in zip(row, CORRUPTIONS):
            own = pulled[(pulled["kind"] == kind) & (pulled["bound"] == bound)]
            low, high = own["nats"].quantile([0.005, 0.995])
            bins = np.linspace(low, max(high, low + 1e-3), 41)
            for lies, colour, label in ((False, HONEST, "honest"), (True, LIES, "lies")):
                ax.hist(own.loc[own["lies"] == lies, "nats"], bins, density=True, histtype="stepfilled", alpha=0.55,
                        color=colour, label=label)
            ax.axvline(0, color=INK, linewidth=0.8)
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)
        row[0].set_ylabel(name)
    figure.supxlabel("gradient of a score, nats: right of 0 loses weight", fontsize=10)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def signatures(table: pd.DataFrame) -> Figure:
    """(a) Weight of the most used expert against the margin of log-weights, a mark per run with a gate, the alarms
    dotted; (b) nats of a latent against the digit probe, a mark per run. The provoked runs are dark, the base's in its
    colour."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.1))
    gates = table.dropna(subset="margin")
    axes[0].plot(gates["used"], gates["margin"], "o", color=PALE, markersize=4)
    axes[1].plot(table["nats"], table["probe"], "o", color=PALE, markersize=4)
    axes[0].axvline(COLLAPSED, color=MUTED, linewidth=0.9, linestyle=":")
    axes[0].axhline(EXPLODED, color=MUTED, linewidth=0.9, linestyle=":")
    marks = {BASE: (STANDARD, BASE_COLOUR), **{one.name: (one, INK) for one in QUESTIONS["provoked"].settings}}
    for name, (setting, colour) in marks.items():
        own = of(table, setting)
        ax, x, y = (axes[0], "used", "margin") if "gate" in name else (axes[1], "nats", "probe")
        side, offset = ("right", (-6, 6)) if ax is axes[0] else ("left", (8, -3))
        if len(own):
            ax.plot(own[x], own[y], "o", color=colour, markersize=5)
            last = own.loc[own[y].idxmax()]
            ax.annotate(name.split(":")[0], (last[x], last[y]), xytext=offset, ha=side, textcoords="offset points",
                        fontsize=SMALLEST)
    # linear below 10 and below 1: little happens there
    axes[0].set_yscale("symlog", linthresh=10, linscale=0.35)
    axes[0].set(xlabel="weight of the most used expert", ylabel="margin of log-weights, nats", xlim=(0.25, 1.03),
                ylim=(0, None))
    axes[0].set_yticks(ticks := (0, 10, 30, 50, 100, 300, 1_000), [f"{tick:,}" for tick in ticks])
    axes[1].set_xscale("symlog", linthresh=1, linscale=0.5)
    axes[1].set(xlabel="nats of a latent", ylabel="digit probe", xlim=(-0.08, None), ylim=(0, 1))
    axes[1].set_xticks(ticks := (0, 1, 3, 10, 30, 100, 300), [str(tick) for tick in ticks])
    for ax in axes:
        ax.minorticks_off()
    label_panels(axes, ["(a) Gates", "(b) Latents"])
    return figure
