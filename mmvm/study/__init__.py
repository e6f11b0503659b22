"""From parameters to trained model and result rows, for any data set; the studies themselves are found, not listed."""

from mmvm.study.parameters import Parameters, parameter
from mmvm.study.registry import STUDIES, load
from mmvm.study.study import Metrics, Result, Study, run

__all__ = ["STUDIES", "Metrics", "Parameters", "Result", "Study", "load", "parameter", "run"]
