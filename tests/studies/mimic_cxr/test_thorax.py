"""The thorax phantom's physics and findings, its patients' labels, and the files of the stand-in for MIMIC-CXR."""

import gzip
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmvm.errors import UserError
from mmvm.training.lock import in_turn
from studies.mimic_cxr.index import FILES, LABELS
from studies.mimic_cxr.phantom import files as mimic_cxr_standin, rays, thorax
from studies.mimic_cxr.phantom.body import Body
from studies.mimic_cxr.phantom.files import METADATA, simulate
from studies.mimic_cxr.phantom.patients import SHARES, draw_patient, prevalence
from studies.mimic_cxr.phantom.rays import Beam, Ellipsoid, Interval, Points, tube, turned, without
from studies.mimic_cxr.phantom.thorax import (
    Anatomy,
    Findings,
    draw_acquisition,
    draw_anatomy,
    line_integrals,
    render,
    standard,
)

VIEWS = ("PA", "LATERAL")


# rays

def parallel(view="PA", shape=(101, 81), pixel=0.1, **options) -> Beam:
    """A source so far away that its rays are parallel."""
    return Beam(view, shape, pixel, 5000.0, 10.0, **options)


def chord(beam: Beam, body: Ellipsoid) -> np.ndarray:
    return beam.through(body).length * beam.step


def test_path_through_a_sphere_is_the_chord():
    length = chord(parallel(), Ellipsoid((0, 0, 0), (2, 2, 2)))
    x = 0.1 * np.arange(-40, 41)
    exact = 2 * np.sqrt(np.maximum(4 - x**2, 0))
    assert np.abs(length[50] - exact)[np.abs(np.abs(x) - 2) > 0.05].max() < 0.03


@pytest.mark.parametrize("view, across, along, up", [("PA", 0, 1, 2), ("AP", 0, 1, 2), ("LATERAL", 1, 0, 2)])
def test_ellipsoids_are_as_long_and_wide_as_their_axes(view, across, along, up):
    radii = (1.5, 2.5, 3.5)
    length = chord(parallel(view), Ellipsoid((0, 0, 0), radii))
    assert length[50, 40] == pytest.approx(2 * radii[along], rel=1e-3)
    assert (length[50] > 0).sum() * 0.1 == pytest.approx(2 * radii[across], abs=0.25)
    assert (length[:, 40] > 0).sum() * 0.1 == pytest.approx(2 * radii[up], abs=0.25)


def test_volume_does_not_depend_on_the_direction():
    body = Ellipsoid((0.3, -0.2, 0.1), (1, 2, 3), turned(20, 30, 40))
    for view in ("PA", "LATERAL"):
        found = chord(Beam(view, (101, 101), 0.1, 5000.0, 10.0), body).sum() * 0.01
        assert found == pytest.approx(4 / 3 * np.pi * 6, rel=0.01)


def test_what_lies_in_one_body_and_not_in_others():
    beam = Beam("PA", (31, 31), 0.3, 150.0, 12.0)
    body = Ellipsoid((0, 0, 0), (4, 3, 4))
    others = [Ellipsoid((1, 1, 0), (2, 2, 2)), Ellipsoid((-1, 0, 1), (2, 3, 2)), Ellipsoid((0, -1, 0), (2, 1, 3))]
    exact = without(beam.through(body), [beam.through(other) for other in others])
    t = np.linspace(0.8, 1.1, 4001)[:, None, None]
    inside = []
    for k in (body, *others):
        hit = beam.through(k)
        inside.append((t > hit.start) & (t < hit.end))
    sampled = (inside[0] & ~(inside[1] | inside[2] | inside[3])).mean(0) * 0.3
    assert np.abs(exact - sampled).max() < 3e-4


def test_empty_intervals_have_no_length():
    gap = Interval(np.float32([[0.0]]), np.float32([[1.0]])) & Interval(np.float32([[2.0]]), np.float32([[3.0]]))
    assert gap.length == 0


def test_magnification_is_of_similar_triangles():
    beam = Beam("PA", (11, 11), 1.0, 180.0, 15.0)
    u, v, size = beam.project([[2.0, 0.0, 1.0], [2.0, 10.0, 1.0]])     # y is to the back: towards the PA source
    assert size == pytest.approx([180 / 165, 180 / 155]) and u == pytest.approx(2 * size) and v == pytest.approx(size)


def test_a_window_holds_all_of_a_body():
    rng = np.random.default_rng(0)
    for _ in range(40):
        beam = Beam(str(rng.choice(list(rays.VIEWS))), (60, 50), 0.7, 110.0, 15.0, turned(*rng.normal(0, 5, 3)))
        axes = turned(*rng.uniform(-90, 90, 3))
        body = Ellipsoid(tuple(rng.uniform(-15, 15, 3)), tuple(rng.uniform(0.5, 8, 3)), axes)
        whole, parts = chord(beam, body), np.zeros((60, 50), np.float32)
        beam.add(parts, body, 1.0)
        assert np.allclose(whole, parts, atol=2e-3)


def test_a_tube_has_the_chords_of_a_cylinder():
    beam = Beam("PA", (80, 80), 0.1, 4000.0, 10.0)
    image = beam.splat([tube(np.array([[-3.0, 0, 0], [3.0, 0, 0]]), 0.5, 1.0, step=0.02)])
    z = beam.v[:, 0]
    exact = 0.5 * 2 * np.sqrt(np.maximum(1 - z**2, 0))
    assert np.abs(image[:, 40] - exact).max() < 0.15 and image[:, 40].sum() == pytest.approx(exact.sum(), rel=0.02)


def test_thin_tubes_keep_their_mass():
    beam = Beam("PA", (60, 60), 0.25, 4000.0, 10.0)
    for radius in (0.03, 0.1, 0.3):
        image = beam.splat([tube(np.array([[0, 0, -20.0], [0, 0, 20.0]]), 2.0, radius)], blur=0.2)
        assert image[30].sum() * 0.25 == pytest.approx(2.0 * np.pi * radius**2, rel=0.02)


def test_points_beside_the_detector_are_dropped():
    beam = Beam("PA", (30, 30), 0.5, 180.0, 15.0)
    assert not beam.splat([Points(np.array([[80.0, 0, 0], [0, 0, -90.0]]), 1.0, 0.5)]).any()


# the phantom: `change` is what a finding does to the line integrals, `half` and `zone` the places to look at

def change(view: str, acquisition=None, **findings) -> np.ndarray:
    healthy, ill = (line_integrals(Anatomy(), f, view, acquisition) for f in (Findings(), Findings(**findings)))
    return ill - healthy


def half(image: np.ndarray, side: str) -> np.ndarray:
    """The patient's side in a frontal image: right is left."""
    middle = image.shape[1] // 2
    return image[:, :middle] if side == "right" else image[:, middle:]


def lungs(view: str) -> np.ndarray:
    """Where the healthy lungs are, (H, W) bool."""
    a = standard(view)
    _, lung = Body(Anatomy(), Findings(), a, view).attenuation(thorax.beam_of(Anatomy(), view, a))
    return lung > 2.0


def test_organs_are_where_they_belong():
    frontal = line_integrals(Anatomy(), Findings(), "PA")
    lung = lungs("PA")
    rows, columns = np.nonzero(lung)
    height = frontal.shape[0]
    assert rows.min() < 0.3 * height and 0.6 * height < rows.max() < 0.9 * height
    assert half(lung, "right").sum() > half(lung, "left").sum(), "the heart takes more of the left lung"
    middle = frontal[height // 2, frontal.shape[1] // 2]
    assert middle > 2 * frontal[lung].mean(), "the mediastinum"
    grey = render(Anatomy(), Findings(), "PA")
    assert grey[lung].mean() < 0.55 * grey[height // 2, grey.shape[1] // 2]


def test_heart_is_larger_in_ap_than_in_pa():
    """By the geometry of the beam alone: same breath, same arms."""
    widths = {}
    for view in ("PA", "AP"):
        a = replace(standard(view), inspiration=1.0, arms="out", field=38.0)
        body = Body(Anatomy(), Findings(), a, view)
        heart = thorax.beam_of(Anatomy(), view, a).through(body.heart).length > 0
        widths[view] = heart.any(0).sum()
    assert 1.06 < widths["AP"] / widths["PA"] < 1.3


FINDINGS = {"atelectasis": (0.7, 0.0), "cardiomegaly": 0.7, "consolidation": (0.7, 0.0), "edema": 0.6,
            "enlarged_cardiomediastinum": 0.7, "fracture": (0.8, 0.0), "lung_lesion": (0.6, 0.0),
            "lung_opacity": (0.7, 0.0), "pleural_effusion": (0.4, 0.0), "pleural_other": (0.7, 0.0),
            "pneumonia": (0.7, 0.0), "pneumothorax": (0.5, 0.0)}
DARKENS = ("pneumothorax",)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL"])
@pytest.mark.parametrize("name", FINDINGS)
def test_each_finding_is_seen_in_both_views_with_its_sign(name, view):
    """Also a widened mediastinum in the lateral view, though there it lies along the beam and hardly has an edge."""
    for seed in (1, 2, 3):
        delta = change(view, **{name: FINDINGS[name]}, seed=seed)
        assert np.abs(delta).max() > 0.03
        assert (delta.sum() < 0) == (name in DARKENS), "opacities add attenuation, air takes it away"
        if isinstance(FINDINGS[name], tuple) and view != "LATERAL":
            own, other = half(np.abs(delta), "right").sum(), half(np.abs(delta), "left").sum()
            assert own > (2.5 if name == "atelectasis" else 6) * other, "on its own side"


def test_left_findings_are_on_the_right_of_the_image():
    for name in ("pleural_effusion", "pneumothorax", "consolidation", "fracture"):
        delta = np.abs(change("PA", **{name: FINDINGS[name][::-1]}))
        assert half(delta, "left").sum() > 6 * half(delta, "right").sum()


def test_more_of_a_finding_changes_more():
    for name in FINDINGS:
        def scaled(s, value=FINDINGS[name]):
            return tuple(s * v for v in value) if isinstance(value, tuple) else s * value
        small, large = (np.abs(change("PA", **{name: scaled(s)}, seed=4)).sum() for s in (0.3, 1.3))
        assert large > 1.15 * small, name


def test_effusion_fills_the_angle_and_rises():
    lung = half(lungs("PA"), "right")
    rows = np.nonzero(lung.any(1))[0]
    low, high = lung.copy(), lung.copy()
    low[:rows[int(0.7 * len(rows))]] = False
    high[rows[int(0.5 * len(rows))]:] = False
    levels = []
    for s in (0.08, 0.25, 0.5):
        delta = half(change("PA", pleural_effusion=(s, 0)), "right")
        assert delta[low].mean() > 5 * max(delta[high].mean(), 1e-3)
        wet = (delta > 0.2) & lung
        levels.append(np.nonzero(wet.any(1))[0].min())
        columns = np.nonzero(wet.any(0))[0]
        assert columns.min() < np.nonzero(lung.any(0))[0].min() + 5, "at the side wall first"
    assert levels[0] > levels[1] > levels[2]
    lateral = change("LATERAL", pleural_effusion=(0.1, 0))
    weight = lateral.sum(0)
    assert weight @ np.arange(len(weight)) / weight.sum() > 0.6 * len(weight), "a little fluid is behind the dome"


def test_fluid_of_a_lying_patient_goes_to_the_back():
    upright = standard("AP")
    lying = replace(upright, supine=True)
    lung = half(lungs("AP"), "right")
    rows = np.nonzero(lung.any(1))[0]
    high = lung.copy()
    high[rows[int(0.6 * len(rows))]:] = False
    veils = [half(change("AP", a, pleural_effusion=(0.5, 0)), "right")[high].mean() for a in (upright, lying)]
    assert veils[1] > 1.5 * veils[0]


def test_pneumothorax_is_dark_outside_and_its_vessels_are_gone():
    lung = half(lungs("PA"), "right")
    delta = half(change("PA", pneumothorax=(0.5, 0)), "right")
    columns = np.nonzero(lung.any(0))[0]
    rows = np.nonzero(lung.any(1))[0]
    rim = delta[rows[len(rows) // 3]:rows[len(rows) // 2], columns[3]:columns[9]]
    assert rim.mean() < -0.15
    body = Body(Anatomy(), Findings(pneumothorax=(0.5, 0)), standard("PA"), "PA")
    points = np.concatenate([group.where for group in body.vessels()])
    right = points[points[:, 0] < 0]
    assert (body.collapsed[0].depth(right) < 1).all()


def test_cardiomegaly_widens_the_heart_and_fills_the_space_behind_it():
    delta = change("PA", cardiomegaly=0.7)
    assert half(delta, "left").sum() > half(delta, "right").sum() > 0
    lateral = change("LATERAL", cardiomegaly=0.7)
    assert lateral[lateral.shape[0] // 3:].sum() > 3 * np.abs(lateral[:lateral.shape[0] // 3]).sum()


@pytest.mark.parametrize("device", thorax.DEVICES)
@pytest.mark.parametrize("view", VIEWS)
def test_each_device_is_denser_than_the_body(device, view):
    delta = change(view, devices=(device,), seed=3)
    assert delta.max() > 0.08 and delta.min() > -0.01 * delta.max() and (delta > 0.02).mean() < 0.12


def test_findings_do_not_disturb_each_other():
    """A nodule, and an opacity, stay where they are when anything elsewhere is switched on."""
    alone = change("PA", lung_lesion=(0, 0.6), seed=7)
    others = Findings(pneumonia=(0.6, 0), devices=("pacemaker",), seed=7)
    both = line_integrals(Anatomy(), replace(others, lung_lesion=(0, 0.6)), "PA")
    other = line_integrals(Anatomy(), others, "PA")
    assert np.abs(both - other - alone).max() < 1e-4


def test_a_toggled_finding_changes_its_place_only():
    """In the image too: same noise, same texture; the window follows the whole image, a few grey levels."""
    a = replace(standard("PA"), seed=5)
    plain, ill = (render(Anatomy(seed=1), f, "PA", a).astype(int)
                  for f in (Findings(), Findings(lung_lesion=(0.7, 0), seed=2)))
    left = half(np.abs(ill - plain), "left")
    assert np.percentile(left, 99) <= 3 and half(np.abs(ill - plain), "right").max() > 15


def test_same_arguments_give_the_same_image():
    rng = np.random.default_rng(3)
    anatomy, acquisition = draw_anatomy(rng), draw_acquisition(rng, "AP")
    findings = Findings(edema=0.5, consolidation=(0.3, 0.2), seed=9)
    first = render(anatomy, findings, "AP", acquisition)
    render(Anatomy(), Findings(), "PA")
    assert np.array_equal(first, render(anatomy, findings, "AP", acquisition))
    assert not np.array_equal(first, render(anatomy, findings, "AP", replace(acquisition, seed=1)))


@pytest.mark.slow
@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL", "LL"])
def test_images_of_everyone_are_sound(view):
    """Grey values are spread, few are burnt, and nothing is NaN, whoever it is and whatever he has."""
    for n in range(12):
        rng = np.random.default_rng(n)
        anatomy, patient = draw_anatomy(rng), draw_patient(1, n)
        a = draw_acquisition(rng, view, 96)
        integrals = line_integrals(anatomy, patient.studies[0].findings, view, a)
        assert np.isfinite(integrals).all() and integrals.min() >= 0
        image = render(anatomy, patient.studies[0].findings, view, a)
        assert image.shape == a.shape and min(image.shape) == 96 and image.dtype == np.uint8
        assert image.std() > 30 and (image == 255).mean() < 0.1


# patients and reports

@pytest.fixture(scope="module")
def studies():
    return [study for n in range(2500) for study in draw_patient(0, n).studies]


def says(studies, label: str, value: int = 1) -> np.ndarray:
    return np.array([study.labels.get(label) == value for study in studies])


def test_a_little_blur_takes_nothing_away():
    sharp, soft = (line_integrals(Anatomy(), Findings(), "PA", replace(standard("PA"), blur=blur)).sum()
                   for blur in (0.0, 0.01))
    assert soft == pytest.approx(sharp, rel=1e-3)


@pytest.mark.parametrize("label", LABELS)
def test_labels_have_the_shares_of_the_original(studies, label):
    for value, share in zip((1, 0, -1), SHARES[label]):
        assert 100 * says(studies, label, value).mean() == pytest.approx(share, abs=0.12 + 0.2 * share)


def test_findings_come_together_as_they_do(studies):
    """Odds ratios of the labels, well over one where one thing brings the other, and near one where it does not."""
    def odds(a, b):
        x, y = says(studies, a), says(studies, b)
        n11, n10, n01, n00 = ((x & y).sum(), (x & ~y).sum(), (~x & y).sum(), (~x & ~y).sum())
        return (n11 + 0.5) * (n00 + 0.5) / ((n10 + 0.5) * (n01 + 0.5))

    for a, b in (("Edema", "Cardiomegaly"), ("Edema", "Pleural Effusion"), ("Atelectasis", "Pleural Effusion"),
                 ("Pneumothorax", "Support Devices"), ("Pneumonia", "Consolidation"), ("Edema", "Support Devices"),
                 ("Pneumonia", "Lung Opacity")):
        assert odds(a, b) > 1.8, (a, b)
    for a, b in (("Fracture", "Edema"), ("Pneumothorax", "Cardiomegaly"), ("Lung Lesion", "Cardiomegaly")):
        assert 0.4 < odds(a, b) < 1.8, (a, b)


def test_reports_are_mostly_right_and_sometimes_wrong(studies):
    for label in ("Pleural Effusion", "Cardiomegaly", "Edema", "Pneumothorax", "Support Devices"):
        there = np.array([study.truth[label] for study in studies])
        said = says(studies, label)
        assert 0.88 < there[said].mean() < 1 and 0.6 < said[there].mean() < 1
        assert not (there & says(studies, label, 0)).any(), "what is there is missed, not denied"


def test_uncertain_findings_are_the_mild_ones(studies):
    for label in ("Edema", "Pneumonia", "Atelectasis"):
        mean = {value: np.mean([study.severity[label] for study in studies
                                if label in study.severity and study.labels.get(label) == value]) for value in (1, -1)}
        assert mean[-1] < 0.7 * mean[1]


def test_no_finding_means_none_but_devices(studies):
    for study in studies:
        other = [x for x in study.labels if x not in ("No Finding", "Support Devices") and study.labels[x]]
        assert ("No Finding" in study.labels) == (not other)
    assert (says(studies, "No Finding") & says(studies, "Support Devices")).any()


def test_a_patient_keeps_what_he_has():
    pairs = [(p.studies[0], p.studies[1]) for p in (draw_patient(0, n) for n in range(2500)) if len(p.studies) > 1]
    for name in ("Cardiomegaly", "Support Devices", "Pleural Effusion"):
        first, second = (np.array([name in pair[k].severity for pair in pairs]) for k in (0, 1))
        assert second[first].mean() > prevalence(name) + 0.2
    assert all(a.findings.seed == b.findings.seed for a, b in pairs)


def test_views_are_as_in_the_original(studies):
    def kinds(study):
        return {"frontal" if view in thorax.FRONTAL else "lateral" for view, _ in study.views}

    both = np.array([len(kinds(study)) == 2 for study in studies])
    bed = np.array([study.views[0][0] == "AP" for study in studies])
    care = says(studies, "Support Devices")
    assert 0.55 < both.mean() < 0.65
    assert 0.005 < np.mean([kinds(study) == {"lateral"} for study in studies]) < 0.03
    assert bed[~both].mean() > 0.6 > 0.3 > bed[both].mean() and both[care].mean() < both[~care].mean() - 0.1
    said = {position for study in studies for _, position in study.views}
    assert said == {"PA", "AP", "LATERAL", "LL", ""}
    frontals = np.array([sum(view in thorax.FRONTAL for view, _ in study.views) for study in studies])
    pairs = frontals * np.array([sum(view in thorax.LATERAL for view, _ in study.views) for study in studies])
    assert 0.03 < (pairs > 1).mean() < 0.15


# files

SMALL = dict(n_subjects=12, short_side=40)


def contents(root) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("mimic") / "set", **SMALL)


def test_files_are_in_the_official_layout(standin):
    metadata, labels, split = (pd.read_csv(standin / f"{FILES[name]}.gz")
                               for name in ("metadata", "chexpert", "split"))
    assert tuple(metadata.columns) == METADATA and tuple(labels.columns) == ("subject_id", "study_id", *LABELS)
    assert tuple(split.columns) == ("dicom_id", "study_id", "subject_id", "split")
    files = {path.name[:-4]: path for path in standin.rglob("*.jpg")}
    assert set(files) == set(metadata.dicom_id) == set(split.dicom_id) and metadata.dicom_id.is_unique
    assert labels.study_id.is_unique and set(labels.study_id) == set(metadata.study_id)
    for row in metadata.itertuples():
        path = standin / "files" / f"p{str(row.subject_id)[:2]}" / f"p{row.subject_id}" / f"s{row.study_id}"
        assert files[row.dicom_id] == path / f"{row.dicom_id}.jpg"
        assert re.fullmatch(r"9\d{7}", str(row.subject_id)) and re.fullmatch(r"9\d{7}", str(row.study_id))
        assert re.fullmatch(r"9fa4e[0-9a-f]{3}(-[0-9a-f]{8}){4}", row.dicom_id)
        with Image.open(files[row.dicom_id]) as image:
            assert image.mode == "L" and image.format == "JPEG" and image.size == (row.Columns, row.Rows)
            assert image.width != image.height and min(image.size) == 40
    assert set(split.split) == {"train", "validate", "test"}
    assert (split.groupby("subject_id").split.nunique() == 1).all()
    values = labels[list(LABELS)]
    assert set(values.stack().dropna()) == {1.0, 0.0, -1.0} and values.isna().mean().mean() > 0.6
    assert "no patients" in (standin / "STAND-IN.txt").read_text()


def test_the_truth_lies_beside_the_labels(standin):
    truth = pd.read_csv(standin / "truth.csv", keep_default_na=False)
    labels = pd.read_csv(standin / f"{FILES['chexpert']}.gz")
    assert (truth.study_id == labels.study_id).all() and set(LABELS) < set(truth.columns)
    for label, name in (("Edema", "edema"), ("Cardiomegaly", "cardiomegaly")):
        assert ((truth[label] == 1) == (truth[name].astype(float) > 0)).all()
    assert ((truth["Pleural Effusion"] == 1)
            == (truth["pleural_effusion right"] + truth["pleural_effusion left"] > 0)).all()


def test_a_second_call_writes_nothing(standin, monkeypatch):
    monkeypatch.setattr(mimic_cxr_standin, "write_images", None)
    assert simulate(standin, **SMALL) == standin


def test_other_seeds_and_sizes_are_other_sets(standin, tmp_path):
    for changes in ({"seed": 1}, {"n_subjects": 13}):
        with pytest.raises(UserError, match="is no stand-in of these settings"):
            simulate(standin, **{**SMALL, **changes})
    other = simulate(tmp_path / "set", **{**SMALL, "seed": 1})
    assert not set(contents(other)) & {name for name in contents(standin) if name.endswith(".jpg")}


def test_every_patient_and_every_image_has_a_random_stream_of_its_own(tmp_path, monkeypatch):
    """One stream for two would make the first image's size and exposure follow from the anatomy."""
    streams = [np.random.default_rng((0, number)).bit_generator.state["state"]["state"] for number in range(12)]

    def noted(rng, *arguments):
        streams.append(rng.bit_generator.state["state"]["state"])
        return draw_acquisition(rng, *arguments)
    monkeypatch.setattr(mimic_cxr_standin, "draw_acquisition", noted)
    root = simulate(tmp_path / "set", **SMALL)
    assert len(set(streams)) == len(streams) == 12 + sum(1 for name in contents(root) if name.endswith(".jpg"))


def test_a_folder_with_other_content_is_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="name another folder"):
        simulate(tmp_path / "set", **SMALL)
    assert contents(tmp_path) == {"set/mine.txt": b"mine"}


@pytest.mark.parametrize("options", [{"n_subjects": 2}, {"short_side": 8}, {"workers": 0}, {"seed": -1}])
def test_numbers_that_make_no_set(tmp_path, options):
    with pytest.raises(UserError, match=next(iter(options))):
        simulate(tmp_path / "set", **{**SMALL, **options})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_workers_do_not_change_a_byte(standin, tmp_path):
    assert contents(simulate(tmp_path / "set", **SMALL, workers=2)) == contents(standin)


def test_a_stopped_run_looks_unfinished_and_is_continued(standin, tmp_path, monkeypatch):
    made = []

    def stops(*arguments):
        if len(made) == 9:
            raise KeyboardInterrupt
        made.append(arguments)
        return render(*arguments)

    monkeypatch.setattr(mimic_cxr_standin, "render", stops)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "set", **SMALL)
    assert not (tmp_path / "set").exists() and [path.name for path in tmp_path.iterdir()] == [".set.part"]
    assert not list(tmp_path.rglob("*.csv*")) and len(list(tmp_path.rglob("*.jpg"))) == 9
    next(tmp_path.rglob("*.jpg")).with_name(".half.jpg.123").write_bytes(b"killed while it wrote")
    again = []
    monkeypatch.setattr(mimic_cxr_standin, "render", lambda *x: again.append(x) or render(*x))
    root = simulate(tmp_path / "set", **SMALL)
    assert contents(root) == contents(standin) and len(again) == len(list(root.rglob("*.jpg"))) - 9
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_second_process_waits_for_the_first_and_draws_nothing(standin, tmp_path):
    part, root = tmp_path / ".set.part", tmp_path / "set"
    code = ("from studies.mimic_cxr.phantom import files; files.render = None; "
            f"print(files.simulate({str(root)!r}, **{SMALL!r}))")
    with in_turn(part / mimic_cxr_standin.LOCK):
        second = subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        assert second.stderr.readline() == f"waiting for another process that makes {root}\n"
        shutil.copytree(standin, root)
    assert second.communicate() == (f"{root}\n", "") and second.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["set"] and contents(root) == contents(standin)


@pytest.mark.skipif("x86" not in platform.machine(), reason="names kernels of x86")
def test_no_processor_s_way_to_round_products_of_matrices_reaches_the_image():
    """A changed pixel in ten thousand changes the first updates: phantoms of two processors once differed."""
    code = ("import numpy as np; from studies.mimic_cxr.phantom import thorax; "
            "image = np.random.default_rng(0).random((160, 190), dtype=np.float32); "
            "print(thorax._soften(image, 16.0).tobytes().hex())")
    found = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True,
                            env=os.environ | {"OPENBLAS_CORETYPE": kernels}).stdout
             for kernels in ("Prescott", "Sandybridge", "Haswell")}
    assert len(found) == 1 and len(found.pop().strip()) == 8 * 160 * 190


def test_the_rest_of_another_set_is_not_continued(standin, tmp_path):
    part = tmp_path / ".set.part"
    part.mkdir()
    (part / "begun.json").write_text(json.dumps({"version": 0}))
    (part / "files").write_text("old")
    assert contents(simulate(tmp_path / "set", **SMALL)) == contents(standin)


def test_a_run_killed_before_the_last_step_only_lacks_its_name(standin, tmp_path, monkeypatch):
    shutil.copytree(standin, tmp_path / ".set.part")
    monkeypatch.setattr(mimic_cxr_standin, "write_images", None)
    assert contents(simulate(tmp_path / "set", **SMALL)) == contents(standin)


def test_two_processes_that_make_the_same_set(standin, tmp_path, monkeypatch):
    """The slower one finds the set made and leaves no folder of its own."""
    tables = mimic_cxr_standin.tables

    def late(part, rows):
        shutil.copytree(standin, tmp_path / "set")
        tables(part, rows)

    monkeypatch.setattr(mimic_cxr_standin, "tables", late)
    assert simulate(tmp_path / "set", **SMALL) == tmp_path / "set"
    assert [path.name for path in tmp_path.iterdir()] == ["set"] and contents(tmp_path / "set") == contents(standin)


def test_default_roots(monkeypatch, tmp_path):
    monkeypatch.setenv("MMVM_DATA", str(tmp_path))
    assert simulate(n_subjects=3, short_side=40) == tmp_path / "mimic_cxr" / "standin-3-0-40"


def test_packed_tables_hold_no_date(standin):
    packed = (standin / f"{FILES['split']}.gz").read_bytes()
    assert packed[4:8] == bytes(4) and gzip.decompress(packed).startswith(b"dicom_id,")
    assert os.path.getsize(standin / "standin.json") < 200


@pytest.mark.slow
def test_findings_can_be_learned_from_small_images():
    """A linear rule on 24 x 24 pixels tells severe findings from none, in each view."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import roc_auc_score

    def small(findings, view, n):
        rng = np.random.default_rng((n, len(view)))
        image = render(draw_anatomy(np.random.default_rng(n)), findings, view, draw_acquisition(rng, view, 64))
        edge = min(image.shape)
        top, left = (image.shape[0] - edge) // 2, (image.shape[1] - edge) // 2
        image = Image.fromarray(image[top:top + edge, left:left + edge]).resize((24, 24), Image.Resampling.BOX)
        return np.asarray(image, np.float32).ravel() / 255

    cases = {"effusion": dict(pleural_effusion=(0.35, 0.3)), "heart": dict(cardiomegaly=0.8), "edema": dict(edema=0.8)}
    y = np.repeat((0, 1), 45)
    train = np.tile(np.arange(45) < 30, 2)
    for view in VIEWS:
        healthy = [small(Findings(), view, n) for n in range(45)]
        for name, ill in cases.items():
            x = np.stack([*healthy, *(small(Findings(**ill), view, n) for n in range(45, 90))])
            score = RidgeClassifier(alpha=10).fit(x[train], y[train]).decision_function(x[~train])
            assert roc_auc_score(y[~train], score) > 0.75, (view, name)


def test_images_are_a_few_kilobytes():
    content = io.BytesIO()
    Image.fromarray(render(Anatomy(), Findings(), "PA")).save(content, "JPEG", quality=85)
    assert 2_000 < len(content.getvalue()) < 12_000
