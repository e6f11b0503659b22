"""Parameters of the pages that belong to no study."""

import typing
from dataclasses import dataclass

from mmvm.errors import UserError
from mmvm.study.parameters import Parameters, parameter
from studies.polymnist.networks import NETWORKS


@dataclass(frozen=True)
class Intro(Parameters):
    """Parameters of the landing page."""

    name: typing.ClassVar[str] = "intro"

    profile: str = parameter("laptop", "the committed runs that the page shows")


@dataclass(frozen=True)
class Cost(Parameters):
    """Parameters of the chapter `cost`."""

    name: typing.ClassVar[str] = "cost"

    network: str = parameter("conv", "networks of the live check: conv (small) | resnet (paper)", tuple(NETWORKS))
    n_modalities: int = parameter(3, "M of the live check", at_least=1)
    batch_size: int = parameter(64, "samples of the live check; paper: 256", at_least=1)
    rounds: int = parameter(2, "turns of each choice in the live measurement", at_least=1)
    machine: str = parameter("", "whose committed measurements are shown; empty: those that the text is about")
    gpu_watts: float = parameter(215.0, "power of the paper's GTX 2080 under load, its board's limit", positive=True)
    core_watts: float = parameter(7.0, "power of one core of a data-centre CPU under load", positive=True)
    carbon: float = parameter(0.45, "kg of CO2 equivalent per kWh of electricity, about the world's average",
                              positive=True)


@dataclass(frozen=True)
class Method(Parameters):
    """Parameters of the chapter `method`."""

    name: typing.ClassVar[str] = "method"

    seed: int = parameter(0, "seed of all draws")
    n_samples: int = parameter(100_000, "draws of every Monte Carlo estimate")
    toy_epochs: int = parameter(60, "epochs of the three-modality toy at the end")


@dataclass(frozen=True)
class Methods(Parameters):
    """Parameters of the page of methods and studies."""

    name: typing.ClassVar[str] = "methods"

    which: str = parameter("", "methods that are shown, with commas between them; empty: all")


@dataclass(frozen=True)
class YourData(Parameters):
    """Parameters of the chapter `your-data`."""

    name: typing.ClassVar[str] = "your-data"

    objective: str = parameter("mmvm", "method and its options; python -m mmvm methods lists them")
    beta: float = parameter(0.5, "weight of the regulariser", at_least=0)
    latent_dim: int = parameter(16, "D, per modality", at_least=1)
    epochs: int = parameter(200, "passes over the training samples, at most", at_least=1)
    patience: int = parameter(8, "epochs without a better validation after which a training ends", at_least=1)
    seed: int = parameter(0, "seed of splits, weights, order and draws")


@dataclass(frozen=True)
class Diagnostics(Parameters):
    """Parameters of the page of failing runs."""

    name: typing.ClassVar[str] = "diagnostics"

    seed: int = parameter(0, "seed of networks, draws and order of the samples")


@dataclass(frozen=True)
class Trust(Parameters):
    """Parameters of the page `trust`."""

    name: typing.ClassVar[str] = "trust"

    kind: str = parameter("", "files | kills | disturbances: attacks that the table shows; empty: all")


@dataclass(frozen=True)
class Errata(Parameters):
    """Parameters of the page `errata`."""

    name: typing.ClassVar[str] = "errata"

    seeds: int = parameter(3, "seeds of each small model that the page trains", at_least=2)


@dataclass(frozen=True)
class Collapse(Parameters):
    """Parameters of the chapter `collapse`."""

    name: typing.ClassVar[str] = "collapse"

    starts: int = parameter(2, "random starts of each optimisation", at_least=1)


@dataclass(frozen=True)
class Translated(Parameters):
    """Parameters of the page `translated`."""

    name: typing.ClassVar[str] = "translated"

    n_shown: int = parameter(6, "validation tuples whose pictures are drawn", at_least=1)
    n_fitted: int = parameter(4_000, "of 5000 validation tuples those to whose latents probes are fitted; the rest "
                              "tests them", at_least=100)
    seed: int = parameter(0, "seed of the draws of the pictures")

    def __post_init__(self):
        super().__post_init__()
        if self.n_fitted > 4_900:
            raise UserError(f"n_fitted is {self.n_fitted} of 5000 tuples: leave 100 or more to test the probes")


@dataclass(frozen=True)
class Beyond(Parameters):
    """Parameters of the chapter `beyond`."""

    name: typing.ClassVar[str] = "beyond"

    n_train: int = parameter(10_000, "training tuples to whose latents the densities are fitted", at_least=100)
    updates: int = parameter(1_000, "of the latent diffusion's training", at_least=1)
    n_draws: int = parameter(500, "joint draws that are judged", at_least=2)
    seed: int = parameter(0, "seed of fits and draws")


@dataclass(frozen=True)
class Ablations(Parameters):
    """Parameters of the page `ablations`."""

    name: typing.ClassVar[str] = "ablations"

    n_test: int = parameter(2_000, "test tuples whose gate is asked what it would learn", at_least=2)
    seed: int = parameter(0, "seed of which picture lies, and of the draws")


@dataclass(frozen=True)
class Scoreboard(Parameters):
    """Parameters of the page `scoreboard`."""

    name: typing.ClassVar[str] = "scoreboard"

    measure: str = parameter("probe", "measure of the still picture below the explorer", ("probe", "coherence"))


@dataclass(frozen=True)
class Information(Parameters):
    """Parameters of the page `information`."""

    name: typing.ClassVar[str] = "information"

    samples: int = parameter(2_000, "N of the live check on Gaussians", at_least=1_000)
    seed: int = parameter(0, "seed of its draws")


@dataclass(frozen=True)
class Status(Parameters):
    """Parameters of the page `status`."""

    name: typing.ClassVar[str] = "status"

    file: str = parameter("", "results file that the page shows; empty: all")
