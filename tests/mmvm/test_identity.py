"""What a run belongs to: every change of the data has another fingerprint, every change of the model another name."""

import numpy as np
import pytest
import torch
from torch import nn

from mmvm import identity
from mmvm.data import Modality, MultimodalData, Repeated
from mmvm.identity import architecture, differences, fingerprint
from mmvm.likelihoods import Laplace, Normal
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM, Gated, Objective, Schedule

N = 12
SPECS = (Modality("a", (3,), Normal()), Modality("b", (2,), Normal()))


def make(**changes):
    given = {"modalities": {"a": torch.arange(3.0 * N).view(N, 3), "b": torch.arange(2 * N).view(N, 2)},
             "labels": torch.arange(N) % 2, "observed": torch.ones(2, N, dtype=torch.bool), "specs": SPECS}
    return MultimodalData(**{**given, **changes})


def changed(part, index, value):
    """`make()` with one entry of one array changed."""
    data = make()
    array = data.modalities[part] if part in data.modalities else getattr(data, part)
    array[index] = value
    return data


OTHERS = {
    "one value": lambda: changed("a", (3, 1), 0.5), "one label": lambda: changed("labels", 0, 1),
    "one absent": lambda: changed("observed", (1, 4), False), "no labels": lambda: make(labels=None),
    "order": lambda: make().subset(torch.arange(N).flip(0)), "fewer": lambda: make().subset(slice(0, N - 1)),
    "type": lambda: make(modalities={**make().modalities, "b": make().modalities["b"].int()}),
    "names": lambda: make(modalities=dict(zip("ac", make().modalities.values())),
                          specs=(SPECS[0], Modality("c", (2,), Normal()))),
    "rows": lambda: make(modalities={**make().modalities, "a": Repeated(make().modalities["a"],
                                                                        torch.arange(N).roll(1))}),
    "shape": lambda: make(modalities={**make().modalities, "b": make().modalities["b"].view(N, 2, 1)},
                          specs=(SPECS[0], Modality("b", (2, 1), Normal()))),
}


def test_equal_data_has_one_fingerprint_wherever_it_comes_from():
    first = fingerprint(make())
    wide = torch.arange(3.0 * N).view(N, 3).t().contiguous().t()
    assert not wide.is_contiguous()
    assert len(first) == 64 and first == fingerprint(make()) == fingerprint(make().subset(slice(None)))
    assert first == fingerprint(make(modalities={"a": wide, "b": make().modalities["b"]}))


@pytest.mark.parametrize("name", OTHERS)
def test_other_data_has_another_fingerprint(name):
    found = [fingerprint(make()), *(fingerprint(other()) for other in OTHERS.values())]
    assert found.count(fingerprint(OTHERS[name]())) == 1


def mapped(folder, arrays, monkeypatch=None):
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return MultimodalData.from_files({name: folder / f"{name}.npy" for name in arrays}, SPECS)


def test_files_are_the_same_data_in_another_folder_and_in_memory(tmp_path):
    arrays = {name: x.numpy() for name, x in make().modalities.items()}
    found = {fingerprint(mapped(tmp_path / place, arrays)) for place in ("here", "there")}
    assert found == {fingerprint(make(labels=None))}


def test_of_large_files_shape_and_sampled_rows_count(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "WHOLE", 10)
    monkeypatch.setattr(identity, "SAMPLED", 5)
    arrays = {name: x.numpy() for name, x in make().modalities.items()}
    first = fingerprint(mapped(tmp_path / "first", arrays))
    assert first == fingerprint(mapped(tmp_path / "copy", arrays))
    for name, row, seen in (("start", 0, True), ("end", N - 1, True), ("between", 1, False)):
        other = {**arrays, "a": arrays["a"].copy()}
        other["a"][row] = -1
        assert (fingerprint(mapped(tmp_path / name, other)) != first) == seen


# the model

def model(objective=None, beta=1.0, specs=SPECS, width=4, activation=None):
    encoders = [MLPEncoder(spec.shape, 2, (width,)) for spec in specs]
    if activation is not None:
        encoders[0].trunk[1] = activation
    return MultimodalVAE(specs, encoders, [MLPDecoder(spec.shape, 2, (width,)) for spec in specs],
                         objective or MMVM(), beta)


def other_spec(**changes):
    given = {"name": "a", "shape": (3,), "likelihood": Normal(), **changes}
    return model(specs=(Modality(**given), SPECS[1]))


class Own(Objective):
    def __init__(self, strength=1.0, function=print):
        super().__init__()
        self.strength, self.function, self._calls = strength, function, object()


@pytest.mark.parametrize("other, said", [
    (lambda: model(beta=1000), ["beta (there 1.0, here 1000)"]),
    (lambda: model(beta=Schedule(0.0, 1.0, 5, "linear")),
     ["beta (there 1.0, here \"Schedule(start=0.0, end=1.0, steps=5, form='linear')\")"]),
    (lambda: model(MMVM("monte_carlo", standard_normal_weight=0.5)),
     ["objective's bound (there 'pairwise', here 'monte_carlo')",
      "objective's standard_normal_weight (there 0.0, here 0.5)"]),
    (lambda: model(MMVM(weights=[1.0, 3.0])), ["objective's weights (there None, here [1.0, 3.0])"]),
    (lambda: other_spec(weight=2.0), ["a's weight (there 1.0, here 2.0)"]),
    (lambda: other_spec(scale=0.5), ["a's scale (there 1.0, here 0.5)"]),
    (lambda: other_spec(likelihood=Laplace(0.5)), ["a's likelihood (there 'Normal(scale=1.0)', here "
                                                   "'Laplace(scale=0.5)')"]),
    (lambda: model(activation=nn.Tanh()), ["layer encoders.0.trunk.1 (there 'ReLU', here 'Tanh')"]),
    (lambda: model(specs=SPECS[::-1]), ["modalities (there ['a', 'b'], here ['b', 'a'])"]),
])
def test_what_differs_between_models_is_named(other, said):
    found = [text for name, text in differences(architecture(model()), architecture(other())).items()
             if not name.startswith("weights of ")]
    assert found == said


def test_options_of_a_layer_count_and_its_own_state_does_not():
    """A dropout's share changes what is trained and no weight's shape."""
    class Counting(nn.ReLU):
        calls = 0

    def found(share, calls=0):
        own = model()
        own.encoders[0].trunk.append(nn.Dropout(share))
        own.encoders[0].trunk.append(Counting())
        own.encoders[0].trunk[-1].calls = calls
        return architecture(own)
    assert list(differences(found(0.1), found(0.2, 1)).values()) == [
        "layer encoders.0.trunk.2 (there 'Dropout(p=0.1)', here 'Dropout(p=0.2)')"]
    assert found(0.1) == found(0.1, 1)


def test_weights_are_named_with_their_shapes():
    found = differences(architecture(model()), architecture(model(width=5)))
    assert found["weights of encoders.1.trunk.0.weight"] == \
        "weights of encoders.1.trunk.0.weight (there [4, 2], here [5, 2])"
    assert all(name.startswith("weights of ") for name in found)


def test_the_values_of_weights_do_not_count():
    assert architecture(model()) == architecture(model())


def test_an_objective_of_the_users_is_its_class_and_its_plain_options():
    found = architecture(model(Own(2.0)))
    assert found["objective"] == "Own" and found["objective's strength"] == 2.0
    assert found == architecture(model(Own(2.0, function=len)))
    assert differences(found, architecture(model(Own(3.0)))) == {
        "objective's strength": "objective's strength (there 2.0, here 3.0)"}


def test_options_of_a_gate_are_the_objectives():
    found = differences(architecture(model(MMVM(weights=Gated(2)))),
                        architecture(model(MMVM(weights=Gated(2, "hard", load_balance=1.0)))))
    assert list(found) == ["objective's gate load_balance", "objective's gate mode"]


def test_a_long_value_is_cut():
    said = differences({"x": "a" * 10_000}, {"x": 1})["x"]
    assert said.startswith("x (there 'aaa") and said.endswith("..., here 1)") and len(said) < 130
