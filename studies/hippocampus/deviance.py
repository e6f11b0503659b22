"""How much of a spike count a prediction explains: Poisson deviance, the regression's R^2 for counts.

D = 2 sum x log(x / rate) - (x - rate), and the share explained is 1 - D(prediction) / D(null), null being each unit's
mean count in the training samples. The most that anything can reach with 10 ms bins is a few per cent: nearly all of D
is the noise of firing. So it is read against what the class and the time alone explain (`explained_by_label`).
"""

import numpy as np
import torch
from torch import Tensor

from mmvm.data import MultimodalData
from mmvm.evaluation.encodings import from_each_source
from mmvm.model import MultimodalVAE

LEAST = 0.05     # of a unit's mean: lower predictions are raised to it. A squared-error decoder may predict less than 0
SHRINKAGE = 5    # trials at the unit's mean that every cell of a peristimulus histogram starts with


@torch.no_grad()
def deviance_explained(model: MultimodalVAE, train: MultimodalData, test: MultimodalData, seed: int = 0) -> np.ndarray:
    """(M, M): share of the deviance of t's test counts that is explained from a draw of q_s alone; [s, t], at most 1,
    below 0 where the unit's mean is the better prediction. The diagonal is self-reconstruction. Modalities hold
    (N, units, bins); works for every likelihood, on the counts as stored. NaN where s and t are never both observed."""
    nulls = [_null(train, t) for t in range(len(train.specs))]
    explained, total = np.zeros((len(nulls),) * 2), np.zeros((len(nulls),) * 2)
    for s, batch, _, parameters in from_each_source(model, test, seed):
        for t, (modality, out, null) in enumerate(zip(test.specs, parameters, nulls)):
            seen = batch.observed[t].cpu()
            x, rate = batch.x[t].cpu()[seen].double(), modality.likelihood.mean(out).cpu()[seen].double()
            explained[s, t] += float(deviance(x, (rate / modality.scale).maximum(LEAST * null)))
            total[s, t] += float(deviance(x, null.expand_as(x)))
    return 1 - np.divide(explained, total, out=np.full(total.shape, np.nan), where=total > 0)


def explained_by_label(train: MultimodalData, test: MultimodalData, times: tuple[Tensor, Tensor]) -> np.ndarray:
    """(M,): share of the deviance that the peristimulus time histogram explains, each unit's mean training count for
    this class and time. `times`: (N,) numbers of the training and the test samples, say of the window. A prediction
    that knows the label, so about what is to be had from another animal that shares nothing else."""
    found = []
    for m in range(len(train.specs)):
        null, x, x_test = _null(train, m), *(data.modalities[data.names[m]][data.observed[m]].double()
                                             for data in (train, test))
        cells, cells_test = (_cells(data, m, time) for data, time in zip((train, test), times))
        rate = torch.empty_like(x_test)
        for cell in torch.unique(cells_test):
            own = x[cells == cell]
            mean = (own.mean(-1, keepdim=True).sum(0) + SHRINKAGE * null) / (len(own) + SHRINKAGE)
            rate[cells_test == cell] = mean
        found.append(1 - float(deviance(x_test, rate) / deviance(x_test, null.expand_as(x_test))))
    return np.array(found)


def deviance(x: Tensor, rate: Tensor) -> Tensor:
    """Poisson deviance of x given rates > 0, summed."""
    return 2 * (torch.xlogy(x, x / rate) - x + rate).sum()


def _null(data: MultimodalData, m: int) -> Tensor:
    """(units, 1): mean count; half a count more in the sum, so that a unit that was silent may fire."""
    x = data.modalities[data.names[m]][data.observed[m].to(data.device)].cpu().double()
    return (x.sum((0, 2)) + 0.5).unsqueeze(-1) / (x.shape[0] * x.shape[2] + 0.5)


def _cells(data: MultimodalData, m: int, time: Tensor) -> Tensor:
    return (data.labels * (int(time.max()) + 1) + time)[data.observed[m]]
