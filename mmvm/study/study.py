"""What all studies share: the method and how it is trained, from parameters to trained model and result rows.

A data set's own file subclasses `Study` with its data, networks and metrics. The steps a chapter shows, composed.
"""

import hashlib
import json
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from mmvm import evaluation, paths, training
from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE
from mmvm.objectives import MMVM, MVTCAE, Aggregated, Gated, Independent, MMVAEPlus, Objective, Schedule
from mmvm.schedule import parse_schedule
from mmvm.study import results
from mmvm.study.parameters import Parameters, parameter
from mmvm.training import distributed
from mmvm.training import plan as speed

# per method, the parameters that change it; a parameter of another method is refused, not ignored
METHOD_OPTIONS = {
    "mmvm": ("bound", "standard_normal_weight", "standard_normal_steps", "gate", "gate_temperature",
             "gate_temperature_steps", "load_balance", "n_experts"),
    "independent": ("square_beta",),
    "avg": ("average", "kl", "kl_per_modality"),
    "poe": ("prior_expert", "unimodal_elbos", "kl", "kl_per_modality"),
    "moe": ("sampling", "kl", "kl_per_modality"),
    "mopoe": ("prior_expert", "sampling", "kl", "kl_per_modality"),
    "mmvaeplus": ("private_dim", "kl", "kl_per_modality", "n_importance", "estimator", "learn_private_mean"),
    "mvtcae": ("mvtcae_alpha",),
}


@dataclass(frozen=True)
class Study(Parameters):
    """The method's parameters and the loop's. A data set's class redeclares a field whose default or paper's value is
    its own, adds fields, and supplies `n_modalities` and the steps that raise NotImplementedError here."""

    not_hashed: typing.ClassVar[tuple[str, ...]] = (*Parameters.not_hashed, "compare", "curve_every", "plan")
    # module with the functions of `python -m mmvm data`, as far as the data has them: check, simulate, prepare
    files: typing.ClassVar[ModuleType | None] = None
    # what a checkpoint may differ in and still be continued: nothing the weights depend on
    free: typing.ClassVar[tuple[str, ...]] = ("epochs",)

    profile: str = parameter("smoke", "label of the result rows")
    objective: str = parameter("mmvm", "method: " + " | ".join(METHOD_OPTIONS), tuple(METHOD_OPTIONS))
    bound: str = parameter("pairwise", "mmvm: pairwise (released code) | variational | monte_carlo (paper's equation)",
                           MMVM.BOUNDS)
    beta: float = parameter(1.0, "weight of the regulariser", at_least=0)
    standard_normal_weight: float = parameter(0.0, "mmvm: alpha in [0, 1], weight of KL(q, N(0, I)); released code: 0")
    standard_normal_steps: int = parameter(
        0, "mmvm: updates in which alpha falls from 1; 0: constant; released: 150000", at_least=0)
    gate: str = parameter("none", "mmvm: network that weighs the mixture; none (equal) | soft | hard | gumbel",
                          ("none", *Gated.MODES))
    gate_temperature: float = parameter(1.0, "gate gumbel: temperature at the start", positive=True)
    gate_temperature_steps: int = parameter(0, "gate gumbel: updates in which it falls to a tenth; 0: constant",
                                            at_least=0)
    load_balance: float = parameter(0.0, "gate: weight of the load-balancing term, nats", at_least=0)
    n_experts: int = parameter(0, "mmvm: experts in the mixture; 0: all", at_least=0)
    square_beta: bool = parameter(False, "independent: weigh by beta squared; released code: True")
    average: str = parameter("variance", "avg: what is averaged; variance (released code) | deviation (paper)",
                             Aggregated.AVERAGES)
    prior_expert: str = parameter("never", "poe, mopoe: N(0, I) among the experts; never (paper) | full_set | always",
                                  Aggregated.PRIOR_EXPERTS)
    unimodal_elbos: bool = parameter(False, "poe: also train the unimodal bounds; original MVAE: True")
    sampling: str = parameter("random", "moe, mopoe: component; random | stratified | contiguous (released code)",
                              Aggregated.SAMPLINGS)
    kl: str = parameter("components", "joint models, mmvaeplus: components | drawn (not mmvaeplus) | mixture",
                        Aggregated.KLS)
    kl_per_modality: bool = parameter(False, "joint models, mmvaeplus: count the KL M times; released code: True")
    private_dim: int = parameter(16, "mmvaeplus: private ones among the latent_dim; 0: MMVAE", at_least=0)
    learn_private_mean: bool = parameter(False, "mmvaeplus: learn the mean of the auxiliary prior; released code: True")
    n_importance: int = parameter(1, "mmvaeplus: draws per source", at_least=1)
    estimator: str = parameter("elbo", "mmvaeplus: elbo | iwae | dreg (the last two with kl mixture)",
                               MMVAEPlus.ESTIMATORS)
    mvtcae_alpha: float = parameter(-1.0, "mvtcae: weight of the conditional terms in [0, 1]; negative: M / (M + 1)")
    compare: bool = parameter(True, "chapter only: also train independent VAEs (mmvm, if those were asked for)")
    latent_dim: int = parameter(32, "D, per modality", at_least=1)
    batch_size: int = parameter(32, "samples per update", at_least=1)
    learning_rate: float = parameter(2e-3, "Adam", positive=True)
    max_grad_norm: float = parameter(0.0, "clip the gradient's norm; 0: never; paper: never", at_least=0)
    epochs: int = parameter(4, "passes over the training samples", at_least=1)
    schedule: str = parameter("constant", "constant (paper) | cosine: rate to 0; option beta_updates: beta from 0",
                              added=True)
    curve_every: int = parameter(0, "epochs between two points of the learning curve; 0: none", at_least=0)
    seed: int = parameter(0, "seed of weights, order and draws", last=True)
    data_seed: int = parameter(0, "seed of what the data set draws", last=True)
    device: str = parameter("auto", "auto (a GPU if there is one) | cpu | cuda", last=True)
    precision: str = parameter("float32", "float32 | bfloat16 | auto (bfloat16 where the hardware has it)",
                               ("float32", "bfloat16", "auto"), last=True)
    compile: bool = parameter(False, "torch.compile the forward pass", last=True)
    plan: str = parameter("plain", "how updates are computed: plain | auto (measured) | as in channels_last+grouped",
                          last=True)
    root: str = parameter("", "folder of the data; empty: what ships with the project", last=True)
    out: str = parameter("", "folder for checkpoint and rows, from the repository's root; empty: keep nothing",
                         last=True)

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.standard_normal_weight <= 1:
            raise UserError(f"standard_normal_weight must lie in [0, 1], got {self.standard_normal_weight}")
        foreign = [name for name in self._method_options(all_methods=True)
                   if name not in METHOD_OPTIONS[self.objective]]
        if foreign:
            owners = [method for method, options in METHOD_OPTIONS.items() if foreign[0] in options]
            raise UserError(f"{foreign[0]} has no meaning for objective {self.objective!r}: it belongs to "
                            f"{', '.join(owners)}; leave it out or choose one of them")
        if self.objective == "mmvm" and self.gate == "none" and (self.load_balance or self.gate_temperature_steps
                                                                 or self.gate_temperature != 1.0):
            raise UserError("load_balance and gate_temperature belong to a gate: add gate='soft', 'hard' or 'gumbel'")
        if self.objective == "mmvaeplus":
            if self.private_dim >= self.latent_dim:
                raise UserError(f"private_dim must be below latent_dim ({self.latent_dim}), got {self.private_dim}")
            if self.kl == "drawn":
                raise UserError("kl of mmvaeplus must be 'components' or 'mixture', got 'drawn'")
        if self.mvtcae_alpha > 1:
            raise UserError(f"mvtcae_alpha must be at most 1, got {self.mvtcae_alpha}")
        if self.plan != "auto":
            speed.Plan.parse(self.plan)
        parse_schedule(self.schedule)
        with torch.random.fork_rng([]):
            self.build_objective()  # what the classes refuse is refused now, not after the data is made

    def _method_options(self, all_methods: bool = False) -> list[str]:
        """The method's own parameters (or those of all methods) that are not at their default."""
        names = METHOD_OPTIONS[self.objective]
        if all_methods:
            names = dict.fromkeys(name for options in METHOD_OPTIONS.values() for name in options)
        defaults = {f.name: f.default for f in fields(self)}
        return [name for name in names if getattr(self, name) != defaults[name]]

    def with_method(self, objective: str) -> "typing.Self":
        """The same settings for another method, whose own options are at their defaults."""
        defaults = {f.name: f.default for f in fields(self)}
        return replace(self, objective=objective, **{name: defaults[name] for name in self._method_options()})

    @classmethod
    def about(cls) -> str:
        """What the study is about, in a line: the first of its module's docstring."""
        return (sys.modules[cls.__module__].__doc__ or cls.__doc__ or "").strip().splitlines()[0]

    # the steps, in the order in which a run takes them ---------------------------------------------------------------

    def data(self, split: str) -> MultimodalData:
        """The training or the test set, "train" or "test"."""
        raise NotImplementedError

    def few(self) -> "typing.Self":
        """The same with as little data as shows the shapes of a sample."""
        return self

    def build_objective(self) -> Objective:
        if self.objective == "independent":
            return Independent(self.square_beta)
        if self.objective == "mvtcae":
            return MVTCAE(self.mvtcae_alpha if self.mvtcae_alpha >= 0 else None)
        if self.objective == "mmvaeplus":
            return MMVAEPlus(self.n_modalities, self.private_dim, self.kl, self.kl_per_modality, self.n_importance,
                             self.estimator, self.learn_private_mean)
        if self.objective != "mmvm":
            return Aggregated(self.objective, self.average, self.prior_expert, self.sampling, self.kl,
                              self.kl_per_modality, self.unimodal_elbos)
        alpha, weights = self.standard_normal_weight, "uniform"
        if self.standard_normal_steps:
            alpha = Schedule(1.0, alpha, self.standard_normal_steps)
        if self.gate != "none":
            temperature = self.gate_temperature
            if self.gate_temperature_steps:
                temperature = Schedule(temperature, temperature / 10, self.gate_temperature_steps)
            weights = Gated(self.latent_dim, self.gate, temperature, self.load_balance)
        return MMVM(self.bound, weights, alpha, self.n_experts or None)

    def build_networks(self, data: MultimodalData) -> tuple[Sequence[nn.Module], Sequence[nn.Module]]:
        """Untrained encoders and decoders, one of each per modality of `data`."""
        raise NotImplementedError

    def build_model(self, data: MultimodalData) -> MultimodalVAE:
        """The untrained model; `seed` fixes its weights and leaves the caller's random state alone."""
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            encoders, decoders = self.build_networks(data)
            _, rising = parse_schedule(self.schedule)
            beta = Schedule(0.0, self.beta, rising, "linear") if rising else self.beta
            return MultimodalVAE(data.specs, encoders, decoders, self.build_objective(), beta)

    def fit(self, model: MultimodalVAE, train: MultimodalData, on_epoch=None) -> training.History:
        form, _ = parse_schedule(self.schedule)
        rate = self.learning_rate
        if form == "cosine":
            rate = Schedule(rate, 0.0, self.epochs * (len(train) // min(self.batch_size, len(train))), "cosine")
        history = training.fit(model, train, epochs=self.epochs, batch_size=self.batch_size, seed=self.seed,
                               learning_rate=rate, device=self.device, precision=self.precision,
                               compile=self.compile, plan=self.plan, max_grad_norm=self.max_grad_norm or None,
                               out=self.folder(), config=self.config(), on_epoch=on_epoch)
        trained = history.epochs[-1]["epoch"] if history.epochs else 0
        if trained != self.epochs:  # rows of such a model would claim what no run did
            raise UserError(f"{self.folder() / training.HISTORY} ends at epoch {trained}, the run asks for "
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
        return (paths.REPOSITORY / self.out) if self.out else None

    def method(self) -> str:
        """Name in the rows: the objective, and what of it is not the default, as in "mmvm/soft/load_balance=1"."""
        values = {name: getattr(self, name) for name in self._method_options()}
        return "/".join([self.objective, *(str(value) if name in ("bound", "gate") else
                                           f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                                           for name, value in values.items())])

    def config(self) -> dict:
        """What a checkpoint must agree on to be continued. More epochs may be asked for; where things lie and what is
        measured along the way may change."""
        values = {name: value for name, value in self.identity().items()
                  if name not in (*self.not_hashed, *self.free)}
        return {"experiment": self.name, **values}

    def rows(self, metrics: "Metrics", history: training.History, device: torch.device,
             train: MultimodalData) -> list[dict]:
        """Tidy rows of `evaluate`'s numbers, single entries and averages, of the gate and of the learning curve."""
        names = train.names
        common = {"experiment": self.name, "method": self.method(), "beta": self.beta, "seed": self.seed,
                  "profile": self.profile, "n_train": len(train), "epochs": self.epochs,
                  "updates": history.epochs[-1]["step"], "seconds": round(history.epochs[-1]["seconds"], 1),
                  "run": self.run_hash(), **results.provenance(device)}
        rows = []
        for metric, values in metrics.items():
            note = metrics.notes.get(metric, "")
            rows += [{"metric": metric, "source": s, "target": t, "value": float(v), "note": note}
                     for s, t, v in _entries(metric, values, names)]
        for name, value in history.epochs[-1].items():
            if name.startswith("gate_"):  # over the last epoch
                metric, _, m = name.partition("/")
                rows.append({"metric": metric, "source": "", "target": names[int(m)] if m else "mean", "value": value,
                             "note": ""})
        for row in history.epochs:
            for name, value in row.items():
                if name.startswith("curve/"):
                    _, metric, target = name.split("/")
                    rows.append({"metric": f"{metric}_curve", "source": str(row["step"]), "target": target,
                                 "value": value, "note": ""})
        return [{**common, **row} for row in rows]


def _entries(metric: str, values, names: Sequence[str]) -> list[tuple[str, str, float]]:
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
    value) for anything else. `notes` says of some what else they depend on."""

    def __init__(self, *values):
        super().__init__(*values)
        self.notes: dict[str, str] = {}


@dataclass
class Result:
    """What `run` returns: everything a chapter draws."""

    parameters: Study
    model: MultimodalVAE
    history: training.History
    metrics: Metrics
    rows: list[dict]


def run(p: Study, train: MultimodalData | None = None, test: MultimodalData | None = None) -> Result | None:
    """One run from parameters to rows. With `p.out` the rows also go to <out>/results.csv. Of several processes only
    the first evaluates; the others return None."""
    train = p.data("train") if train is None else train
    test = p.data("test") if test is None else test
    model = p.build_model(train)
    history = p.fit(model, train, p.curve(train, test) if p.curve_every else None)
    if distributed.ranks().rank:
        return None
    classifiers, accuracy = p.classifiers(train, test)
    metrics = p.evaluate(model, train, test, classifiers)
    device = next(model.parameters()).device
    metrics["classifier_accuracy"] = accuracy
    rows = p.rows(metrics, history, device, train)
    if p.out:
        results.append(rows, p.folder() / "results.csv")
    return Result(p, model, history, metrics, rows)


def keep_classifier(name: str, key: list, build: Callable[[], nn.Module], train: Callable[[], nn.Module],
                    device: torch.device) -> nn.Module:
    """The classifier that `train()` returns, kept in runs/classifiers under a hash of `key`, everything it depends on,
    so that a grid trains it once; a file that cannot be read is trained anew."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    path = paths.runs_root() / "classifiers" / f"{name}-{digest}.safetensors"
    if path.exists():
        classifier = build()
        try:
            classifier.load_state_dict(load_file(path))
            return classifier.to(device).eval()
        except (SafetensorError, OSError, RuntimeError):
            pass
    classifier = train()
    path.parent.mkdir(parents=True, exist_ok=True)
    training.write_safetensors(path, classifier.state_dict(), {"format": "mmvm-classifier-1"})
    return classifier


def content_hash(x: torch.Tensor) -> str:
    """SHA-256 of an array's bytes: the part of a `keep_classifier` key that says on which data."""
    return hashlib.sha256(np.ascontiguousarray(x.numpy())).hexdigest()
