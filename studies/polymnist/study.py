"""PolyMNIST: M pictures of the same digit on M backgrounds (paper, section 5.1)."""

import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from mmvm import evaluation, fit_latent_density, fit_latent_diffusion, paths, training
from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.encodings import BATCH, some_rows
from mmvm.likelihoods import Laplace
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import evaluating
from mmvm.objectives import MMVM
from mmvm.options import Option
from mmvm.study.classifiers import content_hash, keep_classifier
from mmvm.study.parameters import parameter
from mmvm.study.study import Metrics, Study
from studies.polymnist import data as polymnist
from studies.polymnist.corrupted import KINDS, clean, corrupt, corrupted_modality, trusted
from studies.polymnist.cross_modal import cross_modal
from studies.polymnist.fid import fid, joint_fid
from studies.polymnist.generation import generation
from studies.polymnist.mnist import N_CLASSES
from studies.polymnist.networks import NETWORK_OPTIONS, NETWORKS, DigitClassifier
from studies.polymnist.released import is_released
from studies.polymnist.variety import factor_spread

MIXTURE = (Option("components", 20, "Gaussians, all modalities' latents pooled", at_least=1),)
DIFFUSION = (Option("updates", 5_000, "of its training", at_least=1),
             Option("width", 512, "of its residual network", at_least=1))
DENSITIES = {"none": (), "prior": (), "mixture": MIXTURE, "diffusion": DIFFUSION, "both": (*MIXTURE, *DIFFUSION)}
GIVEN = "given"  # stands for any path in a run's hash
PAPERS_CLASSIFIER = {"batch_size": 256, "learning_rate": 1e-3}  # appendix B.4


@dataclass(frozen=True)
class PolyMNIST(Study):
    """Parameters of the chapter `polymnist`."""

    name: typing.ClassVar[str] = "polymnist"
    files: typing.ClassVar[ModuleType] = polymnist
    older = {"channels": ("network", "channels")}
    free: typing.ClassVar[tuple[str, ...]] = (*Study.free, "n_test", "n_probe", "classifier_epochs",
                                              "n_likelihood", "inception", "information", "density")

    beta: float = parameter(1.0, "weight of the regulariser; paper: 2^-7 ... 2^3", at_least=0)
    latent_dim: int = parameter(32, "D, per modality; released scripts: 512", at_least=1)
    batch_size: int = parameter(32, "tuples per update; paper: 256", at_least=1)
    learning_rate: float = parameter(2e-3, "Adam; paper: 5e-4", positive=True)
    epochs: int = parameter(4, "passes over the training tuples; paper: 500", at_least=1)
    curve_every: int = parameter(0, "epochs between two points of the learning curve; 0: none", at_least=0)
    n_modalities: int = parameter(3, "first M of the five backgrounds; paper: 3", at_least=1)
    translated: bool = parameter(False, "small digits at random positions; paper: True")
    scale: float = parameter(0.75, "size of a translated digit in 28 pixels; paper: 0.75")
    shift: float = parameter(1.0, "how far a translated digit moves, of the room it has; 0: it stands in the middle",
                             at_least=0, added=True, apart=True)
    n_train: int = parameter(10_000, "training tuples; paper: 60000", at_least=1)
    n_test: int = parameter(2_000, "test tuples; paper: 10000", at_least=1)
    missing: float = parameter(0.0, "share of training images taken away at random; one per tuple stays; paper: 0")
    network: str = parameter("conv", "conv (small) | norm (small, normalised) | resnet (paper); option channels",
                             kinds=lambda: NETWORK_OPTIONS)
    likelihood_scale: float = parameter(0.75, "scale of the Laplace likelihood, image range [0, 1]; paper: 0.75",
                                        positive=True)
    n_probe: int = parameter(5_000, "training encodings for the linear probe; paper: 10000", at_least=1)
    classifier_epochs: int = parameter(4, "epochs of the digit classifiers behind the coherence; paper: 10",
                                       at_least=1)
    n_likelihood: int = parameter(0, "draws per tuple of the log-likelihood of 1000 test tuples; 0: not measured",
                                  at_least=0)
    validation: bool = parameter(False, "measure on 5000 tuples kept out of the training, not on the test set",
                                 added=True)
    inception: str = parameter("", "local weights of the Inception network for the FID; empty: no FID")
    seed: int = parameter(0, "seed of weights, order and draws; paper: 5 seeds", last=True)
    data_seed: int = parameter(0, "seed of crops, positions and pairing", last=True)
    corrupted: str = parameter("none", "in place of one picture of a tuple: none | noise | swap | blank; options "
                               "known, trust", kinds=lambda: KINDS, added=True, apart=True)
    information: bool = parameter(False, "measure what each latent keeps: nats, and probes of every factor", added=True,
                                  apart=True)
    density: str = parameter("none", "of the latents, of which is measured what it generates: none | prior | mixture | "
                             "diffusion | both; options components, updates, width", kinds=lambda: DENSITIES,
                             added=True, apart=True)
    root: str = parameter("", "folder with mnist/ or the released m0 ... m4 folders; empty: data/polymnist", last=True)
    backgrounds: str = parameter("", "folder of other background photos; empty: the five that ship")

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.missing < 1:
            raise UserError(f"missing must be at least 0 and below 1, got {self.missing}")
        if self.validation and self.n_validation:
            raise UserError("validation measures on the tuples that n_validation is taken from: leave one of them out")
        told = self.choice("corrupted")[1]
        if told.get("known") and told.get("trust"):
            raise UserError("what is known to lie counts as missing and needs no trust: leave known or trust out")
        self._check_information()
        if self.density == "prior" and _refuses(self.build_objective().prior_latents, 1, self.n_modalities,
                                                self.latent_dim):
            raise UserError(f"{self.objective} has no prior to sample from: use density=mixture, diffusion or both")
        if self.density != "none" and (self.corrupted != "none" or self.n_modalities < 2):
            raise UserError("what a density generates is measured on tuples of two honest pictures or more: leave "
                            "density or corrupted out, and set n_modalities to 2 or more")

    def _check_information(self) -> None:
        """What could not be measured after the training is refused before."""
        m, rows = self.n_modalities, {"test": self.n_test, **({"validation": self.n_validation} if self.n_validation
                                                              else {})}
        honest = 1.0 if self.corrupted == "none" else (m - 2) / m  # share of the tuples in which neither of two lies
        least = int(6 * self.latent_dim / honest) if honest else 0
        for split, n in rows.items():
            if self.information and n < least:
                raise UserError(f"information takes {least} {split} tuples at latent_dim={self.latent_dim}, n_{split} "
                                f"is {n}: raise it, or lower latent_dim")
            if self.density != "none" and n <= N_CLASSES:
                raise UserError(f"what a density generates is compared with how {split} tuples of one digit differ, "
                                f"n_{split} is {n}: raise it to {N_CLASSES + 1} or more, then two show the same digit")

    def data(self, split: str) -> MultimodalData:
        """`n_train` tuples of the training or `n_test` of the test set. Validation tuples are made of digits that no
        training tuple shows: a digit is in several tuples. Not so of the released layout, whose files do not say which
        digit a picture was made of: there most digits of validation tuples are in training tuples too."""
        split, made = self._made(split)
        data = polymnist.load(split, **made)
        kind, options = self.choice("corrupted")
        data = corrupt(data, kind, self.data_seed)
        if split == "train" and self.missing:
            data = replace(data, observed=observed_at_random(data.observed.shape, self.missing, self.data_seed))
        if split == "train" and options.get("known"):
            data = clean(data, self.data_seed)
        if options.get("trust"):
            data = trusted(data, self.data_seed)
        likelihood = Laplace(self.likelihood_scale)
        return replace(data, specs=tuple(replace(spec, likelihood=likelihood) for spec in data.specs))

    def factors(self, split: str) -> dict[str, np.ndarray]:
        """What the tuples of `data(split)` were made of: `polymnist.factors`. Of a picture that lies, what it hides."""
        split, made = self._made(split)
        return polymnist.factors(split, **made)

    def _made(self, split: str) -> tuple[str, dict]:
        """The split of the files that is meant, and how the builder makes it."""
        if split == "test" and self.validation:
            split = "validation"
        n = self.n_validation if split == "validation" and self.n_validation else self.n_test
        root, photos = (paths.placed(folder) if folder else None for folder in (self.root, self.backgrounds))
        return split, dict(root=root, n_modalities=self.n_modalities, translated=self.translated, scale=self.scale,
                           shift=self.shift, backgrounds=photos, seed=self.data_seed,
                           held_out=self.validation or self.n_validation > 0,
                           n=self.n_train if split == "train" else n)

    def fit(self, model, train, on_epoch=None, validation=None) -> training.History:
        """As everywhere; what could not be measured afterwards is refused before the training."""
        if len(train.labels.unique()) < 2:
            raise UserError(f"all {len(train)} training tuples show a {int(train.labels[0])}: the probe and the "
                            "coherence need two, add tuples of another digit (n_train), or train with mmvm.fit, which "
                            "needs no labels")
        if "trust" in model.objective.needs and train.trust is None:
            raise UserError("weights=given has to be told which picture lies: set corrupted to noise:trust=true, "
                            "swap:trust=true or blank:trust=true")
        self._check_fitted(train)
        return super().fit(model, train, on_epoch, validation)

    def _check_fitted(self, train: MultimodalData) -> None:
        """`UserError` where the rows that probes and densities are fitted to are too few."""
        rows = some_rows(len(train), self.n_probe, self.data_seed)
        honest = train if self.corrupted == "none" else clean(train, self.data_seed)
        for name, seen in zip(train.names, honest.observed[:, rows]):
            n, digits = int(seen.sum()), len(train.labels[rows][seen].unique())
            if digits < 2 or self.information and n < 10:
                raise UserError(f"the probe of {name} would be fitted to {n} pictures of {digits} digits, it needs two "
                                f"digits{' and 10 pictures' * self.information}: raise n_probe or n_train, or lower "
                                "missing")
        if self.density != "none" and (whole := int(train.observed.all(0).sum())) < 2:
            raise UserError(f"{whole} training tuples have every picture, what a density generates is compared with "
                            "two or more: raise n_train, or lower missing")

    def few(self) -> "PolyMNIST":
        return replace(self, n_train=1, corrupted="none")  # a swap takes two

    def build_networks(self, data):
        name, options = self.choice("network")
        encoder, decoder = NETWORKS[name]
        return ([encoder(self.latent_dim, options["channels"]) for _ in data.specs],
                [decoder(self.latent_dim, options["channels"]) for _ in data.specs])

    @property
    def trunk(self) -> str:
        """That of the digit classifiers: the paper's, or a small one."""
        return self.choice("network")[0]

    def curve(self, train, test):
        """A probe fitted to 5,000 encodings and the error, both on the first 2,000 test tuples."""
        some_train, some_test = train.subset(slice(0, 5_000)), test.subset(slice(0, 2_000))

        def point(model: MultimodalVAE, epoch: int) -> dict:
            if epoch % self.curve_every and epoch != self.epochs:
                return {}
            probe = evaluation.linear_probe(model, some_train, some_test, n=None)
            error = evaluation.reconstruction_error(model, some_test)
            return {**{f"curve/probe/{name}": float(value) for name, value in zip(train.names, probe)},
                    "curve/reconstruction/sum": float(error.sum())}
        return point

    def classifiers(self, train: MultimodalData, test: MultimodalData) -> tuple[list[nn.Module], np.ndarray]:
        """One digit classifier per modality and their accuracies on the test images (M,); on pictures that do not
        lie."""
        if self.corrupted != "none":
            honest = replace(self, corrupted="none")
            train, test = honest.data("train"), honest.data("test")
        device = training.resolve_device(self.device)
        trunk = self.trunk
        settings = {"build": lambda: DigitClassifier(trunk), "epochs": self.classifier_epochs, "device": device,
                    **(PAPERS_CLASSIFIER if trunk == "resnet" else {})}
        trained, accuracies = [], []
        for spec in train.specs:
            x = train.modalities[spec.name]
            classifier = keep_classifier(
                spec.name, [content_hash(x), trunk, self.classifier_epochs],
                settings["build"],
                lambda x=x, spec=spec: evaluation.train_classifier(x, train.labels, spec, **settings), device)
            trained.append(classifier)
            accuracies.append(evaluation.classifier_accuracy(classifier, test.modalities[spec.name], test.labels, spec))
        return trained, np.array(accuracies)

    def evaluate(self, model: MultimodalVAE, train: MultimodalData, test: MultimodalData,
                 classifiers: list[nn.Module]) -> Metrics:
        """probe, reconstruction, latent_information (rates of `evaluation.diagnostics`; (M,) each), coherence,
        imputation and classifier_distance (M, M), effective_beta; where asked for and defined, log_likelihood and fid
        (M, M). Where one picture of each tuple is `corrupted`, what asks one modality at a time also of the others
        alone, probe_clean, coherence_clean and so on, and a gate for the share of the tuples in which the expert with
        the largest weight lies, gate_first_lies. With `information` the rows of `evaluation.kept`, of what is not
        corrupted; of each `density` those of `generation.generation`, named prior_..., mixture_... and diffusion_...,
        those of `variety.factor_spread`, and joint_fid, (M,), where an `inception` is given."""
        rates = evaluation.diagnostics(model, test)
        metrics = Metrics({"probe": evaluation.linear_probe(model, train, test, n=self.n_probe, seed=self.data_seed),
                           "reconstruction": evaluation.reconstruction_error(model, test),
                           "latent_information": np.array([rates[f"rate/{name}"] for name in test.names]),
                           **cross_modal(model, test, classifiers),
                           "effective_beta": np.array(model.objective.effective_beta(self.beta, len(test.specs)))})
        if self.corrupted != "none":
            honest = [clean(data, self.data_seed) for data in (train, test)]
            probe = evaluation.linear_probe(model, *honest, n=self.n_probe, seed=self.data_seed)
            found = {"probe": probe, **cross_modal(model, honest[1], classifiers)}
            metrics.update({f"{name}_clean": value for name, value in found.items()})
            if isinstance(model.objective, MMVM) and model.objective.gate is not None:
                lies = torch.from_numpy(corrupted_modality(test, self.data_seed))
                metrics["gate_first_lies"] = np.array(float((first_experts(model, test) == lies).double().mean()))
        if self.information:
            rows, notes = self._kept(model, train, test)
            metrics.update(rows)
            metrics.notes.update(notes)
        for name, density in self.densities(model, train).items():
            self._generated(metrics, name, model, density, train, test, classifiers)
        metrics.notes["classifier_distance"] = f"trunk={self.trunk}; n={len(test)}"
        # not of a method that defines no density of what is observed: the chapter measures those too
        if self.n_likelihood and not _refuses(evaluation.log_likelihood, model, test.subset(slice(0, 1)), 1):
            found = evaluation.log_likelihood(model, test.subset(slice(0, 1_000)), self.n_likelihood)
            metrics["log_likelihood"], metrics.notes["log_likelihood"] = np.array(found.mean), found.note()
        if self.inception:
            found = fid(model, test, self.inception)
            metrics["fid"], metrics.notes["fid"] = found.value, found.note()
        return metrics

    def _generated(self, metrics: Metrics, name: str, model: MultimodalVAE, density: typing.Any,
                   train: MultimodalData, test: MultimodalData, classifiers: list[nn.Module]) -> None:
        """Adds what is measured of a density's draws, and how they vary in what is known of the pictures' making."""
        found = generation(model, density, train, test, classifiers, seed=self.data_seed)
        notes = dict.fromkeys(found, f"density={self.density}; trunk={self.trunk}")
        own = {factor: both for factor, both in self._known(train, test).items() if factor != "digit"}
        if own and not self.missing:
            spread = factor_spread(model, density, train, test, own, classifiers, seed=self.data_seed)
            found |= spread
            notes |= dict.fromkeys(spread, f"density={self.density}; trunk={self.trunk}")
        if self.inception:
            drawn = joint_fid(model, density, test, self.inception, seed=self.data_seed)
            found["joint_fid"], notes["joint_fid"] = drawn.value, f"density={self.density}; {drawn.note()}"
        metrics.update({f"{name}_{metric}": value for metric, value in found.items()})
        metrics.notes.update({f"{name}_{metric}": note for metric, note in notes.items()})

    def densities(self, model: MultimodalVAE, train: MultimodalData) -> dict[str, typing.Any]:
        """What `density` names, by kind: fitted to the latents of a trained model, which stays as it is, or None for
        its method's own prior, and both fitted ones for "both"."""
        chosen, options = self.choice("density")
        found: dict[str, typing.Any] = {"prior": None} if chosen == "prior" else {}
        if chosen in ("mixture", "both"):
            found["mixture"] = fit_latent_density(model, train, options["components"], seed=self.seed)
        if chosen in ("diffusion", "both"):
            found["diffusion"] = fit_latent_diffusion(model, train, updates=options["updates"], width=options["width"],
                                                      seed=self.seed)
        return found

    def _kept(self, model: MultimodalVAE, train: MultimodalData, test: MultimodalData) -> tuple[dict, dict]:
        """Rows and notes of `evaluation.kept`, with every factor that is known of the pictures' making."""
        factors = self._known(train, test)
        if self.corrupted != "none":
            train, test = (clean(data, self.data_seed) for data in (train, test))
        return evaluation.kept(model, train, test, factors, ("digit",), self.n_probe, self.data_seed)

    def _known(self, train: MultimodalData, test: MultimodalData) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """What is known of the pictures' making, values of training and test tuples: the digit (N,), and of each
        modality its own (M, N), but of the released pictures. Without what does not differ, as where digits of shift 0
        stand."""
        found = {"digit": (train.labels.numpy(), test.labels.numpy())}
        if not is_released(paths.placed(self.root) if self.root else paths.data_root() / "polymnist"):
            # "instance" is a number without an order, and of 60,000 classes: ink and slant stand for it
            parts = [self.factors((data.ids or [])[0].partition("/")[0]) for data in (train, test)]
            found |= {name: (parts[0][name], parts[1][name]) for name in parts[0] if name not in ("digit", "instance")
                      and all((x != x[:, :1]).any(1).all() for x in (parts[0][name], parts[1][name]))}
        return found

    def run_hash(self) -> str:
        """As everywhere; of the Inception network counts that there is one, not where its weights lie."""
        return super().run_hash() if self.inception in ("", GIVEN) else replace(self, inception=GIVEN).run_hash()


def _refuses(draw: Callable, *arguments: typing.Any) -> bool:
    """Whether a method raises `UserError` for what it does not define; the caller's random state stays."""
    with torch.random.fork_rng([]):
        try:
            draw(*arguments)
        except UserError:
            return True
    return False


@torch.no_grad()
def first_experts(model: MultimodalVAE, data: MultimodalData) -> Tensor:
    """The modality with the largest weight in the mixture of each tuple, (N,)."""
    first = []
    with evaluating(model) as device:
        for batch in data.batches(BATCH):
            observed = batch.observed.to(device)
            q = model.encode([x.to(device) for x in batch.x], observed, batch.trust)
            first.append(model.objective.log_weights(q, observed).argmax(0).cpu())
    return torch.cat(first)


def observed_at_random(shape: tuple[int, int], missing: float, seed: int) -> Tensor:
    """Each entry of (M, N) absent with probability `missing`; a tuple that would lose all keeps one at random."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(shape, generator=generator)
    observed = draws >= missing
    kept = draws.argmax(0)
    observed[kept, torch.arange(shape[1])] = True
    return observed
