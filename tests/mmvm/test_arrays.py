"""Arrays as people have them: numpy, pandas, lists and labels of any kind become the same data, or one clear line."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch.utils.data import DataLoader

from mmvm import arrays
from mmvm.data import Modality, MultimodalData, Repeated
from mmvm.errors import UserError
from mmvm.likelihoods import Categorical, Laplace, Normal
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM

N = 6
A, B = np.arange(3.0 * N).reshape(N, 3), np.arange(2 * N).reshape(N, 2)
SPECS = (Modality("a", (3,), Normal()), Modality("b", (2,), Normal()))
INDEX = [f"cell {i}" for i in range(N)]


def frame(**changes):
    return pd.DataFrame(A, columns=["x", "y", "z"], index=INDEX).assign(**changes)


def make(a=A, b=B, specs=SPECS, **settings):
    return MultimodalData({"a": a, "b": b}, specs, **settings)


# modalities

@pytest.mark.parametrize("a", [A, A.astype(">f4"), A[::-1].copy()[::-1], np.asfortranarray(A), A.tolist(), list(A),
                               torch.tensor(A), [torch.tensor(row) for row in A], frame(), np.ma.masked_array(A),
                               pd.DataFrame(A).convert_dtypes(), frame(x=pd.array(A[:, 0], "Int64")),
                               sparse.csr_matrix(A)], ids=range(13))
def test_every_kind_of_array_is_the_same_numbers(a):
    found = make(a).modalities["a"]
    assert isinstance(found, torch.Tensor) and torch.equal(found.float(), torch.tensor(A, dtype=torch.float32))


@pytest.mark.parametrize("given, kept", [
    ("float64", "float32"), ("float32", "float32"), ("float16", "float16"), ("uint8", "uint8"), ("int64", "int64"),
    ("int16", "int16"), ("bool", "bool"), ("uint16", "int32"), ("uint32", "int64"), (">i4", "int32"),
    ("longdouble", "float32")])
def test_types_are_kept_or_narrowed_as_documented(given, kept):
    found = make(A.astype(given)).modalities["a"]
    assert str(found.dtype) == f"torch.{kept}"
    assert torch.equal(found.double(), torch.tensor(A.astype(given).astype(float)))


def test_arrays_are_copied_and_tensors_are_not():
    a, t = A.copy(), torch.zeros(N, 3)
    a.flags.writeable = False
    data = make(a)
    data.modalities["a"].fill_(7)
    assert a[0, 1] == 1 and make(t).modalities["a"] is t
    lying = Repeated(torch.zeros(2, 3), torch.zeros(N, dtype=torch.long))
    assert make(lying).modalities["a"] is lying


def test_one_column_may_be_a_flat_array():
    data = MultimodalData({"a": pd.Series(A[:, 0])}, [Modality("a", (1,), Normal())])
    assert data.modalities["a"].shape == (N, 1)


def test_descriptions_may_come_in_any_iterable():
    assert make(specs=(spec for spec in SPECS)).specs == SPECS and make(specs=list(SPECS)).specs == SPECS


@pytest.mark.parametrize("a, message", [
    (frame(sex="f"), "'a': column 'sex' holds str, not numbers: leave it out"),
    (frame(crp=["<5", "7.1"] * (N // 2)), r"column 'crp' holds str, not numbers: pandas.to_numeric\(x, errors='co"),
    (frame(crp=pd.Series([1.5, None] * (N // 2), INDEX, object)), "'crp' holds object, not numbers: pandas.to_numeric"),
    (frame(when=pd.Timestamp(2020, 1, 1)), "'a': column 'when' holds datetime64"),
    (frame(kind=pd.Categorical(["u"] * N)), "'a': column 'kind' holds category"),
    (np.array([[1, 2, 3], [4, "x", 6]] * 3, dtype=object), r"'a' holds objects \(str in column 1\): give numbers"),
    ([[1, None, 3]] * N, r"'a' holds objects \(NoneType in column 1\)"),
    (np.array([["1", "2", "3"]] * N), "'a' holds <U1: give numbers"),
    (A.astype(complex), "'a' holds complex128"),
    (A.astype("uint64"), "'a' holds uint64"),
    (5.0, "'a' holds one float: give numbers, one row per sample"),
    ([[1, 2, 3], [1, 2]], "'a' cannot be made an array .*: give every sample as many entries"),
    (np.ma.masked_equal(A, 4), "'a' is a masked array with 1 masked entries: .*missing='nan'")])
def test_what_is_no_number_is_named_in_one_line(a, message):
    with pytest.raises(UserError, match=message) as error:
        make(a)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [torch.uint16, torch.uint32])
@pytest.mark.parametrize("rows", [None, torch.arange(N)])
def test_tensors_are_widened_as_arrays_are(kind, rows):
    t = torch.from_numpy(A).to(kind)
    found = make(t if rows is None else Repeated(t, rows)).modalities["a"][:]
    assert found.dtype == make(A.astype(str(kind).partition(".")[2])).modalities["a"].dtype
    assert found.tolist() == A.tolist()
    with pytest.raises(UserError, match="'a' holds uint64"):
        make(torch.from_numpy(A).to(torch.uint64))


def test_a_widened_tensor_stays_on_its_device():
    class Elsewhere:
        index_select, dtype, device = None, torch.uint16, torch.device("meta")

        def cpu(self):
            return torch.from_numpy(A).to(torch.uint16)

    found = arrays.as_tensor(Elsewhere(), "x")
    assert found.device.type == "meta" and found.dtype == torch.int32


@pytest.mark.parametrize("cure", [lambda x: pd.get_dummies(x, dtype=float).where(x.notna()),
                                  lambda x: pd.factorize(x)[0]])
def test_the_cures_of_a_column_of_texts_keep_missing_values_missing(cure):
    x = pd.Series(["u", None, "v", "u", None, "v"], INDEX)
    with pytest.raises(UserError, match=r"get_dummies.x, dtype=float..where.x.notna.*factorize.*Categorical.ignore=-1"):
        Modality.guess("c", x.to_frame("sex"), None)
    values, chosen = cure(x), {} if len(cure(x).shape) > 1 else {"likelihood": Categorical(ignore=-1)}
    data = MultimodalData({"a": A, "c": values}, [SPECS[0], Modality.guess("c", values, None, **chosen)], ids=INDEX)
    assert data.observed[1].tolist() == x.notna().tolist()


# frames

def test_columns_are_feature_names_and_the_index_is_ids():
    data = make(frame(), b=pd.DataFrame(B, index=INDEX))
    assert data.specs[0].features == ("x", "y", "z") and data.ids == INDEX
    assert make(frame(), ids=range(N)).ids == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("index, ids", [
    (range(N), None), ([5, 4, 3, 2, 1, 0], ["5", "4", "3", "2", "1", "0"]), ([1, 1, 2, 3, 4, 5], None),
    (["u"] * N, ["u"] * N)])
def test_an_index_is_ids_where_it_is_text_or_unique(index, ids):
    assert make(pd.DataFrame(A, index=index)).ids == ids


def test_columns_in_another_order_are_refused():
    train = make(frame())
    test = make(frame(), specs=train.specs)
    assert test.specs == train.specs
    with pytest.raises(UserError, match="'a': column 0 is 'z', the description says 'x'.*order"):
        make(frame()[["z", "y", "x"]], specs=train.specs)


@pytest.mark.parametrize("changes", [{"b": pd.DataFrame(B, index=[*INDEX[:4], *INDEX[:3:-1]])},
                                     {"labels": pd.Series(range(N), index=[*INDEX[:4], *INDEX[:3:-1]])},
                                     {"observed": {"b": pd.Series(True, index=[*INDEX[:4], *INDEX[:3:-1]])}},
                                     {"trust": pd.DataFrame({"b": 1.0}, index=[*INDEX[:4], *INDEX[:3:-1]])}])
def test_rows_in_another_order_are_refused_with_the_first(changes):
    said = "row 4 of '(b|labels|observed of b|trust)' is 'cell 5', of 'a' it is 'cell 4': .*b.loc.a.index., or reindex"
    with pytest.raises(UserError, match=said):
        make(frame(), **changes)


def test_na_of_any_kind_is_nan_where_entries_may_be_missing():
    specs = (Modality("a", (3,), Normal(), missing="nan"), SPECS[1])
    a = frame(x=pd.array([1, None, 3, 4, 5, 6], "Int64"), y=[None, 2.0, 3.0, 4.0, 5.0, 6.0])
    expected = torch.tensor(A, dtype=torch.float32)
    expected[:, 0], expected[:, 1] = torch.arange(1.0, 7), torch.arange(1.0, 7)
    expected[1, 0] = expected[0, 1] = torch.nan
    for given in (a, np.ma.masked_invalid(a.to_numpy(float, na_value=np.nan))):
        assert torch.equal(make(given, specs=specs).modalities["a"].nan_to_num(-1), expected.nan_to_num(-1))


def test_rows_that_reindexing_made_are_not_observed():
    specs = (SPECS[0], Modality("b", (2,), Normal(), missing="nan"))
    b = pd.DataFrame(B, index=INDEX).drop("cell 2").reindex(INDEX)
    assert make(frame(), b, specs).observed[1].tolist() == [i != 2 for i in range(N)]


# observed

ROWS = [True, False, True, True, False, True]


@pytest.mark.parametrize("observed", [np.array([[True] * N, ROWS]), [[True] * N, ROWS], {"b": ROWS},
                                      {"b": np.array(ROWS), "a": [True] * N}, pd.DataFrame({"b": ROWS})], ids=range(5))
def test_observed_may_be_given_in_any_form(observed):
    assert make(observed=observed).observed.tolist() == [[True] * N, ROWS]


def test_a_mask_per_entry_is_stored_as_nan():
    specs = (Modality("a", (3,), Normal(), missing="nan"), SPECS[1])
    seen = np.ones((N, 3), dtype=bool)
    seen[0, 1], seen[3] = False, False
    data = make(specs=specs, observed={"a": seen})
    assert torch.equal(data.modalities["a"].isnan(), torch.tensor(~seen))
    assert data.observed.tolist() == [[i != 3 for i in range(N)], [True] * N]


@pytest.mark.parametrize("observed, message", [
    ({"c": ROWS}, "`observed` names 'c': the modalities are a, b"),
    ({"b": ROWS[:3]}, "`observed` of 'b' must be 6 bools"),
    ({"b": [1] * N}, "`observed` of 'b' must be 6 bools.*int64"),
    ({"a": np.ones((N, 3), dtype=bool)}, "`observed` of 'a' .*needs a modality with missing='nan'"),
    (np.ones((N, 2), dtype=bool), r"bool tensor of shape \(M, N\) = \(2, 6\)")])
def test_masks_that_do_not_fit_are_named(observed, message):
    with pytest.raises(UserError, match=message):
        make(observed=observed)


# labels

TEXT = ["v", "u", "v", "w", "u", "u"]
CODES = [1, 0, 1, 2, 0, 0]


@pytest.mark.parametrize("labels", [
    CODES, np.array(CODES, dtype="uint8"), np.array(CODES, dtype=float), pd.Series(CODES),
    torch.tensor(CODES, dtype=torch.int16), pd.Series(CODES, dtype="Int64")], ids=range(6))
def test_labels_are_class_numbers(labels):
    data = make(labels=labels)
    assert data.labels.dtype == torch.int64 and data.labels.tolist() == CODES and data.label_names == ()


@pytest.mark.parametrize("labels", [TEXT, np.array(TEXT), np.array(TEXT, dtype=object), pd.Series(TEXT),
                                    pd.Categorical(TEXT), pd.Series(TEXT, dtype="category")], ids=range(6))
def test_names_become_classes_and_are_kept(labels):
    data = make(labels=labels)
    assert data.labels.tolist() == CODES and data.label_names == ("u", "v", "w") and data.n_classes == 3
    few = data.subset([1, 4])
    assert few.label_names == data.label_names and few.labels.tolist() == [0, 0] and few.n_classes == 3


def test_the_names_of_the_training_data_give_the_test_data_the_same_numbers():
    train = make(labels=TEXT)
    assert make(labels=["w"] * N, label_names=train.label_names).labels.tolist() == [2] * N
    assert make(labels=pd.Categorical(["w"] * N), label_names=train.label_names).labels.tolist() == [2] * N
    with pytest.raises(UserError, match="sample 5 is none of the classes u, v, w"):
        make(labels=["w"] * 5 + ["x"], label_names=train.label_names)


def test_categories_keep_their_order_and_those_that_are_not_there():
    data = make(labels=pd.Categorical(["low", "high"] * 3, categories=["low", "middle", "high"]))
    assert data.labels.tolist() == [0, 2] * 3 and data.label_names == ("low", "middle", "high") and data.n_classes == 3


def test_columns_of_zeros_and_ones_are_labels_with_names():
    data = make(labels=pd.DataFrame({"p": [0, 1] * 3, "q": [1, np.nan] * 3}))
    assert data.labels.shape == (N, 2) and data.label_names == ("p", "q") and data.labels.dtype == torch.float32
    assert make(labels=np.eye(N, dtype="int8")).labels.dtype == torch.int8


@pytest.mark.parametrize("labels", [
    [["u"], [], ["v", "u"]] * 2, [["u", "v"], ["v", "w"]] * 3, [{"u"}, {"v"}] * 3, [("u",), ("u", "v")] * 3,
    pd.Series([["u"], ["v"]] * 3), np.array([["u", "v"]] * N)])
def test_lists_of_labels_are_to_be_a_table(labels):
    said = r"of sample 0 is a list: of several labels a sample give an \(N, C\) table of zeros and ones, as sklearn's"
    with pytest.raises(UserError, match=said):
        make(labels=labels)
    assert make(labels=[["u"], ["v"]] * 3).label_names == ("u", "v")


@pytest.mark.parametrize("labels", [np.array([[0], [1], [2], [0], [1], [2]]), pd.DataFrame({"kind": [*"uvwuvw"]}),
                                    torch.tensor([[0], [1], [2], [0], [1], [2]])], ids=type)
def test_one_column_of_classes_is_classes(labels):
    data = make(labels=labels)
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2] and data.labels.ndim == 1
    named = make(labels=labels, label_names=("w", "v", "u"))
    text = hasattr(labels, "iloc")
    assert named.label_names == ("w", "v", "u") and named.labels.tolist() == ([2, 1, 0] if text else [0, 1, 2]) * 2


@pytest.mark.parametrize("labels, message", [
    ([0, 1.5, 0, 0, 2.5, 0], r"label of sample 1 is no whole number.*factor_probes takes .* \(2 such labels\)"),
    (torch.tensor([0, 1, torch.nan, 0, 0, 0]), "label of sample 2 is no whole number"),
    (["u", "v", None, "u", "u", "u"], "label of sample 2 is no text"),
    (pd.Categorical(["u", None, "u", "u", "u", "u"]), "label of sample 1 is missing: drop the sample"),
    (np.zeros((N, 2, 2)), r"labels of shape \(6, 2, 2\)"),
    (pd.DataFrame({"p": TEXT, "q": TEXT}), "`labels`: column 'p' holds str")])
def test_labels_that_are_none_are_named(labels, message):
    with pytest.raises(UserError, match=message):
        make(labels=labels)


def test_numbers_beyond_the_names_are_refused():
    assert make(labels=CODES, label_names=("u", "v", "w")).n_classes == 3
    with pytest.raises(UserError, match="label of sample 3 is not from 0 to 1"):
        make(labels=CODES, label_names=("u", "v"))


# a data set of PyTorch

@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_walks_over_it(workers):
    data = make(frame(), labels=TEXT, observed={"b": ROWS})
    batches = list(DataLoader(data, batch_size=4, num_workers=workers))
    assert [len(batch["a"]) for batch in batches] == [4, 2]
    for name, expected in (("a", data.modalities["a"]), ("b", data.modalities["b"]), ("observed", data.observed.t()),
                           ("label", data.labels)):
        assert torch.equal(torch.cat([batch[name] for batch in batches]), expected)
    assert [name for batch in batches for name in batch["id"]] == INDEX


def test_a_sample_is_a_dictionary_of_what_there_is():
    data = make()
    assert set(data[0]) == {"a", "b", "observed"} and data[-1]["b"].tolist() == B[-1].tolist()
    assert len(list(data)) == len(data) == N
    with pytest.raises(IndexError):
        data[N]
    with pytest.raises(UserError, match=r"data\[i\] is one sample.*data.subset\(index\)"):
        data[1:3]
    with pytest.raises(UserError, match="a modality is named 'label'"):
        MultimodalData({"label": A}, [Modality("label", (3,), Normal())])[0]


def test_repeated_rows_are_samples_too():
    data = MultimodalData({"a": Repeated(torch.eye(3), torch.tensor([2, 0, 2]))}, SPECS[:1])
    assert data[0]["a"].tolist() == [0, 0, 1] and "observed" in data[0]


@pytest.mark.parametrize("m", [2, 30])
def test_it_prints_itself_in_ten_lines_without_a_value(m):
    x = {f"m{i}": A + 0.12345 for i in range(m)}
    data = MultimodalData(x, [Modality(name, (3,), Laplace(0.5), missing="nan") for name in x], ids=INDEX, labels=TEXT,
                          observed={"m1": ROWS})
    text = repr(data)
    assert len(text.splitlines()) <= 10 and max(map(len, text.splitlines())) <= 120
    for word in (f"6 samples of {m} modalities",
                 "m1: (3,) float32, Laplace(scale=0.5), 66.7% observed, entries may be NaN",
                 "3 classes, u 3, v 2, w 1"):
        assert word in text
    assert "0.123" not in text and "cell" not in text
    many = repr(make(labels=pd.DataFrame(np.eye(N, 40), columns=[f"label {i}" for i in range(40)])))
    assert "40 columns label 0, label 1" in many and max(map(len, many.splitlines())) <= 120


def test_subsets_take_masks_and_numbers_of_pandas():
    data = make(frame(), labels=TEXT)
    few = data.subset(pd.Series(TEXT) == "u")
    assert few.ids == ["cell 1", "cell 4", "cell 5"] and few.specs[0].features == ("x", "y", "z")


# the model

def model(specs=SPECS):
    torch.manual_seed(0)
    return MultimodalVAE(specs, [MLPEncoder(s.shape, 2, (4,)) for s in specs],
                         [MLPDecoder(s.shape, 2, (4,)) for s in specs], MMVM()).eval()


TENSORS = [torch.tensor(A, dtype=torch.float32), torch.tensor(B)]
ONLY_A = torch.tensor([[True], [False]]).expand(2, N)


@pytest.mark.parametrize("x", [{"a": A, "b": B}, {"b": B, "a": frame()}, [A, B], (A.tolist(), TENSORS[1]),
                               {"a": TENSORS[0], "b": TENSORS[1]}], ids=range(5))
def test_the_model_takes_what_the_data_takes(x):
    m = model()
    expected, found = m.encode(TENSORS), m.encode(x)
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.logvar, expected.logvar)


@pytest.mark.parametrize("x, observed", [({"a": A}, None), ({"a": A, "b": None}, None), ([A, B], ONLY_A.numpy()),
                                         (TENSORS, {"b": [False] * N}), ({"a": A, "b": B}, {"b": [False] * N}),
                                         ({"a": A}, torch.ones(2, N, dtype=torch.bool))], ids=range(6))
def test_what_a_dictionary_lacks_is_not_observed(x, observed):
    m = model()
    for call in (lambda *given: m.encode(*given).mean, lambda *given: m.impute(*given)["b"],
                 lambda *given: m(*given).loss):
        torch.manual_seed(1)
        expected = call(TENSORS, ONLY_A)
        torch.manual_seed(1)
        assert torch.equal(call(x, observed), expected)


def test_a_batch_of_a_data_loader_is_a_batch():
    data, m = make(labels=TEXT, observed={"b": ROWS}), model()
    batch = next(iter(DataLoader(data, batch_size=N)))
    torch.manual_seed(1)
    expected = m(TENSORS, data.observed).loss
    torch.manual_seed(1)
    assert torch.equal(m(batch).loss, expected)


def test_everything_is_given_where_nothing_is_said_and_one_name_is_one_target():
    m = model()
    torch.manual_seed(1)
    expected = m.impute(TENSORS, torch.ones(2, N, dtype=torch.bool), ["b"])
    torch.manual_seed(1)
    found = m.impute({"a": A, "b": B}, targets="b")
    assert list(found) == ["b"] and torch.equal(found["b"], expected["b"])


def test_decoding_by_name():
    m, z = model(), torch.randn(2, N, 2)
    expected = m.decode(z)
    assert all(map(torch.equal, m.decode(z.double().numpy()), expected))
    found = m.decode({"b": z[1].numpy()})
    assert list(found) == ["b"] and torch.equal(found["b"], expected[1])


def test_entries_may_be_masked_at_the_call():
    m = model((Modality("a", (3,), Normal(), missing="nan"), SPECS[1]))
    seen = torch.tensor([[True, False, True]]).expand(N, 3)
    expected = m.encode([TENSORS[0].masked_fill(~seen, torch.nan), TENSORS[1]])
    assert torch.equal(m.encode({"a": A, "b": B}, {"a": seen}).mean, expected.mean)


def test_absent_tokens_are_tokens():
    specs = (SPECS[0], Modality("t", (4,), Categorical()))
    seen = []

    class Tokens(MLPEncoder):
        def forward(self, x):
            seen.append(x.dtype)
            return super().forward(x.float())

    m = MultimodalVAE(specs, [MLPEncoder((3,), 2), Tokens((4,), 2)], [MLPDecoder((3,), 2), MLPDecoder((5, 4), 2)],
                      MMVM())
    assert m.impute({"a": A})["t"].shape == (N, 5, 4) and seen == [torch.int64]


@pytest.mark.parametrize("call, message", [
    (lambda m: m.encode({}), r"modalities \[\] given: name some of \['a', 'b'\]"),
    (lambda m: m.encode({"a": A, "c": A}), r"modalities \['a', 'c'\] given: name some of \['a', 'b'\]"),
    (lambda m: m.decode({"c": A}), r"latents of \['c'\] given: name some of"),
    (lambda m: m.encode([A]), "1 tensors for 2 modalities"),
    (lambda m: m.encode({"a": A}, ROWS), r"bool tensor of shape \(M, B\)"),
    (lambda m: m.encode({"a": A, "b": B[:3]}), r"'b' must be of shape \(6, 2\), it is \(3, 2\)"),
    (lambda m: m.encode({"a": frame(sex="f")}), "column 'sex' holds str"),
    (lambda m: m.encode({"a": frame(), "b": pd.DataFrame(B, index=INDEX[::-1])}), "row 0 of 'b' is 'cell 5'")])
def test_calls_name_mistakes(call, message):
    with pytest.raises(UserError, match=message):
        call(model())


def test_frames_with_other_columns_are_refused_by_a_model_of_named_features():
    data = make(frame())
    m = model(data.specs)
    assert torch.equal(m.encode({"a": frame(), "b": B}).mean, model().encode(TENSORS).mean)
    with pytest.raises(UserError, match="column 1 is 'w', the description says 'y'"):
        m.encode({"a": frame().rename(columns={"y": "w"})})
