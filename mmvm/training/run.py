"""Where a run stands: the sums of the running epoch, the history, and how both are written and read back."""

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.files import git_commit, versions, write_safetensors, write_text
from mmvm.identity import architecture
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import evaluating
from mmvm.paths import home
from mmvm.training import distributed, memory
from mmvm.training.checkpoint import (
    BEST,
    CHECKPOINT,
    FORMAT,
    TrainingWarning,
    check_same_run,
    optimizer_tensors,
    put_optimizer_state,
    put_weights,
    read_checkpoint,
)
from mmvm.training.interrupt import TrainingInterrupted
from mmvm.training.plan import Plan
from mmvm.training.watch import Watch

HISTORY = "history.jsonl"
"""Name of the file in a run's folder with one line of JSON an epoch.

>>> mmvm.training.HISTORY
'history.jsonl'
"""
PREFIX = "validation_"
"""Begins the names of all that a history, and result rows, hold of validation rows.

>>> mmvm.training.PREFIX + "loss"
'validation_loss'
"""


@dataclass
class History:
    """One dictionary per finished epoch: epoch, step, seconds, samples_per_second, grad_norm, loss, regulariser, its
    parts, and log_likelihood/<modality>; means over the epoch's samples, of a log-likelihood over those that have the
    modality, nats. `seconds` is training time alone, also of resumed pieces; `peak_memory_gb` the most this process
    held, or allocated on its GPU. `plan` is how the updates were computed, `data` the fingerprint of the training data.

    With validation rows also validation_loss, ..., of the weights at an epoch's end (the others are means along its
    way); `watch` is the name of the one, without "validation_", that `best` is chosen by.

    >>> history = fit(model, data, epochs=2, batch_size=30)
    >>> len(history["loss"]), history.best, str(history.plan)
    (2, None, 'plain')
    """

    epochs: list[dict] = field(default_factory=list)
    plan: Plan = Plan()
    data: str = ""
    watch: str = "loss"

    @property
    def best(self) -> int | None:
        """The epoch with the best validation, of equals the first: the highest log-likelihood, the lowest of all else.
        None where nothing finite was seen."""
        sign = -1 if self.watch.startswith("log_likelihood/") else 1
        seen = [(sign * row[PREFIX + self.watch], row["epoch"]) for row in self.epochs if PREFIX + self.watch in row]
        return min((value for value in seen if math.isfinite(value[0])), default=(0, None))[1]

    def __getitem__(self, name: str) -> list[float]:
        return [row[name] for row in self.epochs if name in row]


class Run:
    """Where a run stands, and how that is written and read back."""

    def __init__(self, model: MultimodalVAE, optimizer: torch.optim.Optimizer, config: dict,
                 out: str | os.PathLike | None, data: str):
        self.model, self.optimizer, self.config = model, optimizer, config
        self.out = None if out is None else home(out)
        self.ranks = distributed.ranks()
        self.step = self.epoch = 0
        self.seconds = 0.0                      # of training, before the clock was last started
        self.names: list[str] = []              # of what is summed up
        self.totals: Tensor | None = None       # sums over the running epoch's updates
        self.history = History(data=data)
        self.validation: Any = None             # `Validation`, where there are such rows
        self.best: dict[str, Tensor] = {}       # weights of the epoch `history.best`, where there is patience
        self.architecture = architecture(model)
        self.warned: set[str] = set()
        self.commit = git_commit()              # at the start: the tree may change while the run goes on
        self.clock = self.saved = time.monotonic()

    @property
    def checkpoint(self) -> Path:
        assert self.out is not None, "this run is kept nowhere"
        return self.out / CHECKPOINT

    def count(self, names: list[str], values: Tensor) -> None:
        """One update made: adds its `batch_means` to the epoch's sums, in float64."""
        self.step += 1
        if self.names != names and self.totals is not None:  # out of a checkpoint, which has its own order
            self.totals = self.totals[[self.names.index(name) for name in names]]
        self.names = names
        self.totals = values if self.totals is None else self.totals + values

    def end_epoch(self, n_samples: int, on_epoch: Callable | None, progress: tqdm, watch: Watch) -> None:
        n_updates = self.step // (self.epoch + 1)  # all epochs have as many
        assert self.totals is not None, "an epoch has updates"
        means = {name: total / n_updates for name, total in zip(self.names, self.totals.tolist())}
        self.tick()
        before = self.history.epochs[-1]["seconds"] if self.history.epochs else 0.0
        self.epoch += 1
        self.totals = None
        reported, advice = self.model.objective.report(means)
        for sentence in [*advice, *watch.look(self.epoch, self.step, means)]:
            if sentence not in self.warned:  # once a run, not once an epoch
                self.warned.add(sentence)
                warnings.warn(sentence, TrainingWarning, stacklevel=3)
        row = {"epoch": self.epoch, "step": self.step, "seconds": round(self.seconds, 3),
               "samples_per_second": round(n_samples / max(self.seconds - before, 1e-9), 1),
               **memory.peak(next(self.model.parameters()).device),
               **over_observed(means, watch.batches.data, watch.batches.order(self.epoch - 1)), **reported}
        if self.validation is not None:
            row.update(self.validation.look(self.epoch))
        if on_epoch is not None and self.ranks.rank == 0:
            with evaluating(self.model):  # what it encodes there moves no batch statistics
                row.update(on_epoch(self.model, self.epoch) or {})
        self.clock = time.monotonic()  # evaluation is not training time
        self.history.epochs.append(row)
        if self.validation is not None and self.validation.patience is not None and self.history.best == self.epoch:
            self.best = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.ranks.wait()
        progress.set_postfix(epoch=self.epoch, loss=f"{means['loss']:.1f}", refresh=False)
        if self.out is not None and self.ranks.rank == 0:
            try:
                line = json.dumps(row)
            except TypeError as error:
                raise UserError(f"on_epoch returned what {HISTORY} cannot hold ({error}): return plain numbers, as "
                                "float(x) and x.tolist() give") from None
            with open(self.out / HISTORY, "a") as file:
                file.write(line + "\n")
            self.save()

    def over(self) -> bool:
        """Validation says so."""
        return self.validation is not None and self.validation.over()

    def take_best(self, epochs: int) -> None:
        """At the end: the weights of the best epoch, where they were kept."""
        if self.best:
            self.model.load_state_dict(self.best)
            if self.ranks.rank == 0:
                print(f"validation: the weights are those of epoch {self.history.best}, the best by "
                      f"{self.history.watch} of {self.epoch} that were trained ({epochs} asked for)", file=sys.stderr)

    def interrupted(self) -> TrainingInterrupted:
        return TrainingInterrupted(f"stopped after update {self.step}" + (
            f"; run the same again to continue from {self.checkpoint}" if self.out else ""))

    def tick(self) -> None:
        now = time.monotonic()
        self.seconds, self.clock = self.seconds + now - self.clock, now

    def save(self) -> None:
        """Writes everything into one file, beside it first and then in its place: a checkpoint is whole or absent."""
        if self.out is None or self.ranks.rank:
            self.saved = time.monotonic()
            return
        self.tick()
        tensors = {**{f"model.{name}": value for name, value in self.model.state_dict().items()},
                   **{BEST + name: value for name, value in self.best.items()}, **optimizer_tensors(self.optimizer)}
        if self.totals is not None:
            tensors.update({f"totals.{name}": value for name, value in zip(self.names, self.totals)})
        tensors["random.cpu"] = torch.get_rng_state()
        for device in self._cuda_devices():
            tensors["random.cuda"] = torch.cuda.get_rng_state(device)
        write_safetensors(self.checkpoint, tensors, {
            "format": FORMAT, "config": json.dumps(self.config), "commit": self.commit, "data": self.history.data,
            "architecture": json.dumps(self.architecture),
            "versions": json.dumps(versions()), "plan": str(self.history.plan),
            "progress": json.dumps({"step": self.step, "epoch": self.epoch, "seconds": self.seconds})})
        self.saved = self.clock = time.monotonic()

    def start(self, seed: int, epochs: int) -> None:
        """Continues the run in `out`, if there is one. One process draws on from where it is, seeded before."""
        self._resume()
        if self.epoch > epochs:
            assert self.out is not None, "a run that is kept nowhere begins at 0"
            raise UserError(f"{self.out / HISTORY} ends at epoch {self.epoch}, the run asks for {epochs}: raise "
                            "epochs, choose another folder, or start over (delete it; the command line: --fresh)")
        if self.ranks.size > 1:  # other draws in every process and after every start
            reseed = torch.manual_seed if self._cuda_devices() else torch.default_generator.manual_seed
            reseed(hash((seed, self.step, self.ranks.rank)) % 2**63)

    def progress(self, epochs: int, updates_per_epoch: int, batch_size: int) -> tqdm:
        """A bar that counts samples, on the terminal of process 0."""
        return tqdm(total=epochs * updates_per_epoch * batch_size, initial=self.step * batch_size, unit=" samples",
                    unit_scale=True, smoothing=0.05, disable=True if self.ranks.rank else None)

    def _resume(self) -> None:
        if self.out is None:
            return
        if self.ranks.rank == 0 and not self.checkpoint.exists():
            (self.out / HISTORY).unlink(missing_ok=True)  # of a run killed before its first checkpoint
        self.ranks.wait()
        if not self.checkpoint.exists():
            return
        tensors, metadata = read_checkpoint(self.checkpoint)
        check_same_run(self.checkpoint, metadata, self.config, self.history.data, self.architecture)
        if metadata.get("plan", plan := str(self.history.plan)) != plan:
            warnings.warn(f"{self.checkpoint} is of the plan {metadata['plan']}, it goes on by {plan}: "
                          "rounding may differ from a run that was never stopped", TrainingWarning, stacklevel=4)
        put_weights(self.model, tensors, self.checkpoint)
        self.best = {name.removeprefix(BEST): x for name, x in tensors.items() if name.startswith(BEST)}
        parameters = list(self.model.parameters())
        put_optimizer_state(self.optimizer, tensors, parameters)
        if totals := {name.removeprefix("totals."): x for name, x in tensors.items() if name.startswith("totals.")}:
            self.names, self.totals = list(totals), torch.stack(list(totals.values())).to(parameters[0].device)
        torch.set_rng_state(tensors["random.cpu"])
        for device in self._cuda_devices() if "random.cuda" in tensors else []:
            torch.cuda.set_rng_state(tensors["random.cuda"], device)
        progress = json.loads(metadata["progress"])
        self.step, self.epoch, self.seconds = progress["step"], progress["epoch"], progress["seconds"]
        # a line of an epoch that the checkpoint does not have yet will be written again
        self.history.epochs = [row for row in read_history(self.out) if row["epoch"] <= self.epoch]
        if max((row["epoch"] for row in self.history.epochs), default=0) != self.epoch:  # patience would start anew
            raise UserError(f"{self.out / HISTORY} ends before its checkpoint, which is of epoch {self.epoch}: restore "
                            "the file, choose another folder, or delete this one to start over")
        if self.ranks.rank == 0:
            write_text(self.out / HISTORY, "".join(json.dumps(row) + "\n" for row in self.history.epochs))

    def recorded_plan(self) -> str | None:
        """The plan of the run that is to be continued."""
        if self.out is None or not self.checkpoint.exists():
            return None
        return read_checkpoint(self.checkpoint)[1].get("plan", "plain")

    def _cuda_devices(self) -> list[torch.device]:
        device = next(self.model.parameters()).device
        return [device] if device.type == "cuda" else []


def over_observed(means: dict[str, float], data: MultimodalData, index: Tensor) -> dict[str, float]:
    """Means over the samples of `index`; of a log-likelihood, 0 where a modality is absent, over those with it."""
    shares = {f"log_likelihood/{m}": float(x[index].double().mean()) for m, x in zip(data.names, data.observed)}
    return {name: value / (shares.get(name) or 1.0) for name, value in means.items()}


def read_history(folder: str | os.PathLike) -> list[dict]:
    """The epochs of history.jsonl; a last line cut off by a kill is left out. Raises `UserError` for any other line
    that is not an epoch.

    >>> history = fit(model, data, epochs=2, out=folder)
    >>> [epoch["step"] for epoch in mmvm.training.read_history(folder)]
    [1, 2]
    """
    path = Path(folder) / HISTORY
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path} is no file: delete it to start over")
    rows: list[dict] = []
    *lines, last = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate([*lines, last] if last else lines, 1):
        try:
            row = json.loads(line)
            if type(row["epoch"]) is not int or not math.isfinite(row.get("seconds", 0)) \
                    or rows and row["epoch"] <= rows[-1]["epoch"]:
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):  # no JSON, no UTF-8, no dictionary, no epoch
            if number > len(lines):
                break
            raise UserError(f"{path}, line {number} is no epoch of a run: the file was changed or its disk fails; copy "
                            "it again, or delete the folder to start over") from None
        rows.append(row)
    return rows
