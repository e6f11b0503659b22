"""How an update is computed fastest on this machine. The mathematics stays the same; rounding may differ.

A `Plan` is a few yes-or-no choices whose worth depends on the machine and on the networks. `measured_plan` tries them
one by one for a few seconds; the text of the plan it finds is printed, kept in the checkpoint, and repeats the choice.
"""

import ctypes
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmvm.data import Batch
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE
from mmvm.networks.grouped import can_group

__all__ = ["Plan", "measured_plan", "memory_kept"]

KINDS = {"conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
         "conv_transpose": (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), "linear": (nn.Linear,)}
WORDS = ("channels_last", "grouped", "keep_memory", "graph", "compile")
GAIN = 1.03      # a choice must be this much faster: less is within the spread of a short measurement
ROUNDS = 5       # turns per choice, fewer where
SECONDS = 60.0   # all choices together would take longer; one turn is always taken
_keepers = 0     # open `memory_kept` blocks; the last to close gives memory back


@dataclass(frozen=True)
class Plan:
    """The choices, none of which is taken by default.

    channels_last  pictures are stored with their channels innermost
    grouped        M networks of one shape run as one (`mmvm.networks.grouped`)
    keep_memory    freed memory stays with the process (glibc on Linux): activations over 32 MB are otherwise taken from
                   the system, and zeroed by it, anew in every update; `python -m mmvm train` keeps it anyway
    float32        kinds of layers that keep float32 where the run's precision is bfloat16
    threads        of the CPU; 0: as they are
    graph          on a GPU: the whole update is recorded once and then replayed
    compile        torch.compile the forward pass (the first update takes about a minute more)

    `parse` raises `UserError` for an unknown part.

    >>> str(mmvm.training.plan.Plan.parse("channels_last+threads:2"))
    'channels_last+threads:2'
    """

    channels_last: bool = False
    grouped: bool = False
    keep_memory: bool = False
    float32: tuple[str, ...] = ()
    threads: int = 0
    graph: bool = False
    compile: bool = False

    def __str__(self) -> str:
        words = [name for name in WORDS if getattr(self, name)]
        words += [f"float32:{kind}" for kind in self.float32] + ([f"threads:{self.threads}"] if self.threads else [])
        return "+".join(words) or "plain"

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """The plan that `str` wrote, as in "channels_last+float32:conv_transpose+threads:2"."""
        plan = cls()
        for word in [] if text == "plain" else text.split("+"):
            name, _, value = word.partition(":")
            if name in WORDS and not value:
                plan = replace(plan, **{name: True})  # type: ignore[arg-type]
            elif name == "float32" and value in KINDS:
                plan = replace(plan, float32=(*plan.float32, value))
            elif name == "threads" and re.fullmatch("0*[1-9][0-9]{0,5}", value):
                plan = replace(plan, threads=int(value))
            else:
                raise UserError(f"plan {text!r}: {word!r} is no part of a plan; write plain, auto, or some of "
                                "channels_last, grouped, keep_memory, graph, compile, threads:<n>, "
                                f"float32:<{' | '.join(KINDS)}>, joined by +")
        return plan

    @contextmanager
    def applied(self, model: MultimodalVAE) -> Iterator[None]:
        """While open, `model` computes by this plan. Weights keep their values, and their layout comes back."""
        if self.grouped and not (can_group(model.encoders) and can_group(model.decoders)):
            raise UserError("plan 'grouped' needs M encoders of one shape, and M decoders, made of layers that "
                            "mmvm.networks.grouped knows: leave it out")
        threads = torch.get_num_threads()
        kept = tuple(kind for name in self.float32 for kind in KINDS[name])
        layers = [layer for layer in {*model.encoders.modules(), *model.decoders.modules()} if isinstance(layer, kept)]
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        for layer in layers:
            layer.forward = _without_autocast(layer.forward)
        model.grouped = self.grouped
        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            with memory_kept() if self.keep_memory else nullcontext():
                yield
        finally:
            for layer in layers:
                del layer.forward  # the class's own is seen again
            model.grouped = False
            if self.channels_last:
                model.to(memory_format=torch.contiguous_format)
            if self.threads:
                torch.set_num_threads(threads)


def _without_autocast(forward: Callable) -> Callable:
    def in_float32(x: Tensor) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())
    return in_float32


@contextmanager
def memory_kept() -> Iterator[None]:
    """While open, memory that is freed stays with the process, as under the plan `keep_memory`, whatever plan is used
    inside.

    >>> with mmvm.training.plan.memory_kept():
    ...     history = mmvm.training.fit(model, data, epochs=1)
    """
    global _keepers
    _keepers += 1
    _allocator(keep=True)
    try:
        yield
    finally:
        _keepers -= 1
        if not _keepers:
            _allocator(keep=False)


def _allocator(keep: bool) -> None:
    """Tells glibc's allocator to map no block on its own and to give nothing back; or to do as it does by default."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # malloc.h
    libc.mallopt(m_mmap_max, 0 if keep else 65536)
    libc.mallopt(m_trim_threshold, 2**31 - 1 if keep else 128 * 1024)
    libc.mallopt(m_top_pad, 2**28 if keep else 128 * 1024)
    if not keep:
        libc.malloc_trim(0)


def measured_plan(model: MultimodalVAE, batch: Batch, precision: str = "float32", rounds: int = ROUNDS,
                  seconds: float = SECONDS, say: Callable[[str], None] = print) -> Plan:
    """The plan that computes loss and gradients of `batch` fastest, on the device where it and the model are.

    Each choice is tried on top of those taken before, in turn with the plan without it, and is taken where the fastest
    of `rounds` turns is at least 3 % faster. Weights and random state are left as they were.

    >>> plan = mmvm.training.plan.measured_plan(model, data.batch(torch.arange(8)), rounds=1, say=lambda line: None)
    >>> isinstance(plan, mmvm.training.plan.Plan)
    True
    """
    device = batch.observed.device
    best, choices = Plan(), _choices(model, precision, device)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]  # batch statistics move in training mode
    for change in choices:
        plan = replace(best, **change(best))
        times: dict[Plan, list[float]] = {best: [], plan: []}
        start = time.monotonic()
        for _ in range(rounds):
            for candidate in times:
                times[candidate].append(seconds_of(model, batch, candidate, precision, device))
            if time.monotonic() - start > seconds / len(choices):
                break
        before, after = min(times[best]), min(times[plan])  # what other processes add is no part of it
        taken = before > GAIN * after
        say(f"plan: {plan} {len(batch.x[0]) / after:.0f} samples/s, without the last {len(batch.x[0]) / before:.0f}: "
            f"{'taken' if taken else 'left'}")
        best = plan if taken else best
    for buffer, kept in buffers:
        buffer.copy_(kept)
    return best  # without `graph`: some methods' updates cannot be recorded


def _choices(model: MultimodalVAE, precision: str, device: torch.device) -> list[Callable[[Plan], dict]]:
    """What may be worth trying, in the order of what it usually brings: the change to a plan."""
    pictures = any(len(modality.shape) == 3 for modality in model.modalities)
    choices: list[Callable[[Plan], dict]] = [lambda plan: {"channels_last": True}] if pictures else []
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc" and not _keepers:
        choices.append(lambda plan: {"keep_memory": True})
    if precision == "bfloat16":
        choices += [lambda plan, kind=kind: {"float32": (*plan.float32, kind)} for kind, layers in KINDS.items()  # type: ignore[misc]
                    if any(isinstance(layer, layers) for layer in model.modules())]
    if len(model.encoders) > 1 and can_group(model.encoders) and can_group(model.decoders):
        choices.append(lambda plan: {"grouped": True})
    if device.type == "cpu" and torch.get_num_threads() > 1:
        choices.append(lambda plan: {"threads": torch.get_num_threads() // 2})
    return choices


def seconds_of(model: MultimodalVAE, batch: Batch, plan: Plan, precision: str, device: torch.device) -> float:
    """One loss with its gradients; the second, because the first warms up."""
    with plan.applied(model), torch.random.fork_rng([device] if device.type == "cuda" else []):
        for _ in range(2):
            wait(device)
            start = time.perf_counter()
            with autocast(precision, device):
                loss = model(batch.x, batch.observed, **batch.told).loss.mean()
            loss.backward()
            wait(device)
            took = time.perf_counter() - start
            model.zero_grad(set_to_none=True)
    return took


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context in which networks compute in `precision`, "float32" or "bfloat16"; weights and loss stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def wait(device: torch.device) -> None:
    """Until `device` has done what it was told: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
