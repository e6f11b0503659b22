"""Encoders, decoders and classifiers, one file per data set.

An encoder maps prepared x (B, *shape) to (mean, logvar), each (B, D). A decoder maps z (B, D) to the parameters of
p(x | z), for PolyMNIST (B, 3, 28, 28).
"""

from mmvm.networks.hippocampus import OdorClassifier, SpikeDecoder, SpikeEncoder
from mmvm.networks.mlp import MLPDecoder, MLPEncoder
from mmvm.networks.polymnist import (
    NETWORKS,
    ConvDecoder,
    ConvEncoder,
    DigitClassifier,
    NormDecoder,
    NormEncoder,
    ResidualBlock,
    ResNetDecoder,
    ResNetEncoder,
)

__all__ = ["NETWORKS", "ConvDecoder", "ConvEncoder", "DigitClassifier", "MLPDecoder", "MLPEncoder", "NormDecoder",
           "NormEncoder", "OdorClassifier", "ResNetDecoder", "ResNetEncoder", "ResidualBlock", "SpikeDecoder",
           "SpikeEncoder"]
