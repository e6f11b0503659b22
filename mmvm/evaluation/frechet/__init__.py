"""Distances between distributions of images, real and imagined, in the features of a network."""

from mmvm.evaluation.frechet.distance import classifier_distance, cross_modal, features_of
from mmvm.evaluation.frechet.fid import FIDResult, fid
from mmvm.evaluation.frechet.images import conditional_images
from mmvm.evaluation.frechet.moments import RunningMoments, frechet_distance

__all__ = ["FIDResult", "RunningMoments", "classifier_distance", "conditional_images", "cross_modal", "features_of",
           "fid", "frechet_distance"]
