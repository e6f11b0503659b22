"""Encoders and decoders of new-study; whatever is an nn.Module may stand here."""

from torch import nn

from mmvm import MultimodalData
from mmvm.networks import MLPDecoder, MLPEncoder


def networks(data: MultimodalData, latent_dim: int, width: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """One encoder, x (B, F) -> mean and log-variance (B, D), and one decoder, z (B, D) -> the likelihood's parameters,
    per modality, each with two hidden layers."""
    widths = (width, width)
    encoders = [MLPEncoder(spec.input_shape, latent_dim, widths) for spec in data.specs]
    decoders = [MLPDecoder(spec.likelihood.parameter_shape(spec.shape), latent_dim, widths) for spec in data.specs]
    return encoders, decoders
