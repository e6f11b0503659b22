"""From the files and objects of other libraries to `MultimodalData`, and back: one file each, imported when used."""

from mmvm.bring.cells import from_cells
from mmvm.bring.coordinates import imputed
from mmvm.bring.latents import latents_into
from mmvm.bring.pictures import from_folders

__all__ = ["from_cells", "from_folders", "imputed", "latents_into"]
