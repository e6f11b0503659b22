"""What all studies share: the method and how it is trained, from parameters to trained model and result rows.

A data set's own file subclasses `Study` with its data, networks and metrics. The steps a chapter shows, composed.
"""

import math
import sys
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmvm import checks, evaluation, paths, training
from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import seeded
from mmvm.objectives import Objective, spec
from mmvm.options import Option
from mmvm.schedule import Schedule
from mmvm.study import results
from mmvm.study.parameters import Parameters, parameter
from mmvm.training import distributed, memory, plan as speed

OPTIMIZERS = {"adam": (
    Option("decay", "none", "of the learning rate: none, or cosine, to 0 at the run's end", choices=("none", "cosine"),
           paper="none"),
    Option("beta_updates", 0, "updates in which beta rises from 0; 0: constant", at_least=0, paper="0"),
    Option("max_grad_norm", 0.0, "clip the gradient's norm; 0: never", at_least=0, paper="0"),
    Option("patience", 0, "epochs without a better validation after which the run ends with its best weights; 0: never",
           at_least=0, paper="0"),
    Option("watch", "loss", "what has to be better: loss, or another column of the history, like regulariser"))}


@dataclass(frozen=True)
class Study(Parameters):
    """The method's parameters and the loop's. A data set's class redeclares a field whose default or paper's value is
    its own, adds fields, and supplies `n_modalities` and the steps that raise NotImplementedError here.

    Raises `UserError` for a value out of range, and for options that the method refuses.

    >>> Toy(objective="mmvm:gate=soft").build_model(data).objective.gate.mode
    'soft'
    """

    not_hashed: typing.ClassVar[tuple[str, ...]] = (*Parameters.not_hashed, "compare", "curve_every", "plan")
    # module with the functions of `python -m mmvm data`, as far as the data has them: check, simulate, prepare
    files: typing.ClassVar[ModuleType | None] = None
    # earlier names of parameters that are options now, as in `mmvm.study.older`
    older: typing.ClassVar[Mapping[str, tuple[str, str]]] = {}
    # what a checkpoint may differ in and still be continued: nothing the weights depend on
    free: typing.ClassVar[tuple[str, ...]] = ("epochs",)
    if typing.TYPE_CHECKING:  # a dataclass would take it for its first field
        n_modalities: Any  # M, or a property that knows it
    curve_every = 0  # a parameter where there is a `curve`

    profile: str = parameter("smoke", "label of the result rows")
    objective: str = parameter("mmvm", "method and its options; python -m mmvm methods lists them",
                               kinds=spec.options_of)
    beta: float = parameter(1.0, "weight of the regulariser", at_least=0)
    compare: bool = parameter(True, "chapter only: also train independent (mmvm, if that was asked for)")
    latent_dim: int = parameter(32, "D, per modality", at_least=1)
    batch_size: int = parameter(32, "samples per update", at_least=1)
    learning_rate: float = parameter(2e-3, "Adam", positive=True)
    optimizer: str = parameter("adam", "adam; options decay, beta_updates, max_grad_norm, patience, watch",
                               kinds=lambda: OPTIMIZERS)
    epochs: int = parameter(4, "passes over the training samples", at_least=1)
    n_validation: int = parameter(0, "training rows kept out, by which is stopped and chosen; 0: none",
                                  at_least=0, added=True)
    seed: int = parameter(0, "seed of weights, order and draws", last=True)
    data_seed: int = parameter(0, "seed of what the data set draws", last=True)
    device: str = parameter("auto", "auto (a GPU if there is one) | cpu | cuda", last=True)
    precision: str = parameter("float32", "float32 | bfloat16 | auto (bfloat16 where the hardware has it)",
                               ("float32", "bfloat16", "auto"), last=True)
    plan: str = parameter("plain", "how updates are computed: plain | auto | as in compile+channels_last",
                          last=True)
    root: str = parameter("", "folder of the data; empty: what ships with the project", last=True)
    out: str = parameter("", "folder of checkpoint and rows, from the root; empty: nothing is kept",
                         last=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.choice("optimizer")[1]["patience"] and not self.n_validation:
            raise UserError("patience waits for validation rows to get better: give their number, n_validation")
        if self.plan != "auto":
            speed.Plan.parse(self.plan)
        if without_memory(self.build_objective) is None:
            self.build_objective()  # what the classes refuse is refused now, not after the data is made

    def with_method(self, objective: str, **changes: Any) -> "typing.Self":
        """The same settings for another method, and with `changes`."""
        return replace(self, objective=objective, **changes)

    @classmethod
    def about(cls) -> str:
        """What the study is about, in a line: the first of its module's docstring."""
        return (sys.modules[cls.__module__].__doc__ or cls.__doc__ or "").strip().splitlines()[0]

    # the steps, in the order in which a run takes them ---------------------------------------------------------------

    def data(self, split: str) -> MultimodalData:
        """The training or the test set, "train" or "test", or the "validation" rows, which `part` makes."""
        raise NotImplementedError

    def part(self, train: MultimodalData, split: str, by: Any = None) -> MultimodalData:
        """Of the training set those rows that are "train", or the `n_validation` that are "validation"; rows of one
        group stay together, `by` as in `mmvm.split`."""
        if not self.n_validation:
            if split == "validation":
                raise UserError("there are no validation rows: set n_validation")
            return train
        return training.split(train, by, self.n_validation, self.data_seed)[split == "validation"]

    def few(self) -> "typing.Self":
        """The same with as little data as shows the shapes of a sample."""
        return self

    def build_objective(self) -> Objective:
        return spec.build(self.objective, self.latent_dim, self.n_modalities)

    def build_networks(self, data: MultimodalData) -> tuple[Sequence[nn.Module], Sequence[nn.Module]]:
        """Untrained encoders and decoders, one of each per modality of `data`."""
        raise NotImplementedError

    def build_model(self, data: MultimodalData) -> MultimodalVAE:
        """The untrained model; `seed` fixes its weights and leaves the caller's random state alone. Raises `UserError`
        before anything is allocated where its training cannot fit into memory."""
        def described() -> nn.Module:
            encoders, decoders = map(nn.ModuleList, self.build_networks(data))
            return nn.ModuleDict({"encoders": encoders, "decoders": decoders, "objective": self.build_objective()})
        memory.require(without_memory(described), training.resolve_device(self.device))
        with seeded(self.seed):
            encoders, decoders = self.build_networks(data)
            rising = self.choice("optimizer")[1]["beta_updates"]
            beta = Schedule(0.0, self.beta, rising, "linear") if rising else self.beta
            return MultimodalVAE(data.specs, encoders, decoders, self.build_objective(), beta)

    def fit(self, model: MultimodalVAE, train: MultimodalData, on_epoch: Callable | None = None,
            validation: MultimodalData | None = None) -> training.History:
        """Trains in place; `validation` by default `data("validation")`, where some is asked for."""
        rate: float | Schedule = self.learning_rate
        settings = self.choice("optimizer")[1]
        rows: dict[str, Any] = {}
        if self.n_validation:
            rows = {"validation": self.data("validation") if validation is None else validation,
                    "patience": settings["patience"] or None, "watch": settings["watch"]}
        if settings["decay"] == "cosine":
            updates = self.epochs * (len(train) // min(self.batch_size, len(train)))
            rate = Schedule(self.learning_rate, 0.0, updates, "cosine")
        history = training.fit(model, train, epochs=self.epochs, batch_size=self.batch_size, seed=self.seed,
                               learning_rate=rate, device=self.device, precision=self.precision,
                               plan=self.plan, max_grad_norm=settings["max_grad_norm"] or None,
                               out=self.folder(), config=self.config(), on_epoch=on_epoch, **rows)
        trained = history.epochs[-1]["epoch"] if history.epochs else 0
        # rows of such a model would claim what no run did
        if trained > self.epochs or trained < self.epochs and not settings["patience"]:
            raise UserError(f"{paths.placed(self.out) / training.HISTORY} ends at epoch {trained}, the run asks for "
                            f"{self.epochs}: raise epochs, choose another folder, or start over (--fresh)")
        return history

    def curve(self, train: MultimodalData, test: MultimodalData) -> Callable[[MultimodalVAE, int], dict]:
        """A function (model, epoch) -> {"curve/<metric>/<target>": number}, empty but every `curve_every` epochs."""
        raise UserError(f"{self.name} has no learning curve: leave curve_every at 0")

    def classifiers(self, train: MultimodalData, test: MultimodalData) -> tuple[list[nn.Module], np.ndarray]:
        """One classifier per modality, trained on real samples, and how good each is on the test samples (M,)."""
        raise NotImplementedError

    def evaluate(self, model: MultimodalVAE, train: MultimodalData, test: MultimodalData,
                 classifiers: list[nn.Module]) -> "Metrics":
        raise NotImplementedError

    # where and under which name --------------------------------------------------------------------------------------

    def folder(self) -> Path | None:
        return paths.placed(self.out) if self.out else None

    def method(self) -> str:
        """Name in the rows: the objective with its options, as in "mmvm:gate=soft,load_balance=1"."""
        return self.objective

    def config(self) -> dict:
        """What a checkpoint must agree on to be continued. More epochs may be asked for; where things lie and what is
        measured along the way may change."""
        values = {name: value for name, value in self.identity().items()
                  if name not in (*self.not_hashed, *self.free)}
        return {"experiment": self.name, **values}

    def rows(self, metrics: "Metrics", history: training.History, device: torch.device,
             train: MultimodalData) -> list[dict]:
        """Tidy rows of `evaluate`'s numbers, single entries and averages, of the gate and of the learning curve. What
        is NaN gets no row: nothing was there to measure, as of a label that no test sample has."""
        names = train.names
        common = {"experiment": self.name, "method": self.method(), "beta": self.beta, "seed": self.seed,
                  "profile": self.profile, "n_train": len(train), "epochs": history.epochs[-1]["epoch"],
                  "updates": history.epochs[-1]["step"], "seconds": round(history.epochs[-1]["seconds"], 1),
                  "run": self.run_hash(), "data": history.data[:10], **results.provenance(device)}
        rows = []
        for metric, values in metrics.items():
            note = metrics.notes.get(metric, "")
            rows += [{"metric": metric, "source": s, "target": t, "value": float(v), "note": note}
                     for s, t, v in _entries(metric, values, names) if not math.isnan(v)]
        best = history.best if self.choice("optimizer")[1]["patience"] else None
        kept = [row for row in history.epochs if row["epoch"] == best] or history.epochs
        for name, value in kept[-1].items():
            if name.startswith("gate_"):  # over the epoch whose weights are measured
                metric, _, m = name.partition("/")
                rows.append({"metric": metric, "source": "", "target": names[int(m)] if m else "mean", "value": value,
                             "note": ""})
        if best:
            rows.append({"metric": "best_epoch", "source": "", "target": "mean", "value": best, "note": ""})
        for row in history.epochs:
            for name, value in row.items():
                if name.startswith("curve/"):
                    _, metric, target = name.split("/")
                    rows.append({"metric": f"{metric}_curve", "source": str(row["step"]), "target": target,
                                 "value": value, "note": ""})
        return [{**common, **row} for row in rows]

    def validation_rows(self, model: MultimodalVAE, train: MultimodalData, classifiers: list[nn.Module],
                        history: training.History, validation: MultimodalData | None = None) -> list[dict]:
        """The averages among `rows`, measured on the validation rows and named validation_<metric>: what a beta is
        chosen by. None where there are no such rows."""
        if not self.n_validation:
            return []
        validation = self.data("validation") if validation is None else validation
        metrics = self.evaluate(model, train, validation, classifiers)
        rows = self.rows(metrics, history, next(model.parameters()).device, train)
        return [{**row, "metric": training.PREFIX + row["metric"]} for row in rows
                if row["metric"] in metrics and row["source"] == "" and row["target"] in results.AVERAGES]


def without_memory(build: Callable[[], nn.Module]) -> nn.Module | None:
    """What `build` builds, as names and shapes alone; None where that cannot be had without its numbers."""
    try:
        with (torch.random.fork_rng([]), torch.device("meta"), _Unfilled(),
              warnings.catch_warnings(action="ignore")):
            return build()
    except UserError:
        raise
    except Exception as error:  # whatever a study's networks do with numbers
        if "overflow" in str(error).lower():
            raise UserError("a network of this size has more weights than can be counted: choose a smaller latent_dim "
                            "or network") from None
        return None


class _Unfilled(TorchFunctionMode):
    """Tensors without memory are not filled with draws: to do so PyTorch imports its compiler, for seconds."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", "") == "torch.nn.init" or function in (Tensor.normal_, Tensor.uniform_):
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return function(*args, **kwargs)


def _entries(metric: str, values: Any, names: Sequence[str]) -> list[tuple[str, str, float]]:
    """(source, target, value) of a metric's entries and averages."""
    if isinstance(values, list):
        return values
    if values.ndim == 0:
        return [("", "mean", values)]
    if values.ndim == 1:
        average = ("sum", values.sum()) if metric == "reconstruction" else ("mean", values.mean())
        return [*(("", name, value) for name, value in zip(names, values, strict=True)), ("", *average)]
    entries = [(names[s], names[t], values[s, t]) for s, t in np.ndindex(values.shape)]
    averages = evaluation.summarise(values)
    return entries + [("", {"all": "mean"}.get(kind, kind), value) for kind, value in averages.items()
                      if kind != "cross" or len(values) > 1]  # one modality has no pairs


class Metrics(dict[str, np.ndarray | list[tuple[str, str, float]]]):
    """Numbers by name: an array () or over modalities, (M,) or (M, M) [source, target], or a list of (source, target,
    value) for anything else. `notes` says of some what else they depend on.

    >>> metrics = Metrics({"probe": np.array([0.9, 0.8])})
    >>> metrics.over_labels("auroc", np.array([[0.5, np.nan]])), metrics.notes
    (array([0.5]), {'auroc': 'labels=1/2'})
    """

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.notes: dict[str, str] = {}

    def over_labels(self, name: str, values: np.ndarray) -> np.ndarray:
        """The mean of (..., C) over the labels that have a number, NaN where none has. Where that are fewer than all C,
        rows of `name` note of how many it is, the fewest of several means: labels=9/14."""
        n = (~np.isnan(values)).sum(-1).min(initial=values.shape[-1])
        if n < values.shape[-1]:
            self.notes[name] = f"labels={n}/{values.shape[-1]}"
        return np.ma.filled(np.ma.masked_invalid(values).mean(-1), np.nan)


@dataclass
class Result:
    """What `run` returns, everything a chapter draws: parameters, trained model, history, metrics, and tidy rows, a
    dictionary each with the columns of `mmvm.study.results`.

    >>> result = mmvm.study.run(Toy(epochs=1))
    >>> result.metrics["probe"].shape, result.rows[0]["experiment"]
    ((2,), 'toy')
    """

    parameters: Study
    model: MultimodalVAE
    history: training.History
    metrics: Metrics
    rows: list[dict]


def run(p: Study, train: MultimodalData | None = None, test: MultimodalData | None = None) -> Result | None:
    """One run from parameters to rows. With `p.out` the rows also go to <out>/results.csv. Of several processes only
    the first evaluates; the others return None.

    >>> result = mmvm.study.run(Toy(epochs=1, latent_dim=2, beta=0.5))
    >>> result.history.epochs[-1]["epoch"], result.parameters.beta
    (1, 0.5)
    """
    train = p.data("train") if train is None else train
    test = p.data("test") if test is None else test
    held = p.data("validation") if p.n_validation else None
    checks.check_split(train, test)
    model = p.build_model(train)
    history = p.fit(model, train, p.curve(train, test) if p.curve_every else None, held)
    if distributed.ranks().rank:
        return None
    classifiers, accuracy = p.classifiers(train, test)
    metrics = p.evaluate(model, train, test, classifiers)
    device = next(model.parameters()).device
    metrics["classifier_accuracy"] = accuracy
    rows = p.rows(metrics, history, device, train) + p.validation_rows(model, train, classifiers, history, held)
    if p.out:
        results.append(rows, paths.placed(p.out) / "results.csv")
    return Result(p, model, history, metrics, rows)
