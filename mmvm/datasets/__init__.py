"""One module per data set, one `load()` each."""

from mmvm.datasets.base import Batch, Modality, MultimodalData, Repeated

__all__ = ["Batch", "Modality", "MultimodalData", "Repeated"]
