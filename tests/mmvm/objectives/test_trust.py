"""Mixture weights that the data give: against formulas in loops, with masks, and through everything that has data."""

import pandas as pd
import pytest
import torch
from torch import distributions as dist
from torch.utils.data import DataLoader

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation import diagnostics, reconstruction_error
from mmvm.gaussian import DiagonalGaussian
from mmvm.identity import fingerprint
from mmvm.likelihoods import Normal
from mmvm.model import MultimodalVAE
from mmvm.objectives import MMVM, Posteriors
from mmvm.training.batches import to_device
from mmvm.training.loop import fit

M, B, D = 3, 5, 2
ALL = torch.ones(M, B, dtype=torch.bool)
SOME = torch.tensor([[1, 1, 1, 0, 1], [1, 1, 0, 1, 0], [1, 0, 1, 1, 0]], dtype=torch.bool)  # the last has one alone
TRUST = torch.tensor([[0, 1, 2, 3, 0.5], [1, 1, 0, 1, 0], [1, 4, 1, 2, 0.25]])
bounds = pytest.mark.parametrize("bound", MMVM.BOUNDS)
complete_or_not = pytest.mark.parametrize("observed", [ALL, SOME], ids=["complete", "missing"])
DATA = {name: torch.randn(20, n, generator=torch.Generator().manual_seed(n)) for name, n in zip("abc", (3, 4, 2))}
SPECS = [Modality(name, x.shape[1:], Normal(1.0)) for name, x in DATA.items()]
TOLD = torch.ones(3, 20).index_put((torch.arange(20) % 3, torch.arange(20)), torch.zeros(()))  # one of each lies


def leaves():
    return (1.5 * torch.randn(M, B, D)).requires_grad_(), (0.8 * torch.randn(M, B, D)).requires_grad_()


def told(mean, logvar, trust):
    return Posteriors.beside(DiagonalGaussian(mean, logvar), trust)


def model_of(objective="mmvm:weights=given"):
    torch.manual_seed(3)
    return MultimodalVAE.for_data(MultimodalData(DATA, SPECS), 2, objective, say=None)


# the weights

@complete_or_not
@bounds
def test_the_mixture_has_the_weights_of_the_data(bound, observed):
    """sum_m KL(q_m || h), h = sum_n t_n q_n / sum_n t_n over what is observed, in loops over torch's own normals."""
    mean, logvar = leaves()
    shared = MMVM(bound, "given")(told(mean, logvar, TRUST), observed)
    for b in range(B):
        there = [m for m in range(M) if observed[m, b]]
        q = {m: dist.Normal(mean[m, b], (logvar[m, b] / 2).exp()) for m in there}
        total = sum(TRUST[m, b] for m in there)
        w = {m: TRUST[m, b] / total for m in there if TRUST[m, b] > 0}
        expected = 0
        for m in there:
            kl = {n: dist.kl_divergence(q[m], q[n]).sum() for n in w}
            if bound == "pairwise":
                expected = expected + sum(w[n] * kl[n] for n in w)
            elif bound == "variational":
                expected = expected - sum(w[n] * (-kl[n]).exp() for n in w).log()
            else:
                at = {n: q[n].log_prob(shared.latents[0, m, b]).sum() for n in there}
                expected = expected + at[m] - torch.stack([w[n].log() + at[n] for n in w]).logsumexp(0)
        torch.testing.assert_close(shared.regulariser[b], expected, rtol=1e-4, atol=1e-5)


@complete_or_not
@bounds
@pytest.mark.parametrize("trust", [1.0, 0.3, 7e30])
def test_equal_trust_is_equal_weights_to_the_last_bit(trust, bound, observed):
    mean, logvar = leaves()
    found = []
    for objective, q in ((MMVM(bound), DiagonalGaussian(mean, logvar)),
                         (MMVM(bound, "given"), told(mean, logvar, torch.full((M, B), trust)))):
        torch.manual_seed(1)
        shared = objective(q, observed)
        found.append([shared.regulariser, shared.latents,
                      *torch.autograd.grad(shared.regulariser.sum(), (mean, logvar)),
                      objective.log_weights(q, observed)])
    assert all(torch.equal(a, b) for a, b in zip(*found))


def test_trust_and_masks_combine_and_where_nobody_is_trusted_all_count():
    trust = torch.tensor([[0.0, 2.0, float("nan"), 0.0], [3.0, 0.0, 1.0, 0.0], [1.0, 2.0, 1.0, 5.0]])
    observed = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [1, 0, 1, 0]], dtype=torch.bool)
    weights = MMVM(weights="given").log_weights(told(torch.zeros(M, 4, D), torch.zeros(M, 4, D), trust), observed).exp()
    expected = torch.tensor([[0.0, 1.0, 0.0, 0.5], [0.75, 0.0, 0.5, 0.5], [0.25, 0.0, 0.5, 0.0]])
    torch.testing.assert_close(weights, expected)


@bounds
def test_who_is_not_trusted_follows_the_others_and_does_not_lead_them(bound):
    trust, (mean, logvar) = torch.tensor([[0.0], [1.0], [1.0]]).expand(M, B), leaves()
    torch.manual_seed(1)
    by_others, = torch.autograd.grad(MMVM(bound, "given", gradient="prior")(told(mean, logvar, trust), ALL)
                                     .regulariser.sum(), mean)
    own, = torch.autograd.grad(MMVM(bound, "given")(told(mean, logvar, trust), ALL).regulariser.sum(), mean)
    assert (by_others[0] == 0).all() and (by_others[1:] != 0).any() and (own[0] != 0).all()


@pytest.mark.parametrize("options", [dict(prior="geometric"), dict(prior="hellinger", bound="variational"),
                                     dict(pool="matched"), dict(n_experts=1), dict(self_component=False)], ids=str)
def test_other_options_take_weights_of_zero(options):
    mean, logvar = leaves()
    regulariser = MMVM(weights="given", **options)(told(mean, logvar, TRUST), SOME).regulariser
    assert regulariser.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(regulariser.sum(), (mean, logvar)))


def test_what_nobody_told_is_an_error_where_there_is_something_to_weigh():
    q, objective = DiagonalGaussian(*leaves()), MMVM(weights="given")
    with pytest.raises(UserError, match=r"weights=given takes .* from the data, and these have none: give Multimodal"):
        objective(q, SOME)
    alone = torch.eye(M, B, dtype=torch.bool)
    assert objective.impute_latents(q, alone).isfinite().all(), "what is asked from one modality alone needs no weight"
    with pytest.raises(UserError, match="unknown weights 'given to me'"):
        MMVM(weights="given to me")


# the data

def test_trust_comes_in_any_form_and_follows_the_samples():
    data = MultimodalData(DATA, SPECS, trust=TOLD)
    frame = pd.DataFrame(TOLD.t().numpy(), columns=list("abc"))
    for given in (TOLD.numpy(), TOLD.tolist(), frame, dict(frame.items()), TOLD.double()):
        assert torch.equal(MultimodalData(DATA, SPECS, trust=given).trust, TOLD)
    assert MultimodalData(DATA, SPECS, trust={"b": TOLD[1]}).trust.sum(1).tolist() == [20, TOLD[1].sum(), 20]
    rows = torch.tensor([7, 2, 11])
    assert all(torch.equal(x, TOLD[:, rows]) for x in (data.subset(rows).trust, data.batch(rows).trust,
                                                       data.subset(rows).to("cpu").trust,
                                                       to_device(data.batch(rows), torch.device("cpu")).trust))
    moved = data.batch(rows).map(torch.clone)
    assert torch.equal(moved.trust, TOLD[:, rows]) and moved.trust is not data.batch(rows).trust
    assert torch.equal(data[4]["trust"], TOLD[:, 4]) and "trust" not in MultimodalData(DATA, SPECS)[4]
    seen = TOLD.bool().roll(1, 0)
    absent = MultimodalData(DATA, SPECS, observed=seen, trust=torch.where(seen, 2.0, float("nan")))
    assert torch.equal(absent.trust, 2.0 * seen), "what is absent may hold anything"


def test_a_run_belongs_to_the_trust_of_its_data():
    data = [MultimodalData(DATA, SPECS, trust=trust) for trust in (None, torch.ones(3, 20), TOLD, TOLD.clone())]
    found = [fingerprint(own) for own in data]
    assert found[2] == found[3] and len(set(found)) == 3


@pytest.mark.parametrize("trust, message", [
    (TOLD[:2], r"`trust` must be of shape \(M, N\) = \(3, 20\), it is \(2, 20\)"),
    (-TOLD, r"sample s1 has a trust that is no number of 0 or more \(\d+ such samples\): correct `trust`"),
    (TOLD * float("nan"), "sample s0 has a trust that is no number"),
    (TOLD * (torch.arange(20) != 4), r"sample s4 has no observed modality with a trust above 0 \(1 such samples\)"),
    ({"d": TOLD[0]}, "`trust` names 'd': the modalities are a, b, c"),
    ("high", "`trust` holds"),
])
def test_mistakes_are_named(trust, message):
    trust = -(TOLD * (torch.arange(20) > 0)) if message.startswith("sample s1") else trust
    if message.startswith("sample s1"):
        trust[:, 0] = 1.0
    with pytest.raises(UserError, match=message):
        MultimodalData(DATA, SPECS, trust=trust, ids=[f"s{i}" for i in range(20)])


# the model and its training

def test_a_model_is_trained_with_the_trust_of_its_data(tmp_path):
    data = MultimodalData(DATA, SPECS, trust=TOLD, observed=torch.rand(3, 20) < 0.8 + (TOLD > 0))
    untold = MultimodalData(DATA, SPECS)
    model = model_of()
    settings = dict(epochs=1, batch_size=10, learning_rate=1e-3, device="cpu")
    history = fit(model, data, validation=data.subset(slice(8)), out=tmp_path, **settings)
    assert history.epochs[-1]["validation_loss"] > 0
    assert diagnostics(model, data)["weight/a"] == pytest.approx(float((TOLD[0] / TOLD.sum(0)).mean()), abs=0.03)
    assert (reconstruction_error(model, data) > 0).all()
    with pytest.raises(UserError, match="data"):
        fit(model_of(), MultimodalData(DATA, SPECS, trust=torch.ones(3, 20)), out=tmp_path, **settings)
    for own in (untold, data):
        with pytest.raises(UserError, match="these have none: give MultimodalData"):
            fit(model_of(), own, validation=untold.subset(slice(8)), **settings)
    model.save(tmp_path / "model.safetensors")
    again = MultimodalVAE.load(tmp_path / "model.safetensors")
    batch = data.batch(torch.arange(20))
    torch.manual_seed(0)
    loss = model(batch.x, batch.observed, trust=batch.trust).loss
    torch.manual_seed(0)
    assert torch.equal(again.eval()(batch.x, batch.observed, trust=batch.trust).loss, loss)


def test_a_batch_brings_its_trust_whatever_it_is():
    data, model = MultimodalData(DATA, SPECS, trust=TOLD), model_of()
    batch = next(iter(DataLoader(data, batch_size=20)))
    losses = []
    for call in (lambda: model(batch), lambda: model(list(DATA.values()), trust=TOLD),
                 lambda: model({name: x.numpy() for name, x in DATA.items()}, trust=TOLD.numpy())):
        torch.manual_seed(0)
        losses.append(call().loss)
    assert torch.equal(losses[0], losses[1]) and torch.equal(losses[0], losses[2])
    everyone = torch.ones(3, 20, dtype=torch.bool)
    torch.testing.assert_close(model.objective.log_weights(model.encode(batch), everyone).exp(), TOLD / 2)
    for own in (model.impute(batch, targets="a"), model.impute({"b": DATA["b"]})):
        assert all(x.isfinite().all() for x in own.values())
    with pytest.raises(UserError, match="these have none"):
        model.impute({"a": DATA["a"], "b": DATA["b"]})
    with pytest.raises(UserError, match=r"`trust` must be of shape \(M, B\) = \(3, 20\), it is \(20, 3\)"):
        model(list(DATA.values()), trust=TOLD.t())
    torch.manual_seed(0)
    plain = model_of("mmvm")
    assert plain(batch).loss.isfinite().all(), "trust is no modality to others"
