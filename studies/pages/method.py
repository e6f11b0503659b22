"""Figures of the chapter `method`."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb

from mmvm.study.figures import (
    INK,
    METHOD_COLOURS,
    METHOD_NAMES,
    MODALITY_COLOURS,
    MUTED,
    SEQUENTIAL,
    SMALLEST,
    WIDTH,
    label_lines,
    label_panels,
    modality_colour,
)

BOUND_COLOURS = {"exact": INK, "pairwise": "#D55E00", "variational": "#0072B2", "monte_carlo": "#009E73"}
BOUND_STYLES = {"exact": "-", "pairwise": "--", "variational": "-.", "monte_carlo": "-"}
BOUND_NAMES = {"exact": "exact $R$", "pairwise": "pairwise", "variational": "variational",
               "monte_carlo": "Monte Carlo"}


def posteriors_and_prior(z, posteriors, priors, labels):
    """One panel per column B: posteriors (M, B, n) over z (n,), their mixtures priors (B, n), a label."""
    figure, axes = plt.subplots(1, len(priors), figsize=(WIDTH, 2.3), sharey=True)
    for b, ax in enumerate(axes):
        _posteriors(ax, z, posteriors[:, b])
        ax.plot(z, priors[b], color=METHOD_COLOURS["mmvm"], linestyle="--", label="$h(z \\mid X)$")
        ax.set_xlabel("$z$")
    label_panels(axes, labels)
    axes[0].set(ylabel="density", ylim=(0, 1.12 * float(posteriors.max())))
    for line in axes[-1].get_lines()[:-1]:  # in the last panel, where they are apart
        x, y = line.get_data()
        _name(axes[-1], line, x[np.argmax(y)], dx=0, dy=7, ha="center")
    _name(axes[1], axes[1].get_lines()[-1], at=-2.2, dx=-11, dy=6, ha="right")
    return figure


def bounds(distance, values, gradients, ceiling):
    """Left: each bound's value against distance (n,), and the ceiling M log M. Right: its slope, logarithmic.

    `values` and `gradients`: bound -> (n,), nats and nats per unit of distance.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.9))
    for name in values:
        style = {"color": BOUND_COLOURS[name], "linestyle": BOUND_STYLES[name], "label": BOUND_NAMES[name]}
        left.plot(distance, values[name], **style)
        right.plot(distance, gradients[name], **style)
    left.axhline(ceiling, color=MUTED, linewidth=1, zorder=0)
    left.annotate("$M \\log M$", (float(distance[-1]), ceiling), xytext=(0, -4), textcoords="offset points",
                  ha="right", va="top", color=INK)
    left.set(xlabel="distance $d$", ylabel="value (nats)", ylim=(0, 3 * ceiling))
    right.set(xlabel="distance $d$", ylabel="slope (nats per unit)", yscale="log", ylim=(1e-6, 30))
    for ax, places in ((left, {"exact": (2.6, 6, -5), "pairwise": (2.5, 6, 0), "variational": (2.6, 3, 13)}),
                       (right, {"exact": (5.0, 3, 9), "pairwise": (5.0, 0, 9), "variational": (4.0, -66, -8)})):
        for name, line in zip(values, ax.get_lines()):
            _name(ax, line, *places[name])
    label_panels((left, right), ["(a) Cost: the surrogate has no ceiling", "(b) Pull: the surrogate's alone grows"])
    return figure


def descent(paths, starts):
    """One panel per start: the distance left after each step; `paths`: bound -> (steps, starts)."""
    figure, axes = plt.subplots(1, len(starts), figsize=(WIDTH, 2.5), sharex=True)
    for i, (ax, start) in enumerate(zip(axes, starts)):
        for name, path in paths.items():
            ax.plot(path[:, i], color=BOUND_COLOURS[name], linestyle=BOUND_STYLES[name],
                    label=BOUND_NAMES[name])
        ax.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
        ax.set(xlabel="step", ylim=(-0.06 * start, 1.1 * start))
    label_panels(axes, [f"from $d = {start:g}$: {sum(abs(float(path[-1, i])) < 0.5 for path in paths.values())} of "
                        f"{len(paths)} meet" for i, start in enumerate(starts)])
    axes[0].set_ylabel("distance $d$")
    for name, panel, place in (("pairwise", -1, (15, 8, 9)), ("monte_carlo", 1, (35, 6)),
                               ("variational", 1, (130, 0, -9))):
        if name in paths:
            _name(axes[panel], axes[panel].get_lines()[list(paths).index(name)], *place)
    return figure


def schedules(steps, curves):
    """alpha against the number of updates (n,), linear and logarithmic; `curves`: form -> (n,)."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.3), sharex=True)
    for (form, alpha), colour, style in zip(curves.items(), MODALITY_COLOURS, ("-", "--", "-.")):
        for ax in axes:
            ax.plot(steps, alpha, color=colour, linestyle=style, label=form)
    for ax in axes:
        ax.set(xlabel="updates", ylabel="$\\alpha$")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    axes[1].set(yscale="log", ylim=(1e-5, 2))
    for line, place in zip(axes[0].get_lines(), ((15_000, 6, 8), (95_000, 5, 5), (45_000, 6, 5))):
        _name(axes[0], line, *place)
    label_panels(axes, ["(a) Linear axis", "(b) Logarithmic axis"])
    return figure


def pools(z, posteriors, densities, distance, values, exponents, costs, ceiling):
    """Left: posteriors (M, n) over z (n,) and pools, exponent's name -> (n,). Middle: the cost of each prior, name ->
    (m,), against distance (m,). Right: the cost against exponents (k,), distance -> (k,). Costs in nats."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 3.1))
    _posteriors(left, z, posteriors, linewidth=0.9, alpha=0.5)
    colour = dict(zip(densities, plt.get_cmap(SEQUENTIAL)(np.linspace(0.0, 0.85, len(densities)))))
    for name, density in densities.items():
        left.plot(z, density, color=colour[name], label=name)
    left.set(xlabel="$z$", ylabel="density", ylim=(0, None))
    others = dict(zip((name for name in values if name not in colour), ("--", ":")))
    for name, value in values.items():
        middle.plot(distance, value, color=colour.get(name, INK), linestyle=others.get(name, "-"), label=name)
    middle.axhline(ceiling, color=MUTED, linewidth=1, zorder=0)
    middle.set(xlabel="distance $d$", ylabel="cost (nats)", ylim=(0, 3 * ceiling))
    figure.legend(*middle.get_legend_handles_labels(), loc="outside lower center", ncols=len(values), handlelength=1.4,
                  columnspacing=1.2)
    for (d, cost), style in zip(costs.items(), ("-", "--", "-.", ":")):
        right.plot(exponents, cost, color=INK, linestyle=style, label=f"$d = {d:g}$")
    right.axhline(ceiling, color=MUTED, linewidth=1, zorder=0)
    right.set(xlabel="exponent $t$", ylabel="cost (nats)", ylim=(0, 3 * ceiling))
    label_lines(right)
    label_panels((left, middle, right), ["(a) Pools of three", "(b) $t = 0$: no ceiling", "(c) Over the exponent"])
    return figure


def sharing(z, posteriors, shared, priors=("independent", "mmvm")):
    """One panel per method: the posteriors (M, n) over z (n,) and the density that the method shares.

    `shared`: method -> (n,); dashed for the methods in `priors`, where it is a prior; filled for the others,
    where every decoder reads from it.
    """
    figure, axes = plt.subplots(2, -(-len(shared) // 2), figsize=(WIDTH, 3.6), sharex=True, sharey=True)
    for ax, (method, density) in zip(axes.flat, shared.items()):
        _posteriors(ax, z, posteriors, linewidth=1.2)
        colour = METHOD_COLOURS[method]
        if method in priors:
            ax.plot(z, density, color=colour, linestyle="--", linewidth=2.2)
        else:
            ax.plot(z, density, color=colour, linewidth=2.2)
            ax.fill_between(z, density, color=colour, alpha=0.2, linewidth=0)
    label_panels(axes.flat, [METHOD_NAMES[method] for method in shared])
    for ax in axes[:, 0]:
        ax.set(ylabel="density", ylim=(0, None))
    for ax in axes[-1]:
        ax.set_xlabel("$z$")
    return figure


def toy_latents(means, factor, label):
    """Rows: models; columns: modalities; points: posterior means of N samples, coloured by `factor` (N,).

    `means`: row name -> (M, N, 2). A row shares its axes: a direction means the same in all columns.
    """
    n_columns = len(next(iter(means.values())))
    figure, axes = plt.subplots(len(means), n_columns, figsize=(0.92 * WIDTH, 1.95 * len(means)), sharex="row",
                                sharey="row", squeeze=False)
    # few colours and no blended edges: easier to compare between panels, and a third of the file size
    colours, edge = plt.get_cmap("viridis", 7), float(abs(factor).max())
    for row, (name, z) in zip(axes, means.items()):
        low, high = np.asarray(z).min((0, 1)), np.asarray(z).max((0, 1))
        (x, y), radius = (low + high) / 2, 0.55 * (high - low).max()
        for m, ax in enumerate(row):
            points = ax.scatter(z[m, :, 0], z[m, :, 1], c=factor, s=10, linewidths=0, cmap=colours, vmin=-edge,
                                vmax=edge, antialiased=False)
            ax.set(xlim=(x - radius, x + radius), ylim=(y - radius, y + radius), aspect="equal")
        row[0].set_ylabel(name)
    label_panels(axes[0], [f"modality {m + 1}" for m in range(n_columns)])
    figure.colorbar(points, ax=axes, shrink=0.5, aspect=30, label=label, format="%.1f")
    return figure


def _posteriors(ax, z, densities, **style):
    for m, density in enumerate(densities):
        ax.plot(z, density, color=modality_colour(m), label=f"$q_{m + 1}$", **style)
    ax.set_xlim(float(z[0]), float(z[-1]))


def _name(ax, line, at, dx=4, dy=0, **where):
    """The line's name beside its point at `at` of the horizontal axis, moved by (dx, dy) points."""
    ax.annotate(line.get_label(), (at, np.interp(at, *line.get_data())), xytext=(dx, dy), textcoords="offset points",
                va="center", fontsize=SMALLEST, color=0.75 * np.array(to_rgb(line.get_color())), **where)
