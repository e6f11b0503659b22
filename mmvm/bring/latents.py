"""Latents of single cells go back into the `obsm` of what `cells` read."""

from typing import Any

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.evaluation import encode_means
from mmvm.model import MultimodalVAE


def latents_into(cells: Any, model: MultimodalVAE, data: MultimodalData, key: str = "X_mmvm",
                 how: str = "mixture") -> None:
    """Writes latents (N, D) into `cells.obsm[key]`: of each cell `model.shared(data, how)`; of a MuData also each
    modality's own posterior means. `data` are its `from_cells`. Raises `UserError`.

    >>> data = mmvm.bring.from_cells(cells, say=None)
    >>> mmvm.bring.latents_into(cells, MultimodalVAE.for_data(data, latent_dim=2, say=None), data)
    >>> cells.obsm["X_mmvm"].shape
    (30, 2)
    """
    if data.ids != list(map(str, cells.obs_names)):
        raise UserError("the data are of other cells, or in another order: give those that from_cells(cells) made")
    cells.obsm[key] = model.shared(data, how).mean.numpy()
    for name, means in zip(data.names, encode_means(model, data).numpy()):
        if hasattr(cells, "mod"):
            cells.mod[name].obsm[key] = means[cells.obs_names.get_indexer(cells.mod[name].obs_names)]
