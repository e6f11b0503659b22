"""A stand-in for MIMIC-CXR-JPG, written to disk in the official layout: not written yet."""

from pathlib import Path

from mmvm.errors import UserError


def simulate(root=None, *, n_subjects: int = 600, seed: int = 0) -> Path:
    raise UserError("the stand-in of mimic-cxr is not there yet: name a folder of the official files as root")
