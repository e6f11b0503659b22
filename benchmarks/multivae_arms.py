"""MultiVae's models (PyPI `multivae`, optional) with the encoders and decoders of `mmvm`, for the methods both have."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def arms(networks: tuple, modalities: int, latent_dim: int, channels: int, x: list[Tensor]) -> dict[str, Callable]:
    """Per method that both have, one training step; empty where the library is not installed."""
    try:
        from multivae.data.datasets.base import DatasetOutput
        from multivae.models import MVTCAE, MoPoE, MoPoEConfig, MVTCAEConfig
        from multivae.models.base import BaseDecoder, BaseEncoder, ModelOutput
    except ImportError:
        return {}

    class Encoder(BaseEncoder):
        def __init__(self, network: nn.Module):
            super().__init__()
            self.network, self.latent_dim = network, latent_dim

        def forward(self, x):
            mean, logvar = self.network(x)
            return ModelOutput(embedding=mean, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def __init__(self, network: nn.Module):
            super().__init__()
            self.network, self.latent_dim = network, latent_dim

        def forward(self, z):
            return ModelOutput(reconstruction=self.network(z))

    names = [f"m{m}" for m in range(modalities)]
    inputs = DatasetOutput(data=dict(zip(names, x)))
    found = {}
    for method, (kind, config) in {"mvtcae": (MVTCAE, MVTCAEConfig), "mopoe": (MoPoE, MoPoEConfig)}.items():
        torch.manual_seed(0)
        settings = config(n_modalities=modalities, latent_dim=latent_dim,
                          input_dims={name: (3, 28, 28) for name in names},
                          decoders_dist={name: "laplace" for name in names},
                          decoder_dist_params={name: {"scale": 0.75} for name in names})
        model = kind(settings, {name: Encoder(networks[0](latent_dim, channels)) for name in names},
                     {name: Decoder(networks[1](latent_dim, channels)) for name in names})
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)

        def step(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = model(inputs).loss
            loss.backward()
            optimizer.step()
        found[f"MultiVae {method}"] = step
    return found
