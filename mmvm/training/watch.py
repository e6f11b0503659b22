"""What can go wrong while the loss falls: named once a run, with what to try.

A look is one pass of the encoders over at most 64 samples, after epochs 1, 2, 4, 8, ... and every tenth; it draws no
random numbers. Two looks in a row must agree. Letters: M modalities, B samples that are looked at, D latent.
"""

import warnings

import torch
from torch import Tensor

from mmvm.errors import UserError, ValueWarning
from mmvm.gaussian import DiagonalGaussian
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import evaluating
from mmvm.training.batches import Batches, to_device

SAMPLES, FEWEST = 64, 8   # looked at: a twentieth of a small set, but no fewer; nor is a modality judged by fewer
SETTLED = 200             # updates before which nothing is said: networks start as if collapsed
COLLAPSED = 0.03          # nats about the sample below which a modality's latents hold nothing
ADRIFT = 5.0              # distance of the latents from 0, over their own spread
DROWNING, GAIN = 0.99, 1  # share of one modality in what the log-likelihoods gain, where that is so many nats


class Watch:
    """Looks at a model between epochs; the batch means of the first update that it sees are what gains count from."""

    def __init__(self, model: MultimodalVAE, batches: Batches):
        self.model, self.batches = model, batches
        n = len(batches.data)
        index = torch.linspace(0, n - 1, min(n, max(FEWEST, min(SAMPLES, n // 20)))).long()
        self.index = index.to(batches.data.device)
        self.first: tuple[list[str], Tensor] | None = None
        self.before: dict[str, float] | None = None  # log-likelihoods at the last look
        self.distance = 0.0
        self.suspects: set = set()

    def begin(self, names: list[str], means: Tensor) -> None:
        """The `batch_means` of an update."""
        if self.first is None:
            self.first = names, means

    def look(self, epoch: int, step: int, means: dict[str, float]) -> list[str]:
        """After an epoch with these means: a sentence about each thing that is wrong and was at the last look. About
        values that a model refuses, and a training with check="off" does not, it says nothing."""
        if epoch % 10 and epoch & (epoch - 1) or not hasattr(self.model, "encode"):
            return []  # a reference without latents
        batch = to_device(self.batches.data.batch(self.index), self.batches.device)
        try:
            with torch.no_grad(), evaluating(self.model), warnings.catch_warnings():
                warnings.simplefilter("ignore", ValueWarning)
                q, observed = self.model.encode(batch.x, batch.observed), batch.observed
        except UserError:
            return []
        suspects = {**self._collapsed(q, observed), **self._adrift(q, observed, step), **self._drowning(means)}
        again = [sentence for what, sentence in suspects.items() if what in self.suspects and step >= SETTLED]
        self.suspects = set(suspects)
        return again

    def _collapsed(self, q: DiagonalGaussian, observed: Tensor) -> dict[str, str]:
        """Modalities whose posterior is the same for all samples: the spread of its means is nothing beside its own
        width."""
        found = {}
        for m, (spec, seen) in enumerate(zip(self.model.modalities, observed)):
            if int(seen.sum()) >= FEWEST and float(q[m, seen].information().sum()) < COLLAPSED:
                found[f"collapsed {spec.name}"] = (
                    f"the posterior of {spec.name!r} has collapsed: its latents hold less than {COLLAPSED:g} nats "
                    "about the sample. Try a smaller beta or learning rate, a beta that rises from 0, "
                    "beta=Schedule(0, ...), or a larger weight of this modality")
        return found

    def _adrift(self, q: DiagonalGaussian, observed: Tensor, step: int) -> dict[str, str]:
        """Latents that move away from 0, under an objective that does not hold them there."""
        (distance, spread), before = q[observed].centre_and_spread(), self.distance
        self.distance = distance
        if self.model.objective.anchored(step) or distance <= before or distance < ADRIFT * spread:
            return {}
        return {"adrift": "the latents drift: their centre is more than "
                f"{ADRIFT:g} times their spread away from 0 and moves on, because with alpha 0 nothing holds them. "
                "Centre the data (standardise=True of numbers); alpha > 0 (objective='mmvm:alpha=0.1') slows it"}

    def _drowning(self, means: dict[str, float]) -> dict[str, str]:
        """One modality that makes all of the gain in weighted log-likelihood, since the start and since the last look:
        what it asks for decides every weight that others share with it."""
        if self.first is None:
            return {}  # a run that was continued at the end of an epoch
        weights = {f"log_likelihood/{m.name}": m.weight for m in self.model.modalities if m.weight > 0}
        now = {name: weight * means[name] for name, weight in weights.items()}
        first = dict(zip(self.first[0], self.first[1].tolist()))
        start = {name: weight * first[name] for name, weight in weights.items()}
        before, self.before = self.before, now
        if before is None or len(now) < 2:
            return {}
        gains = [{name: max(now[name] - then[name], 0.0) for name in now} for then in (start, before)]
        top = max(now, key=gains[0].__getitem__)
        if any(sum(gain.values()) < GAIN or gain[top] < DROWNING * sum(gain.values()) for gain in gains):
            return {}
        name = top.partition("/")[2]
        return {"drowning": f"the log-likelihood of {name!r} drowns the others: it makes more than {DROWNING:.0%} of "
                "all that was gained, weights included. Try a smaller weight of this modality, a larger scale of its "
                "likelihood, or larger weights of the others"}
