"""The FID proper: in the features of the Inception network, from a local file of its weights."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.encodings import BATCH, evaluating
from mmvm.model import MultimodalVAE
from studies.polymnist.cross_modal import real_images
from studies.polymnist.frechet import WIDEST

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"  # torch-fidelity publishes the same bytes as weights-inception-...
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
EXTRA = 'pip install "mmvm[fid]"'


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
    """The Frechet inception distance of torchmetrics, entries [source, target] as in `cross_modal`.

    feature     local weights of Inception (2,048 features), or a network: uint8 images (B, 3, H, W) -> (B, F)
    batch_size  images at a time through the feature network
    antialias   how images are enlarged to Inception's 299 pixels; False: as the original did. It changes the value

    Others' numbers are of the 2015-12-05 weights, SHA-256 `INCEPTION_SHA256`; `FIDResult.sha256` tells. Grey images
    are repeated to three channels. What is said of n there holds: n = 10,000 is five times 2,048 only.
    NaN for modalities that are never observed and in columns of those that are no images. Raises `UserError` where no
    modality is one, for n < 2, and without torchmetrics, a feature network, or the file: nothing is downloaded.
    """
    with _metrics(model, data, feature, batch_size, antialias) as (metrics, result):
        value = distance_matrix(model, data, metrics, seed, batch_size, to_bytes)
    return result(value, min(n for n in data.observed.sum(1).tolist() if n))


@torch.no_grad()
def joint_fid(model: MultimodalVAE, density: Any, data: MultimodalData, feature: nn.Module | str | os.PathLike,
              n: int | None = None, seed: int = 0, batch_size: int = 50, antialias: bool = True) -> FIDResult:
    """The same, (M,), of n joint draws from a `density` (None: the method's own p(z)), as many as there are samples
    for None, to the samples of each modality. Raises `UserError` as `fid` does."""
    n, value = len(data) if n is None else n, np.full(len(data.specs), np.nan)
    if min(n, *data.observed.sum(1).tolist()) < 2:
        raise UserError("a covariance needs 2 draws and 2 samples of each modality at least (and ten times the number "
                        "of features to mean something): give more")
    with _metrics(model, data, feature, batch_size, antialias) as (metrics, result):
        device = next(model.parameters()).device
        targets = [t for t, metric in enumerate(metrics) if metric is not None]
        for t in targets:
            for images in real_images(data, t, device):
                _update(metrics[t], to_bytes(images), True, batch_size)
        for k, start in enumerate(range(0, n, BATCH)):
            with evaluating(model, int(np.random.SeedSequence((seed % 2**64, 0, k)).generate_state(1)[0])):
                drawn = model.generate(min(BATCH, n - start), density, [data.names[t] for t in targets])
            for t in targets:
                images = _finite(drawn[data.names[t]], data.names[t])
                _update(metrics[t], to_bytes(images), False, batch_size)
        for t in targets:
            value[t] = float(metrics[t].compute())
    return result(value, n)


@contextmanager
def _metrics(model: MultimodalVAE, data: MultimodalData, feature: nn.Module | str | os.PathLike, batch_size: int,
             antialias: bool) -> Iterator[tuple[list, Callable[[np.ndarray, int], FIDResult]]]:
    """torchmetrics' FID of each modality, None of those that are no images, and what makes a result of values and n;
    the networks are in evaluation mode inside."""
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    if not any(map(is_image, data.specs)):
        raise UserError(f"none of {data.names} is an image of 1 or 3 channels: the FID is for images")
    path = None if isinstance(feature, nn.Module) else _weights_file(feature)
    try:
        import torchmetrics
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise UserError(f"the FID needs torchmetrics ({error}): {EXTRA}") from None
    network, sha256 = (feature, sha256_of_state(feature)) if path is None else _inception(path, antialias)
    # a list of both, so that whatever mode the networks are in is put back
    with evaluating(nn.ModuleList([model, network])) as device:
        if path is not None:
            network.to(device)
        # sync_on_compute would wait for other processes, which need not be evaluating
        metrics = [FrechetInceptionDistance(BytesTo(network, spec, device), reset_real_features=False,
                                            sync_on_compute=False).to(device) if is_image(spec) else None
                   for spec in data.specs]
        yield metrics, lambda value, n: FIDResult(
            value, type(feature).__name__ if path is None else path.name, sha256, n, torchmetrics.__version__,
            None if path is None else antialias)


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


def sha256_of_state(network: nn.Module) -> str:
    """Of names, types, shapes and bytes of the state_dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def distance_matrix(model: MultimodalVAE, data: MultimodalData, metrics: Sequence, seed: int, batch_size: int,
                    convert: Callable[[Tensor], Tensor] = lambda images: images) -> np.ndarray:
    """(M, M) of one metric per target, None for none, in one pass per source."""
    counts = data.observed.sum(1).tolist()
    if len(data) < 2 or 1 in counts:
        name, n = (data.names[counts.index(1)], 1) if 1 in counts else (data.names[0], 0)
        raise UserError(f"these data hold {n} samples of {name!r}, a covariance needs at least 2 (and ten times the "
                        "number of features to mean something): give more data")
    targets = [t for t, metric in enumerate(metrics) if metric is not None and counts[t]]

    device = next(model.parameters()).device
    for t in targets:
        for images in real_images(data, t, device):
            _update(metrics[t], convert(images), True, batch_size)
    values = np.full((len(counts),) * 2, np.nan)
    for s in (s for s, n in enumerate(counts) if n and targets):
        for generated in generated_images(model, data, s, targets, seed):
            for t, images in zip(targets, generated):
                _update(metrics[t], convert(images), False, batch_size)
        for t in targets:
            values[s, t] = float(metrics[t].compute())
            metrics[t].reset()
    return values


def _update(metric: Any, images: Tensor, real: bool, batch_size: int) -> None:
    for part in images.split(batch_size):
        metric.update(part, real=real)


@torch.no_grad()
def generated_images(model: MultimodalVAE, data: MultimodalData, source: int, targets: list[int],
                     seed: int) -> Iterator[list[Tensor]]:
    """Per batch of the samples that have the source, the images of each target from it alone: means of p(x_t | z) with
    one draw of z, in [0, 1]. Raises `UserError` where the model's output is not finite."""
    rows = torch.nonzero(data.observed[source]).squeeze(1)
    for k, index in enumerate(rows.split(BATCH) if len(rows) else ()):
        batch = data.batch(index)
        # a seed of its own for every batch: nothing the caller draws between two of them can change the next
        state = np.random.SeedSequence((seed % 2**64, source + 1, k)).generate_state(1)
        with evaluating(model, int(state[0])) as device:
            observed = torch.zeros_like(batch.observed, device=device)
            observed[source] = True
            means = model.impute([x.to(device) for x in batch.x], observed, [data.names[t] for t in targets])
        yield [_finite(means[data.names[t]], data.names[t]) for t in targets]


def _finite(images: Tensor, name: str) -> Tensor:
    """Images of a modality in [0, 1]. Raises `UserError` where they are no numbers."""
    if not torch.isfinite(images).all():
        raise UserError(f"the model's images of {name!r} hold NaN or infinity: its training has diverged, "
                        "lower the learning rate or clip gradients (max_grad_norm)")
    return images.float().clamp(0, 1)


class BytesTo(nn.Module):
    """A feature network as torchmetrics wants it: it knows its number of features, so that none is inferred from an
    image of 299 pixels on the CPU; and it is not moved, for the network may be the user's own."""

    def __init__(self, network: nn.Module, spec: Modality, device: torch.device):
        super().__init__()
        self._network = [network]  # in a list, so that it is no submodule
        self.num_features = self(to_bytes(torch.zeros(2, *spec.shape, device=device))).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        network, = self._network
        own = next((tensor for tensors in (network.parameters(), network.buffers()) for tensor in tensors), images)
        features = network(images.to(own.device))
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(f"{type(network).__name__} returns {found} for {len(images)} images: a feature network "
                            "must return one row of features each, (B, F)")
        return features.to(images.device).double()


def to_bytes(images: Tensor) -> Tensor:
    """(B, H, W), (B, 1, H, W) or (B, 3, H, W) in [0, 1] -> uint8 (B, 3, H, W); rounded, so that bytes come back as
    they were stored."""
    if images.ndim == 3:
        images = images.unsqueeze(1)
    return (images * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def is_image(spec: Modality) -> bool:
    channels = spec.shape[0] if len(spec.shape) == 3 else 1
    return not spec.likelihood.discrete and len(spec.shape) in (2, 3) and channels in (1, 3)
