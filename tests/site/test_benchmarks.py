"""What the benchmarks compute and write. What they measure is no matter of tests."""

import subprocess
import sys

import pandas as pd
import pytest
import torch

from benchmarks import gpu, layers, scaling, timing, training
from benchmarks.__main__ import main
from benchmarks.reference import PNGs, train_step, write_pngs
from mmvm import DiagonalGaussian, UserError
from mmvm.paths import REPOSITORY
from mmvm.training import plan as speed


@pytest.mark.parametrize("network", ["conv", "resnet"])
def test_the_plain_program_computes_the_same_loss_and_gradients(network, monkeypatch):
    """Two implementations that share nothing but the networks, every draw at its mean."""
    monkeypatch.setattr(DiagonalGaussian, "sample", lambda self, generator=None: self.mean)
    monkeypatch.setattr(torch.distributions.Normal, "rsample", lambda self, shape=(): self.mean)
    monkeypatch.setattr(training, "CHANNELS", {"conv": 4, "resnet": 4})
    data = training.images(4, 3)
    ours, plain = training.model_of(network, data, latent_dim=6), training.reference_of(network, 3, 6)
    x = [data.modalities[name].float() / 255 for name in data.names]
    a, b = ours(data.batch(torch.arange(4)).x).loss.mean(), plain.loss(x)
    assert a.item() == pytest.approx(b.item(), rel=1e-6)
    a.backward()
    b.backward()
    theirs = dict(plain.named_parameters())
    for name, p in ours.named_parameters():
        assert (p.grad - theirs[name].grad).norm() < 1e-3 * theirs[name].grad.norm() + 1e-6, name


def test_the_plain_program_learns(monkeypatch):
    monkeypatch.setattr(training, "CHANNELS", {"conv": 4})
    x = [torch.rand(8, 3, 28, 28) for _ in range(2)]
    model = training.reference_of("conv", 2, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = model.loss(x).item()
    for _ in range(20):
        train_step(model, optimizer, x)
    assert model.loss(x).item() < before - 10


def test_pngs_are_read_as_they_were_written(tmp_path):
    data = training.images(12, 2)
    write_pngs(tmp_path, list(data.modalities.values()), data.labels)
    read = PNGs(tmp_path)
    assert len(read) == 12
    for i in (0, 3, 11):
        for x, name in zip(read[i], data.names):
            torch.testing.assert_close(x, data.modalities[name][i].float() / 255)


def test_flops_of_a_layer_add_up_to_pytorchs_count(monkeypatch):
    """Forward and backward of all layers, against PyTorch's counter for a whole update of one modality."""
    monkeypatch.setattr(timing, "peaks", lambda precision: {"matmul": 1.0})
    monkeypatch.setattr(layers, "bandwidth", lambda rounds: [1.0])
    monkeypatch.setattr(timing, "interleaved", lambda arms, rounds: {name: [1.0] for name in arms})
    found = pd.DataFrame(layers.layers("conv", 2, 1))
    own = found[(found["metric"] == "flops_per_second") & (found["precision"] == "float32")]
    total = sum(value[0] for value in own["value"]) / 2  # of two samples in one second
    first = 2 * 27 * 32 * 14 * 14  # the first convolution needs no gradient of its input
    assert total - first == pytest.approx(training.flops("conv", 1), rel=0.01)


def test_the_diffusion_is_timed_on_what_was_asked_for():
    samples, update = scaling.diffusion(3, 2, n=4, steps=2, width=8)
    assert [(row["arm"], row["batch"]) for row in (samples, update)] == [("4 samples of 2 steps", 4), ("update", 3)]
    assert all(len(row["value"]) == 2 and min(row["value"]) > 0 for row in (samples, update))


def test_arms_take_turns_and_time_themselves_if_they_return_a_number():
    order = []
    seconds = timing.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b") or 7.0}, 2)
    assert order == ["a", "b"] * 3 and seconds["b"] == [7.0, 7.0] and len(seconds["a"]) == 2


def test_kept_rows_replace_older_ones_of_the_same_setting(tmp_path):
    path = tmp_path / "results.csv"
    row = {"arm": "float32", "network": "conv", "metric": "samples_per_second"}
    timing.keep(timing.rows("steps", [{**row, "value": [1.0, 3.0, 2.0]}]), path)
    timing.keep(timing.rows("steps", [{**row, "value": 5.0}, {**row, "arm": "other", "value": 1.0}]), path)
    table = pd.read_csv(path)
    assert list(table["arm"]) == ["float32", "other"] and list(table["value"]) == [5.0, 1.0]
    assert {"machine", "torch", "commit", "date", "low", "high", "repeats"} <= set(table)


def test_every_way_of_the_ladder_can_be_computed(monkeypatch):
    monkeypatch.setattr(training, "CHANNELS", {"conv": 2})
    data = training.images(4, 2)
    for precision, plan in training.LADDER.values():
        assert training.update_step("conv", data, precision, speed.Plan.parse(plan), latent_dim=4)() > 0
    for pairs in (False, True):
        assert scaling.mmvm_term(3, 4, 5, pairs)() > 0


@pytest.mark.slow
def test_pools_are_measured_against_mmvm_in_the_same_turn(monkeypatch):
    monkeypatch.setattr(training, "CHANNELS", {"conv": 2})
    monkeypatch.setattr(scaling, "LATENT", 4)
    turns = []
    monkeypatch.setattr(timing, "interleaved", lambda arms, rounds: {
        name: [2.0 if name == "mmvm" else 3.0, turns.append(arm() > 0) or 4.0] for name, arm in arms.items()})
    found = scaling.pools(4, 1)
    assert {row["arm"] for row in found} == set(scaling.POOLS) and len(turns) == 2 * (1 + len(scaling.POOLS))
    assert all(row["value"] == [1.5, 1.0] for row in found) and {row["precision"] for row in found} == {
        "float32", "bfloat16"}


def test_a_gpu_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a CUDA device, and torch sees none"):
        next(gpu.times("conv", 4, 1))


CPU = torch.device("cpu")


@pytest.fixture
def on_a_cpu(monkeypatch):
    """The variants that a CPU can compute, small."""
    monkeypatch.setattr(training, "CHANNELS", {"conv": 4})
    monkeypatch.setattr(gpu, "VARIANTS", {name: what for name, what in gpu.VARIANTS.items()
                                          if "graph" not in what[1] and not what[2]})


def test_variants_of_an_update_compute_what_float32_computes(on_a_cpu):
    plain, said = None, []
    for name in gpu.VARIANTS:
        found = gpu.check(name, "conv", 4, CPU, plain, said.append)
        plain = plain or found
    assert [line.partition(":")[0] for line in said] == ["float32", "bfloat16", "bfloat16, channels last"]
    for other in ((plain[0] + 10, plain[1]), (plain[0], -plain[1]), (float("nan"), plain[1])):
        with pytest.raises(UserError, match="bfloat16 does not compute what float32 computes"):
            gpu.check("bfloat16", "conv", 4, CPU, other, said.append)


def test_a_variant_that_fails_is_left_out_and_the_others_have_their_rows_at_once(on_a_cpu, monkeypatch):
    def timed(name, *_):
        if name == "bfloat16":
            raise RuntimeError("a kernel is missing\nand more")
        return [{"arm": name, "metric": "epoch_samples_per_second", "value": [1.0]}]
    said = []
    monkeypatch.setattr(gpu, "timed", timed)
    monkeypatch.setattr(timing, "peaks", lambda precision, device: {"matmul": 1.0})
    pieces = gpu.times("conv", 4, 1, n=4, device=CPU, say=said.append)
    assert [row["metric"] for row in next(pieces)] == ["peak_flops"] * 2 and not said
    assert [next(pieces)[0]["arm"] for _ in range(2)] == ["float32", "bfloat16, channels last"]
    assert not list(pieces)
    assert "bfloat16 is left out, RuntimeError: a kernel is missing" in said


def test_rows_are_kept_piece_by_piece(monkeypatch, capsys):
    """What is done when the time is over, or a part fails, is in the file."""
    def times(*_):
        yield [{"arm": "float32", "metric": "peak_share", "value": 1.0}]
        raise UserError("the device is gone")
    kept = []
    monkeypatch.setattr(sys, "argv", ["benchmarks", "gpu", "--network", "conv", "--keep"])
    monkeypatch.setattr(gpu, "times", times)
    monkeypatch.setattr(timing, "machine", lambda device: f"a {device.type} device")
    monkeypatch.setattr(timing, "keep", lambda table: kept.append([*table["arm"], *table["machine"]]))
    assert main() == 2 and kept == [["float32", "a cuda device"]]
    assert "benchmarks: the device is gone" in capsys.readouterr().err


@pytest.mark.slow
def test_an_unknown_part_is_named():
    done = subprocess.run([sys.executable, "-m", "benchmarks", "step"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and "unknown part step; there are: steps, layers, epochs" in done.stderr
