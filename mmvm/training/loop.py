"""The training loop: Adam on the mean loss, with checkpoints a run can be killed between.

The order of the samples in epoch e is a function of (seed, e) alone, and a checkpoint holds weights, optimiser,
random state and sums of the running epoch, so a run that was killed and resumed ends with the same weights as one
that never was (bit for bit on a CPU with the same number of threads).
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from mmvm.data import Batch, MultimodalData
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE
from mmvm.schedule import Schedule, at, bounds_of
from mmvm.training import distributed, plan as speed
from mmvm.training.device import resolve_device, resolve_precision
from mmvm.training.run import History, Run
from mmvm.training.update import Guard, Update, watched


def fit(model: MultimodalVAE, data: MultimodalData, *, epochs: int, batch_size: int = 256,
        learning_rate: float | Schedule = 5e-4, seed: int = 0, device: str = "auto", precision: str = "auto",
        compile: bool = False, plan: str = "plain", max_grad_norm: float | None = None,
        out: str | os.PathLike | None = None, config: dict | None = None, checkpoint_seconds: float = 60.0,
        on_epoch=None) -> History:
    """Trains `model` in place on `data` and returns its `History`. The model ends on `device`, in eval mode.

    learning_rate       of Adam; a `Schedule` over the updates is part of what a continued run must agree on
    device              "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1"
    precision           "float32", "bfloat16" (autocast; weights and loss stay float32), or "auto": bfloat16 where the
                        hardware has it
    compile             torch.compile the forward pass (the first step takes about a minute more)
    plan                how an update is computed, a text as of `plan.Plan`: "plain", "auto" (measured here; a run that
                        is continued keeps the plan of its checkpoint), "channels_last+keep_memory"
    max_grad_norm       clip the gradient's norm; None measures it only
    out                 folder for checkpoint.safetensors and history.jsonl; an unfinished run there is continued, a
                        finished one is extended when `epochs` is larger. None keeps nothing.
    config              what the checkpoint should know of the run; a run is only continued under an equal config
    checkpoint_seconds  the most a killed run can lose
    on_epoch            called as on_epoch(model, epoch) after every epoch, may return a dictionary for the history;
                        it cannot disturb the run's random numbers

    An epoch is a fresh permutation cut into batches; the remainder (fewer than `batch_size` samples, others in every
    epoch) is left out. Under `distributed.started`, `batch_size` is that of all processes together. Raises
    `TrainingDiverged` at the first non-finite gradient, `UserError` where the folder holds another run,
    `TrainingInterrupted` after Ctrl-C or SIGTERM.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("learning_rate", bounds_of(learning_rate)[0])):
        if not value > 0:
            raise UserError(f"{name} must be positive, got {value}")
    ranks = distributed.ranks()
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    model.to(device)
    data = placed(data, device)
    batch_size = min(batch_size, len(data))
    if batch_size % ranks.size:
        raise UserError(f"a batch of {batch_size} samples cannot be shared by {ranks.size} processes: choose a "
                        "batch_size that is a multiple of their number")
    steps_per_epoch = len(data) // batch_size
    optimizer = torch.optim.Adam(model.parameters(), lr=at(learning_rate, 0), fused=True)
    config = {**(config or {}), "n_train": len(data), "batch_size": batch_size, "learning_rate": at(learning_rate, 0),
              "seed": seed, "precision": precision, "max_grad_norm": max_grad_norm}
    if isinstance(learning_rate, Schedule):
        config["learning_rate_schedule"] = asdict(learning_rate)
    run = Run(model, optimizer, config, None if out is None else Path(out), ranks)
    plan = run.history.plan = _plan(plan, run, data, batch_size, precision, device)

    with torch.random.fork_rng([device] if device.type == "cuda" else []), plan.applied(model):
        torch.manual_seed(seed)
        run.resume()
        if ranks.size > 1:  # other draws in every process and after every start
            torch.manual_seed(hash((seed, run.step, ranks.rank)) % 2**63)
        update = Update(model, optimizer, data, precision, device, max_grad_norm, compile, plan.graph,
                         learning_rate)
        guard = Guard(run, device)
        progress = tqdm(total=epochs * steps_per_epoch * batch_size, initial=run.step * batch_size, unit=" samples",
                        unit_scale=True, smoothing=0.05, disable=True if ranks.rank else None)
        model.train()
        with progress, _stop_between_updates() as stop:
            while run.epoch < epochs:
                order = torch.randperm(len(data), generator=_generator(seed, run.epoch))
                order = order[:steps_per_epoch * batch_size].to(data.device)
                left = order.split(batch_size)[run.step - run.epoch * steps_per_epoch:]
                for batch in batches_on(data, [ranks.share(index) for index in left], device):
                    norm, terms = update.gradients(batch, run.step)
                    names, values = watched(norm, terms, data.names)
                    stopped = _agree(ranks, values, stop.is_set())
                    guard.check(names, values)
                    update.apply()
                    run.count(names, values)
                    progress.update(batch_size)
                    if stopped or run.seconds_since_save() > checkpoint_seconds:
                        guard.look()  # a checkpoint is the last good state
                        run.save()
                        if stopped:
                            raise run.interrupted()
                guard.look()
                run.end_epoch(steps_per_epoch * batch_size, on_epoch, progress)
            if stop.is_set():  # during the last `on_epoch`
                raise run.interrupted()
    model.eval()
    return run.history


def _plan(plan: str, run: "Run", data: MultimodalData, batch_size: int, precision: str,
          device: torch.device) -> speed.Plan:
    """The plan that was asked for; "auto" is that of the run to be continued, or else measured by process 0."""
    if plan != "auto":
        return speed.Plan.parse(plan)
    found = run.recorded_plan()
    if found is None and run.ranks.rank == 0:
        batch = to_device(data.batch(torch.arange(batch_size // run.ranks.size, device=data.device)), device)
        found = str(speed.measured_plan(run.model, batch, precision, say=lambda line: print(line, file=sys.stderr)))
    found = speed.Plan.parse(run.ranks.told(found))
    return replace(found, graph=found.graph and run.ranks.size == 1)


def batches_on(data: MultimodalData, indices: list[Tensor], device: torch.device) -> Iterator[Batch]:
    """The batches on `device`, each made ready while the one before is computed on: a disk reads ahead, and a GPU's
    next batch is gathered by a thread. On a CPU a thread would take more from the computation than it gives."""
    if device.type == "cuda" and data.device.type == "cpu":
        with ThreadPoolExecutor(1) as gatherer:
            ahead = [gatherer.submit(_pinned, data, index) for index in indices[:1]]
            for i in range(len(indices)):
                batch = ahead.pop().result()
                ahead += [gatherer.submit(_pinned, data, index) for index in indices[i + 1:i + 2]]
                yield to_device(batch, device)
        return
    for i, index in enumerate(indices):
        if data.files and i + 1 < len(indices):
            data.announce(indices[i + 1])
        yield data.batch(index)


def _pinned(data: MultimodalData, index: Tensor) -> Batch:
    """A batch in memory that a GPU can read by itself."""
    batch = data.batch(index)
    return Batch([x.pin_memory() for x in batch.x], batch.observed.pin_memory())


def _agree(ranks: distributed.Ranks, values: Tensor, stop: bool) -> bool:
    """Averages `values` over the processes, in place, and says whether one of them was told to stop: all stop after the
    same update."""
    if ranks.size == 1:
        return stop
    both = ranks.average(torch.cat([values, values.new_tensor([float(stop)])]))
    values.copy_(both[:-1])
    return bool(both[-1] > 0)


def placed(data: MultimodalData, device: torch.device) -> MultimodalData:
    """The whole set on the GPU when it takes less than half of what is free: then a batch is an index on the device."""
    if device.type != "cuda":
        return data
    n_bytes = sum(x.numel() * x.element_size() for x in data.modalities.values())
    return data.to(device) if n_bytes < 0.5 * torch.cuda.mem_get_info(device)[0] else data


def to_device(batch: Batch, device: torch.device) -> Batch:
    if batch.x[0].device.type == device.type:
        return batch
    return Batch([x.to(device, non_blocking=True) for x in batch.x], batch.observed.to(device))


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


@contextmanager
def _stop_between_updates():
    """While open, Ctrl-C and SIGTERM set the yielded event instead of tearing an update apart. A second Ctrl-C acts
    at once. Only the main thread may handle signals; elsewhere they keep their usual meaning."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
