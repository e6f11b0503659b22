"""How far generated images are from real ones: FID's formula, on the digit classifiers' features or on Inception's.

Matrices are indexed [source, target]: the real images of modality t against what the model generates for t from s
alone. Images are the means of p(x_t | z) clamped to [0, 1]: the released code casts them to bytes as they come, where
1.01 wraps to 1 and -0.01 to 254. Draws are seeded and leave the caller's random state alone. Nothing is downloaded.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmvm.datasets.base import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation import BATCH, _evaluating, _from_each_source, _mean
from mmvm.model import MultimodalVAE

WIDEST = 2_048  # features that are used as they are; Inception's number
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"  # torch-fidelity publishes the same bytes as weights-inception-...
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
EXTRA = 'pip install "mmvm[fid]"'


def frechet_distance(mean_1, cov_1, mean_2, cov_2) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared 2-Wasserstein distance of two Gaussians.

    Means (F,) and covariances (F, F), arrays or tensors; computed in float64 on the CPU. Symmetric, never negative, in
    squared units of the features. Raises `UserError` where shapes do not fit, numbers are not finite or a covariance
    is none.
    """
    mean_1, cov_1, mean_2, cov_2 = (torch.as_tensor(a, dtype=torch.float64).detach().cpu()
                                    for a in (mean_1, cov_1, mean_2, cov_2))
    n = mean_1.numel()
    if not (mean_1.shape == mean_2.shape == (n,) and cov_1.shape == cov_2.shape == (n, n)):
        raise UserError(f"means {tuple(mean_1.shape)}, {tuple(mean_2.shape)} and covariances {tuple(cov_1.shape)}, "
                        f"{tuple(cov_2.shape)}: give (F,), (F,) and (F, F), (F, F) of the same F features")
    # The eigenvalues of C1 C2 are those of C1^(1/2) C2 C1^(1/2), real and not negative: the squared singular values of
    # C1^(1/2) C2^(1/2). Taking these directly loses no digits to a square root where covariances are singular.
    cross = torch.linalg.svdvals(_root(cov_1) @ _root(cov_2)).sum()
    distance = (mean_1 - mean_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * cross
    return max(distance.item(), 0.0)


def _root(cov: Tensor) -> Tensor:
    """The symmetric root of a covariance; eigenvalues that rounding made negative count as zero."""
    if not torch.isfinite(cov).all():
        raise UserError("a covariance holds NaN or infinity: look for them in the features and the images they are of")
    values, vectors = torch.linalg.eigh(cov)
    if len(values) and values[0] < -1e-6 * values[-1].abs():
        raise UserError(f"a covariance has the eigenvalue {values[0]:.3g} beside {values[-1]:.3g}, so it is none: "
                        "give symmetric matrices without negative eigenvalues")
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


class RunningMoments:
    """Mean (F,) and covariance (F, F; n - 1) of features that come in batches, float64, on the features' device.

    Batches are centred and merged (Chan et al. 1983): sums of squares would lose the digits of a small variance beside
    a large mean.
    """

    def __init__(self):
        self.n = 0
        self.mean = self._scatter = None

    def update(self, features: Tensor) -> None:
        """Adds a batch (B, F)."""
        features = features.detach().double()
        if features.ndim != 2 or self.n and features.shape[1] != len(self.mean):
            raise UserError(f"a batch of features of shape {tuple(features.shape)}: give (B, F), with one F for all")
        if not len(features):
            return
        if self.n == 0:
            self.mean = features.new_zeros(features.shape[1])
            self._scatter = features.new_zeros(features.shape[1], features.shape[1])
        n = self.n + len(features)
        mean = features.mean(0)
        centred, shift = features - mean, mean - self.mean
        self._scatter.addmm_(centred.T, centred).addr_(shift, shift, alpha=self.n * len(features) / n)
        self.mean.add_(shift, alpha=len(features) / n)
        self.n = n

    @property
    def cov(self) -> Tensor:
        """Raises `UserError` for fewer than two samples."""
        if self.n < 2:
            raise UserError(f"a covariance needs at least 2 samples, there are {self.n}: give more data")
        return self._scatter / (self.n - 1)


def conditional_images(model: MultimodalVAE, data: MultimodalData, source: str | int | None, target: str | int,
                       seed: int = 0) -> Iterator[Tensor]:
    """Images of `target` generated from `source` alone, batch by batch: (B, *shape) in [0, 1] on the model's device.

    Modalities go by name or position. The samples are those that have the source, in their order; `source=None`: all,
    each from whatever is observed of it. The image is the mean of p(x_t | z) with one draw of z. What a seed gives for
    one pair does not depend on the pairs asked for besides. Raises `UserError` for unknown modalities, for targets
    that are no images, and where the model's output is not finite.
    """
    target = _position(data, target)
    if not _is_image(data.specs[target]):
        raise UserError(f"modality {data.names[target]!r} of shape {data.specs[target].shape} is no image: choose "
                        f"{' or '.join(spec.name for spec in data.specs if _is_image(spec)) or 'other data'}")
    batches = _generated(model, data, None if source is None else _position(data, source), [target], seed)
    return (images[0] for images in batches)


@torch.no_grad()
def features_of(classifier: nn.Module, images: Tensor) -> Tensor:
    """What the classifier's last layer sees of prepared images (B, 3, 28, 28): `classifier.features`, (B, F).

    Always without dropout. Where F exceeds 2,048 they are averaged over positions, as Inception's are, 12,544 -> 256
    for the paper's ResNet: 10,000 images give 12,544 features a singular covariance of 1.3 GB.
    """
    if not callable(getattr(classifier, "features", None)):
        raise UserError(f"{type(classifier).__name__} has no method `features`: give `DigitClassifier`s, or networks "
                        "with a `features(images)` that returns (B, F)")
    with _evaluating(classifier) as device:
        features = classifier.features(images.to(device)).flatten(1)
    return _pooled(classifier, features)


def _pooled(classifier: nn.Module, features: Tensor) -> Tensor:
    channels = [module.out_channels for module in classifier.modules() if isinstance(module, nn.Conv2d)][-1:]
    if features.shape[1] > WIDEST and channels and features.shape[1] % channels[0] == 0:
        return features.unflatten(1, (channels[0], -1)).mean(-1)
    return features


def classifier_distance(model: MultimodalVAE, data: MultimodalData, classifiers: Sequence[nn.Module | None],
                        seed: int = 0) -> np.ndarray:
    """The classifier-feature Frechet distance, (M, M): FID's formula on our own digit classifiers' features, no FID.

    Entry [s, t]: `frechet_distance` of `features_of` classifier t between all real images of modality t and those
    generated from s; the diagonal is self-reconstruction. Every classifier has a scale of its own: numbers, averages
    too, compare only between models that the same classifiers judge.

    n images against F features (576 of the small classifier, 256 of the paper's): two samples of one distribution
    lie apart by up to F / (2n) of their total variance, so take n >= 10 F and compare at one n only. For n <= F the
    covariances are singular, which the formula bears, but then this bias is most of what is measured.

    NaN in row and column of a modality that is never observed, and in the column of a classifier that is None. Raises
    `UserError` for n < 2.
    """
    if len(classifiers) != len(data.specs):
        raise UserError(f"{len(classifiers)} classifiers for {len(data.specs)} modalities: give one each, in the order "
                        f"{data.names}, None where there is none")
    metrics = [None if classifier is None else _ClassifierDistance(classifier) for classifier in classifiers]
    return _matrix(model, data, metrics, seed, BATCH)


@torch.no_grad()
def cross_modal(model: MultimodalVAE, data: MultimodalData, classifiers: Sequence[nn.Module],
                seed: int = 0) -> dict[str, np.ndarray]:
    """`coherence`, `imputation` (error) and `classifier_distance` of images, each (M, M), in one pass per source: every
    latent is decoded once and every image classified once, clamped to [0, 1]. NaN where nothing is observed.

    `evaluation.coherence` classifies what the decoder says, unclamped, hence may differ in a few of 10,000 images;
    `classifier_distance` draws other latents for the same seed.
    """
    m = len(data.specs)
    right, nll, both = np.zeros((m, m)), np.zeros((m, m)), np.zeros((m, m))
    moments = [[RunningMoments() for _ in range(m)] for _ in range(m + 1)]  # the last row: real images
    for target, classifier in enumerate(classifiers):
        for images in _real(data, target, next(model.parameters()).device):
            moments[m][target].update(features_of(classifier, images))
    with _evaluating(nn.ModuleList(classifiers)):
        for source, batch, index, parameters in _from_each_source(model, data, seed):
            labels = data.labels.index_select(0, index).to(parameters[0].device)
            for target, (spec, classifier, out) in enumerate(zip(data.specs, classifiers, parameters)):
                x, seen = spec.prepare(batch.x[target].to(out.device)), batch.observed[target].to(out.device)
                nll[source, target] -= spec.likelihood.log_prob(out, x, len(spec.shape))[seen].double().sum().item()
                both[source, target] += seen.sum().item()
                features = classifier.features(spec.likelihood.mean(out).float().clamp(0, 1))
                right[source, target] += (classifier.head(features).argmax(-1) == labels).sum().item()
                moments[source][target].update(_pooled(classifier, features))
    distance = np.full((m, m), np.nan)
    for s, t in np.ndindex(m, m):
        real, generated = moments[m][t], moments[s][t]
        if real.n > 1 and generated.n > 1:
            distance[s, t] = frechet_distance(real.mean, real.cov, generated.mean, generated.cov)
    return {"coherence": _mean(right, data.observed.sum(1, keepdim=True).cpu().numpy()),
            "imputation": _mean(nll, both), "classifier_distance": distance}


@dataclass(frozen=True, eq=False)
class FIDResult:
    """FID and all it depends on.

    value         (M, M), [source, target]
    feature       class of the feature network, or name of the weights' file
    sha256        of that file, or of the network's state_dict
    n             images, real and generated, behind an entry; the least of them where modalities are missing
    torchmetrics  its version
    antialias     how images were resized for Inception; None for other networks
    """

    value: np.ndarray
    feature: str
    sha256: str
    n: int
    torchmetrics: str
    antialias: bool | None = None

    def note(self) -> str:
        """For a result row."""
        resized = "" if self.antialias is None else f"; antialias={self.antialias}"
        return f"feature={self.feature}; sha256={self.sha256}; n={self.n}; torchmetrics={self.torchmetrics}{resized}"


@torch.no_grad()
def fid(model: MultimodalVAE, data: MultimodalData, feature: nn.Module | str | os.PathLike, seed: int = 0,
        batch_size: int = 50, antialias: bool = True) -> FIDResult:
    """The Frechet inception distance of torchmetrics, entries [source, target] as in `classifier_distance`.

    feature     local weights of Inception (2,048 features), or a network: uint8 images (B, 3, H, W) -> (B, F)
    batch_size  images at a time through the feature network
    antialias   how images are enlarged to Inception's 299 pixels; False: as the original did. It changes the value

    Others' numbers are of the 2015-12-05 weights, SHA-256 `INCEPTION_SHA256`; `FIDResult.sha256` tells. Grey images
    are repeated to three channels. What `classifier_distance` says of n holds: n = 10,000 is five times 2,048 only.
    NaN for modalities that are never observed and in columns of those that are no images. Raises `UserError` where no
    modality is one, for n < 2, and without torchmetrics, a feature network, or the file: nothing is downloaded.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    if not any(map(_is_image, data.specs)):
        raise UserError(f"none of {data.names} is an image of 1 or 3 channels: the FID is for images")
    path = None if isinstance(feature, nn.Module) else _weights_file(feature)
    try:
        import torchmetrics
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise UserError(f"the FID needs torchmetrics ({error}): {EXTRA}") from None
    network, sha256 = (feature, _sha256_of_state(feature)) if path is None else _inception(path, antialias)
    # a list of both, so that whatever mode the networks are in is put back
    with _evaluating(nn.ModuleList([model, network])) as device:
        if path is not None:
            network.to(device)
        # sync_on_compute would wait for other processes, which need not be evaluating
        metrics = [FrechetInceptionDistance(_BytesTo(network, spec, device), reset_real_features=False,
                                            sync_on_compute=False).to(device) if _is_image(spec) else None
                   for spec in data.specs]
        value = _matrix(model, data, metrics, seed, batch_size, _to_bytes)
    n = min(n for n in data.observed.sum(1).tolist() if n)
    return FIDResult(value, type(feature).__name__ if path is None else path.name, sha256, n, torchmetrics.__version__,
                     None if path is None else antialias)


class _ClassifierDistance:
    """`classifier_distance` of one target, with the methods of a torchmetrics metric that `_matrix` calls."""

    def __init__(self, classifier: nn.Module):
        self.classifier = classifier
        self.real, self.generated = RunningMoments(), RunningMoments()

    def update(self, images: Tensor, real: bool) -> None:
        (self.real if real else self.generated).update(features_of(self.classifier, images))

    def compute(self) -> float:
        return frechet_distance(self.real.mean, self.real.cov, self.generated.mean, self.generated.cov)

    def reset(self) -> None:
        self.generated = RunningMoments()


@torch.no_grad()
def _matrix(model: MultimodalVAE, data: MultimodalData, metrics: Sequence, seed: int, batch_size: int,
            convert=lambda images: images) -> np.ndarray:
    """(M, M) of one metric per target, None for none, in one pass per source."""
    counts = data.observed.sum(1).tolist()
    if len(data) < 2 or 1 in counts:
        name, n = (data.names[counts.index(1)], 1) if 1 in counts else (data.names[0], 0)
        raise UserError(f"these data hold {n} samples of {name!r}, a covariance needs at least 2 (and ten times the "
                        "number of features to mean something): give more data")
    targets = [t for t, metric in enumerate(metrics) if metric is not None and counts[t]]

    def update(target, images, real):
        for part in convert(images).split(batch_size):
            metrics[target].update(part, real=real)

    device = next(model.parameters()).device
    for t in targets:
        for images in _real(data, t, device):
            update(t, images, True)
    values = np.full((len(counts),) * 2, np.nan)
    for s in (s for s, n in enumerate(counts) if n and targets):
        for generated in _generated(model, data, s, targets, seed):
            for t, images in zip(targets, generated):
                update(t, images, False)
        for t in targets:
            values[s, t] = float(metrics[t].compute())
            metrics[t].reset()
    return values


@torch.no_grad()
def _generated(model: MultimodalVAE, data: MultimodalData, source: int | None, targets: list[int],
               seed: int) -> Iterator[list[Tensor]]:
    """Per batch, the images of each target from the source alone, or from all that is observed."""
    rows = torch.arange(len(data), device=data.device)
    if source is not None:
        rows = rows[data.observed[source]]
    for k, index in enumerate(rows.split(BATCH) if len(rows) else ()):
        batch = data.batch(index)
        # a seed of its own for every batch: nothing the caller draws between two of them can change the next
        state = np.random.SeedSequence((seed % 2**64, 0 if source is None else source + 1, k)).generate_state(1)
        with _evaluating(model, int(state[0])) as device:
            observed = batch.observed.to(device)
            if source is not None:
                observed = torch.zeros_like(observed)
                observed[source] = True
            means = model.impute([x.to(device) for x in batch.x], observed, [data.names[t] for t in targets])
        for name, images in means.items():
            if not torch.isfinite(images).all():
                raise UserError(f"the model's images of {name!r} hold NaN or infinity: its training has diverged, "
                                "lower the learning rate or clip gradients (max_grad_norm)")
        yield [means[data.names[t]].float().clamp(0, 1) for t in targets]


def _real(data: MultimodalData, target: int, device: torch.device) -> Iterator[Tensor]:
    """Per batch, the observed images of a modality, as the networks see them."""
    spec, rows = data.specs[target], torch.nonzero(data.observed[target]).squeeze(1)
    for index in rows.split(BATCH):
        images = spec.prepare(data.modalities[spec.name].index_select(0, index).to(device))
        if not ((images >= 0) & (images <= 1)).all():
            raise UserError(f"images of {spec.name!r} reach from {images.min():.3g} to {images.max():.3g} as the "
                            "networks see them: describe them with a `scale` that brings them to [0, 1]")
        yield images


class _BytesTo(nn.Module):
    """A feature network as torchmetrics wants it: it knows its number of features, so that none is inferred from an
    image of 299 pixels on the CPU; and it is not moved, for the network may be the user's own."""

    def __init__(self, network: nn.Module, spec: Modality, device: torch.device):
        super().__init__()
        self._network = [network]  # in a list, so that it is no submodule
        self.num_features = self(_to_bytes(torch.zeros(2, *spec.shape, device=device))).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        network, = self._network
        own = next((tensor for tensors in (network.parameters(), network.buffers()) for tensor in tensors), images)
        features = network(images.to(own.device))
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(f"{type(network).__name__} returns {found} for {len(images)} images: a feature network "
                            "must return one row of features each, (B, F)")
        return features.to(images.device).double()


def _to_bytes(images: Tensor) -> Tensor:
    """(B, H, W), (B, 1, H, W) or (B, 3, H, W) in [0, 1] -> uint8 (B, 3, H, W); rounded, so that bytes come back as
    they were stored."""
    if images.ndim == 3:
        images = images.unsqueeze(1)
    return (images * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def _is_image(spec: Modality) -> bool:
    channels = spec.shape[0] if len(spec.shape) == 3 else 1
    return not spec.likelihood.discrete and len(spec.shape) in (2, 3) and channels in (1, 3)


def _position(data: MultimodalData, modality: str | int) -> int:
    if modality in data.names:
        return data.names.index(modality)
    if not isinstance(modality, int) or not 0 <= modality < len(data.names):
        raise UserError(f"unknown modality {modality!r}: use one of {data.names} or their positions, from 0")
    return modality


def _weights_file(feature) -> Path:
    cure = (f"give the path of {INCEPTION} (Inception's weights, SHA-256 {INCEPTION_SHA256[:8]}..., which torchmetrics "
            "reads through torch-fidelity), or an nn.Module from uint8 images (B, 3, H, W) to features (B, F)")
    if not isinstance(feature, str | os.PathLike) or not os.fspath(feature):
        raise UserError(f"the FID needs a feature network, got {feature!r}, and downloads none: {cure}")
    path = Path(feature).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file {path}, and none is downloaded: {cure}")
    return path


def _inception(path: Path, antialias: bool) -> tuple[nn.Module, str]:
    """The Inception network with the weights of a file, and the file's SHA-256."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    wrong = (f"{path} (SHA-256 {sha256[:8]}...) does not hold the weights of torch-fidelity's Inception network: give "
             f"{INCEPTION}, SHA-256 {INCEPTION_SHA256[:8]}...")
    if sha256 != INCEPTION_SHA256:
        try:  # torch-fidelity unpickles whatever is in the file, code included: look first, without running any
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception:
            raise UserError(wrong) from None
    try:
        with torch.random.fork_rng([]):  # the network is initialised before it is loaded
            metric = FrechetInceptionDistance(WIDEST, feature_extractor_weights_path=str(path), antialias=antialias)
    except ModuleNotFoundError as error:
        raise UserError(f"Inception needs torch-fidelity ({error}): {EXTRA}") from None
    except (RuntimeError, TypeError, AttributeError):
        raise UserError(wrong) from None
    return metric.inception, sha256


def _sha256_of_state(network: nn.Module) -> str:
    """Of names, types, shapes and bytes of the state_dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
