"""Every figure of the book, in one style; a file per chapter.

A function takes numbers, draws one figure and returns it; what it shows was computed by the caller.
"""

from mmvm.plots.common import (
    METHOD_COLOURS,
    METHOD_MARKERS,
    METHOD_NAMES,
    MODALITY_COLOURS,
    by_method,
    imputations,
    learning_curves,
    matrices,
    modality_colour,
    reconstructions,
    tradeoff,
    use_style,
)
from mmvm.plots.cost import bars, roofline, scaling_with_modalities
from mmvm.plots.cub import against_beta, by_attribute, caption_to_image, image_to_caption, pairs
from mmvm.plots.hippocampus import (
    in_and_out_of_sample,
    odor_maps,
    over_beta,
    rasters,
    trajectories,
    unit_by_odor,
)
from mmvm.plots.intro import idea
from mmvm.plots.method import bounds, descent, posteriors_and_prior, schedules, sharing, toy_latents
from mmvm.plots.mimic_cxr import (
    auroc_by_label,
    imagined_laterals,
    label_efficiency,
    over_missing,
    reliability_curves,
    second_view,
    views,
)
from mmvm.plots.polymnist import latent_maps, tuples

__all__ = ["METHOD_COLOURS", "METHOD_MARKERS", "METHOD_NAMES", "MODALITY_COLOURS", "against_beta", "auroc_by_label",
           "bars", "bounds", "by_attribute", "by_method", "caption_to_image", "descent", "idea", "image_to_caption",
           "imagined_laterals", "imputations", "in_and_out_of_sample", "label_efficiency", "latent_maps",
           "learning_curves", "matrices", "modality_colour", "odor_maps", "over_beta", "over_missing", "pairs",
           "posteriors_and_prior", "rasters", "reconstructions", "reliability_curves", "roofline",
           "scaling_with_modalities", "schedules", "second_view", "sharing", "toy_latents", "tradeoff", "trajectories",
           "tuples", "unit_by_odor", "use_style", "views"]
