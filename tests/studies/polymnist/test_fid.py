"""Which images are compared, in one walk or in FID's, and that nothing is downloaded."""

import hashlib
import math
import os
import pickle
import socket
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation.coherence import coherence
from mmvm.evaluation.errors import imputation_error
from mmvm.likelihoods import Laplace
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM, Independent
from studies.polymnist import cross_modal as cross_modal_module, fid as fid_module
from studies.polymnist.cross_modal import cross_modal
from studies.polymnist.fid import (
    BytesTo,
    distance_matrix,
    fid,
    generated_images,
    joint_fid,
    sha256_of_state,
    to_bytes,
)
from studies.polymnist.frechet import RunningMoments, features_of, frechet_distance
from studies.polymnist.networks import DigitClassifier

SHAPE, M, N = (3, 4, 4), 3, 40
GAIN = 1e4  # the least standard deviation of a posterior, e^-10, is nothing beside it


# Models and features of which one knows what they give ---------------------------------------------------------------

class Names(nn.Module):
    """The encoder of modality s says s: the s-th unit vector times `GAIN`."""

    def __init__(self, s):
        super().__init__()
        self.s = s

    def forward(self, x):
        mean = torch.zeros(len(x), M, device=x.device)
        mean[:, self.s] = GAIN
        return mean, torch.full_like(mean, -60.0)


class Levels(nn.Module):
    """The decoder of modality t answers source s with one grey level, `levels[s]`."""

    def __init__(self, levels, shape=SHAPE):
        super().__init__()
        self.levels, self.shape = nn.Parameter(torch.as_tensor(levels, dtype=torch.float32)), shape

    def forward(self, z):
        return (z / GAIN @ self.levels).view(-1, *[1] * len(self.shape)).expand(-1, *self.shape)


class Copies(nn.Module):
    """Encoder and decoder at once: the latent is the image."""

    def __init__(self, shape=SHAPE):
        super().__init__()
        self.shape, self.scale = shape, nn.Parameter(torch.ones(()))

    def forward(self, x):
        if x.ndim == 2:
            return self.scale * x.view(-1, *self.shape) / GAIN
        return GAIN * x.flatten(1), torch.full_like(x.flatten(1), -60.0)


class Mean(nn.Module):
    """A classifier whose one feature is the mean of the image, times `scale`."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def features(self, x):
        return self.scale * x.flatten(1).mean(1, keepdim=True)


class Pixels(nn.Module):
    """A feature network for bytes: random projections of the pixels, and a dropout that must stay off."""

    def __init__(self, n=6, pixels=48, seed=0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(pixels, n, generator=torch.Generator().manual_seed(seed)))
        self.dropout = nn.Dropout(0.5)
        self.seen = []

    def forward(self, images):
        assert images.dtype == torch.uint8 and images.shape[1] == 3
        self.seen.append(images)
        return torch.tanh(self.dropout(images.float().flatten(1) / 255) @ self.weight)


def specs(shape=SHAPE, scale=1 / 255):
    return tuple(Modality(f"m{m}", shape, Laplace(), scale=scale) for m in range(M))


def make_data(n=N, shape=SHAPE, **settings):
    x = {f"m{m}": torch.randint(256, (n, *shape), dtype=torch.uint8) for m in range(M)}
    return MultimodalData(x, specs(shape), **settings)


def model_of(decoders, encoders=None, shape=SHAPE, objective=None):
    encoders = encoders or [Names(s) for s in range(M)]
    return MultimodalVAE(specs(shape), encoders, decoders, objective or Independent())


def levels_model(table):
    """[s, t] -> the grey level that t shows when s speaks."""
    return model_of([Levels(column) for column in np.transpose(table)])


def mlp_model():
    return model_of([MLPDecoder(SHAPE, 2, (7,)) for _ in range(M)], [MLPEncoder(SHAPE, 2, (7,)) for _ in range(M)],
                    objective=MMVM())


def stacked(model, data, source, target, seed=0):
    return torch.cat([images for images, in generated_images(model, data, source, [target], seed)])


class Distance:
    """`frechet_distance` in the features of a classifier, as a metric that `distance_matrix` takes."""

    def __init__(self, classifier):
        self.classifier, self.real, self.generated = classifier, RunningMoments(), RunningMoments()

    def update(self, images, real):
        (self.real if real else self.generated).update(features_of(self.classifier, images))

    def compute(self):
        return frechet_distance(self.real.mean, self.real.cov, self.generated.mean, self.generated.cov)

    def reset(self):
        self.generated = RunningMoments()


def distances(model, data, classifiers, seed=0):
    metrics = [None if classifier is None else Distance(classifier) for classifier in classifiers]
    return distance_matrix(model, data, metrics, seed, 500)


# Images --------------------------------------------------------------------------------------------------------------

def test_images_are_clamped_before_they_become_bytes():
    model, data = levels_model([[1.5, -0.5, 0.5]] * M), make_data(3)
    wrapped = torch.tensor([1.5, -0.5]).mul(255).to(torch.int64).to(torch.uint8).tolist()
    assert wrapped == [126, 129]                               # the released code's cast: near grey, both of them
    for t, (level, byte) in enumerate(((1.0, 255), (0.0, 0), (0.5, 128))):
        images = stacked(model, data, 0, t)
        torch.testing.assert_close(images, torch.full((3, *SHAPE), level))
        assert (to_bytes(images) == byte).all()


def test_stored_bytes_come_back_as_they_were():
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    again = to_bytes(Modality("x", (1, 16, 16), Laplace(), scale=1 / 255).prepare(x))
    assert again.dtype == torch.uint8 and torch.equal(again, x.expand(1, 3, 16, 16))
    assert torch.equal(to_bytes(x[:, 0] / 255), again)                                # (B, H, W)


def test_images_are_those_of_the_samples_that_have_the_source():
    observed = torch.ones(M, N, dtype=torch.bool)
    observed[0, ::2] = False
    data = make_data(observed=observed)
    model = model_of([Copies() for _ in range(M)], [Copies() for _ in range(M)])
    for target in (0, 1):                                       # the latent of m0 is the image of m0
        torch.testing.assert_close(stacked(model, data, 0, target), data.modalities["m0"][1::2] / 255)
    torch.testing.assert_close(stacked(model, data, 2, 0), data.modalities["m2"] / 255)
    observed[0] = False
    assert list(generated_images(model, make_data(observed=observed), 0, [1], 0)) == []


@pytest.mark.parametrize("call", [
    lambda model, data, seed: stacked(model, data, 0, 1, seed=seed).double().numpy(),
    lambda model, data, seed: distances(model, data, [Mean()] * M, seed=seed),
    lambda model, data, seed: fid(model, data, Pixels(), seed=seed).value,
], ids=["one", "classifier", "fid"])
def test_draws_are_seeded_and_leave_the_callers_alone(call, request):
    if request.node.callspec.id == "fid":
        pytest.importorskip("torchmetrics")
    model, data = mlp_model(), make_data()
    model.decoders.eval()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    first = call(model, data, 3)
    assert torch.equal(torch.get_rng_state(), state) and [module.training for module in model.modules()] == modes
    torch.manual_seed(17)
    np.testing.assert_array_equal(call(model, data, 3), first)
    assert not np.array_equal(call(model, data, 4), first)


def test_what_the_caller_does_between_batches_changes_nothing(monkeypatch):
    monkeypatch.setattr(fid_module, "BATCH", 7)
    model, data = mlp_model(), make_data()
    expected, images = stacked(model, data, 0, 1), []
    assert model.training
    for batch, in generated_images(model, data, 0, [1], 0):
        assert model.training
        torch.rand(3)
        list(generated_images(model, data, 1, [2], 0))
        images.append(batch)
    assert [len(batch) for batch in images] == [7] * 5 + [5] and torch.equal(torch.cat(images), expected)
    for x in data.modalities.values():
        x[:] = x[:1]
    assert len(stacked(model, data, 0, 1).unique(dim=0)) == N                   # each batch has draws of its own


def test_a_diverged_model_is_named():
    model = levels_model([[math.nan] * M] * M)
    with pytest.raises(UserError, match="images of 'm1' hold NaN or infinity: its training has diverged"):
        stacked(model, make_data(), 0, 1)


# The matrix ----------------------------------------------------------------------------------------------------------

TABLE = np.array([[0.1, 0.9, 0.4], [0.8, 0.2, 0.7], [0.3, 0.6, 0.5]])


def expected_distance(data, s, t, scale=1.0):
    """One feature, all generated images alike: (level - mean)^2 + variance of the real ones."""
    means = data.modalities[f"m{t}"][data.observed[t]].double().flatten(1).mean(1) / 255
    return scale ** 2 * ((TABLE[s, t] - means.mean()) ** 2 + means.var()).item()


def test_entry_s_t_is_target_t_from_source_s_with_classifier_t():
    data, scales = make_data(), (1.0, 2.0, 5.0)
    found = distances(levels_model(TABLE), data, [Mean(scale) for scale in scales])
    for s, t in np.ndindex(M, M):
        assert found[s, t] == pytest.approx(expected_distance(data, s, t, scales[t]), rel=1e-4)


def test_real_images_are_all_of_a_modality_that_are_observed():
    observed = torch.rand(M, N) < 0.6
    observed[2] = True
    data = make_data(observed=observed)
    for m in range(M):
        data.modalities[f"m{m}"][~observed[m]] = 255
    found = distances(levels_model(TABLE), data, [Mean()] * M)
    for s, t in np.ndindex(M, M):
        assert found[s, t] == pytest.approx(expected_distance(data, s, t), rel=1e-4)


def test_nothing_is_said_of_what_is_never_observed_or_has_no_classifier():
    observed = torch.ones(M, N, dtype=torch.bool)
    observed[1] = False
    found = distances(levels_model(TABLE), make_data(observed=observed), [Mean(), Mean(), None])
    assert np.isfinite(found).tolist() == [[True, False, False], [False] * 3, [True, False, False]]


def test_several_batches_give_what_one_gives(monkeypatch):
    data, model = make_data(), levels_model(TABLE)
    expected = distances(model, data, [Mean()] * M)
    monkeypatch.setattr(fid_module, "BATCH", 7)
    np.testing.assert_allclose(distances(model, data, [Mean()] * M), expected, rtol=1e-4)


@pytest.mark.parametrize("n, rows", [(1, [0]), (0, []), (N, [3])])
def test_one_sample_is_too_few(n, rows):
    observed = torch.ones(M, n, dtype=torch.bool)
    if n == N:
        observed[1] = False
        observed[1, rows] = True
    name = "m1" if n == N else "m0"
    with pytest.raises(UserError, match=f"{len(rows)} samples of '{name}', a covariance needs at least 2"):
        distances(levels_model(TABLE), make_data(n, observed=observed), [Mean()] * M)


def test_images_beyond_the_unit_interval_are_refused():
    data = MultimodalData(make_data().modalities, specs(scale=1.0))
    with pytest.raises(UserError, match="images of 'm0' reach from 0 to 255 as the networks see them: .*`scale`"):
        distances(levels_model(TABLE), data, [Mean()] * M)


def test_a_set_is_at_no_distance_from_itself_and_a_constant_image_at_some():
    shape = (3, 28, 28)
    data, classifiers = make_data(60, shape), [DigitClassifier(channels=1, n_classes=3) for _ in range(M)]
    perfect = model_of([Copies(shape) for _ in range(M)], [Copies(shape) for _ in range(M)], shape)
    constant = model_of([Levels([0.5] * M, shape) for _ in range(M)], shape=shape)
    of_perfect, of_constant = (distances(model, data, classifiers) for model in (perfect, constant))
    total = RunningMoments()
    total.update(features_of(classifiers[0], data.modalities["m0"] / 255))
    assert (np.diag(of_perfect) < 1e-6 * total.cov.trace().item()).all() and (of_perfect >= 0).all()
    assert (of_constant > 100 * np.diag(of_perfect)[None]).all() and of_constant[0, 0] > total.cov.trace().item() / 2
    assert all(classifier.training for classifier in classifiers)


def test_one_walk_gives_what_three_give(monkeypatch):
    """Coherence, imputation error and distance of `cross_modal`, of a model whose images do not depend on draws."""
    observed = torch.rand(M, N) < 0.7
    observed[2] = True
    data = make_data(observed=observed, labels=torch.arange(N) % 3, n_classes=3)
    model, classifiers = levels_model(TABLE), [Mean(scale) for scale in (1.0, 2.0, 5.0)]
    for classifier in classifiers:
        classifier.head = nn.Linear(1, 3)
        classifier.forward = lambda x, own=classifier: own.head(own.features(x))
    monkeypatch.setattr(cross_modal_module, "BATCH", 7)
    found = cross_modal(model, data, classifiers)
    np.testing.assert_array_equal(found["coherence"], coherence(model, data, classifiers))
    np.testing.assert_array_equal(found["imputation"], imputation_error(model, data))
    np.testing.assert_allclose(found["classifier_distance"], distances(model, data, classifiers), rtol=1e-4)


# FID through torchmetrics --------------------------------------------------------------------------------------------

@pytest.fixture
def torchmetrics():
    return pytest.importorskip("torchmetrics")


def test_torchmetrics_and_we_agree_on_one_network(torchmetrics):
    model, data, network = mlp_model(), make_data(), Pixels()
    found = fid(model, data, network, seed=5)
    network.eval()
    for s, t in np.ndindex(M, M):
        moments = []
        for images in (data.modalities[f"m{t}"] / 255, stacked(model, data, s, t, seed=5)):
            moments.append(RunningMoments())
            moments[-1].update(network(to_bytes(images)))
        expected = frechet_distance(moments[0].mean, moments[0].cov, moments[1].mean, moments[1].cov)
        assert found.value[s, t] == pytest.approx(expected, rel=1e-6)


def test_fid_says_what_it_depends_on(torchmetrics):
    observed = torch.ones(M, N, dtype=torch.bool)
    observed[1, 30:], observed[2] = False, False
    found = fid(mlp_model(), make_data(observed=observed), Pixels())
    assert np.isfinite(found.value).tolist() == [[True, True, False], [True, True, False], [False] * 3]
    assert found.feature == "Pixels" and found.n == 30 and found.antialias is None
    assert found.note() == f"feature=Pixels; sha256={found.sha256}; n=30; torchmetrics={torchmetrics.__version__}"
    assert len(found.sha256) == 64 and sha256_of_state(Pixels()) == found.sha256
    assert found.sha256 != sha256_of_state(Pixels(seed=1))
    assert found.sha256 != sha256_of_state(Pixels().bfloat16())


class Drawn:
    """A density whose n draws, (M, n, D), are the first n of these; it keeps what it was asked for."""

    def __init__(self, z):
        self.z, self.asked = z, []

    def sample(self, n):
        self.asked.append(n)
        done = sum(self.asked[:-1])
        return self.z[:, done:done + n]


def test_the_fid_of_joint_draws_is_that_of_their_features(torchmetrics, monkeypatch):
    monkeypatch.setattr(fid_module, "BATCH", 16)
    model, data, network = mlp_model(), make_data(), Pixels()
    z = torch.randn(M, 50, model.encode(list(data.modalities.values())).mean.shape[-1])
    density = Drawn(z)
    found = joint_fid(model, density, data, network, n=50, batch_size=7)
    assert density.asked == [16, 16, 16, 2] and found.value.shape == (M,) and found.n == 50
    assert network.training and model.training, "the modes are put back"
    model.eval(), network.eval()
    for t, name in enumerate(data.names):
        moments = []
        for images in (data.modalities[name] / 255, model.generate(50, Drawn(z), name)[name].detach().clamp(0, 1)):
            moments.append(RunningMoments())
            moments[-1].update(network(to_bytes(images)))
        expected = frechet_distance(moments[0].mean, moments[0].cov, moments[1].mean, moments[1].cov)
        assert found.value[t] == pytest.approx(expected, rel=1e-6)


def test_the_fid_of_joint_draws_needs_some_and_finite_ones(torchmetrics):
    model, data = mlp_model(), make_data()
    width = model.encode(list(data.modalities.values())).mean.shape[-1]
    with pytest.raises(UserError, match="2 draws and 2 samples of each modality at least"):
        joint_fid(model, Drawn(torch.zeros(M, 1, width)), data, Pixels(), n=1)
    with pytest.raises(UserError, match="hold NaN or infinity: its training has diverged"):
        joint_fid(model, Drawn(torch.full((M, N, width), math.nan)), data, Pixels())
    model.objective = MMVM()
    with pytest.raises(UserError, match="no p.z. to sample from"):
        joint_fid(model, None, data, Pixels())


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_fid_reaches_the_network_in_batches_of_bytes(torchmetrics, batch_size):
    model, data, network = levels_model(TABLE), make_data(9), Pixels()
    found = fid(model, data, network, batch_size=batch_size)
    assert max(map(len, network.seen)) <= max(batch_size, 2)
    assert torch.equal(torch.cat(network.seen[M:])[:9], data.modalities["m0"])  # after one probe per modality
    np.testing.assert_allclose(found.value, fid(model, data, Pixels()).value, rtol=1e-6)
    assert network.training and all(module.training for module in model.modules())
    adapter = BytesTo(network, data.specs[0], torch.device("cpu"))
    assert not list(adapter.parameters())                      # or torchmetrics would move it to another device


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4)])
def test_fid_of_grey_images(torchmetrics, shape):
    data = make_data(shape=shape)
    model = model_of([Levels(column, shape) for column in TABLE.T], shape=shape)
    three = MultimodalData({name: x.view(N, 1, 4, 4).expand(N, 3, 4, 4) for name, x in data.modalities.items()},
                           specs())
    np.testing.assert_allclose(fid(model, data, Pixels()).value, fid(levels_model(TABLE), three, Pixels()).value)


def test_fid_leaves_out_what_is_no_image(torchmetrics):
    data = MultimodalData({"image": torch.randint(256, (N, *SHAPE), dtype=torch.uint8), "vector": torch.randn(N, 5)},
                          (Modality("image", SHAPE, Laplace(), scale=1 / 255), Modality("vector", (5,), Laplace())))
    model = MultimodalVAE(data.specs, [MLPEncoder(spec.shape, 2, (7,)) for spec in data.specs],
                          [MLPDecoder(spec.shape, 2, (7,)) for spec in data.specs], MMVM())
    assert np.isfinite(fid(model, data, Pixels()).value).tolist() == [[True, False]] * 2
    vectors = MultimodalData({"vector": torch.randn(N, 5)}, data.specs[1:])
    with pytest.raises(UserError, match=r"none of \['vector'\] is an image"):
        fid(model, vectors, Pixels())


def test_fid_asks_nothing_of_a_network_but_its_rows(torchmetrics):
    class Plain(nn.Module):  # no parameters, and a num_features that is no number
        num_features = "three"

        def forward(self, images):
            return images.float().mean((2, 3))

    assert np.isfinite(fid(mlp_model(), make_data(), Plain()).value).all()
    for wrong, found in ((nn.Identity(), r"\(2, 3, 4, 4\)"), (nn.Flatten(0), r"\(96,\)")):
        with pytest.raises(UserError, match=f"returns {found} for 2 images: .*one row of features each"):
            fid(mlp_model(), make_data(), wrong)
    with pytest.raises(UserError, match="batch_size must be at least 1, got 0"):
        fid(mlp_model(), make_data(), Plain(), batch_size=0)


# Nothing is downloaded -----------------------------------------------------------------------------------------------

@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something opens a connection")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


class Runs:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("feature", [None, "", 2048, "nowhere.pth", "folder"])
def test_fid_without_a_network(offline, tmp_path, feature):
    if feature == "folder":
        feature = tmp_path
    with pytest.raises(UserError, match="pt_inception-2015-12-05-6726825d.pth .*torch-fidelity.* or an nn.Module"):
        fid(mlp_model(), make_data(), feature)


def test_fid_from_a_file_that_holds_other_things(torchmetrics, offline, tmp_path):
    pytest.importorskip("torch_fidelity")
    path, traces = tmp_path / "weights.pth", tmp_path / "traces"
    for content in (b"", b"no weights", pickle.dumps(Runs(traces), protocol=2)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="weights.pth .SHA-256 .* does not hold .* give pt_inception-2015-12-05"):
            fid(mlp_model(), make_data(), path)
    torch.save(Runs(traces), path)
    with pytest.raises(UserError, match="does not hold the weights"):
        fid(mlp_model(), make_data(), path)
    assert not traces.exists()


@pytest.mark.parametrize("content", [{"fc.weight": torch.zeros(2)}, [torch.zeros(2)], torch.zeros(2)])
def test_fid_from_other_weights(torchmetrics, offline, tmp_path, content, monkeypatch):
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    for name in ("InceptionA", "InceptionB", "InceptionC", "InceptionD", "InceptionE_1", "InceptionE_2"):
        monkeypatch.setattr(fidelity, name, lambda *_, **__: nn.Identity())     # the whole network takes seconds
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="does not hold the weights of torch-fidelity's Inception network"):
        fid(mlp_model(), make_data(), tmp_path / "weights.pth")


@pytest.mark.parametrize("antialias", [True, False])
def test_fid_from_a_file(torchmetrics, offline, tmp_path, monkeypatch, antialias):
    """The network is a small one in Inception's place: its constructor draws, as Inception's does."""
    from torchmetrics.image import fid as module

    class Small(Pixels):
        def __init__(self, name, features_list, feature_extractor_weights_path, antialias):
            super().__init__()
            built.append((name, features_list, antialias))
            torch.rand(1)
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

    built, path = [], tmp_path / "weights.pth"
    torch.save(Pixels(seed=3).state_dict(), path)
    monkeypatch.setattr(module, "NoTrainInceptionV3", Small)
    model, data, state = mlp_model(), make_data(), torch.get_rng_state()
    found = fid(model, data, str(path), antialias=antialias)
    assert built == [("inception-v3-compat", ["2048"], antialias)] and torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(found.value, fid(model, data, Pixels(seed=3)).value)
    assert found.feature == "weights.pth" and found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.note().endswith(f"; antialias={antialias}")


def test_fid_without_torchmetrics_or_torch_fidelity(tmp_path, monkeypatch):
    torch.save({}, tmp_path / "weights.pth")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchmetrics", None)
        with pytest.raises(UserError, match=r"the FID needs torchmetrics .*pip install \"mmvm\[fid\]\""):
            fid(mlp_model(), make_data(), Pixels())
    pytest.importorskip("torchmetrics")
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(UserError, match=r"Inception needs torch-fidelity .*pip install \"mmvm\[fid\]\""):
        fid(mlp_model(), make_data(), tmp_path / "weights.pth")
