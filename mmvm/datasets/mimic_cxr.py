"""MIMIC-CXR-JPG: a placeholder until the loader is merged; it has the names and types that the experiment uses."""

from dataclasses import dataclass

from torch import Tensor

from mmvm.datasets.base import MultimodalData
from mmvm.datasets.mimic_cxr_index import LABELS
from mmvm.errors import UserError

POLICIES = ("all_pairs", "one_pair", "missing")
SPLITS_BY = ("subject", "official")
UNCERTAIN = ("zero", "one", "ignore")

__all__ = ["LABELS", "ChestXrays", "load", "simulate"]


@dataclass
class ChestXrays(MultimodalData):
    """Modalities "frontal" and "lateral", labels (N, 14) float32, NaN where one is not known."""

    label_names: tuple[str, ...] = LABELS
    report: tuple[str, ...] = ()
    standin: bool = False
    subject: Tensor | None = None

    def subset(self, index) -> "ChestXrays":
        found = super().subset(index)
        if self.subject is not None:
            found.subject = self.subject[index]
        return found


def load(split, root=None, *, policy="all_pairs", split_by="subject", uncertain="zero", size=224, equalise=False,
         split_seed=0) -> ChestXrays:
    raise UserError("the loader of MIMIC-CXR-JPG is not there yet")


def simulate(root=None, *, n_subjects=400, seed=0):
    raise UserError("the stand-in of MIMIC-CXR-JPG is not there yet")
