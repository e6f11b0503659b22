"""The numbers that a training is followed by are those of the posteriors, and the figure draws them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mmvm import MMVM, Modality, MultimodalData, MultimodalVAE, Normal, fit
from mmvm.errors import UserError
from mmvm.evaluation import diagnostics
from mmvm.study import figures


def test_they_are_those_of_the_posteriors_and_are_drawn():
    observed = torch.ones(2, 50, dtype=torch.bool)
    observed[1, 10:] = False
    data = MultimodalData({"a": torch.randn(50, 3), "b": torch.randn(50, 4)},
                          (Modality("a", (3,), Normal()), Modality("b", (4,), Normal())), observed=observed)
    model = MultimodalVAE.for_data(data, 2, MMVM(weights=[3.0, 1.0]), say=None)
    history = fit(model, data, epochs=2, batch_size=10, device="cpu", precision="float32",
                  on_epoch=lambda model, epoch: diagnostics(model, data))
    found, q = diagnostics(model, data), model.encode(data.batch(torch.arange(50)).x, observed)
    assert history.epochs[-1]["rate/b"] == found["rate/b"]
    mean, var = q.mean[1, :10].detach().double(), q.var[1, :10].detach().double()
    np.testing.assert_allclose(found["rate/b"], 0.5 * (1 + mean.var(0) / var.mean(0)).log().sum(), rtol=1e-5)
    np.testing.assert_allclose(found["weight/a"], (10 * 0.75 + 40) / 50, rtol=1e-5)
    z = torch.cat([q.mean[0], q.mean[1, :10]]).detach()
    spread = ((z - z.mean(0)).square().sum(1).mean() + torch.cat([q.var[0], q.var[1, :10]]).sum(1).mean()).sqrt()
    np.testing.assert_allclose(found["distance"], float(z.mean(0).norm() / spread.detach()), rtol=1e-4)
    fig = figures.diagnostics({"run": history})
    np.testing.assert_array_equal(fig.axes[0].get_lines()[1].get_ydata(), history["rate/b"])
    np.testing.assert_array_equal(fig.axes[1].get_lines()[0].get_ydata(), -np.array(history["log_likelihood/a"]))
    plt.close(fig)
    with pytest.raises(UserError, match="no column 'distance'"):
        figures.diagnostics({"run": [{"epoch": 1}]})
