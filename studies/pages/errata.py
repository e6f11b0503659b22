"""The page `errata`: what the released code does otherwise than the paper says, and what each difference changes here.

A `Difference` is measured by a function (`effect`), or says why it cannot be (`because`): one of the two.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from mmvm.study.figures import INK, MUTED, WIDTH
from studies.pages import errata_effects as effects
from studies.pages.errata_effects import Effect, trained

COLOURS = {"objective": "#D55E00", "baselines": "#0072B2", "evaluation": "#CC79A7", "data": "#009E73",
           "other releases": "#E69F00"}
MARKERS = dict(zip(COLOURS, "osD^v"))
OURS = "unscaled probe"  # no difference of the code's, but of this project's from both
NO_RUN = "not measurable here, because"


@dataclass(frozen=True)
class Difference:
    """What the paper says (with its section) and what the code does; `option`: what repeats it here."""

    name: str
    group: str
    paper: str
    code: str
    option: str = ""
    effect: Callable[[int], tuple[Effect, ...]] | None = None
    because: str = ""


DIFFERENCES = (
    Difference("bound", "objective", "the divergence from the mixture itself (section 4, equation 3)",
               "the mean of the divergences between all pairs, an upper bound without a ceiling",
               "mmvm:bound=pairwise (default); the paper's: bound=monte_carlo",
               trained("mmvm", "mmvm:bound=monte_carlo", 1.0, "ablations")),
    Difference("alpha", "objective", "not mentioned", "a second pull to N(0, I), whose weight falls from 1 to 0 over "
               "150,000 updates, or is 0, by script", "mmvm:alpha_updates=150000; measured: 800 of 1,874 updates",
               trained("mmvm:alpha_updates=800", "mmvm", 1.0, "ablations")),
    Difference("samples from N(0, I)", "objective", "no unconditional samples, p(z) is undefined (sections 3 and 6)",
               "also logs decoded draws from N(0, I), in which MMVM has put nothing",
               because="nothing trained or scored depends on these pictures"),
    Difference("joint KL counted M times", "baselines", "one KL of the joint posterior (section 5.1)",
               "adds the same KL once a modality, so beta acts as M beta", "poe:kl_per_modality=true",
               effects.counted_m_times),
    Difference("beta squared", "baselines", "one beta for all methods (section 5.1)",
               "independent VAEs on PolyMNIST multiply by beta twice", "independent:square_beta=true",
               trained("independent:square_beta=true", "independent", 0.25)),
    Difference("AVG's widths", "baselines", "averages of standard deviations (equations 14 and 15)",
               "averages of variances", "avg:average=variance (default); the paper's: average=deviation",
               trained("avg", "avg:average=deviation", 0.25)),
    Difference("split by position", "baselines", "a mixture of the posteriors (section 5.1)",
               "MoE and MoPoE give each component a contiguous piece of the batch, also in evaluation; as batches are "
               "shuffled, which piece is chance in training",
               "moe:sampling=contiguous; in evaluation a draw", trained("moe:sampling=contiguous", "moe", 0.0625)),
    Difference("MMVAE+'s private prior", "baselines", "the method of Palumbo et al. 2023",
               "learns mean and width of the private part's auxiliary prior; no importance samples; adds the KL of "
               "shared and private part for every modality (not repeated here)",
               "mmvaeplus:learn_private_mean=true", trained("mmvaeplus:learn_private_mean=true", "mmvaeplus", 0.25)),
    Difference("empty shared space", "baselines", "a shared and a private part",
               "the default sizes leave no dimension to the shared part",
               "refused: private_dim must be below latent_dim",
               because="a model that shares nothing has nothing to compare; the scripts override the default"),
    Difference("self pairs", "evaluation", "coherence averaged over source modalities",
               "the mean probably includes decoding a modality from itself (inferred from the paper's numbers)",
               "rows hold both: targets mean and cross", effects.self_pairs),
    Difference("moving encodings", "evaluation", "a probe fitted to 10,000 training encodings (appendix B.2.1)",
               "collects them during the last epoch: weights still move, dropout is on",
               "measured on this page, without dropout",
               effects.moving_encodings),
    Difference(OURS, "evaluation", "logistic regression on the encodings (appendix B.2.1)",
               "the same: it is here that they are standardised first", "linear_probe(standardise=False)",
               effects.unscaled_probe),
    Difference("hard predictions", "evaluation", "average precision per attribute (figure 2)",
               "AP (CelebA, X-rays) and AUROC (CUB) of yes-or-no answers; CUB's axis says AP",
               "evaluation.multilabel: ..._hard", effects.hard_predictions),
    Difference("softmax over sigmoids", "evaluation",
               "attribute classifiers; the supervised reference of tables 1 to 3",
               "cross-entropy over the labels, of outputs that a sigmoid has squeezed, for several labels at once "
               "(CelebA, CUB, MIMIC-CXR)", "train_classifier(loss=...)", effects.softmax_over_sigmoids),
    Difference("never in eval mode", "evaluation", "classifiers trained on real data",
               "are reloaded at every batch and stay in training mode: dropout and batch statistics act",
               "measured on this page", effects.never_in_eval_mode),
    Difference("bytes that wrap", "evaluation", "FID of generated images (figures 8 and 12)",
               "casts unbounded outputs to bytes, so that values outside 0 to 1 wrap", "measured on this page",
               effects.wrapped_pixels),
    Difference("pairs in the FID", "evaluation", "FID of a modality's pictures, given that modality (figure 8)",
               "logs it for every modality given every other, too", "rows hold both: targets mean and self",
               effects.pairs_in_the_distance),
    Difference("dropped rows", "evaluation", "the full test set",
               "every evaluation leaves out the last incomplete batch",
               "here none is", effects.dropped),
    Difference("seeds", "evaluation", "5 seeds (PolyMNIST), 3 (CelebA)",
               "scripts set a field that the code does not seed from, so all runs have seed 0", "here: seed",
               effects.spread_over_seeds),
    Difference("test set", "evaluation", "scores on test sets", "CelebA is evaluated on its validation part; PolyMNIST "
               "and CUB validate on the test part", "here: n_validation",
               because="the last epoch is reported, and nothing is chosen by these parts; CelebA is not among the data "
                       "sets"),
    Difference("PolyMNIST: batch", "data", "256 tuples (appendix B.4)", "128 by default",
               "batch_size=128; here two passes of either, so twice as many updates", effects.batches),
    Difference("PolyMNIST: length and latent", "data", "500 epochs; the latent's size is not stated (appendix B.4)",
               "the last script trains for 400; 512 dimensions in the scripts, 256 by default", "epochs, latent_dim",
               because="so many epochs take a GPU; 512 against 256 was not run (128 and 512 are in the ablations)"),
    Difference("CelebA: training", "data", "learning rate 2e-4, batches of 128, no alpha",
               "the script: 5e-4, batches of 256, alpha falling over 150,000 updates",
               because="CelebA is not among the data sets; alpha is measured above"),
    Difference("CelebA: order of attributes", "data", "the text lists them in random order",
               "always in one order; what is random is where the text begins",
               because="CelebA is not among the data sets"),
    Difference("offsets", "data", "digits of 21 pixels at random positions on 28 (appendix B.4.1)",
               "draws offsets from 0 to 20, where 7 is the most that fits, and stops with an error otherwise; the "
               "first release scaled digits by .5, with offsets from 0 to 13",
               "here: 0 to 7", effects.digits_that_fit),
    Difference("order of files", "data", "tuples of one digit",
               "pairs files in the order in which the disk lists them, and takes the label "
               "from the first modality", "here: sorted, and digits compared",
               because="the order is the disk's: on some all tuples are right, in a random one one pair in ten is"),
    Difference("weight of the text", "data", "not mentioned", "a text's log-likelihood counts 16 times (CelebA) or 128 "
               "times (CUB)", "cub: text_weight=128; here otherwise 8", effects.on_birds("text_weight=128")),
    Difference("padding", "data", "captions of 32 words, the end included (appendix B.6.1)",
               "counts padding in the likelihood; the embedding's `padding_idx` is another word's number, and a batch "
               "of one loses a dimension by `squeeze`", "cub: pads_counted=true; the rest is not offered",
               effects.on_birds("pads_counted=True")),
    Difference("missing pieces", "data", "the code of the experiments is released",
               "imports a deleted module, reads settings that do not exist, calls functions without arguments "
               "that they need; scripts of classifiers keep the best by a number that nothing logs",
               because="it does not start, so nothing can be compared with it"),
    Difference("rats: in sample", "other releases", "not stated (appendix B.8)", "trains and tests on the same trials",
               "hippocampus: in_sample=true", effects.in_sample),
    Difference("rats: epochs", "other releases", "1,000 (appendix B.8)", "999", "hippocampus: epochs=999",
               because="one epoch in a thousand was not tried"),
    Difference("rats: log sigma", "other releases", "diagonal Gaussians", "an output is log sigma in the KL and in "
               "draws, and log variance in AVG and PoE", "measured on this page", effects.log_sigma),
    Difference("rats: names swapped", "other releases", "MMVM against independent VAEs (figure 3)",
               "result files call alpha = 0 independent, and anything else ours",
               because="it is a name in a file; whether the figure was drawn from such files is not known"),
    Difference("X-rays: training", "other releases", "learning rate 5e-5, batches of 32, 240 epochs; beta not stated",
               "by default 5e-6, batches of 2, 251 epochs, beta 1", "mimic-cxr: learning_rate, batch_size, epochs",
               because="the data is credentialed; runs on the phantom have 5 epochs"),
    Difference("X-rays: supervised training", "other releases", "learning rate 1e-4, batches of 256, 30 epochs",
               "1e-5, 128 and 250", "mimic-cxr: supervised=true with the three",
               because="the data is credentialed"),
    Difference("X-rays: histograms", "other releases", "a square from the centre, no more",
               "equalises the histogram as well", "mimic-cxr: equalise=true",
               because="it acts on image files; the phantom is made without"),
    Difference("X-rays: five trees", "other releases", "random forests of 5,000 trees",
               "5 trees by default, without a seed", "forest(trees=5)", effects.few_trees),
    Difference("X-rays: checkpoint", "other releases", "a supervised reference (tables 1 to 3)",
               "keeps the checkpoint whose validation loss is largest",
               because="which epoch that is depends on the data, which is credentialed"),
    Difference("X-rays: encodings", "other releases", "probes fitted to training encodings",
               "collects them in training mode, of the first 10,000 rows only by default",
               because="moving weights are measured above (moving encodings), dropout in training mode is not; on the "
                       "phantom all rows fit"),
    Difference("rats: missing pieces", "other releases", "the code of the experiments is released",
               "imports modules that are not there", because="it does not start, so nothing can be compared with it"),
    Difference("X-rays: data", "other releases", "tables 1 to 3 are of the test part",
               "loads only training and validation parts; trains on a reduced set by default; one split for all seeds; "
               "writes its cache under another name than training expects",
               because="the data is credentialed, and the phantom's parts are made anew"),
)


def measured(seeds: int, only: Sequence[Difference] = DIFFERENCES) -> dict[str, tuple[Effect, ...]]:
    """Name -> what it changes, of those that can be measured; some train small models, one for each of `seeds`."""
    with threadpool_limits(1):  # models as small as these gain nothing from more
        return {difference.name: difference.effect(seeds) for difference in only if difference.effect}


def table(found: Mapping[str, tuple[Effect, ...]], group: str) -> pd.DataFrame:
    """A line a difference of one group, as HTML: what is said and done, and what that changes."""
    lines = []
    for difference in (d for d in DIFFERENCES if d.group == group):
        said = "<br>".join(effect.text() for effect in found.get(difference.name, ()))
        by = f"<br><i>repeated by</i> {difference.option}" if difference.option else ""
        cells = (f"<b>{difference.name}</b>", f"<i>paper:</i> {difference.paper}<br><i>code:</i> {difference.code}",
                 (said or f"{NO_RUN} {difference.because}") + by)
        cells = [re.sub("`(.+?)`", r"<code>\1</code>", cell) for cell in cells]
        lines.append([f'<div style="text-align: left">{cell}</div>' for cell in cells])
    return pd.DataFrame(lines, columns=["", "paper and released code", "what it changes here"])


def changes_of_scores(found: Mapping[str, tuple[Effect, ...]]) -> Figure:
    """A line a score that changes: its mean change with its interval, and a small mark for each run; the largest on
    top, grey where the interval holds 0 or there is one run."""
    group = {difference.name: difference.group for difference in DIFFERENCES}
    lines = sorted(((name, effect) for name, several in found.items() for effect in several if effect.score),
                   key=lambda line: abs(line[1].mean))
    figure, ax = plt.subplots(figsize=(WIDTH, 0.27 * len(lines) + 0.9))
    ax.axvline(0, color=MUTED, linewidth=1, zorder=0)
    for y, (name, effect) in enumerate(lines):
        colour = COLOURS[group[name]] if effect.resolved else "#B5B5B5"
        ax.plot(effect.changes, [y] * len(effect.changes), ".", color=colour, alpha=0.55, markersize=5)
        if np.isfinite(effect.half):
            ax.plot([effect.mean - effect.half, effect.mean + effect.half], [y, y], color=colour, linewidth=1.2)
        ax.plot(effect.mean, y, MARKERS[group[name]], color=colour, markersize=7, markeredgecolor=INK,
                markeredgewidth=0.6)
    ax.set_yticks(range(len(lines)), [f"{name}: {effect.what}" for name, effect in lines])
    ax.set(xlabel="change of the score (0 to 1)\nby the released code's choice", ylim=(-0.7, len(lines) - 0.3))
    ax.grid(axis="y", color="#eeeeee", linewidth=0.6)
    ax.set_axisbelow(True)
    drawn = [name for name in COLOURS if name in {group[line[0]] for line in lines}]
    ax.legend([plt.Line2D([], [], marker=MARKERS[name], linestyle="", color=COLOURS[name], markeredgecolor=INK,
                          markersize=7) for name in drawn], drawn, loc="lower right")
    return figure
