"""Two processes on one model: the gradients, weights and files of one. Gloo on the CPU, as torchrun starts them."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from mmvm import UserError, training
from mmvm.__main__ import main
from mmvm.paths import REPOSITORY
from mmvm.training import distributed
from studies.polymnist.study import PolyMNIST

pytestmark = pytest.mark.slow

SETTINGS = ["n_modalities=2", "n_train=64", "n_test=40", "network=conv:channels=2", "latent_dim=4",
            "batch_size=16", "n_probe=64", "classifier_epochs=1", "device=cpu"]
# the gradients of the first batch and the weights after two updates, with every draw at its mean: draws differ between
# processes, so only without them can one be compared with two
SCRIPT = """
    import sys
    import torch
    from mmvm import DiagonalGaussian, fit
    from mmvm.training import distributed
    from mmvm.training.update import Update
    from studies.polymnist.study import PolyMNIST

    DiagonalGaussian.sample = lambda self, generator=None: self.mean + 0 * self.std
    made, gradients = Update.gradients, []

    def kept(self, batch, step):
        out = made(self, batch, step)
        gradients.append(torch.cat([q.grad.flatten() for q in self.model.parameters() if q.requires_grad]))
        return out

    Update.gradients = kept

    def trained(objective):
        p = PolyMNIST(objective=objective, n_modalities=2, n_train=32, network="conv:channels=2", latent_dim=4,
                      device="cpu")
        data = p.data("train")
        model = p.build_model(data)
        gradients.clear()
        history = fit(model, data, epochs=1, batch_size=16, learning_rate=1e-3, device="cpu", precision="float32")
        weights = torch.cat([q.detach().flatten() for q in model.parameters()])
        return {"gradients": gradients[0], "weights": weights, "loss": torch.tensor(history["loss"][0])}

    objectives = sys.argv[2:]
    one = {objective: trained(objective) for objective in objectives}
    with distributed.started() as ranks:
        two = {objective: trained(objective) for objective in objectives}
        if ranks.rank == 0:
            torch.save((one, two), sys.argv[1])
"""


def start(*arguments: str, processes: int, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    launcher = []
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(port)]
    return subprocess.run([sys.executable, *launcher, *arguments], cwd=cwd, env=environment, capture_output=True,
                          text=True, timeout=300)


def test_two_processes_make_the_updates_of_one(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    objectives = ["mmvm", "independent", "avg", "poe", "mvtcae"]  # the others draw more than from posteriors
    done = start(str(tmp_path / "script.py"), str(tmp_path / "found.pt"), *objectives, processes=2)
    assert done.returncode == 0, done.stderr
    one, two = torch.load(tmp_path / "found.pt")
    for objective in objectives:
        for name, value in one[objective].items():
            difference = (value - two[objective][name]).norm() / value.norm()
            assert difference < 1e-5, f"{objective}, {name}: {difference:.1e}"


def test_torchrun_trains_evaluates_once_and_another_number_continues(tmp_path):
    def words(epochs: int) -> list[str]:
        settings = [word for setting in (*SETTINGS, f"epochs={epochs}") for word in ("--set", setting)]
        return ["train", "polymnist", "--out", str(tmp_path / "run"), *settings]

    assert main(words(epochs=1)) == 0
    done = start("-m", "mmvm", *words(epochs=2), processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("rows in ") == done.stdout.count("objective  ") == 1, "process 0 speaks alone"
    assert main(words(epochs=3)) == 0
    history = training.read_history(tmp_path / "run")
    assert [row["epoch"] for row in history] == [1, 2, 3] and [row["step"] for row in history] == [4, 8, 12]
    assert history[2]["loss"] < history[0]["loss"]
    _, metadata = training.read_checkpoint(tmp_path / "run" / training.CHECKPOINT)
    assert json.loads(metadata["progress"])["epoch"] == 3
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [training.CHECKPOINT, training.HISTORY,
                                                                         "results.csv"]


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "ranks", lambda: distributed.Ranks(0, 2, 0))
    p = PolyMNIST(n_modalities=2, n_train=30, network="conv:channels=2", latent_dim=4, batch_size=15, device="cpu")
    data = p.data("train")
    with pytest.raises(UserError, match="a batch of 15 samples cannot be shared by 2 processes: choose a batch_size"):
        p.fit(p.build_model(data), data)


def test_one_process_shares_with_nobody():
    ranks = distributed.ranks()
    assert ranks == distributed.Ranks(0, 1, 0)
    index, values = torch.arange(5), torch.ones(3)
    assert ranks.share(index) is index and ranks.average(values) is values and ranks.told("plain") == "plain"
    with distributed.started() as found:
        assert found == ranks
