"""One module per data set, one `load()` each."""

from mmvm.datasets.base import Batch, Modality, MultimodalData

__all__ = ["Batch", "Modality", "MultimodalData"]
