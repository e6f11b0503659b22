"""Where data, runs and results live.

A chapter is run from the repository's root (papermill), from `book/` (nbval, Jupyter) and from elsewhere
(a cluster job), so nothing may depend on the working directory: every path starts from one of these roots.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def home(path: str | os.PathLike) -> Path:
    """The path with `~` as a shell reads it: parameters and YAML files meet no shell."""
    return Path(os.path.expanduser(path))


def placed(path: str | os.PathLike) -> Path:
    """What a parameter's path names: a relative one starts at the repository's root."""
    return REPOSITORY / home(path)


def data_root() -> Path:
    """The data that ships with the project, or the folder named by the environment variable MMVM_DATA."""
    return home(os.environ.get("MMVM_DATA") or REPOSITORY / "data")


def results_root() -> Path:
    """The committed result rows. They are part of the book, so MMVM_DATA does not move them."""
    return REPOSITORY / "data" / "results"


def models_root() -> Path:
    """The trained models that ship."""
    return REPOSITORY / "data" / "models"


def runs_root() -> Path:
    """Checkpoints, histories and papermill outputs; ignored by git. MMVM_RUNS moves it to a larger disk."""
    return home(os.environ.get("MMVM_RUNS") or REPOSITORY / "runs")
