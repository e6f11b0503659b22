"""A stand-in for MIMIC-CXR-JPG: phantoms' radiographs and label files, written to disk in the official layout.

`simulate` writes, `studies.mimic_cxr.data.load` reads it like the original. Nobody's data is in it: patients are drawn
by `patients`, images made by `thorax`. The set has the original's oddities too:
images of different sizes, studies with one view or two frontal ones, empty ViewPosition, LATERAL and LL for the same.
Subject and study numbers are of the official form but outside the official range: all start with 9.

The same arguments give the same files, with any number of workers and on any x86 processor; other versions of NumPy or
Pillow may differ by a grey level here and there.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mmvm.errors import UserError
from mmvm.paths import data_root, home
from mmvm.training.lock import in_turn
from studies.mimic_cxr.index import FILES, LABELS, MARKER
from studies.mimic_cxr.phantom.patients import DRAWN, Patient, draw_patient
from studies.mimic_cxr.phantom.thorax import draw_acquisition, render

VERSION = 2                 # of the phantom and its patients: sets of another version are not mistaken for this one's
SETTINGS = "standin.json"   # gets this name last, so a set that has it is complete
BEGUN = "begun.json"        # its name until then
LOCK = "lock"               # of the process that makes the set; the next one waits
METADATA = ("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows",
            "Columns", "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
            "PatientOrientationCodeSequence_CodeMeaning")
NOTICE = """These are no patients. Everything in this folder is simulated: radiographs of a thorax phantom, drawn at
random by studies.mimic_cxr.phantom.files, in the layout of MIMIC-CXR-JPG. It holds nothing of that data set. CC0.
"""
VIEW_CODES = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral", "LL": "left lateral", "": ""}
CHUNK = 8                   # patients that a worker makes before it reports


def simulate(root: str | os.PathLike | None = None, *, n_subjects: int = 3_000, short_side: int = 160, seed: int = 0,
             workers: int = 1, progress: bool | None = None) -> Path:
    """Writes radiographs of `n_subjects` phantoms to `root` (which must not exist) and returns it.

    root        by default data/mimic_cxr/standin-<n_subjects>-<seed>, with -<short_side> where that is not 160
    short_side  pixels of the images' shorter side; the longer one is 1.17 to 1.24 times as long
    seed        of patients, acquisitions and numbers
    workers     processes; the files are the same whatever their number
    progress    a bar on standard error; by default for more than 200 subjects

    root/files/pXX/p<subject>/s<study>/<image>.jpg, three csv.gz files named as in MIMIC-CXR-JPG 2.0.0, STAND-IN.txt,
    and truth.csv: of each study what is really there, how severe and on which side. Split by subject: 8 % "test", 4 %
    "validate". About 2.2 studies a subject, 1.7 images a study, 4 KB an image, 60 images a second and core.

    A complete set of the same arguments is left as it is. One that was stopped half-way lies in a hidden folder beside
    `root` and is continued. Raises `UserError` for numbers that make no set and where `root` holds something else.
    """
    default = f"standin-{n_subjects}-{seed}" + (f"-{short_side}" if short_side != 160 else "")
    root = data_root() / "mimic_cxr" / default if root is None else home(root)
    for name, value, low, high in (("n_subjects", n_subjects, 3, 999_999), ("short_side", short_side, 32, 2048),
                                   ("workers", workers, 1, 1024), ("seed", seed, 0, 2**32)):
        if not (isinstance(value, (int, np.integer)) and low <= value <= high):
            raise UserError(f"{name}={value}: give a whole number from {low} to {high}")
    settings = {"version": VERSION, "n_subjects": n_subjects, "short_side": short_side, "seed": seed}
    if _settings(root) == settings:
        return root
    if root.exists():
        raise UserError(f"{root} exists and is no stand-in of these settings ({settings}): name another folder, or "
                        "delete it")
    part = root.with_name(f".{root.name}.part")
    lock = part / LOCK
    try:
        with in_turn(lock, f"waiting for another process that makes {root}"):
            if _settings(root) != settings:     # else that process has made it
                _make(part, settings, workers, n_subjects > 200 if progress is None else progress)
                lock.unlink(missing_ok=True)
                os.rename(part, root)
    except OSError:
        if _settings(root) != settings:
            raise
    if part.exists() and not _settings(part, BEGUN):
        shutil.rmtree(part, ignore_errors=True)
    return root


def _make(part: Path, settings: dict, workers: int, progress: bool) -> None:
    """Writes what of the set is not in `part` yet."""
    if settings not in (_settings(part, BEGUN), _settings(part)):
        for path in part.iterdir():             # the rest of another set
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    if _settings(part) != settings:
        _replace(part / BEGUN, json.dumps(settings).encode())
        rows = write_images(part, settings["n_subjects"], settings["short_side"], settings["seed"], workers, progress)
        tables(part, rows)
        for path in part.rglob(".*"):           # half-written files of a run that was killed
            path.unlink()
        os.replace(part / BEGUN, part / SETTINGS)


def _settings(root: Path, file: str = SETTINGS) -> dict | None:
    try:
        return json.loads((root / file).read_text())
    except (OSError, ValueError):
        return None


def _replace(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole or not at all."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(content)
    os.replace(new, path)


# images --------------------------------------------------------------------------------------------------------------

def write_images(part: Path, n_subjects: int, short_side: int, seed: int, workers: int, progress: bool) -> list[dict]:
    """Writes all images and returns a row for each patient, in the order of subject numbers."""
    numbers = np.sort(np.random.default_rng((seed, 2**32)).choice(9_999_999, n_subjects, replace=False)) + 90_000_001
    jobs = [(part, numbers[k:k + CHUNK].tolist(), k, short_side, seed) for k in range(0, n_subjects, CHUNK)]
    rows: list[dict] = []
    with tqdm(total=n_subjects, unit=" patients", disable=not progress, file=sys.stderr) as bar:
        if workers == 1:
            made = map(_patients, jobs)
        else:
            pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"))
            made = pool.map(_patients, jobs)
        try:
            for found in made:
                rows += found
                bar.update(len(found))
        finally:
            if workers > 1:
                pool.shutdown(cancel_futures=True)
    return rows


def _patients(job: tuple) -> list[dict]:
    part, numbers, first, short_side, seed = job
    return [_patient(part, subject, first + k, short_side, seed) for k, subject in enumerate(numbers)]


def _patient(part: Path, subject: int, number: int, short_side: int, seed: int) -> dict:
    """Writes a patient's images, those that are not there yet, and returns what the tables need of them."""
    patient = draw_patient(seed, number)
    studies = []
    for s, study in enumerate(patient.studies):
        name = 90_000_000 + (7_368_787 * (10 * number + s) + 1_234_567 * seed) % 10**7      # one-to-one, not in order
        folder = part / "files" / f"p{subject // 10**6}" / f"p{subject}" / f"s{name}"
        folder.mkdir(parents=True, exist_ok=True)
        images = []
        for i, (view, said) in enumerate(study.views):
            # 1 + i: NumPy ignores zeros at the end, and (seed, number, 0, 0) would be the patient's own stream
            acquisition = draw_acquisition(np.random.default_rng((seed, number, s, 1 + i)), view, short_side)
            digits = f"{_hash(seed, number, s, i):032x}"
            image = "-".join(["9fa4e" + digits[5:8], *(digits[k:k + 8] for k in (8, 16, 24)), digits[:8]])
            path = folder / f"{image}.jpg"
            if not path.is_file():
                content = io.BytesIO()
                pixels = render(patient.anatomy, study.findings, view, acquisition)
                Image.fromarray(pixels).save(content, "JPEG", quality=85)
                _replace(path, content.getvalue())
            images.append({"dicom_id": image, "ViewPosition": said, "Rows": acquisition.shape[0],
                           "Columns": acquisition.shape[1], "view": view, "supine": acquisition.supine})
        studies.append({"study_id": name, "images": images})
    return {"subject_id": subject, "number": number, "seed": seed, "patient": patient, "studies": studies}


def _hash(*what) -> int:
    """A number of 128 bits that depends on nothing but its arguments."""
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=16).digest(), "big")


# tables --------------------------------------------------------------------------------------------------------------

def tables(root: Path, rows: list[dict]) -> None:
    """The csv files, and the notice that this is a stand-in."""
    order = sorted(range(len(rows)), key=lambda k: _hash(rows[k]["seed"], rows[k]["number"], "split"))
    n_validate, n_test = max(1, round(0.04 * len(rows))), max(1, round(0.08 * len(rows)))
    parts = {k: "validate" if place < n_validate else "test" if place < n_validate + n_test else "train"
             for place, k in enumerate(order)}
    metadata, labels, split, truth = [METADATA], [("subject_id", "study_id", *LABELS)], [], []
    split.append(("dicom_id", "study_id", "subject_id", "split"))
    for k, row in enumerate(rows):
        patient: Patient = row["patient"]
        subject, day = row["subject_id"], 150 + _hash(row["seed"], row["number"], "day") % 20_000
        found = sorted(zip(row["studies"], patient.studies), key=lambda pair: pair[0]["study_id"])
        for made, study in found:
            name = made["study_id"]
            day += 1 + _hash(row["seed"], name, "gap") % 300
            labels.append((subject, name, *(f"{study.labels[x]:.1f}" if x in study.labels else "" for x in LABELS)))
            truth.append(_truth(subject, name, study))
            for image in made["images"]:
                metadata.append(_metadata(subject, name, made["images"], image, day))
                split.append((image["dicom_id"], name, subject, parts[k]))
    for file, table in (("metadata", metadata), ("chexpert", labels), ("split", split)):
        _replace(root / f"{FILES[file]}.gz", gzip.compress(_csv(table), compresslevel=6, mtime=0))
    _replace(root / "truth.csv", _csv([tuple(truth[0]), *(tuple(x.values()) for x in truth)]))
    _replace(root / MARKER, NOTICE.encode())


def _csv(rows: list[tuple]) -> bytes:
    """No field holds a comma."""
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def _metadata(subject: int, study: int, images: list[dict], image: dict, day: int) -> tuple:
    """A row of the metadata file. Dates lie in the 22nd century, as the original's do."""
    views = {x["view"] for x in images}
    step = "CHEST (PA AND LAT)" if len(views) > 1 else "CHEST (PORTABLE AP)" if "AP" in views else "CHEST (SINGLE VIEW)"
    year, rest = 2110 + day // 360, day % 360
    date = f"{year}{rest // 30 + 1:02d}{rest % 30 % 28 + 1:02d}"
    clock = _hash(study, "time")
    time = f"{clock % 24:02d}{clock // 24 % 60:02d}{clock // 1440 % 60:02d}.{clock // 86400 % 1000:03d}".lstrip("0")
    position = "" if clock % 50 == 0 else "Recumbent" if image["supine"] else "Erect"
    return (image["dicom_id"], subject, study, step, image["ViewPosition"], image["Rows"], image["Columns"], date, time,
            step, VIEW_CODES[image["ViewPosition"]], position)


def _truth(subject: int, study: int, drawn) -> dict:
    """What is really there: 0 or 1 of each label, severities, of (right, left) where a finding has a side, devices."""
    values = {"subject_id": subject, "study_id": study}
    values.update({label: int(there) for label, there in drawn.truth.items()})
    values.update({f"severity of {name}": f"{drawn.severity.get(name, 0):.4f}" for name in DRAWN})
    for name, value in asdict(drawn.findings).items():
        if name == "devices":
            values["devices"] = "; ".join(value)
        elif name != "seed" and isinstance(value, tuple):
            values.update({f"{name} {side}": f"{x:.4f}" for side, x in zip(("right", "left"), value)})
        elif name != "seed":
            values[name] = f"{value:.4f}"
    return values
