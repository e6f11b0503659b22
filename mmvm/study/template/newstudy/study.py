"""New study: two tables of the same samples."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

from mmvm import MultimodalData, MultimodalVAE, evaluation
from mmvm.networks.modes import evaluating
from mmvm.study import Metrics, Study, parameter

from . import data as files
from .networks import networks


@dataclass(frozen=True)
class NewStudy(Study):
    """Parameters of new-study; the method's and the loop's are those of every study."""

    name: ClassVar[str] = "new-study"
    n_modalities: ClassVar[int] = 2
    files: ClassVar = files  # `python -m mmvm data new-study` calls its check() and simulate()

    latent_dim: int = parameter(4, "D, per modality", at_least=1)
    epochs: int = parameter(20, "passes over the training samples", at_least=1)
    width: int = parameter(32, "units of each hidden layer", at_least=1)
    n_test: int = parameter(100, "samples kept for testing", at_least=1)

    def data(self, split: str) -> MultimodalData:
        """The "train", "test" or "validation" samples; no group is in two of them."""
        found = files.load("test" if split == "test" else "train", self.root, self.data_seed, self.n_test)
        if split == "test":
            return found
        return self.part(found, split, by=files.groups(found.ids, self.root, self.data_seed))

    def build_networks(self, data: MultimodalData):
        return networks(data, self.latent_dim, self.width)

    def classifiers(self, train, test):
        """None here: coherence needs one per modality, trained on real samples, and how good each is, (M,)."""
        return [], []

    def evaluate(self, model: MultimodalVAE, train, test, classifiers) -> Metrics:
        """Every number that becomes rows: an array (), (M,) or (M, M) [source, target], or a list of (source, target,
        value). With labels (N, C) of zeros and ones the probe is of each label:

        auroc = multilabel.linear_probe(model, train, test)["auroc"]  # (M, C); from mmvm.evaluation import multilabel
        metrics["auroc"] = metrics.over_labels("auroc", auroc)        # (M,), of the labels that have a number
        metrics["auroc_label"] = [(name, label, value) for name, own in zip(test.names, auroc)
                                  for label, value in zip(test.label_names, own)]
        """
        both = [data.subset(data.observed.all(0)) for data in (train, test)]
        model_rmse, ridge_rmse = imputation_rmse(model, *both)
        return Metrics({"probe": evaluation.linear_probe(model, train, test),
                        "reconstruction": evaluation.reconstruction_error(model, test),
                        "imputation_error": evaluation.imputation_error(model, test),
                        "imputation_rmse": model_rmse, "ridge_rmse": ridge_rmse})


def imputation_rmse(model: MultimodalVAE, train: MultimodalData, test: MultimodalData,
                    draws: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squared error of each modality from the other one, (M,) in standard deviations of its training values,
    of samples that have both: the mean of `draws` imputations, and ridge regression from the raw other modality."""
    device, found = next(model.parameters()).device, {}
    for source, target in (test.names, test.names[::-1]):
        x, y = ((data.modalities[source], data.modalities[target]) for data in (train, test))
        given = {source: test.modalities[source].to(device)}
        with torch.no_grad(), evaluating(model, 0):
            imputed = sum(model.impute(given, targets=target)[target].cpu() for _ in range(draws)) / draws
        ridge = RidgeCV(np.logspace(-2, 4, 13)).fit(*map(np.asarray, x)).predict(np.asarray(y[0]))
        spread = np.asarray(test.specs[test.names.index(target)].spread)
        found[target] = [np.sqrt(np.mean(((np.asarray(guess) - np.asarray(y[1])) / spread) ** 2))
                         for guess in (imputed, ridge)]
    model_rmse, ridge_rmse = np.array([found[name] for name in test.names]).T
    return model_rmse, ridge_rmse
