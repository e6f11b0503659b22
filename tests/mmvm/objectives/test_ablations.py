"""What the ablations of the mixture prior change, exactly: which side learns, q_m in its own prior or not, weights."""

import pytest
import torch
from torch import distributions as dist, nn

from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.objectives import MMVM, Gated, build

M, B, D = 3, 5, 2
ALL = torch.ones(M, B, dtype=torch.bool)
SOME = torch.tensor([[1, 1, 1, 0, 1], [1, 1, 0, 1, 0], [1, 0, 1, 1, 0]], dtype=torch.bool)  # the last has one alone
bounds = pytest.mark.parametrize("bound", MMVM.BOUNDS)
complete_or_not = pytest.mark.parametrize("observed", [ALL, SOME], ids=["complete", "missing"])


@pytest.fixture(autouse=True)
def _fixed():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def leaves(m=M):
    return (1.5 * torch.randn(m, B, D)).requires_grad_(), (0.8 * torch.randn(m, B, D)).requires_grad_()


def decided(mode="soft"):
    gate = Gated(D, mode).double().eval()  # draws nothing
    nn.init.normal_(gate.score[-1].weight, std=1.0)
    return gate


def kl_of(bound, mean, logvar, z, weights, first=lambda x: x, others=lambda x: x):
    """sum_m KL(q_m || sum_n w_mn q_n), weights (M, M, B), in loops over torch's own normals; `first` and `others` are
    applied to the parameters of q_m and to those of the mixture."""
    total = 0
    for m, b in ((m, b) for m in range(len(mean)) for b in range(B)):
        p = dist.Normal(first(mean[m, b]), first(logvar[m, b] / 2).exp())
        w = weights[m, :, b]
        those = {n: dist.Normal(others(mean[n, b]), others(logvar[n, b] / 2).exp())
                 for n in range(len(mean)) if w[n] > 0}
        kl = {n: dist.kl_divergence(p, q).sum() for n, q in those.items()}
        if bound == "pairwise":
            total = total + sum(w[n] * kl[n] for n in those)
        elif bound == "variational":
            total = total - sum(w[n] * (-kl[n]).exp() for n in those).log() if those else total
        elif those:
            at = first(z[m, b])
            h = sum(w[n] * q.log_prob(at).sum().exp() for n, q in those.items())
            total = total + p.log_prob(at).sum() - h.log()
    return total


def gradients(value, *of):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, of, retain_graph=True)])


@bounds
@pytest.mark.parametrize("weights", ["uniform", [1.0, 4.0, 2.0], "soft", "hard"], ids=str)
def test_both_sides_learn_what_each_learns_alone(weights, bound):
    """One value; the gradient through both is that through q_m and that through h together, each as of numbers that
    stand still."""
    mean, logvar = leaves()
    q, found = DiagonalGaussian(mean, logvar), {}
    weights = decided(weights) if weights in ("soft", "hard") else weights
    for gradient in ("both", "posterior", "prior"):
        torch.manual_seed(1)
        objective = MMVM(bound, weights, gradient=gradient).double()
        shared = objective(q, ALL)
        value = shared.regulariser.sum()
        found[gradient] = gradients(value, mean, logvar)
        torch.testing.assert_close(value, found.setdefault("value", value))
        w = objective.log_weights(q, ALL).exp().detach().expand(M, M, B)
        sides = {"posterior": dict(others=torch.Tensor.detach), "prior": dict(first=torch.Tensor.detach), "both": {}}
        expected = kl_of(bound, mean, logvar, shared.latents[0], w, **sides[gradient])
        torch.testing.assert_close(found[gradient], gradients(expected, mean, logvar))
    torch.testing.assert_close(found["posterior"] + found["prior"], found["both"])
    assert not any(torch.allclose(found[side], found["both"]) for side in ("posterior", "prior"))


def test_a_gate_learns_whichever_side_stands_still():
    mean, logvar = leaves()
    for gradient in ("posterior", "prior"):
        gate = decided()
        MMVM(weights=gate, gradient=gradient)(DiagonalGaussian(mean, logvar), ALL).regulariser.sum().backward()
        assert all((p.grad != 0).any() for p in gate.score.parameters())


def test_draws_reach_the_decoders_with_their_gradient_whichever_side_stands_still():
    mean, logvar = leaves()
    for gradient in ("posterior", "prior"):
        shared = MMVM("monte_carlo", gradient=gradient)(DiagonalGaussian(mean, logvar), ALL)
        torch.testing.assert_close(gradients(shared.latents.sum(), mean), torch.ones(M * B * D))


@complete_or_not
@bounds
@pytest.mark.parametrize("weights", ["uniform", [1.0, 4.0, 2.0], "soft", "hard"], ids=str)
def test_without_its_own_component_a_prior_is_the_mixture_of_the_others(weights, bound, observed):
    mean, logvar = leaves()
    weights = decided(weights) if weights in ("soft", "hard") else weights
    objective = MMVM(bound, weights, self_component=False).double()
    q = DiagonalGaussian(mean, logvar)
    shared = objective(q, observed)
    w = torch.zeros(M, M, B)
    for m, b in ((m, b) for m in range(M) for b in range(B) if observed[m, b]):
        base = torch.tensor([1.0, 4.0, 2.0]) if isinstance(weights, list) else torch.ones(M)
        if isinstance(weights, Gated):
            base = weights.log_probabilities(q, observed)[:, b].exp().detach()
        base = base * observed[:, b] * (torch.arange(M) != m)
        if isinstance(weights, Gated) and weights.mode == "hard":
            base = base * (base == base.max())
        w[m, :, b] = base / base.sum() if base.sum() else 0.0  # nothing to pay for one that is alone
    expected = kl_of(bound, mean, logvar, shared.latents[0], w)
    torch.testing.assert_close(shared.regulariser.sum(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(shared.regulariser.sum(), mean, logvar), gradients(expected, mean, logvar),
                               rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("m", [2, 3, 5])
def test_for_the_pairwise_bound_the_own_component_is_a_factor_of_beta(m):
    """KL(q_m || q_m) = 0: without it the equal weights of the others are M / (M - 1) times as large."""
    q = DiagonalGaussian(*leaves(m))
    every = torch.ones(m, B, dtype=torch.bool)
    torch.testing.assert_close(MMVM(self_component=False)(q, every).regulariser,
                               m / (m - 1) * MMVM()(q, every).regulariser)


def test_without_its_own_component_no_ceiling_holds():
    far = DiagonalGaussian(torch.tensor([0.0, 20.0]).view(2, 1, 1), torch.zeros(2, 1, 1))
    every = torch.ones(2, 1, dtype=torch.bool)
    for bound in ("pairwise", "variational"):  # of two, h_m is the other: all are KL = d^2 / 2 on both sides
        assert MMVM(bound, self_component=False)(far, every).regulariser.item() == pytest.approx(400.0)
    assert MMVM("variational")(far, every).regulariser.item() == pytest.approx(2 * 0.6931, abs=1e-3)


@bounds
def test_an_only_expert_pays_nothing_with_or_without_its_own_component(bound):
    """And all others pay for that one: a single expert, chosen by the weights."""
    q, found = DiagonalGaussian(*leaves()), []
    for own in (True, False):
        torch.manual_seed(2)
        found.append(MMVM(bound, [1.0, 3.0, 2.0], n_experts=1, self_component=own).double()(q, ALL).regulariser)
    torch.testing.assert_close(*found)
    if bound != "monte_carlo":
        torch.testing.assert_close(found[0], (q[0].kl(q[1]) + q[2].kl(q[1])))


def test_fixed_weights_are_a_text():
    objective = build("mmvm:weights=5+3+2,n_experts=2", D, 3)
    q = DiagonalGaussian(*leaves())
    torch.testing.assert_close(objective.log_weights(q, ALL).exp()[:, 0], torch.tensor([0.625, 0.375, 0.0]),
                               check_dtype=False)
    assert build("mmvm:weights=equal", D, 3).weights is None and objective.text == "mmvm:n_experts=2,weights=5+3+2"


@pytest.mark.parametrize("text, message", [
    ("mmvm:weights=5+3", "2 mixture weights for 3 modalities: give one each"),
    ("mmvm:weights=some", r"weights must be equal, or numbers as in 5\+3\+2, got 'some'"),
    ("mmvm:weights=1+0+1", "positive finite numbers"),
    ("mmvm:weights=1+2+3,gate=soft", "a gate has weights of its own: leave weights or gate out"),
    ("mmvm:gradient=none", r"gradient must be both \| posterior \| prior"),
    ("mmvm:gradient=prior,prior=geometric", "belong to the mixture of all dimensions"),
    ("mmvm:self_component=false,pool=matched", "belong to the mixture of all dimensions")])
def test_mistakes_are_named_with_their_cure(text, message):
    with pytest.raises(UserError, match=message):
        build(text, D, 3)


def test_one_modality_has_no_others():
    with pytest.raises(UserError, match="the prior of one modality is empty: give two modalities, or leave self"):
        build("mmvm:self_component=false", D, 1)
    with pytest.raises(UserError, match="the prior of one modality is empty"):
        MMVM(self_component=False)(DiagonalGaussian(*leaves(1)), ALL[:1])
