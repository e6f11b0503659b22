"""Single cells: an AnnData is one modality, a MuData several of the same cells. `latents` is the way back."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmvm.bring.extra import needs
from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.modality import Modality


def from_cells(cells: Any, /, layers: Mapping[str, str] | str | None = None, labels: str | None = None,
               say: Callable[[str], None] | None = print, **modalities: Mapping) -> MultimodalData:
    """A MuData or AnnData, or the path of its .h5mu or .h5ad, as data: cells are samples, variables features.

    layers      the layer of every modality that is read, or of some by name; otherwise X. Becomes dense float32. A cell
                that a modality of a MuData lacks is not observed in it
    labels      column of `obs` with a class for every cell; `say`: as of `Modality.guess`
    modalities  what not to guess, by name: rna=dict(likelihood=NegativeBinomial()). An AnnData's is called "cells"

    Raises `UserError`.

    >>> data = mmvm.bring.from_cells("multiome.h5mu", layers={"rna": "counts"}, say=None)
    >>> data.names, data.specs[0].likelihood
    (['rna', 'atac'], NegativeBinomial(dispersion=None, library=None))
    """
    if isinstance(cells, str | os.PathLike):
        several = str(cells).endswith(".h5mu")
        cells = needs("mudata", "cells").read_h5mu(cells) if several else needs("anndata", "cells").read_h5ad(cells)
    parts = dict(getattr(cells, "mod", None) or {"cells": cells})
    chosen_layers = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(parts, layers)
    for name in sorted({*chosen_layers, *modalities} - set(parts)):
        raise UserError(f"there is no modality {name}: there are {', '.join(parts)}")
    if labels is not None and (labels not in cells.obs or cells.obs[labels].isna().any()):
        raise UserError(f"`obs` has no class of every cell in {labels!r}: choose from {', '.join(cells.obs.columns)}")
    x, specs, observed = {}, [], {}
    for name, part in parts.items():
        if (layer := chosen_layers.get(name)) is not None and layer not in part.layers:
            raise UserError(f"{name!r} has no layer {layer!r}; there are {', '.join(part.layers) or 'none'}")
        values = part.X if layer is None else part.layers[layer]
        values = np.asarray(values.todense() if hasattr(values, "todense") else values, dtype=np.float32)
        if not cells.obs_names.is_unique:
            raise UserError("names of cells occur twice: call obs_names_make_unique() first")
        rows = cells.obs_names.get_indexer(part.obs_names)
        chosen = {"features": tuple(map(str, part.var_names)), **modalities.get(name, {})}
        specs.append(Modality.guess(name, values, say, **chosen))
        x[name] = np.zeros((cells.n_obs, values.shape[1]), np.float32)
        x[name][rows], observed[name] = values, np.isin(np.arange(cells.n_obs), rows)
    return MultimodalData(x, tuple(specs), None if labels is None else cells.obs[labels].astype("category"), observed,
                          list(cells.obs_names))
