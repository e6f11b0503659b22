"""Per data set: parameters in, trained model and result rows out."""

from mmvm.experiments.base import METHOD_OPTIONS, Experiment, Metrics, Result, load, run
from mmvm.experiments.cub import CUB
from mmvm.experiments.hippocampus import Hippocampus
from mmvm.experiments.mimic_cxr import MimicCXR
from mmvm.experiments.pages import Cost, Intro, Method
from mmvm.experiments.parameters import Parameters
from mmvm.experiments.polymnist import PolyMNIST

EXPERIMENTS = {"polymnist": PolyMNIST, "cub": CUB, "hippocampus": Hippocampus, "mimic-cxr": MimicCXR}

__all__ = ["CUB", "EXPERIMENTS", "METHOD_OPTIONS", "Cost", "Experiment", "Hippocampus", "Intro", "Method", "Metrics",
           "MimicCXR", "Parameters", "PolyMNIST", "Result", "load", "run"]
