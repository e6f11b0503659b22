"""tools/shared_latents.py: what it measures is of samples that have every modality."""

import pytest
import torch

from mmvm import MMVM, Modality, MultimodalData, MultimodalVAE, Normal, UserError
from mmvm.networks import MLPDecoder, MLPEncoder
from tools import shared_latents

SPECS = tuple(Modality(name, (3,), Normal()) for name in ("m0", "m1"))


def test_a_missing_modality_is_refused_not_counted_as_the_prior():
    torch.manual_seed(0)
    encoders, decoders = [MLPEncoder((3,), 2, (4,)) for _ in SPECS], [MLPDecoder((3,), 2, (4,)) for _ in SPECS]
    model = MultimodalVAE(SPECS, encoders, decoders, MMVM())
    x, labels = {spec.name: torch.randn(40, 3) for spec in SPECS}, torch.arange(40) % 2
    whole = MultimodalData(x, SPECS, labels)
    assert {metric for metric, *_ in shared_latents.measure(model, whole, whole)} == {
        "latent_information", "latent_dimensions", "latent_correlation", "probe_transfer"}
    observed = torch.ones(2, 40, dtype=torch.bool)
    observed[1, :10] = False
    some = MultimodalData(x, SPECS, labels, observed=observed)
    with pytest.raises(UserError, match="samples that have every modality: give data.subset"):
        shared_latents.measure(model, whole, some)
    assert len(shared_latents.measure(model, some, some.subset(some.observed.all(0)))) == 10
