"""What a trained model is worth: linear probe, coherence, imputation and reconstruction error.

All of it follows the paper's protocol (appendix B.2) and says where it does not. Matrices over pairs of modalities
are indexed [source, target]. Draws are seeded and leave the caller's random state alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvm.datasets.base import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE
from mmvm.networks import DigitClassifier

BATCH = 500


@torch.no_grad()
def encode_means(model: MultimodalVAE, data: MultimodalData) -> Tensor:
    """The means of the unimodal posteriors, (M, N, D) float32 on the CPU; NaN where a modality is not observed."""
    means = []
    with _evaluating(model) as device:
        for batch in data.batches(BATCH):
            q = model.encode([x.to(device) for x in batch.x], batch.observed.to(device))
            means.append(q.mean.float().cpu().masked_fill(~batch.observed.cpu().unsqueeze(-1), float("nan")))
    return torch.cat(means, 1)


def linear_probe(model: MultimodalVAE, train: MultimodalData, test: MultimodalData, n: int | None = 10_000,
                 standardise: bool = True, seed: int = 0) -> np.ndarray:
    """Accuracy of a logistic regression from each modality's posterior mean to the class, (M,) in [0, 1].

    As in the paper (B.2.1): scikit-learn's, C = 1, fitted to `n` random training encodings (10,000; None: all),
    tested on the whole test set, one probe per modality. Unlike the paper the means are standardised first: with
    alpha = 0 nothing fixes the scale of the latents, and on unscaled ones the solver stops before it converges.
    `standardise=False` is the paper's. Modalities are probed on the samples in which they are observed. Raises
    `UserError` where these are none, or all of one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    _check_labels(train, test)
    if n is not None and n < len(train):
        index = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:n]
        train = train.subset(index)
    accuracies = []
    with threadpool_limits(1):  # products this small are ten times slower when two BLAS threads wait for each other
        for name, x, y, x_test, y_test in zip(train.names, *_observed(model, train), *_observed(model, test)):
            if len(set(y)) < 2 or not len(y_test):
                raise UserError(f"the probe of {name} has training samples of {len(set(y))} classes and {len(y_test)} "
                                "test samples, it needs at least two classes and one sample: give more data")
            steps = [StandardScaler()] if standardise else []
            probe = make_pipeline(*steps, LogisticRegression(max_iter=10_000)).fit(x, y)
            accuracies.append(probe.score(x_test, y_test))
    return np.array(accuracies)


@torch.no_grad()
def coherence(model: MultimodalVAE, data: MultimodalData, classifiers: Sequence[nn.Module],
              seed: int = 0) -> np.ndarray:
    """How often what modality t imagines from modality s alone shows the right class: (M, M) in [0, 1].

    Entry [s, t]: encode x_s, draw z from q_s, decode with decoder t, classify with classifier t (B.2.2). The diagonal
    is self-reconstruction. `summarise` gives the averages with it (the paper's number) and without. NaN in the row of
    a modality that is never observed.
    """
    _check_labels(data)
    right = np.zeros((len(data.specs),) * 2)
    for source, _, index, parameters in _from_each_source(model, data, seed):
        labels = data.labels.index_select(0, index)
        for target, (modality, out) in enumerate(zip(data.specs, parameters)):
            logits = classifiers[target](modality.likelihood.mean(out).float())
            right[source, target] += (logits.argmax(-1) == labels.to(logits.device)).sum().item()
    return _mean(right, data.observed.sum(1, keepdim=True).cpu().numpy())


@torch.no_grad()
def imputation_error(model: MultimodalVAE, data: MultimodalData, seed: int = 0) -> np.ndarray:
    """-log p(x_t | z) with z drawn from q_s alone, (M, M), nats per sample, unweighted; [s, t], the diagonal is
    self-reconstruction. Averaged over the samples in which both s and t are observed, NaN where there are none."""
    total, count = np.zeros((len(data.specs),) * 2), np.zeros((len(data.specs),) * 2)
    for source, batch, _, parameters in _from_each_source(model, data, seed):
        for target, (modality, out) in enumerate(zip(data.specs, parameters)):
            x = modality.prepare(batch.x[target].to(out.device))
            nll = -modality.likelihood.log_prob(out, x, len(modality.shape))
            seen = batch.observed[target].to(nll.device)
            total[source, target] += nll[seen].double().sum().item()
            count[source, target] += seen.sum().item()
    return _mean(total, count)


@torch.no_grad()
def constant_error(train: MultimodalData, test: MultimodalData, n: int = 1_000, seed: int = 0) -> np.ndarray:
    """-log p(x_m | a constant), (M,), nats per test sample, unweighted: what an imputation that looks at nothing costs.
    The constant is the median of `n` random training samples that have m, pixel by pixel, the best one for a Laplace
    likelihood. NaN where a modality is tokens, or never observed."""
    errors = np.full(len(test.specs), np.nan)
    for m, modality in enumerate(test.specs):
        rows, rows_test = (torch.nonzero(data.observed[m]).squeeze(1) for data in (train, test))
        if modality.likelihood.discrete or not len(rows) or not len(rows_test):
            continue
        chosen = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:n]]
        constant = modality.prepare(train.modalities[modality.name].index_select(0, chosen)).median(0).values
        total = 0.0
        for index in rows_test.split(BATCH):
            x = modality.prepare(test.modalities[modality.name].index_select(0, index))
            total -= modality.likelihood.log_prob(constant.expand_as(x), x, len(modality.shape)).double().sum().item()
        errors[m] = total / len(rows_test)
    return errors


@dataclass(frozen=True)
class LogLikelihood:
    """`mean` over n samples and its standard error (nats per sample), with K = `n_draws` draws each."""

    mean: float
    standard_error: float
    n_draws: int
    n: int

    def note(self) -> str:
        """For a result row."""
        return f"draws={self.n_draws}; n={self.n}; standard_error={self.standard_error:.3g}"


@torch.no_grad()
def log_likelihood(model: MultimodalVAE, data: MultimodalData, n_draws: int = 64, seed: int = 0) -> LogLikelihood:
    """log p(X) of what is observed, by importance sampling (Burda et al. 2016), in nats per sample.

    log p(X) >= E log (1/K) sum_k p(X | z_k) p(z_k) / q(z_k | X), K = `n_draws` draws from the method's own posterior:
    a lower bound that rises with K, so compare methods at one K. Likelihoods are unweighted. Raises `UserError` for
    methods without a joint density, MMVM among them.
    """
    if n_draws < 1:
        raise UserError(f"n_draws must be at least 1, got {n_draws}")
    values = []
    with _evaluating(model, seed) as device:
        for batch in data.batches(max(1, BATCH // n_draws)):
            x, observed = [x.to(device) for x in batch.x], batch.observed.to(device)
            q = model.encode(x, observed)
            latents, log_ratio = model.objective.importance_draws(q, observed, n_draws)
            terms = model.log_likelihood(x, observed, latents).double()                     # (N, M, B)
            if log_ratio.shape[1] == 1:
                terms = terms.sum(1, keepdim=True)
            log_w = terms + log_ratio.double()                                              # (N, G, B)
            values.append((log_w.logsumexp(0) - math.log(n_draws)).sum(0).cpu())
    values = torch.cat(values).numpy()
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else float("nan")
    return LogLikelihood(float(values.mean()), float(error), n_draws, len(values))


@torch.no_grad()
def reconstruction_error(model: MultimodalVAE, data: MultimodalData, seed: int = 0) -> np.ndarray:
    """-log p(x_m | z_m) with everything observed given to the objective, (M,), nats per sample, unweighted.

    The sum over modalities is the x axis of the paper's figure 2. It has a floor: sum_m `likelihood.floor`.
    """
    total = np.zeros(len(data.specs))
    with _evaluating(model, seed) as device:
        for batch in data.batches(BATCH):
            terms = model([x.to(device) for x in batch.x], batch.observed.to(device))
            total -= terms.log_likelihood.double().sum(1).cpu().numpy()
    return _mean(total, data.observed.sum(1).cpu().numpy())


def summarise(matrix: np.ndarray) -> dict[str, float]:
    """Averages of an (M, M) matrix: over all pairs (what the paper reports, self pairs included), over the cross pairs
    and over the self pairs."""
    own = np.eye(len(matrix), dtype=bool)
    return {"all": float(matrix.mean()), "cross": float(matrix[~own].mean()) if len(matrix) > 1 else float("nan"),
            "self": float(matrix[own].mean())}


def train_classifier(x: Tensor, labels: Tensor, modality: Modality, *, trunk: str = "conv", epochs: int = 10,
                     batch_size: int = 128, learning_rate: float = 3e-3, n_classes: int = 10, seed: int = 0,
                     device: str | torch.device = "cpu", build: Callable[[], nn.Module] | None = None,
                     weight_decay: float = 0.0,
                     loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy) -> nn.Module:
    """A classifier of one modality on stored x (N, ...), Adam with a learning rate that rises to `learning_rate` and
    falls to zero (one cycle). `build` makes the network; None: the digit classifier, for which the paper (B.4) has Adam
    1e-3, batch 256, 10 epochs. `loss` is a function of outputs and labels, a batch's."""
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        classifier = (build() if build else DigitClassifier(trunk, n_classes=n_classes)).to(device)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
        steps = epochs * -(-len(x) // batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=max(steps, 2))
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(batch_size):
                if len(index) == 1 < len(x):  # batch norm needs two
                    continue
                batch = modality.prepare(x.index_select(0, index.to(x.device)).to(device))
                cost = loss(classifier(batch), labels.index_select(0, index.to(labels.device)).to(device))
                optimizer.zero_grad(set_to_none=True)
                cost.backward()
                optimizer.step()
                schedule.step()
    return classifier.eval()


@torch.no_grad()
def classifier_accuracy(classifier: nn.Module, x: Tensor, labels: Tensor, modality: Modality) -> float:
    """Share of stored images x (N, ...) that the classifier names rightly."""
    device = next(classifier.parameters()).device
    right = sum((classifier(modality.prepare(images.to(device))).argmax(-1) == y.to(device)).sum().item()
                for images, y in zip(x.split(BATCH), labels.split(BATCH)))
    return right / len(x)


@torch.no_grad()
def _from_each_source(model: MultimodalVAE, data: MultimodalData, seed: int) -> Iterator[tuple]:
    """(source, batch, index, decoder outputs) with only the source's modality given, over the samples that have it."""
    with _evaluating(model, seed) as device:
        for source in range(len(data.specs)):
            rows = torch.nonzero(data.observed[source]).squeeze(1)
            for index in rows.split(BATCH):
                batch = data.batch(index)
                observed = torch.zeros_like(batch.observed, device=device)
                observed[source] = True
                q = model.encode([x.to(device) for x in batch.x], observed)
                yield source, batch, index, model.decode(model.objective.impute_latents(q, observed))


def _observed(model: MultimodalVAE, data: MultimodalData) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per modality, the encodings and labels of the samples that have it."""
    means, observed, labels = encode_means(model, data), data.observed.cpu(), data.labels.cpu()
    return [m[o].numpy() for m, o in zip(means, observed)], [labels[o].numpy() for o in observed]


def _check_labels(*sets: MultimodalData) -> None:
    if any(data.labels is None or data.labels.ndim != 1 for data in sets):
        raise UserError("probe and coherence need one class number per sample in `labels`")


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """total / count, NaN where nothing was counted."""
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


@contextmanager
def _evaluating(model: MultimodalVAE, seed: int | None = None):
    """Eval mode on the model's own device, seeded draws, everything put back afterwards."""
    device = next(model.parameters()).device
    training = {module: module.training for module in model.modules()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)
        model.eval()
        try:
            yield device
        finally:
            for module, mode in training.items():
                module.training = mode
