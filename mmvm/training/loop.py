"""The training loop: Adam on the mean loss. Data, order, batch, update, watch, save; `fit` is that and nothing else.

The order of the samples in epoch e is a function of (seed, e) alone, and a checkpoint holds weights, optimiser,
random state and sums of the running epoch, so a run that was killed and resumed ends with the same weights as one
that never was (bit for bit on a CPU: of one process, under one plan, with the same number of threads).
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from threading import Event
from typing import Any

import torch
from tqdm import tqdm

from mmvm.checks import check_values
from mmvm.data import MultimodalData, check_units
from mmvm.errors import UserError
from mmvm.identity import fingerprint
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import seeded
from mmvm.schedule import Schedule, at, bounds_of, check_number, plain
from mmvm.training import distributed
from mmvm.training.batches import Batches
from mmvm.training.checkpoint import check_config
from mmvm.training.device import resolve_device, resolve_precision
from mmvm.training.explain import check_sized, explained
from mmvm.training.interrupt import stop_between_updates
from mmvm.training.lock import held
from mmvm.training.plan import Plan, measured_plan
from mmvm.training.run import History, Run
from mmvm.training.update import Guard, Update
from mmvm.training.validation import Validation
from mmvm.training.watch import Watch


def fit(model: MultimodalVAE, data: MultimodalData, *, epochs: int, batch_size: int = 256,
        learning_rate: float | Schedule = 5e-4, seed: int = 0, device: str = "auto", precision: str = "auto",
        compile: bool = False, plan: str = "plain", max_grad_norm: float | None = None,
        out: str | os.PathLike | None = None, config: dict | None = None, checkpoint_seconds: float = 60.0,
        on_epoch: Callable[[MultimodalVAE, int], dict | None] | None = None, check: str = "on",
        validation: MultimodalData | None = None, validate_every: int = 1, patience: int | None = None,
        watch: str = "loss") -> History:
    """Trains `model` in place on `data` and returns its `History`. The model ends on `device`, in eval mode.

    batch_size     of all processes together, under `distributed.started`; see `Batches`
    device         "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1"
    precision      "float32", "bfloat16" (autocast; weights and loss stay float32), "auto": as the hardware has it
    compile        torch.compile the forward pass (the first step takes about a minute more)
    plan           how an update is computed, a text as of `Plan`: "plain", "auto" (measured here), "channels_last+..."
    max_grad_norm  clip the gradient's norm; None measures it only
    out            folder for checkpoint and history, at least every `checkpoint_seconds`; an unfinished run there is
                   continued, a finished one extended when `epochs` is larger, under equal data, model and settings
    config         what the checkpoint should know of the run; it is only continued under an equal one
    on_epoch       called as on_epoch(model, epoch), may return a dictionary for the history; disturbs no random numbers
    check          "on": values are looked at before the first update (`checks.check_values`); "off": they are not
    validation     rows that are not trained on (see `split`): after every `validate_every`-th epoch their loss and its
                   terms go into the history; the training is bit for bit that without them
    patience       the run ends after so many looks at them without a better `watch`, a column of the history like
                   "log_likelihood/a", and the model gets the weights of the best epoch, which is `History.best`.
                   None: all epochs are trained, and the last weights stay

    Raises `UserError` where values are wrong or the folder is in use or another run's, `TrainingDiverged`,
    `TrainingInterrupted` after Ctrl-C or SIGTERM.

    >>> history = fit(model, data, epochs=2, batch_size=30, learning_rate=1e-3, seed=0)
    >>> history.epochs[-1]["step"]
    4
    """
    _check_given(model, data, validation, learning_rate, max_grad_norm, seed, config, epochs=epochs,
                 batch_size=batch_size, validate_every=validate_every, patience=1 if patience is None else patience)
    ranks, place = distributed.ranks(), resolve_device(device)
    precision = resolve_precision(precision, place)
    batches = Batches(data, batch_size, seed, place, ranks)
    optimizer = torch.optim.Adam(model.to(place).parameters(), lr=at(learning_rate, 0), fused=True)
    _check(check, data, model)
    run = Run(model, optimizer, {**(config or {}), **_settings(batches, learning_rate, precision, max_grad_norm)}, out,
              fingerprint(data))
    _add_validation(run, data, validation, batches.size, precision, validate_every, patience, watch, check)
    chosen = run.history.plan = _chosen_plan(plan, run, batches, precision)

    with seeded(int(seed), place), chosen.applied(model), explained(model, data), held(None if ranks.rank else run.out):
        run.start(batches.seed, epochs)
        update = Update(model, optimizer, data, precision, place, max_grad_norm, compile or chosen.compile,
                        chosen.graph, learning_rate)
        guard, watcher = Guard(run, place, data), Watch(model, batches)
        model.train()
        with run.progress(epochs, batches.per_epoch, batches.size) as bar, stop_between_updates() as stop:
            while run.epoch < epochs and not run.over():
                _epoch(run, batches, update, guard, watcher, bar, stop, checkpoint_seconds)
                run.end_epoch(batches.per_epoch * batches.size, on_epoch, bar, watcher)
            if stop.is_set():  # during the last `on_epoch`
                raise run.interrupted()
    run.take_best(epochs)
    model.eval()
    return run.history


def _epoch(run: Run, batches: Batches, update: Update, guard: Guard, watch: Watch, bar: tqdm, stop: Event,
           checkpoint_seconds: float) -> None:
    """The updates of the running epoch that are still to be made."""
    for batch in batches.of_epoch(run.epoch, done=run.step - run.epoch * batches.per_epoch):
        names, means = update.gradients(batch, run.step)
        stopped = run.ranks.agree(means, stop.is_set())
        guard.check(names, means)
        watch.begin(names, means)
        update.apply()
        run.count(names, means)
        bar.update(batches.size)
        if stopped or time.monotonic() - run.saved > checkpoint_seconds:
            guard.look()  # a checkpoint is the last good state
            run.save()
            if stopped:
                raise run.interrupted()
    guard.look()


def _add_validation(run: Run, data: MultimodalData, validation: MultimodalData | None, batch_size: int, precision: str,
                    every: int, patience: int | None, watch: str, check: str) -> None:
    if validation is None:
        if patience is not None or every != 1 or watch != "loss":
            raise UserError("patience, validate_every and watch are about validation rows: give some, as in "
                            "train, rows = split(data); fit(model, train, validation=rows, ...)")
        return
    run.history.watch = watch
    run.validation = rows = Validation(run, validation, batch_size, precision, every, patience)
    with explained(run.model, data):
        rows.check(data, values=check == "on")
    run.config |= rows.settings()


def _check_given(model: Any, data: Any, validation: Any, learning_rate: Any, max_grad_norm: Any, seed: Any, config: Any,
                 **counts: Any) -> None:
    if not isinstance(data, MultimodalData):
        raise UserError(f"data are a {type(data).__name__}: give MultimodalData(arrays, specs)")
    if not len(data):
        raise UserError("data have no sample: give some to train on")
    if validation is not None and not isinstance(validation, MultimodalData):
        raise UserError(f"validation takes rows, not {validation!r:.40}: train, rows = split(data, validation=0.1); "
                        "fit(model, train, validation=rows, ...)")
    for name, value in counts.items():
        check_number(name, value, whole=True)
    check_number("seed", seed, positive=False, whole=True)
    check_number("learning_rate", bounds_of(learning_rate)[0])
    check_number("max_grad_norm", max_grad_norm or 0, positive=False)
    check_config(config)
    check_sized(model)


def _check(check: str, data: MultimodalData, model: MultimodalVAE) -> None:
    if check not in ("on", "off"):
        raise UserError(f"check must be 'on' or 'off', got {check!r}")
    check_units(model, data)  # whatever the values are, these would be other units
    if check == "on":
        check_values(data, model)


def _settings(batches: Batches, learning_rate: float | Schedule, precision: str, max_grad_norm: float | None) -> dict:
    """What a continued run must agree on, besides the caller's `config`."""
    settings = {"n_train": len(batches.data), "batch_size": batches.size, "learning_rate": plain(at(learning_rate, 0)),
                "seed": batches.seed, "precision": precision, "max_grad_norm": plain(max_grad_norm)}
    if isinstance(learning_rate, Schedule):
        settings["learning_rate_schedule"] = {key: plain(x) for key, x in asdict(learning_rate).items()}
    return settings


def _chosen_plan(text: str, run: Run, batches: Batches, precision: str) -> Plan:
    """The plan that was asked for; "auto" is that of the run to be continued, or else measured by process 0."""
    if text != "auto":
        return Plan.parse(text)
    found = run.recorded_plan()
    if found is None and run.ranks.rank == 0:
        with explained(run.model, batches.data):
            found = str(measured_plan(run.model, batches.any(), precision, say=lambda it: print(it, file=sys.stderr)))
    chosen = Plan.parse(run.ranks.told(found))
    return replace(chosen, graph=chosen.graph and run.ranks.size == 1)
