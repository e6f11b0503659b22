"""One latent of a sample, and how far its modalities agree: against closed forms, integrals and swapped pairs."""

import math

import pytest
import torch

from mmvm import Modality, MultimodalData, MultimodalVAE, Normal, fit
from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives import MMVM, MMVAEPlus


class Told(torch.nn.Module):
    """An encoder that is told its posterior: x holds the mean and the log-variance."""

    def forward(self, x):
        return x.chunk(2, 1)


def told(q: DiagonalGaussian, observed=None, objective=None):
    m, b, d = q.shape
    specs = tuple(Modality(f"m{i}", (2 * d,), Normal()) for i in range(m))
    x = torch.cat([q.mean, q.logvar], -1)
    model = MultimodalVAE(specs, [Told() for _ in specs], [torch.nn.Linear(d, 2 * d) for _ in specs],
                          objective or MMVM())
    return model, MultimodalData({f"m{i}": x[i] for i in range(m)}, specs, observed=observed)


def posteriors(m=3, b=6, d=2):
    return DiagonalGaussian(torch.randn(m, b, d), torch.randn(m, b, d))


def test_mixture_has_the_moments_of_its_draws():
    q = posteriors()
    model, data = told(q)
    found = model.shared(data)
    draws = q.mean.unsqueeze(0) + q.std * torch.randn(40_000, *q.shape)
    draws = draws.flatten(0, 1)
    torch.testing.assert_close(found.mean, draws.mean(0), atol=0.06, rtol=0)
    torch.testing.assert_close(found.var, draws.var(0), rtol=0.06, atol=0)


def test_precision_is_the_product_of_those_observed():
    q, observed = posteriors(), torch.tensor([[True] * 6, [True, False] * 3, [False] * 5 + [True]])
    model, data = told(q, observed)
    expected, found = q.product(observed), model.shared(data, "precision")
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.logvar, expected.logvar)


@pytest.mark.parametrize("how", ["mixture", "precision"])
def test_one_modality_alone_is_its_posterior(how):
    q, observed = posteriors(), torch.zeros(3, 6, dtype=torch.bool)
    observed[1] = True
    model, data = told(q, observed)
    found = model.shared(data, how)
    torch.testing.assert_close(found.mean, q.mean[1])
    torch.testing.assert_close(found.logvar, q.logvar[1])


def test_draws_come_from_what_is_observed_and_repeat_with_the_seed():
    q = DiagonalGaussian(torch.tensor([-100.0, 0.0, 100.0]).view(3, 1, 1).expand(3, 400, 1), torch.zeros(3, 400, 1))
    observed = torch.ones(3, 400, dtype=torch.bool)
    observed[1] = False
    model, data = told(q, observed)
    z = model.shared(data, "draw").mean
    assert ((z.abs() - 100).abs() < 6).all() and 0.4 < (z > 0).float().mean() < 0.6
    assert torch.equal(z, model.shared(data, "draw").mean)
    assert not torch.equal(z, model.shared(data, "draw", seed=1).mean)


@pytest.mark.slow
def test_compare_is_the_integral_in_one_dimension():
    q = DiagonalGaussian(torch.tensor([[[0.0]], [[1.5]]]), torch.tensor([[[0.0]], [[-1.0]]]))
    z = torch.linspace(-30, 30, 600_001, dtype=torch.float64).view(-1, 1)
    p = [torch.exp(DiagonalGaussian(q.mean[m].double(), q.logvar[m].double()).log_prob(z)) for m in range(2)]
    h = (p[0] + p[1]) / 2
    exact = sum((torch.xlogy(pm, pm) - torch.xlogy(pm, h)).sum().item() for pm in p) / 2 * (60 / 600_000)
    model, data = told(q)
    assert model.compare(data, draws=40_000).item() == pytest.approx(exact, abs=0.01)


def test_compare_is_0_where_all_agree_or_one_is_alone_and_log_m_where_none_do():
    same = DiagonalGaussian(torch.randn(1, 5, 2).expand(3, 5, 2), torch.zeros(3, 5, 2))
    model, data = told(same)
    assert (model.compare(data) < 1e-6).all()
    far = DiagonalGaussian(torch.tensor([0.0, 100.0, -100.0]).view(3, 1, 1).expand(3, 5, 2), torch.zeros(3, 5, 2))
    observed = torch.ones(3, 5, dtype=torch.bool)
    observed[:, 0] = torch.tensor([True, False, False])
    observed[2, 1] = False
    model, data = told(far, observed)
    two, three = math.log(2), math.log(3)
    assert model.compare(data).tolist() == pytest.approx([0, two, three, three, three], abs=1e-5)


def test_private_dimensions_do_not_count():
    q = posteriors(2, 5, 4)
    same = DiagonalGaussian(torch.cat([q.mean[:1, :, :2].expand(2, 5, 2), q.mean[..., 2:]], -1),
                            torch.cat([q.logvar[:1, :, :2].expand(2, 5, 2), q.logvar[..., 2:]], -1))
    model, data = told(same, objective=MMVAEPlus(2, private_dim=2))
    assert (model.compare(data) < 1e-6).all() and model.shared(data).shape == (5, 2)
    assert (told(same)[0].compare(data) > 0.01).all()


@pytest.mark.slow
def test_swapped_pairs_stand_out():
    torch.manual_seed(0)
    z = torch.randn(1_200, 3)
    a, b = z @ torch.randn(3, 8), (z @ torch.randn(3, 6)).tanh()
    a, b = a + 0.1 * torch.randn_like(a), b + 0.05 * torch.randn_like(b)
    swapped = torch.zeros(1_200, dtype=torch.bool)
    swapped[1_000:1_060] = True
    mixed = b.clone()
    mixed[swapped] = b[swapped].roll(1, 0)
    arrays = {"a": a, "b": mixed}
    specs = tuple(Modality.guess(name, x, None) for name, x in arrays.items())
    data = MultimodalData(arrays, specs)
    model = MultimodalVAE.for_data(data, 3, say=None)
    fit(model, data.subset(slice(0, 1_000)), epochs=30, batch_size=50, learning_rate=3e-3)
    far, near = model.compare(data)[1_000:1_060], model.compare(data)[1_060:]
    above = (far[:, None] > near).double().mean().item()
    assert above > 0.85  # the area under the curve


def test_wrong_choices_are_named():
    model, data = told(posteriors())
    with pytest.raises(UserError, match="precision"):
        model.shared(data, "sum")
    with pytest.raises(UserError, match="draws"):
        model.compare(data, draws=0)
