"""Values are looked at once, before training: what would train to a wrong result is refused, with its place and the
cure; what would train to a poor one is a warning; what is right passes without a word."""

import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from mmvm import checks
from mmvm.checks import ValueWarning, check_split, check_values, findings
from mmvm.data import Modality, MultimodalData, Repeated
from mmvm.errors import UserError
from mmvm.likelihoods import Bernoulli, Categorical, Laplace, Normal, Poisson
from mmvm.likelihoods.base import Likelihood
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM
from mmvm.training.loop import fit
from mmvm.training.update import TrainingDiverged

N = 40


def data_of(x, likelihood=None, observed=None, ids=None, **about):
    """A modality "a" with these values and an ordinary one "b"."""
    specs = (Modality("a", tuple(x.shape[1:]), likelihood or Normal(), **about), Modality("b", (3,), Normal()))
    return MultimodalData({"a": x, "b": torch.randn(len(x), 3)}, specs, observed=observed, ids=ids)


def refusal(*args, **about):
    wrong, _ = findings(data_of(*args, **about))
    assert len(wrong) == 1 and "\n" not in wrong[0]
    with pytest.raises(UserError) as error:
        check_values(data_of(*args, **about))
    assert str(error.value) == wrong[0]
    return wrong[0]


def advice(*args, **about):
    """The one warning about these values."""
    wrong, poor = findings(data_of(*args, **about))
    assert not wrong and len(poor) == 1
    return poor[0]


def changed(x, place, value):
    x = x.clone()
    x[place] = value
    return x


class Classes(nn.Module):
    """Logits (B, C, *shape) of tokens."""

    def __init__(self, n_classes, shape):
        super().__init__()
        self.out, self.shape = nn.Linear(2, n_classes * shape[0]), (n_classes, *shape)

    def forward(self, z):
        return self.out(z).view(-1, *self.shape)


def model_of(data, decoders=None, latents=(2, 2)):
    encoders = [MLPEncoder(s.shape, d, (8,)) for s, d in zip(data.specs, latents)]
    return MultimodalVAE(data.specs, encoders, decoders or [MLPDecoder(s.shape, 2, (8,)) for s in data.specs], MMVM())


class Tokens(nn.Module):
    """Posterior of tokens, of which only the first is read."""

    def forward(self, x):
        x = x.flatten(1)[:, :1].float().expand(-1, 2)
        return x, torch.zeros_like(x)


def train(data, model=None, **options):
    return fit(model or model_of(data), data, epochs=1, batch_size=8, device="cpu", precision="float32", **options)


# errors

@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_named_with_its_place(value):
    said = refusal(changed(torch.randn(N, 4), (17, 2), value))
    assert f"modality 'a', sample 17, column 2 is {value:g}" in said and "`observed`" in said


def test_an_entry_of_a_picture_and_the_id_of_its_sample_are_named():
    said = refusal(changed(torch.rand(N, 3, 5, 6), (9, 1, 4, 2), float("nan")), ids=[f"s{i}" for i in range(N)])
    assert "sample 9 (s9), entry (1, 4, 2) is nan" in said


def test_what_is_not_observed_may_hold_anything():
    observed = torch.ones(2, N, dtype=torch.bool)
    observed[0, 17] = False
    x = changed(torch.randn(N, 4), 17, float("nan"))
    assert findings(data_of(x, observed=observed)) == ([], [])
    assert "sample 18" in refusal(changed(x, 18, float("nan")), observed=observed)


@pytest.mark.parametrize("x, lowest, highest, fitting", [
    (torch.tensor([0.0, 255.0]), 0, 255, "Normal, Laplace fit"), (torch.tensor([-1.0, 1.0]), -1, 1, "Normal, Laplace"),
    (torch.tensor([0, 255], dtype=torch.uint8), 0, 255, "scale=1/255 brings bytes into 0 to 1; Normal, Laplace, Poi"),
    (torch.tensor([-1, 1]), -1, 1, "Normal, Laplace")])
def test_bernoulli_refuses_what_is_not_between_0_and_1(x, lowest, highest, fitting):
    said = refusal(x[torch.arange(N * 4).view(N, 4) % 2], Bernoulli())
    assert "Bernoulli takes values from 0 to 1" in said and f"lie from {lowest} to {highest}" in said
    assert fitting in said


def test_grey_values_under_bernoulli_are_to_be_divided():
    x = 255 * (torch.arange(N * 36) % 2).float().view(N, 1, 6, 6)
    assert "lie from 0 to 255 (times scale): divide grey values by 255; Normal, Laplace fit" in refusal(x, Bernoulli())
    assert "divide" not in refusal(2 * x, Bernoulli()) and "divide" not in refusal(-x, Bernoulli())


def test_bernoulli_takes_bytes_with_a_scale_soft_targets_and_bytes_that_are_0_and_1():
    grey = torch.randint(0, 256, (N, 1, 5, 5), dtype=torch.uint8)
    for data in (data_of(grey, Bernoulli(), scale=1 / 255), data_of(torch.rand(N, 4), Bernoulli()),
                 data_of((grey > 100).byte(), Bernoulli()), data_of(grey > 100, Bernoulli())):
        assert findings(data) == ([], [])


@pytest.mark.parametrize("value, said", [(-1.0, "is -1, Poisson takes values from 0 and"),
                                         (2.5, "is 2.5, Poisson takes whole")])
def test_poisson_refuses_negative_and_fractional_values(value, said):
    assert f"sample 3, column 1 {said}" in refusal(changed(torch.ones(N, 4).cumsum(0), (3, 1), value), Poisson())


def test_poisson_takes_counts_in_any_type():
    for kind in (torch.float32, torch.int16, torch.uint8):
        assert findings(data_of(torch.randint(0, 9, (N, 4)).to(kind), Poisson())) == ([], [])


def test_tokens_are_compared_with_the_classes_of_the_decoder():
    tokens = torch.randint(0, 7, (N, 5))
    for x, places in ((changed(tokens, (3, 4), 7), "sample 3, column 4 is 7, but the decoder has 7 classes"),
                      (changed(tokens, (2, 0), -1), "sample 2, column 0 is -1, .* say Categorical.ignore=-1"),
                      (changed(tokens.float(), (1, 1), 2.5), "sample 1, column 1 is 2.5, Categorical takes whole")):
        data = data_of(x, Categorical())
        model = MultimodalVAE(data.specs, [Tokens(), MLPEncoder((3,), 2, (8,))],
                              [Classes(7, (5,)), MLPDecoder((3,), 2, (8,))], MMVM())
        with pytest.raises(UserError, match=places.replace("(", r"\(")):
            train(data, model)
    assert findings(data_of(changed(tokens, (2, 0), -1), Categorical(ignore=-1))) == ([], [])


def test_looking_at_the_classes_leaves_modes_and_random_state_alone():
    data = data_of(torch.randint(0, 7, (N, 5)), Categorical())
    decoder = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2), Classes(7, (5,)))
    model = MultimodalVAE(data.specs, [Tokens(), MLPEncoder((3,), 2, (8,))], [decoder, MLPDecoder((3,), 2)], MMVM())
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    check_values(data, model.train())
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("about", [dict(weight=-1.0), dict(weight=float("nan")), dict(scale=0.0),
                                   dict(scale=float("nan")), dict(shape=())])
def test_a_description_that_makes_no_sense_is_refused(about):
    name = next(iter(about))
    with pytest.raises(UserError, match=f"'a'.* {name} "):
        Modality(**{"name": "a", "shape": (2,), "likelihood": Normal(), **about})


def test_pictures_as_bytes_need_a_scale():
    x = torch.randint(0, 256, (N, 3, 6, 6), dtype=torch.uint8)
    said = refusal(x, Laplace())
    assert "scale=1/255" in said
    assert findings(data_of(x, Laplace(), scale=1 / 255)) == ([], [])
    assert "scale=1/255" in findings(data_of(x.flatten(1), Normal(50.0)))[1][0]


def test_encoders_of_unequal_latent_sizes_are_named():
    data = data_of(torch.randn(N, 4))
    with pytest.raises(UserError, match=r"unequal sizes \(a 2, b 5\)"):
        train(data, model_of(data, latents=(2, 5)))


@pytest.mark.parametrize("given", [(1, 6, 6), (6, 6), (3, 6, 7), (108,)])
def test_a_decoder_of_another_shape_is_refused_not_broadcast(given):
    data = data_of(torch.rand(N, 3, 6, 6), Laplace())
    model = model_of(data, [MLPDecoder(given, 2, (8,)), MLPDecoder((3,), 2, (8,))])
    with pytest.raises(UserError, match=r"decoder of modality 'a' gives .* take \(B, 3, 6, 6\)"):
        model(data.batch(torch.arange(2)).x)


def test_logits_without_a_dimension_of_classes_are_refused():
    data = data_of(torch.randint(0, 7, (N, 5)).float(), Categorical())
    with pytest.raises(UserError, match=r"take \(B, C, 5\)"):
        check_values(data, model_of(data))


# warnings

def test_constant_columns_are_counted():
    x = torch.randn(N, 9)
    x[:, [2, 5]] = 3.0
    assert "2 of 9 columns are the same in all samples (columns 2, 5)" in advice(x)


def test_a_constant_modality_is_named():
    assert "'a' is the same in all its 40 samples" in advice(torch.ones(N, 3, 4, 4))


@pytest.mark.parametrize("factor, offset, said", [(1e6, 0, "e+05"), (1, 1e4, "around 1e+04"), (1e-4, 0, "spread of ")])
def test_a_spread_that_does_not_fit_the_likelihood_is_named(factor, offset, said):
    found = advice(factor * torch.randn(N, 4) + offset)
    assert said in found and "Normal of scale 1" in found and "standardise" in found


def test_a_spread_is_measured_against_the_scale_that_the_likelihood_has():
    assert findings(data_of(1e6 * torch.randn(N, 4), Normal(1e6))) == ([], [])
    assert findings(data_of(5 * torch.randn(N, 4), Laplace(0.75))) == ([], [])


def test_modalities_that_no_sample_shows_together_are_named():
    first = torch.arange(N) < 10
    said = findings(data_of(torch.randn(N, 4), observed=torch.stack([first, ~first])))[1]
    assert len(said) == 1 and "nothing links a to b" in said[0] and "b with a 0" in said[0]
    first[20] = True
    assert findings(data_of(torch.randn(N, 4), observed=torch.stack([first, (torch.arange(N) >= 10)]))) == ([], [])


def test_groups_are_linked_through_a_third_modality():
    x, i = torch.randn(N, 2), torch.arange(N)
    specs = tuple(Modality(name, (2,), Normal()) for name in "abcd")
    chain = torch.stack([i < 20, i >= 0, i >= 20, i >= 20])
    assert findings(MultimodalData(dict.fromkeys("abcd", x), specs, observed=chain)) == ([], [])
    pairs = torch.stack([i < 20, i < 20, i >= 20, i >= 20])
    said = findings(MultimodalData(dict.fromkeys("abcd", x), specs, observed=pairs))[1]
    assert len(said) == 1 and "nothing links a and b to c and d" in said[0]


@pytest.mark.parametrize("n", [0, 1])
def test_a_modality_that_is_hardly_ever_observed_is_named(n):
    observed = torch.ones(2, 200, dtype=torch.bool)
    observed[0, n:] = False
    assert f"'a' is observed in {n} of 200 samples" in advice(torch.randn(200, 4), observed=observed)


def test_samples_in_both_sets_are_counted():
    train, test, other = (data_of(torch.randn(N, 4), ids=[f"s{i}" for i in range(start, start + N)])
                          for start in (0, 38, 40))
    with pytest.warns(ValueWarning, match="2 of 40 test samples are also training samples .the first: s38"):
        check_split(train, test)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_split(train, other)
        check_split(train, data_of(torch.randn(N, 4)))
        check_split(*[data_of(torch.randn(n, 4), ids=list(map(str, range(n)))) for n in (N, 10)])


# how they are looked at

def test_fit_looks_once_per_data_and_model_and_not_when_it_is_told():
    data = data_of(torch.ones(N, 4))
    model = model_of(data)
    with pytest.warns(ValueWarning, match="the same in all"):
        train(data, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(data, model)
        train(data, check="off")
    with pytest.warns(ValueWarning):
        train(data_of(torch.ones(N, 4)), model)
    with pytest.raises(UserError, match="check must be 'on' or 'off'"):
        train(data, check="never")


def test_counts_that_diverge_are_told_where_their_rates_should_begin():
    """Of networks of one's own, which begin at rates of 1."""
    data = data_of(torch.full((N, 4), 3e4) + torch.arange(N)[:, None], Poisson())
    for given, told in ((data, True), (data_of(1e30 * torch.randn(N, 4)), False)):
        with pytest.raises(TrainingDiverged) as error:
            fit(model_of(given), given, epochs=40, batch_size=8, learning_rate=10.0, device="cpu", precision="float32",
                check="off")
        assert ("Let an encoder of your own take log(1 + x) of counts, and begin a decoder of log rates at the "
                "logarithms of the mean counts" in str(error.value)) == told


def test_divergence_by_values_is_explained_by_values():
    with pytest.raises(TrainingDiverged, match="modality 'a', sample 5, column 1 is nan"):
        train(data_of(changed(torch.randn(N, 4), (5, 1), float("nan"))), check="off")


def test_values_that_samples_share_are_looked_at_where_they_are_used():
    stored, rows = torch.randn(6, 4), torch.tensor([0, 2, 2, 4])
    specs = (Modality("a", (4,), Normal()),)
    assert findings(MultimodalData({"a": Repeated(changed(stored, 3, float("nan")), rows)}, specs)) == ([], [])
    wrong, _ = findings(MultimodalData({"a": Repeated(changed(stored, (4, 1), float("nan")), rows)}, specs))
    assert "sample 3, column 1 is nan" in wrong[0]


def test_a_large_file_is_looked_at_in_spread_pieces(monkeypatch, tmp_path):
    import numpy as np

    x = np.random.default_rng(0).normal(size=(1_000, 4)).astype("float32")
    x[[100, 777]] = np.nan
    np.save(tmp_path / "a.npy", x)
    data = MultimodalData.from_files({"a": tmp_path / "a.npy"}, (Modality("a", (4,), Normal()),))
    assert "sample 100" in findings(data)[0][0]
    for name, n_rows in (("PIECE", 10), ("SAMPLED", 200), ("LARGE", 999)):
        monkeypatch.setattr(checks, name, 16 * n_rows)
    assert checks.Values(data, 0).starts == range(0, 1_000, 50)
    assert "sample 100" in findings(data)[0][0]
    x[100] = 0.0
    np.save(tmp_path / "b.npy", x)
    assert findings(MultimodalData.from_files({"a": tmp_path / "b.npy"}, data.specs)) == ([], [])
    for kind in (">f4", "u2"):
        np.save(tmp_path / "c.npy", np.zeros((5, 4), kind))
        with pytest.raises(UserError, match="is not mapped: write modality 'a' there with numpy.save, as floats"):
            MultimodalData.from_files({"a": tmp_path / "c.npy"}, data.specs)


def test_integers_are_never_copied_as_floats():
    """Nor is more than a piece copied at all: what a look allocates stays small beside the data."""
    x = torch.randint(0, 256, (2_000, 3, 28, 28), dtype=torch.uint8)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        checks.Values(data_of(x, Laplace(), scale=1 / 255), 0)
    assert max(event.cpu_memory_usage for event in profile.events()) < 2 * 2**20


# what is missing is no zero

def test_a_constant_column_with_entries_missing_is_counted():
    x = torch.randn(N, 9)
    x[:, 2] = 1.5
    x[7, 2] = float("nan")
    assert "1 of 9 columns are the same in all samples (columns 2)" in advice(x, missing="nan")
    assert "'a' is the same in all its 40 samples" in advice(changed(torch.full((N, 3), 1.5), (7, 1), float("nan")),
                                                           missing="nan")


def test_a_column_of_nothing_is_called_so():
    x = torch.randn(N, 9)
    x[:, 4] = float("nan")
    assert "1 of 9 columns are NaN in all samples (columns 4)" in advice(x, missing="nan")
    x[3, 5] = float("inf")
    assert "sample 3, column 5 is inf" in refusal(x, missing="nan")


def test_missing_entries_are_no_values_out_of_range():
    x = torch.rand(N, 4) / 2 + 0.25
    x[3, 1] = float("nan")
    assert findings(data_of(x, Bernoulli(), missing="nan")) == ([], [])
    values = checks.Values(data_of(x, Bernoulli(), missing="nan"), 0)
    assert values.lowest.min() >= 0.25 and not values.empty.any()


def test_samples_without_names_are_known_by_their_values_if_no_two_are_alike():
    data = data_of(torch.randn(N, 50))
    rows = Repeated(torch.randn(N, 4), torch.arange(N).flip(0))
    shared = MultimodalData({"a": rows}, (Modality("a", (4,), Normal()),))
    for both in (data, shared):
        with pytest.warns(ValueWarning, match="6 of 16 test samples are also training samples .the first: 0."):
            check_split(both.subset(slice(0, 30)), both.subset(slice(24, 40)))
    alike = data_of(torch.zeros(N, 4))
    alike.modalities["b"].zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_split(data.subset(slice(0, 20)), data.subset(slice(20, 40)))
        check_split(alike, alike)
        check_split(data, data)  # the same set, as for a number to compare with
        check_split(data, data.subset([])), check_split(data.subset([]), data)


def test_samples_of_which_a_few_numbers_are_alike_are_told_apart():
    """As those of sparse counts; entries that are missing in both are alike, a modality that one lacks is not."""
    def counts(n, seed):
        x = torch.poisson(torch.full((n, 2_000), 0.1), generator=torch.Generator().manual_seed(seed))
        x[:, ::-(-2_000 // checks.KNOWN)] = torch.arange(n)[:, None].float()  # other ones in each, alike in both sets
        return x
    x, y = counts(N, 0), counts(N, 1)
    x[3, 1] = y[3, 1] = float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_split(whole_of(x), whole_of(y))
    y[3], y[5], x[5, 7] = x[3], x[5], 4.0
    with pytest.warns(ValueWarning, match="1 of 40 test samples are also training samples .the first: 3."):
        check_split(whole_of(x), whole_of(y))
    lacking = torch.ones(2, N, dtype=torch.bool)
    lacking[1, 3] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_split(whole_of(x), whole_of(y, lacking))


def whole_of(x, observed=None):
    specs = (Modality("a", tuple(x.shape[1:]), Poisson(), missing="nan"), Modality("b", (1,), Normal()))
    return MultimodalData({"a": x, "b": torch.zeros(len(x), 1)}, specs, observed=observed)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool])
def test_whole_numbers_may_be_described_as_those_with_missing_entries(dtype):
    x = torch.randint(0, 2, (N, 4)).to(dtype)
    assert findings(data_of(x, Poisson(), missing="nan")) == ([], [])
    pictures = data_of(torch.randint(0, 256, (N, 1, 8, 8), dtype=torch.uint8), Laplace(), scale=1 / 255, missing="nan")
    assert findings(pictures) == ([], [])


def test_validation_of_whole_numbers_has_the_descriptions_of_a_training_with_nan():
    counts = changed(torch.randint(0, 9, (N, 4)).float(), (3, 1), float("nan"))
    data = data_of(counts, Poisson(), missing="nan")
    rows = MultimodalData({"a": torch.randint(0, 9, (10, 4)), "b": torch.randn(10, 3)}, data.specs)
    history = fit(model_of(data), data, validation=rows, epochs=1, device="cpu", precision="float32")
    assert history["validation_loss"]


@dataclass(frozen=True)
class Stars(Likelihood):
    """From 1 to 5, which has no 0."""

    lowest, highest = 1, 5

    def elementwise(self, params, x):
        return -0.5 * (params - x).square()


def test_what_is_missing_is_not_named_as_wrong():
    x = changed(changed(torch.randint(1, 6, (N, 4)).float(), (3, 1), float("nan")), (7, 2), 0.0)
    assert "sample 7, column 2 is 0, Stars takes values from 1 to 5" in refusal(x, Stars(), missing="nan")
