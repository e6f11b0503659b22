"""What only a GPU can show: that it computes what the CPU computes, by every way an update can be made."""

import math

import pytest
import torch

from mmvm import MMVM, MultimodalData, MultimodalVAE, Schedule, fit
from mmvm.data import Modality
from mmvm.errors import UserError
from mmvm.evaluation import linear_probe, reconstruction_error
from mmvm.likelihoods import Laplace
from mmvm.networks.conv import ConvDecoder, ConvEncoder
from mmvm.objectives import METHODS
from mmvm.training import TrainingDiverged
from mmvm.training.batches import on_gpu_if_it_fits

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
N, BATCH, M, D = 512, 64, 3, 8


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (N,), generator=generator)
    ink = 20 * labels.view(-1, 1, 1, 1)
    images = {f"m{m}": (ink + torch.randint(0, 40, (N, 3, 28, 28), generator=generator)).byte() for m in range(M)}
    specs = tuple(Modality(name, (3, 28, 28), Laplace(0.75), scale=1 / 255) for name in images)
    return MultimodalData(images, specs, labels, n_classes=10)


def model_of(data):
    torch.manual_seed(1)
    return MultimodalVAE(data.specs, [ConvEncoder(D, 8) for _ in data.specs], [ConvDecoder(D, 8) for _ in data.specs],
                         MMVM())


def train(data, **options):
    model = model_of(data)
    history = fit(model, data, **{"epochs": 6, "batch_size": BATCH, "learning_rate": 1e-3, "device": "cuda",
                                  "precision": "float32", **options})
    return model, history


def test_the_loss_is_the_cpus(data):
    """With the posteriors' means for draws, so that both see the same latents."""
    batch = data.batch(torch.arange(BATCH))
    losses = []
    for device in ("cpu", "cuda"):
        model = model_of(data).to(device).eval()
        x = [x.to(device) for x in batch.x]
        q = model.encode(x)
        losses.append(model.log_likelihood(x, None, q.mean.unsqueeze(0)).cpu())
    torch.testing.assert_close(*losses, rtol=1e-4, atol=0.05)


def test_two_runs_with_one_seed_end_alike(data):
    a, b = (train(data)[1]["loss"][-1] for _ in range(2))
    assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.parametrize("options", [
    {"precision": "bfloat16"}, {"precision": "bfloat16", "plan": "channels_last"},
    {"precision": "bfloat16", "plan": "channels_last+graph"}, {"plan": "grouped+graph"},
    {"learning_rate": 1e-3, "max_grad_norm": 1e9, "plan": "graph"}], ids=str)
def test_every_way_to_make_an_update_learns_the_same(data, options):
    plain, other = train(data)[1]["loss"], train(data, **options)[1]["loss"]
    assert other[-1] < other[0] and other[-1] == pytest.approx(plain[-1], rel=0.02)


@pytest.mark.parametrize("objective", [*METHODS, "mmvm:prior=hellinger", "mmvm:gate=gumbel"])
def test_an_update_is_recorded_or_refused_with_the_cure(data, objective):
    torch.manual_seed(1)
    model = MultimodalVAE.for_data(data, D, objective, say=None)
    try:
        losses = fit(model, data, epochs=3, batch_size=BATCH, device="cuda", precision="float32", plan="graph")["loss"]
    except UserError as error:
        assert "leave it out" in str(error)
        torch.randn(1, device="cuda")  # the generator is not left in the middle of a recording
    else:
        assert losses[-1] < losses[0]


def test_a_recorded_update_follows_a_rate_that_falls(data):
    rate = Schedule(1e-3, 0.0, 6 * (N // BATCH), "cosine")
    plain, recorded = (train(data, learning_rate=rate, plan=plan)[1]["loss"] for plan in ("plain", "graph"))
    assert recorded[-1] == pytest.approx(plain[-1], rel=0.02)


def test_a_run_continues_from_its_checkpoint(data, tmp_path):
    whole = train(data)[1]["loss"]
    train(data, epochs=3, out=tmp_path)
    resumed = train(data, out=tmp_path)[1]["loss"]
    assert len(resumed) == 6 and resumed[-1] == pytest.approx(whole[-1], rel=1e-3)


def test_bytes_stay_bytes_on_the_gpu(data):
    on_gpu = on_gpu_if_it_fits(data, torch.device("cuda"))
    assert on_gpu.device.type == "cuda" and all(x.dtype == torch.uint8 for x in on_gpu.modalities.values())


def test_divergence_is_seen(data):
    with pytest.raises(TrainingDiverged, match="no longer finite"):
        train(data, learning_rate=1e30, epochs=20)


def test_measures_on_the_gpu_are_those_on_the_cpu(data):
    model, _ = train(data)
    there = reconstruction_error(model, data).sum(), linear_probe(model, data, data, n=None).mean()
    here = reconstruction_error(model.cpu(), data).sum(), linear_probe(model, data, data, n=None).mean()
    assert math.isclose(there[0], here[0], rel_tol=0.01) and abs(there[1] - here[1]) < 0.05
