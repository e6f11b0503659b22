"""The supervised reference: one classifier per view, trained on the labels by the same loop as the VAEs.

The paper's reference takes the softmax cross-entropy of outputs that went through a sigmoid against several labels at
once (`clfs/mimiccxr_clf.py`), which makes labels compete; here the loss is the sum over labels of the binary
cross-entropy of logits, without weights for rare labels.

Letters: M views, B batch, C labels.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mmvm.data import Modality, MultimodalData
from mmvm.evaluation.encodings import check_binary_labels
from mmvm.evaluation.multilabel import label_terms
from mmvm.likelihoods import Bernoulli
from mmvm.model import Terms
from mmvm.networks import run_on_present
from mmvm.objectives import Objective


def with_labels(data: MultimodalData) -> MultimodalData:
    """The same samples with their labels (N, C), NaN where unknown, as one more modality, the last: what `Supervised`
    is trained on."""
    check_binary_labels(data)
    labels = data.labels.float()
    everywhere = torch.ones(1, len(data), dtype=torch.bool, device=data.observed.device)
    return replace(data, modalities={**data.modalities, "labels": labels},
                   specs=(*data.specs, Modality("labels", tuple(labels.shape[1:]), Bernoulli(), missing="nan")),
                   observed=torch.cat([data.observed, everywhere]))


class Supervised(nn.Module):
    """M classifiers x_m -> logits (B, C) that share nothing but the loop: the loss of a sample is the sum over its
    views of their `label_terms`, and Adam treats every weight alone. `modalities` are those of `with_labels`: the M
    views, then the labels."""

    def __init__(self, modalities: Sequence[Modality], classifiers: Sequence[nn.Module]):
        super().__init__()
        self.modalities = tuple(modalities)
        self.encoders, self.decoders = nn.ModuleList(classifiers), nn.ModuleList()  # what a plan of the loop looks for
        self.objective, self.beta = Objective(), 0.0  # nothing is regularised
        self.grouped = False

    def forward(self, x: Sequence[Tensor], observed: Tensor | None = None, step: int = 0) -> Terms:
        """Training terms of a batch of `with_labels`: `x` and `observed` hold the M views, then the labels."""
        *views, labels = x
        costs = []
        for m, (spec, classifier, view) in enumerate(zip(self.modalities, self.encoders, views)):
            view = spec.prepare(view)
            there = None if observed is None else observed[m]
            if there is not None:
                view = torch.where(there.view(-1, *[1] * (view.ndim - 1)), view, view.new_zeros(()))
            cost = label_terms(run_on_present(classifier, view, there).float(), labels)
            costs.append(cost if there is None else cost.masked_fill(~there, 0.0))
        costs = torch.stack(costs)
        nothing = torch.zeros_like(costs[0])
        return Terms(costs.sum(0), -costs, nothing, {})
