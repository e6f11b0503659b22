"""The chapter's networks, experiment and commands, on rats of a few units: every step of a run, tiny."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SEED

from mmvm import evaluation, study
from mmvm.__main__ import main
from mmvm.errors import UserError
from mmvm.objectives import METHODS
from mmvm.study import results
from studies.hippocampus import data as hippocampus, figures, files, simulator as hippocampus_simulator
from studies.hippocampus.files import Session
from studies.hippocampus.networks import OdorClassifier, SpikeDecoder, SpikeEncoder
from studies.hippocampus.study import Hippocampus
from tools import hippocampus_latents

TINY = dict(n_modalities=3, network="dense:width=8", epochs=1, windows="bins:stride=5",
            n_folds=2, classifier_epochs=1, classifier_width=8,
            device="cpu")
PER_ANIMAL = {"probe", "probe_shared", "deviance_label", "reconstruction", "squared_error", "odor_recovery",
              "odor_recovery_shared", "state_recovery"}
PAIRS = {"probe_transfer", "coherence", "imputation", "deviance_explained"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    rats = hippocampus_simulator.simulate(0, {"Barat": 6, "Mitt": 5, "Stella": 4}, dict.fromkeys(
        ("Barat", "Mitt", "Stella"), 90))
    return str(hippocampus_simulator.write(tmp_path_factory.mktemp("data") / "rats", 0, rats))


@pytest.fixture(scope="module")
def finished(root, runs):
    return study.run(Hippocampus(root=root, out=str(runs / "one"), **TINY))


# networks ------------------------------------------------------------------------------------------------------------

def test_the_papers_layers():
    encoder, decoder = SpikeEncoder((92, 10), 2, bottleneck=True), SpikeDecoder((92, 10), 2)
    shapes = [tuple(layer.weight.shape) for layer in encoder.modules() if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(920, 920), (920, 920), (2, 920), (2, 2), (2, 2)]
    shapes = [tuple(layer.weight.shape) for layer in decoder.modules() if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(920, 2), (920, 920), (920, 920)]
    shapes = [tuple(layer.weight.shape) for layer in OdorClassifier((46, 10), 4).modules()
              if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(1024, 460), (512, 1024), (256, 512), (64, 256), (4, 64)]


@pytest.mark.parametrize("bottleneck, rank", [(True, 2), (False, 4)])
def test_a_bottleneck_leaves_mean_and_logvar_two_numbers_together(bottleneck, rank):
    encoder = SpikeEncoder((5, 10), 2, width=16, bottleneck=bottleneck).eval()
    both = torch.cat(encoder(3 * torch.rand(30, 5, 10)), 1)
    assert torch.linalg.matrix_rank(both - both.mean(0), rtol=1e-4) == rank


def test_whole_units_are_silenced_in_training_alone():
    encoder = SpikeEncoder((5, 10), 2, width=16, dropout=0.5)
    silenced = encoder.silence(torch.ones(200, 5, 10))
    assert set(silenced.unique().tolist()) == {0.0, 2.0} and (silenced.std(2) == 0).all()
    x = torch.rand(4, 5, 10)
    encoder.eval()
    assert torch.equal(encoder(x)[0], encoder(x)[0])


@pytest.mark.parametrize("likelihood", hippocampus.LIKELIHOODS)
def test_untrained_decoders_start_at_the_mean_rates(root, likelihood):
    p = Hippocampus(root=root, likelihood=likelihood, **TINY)
    train = p.data("train")
    model = p.build_model(train)
    for spec, decoder, x in zip(train.specs, model.decoders, train.modalities.values()):
        predicted = spec.likelihood.mean(decoder.out.bias.view(spec.shape)) / spec.scale
        assert torch.allclose(predicted, x.float().mean((0, 2)).unsqueeze(1).expand(spec.shape), atol=2e-3)
    mean, logvar = model.encoders[0](torch.zeros(3, *train.specs[0].shape))
    assert (logvar + 6).abs().max() < 3
    papers = replace(p, network="dense:start_at_mean=false,start_logvar=0,width=0,bottleneck=true").build_model(train)
    assert papers.encoders[0].trunk[0].weight.shape == (60, 60) and papers.encoders[0].mean.in_features == 2


def test_decoders_start_at_the_means_of_what_was_observed():
    """Not at what stands in for the trials that an animal lacks: its first trial may be one for testing."""
    random = np.random.default_rng(0)
    few = random.poisson(1.0, (8, 3, 25))
    few[0] = 100
    sessions = {"Ann": Session(random.poisson(1.0, (40, 3, 25)), np.arange(40) % 2),
                "Bob": Session(few, np.arange(8) % 2)}
    p = Hippocampus(odors="AB", unequal="missing", fold=0, **{**TINY, "n_modalities": 2, "n_folds": 4})
    for fold in range(4):
        train = replace(p, fold=fold).cut(sessions, "train")
        seen = set(train.trials[1][train.observed[1]].tolist())
        start = p.build_model(train).decoders[1].out.bias.view(3, 10).mean(1)
        mean = train.modalities["Bob"][train.observed[1]].float().mean((0, 2)) / 10
        assert torch.allclose(start, mean, atol=1e-4) and (0 in seen or start.max() < 0.2)


# a run ---------------------------------------------------------------------------------------------------------------

def test_a_run_measures_everything(finished):
    metrics = finished.metrics
    assert {name for name, value in metrics.items() if value.shape == (3,)} == PER_ANIMAL | {"classifier_accuracy"}
    assert {name for name, value in metrics.items() if value.shape == (3, 3)} == PAIRS
    assert all(np.isfinite(value).all() for value in metrics.values())
    for name in ("probe", "probe_shared", "probe_transfer", "coherence", "classifier_accuracy"):
        assert (metrics[name] >= 0).all() and (metrics[name] <= 1).all()
    assert (metrics["probe"] == np.diag(metrics["probe_transfer"])).all()
    units = np.array([6, 5, 4])
    assert metrics["squared_error"] == pytest.approx(metrics["reconstruction"] - 5 * units * np.log(np.pi), abs=1e-4)
    assert metrics["squared_error"].min() > 0
    assert "95th percentile" in metrics.notes["probe_chance"]


def test_the_papers_probe_is_the_diagonal(finished):
    p = finished.parameters
    train, test = p.data("train"), p.data("test")
    assert evaluation.linear_probe(finished.model, train, test, n=None) == pytest.approx(finished.metrics["probe"])


def test_rows_are_averages_and_the_animals_of_the_probes(finished, runs):
    rows = results.read(runs / "one" / "results.csv")
    assert (rows["source"] == "").all() and set(rows["experiment"]) == {"hippocampus"}
    single = rows[rows["target"].isin(["Barat", "Mitt", "Stella"])]
    assert set(single["metric"]) == {"probe", "probe_shared"} and len(single) == 6
    assert set(rows[rows["target"] == "cross"]["metric"]) == PAIRS
    assert results.per_run(rows)["probe_shared"].iloc[0] == pytest.approx(finished.metrics["probe_shared"].mean(), 1e-4)


def test_a_run_measures_what_each_latent_keeps(root, runs):
    p = Hippocampus(root=root, information=True, out=str(runs / "kept"), **TINY)
    assert p.run_hash() != replace(p, information=False).run_hash()
    study.run(p)
    rows = results.read(runs / "kept" / "results.csv")
    found = {metric: set(part["target"]) for metric, part in rows.groupby("metric")}
    of_animals = {"Barat", "Mitt", "Stella", "mean"}
    factors = {"odor", "position", "time", "state_1", "state_2"}
    assert {name for name in found if name.startswith("factor_")} == {
        f"factor_{name}_{probe}" for name in factors for probe in ("linear", "nonlinear")}
    assert all(found[f"factor_{name}_linear"] == of_animals for name in factors)
    assert found["information"] == found["information_upper"] == of_animals
    assert found["information_shared"] == found["information_private"] == {"cross"}
    note = rows.set_index("metric").loc["information", "note"].iloc[0]
    assert note == f"ceiling={np.log(len(p.data('test'))):.2f}"


def test_factors_are_those_that_are_known_and_differ(root):
    """Positions and states are each animal's own, odor and time are common."""
    p = Hippocampus(root=root, **TINY)
    train, test = p.data("train"), p.data("test")
    factors = p.known(train, test)
    assert list(factors) == ["odor", "time", "position", "state_1", "state_2"]
    for number, session in enumerate(p.sessions().values()):
        rows = test.trials[number].numpy()
        assert np.array_equal(factors["position"][1][number], session.position[rows])
        assert np.array_equal(test.labels.numpy(), session.odor[rows])
    assert np.array_equal(np.unique(factors["time"][0]), [0, 1, 2, 3])
    own = {name: files.Session(s.spikes, s.odor, start=s.start) for name, s in p.sessions().items()}
    one = replace(p, windows="bins:stride=25")
    assert list(one.known(one.cut(own, "train"), one.cut(own, "test"))) == ["odor"], "all that is known"


def test_too_few_windows_for_what_latents_keep_are_refused_before_the_training(root):
    p = Hippocampus(root=root, information=True, latent_dim=200, **TINY)
    p.data("train")
    with pytest.raises(UserError, match="information takes 800 test windows at latent_dim=200, two animals have"):
        p.data("test")


def _counts(per_odor, seed=0, **fields):
    odor = np.repeat(np.arange(len(per_odor)), per_odor)
    return Session(np.random.default_rng(seed).poisson(1.0, (len(odor), 3, 25)), odor, **fields)


def test_halves_of_the_trials_and_validation_windows_are_counted_too():
    p = Hippocampus(information=True, odors="AB", seed=4, **{**TINY, "n_modalities": 2, "n_folds": 5})
    sessions = {name: _counts((13, 12), seed) for seed, name in enumerate(("Ann", "Bob"))}
    cut = replace(p, latent_dim=4).cut(sessions, "test")
    assert len(cut) == 16, "four trials of four windows: halves of eight"
    with pytest.raises(UserError, match="takes 20 test windows at latent_dim=5, two animals have 16, and 8 in half"):
        replace(p, latent_dim=5).cut(sessions, "test")
    three = {name: _counts((13, 7), seed) for seed, name in enumerate(("Ann", "Bob"))}
    assert len(replace(p, latent_dim=2).cut(three, "test")) == 12
    with pytest.raises(UserError, match="takes 12 test windows at latent_dim=3, two animals have 12, and 4 in half of"):
        replace(p, latent_dim=3).cut(three, "test")
    held = replace(p, latent_dim=4, n_validation=4)
    with pytest.raises(UserError, match="takes 16 validation windows at latent_dim=4, two animals have 4, .* n_valid"):
        held.cut(sessions, "validation")


def test_an_animal_without_windows_of_a_split_is_refused_before_the_training():
    sessions = {"Ann": _counts((20, 20)), "Bob": _counts((2, 2), 1)}
    p = Hippocampus(odors="AB", unequal="missing", fold=4, **{**TINY, "n_modalities": 2, "n_folds": 5})
    p.cut(sessions, "train")
    with pytest.raises(UserError, match="Bob has test windows of 0 odors in fold 4 of 5, 1 needed: leave the animal"):
        p.cut(sessions, "test")
    with pytest.raises(UserError, match="Bob has train windows of 1 odors in fold 0 of 5, 2 needed"):
        replace(p, fold=0).cut({"Ann": _counts((20, 20)), "Bob": _counts((1, 2), 1)}, "train")


def test_a_factor_that_differs_in_absent_windows_alone_is_none():
    place = np.full(8, 3)
    place[0] = 1
    sessions = {"Ann": _counts((20, 20), position=np.arange(40)), "Bob": _counts((4, 4), 1, position=place)}
    p = Hippocampus(odors="AB", unequal="missing", **{**TINY, "n_modalities": 2, "n_folds": 4})
    for fold in range(4):
        q = replace(p, fold=fold)
        train, test = q.cut(sessions, "train"), q.cut(sessions, "test")
        assert "position" not in q.known(train, test), "Bob's places differ in one of the two parts at most"


def test_load_gives_the_model_back(finished, runs, root):
    p, model = study.load(runs / "one", root=root)
    assert isinstance(p, Hippocampus) and p.network == "dense:width=8"
    test = finished.parameters.data("test")
    again = evaluation.encode_means(model, test)
    assert torch.equal(again, evaluation.encode_means(finished.model, test))


@pytest.mark.slow
@pytest.mark.parametrize("objective", METHODS)
def test_every_method_runs_with_both_likelihoods(objective, root, runs):
    for likelihood in hippocampus.LIKELIHOODS:
        p = Hippocampus(root=root, likelihood=likelihood, **TINY).with_method(objective)
        found = study.run(p)
        assert np.isfinite(found.metrics["deviance_explained"]).all()
        assert ("squared_error" in found.metrics) == (likelihood == "squared_error")


def test_missing_modalities_train_and_are_measured(root, runs):
    p = Hippocampus(root=root, unequal="missing", **TINY)
    train = p.data("train")
    assert not train.observed.all()
    found = study.run(p)
    assert np.isfinite(found.metrics["probe_shared"]).all() and "odor_recovery" not in found.metrics


def test_controls_are_named_in_the_rows(root, runs):
    p = Hippocampus(root=root, in_sample=True, shuffle_odors=True, **TINY)
    train, test = p.data("train"), p.data("test")
    assert torch.equal(train.trials, test.trials)
    found = study.run(p)
    assert all(row["note"].startswith("in sample; odors permuted") for row in found.rows)


def test_seeds_are_folds_too_unless_one_is_named(root):
    p = Hippocampus(root=root, **{**TINY, "n_folds": 3})
    folds = [replace(p, seed=seed).data("test").trials for seed in range(4)]
    assert torch.equal(folds[0], folds[3]) and not torch.equal(folds[0][:, :4], folds[1][:, :4])
    assert torch.equal(replace(p, seed=1, fold=0).data("test").trials, folds[0])


@pytest.mark.parametrize("settings, words", [
    (dict(fold=5), "fold must be below n_folds"), (dict(odors="AB1"), "odors must be different letters"),
    (dict(odors="AA"), "odors must be different letters"),
    (dict(network="dense:dropout=1"), "dropout must be number at least 0 at most 0.99"),
    (dict(objective="mmvaeplus:private_dim=2"), "private_dim must be below latent_dim")])
def test_impossible_settings(settings, words):
    with pytest.raises(UserError, match=words):
        Hippocampus(**settings)


def test_too_few_animals(root):
    with pytest.raises(UserError, match="holds 3 animals, n_modalities asks for 5"):
        Hippocampus(root=root).data("train")


def test_rats_are_simulated_where_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVM_DATA", str(tmp_path))
    small = {name: 3 for name in files.STARTS}
    made = hippocampus_simulator.simulate(0, small, dict.fromkeys(small, 60))
    monkeypatch.setattr(hippocampus_simulator, "simulate", lambda seed=0: made)
    assert Hippocampus(odors="AB").data("test").names == list(files.STARTS)
    assert (tmp_path / "hippocampus" / "truth.npz").exists()
    with pytest.raises(UserError, match="holds no folders"):
        Hippocampus(root=str(tmp_path / "elsewhere")).data("train")


# your own sessions, and the command line -----------------------------------------------------------------------------

@pytest.mark.slow
def test_arrays_go_straight_into_the_pipeline(runs):
    """The snippet of the chapter, with checks: a strong code is found, and shared by a probe."""
    random = np.random.default_rng(SEED)

    def session(n_units):
        stimulus = random.permutation(np.repeat([0, 1, 2], 30))
        rate = random.gamma(0.5, 0.4, (3, n_units))
        return Session(random.poisson(rate[stimulus][:, :, None], (90, n_units, 25)), stimulus)
    mine = {"Ada": session(30), "Barat": session(22), "Cy": session(41)}        # a name of the release means nothing
    p = replace(Hippocampus.from_profile("poisson"), n_modalities=3, odors="ABC", epochs=10, device="cpu",
                seed=SEED)
    found = study.run(p, p.cut(mine, "train"), p.cut(mine, "test"))
    assert found.metrics["probe"].min() > 0.8 and found.metrics["probe_shared"].mean() > 0.7
    assert found.metrics["deviance_explained"].min() > 0.08  # measured .16 to .24 over 3 seeds
    assert "odor_recovery" not in found.metrics


def test_commands(tmp_path, root, capsys, monkeypatch):
    made = hippocampus_simulator.simulate(0, {"Barat": 3}, {"Barat": 60})
    monkeypatch.setattr(hippocampus_simulator, "simulate", lambda seed=0: made)
    assert main(["data", "hippocampus", "--simulate", "--root", str(tmp_path / "new")]) == 0
    assert main(["data", "hippocampus", "--check", "--root", str(tmp_path / "new")]) == 0
    assert "Barat: 60 trials, 3 units, 400 bins, windows from bin 225; counts" in capsys.readouterr().out
    assert main(["data", "hippocampus", "--simulate", "--root", str(tmp_path / "new")]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["data", "hippocampus", "--check", "--root", str(tmp_path / "none")]) == 2
    assert main(["data", "hippocampus"]) == 0
    assert "Dryad" in capsys.readouterr().out


# figures -------------------------------------------------------------------------------------------------------------

@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_figures_show_every_animal_and_odor(root):
    sessions = files.read(root)
    axes = figures.rasters(sessions, 0).axes
    assert len(axes) == 3 and axes[0].get_figure().get_supxlabel() == "time after port entry, ms"
    left, right = figures.unit_by_odor(sessions["Mitt"], 0, dict(zip("ABCD", range(4)))).axes
    assert len(right.lines) == 4 and right.lines[0].get_xdata()[[0, -1]].tolist() == [-500, 990]
    data = hippocampus.load("test", root)
    z = {method: np.random.default_rng(0).standard_normal((3, len(data), 2)) for method in ("mmvm", "independent")}
    for figure in (figures.odor_maps(z, data.labels.numpy(), data.names, "ABCD"),
                   figures.trajectories(z, data.labels.numpy(), data.window.numpy(), data.names, "ABCD")):
        assert len(figure.axes) == 6 and figure.axes[0].get_ylabel() == "MMVM"


@pytest.mark.parametrize("bins, start, entry", [(60, 20, None), (60, 20, 12), (8, 0, None), (700, 600, 90)])
def test_figures_follow_a_recording_of_other_bins(bins, start, entry):
    random = np.random.default_rng(0)
    odor = np.repeat([1, 3], [2, 7])  # fewer trials than four, and neither A nor C
    own = Session(random.poisson(0.4, (9, 3, bins)), odor, start=start, entry=entry, bin_ms=50)
    other = Session(random.poisson(0.4, (9, 2, bins + 5)), odor, start=start, entry=entry, bin_ms=50)
    axes = figures.rasters({"Own": own, "Other": other}, 1, 25).axes
    drawn = axes[0].lines[0].get_xdata()
    first = 0 if entry is None else max(min(entry, start) - 50, 0)
    shown = [first, bins - 1] if entry is None else [50 * (first - entry), 50 * (min(bins, start + 50) - 1 - entry)]
    assert shown[0] <= drawn.min() and drawn.max() <= shown[1]
    assert (axes[0].get_figure().get_supxlabel() == "bin of the trial") == (entry is None)
    unit = figures.clearest_unit(own, [1, 3])
    left, right = figures.unit_by_odor(own, unit, {"B": 1, "D": 3}).axes
    assert [line.get_xdata()[[0, -1]].tolist() for line in right.lines] == [shown, shown]
    assert right.get_ylabel() == ("spikes per bin" if entry is None else "firing rate, Hz")
    assert len(figures.rasters({"Own": own}, 0).axes[0].lines[0].get_xdata()) == 0, "no such trial"


def test_a_constant_rate_is_drawn_as_one_up_to_the_edges():
    session = Session(np.ones((4, 1, 25)), np.array([0, 0, 1, 1]))
    right = figures.unit_by_odor(session, 0, {"A": 0, "B": 1}).axes[1]
    assert all(np.allclose(line.get_ydata(), 1) for line in right.lines)


def test_kept_latents_are_whole_or_as_they_were(tmp_path, monkeypatch):
    path = tmp_path / "hippocampus_latents.npz"
    monkeypatch.setattr(hippocampus_latents.paths, "results_root", lambda: tmp_path)
    monkeypatch.setattr(hippocampus_latents.paths, "REPOSITORY", tmp_path)
    monkeypatch.setattr(hippocampus_latents, "Hippocampus", SimpleNamespace(from_profile=lambda name: Hippocampus()))
    monkeypatch.setattr(hippocampus_latents.learning_rates, "rats", lambda: None)
    monkeypatch.setattr(hippocampus_latents.learning_rates, "chosen",
                        lambda rows, by: pd.DataFrame({"method": ["mmvm"]}))
    monkeypatch.setattr(hippocampus_latents, "latents", lambda p, best: {"mmvm": np.zeros((3, 4, 2), np.float16)})
    monkeypatch.setattr("sys.argv", ["hippocampus_latents.py"])
    hippocampus_latents.main()
    assert dict(np.load(path))["rats/mmvm"].shape == (3, 4, 2)
    before = path.read_bytes()

    def killed(file, **arrays):
        (open(file, "wb") if isinstance(file, Path) else file).write(b"half")
        raise KeyboardInterrupt
    monkeypatch.setattr(np, "savez_compressed", killed)
    with pytest.raises(KeyboardInterrupt):
        hippocampus_latents.main()
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("latent_dim, said", [(1, "MMVM, one latent"), (2, "MMVM"), (5, "MMVM, PCA of 5")])
def test_maps_of_any_latent_size_with_animals_missing(latent_dim, said):
    z = np.random.default_rng(0).standard_normal((2, 12, latent_dim))
    z[1, :6] = np.nan  # unequal="missing": no trial of odor A in the second animal
    labels, window = np.repeat([0, 1], 6), np.tile([0, 1], 6)
    for figure in (figures.odor_maps({"mmvm": z}, labels, ["Ada", "Bo"], "AB"),
                   figures.trajectories({"mmvm": z}, labels, window, ["Ada", "Bo"], "AB")):
        assert figure.axes[0].get_ylabel() == said


def test_a_number_that_overflowed_is_no_row(finished, root):
    p = finished.parameters
    metrics = study.Metrics({"deviance_explained": np.full((3, 3), -np.inf), "probe": np.full(3, 0.5)})
    rows = p.rows(metrics, finished.history, torch.device("cpu"), p.data("train"))
    assert {row["metric"] for row in rows} == {"probe"}
