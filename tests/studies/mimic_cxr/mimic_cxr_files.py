"""A small tree in MIMIC-CXR-JPG's layout, for tests: made-up subjects, noise for images."""

import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from studies.mimic_cxr.index import FILES, LABELS

COLUMNS = ("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns",
           "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
           "PatientOrientationCodeSequence_CodeMeaning")
# the views of a subject's studies, subject after subject: 14 pairs of 9 studies, 4 studies with one view, one with none
STUDIES = ((("PA", "LATERAL"),), (("AP", "PA", "LL"), ("AP",)), (("PA", "LATERAL", "LL"),), (("AP", "LATERAL"),),
           (("LATERAL", "LL"), ("PA", "LL")), (("PA", "AP", "LATERAL", "LL"),), (("PA", "LATERAL"), ("AP", "AP")),
           (("AP", "LL"),), (("", "SWIMMERS"), ("PA",)), (("PA", "LATERAL"),))
N_PAIRS, N_STUDIES, N_STUDIES_WITH_BOTH = 14, 14, 9


def write_tree(root: Path, studies=STUDIES, *, zipped: bool = True, image=True, first_subject: int = 19_999_991,
               first_study: int = 59_999_900) -> pd.DataFrame:
    """Writes the three csv files and the images below `root`; returns the metadata."""
    draw = np.random.default_rng(0)
    rows, labels = [], []
    study = first_study
    for n, own in enumerate(studies):
        for views in own:
            study += 1
            labels.append([first_subject + n, study, *draw.choice([1.0, 0.0, -1.0, np.nan], len(LABELS))])
            for k, view in enumerate(views):
                dicom = f"d1c0{study % 10_000:04d}-0badc0de-{k:08d}-feedface-{'abcdef'[k]}{n:07d}"
                rows.append([dicom, first_subject + n, study, "CHEST (PA AND LAT)", view, 90 + n, 80 + k, 21800506,
                             213014.53, "", "", "Erect"])
    metadata = pd.DataFrame(rows, columns=list(COLUMNS))
    split = metadata[["dicom_id", "study_id", "subject_id"]].copy()
    split["split"] = [("train", "train", "validate", "test")[s % 4] for s in metadata["subject_id"]]
    root.mkdir(parents=True, exist_ok=True)
    for name, table in (("metadata", metadata), ("split", split),
                        ("chexpert", pd.DataFrame(labels, columns=["subject_id", "study_id", *LABELS]))):
        table.to_csv(root / (FILES[name] + (".gz" if zipped else "")), index=False)
    for row in metadata.itertuples() if image else ():
        path = path_of(root, row)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(row.Rows, row.Columns, seed=row.Index))
    return metadata


def path_of(root: Path, row) -> Path:
    subject = str(row.subject_id)
    return root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{row.study_id}" / f"{row.dicom_id}.jpg"


def jpeg(height: int, width: int, seed: int = 0, **options) -> bytes:
    """A grey gradient with blocks of noise, every seed another one."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 90, (height // 8 + 1, width // 8 + 1)).repeat(8, 0).repeat(8, 1)[:height, :width]
    pixels = np.linspace(10, 150, width)[None] + blocks
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def edit(root: Path, name: str, change, zipped: bool = True) -> None:
    """Rewrites a csv file with `change(text)`."""
    path = root / (FILES[name] + (".gz" if zipped else ""))
    if zipped:
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()).decode()).encode()))
    else:
        path.write_text(change(path.read_text()))
