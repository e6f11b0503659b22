"""The encoder and decoder that a modality gets where nobody chose."""

import math
from typing import Any

from torch import nn

from mmvm.errors import UserError
from mmvm.networks.images import ImageDecoder, ImageEncoder
from mmvm.networks.mlp import Log1p, MLPDecoder, MLPEncoder
from mmvm.networks.tokens import TokenDecoder, TokenEncoder


def default_networks(modality: Any, latent_dim: int,
                     n_tokens: int | None = None, log_rates: Any = None) -> tuple[nn.Module, nn.Module, str]:
    """Encoder, decoder and a word on both, for a `Modality` and D = `latent_dim`: dense layers of vectors,
    convolutions of pictures (C, H, W), embeddings of `n_tokens` tokens. Of counts without bound, as of a Poisson,
    encoders see log(1 + x), and decoders begin at `log_rates`, where there are some. Raises `UserError` for all else.

    >>> mmvm.networks.default_networks(specs[0], latent_dim=8)[2]
    'dense layers of 3 numbers, 128 and 128 wide'
    """
    shape = modality.input_shape
    if modality.likelihood.discrete and len(shape) == 1 and n_tokens:
        ignore = modality.likelihood.ignore
        return (TokenEncoder(n_tokens, latent_dim, ignore), TokenDecoder(n_tokens, shape[0], latent_dim),
                f"convolutions over {shape[0]} tokens of {n_tokens}")
    out = modality.likelihood.parameter_shape(modality.shape)
    counts = modality.likelihood.whole and modality.likelihood.highest == math.inf
    said = ", of log(1 + x)" * counts
    if len(shape) == 1 and not modality.likelihood.discrete:
        made: tuple[Any, Any, str] = (MLPEncoder(shape, latent_dim), MLPDecoder(out, latent_dim),
                                      f"dense layers of {shape[0]} numbers{said}, 128 and 128 wide")
    elif len(shape) == 3 and not modality.likelihood.discrete:
        made = (ImageEncoder(shape, latent_dim), ImageDecoder(out, latent_dim),
                f"convolutions of {shape[0]} channels of {shape[1]} x {shape[2]} pixels{said}")
    else:
        raise UserError(f"modality {modality.name!r} has samples of shape {tuple(modality.shape)}, for which there is "
                        "no usual network: give encoders={...} and decoders={...} of your own by its name, or reshape "
                        "it to (F,) or (C, H, W), recordings (N, C, T) as x[:, None]")
    if counts:  # their own size would decide the scale of the latents
        made[0].trunk.insert(0, Log1p())
    if log_rates is not None:  # on the way from rates of 1 to thousands the first updates overshoot, to e^88
        made[1].out.bias.data.copy_(log_rates)
    return made
