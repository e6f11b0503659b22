"""Every study can keep rows out of its training: no group in two parts, no test row touched, and 0 is as before."""

from dataclasses import replace

import pytest
import torch

from mmvm import study
from mmvm.errors import UserError
from mmvm.study import results
from mmvm.study.registry import STUDIES
from studies.hippocampus.data import trial_numbers

pytestmark = pytest.mark.slow

SMALL = {"polymnist": dict(n_train=300, n_test=100, network="conv:channels=2", latent_dim=4, classifier_epochs=1,
                           n_probe=200, n_modalities=2),
         "cub": dict(n_images=60, captions_per_image=2, n_test=20), "hippocampus": dict(),
         "mimic-cxr": dict(n_subjects=60, lateral_missing=0.3)}
ASKED = {"polymnist": 64, "cub": 20, "hippocampus": 64, "mimic-cxr": 20}
# of a row: the group that must not be torn apart
GROUPS = {"cub": lambda data: [name.split("/")[0] for name in data.ids],
          "hippocampus": lambda data: [tuple(row) for row in data.trials.t().tolist()],
          "mimic-cxr": lambda data: data.subject.tolist()}


@pytest.fixture(scope="module", params=SMALL)
def parts(request):
    name = request.param
    p = STUDIES[name](**SMALL[name])
    q = replace(p, n_validation=ASKED[name])
    return p, q, {split: q.data(split) for split in ("train", "validation", "test")}


def test_a_default_run_keeps_its_name_and_its_rows(parts):
    p, q, found = parts
    assert "n_validation" not in p.identity() and "n_validation" not in p.config()
    assert q.run_hash() != p.run_hash() and q.config() != p.config()
    with pytest.raises(UserError, match="no validation rows: set n_validation"):
        p.part(p.data("train"), "validation")


def test_groups_are_in_one_part_alone_and_test_rows_stay_as_they_are(parts):
    p, q, found = parts
    if p.name == "polymnist":  # of the digits in the files, the last 5,000 are kept out
        assert max(int(name.removeprefix("train/")) for name in found["train"].ids) < 55_000
        assert all(name.startswith("validation/") for name in found["validation"].ids)
    else:
        groups = {split: set(GROUPS[p.name](data)) for split, data in found.items()}
        assert not groups["validation"] & (groups["train"] | groups["test"])
    before = p.data("test")
    for name, x in before.modalities.items():
        assert torch.equal(x[:], found["test"].modalities[name][:])
    n = len(found["validation"])
    assert abs(n - ASKED[p.name]) <= 8
    if p.name != "polymnist":  # which draws as many training tuples from fewer digits
        assert len(found["train"]) + n == len(p.data("train"))


def test_validation_rows_come_again_and_are_others_under_another_data_seed(parts):
    p, q, found = parts
    again = q.data("validation")
    assert again.ids == found["validation"].ids
    if p.name == "hippocampus":
        assert torch.equal(again.trials, found["validation"].trials)
        other = replace(q, data_seed=1).data("validation")
        assert not torch.equal(again.trials, other.trials)
        assert len(set(trial_numbers(again).tolist())) == 4  # whole trials of 16 windows


def test_laterals_are_hidden_in_training_rows_alone():
    q = STUDIES["mimic-cxr"](**SMALL["mimic-cxr"], n_validation=20)
    assert not q.data("train").observed.all() and q.data("validation").observed.all()


def test_captions_of_an_image_stay_together_under_the_official_split():
    q = STUDIES["cub"](**SMALL["cub"], n_validation=20, split_by="official")
    images = [{name.rpartition("#")[0] for name in q.data(split).ids} for split in ("train", "validation")]
    assert not images[0] & images[1] and len(images[1]) == 10


@pytest.mark.parametrize("name, settings, message", [
    ("polymnist", dict(optimizer="adam:patience=3"), "patience waits for validation rows.*n_validation"),
    ("polymnist", dict(n_validation=9, validation=True), "leave one of them out"),
    ("hippocampus", dict(n_validation=64, in_sample=True), "in_sample tests on what is trained on"),
    ("cub", dict(n_validation=-1), "n_validation must be at least 0"),
])
def test_what_does_not_go_together_is_refused(name, settings, message):
    with pytest.raises(UserError, match=message):
        STUDIES[name](**settings)


def test_more_tuples_than_digits_were_kept_out_is_one_line():
    with pytest.raises(UserError, match="n=5001 tuples asked for, the validation split has 5000"):
        STUDIES["polymnist"](n_validation=5001, n_modalities=1).data("validation")


def test_a_run_writes_what_a_beta_is_chosen_by(tmp_path):
    p = STUDIES["polymnist"](**SMALL["polymnist"], n_validation=64, epochs=30, learning_rate=0.05,
                             optimizer="adam:patience=1", out=str(tmp_path))
    found = study.run(p)
    rows = results.read(tmp_path / "results.csv")
    own, best = {row["metric"]: row["value"] for row in found.rows if row["source"] == ""}, found.history.best
    assert best < len(found.history.epochs) < 30 and own["best_epoch"] == best
    assert set(rows["epochs"]) == {len(found.history.epochs)}
    assert {f"validation_{name}" for name in ("probe", "coherence", "reconstruction")} <= set(rows["metric"])
    assert set(rows[rows["metric"].str.startswith("validation_")]["source"]) == {""}
    on_rows = p.evaluate(found.model, p.data("train"), p.data("validation"), p.classifiers(
        p.data("train"), p.data("test"))[0])
    assert own["validation_probe"] == pytest.approx(on_rows["probe"].mean())
    loaded = study.load(tmp_path)[1]
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore:modality 'labels'.*are the same in all samples")
def test_the_supervised_reference_stops_by_its_own_loss():
    p = STUDIES["mimic-cxr"](n_subjects=60, n_validation=20, supervised=True, epochs=2, network="residual:channels=2",
                             optimizer="adam:patience=2")
    train = p.data("train")
    history = p.fit(p.build_model(train), train)
    assert len(history["validation_loss"]) == 2 and "validation_log_likelihood/labels" not in history.epochs[0]
