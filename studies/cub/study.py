"""CUB: a bird's image and a sentence about it (paper, section 4.3 and appendix B.6)."""

import typing
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import torch
from torch import nn

from mmvm import evaluation, paths, training
from mmvm.evaluation import multilabel
from mmvm.likelihoods import Laplace
from mmvm.model import MultimodalVAE
from mmvm.study.classifiers import content_hash, keep_classifier
from mmvm.study.parameters import parameter
from mmvm.study.study import Metrics, Study
from studies.cub import caption_quality, data as cub
from studies.cub.data import CaptionedImages
from studies.cub.networks import (
    NETWORK_OPTIONS,
    ImageAttributeClassifier,
    ImageDecoder,
    ImageEncoder,
    TextAttributeClassifier,
    TextDecoder,
    TextEncoder,
)

# names of the rows' metrics: "coherence" and "probe" alone are the AUROC from scores
SUFFIX = {"auroc": "", "auroc_hard": "_auroc_hard", "average_precision": "_average_precision",
          "average_precision_hard": "_average_precision_hard", "accuracy": "_accuracy"}


@dataclass(frozen=True)
class CUB(Study):
    """Parameters of the chapter `cub`."""

    name: typing.ClassVar[str] = "cub"
    files: typing.ClassVar[ModuleType] = cub
    older = {name: ("network", name) for name in ("image_channels", "text_channels", "embedding_dim")}
    free: typing.ClassVar[tuple[str, ...]] = (*Study.free, "n_test", "n_probe", "classifier_epochs")

    beta: float = parameter(1.0, "weight of the regulariser; paper: 2^-2 ... 2^2", at_least=0)
    latent_dim: int = parameter(32, "D, per modality; paper: 128", at_least=1)
    batch_size: int = parameter(32, "pairs per update; paper: 128", at_least=1)
    learning_rate: float = parameter(2e-3, "Adam; paper: 1e-3", positive=True)
    epochs: int = parameter(3, "passes over the training pairs; paper: 100", at_least=1)
    n_images: int = parameter(600, "painted birds, a quarter for testing; unused with a root; paper: 11788",
                              at_least=8)
    captions_per_image: int = parameter(10, "the first so many captions of an image, a pair each; paper: 10",
                                        at_least=1)
    n_test: int = parameter(500, "test pairs that are measured, at random; 0: all; paper: all 29330", at_least=0)
    split_by: str = parameter("classes", "classes (whole classes for testing, paper) | official (train_test_split.txt)",
                              cub.SPLITS)
    labels: str = parameter("attributes", "six colour groups from: attributes (paper) | captions (an image's own)",
                            ("attributes", "captions"))
    crop: str = parameter("squash", "to 64 x 64 pixels: squash (paper) | centre (central square)", cub.CROPS)
    missing: str = parameter("error", "images without file or captions: error | skip", ("error", "skip"))
    more_than: int = parameter(3, "words occur more often than this in the training captions; paper: 3", at_least=0)
    likelihood_scale: float = parameter(0.75, "scale of the Laplace likelihood, image range [0, 1]; paper: 0.75",
                                        positive=True)
    text_weight: float = parameter(8.0, "weight of the text's log-likelihood in the loss; released code: 128",
                                   positive=True)
    pads_counted: bool = parameter(False, "padding counts in the text's likelihood; released code: True")
    network: str = parameter("conv", "conv; options image_channels, text_channels, embedding_dim",
                             kinds=lambda: NETWORK_OPTIONS)
    n_probe: int = parameter(2_000, "training encodings for the linear probes; paper: 10000", at_least=1)
    classifier_epochs: int = parameter(12, "epochs of the attribute classifiers behind the coherence; text: a third",
                                       at_least=1)
    seed: int = parameter(0, "seed of weights, order and draws; paper: not stated", last=True)
    data_seed: int = parameter(0, "seed of the painted birds and of the choice of test pairs", last=True)
    root: str = parameter("", "folder with CUB_200_2011 and text_c10; empty: birds painted in data/cub",
                          last=True)

    @property
    def n_modalities(self) -> int:
        return 2

    def data(self, split: str) -> CaptionedImages:
        """All training pairs, or `n_test` of the test pairs. Paints the stand-in where there is no root; a
        relative root starts at the repository's. Validation pairs are of classes of their own where test pairs are,
        else of images of their own; the vocabulary knows their captions."""
        root = paths.placed(self.root) if self.root else cub.simulate(n_images=self.n_images, seed=self.data_seed)
        data = cub.load("test" if split == "test" else "train", root, split_by=self.split_by, labels=self.labels,
                        crop=self.crop, missing=self.missing, more_than=self.more_than, pads_counted=self.pads_counted,
                        text_weight=self.text_weight, captions_per_image=self.captions_per_image)
        image, text = data.specs
        data = replace(data, specs=(replace(image, likelihood=Laplace(self.likelihood_scale)), text))
        if split != "test":
            end = "/" if self.split_by == "classes" else "#"
            return self.part(data, split, [name.rpartition("#")[0].partition(end)[0] for name in data.ids])
        if 0 < self.n_test < len(data):
            generator = torch.Generator().manual_seed(self.data_seed)
            data = data.subset(torch.randperm(len(data), generator=generator)[:self.n_test])
        return data

    def build_networks(self, data):
        options = self.choice("network")[1]
        text = len(data.vocabulary), self.latent_dim, options["text_channels"], options["embedding_dim"]
        image = self.latent_dim, options["image_channels"]
        return [ImageEncoder(*image), TextEncoder(*text)], [ImageDecoder(*image), TextDecoder(*text)]

    def classifiers(self, train: CaptionedImages, test: CaptionedImages) -> tuple[list[nn.Module], np.ndarray]:
        """An attribute classifier per modality, and their share of right answers on real test samples (M,)."""
        device = training.resolve_device(self.device)
        n_labels = train.labels.shape[1]
        once = train.subset([i for i, name in enumerate(train.ids) if name.endswith("#0")])  # an image's first caption
        builds = {"image": (once, self.classifier_epochs, lambda: ImageAttributeClassifier(n_labels)),
                  "text": (train, -(-self.classifier_epochs // 3),
                           lambda: TextAttributeClassifier(len(train.vocabulary), n_labels))}
        trained, accuracies = [], []
        for spec in train.specs:
            data, epochs, build = builds[spec.name]
            x = data.modalities[spec.name]
            classifier = keep_classifier(
                f"cub-{spec.name}", [content_hash(x), content_hash(data.labels), len(train.vocabulary), epochs], build,
                lambda x=x, data=data, spec=spec, build=build, epochs=epochs: multilabel.train_classifier(
                    build, x, data.labels, spec, epochs=epochs, device=device), device)
            trained.append(classifier)
            logits = multilabel.classify(classifier, test.modalities[spec.name], spec)
            accuracies.append(((logits > 0) == test.labels.numpy()).mean())
        return trained, np.array(accuracies)

    def evaluate(self, model: MultimodalVAE, train: CaptionedImages, test: CaptionedImages,
                 classifiers: list[nn.Module]) -> Metrics:
        """probe (M,) and coherence (M, M), each as mean AUROC over the six attributes and under its other definitions
        (`SUFFIX`); both by attribute; classifier_auroc (M,); reconstruction (M,), imputation (M, M), in nats, and
        reconstruction_weighted, with the text 128 times as on the paper's axis; caption_... of what the text decoder
        says; constant_... of an answer that knows the attributes' frequencies alone; words, the vocabulary's size;
        effective_beta. A mean over fewer than six attributes, since all test pairs have one or none does, says so in a
        note."""
        names, attributes = test.names, test.label_names
        judged = np.stack([multilabel.scores(multilabel.classify(classifier, test.modalities[spec.name], spec),
                                             test.labels.numpy())["auroc"]
                           for classifier, spec in zip(classifiers, test.specs)])
        reconstruction = evaluation.reconstruction_error(model, test)
        metrics = Metrics({
            "reconstruction": reconstruction,
            "reconstruction_weighted": np.array(reconstruction @ [1.0, cub.TEXT_WEIGHT]),
            "imputation": evaluation.imputation_error(model, test),
            "words": np.array(len(test.vocabulary)),
            "effective_beta": np.array(model.objective.effective_beta(self.beta, len(test.specs)))})
        metrics["classifier_auroc"] = metrics.over_labels("classifier_auroc", judged)
        probe = multilabel.linear_probe(model, train, test, n=self.n_probe, seed=self.data_seed)
        coherence = multilabel.coherence(model, test, classifiers)
        for name, suffix in SUFFIX.items():
            metrics[f"probe{suffix}"] = metrics.over_labels(f"probe{suffix}", probe[name])
            metrics[f"coherence{suffix}"] = metrics.over_labels(f"coherence{suffix}", coherence[name])
        metrics["probe_by_attribute"] = [
            (names[m], attributes[c], value) for (m, c), value in np.ndenumerate(probe["auroc"]) if np.isfinite(value)]
        metrics["coherence_by_attribute"] = [
            (f"{names[s]} to {names[t]}", attributes[c], value)
            for (s, t, c), value in np.ndenumerate(coherence["auroc"]) if np.isfinite(value)]
        labels = test.labels.numpy()
        constant = multilabel.base_rates(labels)
        for name in ("accuracy", "average_precision"):
            metrics[f"constant_{name}"] = metrics.over_labels(f"constant_{name}", constant[name])
        for source in names:
            tokens = multilabel.imagined(model, test, source, "text").tolist()
            captions = [test.vocabulary.decode(row) for row in tokens]
            average = "self" if source == "text" else "cross"
            for name, value in caption_quality.quality(captions, labels).items():
                if np.isfinite(value):
                    metrics.setdefault(f"caption_{name}", []).extend([(source, "text", value), ("", average, value)])
        return metrics
