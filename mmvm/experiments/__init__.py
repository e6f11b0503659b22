"""Per data set: parameters in, trained model and result rows out."""

from mmvm.experiments.base import METHOD_OPTIONS, Experiment, Metrics, Result, load, run
from mmvm.experiments.hippocampus import Hippocampus
from mmvm.experiments.pages import Intro, Method
from mmvm.experiments.parameters import Parameters
from mmvm.experiments.polymnist import PolyMNIST

EXPERIMENTS = {"polymnist": PolyMNIST, "hippocampus": Hippocampus}

__all__ = ["EXPERIMENTS", "METHOD_OPTIONS", "Experiment", "Hippocampus", "Intro", "Method", "Metrics", "Parameters",
           "PolyMNIST", "Result", "load", "run"]
