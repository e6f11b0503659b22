"""What the live decoder is given: the weights of the model that ships, ten test digits, and no layer it cannot run."""

import base64
import json

import numpy as np
import pytest
import torch
from torch import nn

from mmvm import UserError, pretrained
from mmvm.networks import ConvDecoder
from studies.pages import decoder


@pytest.fixture(scope="module")
def payload():
    return json.loads(decoder.script().removeprefix("window.mmvmDecoder = ").rstrip(";\n"))


def test_the_script_holds_the_weights_of_the_model_that_ships(payload):
    model = pretrained(decoder.MODEL)
    for layers, network in zip(payload["decoders"], model.decoders, strict=True):
        held = [np.frombuffer(base64.b64decode(layer[name]), "<u2") for layer in layers if layer["kind"] != "relu"
                for name in ("weight", "bias")]
        for own, weight in zip(held, network.parameters(), strict=True):
            assert np.array_equal((own.astype(np.uint32) << 16).view(np.float32), weight.detach().flatten().numpy())


def test_the_script_holds_a_test_tuple_of_each_digit(payload):
    assert payload["labels"] == list(range(10))
    assert len(base64.b64decode(payload["pictures"])) == len(payload["names"]) * 10 * 3 * payload["side"] ** 2
    assert len(base64.b64decode(payload["means"])) == len(payload["names"]) * 10 * payload["latent"] * 8


def test_other_layers_and_other_weights_are_refused():
    small = ConvDecoder(4, 2)
    with pytest.raises(UserError, match="bfloat16"):
        decoder.layers(small)
    for parameter in small.parameters():
        parameter.data = parameter.data.bfloat16().float()
    assert [layer["kind"] for layer in decoder.layers(small)] == ["dense", *["relu", "up"] * 3]
    small.trunk.append(nn.Sigmoid())
    with pytest.raises(UserError, match="runs no Sigmoid"):
        decoder.layers(small)


def test_means_are_the_models(payload):
    model, data = pretrained(decoder.MODEL), decoder.digits()
    wanted = model.encode(data.modalities).mean.detach()
    assert torch.allclose(decoder.means(model, data).float(), wanted, atol=1e-4)
