"""Coherence: whether what is imagined of one modality shows the class of another (paper, section 5.1)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvm.data import Modality, MultimodalData
from mmvm.evaluation.encodings import BATCH, check_class_labels, evaluating, from_each_source, labels_of, mean_or_nan
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import seeded


@torch.no_grad()
def coherence(model: MultimodalVAE, data: MultimodalData, classifiers: Sequence[nn.Module],
              seed: int = 0) -> np.ndarray:
    """How often what modality t imagines from modality s alone shows the right class: (M, M) in [0, 1].

    Entry [s, t]: encode x_s, draw z from q_s, decode with decoder t, classify with classifier t (B.2.2). The diagonal
    is self-reconstruction. `summarise` gives the averages with it (the paper's number) and without. NaN in the row of
    a modality that is never observed.

    >>> classifiers = [torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)]
    >>> mmvm.evaluation.coherence(model, data, classifiers).shape
    (2, 2)
    """
    check_class_labels(data)
    right = np.zeros((len(data.specs),) * 2)
    with evaluating(nn.ModuleList(classifiers)):
        for source, _, index, parameters in from_each_source(model, data, seed):
            labels = labels_of(data).index_select(0, index)
            for target, (modality, out) in enumerate(zip(data.specs, parameters)):
                logits = classifiers[target](modality.likelihood.mean(out).float())
                right[source, target] += (logits.argmax(-1) == labels.to(logits.device)).sum().item()
    return mean_or_nan(right, data.observed.sum(1, keepdim=True).cpu().numpy())


def summarise(matrix: np.ndarray) -> dict[str, float]:
    """Averages of an (M, M) matrix: over all pairs (what the paper reports, self pairs included), over the cross pairs
    and over the self pairs.

    >>> mmvm.evaluation.summarise(np.array([[1.0, 0.5], [0.7, 1.0]]))
    {'all': 0.8, 'cross': 0.6, 'self': 1.0}
    """
    own = np.eye(len(matrix), dtype=bool)
    return {"all": float(matrix.mean()), "cross": float(matrix[~own].mean()) if len(matrix) > 1 else float("nan"),
            "self": float(matrix[own].mean())}


def train_classifier(x: Tensor, labels: Tensor, modality: Modality, *, build: Callable[[], nn.Module],
                     epochs: int = 10, batch_size: int = 128, learning_rate: float = 3e-3, weight_decay: float = 0.0,
                     seed: int = 0, device: str | torch.device = "cpu",
                     loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy) -> nn.Module:
    """The classifier of one modality that `build` makes, fitted to stored x (N, ...) by Adam with a learning rate that
    rises to `learning_rate` and falls to zero (one cycle). `loss` is a function of outputs and labels, a batch's.

    >>> net = mmvm.evaluation.train_classifier(a, labels, specs[0], build=lambda: torch.nn.Linear(3, 2))
    >>> net(a).shape
    torch.Size([60, 2])
    """
    device = torch.device(device)
    with seeded(seed, device):
        classifier = build().to(device)
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


def classifier_accuracy(classifier: nn.Module, x: Tensor, labels: Tensor, modality: Modality) -> float:
    """Share, in [0, 1], of stored samples x (N, *shape) whose class (N,) the classifier's largest output (N, C) names.

    >>> always_0 = torch.nn.Linear(3, 2)
    >>> _ = always_0.load_state_dict({"weight": torch.zeros(2, 3), "bias": torch.tensor([1.0, 0.0])})
    >>> mmvm.evaluation.classifier_accuracy(always_0, a, labels, specs[0])
    0.5
    """
    return float((classify(classifier, x, modality).argmax(-1) == labels.cpu().numpy()).mean())


@torch.no_grad()
def classify(classifier: nn.Module, x: Tensor, modality: Modality) -> np.ndarray:
    """Logits (N, C), an array, for stored x (N, *shape), on the classifier's own device, in pieces of 500 samples.

    >>> mmvm.evaluation.multilabel.classify(torch.nn.Linear(3, 4), a, specs[0]).shape
    (60, 4)
    """
    index = torch.arange(len(x), device=x.device)
    with evaluating(classifier) as device:
        return torch.cat([classifier(modality.prepare(x.index_select(0, rows).to(device))).float().cpu()
                          for rows in index.split(BATCH)]).numpy()
