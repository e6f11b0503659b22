"""One update: gradients of a batch, the step of Adam, and the guard that watches both."""

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from mmvm.checks import findings
from mmvm.data import Batch, MultimodalData
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE, Terms
from mmvm.networks.present import batch_statistics
from mmvm.schedule import Schedule, at
from mmvm.training import distributed
from mmvm.training.explain import try_networks
from mmvm.training.plan import autocast
from mmvm.training.run import Run

GUARD_INTERVAL = 50
"""Updates between two looks at the guard on a GPU: each look waits for the device.

>>> mmvm.training.GUARD_INTERVAL
50
"""


class TrainingDiverged(UserError):
    """A loss or gradient stopped being finite; says at which step, with which terms, and what to try.

    >>> issubclass(mmvm.training.TrainingDiverged, UserError)
    True
    """


class Update:
    """One update: `gradients` of a batch, then `apply`. On a GPU the plan's `graph` records both once, with all their
    kernels, and replays them: the host then says one word an update instead of a thousand. Not where something
    is absent and a network normalises over the batch: such updates are never recorded."""

    WARM_UP = 3  # updates before recording, in which the libraries choose their kernels

    def __init__(self, model: MultimodalVAE, optimizer: torch.optim.Optimizer, data: MultimodalData, precision: str,
                 device: torch.device, max_grad_norm: float | None, compile: bool, graph: bool,
                 learning_rate: float | Schedule):
        self.model, self.optimizer, self.precision, self.device = model, optimizer, precision, device
        self.max_grad_norm = max_grad_norm or float("inf")
        self.complete, self.names = bool(data.observed.all()), data.names
        forward = torch.compile(model) if compile else model
        self.forward = DistributedDataParallel(forward) if distributed.ranks().size > 1 else forward
        if graph and (device.type != "cuda" or distributed.ranks().size > 1):
            raise UserError("plan 'graph' records the CUDA kernels of one process: not on a CPU, not with several")
        # rows that are absent are kept from batch statistics by shapes that change, and a recording has fixed ones
        absent = not self.complete or any(spec.missing for spec in data.specs)
        changing = absent and any(map(batch_statistics, (*model.encoders, *model.decoders)))
        self.graph, self.updates = graph and not changing, 0
        self.recorded: torch.cuda.CUDAGraph | None = None
        self.learning_rate = learning_rate

    def gradients(self, batch: Batch, step: int) -> tuple[list[str], Tensor]:
        """`batch_means` of the update; a recorded one is applied by this too."""
        self.updates += 1
        if isinstance(self.learning_rate, Schedule):
            self._set_learning_rate(step)
        if not self.graph or self.updates <= self.WARM_UP or step < self.model.settled_at:
            return self._gradients(batch, step)
        recorded = self.recorded or self._record(batch, step)
        for own, new in zip(self.batch.tensors(), batch.tensors()):
            own.copy_(new)
        recorded.replay()
        return self.watched[0], self.watched[1].clone()  # the next replay writes over them

    def apply(self) -> None:
        if self.recorded is None:
            self.optimizer.step()

    def _set_learning_rate(self, step: int) -> None:
        """The rate of update `step`. A recorded update reads it from a tensor, which is written over in place."""
        for group in self.optimizer.param_groups:
            if not self.graph:
                group["lr"] = at(self.learning_rate, step)
            elif torch.is_tensor(group["lr"]):
                group["lr"].fill_(at(self.learning_rate, step))
            else:
                group["lr"] = torch.tensor(at(self.learning_rate, step), device=self.device)

    def _gradients(self, batch: Batch, step: int) -> tuple[list[str], Tensor]:
        """Leaves no graph behind: a recording fails where an earlier one, of another stream, is alive."""
        with autocast(self.precision, self.device):
            # without a mask where nothing is missing: a pass over all pixels less
            terms = self.forward(batch.x, None if self.complete else batch.observed, step, **batch.told)
        self.optimizer.zero_grad(set_to_none=True)
        terms.loss.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        return batch_means(norm, terms, self.names)

    def _record(self, batch: Batch, step: int) -> torch.cuda.CUDAGraph:
        self.batch = batch.map(Tensor.clone)
        for group in self.optimizer.param_groups:
            group["capturable"] = True
        self.optimizer.zero_grad(set_to_none=True)  # the recording's own gradients are written over by each replay
        recorded = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(recorded):
                self.watched = self._gradients(self.batch, step)
                self.optimizer.step()
        except RuntimeError as error:  # it asks the host for numbers, as methods do that choose among parts
            raise UserError("plan 'graph': these updates cannot be recorded, leave it out "
                            f"({str(error).splitlines()[0]})") from error
        self.recorded = recorded
        return recorded


def batch_means(norm: Tensor, terms: Terms, names: list[str]) -> tuple[list[str], Tensor]:
    """What an update is watched by: names, and their means over the batch as one float64 vector; the gradient's norm
    and the loss come first."""
    values = {"grad_norm": norm, "loss": terms.loss.mean(), "regulariser": terms.regulariser.mean(),
              **{f"log_likelihood/{name}": ll.mean() for name, ll in zip(names, terms.log_likelihood)},
              **{name: part.mean() for name, part in terms.parts.items()}}
    return list(values), torch.stack([value.detach() for value in values.values()]).double()


class Guard:
    """Stops at the first non-finite gradient or loss. On a GPU the finding is kept on the device and looked at
    every `GUARD_INTERVAL` updates, so that the host does not wait for each one."""

    def __init__(self, run: Run, device: torch.device, data: MultimodalData):
        self.run, self.data = run, data
        self.interval = 1 if device.type == "cpu" else GUARD_INTERVAL
        self.found = torch.full((), -1, dtype=torch.long, device=device)
        self.names: list[str] = []
        self.values = torch.zeros(0)

    def check(self, names: list[str], values: Tensor) -> None:
        """The `batch_means` of an update that is about to be made."""
        self.names = names
        first = (self.found < 0) & ~(values[:2].isfinite().all())
        self.values = torch.where(first, values, self.values) if len(self.values) else values
        self.found = torch.where(first, self.run.step, self.found)
        if (self.run.step + 1) % self.interval == 0:
            self.look()

    def look(self) -> None:
        if (step := int(self.found)) < 0:
            return
        values = dict(zip(self.names, self.values.tolist()))
        labels = {"grad_norm": "gradient norm", "loss": "loss", "regulariser": "regulariser",
                  **{name: f"log p({name.partition('/')[2]})" for name in self.names if "log_likelihood/" in name}}
        said = ", ".join(f"{label} {values[name]:.4g}" for name, label in labels.items())
        saved = self.run.out is not None and self.run.checkpoint.exists()
        kept = f" The last good state is in {self.run.checkpoint}." if saved else ""
        wrong, poor = findings(self.data)
        if step == 0 and self.interval == 1 and not wrong:  # before the first update nothing is to blame but a network
            try_networks(self.run.model, self.data)
        counts = any(spec.likelihood.whole and not spec.likelihood.discrete for spec in self.data.specs)
        advice = ("Let an encoder of your own take log(1 + x) of counts, and begin a decoder of log rates at the "
                  "logarithms of the mean counts, by its last bias; try" if counts else "Try") + (
                  " a smaller learning_rate, max_grad_norm=100, or precision='float32'")
        cure = wrong[0] if wrong else ". ".join([*poor[:1], advice])
        raise TrainingDiverged(f"training stopped at update {step}, which is no longer finite: {said}. {cure}.{kept}")
