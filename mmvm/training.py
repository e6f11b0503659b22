"""The training loop: Adam on the mean loss, with checkpoints a run can be killed between.

The order of the samples in epoch e is a function of (seed, e) alone, and a checkpoint holds weights, optimiser,
random state and sums of the running epoch, so a run that was killed and resumed ends with the same weights as one
that never was (bit for bit on a CPU with the same number of threads).
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from mmvm import distributed, paths, speed
from mmvm.datasets.base import Batch, MultimodalData
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE, Terms
from mmvm.objectives.base import Schedule, at, bounds_of

CHECKPOINT = "checkpoint.safetensors"
HISTORY = "history.jsonl"
FORMAT = "mmvm-checkpoint-1"
GUARD_INTERVAL = 50  # updates between two looks at the guard on a GPU: each look waits for the device


class TrainingDiverged(UserError):
    """A loss or gradient stopped being finite; says at which step, with which terms, and what to try."""


class TrainingWarning(UserWarning):
    """The run goes on, but what the objective reports says that it will not give what was asked for."""


class TrainingInterrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; the run stopped between two updates and wrote its checkpoint."""


@dataclass
class History:
    """One dictionary per finished epoch: epoch, step, seconds, samples_per_second, grad_norm, loss, regulariser, its
    parts, and log_likelihood/<modality>; means over the epoch's samples, nats. `seconds` is training time alone,
    added up over resumed pieces. `plan` is how the updates were computed."""

    epochs: list[dict] = field(default_factory=list)
    plan: speed.Plan = speed.Plan()

    def __getitem__(self, name: str) -> list[float]:
        return [row[name] for row in self.epochs if name in row]


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
    plan                how an update is computed, a text as of `mmvm.speed.Plan`: "plain", "auto" (measured on this
                        machine; a run that is continued keeps the plan of its checkpoint), "channels_last+keep_memory"
    max_grad_norm       clip the gradient's norm; None measures it only
    out                 folder for checkpoint.safetensors and history.jsonl; an unfinished run there is continued, a
                        finished one is extended when `epochs` is larger. None keeps nothing.
    config              what the checkpoint should know of the run; a run is only continued under an equal config
    checkpoint_seconds  the most a killed run can lose
    on_epoch            called as on_epoch(model, epoch) after every epoch, may return a dictionary for the history;
                        it cannot disturb the run's random numbers

    An epoch is a fresh permutation cut into batches; the remainder (fewer than `batch_size` samples, others in every
    epoch) is left out. Under `mmvm.distributed.started`, `batch_size` is that of all processes together. Raises
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
    data = _place(data, device)
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
    run = _Run(model, optimizer, config, None if out is None else Path(out), ranks)
    plan = run.history.plan = _plan(plan, run, data, batch_size, precision, device)

    with torch.random.fork_rng([device] if device.type == "cuda" else []), plan.applied(model):
        torch.manual_seed(seed)
        run.resume()
        if ranks.size > 1:  # other draws in every process and after every start
            torch.manual_seed(hash((seed, run.step, ranks.rank)) % 2**63)
        update = _Update(model, optimizer, data, precision, device, max_grad_norm, compile, plan.graph,
                         learning_rate)
        guard = _Guard(run, device)
        progress = tqdm(total=epochs * steps_per_epoch * batch_size, initial=run.step * batch_size, unit=" samples",
                        unit_scale=True, smoothing=0.05, disable=True if ranks.rank else None)
        model.train()
        with progress, _stop_between_updates() as stop:
            while run.epoch < epochs:
                order = torch.randperm(len(data), generator=_generator(seed, run.epoch))
                order = order[:steps_per_epoch * batch_size].to(data.device)
                left = order.split(batch_size)[run.step - run.epoch * steps_per_epoch:]
                for batch in _batches(data, [ranks.share(index) for index in left], device):
                    norm, terms = update.gradients(batch, run.step)
                    names, values = _means(norm, terms, data.names)
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


def _plan(plan: str, run: "_Run", data: MultimodalData, batch_size: int, precision: str,
          device: torch.device) -> speed.Plan:
    """The plan that was asked for; "auto" is that of the run to be continued, or else measured by process 0."""
    if plan != "auto":
        return speed.Plan.parse(plan)
    found = run.recorded_plan()
    if found is None and run.ranks.rank == 0:
        batch = _to(data.batch(torch.arange(batch_size // run.ranks.size, device=data.device)), device)
        found = str(speed.measured_plan(run.model, batch, precision, say=lambda line: print(line, file=sys.stderr)))
    found = speed.Plan.parse(run.ranks.told(found))
    return replace(found, graph=found.graph and run.ranks.size == 1)


def _batches(data: MultimodalData, indices: list[Tensor], device: torch.device) -> Iterator[Batch]:
    """The batches on `device`, each made ready while the one before is computed on: a disk reads ahead, and a GPU's
    next batch is gathered by a thread. On a CPU a thread would take more from the computation than it gives."""
    if device.type == "cuda" and data.device.type == "cpu":
        with ThreadPoolExecutor(1) as gatherer:
            ahead = [gatherer.submit(_pinned, data, index) for index in indices[:1]]
            for i in range(len(indices)):
                batch = ahead.pop().result()
                ahead += [gatherer.submit(_pinned, data, index) for index in indices[i + 1:i + 2]]
                yield _to(batch, device)
        return
    for i, index in enumerate(indices):
        if data.files and i + 1 < len(indices):
            data.announce(indices[i + 1])
        yield data.batch(index)


def _pinned(data: MultimodalData, index: Tensor) -> Batch:
    """A batch in memory that a GPU can read by itself."""
    batch = data.batch(index)
    return Batch([x.pin_memory() for x in batch.x], batch.observed.pin_memory())


class _Update:
    """One update: `gradients` of a batch, then `apply`. On a GPU the plan's `graph` records both once, with all their
    kernels, and replays them: the host then says one word an update instead of a thousand."""

    WARM_UP = 3  # updates before recording, in which the libraries choose their kernels

    def __init__(self, model: MultimodalVAE, optimizer: torch.optim.Optimizer, data: MultimodalData, precision: str,
                 device: torch.device, max_grad_norm: float | None, compile: bool, graph: bool,
                 learning_rate: float | Schedule):
        self.model, self.optimizer, self.precision, self.device = model, optimizer, precision, device
        self.max_grad_norm = max_grad_norm or float("inf")
        self.complete = bool(data.observed.all())
        forward = torch.compile(model) if compile else model
        if distributed.ranks().size > 1:
            forward = DistributedDataParallel(forward)
        self.forward = forward
        if graph and (device.type != "cuda" or distributed.ranks().size > 1):
            raise UserError("plan 'graph' records the CUDA kernels of one process: not on a CPU, not with several")
        self.graph, self.recorded, self.updates = graph, None, 0
        self.learning_rate = learning_rate

    def gradients(self, batch: Batch, step: int) -> tuple[Tensor, Terms]:
        """The gradients' norm and the batch's terms; a recorded update is applied by this too."""
        self.updates += 1
        if isinstance(self.learning_rate, Schedule):
            self._set_learning_rate(step)
        if not self.graph or self.updates <= self.WARM_UP or step < self.model.settled_at:
            return self._gradients(batch, step)
        if self.recorded is None:
            self._record(batch, step)
        for own, new in zip([*self.batch.x, self.batch.observed], [*batch.x, batch.observed]):
            own.copy_(new)
        self.recorded.replay()
        return self.norm, self.terms

    def apply(self) -> None:
        if self.recorded is None:
            self.optimizer.step()

    def _set_learning_rate(self, step: int) -> None:
        """The rate of update `step`. A recorded update reads it from a tensor, which is written over in place."""
        for group in self.optimizer.param_groups:
            if not self.graph:
                group["lr"] = self.learning_rate(step)
            elif torch.is_tensor(group["lr"]):
                group["lr"].fill_(self.learning_rate(step))
            else:
                group["lr"] = torch.tensor(self.learning_rate(step), device=self.device)

    def _gradients(self, batch: Batch, step: int) -> tuple[Tensor, Terms]:
        with speed.autocast(self.precision, self.device):
            # without a mask where nothing is missing: a pass over all pixels less
            terms = self.forward(batch.x, None if self.complete else batch.observed, step)
        self.optimizer.zero_grad(set_to_none=True)
        terms.loss.mean().backward()
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm), terms

    def _record(self, batch: Batch, step: int) -> None:
        self.batch = Batch([x.clone() for x in batch.x], batch.observed.clone())
        for group in self.optimizer.param_groups:
            group["capturable"] = True
        self.optimizer.zero_grad(set_to_none=True)  # the recording's own gradients are written over by each replay
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            self.norm, self.terms = self._gradients(self.batch, step)
            self.optimizer.step()
        self.recorded = recorded


def _means(norm: Tensor, terms: Terms, names: list[str]) -> tuple[list[str], Tensor]:
    """What an update is watched by: names, and their means over the batch as one float64 vector."""
    values = {"grad_norm": norm, "loss": terms.loss.mean(), "regulariser": terms.regulariser.mean(),
              **{f"log_likelihood/{name}": ll.mean() for name, ll in zip(names, terms.log_likelihood)},
              **{name: part.mean() for name, part in terms.parts.items()}}
    return list(values), torch.stack([value.detach() for value in values.values()]).double()


def _agree(ranks: distributed.Ranks, values: Tensor, stop: bool) -> bool:
    """Averages `values` over the processes, in place, and says whether one of them was told to stop: all stop after the
    same update."""
    if ranks.size == 1:
        return stop
    both = ranks.average(torch.cat([values, values.new_tensor([float(stop)])]))
    values.copy_(both[:-1])
    return bool(both[-1] > 0)


def resolve_device(device: str) -> torch.device:
    """"auto" -> a GPU if there is one; each of several processes its own. Raises `UserError` for a GPU that is not
    there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda"):
        raise UserError(f"unknown device {device!r}: use 'auto', 'cpu', 'cuda' or 'cuda:<number>'")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device!r} asked for, but torch sees no GPU: use device='cpu' or 'auto'")
    ranks = distributed.ranks()
    if ranks.size > 1 and resolved == torch.device("cuda"):
        resolved = torch.device("cuda", ranks.local)
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """"auto" -> "bfloat16" where `device` computes in it, else "float32"."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise UserError(f"unknown precision {precision!r}: use 'auto', 'float32' or 'bfloat16'")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    # emulated bfloat16 is slower than float32, so only native instructions count; torch has no public question for it
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _place(data: MultimodalData, device: torch.device) -> MultimodalData:
    """The whole set on the GPU when it takes less than half of what is free: then a batch is an index on the device."""
    if device.type != "cuda":
        return data
    n_bytes = sum(x.numel() * x.element_size() for x in data.modalities.values())
    return data.to(device) if n_bytes < 0.5 * torch.cuda.mem_get_info(device)[0] else data


def _to(batch: Batch, device: torch.device) -> Batch:
    if batch.x[0].device.type == device.type:
        return batch
    return Batch([x.to(device, non_blocking=True) for x in batch.x], batch.observed.to(device))


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


class _Guard:
    """Stops at the first non-finite gradient or loss. On a GPU the finding is kept on the device and looked at
    every `GUARD_INTERVAL` updates, so that the host does not wait for each one."""

    def __init__(self, run: "_Run", device: torch.device):
        self.run = run
        self.interval = 1 if device.type == "cpu" else GUARD_INTERVAL
        self.found = torch.full((), -1, dtype=torch.long, device=device)
        self.names, self.values = [], None

    def check(self, names: list[str], values: Tensor) -> None:
        """`_means` of an update that is about to be made; gradient norm and loss come first."""
        self.names = names
        first = (self.found < 0) & ~(values[:2].isfinite().all())
        self.values = values if self.values is None else torch.where(first, values, self.values)
        self.found = torch.where(first, self.run.step, self.found)
        if (self.run.step + 1) % self.interval == 0:
            self.look()

    def look(self) -> None:
        step = int(self.found)
        if step < 0:
            return
        values = dict(zip(self.names, self.values.tolist()))
        labels = {"grad_norm": "gradient norm", "loss": "loss", "regulariser": "regulariser",
                  **{name: f"log p({name.partition('/')[2]})" for name in self.names if "log_likelihood/" in name}}
        values = ", ".join(f"{label} {values[name]:.4g}" for name, label in labels.items())
        saved = self.run.out is not None and self.run.checkpoint.exists()
        kept = f" The last good state is in {self.run.checkpoint}." if saved else ""
        raise TrainingDiverged(f"training stopped at update {step}, which is no longer finite: {values}. Try a smaller "
                               f"learning_rate, max_grad_norm=100, or precision='float32'.{kept}")


class _Run:
    """Where a run stands, and how that is written and read back."""

    def __init__(self, model: MultimodalVAE, optimizer: torch.optim.Optimizer, config: dict, out: Path | None,
                 ranks: distributed.Ranks):
        self.model, self.optimizer, self.config, self.out, self.ranks = model, optimizer, config, out, ranks
        self.step = self.epoch = 0
        self.seconds = 0.0                      # of training, before the clock was last started
        self.names: list[str] = []              # of what is summed up
        self.totals: Tensor | None = None       # sums over the running epoch's updates
        self.history = History()
        self.warned: set[str] = set()
        self.commit = git_commit()              # at the start: the tree may change while the run goes on
        self.clock = self.saved = time.monotonic()

    @property
    def checkpoint(self) -> Path:
        return self.out / CHECKPOINT

    def count(self, names: list[str], values: Tensor) -> None:
        """One update made: adds what `_means` says of it to the epoch's sums, in float64."""
        self.step += 1
        if self.names != names and self.totals is not None:  # out of a checkpoint, which has its own order
            self.totals = self.totals[[self.names.index(name) for name in names]]
        self.names = names
        self.totals = values if self.totals is None else self.totals + values

    def end_epoch(self, n_samples: int, on_epoch, progress: tqdm) -> None:
        n_updates = self.step // (self.epoch + 1)  # all epochs have as many
        means = {name: total / n_updates for name, total in zip(self.names, self.totals.tolist())}
        self.tick()
        before = self.history.epochs[-1]["seconds"] if self.history.epochs else 0.0
        self.epoch += 1
        self.totals = None
        watched, advice = self.model.objective.report(means)
        for sentence in advice:
            if sentence not in self.warned:  # once a run, not once an epoch
                self.warned.add(sentence)
                warnings.warn(sentence, TrainingWarning, stacklevel=3)
        row = {"epoch": self.epoch, "step": self.step, "seconds": round(self.seconds, 3),
               "samples_per_second": round(n_samples / max(self.seconds - before, 1e-9), 1), **means, **watched}
        if on_epoch is not None and self.ranks.rank == 0:
            training = self.model.training
            with torch.random.fork_rng(self._cuda_devices()):
                row.update(on_epoch(self.model, self.epoch) or {})
            self.model.train(training)
            self.clock = time.monotonic()  # evaluation is not training time
        self.history.epochs.append(row)
        self.ranks.wait()
        progress.set_postfix(epoch=self.epoch, loss=f"{means['loss']:.1f}", refresh=False)
        if self.out is not None and self.ranks.rank == 0:
            with open(self.out / HISTORY, "a") as file:
                file.write(json.dumps(row) + "\n")
            self.save()

    def interrupted(self) -> TrainingInterrupted:
        return TrainingInterrupted(f"stopped after update {self.step}" + (
            f"; run the same again to continue from {self.checkpoint}" if self.out else ""))

    def tick(self) -> None:
        now = time.monotonic()
        self.seconds, self.clock = self.seconds + now - self.clock, now

    def seconds_since_save(self) -> float:
        return time.monotonic() - self.saved

    def save(self) -> None:
        """Writes everything into one file, beside it first and then in its place: a checkpoint is whole or absent."""
        if self.out is None or self.ranks.rank:
            self.saved = time.monotonic()
            return
        self.tick()
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer.{i}.{name}": value for name, value in state.items()})
        if self.totals is not None:
            tensors.update({f"totals.{name}": value for name, value in zip(self.names, self.totals)})
        tensors["random.cpu"] = torch.get_rng_state()
        for device in self._cuda_devices():
            tensors["random.cuda"] = torch.cuda.get_rng_state(device)
        write_safetensors(self.checkpoint, tensors, {
            "format": FORMAT, "config": json.dumps(self.config), "commit": self.commit,
            "versions": json.dumps(versions()), "plan": str(self.history.plan),
            "progress": json.dumps({"step": self.step, "epoch": self.epoch, "seconds": self.seconds})})
        self.saved = self.clock = time.monotonic()

    def resume(self) -> None:
        """Continues the run in `out`, if there is one."""
        if self.out is None:
            return
        if self.ranks.rank == 0:
            self.out.mkdir(parents=True, exist_ok=True)
            if not self.checkpoint.exists():
                (self.out / HISTORY).unlink(missing_ok=True)  # of a run killed before its first checkpoint
        self.ranks.wait()
        if not self.checkpoint.exists():
            return
        tensors, metadata = read_checkpoint(self.checkpoint)
        theirs = json.loads(metadata["config"])
        ours = json.loads(json.dumps(self.config))
        differing = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
        if differing:
            what = ", ".join(f"{name} (there {theirs.get(name)!r}, here {ours.get(name)!r})" for name in differing)
            raise UserError(f"{self.checkpoint} belongs to another run: {what}. Choose another folder, or delete it "
                            "to start over")
        load_weights(self.model, self.checkpoint)
        parameters = list(self.model.parameters())
        state: dict[int, dict[str, Tensor]] = {}
        totals: dict[str, Tensor] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                i, _, entry = rest.partition(".")
                if value.shape == parameters[int(i)].shape:  # in its layout: the fused Adam walks through both alike
                    value = torch.empty_like(parameters[int(i)], dtype=value.dtype).copy_(value)
                state.setdefault(int(i), {})[entry] = value
            elif kind == "totals":
                totals[rest] = value
        if totals:
            self.names, self.totals = list(totals), torch.stack(list(totals.values())).to(parameters[0].device)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        torch.set_rng_state(tensors["random.cpu"])
        for device in self._cuda_devices():
            if "random.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random.cuda"], device)
        progress = json.loads(metadata["progress"])
        self.step, self.epoch, self.seconds = progress["step"], progress["epoch"], progress["seconds"]
        # a line of an epoch that the checkpoint does not have yet will be written again
        self.history.epochs = [row for row in read_history(self.out) if row["epoch"] <= self.epoch]
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


def read_history(folder: str | os.PathLike) -> list[dict]:
    """The epochs of history.jsonl; a last line cut off by a kill is left out."""
    path = Path(folder) / HISTORY
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a checkpoint. Raises `UserError` for a missing, cut or foreign file."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}: train first, or correct the path")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it to start over, or copy it again") from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is no checkpoint of this program (its format is {metadata.get('format')!r}, expected "
                        f"{FORMAT!r}): name a checkpoint.safetensors that `python -m mmvm train` wrote")
    return tensors, metadata


def load_weights(model: MultimodalVAE, path: str | os.PathLike) -> dict:
    """Puts the weights of a checkpoint into a model of the same shape; returns the checkpoint's config."""
    tensors, metadata = read_checkpoint(path)
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path} holds another model: {str(error).splitlines()[-1].strip()} Build the model from the "
                        "checkpoint's own parameters") from None
    return json.loads(metadata["config"])


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    try:
        _replace(path, lambda temporary: save_file(tensors, temporary, metadata))
    except SafetensorError as error:
        raise UserError(f"{path} cannot be written ({error}): make room on the disk, or choose another "
                        "folder") from None


def write_text(path: Path, text: str) -> None:
    _replace(path, lambda temporary: temporary.write_text(text))


def _replace(path: Path, write) -> None:
    """Writes to a file beside `path`, syncs it and moves it in place, so that no reader ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """The versions a result depends on."""
    found = {}
    for package in ("mmvm", "torch", "numpy", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str:
    """Short commit of the project, "+" appended when `mmvm` has uncommitted changes, "" outside a checkout."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(paths.REPOSITORY), *words], capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "--", "mmvm") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
