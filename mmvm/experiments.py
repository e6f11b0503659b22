"""Per data set: parameters in, trained model and result rows out. The steps a chapter shows, composed.

A parameter is defined once, here, with its default (the `smoke` profile), its type and a line that says unit, meaning
and the paper's value. The chapter's `parameters` cell repeats it (a test holds them equal), the other profiles are
YAML files in book/params, and papermill, the train command and the grid all use these names.
"""

import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from mmvm import evaluation, frechet, paths, results, training
from mmvm.datasets import MultimodalData, polymnist
from mmvm.errors import UserError
from mmvm.likelihoods import Laplace
from mmvm.model import MultimodalVAE
from mmvm.networks import NETWORKS
from mmvm.objectives import MMVM, MVTCAE, Aggregated, Gated, Independent, MMVAEPlus, Objective, Schedule

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
PAPERS_CLASSIFIER = {"batch_size": 256, "learning_rate": 1e-3}  # appendix B.4
IPYTHON = {"In", "Out", "get_ipython", "exit", "quit", "open"}


def parameter(default, meaning: str, choices: tuple = ()):
    """A field with a line of meaning and, where only some values make sense, those."""
    return field(default=default, metadata={"meaning": meaning, "choices": choices})


@dataclass(frozen=True)
class Parameters:
    """Base of every experiment's parameters: flat, typed, validated on construction (`UserError`)."""

    def __post_init__(self):
        types = typing.get_type_hints(type(self))
        for f in fields(self):
            value, wanted = getattr(self, f.name), types[f.name]
            if isinstance(value, np.generic):
                value = value.item()  # of a loop over an array
            if wanted is float and type(value) is int:
                value = float(value)
            object.__setattr__(self, f.name, value)  # the class is frozen
            if type(value) is not wanted:
                raise UserError(f"{f.name} must be {_a(wanted)}, got {value!r}, {_a(type(value))}."
                                + (" In YAML write 1.0e-3: without the point, 1e-3 is text." if wanted is float else "")
                                + f" {f.name}: {f.metadata['meaning']}")
            if wanted is float and not math.isfinite(value):
                raise UserError(f"{f.name} must be a finite number, got {value}")
            if f.name.endswith("seed") and not 0 <= value < 2**32:
                raise UserError(f"{f.name} must be at least 0 and below 2^32, got {value}")
            choices = f.metadata["choices"]
            if choices and value not in choices:
                raise UserError(f"{f.name} must be one of {', '.join(map(repr, choices))}, got {value!r}")

    @classmethod
    def from_dict(cls, values: Mapping) -> "Parameters":
        """Values by name, the others at their defaults. Unknown names are an error that lists what exists."""
        known = [f.name for f in fields(cls)]
        unknown = sorted(str(name) for name in set(values) - set(known))
        if unknown:
            raise UserError(f"unknown parameter {', '.join(unknown)}; {cls.__name__} has: {', '.join(known)}")
        return cls(**values)

    @classmethod
    def from_notebook(cls, namespace: Mapping) -> "Parameters":
        """What a chapter's `parameters` cell, and papermill after it, have put into `globals()`.

        papermill only warns about an unknown name and runs with the defaults; here it is an error. Call this before
        the chapter defines anything of its own.
        """
        if any(isinstance(value, Parameters) for value in namespace.values()):  # the cell is run again
            known = {f.name for f in fields(cls)}
            return cls.from_dict({name: value for name, value in namespace.items() if name in known})
        return cls.from_dict({name: value for name, value in namespace.items()
                              if not name.startswith("_") and name not in IPYTHON
                              and not isinstance(value, (ModuleType, type))})

    @classmethod
    def from_profile(cls, profile: str) -> "Parameters":
        """The defaults changed by book/params/<chapter>-<profile>.yaml; a path to a YAML file works too."""
        path = Path(profile)
        if path.suffix not in (".yaml", ".yml"):
            path = paths.REPOSITORY / "book" / "params" / f"{cls.chapter}-{profile}.yaml"
        if not path.exists():
            committed = (paths.REPOSITORY / "book" / "params").glob(f"{cls.chapter}-*.yaml")
            there = sorted(p.stem.removeprefix(f"{cls.chapter}-") for p in committed)
            raise UserError(f"there is no profile {path}; profiles of {cls.chapter}: {', '.join(there)}, or name a "
                            "YAML file")
        try:
            values = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date like 2026-13-01
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}," if mark else ""
            raise UserError(f"{path}{where} is not YAML ({getattr(error, 'problem', None) or error}): write lines of "
                            "`name: value`") from None
        values = {} if values is None else values
        if not isinstance(values, dict):
            raise UserError(f"{path} must hold lines of `name: value`")
        try:
            return cls.from_dict(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def with_settings(self, settings: list[str]) -> "Parameters":
        """`["beta=0.25", "objective=independent"]` applied to these parameters, each read as its own type."""
        types, values = typing.get_type_hints(type(self)), asdict(self)
        known = {f.name for f in fields(self)}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise UserError(f"--set takes name=value, got {setting!r}")
            name = name.strip()
            values[name] = _parse(text, types[name], name) if name in known else text
        return self.from_dict(values)

    @classmethod
    def cell(cls) -> str:
        """The text of the chapter's `parameters` cell."""
        types = typing.get_type_hints(cls)
        shown = [json.dumps(f.default) if isinstance(f.default, str) else f.default for f in fields(cls)]
        lines = [f"{f.name}: {types[f.name].__name__} = {value}" for f, value in zip(fields(cls), shown)]
        width = max(map(len, lines))
        return "\n".join(f"{line:<{width}}  # {f.metadata['meaning']}" for line, f in zip(lines, fields(cls)))

    def run_hash(self) -> str:
        """Ten characters that name these parameters; where files lie and what the run is labelled do not count."""
        values = {name: value for name, value in asdict(self).items() if name not in self.not_hashed}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]

    chapter: typing.ClassVar[str] = ""
    not_hashed: typing.ClassVar[tuple[str, ...]] = ("out", "root", "profile", "device")


@dataclass(frozen=True)
class Intro(Parameters):
    """Parameters of the landing page."""

    chapter: typing.ClassVar[str] = "intro"

    profile: str = parameter("laptop", "the committed runs that the table shows")


@dataclass(frozen=True)
class Method(Parameters):
    """Parameters of the chapter `method`."""

    chapter: typing.ClassVar[str] = "method"

    seed: int = parameter(0, "seed of all draws")
    n_samples: int = parameter(100_000, "draws of every Monte Carlo estimate")
    toy_epochs: int = parameter(60, "epochs of the two-modality toy at the end")


@dataclass(frozen=True)
class PolyMNIST(Parameters):
    """Parameters of the chapter `polymnist`."""

    chapter: typing.ClassVar[str] = "polymnist"
    not_hashed: typing.ClassVar[tuple[str, ...]] = (*Parameters.not_hashed, "compare", "curve_every")

    profile: str = parameter("smoke", "label of the result rows")
    objective: str = parameter("mmvm", "method: " + " | ".join(METHOD_OPTIONS), tuple(METHOD_OPTIONS))
    bound: str = parameter("pairwise", "mmvm: pairwise (released code) | variational | monte_carlo (paper's equation)",
                           MMVM.BOUNDS)
    beta: float = parameter(1.0, "weight of the regulariser; paper: 2^-7 ... 2^3")
    standard_normal_weight: float = parameter(0.0, "mmvm: alpha in [0, 1], weight of KL(q, N(0, I)); released code: 0")
    standard_normal_steps: int = parameter(
        0, "mmvm: updates in which alpha falls from 1; 0: constant; released: 150000")
    gate: str = parameter("none", "mmvm: network that weighs the mixture; none (equal) | soft | hard | gumbel",
                          ("none", *Gated.MODES))
    gate_temperature: float = parameter(1.0, "gate gumbel: temperature at the start")
    gate_temperature_steps: int = parameter(0, "gate gumbel: updates in which it falls to a tenth; 0: constant")
    load_balance: float = parameter(0.0, "gate: weight of the load-balancing term, nats")
    n_experts: int = parameter(0, "mmvm: experts in the mixture; 0: all")
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
    private_dim: int = parameter(16, "mmvaeplus: private ones among the latent_dim; 0: MMVAE")
    learn_private_mean: bool = parameter(False, "mmvaeplus: learn the mean of the auxiliary prior; released code: True")
    n_importance: int = parameter(1, "mmvaeplus: draws per source")
    estimator: str = parameter("elbo", "mmvaeplus: elbo | iwae | dreg (the last two with kl mixture)",
                               MMVAEPlus.ESTIMATORS)
    mvtcae_alpha: float = parameter(-1.0, "mvtcae: weight of the conditional terms in [0, 1]; negative: M / (M + 1)")
    compare: bool = parameter(True, "chapter only: also train independent VAEs (mmvm, if those were asked for)")
    n_modalities: int = parameter(3, "first M of the five backgrounds; paper: 3")
    translated: bool = parameter(False, "small digits at random positions; paper: True")
    scale: float = parameter(0.75, "size of a translated digit, 1 = 28 pixels; paper: 0.75")
    n_train: int = parameter(10_000, "training tuples; paper: 60000")
    n_test: int = parameter(2_000, "test tuples; paper: 10000")
    missing: float = parameter(0.0, "share of training images taken away at random; one per tuple stays; paper: 0")
    network: str = parameter("conv", "conv (small) | resnet (paper)", tuple(NETWORKS))
    channels: int = parameter(16, "width of the first convolution; paper's resnet: 64")
    latent_dim: int = parameter(32, "D, per modality; released scripts: 512")
    likelihood_scale: float = parameter(0.75, "scale of the Laplace likelihood, image range [0, 1]; paper: 0.75")
    batch_size: int = parameter(32, "tuples per update; paper: 256")
    learning_rate: float = parameter(2e-3, "Adam; paper: 5e-4")
    max_grad_norm: float = parameter(0.0, "clip the gradient's norm; 0: never; paper: never")
    epochs: int = parameter(4, "passes over the training tuples; paper: 500")
    n_probe: int = parameter(5_000, "training encodings for the linear probe; paper: 10000")
    classifier_epochs: int = parameter(4, "epochs of the digit classifiers behind the coherence; paper: 10")
    n_likelihood: int = parameter(0, "draws per tuple of the log-likelihood of 1000 test tuples; 0: not measured")
    inception: str = parameter("", "local weights of the Inception network for the FID; empty: no FID")
    curve_every: int = parameter(0, "epochs between two points of the learning curve; 0: none")
    seed: int = parameter(0, "seed of weights, order and draws; paper: 5 seeds")
    data_seed: int = parameter(0, "seed of crops, positions and pairing")
    device: str = parameter("auto", "auto (a GPU if there is one) | cpu | cuda")
    precision: str = parameter("float32", "float32 | bfloat16 | auto (bfloat16 where the hardware has it)",
                               ("float32", "bfloat16", "auto"))
    compile: bool = parameter(False, "torch.compile the forward pass")
    root: str = parameter("", "folder with mnist/ or the released m0 ... m4 folders; empty: data/polymnist")
    backgrounds: str = parameter("", "folder of other background photos; empty: the five that ship")
    out: str = parameter("", "folder for checkpoint and rows, from the repository's root; empty: keep nothing")

    def __post_init__(self):
        super().__post_init__()
        for name in ("n_train", "n_test", "channels", "latent_dim", "batch_size", "epochs", "n_probe",
                     "classifier_epochs", "n_importance"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("beta", "standard_normal_steps", "max_grad_norm", "curve_every", "gate_temperature_steps",
                     "load_balance", "n_experts", "private_dim", "n_likelihood"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("learning_rate", "likelihood_scale", "gate_temperature"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be positive, got {getattr(self, name)}")
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
        if not 0 <= self.missing < 1:
            raise UserError(f"missing must be at least 0 and below 1, got {self.missing}")
        if self.mvtcae_alpha > 1:
            raise UserError(f"mvtcae_alpha must be at most 1, got {self.mvtcae_alpha}")
        with torch.random.fork_rng([]):
            self.build_objective()  # what the classes refuse is refused now, not after the data is made

    def _method_options(self, all_methods: bool = False) -> list[str]:
        """The method's own parameters (or those of all methods) that are not at their default."""
        names = METHOD_OPTIONS[self.objective]
        if all_methods:
            names = dict.fromkeys(name for options in METHOD_OPTIONS.values() for name in options)
        defaults = {f.name: f.default for f in fields(self)}
        return [name for name in names if getattr(self, name) != defaults[name]]

    def with_method(self, objective: str) -> "PolyMNIST":
        """The same settings for another method, whose own options are at their defaults."""
        defaults = {f.name: f.default for f in fields(self)}
        return replace(self, objective=objective, **{name: defaults[name] for name in self._method_options()})

    # the steps, in the order in which a run takes them ---------------------------------------------------------------

    def data(self, split: str) -> MultimodalData:
        """`n_train` tuples of the training or `n_test` of the test set."""
        data = polymnist.load(split, self.root or None, n_modalities=self.n_modalities, translated=self.translated,
                              scale=self.scale, backgrounds=self.backgrounds or None, seed=self.data_seed,
                              n=self.n_train if split == "train" else self.n_test)
        if split == "train" and self.missing:
            data = replace(data, observed=_observed_at_random(data.observed.shape, self.missing, self.data_seed))
        likelihood = Laplace(self.likelihood_scale)
        return replace(data, specs=tuple(replace(spec, likelihood=likelihood) for spec in data.specs))

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

    def build_model(self, data: MultimodalData) -> MultimodalVAE:
        """The untrained model; `seed` fixes its weights and leaves the caller's random state alone."""
        encoder, decoder = NETWORKS[self.network]
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            return MultimodalVAE(data.specs, [encoder(self.latent_dim, self.channels) for _ in data.specs],
                                 [decoder(self.latent_dim, self.channels) for _ in data.specs],
                                 self.build_objective(), self.beta)

    def fit(self, model: MultimodalVAE, train: MultimodalData, on_epoch=None) -> training.History:
        history = training.fit(model, train, epochs=self.epochs, batch_size=self.batch_size, seed=self.seed,
                               learning_rate=self.learning_rate, device=self.device, precision=self.precision,
                               compile=self.compile, max_grad_norm=self.max_grad_norm or None, out=self.folder(),
                               config=self.config(), on_epoch=on_epoch)
        trained = history.epochs[-1]["epoch"] if history.epochs else 0
        if trained != self.epochs:  # rows of such a model would claim what no run did
            raise UserError(f"{self.folder() / training.HISTORY} ends at epoch {trained}, the run asks for "
                            f"{self.epochs}: raise epochs, choose another folder, or start over (--fresh)")
        return history

    def classifiers(self, train: MultimodalData, test: MultimodalData) -> tuple[list[nn.Module], np.ndarray]:
        """One digit classifier per modality, trained on real images, and their accuracies on the test images (M,).

        Kept in runs/classifiers under a hash of everything they depend on, so that a grid trains them once.
        """
        device = training.resolve_device(self.device)
        trained, accuracies = [], []
        for spec in train.specs:
            x, path = train.modalities[spec.name], self._classifier_path(train, spec.name)
            classifier = _load_classifier(path, self.network, device) if path.exists() else None
            if classifier is None:
                classifier = evaluation.train_classifier(x, train.labels, spec, trunk=self.network,
                                                         epochs=self.classifier_epochs, device=device,
                                                         **({} if self.network == "conv" else PAPERS_CLASSIFIER))
                path.parent.mkdir(parents=True, exist_ok=True)
                training.write_safetensors(path, classifier.state_dict(), {"format": "mmvm-classifier-1"})
            trained.append(classifier)
            accuracies.append(evaluation.classifier_accuracy(classifier, test.modalities[spec.name], test.labels, spec))
        return trained, np.array(accuracies)

    def evaluate(self, model: MultimodalVAE, train: MultimodalData, test: MultimodalData,
                 classifiers: list[nn.Module]) -> "Metrics":
        """probe (M,), reconstruction (M,), coherence, imputation and classifier_distance (M, M), effective_beta; where
        asked for and defined, log_likelihood and fid (M, M)."""
        metrics = Metrics({"probe": evaluation.linear_probe(model, train, test, n=self.n_probe, seed=self.data_seed),
                           "reconstruction": evaluation.reconstruction_error(model, test),
                           **frechet.cross_modal(model, test, classifiers),
                           "effective_beta": np.array(model.objective.effective_beta(self.beta, len(test.specs)))})
        metrics.notes["classifier_distance"] = f"trunk={self.network}; n={len(test)}"
        if self.n_likelihood and not isinstance(model.objective, MMVM):  # the chapter measures other methods too
            found = evaluation.log_likelihood(model, test.subset(slice(0, 1_000)), self.n_likelihood)
            metrics["log_likelihood"], metrics.notes["log_likelihood"] = np.array(found.mean), found.note()
        if self.inception:
            found = frechet.fid(model, test, self.inception)
            metrics["fid"], metrics.notes["fid"] = found.value, found.note()
        return metrics

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
        free = (*self.not_hashed, "epochs", "n_test", "n_probe", "classifier_epochs", "n_likelihood", "inception")
        return {name: value for name, value in asdict(self).items() if name not in free}

    def rows(self, metrics: "Metrics", history: training.History, device: torch.device) -> list[dict]:
        """Tidy rows of `evaluate`'s arrays, single entries and averages, of the gate and of the learning curve."""
        common = {"experiment": self.chapter, "method": self.method(), "beta": self.beta, "seed": self.seed,
                  "profile": self.profile, "n_train": self.n_train, "epochs": self.epochs,
                  "updates": history.epochs[-1]["step"], "seconds": round(history.epochs[-1]["seconds"], 1),
                  "run": self.run_hash(), **results.provenance(device)}
        rows = []
        for metric, values in metrics.items():
            if values.ndim == 0:
                entries = [("", "mean", values)]
            elif values.ndim == 1:
                entries = [("", f"m{t}", value) for t, value in enumerate(values)]
                entries.append(("", "sum" if metric == "reconstruction" else "mean",
                                values.sum() if metric == "reconstruction" else values.mean()))
            else:
                entries = [(f"m{s}", f"m{t}", values[s, t]) for s, t in np.ndindex(values.shape)]
                averages = evaluation.summarise(values)
                entries += [("", {"all": "mean"}.get(kind, kind), value) for kind, value in averages.items()
                            if kind != "cross" or len(values) > 1]  # one modality has no pairs
            note = getattr(metrics, "notes", {}).get(metric, "")
            rows += [{"metric": metric, "source": s, "target": t, "value": float(v), "note": note}
                     for s, t, v in entries]
        for name, value in history.epochs[-1].items():
            if name.startswith("gate_"):  # over the last epoch
                metric, _, m = name.partition("/")
                rows.append({"metric": metric, "source": "", "target": f"m{m}" if m else "mean", "value": value,
                             "note": ""})
        for row in history.epochs:
            for name, value in row.items():
                if name.startswith("curve/"):
                    _, metric, target = name.split("/")
                    rows.append({"metric": f"{metric}_curve", "source": str(row["step"]), "target": target,
                                 "value": value, "note": ""})
        return [{**common, **row} for row in rows]

    def _classifier_path(self, train: MultimodalData, name: str) -> Path:
        images = hashlib.sha256(train.modalities[name].numpy().tobytes()).hexdigest()
        key = hashlib.sha256(json.dumps([images, self.network, self.classifier_epochs]).encode()).hexdigest()[:16]
        return paths.runs_root() / "classifiers" / f"{name}-{key}.safetensors"


class Metrics(dict[str, np.ndarray]):
    """Arrays by name; `notes` says of some what else they depend on."""

    def __init__(self, *values):
        super().__init__(*values)
        self.notes: dict[str, str] = {}


@dataclass
class Result:
    """What `run` returns: everything a chapter draws."""

    parameters: PolyMNIST
    model: MultimodalVAE
    history: training.History
    metrics: "Metrics"
    rows: list[dict]


def run(p: PolyMNIST, train: MultimodalData | None = None, test: MultimodalData | None = None) -> Result:
    """One run from parameters to rows. With `p.out` the rows also go to <out>/results.csv."""
    train = p.data("train") if train is None else train
    test = p.data("test") if test is None else test
    model = p.build_model(train)
    history = p.fit(model, train, _curve(p, train, test) if p.curve_every else None)
    classifiers, accuracy = p.classifiers(train, test)
    metrics = p.evaluate(model, train, test, classifiers)
    device = next(model.parameters()).device
    metrics["classifier_accuracy"] = accuracy
    rows = p.rows(metrics, history, device)
    if p.out:
        results.append(rows, p.folder() / "results.csv")
    return Result(p, model, history, metrics, rows)


def _curve(p: PolyMNIST, train: MultimodalData, test: MultimodalData):
    """A learning curve's point every `curve_every` epochs: a probe fitted to 5,000 encodings and the error, both on the
    first 2,000 test tuples."""
    some_train, some_test = train.subset(slice(0, 5_000)), test.subset(slice(0, 2_000))

    def point(model: MultimodalVAE, epoch: int) -> dict:
        if epoch % p.curve_every and epoch != p.epochs:
            return {}
        probe = evaluation.linear_probe(model, some_train, some_test, n=None)
        error = evaluation.reconstruction_error(model, some_test)
        return {**{f"curve/probe/{name}": float(value) for name, value in zip(train.names, probe)},
                "curve/reconstruction/sum": float(error.sum())}
    return point


def load(folder: str | Path) -> tuple[PolyMNIST, MultimodalVAE]:
    """Parameters and trained model of a run's folder (from the repository's root, like `out`); the data is read to
    know its shapes. What the training does not depend on (n_test, n_probe, ...) is at its default."""
    checkpoint = paths.REPOSITORY / folder / training.CHECKPOINT
    _, metadata = training.read_checkpoint(checkpoint)
    config = {**json.loads(metadata["config"]), **json.loads(metadata["progress"])}
    config["epochs"] = max(config["epoch"], 1)
    config["max_grad_norm"] = config["max_grad_norm"] or 0.0  # the loop knows no clipping as None
    known = {f.name for f in fields(PolyMNIST)}
    p = PolyMNIST.from_dict({name: value for name, value in config.items() if name in known})
    model = p.build_model(replace(p, n_train=1).data("train"))
    training.load_weights(model, checkpoint)
    return p, model.eval()


EXPERIMENTS = {"polymnist": PolyMNIST}


def _load_classifier(path: Path, trunk: str, device: torch.device) -> nn.Module | None:
    """The kept classifier, or None where the file cannot be read: it is then trained anew."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from mmvm.networks import DigitClassifier
    classifier = DigitClassifier(trunk)
    try:
        classifier.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError):
        return None
    return classifier.to(device).eval()


def _observed_at_random(shape: tuple[int, int], missing: float, seed: int) -> Tensor:
    """Each entry of (M, N) absent with probability `missing`; a tuple that would lose all keeps one at random."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(shape, generator=generator)
    observed = draws >= missing
    kept = draws.argmax(0)
    observed[kept, torch.arange(shape[1])] = True
    return observed


def _parse(text: str, wanted: type, name: str):
    if wanted is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{name} must be true or false, got {text!r}")
        return text.lower() == "true"
    try:
        return wanted(text)
    except ValueError:
        raise UserError(f"{name} must be {_a(wanted)}, got {text!r}") from None


def _a(kind: type) -> str:
    return {int: "an integer", float: "a number", bool: "true or false", str: "text"}.get(kind, kind.__name__)
