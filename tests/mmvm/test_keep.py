"""`save` and `load`: what comes back is what was given, bit for bit, and nothing runs that the caller did not allow."""

import inspect
import json
import random
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import studies.cub.networks as cub
import studies.hippocampus.networks as hippocampus
import studies.mimic_cxr.networks as mimic_cxr
import studies.polymnist.networks as polymnist
from mmvm import (
    MMVM,
    Aggregated,
    Bernoulli,
    Categorical,
    Gated,
    Laplace,
    MMVAEPlus,
    Modality,
    MultimodalData,
    MultimodalVAE,
    Normal,
    Poisson,
    Schedule,
    UserError,
    fit,
    keep,
    networks,
)
from mmvm.files import read_safetensors, write_safetensors
from mmvm.objectives import spec
from mmvm.training import load_weights

D = 4
PICTURE = Modality("picture", (3, 28, 28), Laplace(), weight=0.5, scale=1 / 255)
VECTOR = Modality("vector", (5,), Normal(0.5), missing="nan", mask_input=True, features=tuple("abcde"))
COUNTS = Modality("counts", (3, 4), Poisson())
XRAYS = {size: Modality("x", (1, size, size), Laplace()) for size in (64, 128, 224)}
SPIKES, START = (3, 4), torch.linspace(-1, 1, 12).view(3, 4)


def dense(*specs):
    return [(s, networks.MLPEncoder(s.input_shape, D, (6,)), networks.MLPDecoder(s.shape, D, (6,))) for s in specs]


NETWORKS = {
    "mlp": lambda: dense(VECTOR, COUNTS, Modality("bits", (2,), Bernoulli())),
    "mlp without hidden layers": lambda: [(COUNTS, networks.MLPEncoder((3, 4), D, ()),
                                           networks.MLPDecoder((3, 4), D, ()))],
    "conv": lambda: [(PICTURE, networks.ConvEncoder(D, 2), networks.ConvDecoder(D, 2))],
    "images": lambda: [(PICTURE, networks.ImageEncoder(PICTURE.shape, D), networks.ImageDecoder(PICTURE.shape, D))],
    "tokens": lambda: [(Modality("text", (12,), Categorical(ignore=0)), networks.TokenEncoder(9, D, 0),
                        networks.TokenDecoder(9, 12, D))],
    "resnet": lambda: [(PICTURE, networks.ResNetEncoder(D, 2), networks.ResNetDecoder(D, 2))],
    "polymnist norm": lambda: [(PICTURE, polymnist.NormEncoder(D, 2), polymnist.NormDecoder(D, 2))],
    "cub": lambda: [(Modality("image", (3, 64, 64), Laplace(0.01)), cub.ImageEncoder(D, 2), cub.ImageDecoder(D, 2)),
                    (Modality("text", (32,), Categorical(ignore=0)), cub.TextEncoder(9, D, 2, 64),
                     cub.TextDecoder(9, D, 2, 64))],
    "hippocampus": lambda: [
        (Modality(name, SPIKES, likelihood), hippocampus.SpikeEncoder(SPIKES, D, **options),
         hippocampus.SpikeDecoder(SPIKES, D, options["width"], START if options["width"] else None))
        for name, likelihood, options in [("one", Normal(), dict(width=0, bottleneck=True)),
                                          ("two", Poisson(), dict(width=5, dropout=0.5, gain=0.1, start_logvar=-6.0))]],
    **{f"mimic {size}": lambda size=size: [
        (XRAYS[size], mimic_cxr.XrayEncoder(D, 1, size, 0.5), mimic_cxr.XrayDecoder(D, 1, size, 0.5))]
       for size in XRAYS}}


def model_of(parts, objective=None, beta=1.0):
    return MultimodalVAE(*zip(*parts), objective or MMVM(), beta)


def sample(model, n=6, seed=0):
    """Stored values of n samples, and a mask under which the first modality is absent now and then."""
    torch.manual_seed(seed)
    x = [torch.randint(2, (n, *m.shape)) if m.likelihood.discrete else torch.rand(n, *m.shape).round()
         for m in model.modalities]
    observed = torch.ones(len(x), n, dtype=torch.bool)
    observed[0, ::3] = len(x) == 1
    return x, observed


def outcome(model, step=3):
    """Everything that the model can be asked for, in both modes, each with the same random numbers."""
    x, observed = sample(model)
    found, was = [], {part: part.training for part in model.modules()}
    statistics = {name: value.clone() for name, value in model.state_dict().items()}
    for mode in (True, False):
        model.train(mode)
        torch.manual_seed(1)
        terms = model(x, observed, step)
        q = model.encode(x, observed)
        found += [terms.loss, terms.log_likelihood, *terms.parts.values(), q.mean, q.logvar, *model.decode(q.mean),
                  *model.impute(x, observed).values()]
    for part, training in was.items():
        part.training = training
    model.load_state_dict(statistics)  # of batches, which training mode moved
    return found


def assert_same(ours, theirs):
    """Both models are one: their parts, their weights, their outputs, bit for bit."""
    assert repr(ours) == repr(theirs) and ours.modalities == theirs.modalities and ours.beta == theirs.beta
    assert [type(part) for part in ours.modules()] == [type(part) for part in theirs.modules()]
    assert [part.training for part in ours.modules()] == [part.training for part in theirs.modules()]
    assert ours.settled_at == theirs.settled_at and ours.objective.text == theirs.objective.text
    for kind in ("named_parameters", "named_buffers"):
        one, other = (list(getattr(model, kind)()) for model in (ours, theirs))
        assert [name for name, _ in one] == [name for name, _ in other]
        for (_, a), (_, b) in zip(one, other):
            assert a.dtype == b.dtype and a.requires_grad == b.requires_grad and a.stride() == b.stride()
            assert type(a) is type(b) and torch.equal(a, b)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for a, b in zip(outcome(ours), outcome(theirs), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def returned(model, path, allow=()):
    """What comes back of a model; random numbers and the model's own mode are left alone on the way."""
    state = torch.get_rng_state()
    model.save(path)
    back = MultimodalVAE.load(path, allow)
    assert torch.equal(state, torch.get_rng_state())
    return back


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# equal before and after ----------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_every_studys_networks_come_back(name, training, path):
    model = model_of(NETWORKS[name]()).train()
    for seed in range(2):  # statistics of batch normalisation that are not those of the start
        model(*sample(model, seed=seed))
    assert_same(model.train(training), returned(model, path))


def test_no_network_is_forgotten():
    known = {type(network) for build in NETWORKS.values() for part in build() for network in part[1:]}
    for module in (polymnist, cub, hippocampus, mimic_cxr, networks):
        there = {kind for name, kind in inspect.getmembers(module, inspect.isclass)
                 if name.endswith(("Encoder", "Decoder"))}
        assert there and there <= known


def texts():
    found = [text for text in spec.appearances()]
    for name, method in spec.METHODS.items():
        for option in method.options:
            values = [value for value in option.choices if value != option.default] if option.choices else [
                {bool: str(not option.default).lower(), int: "1", float: "0.5", str: "5+3+2"}[option.type]]
            found += [f"{name}:{option.name}={value}" for value in values]
    return list(dict.fromkeys(found))


def built(text):
    try:
        return spec.build(text, D, 3)
    except UserError as error:  # options that need another one beside them
        for more in ("gate=gumbel", "kl=mixture", "bhattacharyya=joint"):
            if more.split("=")[1] in str(error) or more.split("=")[0] in str(error):
                return spec.build(f"{text},{more}", D, 3)
        raise


@pytest.mark.slow
@pytest.mark.parametrize("text", texts())
def test_every_method_and_option_comes_back(text, path):
    model = model_of(NETWORKS["mlp"](), built(text))
    assert_same(model, returned(model, path))


OBJECTIVES = {
    "weights": lambda: MMVM(weights=[0.5, 0.2, 0.3], bound="monte_carlo"),
    "alpha falls": lambda: MMVM(standard_normal_weight=Schedule(1.0, 0.0, 100)),
    "gumbel": lambda: MMVM(weights=Gated(D, "gumbel", Schedule(1.0, 0.1, 10, "linear"), 1.0, hidden=5, detach=False)),
    "kind": lambda: Aggregated("poe", prior_expert="always", unimodal_elbos=True),
    "dreg": lambda: MMVAEPlus(3, 2, n_samples=3, estimator="dreg", learn_private_mean=True)}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_made_in_python_come_back(name, path):
    model = model_of(NETWORKS["mlp"](), OBJECTIVES[name](), Schedule(0.0, 2.0, 50, "linear"))
    assert_same(model, returned(model, path))


def test_training_goes_on_alike(path):
    model = model_of(NETWORKS["mlp"](), spec.build("mmvm:gate=soft", D, 3))
    x, _ = sample(model, 40)
    data = MultimodalData({m.name: values for m, values in zip(model.modalities, x)}, model.modalities)
    fit(model, data, epochs=1, batch_size=10, learning_rate=1e-2, check="off")
    back = returned(model, path)
    for one in (model, back):
        fit(one, data, epochs=2, batch_size=10, learning_rate=1e-2, check="off")
    assert_same(model, back)


def test_a_model_of_standardised_values_is_kept_after_its_training(path):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
    data = MultimodalData({"a": x, "b": x[:, :2]}, [Modality.guess(name, values, None) for name, values in
                                                    (("a", x), ("b", x[:, :2]))])
    model = MultimodalVAE.for_data(data, 2, say=None)
    fit(model, data, epochs=1, batch_size=20, learning_rate=1e-3, seed=0)
    model.save(path)
    again = MultimodalVAE.load(path)
    assert again.modalities == model.modalities and again.modalities[0].spread
    assert torch.equal(again.encode({"a": x}).mean, model.encode({"a": x}).mean)


def test_how_an_update_is_computed_is_kept(path):
    """The layout of the weights and the grouping of the networks: both change how sums are rounded."""
    specs = [Modality("a", (3, 28, 28), Laplace()), Modality("b", (3, 28, 28), Laplace())]
    model = model_of([(m, networks.ConvEncoder(D, 2), networks.ConvDecoder(D, 2)) for m in specs])
    model.to(memory_format=torch.channels_last).grouped = True
    assert not model.encoders[0].trunk[2].weight.is_contiguous()
    back = returned(model, path)
    assert_same(model, back)
    assert back.grouped


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_of_the_weights_is_kept(dtype, path):
    model = model_of(NETWORKS["polymnist norm"]()).to(dtype)
    back = returned(model, path)
    for (name, a), (_, b) in zip(model.state_dict().items(), back.state_dict().items(), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b), name
    x = torch.rand(2, 3, 28, 28, dtype=dtype)
    for a, b in zip(model.encoders[0](x), back.encoders[0](x)):
        assert torch.equal(a, b)


def test_half_the_bytes_give_weights_rounded_to_bfloat16(path):
    model = model_of(NETWORKS["conv"]())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    model.save(path)
    whole = path.stat().st_size
    model.save(path, half=True)
    numbers = sum(x.numel() for x in model.parameters())
    assert 1.5 * numbers < whole - path.stat().st_size <= 2 * numbers, "two bytes less for each, and a list of names"
    loaded = MultimodalVAE.load(path).state_dict()
    learned = dict(model.named_parameters())
    for name, x in weights.items():
        assert torch.equal(model.state_dict()[name], x), "the model that is saved stays as it is"
        assert loaded[name].dtype == x.dtype
        assert torch.equal(loaded[name], x.bfloat16().float() if name in learned else x)
    assert any(not torch.equal(loaded[name], x) for name, x in learned.items())


def test_of_other_weights_none_is_rounded(path):
    model = model_of(NETWORKS["mlp"]()).double()
    model.save(path, half=True)
    loaded = MultimodalVAE.load(path).state_dict()
    assert all(torch.equal(loaded[name], x) for name, x in model.state_dict().items())


@pytest.mark.parametrize("names", ['["nowhere"]', '{"a": 1}', "3", "[[]]", "{"])
def test_a_damaged_list_of_rounded_weights_is_one_line(names, path):
    model_of(NETWORKS["mlp"]()).save(path, half=True)
    tensors, metadata = read_safetensors(path, keep.FORMAT, "model", "a test")
    write_safetensors(path, tensors, {**metadata, "rounded": names})
    with pytest.raises(UserError, match="cannot be rebuilt|gives other outputs"):
        MultimodalVAE.load(path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu_comes_back_on_the_cpu(path):
    model = model_of(NETWORKS["mlp"]()).cuda()
    state = torch.cuda.get_rng_state()
    back = returned(model, path)
    assert torch.equal(state, torch.cuda.get_rng_state()) and next(back.parameters()).device.type == "cpu"
    assert_same(model.cpu(), back)


# layers of torch, and classes of others ------------------------------------------------------------------------------

@dataclass
class Settings:
    """What a network may hold besides numbers."""

    width: int
    names: tuple[str, ...] = ("a", "b")


class Everything(nn.Module):
    """An encoder of vectors with all kinds of layers and attributes that are kept, and none of its own recipe."""

    def __init__(self):
        super().__init__()
        self.settings = Settings(8)
        self.table = {("a", 1): [0.5, None], "inf": float("inf"), "nan": float("nan"), "numpy": np.float32(0.1)}
        self.activation, self.kind = F.gelu, nn.Tanh
        self.offset = torch.tensor([0.25])  # neither parameter nor buffer
        self.register_buffer("saved", torch.arange(8.0))
        self.register_buffer("unsaved", torch.arange(8.0), persistent=False)
        self.register_buffer("nothing", None)
        self.embed = nn.Linear(10, 8)
        self.recurrent = nn.GRU(8, 4, num_layers=2, bidirectional=True, batch_first=True)
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation=F.relu, batch_first=True)
        self.attention = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.mixed = nn.ModuleDict({"norm": nn.GroupNorm(2, 8), "drop": nn.Dropout(0.3)})
        self.extra = nn.ParameterList([nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8), requires_grad=False)])
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.again = self.first
        self.heads = [nn.Linear(8, 4)]
        self.add_module("head", self.heads[0])
        self.logvar = nn.Linear(8, 4)
        self.frozen = nn.Linear(8, 8).requires_grad_(False).eval()

    def forward(self, x):
        h = self.activation(self.embed(x)) + self.saved + self.unsaved + self.offset + self.extra[0] + self.extra[1]
        h = self.recurrent(h[:, None])[0]
        h = self.mixed["drop"](self.mixed["norm"](self.attention(h)[:, 0]))
        h = self.again(self.kind()(self.second(self.first(h)))) + self.frozen(h) + self.table["a", 1][0]
        return self.heads[0](h[:, :self.settings.width]), self.logvar(h)


def test_all_kinds_of_layers_and_attributes_are_kept(path):
    model = model_of([(VECTOR, Everything(), networks.MLPDecoder((5,), D, (6,)))])
    back = returned(model, path, allow=(Everything, Settings))
    assert_same(model, back)
    encoder = back.encoders[0]
    assert encoder.first.weight is encoder.second.weight and encoder.again is encoder.first
    assert encoder.heads[0] is encoder.head and encoder.settings == Settings(8)
    assert not encoder.frozen.training and encoder.training
    assert "encoders.0.unsaved" not in back.state_dict()


class Half(nn.Module):
    """Reads what no attribute of the instance says."""

    factor = 1.0

    def __init__(self):
        super().__init__()
        self.inner = networks.MLPEncoder((5,), D, (6,))

    def forward(self, x):
        return tuple(REGISTRY.get(id(self), 1.0) * part for part in self.inner(x))


REGISTRY = {}


class Asks(nn.Module):
    """Has one more attribute, which is given."""

    def __init__(self, value=None):
        super().__init__()
        self.inner, self.value = networks.MLPEncoder((5,), D, (6,)), value

    def forward(self, x):
        return self.inner(x)


def local():
    class Local(Asks):
        pass
    return Local()


def hooked():
    made = Asks()
    made.register_forward_hook(lambda *_: None)
    return made


def elsewhere():
    made = Half()
    REGISTRY[id(made)] = 2.0
    return made


@pytest.mark.parametrize("build, words", [
    (local, "define it at the top of a module"), (hooked, "has forward hooks"),
    (elsewhere, "other attributes or outputs"),
    (lambda: Asks(lambda x: x), "define it at the top of a module"), (lambda: Asks({1, 2}), "value is a set"),
    (lambda: Asks([torch.Generator()]), r"value\[0\] is a Generator"),
    (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), "does not run|define it at the top"),
    (lambda: Asks(nn.utils.parametrizations.weight_norm(nn.Linear(5, 4))), "define it at the top of a module"),
    (lambda: Asks(nn.LazyLinear(3)), "forward pre hooks.*call a lazy layer once"),
    (lambda: Asks(torch.zeros(3, device="meta")), "without plain values"),
    (lambda: networks.MLPEncoder((6,), D, (6,)), "does not run.*cannot be multiplied")])
def test_what_cannot_be_kept_is_one_line_and_no_file(build, words, path):
    model = model_of([(Modality("vector", (5,), Normal()), build(), networks.MLPDecoder((5,), D, (6,)))])
    with pytest.raises(UserError, match=words) as caught:
        model.save(path)
    assert "\n" not in str(caught.value) and not path.exists()


# classes are imported only if the caller says so ---------------------------------------------------------------------

LAB = """
    from pathlib import Path
    import torch
    from torch import nn
    (Path(__file__).parent / "imported").write_text("")

    class Encoder(nn.Module):
        def __init__(self, n, d):
            super().__init__()
            self.trunk = nn.Linear(n, 8)
            self.mean, self.logvar = nn.Linear(8, d), nn.Linear(8, d)

        def forward(self, x):
            h = torch.relu(self.trunk(x))
            return self.mean(h), self.logvar(h)
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A file of a lab's own, and a model with a class of it that was saved; the class is not imported any more."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "lab_networks.py").write_text(textwrap.dedent(LAB))
    import lab_networks
    model = model_of([(Modality("v", (5,), Normal()), lab_networks.Encoder(5, D), networks.MLPDecoder((5,), D, (6,)))])
    model.save(tmp_path / "model.safetensors")
    del sys.modules["lab_networks"]
    (tmp_path / "imported").unlink()
    yield model, tmp_path
    sys.modules.pop("lab_networks", None)


def test_a_foreign_class_is_imported_only_if_it_is_allowed(lab):
    model, folder = lab
    for allow in ((), ("lab",), ("lab_networks:Decoder",), (networks.MLPEncoder,), json):
        with pytest.raises(UserError, match=r"wants to import Encoder from lab_networks.*allow=\('lab_networks',\)"):
            MultimodalVAE.load(folder / "model.safetensors", allow)
        assert not (folder / "imported").exists() and "lab_networks" not in sys.modules
    for allow in ("lab_networks", ["lab_networks"], "lab_networks:Encoder", "lab_networks.Encoder"):
        back = MultimodalVAE.load(folder / "model.safetensors", allow)
        assert all(torch.equal(a, b) for a, b in zip(outcome(model), outcome(back)))
    assert (folder / "imported").exists()
    for allow in (sys.modules["lab_networks"], type(back.encoders[0]), [type(back.encoders[0])]):
        assert type(MultimodalVAE.load(folder / "model.safetensors", allow).encoders[0]) is type(back.encoders[0])


def test_an_installed_studys_package_is_trusted(lab, monkeypatch):
    model, folder = lab
    points = [EntryPoint("lab", "lab_networks:Study", "mmvm.studies")]
    monkeypatch.setattr(keep, "entry_points", lambda group: points if group == "mmvm.studies" else [])
    back = MultimodalVAE.load(folder / "model.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(outcome(model), outcome(back)))


@pytest.mark.parametrize("old, new, words", [
    (None, None, "needs a class that is not here"),
    ("class Encoder", "class Renamed", "needs a class that is not here.*AttributeError"),
    ("import torch\n", "import torch_of_tomorrow\n", "needs a class that is not here.*torch_of_tomorrow"),
    ("self.trunk(x)", "self.trunk(x[:, :4])", "cannot be rebuilt.*use the classes and the versions .*torch: "),
    ("self.trunk(x)", "self.stem(x)", "cannot be rebuilt.*no attribute 'stem'"),
    ("self.mean(h), self.logvar(h)", "self.mean(h)[:, :3], self.logvar(h)[:, :3]", "cannot be rebuilt"),
    ("torch.relu", "torch.nn.functional.gelu", "gives other outputs than when it was saved"),
    ("nn.Module", "dict", "cannot be rebuilt.*is no torch.nn.Module")])
def test_a_class_that_is_missing_or_has_changed_is_one_line(lab, old, new, words):
    _, folder = lab
    if old is None:
        (folder / "lab_networks.py").unlink()
    else:
        text = textwrap.dedent(LAB)
        assert old in text
        (folder / "lab_networks.py").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=words) as caught:
        MultimodalVAE.load(folder / "model.safetensors", "lab_networks")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_class_of_a_script_is_given_itself(tmp_path):
    """A notebook's classes are in no file: who loads the model names the class that he has."""
    script = textwrap.dedent(LAB).replace("Path(__file__).parent", "Path('.')") + textwrap.dedent("""
        from mmvm import MMVM, Modality, MultimodalVAE, Normal, UserError
        from mmvm.networks import MLPDecoder
        model = MultimodalVAE([Modality("v", (5,), Normal())], [Encoder(5, 4)], [MLPDecoder((5,), 4)], MMVM())
        model.save("x.safetensors")
        assert type(MultimodalVAE.load("x.safetensors", Encoder).encoders[0]) is Encoder
        try:
            MultimodalVAE.load("x.safetensors")
        except UserError as error:
            print(error)
    """)
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "wants to import Encoder from __main__" in done.stdout


# files that are not as `save` wrote them -----------------------------------------------------------------------------

@pytest.fixture
def kept(path):
    model_of(NETWORKS["mlp"](), spec.build("mmvm:gate=soft", D, 3)).save(path)
    tensors, metadata = read_safetensors(path, keep.FORMAT, "kept model", "a test")
    return path, tensors, metadata


def replaced(kept, change):
    """The file with another recipe, and the digest that belongs to it."""
    path, tensors, metadata = kept
    recipe = json.loads(metadata["recipe"])
    change(recipe["model"])
    write_safetensors(path, tensors, {**metadata, "recipe": json.dumps(recipe)})
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["os:system", "mmvm.files:os.system", "mmvm.files:subprocess.run", "builtins:eval",
                                  "mmvmevil:Module", "torch.nn.functional:torch.hub.load", "torch:load",
                                  "torch.nn.modules.linear:torch.hub.load", "mmvm.files:write_text", "mmvm:keep",
                                  "mmvm.networks:MLPEncoder.forward", "studies.absent:A", ":", "a", "mmvm:", "..:x"])
def test_nothing_but_classes_of_ours_is_reached(kept, name, monkeypatch):
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("called"))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("called"))
    for change in (lambda model: model.update(module=name),
                   lambda model: model["layers"]["objective"].update(module=name),
                   lambda model: model["attributes"].update(beta={"made": name, "with": {}}),
                   lambda model: model["attributes"].update(forward={"named": name})):
        with pytest.raises(UserError) as caught:
            MultimodalVAE.load(replaced(kept, change))
        assert "\n" not in str(caught.value)


def places(x, found):
    """Every (container, key) of a recipe."""
    for key, part in x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ():
        found.append((x, key))
        places(part, found)
    return found


@pytest.mark.slow
def test_damaged_recipes_are_one_line_or_a_model(kept):
    """The digest stops what a disk does to a file; a digest that was made to fit leaves this."""
    draw = random.Random(0)
    refused = 0
    for _ in range(150):
        def damage(model):
            some = places(model, [])
            where, key = draw.choice(some)
            other, place = draw.choice(some)
            where[key] = draw.choice([None, -1, 10**30, "x", [], {}, {"tensor": "absent"}, {"same": "absent"},
                                      {"tuple": 3}, json.loads(json.dumps(other[place]))])
        try:
            MultimodalVAE.load(replaced(kept, damage))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 2_000
    assert refused > 75


def test_other_files_are_one_line(kept, tmp_path):
    path, tensors, metadata = kept
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-1], whole + b"x", whole.replace(b"MLPEncoder", b"MLPDecoder"),
                    b"PK\3\4" * 9):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read|was changed") as caught:
            MultimodalVAE.load(path)
        assert "\n" not in str(caught.value)
    for change, words in [(lambda model: model["attributes"].update(_modules=[1]), "attribute '_modules'"),
                          (lambda model: model["attributes"]["modalities"]["tuple"][1]["with"].update(
                              shape={"tuple": [10**12]}), "samples of 1000000000000 numbers")]:
        with pytest.raises(UserError, match=f"cannot be rebuilt.*{words}.*versions that .*torch: "):
            MultimodalVAE.load(replaced(kept, change))
    write_safetensors(path, tensors, {"format": metadata["format"], "recipe": "{"})
    with pytest.raises(UserError, match="cannot be rebuilt.*which it does not say"):
        MultimodalVAE.load(path)
    with pytest.raises(UserError, match="there is no kept model.*model.save"):
        MultimodalVAE.load(tmp_path / "absent")
    write_safetensors(path, tensors, {**metadata, "format": "mmvm-model-2"})
    with pytest.raises(UserError, match="its format is 'mmvm-model-2', expected 'mmvm-model-1'"):
        MultimodalVAE.load(path)
    for absent in ("encoders.0.mean.weight", "encoders.0.mean.bias"):
        write_safetensors(path, {name: x for name, x in tensors.items() if name != f"model.{absent}"}, metadata)
        with pytest.raises(UserError, match="cannot be rebuilt.*KeyError"):
            MultimodalVAE.load(path)
    write_safetensors(path, {**tensors, "model.encoders.0.mean.weight": torch.zeros(D, 7)}, metadata)
    with pytest.raises(UserError, match="cannot be rebuilt.*shapes"):
        MultimodalVAE.load(path)


class Smaller(MultimodalVAE):
    """A class of one's own around the same parts."""


def test_a_checkpoint_is_no_kept_model_and_the_other_way_round(kept, tmp_path):
    path, _, _ = kept
    model = MultimodalVAE.load(path)
    with pytest.raises(UserError, match="is no checkpoint of this program.*mmvm-model-1"):
        load_weights(model, path)
    with pytest.raises(UserError, match="holds a MultimodalVAE, no Smaller"):
        Smaller.load(path)
    Smaller(model.modalities, model.encoders, model.decoders, model.objective).save(path)
    assert type(MultimodalVAE.load(path, Smaller)) is type(Smaller.load(path, Smaller)) is Smaller
    x, _ = sample(model, 8)
    data = MultimodalData({m.name: values for m, values in zip(model.modalities, x)}, model.modalities)
    fit(model, data, epochs=1, batch_size=4, learning_rate=1e-3, check="off", out=tmp_path / "run")
    with pytest.raises(UserError, match="is no kept model.*mmvm-checkpoint"):
        MultimodalVAE.load(tmp_path / "run" / "checkpoint.safetensors")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    model = model_of(NETWORKS["mlp"]())
    for place in (tmp_path / "absent" / "x", tmp_path):
        with pytest.raises(UserError, match="cannot be written"):
            model.save(place)


def test_the_same_model_is_the_same_file_without_pickle(tmp_path, monkeypatch):
    for name in ("load", "loads", "dump", "dumps", "Unpickler", "Pickler"):
        monkeypatch.setattr(f"pickle.{name}", lambda *_, **__: pytest.fail("pickle"))
    model = model_of(NETWORKS["cub"]())
    model.save(tmp_path / "a")
    MultimodalVAE.load(tmp_path / "a").save(tmp_path / "b")
    one, other = (read_safetensors(tmp_path / name, keep.FORMAT, "", "") for name in "ab")
    assert one[1] == other[1] and one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert str(tmp_path) not in json.dumps(one[1])
