"""Hippocampus: the spikes of M animals that smell the same odors (paper, section 5.3; appendix B.8)."""

import typing
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from torch import nn

from mmvm import evaluation, paths, training
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE
from mmvm.options import Option
from mmvm.study.classifiers import content_hash, keep_classifier
from mmvm.study.parameters import parameter
from mmvm.study.study import Metrics, Study
from studies.hippocampus import alignment, data as hippocampus, deviance, files, simulator as hippocampus_simulator
from studies.hippocampus.data import Windows
from studies.hippocampus.files import Session
from studies.hippocampus.networks import NETWORK_OPTIONS, OdorClassifier, SpikeDecoder, SpikeEncoder

# few trials and many inputs: without a strong weight decay the small classifier learns its trials by heart
CLASSIFIER = {"learning_rate": 1e-2, "weight_decay": 1.0}
WINDOWS = {"bins": (
    Option("start", -1, "first bin of the windows in all animals; -1: the paper's for its rats, else 0", at_least=-1),
    Option("window", 10, "bins per window", at_least=1, paper="10"),
    Option("stride", 1, "bins between two windows", at_least=1, paper="1"),
    Option("length", 25, "bins of a trial that windows are cut from", at_least=1, paper="25"))}
OF_ANIMALS = ("probe", "probe_shared", "information", "information_upper", "aggregate_kl")  # and factors; else averages
PAPERS_CLASSIFIER = {"learning_rate": 1e-3}  # appendix B.8


@dataclass(frozen=True)
class Hippocampus(Study):
    """Parameters of the chapter `hippocampus`."""

    name: typing.ClassVar[str] = "hippocampus"
    files: typing.ClassVar[ModuleType] = hippocampus
    older = {**{name: ("network", name) for name in ("width", "bottleneck", "input_scale", "dropout", "start_logvar",
                                                     "start_at_mean")},
             **{name: ("windows", name) for name in ("start", "window", "stride", "length")}}
    free: typing.ClassVar[tuple[str, ...]] = (*Study.free, "classifier_epochs", "classifier_width")

    beta: float = parameter(1e-4, "weight of the regulariser; paper: 1e-5, 1e-4, 1e-3, 2.5e-3, 5e-3, 1e-2", at_least=0)
    latent_dim: int = parameter(2, "D, per animal; paper: 2", at_least=1)
    batch_size: int = parameter(64, "windows per update; paper: 128", at_least=1)
    learning_rate: float = parameter(5e-3, "Adam; paper: 1e-3", positive=True)
    epochs: int = parameter(12, "passes over the training windows; paper: 1000", at_least=1)
    likelihood: str = parameter("squared_error", "squared_error (paper) of count / 10 | poisson of counts",
                                hippocampus.LIKELIHOODS)
    network: str = parameter("dense", "dense; options of it: width, bottleneck, input_scale, dropout, start_...",
                             kinds=lambda: NETWORK_OPTIONS)
    n_modalities: int = parameter(5, "animals: the first M of the folder by name; paper: 5", at_least=1)
    odors: str = parameter("ABCD", "classes that are used, A the first; paper: ABCD")
    windows: str = parameter("bins", "parts of a trial, in bins of 10 ms; options start, window, stride, length",
                             kinds=lambda: WINDOWS)
    correct_only: bool = parameter(False, "leave out trials with a wrong answer; paper: False")
    in_sequence_only: bool = parameter(False, "leave out trials whose odor was out of sequence; paper: False")
    pairing: str = parameter("seeded", "trials of an odor are paired in random order | by index (released code)",
                             hippocampus.PAIRINGS)
    unequal: str = parameter("min", "odors with unequal trial numbers: min (paper) | missing (modalities)",
                             hippocampus.UNEQUAL)
    shuffle_odors: bool = parameter(False, "control: permute each animal's odors before pairing")
    in_sample: bool = parameter(False, "test on the trials that are trained on; released code and paper: True")
    n_folds: int = parameter(5, "parts that the trials are cut into; one is for testing", at_least=2)
    fold: int = parameter(-1, "the part for testing; -1: seed modulo n_folds, so seeds are folds too", at_least=-1)
    classifier_epochs: int = parameter(10, "epochs of the odor classifiers behind the coherence; paper: 51", at_least=1)
    classifier_width: int = parameter(64, "their hidden layers: this and half of it; 0: 1024, 512, 256, 64 (paper)",
                                      at_least=0)
    information: bool = parameter(False, "measure what each latent keeps: nats, and probes of every factor", added=True,
                                  apart=True)
    seed: int = parameter(0, "seed of weights, order and draws", last=True)
    data_seed: int = parameter(0, "seed of pairs and folds", last=True)
    root: str = parameter("", "folder in the release's layout; empty: simulated in data/hippocampus", last=True)

    def __post_init__(self):
        super().__post_init__()
        if self.in_sample and self.n_validation:
            raise UserError("in_sample tests on what is trained on, n_validation keeps some of it out: leave one of "
                            "them at its default")
        if self.fold >= self.n_folds:
            raise UserError(f"fold must be below n_folds ({self.n_folds}), got {self.fold}")
        unknown = [odor for odor in self.odors if odor not in files.LETTERS]
        if unknown or len(self.odors) < 2 or len(set(self.odors)) < len(self.odors):
            raise UserError(f"odors must be different letters from A on, two or more, for probes to tell apart, got "
                            f"{self.odors!r}")

    # the steps, in the order in which a run takes them ---------------------------------------------------------------

    def sessions(self) -> dict[str, Session]:
        """The animals' recordings, simulated first where there is nothing in the default folder."""
        root = paths.placed(self.root) if self.root else files.default_root()
        if not self.root and not root.exists():
            hippocampus.simulate(root)
        start = self.choice("windows")[1]["start"]
        sessions = files.read(root, starts=None if start < 0 else start)
        if len(sessions) < self.n_modalities:
            raise UserError(f"{root} holds {len(sessions)} animals, n_modalities asks for {self.n_modalities}: lower "
                            "it")
        return dict(list(sessions.items())[:self.n_modalities])

    def data(self, split: str) -> Windows:
        return self.cut(self.sessions(), split)

    def cut(self, sessions: dict[str, Session], split: str) -> Windows:
        """The windows of any sessions, as these parameters ask for them. Validation windows are those of whole trials:
        neighbouring windows overlap. Raises `UserError` where what is measured after the training could not be."""
        bins = {name: value for name, value in self.choice("windows")[1].items() if name != "start"}
        data = hippocampus.from_sessions(
            sessions, "in_sample" if self.in_sample else "test" if split == "test" else "train", **bins,
            odors=self.odors, correct_only=self.correct_only, in_sequence_only=self.in_sequence_only,
            pairing=self.pairing, unequal=self.unequal,
            shuffle_odors=self.shuffle_odors, n_folds=self.n_folds,
            fold=self.fold if self.fold >= 0 else self.seed % self.n_folds, seed=self.data_seed,
            likelihood=self.likelihood)
        data = data if split == "test" else self.part(data, split, hippocampus.trial_numbers(data))
        self._check_measurable(data, split)
        return data

    def _check_measurable(self, data: Windows, split: str) -> None:
        """What could not be measured after the training is refused before: an animal without windows of this split (or,
        in training, of two odors), and for `information` pairs of animals with too few."""
        for name, seen in zip(data.names, data.observed):
            n, wanted = len(data.labels[seen].unique()), 2 if split == "train" else 1
            if n < wanted:
                fold = self.fold if self.fold >= 0 else self.seed % self.n_folds
                raise UserError(f"{name} has {split} windows of {n} odors in fold {fold} of {self.n_folds}, {wanted} "
                                "needed: leave the animal out, use unequal=min, or choose another fold or n_folds")
        if not self.information or split == "train":
            return
        seen, width = data.observed.long(), self.latent_dim
        pairs, per_trial = (seen @ seen.T).fill_diagonal_(0), len(data.window.unique())
        halves = pairs // per_trial // 2 * per_trial  # the smaller one: whole trials are in one half
        few = (pairs > 0) & ((pairs < 4 * width) | (halves < 2 * width))
        if few.any():
            cure = "n_folds" if split == "test" else "n_folds, or raise n_validation"
            raise UserError(f"information takes {4 * width} {split} windows at latent_dim={width}, two animals have "
                            f"{int(pairs[few].min())}, and {int(halves[few].min())} in half of the trials, which takes "
                            f"{2 * width}: lower latent_dim, stride or {cure}")

    def build_networks(self, data):
        encoders, decoders, options = [], [], self.choice("network")[1]
        for spec, x, seen in zip(data.specs, data.modalities.values(), data.observed):
            mean = x[seen].float().mean((0, 2)).unsqueeze(-1)  # (units, 1) per bin, as stored
            start_at = (mean + 1e-3).log() if self.likelihood == "poisson" else mean * spec.scale
            encoders.append(SpikeEncoder(spec.shape, self.latent_dim, options["width"],
                                         options["input_scale"] / spec.scale, options["dropout"],
                                         options["start_logvar"], options["bottleneck"]))
            decoders.append(SpikeDecoder(spec.shape, self.latent_dim, options["width"],
                                         start_at if options["start_at_mean"] else None))
        return encoders, decoders

    def classifiers(self, train: Windows, test: Windows) -> tuple[list[nn.Module], np.ndarray]:
        """One odor classifier per animal and their accuracies on the test windows (M,)."""
        device = training.resolve_device(self.device)
        widths = (self.classifier_width, self.classifier_width // 2) if self.classifier_width else (1024, 512, 256, 64)
        settings = CLASSIFIER if self.classifier_width else PAPERS_CLASSIFIER
        trained, accuracies = [], []
        for spec, seen, seen_test in zip(train.specs, train.observed, test.observed):
            x, labels = train.modalities[spec.name][seen], train.labels[seen]

            def build(shape=spec.shape):
                return OdorClassifier(shape, train.n_classes, widths)
            key = [content_hash(x), content_hash(labels), self.likelihood, self.classifier_epochs, widths]

            def fit(x=x, labels=labels, spec=spec, build=build):
                return evaluation.train_classifier(x, labels, spec, build=build, device=device,
                                                   epochs=self.classifier_epochs, **settings)
            classifier = keep_classifier(spec.name.lower(), key, build, fit, device)
            trained.append(classifier)
            accuracies.append(evaluation.classifier_accuracy(classifier, test.modalities[spec.name][seen_test],
                                                             test.labels[seen_test], spec))
        return trained, np.array(accuracies)

    def evaluate(self, model: MultimodalVAE, train: Windows, test: Windows, classifiers: list[nn.Module]) -> Metrics:
        """What the latents know, and whether they know it in the same way.

        probe, probe_shared (M,) and probe_transfer (M, M); probe_chance and probe_shared_chance, the 95th percentile
        under permuted trials; silhouette_odor and silhouette_animal; coherence, imputation and deviance_explained
        (M, M), deviance_label (M,); reconstruction (M,) in nats and squared_error (M,), without the constant, where
        that is the likelihood; effective_beta. Of simulated rats also odor_recovery, odor_recovery_shared and
        state_recovery (M,). With `information` the rows of `evaluation.kept`, the factors as in `known`."""
        probes = alignment.probes(model, train, test)
        groups, labels = hippocampus.trial_numbers(test), test.labels.numpy()
        reconstruction = evaluation.reconstruction_error(model, test)
        silhouettes = alignment.silhouettes(model, test)
        metrics = Metrics({"probe": np.diag(probes.transfer).copy(), "probe_shared": probes.shared,
                           "probe_transfer": probes.transfer,
                           "silhouette_odor": np.array(silhouettes["label"]),
                           "silhouette_animal": np.array(silhouettes["modality"]),
                           "coherence": evaluation.coherence(model, test, classifiers),
                           "imputation": evaluation.imputation_error(model, test),
                           "deviance_explained": deviance.deviance_explained(model, train, test),
                           "deviance_label": deviance.explained_by_label(train, test, (train.window, test.window)),
                           "reconstruction": reconstruction,
                           "effective_beta": np.array(model.objective.effective_beta(self.beta, len(test.specs)))})
        for name, hits in (("probe", probes.own_hits), ("probe_shared", probes.shared_hits)):
            chance = alignment.chance(hits, labels, groups)
            metrics[f"{name}_chance"] = np.array(chance.upper)
            metrics.notes[f"{name}_chance"] = f"95th percentile; mean={chance.mean:.3g}; p={chance.p:.3g}"
        if self.likelihood == "squared_error":
            metrics["squared_error"] = reconstruction - np.array(
                [spec.likelihood.floor(int(np.prod(spec.shape))) for spec in test.specs])
        metrics.update(self._recovery(model, train, test))
        if self.information:
            factors = self.known(train, test)
            rows, notes = evaluation.kept(model, train, test, factors, {"odor", "position"} & set(factors),
                                          seed=self.data_seed, groups=groups)
            metrics.update(rows)
            metrics.notes.update(notes)
        return metrics

    def rows(self, metrics, history, device, train):
        """As everywhere, but of pairs of animals the averages alone, and single animals of `OF_ANIMALS` alone: a run
        has 190 numbers, and hundreds of runs are committed. The note says what a control did. A number that overflowed
        is left out: nothing bounds the log rates that a decoder gives to a draw far from all it was trained on."""
        control = ["in sample"] * (self.in_sample) + ["odors permuted"] * self.shuffle_odors
        rows = [row for row in super().rows(metrics, history, device, train) if not row["source"] and (
            row["target"] not in train.names or row["metric"] in OF_ANIMALS or row["metric"].startswith("factor_"))
            and np.isfinite(row["value"])]
        return [{**row, "note": "; ".join(filter(None, [*control, row["note"]]))} for row in rows]

    def _recovery(self, model: MultimodalVAE, train: Windows, test: Windows) -> dict[str, np.ndarray]:
        """R^2 of a linear map from the means to the simulation's latents; empty for recordings."""
        truth = self._truth(train, test)
        if not truth:
            return {}
        z, z_test = (evaluation.encode_means(model, data).numpy() for data in (train, test))
        (odor, odor_test), (state, state_test) = truth["odor"], truth["state"]
        own, shared = alignment.linear_recovery(z, odor, z_test, odor_test)
        return {"odor_recovery": own, "odor_recovery_shared": shared,
                "state_recovery": alignment.linear_recovery(z, state, z_test, state_test)[0]}

    def _truth(self, train: Windows, test: Windows) -> dict[str, list[np.ndarray]]:
        """The simulation's latents "odor" and "state" of training and test windows, (M, N, 2) each; empty for
        recordings."""
        if not hippocampus_simulator.has_truth(train) or not (train.observed.all() and test.observed.all()):
            return {}
        bins = self.choice("windows")[1]
        starts = dict.fromkeys(train.names, bins["start"]) if bins["start"] >= 0 else files.STARTS
        return {what: [hippocampus_simulator.window_truth(data, what, window=bins["window"], stride=bins["stride"],
                                                          starts=starts) for data in (train, test)]
                for what in ("odor", "state")}

    def known(self, train: Windows, test: Windows) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """What is known of the windows, of training and test: odor (N,), time (N,), the number of the window in its
        trial, position (M, N) in the sequence where all sessions say it, and state_1 and state_2 (M, N) of simulated
        rats. Without what does not differ in an animal's own windows."""
        found = {"odor": (train.labels.numpy(), test.labels.numpy()),
                 "time": (train.window.numpy(), test.window.numpy())}
        if train.position is not None and test.position is not None:
            found["position"] = train.position.numpy(), test.position.numpy()
        for own, own_test in filter(None, [self._truth(train, test).get("state")]):
            found |= {f"state_{number + 1}": (own[..., number], own_test[..., number]) for number in range(2)}
        return {name: both for name, both in found.items()
                if all(len(np.unique(rows[seen])) > 1 for part, data in zip(both, (train, test))
                       for rows, seen in zip(np.broadcast_to(part, data.observed.shape), data.observed.numpy()))}
