"""The loop: it learns, it repeats itself, and a run that is killed ends with the weights of one that never was.

Runs are killed with SIGKILL in processes of their own.
"""

import json
import math
import multiprocessing
import os
import platform
import signal
import threading
import time
import warnings
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmvm import files, training
from mmvm.data import Modality, MultimodalData
from mmvm.errors import UserError
from mmvm.likelihoods import Normal
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM, Independent
from mmvm.training import device, lock, loop, run as keeping, update
from mmvm.training.checkpoint import CHECKPOINT
from mmvm.training.interrupt import TrainingInterrupted
from mmvm.training.loop import fit
from mmvm.training.run import HISTORY, TrainingWarning
from mmvm.training.update import TrainingDiverged

N, BATCH, EPOCHS = 200, 32, 3
STEPS = N // BATCH  # updates an epoch
SPECS = (Modality("a", (4,), Normal(0.5)), Modality("b", (6,), Normal(0.5)))


class Calling(MMVM):
    """MMVM that calls `act(step)` in the middle of every update."""

    def __init__(self, act=lambda step: None):
        super().__init__()
        self.act = act

    def forward(self, q, observed, step=0):
        self.act(step)
        return super().forward(q, observed, step)


def make_data(n=N, shift=0.0, **changes):
    g = torch.Generator().manual_seed(1)
    common = torch.randn(n, 2, generator=g)
    arrays = {"a": common @ torch.randn(2, 4, generator=g), "b": common @ torch.randn(2, 6, generator=g)}
    arrays["b"][-1, -1] += shift
    return MultimodalData(arrays, SPECS, **changes)


def make_model(objective=None, seed=0, beta=0.5, width=8):
    torch.manual_seed(seed)
    return MultimodalVAE(SPECS, [MLPEncoder(s.shape, 2, (width,)) for s in SPECS],
                         [MLPDecoder(s.shape, 2, (width,)) for s in SPECS], objective or Calling(), beta)


def train(objective=None, data=None, model=None, **options):
    """Weights and history of a run; everything random in it is fixed."""
    model = model or make_model(objective)
    history = fit(model, data or make_data(), **{"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 1e-2,
                                                 "device": "cpu", "precision": "float32", **options})
    return {name: value.clone() for name, value in model.state_dict().items()}, history


def timeless(history):
    left_out = ("seconds", "samples_per_second", "peak_memory_gb")
    return [{name: value for name, value in row.items() if name not in left_out}
            for row in getattr(history, "epochs", history)]


def assert_same(run, other):
    """Equal weights, bit for bit, and equal histories up to time."""
    assert run[0].keys() == other[0].keys()
    for name, value in run[0].items():
        assert torch.equal(value, other[0][name]), name
    assert timeless(run[1]) == timeless(other[1])


def assert_written(folder, run):
    """The folder holds this run, whole, and nothing else."""
    assert sorted(path.name for path in folder.iterdir()) == [CHECKPOINT, HISTORY]
    tensors, metadata = training.read_checkpoint(folder / CHECKPOINT)
    assert all(torch.equal(tensors[f"model.{name}"], value) for name, value in run[0].items())
    assert timeless(training.read_history(folder)) == timeless(run[1])
    assert json.loads(metadata["progress"])["epoch"] == run[1].epochs[-1]["epoch"]


@pytest.fixture(scope="module")
def whole():
    """The run that nothing interrupts."""
    return train()


# learning

def test_loss_falls(whole):
    loss = train(epochs=15)[1]["loss"]
    assert len(loss) == 15 and loss[-1] < 0.5 * loss[0]
    assert loss[:EPOCHS] == whole[1]["loss"]


def test_one_update_is_adams_on_the_mean_loss():
    data, ours = make_data(BATCH), make_model()
    fit(ours, data, epochs=1, batch_size=BATCH, learning_rate=1e-2, seed=3, device="cpu", precision="float32")
    theirs = make_model()
    optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-2)
    torch.manual_seed(3)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(3 * 1_000_003))
    theirs(data.batch(order).x).loss.mean().backward()
    optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b)


def test_an_update_leaves_no_graph_behind():
    """A recording of updates on a GPU fails where the graph of one before it is alive."""
    data, model, losses = make_data(), make_model(), []
    model.register_forward_hook(lambda module, given, terms: losses.append(weakref.ref(terms.loss)))
    one = update.Update(model, torch.optim.Adam(model.parameters()), data, "float32", torch.device("cpu"), None, False,
                        False, 1e-2)
    names, means = one.gradients(data.batch(torch.arange(BATCH)), 0)
    assert names[:2] == ["grad_norm", "loss"] and not means.requires_grad
    assert losses and losses[0]() is None


def test_history_holds_means_over_the_epoch(whole):
    rows = whole[1].epochs
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, STEPS), (2, 2 * STEPS), (3, 3 * STEPS)]
    for row in rows:
        assert {"kl_mixture", "kl_standard_normal", "log_likelihood/a", "log_likelihood/b", "grad_norm"} <= row.keys()
        log_likelihood = row["log_likelihood/a"] + row["log_likelihood/b"]
        assert row["loss"] == pytest.approx(-log_likelihood + 0.5 * row["regulariser"])
        assert row["samples_per_second"] > 0
    assert sorted(whole[1]["seconds"]) == whole[1]["seconds"] and whole[1]["unknown"] == []


def test_every_epoch_has_its_own_order_without_repeats():
    seen = []
    data = make_data()
    data.modalities["a"] = torch.arange(N)[:, None].expand(N, 4).float() / N
    model = make_model()
    model.encoders[0].register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0][:, 0] * N).round().int()))
    train(model=model, data=data, epochs=2)
    first, second = torch.cat(seen[:STEPS]), torch.cat(seen[STEPS:])
    assert len(first.unique()) == len(second.unique()) == STEPS * BATCH
    assert not torch.equal(first, second) and set(first.tolist()) != set(second.tolist())


def test_same_seed_gives_the_same_weights(whole):
    assert_same(train(), whole)
    other = train(seed=1)
    assert not torch.equal(other[0]["encoders.0.mean.weight"], whole[0]["encoders.0.mean.weight"])


def test_fit_leaves_the_random_state_and_eval_mode_behind():
    model = make_model()
    state = torch.get_rng_state()
    train(model=model)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.modules())


def test_a_run_on_the_cpu_reseeds_no_gpu(monkeypatch, whole):
    """Whose generators nothing would put back; the CPU's draws are those of `torch.manual_seed`."""
    model = make_model()
    monkeypatch.setattr(torch, "manual_seed", pytest.fail)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", pytest.fail)
    assert_same(train(model=model), whole)


def test_on_epoch_cannot_disturb_the_run(whole):
    def disturb(model, epoch):
        torch.manual_seed(epoch)
        torch.randn(10)
        modes_there.append(model.training)
        return {"watched": epoch * 10} if epoch > 1 else None

    modes, modes_there = [], []
    objective = Calling(lambda step: modes.append(objective.training))
    weights, history = train(objective, on_epoch=disturb)
    assert modes_there == [False] * EPOCHS, "what is encoded there moves no batch statistics"
    assert history["watched"] == [20, 30] and modes == [True] * EPOCHS * STEPS
    assert all(torch.equal(value, whole[0][name]) for name, value in weights.items())


def test_bfloat16_agrees_roughly_with_float32(whole):
    weights, history = train(precision="bfloat16")
    assert all(value.dtype == torch.float32 for value in weights.values())
    assert history["loss"] == pytest.approx(whole[1]["loss"], rel=0.03)
    assert history["loss"] != whole[1]["loss"]


def test_a_batch_larger_than_the_data_is_all_of_it():
    history = train(data=make_data(20), batch_size=256, epochs=2)[1]
    assert history["step"] == [1, 2]


def test_missing_modalities_train_without_nan():
    data = make_data()
    observed = torch.rand(2, N, generator=torch.Generator().manual_seed(2)) > 0.4
    observed[0] |= ~observed.any(0)
    for x, seen in zip(data.modalities.values(), observed):
        x[~seen] = math.nan
    data = MultimodalData(data.modalities, SPECS, observed=observed)
    weights, history = train(data=data, epochs=10)
    assert all(value.isfinite().all() for value in weights.values())
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("limit", [None, 0.5])
def test_max_grad_norm_clips_what_adam_sees(limit, monkeypatch):
    seen, step = [], torch.optim.Adam.step

    def look(self, *arguments):
        seen.append(torch.cat([p.grad.flatten() for group in self.param_groups for p in group["params"]]).norm())
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", look)
    history = train(max_grad_norm=limit, epochs=1)[1]
    measured, seen = history["grad_norm"][0], torch.stack(seen)
    assert measured > 5, "the history has the norm before it is clipped"
    if limit is None:
        assert measured == pytest.approx(seen.mean().item())
    else:
        torch.testing.assert_close(seen, torch.full_like(seen, limit), rtol=1e-3, atol=0)


def test_nothing_is_written_to_a_stderr_that_is_no_terminal(capsys, tmp_path):
    train(out=tmp_path)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_training_works_outside_the_main_thread(whole):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(train(model=model)))
    model = make_model()
    thread.start()
    thread.join()
    assert_same(runs[0], whole)


def test_what_the_objective_reports_is_said_once_and_kept():
    class Advising(Independent):
        def report(self, means):
            assert means["kl_standard_normal"] > 0
            return {"watched": 1.5}, ["try another gate"]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = train(Advising())[1]
    assert [(w.category, str(w.message)) for w in caught] == [(TrainingWarning, "try another gate")]
    assert history["watched"] == [1.5] * EPOCHS


# killed and resumed

def dies(moment: str, k: int, out: Path, seconds: float) -> None:
    """Trains, in a process that is forked for it, up to where it kills itself."""
    torch.set_num_threads(1)
    saves, replace, write = [], os.replace, keeping.write_safetensors

    def die_at(name, number):
        if (moment, k) == (name, number):
            os.kill(os.getpid(), signal.SIGKILL)

    def act(step):
        if moment == "any":
            time.sleep(0.02 if step < k else 0.5)
        die_at("update", step)

    def dying_replace(source, target):
        saves.append(target)
        die_at("save", len(saves))
        replace(source, target)

    def dying_write(path, tensors, metadata):
        if Path(out, HISTORY).exists():
            die_at("epoch", len(training.read_history(out)))
        write(path, tensors, metadata)

    os.replace, keeping.write_safetensors = dying_replace, dying_write
    train(Calling(act), out=out, checkpoint_seconds=seconds, on_epoch=lambda model, epoch: die_at("evaluation", epoch))


def start(out: Path, moment: str, k: int, seconds: float):
    """That process: forked, since a new one would import for seconds what is here already."""
    process = multiprocessing.get_context("fork").Process(target=dies, args=(moment, k, out, seconds))
    process.start()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("moment, k, checkpoint_seconds, kept", [
    ("update", 0, 0, None),             # nothing is written yet
    ("update", STEPS + 3, 1e9, STEPS),  # back to the last epoch's end
    ("save", 2 * STEPS, 0, 2 * STEPS - 2),  # the new file is beside the old one: the first epoch's end saved twice
    ("evaluation", 2, 0, 2 * STEPS),    # all updates of an epoch are made, its line is not written
    ("epoch", 2, 1e9, STEPS),           # the epoch's line is written, its checkpoint is not
], ids=["first-update", "mid-epoch", "mid-save", "between-epochs", "before-checkpoint"])
def test_a_killed_run_resumes_to_the_same_weights(moment, k, checkpoint_seconds, kept, tmp_path, whole):
    out = tmp_path / "out"
    process = start(out, moment, k, checkpoint_seconds)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    if kept is None:
        assert not (out / CHECKPOINT).exists()
    else:
        progress = json.loads(training.read_checkpoint(out / CHECKPOINT)[1]["progress"])
        assert progress["step"] == kept
    updates = []
    trained = train(Calling(updates.append), out=out, model=None)
    assert updates == list(range(kept or 0, EPOCHS * STEPS)), "what is kept is not done again"
    assert_same(trained, whole)
    for path in out.glob(".*"):  # of a process killed while it wrote
        path.unlink()
    assert_written(out, whole)


def test_a_run_killed_at_any_moment_resumes_and_its_checkpoint_is_always_whole(tmp_path, whole):
    process = start(tmp_path / "out", "any", STEPS + 2, 0)
    checkpoint, steps = tmp_path / "out" / CHECKPOINT, [0]
    while steps[-1] < STEPS + 2:
        assert process.is_alive()
        if checkpoint.exists():
            steps.append(json.loads(training.read_checkpoint(checkpoint)[1]["progress"])["step"])
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL and steps == sorted(steps) and steps[-1] < EPOCHS * STEPS
    assert_same(train(out=tmp_path / "out"), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_between_updates_and_the_run_continues(number, tmp_path, whole):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(TrainingInterrupted, match=rf"stopped after update 9; run the same again to continue from "
                                                  rf".*{CHECKPOINT}"):
        train(Calling(lambda step: step == 8 and os.kill(os.getpid(), number)), out=tmp_path, checkpoint_seconds=1e9)
    assert {n: signal.getsignal(n) for n in before} == before
    assert json.loads(training.read_checkpoint(tmp_path / CHECKPOINT)[1]["progress"])["step"] == 9
    assert_same(train(out=tmp_path), whole)
    assert_written(tmp_path, whole)


def test_a_signal_during_the_last_evaluation_is_not_lost(tmp_path, whole):
    def on_epoch(model, epoch):
        if epoch == EPOCHS:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match=f"stopped after update {EPOCHS * STEPS}"):
        train(on_epoch=on_epoch, out=tmp_path)
    assert_written(tmp_path, whole)


def test_a_signal_without_a_folder_says_only_where_it_stopped():
    with pytest.raises(TrainingInterrupted) as stopped:
        train(Calling(lambda step: step == 3 and os.kill(os.getpid(), signal.SIGINT)))
    assert str(stopped.value) == "stopped after update 4"
    assert isinstance(stopped.value, KeyboardInterrupt)


def test_a_second_ctrl_c_acts_at_once():
    def twice(step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as stopped:
        train(Calling(twice))
    assert type(stopped.value) is KeyboardInterrupt


def test_a_finished_run_extends_to_one_long_run(tmp_path, whole):
    train(out=tmp_path, epochs=1)
    assert_same(train(out=tmp_path), whole)
    assert_written(tmp_path, whole)


def test_a_finished_run_is_not_trained_again(tmp_path, whole):
    train(out=tmp_path)
    updates = []
    assert_same(train(Calling(updates.append), out=tmp_path), whole)
    assert updates == []


def test_resuming_puts_the_weights_into_any_model_of_the_shape(tmp_path, whole):
    train(out=tmp_path, epochs=2)
    assert_same(train(out=tmp_path, model=make_model(seed=9)), whole)


def test_seconds_add_up_over_the_pieces(tmp_path):
    first = train(Calling(lambda step: time.sleep(0.02)), out=tmp_path, epochs=1)[1]
    both = train(out=tmp_path, epochs=2, on_epoch=lambda *_: time.sleep(0.3))[1]
    assert both["seconds"][0] == first["seconds"][0] >= 0.02 * STEPS
    assert first["seconds"][0] < both["seconds"][1] < first["seconds"][0] + 0.3, "evaluation is not training"
    progress = json.loads(training.read_checkpoint(tmp_path / CHECKPOINT)[1]["progress"])
    assert progress["seconds"] == pytest.approx(both["seconds"][1], abs=0.1)


def test_a_history_cut_by_a_kill_is_read_up_to_the_cut(tmp_path, whole):
    train(out=tmp_path, epochs=2)
    with open(tmp_path / HISTORY, "a") as file:
        file.write('{"epoch": 3, "los')
    assert [row["epoch"] for row in training.read_history(tmp_path)] == [1, 2]
    assert_same(train(out=tmp_path), whole)
    assert_written(tmp_path, whole)


@pytest.mark.parametrize("spoil", [
    lambda lines: [lines[0], lines[1][:10], lines[2]], lambda lines: [lines[0], b"3", lines[2]],
    lambda lines: [lines[0], lines[0], lines[2]], lambda lines: [lines[0], b"\xff" + lines[1][1:], lines[2]],
    lambda lines: [lines[0], b"", lines[2]], lambda lines: [lines[0], b'{"epoch": "2"}', lines[2]]],
    ids=["cut", "number", "twice", "no-utf8", "empty", "text"])
def test_a_damaged_history_is_named_with_its_line(spoil, tmp_path):
    path = tmp_path / HISTORY
    lines = [json.dumps({"epoch": epoch, "loss": 1.0}).encode() for epoch in (1, 2, 3)]
    path.write_bytes(b"\n".join(spoil(lines)) + b"\n")
    with pytest.raises(UserError, match=f"^{path}, line 2 is no epoch of a run.*copy it again, or delete"):
        training.read_history(tmp_path)


def test_peak_memory_is_in_the_history(tmp_path):
    block = torch.zeros(2**24)  # 67 MB, touched
    found = train(out=tmp_path)[1]["peak_memory_gb"]
    assert len(found) == EPOCHS and found == sorted(found) and 0.067 < found[0] < 100 and len(block)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_history_that_lacks_epochs_of_the_checkpoint_is_named(kept, tmp_path, whole):
    """Going on with it would begin the patience anew, and forget the best epoch."""
    train(out=tmp_path, epochs=2)
    path = tmp_path / HISTORY
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:kept])) if kept else path.unlink()
    with pytest.raises(UserError, match=f"^{path} ends before its checkpoint, which is of epoch 2: restore"):
        train(out=tmp_path)
    path.write_text("".join(lines))
    assert_same(train(out=tmp_path), whole)


# the checkpoint

def test_the_checkpoint_says_what_made_it(tmp_path):
    train(out=tmp_path, config={"name": "x", "width": 8}, max_grad_norm=100.0, seed=4)
    metadata = training.read_checkpoint(tmp_path / CHECKPOINT)[1]
    assert json.loads(metadata["config"]) == {
        "name": "x", "width": 8, "n_train": N, "batch_size": BATCH, "learning_rate": 1e-2, "seed": 4,
        "precision": "float32", "max_grad_norm": 100.0}
    assert metadata["commit"] == files.git_commit()
    versions = json.loads(metadata["versions"])
    assert versions["torch"] == torch.__version__.split("+")[0] and {"mmvm", "numpy", "scikit-learn"} < versions.keys()
    assert "not installed" not in versions.values()


def test_load_weights_restores_the_model_and_returns_the_config(tmp_path, whole):
    train(out=tmp_path, config={"name": "x"})
    model = make_model(seed=5)
    assert training.load_weights(model, tmp_path / CHECKPOINT)["name"] == "x"
    assert all(torch.equal(value, whole[0][name]) for name, value in model.state_dict().items())


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch, whole):
    train(out=tmp_path, epochs=1)
    before, replace = (tmp_path / CHECKPOINT).read_bytes(), os.replace

    def fail(source, target):
        if Path(target).name == CHECKPOINT:
            assert Path(source).parent == tmp_path, "only within one folder is a move atomic"
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(UserError, match="No space left.*make room"):
            train(out=tmp_path, checkpoint_seconds=0)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, HISTORY]
    assert_same(train(out=tmp_path), whole)


@pytest.mark.parametrize("spoil, message", [
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), "cannot be read .*: delete it to start over"),
    (lambda path: path.write_bytes(path.read_bytes()[:100]), "cannot be read .*: delete it to start over"),
    (lambda path: path.write_bytes(b""), "cannot be read .*: delete it to start over"),
    (lambda path: path.write_bytes(bytes(range(256)) * 20), "cannot be read .*: delete it to start over"),
    (lambda path: (path.unlink(), path.mkdir()), "cannot be read .*: delete it to start over"),
    (lambda path: save_file({"x": torch.ones(2)}, path), "no checkpoint of this program .*format is None.*name one"),
    (lambda path: save_file({"x": torch.ones(2)}, path, {"format": "pt"}), "format is 'pt', expected 'mmvm-checkpoint"),
], ids=["cut", "header-cut", "empty", "garbage", "folder", "foreign", "foreign-format"])
def test_a_spoilt_checkpoint_is_named_with_a_cure(spoil, message, tmp_path):
    train(out=tmp_path, epochs=1)
    spoil(tmp_path / CHECKPOINT)
    with pytest.raises(UserError, match=rf"{tmp_path / CHECKPOINT}.*{message}"):
        train(out=tmp_path)


def test_an_absent_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=f"there is no checkpoint {tmp_path / 'x'}: correct the path"):
        training.load_weights(make_model(), tmp_path / "x")


@pytest.mark.slow
@pytest.mark.parametrize("options, message", [
    ({"config": {"latent_dim": 3}}, r"latent_dim \(there 2, here 3\)"),
    ({"config": {}}, r"latent_dim \(there 2, here None\)"),
    ({"learning_rate": 0.5}, r"learning_rate \(there 0.01, here 0.5\)"),
    ({"seed": 1, "batch_size": 8}, r"batch_size \(there 32, here 8\), seed \(there 0, here 1\)"),
    ({"data": make_data(100)}, r"n_train \(there 200, here 100\), data \(there \w{10}\.\.\., here \w{10}\.\.\.\)"),
    ({"data": make_data(shift=1e-3)}, r"data \(there \w{10}\.\.\., here \w{10}\.\.\.\)"),
    ({"model": make_model(beta=1000)}, r"beta \(there 0.5, here 1000\)"),
    ({"model": make_model(MMVM("variational"))},
     r"objective \(there 'Calling', here 'MMVM'\), objective's bound \(there 'pairwise', here 'variational'\)"),
    ({"model": make_model(MMVM(weights=[1.0, 3.0]))},
     r"objective \(there 'Calling', here 'MMVM'\), objective's weights \(there None, here \[1.0, 3.0\]\)"),
    ({"model": make_model(width=9)}, "weights of decoders.0.*there \\[8, 2\\], here \\[9, 2\\].* and 8 more"),
    ({"precision": "bfloat16"}, r"precision \(there 'float32', here 'bfloat16'\)"),
    ({"max_grad_norm": 1.0}, r"max_grad_norm \(there None, here 1.0\)"),
])
def test_another_runs_folder_is_refused(options, message, tmp_path):
    train(out=tmp_path, epochs=1, config={"latent_dim": 2})
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(UserError, match=rf"{CHECKPOINT} belongs to another run: {message}\. Choose another folder, or "
                                        "delete it"):
        train(out=tmp_path, **{"config": {"latent_dim": 2}, **options})
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_weights_are_not_loaded_into_another_model(tmp_path):
    train(out=tmp_path, epochs=1)
    with pytest.raises(UserError, match=f"{CHECKPOINT} holds another model: size mismatch.*Build the model from"):
        training.load_weights(make_model(width=9), tmp_path / CHECKPOINT)


def test_a_finished_run_is_not_handed_out_for_another_model(tmp_path, whole):
    """Also where nothing would be trained: all epochs are made."""
    train(out=tmp_path)
    with pytest.raises(UserError, match="beta .there 0.5, here 1000"):
        train(out=tmp_path, model=make_model(beta=1000))
    assert_written(tmp_path, whole)


@pytest.mark.parametrize("format", ["mmvm-checkpoint-1", training.FORMAT])
def test_a_checkpoint_from_before_fingerprints_is_continued_with_a_warning(format, tmp_path, whole):
    train(out=tmp_path, epochs=1)
    tensors, metadata = training.read_checkpoint(tmp_path / CHECKPOINT)
    metadata = {name: text for name, text in metadata.items() if name not in ("data", "architecture")}
    files.write_safetensors(tmp_path / CHECKPOINT, tensors, {**metadata, "format": format})
    with pytest.warns(TrainingWarning, match=f"{CHECKPOINT} was written by an earlier version.*cannot vouch"):
        assert_same(train(out=tmp_path), whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(out=tmp_path)


def test_a_checkpoint_from_before_options_of_layers_is_continued(tmp_path, whole):
    """It names a layer's class alone; another class is another model all the same."""
    def written(changed):
        tensors, metadata = training.read_checkpoint(tmp_path / CHECKPOINT)
        layers = {name: changed(value) if name.startswith("layer ") else value
                  for name, value in json.loads(metadata["architecture"]).items()}
        files.write_safetensors(tmp_path / CHECKPOINT, tensors, {**metadata, "architecture": json.dumps(layers)})
    train(out=tmp_path, epochs=1)
    written(lambda value: value.partition("(")[0])
    assert_same(train(out=tmp_path), whole)
    written(lambda value: value.replace("ReLU", "Tanh"))
    with pytest.raises(UserError, match="there 'Tanh', here 'ReLU'"):
        train(out=tmp_path)


# one process a folder

def test_a_folder_in_use_is_refused_with_its_holder_and_free_again_after(tmp_path, whole):
    def second(step):
        with torch.random.fork_rng(), pytest.raises(UserError, match=message):
            train(out=tmp_path)
        refused.append(step)

    message = (rf"^{tmp_path} is in use by process {os.getpid()} on {platform.node()} since 20\d\d-\d\d-\d\d \d\d:\d\d "
               "UTC: wait until it is done, stop it, or choose another folder$")
    refused = []
    train(Calling(second), out=tmp_path, epochs=1)
    assert refused == list(range(STEPS))
    assert_same(train(out=tmp_path), whole)
    assert_written(tmp_path, whole)


def test_a_lock_left_by_a_killed_process_stops_nobody(tmp_path, whole):
    (tmp_path / lock.LOCK).write_text("process 1 on elsewhere")
    assert_same(train(out=tmp_path), whole)
    assert_written(tmp_path, whole)


def test_without_locks_a_run_goes_on_without_one(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    assert_same(train(out=tmp_path), whole)
    assert_written(tmp_path, whole)


# divergence

def spoilt_data(row=5):
    data = make_data()
    data.modalities["b"][row, 0] = math.nan
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))[:STEPS * BATCH].tolist()
    return data, order.index(row) // BATCH


def test_nan_in_the_data_stops_at_its_update(tmp_path):
    data, step = spoilt_data()
    assert step > 0
    model = make_model()
    with pytest.raises(TrainingDiverged, match=rf"training stopped at update {step}, .*gradient norm nan, loss nan, "
                                               r"regulariser .*, log p\(a\) -\d.*, log p\(b\) nan\. modality 'b', "
                                               r"sample 5, column 0 is nan: for single values that are absent"):
        train(model=model, data=data, check="off")
    assert all(p.isfinite().all() for p in model.parameters()), "the update is not made"


def test_divergence_names_the_last_good_state(tmp_path):
    data, step = spoilt_data()
    with pytest.raises(TrainingDiverged, match=rf"The last good state is in {tmp_path / CHECKPOINT}\.$"):
        train(data=data, out=tmp_path, checkpoint_seconds=0, check="off")
    tensors, metadata = training.read_checkpoint(tmp_path / CHECKPOINT)
    assert json.loads(metadata["progress"])["step"] == step
    assert all(value.isfinite().all() for value in tensors.values())


def test_a_guard_that_looks_rarely_saves_no_broken_state_and_names_the_update(tmp_path, monkeypatch):
    """As on a GPU, where the guard looks every 50 updates."""
    class Rarely(update.Guard):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.interval = training.GUARD_INTERVAL

    monkeypatch.setattr(loop, "Guard", Rarely)
    data, step = spoilt_data()
    with pytest.raises(TrainingDiverged, match=rf"stopped at update {step}, .*log p\(b\) nan"):
        train(data=data, check="off")
    with pytest.raises(TrainingDiverged, match=rf"stopped at update {step}, "):
        train(data=data, out=tmp_path, checkpoint_seconds=0, check="off")
    tensors = training.read_checkpoint(tmp_path / CHECKPOINT)[0]
    assert all(value.isfinite().all() for name, value in tensors.items() if name.startswith("model."))


def test_a_learning_rate_far_too_high_is_told():
    with pytest.raises(TrainingDiverged, match=r"stopped at update \d+, .*Try a smaller learning_rate"):
        train(learning_rate=1e4)


# mistakes

@pytest.mark.parametrize("options, message", [
    ({"epochs": 0}, "epochs must be positive, got 0"),
    ({"batch_size": -1}, "batch_size must be positive, got -1"),
    ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
    ({"learning_rate": math.nan}, "learning_rate must be positive, got nan"),
    ({"device": "gpu"}, "unknown device 'gpu': use 'auto', 'cpu', 'cuda'"),
    ({"device": "cuda:x"}, "unknown device 'cuda:x'"),
    ({"device": "meta"}, "unknown device 'meta'"),
    ({"precision": "float16"}, "unknown precision 'float16': use 'auto', 'float32' or 'bfloat16'"),
])
def test_fit_names_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        train(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(UserError, match="device 'cuda' asked for, but torch sees no GPU: use device='cpu' or 'auto'"):
        train(device="cuda")
    assert training.resolve_device("auto").type == "cpu"


def test_auto_precision_is_what_the_hardware_has(monkeypatch):
    cpu = torch.device("cpu")
    for has, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(device, "cpu_has_bfloat16", lambda has=has: has)
        assert training.resolve_precision("auto", cpu) == expected
    assert training.resolve_precision("float32", cpu) == "float32"
