"""Partially observed vectors: an entry that is missing adds nothing, anywhere, whatever the likelihood."""

import copy
import math

import pytest
import torch

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation import constant_error, imputation_error, reconstruction_error
from mmvm.likelihoods import Bernoulli, Categorical, Laplace, Normal, Poisson
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM
from mmvm.training import fit

LIKELIHOODS = [Normal(0.3), Laplace(0.75), Bernoulli(), Poisson()]
F, N, D = 6, 10, 2
KEPT = [0, 2, 3, 5]


def values(likelihood=None, n=N, shape=(F,)):
    x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))
    return {"Bernoulli": x > 0, "Poisson": x.exp().round()}.get(type(likelihood).__name__, x).float()


def holes(x, seed=1, share=0.4):
    gone = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share
    gone.view(len(x), -1)[:, 0] = False
    return x.masked_fill(gone, math.nan)


def spec(likelihood=None, name="a", shape=(F,), **settings):
    return Modality(name, shape, likelihood or Normal(0.3), missing="nan", **settings)


def make(likelihood=None, **settings):
    """The first modality may have missing entries, the second has none."""
    torch.manual_seed(0)
    specs = (spec(likelihood, **settings), Modality("b", (3,), Normal()))
    return MultimodalVAE(specs, [MLPEncoder(s.input_shape, D, (5,)) for s in specs],
                         [MLPDecoder(s.shape, D, (5,)) for s in specs], MMVM())


@pytest.mark.parametrize("likelihood", [*LIKELIHOODS, Categorical()], ids=lambda likelihood: type(likelihood).__name__)
def test_log_prob_is_that_of_the_seen_entries(likelihood):
    x = values(likelihood) if not likelihood.discrete else torch.randint(4, (N, F))
    params = torch.randn(3, N, *((4,) if likelihood.discrete else ()), F)
    seen = torch.zeros(N, F, dtype=torch.bool)
    seen[:, KEPT] = True
    found = likelihood.log_prob(params, x, 1, seen)
    assert torch.allclose(found, likelihood.log_prob(params[..., KEPT], x[..., KEPT], 1), atol=1e-5)
    assert torch.equal(likelihood.log_prob(params, x, 1, torch.zeros_like(seen)), torch.zeros(3, N)), "exactly 0 nats"


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda likelihood: type(likelihood).__name__)
def test_unseen_entries_send_no_gradient_even_where_they_overflow(likelihood):
    params = torch.full((2, F), 1e5).requires_grad_()
    seen = torch.zeros(2, F, dtype=torch.bool)
    likelihood.log_prob(params, torch.full((2, F), math.nan), 1, seen).sum().backward()
    assert torch.equal(params.grad, torch.zeros(2, F))


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda likelihood: type(likelihood).__name__)
def test_the_model_restricted_to_what_is_observed_says_the_same(likelihood):
    model, x, other = make(likelihood), values(likelihood), torch.randn(N, 3)
    x[:, [1, 4]] = math.nan
    smaller = MultimodalVAE((Modality("a", (4,), likelihood), model.modalities[1]),
                            [MLPEncoder((4,), D, (5,)), copy.deepcopy(model.encoders[1])],
                            [MLPDecoder((4,), D, (5,)), copy.deepcopy(model.decoders[1])], MMVM())
    with torch.no_grad():
        for ours, theirs, cut in ((model.encoders[0], smaller.encoders[0], "trunk.0.weight"),
                                  (model.decoders[0], smaller.decoders[0], "out")):
            state = {name: value[:, KEPT] if name == cut else value[KEPT] if name.startswith(cut) else value
                     for name, value in ours.state_dict().items()}
            theirs.load_state_dict(state)
    terms = []
    for m, x_m in ((model, x), (smaller, x[:, KEPT])):
        torch.manual_seed(1)
        terms.append(m([x_m, other]))
    assert torch.allclose(terms[0].log_likelihood, terms[1].log_likelihood, atol=1e-4)
    assert torch.allclose(terms[0].regulariser, terms[1].regulariser, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mask_input", [False, True])
def test_gradients_are_finite_and_training_learns(mask_input):
    model = make(mask_input=mask_input)
    shared = torch.randn(200, 1, generator=torch.Generator().manual_seed(3))
    data = MultimodalData({"a": holes(shared.expand(200, F)), "b": shared.expand(200, 3)}, model.modalities)
    before = reconstruction_error(model, data)
    history = fit(model, data, epochs=30, batch_size=50, learning_rate=3e-3, device="cpu", precision="float32")
    assert all(math.isfinite(row["loss"]) for row in history.epochs)
    assert (reconstruction_error(model, data) < before).all()


def test_encoders_see_zeros_and_where_asked_the_mask():
    x = torch.tensor([[1.0, math.nan, 2, 3, math.nan, 4]])
    zeros = [[1.0, 0, 2, 3, 0, 4]]
    for mask_input, expected in ((False, zeros), (True, [zeros[0] + [1.0, 0, 1, 1, 0, 1]])):
        model, seen = make(mask_input=mask_input), []
        model.encoders[0].register_forward_hook(lambda module, given, out, seen=seen: seen.append(given[0].tolist()))
        model.encode([x, torch.zeros(1, 3)])
        assert seen == [expected] and make(mask_input=mask_input).modalities[0].input_shape == (len(expected[0]),)


def test_images_may_have_missing_pixels():
    modality = spec(Laplace(), shape=(2, 4, 4), mask_input=True)
    assert modality.input_shape == (4, 4, 4)
    model = MultimodalVAE([modality], [MLPEncoder(modality.input_shape, D, ())], [MLPDecoder((2, 4, 4), D, ())], MMVM())
    x = holes(values(shape=(2, 4, 4)))
    terms = model([x])
    terms.loss.mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    z = torch.zeros(1, 1, N, D)
    by_hand = [Laplace().log_prob(out[~row.isnan()], row[~row.isnan()], 1)
               for out, row in zip(model.decode(z[0])[0], x)]
    assert torch.allclose(model.log_likelihood([x], None, z)[0, 0], torch.stack(by_hand), atol=1e-4)


def test_a_sample_of_nothing_but_missing_entries_is_not_observed():
    model, x = make(), values()
    x[3] = math.nan
    data = MultimodalData({"a": x, "b": torch.zeros(N, 3)}, model.modalities)
    assert data.observed[0].tolist() == [i != 3 for i in range(N)] and data.observed[1].all()
    with torch.no_grad():
        marked = model.encode([x, torch.zeros(N, 3)])
        told = model.encode([x, torch.zeros(N, 3)], data.observed)
    assert torch.equal(marked.mean, told.mean) and (marked.mean[0, 3] == 0).all() and (marked.logvar[0, 3] == 0).all()
    with pytest.raises(UserError, match="sample 3 has no observed modality"):
        MultimodalData({"a": x}, [spec()])


def test_errors_are_of_what_was_observed():
    model, x, other = make(), holes(values(n=40)), torch.randn(40, 3)
    data = MultimodalData({"a": x, "b": other}, model.modalities)
    found = reconstruction_error(model, data), imputation_error(model, data), constant_error(data, data)
    assert all(math.isfinite(number) for array in found for number in array.flat)
    mean = x.nanmean(0)
    by_hand = [-Normal(0.3).log_prob(mean[~row.isnan()], row[~row.isnan()], 1).item() for row in x]
    assert found[2][0] == pytest.approx(sum(by_hand) / 40, rel=1e-5)


def test_networks_without_missing_entries_see_what_they_always_saw():
    x = values()
    plain = Modality("a", (F,), Normal())
    assert plain.seen(x) is None and plain.input_shape == (F,) and torch.equal(plain.prepare(x), spec().prepare(x))


@pytest.mark.parametrize("make_spec, message", [
    (lambda: Modality("a", (F,), Normal(), missing="zero"), "'a': missing must be 'nan' or None, got 'zero'"),
    (lambda: spec(Categorical()), r"'a' holds tokens.*Categorical\(ignore=...\)"),
    (lambda: Modality("a", (F,), Normal(), mask_input=True), "'a': mask_input .* needs missing='nan'"),
    (lambda: Modality("a", (F,), Normal(), features=("x", "y")), rf"2 feature names for samples of shape \({F},\)")])
def test_descriptions_that_do_not_fit_are_named(make_spec, message):
    with pytest.raises(UserError, match=message):
        make_spec()
