"""A sweep is fits and measures that anybody could make by hand; it goes on after a kill, and says what it cannot do."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from mmvm import (
    MMVM,
    Modality,
    MultimodalData,
    MultimodalVAE,
    Normal,
    best_beta,
    evaluation,
    fit,
    paths,
    search,
    split,
    sweep,
)
from mmvm.errors import UserError
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.study import figures
from mmvm.training import CHECKPOINT, TrainingInterrupted, TrainingWarning, read_history
from mmvm.training.lock import LOCK, held

BETAS, SEEDS = [0.1, 10.0], [0, 1]
HOW = dict(epochs=3, batch_size=20, learning_rate=1e-2, device="cpu", precision="float32", say=None)


def make_data(n=100, labels=True):
    g = torch.Generator().manual_seed(0)
    common = torch.randn(n, 2, generator=g)
    x = {name: common @ torch.randn(2, size, generator=g) + 0.1 * torch.randn(n, size, generator=g)
         for name, size in (("a", 4), ("b", 6))}
    specs = tuple(Modality(name, tuple(values.shape[1:]), Normal(0.5)) for name, values in x.items())
    return MultimodalData(x, specs, (common[:, 0] > 0).long() if labels else None)


def build(data, beta):
    return MultimodalVAE(data.specs, [MLPEncoder(s.shape, 2, (8,)) for s in data.specs],
                         [MLPDecoder(s.shape, 2, (8,)) for s in data.specs], MMVM(), beta)


def broken(data, beta):
    model = build(data, beta)
    if beta == 10:
        model.decoders[0].register_forward_hook(lambda module, args, out: out * float("inf"))
    return model


def no_model(data, beta):
    return torch.nn.Linear(2, 2)


DATA = make_data()


@pytest.fixture(scope="module")
def table():
    return sweep(DATA, BETAS, SEEDS, build=build, **HOW)


def same(table, other):
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), other.drop(columns="seconds"), check_exact=True)


def test_a_row_is_what_fit_and_the_measures_say(table):
    assert list(zip(table["beta"], table["seed"])) == [(0.1, 0), (0.1, 1), (10.0, 0), (10.0, 1)]
    row, (train, held) = table.iloc[1], split(DATA)
    torch.manual_seed(1)
    model = build(train, 0.1)
    fit(model, train, seed=1, **{name: value for name, value in HOW.items() if name != "say"})
    errors, imputed = evaluation.reconstruction_error(model, held), evaluation.imputation_error(model, held)
    probe, state = evaluation.linear_probe(model, train, held), evaluation.diagnostics(model, held)
    assert row["error/a"] == errors[0] and row["error"] == errors.sum()
    assert row["imputation/a"] == imputed[1, 0] and row["imputation/b"] == imputed[0, 1]
    assert row["imputation"] == imputed[1, 0] + imputed[0, 1]
    assert row["probe/b"] == probe[1] and row["probe"] == probe.mean()
    assert row["rate/a"] == state["rate/a"] > 0
    assert row["epoch"] == 3 and row["warnings"] == ""


def test_rates_fall_with_beta(table):
    rates = table.groupby("beta")[["rate/a", "rate/b"]].mean()
    assert (rates.loc[0.1] > 2 * rates.loc[10.0]).all()


def test_a_sweep_disturbs_neither_draws_nor_threads(table):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    sweep(DATA, [0.1], build=build, threads=2, **{**HOW, "epochs": 1})
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads


def test_default_networks_are_named_by_their_method():
    found = sweep(DATA, [1.0], latent_dim=3, objective="independent", **{**HOW, "epochs": 1})
    assert len(found) == 1 and np.isfinite(found["error"]).all()


def test_groups_are_held_back_whole(monkeypatch):
    groups, seen = np.arange(len(DATA)) // 10, []
    monkeypatch.setattr(search, "fit", lambda model, data, **rest: seen.append(rest["validation"]) or fit(
        model, data, **rest))
    sweep(replace(DATA, ids=[str(g) for g in groups]), [1.0], by=groups, build=build, validation=0.2,
          **{**HOW, "epochs": 1})
    assert len(seen[0]) == 20 and len(set(seen[0].ids)) == 2


def test_several_labels_are_probed_by_their_auroc():
    labels = torch.stack([DATA.labels, 1 - DATA.labels], 1)
    found = sweep(MultimodalData(DATA.modalities, DATA.specs, labels), [0.1], build=build, **{**HOW, "epochs": 1})
    assert 0.5 < found["probe"][0] <= 1


def test_without_labels_nothing_is_probed():
    assert "probe" not in sweep(make_data(labels=False), [0.1], build=build, **{**HOW, "epochs": 1})


def test_a_probe_that_cannot_be_is_a_sentence_of_the_row():
    found = sweep(replace(DATA, labels=torch.zeros(len(DATA), dtype=torch.long)), [0.1], build=build,
                  **{**HOW, "epochs": 1})
    assert np.isnan(found["probe"][0]) and "at least two classes" in found["warnings"][0]


@pytest.mark.parametrize("n, names", [(100, "ab"), (10, "a")])
def test_labels_that_nobody_has_are_a_sentence_of_the_row(n, names):
    observed = torch.ones(2, len(DATA), dtype=torch.bool)
    labels = torch.stack([DATA.labels, DATA.labels], 1)
    observed[0, n:], labels[:n] = False, 0
    found = sweep(replace(DATA, labels=labels, observed=observed, label_names=("u", "v")), [0.1], build=build,
                  validation=0.5, **{**HOW, "epochs": 1})
    said = found["warnings"][0].splitlines()
    assert [line.partition(": ")[0] for line in said] == [f"no probe of {name!r}" for name in names]
    assert "no label is both present and absent among its samples" in said[0]
    assert np.isnan(found["probe"][0]) and np.isnan(found["probe/b"][0]) == ("b" in names)


@pytest.mark.filterwarnings("ignore:beta .* is the best")  # of an end, here on purpose
def test_a_run_that_diverges_leaves_the_others_alone(table):
    found = sweep(DATA, BETAS, SEEDS, build=broken, **HOW)
    same(found[:2].drop(columns=["epoch"]), table[:2].drop(columns=["epoch"]))
    assert found["error"][2:].isna().all() and found["warnings"][2:].str.contains("finite|stopped").all()
    assert best_beta(found) == 0.1


# stopped and continued -----------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_sweep_that_was_stopped_goes_on_and_trains_nothing_twice(table, tmp_path, monkeypatch):
    calls, trained = [], []

    def stopped(model, data, **rest):
        calls.append(1)

        def on_epoch(model, epoch):
            if len(calls) == 2 and epoch == 2:
                raise TrainingInterrupted("by the test")
            return rest["on_epoch"](model, epoch)
        return fit(model, data, **{**rest, "on_epoch": on_epoch})

    def counted(model, data, **rest):
        return fit(model, data, **{**rest, "on_epoch": lambda model, epoch: trained.append(epoch) or rest["on_epoch"](
            model, epoch)})
    with monkeypatch.context() as patch:
        patch.setattr(search, "fit", stopped)
        with pytest.raises(TrainingInterrupted):
            sweep(DATA, BETAS, SEEDS, build=build, out=tmp_path, **HOW)
    monkeypatch.setattr(search, "fit", counted)
    same(sweep(DATA, BETAS, SEEDS, build=build, out=tmp_path, **HOW), table)
    assert trained == [2, 3, 1, 2, 3, 1, 2, 3]
    same(sweep(DATA, BETAS, SEEDS, build=build, out=tmp_path, **HOW), table)
    assert len(trained) == 8
    larger = sweep(DATA, [*BETAS, 1.0], SEEDS, build=build, out=tmp_path, **HOW)
    assert len(trained) == 8 + 2 * 3 and len(pd.read_csv(tmp_path / search.TABLE)) == len(larger) == 6


@pytest.mark.slow
def test_a_finished_run_keeps_what_it_warned_of(tmp_path):
    how = {**HOW, "epochs": 16, "batch_size": 6}
    first = sweep(DATA, [1000.0], build=build, out=tmp_path, **how)
    assert "has collapsed" in first["warnings"][0]
    same(first, sweep(DATA, [1000.0], build=build, out=tmp_path, **how))


def test_other_data_and_fewer_epochs_are_no_continuation(tmp_path):
    sweep(DATA, [0.1], build=build, out=tmp_path, **HOW)
    with pytest.raises(UserError, match="belongs to another run: .*data"):
        moved = {name: x + 1 for name, x in DATA.modalities.items()}
        sweep(MultimodalData(moved, DATA.specs, DATA.labels), [0.1], build=build, out=tmp_path, **HOW)
    with pytest.raises(UserError, match="ends at epoch 3, the run asks for 2: raise epochs, choose another folder"):
        sweep(DATA, [0.1], build=build, out=tmp_path, **{**HOW, "epochs": 2})


# processes: with the usual networks, so that a worker needs to import nothing but mmvm

PAIR = dict(data=DATA, betas=[0.1], seeds=SEEDS, latent_dim=2, **HOW)
SCRIPT = """
import sys

if __name__ == "__main__":
    sys.path.insert(0, {here!r})
    from test_search import PAIR, sweep

    sweep(**{{**PAIR, "epochs": 100_000}}, workers=2, out={out!r})
"""


@pytest.mark.slow
def test_workers_give_the_same_table():
    same(sweep(**PAIR, workers=2), sweep(**PAIR))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals and locks")
def test_workers_end_with_a_killed_sweep_and_one_process_finishes_it(tmp_path):
    script, out = tmp_path / "run.py", tmp_path / "out"
    script.write_text(SCRIPT.format(here=os.path.dirname(__file__), out=str(out)))
    process = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(paths.REPOSITORY)})
    deadline = time.monotonic() + 300
    while len(list(out.glob(f"*/{CHECKPOINT}"))) < 2:  # both train
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while list(out.glob(f"*/{LOCK}")) and time.monotonic() < deadline:
        folder = next(out.glob(f"*/{LOCK}")).parent
        with contextlib.suppress(UserError), held(folder):  # takes the lock of a process that is gone, and removes it
            pass
        time.sleep(0.05)
    how = {**PAIR, "epochs": 1 + max(read_history(folder)[-1]["epoch"] for folder in out.iterdir())}
    same(sweep(**how, out=out), sweep(**how))


# choosing, and mistakes ----------------------------------------------------------------------------------------------

CHOICE = pd.DataFrame({"beta": [0.1, 0.1, 1.0, 1.0, 2.0, 2.0], "seed": [0, 1] * 3, "error": [1.0, 2, 3, 4, 5, 6],
                       "imputation": [5.0, 4, 1, 3, 2, 2], "probe": [0.5, 0.6, 0.9, 0.7, np.nan, 1],
                       "rate/a": [3.0, 3, 2, 2, 1, 1], "warnings": ""})


@pytest.mark.filterwarnings("ignore:beta .* is the best")  # of an end, here on purpose
@pytest.mark.parametrize("by, best", [("error", 0.1), ("imputation", 2.0), ("probe", 1.0)])
def test_the_best_is_by_the_mean_over_seeds(by, best):
    assert best_beta(CHOICE, by) == best


@pytest.mark.parametrize("by, kept, more", [("error", slice(None), "0.025"), ("imputation", slice(None), "8"),
                                            ("probe", slice(None), None), ("error", slice(0, 2), None),
                                            ("imputation", slice(0, 4), "4")])
def test_a_best_beta_at_an_end_of_those_tried_names_the_next(by, kept, more):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        best_beta(CHOICE[kept], by)
    assert [w.category for w in said] == [TrainingWarning] * (more is not None)
    assert more is None or str(said[0].message).endswith(f"a better one may lie beyond, try {more} too")


def test_a_best_beta_among_others_is_said_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert best_beta(CHOICE.assign(imputation=[5.0, 4, 1, 1, 2, 2])) == 1.0
        assert best_beta(CHOICE.assign(beta=CHOICE["beta"] - 0.1, error=CHOICE["error"]), "error") == 0.0


@pytest.mark.parametrize("by", ["rate/a", "seed", "loss"])
def test_what_says_nothing_of_quality_does_not_choose(by):
    with pytest.raises(UserError, match="use one of error, imputation, probe$"):
        best_beta(CHOICE, by)


def test_nothing_to_choose_from_is_one_line():
    with pytest.raises(UserError, match="no beta has a number in column 'probe'"):
        best_beta(CHOICE.assign(probe=np.nan), "probe")


@pytest.mark.parametrize("change, message", [
    (dict(betas=[1.0, 1]), "betas must be different numbers"), (dict(betas=["1"]), "betas must be different numbers"),
    (dict(betas=[-1.0]), "betas must be"), (dict(betas=[]), "betas must be"), (dict(seeds=[float("nan")]), "seeds"),
    (dict(workers=0), "at least 1"), (dict(bta=1), "bta: a sweep passes on to `fit` epochs, batch_size"),
    (dict(out="x", config={}), "config: a sweep passes on"), (dict(objective=MMVM()), "objective must be a text"),
    (dict(objective="mopoe"), "^`build` makes the model, objective would change nothing: leave out one or the other"),
    (dict(objective="mmvm", latent_dim=16), "^`build` makes the model, latent_dim, objective would change nothing"),
    (dict(build=no_model), "build gave a Linear"),
    (dict(build=lambda data, beta: build(data, beta), workers=2), "cannot be sent to a worker.*or workers=1")])
def test_mistakes_are_one_clear_line(change, message):
    with pytest.raises(UserError, match=message):
        sweep(**{"data": DATA, "betas": [1.0], **HOW, "build": build, **change})


def test_networks_are_given_by_build():
    with pytest.raises(UserError, match=r"encoders: .*of a model, such as encoders, give build\(data, beta=...\)"):
        sweep(DATA, [1.0], encoders={}, **HOW)


def test_a_function_of_a_notebook_is_refused_before_a_worker_starts(monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(build, "__module__", "__main__")
    with pytest.raises(UserError, match="cannot import build=build.*none of a notebook"):
        sweep(DATA, [1.0], build=build, workers=2, **HOW)


def test_files_are_not_sent_to_workers(tmp_path):
    for name, x in DATA.modalities.items():
        np.save(tmp_path / f"{name}.npy", x.numpy())
    data = MultimodalData.from_files({name: tmp_path / f"{name}.npy" for name in DATA.names}, DATA.specs)
    with pytest.raises(UserError, match="use workers=1"):
        sweep(data, [1.0], build=build, workers=2, **HOW)


@pytest.mark.filterwarnings("ignore:beta .* is the best")  # of an end, here on purpose
def test_the_figure_has_a_panel_per_quantity_and_marks_the_best(table):
    fig = figures.sweep(table, by="probe")
    assert [ax.get_ylabel().split(" (")[0] for ax in fig.axes] == ["reconstruction error", "imputation error",
                                                                   "linear probe", "rate"]
    for ax in fig.axes:
        *lines, best = ax.get_lines()
        assert len(lines) == 2 and set(best.get_xdata()) == {best_beta(table, "probe")}
    np.testing.assert_allclose(fig.axes[0].get_lines()[0].get_ydata(), table.groupby("beta")["error/a"].mean())
    with_zero = figures.sweep(table.assign(beta=table["beta"].replace(10.0, 0.0)))
    assert with_zero.axes[0].get_xscale() == "symlog"
    plt.close("all")
