"""A lab's own X-rays in MIMIC-CXR's layout: what is optional, whose file is wrong, sizes, few samples, odd places."""

from dataclasses import replace

import numpy as np
import pytest
from mimic_cxr_files import STUDIES, edit, write_tree

from mmvm.__main__ import main
from mmvm.errors import UserError
from mmvm.study.study import Metrics, run
from studies.mimic_cxr import data as mimic_cxr
from studies.mimic_cxr.index import FILES, MARKER
from studies.mimic_cxr.study import MimicCXR


@pytest.fixture
def own(tmp_path):
    """Files of a lab, with what its name may have, and without the official split."""
    root = tmp_path / "Röntgen bilder"
    write_tree(root, zipped=False)
    (root / FILES["split"]).unlink()
    return root


def test_check_asks_for_the_official_split_only_where_it_is_wanted(own):
    text = "\n".join(mimic_cxr.check(own))
    assert "it is absent, which only split_by='official' needs" in text
    with pytest.raises(UserError, match=f"{FILES['split']}, plain or .gz, is missing"):
        mimic_cxr.check(own, split_by="official")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"policy": "missing"}, {"policy": "one_pair", "split_seed": 3},
                                     {"policy": "missing", "uncertain": "ignore"}, {"uncertain": "one"}])
def test_check_counts_what_load_makes_under_the_same_options(own, options):
    report = mimic_cxr.check(own, **options)
    for split in mimic_cxr.SPLITS:
        data = mimic_cxr.load(split, own, size=64, **options)
        (rows,) = (line for line in report if line.startswith(f"{split}: "))
        missing = (~data.observed).sum(1).tolist()
        assert rows == (f"{split}: {len(data)} rows (policy {options.get('policy', 'all_pairs')}) of "
                        f"{len(data.subject.unique())} subjects; missing: {missing[0]} frontal, {missing[1]} lateral")
        (labels,) = (line for line in report if line.startswith(f"{split}, labels: "))
        counts = [f"{name} {int((x == 1).sum())}" for name, x in zip(data.label_names, data.labels.T)]
        assert labels == f"{split}, labels: {', '.join(counts)}; {int(data.labels.isnan().sum())} not known"


def test_check_says_sizes_and_ranges_of_the_prepared_arrays(own):
    mimic_cxr.prepare(own, size=64)
    pixels = [images[1:] for images in mimic_cxr.load("train", own, size=64).files]  # row 0 stands for absent ones
    low, high = min(x.min() for x in pixels), max(x.max() for x in pixels)
    assert f"prepared 64: 22 images of (1, 64, 64) uint8, {low} to {high}, " in mimic_cxr.check(own, size=64)[-1]
    assert mimic_cxr.check(own, size=128)[-1] == "prepared: nothing yet"
    with pytest.raises(UserError, match="policy must be one of"):
        mimic_cxr.check(own, policy="some")


@pytest.mark.parametrize("beside, said", [
    (None, "correct the file, if it is your own; if it is PhysioNet's, restore the file from MIMIC-CXR-JPG"),
    ("SHA256SUMS.txt", "under Edema: restore the file from MIMIC-CXR-JPG"),
    (MARKER, "the files are simulated: delete .*, then simulate again")])
def test_whose_file_it_is_decides_the_cure(own, beside, said):
    if beside:
        (own / beside).write_text("")
    edit(own, "chexpert", lambda text: text.replace(",1.0,", ",7.0,"), zipped=False)
    with pytest.raises(UserError, match=said.replace("under Edema", "under [A-Z][A-Za-z ]*")) as raised:
        mimic_cxr.load("train", own, size=64)
    assert "7.0" not in str(raised.value)


def test_a_size_that_no_network_knows_is_refused_before_the_work(own, capsys):
    assert main(["data", "mimic-cxr", "--root", str(own), "--prepare", "--size", "50"]) == 2
    assert "know images of 64, 128, 224 pixels, got size 50: choose one of these" in capsys.readouterr().err
    assert not (own / "prepared").exists()
    assert main(["data", "mimic-cxr", "--root", str(own), "--prepare", "--size", "50", "--set", "any_size=true"]) == 0
    assert (own / "prepared" / "50").is_dir()


def test_a_command_that_is_advised_can_be_pasted(own, monkeypatch):
    monkeypatch.setattr(mimic_cxr, "UNASKED", 1)
    with pytest.raises(UserError, match=f"--root '{own}' --prepare --size 64"):
        mimic_cxr.load("train", own, size=64)


def test_a_mean_over_few_labels_says_so():
    metrics = Metrics()
    values = np.full((2, 14), np.nan)
    values[0, :9], values[1, :3] = 0.5, 0.5
    assert metrics.over_labels("probe", values).tolist() == [0.5, 0.5]
    metrics.over_labels("brier", np.zeros((2, 14)))
    assert np.isnan(metrics.over_labels("none", np.full(3, np.nan))) and metrics.notes.pop("none") == "labels=0/3"
    assert metrics.notes == {"probe": "labels=3/14"}


def test_a_run_on_few_samples_says_of_how_many_labels_its_means_are(own, tmp_path):
    """Six test rows: most labels are shown in one way only."""
    p = MimicCXR(root=str(own), epochs=1, batch_size=4, classifier_epochs=1, latent_dim=2,
                 network="residual:channels=2", probes="forest:trees=2", out=str(tmp_path / "run"), device="cpu")
    train = p.data("train")
    test = replace(train.subset(slice(0, 6)), ids=None)
    rows = {(row["metric"], row["target"]): row for row in run(p, train, test).rows}
    n = int(((test.labels == 1).any(0) & (test.labels == 0).any(0)).sum())
    for metric in ("probe", "auroc", "classifier_auroc", "coherence"):
        own_rows = [row for (name, _), row in rows.items() if name == metric]
        assert own_rows and all(row["note"] == f"labels={n}/14" for row in own_rows) and 0 < n < 14
    assert rows["reconstruction", "sum"]["note"] == ""


def test_two_subjects_and_none_with_both_views(tmp_path):
    write_tree(tmp_path / "two", STUDIES[:2], zipped=False)
    with pytest.raises(UserError, match="2 subjects .* three splits need three"):
        mimic_cxr.check(tmp_path / "two")


@pytest.mark.parametrize("studies, settings, said", [
    (((("PA", "LATERAL"),),) * 3, {}, "the frontal view is there in 1 of 1 training rows, its networks"),
    (((("AP",),),) * 5, {"policy": "missing"}, "the lateral view is there in 0 of 3 training rows"),
    (STUDIES, {"batch_size": 1}, "batch_size must be at least 2, got 1: the networks normalise over the batch")])
def test_what_networks_cannot_be_fitted_to_is_refused_before_the_training(tmp_path, studies, settings, said):
    write_tree(tmp_path / "own", studies, zipped=False)
    p = MimicCXR(root=str(tmp_path / "own"), epochs=1, latent_dim=2, network="residual:channels=2", device="cpu",
                 out=str(tmp_path / "run"), **settings)
    with pytest.raises(UserError, match=said):
        run(p)
    assert not list((tmp_path / "run").glob("*.safetensors"))
