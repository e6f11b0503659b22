"""What each line of the page `errata` changes here: from committed rows, computed, or measured in seconds."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import nn

from mmvm import Aggregated, DiagonalGaussian, MultimodalData, MultimodalVAE, evaluation, fit
from mmvm.evaluation import multilabel
from mmvm.evaluation.probe import logistic_regression
from mmvm.pretrained import pretrained
from mmvm.study import results
from studies.mimic_cxr.forest import forest
from studies.pages import decoder
from studies.pages.diagnostics import halves
from studies.pages.intervals import half_of_students

LATENT_DIM, N_TRAIN = 8, 352
# six yes-or-no questions about a digit, so that a sample has several labels
QUESTIONS = np.array([[digit % 2 == 0, digit in (2, 3, 5, 7), digit >= 5, digit in (0, 6, 8, 9), digit % 3 == 0,
                       digit in (1, 4, 7)] for digit in range(10)], int)


@dataclass(frozen=True)
class Effect:
    """Changes that a difference makes, one a seed or run, the code's choice less the paper's; `score`: of a share in
    [0, 1], so that figures may compare them; `level`: no change but how much of something there is."""

    what: str
    changes: tuple[float, ...]
    source: str
    score: bool = True
    unit: str = ""
    level: bool = False

    @property
    def mean(self) -> float:
        return float(np.mean(self.changes))

    @property
    def half(self) -> float:
        """Half of the 95 % interval of the mean, by Student's t over the seeds or runs; infinite for one."""
        return half_of_students(self.changes) if len(self.changes) > 1 else math.inf

    @property
    def resolved(self) -> bool:
        """Whether that interval leaves 0 out."""
        return abs(self.mean) > self.half

    def text(self) -> str:
        """What changes by how much, with half of its interval where there are several, and where it was seen."""
        several = len(self.changes) > 1
        spread = self.half if several else 0.0
        shown = f"{self.mean:+.3f}" + f" ± {spread:.3f}" * several if self.score else (
            (f"{self.mean:.3g}" if self.level else f"{self.mean:+.3g}")
            + f" ± {spread:{'.0f' if spread >= 100 else '.2g'}}" * several)
        return f"{self.what}: {shown}{self.unit and ' ' + self.unit} ({self.source})"


# from committed rows ----------------------------------------------------------------------------------------------

def with_option(text: str, plain: str, beta: float, metric: str = "probe", target: str = "mean",
                name: str = "errata") -> tuple[float, ...]:
    """Changes from the method `plain` to `text` at one beta, a number for each seed that has both."""
    table = results.read(name)
    table = table[(table["beta"] == beta) & (table["metric"] == metric) & (table["target"] == target)
                  & (table["source"] == "") & table["note"].isin(["", "the profile"])]
    of = {method: table[table["method"] == method].set_index("seed")["value"] for method in (text, plain)}
    return tuple((of[text] - of[plain]).dropna())


def trained(text: str, plain: str, beta: float, name: str = "errata") -> Callable[[int], tuple[Effect, ...]]:
    """The probe, and the error of each modality from its own latent, of short runs on PolyMNIST, with the option less
    without; of the ablations' rows, which are long enough for it, cross coherence too."""
    def effect(seeds: int) -> tuple[Effect, ...]:
        probe = with_option(text, plain, beta, name=name)
        error = with_option(text, plain, beta, "reconstruction", "sum", name)
        source = f"PolyMNIST, beta {beta:g}, {counted(len(probe))}"
        coherence = (Effect("cross coherence", with_option(text, plain, beta, "coherence", "cross", name), source),)
        return (*(coherence if name == "ablations" else ()), Effect("probe", probe, source),
                Effect("own error", error, source, False, "nats"))
    return effect


def on_birds(setting: str) -> Callable[[int], tuple[Effect, ...]]:
    """Probe and coherence of short runs on painted birds with one setting changed, less without."""
    def effect(seeds: int) -> tuple[Effect, ...]:
        table = results.read("errata_birds")
        table = table[(table["source"] == "") & (table["target"] == "mean")]
        found = []
        for metric in ("coherence", "probe"):
            own = table[table["metric"] == metric]
            of = {said: own[own["note"].str.split("; ").str[0] == said].set_index("seed")["value"]
                  for said in (setting, "the profile")}
            changes = tuple((of[setting] - of["the profile"]).dropna())
            found.append(Effect(metric, changes, f"painted birds, beta 1, {counted(len(changes))}"))
        return tuple(found)
    return effect


def counted(n: int) -> str:
    return f"{n} seed{'s' * (n > 1)}"


def self_pairs(seeds: int) -> tuple[Effect, ...]:
    return _all_pairs_less("cross", "coherence", "coherence")


def _all_pairs_less(part: str, metric: str, what: str, score: bool = True) -> tuple[Effect, ...]:
    """The mean over all pairs of modalities less that over a part of them, of independent VAEs and of MMVM."""
    table = results.read("polymnist")
    found = []
    for method in ("independent", "mmvm"):
        rows = table[(table["profile"] == "laptop") & (table["method"] == method) & (table["metric"] == metric)
                     & (table["source"] == "")].pivot_table(index=["beta", "seed"], columns="target", values="value")
        beta = rows.groupby("beta").size().idxmax()  # the smallest with all seeds
        found.append(Effect(f"{what}, {method}", tuple(rows.loc[beta, "mean"] - rows.loc[beta, part]),
                            f"PolyMNIST, beta {beta:g}, {counted(len(rows.loc[beta]))}", score))
    return tuple(found)


def batches(seeds: int) -> tuple[Effect, ...]:
    """Batches of 128 less those of 256, two passes, of the ablations."""
    table = results.read("ablations")
    table = table[(table["source"] == "") & (table["beta"] == 1) & (table["method"] == "mmvm")]
    found = []
    for what, metric, target in (("probe", "probe", "mean"), ("own error", "reconstruction", "sum")):
        own = table[(table["metric"] == metric) & (table["target"] == target)]
        small, large = (own[own["note"] == f"batch_size={n}"].set_index("seed")["value"] for n in (128, 256))
        changes = tuple((small - large).dropna())
        found.append(Effect(what, changes, f"PolyMNIST, MMVM, beta 1, {counted(len(changes))}", what == "probe",
                            "" if what == "probe" else "nats"))
    return tuple(found)


def pairs_in_the_distance(seeds: int) -> tuple[Effect, ...]:
    """In features of the digit classifiers, not of Inception."""
    return _all_pairs_less("self", "classifier_distance", "feature distance", score=False)


def hard_predictions(seeds: int) -> tuple[Effect, ...]:
    table = results.read("cub")
    table = table[(table["profile"] == "laptop") & (table["method"] == "mmvm") & (table["source"] == "")
                  & (table["target"] == "mean")].pivot_table(index=["beta", "seed"], columns="metric", values="value")
    table = table.loc[beta := table.groupby("beta").size().idxmax()]
    return tuple(Effect(what, tuple(table[hard] - table[soft]), f"painted birds, beta {beta:g}, {counted(len(table))}")
                 for what, hard, soft in (("AUROC", "probe_auroc_hard", "probe"),
                                          ("average precision", "probe_average_precision_hard",
                                           "probe_average_precision")))


def in_sample(seeds: int) -> tuple[Effect, ...]:
    """Trained and tested on all trials, less the five folds that test each trial once, one of which a seed has."""
    table = results.read("hippocampus")
    table = table[(table["method"] == "mmvm") & (table["metric"] == "probe_shared") & (table["target"] == "mean")
                  & (table["beta"] == 1e-4)]
    inside = table[(table["profile"] == "control") & (table["note"] == "in sample")].set_index("seed")["value"]
    changes = tuple((inside - table[table["profile"] == "laptop"].set_index("seed")["value"]).dropna())
    return (Effect("shared probe", changes, f"simulated rats, {counted(len(changes))}, a fold each; in sample on a "
                   "quarter more trials"),)


def spread_over_seeds(seeds: int) -> tuple[Effect, ...]:
    table = results.read("polymnist")
    probe = table[(table["profile"] == "laptop") & (table["metric"] == "probe") & (table["target"] == "mean")]
    spread = probe.groupby(["method", "beta"])["value"].agg(["std", "count"])
    spread = spread[spread["count"] > 1]["std"]
    return (Effect("standard deviation of the probe over seeds", (float(spread.median()),),
                   f"PolyMNIST, median of {len(spread)} methods and betas", False, level=True),)


def counted_m_times(seeds: int, m: int = 3, beta: float = 0.25) -> tuple[Effect, ...]:
    """What one nat of a joint model's KL costs, over beta; then as `trained`."""
    factor = Aggregated("poe", kl_per_modality=True).effective_beta(beta, m) / beta
    return (Effect("weight of the KL over beta", (factor,), f"exact, M = {m}", False, level=True),
            *trained("poe:kl_per_modality=true", "poe", beta)(seeds))


# computed -----------------------------------------------------------------------------------------------------------

def digits_that_fit(seeds: int, side: int = 28, digit: int = 21) -> tuple[Effect, ...]:
    """Offsets from 0 to `digit` - 1 in both directions, of which those up to side - digit stay on the canvas."""
    share = ((side - digit + 1) / digit) ** 2
    return (Effect("pictures whose digit stays on the canvas", (100 * share,), "exact", False, "%", True),
            Effect("tuples of three", (100 * share**3,), "exact", False, "%", True))


def dropped(seeds: int, n_test: int = 10_000, batch_size: int = 128) -> tuple[Effect, ...]:
    return (Effect("test tuples left out", (n_test % batch_size,), f"of {n_test:,}, batches of {batch_size}", False,
                   level=True),)


# measured live, on the two halves of scikit-learn's digits -----------------------------------------------------------

def digits() -> tuple[MultimodalData, MultimodalData, np.ndarray, np.ndarray]:
    """Halves of handwritten digits to train on and to test with, and what the digits are."""
    data, y = halves(), load_digits().target[:512]
    data = MultimodalData(data.modalities, data.specs, torch.as_tensor(y))
    return data.subset(slice(0, N_TRAIN)), data.subset(slice(N_TRAIN, None)), y[:N_TRAIN], y[N_TRAIN:]


@cache
def model(seed: int, epochs: int = 12) -> tuple[MultimodalVAE, np.ndarray, np.ndarray]:
    """An MMVM VAE of the halves, the means of its last epoch's batches as training saw them, (M, N, D), and the rows
    that they belong to, (M, N)."""
    train = digits()[0]
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        found = MultimodalVAE.for_data(train, LATENT_DIM, "mmvm", beta=0.5, say=None)
    row_of = [{row.numpy().tobytes(): i for i, row in enumerate(x)} for x in train.modalities.values()]
    seen: list[list] = [[] for _ in train.specs]

    def record(m: int) -> Callable:
        def hook(module: nn.Module, x: tuple, out: tuple) -> None:
            if module.training:
                seen[m].extend((row_of[m][row.numpy().tobytes()], mean)
                               for row, mean in zip(x[0], out[0].detach().numpy().copy()))
        return hook

    hooks = [encoder.register_forward_hook(record(m)) for m, encoder in enumerate(found.encoders)]
    with torch.random.fork_rng([]):
        fit(found, train, epochs=epochs, batch_size=16, learning_rate=3e-3, seed=seed, device="cpu",
            precision="float32", check="off")
    for hook in hooks:
        hook.remove()
    last = [part[-len(train):] for part in seen]
    return found, np.array([[mean for _, mean in part] for part in last]), np.array([[i for i, _ in p] for p in last])


def moving_encodings(seeds: int) -> tuple[Effect, ...]:
    train, test, y, y_test = digits()
    changes = []
    for seed in range(seeds):
        found, moving, rows = model(seed)
        still, tested = (evaluation.encode_means(found, part).numpy() for part in (train, test))
        scores = [np.mean([logistic_regression(x[m], labels[m], False).score(tested[m], y_test) for m in range(2)])
                  for x, labels in ((moving, y[rows]), (still, np.stack([y, y])))]
        changes.append(scores[0] - scores[1])
    return (Effect("probe", tuple(changes), f"halves of digits, {seeds} seeds"),)


def unscaled_probe(seeds: int) -> tuple[Effect, ...]:
    train, test = digits()[:2]
    changes = tuple(np.mean(evaluation.linear_probe(model(seed)[0], train, test, standardise=False))
                    - np.mean(evaluation.linear_probe(model(seed)[0], train, test)) for seed in range(seeds))
    return (Effect("probe", changes, f"halves of digits, {seeds} seeds"),)


def few_trees(seeds: int, trees: int = 100) -> tuple[Effect, ...]:
    train, test, y, y_test = digits()
    changes = []
    for seed in range(seeds):
        x, x_test = (evaluation.encode_means(model(seed)[0], part)[0].numpy() for part in (train, test))
        scores = [roc_auc_score(QUESTIONS[y_test], forest(x, QUESTIONS[y], x_test, trees=n, seed=seed))
                  for n in (5, trees)]
        changes.append(scores[0] - scores[1])
    return (Effect("AUROC", tuple(changes), f"halves of digits, 5 for {trees} trees, {seeds} seeds"),)


def classifier(labels: np.ndarray, loss: Callable, seed: int, noisy: bool = False) -> nn.Module:
    train = digits()[0]
    hidden = [nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.5)] if noisy else [nn.ReLU()]
    width = labels.shape[1] if labels.ndim == 2 else 10
    return evaluation.train_classifier(
        train.modalities["left"], torch.as_tensor(labels), train.specs[0], epochs=30, batch_size=32, seed=seed,
        loss=loss, build=lambda: nn.Sequential(nn.Linear(32, 64), *hidden, nn.Linear(64, width)))


def softmax_over_sigmoids(seeds: int) -> tuple[Effect, ...]:
    _, test, y, y_test = digits()

    def as_released(out: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(out.sigmoid(), labels.float())

    ranked, hard = [], []
    for seed in range(seeds):
        of = []
        for loss in (as_released, multilabel.label_loss):
            of.append(classifier(QUESTIONS[y], loss, seed)(test.modalities["left"]).detach().numpy())
        ranked.append(np.subtract(*(roc_auc_score(QUESTIONS[y_test], out) for out in of)))
        hard.append(np.subtract(*(((out > 0) == QUESTIONS[y_test]).mean() for out in of)))
    said = f"halves of digits, six labels, {seeds} seeds"
    return Effect("AUROC", tuple(ranked), said), Effect("right answers", tuple(hard), said)


def never_in_eval_mode(seeds: int) -> tuple[Effect, ...]:
    _, test, y, y_test = digits()
    changes = []
    for seed in range(seeds):
        net, scores = classifier(y, F.cross_entropy, seed, noisy=True), []
        for training in (True, False):
            with torch.no_grad(), torch.random.fork_rng([]):
                torch.manual_seed(seed)
                scores.append((net.train(training)(test.modalities["left"]).argmax(1).numpy() == y_test).mean())
        changes.append(scores[0] - scores[1])
    return (Effect("accuracy of classifiers", tuple(changes),
                   f"halves of digits, {seeds} seeds"),)


def wrapped_pixels(seeds: int) -> tuple[Effect, ...]:
    """Pixels of reconstructions below 0 or above 1, which wrap as bytes: of ten tuples, by the model that ships."""
    found, data = pretrained("polymnist/mmvm"), decoder.digits()
    with torch.no_grad():
        out = torch.stack(list(found.decode(found.encode(data.modalities).mean)))
    return (Effect("pixels of reconstructions outside 0 to 1", (float(((out < 0) | (out > 1)).double().mean()) * 100,),
                   "PolyMNIST model that ships, ten tuples", False, "%", True),)


def log_sigma(seeds: int) -> tuple[Effect, ...]:
    """The weight of the narrower of two experts in their product, by variances and by standard deviations."""
    test, changes = digits()[1], []
    for seed in range(seeds):
        q = model(seed)[0].encode(list(test.modalities.values()))
        read = DiagonalGaussian(q.mean, 0.5 * q.logvar)   # the code's product takes log sigma for log sigma^2
        sharp = [(part.var.reciprocal() / part.var.reciprocal().sum(0)).max(0).values.mean().item()
                 for part in (read, q)]
        changes.append(sharp[0] - sharp[1])
    return (Effect("weight of the narrower expert in PoE", tuple(changes), f"halves of digits, {seeds} seeds", False),)
