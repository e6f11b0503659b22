"""Every figure of the book, in one style.

A function takes numbers, draws one figure and returns it; what it shows was computed by the caller.
Colours are those of Okabe and Ito, told apart with colour-vision deficiencies too, and a method or a
modality has the same colour and marker in all figures. The background stays white in the book's dark theme.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

INK = "#333333"      # text, axes, and whatever is exact
MUTED = "#8c8c8c"    # reference lines

METHOD_COLOURS = {
    "mmvm": "#D55E00",         # vermilion
    "independent": "#4D4D4D",  # grey: the baseline
    "avg": "#56B4E9",          # sky blue
    "poe": "#009E73",          # bluish green
    "moe": "#E69F00",          # orange
    "mopoe": "#CC79A7",        # reddish purple
    "mmvaeplus": "#0072B2",    # blue
    "mvtcae": "#9A8A00",       # Okabe and Ito's yellow, darkened: the original is hardly seen on white
    "mmvm/soft": "#E08D5B",    # gated priors: vermilion in steps
    "mmvm/hard": "#8F3F00",
    "mmvm/gumbel": "#F2B999",
}
METHOD_MARKERS = {"mmvm": "o", "independent": "s", "avg": "^", "poe": "v", "moe": "D", "mopoe": "P",
                  "mmvaeplus": "X", "mvtcae": "*", "mmvm/soft": "h", "mmvm/hard": "p", "mmvm/gumbel": "8"}
METHOD_NAMES = {"mmvm": "MMVM", "independent": "Independent", "avg": "AVG", "poe": "PoE", "moe": "MoE",
                "mopoe": "MoPoE", "mmvaeplus": "MMVAE+", "mvtcae": "MVTCAE", "mmvm/soft": "MMVM, soft gate",
                "mmvm/hard": "MMVM, hard gate", "mmvm/gumbel": "MMVM, Gumbel gate"}

# the m-th modality of any data set; no colour that MMVM or the baseline has
MODALITY_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
MODALITY_MARKERS = ("o", "s", "^", "D", "v")

SEQUENTIAL = "cividis"  # heat maps and continuous colour: read the same with and without colour vision
WIDTH = 7.2             # inches: the text's width on the page


def use_style() -> None:
    """Sets matplotlib's defaults for the book; call it once per notebook."""
    plt.rcParams.update({
        "figure.dpi": 80, "savefig.dpi": 80, "figure.facecolor": "white", "savefig.facecolor": "white",
        "figure.constrained_layout.use": True, "figure.figsize": (WIDTH, 3.0),
        "font.size": 10.0, "axes.titlesize": 10.0, "axes.labelsize": 10.0, "xtick.labelsize": 9.0,
        "ytick.labelsize": 9.0, "legend.fontsize": 9.0, "legend.frameon": False,
        "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
        "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
        "axes.grid": False, "lines.linewidth": 1.8, "lines.markersize": 5.0, "image.cmap": SEQUENTIAL,
    })


def modality_colour(m: int) -> str:
    """The colour of modality number m; they repeat after five."""
    return MODALITY_COLOURS[m % len(MODALITY_COLOURS)]


def by_method(board: pd.DataFrame) -> pd.DataFrame:
    """A table with a column `method` as one indexed by it, the methods in the book's order."""
    return board.set_index("method").loc[[method for method in METHOD_NAMES if method in set(board["method"])]]


def label_panels(axes, labels=None) -> None:
    """Letters (a), (b), ... or `labels` above the left corner of each panel, for captions to point at."""
    for i, ax in enumerate(axes):
        ax.set_title(labels[i] if labels else f"({chr(97 + i)})", loc="left")


# --- chapter `method` ---

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
    axes[0].set(ylabel="density", ylim=(0, None))
    axes[0].legend(loc="upper right", handlelength=1.6, borderaxespad=0)
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
    right.legend(loc="lower left")
    label_panels((left, right))
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
    label_panels(axes, [f"start at $d = {start:g}$" for start in starts])
    axes[0].set_ylabel("distance $d$")
    axes[0].legend(loc="upper right")
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
    axes[0].legend(loc="upper right")
    label_panels(axes)
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
    figure, axes = plt.subplots(len(means), n_columns, figsize=(0.9 * WIDTH, 2.05 * len(means)), sharex="row",
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


# chapter polymnist ---------------------------------------------------------------------------------------------------

def tuples(data, columns: int = 10) -> plt.Figure:
    """`columns` image tuples, one per class as far as they go: a row per modality."""
    labels = data.labels.tolist()
    chosen = [labels.index(c) for c in sorted(set(labels))][:columns]
    fig, axes = plt.subplots(len(data.specs), len(chosen), figsize=(WIDTH, 0.74 * len(data.specs)), squeeze=False)
    for row, spec in zip(axes, data.specs):
        for ax, i in zip(row, chosen):
            _image(ax, data.modalities[spec.name][i] * spec.scale)
        _row_label(row[0], spec.name)
    return fig


def reconstructions(data, outputs: dict[str, dict], n: int = 10) -> plt.Figure:
    """Originals and, per method in `outputs` (method -> modality -> (N, 3, H, W)), their self-reconstructions."""
    rows, n = [(spec, method) for spec in data.specs for method in (None, *outputs)], min(n, len(data))
    fig, axes = plt.subplots(len(rows), n, figsize=(WIDTH, 0.72 * len(rows)), squeeze=False)
    for row, (spec, method) in zip(axes, rows):
        images = data.modalities[spec.name] * spec.scale if method is None else outputs[method][spec.name]
        for ax, image in zip(row, images):
            _image(ax, image)
        _row_label(row[0], f"{spec.name}, {'data' if method is None else METHOD_NAMES[method]}")
    return fig


def imputations(data, outputs: dict[str, list[dict]], source: int, n: int = 10) -> plt.Figure:
    """What each method imagines of the other modalities from `source` alone.

    `outputs[method]` is modality -> (N, 3, H, W); the first row shows the source's own images.
    """
    spec = data.specs[source]
    targets = [other.name for m, other in enumerate(data.specs) if m != source]
    rows, n = [(None, spec.name)] + [(method, name) for method in outputs for name in targets], min(n, len(data))
    fig, axes = plt.subplots(len(rows), n, figsize=(WIDTH, 0.72 * len(rows)), squeeze=False)
    for row, (method, name) in zip(axes, rows):
        images = data.modalities[name] * spec.scale if method is None else outputs[method][name]
        for ax, image in zip(row, images):
            _image(ax, image)
        _row_label(row[0], f"{name}, given" if method is None else f"{name}, {METHOD_NAMES[method]}")
    return fig


def matrices(values: dict[str, np.ndarray], names: list[str], label: str, limits: tuple[float, float],
             fmt: str = ".2f") -> plt.Figure:
    """One (M, M) matrix per method, [source, target], the numbers written in."""
    fig, axes = plt.subplots(1, len(values), figsize=(1.1 + 2.9 * len(values), 2.7), squeeze=False)
    for ax, (method, matrix) in zip(axes[0], values.items()):
        picture = ax.imshow(matrix, vmin=limits[0], vmax=limits[1])
        for (s, t), value in np.ndenumerate(matrix):
            dark = (value - limits[0]) / (limits[1] - limits[0]) < 0.5
            ax.text(t, s, f"{value:{fmt}}", ha="center", va="center", color="white" if dark else "black")
        ax.set(xticks=range(len(names)), xticklabels=names, yticks=range(len(names)), yticklabels=names,
               xlabel="target", ylabel="source", title=METHOD_NAMES[method])
    fig.colorbar(picture, ax=axes[0], label=label, shrink=0.9)
    return fig


def latent_maps(means: dict[str, np.ndarray], labels: np.ndarray, names: list[str]) -> plt.Figure:
    """Posterior means (M, N, D) per method on their first two principal components, all modalities in one projection:
    coloured by class on the left, by modality on the right."""
    fig, axes = plt.subplots(len(means), 2, figsize=(WIDTH, 2.9 * len(means)), squeeze=False)
    classes = plt.get_cmap("tab10")
    for row, (method, z) in zip(axes, means.items()):
        flat = z.reshape(-1, z.shape[-1])
        flat = flat - flat.mean(0)
        _, _, directions = np.linalg.svd(flat, full_matrices=False)
        directions = directions[:2] * np.sign(directions[:2].sum(1, keepdims=True))  # a component's sign is arbitrary
        xy = (flat @ directions.T).reshape(*z.shape[:2], 2)
        for c in np.unique(labels):
            row[0].scatter(*xy[:, labels == c].reshape(-1, 2).T, s=3, color=classes(int(c)), label=str(c), linewidths=0)
        for m, name in enumerate(names):
            row[1].scatter(*xy[m].T, s=3, color=modality_colour(m), label=name, linewidths=0)
        row[0].set_title(f"{METHOD_NAMES[method]}, by digit", loc="left")
        row[1].set_title(f"{METHOD_NAMES[method]}, by modality", loc="left")
        for ax in row:
            ax.set(xticks=[], yticks=[], xlabel="first component", ylabel="second component")
            ax.legend(markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.1)
    return fig


def tradeoff(boards: dict[str, pd.DataFrame], metrics: dict[str, str], floors: dict[str, float],
             shared_axes: bool = True) -> plt.Figure:
    """`metrics` (column -> label) against the reconstruction error, one line per method over beta, one column of
    panels per entry of `boards` (title -> columns method, beta, reconstruction and the metrics). A column "<metric> sd"
    is drawn as a bar where it is a number; a metric that a board lacks leaves its panel out."""
    fig, axes = plt.subplots(len(metrics), len(boards), figsize=(WIDTH, 2.5 * len(metrics)), squeeze=False,
                             sharex="col", sharey="row" if shared_axes else False)
    handles = {}
    for column, (title, board) in zip(axes.T, boards.items()):
        column[0].set_title(title, loc="left")
        for ax, metric in zip(column, metrics):
            if metric not in board:
                ax.axis("off")
                continue
            ax.axvline(floors[title], color=MUTED, linewidth=0.8, linestyle=":")
            for method in sorted(set(board["method"]), key=list(METHOD_NAMES).index, reverse=True):
                line = board[board["method"] == method].sort_values("beta")
                spread = {axis: line.get(f"{name} sd") for axis, name in (("xerr", "reconstruction"), ("yerr", metric))}
                handles[method] = ax.errorbar(
                    line["reconstruction"], line[metric], **spread, color=METHOD_COLOURS[method],
                    marker=METHOD_MARKERS[method], linewidth=1.2, capsize=2, elinewidth=1, label=METHOD_NAMES[method],
                    zorder=3 if method == "mmvm" else 2)
            shown = board[board["method"] == "mmvm"].sort_values("beta")
            for _, end in shown.iloc[[0, -1]].iterrows() if len(shown) else ():
                ax.annotate(rf"$\beta$={_fraction(end['beta'])}", (end["reconstruction"], end[metric]), fontsize=7,
                            textcoords="offset points", xytext=(0, -11), ha="center", color=METHOD_COLOURS["mmvm"])
        lowest = [ax for ax in column if ax.axison][-1]
        lowest.set_xlabel("reconstruction error, nats per tuple")
        lowest.tick_params(labelbottom=True)
    for ax, label in zip(axes[:, 0], metrics.values()):
        ax.set_ylabel(label)
    order = [method for method in METHOD_NAMES if method in handles]
    fig.legend([handles[method] for method in order], [METHOD_NAMES[method] for method in order],
               loc="outside lower center", ncols=4)
    return fig


def learning_curves(probe: pd.DataFrame, error: pd.DataFrame, chance: float) -> plt.Figure:
    """Probe accuracy, mean over modalities, and reconstruction error against updates, a line per method; columns
    method, source (updates), value."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.8))
    for ax, rows, label in zip(axes, (probe, error), ("linear probe, accuracy", "reconstruction error, nats")):
        for method in [method for method in METHOD_NAMES if method in set(rows["method"])]:
            own = rows[rows["method"] == method]
            line = own["value"].groupby(own["source"].astype(int)).mean()
            ax.plot(line.index, line, color=METHOD_COLOURS[method], marker=METHOD_MARKERS[method], markersize=3,
                    label=METHOD_NAMES[method])
        ax.set(xlabel="updates", ylabel=label)
    axes[0].axhline(chance, color=MUTED, linewidth=0.8, linestyle=":")
    axes[0].set_ylim(0, 1)
    axes[0].legend()
    label_panels(axes)
    return fig


def _image(ax, image) -> None:
    ax.imshow(np.clip(np.moveaxis(np.asarray(image, dtype=float), 0, -1), 0, 1), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _row_label(ax, text: str) -> None:
    ax.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8)


def _fraction(beta: float) -> str:
    return f"{beta:g}" if beta >= 1 else f"1/{1 / beta:g}"


# landing page --------------------------------------------------------------------------------------------------------

def idea() -> plt.Figure:
    """Three posteriors on one latent dimension, and what each family of methods asks of them."""
    z = np.linspace(-3.6, 4.6, 400)
    means, deviations = np.array([-0.9, 0.7, 2.1]), np.array([0.55, 0.45, 0.7])

    def normal(mean, deviation):
        return np.exp(-0.5 * ((z - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))

    posteriors = [normal(mean, deviation) for mean, deviation in zip(means, deviations)]
    precision = (1 / deviations**2).sum()
    product = normal((means / deviations**2).sum() / precision, precision**-0.5)
    prior, mixture = normal(0, 1), np.mean(posteriors, axis=0)

    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.5), sharey=True)
    for ax, alone in zip(axes, (True, False, True)):
        for m, density in enumerate(posteriors):
            ax.plot(z, density, color=modality_colour(m), alpha=1.0 if alone else 0.35,
                    label=f"$q_{m + 1}(z|x_{m + 1})$")
        ax.set(xlabel="$z$", yticks=[], xticks=[], ylim=(0, 1.5))
        ax.spines["left"].set_visible(False)
    axes[0].fill_between(z, prior, color=MUTED, alpha=0.35, linewidth=0, label=r"prior $\mathcal{N}(0, I)$")
    axes[1].fill_between(z, prior, color=MUTED, alpha=0.35, linewidth=0)
    axes[1].plot(z, product, color=INK, label="$q(z|X)$, for all")
    axes[2].fill_between(z, mixture, color=METHOD_COLOURS["mmvm"], alpha=0.3, linewidth=0, label="prior $h(z|X)$")
    axes[0].legend(loc="upper left", fontsize=8)
    axes[1].legend(handles=axes[1].lines[-1:], loc="upper left", fontsize=8)
    axes[2].legend(handles=axes[2].collections[-1:], loc="upper left", fontsize=8)
    label_panels(axes, ["independent", "one joint posterior", "MMVM"])
    return fig
