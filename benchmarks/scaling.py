"""What more modalities and larger latents cost: time, the share of the objective's own term, and memory."""

import subprocess
import sys
import time

import torch

from benchmarks import timing
from benchmarks.training import LADDER, LATENT, MODALITIES, images, memory, model_of, update_step
from mmvm import DiagonalGaussian, LatentDiffusion
from mmvm.diffusion.denoiser import Denoiser
from mmvm.diffusion.learn import loss
from mmvm.objectives import build
from mmvm.training import plan as speed

COUNTS, LATENTS = (2, 3, 5, 10, 20), (32, 128, 512)
FAST = "bfloat16, channels last"


def scaling(batch: int, rounds: int) -> list[dict]:
    """Updates of the convolutional pair against M at D = 512, and against D at M = 5; the MMVM term alone beside it."""
    found = []
    precision, plan = LADDER[FAST]
    settings = [(m, 512) for m in COUNTS] + [(MODALITIES, d) for d in LATENTS if d != 512]
    for m, d in settings:
        data = images(batch, m)
        arms = {"update": update_step("conv", data, precision, speed.Plan.parse(plan), latent_dim=d),
                "MMVM term": mmvm_term(m, batch, d), "MMVM term, all pairs": mmvm_term(m, batch, d, pairs=True)}
        common = {"network": "conv", "batch": batch, "modalities": m, "latent_dim": d, "precision": precision}
        seconds = timing.interleaved(arms, rounds)
        found += [{**common, "arm": name, "metric": "seconds", "value": values} for name, values in seconds.items()]
        found.append({**common, "arm": "MMVM term", "metric": "share_of_update",
                      "value": [a / b for a, b in zip(seconds["MMVM term"], seconds["update"])]})
        if d == 512:
            found.append({**common, "arm": "update", "metric": "memory_bytes",
                          "value": memory("conv", batch, precision, plan, m)})
    return found


POOLS = ("mmvm:prior=geometric", "mmvm:prior=hellinger", "mmvm:bound=variational",
         "mmvm:bound=variational,prior=hellinger", "mmvm:prior=hellinger,pool=matched", "hellinger",
         "hellinger:bhattacharyya=joint")


def pools(batch: int, rounds: int) -> list[dict]:
    """Updates of the convolutional pair with pools of the posteriors at M = 5 and D = 512, each as a multiple of one
    with MMVM's pairwise bound in the same turn."""
    data, found = images(batch), []
    for name in ("float32", FAST):
        precision, plan = LADDER[name]
        arms = {text: update_step("conv", data, precision, speed.Plan.parse(plan), build(text, LATENT, MODALITIES))
                for text in ("mmvm", *POOLS)}
        seconds = timing.interleaved(arms, rounds)
        common = {"network": "conv", "batch": batch, "modalities": MODALITIES, "latent_dim": LATENT,
                  "precision": precision}
        found += [{**common, "arm": text, "metric": "ratio_to_mmvm",
                   "value": [a / b for a, b in zip(seconds[text], seconds["mmvm"])]} for text in POOLS]
    return found


def diffusion(batch: int, rounds: int, n: int = 1_000, steps: int = 50, width: int = 512) -> list[dict]:
    """A latent diffusion at M = 5 and D = 512: n joint samples of so many steps, and an update of its training."""
    torch.manual_seed(0)
    network = Denoiser(MODALITIES, LATENT, width)
    standard = torch.zeros(MODALITIES, LATENT)
    density = LatentDiffusion([f"m{m}" for m in range(MODALITIES)], network, standard, standard + 1, steps=steps)
    optimizer, generator = torch.optim.Adam(network.parameters()), torch.Generator().manual_seed(0)
    z, observed = torch.randn(MODALITIES, batch, LATENT), torch.ones(MODALITIES, batch, dtype=torch.bool)

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network, z, observed, 0.1, generator).backward()
        optimizer.step()
    seconds = timing.interleaved({f"{n} samples of {steps} steps": lambda: timing.without(density.sample(n)),
                                  "update": update}, rounds)
    common = {"network": f"mlp {width}", "modalities": MODALITIES, "latent_dim": LATENT, "precision": "float32"}
    return [{**common, "batch": batch if arm == "update" else n, "arm": arm, "metric": "seconds", "value": own}
            for arm, own in seconds.items()]


def mmvm_term(modalities: int, batch: int, latent_dim: int, pairs: bool = False):
    """Forward and backward pass of what MMVM adds to M separate VAEs, in O(M) or with all M x M pairs."""
    torch.manual_seed(0)
    mean, logvar = (torch.randn(modalities, batch, latent_dim, requires_grad=True) for _ in range(2))
    weights = torch.full((modalities, batch), 1 / modalities)

    def step() -> float:
        start = time.perf_counter()
        q = DiagonalGaussian.within_limits(mean, logvar)
        (q.pairwise_kl() * weights if pairs else q.mean_kl(weights)).sum().backward()
        mean.grad = logvar.grad = None
        return time.perf_counter() - start
    return step


def quality(seeds: int = 3) -> list[dict]:
    """Learning curves of PolyMNIST's smoke run in float32 and in bfloat16: loss after every epoch and probe at the
    end, each as the list over seeds."""
    from mmvm import evaluation as measures
    from studies.polymnist.study import PolyMNIST

    found = []
    train, test = PolyMNIST().data("train"), PolyMNIST().data("test")
    for precision in ("float32", "bfloat16"):
        curves, probes = [], []
        for seed in range(seeds):
            p = PolyMNIST(seed=seed, precision=precision, device="cpu",
                          plan=LADDER[FAST][1] if precision == "bfloat16" else "plain")
            model = p.build_model(train)
            curves.append(p.fit(model, train)["loss"])
            probes.append(float(measures.linear_probe(model, train, test, n=p.n_probe).mean()))
        common = {"arm": precision, "network": p.network, "batch": p.batch_size, "modalities": p.n_modalities,
                  "latent_dim": p.latent_dim, "precision": precision}
        found += [{**common, "metric": f"loss_epoch_{epoch}", "value": list(values)}
                  for epoch, values in enumerate(zip(*curves), 1)]
        found.append({**common, "metric": "probe", "value": probes})
    return found


def evaluation(n: int, rounds: int) -> list[dict]:
    """Seconds of the paper's evaluation, its parts on their own (n test tuples, probe of 10,000 encodings), and of
    starting the program."""
    from mmvm import evaluation as measures
    from studies.polymnist.networks import DigitClassifier

    train, test = images(10_000, 3), images(n, 3)
    model = model_of("conv", train)
    classifiers = [DigitClassifier().eval() for _ in test.specs]
    arms = {"encode": lambda: measures.encode_means(model, test).sum() and None,
            "probe": lambda: measures.linear_probe(model, train, test, n=None).sum() and None,
            "coherence": lambda: measures.coherence(model, test, classifiers).sum() and None,
            "reconstruction": lambda: measures.reconstruction_error(model, test).sum() and None}
    starts = {"import mmvm": ["-c", "import mmvm"],
              "python -m mmvm train --dry-run": ["-m", "mmvm", "train", "polymnist", "--dry-run"]}
    for name, words in starts.items():
        arms[name] = lambda words=words: timing.without(subprocess.run([sys.executable, *words], check=True,
                                                                       stdout=subprocess.DEVNULL))
    seconds = timing.interleaved(arms, rounds)
    return [{"arm": name, "network": "conv", "batch": n, "modalities": 3, "latent_dim": 512, "precision": "float32",
             "metric": "evaluation_seconds", "value": values} for name, values in seconds.items()]
