"""MIMIC-CXR: a frontal and a lateral X-ray of a chest, and fourteen labels (paper, tables 1 to 3)."""

import typing
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import torch
from torch import nn

from mmvm import evaluation, paths, training
from mmvm.data import Repeated
from mmvm.errors import UserError
from mmvm.evaluation import by_label, multilabel
from mmvm.likelihoods import Laplace
from mmvm.model import MultimodalVAE
from mmvm.options import Option
from mmvm.study.classifiers import content_hash, keep_classifier
from mmvm.study.parameters import parameter
from mmvm.study.study import Metrics, Study
from studies.mimic_cxr import calibration, data as mimic_cxr
from studies.mimic_cxr.data import ChestXrays
from studies.mimic_cxr.efficiency import label_efficiency, learnable_labels
from studies.mimic_cxr.forest import forest
from studies.mimic_cxr.networks import NETWORK_OPTIONS, SIZES, XrayClassifier, XrayDecoder, XrayEncoder
from studies.mimic_cxr.supervised import Supervised, with_labels

MIN_COUNT = 10  # samples that a point of a reliability curve must stand for


PROBES = {"forest": (
    Option("trees", 30, "trees of a random forest, one forest per label and view", at_least=1, paper="5000"),
    Option("depth", 30, "their greatest depth", at_least=1, paper="30"),
    Option("n_jobs", 1, "processor cores that grow the forests; -1: all; changes rounding alone", at_least=-1),
    Option("bins", 10, "of the reliability curves and of the expected calibration error", at_least=1))}


@dataclass(frozen=True)
class MimicCXR(Study):
    """Parameters of the chapter `mimic-cxr`."""

    name: typing.ClassVar[str] = "mimic-cxr"
    files: typing.ClassVar[ModuleType] = mimic_cxr
    older = {**{name: ("network", name) for name in ("channels", "dropout")},
             **{name: ("probes", name) for name in ("trees", "depth", "n_jobs", "bins")}}
    free: typing.ClassVar[tuple[str, ...]] = (*Study.free, "n_test", "n_probe", "probes", "label_sizes",
                                              "classifier_epochs")

    beta: float = parameter(1.0, "weight of the regulariser; paper: not stated; released code: 1", at_least=0)
    latent_dim: int = parameter(32, "D, per view; released code: 256", at_least=1)
    batch_size: int = parameter(32, "pairs per update; paper: 32", at_least=1)
    learning_rate: float = parameter(2e-3, "Adam; paper: 5e-5", positive=True)
    epochs: int = parameter(4, "passes over the training pairs; paper: 240", at_least=1)
    supervised: bool = parameter(False, "train the supervised reference, no VAE")
    n_subjects: int = parameter(450, "phantom patients, a tenth for testing; unused with a root",
                                at_least=10)
    policy: str = parameter("all_pairs", "all_pairs of a study (paper) | one_pair | missing (single views too)",
                            mimic_cxr.POLICIES)
    split_by: str = parameter("subject", "80/10/10 by subject (paper) | official (the set's own file)",
                              mimic_cxr.SPLITS_BY)
    uncertain: str = parameter("zero", "a label marked -1 counts as: zero (paper) | one | ignore (not known)",
                               mimic_cxr.UNCERTAIN)
    size: int = parameter(64, "pixels of an image's edge, 64, 128 or 224; paper: 224", SIZES)
    equalise: bool = parameter(False, "equalise the images' histograms; released code: True")
    lateral_missing: float = parameter(0.0, "share of the training rows whose lateral is hidden; paper: 0", at_least=0)
    n_test: int = parameter(0, "test rows that are measured, at random; 0: all; paper: all", at_least=0)
    likelihood_scale: float = parameter(0.75, "scale of the Laplace likelihood, image range [0, 1]; paper: 0.75",
                                        positive=True)
    network: str = parameter("residual", "residual; options channels, dropout; paper: 64, 0.5",
                             kinds=lambda: NETWORK_OPTIONS)
    n_probe: int = parameter(2_000, "training encodings for the probes; 0: all; released code: 20000",
                             at_least=0)
    probes: str = parameter("forest", "on the views' means; options trees, depth, n_jobs, bins",
                            kinds=lambda: PROBES)
    label_sizes: str = parameter("100,300,1000,3000", "training samples of the label-efficiency curve; all are added")
    classifier_epochs: int = parameter(6, "epochs of the classifiers that judge imputed views", at_least=1)
    seed: int = parameter(0, "seed of weights, order and draws; paper: 3 seeds", last=True)
    data_seed: int = parameter(0, "seed of phantoms, splits, hidden views and the probes' choices", last=True)
    plan: str = parameter("plain", "how updates are computed: plain | auto | as in channels_last",
                          last=True)
    root: str = parameter("", "folder in MIMIC-CXR-JPG's layout; empty: phantoms", last=True)
    out: str = parameter("", "folder of checkpoint and rows, from the root; empty: none", last=True)

    def __post_init__(self):
        super().__post_init__()
        if not self.lateral_missing < 1:
            raise UserError(f"lateral_missing must be below 1, got {self.lateral_missing}")
        if self.choice("probes")[1]["n_jobs"] == 0:
            raise UserError("n_jobs must be at least 1, or -1 for all cores, got 0")
        if self.supervised and (self.objective != type(self).objective):
            raise UserError("supervised trains no VAE: leave objective and its options at their defaults")
        self._label_sizes()

    @property
    def n_modalities(self) -> int:
        return 2

    def method(self) -> str:
        """As everywhere; runs with hidden laterals are methods of their own, so that no table averages over them."""
        hidden = f"/lateral_missing={self.lateral_missing:g}" if self.lateral_missing else ""
        return ("supervised" if self.supervised else super().method()) + hidden

    # the steps, in the order in which a run takes them ---------------------------------------------------------------

    def data(self, split: str) -> ChestXrays:
        """All training rows, with `lateral_missing` of their lateral views hidden, or `n_test` of the test rows. Makes
        the phantoms where there is no root; a relative root starts at the repository's. Validation rows are those of
        training subjects who are kept out, with all their views."""
        root = paths.placed(self.root) if self.root else mimic_cxr.simulate(n_subjects=self.n_subjects,
                                                                                 seed=self.data_seed)
        data = mimic_cxr.load("test" if split == "test" else "train", root, policy=self.policy,
                              split_by=self.split_by, uncertain=self.uncertain, size=self.size,
                              equalise=self.equalise, split_seed=self.data_seed)
        likelihood = Laplace(self.likelihood_scale)
        data = replace(data, specs=tuple(replace(spec, likelihood=likelihood) for spec in data.specs))
        if split != "test":
            data = self.part(data, split, data.subject)
        if split == "train" and self.lateral_missing:
            data = hide_laterals(data, self.lateral_missing, self.data_seed)
        if split == "test" and 0 < self.n_test < len(data):
            generator = torch.Generator().manual_seed(self.data_seed)
            data = data.subset(torch.randperm(len(data), generator=generator)[:self.n_test])
        return data

    def few(self):
        return self if self.root else replace(self, n_subjects=min(self.n_subjects, 40), lateral_missing=0.0,
                                              n_validation=0, optimizer="adam")

    def build_networks(self, data):
        options = self.choice("network")[1]
        settings = self.latent_dim, options["channels"], self.size, options["dropout"]
        return [XrayEncoder(*settings) for _ in data.specs], [XrayDecoder(*settings) for _ in data.specs]

    def build_model(self, data: ChestXrays) -> "MultimodalVAE | Supervised":
        """The untrained VAE, or the untrained classifiers of the supervised reference."""
        if not self.supervised:
            return super().build_model(data)
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            return Supervised(with_labels(data).specs, [self._classifier(data) for _ in data.specs])

    def fit(self, model, train: ChestXrays, on_epoch=None, validation: ChestXrays | None = None) -> training.History:
        """As everywhere; what its networks and probes cannot be fitted to is refused before the training."""
        if self.batch_size < 2:
            raise UserError("batch_size must be at least 2, got 1: the networks normalise over the batch")
        for spec, n in zip(train.specs, train.observed.sum(1).tolist()):
            if n < 2:
                raise UserError(f"the {spec.name} view is there in {n} of {len(train)} training rows, its networks and "
                                "probes need two: add studies with it, or train the other view alone with mmvm.fit")
        if self.supervised:
            if self.n_validation:
                validation = with_labels(self.data("validation") if validation is None else validation)
            train = with_labels(train)
        return super().fit(model, train, on_epoch, validation)

    def classifiers(self, train: ChestXrays, test: ChestXrays) -> tuple[list[nn.Module], np.ndarray]:
        """A classifier per view, and their share of right answers on real test samples (M,). They are trained on all
        real views, also on those that are hidden from the model. The supervised reference needs none."""
        if self.supervised:
            return [], np.full(len(train.specs), np.nan)
        if self.lateral_missing:
            train = replace(self, lateral_missing=0.0).data("train")
        device = training.resolve_device(self.device)
        trained, accuracies = [], []
        for m, spec in enumerate(train.specs):
            x, labels = self._seen(train, m)
            some = x.index_select(0, torch.linspace(0, len(x) - 1, min(len(x), 256)).long())
            key = [content_hash(some), content_hash(labels), *self.choice("network")[1].values(),
                   self.classifier_epochs]

            def fit(x=x, labels=labels, spec=spec):
                return multilabel.train_classifier(lambda: self._classifier(train), x, labels, spec,
                                                   epochs=self.classifier_epochs, device=device)
            classifier = keep_classifier(f"mimic-cxr-{spec.name}", key, lambda: self._classifier(train), fit, device)
            trained.append(classifier)
            accuracies.append(multilabel.scores(self._answers(classifier, test, m), test.labels.numpy())["accuracy"])
        return trained, _mean(np.array(accuracies))

    def evaluate(self, model, train: ChestXrays, test: ChestXrays, classifiers: list[nn.Module]) -> Metrics:
        """What the views know of the labels, and what is imagined of a view that is not there.

        Of the random forests on each view's posterior means (of the supervised reference: its own answers): auroc,
        average_precision and calibration_error by view and label, brier, the reliability curve, all labels pooled, as
        reliability_confidence, _frequency and _count, and probe (M,), the AUROC's mean over labels. With the suffix
        _logistic the same of logistic regressions, without the curve and, but for the AUROC, without labels.
        auroc_both: from the means of both views side by side; auroc_average: from the mean of the two probes'
        probabilities. label_efficiency: AUROC of the logistic probe on so many training samples.
        constant_average_precision: of an answer that knows the labels' frequencies. A mean over fewer than all labels,
        because test samples all have one or none does, has a note of how many, labels=9/14.

        reconstruction (M,) and imputation (M, M) in nats, imputation_constant (M,) of the training images' median in
        the view's place; coherence (M, M), and by label across views: AUROC of a classifier of real images on the
        imagined ones; classifier_auroc (M,), on real ones; effective_beta.
        """
        labels = test.labels.numpy()
        metrics = Metrics()
        metrics["constant_average_precision"] = metrics.over_labels(
            "constant_average_precision", multilabel.base_rates(labels)["average_precision"])
        if self.supervised:
            logits = np.stack([self._answers(classifier, test, m) for m, classifier in enumerate(model.encoders)])
            self._add_probe(metrics, "", logits, _sigmoid(logits), labels, test.names)
            return metrics
        self._add_imagination(metrics, model, train, test, classifiers)
        encodings = by_label.encode(model, train, test, self.n_probe or None, self.data_seed)
        options = self.choice("probes")[1]
        settings = {"seed": self.data_seed, **{name: options[name] for name in ("trees", "depth", "n_jobs")}}
        views = [(m,) for m in range(len(test.specs))]
        forests = np.stack([forest(*encodings.of(*view), **settings) for view in views])     # (M, N, C)
        logits = np.stack([by_label.logistic(*encodings.of(*view)) for view in views])
        self._add_probe(metrics, "", forests - 0.5, forests, labels, test.names)
        self._add_probe(metrics, "_logistic", logits, _sigmoid(logits), labels, test.names)
        both = encodings.of(*range(len(test.specs)))
        self._add_auroc(metrics, "auroc_both", forest(*both, **settings), labels)
        self._add_auroc(metrics, "auroc_both_logistic", by_label.logistic(*both), labels)
        sizes = self._label_sizes(int((~np.isnan(encodings.z[..., 0])).sum(1).min()))
        efficiency = label_efficiency(encodings, sizes, self.data_seed)
        metrics["label_efficiency"] = [
            (str(size), name, value) for size, line in zip(sizes, efficiency)
            for name, value in (*zip(test.names, line), ("mean", line.mean()))]
        learnable = [learnable_labels(encodings, m) for m in range(len(test.specs))]
        metrics.over_labels("label_efficiency", np.where(learnable, 1.0, np.nan))
        return metrics

    # pieces ----------------------------------------------------------------------------------------------------------

    def _classifier(self, data: ChestXrays) -> XrayClassifier:
        options = self.choice("network")[1]
        return XrayClassifier(data.labels.shape[1], options["channels"], self.size, options["dropout"])

    def _seen(self, data: ChestXrays, m: int):
        """Images of view m, where it is there, and their labels; nothing is copied."""
        rows = torch.nonzero(data.observed[m]).squeeze(1)
        return Repeated(data.modalities[data.names[m]], rows), data.labels[rows]

    def _answers(self, classifier: nn.Module, data: ChestXrays, m: int) -> np.ndarray:
        """Logits (N, C) of view m, NaN where it is absent."""
        seen = data.observed[m].numpy()
        logits = np.full((len(data), data.labels.shape[1]), np.nan)
        if seen.any():
            logits[seen] = multilabel.classify(classifier, self._seen(data, m)[0], data.specs[m])
        return logits

    def _add_imagination(self, metrics: Metrics, model: MultimodalVAE, train: ChestXrays, test: ChestXrays,
                         classifiers: list[nn.Module]) -> None:
        """What reconstructions and imputations cost, and whether they show the labels."""
        names = test.names
        coherence = multilabel.coherence(model, test, classifiers)["auroc"]
        judged = np.array([multilabel.scores(self._answers(classifier, test, m), test.labels.numpy())["auroc"]
                           for m, classifier in enumerate(classifiers)])
        metrics.over_labels("coherence", coherence)
        metrics.over_labels("classifier_auroc", judged)
        metrics |= {"reconstruction": evaluation.reconstruction_error(model, test),
                "imputation": evaluation.imputation_error(model, test),
                "imputation_constant": evaluation.constant_error(train, test, seed=self.data_seed),
                "coherence": _mean(coherence),
                "coherence_by_label": [(f"{names[s]} to {names[t]}", test.label_names[c], value)
                                       for (s, t, c), value in np.ndenumerate(coherence) if s != t],
                "classifier_auroc": _mean(judged),
                "effective_beta": np.array(model.objective.effective_beta(self.beta, len(test.specs)))}

    def _label_sizes(self, n: int | None = None) -> list[int]:
        """The sizes of the label-efficiency curve: those below n, and n."""
        try:
            sizes = [int(word) for word in self.label_sizes.split(",")] if self.label_sizes else []
        except ValueError:
            sizes = [0]
        if sizes != sorted(set(sizes)) or min(sizes, default=2) < 2:
            raise UserError(f"label_sizes must be whole numbers from 2 on, rising, with commas between them, as in "
                            f"100,300, got {self.label_sizes!r}")
        return sizes if n is None else [*(size for size in sizes if size < n), n]

    def _add_probe(self, metrics: Metrics, suffix: str, answers: np.ndarray, probabilities: np.ndarray,
                   labels: np.ndarray, names: list[str]) -> None:
        """The scores of one probe per view: `answers` rank and are above 0 where a label is said to be present; both
        arrays (M, N, C), NaN where a view is absent."""
        bins = self.choice("probes")[1]["bins"]
        ranked = [multilabel.scores(own, labels) for own in answers]
        found = {"auroc": np.array([own["auroc"] for own in ranked]),
                 "average_precision": np.array([own["average_precision"] for own in ranked]),
                 "calibration_error": np.array([calibration.calibration_errors(own, labels, bins)
                                                for own in probabilities]),
                 "brier": np.array([calibration.brier_scores(own, labels) for own in probabilities])}
        for metric, values in found.items():
            means = _mean(values)                                                            # (M,) of (M, C)
            entries = [*(("", name, value) for name, value in zip(names, means)), ("", "mean", means.mean())]
            if metric == "auroc" or (metric != "brier" and not suffix):  # the others' labels would fill the file
                entries += [(name, label, value) for name, line in zip(names, values)
                            for label, value in zip(mimic_cxr.LABELS, line)]
            metrics[f"{metric}{suffix}"] = entries
            metrics.over_labels(f"{metric}{suffix}", values)
        self._add_auroc(metrics, f"auroc_average{suffix}", probabilities.mean(0), labels)
        if suffix:
            return
        metrics["probe"] = _mean(found["auroc"])
        metrics.over_labels("probe", found["auroc"])
        for name, own in zip(names, probabilities):
            curve = calibration.reliability(own, labels, bins)
            for part in ("confidence", "frequency", "count"):
                metrics.setdefault(f"reliability_{part}", []).extend(
                    (name, f"{bin + 1}/{bins}", value) for bin, value in enumerate(getattr(curve, part))
                    if curve.count[bin] >= MIN_COUNT)

    def _add_auroc(self, metrics: Metrics, name: str, answers: np.ndarray, labels: np.ndarray) -> None:
        """Of one answer to both views (N, C): the mean over labels; of the first probe the labels too."""
        auroc = multilabel.scores(answers, labels)["auroc"]
        metrics.over_labels(name, auroc)
        metrics[name] = [("", "mean", float(_mean(auroc))), *(
            ("both", label, value) for label, value in zip(mimic_cxr.LABELS, auroc) if not name.endswith("_logistic"))]


def hide_laterals(data: ChestXrays, share: float, seed: int = 0) -> ChestXrays:
    """The lateral views of randomly chosen subjects marked as not observed, as many as make `share` of the rows that
    have both views, to the nearest subject. By subject, because a lateral view may be part of several rows: hidden in
    one of them alone it would still be seen."""
    frontal, lateral = (data.names.index(name) for name in ("frontal", "lateral"))
    complete = data.observed[frontal] & data.observed[lateral]
    subject = data.subject.numpy()
    order = np.random.default_rng(seed).permutation(np.unique(subject))
    place = np.empty(int(subject.max()) + 1, int)
    place[order] = np.arange(len(order))
    rows = np.bincount(place[subject], complete.numpy(), len(order)).cumsum()
    n = int(np.abs(np.r_[0, rows] - share * int(complete.sum())).argmin())
    observed = data.observed.clone()
    observed[lateral] &= ~(complete & torch.from_numpy(place[subject] < n))
    return replace(data, observed=observed)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is a number; NaN where nothing is."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0.0).sum(-1), known.sum(-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(np.asarray(logits)).double().sigmoid().numpy()
