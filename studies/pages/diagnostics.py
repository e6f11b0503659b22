"""Runs of the page `diagnostics`: the two halves of handwritten digits, trained well, and badly in four ways."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill

import numpy as np
import torch
from sklearn.datasets import load_digits

from mmvm import Modality, MultimodalData, MultimodalVAE, Normal, fit
from mmvm.evaluation import diagnostics
from mmvm.training import History, TrainingWarning

N, LATENT_DIM = 512, 4


def halves(offset: float = 0.0, left: float = 1.0, weight: float = 1.0, standardise: bool = False,
           noise: bool = False) -> MultimodalData:
    """Left and right halves, 8 x 4 pixels of scikit-learn's digits (0 to 1), as two modalities of 32 numbers: `offset`
    is added to all, the left ones are multiplied by `left` and have that `weight`; with `noise` the right ones are
    uniform noise, of which nothing can be learnt."""
    images = load_digits().images[:N].astype(np.float32) / 16
    x = {"left": left * images[:, :, :4].reshape(N, -1) + offset, "right": images[:, :, 4:].reshape(N, -1) + offset}
    if noise:
        x["right"] = np.random.default_rng(0).random(x["right"].shape, dtype=np.float32)
    scale = 1.0 if standardise else 0.2
    specs = [Modality(name, (32,), Normal(scale), standardise=standardise) for name in x]
    return MultimodalData(x, (replace(specs[0], weight=weight), specs[1]))


def trained(data: MultimodalData, epochs: int, beta: float = 1.0, objective: str = "mmvm",
            seed: int = 0) -> tuple[History, list[str]]:
    """A run's history, with `evaluation.diagnostics` of every epoch, and what it warned of."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        model = MultimodalVAE.for_data(data, LATENT_DIM, objective, beta, say=None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        history = fit(model, data, epochs=epochs, batch_size=32, learning_rate=1e-3, seed=seed, device="cpu",
                      precision="float32", on_epoch=lambda model, epoch: diagnostics(model, data))
    return history, [str(warning.message) for warning in said if issubclass(warning.category, TrainingWarning)]


def lines(said: Sequence[str], width: int = 84) -> str:
    """Sentences in lines that a page shows whole."""
    return "\n".join(fill(one, width) for one in said)


# what fails -> data and run that fail, data and run that do not
CASES = {
    "collapsed": ((dict(), dict(beta=100.0)), (dict(), dict())),
    "drowned": ((dict(left=16.0), dict()), (dict(left=16.0, weight=1 / 256), dict())),
    "drifting": ((dict(offset=10.0), dict()), (dict(offset=10.0, standardise=True), dict())),
    "gate": ((dict(noise=True), dict(objective="mmvm:gate=soft")),
             (dict(noise=True), dict(objective="mmvm:gate=soft,load_balance=5"))),
}
