"""What the live decoder of the page `polymnist` runs: the decoders of the model that ships, and ten test tuples.

`script` is written beside the page by book/_ext/players.py; book/_static/decoder.js runs it.
"""

import base64
import json
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.model import MultimodalVAE
from mmvm.pretrained import place, pretrained
from mmvm.study.registry import STUDIES

MODEL = "polymnist/mmvm"
AMONG = 200  # test tuples, of which each digit's first is shown
CAPTION = ("z goes along the straight line between the posterior means of two test pictures, from and to; every "
           "decoder draws what it makes of it. The model is the one that ships, its networks run in this page.")


def digits() -> MultimodalData:
    """The first test tuple of each digit, in the order of the digits, as the model that ships was measured on."""
    p = STUDIES[MODEL.partition("/")[0]].from_profile(str(place(MODEL, ".yaml")))
    data = replace(p, n_test=AMONG).data("test")
    return data.subset(torch.tensor([int((data.labels == label).nonzero()[0]) for label in range(data.n_classes)]))


def means(model: MultimodalVAE, data: MultimodalData) -> Tensor:
    """Posterior means (M, N, D) in 64 bits."""
    model = model.double()
    with torch.no_grad():
        return torch.stack([encoder(data.modalities[spec.name].double() * spec.scale)[0]
                            for encoder, spec in zip(model.encoders, data.specs)])


def layers(decoder: nn.Module) -> list[dict]:
    """The layers of a small convolutional decoder as the script takes them. `UserError` for others."""
    found = [{"kind": "dense", "shape": [4 * decoder.channels, 4, 4], **_weights(decoder.project)}]
    for layer in decoder.trunk:
        if isinstance(layer, nn.ReLU):
            found.append({"kind": "relu"})
        elif isinstance(layer, nn.ConvTranspose2d):
            sizes = {"kernel": layer.kernel_size, "stride": layer.stride, "padding": layer.padding,
                     "extra": layer.output_padding}
            found.append({"kind": "up", **{name: pair[0] for name, pair in sizes.items()}, **_weights(layer)})
        else:
            raise UserError(f"the live decoder runs no {type(layer).__name__}: ship a model with network=conv, or "
                            "teach book/_static/decoder.js that layer")
    return found


def script() -> str:
    """Decoders, pictures and means as a script, which a page can load from the disk too."""
    model, data = pretrained(MODEL), digits()
    decoders, z = [layers(decoder) for decoder in model.decoders], means(model, data)
    payload = {"side": data.specs[0].shape[-1], "latent": z.shape[-1], "names": data.names,
               "labels": data.labels.tolist(), "caption": CAPTION,
               "decoders": decoders,
               "pictures": _text(np.stack([data.modalities[name].numpy() for name in data.names])),
               "means": _text(z.numpy().astype("<f8"))}
    return f"window.mmvmDecoder = {json.dumps(payload, separators=(',', ':'))};\n"


def _weights(layer: nn.Module) -> dict[str, str]:
    return {"weight": _half(layer.weight), "bias": _half(layer.bias)}


def _half(x: Tensor) -> str:
    """As bfloat16, which the weights of a model that ships are."""
    half = x.detach().bfloat16()
    if not torch.equal(half.to(x.dtype), x):
        raise UserError("the live decoder takes weights that were kept in bfloat16: ship the model with tools/ship.py")
    return _text(half.view(torch.int16).numpy().astype("<i2"))


def _text(x: np.ndarray) -> str:
    return base64.b64encode(x.tobytes()).decode()
