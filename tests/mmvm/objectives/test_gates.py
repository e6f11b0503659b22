"""The gate of the mixture prior, and priors of few experts, against loops; what the gate says when it goes wrong."""

import math
import warnings

import pytest
import torch
from torch import distributions as dist, nn

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.gaussian import DiagonalGaussian
from mmvm.likelihoods import Normal
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder
from mmvm.objectives import MMVM, Gated, Schedule
from mmvm.training.loop import fit
from mmvm.training.run import TrainingWarning

M, B, D = 3, 6, 3
ALL = torch.ones(M, B, dtype=torch.bool)
SOME = torch.tensor([[1, 1, 1, 0, 1, 0], [1, 1, 0, 1, 0, 0], [1, 0, 1, 1, 0, 1]], dtype=torch.bool)
CLOSE = dict(rtol=1e-5, atol=1e-6)  # the weights are in float32
complete_or_not = pytest.mark.parametrize("observed", [ALL, SOME], ids=["complete", "missing"])


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def leaves(m=M, b=B):
    return (1.5 * torch.randn(m, b, D)).requires_grad_(), (0.8 * torch.randn(m, b, D)).requires_grad_()


def decided(*args, **options):
    """A gate whose weights are far from equal."""
    gate = Gated(D, *args, **options)
    nn.init.normal_(gate.score[-1].weight, std=1.0)
    return gate


def normals(mean, logvar, observed, b):
    return {m: dist.Normal(mean[m, b], (logvar[m, b] / 2).exp()) for m in range(len(mean)) if observed[m, b]}


def kl(p, q):
    return dist.kl_divergence(p, q).sum()


# the weights

@complete_or_not
def test_weights_equal_the_network_written_out(observed):
    gate, (mean, logvar) = decided(), leaves()
    norm, embed, score, last = gate.embed[0], gate.embed[1], gate.score[0], gate.score[2]
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    weights = gate.log_probabilities(DiagonalGaussian(mean, logvar), observed).exp()
    for b in range(B):
        embedded = {}
        for m in range(M):
            if observed[m, b]:
                x = torch.cat([mean[m, b], logvar[m, b]])
                x = (x - x.mean()) / (x.var(unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
                embedded[m] = (embed.weight @ x + embed.bias).clamp(min=0)
        average = sum(embedded.values()) / len(embedded)
        scores = {}
        for m, own in embedded.items():
            hidden = (score.weight @ torch.cat([own, average]) + score.bias).clamp(min=0)
            scores[m] = (last.weight @ hidden + last.bias).exp()
        for m in range(M):
            expected = (scores[m] / sum(scores.values())).item() if m in scores else 0.0
            assert weights[m, b].item() == pytest.approx(expected, rel=1e-5, abs=0)


def test_absent_modalities_have_no_weight_and_a_new_gate_nearly_equal_weights():
    mean, logvar = leaves()
    observed = SOME & (torch.arange(B) != 3)
    for gate, tolerance in ((Gated(D), 0.03), (decided(), 1.0)):
        weights = gate.log_probabilities(DiagonalGaussian(mean, logvar), observed).exp()
        assert (weights[~observed & (torch.arange(B) != 3)] == 0).all()
        torch.testing.assert_close(weights.sum(0).double(), torch.ones(B), **CLOSE)
        torch.testing.assert_close(weights[:, 3].double(), torch.full((M,), 1 / 3), **CLOSE)
        assert ((weights - 1 / observed.sum(0))[observed].abs() < tolerance).all()


@complete_or_not
def test_permuted_modalities_have_permuted_weights(observed):
    order, gate, (mean, logvar) = [2, 0, 1], decided(), leaves()
    weights = gate.log_probabilities(DiagonalGaussian(mean, logvar), observed)
    permuted = gate.log_probabilities(DiagonalGaussian(mean[order], logvar[order]), observed[order])
    torch.testing.assert_close(permuted, weights[order], **CLOSE)
    assert weights.exp()[observed].std() > 0.1


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("mode", Gated.MODES)
def test_encoders_get_a_gradient_through_the_gate_only_without_detach(mode, detach):
    """With `detach` it is that of weights which are given numbers."""
    gate, (mean, logvar) = decided(mode, detach=detach), leaves()
    gate.eval()
    q, objective = DiagonalGaussian(mean, logvar), MMVM(weights=gate)
    ours = torch.autograd.grad(objective(q, ALL).regulariser.sum(), (mean, logvar))
    weights = objective.log_weights(q, ALL).detach().exp()
    fixed = sum(weights[n, b] * kl(p, r) for b in range(B) for p in normals(mean, logvar, ALL, b).values()
                for n, r in normals(mean, logvar, ALL, b).items())
    same = [torch.allclose(a, b, **CLOSE) for a, b in zip(ours, torch.autograd.grad(fixed, (mean, logvar)))]
    assert same == [detach, detach]


# what they do in the regulariser

@complete_or_not
@pytest.mark.parametrize("bound", MMVM.BOUNDS)
@pytest.mark.parametrize("n_experts", [None, 1, 2, M])
@pytest.mark.parametrize("weights", ["uniform", [1.0, 4.0, 2.0], "gated"], ids=["uniform", "fixed", "gated"])
def test_few_experts_equal_their_definition(weights, n_experts, bound, observed):
    """The largest weights, the first among equal ones, renormalised; all observed modalities pay."""
    gate, (mean, logvar) = decided(), leaves()
    objective = MMVM(bound, gate if weights == "gated" else weights, n_experts=n_experts)
    q = DiagonalGaussian(mean, logvar)
    shared = objective(q, observed)
    kept, expected = objective.log_weights(q, observed).exp(), []
    for b in range(B):
        p = normals(mean, logvar, observed, b)
        w = dict.fromkeys(p, 1.0)
        if weights == "gated":
            w = dict(enumerate(gate.log_probabilities(q, observed).exp()[:, b].detach()))
        elif weights != "uniform":
            w = dict(enumerate(weights))
        experts = sorted(p, key=lambda m: (-w[m], m))[:n_experts]
        w = {n: w[n] / sum(w[k] for k in experts) for n in experts}
        torch.testing.assert_close(kept[:, b].double(), torch.tensor([float(w.get(m, 0)) for m in range(M)]), **CLOSE)
        total = 0
        for m, q_m in p.items():
            z = shared.latents[0, m, b]
            if bound == "pairwise":
                total = total + sum(w[n] * kl(q_m, p[n]) for n in experts)
            elif bound == "variational":
                total = total - sum(w[n] * (-kl(q_m, p[n])).exp() for n in experts).log()
            else:
                h = sum(w[n] * p[n].log_prob(z).sum().exp() for n in experts)
                total = total + q_m.log_prob(z).sum() - h.log()
        expected.append(total)
    expected = torch.stack(expected)
    torch.testing.assert_close(shared.regulariser, expected, **CLOSE)
    for ours, theirs in zip(*(torch.autograd.grad(value.sum(), (mean, logvar), retain_graph=True)
                              for value in (shared.regulariser, expected))):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@complete_or_not
@pytest.mark.parametrize("bound", MMVM.BOUNDS)
def test_a_hard_gate_has_one_expert_and_passes_the_gradient_straight_through(bound, observed):
    """Value and encoders: the best expert alone. Gate: the gradient of the mean of the experts' costs under soft w."""
    gate, (mean, logvar) = decided("hard"), leaves()
    objective, q = MMVM(bound, gate), DiagonalGaussian(mean, logvar)
    shared = objective(q, observed)
    soft = gate.log_probabilities(q, observed).exp()
    value, through = 0, 0
    for b in range(B):
        p = normals(mean, logvar, observed, b)
        best = max(p, key=lambda m: soft[m, b].item())
        assert objective.log_weights(q, observed).exp()[:, b].tolist() == [float(m == best) for m in range(M)]
        for m, q_m in p.items():
            z = shared.latents[0, m, b]
            costs = {n: q_m.log_prob(z).sum() - p[n].log_prob(z).sum() if bound == "monte_carlo" else kl(q_m, p[n])
                     for n in p}
            value = value + costs[best]
            through = through + sum(soft[n, b] * costs[n].detach() for n in p)
    torch.testing.assert_close(shared.regulariser.sum(), value, **CLOSE)
    ours = torch.autograd.grad(shared.regulariser.sum(), [mean, logvar, *gate.parameters()], retain_graph=True)
    theirs = [*torch.autograd.grad(value, (mean, logvar), retain_graph=True),
              *torch.autograd.grad(through, list(gate.parameters()))]
    assert any((g != 0).any() for g in theirs[2:])
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(1 + b.abs().max()))


def test_a_hard_gate_imputes_from_its_expert_alone():
    gate, (mean, logvar) = decided("hard"), leaves(b=200)
    observed = torch.tensor([True, True, False])[:, None].expand(M, 200)
    q = DiagonalGaussian(mean, logvar)
    best = gate.log_probabilities(q, observed).argmax(0)
    latents = MMVM(weights=gate).impute_latents(q, observed)
    assert set(best.tolist()) == {0, 1}
    torch.testing.assert_close(latents[2], latents[best, torch.arange(200)])


@complete_or_not
def test_gumbel_weights_are_noisy_in_training_and_follow_the_temperature(observed, monkeypatch):
    uniform = torch.rand(M, B).float()
    monkeypatch.setattr(torch, "rand_like", lambda like: uniform.to(like.dtype))
    gate, (mean, logvar) = decided("gumbel", temperature=Schedule(2.0, 0.02, 10, "linear")), leaves()
    objective, q = MMVM(weights=gate), DiagonalGaussian(mean, logvar)
    soft = gate.log_probabilities(q, observed).detach().double()
    tops = []
    for step, temperature in ((0, 2.0), (5, 1.01), (10, 0.02), (99, 0.02)):
        found, top = objective(q, observed, step).regulariser, []
        for b in range(B):
            p = normals(mean, logvar, observed, b)
            noisy = {m: (soft[m, b] - math.log(-math.log(uniform[m, b]))) / temperature for m in p}
            total = sum(value.exp() for value in noisy.values())
            expected = sum(noisy[n].exp() / total * kl(p[m], p[n]) for m in p for n in p)
            torch.testing.assert_close(found[b], expected, rtol=1e-4, atol=1e-5)
            top.append(max(value.exp() / total for value in noisy.values()))
        tops.append(torch.stack(top))
    assert (tops[0] <= tops[1]).all() and (tops[1] <= tops[2]).all() and torch.equal(tops[2], tops[3]), "colder: fewer"
    objective.eval()
    calm = MMVM(weights=decided())
    calm.gate.load_state_dict(gate.state_dict())
    torch.testing.assert_close(objective(q, observed, 10).regulariser, calm(q, observed).regulariser, **CLOSE)


def test_gumbel_takes_each_expert_as_often_as_its_weight_says():
    """A cold draw is one expert, told by its price."""
    n, gate, (mean, logvar) = 40_000, decided("gumbel", temperature=1e-5), leaves(b=1)
    weights = gate.log_probabilities(DiagonalGaussian(mean, logvar), ALL[:, :1]).exp().flatten().tolist()
    many = DiagonalGaussian(mean.expand(M, n, D), logvar.expand(M, n, D))
    found = MMVM(weights=gate)(many, torch.ones(M, n, dtype=torch.bool)).regulariser
    p = normals(mean, logvar, ALL, 0)
    for m, weight in enumerate(weights):
        price = sum(kl(q_n, p[m]) for q_n in p.values())
        count = ((found - price).abs() < 1e-3 * price).sum().item()
        assert abs(count - n * weight) < 5 * math.sqrt(n * weight * (1 - weight))


def test_a_soft_gate_learns_to_give_all_to_one_cheap_expert():
    """Not always the cheapest: what is given up early gets no gradient."""
    gate, (mean, logvar) = Gated(D), leaves(b=4)
    q = DiagonalGaussian(mean.detach(), logvar.detach())
    objective, everyone = MMVM(weights=gate), torch.ones(M, 4, dtype=torch.bool)
    equal = MMVM()(q, everyone).regulariser.mean().item()
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        objective(q, everyone).regulariser.mean().backward()
        optimizer.step()
    weights, found = gate.log_probabilities(q, everyone).exp(), objective(q, everyone).regulariser.mean().item()
    assert weights.max(0).values.min().item() > 0.9  # measured 1.000 over 16 seeds
    cheapest = q.pairwise_kl().sum(0).min(0).values.mean().item()
    assert (equal - found) / (equal - cheapest) > 0.6  # the share of what can be saved; measured .85 to 1.00


# load balance, and what is watched

def logs(*columns):
    """Log-weights (M, B) from the weights of each sample."""
    return torch.tensor(columns).t().log()


@pytest.mark.parametrize("log_weights, expected", [
    (logs([1 / 3] * 3, [1 / 3] * 3), 0.0), (logs([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]), 0.0),
    (logs([0, 1.0, 0], [0, 1.0, 0]), 2.0), (logs([0.5, 0.3, 0.2], [0.1, 0.8, 0.1]), 3 * (0.5 * 0.3 + 0.5 * 0.55) - 1)])
def test_load_balance_is_zero_for_equal_use_and_m_minus_one_for_one_expert(log_weights, expected):
    n = log_weights.shape[1]
    found = Gated(D).imbalance(log_weights, torch.ones(M, n, dtype=torch.bool))
    assert found.tolist() == pytest.approx([expected] * n, abs=1e-6)


def test_load_balance_is_paid_in_nats_and_pushes_the_weight_of_the_most_used_expert_down():
    mean, logvar = leaves()
    gate = decided(load_balance=2.5)
    q = DiagonalGaussian(mean.detach(), logvar.detach())
    shared = MMVM(weights=gate)(q, ALL)
    torch.testing.assert_close(shared.regulariser, shared.parts["kl_mixture"] + 2.5 * shared.parts["load_balance"])
    log_weights = gate.log_probabilities(q, ALL).detach().requires_grad_()
    gate.imbalance(log_weights, ALL).mean().backward()
    first = log_weights.argmax(0)
    use = torch.stack([(first == m).double().mean() for m in range(M)])
    torch.testing.assert_close(log_weights.grad.double(), M * use[:, None] * log_weights.exp().double() / B, **CLOSE)
    gate.load_balance = 0.0
    assert "load_balance" not in MMVM(weights=gate)(q, ALL).parts


@complete_or_not
def test_parts_show_entropy_margin_weight_and_first_place(observed):
    gate, (mean, logvar) = decided(), leaves()
    q = DiagonalGaussian(mean, logvar)
    parts, weights = MMVM(weights=gate)(q, observed).parts, gate.log_probabilities(q, observed).exp().detach().double()
    for b in range(B):
        w = [value for value in weights[:, b].tolist() if value > 0]
        assert parts["gate_entropy"][b].item() == pytest.approx(-sum(x * math.log(x) for x in w), abs=1e-5)
        assert parts["gate_margin"][b].item() == pytest.approx(math.log(max(w) / min(w)), abs=1e-5)
    for m in range(M):
        torch.testing.assert_close(parts[f"gate_weight/{m}"].double(), weights[m], **CLOSE)
        torch.testing.assert_close(parts[f"gate_first/{m}"].double(), (weights.argmax(0) == m).double())


@pytest.mark.parametrize("mode, log_weights, found", [
    ("soft", logs([0.4, 0.3, 0.3], [0.4, 0.3, 0.3]), []), ("soft", logs([0.97, 0.02, 0.01], [0.99, 0.005, 0.005]), []),
    ("hard", logs([0.4, 0.3, 0.3], [0.4, 0.3, 0.3]), ["collapsed: modality 0"]),
    ("hard", logs([0.4, 0.3, 0.3], [0.2, 0.3, 0.5]), []),
    ("soft", logs([0.001, 0.998, 0.001]), ["collapsed: modality 1"]),
    ("gumbel", logs([0.001, 0.001, 0.998]), ["collapsed: modality 2"]),
    ("soft", logs([1.0, 1e-30, 1e-30], [1e-30, 1e-30, 1.0]), ["differ by more than 50 nats"]),
    ("soft", logs([1.0, 1e-30, 1e-30]), ["collapsed: modality 0", "differ by more than 50 nats"])])
def test_report_warns_of_a_collapsed_and_of_an_exploded_gate_alone(mode, log_weights, found):
    gate = Gated(D, mode)
    parts = gate.parts(log_weights, torch.ones(log_weights.shape, dtype=torch.bool))
    watched, advice = MMVM(weights=gate).report({name: value.mean().item() for name, value in parts.items()})
    assert len(advice) == len(found) and all(part in sentence for part, sentence in zip(found, advice))
    assert all("Try load_balance=1" in sentence for sentence in advice)
    first = log_weights.argmax(0).tolist()
    assert watched == {"gate_most_used": max(first.count(m) for m in range(M)) / len(first)}
    assert MMVM().report({"kl_mixture": 1.0}) == ({}, [])


class Shift(nn.Module):
    """Posteriors that differ between modalities but hardly between samples."""

    def __init__(self, m):
        super().__init__()
        self.mean = nn.Parameter(torch.eye(M)[m])

    def forward(self, x):
        return self.mean + 1e-3 * x, torch.zeros(len(x), D).to(x)


def test_fit_passes_the_warnings_on_once_and_only_when_there_is_something_wrong():
    torch.set_default_dtype(torch.float32)
    specs = tuple(Modality(f"x{m}", (D,), Normal()) for m in range(M))
    data = MultimodalData({spec.name: torch.randn(32, D) for spec in specs}, specs)

    def train(gate):
        model = MultimodalVAE(specs, [Shift(m) for m in range(M)], [MLPDecoder((D,), D, (4,)) for _ in specs],
                              MMVM(weights=gate))
        return fit(model, data, epochs=2, batch_size=16, device="cpu", precision="float32")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(0 < use <= 1 for use in train(Gated(D))["gate_most_used"])
    saturated = decided()
    saturated.score[-1].weight.data *= 1e4
    with pytest.warns(TrainingWarning) as caught:
        history = train(saturated)
    sentences = [str(w.message) for w in caught if issubclass(w.category, TrainingWarning)]
    assert len(sentences) == 2 and "has collapsed" in sentences[0] and "more than 50 nats" in sentences[1]
    assert history["gate_most_used"] == [1.0, 1.0]


# the edges

@pytest.mark.parametrize("bound", MMVM.BOUNDS)
@pytest.mark.parametrize("mode", Gated.MODES)
def test_a_gate_of_one_modality_costs_nothing(mode, bound):
    mean, logvar = leaves(m=1)
    objective = MMVM(bound, decided(mode, load_balance=1.0))
    torch.testing.assert_close(objective(DiagonalGaussian(mean, logvar), ALL[:1]).regulariser, torch.zeros(B), **CLOSE)


@pytest.mark.parametrize("make, message", [
    (lambda: Gated(D, "top"), "'top': use one of 'soft', 'hard', 'gumbel'"),
    (lambda: Gated(D, temperature=0.0), "temperature must be positive, got 0.0"),
    (lambda: Gated(D, temperature=Schedule(1.0, 0.0, 10)), "temperature must be positive"),
    (lambda: Gated(D, load_balance=-1.0), "load_balance must be at least 0, got -1.0"),
    (lambda: Gated(D, load_balance=math.nan), "load_balance"),
    (lambda: MMVM(n_experts=0), "n_experts must be at least 1, got 0")])
def test_mistakes_are_named_with_their_cure(make, message):
    with pytest.raises(UserError, match=message):
        make()
