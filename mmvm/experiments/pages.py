"""Parameters of the chapters that train no experiment."""

import typing
from dataclasses import dataclass

from mmvm.experiments.parameters import Parameters, parameter


@dataclass(frozen=True)
class Intro(Parameters):
    """Parameters of the landing page."""

    chapter: typing.ClassVar[str] = "intro"

    profile: str = parameter("laptop", "the committed runs that the table shows")


@dataclass(frozen=True)
class Method(Parameters):
    """Parameters of the chapter `method`."""

    chapter: typing.ClassVar[str] = "method"

    seed: int = parameter(0, "seed of all draws")
    n_samples: int = parameter(100_000, "draws of every Monte Carlo estimate")
    toy_epochs: int = parameter(60, "epochs of the two-modality toy at the end")
