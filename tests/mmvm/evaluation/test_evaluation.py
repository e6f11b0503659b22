"""Probe, coherence and errors on models whose results can be told beforehand.

`Template` models know the class: encoder s puts the class plus a shift of its own into the latent, decoder t draws the
template of the latent's class plus a shift of its own. So [s, t] is right exactly where the two shifts cancel.
"""

import math
import random

import numpy as np
import pytest
import torch
from conftest import SEED
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation import encodings, multilabel
from mmvm.evaluation.coherence import classifier_accuracy, coherence, summarise, train_classifier
from mmvm.evaluation.encodings import encode_means
from mmvm.evaluation.errors import constant_error, imputation_error, log_likelihood, reconstruction_error
from mmvm.evaluation.probe import linear_probe
from mmvm.likelihoods import Bernoulli, Laplace, NegativeBinomial, Normal, Poisson
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM, Aggregated, Independent
from studies.polymnist.networks import DigitClassifier

C, N = 3, 600  # N: more than one batch of the evaluation
SPECS = (Modality("image", (2, 2), Laplace(0.75), scale=1 / 255), Modality("vector", (5,), Laplace(0.5), weight=7.0),
         Modality("numbers", (3,), Normal(0.3)))
TEMPLATES = [torch.tensor([[[0, 255], [0, 0]], [[255, 255], [51, 0]], [[0, 0], [0, 102]]], dtype=torch.uint8),
             torch.arange(15.0).view(3, 5) / 4, torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, -1]])]
PREPARED = [spec.prepare(template) for spec, template in zip(SPECS, TEMPLATES)]
ENCODERS, DECODERS = (0, 1, 2), (2, 0, 0)  # shifts: right are [0, 1], [0, 2] and [1, 0]
RIGHT = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]])


class Template(nn.Module):
    def __init__(self, m, shift=0):
        super().__init__()
        self.m, self.shift = m, shift
        self.unused = nn.Parameter(torch.zeros(()))

    def nearest(self, x):
        return (x.unsqueeze(1) - PREPARED[self.m]).flatten(2).square().sum(-1).argmin(1)


class Encoder(Template):
    def forward(self, x):
        mean = 10 * nn.functional.one_hot((self.nearest(x) + self.shift) % C, C).float()
        return mean, torch.full_like(mean, -40.0)


class Decoder(Template):
    def forward(self, z):
        return PREPARED[self.m][(z.argmax(-1) + self.shift) % C]


class Classifier(Template):
    def forward(self, x):
        return nn.functional.one_hot(self.nearest(x), C).float()


CLASSIFIERS = [Classifier(m) for m in range(3)]


def template_model(encoders=ENCODERS, decoders=DECODERS, objective=None):
    return MultimodalVAE(SPECS, [Encoder(m, shift) for m, shift in enumerate(encoders)],
                         [Decoder(m, shift) for m, shift in enumerate(decoders)], objective or MMVM())


def make_data(n=N, noise=0.0, **changes):
    g = torch.Generator().manual_seed(3)
    labels = torch.randint(C, (n,), generator=g)
    arrays = {spec.name: template[labels] for spec, template in zip(SPECS, TEMPLATES)}
    for name in ("vector", "numbers"):
        arrays[name] = arrays[name] + noise * torch.randn(arrays[name].shape, generator=g)
    return MultimodalData(arrays, SPECS, **{"labels": labels, "n_classes": C, **changes})


def some(n=N):
    observed = torch.rand(3, n, generator=torch.Generator().manual_seed(4)) < 0.5
    observed[1] |= ~observed.any(0)
    return observed


def mlp_model(objective=None):
    torch.manual_seed(5)
    encoders = [nn.Sequential(nn.Dropout(0.5), MLPEncoder(spec.shape, 4, (9,))) for spec in SPECS]
    return MultimodalVAE(SPECS, encoders, [MLPDecoder(spec.shape, 4, (9,)) for spec in SPECS], objective or MMVM())


# coherence

@pytest.mark.parametrize("objective", [MMVM(), Independent(), Aggregated("moe")], ids=["mmvm", "independent", "moe"])
def test_coherence_is_indexed_source_target(objective):
    np.testing.assert_array_equal(coherence(template_model(objective=objective), make_data(), CLASSIFIERS), RIGHT)


def test_coherence_counts_the_share_of_right_samples():
    data = make_data()
    data.labels[::4] = (data.labels[::4] + 1) % C
    np.testing.assert_allclose(coherence(template_model(), data, CLASSIFIERS)[RIGHT == 1], 0.75)


def test_coherence_asks_each_source_of_the_samples_that_have_it():
    data, observed = make_data(), some()
    alone = ~observed[0]  # samples with a wrong label, which source 0 does not have
    data.labels[alone] = (data.labels[alone] + 1) % C
    for x, seen in zip(data.modalities.values(), observed):
        x[~seen] = 77
    data.observed = observed
    found = coherence(template_model(), data, CLASSIFIERS)
    np.testing.assert_array_equal(found[0], RIGHT[0])
    np.testing.assert_allclose(found[1, 0], (observed[1] & observed[0]).sum() / observed[1].sum())


def test_a_modality_that_is_never_observed_has_no_row():
    observed = torch.ones(3, N, dtype=torch.bool)
    observed[1] = False
    found = coherence(template_model(), make_data(observed=observed), CLASSIFIERS)
    assert np.isnan(found[1]).all() and (found[[0, 2]] == RIGHT[[0, 2]]).all()


# errors in nats

def expected_errors(data):
    """Entry by entry, with the distances of the templates."""
    expected = np.full((3, 3), np.nan)
    for s in range(3):
        for t in range(3):
            values = []
            for i in torch.nonzero(data.observed[s] & data.observed[t]).flatten().tolist():
                shown = PREPARED[t][(data.labels[i] + ENCODERS[s] + DECODERS[t]) % C]
                x = list(data.modalities.values())[t][i] * SPECS[t].scale
                scale, difference = SPECS[t].likelihood.scale, (shown - x).double()
                if isinstance(SPECS[t].likelihood, Laplace):
                    nll = difference.abs() / scale + math.log(2 * scale)
                else:
                    nll = 0.5 * (difference / scale) ** 2 + math.log(scale) + 0.5 * math.log(2 * math.pi)
                values.append(nll.sum().item())
            if values:
                expected[s, t] = np.mean(values)
    return expected


@pytest.mark.parametrize("observed", [None, some()], ids=["complete", "missing"])
def test_imputation_error_is_indexed_source_target(observed):
    data = make_data(noise=0.1, observed=observed)
    expected = expected_errors(data)
    assert len(set(expected.round(3).flatten())) == 9, "every entry has a value of its own"
    np.testing.assert_allclose(imputation_error(template_model(), data), expected, rtol=1e-5)


def test_imputation_error_is_nan_where_two_modalities_never_meet():
    observed = torch.ones(3, N, dtype=torch.bool)
    observed[0, : N // 2] = False
    observed[1, N // 2:] = False
    found = imputation_error(template_model(), make_data(observed=observed))
    assert np.isnan(found[[0, 1], [1, 0]]).all() and np.isfinite(found).sum() == 7


@pytest.mark.parametrize("observed", [None, some()], ids=["complete", "missing"])
def test_reconstruction_error_is_the_diagonal_where_every_latent_is_its_own(observed):
    data = make_data(noise=0.1, observed=observed)
    found = reconstruction_error(template_model(), data)
    np.testing.assert_allclose(found, expected_errors(data).diagonal(), rtol=1e-5)


def test_a_perfect_decoder_reaches_the_floor():
    floors = [spec.likelihood.floor(math.prod(spec.shape)) for spec in SPECS]
    assert floors[0] == pytest.approx(4 * math.log(1.5)), "the floor of the paper's figures"
    found = reconstruction_error(template_model((0, 0, 0), (0, 0, 0)), make_data())
    np.testing.assert_allclose(found, floors, rtol=1e-5)
    assert (reconstruction_error(mlp_model(), make_data()) > floors).all()


def test_reconstruction_error_gives_the_objective_all_that_is_observed():
    """A joint posterior of right and wrong experts, each as sure as the other, is wrong for all decoders alike."""
    data = make_data()
    joint = template_model((0, 0, 1), (0, 0, 0), Aggregated("avg"))
    alone = template_model((0, 0, 1), (0, 0, 0), MMVM())
    floors = np.array([spec.likelihood.floor(math.prod(spec.shape)) for spec in SPECS])
    np.testing.assert_allclose(reconstruction_error(joint, data), floors, rtol=1e-5)  # two against one
    assert reconstruction_error(alone, data)[2] > floors[2] + 1


def test_summarise_averages_with_and_without_the_diagonal():
    found = summarise(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 18.0]]))
    assert found == {"all": 6.0, "cross": 5.0, "self": 8.0}
    alone = summarise(np.array([[0.5]]))
    assert alone["all"] == alone["self"] == 0.5 and math.isnan(alone["cross"])


# the linear probe

def sklearns_probe(x, y, x_test, y_test, standardise=True):
    steps = [StandardScaler()] if standardise else []
    return make_pipeline(*steps, LogisticRegression(max_iter=10_000)).fit(x, y).score(x_test, y_test)


@pytest.mark.parametrize("standardise", [True, False])
def test_probe_is_scikit_learns(standardise):
    model, train, test = mlp_model(), make_data(noise=1.5), make_data(400, noise=1.5)
    means = encode_means(model, train).numpy(), encode_means(model, test).numpy()
    expected = [sklearns_probe(means[0][m], train.labels, means[1][m], test.labels, standardise) for m in range(3)]
    assert 0.5 < min(expected[1:]) and max(expected[1:]) < 1
    np.testing.assert_array_equal(linear_probe(model, train, test, standardise=standardise), expected)


def test_probe_of_separable_encodings_is_perfect():
    np.testing.assert_array_equal(linear_probe(template_model(), make_data(), make_data(50)), [1, 1, 1])


def test_standardising_undoes_the_scale_of_the_latents():
    model, train, test = mlp_model(), make_data(noise=1.0), make_data(400, noise=1.0)
    before = linear_probe(model, train, test)
    for encoder in model.encoders:
        encoder[1].mean.weight.data *= 1e-4
        encoder[1].mean.bias.data *= 1e-4
    np.testing.assert_allclose(linear_probe(model, train, test), before, atol=0.01)
    assert (linear_probe(model, train, test, standardise=False)[1:] < before[1:] - 0.05).all()


@pytest.mark.parametrize("n", [100, None])
def test_probe_is_fitted_to_n_random_encodings(n, monkeypatch):
    model, train, test, seen = mlp_model(), make_data(noise=1.5), make_data(400, noise=1.5), []
    fit = LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda self, x, y: seen.append(x.shape) or fit(self, x, y))
    found = linear_probe(model, train, test, n=n, seed=2)
    assert seen == [(n or N, 4)] * 3
    index = slice(None) if n is None else torch.randperm(N, generator=torch.Generator().manual_seed(2))[:n]
    np.testing.assert_array_equal(found, linear_probe(model, train.subset(index), test, n=None))
    if n is not None:
        assert not np.array_equal(found, linear_probe(model, train, test, n=n, seed=3))


def test_probe_leaves_out_samples_without_the_modality():
    model, train, test = mlp_model(), make_data(noise=1.0), make_data(400, noise=1.0)
    seen, seen_test = some(), some(400)
    means = encode_means(model, train).numpy(), encode_means(model, test).numpy()
    expected = [sklearns_probe(means[0][m][seen[m]], train.labels[seen[m]], means[1][m][seen_test[m]],
                               test.labels[seen_test[m]]) for m in range(3)]
    train.observed, test.observed = seen, seen_test
    np.testing.assert_array_equal(linear_probe(model, train, test), expected)


def test_encode_means_are_the_encoders_in_eval_mode_and_nan_where_absent():
    model, data = mlp_model().train(), make_data(observed=some())
    means = encode_means(model, data)
    assert means.shape == (3, N, 4) and means.dtype == torch.float32
    assert torch.equal(means.isnan().all(-1), ~data.observed) and torch.equal(means.isnan().any(-1), ~data.observed)
    model.eval()
    expected = model.encoders[1](data.modalities["vector"])[0].detach()
    torch.testing.assert_close(means[1][data.observed[1]], expected[data.observed[1]])


# mistakes

@pytest.mark.parametrize("labels", [None, torch.ones(N, C)], ids=["none", "zeros and ones"])
def test_probe_and_coherence_need_class_numbers(labels):
    data = make_data(labels=labels)
    for call in (lambda: linear_probe(mlp_model(), data, data), lambda: coherence(mlp_model(), data, CLASSIFIERS)):
        with pytest.raises(UserError, match="need one class number per sample in `labels`"):
            call()


@pytest.mark.parametrize("labels, probe", [(torch.arange(N) % C, linear_probe),
                                           (torch.ones(N, C), multilabel.linear_probe)])
def test_probes_refuse_labels_that_mean_other_classes_in_the_test_data(labels, probe):
    train = make_data(labels=labels, label_names=("u", "v", "w"))
    with pytest.raises(UserError, match="u, v, w in one set and v, u, w in another: make .*label_names=train"):
        probe(mlp_model(), train, make_data(labels=labels, label_names=("v", "u", "w")))
    encodings.check_class_labels(*[make_data(label_names=names) for names in [(), ("u", "v", "w"), ("u", "v", "w")]])


def test_probe_names_the_modality_without_enough_samples():
    one_class = make_data()
    observed = torch.ones(3, N, dtype=torch.bool)
    observed[1] = one_class.labels == 0
    one_class.observed = observed
    with pytest.raises(UserError, match="the probe of vector has training samples of 1 classes and 600 test samples"):
        linear_probe(mlp_model(), one_class, make_data())
    absent = torch.ones(3, N, dtype=torch.bool)
    absent[2] = False
    with pytest.raises(UserError, match="the probe of numbers has training samples of 3 classes and 0 test samples"):
        linear_probe(mlp_model(), make_data(), make_data(observed=absent))


def test_log_likelihood_needs_a_draw():
    with pytest.raises(UserError, match="n_draws must be at least 1, got 0"):
        log_likelihood(mlp_model(Independent()), make_data(), n_draws=0)


def test_log_likelihood_notes_what_it_depends_on():
    found = log_likelihood(mlp_model(Independent()), make_data(20), n_draws=4)
    assert found.note() == f"draws=4; n=20; standard_error={found.standard_error:.3g}" and found.standard_error > 0


# nothing is disturbed

MEASURES = {"coherence": lambda model, data, **seed: coherence(model, data, CLASSIFIERS, **seed),
            "imputation": imputation_error, "reconstruction": reconstruction_error,
            "likelihood": lambda model, data, **seed: log_likelihood(model, data, 3, **seed).mean,
            "probe": lambda model, data, **seed: linear_probe(model, data, data, n=50, **seed),
            "encode": lambda model, data, seed=0: encode_means(model, data)}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_measures_are_seeded_and_leave_modes_and_random_state_alone(measure):
    model, data = mlp_model(Independent()).train(), make_data(noise=1.0)
    model.encoders[1].eval()  # somebody froze a part
    modes = [module.training for module in model.modules()]
    torch.manual_seed(6)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = measure(model, data, seed=1)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]
    assert all(p.grad is None for p in model.parameters())
    torch.manual_seed(7)
    np.testing.assert_array_equal(measure(model, data, seed=1), first)
    if measure is not MEASURES["encode"]:
        assert not np.array_equal(measure(model, data, seed=2), first)


def test_modes_are_restored_when_a_measure_fails():
    model = mlp_model().train()
    with pytest.raises(IndexError):
        coherence(model, make_data(), CLASSIFIERS[:1])
    assert all(module.training for module in model.modules())


# the classifiers

IMAGE = Modality("picture", (3, 28, 28), Laplace(), scale=1 / 255)


def pictures(n=90):
    """Three classes: the brightest third of the rows."""
    g = torch.Generator().manual_seed(8)
    labels = torch.arange(n) % 3
    x = torch.randint(0, 150, (n, 3, 28, 28), generator=g, dtype=torch.uint8)
    for i, y in enumerate(labels.tolist()):
        x[i, :, 9 * y:9 * y + 9] += 100
    return x, labels


def digits():
    return DigitClassifier(n_classes=3)


def test_train_classifier_learns_a_toy_and_leaves_the_random_state_alone():
    x, labels = pictures()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    classifier = train_classifier(x, labels, IMAGE, epochs=6, batch_size=16, build=digits, seed=SEED)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(classifier, DigitClassifier) and classifier.head.out_features == 3
    assert not any(module.training for module in classifier.modules())
    assert classifier_accuracy(classifier, x, labels, IMAGE) == 1.0
    assert classifier_accuracy(classifier, x, (labels + 1) % 3, IMAGE) == 0.0


def test_train_classifier_leaves_out_a_last_sample_alone():
    """Batch norm cannot be trained on one."""
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.rand(17, 3, 28, 28, generator=generator), torch.arange(17) % 3

    def build():
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4), torch.nn.BatchNorm1d(4),
                                   torch.nn.Linear(4, 3))
    train_classifier(x, labels, IMAGE, epochs=1, batch_size=16, build=build)


def test_train_classifier_is_seeded():
    x, labels = pictures(24)
    weights = [train_classifier(x, labels, IMAGE, epochs=1, seed=seed, build=digits).head.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_classifier_accuracy_is_the_share_of_right_samples():
    data = make_data(1_100)
    labels = data.labels.clone()
    labels[1_000:] = (labels[1_000:] + 1) % C
    assert encodings.BATCH < 1_000
    assert classifier_accuracy(CLASSIFIERS[0], data.modalities["image"], labels, SPECS[0]) == 1_000 / 1_100


@pytest.mark.parametrize("likelihood", [Poisson(), Bernoulli(), NegativeBinomial(), Normal()])
def test_the_constant_of_a_likelihood_is_one_in_the_decoders_own_numbers(likelihood):
    """Of counts a log rate, of bits a logit, of several numbers an entry all of them, of a Normal the mean; the median
    of the values is the best of a Laplace alone."""
    generator = torch.Generator().manual_seed(0)
    x = {"Bernoulli": torch.rand(400, 3, generator=generator).lt(0.2).float()}.get(
        type(likelihood).__name__, torch.poisson(torch.full((400, 3), 6.0), generator=generator))
    data = MultimodalData({"x": x}, (Modality("x", (3,), likelihood),))
    found = constant_error(data, data)
    if isinstance(likelihood, Poisson):
        best = -torch.distributions.Poisson(x.mean(0)).log_prob(x).sum(1).mean()
    elif isinstance(likelihood, Bernoulli):
        best = -torch.distributions.Bernoulli(x.mean(0)).log_prob(x).sum(1).mean()
    elif isinstance(likelihood, Normal):
        best = -torch.distributions.Normal(x.mean(0), 1.0).log_prob(x).sum(1).mean()
    else:  # of a learned dispersion: no worse than a Poisson
        best = -torch.distributions.Poisson(x.mean(0)).log_prob(x).sum(1).mean()
        assert best - 0.5 < found[0] < best + 0.05
        return
    assert found[0] == pytest.approx(float(best), abs=1e-3)
