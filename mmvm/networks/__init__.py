"""Encoders and decoders for any data: convolutions of small images, residual ones, dense layers.

An encoder maps prepared x (B, *shape) to (mean, logvar), each (B, D); where a gate reads features, it shows them by a
last layer named `mean`, or returns them (B, F) after the two (`mmvm.networks.features`). A decoder maps z (B, D) to
the parameters of p(x | z).
"""

from mmvm.networks.conv import ConvDecoder, ConvEncoder
from mmvm.networks.default import default_networks
from mmvm.networks.images import ImageDecoder, ImageEncoder
from mmvm.networks.mlp import MLPDecoder, MLPEncoder
from mmvm.networks.present import run_on_present
from mmvm.networks.resnet import ResidualBlock, ResNetDecoder, ResNetEncoder
from mmvm.networks.tokens import TokenDecoder, TokenEncoder

__all__ = ["ConvDecoder", "ConvEncoder", "ImageDecoder", "ImageEncoder", "MLPDecoder", "MLPEncoder", "ResNetDecoder",
           "ResNetEncoder", "ResidualBlock", "TokenDecoder", "TokenEncoder", "default_networks", "run_on_present"]
