"""Imputations as an xarray `Dataset`, which knows sample, feature, channel, row and column of every number."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmvm.bring.extra import needs
from mmvm.data import MultimodalData, check_units
from mmvm.errors import UserError
from mmvm.evaluation.encodings import BATCH
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import evaluating

if TYPE_CHECKING:
    import xarray

AXES = {1: ("feature",), 3: ("channel", "row", "column")}


@torch.no_grad()
def imputed(model: MultimodalVAE, data: MultimodalData, targets: str | Sequence[str] | None = None,
            seed: int = 0) -> "xarray.Dataset":
    """`model.impute` of all samples from what each has: an `xarray.Dataset` with a variable per target modality.

    A variable is (sample, feature) of vectors, (sample, channel, row, column) of pictures, otherwise (sample, axis_1,
    ...); all axes but `sample` begin with the modality's name, NAME_feature. Coordinates: `sample` are the ids, or
    numbers; NAME_feature the features' names, where there are some; NAME_observed (sample) whether the modality was
    there; `label` (sample) names or numbers of classes. Values are as of `model.impute`, seeded. Raises `UserError`.

    >>> mmvm.bring.imputed(model, data, "b")["b"].dims
    ('sample', 'b_feature')
    """
    library = needs("xarray", "xarray")
    check_units(model, data)
    pieces, variables = [], {}
    with evaluating(model, seed) as device:
        for batch in data.batches(BATCH):
            pieces.append(model.impute([x.to(device) for x in batch.x], batch.observed.to(device), targets,
                                       trust=batch.trust))
    coordinates: dict[str, Any] = {"sample": list(data.ids or range(len(data)))}
    for spec, observed in zip(data.specs, data.observed.cpu()):
        if spec.name not in pieces[0]:
            continue
        values = torch.cat([piece[spec.name].float().cpu() for piece in pieces])
        axes = [f"{spec.name}_{axis}" for axis in AXES.get(values.ndim - 1, [
            f"axis_{i}" for i in range(1, values.ndim)])]
        variables[spec.name] = (("sample", *axes), values.numpy(), {"likelihood": repr(spec.likelihood)})
        coordinates[f"{spec.name}_observed"] = ("sample", observed.numpy())
        if spec.features and values.shape[1:] == spec.shape:
            coordinates[axes[0]] = list(spec.features)
    if taken := sorted({*variables} & {"sample", "label", *coordinates}):
        raise UserError(f"a modality is named {taken[0]!r}, as a coordinate is: rename it")
    if data.labels is not None and data.labels.ndim == 1:
        labels = data.labels.tolist()
        coordinates["label"] = ("sample", [data.label_names[i] for i in labels] if data.label_names else labels)
    return library.Dataset(variables, coordinates, {"seed": seed, "made by": "mmvm.bring.imputed"})
