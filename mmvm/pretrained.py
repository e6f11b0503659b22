"""Trained models that ship with the project: `mmvm.pretrained("<study>/<method>")`.

Each is files of data/models: <study>/<method>.safetensors, the weights in bfloat16 and all that is needed to use them;
.yaml, the parameters of its run, which `train <study> --profile <file>` takes; .csv, what was measured with these very
weights; and .npz, a few test samples, where the study's data do not ship.
"""

from pathlib import Path

from mmvm import paths
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE


def names() -> list[str]:
    """<study>/<method> of every model that ships."""
    return sorted(path.relative_to(paths.models_root()).with_suffix("").as_posix()
                  for path in paths.models_root().glob("*/*.safetensors"))


def place(name: str, suffix: str = ".safetensors") -> Path:
    """The file of a model that ships. Raises `UserError` where there is no such model."""
    if name not in names():
        raise UserError(f"no model {name!r} ships with the project; there are: {', '.join(names()) or 'none'}")
    return paths.models_root() / f"{name}{suffix}"


def pretrained(name: str) -> MultimodalVAE:
    """The model, in evaluation mode, on the CPU; its weights are float32 again. Raises `UserError`.

    >>> try: pretrained("no/such")
    ... except UserError as error: print(str(error)[:44])
    no model 'no/such' ships with the project; t
    """
    return MultimodalVAE.load(place(name)).eval()
