"""Everything about a GPU in one call: builds all variants of an update, checks that they agree, and times them.

    python -m benchmarks gpu

The whole data set lies on the device as bytes, a batch is an index there, and nothing waits for the host inside an
epoch. Needs a CUDA device and says so where there is none.
"""

import time

import torch

from benchmarks import timing
from benchmarks.training import flops, images, model_of
from mmvm import fit
from mmvm.errors import UserError
from mmvm.training import plan as speed
from mmvm.training.update import Update

VARIANTS = {  # precision, plan, torch.compile
    "float32": ("float32", "plain", False),
    "bfloat16": ("bfloat16", "plain", False),
    "bfloat16, channels last": ("bfloat16", "channels_last", False),
    "bfloat16, channels last, recorded": ("bfloat16", "channels_last+graph", False),
    "bfloat16, channels last, compiled": ("bfloat16", "channels_last", True),
    "bfloat16, channels last, compiled, recorded": ("bfloat16", "channels_last+graph", True),
    "bfloat16, channels last, grouped, recorded": ("bfloat16", "channels_last+grouped+graph", False),
}


def check(network: str, batch: int, device: torch.device, say=print) -> None:
    """Loss and gradients of every variant against float32, on one batch with the same draws; raises where they differ
    by more than rounding explains."""
    found = {}
    for name, (precision, plan, compiled) in VARIANTS.items():
        data = images(batch, 3).to(device)
        model = model_of(network, data).to(device)
        plan = speed.Plan.parse(plan)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.0, fused=True)
        with plan.applied(model):
            update = Update(model, optimizer, data, precision, device, None, compiled, plan.graph)
            for _ in range(Update.WARM_UP + 2):
                torch.manual_seed(0)
                _, terms = update.gradients(data.batch(torch.arange(batch, device=device)), 0)
                update.apply()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        found[name] = terms.loss.mean().item(), gradient.clone()
        loss, plain = found["float32"]
        off = abs(found[name][0] / loss - 1), float((gradient - plain).norm() / plain.norm())
        say(f"{name}: loss {found[name][0]:.2f}, off by {off[0]:.1e}; gradient off by {off[1]:.1e}")
        # a recorded update draws its noise from another part of the generator's stream: its loss has another draw
        limits = (1e-5, 1e-4) if precision == "float32" else (1e-3, 0.1) if not plan.graph else (1e-2, 0.5)
        if off[0] > limits[0] or off[1] > limits[1]:
            raise UserError(f"{name} does not compute what float32 computes: loss off by {off[0]:.1e}, gradient by "
                            f"{off[1]:.1e}")


def times(network: str, batch: int, rounds: int, n: int = 60_000, modalities: int = 3, say=print) -> list[dict]:
    """Samples a second of whole epochs of the paper's PolyMNIST set, by variant."""
    if not torch.cuda.is_available():
        raise UserError("benchmark gpu needs a CUDA device, and torch sees none: run it where there is one")
    device = torch.device("cuda")
    check(network, batch, device, say)
    data = images(n, modalities).to(device)
    per_sample = flops(network, modalities)
    peak = {precision: max(timing.peaks(precision, device).values()) for precision in ("float32", "bfloat16")}
    found = [{"arm": "machine", "network": network, "precision": precision, "metric": "peak_flops", "value": value}
             for precision, value in peak.items()]
    for name, (precision, plan, compiled) in VARIANTS.items():
        torch.cuda.reset_peak_memory_stats(device)
        history = fit(model_of(network, data), data, epochs=rounds + 1, batch_size=batch, device="cuda",
                      precision=precision, plan=plan, compile=compiled)
        rates = history["samples_per_second"][1:]  # the first epoch compiles and records
        common = {"arm": name, "network": network, "batch": batch, "modalities": modalities, "latent_dim": 512,
                  "precision": precision}
        found += [{**common, "metric": "epoch_samples_per_second", "value": rates},
                  {**common, "metric": "peak_share", "value": [r * per_sample / peak[precision] for r in rates]},
                  {**common, "metric": "memory_bytes", "value": float(torch.cuda.max_memory_allocated(device))},
                  {**common, "metric": "paper_run_minutes", "value": [n * 500 / r / 60 for r in rates]}]
        say(f"{name}: {max(rates):.0f} samples/s, {time.strftime('%H:%M:%S')}")
    return found
