"""What somebody with data, networks or a method of their own gets wrong first is one line that names the cure."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mmvm import evaluation
from mmvm.checks import ValueWarning
from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.identity import architecture, differences
from mmvm.likelihoods import Categorical, Normal
from mmvm.modality import Modality
from mmvm.model import MultimodalVAE
from mmvm.objectives import METHODS, MMVM, Objective, Schedule, Shared, build, method
from mmvm.training import fit, split

N, D = 40, 3
SPECS = (Modality("x", (5,), Normal()), Modality("y", (4,), Normal()))


def make_data(**more) -> MultimodalData:
    g = torch.Generator().manual_seed(0)
    return MultimodalData({"x": torch.randn(N, 5, generator=g), "y": torch.randn(N, 4, generator=g)}, SPECS, **more)


def model_of(**more) -> MultimodalVAE:
    torch.manual_seed(0)
    return MultimodalVAE.for_data(make_data(), **{"latent_dim": D, "say": None, **more})


def train(model=None, data=None, **more):
    options = {"epochs": 1, "batch_size": 20, "precision": "float32", "device": "cpu", **more}
    return fit(model or model_of(), make_data() if data is None else data, **options)


class Encoder(nn.Module):
    """Gives what `form` makes of the mean (B, D)."""

    def __init__(self, form=lambda h: (h, h * 0), n_in=5):
        super().__init__()
        self.layer, self.form = nn.Linear(n_in, D), form

    def forward(self, x):
        return self.form(self.layer(x))


class Decoder(Encoder):
    def __init__(self, form, n_in=D):
        super().__init__(form, n_in)
        self.layer = nn.Linear(n_in, 5)


class Lazy(Encoder):
    """Its layer gets its size from the first batch."""

    def __init__(self, layer):
        super().__init__(lambda h: (h, h * 0))
        self.layer = layer


class InAList(Encoder):
    def __init__(self, kind=list):
        super().__init__()
        self.layers = {"one": nn.Linear(5, 5)} if kind is dict else kind([nn.Linear(5, 5)])


# networks ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form, given", [
    (lambda h: h, r"\(20, 3\)"), (lambda h: {"mean": h, "logvar": h}, "dict"), (lambda h: (h, h[:, :1]), ".*1"),
    (lambda h: torch.distributions.Normal(h, h.exp()), "Normal"), (lambda h: (h[:, None], h[:, None]), r"\(20, 1, 3\)"),
    (lambda h: (h.mean(0), h.mean(0)), r"\(3,\), \(3,\)"), (lambda h: (h, torch.zeros(())), r"\(20, 3\), \(\)"),
])
def test_an_encoder_of_another_form_is_named(form, given):
    with pytest.raises(UserError, match=f"the encoder of 'x' gives {given}.*two tensors, mean and logvar, each"):
        train(model_of(encoders={"x": Encoder(form)}))


@pytest.mark.parametrize("networks, message", [
    ({"encoders": {"x": Encoder(n_in=7)}}, r"the encoder of 'x' fails on an input of shape \(2, 5\)"),
    ({"decoders": {"x": Decoder(lambda h: h, n_in=4)}}, r"the decoder of 'x' fails on an input of shape \(2, 3\)"),
    ({"decoders": {"x": Decoder(lambda h: (h, h))}}, "the decoder of modality 'x' gives a tuple.*one tensor"),
    ({"encoders": {"x": Encoder(lambda h: (h * float("nan"), h))}}, "the encoder of 'x' gives NaN before the first"),
    ({"decoders": {"x": Decoder(lambda h: h / 0 * 0)}}, "the decoder of 'x' gives NaN before the first update"),
])
@pytest.mark.parametrize("validated", [False, True])
def test_a_network_that_fails_is_named(networks, message, validated):
    with pytest.raises(UserError, match=message):
        train(model_of(**networks), **({"validation": make_data()} if validated and "NaN" not in message else {}))


@pytest.mark.parametrize("what, network, message", [
    ("encoders", lambda: Lazy(nn.LazyLinear(D)),
     r"encoder of 'x' has no size yet, encoders.0.layer.weight is of a lazy.*model.encode\(x\).*as nn.Linear\("),
    ("encoders", lambda: Lazy(nn.Sequential(nn.LazyBatchNorm1d(affine=False), nn.Linear(5, D))), "0.running_mean is"),
    ("decoders", lambda: nn.LazyLinear(5), r"decoder of 'x' has no size yet, decoders.0.weight"),
])
def test_a_lazy_layer_that_was_never_run_is_named(what, network, message):
    with pytest.raises(UserError, match=message):
        train(model_of(**{what: {"x": network()}}))
    model = model_of(**{what: {"x": network()}})
    (model.encode if what == "encoders" else model.impute)(dict(make_data().modalities))
    train(model)  # it has a size now


@pytest.mark.parametrize("kind, cure", [(list, "nn.ModuleList"), (tuple, "nn.ModuleList"), (dict, "nn.ModuleDict")])
def test_layers_that_would_not_be_trained_are_refused(kind, cure):
    with pytest.raises(UserError, match=f"encoder of 'x' holds layers in the {kind.__name__} 'layers'.*{cure}"):
        model_of(encoders={"x": InAList(kind)})
    seen = InAList(kind)
    seen.also = nn.ModuleList(seen.layers.values() if kind is dict else seen.layers)
    model_of(encoders={"x": seen})


@pytest.mark.parametrize("options, message", [
    ({"encoders": [Encoder()]}, "encoders are a list: give a dictionary, name -> network"),
    ({"encoders": {"x": Encoder}}, r"the encoder of 'x' is a type: give an instance, Encoder\(...\)"),
    ({"beta": "0.5"}, "beta must be a number, got '0.5'"), ({"objective": MMVM}, r"objective MMVM.*as in MMVM\(\)"),
    ({"latent_dim": 8.0}, "latent_dim must be a whole number, got 8.0"),
    ({"latent_dim": 0}, "latent_dim must be positive, got 0"),
])
def test_a_model_of_wrong_pieces_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        model_of(**options)


# methods -------------------------------------------------------------------------------------------------------------

def kl(q, observed):
    return q.kl_standard_normal().masked_fill(~observed, 0).sum(0)


def of(forward) -> Objective:
    return type("Mine", (Objective,), {"forward": forward})()


@pytest.mark.parametrize("forward, message", [
    (lambda s, q, o, step=0: Shared(q.sample().mean(0, keepdim=True)[None], kl(q, o)), r"latents \(1, 1, 20, 3\)"),
    (lambda s, q, o, step=0: Shared(q.sample(), kl(q, o)), r"latents \(2, 20, 3\).*z.unsqueeze\(0\)"),
    (lambda s, q, o, step=0: Shared(q.sample()[None], q.kl_standard_normal()), r"regulariser \(2, 20\).*\(20,\)"),
    (lambda s, q, o, step=0: Shared(q.sample()[None], kl(q, o).mean()), r"regulariser \(\), expected"),
    (lambda s, q, o, step=0: Shared(q.sample()[None], kl(q, o)[:, None]), r"regulariser \(20, 1\), expected"),
    (lambda s, q, o, step=0: Shared(q.sample()[None], kl(q, o), {"kl": 1.0}), "kl float, expected"),
    (lambda s, q, o, step=0: Shared(q.sample()[None], kl(q, o), {"loss": kl(q, o)}), "a part named 'loss'"),
    (lambda s, q, o, step=0: Shared(q.sample()[None], kl(q, o), {"epoch": kl(q, o)}), "a part named 'epoch'"),
    (lambda s, q, o, step=0: Shared(q.sample()[None], kl(q, o), {}, torch.ones(2, 20)), r"weights \(2, 20\)"),
    (lambda s, q, o, step=0: (q.sample()[None], kl(q, o)), "forward gives a tuple: return Shared"),
    (lambda s, q, o: Shared(q.sample()[None], kl(q, o)), r"forward must take \(q, observed, step=0\)"),
])
def test_a_method_that_returns_other_shapes_is_named(forward, message):
    with pytest.raises(UserError, match=f"method Mine: .*{message}"):
        train(model_of(objective=of(forward)))


def test_every_method_passes_the_check_of_its_shapes():
    for text in METHODS:
        model = model_of(objective=text)
        model(list(make_data().modalities.values()), make_data().observed)


def test_an_option_that_the_class_does_not_take_is_named():
    from mmvm.objectives import Option

    try:
        method("mine", "Mine", "#000000", "o", "nobody", [Option("a", 1.0, "x")])(type(
            "Mine", (Objective,), {"__init__": lambda self: Objective.__init__(self)}))
        with pytest.raises(UserError, match="method 'mine': Mine cannot be made of its options.*__init__ take a"):
            build("mine", D, 2)
    finally:
        METHODS.pop("mine", None)
    with pytest.raises(UserError, match="unknown objective 'mine': there are .*has to be imported by the study"):
        build("mine", D, 2)


# training ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, message", [
    ({"max_grad_norm": -1}, "max_grad_norm must be at least 0"), ({"learning_rate": float("inf")}, "must be finite"),
    ({"learning_rate": "1e-3"}, "learning_rate must be a number, got '1e-3'"), ({"epochs": "3"}, "a whole number"),
    ({"epochs": 2.5}, "epochs must be a whole number, got 2.5"), ({"epochs": True}, "epochs must be a whole number"),
    ({"batch_size": None}, "batch_size must be a whole number, got None"), ({"seed": 1.5}, "seed must be a whole"),
    ({"validation": 0.1}, r"validation takes rows, not 0.1: train, rows = split\(data, validation=0.1\)"),
    ({"data": {"x": 1}}, r"data are a dict: give MultimodalData\(arrays, specs\)"),
    ({"data": make_data().subset([])}, "data have no sample"),
])
def test_settings_that_are_none_are_refused(options, message):
    model = model_of()
    before = [x.clone() for x in model.parameters()]
    with pytest.raises(UserError, match=message):
        train(model, **options)
    assert all(map(torch.equal, before, model.parameters()))


def test_fewer_epochs_than_a_folder_has_are_refused(tmp_path):
    train(epochs=np.int64(3), out=tmp_path)
    assert len(train(epochs=3, out=tmp_path).epochs) == 3
    with pytest.raises(UserError, match="ends at epoch 3, the run asks for 2: raise epochs, choose another folder"):
        train(epochs=2, out=tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="file.* cannot be written .*: check the path and its rights, or choose"):
            train(out=out)


@pytest.mark.parametrize("config, message", [
    ({"at": 1, "rate": np.float32(0.5)}, r"config\['rate'\] cannot be kept in a checkpoint.*float32.*float\(x\)"),
    ({"mask": torch.zeros(2)}, r"config\['mask'\] cannot.*Tensor"), ({"nested": {"of": [{1}]}}, r"\['nested'\].*set"),
    ({(1, 2): 3}, r"config\[\(1, 2\)\] cannot be kept.*under names"), ([("at", 1)], "config is a list: give a dict"),
])
def test_what_a_checkpoint_cannot_hold_is_refused_before_the_training(config, message, tmp_path):
    model = model_of()
    before = [x.clone() for x in model.parameters()]
    with pytest.raises(UserError, match=message):
        train(model, config=config, out=tmp_path / "run")
    assert all(map(torch.equal, before, model.parameters())) and not (tmp_path / "run").exists()
    train(config={"text": "a", "list": [1, 2.5, None, True], "in it": {"a": (1,)}}, out=tmp_path / "run")


@pytest.mark.parametrize("given", [
    {"learning_rate": np.float32(1e-3)}, {"learning_rate": Schedule(np.float32(1e-3), np.float64(0), np.int64(4))},
    {"max_grad_norm": np.float32(1)}, {"seed": np.int64(1)}, {"batch_size": np.int64(20)}, {"epochs": np.int64(2)},
    {"validation": make_data(), "patience": np.int64(5), "validate_every": np.int64(1)},
])
def test_settings_may_be_numbers_of_numpys(given, tmp_path):
    """As they come from an array of what is to be tried; a run of the same Python numbers is the same run."""
    train(**given, out=tmp_path)
    train(**{**{name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()},
             "epochs": 2}, out=tmp_path)


def test_models_that_differ_by_a_number_of_numpys_are_different(tmp_path):
    train(model_of(beta=np.float32(1)), out=tmp_path)
    train(model_of(beta=1.0), out=tmp_path)
    with pytest.raises(UserError, match=r"another run: beta \(there 1.0, here 2.0\)"):
        train(model_of(beta=np.float32(2)), out=tmp_path)
    narrow, wide = (architecture(MultimodalVAE.for_data(MultimodalData(dict(make_data().modalities), (
        Modality("x", (5,), Normal(np.float32(scale)), weight=np.float32(scale)), SPECS[1])), say=None))
        for scale in (1, 2))
    assert narrow["x's weight"] == 1.0 and narrow["x's likelihood"] == "Normal(scale=1.0)"
    assert {"x's weight", "x's likelihood"} <= differences(narrow, wide).keys()
    train(model_of(objective=MMVM(standard_normal_weight=np.float32(0.1))))


def test_what_on_epoch_returns_has_to_be_plain(tmp_path):
    with pytest.raises(UserError, match=r"on_epoch returned what history.jsonl cannot hold.*float\(x\)"):
        train(out=tmp_path, on_epoch=lambda model, epoch: {"a": torch.zeros(())})


# data ----------------------------------------------------------------------------------------------------------------

def test_rows_without_ids_are_divided_again_by_their_numbers():
    by = np.arange(N) // 4
    rest, test = split(make_data(), by=by, validation=np.int64(8))
    assert len(test) == 8 and sorted(rest.ids + test.ids, key=int) == list(map(str, range(N)))
    with pytest.raises(UserError, match=r"one group for each of the 32 samples; .*by\[\[int\(i\) for i in data.ids"):
        split(rest, by=by)
    own = by[[int(i) for i in rest.ids]]
    train_rows, rows = split(rest, by=own, validation=8)
    assert not {by[int(i)] for i in train_rows.ids} & {by[int(i)] for i in rows.ids}
    assert torch.equal(rows.modalities["x"], make_data().modalities["x"][[int(i) for i in rows.ids]])


def test_rows_of_one_name_on_both_sides_of_a_split_are_named():
    data = make_data(ids=[f"p{i // 2}" for i in range(N)])  # two visits of each person
    with pytest.warns(ValueWarning, match=r"samples are also training .*first: p\d+\).*split\(data, by=data.ids"):
        split(data, validation=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rest, held = split(data, by=data.ids, validation=8)
        assert len(held) == 8 and not set(rest.ids) & set(held.ids)
        split(data, by=np.arange(N), validation=8)              # as it was asked for
        split(make_data(ids=[f"p{i}" for i in range(N)]), validation=8)
        split(make_data(), validation=8)


def test_what_is_imputed_goes_to_numpy_and_data_are_told_the_call():
    data, model = make_data(), model_of()
    assert model.impute({"x": data.modalities["x"]}, targets="y")["y"].numpy().shape == (N, 4)
    with pytest.raises(UserError, match=r"model.impute\(dict\(data.modalities\), data.observed\)"):
        model.impute(data)


def test_a_guess_says_what_may_be_meant_otherwise():
    random, said = np.random.default_rng(0), []
    Modality.guess("t", random.normal(size=(30, 12, 8)), said.append)
    assert "one mean for each of 12 rows of 8: if these are time points, give (N, units, T)" in said[-1]
    table = pd.DataFrame({"a": random.normal(size=30), "id": random.permutation(30)})
    Modality.guess("t", table, said.append)
    assert "column 1 is another whole number in every sample: leave it out if it is an id" in said[-1]
    Modality.guess("t", random.normal(size=(30, 3)), said.append)
    assert said[-1].count(";") == 0
    Modality.guess("i", random.integers(256, size=(30, 1, 9, 9)), said.append)
    assert "or bytes, x.astype('uint8')" in said[-1]
    with pytest.raises(UserError, match="modality 's' holds <U1.*pandas.factorize"):
        Modality.guess("s", np.array(["a", "b"]))


def test_labels_that_are_not_known_are_to_be_left_out():
    with pytest.raises(UserError, match="is no whole number: drop unknown classes"):
        make_data(labels=np.where(np.arange(N) < 3, np.nan, 1))
    with pytest.raises(UserError, match="is no text: drop samples without a class"):
        make_data(labels=[None, *["a"] * (N - 1)])
    several = make_data(labels=np.eye(2)[np.arange(N) % 2])
    with pytest.raises(UserError, match="mmvm.evaluation.multilabel"):
        evaluation.linear_probe(model_of(), several, several)
    with pytest.raises(UserError, match="'k' holds NaN"):
        MultimodalVAE.for_data(MultimodalData({"k": np.array([[np.nan], [1.0]])},
                                              (Modality("k", (1,), Categorical()),)), say=None)
