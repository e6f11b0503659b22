"""The rats: what the loader promises and refuses, what the simulator writes, and that the paper's way is on offer."""

import gzip
import shutil
import unicodedata

import numpy as np
import pytest
import torch

from mmvm.errors import UserError
from mmvm.likelihoods import Normal, Poisson
from studies.hippocampus import data as hippocampus, files, simulator as hippocampus_simulator
from studies.hippocampus.data import from_sessions, load, trial_numbers
from studies.hippocampus.files import Session

UNITS, TRIALS = {"Barat": 6, "Mitt": 5, "Stella": 4}, {"Barat": 90, "Mitt": 100, "Stella": 80}


def marked(name_number: int, odors) -> Session:
    """A session whose spikes say who they are: animal in bin 225, trial in bin 226, bins alike after that."""
    spikes = np.zeros((len(odors), 3, 400), dtype=np.float64)
    spikes[:, :, 225:250] = np.arange(25)[None, None] / 1000
    spikes[:, 0, 225:250] += name_number
    spikes[:, 1, 225:250] += np.arange(len(odors))[:, None]
    return Session(spikes, np.asarray(odors), start=225)


@pytest.fixture(scope="module")
def rats():
    return hippocampus_simulator.simulate(3, UNITS, TRIALS)


@pytest.fixture
def root(tmp_path, rats):
    return hippocampus_simulator.write(tmp_path / "rats", 3, rats)


@pytest.fixture
def sessions():
    random = np.random.default_rng(0)
    return {name: marked(m, random.permutation(np.repeat(np.arange(5), n)))
            for m, (name, n) in enumerate({"Barat": 12, "Own": 15, "Zoe": 10}.items())}


def trials_in(data):
    """Per animal the set of trials, read from the spikes themselves."""
    return [set(x[:, 1, 0].round().long().tolist()) for x in data.modalities.values()]


# pairs, folds, windows -----------------------------------------------------------------------------------------------

def test_windows_are_the_papers(sessions):
    data = from_sessions(sessions, "in_sample")
    assert len(data) == 4 * 10 * 16                                      # odors x the fewest trials x windows
    assert {spec.shape for spec in data.specs} == {(3, 10)} and data.n_classes == 4
    assert data.window.tolist()[:17] == [*range(16), 0]
    first_bin = data.modalities["Zoe"][:, 2, 0]
    assert torch.allclose(first_bin, data.window / 1000, atol=1e-6)                 # 225 + window
    assert torch.allclose(data.modalities["Zoe"][:, 2, 9], (data.window + 9) / 1000, atol=1e-6)


@pytest.mark.parametrize("pairing", ["seeded", "index"])
def test_animals_of_a_sample_share_the_odor_and_the_spikes_are_their_own(sessions, pairing):
    data = from_sessions(sessions, "in_sample", pairing=pairing)
    for m, (name, session) in enumerate(sessions.items()):
        x = data.modalities[name]
        assert (x[:, 0, 0].round() == m).all()
        trial = x[:, 1, 0].round().long()
        assert (trial == data.trials[m]).all()
        assert (torch.from_numpy(session.odor)[trial] == data.labels).all()


def test_index_pairing_keeps_the_order_of_the_session_and_seeds_change_the_other(sessions):
    by_index = from_sessions(sessions, "in_sample", pairing="index")
    assert all((trials[by_index.labels == 0].diff() >= 0).all() for trials in by_index.trials)
    seeds = [from_sessions(sessions, "in_sample", seed=seed).trials for seed in (0, 0, 1)]
    assert torch.equal(seeds[0], seeds[1]) and not torch.equal(seeds[0], seeds[2])


@pytest.mark.parametrize("pairing", ["seeded", "index"])
@pytest.mark.parametrize("unequal", ["min", "missing"])
def test_no_trial_is_in_training_and_test(sessions, pairing, unequal):
    found = [from_sessions(sessions, split, pairing=pairing, unequal=unequal, fold=2) for split in ("train", "test")]
    for m in range(3):
        train, test = (set(data.trials[m][data.observed[m]].tolist()) for data in found)
        assert train and test and not train & test


def test_folds_cover_every_trial_once(sessions):
    tests = [from_sessions(sessions, "test", fold=fold) for fold in range(5)]
    everything = from_sessions(sessions, "in_sample")
    for m, all_of_it in enumerate(trials_in(everything)):
        parts = [trials_in(data)[m] for data in tests]
        assert set().union(*parts) == all_of_it and sum(map(len, parts)) == len(all_of_it)
    assert all((torch.bincount(data.labels) == 2 * 16).all() for data in tests)     # every odor in every fold


def test_an_animals_folds_do_not_depend_on_the_others(sessions):
    alone = from_sessions({"Zoe": sessions["Zoe"]}, "test")              # the animal with the fewest trials
    together = from_sessions(sessions, "test")
    assert trials_in(alone)[0] == trials_in(together)[2]


def test_unpaired_trials_as_missing_modalities(sessions):
    data = from_sessions(sessions, "in_sample", unequal="missing")
    assert len(data) == 4 * 15 * 16
    assert data.observed.float().mean(1).tolist() == pytest.approx([12 / 15, 1, 10 / 15])
    assert (data.trials[~data.observed] == -1).all()
    for m, session in enumerate(sessions.values()):
        seen = data.observed[m]
        assert set(data.trials[m][seen].tolist()) == set(np.flatnonzero(session.odor < 4))


def test_what_is_not_observed_holds_nothing_of_another_trial(sessions):
    placed = {name: Session(s.spikes + 1, s.odor, start=s.start, position=np.arange(len(s.odor)) + 1)
              for name, s in sessions.items()}
    data = from_sessions(placed, "train", unequal="missing")
    absent = ~data.observed
    assert absent.any() and (data.position[absent] == 0).all() and (data.position[~absent] > 0).all()
    for x, seen in zip(data.modalities.values(), data.observed):
        assert not x[~seen].any() and (x[seen] > 0).all()


def test_in_sample_is_the_same_for_training_and_test_and_is_everything(sessions):
    data = from_sessions(sessions, "in_sample")
    assert len(data) == len(from_sessions(sessions, "train")) + len(from_sessions(sessions, "test"))


def test_shuffled_odors_are_of_other_trials_but_as_many(sessions):
    real, control = (from_sessions(sessions, "in_sample", shuffle_odors=shuffle) for shuffle in (False, True))
    assert torch.equal(real.labels, control.labels)
    true = torch.from_numpy(sessions["Own"].odor)[control.trials[1]]
    assert 0 < (true == control.labels).float().mean() < 0.5


def test_filters():
    random = np.random.default_rng(1)
    session = Session(np.zeros((60, 2, 25)), np.arange(60) % 4, random.random(60) < 0.7, random.random(60) < 0.8)
    data = from_sessions({"a": session}, "in_sample", correct_only=True, in_sequence_only=True, odors="AB", n_folds=2)
    kept = np.flatnonzero(session.correct & session.in_sequence & (session.odor < 2))
    assert set(data.trials[0].tolist()) == set(kept) and data.n_classes == 2


def test_odors_are_labelled_in_the_order_given(sessions):
    data = from_sessions(sessions, "in_sample", odors="EA")
    odor = torch.from_numpy(sessions["Barat"].odor)[data.trials[0]]
    assert (odor[data.labels == 0] == 4).all() and (odor[data.labels == 1] == 0).all()


def test_subset_keeps_trials_and_windows(sessions):
    data = from_sessions(sessions, "in_sample")
    some = data.subset(slice(30, 50))
    assert torch.equal(some.trials, data.trials[:, 30:50]) and torch.equal(some.window, data.window[30:50])


def test_trial_numbers_are_constant_inside_a_tuple(sessions):
    data = from_sessions(sessions, "in_sample")
    assert (trial_numbers(data).reshape(-1, 16) == trial_numbers(data).reshape(-1, 16)[:, :1]).all()
    assert len(set(trial_numbers(data))) == 40


# likelihoods ---------------------------------------------------------------------------------------------------------

def test_both_likelihoods_see_the_same_spikes(root):
    squared, poisson = (load("train", root, likelihood=kind) for kind in ("squared_error", "poisson"))
    assert squared.modalities["Barat"].dtype == torch.uint8
    assert torch.equal(squared.modalities["Barat"], poisson.modalities["Barat"])
    spec, of_counts = squared.specs[0], poisson.specs[0]
    assert isinstance(spec.likelihood, Normal) and isinstance(of_counts.likelihood, Poisson)
    x = squared.modalities["Barat"][:4]
    assert torch.allclose(spec.prepare(x), x / 10) and torch.equal(of_counts.prepare(x), x.float())


def test_the_likelihood_is_the_squared_error_and_a_constant(root):
    spec = load("train", root).specs[0]
    a, b = torch.rand(2, 5, *spec.shape)
    nll = -spec.likelihood.log_prob(a, b, 2) - spec.likelihood.floor(a[0].numel())
    assert torch.allclose(nll, (a - b).square().sum((1, 2)), atol=1e-4)


def test_amounts_that_are_no_counts():
    session = Session(np.random.default_rng(0).random((40, 3, 25)), np.arange(40) % 4)
    assert from_sessions({"a": session}, "train").modalities["a"].is_floating_point()
    with pytest.raises(UserError, match="no whole numbers"):
        from_sessions({"a": session}, "train", likelihood="poisson")


def test_counts_of_any_size_are_counts():
    session = Session(np.full((40, 3, 25), 300), np.arange(40) % 4)
    data = from_sessions({"a": session}, "train", likelihood="poisson")
    assert (data.modalities["a"] == 300).all() and isinstance(data.specs[0].likelihood, Poisson)


# files ---------------------------------------------------------------------------------------------------------------

def spikes_of(root, name="Stella"):
    with gzip.open(root / name / f"{name.lower()}_spike_data_binned.npy.gz") as file:
        return np.load(file)


def put(root, array, what="spike_data_binned", name="Stella"):
    if what == "spike_data_binned":
        (root / name / f"{name.lower()}_{what}.npy.gz").unlink(missing_ok=True)
    np.save(root / name / f"{name.lower()}_{what}.npy", array)


def test_reads_what_the_release_has_plain_or_packed_in_any_precision(root):
    packed = load("train", root)
    put(root, spikes_of(root).astype(np.float16))
    assert torch.equal(load("train", root).modalities["Stella"], packed.modalities["Stella"])


def test_animals_units_and_bins_come_from_the_files(root):
    data = load("train", root, animals=["Stella", "Mitt"])
    assert {spec.name: spec.shape for spec in data.specs} == {"Stella": (4, 10), "Mitt": (5, 10)}
    shutil.copytree(root / "Stella", root / "Fido")
    for suffix in ("spike_data_binned.npy.gz", "trial_info.npy"):
        (root / "Fido" / f"stella_{suffix}").rename(root / "Fido" / f"fido_{suffix}")
    with pytest.raises(UserError, match="where the windows start is not known.*starts="):
        load("train", root)
    assert "Fido" in load("train", root, starts={"Fido": 225}).names


def test_recordings_of_ten_bins_give_one_window(tmp_path):
    for name in ("Ann", "Bob"):
        (tmp_path / name).mkdir()
        put(tmp_path, np.random.default_rng(0).random((40, 7, 10)).astype(np.float16), name=name)
        put(tmp_path, np.stack([np.ones(40), np.ones(40), np.ones(40), 1 + np.arange(40) % 4], 1), "trial_info", name)
    data = load("train", tmp_path)
    assert [spec.shape for spec in data.specs] == [(7, 10)] * 2 and len(data) == 32


@pytest.mark.parametrize("value, words", [(np.nan, "NaN or infinite"), (-0.1, "negative"), (np.inf, "NaN")])
def test_impossible_spikes(root, value, words):
    spikes = spikes_of(root)
    spikes[7, 2, 240] = value
    put(root, spikes)
    with pytest.raises(UserError, match=f"stella_spike_data_binned.npy: .*trial 7, unit 2, bin 240 is {words}"):
        load("train", root)


def test_files_that_do_not_belong_together(root):
    put(root, spikes_of(root)[:-1])
    with pytest.raises(UserError, match="79 trials, stella_trial_info.npy 80 rows"):
        load("train", root)


def test_bad_trial_info(root):
    info = np.load(root / "Mitt" / "mitt_trial_info.npy")
    info[4, 3] = 7
    put(root, info, "trial_info", "Mitt")
    with pytest.raises(UserError, match="mitt_trial_info.npy, row 4: the odor is 7"):
        load("train", root)
    put(root, info[:, :3], "trial_info", "Mitt")
    with pytest.raises(UserError, match=r"expected \(trials, 4\)"):
        load("train", root)
    (root / "Mitt" / "mitt_trial_info.npy").unlink()
    with pytest.raises(UserError, match="no mitt_trial_info.npy"):
        load("train", root)


def test_cut_and_missing_files(root, tmp_path):
    path = root / "Barat" / "barat_spike_data_binned.npy.gz"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="barat_spike_data_binned.npy.gz cannot be read"):
        load("train", root)
    with pytest.raises(UserError, match="--simulate"):
        load("train", tmp_path / "nowhere")


@pytest.mark.parametrize("options, words", [
    ({"fold": 5}, "fold=5"), ({"n_folds": 1}, "n_folds=1"), ({"window": 0}, "window=0"), ({"length": 5}, "length=5"),
    ({"pairing": "random"}, "pairing"), ({"unequal": "max"}, "unequal"), ({"likelihood": "gamma"}, "likelihood"),
    ({"n_folds": 50}, "50 folds"), ({"odors": [9]}, "odor J has 0 trials")])
def test_impossible_options(sessions, options, words):
    with pytest.raises(UserError, match=words):
        from_sessions(sessions, "train", **options)


def test_impossible_sessions(sessions):
    good = sessions["Zoe"]
    for bad, words in ((Session(good.spikes[0], good.odor), r"\(trials, units, bins\)"),
                       (Session(good.spikes, good.odor[1:]), "49 labels"),
                       (Session(good.spikes, good.odor, correct=np.ones(3)), "3 entries of `correct`"),
                       (Session(good.spikes, good.odor, correct=["False"] * 50), "`correct` of trial 0 is False: give"),
                       (Session(good.spikes, good.odor, correct=[1.0, np.nan] * 25), "`correct` of trial 1 is nan"),
                       (Session(good.spikes, good.odor, in_sequence=[1, 2] * 25), "`in_sequence` of trial 1 is 2"),
                       (Session(good.spikes, good.odor, correct=np.ones((50, 2))), "100 entries of `correct`"),
                       (Session(good.spikes, good.odor, position=[1, np.nan] * 25), "`position` of trial 1 is nan"),
                       (Session(good.spikes, good.odor, start=400), "start=400"),
                       (Session(good.spikes, good.odor, start=395), "a window needs 10")):
        with pytest.raises(UserError, match=words):
            from_sessions({"Zoe": bad}, "train")
    with pytest.raises(UserError, match="windows per trial: Barat 16, short 6"):
        from_sessions({"Barat": sessions["Barat"], "short": Session(good.spikes[:, :, :15], good.odor)}, "train")
    with pytest.raises(UserError, match="does not say which trials are correct"):
        from_sessions(sessions, "train", correct_only=True)


def test_check_describes_every_animal(root):
    report = hippocampus.check(root)
    assert report[2].startswith("Stella: 80 trials, 4 units, 400 bins, windows from bin 250")
    train, test = (len(load(split, root, odors="ABCDE")) // 16 for split in ("train", "test"))
    assert report[3] == (f"odors ABCDE: {train} tuples for training, {test} for testing (fold 0 of 5), windows a "
                         "trial: 16, of 10 bins")
    data = load("test", root, odors="ABCDE")
    lines = [f"test: {len(data)} samples of {len(data.specs)} modalities ({test} tuples)"]
    lines += [f"test, {name}: {tuple(x.shape[1:])} uint8, {x.min()} to {x.max()}; 0 samples missing"
              for name, x in data.modalities.items()]
    counts = ", ".join(f"{c} {int(n)}" for c, n in enumerate(data.labels.bincount()))
    assert report[-len(lines) - 1:] == [*lines, f"test, labels: 5 classes, {counts}"]


def own_files(root, name, trials, bins=40, odors=(1, 2)):
    """A recording of a lab: other units, bins and classes than the release's."""
    folder = root / name
    folder.mkdir(parents=True)
    odor = np.resize(odors, trials)
    spikes = np.random.default_rng(0).poisson(1, (trials, 3, bins)) / 10
    np.save(folder / f"{name.lower()}_spike_data_binned.npy", spikes)
    np.save(folder / f"{name.lower()}_trial_info.npy", np.stack([np.ones(trials), np.ones(trials), odor, odor], 1))
    return folder


def test_check_takes_the_options_of_load(tmp_path):
    own_files(tmp_path, "Fido", 20)
    own_files(tmp_path, "Rex", 24, odors=(1, 2, 7))
    with pytest.raises(UserError, match="where the windows start is not known: give starts=.'Fido': <bin>. or one bin"):
        hippocampus.check(tmp_path)
    report = hippocampus.check(tmp_path, starts=5, window=4, length=10)
    assert report[2] == "odors G left out: not every animal has 5 trials of them"
    assert report[3].endswith("AB: 12 tuples for training, 4 for testing (fold 0 of 5), windows a trial: 7, of 4 bins")
    report = hippocampus.check(tmp_path, animals="Rex", starts={"Rex": 3}, fold=1, correct_only=True)
    assert [line.split(":")[0] for line in report] == ["Rex", "odors ABG", *(
        f"{split}{what}" for split in ("train", "test") for what in ("", ", Rex", ", labels"))]
    assert len(load("test", tmp_path, starts=5, odors="AB", window=4, length=10)) == 4 * 7


def test_names_with_umlauts_and_spaces_links_and_a_tilde(tmp_path, monkeypatch):
    own_files(tmp_path, unicodedata.normalize("NFD", "J\u00f6rg 2"), 20, bins=20)    # as a Mac writes it
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / unicodedata.normalize("NFD", "J\u00f6rg 2"))
    assert list(files.read("~")) == ["J\u00f6rg 2", "link"]
    assert load("train", "~", animals="J\u00f6rg 2", starts={"J\u00f6rg 2": 1}, odors="AB").names == ["J\u00f6rg 2"]


def test_one_name_is_one_and_unknown_ones_are_listed(root, sessions):
    assert list(files.read(root, animals="Mitt")) == ["Mitt"]
    for animals, said in (("C6M4", "C6M4"), (["Mitt", "Mitt"], "Mitt, Mitt"), ([], "nobody")):
        with pytest.raises(UserError, match=f"names {said}, expected each at most once .*: Barat, Mitt, Stella"):
            files.read(root, animals=animals)
    for odors in ("ab", "AAB", "", [0.5], [-1]):
        with pytest.raises(UserError, match="odors must be different letters from A to Z"):
            from_sessions(sessions, "train", odors=odors)
    assert from_sessions(sessions, "train", odors=1).n_classes == 1
    assert from_sessions(sessions, "test", odors=["C", 0]).ids[-1].startswith("odor A")


def test_sessions_of_lists_and_tensors():
    spikes = np.random.default_rng(0).poisson(1, (20, 2, 12))
    odor = np.arange(20) % 2
    expected = from_sessions({"a": Session(spikes, odor)}, "train", odors="AB")
    for own in (Session(spikes.tolist(), odor.tolist(), correct=[1] * 20), Session(
            torch.tensor(spikes, dtype=torch.float32, requires_grad=True), torch.tensor(odor)),
            Session(spikes, odor.astype(float))):
        found = from_sessions({"a": own}, "train", odors="AB", correct_only=own.correct is not None)
        assert torch.equal(found.modalities["a"], expected.modalities["a"]) and found.ids == expected.ids
    with pytest.raises(UserError, match="unequal lengths"):
        Session([[[1, 2], [1]]], [0])
    for wrong in ("AB" * 10, odor + 0.5, odor - 1, np.stack([odor, odor])):
        with pytest.raises(UserError, match="odor must be \\(trials,\\) class numbers from 0 to 25"):
            from_sessions({"a": Session(spikes, list(wrong))}, "train")


# the simulator -------------------------------------------------------------------------------------------------------

def test_the_same_seed_gives_the_same_spikes(rats):
    again, other = (hippocampus_simulator.simulate(seed, {"Barat": 6}, TRIALS)["Barat"] for seed in (3, 4))
    assert (again.counts == rats["Barat"].counts).all() and (other.counts != rats["Barat"].counts).any()


def test_the_releases_numbers_and_quirk(root, rats):
    assert [hippocampus_simulator.UNITS[name] for name in files.STARTS] == [92, 79, 104, 49, 46]
    assert all(200 <= n <= 300 for n in hippocampus_simulator.TRIALS.values())
    spikes = spikes_of(root)
    assert spikes.shape == (80, 4, 400) and np.allclose(spikes * 10, rats["Stella"].counts)
    info = np.load(root / "Stella" / "stella_trial_info.npy")
    assert info.shape == (80, 4) and set(info[:, 2]) <= set(range(1, 6)) and set(info[:, 3]) <= set(range(1, 6))
    in_place = info[:, 1] == 1
    assert (info[in_place, 2] == info[in_place, 3]).all() and (info[~in_place, 2] != info[~in_place, 3]).all()
    wrong = np.flatnonzero(info[:-1, 0] == 0)
    assert len(wrong) and (info[wrong + 1, 2] == 1).all()                # a wrong answer ends the sequence


def test_simulate_refuses_a_full_folder(root):
    with pytest.raises(UserError, match="not empty"):
        hippocampus.simulate(root)
    assert not list(root.parent.glob(".rats.*"))


def test_units_follow_what_the_truth_says(rats):
    """Odor units fire more in the half of the plane that they prefer, units silent to the task do not."""
    rat = hippocampus_simulator.simulate(0, {"Barat": 60}, {"Barat": 250})["Barat"]
    x = rat.odor[:, 225:250].reshape(-1, 2) - rat.odor[:, 225:250].mean((0, 1))
    y = rat.counts[:, :, 225:250].transpose(0, 2, 1).reshape(len(x), -1)
    strength = np.linalg.norm(np.stack([np.cov(x.T, y[:, u])[:2, 2] for u in range(y.shape[1])]), axis=1) / (
        y.mean(0) + 1e-3)
    odor = np.isin(rat.kind, (1, 2))
    assert np.median(strength[odor]) > 3 * np.median(strength[rat.kind == 0])
    assert y.mean() * 100 == pytest.approx(3, abs=1.5)                   # Hz


def test_odor_trajectories_are_shared_and_time_locked():
    rats = hippocampus_simulator.simulate(0, {"Barat": 2, "Stella": 2}, {"Barat": 290, "Stella": 290})
    means = []
    for name, start in (("Barat", 225), ("Stella", 250)):
        rat = rats[name]
        right = (rat.info[:, 0] == 1) & (rat.info[:, 3] == 2)
        assert np.linalg.norm(rat.odor[right, :start - 30].mean((0, 1))) < 0.1
        means.append(rat.odor[right, start:start + 25].mean(0))
    assert np.abs(means[0] - means[1]).max() < 0.25 and np.linalg.norm(means[0], axis=1).max() > 0.7


def test_truth_of_a_window_is_the_mean_of_its_bins(root, rats, sessions):
    data = load("test", root)
    assert hippocampus_simulator.has_truth(data) and hippocampus_simulator.has_truth(data.subset([0, 3]))
    assert not hippocampus_simulator.has_truth(from_sessions(sessions, "test"))     # an animal's name is no proof
    found = hippocampus_simulator.window_truth(data, "odor", window=10, stride=1, starts=files.STARTS)
    assert found.shape == (3, len(data), 2)
    sample, trial, first = 21, int(data.trials[1][21]), 250 + int(data.window[21])
    assert np.allclose(found[1, sample], rats["Mitt"].odor[trial, first:first + 10].mean(0), atol=1e-2)
    (root / "truth.npz").unlink()
    assert not hippocampus_simulator.has_truth(load("test", root))


def test_a_recording_of_one_number_is_named(root):
    put(root, np.array(7.0))
    with pytest.raises(UserError, match="holds one number, expected .trials, neurons, bins."):
        load("train", root)
