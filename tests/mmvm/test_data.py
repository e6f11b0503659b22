"""`MultimodalData`: batches and subsets keep the modalities of a sample together, and mistakes are named."""

import math
import re
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch

from mmvm import evaluation, fit
from mmvm.data import Batch, Modality, MultimodalData, in_order
from mmvm.errors import UserError, ValueWarning
from mmvm.likelihoods import Bernoulli, Beta, Categorical, Laplace, NegativeBinomial, Normal, Poisson
from mmvm.likelihoods.base import Likelihood
from mmvm.model import MultimodalVAE, fit_latent_density
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM

SPECS = (Modality("image", (3, 2, 2), Laplace(), scale=1 / 255), Modality("counts", (4,), Poisson()),
         Modality("text", (5,), Categorical()))
N = 12


def make(n=N, **changes):
    g = torch.Generator().manual_seed(0)
    arrays = {"image": torch.randint(256, (n, 3, 2, 2), generator=g, dtype=torch.uint8),
              "counts": torch.arange(n)[:, None] + torch.zeros(n, 4), "text": torch.arange(n)[:, None].expand(n, 5)}
    observed = torch.ones(3, n, dtype=torch.bool)
    observed[1, ::3] = False
    return MultimodalData(**{"modalities": arrays, "specs": SPECS, "labels": torch.arange(n), "observed": observed,
                             "ids": [f"row {i}" for i in range(n)], "n_classes": n, **changes})


def test_length_names_and_device():
    data = make()
    assert len(data) == N and data.names == ["image", "counts", "text"] and data.device.type == "cpu"


def test_everything_is_observed_unless_told():
    assert torch.equal(make(observed=None).observed, torch.ones(3, N, dtype=torch.bool))


def check_rows(batch: Batch, rows):
    data, rows = make(), torch.as_tensor(rows)
    assert [x.dtype for x in batch.x] == [torch.uint8, torch.float32, torch.int64]
    for found, whole in zip(batch.x, data.modalities.values()):
        assert torch.equal(found, whole[rows])
    assert torch.equal(batch.observed, data.observed[:, rows])
    assert torch.equal(batch.labels, rows)


def test_a_batch_keeps_the_rows_together():
    check_rows(make().batch(torch.tensor([7, 0, 7, 3])), [7, 0, 7, 3])


def test_batches_cover_everything_once_in_order():
    batches = list(make().batches(5))
    assert [len(batch.x[0]) for batch in batches] == [5, 5, 2]
    for batch, rows in zip(batches, torch.arange(N).split(5)):
        check_rows(batch, rows)


@pytest.mark.parametrize("index, rows", [
    (torch.tensor([4, 2]), [4, 2]), ([4, 2], [4, 2]), (slice(2, 9, 3), [2, 5, 8]),
    (torch.arange(N) > 9, [10, 11]), (slice(None, -10), [0, 1])])
def test_a_subset_is_the_same_rows_of_everything(index, rows):
    subset = make().subset(index)
    assert len(subset) == len(rows) and subset.n_classes == N
    assert subset.ids == [f"row {i}" for i in rows]
    check_rows(subset.batch(torch.arange(len(rows))), rows)


def test_a_subset_takes_an_index_of_another_device():
    """Which may be moved, but does not index what is on the CPU."""
    class Elsewhere(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is torch.Tensor.__getitem__:
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor")
            with torch._C.DisableTorchFunctionSubclass():
                found = function(*args, **(kwargs or {}))
                return found.as_subclass(torch.Tensor) if function is torch.Tensor.cpu else found

    data = make()
    for index in (torch.tensor([3, 1]), torch.arange(len(data)) < 2):
        there, here = data.subset(index.as_subclass(Elsewhere)), data.subset(index)
        assert all(torch.equal(there.modalities[name], here.modalities[name]) for name in data.names)


def test_a_subset_is_a_copy():
    data = make()
    subset = data.subset(slice(None))
    subset.modalities["counts"].fill_(-1)
    assert (data.modalities["counts"] >= 0).all()


def test_labels_and_ids_may_be_absent_or_multiple():
    data = make(labels=None, ids=None, n_classes=None)
    assert data.batch(torch.tensor([1])).labels is None and data.subset([1, 2]).ids is None
    many = make(labels=torch.arange(3 * N).view(N, 3) % 2).subset([2, 1])
    assert many.labels.tolist() == [[0, 1, 0], [1, 0, 1]]


def test_moving_keeps_everything():
    data = make()
    check_rows(data.to("cpu").batch(torch.arange(N)), range(N))
    assert make(labels=None).to("cpu").labels is None


# what the networks see

def test_bytes_become_floats_in_the_unit_interval():
    x = SPECS[0].prepare(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert x.dtype == torch.float32 and x.tolist() == pytest.approx([0.0, 0.2, 1.0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_tokens_stay_integers(dtype):
    x = SPECS[2].prepare(torch.tensor([0, 51, 200 if dtype == torch.uint8 else 1000], dtype=dtype))
    assert x.dtype == torch.int64 and x[1] == 51


@pytest.mark.parametrize("likelihood", [Laplace(), Normal(), Bernoulli(), Poisson()])
def test_stored_values_are_scaled_once(likelihood):
    x = Modality("x", (2,), likelihood, scale=0.5).prepare(torch.tensor([[2, -4]]))
    assert x.dtype == torch.float32 and x.tolist() == [[1.0, -2.0]]


# mistakes

ones = torch.ones


@pytest.mark.parametrize("changes, message", [
    ({"modalities": {"image": ones(N, 3, 2, 2), "text": ones(N, 5), "counts": ones(N, 4)}},
     r"\['image', 'text', 'counts'\].*same names in the same order"),
    ({"modalities": {"image": ones(N, 3, 2, 2), "counts": ones(N, 4)}}, "same names in the same order"),
    ({"modalities": {"image": ones(N, 2, 2, 3), "counts": ones(N, 4), "text": ones(N, 5)}},
     r"'image' holds samples of shape \(2, 2, 3\).*\(3, 2, 2\): correct one"),
    ({"modalities": {"image": ones(N, 3, 2, 2), "counts": ones(N - 1, 4), "text": ones(N, 5)}},
     f"'counts' has {N - 1} samples, 'image' has {N}.*mark what is absent in `observed` .*union.b.index, sort=False."),
    ({"labels": torch.zeros(N + 1)}, f"{N + 1} labels for {N} samples: give one label per sample"),
    ({"observed": ones(N, 3, dtype=torch.bool)}, rf"bool tensor of shape \(M, N\) = \(3, {N}\).*\({N}, 3\)"),
    ({"observed": ones(3, N)}, r"bool tensor.*float32"),
    ({"modalities": {}, "specs": ()}, "there is no modality: give at least one"),
    ({"ids": ["a", "b"]}, f"2 ids for {N} samples: give one id per sample"),
    ({"labels": torch.arange(N) - 1}, "label of sample 0 is below 0.*drop samples without a class"),
    ({"n_classes": 2}, r"label of sample 2 is not below n_classes=2: correct it, or n_classes \(10 such labels\)"),
    ({"labels": torch.eye(N) / 2}, r"label of sample 0 is not of 0, 1 or NaN.*give a column of these a label"),
])
def test_pieces_that_do_not_fit_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        make(**changes)


@pytest.mark.parametrize("ids, name", [([f"row {i}" for i in range(N)], "row 4"), (None, "4")])
def test_samples_without_any_modality_are_named_and_counted(ids, name):
    observed = torch.ones(3, N, dtype=torch.bool)
    observed[:, [4, 7]] = False
    with pytest.raises(UserError, match=rf"sample {name} has no observed modality \(2 such samples\): drop them"):
        make(observed=observed, ids=ids)


def test_absent_entries_may_hold_anything():
    counts = torch.full((N, 4), math.nan)
    data = make(modalities={**make().modalities, "counts": counts}, observed=torch.tensor([[True], [False], [True]])
                .expand(3, N))
    assert data.batch(torch.arange(3)).x[1].isnan().all()


SECRET = 71_077.25


def secret(n: int = 3) -> tuple:
    """Arrays that hold a number that no error may show, and their descriptions."""
    return ([torch.full((n, 5), SECRET).numpy(), torch.full((n, 4), SECRET).numpy()],
            (Modality("x", (5,), Normal()), Modality("y", (4,), Normal())))


@pytest.mark.parametrize("given, message", [
    (lambda arrays, specs: (arrays, specs), "in a list: give a dictionary, name -> array"),
    (lambda arrays, specs: (arrays[0], specs), "in a ndarray: give a dictionary"),
    (lambda arrays, specs: (dict(zip("xy", arrays)), arrays), "no list of Modality but a list"),
    (lambda arrays, specs: ({"x": arrays[0]}, specs[0]), "no list of Modality but a Modality"),
    (lambda arrays, specs: (dict(zip("xy", arrays)), dict(zip("xy", specs))), "no list of Modality but a dict"),
    (lambda arrays, specs: (dict(zip("xy", arrays)), specs[::-1]), r"named \['x', 'y'\], their descriptions"),
])
def test_what_is_no_dictionary_of_arrays_is_refused_without_a_value(given, message):
    with pytest.raises(UserError, match=message) as raised:
        MultimodalData(*given(*secret()))
    assert "71077" not in str(raised.value)


@pytest.mark.parametrize("index, message", [
    (torch.ones(5, dtype=torch.bool), "a mask of 5 bools for 12 samples: give one per sample"),
    ([0, 500], "rows 0 to 500 are asked for, the 12 samples are 0 to 11"), ([-13], "rows -13 to -13 are asked for"),
    (5, r"one as \[3\]"), (["row 1"], r"of ids the rows, \[data.ids.index"), ([0.0, 1.0], "float64 and shape"),
    (torch.zeros(2, 2).long(), r"shape \(2, 2\)"),
])
def test_an_index_that_names_no_rows_is_refused(index, message):
    with pytest.raises(UserError, match=message):
        make().subset(index)


def test_ids_that_contradict_a_frame_are_refused():
    frame = pd.DataFrame(np.zeros((3, 5)), index=["p1", "p2", "p3"])
    spec = [Modality("x", (5,), Normal())]
    with pytest.raises(UserError, match="row 0 is p1 in the frames' index and p3 in `ids`: leave `ids` out"):
        MultimodalData({"x": frame}, spec, ids=["p3", "p2", "p1"])
    for ids in (["p1", "p2", "p3"], ["a", "b", "c"]):  # names of their own may replace an index
        assert MultimodalData({"x": frame}, spec, ids=ids).ids == ids
    assert MultimodalData({"x": frame.reset_index(drop=True)}, spec, ids=["a", "a", "b"]).ids == ["a", "a", "b"]


def test_a_sample_of_ignored_tokens_alone_is_not_observed():
    specs = (Modality("x", (5,), Normal()), Modality("k", (2,), Categorical(ignore=-1)))
    x, tokens = torch.randn(4, 5), torch.tensor([[0, 1], [-1, -1], [2, -1], [-1, -1]])
    data = MultimodalData({"x": x, "k": tokens}, specs)
    assert data.observed.tolist() == [[True] * 4, [True, False, True, False]]
    model = MultimodalVAE.for_data(data, latent_dim=2, say=None).eval()
    whole, masked = model.encode([x, tokens]), model.encode([x, tokens], data.observed)
    assert torch.equal(whole.mean, masked.mean) and (whole.mean[1, 1] == 0).all()
    with pytest.raises(UserError, match="row|sample"):
        model.impute({"k": torch.full((1, 2), -1)}, targets="x")
    with pytest.raises(UserError, match=r"'k' holds NaN or infinity, and tokens are whole numbers.*ignore=-1"):
        MultimodalVAE.for_data(MultimodalData({"x": x, "k": tokens / 0.0}, specs), say=None)


def test_an_inventory_counts_what_is_there_and_what_is_not():
    x = torch.tensor([[1.0, float("nan")], [2.0, 5.0], [-3.0, 4.0], [9.0, 9.0]])
    data = MultimodalData({"a": x, "b": torch.tensor([[0], [7], [1], [3]], dtype=torch.uint8)},
                          (Modality("a", (2,), Normal(), missing="nan"), Modality("b", (1,), Poisson())),
                          torch.tensor([0, 2, 2, 0]), n_classes=3,
                          observed=torch.tensor([[True, True, True, False], [True, False, True, True]]))
    assert data.inventory("train", animals=["x", "y", "x", "y"]) == [
        "train: 4 samples of 2 modalities (2 animals)",
        "train, a: (2,) float32, -3 to 5; 1 samples missing, 1 entries of the others",
        "train, b: (1,) uint8, 0 to 3; 1 samples missing",
        "train, labels: 3 classes, 0 2, 1 0, 2 2"]
    labels = torch.tensor([[1.0, 0.0], [float("nan"), 1.0], [1.0, 1.0], [0.0, 0.0]])
    data = MultimodalData({"b": torch.zeros(4, 1)}, (Modality("b", (1,), Normal()),), labels, label_names=("x", "y"))
    assert data.inventory("set")[-1] == "set, labels: x 2, y 2; 1 not known"


# data and a model

def pair(names=("a", "b"), n=20, **changes):
    specs = tuple(Modality(name, (4,), Normal()) for name in names)
    return MultimodalData(**{"modalities": {name: torch.randn(n, 4) for name in names}, "specs": specs,
                             "labels": torch.arange(n) % 2, **changes})


def model_of(data):
    return MultimodalVAE.for_data(data, latent_dim=2, say=None)


ENTRIES = {"fit": lambda model, data: fit(model, data, epochs=1), "shared": lambda model, data: model.shared(data),
           "compare": lambda model, data: model.compare(data), "encode": evaluation.encode_means,
           "reconstruct": evaluation.reconstruction_error, "impute": evaluation.imputation_error,
           "diagnostics": evaluation.diagnostics, "density": lambda model, data: fit_latent_density(model, data, 2),
           "probe": lambda model, data: evaluation.linear_probe(model, data, data)}


@pytest.mark.parametrize("enter", ENTRIES.values(), ids=ENTRIES)
@pytest.mark.parametrize("names", [("b", "a"), ("a", "c"), ("a", "b", "c")])
def test_data_of_other_modalities_than_the_models_are_refused(enter, names):
    model = model_of(pair())
    with pytest.raises(UserError, match=r"data's modalities are .*, the model's \{'a': .* in the same order"):
        enter(model, pair(names))


def test_equal_modalities_need_not_be_the_same_objects():
    assert evaluation.encode_means(model_of(pair()), pair()).shape == (2, 20, 2)


@pytest.mark.parametrize("enter", ENTRIES.values(), ids=ENTRIES)
def test_observed_values_that_are_no_number_are_refused(enter):
    model, data = model_of(pair()), pair()
    data.modalities["b"][3, 1] = math.nan
    with pytest.raises(UserError, match="'b', sample 3.* is nan|'b', sample [0-9]+ of the batch holds NaN.*missing="):
        enter(model, data)
    absent = pair(modalities=data.modalities, observed=torch.stack([torch.ones(20), torch.arange(20) != 3]).bool())
    enter(model, absent)


@pytest.mark.parametrize("call", ["encode", "impute"])
def test_a_model_refuses_tensors_that_hold_what_is_no_number(call):
    model, x = model_of(pair()).eval(), {"a": torch.zeros(5, 4)}
    x["a"][2, 0] = math.inf
    with pytest.raises(UserError, match="modality 'a', sample 2 of the batch holds NaN or infinity"):
        getattr(model, call)(x)


def test_tokens_that_the_model_does_not_have_are_refused():
    words = Modality("words", (5,), Categorical(ignore=-1))
    data = MultimodalData({"words": torch.arange(20).view(4, 5)}, (words,))
    model, x = model_of(data).eval(), data.modalities["words"].clone()
    x[0, 0] = -1
    assert model.encode([x]).mean.isfinite().all()
    for wrong, said in ((x + 1, "tokens from 0 to 20.*encoder has 0 to 19: correct them"), (x - 1, "tokens from -2 to"),
                        (x.float(), "stored as floats: give integers")):
        for call in (model.encode, model.impute, lambda given: evaluation.encode_means(model, replace(
                data, modalities={"words": given[0]}))):
            with pytest.raises(UserError, match=said):
                call([wrong])


def test_labels_that_are_not_known_are_nan():
    labels = torch.tensor([[0.0, math.nan], [1, 1]]).repeat(10, 1)
    assert pair(labels=labels).labels.isnan().any() and pair(labels=labels > 0).labels.dtype == torch.bool


# units

def counted(n=40, counts=None, kind=Poisson):
    """Counts and bytes of pictures of the same samples."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 9, (n, 4), generator=generator).float() if counts is None else counts
    pictures = torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    specs = (Modality("a", (4,), kind()), Modality("b", (1, 8, 8), Laplace(), scale=1 / 255))
    return MultimodalData({"a": counts, "b": pictures}, specs, labels=torch.arange(n) % 2)


@pytest.mark.parametrize("enter", [enter for name, enter in ENTRIES.items() if name != "fit"],
                         ids=[name for name in ENTRIES if name != "fit"])
@pytest.mark.parametrize("kind", [Poisson, NegativeBinomial])
def test_values_out_of_the_likelihoods_range_are_refused_where_a_model_meets_them(enter, kind):
    data = counted(kind=kind)
    model = model_of(data).eval()
    with pytest.raises(UserError, match=rf"'a', sample \d+ of the batch holds what {kind.__name__} does not take, "
                                        r"values lie from -5 to 3 .*units of the training data"):
        enter(model, counted(counts=data.modalities["a"] - 5, kind=kind))


@pytest.mark.parametrize("call", ["encode", "impute"])
def test_a_model_refuses_tensors_out_of_range(call):
    data = counted()
    model = model_of(data).eval()
    counts = torch.ones(5, 4)
    counts[2, 1] = -1
    with pytest.raises(UserError, match="'a', sample 2 of the batch holds what Poisson does not take"):
        getattr(model, call)({"a": counts})
    absent = MultimodalData({"a": data.modalities["a"] - 5, "b": data.modalities["b"]}, data.specs,
                            observed={"a": np.zeros(40, bool)})
    assert evaluation.encode_means(model, absent)[1].isfinite().all(), "what is absent may hold anything"


@pytest.mark.parametrize("scale", [1 / 255, 1.0])
def test_bytes_in_place_of_fractions_and_fractions_in_place_of_bytes_are_warned_of(scale):
    data = counted()
    specs = (data.specs[0], replace(data.specs[1], scale=scale))
    pictures = data.modalities["b"]
    right, wrong = (pictures, pictures / 255) if scale < 1 else (pictures / 255, pictures)
    data = MultimodalData({"a": data.modalities["a"], "b": right}, specs)
    other = MultimodalData({"a": data.modalities["a"], "b": wrong}, specs)
    model = model_of(data).eval()
    said = "fractions of 1, against its scale of 0.00392" if scale < 1 else "bytes, against its scale of 1"
    for call in (lambda: evaluation.encode_means(model, other), lambda: evaluation.imputation_error(model, other),
                 lambda: model.shared(other), lambda: model.impute({"b": wrong}, targets="a")):
        with pytest.warns(ValueWarning, match=f"'b' holds {said}"):
            call()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.encode_means(model, data)
        model.encode({"b": right.float()})  # bytes as floats, too
        if scale < 1:
            model.encode({"b": torch.zeros(3, 1, 8, 8)}), model.encode({"b": torch.ones(3, 1, 8, 8)})  # dark pictures


@pytest.mark.parametrize("name", ["observed", "label", "id", "trust"])
def test_a_name_that_a_sample_has_besides_its_modalities_is_refused_at_once(name):
    with pytest.raises(UserError, match=f"a modality is named '{name}', which a sample has besides"):
        MultimodalData({name: torch.zeros(5, 4)}, (Modality(name, (4,), Normal()),))


@pytest.mark.parametrize("name", ["observed", "label", "id", "trust"])
def test_a_model_that_was_kept_with_such_a_name_can_be_used(name, tmp_path):
    specs = (Modality("a", (4,), Normal()), Modality(name, (2,), Normal()))
    networks = [[kind(s.shape, 2, (8,)) for s in specs] for kind in (MLPEncoder, MLPDecoder)]
    MultimodalVAE(specs, *networks, MMVM()).save(tmp_path / "old.safetensors")
    model, x = MultimodalVAE.load(tmp_path / "old.safetensors").eval(), torch.randn(5, 4)
    assert model.impute({"a": x}, targets=name)[name].shape == (5, 2)
    one = model.encode({"a": x, name: torch.randn(5, 2)}).mean
    assert not torch.equal(one[1], model.encode({"a": x, name: torch.randn(5, 2)}).mean[1]), "it is read"


@dataclass(frozen=True)
class Ends(Likelihood):
    """Reals of one's own between two ends, neither of which is 0."""

    lowest: float = 1.0
    highest: float = 5.0

    def elementwise(self, params, x):
        return -0.5 * (params - x).square()


@pytest.mark.parametrize("likelihood, x", [(Ends(), 3.0), (Ends(1.0, math.inf), 3.0), (Ends(-math.inf, -1.0), -3.0)])
def test_the_zeros_of_what_is_absent_are_in_every_range(likelihood, x):
    specs = (Modality("a", (4,), likelihood), Modality("b", (3,), Normal()))
    observed = torch.ones(2, 20, dtype=torch.bool)
    observed[0, ::4] = False
    data = MultimodalData({"a": torch.full((20, 4), x), "b": torch.randn(20, 3)}, specs, observed=observed)
    model = model_of(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, data, epochs=2, batch_size=10, device="cpu", precision="float32", check="off")
        assert np.isfinite(evaluation.imputation_error(model, data)).all()
        assert model.impute({"b": torch.randn(3, 3)})["a"].shape == (3, 4)


@pytest.mark.parametrize("likelihood", [Bernoulli(), Beta()])
def test_fractions_beyond_their_range_are_warned_of_where_a_model_meets_them(likelihood):
    """As of test data that were divided by the training's maximum: no NaN comes of them."""
    specs = (Modality("a", (4,), likelihood), Modality("b", (3,), Normal()))
    data, other = (MultimodalData({"a": most * torch.linspace(0, 1, 80).view(20, 4), "b": torch.randn(20, 3)}, specs)
                   for most in (1.0, 1.03))
    model = MultimodalVAE.for_data(data, 2, say=None).eval()
    with pytest.warns(ValueWarning, match=f"'a' holds values beyond the 0 to 1 of {type(likelihood).__name__}"):
        errors = evaluation.reconstruction_error(model, other)
    assert np.isfinite(errors).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.reconstruction_error(model, data)


def test_numbers_that_are_small_after_their_scale_are_no_fractions_but_in_pictures():
    data = MultimodalData({"a": torch.rand(20, 1), "b": torch.randn(20, 3)},
                          (Modality("a", (1,), Normal(), scale=1 / 168), Modality("b", (3,), Normal())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.encode_means(model_of(data), data)


@pytest.mark.parametrize("index, cure", [
    (None, None), (range(50, 80), None), ([f"row {i}" for i in range(30)], None),
    (range(29, -1, -1), r"give by\.sort_index\(\); where its rows are in that order, give by\.to_numpy\(\)")])
def test_of_samples_without_ids_an_index_says_no_more_than_an_order(index, cure):
    data = counted(30)
    by = pd.Series(np.arange(30), index=index)
    if cure is None:
        assert in_order(by, data, "`by`").tolist() == list(range(30))
    else:
        with pytest.raises(UserError, match=cure):
            in_order(by, data, "`by`")


@pytest.mark.parametrize("ids, index, cure", [
    ([f"p{i}" for i in range(30)], [f"p{i}" for i in range(29, -1, -1)], "by.loc[data.ids]"),
    (list(map(str, range(100, 130))), range(129, 99, -1), "by.set_axis(by.index.map(str)).loc[data.ids]"),
    (list(map(str, pd.date_range("2020-01-01", periods=30))), pd.date_range("2020-01-01", periods=30)[::-1],
     "by.set_axis(by.index.map(str)).loc[data.ids]"),
    ([f"p{i}" for i in range(30)], range(30), "by.to_numpy()"),
    (["p"] * 29 + ["q"], ["q"] + ["p"] * 29, "by.to_numpy()")])
def test_the_cure_of_an_index_in_another_order_is_one(ids, index, cure):
    data, by = replace(counted(30), ids=ids), pd.Series(np.arange(30), index=index)
    with pytest.raises(UserError, match="index of `by` is not that of the samples in their order") as error:
        in_order(by, data, "`by`")
    found = re.findall(r"give (.*?)(?:;|$)", str(error.value))
    assert found[0] == cure and found[-1] == "by.to_numpy()"
    assert in_order(eval(found[0]), data, "`by`").tolist() == list(range(30))[::-1 if "loc" in cure else 1]
