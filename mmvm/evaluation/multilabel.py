"""Scores where a sample has several labels, C of them, each present, absent or not known (NaN): probe, classifiers and
coherence. A label that is not known of a sample is left out of whatever is said of that label.

The paper's protocol (appendix B.2) with one binary task per label. Every function gives each label its own number; the
mean over labels is the paper's. Ranking scores (average precision, AUROC) are from real-valued scores; the released
code feeds them hard 0/1 predictions (`utils/eval.py`), which `..._hard` repeats for comparison: AUROC becomes the mean
of sensitivity and specificity, and both become lower.

Letters: M modalities, N samples, B batch, C labels.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation import by_label
from mmvm.evaluation.coherence import classify, train_classifier as train_any_classifier
from mmvm.evaluation.encodings import check_binary_labels, evaluating, from_each_source, labels_of
from mmvm.model import MultimodalVAE

__all__ = ["auroc", "average_precision", "base_rates", "classify", "coherence", "imagined", "label_loss",
           "linear_probe", "scores", "train_classifier"]

METRICS = ("auroc", "auroc_hard", "average_precision", "average_precision_hard", "accuracy")


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Each of `METRICS` as (C,) from logits (N, C), present above 0, and labels (N, C).

    accuracy is the share of right answers to "is the label present". Ranking scores are NaN for a label that all
    samples have, or none: leave it out of a mean with `np.nanmean`. Where a logit or a label is NaN, the sample does
    not count for that label.

    Raises `UserError` for other shapes.

    >>> found = mmvm.evaluation.multilabel.scores(np.array([[-1.0], [2.0]]), np.array([[0], [1]]))
    >>> found["auroc"], found["accuracy"]
    (array([1.]), array([1.]))
    """
    logits, labels = np.asarray(logits, float), np.asarray(labels, float)
    if logits.shape != labels.shape or logits.ndim != 2 or not len(logits):
        raise UserError(f"logits {logits.shape} and labels {labels.shape}: give both as (N, C) with N > 0")
    found = {name: np.full(logits.shape[1], np.nan) for name in METRICS}
    for c in range(logits.shape[1]):
        known = ~(np.isnan(logits[:, c]) | np.isnan(labels[:, c]))
        values, y = logits[known, c], labels[known, c].astype(int)
        hard = (values > 0).astype(float)
        if len(y):
            found["accuracy"][c] = (hard == y).mean()
        if 0 < y.sum() < len(y):
            for suffix, answers in (("", values), ("_hard", hard)):
                found[f"auroc{suffix}"][c] = auroc(answers, y)
                found[f"average_precision{suffix}"][c] = average_precision(answers, y)
    return found


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of pairs of a present (1) and an absent (0) label in which the present one has the higher of the
    scores (N,); a tie is half a pair.

    >>> float(mmvm.evaluation.multilabel.auroc(np.array([0.1, 0.4, 0.3, 0.8]), np.array([0, 0, 1, 1])))
    0.75
    """
    present = labels.astype(bool)
    n, rest = present.sum(), (~present).sum()
    return (_ranks(scores)[present].sum() - n * (n + 1) / 2) / (n * rest)


def _ranks(x: np.ndarray) -> np.ndarray:
    """From 1, equal values at the mean of their ranks; scipy.stats has it too, and takes a second to import."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[inverse]


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """The precision at every threshold at which recall rises, weighted by how much it does; scores and labels (N,).

    >>> float(mmvm.evaluation.multilabel.average_precision(np.array([0.9, 0.1]), np.array([1, 0])))
    1.0
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of each set of equal scores
    found = labels[order].cumsum()[last]
    return (np.diff(found, prepend=0) * found / (last + 1)).sum() / labels.sum()


def base_rates(labels: np.ndarray) -> dict[str, np.ndarray]:
    """What a constant answer per label reaches: `scores` of one that knows how frequent each label is, (C,) each.

    >>> mmvm.evaluation.multilabel.base_rates(np.array([[0], [0], [0], [1]]))["accuracy"]
    array([0.75])
    """
    share = np.ma.filled(np.ma.masked_invalid(np.asarray(labels).astype(float)).mean(0), np.nan)
    ranked = np.where((share > 0) & (share < 1), share, np.nan)  # as `scores`, which ranks nothing where all are alike
    return {"auroc": np.full(len(share), 0.5), "auroc_hard": np.full(len(share), 0.5), "average_precision": ranked,
            "average_precision_hard": ranked, "accuracy": np.maximum(share, 1 - share)}


def linear_probe(model: MultimodalVAE, train: MultimodalData, test: MultimodalData, n: int | None = 10_000,
                 seed: int = 0) -> dict[str, np.ndarray]:
    """`scores` (M, C) of one logistic regression per modality and label, from the posterior means, standardised.

    Fitted to `n` random training encodings (paper: 10,000; None: all), tested on all of `test`. A label that all of the
    training encodings have, or none, is NaN.

    >>> several = MultimodalData({"a": a, "b": b}, specs, torch.stack([labels, 1 - labels], 1))
    >>> mmvm.evaluation.multilabel.linear_probe(model, several, several)["auroc"].shape  # modality, label
    (2, 2)
    """
    encodings = by_label.encode(model, train, test, n, seed)
    found = [scores(by_label.logistic(*encodings.of(m)), encodings.labels_test) for m in range(len(encodings.z))]
    return {name: np.stack([own[name] for own in found]) for name in METRICS}


# classifiers ---------------------------------------------------------------------------------------------------------

def train_classifier(build: Callable[[], nn.Module], x: Tensor, labels: Tensor, modality: Modality, *, epochs: int = 5,
                     batch_size: int = 64, learning_rate: float = 3e-3, seed: int = 0,
                     device: str | torch.device = "cpu") -> nn.Module:
    """A network from stored x (N, ...) to logits (B, C), fitted to labels (N, C): the sum over labels of the binary
    cross-entropy, Adam with one cycle of the learning rate.

    The released classifiers put a softmax over labels (`CrossEntropyLoss` with multi-hot targets) on outputs that went
    through a sigmoid already: labels then compete with each other, and no output can say "none of them".

    >>> train = mmvm.evaluation.multilabel.train_classifier
    >>> net = train(lambda: torch.nn.Linear(3, 1), a, labels[:, None], specs[0], epochs=1)
    >>> net(a).shape
    torch.Size([60, 1])
    """
    return train_any_classifier(x, labels, modality, build=build, loss=label_loss, epochs=epochs,
                                batch_size=batch_size, learning_rate=learning_rate, seed=seed, device=device)


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum over labels of the binary cross-entropy of logits (B, C), mean over the batch; a label that is NaN adds
    nothing.

    >>> mmvm.evaluation.multilabel.label_loss(torch.zeros(5, 2), torch.ones(5, 2))  # 2 log 2
    tensor(1.3863)
    """
    return label_terms(logits, labels).mean()


def label_terms(logits: Tensor, labels: Tensor) -> Tensor:
    """The same per sample, (B,), nats."""
    labels = labels.to(torch.float32)
    unknown = labels.isnan()
    terms = F.binary_cross_entropy_with_logits(logits, labels.masked_fill(unknown, 0.0), reduction="none")
    return terms.masked_fill(unknown, 0.0).sum(1)


# coherence -----------------------------------------------------------------------------------------------------------

@torch.no_grad()
def imagined(model: MultimodalVAE, data: MultimodalData, source: str, target: str, seed: int = 0) -> Tensor:
    """What modality `target` is made of x_source alone, in the order of `data`: encode, draw z, decode.

    Images and numbers are the likelihood's mean (N, ...), in the networks' units: `data.specs[t].restore` makes of
    standardised ones what `model.impute` gives. Tokens are the most probable ones (N, L) int64.

    Raises `UserError` for an unknown modality, and for samples that lack the source.

    >>> mmvm.evaluation.multilabel.imagined(model, data, "a", "b").shape
    torch.Size([60, 2])
    """
    for name in (source, target):
        if name not in data.names:
            raise UserError(f"there is no modality {name!r}: use one of {', '.join(data.names)}")
    s, t = data.names.index(source), data.names.index(target)
    if not data.observed[s].all():
        raise UserError(f"{int((~data.observed[s]).sum())} of {len(data)} samples lack {source!r}: give the others, "
                        f"data.subset(data.observed[{s}])")
    return torch.cat([readable(data.specs[t], out[t]).cpu()
                      for own, _, _, out in from_each_source(model, data, seed) if own == s])


def readable(spec: Modality, parameters: Tensor) -> Tensor:
    """What a classifier or a reader is shown of decoder output: mean, or the most probable classes (B, L)."""
    return parameters.argmax(1) if spec.likelihood.discrete else spec.likelihood.mean(parameters).float()


@torch.no_grad()
def coherence(model: MultimodalVAE, data: MultimodalData, classifiers: Sequence[nn.Module],
              seed: int = 0) -> dict[str, np.ndarray]:
    """Whether what modality t is imagined as from s alone shows the labels of the sample: `scores` (M, M, C), [s, t].

    The diagonal is self-reconstruction. Classifier t reads images as they are and tokens as numbers. Seeded draws.

    >>> several = MultimodalData({"a": a, "b": b}, specs, torch.stack([labels, 1 - labels], 1))
    >>> nets = [torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)]
    >>> mmvm.evaluation.multilabel.coherence(model, several, nets)["auroc"].shape  # source, target, label
    (2, 2, 2)
    """
    check_binary_labels(data)
    n_modalities = len(data.specs)
    known, pairs = labels_of(data), range(n_modalities)
    logits: list[list[list]] = [[[] for _ in pairs] for _ in pairs]
    truth: list[list] = [[] for _ in pairs]
    with evaluating(nn.ModuleList(classifiers)):
        for source, _, index, parameters in from_each_source(model, data, seed):
            truth[source].append(known.index_select(0, index.to(known.device)).cpu().numpy())
            for target, (spec, out) in enumerate(zip(data.specs, parameters)):
                logits[source][target].append(classifiers[target](readable(spec, out)).float().cpu().numpy())
    found = {name: np.full((n_modalities, n_modalities, known.shape[1]), np.nan) for name in METRICS}
    for s, t in np.ndindex(n_modalities, n_modalities):
        if truth[s]:
            for name, values in scores(np.concatenate(logits[s][t]), np.concatenate(truth[s])).items():
                found[name][s, t] = values
    return found
