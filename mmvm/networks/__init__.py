"""Encoders and decoders for any data: convolutions of small images, residual ones, dense layers.

An encoder maps prepared x (B, *shape) to (mean, logvar), each (B, D). A decoder maps z (B, D) to the parameters of
p(x | z).
"""

from mmvm.networks.conv import ConvDecoder, ConvEncoder
from mmvm.networks.mlp import MLPDecoder, MLPEncoder
from mmvm.networks.present import run_on_present
from mmvm.networks.resnet import ResidualBlock, ResNetDecoder, ResNetEncoder

__all__ = ["ConvDecoder", "ConvEncoder", "MLPDecoder", "MLPEncoder", "ResNetDecoder", "ResNetEncoder", "ResidualBlock",
           "run_on_present"]
