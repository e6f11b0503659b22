"""Training: samples a second of every way to compute an update, its share of the peak, and the memory it takes."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import multivae_arms, reference, timing
from mmvm import MMVM, Laplace, Modality, MultimodalData, MultimodalVAE, fit
from mmvm.objectives import Objective
from mmvm.training import plan as speed
from mmvm.training.update import Update
from studies.polymnist.networks import NETWORKS
from studies.polymnist.study import PolyMNIST

MODALITIES, LATENT, SEED = 5, 512, 0
CHANNELS = {"conv": 32, "resnet": 64}  # the released widths
# each line adds one thing to the plan of an earlier one; "auto" is what `plan="auto"` finds here
LADDER = {
    "float32": ("float32", "plain"),
    "float32, memory kept": ("float32", "keep_memory"),
    "bfloat16": ("bfloat16", "plain"),
    "bfloat16, channels last": ("bfloat16", "channels_last"),
    "bfloat16, channels last, memory kept": ("bfloat16", "channels_last+keep_memory"),
    "bfloat16, channels last, grouped": ("bfloat16", "channels_last+grouped"),
    "bfloat16, channels last, transposed convolutions in float32": ("bfloat16",
                                                                    "channels_last+float32:conv_transpose"),
    "bfloat16, channels last, one thread": ("bfloat16", "channels_last+threads:1"),
}


def images(n: int, modalities: int = MODALITIES) -> MultimodalData:
    """Random bytes in PolyMNIST's shape: speed does not depend on what the pictures show."""
    generator = torch.Generator().manual_seed(SEED)
    specs = tuple(Modality(f"m{m}", (3, 28, 28), Laplace(0.75), scale=1 / 255) for m in range(modalities))
    x = {spec.name: torch.randint(0, 256, (n, 3, 28, 28), dtype=torch.uint8, generator=generator) for spec in specs}
    return MultimodalData(x, specs, labels=torch.randint(0, 10, (n,), generator=generator), n_classes=10)


def model_of(network: str, data: MultimodalData, objective: Objective | None = None,
             latent_dim: int = LATENT) -> MultimodalVAE:
    torch.manual_seed(SEED)
    encoder, decoder = NETWORKS[network]
    return MultimodalVAE(data.specs, [encoder(latent_dim, CHANNELS[network]) for _ in data.specs],
                         [decoder(latent_dim, CHANNELS[network]) for _ in data.specs], objective or MMVM())


def reference_of(network: str, modalities: int = MODALITIES, latent_dim: int = LATENT) -> reference.Reference:
    torch.manual_seed(SEED)
    encoder, decoder = NETWORKS[network]
    return reference.Reference([encoder(latent_dim, CHANNELS[network]) for _ in range(modalities)],
                               [decoder(latent_dim, CHANNELS[network]) for _ in range(modalities)])


def reference_step(network: str, x: list) -> Callable:
    model = reference_of(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    return lambda: reference.train_step(model, optimizer, x)


def with_adam(model: MultimodalVAE) -> tuple[MultimodalVAE, torch.optim.Optimizer]:
    """Steps of length zero: arms can share the model, which for five ResNets saves 1.6 GB an arm."""
    return model, torch.optim.Adam(model.parameters(), lr=0.0, fused=True)


def update_step(network: str, data: MultimodalData, precision: str, plan: speed.Plan, objective=None,
                latent_dim: int = LATENT, shared: tuple | None = None) -> Callable:
    """One update as `mmvm.fit` makes it: gather, forward, backward, norm, Adam."""
    model, optimizer = shared or with_adam(model_of(network, data, objective, latent_dim))
    update = Update(model, optimizer, data, precision, torch.device("cpu"), None, compile=False, graph=False,
                    learning_rate=0.0)
    index = torch.arange(len(data))

    def step() -> float:
        with plan.applied(model):
            for _ in range(2):  # the first is the one that pays for the change of plan
                start = time.perf_counter()
                update.gradients(data.batch(index), 0)
                update.apply()
                took = time.perf_counter() - start
        return took
    return step


def flops(network: str, modalities: int = MODALITIES, backward: bool = True) -> float:
    """Of the forward and backward pass of one sample, counted by PyTorch."""
    data = images(2, modalities)
    model = model_of(network, data)
    with FlopCounterMode(display=False) as counter:
        loss = model(data.batch(torch.arange(2)).x).loss.mean()
        if backward:
            loss.backward()
    return counter.get_total_flops() / 2


def steps(network: str, batch: int, rounds: int) -> list[dict]:
    """Samples a second of single updates on data in memory."""
    data = images(batch)
    x = [data.modalities[spec.name].float() / 255 for spec in data.specs]
    arms = {"reference": ("float32", reference_step(network, x))}
    if network == "conv":
        for name, step in multivae_arms.arms(NETWORKS[network], MODALITIES, LATENT, CHANNELS[network], x).items():
            arms[name] = ("float32", step)
        for objective in ("mvtcae", "mopoe"):
            arms[objective] = ("float32", update_step(network, data, "float32", speed.Plan(),
                                                      PolyMNIST(objective=objective, latent_dim=LATENT,
                                                                n_modalities=MODALITIES).build_objective()))
    shared = with_adam(model_of(network, data))
    for name, (precision, plan) in LADDER.items():
        if network == "conv" or "transposed" not in name:  # the ResNets have none
            arms[name] = (precision, update_step(network, data, precision, speed.Plan.parse(plan), shared=shared))
    seconds = timing.interleaved({name: step for name, (_, step) in arms.items()}, rounds)

    per_sample, found = flops(network), []
    peak = {precision: max(timing.peaks(precision).values()) for precision in ("float32", "bfloat16")}
    for name, (precision, _) in arms.items():
        common = {"arm": name, "network": network, "batch": batch, "modalities": MODALITIES, "latent_dim": LATENT,
                  "precision": precision}
        rates = [batch / s for s in seconds[name]]
        found.append({**common, "metric": "samples_per_second", "value": rates})
        if name == "reference" or name in LADDER:
            found.append({**common, "metric": "peak_share", "value": [r * per_sample / peak[precision] for r in rates]})
    common = {"arm": "machine", "network": network}
    found += [{**common, "precision": precision, "metric": "peak_flops", "value": value}
              for precision, value in peak.items()]
    common.update(modalities=MODALITIES, latent_dim=LATENT)
    found += [{**common, "metric": "flops_per_sample", "value": per_sample},
              {**common, "metric": "forward_flops_per_sample", "value": flops(network, backward=False)}]
    return found


def chosen(network: str, batch: int, say=print) -> list[dict]:
    """The plan that `plan="auto"` takes here, in both precisions, and how long the choice takes."""
    data, found = images(batch), []
    for precision in ("float32", "bfloat16"):
        start = time.perf_counter()
        plan = speed.measured_plan(model_of(network, data), data.batch(torch.arange(batch)), precision, say=say)
        found.append({"arm": str(plan), "network": network, "batch": batch, "modalities": MODALITIES,
                      "latent_dim": LATENT, "precision": precision, "metric": "choice_seconds",
                      "value": time.perf_counter() - start})
    return found


def epochs(network: str, batch: int, rounds: int, n: int) -> list[dict]:
    """Samples a second over whole epochs, data included: PNG files and the plain loop, arrays in memory, and arrays on
    disk that are memory-mapped."""
    data = images(n)
    precision, plan = LADDER["bfloat16, channels last"]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        reference.write_pngs(folder, list(data.modalities.values()), data.labels)
        loader = torch.utils.data.DataLoader(reference.PNGs(folder), batch, shuffle=True, drop_last=True)
        plain = reference_of(network)
        optimizer = torch.optim.Adam(plain.parameters(), lr=5e-4)
        mapped = _mapped(data, folder)
        models = {name: model_of(network, data) for name in ("memory", "disk", "float32")}

        def pngs():
            for x in loader:
                reference.train_step(plain, optimizer, x)

        def ours(name: str, source: MultimodalData, precision: str, plan: str):
            fit(models[name], source, epochs=1, batch_size=batch, device="cpu", precision=precision, plan=plan)

        arms = {"reference, PNG files": ("float32", pngs),
                "float32, in memory": ("float32", lambda: ours("float32", data, "float32", "plain")),
                "bfloat16, channels last, in memory": (precision, lambda: ours("memory", data, precision, plan)),
                "bfloat16, channels last, memory-mapped": (precision, lambda: ours("disk", mapped, precision, plan))}
        seconds = timing.interleaved({name: arm for name, (_, arm) in arms.items()}, rounds)
        gather = timing.interleaved({"memory": lambda: _gather(data, batch), "disk": lambda: _gather(mapped, batch),
                                     "PNG files": lambda: [None for _ in loader] and None}, rounds)
    common = {"network": network, "batch": batch, "modalities": MODALITIES, "latent_dim": LATENT}
    found = [{**common, "arm": name, "precision": arms[name][0], "metric": "epoch_samples_per_second",
              "value": [n // batch * batch / s for s in values]} for name, values in seconds.items()]
    return found + [{**common, "arm": name, "metric": "gather_samples_per_second", "value": [n / s for s in values]}
                    for name, values in gather.items()]


def _mapped(data: MultimodalData, folder: Path) -> MultimodalData:
    for name, x in data.modalities.items():
        np.save(folder / f"{name}.npy", x.numpy())
    return MultimodalData.from_files({name: folder / f"{name}.npy" for name in data.names}, data.specs)


def _gather(data: MultimodalData, batch: int) -> None:
    for index in torch.randperm(len(data)).split(batch):
        data.batch(index)


def memory(network: str, batch: int, precision: str, plan: str, modalities: int) -> float:
    """Highest resident memory of a process of its own that makes three updates, bytes."""
    words = [sys.executable, "-m", "benchmarks.training", network, str(batch), precision, plan, str(modalities)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(done.stdout)


def memories(network: str, batch: int) -> list[dict]:
    """Peak memory of the plain and of the fast update."""
    return [{"arm": name, "network": network, "batch": batch, "modalities": MODALITIES, "latent_dim": LATENT,
             "precision": precision, "metric": "memory_bytes",
             "value": memory(network, batch, precision, plan, MODALITIES)}
            for name, (precision, plan) in LADDER.items() if name in ("float32", "bfloat16, channels last")]


def _memory(network: str, batch: str, precision: str, plan: str, modalities: str) -> None:
    data = images(int(batch), int(modalities))
    step = update_step(network, data, precision, speed.Plan.parse(plan))
    for _ in range(3):
        step()
    status = Path("/proc/self/status").read_text().splitlines()  # getrusage would count the parent's memory too
    print(next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM")))


if __name__ == "__main__":
    _memory(*sys.argv[1:])
