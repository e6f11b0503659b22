"""What a modality guesses, standardises and gives back; models with usual networks."""

import numpy as np
import pandas as pd
import pytest
import torch

from mmvm import Beta, Categorical, Laplace, Modality, MultimodalData, MultimodalVAE, Normal, Poisson, StudentT, fit
from mmvm.errors import UserError
from mmvm.evaluation import imputation_error, reconstruction_error
from mmvm.likelihoods import Bernoulli, NegativeBinomial
from mmvm.networks import MLPDecoder, MLPEncoder


def numbers(n=200, f=3, seed=0):
    return np.random.default_rng(seed).normal([5, -300, 0.01], [0.1, 40, 1e-4], (n, f)).astype("float32")


def standardised(x, name="a", likelihood=None, **fields):
    return MultimodalData({name: x}, (Modality(name, x.shape[1:], likelihood or Normal(), standardise=True, **fields),))


# standardised values

def test_standardised_values_have_mean_0_and_spread_1_a_column():
    data = standardised(numbers())
    x = data.specs[0].prepare(data.modalities["a"])
    torch.testing.assert_close(x.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(data.specs[0].restore(x), data.modalities["a"], rtol=1e-5, atol=1e-5)


def test_pictures_are_standardised_by_channel_and_bytes_come_back_as_bytes():
    pixels = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    data = standardised(pixels, scale=1 / 255)
    spec = data.specs[0]
    assert len(spec.centre) == len(spec.spread) == 3
    x = spec.prepare(pixels)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(spec.restore(x), pixels.float(), atol=1e-3, rtol=0)


def test_missing_entries_and_absent_samples_do_not_count():
    x = numbers()
    expected = standardised(x[:100]).specs[0]
    holes = x.copy()
    holes[100:] = 1e6
    data = MultimodalData({"a": holes, "b": x}, (Modality("a", (3,), Normal(), standardise=True),
                                                 Modality("b", (3,), Normal())),
                          observed={"a": np.arange(200) < 100, "b": np.ones(200, bool)})
    assert data.specs[0].centre == expected.centre and data.specs[0].spread == expected.spread
    holes = x.copy()
    holes[::2, 1] = np.nan
    found = standardised(holes, missing="nan").specs[0]
    assert found.centre[1] == pytest.approx(x[1::2, 1].astype(float).mean(), rel=1e-6)
    seen = found.prepare(torch.as_tensor(holes))
    assert (seen[::2, 1] == 0).all()  # the mean, as an encoder sees what is missing


def test_a_column_that_does_not_vary_stays_finite():
    x = numbers()
    x[:, 1] = 0.1
    spec = standardised(x).specs[0]
    assert spec.spread[1] == 1 and spec.prepare(torch.as_tensor(x)).isfinite().all()


def test_subsets_and_other_data_keep_the_numbers_of_the_first():
    data = standardised(numbers())
    assert data.subset(slice(0, 5)).specs == data.specs
    other = MultimodalData({"a": numbers(seed=1)}, data.specs)
    assert other.specs == data.specs


def test_data_standardised_by_themselves_are_refused_by_a_trained_model():
    data, other = standardised(numbers()), standardised(numbers(seed=1))
    model = MultimodalVAE.for_data(data, 2, say=None)
    for use in (lambda: reconstruction_error(model, other), lambda: imputation_error(model, other),
                lambda: model.shared(other), lambda: fit(model, other, epochs=1, batch_size=50),
                lambda: fit(model, other, epochs=1, batch_size=50, check="off"),
                lambda: fit(model, data, epochs=1, batch_size=50, validation=other, check="off")):
        with pytest.raises(UserError, match="standardised by other numbers"):
            use()


def test_imputed_values_are_in_the_users_units():
    data = standardised(numbers())
    model = MultimodalVAE.for_data(data, 2, say=None).eval()
    x = [data.modalities["a"]]
    found = model.impute(x)["a"].detach()
    expected = torch.as_tensor(data.specs[0].centre)
    assert ((found - expected).abs() < 5 * torch.as_tensor(data.specs[0].spread)).all()


@pytest.mark.parametrize("likelihood", [Bernoulli(), Poisson(), Categorical(), Beta()], ids=repr)
def test_only_reals_are_standardised(likelihood):
    with pytest.raises(UserError, match="standardise"):
        Modality("a", (3,), likelihood, standardise=True)


# guesses

GUESSES = [
    ("bytes of pictures", torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8), Laplace),
    ("classes", torch.arange(12) % 4, Categorical),
    ("only 0 and 1", np.random.default_rng(0).integers(0, 2, (30, 4)), Bernoulli),
    ("counts", np.random.default_rng(0).poisson(3, (300, 4)), Poisson),
    ("counts", np.random.default_rng(0).negative_binomial(1, 0.1, (300, 4)), NegativeBinomial),
    ("fractions", np.random.default_rng(0).random((30, 4)), Beta),
    ("reals", numbers(), Normal),
    ("beyond 6 standard deviations", np.random.default_rng(0).standard_t(1.5, (500, 4)), StudentT),
]


@pytest.mark.parametrize("reason, values, expected", GUESSES, ids=[kind.__name__ for _, _, kind in GUESSES])
def test_guess_names_the_likelihood_and_its_reason(reason, values, expected):
    said = []
    modality = Modality.guess("a", values, said.append)
    assert type(modality.likelihood) is expected
    assert len(said) == 1 and reason in said[0] and said[0].startswith("a: ")
    data = MultimodalData({"a": values}, (modality,))
    model = MultimodalVAE.for_data(data, 4, say=None)
    assert model([data.modalities["a"]], data.observed).loss.isfinite().all()


def test_guess_takes_frames_and_missing_entries_and_keeps_what_was_chosen():
    frame = pd.DataFrame(numbers(), columns=["x", "y", "z"])
    frame.iloc[3, 1] = np.nan
    modality = Modality.guess("a", frame, None)
    assert modality.missing == "nan" and modality.standardise
    assert MultimodalData({"a": frame}, (modality,)).specs[0].features == ("x", "y", "z")
    chosen = Modality.guess("a", frame, None, likelihood=Laplace(2.0), weight=3.0)
    assert chosen.likelihood == Laplace(2.0) and chosen.weight == 3.0 and chosen.missing == "nan"
    assert not chosen.standardise


def test_pictures_with_channels_last_and_grey_values_are_told_so():
    with pytest.raises(UserError, match="channels last: give x.transpose"):
        Modality.guess("a", torch.randint(0, 256, (9, 16, 16, 3), dtype=torch.uint8), None)
    for grey in (torch.randint(0, 256, (9, 16, 16), dtype=torch.uint8),
                 torch.randint(0, 4_096, (9, 1, 16, 16), dtype=torch.int32)):
        said = []
        Modality.guess("a", grey, said.append)
        assert "if they are grey values, divide" in said[0]


@pytest.mark.parametrize("size, told", [((16, 16, 3), True), ((16, 40, 1), True), ((16, 3, 16), False)])
def test_usual_networks_say_that_channels_stand_last(size, told):
    data = MultimodalData({"a": torch.rand(2, *size)}, (Modality("a", size, Laplace()),))
    with pytest.raises(UserError, match=f"pictures of {size[1]} x {size[2]} pixels: sides of 8 to 512") as error:
        MultimodalVAE.for_data(data, say=None)
    assert ("if channels stand last give x.transpose(0, 3, 1, 2)" in str(error.value)) == told


def test_codes_with_minus_one_are_told_from_reals():
    said, codes = [], np.arange(30) % 4 - 1
    assert Modality.guess("a", codes, said.append).likelihood == Normal()
    assert "reals from -1 to 2; classes with -1 for missing ones take Categorical(ignore=-1)" in said[0]
    for others in (codes - 1, codes / 2, codes[:, None].repeat(2, 1), 60 * codes):
        Modality.guess("a", others, said.append)
        assert "ignore" not in said[-1]


@pytest.mark.parametrize("shape, likelihood", [(6, Normal()), ((6,), Normal), ((6,), "normal")])
def test_a_description_of_the_wrong_kind_is_refused(shape, likelihood):
    with pytest.raises(UserError, match="shape is a tuple such as .20,. and likelihood an object such as Normal"):
        Modality("a", shape, likelihood)


def test_missing_entries_are_no_zero_counts():
    counts = np.random.default_rng(0).poisson(20, (300, 4)).astype(np.float32)
    counts[np.random.default_rng(1).random(counts.shape) < 0.3] = np.nan
    said = []
    assert isinstance(Modality.guess("a", counts, said.append).likelihood, Poisson), said


def test_standardised_undoes_restore():
    x = numbers()
    spec = MultimodalData({"a": x}, (Modality("a", (3,), Normal(), scale=0.5, standardise=True),)).specs[0]
    prepared = spec.prepare(torch.as_tensor(x))
    torch.testing.assert_close(spec.standardised(spec.restore(prepared)), prepared)
    plain = Modality("a", (3,), Normal(), scale=0.5)
    assert torch.equal(plain.standardised(prepared), prepared)


def test_one_sample_is_enough_to_guess():
    said = []
    assert isinstance(Modality.guess("a", np.array([[3, 0, 7]]), said.append).likelihood, Poisson)
    assert "nan" not in said[0]


def test_nothing_can_be_guessed_from_nothing():
    for values in (np.zeros((0, 3)), np.full((4, 3), np.nan)):
        with pytest.raises(UserError):
            Modality.guess("a", values, None)


# usual networks

@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 28, 28), (4, 33, 47), (2, 64, 32), (1, 256, 256)])
def test_pictures_of_any_size_go_through_and_back(shape):
    x = torch.rand(2, *shape)
    data = MultimodalData({"a": x}, (Modality("a", shape, Laplace()),))
    model = MultimodalVAE.for_data(data, 5, say=None)
    assert model.encode([x]).shape == (1, 2, 5)
    assert model.decode(torch.zeros(1, 2, 5))[0].shape == (2, *shape)


def test_pictures_with_several_numbers_an_entry():
    data = MultimodalData({"a": torch.rand(4, 2, 16, 16)}, (Modality("a", (2, 16, 16), Beta()),))
    model = MultimodalVAE.for_data(data, 5, say=None)
    assert model([data.modalities["a"]]).loss.isfinite().all()


@pytest.mark.parametrize("size", [7, 513])
def test_pictures_too_small_or_large_are_named(size):
    data = MultimodalData({"a": torch.rand(2, 1, size, 16)}, (Modality("a", (1, size, 16), Laplace()),))
    with pytest.raises(UserError, match=f"{size} x 16 pixels"):
        MultimodalVAE.for_data(data, say=None)


def test_tokens_with_padding():
    words = torch.randint(0, 20, (6, 9))
    words[:, 6:] = -1
    data = MultimodalData({"a": words}, (Modality("a", (9,), Categorical(ignore=-1)),))
    said = []
    model = MultimodalVAE.for_data(data, 3, say=said.append)
    assert "9 tokens of 20" in said[0]
    found = model.encode([words]).mean
    words = words.clone()
    words[:, 6:] = 5
    assert not torch.equal(found, model.encode([words]).mean)
    assert model([words]).loss.isfinite().all()


def test_every_choice_is_said_and_can_be_replaced():
    data = MultimodalData({"a": numbers(), "b": numbers(seed=1)}, (Modality.guess("a", numbers(), None),
                                                                  Modality.guess("b", numbers(seed=1), None)))
    own = MLPEncoder((3,), 4, (7,))
    said = []
    model = MultimodalVAE.for_data(data, 4, "mvtcae:alpha=0.3", 2.0, encoders={"b": own}, say=said.append)
    assert model.encoders[1] is own and model.objective.alpha == 0.3 and model.beta == 2.0
    assert said[0].startswith("a: dense layers of 3") and "its encoder as given" in said[1]
    model = MultimodalVAE.for_data(data, 4, encoders={"b": own}, decoders={"b": MLPDecoder((3,), 4)}, say=said.append)
    assert said[3].startswith("b: as given, Normal")
    with pytest.raises(UserError, match="c"):
        MultimodalVAE.for_data(data, 4, encoders={"c": own})
    with pytest.raises(UserError, match="no usual network"):
        MultimodalVAE.for_data(MultimodalData({"a": torch.rand(3, 4, 5)}, (Modality("a", (4, 5), Normal()),)), say=None)


def test_a_kept_model_with_usual_networks_gives_the_same_in_the_users_units(tmp_path):
    arrays = {"a": numbers(), "image": torch.randint(0, 256, (200, 1, 16, 16), dtype=torch.uint8),
              "words": torch.randint(0, 9, (200, 5)), "counts": torch.poisson(torch.full((200, 4), 3.0)).long()}
    specs = (Modality.guess("a", arrays["a"], None), Modality.guess("image", arrays["image"], None),
             Modality("words", (5,), Categorical(ignore=0)), Modality("counts", (4,), NegativeBinomial(library=20)))
    data = MultimodalData(arrays, specs)
    model = MultimodalVAE.for_data(data, 3, say=None).eval()
    model.save(tmp_path / "model.safetensors")
    again = MultimodalVAE.load(tmp_path / "model.safetensors")
    assert again.modalities == model.modalities and again.modalities[0].spread
    batch = data.batch(torch.arange(7))
    for use in (lambda m: m.impute(batch.x), lambda m: {"z": m.shared(data).mean}):
        torch.manual_seed(0)
        one = use(model)
        torch.manual_seed(0)
        for name, value in use(again).items():
            assert torch.equal(value, one[name])
