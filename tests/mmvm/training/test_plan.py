"""Plans: the same numbers however they are computed, chosen by measurement, remembered by the checkpoint."""

import copy
import platform
import re
import resource
import warnings

import numpy as np
import pytest
import torch
from conftest import SEED

from mmvm import (
    MMVM,
    Batch,
    DiagonalGaussian,
    Laplace,
    Modality,
    MultimodalData,
    MultimodalVAE,
    Normal,
    UserError,
    fit,
    training,
)
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.networks.grouped import can_group, forward_grouped
from mmvm.objectives import METHODS, mixture_kl_pairwise
from mmvm.training import batches, loop, plan as speed
from mmvm.training.batches import prefetched
from mmvm.training.plan import Plan
from mmvm.training.run import TrainingWarning
from studies.polymnist.networks import NETWORKS
from studies.polymnist.study import PolyMNIST

M, B, D = 3, 6, 4
SHAPE = (3, 28, 28)
# not the Laplace: its gradient is a sign, which rounding can turn over
SPECS = tuple(Modality(f"m{m}", SHAPE, Normal(0.75), scale=1 / 255) for m in range(M))
PLANS = ["channels_last", "grouped", "keep_memory", "threads:1", "channels_last+grouped+keep_memory+threads:1"]


def pictures(n: int = B) -> MultimodalData:
    generator = torch.Generator().manual_seed(5)
    x = {spec.name: torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=generator) for spec in SPECS}
    return MultimodalData(x, SPECS)


def model_of(objective=None, network: str = "conv", channels: int = 4) -> MultimodalVAE:
    torch.manual_seed(0)
    encoder, decoder = NETWORKS[network]
    return MultimodalVAE(SPECS, [encoder(D, channels) for _ in SPECS], [decoder(D, channels) for _ in SPECS],
                         objective or MMVM(), 0.5)


def loss_and_gradients(model, plan: str, precision: str = "float32", observed=None):
    torch.manual_seed(1)
    with Plan.parse(plan).applied(model), speed.autocast(precision, torch.device("cpu")):
        loss = model(pictures().batch(torch.arange(B)).x, observed).loss.mean()
    model.zero_grad(set_to_none=True)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def relative(a, b) -> float:
    return float((a - b).norm() / b.norm())


# the same numbers

@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_plan_gives_the_plain_loss_and_gradients(plan, network):
    if network == "norm" and "grouped" in plan:
        pytest.skip("batch normalisation cannot be grouped")
    loss, gradients = loss_and_gradients(model_of(network=network), "plain")
    other, others = loss_and_gradients(model_of(network=network), plan)
    assert other == pytest.approx(loss, rel=1e-5) and relative(others, gradients) < 1e-5


@pytest.mark.parametrize("objective", METHODS)
def test_every_objective_agrees_with_the_plain_loop(objective):
    p = PolyMNIST(objective=objective, latent_dim=D, n_modalities=M)
    observed = torch.tensor([[True, True, False, True, True, False]] * 2 + [[True] * B])
    built = p.build_objective()  # once: some have weights of their own
    for mask in (None, observed):
        loss, gradients = loss_and_gradients(model_of(copy.deepcopy(built)), "plain", observed=mask)
        other, others = loss_and_gradients(model_of(copy.deepcopy(built)), PLANS[-1], observed=mask)
        assert other == pytest.approx(loss, rel=1e-5) and relative(others, gradients) < 1e-5


@pytest.mark.parametrize("plan", ["plain", "channels_last", "grouped", "float32:conv",
                                  "channels_last+float32:conv_transpose+float32:linear"])
def test_bfloat16_differs_by_its_rounding(plan):
    """bfloat16 has 8 bits: 0.4 % an operation. The loss, summed in float32, is far closer than a gradient."""
    loss, gradients = loss_and_gradients(model_of(), "plain")
    other, others = loss_and_gradients(model_of(), plan, "bfloat16")
    assert other == pytest.approx(loss, rel=1e-3) and 0 < relative(others, gradients) < 0.05


def test_layers_kept_in_float32_are():
    seen = {}
    model = model_of()
    for kind, layers in speed.KINDS.items():
        for layer in model.modules():
            if isinstance(layer, layers):
                layer.register_forward_hook(lambda *call, kind=kind: seen.update({kind: call[-1].dtype}))
    loss_and_gradients(model, "float32:conv_transpose", "bfloat16")
    assert seen == {"conv": torch.bfloat16, "conv_transpose": torch.float32, "linear": torch.bfloat16}


def test_without_a_mask_nothing_is_missing():
    a = loss_and_gradients(model_of(), "plain")
    b = loss_and_gradients(model_of(), "plain", observed=torch.ones(M, B, dtype=torch.bool))
    assert a[0] == b[0] and torch.equal(a[1], b[1])


@pytest.mark.parametrize("m", [1, 2, 7])
def test_the_bound_in_linear_time_is_the_double_loop(m):
    torch.manual_seed(m)
    q = DiagonalGaussian(3 * torch.randn(m, B, D, dtype=torch.double), torch.randn(m, B, D, dtype=torch.double))
    weights = torch.rand(m, B, dtype=torch.double)
    weights = weights / weights.sum(0)
    pairs = q.pairwise_kl()
    expected = torch.stack([sum(weights[n] * pairs[k, n] for n in range(m)) for k in range(m)])
    torch.testing.assert_close(q.mean_kl(weights), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mixture_kl_pairwise(q, weights.log()), expected, rtol=1e-12, atol=1e-12)


def test_the_bounds_gradient_is_the_double_loops():
    torch.manual_seed(3)
    inputs = [(3 * torch.randn(3, 2, D)).double().requires_grad_(), torch.randn(3, 2, D).double().requires_grad_(),
              torch.rand(3, 2).double().requires_grad_()]

    def values(kind):
        q, weights = DiagonalGaussian(*inputs[:2]), inputs[2].softmax(0)
        kl = q.mean_kl(weights) if kind == "sums" else (q.pairwise_kl() * weights).sum(1)
        return torch.autograd.grad((kl * torch.tensor([[1.0, 0.0], [2.0, 1.0], [-1.0, 0.5]])).sum(), inputs)
    for found, expected in zip(values("sums"), values("pairs")):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradcheck(lambda m, v, w: DiagonalGaussian(m, v).mean_kl(w.softmax(0)), inputs)


def test_the_bound_is_exact_where_posteriors_nearly_agree_far_from_zero():
    mean = torch.full((3, 1, 1), 100.0, dtype=torch.double) + torch.tensor([0.0, 1e-4, 2e-4]).double().view(3, 1, 1)
    q = DiagonalGaussian(mean, torch.full_like(mean, -12.0))
    weights = torch.full((3, 1), 1 / 3, dtype=torch.double)
    rounded = DiagonalGaussian((mean - 100).float(), q.logvar.float())
    torch.testing.assert_close(rounded.mean_kl(weights.float()).double(), q.mean_kl(weights), rtol=1e-5, atol=0)


# grouped networks

def test_what_cannot_be_grouped_is_refused_with_the_reason():
    unequal = [MLPEncoder((4,), D), MLPEncoder((5,), D)]
    assert not can_group(unequal)
    assert not can_group([torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh())] * 2), "an unknown layer"
    assert not can_group([NETWORKS["norm"][0](D, 4)] * 2), "a batch's statistics are not those of M batches"
    specs = (Modality("a", (4,), Laplace()), Modality("b", (5,), Laplace()))
    model = MultimodalVAE(specs, unequal, [MLPDecoder((4,), D), MLPDecoder((5,), D)], MMVM())
    with pytest.raises(UserError, match="plan 'grouped' needs M encoders of one shape"), \
            Plan(grouped=True).applied(model):
        pass


@pytest.mark.parametrize("shape", [(7,), (3, 4, 4)])
def test_grouped_perceptrons_are_the_loop(shape):
    torch.manual_seed(0)
    encoders, decoders = [MLPEncoder(shape, D) for _ in range(M)], [MLPDecoder(shape, D) for _ in range(M)]
    x, z = [torch.randn(B, *shape) for _ in range(M)], [torch.randn(B, D) for _ in range(M)]
    for (mean, logvar), encoder, value in zip(forward_grouped(encoders, x), encoders, x):
        torch.testing.assert_close((mean, logvar), encoder(value))
    for out, decoder, value in zip(forward_grouped(decoders, z), decoders, z):
        torch.testing.assert_close(out, decoder(value))


# plans as texts

@pytest.mark.parametrize("text", ["plain", *PLANS, "channels_last+float32:conv+float32:linear", "graph"])
def test_a_plan_is_its_text(text):
    assert str(Plan.parse(text)) == text


@pytest.mark.parametrize("text", ["fast", "channels_last,grouped", "float32", "float32:pool", "threads", "threads:0",
                                  "threads:-1", "grouped:yes", "", "threads:\u00b2"])
def test_no_plan_is_named_with_what_exists(text):
    with pytest.raises(UserError, match=rf"plan {re.escape(repr(text))}: .* is no part of a plan; write plain, auto"):
        Plan.parse(text)
    with pytest.raises(UserError, match="is no part of a plan"):
        PolyMNIST(plan=text)


def test_a_plan_leaves_no_trace():
    model, threads = model_of(), torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), Plan.parse(PLANS[-1] + "+float32:conv").applied(model):
        assert model.grouped and any("forward" in vars(layer) for layer in model.modules())
        raise ZeroDivisionError
    assert not model.grouped and torch.get_num_threads() == threads
    assert not any("forward" in vars(layer) for layer in model.modules())
    assert all(p.is_contiguous() for p in model.parameters())


def test_a_layer_that_two_networks_share_is_kept_in_float32_once():
    model = model_of()
    layer = model.decoders[0].shared = torch.nn.Linear(3, 3)
    model.encoders[0].shared = layer
    with Plan.parse("float32:linear").applied(model):
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)


# the measurement

def test_the_measurement_takes_what_is_faster_and_says_so(monkeypatch):
    worth = {"channels_last": 0.5, "keep_memory": 0.99, "grouped": 0.6, "float32:conv": 0.9, "float32:linear": 0.9,
             "float32:conv_transpose": 1.1, "threads:1": 2.0}

    def seconds(model, batch, plan, *_):
        return float(np.prod([worth.get(word, 1.0) for word in str(plan).split("+")]))
    monkeypatch.setattr(speed, "seconds_of", seconds)
    said = []
    batch = pictures().batch(torch.arange(B))
    found = speed.measured_plan(model_of(), batch, "bfloat16", say=said.append)
    assert found == Plan(channels_last=True, grouped=True, float32=("conv", "linear")), "0.99 is within the spread"
    assert "plan: channels_last+float32:conv 13 samples/s, without the last 12: taken" in said
    assert "plan: channels_last+float32:conv+float32:conv_transpose 12 samples/s, without the last 13: left" in said


def test_the_measurement_disturbs_nothing():
    model, batch = model_of(), pictures().batch(torch.arange(B))
    model.encoders[0].trunk.insert(1, torch.nn.BatchNorm2d(4))  # its statistics move with every pass
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert isinstance(speed.measured_plan(model, batch, rounds=1, say=lambda _: None), Plan)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


# in training

def trained(plan: str, out=None, epochs: int = 3, data=None, precision: str = "float32", seed: int = 0):
    model = model_of()
    history = fit(model, data or pictures(24), epochs=epochs, batch_size=8, learning_rate=3e-3, device="cpu", seed=seed,
                  precision=precision, plan=plan, out=out)
    return model.state_dict(), history


def pages_taken() -> int:
    """Page faults of taking and freeing 64 MB four times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_stays_while_one_of_two_asks_for_it():
    once = 2**26 // resource.getpagesize()
    if pages_taken() <= once:
        pytest.skip("huge pages: faults do not say what is taken")
    with speed.memory_kept():
        with Plan(keep_memory=True).applied(model_of()):
            pass
        pages_taken()  # the first touch
        assert pages_taken() < 0.5 * once
    assert pages_taken() > once


def test_where_memory_is_kept_anyway_the_choice_is_not_measured(monkeypatch):
    model, tried = model_of(), []
    monkeypatch.setattr(speed, "seconds_of", lambda model, batch, plan, *_: tried.append(plan) or 1.0)
    with speed.memory_kept():
        speed.measured_plan(model, pictures().batch(torch.arange(B)), say=lambda line: None)
    assert tried and not any(plan.keep_memory for plan in tried)


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["plain", "channels_last", "channels_last+grouped+keep_memory"])
def test_a_run_that_was_stopped_ends_with_the_same_weights(plan, tmp_path):
    whole, _ = trained(plan)
    trained(plan, tmp_path, epochs=1)
    pieces, history = trained(plan, tmp_path)
    assert str(history.plan) == plan
    assert all(torch.equal(value, pieces[name]) for name, value in whole.items())


def test_auto_is_measured_once_and_then_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "measured_plan", lambda *_, **__: Plan(grouped=True))
    assert trained("auto", tmp_path, epochs=1)[1].plan == Plan(grouped=True)
    monkeypatch.setattr(loop, "measured_plan", pytest.fail)
    assert trained("auto", tmp_path)[1].plan == Plan(grouped=True)
    assert training.read_checkpoint(tmp_path / training.CHECKPOINT)[1]["plan"] == "grouped"


def test_another_plan_continues_a_run(tmp_path):
    plain, _ = trained("plain")
    trained("channels_last", tmp_path, epochs=1)
    with pytest.warns(TrainingWarning, match="is of the plan channels_last, it goes on by grouped: rounding"):
        mixed, _ = trained("grouped", tmp_path, epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingWarning)
        mixed, _ = trained("grouped", tmp_path)
    assert max(relative(value, plain[name]) for name, value in mixed.items()) < 1e-3


@pytest.mark.parametrize("plan, times", [("compile", 1), ("keep_memory+compile", 1), ("keep_memory", 0)])
def test_the_plan_compiles_where_it_says_so(plan, times, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    trained(plan, epochs=1)
    assert len(compiled) == times


def test_recording_needs_a_gpu():
    with pytest.raises(UserError, match="plan 'graph' records the CUDA kernels"):
        trained("graph")


def test_bfloat16_learns_what_float32_learns():
    """The learning curve in bfloat16 is that of float32, up to a small part of what is learned."""
    data = pictures(32)
    whole, half = (np.array(trained(plan, epochs=4, data=data, precision=precision, seed=SEED)[1]["loss"])
                   for plan, precision in (("plain", "float32"), ("channels_last", "bfloat16")))
    learned = whole[0] - whole[-1]
    assert learned > 100  # nats; measured 500 to 520
    assert np.abs(half - whole).max() / learned < 0.02  # measured up to .0025 over 3 seeds, AVX2 and AVX512


@pytest.fixture
def mapped(tmp_path) -> MultimodalData:
    """`pictures(24)` in files."""
    data = pictures(24)
    for name, x in data.modalities.items():
        np.save(tmp_path / f"{name}.npy", x.numpy())
    return MultimodalData.from_files({name: tmp_path / f"{name}.npy" for name in data.names}, data.specs)


def test_files_train_to_the_same_weights(mapped):
    a, b = trained("plain", data=pictures(24))[0], trained("plain", data=mapped)[0]
    assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_every_batch_is_announced_before_it_is_read(mapped, monkeypatch):
    events, announce, batch = [], batches.announce, MultimodalData.batch
    monkeypatch.setattr(batches, "announce", lambda data, index: (events.append(("announced", index.tolist())),
                                                                  announce(data, index)))
    monkeypatch.setattr(MultimodalData, "batch", lambda self, index: (events.append(("read", index.tolist())),
                                                                      batch(self, index))[1])
    found = list(prefetched(mapped, list(torch.arange(24).flip(0).split(10)), torch.device("cpu")))
    assert [len(batch.x[0]) for batch in found] == [10, 10, 4] and all(isinstance(batch, Batch) for batch in found)
    a, b, c = [index.tolist() for index in torch.arange(24).flip(0).split(10)]
    assert events == [("announced", b), ("read", a), ("announced", c), ("read", b), ("read", c)]


def test_a_subset_looks_into_the_same_files(mapped):
    few = mapped.subset(torch.tensor([5, 3, 5]))
    assert mapped.files and few.files is mapped.files and mapped.to("cpu").files == mapped.files
    for name, x in mapped.modalities.items():
        assert torch.equal(few.modalities[name][:], x[torch.tensor([5, 3, 5])])


def test_a_file_that_is_no_array_is_named(tmp_path):
    (tmp_path / "x.npy").write_text("no array")
    for path in (tmp_path / "x.npy", tmp_path / "absent.npy"):
        with pytest.raises(UserError, match=f"{path.name} cannot be read as a numpy array .*: write modality 'm0' "
                                            "there with"):
            MultimodalData.from_files({"m0": path}, SPECS[:1])


@pytest.mark.slow
def test_the_compiled_forward_pass_is_the_same(monkeypatch):
    """Traced and differentiated as torch.compile does it, without the compiler that a machine may lack."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend="aot_eager"))
    settings = {"epochs": 1, "batch_size": 8, "learning_rate": 3e-3, "device": "cpu", "precision": "float32"}
    some = pictures(16)
    data = MultimodalData(dict(list(some.modalities.items())[:2]), SPECS[:2])

    def small():  # tracing takes its time for every network
        torch.manual_seed(0)
        encoders = [NETWORKS["conv"][0](D, 4), MLPEncoder(SHAPE, D, (8,))]
        decoders = [NETWORKS["conv"][1](D, 4), MLPDecoder(SHAPE, D, (8,))]
        return MultimodalVAE(data.specs, encoders, decoders, MMVM(), 0.5)
    compiled, plain = small(), small()
    fit(compiled, data, compile=True, **settings)
    fit(plain, data, **settings)
    for a, b in zip(compiled.parameters(), plain.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
