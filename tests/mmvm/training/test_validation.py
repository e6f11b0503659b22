"""Rows kept out of the training: groups stay together, looks disturb nothing, the best weights survive a kill."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from mmvm import split, training
from mmvm.data import Modality, MultimodalData, Repeated
from mmvm.errors import UserError, ValueWarning
from mmvm.likelihoods import Normal
from mmvm.model import MultimodalVAE
from mmvm.networks import MLPDecoder, MLPEncoder
from mmvm.objectives import MMVM, Schedule
from mmvm.study import figures
from mmvm.training import History
from mmvm.training.checkpoint import CHECKPOINT
from mmvm.training.loop import fit

SPECS = (Modality("a", (4,), Normal(0.5)), Modality("b", (6,), Normal(0.5)))
OVERFITS = dict(epochs=40, learning_rate=5e-2, patience=3)  # of 48 rows the best is seen before the end


def make_data(n=68, seed=1, **changes):
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 2, generator=g)
    x = {"a": common @ torch.randn(2, 4, generator=torch.Generator().manual_seed(8)) + torch.randn(n, 4, generator=g),
         "b": common @ torch.randn(2, 6, generator=torch.Generator().manual_seed(9)) + torch.randn(n, 6, generator=g)}
    return MultimodalData(x, SPECS, **changes)


TRAIN, HELD = split(make_data(), validation=20)


def test_groups_in_another_order_than_the_samples_are_refused():
    names = [f"p{i}" for i in range(68)]
    data = make_data(ids=names)
    groups = pd.Series(np.arange(68) // 4, index=names)
    with pytest.raises(UserError, match="is not that of the samples in their order: give by.loc"):
        split(data, by=groups[::-1])
    train, rows = split(data, by=groups)
    assert not set(groups[train.ids]) & set(groups[rows.ids])


@pytest.mark.parametrize("ids", [None, [f"p{i}" for i in range(67)] + ["q"]])
def test_groups_with_the_index_of_other_rows_are_refused(ids):
    data = make_data(ids=ids)
    groups = pd.Series(np.arange(68) // 4, index=ids and [f"p{i}" for i in range(68)])
    with pytest.raises(UserError, match="index of `by` is not that of the samples in their order: .* by.to_numpy"):
        split(data, by=groups.sample(frac=1, random_state=0))
    assert len(split(data, by=groups.to_numpy())[0]) + len(split(data, by=groups.tolist())[1]) == 68


def make_model(beta=0.5):
    torch.manual_seed(0)
    return MultimodalVAE(SPECS, [MLPEncoder(s.shape, 2, (8,)) for s in SPECS],
                         [MLPDecoder(s.shape, 2, (8,)) for s in SPECS], MMVM(), beta)


def train(model=None, data=TRAIN, **options):
    model = model or make_model()
    history = fit(model, data, **{"epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "device": "cpu",
                                  "precision": "float32", "check": "off", **options})
    return model, history


def test_log_likelihoods_are_means_over_the_samples_that_have_the_modality(tmp_path):
    """A modality that three in four samples lack does not look four times as good; the loss is that of all."""
    observed = torch.ones(2, 68, dtype=torch.bool)
    observed[0, torch.arange(68) % 4 > 0] = False
    data, rows = split(make_data(observed=observed), validation=20)
    model, seen = make_model(), {True: [], False: []}
    model.register_forward_hook(lambda model, given, terms: seen[model.training].append((terms, given[1])))
    history = train(model, data, epochs=1, validation=rows, out=tmp_path)[1]
    for training_, prefix in ((True, ""), (False, "validation_")):
        terms = seen[training_] if training_ else seen[False][-2:]  # of 20 rows in batches of 16; one look came before
        ll = torch.cat([terms.log_likelihood.detach() for terms, _ in terms], 1).double()
        there = torch.cat([mask for _, mask in terms], 1)
        assert 0 < there[0].sum() < there.shape[1] / 2 and there[1].all()
        for m, name in enumerate("ab"):
            mean = float(ll[m, there[m]].mean())
            assert history[f"{prefix}log_likelihood/{name}"][0] == pytest.approx(mean, rel=1e-6)
        loss = torch.cat([terms.loss.detach() for terms, _ in terms])
        assert history[f"{prefix}loss"][0] == pytest.approx(float(loss.mean()), rel=1e-6)
    assert history.epochs == training.read_history(tmp_path)


def columns(history, names=None):
    """The history without times, and without validation where `names` says so."""
    left_out = ("seconds", "samples_per_second", "peak_memory_gb")
    return [{name: value for name, value in row.items() if name not in left_out and (
        names is None or name in names)} for row in history.epochs]


def assert_equal_weights(model, other):
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def loss_of(model, data, step=10**9):
    """Mean loss in eval mode, with the draws of every look."""
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(0)
        parts = [model.eval()(batch.x, batch.observed, step).loss for batch in data.batches(16)]
    return float(torch.cat(parts).double().mean())


class Killed(Exception):
    pass


def killed_after(epoch):
    def stop(model, now):
        if now == epoch:
            raise Killed
        return {}
    return stop


# looks

def test_the_training_is_bit_for_bit_that_without_validation():
    model, history = train()
    watched, with_rows = train(validation=HELD)
    assert_equal_weights(model, watched)
    assert columns(history) == columns(with_rows, names=history.epochs[0])
    assert {name for name in with_rows.epochs[0] if name.startswith("validation_")} == {
        f"validation_{name}" for name in ("loss", "regulariser", "log_likelihood/a", "log_likelihood/b",
                                          "kl_mixture", "kl_standard_normal")}


def test_the_draws_of_what_comes_after_the_training_are_not_moved():
    drawn = []
    for rows in (None, HELD):
        torch.manual_seed(5)
        train(validation=rows)
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_a_look_is_the_mean_over_all_rows_in_eval_mode():
    found = {}
    model, history = train(validation=HELD, on_epoch=lambda model, epoch: found.update({epoch: loss_of(model, HELD)}))
    assert history["validation_loss"] == pytest.approx([found[epoch] for epoch in (1, 2, 3)], rel=1e-6)


def test_every_look_has_the_same_draws():
    history = train(validation=HELD, learning_rate=1e-12, epochs=2)[1]
    first, second = history["validation_loss"]
    assert first == pytest.approx(second, rel=1e-6)
    assert abs(history["loss"][0] - history["loss"][1]) > 1e-3  # the training's draws are new ones


def test_epochs_compare_while_beta_rises():
    model, history = train(make_model(Schedule(0.0, 0.5, 100, "linear")), validation=HELD, epochs=1)
    row = history.epochs[0]
    likelihood = row["validation_log_likelihood/a"] + row["validation_log_likelihood/b"]
    assert row["validation_loss"] == pytest.approx(-likelihood + 0.5 * row["validation_regulariser"], rel=1e-5)


def test_rows_are_looked_at_every_so_many_epochs():
    history = train(validation=HELD, validate_every=2, epochs=5)[1]
    assert ["validation_loss" in row for row in history.epochs] == [False, True, False, True, False]


def test_batch_statistics_do_not_see_validation_rows():
    def model():
        torch.manual_seed(0)
        encoders = [MLPEncoder(s.shape, 2, (8,)) for s in SPECS]
        for encoder, spec in zip(encoders, SPECS):
            encoder.register_module("norm", torch.nn.BatchNorm1d(spec.shape[0]))
            plain = encoder.forward
            encoder.forward = lambda x, plain=plain, norm=encoder.norm: plain(norm(x))
        return MultimodalVAE(SPECS, encoders, [MLPDecoder(s.shape, 2, (8,)) for s in SPECS], MMVM())
    assert_equal_weights(train(model())[0], train(model(), validation=HELD)[0])


# the best epoch

@pytest.fixture(scope="module")
def whole():
    """A run that stops early, and that nothing interrupts."""
    return train(validation=HELD, **OVERFITS)


def test_a_run_stops_after_its_patience_with_its_best_weights(whole):
    model, history = whole
    losses = history["validation_loss"]
    assert history.best == 1 + losses.index(min(losses)) and 3 < len(losses) == history.best + 3 < 40
    assert loss_of(model, HELD) == pytest.approx(min(losses), rel=1e-6)


def test_without_patience_the_last_weights_stay(whole):
    model, history = train(validation=HELD, **{**OVERFITS, "epochs": len(whole[1].epochs), "patience": None})
    assert history.best == whole[1].best and columns(history) == columns(whole[1])
    assert loss_of(model, HELD) == pytest.approx(history["validation_loss"][-1], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("where", [-1, 0, 2])
def test_a_killed_run_resumes_with_its_best_weights(whole, tmp_path, where):
    at = whole[1].best + where  # before the best epoch is written, while it is, and after it
    with pytest.raises(Killed):
        train(validation=HELD, out=tmp_path, on_epoch=killed_after(at), **OVERFITS)
    resumed, history = train(validation=HELD, out=tmp_path, **OVERFITS)
    assert_equal_weights(whole[0], resumed)
    assert columns(history) == columns(whole[1]) and history.best == whole[1].best
    again, history = train(validation=HELD, out=tmp_path, **OVERFITS)  # finished: nothing is trained any more
    assert_equal_weights(whole[0], again)
    assert len(history.epochs) == len(whole[1].epochs)


@pytest.mark.slow
def test_a_run_killed_within_an_epoch_resumes_with_its_best_weights(whole, tmp_path, monkeypatch):
    step, made = torch.optim.Adam.step, []

    def kill(self, *rest):
        made.append(1)
        if len(made) == 3 * (whole[1].best + 1):  # three updates an epoch
            raise Killed
        return step(self, *rest)
    monkeypatch.setattr(torch.optim.Adam, "step", kill)
    with pytest.raises(Killed):
        train(validation=HELD, out=tmp_path, checkpoint_seconds=0.0, **OVERFITS)
    monkeypatch.undo()
    resumed, history = train(validation=HELD, out=tmp_path, **OVERFITS)
    assert_equal_weights(whole[0], resumed)
    assert columns(history) == columns(whole[1])


def test_what_is_loaded_is_what_fit_returned(whole, tmp_path, capsys):
    model, history = train(validation=HELD, out=tmp_path, **OVERFITS)
    assert f"epoch {history.best}, the best by loss" in capsys.readouterr().err
    loaded = make_model()
    training.load_weights(loaded, tmp_path / CHECKPOINT)
    assert_equal_weights(model, loaded)


def test_log_likelihoods_are_better_the_higher_they_are():
    history = train(validation=HELD, watch="log_likelihood/b", **OVERFITS)[1]
    values = history["validation_log_likelihood/b"]
    assert history.best == 1 + values.index(max(values)) > 1


def test_what_is_not_finite_is_never_the_best():
    rows = [{"epoch": 1, "validation_loss": math.nan}, {"epoch": 2, "validation_loss": 5.0},
            {"epoch": 3, "validation_loss": 5.0}, {"epoch": 4}]
    assert History(rows).best == 2 and History(rows[:1]).best is None and History(rows[3:]).best is None


@pytest.mark.parametrize("options, message", [
    (dict(patience=2), "are about validation rows: give some"), (dict(watch="kl_mixture"), "give some"),
    (dict(validation=HELD, watch="accuracy"), "watch='accuracy' is no term of this loss: choose one of loss, regular"),
    (dict(validation=HELD, patience=0), "patience must be positive"),
    (dict(validation=HELD, validate_every=0), "validate_every must be positive"),
    (dict(validation=MultimodalData({"a": torch.randn(9, 4)}, SPECS[:1])), r"the modalities \['a'\], the training"),
    (dict(validation=make_data(9, ids=list("abcdefghi")), data=make_data(3, ids=["x", "a", "y"]), check="on",
          batch_size=3), None),
])
def test_mistakes_are_one_clear_line(options, message):
    if message is None:
        with pytest.warns(UserWarning, match="1 of 9 validation samples are also training samples.*: a"):
            train(epochs=1, **options)
        return
    with pytest.raises(UserError, match=message) as error:
        train(**options)
    assert "\n" not in str(error.value)


def test_values_of_validation_rows_are_looked_at_too():
    broken = make_data(9)
    broken.modalities["b"][3, 2] = math.nan
    with pytest.raises(UserError, match="validation rows: modality 'b', sample 3, column 2 is nan"):
        train(validation=broken, check="on")


@pytest.mark.parametrize("change", [dict(patience=4), dict(watch="regulariser"), dict(validation=make_data(20, 3)),
                                    dict(validation=None, patience=None), dict(validate_every=2)])
def test_a_run_is_not_continued_under_other_validation(tmp_path, change):
    settings = {**OVERFITS, "validation": HELD, "out": tmp_path, "epochs": 1}
    train(**settings)
    with pytest.raises(UserError, match=f"another run: .*({'|'.join(change)})"):
        train(**{**settings, **change})


# split

def test_groups_stay_together_and_rows_keep_their_order():
    by = np.random.default_rng(0).integers(25, size=68)
    data = make_data(ids=[f"{group}-{i}" for i, group in enumerate(by)])
    kept, held = split(data, by=by, validation=0.25, seed=3)
    groups = [{name.split("-")[0] for name in part.ids} for part in (kept, held)]
    assert not groups[0] & groups[1] and len(groups[0] | groups[1]) == len(set(by))
    assert len(kept) + len(held) == 68 and abs(len(held) - 17) <= 2
    for part in (kept, held):
        rows = [int(name.split("-")[1]) for name in part.ids]
        assert rows == sorted(rows) and torch.equal(part.modalities["b"], data.modalities["b"][rows])


@pytest.mark.parametrize("by", [np.repeat(np.arange(17), 4), [f"patient {i // 4}" for i in range(68)],
                                torch.arange(68) // 4, pd.Series(np.arange(68) // 4, dtype=object)])
def test_groups_may_be_numbers_or_names(by):
    held = split(make_data(ids=list(map(str, range(68)))), by=by, validation=8)[1]
    rows = np.array(list(map(int, held.ids)))
    assert len(rows) == 8 and (np.bincount(rows // 4)[np.unique(rows // 4)] == 4).all()


def test_the_seed_chooses_and_chooses_again():
    data = make_data(ids=list(map(str, range(68))))
    first, again, other = (split(data, seed=seed)[1].ids for seed in (0, 0, 1))
    assert first == again != other and len(first) == 7


def test_a_group_too_large_for_the_share_is_passed_over():
    by = [0] * 50 + list(range(1, 19))
    for seed in range(5):
        assert len(split(make_data(), by=by, validation=0.1, seed=seed)[1]) == 7


@pytest.mark.parametrize("options, message", [
    (dict(validation=0), "a share between 0 and 1, or a number of rows below 68, got 0"),
    (dict(validation=1.5), "got 1.5"), (dict(validation=68), "got 68"), (dict(validation=True), "got True"),
    (dict(by=[1, 2, 3]), r"`by` is of shape \(3,\): give one group for each of the 68"),
    (dict(by=["x"] * 68), "there is 1 group in `by`, and both parts need one"),
    (dict(by=[0] * 30 + [1] * 38), "asks for 6.8 of 68 rows, .* 2 groups has 30: ask for more, at least validation=30"),
    (dict(by=[None, "x"] * 34), "34 samples have no group in `by` .the first: sample 0."),
    (dict(by=[1.0, math.nan] * 34), "the first: sample 1"),
])
def test_a_split_that_cannot_be_is_one_clear_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        split(make_data(), **options)
    assert "\n" not in str(error.value)


def test_few_rows_are_told_the_number_that_can_be_asked_for():
    few = make_data(3)
    with pytest.raises(UserError, match=r"asks for 0.3 of 3 rows, .* has 1: ask for more, at least validation=1$"):
        split(few)
    assert [len(part) for part in split(few, validation=1)] == [2, 1]


@pytest.mark.parametrize("validation, said", [(1_000, "1,000"), (0.2, "1,000"), (0.20003, "1,000.2")])
def test_a_number_of_rows_is_said_in_full(validation, said):
    data = MultimodalData({"a": torch.zeros(5_000, 1)}, (Modality("a", (1,), Normal()),))
    with pytest.raises(UserError, match=f"asks for {said} of 5,000 rows"):
        split(data, by=[0] * 2_500 + [1] * 2_500, validation=validation)


def test_training_rows_without_ids_are_known_again():
    data = make_data()
    with pytest.warns(ValueWarning, match="20 of 20 validation samples are also training samples .the first: 0."):
        train(make_model(), data, validation=data.subset(slice(20, 40)), epochs=1, check="on")


def test_a_split_of_files_copies_nothing(tmp_path):
    x = torch.randn(60, 4).numpy()
    np.save(tmp_path / "a.npy", x)
    data = MultimodalData.from_files({"a": tmp_path / "a.npy"}, SPECS[:1], ids=list(map(str, range(60))))
    kept, held = split(data, validation=0.2)
    for part in (kept, held, held.subset([2, 0])):
        rows = list(map(int, part.ids))
        assert isinstance(part.modalities["a"], Repeated) and part.files == data.files
        assert torch.equal(part.modalities["a"][:], torch.from_numpy(x[rows]))
        assert torch.equal(part.batch(torch.tensor([1])).x[0], torch.from_numpy(x[rows[1:2]]))


# the figure

def test_the_figure_shows_both_curves_and_the_best_epoch(whole):
    history = whole[1]
    fig = figures.history(history)
    assert [ax.get_ylabel() for ax in fig.axes] == ["loss", "regulariser", "log-likelihood, a", "log-likelihood, b"]
    assert "nats per sample" in fig.get_supylabel() and {ax.get_xlabel() for ax in fig.axes} == {"epoch"}
    for ax in fig.axes:
        shown = {line.get_label(): line for line in ax.lines}
        assert list(shown) == ["training", "validation", f"best epoch, {history.best}"]
        assert list(shown["validation"].get_ydata()) == history[
            "validation_" + ax.get_ylabel().replace("log-likelihood, ", "log_likelihood/")]
        assert list(shown[f"best epoch, {history.best}"].get_xdata()) == [history.best] * 2
    plt.close(fig)


def test_the_figure_takes_read_histories_with_gaps_and_without_validation():
    rows = [{"epoch": e, "loss": 3.0 - e, **({"validation_loss": 4.0} if e == 2 else {})} for e in (1, 2, 3)]
    fig = figures.history(rows)
    assert [list(line.get_xdata()) for line in fig.axes[0].lines] == [[1, 2, 3], [2], [2, 2]]
    plain = figures.history(rows[:1], ["loss"])
    assert [line.get_label() for line in plain.axes[0].lines] == ["training"]
    plt.close(fig)
    plt.close(plain)
    with pytest.raises(UserError, match="no column 'los' .*loss"):
        figures.history(rows, ["los"])
    with pytest.raises(UserError, match="no column 'loss' to draw: choose from none, there is no epoch: train first"):
        figures.history([])
